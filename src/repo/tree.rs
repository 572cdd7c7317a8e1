//! Directories as B-trees of pages, and long chunk lists as pages: written bottom-up while entries
//! arrive in order, read lazily. Memory is one open page a level, whatever the width of a directory.

use super::pages::Same;
use super::reader::Reader;
use crate::base::ChunkId;
use crate::chunk::Coder;
use crate::error::{Error, Kind, Result};
use crate::format::cbor;
use crate::format::leaf::Leaf;
use crate::format::tree::{
    Child, DIR_DEPTH_MAX, Entry, ITEMS_INLINE_MAX, Item, ListPage, ListRef, PAGE_DEPTH_MAX, Page, Xattr, items,
    push_item,
};
use minicbor::bytes::ByteVec;
use std::collections::VecDeque;
use std::sync::Arc;

/// Stores tree pages; the same page is stored once.
pub trait PageSink {
    /// Stores a page and returns its id.
    ///
    /// # Errors
    /// The repository cannot take it.
    fn put(&mut self, page: &[u8]) -> Result<ChunkId>;

    /// The same for a page whose id is known already.
    ///
    /// # Errors
    /// As [`PageSink::put`].
    fn put_known(&mut self, id: ChunkId, page: &[u8]) -> Result<ChunkId> {
        let put = self.put(page)?;
        debug_assert!(put == id);
        Ok(put)
    }
}

/// A page may end once it has this many bytes …
const PAGE_BYTES_MIN: usize = 64 << 10;
/// … and must at this.
const PAGE_BYTES_END: usize = 256 << 10;
/// A list page may end once it has this many items …
const LIST_ITEMS_MIN: usize = 128;
/// … and must at this.
const LIST_ITEMS_END: usize = 4096;

/// Whether a page may end after this name: depends on nothing else, so that neighbours' changes move no cut.
fn ends_page(name: &[u8]) -> bool {
    blake3::hash(name).as_bytes()[0] < 4
}

struct Level {
    children: Vec<Child>,
    bytes: usize,
}

/// Writes one directory.
#[derive(Default)]
pub struct DirWriter {
    /// Entries of the open page, encoded.
    open: Vec<u8>,
    count: u64,
    first: Option<ByteVec>,
    last: Option<ByteVec>,
    levels: Vec<Level>,
    /// A page from which entries of the open one were copied: it may come out as the same.
    origin: Option<Arc<Leaf>>,
}

impl DirWriter {
    /// Adds the next entry; names must increase.
    ///
    /// # Errors
    /// A name out of order, or the sink's.
    pub fn push(&mut self, entry: Entry, sink: &mut dyn PageSink) -> Result<()> {
        if self.last.as_deref().is_some_and(|last| last[..] >= entry.name[..]) {
            return Err(Error::new(Kind::Bug, "directory entries out of order"));
        }
        cbor::encode_into(&entry, &mut self.open);
        self.count += 1;
        let ends = self.open.len() >= PAGE_BYTES_END || (self.open.len() >= PAGE_BYTES_MIN && ends_page(&entry.name));
        if self.first.is_none() {
            self.first = Some(entry.name.clone());
        }
        self.last = Some(entry.name);
        if ends { self.close_page(sink) } else { Ok(()) }
    }

    /// Adds entries that are what they were.
    ///
    /// # Errors
    /// As [`DirWriter::push`].
    pub fn push_same(&mut self, same: &Same, sink: &mut dyn PageSink) -> Result<()> {
        let (leaf, begin, entries) = same.parts();
        let Some((_, first)) = entries.first() else { return Ok(()) };
        if self.last.as_deref().is_some_and(|last| last[..] >= *leaf.part(first)) {
            return Err(Error::new(Kind::Bug, "directory entries out of order"));
        }
        let mut from = begin;
        for (end, name) in entries {
            if self.first.is_none() {
                self.first = Some(leaf.part(name).to_vec().into());
            }
            if self.origin.is_none() {
                self.origin = Some(Arc::clone(leaf));
            }
            self.open.extend_from_slice(leaf.part(&(from..*end)));
            from = *end;
            self.count += 1;
            let long = self.open.len() >= PAGE_BYTES_MIN;
            if long && (self.open.len() >= PAGE_BYTES_END || ends_page(leaf.part(name))) {
                self.close_page(sink)?;
            }
        }
        self.last = entries.last().map(|(_, name)| leaf.part(name).to_vec().into());
        Ok(())
    }

