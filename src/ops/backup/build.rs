//! Puts entries together in order: directories become trees, chunk lists become pages.

use super::Verdicts;
use super::plan::{Planned, Planner};
use super::step::{Done, Piece, Step};
use crate::base::{Cancel, Progress};
use crate::error::{Error, Kind, Result};
use crate::format::cbor;
use crate::format::snapshot::{Counts, ERRORS_MAX, Label, Miss};
use crate::format::tree::{Entry, EntryType, FLAG_CHANGED, Item, XATTR_INLINE_BYTES_MAX};
use crate::ops::model::is_of_a_model;
use crate::ops::verdicts::Gathered;
use crate::repo::pages::Same;
use crate::repo::tree::{ChunkList, DirWriter, ListWriter, PageSink};
use crossbeam_channel::Receiver;
use std::collections::BTreeMap;

/// Most changed files that are kept by name.
const CHANGED_MAX: usize = 1000;

/// Most files of models that are compared with what they were.
const MODELS_MAX: usize = 1000;

/// Most bytes of paths and messages that are kept by name, of either list. A path may have a megabyte, and a manifest
/// must stay small enough to be read again.
const NAMED_BYTES_MAX: usize = 4 << 20;

/// What came out.
#[derive(Debug, Default)]
pub(super) struct Built {
    pub(super) root: Option<Entry>,
    pub(super) counts: Counts,
    pub(super) errors: Vec<Miss>,
    pub(super) errors_total: u64,
    pub(super) changed: Vec<Vec<u8>>,
    pub(super) changed_total: u64,
    /// What the manifest says beside.
    pub(super) labels: Vec<Label>,
    /// The verdicts on files, where they are judged.
    pub(super) gathered: Option<Gathered>,
    /// What is made of them.
    pub(super) verdicts: Option<Verdicts>,
    /// Files of models that were read, and how many there were beyond them.
    pub(super) models: Vec<Vec<u8>>,
    pub(super) models_left: u64,
    errors_bytes: usize,
    changed_bytes: usize,
    models_bytes: usize,
}

/// Whether this many bytes more are within the limit; if so, they are counted.
fn fits(kept: &mut usize, more: usize) -> bool {
    let sum = kept.saturating_add(more);
    let fits = sum <= NAMED_BYTES_MAX;
    if fits {
        *kept = sum;
    }
    fits
}

impl Built {
    pub(super) fn missed(&mut self, miss: Miss, progress: &Progress) {
        progress.errors.add(1);
        self.errors_total += 1;
        if self.errors.len() < ERRORS_MAX && fits(&mut self.errors_bytes, miss.path.len() + miss.message.len()) {
            self.errors.push(miss);
        }
    }

    /// Files that did not change.
    fn count_same(&mut self, files: u64, bytes: u64) {
        self.counts.files += files;
        self.counts.files_unchanged += files;
        self.counts.bytes = self.counts.bytes.saturating_add(bytes);
    }

    fn count(&mut self, entry: &Entry, read: bool) {
        let counts = &mut self.counts;
        match entry.kind {
            EntryType::File => {
                counts.files += 1;
                counts.bytes = counts.bytes.saturating_add(entry.size());
                if read { counts.files_read += 1 } else { counts.files_unchanged += 1 }
            }
            EntryType::Dir => counts.dirs += 1,
            EntryType::Symlink => counts.symlinks += 1,
            _ => counts.other += 1,
        }
    }
}

/// Builds the tree of one snapshot.
pub(super) struct Builder<'b> {
    open: Vec<(Entry, DirWriter)>,
    sink: &'b mut dyn PageSink,
    progress: &'b Progress,
    pub(super) built: Built,
}

impl<'b> Builder<'b> {
    pub(super) fn new(sink: &'b mut dyn PageSink, progress: &'b Progress, judges: bool) -> Self {
        let built = Built { gathered: judges.then(Gathered::default), ..Built::default() };
        Builder { open: Vec::new(), sink, progress, built }
    }

