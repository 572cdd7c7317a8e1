//! Packs of trees that this machine has, in memory and beside its local index: the pages of a tree are small and many, and
//! from a bucket each would be a request. A small pack is fetched whole when anything of it is asked for, a larger one when
//! it was asked for some times. Where a region is a folder nothing is kept: it is as near as any cache.

use super::Repo;
use crate::base::PackName;
use crate::format::index::PackLine;
use crate::region::lock;
use bytes::Bytes;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Mutex;

/// Packs up to this are fetched at once,
const SMALL_BYTES: u64 = 4 << 20;
/// others once so many of their records were asked for,
const ASKED_MIN: u32 = 4;
/// and none that is larger than this.
const LARGE_BYTES: u64 = 32 << 20;
/// So many bytes of them are held in memory, where there is no place to keep them.
const HELD_BYTES_MAX: usize = 32 << 20;

#[derive(Debug, Default)]
struct Held {
    /// Packs in memory, the last one used last.
    packs: Vec<(PackName, Bytes)>,
    asked: HashMap<PackName, u32>,
    /// Those that no region has whole.
    nowhere: HashSet<PackName>,
}

/// Packs of trees near at hand.
#[derive(Debug, Default)]
pub(super) struct TreePacks(Mutex<Held>);

/// Whether no region is as near as what is kept here.
fn is_far(repo: &Repo) -> bool {
    repo.usable().iter().all(|ix| repo.regions.region(ix).bucket)
}

/// Keeps a pack that is stored just now, if it may be asked for.
pub(super) fn keep(repo: &Repo, name: &PackName, bytes: &[u8]) {
    if let Some(cache) = repo.index_cache().filter(|_| bytes.len() as u64 <= LARGE_BYTES && is_far(repo)) {
        cache.keep_pack(name, bytes);
    }
}

impl TreePacks {
    /// Parts of a pack, if it is here or comes here by `fetch`, which has checked what it gives against the name. Others that
    /// ask meanwhile wait: they mostly want the same pack.
    pub(super) fn parts<const N: usize>(
        &self,
        repo: &Repo,
        pack: &PackLine,
        ranges: [Range<u64>; N],
        fetch: impl FnOnce() -> Option<Bytes>,
    ) -> Option<[Bytes; N]> {
        if !pack.tree || pack.size > LARGE_BYTES || !is_far(repo) {
            return None;
        }
        let mut held = lock(&self.0);
        if let Some(at) = held.packs.iter().position(|(name, _)| *name == pack.name) {
            let found = held.packs.remove(at);
            let bytes = found.1.clone();
            held.packs.push(found);
            return cut(&bytes, ranges);
        }
        if let Some(cache) = repo.index_cache().filter(|cache| cache.has_pack(&pack.name)) {
            let parts: Option<Vec<Bytes>> =
                ranges.iter().map(|range| cache.pack_part(&pack.name, range).map(Bytes::from)).collect();
            if let Some(parts) = parts.and_then(|parts| <[Bytes; N]>::try_from(parts).ok()) {
                return Some(parts);
            }
        }
        if held.nowhere.contains(&pack.name) {
            return None;
        }
        let asked = held.asked.entry(pack.name).or_default();
        *asked = asked.saturating_add(1);
        if pack.size > SMALL_BYTES && *asked < ASKED_MIN {
            return None;
        }
        let Some(bytes) = fetch() else {
            held.nowhere.insert(pack.name);
            return None;
        };
        keep(repo, &pack.name, &bytes);
        let parts = cut(&bytes, ranges);
        held.take(pack.name, bytes);
        parts
    }

    /// Drops a pack that is not what it should be.
    pub(super) fn forget(&self, repo: &Repo, name: &PackName) {
        let mut held = lock(&self.0);
        held.packs.retain(|(known, _)| known != name);
        // Not again: it would be asked for and dropped at every page.
        held.nowhere.insert(*name);
        if let Some(cache) = repo.index_cache() {
            cache.drop_pack(name);
        }
    }
}

impl Held {
    fn take(&mut self, name: PackName, bytes: Bytes) {
        self.packs.push((name, bytes));
        let mut sum: usize = self.packs.iter().map(|(_, bytes)| bytes.len()).sum();
        while sum > HELD_BYTES_MAX && self.packs.len() > 1 {
            sum -= self.packs.remove(0).1.len();
        }
    }
}

fn cut<const N: usize>(bytes: &Bytes, ranges: [Range<u64>; N]) -> Option<[Bytes; N]> {
    let part = |range: &Range<u64>| {
        let range = usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?;
        (range.start <= range.end && range.end <= bytes.len()).then(|| bytes.slice(range))
    };
    let parts: Option<Vec<Bytes>> = ranges.iter().map(part).collect();
    parts.and_then(|parts| parts.try_into().ok())
}
