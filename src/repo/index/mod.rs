//! The dedup index: every segment that the regions list, looked up by chunk id.
//!
//! With a folder for it, what segments say is kept on this machine in sealed runs, so that only new ones are read and
//! memory holds a filter ([`run`]). Without one it is all in memory ([`memory`]). Either way, which segments count,
//! and where, is what the regions list at the time it is loaded.

pub mod cache;
mod census;
mod filter;
mod kept_packs;
mod load;
pub mod memory;
pub mod run;
mod sealed;

pub use census::{PackSeen, SegmentSeen};
pub use load::{Holders, Listing};

use super::{Repo, SMALL_OBJECT_BYTES_MAX};
use crate::base::{ChunkId, Generation, PackName, SegmentName, SessionId, WriterId};
use crate::error::{Kind, Result};
use crate::format::FormatError;
use crate::format::envelope::Kind as ObjectKind;
use crate::format::index::{PackLine, Place, Segment};
use crate::format::ring::role;
use crate::format::signed::Opened;
use crate::region::{Ahead, Flaw, RegionSet, lock};
use crate::store::{Key, Prefix};
use bytes::Bytes;
use cache::{Cache, Kept};
use load::Shelved;
use memory::{Found, Memory};
use run::{Run, SegmentLine};
use sealed::Broken;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

/// A segment that was opened and checked.
#[derive(Debug, Clone)]
pub struct Content {
    /// What it says.
    pub segment: Segment,
    /// Its packs.
    pub packs: Vec<PackLine>,
    /// Who signed it.
    pub writer: WriterId,
    /// Size of the object, in bytes.
    pub size: u64,
}

/// Where segments come from.
pub trait Source: Send + Sync {
    /// These will be asked for, in this order.
    fn prepare(&self, _wanted: &[(SegmentName, RegionSet, u64)]) {}
    /// Reads a segment from one of these regions; `None` if none of them has it intact, which is then recorded.
    fn read(&self, name: SegmentName, at: RegionSet) -> Option<Content>;
    /// Whether segments of this writer count.
    fn trusts(&self, writer: &WriterId) -> bool;
    /// Takes note of regions whose copy cannot be right: it has another size.
    fn odd(&self, name: SegmentName, at: RegionSet);
    /// Whether every region was listed.
    fn whole(&self) -> bool;
}

/// One listed segment.
#[derive(Debug, Clone, Copy)]
pub struct LoadedSegment {
    /// Its name.
    pub name: SegmentName,
    /// Who wrote its packs.
    pub sid: SessionId,
    /// Their generation.
    pub generation: Generation,
    /// Regions that list it; none for one that does not count, or counts elsewhere in the index.
    pub regions: RegionSet,
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
    /// Its own number among all entries of the index.
    pub entry: u64,
    /// The number of its segment.
    segment: u32,
    /// Its generation.
    pub generation: Generation,
    /// Regions that list a segment which names it.
    pub regions: RegionSet,
}

/// What holds the entries of a part.
#[derive(Debug)]
enum Body {
    Memory(Memory),
    Run(Box<Kept>),
}

#[derive(Debug)]
struct Part {
    body: Body,
    lines: Vec<SegmentLine>,
    first_segment: u32,
    first_pack: u32,
    first_entry: u64,
    /// What a run said that turned out to be broken, read from the regions again.
    rescued: OnceLock<Memory>,
}

/// The index.
pub struct Index {
    parts: Vec<Part>,
    segments: Vec<LoadedSegment>,
    packs_total: u32,
    source: Arc<dyn Source>,
    cache: Option<Arc<Cache>>,
}

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Index").field("parts", &self.parts).finish_non_exhaustive()
    }
}

/// A 64-bit hash, scaled to a number below `count`; larger hashes give no smaller numbers.
fn scaled(hash: u64, count: u64) -> u64 {
    ((u128::from(hash) * u128::from(count)) >> 64) as u64
}

/// Opens and checks one segment.
///
/// # Errors
/// As [`Opened::open`], and entries that do not fit their packs.
pub fn open_segment(repo: &Repo, key: &Key, bytes: &[u8]) -> std::result::Result<Content, FormatError> {
    let opened = Opened::open(bytes, &key.canonical(), repo.trust())?;
    if opened.kind != ObjectKind::Index {
        return Err(FormatError::Malformed("index segment", "kind"));
    }
    let segment: Segment = opened.decode("index segment")?;
    segment.check()?;
    Ok(Content { packs: segment.pack_lines()?, segment, writer: opened.writer, size: bytes.len() as u64 })
}