    /// Takes one step; waits for its work.
    pub(super) fn step(&mut self, step: Step) -> Result<()> {
        match step {
            Step::Enter(entry) => {
                self.built.gathered.iter_mut().for_each(|all| all.enter(&entry.name));
                self.open.push((*entry, DirWriter::default()));
            }
            Step::Leave => self.leave()?,
            Step::Ready(entries) => {
                for entry in entries {
                    self.progress.bytes_done.add(entry.size());
                    self.add(entry, false)?;
                }
            }
            Step::Same(same, bytes) => self.same(&same, bytes)?,
            Step::Batch(results) => {
                for done in results.recv().map_err(|_| stopped())? {
                    self.done(done)?;
                }
            }
            Step::Big(pieces) => self.big(&pieces)?,
            Step::Missed(miss) => self.built.missed(miss, self.progress),
            Step::Excluded => self.built.counts.excluded += 1,
        }
        Ok(())
    }

    fn same(&mut self, same: &Same, bytes: u64) -> Result<()> {
        let count = same.count() as u64;
        self.built.count_same(count, bytes);
        self.progress.files.add(count);
        self.progress.bytes_done.add(bytes);
        let (_, dir) = self.open.last_mut().ok_or_else(outside)?;
        dir.push_same(same, self.sink)
    }

    fn leave(&mut self) -> Result<()> {
        let (mut entry, dir) = self.open.pop().ok_or_else(|| Error::new(Kind::Bug, "left more than was entered"))?;
        entry.tree = dir.finish(self.sink)?;
        self.built.gathered.iter_mut().for_each(Gathered::leave);
        self.progress.dirs.add(1);
        if self.open.is_empty() {
            self.spill_xattrs(&mut entry)?;
            self.built.count(&entry, false);
            self.built.root = Some(entry);
            Ok(())
        } else {
            self.add(entry, false)
        }
    }

    fn add(&mut self, mut entry: Entry, read: bool) -> Result<()> {
        self.built.gathered.iter_mut().for_each(|all| all.entry(&entry));
        self.spill_xattrs(&mut entry)?;
        self.built.count(&entry, read);
        if entry.kind == EntryType::File {
            self.progress.files.add(1);
        }
        let (_, dir) = self.open.last_mut().ok_or_else(outside)?;
        dir.push(entry, self.sink)
    }

    fn done(&mut self, mut done: Done) -> Result<()> {
        if let (Ok(entry), Some(items)) = (&mut done.result, done.items.take()) {
            let mut list = ListWriter::default();
            for item in items {
                list.push(item, self.sink)?;
            }
            finish_list(entry, list, self.sink)?;
        }
        match done.result {
            Ok(mut entry) => {
                if let Some(path) = done.changed {
                    entry.flags = Some(FLAG_CHANGED);
                    self.note_changed(path);
                }
                if done.read && is_of_a_model(&entry.name, done.model) {
                    self.note_model(&entry.name);
                }
                self.add(entry, done.read)
            }
            Err(miss) => {
                self.built.missed(miss, self.progress);
                Ok(())
            }
        }?;
        done.misses.into_iter().for_each(|miss| self.built.missed(miss, self.progress));
        Ok(())
    }

    /// A file of a model, to be compared with what stood there.
    fn note_model(&mut self, name: &[u8]) {
        // The root has no name that leads to it.
        let above = self.open.iter().skip(1).map(|(entry, _)| &entry.name[..]);
        let path = above.chain([name]).collect::<Vec<_>>().join(&b'/');
        let built = &mut self.built;
        if built.models.len() < MODELS_MAX && fits(&mut built.models_bytes, path.len()) {
            built.models.push(path);
        } else {
            built.models_left += 1;
        }
    }

    fn note_changed(&mut self, path: Vec<u8>) {
        self.built.changed_total += 1;
        if self.built.changed.len() < CHANGED_MAX && fits(&mut self.built.changed_bytes, path.len()) {
            self.built.changed.push(path);
        }
    }