    fn close_page(&mut self, sink: &mut dyn PageSink) -> Result<()> {
        let count = std::mem::take(&mut self.count);
        let (origin, first) = (self.origin.take(), self.first.take());
        let Some(first) = first else { return Ok(()) };
        let page = Page::of_encoded(count, &self.open);
        let page = match origin.filter(|origin| origin.bytes() == page) {
            Some(origin) => sink.put_known(origin.id, &page)?,
            None => sink.put(&page)?,
        };
        self.open.clear();
        self.push_child(0, Child { page, first, entries: count }, sink)
    }

    fn push_child(&mut self, level: usize, child: Child, sink: &mut dyn PageSink) -> Result<()> {
        if level >= usize::from(PAGE_DEPTH_MAX) {
            return Err(Error::new(Kind::Bug, "directory too large for its tree"));
        }
        if self.levels.len() == level {
            self.levels.push(Level { children: Vec::new(), bytes: 0 });
        }
        let first = child.first.to_vec();
        let open = &mut self.levels[level];
        open.bytes += first.len() + 50;
        open.children.push(child);
        if open.bytes >= PAGE_BYTES_END || (open.bytes >= PAGE_BYTES_MIN && ends_page(&first)) {
            self.close_level(level, sink)?;
        }
        Ok(())
    }

    fn close_level(&mut self, level: usize, sink: &mut dyn PageSink) -> Result<()> {
        let open = &mut self.levels[level];
        open.bytes = 0;
        let children = std::mem::take(&mut open.children);
        let Some(first) = children.first().map(|c| c.first.clone()) else { return Ok(()) };
        let entries = children.iter().map(|c| c.entries).sum();
        let page = Page { level: level as u8 + 1, entries: None, children: Some(children) };
        let page = sink.put(&cbor::encode(&page))?;
        self.push_child(level + 1, Child { page, first, entries }, sink)
    }

    /// Closes the directory; `None` for an empty one.
    ///
    /// # Errors
    /// The sink's.
    pub fn finish(mut self, sink: &mut dyn PageSink) -> Result<Option<ChunkId>> {
        self.close_page(sink)?;
        let mut level = 0;
        while level < self.levels.len() {
            let top = level + 1 == self.levels.len();
            if top && let [only] = self.levels[level].children.as_slice() {
                return Ok(Some(only.page));
            }
            self.close_level(level, sink)?;
            level += 1;
        }
        Ok(None)
    }
}

/// Writes the chunk list of one file.
#[derive(Default)]
pub struct ListWriter {
    levels: Vec<Vec<Item>>,
    total: u64,
    spilled: bool,
}

/// What a file's entry says about its chunks.
#[derive(Debug, PartialEq, Eq)]
pub enum ChunkList {
    /// In the entry.
    Inline(Vec<u8>),
    /// In pages.
    Pages(ListRef),
}

impl ListWriter {
    /// Adds the next item; neighbouring holes are joined.
    ///
    /// # Errors
    /// The sink's.
    pub fn push(&mut self, item: Item, sink: &mut dyn PageSink) -> Result<()> {
        self.total = self.total.saturating_add(item.len);
        if self.levels.is_empty() {
            self.levels.push(Vec::new());
        }
        match self.levels[0].last_mut() {
            Some(last) if last.id == ChunkId::HOLE && item.id == ChunkId::HOLE => {
                last.len = last.len.saturating_add(item.len);
                Ok(())
            }
            _ => self.push_at(0, item, sink),
        }
    }

    /// Bytes covered so far.
    pub fn total(&self) -> u64 {
        self.total
    }

    fn push_at(&mut self, level: usize, item: Item, sink: &mut dyn PageSink) -> Result<()> {
        if level > usize::from(PAGE_DEPTH_MAX) {
            return Err(Error::new(Kind::Bug, "file too large for its chunk list"));
        }
        if self.levels.len() == level {
            self.levels.push(Vec::new());
        }
        let open = &mut self.levels[level];
        open.push(item);
        if open.len() >= LIST_ITEMS_END || (open.len() >= LIST_ITEMS_MIN && item.id.bytes()[31] == 0) {
            self.close(level, sink)?;
        }
        Ok(())
    }

    fn close(&mut self, level: usize, sink: &mut dyn PageSink) -> Result<()> {
        let done = std::mem::take(&mut self.levels[level]);
        if done.is_empty() {
            return Ok(());
        }
        self.spilled = true;
        let page = ListPage { level: level as u8, items: encode_items(&done).into() };
        let id = sink.put(&cbor::encode(&page))?;
        let len = done.iter().fold(0u64, |sum, item| sum.saturating_add(item.len));
        self.push_at(level + 1, Item { id, len }, sink)
    }

