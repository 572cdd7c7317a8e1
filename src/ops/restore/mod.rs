//! Restore: a snapshot, or a part of one, becomes files in a target directory.
//!
//! The tree is walked once ([`Planner`]); what must be written is gathered into windows of bounded size, and each
//! window's packs are read in order, every range once ([`window`]), while the next is gathered ([`crew`]). Metadata of a directory is
//! applied after everything below it was written. Nothing is written outside the target, whatever the
//! snapshot says: that is the contract of [`crate::source::files::Target`].

mod crew;
mod file;
mod landed;
mod plan;
mod window;

use crate::base::{Cancel, Progress};
use crate::error::{Error, Exit, Kind, Result};
use crate::format::snapshot::{Manifest, Miss};
use crate::format::tree::{Entry, EntryType};
use crate::ops::verdicts;
use crate::repo::reader::Reader;
use crate::source::files::{Excludes, RestoreOptions, SourceError, Target};
use crew::Crew;
use plan::Planner;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// Most misses that are kept by name.
const MISSES_MAX: usize = 1000;

/// What to restore, and how.
pub struct RestoreRequest {
    /// Where to.
    pub target: PathBuf,
    /// Only paths that match one of these, and what is below them; empty: everything.
    pub include: Excludes,
    /// Not these.
    pub exclude: Excludes,
    /// Whether `include` was given at all.
    pub only_included: bool,
    /// Remove from the target what the snapshot does not have.
    pub delete: bool,
    /// Only say what would be written.
    pub dry_run: bool,
    /// Owners, devices, attributes.
    pub options: RestoreOptions,
    /// Threads; 0: none, everything inline.
    pub workers: usize,
}

/// What a restore did.
#[derive(Debug, Default)]
pub struct RestoreReport {
    /// Files in place.
    pub files: u64,
    /// Of them, files whose content was there already.
    pub files_same: u64,
    /// Directories in place.
    pub dirs: u64,
    /// Symbolic links and other entries in place.
    pub others: u64,
    /// Bytes of the files in place.
    pub bytes: u64,
    /// Bytes written.
    pub bytes_written: u64,
    /// Entries that were removed from the target.
    pub deleted: u64,
    /// The first things that could not be restored.
    pub misses: Vec<Miss>,
    /// How many there were.
    pub misses_total: u64,
    /// Files that lack bytes which no region has intact.
    pub lost: u64,
    /// Files of models that were read again, or hashed while they were put into a bucket, and have the hash that was recorded.
    pub checked: u64,
}

impl RestoreReport {
    /// Counts an entry other than a directory as being in place.
    fn count(&mut self, entry: &Entry) {
        match entry.kind {
            EntryType::File => self.files += 1,
            _ => self.others += 1,
        }
        self.bytes = self.bytes.saturating_add(entry.size());
    }

    /// How it ended.
    pub fn exit(&self) -> Exit {
        if self.lost > 0 {
            Exit::Damage
        } else if self.misses_total > 0 {
            Exit::Partial
        } else {
            Exit::Done
        }
    }
}

/// Shared by planner and workers.
pub(super) struct Shared<'r> {
    pub(super) reader: &'r Reader,
    pub(super) progress: &'r Progress,
    pub(super) cancel: &'r Cancel,
    /// Whether files have verdicts.
    pub(super) models: bool,
    report: Mutex<RestoreReport>,
}

impl Shared<'_> {
    pub(super) fn note(&self, change: impl FnOnce(&mut RestoreReport)) {
        change(&mut crate::region::lock(&self.report));
    }

    pub(super) fn miss(&self, path: &[u8], kind: &str, message: impl Into<String>) {
        self.progress.errors.add(1);
        let miss = Miss { path: path.to_vec().into(), kind: kind.to_owned(), message: message.into() };
        self.note(|report| {
            report.misses_total += 1;
            if report.misses.len() < MISSES_MAX {
                report.misses.push(miss);
            }
        });
    }

    pub(super) fn misses(&self, path: &[u8], errors: &[SourceError]) {
        for e in errors {
            self.miss(path, e.kind.name(), e.message.clone());
        }
    }

    /// A file for which a needed chunk is nowhere intact.
    pub(super) fn lost(&self, path: &[u8], why: &Error) {
        self.miss(path, "damage", why.to_string());
        self.note(|report| report.lost += 1);
    }
}

/// Restores `root` (the snapshot's root entry, or one found by path) into the target.
///
/// # Errors
/// The target cannot be created, a tree page is nowhere intact, or the run was interrupted.
pub fn run(
    reader: &Reader,
    manifest: &Manifest,
    root: &Entry,
    request: &RestoreRequest,
    progress: &Progress,
    cancel: &Cancel,
) -> Result<RestoreReport> {
    if request.delete && (request.only_included || !request.exclude.is_empty()) {
        return Err(Error::new(Kind::Config, "--delete cannot be combined with --include or --exclude"));
    }
    if root.name.is_empty() {
        progress.bytes_expected.set(manifest.counts.bytes);
    }
    let models = verdicts::is_one(manifest);
    let shared = Shared { reader, progress, cancel, models, report: Mutex::default() };
    let target = if request.dry_run { None } else { Some(open_target(&request.target, request)?) };
    let crew = Crew::default();
    crew.run(&shared, request.workers, || {
        let mut planner = Planner::new(&shared, request, target, &crew, manifest.counts.entries());
        if root.kind == EntryType::Dir { planner.tree(root) } else { planner.single(root) }
    })?;
    Ok(shared.report.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
}

fn open_target(path: &Path, request: &RestoreRequest) -> Result<Target> {
    Target::create(path, request.options.clone())
}
