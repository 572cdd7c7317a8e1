//! The walk, compared with the parent: what must be read, and what can be taken over.

use crate::base::ChunkId;
use crate::chunk::Coder;
use crate::format::snapshot::{Manifest, Miss};
use crate::format::tree::{Entry, EntryType};
use crate::repo::reader::Reader;
use crate::repo::tree::{DirReader, ListReader};
use crate::repo::writer::Writer;
use crate::source::files::{DirHandle, Event, ParentRule, SourceError, Walker, too_recent, unchanged};
use std::sync::Arc;

/// Most entries of a batch.
const BATCH_ENTRIES_MAX: usize = 256;
/// Most bytes to read of a batch.
const BATCH_BYTES_MAX: u64 = 2 << 20;
/// Files up to this are read whole, in batches.
pub(super) const WHOLE_BYTES_MAX: u64 = 256 << 10;

/// One entry of a batch.
pub(super) struct Work {
    pub(super) entry: Entry,
    /// Whether its content must be read.
    pub(super) read: bool,
}

/// What comes next, in the order of the tree.
pub(super) enum Planned {
    Enter(Box<Entry>),
    Leave,
    /// Entries of one directory.
    Batch {
        dir: Arc<DirHandle>,
        work: Vec<Work>,
    },
    /// A file that is cut in turns.
    Big {
        dir: Arc<DirHandle>,
        entry: Box<Entry>,
    },
    Missed(Miss),
    Excluded,
}

struct Cursor<'p> {
    dir: DirReader<'p>,
    ahead: Option<Entry>,
}

/// Walks and plans.
pub(super) struct Planner<'p> {
    walker: Walker,
    reader: &'p Reader,
    coder: Coder,
    /// The rule, and when the parent's run began and ended.
    parent: Option<(ParentRule, (i64, i64))>,
    /// Where chunks of the parent must be known, if it is not trusted as a whole.
    look_up: Option<&'p Writer<'p>>,
    root: Option<Entry>,
    cursors: Vec<Option<Cursor<'p>>>,
    batch: Vec<Work>,
    batch_bytes: u64,
    batch_dir: Option<Arc<DirHandle>>,
    ready: std::collections::VecDeque<Planned>,
}

impl<'p> Planner<'p> {
    pub(super) fn new(
        walker: Walker,
        reader: &'p Reader,
        parent: Option<(&Manifest, ParentRule)>,
        look_up: Option<&'p Writer<'p>>,
    ) -> Self {
        Planner {
            walker,
            reader,
            coder: Coder::default(),
            parent: parent.map(|(m, rule)| (rule, (m.start, m.end))),
            look_up,
            root: parent.map(|(m, _)| m.root.clone()),
            cursors: Vec::new(),
            batch: Vec::new(),
            batch_bytes: 0,
            batch_dir: None,
            ready: std::collections::VecDeque::new(),
        }
    }

    /// The next piece of work; `None` at the end.
    pub(super) fn next(&mut self) -> Option<Planned> {
        loop {
            if let Some(planned) = self.ready.pop_front() {
                return Some(planned);
            }
            let Some(event) = self.walker.next() else {
                self.close_batch();
                return self.ready.pop_front();
            };
            self.take(event);
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Enter { entry, .. } => {
                self.close_batch();
                self.enter(&entry);
                self.ready.push_back(Planned::Enter(Box::new(entry)));
            }
            Event::Leave => {
                self.close_batch();
                self.cursors.pop();
                self.ready.push_back(Planned::Leave);
            }
            Event::Item { entry, dir } => self.item(entry, dir),
            Event::Failed { path, error } => self.ready.push_back(Planned::Missed(miss(path, &error))),
            Event::Excluded { .. } => self.ready.push_back(Planned::Excluded),
        }
    }

    fn enter(&mut self, entry: &Entry) {
        let before = match self.cursors.last() {
            None => self.root.take(),
            Some(_) => self.counterpart(&entry.name),
        };
        let reader = self.reader;
        let cursor = before
            .filter(|old| old.kind == EntryType::Dir)
            .map(|old| Cursor { dir: DirReader::new(reader, old.tree), ahead: None });
        self.cursors.push(cursor);
    }

