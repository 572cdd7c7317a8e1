//! Merging index segments: many small ones become one, so that a listing stays short. In tiers, so that an entry is written
//! anew a few times in its life and not with every run.
//!
//! Only segments that every member lists, of sessions that are over, all of whose packs every member has: the same bytes are
//! published everywhere, seen in each listing, and then the old ones go.

use super::segments;
use super::sweep::{RegionReport, fail, is_paged};
use super::table::Table;
use crate::base::{Cancel, Generation, PackName, SegmentName, SessionId};
use crate::error::{Error, Kind, Result};
use crate::format::index::{ENTRY_BYTES, PackLine, Place, SEGMENT_ENTRIES_MAX, Segment, encode_packs, encode_places};
use crate::region::RegionSet;
use crate::repo::Repo;
use crate::repo::index::{Content, Index, SegmentSeen};
use crate::store::{Key, Put};
use bytes::Bytes;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

/// So many of about one size become one.
const TIER: usize = 8;
/// So many groups are merged in one run.
const GROUPS_MAX: usize = 64;

/// What it works with.
pub(super) struct Merging<'m> {
    pub(super) repo: &'m Repo,
    pub(super) members: RegionSet,
    pub(super) index: &'m Index,
    pub(super) table: &'m Table,
    pub(super) doomed: &'m HashSet<PackName>,
    pub(super) unresolved: &'m BTreeSet<SessionId>,
    /// Regions that did not let something go in this run.
    pub(super) refusing: Cell<RegionSet>,
    /// Which of the segments that say nothing new are looked at first.
    pub(super) turn: SegmentName,
    /// For those who list the index meanwhile.
    pub(super) grace: Duration,
    pub(super) cancel: &'m Cancel,
}

/// Segments by generation and size.
type Tiers = BTreeMap<(Generation, u32), Vec<SegmentSeen>>;

impl Merging<'_> {
    /// Merges what is due; returns how many segments became fewer.
    ///
    /// # Errors
    /// Interrupted, or a segment that every member lists can be read nowhere.
    pub(super) fn run(&self, reports: &mut [RegionReport]) -> Result<u64> {
        let whole = self.whole();
        let (said, mut merged) = self.remove_superseded(&whole, reports)?;
        let mut published = Vec::new();
        for group in self.groups(&whole, &said) {
            self.cancel.check()?;
            let Some((name, bytes)) = self.merge(&group)? else { continue };
            if !self.publish(name, &bytes, reports)? {
                break;
            }
            published.push(group);
        }
        if !self.grace.is_zero() && !published.is_empty() && is_paged(self.repo, self.members) {
            self.repo.env.wait(self.cancel, self.grace)?;
        }
        for group in published {
            let old: Vec<Key> = group.iter().map(|segment| Key::Index(segment.name)).collect();
            match self.retire(&old, reports)? {
                Some(retired) => merged += retired,
                None => break,
            }
        }
        Ok(merged)
    }

    /// Segments all of whose packs every member has, and keeps.
    fn whole(&self) -> HashMap<SegmentName, bool> {
        let mut whole: HashMap<SegmentName, bool> = HashMap::new();
        for seen in self.index.packs_seen() {
            let row = self.table.find(&seen.line.name).and_then(|n| self.table.row(n));
            let fits = row.is_some_and(|row| row.present().covers(self.members) && !row.doomed)
                && !self.doomed.contains(&seen.line.name);
            let all = whole.entry(seen.segment).or_insert(true);
            *all = *all && fits;
        }
        whole
    }

    fn groups(&self, whole: &HashMap<SegmentName, bool>, said: &HashSet<SegmentName>) -> Vec<Vec<SegmentSeen>> {
        let mut tiers = Tiers::new();
        for segment in self.index.segments_seen() {
            let small = segment.entries as usize <= SEGMENT_ENTRIES_MAX / 2;
            let everywhere = segment.regions.covers(self.members) && whole.get(&segment.name) == Some(&true);
            if small && everywhere && !said.contains(&segment.name) && !self.unresolved.contains(&segment.sid) {
                let tier = segment.entries.max(1).ilog2() / TIER.ilog2();
                tiers.entry((segment.generation, tier)).or_default().push(segment);
            }
        }
        tiers.into_values().flat_map(groups_of).take(GROUPS_MAX).collect()
    }

    fn merge(&self, group: &[SegmentSeen]) -> Result<Option<(SegmentName, Bytes)>> {
        let (mut packs, mut numbers): (Vec<PackLine>, HashMap<PackName, u32>) = Default::default();
        let mut places: Vec<Place> = Vec::new();
        let mut first: Option<Content> = None;
        for segment in group {
            // Gone: another prune was quicker.
            let Some(content) = segments::content(self.repo, segment.name, self.members)? else { return Ok(None) };
            let mut number = |line: &PackLine| {
                *numbers.entry(line.name).or_insert_with(|| {
                    packs.push(*line);
                    packs.len() as u32 - 1
                })
            };
            let lines: Vec<u32> = content.packs.iter().map(&mut number).collect();
            let (entries, _) = content.segment.entries.as_chunks::<ENTRY_BYTES>();
            for place in entries.iter().map(Place::parse) {
                let Some(pack) = lines.get(place.pack as usize) else { continue };
                places.push(Place { pack: *pack, ..place });
            }
            first.get_or_insert(content);
        }
        let Some(first) = first else { return Ok(None) };
        places.sort_unstable_by_key(|p| (p.id, p.pack, p.offset, p.inside));
        places.dedup();
        // Where nothing goes, what says no more than one of its parts would be merged again and again.
        let largest = group.iter().map(|segment| segment.entries as usize).max().unwrap_or(0);
        let stays = !self.refusing.get().is_empty() && places.len() <= largest;
        if places.len() > SEGMENT_ENTRIES_MAX || stays {
            return Ok(None);
        }
        let (packs, entries) = (encode_packs(&packs).into(), encode_places(&mut places).into());
        let segment = Segment { packs, entries, ..first.segment };
        let from = group.iter().map(|segment| segment.name).collect();
        self.repo.seal_segment(&from, &segment).map(Some)
    }

    /// Whether every member took it and lists it.
    fn publish(&self, name: SegmentName, bytes: &Bytes, reports: &mut [RegionReport]) -> Result<bool> {
        let mut everywhere = true;
        for (ix, put) in self.repo.regions.put_each(self.members, &Key::Index(name), bytes) {
            let listed = put.and_then(|put| match put {
                Put::Other => Err(Error::new(Kind::Damage, "another object stands at this key").at(Key::Index(name))),
                Put::Created | Put::Same => segments::are_listed(self.repo, ix, &BTreeSet::from([name])),
            });
            match listed {
                Ok(true) => {}
                Ok(false) => everywhere = false,
                Err(e) => {
                    everywhere = false;
                    fail(reports, ix, &e)?;
                }
            }
        }
        Ok(everywhere)
    }
}

