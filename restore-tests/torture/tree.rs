//! A tree with everything that a file system can hold. Built below descriptors, because parts of it have paths
//! that no path argument can name.

use crate::harness::noise;
use rustix::fd::OwnedFd;
use rustix::fs::{self, AtFlags, CWD, FileType, Mode, OFlags, Timespec, Timestamps, XattrFlags};
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// A time before 1970 and one after 2038, with nanoseconds.
pub const LONG_AGO: (i64, i64) = (-631_152_000, 123_456_789);
pub const FAR_AHEAD: (i64, i64) = (4_102_444_800, 999_999_999);

/// Names that something on the way could misread.
pub fn hard_names() -> Vec<Vec<u8>> {
    let mut names: Vec<Vec<u8>> = [
        &b"\xff\xfe not utf-8 \x80"[..],
        b"new\nline",
        b"tab\tbell\x07escape\x1b[31m",
        b"-rf",
        b"--help",
        b" leading and trailing ",
        b"...",
        b"*",
        b"?[a-z]{x,y}",
        b"!not",
        b"#comment",
        b"a\\b",
        b"\\n",
        b"colon:in:it",
        b"'quote\"`$HOME",
        "ünï-\u{202e}cödé".as_bytes(),
        b"\x01",
        b"~",
    ]
    .iter()
    .map(|n| n.to_vec())
    .collect();
    names.push(vec![b'n'; 255]);
    names.push(vec![0xee; 255]);
    names
}

/// The path of a name below a directory.
pub fn below(dir: &Path, name: &[u8]) -> PathBuf {
    dir.join(OsStr::from_bytes(name))
}

/// Sets modification and access time of a name, not following a link.
pub fn stamp(path: &Path, (s, ns): (i64, i64)) {
    let time = Timespec { tv_sec: s, tv_nsec: ns };
    let times = Timestamps { last_access: time, last_modification: time };
    fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).expect("times");
}

fn node(path: &Path, kind: FileType, dev: u64) {
    fs::mknodat(CWD, path, kind, Mode::from_raw_mode(0o640), dev).expect("node");
}

/// Sets an extended attribute of a name, not following a link.
pub fn attribute(path: &Path, name: &str, value: &[u8]) {
    fs::lsetxattr(path, name, value, XattrFlags::empty()).unwrap_or_else(|e| panic!("{name} of {path:?}: {e}"));
}

/// A POSIX ACL as the kernel stores it: owner, user 5, group, mask, others.
pub fn acl(user_5: u8) -> Vec<u8> {
    let mut out = 2u32.to_le_bytes().to_vec();
    let all = u32::MAX;
    for (tag, permissions, id) in [(1u16, 6, all), (2, user_5, 5), (4, 4, all), (16, 7, all), (32, 0, all)] {
        out.extend_from_slice(&tag.to_le_bytes());
        out.extend_from_slice(&u16::from(permissions).to_le_bytes());
        out.extend_from_slice(&id.to_le_bytes());
    }
    out
}

/// `cap_net_raw` as the kernel stores it.
fn capability() -> Vec<u8> {
    let mut out = 0x0200_0001u32.to_le_bytes().to_vec();
    out.extend_from_slice(&(1u32 << 13).to_le_bytes());
    out.resize(20, 0);
    out
}

/// Everything.
pub fn build(root: &Path) {
    std::fs::create_dir_all(root).expect("root");
    names(&root.join("names"));
    deep(&root.join("deep"), 26, 200);
    links(&root.join("links"));
    sparse(&root.join("sparse"));
    kinds(&root.join("kinds"));
    attributes(&root.join("attributes"));
    owners(&root.join("owners"));
    content(&root.join("content"));
    times(&root.join("times"));
    stamp(root, (1_000_000_000, 1));
}

fn names(dir: &Path) {
    std::fs::create_dir(dir).expect("directory");
    for (n, name) in hard_names().into_iter().enumerate() {
        let path = below(dir, &name);
        match n % 3 {
            0 => std::fs::write(&path, &name).expect("file"),
            1 => {
                std::fs::create_dir(&path).expect("directory");
                std::fs::write(below(&path, &name), b"same name again").expect("file");
            }
            _ => symlink(OsStr::from_bytes(&name), &path).expect("link"),
        }
    }
}

