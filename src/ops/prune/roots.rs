//! What must stay: the snapshots of all members that are not forgotten, those that are held, and the last good one of a
//! source of which somebody forgot everything without saying that it may go.

use crate::base::{Digest, Generation, SessionId, TimeMs};
use crate::error::{Error, Kind, Result};
use crate::format::envelope::Kind as ObjectKind;
use crate::format::objects::{Forgotten, Root as RootLine};
use crate::format::tree::Entry;
use crate::region::RegionSet;
use crate::repo::epochs::Epochs;
use crate::repo::holds::Holds;
use crate::repo::view::{Outcomes, Snapshot};
use crate::repo::{Repo, SMALL_OBJECT_BYTES_MAX};
use crate::store::{Key, Prefix, Put};
use std::collections::{BTreeMap, BTreeSet};

/// A snapshot that stays.
#[derive(Debug, Clone)]
pub(super) struct Root {
    pub(super) sid: SessionId,
    pub(super) digest: Digest,
    pub(super) generation: Generation,
    pub(super) entry: Entry,
    /// Members that show it.
    pub(super) regions: RegionSet,
    first_seen: TimeMs,
}

/// A snapshot that goes, or stays although it is forgotten.
#[derive(Debug, Clone)]
struct Marked {
    /// Members with a marker that verifies.
    at: RegionSet,
    /// Whether a person said that it may be the last.
    last: bool,
}

/// When a marker counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Where any member has it: what can be planned with.
    Planned,
    /// Where every member has it: what can be decided by.
    Decided,
}

/// What stays and what goes.
#[derive(Debug, Default)]
pub(super) struct Roots {
    pub(super) roots: Vec<Root>,
    /// Snapshots that go, and the members that list them.
    pub(super) gone: BTreeMap<SessionId, RegionSet>,
    /// Sessions that ended without a snapshot, and the members that list their outcome.
    pub(super) ended: BTreeMap<SessionId, RegionSet>,
    /// What a person should know.
    pub(super) alarms: Vec<String>,
    /// Whether one that the last prune saw is gone without a marker, and a person knows that it is lost.
    lost: bool,
}

fn open_marker(repo: &Repo, sid: SessionId, bytes: &[u8]) -> Option<Forgotten> {
    let opened = repo.open_object(&Key::Forgotten(sid), bytes).ok()?;
    let marker: Forgotten = opened.decode("marker").ok()?;
    (opened.kind == ObjectKind::Forgotten && marker.sid == sid).then_some(marker)
}

/// The marker of a snapshot in one region, if it verifies there.
fn marker_in(repo: &Repo, sid: SessionId, ix: usize) -> Result<Option<Forgotten>> {
    let key = Key::Forgotten(sid);
    let bytes = match repo.regions.get(ix, &key, SMALL_OBJECT_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(e) if matches!(e.kind(), Kind::NotFound | Kind::Damage) => return Ok(None),
        Err(e) => return Err(e),
    };
    let marker = open_marker(repo, sid, &bytes);
    if marker.is_none() {
        repo.regions.record(ix, &key.path(), "is no marker of this snapshot; it hides nothing");
    }
    Ok(marker)
}

/// Where markers are listed.
fn listed(repo: &Repo, members: RegionSet) -> Result<BTreeMap<SessionId, RegionSet>> {
    let mut found: BTreeMap<SessionId, RegionSet> = BTreeMap::new();
    for ix in members.iter() {
        for line in repo.regions.list(ix, Prefix::Forgotten)? {
            if let Key::Forgotten(sid) = line.key {
                let at = found.entry(sid).or_default();
                *at = at.with(ix);
            }
        }
    }
    Ok(found)
}

/// The markers that matter: of snapshots that some member still lists.
fn markers(repo: &Repo, members: RegionSet, outcomes: &Outcomes) -> Result<BTreeMap<SessionId, Marked>> {
    let mut marked = BTreeMap::new();
    let matters = |sid: &SessionId| outcomes.snapshots.contains_key(sid) || outcomes.unsure.contains_key(sid);
    for (sid, at) in listed(repo, members)?.into_iter().filter(|(sid, _)| matters(sid)) {
        let mut one = Marked { at: RegionSet::NONE, last: false };
        for ix in at.iter() {
            if let Some(marker) = marker_in(repo, sid, ix)? {
                one.at = one.at.with(ix);
                one.last |= marker.last == Some(true);
            }
        }
        if !one.at.is_empty() {
            marked.insert(sid, one);
        }
    }
    Ok(marked)
}

