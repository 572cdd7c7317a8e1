//! A writer's session by the retention protocol: announce in every region used, read the epoch again,
//! commit by creating the outcome, in the decision region first.
//!
//! A session that was fenced (its outcome is a tombstone, or junk stands there) or that lost its decision
//! region goes on under a new id, if everything that it re-used or stored is still good by what the
//! regions say then. If not, its caller runs again; what was stored is found through the index.

use super::epochs::Epochs;
use super::{Repo, changed};
use crate::base::{Digest, Generation, PackName, RegionId, SessionId};
use crate::error::{Error, Kind, Result};
use crate::format::FormatError;
use crate::format::envelope::Kind as ObjectKind;
use crate::format::objects::{Session as SessionObject, Tombstone};
use crate::format::region::RegionMark;
use crate::format::signed::{self, Fresh};
use crate::format::snapshot::Manifest;
use crate::region::{self, RegionSet};
use crate::store::{Key, Put};
use bytes::Bytes;
use std::collections::HashSet;

/// How often a session is announced or refreshed before giving up.
const ATTEMPTS_MAX: usize = 5;

/// Who writes what: the same for all sessions of a run.
#[derive(Debug, Clone)]
pub struct Errand {
    /// Host.
    pub host: String,
    /// Name of the source.
    pub source: String,
    /// Generation that is written.
    pub generation: Generation,
}

/// A session that was announced.
#[derive(Debug, Clone)]
pub struct Session {
    /// Its id.
    pub sid: SessionId,
    /// Regions that it uses.
    pub regions: RegionSet,
    /// The region whose first creation decides.
    pub decision: usize,
    /// What it writes.
    pub errand: Errand,
    /// Epochs as they were when it was announced.
    pub epochs: Epochs,
}

/// What a commit rests on.
#[derive(Debug)]
pub struct Work {
    /// Regions that have everything.
    pub complete: RegionSet,
    /// Packs that were re-used or stored.
    pub packs: HashSet<PackName>,
    /// The parent, if files of it were taken over without looking their chunks up.
    pub parent: Option<SessionId>,
    /// Whether it stored anything itself: then its regions may have lost what no other snapshot needs.
    pub stored: bool,
}

/// How a commit ended.
#[derive(Debug, Clone)]
pub enum Ended {
    /// The snapshot is there.
    Committed(Box<Committed>),
    /// Something that it rests on has gone or may go: run again, naming this session.
    Fenced(SessionId),
}

/// A snapshot that was made.
#[derive(Debug, Clone)]
pub struct Committed {
    /// The snapshot.
    pub sid: SessionId,
    /// The manifest as stored.
    pub manifest: Manifest,
    /// Its digest.
    pub digest: Digest,
    /// Size of the object, in bytes.
    pub size: u64,
    /// Regions in which it is visible.
    pub regions: RegionSet,
}

/// What stands at a manifest's key after trying to create it.
enum Stands {
    Ours,
    Another,
}

impl Session {
    /// Announces a session in all regions that may be written and reads the epochs again in each.
    ///
    /// # Errors
    /// No region can be used, or epochs begin faster than a session can be announced.
    pub fn announce(repo: &Repo, errand: Errand, refreshes: Option<SessionId>) -> Result<Session> {
        let seen = repo.epochs_seen();
        // A first session goes by the epochs as they were seen last, and does not list them once more: what the protocol
        // rests on is that nothing changed between some look before the announcement and the one after it, which is
        // always taken. One that takes over from another is likely to do so because an epoch began.
        let epochs = if refreshes.is_some() { repo.epochs_since(&seen) } else { Epochs::clone(&seen) };
        Self::announce_among(repo, repo.writable(), errand, (refreshes, epochs))
    }

