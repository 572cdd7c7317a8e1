//! Files of tensors, cut where their tensors begin and end (docs/format.md, section 4).
//!
//! A tensor that stands in another file, in another container, or at another place of the same, makes the same chunks
//! again; what lies between tensors is stored apart. Where they lie is a hint and no more: whatever it says, every byte of the file belongs to exactly one chunk.

/// Largest chunk of a tensor, in bytes; a multiple of every width of a number. A little less than 1 MiB: about as many
/// chunks as other files of that length have; what is made of one stays in a processor's cache while it is named,
/// coded and sealed; and packs of pieces that do not shrink do not all end just behind a step of their sizes.
const PIECE_BYTES: u64 = (1 << 20) - (16 << 10);
/// Tensors below this share chunks with neighbours of their kind: what a chunk costs is no small part of them, in bytes.
const SMALL_BYTES: u64 = 1 << 10;
/// How long such a chunk may become, in bytes.
const SHARED_BYTES_MAX: u64 = 64 << 10;
/// A file of which tensors are a smaller part than one in so many is cut like any other.
const PART_MIN: u64 = 8;

/// Where a file of tensors is cut.
#[derive(Debug, PartialEq, Eq)]
pub struct Layout {
    /// Where sections begin, increasing from 0; the last is the end of the file.
    bounds: Vec<u64>,
    /// Where a section of small parts began, while it may grow.
    shared: Option<u64>,
}

impl Layout {
    /// The layout of a file of this length whose tensors lie so: in order, and apart from each other. `None` if there is
    /// little of them.
    pub fn of(tensors: &[(u64, u64)], file_bytes: u64) -> Option<Layout> {
        let mut layout = Layout { bounds: vec![0], shared: None };
        let (mut at, mut sum) = (0u64, 0u64);
        for (begin, end) in tensors {
            if *begin < at || end <= begin || *end > file_bytes {
                continue;
            }
            // What stands in front of the first tensor is the header.
            if *begin > at && at > 0 {
                layout.add(at, *begin);
            }
            layout.add(*begin, *end);
            sum = sum.saturating_add(end - begin);
            at = *end;
        }
        if at > 0 && at < file_bytes {
            layout.add(at, file_bytes);
        }
        layout.bounds.push(file_bytes);
        layout.bounds.dedup();
        (sum >= file_bytes / PART_MIN).then_some(layout)
    }

    /// Begins a section, unless it is small and goes with the one before.
    fn add(&mut self, begin: u64, end: u64) {
        let small = end - begin < SMALL_BYTES;
        if small && self.shared.is_some_and(|from| end - from <= SHARED_BYTES_MAX) {
            return;
        }
        self.bounds.push(begin);
        self.shared = small.then_some(begin);
    }

    /// Length of the chunk at `position`, of which and of what follows it `available` bytes are at hand; `None` if
    /// more are needed. `at_end`: there are no more.
    pub fn next(&self, position: u64, available: usize, at_end: bool) -> Option<usize> {
        if available == 0 {
            return None;
        }
        let after = self.bounds.partition_point(|bound| *bound <= position);
        let begin = after.checked_sub(1).and_then(|ix| self.bounds.get(ix)).copied().unwrap_or(0);
        // Counted from the tensor's begin also where a hole ended within it.
        let piece = PIECE_BYTES - (position - begin) % PIECE_BYTES;
        let len = self.bounds.get(after).map_or(piece, |end| piece.min(end - position));
        match usize::try_from(len) {
            Ok(len) if len <= available => Some(len),
            _ => at_end.then_some(available),
        }
    }

