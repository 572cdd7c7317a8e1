//! Changing which regions a repository has: an epoch with empty lists, whose creation at home is the change.
//!
//! Order: `begin` at home (one wins), its copies in every region that answers, then sessions that decide in a region that is
//! no member any more are ended, then `end`. Whoever announces a session after that reads the new epoch; whoever did
//! before is found in the listing. What is cut off between begin and end is finished by the next change; meanwhile
//! everything else goes on.

use super::epochs::{Epochs, Lag, Unended};
use super::{Repo, SMALL_OBJECT_BYTES_MAX, changed};
use crate::base::{Digest, Epoch, PackName, RegionId, SessionId};
use crate::error::{Error, Kind, Result};
use crate::format::FormatError;
use crate::format::envelope::Kind as ObjectKind;
use crate::format::objects::{EpochBegin, EpochEnd, LIST_PACKS_MAX, Member, Root, Session, Tombstone};
use crate::format::signed::Fresh;
use crate::region::{self, RegionSet, SUFFIXES};
use crate::store::{Key, Prefix, Put};
use bytes::Bytes;
use minicbor::bytes::ByteVec;
use std::collections::{BTreeSet, HashSet};

/// Every so many epochs the end carries all packs that are dead.
const CARRIED_EVERY: u32 = 64;

/// Why a member is behind that the configuration does not name.
pub const UNNAMED: &str = "is a member of the repository, and this configuration does not name it";

/// Makes the first member that may decide the first of all.
///
/// # Errors
/// There is none.
pub fn home_first(members: &mut [Member]) -> Result<()> {
    match members.iter().position(|member| !member.is_weak()) {
        Some(at) => members[..=at].rotate_right(1),
        None => {
            return Err(Error::new(Kind::Refused, "every region would be weak, and none of them may decide")
                .advise("a repository needs one region whose store creates only if absent; a folder is one"));
        }
    }
    Ok(())
}

/// Which of the configured regions a member is, if it answers.
pub fn place_of(repo: &Repo, member: &Member) -> Option<usize> {
    repo.usable().iter().find(|ix| repo.regions.region(*ix).id == Some(member.id))
}

/// Members that the configuration cannot mean: no region of it shows their id, and none that does not answer can be one.
pub fn unnamed(repo: &Repo, epochs: &Epochs) -> Vec<Member> {
    let known = |id: RegionId| (0..repo.regions.len()).any(|ix| repo.regions.region(ix).id == Some(id));
    let mut silent: Vec<&str> = (0..repo.regions.len())
        .map(|ix| repo.regions.region(ix))
        .filter(|region| region.id.is_none())
        .map(|region| region.name.as_str())
        .collect();
    let unmatched = epochs.members().iter().filter(|member| !known(member.id));
    // By the name first; a region that was renamed in the configuration and does not answer may be any of the others.
    let left: Vec<&Member> = unmatched
        .filter(|member| match silent.iter().position(|name| *name == member.name) {
            Some(at) => {
                silent.remove(at);
                false
            }
            None => true,
        })
        .collect();
    if left.len() > silent.len() { left.into_iter().cloned().collect() } else { Vec::new() }
}

/// Creates the next epoch at home, with these members.
///
/// # Errors
/// Somebody else began an epoch just now, the one before is not decided, or the region failed.
pub fn begin(repo: &Repo, epochs: &Epochs, home: usize, members: Vec<Member>) -> Result<()> {
    if epochs.unended().is_some() {
        return Err(Error::new(Kind::Refused, "an epoch is not decided yet").advise("run again"));
    }
    let next = epochs.newest().0.checked_add(1).map(Epoch);
    let number = next.ok_or_else(|| Error::new(Kind::Refused, "no further epoch is possible"))?;
    let empty = Vec::new().into();
    let fresh = Fresh { epoch: epochs.newest(), ..repo.fresh() };
    let created = repo.env.now().0;
    let begin = EpochBegin { fresh, number, members, condemned: empty, roots: Vec::new(), created };
    let canonical = Key::EpochBegin(number, 0).canonical();
    let bytes = repo.seal(ObjectKind::EpochBegin, &canonical, &begin)?;
    let rival = |key: &Key, there: &[u8]| epochs.follows(repo.trust(), key, there);
    match put_first(repo, home, |suffix| Key::EpochBegin(number, suffix), &bytes, rival)? {
        First::Ours => Ok(()),
        First::Rival => Err(Error::new(Kind::Refused, "somebody else began an epoch just now").advise("run again")),
    }
}

