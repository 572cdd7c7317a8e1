//! Epochs of the retention protocol as each region shows them: members, condemned and doomed packs.
//!
//! What does not verify under the right role is junk: recorded, passed over, believed by nobody.

use super::SMALL_OBJECT_BYTES_MAX;
use crate::base::{Digest, Epoch, PackName, RegionId, SessionId, TimeMs};
use crate::error::{Error, Kind, Result};
use crate::format::FormatError;
use crate::format::envelope::Kind as ObjectKind;
use crate::format::objects::{EpochBegin, EpochEnd, Member, Root, pack_list};
use crate::format::ring::{Trust, role};
use crate::format::signed::Opened;
use crate::region::{RegionSet, Regions};
use crate::store::{Key, Prefix};
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// One epoch.
#[derive(Debug, Clone)]
struct EpochState {
    begin: EpochBegin,
    digest: Digest,
    condemned: Vec<PackName>,
    /// Doomed packs, once it is decided.
    doomed: Option<Vec<PackName>>,
    /// Roots that its end names.
    roots: Vec<Root>,
}

/// A valid object of an epoch that a region lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lag {
    /// A region that has it.
    pub from: usize,
    /// The region that lacks it.
    pub to: usize,
    /// Where `from` has it.
    pub key: Key,
}

/// An epoch that began and is not decided.
#[derive(Debug, Clone)]
pub struct Unended {
    /// Its number.
    pub number: Epoch,
    /// Digest of its beginning.
    pub begin: Digest,
    /// Whether it condemns packs: then it is a prune's.
    pub condemns: bool,
}

/// What the regions say.
#[derive(Debug, Clone, Default)]
pub struct Epochs {
    known: BTreeMap<Epoch, EpochState>,
    newest_in: BTreeMap<usize, Epoch>,
    /// Where each region has a valid beginning and end.
    at: BTreeMap<(usize, Epoch), (Key, Option<Key>)>,
    listed: BTreeMap<usize, Vec<Key>>,
}

impl Epochs {
    /// Reads every epoch of the regions in `among`. A region that cannot be listed is marked as failed.
    pub fn load(regions: &Regions, trust: Trust<'_>, among: RegionSet) -> Epochs {
        let mut epochs = Epochs { listed: list_all(regions, among), ..Epochs::default() };
        for (ix, keys) in epochs.listed.clone() {
            if let Err(e) = epochs.load_region(regions, trust, ix, &keys) {
                regions.fail(ix, e);
            }
        }
        epochs
    }

    /// The same now: only listings are read where nothing was added.
    pub fn again(&self, regions: &Regions, trust: Trust<'_>, among: RegionSet) -> Epochs {
        let now = list_all(regions, among);
        let same = now.iter().all(|(ix, keys)| self.listed.get(ix) == Some(keys));
        if same { self.clone() } else { Self::load(regions, trust, among) }
    }

    fn load_region(&mut self, regions: &Regions, trust: Trust<'_>, ix: usize, keys: &[Key]) -> Result<()> {
        let numbers: BTreeSet<Epoch> = keys.iter().filter_map(number_of).collect();
        // The series has no gaps: what stands behind one is not a continuation.
        for (number, _) in numbers.into_iter().zip(1u32..).take_while(|(n, expected)| n.0 == *expected) {
            let begins = keys.iter().filter(|k| matches!(k, Key::EpochBegin(n, _) if *n == number));
            let before = number.0.checked_sub(1).and_then(|n| self.known.get(&Epoch(n)));
            let read = |key: &Key, bytes: &[u8]| read_begin(key, bytes, trust, before);
            let Some((begin_key, (begin, digest))) = first_valid(regions, ix, begins, read)? else { break };
            let condemned = pack_list(&begin.condemned).map_err(crate::region::lift)?;
            let ends = keys.iter().filter(|k| matches!(k, Key::EpochEnd(n, _) if *n == number));
            let end = first_valid(regions, ix, ends, |key, bytes| read_end(key, bytes, trust, number, &digest))?;
            let (end_key, end) = end.unzip();
            let (doomed, roots) = end.unzip();
            // What an end dooms beyond the list of its beginning is not doomed.
            let doomed = doomed.map(|doomed| among(doomed, &condemned));
            let known = self.known.entry(number).or_insert(EpochState {
                begin,
                digest,
                condemned,
                doomed: None,
                roots: Vec::new(),
            });
            if known.digest != digest {
                let what = format!("epoch {number} differs from that of another region");
                return Err(Error::new(Kind::Damage, what).at(format!("region {}", regions.region(ix).name)));
            }
            known.doomed = known.doomed.take().or(doomed);
            known.roots.extend(roots.unwrap_or_default());
            self.newest_in.insert(ix, number);
            self.at.insert((ix, number), (begin_key, end_key));
        }
        Ok(())
    }

