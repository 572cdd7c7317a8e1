//! The only ledger of what long work has done so far: counters that every stage adds to and
//! that the command line, the daemon or a test reads.

use std::sync::atomic::{AtomicU64, Ordering};

/// One counter.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Sets the value.
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// The value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counters of one operation. Sizes in bytes.
#[derive(Debug, Default)]
pub struct Progress {
    /// Files done.
    pub files: Counter,
    /// Objects copied between regions.
    pub objects: Counter,
    /// Directories done.
    pub dirs: Counter,
    /// Bytes of files done (read, unchanged, restored or verified).
    pub bytes_done: Counter,
    /// Bytes expected, as far as known; 0 while unknown.
    pub bytes_expected: Counter,
    /// Bytes read from the source or from packs.
    pub bytes_read: Counter,
    /// Encoded bodies that did not decode to what they were made of, and were stored raw.
    pub encoder_errors: Counter,
    /// Bytes of chunks not stored before.
    pub bytes_new: Counter,
    /// Bytes of packs, acknowledged or not, counted once.
    pub bytes_stored: Counter,
    /// Chunks referred to.
    pub chunks_used: Counter,
    /// Chunks not stored before.
    pub chunks_new: Counter,
    /// Things that went wrong and were recorded.
    pub errors: Counter,
}
