//! Tensors that share their chunks with others, compared by their bytes.

use crate::base::Cancel;
use crate::error::Result;
use crate::format::tree::Entry;
use crate::repo::file_at::FileAt;
use crate::repo::reader::Reader;

/// Bytes that are fetched of both snapshots, of one model.
const READ_BYTES_MAX: u64 = 64 << 20;
/// Bytes that are compared at once.
const STEP_BYTES: usize = 1 << 20;

/// Where a tensor lies: the file of its model, and from where to where.
pub(super) type Lies = (usize, (u64, u64));

/// Compares, as long as it may.
pub(super) struct Alike<'a> {
    reader: &'a Reader,
    files: [&'a [Entry]; 2],
    /// The one that was looked at last, of either snapshot.
    open: [Option<(usize, FileAt<'a>)>; 2],
    /// What was fetched of files that are closed again.
    fetched: u64,
    buffers: [Vec<u8>; 2],
    cancel: &'a Cancel,
}

impl<'a> Alike<'a> {
    /// For the files of a model, before and now.
    pub(super) fn new(reader: &'a Reader, files: [&'a [Entry]; 2], cancel: &'a Cancel) -> Self {
        Alike { reader, files, open: [None, None], fetched: 0, buffers: Default::default(), cancel }
    }

    /// Whether both have the same bytes; `None` if that is too much to be read, or cannot be. Best asked in the order of
    /// their places.
    ///
    /// # Errors
    /// It is to end.
    pub(super) fn are(&mut self, old: Option<Lies>, new: Option<Lies>) -> Result<Option<bool>> {
        let (Some((old, (from, to))), Some((new, (begin, end)))) = (old, new) else { return Ok(None) };
        let len = to.saturating_sub(from);
        if len != end.saturating_sub(begin) {
            return Ok(None);
        }
        let mut done = 0;
        while done < len {
            self.cancel.check()?;
            if self.fetched() > READ_BYTES_MAX {
                return Ok(None);
            }
            let step = usize::try_from(len.saturating_sub(done)).unwrap_or(STEP_BYTES).min(STEP_BYTES);
            let places = [(old, from.saturating_add(done)), (new, begin.saturating_add(done))];
            for (which, (file, at)) in places.into_iter().enumerate() {
                if self.fill(which, file, at, step).is_none() {
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

    fn fetched(&self) -> u64 {
        let now = self.open.iter().flatten().map(|(_, file)| file.fetched());
        now.fold(self.fetched, u64::saturating_add)
    }

    /// Reads into the buffer of one of the snapshots.
    fn fill(&mut self, which: usize, file: usize, at: u64, len: usize) -> Option<()> {
        let slot = self.open.get_mut(which)?;
        if slot.as_ref().is_none_or(|(open, _)| *open != file) {
            let entry = self.files.get(which)?.get(file)?;
            let before = slot.replace((file, FileAt::open(self.reader, entry).ok()?));
            self.fetched = self.fetched.saturating_add(before.map_or(0, |(_, file)| file.fetched()));
        }
        let (buffer, (_, file)) = (self.buffers.get_mut(which)?, slot.as_ref()?);
        buffer.resize(len, 0);
        file.read_at(at, buffer).ok()
    }
}
