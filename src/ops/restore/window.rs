//! A bounded part of a restore: its packs are read in order, each range once.

use super::Shared;
use super::file::FileTask;
use crate::base::{ChunkId, PackName};
use crate::chunk::Coder;
use crate::error::Kind;
use crate::format::tree::Entry;
use crate::repo::index::Located;
use crate::source::files::TargetDir;
use crate::store::Key;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Most chunks of a window.
const REFS_MAX: usize = 32 << 10;
/// Most files of a window.
const FILES_MAX: usize = 4096;
/// Most directories of a window: each holds a descriptor.
const DIRS_MAX: usize = 512;
/// Most links of a window.
const LINKS_MAX: usize = 256;
/// Most bytes of the paths of directories and links that wait in a window.
const PATH_BYTES_MAX: usize = 16 << 20;
/// Ranges closer than this are read as one.
const GAP_BYTES_MAX: u32 = 128 << 10;
/// Longest range that is read at once.
const RANGE_BYTES_MAX: u32 = 8 << 20;
/// Shares of the descriptors that the files, the directories and the links of a window may take. Two windows are at
/// work at a time, and the planner and the packs need some too.
const FILES_SHARE: usize = 8;
const DIRS_SHARE: usize = 16;

/// A chunk that a file needs.
pub(super) struct ChunkRef {
    pub(super) id: ChunkId,
    pub(super) len: u64,
    pub(super) offset: u64,
    pub(super) task: Arc<FileTask>,
}

/// A further name of an inode.
pub(super) struct Link {
    pub(super) dir: Arc<TargetDir>,
    pub(super) entry: Entry,
    pub(super) path: Vec<u8>,
    /// Path of its first name in the target.
    pub(super) first: Vec<u8>,
    /// Whether that one failed.
    pub(super) failed: Arc<AtomicBool>,
}

/// What is gathered.
pub(super) struct Window {
    /// How many files the process may have open.
    descriptors: usize,
    pub(super) refs: Vec<ChunkRef>,
    pub(super) files: usize,
    /// Those of them that may hold a descriptor while they wait for the next chunk.
    pub(super) files_held: usize,
    /// Directories to be finished: open, entry, path.
    pub(super) dirs: Vec<(Arc<TargetDir>, Entry, Vec<u8>)>,
    pub(super) links: Vec<Link>,
}

/// What one worker re-uses from record to record.
#[derive(Default)]
pub(super) struct Hands {
    coder: Coder,
    scratch: Vec<u8>,
    /// What is read.
    buffer: Vec<u8>,
}

/// Neighbouring records of one pack, with the references to them.
pub(super) struct Range {
    refs: Vec<(Located, ChunkRef)>,
    from: u32,
    to: u32,
}

impl Window {
    pub(super) fn new(descriptors: usize) -> Self {
        Window { descriptors, refs: Vec::new(), files: 0, files_held: 0, dirs: Vec::new(), links: Vec::new() }
    }

    pub(super) fn is_full(&self) -> bool {
        self.refs.len() >= REFS_MAX
            || self.files >= FILES_MAX
            || self.files_held >= self.descriptors / FILES_SHARE
            || self.dirs.len() >= DIRS_MAX.min(self.descriptors / DIRS_SHARE)
            || self.links.len() >= LINKS_MAX.min(self.descriptors / DIRS_SHARE)
            || self.path_bytes() >= PATH_BYTES_MAX
    }

    fn path_bytes(&self) -> usize {
        let dirs: usize = self.dirs.iter().map(|(_, _, path)| path.len()).sum();
        self.links.iter().fold(dirs, |sum, link| sum + link.path.len() + link.first.len())
    }

    /// Takes the references out, as ranges to be read.
    pub(super) fn ranges(&mut self, shared: &Shared<'_>) -> Vec<Range> {
        (self.files, self.files_held) = (0, 0);
        plan_ranges(shared, std::mem::take(&mut self.refs))
    }
}

