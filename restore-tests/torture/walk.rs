//! An independent look at a tree: everything that `lstat`, `readlink`, `listxattr` and reading can tell, gathered
//! without the program's own walk, and compared.

use rustix::fd::{AsRawFd, OwnedFd};
use rustix::fs::{self, AtFlags, CWD, Dir, FileType, Mode, OFlags, SeekFrom};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// Bytes that are read at once; also the grain at which zeros are skipped.
const GRAIN: usize = 4096;

/// What there is to know about one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u64,
    pub size: i64,
    pub mtime: (i64, u64),
    /// The first name of the same inode.
    pub first: Vec<u8>,
    pub links: u64,
    pub target: Vec<u8>,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Hash over everything that is not zero, with its place.
    pub content: Option<blake3::Hash>,
    /// Where data lies.
    pub data: Vec<(u64, u64)>,
}

/// A tree by relative path; the root's is empty.
pub type Tree = BTreeMap<Vec<u8>, Seen>;

fn open(dir: impl rustix::fd::AsFd, name: &[u8], flags: OFlags) -> OwnedFd {
    fs::openat(dir, name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
        .unwrap_or_else(|e| panic!("{:?}: {e}", String::from_utf8_lossy(name)))
}

fn xattrs(dir: &OwnedFd, name: &[u8]) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let path = [format!("/proc/self/fd/{}/", dir.as_raw_fd()).as_bytes(), name].concat();
    let mut buf = vec![0u8; 1 << 16];
    let len = fs::llistxattr(&path, &mut buf[..]).expect("attributes");
    let names: Vec<Vec<u8>> = buf[..len].split(|b| *b == 0).filter(|n| !n.is_empty()).map(<[u8]>::to_vec).collect();
    let value = |name: Vec<u8>| {
        let mut buf = vec![0u8; 1 << 16];
        let len = fs::lgetxattr(&path, &name, &mut buf[..]).expect("attribute");
        (name, buf[..len].to_vec())
    };
    names.into_iter().map(value).collect()
}

fn data_of(file: &OwnedFd) -> Vec<(u64, u64)> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Ok(start) = fs::seek(file, SeekFrom::Data(at)) {
        at = fs::seek(file, SeekFrom::Hole(start)).expect("an end");
        found.push((start, at));
    }
    found
}

fn content(file: &OwnedFd, data: &[(u64, u64)]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    let mut buf = vec![0u8; GRAIN];
    for (start, end) in data {
        let mut at = *start / GRAIN as u64 * GRAIN as u64;
        while at < *end {
            let mut got = 0;
            while got < GRAIN {
                match rustix::io::pread(file, &mut buf[got..], at + got as u64).expect("read") {
                    0 => break,
                    n => got += n,
                }
            }
            if buf[..got].iter().any(|b| *b != 0) {
                hasher.update(&at.to_le_bytes());
                hasher.update(&buf[..got]);
            }
            at += GRAIN as u64;
        }
    }
    hasher.finalize()
}

struct Level {
    dir: OwnedFd,
    names: Vec<Vec<u8>>,
    path: Vec<u8>,
}

fn level(dir: OwnedFd, path: Vec<u8>) -> Level {
    let list = Dir::read_from(&dir).expect("list");
    let mut names: Vec<Vec<u8>> = list.map(|e| e.expect("entry").file_name().to_bytes().to_vec()).collect();
    names.retain(|n| n != b"." && n != b"..");
    names.sort_by(|a, b| b.cmp(a));
    Level { dir, names, path }
}

