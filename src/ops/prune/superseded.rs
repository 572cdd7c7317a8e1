//! Index segments that say nothing that another one does not say: what a merge left behind that was cut short between
//! publishing the one and removing the many. They lie in some regions only, so no merge would take them again.
//!
//! A segment gives way to one with more entries alone, and to one that every member lists: two prunes that look at the same
//! moment cannot remove each of two for the other's sake. Whoever rewrites or merges the larger one publishes what is left of it
//! first, under a name that neither of them had before ([`Repo::seal_segment`](crate::repo::Repo::seal_segment)).

use super::mark::Bits;
use super::merge::Merging;
use super::segments;
use super::sweep::{RegionReport, fail};
use crate::base::{ChunkId, PackName, SegmentName};
use crate::error::Result;
use crate::format::index::{ENTRY_BYTES, Place};
use crate::region::RegionSet;
use crate::repo::SMALL_OBJECT_BYTES_MAX;
use crate::repo::index::{Content, SegmentSeen};
use crate::store::Key;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// So many are removed in one run: each is read whole.
const REMOVED_MAX: usize = 1024;
/// So many packs that are named twice are looked at: some 250 bytes of memory for each.
const PACKS_MAX: usize = 1 << 18;

impl Merging<'_> {
    /// Removes what other segments say too; returns what that is, also where it may not be removed, and how many are gone.
    ///
    /// # Errors
    /// Interrupted, or a segment that every member lists can be read nowhere.
    pub(super) fn remove_superseded(
        &self,
        whole: &HashMap<SegmentName, bool>,
        reports: &mut [RegionReport],
    ) -> Result<(HashSet<SegmentName>, u64)> {
        let (mut said, mut gone) = (HashSet::new(), 0);
        for (new, olds) in self.groups_of_superseded(whole) {
            self.cancel.check()?;
            let covered = self.covered(new, &olds)?;
            if covered.is_empty() || !self.stands(new, reports)? {
                continue;
            }
            let keys = covered.iter().copied().map(Key::Index).collect();
            said.extend(covered);
            match self.retire(keys, reports)? {
                Some(retired) => gone += retired,
                None => break,
            }
        }
        Ok((said, gone))
    }

    /// Removes segments from every member, or from none: where one may not let go of a segment, it is put back where it went
    /// already, as whoever compares the regions would bring it there again, and call them unequal until then. Returns how many
    /// are gone everywhere; `None` where a region failed.
    pub(super) fn retire(&self, mut keys: Vec<Key>, reports: &mut [RegionReport]) -> Result<Option<u64>> {
        let is_bucket = |ix: &usize| self.repo.regions.region(*ix).bucket;
        // A folder lets go of everything.
        let (buckets, folders): (Vec<usize>, Vec<usize>) = self.members.iter().partition(is_bucket);
        let mut without = RegionSet::NONE;
        for ix in buckets.into_iter().chain(folders) {
            let removed = self.repo.regions.remove(ix, &keys, self.cancel)?;
            if let Some(report) = reports.get_mut(ix) {
                report.segments += removed.gone.len() as u64;
            }
            for (key, why) in &removed.refused {
                self.put_back(ix, key, without, reports)?;
                if let Some(report) = reports.get_mut(ix) {
                    report.why.get_or_insert_with(|| why.to_string());
                }
            }
            if let Some(e) = removed.failed {
                fail(reports, ix, &e)?;
                return Ok(None);
            }
            let stays: HashSet<Key> = removed.refused.into_iter().map(|(key, _)| key).collect();
            keys.retain(|key| !stays.contains(key));
            without = without.with(ix);
        }
        Ok(Some(keys.len() as u64))
    }

    fn put_back(&self, from: usize, key: &Key, to: RegionSet, reports: &mut [RegionReport]) -> Result<()> {
        if to.is_empty() {
            return Ok(());
        }
        match self.repo.regions.get(from, key, SMALL_OBJECT_BYTES_MAX) {
            Ok(bytes) => {
                for (ix, put) in self.repo.regions.put_each(to, key, &bytes) {
                    if let Err(e) = put {
                        fail(reports, ix, &e)?;
                    }
                }
                Ok(())
            }
            Err(e) => fail(reports, from, &e),
        }
    }

    /// Which of these segments say nothing that the new one does not say.
    fn covered(&self, new: SegmentName, olds: &[SegmentName]) -> Result<Vec<SegmentName>> {
        let Some(new) = segments::content(self.repo, new, self.members)? else { return Ok(Vec::new()) };
        let all = places(&new);
        let mut covered = Vec::new();
        for name in olds {
            self.cancel.check()?;
            let Some(old) = segments::content(self.repo, *name, self.members)? else { continue };
            if old.packs.iter().all(|line| new.packs.contains(line)) && places(&old).is_subset(&all) {
                covered.push(*name);
            }
        }
        Ok(covered)
    }

    /// Whether every member lists it at this moment.
    fn stands(&self, segment: SegmentName, reports: &mut [RegionReport]) -> Result<bool> {
        let names = BTreeSet::from([segment]);
        for ix in self.members.iter() {
            match segments::are_listed(self.repo, ix, &names) {
                Ok(true) => {}
                Ok(false) => return Ok(false),
                Err(e) => {
                    fail(reports, ix, &e)?;
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Segments that name all packs of smaller ones, and those.
    fn groups_of_superseded(&self, whole: &HashMap<SegmentName, bool>) -> BTreeMap<SegmentName, Vec<SegmentName>> {
        let packs = self.packs_named_again();
        let mut groups: BTreeMap<SegmentName, Vec<SegmentName>> = BTreeMap::new();
        if packs.segments.is_empty() {
            return groups;
        }
        let over = self.index.segments_seen().filter(|segment| !self.unresolved.contains(&segment.sid));
        let named: HashMap<SegmentName, SegmentSeen> = over.map(|segment| (segment.name, segment)).collect();
        // Those that nobody may remove yet must not be in the way of others for ever.
        let (before, from) = packs.segments.iter().partition::<Vec<_>, _>(|(name, _)| **name < self.turn);
        for (name, own) in from.into_iter().chain(before).take(REMOVED_MAX) {
            let Some((old, first)) = named.get(name).zip(own.first()) else { continue };
            let larger = |other: &&SegmentSeen| {
                other.entries > old.entries
                    && other.generation == old.generation
                    && other.regions.covers(self.members)
                    && whole.get(&other.name) == Some(&true)
                    && own.iter().all(|pack| packs.by.get(pack).is_some_and(|by| by.contains(&other.name)))
            };
            let others = packs.by.get(first).into_iter().flatten();
            let new = others.filter_map(|other| named.get(other)).filter(larger).max_by_key(|s| (s.entries, s.name));
            if let Some(new) = new {
                groups.entry(new.name).or_default().push(*name);
            }
        }
        groups
    }

    /// Packs that several segments name, and segments that name no other packs.
    fn packs_named_again(&self) -> NamedAgain {
        // All packs of a repository are many; few are named twice.
        let (mut once, mut again) = (Bits::new(self.table.rows.len() as u64), HashSet::new());
        for seen in self.index.packs_seen() {
            let Some(row) = self.table.find(&seen.line.name).map(u64::from) else { continue };
            if once.has(row) && again.len() < PACKS_MAX {
                again.insert(seen.line.name);
            }
            once.set(row);
        }
        let (mut found, mut others) = (NamedAgain::default(), HashSet::new());
        if again.is_empty() {
            return found;
        }
        for seen in self.index.packs_seen() {
            if again.contains(&seen.line.name) {
                found.by.entry(seen.line.name).or_default().insert(seen.segment);
                found.segments.entry(seen.segment).or_default().push(seen.line.name);
            } else {
                others.insert(seen.segment);
            }
        }
        found.segments.retain(|segment, _| !others.contains(segment));
        found
    }
}

/// What a segment says of its chunks, whatever the numbers of its packs.
fn places(content: &Content) -> HashSet<(PackName, ChunkId, [u32; 4], Option<u32>)> {
    let (entries, _) = content.segment.entries.as_chunks::<ENTRY_BYTES>();
    let of = |place: Place| {
        let pack = content.packs.get(place.pack as usize)?.name;
        Some((pack, place.id, [place.offset, place.record_len, place.number, place.len], place.inside))
    };
    entries.iter().map(Place::parse).filter_map(of).collect()
}

/// See [`Merging::packs_named_again`].
#[derive(Default)]
struct NamedAgain {
    by: HashMap<PackName, HashSet<SegmentName>>,
    segments: BTreeMap<SegmentName, Vec<PackName>>,
}