    fn announce_among(
        repo: &Repo,
        among: RegionSet,
        errand: Errand,
        (refreshes, mut epochs): (Option<SessionId>, Epochs),
    ) -> Result<Session> {
        for _ in 0..ATTEMPTS_MAX {
            let among = among.and(repo.writable());
            let decision = among.iter().find(|ix| !repo.regions.is_weak(*ix)).ok_or_else(|| no_region(repo))?;
            let sid = SessionId(repo.env.random()?);
            let mut session = Session { sid, regions: among, decision, errand: errand.clone(), epochs };
            session.regions = session.publish(repo, refreshes)?;
            // Whoever begins an epoch lists the sessions after that: who announces himself and sees no new epoch
            // afterwards will be found there.
            let now = repo.epochs_since(&session.epochs);
            if now.has_unknown_hand()
                && let Err(e) = changed::keys_stand(repo)
            {
                session.give_up(repo, "the keys were changed")?;
                return Err(e);
            }
            if session.regions.has(decision) && session.epochs.same_in(&now, session.regions) {
                return Ok(session);
            }
            session.give_up(repo, "the announcement came too late")?;
            epochs = now;
        }
        Err(Error::new(Kind::Retry, "epochs begin faster than a session can be announced").advise("run again"))
    }

    /// Creates the session object; returns the regions that have it.
    fn publish(&self, repo: &Repo, refreshes: Option<SessionId>) -> Result<RegionSet> {
        let object = SessionObject {
            fresh: self.fresh(repo),
            sid: self.sid,
            decision: self.decision_id(repo)?,
            created: repo.env.now().0,
            host: self.errand.host.clone(),
            source: self.errand.source.clone(),
            generation: self.errand.generation,
            regions: self.regions.iter().filter_map(|ix| repo.regions.region(ix).id).collect(),
            refreshes,
        };
        let key = Key::Session(self.sid);
        let bytes = repo.seal(ObjectKind::Session, &key.canonical(), &object)?;
        Ok(repo.regions.put_all(self.regions, &key, &bytes))
    }

    /// What objects of this session say that their writer knew.
    pub fn fresh(&self, repo: &Repo) -> Fresh {
        Fresh { epoch: self.epochs.newest(), ..repo.fresh() }
    }

    /// Whether a parent may be re-used without looking its chunks up: it is visible, now that the session is
    /// announced, in every region used, and no undecided epoch leaves it out of its roots.
    pub fn parent_stands(&self, repo: &Repo, parent: SessionId) -> bool {
        if !self.epochs.vouches_for(&parent) {
            return false;
        }
        let snapshot = Key::Snapshot(parent);
        shown_and_forgotten(repo, parent, self.regions).all(|(key, read)| match read {
            Ok(bytes) if key == snapshot => {
                repo.open_object(&key, &bytes).is_ok_and(|opened| opened.kind == ObjectKind::Manifest)
            }
            Err(_) if key == snapshot => false,
            // A marker that does not verify hides nothing, while the keys are those of now.
            Ok(bytes) => match repo.open_object(&key, &bytes) {
                Ok(_) => false,
                Err(FormatError::Damaged(_)) => true,
                Err(_) => changed::keys_stand(repo).is_ok(),
            },
            Err(e) => e.kind() == Kind::NotFound,
        })
    }

    /// Ends the session without a snapshot.
    ///
    /// # Errors
    /// No random bytes or no signing key; a region that cannot take it is only marked as failed.
    pub fn give_up(&self, repo: &Repo, reason: &str) -> Result<()> {
        let key = Key::Snapshot(self.sid);
        let (fresh, created) = (self.fresh(repo), repo.env.now().0);
        let tombstone = Tombstone { fresh, sid: self.sid, created, reason: reason.to_owned() };
        let bytes = repo.seal(ObjectKind::Tombstone, &key.canonical(), &tombstone)?;
        repo.regions.put_all(self.regions.and(repo.writable()), &key, &bytes);
        Ok(())
    }

    /// Creates the manifest in the decision region, then in every other region that is complete.
    ///
    /// # Errors
    /// No complete region can take it.
    pub fn commit(mut self, repo: &Repo, work: &Work, make: impl Fn(&Session) -> Result<Manifest>) -> Result<Ended> {
        for _ in 0..ATTEMPTS_MAX {
            if work.stored {
                self.leave_out_emptied(repo, work.complete);
            }
            if work.complete.and(repo.writable()).has(self.decision) {
                let manifest = make(&self)?;
                let key = Key::Snapshot(self.sid);
                let bytes = repo.seal(ObjectKind::Manifest, &key.canonical(), &manifest)?;
                match self.decide(repo, &key, &bytes) {
                    Ok(Stands::Ours) => {
                        if let Some(regions) = self.spread(repo, work, &key, &bytes)? {
                            return self.confirm(repo, work, (manifest, &bytes), regions);
                        }
                    }
                    Ok(Stands::Another) => {}
                    Err(e) => repo.regions.fail(self.decision, e),
                }
            }
            match self.refresh(repo, work)? {
                Some(next) => self = next,
                None => return Ok(Ended::Fenced(self.sid)),
            }
        }
        Err(no_region(repo))
    }

