//! Looking for names in many snapshots at once: what they share is looked at once.

use super::side_by_side::{Trees, Version, Visitor, Walk};
use crate::base::{Cancel, TimeMs};
use crate::error::{Error, Kind, Result};
use crate::format::snapshot::Manifest;
use crate::format::tree::{Entry, EntryType};
use crate::repo::reader::Reader;
use globset::{GlobBuilder, GlobMatcher};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// What is looked for.
#[derive(Debug, Default)]
pub struct Query {
    globs: Vec<Glob>,
    /// Only of these types; empty: of any.
    pub kinds: Vec<EntryType>,
    /// Files of at least so many bytes.
    pub bytes_min: Option<u64>,
    /// Files of at most so many bytes.
    pub bytes_max: Option<u64>,
    /// Modified at this time or later.
    pub since: Option<TimeMs>,
    /// Modified before this time.
    pub before: Option<TimeMs>,
}

#[derive(Debug)]
struct Glob {
    matcher: GlobMatcher,
    /// Whether it is held against the whole path.
    whole: bool,
}

impl Query {
    /// Patterns: one with `/` is held against the whole path from the snapshot's root, where `**` stands for any number
    /// of directories; one without against the last name.
    ///
    /// # Errors
    /// A pattern that cannot be understood.
    pub fn parse(patterns: &[String], ignore_case: bool) -> Result<Query> {
        let one = |pattern: &String| {
            let whole = pattern.contains('/');
            let glob = GlobBuilder::new(pattern.trim_start_matches('/'))
                .case_insensitive(ignore_case)
                .literal_separator(true)
                .backslash_escape(true)
                .build();
            let glob = glob.map_err(|e| Error::new(Kind::Config, format!("pattern `{pattern}`: {}", e.kind())))?;
            Ok(Glob { matcher: glob.compile_matcher(), whole })
        };
        Ok(Query { globs: patterns.iter().map(one).collect::<Result<_>>()?, ..Query::default() })
    }

    fn names(&self, path: &[u8], name: &[u8]) -> bool {
        let text = |bytes| Path::new(OsStr::from_bytes(bytes));
        self.globs.iter().any(|glob| glob.matcher.is_match(text(if glob.whole { path } else { name })))
    }

    /// Whether a key of etcd suits: it is held against patterns as a path is, its value's size counts, and it has no time.
    pub fn suits_key(&self, key: &[u8], bytes: u64) -> bool {
        let path = key.strip_prefix(b"/").unwrap_or(key);
        let name = path.rsplit(|b| *b == b'/').next().unwrap_or(path);
        (self.kinds.is_empty() || self.kinds.contains(&EntryType::File))
            && self.bytes_min.is_none_or(|least| bytes >= least)
            && self.bytes_max.is_none_or(|most| bytes <= most)
            && self.since.is_none()
            && self.before.is_none()
            && self.names(path, name)
    }

    fn suits(&self, entry: &Entry) -> bool {
        let sized = self.bytes_min.is_some() || self.bytes_max.is_some();
        let modified = entry.mtime_s.saturating_mul(1000).saturating_add(i64::from(entry.mtime_ns / 1_000_000));
        (self.kinds.is_empty() || self.kinds.contains(&entry.kind))
            && (!sized || entry.kind == EntryType::File)
            && self.bytes_min.is_none_or(|least| entry.size() >= least)
            && self.bytes_max.is_none_or(|most| entry.size() <= most)
            && self.since.is_none_or(|since| modified >= since.0)
            && self.before.is_none_or(|before| modified < before.0)
    }
}

/// What came of it.
#[derive(Debug, Default)]
pub struct FindReport {
    /// Versions of entries that were found.
    pub found: u64,
    /// Tree pages that were read.
    pub pages: u64,
    /// The first parts of snapshots that could not be looked at: path, snapshots, why.
    pub lost: Vec<(Vec<u8>, Trees, String)>,
    /// How many there were.
    pub lost_total: u64,
}

/// Most lost parts that are kept by name.
const LOST_MAX: usize = 1000;

struct Finder<'f> {
    query: &'f Query,
    report: FindReport,
    show: &'f mut dyn FnMut(&[u8], &Version) -> Result<()>,
}

impl Visitor for Finder<'_> {
    fn path(&mut self, path: &[u8], versions: &[Version]) -> Result<()> {
        let Some(first) = versions.first() else { return Ok(()) };
        if !self.query.names(path, &first.entry.name) {
            return Ok(());
        }
        for version in versions.iter().filter(|version| self.query.suits(&version.entry)) {
            self.report.found += 1;
            (self.show)(path, version)?;
        }
        Ok(())
    }

    fn lost(&mut self, path: &[u8], trees: &Trees, why: &Error) {
        self.report.lost_total += 1;
        if self.report.lost.len() < LOST_MAX {
            self.report.lost.push((path.to_vec(), trees.clone(), why.to_string()));
        }
    }
}

/// Looks through snapshots. `show` is called with each path and version that suits; its trees are the numbers of
/// snapshots in the order in which they were given.
///
/// # Errors
/// What `show` returned, or interrupted.
pub fn run(
    reader: &Reader,
    snapshots: &[&Manifest],
    query: &Query,
    cancel: &Cancel,
    show: &mut dyn FnMut(&[u8], &Version) -> Result<()>,
) -> Result<FindReport> {
    let entries = snapshots.iter().fold(0u64, |sum, manifest| sum.saturating_add(manifest.counts.entries()));
    let mut walk = Walk::everything(reader, entries, cancel);
    let mut finder = Finder { query, report: FindReport::default(), show };
    walk.run(snapshots.iter().map(|manifest| &manifest.root), &mut finder)?;
    Ok(FindReport { pages: walk.pages, ..finder.report })
}
