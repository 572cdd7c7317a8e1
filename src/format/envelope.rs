//! The envelope of every sealed object (docs/format.md, section 3): a header that the key is
//! derived from, a commitment to that key, and records whose heads are sealed too.
//!
//! AES-GCM alone does not commit to a key; the 32 bytes beside it do ("invisible salamanders",
//! Dodis et al. 2018). The nonce's second half is a keyed hash of the head, so that a process
//! frozen and resumed twice repeats no nonce with other content.

use super::{CHUNK_BYTES_MAX, FormatError};
use crate::base::{ChunkId, Domain, KeyEpoch, RepoId};
use crate::crypto::{BulkCipher, Secret, kd, mac, same};

/// Where the header says what the object is.
pub const KIND_AT: usize = 8;
/// Length of the header before the commitment, in bytes.
pub const PLAIN_HEADER_BYTES: usize = 80;
/// Length of the header with the commitment, in bytes.
pub const HEADER_BYTES: usize = PLAIN_HEADER_BYTES + 32;
/// What a record costs beside its body, in bytes.
pub const RECORD_OVERHEAD: usize = 88;
/// Largest object, in bytes.
pub const OBJECT_BYTES_MAX: usize = 64 << 20;
/// Most records of an object.
pub const RECORDS_MAX: u32 = 1 << 16;
/// Largest decoded body of an object that is no pack, in bytes.
pub const BODY_BYTES_MAX: usize = 48 << 20;

const MAGIC: &[u8; 8] = b"HOLDFST1";
const HEAD_BYTES: usize = 48;
const TAG_BYTES: usize = 16;
/// `n` and the sealed head.
const PREFIX_BYTES: usize = 8 + HEAD_BYTES + TAG_BYTES;

/// What an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Pack of file content.
    Data = 1,
    /// Pack of tree pages.
    Tree = 2,
    /// Index segment.
    Index = 3,
    /// Manifest of a snapshot.
    Manifest = 4,
    /// End of a session without a snapshot.
    Tombstone = 5,
    /// Outcome of a repack.
    Repack = 6,
    /// Announcement of a session.
    Session = 7,
    /// Marker of a snapshot no longer wanted.
    Forgotten = 8,
    /// A hold.
    Hold = 9,
    /// The end of a hold.
    HoldRelease = 10,
    /// An epoch begins.
    EpochBegin = 11,
    /// An epoch is decided.
    EpochEnd = 12,
    /// Record of a closed run.
    Run = 13,
    /// A change of a snapshot's tags.
    Tags = 21,
}

/// Which of the key epoch's keys seals it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Class {
    /// File content.
    Data = 1,
    /// Tree pages.
    Tree = 2,
    /// Index segments.
    Index = 3,
    /// Everything signed that is no index.
    Root = 4,
}

impl Kind {
    /// From the byte of the header.
    pub fn from_id(id: u8) -> Option<Kind> {
        use Kind::*;
        [Data, Tree, Index, Manifest, Tombstone, Repack, Session]
            .into_iter()
            .chain([Forgotten, Hold, HoldRelease, EpochBegin, EpochEnd, Run, Tags])
            .find(|k| *k as u8 == id)
    }

    /// The class of its key.
    pub fn class(self) -> Class {
        match self {
            Kind::Data => Class::Data,
            Kind::Tree => Class::Tree,
            Kind::Index => Class::Index,
            _ => Class::Root,
        }
    }
}

/// The header's fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// What the object is.
    pub kind: Kind,
    /// Trust domain.
    pub domain: Domain,
    /// Which key of the domain.
    pub key_epoch: KeyEpoch,
    /// Repository.
    pub repo: RepoId,
    /// Fresh from the kernel for each object.
    pub salt: [u8; 32],
}

impl Header {
    fn bytes(&self) -> [u8; PLAIN_HEADER_BYTES] {
        let mut out = [0; PLAIN_HEADER_BYTES];
        out[..8].copy_from_slice(MAGIC);
        out[KIND_AT] = self.kind as u8;
        out[12..16].copy_from_slice(&self.domain.0.to_le_bytes());
        out[16..20].copy_from_slice(&self.key_epoch.0.to_le_bytes());
        out[32..48].copy_from_slice(self.repo.bytes());
        out[48..].copy_from_slice(&self.salt);
        out
    }