/// Which segments each region lists.
pub fn listed(repo: &Repo) -> Listing {
    let mut found = Listing::new();
    for (ix, lines) in repo.regions.list_all(repo.usable(), Prefix::Index) {
        for line in lines {
            if let Key::Index(name) = line.key {
                found.entry(name).or_default().add(line.size, ix);
            }
        }
    }
    found
}

/// How often an index is listed again of which segments went away in between: a prune writes some anew.
const LISTED_MAX: usize = 3;

struct Regional {
    repo: Arc<Repo>,
    ahead: Mutex<Ahead>,
    /// Whether a segment that is gone may have been written anew: it is then listed again before it counts as missing.
    patient: bool,
    gone: AtomicBool,
}

impl Regional {
    fn of(repo: &Arc<Repo>, patient: bool) -> Arc<Regional> {
        let (ahead, gone) = (Mutex::default(), AtomicBool::new(false));
        Arc::new(Regional { repo: Arc::clone(repo), ahead, patient, gone })
    }

    /// Asks the cheapest of these regions; whether none of them has the object is asked of all.
    fn look(&self, key: &Key, at: RegionSet) -> Result<Option<Bytes>> {
        let regions = &self.repo.regions;
        let get = |ix: usize| regions.get_timed(ix, key, SMALL_OBJECT_BYTES_MAX);
        let mut order: Vec<usize> = at.iter().collect();
        order.sort_by_cached_key(|ix| regions.cost(*ix));
        let mut others = order.into_iter();
        let Some(first) = others.next() else { return Ok(None) };
        match get(first) {
            Err(e) if e.kind() == Kind::NotFound => {}
            read => return read.map(Some),
        }
        for ix in others {
            match get(ix) {
                Err(e) if e.kind() == Kind::NotFound => {}
                read => return read.map(Some),
            }
        }
        Ok(None)
    }
}

impl Source for Regional {
    fn prepare(&self, wanted: &[(SegmentName, RegionSet, u64)]) {
        let wanted = wanted.iter().map(|(name, at, size)| (Key::Index(*name), *at, *size));
        *lock(&self.ahead) = Ahead::of(&self.repo.regions, wanted);
    }

    fn read(&self, name: SegmentName, at: RegionSet) -> Option<Content> {
        let (repo, key) = (&self.repo, Key::Index(name));
        let check = |bytes: &[u8]| open_segment(repo, &key, bytes);
        if let Some(read) = lock(&self.ahead).open(&repo.regions, &key, check) {
            return Some(read);
        }
        if self.patient {
            match self.look(&key, at) {
                Ok(Some(bytes)) => {
                    if let Ok(content) = check(&bytes) {
                        return Some(content);
                    }
                }
                Ok(None) => {
                    self.gone.store(true, Ordering::Relaxed);
                    return None;
                }
                Err(_) => {}
            }
        }
        // Who has what is recorded by this.
        repo.regions.read(at, &key, SMALL_OBJECT_BYTES_MAX, check).ok()
    }

    fn trusts(&self, writer: &WriterId) -> bool {
        self.repo.ring().writer(writer).is_some_and(|writer| writer.roles & role::WRITE != 0)
    }

    fn odd(&self, name: SegmentName, at: RegionSet) {
        let path = Key::Index(name).path();
        at.iter().for_each(|ix| {
            self.repo.regions.record(
                ix,
                &path,
                (Flaw::Size, "has another size than the segment of this name".to_owned()),
            )
        });
    }

    fn whole(&self) -> bool {
        self.repo.usable().count() == self.repo.regions.len()
    }
}

impl Index {
    /// Loads every segment that any region lists: from the local cache, where the repository has one, or else from
    /// the first region that shows it intact. Segments that none does are recorded.
    ///
    /// # Errors
    /// None so far: what cannot be read is recorded as a finding, and its chunks are not found.
    pub fn load(repo: &Arc<Repo>) -> Result<Index> {
        Ok(Index::load_listed(repo, &listed(repo)))
    }

    /// The same of what was listed just now.
    pub fn load_listed(repo: &Arc<Repo>, listing: &Listing) -> Index {
        Index::patiently(repo, listing, repo.index_cache())
    }

    /// The same, from the regions alone and into memory: for those who ask what the regions can do.
    ///
    /// # Errors
    /// As [`Index::load`].
    pub fn load_afresh(repo: &Arc<Repo>) -> Result<Index> {
        Ok(Index::patiently(repo, &listed(repo), None))
    }