/// Brings every member the markers of snapshots that some member still lists: a marker counts once it is everywhere.
///
/// # Errors
/// A member failed.
pub(super) fn spread_markers(repo: &Repo, members: RegionSet) -> Result<()> {
    let outcomes = Outcomes::load(repo, members)?;
    for (sid, marked) in markers(repo, members, &outcomes)? {
        let missing = members.iter().filter(|ix| !marked.at.has(*ix));
        let (missing, key) = (RegionSet::of(missing), Key::Forgotten(sid));
        if missing.is_empty() {
            continue;
        }
        let check = |bytes: &[u8]| crate::repo::view::open_marker(repo, &key, sid, bytes).map(|()| bytes.to_vec());
        let bytes = repo.regions.read(marked.at, &key, SMALL_OBJECT_BYTES_MAX, check)?.into();
        for (ix, put) in repo.regions.put_each(missing, &key, &bytes) {
            if put? == Put::Other {
                repo.regions.record(ix, &key.path(), "junk stands where a marker belongs: the snapshot stays a root");
            }
        }
    }
    Ok(())
}

/// What is asked of the roots.
pub(super) struct Ask<'a> {
    pub(super) members: RegionSet,
    pub(super) stage: Stage,
    /// Sources that may lose their last snapshot.
    pub(super) last: &'a [String],
    /// Snapshots that are known to be lost: prefixes of their ids.
    pub(super) lost: &'a [String],
}

/// Whether a person named it, by the beginning of its id.
pub(super) fn is_named(prefixes: &[String], sid: &SessionId) -> bool {
    prefixes.iter().any(|text| sid.hex().starts_with(text.as_str()))
}

impl Ask<'_> {
    fn is_lost(&self, sid: &SessionId) -> bool {
        is_named(self.lost, sid)
    }
}

impl Roots {
    /// Looks at what the members show.
    ///
    /// # Errors
    /// A member failed, a hold or an outcome cannot be read, or a snapshot that the last prune saw is gone without a marker.
    pub(super) fn look(repo: &Repo, epochs: &Epochs, ask: &Ask<'_>) -> Result<Roots> {
        let outcomes = Outcomes::load(repo, ask.members)?;
        let lost = has_lost(repo, epochs, &outcomes, ask)?;
        let marked = markers(repo, ask.members, &outcomes)?;
        // After the markers: who holds looks for a marker after his hold was made.
        let held = Holds::certain(repo)?.held();
        super::still_here(repo, ask.members)?;
        let unread = unread(&outcomes, &marked, &held, ask)?;
        // One that an earlier prune decided without is not brought back by a marker that a region lost since.
        let let_go = |sid: &SessionId| {
            outcomes.snapshots.get(sid).is_some_and(|one| epochs.let_go(sid, one.manifest.fresh.epoch))
        };
        let counts = |marked: &Marked| ask.stage == Stage::Planned || marked.at.covers(ask.members);
        let marked_well = |sid: &SessionId| marked.get(sid).is_some_and(|marked| counts(marked) || let_go(sid));
        let goes = |sid: &SessionId| marked_well(sid) && (!held.contains(sid) || let_go(sid));
        let mut going: BTreeSet<SessionId> = outcomes.snapshots.keys().copied().filter(goes).collect();
        let mut alarms = Vec::new();
        for (source, newest) in roots_of_the_last(&outcomes, &going) {
            let said = ask.last.contains(&source) || marked.get(&newest).is_some_and(|marked| marked.last);
            if !said && !let_go(&newest) {
                going.remove(&newest);
                alarms.push(format!(
                    "every snapshot of {source} is forgotten, and nobody said that the last may go: {} stays; \
                     `holdfast prune --last '{source}'` lets it go",
                    newest.short()
                ));
            }
        }
        let seen = epochs.first_seen();
        let mut roots = Roots { gone: unread, ended: outcomes.ended, alarms, lost, ..Roots::default() };
        for (sid, snapshot) in outcomes.snapshots {
            match going.contains(&sid) {
                true => _ = roots.gone.insert(sid, snapshot.regions),
                false => roots.roots.push(root(sid, snapshot, &seen)),
            }
        }
        // Those that are shown in more regions first: what they need is then known for the others.
        roots.roots.sort_by_key(|root| (std::cmp::Reverse(root.regions.count()), root.sid));
        Ok(roots)
    }

    /// Whether all of these stay, or go as snapshots: sessions that were left alone for what may be their snapshot.
    ///
    /// # Errors
    /// One is neither: it could commit yet.
    pub(super) fn know(&self, unsure: &BTreeSet<SessionId>) -> Result<()> {
        let stays = |sid: &SessionId| self.roots.iter().any(|root| root.sid == *sid);
        match unsure.iter().find(|sid| !self.gone.contains_key(sid) && !stays(sid)) {
            None => Ok(()),
            Some(sid) => {
                let what = format!("what stands for session {} changed while it was looked at", sid.short());
                Err(Error::new(Kind::Retry, what).advise("run again; nothing was decided"))
            }
        }
    }