    /// Regions that show neither the announcement of this session nor an end of it, or another mark, were emptied, or replaced,
    /// while it was at work: what it stored there before is gone. Who filled one again may have ended the session there, and
    /// one that took over its work may have been announced.
    fn leave_out_emptied(&self, repo: &Repo, complete: RegionSet) {
        let key = Key::Session(self.sid);
        let at = complete.and(repo.writable());
        let asked: Vec<(usize, Key)> = at.iter().flat_map(|ix| [(ix, key), (ix, Key::Region)]).collect();
        let read = repo.regions.get_several(&asked, super::SMALL_OBJECT_BYTES_MAX);
        for ((ix, asked), read) in asked.into_iter().zip(read) {
            let is_gone = |read: Result<Bytes>| read.is_err_and(|e| e.kind() == Kind::NotFound);
            let outcome = || repo.regions.get(ix, &Key::Snapshot(self.sid), super::SMALL_OBJECT_BYTES_MAX);
            let id = repo.regions.region(ix).id;
            let is_another = |mark: &Bytes| RegionMark::from_object(mark).is_ok_and(|mark| Some(mark.region) != id);
            let is_emptied = match asked {
                Key::Region => read.is_ok_and(|mark| is_another(&mark)),
                _ => is_gone(read) && is_gone(outcome()),
            };
            if is_emptied {
                let what = "lost what this run had stored there: it was emptied, or replaced, meanwhile";
                let advice = "see `holdfast region repair`";
                repo.regions.fail(ix, Error::new(Kind::Damage, what).advise(advice));
            }
        }
    }

    /// What is the outcome of the session now: this manifest, or something else.
    fn decide(&self, repo: &Repo, key: &Key, bytes: &Bytes) -> Result<Stands> {
        match repo.regions.put(self.decision, key, bytes) {
            Ok(Put::Created | Put::Same) => Ok(Stands::Ours),
            Ok(Put::Other) => Ok(Stands::Another),
            // An answer that says nothing: look.
            Err(e) if e.kind() == Kind::Retry => {
                let there = repo.regions.get(self.decision, key, bytes.len() as u64);
                if there.is_ok_and(|there| there == bytes) { Ok(Stands::Ours) } else { Err(e) }
            }
            Err(e) => Err(e),
        }
    }

    /// Creates the manifest in the other complete regions; returns where it stands, or `None` where a
    /// tombstone was met: the session was fenced.
    ///
    /// # Errors
    /// What was met is by keys that are newer than those known here.
    fn spread(&self, repo: &Repo, work: &Work, key: &Key, bytes: &Bytes) -> Result<Option<RegionSet>> {
        let others = work.complete.and(repo.writable()).without(self.decision);
        let stored = repo.regions.put_all(others, key, bytes);
        for ix in others.iter().filter(|ix| !stored.has(*ix)) {
            let Ok(there) = repo.regions.get(ix, key, super::SMALL_OBJECT_BYTES_MAX) else { continue };
            match repo.open_object(key, &there) {
                Ok(opened) if opened.kind == ObjectKind::Tombstone => return Ok(None),
                Ok(_) | Err(FormatError::Damaged(_)) => {}
                Err(_) => changed::keys_stand(repo)?,
            }
        }
        Ok(Some(stored.with(self.decision)))
    }

