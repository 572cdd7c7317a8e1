//! The record of a run: written when the run is over, whatever its end, into the regions and the local catalog.
//! Best effort: what could not be written is named.

use super::backup::BackupReport;
use super::forget::ForgetReport;
use super::ledger::{Ledger, region_ref};
use super::prune;
use super::repair::RepairReport;
use super::replicate;
use super::restore::RestoreReport;
use super::verify::VerifyReport;
use crate::base::{ConfigNo, Digest, Env, Epoch, PackName, RunId, SessionId};
use crate::catalog::SnapshotLine;
use crate::error::{Error, Exit, Kind, Result};
use crate::format::envelope::Kind as ObjectKind;
use crate::format::run::{ERRORS_MAX, Figure, Lagging, Run, RunKind};
use crate::format::signed::Fresh;
use crate::format::snapshot::{Miss, Mode};
use crate::model::verdict::Grade;
use crate::region::Finding;
use crate::repo::Repo;
use crate::store::{Key, Put};

/// Figure of a check: damaged objects that are no packs; of those the catalog knows each.
pub const DAMAGED: &str = "damaged";
/// Figure of a check: what no region can restore.
pub const BROKEN: &str = "broken";
/// Figure of a check: what newer objects vouch for and is gone.
pub const LOST: &str = "lost";

/// What a run says at its end.
#[derive(Debug, Clone, Default)]
pub struct Closing {
    /// Name of the policy.
    pub policy: Option<String>,
    /// Name of the source.
    pub source: Option<String>,
    /// Mode or level.
    pub how: Option<String>,
    /// Snapshots made, restored or forgotten.
    pub snapshots: Vec<SessionId>,
    /// Figures by name.
    pub figures: Vec<(&'static str, u64)>,
    /// Regions that have everything.
    pub reached: Vec<String>,
    /// Regions that have not, and why.
    pub behind: Vec<(String, String)>,
    /// The first errors.
    pub errors: Vec<Miss>,
    /// How many there were.
    pub errors_total: u64,
    /// Packs stored, or removed.
    pub packs: Vec<PackName>,
    /// Whether further snapshots came into regions that had been behind, or all of them were looked at.
    pub moved: bool,
    /// Whether a person has said that the snapshot is right as it is, however small.
    pub accepted: bool,
}

impl Closing {
    /// A backup that made a snapshot.
    #[must_use]
    pub fn backup(self, report: &BackupReport) -> Closing {
        let (c, t) = (&report.counts, &report.transfer);
        let verdicts = report.verdicts.iter().flat_map(|verdicts| {
            let count = |grade| verdicts.report.count(grade) as u64;
            [
                ("verdicts.malformed", verdicts.report.malformed_total),
                ("verdicts.refused", verdicts.refused() as u64),
                ("verdicts.unknown", count(Grade::Unknown)),
                ("verdicts.unsafe", count(Grade::Unsafe)),
            ]
        });
        let mut figures = report.models.figures();
        figures.extend([
            ("bytes", c.bytes),
            ("bytes_new", t.bytes_new),
            ("bytes_read", t.bytes_read),
            ("bytes_stored", t.bytes_stored),
            ("changed_total", report.changed_total),
            ("chunks_new", t.chunks_new),
            ("chunks_used", t.chunks_used),
            ("directories", c.dirs),
            ("encoder_errors", report.encoder_errors),
            ("excluded", c.excluded),
            ("files", c.files),
            ("files_read", c.files_read),
            ("files_unchanged", c.files_unchanged),
            ("other", c.other),
            ("symlinks", c.symlinks),
        ]);
        figures.extend(verdicts);
        Closing {
            source: Some(report.source.clone()),
            snapshots: report.snapshot.into_iter().collect(),
            figures,
            reached: report.regions.clone(),
            behind: report.behind.clone(),
            errors: report.errors.clone(),
            errors_total: report.errors_total,
            packs: report.packs.clone(),
            moved: report.caught_up.snapshots > 0,
            accepted: report.accepted,
            how: Some(report.mode.name().into()),
            ..self
        }
    }

