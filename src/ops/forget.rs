//! Forgetting: a permanent signed marker in every region. Nothing is deleted.

use crate::base::SessionId;
use crate::error::{Error, Kind, Result};
use crate::format::envelope::Kind as ObjectKind;
use crate::format::objects::Forgotten;
use crate::repo::Repo;
use crate::repo::view::{Snapshot, View};
use crate::store::{Key, Prefix};

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
    for ix in repo.usable().iter() {
        // Holds are looked for before the marker is written; a released one is two objects.
        let listed = repo.regions.list(ix, Prefix::Holds)?;
        let released = |id| listed.iter().any(|l| l.key == Key::HoldRelease(id));
        for line in &listed {
            if let Key::Hold(id) = line.key
                && !released(id)
                && let Ok(opened) = repo.read_object(repo.usable(), &line.key)
                && let Ok(hold) = opened.decode::<crate::format::objects::Hold>("hold")
                && goes(&hold.sid)
            {
                let what = format!("{} is held: {}", hold.sid.short(), hold.reason);
                return Err(Error::new(Kind::Refused, what).advise("release the hold first"));
            }
        }
    }
    Ok(())
}

/// Writes the markers.
///
/// # Errors
/// A rule forbids it, or no region took a marker.
pub fn run(repo: &Repo, chosen: &[Snapshot], last: bool, reason: &str) -> Result<ForgetReport> {
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
            // A marker that is there already says the same in other bytes.
            match repo.regions.put(ix, &key, &bytes) {
                Ok(_) => stored = true,
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
