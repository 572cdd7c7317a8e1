//! Writing a tree back: nothing is written outside the target, whatever the snapshot says.
//!
//! Every step goes from an open directory to one name in it, never through a symbolic link; a name that is
//! `..` or has a `/` is refused. What stands in the way is replaced, but never followed.

use super::attrs::{self, At, proc_path, unsafe_name, write_xattrs};
use super::birth::{Birth, Births, umask};
use super::error::{SourceError, SourceErrorKind};
use super::trail::Trail;
use crate::base::ConfigNo;
use crate::error::{Error, Kind, Result};
use crate::format::config;
use crate::format::tree::{Entry, EntryType, is_safe_name};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir, RenameFlags};
use rustix::io::Errno;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

/// What is restored beside content, names, modes and times.
#[derive(Debug, Clone)]
pub struct RestoreOptions {
    /// Owners; those of others need privileges.
    pub owners: bool,
    /// Device nodes; needs privileges.
    pub devices: bool,
    /// Extended attributes.
    pub xattrs: bool,
}

impl Default for RestoreOptions {
    fn default() -> Self {
        // All of it is tried by everyone: what the kernel does not allow is named, not left out in silence.
        RestoreOptions { owners: true, devices: true, xattrs: true }
    }
}

/// What became of a special entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Made {
    /// Made anew.
    Created,
    /// It stood there.
    Same,
}

/// Where a restore goes.
#[derive(Debug)]
pub struct Target {
    root: Arc<TargetDir>,
}

impl Target {
    /// Opens the target directory; makes it and its parents where they are missing.
    ///
    /// # Errors
    /// It cannot be made or opened, or is a region of a repository.
    pub fn create(path: &Path, options: RestoreOptions) -> Result<Target> {
        let fail = |e: std::io::Error| {
            let text = e.to_string();
            let text = text.split(" (os error").next().unwrap_or(&text).to_lowercase();
            let kind = if e.kind() == std::io::ErrorKind::StorageFull { Kind::Full } else { Kind::Source };
            Error::new(kind, format!("cannot open the restore target: {text}")).at(path.display())
        };
        std::fs::create_dir_all(path).map_err(fail)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(|e| fail(e.into()))?;
        let trail = Trail::new(path.as_os_str().as_bytes());
        let device = rustix::fs::fstat(&fd).map_err(|e| fail(e.into()))?.st_dev;
        if is_region(&fd) {
            let what = "the restore target is a region of a backup repository";
            return Err(Error::new(Kind::Refused, what).at(path.display()).advise("restore to another directory"));
        }
        let births = Births::new(umask());
        Ok(Target { root: Arc::new(TargetDir { fd, trail, options, device, kept: None, is_new: false, births }) })
    }

    /// The target directory.
    pub fn root(&self) -> Arc<TargetDir> {
        Arc::clone(&self.root)
    }
}

/// A directory in the target.
#[derive(Debug)]
pub struct TargetDir {
    fd: OwnedFd,
    pub(super) trail: Arc<Trail>,
    pub(super) options: RestoreOptions,
    /// File system of the target itself.
    device: u64,
    /// Why nothing in it may be removed.
    kept: Option<&'static str>,
    /// Whether this restore made it: then only what it made stands there.
    is_new: bool,
    /// What new files in it are given.
    births: Arc<Births>,
}

impl AsFd for TargetDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

type Outcome<T> = std::result::Result<T, SourceError>;

const KEPT_REGION: &str = "a region of a backup repository lies here: nothing in it was removed";
const KEPT_MOUNT: &str = "another file system is mounted here: nothing in it was removed";

/// Whether backups are kept there. Judged by what no region is without, so that one with a damaged mark counts too.
fn is_region(dir: impl AsFd) -> bool {
    let kind =
        |name: &str| rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW).ok().and_then(|s| attrs::kind_of(&s));
    kind(&config::key(ConfigNo(1))) == Some(EntryType::File) && kind("keys") == Some(EntryType::Dir)
}

const OPEN_DIR: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

impl TargetDir {
    pub(super) fn path_of(&self, name: &[u8]) -> Vec<u8> {
        self.trail.path_of(name)
    }

    /// The path of a name, which is refused if it would lead elsewhere.
    pub(super) fn check(&self, name: &[u8]) -> Outcome<Vec<u8>> {
        self.allow(name).map(|()| self.path_of(name))
    }