    /// Closes the list.
    ///
    /// # Errors
    /// The sink's.
    pub fn finish(mut self, sink: &mut dyn PageSink) -> Result<ChunkList> {
        let short = self.levels.first().is_none_or(|items| items.len() <= ITEMS_INLINE_MAX);
        if !self.spilled && short {
            return Ok(ChunkList::Inline(encode_items(self.levels.first().map_or(&[][..], |l| l))));
        }
        let mut level = 0;
        loop {
            self.close(level, sink)?;
            level += 1;
            let top = level + 1 == self.levels.len();
            if top && let [only] = self.levels[level].as_slice() {
                return Ok(ChunkList::Pages(ListRef { page: only.id, level: level as u8 - 1 }));
            }
        }
    }
}

fn encode_items(items: &[Item]) -> Vec<u8> {
    let mut out = Vec::with_capacity(items.len() * crate::format::tree::ITEM_BYTES);
    items.iter().for_each(|item| push_item(&mut out, *item));
    out
}

/// Reads one directory's entries in order, page by page.
pub struct DirReader<'r> {
    reader: &'r Reader,
    stack: Vec<(u8, VecDeque<Child>)>,
    entries: VecDeque<Entry>,
    pages: Vec<ChunkId>,
    /// The last name that was read: names increase over all pages, so that no page comes twice and no name either.
    last: Option<Vec<u8>>,
}

impl<'r> DirReader<'r> {
    /// The entries of a directory with this root page.
    pub fn new(reader: &'r Reader, root: Option<ChunkId>) -> Self {
        let mut start = VecDeque::new();
        if let Some(page) = root {
            start.push_back(Child { page, first: Vec::new().into(), entries: 0 });
        }
        // One above the highest level that a page can have.
        DirReader {
            reader,
            stack: vec![(PAGE_DEPTH_MAX + 1, start)],
            entries: VecDeque::new(),
            pages: Vec::new(),
            last: None,
        }
    }

    /// The next entry.
    ///
    /// # Errors
    /// A page that no region has intact.
    pub fn next(&mut self, coder: &mut Coder) -> Result<Option<Entry>> {
        loop {
            if let Some(entry) = self.entries.pop_front() {
                self.last = Some(entry.name.to_vec());
                return Ok(Some(entry));
            }
            let Some((above, children)) = self.stack.last_mut() else { return Ok(None) };
            let above = *above;
            let Some(child) = children.pop_front() else {
                self.stack.pop();
                continue;
            };
            let bytes = self.reader.chunk(&child.page, coder)?;
            self.pages.push(child.page);
            let page = Page::decode(&bytes).map_err(crate::region::lift)?;
            if page.level >= above {
                return Err(Error::new(Kind::Damage, "tree page of a wrong level"));
            }
            self.check_first(&child, above, &page)?;
            match (page.entries, page.children) {
                (Some(entries), _) => self.entries = entries.into(),
                (None, Some(children)) => self.stack.push((page.level, children.into())),
                (None, None) => {}
            }
        }
    }
}

impl DirReader<'_> {
    /// Pages that were read since this was asked last.
    pub fn take_pages(&mut self) -> Vec<ChunkId> {
        std::mem::take(&mut self.pages)
    }

    /// A page begins with the name that its parent says, after everything that was read before.
    fn check_first(&self, child: &Child, above: u8, page: &Page) -> Result<()> {
        let entry = page.entries.iter().flatten().next().map(|e| &e.name);
        let Some(first) = entry.or_else(|| page.children.iter().flatten().next().map(|c| &c.first)) else {
            return Err(Error::new(Kind::Damage, "empty tree page"));
        };
        let named = above > PAGE_DEPTH_MAX || child.first == *first;
        if named && self.last.as_deref().is_none_or(|last| last < &first[..]) {
            Ok(())
        } else {
            Err(Error::new(Kind::Damage, "tree pages out of order"))
        }
    }
}

/// Reads one file's items in order.
pub struct ListReader<'r> {
    reader: &'r Reader,
    stack: Vec<(u8, VecDeque<Item>)>,
    pages: Vec<ChunkId>,
}

impl<'r> ListReader<'r> {
    /// The items of a file.
    ///
    /// # Errors
    /// A malformed list.
    pub fn new(reader: &'r Reader, entry: &Entry) -> Result<Self> {
        let two = entry.inline.is_some() && (entry.chunks.is_some() || entry.list.is_some());
        let stack = match (&entry.chunks, entry.list) {
            _ if two => return Err(Error::new(Kind::Damage, "entry with content and a chunk list")),
            (Some(list), None) => vec![(0, items(list).map_err(crate::region::lift)?.collect())],
            (None, Some(list)) if list.level <= PAGE_DEPTH_MAX => {
                vec![(list.level + 1, VecDeque::from([Item { id: list.page, len: entry.size() }]))]
            }
            (None, None) => Vec::new(),
            _ => return Err(Error::new(Kind::Damage, "entry with two chunk lists")),
        };
        Ok(ListReader { reader, stack, pages: Vec::new() })
    }

