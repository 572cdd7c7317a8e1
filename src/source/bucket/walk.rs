//! Walking a listing: objects become entries of directories, in the order of a tree.
//!
//! Memory: one row, and the names of the open directories.

use super::{Folder, Row, Source, attrs};
use crate::error::{Error, Result};
use crate::format::tree::{DIR_DEPTH_MAX, Entry, EntryType, is_safe_name};
use crate::policy::Excludes;
use crate::source::files::{SourceError, SourceErrorKind};
use crate::source::sort::Sorted;
use std::collections::VecDeque;
use std::sync::Arc;

/// Most marks that may wait.
const MARKS_MAX: usize = 1000;

/// One step of a walk.
#[derive(Debug)]
pub enum Event {
    /// A directory begins; the root's name is empty.
    Enter(Box<Entry>),
    /// An object, with its tag for an attribute, and where it is.
    Object(Box<Entry>, Arc<Folder>),
    /// The directory entered last ends.
    Leave,
    /// Something cannot be kept or read.
    Failed(SourceError),
    /// Something was left out.
    Excluded,
}

/// Walks one listing.
pub struct Walker {
    source: Arc<Source>,
    sorted: Sorted,
    excludes: Excludes,
    /// Keys below the prefix that begin so are left out: a repository does not hold itself.
    skip: Vec<Vec<u8>>,
    /// Waits until it is known whether keys lie below it.
    waiting: Option<Row>,
    /// Marks below what waits, of which nobody knows yet whether anything else lies there.
    marks: Vec<Row>,
    stack: Vec<(Vec<u8>, Arc<Folder>)>,
    queue: VecDeque<Event>,
    over: bool,
}

impl std::fmt::Debug for Walker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Walker").field("source", &self.source).finish_non_exhaustive()
    }
}

impl Walker {
    /// Lists everything, and begins. `skip`: prefixes of the bucket that are left out.
    ///
    /// # Errors
    /// The listing could not be completed, or has nothing.
    pub fn new(source: Arc<Source>, excludes: Excludes, skip: &[String]) -> Result<Walker> {
        let sorted = source.listed()?;
        let below = |key: &String| Some(key.strip_prefix(&source.prefix)?.as_bytes().to_vec());
        let skip = skip.iter().filter_map(below).collect();
        let queue = VecDeque::new();
        Ok(Walker {
            source,
            sorted,
            excludes,
            skip,
            waiting: None,
            marks: Vec::new(),
            stack: Vec::new(),
            queue,
            over: false,
        })
    }

