//! What lies in the stores and what every actor knows: one state of the search, a few hundred bytes.

use super::actors::{Admin, Forgetter, Holder, Merger, Prune, Replicator, Script, Writer};
use super::rules::Rule;
use super::sets::{EPOCHS, HOME, PACKS, REGIONS, SESSIONS, Set, each, has, newest, one};

/// What one region holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Region {
    pub packs: Set,
    /// Packs that an index segment of their own names.
    pub segments: Set,
    /// Packs that merged segments name.
    pub merged: Set,
    pub sessions: Set,
    pub manifests: Set,
    pub tombstones: Set,
    /// Records of repacks.
    pub records: Set,
    /// Junk at the keys of outcomes.
    pub junk: Set,
    pub forgotten: Set,
    pub holds: Set,
    pub begins: Set,
    pub ends: Set,
    /// Junk at the first key of a beginning.
    pub squatted: Set,
    /// Junk at the keys of markers.
    pub unmarkable: Set,
    /// What was deleted here once: a late duplicate of its creation or of its deletion may still come.
    pub packs_deleted: Set,
    pub segments_deleted: Set,
    pub manifests_deleted: Set,
    pub sessions_deleted: Set,
}

impl Region {
    /// Packs that the index names.
    pub fn index(&self) -> Set {
        self.segments | self.merged
    }

    /// Makes markers, where there is room for them.
    pub fn mark(&mut self, snapshots: Set) {
        self.forgotten |= snapshots & !self.unmarkable;
    }

    /// Sessions at whose outcome something stands.
    pub fn outcomes(&self) -> Set {
        self.manifests | self.tombstones | self.records | self.junk
    }

    /// The newest epoch of a series without gaps.
    pub fn newest(&self) -> usize {
        newest(self.begins)
    }
}

/// What an epoch's beginning and end say, as they were created at home.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Epoch {
    pub condemned: Set,
    pub roots: Set,
    pub members: Set,
    pub doomed: Set,
}

/// What a session's objects say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Session {
    /// Chunks of its snapshot.
    pub needs: Set,
    /// The newest epoch that its writer had read.
    pub epoch: u8,
    /// The region whose first creation decides.
    pub decision: u8,
}

/// Faults that may still happen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Faults {
    /// A creation or deletion that comes once more, or only after its sender gave it up.
    pub late: u8,
    /// Junk that somebody puts at a key.
    pub junk: u8,
    /// An upload that a region does not take.
    pub refused: u8,
    /// An index segment that a store loses.
    pub lost: u8,
    /// A listing that leaves sessions out.
    pub short: u8,
}

/// One state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct State {
    pub regions: [Region; REGIONS],
    pub epochs: [Epoch; EPOCHS],
    pub sessions: [Session; SESSIONS],
    /// Chunks of each pack.
    pub contents: [Set; PACKS],
    /// Creations of manifests that were given up and may still come.
    pub pending: [Set; REGIONS],
    /// Snapshots with a hold whose maker was told that it holds.
    pub held: Set,
    /// Sessions that had a tombstone, and those that had a manifest, where they decide.
    pub was_ended: Set,
    pub was_committed: Set,
    pub faults: Faults,
    pub writers: [Writer; 2],
    pub prunes: [Prune; 2],
    pub replicator: Replicator,
    pub forgetters: [Forgetter; 2],
    pub holder: Holder,
    pub merger: Merger,
    pub admin: Admin,
}

impl State {
    /// Packs that ended epochs have doomed.
    pub fn doomed(&self, ended: Set) -> Set {
        each(ended).fold(0, |all, n| all | self.epochs[n].doomed)
    }

    /// Chunks in these packs.
    pub fn chunks(&self, packs: Set) -> Set {
        each(packs).fold(0, |all, pack| all | self.contents[pack])
    }

    /// Those of these packs that have a chunk.
    pub fn with_chunk(&self, packs: Set, chunk: usize) -> Set {
        each(packs).filter(|pack| has(self.contents[*pack], chunk)).fold(0, |all, pack| all | one(pack))
    }

    /// Chunks that these snapshots need.
    pub fn needs(&self, snapshots: Set) -> Set {
        each(snapshots).fold(0, |all, sid| all | self.sessions[sid].needs)
    }

    /// Members by the newest epoch at home.
    pub fn members(&self) -> Set {
        self.epochs[self.regions[HOME].newest()].members
    }

    /// The union of something over regions.
    pub fn any(&self, among: Set, of: impl Fn(&Region) -> Set) -> Set {
        each(among).fold(0, |all, r| all | of(&self.regions[r]))
    }

    /// The intersection of something over regions.
    pub fn all(&self, among: Set, of: impl Fn(&Region) -> Set) -> Set {
        each(among).fold(Set::MAX, |all, r| all & of(&self.regions[r]))
    }
}

/// What is searched: where it begins, who takes part, and which rule is missing.
#[derive(Debug, Clone)]
pub struct Scope {
    pub name: &'static str,
    pub start: State,
    /// All regions, members or not.
    pub regions: Set,
    pub scripts: [Script; 2],
    /// Snapshots that are forgotten.
    pub forget: [Option<usize>; 2],
    /// The snapshot that is held.
    pub hold: usize,
    /// Writers have an index of some time before, brought forward by the lists alone.
    pub stale_index: bool,
    /// A store may lose index segments: then packs alone are asked for.
    pub lossy: bool,
    /// Whether every state is also left to one survivor.
    pub alone: bool,
    pub without: Option<Rule>,
}

impl Scope {
    /// Whether a rule is kept.
    pub fn keeps(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }
}

/// What happened in one step.
#[derive(Debug, Clone, Copy)]
pub struct Label {
    pub who: &'static str,
    pub number: usize,
    pub what: &'static str,
    /// A pack, a session or an epoch.
    pub object: Option<(char, usize)>,
    pub region: Option<usize>,
}

impl std::fmt::Display for Label {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}: {}", self.who, self.number + 1, self.what)?;
        match self.object {
            // The first of none.
            Some((_, 8)) => write!(f, " none")?,
            Some((kind, n)) => write!(f, " {kind}{n}")?,
            None => {}
        }
        match self.region {
            Some(r) => write!(f, " in region {}", ['A', 'B'][r]),
            None => Ok(()),
        }
    }
}

/// Where the next states are gathered.
pub type Next = Vec<(Label, State)>;