/// Decides an epoch, dooming nothing.
///
/// # Errors
/// The region failed.
pub fn end(repo: &Repo, epochs: &Epochs, home: usize, unended: &Unended) -> Result<()> {
    decide(repo, epochs, home, unended, (&[], Vec::new())).map(drop)
}

/// Decides an epoch, with what it dooms and the roots that were seen. Another's end that was first stands.
///
/// # Errors
/// The region failed.
pub(super) fn decide(
    repo: &Repo,
    epochs: &Epochs,
    home: usize,
    unended: &Unended,
    (doomed, roots): (&[PackName], Vec<Root>),
) -> Result<First> {
    let number = unended.number;
    let end = EpochEnd {
        fresh: Fresh { epoch: number, ..repo.fresh() },
        number,
        begin: unended.begin,
        doomed: bytes_of(doomed),
        roots,
        created: repo.env.now().0,
        forgotten: Vec::new().into(),
        doomed_before: carried(number, doomed.len(), || epochs.doomed()),
    };
    let canonical = Key::EpochEnd(number, 0).canonical();
    let bytes = repo.seal(ObjectKind::EpochEnd, &canonical, &end)?;
    let rival = |key: &Key, there: &[u8]| super::epochs::ends(repo.trust(), key, there, number, &unended.begin);
    put_first(repo, home, |suffix| Key::EpochEnd(number, suffix), &bytes, rival)
}

/// All packs that are dead, for an end that carries them beside so many of its own: as long as both are no longer than one
/// list may be. With more of them the end would be no object, and its epoch could never be decided; nobody needs to have them here.
fn carried(number: Epoch, own: usize, before: impl FnOnce() -> HashSet<PackName>) -> Option<ByteVec> {
    if !number.0.is_multiple_of(CARRIED_EVERY) {
        return None;
    }
    let mut all: Vec<PackName> = before().into_iter().collect();
    all.sort_unstable();
    (all.len().saturating_add(own) <= LIST_PACKS_MAX).then(|| bytes_of(&all))
}

/// Packs as epochs list them.
pub(super) fn bytes_of(packs: &[PackName]) -> ByteVec {
    packs.iter().flat_map(|pack| *pack.bytes()).collect::<Vec<u8>>().into()
}

/// Who was first.
pub(super) enum First {
    Ours,
    Rival,
}

/// Creates an object of a numbered series where its creation decides: junk is passed over, a rival is not. What is whole and
/// does not verify is junk only while the keys by which it is judged are those of now.
pub(super) fn put_first(
    repo: &Repo,
    home: usize,
    key: impl Fn(u32) -> Key,
    bytes: &Bytes,
    rival: impl Fn(&Key, &[u8]) -> std::result::Result<bool, FormatError>,
) -> Result<First> {
    for key in (0..SUFFIXES).map(key) {
        if repo.regions.put(home, &key, bytes)? != Put::Other {
            return Ok(First::Ours);
        }
        let there = repo.regions.get(home, &key, SMALL_OBJECT_BYTES_MAX)?;
        match rival(&key, &there) {
            Ok(true) => return Ok(First::Rival),
            Ok(false) | Err(FormatError::Damaged(_)) => {}
            Err(_) => changed::keys_stand(repo)?,
        }
        repo.regions.record(home, &key.path(), "junk in the series of epochs; passed over");
    }
    Err(Error::new(Kind::Damage, "junk stands at every key of the next epoch"))
}

/// Brings `to` every epoch that it lacks, oldest first, however many; a region that fails is marked so.
pub fn copy_epochs(repo: &Repo, epochs: &Epochs, to: usize) {
    // Who must know what it lacks afterwards looks.
    drop(bring_epochs(repo, epochs, to));
}

