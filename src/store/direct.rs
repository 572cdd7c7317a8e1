//! Reads of objects in a folder, straight into the caller's memory: a buffer that is used again costs neither fresh
//! pages nor zeroes, which took as long as reading from a page cache itself.

use super::error::StoreError;
use super::key::Key;
use rustix::fs::{FileType, Mode, OFlags, fstat, openat};
use rustix::io::{Errno, pread, retry_on_intr};
use std::fs::File;
use std::os::fd::OwnedFd;

/// An object that is open, and its size in bytes. A pipe that stands where an object should be must not be waited for.
fn open(folder: &File, key: &Key, action: &'static str) -> Result<(OwnedFd, u64), StoreError> {
    let path = key.path();
    let fail = |errno: Errno| match errno {
        Errno::NXIO => StoreError::no_file(&path),
        errno => StoreError::io(action, &path, &errno.into()),
    };
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = retry_on_intr(|| openat(folder, path.as_str(), flags, Mode::empty())).map_err(fail)?;
    let stat = fstat(&file).map_err(fail)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(StoreError::no_file(&path));
    }
    Ok((file, u64::try_from(stat.st_size).unwrap_or(0)))
}

/// Size of an object, in bytes.
pub(super) fn size(folder: &File, key: &Key) -> Result<u64, StoreError> {
    open(folder, key, "stat").map(|(_, size)| size)
}

/// The first `len` bytes of a buffer, which grows if it must and never shrinks.
pub(super) fn room(buffer: &mut Vec<u8>, len: u64) -> Option<&mut [u8]> {
    let len = usize::try_from(len).ok()?;
    if buffer.len() < len {
        // Nothing that is there is wanted: a move to a larger place must not copy it.
        if buffer.capacity() < len {
            *buffer = Vec::new();
        }
        buffer.resize(len, 0);
    }
    buffer.get_mut(..len)
}

/// The whole object, if it has at most `len_max` bytes.
pub(super) fn get<'b>(
    folder: &File,
    key: &Key,
    len_max: u64,
    buffer: &'b mut Vec<u8>,
) -> Result<&'b mut [u8], StoreError> {
    let (file, size) = open(folder, key, "read")?;
    if size > len_max {
        return Err(StoreError::too_long(&key.path()));
    }
    fill(&file, key, 0, size, buffer)
}

/// `len` bytes from `offset`.
pub(super) fn get_range<'b>(
    folder: &File,
    key: &Key,
    offset: u64,
    len: u64,
    buffer: &'b mut Vec<u8>,
) -> Result<&'b mut [u8], StoreError> {
    let (file, size) = open(folder, key, "read")?;
    // Asked before any memory is taken for it.
    if offset.checked_add(len).is_none_or(|end| end > size) {
        return Err(StoreError::short(&key.path()));
    }
    fill(&file, key, offset, len, buffer)
}

fn fill<'b>(
    file: &OwnedFd,
    key: &Key,
    offset: u64,
    len: u64,
    buffer: &'b mut Vec<u8>,
) -> Result<&'b mut [u8], StoreError> {
    let out = room(buffer, len).ok_or_else(|| StoreError::too_long(&key.path()))?;
    let mut done = 0;
    while done < out.len() {
        let rest = out.get_mut(done..).unwrap_or_default();
        match retry_on_intr(|| pread(file, &mut *rest, offset.saturating_add(done as u64))) {
            Ok(0) => return Err(StoreError::short(&key.path())),
            Ok(count) => done += count,
            Err(errno) => return Err(StoreError::io("read", &key.path(), &errno.into())),
        }
    }
    Ok(out)
}
