//! Walking: depth first, entries of a directory in the byte order of their names, the subtree of a
//! directory at its name's place.
//!
//! Memory: one window of names for each open directory. A directory wider than the window is listed
//! several times, each pass keeping the smallest names beyond the last one delivered.

use super::attrs::{self, At, proc_path, read_xattrs};
use super::error::{SourceError, SourceErrorKind};
use super::found::Found;
use super::trail::Trail;
use crate::error::{Error, Kind, Result};
use crate::format::tree::{DIR_DEPTH_MAX, Entry, EntryType, Xattr};
use crate::policy::Excludes;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, RawDir, Stat};
use rustix::io::Errno;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Names of one directory that are held at once.
const WINDOW_NAMES: usize = 1 << 18;
/// Longest ignore file that is read, in bytes.
const IGNORE_BYTES_MAX: usize = 1 << 20;
/// How a directory says that it is a cache (bford.info/cachedir).
const CACHEDIR_TAG: (&[u8], &[u8]) = (b"CACHEDIR.TAG", b"Signature: 8a477f597d28d172789f06886806bc55");

/// What to leave out.
#[derive(Debug, Clone, Default)]
pub struct WalkOptions {
    /// Patterns relative to the source.
    pub excludes: Excludes,
    /// Do not enter other file systems.
    pub one_file_system: bool,
    /// Leave out what is below a directory tagged as a cache, but for the tag.
    pub caches: bool,
    /// Directories whose content is left out, by device and inode: a repository does not hold itself.
    pub skip: Vec<(u64, u64)>,
    /// Name of files with further patterns for their directory.
    pub ignore_file: Option<Vec<u8>>,
}

/// An open directory.
#[derive(Debug)]
pub struct DirHandle {
    fd: OwnedFd,
    trail: Arc<Trail>,
}

impl DirHandle {
    /// The path of an entry in it, for messages.
    pub fn path_of(&self, name: &[u8]) -> Vec<u8> {
        self.trail.path_of(name)
    }

    /// Extended attributes of an entry in it, sorted; a link is not followed.
    ///
    /// # Errors
    /// One of them cannot be read.
    pub fn xattrs(&self, name: &[u8]) -> std::result::Result<Vec<Xattr>, SourceError> {
        read_xattrs(&At::Link(proc_path(self), name), &self.path_of(name))
    }

    /// A second descriptor of the same directory.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn try_clone(&self) -> std::result::Result<DirHandle, SourceError> {
        let fd = rustix::io::fcntl_dupfd_cloexec(&self.fd, 0)
            .map_err(|e| SourceError::new(&self.trail.path(), "open it", e))?;
        Ok(DirHandle { fd, trail: Arc::clone(&self.trail) })
    }
}

impl AsFd for DirHandle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// One step of a walk.
#[derive(Debug)]
pub enum Event {
    /// A directory begins.
    Enter {
        /// Its metadata; the root's name is empty.
        entry: Box<Entry>,
        /// The directory.
        dir: Arc<DirHandle>,
    },
    /// A file.
    File {
        /// What is known of it.
        found: Found,
        /// The directory that it is in.
        dir: Arc<DirHandle>,
    },
    /// Anything else but a directory.
    Item {
        /// Metadata.
        entry: Box<Entry>,
        /// The directory that it is in.
        dir: Arc<DirHandle>,
    },
    /// The directory entered last ends.
    Leave,
    /// Something cannot be read.
    Failed {
        /// Path.
        path: Vec<u8>,
        /// Why.
        error: SourceError,
    },
    /// Something was left out.
    Excluded,
}

/// Paths asked for, by component, where there is not just one directory.
#[derive(Debug, Default)]
struct Asked {
    whole: bool,
    below: BTreeMap<Vec<u8>, Asked>,
}

#[derive(Debug)]
enum Names {
    /// Of a real directory: the current window; the last name delivered; whether there may be more.
    Window { names: VecDeque<Vec<u8>>, last: Option<Vec<u8>>, more: bool },
    /// Only what was asked for.
    Asked(VecDeque<(Vec<u8>, Asked)>),
}

#[derive(Debug)]
struct Frame {
    dir: Arc<DirHandle>,
    names: Names,
    /// Length of the path relative to the source root, for patterns.
    rel_len: usize,
    ignore: Option<Excludes>,
}

/// Walks one or several roots.
#[derive(Debug)]
pub struct Walker {
    options: WalkOptions,
    window: usize,
    start: Option<(PathBuf, Option<Asked>)>,
    stack: Vec<Frame>,
    rel: Vec<u8>,
    dev: Option<u64>,
    queue: VecDeque<Event>,
}

