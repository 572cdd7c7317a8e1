//! Outcomes of sessions: they come last, each only where everything that it needs is. What was forgotten is not brought
//! back.

use super::copier::{Copier, Job};
use super::plan::Stored;
use crate::base::SessionId;
use crate::error::Result;
use crate::format::envelope::Kind as ObjectKind;
use crate::format::snapshot::Manifest;
use crate::ops::complete::{self, Known};
use crate::region::RegionSet;
use crate::repo::index::Index;
use crate::repo::reader::Reader;
use crate::repo::{Repo, view};
use crate::store::{Key, Prefix};
use std::collections::BTreeSet;
use std::sync::Arc;

/// An outcome that regions lack, and what became of it.
pub(super) struct Lacked {
    pub(super) job: Job,
    /// Regions that lack it, ready for it or not.
    pub(super) missing: RegionSet,
    /// Whether it is a snapshot.
    pub(super) shows: bool,
    /// When a snapshot was begun, ms.
    start: i64,
}

/// Which outcomes may go where: `listed` before the segments were, so that what another writer makes meanwhile, and
/// may need segments that were not seen, is left to the next time.
pub(super) fn plan(
    repo: &Arc<Repo>,
    copier: &Copier<'_>,
    listed: Vec<Job>,
    targets: RegionSet,
    stored: &Stored,
) -> Result<Vec<Lacked>> {
    let mut forgotten: Option<BTreeSet<SessionId>> = None;
    let (mut reader, mut known) = (None, Known::default());
    let mut lacked = Vec::new();
    for job in listed {
        copier.means.cancel.check()?;
        let Key::Snapshot(sid) = job.key else { continue };
        // A region that failed since vouches for nothing: its segments may not have been seen.
        let at = job.from.and(repo.usable());
        let missing = RegionSet::of(targets.and(repo.usable()).iter().filter(|ix| !at.has(*ix)));
        if at.is_empty() || missing.is_empty() || forgotten.get_or_insert_with(|| all_forgotten(repo)).contains(&sid) {
            continue;
        }
        // A tombstone beside a manifest hides nothing: the manifest is what is brought.
        let (mut showing, mut ends, mut unread) = (RegionSet::NONE, RegionSet::NONE, false);
        for ix in at.iter() {
            match repo.read_object(RegionSet::of([ix]), &job.key) {
                Ok(opened) if opened.kind == ObjectKind::Manifest => showing = showing.with(ix),
                Ok(_) => ends = ends.with(ix),
                Err(_) => unread = true,
            }
        }
        // What could not be read just now may be the snapshot: an end is for ever, and waits.
        if showing.is_empty() && unread && !ends.is_empty() {
            continue;
        }
        let from = if showing.is_empty() { at } else { showing };
        let Ok(opened) = repo.read_object(from, &job.key) else { continue };
        let shows = opened.kind == ObjectKind::Manifest;
        let (mut to, mut start) = (missing, i64::MIN);
        if shows {
            let Ok(manifest) = opened.decode::<Manifest>("manifest") else { continue };
            start = manifest.start;
            if reader.is_none() {
                reader = Some(Reader::new(Arc::clone(repo), Arc::new(Index::load(repo)?)));
            }
            // A region may have lost a part of its index, and lists the rest without an error.
            if let Some(reader) = &reader {
                let present = |pack: &_| stored.present(pack);
                to = complete::regions(reader, &mut known, &manifest.root, (missing, &present), copier.means.cancel)?;
            }
        }
        lacked.push(Lacked { job: Job { from, to, ..job }, missing, shows, start });
    }
    // A snapshot vouches for earlier ones: those come first, so that a region never shows one without the other.
    lacked.sort_by_key(|lacked| lacked.start);
    Ok(lacked)
}

/// Snapshots with a marker that verifies.
pub(super) fn all_forgotten(repo: &Repo) -> BTreeSet<SessionId> {
    let sid_of = |(key, at)| match key {
        Key::Forgotten(sid) => {
            let read = |bytes: &[u8]| view::open_marker(repo, &key, sid, bytes);
            repo.regions.read(at, &key, crate::repo::SMALL_OBJECT_BYTES_MAX, read).is_ok().then_some(sid)
        }
        _ => None,
    };
    repo.regions.listed(repo.usable(), Prefix::Forgotten).into_iter().filter_map(sid_of).collect()
}
