//! The verdicts of a snapshot, from its tree; of the files themselves only lists of hashes and signatures are read.

use super::Report;
use super::again::Again;
use super::beside::{Means, Shelf, beside};
use super::gathered::Gathered;
use super::links::{Stands, resolve};
use crate::base::{Cancel, ChunkId, TimeMs};
use crate::chunk::Coder;
use crate::error::{Error, Kind, Result};
use crate::format::snapshot::Manifest;
use crate::format::tree::{Entry, EntryType};
use crate::model::signature::Trust;
use crate::ops::browse;
use crate::repo::reader::Reader;
use crate::repo::tree::{DirReader, ListReader, check_depth, read_xattrs};
use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

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
    gather(reader, manifest, trust, (now, cancel), &mut |_, _| Ok(()))
}

/// The same, with all files judged again, and what they are recorded as otherwise.
///
/// # Errors
/// As above.
pub fn again_of_snapshot(
    reader: &Reader,
    manifest: &Manifest,
    trust: &[Trust],
    now: TimeMs,
    cancel: &Cancel,
) -> Result<(Report, Again)> {
    let mut again = Again::default();
    let report =
        gather(reader, manifest, trust, (now, cancel), &mut |path, entry| again.judge(reader, path, entry, cancel))?;
    Ok((report, again))
}

/// All files with their verdicts, each handed to `file` before. What that complains of is not judged.
fn gather(
    reader: &Reader,
    manifest: &Manifest,
    trust: &[Trust],
    (now, cancel): (TimeMs, &Cancel),
    file: &mut dyn FnMut(&Path, &mut Entry) -> Result<()>,
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
        let path = gathered.path_of(&entry);
        let judged = if entry.kind == EntryType::File { file(&path, &mut entry) } else { Ok(()) };
        match judged {
            Ok(()) => gathered.entry(&entry),
            Err(e) if e.kind() == Kind::Cancelled => return Err(e),
            Err(e) => gathered.failed(path, &e),
        }
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
        let entry = |at: &Path| match browse::find(self.reader, self.manifest, at.as_os_str().as_bytes()) {
            Ok(entry) => Ok(Some(entry)),
            Err(e) if e.kind() == Kind::NotFound => Ok(None),
            Err(e) => Err(lift(&e)),
        };
        let at = resolve(path, &mut |at| {
            let Some(entry) = entry(at)? else { return Ok(Stands::Nothing) };
            Ok(match (entry.kind, &entry.target) {
                (EntryType::File, _) => Stands::File,
                (EntryType::Dir, _) => Stands::Dir,
                (EntryType::Symlink, Some(target)) => Stands::Link(OsStr::from_bytes(target).into()),
                _ => Stands::Nothing,
            })
        })?;
        entry(&at)?.ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Shelf for Stored<'_> {
    fn open(&self, path: &Path) -> io::Result<Box<dyn Read + '_>> {
        let entry = self.find(path)?;
        let list = ListReader::new(self.reader, &entry).map_err(|e| lift(&e))?;
        let bytes = entry.inline.as_ref().map(|inline| inline.to_vec()).unwrap_or_default();
        let bare = entry.inline.is_none() && entry.chunks.is_none() && entry.list.is_none();
        let holes = if bare { entry.size() } else { 0 };
        Ok(Box::new(Content { stored: self, list, coder: Coder::default(), left: entry.size(), holes, bytes, at: 0 }))
    }
}

fn lift(e: &Error) -> io::Error {
    if e.kind() == Kind::NotFound { io::ErrorKind::NotFound.into() } else { io::Error::other(e.to_string()) }
}

/// The bytes of a stored file, from the front.
struct Content<'s> {
    stored: &'s Stored<'s>,
    list: ListReader<'s>,
    coder: Coder,
    /// Bytes that are to come.
    left: u64,
    /// Zero bytes that come next.
    holes: u64,
    /// And then these, from `at` on.
    bytes: Vec<u8>,
    at: usize,
}

impl Content<'_> {
    /// Fetches the next piece; false at the end.
    fn fetch(&mut self) -> io::Result<bool> {
        self.stored.cancel.check().map_err(|e| lift(&e))?;
        let Some(item) = self.list.next(&mut self.coder).map_err(|e| lift(&e))? else { return Ok(false) };
        if item.id == ChunkId::HOLE {
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
        while self.holes == 0 && self.at >= self.bytes.len() {
            if !self.fetch()? {
                return Ok(0);
            }
        }
        let count = if self.holes > 0 {
            let count = out.len().min(usize::try_from(self.holes).unwrap_or(usize::MAX));
            out.iter_mut().take(count).for_each(|byte| *byte = 0);
            self.holes = self.holes.saturating_sub(count as u64);
            count
        } else {
            let rest = self.bytes.get(self.at..).unwrap_or_default();
            let count = rest.len().min(out.len());
            if let (Some(to), Some(from)) = (out.get_mut(..count), rest.get(..count)) {
                to.copy_from_slice(from);
            }
            self.at = self.at.saturating_add(count);
            count
        };
        self.left = self.left.saturating_sub(count as u64);
        Ok(count)
    }
}
