//! Reading one regular file.

use super::attrs::{self, At};
use super::error::{SourceError, SourceErrorKind};
use super::walk::DirHandle;
use crate::format::tree::{Entry, EntryType, Xattr};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Advice, Mode, OFlags, SeekFrom, Stat};
use rustix::io::Errno;

/// What tells whether a file changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Size, bytes.
    pub size: u64,
    mtime: (i64, u32),
    ctime: (i64, u32),
    inode: u64,
}

impl Stamp {
    /// What the entry says.
    pub fn of(entry: &Entry) -> Stamp {
        Stamp {
            size: entry.size(),
            mtime: (entry.mtime_s, entry.mtime_ns),
            ctime: (entry.ctime_s, entry.ctime_ns),
            inode: entry.inode,
        }
    }
}

/// A part of a file. Offsets in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// Bytes are stored.
    Data {
        /// First.
        start: u64,
        /// Behind the last.
        end: u64,
    },
    /// Nothing is stored: reads as zeros.
    Hole {
        /// First.
        start: u64,
        /// Behind the last.
        end: u64,
    },
    /// Nothing further.
    End,
}

/// An open regular file.
#[derive(Debug)]
pub struct SourceFile {
    fd: OwnedFd,
    path: Vec<u8>,
    sparse: bool,
}

/// Opens a file of a directory without following links and, where that is allowed, without touching its
/// access time.
///
/// # Errors
/// Gone, refused, or no regular file any more.
pub fn open(dir: &DirHandle, entry: &Entry) -> Result<SourceFile, SourceError> {
    let path = dir.path_of(&entry.name);
    // O_NONBLOCK: a fifo swapped in must not block.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let open = |flags| rustix::fs::openat(dir, &entry.name[..], flags, Mode::empty());
    let fd = match open(flags | OFlags::NOATIME) {
        Err(Errno::PERM) => open(flags),
        other => other,
    }
    .map_err(|e| SourceError::new(&path, "open it", e))?;
    let stat = rustix::fs::fstat(&fd).map_err(|e| SourceError::new(&path, "stat it", e))?;
    if attrs::kind_of(&stat) != Some(EntryType::File) {
        return Err(SourceError::other(&path, SourceErrorKind::Changed, "is no regular file any more"));
    }
    let sparse = stat.st_blocks.saturating_mul(512) < stat.st_size;
    Ok(SourceFile { fd, path, sparse })
}

impl SourceFile {
    /// Its path, for messages.
    pub fn path(&self) -> Vec<u8> {
        self.path.clone()
    }

    fn stat(&self) -> Result<Stat, SourceError> {
        rustix::fs::fstat(&self.fd).map_err(|e| SourceError::new(&self.path, "stat it", e))
    }

    /// As it is now.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn stamp(&self) -> Result<Stamp, SourceError> {
        let mut entry = Entry::bare(b"", EntryType::File);
        attrs::fill(&mut entry, &self.stat()?);
        Ok(Stamp::of(&entry))
    }

    /// Brings the entry's metadata up to date.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn apply(&self, entry: &mut Entry) -> Result<(), SourceError> {
        attrs::fill(entry, &self.stat()?);
        Ok(())
    }

    /// Whether it has fewer blocks than bytes.
    pub fn is_sparse(&self) -> bool {
        self.sparse
    }

    /// Fills `buf` from `offset`, unless the file ends before; returns how much.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize, SourceError> {
        self.read_until(offset, buf, buf.len())
    }

    /// Reads `enough` bytes from `offset`, unless the file ends before; more, up to the whole of `buf`, if they come
    /// along. Returns how much.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn read_until(&self, offset: u64, buf: &mut [u8], enough: usize) -> Result<usize, SourceError> {
        let mut got = 0;
        while got < enough.min(buf.len()) {
            match rustix::io::pread(&self.fd, &mut buf[got..], offset + got as u64) {
                Ok(0) => break,
                Ok(n) => got += n,
                Err(Errno::INTR) => {}
                Err(e) => return Err(SourceError::new(&self.path, "read it", e)),
            }
        }
        Ok(got)
    }

    /// What lies at `offset`.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn extent(&self, offset: u64) -> Result<Extent, SourceError> {
        let seek = |from| rustix::fs::seek(&self.fd, from);
        let fail = |e| SourceError::new(&self.path, "look for holes in it", e);
        match seek(SeekFrom::Data(offset)) {
            Ok(start) if start > offset => Ok(Extent::Hole { start: offset, end: start }),
            Ok(start) => {
                match seek(SeekFrom::Hole(start)) {
                    Ok(end) => Ok(Extent::Data { start, end }),
                    // Cut off meanwhile: reading will show where it ends.
                    Err(Errno::NXIO) => Ok(Extent::Data { start, end: u64::MAX }),
                    Err(e) => Err(fail(e)),
                }
            }
            Err(Errno::NXIO) => {
                let size = u64::try_from(self.stat()?.st_size).unwrap_or(0);
                Ok(if offset < size { Extent::Hole { start: offset, end: size } } else { Extent::End })
            }
            Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(Extent::Data { start: offset, end: u64::MAX }),
            Err(e) => Err(fail(e)),
        }
    }

    /// Its extended attributes, sorted.
    ///
    /// # Errors
    /// One of them cannot be read.
    pub fn xattrs(&self) -> Result<Vec<Xattr>, SourceError> {
        attrs::read_xattrs(&At::Fd(self.fd.as_fd()), &self.path)
    }

    /// Tells the kernel that it will be read from front to back.
    pub fn advise_sequential(&self) {
        // Advice: whatever the answer, reading works.
        let _ = rustix::fs::fadvise(&self.fd, 0, None, Advice::Sequential);
    }
}
