//! Directories of a file system: walked in order, read without touching access times, and written back
//! without ever leaving the target. Everything is relative to directory descriptors, so that paths may be
//! longer than `PATH_MAX` and a symlink swapped in leads nowhere. Names are bytes.

mod ahead;
mod attrs;
mod birth;
mod error;
mod found;
mod read;
mod target;
mod target_file;
#[cfg(feature = "testing")]
pub mod testing;
mod trail;
mod walk;

pub use crate::policy::Excludes;
pub use ahead::{Ahead, Walk};
pub use error::{SourceError, SourceErrorKind};
pub use found::Found;
pub use read::{Extent, SourceFile, Stamp, open};
pub use target::{Made, RestoreOptions, Target, TargetDir};
pub use target_file::TargetFile;
pub use walk::{DirHandle, Event, WalkOptions, Walker};

use crate::format::leaf::Meta;
use crate::format::tree::Entry;
use std::path::Path;

/// A file whose times are not older than the previous run's start by this much is read again: it may
/// have changed within the clock's granularity. Linux stamps files by the tick (at most 10 ms); the rest
/// is for clocks that step.
const CLOCK_GRANULARITY_MS: i64 = 50;

/// When a file of the parent may be taken over unread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParentRule {
    /// The same file system: size, both times, inode.
    SameFs,
    /// A clone of it: size and modification time; inode and change time do not survive cloning.
    Clone,
    /// The same bucket: size, and what the store calls the content, of which the inode is made.
    Objects,
}

/// Whether `new` is `old` unchanged, by the rule.
pub fn unchanged(old: &Entry, new: &Entry, rule: ParentRule) -> bool {
    if rule == ParentRule::Objects {
        return old.kind == new.kind && old.size == new.size && old.inode == new.inode && new.inode != 0;
    }
    let content =
        old.kind == new.kind && old.size == new.size && (old.mtime_s, old.mtime_ns) == (new.mtime_s, new.mtime_ns);
    let metadata = (old.ctime_s, old.ctime_ns, old.inode) == (new.ctime_s, new.ctime_ns, new.inode);
    content && (rule == ParentRule::Clone || metadata)
}

/// Whether an entry of the previous run (from `start_ms` to `end_ms`) may have changed right after it was read
/// without the times that `rule` compares showing it.
pub fn too_recent(entry: &Meta, rule: ParentRule, (start_ms, end_ms): (i64, i64)) -> bool {
    let ms = |s: i64, ns: u32| s.saturating_mul(1000).saturating_add(i64::from(ns) / 1_000_000);
    let recent = |ms: i64| ms >= start_ms.saturating_sub(CLOCK_GRANULARITY_MS);
    match rule {
        // Content of another name is other content, whenever it came.
        ParentRule::Objects => false,
        // Any change sets it, and nobody else can.
        ParentRule::SameFs => recent(ms(entry.ctime.0, entry.ctime.1)),
        // One beyond the run's end was set by hand, and the next change would bring it back to the present.
        ParentRule::Clone => {
            let modified = ms(entry.mtime.0, entry.mtime.1);
            recent(modified) && modified <= end_ms.saturating_add(CLOCK_GRANULARITY_MS)
        }
    }
}

/// A number for the file system that a path is on: its `f_fsid`.
///
/// # Errors
/// The path cannot be reached.
pub fn fs_id(path: &Path) -> Result<u64, SourceError> {
    #[cfg(feature = "testing")]
    if testing::settled() {
        return Ok(1);
    }
    let stat = rustix::fs::statvfs(path).map_err(|e| SourceError::at_path(path, e))?;
    Ok(stat.f_fsid)
}

/// How many files this process may have open.
pub fn descriptors() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    limit.and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX)
}

/// Lets this process have as many files open as it may ask for, up to what a walk ahead can use.
pub fn raise_descriptors() {
    const ENOUGH: u64 = 1 << 16;
    let resource = rustix::process::Resource::Nofile;
    let limit = rustix::process::getrlimit(resource);
    let wanted = limit.maximum.map_or(ENOUGH, |most| most.min(ENOUGH));
    if limit.current.is_some_and(|now| now < wanted) {
        // Where that is refused, fewer do: a walk then goes less far ahead.
        let _ = rustix::process::setrlimit(resource, rustix::process::Rlimit { current: Some(wanted), ..limit });
    }
}

/// The host's name.
pub fn hostname() -> String {
    String::from_utf8_lossy(rustix::system::uname().nodename().to_bytes()).into_owned()
}
