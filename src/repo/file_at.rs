//! Bytes at any place of a file in a snapshot, by the list pages and chunks that lead there alone.

use super::reader::Reader;
use crate::base::ChunkId;
use crate::chunk::Coder;
use crate::error::{Error, Kind, Result};
use crate::format::tree::{Entry, Item, ListPage, items};
use crate::region::lift;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

/// Pages of the list that are kept, of at most some 160 KiB each.
const PAGES_KEPT: usize = 256;

/// A file of a snapshot.
pub struct FileAt<'r> {
    reader: &'r Reader,
    entry: Entry,
    top: Option<Rc<Vec<Item>>>,
    pages: RefCell<HashMap<ChunkId, Rc<Vec<Item>>>>,
    /// The chunk that was read last: reads mostly go on where one ended.
    last: RefCell<(Option<ChunkId>, Vec<u8>)>,
    coder: RefCell<Coder>,
    /// Bytes of chunks that were fetched.
    fetched: Cell<u64>,
}

impl<'r> FileAt<'r> {
    /// Opens a file.
    ///
    /// # Errors
    /// Its list is not sound.
    pub fn open(reader: &'r Reader, entry: &Entry) -> Result<FileAt<'r>> {
        let top = match &entry.chunks {
            Some(list) => Some(Rc::new(items(list).map_err(lift)?.collect())),
            None => None,
        };
        Ok(FileAt {
            reader,
            entry: entry.clone(),
            top,
            pages: RefCell::default(),
            last: RefCell::default(),
            coder: RefCell::default(),
            fetched: Cell::new(0),
        })
    }

    /// Bytes of chunks that were fetched for what was read so far.
    pub fn fetched(&self) -> u64 {
        self.fetched.get()
    }

    /// Its bytes.
    pub fn size(&self) -> u64 {
        self.entry.size()
    }

    /// Fills the buffer from this place on.
    ///
    /// # Errors
    /// The file ends before, or no region has what is needed intact.
    pub fn read_at(&self, at: u64, mut buf: &mut [u8]) -> Result<()> {
        let short = || Error::new(Kind::Damage, "the file ends early");
        if let Some(inline) = &self.entry.inline {
            let part = usize::try_from(at).ok().and_then(|at| inline.get(at..)?.get(..buf.len())).ok_or_else(short)?;
            buf.copy_from_slice(part);
            return Ok(());
        }
        let mut at = at;
        while !buf.is_empty() {
            let (item, begin) = self.item_at(at)?.ok_or_else(short)?;
            let inside = at.saturating_sub(begin);
            let len = item.len.saturating_sub(inside).min(buf.len() as u64) as usize;
            let (here, rest) = buf.split_at_mut(len);
            if item.id == ChunkId::HOLE {
                here.fill(0);
            } else {
                self.copy(&item, inside as usize, here)?;
            }
            buf = rest;
            at = at.saturating_add(len as u64);
        }
        Ok(())
    }

    fn copy(&self, item: &Item, inside: usize, out: &mut [u8]) -> Result<()> {
        let mut last = self.last.borrow_mut();
        if last.0 != Some(item.id) {
            last.0 = None;
            last.1 = self.reader.chunk(&item.id, &mut self.coder.borrow_mut())?;
            last.0 = Some(item.id);
            self.fetched.set(self.fetched.get().saturating_add(item.len));
        }
        let fits = last.1.len() as u64 == item.len;
        let part = last.1.get(inside..).and_then(|rest| rest.get(..out.len())).filter(|_| fits);
        let wrong = || Error::new(Kind::Damage, "a chunk's length is not what the file's list says");
        out.copy_from_slice(part.ok_or_else(wrong)?);
        Ok(())
    }

    /// The item that covers a place, and where it begins; `None` behind the end, and where the content stands in the entry.
    ///
    /// # Errors
    /// No region has a page of the list intact.
    pub fn item_at(&self, at: u64) -> Result<Option<(Item, u64)>> {
        let (mut level, mut list) = match (&self.top, self.entry.list) {
            (Some(top), None) => (0, Rc::clone(top)),
            (None, Some(list)) => (list.level, self.page(&list.page, list.level)?),
            // Neither content nor a list: one hole from begin to end.
            (None, None) if self.entry.inline.is_none() && at < self.size() => {
                return Ok(Some((Item { id: ChunkId::HOLE, len: self.size() }, 0)));
            }
            _ => return Ok(None),
        };
        let mut begin = 0u64;
        loop {
            let mut found = None;
            for item in list.iter() {
                let end = begin
                    .checked_add(item.len)
                    .ok_or_else(|| Error::new(Kind::Damage, "list page that does not add up"))?;
                if at < end {
                    found = Some(*item);
                    break;
                }
                begin = end;
            }
            let Some(item) = found else { return Ok(None) };
            if level == 0 {
                return Ok(Some((item, begin)));
            }
            level -= 1;
            list = self.page(&item.id, level)?;
        }
    }

    fn page(&self, id: &ChunkId, level: u8) -> Result<Rc<Vec<Item>>> {
        if let Some(page) = self.pages.borrow().get(id) {
            return Ok(Rc::clone(page));
        }
        let bytes = self.reader.chunk(id, &mut self.coder.borrow_mut())?;
        let page = ListPage::decode(&bytes).map_err(lift)?;
        if page.level != level {
            return Err(Error::new(Kind::Damage, "list page of a wrong level"));
        }
        let found: Rc<Vec<Item>> = Rc::new(items(&page.items).map_err(lift)?.collect());
        let mut pages = self.pages.borrow_mut();
        if pages.len() >= PAGES_KEPT {
            pages.clear();
        }
        pages.insert(*id, Rc::clone(&found));
        Ok(found)
    }
}
