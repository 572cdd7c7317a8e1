//! What this machine has read of snapshots before, in a sealed file beside the local index: an outcome or a marker
//! never changes, and opening thousands of them at every run costs more than the run. Never the truth: a line counts
//! while the regions list the same objects, with the same sizes and times, and the configuration is the one under
//! which it was verified. The file may be deleted at any time.

use super::{Outcome, Places};
use crate::base::{ConfigNo, Digest, RegionId, SessionId, WriterId};
use crate::format::snapshot::Manifest;
use crate::repo::Repo;
use crate::repo::index::cache::Cache;
use crate::repo::session::Committed;
use minicbor::{Decode, Encode};
use std::collections::HashMap;
use std::sync::Arc;

/// Name of the file.
const FILE: &str = "snapshots";
/// So many new lines are written down at once; fewer only while there are few in all.
const NEW_MAX: usize = 8;
/// One new line among so many is written down at once.
const NEW_SHARE: usize = 256;

/// What this machine has made itself, and not seen listed, has the time of its making with its sign turned round. A store's
/// clock is at most so far away from this one's, ms: requests are refused by then.
const SKEW_MS: u64 = 15 * 60 * 1000;

/// Where an object was listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(super) struct Place {
    #[n(0)]
    pub(super) region: RegionId,
    #[n(1)]
    pub(super) size: u64,
    /// The store's time, ms.
    #[n(2)]
    pub(super) modified: i64,
}

/// A manifest that was verified, and who signed it.
#[derive(Debug, Clone, Encode, Decode)]
#[cbor(array)]
struct Shown {
    #[n(0)]
    writer: WriterId,
    #[n(1)]
    digest: Digest,
    #[n(2)]
    manifest: Manifest,
}

/// An outcome; without a manifest, the end of a session that made none.
#[derive(Debug, Clone, Encode, Decode)]
#[cbor(array)]
struct OutcomeLine {
    #[n(0)]
    sid: SessionId,
    #[n(1)]
    places: Vec<Place>,
    #[n(2)]
    shown: Option<Shown>,
}

/// A marker that was verified.
#[derive(Debug, Clone, Encode, Decode)]
#[cbor(array)]
struct MarkerLine {
    #[n(0)]
    sid: SessionId,
    #[n(1)]
    places: Vec<Place>,
}

/// What the file holds.
#[derive(Debug, Encode, Decode)]
#[cbor(array)]
struct Lines {
    #[n(0)]
    config: ConfigNo,
    #[n(1)]
    digest: Digest,
    #[n(2)]
    outcomes: Vec<OutcomeLine>,
    #[n(3)]
    markers: Vec<MarkerLine>,
}

/// What is remembered, and what is new since.
#[derive(Default)]
pub(super) struct Recall {
    cache: Option<Arc<Cache>>,
    outcomes: HashMap<SessionId, OutcomeLine>,
    markers: HashMap<SessionId, MarkerLine>,
    written: usize,
    new: usize,
}

/// Whether what is listed now is what was read then: nothing that was not there, and nothing that has changed. Less of
/// it is a region that is away.
fn fits(then: &[Place], now: &Places) -> bool {
    let made = |place: &Place, line: &Place| {
        let near = line.modified.saturating_neg().abs_diff(place.modified) <= SKEW_MS;
        line.modified < 0 && near && (line.region, line.size) == (place.region, place.size)
    };
    let fits = |place: &Place| then.iter().any(|line| line == place || made(place, line));
    !now.all.is_empty() && now.known && now.all.iter().all(fits)
}

impl Recall {
    /// Reads the file. Nothing is remembered without one, or with one of another configuration.
    pub(super) fn read(repo: &Repo) -> Recall {
        let Some(cache) = repo.index_cache().cloned() else { return Recall::default() };
        let lines: Option<Lines> = cache.read_file(FILE).and_then(|bytes| minicbor::decode(&bytes).ok());
        let mut recall = Recall { cache: Some(cache), ..Recall::default() };
        if let Some(lines) = lines.filter(|lines| (lines.config, lines.digest) == repo.config()) {
            recall.outcomes = lines.outcomes.into_iter().map(|line| (line.sid, line)).collect();
            recall.markers = lines.markers.into_iter().map(|line| (line.sid, line)).collect();
        }
        recall.written = recall.outcomes.len() + recall.markers.len();
        recall
    }