    /// The next step; `None` at the end. A walk that ends before its root does is not complete.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.queue.pop_front() {
                return Some(event);
            }
            // A store that is away would be waited for again at each mark. The walk ends without its root.
            if self.over || self.source.gone().is_some() {
                return None;
            }
            match self.step() {
                Ok(()) => {}
                Err(e) => {
                    self.over = true;
                    let path = self.source.shown(self.source.prefix.as_bytes());
                    return Some(Event::Failed(SourceError::other(&path, SourceErrorKind::Io, e.to_string())));
                }
            }
        }
    }

    /// Reads a row, and places the one before.
    fn step(&mut self) -> Result<()> {
        let Some(row) = self.sorted.next()?.and_then(Row::parse) else {
            self.settle();
            self.open(&[], None);
            self.stack.drain(..).for_each(|_| self.queue.push_back(Event::Leave));
            self.over = true;
            return Ok(());
        };
        if let Some(why) = refusal(&row) {
            self.refuse(&row, why);
            return Ok(());
        }
        if self.is_excluded(&row.rest) {
            self.queue.push_back(Event::Excluded);
            return Ok(());
        }
        self.admit(row);
        Ok(())
    }

    /// Takes a row, and places the one before as soon as it is known what lies below it.
    fn admit(&mut self, row: Row) {
        let Some(before) = self.waiting.take() else {
            self.waiting = Some(row);
            return;
        };
        let behind = row.rest.strip_prefix(&before.rest[..]);
        let inside = !before.is_mark() && behind.is_some_and(|rest| rest.first() == Some(&b'/'));
        if inside && row.is_mark() && self.marks.len() < MARKS_MAX {
            // It has no bytes: what has some is not given up for it.
            self.marks.push(row);
            self.waiting = Some(before);
        } else if inside {
            self.refuse(&before, "other keys lie below it, as in a directory, and a file cannot be one");
            std::mem::take(&mut self.marks).into_iter().chain([row]).for_each(|row| self.admit(row));
        } else {
            // Listed twice, since it changed meanwhile: the later one counts.
            let twice = behind.is_some_and(<[u8]>::is_empty);
            if !twice {
                self.waiting = Some(before);
                self.settle();
            }
            self.waiting = Some(row);
        }
    }

    /// Places what waits: nothing but marks lies below it.
    fn settle(&mut self) {
        for mark in std::mem::take(&mut self.marks) {
            self.refuse(&mark, "it stands for a directory where an object with content is a file");
        }
        if let Some(row) = self.waiting.take() {
            self.place(&row);
        }
    }

    /// The bucket.
    pub fn source(&self) -> Arc<Source> {
        Arc::clone(&self.source)
    }

    /// As [`Source::gone`].
    pub fn gone(&self) -> Option<Error> {
        self.source.gone()
    }

    fn refuse(&mut self, row: &Row, why: &str) {
        let path = self.source.shown(&self.key_of(&row.rest));
        let what = format!("not stored: its key is no path: {why}");
        self.queue.push_back(Event::Failed(SourceError::other(&path, SourceErrorKind::Unaddressable, what)));
    }

    fn key_of(&self, rest: &[u8]) -> Vec<u8> {
        [self.source.prefix.as_bytes(), rest].concat()
    }

    /// Whether it, or a directory above it, is left out.
    fn is_excluded(&self, rest: &[u8]) -> bool {
        let ends = rest.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| at);
        let mut above = ends.filter_map(|end| rest.get(..end));
        self.skip.iter().any(|skip| rest.starts_with(skip))
            || above.any(|dir| self.excludes.excludes(dir, true))
            || (!rest.is_empty() && !rest.ends_with(b"/") && self.excludes.excludes(rest, false))
    }

    fn place(&mut self, row: &Row) {
        if row.is_mark() {
            let path: Vec<&[u8]> = row.rest.split(|b| *b == b'/').filter(|part| !part.is_empty()).collect();
            return self.open(&path, Some(row));
        }
        let mut path: Vec<&[u8]> = row.rest.split(|b| *b == b'/').collect();
        let name = path.pop().unwrap_or_default();
        self.open(&path, None);
        let Some((_, dir)) = self.stack.last() else { return };
        let etag = row.etag.as_deref();
        let mut entry = attrs::entry(name, EntryType::File, row.modified);
        (entry.size, entry.inode, entry.xattrs) = (Some(row.size), attrs::inode(etag), attrs::tagged(etag));
        self.queue.push_back(Event::Object(Box::new(entry), Arc::clone(dir)));
    }

    /// Makes the directory of this path the open one. `mark`: the object that stands for it.
    fn open(&mut self, path: &[&[u8]], mark: Option<&Row>) {
        let same = self.stack.iter().skip(1).zip(path).take_while(|((name, _), part)| name == *part).count();
        while self.stack.len() > same.saturating_add(1) {
            self.stack.pop();
            self.queue.push_back(Event::Leave);
        }
        if self.stack.is_empty() {
            self.enter(&[], mark.filter(|_| path.is_empty()));
        }
        let missing = path.get(same..).unwrap_or_default();
        for (n, part) in missing.iter().enumerate() {
            self.enter(part, mark.filter(|_| n.saturating_add(1) == missing.len()));
        }
    }

    fn enter(&mut self, name: &[u8], mark: Option<&Row>) {
        let above = self.stack.last().map(|(_, dir)| &dir.key[..]);
        let key = above.map_or_else(|| self.source.prefix.clone().into_bytes(), |above| [above, name, b"/"].concat());
        // A prefix has no time: none is better than one that changes.
        let mut entry = attrs::entry(name, EntryType::Dir, mark.map_or(0, |mark| mark.modified));
        if mark.is_some() {
            match self.source.head(&key) {
                Ok(facts) => entry.xattrs = Some(attrs::of(&facts)).filter(|all| !all.is_empty()),
                Err(e) => self.queue.push_back(Event::Failed(e)),
            }
        }
        let dir = Arc::new(Folder { source: Arc::clone(&self.source), key });
        self.queue.push_back(Event::Enter(Box::new(entry)));
        self.stack.push((name.to_vec(), dir));
    }
}

