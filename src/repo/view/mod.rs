//! Which snapshots there are: manifests of all regions less what was forgotten, and whether anything
//! that a manifest vouches for is missing.

mod recall;
mod roots;

use super::session::Committed;
use super::tags::Changes;
use super::{Repo, SMALL_OBJECT_BYTES_MAX};
use crate::base::{Digest, Generation, SessionId, TimeMs, WriterId};
use crate::error::{Error, Kind, Result};
use crate::format::FormatError;
use crate::format::envelope::Kind as ObjectKind;
use crate::format::objects::Forgotten;
use crate::format::ring::role;
use crate::format::signed::check_sum;
use crate::format::snapshot::{Manifest, Seen};
use crate::region::{Ahead, Lists, RegionSet};
use crate::store::{Key, Prefix};
use recall::{Place, Recall};
pub use roots::{Made, Outcomes, made, shows_manifest};
use std::collections::{BTreeMap, BTreeSet};

/// A snapshot.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Its manifest.
    pub manifest: Manifest,
    /// Digest of the manifest.
    pub digest: Digest,
    /// Who signed it.
    pub writer: WriterId,
    /// Regions that list it.
    pub regions: RegionSet,
    /// The earliest time that a region's store gives its manifest.
    pub stored: TimeMs,
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
    /// Regions whose word counts.
    sources: RegionSet,
    /// The damaged ones that may be snapshots of ours. What is whole, and yet does not verify, was never one.
    unsure: BTreeSet<SessionId>,
}

/// Where something is listed.
struct Places {
    at: RegionSet,
    /// The earliest time that a store gives it.
    earliest: TimeMs,
    /// What each region says of it.
    all: Vec<Place>,
    /// Whether the id of each of these regions is known.
    known: bool,
}

impl Places {
    /// Its size, in bytes, as far as that is known.
    fn size(&self) -> u64 {
        self.all.iter().map(|place| place.size).max().unwrap_or_default()
    }
}

fn places(repo: &Repo, lists: &Lists) -> BTreeMap<SessionId, Places> {
    let mut found: BTreeMap<SessionId, Places> = BTreeMap::new();
    for (ix, lines) in lists {
        let id = repo.regions.region(*ix).id;
        for line in lines {
            let (Key::Snapshot(sid) | Key::Forgotten(sid)) = line.key else { continue };
            let time = TimeMs(line.modified);
            let none = Places { at: RegionSet::NONE, earliest: time, all: Vec::new(), known: true };
            let places = found.entry(sid).or_insert(none);
            (places.at, places.earliest) = (places.at.with(*ix), places.earliest.min(time));
            places.known &= id.is_some();
            places.all.extend(id.map(|region| Place { region, size: line.size, modified: line.modified }));
        }
    }
    found
}

/// What the regions list of snapshots.
#[derive(Debug)]
pub struct Listing {
    /// Markers of those that were forgotten.
    pub markers: Lists,
    /// Outcomes of sessions.
    pub outcomes: Lists,
}

impl Listing {
    fn now(repo: &Repo) -> Listing {
        let [markers, outcomes] = repo.regions.list_several(repo.usable(), [Prefix::Forgotten, Prefix::Snapshots]);
        Listing { markers, outcomes }
    }
}

/// Opens the marker of `sid`.
///
/// # Errors
/// As [`Repo::open_object`], and what is no marker of this snapshot.
pub fn open_marker(repo: &Repo, key: &Key, sid: SessionId, bytes: &[u8]) -> std::result::Result<(), FormatError> {
    let opened = repo.open_object(key, bytes)?;
    if opened.kind != ObjectKind::Forgotten || opened.decode::<Forgotten>("marker")?.sid != sid {
        return Err(FormatError::Unsigned("not a marker of this snapshot"));
    }
    Ok(())
}

/// Whether a snapshot has a marker. One that does not verify hides nothing; reading it has recorded why.
fn is_marked(repo: &Repo, sid: SessionId, at: RegionSet, ahead: &mut Ahead) -> bool {
    let key = Key::Forgotten(sid);
    if ahead.open(&repo.regions, &key, |bytes| open_marker(repo, &key, sid, bytes)).is_some() {
        return true;
    }
    repo.regions.read(at, &key, SMALL_OBJECT_BYTES_MAX, |bytes| open_marker(repo, &key, sid, bytes)).is_ok()
}

/// What became of a session.
#[derive(Debug)]
enum Outcome {
    /// A snapshot.
    Snapshot(Box<Snapshot>),
    /// It ended without one.
    End,
}

fn snapshot(manifest: Manifest, digest: Digest, writer: WriterId) -> Snapshot {
    Snapshot { manifest, digest, writer, regions: RegionSet::NONE, stored: TimeMs(0) }
}

