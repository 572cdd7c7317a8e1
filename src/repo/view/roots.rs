//! Outcomes as a prune needs them: whatever may be a snapshot counts as one, and what cannot be told stops it.

use super::recall::Recall;
use super::{Outcome, Places, Snapshot, open_outcome, places};
use crate::base::SessionId;
use crate::error::{Error, Kind, Result};
use crate::format::FormatError;
use crate::format::signed::check_sum;
use crate::region::{Ahead, RegionSet, lift};
use crate::repo::{Repo, SMALL_OBJECT_BYTES_MAX};
use crate::store::{Key, Prefix};
use std::collections::BTreeMap;

/// What stands at the outcomes' keys.
#[derive(Debug, Default)]
pub struct Outcomes {
    /// Every manifest of any region, forgotten or not; its regions are those that list something at its key.
    pub snapshots: BTreeMap<SessionId, Snapshot>,
    /// Sessions that ended without one, or that junk fenced, and the regions that list it.
    pub ended: BTreeMap<SessionId, RegionSet>,
}

/// What one region shows.
enum Shown {
    Is(Outcome),
    Junk,
    Gone,
    Unsure(Error),
}

impl Outcomes {
    /// Reads what these regions show. What this machine has read before and the regions list unchanged is not read again.
    ///
    /// # Errors
    /// A region does not answer, or something cannot be read that may be a snapshot.
    pub fn load(repo: &Repo, among: RegionSet) -> Result<Outcomes> {
        let mut recall = Recall::read(repo);
        let listed = places(repo, &repo.regions.list_all(repo.usable(), Prefix::Snapshots));
        if let Some(ix) = among.iter().find(|ix| !repo.usable().has(*ix)) {
            let why = repo.regions.failure(ix);
            return Err(why.unwrap_or_else(|| Error::new(Kind::Retry, "a region cannot be listed")));
        }
        let mut outcomes = Outcomes::default();
        let new = listed.iter().filter(|(sid, places)| !recall.knows(**sid, places));
        let wanted = new.map(|(sid, places)| (Key::Snapshot(*sid), places.at.and(among), places.size()));
        let mut ahead = Ahead::of(&repo.regions, wanted.filter(|(_, at, _)| !at.is_empty()).collect::<Vec<_>>());
        for (sid, places) in listed {
            let at = places.at.and(among);
            if !at.is_empty() {
                outcomes.add(repo, (&mut recall, &mut ahead), sid, &places, at)?;
            }
        }
        recall.write(repo, |_| false);
        Ok(outcomes)
    }

    fn add(
        &mut self,
        repo: &Repo,
        (recall, ahead): (&mut Recall, &mut Ahead),
        sid: SessionId,
        places: &Places,
        at: RegionSet,
    ) -> Result<()> {
        let found = match recall.outcome(sid, places) {
            Some(known) => Some(known),
            None => {
                let before = repo.regions.found_times();
                let key = Key::Snapshot(sid);
                let found = match ahead.open(&repo.regions, &key, |bytes| open_outcome(repo, &key, sid, bytes)) {
                    Some(snapshot @ Outcome::Snapshot(_)) => Some(snapshot),
                    // An end in one region, and perhaps a snapshot in another.
                    _ => look(repo, sid, at)?,
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
        Ok(())
    }
}

/// A manifest, if any of these regions shows one; else an end, or junk, which is as good as one. `None`: all gone
/// meanwhile.
fn look(repo: &Repo, sid: SessionId, at: RegionSet) -> Result<Option<Outcome>> {
    let (mut unsure, mut end) = (None, None);
    for ix in at.iter() {
        match shown(repo, sid, ix)? {
            Shown::Is(Outcome::Snapshot(snapshot)) => return Ok(Some(Outcome::Snapshot(snapshot))),
            Shown::Is(Outcome::End) | Shown::Junk => end = Some(Outcome::End),
            Shown::Gone => {}
            Shown::Unsure(e) => unsure = Some(e),
        }
    }
    match unsure {
        Some(e) => Err(e.advise("it may be a snapshot: mend it first, with `holdfast verify --repair`")),
        None => Ok(end),
    }
}

/// Whether this region shows a manifest.
///
/// # Errors
/// It does not answer.
pub fn shows_manifest(repo: &Repo, sid: SessionId, ix: usize) -> Result<bool> {
    Ok(matches!(shown(repo, sid, ix)?, Shown::Is(Outcome::Snapshot(_)) | Shown::Unsure(_)))
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
    // Whole, and not ours: nobody's snapshot. Sealed with a key or written by a program that is newer: perhaps.
    let newer = matches!(why, FormatError::WrongKey | FormatError::Newer(_));
    if !newer && check_sum(&bytes).is_ok() {
        return Ok(Shown::Junk);
    }
    Ok(Shown::Unsure(lift(why).with_kind(Kind::Damage).at(key).at(place())))
}
