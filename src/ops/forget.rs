//! Forgetting: a permanent signed marker in every region. Nothing is deleted.

use crate::base::{Cancel, Digest, SessionId};
use crate::error::{Error, Exit, Kind, Result};
use crate::format::envelope::Kind as ObjectKind;
use crate::format::objects::Forgotten;
use crate::region::RegionSet;
use crate::repo::holds::Holds;
use crate::repo::view::{Snapshot, View, open_marker};
use crate::repo::{Repo, SMALL_OBJECT_BYTES_MAX};
use crate::store::{Key, Prefix, Put};
use std::collections::BTreeSet;

/// A snapshot to be forgotten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Snapshot.
    pub sid: SessionId,
    /// Digest of its manifest.
    pub digest: Digest,
    /// Name of its source.
    pub source: String,
}

impl Target {
    /// This snapshot.
    pub fn of(snapshot: &Snapshot) -> Target {
        let source = snapshot.manifest.source.name.clone();
        Target { sid: snapshot.manifest.sid, digest: snapshot.digest, source }
    }
}

/// What was done.
#[derive(Debug, Default)]
pub struct ForgetReport {
    /// Snapshots now forgotten.
    pub forgotten: Vec<Target>,
    /// Regions that have no marker yet, and why.
    pub behind: Vec<(String, String)>,
    /// What somebody else did meanwhile, that a person should know.
    pub warnings: Vec<String>,
}

impl ForgetReport {
    /// The exit code.
    pub fn exit(&self) -> Exit {
        if self.behind.is_empty() { Exit::Done } else { Exit::Behind }
    }
}

/// Refuses what a rule forbids: the last snapshot of a source (without `last`), and held ones.
///
/// # Errors
/// [`Kind::Refused`], naming the snapshot.
pub fn check(repo: &Repo, view: &View, chosen: &[Target], last: bool) -> Result<()> {
    let going: BTreeSet<SessionId> = chosen.iter().map(|t| t.sid).collect();
    let staying = staying(view, &going);
    if let Some(target) = chosen.iter().find(|t| !last && !staying.contains(t.source.as_str())) {
        let what = format!("{} is the last snapshot of {}", target.sid.short(), target.source);
        return Err(Error::new(Kind::Refused, what).advise("use --last if it may go"));
    }
    let holds = Holds::certain(repo)?;
    let held = |target: &Target| holds.of(target.sid).next();
    match chosen.iter().find_map(held) {
        None => Ok(()),
        Some(held) => {
            let what = format!("{} is held: {}", held.hold.sid.short(), held.hold.reason);
            let advice = format!("release the hold first: holdfast hold remove {}", held.hold.hold.short());
            Err(Error::new(Kind::Refused, what).advise(advice))
        }
    }
}

/// Sources with a snapshot that is not among those that go.
fn staying<'v>(view: &'v View, going: &BTreeSet<SessionId>) -> BTreeSet<&'v str> {
    let stays = view.snapshots.values().filter(|s| !going.contains(&s.manifest.sid));
    stays.map(|s| s.manifest.source.name.as_str()).collect()
}

/// Writes the markers of snapshots of `view`, and looks again afterwards: two that forget at once may each find the
/// other's snapshot left, and a hold may have been made meanwhile.
///
/// # Errors
/// A rule forbids it, no region took a marker, or interrupted.
pub fn run(
    repo: &Repo,
    view: &View,
    chosen: &[Target],
    last: bool,
    reason: &str,
    cancel: &Cancel,
) -> Result<ForgetReport> {
    repo.may_write()?;
    check(repo, view, chosen, last)?;
    for target in chosen {
        cancel.check()?;
        mark(repo, target, last, reason)?;
    }
    let warnings = look_again(repo, view, chosen, last);
    let behind = repo.regions.failures().into_iter().map(|(name, e)| (name, e.to_string())).collect();
    Ok(ForgetReport { forgotten: chosen.to_vec(), behind, warnings })
}

fn mark(repo: &Repo, target: &Target, last: bool, reason: &str) -> Result<()> {
    let sid = target.sid;
    let key = Key::Forgotten(sid);
    let (fresh, created) = (repo.fresh(), repo.env.now().0);
    let (manifest, reason, last) = (target.digest, reason.to_owned(), last.then_some(true));
    let marker = Forgotten { fresh, sid, manifest, created, reason, last };
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
    if stored {
        return Ok(());
    }
    let why = repo.regions.failures().pop().map(|(_, e)| e);
    Err(why.unwrap_or_else(|| Error::new(Kind::Retry, "no region took the marker")))
}

/// Sources that have lost their last snapshot to several that forgot at once, and holds that came too late.
fn look_again(repo: &Repo, view: &View, chosen: &[Target], last: bool) -> Vec<String> {
    let mut warnings = Vec::new();
    let sources: BTreeSet<&str> = chosen.iter().map(|t| t.source.as_str()).collect();
    if !last && !sources.is_empty() {
        let gone = marked(repo, view);
        let staying = staying(view, &gone);
        for source in sources.difference(&staying) {
            warnings.push(format!(
                "{source} has no snapshot left: another run forgot the others meanwhile; \
                 their newest one's bytes are kept until `holdfast prune --last SOURCE` says that they may go"
            ));
        }
    }
    let held = Holds::load(repo).held();
    for target in chosen.iter().filter(|t| held.contains(&t.sid)) {
        warnings.push(format!("{} was held meanwhile: it is hidden, but its bytes are kept", target.sid.short()));
    }
    warnings
}

/// Snapshots of the view with a marker now. Only new markers of what the view shows are read.
fn marked(repo: &Repo, view: &View) -> BTreeSet<SessionId> {
    let shown = |key: &Key| match key {
        Key::Forgotten(sid) if view.snapshots.contains_key(sid) => Some(*sid),
        _ => None,
    };
    let listed = repo.regions.listed(repo.usable(), Prefix::Forgotten);
    let verified = |(key, at): (Key, RegionSet)| {
        let sid = shown(&key)?;
        let read = |bytes: &[u8]| open_marker(repo, &key, sid, bytes);
        repo.regions.read(at, &key, SMALL_OBJECT_BYTES_MAX, read).ok().map(|()| sid)
    };
    listed.into_iter().filter_map(verified).collect()
}
