//! What regions lack, by listings: packs that index segments name, the segments themselves, and small objects.

use super::copier::{Copier, Job, Stands};
use crate::base::{PackName, SegmentName};
use crate::error::Result;
use crate::format::index::PackLine;
use crate::region::{Lists, RegionSet};
use crate::repo::epochs::Epochs;
use crate::repo::index::{self, Index, open_segment};
use crate::repo::{Repo, SMALL_OBJECT_BYTES_MAX, keys};
use crate::store::{Key, Prefix};
use std::collections::{BTreeMap, HashMap, HashSet};

/// How far it is looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// A region that lists a segment is taken to have its packs: it was said so when the segment was made.
    Segments,
    /// Every pack that any segment names is looked for in every region.
    Packs,
}

/// A pack that segments name.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shelf {
    pub(super) size: u64,
    /// Regions that list it with that size.
    pub(super) has: RegionSet,
    /// Regions that are to have it.
    pub(super) want: RegionSet,
}

/// A segment that regions lack.
pub(super) struct Lacked {
    pub(super) name: SegmentName,
    pub(super) size: u64,
    pub(super) at: RegionSet,
    pub(super) missing: RegionSet,
    packs: Vec<PackName>,
    /// It waits: an epoch that is not decided condemns one of its packs, or no region can show what it says.
    held: bool,
}

impl Lacked {
    /// Whether no region could show what it says.
    pub(super) fn is_unreadable(&self) -> bool {
        self.packs.is_empty()
    }
}

/// Packs and segments.
pub(super) struct Stored {
    pub(super) packs: BTreeMap<PackName, Shelf>,
    pub(super) segments: Vec<Lacked>,
    doomed: HashSet<PackName>,
    /// Condemned by an epoch that is not decided.
    undecided: HashSet<PackName>,
    depth: Depth,
}

impl Stored {
    /// Looks at what is listed.
    pub(super) fn look(copier: &Copier<'_>, epochs: &Epochs, targets: RegionSet, depth: Depth) -> Stored {
        let repo = copier.repo;
        let (doomed, undecided) = (epochs.doomed(), epochs.undecided());
        let mut stored = Stored { packs: BTreeMap::new(), segments: Vec::new(), doomed, undecided, depth };
        let listing = index::listed(repo);
        let (mut lines, mut superseded) = Default::default();
        if let Depth::Packs = depth {
            let index = Index::load_listed(repo, &listing);
            superseded = index.superseded(&stored.doomed);
            lines = stored.shelve_all(index, targets);
        }
        for (name, holders) in listing {
            let at = holders.all().and(repo.usable());
            let over = superseded.get(&name).copied().unwrap_or_default();
            let missing = RegionSet::of(targets.iter().filter(|ix| !at.has(*ix) && !over.has(*ix)));
            // What only a region lists that is no member, no snapshot of the members needs.
            if missing.is_empty() || at.and(copier.sources).is_empty() {
                continue;
            }
            // If no region has this segment intact, that was recorded by the read.
            let lines = match depth {
                Depth::Segments => segment_packs(repo, name, at).unwrap_or_default(),
                Depth::Packs => lines.remove(&name).unwrap_or_default(),
            };
            // What it says beside what is dead, a prune puts in its place; or the thorough form finds that it is missed.
            if matches!(depth, Depth::Segments) && lines.iter().any(|line| stored.doomed.contains(&line.name)) {
                continue;
            }
            let held = lines.is_empty() || lines.iter().any(|pack| stored.undecided.contains(&pack.name));
            if !held {
                lines.iter().for_each(|line| stored.shelve(line, missing));
            }
            let packs = lines.iter().map(|line| line.name).collect();
            stored.segments.push(Lacked { name, size: holders.size(), at, missing, packs, held });
        }
        stored.place(repo);
        stored
    }

    /// Every pack of the index is wanted everywhere. Returns the packs of each segment that a target lacks.
    fn shelve_all(&mut self, index: Index, targets: RegionSet) -> HashMap<SegmentName, Vec<PackLine>> {
        let mut lacked: HashMap<SegmentName, Vec<PackLine>> = HashMap::new();
        for (segment, line, at) in index.lines() {
            if !self.undecided.contains(&line.name) {
                self.shelve(&line, at.and(targets));
            }
            if !at.covers(targets) {
                lacked.entry(segment).or_default().push(line);
            }
        }
        lacked
    }

