//! Backup: a source becomes a snapshot in every region.
//!
//! One thread walks and compares with the parent ([`plan`]), workers read, cut and store ([`work`]), the
//! calling thread puts the results together in order ([`build`]). Without workers everything runs in the
//! calling thread, in a fixed order.

mod begun;
mod big;
mod build;
mod hand;
mod object;
mod origin;
mod plan;
mod run;
mod seen;
mod step;
mod stream;
mod work;

pub use begun::Begun;

use super::catch_up::{self, CaughtUp};
use super::model::Compared;
use super::verdicts::{self, Complaint, Rules};
use crate::base::{Bucket, Cancel, Generation, Pace, PackName, Progress, SessionId};
use crate::chunk::Compression;
use crate::error::{Error, Exit, Kind, Result};
use crate::format::snapshot::{Counts, Miss, Mode, Source, Transfer};
use crate::policy::{self, Excludes};
use crate::repo::Repo;
use crate::repo::index::Index;
use crate::repo::view::View;
use crate::source::any::Walk;
use crate::source::bucket;
use crate::source::files::WalkOptions;
use begun::begin;
pub use plan::are_intact;
use run::Run;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
pub use stream::{Cut, Given, StreamName, stream, streams};

/// Kind of a source of any files.
const FILES: &str = "files";
/// Kind of a source of any objects.
const BUCKET: &str = "bucket";

/// What to back up, and how.
pub struct BackupOptions {
    /// Directories or files.
    pub paths: Vec<PathBuf>,
    /// Instead of them, objects of a bucket.
    pub bucket: Option<Bucket>,
    /// Name of the source; by default its kind, host and paths, or its kind and the bucket's address.
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
    /// What else it may use.
    pub limits: Limits,
    /// The files are models: each is judged, and these are the rules.
    pub rules: Option<Rules>,
}

/// What was found in models.
#[derive(Debug, Default)]
pub struct Verdicts {
    /// The verdicts.
    pub report: verdicts::Report,
    /// What is not as it should be.
    pub complaints: Vec<Complaint>,
}

impl Verdicts {
    /// How much of it is more than a warning.
    pub fn refused(&self) -> usize {
        self.complaints.iter().filter(|complaint| complaint.refused).count()
    }
}

/// What a backup may use.
#[derive(Debug, Clone, Copy, Default)]
pub struct Limits {
    /// How much work goes into making content smaller.
    pub compression: Compression,
    /// Most bytes a second that are written to each region.
    pub upload: Option<u64>,
    /// Most bytes a second that are read from files.
    pub read: Option<u64>,
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
    /// How the snapshot was made, which need not be how it was asked for: a delta, or a whole one in its place.
    pub mode: Mode,
    /// What was found.
    pub counts: Counts,
    /// What it cost.
    pub transfer: Transfer,
    /// The first things that could not be read.
    pub errors: Vec<Miss>,
    /// How many there were.
    pub errors_total: u64,
    /// The first files that changed each time they were read.
    pub changed: Vec<Vec<u8>>,
    /// How many there were.
    pub changed_total: u64,
    /// Regions in which the snapshot is visible.
    pub regions: Vec<String>,
    /// Regions that are behind, and why.
    pub behind: Vec<(String, String)>,
    /// What was brought up in regions that had been behind.
    pub caught_up: CaughtUp,
    /// Copies that were asked for.
    pub copies_min: usize,
    /// Packs that were stored.
    pub packs: Vec<PackName>,
    /// Whether its tags say that it is right as it is, however small.
    pub accepted: bool,
    /// Encoded chunks that did not decode to what they were made of; stored raw. A sign of bad memory.
    pub encoder_errors: u64,
    /// The verdicts on its files, if they are models.
    pub verdicts: Option<Verdicts>,
    /// Models that are not what they were in the parent.
    pub models: Compared,
    /// The snapshots that there were when it began.
    pub view: View,
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
        // What is not to be trusted must not look like what could not be read, or is only late somewhere.
        let refused = self.verdicts.as_ref().is_some_and(|verdicts| verdicts.refused() > 0);
        if refused && exit != Exit::Failed { Exit::Refused } else { exit }
    }
}

/// The name of a source that was given none: `kind:host:paths`, sorted. Bytes that are no text, and those that
/// would make two lists of paths look alike, are escaped.
fn default_name(kind: &str, host: &str, paths: &[PathBuf]) -> String {
    let mut texts: Vec<String> = paths.iter().map(|p| escaped(p.as_os_str().as_bytes())).collect();
    texts.sort();
    texts.dedup();
    format!("{kind}:{host}:{}", texts.join(":"))
}