/// Of segments of about one size, those that become one: as many as fit, where there are enough of them.
fn groups_of(mut tier: Vec<SegmentSeen>) -> Vec<Vec<SegmentSeen>> {
    tier.sort_by_key(|segment| (segment.entries, segment.name));
    let mut groups = Vec::new();
    let mut rest = tier.into_iter().peekable();
    while rest.peek().is_some() {
        let (mut group, mut sum) = (Vec::new(), 0usize);
        while let Some(segment) =
            rest.next_if(|next| group.len() < TIER * TIER && sum + next.entries as usize <= SEGMENT_ENTRIES_MAX)
        {
            sum += segment.entries as usize;
            group.push(segment);
        }
        if group.is_empty() {
            break;
        }
        // Where they are large, fewer fill one.
        if group.len() >= TIER || (group.len() > 1 && sum > SEGMENT_ENTRIES_MAX / 2) {
            groups.push(group);
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segments(entries: &[u32]) -> Vec<SegmentSeen> {
        let one = |(n, entries): (usize, &u32)| SegmentSeen {
            name: SegmentName([n as u8; 32]),
            sid: SessionId([n as u8; 16]),
            generation: Generation(1),
            regions: RegionSet::ALL,
            entries: *entries,
        };
        entries.iter().enumerate().map(one).collect()
    }

    #[test]
    fn few_small_ones_stay_and_many_become_one() {
        let groups = |entries: &[u32]| groups_of(segments(entries)).iter().map(Vec::len).collect::<Vec<_>>();
        assert!(groups(&[1; 7]).is_empty());
        assert_eq!(groups(&[1; 8]), [8]);
        assert_eq!(groups(&[1; 70]), [64]);
        assert_eq!(groups(&[100_000; 4]), [2, 2]);
        assert!(groups(&[100_000]).is_empty());
        assert_eq!(groups(&[131_072; 3]), [2]);
    }
}
