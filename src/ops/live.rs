//! Is somebody else at work on a source? The sessions in the regions say so.
//!
//! A session that has no outcome yet may be at work, or its program may have died. It counts as at work for
//! [`YOUNG_MS`] after it was announced, and up to [`OLD_MS`] as long as it names new packs at least every
//! [`SIGN_MS`]. That is a courtesy, not a lock: two runs of one source harm nothing, they do the work twice.

use crate::base::{SegmentName, SessionId, TimeMs};
use crate::error::Result;
use crate::format::objects::Session;
use crate::region::RegionSet;
use crate::repo::index::open_segment;
use crate::repo::{Repo, SMALL_OBJECT_BYTES_MAX};
use crate::store::{Key, Prefix};
use std::collections::{BTreeMap, BTreeSet};

/// A session that is so young is at work.
pub const YOUNG_MS: i64 = 15 * 60_000;
/// The last sign of life of one that is older is at most so old.
pub const SIGN_MS: i64 = 30 * 60_000;
/// One that is older than this is not waited for.
pub const OLD_MS: i64 = 24 * 3_600_000;
/// What is from so far ahead says nothing: a store's clock that was wrong must not stop backups until its time comes.
pub const AHEAD_MS: i64 = 5 * 60_000;

/// A session that seems to be at work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Live {
    /// Its id.
    pub sid: SessionId,
    /// The host it runs on.
    pub host: String,
    /// When it was announced, by the store's time.
    pub since: TimeMs,
}

/// Sessions that are known to be over: those of this host from before then.
#[derive(Debug, Clone)]
pub struct Over {
    /// The host.
    pub host: String,
    /// Since when its program is another.
    pub before: TimeMs,
}

/// Whether it was at most so long ago.
fn within(ms: i64, time: TimeMs, now: TimeMs) -> bool {
    (-AHEAD_MS..ms).contains(&now.0.saturating_sub(time.0))
}

/// The newest session that seems to be at work on a source.
///
/// # Errors
/// None so far: a region that cannot be listed is marked as failed, a session that cannot be read is nobody's.
pub fn of(repo: &Repo, source: &str, now: TimeMs, over: Option<&Over>) -> Result<Option<Live>> {
    let ended: BTreeSet<SessionId> = listed(repo, Prefix::Snapshots).into_keys().collect();
    let mut open: Vec<(TimeMs, SessionId, RegionSet)> = listed(repo, Prefix::Sessions)
        .into_iter()
        .filter(|(sid, (since, _))| within(OLD_MS, *since, now) && !ended.contains(sid))
        .map(|(sid, (since, at))| (since, sid, RegionSet::of(at)))
        .collect();
    open.sort_by_key(|(since, ..)| std::cmp::Reverse(*since));
    for (since, sid, at) in open {
        let Some(session) = session(repo, at, sid).filter(|s| s.source == source) else { continue };
        let is_over = over.is_some_and(|over| over.host == session.host && since < over.before);
        if !is_over && (within(YOUNG_MS, since, now) || shows_life(repo, sid, now)) {
            return Ok(Some(Live { sid, host: session.host, since }));
        }
    }
    Ok(None)
}

fn session(repo: &Repo, at: RegionSet, sid: SessionId) -> Option<Session> {
    let opened = repo.read_object(at, &Key::Session(sid)).ok()?;
    opened.decode::<Session>("session").ok().filter(|s| s.sid == sid)
}

/// Sessions or outcomes: the first time that a store gives for each, and the regions that have it.
fn listed(repo: &Repo, prefix: Prefix) -> BTreeMap<SessionId, (TimeMs, Vec<usize>)> {
    let mut found: BTreeMap<SessionId, (TimeMs, Vec<usize>)> = BTreeMap::new();
    for ix in repo.usable().iter() {
        match repo.regions.list(ix, prefix) {
            Ok(lines) => {
                for line in lines {
                    if let Key::Session(sid) | Key::Snapshot(sid) = line.key {
                        let one = found.entry(sid).or_insert((TimeMs(line.modified), Vec::new()));
                        one.0 = one.0.min(TimeMs(line.modified));
                        one.1.push(ix);
                    }
                }
            }
            Err(e) => repo.regions.fail(ix, e),
        }
    }
    found
}

/// Whether it named packs a short while ago.
fn shows_life(repo: &Repo, sid: SessionId, now: TimeMs) -> bool {
    let mut looked_at: BTreeSet<SegmentName> = BTreeSet::new();
    repo.usable().iter().any(|ix| {
        let lines = repo.regions.list(ix, Prefix::Index).unwrap_or_default();
        lines.iter().filter(|line| within(SIGN_MS, TimeMs(line.modified), now)).any(|line| {
            let Key::Index(name) = line.key else { return false };
            let key = Key::Index(name);
            let read = |bytes: &[u8]| open_segment(repo, &key, bytes).map(|content| content.segment.sid);
            let at = RegionSet::of([ix]);
            looked_at.insert(name)
                && repo.regions.read(at, &key, SMALL_OBJECT_BYTES_MAX, read).is_ok_and(|writer| writer == sid)
        })
    })
}
