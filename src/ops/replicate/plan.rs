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
            // What is condemned and not decided may go, and is brought only together with something else.
            let may_go = lines.iter().all(|line| stored.undecided.contains(&line.name));
            let want = if may_go { RegionSet::NONE } else { missing };
            lines.iter().for_each(|line| stored.shelve(line, want));
            let packs = lines.iter().map(|line| line.name).collect();
            stored.segments.push(Lacked { name, size: holders.size(), at, missing, packs });
        }
        stored.place(repo);
        stored
    }

    /// Every pack of the index is wanted everywhere. Returns the packs of each segment that a target lacks.
    fn shelve_all(&mut self, index: Index, targets: RegionSet) -> HashMap<SegmentName, Vec<PackLine>> {
        let mut lacked: HashMap<SegmentName, Vec<PackLine>> = HashMap::new();
        for (segment, line, at) in index.lines() {
            let may_go = self.undecided.contains(&line.name);
            self.shelve(&line, if may_go { RegionSet::NONE } else { at.and(targets) });
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
            // What is condemned may have gone since the epochs were read.
            let gone = has.is_empty() && self.undecided.contains(name);
            (!has.covers(want) && !gone).then_some(Job { key: Key::Pack(*name), size, from: has, to: want })
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

    /// Segments to be copied: each only where all its packs are. One that names a condemned pack beside others, which comes
    /// with it, must not wait for the decision. That may wait for it: a prune ends no epoch while a snapshot's chunk cannot be
    /// found in a region that shows it. Should that pack be spared in the end, it is there.
    pub(super) fn segment_jobs(&self) -> Vec<Job> {
        let job = |lacked: &Lacked| {
            let ready = |all: RegionSet, pack| all.and(self.listed(pack));
            let live = lacked.packs.iter().filter(|pack| !self.doomed.contains(pack));
            let to = if lacked.is_unreadable() { RegionSet::NONE } else { live.fold(lacked.missing, ready) };
            Job { key: Key::Index(lacked.name), size: lacked.size, from: lacked.at, to }
        };
        self.segments.iter().map(job).collect()
    }

    /// Whether something that is lacked has to do with what an epoch condemns that is not decided.
    pub(super) fn waits(&self) -> bool {
        self.segments.iter().flat_map(|lacked| &lacked.packs).any(|pack| self.undecided.contains(pack))
    }

    /// Regions that have a pack on which a snapshot may rest, as far as it was looked.
    pub(super) fn present(&self, pack: &PackName) -> RegionSet {
        // What is condemned may go.
        let bad = self.doomed.contains(pack) || self.undecided.contains(pack);
        if bad { RegionSet::NONE } else { self.listed(pack) }
    }

    fn listed(&self, pack: &PackName) -> RegionSet {
        match (self.packs.get(pack), self.depth) {
            (Some(shelf), _) => shelf.has,
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