/// The same, with the first thing that could not be brought.
///
/// # Errors
/// A region cannot show what it lists, `to` has no free key for it or failed. What can be brought is there all the same.
pub fn bring_epochs(repo: &Repo, epochs: &Epochs, to: usize) -> Result<()> {
    let mut brought: BTreeSet<Digest> = BTreeSet::new();
    let mut outcome = Ok(());
    for Lag { from, key, digest, .. } in epochs.lacking(to) {
        if brought.contains(&digest) {
            continue;
        }
        let in_region = |ix: usize, e: Error| e.at(key).at(format!("region {}", repo.regions.region(ix).name));
        let opened = |bytes: &Bytes| repo.open_object(&key, bytes).map_err(|e| in_region(from, region::lift(e)));
        let fetched = repo.regions.get(from, &key, SMALL_OBJECT_BYTES_MAX);
        let bytes = match fetched.and_then(|bytes| opened(&bytes).map(|_| bytes)) {
            Ok(bytes) => bytes,
            Err(e) => {
                outcome = outcome.and(Err(e));
                continue;
            }
        };
        match region::put_numbered(&repo.regions, to, key, &bytes) {
            Ok(Put::Created | Put::Same) => drop(brought.insert(digest)),
            Ok(Put::Other) => {
                let e = Error::new(Kind::Damage, "other objects stand at every key that this may have");
                outcome = outcome.and(Err(in_region(to, e)));
            }
            Err(e) => {
                repo.regions.fail(to, e.clone());
                return outcome.and(Err(e));
            }
        }
    }
    outcome
}

/// A session that not every region says has ended.
struct Open {
    sid: SessionId,
    /// Where it is listed.
    at: RegionSet,
    /// Where something stands at its outcome: what that is, only reading it tells.
    outcome: RegionSet,
}

/// Sessions whose outcome not every region lists.
///
/// # Errors
/// A region could not be listed: every snapshot that only it shows would pass for a session without an outcome.
fn open_sessions(repo: &Repo) -> Result<Vec<Open>> {
    let before = repo.usable();
    // Sessions first: an outcome that comes meanwhile is then seen.
    let sessions = repo.regions.listed(repo.usable(), Prefix::Sessions);
    let outcomes = repo.regions.listed(repo.usable(), Prefix::Snapshots);
    let open = |(key, at): (Key, RegionSet)| match key {
        Key::Session(sid) => {
            let outcome = outcomes.get(&Key::Snapshot(sid)).copied().unwrap_or(RegionSet::NONE);
            (!outcome.covers(before)).then_some(Open { sid, at, outcome })
        }
        _ => None,
    };
    if repo.usable() != before {
        return Err(Error::new(Kind::Retry, "a region failed while it was asked which sessions are over")
            .advise("run again once every member answers; nothing was ended"));
    }
    Ok(sessions.into_iter().filter_map(open).collect())
}

/// How a session ends that may still make a snapshot: by the tombstone that another region shows, or a new one. `None`
/// where a region shows what it made. Junk in one region, or a tombstone put there for that region's sake, keeps nobody
/// from creating the outcome in another.
fn ending(repo: &Repo, epochs: &Epochs, open: &Open, reason: &str) -> Result<Option<Bytes>> {
    let key = Key::Snapshot(open.sid);
    let mut ended = None;
    for ix in open.outcome.and(repo.usable()).iter() {
        let bytes = match repo.regions.get(ix, &key, SMALL_OBJECT_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(e) if matches!(e.kind(), Kind::NotFound | Kind::Damage) => continue,
            Err(e) => return Err(e),
        };
        if super::view::check_outcome(repo, &key, open.sid, &bytes).is_err() {
            continue;
        }
        match repo.open_object(&key, &bytes).map(|opened| opened.kind) {
            Ok(ObjectKind::Tombstone) => ended = Some(bytes),
            Ok(_) => return Ok(None),
            Err(_) => {}
        }
    }
    match ended {
        Some(bytes) => Ok(Some(bytes)),
        None => tombstone(repo, epochs, open.sid, reason).map(Some),
    }
}

/// The end of a session without a snapshot, by somebody else than its writer.
///
/// # Errors
/// No signing key, or no random bytes.
pub fn tombstone(repo: &Repo, epochs: &Epochs, sid: SessionId, reason: &str) -> Result<Bytes> {
    let fresh = Fresh { epoch: epochs.newest(), ..repo.fresh() };
    let object = Tombstone { fresh, sid, created: repo.env.now().0, reason: reason.to_owned() };
    repo.seal(ObjectKind::Tombstone, &Key::Snapshot(sid).canonical(), &object)
}

/// Creates the end of a session in some regions, where nothing stands yet.
fn put_tombstone(repo: &Repo, at: RegionSet, sid: SessionId, bytes: &Bytes) {
    for (ix, put) in repo.regions.put_each(at.and(repo.usable()), &Key::Snapshot(sid), bytes) {
        if let Err(e) = put {
            repo.regions.fail(ix, e);
        }
    }
}

