//! Packs of trees beside the local index, as they are stored: a walk over the tree of a snapshot asks for many small pages,
//! each of which would be a request. They are sealed, and every record of them is verified when it is read, as if it
//! came from a region. Any of them may be deleted at any time; the oldest are, when there are too many.

use super::cache::Cache;
use crate::base::PackName;
use rustix::fs::OFlags;
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::PathBuf;

/// So many bytes of them are kept,
const KEPT_BYTES_MAX: u64 = 512 << 20;
/// and so many files.
const KEPT_MAX: usize = 200;
const PREFIX: &str = "tree-";

impl Cache {
    fn pack_path(&self, name: &PackName) -> PathBuf {
        self.folder().join(format!("{PREFIX}{}", name.hex()))
    }

    /// A part of a pack that is kept; what it is, is the reader's to check.
    pub fn pack_part(&self, name: &PackName, range: &Range<u64>) -> Option<Vec<u8>> {
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32;
        let file = OpenOptions::new().read(true).custom_flags(flags).open(self.pack_path(name)).ok()?;
        let mut bytes = vec![0; usize::try_from(range.end.checked_sub(range.start)?).ok()?];
        file.read_exact_at(&mut bytes, range.start).ok()?;
        Some(bytes)
    }

    /// Whether a pack is kept.
    pub fn has_pack(&self, name: &PackName) -> bool {
        self.pack_path(name).exists()
    }

    /// Keeps a pack. One that cannot be written costs requests at the next run, and nothing else.
    pub fn keep_pack(&self, name: &PackName, bytes: &[u8]) {
        if self.write_pack(name, bytes).is_ok() {
            self.drop_oldest_packs();
        }
    }

    fn write_pack(&self, name: &PackName, bytes: &[u8]) -> io::Result<()> {
        self.write_as(&self.pack_path(name), |file: &File| file.write_all_at(bytes, 0))
    }

    /// Drops a pack that turned out not to be what was stored.
    pub fn drop_pack(&self, name: &PackName) {
        let _ = std::fs::remove_file(self.pack_path(name));
    }

    fn drop_oldest_packs(&self) {
        let entries = std::fs::read_dir(self.folder()).into_iter().flatten().flatten();
        let kept = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX));
        let mut all: Vec<(i64, i64, u64, PathBuf)> = kept
            .filter_map(|entry| {
                let meta = entry.metadata().ok()?;
                Some((meta.mtime(), meta.mtime_nsec(), meta.size(), entry.path()))
            })
            .collect();
        all.sort();
        let mut sum = all.iter().fold(0u64, |sum, (.., size, _)| sum.saturating_add(*size));
        let mut count = all.len();
        for (.., size, path) in all {
            if sum <= KEPT_BYTES_MAX && count <= KEPT_MAX {
                return;
            }
            (sum, count) = (sum.saturating_sub(size), count.saturating_sub(1));
            let _ = std::fs::remove_file(path);
        }
    }
}
