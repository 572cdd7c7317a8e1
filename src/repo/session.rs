//! A writer's session by the retention protocol: announce in every region used, read the epoch again,
//! commit by creating the outcome, in the decision region first.

use super::Repo;
use crate::base::{Epoch, Generation, RegionId, SessionId};
use crate::error::{Error, Kind, Result};
use crate::format::envelope::Kind as ObjectKind;
use crate::format::objects::{Session as SessionObject, Tombstone};
use crate::format::snapshot::Manifest;
use crate::region::RegionSet;
use crate::store::{Key, Prefix, Put};
use bytes::Bytes;

/// How often a fenced session is refreshed before giving up.
const REFRESHES_MAX: usize = 3;

/// A session that was announced.
#[derive(Debug, Clone)]
pub struct Session {
    /// Its id.
    pub sid: SessionId,
    /// Regions that it uses.
    pub regions: RegionSet,
    /// The region whose first creation decides.
    pub decision: usize,
    /// Generation that it writes.
    pub generation: Generation,
    host: String,
    source: String,
}

/// How a commit ended.
#[derive(Debug, Clone)]
pub struct Committed {
    /// The snapshot.
    pub sid: SessionId,
    /// The manifest as stored.
    pub manifest: Manifest,
    /// Regions in which it is visible.
    pub regions: RegionSet,
}

impl Session {
    /// Announces a session in all usable regions and reads the epoch again in each.
    ///
    /// # Errors
    /// No region can be used.
    pub fn announce(repo: &Repo, generation: Generation, host: &str, source: &str) -> Result<Session> {
        Self::announce_among(repo, repo.usable(), generation, host, source, None)
    }

    fn announce_among(
        repo: &Repo,
        among: RegionSet,
        generation: Generation,
        host: &str,
        source: &str,
        refreshes: Option<SessionId>,
    ) -> Result<Session> {
        for _ in 0..REFRESHES_MAX {
            let sid = SessionId(repo.env.random()?);
            let decision = among.and(repo.usable()).iter().next().ok_or_else(|| no_region(repo))?;
            let object = SessionObject {
                fresh: repo.fresh(),
                sid,
                decision: region_id(repo, decision)?,
                created: repo.env.now().0,
                host: host.to_owned(),
                source: source.to_owned(),
                generation,
                regions: among.iter().filter_map(|ix| repo.regions.region(ix).id).collect(),
                refreshes,
            };
            let key = Key::Session(sid);
            let bytes = repo.seal(ObjectKind::Session, &key.canonical(), &object)?;
            let regions = repo.regions.put_all(among, &key, &bytes);
            let session = Session { sid, regions, decision, generation, host: host.into(), source: source.into() };
            if !regions.has(decision) {
                continue;
            }
            if session.epoch_stands(repo)? {
                return Ok(session);
            }
            session.give_up(repo, "the epoch moved while the session was announced")?;
            return Err(Error::new(Kind::Retry, "a prune began just now").advise("run again; nothing was lost"));
        }
        Err(no_region(repo))
    }

    /// Whether every region still shows the epoch that was read when the repository was opened.
    ///
    /// # Errors
    /// A listing failed in every region.
    pub fn epoch_stands(&self, repo: &Repo) -> Result<bool> {
        for ix in self.regions.and(repo.usable()).iter() {
            let newest = match repo.regions.list(ix, Prefix::Epochs) {
                Ok(listed) => listed
                    .iter()
                    .filter_map(|l| match l.key {
                        Key::EpochBegin(n, _) => Some(n),
                        _ => None,
                    })
                    .max(),
                Err(e) => {
                    repo.regions.fail(ix, e);
                    continue;
                }
            };
            let known = repo.epochs().newest_in(ix).unwrap_or(Epoch(0));
            if newest.is_some_and(|n| n > known) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Ends the session without a snapshot.
    ///
    /// # Errors
    /// No random bytes or no signing key; a region that cannot take it is only marked as failed.
    pub fn give_up(&self, repo: &Repo, reason: &str) -> Result<()> {
        let key = Key::Snapshot(self.sid);
        let tombstone =
            Tombstone { fresh: repo.fresh(), sid: self.sid, created: repo.env.now().0, reason: reason.to_owned() };
        let bytes = repo.seal(ObjectKind::Tombstone, &key.canonical(), &tombstone)?;
        repo.regions.put_all(self.regions.and(repo.usable()), &key, &bytes);
        Ok(())
    }

    /// Creates the manifest in the decision region, then in every other region that is complete.
    /// When the decision region is lost or the session was fenced, a new session takes over.
    ///
    /// # Errors
    /// No complete region can take it, or the epoch moved.
    pub fn commit(
        mut self,
        repo: &Repo,
        complete: RegionSet,
        make: impl Fn(&Session) -> Result<Manifest>,
    ) -> Result<Committed> {
        for _ in 0..REFRESHES_MAX {
            if !complete.has(self.decision) || !repo.usable().has(self.decision) {
                self = self.refresh(repo, complete)?;
            }
            let manifest = make(&self)?;
            let key = Key::Snapshot(self.sid);
            let bytes = repo.seal(ObjectKind::Manifest, &key.canonical(), &manifest)?;
            match self.decide(repo, &key, &bytes) {
                Ok(true) => {
                    let others = RegionSet::of(complete.and(repo.usable()).iter().filter(|ix| *ix != self.decision));
                    let stored = repo.regions.put_all(others, &key, &bytes);
                    let regions = RegionSet::of(stored.iter().chain([self.decision]).collect::<Vec<_>>());
                    return Ok(Committed { sid: self.sid, manifest, regions });
                }
                Ok(false) => self = self.refresh(repo, complete)?,
                Err(e) => {
                    repo.regions.fail(self.decision, e);
                }
            }
        }
        Err(no_region(repo))
    }

    /// Whether this manifest is now the outcome of the session.
    fn decide(&self, repo: &Repo, key: &Key, bytes: &Bytes) -> Result<bool> {
        match repo.regions.put(self.decision, key, bytes) {
            Ok(Put::Created | Put::Same) => Ok(true),
            Ok(Put::Other) => Ok(false),
            // An answer that says nothing: look.
            Err(e) if e.kind() == Kind::Retry => {
                let there = repo.regions.get(self.decision, key, bytes.len() as u64);
                if there.is_ok_and(|there| there == bytes) { Ok(true) } else { Err(e) }
            }
            Err(e) => Err(e),
        }
    }

    fn refresh(&self, repo: &Repo, complete: RegionSet) -> Result<Session> {
        let among = complete.and(repo.usable());
        if among.is_empty() {
            return Err(no_region(repo));
        }
        Self::announce_among(repo, among, self.generation, &self.host, &self.source, Some(self.sid))
    }

    /// Id of the decision region.
    ///
    /// # Errors
    /// A region without an id: a mistake of this program.
    pub fn decision_id(&self, repo: &Repo) -> Result<RegionId> {
        region_id(repo, self.decision)
    }
}

fn region_id(repo: &Repo, ix: usize) -> Result<RegionId> {
    repo.regions.region(ix).id.ok_or_else(|| Error::new(Kind::Bug, "a region without an id is in use"))
}

fn no_region(repo: &Repo) -> Error {
    match repo.regions.failures().pop() {
        Some((_, e)) => e,
        None => Error::new(Kind::Retry, "no region can be used"),
    }
}