    /// Of segments that went away since they were listed, what took their place is loaded.
    fn patiently(repo: &Arc<Repo>, listing: &Listing, cache: Option<&Arc<Cache>>) -> Index {
        let mut source = Regional::of(repo, true);
        let mut index = Index::assemble(listing, source.clone(), cache.cloned());
        for patient in (1..LISTED_MAX).rev().map(|left| left > 1) {
            if !source.gone.load(Ordering::Relaxed) {
                break;
            }
            source = Regional::of(repo, patient);
            index = Index::assemble(&listed(repo), source.clone(), cache.cloned());
        }
        index
    }

    /// The index of what is listed.
    pub fn assemble(listing: &Listing, source: Arc<dyn Source>, cache: Option<Arc<Cache>>) -> Index {
        load::load(listing, source, cache)
    }

    fn of(shelves: Vec<Shelved>, source: Arc<dyn Source>, cache: Option<Arc<Cache>>) -> Index {
        let mut index = Index { parts: Vec::new(), segments: Vec::new(), packs_total: 0, source, cache };
        for Shelved { body, lines, regions } in shelves {
            let (first_segment, first_pack) = (index.segments.len() as u32, index.packs_total);
            index.packs_total += lines.iter().map(|line| line.packs).sum::<u32>();
            let loaded = |(line, regions): (&SegmentLine, RegionSet)| LoadedSegment {
                name: line.name,
                sid: line.sid,
                generation: line.generation,
                regions,
            };
            index.segments.extend(lines.iter().zip(regions).map(loaded));
            let first_entry = index.entries_total();
            index.parts.push(Part { body, lines, first_segment, first_pack, first_entry, rescued: OnceLock::new() });
        }
        index
    }

    /// The newest generation of any segment.
    pub fn generation_max(&self) -> Option<Generation> {
        self.segments().map(|s| s.generation).max()
    }

    /// The segments that count.
    pub fn segments(&self) -> impl Iterator<Item = &LoadedSegment> {
        self.segments.iter().filter(|s| !s.regions.is_empty())
    }

    /// Every known place of a chunk.
    pub fn locate(&self, id: &ChunkId) -> impl Iterator<Item = Located> + use<> {
        let mut found = Vec::new();
        self.first(id, |at| {
            found.push(*at);
            false
        });
        found.into_iter()
    }

    /// Whether some place of a chunk suits.
    pub fn any(&self, id: &ChunkId, suits: impl FnMut(&Located) -> bool) -> bool {
        self.first(id, suits).is_some()
    }

    /// The first place of a chunk that suits.
    fn first(&self, id: &ChunkId, mut suits: impl FnMut(&Located) -> bool) -> Option<Located> {
        for part in &self.parts {
            let found = match part.memory() {
                Some(memory) => memory.find(id).find_map(|found| self.located(part, &found).filter(&mut suits)),
                None => self.in_part(part, id).iter().find_map(|found| self.located(part, found).filter(&mut suits)),
            };
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// What a run has of a chunk; if it is broken, what the segments have that it was made of.
    fn in_part(&self, part: &Part, id: &ChunkId) -> Vec<Found> {
        let Body::Run(kept) = &part.body else { return Vec::new() };
        kept.run.find(id).unwrap_or_else(|Broken| self.rescue(part, kept).find(id).collect())
    }

    /// Reads what a broken run was made of.
    fn rescue<'p>(&self, part: &'p Part, kept: &Kept) -> &'p Memory {
        part.rescued.get_or_init(|| {
            if let Some(cache) = &self.cache {
                cache.drop_broken(kept);
            }
            let mut memory = Memory::default();
            for (line, loaded) in part.lines.iter().zip(&self.segments[part.first_segment as usize..]) {
                let wanted = (!loaded.regions.is_empty()).then_some(loaded.regions);
                memory.add(wanted.and_then(|at| self.source.read(line.name, at)).as_ref(), line.packs);
            }
            memory.build();
            memory
        })
    }

    fn located(&self, part: &Part, found: &Found) -> Option<Located> {
        let segment = part.first_segment + found.segment;
        let LoadedSegment { generation, regions, .. } = *self.segments.get(segment as usize)?;
        let pack_no = part.first_pack + found.pack_no;
        let entry = part.first_entry + u64::from(found.entry);
        let located = Located { place: found.place, pack: found.pack, pack_no, entry, segment, generation, regions };
        (!regions.is_empty()).then_some(located)
    }

    /// All places in one pass. They are all in memory for it.
    pub fn all(&self) -> Vec<Located> {
        let mut all = Vec::new();
        for part in &self.parts {
            let entries = match &part.body {
                Body::Run(kept) if part.rescued.get().is_none() => {
                    every(&kept.run).unwrap_or_else(|Broken| self.rescue(part, kept).all().collect())
                }
                _ => part.memory().map(|memory| memory.all().collect()).unwrap_or_default(),
            };
            all.extend(entries.iter().filter_map(|found| self.located(part, found)));
        }
        all
    }