    /// Valid objects that a region lacks and another has: where to find each, by region and key. Only of a region
    /// that lags by the newest epoch; one that lacks more was rolled back, and nothing is put there.
    pub fn lag(&self, among: RegionSet) -> Vec<Lag> {
        let lagging = among.iter().filter(|ix| !self.is_rolled_back(*ix));
        lagging.flat_map(|to| self.lacking(to)).collect()
    }

    /// All valid objects that a region lacks and another has, oldest epoch first, however far it is behind.
    pub fn lacking(&self, to: usize) -> Vec<Lag> {
        let mut lags = Vec::new();
        for ((from, number), (begin, end)) in self.at.iter().filter(|((from, _), _)| *from != to) {
            let here = self.at.get(&(to, *number));
            if here.is_none() {
                lags.push((*number, Lag { from: *from, to, key: *begin }));
            }
            if let (Some(end), None) = (end, here.and_then(|(_, end)| *end)) {
                lags.push((*number, Lag { from: *from, to, key: *end }));
            }
        }
        lags.sort_by_key(|(number, _)| *number);
        lags.into_iter().map(|(_, lag)| lag).collect()
    }

    /// Whether a region lacks more than the newest epoch.
    pub fn is_rolled_back(&self, ix: usize) -> bool {
        self.own(ix).0.saturating_add(1) < self.newest().0
    }

    /// The newest epoch, if it is not decided yet.
    pub fn unended(&self) -> Option<Unended> {
        let (number, state) = self.known.last_key_value()?;
        let condemns = !state.condemned.is_empty();
        state.doomed.is_none().then_some(Unended { number: *number, begin: state.digest, condemns })
    }

    /// The epoch that took a region out of the repository; `None` if it is a member, or never was.
    pub fn removed(&self, id: RegionId) -> Option<Epoch> {
        let has = |state: &EpochState| state.begin.members.iter().any(|member| member.id == id);
        let last = self.known.iter().rfind(|(_, state)| has(state)).map(|(number, _)| *number)?;
        self.known.keys().find(|number| **number > last).copied()
    }

    /// Whether these bytes are a valid beginning of the epoch after the newest.
    pub fn follows(&self, trust: Trust<'_>, key: &Key, bytes: &[u8]) -> bool {
        read_begin(key, bytes, trust, self.known.values().next_back()).is_ok()
    }

    /// The newest epoch of a region; 0 if it shows none.
    fn own(&self, ix: usize) -> Epoch {
        self.newest_in.get(&ix).copied().unwrap_or(Epoch(0))
    }

    /// The newest epoch anywhere; 0 while there is none.
    pub fn newest(&self) -> Epoch {
        self.known.keys().next_back().copied().unwrap_or(Epoch(0))
    }

    /// Whether these regions show what they showed when `self` was read: nobody began an epoch meanwhile.
    pub fn same_in(&self, now: &Epochs, among: RegionSet) -> bool {
        among.iter().all(|ix| self.newest_in.get(&ix) == now.newest_in.get(&ix))
    }

    /// Members by the newest epoch; the first is home.
    pub fn members(&self) -> &[Member] {
        self.known.values().next_back().map_or(&[], |e| &e.begin.members)
    }

