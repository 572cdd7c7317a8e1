//! Writing a file anew: buckets one after the other, their keys in order, pages filled and never changed.

use super::page::{Head, bad};
use super::{BRANCH, BUCKET, ELEMENT, FREELIST, IS_BUCKET, LEAF, MAGIC, META, PAGE_HEAD, VERSION, checksum};
use crate::error::{Error, Kind, Result};
use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};

/// Bytes that are gathered before they are written.
const BUFFER_BYTES: usize = 1 << 20;
/// A branch has so many children at least.
const BRANCH_MIN: usize = 2;
/// Pages before the first of a tree: two meta pages and an empty list of free pages.
const FIRST_PAGE: u64 = 3;

fn failed(e: &std::io::Error) -> Error {
    let kind = if e.kind() == std::io::ErrorKind::StorageFull { Kind::Full } else { Kind::Source };
    Error::new(kind, format!("cannot write the file: {}", e.kind()))
}

/// The page of a level that is being filled.
#[derive(Debug, Default)]
struct Open {
    elements: Vec<u8>,
    data: Vec<u8>,
    /// Where in `data` each element begins.
    starts: Vec<usize>,
    first: Vec<u8>,
}

impl Open {
    fn bytes(&self) -> usize {
        PAGE_HEAD + self.elements.len() + self.data.len()
    }

    /// Takes the last element of a branch away.
    fn pop(&mut self) -> Option<([u8; ELEMENT], Vec<u8>)> {
        let key = self.data.split_off(self.starts.pop()?);
        let element = self.elements.split_off(self.elements.len().checked_sub(ELEMENT)?);
        Some((element.try_into().ok()?, key))
    }

    fn push(&mut self, element: [u8; ELEMENT], key: &[u8], value: &[u8]) {
        if self.starts.is_empty() {
            self.first = key.to_vec();
        }
        self.starts.push(self.data.len());
        self.elements.extend_from_slice(&element);
        self.data.extend_from_slice(key);
        self.data.extend_from_slice(value);
    }
}

/// A file that is being written.
pub struct Builder {
    out: BufWriter<File>,
    page_size: usize,
    next_page: u64,
    buckets: Vec<(Vec<u8>, u64)>,
    name: Vec<u8>,
    /// Leaf first, then the branches above it.
    levels: Vec<Open>,
    last: Option<Vec<u8>>,
}