/// Directories in each other, a file at the bottom.
pub fn deep(dir: &Path, levels: usize, name_len: usize) {
    std::fs::create_dir(dir).expect("directory");
    let open = |at: &OwnedFd, name: &[u8]| {
        fs::openat(at, name, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).expect("open")
    };
    let mut at = fs::openat(CWD, dir, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).expect("open");
    for level in 0..levels {
        let name = vec![b'a' + (level % 26) as u8; name_len];
        fs::mkdirat(&at, &name[..], Mode::RWXU).expect("directory");
        at = open(&at, &name);
    }
    let flags = OFlags::CREATE | OFlags::WRONLY;
    let file = fs::openat(&at, "bottom", flags, Mode::RUSR | Mode::WUSR).expect("file");
    rustix::io::write(&file, b"far from home").expect("write");
    fs::symlinkat("../bottom", &at, "up").expect("link");
}

fn links(dir: &Path) {
    for name in ["one", "two/deeper", "zero"] {
        std::fs::create_dir_all(dir.join(name)).expect("directory");
    }
    let first = |name: &str| dir.join("one").join(name);
    std::fs::write(first("small"), b"small").expect("file");
    std::fs::write(first("big"), noise(7, 700_000)).expect("file");
    std::fs::write(first("nothing"), b"").expect("file");
    symlink("small", first("symlink")).expect("link");
    node(&first("fifo"), FileType::Fifo, 0);
    node(&first("socket"), FileType::Socket, 0);
    node(&first("null"), FileType::CharacterDevice, fs::makedev(1, 3));
    for name in ["small", "big", "nothing", "symlink", "fifo", "socket", "null"] {
        for other in ["one/second-", "two/deeper/", "zero/"] {
            let to = dir.join(format!("{other}{name}"));
            fs::linkat(CWD, first(name), CWD, &to, AtFlags::empty()).expect("hard link");
        }
    }
}

/// A file with holes; `islands` are offsets of data.
pub fn holey(path: &Path, len: u64, islands: &[(u64, usize)]) {
    let file = File::create(path).expect("file");
    for (n, (offset, bytes)) in islands.iter().enumerate() {
        file.write_all_at(&noise(n as u64, *bytes), *offset).expect("island");
    }
    file.set_len(len).expect("length");
}

fn sparse(dir: &Path) {
    const GIB: u64 = 1 << 30;
    std::fs::create_dir(dir).expect("directory");
    let islands = [(GIB, 300_000), (5 * GIB + 4096, 5_000_000), (9 * GIB, 1)];
    holey(&dir.join("ten-gib"), 10 * GIB, &islands);
    holey(&dir.join("data-hole-data"), 3 << 20, &[(0, 4096), ((3 << 20) - 4096, 4096)]);
    holey(&dir.join("only-a-hole"), 2 * GIB, &[]);
    holey(&dir.join("small-hole"), 100_000, &[(50_000, 10)]);
    holey(&dir.join("shared-hole"), 50 << 20, &[(20 << 20, 100)]);
    std::fs::hard_link(dir.join("shared-hole"), dir.join("shared-hole-too")).expect("hard link");
    std::fs::write(dir.join("zeros-no-hole"), vec![0; 2 << 20]).expect("file");
}

fn kinds(dir: &Path) {
    std::fs::create_dir(dir).expect("directory");
    std::fs::create_dir(dir.join("empty-directory")).expect("directory");
    std::fs::write(dir.join("empty-file"), b"").expect("file");
    node(&dir.join("fifo"), FileType::Fifo, 0);
    node(&dir.join("socket"), FileType::Socket, 0);
    node(&dir.join("char"), FileType::CharacterDevice, fs::makedev(4, 250));
    node(&dir.join("block"), FileType::BlockDevice, fs::makedev(259, 65_600));
    symlink("nowhere/at all", dir.join("dangling")).expect("link");
    symlink("/etc/../etc/passwd", dir.join("absolute")).expect("link");
    symlink("..", dir.join("parent")).expect("link");
    symlink(".", dir.join("self")).expect("link");
    symlink(OsStr::from_bytes(&[b'/'; 4095]), dir.join("long")).expect("link");
    symlink(OsStr::from_bytes(b"\xff\n\x1b"), dir.join("odd")).expect("link");
    for mode in [0o000, 0o001, 0o444, 0o777, 0o4755, 0o2755, 0o6711, 0o1777] {
        let (file, inner) = (dir.join(format!("file-{mode:o}")), dir.join(format!("directory-{mode:o}")));
        std::fs::write(&file, format!("{mode:o}")).expect("file");
        std::fs::create_dir(&inner).expect("directory");
        std::fs::write(inner.join("inside"), b"inside").expect("file");
        for path in [file, inner] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("mode");
        }
    }
}