    /// Why a region must not be written: it is no member by the newest epoch read there, or it was rolled back.
    pub fn unwritable(&self, ix: usize, id: Option<RegionId>) -> Option<Error> {
        let own = self.own(ix);
        if own == Epoch(0) {
            let what = "shows no valid epoch, so nothing new goes there";
            return Some(Error::new(Kind::Damage, what).advise("it is still read; see `holdfast region repair`"));
        }
        // Lacking only the newest is lag: whoever finds it copies it.
        if self.is_rolled_back(ix) {
            let what = format!("was rolled back: it shows epoch {own}, another region shows {}", self.newest());
            let advice = "it is still read, and nothing new goes there; `holdfast region repair` brings it forward";
            return Some(Error::new(Kind::Damage, what).advise(advice));
        }
        // By what it shows itself, and by what any other shows: one that was away does not know yet that it was removed.
        let counts = |e: &EpochState| e.begin.members.iter().any(|m| Some(m.id) == id);
        let member = [self.known.get(&own), self.known.values().next_back()].iter().all(|e| e.is_some_and(counts));
        (!member).then(|| match id.and_then(|id| self.removed(id)) {
            Some(by) => {
                Error::new(Kind::Refused, format!("is not a member of this repository any more: epoch {by} removed it"))
                    .advise("it is still read; take it out of the configuration")
            }
            None => Error::new(Kind::Refused, "is not a member of this repository by the newest epoch")
                .advise("it is still read, and nothing new goes there; `holdfast region add` makes it one"),
        })
    }

    /// Packs that are dead for ever.
    pub fn doomed(&self) -> HashSet<PackName> {
        self.known.values().filter_map(|e| e.doomed.as_ref()).flatten().copied().collect()
    }

    /// Packs condemned by an epoch that is not decided yet.
    pub fn undecided(&self) -> HashSet<PackName> {
        self.known.values().filter(|e| e.doomed.is_none()).flat_map(|e| &e.condemned).copied().collect()
    }

    /// Packs that must not be re-used: all doomed, and those condemned by an undecided epoch.
    pub fn bad_packs(&self) -> HashSet<PackName> {
        let mut bad = self.doomed();
        bad.extend(self.undecided());
        bad
    }

    /// When each root was first seen by the stores' time, as epochs recorded it.
    pub fn first_seen(&self) -> BTreeMap<SessionId, TimeMs> {
        let mut seen: BTreeMap<SessionId, TimeMs> = BTreeMap::new();
        for root in self.known.values().flat_map(|e| e.begin.roots.iter().chain(&e.roots)) {
            let time = TimeMs(root.first_seen);
            seen.entry(root.sid).and_modify(|first| *first = time.min(*first)).or_insert(time);
        }
        seen
    }

    /// The roots that the last prune saw, or the one at work.
    pub fn last_roots(&self) -> Vec<Root> {
        let of = |e: &EpochState| e.begin.roots.iter().chain(&e.roots).cloned().collect::<Vec<Root>>();
        self.known.values().rev().map(of).find(|roots| !roots.is_empty()).unwrap_or_default()
    }

    /// Whether a prune that knew this snapshot decided without it: what it alone needed is gone. `known` is the epoch that
    /// the snapshot names.
    pub fn let_go(&self, sid: &SessionId, known: Epoch) -> bool {
        let decided = |e: &&EpochState| !e.condemned.is_empty() && e.doomed.is_some();
        let last = self.known.iter().rfind(|(_, e)| decided(e));
        last.is_some_and(|(number, e)| known < *number && e.roots.iter().all(|root| root.sid != *sid))
    }

    /// Whether a parent may be re-used unlooked: no epoch is undecided, or it names the parent among its roots.
    pub fn vouches_for(&self, parent: &SessionId) -> bool {
        self.known.values().filter(|e| e.doomed.is_none()).all(|e| e.begin.roots.iter().any(|r| r.sid == *parent))
    }
}

