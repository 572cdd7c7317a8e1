//! Forgetting: a permanent signed marker in every region. Nothing is deleted.

use crate::base::{HoldId, SessionId};
use crate::error::{Error, Kind, Result};
use crate::format::FormatError;
use crate::format::envelope::Kind as ObjectKind;
use crate::format::objects::{Forgotten, Hold, HoldRelease};
use crate::region::RegionSet;
use crate::repo::view::{Snapshot, View, open_marker};
use crate::repo::{Repo, SMALL_OBJECT_BYTES_MAX};
use crate::store::{Key, Prefix, Put};
use std::collections::BTreeMap;

/// What was done.
#[derive(Debug)]
pub struct ForgetReport {
    /// Snapshots now forgotten, with their sources.
    pub forgotten: Vec<(SessionId, String)>,
    /// Regions that have no marker yet, and why.
    pub behind: Vec<(String, String)>,
}

/// Refuses what a rule forbids: the last snapshot of a source (without `last`), and held ones.
///
/// # Errors
/// [`Kind::Refused`], naming the snapshot.
pub fn check(repo: &Repo, view: &View, chosen: &[Snapshot], last: bool) -> Result<()> {
    let goes = |sid: &SessionId| chosen.iter().any(|s| s.manifest.sid == *sid);
    for snapshot in chosen {
        let source = &snapshot.manifest.source.name;
        let stays = view.snapshots.values().any(|s| s.manifest.source.name == *source && !goes(&s.manifest.sid));
        if !stays && !last {
            let what = format!("{} is the last snapshot of {source}", snapshot.manifest.sid.short());
            return Err(Error::new(Kind::Refused, what).advise("use --last if it may go"));
        }
    }
    for (hold, reason) in holds(repo)? {
        if goes(&hold) {
            return Err(Error::new(Kind::Refused, format!("{} is held: {reason}", hold.short()))
                .advise("release the hold first"));
        }
    }
    Ok(())
}

/// What is held, and why: holds of any region without a release in any. What does not verify says nothing;
/// reading it records it.
fn holds(repo: &Repo) -> Result<Vec<(SessionId, String)>> {
    let mut listed: BTreeMap<Key, Vec<usize>> = BTreeMap::new();
    for ix in repo.usable().iter() {
        for line in repo.regions.list(ix, Prefix::Holds)? {
            listed.entry(line.key).or_default().push(ix);
        }
    }
    let mut held = Vec::new();
    for (key, at) in &listed {
        let Key::Hold(id) = *key else { continue };
        let at = RegionSet::of(at.iter().copied());
        // Torn or rotten: what a hold holds cannot be told any more. Somebody else's object holds nothing.
        let mut torn = false;
        let hold = repo.regions.read(at, key, SMALL_OBJECT_BYTES_MAX, |bytes| {
            open_hold(repo, key, id, bytes).inspect_err(|why| torn |= matches!(why, FormatError::Damaged(_)))
        });
        let release = Key::HoldRelease(id);
        let released = listed.get(&release).is_some_and(|at| {
            let at = RegionSet::of(at.iter().copied());
            let check = |bytes: &[u8]| open_release(repo, &release, id, bytes);
            repo.regions.read(at, &release, SMALL_OBJECT_BYTES_MAX, check).is_ok()
        });
        match hold {
            _ if released => {}
            Ok(hold) => held.push((hold.sid, hold.reason)),
            Err(e) if torn || matches!(e.kind(), Kind::Retry | Kind::Denied | Kind::Newer) => {
                return Err(e.with_kind(Kind::Refused).advise("it may hold any snapshot: put a good copy back first"));
            }
            Err(_) => {}
        }
    }
    Ok(held)
}

fn open_hold(repo: &Repo, key: &Key, id: HoldId, bytes: &[u8]) -> std::result::Result<Hold, FormatError> {
    let opened = repo.open_object(key, bytes)?;
    let hold: Hold = opened.decode("hold")?;
    let fits = opened.kind == ObjectKind::Hold && hold.hold == id;
    if fits { Ok(hold) } else { Err(FormatError::Unsigned("not this hold")) }
}

fn open_release(repo: &Repo, key: &Key, id: HoldId, bytes: &[u8]) -> std::result::Result<(), FormatError> {
    let opened = repo.open_object(key, bytes)?;
    let fits = opened.kind == ObjectKind::HoldRelease && opened.decode::<HoldRelease>("hold release")?.hold == id;
    if fits { Ok(()) } else { Err(FormatError::Unsigned("not the release of this hold")) }
}

/// Writes the markers.
///
/// # Errors
/// A rule forbids it, or no region took a marker.
pub fn run(repo: &Repo, chosen: &[Snapshot], last: bool, reason: &str) -> Result<ForgetReport> {
    repo.may_write()?;
    let view = View::load(repo)?;
    check(repo, &view, chosen, last)?;
    let mut forgotten = Vec::new();
    for snapshot in chosen {
        let sid = snapshot.manifest.sid;
        let key = Key::Forgotten(sid);
        let marker = Forgotten {
            fresh: repo.fresh(),
            sid,
            manifest: snapshot.digest,
            created: repo.env.now().0,
            reason: reason.to_owned(),
        };
        let bytes = repo.seal(ObjectKind::Forgotten, &key.canonical(), &marker)?;
        let mut stored = false;
        for ix in repo.writable().iter() {
            match repo.regions.put(ix, &key, &bytes) {
                Ok(Put::Created | Put::Same) => stored = true,
                // A marker that is there already says the same in other bytes; junk says nothing.
                Ok(Put::Other) => {
                    let read = |bytes: &[u8]| open_marker(repo, &key, sid, bytes);
                    match repo.regions.read(RegionSet::of([ix]), &key, SMALL_OBJECT_BYTES_MAX, read) {
                        Ok(()) => stored = true,
                        Err(e) => repo.regions.fail(ix, e),
                    }
                }
                Err(e) => repo.regions.fail(ix, e),
            }
        }
        if !stored {
            let why = repo.regions.failures().pop().map(|(_, e)| e);
            return Err(why.unwrap_or_else(|| Error::new(Kind::Retry, "no region took the marker")));
        }
        forgotten.push((sid, snapshot.manifest.source.name.clone()));
    }
    let behind = repo.regions.failures().into_iter().map(|(name, e)| (name, e.to_string())).collect();
    Ok(ForgetReport { forgotten, behind })
}
