//! Sessions at work: they are left alone while they show life, and ended before anything is decided.
//!
//! Life is judged by the stores' times of what a session wrote, with the distance of their clocks from ours where that is
//! known. It is patience, and safety does not rest on it: who is ended too early goes on under a new id.

use crate::base::{Cancel, Epoch, RegionId, SegmentName, SessionId, TimeMs};
use crate::error::{Error, Kind, Result};
use crate::format::FormatError;
use crate::format::envelope::Kind as ObjectKind;
use crate::format::objects::Session;
use crate::format::signed::{Opened, check_sum};
use crate::region::RegionSet;
use crate::repo::epochs::Epochs;
use crate::repo::index::open_segment;
use crate::repo::view::{self, Made};
use crate::repo::{Repo, SMALL_OBJECT_BYTES_MAX, changed, members};
use crate::store::{Key, Prefix, Put};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Between two looks at sessions that are waited for.
const LOOK_EVERY_MS: i64 = 2000;
/// A folder tells nothing of its clock, and a zone that is set wrong makes hours; what is from further ahead says nothing.
const AHEAD_MS: i64 = 24 * 3_600_000;

/// A session without an outcome.
#[derive(Debug, Clone, Copy)]
pub(super) struct Open {
    /// Members that list it.
    at: RegionSet,
    /// When it was announced, by our clock.
    pub(super) since: TimeMs,
    /// Members that list an outcome of it.
    outcome: RegionSet,
}

/// All sessions.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    all: BTreeMap<SessionId, Open>,
    /// By segment, who wrote it, as far as it was asked.
    writers: BTreeMap<SegmentName, SessionId>,
    /// When each of them last wrote something.
    signs: BTreeMap<SessionId, TimeMs>,
}

impl Sessions {
    /// Lists them, and then the outcomes: what ends in between is seen as ended.
    ///
    /// # Errors
    /// A listing failed.
    pub(super) fn look(&mut self, repo: &Repo, members: RegionSet, dead_after_ms: i64) -> Result<()> {
        self.all.clear();
        let now = repo.env.now();
        for ix in members.iter() {
            let lines = repo.regions.list(ix, Prefix::Sessions)?;
            let ahead = repo.regions.clock_ahead_ms(ix, repo.env.now());
            for line in lines {
                let Key::Session(sid) = line.key else { continue };
                let time = TimeMs(line.modified.saturating_sub(ahead));
                let new = Open { at: RegionSet::NONE, since: time, outcome: RegionSet::NONE };
                let open = self.all.entry(sid).or_insert(new);
                (open.at, open.since) = (open.at.with(ix), open.since.min(time));
                self.sign(sid, time, now);
            }
        }
        for ix in members.iter() {
            for line in repo.regions.list(ix, Prefix::Snapshots)? {
                let Key::Snapshot(sid) = line.key else { continue };
                if let Some(open) = self.all.get_mut(&sid) {
                    open.outcome = open.outcome.with(ix);
                }
            }
        }
        self.segments(repo, members, dead_after_ms)
    }

    /// Notes a sign of life; one from far ahead is none, or a clock that was wrong once keeps a session alive until then.
    fn sign(&mut self, sid: SessionId, time: TimeMs, now: TimeMs) {
        if time.0.saturating_sub(now.0) > AHEAD_MS {
            return;
        }
        let newest = self.signs.entry(sid).or_insert(time);
        *newest = time.max(*newest);
    }

    /// Whoever named packs a short while ago is at work.
    fn segments(&mut self, repo: &Repo, members: RegionSet, dead_after_ms: i64) -> Result<()> {
        let now = repo.env.now();
        let since = now.0.saturating_sub(dead_after_ms);
        for ix in members.iter() {
            let lines = repo.regions.list(ix, Prefix::Index)?;
            let ahead = repo.regions.clock_ahead_ms(ix, repo.env.now());
            let ours = |time: i64| time.saturating_sub(ahead);
            for line in lines.iter().filter(|line| ours(line.modified) >= since) {
                let Key::Index(name) = line.key else { continue };
                let writer = self.writers.get(&name).copied().or_else(|| {
                    let bytes = repo.regions.get(ix, &line.key, SMALL_OBJECT_BYTES_MAX).ok()?;
                    open_segment(repo, &line.key, &bytes).ok().map(|content| content.segment.sid)
                });
                if let Some(sid) = writer {
                    self.writers.insert(name, sid);
                    self.sign(sid, TimeMs(ours(line.modified)), now);
                }
            }
        }
        Ok(())
    }

    /// Whether it gave a sign of life so short a while ago; a time that is yet to come, but soon, is one.
    fn is_alive(&self, sid: &SessionId, now: TimeMs, dead_after_ms: i64) -> bool {
        let sign = self.signs.get(sid).copied().unwrap_or(TimeMs(i64::MIN));
        now.0.saturating_sub(sign.0) < dead_after_ms
    }

