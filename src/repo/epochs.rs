//! Epochs of the retention protocol as each region shows them: members, condemned and doomed packs.
//!
//! What does not verify under the right role is junk: recorded, passed over, believed by nobody.

use super::branches::{Begun, Branches, Done, Link, Place};
use super::epochs_known::Fetched;
use super::index::cache::Cache;
use crate::base::{Digest, Epoch, PackName, RegionId, SessionId, TimeMs};
use crate::error::{Error, Kind, Result};
use crate::format::FormatError;
use crate::format::envelope::Kind as ObjectKind;
use crate::format::objects::{EpochBegin, EpochEnd, Member, Root, pack_list};
use crate::format::ring::{Trust, role};
use crate::format::signed::Opened;
use crate::region::{Lists, Region, RegionSet, Regions};
use crate::store::{Key, Prefix};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

/// One epoch.
#[derive(Debug, Clone)]
struct EpochState {
    begun: Arc<Begun>,
    /// Once it is decided, by the regions whose word counts.
    ends: Vec<Arc<Done>>,
    /// What each of these dooms of the list of the beginning.
    doomed: Arc<[PackName]>,
    /// What some of them doom, and others do not.
    disputed: Arc<[PackName]>,
}

impl EpochState {
    /// Two ends of one begin come of a person's word, where home was given up, or emptied, that had decided and told nobody; or
    /// of a home that lost its end. Who saw only the other one may have re-used what this one dooms, so nothing is dead that
    /// one of them spares; who saw only this one may be about to remove it, so nothing more rests on what one of them dooms.
    /// What an end dooms beyond the list of its beginning is not doomed.
    fn new(begun: &Arc<Begun>, ends: Vec<Arc<Done>>) -> EpochState {
        let by: Vec<HashSet<&PackName>> = ends.iter().map(|done| done.doomed.iter().collect()).collect();
        let said = begun.condemned.iter().filter(|pack| by.iter().any(|doomed| doomed.contains(pack)));
        let (doomed, disputed): (Vec<PackName>, Vec<PackName>) =
            said.partition(|pack| by.iter().all(|doomed| doomed.contains(pack)));
        EpochState { begun: Arc::clone(begun), doomed: doomed.into(), disputed: disputed.into(), ends }
    }

    fn members(&self) -> &[Member] {
        &self.begun.begin.members
    }

    /// Whether a prune began it, or a change of the regions, which names neither packs nor snapshots.
    fn is_of_prune(&self) -> bool {
        !self.begun.condemned.is_empty() || !self.begun.begin.roots.is_empty()
    }

    fn roots(&self) -> impl Iterator<Item = &Root> {
        self.begun.begin.roots.iter().chain(self.ends.iter().flat_map(|done| &done.roots))
    }
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
    /// Its digest: the same whoever has it.
    pub digest: Digest,
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
    /// Whether a prune began it: to condemn packs, or only to say which snapshots there are. A change of the regions says
    /// nothing of them.
    pub prunes: bool,
}

/// What the regions say.
#[derive(Debug, Clone, Default)]
pub struct Epochs {
    known: BTreeMap<Epoch, EpochState>,
    newest_in: BTreeMap<usize, Epoch>,
    /// Where each region has a valid beginning, and its ends.
    at: BTreeMap<(usize, Epoch), Place>,
    /// Regions that show other epochs than those that count, from which one on.
    forked: BTreeMap<usize, Epoch>,
    /// Whether something is whole and not verified by the keys that are known here.
    unknown_hand: bool,
    listed: BTreeMap<usize, Vec<Key>>,
    /// Regions whose word counts: members, and those that were until a change that is not decided.
    sources: RegionSet,
    /// Beginnings after the newest that nobody was told of: they do not count, and what they condemn is left alone.
    untold: Vec<Arc<Begun>>,
    /// Regions that list an epoch which is not there. Nobody removes an epoch: who goes on as if there were none may rest on
    /// what is condemned.
    unshown: RegionSet,
}

