//! Walks the snapshot's tree and fills windows.

use super::crew::{Crew, Finish};
use super::file::FileTask;
use super::window::{ChunkRef, Hands, Link, Window, restore_range};
use super::{RestoreRequest, Shared};
use crate::base::ChunkId;
use crate::chunk::Coder;
use crate::error::{Error, Kind, Result};
use crate::format::tree::{Entry, EntryType};
use crate::ops::verdicts::attribute;
use crate::repo::tree::{DirReader, ListReader, check_depth, read_xattrs};
use crate::source::files::{Target, TargetDir, descriptors};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A directory that is being restored.
struct Open<'r> {
    entry: Entry,
    reader: DirReader<'r>,
    /// Where its path ends.
    path_len: usize,
    /// Whether everything below is wanted.
    included: bool,
    /// Open once something in it is wanted.
    target: Option<Arc<TargetDir>>,
    /// Whether a page of it was lost: then nobody knows which names do not belong there.
    cut_short: bool,
    /// Names that belong there, when others are to be removed.
    names: BTreeSet<Vec<u8>>,
}

/// The first restored name of an inode, relative to the target.
struct FirstLink {
    path: Vec<u8>,
    left: u64,
    failed: Arc<AtomicBool>,
}

pub(super) struct Planner<'s, 'r> {
    shared: &'s Shared<'r>,
    request: &'s RestoreRequest,
    target: Option<Target>,
    coder: Coder,
    crew: &'s Crew,
    window: Window,
    /// What is to be done when the window that is at work is done.
    waiting: Option<Finish>,
    stack: Vec<Open<'r>>,
    path: Vec<u8>,
    /// Only inodes with several names; an entry goes when its last name was met.
    links: HashMap<(u64, u64), FirstLink>,
    /// Entries still allowed: directories that share pages could make any number of few.
    entries_left: u64,
}

impl<'s, 'r> Planner<'s, 'r> {
    pub(super) fn new(
        shared: &'s Shared<'r>,
        request: &'s RestoreRequest,
        target: Option<Target>,
        crew: &'s Crew,
        entries_left: u64,
    ) -> Self {
        Planner {
            shared,
            request,
            target,
            coder: Coder::default(),
            crew,
            window: Window::new(descriptors()),
            waiting: None,
            stack: Vec::new(),
            path: Vec::new(),
            links: HashMap::new(),
            entries_left,
        }
    }

    /// A whole directory.
    pub(super) fn tree(&mut self, root: &Entry) -> Result<()> {
        let target = self.target.as_ref().map(Target::root);
        self.stack.push(Open {
            entry: root.clone(),
            reader: DirReader::new(self.shared.reader, root.tree),
            path_len: 0,
            included: !self.request.only_included,
            target,
            cut_short: false,
            names: BTreeSet::new(),
        });
        while let Some(open) = self.stack.last_mut() {
            self.shared.cancel.check()?;
            match open.reader.next(&mut self.coder) {
                Ok(Some(entry)) => self.entry(entry)?,
                Ok(None) => self.leave()?,
                // The rest of this directory is lost; everything else is not.
                Err(e) => {
                    open.cut_short = true;
                    self.shared.lost(&self.path[..open.path_len.min(self.path.len())], &e);
                    self.leave()?;
                }
            }
        }
        self.end()
    }

    /// One file or other entry, into the target directory under its own name.
    pub(super) fn single(&mut self, entry: &Entry) -> Result<()> {
        self.path = entry.name.to_vec();
        let dir = self.target.as_ref().map(Target::root);
        self.restore(entry.clone(), dir.as_ref())?;
        self.end()
    }

