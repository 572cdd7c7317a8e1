//! Backup: a source becomes a snapshot in every region.
//!
//! One thread walks and compares with the parent ([`plan`]), workers read, cut and store ([`work`]), the
//! calling thread puts the results together in order ([`build`]). Without workers everything runs in the
//! calling thread, in a fixed order.

mod build;
mod plan;
mod work;

use super::catch_up::{self, CaughtUp};
use crate::base::{Cancel, Generation, PackName, Progress, SessionId};
use crate::error::{Error, Exit, Kind, Result};
use crate::format::snapshot::{Counts, Manifest, Miss, Mode, Source, Transfer, content_digest};
use crate::format::tree::Entry;
use crate::region::RegionSet;
use crate::repo::Repo;
use crate::repo::index::{Index, Reusable};
use crate::repo::reader::Reader;
use crate::repo::session::{Committed, Session};
use crate::repo::view::{Snapshot, View};
use crate::repo::writer::Writer;
use crate::source::files::{ParentRule, WalkOptions, Walker};
use crate::store::{Key, Prefix};
use build::Built;
use plan::Planner;
use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

/// What to back up, and how.
pub struct BackupOptions {
    /// Directories or files.
    pub paths: Vec<PathBuf>,
    /// Name of the source; by default `files:host:paths`.
    pub name: Option<String>,
    /// Host.
    pub host: String,
    /// Tags.
    pub tags: Vec<String>,
    /// How much to trust the parent.
    pub mode: Mode,
    /// The source is a clone of the parent's file system.
    pub clone: bool,
    /// What to leave out.
    pub walk: WalkOptions,
    /// Only say what would be read.
    pub dry_run: bool,
    /// Threads that read and store; 0: none, everything inline.
    pub workers: usize,
}

/// What a run did.
#[derive(Debug)]
pub struct BackupReport {
    /// The snapshot, unless it was a dry run.
    pub snapshot: Option<SessionId>,
    /// Its parent.
    pub parent: Option<SessionId>,
    /// Name of the source.
    pub source: String,
    /// What was found.
    pub counts: Counts,
    /// What it cost.
    pub transfer: Transfer,
    /// The first things that could not be read.
    pub errors: Vec<Miss>,
    /// How many there were.
    pub errors_total: u64,
    /// Files that changed while they were read.
    pub changed: Vec<Vec<u8>>,
    /// Regions in which the snapshot is visible.
    pub regions: Vec<String>,
    /// Regions that are behind, and why.
    pub behind: Vec<(String, String)>,
    /// What was brought up in regions that had been behind.
    pub caught_up: CaughtUp,
    /// Copies that were asked for.
    pub copies_min: usize,
}

impl BackupReport {
    /// How it ended.
    pub fn exit(&self) -> Exit {
        let mut exit = Exit::Done;
        if self.errors_total > 0 {
            exit = exit.worse(Exit::Partial);
        }
        if !self.behind.is_empty() {
            exit = exit.worse(Exit::Behind);
        }
        if self.snapshot.is_some() && self.regions.len() < self.copies_min {
            exit = exit.worse(Exit::Failed);
        }
        exit
    }
}

/// The name of a source that was given none.
pub fn default_name(host: &str, paths: &[PathBuf]) -> String {
    let mut texts: Vec<String> = paths.iter().map(|p| p.display().to_string()).collect();
    texts.sort();
    format!("files:{host}:{}", texts.join(":"))
}

