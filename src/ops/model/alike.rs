//! Tensors that share their chunks with others, compared by their bytes.

use crate::error::Result;
use crate::format::tree::Entry;
use crate::repo::file_at::FileAt;
use crate::repo::reader::Reader;
use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;

/// Bytes that are read of either snapshot, of one model.
const READ_BYTES_MAX: u64 = 64 << 20;
/// Bytes that are compared at once.
const STEP_BYTES: usize = 1 << 20;

/// Where a tensor lies: the file of its model, and from where to where.
pub(super) type Lies = (usize, (u64, u64));

/// Compares, as long as it may.
pub(super) struct Alike<'a> {
    reader: &'a Reader,
    files: [&'a [Entry]; 2],
    /// Those that were looked at, of either snapshot.
    open: [HashMap<usize, FileAt<'a>>; 2],
    left: u64,
    buffers: [Vec<u8>; 2],
}

impl<'a> Alike<'a> {
    /// For the files of a model, before and now.
    pub(super) fn new(reader: &'a Reader, files: [&'a [Entry]; 2]) -> Self {
        Alike { reader, files, open: Default::default(), left: READ_BYTES_MAX, buffers: Default::default() }
    }

    /// Whether both have the same bytes; `None` if that is too much to be read.
    ///
    /// # Errors
    /// What no region has.
    pub(super) fn are(&mut self, old: Option<Lies>, new: Option<Lies>) -> Result<Option<bool>> {
        let (Some((old, (from, to))), Some((new, (begin, end)))) = (old, new) else { return Ok(None) };
        let len = to.saturating_sub(from);
        let Some(left) = self.left.checked_sub(len).filter(|_| len == end.saturating_sub(begin)) else {
            return Ok(None);
        };
        self.left = left;
        let mut done = 0;
        while done < len {
            let step = usize::try_from(len.saturating_sub(done)).unwrap_or(STEP_BYTES).min(STEP_BYTES);
            let places = [(old, from.saturating_add(done)), (new, begin.saturating_add(done))];
            for (which, (file, at)) in places.into_iter().enumerate() {
                if !self.fill(which, file, at, step)? {
                    return Ok(None);
                }
            }
            if self.buffers[0] != self.buffers[1] {
                return Ok(Some(false));
            }
            done = done.saturating_add(step as u64);
        }
        Ok(Some(true))
    }

    /// Reads into the buffer of one of the snapshots; false if there is no such file.
    fn fill(&mut self, which: usize, file: usize, at: u64, len: usize) -> Result<bool> {
        let (Some(entries), Some(open), Some(buffer)) =
            (self.files.get(which), self.open.get_mut(which), self.buffers.get_mut(which))
        else {
            return Ok(false);
        };
        let file = match open.entry(file) {
            Slot::Occupied(slot) => slot.into_mut(),
            Slot::Vacant(slot) => {
                let Some(entry) = entries.get(file) else { return Ok(false) };
                slot.insert(FileAt::open(self.reader, entry)?)
            }
        };
        buffer.resize(len, 0);
        file.read_at(at, buffer)?;
        Ok(true)
    }
}
