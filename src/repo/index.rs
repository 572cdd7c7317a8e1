//! The dedup index in memory: all usable segments, looked up by chunk id.
//!
//! Costs 56 bytes an entry and about 7 for the table; nothing else grows with the repository.

use super::{Repo, SMALL_OBJECT_BYTES_MAX};
use crate::base::{ChunkId, Generation, PackName, SegmentName, SessionId};
use crate::error::Result;
use crate::format::FormatError;
use crate::format::envelope::Kind as ObjectKind;
use crate::format::index::{ENTRY_BYTES, PackLine, Place, Segment};
use crate::format::signed::Opened;
use crate::region::RegionSet;
use crate::store::{Key, Prefix};
use hashbrown::HashTable;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// One loaded segment.
#[derive(Debug)]
pub struct LoadedSegment {
    /// Its name.
    pub name: SegmentName,
    /// Who wrote its packs.
    pub sid: SessionId,
    /// Their generation.
    pub generation: Generation,
    /// Its packs.
    pub packs: Vec<PackLine>,
    /// Regions that list it.
    pub regions: RegionSet,
    first_entry: u32,
    first_pack: u32,
}

/// A place with what surrounds it.
#[derive(Debug, Clone, Copy)]
pub struct Located {
    /// Where in the pack.
    pub place: Place,
    /// The pack.
    pub pack: PackLine,
    /// Its number among all packs of the index.
    pub pack_no: u32,
    /// Its generation.
    pub generation: Generation,
    /// Regions that list a segment which names it.
    pub regions: RegionSet,
}

/// The index.
#[derive(Debug, Default)]
pub struct Index {
    segments: Vec<LoadedSegment>,
    entries: Vec<u8>,
    table: HashTable<u32>,
    packs_total: u32,
}

/// Ids are keyed hashes: their first bytes are as good as any hash of them.
fn hash_of(id: &[u8]) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&id[..8]);
    u64::from_le_bytes(first)
}

/// Opens and checks one segment.
///
/// # Errors
/// As [`Opened::open`], and entries that do not fit their packs.
pub fn open_segment(repo: &Repo, key: &Key, bytes: &[u8]) -> std::result::Result<Segment, FormatError> {
    let opened = Opened::open(bytes, &key.canonical(), repo.trust())?;
    if opened.kind != ObjectKind::Index {
        return Err(FormatError::Malformed("index segment", "kind"));
    }
    let segment: Segment = opened.decode("index segment")?;
    segment.check()?;
    Ok(segment)
}

/// Which segments each region lists.
pub fn listed(repo: &Repo) -> BTreeMap<SegmentName, RegionSet> {
    let mut found: BTreeMap<SegmentName, Vec<usize>> = BTreeMap::new();
    for ix in repo.usable().iter() {
        match repo.regions.list(ix, Prefix::Index) {
            Ok(lines) => lines.iter().for_each(|line| {
                if let Key::Index(name) = line.key {
                    found.entry(name).or_default().push(ix);
                }
            }),
            Err(e) => repo.regions.fail(ix, e),
        }
    }
    found.into_iter().map(|(name, at)| (name, RegionSet::of(at))).collect()
}

impl Index {
    /// Loads every segment that any region shows intact. Segments that none does are recorded.
    ///
    /// # Errors
    /// None so far: what cannot be read is recorded as a finding, and its chunks are not found.
    pub fn load(repo: &Repo) -> Result<Index> {
        let mut index = Index::default();
        for (name, regions) in listed(repo) {
            let key = Key::Index(name);
            let read = repo.regions.read(regions, &key, SMALL_OBJECT_BYTES_MAX, |bytes| {
                let segment = open_segment(repo, &key, bytes)?;
                let packs = segment.pack_lines()?;
                Ok((segment, packs))
            });
            if let Ok((segment, packs)) = read {
                index.add(name, &segment, packs, regions);
            }
        }
        index.build();
        Ok(index)
    }

    fn add(&mut self, name: SegmentName, segment: &Segment, packs: Vec<PackLine>, regions: RegionSet) {
        let first_entry = (self.entries.len() / ENTRY_BYTES) as u32;
        self.entries.extend_from_slice(&segment.entries);
        let (sid, generation) = (segment.sid, segment.generation);
        let first_pack = self.packs_total;
        self.packs_total += packs.len() as u32;
        self.segments.push(LoadedSegment { name, sid, generation, packs, regions, first_entry, first_pack });
    }

