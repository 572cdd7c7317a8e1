//! Opening a file: its meta pages, its buckets, its pages.

use super::page::{Element, Head, Page, bad, u32_at, u64_at};
use super::{
    BUCKET, BUCKET_BYTES_MAX, BUCKETS_MAX, DEPTH_MAX, FREELIST, MAGIC, META, PAGE_BYTES_MAX, PAGE_HEAD, PAGE_SIZES,
    VERSION, WAY_BYTES_MAX, checksum,
};
use crate::error::{Error, Kind, Result};
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Bytes of a meta page that say something.
const META_BYTES: usize = 64;
/// The number of no page: the list of free pages is not kept.
const NO_PAGE: u64 = u64::MAX;

/// Where the bytes of a file come from: a file, or chunks of a snapshot.
pub trait Pages {
    /// Bytes there are.
    fn size(&self) -> u64;

    /// Fills the buffer from this place on.
    ///
    /// # Errors
    /// It cannot be read, or ends before.
    fn read_at(&self, at: u64, buf: &mut [u8]) -> Result<()>;
}

impl Pages for File {
    fn size(&self) -> u64 {
        self.metadata().map_or(0, |m| m.len())
    }

    fn read_at(&self, at: u64, buf: &mut [u8]) -> Result<()> {
        self.read_exact_at(buf, at).map_err(|e| Error::new(Kind::Source, format!("cannot read: {}", e.kind())))
    }
}

impl<P: Pages> Pages for &P {
    fn size(&self) -> u64 {
        (**self).size()
    }

    fn read_at(&self, at: u64, buf: &mut [u8]) -> Result<()> {
        (**self).read_at(at, buf)
    }
}

impl Pages for Vec<u8> {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, at: u64, buf: &mut [u8]) -> Result<()> {
        let part = usize::try_from(at).ok().and_then(|at| self.get(at..)?.get(..buf.len()));
        buf.copy_from_slice(part.ok_or_else(|| Error::new(Kind::Damage, "the bytes end early"))?);
        Ok(())
    }
}

/// A bucket's tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tree {
    /// It begins at this page.
    Root(u64),
    /// It is small, and lies in the leaf that names it.
    Inline(Vec<u8>),
}

#[derive(Debug, Clone, Copy)]
struct Meta {
    page_size: u64,
    root: u64,
    freelist: u64,
    pages: u64,
    tx: u64,
}

impl Meta {
    fn decode(bytes: &[u8]) -> Option<Meta> {
        let head = Head::decode(bytes)?;
        let meta = bytes.get(PAGE_HEAD..PAGE_HEAD + META_BYTES)?;
        let sound = head.flags & META != 0
            && u32_at(meta, 0)? == MAGIC
            && u32_at(meta, 4)? == VERSION
            && u64_at(meta, 56)? == checksum(&meta[..56]);
        let page_size = u64::from(u32_at(meta, 8)?);
        let believed = PAGE_SIZES.contains(&page_size) && page_size.is_power_of_two();
        (sound && believed).then_some(Meta {
            page_size,
            root: u64_at(meta, 16)?,
            freelist: u64_at(meta, 32)?,
            pages: u64_at(meta, 40)?,
            tx: u64_at(meta, 48)?,
        })
    }
}

/// An open file.
#[derive(Debug)]
pub struct Bolt<P> {
    pages: P,
    meta: Meta,
}

impl<P: Pages> Bolt<P> {
    /// Opens a file by the newer of its meta pages that are valid.
    ///
    /// # Errors
    /// None of them is, or the file is shorter than they say.
    pub fn open(pages: P) -> Result<Bolt<P>> {
        let none = || Error::new(Kind::Source, "not a bbolt file: no valid meta page");
        let read = |at: u64| {
            let mut bytes = [0; PAGE_HEAD + META_BYTES];
            let there = at.checked_add(bytes.len() as u64).is_some_and(|end| end <= pages.size());
            (there && pages.read_at(at, &mut bytes).is_ok()).then(|| Meta::decode(&bytes)).flatten()
        };
        let first = read(0);
        // Where the first one is damaged, the size of pages is not known.
        let sizes = first.map_or(PAGE_SIZES, |meta| meta.page_size..=meta.page_size);
        let second = std::iter::successors(Some(*sizes.start()), |size| size.checked_mul(2))
            .take_while(|size| sizes.contains(size))
            .find_map(|size| read(size).filter(|meta| meta.page_size == size));
        let newer = [first, second].into_iter().flatten().max_by_key(|meta| meta.tx);
        let meta = newer.ok_or_else(none)?;
        let bytes = meta.pages.checked_mul(meta.page_size);
        if meta.pages < 3 || bytes.is_none_or(|bytes| bytes > pages.size()) {
            return Err(Error::new(Kind::Source, "not a sound bbolt file: it is shorter than its meta page says"));
        }
        Ok(Bolt { pages, meta })
    }