impl Walker {
    /// A walk over `roots`. One directory becomes the root itself. Otherwise the root is `/`, with nothing
    /// but the paths asked for. A root that is a symbolic link to a directory is followed.
    ///
    /// # Errors
    /// [`Kind::Source`] if a root does not exist or cannot be reached.
    pub fn new(roots: &[PathBuf], options: WalkOptions) -> Result<Walker> {
        let mut resolved = Vec::new();
        for root in roots {
            resolved.push(resolve(root)?);
        }
        let start = match resolved.as_slice() {
            [] => return Err(Error::new(Kind::Config, "no path was given")),
            [(path, true)] => (path.clone(), None),
            several => {
                let mut asked = Asked::default();
                for (path, _) in several {
                    let parts = path.as_os_str().as_bytes().split(|b| *b == b'/').filter(|p| !p.is_empty());
                    let leaf = parts.fold(&mut asked, |at, part| at.below.entry(part.to_vec()).or_default());
                    leaf.whole = true;
                }
                (PathBuf::from("/"), Some(asked))
            }
        };
        Ok(Walker {
            options,
            window: WINDOW_NAMES,
            start: Some(start),
            stack: Vec::new(),
            rel: Vec::new(),
            dev: None,
            queue: VecDeque::new(),
        })
    }

