//! Outcomes as a prune needs them: whatever may be a snapshot counts as one, and what cannot be told stops it.

use super::recall::Recall;
use super::{Outcome, Places, Snapshot, open_outcome, places};
use crate::base::SessionId;
use crate::error::{Error, Kind, Result};
use crate::format::FormatError;
use crate::format::signed::check_sum;
use crate::region::{Ahead, RegionSet, lift};
use crate::repo::{Repo, SMALL_OBJECT_BYTES_MAX, changed};
use crate::store::{Key, Prefix};
use std::collections::BTreeMap;

/// What stands at the outcomes' keys.
#[derive(Debug, Default)]
pub struct Outcomes {
    /// Every manifest of any region, forgotten or not; its regions are those that list something at its key.
    pub snapshots: BTreeMap<SessionId, Snapshot>,
    /// Sessions that ended without one, or that junk fenced, and the regions that list it.
    pub ended: BTreeMap<SessionId, RegionSet>,
    /// What cannot be read and may be a snapshot, why, and the regions that list it.
    pub unsure: BTreeMap<SessionId, (Error, RegionSet)>,
}

/// What one region shows.
enum Shown {
    Is(Outcome),
    /// Whole, and not ours by the keys that are known here.
    Junk(FormatError),
    Gone,
    Unsure(Error),
}

impl Outcomes {
    /// Reads what these regions show. What this machine has read before and the regions list unchanged is not read again.
    ///
    /// # Errors
    /// A region does not answer, or the keys were changed.
    pub fn load(repo: &Repo, among: RegionSet) -> Result<Outcomes> {
        let mut recall = Recall::read(repo);
        let listed = places(repo, &repo.regions.list_all(repo.usable(), Prefix::Snapshots));
        if let Some(ix) = among.iter().find(|ix| !repo.usable().has(*ix)) {
            let why = repo.regions.failure(ix);
            return Err(why.unwrap_or_else(|| Error::new(Kind::Retry, "a region cannot be listed")));
        }
        let mut outcomes = Outcomes::default();
        let new = listed.iter().filter(|(sid, places)| !recall.knows_snapshot(**sid, places));
        let wanted = new.map(|(sid, places)| (Key::Snapshot(*sid), places.at.and(among), places.size()));
        let mut ahead = Ahead::of(&repo.regions, wanted.filter(|(_, at, _)| !at.is_empty()).collect::<Vec<_>>());
        let mut strange = false;
        for (sid, places) in listed {
            let at = places.at.and(among);
            if !at.is_empty() {
                strange |= outcomes.add(repo, (&mut recall, &mut ahead), sid, &places, at)?;
            }
        }
        // Junk is what nobody made who is known here: by keys that are newer it may be a snapshot.
        if strange {
            changed::keys_stand(repo)?;
        }
        recall.write(repo, |_| false);
        Ok(outcomes)
    }

    /// Whether something was taken for junk.
    fn add(
        &mut self,
        repo: &Repo,
        (recall, ahead): (&mut Recall, &mut Ahead),
        sid: SessionId,
        places: &Places,
        at: RegionSet,
    ) -> Result<bool> {
        let mut strange = false;
        let found = match recall.snapshot(sid, places) {
            Some(known) => Some(known),
            None => {
                let before = repo.regions.found_times();
                let key = Key::Snapshot(sid);
                let found = match ahead.open(&repo.regions, &key, |bytes| open_outcome(repo, &key, sid, bytes)) {
                    Some(snapshot @ Outcome::Snapshot(_)) => Some(snapshot),
                    // An end in one region, and perhaps a snapshot in another.
                    _ => match look(repo, sid, at, &mut strange)? {
                        Ok(found) => found,
                        Err(why) => {
                            self.unsure.insert(sid, (why, at));
                            None
                        }
                    },
                };
                if let Some(snapshot @ Outcome::Snapshot(_)) = &found
                    && repo.regions.found_times() == before
                {
                    recall.keep_outcome(sid, places, snapshot);
                }
                found
            }
        };
        match found {
            Some(Outcome::Snapshot(snapshot)) => {
                let snapshot = Snapshot { regions: at, stored: places.earliest, ..*snapshot };
                self.snapshots.insert(sid, snapshot);
            }
            Some(Outcome::End) => _ = self.ended.insert(sid, at),
            None => {}
        }
        Ok(strange)
    }
}