impl Epochs {
    /// Reads every epoch that the regions list; what this machine has read before and is listed unchanged is not read again.
    pub fn load(regions: &Regions, trust: Trust<'_>, lists: &Lists, cache: Option<&Cache>) -> Epochs {
        let mut listed = keys_of(lists);
        listed.retain(|ix, _| regions.healthy().has(*ix));
        let mut branches = Branches::default();
        let mut fetched = Fetched::of(regions, lists, cache);
        for (ix, keys) in &listed {
            if let Err(e) = read_region(&mut branches, &mut fetched, trust, *ix, keys) {
                regions.fail(*ix, e);
            }
        }
        let (unknown_hand, unshown) = (fetched.unknown_hand, fetched.unshown);
        fetched.keep();
        let branch = branches.choose(&|ix| if ix < regions.len() { regions.region(ix).id } else { None });
        for (ix, key, why) in branches.strays(&branch) {
            regions.record(ix, &key.path(), &FormatError::Unsigned(why));
        }
        let sources = sources(regions, &branches, &branch.links);
        let mut epochs = Epochs {
            listed,
            unknown_hand,
            sources,
            unshown,
            forked: branch.forked,
            untold: branch.untold,
            ..Epochs::default()
        };
        for link in &branch.links {
            let ends = branches.ends(link.number, &link.begun.digest, sources);
            epochs.known.insert(link.number, EpochState::new(&link.begun, ends));
            for ix in link.at.iter() {
                epochs.newest_in.insert(ix, link.number);
                epochs.at.extend(branches.keys(ix, link).map(|keys| ((ix, link.number), keys)));
            }
        }
        epochs
    }

    /// The same now: only listings are read where nothing was added.
    pub fn again(&self, regions: &Regions, trust: Trust<'_>, among: RegionSet, cache: Option<&Cache>) -> Epochs {
        let lists = regions.list_all(among, Prefix::Epochs);
        let same = keys_of(&lists).iter().all(|(ix, keys)| self.listed.get(ix) == Some(keys));
        if same {
            return self.clone();
        }
        let now = Self::load(regions, trust, &lists, cache);
        // What began meanwhile may be in it.
        now.unshown.iter().for_each(|ix| regions.fail(ix, unshown()));
        now
    }

    /// Valid objects that a region lacks and another has: where to find each, by region and key. Only of a region
    /// that lags by the newest epoch; one that lacks more was rolled back, or emptied, and nothing is put there.
    pub fn lag(&self, among: RegionSet) -> Vec<Lag> {
        among.iter().filter(|ix| !self.has_lost(*ix)).flat_map(|to| self.lacking(to)).collect()
    }

    /// All valid objects that a region lacks and another has, oldest epoch first, however far it is behind: of the ends of an
    /// epoch each. The newest beginning, where all have lost it whose word counts, is taken from whoever has it: it is decided
    /// anew.
    pub fn lacking(&self, to: usize) -> Vec<Lag> {
        let mut lags = Vec::new();
        let newest = self.newest();
        let lost = !self.at.keys().any(|(ix, number)| *number == newest && self.sources.has(*ix));
        for ((from, number), (begin, ends)) in self.at.iter().filter(|((from, _), _)| *from != to) {
            let (here, counts) = (self.at.get(&(to, *number)), self.sources.has(*from));
            let lag = |key: &Key, digest| (*number, Lag { from: *from, to, key: *key, digest });
            if here.is_none() && (counts || (lost && *number == newest)) {
                lags.extend(self.known.get(number).map(|state| lag(begin, state.begun.digest)));
            }
            let shown = here.map_or(&[][..], |(_, ends)| ends);
            let lacks = |digest: &Digest| counts && shown.iter().all(|(known, _)| known != digest);
            lags.extend(ends.iter().filter(|(digest, _)| lacks(digest)).map(|(digest, key)| lag(key, *digest)));
        }
        lags.sort_by_key(|(number, _)| *number);
        lags.into_iter().map(|(_, lag)| lag).collect()
    }

    /// Whether a region shows the newest epoch.
    pub fn is_current(&self, ix: usize) -> bool {
        self.own(ix) == self.newest()
    }

    /// Whether a region lacks more than the newest epoch.
    pub fn is_rolled_back(&self, ix: usize) -> bool {
        self.own(ix).0.saturating_add(1) < self.newest().0
    }

    /// Whether a region has its mark and nothing of the epochs that others show: what it had is gone.
    pub fn is_emptied(&self, ix: usize) -> bool {
        !self.known.is_empty() && self.listed.get(&ix).is_some_and(Vec::is_empty)
    }

    /// Whether a region lost more than a copy of the newest epoch can make good.
    pub fn has_lost(&self, ix: usize) -> bool {
        self.is_rolled_back(ix) || self.is_emptied(ix)
    }

    /// Whether a region shows something whole that does not verify by the keys that are known here: it may be junk, or have
    /// been signed with keys that were changed since.
    pub fn has_unknown_hand(&self) -> bool {
        self.unknown_hand
    }