    /// Whether it must be recorded which ones there are, though nothing goes: else each later prune misses again what a person
    /// has said once is lost.
    pub(super) fn is_news(&self) -> bool {
        self.lost && !self.roots.is_empty()
    }

    /// As epochs keep them.
    pub(super) fn lines(&self) -> Vec<RootLine> {
        let line = |root: &Root| RootLine { sid: root.sid, digest: root.digest, first_seen: root.first_seen.0 };
        let mut lines: Vec<RootLine> = self.roots.iter().map(line).collect();
        lines.sort_by_key(|line| line.sid);
        lines
    }
}

/// What cannot be read, and goes all the same: whatever it was, it is forgotten everywhere, and nobody holds it. What a person
/// knows to be lost stays where it is, and nothing is kept for it.
///
/// # Errors
/// Something else cannot be read.
fn unread(
    outcomes: &Outcomes,
    marked: &BTreeMap<SessionId, Marked>,
    held: &BTreeSet<SessionId>,
    ask: &Ask<'_>,
) -> Result<BTreeMap<SessionId, RegionSet>> {
    let mut gone = BTreeMap::new();
    for (sid, (why, at)) in &outcomes.unsure {
        let counts = |marked: &Marked| ask.stage == Stage::Planned || marked.at.covers(ask.members);
        match marked.get(sid).is_some_and(counts) && !held.contains(sid) {
            true => _ = gone.insert(*sid, *at),
            false if ask.is_lost(sid) => {}
            false => {
                return Err(why.clone().advise(format!(
                    "it may be a snapshot: mend it first, with `holdfast verify --repair`; if it is lost for good, \
                     `holdfast prune --lost {}` goes on without it",
                    sid.hex()
                )));
            }
        }
    }
    Ok(gone)
}

fn root(sid: SessionId, snapshot: Snapshot, seen: &BTreeMap<SessionId, TimeMs>) -> Root {
    let first_seen = seen.get(&sid).copied().map_or(snapshot.stored, |first| first.min(snapshot.stored));
    let manifest = snapshot.manifest;
    let (generation, entry) = (manifest.generation, manifest.root);
    Root { sid, digest: snapshot.digest, generation, entry, regions: snapshot.regions, first_seen }
}

/// The newest snapshot of each source of which nothing stays.
fn roots_of_the_last(outcomes: &Outcomes, going: &BTreeSet<SessionId>) -> BTreeMap<String, SessionId> {
    let mut newest: BTreeMap<&str, (bool, i64, SessionId)> = BTreeMap::new();
    for (sid, snapshot) in &outcomes.snapshots {
        let one = (!going.contains(sid), snapshot.manifest.start, *sid);
        let known = newest.entry(&snapshot.manifest.source.name).or_insert(one);
        *known = one.max(*known);
    }
    let nothing_stays = newest.into_iter().filter(|(_, (stays, ..))| !stays);
    nothing_stays.map(|(source, (.., sid))| (source.to_owned(), sid)).collect()
}

/// A snapshot that the last prune saw and no listing shows any more was forgotten, or was lost: says whether a person
/// knows of one that it is lost.
///
/// # Errors
/// One is gone, and nobody says so.
fn has_lost(repo: &Repo, epochs: &Epochs, outcomes: &Outcomes, ask: &Ask<'_>) -> Result<bool> {
    let is_there = |sid: &SessionId| outcomes.snapshots.contains_key(sid) || outcomes.unsure.contains_key(sid);
    let missing = epochs.last_roots().into_iter().map(|root| root.sid);
    let missing: BTreeSet<SessionId> = missing.filter(|sid| !is_there(sid)).collect();
    if missing.is_empty() {
        return Ok(false);
    }
    let (listed, mut lost) = (listed(repo, ask.members)?, false);
    for sid in missing {
        let mut marked = false;
        for ix in listed.get(&sid).copied().unwrap_or_default().iter() {
            marked = marked || marker_in(repo, sid, ix)?.is_some();
        }
        match (marked, ask.is_lost(&sid)) {
            (true, _) => {}
            (false, true) => lost = true,
            (false, false) => return Err(vanished(sid)),
        }
    }
    Ok(lost)
}

fn vanished(sid: SessionId) -> Error {
    let what = format!("snapshot {} was there when the last prune ran, and is gone without a marker", sid.short());
    Error::new(Kind::Damage, what).advise(format!(
        "bring back a region that has it, or find out who removed it; if it is lost for good, \
         `holdfast prune --lost {}` goes on without it; nothing was removed",
        sid.hex()
    ))
}
