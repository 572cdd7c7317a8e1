//! Restore into a bucket: the files of a snapshot become objects again, with the headers that their attributes keep.
//!
//! Paths are walked on the calling thread, objects are written by workers. An object is there whole or not at all. Of models the
//! bytes are hashed on their way to the store, before it is told to make an object of them: what is not what was recorded
//! never becomes one. What the store has in the end is not read.

use super::restore::RestoreReport;
use super::verdicts::{self, attribute};
use super::{browse, own};
use crate::base::{Bucket, Cancel, Progress};
use crate::chunk::Coder;
use crate::error::{Error, Kind, Result};
use crate::format::snapshot::{Manifest, Miss};
use crate::format::tree::{Entry, EntryType, is_safe_name};
use crate::model::recorded::Recorded;
use crate::model::verdict::Hashing;
use crate::region::lock;
use crate::repo::reader::Reader;
use crate::repo::tree::{DirReader, read_xattrs};
use crate::source::bucket::{Sink, Source};
use crossbeam_channel::{Receiver, bounded};
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

/// Most misses that are kept by name.
const MISSES_MAX: usize = 1000;
/// Objects that wait for each worker.
const AHEAD: usize = 4;
/// A store is waited for more than it is worked for.
const WORKERS_MIN: usize = 4;

/// Where to, and how.
pub struct BucketRequest {
    /// The prefix under which everything is put.
    pub place: Bucket,
    /// Whether objects may be there already; those of the same keys are replaced.
    pub overwrite: bool,
    /// Threads.
    pub workers: usize,
}

/// What is to become an object: its path below the prefix, and the entry.
type Job = (Vec<u8>, Entry);
/// What came of it, or the kind of miss and why.
type Answer<T> = std::result::Result<T, (&'static str, String)>;

struct Shared<'r> {
    reader: &'r Reader,
    source: Arc<Source>,
    /// Whether files have verdicts.
    models: bool,
    /// Whether everything is put under no prefix.
    bare: bool,
    progress: &'r Progress,
    cancel: &'r Cancel,
    report: Mutex<RestoreReport>,
}

/// What goes to the store, hashed where that is wanted.
struct Hashed<'s> {
    sink: &'s mut Sink,
    hashing: Option<Hashing>,
}

impl Write for Hashed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = self.sink.write(bytes)?;
        self.hashing.iter_mut().for_each(|hashing| hashing.update(bytes.get(..taken).unwrap_or_default()));
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}

fn failed(e: &Error) -> (&'static str, String) {
    (if e.kind() == Kind::Damage { "damage" } else { "io" }, e.to_string())
}

/// Refuses to put anything into a region of the repository: it would be written over, or hold what is not its own.
fn beside_regions(reader: &Reader, root: &Entry, place: &Bucket) -> Result<()> {
    let target = own::below(place);
    for region in own::prefixes(&reader.repo.regions, place) {
        let inside = match region.strip_prefix(target.as_str()) {
            _ if target.starts_with(region.as_str()) => true,
            Some(below) => has_dir(reader, root, below)?,
            None => false,
        };
        if inside {
            let what = "it would be restored into a region of the repository";
            return Err(Error::new(Kind::Refused, what)
                .at(place.to_string())
                .advise("name another prefix, or another bucket"));
        }
    }
    Ok(())
}

/// Whether a directory of this path, which ends with a slash, lies below another one.
fn has_dir(reader: &Reader, root: &Entry, path: &str) -> Result<bool> {
    let (mut at, mut coder) = (root.clone(), Coder::default());
    for part in path.split('/').filter(|part| !part.is_empty()) {
        if at.kind != EntryType::Dir {
            return Ok(false);
        }
        let (mut dir, mut found) = (DirReader::new(reader, at.tree), None);
        while let Some(child) = dir.next(&mut coder)? {
            if &child.name[..] == part.as_bytes() {
                found = Some(child);
                break;
            }
        }
        let Some(child) = found else { return Ok(false) };
        at = child;
    }
    Ok(at.kind == EntryType::Dir)
}