    /// Big files arrive in pieces, not always in order; the window is as wide as there are workers.
    fn big(&mut self, pieces: &Receiver<Piece>) -> Result<()> {
        let mut list = ListWriter::default();
        let mut early: BTreeMap<u64, Vec<Item>> = BTreeMap::new();
        let mut next = 0;
        loop {
            match pieces.recv().map_err(|_| stopped())? {
                Piece::Items { seq, items } => {
                    early.insert(seq, items);
                    while let Some(items) = early.remove(&next) {
                        next += 1;
                        for item in items {
                            list.push(item, self.sink)?;
                        }
                    }
                }
                Piece::Restart => {
                    (list, next) = (ListWriter::default(), 0);
                    early.clear();
                }
                Piece::End(done) => {
                    let mut done = *done;
                    if let Ok(entry) = &mut done.result {
                        finish_list(entry, list, self.sink)?;
                    }
                    return self.done(done);
                }
            }
        }
    }

    /// Many attributes would make pages too long: they go to a chunk of their own.
    fn spill_xattrs(&mut self, entry: &mut Entry) -> Result<()> {
        let Some(xattrs) = &entry.xattrs else { return Ok(()) };
        let bytes: usize = xattrs.iter().map(|x| x.name.len() + x.value.len()).sum();
        if bytes <= XATTR_INLINE_BYTES_MAX {
            return Ok(());
        }
        let encoded = cbor::encode(xattrs);
        if encoded.len() > crate::format::CHUNK_BYTES_MAX {
            let message = format!("extended attributes of {bytes} bytes are too large and were not stored");
            self.built.missed(Miss { path: entry.name.clone(), kind: "unsupported".into(), message }, self.progress);
        } else {
            entry.xattrs_ref = Some(self.sink.put(&encoded)?);
        }
        entry.xattrs = None;
        Ok(())
    }
}

/// Puts a finished chunk list into its entry.
fn finish_list(entry: &mut Entry, list: ListWriter, sink: &mut dyn PageSink) -> Result<()> {
    entry.size = Some(list.total());
    match list.finish(sink)? {
        ChunkList::Inline(items) if items.is_empty() => {}
        ChunkList::Inline(items) => entry.chunks = Some(items.into()),
        ChunkList::Pages(pages) => entry.list = Some(pages),
    }
    Ok(())
}

fn outside() -> Error {
    Error::new(Kind::Bug, "an entry outside any directory")
}

fn stopped() -> Error {
    Error::new(Kind::Cancelled, "interrupted")
}

/// Counts what a run would do.
pub(super) fn count_only(planner: &mut Planner<'_>, progress: &Progress, cancel: &Cancel) -> Result<Built> {
    let mut built = Built::default();
    let mut open = Vec::new();
    while let Some(planned) = planner.next() {
        cancel.check()?;
        match planned {
            Planned::Enter(entry) => {
                built.count(&entry, false);
                open.push(*entry);
            }
            Planned::Leave => built.root = open.pop(),
            Planned::Batch { work, .. } => {
                for work in work {
                    let read = work.read && !work.entry.has_content();
                    built.count(&work.entry, read);
                    if read {
                        progress.bytes_read.add(work.entry.size());
                    }
                }
            }
            Planned::Same(same, bytes) => built.count_same(same.count() as u64, bytes),
            Planned::Big { entry, .. } => {
                built.count(&entry, true);
                progress.bytes_read.add(entry.size());
            }
            Planned::Missed(miss) => built.missed(miss, progress),
            Planned::Excluded => built.counts.excluded += 1,
        }
    }
    Ok(built)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::envelope::BODY_BYTES_MAX;

    #[test]
    fn errors_of_any_length_leave_a_manifest_that_can_be_read() {
        let (mut built, progress) = (Built::default(), Progress::default());
        for n in 0..100 {
            let path = if n == 50 { b"short".to_vec() } else { vec![b'p'; 1 << 20] };
            built.missed(Miss { path: path.into(), kind: "io".into(), message: "m".into() }, &progress);
        }
        assert!(cbor::encode(&built.errors).len() < BODY_BYTES_MAX / 4);
        assert!(built.errors.iter().any(|miss| miss.path.len() == 5), "one that fits is still named");
        assert_eq!(built.errors_total, 100);
    }
}
