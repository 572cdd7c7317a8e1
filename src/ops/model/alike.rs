//! Two tensors of the same form, compared piece by piece: by the ids of their chunks, and by their bytes where they share
//! chunks with others, or are cut otherwise.

use crate::base::{Cancel, ChunkId};
use crate::error::{Error, Kind, Result};
use crate::format::tree::Entry;
use crate::repo::file_at::FileAt;
use crate::repo::reader::Reader;

/// Bytes that are fetched of both snapshots, of one model, and bytes that are compared.
const READ_BYTES_MAX: u64 = 64 << 20;
/// Bytes that are compared at once.
const STEP_BYTES: u64 = 1 << 20;
/// Pieces of tensors that are looked at, of one model: thousands of names may share the bytes of a long file.
const PIECES_MAX: u64 = 1 << 22;

/// Where a tensor lies: the file of its model, and from where to where.
pub(super) type Lies = (usize, (u64, u64));

/// How many bytes of a tensor are others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Changed {
    pub(super) bytes: u64,
    /// So many at most: chunks that differ are counted as a whole.
    pub(super) at_most: bool,
}

/// What stands at a place of both.
enum Step {
    Same(u64),
    Other(u64),
    /// Chunks do not tell.
    Unsure(u64),
}

/// Compares, as long as it may.
pub(super) struct Alike<'a> {
    reader: &'a Reader,
    files: [&'a [(Vec<u8>, Entry)]; 2],
    /// The one that was looked at last, of either snapshot.
    open: [Option<(usize, FileAt<'a>)>; 2],
    /// What was fetched of files that are closed again, what was compared, and pieces that were looked at.
    fetched: u64,
    compared: u64,
    pieces: u64,
    buffers: [Vec<u8>; 2],
    cancel: &'a Cancel,
}

impl<'a> Alike<'a> {
    /// For the files of a model, before and now.
    pub(super) fn new(reader: &'a Reader, files: [&'a [(Vec<u8>, Entry)]; 2], cancel: &'a Cancel) -> Self {
        let (open, buffers) = ([None, None], Default::default());
        Alike { reader, files, open, fetched: 0, compared: 0, pieces: 0, buffers, cancel }
    }

    /// Whether both have the same bytes; `None` if that is too much to be read, or cannot be. Best asked in the order of
    /// their places.
    ///
    /// # Errors
    /// It is to end.
    pub(super) fn are(&mut self, old: Option<Lies>, new: Option<Lies>) -> Result<Option<bool>> {
        match self.compare(old, new, true) {
            Ok(changed) => Ok(changed.map(|changed| changed.bytes == 0)),
            Err(e) if e.kind() == Kind::Cancelled => Err(e),
            Err(_) => Ok(None),
        }
    }

    /// How many bytes of a tensor are others: counted where they had to be read, else by the chunks that differ. `None` if
    /// that is too much to be read.
    ///
    /// # Errors
    /// It is to end; no region has what is needed intact.
    pub(super) fn changed(&mut self, old: Option<Lies>, new: Option<Lies>) -> Result<Option<Changed>> {
        self.compare(old, new, false)
    }

    fn compare(&mut self, old: Option<Lies>, new: Option<Lies>, first: bool) -> Result<Option<Changed>> {
        let (Some((old, (from, to))), Some((new, (begin, end)))) = (old, new) else { return Ok(None) };
        let len = to.saturating_sub(from);
        if len != end.saturating_sub(begin) {
            return Ok(None);
        }
        let (mut done, mut changed) = (0u64, Changed::default());
        while done < len {
            self.cancel.check()?;
            self.pieces = self.pieces.saturating_add(1);
            if self.pieces > PIECES_MAX {
                return Ok(None);
            }
            let places = [(old, from.saturating_add(done)), (new, begin.saturating_add(done))];
            let step = match self.step(places, len.saturating_sub(done))? {
                Step::Same(step) => step,
                Step::Other(step) => {
                    changed.bytes = changed.bytes.saturating_add(step);
                    changed.at_most = true;
                    step
                }
                Step::Unsure(step) => {
                    let Some(differ) = self.differ(places, step)? else { return Ok(None) };
                    changed.bytes = changed.bytes.saturating_add(differ);
                    step
                }
            };
            if first && changed.bytes > 0 {
                break;
            }
            done = done.saturating_add(step);
        }
        Ok(Some(changed))
    }

    /// What the chunks at two places tell of the next bytes, of which there are at most so many.
    fn step(&mut self, places: [(usize, u64); 2], most: u64) -> Result<Step> {
        let [(old, at), (new, begin)] = places;
        let short = most.min(STEP_BYTES);
        let (Some(before), Some(after)) = (self.lying(0, old, at)?, self.lying(1, new, begin)?) else {
            return Ok(Step::Unsure(short));
        };
        let step = before.left().min(after.left()).min(most);
        let hole = before.id == ChunkId::HOLE;
        if before.id == after.id && (hole || before.inside == after.inside) {
            return Ok(Step::Same(step));
        }
        // A chunk is its bytes: two of one length that differ, differ somewhere. What one of them shares with others may not.
        let holes = hole || after.id == ChunkId::HOLE;
        let whole = (before.inside, after.inside) == (0, 0) && before.len == after.len && step == before.len;
        Ok(if whole && !holes { Step::Other(step) } else { Step::Unsure(step.min(short)) })
    }

    /// The chunk that covers a place.
    fn lying(&mut self, which: usize, file: usize, at: u64) -> Result<Option<Piece>> {
        let found = self.file(which, file)?.item_at(at)?;
        Ok(found.map(|(item, begin)| Piece { id: item.id, len: item.len, inside: at.saturating_sub(begin) }))
    }

    /// How many of so many bytes differ, if they may be read.
    fn differ(&mut self, places: [(usize, u64); 2], len: u64) -> Result<Option<u64>> {
        self.compared = self.compared.saturating_add(len);
        if self.fetched() > READ_BYTES_MAX || self.compared > READ_BYTES_MAX {
            return Ok(None);
        }
        for (which, (file, at)) in places.into_iter().enumerate() {
            let mut buffer = std::mem::take(&mut self.buffers[which]);
            buffer.resize(usize::try_from(len).unwrap_or(0), 0);
            let read = self.file(which, file).and_then(|file| file.read_at(at, &mut buffer));
            self.buffers[which] = buffer;
            read?;
        }
        let [left, right] = &self.buffers;
        Ok(Some(if left == right { 0 } else { left.iter().zip(right).filter(|(a, b)| a != b).count() as u64 }))
    }

    fn fetched(&self) -> u64 {
        let now = self.open.iter().flatten().map(|(_, file)| file.fetched());
        now.fold(self.fetched, u64::saturating_add)
    }

    /// A file of one of the snapshots.
    fn file(&mut self, which: usize, file: usize) -> Result<&FileAt<'a>> {
        let lost = || Error::new(Kind::Bug, "a tensor lies in no file");
        let slot = self.open.get_mut(which).ok_or_else(lost)?;
        if slot.as_ref().is_none_or(|(open, _)| *open != file) {
            let (_, entry) = self.files.get(which).and_then(|files| files.get(file)).ok_or_else(lost)?;
            let before = slot.replace((file, FileAt::open(self.reader, entry)?));
            self.fetched = self.fetched.saturating_add(before.map_or(0, |(_, file)| file.fetched()));
        }
        slot.as_ref().map(|(_, file)| file).ok_or_else(lost)
    }
}

/// A chunk, and where in it a place lies.
struct Piece {
    id: ChunkId,
    len: u64,
    inside: u64,
}

impl Piece {
    /// Bytes of it from there on: at least one, so that what is compared comes to an end.
    fn left(&self) -> u64 {
        self.len.saturating_sub(self.inside).max(1)
    }
}
