//! One run of one policy: its sources one after the other, tried again as the policy says, and what became of each.

use super::hook;
use super::tally::{One, Tally};
use super::turn::{self, Turn, Whose};
use crate::base::{Cancel, Env, Progress, TimeMs};
use crate::catalog::Coverage;
use crate::error::{Error, Exit, Kind, Result};
use crate::format::run::RunKind as Recorded;
use crate::format::snapshot::Mode;
use crate::ops::backup::{self, BackupOptions, BackupReport};
use crate::ops::ledger::Ledger;
use crate::ops::live::{self, Live, Over};
use crate::ops::prune;
use crate::ops::record::{Closed, Closing, Opening};
use crate::ops::repair::{self, Bounds, RepairReport};
use crate::ops::retain::{Plan, Wish};
use crate::ops::verify::{self, VerifyReport};
use crate::ops::{etcd, forget};
use crate::policy::{BackupPolicy, Concurrency, Level, Rate, Repository, Retries, Source, Task, Verify};
use crate::repo::Repo;
use crate::repo::view::View;
use crate::source::files;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub use super::report::{Fate, Report, SourceEnd};

/// How often it is looked whether somebody else's run has ended.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Opens a repository, for a run that must make so many copies.
pub type Open<'a> = dyn Fn(&Repository, u32) -> Result<Arc<Repo>> + Send + Sync + 'a;
/// Takes a remark.
pub type Say<'a> = dyn Fn(&str) + Send + Sync + 'a;

/// What a run needs from its surroundings.
pub struct Surroundings<'a> {
    /// Opens repositories.
    pub open: &'a Open<'a>,
    /// Takes remarks.
    pub say: &'a Say<'a>,
    /// The clock.
    pub env: &'a Env,
    /// Where the local catalog is.
    pub state: &'a Path,
    /// Raised when the run is to stop.
    pub cancel: &'a Cancel,
    /// Threads that read and store.
    pub workers: usize,
    /// Sessions that are known to be over.
    pub over: Option<&'a Over>,
    /// What says which runs between backups are recorded; none of another kind.
    pub tally: Option<&'a Tally>,
}

/// Runs a policy now. A failed run is tried again as `retry` says. `earlier` is how sources ended in attempts before
/// this one: only those that failed are touched again.
///
/// # Errors
/// Nothing could be tried: the repository cannot be opened, or the run was interrupted before its first source.
pub fn run(
    around: &Surroundings<'_>,
    policy: &BackupPolicy,
    repository: &Repository,
    kind: Task,
    retry: Retries,
    earlier: Vec<SourceEnd>,
) -> Result<Report> {
    let workers = policy.limits().workers.map_or(around.workers, |count| count as usize);
    let around = &Surroundings { workers, ..*around };
    let mut report = Report { sources: earlier, ..Report::new(policy, kind) };
    loop {
        report.attempts += 1;
        let more = report.attempts <= retry.max;
        let tried = match (around.open)(repository, policy.copies_min()) {
            Ok(repo) => attempt(around, policy, &repo, &mut report),
            Err(e) => Err(e),
        };
        let again = match &tried {
            Ok(()) => report.sources.iter().any(|s| s.fate == Fate::Failed && worth_another(s.exit)),
            Err(e) => worth_another(e.exit()),
        };
        if !again || !more || around.cancel.raised() {
            if let Err(e) = tried {
                if report.sources.is_empty() {
                    return Err(e);
                }
                // What earlier attempts did stands.
                (around.say)(&format!("attempt {} failed: {e}", report.attempts));
                report.interrupted = e.exit() == Exit::Interrupted;
            }
            return complete(report, policy);
        }
        let wait = retry.wait_ms(report.attempts + 1);
        let why = tried.err().map(|e| format!(": {e}")).unwrap_or_default();
        (around.say)(&format!("attempt {} failed{why}; the next is in {} s", report.attempts, wait / 1000));
        if let Err(e) = around.cancel.wait(Duration::from_millis(wait.unsigned_abs())) {
            if report.sources.is_empty() {
                return Err(e);
            }
            report.interrupted = true;
            return complete(report, policy);
        }
    }
}

/// Every source of the policy has exactly one end.
fn complete(report: Report, policy: &BackupPolicy) -> Result<Report> {
    let wanted = if report.kind.is_backup() { policy.sources().len() } else { 0 };
    let counted: usize = Fate::ALL.iter().map(|fate| report.count(*fate)).sum();
    if counted != wanted || report.sources.len() != wanted {
        return Err(Error::new(Kind::Bug, format!("{counted} of {wanted} sources were accounted for")));
    }
    Ok(report)
}

/// Whether a second attempt may find it different.
fn worth_another(exit: Exit) -> bool {
    matches!(exit, Exit::Failed | Exit::NoRepository)
}