    /// Refuses a name that would lead elsewhere.
    pub(super) fn allow(&self, name: &[u8]) -> Outcome<()> {
        if is_safe_name(name) { Ok(()) } else { Err(unsafe_name(&self.path_of(name))) }
    }

    /// Whether this restore made it, so that nothing can stand in the way of what is restored there.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// What new files in it are given, if that is known.
    pub(super) fn birth(&self) -> Option<Birth> {
        self.births.known()
    }

    /// Whether a file that was just made here has the mode that it was made with.
    pub(super) fn keeps(&self, fd: BorrowedFd<'_>, mode: Mode) -> bool {
        self.births.keeps(fd, mode)
    }

    /// What a file was given that was just made here.
    pub(super) fn learn(&self, fd: BorrowedFd<'_>) -> Option<Birth> {
        self.births.learn(fd)
    }

    /// What stands at a name.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn kind_of(&self, name: &[u8]) -> Outcome<Option<EntryType>> {
        self.allow(name)?;
        match rustix::fs::statat(self, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(attrs::kind_of(&stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(SourceError::new(&self.path_of(name), "stat it", e)),
        }
    }

    /// Opens a directory in it, made where it is missing; anything else in the way is removed.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn enter(&self, name: &[u8]) -> Outcome<Arc<TargetDir>> {
        let path = self.check(name)?;
        let open = || rustix::fs::openat(self, name, OPEN_DIR, Mode::empty());
        let make = || rustix::fs::mkdirat(self, name, Mode::RWXU);
        // Where nothing can stand it is not looked for first.
        let mut is_new = self.is_new && make().is_ok();
        let fd = match open() {
            Ok(fd) => fd,
            Err(e) => {
                if matches!(e, Errno::LOOP | Errno::NOTDIR) {
                    self.unlink(name, &path)?;
                } else if e != Errno::NOENT {
                    return Err(SourceError::new(&path, "open it", e));
                }
                make().map_err(|e| SourceError::new(&path, "make the directory", e))?;
                is_new = true;
                open().map_err(|e| SourceError::new(&path, "open it", e))?
            }
        };
        let kept = self.kept_below(&fd, is_new).map_err(|e| SourceError::new(&path, "stat it", e))?;
        let (trail, options, device) = (self.trail.below(name), self.options.clone(), self.device);
        // What is made in a new directory is given what its parent gives: owners and attributes are inherited.
        let births = if is_new { Arc::clone(&self.births) } else { self.births.elsewhere() };
        Ok(Arc::new(TargetDir { fd, trail, options, device, kept, is_new, births }))
    }

