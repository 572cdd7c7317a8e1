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
use crate::repo::index::{Content, SegmentSeen, open_segment};
use crate::store::Key;
use bytes::Bytes;
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
        let (groups, mut said) = self.groups_of_superseded(whole);
        let mut gone = 0;
        for (new, olds) in groups {
            self.cancel.check()?;
            let covered = self.covered(new, &olds)?;
            for old in olds.iter().filter(|old| !covered.contains(old)) {
                said.remove(old);
            }
            if covered.is_empty() || !self.stands(new, reports)? {
                continue;
            }
            let keys: Vec<Key> = covered.iter().copied().map(Key::Index).collect();
            match self.retire(&keys, reports)? {
                Some(retired) => gone += retired,
                None => break,
            }
        }
        Ok((said, gone))
    }

    /// Removes segments from every member, or from none: where one may not let go of a segment, it is put back where it went
    /// already, as whoever compares the regions would bring it there again, and call them unequal until then. Returns how many
    /// are gone everywhere; `None` where a region failed.
    pub(super) fn retire(&self, keys: &[Key], reports: &mut [RegionReport]) -> Result<Option<u64>> {
        // By the first it is learned who refuses: those are asked first about the others.
        let (first, others) = keys.split_at(keys.len().min(1));
        let Some(one) = self.retire_these(first.to_vec(), reports)? else { return Ok(None) };
        let more = self.retire_these(others.to_vec(), reports)?;
        Ok(more.map(|more| one + more))
    }

    fn retire_these(&self, mut keys: Vec<Key>, reports: &mut [RegionReport]) -> Result<Option<u64>> {
        // A folder lets go of everything.
        let rank = |ix: &usize| (!self.refusing.get().has(*ix), !self.repo.regions.region(*ix).bucket);
        let mut order: Vec<usize> = self.members.iter().collect();
        order.sort_by_key(rank);
        let mut without = RegionSet::NONE;
        for ix in order {
            let removed = self.repo.regions.remove(ix, &keys, self.cancel)?;
            if let Some(report) = reports.get_mut(ix) {
                report.segments += removed.gone.len() as u64;
            }
            for (key, why) in &removed.refused {
                self.refusing.set(self.refusing.get().with(ix));
                self.put_back(key, without, reports)?;
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

    /// Puts a segment back where it went, from any member that still has it whole.
    fn put_back(&self, key: &Key, to: RegionSet, reports: &mut [RegionReport]) -> Result<()> {
        if to.is_empty() {
            return Ok(());
        }
        let still = RegionSet::of(self.members.iter().filter(|ix| !to.has(*ix)));
        let check = |bytes: &[u8]| open_segment(self.repo, key, bytes).map(|_| Bytes::copy_from_slice(bytes));
        let Ok(bytes) = self.repo.regions.read(still, key, SMALL_OBJECT_BYTES_MAX, check) else {
            // What it says is said by the larger one, which every member lists.
            return Ok(());
        };
        for (ix, put) in self.repo.regions.put_each(to, key, &bytes) {
            match (put, reports.get_mut(ix)) {
                (Ok(_), Some(report)) => report.segments = report.segments.saturating_sub(1),
                (Err(e), _) => fail(reports, ix, &e)?,
                (Ok(_), None) => {}
            }
        }
        Ok(())
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

    /// Segments that name all packs of smaller ones, and those of them that are looked at now; and all of these.
    fn groups_of_superseded(
        &self,
        whole: &HashMap<SegmentName, bool>,
    ) -> (BTreeMap<SegmentName, Vec<SegmentName>>, HashSet<SegmentName>) {
        let packs = self.packs_named_again();
        let (mut groups, mut said) = (BTreeMap::<SegmentName, Vec<SegmentName>>::new(), HashSet::new());
        let over = self.index.segments_seen().filter(|segment| !self.unresolved.contains(&segment.sid));
        let named: HashMap<SegmentName, SegmentSeen> = over.map(|segment| (segment.name, segment)).collect();
        // Those that nobody may remove yet must not be in the way of others for ever.
        let (before, from) = packs.segments.iter().partition::<Vec<_>, _>(|(name, _)| **name < self.turn);
        for (name, own) in from.into_iter().chain(before) {
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
            // Whatever is looked at, none of them is merged once more: where they cannot be removed, that would never end.
            if let Some(new) = new
                && said.insert(*name)
                && said.len() <= REMOVED_MAX
            {
                groups.entry(new.name).or_default().push(*name);
            }
        }
        (groups, said)
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