/// What the parts of an attempt share.
struct Work<'a> {
    around: &'a Surroundings<'a>,
    policy: &'a BackupPolicy,
    repo: &'a Arc<Repo>,
    ledger: &'a Ledger,
    kind: Task,
}

fn attempt(around: &Surroundings<'_>, policy: &BackupPolicy, repo: &Arc<Repo>, report: &mut Report) -> Result<()> {
    let ledger = Ledger::open(around.state, &repo.id, around.env);
    let work = Work { around, policy, repo, ledger: &ledger, kind: report.kind };
    let done = match report.kind {
        Task::Verify => work.check().map(|verified| {
            report.coverage = work.coverage();
            report.verified = Some(verified);
        }),
        Task::Prune => work.prune().map(|pruned| report.pruned = Some(pruned)),
        Task::Incremental => work.protect_all(Mode::Incremental, report),
        Task::Full => work.protect_all(Mode::Full, report),
        Task::Delta => work.protect_all(Mode::Delta, report),
    };
    ledger.remarks().iter().for_each(|what| (around.say)(what));
    done
}

impl Work<'_> {
    fn say(&self, what: &str) {
        (self.around.say)(what);
    }

    /// Names the regions that have no record of the run.
    fn say_missed(&self, closed: Option<&Closed>) {
        let missed = closed.into_iter().flat_map(|closed| &closed.missed);
        missed.for_each(|(region, why)| self.say(&format!("region {region} has no record of this run: {why}")));
    }

    /// Runs a part of the work and records it.
    fn recorded<T>(
        &self,
        kind: Recorded,
        closing: Closing,
        act: impl FnOnce() -> Result<T>,
        end: impl FnOnce(&T, Closing) -> (Closing, Exit),
    ) -> (Result<T>, Option<Closed>) {
        self.opening(kind, closing).run(self.ledger, act, end)
    }

    fn opening(&self, kind: Recorded, closing: Closing) -> Opening<'_> {
        let closing = Closing { policy: Some(self.policy.name().to_string()), ..closing };
        Opening { kind, repo: Some(self.repo), host: files::hostname(), closing }
    }

    fn protect_all(&self, mode: Mode, report: &mut Report) -> Result<()> {
        let before: BTreeMap<String, SourceEnd> = report.sources.drain(..).map(|s| (s.source.clone(), s)).collect();
        for source in self.policy.sources() {
            let end = match before.get(&source.name).filter(|end| end.fate != Fate::Failed) {
                Some(done) => done.clone(),
                None => self.thinned(self.protect(source, mode)),
            };
            end.why.iter().for_each(|why| self.say(&format!("source {}: {why}", end.source)));
            report.sources.push(end);
        }
        Ok(())
    }

    fn check(&self) -> Result<VerifyReport> {
        let Surroundings { cancel, .. } = *self.around;
        let wish = self.wish();
        let closing = Closing { how: Some(wish.level.name().into()), ..Closing::default() };
        let (verified, closed) = self.recorded(
            Recorded::Verify,
            closing,
            || {
                let mut report = verify::run(self.repo, &wish, Some(self.ledger), &Progress::default(), cancel)?;
                let repaired = self.repaired(&mut report, wish.workers);
                Ok((report, repaired))
            },
            |(report, repaired), closing| {
                (repaired.iter().flatten().fold(closing.verify(report), Closing::repair), report.exit())
            },
        );
        self.say_missed(closed.as_ref());
        let (verified, repaired) = verified?;
        verified.findings.iter().for_each(|finding| self.say(&format!("DAMAGE: {finding}")));
        verified.verdicts.iter().for_each(|told| self.say(&told.to_string()));
        if let Some(Err(e)) = &repaired {
            self.say(&format!("repair: ended early: {e}"));
        }
        if let Some(Ok(done)) = &repaired {
            let (put_back, left, brought) = (done.put_back(), done.left(), done.caught_up.objects);
            self.say(&format!("repair: {put_back} put back, {left} left as they were, {brought} brought up"));
        }
        for (title, lines) in [("BROKEN", &verified.broken), ("LOST", &verified.lost), ("BEHIND", &verified.behind)] {
            lines.iter().for_each(|line| self.say(&format!("{title}: {line}")));
        }
        Ok(verified)
    }

    /// Gives back what no snapshot needs.
    fn prune(&self) -> Result<prune::Report> {
        let host = files::hostname();
        let wish =
            prune::Wish::of(self.policy.prune().unwrap_or_default(), self.around.workers, &host, self.around.cancel);
        let end = |report: &prune::Report, closing: Closing| (closing.prune(report), report.exit());
        let (pruned, closed) = self.recorded(Recorded::Prune, Closing::default(), || prune::run(self.repo, &wish), end);
        self.say_missed(closed.as_ref());
        let pruned = pruned?;
        pruned.troubles().iter().for_each(|what| self.say(what));
        pruned.findings.iter().for_each(|finding| self.say(&format!("DAMAGE: {finding}")));
        Ok(pruned)
    }

    /// Mends what the check found, where the policy says so.
    fn repaired(&self, report: &mut VerifyReport, workers: usize) -> Option<Result<RepairReport>> {
        let spec = self.policy.verify().filter(|spec| spec.repair)?;
        let bounds = Bounds { bytes_max: spec.bytes_max, rate: spec.rate, wary: true };
        // Whatever becomes of it, what the check found is told.
        Some(repair::unwatched(self.repo, report, (self.ledger, bounds), workers, self.around.cancel))
    }

    /// What the policy wants checked. What it does not say is presence, of everything.
    fn wish(&self) -> verify::Wish {
        let Some(spec) = self.policy.verify() else {
            return verify::Wish::all(verify::Level::Presence, self.around.workers);
        };
        let level = match spec.level {
            Level::Presence => verify::Level::Presence,
            Level::Ciphertext => verify::Level::Ciphertext,
            Level::Content => verify::Level::Content,
        };
        let turn = verify::Part::at(self.around.env.now(), spec.period_ms);
        let part = verify::Part { percent: spec.share, bytes_max: spec.bytes_max, packs_max: spec.packs_max, ..turn };
        verify::Wish { level, workers: self.around.workers, part, rate: spec.rate }
    }

    /// How much of each region has been verified within the period.
    fn coverage(&self) -> Vec<Coverage> {
        let period = self.policy.verify().filter(Verify::reads).map(|spec| spec.period_ms);
        let Some(period) = period else { return Vec::new() };
        let now = self.around.env.now().0;
        self.ledger.with(|catalog| catalog.coverage(now.saturating_sub(period), now)).unwrap_or_default()
    }

    /// After a new snapshot, the source's older ones are judged by the policy's retention; and whether the source is
    /// still what it was.
    fn thinned(&self, (mut end, view): (SourceEnd, Option<View>)) -> SourceEnd {
        let Some(view) = view.filter(|_| end.snapshot.is_some() && end.fate != Fate::Failed) else { return end };
        let source = end.source.clone();
        if let Err(e) = self.forget_unkept(&source, view, &mut end) {
            end.worse(e.exit(), format!("nothing was forgotten: {e}"));
        }
        end
    }

    fn forget_unkept(&self, source: &str, before: View, end: &mut SourceEnd) -> Result<()> {
        let view = before.again(self.repo)?;
        let wish = Wish { rules: self.policy.retention(), zone: self.policy.zone(), accept_small: false };
        let plan = Plan::make(self.repo, &view, &wish, |manifest| manifest.source.name == source)?;
        plan.hosts_in_turn().for_each(|(_, what)| self.say(&format!("source {source}: {what}")));
        for (_, what) in plan.shrunk() {
            end.braked = true;
            end.worse(Exit::Refused, what);
        }
        plan.check_brakes().inspect_err(|_| end.braked = true)?;
        let targets = plan.targets();
        if targets.is_empty() {
            return Ok(());
        }
        let reason = self.policy.retention_reason();
        let closing = Closing { source: Some(source.to_owned()), ..Closing::default() };
        let (done, _) = self.recorded(
            Recorded::Forget,
            closing,
            || forget::run(self.repo, &view, &targets, false, &reason, self.around.cancel),
            |report, closing| (closing.forget(report), report.exit()),
        );
        let done = done?;
        done.warnings.iter().for_each(|warning| self.say(&format!("source {source}: {warning}")));
        for (region, why) in &done.behind {
            end.worse(Exit::Behind, format!("region {region} has not all markers of what was forgotten: {why}"));
        }
        end.forgotten = done.forgotten.len();
        Ok(())
    }

    /// Backs up one source, with its hooks, unless somebody else does.
    fn protect(&self, source: &Source, mode: Mode) -> (SourceEnd, Option<View>) {
        // It is kept until the end.
        let turn = match self.wait_for_others(source) {
            Ok(Err(why)) => {
                let left = SourceEnd::failed(source, &Error::new(Kind::Refused, why));
                return (SourceEnd { fate: Fate::Excluded, ..left }, None);
            }
            Ok(Ok(turn)) => Ok(turn),
            Err(e) => Err(e),
        };
        let names = (self.policy.name().as_str(), self.kind.name(), Some(source.name.as_str()));
        let mut hooks = hook::Around::new(&source.hooks, names, self.around.say, self.around.cancel);
        let ready = turn.as_ref().map_err(Clone::clone).and_then(|_| hooks.before());
        let (end, view) = self.store(source, mode, ready);
        if turn.is_ok() {
            let snapshot = end.snapshot.map(|sid| ("HOLDFAST_SNAPSHOT", sid.hex()));
            let variables =
                [("HOLDFAST_FATE", end.fate.name().to_owned()), ("HOLDFAST_EXIT", (end.exit as u8).to_string())];
            let variables = variables.into_iter().chain(snapshot).collect();
            hooks.later(&hook::Outcome { failed: end.fate == Fate::Failed, variables });
        }
        (end.hooked(hooks.ended), view)
    }

    /// Backs up one source, if it is `ready`.
    fn store(&self, source: &Source, mode: Mode, ready: Result<()>) -> (SourceEnd, Option<View>) {
        let Surroundings { workers, cancel, .. } = *self.around;
        let limits = self.policy.limits();
        let limits = backup::Limits {
            compression: limits.compression,
            upload: limits.upload.as_ref().map(Rate::bytes),
            read: limits.read.as_ref().map(Rate::bytes),
        };
        let options = ready.and_then(|()| BackupOptions::of(source, files::hostname(), mode, workers));
        let options = options.map(|options| BackupOptions { limits, ..options });
        let closing =
            Closing { source: Some(source.name.clone()), how: Some(mode.name().into()), ..Closing::default() };
        let (say, progress) = (self.around.say, Progress::default());
        let tried = self.around.tally.map(|tally| tally.tried(self.policy.name().as_str(), &source.name));
        let act = || match self.kind {
            Task::Delta => etcd::between(self.repo, (source, tried.as_deref()), options?, say, (&progress, cancel)),
            _ => etcd::or_files(self.repo, source, options?, say, (&progress, cancel)).map(|done| (Some(done), mode)),
        };
        let end = |done: &(Option<BackupReport>, Mode), closing: Closing| {
            let closing = Closing { how: Some(done.1.name().into()), ..closing };
            match &done.0 {
                Some(report) => (closing.backup(report), report.exit()),
                None => (closing, Exit::Done),
            }
        };
        let worth = |closing: &mut Closing, exit| self.worth(source, closing, exit);
        let (done, closed) = self.opening(Recorded::Backup, closing).run_if(self.ledger, act, end, worth);
        match done {
            Ok((Some(mut report), _)) => {
                closed.iter().for_each(|closed| closed.count_missed(&mut report.behind));
                let end = SourceEnd::of(source, &report);
                // Of what comes by the second, retention judges what is recorded.
                (end, closed.is_some().then_some(report.view))
            }
            Ok((None, _)) => (SourceEnd::unchanged(source), None),
            Err(e) => (SourceEnd::failed(source, &e), None),
        }
    }

    /// Whether the end of a backup is recorded; what is counted since the last record is added.
    fn worth(&self, source: &Source, closing: &mut Closing, exit: Exit) -> bool {
        let Some(tally) = self.around.tally else { return true };
        let (stored, delta) = (!closing.snapshots.is_empty(), closing.how.as_deref() == Some(Mode::Delta.name()));
        let one = One { fate: Fate::of(exit, stored), stored, whole: stored && !delta };
        let figures = tally.count(self.policy.name().as_str(), &source.name, one, self.around.env.now());
        closing.figures.extend(figures.iter().flatten());
        figures.is_some()
    }

    /// Looks for a run of this source elsewhere and follows the policy's rule.
    fn wait_for_others(&self, source: &Source) -> Result<Await> {
        let Surroundings { env, state, cancel, over, .. } = *self.around;
        let (mut said, mut ours) = (false, None);
        loop {
            let now: TimeMs = env.now();
            if ours.is_none() {
                ours = match turn::take(state, &self.repo.id, &source.name, now) {
                    Whose::Ours(turn) => Some(Some(turn)),
                    Whose::Unknown => Some(None),
                    Whose::Anothers => None,
                };
            }
            let other = match &ours {
                None => Some("another program on this host is at work on it".to_owned()),
                Some(turn) => {
                    let over = turn.as_ref().and_then(|turn| turn.over.as_ref()).or(over);
                    live::of(self.repo, &source.name, now, over)?.as_ref().map(said_of)
                }
            };
            let Some(other) = other else { return Ok(Ok(ours.flatten())) };
            let (next, wait) = match self.policy.concurrency() {
                Concurrency::Forbid => return Ok(Err(other)),
                // It cannot be stopped from here; two runs of one source harm nothing.
                Concurrency::Replace => ("not waited for", false),
                Concurrency::Queue => ("waited for", true),
            };
            if !said {
                self.say(&format!("source {}: {other}; {next}", source.name));
                said = true;
            }
            if !wait {
                return Ok(Ok(ours.flatten()));
            }
            cancel.wait(LOOK_AGAIN)?;
        }
    }
}

/// The turn at a source, which ends with this; or why the source is left to another.
type Await = std::result::Result<Option<Turn>, String>;

fn said_of(other: &Live) -> String {
    format!("session {} on {} seems to be at work on it since {}", other.sid.short(), other.host, other.since.rfc3339())
}
