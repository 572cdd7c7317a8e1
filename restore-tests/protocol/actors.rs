//! Who takes part, and where each of them is in what it does.

use super::sets::{REGIONS, Set};

/// Forgets one snapshot: looks for holds, then writes the marker in each region.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Forgetter {
    #[default]
    Off,
    Waits,
    Marks(Set),
    Done,
}

/// Holds one snapshot: makes the hold, then looks for the marker in every region.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Holder {
    #[default]
    Off,
    Makes(Set),
    Looks(Set),
    Done,
}

/// Merges the index of home.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Merger {
    #[default]
    Off,
    Lists,
    Publishes(Set),
    Drops(Set),
    Done,
}

/// Where a replication is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Copies {
    #[default]
    Off,
    Epochs,
    Markers,
    Outcomes,
    Stored,
    Packs,
    Segments,
    Plan,
    Show,
    Done,
}

/// Brings one region up from the other, once: as `ops::replicate` does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Replicator {
    pub at: Copies,
    pub to: u8,
    /// Packs on which no snapshot may rest.
    pub bad: Set,
    /// Packs that are brought nowhere. What is condemned and not decided comes along with what else its segment names.
    pub dead: Set,
    /// Snapshots to be shown.
    pub jobs: Set,
    /// Packs whose copies are wanted, and then their segments.
    pub want: Set,
    /// Packs that it knows to be there.
    pub there: Set,
}

/// Changes the members.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Change {
    #[default]
    Off,
    Start,
    Fill,
    Begin,
    Copy,
    List,
    End,
    Again,
    Decide,
    CopyEnd,
    Done,
    /// Somebody else changed something: it is to be run again.
    Refused,
}

/// Adds the second region, or removes it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Admin {
    pub at: Change,
    pub adds: bool,
    /// It is removed by a person's word that it will never answer again, and is asked for nothing.
    pub lost: bool,
    pub epoch: u8,
    pub sessions: Set,
    pub copies: Replicator,
}

/// Where a prune is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PruneAt {
    #[default]
    Off,
    Start,
    Help,
    Mark,
    Begin,
    Publish,
    CopyBegin,
    Sessions,
    End,
    Gather,
    Markers,
    ReadMarkers,
    ReadHolds,
    Look,
    Decide,
    CopyEnd,
    Drop,
    Done,
    /// A live chunk does not resolve, or a change of regions was begun, which is finished by those who change regions.
    Stopped,
}

/// What a prune knows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prune {
    pub at: PruneAt,
    pub epoch: u8,
    pub todo: Set,
    pub list: Set,
    pub roots: Set,
    pub gone: Set,
    pub held: Set,
    pub sessions: Set,
    /// What each region showed of the roots by which its own list was made: what these need is known.
    pub known: [Set; REGIONS],
    /// What each region shows when it is marked again.
    pub shown: [Set; REGIONS],
    /// Packs that are named and there in every region looked at, and in any.
    pub everywhere: Set,
    pub anywhere: Set,
    /// What it dooms although another decided.
    pub own: Set,
    /// The `Drop` steps that are done in the first region of `todo`.
    pub dropped: u8,
}

/// What a writer is to do.
#[derive(Debug, Clone, Copy, Default)]
pub struct Script {
    /// Ids of its sessions, in this order.
    pub sids: &'static [usize],
    /// Packs that it may store, in this order.
    pub packs: &'static [usize],
    /// Chunks of its source.
    pub wants: Set,
    /// The snapshot whose files it takes over.
    pub parent: Option<usize>,
    /// Regions that it can reach.
    pub reach: Set,
    /// Whether its configuration names the second region first: then that decides.
    pub second_first: bool,
    /// The pack whose live chunks (`wants`) are stored once more.
    pub repacks: Option<usize>,
}

/// Where a writer is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum WriterAt {
    #[default]
    Off,
    Read,
    Announce,
    ReadAgain,
    GiveUp,
    Parent,
    Index,
    Upload,
    Name,
    Commit,
    Spread,
    Confirm,
    Clear,
    /// Its snapshot is made.
    Done,
    /// It found nothing to do, or its scope gives it no further session.
    Over,
}

/// What a writer knows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Writer {
    pub at: WriterAt,
    /// Regions that the current step still has to ask.
    pub todo: Set,
    /// Which of its ids it uses.
    pub turn: u8,
    /// How many packs it has stored.
    pub stored: u8,
    pub used: Set,
    pub failed: Set,
    pub seen: [u8; REGIONS],
    pub begun: Set,
    pub ended: Set,
    /// What the undecided epoch's list said when it was read: it never changes unless a rule is missing.
    pub condemned: Set,
    pub moved: bool,
    /// Whether it goes on with finished work under a new id.
    pub goes_on: bool,
    pub whole: bool,
    pub index: Set,
    pub packs: Set,
    pub complete: Set,
}
