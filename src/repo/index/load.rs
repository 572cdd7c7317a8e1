//! Putting an index together: what the cache has of the segments that the regions list, and the rest read from them.

use super::cache::{Cache, Kept, Unmerged};
use super::memory::Memory;
use super::run::SegmentLine;
use super::{Body, Content, Index, Source};
use crate::base::SegmentName;
use crate::region::RegionSet;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

/// So many entries are gathered in memory before they become a run: about 64 MB.
const GATHERED_MAX: usize = 1 << 20;
/// How often broken runs are dropped and read again in one go.
const ROUNDS_MAX: usize = 8;

/// Which regions list a segment, by the size that they give it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holders(Vec<(u64, RegionSet)>);

impl Holders {
    /// One more region that lists it.
    pub fn add(&mut self, size: u64, ix: usize) {
        match self.0.iter_mut().find(|(known, _)| *known == size) {
            Some((_, at)) => *at = at.with(ix),
            None => self.0.push((size, RegionSet::of([ix]))),
        }
    }

    /// All of them.
    pub fn all(&self) -> RegionSet {
        self.0.iter().fold(RegionSet::NONE, |all, (_, at)| all.or(*at))
    }

    /// The largest size that any of them gives it.
    pub fn size(&self) -> u64 {
        self.0.iter().map(|(size, _)| *size).max().unwrap_or(0)
    }

    /// Those that list it with this size.
    fn with_size(&self, size: u64) -> RegionSet {
        self.0.iter().find(|(known, _)| *known == size).map_or(RegionSet::NONE, |(_, at)| *at)
    }
}

/// What the regions list.
pub type Listing = BTreeMap<SegmentName, Holders>;

/// Segments of one part of the index, with the regions of each.
pub(super) struct Shelved {
    pub(super) body: Body,
    pub(super) lines: Vec<SegmentLine>,
    pub(super) regions: Vec<RegionSet>,
}

/// Segments that were read.
#[derive(Default)]
struct Gathered {
    memory: Memory,
    lines: Vec<SegmentLine>,
    regions: Vec<RegionSet>,
}

struct Loading<'l> {
    listing: &'l Listing,
    source: &'l Arc<dyn Source>,
    /// Until it cannot be written.
    cache: Option<&'l Cache>,
    /// The largest first, each with the regions of its segments.
    runs: Vec<(Kept, Vec<RegionSet>)>,
    gathered: Gathered,
    taken: HashSet<SegmentName>,
    /// Segments that no region shows intact.
    unreadable: HashSet<SegmentName>,
}

/// Loads what is listed.
pub(super) fn load(listing: &Listing, source: Arc<dyn Source>, cache: Option<Arc<Cache>>) -> Index {
    let mut loading = Loading {
        listing,
        source: &source,
        cache: cache.as_deref(),
        runs: Vec::new(),
        gathered: Gathered::default(),
        taken: HashSet::new(),
        unreadable: HashSet::new(),
    };
    for kept in loading.cache.map(Cache::runs).unwrap_or_default() {
        loading.take(kept);
    }
    for _ in 0..ROUNDS_MAX {
        loading.read_missing();
        loading.keep();
        if loading.tidy() {
            break;
        }
    }
    loading.read_missing();
    let Loading { runs, mut gathered, .. } = loading;
    let mut shelves: Vec<Shelved> = runs
        .into_iter()
        .map(|(kept, regions)| {
            let lines = kept.run.segments.clone();
            Shelved { body: Body::Run(Box::new(kept)), lines, regions }
        })
        .collect();
    gathered.memory.build();
    let Gathered { memory, lines, regions } = gathered;
    shelves.push(Shelved { body: Body::Memory(memory), lines, regions });
    Index::of(shelves, source, cache)
}