    /// The epochs are read once more: a decision region that lies is found here.
    fn confirm(
        self,
        repo: &Repo,
        work: &Work,
        (manifest, bytes): (Manifest, &Bytes),
        regions: RegionSet,
    ) -> Result<Ended> {
        let now = repo.epochs_since(&self.epochs);
        if now.has_unknown_hand() {
            changed::keys_stand(repo)?;
        }
        let doomed = now.doomed();
        if let Some(gone) = work.packs.iter().find(|pack| doomed.contains(pack)) {
            let what = format!("took a snapshot although its pack {gone} is doomed; stored once more");
            repo.regions.record(self.decision, &Key::Snapshot(self.sid).path(), what);
            return Ok(Ended::Fenced(self.sid));
        }
        // What it took over whole it never looked up: that may be among the doomed, once an epoch was decided without this
        // session and without its parent.
        if let Some(parent) = work.parent
            && now.decided_without(self.epochs.newest(), &self.sid)
            && has_gone(repo, parent, regions)
        {
            let what = format!("took a snapshot although its parent {parent} was removed meanwhile; stored once more");
            repo.regions.record(self.decision, &Key::Snapshot(self.sid).path(), what);
            return Ok(Ended::Fenced(self.sid));
        }
        let (_, digest) = signed::check_sum(bytes).map_err(region::lift)?;
        let size = bytes.len() as u64;
        Ok(Ended::Committed(Box::new(Committed { sid: self.sid, manifest, digest, size, regions })))
    }

    /// A new session that takes over the work; `None` where part of it is no longer good.
    fn refresh(&self, repo: &Repo, work: &Work) -> Result<Option<Session>> {
        let among = work.complete.and(repo.writable());
        if among.is_empty() {
            return Err(no_region(repo));
        }
        let now = repo.epochs_since(&self.epochs);
        let next = Self::announce_among(repo, among, self.errand.clone(), (Some(self.sid), now))?;
        let bad = next.epochs.bad_packs();
        let parent_good = work.parent.is_none_or(|parent| next.parent_stands(repo, parent));
        if parent_good && work.packs.iter().all(|pack| !bad.contains(pack)) {
            return Ok(Some(next));
        }
        next.give_up(repo, "what it took over may be gone")?;
        Ok(None)
    }

    /// Id of the decision region.
    ///
    /// # Errors
    /// A region without an id: a mistake of this program.
    pub fn decision_id(&self, repo: &Repo) -> Result<RegionId> {
        let id = repo.regions.region(self.decision).id;
        id.ok_or_else(|| Error::new(Kind::Bug, "a region without an id is in use"))
    }
}

/// Whether a snapshot is certainly forgotten, or is shown no longer by one of these regions. No answer is none.
fn has_gone(repo: &Repo, snapshot: SessionId, regions: RegionSet) -> bool {
    let marker = Key::Forgotten(snapshot);
    shown_and_forgotten(repo, snapshot, regions).any(|(key, read)| match read {
        Ok(bytes) => key == marker && repo.open_object(&key, &bytes).is_ok(),
        Err(e) => key != marker && e.kind() == Kind::NotFound,
    })
}

/// What is at a snapshot's key in each of these regions, and at that of its marker in every region that answers.
fn shown_and_forgotten(
    repo: &Repo,
    snapshot: SessionId,
    regions: RegionSet,
) -> impl Iterator<Item = (Key, Result<Bytes>)> {
    let (shown, marker) = (Key::Snapshot(snapshot), Key::Forgotten(snapshot));
    let asked = regions.iter().map(|ix| (ix, shown)).chain(repo.usable().iter().map(|ix| (ix, marker)));
    let asked: Vec<(usize, Key)> = asked.collect();
    let read = repo.regions.get_several(&asked, super::SMALL_OBJECT_BYTES_MAX);
    asked.into_iter().map(|(_, key)| key).zip(read)
}

fn no_region(repo: &Repo) -> Error {
    let why = repo.regions.failures().pop().map(|(_, e)| e);
    let answer = repo.writable();
    match why {
        why if !answer.is_empty() && answer.iter().all(|ix| repo.regions.is_weak(ix)) => {
            let why = why.map_or_else(|| "the others are not named here".to_owned(), |e| e.to_string());
            Error::new(Kind::Retry, format!("only weak regions answer, and none of them may decide: {why}"))
                .advise("bring a region back that is not weak")
        }
        Some(e) => e,
        None => Error::new(Kind::Retry, "no region can be used"),
    }
}