/// The name of a bucket that was given none: what it holds and where it is, whatever way leads there.
fn bucket_name(kind: &str, bucket: &Bucket) -> String {
    let bare = Bucket::new(bucket.service, bucket.name.clone(), bucket.prefix.clone());
    format!("{kind}:{}", Bucket { endpoint: bucket.endpoint.clone(), ..bare })
}

fn escaped(path: &[u8]) -> String {
    let mut text = String::new();
    for part in path.utf8_chunks() {
        for c in part.valid().chars() {
            match c {
                ':' | '\\' => text.extend(['\\', c]),
                c => text.push(c),
            }
        }
        part.invalid().iter().for_each(|b| text.push_str(&format!("\\x{b:02x}")));
    }
    text
}

impl BackupOptions {
    /// All of these paths, as one source of this name; no workers.
    pub fn plain(name: String, host: String, paths: Vec<PathBuf>, mode: Mode) -> BackupOptions {
        BackupOptions {
            paths,
            bucket: None,
            name: Some(name),
            host,
            tags: Vec::new(),
            mode,
            clone: false,
            walk: WalkOptions::default(),
            dry_run: false,
            workers: 0,
            limits: Limits::default(),
            rules: None,
        }
    }

    /// For a source as policies and the command line describe it. What belongs to the repository itself is left out by
    /// [`run`].
    ///
    /// # Errors
    /// A pattern that cannot be understood, or signatures that are required of nobody.
    pub fn of(source: &policy::Source, host: String, mode: Mode, workers: usize) -> Result<BackupOptions> {
        Ok(BackupOptions {
            bucket: source.bucket.clone(),
            tags: source.tags.clone(),
            walk: WalkOptions {
                excludes: Excludes::parse(&source.exclude)?,
                one_file_system: source.one_file_system,
                caches: source.exclude_caches,
                ignore_file: Some(source.ignore_file.as_bytes().to_vec()),
                ..WalkOptions::default()
            },
            workers,
            rules: source.model.as_ref().map(Rules::for_backup).transpose()?,
            ..BackupOptions::plain(source.name.clone(), host, source.paths.clone(), mode)
        })
    }

    /// Kind of the source.
    fn kind(&self) -> &'static str {
        match (&self.bucket, &self.rules) {
            (_, Some(_)) => verdicts::KIND,
            (Some(_), None) => BUCKET,
            (None, None) => FILES,
        }
    }

    /// Name of the source.
    ///
    /// # Errors
    /// What is given is no path.
    pub fn source_name(&self) -> Result<String> {
        match (&self.name, &self.bucket) {
            (Some(name), _) => Ok(name.clone()),
            (None, Some(bucket)) => Ok(bucket_name(self.kind(), bucket)),
            (None, None) => Ok(default_name(self.kind(), &self.host, &absolute(&self.paths)?)),
        }
    }
}

/// Runs a backup.
///
/// # Errors
/// The source is not there, nothing can be stored anywhere, or the run was interrupted; work stored so far
/// is kept for the next run.
pub fn run(repo: &Arc<Repo>, options: BackupOptions, progress: &Progress, cancel: &Cancel) -> Result<BackupReport> {
    run_begun(repo, options, None, progress, cancel)
}

/// The same, with a walk that may have begun.
///
/// # Errors
/// As [`run`].
pub fn run_begun(
    repo: &Arc<Repo>,
    mut options: BackupOptions,
    begun: Option<Begun>,
    progress: &Progress,
    cancel: &Cancel,
) -> Result<BackupReport> {
    repo.may_write()?;
    let paths = absolute(&options.paths)?;
    let source = source_of(&options, &paths)?;
    // When the run began, not the walk: a file written just before is not called too young to be taken over.
    let start = repo.env.now().0;
    // A repository inside of its own source would grow with every run, and so would the local index.
    options.walk.skip = repo.regions.identities();
    options.walk.skip.extend(repo.index_cache().and_then(|cache| cache.identity(!options.dry_run)));
    let _hurry = repo.regions.hurry(repo.copies_min);
    let walk = match begun.filter(|begun| begun.suits(repo, &options.walk.skip, &paths)) {
        Some(begun) => begun.walk?,
        None => begin(repo, &paths, &options, cancel)?,
    };
    repo.regions.slow_down(|| options.limits.upload.map(|rate| Pace::new(rate, cancel)));
    let (caught_up, view) = match options.dry_run {
        true => (CaughtUp::default(), View::recall(repo)?),
        false => catch_up::with_view(repo, options.workers, cancel)?,
    };
    let used = if view.damaged.is_empty() { None } else { Index::load(repo)?.generation_max() };
    let generation = generation_of(&view, used, &source.name, options.mode)?;
    let parent = view.latest_of(&source.name).filter(|p| p.manifest.generation == generation);
    // Of another kind, it may have with its files what does not belong there, or not what does.
    let parent = parent.filter(|p| p.manifest.source.kind == source.kind).cloned();
    let fs_id = options.bucket.as_ref().map_or_else(|| fs_id(&paths), |bucket| Some(bucket::Source::id(bucket)));
    if let Some(parent) = &parent {
        progress.bytes_expected.set(parent.manifest.counts.bytes);
    }
    let paths = &paths;
    let run = Run { repo, options: &options, paths, source, start, generation, view, parent, fs_id, progress, cancel };
    let report = if options.dry_run { run.dry(walk) } else { with_records(&run, walk, caught_up) };
    let view = run.view;
    report.map(|report| BackupReport { view, ..report })
}

