//! The pages of a directory in their order, as they are stored, for who compares entries and makes nothing of most; and
//! runs of entries that are taken over as they stand there.

use super::reader::Reader;
use crate::base::ChunkId;
use crate::chunk::Coder;
use crate::error::{Error, Kind, Result};
use crate::format::leaf::{Leaf, Raw, Scan};
use crate::format::tree::{Child, PAGE_DEPTH_MAX, Page};
use crate::region::lift;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

/// Goes over the entries of a directory.
pub struct Pages<'r> {
    reader: &'r Reader,
    stack: Vec<(u8, VecDeque<Child>)>,
    leaf: Option<(Arc<Leaf>, Scan)>,
    /// The last name of the pages before: names increase over all of them.
    last: Option<Vec<u8>>,
}

impl<'r> Pages<'r> {
    /// The entries of a directory with this root page.
    pub fn new(reader: &'r Reader, root: Option<ChunkId>) -> Self {
        let start = root.map(|page| Child { page, first: Vec::new().into(), entries: 0 });
        // One above the highest level that a page can have.
        Pages { reader, stack: vec![(PAGE_DEPTH_MAX + 1, start.into_iter().collect())], leaf: None, last: None }
    }

    /// The next entry, with the page that it is in.
    ///
    /// # Errors
    /// A page that no region has intact.
    pub fn next(&mut self, coder: &mut Coder) -> Result<Option<(Arc<Leaf>, Raw)>> {
        loop {
            if let Some((leaf, scan)) = &mut self.leaf {
                if let Some(raw) = leaf.next(scan).map_err(lift)? {
                    let found = (Arc::clone(leaf), raw);
                    return Ok(Some(found));
                }
                self.last = Some(leaf.part(scan.last()).to_vec());
                self.leaf = None;
            }
            let Some((above, children)) = self.stack.last_mut() else { return Ok(None) };
            let above = *above;
            match children.pop_front() {
                Some(child) => self.open(&child, above, coder)?,
                None => drop(self.stack.pop()),
            }
        }
    }

    fn open(&mut self, child: &Child, above: u8, coder: &mut Coder) -> Result<()> {
        let bytes = self.reader.chunk(&child.page, coder)?;
        match Leaf::new(child.page, bytes).map_err(lift)? {
            Ok(leaf) => {
                if above == 0 {
                    return Err(Error::new(Kind::Damage, "tree page of a wrong level"));
                }
                let scan = leaf.scan().map_err(lift)?;
                let first = leaf.next(&mut scan.clone()).map_err(lift)?;
                self.check_first(child, above, first.as_ref().map(|raw| leaf.part(&raw.name)))?;
                self.leaf = Some((Arc::new(leaf), scan));
            }
            Err(bytes) => {
                let page = Page::decode(&bytes).map_err(lift)?;
                let children = page.children.unwrap_or_default();
                if page.level >= above || page.entries.is_some() {
                    return Err(Error::new(Kind::Damage, "tree page of a wrong level"));
                }
                self.check_first(child, above, children.first().map(|child| &child.first[..]))?;
                self.stack.push((page.level, children.into()));
            }
        }
        Ok(())
    }

    /// A page begins with the name that its parent says, after everything that was read before.
    fn check_first(&self, child: &Child, above: u8, first: Option<&[u8]>) -> Result<()> {
        let Some(first) = first else { return Err(Error::new(Kind::Damage, "empty tree page")) };
        let named = above > PAGE_DEPTH_MAX || child.first[..] == *first;
        if named && self.last.as_deref().is_none_or(|last| last < first) {
            Ok(())
        } else {
            Err(Error::new(Kind::Damage, "tree pages out of order"))
        }
    }
}

/// Where an entry ends in its page, and where its name lies there.
pub(super) type Ends = (usize, Range<usize>);

/// Neighbouring entries of a page that are what they were, encoded as they stand there. There is at least one.
#[derive(Debug)]
pub struct Same {
    leaf: Arc<Leaf>,
    begin: usize,
    /// Where each entry ends, and where its name lies.
    entries: Vec<Ends>,
}

