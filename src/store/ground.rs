//! What a folder stands on: the file system, and the space in it.

use rustix::fs::{StatVfsMountFlags, fstatfs, fstatvfs};
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What becomes of what is written there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lasting {
    /// It stays.
    Disk,
    /// It stays, on another machine.
    Network,
    /// It is gone with this machine's memory.
    Memory,
    /// It is gone with the container.
    Container,
}

/// A file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ground {
    /// Its type, or its number where that has no name here.
    pub kind: String,
    /// What becomes of what is written there.
    pub lasting: Lasting,
    /// Bytes that this user may still write.
    pub free_bytes: u64,
    /// Bytes of it all.
    pub total_bytes: u64,
    /// Whether it is mounted read-only.
    pub read_only: bool,
    /// Whether it has hard links, as far as its type says.
    pub links: bool,
    /// Its device.
    pub device: u64,
}

/// The types, by the number that the kernel gives them.
const KINDS: [(i64, &str, Lasting); 16] = [
    (0xef53, "ext4", Lasting::Disk),
    (0x5846_5342, "xfs", Lasting::Disk),
    (0x9123_683e, "btrfs", Lasting::Disk),
    (0x2fc1_2fc1, "zfs", Lasting::Disk),
    (0xf2f5_2010, "f2fs", Lasting::Disk),
    (0x4d44, "fat", Lasting::Disk),
    (0x2011_bab0, "exfat", Lasting::Disk),
    (0x7366_746e, "ntfs", Lasting::Disk),
    (0x0102_1994, "tmpfs", Lasting::Memory),
    (0x8584_58f6, "ramfs", Lasting::Memory),
    (0x794c_7630, "overlay", Lasting::Container),
    (0x6969, "nfs", Lasting::Network),
    (0xff53_4d42, "cifs", Lasting::Network),
    (0xfe53_4d42, "smb", Lasting::Network),
    (0x00c3_6400, "ceph", Lasting::Network),
    (0x6573_5546, "fuse", Lasting::Network),
];

impl Ground {
    pub(super) fn of(folder: &File) -> Option<Ground> {
        let number = fstatfs(folder).ok()?.f_type & 0xffff_ffff;
        let (kind, lasting) = match KINDS.iter().find(|(known, ..)| *known == number) {
            Some((_, kind, lasting)) => ((*kind).to_owned(), *lasting),
            None => (format!("{number:#x}"), Lasting::Disk),
        };
        let space = fstatvfs(folder).ok()?;
        Some(Ground {
            links: !matches!(kind.as_str(), "fat" | "exfat"),
            kind,
            lasting,
            free_bytes: space.f_bavail.saturating_mul(space.f_frsize),
            total_bytes: space.f_blocks.saturating_mul(space.f_frsize),
            read_only: space.f_flag.contains(StatVfsMountFlags::RDONLY),
            device: folder.metadata().ok()?.dev(),
        })
    }

    /// Of a folder that may be missing: of the nearest one above it that is there.
    pub fn below(path: &Path) -> Option<Ground> {
        let path = std::path::absolute(path).ok()?;
        let folder = path.ancestors().find_map(|folder| File::open(folder).ok())?;
        Ground::of(&folder)
    }
}