    /// The next step; `None` at the end.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.queue.pop_front() {
                return Some(event);
            }
            if let Some((path, asked)) = self.start.take() {
                self.begin(&path, asked);
                continue;
            }
            let frame = self.stack.last_mut()?;
            self.rel.truncate(frame.rel_len);
            let next = match &mut frame.names {
                Names::Asked(names) => names.pop_front().map(|(name, asked)| (name, Some(asked))),
                Names::Window { names, .. } => names.pop_front().map(|name| (name, None)),
            };
            match next {
                Some((name, asked)) => self.visit(name, asked),
                None => self.refill_or_leave(),
            }
        }
    }

    fn begin(&mut self, path: &Path, asked: Option<Asked>) {
        let bytes = path.as_os_str().as_bytes().to_vec();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(CWD, path, flags, Mode::empty());
        match opened {
            Ok(fd) => self.enter(DirHandle { fd, trail: Trail::new(&bytes) }, b"", asked),
            Err(e) => {
                // Without a root there is no tree: the caller sees that nothing was entered.
                let error = SourceError::new(&bytes, "open it", e);
                self.queue.push_back(Event::Failed { path: bytes, error });
            }
        }
    }

    fn refill_or_leave(&mut self) {
        let window = self.window;
        let Some(frame) = self.stack.last_mut() else { return };
        if let Names::Window { names, last, more } = &mut frame.names
            && *more
        {
            match list(&frame.dir, last.as_deref(), window) {
                Ok((found, further)) => {
                    *last = found.back().cloned().or(last.take());
                    (*names, *more) = (found, further);
                    return;
                }
                Err(error) => {
                    *more = false;
                    self.queue.push_back(Event::Failed { path: frame.dir.trail.path(), error });
                    return;
                }
            }
        }
        self.stack.pop();
        self.queue.push_back(Event::Leave);
    }

    fn excluded(&self, is_dir: bool) -> bool {
        let mut verdict = self.options.excludes.excludes(&self.rel, is_dir);
        for frame in &self.stack {
            let start = if frame.rel_len == 0 { 0 } else { frame.rel_len + 1 };
            if let Some(says) =
                frame.ignore.as_ref().and_then(|i| i.verdict(&self.rel[start.min(self.rel.len())..], is_dir))
            {
                verdict = says;
            }
        }
        verdict
    }

    fn visit(&mut self, name: Vec<u8>, asked: Option<Asked>) {
        let Some(dir) = self.stack.last().map(|f| Arc::clone(&f.dir)) else { return };
        if !self.rel.is_empty() {
            self.rel.push(b'/');
        }
        self.rel.extend_from_slice(&name);
        let (kind, stat) = match stat(&dir, &name) {
            Ok(found) => found,
            Err(error) => return self.queue.push_back(Event::Failed { path: dir.path_of(&name), error }),
        };
        let wanted = asked.is_some();
        if !wanted && self.excluded(kind == EntryType::Dir) {
            return self.queue.push_back(Event::Excluded);
        }
        match kind {
            EntryType::Dir => self.descend(&dir, &name, asked),
            EntryType::File => self.queue.push_back(Event::File { found: Found::new(name, stat), dir }),
            _ => self.special(kind, &stat, name, dir),
        }
    }

    fn descend(&mut self, dir: &DirHandle, name: &[u8], asked: Option<Asked>) {
        if self.stack.len() > DIR_DEPTH_MAX {
            let path = dir.path_of(name);
            let what = format!("not read: directories are nested deeper than {DIR_DEPTH_MAX}");
            let error = SourceError::other(&path, SourceErrorKind::Unsupported, what);
            return self.queue.push_back(Event::Failed { path, error });
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(dir, name, flags, Mode::empty()) {
            Ok(fd) => self.enter(DirHandle { fd, trail: dir.trail.below(name) }, name, asked),
            Err(e) => {
                let path = dir.path_of(name);
                let error = SourceError::new(&path, "open it", e);
                self.queue.push_back(Event::Failed { path, error });
            }
        }
    }

    /// A link, a device, a pipe or a socket.
    fn special(&mut self, kind: EntryType, stat: &Stat, name: Vec<u8>, dir: Arc<DirHandle>) {
        let mut entry = Box::new(Entry::bare(&name, kind));
        attrs::fill(&mut entry, stat);
        let path = dir.path_of(&name);
        // Gone or replaced meanwhile; without its target a link cannot be made again.
        if let Err(error) = read_target(&mut entry, &dir, &name, &path) {
            return self.queue.push_back(Event::Failed { path, error });
        }
        match dir.xattrs(&name) {
            Ok(found) => entry.xattrs = Some(found).filter(|x| !x.is_empty()),
            Err(error) => self.queue.push_back(Event::Failed { path, error }),
        }
        self.queue.push_back(Event::Item { entry, dir });
    }

    fn enter(&mut self, handle: DirHandle, name: &[u8], asked: Option<Asked>) {
        let mut entry = Box::new(Entry::bare(name, EntryType::Dir));
        let stat = match rustix::fs::fstat(&handle.fd) {
            Ok(stat) => stat,
            Err(e) => {
                let path = handle.trail.path();
                let error = SourceError::new(&path, "stat it", e);
                return self.queue.push_back(Event::Failed { path, error });
            }
        };
        attrs::fill(&mut entry, &stat);
        let path = handle.trail.path();
        match read_xattrs(&At::Fd(handle.fd.as_fd()), &path) {
            Ok(found) => entry.xattrs = Some(found).filter(|x| !x.is_empty()),
            Err(error) => self.queue.push_back(Event::Failed { path, error }),
        }
        let dir = Arc::new(handle);
        self.queue.push_back(Event::Enter { entry, dir: Arc::clone(&dir) });
        // Each root that was asked for is on the file system that belongs to it.
        if self.stack.is_empty() || asked.as_ref().is_some_and(|a| a.whole) {
            self.dev = Some(stat.st_dev);
        }
        let partly = asked.filter(|a| !a.whole);
        let whole = partly.is_none();
        let elsewhere = self.options.one_file_system && self.dev.is_some_and(|dev| dev != stat.st_dev);
        let names = match partly {
            Some(asked) => Names::Asked(asked.below.into_iter().collect()),
            None if elsewhere || self.options.skip.contains(&(stat.st_dev, stat.st_ino)) => {
                self.queue.push_back(Event::Excluded);
                Names::Asked(VecDeque::new())
            }
            None if self.options.caches && is_cache(&dir) => {
                self.queue.push_back(Event::Excluded);
                Names::Asked(VecDeque::from([(CACHEDIR_TAG.0.to_vec(), Asked { whole: true, below: BTreeMap::new() })]))
            }
            None => self.first_names(&dir),
        };
        let ignore = if whole && may_have_ignored(&names, self.options.ignore_file.as_deref()) {
            self.read_ignore(&dir)
        } else {
            None
        };
        self.stack.push(Frame { dir, names, rel_len: self.rel.len(), ignore });
    }

    fn first_names(&mut self, dir: &DirHandle) -> Names {
        match list(dir, None, self.window) {
            Ok((names, more)) => Names::Window { last: names.back().cloned().filter(|_| more), names, more },
            Err(error) => {
                self.queue.push_back(Event::Failed { path: dir.trail.path(), error });
                Names::Window { names: VecDeque::new(), last: None, more: false }
            }
        }
    }

    fn read_ignore(&mut self, dir: &DirHandle) -> Option<Excludes> {
        let name = self.options.ignore_file.as_deref()?;
        let bytes = read_head(dir, name, IGNORE_BYTES_MAX + 1)?;
        if bytes.len() > IGNORE_BYTES_MAX {
            // Half a pattern may leave out far more than the whole one.
            let path = dir.path_of(name);
            let error = SourceError::other(&path, SourceErrorKind::Unsupported, "not applied: longer than 1 MiB");
            self.queue.push_back(Event::Failed { path, error });
            return None;
        }
        match Excludes::parse_file(&String::from_utf8_lossy(&bytes)) {
            Ok(ignore) => Some(ignore),
            Err(e) => {
                let path = dir.path_of(name);
                let error = SourceError::other(&path, SourceErrorKind::Unsupported, e.to_string());
                self.queue.push_back(Event::Failed { path, error });
                None
            }
        }
    }
}

