//! Metadata of entries: from `stat` to [`Entry`] and back, extended attributes by descriptor.

use super::RestoreOptions;
use super::error::{SourceError, SourceErrorKind};
use crate::format::tree::{Entry, EntryType, Xattr};
use rustix::fd::{AsFd, AsRawFd};
use rustix::fs::{FileType, Gid, Mode, Stat, Uid, XattrFlags};
use rustix::io::Errno;

/// An attribute of the security module belongs to the system, not to the file.
const NEVER_REMOVED: &[u8] = b"security.selinux";
/// The mode bits by which a program runs as its owner.
const SET_ID: u32 = 0o6000;
/// The longest list of names that the kernel has.
const NAMES_BYTES_MAX: usize = 64 << 10;

pub(super) fn kind_of(stat: &Stat) -> Option<EntryType> {
    Some(match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => EntryType::File,
        FileType::Directory => EntryType::Dir,
        FileType::Symlink => EntryType::Symlink,
        FileType::Fifo => EntryType::Fifo,
        FileType::Socket => EntryType::Socket,
        FileType::CharacterDevice => EntryType::CharDevice,
        FileType::BlockDevice => EntryType::BlockDevice,
        FileType::Unknown => return None,
    })
}

/// Fills everything that `stat` knows.
pub(super) fn fill(entry: &mut Entry, stat: &Stat) {
    entry.mode = stat.st_mode & 0o7777;
    entry.uid = stat.st_uid;
    entry.gid = stat.st_gid;
    entry.mtime_s = stat.st_mtime;
    entry.mtime_ns = stat.st_mtime_nsec as u32;
    entry.ctime_s = stat.st_ctime;
    entry.ctime_ns = stat.st_ctime_nsec as u32;
    entry.inode = stat.st_ino;
    #[cfg(feature = "testing")]
    super::testing::settle(entry);
    let linked = entry.kind != EntryType::Dir && stat.st_nlink > 1;
    entry.nlink = linked.then_some(stat.st_nlink);
    entry.dev = linked.then_some(stat.st_dev);
    entry.size = (entry.kind == EntryType::File).then_some(u64::try_from(stat.st_size).unwrap_or(0));
    let device = matches!(entry.kind, EntryType::CharDevice | EntryType::BlockDevice);
    entry.rdev_major = device.then(|| rustix::fs::major(stat.st_rdev));
    entry.rdev_minor = device.then(|| rustix::fs::minor(stat.st_rdev));
}

/// A path that names an open descriptor, also of a symlink opened with `O_PATH`.
pub(super) fn proc_path(fd: impl AsFd) -> String {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())
}

/// Where attributes are read and written.
pub(super) enum At<'f> {
    Fd(rustix::fd::BorrowedFd<'f>),
    /// Not following a last symlink: a name below a directory's `/proc` path.
    Link(String, &'f [u8]),
}

impl At<'_> {
    fn path(dir: &str, name: &[u8]) -> Vec<u8> {
        [dir.as_bytes(), b"/", name].concat()
    }

    fn list(&self, buf: &mut [u8]) -> Result<usize, Errno> {
        match self {
            At::Fd(fd) => rustix::fs::flistxattr(fd, buf),
            At::Link(dir, name) => rustix::fs::llistxattr(Self::path(dir, name), buf),
        }
    }

    fn get(&self, attr: &[u8], buf: &mut Vec<u8>) -> Result<usize, Errno> {
        buf.clear();
        buf.resize(64 << 10, 0);
        match self {
            At::Fd(fd) => rustix::fs::fgetxattr(fd, attr, &mut buf[..]),
            At::Link(dir, name) => rustix::fs::lgetxattr(Self::path(dir, name), attr, &mut buf[..]),
        }
    }

    fn set(&self, attr: &[u8], value: &[u8]) -> Result<(), Errno> {
        match self {
            At::Fd(fd) => rustix::fs::fsetxattr(fd, attr, value, XattrFlags::empty()),
            At::Link(dir, name) => rustix::fs::lsetxattr(Self::path(dir, name), attr, value, XattrFlags::empty()),
        }
    }

    fn remove(&self, attr: &[u8]) -> Result<(), Errno> {
        match self {
            At::Fd(fd) => rustix::fs::fremovexattr(fd, attr),
            At::Link(dir, name) => rustix::fs::lremovexattr(Self::path(dir, name), attr),
        }
    }

    fn names(&self) -> Result<Vec<Vec<u8>>, Errno> {
        let split = |names: &[u8]| names.split(|b| *b == 0).filter(|n| !n.is_empty()).map(<[u8]>::to_vec).collect();
        // Most files have none or few. A length of nothing is not asked for: an empty buffer is answered by "none".
        let mut few = [0; 256];
        match self.list(&mut few) {
            Ok(len) => Ok(split(&few[..len])),
            Err(Errno::RANGE) => {
                let mut many = vec![0; NAMES_BYTES_MAX];
                self.list(&mut many).map(|len| split(&many[..len]))
            }
            Err(Errno::OPNOTSUPP) => Ok(Vec::new()),
            Err(e) => Err(e),
        }
    }
}

