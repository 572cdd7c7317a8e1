//! The walk, compared with the parent: what must be read, and what can be taken over.

use crate::base::{ChunkId, PackName};
use crate::chunk::Coder;
use crate::error::Error;
use crate::format::leaf::{Leaf, Raw};
use crate::format::snapshot::{Manifest, Miss};
use crate::format::tree::{Entry, EntryType, items};
use crate::ops::verdicts::attribute;
use crate::repo::pages::{Pages, Same};
use crate::repo::reader::Reader;
use crate::repo::tree::{ListReader, read_xattrs};
use crate::repo::writer::Writer;
use crate::source::any::{Dir, Event, Found, Walk};
use crate::source::bucket;
use crate::source::files::{ParentRule, SourceError, too_recent, unchanged};
use std::collections::HashSet;
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
        dir: Dir,
        work: Vec<Work>,
    },
    /// A file that is cut in turns.
    Big {
        dir: Dir,
        entry: Box<Entry>,
    },
    /// Files that did not change, of so many bytes together.
    Same(Same, u64),
    Missed(Miss),
    Excluded,
}

/// An entry of the parent, in its page.
type Old = (Arc<Leaf>, Raw);

struct Cursor<'p> {
    pages: Pages<'p>,
    ahead: Option<Old>,
}

/// Walks and plans.
pub(super) struct Planner<'p> {
    walk: Walk,
    reader: &'p Reader,
    coder: Coder,
    /// The rule, and when the parent's run began and ended.
    parent: Option<(ParentRule, (i64, i64))>,
    sound: Sound<'p>,
    /// Whether files need a verdict.
    judges: bool,
    root: Option<Option<ChunkId>>,
    cursors: Vec<Option<Cursor<'p>>>,
    batch: Vec<Work>,
    batch_bytes: u64,
    batch_dir: Option<Dir>,
    /// Either this or the batch is empty.
    same: Option<(Same, u64)>,
    ready: std::collections::VecDeque<Planned>,
}

impl<'p> Planner<'p> {
    pub(super) fn new(
        walk: Walk,
        reader: &'p Reader,
        parent: Option<(&Manifest, ParentRule)>,
        look_up: Option<&'p Writer<'p>>,
        judges: bool,
    ) -> Self {
        Planner {
            walk,
            reader,
            coder: Coder::default(),
            parent: parent.map(|(m, rule)| (rule, (m.start, m.end))),
            sound: Sound::new(reader, look_up),
            judges,
            root: parent.filter(|(m, _)| m.root.kind == EntryType::Dir).map(|(m, _)| m.root.tree),
            cursors: Vec::new(),
            batch: Vec::new(),
            batch_bytes: 0,
            batch_dir: None,
            same: None,
            ready: std::collections::VecDeque::new(),
        }
    }

    /// The next piece of work; `None` at the end.
    pub(super) fn next(&mut self) -> Option<Planned> {
        loop {
            if let Some(planned) = self.ready.pop_front() {
                return Some(planned);
            }
            let Some(event) = self.walk.next() else {
                self.close_batch();
                return self.ready.pop_front();
            };
            self.take(event);
        }
    }