/// Whether a directory with these names may have an ignore file: most have none, and need not be asked.
fn may_have_ignored(names: &Names, ignore_file: Option<&[u8]>) -> bool {
    match (names, ignore_file) {
        (Names::Window { names, more: false, .. }, Some(name)) => {
            names.binary_search_by(|there| there.as_slice().cmp(name)).is_ok()
        }
        _ => true,
    }
}

/// Absolute, and whether it is a directory.
fn resolve(root: &Path) -> Result<(PathBuf, bool)> {
    let fail = |e: std::io::Error| {
        let text = e.to_string();
        let text = text.split(" (os error").next().unwrap_or(&text).to_lowercase();
        Error::new(Kind::Source, format!("cannot read the source: {text}"))
            .at(root.display())
            .advise("check the path; is it mounted?")
    };
    let meta = std::fs::symlink_metadata(root).map_err(fail)?;
    let is_dir = if meta.is_symlink() { std::fs::metadata(root).is_ok_and(|m| m.is_dir()) } else { meta.is_dir() };
    if is_dir {
        return Ok((std::fs::canonicalize(root).map_err(fail)?, true));
    }
    let absolute = std::path::absolute(root).map_err(fail)?;
    let name = absolute.file_name().map(PathBuf::from).unwrap_or_default();
    let parent = absolute.parent().map_or_else(|| PathBuf::from("/"), Path::to_path_buf);
    Ok((std::fs::canonicalize(parent).map_err(fail)?.join(name), false))
}

fn stat(dir: &DirHandle, name: &[u8]) -> std::result::Result<(EntryType, Stat), SourceError> {
    let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|e| SourceError::new(&dir.path_of(name), "stat it", e))?;
    let kind = attrs::kind_of(&stat).ok_or_else(|| {
        SourceError::other(&dir.path_of(name), SourceErrorKind::Unsupported, "is of a type that is not known")
    })?;
    Ok((kind, stat))
}

/// Where a symbolic link points.
fn read_target(entry: &mut Entry, dir: &DirHandle, name: &[u8], path: &[u8]) -> std::result::Result<(), SourceError> {
    if entry.kind == EntryType::Symlink {
        let target =
            rustix::fs::readlinkat(dir, name, Vec::new()).map_err(|e| SourceError::new(path, "read the link", e))?;
        entry.target = Some(target.into_bytes().into());
    }
    Ok(())
}

fn read_head(dir: &DirHandle, name: &[u8], len_max: usize) -> Option<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let fd = rustix::fs::openat(dir, name, flags, Mode::empty()).ok()?;
    let mut bytes = vec![0; len_max];
    let mut got = 0;
    while got < len_max {
        match rustix::io::read(&fd, &mut bytes[got..]) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(Errno::INTR) => {}
            Err(_) => return None,
        }
    }
    bytes.truncate(got);
    Some(bytes)
}

fn is_cache(dir: &DirHandle) -> bool {
    read_head(dir, CACHEDIR_TAG.0, CACHEDIR_TAG.1.len()).is_some_and(|head| head == CACHEDIR_TAG.1)
}