impl Row {
    /// Whether it stands for a directory, as consoles make them.
    fn is_mark(&self) -> bool {
        self.rest.is_empty() || self.rest.ends_with(b"/")
    }
}

/// Why a key cannot be a path, if it cannot.
fn refusal(row: &Row) -> Option<&'static str> {
    let path = match row.rest.strip_suffix(b"/") {
        _ if row.is_mark() && row.size > 0 => return Some("it ends with `/`, as a directory's, and has content"),
        Some(path) => path,
        None if row.rest.is_empty() => return None,
        None => &row.rest[..],
    };
    if path.contains(&0) {
        return Some("it has a NUL");
    }
    if std::str::from_utf8(path).is_err() {
        return Some("it is not UTF-8");
    }
    let mut depth = 0usize;
    for part in path.split(|b| *b == b'/') {
        depth = depth.saturating_add(1);
        match part {
            b"" => return Some("it has an empty part: `//`, or `/` at its beginning"),
            b"." | b".." => return Some("it has a part `.` or `..`"),
            _ if !is_safe_name(part) => return Some("a part of it is longer than 255 bytes"),
            _ => {}
        }
    }
    (depth > DIR_DEPTH_MAX).then_some("it has too many parts")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Line;

    fn row(key: &[u8], size: u64) -> Row {
        Row { rest: key.to_vec(), size, modified: 0, etag: None }
    }

    #[test]
    fn keys_that_are_no_paths_are_known() {
        let long = [b'x'; 256];
        let bad: [&[u8]; 14] = [
            b"/a", b"a//b", b"//", b".", b"..", b"a/../b", b"a/./b", b"a/..", b"../a", b"a\0b", b"\xff", &long,
            b"..//", b"../",
        ];
        for key in bad {
            assert!(refusal(&row(key, 0)).is_some(), "{}", String::from_utf8_lossy(key));
        }
        assert!(refusal(&row(b"a/", 1)).is_some() && refusal(&row(b"", 1)).is_some());
        let good: [&[u8]; 7] = [b"", b"a", b"a/", b"a/b", b"...", b"a/.b", &long[1..]];
        for key in good {
            assert_eq!(refusal(&row(key, 0)), None, "{}", String::from_utf8_lossy(key));
        }
    }

    #[test]
    fn a_directory_stands_where_its_name_does() {
        let line = |key: &str| Line { key: key.into(), size: 3, modified: 5, etag: Some("\"t\"".into()) };
        let mut all: Vec<Vec<u8>> =
            ["a-b", "a/x", "a", "a.c/y", "a0", "a/", "a/x/y"].map(|key| Row::record(key.as_bytes(), &line(key))).into();
        all.sort_by(|a, b| Row::order(a, b));
        let keys: Vec<String> = all.iter().map(|r| String::from_utf8(Row::parse(r).unwrap().rest).unwrap()).collect();
        assert_eq!(keys, ["a", "a/", "a/x", "a/x/y", "a-b", "a.c/y", "a0"]);
        let one = Row::parse(&Row::record(b"k", &line("p/k"))).unwrap();
        assert_eq!(one, Row { rest: b"k".to_vec(), size: 3, modified: 5, etag: Some("\"t\"".into()) });
        assert_eq!(Row::parse(b"short"), None);
    }
}