/// All attributes, sorted by name.
pub(super) fn read_xattrs(at: &At<'_>, path: &[u8]) -> Result<Vec<Xattr>, SourceError> {
    let names = at.names().map_err(|e| SourceError::new(path, "list its attributes", e))?;
    let mut found = Vec::with_capacity(names.len());
    let mut buf = Vec::new();
    for name in names {
        match at.get(&name, &mut buf) {
            Ok(len) => found.push(Xattr { name: name.into(), value: buf[..len].to_vec().into() }),
            // Removed since the listing.
            Err(Errno::NODATA) => {}
            Err(e) => {
                let action = format!("read its attribute {}", String::from_utf8_lossy(&name));
                return Err(SourceError::new(path, &action, e));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Whether it has no attributes but those that are the system's own.
pub(super) fn is_bare(at: &At<'_>) -> bool {
    at.names().is_ok_and(|names| names.iter().all(|name| name == NEVER_REMOVED))
}

/// Makes the attributes what the entry says.
pub(super) fn write_xattrs(at: &At<'_>, entry: &Entry, path: &[u8], errors: &mut Vec<SourceError>) {
    let wanted = entry.xattrs.as_deref().unwrap_or_default();
    for xattr in wanted {
        if let Err(e) = at.set(&xattr.name, &xattr.value) {
            let action = format!("set its attribute {}", String::from_utf8_lossy(&xattr.name));
            errors.push(SourceError::new(path, &action, e));
        }
    }
    for name in at.names().unwrap_or_default() {
        let keep = name == NEVER_REMOVED || wanted.iter().any(|x| x.name[..] == name[..]);
        if !keep && let Err(e) = at.remove(&name) {
            let action = format!("remove the attribute {}", String::from_utf8_lossy(&name));
            errors.push(SourceError::new(path, &action, e));
        }
    }
}

/// Times of an entry for `utimensat`: access time is left alone.
pub(super) fn times(entry: &Entry) -> rustix::fs::Timestamps {
    rustix::fs::Timestamps {
        last_access: rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT },
        last_modification: rustix::fs::Timespec {
            tv_sec: entry.mtime_s,
            tv_nsec: i64::from(entry.mtime_ns.min(999_999_999)),
        },
    }
}

/// What is known of a file that was just made, so that it need not be asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Standing {
    /// User and group. It has no attributes.
    pub(super) owner: (u32, u32),
    /// Mode.
    pub(super) mode: Mode,
}

/// Applies owner, mode, attributes and times, in an order in which none undoes another. What is right already is left.
pub(super) fn apply(
    fd: rustix::fd::BorrowedFd<'_>,
    entry: &Entry,
    path: &dyn Fn() -> Vec<u8>,
    options: &RestoreOptions,
    known: Option<Standing>,
) -> Result<(), Vec<SourceError>> {
    let mut errors = Vec::new();
    let set = |uid, gid| rustix::fs::fchown(fd, uid, gid);
    let asked = || rustix::fs::fstat(fd).map(|stat| (stat.st_uid, stat.st_gid)).ok();
    let owner = known.map(|known| known.owner).or_else(asked);
    let owned = own(owner, entry, path, options, set, &mut errors);
    let mode = mode_for(entry, owned, path, &mut errors);
    // A new owner may have taken mode bits away.
    let stands = known.is_some_and(|known| known.mode == mode && known.owner == (entry.uid, entry.gid));
    if !stands && let Err(e) = rustix::fs::fchmod(fd, mode) {
        errors.push(SourceError::new(&path(), "set its mode", e));
    }
    let bare = known.is_some() && entry.xattrs.as_deref().is_none_or(<[_]>::is_empty);
    if options.xattrs && !bare {
        write_xattrs(&At::Fd(fd), entry, &path(), &mut errors);
    }
    if let Err(e) = rustix::fs::futimens(fd, &times(entry)) {
        errors.push(SourceError::new(&path(), "set its times", e));
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

/// Gives it to its owner, where that is asked for; whether it is its owner's then. What is right already is not
/// touched, so that someone without privileges can restore what is his own.
pub(super) fn own(
    now: Option<(u32, u32)>,
    entry: &Entry,
    path: &dyn Fn() -> Vec<u8>,
    options: &RestoreOptions,
    set: impl FnOnce(Option<Uid>, Option<Gid>) -> Result<(), Errno>,
    errors: &mut Vec<SourceError>,
) -> bool {
    if now == Some((entry.uid, entry.gid)) {
        return true;
    }
    if !options.owners {
        return false;
    }
    // The largest number means "leave it" to the kernel, and belongs to nobody.
    let done = match entry.uid == u32::MAX || entry.gid == u32::MAX {
        true => Err(Errno::INVAL),
        false => set(Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid))),
    };
    if let Err(e) = done {
        errors.push(SourceError::new(&path(), &format!("give it to {}:{}", entry.uid, entry.gid), e));
    }
    done.is_ok()
}

/// Its mode. A program that runs as its owner must not come to run as whoever restores it.
pub(super) fn mode_for(entry: &Entry, owned: bool, path: &dyn Fn() -> Vec<u8>, errors: &mut Vec<SourceError>) -> Mode {
    let mode = entry.mode & 0o7777;
    if owned || entry.kind == EntryType::Dir || mode & SET_ID == 0 {
        return Mode::from_raw_mode(mode);
    }
    let what = "restored without set-user-id and set-group-id, because it is not its owner's";
    errors.push(SourceError::other(&path(), SourceErrorKind::Unsupported, what));
    Mode::from_raw_mode(mode & !SET_ID)
}

/// Whether nothing that a restore would apply differs.
pub(super) fn matches(stat: &Stat, at: &At<'_>, entry: &Entry, path: &[u8], options: &RestoreOptions) -> bool {
    let mut there = Entry::bare(&entry.name, entry.kind);
    fill(&mut there, stat);
    let xattrs = || read_xattrs(at, path).is_ok_and(|found| found[..] == *entry.xattrs.as_deref().unwrap_or_default());
    (there.mode == entry.mode || entry.kind == EntryType::Symlink)
        && (!options.owners || (there.uid, there.gid) == (entry.uid, entry.gid))
        && (there.mtime_s, there.mtime_ns) == (entry.mtime_s, entry.mtime_ns)
        && (!options.xattrs || xattrs())
}

pub(super) fn unsafe_name(path: &[u8]) -> SourceError {
    SourceError::other(path, SourceErrorKind::Unsupported, "refused: a name that would lead out of its directory")
}
