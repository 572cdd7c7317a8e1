//! What a tree is, for comparing two of them: everything that a restore promises, under names relative to the root.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Everything about one name that must come back.
#[derive(Debug, PartialEq, Eq)]
pub struct Facts {
    kind: String,
    mode: u32,
    owner: (u32, u32),
    mtime: (i64, i64),
    size: u64,
    content: String,
    /// The first name of the same inode.
    linked_to: Option<PathBuf>,
    sparse: bool,
    device: u64,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// All names below `root`, and the root itself as the empty name.
pub fn walk(root: &Path) -> BTreeMap<PathBuf, Facts> {
    let (mut found, mut inodes) = (BTreeMap::new(), BTreeMap::new());
    let mut names = vec![PathBuf::new()];
    let mut open = vec![PathBuf::new()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(root.join(&dir)).unwrap() {
            let entry = entry.unwrap();
            let name = dir.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                open.push(name.clone());
            }
            names.push(name);
        }
    }
    names.sort();
    for name in names {
        let facts = facts(&path_of(root, &name), &name, &mut inodes);
        found.insert(name, facts);
    }
    found
}

/// `root.join("")` would end with a slash, and follow links.
fn path_of(root: &Path, name: &Path) -> PathBuf {
    if name.as_os_str().is_empty() { root.to_path_buf() } else { root.join(name) }
}

fn facts(path: &Path, name: &Path, inodes: &mut BTreeMap<(u64, u64), PathBuf>) -> Facts {
    let meta = std::fs::symlink_metadata(path).unwrap();
    let kind = meta.file_type();
    let content = if kind.is_file() {
        blake3::hash(&std::fs::read(path).unwrap()).to_string()
    } else if kind.is_symlink() {
        format!("{:?}", std::fs::read_link(path).unwrap())
    } else {
        String::new()
    };
    let first = inodes.entry((meta.dev(), meta.ino())).or_insert_with(|| name.to_path_buf()).clone();
    let is_device = kind.is_block_device() || kind.is_char_device();
    Facts {
        kind: format!("{kind:?}"),
        mode: meta.mode(),
        owner: (meta.uid(), meta.gid()),
        mtime: (meta.mtime(), meta.mtime_nsec()),
        size: if kind.is_file() { meta.len() } else { 0 },
        content,
        linked_to: (!kind.is_dir() && meta.nlink() > 1).then_some(first),
        sparse: kind.is_file() && meta.blocks() * 512 < meta.len() / 2,
        device: if is_device { meta.rdev() } else { 0 },
        xattrs: xattrs(path),
    }
}

fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    let mut names = vec![0; 64 << 10];
    let len = rustix::fs::llistxattr(&path, &mut names[..]).unwrap();
    let value = |name: &[u8]| {
        let mut value = vec![0; 64 << 10];
        let len = rustix::fs::lgetxattr(&path, CString::new(name).unwrap(), &mut value[..]).unwrap();
        value.truncate(len);
        value
    };
    names[..len].split(|b| *b == 0).filter(|n| !n.is_empty()).map(|n| (n.to_vec(), value(n))).collect()
}

/// Panics with the first differences.
pub fn assert_same(left: &Path, right: &Path) {
    let (left, right) = (walk(left), walk(right));
    let names: std::collections::BTreeSet<_> = left.keys().chain(right.keys()).collect();
    let differences: Vec<String> = names
        .into_iter()
        .filter(|name| left.get(*name) != right.get(*name))
        .map(|name| format!("{name:?}:\n  {:?}\n  {:?}", left.get(name), right.get(name)))
        .collect();
    let shown = &differences[..differences.len().min(5)];
    assert!(differences.is_empty(), "{} names differ:\n{}", differences.len(), shown.join("\n"));
}