/// Looks at everything.
pub fn look(root: &Path) -> Tree {
    let mut found = Tree::new();
    let mut firsts = HashMap::new();
    let top = fs::openat(CWD, root, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).expect("root");
    found.insert(Vec::new(), entry(&top, b".", b"", &mut firsts));
    let mut stack = vec![level(top, Vec::new())];
    while let Some(open_level) = stack.last_mut() {
        let Some(name) = open_level.names.pop() else {
            stack.pop();
            continue;
        };
        let mut path = open_level.path.clone();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(&name);
        let seen = entry(&open_level.dir, &name, &path, &mut firsts);
        let is_dir = FileType::from_raw_mode(seen.mode) == FileType::Directory;
        found.insert(path.clone(), seen);
        if is_dir {
            let dir = open(&open_level.dir, &name, OFlags::RDONLY | OFlags::DIRECTORY);
            stack.push(level(dir, path));
        }
    }
    found
}

fn entry(dir: &OwnedFd, name: &[u8], path: &[u8], firsts: &mut HashMap<(u64, u64), Vec<u8>>) -> Seen {
    let stat = fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).expect("stat");
    let kind = FileType::from_raw_mode(stat.st_mode);
    let is_dir = kind == FileType::Directory;
    let first = firsts.entry((stat.st_dev, stat.st_ino)).or_insert_with(|| path.to_vec()).clone();
    let mut seen = Seen {
        mode: stat.st_mode,
        uid: stat.st_uid,
        gid: stat.st_gid,
        rdev: stat.st_rdev,
        size: if kind == FileType::RegularFile { stat.st_size } else { 0 },
        mtime: (stat.st_mtime, stat.st_mtime_nsec),
        first: if is_dir { path.to_vec() } else { first },
        links: if is_dir { 1 } else { stat.st_nlink },
        target: Vec::new(),
        xattrs: xattrs(dir, name),
        content: None,
        data: Vec::new(),
    };
    match kind {
        FileType::Symlink => seen.target = fs::readlinkat(dir, name, Vec::new()).expect("link").into_bytes(),
        FileType::RegularFile => {
            let file = open(dir, name, OFlags::RDONLY | OFlags::NOATIME);
            seen.data = data_of(&file);
            seen.content = Some(content(&file, &seen.data));
        }
        _ => {}
    }
    seen
}

/// Whether data lies only where it lay before.
fn holes_kept(before: &[(u64, u64)], after: &[(u64, u64)]) -> bool {
    after.iter().all(|(start, end)| before.iter().any(|(s, e)| s <= start && *end <= e.next_multiple_of(GRAIN as u64)))
}

/// Every difference, as text.
pub fn differences(before: &Tree, after: &Tree) -> Vec<String> {
    let mut found = Vec::new();
    for (path, a) in before {
        let name = String::from_utf8_lossy(&path[path.len().saturating_sub(300)..]).into_owned();
        let Some(b) = after.get(path) else {
            found.push(format!("{name}: missing"));
            continue;
        };
        if !holes_kept(&a.data, &b.data) {
            found.push(format!("{name}: data at {:?}, was at {:?}", b.data, a.data));
        }
        let (mut x, mut y) = (a.clone(), b.clone());
        (x.data, y.data) = (Vec::new(), Vec::new());
        if x != y {
            found.push(format!("{name}: {}", difference(&x, &y)));
        }
    }
    found.extend(after.keys().filter(|p| !before.contains_key(*p)).map(|p| {
        let name = String::from_utf8_lossy(p).into_owned();
        format!("{name}: should not be there")
    }));
    found
}

fn difference(a: &Seen, b: &Seen) -> String {
    let mut a = a.clone();
    let names = |seen: &Seen| seen.xattrs.keys().map(|k| String::from_utf8_lossy(k).into_owned()).collect::<Vec<_>>();
    let mut text = String::new();
    if a.xattrs != b.xattrs {
        text = format!("attributes {:?}, were {:?}; ", names(b), names(&a));
        a.xattrs = b.xattrs.clone();
    }
    if a == *b { text } else { format!("{text}{b:?}, was {a:?}").chars().take(1500).collect() }
}

/// Panics with the differences.
pub fn assert_equal(before: &Tree, after: &Tree) {
    let found = differences(before, after);
    assert!(found.is_empty(), "{} differences:\n{}", found.len(), found.join("\n"));
}
