//! Writing one regular file of a restore.

use super::attrs::{self, Standing};
use super::birth::NARROW;
use super::error::{SourceError, SourceErrorKind};
use super::target::{RestoreOptions, TargetDir};
use super::trail::Trail;
use crate::format::tree::{Entry, EntryType};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{FallocateFlags, Mode, OFlags, SeekFrom};
use rustix::io::Errno;
use std::sync::Arc;

/// Zero bytes written at once where a hole cannot be punched.
const ZERO_BYTES: usize = 64 << 10;

/// How files are called that are not whole yet, and how many may be left over in one directory.
const HIDDEN: &str = ".holdfast-restoring-";
const HIDDEN_MAX: u32 = 100;

/// A file of the target, open for reading and writing.
#[derive(Debug)]
pub struct TargetFile {
    fd: OwnedFd,
    trail: Arc<Trail>,
    name: Box<[u8]>,
    existing: Option<u64>,
    shared: bool,
    options: RestoreOptions,
    /// Of a new file: what it was given.
    born: Option<Standing>,
}

type Outcome<T> = Result<T, SourceError>;

const OPEN: OFlags = OFlags::RDWR.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC).union(OFlags::NONBLOCK);

/// A new file, or `None` where something stands.
fn create(dir: &TargetDir, entry: &Entry) -> Outcome<Option<TargetFile>> {
    let known = dir.birth();
    // Nobody else can enter a new directory before it is finished, so that a file in it may have its mode at once.
    let at_once = known.filter(|_| dir.is_new()).and_then(|birth| birth.mode_of(entry));
    let mode = at_once.unwrap_or(NARROW);
    match rustix::fs::openat(dir, &entry.name[..], OPEN | OFlags::CREATE | OFlags::EXCL, mode) {
        Ok(fd) => {
            let birth = known.or_else(|| dir.learn(fd.as_fd()));
            let birth = birth.filter(|_| at_once.is_none() || dir.keeps(fd.as_fd(), mode));
            let born = birth.map(|birth| Standing { owner: birth.owner(), mode });
            Ok(Some(TargetFile { born, ..TargetFile::of(dir, entry, fd) }))
        }
        Err(Errno::EXIST) => Ok(None),
        Err(e) => Err(SourceError::new(&dir.path_of(&entry.name), "create it", e)),
    }
}

impl TargetFile {
    fn of(dir: &TargetDir, entry: &Entry, fd: OwnedFd) -> TargetFile {
        TargetFile {
            fd,
            trail: Arc::clone(&dir.trail),
            name: entry.name[..].into(),
            existing: None,
            shared: false,
            options: dir.options.clone(),
            born: None,
        }
    }

    fn path(&self) -> Vec<u8> {
        self.trail.path_of(&self.name)
    }

    fn failed(&self, action: &str, e: Errno) -> SourceError {
        SourceError::new(&self.path(), action, e)
    }

    /// Opens the regular file of this name for writing, or makes it.
    ///
    /// # Errors
    /// A directory stands in the way, or the kernel refused.
    pub fn open(dir: &TargetDir, entry: &Entry) -> Outcome<TargetFile> {
        dir.allow(&entry.name)?;
        if let Some(made) = create(dir, entry)? {
            return Ok(made);
        }
        let name = &entry.name[..];
        // Opened only if it is a file: opening a device or a fifo has consequences.
        if dir.kind_of(name)? == Some(EntryType::File)
            && let Ok(fd) = rustix::fs::openat(dir, name, OPEN, Mode::empty())
        {
            let stat = rustix::fs::fstat(&fd).map_err(|e| SourceError::new(&dir.path_of(name), "stat it", e))?;
            if attrs::kind_of(&stat) == Some(EntryType::File) {
                let existing = Some(u64::try_from(stat.st_size).unwrap_or(0));
                let shared = stat.st_nlink > 1;
                return Ok(TargetFile { existing, shared, ..TargetFile::of(dir, entry, fd) });
            }
        }
        // Something else, or a file that may not be opened: a new one takes its place.
        TargetFile::replace(dir, entry)
    }

