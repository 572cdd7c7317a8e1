//! Sealed and signed objects: everything but packs (docs/format.md, sections 3 and 5).

use super::envelope::{
    BODY_BYTES_MAX, Filled, Header, Kind, OBJECT_BYTES_MAX, ObjectKeys, RECORD_OVERHEAD, RecordKind, Sealer, array,
    round_up,
};
use super::ring::Trust;
use super::{FormatError, cbor};
use crate::base::{Digest, RepoId, WriterId};
use crate::crypto::{Secret, SigningKey};
use minicbor::{Decode, Encode};

/// Objects are padded to a multiple of this.
const PAD_BYTES: usize = 4 << 10;
/// Length of a plain checksum.
pub const CHECKSUM_BYTES: usize = 32;
/// Algorithm, writer, signature.
const TRAILER_BYTES: usize = 1 + 16 + 64;
/// The only algorithm so far.
const ED25519: u8 = 1;
/// Codec ids used for bodies.
const RAW: u8 = 0;

/// What the writer knew, in every signed object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Fresh {
    /// Number of the configuration.
    #[n(0)]
    pub config: crate::base::ConfigNo,
    /// Its digest.
    #[n(1)]
    pub digest: Digest,
    /// Epoch of the retention protocol.
    #[n(2)]
    pub epoch: crate::base::Epoch,
}

/// The bytes that are signed.
pub fn message(kind: u8, repo: &RepoId, key: &str, body_hash: &[u8; 32]) -> Vec<u8> {
    let mut out = b"holdfast.io/format/1 sign".to_vec();
    out.push(kind);
    out.extend_from_slice(repo.bytes());
    out.extend_from_slice(&(key.len() as u16).to_le_bytes());
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(body_hash);
    out
}

/// Who signs what is sealed.
pub struct Signer {
    /// Its id in the keyring.
    pub id: WriterId,
    /// Its key.
    pub key: SigningKey,
}

/// Seals and signs `value` as the object `key` (empty for index segments, whose name is a hash).
/// The result ends with a checksum unless the name is a hash.
pub fn seal<T: Encode<()>>(value: &T, key: &str, header: &Header, secret: &Secret<32>, signer: &Signer) -> Vec<u8> {
    let mut body = cbor::encode(value);
    body.push(ED25519);
    body.extend_from_slice(signer.id.bytes());
    let hash = *blake3::hash(&body).as_bytes();
    body.extend_from_slice(&signer.key.sign(&message(header.kind as u8, &header.repo, key, &hash)));
    let mut sealer = Sealer::new(Vec::with_capacity(body.len() + PAD_BYTES), header, secret);
    sealer.record(|out| {
        out.extend_from_slice(&body);
        Filled { id: None, kind: RecordKind::Body, codec: RAW, plain_len: body.len() }
    });
    let tail = if header.kind == Kind::Index { 0 } else { CHECKSUM_BYTES };
    let size = sealer.bytes().len() + RECORD_OVERHEAD + tail;
    sealer.padding(round_up(size, PAD_BYTES) - size);
    let mut bytes = sealer.into_bytes();
    if tail > 0 {
        add_checksum(&mut bytes);
    }
    bytes
}

/// Appends the checksum of what `bytes` hold.
pub fn add_checksum(bytes: &mut Vec<u8>) {
    let sum = blake3::hash(bytes);
    bytes.extend_from_slice(sum.as_bytes());
}