/// Opens what stands at `snapshots/<sid>`.
fn open_outcome(repo: &Repo, key: &Key, sid: SessionId, bytes: &[u8]) -> std::result::Result<Outcome, FormatError> {
    let opened = repo.open_object(key, bytes)?;
    match opened.kind {
        ObjectKind::Manifest => {}
        ObjectKind::Tombstone | ObjectKind::Repack => return Ok(Outcome::End),
        _ => return Err(FormatError::Unsigned("not an outcome of a session")),
    }
    let manifest: Manifest = opened.decode("manifest")?;
    manifest.check()?;
    let allowed = repo.ring.writer(&opened.writer).is_some_and(|w| {
        w.roles & role::WRITE != 0 && (w.sources.is_empty() || w.sources.contains(&manifest.source.name))
    });
    if manifest.sid != sid || !allowed {
        return Err(FormatError::Unsigned("manifest by a writer without right to this source"));
    }
    Ok(Outcome::Snapshot(Box::new(snapshot(manifest, opened.digest, opened.writer))))
}

/// Whether these bytes are an outcome of this session that counts.
///
/// # Errors
/// As [`Repo::open_object`], and what is no outcome, or one by a writer without right to it.
pub fn check_outcome(repo: &Repo, key: &Key, sid: SessionId, bytes: &[u8]) -> std::result::Result<(), FormatError> {
    open_outcome(repo, key, sid, bytes).map(drop)
}

/// Whether a region's copy fits its checksum.
fn is_whole(repo: &Repo, key: &Key, ix: usize) -> bool {
    repo.regions.get(ix, key, SMALL_OBJECT_BYTES_MAX).is_ok_and(|bytes| check_sum(&bytes).is_ok())
}

/// Names the regions that show an end where another shows a snapshot.
fn record_ends(repo: &Repo, key: &Key, at: RegionSet, sid: SessionId) {
    for ix in at.iter() {
        let read = |bytes: &[u8]| open_outcome(repo, key, sid, bytes);
        if let Ok(Outcome::End) = repo.regions.read(RegionSet::of([ix]), key, SMALL_OBJECT_BYTES_MAX, read) {
            repo.regions.record(ix, &key.path(), "says that the session ended, but another region has its snapshot");
        }
    }
}

/// The end of a session stands in one region. Where another shows its manifest, that one was created first where it
/// counts, and the end was put there by somebody else. Says also whether this is what it comes to: who does not answer may
/// show the manifest.
fn read_outcome(repo: &Repo, sid: SessionId, at: RegionSet, ahead: &mut Ahead) -> Result<(Outcome, bool)> {
    let key = Key::Snapshot(sid);
    let read = |at| repo.regions.read(at, &key, SMALL_OBJECT_BYTES_MAX, |bytes| open_outcome(repo, &key, sid, bytes));
    let found = match ahead.open(&repo.regions, &key, |bytes| open_outcome(repo, &key, sid, bytes)) {
        Some(found) => found,
        None => read(at)?,
    };
    let mut sure = true;
    if matches!(found, Outcome::End) && at.count() > 1 {
        for ix in at.iter() {
            match read(RegionSet::of([ix])) {
                Ok(Outcome::Snapshot(snapshot)) => {
                    record_ends(repo, &key, at, sid);
                    return Ok((Outcome::Snapshot(snapshot), true));
                }
                Ok(Outcome::End) => {}
                Err(_) => sure = false,
            }
        }
    }
    Ok((found, sure))
}

impl View {
    /// Reads every outcome and marker once, and gives snapshots the tags that they have now.
    ///
    /// # Errors
    /// A newer configuration than the one found is vouched for.
    pub fn load(repo: &Repo) -> Result<View> {
        let wanted = [Prefix::Forgotten, Prefix::Snapshots, Prefix::Tags];
        let [markers, outcomes, tags] = repo.regions.list_several(repo.usable(), wanted);
        let mut view = Self::load_with(repo, Recall::default(), &Listing { markers, outcomes })?;
        let changes = Changes::load(repo, &tags);
        view.snapshots.values_mut().for_each(|snapshot| changes.apply(&mut snapshot.manifest));
        Ok(view)
    }

    /// The same with the tags of the manifests, but what this machine has read before and the regions list unchanged is not read again. Damage that
    /// leaves an object's size and time as they were is not seen; whoever looks for damage takes [`View::load`].
    ///
    /// # Errors
    /// As for [`View::load`].
    pub fn recall(repo: &Repo) -> Result<View> {
        Self::recall_listed(repo, Listing::now(repo))
    }

    /// The same from what was listed just now.
    ///
    /// # Errors
    /// As for [`View::load`].
    pub fn recall_listed(repo: &Repo, listing: Listing) -> Result<View> {
        Self::load_with(repo, Recall::read(repo), &listing)
    }

