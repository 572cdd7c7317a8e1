//! One file on its way back.

use super::Shared;
use super::landed::Landed;
use crate::error::{Error, Kind};
use crate::format::tree::{Entry, Item};
use crate::model::verdict::Sha256;
use crate::region::lock;
use crate::source::files::{SourceError, TargetDir, TargetFile};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// Bytes copied at once.
const COPY_BYTES: usize = 1 << 20;

/// What was found to be the same already must be in the replacement too; holes stay holes.
fn copy(old: &TargetFile, new: &TargetFile, len_max: u64) -> Result<(), SourceError> {
    let mut buf = vec![0; COPY_BYTES];
    let mut at = 0;
    while let Some((start, end)) = old.data_from(at)?.filter(|(start, _)| *start < len_max) {
        let end = end.min(len_max);
        at = start;
        while at < end {
            let want = usize::try_from(end - at).unwrap_or(COPY_BYTES).min(COPY_BYTES);
            let got = old.read_at(at, &mut buf[..want])?;
            if got == 0 {
                return Ok(());
            }
            new.write_at(at, &buf[..got])?;
            at += got as u64;
        }
    }
    Ok(())
}

/// A file that is written by several hands. It is finished when the planner and every expected chunk are done.
pub(super) struct FileTask {
    pub(super) entry: Entry,
    dir: Arc<TargetDir>,
    pub(super) path: Vec<u8>,
    /// Held while it is opened or replaced, not while it is written.
    file: Mutex<Option<Arc<TargetFile>>>,
    /// Chunks expected, and one for the planner.
    left: AtomicUsize,
    /// Shared with the further names of the inode: they fail with it.
    failed: Arc<AtomicBool>,
    wrote: AtomicBool,
    existed: AtomicBool,
    /// Behind the last byte that was written.
    end: AtomicU64,
    /// What its content is to hash to, where that was recorded, and how far it was read again.
    hash: Option<(Sha256, Landed)>,
}

impl FileTask {
    pub(super) fn new(
        entry: Entry,
        dir: Arc<TargetDir>,
        path: Vec<u8>,
        failed: Arc<AtomicBool>,
        hash: Option<Sha256>,
    ) -> Self {
        FileTask {
            entry,
            dir,
            path,
            file: Mutex::new(None),
            left: AtomicUsize::new(1),
            failed,
            wrote: AtomicBool::new(false),
            existed: AtomicBool::new(false),
            end: AtomicU64::new(0),
            hash: hash.map(|hash| (hash, Landed::default())),
        }
    }

    /// Looks at what stands there, and writes what stands in the entry. False if it cannot be restored.
    pub(super) fn prepare(&self, shared: &Shared<'_>) -> bool {
        let there = if self.dir.is_new() { Ok(None) } else { self.dir.kind_of(&self.entry.name) };
        let done = there.and_then(|there| {
            if there.is_some() {
                let file = TargetFile::open(&self.dir, &self.entry)?;
                self.existed.store(file.existing().is_some(), Ordering::Relaxed);
                *lock(&self.file) = Some(Arc::new(file));
            }
            self.inline(shared)
        });
        if let Err(e) = done {
            self.fail(shared, &e);
            return false;
        }
        true
    }

    fn inline(&self, shared: &Shared<'_>) -> Result<(), SourceError> {
        let Some(inline) = &self.entry.inline else { return Ok(()) };
        if self.existed.load(Ordering::Relaxed) {
            let mut there = vec![0; inline.len()];
            let got = self.with(|file| file.read_at(0, &mut there))?;
            if got == inline.len() && there == inline[..] {
                return Ok(());
            }
        }
        self.write(0, inline)?;
        shared.note(|report| report.bytes_written += inline.len() as u64);
        Ok(())
    }

    /// Runs `act` on the open file; opens or creates it first.
    fn with<T>(&self, act: impl FnOnce(&TargetFile) -> Result<T, SourceError>) -> Result<T, SourceError> {
        let mut slot = lock(&self.file);
        let file = match slot.take() {
            Some(file) => file,
            None if self.dir.is_new() => Arc::new(TargetFile::create(&self.dir, &self.entry)?),
            None => Arc::new(TargetFile::open(&self.dir, &self.entry)?),
        };
        let file = Arc::clone(slot.insert(file));
        drop(slot);
        act(&file)
    }

    /// Before the first change: a file with names outside must not be written in place.
    fn writable(&self) -> Result<(), SourceError> {
        // The lock comes first: nobody may write before the one that came first has replaced the file.
        let mut slot = lock(&self.file);
        if self.wrote.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        if let Some(old) = slot.take_if(|file| file.is_shared()) {
            let new = TargetFile::replace(&self.dir, &self.entry)?;
            copy(&old, &new, self.entry.size())?;
            *slot = Some(Arc::new(new));
        } else if let Some(file) = slot.as_ref().filter(|file| file.existing().is_some()) {
            // The new content must not be readable by those who could read the old one.
            file.narrow();
        }
        Ok(())
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), SourceError> {
        self.writable()?;
        self.with(|file| file.write_at(offset, bytes))?;
        self.end.fetch_max(offset.saturating_add(bytes.len() as u64), Ordering::Relaxed);
        Ok(())
    }

    /// Whether the target's bytes are this chunk already.
    pub(super) fn has_already(&self, shared: &Shared<'_>, item: &Item, offset: u64) -> bool {
        if !self.existed.load(Ordering::Relaxed) {
            return false;
        }
        let Ok(len) = usize::try_from(item.len) else { return false };
        if len > crate::format::CHUNK_BYTES_MAX {
            return false;
        }
        let mut there = vec![0; len];
        let same = self.with(|file| file.read_at(offset, &mut there)).is_ok_and(|got| got == len)
            && shared.reader.repo.id_key().id(&there) == item.id;
        if same {
            shared.progress.bytes_done.add(item.len);
        }
        same
    }