    fn kept_below(&self, fd: &OwnedFd, is_new: bool) -> std::result::Result<Option<&'static str>, Errno> {
        if self.kept.is_some() {
            return Ok(self.kept);
        }
        let other = rustix::fs::fstat(fd)?.st_dev != self.device;
        Ok(if other { Some(KEPT_MOUNT) } else { (!is_new && is_region(fd)).then_some(KEPT_REGION) })
    }

    /// Why nothing in it may be removed, not even by `--delete`: the backups themselves would go with it, or
    /// what a snapshot shows as an empty directory because it ends at file systems.
    pub fn kept(&self) -> Option<&'static str> {
        self.kept
    }

    fn removable(&self) -> Outcome<()> {
        let refuse = |why| Err(SourceError::other(&self.trail.path(), SourceErrorKind::Unsupported, why));
        self.kept.map_or(Ok(()), refuse)
    }

    /// Removes anything but a directory; nothing there is fine.
    pub(super) fn unlink(&self, name: &[u8], path: &[u8]) -> Outcome<()> {
        match rustix::fs::unlinkat(self, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(Errno::ISDIR | Errno::PERM) if self.kind_of(name)? == Some(EntryType::Dir) => Err(SourceError::other(
                path,
                SourceErrorKind::Unsupported,
                "a directory stands in the way; remove it or restore with --delete",
            )),
            Err(e) => Err(SourceError::new(path, "remove what stands in the way", e)),
        }
    }

    /// The names in it.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn names(&self) -> Outcome<Vec<Vec<u8>>> {
        let fail = |e| SourceError::new(&self.trail.path(), "list it", e);
        rustix::fs::seek(self, rustix::fs::SeekFrom::Start(0)).map_err(fail)?;
        let mut buf = [MaybeUninit::uninit(); 32 << 10];
        let mut raw = RawDir::new(self, &mut buf);
        let mut found = Vec::new();
        while let Some(entry) = raw.next() {
            let entry = entry.map_err(fail)?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                found.push(name.to_vec());
            }
        }
        Ok(found)
    }

    /// Gives a finished file its name. What stands there goes only with leave, and is whole until the file is there.
    ///
    /// # Errors
    /// Something stands there and may not be replaced, or is a directory; the kernel refused.
    pub fn put_in_place(&self, hidden: &[u8], name: &[u8], replace: bool) -> Outcome<()> {
        let path = self.check(name)?;
        self.allow(hidden)?;
        let failed = |e| SourceError::new(&path, "give it its name", e);
        let plain = || rustix::fs::renameat(self, hidden, self, name).map_err(failed);
        if replace {
            return plain();
        }
        match rustix::fs::renameat_with(self, hidden, self, name, RenameFlags::NOREPLACE) {
            // A file system without that question is asked before.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => match self.kind_of(name)? {
                None => plain(),
                Some(_) => Err(failed(Errno::EXIST)),
            },
            done => done.map_err(failed),
        }
    }

    /// Removes an entry with everything below it, following nothing.
    ///
    /// # Errors
    /// The kernel refused, or a directory in it is [kept](TargetDir::kept).
    pub fn remove_all(&self, name: &[u8]) -> Outcome<()> {
        let path = self.check(name)?;
        if self.kind_of(name)? != Some(EntryType::Dir) {
            return self.unlink(name, &path);
        }
        // Depth first with a stack of our own: trees may be deeper than any call stack.
        type Level = (Arc<TargetDir>, Vec<Vec<u8>>, Vec<u8>);
        let mut open: Vec<Level> = Vec::new();
        let top = self.enter(name)?;
        top.removable()?;
        let names = top.names()?;
        open.push((top, names, name.to_vec()));
        while let Some((dir, names, own)) = open.last_mut() {
            match names.pop() {
                Some(child) if dir.kind_of(&child)? == Some(EntryType::Dir) => {
                    let below = dir.enter(&child)?;
                    below.removable()?;
                    let names = below.names()?;
                    open.push((below, names, child));
                }
                Some(child) => dir.unlink(&child, &dir.path_of(&child))?,
                None => {
                    let (own, path) = (std::mem::take(own), dir.trail.path());
                    open.pop();
                    let parent = open.last().map_or(self, |(dir, ..)| dir);
                    rustix::fs::unlinkat(parent, &own[..], AtFlags::REMOVEDIR)
                        .map_err(|e| SourceError::new(&path, "remove the directory", e))?;
                }
            }
        }
        Ok(())
    }

    /// Applies a directory's metadata, after everything in it was written.
    ///
    /// # Errors
    /// Each thing that could not be applied.
    pub fn finish(&self, entry: &Entry) -> std::result::Result<(), Vec<SourceError>> {
        attrs::apply(self.fd.as_fd(), entry, &|| self.trail.path(), &self.options, None)
    }

    /// Gives `from_name` of `from` a further name here.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn link(&self, name: &[u8], from: &TargetDir, from_name: &[u8]) -> Outcome<()> {
        let path = self.check(name)?;
        from.check(from_name)?;
        let inode = |dir: &TargetDir, name: &[u8]| {
            rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).map(|s| (s.st_dev, s.st_ino))
        };
        let source = inode(from, from_name).map_err(|e| SourceError::new(&path, "link it to its first name", e))?;
        match inode(self, name) {
            Ok(there) if there == source => return Ok(()),
            Ok(_) => self.unlink(name, &path)?,
            Err(_) => {}
        }
        rustix::fs::linkat(from, from_name, self, name, AtFlags::empty())
            .map_err(|e| SourceError::new(&path, "link it to its first name", e))
    }

    /// Makes a symbolic link, fifo, socket or device.
    ///
    /// # Errors
    /// Everything that could not be made or applied.
    pub fn special(&self, entry: &Entry) -> std::result::Result<Made, Vec<SourceError>> {
        let path = self.check(&entry.name).map_err(|e| vec![e])?;
        let made = match self.stands(entry) && self.is_ours(entry, &path) {
            true => Made::Same,
            false => {
                self.check_device(entry, &path).map_err(|e| vec![e])?;
                self.unlink(&entry.name, &path).map_err(|e| vec![e])?;
                self.make(entry, &path).map_err(|e| vec![e])?;
                Made::Created
            }
        };
        self.special_metadata(entry, &path).map(|()| made)
    }

    /// Whether changing what stands there changes nothing outside: it has no other name, or nothing is to change.
    fn is_ours(&self, entry: &Entry, path: &[u8]) -> bool {
        let at = At::Link(proc_path(self), &entry.name);
        rustix::fs::statat(self, &entry.name[..], AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| stat.st_nlink < 2 || attrs::matches(&stat, &at, entry, path, &self.options))
    }

    /// Whether the same thing stands there.
    pub fn stands(&self, entry: &Entry) -> bool {
        let Ok(stat) = rustix::fs::statat(self, &entry.name[..], AtFlags::SYMLINK_NOFOLLOW) else { return false };
        if attrs::kind_of(&stat) != Some(entry.kind) {
            return false;
        }
        match entry.kind {
            EntryType::Symlink => rustix::fs::readlinkat(self, &entry.name[..], Vec::new())
                .is_ok_and(|target| Some(target.as_bytes()) == entry.target.as_ref().map(|t| &t[..])),
            EntryType::CharDevice | EntryType::BlockDevice => {
                let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
                (Some(major), Some(minor)) == (entry.rdev_major, entry.rdev_minor)
            }
            _ => true,
        }
    }

    /// Before anything is removed for it: device nodes only with leave.
    fn check_device(&self, entry: &Entry, path: &[u8]) -> Outcome<()> {
        if self.options.devices || !matches!(entry.kind, EntryType::CharDevice | EntryType::BlockDevice) {
            return Ok(());
        }
        let what = "device node not restored, as asked";
        Err(SourceError::other(path, SourceErrorKind::Unsupported, what))
    }

    fn make(&self, entry: &Entry, path: &[u8]) -> Outcome<()> {
        let name = &entry.name[..];
        let node = |kind, dev| rustix::fs::mknodat(self, name, kind, Mode::from_raw_mode(0o600), dev);
        let done = match entry.kind {
            EntryType::Symlink => {
                let target: &[u8] = entry.target.as_ref().map_or(&[], |t| &t[..]);
                rustix::fs::symlinkat(target, self, name)
            }
            EntryType::Fifo => node(FileType::Fifo, 0),
            EntryType::Socket => node(FileType::Socket, 0),
            EntryType::CharDevice | EntryType::BlockDevice => {
                let dev = rustix::fs::makedev(entry.rdev_major.unwrap_or(0), entry.rdev_minor.unwrap_or(0));
                let char_device = entry.kind == EntryType::CharDevice;
                node(if char_device { FileType::CharacterDevice } else { FileType::BlockDevice }, dev)
            }
            EntryType::File | EntryType::Dir => Err(Errno::INVAL),
        };
        done.map_err(|e| SourceError::new(path, "make it", e))
    }

    /// Metadata of what cannot be opened without consequences: by name, not following a link.
    fn special_metadata(&self, entry: &Entry, path: &[u8]) -> std::result::Result<(), Vec<SourceError>> {
        let mut errors = Vec::new();
        let name = &entry.name[..];
        let now = rustix::fs::statat(self, name, AtFlags::SYMLINK_NOFOLLOW).map(|stat| (stat.st_uid, stat.st_gid)).ok();
        let set = |uid, gid| rustix::fs::chownat(self, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW);
        let owned = attrs::own(now, entry, &|| path.to_vec(), &self.options, set, &mut errors);
        if entry.kind != EntryType::Symlink {
            // Between making it and this nobody else writes to the target; a link swapped in would be refused
            // by the kernel only with fchmodat2, so the mode is set through a descriptor that cannot be a link.
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mode = attrs::mode_for(entry, owned, &|| path.to_vec(), &mut errors);
            let done = rustix::fs::openat(self, name, flags, Mode::empty()).and_then(|fd| {
                let stat = rustix::fs::fstat(&fd)?;
                if attrs::kind_of(&stat) == Some(EntryType::Symlink) {
                    return Err(Errno::LOOP);
                }
                rustix::fs::chmod(proc_path(&fd), mode)
            });
            if let Err(e) = done {
                errors.push(SourceError::new(path, "set its mode", e));
            }
        }
        if self.options.xattrs {
            write_xattrs(&At::Link(proc_path(self), name), entry, path, &mut errors);
        }
        let done = rustix::fs::utimensat(self, name, &attrs::times(entry), AtFlags::SYMLINK_NOFOLLOW);
        if let Err(e) = done {
            errors.push(SourceError::new(path, "set its times", e));
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }
}