impl Same {
    /// One entry.
    pub fn new(leaf: Arc<Leaf>, raw: &Raw) -> Same {
        Same { leaf, begin: raw.at.start, entries: vec![(raw.at.end, raw.name.clone())] }
    }

    /// Adds the entry that follows in the same page; whether it does.
    pub fn extend(&mut self, leaf: &Arc<Leaf>, raw: &Raw) -> bool {
        let follows = Arc::ptr_eq(&self.leaf, leaf) && self.end() == raw.at.start;
        if follows {
            self.entries.push((raw.at.end, raw.name.clone()));
        }
        follows
    }

    /// How many entries.
    pub fn count(&self) -> usize {
        self.entries.len()
    }

    /// The page, where the first entry begins, and of each where it ends and where its name lies.
    pub(super) fn parts(&self) -> (&Arc<Leaf>, usize, &[Ends]) {
        (&self.leaf, self.begin, &self.entries)
    }

    fn end(&self) -> usize {
        self.entries.last().map_or(self.begin, |(end, _)| *end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repo::tree::tests::{Memory, write};
    use crate::repo::tree::{DirWriter, PageSink};

    /// The entries of the pages below a page, as they stand there.
    fn leaves(memory: &Memory, id: &ChunkId, out: &mut Vec<(Arc<Leaf>, Raw)>) {
        match Leaf::new(*id, memory.0[id].clone()).unwrap() {
            Ok(leaf) => {
                let leaf = Arc::new(leaf);
                let mut scan: Scan = leaf.scan().unwrap();
                while let Some(raw) = leaf.next(&mut scan).unwrap() {
                    out.push((Arc::clone(&leaf), raw));
                }
            }
            Err(bytes) => {
                let page = Page::decode(&bytes).unwrap();
                page.children.iter().flatten().for_each(|child| leaves(memory, &child.page, out));
            }
        }
    }

    /// Counts the pages whose ids were known.
    #[derive(Default)]
    struct Knowing(Memory, usize);

    impl PageSink for Knowing {
        fn put(&mut self, page: &[u8]) -> Result<ChunkId> {
            self.0.put(page)
        }

        fn put_known(&mut self, id: ChunkId, page: &[u8]) -> Result<ChunkId> {
            self.1 += 1;
            assert_eq!(self.0.put(page).unwrap(), id);
            Ok(id)
        }
    }

    #[test]
    fn entries_taken_over_make_the_same_pages() {
        for (count, every) in [(1, 1), (20, 3), (20, 30), (5000, 1), (5000, 7), (5000, 10_000), (20_000, 900)] {
            let mut memory = Memory::default();
            let root = write(&mut memory, (0..count).map(|n| format!("{n:08}"))).unwrap();
            let mut all = Vec::new();
            leaves(&memory, &root, &mut all);
            assert_eq!(all.len(), count);
            let (mut dir, mut sink, mut open) = (DirWriter::default(), Knowing::default(), None::<Same>);
            for (n, (leaf, raw)) in all.iter().enumerate() {
                let taken = n % every != every - 1;
                if taken && open.as_mut().is_some_and(|same| same.extend(leaf, raw)) {
                    continue;
                }
                open.take().into_iter().for_each(|same| dir.push_same(&same, &mut sink).unwrap());
                match taken {
                    true => open = Some(Same::new(Arc::clone(leaf), raw)),
                    false => dir.push(leaf.entry(raw).unwrap(), &mut sink).unwrap(),
                }
            }
            open.take().into_iter().for_each(|same| dir.push_same(&same, &mut sink).unwrap());
            assert_eq!(dir.finish(&mut sink).unwrap(), Some(root), "{count} {every}");
            let pages = all.iter().map(|(leaf, _)| leaf.id).collect::<std::collections::HashSet<_>>().len();
            assert!(every == 1 || sink.1 == pages, "{count} {every}: {} of {pages}", sink.1);
        }
    }
}