    /// Takes note of a snapshot that was made just now: its next reader, mostly the next run, need not ask for it.
    pub fn remember(repo: &Repo, made: &Committed) {
        let far = repo.usable().iter().any(|ix| repo.regions.region(ix).bucket);
        if let Some((writer, _)) = repo.ring.signer().filter(|_| far) {
            let mut recall = Recall::read(repo);
            recall.keep_made(repo, made, writer);
            recall.write(repo, |_| false);
        }
    }

    fn load_with(repo: &Repo, mut recall: Recall, listing: &Listing) -> Result<View> {
        let mut view = View { sources: repo.sources(repo.epochs()), ..View::default() };
        let (markers, outcomes) = (places(repo, &listing.markers), places(repo, &listing.outcomes));
        let unknown = markers.iter().filter(|(sid, places)| !recall.marker(**sid, places));
        let unknown = unknown.map(|(sid, places)| (Key::Forgotten(*sid), places));
        let others = outcomes.iter().filter(|(sid, places)| !recall.knows(**sid, places));
        let unknown = unknown.chain(others.map(|(sid, places)| (Key::Snapshot(*sid), places)));
        let wanted = unknown.map(|(key, places)| (key, places.at, places.size()));
        let mut ahead = Ahead::of(&repo.regions, wanted.collect::<Vec<_>>());
        for (sid, places) in &markers {
            let before = repo.regions.found_times();
            let known = recall.marker(*sid, places);
            if known || is_marked(repo, *sid, places.at, &mut ahead) {
                view.forgotten.insert(*sid);
                if !known && repo.regions.found_times() == before {
                    recall.keep_marker(*sid, places);
                }
            }
        }
        for (sid, places) in &outcomes {
            view.load_outcome(repo, *sid, places, (&mut recall, &mut ahead));
        }
        recall.write(repo, |sid| !outcomes.contains_key(sid) && !markers.contains_key(sid));
        view.check_config(repo)?;
        view.check_vouched(repo);
        Ok(view)
    }

    /// The same now: what is known is not read again, only listed.
    ///
    /// # Errors
    /// As for [`View::load`].
    pub fn again(mut self, repo: &Repo) -> Result<View> {
        self.sources = repo.sources(repo.epochs());
        let listing = Listing::now(repo);
        for (sid, Places { at, .. }) in places(repo, &listing.markers) {
            if !self.forgotten.contains(&sid) && is_marked(repo, sid, at, &mut Ahead::default()) {
                self.forgotten.insert(sid);
            }
        }
        let listed = places(repo, &listing.outcomes);
        self.snapshots.retain(|sid, _| listed.contains_key(sid) && !self.forgotten.contains(sid));
        // What could not be read is read once more.
        (self.damaged, self.unsure) = Default::default();
        for (sid, places) in listed {
            match self.snapshots.get_mut(&sid) {
                Some(known) => (known.regions, known.stored) = (places.at, places.earliest),
                None if self.ended.contains(&sid) || self.forgotten.contains(&sid) => {}
                None => self.load_outcome(repo, sid, &places, (&mut Recall::default(), &mut Ahead::default())),
            }
        }
        self.check_config(repo)?;
        self.check_vouched(repo);
        Ok(self)
    }

    fn load_outcome(
        &mut self,
        repo: &Repo,
        sid: SessionId,
        places: &Places,
        (recall, ahead): (&mut Recall, &mut Ahead),
    ) {
        if let Some(outcome) = recall.outcome(sid, places) {
            if recall.is_new(sid) {
                recall.keep_outcome(sid, places, &outcome);
            }
            return self.take(sid, places, outcome);
        }
        let before = repo.regions.found_times();
        match read_outcome(repo, sid, places.at, ahead) {
            Ok((outcome, sure)) => {
                // What a region shows damaged is read again until it is mended.
                if sure && repo.regions.found_times() == before {
                    recall.keep_outcome(sid, places, &outcome);
                }
                self.take(sid, places, outcome);
            }
            Err(e) => {
                let (key, at) = (Key::Snapshot(sid), places.at);
                if e.kind() == Kind::WrongKey {
                    self.sealed_otherwise = self.sealed_otherwise.or(at);
                }
                if at.iter().any(|ix| !is_whole(repo, &key, ix)) {
                    self.unsure.insert(sid);
                }
                self.damaged.insert(sid, e.to_string());
            }
        }
    }

    fn take(&mut self, sid: SessionId, places: &Places, outcome: Outcome) {
        match outcome {
            Outcome::Snapshot(snapshot) => {
                self.generation_max = self.generation_max.max(Some(snapshot.manifest.generation));
                if !self.forgotten.contains(&sid) {
                    let (regions, stored) = (places.at, places.earliest);
                    self.snapshots.insert(sid, Snapshot { regions, stored, ..*snapshot });
                }
            }
            Outcome::End => _ = self.ended.insert(sid),
        }
    }

