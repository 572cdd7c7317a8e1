//! One page of a tree: a branch or a leaf, judged when it is read.

use super::{BRANCH, ELEMENT, LEAF, PAGE_HEAD};
use crate::error::{Error, Kind, Result};

/// A damaged page.
pub(super) fn bad(page: u64, what: &str) -> Error {
    Error::new(Kind::Source, format!("not a sound bbolt file: {what}")).at(format!("page {page}"))
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|b| u16::from_le_bytes(*b))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|b| u32::from_le_bytes(*b))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|b| u64::from_le_bytes(*b))
}

/// The head of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub id: u64,
    pub flags: u16,
    pub count: u16,
    pub overflow: u32,
}

impl Head {
    pub fn decode(bytes: &[u8]) -> Option<Head> {
        Some(Head {
            id: u64_at(bytes, 0)?,
            flags: u16_at(bytes, 8)?,
            count: u16_at(bytes, 10)?,
            overflow: u32_at(bytes, 12)?,
        })
    }

    pub fn encode(&self) -> [u8; PAGE_HEAD] {
        let mut bytes = [0; PAGE_HEAD];
        bytes[..8].copy_from_slice(&self.id.to_le_bytes());
        bytes[8..10].copy_from_slice(&self.flags.to_le_bytes());
        bytes[10..12].copy_from_slice(&self.count.to_le_bytes());
        bytes[12..].copy_from_slice(&self.overflow.to_le_bytes());
        bytes
    }
}

/// An element of a leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Element<'p> {
    /// Its key.
    pub key: &'p [u8],
    /// Its value.
    pub value: &'p [u8],
    /// Whether it is a bucket.
    pub bucket: bool,
}

/// A page with all its bytes, those behind it that it goes on over among them.
#[derive(Debug, Clone)]
pub struct Page {
    id: u64,
    bytes: Vec<u8>,
    leaf: bool,
    count: usize,
}

impl Page {
    /// Judges a page: its elements lie inside it, and their keys rise.
    ///
    /// # Errors
    /// It is no sound page of a tree.
    pub fn parse(id: u64, bytes: Vec<u8>) -> Result<Page> {
        let head = Head::decode(&bytes).ok_or_else(|| bad(id, "a page ends early"))?;
        let leaf = match head.flags {
            LEAF => true,
            BRANCH => false,
            _ => return Err(bad(id, "a page of a tree is neither branch nor leaf")),
        };
        let page = Page { id, bytes, leaf, count: usize::from(head.count) };
        if !leaf && page.count == 0 {
            return Err(bad(id, "a branch without elements"));
        }
        let mut before: Option<&[u8]> = None;
        for at in 0..page.count {
            let key = page.key(at)?;
            if leaf {
                page.element(at)?;
            }
            if before.is_some_and(|before| before >= key) {
                return Err(bad(id, "keys are out of order"));
            }
            before = Some(key);
        }
        Ok(page)
    }

    /// Its number.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Its bytes, with those of the pages that it goes on over.
    pub(super) fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Whether it is a leaf.
    pub fn is_leaf(&self) -> bool {
        self.leaf
    }

    /// How many elements it has.
    pub fn count(&self) -> usize {
        self.count
    }

    fn word(&self, at: usize, inside: usize) -> Result<usize> {
        let start = PAGE_HEAD + at * ELEMENT + inside;
        u32_at(&self.bytes, start).map(|n| n as usize).ok_or_else(|| bad(self.id, "an element lies outside its page"))
    }

    fn part(&self, at: usize, from: usize, len: usize) -> Result<&[u8]> {
        let start = PAGE_HEAD + at * ELEMENT;
        start
            .checked_add(from)
            .and_then(|start| Some(start..start.checked_add(len)?))
            .filter(|part| part.start >= PAGE_HEAD + self.count * ELEMENT)
            .and_then(|part| self.bytes.get(part))
            .ok_or_else(|| bad(self.id, "an element lies outside its page"))
    }

    /// The key of an element.
    ///
    /// # Errors
    /// There is no such element.
    pub fn key(&self, at: usize) -> Result<&[u8]> {
        if at >= self.count {
            return Err(bad(self.id, "there is no such element"));
        }
        let (pos, size) = if self.leaf { (4, 8) } else { (0, 4) };
        self.part(at, self.word(at, pos)?, self.word(at, size)?)
    }

    /// An element of a leaf.
    ///
    /// # Errors
    /// There is no such element.
    pub fn element(&self, at: usize) -> Result<Element<'_>> {
        let key = self.key(at)?;
        if !self.leaf {
            return Err(bad(self.id, "a branch where a leaf should be"));
        }
        let (pos, value) = (self.word(at, 4)?, self.word(at, 12)?);
        let from = pos.checked_add(key.len()).ok_or_else(|| bad(self.id, "an element lies outside its page"))?;
        let value = self.part(at, from, value)?;
        let flags = self.word(at, 0)?;
        Ok(Element { key, value, bucket: flags & super::IS_BUCKET as usize != 0 })
    }

    /// The page that an element of a branch names.
    ///
    /// # Errors
    /// There is no such element.
    pub fn child(&self, at: usize) -> Result<u64> {
        if self.leaf || at >= self.count {
            return Err(bad(self.id, "there is no such element"));
        }
        u64_at(&self.bytes, PAGE_HEAD + at * ELEMENT + 8)
            .ok_or_else(|| bad(self.id, "an element lies outside its page"))
    }

    /// How many keys are smaller than this one, or equal to it if told.
    ///
    /// # Errors
    /// An element cannot be read.
    pub fn below(&self, key: &[u8], or_equal: bool) -> Result<usize> {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low.midpoint(high);
            let found = self.key(middle)?;
            if found < key || (or_equal && found == key) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }
}
