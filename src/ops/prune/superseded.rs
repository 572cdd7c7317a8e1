//! Index segments that say nothing that another one does not say: what a merge left behind that was cut short between
//! publishing the one and removing the many. They lie in some regions only, so no merge would take them again.
//!
//! A segment gives way to a larger one alone, and to one that every member lists: two prunes that look at the same moment
//! cannot remove each of two for the other's sake. Whoever rewrites or merges the larger one publishes what is left of it first.

use super::mark::Bits;
use super::merge::Merging;
use super::segments;
use super::sweep::{RegionReport, fail};
use crate::base::{PackName, SegmentName};
use crate::error::Result;
use crate::repo::index::SegmentSeen;
use crate::store::Key;
use std::collections::{BTreeSet, HashMap, HashSet};

/// So many are removed in one run: each is read whole.
const REMOVED_MAX: usize = 4096;

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
        for (old, new) in self.pairs(whole).into_iter().take(REMOVED_MAX) {
            self.cancel.check()?;
            // What the larger one would become with it is what it is already.
            if self.merge(&[new, old])?.is_none_or(|(name, _)| name != new.name) || !self.stands(&new)? {
                continue;
            }
            for ix in self.members.iter() {
                let removed = self.repo.regions.remove(ix, &[Key::Index(old.name)], self.cancel)?;
                if let Some(report) = reports.get_mut(ix) {
                    report.segments += removed.gone.len() as u64;
                }
                if let Some(e) = removed.failed {
                    fail(reports, ix, &e)?;
                }
            }
            gone.insert(old.name);
        }
        Ok(gone)
    }

    fn stands(&self, segment: &SegmentSeen) -> Result<bool> {
        let names = BTreeSet::from([segment.name]);
        for ix in self.members.iter() {
            if !segments::are_listed(self.repo, ix, &names)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Segments and, for each, a larger one that names all of its packs. The small ones come first.
    fn pairs(&self, whole: &HashMap<SegmentName, bool>) -> Vec<(SegmentSeen, SegmentSeen)> {
        let packs = self.packs_named_again();
        if packs.is_empty() {
            return Vec::new();
        }
        let over = self.index.segments_seen().filter(|segment| !self.unresolved.contains(&segment.sid));
        let named: HashMap<SegmentName, SegmentSeen> = over.map(|segment| (segment.name, segment)).collect();
        let size = |segment: &SegmentSeen| (segment.entries, segment.name);
        let mut pairs = Vec::new();
        for (name, own) in packs.segments {
            let Some((old, first)) = named.get(&name).zip(own.first()) else { continue };
            let larger = |other: &&SegmentSeen| {
                size(other) > size(old)
                    && other.generation == old.generation
                    && other.regions.covers(self.members)
                    && whole.get(&other.name) == Some(&true)
                    && own.iter().all(|pack| packs.by.get(pack).is_some_and(|by| by.contains(&other.name)))
            };
            let others = packs.by.get(first).into_iter().flatten();
            let new = others.filter_map(|other| named.get(other)).filter(larger).max_by_key(|other| size(other));
            pairs.extend(new.map(|new| (*old, *new)));
        }
        pairs.sort_unstable_by_key(|(old, _)| size(old));
        pairs
    }

    /// Packs that several segments name, and segments that name no other packs.
    fn packs_named_again(&self) -> NamedAgain {
        // All packs of a repository are many; few are named twice.
        let (mut once, mut again) = (Bits::new(self.table.count()), HashSet::new());
        for seen in self.index.packs_seen() {
            let Some(row) = self.table.find(&seen.line.name).map(u64::from) else { continue };
            if once.has(row) {
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

/// See [`Merging::packs_named_again`].
#[derive(Default)]
struct NamedAgain {
    by: HashMap<PackName, HashSet<SegmentName>>,
    segments: HashMap<SegmentName, Vec<PackName>>,
}

impl NamedAgain {
    fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }
}
