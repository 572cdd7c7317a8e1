//! The index as a prune asks it: every entry has a number of its own, so that what is known of a chunk is one bit.

use super::run::SegmentLine;
use super::sealed::Broken;
use super::{Body, Index, LoadedSegment, Part};
use crate::base::{Generation, PackName, SegmentName, SessionId};
use crate::format::index::{PackLine, Place};
use crate::region::RegionSet;
use std::collections::{HashMap, HashSet};

/// A pack as one segment names it.
#[derive(Debug, Clone, Copy)]
pub struct PackSeen {
    /// Its number among all packs of the index; a pack that several segments name has several.
    pub number: u32,
    /// The pack.
    pub line: PackLine,
    /// The segment.
    pub segment: SegmentName,
    /// Regions that list the segment; none for one that does not count.
    pub regions: RegionSet,
    /// The segment's generation.
    pub generation: Generation,
    /// Who wrote it.
    pub sid: SessionId,
}

/// A segment that counts.
#[derive(Debug, Clone, Copy)]
pub struct SegmentSeen {
    /// Its name.
    pub name: SegmentName,
    /// Who wrote it.
    pub sid: SessionId,
    /// Its generation.
    pub generation: Generation,
    /// Regions that list it.
    pub regions: RegionSet,
    /// How many entries it has.
    pub entries: u32,
}

impl Part {
    fn entries(&self) -> u64 {
        match &self.body {
            Body::Run(kept) => kept.run.entries,
            Body::Memory(memory) => memory.count() as u64,
        }
    }
}

impl Index {
    /// How many entries there are, those of segments that do not count among them.
    pub fn entries_total(&self) -> u64 {
        self.parts.last().map_or(0, |part| part.first_entry + part.entries())
    }

    /// How many packs there are, those of segments that do not count among them.
    pub fn packs_total(&self) -> u32 {
        self.packs_total
    }

    /// Every pack of every segment that counts, in the order of their numbers.
    pub fn packs_seen(&self) -> impl Iterator<Item = PackSeen> {
        (0..self.packs_total).filter_map(|number| {
            let (segment, line) = self.pack(number)?;
            let segment = self.segments.get(segment as usize)?;
            let (regions, generation, sid) = (segment.regions, segment.generation, segment.sid);
            let seen = PackSeen { number, line, segment: segment.name, regions, generation, sid };
            (!regions.is_empty()).then_some(seen)
        })
    }

    /// Every segment that counts.
    pub fn segments_seen(&self) -> impl Iterator<Item = SegmentSeen> {
        let of = |part: &Part| {
            let loaded = self.segments.get(part.first_segment as usize..).unwrap_or_default();
            let seen = |(line, loaded): (&SegmentLine, &LoadedSegment)| SegmentSeen {
                name: line.name,
                sid: line.sid,
                generation: line.generation,
                regions: loaded.regions,
                entries: line.entries,
            };
            part.lines.iter().zip(loaded).map(seen).collect::<Vec<_>>()
        };
        self.parts.iter().flat_map(of).filter(|segment| !segment.regions.is_empty())
    }

    /// Goes over every entry once, in no order: the number of its pack, and the length of its chunk in bytes. Those of
    /// segments that do not count are among them.
    pub fn each_length(&self, mut each: impl FnMut(u32, u32)) {
        for part in &self.parts {
            let mut counted = Vec::new();
            let done = match &part.body {
                Body::Run(kept) if part.rescued.get().is_none() => {
                    let mut cursor = kept.run.cursor();
                    let mut all = || -> Result<(), Broken> {
                        while let Some(raw) = cursor.peek()? {
                            let place = Place::parse(raw);
                            each(part.first_pack.saturating_add(place.pack), place.len);
                            cursor.advance();
                        }
                        Ok(())
                    };
                    all()
                }
                _ => {
                    counted.extend(part.memory().into_iter().flat_map(|m| m.all()).map(|f| (f.pack_no, f.place.len)));
                    Ok(())
                }
            };
            counted.iter().for_each(|(pack, len)| each(part.first_pack.saturating_add(*pack), *len));
            if let (Err(Broken), Body::Run(kept)) = (done, &part.body) {
                // What was counted so far stays; whoever counts asks whether the numbers hold.
                self.rescue(part, kept);
            }
        }
    }

    /// Segments that name a pack which is dead for ever, each with the regions in which others say all that is left of it: there
    /// nobody misses it.
    pub fn superseded(&self, doomed: &HashSet<PackName>) -> HashMap<SegmentName, RegionSet> {
        let mut stale: HashMap<SegmentName, RegionSet> = HashMap::new();
        if doomed.is_empty() {
            return stale;
        }
        let dead = self.lines().filter(|(_, line, _)| doomed.contains(&line.name));
        stale.extend(dead.map(|(segment, ..)| (segment, RegionSet::ALL)));
        let mut named: HashMap<PackName, RegionSet> = HashMap::new();
        for (_, line, at) in self.lines().filter(|(segment, ..)| !stale.contains_key(segment)) {
            let known = named.entry(line.name).or_default();
            *known = known.or(at);
        }
        for (segment, line, _) in self.lines().filter(|(_, line, _)| !doomed.contains(&line.name)) {
            if let Some(at) = stale.get_mut(&segment) {
                *at = at.and(named.get(&line.name).copied().unwrap_or_default());
            }
        }
        stale
    }

    /// Whether every number still means what it meant when the index was loaded: a local run that turned out to be
    /// broken is replaced by the segments that it was made of, and their entries have other numbers.
    pub fn numbers_hold(&self) -> bool {
        self.parts.iter().all(|part| part.rescued.get().is_none())
    }
}
