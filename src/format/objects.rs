//! The small signed objects of the retention protocol (docs/format.md, section 5): sessions,
//! tombstones, repack records, markers, holds, epochs.

use super::FormatError;
use super::signed::Fresh;
use crate::base::{Digest, Epoch, Generation, HoldId, PackName, RegionId, SessionId, TagsId};
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

/// Most packs of one list.
pub const LIST_PACKS_MAX: usize = 1 << 20;

/// A writer's announcement.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Session {
    /// What its writer knew.
    #[n(0)]
    pub fresh: Fresh,
    /// Session.
    #[n(1)]
    pub sid: SessionId,
    /// The region in which the first creation of its outcome decides.
    #[n(2)]
    pub decision: RegionId,
    /// When, ms.
    #[n(3)]
    pub created: i64,
    /// On which host.
    #[n(4)]
    pub host: String,
    /// Of which source.
    #[n(5)]
    pub source: String,
    /// Into which generation.
    #[n(6)]
    pub generation: Generation,
    /// Regions used.
    #[n(7)]
    pub regions: Vec<RegionId>,
    /// The session that it goes on for.
    #[n(8)]
    pub refreshes: Option<SessionId>,
}

/// The end of a session that made no snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Tombstone {
    /// What its writer knew.
    #[n(0)]
    pub fresh: Fresh,
    /// Session.
    #[n(1)]
    pub sid: SessionId,
    /// When, ms.
    #[n(2)]
    pub created: i64,
    /// Why.
    #[n(3)]
    pub reason: String,
}

/// A snapshot is no longer wanted.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Forgotten {
    /// What its writer knew.
    #[n(0)]
    pub fresh: Fresh,
    /// Snapshot.
    #[n(1)]
    pub sid: SessionId,
    /// Digest of its manifest.
    #[n(2)]
    pub manifest: Digest,
    /// When, ms.
    #[n(3)]
    pub created: i64,
    /// Why.
    #[n(4)]
    pub reason: String,
    /// Whether it may go although it is the last of its source: a person said so.
    #[n(5)]
    pub last: Option<bool>,
}

/// A snapshot must be kept.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Hold {
    /// What its writer knew.
    #[n(0)]
    pub fresh: Fresh,
    /// Hold.
    #[n(1)]
    pub hold: HoldId,
    /// Snapshot.
    #[n(2)]
    pub sid: SessionId,
    /// When, ms.
    #[n(3)]
    pub created: i64,
    /// Why.
    #[n(4)]
    pub reason: String,
    /// When it ends by itself, ms; without it, when it is released.
    #[n(5)]
    pub until: Option<i64>,
}

/// A hold ends.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct HoldRelease {
    /// What its writer knew.
    #[n(0)]
    pub fresh: Fresh,
    /// Hold.
    #[n(1)]
    pub hold: HoldId,
    /// When, ms.
    #[n(2)]
    pub created: i64,
}

/// Tags are put on a snapshot, or taken off.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Tags {
    /// What its writer knew.
    #[n(0)]
    pub fresh: Fresh,
    /// Change.
    #[n(1)]
    pub id: TagsId,
    /// Snapshot.
    #[n(2)]
    pub sid: SessionId,
    /// When, ms.
    #[n(3)]
    pub created: i64,
    /// Taken off, first.
    #[n(4)]
    pub removed: Vec<String>,
    /// Put on.
    #[n(5)]
    pub added: Vec<String>,
}

/// Packs that a repack moved.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Repack {
    /// What its writer knew.
    #[n(0)]
    pub fresh: Fresh,
    /// Session.
    #[n(1)]
    pub sid: SessionId,
    /// When, ms.
    #[n(2)]
    pub created: i64,
    /// Old pack, new packs.
    #[n(3)]
    pub moved: Vec<Moved>,
}

/// Where a pack's chunks went.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Moved {
    /// Old pack.
    #[n(0)]
    pub old: PackName,
    /// New packs.
    #[n(1)]
    pub new: Vec<PackName>,
}

/// A member region.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Member {
    /// Region.
    #[n(0)]
    pub id: RegionId,
    /// Its name.
    #[n(1)]
    pub name: String,
    /// Set where its store does not create only if absent: it is never home, and no session decides there.
    #[n(2)]
    pub weak: Option<bool>,
}

impl Member {
    /// Whether nothing may be decided there.
    pub fn is_weak(&self) -> bool {
        self.weak == Some(true)
    }
}

/// A root as a prune saw it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Root {
    /// Snapshot.
    #[n(0)]
    pub sid: SessionId,
    /// Digest of its manifest.
    #[n(1)]
    pub digest: Digest,
    /// First seen, by the stores' time, ms.
    #[n(2)]
    pub first_seen: i64,
}

/// An epoch begins.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct EpochBegin {
    /// What its writer knew.
    #[n(0)]
    pub fresh: Fresh,
    /// Number.
    #[n(1)]
    pub number: Epoch,
    /// Members; the first is home.
    #[n(2)]
    pub members: Vec<Member>,
    /// Condemned packs, 32 bytes each.
    #[n(3)]
    pub condemned: ByteVec,
    /// Roots that they were marked from.
    #[n(4)]
    pub roots: Vec<Root>,
    /// When, ms.
    #[n(5)]
    pub created: i64,
}

/// An epoch is decided.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct EpochEnd {
    /// What its writer knew.
    #[n(0)]
    pub fresh: Fresh,
    /// Number.
    #[n(1)]
    pub number: Epoch,
    /// Digest of `begin`.
    #[n(2)]
    pub begin: Digest,
    /// Doomed packs, 32 bytes each.
    #[n(3)]
    pub doomed: ByteVec,
    /// Roots seen.
    #[n(4)]
    pub roots: Vec<Root>,
    /// When, ms.
    #[n(5)]
    pub created: i64,
    /// Gathered markers, 16 bytes each.
    #[n(6)]
    pub forgotten: ByteVec,
    /// All packs doomed before, in every 64th.
    #[n(7)]
    pub doomed_before: Option<ByteVec>,
}

/// A list of packs from its bytes.
///
/// # Errors
/// Wrong length, or longer than [`LIST_PACKS_MAX`].
pub fn pack_list(bytes: &[u8]) -> Result<Vec<PackName>, FormatError> {
    if !bytes.len().is_multiple_of(PackName::LEN) {
        return Err(FormatError::Malformed("pack list", "length"));
    }
    if bytes.len() / PackName::LEN > LIST_PACKS_MAX {
        return Err(FormatError::Limit("pack list"));
    }
    Ok(bytes.chunks_exact(PackName::LEN).filter_map(PackName::from_slice).collect())
}