    /// Replaces what has this name by a new, empty file.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn replace(dir: &TargetDir, entry: &Entry) -> Outcome<TargetFile> {
        let path = dir.check(&entry.name)?;
        dir.unlink(&entry.name, &path)?;
        create(dir, entry)?.ok_or_else(|| SourceError::new(&path, "create it", Errno::EXIST))
    }

    /// Makes a new file under a name of its own, beside what may stand at the entry's: it takes that by
    /// [`TargetDir::put_in_place`] once it is whole. With it, the name that it has until then.
    ///
    /// # Errors
    /// The kernel refused, or too many such names are taken.
    pub fn beside(dir: &TargetDir, entry: &Entry) -> Outcome<(TargetFile, Vec<u8>)> {
        let path = dir.check(&entry.name)?;
        for number in 0..HIDDEN_MAX {
            let hidden = Entry::bare(format!("{HIDDEN}{number}").as_bytes(), EntryType::File);
            if let Some(made) = create(dir, &hidden)? {
                return Ok((TargetFile { name: entry.name[..].into(), ..made }, hidden.name.to_vec()));
            }
        }
        let what = format!("too many files {HIDDEN}… stand here, left by restores that were killed: remove them");
        Err(SourceError::other(&path, SourceErrorKind::Unsupported, what))
    }

    /// Brings what was written to the disk.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn sync(&self) -> Outcome<()> {
        rustix::fs::fsync(&self.fd).map_err(|e| self.failed("write it", e))
    }

    /// Makes a file in a directory that this restore made: what stands there now was put there since, and goes.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn create(dir: &TargetDir, entry: &Entry) -> Outcome<TargetFile> {
        dir.allow(&entry.name)?;
        match create(dir, entry)? {
            Some(made) => Ok(made),
            None => TargetFile::replace(dir, entry),
        }
    }

    /// Size of the file that stood there, in bytes; `None` for a new one.
    pub fn existing(&self) -> Option<u64> {
        self.existing
    }

    /// Whether it has other names, perhaps outside the target: then it must be replaced, not written.
    pub fn is_shared(&self) -> bool {
        self.shared
    }

    /// Lets nobody but the owner read it until its own mode is set.
    pub fn narrow(&self) {
        // Who may not change the mode may not widen it later either; that is named then.
        let _ = rustix::fs::fchmod(&self.fd, Mode::RUSR | Mode::WUSR);
    }

    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Outcome<()> {
        let mut done = 0;
        while done < bytes.len() {
            match rustix::io::pwrite(&self.fd, &bytes[done..], offset + done as u64) {
                Ok(n) => done += n,
                Err(Errno::INTR) => {}
                Err(e) => return Err(self.failed("write it", e)),
            }
        }
        Ok(())
    }

    /// Fills `buf` unless the file ends before.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> Outcome<usize> {
        let mut got = 0;
        while got < buf.len() {
            match rustix::io::pread(&self.fd, &mut buf[got..], offset + got as u64) {
                Ok(0) => break,
                Ok(n) => got += n,
                Err(Errno::INTR) => {}
                Err(e) => return Err(self.failed("read it", e)),
            }
        }
        Ok(got)
    }

    /// The next bytes that are stored at or behind `offset`: first, and behind the last; `None` if only holes follow.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn data_from(&self, offset: u64) -> Outcome<Option<(u64, u64)>> {
        let end = |start| match rustix::fs::seek(&self.fd, SeekFrom::Hole(start)) {
            Ok(end) => Ok(Some((start, end))),
            Err(e) => Err(self.failed("look for holes in it", e)),
        };
        match rustix::fs::seek(&self.fd, SeekFrom::Data(offset)) {
            Ok(start) => end(start),
            Err(Errno::NXIO) => Ok(None),
            // No such question on this file system: everything may be data.
            Err(_) => Ok(Some((offset, u64::MAX))),
        }
    }

    /// Whether its metadata are what the entry says.
    pub fn matches(&self, entry: &Entry) -> bool {
        let at = attrs::At::Fd(self.fd.as_fd());
        rustix::fs::fstat(&self.fd).is_ok_and(|stat| attrs::matches(&stat, &at, entry, &self.path(), &self.options))
    }

    /// Cuts or extends; an extension is a hole.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn set_len(&self, len: u64) -> Outcome<()> {
        rustix::fs::ftruncate(&self.fd, len).map_err(|e| self.failed("set its size", e))
    }

    /// Makes a range read as zeros, without blocks where the file system can.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn make_hole(&self, offset: u64, len: u64) -> Outcome<()> {
        if len == 0 {
            return Ok(());
        }
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match rustix::fs::fallocate(&self.fd, flags, offset, len) {
            Ok(()) => Ok(()),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                let zeros = [0; ZERO_BYTES];
                let mut at = 0;
                while at < len {
                    let piece = (len - at).min(ZERO_BYTES as u64);
                    self.write_at(offset + at, &zeros[..piece as usize])?;
                    at += piece;
                }
                Ok(())
            }
            Err(e) => Err(self.failed("make a hole in it", e)),
        }
    }

    /// Applies metadata.
    ///
    /// # Errors
    /// Each thing that could not be applied.
    pub fn finish(&self, entry: &Entry) -> Result<(), Vec<SourceError>> {
        attrs::apply(self.fd.as_fd(), entry, &|| self.path(), &self.options, self.born)
    }
}