    /// The newest epoch, if it is not decided yet.
    pub fn unended(&self) -> Option<Unended> {
        let (number, state) = self.known.last_key_value()?;
        let (begin, condemns) = (state.begun.digest, !state.begun.condemned.is_empty());
        let prunes = state.is_of_prune();
        state.ends.is_empty().then_some(Unended { number: *number, begin, condemns, prunes })
    }

    /// Whether what other regions say may be taken from this one: it is a member, or goes by a change that is not decided.
    pub fn is_source(&self, id: Option<RegionId>) -> bool {
        let undecided = self.known.values().next_back().is_some_and(|state| state.ends.is_empty());
        let newest = self.known.values().rev().take(if undecided { 2 } else { 1 });
        newest.flat_map(EpochState::members).any(|member| Some(member.id) == id)
    }

    /// The epoch that took a region out of the repository; `None` if it is a member, or never was.
    pub fn removed(&self, id: RegionId) -> Option<Epoch> {
        let has = |state: &EpochState| state.members().iter().any(|member| member.id == id);
        let last = self.known.iter().rfind(|(_, state)| has(state)).map(|(number, _)| *number)?;
        self.known.keys().find(|number| **number > last).copied()
    }

    /// Whether these bytes are a valid beginning of the epoch after the newest.
    ///
    /// # Errors
    /// They do not verify.
    pub fn follows(&self, trust: Trust<'_>, key: &Key, bytes: &[u8]) -> std::result::Result<bool, FormatError> {
        let before = self.known.values().next_back().map(|state| &*state.begun);
        read_begin(key, bytes, trust).map(|begun| begun.may_follow(before))
    }

    /// Whether an object with this digest stands at its key by the branch that counts.
    pub fn is_in_force(&self, key: &Key, digest: &Digest) -> bool {
        match key {
            Key::EpochBegin(number, _) => self.known.get(number).is_some_and(|state| state.begun.digest == *digest),
            Key::EpochEnd(number, _) => {
                self.known.get(number).is_some_and(|state| state.ends.iter().any(|done| done.digest == *digest))
            }
            _ => true,
        }
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
        self.known.values().next_back().map_or(&[], EpochState::members)
    }

    /// Members by the epoch that follows this one.
    pub fn members_after(&self, before: Epoch) -> Option<&[Member]> {
        self.known.get(&Epoch(before.0.checked_add(1)?)).map(EpochState::members)
    }

    /// Why a region must not be written: it is no member by the newest epoch read there, or it was rolled back.
    pub fn unwritable(&self, ix: usize, region: &Region) -> Option<Error> {
        let (own, id) = (self.own(ix), region.id);
        let is_member = self.members().iter().any(|member| Some(member.id) == id);
        if self.is_emptied(ix) && is_member {
            let what = "was emptied: it shows its mark, and nothing of the epochs that other regions show";
            let name = &region.name;
            let advice = format!("nothing new goes there; `holdfast region repair {name} --emptied` fills it again");
            return Some(Error::new(Kind::Damage, what).advise(advice));
        }
        if let Some(number) = self.forked.get(&ix).filter(|_| !is_member) {
            let what = format!("is not a member of this repository any more, and shows an epoch {number} of its own");
            let advice = "the members went on with another one: it is still read, and nothing that it says counts; \
                          take it out of the configuration";
            return Some(Error::new(Kind::Refused, what).advise(advice));
        }
        if self.unshown.has(ix) {
            return Some(unshown());
        }
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
        let counts = |e: &EpochState| e.members().iter().any(|m| Some(m.id) == id);
        let member = self.known.get(&own).is_some_and(counts) && is_member;
        (!member).then(|| match id.and_then(|id| self.removed(id)) {
            Some(by) => {
                Error::new(Kind::Refused, format!("is not a member of this repository any more: epoch {by} removed it"))
                    .advise("it is still read; take it out of the configuration")
            }
            None => Error::new(Kind::Refused, "is not a member of this repository by the newest epoch")
                .advise("it is still read, and nothing new goes there; `holdfast region add` makes it one"),
        })
    }

    /// Packs that are dead for ever: every end that counts says so.
    pub fn doomed(&self) -> HashSet<PackName> {
        self.known.values().flat_map(|e| e.doomed.iter()).copied().collect()
    }

    /// Packs on which the ends of an epoch disagree.
    pub fn disputed(&self) -> HashSet<PackName> {
        self.known.values().flat_map(|e| e.disputed.iter()).copied().collect()
    }