fn attributes(dir: &Path) {
    std::fs::create_dir(dir).expect("directory");
    let file = |name: &str| {
        let path = dir.join(name);
        std::fs::write(&path, name).expect("file");
        path
    };
    let some = file("some");
    attribute(&some, "user.text", b"value");
    attribute(&some, "user.empty", b"");
    attribute(&some, "user.\u{fc}", b"\x00\xff\n");
    attribute(&some, "trusted.only-root", b"sees it");
    attribute(&file("capable"), "security.capability", &capability());
    attribute(&file("acl"), "system.posix_acl_access", &acl(6));
    let many = file("many");
    for n in 0..40 {
        attribute(&many, &format!("user.attribute-{n:02}"), &noise(n, 900));
    }
    attribute(&file("long"), "user.long", &noise(5, 60_000));
    for (name, n) in [("directory", 3u8), ("directory-many", 40)] {
        let inner = dir.join(name);
        std::fs::create_dir(&inner).expect("directory");
        for n in 0..n {
            attribute(&inner, &format!("user.d{n}"), &noise(u64::from(n), 500));
        }
        attribute(&inner, "system.posix_acl_access", &acl(7));
        attribute(&inner, "system.posix_acl_default", &acl(5));
        // Made below a default ACL, and without one of its own.
        std::fs::write(inner.join("inherits"), b"inherits").expect("file");
        std::fs::create_dir(inner.join("inherits-too")).expect("directory");
        std::fs::write(inner.join("plain"), b"plain").expect("file");
        fs::lremovexattr(inner.join("plain"), "system.posix_acl_access").expect("no ACL");
    }
    symlink("some", dir.join("link")).expect("link");
    attribute(&dir.join("link"), "trusted.of-the-link", b"not of its target");
    node(&dir.join("fifo"), FileType::Fifo, 0);
    attribute(&dir.join("fifo"), "trusted.of-the-fifo", b"yes");
}

fn owners(dir: &Path) {
    std::fs::create_dir(dir).expect("directory");
    for (n, (uid, gid)) in [(1, 2), (65_534, 65_534), (4_294_967_000, 4_294_967_001), (0, 1000)].into_iter().enumerate()
    {
        let (file, link, inner) =
            (dir.join(format!("file-{n}")), dir.join(format!("link-{n}")), dir.join(format!("directory-{n}")));
        std::fs::write(&file, b"mine").expect("file");
        symlink("target", &link).expect("link");
        std::fs::create_dir(&inner).expect("directory");
        for path in [&file, &link, &inner] {
            std::os::unix::fs::lchown(path, Some(uid), Some(gid)).expect("owner");
        }
        // After the owner: changing it takes these away.
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o6755)).expect("mode");
        attribute(&file, "security.capability", &capability());
    }
    let read_only = dir.join("read-only");
    std::fs::create_dir(&read_only).expect("directory");
    std::fs::write(read_only.join("inside"), b"inside").expect("file");
    std::fs::set_permissions(&read_only, std::fs::Permissions::from_mode(0o555)).expect("mode");
}

/// Sizes around every boundary of the formats of content.
fn content(dir: &Path) {
    std::fs::create_dir(dir).expect("directory");
    for len in [1, 511, 512, 513, 4095, 4096, 4097, 65_536, 262_143, 262_144, 262_145, 1 << 20, 4_194_305, 9_000_001] {
        std::fs::write(dir.join(format!("noise-{len}")), noise(len as u64, len)).expect("file");
        std::fs::write(dir.join(format!("text-{len}")), &b"all work and no play\n".repeat(len / 21 + 1)[..len])
            .expect("file");
    }
}

fn times(dir: &Path) {
    std::fs::create_dir(dir).expect("directory");
    for (name, time) in [("old", LONG_AGO), ("new", FAR_AHEAD), ("zero", (0, 0)), ("before", (-1, 999_999_999))] {
        let (file, link, inner) =
            (dir.join(name), dir.join(format!("{name}-link")), dir.join(format!("{name}-directory")));
        std::fs::write(&file, name).expect("file");
        symlink(name, &link).expect("link");
        std::fs::create_dir(&inner).expect("directory");
        std::fs::write(inner.join("inside"), b"inside").expect("file");
        node(&dir.join(format!("{name}-fifo")), FileType::Fifo, 0);
        for path in [file, link, inner, dir.join(format!("{name}-fifo"))] {
            stamp(&path, time);
        }
    }
}
