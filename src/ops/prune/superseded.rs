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
use crate::repo::index::{Content, SegmentSeen};
use crate::store::Key;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// So many are removed in one run: each is read whole.
const REMOVED_MAX: usize = 1024;
/// So many packs that are named twice are looked at: some 250 bytes of memory for each.
const PACKS_MAX: usize = 1 << 18;

impl Merging<'_> {
    /// Removes what other segments say too; returns what that was.
    ///
    /// # Errors
    /// Interrupted, or a segment that every member lists can be read nowhere.
    pub(super) fn remove_superseded(
        &self,
        whole: &HashMap<SegmentName, bool>,
        reports: &mut [RegionReport],
    ) -> Result<HashSet<SegmentName>> {
        let mut gone = HashSet::new();
        for (new, olds) in self.groups_of_superseded(whole) {
            self.cancel.check()?;
            let covered = self.covered(new, &olds)?;
            if covered.is_empty() || !self.stands(new, reports)? {
                continue;
            }
            let keys: Vec<Key> = covered.iter().copied().map(Key::Index).collect();
            for ix in self.members.iter() {
                let removed = self.repo.regions.remove(ix, &keys, self.cancel)?;
                if let Some(report) = reports.get_mut(ix) {
                    report.segments += removed.gone.len() as u64;
                }
                if let Some(e) = removed.failed {
                    fail(reports, ix, &e)?;
                    return Ok(gone);
                }
            }
            gone.extend(covered);
        }
        Ok(gone)
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
        for (name, own) in packs.segments.iter().take(REMOVED_MAX) {
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
