//! Outcomes of sessions: they come last, each only where everything that it needs is. What was forgotten is not brought
//! back.

use super::copier::{Copier, Job};
use super::plan::Stored;
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

/// Outcomes that regions lack and that are wanted there, ready for them or not. What nobody can tell for now is left out.
///
/// # Errors
/// Interrupted.
pub(super) fn wanted(
    repo: &Arc<Repo>,
    copier: &Copier<'_>,
    listed: Vec<Job>,
    targets: RegionSet,
) -> Result<Vec<(Lacked, Option<Manifest>)>> {
    let targets = targets.and(repo.usable());
    let wanted = |job: &Job| {
        // A region that failed since vouches for nothing: its segments may not have been seen.
        let has = job.from.and(repo.usable());
        !has.and(copier.believed(&job.key)).is_empty() && !has.covers(targets)
    };
    let mut listed: Vec<Job> = listed.into_iter().filter(wanted).collect();
    if listed.is_empty() {
        return Ok(Vec::new());
    }
    let forgotten = forgotten(repo, &listed);
    listed.retain(|job| !forgotten.contains(&job.key));
    let shown = copier.side_by_side(&listed, |job| {
        copier.means.cancel.check()?;
        Ok(look(repo, job.from.and(copier.believed(&job.key)).and(repo.usable()), &job.key))
    })?;
    let one = |(job, shown): (Job, Option<Shown>)| {
        let Shown { from, manifest } = shown?;
        let missing = RegionSet::of(targets.iter().filter(|ix| !job.from.has(*ix)));
        let start = manifest.as_ref().map_or(i64::MIN, |manifest| manifest.start);
        let job = Job { from, to: missing, ..job };
        Some((Lacked { job, missing, shows: manifest.is_some(), start }, manifest))
    };
    Ok(listed.into_iter().zip(shown).filter_map(one).collect())
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
    let (mut reader, mut known) = (None, Known::default());
    let mut lacked = Vec::new();
    for (mut one, manifest) in wanted(repo, copier, listed, targets)? {
        copier.means.cancel.check()?;
        if let Some(manifest) = manifest {
            if reader.is_none() {
                reader = Some(Reader::new(Arc::clone(repo), Arc::new(Index::load(repo)?)));
            }
            // A region may have lost a part of its index, and lists the rest without an error.
            if let Some(reader) = &reader {
                let present = |pack: &_| stored.present(pack);
                let (root, cancel) = (&manifest.root, copier.means.cancel);
                one.job.to = complete::regions(reader, &mut known, root, (one.missing, &present), cancel)?;
            }
        }
        lacked.push(one);
    }
    // A snapshot vouches for earlier ones: those come first, so that a region never shows one without the other.
    lacked.sort_by_key(|lacked| lacked.start);
    Ok(lacked)
}

/// What an outcome is.
struct Shown {
    /// Where it is to be had from.
    from: RegionSet,
    /// If it is a snapshot.
    manifest: Option<Manifest>,
}

/// Reads an outcome in each of these regions, which list it; `None` where nobody can tell, for now, what is to be brought.
fn look(repo: &Repo, at: RegionSet, key: &Key) -> Option<Shown> {
    // A tombstone beside a manifest hides nothing: the manifest is what is brought.
    let (mut manifest, mut showing, mut ended, mut unread) = (None, RegionSet::NONE, false, false);
    for ix in at.iter() {
        match repo.read_object(RegionSet::of([ix]), key) {
            Ok(opened) if opened.kind == ObjectKind::Manifest => {
                showing = showing.with(ix);
                manifest.get_or_insert(opened);
            }
            Ok(_) => ended = true,
            Err(_) => unread = true,
        }
    }
    match manifest {
        Some(opened) => Some(Shown { from: showing, manifest: Some(opened.decode("manifest").ok()?) }),
        // What could not be read just now may be the snapshot: an end is for ever, and waits.
        None => (ended && !unread).then_some(Shown { from: at, manifest: None }),
    }
}

/// Of these outcomes, those of snapshots with a marker that verifies.
fn forgotten(repo: &Repo, outcomes: &[Job]) -> BTreeSet<Key> {
    let asked: BTreeSet<Key> = outcomes.iter().map(|job| job.key).collect();
    let snapshot_of = |(key, at)| match key {
        Key::Forgotten(sid) if asked.contains(&Key::Snapshot(sid)) => {
            let read = |bytes: &[u8]| view::open_marker(repo, &key, sid, bytes);
            let marked = repo.regions.read(at, &key, crate::repo::SMALL_OBJECT_BYTES_MAX, read).is_ok();
            marked.then_some(Key::Snapshot(sid))
        }
        _ => None,
    };
    repo.regions.listed(repo.usable(), Prefix::Forgotten).into_iter().filter_map(snapshot_of).collect()
}