    /// A verification that came to its end.
    #[must_use]
    pub fn verify(self, report: &VerifyReport) -> Closing {
        let sum = |of: fn(&super::verify::RegionReport) -> u64| report.regions.iter().map(of).sum();
        let wrong = report.findings.iter().map(|f| ("damage", f.to_string()));
        let broken = report.broken.iter().map(|b| ("broken", b.clone()));
        let lost = report.lost.iter().map(|l| ("lost", l.clone()));
        let miss = |(kind, message): (&str, String)| Miss { path: Vec::new().into(), kind: kind.into(), message };
        let errors: Vec<Miss> = wrong.chain(broken).chain(lost).map(miss).collect();
        let failed = |r: &super::verify::RegionReport| r.failed.clone().map(|why| (r.region.clone(), why));
        let small = |f: &&Finding| !matches!(Key::parse(&f.object), Some(Key::Pack(_)));
        Closing {
            figures: vec![
                (BROKEN, report.broken.len() as u64),
                ("bytes", sum(|r| r.bytes)),
                ("chunks", sum(|r| r.chunks)),
                (DAMAGED, report.findings.iter().filter(small).count() as u64),
                (LOST, report.lost.len() as u64),
                ("objects", sum(|r| r.objects)),
                ("snapshots", report.snapshots),
            ],
            moved: report.keyed,
            reached: report.regions.iter().filter(|r| r.failed.is_none()).map(|r| r.region.clone()).collect(),
            behind: report.regions.iter().filter_map(failed).collect(),
            errors_total: errors.len() as u64,
            errors,
            ..self
        }
    }

    /// What was mended after a verification.
    #[must_use]
    pub fn repair(mut self, report: &RepairReport) -> Closing {
        self.figures.extend([
            ("caught_up", report.caught_up.objects),
            ("left", report.left()),
            ("put_back", report.put_back()),
        ]);
        self
    }

    /// A restore that came to its end.
    #[must_use]
    pub fn restore(self, report: &RestoreReport) -> Closing {
        Closing {
            figures: vec![
                ("bytes", report.bytes),
                ("bytes_written", report.bytes_written),
                ("deleted", report.deleted),
                ("directories", report.dirs),
                ("files", report.files),
                ("files_same", report.files_same),
                ("lost", report.lost),
                ("other", report.others),
            ],
            errors: report.misses.clone(),
            errors_total: report.misses_total,
            ..self
        }
    }

    /// Regions that were brought up.
    #[must_use]
    pub fn replicate(self, report: &replicate::Report) -> Closing {
        let moved = report.moved();
        Closing {
            figures: vec![("bytes", moved.bytes), ("objects", moved.objects), ("snapshots", report.snapshots)],
            reached: report.regions.iter().filter(|r| r.is_complete()).map(|r| r.region.clone()).collect(),
            behind: report.behind(),
            ..self
        }
    }

    /// What no snapshot needs was removed.
    #[must_use]
    pub fn prune(self, report: &prune::Report) -> Closing {
        let removed = report.removed();
        let planned = |reason: prune::Reason| {
            let own = report.plan.iter().filter(|line| line.reason == reason);
            own.fold(0u64, |sum, line| sum.saturating_add(line.size))
        };
        // What was not looked at is no figure.
        let looked = [
            ("bytes_kept", report.kept.map(|kept| kept.bytes)),
            ("bytes_unused", report.unused),
            ("snapshots", report.snapshots),
        ];
        let looked = looked.into_iter().filter_map(|(name, value)| Some((name, value?)));
        let figures = [
            ("bytes_copy", planned(prune::Reason::Copy)),
            ("bytes_dead", planned(prune::Reason::Dead)),
            ("bytes_orphan", planned(prune::Reason::Orphan)),
            ("bytes_removed", removed.bytes),
            ("packs_removed", removed.packs),
            ("snapshots_forgotten", report.forgotten.len() as u64),
        ];
        Closing {
            figures: figures.into_iter().chain(looked).collect(),
            reached: report.regions.iter().filter(|r| r.failed.is_none()).map(|r| r.region.clone()).collect(),
            behind: report.behind(),
            packs: report.gone().into_iter().collect(),
            ..self
        }
    }

    /// Snapshots that were forgotten.
    #[must_use]
    pub fn forget(self, report: &ForgetReport) -> Closing {
        Closing {
            snapshots: report.forgotten.iter().map(|target| target.sid).collect(),
            behind: report.behind.clone(),
            ..self
        }
    }
}

/// A run that is going on.
struct Recorder<'r> {
    /// Without it the run is recorded in the catalog alone: there is no key to sign with.
    repo: Option<&'r Repo>,
    ledger: &'r Ledger,
    env: &'r Env,
    id: RunId,
    kind: RunKind,
    host: String,
    start: i64,
}

/// What became of a record.
#[derive(Debug, Clone)]
pub struct Closed {
    /// The run.
    pub id: RunId,
    /// Regions that did not take the record, and why.
    pub missed: Vec<(String, String)>,
}

impl Closed {
    /// A region without the record is behind, too.
    pub fn count_missed(&self, behind: &mut Vec<(String, String)>) {
        for (region, why) in &self.missed {
            if !behind.iter().any(|(named, _)| named == region) {
                behind.push((region.clone(), format!("has no record of this run: {why}")));
            }
        }
    }
}

/// What is known of a run when it begins.
pub struct Opening<'r> {
    /// What it does.
    pub kind: RunKind,
    /// Without it the run is recorded in the catalog alone.
    pub repo: Option<&'r Repo>,
    /// Where it runs.
    pub host: String,
    /// What stands in its record also when it fails.
    pub closing: Closing,
}