    fn build(&mut self) {
        let entries = &self.entries;
        let hash = |n: &u32| hash_of(&entries[*n as usize * ENTRY_BYTES..]);
        let count = (entries.len() / ENTRY_BYTES) as u32;
        self.table = HashTable::with_capacity(count as usize);
        for n in 0..count {
            self.table.insert_unique(hash(&n), n, hash);
        }
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len() / ENTRY_BYTES
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The newest generation of any segment.
    pub fn generation_max(&self) -> Option<Generation> {
        self.segments.iter().map(|s| s.generation).max()
    }

    /// The segments.
    pub fn segments(&self) -> &[LoadedSegment] {
        &self.segments
    }

    /// Every known place of a chunk.
    pub fn locate(&self, id: &ChunkId) -> impl Iterator<Item = Located> + '_ {
        let id = *id;
        self.table.iter_hash(hash_of(id.bytes())).filter_map(move |n| {
            let located = self.entry(*n)?;
            (located.place.id == id).then_some(located)
        })
    }

    fn entry(&self, n: u32) -> Option<Located> {
        let (raw, _) = self.entries.get(n as usize * ENTRY_BYTES..)?.split_first_chunk::<ENTRY_BYTES>()?;
        let place = Place::parse(raw);
        let at = self.segments.partition_point(|s| s.first_entry <= n).checked_sub(1)?;
        let segment = &self.segments[at];
        let pack = *segment.packs.get(place.pack as usize)?;
        let pack_no = segment.first_pack + place.pack;
        Some(Located { place, pack, pack_no, generation: segment.generation, regions: segment.regions })
    }

    /// All places in one pass.
    pub fn all(&self) -> impl Iterator<Item = Located> + '_ {
        (0..self.len() as u32).filter_map(|n| self.entry(n))
    }

    /// Every pack that is named, with the regions whose segments name it.
    pub fn packs(&self) -> BTreeMap<PackName, (PackLine, RegionSet)> {
        let mut packs = BTreeMap::new();
        for segment in &self.segments {
            for line in &segment.packs {
                let known = packs.entry(line.name).or_insert((*line, RegionSet::NONE));
                known.1 = known.1.or(segment.regions);
            }
        }
        packs
    }
}

/// What a writer may re-use.
#[derive(Debug)]
pub struct Reuse {
    /// Regions that must have a chunk.
    pub regions: RegionSet,
    /// Packs that must not be re-used.
    pub bad: HashSet<PackName>,
    /// The generation that is written.
    pub generation: Generation,
    /// In modes that trust nothing: packs that every region lists, with the size listed.
    pub present: Option<HashMap<PackName, u64>>,
}

/// The packs of an index that a writer may re-use, and those that it did.
#[derive(Debug)]
pub struct Reusable {
    index: Arc<Index>,
    /// By pack number: whether it may be re-used.
    good: Vec<bool>,
    /// By pack number: whether it was.
    used: Vec<AtomicBool>,
}

impl Reusable {
    /// Judges every pack of the index.
    pub fn new(index: Arc<Index>, rules: &Reuse) -> Reusable {
        let mut good = Vec::with_capacity(index.packs_total as usize);
        for segment in &index.segments {
            let fits = segment.generation == rules.generation && segment.regions.covers(rules.regions);
            good.extend(segment.packs.iter().map(|pack| {
                let present = rules.present.as_ref().is_none_or(|p| p.get(&pack.name) == Some(&pack.size));
                fits && present && !rules.bad.contains(&pack.name)
            }));
        }
        let used = good.iter().map(|_| AtomicBool::new(false)).collect();
        Reusable { index, good, used }
    }

    /// Whether a chunk need not be stored again: it lies in a pack that is not `damaged`. If so, the pack counts as
    /// used.
    pub fn has(&self, id: &ChunkId, damaged: impl Fn(&PackName) -> bool) -> bool {
        let good = |at: &Located| self.good.get(at.pack_no as usize) == Some(&true) && !damaged(&at.pack.name);
        let Some(at) = self.index.locate(id).find(good) else { return false };
        if let Some(used) = self.used.get(at.pack_no as usize) {
            used.store(true, Ordering::Relaxed);
        }
        true
    }

    /// Packs that were re-used so far.
    pub fn used(&self) -> HashSet<PackName> {
        let packs = self.index.segments.iter().flat_map(|s| &s.packs);
        packs.zip(&self.used).filter(|(_, used)| used.load(Ordering::Relaxed)).map(|(pack, _)| pack.name).collect()
    }
}