    /// Packs on which nothing more may rest: those that are dead, and those of which the ends of an epoch disagree.
    pub fn shunned(&self) -> HashSet<PackName> {
        let mut shunned = self.doomed();
        shunned.extend(self.disputed());
        shunned
    }

    /// Packs condemned by an epoch that is not decided yet.
    pub fn undecided(&self) -> HashSet<PackName> {
        self.known.values().filter(|e| e.ends.is_empty()).flat_map(|e| &e.begun.condemned).copied().collect()
    }

    /// Packs that must not be re-used.
    pub fn bad_packs(&self) -> HashSet<PackName> {
        let mut bad = self.going();
        bad.extend(self.disputed());
        bad
    }

    /// Packs that are dead, or may go: condemned by an undecided epoch, or by one that may yet come to be.
    pub fn going(&self) -> HashSet<PackName> {
        let mut going = self.doomed();
        going.extend(self.undecided());
        going.extend(self.untold.iter().flat_map(|begun| &begun.condemned));
        going
    }

    /// When each root was first seen by the stores' time, as epochs recorded it.
    pub fn first_seen(&self) -> BTreeMap<SessionId, TimeMs> {
        let mut seen: BTreeMap<SessionId, TimeMs> = BTreeMap::new();
        for root in self.known.values().flat_map(EpochState::roots) {
            let time = TimeMs(root.first_seen);
            seen.entry(root.sid).and_modify(|first| *first = time.min(*first)).or_insert(time);
        }
        seen
    }

    /// The roots that the last prune saw, or the one at work.
    pub fn last_roots(&self) -> Vec<Root> {
        let prune = self.known.values().rev().find(|e| e.is_of_prune());
        prune.map(|e| e.roots().cloned().collect()).unwrap_or_default()
    }

    /// Whether a prune that knew this snapshot decided without it: what it alone needed is gone. `known` is the epoch that
    /// the snapshot names. An end that doomed nothing took nothing from anybody: it may have been decided without a look at
    /// what there is, as when a member is given up.
    pub fn let_go(&self, sid: &SessionId, known: Epoch) -> bool {
        let last = self.known.iter().rfind(|(_, e)| !e.doomed.is_empty());
        let roots = |e: &EpochState| e.ends.iter().flat_map(|done| &done.roots).any(|root| root.sid == *sid);
        last.is_some_and(|(number, e)| known < *number && !roots(e))
    }

    /// Whether an epoch after this one was decided, and did not count this session among the roots.
    pub fn decided_without(&self, after: Epoch, sid: &SessionId) -> bool {
        let later = self.known.iter().filter(|(number, _)| **number > after);
        later.flat_map(|(_, e)| &e.ends).any(|end| end.roots.iter().all(|root| root.sid != *sid))
    }

    /// Whether a parent may be re-used unlooked: no epoch is undecided, or it names the parent among its roots.
    pub fn vouches_for(&self, parent: &SessionId) -> bool {
        let undecided = self.known.values().filter(|e| e.ends.is_empty()).map(|e| &e.begun);
        undecided
            .chain(&self.untold)
            .map(|begun| &begun.begin.roots)
            .all(|roots| roots.iter().any(|r| r.sid == *parent))
    }
}

/// What each region lists under `epochs/`.
fn keys_of(lists: &Lists) -> BTreeMap<usize, Vec<Key>> {
    lists.iter().map(|(ix, lines)| (*ix, lines.iter().map(|line| line.key).collect())).collect()
}

/// The regions whose word counts by these epochs.
fn sources(regions: &Regions, branches: &Branches, links: &[Link]) -> RegionSet {
    let members = |link: &Link| {
        let counts = |ix: &usize| regions.region(*ix).id.is_some_and(|id| link.begun.counts(id));
        RegionSet::of((0..regions.len()).filter(counts))
    };
    let Some((newest, before)) = links.split_last() else { return RegionSet::NONE };
    let sources = members(newest);
    match branches.ends(newest.number, &newest.begun.digest, sources).is_empty() {
        true => before.last().map_or(sources, |before| sources.or(members(before))),
        false => sources,
    }
}

fn number_of(key: &Key) -> Option<Epoch> {
    match key {
        Key::EpochBegin(n, _) => Some(*n),
        _ => None,
    }
}

