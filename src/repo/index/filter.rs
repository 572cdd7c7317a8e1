//! A blocked Bloom filter: one line of 64 bytes a chunk, seven bits in it. Says "not here" for 99.5% of what is not
//! here. Ids are keyed hashes, so their bytes serve as the hash.

use super::scaled;
use crate::base::ChunkId;

/// Bytes of a line.
pub const LINE_BYTES: usize = 64;
/// Chunks a line: 12 bits each.
const PER_LINE: u64 = 42;
const BITS: u32 = 7;

/// How many lines so many chunks take.
pub fn lines(chunks: u64) -> u64 {
    chunks.div_ceil(PER_LINE).max(1)
}

fn word(id: &ChunkId, at: usize) -> u64 {
    id.bytes()[at..].first_chunk().map_or(0, |raw| u64::from_le_bytes(*raw))
}

/// The line of a chunk.
pub fn line_of(id: &ChunkId, lines: u64) -> u64 {
    scaled(word(id, 8), lines)
}

/// Its bits there: byte and mask.
fn bits(id: &ChunkId) -> impl Iterator<Item = (usize, u8)> {
    let word = word(id, 16);
    (0..BITS).map(move |n| {
        let bit = word >> (9 * n) & 511;
        ((bit / 8) as usize, 1 << (bit % 8))
    })
}

/// Puts a chunk into its line.
pub fn set(line: &mut [u8], id: &ChunkId) {
    bits(id).for_each(|(at, mask)| line[at] |= mask);
}

/// Whether a chunk may be in the line.
pub fn may_have(line: &[u8], id: &ChunkId) -> bool {
    bits(id).all(|(at, mask)| line[at] & mask != 0)
}
