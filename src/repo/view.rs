//! Which snapshots there are: manifests of all regions less what was forgotten, and whether anything
//! that a manifest vouches for is missing.

use super::Repo;
use crate::base::{Digest, Generation, SessionId};
use crate::error::{Error, Kind, Result};
use crate::format::envelope::Kind as ObjectKind;
use crate::format::objects::Forgotten;
use crate::format::ring::role;
use crate::format::snapshot::{Manifest, Seen};
use crate::region::RegionSet;
use crate::store::{Key, Prefix};
use std::collections::{BTreeMap, BTreeSet};

/// A snapshot.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Its manifest.
    pub manifest: Manifest,
    /// Digest of the manifest.
    pub digest: Digest,
    /// Who signed it.
    pub writer: crate::base::WriterId,
    /// Regions that list it.
    pub regions: RegionSet,
}

/// All snapshots.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// Visible ones.
    pub snapshots: BTreeMap<SessionId, Snapshot>,
    /// Forgotten ones.
    pub forgotten: BTreeSet<SessionId>,
    /// Sessions that ended without a snapshot.
    pub ended: BTreeSet<SessionId>,
    /// The newest generation of any manifest, forgotten ones included.
    pub generation_max: Option<Generation>,
    /// Outcomes that no region could show intact.
    pub damaged: BTreeMap<SessionId, String>,
    /// What newer objects vouch for and no region has: proof of loss or rollback.
    pub lost: Vec<String>,
    /// Regions with an outcome that is whole and sealed with a key that our keyring lacks.
    sealed_otherwise: RegionSet,
}

fn sids(repo: &Repo, prefix: Prefix) -> BTreeMap<SessionId, RegionSet> {
    let mut found: BTreeMap<SessionId, Vec<usize>> = BTreeMap::new();
    for ix in repo.usable().iter() {
        match repo.regions.list(ix, prefix) {
            Ok(listed) => {
                for line in listed {
                    if let Key::Snapshot(sid) | Key::Forgotten(sid) = line.key {
                        found.entry(sid).or_default().push(ix);
                    }
                }
            }
            Err(e) => repo.regions.fail(ix, e),
        }
    }
    found.into_iter().map(|(sid, at)| (sid, RegionSet::of(at))).collect()
}

impl View {
    /// Reads every outcome and marker once.
    ///
    /// # Errors
    /// A newer configuration than the one found is vouched for.
    pub fn load(repo: &Repo) -> Result<View> {
        let mut view = View::default();
        for (sid, at) in sids(repo, Prefix::Forgotten) {
            let key = Key::Forgotten(sid);
            let marker = repo.read_object(at, &key).and_then(|opened| {
                if opened.kind != ObjectKind::Forgotten {
                    return Err(Error::new(Kind::Damage, "not a marker"));
                }
                opened.decode::<Forgotten>("marker").map_err(crate::region::lift)
            });
            // A marker that does not verify hides nothing; reading it has recorded why.
            if marker.is_ok_and(|m| m.sid == sid) {
                view.forgotten.insert(sid);
            }
        }
        for (sid, at) in sids(repo, Prefix::Snapshots) {
            view.load_outcome(repo, sid, at);
        }
        view.check_config(repo)?;
        view.check_vouched();
        Ok(view)
    }

    fn load_outcome(&mut self, repo: &Repo, sid: SessionId, at: RegionSet) {
        let key = Key::Snapshot(sid);
        let read = repo.read_object(at, &key).and_then(|opened| {
            if opened.kind != ObjectKind::Manifest {
                return Ok(None);
            }
            let manifest: Manifest = opened.decode("manifest").map_err(crate::region::lift)?;
            manifest.check().map_err(crate::region::lift)?;
            let allowed = repo.ring.writer(&opened.writer).is_some_and(|w| {
                w.roles & role::WRITE != 0 && (w.sources.is_empty() || w.sources.contains(&manifest.source.name))
            });
            if manifest.sid != sid || !allowed {
                return Err(Error::new(Kind::Damage, "manifest by a writer without right to this source"));
            }
            Ok(Some(Snapshot { manifest, digest: opened.digest, writer: opened.writer, regions: at }))
        });
        if let Ok(Some(snapshot)) = &read {
            self.generation_max = self.generation_max.max(Some(snapshot.manifest.generation));
        }
        match read {
            Ok(Some(snapshot)) if !self.forgotten.contains(&sid) => {
                self.snapshots.insert(sid, snapshot);
            }
            Ok(Some(_)) => {}
            Ok(None) => {
                self.ended.insert(sid);
            }
            Err(e) => {
                if e.kind() == Kind::WrongKey {
                    self.sealed_otherwise = self.sealed_otherwise.or(at);
                }
                self.damaged.insert(sid, e.to_string());
            }
        }
    }