/// Runs a backup.
///
/// # Errors
/// The source is not there, nothing can be stored anywhere, or the run was interrupted; work stored so far
/// is kept for the next run.
pub fn run(repo: &Arc<Repo>, options: BackupOptions, progress: &Progress, cancel: &Cancel) -> Result<BackupReport> {
    let paths = absolute(&options.paths)?;
    let source = Source {
        kind: "files".into(),
        name: options.name.clone().unwrap_or_else(|| default_name(&options.host, &paths)),
        host: options.host.clone(),
        paths: paths.iter().map(|p| p.as_os_str().as_bytes().to_vec().into()).collect(),
    };
    let start = repo.env.now().0;
    let walker = Walker::new(&paths, options.walk.clone())?;
    let caught_up = if options.dry_run { CaughtUp::default() } else { catch_up::run(repo, cancel)? };
    let view = View::load(repo)?;
    let generation = generation_of(&view, options.mode)?;
    let parent = view.latest_of(&source.name).filter(|p| p.manifest.generation == generation).cloned();
    let fs_id = paths.first().and_then(|p| crate::source::files::fs_id(p).ok());
    if let Some(parent) = &parent {
        progress.bytes_expected.set(parent.manifest.counts.bytes);
    }
    let run = Run { repo, options: &options, source, start, generation, view, parent, fs_id, progress, cancel };
    if options.dry_run { run.dry(walker) } else { run.store(walker, caught_up) }
}

fn absolute(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let one = |path: &PathBuf| {
        std::path::absolute(path).map_err(|e| Error::new(Kind::Config, format!("not a path: {e}")).at(path.display()))
    };
    paths.iter().map(one).collect()
}

/// Snapshots of a generation share chunks only with each other; `independent` opens the next.
fn generation_of(view: &View, mode: Mode) -> Result<Generation> {
    let newest = view.snapshots.values().map(|s| s.manifest.generation).max();
    match (newest, mode) {
        (None, _) => Ok(Generation(1)),
        (Some(n), Mode::Independent) => Ok(Generation(
            n.0.checked_add(1).ok_or_else(|| Error::new(Kind::Refused, "no further generation is possible"))?,
        )),
        (Some(n), _) => Ok(n),
    }
}

struct Run<'r> {
    repo: &'r Arc<Repo>,
    options: &'r BackupOptions,
    source: Source,
    start: i64,
    generation: Generation,
    view: View,
    parent: Option<Snapshot>,
    fs_id: Option<u64>,
    progress: &'r Progress,
    cancel: &'r Cancel,
}

