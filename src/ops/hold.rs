//! Making and ending holds.

use crate::base::{HoldId, TimeMs};
use crate::error::{Error, Kind, Result};
use crate::format::envelope::Kind as ObjectKind;
use crate::format::objects::{Hold, HoldRelease};
use crate::region::RegionSet;
use crate::repo::view::{Snapshot, open_marker};
use crate::repo::{Repo, SMALL_OBJECT_BYTES_MAX};
use crate::store::Key;

/// Holds a snapshot: the hold is created first, then the marker is looked for in every region. Whoever forgets
/// looks for holds before it writes the marker, so one of the two sees the other. Returns the regions that have it.
///
/// # Errors
/// The snapshot was forgotten meanwhile (the hold is released again), or no region took the hold.
pub fn add(repo: &Repo, snapshot: &Snapshot, reason: &str, until: Option<TimeMs>) -> Result<(Hold, RegionSet)> {
    repo.may_write()?;
    let (id, sid) = (HoldId(repo.env.random()?), snapshot.manifest.sid);
    let (fresh, created, until) = (repo.fresh(), repo.env.now().0, until.map(|end| end.0));
    let hold = Hold { fresh, hold: id, sid, created, reason: reason.to_owned(), until };
    let key = Key::Hold(id);
    let bytes = repo.seal(ObjectKind::Hold, &key.canonical(), &hold)?;
    let stored = repo.regions.put_all(repo.writable(), &key, &bytes);
    if stored.is_empty() {
        return Err(nowhere(repo));
    }
    let marker = Key::Forgotten(sid);
    let forgotten = |ix: usize| match repo.regions.get(ix, &marker, SMALL_OBJECT_BYTES_MAX) {
        Ok(bytes) => open_marker(repo, &marker, sid, &bytes).is_ok(),
        Err(e) if e.kind() == Kind::NotFound => false,
        Err(e) => {
            repo.regions.fail(ix, e);
            false
        }
    };
    if repo.usable().iter().any(forgotten) {
        release(repo, id)?;
        let what = format!("snapshot {} was forgotten meanwhile", sid.short());
        return Err(Error::new(Kind::NotFound, what).advise("nothing is held"));
    }
    Ok((hold, stored))
}

/// Ends a hold in every region. Returns those that know it.
///
/// # Errors
/// No region took the release.
pub fn release(repo: &Repo, id: HoldId) -> Result<RegionSet> {
    repo.may_write()?;
    let key = Key::HoldRelease(id);
    let release = HoldRelease { fresh: repo.fresh(), hold: id, created: repo.env.now().0 };
    let bytes = repo.seal(ObjectKind::HoldRelease, &key.canonical(), &release)?;
    let stored = repo.regions.put_all(repo.writable(), &key, &bytes);
    if stored.is_empty() { Err(nowhere(repo)) } else { Ok(stored) }
}

fn nowhere(repo: &Repo) -> Error {
    let why = repo.regions.failures().pop().map(|(_, e)| e);
    why.unwrap_or_else(|| Error::new(Kind::Retry, "no region can be written"))
}