    fn check_config(&self, repo: &Repo) -> Result<()> {
        // One region could have forged it; not all of them, while one is honest.
        if !repo.usable().is_empty() && self.sealed_otherwise.covers(repo.usable()) {
            let what = format!(
                "rolled back: every region has a snapshot that is sealed with a newer key than those of configuration {}",
                repo.config().0
            );
            return Err(Error::new(Kind::Damage, what)
                .advise("bring back a region that has the newest configuration; do not write with this one"));
        }
        let newest = self.snapshots.values().map(|s| s.manifest.fresh.config).max();
        match newest {
            Some(n) if n > repo.config().0 => Err(Error::new(
                Kind::Damage,
                format!(
                    "rolled back: snapshots vouch for configuration {n}, but the newest to be found is {}",
                    repo.config().0
                ),
            )
            .advise("bring back a region that has it; do not trust the keys shown here")),
            _ => Ok(()),
        }
    }

    fn check_vouched(&mut self) {
        let known = |seen: &Seen| {
            self.snapshots.contains_key(&seen.sid)
                || self.forgotten.contains(&seen.sid)
                || self.damaged.contains_key(&seen.sid)
        };
        let mut lost = BTreeSet::new();
        for snapshot in self.snapshots.values() {
            for seen in snapshot.manifest.seen.iter().filter(|seen| !known(seen)) {
                lost.insert(format!(
                    "snapshot {} is gone without a marker from every region; {} vouches for it",
                    seen.sid.short(),
                    snapshot.manifest.sid.short()
                ));
            }
        }
        self.lost = lost.into_iter().collect();
    }

    /// Newest first.
    pub fn newest_first(&self) -> Vec<&Snapshot> {
        let mut all: Vec<&Snapshot> = self.snapshots.values().collect();
        all.sort_by_key(|s| std::cmp::Reverse((s.manifest.start, s.manifest.seq, s.manifest.sid)));
        all
    }

    /// The newest snapshot of a source.
    pub fn latest_of(&self, source: &str) -> Option<&Snapshot> {
        self.newest_first().into_iter().find(|s| s.manifest.source.name == source)
    }

    /// The heads that a new manifest vouches for: the newest of each source, newest first.
    pub fn heads(&self) -> Vec<Seen> {
        let mut sources = BTreeSet::new();
        self.newest_first()
            .into_iter()
            .filter(|s| sources.insert(s.manifest.source.name.clone()))
            .take(crate::format::snapshot::SEEN_MAX)
            .map(|s| Seen { sid: s.manifest.sid, digest: s.digest })
            .collect()
    }

    /// The snapshot that an id prefix or `latest` means, among those that pass `filter`.
    ///
    /// # Errors
    /// None, or several.
    pub fn find(&self, text: &str, filter: impl Fn(&Manifest) -> bool) -> Result<&Snapshot> {
        let all: Vec<&Snapshot> = self.newest_first().into_iter().filter(|s| filter(&s.manifest)).collect();
        if text == "latest" {
            return all.first().copied().ok_or_else(|| self.no_snapshot("there is no such snapshot"));
        }
        let hits: Vec<&Snapshot> = all.into_iter().filter(|s| s.manifest.sid.hex().starts_with(text)).collect();
        match hits.as_slice() {
            [one] if !text.is_empty() => Ok(one),
            [] => Err(self.no_snapshot(&self.why_not(text))),
            _ => Err(Error::new(Kind::Config, format!("`{text}` fits {} snapshots", hits.len()))
                .advise("give more digits of the id")),
        }
    }

    fn why_not(&self, text: &str) -> String {
        let starts = |sid: &&SessionId| !text.is_empty() && sid.hex().starts_with(text);
        if let Some((sid, why)) = self.damaged.iter().find(|(sid, _)| starts(sid)) {
            return format!("snapshot {} is damaged in every region: {why}", sid.short());
        }
        if let Some(sid) = self.forgotten.iter().find(starts) {
            return format!("snapshot {} was forgotten", sid.short());
        }
        format!("no snapshot `{text}`")
    }

    fn no_snapshot(&self, what: &str) -> Error {
        Error::new(Kind::NotFound, what).advise("see `holdfast snapshots`")
    }
}