impl Run<'_> {
    /// The rule by which files of the parent may be taken over; `None`: everything is read.
    fn parent_rule(&self) -> Option<ParentRule> {
        let parent = self.parent.as_ref()?;
        match self.options.mode {
            Mode::Incremental if self.options.clone => Some(ParentRule::Clone),
            Mode::Incremental if parent.manifest.fs_id == self.fs_id => Some(ParentRule::SameFs),
            _ => None,
        }
    }

    fn planner<'p>(&self, walker: Walker, reader: &'p Reader, trusted: bool) -> Planner<'p> {
        let rule = self.parent_rule().filter(|_| trusted);
        let parent = self.parent.as_ref().zip(rule).map(|(p, rule)| (&p.manifest, rule));
        Planner::new(walker, reader, parent)
    }

    fn dry(&self, walker: Walker) -> Result<BackupReport> {
        let reader = Reader::new(Arc::clone(self.repo), Arc::new(Index::load(self.repo)?));
        let mut planner = self.planner(walker, &reader, true);
        let built = build::count_only(&mut planner, self.progress, self.cancel)?;
        Ok(self.report(None, built, self.transfer(), CaughtUp::default()))
    }

    fn store(&self, walker: Walker, caught_up: CaughtUp) -> Result<BackupReport> {
        let repo = self.repo;
        let session = Session::announce(repo, self.generation, &self.options.host, &self.source.name)?;
        let trusted = self.parent_stands(session.regions);
        let index = Arc::new(Index::load(repo)?);
        let known = Reusable {
            index: Arc::clone(&index),
            regions: session.regions.and(repo.usable()),
            bad: repo.epochs().bad_packs()?,
            generation: self.generation,
            present: self.present_packs(session.regions),
        };
        let reader = Reader::new(Arc::clone(repo), index);
        let writer = Writer::new(repo, session.sid, known, self.progress);
        let mut planner = self.planner(walker, &reader, trusted);
        let built = work::run(&writer, &mut planner, self.options.workers, self.progress, self.cancel, repo);
        // Whatever happened: what was stored is named, so that the next run finds it.
        let finished = writer.finish();
        let built = match built {
            Ok(built) if built.root.is_some() => built,
            Ok(built) => {
                session.give_up(repo, "the source could not be opened")?;
                let why = built.errors.first().map_or("nothing was found", |miss| &miss.message);
                return Err(Error::new(Kind::Source, why).at(self.source.name.clone()));
            }
            Err(e) => {
                session.give_up(repo, e.what())?;
                return Err(e);
            }
        };
        let complete = finished?;
        if !session.epoch_stands(repo)? {
            session.give_up(repo, "the epoch moved")?;
            return Err(
                Error::new(Kind::Retry, "a prune began while this ran").advise("run again: stored work is kept")
            );
        }
        let committed = session.commit(repo, complete, |session| self.manifest(session, &built))?;
        Ok(self.report(Some(&committed), built, committed.manifest.transfer, caught_up))
    }

    /// Whether the parent is visible now, after the announcement, in every region used.
    fn parent_stands(&self, used: RegionSet) -> bool {
        let Some(parent) = &self.parent else { return false };
        let sid = parent.manifest.sid;
        used.iter().all(|ix| {
            let markers = self.repo.regions.list(ix, Prefix::Forgotten);
            let there = self.repo.regions.get(ix, &Key::Snapshot(sid), crate::repo::SMALL_OBJECT_BYTES_MAX);
            markers.is_ok_and(|all| all.iter().all(|l| l.key != Key::Forgotten(sid)))
                && there.is_ok_and(|bytes| self.repo.open_object(&Key::Snapshot(sid), &bytes).is_ok())
        })
    }

    /// In modes that trust nothing: packs that every region lists, with one size. Others are stored again.
    fn present_packs(&self, used: RegionSet) -> Option<HashMap<PackName, u64>> {
        if self.options.mode == Mode::Incremental {
            return None;
        }
        let mut everywhere: Option<HashMap<PackName, u64>> = None;
        for ix in used {
            let listed = match self.repo.regions.list(ix, Prefix::Packs) {
                Ok(listed) => listed,
                Err(e) => {
                    self.repo.regions.fail(ix, e);
                    continue;
                }
            };
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

    fn manifest(&self, session: &Session, built: &Built) -> Result<Manifest> {
        let root: Entry = built.root.clone().ok_or_else(|| Error::new(Kind::Bug, "the walk ended without a root"))?;
        let own = self.repo.ring().signer().map(|(id, _)| id);
        let before = self
            .view
            .newest_first()
            .into_iter()
            .filter(|s| s.manifest.source.name == self.source.name && Some(s.writer) == own)
            .max_by_key(|s| s.manifest.seq);
        Ok(Manifest {
            fresh: self.repo.fresh(),
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
            labels: Vec::new(),
            fs_id: self.fs_id,
            decision: session.decision_id(self.repo)?,
        })
    }

    fn report(
        &self,
        committed: Option<&Committed>,
        built: Built,
        transfer: Transfer,
        caught_up: CaughtUp,
    ) -> BackupReport {
        let regions = &self.repo.regions;
        let visible = committed.map_or(RegionSet::NONE, |c| c.regions);
        let behind = (0..regions.len()).filter(|ix| committed.is_some() && !visible.has(*ix)).map(|ix| {
            let why = regions.failure(ix).map_or_else(|| "incomplete".to_owned(), |e| e.to_string());
            (regions.region(ix).name.clone(), why)
        });
        BackupReport {
            snapshot: committed.map(|c| c.sid),
            parent: self.parent.as_ref().map(|p| p.manifest.sid),
            source: self.source.name.clone(),
            counts: built.counts,
            transfer,
            errors: built.errors,
            errors_total: built.errors_total,
            changed: built.changed,
            regions: visible.iter().map(|ix| regions.region(ix).name.clone()).collect(),
            behind: behind.collect(),
            caught_up,
            copies_min: self.repo.copies_min,
        }
    }
}
