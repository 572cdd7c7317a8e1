//! A snapshot, or a part of one, as a stream: a directory as a tar archive, a file as it is.
//!
//! The tree is walked once by a planner, chunks are read ahead by workers, and the calling thread writes in order
//! ([`super::ahead`]). Memory grows with neither files nor directories, but for the names of inodes with several, as in a
//! restore. A damaged file of up to 8 MiB, whose chunks are all read before its header is written, is left out and named; where the
//! header is gone already, the archive ends there with an error: zeros would pass for content.

mod header;
mod plan;
mod write;

use super::ahead::{self, Job};
use crate::base::{Cancel, Progress};
use crate::chunk::Coder;
use crate::error::{Error, Exit, Kind, Result};
use crate::format::snapshot::{Manifest, Miss};
use crate::format::tree::{Entry, EntryType};
use crate::ops::verdicts::is_one;
use crate::policy::Excludes;
use crate::repo::reader::Reader;
use crossbeam_channel::Receiver;
use std::io::Write;

/// Most misses that are kept by name.
const MISSES_MAX: usize = 1000;

/// What goes into an archive, and how.
#[derive(Debug, Clone, Default)]
pub struct TarRequest {
    /// Only paths that match one of these, and what is below them.
    pub include: Excludes,
    /// Whether `include` was given at all.
    pub only_included: bool,
    /// Not these.
    pub exclude: Excludes,
    /// Write holes as zeros: a few programs know no holes.
    pub no_sparse: bool,
    /// Threads that read.
    pub workers: usize,
}

/// What was written.
#[derive(Debug, Default)]
pub struct TarReport {
    /// Files, further names of one inode among them.
    pub files: u64,
    /// Directories.
    pub dirs: u64,
    /// Symbolic links and other members.
    pub others: u64,
    /// Bytes of the files.
    pub bytes: u64,
    /// Bytes of the archive, or of the file.
    pub bytes_written: u64,
    /// The first entries that are not in it.
    pub misses: Vec<Miss>,
    /// How many there were.
    pub misses_total: u64,
    /// Of them, those that lack bytes which no region has intact.
    pub lost: u64,
}

impl TarReport {
    /// How it ended.
    pub fn exit(&self) -> Exit {
        match (self.lost, self.misses_total) {
            (0, 0) => Exit::Done,
            (0, _) => Exit::Partial,
            _ => Exit::Damage,
        }
    }

    fn miss(&mut self, path: &[u8], kind: &str, message: impl Into<String>) {
        self.misses_total += 1;
        if self.misses.len() < MISSES_MAX {
            self.misses.push(Miss { path: path.to_vec().into(), kind: kind.into(), message: message.into() });
        }
    }

    fn lost(&mut self, path: &[u8], why: &Error) {
        self.lost += 1;
        self.miss(path, "damage", why.to_string());
    }

    fn count(&mut self, entry: &Entry) {
        match entry.kind {
            EntryType::File => self.files += 1,
            EntryType::Dir => self.dirs += 1,
            _ => self.others += 1,
        }
        self.bytes = self.bytes.saturating_add(entry.size());
    }

    fn add(&mut self, other: TarReport) {
        for miss in other.misses {
            if self.misses.len() < MISSES_MAX {
                self.misses.push(miss);
            }
        }
        self.misses_total += other.misses_total;
        self.lost += other.lost;
    }
}

/// A worker: reads chunks.
fn read(reader: &Reader, jobs: &Receiver<Job<Vec<u8>>>) {
    let mut coder = Coder::default();
    for job in jobs {
        let read = reader.chunk(&job.item.id, &mut coder).and_then(|bytes| {
            let fits = bytes.len() as u64 == job.item.len;
            let wrong = || Error::new(Kind::Damage, "a chunk's length is not what the file's list says");
            if fits { Ok(bytes) } else { Err(wrong()) }
        });
        job.answer(read);
    }
}

/// Writes `root` (the snapshot's root, or an entry found by path) as a tar archive. A directory's own name is not in it.
///
/// # Errors
/// The output refused, a large file is damaged, or interrupted.
pub fn archive(
    reader: &Reader,
    manifest: &Manifest,
    root: &Entry,
    request: &TarRequest,
    out: &mut dyn Write,
    (progress, cancel): (&Progress, &Cancel),
) -> Result<TarReport> {
    if root.name.is_empty() {
        progress.bytes_expected.set(manifest.counts.bytes);
    }
    let entries = manifest.counts.entries();
    let (planned, written) = ahead::run(
        request.workers,
        |jobs| read(reader, jobs),
        |asker, steps| {
            let planner = plan::Planner::new(reader, request, asker, steps, cancel, entries);
            planner.of_models(is_one(manifest)).run(root)
        },
        |steps| write::Writer::new(out, progress, cancel).archive(steps),
    );
    let mut report = written?;
    report.add(planned.ok_or_else(|| Error::new(Kind::Bug, "the planner ended early"))??);
    Ok(report)
}

/// Writes a file's content.
///
/// # Errors
/// Not a file, the output refused, the file is damaged, or interrupted.
pub fn content(
    reader: &Reader,
    entry: &Entry,
    workers: usize,
    out: &mut dyn Write,
    (progress, cancel): (&Progress, &Cancel),
) -> Result<TarReport> {
    if entry.kind != EntryType::File {
        return Err(Error::new(Kind::Config, "not a regular file").at(String::from_utf8_lossy(&entry.name)));
    }
    progress.bytes_expected.set(entry.size());
    let request = TarRequest { no_sparse: true, ..TarRequest::default() };
    let (planned, written) = ahead::run(
        workers,
        |jobs| read(reader, jobs),
        |asker, steps| plan::Planner::new(reader, &request, asker, steps, cancel, 1).content(entry),
        |steps| write::Writer::new(out, progress, cancel).content(steps),
    );
    let mut report = written?;
    planned.ok_or_else(|| Error::new(Kind::Bug, "the planner ended early"))??;
    report.files = 1;
    report.bytes = entry.size();
    Ok(report)
}