impl Opening<'_> {
    /// Runs `act`, and records how it ended, whatever its end; `end` says what it did.
    ///
    /// # Errors
    /// Those of `act`, or the kernel gave no random bytes.
    pub fn run<T>(
        self,
        ledger: &Ledger,
        act: impl FnOnce() -> Result<T>,
        end: impl FnOnce(&T, Closing) -> (Closing, Exit),
    ) -> (Result<T>, Option<Closed>) {
        self.run_if(ledger, act, end, |_, _| true)
    }

    /// The same, recorded only where `worth` says so; what it did is in the catalog either way.
    ///
    /// # Errors
    /// As for [`Opening::run`].
    pub fn run_if<T>(
        self,
        ledger: &Ledger,
        act: impl FnOnce() -> Result<T>,
        end: impl FnOnce(&T, Closing) -> (Closing, Exit),
        worth: impl FnOnce(&mut Closing, Exit) -> bool,
    ) -> (Result<T>, Option<Closed>) {
        let recorder = match Recorder::begin(self.repo, ledger, &ledger.env, self.kind, self.host) {
            Ok(recorder) => recorder,
            Err(e) => return (Err(e), None),
        };
        match (self.kind, self.repo) {
            (RunKind::Backup, Some(repo)) => suspect(repo, ledger, self.closing.how.as_deref()),
            // A copy that is damaged anywhere is none for which another one may go.
            (RunKind::Prune, Some(repo)) => suspect(repo, ledger, Some(RunKind::Prune.name())),
            _ => {}
        }
        let done = act();
        let (mut closing, exit) = match &done {
            Ok(value) => end(value, self.closing),
            Err(e) => (self.closing, e.exit()),
        };
        let worth = worth(&mut closing, exit);
        let closed = match &done {
            Ok(_) if worth => Some(recorder.done(closing, exit)),
            Err(e) if worth => recorder.failed(closing, e),
            Ok(_) => {
                recorder.catalogued(&closing);
                None
            }
            Err(_) => None,
        };
        (done, closed)
    }
}

/// What checks have found damaged is not built upon: it is stored again while the source still has it. An incremental
/// backup does so for what is nowhere intact, others also for what one region lacks.
fn suspect(repo: &Repo, ledger: &Ledger, how: Option<&str>) {
    let everywhere = how.is_none_or(|how| how == Mode::Incremental.name());
    let packs = ledger.with(|catalog| catalog.damaged(everywhere)).unwrap_or_default();
    repo.regions.suspect(packs);
}