    /// As [`Walk::gone`].
    pub(super) fn gone(&self) -> Option<Error> {
        self.walk.gone()
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Enter(entry) => {
                self.close_batch();
                self.enter(&entry);
                self.ready.push_back(Planned::Enter(entry));
            }
            Event::Leave => {
                self.close_batch();
                self.cursors.pop();
                self.ready.push_back(Planned::Leave);
            }
            Event::File(found, dir) => self.file(found, dir),
            Event::Item(entry, dir) => self.put(*entry, dir, false),
            Event::Failed(path, error) => self.ready.push_back(Planned::Missed(miss(path, &error))),
            Event::Excluded => self.ready.push_back(Planned::Excluded),
        }
    }

    fn enter(&mut self, entry: &Entry) {
        let before = match self.cursors.last() {
            None => self.root.take(),
            Some(_) => {
                let old = self.counterpart(&entry.name);
                old.filter(|(_, old)| old.kind == EntryType::Dir).map(|(_, old)| old.tree)
            }
        };
        let cursor = before.map(|tree| Cursor { pages: Pages::new(self.reader, tree), ahead: None });
        self.cursors.push(cursor);
    }

    /// The parent's entry of this name in the current directory.
    fn counterpart(&mut self, name: &[u8]) -> Option<Old> {
        let slot = self.cursors.last_mut()?;
        let cursor = slot.as_mut()?;
        loop {
            if cursor.ahead.is_none() {
                match cursor.pages.next(&mut self.coder) {
                    Ok(Some(old)) => cursor.ahead = Some(old),
                    // At the end; or unreadable, which the reader has recorded: then everything is read.
                    Ok(None) | Err(_) => {
                        *slot = None;
                        return None;
                    }
                }
            }
            match cursor.ahead.as_ref().map(|(leaf, old)| leaf.part(&old.name).cmp(name)) {
                Some(std::cmp::Ordering::Less) => cursor.ahead = None,
                Some(std::cmp::Ordering::Equal) => return cursor.ahead.take(),
                _ => return None,
            }
        }
    }

    fn file(&mut self, found: Found, dir: Dir) {
        let old = self.counterpart(found.name());
        let (Some((leaf, raw)), Some((rule, ran))) = (old, self.parent) else {
            return self.put(found.entry(), dir, true);
        };
        let meta = found.meta();
        // Content that the store has no name for cannot be known again.
        let named = rule != ParentRule::Objects || meta.inode != 0;
        let candidate = raw.kind == EntryType::File && named && !too_recent(&raw.meta, rule, ran);
        let candidate = candidate && self.is_tagged_alike(&leaf, &raw, &found, ran);
        // All that it would be encoded from is what it was: it is taken over as it stands. A verdict is more than that.
        if candidate && !self.judges && raw.plain && raw.meta == meta && self.are_stored(&leaf, &raw) {
            return self.keep(&leaf, &raw);
        }
        let mut entry = found.entry();
        if let (true, Ok(old)) = (candidate, leaf.entry(&raw))
            && unchanged(&old, &entry, rule)
            && old.flags.unwrap_or(0) == 0
            && self.is_stored(&old)
            && let Some(old) = self.judged(old)
        {
            if rule == ParentRule::Objects {
                return self.object(entry, dir, old, ran);
            }
            self.take_over(&mut entry, &dir, old, rule);
            return self.put(entry, dir, false);
        }
        self.put(entry, dir, true);
    }

    /// An entry of the parent with the verdict that it needs, where files are judged; among many attributes it lies in a chunk.
    fn judged(&mut self, mut old: Entry) -> Option<Entry> {
        if !self.judges {
            return Some(old);
        }
        if let Some(id) = old.xattrs_ref.take() {
            old.xattrs = Some(read_xattrs(self.reader, &id, &mut self.coder).ok()?);
        }
        attribute::of(&old).is_some_and(|recorded| !recorded.unread).then_some(old)
    }

    /// Whether an object is called by the store what it was called; of files nothing is asked here.
    fn is_tagged_alike(&mut self, leaf: &Leaf, raw: &Raw, found: &Found, ran: (i64, i64)) -> bool {
        let Found::Object(new) = found else { return true };
        let Ok(mut old) = leaf.entry(raw) else { return false };
        if let Some(id) = old.xattrs_ref.take() {
            old.xattrs = read_xattrs(self.reader, &id, &mut self.coder).ok();
        }
        bucket::is_same_content(&old, new, ran)
    }

    /// A file that did not change in anything.
    fn keep(&mut self, leaf: &Arc<Leaf>, raw: &Raw) {
        if !self.batch.is_empty() {
            self.close_batch();
        }
        let size = raw.meta.size.unwrap_or(0);
        if let Some((same, bytes)) = &mut self.same
            && same.extend(leaf, raw)
        {
            *bytes = bytes.saturating_add(size);
            return;
        }
        self.close_batch();
        self.same = Some((Same::new(Arc::clone(leaf), raw), size));
    }

    /// An object with the content that it had. Whether what else is kept of it is the same only its time tells, and
    /// within a second not even that: then a worker asks for it.
    fn object(&mut self, mut entry: Entry, dir: Dir, old: Entry, ran: (i64, i64)) {
        entry.take_content(&old);
        let same = unchanged(&old, &entry, ParentRule::SameFs) && !bucket::is_new(&entry, ran);
        if same {
            (entry.xattrs, entry.xattrs_ref) = (old.xattrs, old.xattrs_ref);
        } else if self.judges {
            attribute::keep(&mut entry, old.xattrs.as_deref());
        }
        self.add(entry, dir, !same);
    }

    fn put(&mut self, entry: Entry, dir: Dir, read: bool) {
        if read && entry.size() > WHOLE_BYTES_MAX {
            self.close_batch();
            self.ready.push_back(Planned::Big { dir, entry: Box::new(entry) });
            return;
        }
        self.add(entry, dir, read);
    }

    fn add(&mut self, entry: Entry, dir: Dir, read: bool) {
        let other_dir = self.batch_dir.as_ref().is_some_and(|open| !open.is(&dir));
        let full = self.batch.len() >= BATCH_ENTRIES_MAX || self.batch_bytes >= BATCH_BYTES_MAX;
        if other_dir || full || self.same.is_some() {
            self.close_batch();
        }
        self.batch_bytes += if read { entry.size() } else { 0 };
        self.batch_dir.get_or_insert(dir);
        self.batch.push(Work { entry, read });
    }

    /// Content and attributes of an unchanged file come from the parent; but on a clone, where no time tells whether
    /// attributes changed, these are read.
    fn take_over(&mut self, entry: &mut Entry, dir: &Dir, old: Entry, rule: ParentRule) {
        entry.take_content(&old);
        if rule == ParentRule::SameFs || unchanged(&old, entry, ParentRule::SameFs) {
            entry.xattrs = old.xattrs;
            entry.xattrs_ref = old.xattrs_ref;
            return;
        }
        match dir.xattrs(entry) {
            Ok(found) => entry.xattrs = Some(found).filter(|x| !x.is_empty()),
            Err(e) => self.ready.push_back(Planned::Missed(miss(e.path.clone(), &e))),
        }
        if self.judges {
            attribute::keep(entry, old.xattrs.as_deref());
        }
    }

    /// Whether everything that an entry of the parent refers to is still there and may be re-used, down to the last
    /// chunk: what was lost is read again while the source has it.
    fn is_stored(&mut self, old: &Entry) -> bool {
        is_stored(self.reader, old, &mut self.coder, &|id| self.sound.has(id))
    }

    /// The same for an entry that refers to nothing but chunks in its own list.
    fn are_stored(&self, leaf: &Leaf, raw: &Raw) -> bool {
        let Some(chunks) = &raw.chunks else { return true };
        let Ok(mut items) = items(leaf.part(chunks)) else { return false };
        items.all(|item| item.len > 0 && self.sound.has(&item.id))
    }

    fn close_batch(&mut self) {
        if let Some((same, bytes)) = self.same.take() {
            self.ready.push_back(Planned::Same(same, bytes));
        }
        self.batch_bytes = 0;
        let dir = self.batch_dir.take();
        if let (Some(dir), false) = (dir, self.batch.is_empty()) {
            self.ready.push_back(Planned::Batch { dir, work: std::mem::take(&mut self.batch) });
        }
    }
}

