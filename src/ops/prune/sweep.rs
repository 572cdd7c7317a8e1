//! Removing what is decided. In each region, in this order: the new index without the doomed; a grace for readers; the old
//! segments, the packs; snapshots that have a marker everywhere. Cut off anywhere, the next prune does what is left.

use super::bounds::{Clock, Stopped};
use super::plan::{Line, Reason};
use super::segments;
use crate::base::{Cancel, PackName, SegmentName, SessionId};
use crate::error::{Error, Kind, Result};
use crate::format::cbor;
use crate::format::index::{ENTRY_BYTES, PackLine, Place, Segment, encode_packs, encode_places};
use crate::region::{RegionSet, Removed};
use crate::repo::Repo;
use crate::repo::index::{Content, Index};
use crate::store::{Key, Put};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

/// So many objects are removed before it is looked whether more may be.
const BATCH: usize = 512;

/// Packs by why they go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sum {
    /// How many.
    pub packs: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Sum {
    pub(super) fn add(&mut self, bytes: u64) {
        self.packs += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

/// What is to be done in one region, and what was.
#[derive(Debug, Clone, Default)]
pub struct RegionReport {
    /// Its name.
    pub region: String,
    /// Packs that go, by reason.
    pub planned: Vec<(Reason, Sum)>,
    /// Packs that are gone.
    pub removed: Sum,
    /// Their names.
    pub gone: Vec<PackName>,
    /// Packs that the store did not let go.
    pub postponed: Sum,
    /// Why it did not.
    pub why: Option<String>,
    /// Index segments that were written anew or dropped.
    pub segments: u64,
    /// Snapshots' manifests that were removed.
    pub snapshots: u64,
    /// Announcements of sessions that were removed.
    pub sessions: u64,
    /// Objects that wait for the next run, as this one had its bounds.
    pub left: u64,
    /// Why the region was not finished.
    pub failed: Option<String>,
}

/// What is to be removed.
pub(super) struct Order<'o> {
    pub(super) repo: &'o Repo,
    pub(super) members: RegionSet,
    pub(super) index: &'o Index,
    /// All packs that are dead for ever.
    pub(super) doomed: &'o HashSet<PackName>,
    /// Of them, those that some member lists.
    pub(super) packs: Vec<Line>,
    /// Snapshots with a marker in every member, and where they are listed.
    pub(super) gone: BTreeMap<SessionId, RegionSet>,
    /// Announcements that say nothing any more, and where they are listed.
    pub(super) sessions: BTreeMap<SessionId, RegionSet>,
    /// For those who read an older index.
    pub(super) grace: Duration,
    /// Whether second copies go: who has an older index may know that one only.
    pub(super) copies: bool,
    pub(super) clock: &'o Clock,
    pub(super) cancel: &'o Cancel,
}

/// A segment that names something doomed.
struct Affected {
    at: RegionSet,
    /// What takes its place; nothing, if nothing is left. It is published also where other segments say the same: who merged
    /// them may be about to remove them.
    new: Option<SegmentName>,
}

/// Segments that say the same without what is doomed. What takes their place is made of all of them: so it is none of what they
/// were made of, which somebody may be about to remove.
struct Same {
    from: BTreeSet<SegmentName>,
    /// Who lists one of them.
    at: RegionSet,
    /// Hash of what is left, and that, if anything is.
    said: Option<blake3::Hash>,
    rest: Option<Segment>,
}

impl Order<'_> {
    /// Does it, as far as it may; says why not all of it.
    ///
    /// # Errors
    /// Interrupted, or an index segment that names doomed packs can be read nowhere. A region that fails is left as it is.
    pub(super) fn execute(&self, reports: &mut [RegionReport]) -> Result<Option<Stopped>> {
        let (affected, at) = self.publish(reports)?;
        // A listing that takes several requests may miss the new segment and the old one too.
        let renewed = is_paged(self.repo, self.members) && affected.values().any(|one| one.new.is_some());
        if !self.grace.is_zero() && !affected.is_empty() && (self.copies || renewed) {
            self.repo.env.wait(self.cancel, self.grace)?;
        }
        let mut stopped = None;
        for ix in at.iter() {
            stopped = self.in_region(ix, &affected, reports)?.or(stopped);
        }
        Ok(stopped)
    }

    /// Puts what takes the place of segments that name what is dead, one after the other: all of them are more than memory
    /// holds. Returns these segments, and the regions that list what was put there.
    fn publish(&self, reports: &mut [RegionReport]) -> Result<(BTreeMap<SegmentName, Affected>, RegionSet)> {
        let named = self.named();
        let (mut affected, mut well) = (BTreeMap::new(), self.members);
        for names in self.by_rest(&named).into_values() {
            for same in self.remainders(&names, &named)? {
                let new = match &same.rest {
                    Some(rest) => Some(self.repo.seal_segment(&same.from, rest)?),
                    None => None,
                };
                if let Some((new, bytes)) = &new {
                    for (ix, put) in self.repo.regions.put_each(same.at.and(well), &Key::Index(*new), bytes) {
                        if let Err(e) = put.and_then(|put| is_ours(put, *new)) {
                            well = well.without(ix);
                            fail(reports, ix, &e)?;
                        }
                    }
                }
                let new = new.map(|(new, _)| new);
                let at = |name: &SegmentName| named.get(name).copied().unwrap_or(RegionSet::NONE);
                affected.extend(same.from.iter().map(|name| (*name, Affected { at: at(name), new })));
            }
        }
        for ix in well.iter() {
            if let Err(e) = self.are_listed(ix, &affected) {
                well = well.without(ix);
                fail(reports, ix, &e)?;
            }
        }
        Ok((affected, well))
    }

    /// Whether a region lists what was put there.
    fn are_listed(&self, ix: usize, affected: &BTreeMap<SegmentName, Affected>) -> Result<()> {
        let new: BTreeSet<SegmentName> =
            affected.values().filter(|one| one.at.has(ix)).filter_map(|one| one.new).collect();
        if new.is_empty() || segments::are_listed(self.repo, ix, &new)? {
            return Ok(());
        }
        Err(Error::new(Kind::Retry, "does not list an index segment that was put there just now")
            .at(format!("region {}", self.repo.regions.region(ix).name)))
    }

    /// Segments that name something doomed, and the members that list them.
    fn named(&self) -> BTreeMap<SegmentName, RegionSet> {
        let lines = self.index.lines().filter(|(_, line, _)| self.doomed.contains(&line.name));
        let mut named: BTreeMap<_, _> = lines.map(|(name, _, at)| (name, at.and(self.members))).collect();
        named.retain(|_, at| !at.is_empty());
        named
    }

    /// The same by what else they name. Their names are hashes, so that the sum of them tells one set from another.
    fn by_rest(&self, named: &BTreeMap<SegmentName, RegionSet>) -> BTreeMap<u128, Vec<SegmentName>> {
        let mut sums: BTreeMap<SegmentName, u128> = named.keys().map(|name| (*name, 0)).collect();
        for (segment, line, _) in self.index.lines().filter(|(_, line, _)| !self.doomed.contains(&line.name)) {
            if let (Some(sum), Some(half)) = (sums.get_mut(&segment), line.name.0.first_chunk()) {
                *sum = sum.wrapping_add(u128::from_le_bytes(*half));
            }
        }
        let mut groups: BTreeMap<u128, Vec<SegmentName>> = BTreeMap::new();
        sums.into_iter().for_each(|(name, sum)| groups.entry(sum).or_default().push(name));
        groups
    }

    /// What is left of these segments, once for all that leave the same: where nothing can be removed, a segment lies beside
    /// what every prune since made of it, and each of them would be made anew by the next, under a name of its own.
    fn remainders(&self, names: &[SegmentName], named: &BTreeMap<SegmentName, RegionSet>) -> Result<Vec<Same>> {
        let mut found: Vec<Same> = Vec::new();
        for name in names {
            self.cancel.check()?;
            let Some(at) = named.get(name).copied() else { continue };
            // Gone: another prune was quicker.
            let Some(content) = segments::content(self.repo, *name, at)? else { continue };
            let rest = self.without_doomed(&content);
            let said = rest.as_ref().map(|rest| blake3::hash(&cbor::encode(rest)));
            match found.iter_mut().find(|same| same.said == said) {
                Some(same) => {
                    same.from.insert(*name);
                    same.at = same.at.or(at);
                }
                None => found.push(Same { from: BTreeSet::from([*name]), at, said, rest }),
            }
        }
        Ok(found)
    }

    /// The same segment with what is not doomed, if anything is left.
    fn without_doomed(&self, content: &Content) -> Option<Segment> {
        let (mut packs, mut numbers): (Vec<PackLine>, HashMap<u32, u32>) = Default::default();
        for (n, line) in (0u32..).zip(&content.packs).filter(|(_, line)| !self.doomed.contains(&line.name)) {
            numbers.insert(n, packs.len() as u32);
            packs.push(*line);
        }
        let (entries, _) = content.segment.entries.as_chunks::<ENTRY_BYTES>();
        let kept = |raw: &[u8; ENTRY_BYTES]| {
            let place = Place::parse(raw);
            numbers.get(&place.pack).map(|pack| Place { pack: *pack, ..place })
        };
        let mut places: Vec<Place> = entries.iter().filter_map(kept).collect();
        let (packs, any) = (encode_packs(&packs).into(), !places.is_empty());
        any.then(|| Segment { packs, entries: encode_places(&mut places).into(), ..content.segment.clone() })
    }

    fn in_region(
        &self,
        ix: usize,
        affected: &BTreeMap<SegmentName, Affected>,
        reports: &mut [RegionReport],
    ) -> Result<Option<Stopped>> {
        let old: Vec<Key> = affected.iter().filter(|(_, one)| one.at.has(ix)).map(|(n, _)| Key::Index(*n)).collect();
        let sizes: HashMap<Key, u64> =
            self.packs.iter().filter(|l| l.regions.has(ix)).map(|l| (Key::Pack(l.name), l.size)).collect();
        let mut packs: Vec<Key> = sizes.keys().copied().collect();
        packs.sort_unstable();
        let listed = |all: &BTreeMap<SessionId, RegionSet>, key: fn(SessionId) -> Key| -> Vec<Key> {
            all.iter().filter(|(_, at)| at.has(ix)).map(|(sid, _)| key(*sid)).collect()
        };
        // Announcements go before the outcomes by which they are over.
        let steps = [old, packs, listed(&self.sessions, Key::Session), listed(&self.gone, Key::Snapshot)];
        let (mut stopped, mut count) = (None, 0u64);
        for keys in &steps {
            let mut keys = keys.as_slice();
            while !keys.is_empty() {
                let more = match self.clock.removals(count) {
                    Ok(more) => more.min(BATCH).min(keys.len()),
                    Err(why) => {
                        stopped = Some(why);
                        break;
                    }
                };
                let (now, later) = keys.split_at(more);
                keys = later;
                let removed = self.repo.regions.remove(ix, now, self.cancel)?;
                // What is refused is tried at every run, and must not stand in the way of the rest.
                count = count.saturating_add(removed.gone.len() as u64);
                if let Some(report) = reports.get_mut(ix) {
                    report.count(&removed, &sizes);
                }
                if let Some(e) = removed.failed {
                    fail(reports, ix, &e)?;
                    return Ok(stopped);
                }
            }
            if let Some(report) = reports.get_mut(ix) {
                report.left = report.left.saturating_add(keys.len() as u64);
            }
        }
        Ok(stopped)
    }
}