/// Sorts references by pack (in order of first use) and place, and joins neighbours.
fn plan_ranges(shared: &Shared<'_>, refs: Vec<ChunkRef>) -> Vec<Range> {
    let mut order: HashMap<PackName, usize> = HashMap::new();
    let mut placed = Vec::with_capacity(refs.len());
    for chunk in refs {
        match shared.reader.index.locate(&chunk.id).next() {
            Some(at) => {
                let count = order.len();
                let rank = *order.entry(at.pack.name).or_insert(count);
                placed.push((rank, at, chunk));
            }
            None => fetch_alone(shared, chunk, &mut Coder::default()),
        }
    }
    placed.sort_by_key(|(rank, at, _)| (*rank, at.place.offset, at.place.inside));
    let mut ranges: Vec<Range> = Vec::new();
    for (_, at, chunk) in placed {
        let (from, to) = (at.place.offset, at.place.offset.saturating_add(at.place.record_len));
        match ranges.last_mut() {
            Some(open)
                if open.refs.first().is_some_and(|(first, _)| first.pack.name == at.pack.name)
                    && from <= open.to.saturating_add(GAP_BYTES_MAX)
                    && to.saturating_sub(open.from) <= RANGE_BYTES_MAX =>
            {
                open.to = open.to.max(to);
                open.refs.push((at, chunk));
            }
            _ => ranges.push(Range { refs: vec![(at, chunk)], from, to }),
        }
    }
    ranges
}

/// One range from the first usable region; whatever is wrong with it is fetched alone, from anywhere.
pub(super) fn restore_range(shared: &Shared<'_>, range: Range, hands: &mut Hands) {
    let Some((first, _)) = range.refs.first() else { return };
    let name = first.pack.name;
    let key = Key::Pack(name);
    let repo = &shared.reader.repo;
    let order = shared.reader.order(first.regions);
    let Hands { coder, scratch, buffer } = hands;
    let read = repo.regions.get_range_from(&order, &key, u64::from(range.from)..u64::from(range.to), buffer);
    let ix = read.as_ref().map(|(ix, _)| *ix);
    let fetched = read.and_then(|(ix, read)| {
        let keys = shared.reader.pack_keys(&name, ix);
        match (read, keys) {
            (Ok(bytes), Ok(keys)) => Some((bytes, keys)),
            // Read again alone, which names what is missing as such.
            (Err(e), _) | (_, Err(e)) if e.kind() == Kind::NotFound => None,
            (Err(e), _) | (_, Err(e)) => {
                repo.regions.record_unread(ix, &key, &e);
                None
            }
        }
    });
    let Some((bytes, keys)) = fetched else {
        range.refs.into_iter().for_each(|(_, chunk)| fetch_alone(shared, chunk, coder));
        return;
    };
    shared.progress.bytes_read.add(bytes.len() as u64);
    let mut refs = range.refs.into_iter().peekable();
    while let Some(first) = refs.next() {
        let (at, record) = (first.0, record_of(&first.0));
        let mut same = vec![first];
        while let Some(next) = refs.next_if(|(at, _)| record_of(at) == record) {
            same.push(next);
        }
        let start = (at.place.offset - range.from) as usize;
        let sealed = bytes.get_mut(start..start + at.place.record_len as usize).unwrap_or_default();
        let plain = shared.reader.open_at(&keys, &at, sealed, coder, scratch);
        if let (Err(why), Some(ix)) = (&plain, ix) {
            repo.regions.record(ix, &key.path(), why);
        }
        for (at, chunk) in same {
            let part = plain.as_ref().ok().and_then(|(content, plain)| content.part(&at, plain));
            match part {
                Some(part) if at.place.id == chunk.id && part.len() as u64 == chunk.len => {
                    chunk.task.put(shared, chunk.offset, part)
                }
                _ => fetch_alone(shared, chunk, coder),
            }
        }
    }
}

/// What tells one record from another: its number, and for a chunk's own record the chunk. An index may name one
/// record for several chunks; it is at most one of them.
fn record_of(at: &Located) -> (u32, Option<ChunkId>) {
    (at.place.number, at.place.inside.is_none().then_some(at.place.id))
}

fn fetch_alone(shared: &Shared<'_>, chunk: ChunkRef, coder: &mut Coder) {
    match shared.reader.chunk(&chunk.id, coder) {
        Ok(bytes) if bytes.len() as u64 == chunk.len => chunk.task.put(shared, chunk.offset, &bytes),
        Ok(_) => {
            let what = "a chunk's length is not what the file's list says";
            chunk.task.lost(shared, &crate::error::Error::new(crate::error::Kind::Damage, what));
        }
        Err(e) => chunk.task.lost(shared, &e),
    }
}