    /// Those without an outcome anywhere that show life.
    pub(super) fn at_work(&self, now: TimeMs, dead_after_ms: i64) -> BTreeMap<SessionId, Open> {
        let at_work =
            |(sid, open): &(&SessionId, &Open)| open.outcome.is_empty() && self.is_alive(sid, now, dead_after_ms);
        self.all.iter().filter(at_work).map(|(s, o)| (*s, *o)).collect()
    }

    /// Those that may have made what is of use to somebody who is at work: who is at work; who was ended and still shows life,
    /// as a writer learns of it when he commits, and then goes on under a new id with all that he stored; and those from which
    /// any of these went on. `ended`: sessions that ended without a snapshot.
    ///
    /// # Errors
    /// A member does not answer.
    pub(super) fn busy(
        &self,
        repo: &Repo,
        ended: &BTreeMap<SessionId, RegionSet>,
        (now, dead_after_ms): (TimeMs, i64),
    ) -> Result<BTreeMap<SessionId, Open>> {
        let mut busy = self.at_work(now, dead_after_ms);
        for (sid, at) in ended.iter().filter(|(sid, _)| self.is_alive(sid, now, dead_after_ms)) {
            if !is_repack(repo, *sid, *at)? {
                busy.insert(*sid, self.announced(sid, now));
            }
        }
        let mut next: Vec<SessionId> = busy.keys().copied().collect();
        while let Some(sid) = next.pop() {
            let at = self.at(&sid);
            let Some(before) = refreshes(repo, sid, at)? else { continue };
            if let Entry::Vacant(free) = busy.entry(before) {
                free.insert(self.announced(&before, now));
                next.push(before);
            }
        }
        Ok(busy)
    }

    /// What is known of a session, of which the announcement may have been removed.
    fn announced(&self, sid: &SessionId, now: TimeMs) -> Open {
        let none = Open { at: RegionSet::NONE, since: now, outcome: RegionSet::NONE };
        self.all.get(sid).copied().unwrap_or(none)
    }

    /// Those without an outcome anywhere.
    pub(super) fn unresolved(&self) -> BTreeSet<SessionId> {
        self.all.iter().filter(|(_, open)| open.outcome.is_empty()).map(|(sid, _)| *sid).collect()
    }

    /// Those whose outcome every member lists: nothing more can become of them.
    pub(super) fn over(&self, members: RegionSet) -> impl Iterator<Item = (SessionId, RegionSet)> {
        let over = move |(_, open): &(&SessionId, &Open)| open.outcome.covers(members);
        self.all.iter().filter(over).map(|(sid, open)| (*sid, open.at))
    }

    /// The same for snapshots that go: where their sessions are listed.
    pub(super) fn at(&self, sid: &SessionId) -> RegionSet {
        self.all.get(sid).map_or(RegionSet::NONE, |open| open.at)
    }
}

/// Whether a session ended with a record of packs that it wrote anew: then it is at nothing any more.
fn is_repack(repo: &Repo, sid: SessionId, at: RegionSet) -> Result<bool> {
    let read = first(repo, &Key::Snapshot(sid), at, |opened| Some(opened.kind == ObjectKind::Repack))?;
    Ok(read.unwrap_or(false))
}

/// The session from which this one went on.
fn refreshes(repo: &Repo, sid: SessionId, at: RegionSet) -> Result<Option<SessionId>> {
    first(repo, &Key::Session(sid), at, |opened| opened.decode::<Session>("session").ok()?.refreshes)
}