/// What each region lists under `epochs/`. A region that cannot be listed is marked as failed.
fn list_all(regions: &Regions, among: RegionSet) -> BTreeMap<usize, Vec<Key>> {
    let mut all = BTreeMap::new();
    for ix in among.iter() {
        match regions.list(ix, Prefix::Epochs) {
            Ok(listed) => {
                all.insert(ix, listed.into_iter().map(|l| l.key).collect());
            }
            Err(e) => regions.fail(ix, e),
        }
    }
    all
}

/// Those of some packs that are in a list.
fn among(mut packs: Vec<PackName>, list: &[PackName]) -> Vec<PackName> {
    let list: HashSet<&PackName> = list.iter().collect();
    packs.retain(|pack| list.contains(pack));
    packs
}

fn number_of(key: &Key) -> Option<Epoch> {
    match key {
        Key::EpochBegin(n, _) => Some(*n),
        _ => None,
    }
}

fn read_begin(
    key: &Key,
    bytes: &[u8],
    trust: Trust<'_>,
    before: Option<&EpochState>,
) -> std::result::Result<(EpochBegin, Digest), FormatError> {
    let opened = open_as(key, bytes, trust, ObjectKind::EpochBegin)?;
    let begin: EpochBegin = opened.decode("epoch")?;
    pack_list(&begin.condemned)?;
    if !matches!(key, Key::EpochBegin(n, _) if *n == begin.number) {
        return Err(FormatError::Unsigned("another epoch's beginning"));
    }
    // Members change on the owner's word only; the first epoch sets them.
    let same_members = before.is_some_and(|before| before.begin.members == begin.members);
    let owner = trust.ring.writer(&opened.writer).is_some_and(|w| w.roles & role::OWNER != 0);
    if !same_members && !owner {
        return Err(FormatError::Unsigned("members not signed by an owner"));
    }
    Ok((begin, opened.digest))
}

/// The doomed packs and the roots seen; the packs must be a part of what was condemned, which the caller's digest pins.
fn read_end(
    key: &Key,
    bytes: &[u8],
    trust: Trust<'_>,
    number: Epoch,
    begin: &Digest,
) -> std::result::Result<(Vec<PackName>, Vec<Root>), FormatError> {
    let end: EpochEnd = open_as(key, bytes, trust, ObjectKind::EpochEnd)?.decode("epoch")?;
    if end.number != number || end.begin != *begin {
        return Err(FormatError::Unsigned("end of another beginning"));
    }
    Ok((pack_list(&end.doomed)?, end.roots))
}

/// Whether these bytes are a valid end of the epoch with this beginning.
pub fn ends(trust: Trust<'_>, key: &Key, bytes: &[u8], number: Epoch, begin: &Digest) -> bool {
    read_end(key, bytes, trust, number, begin).is_ok()
}

fn open_as(key: &Key, bytes: &[u8], trust: Trust<'_>, kind: ObjectKind) -> std::result::Result<Opened, FormatError> {
    let opened = Opened::open(bytes, &key.canonical(), trust)?;
    if opened.kind == kind { Ok(opened) } else { Err(FormatError::Malformed("epoch", "kind")) }
}

/// The first of `keys` (in order of suffix) that passes; the others are recorded as junk.
fn first_valid<'k, T>(
    regions: &Regions,
    ix: usize,
    keys: impl Iterator<Item = &'k Key>,
    check: impl Fn(&Key, &[u8]) -> std::result::Result<T, FormatError>,
) -> Result<Option<(Key, T)>> {
    for key in keys {
        let bytes = match regions.get(ix, key, SMALL_OBJECT_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(e) if matches!(e.kind(), Kind::Damage | Kind::NotFound) => {
                regions.record(ix, &key.path(), &e);
                continue;
            }
            Err(e) => return Err(e),
        };
        match check(key, &bytes) {
            Ok(value) => return Ok(Some((*key, value))),
            Err(why) => regions.record(ix, &key.path(), &why),
        }
    }
    Ok(None)
}
