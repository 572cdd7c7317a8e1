//! Brings up regions that are behind: what a region lacks is copied from one that has it, what is needed
//! before what needs it. Copies are verified before they are written; a bad copy is recorded and passed over.

use super::complete::{self, Known};
use crate::base::{Cancel, SegmentName, SessionId};
use crate::error::Result;
use crate::format::envelope::{Kind as ObjectKind, OBJECT_BYTES_MAX};
use crate::format::index::PackLine;
use crate::format::snapshot::Manifest;
use crate::format::{FormatError, pack, signed};
use crate::region::{self, RegionSet};
use crate::repo::epochs::{Epochs, Lag};
use crate::repo::index::{self, Index, open_segment};
use crate::repo::reader::Reader;
use crate::repo::{Repo, SMALL_OBJECT_BYTES_MAX};
use crate::store::{Key, Prefix, Put};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What was copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CaughtUp {
    /// Objects.
    pub objects: u64,
    /// Bytes.
    pub bytes: u64,
    /// Snapshots that became visible in a further region.
    pub snapshots: u64,
    /// Regions that may be written and still lack a snapshot that another one shows.
    pub lacking: RegionSet,
}

/// Which regions have what.
type Holders = BTreeMap<Key, RegionSet>;

fn holders(repo: &Repo, prefix: Prefix) -> Holders {
    repo.regions.listed(repo.usable(), prefix)
}

/// Which regions list what, told apart by the size.
fn holders_by_size(repo: &Repo, prefix: Prefix) -> BTreeMap<(Key, u64), RegionSet> {
    let mut found: BTreeMap<(Key, u64), RegionSet> = BTreeMap::new();
    for (ix, listed) in repo.regions.list_all(repo.usable(), prefix) {
        for line in listed {
            let at = found.entry((line.key, line.size)).or_default();
            *at = at.with(ix);
        }
    }
    found
}

/// Brings every region that may be written up to the union of all.
///
/// # Errors
/// Interrupted. A region that fails is marked as such; an object that no region has intact is recorded.
pub fn run(repo: &Arc<Repo>, cancel: &Cancel) -> Result<CaughtUp> {
    let mut done = CaughtUp::default();
    for ix in repo.usable() {
        if let Err(e) = repo.regions.sweep(ix) {
            repo.regions.fail(ix, e);
        }
    }
    let epochs = epochs(repo, &mut done);
    for prefix in [Prefix::Keys, Prefix::Config, Prefix::Forgotten, Prefix::Holds] {
        for (key, at) in holders(repo, prefix) {
            cancel.check()?;
            copy(repo, &key, at, &mut done);
        }
    }
    // Outcomes are listed before segments: a snapshot that another writer makes meanwhile may need segments that
    // were not seen, and is left to the next run.
    let snapshots = holders(repo, Prefix::Snapshots);
    let incomplete = segments(repo, &epochs, cancel, &mut done)?;
    outcomes(repo, snapshots, cancel, incomplete, &mut done)?;
    Ok(done)
}

/// Brings every region the records of runs that another has. Apart, because nothing waits for them.
///
/// # Errors
/// Interrupted.
pub fn records(repo: &Repo, cancel: &Cancel) -> Result<CaughtUp> {
    let mut done = CaughtUp::default();
    for (key, at) in holders(repo, Prefix::Runs) {
        cancel.check()?;
        copy(repo, &key, at, &mut done);
    }
    Ok(done)
}

/// Epochs first: they say which regions may be written. A damaged or squatted copy is passed over: the good
/// one goes to the next suffix.
fn epochs(repo: &Repo, done: &mut CaughtUp) -> Epochs {
    let before = repo.epochs_since(repo.epochs());
    for Lag { from, to, key } in before.lag(repo.usable()) {
        let fetched = repo.regions.get(from, &key, SMALL_OBJECT_BYTES_MAX);
        let Ok(bytes) = fetched.and_then(|b| repo.open_object(&key, &b).map(|_| b).map_err(region::lift)) else {
            continue;
        };
        match region::put_numbered(&repo.regions, to, key, &bytes) {
            Ok(Put::Created) => {
                done.objects += 1;
                done.bytes += bytes.len() as u64;
            }
            Ok(_) => {}
            Err(e) => repo.regions.fail(to, e),
        }
    }
    repo.epochs_since(&before)
}

/// Packs, then the segment that names them. Returns the regions in which something is still missing.
fn segments(repo: &Repo, epochs: &Epochs, cancel: &Cancel, done: &mut CaughtUp) -> Result<RegionSet> {
    // A pack of another size than its segment says is no copy of it.
    let mut packs: Option<BTreeMap<(Key, u64), RegionSet>> = None;
    let mut incomplete = RegionSet::NONE;
    let (doomed, undecided) = (epochs.doomed(), epochs.undecided());
    for (name, holders) in index::listed(repo) {
        let at = holders.all();
        let missing = RegionSet::of(repo.writable().iter().filter(|ix| !at.has(*ix)));
        if missing.is_empty() {
            continue;
        }
        let packs = packs.get_or_insert_with(|| holders_by_size(repo, Prefix::Packs));
        // If no region has this segment intact, that was recorded by the read.
        let lines = segment_packs(repo, name, at).unwrap_or_default();
        let mut complete = missing;
        if lines.is_empty() || lines.iter().any(|pack| undecided.contains(&pack.name)) {
            complete = RegionSet::NONE;
        }
        for pack in lines.iter().filter(|pack| !doomed.contains(&pack.name)) {
            cancel.check()?;
            let key = Key::Pack(pack.name);
            let has = packs.get(&(key, pack.size)).copied().unwrap_or(RegionSet::NONE);
            let now = copy_to(repo, &key, has, complete, done);
            complete = complete.and(now);
            packs.insert((key, pack.size), now);
        }
        let now = copy_to(repo, &Key::Index(name), at, complete, done);
        incomplete = incomplete.or(RegionSet::of(missing.iter().filter(|ix| !now.has(*ix))));
    }
    Ok(incomplete)
}