fn is_ours(put: Put, name: SegmentName) -> Result<()> {
    match put {
        Put::Created | Put::Same => Ok(()),
        Put::Other => Err(Error::new(Kind::Damage, "another object stands at this key").at(Key::Index(name))),
    }
}

impl RegionReport {
    fn count(&mut self, removed: &Removed, sizes: &HashMap<Key, u64>) {
        for key in &removed.gone {
            match key {
                Key::Pack(name) => {
                    self.removed.add(sizes.get(key).copied().unwrap_or(0));
                    self.gone.push(*name);
                }
                Key::Index(_) => self.segments += 1,
                Key::Snapshot(_) => self.snapshots += 1,
                _ => self.sessions += 1,
            }
        }
        for (key, why) in &removed.refused {
            if let Key::Pack(_) = key {
                self.postponed.add(sizes.get(key).copied().unwrap_or(0));
            }
            self.why.get_or_insert_with(|| why.to_string());
        }
    }
}

/// Whether some of these regions list in several requests; of folders a listing is a moment's work.
pub(super) fn is_paged(repo: &Repo, members: RegionSet) -> bool {
    members.iter().any(|ix| repo.regions.region(ix).bucket)
}

/// Notes why a region was not finished; an interruption ends everything.
pub(super) fn fail(reports: &mut [RegionReport], ix: usize, e: &Error) -> Result<()> {
    if e.kind() == Kind::Cancelled {
        return Err(e.clone());
    }
    if let Some(report) = reports.get_mut(ix) {
        report.failed.get_or_insert_with(|| e.to_string());
    }
    Ok(())
}