/// Ends every session that may still make a snapshot and whose decision region is no member any more: in that region if it
/// answers, else in every member. A writer that is at work goes on under a new id, elsewhere. Returns how many there were.
///
/// # Errors
/// No signing key, no random bytes, or a region did not answer.
pub fn resolve(repo: &Repo, epochs: &Epochs) -> Result<u64> {
    let (mut ended, members) = (0, epochs.members());
    let at_members = RegionSet::of(members.iter().filter_map(|member| place_of(repo, member)));
    for open in open_sessions(repo)? {
        let key = Key::Session(open.sid);
        let session = repo.read_object(open.at, &key);
        let Ok(session) = session.and_then(|o| o.decode::<Session>("session").map_err(region::lift)) else { continue };
        if members.iter().any(|member| member.id == session.decision) {
            continue;
        }
        let decides = (0..repo.regions.len()).find(|ix| repo.regions.region(*ix).id == Some(session.decision));
        let to = decides.filter(|ix| repo.usable().has(*ix)).map_or(at_members, |ix| RegionSet::of([ix]));
        if open.outcome.covers(to) {
            continue;
        }
        if let Some(bytes) = ending(repo, epochs, &open, "its decision region is no member any more")? {
            put_tombstone(repo, to, open.sid, &bytes);
            ended += 1;
        }
    }
    Ok(ended)
}

/// Ends every session that may still make a snapshot and named a region that has lost something: what such a session has
/// re-used or stored there may be gone. It ends where it decides, so that it has either made its snapshot, which is then
/// brought like any other, or never will; else in that region. A writer that is at work goes on under a new id.
///
/// # Errors
/// No signing key, no random bytes, or a region did not answer.
pub fn close_sessions(repo: &Repo, epochs: &Epochs, (ix, lost): (usize, Option<RegionId>)) -> Result<()> {
    for open in open_sessions(repo)?.iter().filter(|open| !open.outcome.has(ix)) {
        let read = repo.read_object(open.at, &Key::Session(open.sid));
        let session = match read.and_then(|opened| opened.decode::<Session>("session").map_err(region::lift)) {
            Err(e) if e.kind() == Kind::Retry => return Err(e),
            read => read.ok(),
        };
        if session.as_ref().is_some_and(|session| !session.regions.iter().any(|id| Some(*id) == lost)) {
            continue;
        }
        let decides = |at: &usize| session.as_ref().map(|s| s.decision) == repo.regions.region(*at).id;
        let to = repo.usable().iter().filter(|at| *at != ix).find(decides).unwrap_or(ix);
        if open.outcome.has(to) {
            continue;
        }
        if let Some(bytes) = ending(repo, epochs, open, "a region that it may have used was brought forward")? {
            put_tombstone(repo, RegionSet::of([to]), open.sid, &bytes);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{ConfigNo, Digest};
    use crate::format::cbor;
    use crate::format::envelope::BODY_BYTES_MAX;

    /// What was ever removed grows without end; the end of an epoch stays an object.
    #[test]
    fn an_end_fits_however_much_is_dead() {
        let packs = |count: u32| {
            let name = |n: u32| {
                let mut name = [0; PackName::LEN];
                name[..4].copy_from_slice(&n.to_le_bytes());
                PackName(name)
            };
            (0..count).map(name).collect::<Vec<PackName>>()
        };
        let most = LIST_PACKS_MAX as u32;
        let cases =
            [(0, 1_600_000, false), (most, most, false), (0, most, true), (most / 2, most / 2, true), (most, 0, true)];
        for (own, before, carries) in cases {
            let doomed_before = carried(Epoch(64), own as usize, || packs(before).into_iter().collect());
            assert_eq!(
                doomed_before.as_ref().map(|list| list.len()),
                carries.then_some(before as usize * PackName::LEN)
            );
            let end = EpochEnd {
                fresh: Fresh { config: ConfigNo(1), digest: Digest::ZERO, epoch: Epoch(64) },
                number: Epoch(64),
                begin: Digest::ZERO,
                doomed: bytes_of(&packs(own)),
                roots: Vec::new(),
                created: 0,
                forgotten: Vec::new().into(),
                doomed_before,
            };
            assert!(cbor::encode(&end).len() <= BODY_BYTES_MAX, "{own} and {before}");
        }
        assert!(carried(Epoch(63), 0, || packs(1).into_iter().collect()).is_none());
    }
}
