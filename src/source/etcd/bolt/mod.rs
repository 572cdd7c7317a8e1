//! Files of bbolt, the B+tree store under etcd: read with every offset checked, and written anew.
//!
//! A file is pages of one size. Pages 0 and 1 are meta pages, of which the valid one with the higher transaction counts;
//! it names the page of the root bucket, whose leaves name the buckets. A page of a tree is a branch (keys and pages) or
//! a leaf (keys and values), and may go on over the pages behind it. All numbers are little-endian.

mod page;
mod read;
mod write;

pub use page::{Element, Page};
pub use read::{Bolt, Cursor, Pages, Tree, Used};
pub use write::Builder;

/// Bytes of the head of a page.
const PAGE_HEAD: usize = 16;
/// Bytes of an element, of a branch or of a leaf.
const ELEMENT: usize = 16;
/// Bytes of a bucket in a leaf: its root and its sequence.
const BUCKET: usize = 16;
/// What a meta page begins with.
const MAGIC: u32 = 0xed0c_daed;
/// The one version there is.
const VERSION: u32 = 2;
const BRANCH: u16 = 0x01;
const LEAF: u16 = 0x02;
const META: u16 = 0x04;
const FREELIST: u16 = 0x10;
/// Marks a leaf's element that is a bucket.
const IS_BUCKET: u32 = 0x01;
/// Sizes of pages that are believed.
pub const PAGE_SIZES: std::ops::RangeInclusive<u64> = 1 << 10..=1 << 16;
/// A page goes on over at most so many bytes: etcd's own limit of a request is far below.
const PAGE_BYTES_MAX: u64 = 64 << 20;
/// Levels of a tree.
const DEPTH_MAX: usize = 32;
/// The pages from the root of a tree to a leaf, all of which are held, have so many bytes at most: one may be long.
const WAY_BYTES_MAX: u64 = PAGE_BYTES_MAX + (8 << 20);
/// A file has so many buckets at most: etcd's has a dozen.
const BUCKETS_MAX: usize = 256;
/// The name of a bucket, and the tree of one that lies in the leaf that names it, have so many bytes at most.
const BUCKET_BYTES_MAX: usize = 64 << 10;

/// FNV-1a, which a meta page ends with.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, b| (sum ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests;
