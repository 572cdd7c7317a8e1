//! Brings up regions that are behind: what a region lacks is copied from one that has it, what is needed
//! before what needs it. Copies are verified before they are written; a bad copy is recorded and passed over.

use crate::base::{Cancel, PackName, SegmentName, SessionId};
use crate::error::Result;
use crate::format::envelope::OBJECT_BYTES_MAX;
use crate::format::{pack, signed};
use crate::region::RegionSet;
use crate::repo::index::{self, open_segment};
use crate::repo::{Repo, SMALL_OBJECT_BYTES_MAX};
use crate::store::{Key, Prefix, Put};
use std::collections::{BTreeMap, BTreeSet};

/// What was copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CaughtUp {
    /// Objects.
    pub objects: u64,
    /// Bytes.
    pub bytes: u64,
    /// Snapshots that became visible in a further region.
    pub snapshots: u64,
}

/// Which regions have what.
type Holders = BTreeMap<Key, RegionSet>;

fn holders(repo: &Repo, prefix: Prefix) -> Holders {
    let mut found: BTreeMap<Key, Vec<usize>> = BTreeMap::new();
    for ix in repo.usable().iter() {
        match repo.regions.list(ix, prefix) {
            Ok(listed) => listed.into_iter().for_each(|l| found.entry(l.key).or_default().push(ix)),
            Err(e) => repo.regions.fail(ix, e),
        }
    }
    found.into_iter().map(|(key, at)| (key, RegionSet::of(at))).collect()
}

/// Brings every reachable region up to the union of all.
///
/// # Errors
/// Interrupted. A region that fails is marked as such; an object that no region has intact is recorded.
pub fn run(repo: &Repo, cancel: &Cancel) -> Result<CaughtUp> {
    let mut done = CaughtUp::default();
    for ix in repo.usable() {
        if let Err(e) = repo.regions.sweep(ix) {
            repo.regions.fail(ix, e);
        }
    }
    for prefix in [Prefix::Keys, Prefix::Config, Prefix::Epochs, Prefix::Forgotten, Prefix::Holds] {
        for (key, at) in holders(repo, prefix) {
            cancel.check()?;
            copy(repo, &key, at, &mut done);
        }
    }
    let incomplete = segments(repo, cancel, &mut done)?;
    outcomes(repo, cancel, incomplete, &mut done)?;
    Ok(done)
}

/// Packs, then the segment that names them. Returns the regions in which something is still missing.
fn segments(repo: &Repo, cancel: &Cancel, done: &mut CaughtUp) -> Result<BTreeSet<usize>> {
    let mut packs: Option<Holders> = None;
    let mut incomplete = BTreeSet::new();
    for (name, at) in index::listed(repo) {
        let missing: Vec<usize> = repo.usable().iter().filter(|ix| !at.has(*ix)).collect();
        if missing.is_empty() {
            continue;
        }
        let packs = packs.get_or_insert_with(|| holders(repo, Prefix::Packs));
        let names = match segment_packs(repo, name, at) {
            Ok(names) => names,
            // Recorded by the read: no region has this segment intact.
            Err(_) => continue,
        };
        let mut complete = true;
        for pack in names {
            cancel.check()?;
            let key = Key::Pack(pack);
            let has = packs.get(&key).copied().unwrap_or(RegionSet::NONE);
            let now = copy(repo, &key, has, done);
            complete &= now.covers(repo.usable());
            packs.insert(key, now);
        }
        if complete {
            copy(repo, &Key::Index(name), at, done);
        } else {
            incomplete.extend(missing);
        }
    }
    Ok(incomplete)
}

fn segment_packs(repo: &Repo, name: SegmentName, at: RegionSet) -> Result<Vec<PackName>> {
    let key = Key::Index(name);
    let bad = repo.epochs().bad_packs()?;
    repo.regions.read(at, &key, SMALL_OBJECT_BYTES_MAX, |bytes| {
        let lines = open_segment(repo, &key, bytes)?.pack_lines()?;
        Ok(lines.into_iter().map(|line| line.name).filter(|name| !bad.contains(name)).collect())
    })
}

/// Outcomes come last, and only where everything else is complete; what was forgotten is not brought back.
fn outcomes(repo: &Repo, cancel: &Cancel, incomplete: BTreeSet<usize>, done: &mut CaughtUp) -> Result<()> {
    let forgotten: BTreeSet<SessionId> = holders(repo, Prefix::Forgotten)
        .into_keys()
        .filter_map(|key| match key {
            Key::Forgotten(sid) => Some(sid),
            _ => None,
        })
        .filter(|sid| repo.read_object(repo.usable(), &Key::Forgotten(*sid)).is_ok())
        .collect();
    for (key, at) in holders(repo, Prefix::Snapshots) {
        cancel.check()?;
        let Key::Snapshot(sid) = key else { continue };
        let open = repo.usable().iter().any(|ix| !at.has(ix) && !incomplete.contains(&ix));
        if open && !forgotten.contains(&sid) {
            let targets = RegionSet::of(repo.usable().iter().filter(|ix| !incomplete.contains(ix)));
            if copy_to(repo, &key, at, targets, done).count() > at.count() {
                done.snapshots += 1;
            }
        }
    }
    Ok(())
}

fn copy(repo: &Repo, key: &Key, at: RegionSet, done: &mut CaughtUp) -> RegionSet {
    copy_to(repo, key, at, repo.usable(), done)
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
            | Key::HoldRelease(_) => {
                repo.open_object(key, &bytes)?;
            }
            Key::Region | Key::Slot(_) | Key::Config(..) | Key::Session(_) => {
                signed::check_sum(&bytes)?;
            }
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
