//! A big file as it is judged: by the bytes that were stored of it, or not at all.
//!
//! It is read once more, since a judge goes back and forth and the chunks may be in no region yet; an object in ranges of the
//! version that was stored, and of no other. Times do not tell whether
//! it is still the same: who writes through a mapping can change it without touching them. So each chunk that is read again
//! is compared, by its id, with what was stored.

use crate::base::{Cancel, ChunkId};
use crate::format::tree::Item;
use crate::model::archive::At;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;

/// Chunks that are kept for the next look.
const HELD_MAX: usize = 4;
/// How often the file may be read in all, and how much more of it: a judge may go to and fro.
const READS_MAX: u64 = 8;
const READ_BYTES_MIN: u64 = 1 << 30;

/// Where bytes are read, and how many there were.
type Reading<'f> = dyn Fn(u64, &mut [u8]) -> io::Result<usize> + 'f;

pub(super) struct Seen<'f> {
    read: &'f Reading<'f>,
    id: &'f dyn Fn(&[u8]) -> ChunkId,
    cancel: &'f Cancel,
    /// Where each chunk begins, and what it is.
    chunks: Vec<(u64, Item)>,
    size: u64,
    held: RefCell<VecDeque<(usize, Vec<u8>)>>,
    /// Bytes that may still be read.
    left: Cell<u64>,
    other: Cell<bool>,
    unread: Cell<bool>,
}

impl<'f> Seen<'f> {
    /// A file of which `size` bytes were stored, as these chunks in its order.
    pub(super) fn new(
        size: u64,
        items: impl Iterator<Item = Item>,
        read: &'f Reading<'f>,
        id: &'f dyn Fn(&[u8]) -> ChunkId,
        cancel: &'f Cancel,
    ) -> Self {
        let mut behind = 0u64;
        let chunks = items.map(|item| {
            let start = behind;
            behind = behind.saturating_add(item.len);
            (start, item)
        });
        let chunks = chunks.collect();
        let left = Cell::new(size.saturating_mul(READS_MAX).saturating_add(READ_BYTES_MIN));
        let held = RefCell::default();
        Seen { read, id, cancel, chunks, size, held, left, other: Cell::new(false), unread: Cell::new(false) }
    }

    /// Whether something else was read than was stored.
    pub(super) fn is_other(&self) -> bool {
        self.other.get()
    }

    /// Whether some of it could not be read again: it may be possible later.
    pub(super) fn is_unread(&self) -> bool {
        self.unread.get()
    }

    /// Brings a chunk to the front of those that are held.
    fn hold(&self, number: usize, start: u64, item: &Item) -> io::Result<()> {
        let mut held = self.held.borrow_mut();
        if let Some(at) = held.iter().position(|(other, _)| *other == number) {
            let found = held.remove(at);
            held.extend(found);
            return Ok(());
        }
        let left = self.left.get().checked_sub(item.len);
        self.left.set(left.ok_or_else(|| io::Error::other("it would have to be read too often"))?);
        let mut bytes = vec![0; usize::try_from(item.len).map_err(|_| io::ErrorKind::InvalidData)?];
        let got = (self.read)(start, &mut bytes).inspect_err(|_| self.unread.set(true))?;
        if got < bytes.len() || (self.id)(&bytes) != item.id {
            self.other.set(true);
            return Err(io::Error::other("it is not what was stored any more"));
        }
        if held.len() >= HELD_MAX {
            held.pop_front();
        }
        held.push_back((number, bytes));
        Ok(())
    }
}

