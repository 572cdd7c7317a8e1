//! One run: sessions until a snapshot is made, its manifest, and the report.

use super::begun::begin;
use super::build::{self, Built};
use super::origin::Origin;
use super::plan::Planner;
use super::work::{self, Means};
use super::{BackupOptions, BackupReport, Verdicts};
use crate::base::{Cancel, Generation, Pace, PackName, Progress};
use crate::error::{Error, Kind, Result};
use crate::format::signed;
use crate::format::snapshot::{Manifest, Mode, Source, Transfer, content_digest};
use crate::format::tree::Entry;
use crate::ops::catch_up::{self, CaughtUp};
use crate::ops::model::{Compared, sudden};
use crate::ops::verdicts::{self, beside, labels};
use crate::policy::MAY_SHRINK;
use crate::region::RegionSet;
use crate::repo::Repo;
use crate::repo::index::{Index, Reusable, Reuse};
use crate::repo::members::{self, UNNAMED};
use crate::repo::reader::Reader;
use crate::repo::session::{Committed, Ended, Errand, Session, Work};
use crate::repo::view::{Snapshot, View};
use crate::repo::writer::Writer;
use crate::source::any::Walk;
use crate::source::bucket;
use crate::source::files::ParentRule;
use crate::store::{Key, Prefix};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How many sessions a run may need.
const SESSIONS_MAX: usize = 4;

pub(super) struct Run<'r> {
    pub(super) repo: &'r Arc<Repo>,
    pub(super) options: &'r BackupOptions,
    pub(super) paths: &'r [PathBuf],
    pub(super) source: Source,
    pub(super) start: i64,
    pub(super) generation: Generation,
    pub(super) view: View,
    pub(super) parent: Option<Snapshot>,
    pub(super) fs_id: Option<u64>,
    pub(super) progress: &'r Progress,
    pub(super) cancel: &'r Cancel,
}