fn segment_packs(repo: &Repo, name: SegmentName, at: RegionSet) -> Result<Vec<PackLine>> {
    let key = Key::Index(name);
    repo.regions
        .read(at, &key, SMALL_OBJECT_BYTES_MAX, |bytes| open_segment(repo, &key, bytes).map(|content| content.packs))
}

/// Outcomes come last, and only where everything else is complete; what was forgotten is not brought back.
fn outcomes(
    repo: &Arc<Repo>,
    snapshots: Holders,
    cancel: &Cancel,
    incomplete: RegionSet,
    done: &mut CaughtUp,
) -> Result<()> {
    let mut forgotten: Option<BTreeSet<SessionId>> = None;
    let (mut reader, mut known) = (None, Known::default());
    for (key, at) in snapshots {
        cancel.check()?;
        let Key::Snapshot(sid) = key else { continue };
        // A region that failed since vouches for nothing: its segments may not have been seen.
        let at = at.and(repo.usable());
        let missing = RegionSet::of(repo.writable().iter().filter(|ix| !at.has(*ix)));
        let wanted = !at.is_empty() && !missing.is_empty();
        if !wanted || forgotten.get_or_insert_with(|| all_forgotten(repo)).contains(&sid) {
            continue;
        }
        // A tombstone beside a manifest hides nothing: the manifest is what is brought.
        let manifest_in = |ix: &usize| {
            repo.read_object(RegionSet::of([*ix]), &key).is_ok_and(|opened| opened.kind == ObjectKind::Manifest)
        };
        let showing = RegionSet::of(at.iter().filter(manifest_in));
        let at = if showing.is_empty() { at } else { showing };
        let Ok(opened) = repo.read_object(at, &key) else { continue };
        let shows = opened.kind == ObjectKind::Manifest;
        let mut targets = RegionSet::of(missing.iter().filter(|ix| !incomplete.has(*ix)));
        if shows && !targets.is_empty() {
            let Ok(manifest) = opened.decode::<Manifest>("manifest") else { continue };
            if reader.is_none() {
                reader = Some(Reader::new(Arc::clone(repo), Arc::new(Index::load(repo)?)));
            }
            // A region may have lost a part of its index, and lists the rest without an error.
            if let Some(reader) = &reader {
                targets = complete::regions(reader, &mut known, &manifest.root, targets, cancel)?;
            }
        }
        let now = copy_to(repo, &key, at, targets, done);
        if shows {
            done.snapshots += u64::from(now.count() > at.count());
            done.lacking = done.lacking.or(RegionSet::of(missing.iter().filter(|ix| !now.has(*ix))));
        }
    }
    Ok(())
}

/// Snapshots with a marker that verifies.
fn all_forgotten(repo: &Repo) -> BTreeSet<SessionId> {
    let sid_of = |(key, at)| match key {
        Key::Forgotten(sid) => repo.read_object(at, &key).is_ok().then_some(sid),
        _ => None,
    };
    holders(repo, Prefix::Forgotten).into_iter().filter_map(sid_of).collect()
}

fn copy(repo: &Repo, key: &Key, at: RegionSet, done: &mut CaughtUp) -> RegionSet {
    copy_to(repo, key, at, repo.writable(), done)
}

/// Copies one object to those of `targets` that lack it; returns who has it now.
fn copy_to(repo: &Repo, key: &Key, at: RegionSet, targets: RegionSet, done: &mut CaughtUp) -> RegionSet {
    let missing: Vec<usize> = targets.iter().filter(|ix| !at.has(*ix)).collect();
    if missing.is_empty() {
        return at;
    }
    let fetch = |ix| repo.regions.get(ix, key, OBJECT_BYTES_MAX as u64);
    let bytes = repo.regions.read_among(at, key, fetch, |bytes| {
        match key {
            Key::Pack(name) => pack::check_name(name, &bytes)?,
            Key::Index(_)
            | Key::Snapshot(_)
            | Key::Forgotten(_)
            | Key::EpochBegin(..)
            | Key::EpochEnd(..)
            | Key::Hold(_)
            | Key::HoldRelease(_)
            | Key::Run(_) => {
                repo.open_object(key, &bytes)?;
            }
            Key::Region | Key::Slot(_) | Key::Config(..) | Key::Session(_) => {
                signed::check_sum(&bytes)?;
            }
            // No part of any copy.
            Key::Quarantine(_) | Key::QuarantineRecord(_) => return Err(FormatError::Unsigned("set aside")),
        }
        Ok(bytes)
    });
    let Ok(bytes) = bytes else { return at };
    let mut has: Vec<usize> = at.iter().collect();
    for ix in missing {
        match repo.regions.put(ix, key, &bytes) {
            Ok(Put::Created | Put::Same) => {
                done.objects += 1;
                done.bytes += bytes.len() as u64;
                has.push(ix);
            }
            Ok(Put::Other) => {
                repo.regions.record(ix, &key.path(), "another object stands at this key");
            }
            Err(e) => repo.regions.fail(ix, e),
        }
    }
    RegionSet::of(has)
}