/// Whether everything that an entry refers to is there, down to the last chunk.
fn is_stored(reader: &Reader, old: &Entry, coder: &mut Coder, good: &dyn Fn(&ChunkId) -> bool) -> bool {
    if old.xattrs_ref.is_some_and(|id| !good(&id)) || old.list.is_some_and(|list| !good(&list.page)) {
        return false;
    }
    let Ok(mut items) = ListReader::new(reader, old) else { return false };
    loop {
        let item = items.next(coder);
        let pages_good = items.take_pages().iter().all(good);
        match item {
            Ok(Some(item)) if pages_good && good(&item.id) => {}
            Ok(None) => return pages_good,
            Ok(Some(_)) | Err(_) => return false,
        }
    }
}

/// Whether files of an earlier snapshot can be built upon: all of them is there, and nothing of it was found damaged.
pub fn are_intact(reader: &Reader, entries: &[Entry]) -> bool {
    let (mut coder, sound) = (Coder::default(), Sound::new(reader, None));
    entries.iter().all(|entry| is_stored(reader, entry, &mut coder, &|id| sound.has(id)))
}

/// The same, where nobody vouches for that snapshot: each part must be known to the writer, which notes what it rests on.
pub(super) fn are_known(reader: &Reader, entries: &[Entry], writer: &Writer<'_>) -> bool {
    let (mut coder, sound) = (Coder::default(), Sound::new(reader, Some(writer)));
    entries.iter().all(|entry| is_stored(reader, entry, &mut coder, &|id| sound.has(id)))
}

/// What may be re-used.
struct Sound<'p> {
    reader: &'p Reader,
    /// Where chunks of the parent must be known, if it is not trusted as a whole.
    look_up: Option<&'p Writer<'p>>,
    /// Packs that are dead for ever: they may still be listed, as long as they are locked, and go one day.
    dead: HashSet<PackName>,
}

impl<'p> Sound<'p> {
    fn new(reader: &'p Reader, look_up: Option<&'p Writer<'p>>) -> Self {
        Sound { reader, look_up, dead: reader.repo.epochs_seen().shunned() }
    }

    /// Whether a chunk is there and may be re-used.
    fn has(&self, id: &ChunkId) -> bool {
        *id == ChunkId::HOLE || (self.resolves(id) && self.look_up.is_none_or(|writer| writer.has(id)))
    }

    /// Whether every region that is written says where a chunk lies.
    fn resolves(&self, id: &ChunkId) -> bool {
        let (used, regions) = (self.reader.repo.writable(), &self.reader.repo.regions);
        let stays = |pack: &PackName| !regions.is_damaged(pack) && !self.dead.contains(pack);
        self.reader.index.any(id, |at| at.regions.covers(used) && stays(&at.pack.name))
    }
}

pub(super) fn miss(path: Vec<u8>, error: &SourceError) -> Miss {
    Miss { path: path.into(), kind: error.kind.name().to_owned(), message: error.message.clone() }
}