/// What the manifest says that was backed up.
fn source_of(options: &BackupOptions, paths: &[PathBuf]) -> Result<Source> {
    let paths = match &options.bucket {
        Some(bucket) => vec![bucket.to_string().into_bytes().into()],
        None => paths.iter().map(|p| p.as_os_str().as_bytes().to_vec().into()).collect(),
    };
    Ok(Source { kind: options.kind().into(), name: options.source_name()?, host: options.host.clone(), paths })
}

/// Records of earlier runs are brought up beside the work: listing them must cost an unchanged source no time.
fn with_records(run: &Run<'_>, walk: Walk, caught_up: CaughtUp) -> Result<BackupReport> {
    let records = || catch_up::records(run.repo, run.options.workers, run.cancel);
    let (report, records) = if run.options.workers == 0 {
        let records = records();
        (run.store(walk, caught_up), records)
    } else {
        std::thread::scope(|scope| {
            let beside = scope.spawn(records);
            (run.store(walk, caught_up), beside.join().unwrap_or_else(|_| Ok(CaughtUp::default())))
        })
    };
    let (mut report, records) = (report?, records?);
    report.caught_up.count(records);
    Ok(report)
}

/// Absolute paths, without what changes nothing: `src`, `src/` and `./src/.` are one source.
fn absolute(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let one = |path: &PathBuf| {
        let whole = std::path::absolute(path);
        let whole = whole.map_err(|e| Error::new(Kind::Config, format!("not a path: {e}")).at(path.display()))?;
        Ok(whole.components().collect())
    };
    paths.iter().map(one).collect()
}

/// A number for the file systems that the paths are on; `None` if one of them cannot say.
fn fs_id(paths: &[PathBuf]) -> Option<u64> {
    let ids: Vec<u64> = paths.iter().map(|p| crate::source::files::fs_id(p).ok()).collect::<Option<_>>()?;
    match ids.as_slice() {
        [] => None,
        [only] => Some(*only),
        several => {
            let bytes: Vec<u8> = several.iter().flat_map(|id| id.to_le_bytes()).collect();
            blake3::hash(&bytes).as_bytes().first_chunk().map(|first| u64::from_le_bytes(*first))
        }
    }
}

/// Snapshots of a generation share chunks only with each other. A source stays in its own; `independent`
/// opens the next, which not even a forgotten snapshot has used. Where a manifest is damaged, nobody can say
/// which one it was of: then no generation counts as new that the index has (`used`).
fn generation_of(view: &View, used: Option<Generation>, source: &str, mode: Mode) -> Result<Generation> {
    let newest = view.generation_max.unwrap_or(Generation(0));
    if mode == Mode::Independent {
        let next = newest.max(used.unwrap_or(newest)).0.checked_add(1);
        return next.map(Generation).ok_or_else(|| Error::new(Kind::Refused, "no further generation is possible"));
    }
    let own = view.latest_of(source).map(|s| s.manifest.generation);
    Ok(own.unwrap_or(Generation(newest.0.max(1))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;

    #[test]
    fn names_of_sources_tell_paths_apart_and_nothing_else() {
        let name = |paths: &[&[u8]]| {
            let paths: Vec<PathBuf> = paths.iter().map(|p| PathBuf::from(OsStr::from_bytes(p))).collect();
            default_name("files", "h", &absolute(&paths).unwrap())
        };
        assert_eq!(name(&[b"/b", b"/a/./c/"]), "files:h:/a/c:/b");
        assert_eq!(name(&[b"/a"]), name(&[b"//a/."]));
        assert_ne!(name(&[b"/a:/b"]), name(&[b"/a", b"/b"]));
        assert_ne!(name(&[b"/\xff"]), name(&[b"/\xfe"]));
        assert_ne!(name(&[b"/\xff"]), name(&[b"/\\xff"]));
    }
}