    /// Pages that were read since this was asked last.
    pub fn take_pages(&mut self) -> Vec<ChunkId> {
        std::mem::take(&mut self.pages)
    }

    /// The next item.
    ///
    /// # Errors
    /// A page that no region has intact.
    pub fn next(&mut self, coder: &mut Coder) -> Result<Option<Item>> {
        loop {
            let Some((level, open)) = self.stack.last_mut() else { return Ok(None) };
            let level = *level;
            let Some(item) = open.pop_front() else {
                self.stack.pop();
                continue;
            };
            if item.len == 0 {
                // Also what keeps a page that names one page many times from going on for ever.
                return Err(Error::new(Kind::Damage, "piece of no length in a chunk list"));
            }
            if level == 0 {
                return Ok(Some(item));
            }
            let page = read_list_page(self.reader, &item, coder)?;
            self.pages.push(item.id);
            if page.level + 1 != level {
                return Err(Error::new(Kind::Damage, "list page of a wrong level"));
            }
            let found: VecDeque<Item> = items(&page.items).map_err(crate::region::lift)?.collect();
            if found.iter().try_fold(0u64, |sum, item| sum.checked_add(item.len)) != Some(item.len) {
                return Err(Error::new(Kind::Damage, "list page that does not add up"));
            }
            self.stack.push((page.level, found));
        }
    }
}

fn read_list_page(reader: &Reader, item: &Item, coder: &mut Coder) -> Result<ListPage> {
    let bytes = reader.chunk(&item.id, coder)?;
    ListPage::decode(&bytes).map_err(crate::region::lift)
}

/// Reads attributes that are kept out of line.
///
/// # Errors
/// No region has them intact.
pub fn read_xattrs(reader: &Reader, id: &ChunkId, coder: &mut Coder) -> Result<Vec<Xattr>> {
    let bytes = reader.chunk(id, coder)?;
    cbor::decode("extended attributes", &bytes).map_err(crate::region::lift)
}