    /// The outcome that these places showed. That a session ended without a snapshot is believed only where everything
    /// is as it was: an end hides a snapshot that another region shows.
    pub(super) fn outcome(&self, sid: SessionId, now: &Places) -> Option<Outcome> {
        self.line(sid, now).map(|line| match &line.shown {
            Some(shown) => {
                let known = super::snapshot(shown.manifest.clone(), shown.digest, shown.writer);
                Outcome::Snapshot(Box::new(known))
            }
            None => Outcome::End,
        })
    }

    fn line(&self, sid: SessionId, now: &Places) -> Option<&OutcomeLine> {
        let line = self.outcomes.get(&sid).filter(|line| fits(&line.places, now))?;
        (line.shown.is_some() || line.places.len() == now.all.len()).then_some(line)
    }

    /// Whether there is one.
    pub(super) fn knows(&self, sid: SessionId, now: &Places) -> bool {
        self.line(sid, now).is_some()
    }

    /// The snapshot that these places showed. An end is not believed: whoever must not miss a snapshot looks again.
    pub(super) fn snapshot(&self, sid: SessionId, now: &Places) -> Option<Outcome> {
        self.outcome(sid, now).filter(|outcome| matches!(outcome, Outcome::Snapshot(_)))
    }

    /// Whether there is one that is a snapshot.
    pub(super) fn knows_snapshot(&self, sid: SessionId, now: &Places) -> bool {
        self.line(sid, now).is_some_and(|line| line.shown.is_some())
    }

    /// Whether a snapshot is known from having been made, and not yet as it is listed.
    pub(super) fn is_new(&self, sid: SessionId) -> bool {
        let made = |line: &OutcomeLine| line.places.iter().any(|place| place.modified < 0);
        self.outcomes.get(&sid).is_some_and(made)
    }

    /// Takes note of a snapshot that was made just now.
    pub(super) fn keep_made(&mut self, repo: &Repo, made: &Committed, writer: WriterId) {
        let id = |ix: usize| repo.regions.region(ix).id;
        let modified = repo.env.now().0.saturating_neg();
        let place = |region: RegionId| Place { region, size: made.size, modified };
        let places = made.regions.iter().filter_map(id).map(place).collect();
        let shown = Some(Shown { writer, digest: made.digest, manifest: made.manifest.clone() });
        self.outcomes.insert(made.sid, OutcomeLine { sid: made.sid, places, shown });
        self.new += 1;
    }

    /// Whether these places showed a marker.
    pub(super) fn marker(&self, sid: SessionId, now: &Places) -> bool {
        self.markers.get(&sid).is_some_and(|line| fits(&line.places, now))
    }

    /// Takes note of an outcome that was read and verified.
    pub(super) fn keep_outcome(&mut self, sid: SessionId, now: &Places, outcome: &Outcome) {
        if !now.known || self.cache.is_none() {
            return;
        }
        let shown = match outcome {
            Outcome::Snapshot(s) => Some(Shown { writer: s.writer, digest: s.digest, manifest: s.manifest.clone() }),
            Outcome::End => None,
        };
        self.outcomes.insert(sid, OutcomeLine { sid, places: now.all.clone(), shown });
        self.new += 1;
    }

    /// Takes note of a marker that was read and verified.
    pub(super) fn keep_marker(&mut self, sid: SessionId, now: &Places) {
        if now.known && self.cache.is_some() {
            self.markers.insert(sid, MarkerLine { sid, places: now.all.clone() });
            self.new += 1;
        }
    }

    /// Writes down what is new, once there is enough of it. A file that cannot be written costs time at the next run,
    /// and nothing else. `gone` tells what no region lists any more.
    pub(super) fn write(mut self, repo: &Repo, gone: impl Fn(&SessionId) -> bool) {
        let Some(cache) = self.cache.take().filter(|_| self.new >= NEW_MAX || self.new * NEW_SHARE > self.written)
        else {
            return;
        };
        let (config, digest) = repo.config();
        let outcomes = self.outcomes.into_values().filter(|line| !gone(&line.sid)).collect();
        let markers = self.markers.into_values().filter(|line| !gone(&line.sid)).collect();
        let lines = Lines { config, digest, outcomes, markers };
        if let Err(e) = cache.write_file(FILE, crate::format::cbor::encode(&lines)) {
            cache.say(format!(
                "what is known of snapshots could not be kept on this machine ({e}); each run reads them again"
            ));
        }
    }
}