    fn check_config(&self, repo: &Repo) -> Result<()> {
        // One region could have forged it; not all of them, while one is honest.
        let members = repo.usable().and(self.sources);
        if !members.is_empty() && self.sealed_otherwise.covers(members) {
            let what = format!(
                "rolled back: every region has a snapshot that is sealed with a newer key than those of configuration {}",
                repo.config().0
            );
            return Err(Error::new(Kind::Damage, what)
                .advise("bring back a region that has the newest configuration; do not write with this one"));
        }
        let (number, digest) = repo.config();
        let fresh = || self.vouching().map(|s| s.manifest.fresh);
        if fresh().any(|known| known.config == number && known.digest != digest) {
            let what = format!("configuration {number} is not the one that snapshots vouch for");
            return Err(Error::new(Kind::Damage, what)
                .advise("bring back a region that has the right one; do not trust the keys shown here"));
        }
        let newest = fresh().map(|known| known.config).max();
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

    fn check_vouched(&mut self, repo: &Repo) {
        let known = |seen: &Seen| {
            self.snapshots.contains_key(&seen.sid)
                || self.forgotten.contains(&seen.sid)
                || self.damaged.contains_key(&seen.sid)
        };
        let mut lost = BTreeSet::new();
        for snapshot in self.vouching() {
            for seen in snapshot.manifest.seen.iter().filter(|seen| !known(seen)) {
                lost.insert(format!(
                    "snapshot {} is gone without a marker from every region; {} vouches for it",
                    seen.sid.short(),
                    snapshot.manifest.sid.short()
                ));
            }
        }
        let newest = self.vouching().map(|s| s.manifest.fresh.epoch).max();
        if let Some(newest) = newest.filter(|newest| *newest > repo.epoch()) {
            let (newest, found) = (newest.0, repo.epoch().0);
            lost.insert(format!("snapshots vouch for epoch {newest}, but the newest to be found is {found}"));
        }
        self.lost = lost.into_iter().collect();
    }

    /// Snapshots that a member has. What only a region shows that is none can be restored, and says nothing of anything else:
    /// it may have been made under configurations and epochs that do not count.
    fn vouching(&self) -> impl Iterator<Item = &Snapshot> {
        self.snapshots.values().filter(|s| !s.regions.and(self.sources).is_empty())
    }

    /// The same, newest first.
    fn newest_vouching(&self) -> Vec<&Snapshot> {
        let mut all = self.newest_first();
        all.retain(|s| !s.regions.and(self.sources).is_empty());
        all
    }

    /// Newest first.
    pub fn newest_first(&self) -> Vec<&Snapshot> {
        let mut all: Vec<&Snapshot> = self.snapshots.values().collect();
        all.sort_by_key(|s| std::cmp::Reverse((s.manifest.start, s.manifest.seq, s.manifest.sid)));
        all
    }

    /// The newest snapshot of a source that a member has.
    pub fn latest_of(&self, source: &str) -> Option<&Snapshot> {
        self.newest_vouching().into_iter().find(|s| s.manifest.source.name == source)
    }

    /// The heads that a new manifest vouches for: the newest of each source, newest first.
    pub fn heads(&self) -> Vec<Seen> {
        let mut sources = BTreeSet::new();
        self.newest_vouching()
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
            [] => Err(self.why_not(text)),
            _ => Err(Error::new(Kind::Config, format!("`{text}` fits {} snapshots", hits.len()))
                .advise("give more digits of the id")),
        }
    }

    /// What makes it unsure that `text` means what it says: a snapshot that nobody can read may be the latest.
    pub fn doubt(&self, text: &str) -> Option<String> {
        let first = self.unsure.first().filter(|_| text == "latest")?;
        let more = if self.unsure.len() > 1 { " (and others)" } else { "" };
        Some(format!("snapshot {}{more} is damaged in every region, and may be a later one", first.short()))
    }

    fn why_not(&self, text: &str) -> Error {
        let starts = |sid: &&SessionId| !text.is_empty() && sid.hex().starts_with(text);
        if let Some((sid, why)) = self.damaged.iter().find(|(sid, _)| starts(sid)) {
            let what = format!("snapshot {} is damaged in every region: {why}", sid.short());
            return Error::new(Kind::Damage, what)
                .advise("a region that was away may have it; see `holdfast snapshots`");
        }
        if let Some(sid) = self.forgotten.iter().find(starts) {
            return self.no_snapshot(&format!("snapshot {} was forgotten", sid.short()));
        }
        self.no_snapshot(&format!("no snapshot `{text}`"))
    }

    fn no_snapshot(&self, what: &str) -> Error {
        Error::new(Kind::NotFound, what).advise("see `holdfast snapshots`")
    }
}