    /// The parent's entry of this name in the current directory.
    fn counterpart(&mut self, name: &[u8]) -> Option<Entry> {
        let slot = self.cursors.last_mut()?;
        let cursor = slot.as_mut()?;
        loop {
            if cursor.ahead.is_none() {
                match cursor.dir.next(&mut self.coder) {
                    Ok(Some(entry)) => cursor.ahead = Some(entry),
                    // At the end; or unreadable, which the reader has recorded: then everything is read.
                    Ok(None) | Err(_) => {
                        *slot = None;
                        return None;
                    }
                }
            }
            match cursor.ahead.as_ref().map(|old| old.name[..].cmp(name)) {
                Some(std::cmp::Ordering::Less) => cursor.ahead = None,
                Some(std::cmp::Ordering::Equal) => return cursor.ahead.take(),
                _ => return None,
            }
        }
    }

    fn item(&mut self, mut entry: Entry, dir: Arc<DirHandle>) {
        let old = self.counterpart(&entry.name);
        let mut read = entry.kind == EntryType::File;
        if let (true, Some(old), Some((rule, ran))) = (read, old, self.parent)
            && unchanged(&old, &entry, rule)
            && !too_recent(&old, rule, ran)
            && old.flags.unwrap_or(0) == 0
            && self.is_stored(&old)
        {
            read = false;
            self.take_over(&mut entry, &dir, old, rule);
        }
        if read && entry.size() > WHOLE_BYTES_MAX {
            self.close_batch();
            self.ready.push_back(Planned::Big { dir, entry: Box::new(entry) });
            return;
        }
        let other_dir = self.batch_dir.as_ref().is_some_and(|open| !Arc::ptr_eq(open, &dir));
        if other_dir || self.batch.len() >= BATCH_ENTRIES_MAX || self.batch_bytes >= BATCH_BYTES_MAX {
            self.close_batch();
        }
        self.batch_bytes += if read { entry.size() } else { 0 };
        self.batch_dir.get_or_insert(dir);
        self.batch.push(Work { entry, read });
    }

    /// Content and attributes of an unchanged file come from the parent; but on a clone, where no time tells whether
    /// attributes changed, these are read.
    fn take_over(&mut self, entry: &mut Entry, dir: &DirHandle, old: Entry, rule: ParentRule) {
        entry.take_content(&old);
        if rule == ParentRule::SameFs || unchanged(&old, entry, ParentRule::SameFs) {
            entry.xattrs = old.xattrs;
            entry.xattrs_ref = old.xattrs_ref;
            return;
        }
        match dir.xattrs(&entry.name) {
            Ok(found) => entry.xattrs = Some(found).filter(|x| !x.is_empty()),
            Err(e) => self.ready.push_back(Planned::Missed(miss(e.path.clone(), &e))),
        }
    }

    /// Whether everything that an entry of the parent refers to is still there and may be re-used, down to the last
    /// chunk: what was lost is read again while the source has it.
    fn is_stored(&mut self, old: &Entry) -> bool {
        let (reader, look_up) = (self.reader, self.look_up);
        let good = |id: &ChunkId| *id == ChunkId::HOLE || (resolves(reader, id) && look_up.is_none_or(|w| w.has(id)));
        if old.xattrs_ref.is_some_and(|id| !good(&id)) || old.list.is_some_and(|list| !good(&list.page)) {
            return false;
        }
        let Ok(mut items) = ListReader::new(reader, old) else { return false };
        loop {
            let item = items.next(&mut self.coder);
            let pages_good = items.take_pages().iter().all(good);
            match item {
                Ok(Some(item)) if pages_good && good(&item.id) => {}
                Ok(None) => return pages_good,
                Ok(Some(_)) | Err(_) => return false,
            }
        }
    }

    fn close_batch(&mut self) {
        self.batch_bytes = 0;
        let dir = self.batch_dir.take();
        if let (Some(dir), false) = (dir, self.batch.is_empty()) {
            self.ready.push_back(Planned::Batch { dir, work: std::mem::take(&mut self.batch) });
        }
    }
}

/// Whether every region that is written says where a chunk lies.
fn resolves(reader: &Reader, id: &ChunkId) -> bool {
    let (used, regions) = (reader.repo.writable(), &reader.repo.regions);
    reader.index.locate(id).any(|at| at.regions.covers(used) && !regions.is_damaged(&at.pack.name))
}

pub(super) fn miss(path: Vec<u8>, error: &SourceError) -> Miss {
    Miss { path: path.into(), kind: error.kind.name().to_owned(), message: error.message.clone() }
}