    /// A hole: nothing to write in a new file.
    pub(super) fn hole(&self, shared: &Shared<'_>, offset: u64, len: u64) {
        shared.progress.bytes_done.add(len);
        if self.existed.load(Ordering::Relaxed)
            && let Err(e) = self.empty(offset, len)
        {
            self.fail(shared, &e);
        }
        self.read_again(offset, len, true);
    }

    /// Makes a hole where data lies.
    fn empty(&self, offset: u64, len: u64) -> Result<(), SourceError> {
        let end = offset.saturating_add(len);
        if self.with(|file| file.data_from(offset))?.is_none_or(|(start, _)| start >= end) {
            return Ok(());
        }
        self.writable()?;
        self.with(|file| file.make_hole(offset, len))
    }

    /// Gives the file its size; whether its content stood there. One with names outside that has to change, be
    /// it only in its metadata, is replaced before.
    fn complete(&self) -> Result<bool, SourceError> {
        let size = self.entry.size();
        let there = self.with(|file| Ok(file.existing() == Some(size)))?;
        let same = there && !self.wrote.load(Ordering::Relaxed);
        if !same || self.with(|file| Ok(file.is_shared() && !file.matches(&self.entry)))? {
            self.writable()?;
            // A new file ends where the last byte was written.
            let end = self.end.load(Ordering::Relaxed);
            self.with(|file| if file.existing().unwrap_or(end) == size { Ok(()) } else { file.set_len(size) })?;
        }
        Ok(same)
    }

    /// Reads again what was not read again yet: whether all of it has this hash.
    fn is_as_recorded(&self, shared: &Shared<'_>, (hash, landed): &(Sha256, Landed)) -> Result<bool, SourceError> {
        let size = self.entry.size();
        let found = self.with(|file| landed.rest(file, size, &|| shared.cancel.raised()))?;
        // One that was stopped is told of as such by whoever waits for it.
        Ok(shared.cancel.raised() || found == Some(*hash))
    }

    /// Reads again what came, as far as nothing is missing before it: the other hands go on meanwhile.
    fn read_again(&self, offset: u64, len: u64, is_hole: bool) {
        if let Some((_, landed)) = &self.hash
            && !self.existed.load(Ordering::Relaxed)
        {
            // What fails here is met again, and told, at the end.
            let _ = self.with(|file| landed.came(file, offset, len, is_hole));
        }
    }

    /// Whether it may be open while chunks are still to come.
    pub(super) fn holds_descriptor(&self) -> bool {
        lock(&self.file).is_some() || self.left.load(Ordering::Relaxed) > 2
    }

    /// One more chunk will come.
    pub(super) fn expect(&self) {
        self.left.fetch_add(1, Ordering::Relaxed);
    }

    /// A chunk came.
    pub(super) fn put(&self, shared: &Shared<'_>, offset: u64, bytes: &[u8]) {
        if !self.failed.load(Ordering::Relaxed) {
            match self.write(offset, bytes) {
                Ok(()) => {
                    self.read_again(offset, bytes.len() as u64, false);
                    shared.progress.bytes_done.add(bytes.len() as u64);
                    shared.note(|report| report.bytes_written += bytes.len() as u64);
                }
                Err(e) => self.fail(shared, &e),
            }
        }
        self.settle(shared);
    }

    /// A chunk cannot be had.
    pub(super) fn lost(&self, shared: &Shared<'_>, why: &Error) {
        self.give_up(shared, why);
        self.settle(shared);
    }

    /// Names the file once as not restored.
    pub(super) fn give_up(&self, shared: &Shared<'_>, why: &Error) {
        if !self.failed.swap(true, Ordering::Relaxed) {
            shared.lost(&self.path, why);
        }
    }

    fn fail(&self, shared: &Shared<'_>, e: &SourceError) {
        if !self.failed.swap(true, Ordering::Relaxed) {
            shared.miss(&self.path, e.kind.name(), e.message.clone());
        }
    }

    /// A new file that lacks bytes must not look like a restored one.
    fn take_away(&self, shared: &Shared<'_>) {
        let made = lock(&self.file).take().is_some() && !self.existed.load(Ordering::Relaxed);
        if made && let Err(e) = self.dir.remove_all(&self.entry.name) {
            shared.misses(&self.path, &[e]);
        }
    }

    /// One hand is done; the last one finishes the file.
    pub(super) fn settle(&self, shared: &Shared<'_>) {
        if self.left.fetch_sub(1, Ordering::AcqRel) != 1 {
            return;
        }
        if self.failed.load(Ordering::Relaxed) {
            return self.take_away(shared);
        }
        let size = self.entry.size();
        let same = match self.complete() {
            Ok(same) => same,
            Err(e) => {
                self.fail(shared, &e);
                return self.take_away(shared);
            }
        };
        if let Some(hash) = &self.hash {
            match self.is_as_recorded(shared, hash) {
                Ok(true) => shared.note(|report| report.checked += 1),
                Ok(false) => {
                    let what = "read again, it is not what was recorded when it was backed up";
                    self.give_up(shared, &Error::new(Kind::Damage, what));
                    return self.take_away(shared);
                }
                Err(e) => {
                    self.fail(shared, &e);
                    return self.take_away(shared);
                }
            }
        }
        let finished = match lock(&self.file).take() {
            Some(file) => file.finish(&self.entry),
            None => Ok(()),
        };
        if let Err(errors) = finished {
            shared.misses(&self.path, &errors);
        }
        shared.progress.files.add(1);
        shared.note(|report| {
            report.files += 1;
            report.files_same += u64::from(same);
            report.bytes = report.bytes.saturating_add(size);
        });
    }
}
