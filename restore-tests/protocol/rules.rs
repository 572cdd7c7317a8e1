//! The rules of the protocol, each of which can be taken away.

/// The rules, each with what is done where it is missing, and the list of all of them.
macro_rules! rules {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// A rule, and what is done where it is missing.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Rule {
            $($(#[$doc])* $name,)*
        }

        /// All of them.
        pub const ALL: &[Rule] = &[$(Rule::$name),*];
    };
}

rules! {
    /// Without: the epoch begins first, and its list is published later.
    ListIsEpoch,
    /// Without: a writer does not read the epoch again after its announcement.
    SecondReading,
    /// Without: a second prune puts its own list in the place of one that is not decided.
    AdoptBegin,
    /// Without: a prune that was late with its decision deletes by its own.
    AdoptEnd,
    /// Without: a parent is taken over whole although an undecided epoch does not name it.
    ParentNamed,
    /// Without: whether the parent is visible is asked before the announcement.
    ParentNow,
    /// Without: all that was condemned is doomed.
    MarkAgain,
    /// Without: a doomed pack that still lies there counts as a copy.
    DoomedGone,
    /// Without: writers re-use doomed packs while the index names them.
    DoomedBad,
    /// Without: writers re-use what an undecided epoch condemns.
    CondemnedBad,
    /// Without: tombstones are cleared away with their sessions.
    TombstonesStay,
    /// Without: markers are cleared away with their manifests.
    MarkersStay,
    /// Without: a prune that finds nothing to condemn removes nothing of what was doomed before.
    DropsAgain,
    /// Without: a root is gone when one region has its marker.
    MarkersEverywhere,
    /// Without: the copy that is kept needs to be in some region only.
    KeptEverywhere,
    /// Without: junk at the key of a copied beginning passes for the copy.
    CopyPassesJunk,
    /// Without: a prune goes on although a live chunk does not resolve.
    StopUnresolved,
    /// Without: a region is added by no epoch of its own.
    MembersByEpoch,
    /// Without: what a listing left out does not exist.
    ListsComplete,
    /// Without: sessions are listed before the beginning is copied to every region.
    CopyFirst,
    /// Without: a prune goes on although a member does not answer.
    EveryMember,
    /// Without: sessions that have not ended are left alone.
    SessionsEnded,
    /// Without: a session object is cleared away before its session has an outcome.
    SessionsStay,
    /// Without: a session object is cleared away once its outcome stands where it was decided.
    OverEverywhere,
    /// Without: the outcome is written over what stands there.
    CreateOnce,
    /// Without: a writer takes what stands at its outcome for its own.
    AnswerRead,
    /// Without: an end that is met in another region than the deciding one is passed over.
    EndMetFences,
    /// Without: a writer that was fenced goes on under the same id.
    NewIdAfterFence,
    /// Without: the snapshot is made before its index segment.
    StoredFirst,
    /// Without: a snapshot is made also in regions that are not complete.
    CompleteOnly,
    /// Without: a chunk is re-used if one of the regions used has it.
    ReuseEverywhere,
    /// Without: a session that goes on under a new id does not look at its packs again.
    RefreshAsksAgain,
    /// Without: only snapshots that home shows are roots.
    RootsEverywhere,
    /// Without: a pack is dead when one of its chunks is.
    HalfLiveStays,
    /// Without: a repack deletes the old pack itself.
    RepackDeletesNothing,
    /// Without: the markers are looked for before the hold is made.
    HoldFirst,
    /// Without: a prune reads the holds before the markers.
    HoldsAfterMarkers,
    /// Without: manifests go by markers that came after the holds were read.
    GoneAsRead,
    /// Without: a segment that names doomed packs goes without a new one, where others say what is left of it.
    RewritesWhatItRemoves,
    /// Without: merged runs go before the merged one is there.
    MergePublishesFirst,
    /// Without: a merge deletes all runs that are there by then.
    MergeDropsItsOwn,
    /// Without: replication shows a snapshot before what it needs is there.
    ReplicateComplete,
    /// Without: sessions that decide in a region which goes are left alone.
    RemovalEndsSessions,
    /// Without: what was made in a region that goes is not looked for again after its sessions were ended.
    RemovalCopiesAgain,
    /// Without: a prune adopts a change of regions as if it were a list.
    ChangeIsNoList,
}

use Rule::*;

/// The small scope in which it is missed.
pub const fn scope_against(rule: Rule) -> &'static str {
    match rule {
        ListIsEpoch | SecondReading | SessionsEnded | CreateOnce | AnswerRead | StoredFirst | DoomedBad => ONE,
        CondemnedBad | RefreshAsksAgain | HalfLiveStays | ParentNow | TombstonesStay | SessionsStay => ONE,
        AdoptBegin | DoomedGone => ONE,
        AdoptEnd => "a decision between two forgets",
        ParentNamed | MarkAgain => "two writers, the second on the first's snapshot",
        MarkersStay => "late duplicates",
        NewIdAfterFence | DropsAgain => "one writer, one prune, left alone",
        EndMetFences | OverEverywhere => "a region is lost",
        MarkersEverywhere => "two regions, and the new snapshot is forgotten",
        KeptEverywhere => "two copies in two regions",
        CopyPassesJunk | CopyFirst | EveryMember | RootsEverywhere => "a writer that reaches one region of two",
        StopUnresolved => "a lost index segment",
        MembersByEpoch => "a region is added",
        ListsComplete => "a short listing",
        CompleteOnly | ReuseEverywhere => "a region refuses",
        RepackDeletesNothing => "a repacker",
        HoldFirst | HoldsAfterMarkers | GoneAsRead => "holds",
        RewritesWhatItRemoves | MergePublishesFirst | MergeDropsItsOwn => "a merge of the index",
        ReplicateComplete => "replication",
        RemovalEndsSessions | RemovalCopiesAgain | ChangeIsNoList => "a region is removed",
    }
}

const ONE: &str = "one writer, two prunes";