    /// Bytes of a page.
    pub fn page_size(&self) -> u64 {
        self.meta.page_size
    }

    /// Pages in use and free.
    pub fn page_count(&self) -> u64 {
        self.meta.pages
    }

    /// The bytes below.
    pub fn pages(&self) -> &P {
        &self.pages
    }

    /// Reads a page of a tree, with the pages behind that it goes on over.
    ///
    /// # Errors
    /// There is no such page, or it is not sound.
    pub(super) fn page(&self, id: u64) -> Result<(Page, u64)> {
        let (mut bytes, head) = self.first(id)?;
        let span = u64::from(head.overflow) + 1;
        let len = span * self.meta.page_size;
        if len > PAGE_BYTES_MAX || id.checked_add(span).is_none_or(|end| end > self.meta.pages) {
            return Err(bad(id, "a page goes on too far"));
        }
        if span > 1 {
            let have = bytes.len();
            bytes.resize(len as usize, 0);
            let rest = bytes.get_mut(have..).unwrap_or_default();
            self.pages.read_at(id * self.meta.page_size + have as u64, rest)?;
        }
        Ok((Page::parse(id, bytes)?, span))
    }

    fn first(&self, id: u64) -> Result<(Vec<u8>, Head)> {
        if id < 2 || id >= self.meta.pages {
            return Err(bad(id, "there is no such page"));
        }
        let mut bytes = vec![0; self.meta.page_size as usize];
        self.pages.read_at(id * self.meta.page_size, &mut bytes)?;
        let head = Head::decode(&bytes).ok_or_else(|| bad(id, "a page ends early"))?;
        if head.id != id {
            return Err(bad(id, "another page stands here"));
        }
        Ok((bytes, head))
    }

    /// Its buckets, by name.
    ///
    /// # Errors
    /// A page is not sound, or there is something else than buckets.
    pub fn buckets(&self) -> Result<Vec<(Vec<u8>, Tree)>> {
        let mut buckets = Vec::new();
        let mut cursor = self.root();
        while let Some(element) = cursor.next()? {
            if !element.bucket {
                return Err(bad(self.meta.root, "a value where buckets are"));
            }
            if buckets.len() >= BUCKETS_MAX || element.key.len().max(element.value.len()) > BUCKET_BYTES_MAX {
                return Err(bad(self.meta.root, "there are too many buckets, or one is too large for its place"));
            }
            buckets.push((element.key.to_vec(), tree(self.meta.root, element.value)?));
        }
        Ok(buckets)
    }

    fn root(&self) -> Cursor<'_, P> {
        Cursor::new(self, &Tree::Root(self.meta.root), None)
    }

    /// A bucket.
    ///
    /// # Errors
    /// A page is not sound.
    pub fn bucket(&self, name: &[u8]) -> Result<Option<Tree>> {
        Ok(self.buckets()?.into_iter().find_map(|(found, tree)| (found == name).then_some(tree)))
    }

    /// Goes through a bucket.
    pub fn cursor<'b>(&'b self, tree: &Tree) -> Cursor<'b, P> {
        Cursor::new(self, tree, None)
    }

    /// Goes through a bucket and marks its pages.
    pub fn marking<'b>(&'b self, tree: &Tree, used: &'b mut Used) -> Cursor<'b, P> {
        Cursor::new(self, tree, Some(used))
    }

    /// The value of a key, by the pages on the way to it alone.
    ///
    /// # Errors
    /// A page is not sound.
    pub fn get(&self, tree: &Tree, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let mut page = match tree {
            Tree::Root(id) => self.page(*id)?.0,
            Tree::Inline(bytes) => Page::parse(0, bytes.clone())?,
        };
        for _ in 0..DEPTH_MAX {
            if page.is_leaf() {
                let at = page.below(key, false)?;
                if at >= page.count() || page.key(at)? != key {
                    return Ok(None);
                }
                return Ok(Some(page.element(at)?.value.to_vec()));
            }
            let at = page.below(key, true)?.saturating_sub(1);
            page = self.page(page.child(at)?)?.0;
        }
        Err(bad(page.id(), "a tree is too deep"))
    }

    /// A list of which pages are in use, with those that belong to no bucket.
    ///
    /// # Errors
    /// A page is not sound.
    pub fn used(&self) -> Result<Used> {
        let mut used = Used { bits: vec![0; (self.meta.pages as usize).div_ceil(64)], pages: self.meta.pages };
        used.mark(0, 2)?;
        if self.meta.freelist != NO_PAGE {
            let (_, head) = self.first(self.meta.freelist)?;
            if head.flags != FREELIST {
                return Err(bad(self.meta.freelist, "no list of free pages"));
            }
            used.mark(self.meta.freelist, u64::from(head.overflow) + 1)?;
        }
        let mut root = Cursor::new(self, &Tree::Root(self.meta.root), Some(&mut used));
        while root.next()?.is_some() {}
        Ok(used)
    }
}

