//! What differs between two snapshots, or parts of them. What they share is not read.

use super::side_by_side::{Trees, Version, Visitor, Walk};
use crate::base::Cancel;
use crate::error::{Error, Result};
use crate::format::tree::{Entry, EntryType};
use crate::repo::reader::Reader;

/// How a path differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// Only the second has it.
    Added,
    /// Only the first has it.
    Removed,
    /// Both have it, with other content or another target.
    Modified,
    /// Both have it, as something else.
    Type,
    /// Both have it, with the same content: mode, owner, time or attributes are others.
    Metadata,
}

impl Change {
    /// Its name in `--json`.
    pub fn name(self) -> &'static str {
        match self {
            Change::Added => "added",
            Change::Removed => "removed",
            Change::Modified => "modified",
            Change::Type => "type",
            Change::Metadata => "metadata",
        }
    }

    /// Its sign in text.
    pub fn sign(self) -> char {
        match self {
            Change::Added => '+',
            Change::Removed => '-',
            Change::Modified => 'M',
            Change::Type => 'T',
            Change::Metadata => 'U',
        }
    }
}

/// One path that differs.
#[derive(Debug)]
pub struct Difference<'d> {
    /// Path below the two roots; where these are files, the second one's name.
    pub path: &'d [u8],
    /// How.
    pub change: Change,
    /// As the first has it.
    pub old: Option<&'d Entry>,
    /// As the second has it.
    pub new: Option<&'d Entry>,
}

/// Sums.
#[derive(Debug, Clone, Default)]
pub struct DiffReport {
    /// Entries that were added.
    pub added: u64,
    /// Bytes of files among them.
    pub added_bytes: u64,
    /// Entries that were removed.
    pub removed: u64,
    /// Bytes of files among them.
    pub removed_bytes: u64,
    /// Entries with other content.
    pub modified: u64,
    /// Bytes that they had.
    pub modified_bytes_old: u64,
    /// Bytes that they have.
    pub modified_bytes_new: u64,
    /// Entries that are something else.
    pub types: u64,
    /// Entries with other metadata only.
    pub metadata: u64,
    /// Tree pages that were read.
    pub pages: u64,
    /// The first parts that could not be compared, and why.
    pub lost: Vec<(Vec<u8>, String)>,
    /// How many there were.
    pub lost_total: u64,
}

/// Most lost parts that are kept by name.
const LOST_MAX: usize = 1000;

impl DiffReport {
    fn count(&mut self, difference: &Difference<'_>) {
        let size = |entry: Option<&Entry>| entry.map_or(0, Entry::size);
        let (old, new) = (size(difference.old), size(difference.new));
        let add = |sum: &mut u64, bytes: u64| *sum = sum.saturating_add(bytes);
        match difference.change {
            Change::Added => {
                self.added += 1;
                add(&mut self.added_bytes, new);
            }
            Change::Removed => {
                self.removed += 1;
                add(&mut self.removed_bytes, old);
            }
            Change::Modified => {
                self.modified += 1;
                add(&mut self.modified_bytes_old, old);
                add(&mut self.modified_bytes_new, new);
            }
            Change::Type => {
                self.types += 1;
                add(&mut self.removed_bytes, old);
                add(&mut self.added_bytes, new);
            }
            Change::Metadata => self.metadata += 1,
        }
    }
}

/// How two entries of one path differ; `None`: in nothing that a restore would bring back.
fn change(old: &Entry, new: &Entry) -> Option<Change> {
    if old.kind != new.kind {
        return Some(Change::Type);
    }
    let content = (old.size(), &old.inline, &old.chunks, old.list, &old.target, old.rdev_major, old.rdev_minor)
        == (new.size(), &new.inline, &new.chunks, new.list, &new.target, new.rdev_major, new.rdev_minor);
    // What is below a directory is compared by itself.
    if !content && old.kind != EntryType::Dir {
        return Some(Change::Modified);
    }
    let metadata = (old.mode, old.uid, old.gid, old.mtime_s, old.mtime_ns, &old.xattrs, old.xattrs_ref)
        == (new.mode, new.uid, new.gid, new.mtime_s, new.mtime_ns, &new.xattrs, new.xattrs_ref);
    (!metadata).then_some(Change::Metadata)
}

struct Comparer<'c> {
    report: DiffReport,
    show: &'c mut dyn FnMut(&Difference<'_>) -> Result<()>,
}

impl Comparer<'_> {
    fn pair(&mut self, path: &[u8], old: Option<&Entry>, new: Option<&Entry>) -> Result<()> {
        let change = match (old, new) {
            (Some(old), Some(new)) => change(old, new),
            (Some(_), None) => Some(Change::Removed),
            (None, Some(_)) => Some(Change::Added),
            (None, None) => None,
        };
        let Some(change) = change else { return Ok(()) };
        let difference = Difference { path, change, old, new };
        self.report.count(&difference);
        (self.show)(&difference)
    }
}

impl Visitor for Comparer<'_> {
    fn path(&mut self, path: &[u8], versions: &[Version]) -> Result<()> {
        let of = |tree| versions.iter().find(|version| version.trees.has(tree)).map(|version| &version.entry);
        self.pair(path, of(0), of(1))
    }

    fn lost(&mut self, path: &[u8], _: &Trees, why: &Error) {
        self.report.lost_total += 1;
        if self.report.lost.len() < LOST_MAX {
            self.report.lost.push((path.to_vec(), why.to_string()));
        }
    }
}

/// Compares what is at two entries (the roots of snapshots, or found by path). There are at most `entries` below both.
///
/// # Errors
/// What `show` returned, or interrupted.
pub fn run(
    reader: &Reader,
    (old, new): (&Entry, &Entry),
    entries: u64,
    cancel: &Cancel,
    show: &mut dyn FnMut(&Difference<'_>) -> Result<()>,
) -> Result<DiffReport> {
    let mut comparer = Comparer { report: DiffReport::default(), show };
    let path = if old.kind == EntryType::Dir { &b"."[..] } else { &new.name[..] };
    comparer.pair(path, Some(old), Some(new))?;
    let mut walk = Walk::differences(reader, entries, cancel);
    walk.run([old, new].into_iter(), &mut comparer)?;
    Ok(DiffReport { pages: walk.pages, ..comparer.report })
}