impl At for Seen<'_> {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut got = 0usize;
        while let Some(missing) = out.get_mut(got..).filter(|missing| !missing.is_empty()) {
            if self.cancel.raised() {
                return Err(io::Error::other("stopped"));
            }
            let at = offset.saturating_add(got as u64);
            if at >= self.size {
                break;
            }
            // More chunks than are kept have no end that is known.
            let unknown = || io::Error::other("it is too long to be judged");
            let behind = self.chunks.partition_point(|(start, _)| *start <= at);
            let number = behind.checked_sub(1).ok_or_else(unknown)?;
            let (start, item) = self.chunks.get(number).ok_or_else(unknown)?;
            let inside = at.saturating_sub(*start);
            let most = usize::try_from(item.len.saturating_sub(inside)).unwrap_or(usize::MAX).min(missing.len());
            let missing = missing.get_mut(..most).filter(|missing| !missing.is_empty()).ok_or_else(unknown)?;
            if item.id == ChunkId::HOLE {
                missing.fill(0);
            } else {
                self.hold(number, *start, item)?;
                let held = self.held.borrow();
                let from = usize::try_from(inside).unwrap_or(usize::MAX);
                let part = held.back().and_then(|(_, bytes)| bytes.get(from..from.checked_add(most)?));
                missing.copy_from_slice(part.ok_or(io::ErrorKind::InvalidData)?);
            }
            got = got.saturating_add(most);
        }
        Ok(got)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::archive::examine;
    use crate::model::verdict::Grade;

    fn id(bytes: &[u8]) -> ChunkId {
        ChunkId(*blake3::hash(bytes).as_bytes())
    }

    /// What is said of a file that was stored as it is in `stored`, and reads as `now`.
    fn judged(stored: &[u8], now: &[u8], cuts: usize) -> (Grade, bool) {
        let items = stored.chunks(cuts).map(|part| match part.iter().all(|byte| *byte == 0) {
            true => Item { id: ChunkId::HOLE, len: part.len() as u64 },
            false => Item { id: id(part), len: part.len() as u64 },
        });
        let read = |offset: u64, out: &mut [u8]| {
            let rest = now.get(offset as usize..).unwrap_or_default();
            let count = rest.len().min(out.len());
            out[..count].copy_from_slice(&rest[..count]);
            Ok(count)
        };
        let cancel = Cancel::default();
        let seen = Seen::new(stored.len() as u64, items, &read, &id, &cancel);
        (examine(&seen).grade, seen.is_other())
    }

    #[test]
    fn what_is_read_again_and_is_not_what_was_stored_is_never_safe() {
        let good = b"\x80\x02ccollections\nOrderedDict\n)R.".to_vec();
        let mut evil = b"cos\nsystem\n(S'x'\ntR.".to_vec();
        evil.resize(good.len(), b' ');
        for cuts in [1, 5, 16, 1000] {
            assert_eq!(judged(&good, &good, cuts), (Grade::Safe, false), "{cuts}");
            assert_eq!(judged(&evil, &evil, cuts).0, Grade::Unsafe, "{cuts}");
            let (grade, other) = judged(&evil, &good, cuts);
            assert!(other && grade >= Grade::Unknown, "{cuts}: {grade:?}");
            assert!(judged(&good, &good[..good.len() - 1], cuts).1, "{cuts}: shorter by now");
        }
    }

    #[test]
    fn what_cannot_be_read_again_is_unknown_and_told() {
        let stored = b"\x80\x02ccollections\nOrderedDict\n)R.";
        let items = [Item { id: id(stored), len: stored.len() as u64 }];
        let read = |_: u64, _: &mut [u8]| Err(io::Error::other("another version stands there"));
        let cancel = Cancel::default();
        let seen = Seen::new(stored.len() as u64, items.into_iter(), &read, &id, &cancel);
        let grade = examine(&seen).grade;
        assert_eq!((grade, seen.is_unread(), seen.is_other()), (Grade::Unknown, true, false));
    }

    #[test]
    fn holes_are_zeros_whatever_stands_there_now() {
        let mut stored = vec![0; 64];
        stored.extend_from_slice(b"words behind");
        assert_eq!(judged(&stored, &stored, 16), (Grade::None, false));
        let mut now = stored.clone();
        now[..20].copy_from_slice(b"cos\nsystem\n(S'x'\ntR.");
        assert_eq!(judged(&stored, &now, 16).0, Grade::None);
    }
}
