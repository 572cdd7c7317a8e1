//! Whether a region has everything that a snapshot needs: every page, list and chunk of its tree is named by
//! an index segment which that region lists, in a pack that is there.

use crate::base::{Cancel, ChunkId, PackName};
use crate::chunk::Coder;
use crate::error::{Error, Kind, Result};
use crate::format::tree::{Entry, EntryType};
use crate::region::RegionSet;
use crate::repo::reader::Reader;
use crate::repo::tree::{DirReader, ListReader, check_depth};
use std::collections::HashSet;

/// Root pages of directories below which everything is in all of these regions: not walked again.
#[derive(Debug, Default)]
pub struct Known {
    regions: RegionSet,
    pages: HashSet<ChunkId>,
}

/// Those of `among` in which everything below a root entry is indexed, in packs that are `present` there. A page that no
/// region has intact makes it complete nowhere.
///
/// # Errors
/// Interrupted.
pub fn regions(
    reader: &Reader,
    known: &mut Known,
    root: &Entry,
    (among, present): (RegionSet, &dyn Fn(&PackName) -> RegionSet),
    cancel: &Cancel,
) -> Result<RegionSet> {
    if !known.regions.covers(among) {
        *known = Known { regions: among, pages: HashSet::new() };
    }
    let mut walk = Walk {
        reader,
        known,
        present,
        coder: Coder::default(),
        left: among,
        walked: HashSet::new(),
        stack: Vec::new(),
    };
    walk.entry(root).and_then(|()| walk.run(cancel)).or_else(|e| match e.kind() {
        Kind::Cancelled => Err(e),
        _ => {
            walk.left = RegionSet::NONE;
            Ok(())
        }
    })?;
    let (left, walked) = (walk.left, walk.walked);
    // What was not asked of a region is not known of it.
    if left == among && among == known.regions {
        known.pages.extend(walked);
    }
    Ok(left)
}

struct Walk<'w> {
    reader: &'w Reader,
    known: &'w Known,
    present: &'w dyn Fn(&PackName) -> RegionSet,
    coder: Coder,
    left: RegionSet,
    walked: HashSet<ChunkId>,
    stack: Vec<DirReader<'w>>,
}

impl Walk<'_> {
    fn run(&mut self, cancel: &Cancel) -> Result<()> {
        while let (false, Some(dir)) = (self.left.is_empty(), self.stack.last_mut()) {
            cancel.check()?;
            let next = dir.next(&mut self.coder)?;
            for page in dir.take_pages() {
                self.need(&page);
            }
            match next {
                Some(entry) => self.entry(&entry)?,
                None => drop(self.stack.pop()),
            }
        }
        Ok(())
    }

    fn entry(&mut self, entry: &Entry) -> Result<()> {
        if let Some(attributes) = &entry.xattrs_ref {
            self.need(attributes);
        }
        match (entry.kind, entry.tree) {
            (EntryType::Dir, Some(page)) if !self.known.pages.contains(&page) && self.walked.insert(page) => {
                check_depth(self.stack.len())?;
                self.stack.push(DirReader::new(self.reader, Some(page)));
                Ok(())
            }
            (EntryType::File, _) => self.file(entry),
            _ => Ok(()),
        }
    }

    fn file(&mut self, entry: &Entry) -> Result<()> {
        let mut list = ListReader::new(self.reader, entry)?;
        loop {
            let item = list.next(&mut self.coder)?;
            for page in list.take_pages() {
                self.need(&page);
            }
            match item {
                Some(item) if item.id == ChunkId::HOLE => {}
                Some(item) => self.need(&item.id),
                None => return Ok(()),
            }
            if self.left.is_empty() {
                return Err(Error::new(Kind::Damage, "complete nowhere"));
            }
        }
    }

    /// A chunk without which nothing is complete.
    fn need(&mut self, id: &ChunkId) {
        let named = self
            .reader
            .index
            .locate(id)
            .fold(RegionSet::NONE, |all, at| all.or(at.regions.and((self.present)(&at.pack.name))));
        self.left = self.left.and(named);
    }
}