    /// Reads the first [`HEADER_BYTES`] of an object and judges them, all but the commitment.
    ///
    /// # Errors
    /// Not ours, another repository's, or from a newer program.
    pub fn parse(bytes: &[u8], repo: &RepoId) -> Result<(Header, [u8; 32]), FormatError> {
        let head: &[u8; HEADER_BYTES] =
            bytes.first_chunk().ok_or(FormatError::Malformed("object", "shorter than its header"))?;
        if &head[..8] != MAGIC {
            return Err(FormatError::Malformed("object", "magic"));
        }
        if &head[32..48] != repo.bytes() {
            return Err(FormatError::Foreign);
        }
        if head[9] != 0 {
            return Err(FormatError::Newer("wrap"));
        }
        if head[10..12] != [0, 0] {
            return Err(FormatError::Newer("critical flags"));
        }
        if head[20..32] != [0; 12] {
            return Err(FormatError::Newer("header extension"));
        }
        let kind = Kind::from_id(head[8]).ok_or(FormatError::Newer("kind of object"))?;
        let header = Header {
            kind,
            domain: Domain(u32_at(head, 12)),
            key_epoch: KeyEpoch(u32_at(head, 16)),
            repo: *repo,
            salt: array(&head[48..80]),
        };
        Ok((header, array(&head[80..112])))
    }
}

/// Key of a class in a key epoch.
pub fn class_secret(epoch_key: &Secret<32>, domain: Domain, class: Class) -> Secret<32> {
    kd("class", &[epoch_key.bytes(), &domain.0.to_le_bytes(), &[class as u8]])
}

/// The keys of one object.
pub struct ObjectKeys {
    cipher: BulkCipher,
    commitment: [u8; 32],
    nonce_key: Secret<32>,
}

impl ObjectKeys {
    fn derive(header: &Header, secret: &Secret<32>) -> ObjectKeys {
        let all: Secret<96> = kd("object", &[secret.bytes(), &header.bytes()]);
        let part = |from: usize| Secret::from_bytes(array::<32>(&all.bytes()[from..from + 32]));
        ObjectKeys { cipher: BulkCipher::new(&part(0)), commitment: array(&all.bytes()[32..64]), nonce_key: part(64) }
    }

    /// Keys to read an object whose header was parsed.
    ///
    /// # Errors
    /// [`FormatError::WrongKey`] when the commitment differs.
    pub fn open(header: &Header, commitment: &[u8; 32], secret: &Secret<32>) -> Result<ObjectKeys, FormatError> {
        let keys = Self::derive(header, secret);
        if same(&keys.commitment, commitment) { Ok(keys) } else { Err(FormatError::WrongKey) }
    }

    fn nonce(number: u32, second: u32, n: &[u8; 8]) -> [u8; 12] {
        let mut nonce = [0; 12];
        nonce[..4].copy_from_slice(&number.wrapping_mul(2).wrapping_add(second).to_le_bytes());
        nonce[4..].copy_from_slice(n);
        nonce
    }

    /// Opens the head at the front of `bytes`.
    ///
    /// # Errors
    /// Shorter than a head, or written wrong.
    pub fn head(&self, number: u32, bytes: &[u8]) -> Result<Head, FormatError> {
        Ok(self.sealed_head(number, bytes)?.0)
    }

    fn sealed_head(&self, number: u32, bytes: &[u8]) -> Result<(Head, [u8; HEAD_BYTES], [u8; 8]), FormatError> {
        let prefix: &[u8; PREFIX_BYTES] =
            bytes.first_chunk().ok_or(FormatError::Malformed("record", "shorter than its head"))?;
        if number >= RECORDS_MAX {
            return Err(FormatError::Limit("record number"));
        }
        let n: [u8; 8] = array(&prefix[..8]);
        let mut head: [u8; HEAD_BYTES] = array(&prefix[8..8 + HEAD_BYTES]);
        let tag = array(&prefix[8 + HEAD_BYTES..]);
        self.cipher
            .open_in_place(&Self::nonce(number, 0, &n), b"", &mut head, &tag)
            .map_err(|_| FormatError::WrittenWrong("tag of a record's head"))?;
        Ok((Head::parse(&head, number)?, head, n))
    }