impl Loading<'_> {
    /// Where a segment of this size is, if it is trusted and not known already.
    fn claim(&mut self, line: &SegmentLine) -> RegionSet {
        let Some(holders) = self.listing.get(&line.name) else { return RegionSet::NONE };
        if !self.source.trusts(&line.writer) || !self.taken.insert(line.name) {
            return RegionSet::NONE;
        }
        let at = holders.with_size(line.size);
        let odd = RegionSet::of(holders.all().iter().filter(|ix| !at.has(*ix)));
        if !odd.is_empty() {
            self.source.odd(line.name, odd);
        }
        at
    }

    fn take(&mut self, kept: Kept) {
        let regions = kept.run.segments.iter().map(|line| self.claim(line)).collect();
        self.runs.push((kept, regions));
    }

    /// Reads every segment that is not known yet.
    fn read_missing(&mut self) {
        let listing = self.listing;
        let missing =
            listing.iter().filter(|(name, _)| !self.taken.contains(*name) && !self.unreadable.contains(*name));
        let missing: Vec<_> = missing.map(|(name, holders)| (*name, holders.all(), holders.size())).collect();
        self.source.prepare(&missing);
        for (name, holders) in listing {
            if self.taken.contains(name) || self.unreadable.contains(name) {
                continue;
            }
            let Some(content) = self.source.read(*name, holders.all()) else {
                self.unreadable.insert(*name);
                continue;
            };
            let line = content.line(*name);
            let at = self.claim(&line);
            self.gathered.memory.add(Some(&content), line.packs);
            self.gathered.lines.push(line);
            self.gathered.regions.push(at);
            if self.gathered.memory.count() >= GATHERED_MAX {
                self.keep();
                self.tidy();
            }
        }
    }

    /// Makes a run of what was read.
    fn keep(&mut self) {
        let Some(cache) = self.cache.filter(|_| !self.gathered.lines.is_empty()) else { return };
        match cache.keep(&self.gathered.lines, &self.gathered.memory) {
            Ok(kept) => {
                let gathered = std::mem::take(&mut self.gathered);
                self.runs.push((kept, gathered.regions));
                self.runs.sort_by_key(|(kept, _)| std::cmp::Reverse(kept.run.entries));
            }
            Err(e) => self.unwritable(&e),
        }
    }

    fn unwritable(&mut self, e: &std::io::Error) {
        if let Some(cache) = self.cache.take() {
            cache.say(format!("the local index cannot be written ({}); it is kept in memory", e.kind()));
        }
    }

    /// Merges runs where that is due. Says whether nothing is left to do.
    fn tidy(&mut self) -> bool {
        let Some(cache) = self.cache else { return true };
        let (kept, regions): (Vec<Kept>, Vec<Vec<RegionSet>>) = std::mem::take(&mut self.runs).into_iter().unzip();
        // A region that is away lists nothing: what only it has is kept for when it is back.
        let whole = self.source.whole();
        let wanted = |(kept, regions): (&Kept, &Vec<RegionSet>)| -> Vec<bool> {
            let pairs = kept.run.segments.iter().zip(regions);
            pairs.map(|(line, at)| !at.is_empty() || !(whole || self.taken.contains(&line.name))).collect()
        };
        let wanted: Vec<Vec<bool>> = kept.iter().zip(&regions).map(wanted).collect();
        let merged = cache.tidy(&kept, &wanted);
        self.runs = kept.into_iter().zip(regions).collect();
        match merged {
            Ok(None) => true,
            Ok(Some((from, kept))) => {
                self.replace(from, kept);
                false
            }
            Err(Unmerged::Broken(n)) => {
                let (kept, regions) = self.runs.remove(n);
                cache.drop_broken(&kept);
                for (line, _) in kept.run.segments.iter().zip(&regions).filter(|(_, at)| !at.is_empty()) {
                    self.taken.remove(&line.name);
                }
                false
            }
            Err(Unmerged::Unwritable(e)) => {
                self.unwritable(&e);
                true
            }
        }
    }

    /// Puts a merged run in the place of those it was made of.
    fn replace(&mut self, from: usize, kept: Kept) {
        let known: BTreeMap<SegmentName, RegionSet> = self
            .runs
            .drain(from..)
            .flat_map(|(kept, regions)| {
                let names: Vec<SegmentName> = kept.run.segments.iter().map(|line| line.name).collect();
                names.into_iter().zip(regions).filter(|(_, at)| !at.is_empty()).collect::<Vec<_>>()
            })
            .collect();
        let at = |line: &SegmentLine| known.get(&line.name).copied().unwrap_or(RegionSet::NONE);
        let regions = kept.run.segments.iter().map(at).collect();
        self.runs.push((kept, regions));
        self.runs.sort_by_key(|(kept, _)| std::cmp::Reverse(kept.run.entries));
    }
}

impl Content {
    /// What a run keeps of it.
    pub(super) fn line(&self, name: SegmentName) -> SegmentLine {
        SegmentLine {
            name,
            size: self.size,
            writer: self.writer,
            sid: self.segment.sid,
            generation: self.segment.generation,
            packs: self.packs.len() as u32,
            entries: (self.segment.entries.len() / crate::format::index::ENTRY_BYTES) as u32,
        }
    }
}