/// A manifest, if any of these regions shows one; else an end, or junk, which is as good as one. `None`: all gone
/// meanwhile; the inner error: what is there may be a manifest.
fn look(
    repo: &Repo,
    sid: SessionId,
    at: RegionSet,
    strange: &mut bool,
) -> Result<std::result::Result<Option<Outcome>, Error>> {
    let (mut unsure, mut end) = (None, None);
    for ix in at.iter() {
        match shown(repo, sid, ix)? {
            Shown::Is(Outcome::Snapshot(snapshot)) => return Ok(Ok(Some(Outcome::Snapshot(snapshot)))),
            Shown::Is(Outcome::End) => end = Some(Outcome::End),
            Shown::Junk(_) => (end, *strange) = (Some(Outcome::End), true),
            Shown::Gone => {}
            Shown::Unsure(e) => unsure = Some(e),
        }
    }
    Ok(unsure.map_or(Ok(end), Err))
}

/// What a region shows of what a session may have made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Made {
    /// A manifest that verifies.
    Snapshot,
    /// What cannot be read, and may be a manifest.
    Perhaps,
    /// Nothing, or an end.
    Nothing,
    /// What is whole and not ours, by the keys that are known here.
    Strange,
}

/// What this region shows of what a session may have made.
///
/// # Errors
/// It does not answer.
pub fn made(repo: &Repo, sid: SessionId, ix: usize) -> Result<Made> {
    Ok(match shown(repo, sid, ix)? {
        Shown::Is(Outcome::Snapshot(_)) => Made::Snapshot,
        Shown::Unsure(_) => Made::Perhaps,
        Shown::Is(Outcome::End) | Shown::Gone => Made::Nothing,
        Shown::Junk(_) => Made::Strange,
    })
}

/// Whether this region may show a manifest: what is not known for certain to be something else counts.
///
/// # Errors
/// It does not answer.
pub fn shows_manifest(repo: &Repo, sid: SessionId, ix: usize) -> Result<bool> {
    let may_be = |shown: &Shown| match shown {
        Shown::Is(Outcome::Snapshot(_)) | Shown::Unsure(_) | Shown::Junk(FormatError::WrongKey) => true,
        Shown::Is(Outcome::End) | Shown::Junk(_) | Shown::Gone => false,
    };
    Ok(may_be(&shown(repo, sid, ix)?))
}

fn shown(repo: &Repo, sid: SessionId, ix: usize) -> Result<Shown> {
    let key = Key::Snapshot(sid);
    let place = || format!("region {}", repo.regions.region(ix).name);
    let bytes = match repo.regions.get(ix, &key, SMALL_OBJECT_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == Kind::NotFound => return Ok(Shown::Gone),
        Err(e) if e.kind() == Kind::Damage => {
            repo.regions.record(ix, &key.path(), &e);
            return Ok(Shown::Unsure(e));
        }
        Err(e) => return Err(e),
    };
    let why = match open_outcome(repo, &key, sid, &bytes) {
        Ok(outcome) => return Ok(Shown::Is(outcome)),
        Err(why) => why,
    };
    repo.regions.record(ix, &key.path(), &why);
    // Whole, and not ours: nobody's snapshot, by the keys that are known. Written by a program that is newer: perhaps.
    if !matches!(why, FormatError::Newer(_)) && check_sum(&bytes).is_ok() {
        return Ok(Shown::Junk(why));
    }
    Ok(Shown::Unsure(lift(why).with_kind(Kind::Damage).at(key).at(place())))
}