    /// How much to read at `position`: one chunk or several small ones, so that none is read in part and then again,
    /// and what was read is still in the processor's cache when it is stored.
    pub fn ahead(&self, position: u64) -> usize {
        let (most, mut len) = (PIECE_BYTES as usize, 0);
        while let Some(next) = self.next(position.saturating_add(len as u64), most - len, false) {
            len += next;
        }
        len
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(tensors: &[(u64, u64)], file_bytes: u64) -> Option<Vec<u64>> {
        Layout::of(tensors, file_bytes).map(|layout| layout.bounds)
    }

    #[test]
    fn sections_begin_where_tensors_do() {
        assert_eq!(bounds(&[(50, 2050), (2050, 5050)], 5050), Some(vec![0, 50, 2050, 5050]));
        // Small ones share a section, which is not too long either.
        let small: Vec<(u64, u64)> = (0..100).map(|n| (n * 1000 + 50, n * 1000 + 1050)).collect();
        assert_eq!(bounds(&small, 100_050), Some(vec![0, 50, 65_050, 100_050]));
        assert_eq!(bounds(&[(50, 60), (60, 70), (70, 2070), (2070, 2080)], 2080), Some(vec![0, 50, 70, 2070, 2080]));
        // From the very begin.
        assert_eq!(bounds(&[(0, 5000)], 5000), Some(vec![0, 5000]));
    }

    #[test]
    fn what_lies_between_tensors_is_stored_apart() {
        assert_eq!(
            bounds(&[(100, 5000), (5024, 9000), (20_000, 30_000)], 31_000),
            Some(vec![0, 100, 5000, 5024, 9000, 20_000, 30_000, 31_000])
        );
        // With what is small beside it.
        assert_eq!(
            bounds(&[(100, 5000), (5100, 5200), (5300, 5400), (5500, 9000)], 9100),
            Some(vec![0, 100, 5000, 5500, 9000, 9100])
        );
        let small: Vec<(u64, u64)> = (1..90).map(|n| (n * 1000, n * 1000 + 900)).collect();
        assert_eq!(bounds(&small, 90_000), Some(vec![0, 1000, 66_000, 90_000]));
    }

    #[test]
    fn hints_that_do_not_hold_are_passed_over() {
        let bad = [(50, 3000), (2000, 4000), (4000, 4000), (4500, 4400), (5000, 6001), (u64::MAX, u64::MAX)];
        assert_eq!(bounds(&bad, 6000), Some(vec![0, 50, 3000, 6000]));
        for little in [&[][..], &[(0, 0)], &[(100, 800)]] {
            assert_eq!(bounds(little, 6000), None, "{little:?}");
        }
        assert_eq!(bounds(&[(100, 850)], 6000), Some(vec![0, 100, 850, 6000]));
    }

    #[test]
    fn tensors_are_cut_into_pieces_that_add_up() {
        const P: u64 = PIECE_BYTES;
        assert_eq!(P, 1_032_192);
        let end = 3 * P + 507;
        let layout = Layout { bounds: vec![0, 100, 100 + P * 5 / 2, end - 7, end], shared: None };
        let cut = |available: u64| {
            let (mut at, mut lens) = (0, Vec::new());
            while at < end {
                let there = available.min(end - at);
                let len = layout.next(at, there as usize, at + there == end).unwrap() as u64;
                lens.push(len);
                at += len;
            }
            lens
        };
        assert_eq!(cut(P), [100, P, P, P / 2, P / 2 + 400, 7]);
        assert_eq!(cut(9 * P), cut(P));
        let next = |at: u64, available: u64, at_end: bool| layout.next(at, available as usize, at_end);
        assert_eq!(next(100, P, false), Some(P as usize));
        assert_eq!(next(100, P - 1, false), None);
        assert_eq!(next(100, 5, true), Some(5));
        assert_eq!(next(100, 0, true), None);
        // Behind a hole, and behind what the layout knows of.
        assert_eq!(next(100 + P / 4, 9 * P, false), Some(P as usize / 4 * 3));
        assert_eq!(next(end, 9 * P, false), Some(P as usize));
        // Whole chunks are read.
        let ahead = [0, 100, 100 + 2 * P, 100 + P * 5 / 2, end].map(|at| layout.ahead(at) as u64);
        assert_eq!(ahead, [100, P, P / 2, P / 2 + 407, P]);
    }
}