/// Refuses trees deeper than the format allows.
///
/// # Errors
/// Deeper than [`DIR_DEPTH_MAX`].
pub fn check_depth(depth: usize) -> Result<()> {
    if depth <= DIR_DEPTH_MAX {
        Ok(())
    } else {
        Err(Error::new(Kind::Damage, format!("directories nested deeper than {DIR_DEPTH_MAX}")))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::format::tree::EntryType;
    use std::collections::HashMap;

    /// Pages in memory.
    #[derive(Default)]
    pub struct Memory(pub HashMap<ChunkId, Vec<u8>>);

    impl PageSink for Memory {
        fn put(&mut self, page: &[u8]) -> Result<ChunkId> {
            let id = ChunkId(*blake3::hash(page).as_bytes());
            self.0.insert(id, page.to_vec());
            Ok(id)
        }
    }

    fn walk(memory: &Memory, id: &ChunkId, out: &mut Vec<Vec<u8>>) -> u8 {
        let page = Page::decode(&memory.0[id]).unwrap();
        page.entries.iter().flatten().for_each(|e| out.push(e.name.to_vec()));
        for child in page.children.iter().flatten() {
            assert!(walk(memory, &child.page, out) < page.level);
        }
        page.level
    }

    pub fn write(memory: &mut Memory, names: impl Iterator<Item = String>) -> Option<ChunkId> {
        let mut dir = DirWriter::default();
        for name in names {
            dir.push(Entry::bare(name.as_bytes(), EntryType::File), memory).unwrap();
        }
        dir.finish(memory).unwrap()
    }

    #[test]
    fn wide_directories_share_unchanged_pages() {
        let mut memory = Memory::default();
        assert_eq!(write(&mut memory, std::iter::empty()), None);
        let names = || (0..200_000).map(|n| format!("{n:08}"));
        let root = write(&mut memory, names()).unwrap();
        let mut found = Vec::new();
        assert!(walk(&memory, &root, &mut found) > 0);
        assert!(found.iter().map(|n| String::from_utf8_lossy(n).into_owned()).eq(names()));
        let before = memory.0.len();
        write(&mut memory, names().filter(|n| n != "00100000")).unwrap();
        assert!(memory.0.len() - before <= 3, "{} new pages of {before}", memory.0.len() - before);
    }

    #[test]
    fn out_of_order_is_refused() {
        let mut memory = Memory::default();
        let mut dir = DirWriter::default();
        dir.push(Entry::bare(b"b", EntryType::File), &mut memory).unwrap();
        assert!(dir.push(Entry::bare(b"a", EntryType::File), &mut memory).is_err());
        assert!(dir.push(Entry::bare(b"b", EntryType::File), &mut memory).is_err());
    }

    #[test]
    fn long_lists_go_to_pages() {
        let mut memory = Memory::default();
        for count in [0u32, 1, 64, 65, 128, 4096, 5000, 300_000] {
            let mut list = ListWriter::default();
            for n in 0..count {
                let id = ChunkId(*blake3::hash(&n.to_le_bytes()).as_bytes());
                list.push(Item { id, len: 10 }, &mut memory).unwrap();
            }
            match list.finish(&mut memory).unwrap() {
                ChunkList::Inline(bytes) => assert_eq!(bytes.len(), count as usize * 40),
                ChunkList::Pages(list) => {
                    assert!(count > 64);
                    assert_eq!(count_items(&memory, &list.page, list.level), u64::from(count));
                }
            }
        }
    }

    fn count_items(memory: &Memory, page: &ChunkId, level: u8) -> u64 {
        let page = ListPage::decode(&memory.0[page]).unwrap();
        assert_eq!(page.level, level);
        let list = items(&page.items).unwrap();
        if level == 0 { list.count() as u64 } else { list.map(|item| count_items(memory, &item.id, level - 1)).sum() }
    }

    fn list_items(memory: &Memory, id: &ChunkId, level: u8, out: &mut Vec<Item>) -> u64 {
        let page = ListPage::decode(&memory.0[id]).unwrap();
        assert_eq!(page.level, level);
        let mut total = 0;
        for item in items(&page.items).unwrap() {
            if level == 0 {
                out.push(item);
            } else {
                assert_eq!(list_items(memory, &item.id, level - 1, out), item.len);
            }
            total += item.len;
        }
        total
    }

    proptest::proptest! {
        #![proptest_config(proptest::test_runner::Config {
            cases: 24, failure_persistence: None, ..proptest::test_runner::Config::default()
        })]

        #[test]
        fn directories_of_any_width_list_what_was_pushed(
            mut names in proptest::collection::vec(proptest::collection::vec(0..=255u8, 0..24), 0..3000), pad in 0..200usize,
        ) {
            names.iter_mut().for_each(|name| name.resize(name.len() + pad, b'.'));
            names.sort();
            names.dedup();
            let mut memory = Memory::default();
            let mut dir = DirWriter::default();
            for name in &names {
                dir.push(Entry::bare(name, EntryType::File), &mut memory).unwrap();
            }
            let mut found = Vec::new();
            match dir.finish(&mut memory).unwrap() {
                Some(root) => {
                    walk(&memory, &root, &mut found);
                }
                None => assert!(names.is_empty()),
            }
            assert!(found == names);
        }

        #[test]
        fn lists_of_any_length_hold_what_was_pushed(
            count in 0..20_000u32, holes in 0..4u32, few_cuts: bool,
        ) {
            let mut memory = Memory::default();
            let (mut list, mut wanted) = (ListWriter::default(), Vec::<Item>::new());
            for n in 0..count {
                let mut id = ChunkId(*blake3::hash(&n.to_le_bytes()).as_bytes());
                id.0[31] |= u8::from(few_cuts);
                let item = if holes > 0 && n % 5 < holes { Item { id: ChunkId::HOLE, len: 7 } } else { Item { id, len: n.into() } };
                list.push(item, &mut memory).unwrap();
                wanted.push(item);
            }
            let total = list.total();
            let mut found = Vec::new();
            match list.finish(&mut memory).unwrap() {
                ChunkList::Inline(bytes) => found.extend(items(&bytes).unwrap()),
                ChunkList::Pages(list) => assert_eq!(list_items(&memory, &list.page, list.level, &mut found), total),
            }
            // Neighbouring holes may have been joined, so what is compared is what covers each place.
            let joined = |items: &[Item]| items.iter().fold(Vec::<Item>::new(), |mut all, item| {
                match all.last_mut() {
                    Some(last) if last.id == ChunkId::HOLE && item.id == ChunkId::HOLE => last.len += item.len,
                    _ => all.push(*item),
                }
                all
            });
            assert!(joined(&found) == joined(&wanted));
        }
    }
}