/// A place in a tree. Keys must rise from one leaf to the next, so that it ends whatever a file says.
pub struct Cursor<'b, P> {
    bolt: &'b Bolt<P>,
    begin: Option<Tree>,
    /// The pages from the root to the leaf, and the next element of each.
    stack: Vec<(Page, usize)>,
    used: Option<&'b mut Used>,
    last: Option<Vec<u8>>,
}

impl<'b, P: Pages> Cursor<'b, P> {
    fn new(bolt: &'b Bolt<P>, tree: &Tree, used: Option<&'b mut Used>) -> Cursor<'b, P> {
        Cursor { bolt, begin: Some(tree.clone()), stack: Vec::new(), used, last: None }
    }

    fn enter(&mut self, id: u64) -> Result<()> {
        if self.stack.len() >= DEPTH_MAX {
            return Err(bad(id, "a tree is too deep"));
        }
        let (page, span) = self.bolt.page(id)?;
        let held: u64 = self.stack.iter().map(|(page, _)| page.size()).sum();
        if held.saturating_add(page.size()) > WAY_BYTES_MAX {
            return Err(bad(id, "the pages on the way to a leaf are too large"));
        }
        if let Some(used) = &mut self.used {
            used.mark(id, span)?;
        }
        if page.is_leaf() && page.count() == 0 && !self.stack.is_empty() {
            return Err(bad(id, "an empty leaf"));
        }
        if page.is_leaf() && page.count() > 0 {
            if self.last.as_deref().is_some_and(|last| page.key(0).is_ok_and(|first| first <= last)) {
                return Err(bad(id, "keys are out of order"));
            }
            self.last = Some(page.key(page.count() - 1)?.to_vec());
        }
        self.stack.push((page, 0));
        Ok(())
    }

    /// The next element.
    ///
    /// # Errors
    /// A page is not sound.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Element<'_>>> {
        match self.begin.take() {
            Some(Tree::Root(id)) => self.enter(id)?,
            Some(Tree::Inline(bytes)) => {
                let page = Page::parse(0, bytes)?;
                if !page.is_leaf() {
                    return Err(bad(0, "a branch where a leaf should be"));
                }
                self.stack.push((page, 0));
            }
            None => {}
        }
        loop {
            let Some((page, at)) = self.stack.last_mut() else { return Ok(None) };
            if *at >= page.count() {
                self.stack.pop();
                continue;
            }
            *at += 1;
            if page.is_leaf() {
                break;
            }
            let child = page.child(*at - 1)?;
            self.enter(child)?;
        }
        match self.stack.last() {
            Some((page, at)) => page.element(at.saturating_sub(1)).map(Some),
            None => Ok(None),
        }
    }
}

fn tree(page: u64, value: &[u8]) -> Result<Tree> {
    let root = u64_at(value, 0).filter(|_| value.len() >= BUCKET).ok_or_else(|| bad(page, "a bucket ends early"))?;
    Ok(if root == 0 { Tree::Inline(value[BUCKET..].to_vec()) } else { Tree::Root(root) })
}

/// Which pages are in use: a bit a page.
#[derive(Debug, Clone)]
pub struct Used {
    bits: Vec<u64>,
    pages: u64,
}

impl Used {
    /// Marks pages; none may be in use twice.
    pub(super) fn mark(&mut self, from: u64, count: u64) -> Result<()> {
        for page in from..from.saturating_add(count) {
            let word = self.bits.get_mut((page / 64) as usize).filter(|_| page < self.pages);
            let word = word.ok_or_else(|| bad(page, "there is no such page"))?;
            if *word >> (page % 64) & 1 == 1 {
                return Err(bad(page, "a page is in use twice"));
            }
            *word |= 1 << (page % 64);
        }
        Ok(())
    }

    /// Whether a page is in use; what lies behind the last one counts as free.
    pub fn has(&self, page: u64) -> bool {
        self.bits.get((page / 64) as usize).is_some_and(|word| word >> (page % 64) & 1 == 1)
    }

    /// How many are in use.
    pub fn count(&self) -> u64 {
        self.bits.iter().map(|word| u64::from(word.count_ones())).sum()
    }
}
