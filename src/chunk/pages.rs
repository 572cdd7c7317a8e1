//! Files of databases that are written in place, page by page: cut between pages (docs/format.md, section 4).
//!
//! A day changes some pages anywhere in such a file, and by its content each chunk of a MiB would be another one.

use super::cut::MAX;

/// Shortest chunk, in bytes: a page of PostgreSQL, two of SQLite.
const RUN_BYTES_MIN: u64 = 8 << 10;
/// Most chunks of a file; larger ones have longer chunks, up to what a chunk may be.
const CHUNKS_MAX: u64 = 1 << 21;
const RUN_BYTES_MAX: u64 = MAX as u64;
/// A page of PostgreSQL, as it is built everywhere.
const POSTGRES_BYTES: usize = 8 << 10;
/// The size and the version of its layout, as each page says them: version 4, since PostgreSQL 8.3.
const POSTGRES_PAGE: [u8; 2] = [0x04, 0x20];
/// Shortest header of such a page.
const POSTGRES_HEAD: u16 = 24;
/// How an SQLite database begins (<https://www.sqlite.org/fileformat2.html>, 1.3).
const SQLITE: &[u8; 16] = b"SQLite format 3\0";

/// How much of a file tells, in bytes.
pub const PAGES_FRONT_BYTES: usize = 8 * POSTGRES_BYTES;

/// Where a file of pages is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pages {
    run: u64,
}

impl Pages {
    /// Of a file of this length that begins so; `None` if it is none that is known.
    pub fn of(front: &[u8], file_bytes: u64) -> Option<Pages> {
        let page = sqlite(front).or_else(|| postgres(front))?;
        let mut run = page.max(RUN_BYTES_MIN);
        while file_bytes / run > CHUNKS_MAX && run < RUN_BYTES_MAX {
            run *= 2;
        }
        file_bytes.is_multiple_of(page).then_some(Pages { run })
    }

    /// Whether its first bytes, of which there are few, may be those of one.
    pub fn may_be(head: &[u8]) -> bool {
        head.starts_with(SQLITE) || head.get(18..20) == Some(&POSTGRES_PAGE[..])
    }

    /// Length of the chunk at `position`, of which and of what follows it `available` bytes are at hand; `None` if more are
    /// needed. `at_end`: there are no more.
    pub fn next(&self, position: u64, available: usize, at_end: bool) -> Option<usize> {
        // Counted from the begin of the file also behind a hole.
        let len = usize::try_from(self.run - position % self.run).unwrap_or(usize::MAX);
        if len <= available { Some(len) } else { (at_end && available > 0).then_some(available) }
    }
}

/// The size of its pages.
fn sqlite(front: &[u8]) -> Option<u64> {
    let size = front.strip_prefix(SQLITE)?.first_chunk::<2>()?;
    match u64::from(u16::from_be_bytes(*size)) {
        1 => Some(64 << 10),
        size if size.is_power_of_two() && size >= 512 => Some(size),
        _ => None,
    }
}

/// Pages of a table or an index (`PageHeaderData` in PostgreSQL's `bufpage.h`), of which some may be empty, not the first.
fn postgres(front: &[u8]) -> Option<u64> {
    let pages = front.chunks_exact(POSTGRES_BYTES);
    let is_page = |page: &[u8]| {
        let number = |at: usize| page.get(at..)?.first_chunk::<2>().map(|two| u16::from_le_bytes(*two));
        let (Some(flags), Some(lower), Some(upper), Some(special)) = (number(10), number(12), number(14), number(16))
        else {
            return false;
        };
        let in_order = lower >= POSTGRES_HEAD && lower <= upper && upper <= special;
        in_order && flags <= 7 && usize::from(special) <= POSTGRES_BYTES && page.get(18..20) == Some(&POSTGRES_PAGE[..])
    };
    let is_empty = |page: &[u8]| page.iter().all(|byte| *byte == 0);
    let first = pages.clone().next().is_some_and(is_page);
    let all = pages.into_iter().all(|page| is_page(page) || is_empty(page));
    (first && all).then_some(POSTGRES_BYTES as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database(page: u16) -> Vec<u8> {
        [&SQLITE[..], &page.to_be_bytes(), &[1; 82]].concat()
    }

    fn page(lower: u16, upper: u16, special: u16) -> Vec<u8> {
        let mut page = vec![7; POSTGRES_BYTES];
        page[10..12].copy_from_slice(&[4, 0]);
        for (at, number) in [(12, lower), (14, upper), (16, special)] {
            page[at..at + 2].copy_from_slice(&number.to_le_bytes());
        }
        page[18..20].copy_from_slice(&POSTGRES_PAGE);
        page
    }

    #[test]
    fn databases_are_known_by_their_heads() {
        let run = |front: &[u8], size: u64| Pages::of(front, size).map(|pages| pages.run);
        assert_eq!(run(&database(4096), 1 << 20), Some(8 << 10));
        assert_eq!(run(&database(1), 1 << 20), Some(64 << 10));
        assert_eq!((run(&database(4000), 1 << 20), run(&database(4096), (1 << 20) + 1)), (None, None));
        assert_eq!((run(&SQLITE[..15], 1 << 20), run(SQLITE, 1 << 20)), (None, None));
        let (full, empty) = (page(28, 400, 8192), vec![0; POSTGRES_BYTES]);
        let front = [full.clone(), empty.clone(), page(24, 8176, 8176)].concat();
        assert_eq!(run(&front, 1 << 30), Some(8 << 10));
        assert!(Pages::may_be(&front[..128]) && Pages::may_be(&database(512)) && !Pages::may_be(&empty[..128]));
        for other in [page(23, 400, 8192), page(500, 400, 8192), page(28, 400, 8200), page(28, 8190, 8000), empty] {
            assert_eq!(run(&[full.clone(), other.clone()].concat(), 1 << 20).is_none(), other[18] != 0);
            assert_eq!(run(&other, 1 << 20), None);
        }
        assert_eq!((run(&full, (1 << 20) + 1), run(&full[..100], 1 << 20), run(b"", 0)), (None, None, None));
        // Chunks of a very large one are longer, and not more.
        assert_eq!(run(&database(4096), 1 << 40), Some(512 << 10));
        // But no chunk is longer than a chunk may be.
        assert_eq!([1 << 43, 1 << 44, 1 << 50].map(|size| run(&database(4096), size)), [Some(4 << 20); 3]);
    }

    #[test]
    fn chunks_are_runs_of_pages_from_the_begin() {
        let pages = Pages { run: 8192 };
        assert_eq!((pages.next(0, 8192, false), pages.next(8192, 8191, false)), (Some(8192), None));
        assert_eq!((pages.next(4096, 9000, false), pages.next(8192, 100, true)), (Some(4096), Some(100)));
        assert_eq!(pages.next(8192, 0, true), None);
    }
}