impl Run<'_> {
    /// The rule by which files of the parent may be taken over; `None`: everything is read.
    fn parent_rule(&self) -> Option<ParentRule> {
        let parent = self.parent.as_ref()?;
        match self.options.mode {
            Mode::Incremental if self.options.bucket.is_some() => {
                (parent.manifest.fs_id == self.fs_id).then_some(ParentRule::Objects)
            }
            Mode::Incremental if self.options.clone => Some(ParentRule::Clone),
            Mode::Incremental if parent.manifest.fs_id == self.fs_id => Some(ParentRule::SameFs),
            _ => None,
        }
    }

    /// With `look_up`, a file of the parent is taken over only if every chunk of it is known to the writer.
    fn planner<'p>(&self, walk: Walk, reader: &'p Reader, look_up: Option<&'p Writer<'p>>) -> Planner<'p> {
        let parent = self.parent.as_ref().zip(self.parent_rule()).map(|(p, rule)| (&p.manifest, rule));
        Planner::new(walk, reader, parent, look_up, self.options.rules.is_some())
    }

    pub(super) fn dry(&self, walk: Walk) -> Result<BackupReport> {
        let reader = Reader::near(Arc::clone(self.repo), Arc::new(Index::load(self.repo)?));
        let mut planner = self.planner(walk, &reader, None);
        let built = build::count_only(&mut planner, self.progress, self.cancel)?;
        planner.gone().map_or(Ok(()), Err)?;
        Ok(self.report(None, built, self.transfer(), CaughtUp::default(), Vec::new()))
    }

    /// Runs until a snapshot is made: a session that was fenced is followed by another, which finds what was
    /// stored through the index.
    pub(super) fn store(&self, walk: Walk, mut caught_up: CaughtUp) -> Result<BackupReport> {
        let (mut walk, mut refreshes, mut stored) = (Some(walk), None, Vec::new());
        for _ in 0..SESSIONS_MAX {
            let errand = Errand {
                host: self.options.host.clone(),
                source: self.source.name.clone(),
                generation: self.generation,
            };
            let session = Session::announce(self.repo, errand, refreshes)?;
            let walk = match walk.take() {
                Some(first) => first,
                None => begin(self.repo, self.paths, self.options, self.cancel)?,
            };
            let (built, work) = self.write(&session, walk, &mut stored)?;
            match session.commit(self.repo, &work, |session| self.manifest(session, &built))? {
                Ended::Committed(mut done) => {
                    self.take_back(&mut done, &mut caught_up);
                    View::remember(self.repo, &done);
                    let models = self.models(&done.manifest, &built);
                    let report = self.report(Some(&done), built, done.manifest.transfer, caught_up, stored);
                    return Ok(BackupReport { models, ..report });
                }
                Ended::Fenced(sid) => refreshes = Some(sid),
            }
        }
        Err(Error::new(Kind::Retry, "the session was fenced again and again").advise("run again: stored work is kept"))
    }

    /// Models that were read, beside what they were in the parent. It needs the index with what was just stored.
    fn models(&self, made: &Manifest, built: &Built) -> Compared {
        let Some(parent) = self.parent.as_ref().filter(|_| !built.models.is_empty()) else {
            return Compared::default();
        };
        match Index::load(self.repo) {
            Ok(index) => {
                let reader = Reader::near(Arc::clone(self.repo), Arc::new(index));
                sudden(&reader, (&parent.manifest, made), &built.models, built.models_left, self.cancel)
            }
            Err(e) => Compared { unknown: vec![e.to_string()], ..Compared::default() },
        }
    }

    /// Where a region failed after another one had been left behind for being slow, there may be fewer copies than are asked
    /// for: the slow one is brought up then, however long it takes. What keeps it from that leaves it behind, as before.
    fn take_back(&self, done: &mut Committed, caught_up: &mut CaughtUp) {
        if done.regions.count() >= self.repo.copies_min {
            return;
        }
        let slow = self.repo.regions.take_back();
        if slow.is_empty() {
            return;
        }
        if let Ok(brought) = catch_up::packs(self.repo, self.options.workers, self.cancel) {
            caught_up.count(brought);
            // What lacked something before is not known to have it now.
            caught_up.lacking = caught_up.lacking.or(brought.lacking);
        }
        // A region gets a snapshot last of all: where it stands, it is complete.
        for ix in slow.iter() {
            match self.shows(done, ix) {
                Ok(()) => done.regions = done.regions.with(ix),
                Err(e) => self.repo.regions.fail(ix, e),
            }
        }
    }

    /// Whether a region has this snapshot.
    fn shows(&self, done: &Committed, ix: usize) -> Result<()> {
        let (regions, key) = (&self.repo.regions, Key::Snapshot(done.sid));
        if !self.repo.writable().has(ix) {
            return Err(Error::new(Kind::Retry, "fell behind, and failed when it was brought up"));
        }
        let bytes = regions.get(ix, &key, done.size)?;
        match signed::check_sum(&bytes) {
            Ok((_, digest)) if digest == done.digest => Ok(()),
            _ => Err(Error::new(Kind::Retry, "fell behind, and could not be brought up")),
        }
    }

    /// Stores the source; the session is given up if that does not succeed. Adds what it stored to what earlier sessions of
    /// this run have.
    fn write(&self, session: &Session, walk: Walk, stored: &mut Vec<PackName>) -> Result<(Built, Work)> {
        let repo = self.repo;
        let whole = self.parent.as_ref().map(|p| p.manifest.sid).filter(|sid| session.parent_stands(repo, *sid));
        let index = Arc::new(Index::load(repo)?);
        let rules = Reuse {
            regions: session.regions.and(repo.writable()),
            bad: session.epochs.bad_packs(),
            generation: self.generation,
            present: self.present_packs(session.regions),
        };
        let known = Reusable::new(Arc::clone(&index), rules);
        let reader = Reader::near(Arc::clone(repo), index);
        let limits = self.options.limits;
        let writer = Writer::new(repo, session, known, (limits.compression, self.options.workers), self.progress);
        let pace = limits.read.map(|rate| Pace::new(rate, self.cancel));
        let bucket = walk.bucket();
        let mut planner = self.planner(walk, &reader, (whole.is_none()).then_some(&writer));
        let (workers, judges) = (self.options.workers, self.options.rules.is_some());
        let means = Means { workers, progress: self.progress, cancel: self.cancel, pace: pace.as_ref(), judges };
        let built = work::run(&writer, &mut planner, &means, repo);
        // What of it was met by the walk alone is no miss either: nothing is known of the rest.
        let built = built.and_then(|built| planner.gone().map_or(Ok(built), Err));
        let built = built.and_then(|built| self.judged(built, bucket));
        // Whatever happened: what was stored is named, so that the next run finds it.
        let finished = writer.finish();
        let built = built.and_then(|built| match built.root {
            Some(_) => Ok(built),
            None => {
                let why = built.errors.first().map_or("nothing was found", |miss| &miss.message);
                Err(Error::new(Kind::Source, why).at(self.source.name.clone()))
            }
        });
        match (built, finished) {
            (Ok(built), Ok(complete)) => {
                let parent = whole.filter(|_| self.parent_rule().is_some());
                stored.extend(writer.stored());
                // What an earlier session of this run stored is needed by no other snapshot either.
                Ok((built, Work { complete, packs: writer.packs(), parent, stored: !stored.is_empty() }))
            }
            (Err(e), _) | (_, Err(e)) => {
                session.give_up(repo, e.what())?;
                Err(e)
            }
        }
    }

    /// Judges what needs to know all files of models.
    fn judged(&self, mut built: Built, bucket: Option<Arc<bucket::Source>>) -> Result<Built> {
        let (Some(rules), Some(gathered)) = (&self.options.rules, built.gathered.take()) else { return Ok(built) };
        let (mut report, now) = (gathered.finish(), self.repo.env.now());
        let shelf = Origin::new(bucket, self.paths, self.cancel);
        let means = verdicts::Means { trust: rules.trust(), now, shelf: &shelf, cancel: self.cancel };
        beside(&mut report, Path::new(""), 0, &means)?;
        let complaints = rules.complaints(&report);
        built.labels = labels(&report, &complaints, now);
        built.verdicts = Some(Verdicts { report, complaints });
        Ok(built)
    }

    /// In modes that trust nothing: packs that every region lists, with one size. Others are stored again.
    pub(super) fn present_packs(&self, used: RegionSet) -> Option<HashMap<PackName, u64>> {
        if matches!(self.options.mode, Mode::Incremental | Mode::Delta) {
            return None;
        }
        let mut everywhere: Option<HashMap<PackName, u64>> = None;
        for (_, listed) in self.repo.regions.list_all(used, Prefix::Packs) {
            let here = listed.iter().filter_map(|l| match l.key {
                Key::Pack(name) => Some((name, l.size)),
                _ => None,
            });
            let here: HashMap<PackName, u64> = here.collect();
            everywhere = Some(match everywhere {
                None => here,
                Some(mut before) => {
                    before.retain(|name, size| here.get(name) == Some(size));
                    before
                }
            });
        }
        everywhere
    }

    fn transfer(&self) -> Transfer {
        Transfer {
            bytes_read: self.progress.bytes_read.get(),
            bytes_new: self.progress.bytes_new.get(),
            bytes_stored: self.progress.bytes_stored.get(),
            chunks_new: self.progress.chunks_new.get(),
            chunks_used: self.progress.chunks_used.get(),
        }
    }

    pub(super) fn manifest(&self, session: &Session, built: &Built) -> Result<Manifest> {
        let root: Entry = built.root.clone().ok_or_else(|| Error::new(Kind::Bug, "the walk ended without a root"))?;
        let own = self.repo.ring().signer().map(|(id, _)| id);
        let before = self
            .view
            .newest_first()
            .into_iter()
            .filter(|s| s.manifest.source.name == self.source.name && Some(s.writer) == own)
            .max_by_key(|s| s.manifest.seq);
        Ok(Manifest {
            fresh: session.fresh(self.repo),
            sid: session.sid,
            source: self.source.clone(),
            mode: self.options.mode,
            parent: self.parent.as_ref().map(|p| p.manifest.sid),
            start: self.start,
            end: self.repo.env.now().0,
            content: content_digest(&root),
            root,
            counts: built.counts,
            transfer: self.transfer(),
            errors: built.errors.clone(),
            errors_total: built.errors_total,
            consistency: 0,
            policy: None,
            site: None,
            fencing_epoch: None,
            generation: self.generation,
            domain: self.repo.domain(),
            seq: before.map_or(1, |s| s.manifest.seq.saturating_add(1)),
            prev: before.map_or(crate::base::Digest::ZERO, |s| s.digest),
            seen: self.view.heads(),
            program: env!("CARGO_PKG_VERSION").into(),
            tags: self.options.tags.clone(),
            labels: built.labels.clone(),
            fs_id: self.fs_id,
            decision: session.decision_id(self.repo)?,
        })
    }

    pub(super) fn report(
        &self,
        committed: Option<&Committed>,
        built: Built,
        transfer: Transfer,
        caught_up: CaughtUp,
        packs: Vec<PackName>,
    ) -> BackupReport {
        let regions = &self.repo.regions;
        let visible = committed.map_or(RegionSet::NONE, |c| c.regions);
        let behind = (0..regions.len()).filter(|ix| committed.is_some() && !visible.has(*ix)).map(|ix| {
            let why = regions.failure(ix).map_or_else(|| "incomplete".to_owned(), |e| e.to_string());
            (regions.region(ix).name.clone(), why)
        });
        let lacking = visible.and(caught_up.lacking);
        let lacking = lacking.iter().map(|ix| {
            let why = "lacks an earlier snapshot that another region shows; it could not be brought up";
            (regions.region(ix).name.clone(), why.to_owned())
        });
        let unnamed = match committed {
            Some(_) => members::unnamed(self.repo, self.repo.epochs()),
            None => Vec::new(),
        };
        let unnamed = unnamed.into_iter().map(|member| (member.name, UNNAMED.to_owned()));
        BackupReport {
            snapshot: committed.map(|c| c.sid),
            parent: self.parent.as_ref().map(|p| p.manifest.sid),
            source: self.source.name.clone(),
            mode: self.options.mode,
            counts: built.counts,
            transfer,
            errors: built.errors,
            errors_total: built.errors_total,
            changed: built.changed,
            changed_total: built.changed_total,
            regions: visible.iter().map(|ix| regions.region(ix).name.clone()).collect(),
            behind: behind.chain(lacking).chain(unnamed).collect(),
            caught_up,
            copies_min: self.repo.copies_min,
            packs,
            accepted: self.options.tags.iter().any(|tag| tag == MAY_SHRINK),
            encoder_errors: self.progress.encoder_errors.get(),
            verdicts: built.verdicts,
            models: Compared::default(),
            view: View::default(),
        }
    }
}
