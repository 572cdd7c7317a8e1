//! The verdicts of a snapshot, from its tree; of the files themselves only lists of hashes and signatures are read.

use super::beside::{Means, Shelf, beside};
use super::gathered::{Gathered, step};
use super::{Judged, Report};
use crate::base::{Cancel, ChunkId, TimeMs};
use crate::chunk::Coder;
use crate::error::{Error, Kind, Result};
use crate::format::snapshot::Manifest;
use crate::format::tree::{Entry, EntryType};
use crate::model::signature::{Hash, Range, Trust};
use crate::ops::browse;
use crate::repo::reader::Reader;
use crate::repo::tree::{DirReader, ListReader, check_depth, read_xattrs};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// How many links may lead to each other.
const LINKS_MAX: u32 = 16;

/// All verdicts of a snapshot of models, as they are by this trust, now. Paths are relative to its root.
///
/// # Errors
/// A page of its tree is nowhere intact, or it was stopped.
pub fn of_snapshot(
    reader: &Reader,
    manifest: &Manifest,
    trust: &[Trust],
    now: TimeMs,
    cancel: &Cancel,
) -> Result<Report> {
    let (mut coder, mut gathered) = (Coder::default(), Gathered::default());
    let mut left = manifest.counts.entries();
    let mut stack = vec![DirReader::new(reader, manifest.root.tree)];
    while let Some(dir) = stack.last_mut() {
        cancel.check()?;
        let Some(mut entry) = dir.next(&mut coder)? else {
            stack.pop();
            gathered.leave();
            continue;
        };
        left = left.checked_sub(1).ok_or_else(|| {
            Error::new(Kind::Damage, "the snapshot has more entries than its manifest says").at(manifest.sid.short())
        })?;
        if entry.kind == EntryType::Dir {
            check_depth(stack.len())?;
            gathered.enter(&entry.name);
            stack.push(DirReader::new(reader, entry.tree));
            continue;
        }
        if let Some(id) = entry.xattrs_ref {
            entry.xattrs = Some(read_xattrs(reader, &id, &mut coder)?);
        }
        gathered.entry(&entry);
    }
    let mut report = gathered.finish();
    let shelf = Stored { reader, manifest, cancel };
    beside(&mut report, Path::new(""), 0, &Means { trust, now, shelf: &shelf, cancel })?;
    Ok(report)
}

/// Files in a snapshot.
struct Stored<'s> {
    reader: &'s Reader,
    manifest: &'s Manifest,
    cancel: &'s Cancel,
}

impl Stored<'_> {
    /// The file at a path, or that to which the link there leads.
    fn find(&self, path: &Path) -> io::Result<Entry> {
        let mut at = path.to_path_buf();
        for _ in 0..LINKS_MAX {
            let entry = browse::find(self.reader, self.manifest, at.as_os_str().as_bytes()).map_err(|e| lift(&e))?;
            match (entry.kind, &entry.target) {
                (EntryType::File, _) => return Ok(entry),
                (EntryType::Symlink, Some(target)) => {
                    let target = Path::new(std::ffi::OsStr::from_bytes(target));
                    at = step(&at, target).ok_or(io::ErrorKind::NotFound)?;
                }
                _ => break,
            }
        }
        Err(io::ErrorKind::NotFound.into())
    }

    fn open(&self, path: &Path) -> io::Result<Content<'_>> {
        let entry = self.find(path)?;
        let list = ListReader::new(self.reader, &entry).map_err(|e| lift(&e))?;
        let inline = entry.inline.as_ref().map(|inline| inline.to_vec()).unwrap_or_default();
        let (coder, size) = (Coder::default(), entry.size());
        let bare = entry.inline.is_none() && entry.chunks.is_none() && entry.list.is_none();
        let holes = if bare { size } else { 0 };
        Ok(Content { stored: self, list, coder, skip: 0, left: size, holes, bytes: inline, at: 0 })
    }
}

impl Shelf for Stored<'_> {
    fn whole(&self, path: &Path, max: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.open(path)?.take(max.saturating_add(1)).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > max { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(bytes) }
    }

    fn digest(&self, file: &Judged, hash: Hash, (start, end): Range) -> Option<Vec<u8>> {
        let mut content = self.open(&file.path).ok()?;
        content.skip = start;
        content.left = end.checked_sub(start)?;
        let read = content.left;
        let mut counted = Counted { inner: content, got: 0 };
        let digest = hash.of(&mut counted).ok()?;
        (counted.got == read).then_some(digest)
    }
}

fn lift(e: &Error) -> io::Error {
    if e.kind() == Kind::NotFound { io::ErrorKind::NotFound.into() } else { io::Error::other(e.to_string()) }
}

/// The bytes of a stored file, from the front; what is skipped is not fetched.
struct Content<'s> {
    stored: &'s Stored<'s>,
    list: ListReader<'s>,
    coder: Coder,
    /// Bytes still to be passed over.
    skip: u64,
    /// Bytes that are wanted from there on.
    left: u64,
    /// Zero bytes that come next.
    holes: u64,
    /// And then these, from `at` on.
    bytes: Vec<u8>,
    at: usize,
}

impl Content<'_> {
    /// Fetches the next piece, or passes over it; false at the end.
    fn fetch(&mut self) -> io::Result<bool> {
        self.stored.cancel.check().map_err(|e| lift(&e))?;
        let Some(item) = self.list.next(&mut self.coder).map_err(|e| lift(&e))? else { return Ok(false) };
        if self.skip >= item.len {
            self.skip -= item.len;
        } else if item.id == ChunkId::HOLE {
            self.holes = item.len;
        } else {
            self.bytes = self.stored.reader.chunk(&item.id, &mut self.coder).map_err(|e| lift(&e))?;
            self.at = 0;
        }
        Ok(true)
    }
}

impl Read for Content<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let most = out.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let Some(out) = out.get_mut(..most).filter(|out| !out.is_empty()) else { return Ok(0) };
        loop {
            let passed = self.holes.min(self.skip);
            (self.holes, self.skip) = (self.holes.saturating_sub(passed), self.skip.saturating_sub(passed));
            if self.holes > 0 {
                let count = out.len().min(usize::try_from(self.holes).unwrap_or(usize::MAX));
                out.iter_mut().take(count).for_each(|byte| *byte = 0);
                self.holes = self.holes.saturating_sub(count as u64);
                self.left = self.left.saturating_sub(count as u64);
                return Ok(count);
            }
            let passed = usize::try_from(self.skip).unwrap_or(usize::MAX).min(self.bytes.len().saturating_sub(self.at));
            self.at = self.at.saturating_add(passed);
            self.skip = self.skip.saturating_sub(passed as u64);
            let rest = self.bytes.get(self.at..).unwrap_or_default();
            if rest.is_empty() {
                if !self.fetch()? {
                    return Ok(0);
                }
                continue;
            }
            let count = rest.len().min(out.len());
            if let (Some(to), Some(from)) = (out.get_mut(..count), rest.get(..count)) {
                to.copy_from_slice(from);
            }
            self.at = self.at.saturating_add(count);
            self.left = self.left.saturating_sub(count as u64);
            return Ok(count);
        }
    }
}

/// Counts what is read: a file that is shorter than was said has no hash of what is missing.
struct Counted<R> {
    inner: R,
    got: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let got = self.inner.read(out)?;
        self.got = self.got.saturating_add(got as u64);
        Ok(got)
    }
}
