//! What the kernel gives to a new file of a directory: learnt from the first one that is made there, so that it need not
//! be asked again for each. New directories inherit what decides it (default ACL, group, file system) from their parent.

use super::attrs::{self, At};
use crate::format::tree::Entry;
use rustix::fd::BorrowedFd;
use rustix::fs::Mode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// The mode that a file has until it is whole.
pub(super) const NARROW: Mode = Mode::RUSR.union(Mode::WUSR);

/// Mode bits that creating a file does not give.
const NOT_AT_BIRTH: u32 = 0o7000;

/// Owner and group of a new file that has no attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Birth {
    uid: u32,
    gid: u32,
    umask: Option<u32>,
}

impl Birth {
    /// Owner and group.
    pub(super) fn owner(self) -> (u32, u32) {
        (self.uid, self.gid)
    }

    /// The mode to make the file with, if it then needs neither another mode nor another owner nor attributes.
    pub(super) fn mode_of(self, entry: &Entry) -> Option<Mode> {
        let mode = entry.mode & 0o7777;
        let given = self.umask.is_some_and(|umask| mode & (umask | NOT_AT_BIRTH) == 0);
        let bare = entry.xattrs.as_deref().is_none_or(<[_]>::is_empty);
        (given && bare && self.owner() == (entry.uid, entry.gid)).then(|| Mode::from_raw_mode(mode))
    }
}

/// What new files are given in one directory and in the new directories below it.
#[derive(Debug)]
pub(super) struct Births {
    umask: Option<u32>,
    /// Inner `None`: they are given attributes, so that each is looked at.
    first: OnceLock<Option<Birth>>,
    /// A bit for each mode that a file was seen to have after it was made with it: a default ACL, or a file system, may
    /// leave one mode alone and narrow another.
    kept: [AtomicU64; 8],
}

impl Births {
    /// Nothing known yet.
    pub(super) fn new(umask: Option<u32>) -> Arc<Births> {
        Arc::new(Births { umask, first: OnceLock::new(), kept: Default::default() })
    }

    /// Those of a directory that was there before.
    pub(super) fn elsewhere(&self) -> Arc<Births> {
        Births::new(self.umask)
    }

    /// If known.
    pub(super) fn known(&self) -> Option<Birth> {
        self.first.get().copied().flatten()
    }

    /// Whether a file that was just made with this mode has it. Asked once for each mode.
    pub(super) fn keeps(&self, fd: BorrowedFd<'_>, mode: Mode) -> bool {
        let bits = mode.as_raw_mode() & 0o777;
        let (Some(word), bit) = (self.kept.get((bits / 64) as usize), 1u64 << (bits % 64)) else { return false };
        if word.load(Ordering::Relaxed) & bit != 0 {
            return true;
        }
        let is_kept = rustix::fs::fstat(fd).is_ok_and(|stat| stat.st_mode & 0o7777 == mode.as_raw_mode());
        if is_kept {
            word.fetch_or(bit, Ordering::Relaxed);
        }
        is_kept
    }

    /// Looks at a file that was just made, with the mode [`NARROW`].
    pub(super) fn learn(&self, fd: BorrowedFd<'_>) -> Option<Birth> {
        *self.first.get_or_init(|| {
            let stat = rustix::fs::fstat(fd).ok()?;
            // Some file systems give the mode that they like.
            let as_asked = stat.st_mode & 0o7777 == NARROW.as_raw_mode();
            (as_asked && attrs::is_bare(&At::Fd(fd))).then_some(Birth {
                uid: stat.st_uid,
                gid: stat.st_gid,
                umask: self.umask,
            })
        })
    }
}

/// The mode bits that this process keeps from new files. Asking the system call for it would change it.
pub(super) fn umask() -> Option<u32> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let octal = status.lines().find_map(|line| line.strip_prefix("Umask:"))?;
    u32::from_str_radix(octal.trim(), 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::tree::{EntryType, Xattr};

    #[test]
    fn a_file_is_made_as_it_is_to_be_only_where_nothing_else_is_to_be_set() {
        let birth = Birth { uid: 7, gid: 8, umask: Some(0o022) };
        let entry = |mode, uid, gid| Entry { mode, uid, gid, ..Entry::bare(b"x", EntryType::File) };
        let raw = |mode: Option<Mode>| mode.map(Mode::as_raw_mode);
        assert_eq!(raw(birth.mode_of(&entry(0o644, 7, 8))), Some(0o644));
        assert_eq!(raw(birth.mode_of(&entry(0o400, 7, 8))), Some(0o400));
        // Taken away by the umask, not given at birth, somebody else's, or with attributes that come later.
        assert_eq!(birth.mode_of(&entry(0o664, 7, 8)), None);
        assert_eq!(birth.mode_of(&entry(0o4755, 7, 8)), None);
        assert_eq!(birth.mode_of(&entry(0o644, 0, 8)), None);
        assert_eq!(birth.mode_of(&entry(0o644, 7, 0)), None);
        let acl = Xattr { name: b"system.posix_acl_access".to_vec().into(), value: vec![2].into() };
        assert_eq!(birth.mode_of(&Entry { xattrs: Some(vec![acl]), ..entry(0o644, 7, 8) }), None);
        assert_eq!(Birth { umask: None, ..birth }.mode_of(&entry(0o644, 7, 8)), None);
        assert!(umask().is_some_and(|umask| umask <= 0o777));
    }
}
