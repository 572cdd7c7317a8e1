//! What damaged objects touch: how many chunks, and which snapshots and files have need of them. That is what would be lost
//! if no other copy were good; what is lost indeed stands in the report of the check.
//!
//! The trees of all snapshots are walked once, each page once however many snapshots share it. Memory: an entry for each
//! chunk of the damaged packs and for each page.

use crate::base::{Cancel, ChunkId, PackName, SessionId};
use crate::chunk::Coder;
use crate::error::{Kind, Result};
use crate::format::tree::{Entry, EntryType};
use crate::region::Finding;
use crate::repo::index::{Index, open_segment};
use crate::repo::reader::Reader;
use crate::repo::tree::{DirReader, ListReader, check_depth};
use crate::repo::view::View;
use crate::repo::{Repo, SMALL_OBJECT_BYTES_MAX};
use crate::store::Key;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// Snapshots and files that are named for one object.
const NAMED_MAX: usize = 8;

/// What one object touches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Harm {
    /// Chunks that lie in it, or that it says the place of.
    pub chunks: u64,
    /// Snapshots that need it.
    pub snapshots: u64,
    /// Ids of the first of them.
    pub snapshot_ids: Vec<SessionId>,
    /// Files and directories that need it, each counted once where snapshots share it.
    pub files: u64,
    /// The first of them.
    pub paths: Vec<String>,
}

impl Harm {
    fn snapshot(&mut self, sid: SessionId) {
        self.snapshots += 1;
        if self.snapshot_ids.len() < NAMED_MAX {
            self.snapshot_ids.push(sid);
        }
    }

    fn file(&mut self, path: &[u8]) {
        self.files += 1;
        if self.paths.len() < NAMED_MAX {
            self.paths.push(format!("/{}", String::from_utf8_lossy(path).escape_debug()));
        }
    }
}

/// What each object with a finding touches. Objects that no snapshot can need are not among them.
///
/// # Errors
/// Interrupted.
pub fn of(repo: &Arc<Repo>, findings: &[Finding], cancel: &Cancel) -> Result<BTreeMap<Key, Harm>> {
    let keys: BTreeSet<Key> = findings.iter().filter_map(|finding| Key::parse(&finding.object)).collect();
    let mut harms = BTreeMap::new();
    let needed = |key: &Key| matches!(key, Key::Pack(_) | Key::Index(_) | Key::Snapshot(_));
    if !keys.iter().any(needed) {
        return Ok(harms);
    }
    let (view, index) = (View::load(repo)?, Arc::new(Index::load_afresh(repo)?));
    let packs: Vec<PackName> =
        keys.iter().filter_map(|key| if let Key::Pack(name) = key { Some(*name) } else { None }).collect();
    for key in &keys {
        match key {
            Key::Index(name) => drop(harms.insert(*key, segment(repo, &index, &view, *name))),
            Key::Snapshot(sid) => drop(view.snapshots.get(sid).map(|snapshot| {
                let mut harm = Harm { files: snapshot.manifest.counts.files, ..Harm::default() };
                harm.snapshot(*sid);
                harms.insert(*key, harm)
            })),
            _ => {}
        }
    }
    if !packs.is_empty() {
        let found = in_packs(repo, &index, &view, &packs, cancel)?;
        harms.extend(packs.into_iter().map(Key::Pack).zip(found));
    }
    Ok(harms)
}

/// A segment says where chunks lie that the snapshot of its session stored.
fn segment(repo: &Arc<Repo>, index: &Index, view: &View, name: crate::base::SegmentName) -> Harm {
    let (mut harm, key) = (Harm::default(), Key::Index(name));
    let intact = |ix: usize| {
        let bytes = repo.regions.get(ix, &key, SMALL_OBJECT_BYTES_MAX).ok()?;
        open_segment(repo, &key, &bytes).ok()
    };
    if let Some(content) = repo.usable().iter().find_map(intact) {
        harm.chunks = (content.segment.entries.len() / crate::format::index::ENTRY_BYTES) as u64;
    }
    let sid = index.segments().find(|segment| segment.name == name).map(|segment| segment.sid);
    if let Some(sid) = sid.filter(|sid| view.snapshots.contains_key(sid)) {
        harm.snapshot(sid);
    }
    harm
}

/// Numbers of the objects that something needs.
type Needs = BTreeSet<u32>;

struct Walk<'w> {
    reader: Reader,
    /// Which of the damaged packs a chunk lies in.
    lies: HashMap<ChunkId, Vec<u32>>,
    /// What the pages below a directory need, where it is anything.
    below: HashMap<ChunkId, Needs>,
    /// Those that need nothing.
    clean: HashSet<ChunkId>,
    harms: Vec<Harm>,
    coder: Coder,
    cancel: &'w Cancel,
}

