//! Manifests (docs/format.md, section 6). A manifest names no packs: chunks may move.

use super::signed::Fresh;
use super::tree::Entry;
use super::{FormatError, cbor};
use crate::base::{Digest, Domain, Generation, RegionId, SessionId};
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

/// Most errors that are kept by name.
pub const ERRORS_MAX: usize = 1000;
/// Most heads that a manifest vouches for.
pub const SEEN_MAX: usize = 64;

/// How much the parent was trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Mode {
    /// Reads only what differs from the parent.
    #[n(0)]
    Incremental,
    /// Reads everything, and asks for every chunk that it re-uses.
    #[n(1)]
    Full,
    /// Re-uses nothing of earlier generations.
    #[n(2)]
    Independent,
    /// A chain of changes on a base (etcd).
    #[n(3)]
    Delta,
}

impl Mode {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Incremental => "incremental",
            Mode::Full => "full",
            Mode::Independent => "independent",
            Mode::Delta => "delta",
        }
    }
}

/// What is backed up.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Source {
    /// `files`, …
    #[n(0)]
    pub kind: String,
    /// Its identity over time.
    #[n(1)]
    pub name: String,
    /// Host.
    #[n(2)]
    pub host: String,
    /// Absolute paths.
    #[n(3)]
    pub paths: Vec<ByteVec>,
}

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub struct Counts {
    /// Files.
    #[n(0)]
    pub files: u64,
    /// Directories.
    #[n(1)]
    pub dirs: u64,
    /// Symbolic links.
    #[n(2)]
    pub symlinks: u64,
    /// Fifos, sockets, devices.
    #[n(3)]
    pub other: u64,
    /// Bytes of files.
    #[n(4)]
    pub bytes: u64,
    /// Files read.
    #[n(5)]
    pub files_read: u64,
    /// Files taken over from the parent.
    #[n(6)]
    pub files_unchanged: u64,
    /// Entries excluded.
    #[n(7)]
    pub excluded: u64,
}

impl Counts {
    /// Entries of the tree, its root among them.
    pub fn entries(&self) -> u64 {
        [self.dirs, self.symlinks, self.other].iter().fold(self.files, |sum, n| sum.saturating_add(*n))
    }
}

/// What it cost. Bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub struct Transfer {
    /// Read from the source.
    #[n(0)]
    pub bytes_read: u64,
    /// Of chunks not stored before.
    #[n(1)]
    pub bytes_new: u64,
    /// Of packs and index segments, in one region.
    #[n(2)]
    pub bytes_stored: u64,
    /// Chunks not stored before.
    #[n(3)]
    pub chunks_new: u64,
    /// Chunks used.
    #[n(4)]
    pub chunks_used: u64,
}

/// Something that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Miss {
    /// Path.
    #[n(0)]
    pub path: ByteVec,
    /// Kind, a word.
    #[n(1)]
    pub kind: String,
    /// What happened.
    #[n(2)]
    pub message: String,
}

/// A snapshot that was known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Seen {
    /// Snapshot.
    #[n(0)]
    pub sid: SessionId,
    /// Digest of its manifest.
    #[n(1)]
    pub digest: Digest,
}

/// The manifest of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Manifest {
    /// What its writer knew.
    #[n(0)]
    pub fresh: Fresh,
    /// Snapshot.
    #[n(1)]
    pub sid: SessionId,
    /// Source.
    #[n(2)]
    pub source: Source,
    /// Mode.
    #[n(3)]
    pub mode: Mode,
    /// Parent.
    #[n(4)]
    pub parent: Option<SessionId>,
    /// Start, ms.
    #[n(5)]
    pub start: i64,
    /// End, ms.
    #[n(6)]
    pub end: i64,
    /// Root.
    #[n(7)]
    pub root: Entry,
    /// What was found.
    #[n(8)]
    pub counts: Counts,
    /// What it cost.
    #[n(9)]
    pub transfer: Transfer,
    /// The first errors.
    #[n(10)]
    pub errors: Vec<Miss>,
    /// Number of errors.
    #[n(11)]
    pub errors_total: u64,
    /// 0: live file system.
    #[n(12)]
    pub consistency: u8,
    /// Policy.
    #[n(13)]
    pub policy: Option<String>,
    /// Site.
    #[n(14)]
    pub site: Option<String>,
    /// Fencing epoch.
    #[n(15)]
    pub fencing_epoch: Option<u64>,
    /// Generation.
    #[n(16)]
    pub generation: Generation,
    /// Domain.
    #[n(17)]
    pub domain: Domain,
    /// Number of this writer's manifests of this source, from 1.
    #[n(18)]
    pub seq: u64,
    /// Digest of the one before.
    #[n(19)]
    pub prev: Digest,
    /// Newest manifests known.
    #[n(20)]
    pub seen: Vec<Seen>,
    /// Program version.
    #[n(21)]
    pub program: String,
    /// Hash of the root entry.
    #[n(22)]
    pub content: Digest,
    /// Tags.
    #[n(23)]
    pub tags: Vec<String>,
    /// Labels.
    #[n(24)]
    pub labels: Vec<Label>,
    /// File system.
    #[n(25)]
    pub fs_id: Option<u64>,
    /// Decision region.
    #[n(26)]
    pub decision: RegionId,
}

/// A label.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Label {
    /// Key.
    #[n(0)]
    pub key: String,
    /// Value.
    #[n(1)]
    pub value: String,
}

/// Content digest of a root entry.
pub fn content_digest(root: &Entry) -> Digest {
    Digest::of(&cbor::encode(root))
}

impl Manifest {
    /// Checks what the type cannot.
    ///
    /// # Errors
    /// Limits exceeded, or a content digest that does not fit.
    pub fn check(&self) -> Result<(), FormatError> {
        if self.errors.len() > ERRORS_MAX || self.seen.len() > SEEN_MAX {
            return Err(FormatError::Limit("list of a manifest"));
        }
        if content_digest(&self.root) != self.content {
            return Err(FormatError::WrittenWrong("content digest"));
        }
        Ok(())
    }
}