/// Splits off and checks the checksum; returns what was summed, and the object's digest.
///
/// # Errors
/// [`FormatError::Damaged`].
pub fn check_sum(bytes: &[u8]) -> Result<(&[u8], Digest), FormatError> {
    let (rest, sum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(FormatError::Damaged("checksum"))?;
    if bytes.len() > OBJECT_BYTES_MAX {
        return Err(FormatError::Limit("object"));
    }
    if blake3::hash(rest).as_bytes() == sum { Ok((rest, Digest(*sum))) } else { Err(FormatError::Damaged("checksum")) }
}

/// An opened object.
#[derive(Debug)]
pub struct Opened {
    /// Its kind.
    pub kind: Kind,
    /// Who signed it.
    pub writer: WriterId,
    /// Its digest: checksum, or for an index segment the hash of the whole.
    pub digest: Digest,
    body: Vec<u8>,
}

impl Opened {
    /// Opens the object read under `key` and checks its signature by a writer with all of `roles`
    /// of that kind (see [`roles_of`]).
    ///
    /// # Errors
    /// In the order of judgement: damaged, foreign, newer, wrong key, written wrong, unsigned.
    pub fn open(bytes: &[u8], key: &str, trust: Trust<'_>) -> Result<Opened, FormatError> {
        let index = key.starts_with("index/");
        let (rest, digest) = if index {
            let digest = Digest::of(bytes);
            if key.get(6..) != Some(digest.hex().as_str()) {
                return Err(FormatError::Damaged("name"));
            }
            (bytes, digest)
        } else {
            check_sum(bytes)?
        };
        let (header, commitment) = Header::parse(rest, &trust.repo)?;
        if !fits(header.kind, key) {
            return Err(FormatError::Malformed("object", "kind does not fit the key"));
        }
        let secret = trust
            .ring
            .class_secret(header.domain, header.key_epoch, header.kind.class())
            .ok_or(FormatError::WrongKey)?;
        let keys = ObjectKeys::open(&header, &commitment, &secret)?;
        let mut sealed = rest[super::envelope::HEADER_BYTES..].to_vec();
        let (head, body) = keys.record(0, &mut sealed)?;
        if head.kind != RecordKind::Body || head.codec != RAW || body.len() > BODY_BYTES_MAX {
            return Err(FormatError::WrittenWrong("body record"));
        }
        let mut body = body.to_vec();
        let writer = check_signature(&body, header.kind, if index { "" } else { key }, trust)?;
        body.truncate(body.len() - TRAILER_BYTES);
        Ok(Opened { kind: header.kind, writer, digest, body })
    }

    /// Decodes the body.
    ///
    /// # Errors
    /// Not the canonical encoding of a `T`.
    pub fn decode<T: for<'b> Decode<'b, ()> + Encode<()>>(&self, what: &'static str) -> Result<T, FormatError> {
        cbor::decode(what, &self.body)
    }
}

/// Whether an object of this kind may stand at this key. The role that a writer needs goes by the kind: a hold that
/// counted as the begin of an epoch would be an epoch without the right to prune.
fn fits(kind: Kind, key: &str) -> bool {
    let (folder, name) = key.split_once('/').unwrap_or((key, ""));
    match folder {
        "index" => kind == Kind::Index,
        "snapshots" => matches!(kind, Kind::Manifest | Kind::Tombstone | Kind::Repack),
        "sessions" => kind == Kind::Session,
        "forgotten" => kind == Kind::Forgotten,
        "holds" if name.ends_with(".release") => kind == Kind::HoldRelease,
        "holds" => kind == Kind::Hold,
        "epochs" if name.ends_with("/begin") => kind == Kind::EpochBegin,
        "epochs" => kind == Kind::EpochEnd,
        "runs" => kind == Kind::Run,
        "tags" => kind == Kind::Tags,
        _ => false,
    }
}

/// The roles of which a writer needs one to sign this kind.
pub fn roles_of(kind: Kind) -> u32 {
    use super::ring::role;
    match kind {
        Kind::Tombstone => role::WRITE | role::PRUNE,
        Kind::Forgotten => role::FORGET,
        Kind::Hold | Kind::HoldRelease => role::HOLD,
        Kind::EpochBegin | Kind::EpochEnd => role::PRUNE,
        _ => role::WRITE,
    }
}

fn check_signature(body: &[u8], kind: Kind, key: &str, trust: Trust<'_>) -> Result<WriterId, FormatError> {
    let (signed, signature) = body.split_last_chunk::<64>().ok_or(FormatError::Unsigned("no signature"))?;
    let (_, trailer) = signed.split_last_chunk::<17>().ok_or(FormatError::Unsigned("no writer"))?;
    if trailer[0] != ED25519 {
        return Err(FormatError::Newer("signature algorithm"));
    }
    let id = WriterId(array(&trailer[1..]));
    let writer = trust.ring.writer(&id).ok_or(FormatError::Unsigned("unknown writer"))?;
    if writer.roles & roles_of(kind) == 0 {
        return Err(FormatError::Unsigned("writer without that role"));
    }
    let hash = *blake3::hash(signed).as_bytes();
    if writer.verify.verify(&message(kind as u8, &trust.repo, key, &hash), signature) {
        Ok(id)
    } else {
        Err(FormatError::Unsigned("signature does not verify"))
    }
}