    /// Opens the record that `bytes` begin with, in place; returns its head and its body.
    ///
    /// # Errors
    /// Cut short, or written wrong.
    pub fn record<'a>(&self, number: u32, bytes: &'a mut [u8]) -> Result<(Head, &'a [u8]), FormatError> {
        let (head, raw, n) = self.sealed_head(number, bytes)?;
        let end = PREFIX_BYTES.saturating_add(head.sealed_len as usize);
        let sealed =
            bytes.get_mut(PREFIX_BYTES..end).ok_or(FormatError::Malformed("record", "shorter than its head says"))?;
        let (body, tag) =
            sealed.split_last_chunk_mut::<TAG_BYTES>().ok_or(FormatError::Malformed("record", "shorter than a tag"))?;
        self.cipher
            .open_in_place(&Self::nonce(number, 1, &n), &raw, body, tag)
            .map_err(|_| FormatError::WrittenWrong("tag of a record's body"))?;
        if head.kind.is_keyed() && !same(&mac(self.nonce_key.bytes(), body), head.id.bytes()) {
            return Err(FormatError::WrittenWrong("id of a record"));
        }
        Ok((head, body))
    }
}

/// What a record holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum RecordKind {
    /// One chunk.
    Chunk = 1,
    /// Body of an object that is no pack.
    Body = 240,
    /// Several small chunks.
    Bundle = 241,
    /// Table of a pack.
    Table = 254,
    /// Zero bytes.
    Padding = 255,
}

impl RecordKind {
    /// Whether its id is a keyed hash of its body.
    fn is_keyed(self) -> bool {
        self as u8 >= 240
    }

    fn from_id(id: u8) -> Option<RecordKind> {
        use RecordKind::*;
        [Chunk, Body, Bundle, Table, Padding].into_iter().find(|k| *k as u8 == id)
    }

    fn plain_len_max(self) -> usize {
        match self {
            RecordKind::Chunk => CHUNK_BYTES_MAX,
            RecordKind::Bundle => super::BUNDLE_BYTES_MAX,
            RecordKind::Body => BODY_BYTES_MAX,
            RecordKind::Table | RecordKind::Padding => OBJECT_BYTES_MAX,
        }
    }
}

/// A record's head, opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Chunk id, or a keyed hash of the body.
    pub id: ChunkId,
    /// Length of the body with its tag, in bytes.
    pub sealed_len: u32,
    /// Length once decoded, in bytes.
    pub plain_len: u32,
    /// What it holds.
    pub kind: RecordKind,
    /// Codec id.
    pub codec: u8,
    /// Record number.
    pub number: u32,
}

impl Head {
    /// Length of the whole record, in bytes.
    pub fn record_len(&self) -> usize {
        PREFIX_BYTES.saturating_add(self.sealed_len as usize)
    }

    fn bytes(&self) -> [u8; HEAD_BYTES] {
        let mut out = [0; HEAD_BYTES];
        out[..32].copy_from_slice(self.id.bytes());
        out[32..36].copy_from_slice(&self.sealed_len.to_le_bytes());
        out[36..40].copy_from_slice(&self.plain_len.to_le_bytes());
        out[40] = self.kind as u8;
        out[41] = self.codec;
        out[44..48].copy_from_slice(&self.number.to_le_bytes());
        out
    }

    fn parse(raw: &[u8; HEAD_BYTES], number: u32) -> Result<Head, FormatError> {
        let kind = RecordKind::from_id(raw[40]).ok_or(FormatError::Newer("type of record"))?;
        if raw[42..44] != [0, 0] {
            return Err(FormatError::Newer("flags of a record"));
        }
        let head = Head {
            id: ChunkId(array(&raw[..32])),
            sealed_len: u32_at(raw, 32),
            plain_len: u32_at(raw, 36),
            kind,
            codec: raw[41],
            number: u32_at(raw, 44),
        };
        if head.number != number {
            return Err(FormatError::WrittenWrong("number of a record"));
        }
        if head.sealed_len as usize > OBJECT_BYTES_MAX || head.plain_len as usize > kind.plain_len_max() {
            return Err(FormatError::Limit("length of a record"));
        }
        Ok(head)
    }
}