impl Builder {
    /// Begins at the start of an empty file.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn new(file: File, page_size: u64) -> Result<Builder> {
        let mut out = BufWriter::with_capacity(BUFFER_BYTES, file);
        let page_size = page_size as usize;
        out.write_all(&vec![0; page_size * FIRST_PAGE as usize]).map_err(|e| failed(&e))?;
        Ok(Builder {
            out,
            page_size,
            next_page: FIRST_PAGE,
            buckets: Vec::new(),
            name: Vec::new(),
            levels: vec![Open::default()],
            last: None,
        })
    }

    /// Begins a bucket; names rise.
    ///
    /// # Errors
    /// They do not, or the file cannot be written.
    pub fn bucket(&mut self, name: &[u8]) -> Result<()> {
        self.close_bucket()?;
        if name.is_empty() || self.buckets.last().is_some_and(|(before, _)| before.as_slice() >= name) {
            return Err(Error::new(Kind::Bug, "buckets are written out of order"));
        }
        self.name = name.to_vec();
        Ok(())
    }

    /// Adds a pair to the bucket; keys rise.
    ///
    /// # Errors
    /// They do not, or the file cannot be written.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        if self.name.is_empty() || key.is_empty() || self.last.as_deref().is_some_and(|last| last >= key) {
            return Err(Error::new(Kind::Bug, "keys are written out of order"));
        }
        self.last = Some(key.to_vec());
        self.leaf(key, value, 0)
    }

    fn leaf(&mut self, key: &[u8], value: &[u8], flags: u32) -> Result<()> {
        let mut element = [0; ELEMENT];
        element[..4].copy_from_slice(&flags.to_le_bytes());
        element[8..12].copy_from_slice(&size(key.len())?.to_le_bytes());
        element[12..].copy_from_slice(&size(value.len())?.to_le_bytes());
        self.push(0, element, key, value)
    }

    /// Adds an element to the page of a level; a full page is written before and named by the level above. The last
    /// element of a branch that is written goes on into the next one: a branch of one child makes bbolt panic once that child shrinks.
    fn push(&mut self, level: usize, element: [u8; ELEMENT], key: &[u8], value: &[u8]) -> Result<()> {
        let more = ELEMENT + key.len() + value.len();
        let open = &mut self.levels[level];
        let full = open.bytes() + more > self.page_size || open.starts.len() == usize::from(u16::MAX - 1);
        let least = if level == 0 { 1 } else { BRANCH_MIN + 1 };
        if full && open.starts.len() >= least {
            let moved = if level == 0 { None } else { open.pop() };
            self.close_page(level)?;
            if let Some((element, key)) = moved {
                self.levels[level].push(element, &key, &[]);
            }
        }
        self.levels[level].push(element, key, value);
        Ok(())
    }

    /// Writes the page of a level and returns its number.
    fn write(&mut self, level: usize) -> Result<(Vec<u8>, u64)> {
        let open = std::mem::take(&mut self.levels[level]);
        let id = self.next_page;
        let pages = open.bytes().div_ceil(self.page_size).max(1);
        let overflow = size(pages - 1)?;
        let flags = if level == 0 { LEAF } else { BRANCH };
        let count = u16::try_from(open.starts.len()).map_err(|_| bad(id, "too many elements"))?;
        let mut page = Vec::with_capacity(pages * self.page_size);
        page.extend_from_slice(&Head { id, flags, count, overflow }.encode());
        page.extend_from_slice(&open.elements);
        for (at, start) in open.starts.iter().enumerate() {
            let element = PAGE_HEAD + at * ELEMENT;
            // A place counts from its element.
            let pos = size(open.elements.len() - at * ELEMENT + start)?;
            let field = if level == 0 { element + 4 } else { element };
            page[field..field + 4].copy_from_slice(&pos.to_le_bytes());
        }
        page.extend_from_slice(&open.data);
        page.resize(pages * self.page_size, 0);
        self.out.write_all(&page).map_err(|e| failed(&e))?;
        self.next_page += pages as u64;
        Ok((open.first, id))
    }

    fn close_page(&mut self, level: usize) -> Result<()> {
        let (first, id) = self.write(level)?;
        if self.levels.len() == level + 1 {
            self.levels.push(Open::default());
        }
        let mut element = [0; ELEMENT];
        element[4..8].copy_from_slice(&size(first.len())?.to_le_bytes());
        element[8..].copy_from_slice(&id.to_le_bytes());
        self.push(level + 1, element, &first, &[])
    }

    /// Writes what is open, upwards; returns the page of the tree's root.
    fn close_tree(&mut self) -> Result<u64> {
        let mut level = 0;
        // A level that there is has an element: its page is written only to make room for the next one.
        while self.levels.len() > level + 1 {
            self.close_page(level)?;
            level += 1;
        }
        let (_, root) = self.write(level)?;
        self.levels = vec![Open::default()];
        Ok(root)
    }

    fn close_bucket(&mut self) -> Result<()> {
        if self.name.is_empty() {
            return Ok(());
        }
        let root = self.close_tree()?;
        self.last = None;
        self.buckets.push((std::mem::take(&mut self.name), root));
        Ok(())
    }

    /// Writes the root bucket and both meta pages.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn finish(mut self) -> Result<File> {
        self.close_bucket()?;
        for (name, root) in std::mem::take(&mut self.buckets) {
            let mut value = [0; BUCKET];
            value[..8].copy_from_slice(&root.to_le_bytes());
            self.leaf(&name, &value, IS_BUCKET)?;
        }
        let root = self.close_tree()?;
        self.out.seek(SeekFrom::Start(0)).map_err(|e| failed(&e))?;
        for id in 0..2 {
            let meta = self.meta(id, root)?;
            self.out.write_all(&meta).map_err(|e| failed(&e))?;
        }
        let free = Head { id: 2, flags: FREELIST, count: 0, overflow: 0 }.encode();
        self.out.write_all(&free).map_err(|e| failed(&e))?;
        let mut file = self.out.into_inner().map_err(|e| failed(e.error()))?;
        file.seek(SeekFrom::End(0)).map_err(|e| failed(&e))?;
        Ok(file)
    }

    fn meta(&self, id: u64, root: u64) -> Result<Vec<u8>> {
        let mut page = vec![0; self.page_size];
        page[..PAGE_HEAD].copy_from_slice(&Head { id, flags: META, count: 0, overflow: 0 }.encode());
        let meta = &mut page[PAGE_HEAD..];
        meta[..4].copy_from_slice(&MAGIC.to_le_bytes());
        meta[4..8].copy_from_slice(&VERSION.to_le_bytes());
        meta[8..12].copy_from_slice(&size(self.page_size)?.to_le_bytes());
        meta[16..24].copy_from_slice(&root.to_le_bytes());
        meta[32..40].copy_from_slice(&2u64.to_le_bytes());
        meta[40..48].copy_from_slice(&self.next_page.to_le_bytes());
        // The transactions of a new file.
        meta[48..56].copy_from_slice(&id.to_le_bytes());
        let sum = checksum(&meta[..56]);
        meta[56..64].copy_from_slice(&sum.to_le_bytes());
        Ok(page)
    }
}

fn size(bytes: usize) -> Result<u32> {
    u32::try_from(bytes).map_err(|_| Error::new(Kind::Source, "too large for a bbolt file"))
}
