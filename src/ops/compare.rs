//! Compares two directory trees: what a restore is judged by.

use crate::base::Cancel;
use crate::error::Result;
use crate::format::tree::{Entry, EntryType};
use crate::source::files::{self, DirHandle, Event, WalkOptions, Walker};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Most differences that are named.
const NAMED_MAX: usize = 100;
/// Bytes compared at once.
const PIECE_BYTES: usize = 1 << 20;

/// What was found.
#[derive(Debug, Default)]
pub struct Comparison {
    /// Entries compared.
    pub entries: u64,
    /// Bytes of content compared.
    pub bytes: u64,
    /// The first differences.
    pub differences: Vec<String>,
    /// How many there are.
    pub differences_total: u64,
}

impl Comparison {
    fn differ(&mut self, path: &[u8], what: &str) {
        self.differences_total += 1;
        if self.differences.len() < NAMED_MAX {
            self.differences.push(format!("{}: {what}", String::from_utf8_lossy(path)));
        }
    }
}

/// One step of a walk, flattened.
enum Node {
    Entry { path: Vec<u8>, entry: Box<Entry>, dir: Option<Arc<DirHandle>> },
    Failed(Vec<u8>),
}

struct Flat {
    walker: Walker,
    path: Vec<Vec<u8>>,
}

impl Flat {
    fn new(root: &Path, options: &WalkOptions) -> Result<Flat> {
        Ok(Flat { walker: Walker::new(&[PathBuf::from(root)], options.clone())?, path: Vec::new() })
    }

    fn join(&self, name: &[u8]) -> Vec<u8> {
        let mut path = self.path.iter().skip(1).fold(Vec::new(), |mut path: Vec<u8>, part| {
            path.extend_from_slice(part);
            path.push(b'/');
            path
        });
        path.extend_from_slice(name);
        path
    }

    fn next(&mut self) -> Option<Node> {
        loop {
            match self.walker.next()? {
                Event::Enter { entry, .. } => {
                    let path = self.join(&entry.name);
                    self.path.push(entry.name.to_vec());
                    return Some(Node::Entry { path, entry, dir: None });
                }
                Event::File { found, dir } => {
                    let entry = Box::new(found.entry());
                    return Some(Node::Entry { path: self.join(&entry.name), entry, dir: Some(dir) });
                }
                Event::Item { entry, dir } => {
                    return Some(Node::Entry { path: self.join(&entry.name), entry, dir: Some(dir) });
                }
                Event::Leave => {
                    self.path.pop();
                }
                Event::Failed { path, .. } => return Some(Node::Failed(path)),
                Event::Excluded => {}
            }
        }
    }
}

/// Compares content, types, names, modes, owners, times, links and attributes of everything below two directories.
///
/// # Errors
/// A directory cannot be walked at all, or interrupted.
pub fn trees(left: &Path, right: &Path, options: &WalkOptions, cancel: &Cancel) -> Result<Comparison> {
    let mut found = Comparison::default();
    let (mut a, mut b) = (Flat::new(left, options)?, Flat::new(right, &WalkOptions::default())?);
    let (mut x, mut y) = (a.next(), b.next());
    loop {
        cancel.check()?;
        match (x.take(), y.take()) {
            (None, None) => return Ok(found),
            (Some(Node::Failed(path)), other) => {
                found.differ(&path, "cannot be read");
                (x, y) = (a.next(), other);
            }
            (other, Some(Node::Failed(path))) => {
                found.differ(&path, "cannot be read");
                (x, y) = (other, b.next());
            }
            (Some(Node::Entry { path, .. }), None) => {
                found.differ(&path, "is missing");
                x = a.next();
            }
            (None, Some(Node::Entry { path, .. })) => {
                found.differ(&path, "should not be there");
                y = b.next();
            }
            (Some(Node::Entry { path: p, entry: e, dir: d }), Some(Node::Entry { path: q, entry: f, dir: g })) => {
                // Depth-first order: compare component by component.
                match p.split(|c| *c == b'/').cmp(q.split(|c| *c == b'/')) {
                    std::cmp::Ordering::Less => {
                        found.differ(&p, "is missing");
                        (x, y) = (a.next(), Some(Node::Entry { path: q, entry: f, dir: g }));
                    }
                    std::cmp::Ordering::Greater => {
                        found.differ(&q, "should not be there");
                        (x, y) = (Some(Node::Entry { path: p, entry: e, dir: d }), b.next());
                    }
                    std::cmp::Ordering::Equal => {
                        found.entries += 1;
                        entries(&p, (&e, d.as_deref()), (&f, g.as_deref()), &mut found);
                        (x, y) = (a.next(), b.next());
                    }
                }
            }
        }
    }
}

type Side<'s> = (&'s Entry, Option<&'s DirHandle>);

fn entries(path: &[u8], (e, d): Side<'_>, (f, g): Side<'_>, found: &mut Comparison) {
    if e.kind != f.kind {
        return found.differ(path, "has another type");
    }
    let mut check = |same: bool, what: &str| {
        if !same {
            found.differ(path, what);
        }
    };
    check(e.mode == f.mode || e.kind == EntryType::Symlink, "has another mode");
    check((e.uid, e.gid) == (f.uid, f.gid), "has another owner");
    check((e.mtime_s, e.mtime_ns) == (f.mtime_s, f.mtime_ns), "has another modification time");
    check(e.target == f.target, "points elsewhere");
    check((e.rdev_major, e.rdev_minor) == (f.rdev_major, f.rdev_minor), "is another device");
    check(e.xattrs == f.xattrs, "has other attributes");
    check(e.size == f.size, "has another size");
    check(e.nlink.unwrap_or(1) == f.nlink.unwrap_or(1), "has another number of links");
    if let (EntryType::File, Some(d), Some(g)) = (e.kind, d, g)
        && e.size == f.size
    {
        match same_content((e, d), (f, g)) {
            Ok((same_bytes, same_xattrs)) => {
                found.bytes += e.size();
                if !same_bytes {
                    found.differ(path, "has other content");
                }
                if !same_xattrs {
                    found.differ(path, "has other attributes");
                }
            }
            Err(e) => found.differ(path, &e.message),
        }
    }
}

fn same_content(
    left: (&Entry, &DirHandle),
    right: (&Entry, &DirHandle),
) -> std::result::Result<(bool, bool), files::SourceError> {
    let (a, b) = (files::open(left.1, left.0)?, files::open(right.1, right.0)?);
    let xattrs = a.xattrs()? == b.xattrs()?;
    let (mut x, mut y) = (vec![0; PIECE_BYTES], vec![0; PIECE_BYTES]);
    let mut at = 0;
    loop {
        let (n, m) = (a.read_at(at, &mut x)?, b.read_at(at, &mut y)?);
        if x[..n] != y[..m] {
            return Ok((false, xattrs));
        }
        if n == 0 {
            return Ok((true, xattrs));
        }
        at += n as u64;
    }
}