    fn shelve(&mut self, line: &PackLine, want: RegionSet) {
        if self.doomed.contains(&line.name) {
            return;
        }
        let none = RegionSet::NONE;
        let shelf = self.packs.entry(line.name).or_insert(Shelf { size: line.size, has: none, want: none });
        shelf.want = shelf.want.or(want);
    }

    /// Which regions have them. A pack of another size than its segment says is no copy of it.
    fn place(&mut self, repo: &Repo) {
        if self.packs.is_empty() {
            return;
        }
        for ix in repo.usable() {
            let listed = match repo.regions.list(ix, Prefix::Packs) {
                Ok(listed) => listed,
                Err(e) => {
                    repo.regions.fail(ix, e);
                    continue;
                }
            };
            for line in listed {
                let Key::Pack(name) = line.key else { continue };
                if let Some(shelf) = self.packs.get_mut(&name).filter(|shelf| shelf.size == line.size) {
                    shelf.has = shelf.has.with(ix);
                }
            }
        }
    }

    /// Packs to be copied, in the order of [`Stored::packs_came`].
    pub(super) fn pack_jobs(&self) -> Vec<Job> {
        let job = |(name, shelf): (&PackName, &Shelf)| {
            let Shelf { size, has, want } = *shelf;
            (!has.covers(want)).then_some(Job { key: Key::Pack(*name), size, from: has, to: want })
        };
        self.packs.iter().filter_map(job).collect()
    }

    /// Where these packs stand now.
    pub(super) fn packs_came(&mut self, jobs: &[Job], now: &[Stands]) {
        for (job, now) in jobs.iter().zip(now) {
            if let Key::Pack(name) = &job.key
                && let Some(shelf) = self.packs.get_mut(name)
            {
                shelf.has = if now.spoiled { RegionSet::NONE } else { now.at };
            }
        }
    }

    /// Segments to be copied: each only where all its packs are.
    pub(super) fn segment_jobs(&self) -> Vec<Job> {
        let job = |lacked: &Lacked| {
            let ready = |all: RegionSet, pack| all.and(self.present(pack));
            let live = lacked.packs.iter().filter(|pack| !self.doomed.contains(pack));
            let to = if lacked.held { RegionSet::NONE } else { live.fold(lacked.missing, ready) };
            Job { key: Key::Index(lacked.name), size: lacked.size, from: lacked.at, to }
        };
        self.segments.iter().map(job).collect()
    }

    /// Regions that have a pack, as far as it was looked.
    pub(super) fn present(&self, pack: &PackName) -> RegionSet {
        match (self.packs.get(pack), self.depth) {
            _ if self.doomed.contains(pack) => RegionSet::NONE,
            (Some(shelf), _) => shelf.has,
            // It may go.
            (None, _) if self.undecided.contains(pack) => RegionSet::NONE,
            (None, Depth::Segments) => RegionSet::ALL,
            (None, Depth::Packs) => RegionSet::NONE,
        }
    }
}

fn segment_packs(repo: &Repo, name: SegmentName, at: RegionSet) -> Result<Vec<PackLine>> {
    let key = Key::Index(name);
    repo.regions
        .read(at, &key, SMALL_OBJECT_BYTES_MAX, |bytes| open_segment(repo, &key, bytes).map(|content| content.packs))
}

/// Small objects that one of `targets` lacks, and a region that is believed lists.
pub(super) fn small_jobs(copier: &Copier<'_>, lists: &Lists, targets: RegionSet) -> Vec<Job> {
    let repo = copier.repo;
    let mut found: BTreeMap<Key, (u64, RegionSet)> = BTreeMap::new();
    for (ix, lines) in lists {
        for line in lines {
            let (size, at) = found.entry(line.key).or_insert((line.size, RegionSet::NONE));
            (*size, *at) = (line.size.max(*size), at.with(*ix));
        }
    }
    // Slots that no configuration lists open nothing: removed ones, and those that a hostile store makes up.
    let listed = |key: &Key| match key {
        Key::Slot(id) => keys::is_listed(repo, *id),
        _ => true,
    };
    let job = |(key, (size, from)): (Key, (u64, RegionSet))| {
        let lacked = !from.covers(targets) && !from.and(copier.believed(&key)).is_empty() && listed(&key);
        lacked.then_some(Job { key, size, from, to: targets })
    };
    found.into_iter().filter_map(job).collect()
}