/// The smallest `window` names greater than `after`, in order, and whether there may be more.
fn list(
    dir: &DirHandle,
    after: Option<&[u8]>,
    window: usize,
) -> std::result::Result<(VecDeque<Vec<u8>>, bool), SourceError> {
    let fail = |e| SourceError::new(&dir.trail.path(), "list it", e);
    rustix::fs::seek(dir, rustix::fs::SeekFrom::Start(0)).map_err(fail)?;
    let mut buf = [MaybeUninit::uninit(); 32 << 10];
    let mut raw = RawDir::new(dir, &mut buf);
    let mut heap: BinaryHeap<Vec<u8>> = BinaryHeap::new();
    let mut more = false;
    while let Some(entry) = raw.next() {
        let entry = match entry {
            Ok(entry) => entry,
            Err(Errno::INTR) => continue,
            Err(e) => return Err(fail(e)),
        };
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." || after.is_some_and(|after| name <= after) {
            continue;
        }
        if heap.len() < window {
            heap.push(name.to_vec());
        } else {
            more = true;
            if heap.peek().is_some_and(|largest| name < &largest[..]) {
                heap.pop();
                heap.push(name.to_vec());
            }
        }
    }
    let mut names = heap.into_sorted_vec();
    // A name that was removed and made again meanwhile may be listed twice.
    names.dedup();
    Ok((names.into(), more))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(walker: &mut Walker) -> Vec<String> {
        let mut found = Vec::new();
        while let Some(event) = walker.next() {
            match event {
                Event::Enter { entry, .. } => found.push(format!("{}/", String::from_utf8_lossy(&entry.name))),
                Event::File { found: file, .. } => found.push(String::from_utf8_lossy(file.name()).into_owned()),
                Event::Item { entry, .. } => found.push(String::from_utf8_lossy(&entry.name).into_owned()),
                Event::Leave => found.push("<".into()),
                Event::Failed { error, .. } => found.push(format!("!{error}")),
                Event::Excluded => found.push("-".into()),
            }
        }
        found
    }

    #[test]
    fn a_wide_directory_is_read_in_windows() {
        let dir = tempfile::tempdir().unwrap();
        for n in 0..100 {
            std::fs::write(dir.path().join(format!("{n:03}")), b"").unwrap();
        }
        for window in [1, 7, 99, 100, 101] {
            let mut walker = Walker::new(&[dir.path().into()], WalkOptions::default()).unwrap();
            walker.window = window;
            let expected: Vec<String> = ["/".to_owned()]
                .into_iter()
                .chain((0..100).map(|n| format!("{n:03}")))
                .chain(["<".to_owned()])
                .collect();
            assert_eq!(names(&mut walker), expected, "window {window}");
        }
    }

    #[test]
    fn several_roots_hang_below_one() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        std::fs::create_dir_all(base.join("a/in")).unwrap();
        std::fs::write(base.join("a/in/x"), b"").unwrap();
        std::fs::write(base.join("b"), b"").unwrap();
        std::fs::write(base.join("c"), b"").unwrap();
        let roots = [base.join("b"), base.join("a/in"), base.join("a")];
        let found = names(&mut Walker::new(&roots, WalkOptions::default()).unwrap());
        let text = found.join(" ");
        assert!(text.starts_with("/ ") && text.contains("a/ in/ x < < b <"), "{text}");
        assert!(!found.contains(&"c".to_owned()));
        let missing = Walker::new(&[base.join("nowhere")], WalkOptions::default()).err().unwrap();
        assert_eq!(missing.kind(), Kind::Source);
    }

    #[test]
    fn half_an_ignore_file_is_not_applied() {
        let dir = tempfile::tempdir().unwrap();
        // What fits ends within `*.log`.
        let mut text = vec![b'#'; IGNORE_BYTES_MAX - 2];
        text.extend_from_slice(b"\n*.log\n");
        std::fs::write(dir.path().join(".ignore"), text).unwrap();
        std::fs::write(dir.path().join("kept"), b"").unwrap();
        let options = WalkOptions { ignore_file: Some(b".ignore".to_vec()), ..WalkOptions::default() };
        let found = names(&mut Walker::new(&[dir.path().into()], options).unwrap());
        assert!(found.contains(&"kept".to_owned()) && found.iter().any(|n| n.starts_with('!')), "{found:?}");
    }

    #[test]
    fn caches_and_ignored_files_are_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path();
        std::fs::create_dir_all(base.join("cache/deep")).unwrap();
        std::fs::write(base.join("cache/CACHEDIR.TAG"), CACHEDIR_TAG.1).unwrap();
        std::fs::write(base.join("cache/deep/x"), b"").unwrap();
        std::fs::create_dir(base.join("sub")).unwrap();
        std::fs::write(base.join("sub/.ignore"), b"# no logs\n*.log\n!keep.log\n").unwrap();
        for name in ["a.log", "sub/b.log", "sub/keep.log"] {
            std::fs::write(base.join(name), b"").unwrap();
        }
        let options = WalkOptions { caches: true, ignore_file: Some(b".ignore".to_vec()), ..WalkOptions::default() };
        let found = names(&mut Walker::new(&[base.into()], options).unwrap());
        for there in ["CACHEDIR.TAG", "a.log", "keep.log", ".ignore"] {
            assert!(found.contains(&there.to_owned()), "{there}: {found:?}");
        }
        assert!(!found.contains(&"deep/".to_owned()) && !found.contains(&"b.log".to_owned()));
    }
}