    /// Pack number `n`.
    fn pack(&self, n: u32) -> Option<(u32, PackLine)> {
        let part = &self.parts[self.parts.partition_point(|part| part.first_pack <= n).checked_sub(1)?];
        let number = n - part.first_pack;
        let found = match &part.body {
            Body::Run(kept) if part.rescued.get().is_none() => {
                let found = kept.run.pack(number).map(Some);
                found.unwrap_or_else(|Broken| self.rescue(part, kept).pack(number))
            }
            _ => part.memory().and_then(|memory| memory.pack(number)),
        };
        found.map(|(segment, line)| (part.first_segment + segment, line))
    }

    /// Every pack of every segment that counts, with the segment and the regions that list it.
    pub fn lines(&self) -> impl Iterator<Item = (SegmentName, PackLine, RegionSet)> {
        (0..self.packs_total).filter_map(|n| {
            let (segment, line) = self.pack(n)?;
            let segment = self.segments.get(segment as usize)?;
            (!segment.regions.is_empty()).then_some((segment.name, line, segment.regions))
        })
    }

    /// Every pack that is named, with the regions whose segments name it.
    pub fn packs(&self) -> BTreeMap<PackName, (PackLine, RegionSet)> {
        let mut packs = BTreeMap::new();
        for (segment, line) in (0..self.packs_total).filter_map(|n| self.pack(n)) {
            let regions = self.segments.get(segment as usize).map_or(RegionSet::NONE, |s| s.regions);
            if !regions.is_empty() {
                let known = packs.entry(line.name).or_insert((line, RegionSet::NONE));
                known.1 = known.1.or(regions);
            }
        }
        packs
    }
}

impl Part {
    /// Its entries, if they are in memory.
    fn memory(&self) -> Option<&Memory> {
        match &self.body {
            Body::Memory(memory) => Some(memory),
            Body::Run(_) => self.rescued.get(),
        }
    }
}

fn every(run: &Run) -> std::result::Result<Vec<Found>, Broken> {
    let (mut cursor, mut all) = (run.cursor(), Vec::new());
    while let Some(raw) = cursor.peek()? {
        all.push(run.found(raw, all.len() as u64)?);
        cursor.advance();
    }
    Ok(all)
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
    rules: Reuse,
    /// By segment number: whether its packs may be re-used.
    fits: Vec<bool>,
    /// By pack number, a bit each: whether it was.
    used: Vec<AtomicU64>,
}

impl Reusable {
    /// Judges every segment of the index.
    pub fn new(index: Arc<Index>, rules: Reuse) -> Reusable {
        let fits = |s: &LoadedSegment| {
            !s.regions.is_empty() && s.generation == rules.generation && s.regions.covers(rules.regions)
        };
        let fits = index.segments.iter().map(fits).collect();
        let used = (0..index.packs_total.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        Reusable { index, rules, fits, used }
    }

    fn is_good(&self, at: &Located) -> bool {
        let present = self.rules.present.as_ref().is_none_or(|p| p.get(&at.pack.name) == Some(&at.pack.size));
        self.fits.get(at.segment as usize) == Some(&true) && present && !self.rules.bad.contains(&at.pack.name)
    }

    /// Whether a chunk need not be stored again: it lies in a pack that is not `damaged`. If so, the pack counts as
    /// used.
    pub fn has(&self, id: &ChunkId, damaged: impl Fn(&PackName) -> bool) -> bool {
        let good = |at: &Located| self.is_good(at) && !damaged(&at.pack.name);
        let Some(at) = self.index.first(id, good) else { return false };
        let (word, bit) = (at.pack_no as usize / 64, 1 << (at.pack_no % 64));
        if let Some(used) = self.used.get(word).filter(|used| used.load(Ordering::Relaxed) & bit == 0) {
            used.fetch_or(bit, Ordering::Relaxed);
        }
        true
    }

    /// Packs that were re-used so far.
    pub fn used(&self) -> HashSet<PackName> {
        let words = self.used.iter().zip(0u32..).map(|(used, n)| (used.load(Ordering::Relaxed), n * 64));
        let numbers = words.flat_map(|(word, n)| (0..64).filter(move |bit| word >> bit & 1 == 1).map(move |b| n + b));
        numbers.filter_map(|n| self.index.pack(n)).map(|(_, pack)| pack.name).collect()
    }
}