/// Reads what one region shows.
fn read_region(
    branches: &mut Branches,
    fetched: &mut Fetched<'_>,
    trust: Trust<'_>,
    ix: usize,
    keys: &[Key],
) -> Result<()> {
    let numbers: BTreeSet<Epoch> = keys.iter().filter_map(number_of).collect();
    // The series has no gaps: what stands behind one is not a continuation.
    for (number, _) in numbers.into_iter().zip(1u32..).take_while(|(n, expected)| n.0 == *expected) {
        let begins = keys.iter().filter(|k| matches!(k, Key::EpochBegin(n, _) if *n == number));
        let mut any = false;
        for (key, begun) in valid(fetched, ix, begins, |key, bytes| read_begin(key, bytes, trust))? {
            branches.begun(ix, number, key, begun);
            any = true;
        }
        if !any {
            break;
        }
        let ends = keys.iter().filter(|k| matches!(k, Key::EpochEnd(n, _) if *n == number));
        for (key, done) in valid(fetched, ix, ends, |key, bytes| read_end(key, bytes, trust, number))? {
            branches.done(ix, number, key, done);
        }
    }
    Ok(())
}

fn read_begin(key: &Key, bytes: &[u8], trust: Trust<'_>) -> std::result::Result<Begun, FormatError> {
    let opened = open_as(key, bytes, trust, ObjectKind::EpochBegin)?;
    let begin: EpochBegin = opened.decode("epoch")?;
    let condemned = pack_list(&begin.condemned)?;
    if !matches!(key, Key::EpochBegin(n, _) if *n == begin.number) {
        return Err(FormatError::Unsigned("another epoch's beginning"));
    }
    let by_owner = trust.ring.writer(&opened.writer).is_some_and(|w| w.roles & role::OWNER != 0);
    Ok(Begun { begin, digest: opened.digest, condemned, by_owner })
}

/// The doomed packs must be a part of what was condemned, which the digest of the beginning pins.
fn read_end(key: &Key, bytes: &[u8], trust: Trust<'_>, number: Epoch) -> std::result::Result<Done, FormatError> {
    let opened = open_as(key, bytes, trust, ObjectKind::EpochEnd)?;
    let end: EpochEnd = opened.decode("epoch")?;
    if end.number != number {
        return Err(FormatError::Unsigned("end of another beginning"));
    }
    Ok(Done { digest: opened.digest, begin: end.begin, doomed: pack_list(&end.doomed)?, roots: end.roots })
}

/// Whether these bytes are a valid end of the epoch with this beginning.
///
/// # Errors
/// They do not verify.
pub fn ends(
    trust: Trust<'_>,
    key: &Key,
    bytes: &[u8],
    number: Epoch,
    begin: &Digest,
) -> std::result::Result<bool, FormatError> {
    read_end(key, bytes, trust, number).map(|done| done.begin == *begin)
}

fn open_as(key: &Key, bytes: &[u8], trust: Trust<'_>, kind: ObjectKind) -> std::result::Result<Opened, FormatError> {
    let opened = Opened::open(bytes, &key.canonical(), trust)?;
    if opened.kind == kind { Ok(opened) } else { Err(FormatError::Malformed("epoch", "kind")) }
}

fn unshown() -> Error {
    Error::new(Kind::Damage, "lists an epoch that is not there, so nothing new goes there")
        .advise("it is still read; see `holdfast region repair`")
}

/// Those of `keys` (in order of suffix) that pass; the others are recorded as junk.
fn valid<'k, T>(
    fetched: &mut Fetched<'_>,
    ix: usize,
    keys: impl Iterator<Item = &'k Key>,
    check: impl Fn(&Key, &[u8]) -> std::result::Result<T, FormatError>,
) -> Result<Vec<(Key, T)>> {
    let (mut found, mut missing) = (Vec::new(), false);
    for key in keys {
        let bytes = match fetched.take(ix, key) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == Kind::Damage => {
                fetched.regions().record(ix, &key.path(), &e);
                continue;
            }
            Err(e) if e.kind() == Kind::NotFound => {
                fetched.regions().record(ix, &key.path(), "is listed, and not there");
                missing = true;
                continue;
            }
            Err(e) => return Err(e),
        };
        match check(key, &bytes) {
            Ok(value) => {
                fetched.verified(ix, key, bytes);
                found.push((*key, value));
            }
            Err(why) => {
                fetched.unknown_hand |= !matches!(why, FormatError::Damaged(_));
                fetched.regions().record(ix, &key.path(), &why);
            }
        }
    }
    if missing && found.is_empty() {
        fetched.unshown = fetched.unshown.with(ix);
    }
    Ok(found)
}