/// What the first of these regions says at a key that shows something of ours there.
fn first<T>(repo: &Repo, key: &Key, at: RegionSet, read: impl Fn(&Opened) -> Option<T>) -> Result<Option<T>> {
    for ix in at.iter() {
        match repo.regions.get(ix, key, SMALL_OBJECT_BYTES_MAX) {
            Ok(bytes) => {
                if let Ok(opened) = repo.open_object(key, &bytes) {
                    return Ok(read(&opened));
                }
            }
            Err(e) if matches!(e.kind(), Kind::NotFound | Kind::Damage) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(None)
}

/// Where the outcome of a session is decided.
enum Decides {
    In(usize),
    /// In no member, or it cannot be told.
    Nowhere,
    /// It is none of ours, or it was announced later and knows the list.
    Not,
}

/// How long sessions are waited for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    pub(super) wait_ms: i64,
    pub(super) dead_after_ms: i64,
}

/// What became of the sessions of before.
#[derive(Debug, Default)]
pub(super) struct Resolved {
    /// How many were ended.
    pub(super) ended: u64,
    /// Those that were left alone for what a region shows and cannot be read: it may be their snapshot.
    pub(super) unsure: BTreeSet<SessionId>,
}

/// Ends every session of an epoch before `number` that has no outcome where it is decided. Those that show life are
/// waited for, up to an end. `lost`: whose snapshots a person knows to be lost, whatever is shown of them.
///
/// # Errors
/// A member failed, the keys were changed, or interrupted.
pub(super) fn resolve(
    repo: &Repo,
    epochs: &Epochs,
    members: RegionSet,
    patience: Patience,
    lost: &dyn Fn(&SessionId) -> bool,
    cancel: &Cancel,
) -> Result<Resolved> {
    let (number, begun) = (epochs.newest(), repo.env.steady());
    let mut sessions = Sessions::default();
    loop {
        sessions.look(repo, members, patience.dead_after_ms)?;
        let (mut open, mut resolved, mut strange) = (Vec::new(), Resolved::default(), false);
        for (sid, one) in sessions.all.iter().filter(|(_, one)| !one.outcome.covers(members)) {
            let at = match decides(repo, *sid, one, number, &mut strange)? {
                Decides::In(ix) if !one.outcome.has(ix) => RegionSet::of([ix]),
                Decides::Nowhere => members,
                Decides::In(_) | Decides::Not => continue,
            };
            match made_in(repo, *sid, one.outcome, &mut strange)? {
                Made::Snapshot => {}
                Made::Perhaps if !lost(sid) => _ = resolved.unsure.insert(*sid),
                Made::Perhaps | Made::Nothing | Made::Strange => open.push((*sid, at)),
            }
        }
        // Nobody's session is left alone: by keys that are newer it may be somebody's.
        if strange {
            changed::keys_stand(repo)?;
        }
        let left = patience.wait_ms.saturating_sub(repo.env.steady().saturating_sub(begun));
        let at_work = sessions.at_work(repo.env.now(), patience.dead_after_ms);
        if left <= 0 || !open.iter().any(|(sid, _)| at_work.contains_key(sid)) {
            open.iter().try_for_each(|(sid, at)| end(repo, epochs, *sid, *at))?;
            resolved.ended = open.len() as u64;
            return Ok(resolved);
        }
        repo.env.wait(cancel, Duration::from_millis(left.min(LOOK_EVERY_MS).unsigned_abs()))?;
    }
}

fn decides(repo: &Repo, sid: SessionId, open: &Open, number: Epoch, strange: &mut bool) -> Result<Decides> {
    let key = Key::Session(sid);
    let mut decides = Decides::Not;
    for ix in open.at.iter() {
        let bytes = match repo.regions.get(ix, &key, SMALL_OBJECT_BYTES_MAX) {
            Ok(bytes) => bytes,
            // Removed meanwhile: it is over.
            Err(e) if e.kind() == Kind::NotFound => continue,
            Err(e) if e.kind() == Kind::Damage => {
                decides = Decides::Nowhere;
                continue;
            }
            Err(e) => return Err(e),
        };
        let opened = repo.open_object(&key, &bytes).and_then(|opened| opened.decode::<Session>("session"));
        match opened {
            Ok(session) if session.sid != sid => {}
            Ok(session) if session.fresh.epoch >= number => return Ok(Decides::Not),
            Ok(session) => return Ok(place_of(repo, session.decision)),
            // What is whole and does not verify is nobody's session; what is not may be anybody's.
            Err(FormatError::WrongKey | FormatError::Newer(_)) => (decides, *strange) = (Decides::Nowhere, true),
            Err(_) if check_sum(&bytes).is_err() => decides = Decides::Nowhere,
            Err(_) => *strange = true,
        }
    }
    Ok(decides)
}

/// What these regions show of what a session made. If one shows a snapshot it was made first where that is decided, whatever
/// that region has lost since. Junk in one region, or an end that was put there for that region's sake, keeps nobody from
/// creating the outcome in another.
fn made_in(repo: &Repo, sid: SessionId, at: RegionSet, strange: &mut bool) -> Result<Made> {
    let mut made = Made::Nothing;
    for ix in at.iter() {
        match view::made(repo, sid, ix)? {
            Made::Snapshot => return Ok(Made::Snapshot),
            Made::Perhaps => made = Made::Perhaps,
            Made::Strange => *strange = true,
            Made::Nothing => {}
        }
    }
    Ok(made)
}

fn place_of(repo: &Repo, region: RegionId) -> Decides {
    let there = repo.writable().iter().find(|ix| repo.regions.region(*ix).id == Some(region));
    there.map_or(Decides::Nowhere, Decides::In)
}

/// Creates the end of a session in these regions, where nothing stands.
fn end(repo: &Repo, epochs: &Epochs, sid: SessionId, at: RegionSet) -> Result<()> {
    let key = Key::Snapshot(sid);
    let bytes = members::tombstone(repo, epochs, sid, "a prune ended it: it had begun before, and had not ended")?;
    for (ix, put) in repo.regions.put_each(at, &key, &bytes) {
        match put {
            // Something else: its writer was quicker, or another prune.
            Ok(Put::Created | Put::Same | Put::Other) => {}
            Err(e) => {
                return Err(Error::at(
                    e,
                    format!("ending session {} in {}", sid.short(), repo.regions.region(ix).name),
                ));
            }
        }
    }
    Ok(())
}