    fn entry(&mut self, entry: Entry) -> Result<()> {
        self.entries_left = self.entries_left.checked_sub(1).ok_or_else(|| {
            Error::new(Kind::Damage, "the snapshot has more entries than its manifest says")
                .advise("what was restored so far was left there")
        })?;
        let Some(open) = self.stack.last_mut() else { return Ok(()) };
        self.path.truncate(open.path_len);
        if !self.path.is_empty() {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(&entry.name);
        if !entry.name_is_safe() {
            self.shared.miss(&self.path, "refused", "the snapshot has a name that no directory can hold");
            return Ok(());
        }
        if self.request.delete {
            open.names.insert(entry.name.to_vec());
        }
        let is_dir = entry.kind == EntryType::Dir;
        if self.request.exclude.excludes(&self.path, is_dir) {
            return Ok(());
        }
        let included = open.included || self.request.include.excludes(&self.path, is_dir);
        if is_dir {
            return self.enter(entry, included);
        }
        if !included {
            return Ok(());
        }
        match self.open_dirs() {
            Some(dir) => self.restore(entry, dir.as_ref()),
            None => Ok(()),
        }
    }

    fn enter(&mut self, entry: Entry, included: bool) -> Result<()> {
        if let Err(e) = check_depth(self.stack.len()) {
            self.shared.miss(&self.path, "refused", e.what());
            return Ok(());
        }
        let reader = DirReader::new(self.shared.reader, entry.tree);
        let path_len = self.path.len();
        let names = BTreeSet::new();
        self.stack.push(Open { entry, reader, path_len, included, target: None, cut_short: false, names });
        if included && self.open_dirs().is_none() {
            // Named already; nothing below it can be restored.
            self.stack.pop();
        }
        Ok(())
    }

    /// Makes the directories down to the current one. Outer `None`: one of them cannot be made;
    /// inner `None`: a dry run.
    #[allow(clippy::option_option)]
    fn open_dirs(&mut self) -> Option<Option<Arc<TargetDir>>> {
        if self.target.is_none() {
            return Some(None);
        }
        for depth in 1..self.stack.len() {
            if self.stack[depth].target.is_some() {
                continue;
            }
            let parent = self.stack[depth - 1].target.clone()?;
            match parent.enter(&self.stack[depth].entry.name) {
                Ok(dir) => self.stack[depth].target = Some(dir),
                Err(e) => {
                    let path = self.path[..self.stack[depth].path_len].to_vec();
                    self.shared.misses(&path, &[e]);
                    return None;
                }
            }
        }
        self.stack.last().map(|open| open.target.clone())
    }

    fn leave(&mut self) -> Result<()> {
        let Some(open) = self.stack.pop() else { return Ok(()) };
        if open.target.is_none() && (self.target.is_some() || !open.included) {
            return Ok(());
        }
        self.shared.note(|report| report.dirs += 1);
        self.shared.progress.dirs.add(1);
        let Some(dir) = open.target else { return Ok(()) };
        let path = self.path[..open.path_len.min(self.path.len())].to_vec();
        if self.request.delete && !open.cut_short {
            self.delete_others(&dir, &open.names, &path);
        }
        let mut entry = open.entry;
        self.load_xattrs(&mut entry, &path);
        self.window.dirs.push((dir, entry, path));
        if self.window.is_full() { self.flush() } else { Ok(()) }
    }

    fn delete_others(&mut self, dir: &Arc<TargetDir>, keep: &BTreeSet<Vec<u8>>, path: &[u8]) {
        let names = match dir.names() {
            Ok(names) => names,
            Err(e) => return self.shared.misses(path, &[e]),
        };
        let mut others = names.into_iter().filter(|name| !keep.contains(name)).peekable();
        if let (Some(why), Some(_)) = (dir.kept(), others.peek()) {
            return self.shared.miss(path, "kept", why);
        }
        for name in others {
            match dir.remove_all(&name) {
                Ok(()) => self.shared.note(|report| report.deleted += 1),
                Err(e) => self.shared.misses(&[path, b"/", &name].concat(), &[e]),
            }
        }
    }

    fn load_xattrs(&mut self, entry: &mut Entry, path: &[u8]) {
        let Some(id) = entry.xattrs_ref.take() else { return };
        match read_xattrs(self.shared.reader, &id, &mut self.coder) {
            Ok(found) => entry.xattrs = Some(found),
            Err(e) => self.shared.lost(path, &e),
        }
    }

    /// Anything but a directory.
    fn restore(&mut self, mut entry: Entry, dir: Option<&Arc<TargetDir>>) -> Result<()> {
        let path = self.path.clone();
        if !entry.name_is_safe() {
            self.shared.miss(&path, "refused", "the snapshot has a name that no directory can hold");
            return Ok(());
        }
        let Some(dir) = dir else {
            self.shared.note(|report| report.count(&entry));
            return Ok(());
        };
        if self.request.delete && !dir.is_new() && !self.clear(dir, &entry.name, &path) {
            return Ok(());
        }
        self.load_xattrs(&mut entry, &path);
        let Some(failed) = self.link(&entry, dir, &path) else {
            // Links keep directories open: they must not gather while no directory ends.
            return if self.window.is_full() { self.flush() } else { Ok(()) };
        };
        if entry.kind == EntryType::File {
            return self.file(entry, dir, path, failed);
        }
        match dir.special(&entry) {
            Ok(_) => self.shared.note(|report| report.others += 1),
            Err(errors) => {
                failed.store(!dir.stands(&entry), Ordering::Relaxed);
                self.shared.misses(&path, &errors);
            }
        }
        Ok(())
    }

    /// Removes a directory that stands in the way of something else. False if that fails.
    fn clear(&self, dir: &Arc<TargetDir>, name: &[u8], path: &[u8]) -> bool {
        let done = match dir.kind_of(name) {
            Ok(Some(EntryType::Dir)) => dir.remove_all(name).map(|()| self.shared.note(|report| report.deleted += 1)),
            other => other.map(drop),
        };
        done.map_err(|e| self.shared.misses(path, &[e])).is_ok()
    }

    /// `None` if the entry is a further name of an inode whose first name was restored before: it is linked later.
    /// Otherwise the entry must be restored, and says in the flag if it cannot.
    fn link(&mut self, entry: &Entry, dir: &Arc<TargetDir>, path: &[u8]) -> Option<Arc<AtomicBool>> {
        let failed = Arc::new(AtomicBool::new(false));
        let Some(group) = entry.link_group() else { return Some(failed) };
        let nlink = entry.nlink.unwrap_or(1);
        let new = FirstLink { path: path.to_vec(), left: nlink, failed: Arc::clone(&failed) };
        let first = self.links.entry(group).or_insert(new);
        first.left = first.left.saturating_sub(1);
        let last = first.left == 0;
        if Arc::ptr_eq(&first.failed, &failed) {
            return Some(failed);
        }
        let linked = !first.failed.load(Ordering::Relaxed);
        if linked {
            let (dir, path, failed) = (Arc::clone(dir), path.to_vec(), Arc::clone(&first.failed));
            self.window.links.push(Link { dir, entry: entry.clone(), path, first: first.path.clone(), failed });
        } else {
            // Something was in the way of the first name: this one takes its place.
            (first.path, first.failed) = (path.to_vec(), Arc::clone(&failed));
        }
        if last {
            self.links.remove(&group);
        }
        (!linked).then_some(failed)
    }

    fn file(&mut self, mut entry: Entry, dir: &Arc<TargetDir>, path: Vec<u8>, failed: Arc<AtomicBool>) -> Result<()> {
        // The source does not have this.
        let recorded = if self.shared.models { attribute::take(&mut entry) } else { None };
        let hash = recorded.map(|recorded| recorded.sha256);
        let task = Arc::new(FileTask::new(entry, Arc::clone(dir), path, failed, hash));
        if !task.prepare(self.shared) {
            return Ok(());
        }
        let mut list = match ListReader::new(self.shared.reader, &task.entry) {
            Ok(list) => list,
            Err(e) => {
                task.give_up(self.shared, &e);
                task.settle(self.shared);
                return Ok(());
            }
        };
        let mut offset = 0u64;
        loop {
            let item = match list.next(&mut self.coder) {
                Ok(Some(item)) => item,
                Ok(None) => break,
                Err(e) => {
                    task.give_up(self.shared, &e);
                    break;
                }
            };
            if item.id == ChunkId::HOLE {
                task.hole(self.shared, offset, item.len);
            } else if !task.has_already(self.shared, &item, offset) {
                task.expect();
                self.window.refs.push(ChunkRef { id: item.id, len: item.len, offset, task: Arc::clone(&task) });
            }
            offset = offset.saturating_add(item.len);
            if self.window.is_full() {
                self.flush()?;
            }
        }
        if offset.saturating_add(task.entry.inline.as_ref().map_or(0, |i| i.len() as u64)) != task.entry.size() {
            let e = Error::new(Kind::Damage, "chunks do not add up to the file's size");
            task.give_up(self.shared, &e);
        }
        self.window.files += 1;
        self.window.files_held += usize::from(task.holds_descriptor());
        task.settle(self.shared);
        Ok(())
    }

    /// Gives what is gathered to the workers, and finishes what they were given before.
    fn flush(&mut self) -> Result<()> {
        let ranges = self.window.ranges(self.shared);
        let (dirs, links) = (std::mem::take(&mut self.window.dirs), std::mem::take(&mut self.window.links));
        let finish = Finish { dirs, links };
        let alone = self.request.workers == 0 || (self.waiting.is_none() && ranges.len() <= 1);
        if alone {
            let mut hands = Hands::default();
            for range in ranges {
                self.shared.cancel.check()?;
                restore_range(self.shared, range, &mut hands);
            }
            self.finish(finish);
        } else {
            self.crew.put(ranges);
            if let Some(before) = self.waiting.replace(finish) {
                self.crew.wait();
                self.shared.cancel.check()?;
                self.finish(before);
            }
        }
        self.shared.cancel.check()
    }

    /// The last of it.
    fn end(&mut self) -> Result<()> {
        self.flush()?;
        if let Some(last) = self.waiting.take() {
            self.crew.wait();
            self.shared.cancel.check()?;
            self.finish(last);
        }
        Ok(())
    }

    /// Names and metadata that depend on what the workers did.
    fn finish(&mut self, Finish { dirs, links }: Finish) {
        for Link { dir, entry, path, first, failed } in links {
            let Some(target) = &self.target else { continue };
            if failed.load(Ordering::Relaxed) {
                let what = "not linked: its first name could not be restored";
                self.shared.miss(&path, "link", what);
                continue;
            }
            let linked = split_last(&first, target).and_then(|(from, name)| dir.link(&entry.name, &from, &name));
            match linked {
                Ok(()) => self.shared.note(|report| report.count(&entry)),
                Err(e) => self.shared.misses(&path, &[e]),
            }
        }
        for (dir, entry, path) in dirs {
            if let Err(errors) = dir.finish(&entry) {
                self.shared.misses(&path, &errors);
            }
        }
    }
}

/// The directory of a path inside the target, and the last name.
fn split_last(
    path: &[u8],
    target: &Target,
) -> std::result::Result<(Arc<TargetDir>, Vec<u8>), crate::source::files::SourceError> {
    let mut parts: Vec<&[u8]> = path.split(|b| *b == b'/').collect();
    let name = parts.pop().unwrap_or_default().to_vec();
    let mut dir = target.root();
    for part in parts {
        dir = dir.enter(part)?;
    }
    Ok((dir, name))
}