fn in_packs(
    repo: &Arc<Repo>,
    index: &Arc<Index>,
    view: &View,
    packs: &[PackName],
    cancel: &Cancel,
) -> Result<Vec<Harm>> {
    let numbers: HashMap<PackName, u32> = packs.iter().copied().zip(0..).collect();
    let mut harms = vec![Harm::default(); packs.len()];
    let mut lies: HashMap<ChunkId, Vec<u32>> = HashMap::new();
    for at in index.all() {
        if let Some(number) = numbers.get(&at.pack.name) {
            let all = lies.entry(at.place.id).or_default();
            if !all.contains(number) {
                all.push(*number);
                if let Some(harm) = harms.get_mut(*number as usize) {
                    harm.chunks += 1;
                }
            }
        }
    }
    let reader = Reader::new(Arc::clone(repo), Arc::clone(index));
    let (below, clean) = (HashMap::new(), HashSet::new());
    let mut walk = Walk { reader, lies, below, clean, harms, coder: Coder::default(), cancel };
    for snapshot in view.newest_first() {
        let needs = walk.root(&snapshot.manifest.root)?;
        for number in needs {
            if let Some(harm) = walk.harms.get_mut(number as usize) {
                harm.snapshot(snapshot.manifest.sid);
            }
        }
    }
    Ok(walk.harms)
}

/// A directory that is being read.
struct Open<'r> {
    id: ChunkId,
    dir: DirReader<'r>,
    /// Length of its path.
    prefix: usize,
    needs: Needs,
}

impl Walk<'_> {
    /// What a snapshot needs of the damaged packs.
    fn root(&mut self, root: &Entry) -> Result<Needs> {
        // The pages of the reader are its own; the rest of the walk is written to beside it.
        let Walk { reader, lies, below, clean, harms, coder, cancel } = self;
        let mut of_root = Needs::new();
        need(lies, root.xattrs_ref.iter(), &mut of_root);
        let mut path = Vec::new();
        let mut stack: Vec<Open<'_>> = Vec::new();
        let mut known = enter(reader, below, clean, root.tree, 0, &mut stack);
        of_root.append(&mut known);
        while let Some(open) = stack.last_mut() {
            cancel.check()?;
            let next = open.dir.next(coder);
            let mut own = Needs::new();
            need(lies, open.dir.take_pages().iter(), &mut own);
            let entry = match next {
                Ok(Some(entry)) => Some(entry),
                Ok(None) => None,
                Err(e) if e.kind() == Kind::Cancelled => return Err(e),
                // Pages that nobody can read: what of it could be, was.
                Err(_) => None,
            };
            name(harms, &own, &path[..open.prefix]);
            open.needs.extend(own);
            let Some(entry) = entry else {
                close(below, clean, &mut stack, &mut of_root);
                continue;
            };
            path.truncate(open.prefix);
            path.extend_from_slice(&entry.name);
            let mut own = Needs::new();
            need(lies, entry.xattrs_ref.iter(), &mut own);
            if entry.kind == EntryType::File {
                file(reader, lies, &entry, coder, &mut own);
            }
            name(harms, &own, &path);
            open.needs.extend(own);
            if entry.kind == EntryType::Dir && check_depth(stack.len()).is_ok() {
                path.push(b'/');
                let mut known = enter(reader, below, clean, entry.tree, path.len(), &mut stack);
                if let Some(open) = stack.last_mut() {
                    open.needs.append(&mut known);
                }
            }
        }
        Ok(of_root)
    }
}

/// Opens a directory that was not read yet; what is known of it otherwise.
fn enter<'r>(
    reader: &'r Reader,
    below: &HashMap<ChunkId, Needs>,
    clean: &HashSet<ChunkId>,
    tree: Option<ChunkId>,
    prefix: usize,
    stack: &mut Vec<Open<'r>>,
) -> Needs {
    let Some(id) = tree.filter(|id| !clean.contains(id)) else { return Needs::new() };
    if let Some(known) = below.get(&id) {
        return known.clone();
    }
    stack.push(Open { id, dir: DirReader::new(reader, tree), prefix, needs: Needs::new() });
    Needs::new()
}

/// Keeps what was found of a directory, for it and for the one above it.
fn close(
    below: &mut HashMap<ChunkId, Needs>,
    clean: &mut HashSet<ChunkId>,
    stack: &mut Vec<Open<'_>>,
    root: &mut Needs,
) {
    let Some(Open { id, needs, .. }) = stack.pop() else { return };
    stack.last_mut().map_or(root, |open| &mut open.needs).extend(needs.iter().copied());
    if needs.is_empty() {
        clean.insert(id);
    } else {
        below.insert(id, needs);
    }
}

fn need<'c>(lies: &HashMap<ChunkId, Vec<u32>>, chunks: impl Iterator<Item = &'c ChunkId>, needs: &mut Needs) {
    needs.extend(chunks.filter_map(|id| lies.get(id)).flatten());
}

fn name(harms: &mut [Harm], needs: &Needs, path: &[u8]) {
    for number in needs {
        if let Some(harm) = harms.get_mut(*number as usize) {
            harm.file(path);
        }
    }
}

/// The chunks of a file and of its lists, as far as these can be read.
fn file(reader: &Reader, lies: &HashMap<ChunkId, Vec<u32>>, entry: &Entry, coder: &mut Coder, needs: &mut Needs) {
    let Ok(mut list) = ListReader::new(reader, entry) else { return };
    loop {
        let item = list.next(coder);
        need(lies, list.take_pages().iter(), needs);
        match item {
            Ok(Some(item)) => need(lies, std::iter::once(&item.id), needs),
            Ok(None) | Err(_) => return,
        }
    }
}