/// Where a record lies in its object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordAt {
    /// Offset, in bytes.
    pub offset: u32,
    /// Length with everything, in bytes.
    pub len: u32,
    /// Record number.
    pub number: u32,
}

/// What the writer of a record's body says about it.
pub struct Filled {
    /// Chunk id; `None`: a keyed hash of the body.
    pub id: Option<ChunkId>,
    /// What it holds.
    pub kind: RecordKind,
    /// Codec id.
    pub codec: u8,
    /// Length once decoded, in bytes.
    pub plain_len: usize,
}

/// Writes one object, record after record, into one buffer.
pub struct Sealer {
    buf: Vec<u8>,
    keys: ObjectKeys,
    next: u32,
}

impl Sealer {
    /// Begins an object in `buf`, which is cleared first.
    pub fn new(mut buf: Vec<u8>, header: &Header, secret: &Secret<32>) -> Sealer {
        let keys = ObjectKeys::derive(header, secret);
        buf.clear();
        buf.extend_from_slice(&header.bytes());
        buf.extend_from_slice(&keys.commitment);
        Sealer { buf, keys, next: 0 }
    }

    /// Appends a record whose body `fill` appends to the buffer it is given.
    pub fn record(&mut self, fill: impl FnOnce(&mut Vec<u8>) -> Filled) -> RecordAt {
        let start = self.buf.len();
        self.buf.resize(start + PREFIX_BYTES, 0);
        let filled = fill(&mut self.buf);
        let number = self.next;
        self.next += 1;
        let body_start = start + PREFIX_BYTES;
        let body_len = self.buf.len() - body_start;
        let id = filled.id.unwrap_or_else(|| ChunkId(mac(self.keys.nonce_key.bytes(), &self.buf[body_start..])));
        let head = Head {
            id,
            sealed_len: (body_len + TAG_BYTES) as u32,
            plain_len: filled.plain_len as u32,
            kind: filled.kind,
            codec: filled.codec,
            number,
        };
        let mut raw = head.bytes();
        let hashed = mac(self.keys.nonce_key.bytes(), &raw);
        let n: [u8; 8] = array(&hashed[..8]);
        let cipher = &self.keys.cipher;
        let tag = cipher.seal_in_place(&ObjectKeys::nonce(number, 1, &n), &raw, &mut self.buf[body_start..]);
        self.buf.extend_from_slice(&tag);
        let head_tag = cipher.seal_in_place(&ObjectKeys::nonce(number, 0, &n), b"", &mut raw);
        let prefix = &mut self.buf[start..body_start];
        prefix[..8].copy_from_slice(&n);
        prefix[8..8 + HEAD_BYTES].copy_from_slice(&raw);
        prefix[8 + HEAD_BYTES..].copy_from_slice(&head_tag);
        RecordAt { offset: start as u32, len: (self.buf.len() - start) as u32, number }
    }

    /// Appends padding of `len` zero bytes.
    pub fn padding(&mut self, len: usize) -> RecordAt {
        self.record(|buf| {
            buf.resize(buf.len() + len, 0);
            Filled { id: None, kind: RecordKind::Padding, codec: 0, plain_len: len }
        })
    }

    /// Bytes so far.
    pub fn bytes(&self) -> &[u8] {
        &self.buf
    }

    /// Records so far.
    pub fn records(&self) -> u32 {
        self.next
    }

    /// The buffer, as it is.
    pub fn into_bytes(self) -> Vec<u8> {
        self.buf
    }
}

/// Copies exactly `N` bytes; callers pass slices of that length.
pub(super) fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(bytes);
    out
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array(&bytes[at..at + 4]))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array(&bytes[at..at + 8]))
}

/// Rounds `len` up to a multiple of `to`.
pub(super) fn round_up(len: usize, to: usize) -> usize {
    len.div_ceil(to) * to
}
