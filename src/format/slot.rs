//! Key slots: how a secret yields the seed that opens the chain of configurations
//! (docs/format.md, section 7).

use super::{FormatError, cbor, region::FORMAT_VERSION, signed};
use crate::base::{ConfigNo, Digest, RepoId, SlotId};
use crate::crypto::{Argon2Params, Cipher, Secret, VerifyKey, kd, same};
use minicbor::bytes::{ByteArray, ByteVec};
use minicbor::{Decode, Encode};

/// Kinds of slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum SlotKind {
    /// Argon2id of a passphrase.
    Passphrase = 1,
    /// 32 bytes in a file.
    KeyFile = 2,
    /// 32 bytes on paper.
    Recovery = 3,
}

impl SlotKind {
    /// From its number.
    pub fn from_id(id: u8) -> Option<SlotKind> {
        [SlotKind::Passphrase, SlotKind::KeyFile, SlotKind::Recovery].into_iter().find(|k| *k as u8 == id)
    }

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            SlotKind::Passphrase => "passphrase",
            SlotKind::KeyFile => "key-file",
            SlotKind::Recovery => "recovery-key",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
struct Argon2Cbor {
    #[n(0)]
    m_kib: u32,
    #[n(1)]
    t: u32,
    #[n(2)]
    p: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
struct SlotHead {
    #[n(0)]
    version: u32,
    #[n(1)]
    repo: RepoId,
    #[n(2)]
    id: SlotId,
    #[n(3)]
    kind: u8,
    #[n(4)]
    argon2: Option<Argon2Cbor>,
    #[n(5)]
    salt: ByteArray<32>,
    #[n(6)]
    wrapped: Option<ByteVec>,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
struct SlotObject {
    #[n(0)]
    head: ByteVec,
    #[n(1)]
    commitment: ByteArray<32>,
    #[n(2)]
    anchor: ByteVec,
}

/// Where a client begins to walk the chain of configurations.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Anchor {
    /// The key that signed configuration `number + 1`.
    #[n(0)]
    pub owner: VerifyKey,
    /// Number of the configuration before the slot was listed; 0 at init.
    #[n(1)]
    pub number: ConfigNo,
    /// Its digest; zeros at init.
    #[n(2)]
    pub digest: Digest,
}

/// A slot as stored.
#[derive(Debug, Clone)]
pub struct Slot {
    /// Slot.
    pub id: SlotId,
    /// Kind; `None`: one that this program does not know.
    pub kind: Option<SlotKind>,
    /// Parameters of a passphrase.
    pub argon2: Option<Argon2Params>,
    /// Salt.
    pub salt: [u8; 32],
    /// Digest of the object, by which a keyring lists it.
    pub digest: Digest,
    object: SlotObject,
}

/// What a seed yields.
pub struct SlotKeys {
    anchor_key: Secret<32>,
    commitment: [u8; 32],
    /// Seed of the slot's X-Wing key pair.
    pub kem_seed: Secret<32>,
}

fn slot_keys(seed: &Secret<32>, head: &[u8]) -> SlotKeys {
    let all: Secret<96> = kd("slot", &[seed.bytes(), Digest::of(head).bytes()]);
    let part = |from: usize| super::envelope::array::<32>(&all.bytes()[from..from + 32]);
    SlotKeys { anchor_key: Secret::from_bytes(part(0)), commitment: part(32), kem_seed: Secret::from_bytes(part(64)) }
}

impl Slot {
    /// Makes a slot; returns the object and the seed of its X-Wing key pair.
    pub fn create(
        repo: RepoId,
        id: SlotId,
        kind: SlotKind,
        salt: [u8; 32],
        seed: &Secret<32>,
        anchor: &Anchor,
    ) -> (Vec<u8>, Secret<32>) {
        let argon2 = (kind == SlotKind::Passphrase).then(|| {
            let p = Argon2Params::DEFAULT;
            Argon2Cbor { m_kib: p.m_kib, t: p.t, p: p.p }
        });
        let salt = salt.into();
        let head = SlotHead { version: FORMAT_VERSION, repo, id, kind: kind as u8, argon2, salt, wrapped: None };
        let head = cbor::encode(&head);
        let keys = slot_keys(seed, &head);
        let cipher = Cipher::new(&keys.anchor_key);
        let boxed = cipher.seal(&[0; 12], Digest::of(&head).bytes(), &cbor::encode(anchor));
        let object = SlotObject { head: head.into(), commitment: keys.commitment.into(), anchor: boxed.into() };
        let mut bytes = cbor::encode(&object);
        signed::add_checksum(&mut bytes);
        (bytes, keys.kem_seed)
    }

    /// Reads a slot object.
    ///
    /// # Errors
    /// Damaged, another repository's, or from a newer program.
    pub fn from_object(bytes: &[u8], repo: &RepoId) -> Result<Slot, FormatError> {
        let (body, digest) = signed::check_sum(bytes)?;
        let object: SlotObject = cbor::decode("key slot", body)?;
        let head: SlotHead = cbor::decode("head of a key slot", &object.head)?;
        if head.repo != *repo {
            return Err(FormatError::Foreign);
        }
        if head.version != FORMAT_VERSION {
            return Err(FormatError::Newer("key slot"));
        }
        let argon2 = head.argon2.map(|a| Argon2Params { m_kib: a.m_kib, t: a.t, p: a.p });
        Ok(Slot { id: head.id, kind: SlotKind::from_id(head.kind), argon2, salt: *head.salt, digest, object })
    }

    /// Opens the slot with its seed.
    ///
    /// # Errors
    /// [`FormatError::WrongKey`] for another seed.
    pub fn open(&self, seed: &Secret<32>) -> Result<(Anchor, SlotKeys), FormatError> {
        let keys = slot_keys(seed, &self.object.head);
        if !same(&keys.commitment, &*self.object.commitment) {
            return Err(FormatError::WrongKey);
        }
        let digest = Digest::of(&self.object.head);
        let anchor = Cipher::new(&keys.anchor_key)
            .open(&[0; 12], digest.bytes(), &self.object.anchor)
            .map_err(|_| FormatError::WrittenWrong("anchor of a key slot"))?;
        Ok((cbor::decode("anchor", &anchor)?, keys))
    }
}