/// Restores `root` into the bucket.
///
/// # Errors
/// A region of the repository lies where something would be put, objects are there already, the bucket cannot be used, a tree page is nowhere intact, or the run was interrupted.
pub fn run(
    reader: &Reader,
    manifest: &Manifest,
    root: &Entry,
    request: &BucketRequest,
    (progress, cancel): (&Progress, &Cancel),
) -> Result<RestoreReport> {
    beside_regions(reader, root, &request.place)?;
    let source = Source::connect(&request.place, cancel)?;
    if !request.overwrite && !source.is_empty()? {
        return Err(Error::new(Kind::Refused, "objects are there already")
            .at(request.place.to_string())
            .advise("name another prefix, or add --overwrite: objects of the same keys are replaced, others stay"));
    }
    if root.name.is_empty() {
        progress.bytes_expected.set(manifest.counts.bytes);
    }
    let bare = request.place.prefix.is_empty();
    let models = verdicts::is_one(manifest);
    let shared = Shared { reader, source, models, bare, progress, cancel, report: Mutex::default() };
    let workers = request.workers.max(WORKERS_MIN);
    let (jobs, queue) = bounded::<Job>(workers.saturating_mul(AHEAD));
    let walked = std::thread::scope(|scope| {
        for _ in 0..workers {
            let (shared, queue) = (&shared, queue.clone());
            scope.spawn(move || shared.work(&queue));
        }
        drop(queue);
        let stopped = || Error::new(Kind::Cancelled, "interrupted");
        let put = |path: &[u8], entry: &Entry| {
            cancel.check()?;
            shared.source.gone().map_or(Ok(()), Err)?;
            jobs.send((path.to_vec(), entry.clone())).map_err(|_| stopped())
        };
        let done = if root.kind == EntryType::Dir { all(&shared, root, &put) } else { put(&root.name, root) };
        drop(jobs);
        done
    });
    walked?;
    cancel.check()?;
    shared.source.gone().map_or(Ok(()), Err)?;
    Ok(shared.report.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
}

/// Everything below a directory, and what it says of itself.
fn all(shared: &Shared<'_>, root: &Entry, put: &dyn Fn(&[u8], &Entry) -> Result<()>) -> Result<()> {
    put(b"", root)?;
    browse::list(shared.reader, root, true, shared.cancel, &mut |path, entry| put(path, entry))
}

impl Shared<'_> {
    fn work(&self, queue: &Receiver<Job>) {
        for (path, entry) in queue {
            // Who walks ends too, and then the queue does.
            if self.cancel.raised() || self.source.gone().is_some() {
                continue;
            }
            if let Err((kind, message)) = self.one(&path, entry) {
                self.miss(&path, kind, message);
            }
        }
    }

    fn miss(&self, path: &[u8], kind: &str, message: String) {
        self.progress.errors.add(1);
        let mut report = lock(&self.report);
        report.misses_total = report.misses_total.saturating_add(1);
        report.lost = report.lost.saturating_add(u64::from(kind == "damage"));
        if report.misses.len() < MISSES_MAX {
            report.misses.push(Miss { path: path.to_vec().into(), kind: kind.to_owned(), message });
        }
    }

    fn one(&self, path: &[u8], mut entry: Entry) -> Answer<()> {
        let unsupported = |what: String| ("unsupported", what);
        if let Some(id) = entry.xattrs_ref.take() {
            let found = read_xattrs(self.reader, &id, &mut Coder::default());
            entry.xattrs = Some(found.map_err(|e| failed(&e))?);
        }
        // A part `..` would lead out of the prefix.
        if !path.is_empty() && !path.split(|b| *b == b'/').all(is_safe_name) {
            return Err(("refused", "the snapshot has a name that no directory can hold".into()));
        }
        let path = match entry.kind {
            EntryType::File => path.to_vec(),
            EntryType::Dir => match self.mark(path, &entry) {
                Some(path) => path,
                None => return Ok(()),
            },
            _ => return Err(unsupported("not restored: a bucket has only files".into())),
        };
        let recorded = if self.models { attribute::take(&mut entry) } else { None };
        let mut sink = self.source.sink(&path, &entry).map_err(unsupported)?;
        for header in sink.unfit() {
            let what = format!("restored without its header {header}, which no request can carry");
            self.miss(&path, "unsupported", what);
        }
        let checked = entry.kind == EntryType::File && self.content(&entry, recorded, &mut sink)?;
        sink.finish().map_err(|e| failed(&e))?;
        self.progress.bytes_done.add(entry.size());
        let mut report = lock(&self.report);
        if entry.kind == EntryType::File {
            self.progress.files.add(1);
            report.files = report.files.saturating_add(1);
            report.bytes = report.bytes.saturating_add(entry.size());
            report.bytes_written = report.bytes_written.saturating_add(entry.size());
            report.checked = report.checked.saturating_add(u64::from(checked));
        }
        Ok(())
    }

    /// Writes the content of a file; whether it was held to its verdict, which not each has. Where it is not what was recorded,
    /// the object is given up with the sink.
    fn content(&self, entry: &Entry, recorded: Option<Recorded>, sink: &mut Sink) -> Answer<bool> {
        let mut put = Hashed { sink, hashing: recorded.as_ref().map(|_| Hashing::default()) };
        let done = browse::cat(self.reader, entry, &mut put, self.cancel);
        let Hashed { sink, hashing } = put;
        done.map_err(|e| failed(&sink.take_error().unwrap_or(e)))?;
        match recorded.zip(hashing.map(Hashing::finish)) {
            None => Ok(false),
            Some((recorded, found)) if recorded.sha256 == found => Ok(true),
            Some(_) => Err(("damage", "not restored: it is not what was recorded when it was backed up".into())),
        }
    }

    /// The object that stands for a directory, where one is needed: it had one, or nothing else shows that it is there.
    fn mark(&self, path: &[u8], entry: &Entry) -> Option<Vec<u8>> {
        lock(&self.report).dirs += 1;
        let had = entry.xattrs.iter().flatten().any(|x| x.name.starts_with(b"user.s3."));
        let root = path.is_empty();
        // Its key would be empty, and to put that is to make a bucket.
        if root && self.bare {
            return None;
        }
        (had || (entry.tree.is_none() && !root)).then(|| if root { Vec::new() } else { [path, b"/"].concat() })
    }
}