impl<'r> Recorder<'r> {
    /// A run begins, on this host.
    ///
    /// # Errors
    /// The kernel gave no random bytes.
    fn begin(
        repo: Option<&'r Repo>,
        ledger: &'r Ledger,
        env: &'r Env,
        kind: RunKind,
        host: String,
    ) -> Result<Recorder<'r>> {
        let id = RunId(env.random()?);
        Ok(Recorder { repo, ledger, env, id, kind, host, start: env.now().0 })
    }

    /// The run ended with an error. Wrong usage is no run. After damage that stopped everything, a rollback of the
    /// configuration for one, nothing more is written to the regions: the keys may be old ones.
    fn failed(mut self, closing: Closing, error: &Error) -> Option<Closed> {
        match error.kind() {
            Kind::Config => return None,
            Kind::Damage | Kind::Foreign | Kind::Newer | Kind::WrongKey => self.repo = None,
            _ => {}
        }
        Some(self.end(closing, error.exit(), Some(error.to_string())))
    }

    /// The run came to its end.
    fn done(self, closing: Closing, exit: Exit) -> Closed {
        self.end(closing, exit, None)
    }

    fn end(self, closing: Closing, exit: Exit, error: Option<String>) -> Closed {
        // A restore on a new machine has no time to read the history back: who asks for it next does.
        let filled_by = self.repo.filter(|_| self.kind != RunKind::Restore);
        if let Some(repo) = filled_by {
            self.ledger.refill(repo, closing.snapshots.len());
        }
        let mut run = self.record(&closing, exit, error);
        let missed = self.repo.map_or_else(Vec::new, |repo| send(repo, &run));
        let writes = matches!(self.kind, RunKind::Backup | RunKind::Forget | RunKind::Replicate | RunKind::Prune);
        if writes && !missed.is_empty() && exit == Exit::Done {
            (run.exit, run.exit_name) = (Exit::Behind as u8, Exit::Behind.name().into());
        }
        self.ledger.with(|catalog| catalog.put_runs(std::slice::from_ref(&run)));
        self.catalogued(&closing);
        if let Some(repo) = filled_by {
            // Once more: damage may have been met only now.
            self.ledger.refill(repo, closing.snapshots.len());
        }
        Closed { id: self.id, missed }
    }

    fn record(&self, closing: &Closing, exit: Exit, error: Option<String>) -> Run {
        let figure = |(name, value): &(&str, u64)| Figure { name: (*name).into(), value: *value };
        let mut figures: Vec<Figure> = closing.figures.iter().map(figure).collect();
        figures.sort();
        let lagging = |(region, why): &(String, String)| Lagging { region: region.clone(), why: why.clone() };
        let nothing = Fresh { config: ConfigNo(0), digest: Digest::ZERO, epoch: Epoch(0) };
        Run {
            fresh: self.repo.map_or(nothing, Repo::fresh),
            id: self.id,
            kind: self.kind.name().into(),
            policy: closing.policy.clone(),
            source: closing.source.clone(),
            host: self.host.clone(),
            start: self.start,
            end: self.env.now().0,
            exit: exit as u8,
            exit_name: exit.name().into(),
            snapshots: closing.snapshots.clone(),
            figures,
            reached: closing.reached.clone(),
            behind: closing.behind.iter().map(lagging).collect(),
            errors: closing.errors.iter().take(ERRORS_MAX).cloned().collect(),
            errors_total: closing.errors_total,
            program: env!("CARGO_PKG_VERSION").into(),
            error,
            how: closing.how.clone(),
        }
    }

    /// What the run changed, for the catalog.
    fn catalogued(&self, closing: &Closing) {
        if let Some(repo) = self.repo {
            self.keep(repo, closing);
        }
    }

    fn keep(&self, repo: &Repo, closing: &Closing) {
        let now = self.env.now().0;
        let regions = &repo.regions;
        let reached = (0..regions.len()).filter(|ix| closing.reached.contains(&regions.region(*ix).name));
        let reached: Vec<_> = reached.filter_map(|ix| region_ref(regions, ix)).collect();
        if !closing.packs.is_empty() && self.kind != RunKind::Prune {
            for region in &reached {
                self.ledger.with(|catalog| catalog.add_packs(region, &closing.packs, now));
            }
        }
        match (self.kind, closing.moved) {
            (RunKind::Backup | RunKind::Verify, true) | (RunKind::Replicate, _) => self.ledger.resync(repo),
            (RunKind::Backup, false) => {
                let how = closing.how.clone().unwrap_or_default();
                let count = |name| closing.figures.iter().find(|(n, _)| *n == name).map_or(0, |(_, value)| *value);
                let line = |sid: &SessionId| SnapshotLine {
                    sid: *sid,
                    source: closing.source.clone().unwrap_or_default(),
                    host: self.host.clone(),
                    start: self.start,
                    mode: how.clone(),
                    files: count("files"),
                    bytes: count("bytes"),
                    errors: closing.errors_total,
                    accepted: closing.accepted,
                    regions: reached.clone(),
                };
                let lines: Vec<SnapshotLine> = closing.snapshots.iter().map(line).collect();
                self.ledger.with(|catalog| catalog.put_snapshots(&lines));
            }
            (RunKind::Forget, _) => drop(self.ledger.with(|catalog| catalog.drop_snapshots(&closing.snapshots))),
            (RunKind::Prune, _) => {
                for region in repo.usable().iter().filter_map(|ix| region_ref(regions, ix)) {
                    self.ledger.with(|catalog| catalog.drop_packs(&region, &closing.packs));
                }
            }
            (RunKind::Verify, false) | (RunKind::Restore, _) => {}
        }
    }
}

/// Writes the record into every region that may be written, all at once; returns those that did not take it. They
/// are not marked as failed: a restore or a check did all it was asked to.
fn send(repo: &Repo, run: &Run) -> Vec<(String, String)> {
    let key = Key::Run(run.id);
    let sealed = repo.may_write().and_then(|()| repo.seal(ObjectKind::Run, &key.canonical(), run));
    let regions = &repo.regions;
    let bytes = match sealed {
        Ok(bytes) => bytes,
        Err(e) => {
            let every = repo.usable().iter();
            return every.map(|ix| (regions.region(ix).name.clone(), e.to_string())).collect();
        }
    };
    let put = |ix: usize| {
        let why = match regions.put(ix, &key, &bytes) {
            Ok(Put::Created | Put::Same) => return None,
            Ok(Put::Other) => "another object stands at this key".to_owned(),
            Err(e) => e.to_string(),
        };
        Some((regions.region(ix).name.clone(), why))
    };
    let put = &put;
    let mut targets = repo.writable().iter();
    let first = targets.next();
    std::thread::scope(|scope| {
        let others: Vec<_> = targets.map(|ix| scope.spawn(move || put(ix))).collect();
        let mut missed: Vec<_> = first.and_then(put).into_iter().collect();
        missed.extend(others.into_iter().filter_map(|one| one.join().ok().flatten()));
        missed
    })
}
