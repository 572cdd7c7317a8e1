//! The keyring: everything secret that a repository needs, sealed inside each `config/<n>`
//! (docs/format.md, section 7).

use super::envelope::{Class, class_secret};
use crate::base::{Digest, Domain, KeyEpoch, RepoId, SlotId, TimeMs, WriterId};
use crate::crypto::{Secret, SigningKey, VerifyKey};
use minicbor::bytes::{ByteArray, ByteVec};
use minicbor::{Decode, Encode};

/// Rights of a writer, as bits.
pub mod role {
    /// Manifests, sessions, index segments, repack records.
    pub const WRITE: u32 = 1;
    /// Forgotten markers.
    pub const FORGET: u32 = 2;
    /// Epochs, and tombstones for others.
    pub const PRUNE: u32 = 4;
    /// Verdicts.
    pub const VERIFY: u32 = 8;
    /// Holds.
    pub const HOLD: u32 = 16;
    /// Members.
    pub const OWNER: u32 = 32;
    /// All of them.
    pub const ALL: u32 = 63;
}

/// One key epoch of a domain.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct EpochKey {
    /// Its number.
    #[n(0)]
    pub number: KeyEpoch,
    /// Its key.
    #[n(1)]
    pub key: ByteArray<32>,
    /// When it was made, ms.
    #[n(2)]
    pub created: i64,
    /// 0 open, 1 retired.
    #[n(3)]
    pub state: u8,
}

/// A trust domain.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct DomainKeys {
    /// Its number.
    #[n(0)]
    pub domain: Domain,
    /// Its key epochs.
    #[n(1)]
    pub epochs: Vec<EpochKey>,
}

/// What the keyring knows of a slot.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SlotEntry {
    /// Slot.
    #[n(0)]
    pub id: SlotId,
    /// Its kind's number.
    #[n(1)]
    pub kind: u8,
    /// A name for people.
    #[n(2)]
    pub label: String,
    /// X-Wing public key.
    #[n(3)]
    pub public: ByteVec,
    /// When it was added, ms.
    #[n(4)]
    pub created: i64,
    /// Digest of its object, which has no signature of its own; keyrings of older programs have none.
    #[n(5)]
    pub object: Option<Digest>,
}

/// Somebody who may sign.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Writer {
    /// First half of the hash of `verify`.
    #[n(0)]
    pub id: WriterId,
    /// Verify key.
    #[n(1)]
    pub verify: VerifyKey,
    /// Bits of [`role`].
    #[n(2)]
    pub roles: u32,
    /// Domains it may write.
    #[n(3)]
    pub domains: Vec<Domain>,
    /// Source names it may write; empty: all.
    #[n(4)]
    pub sources: Vec<String>,
    /// A name for people.
    #[n(5)]
    pub name: String,
    /// When it was added, ms.
    #[n(6)]
    pub created: i64,
}

/// The signing key of a writer.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct WriterSeed {
    /// Whose.
    #[n(0)]
    pub id: WriterId,
    /// Ed25519 seed.
    #[n(1)]
    pub seed: ByteArray<32>,
}

/// The keyring.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Keyring {
    /// Root of chunk ids and gear seeds.
    #[n(0)]
    pub id_root: ByteArray<32>,
    /// Domains with their keys.
    #[n(1)]
    pub domains: Vec<DomainKeys>,
    /// Slots.
    #[n(2)]
    pub slots: Vec<SlotEntry>,
    /// Writers.
    #[n(3)]
    pub writers: Vec<Writer>,
    /// Seed of the key that signs the next configuration.
    #[n(4)]
    pub owner_seed: ByteArray<32>,
    /// Signing keys of writers that any holder of the keyring may use.
    #[n(5)]
    pub writer_seeds: Vec<WriterSeed>,
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keyring({} slots, {} writers)", self.slots.len(), self.writers.len())
    }
}

impl Drop for Keyring {
    fn drop(&mut self) {
        use zeroize::Zeroize;
        let wipe = |key: &mut ByteArray<32>| {
            let bytes: &mut [u8; 32] = key;
            bytes.zeroize();
        };
        wipe(&mut self.id_root);
        wipe(&mut self.owner_seed);
        self.writer_seeds.iter_mut().for_each(|w| wipe(&mut w.seed));
        self.domains.iter_mut().flat_map(|d| &mut d.epochs).for_each(|e| wipe(&mut e.key));
    }
}

impl Keyring {
    /// A fresh keyring: one domain, one key epoch, one writer with all roles.
    /// `random` holds id root, epoch key, owner seed and writer seed.
    pub fn new(random: &[[u8; 32]; 4], now: TimeMs) -> Keyring {
        let [id_root, key, owner, writer] = *random;
        let verify = SigningKey::from_seed(&Secret::from_bytes(writer)).verify_key();
        let id = verify.writer_id();
        let epoch = EpochKey { number: KeyEpoch(1), key: key.into(), created: now.0, state: 0 };
        Keyring {
            id_root: id_root.into(),
            domains: vec![DomainKeys { domain: Domain(0), epochs: vec![epoch] }],
            slots: Vec::new(),
            writers: vec![Writer {
                id,
                verify,
                roles: role::ALL,
                domains: vec![Domain(0)],
                sources: Vec::new(),
                name: "first writer".into(),
                created: now.0,
            }],
            owner_seed: owner.into(),
            writer_seeds: vec![WriterSeed { id, seed: writer.into() }],
        }
    }

    /// Root of chunk ids and gear seeds.
    pub fn id_root(&self) -> Secret<32> {
        Secret::from_bytes(*self.id_root)
    }

    /// The owner's signing key for the next configuration.
    pub fn owner(&self) -> SigningKey {
        SigningKey::from_seed(&Secret::from_bytes(*self.owner_seed))
    }

    /// The newest open key epoch of a domain.
    pub fn key_epoch(&self, domain: Domain) -> Option<KeyEpoch> {
        let keys = self.domains.iter().find(|d| d.domain == domain)?;
        keys.epochs.iter().filter(|e| e.state == 0).map(|e| e.number).max()
    }

    /// Key of a class, if the keyring has that domain and key epoch.
    pub fn class_secret(&self, domain: Domain, epoch: KeyEpoch, class: Class) -> Option<Secret<32>> {
        let keys = self.domains.iter().find(|d| d.domain == domain)?;
        let key = keys.epochs.iter().find(|e| e.number == epoch)?;
        Some(class_secret(&Secret::from_bytes(*key.key), domain, class))
    }

    /// A writer by id.
    pub fn writer(&self, id: &WriterId) -> Option<&Writer> {
        self.writers.iter().find(|w| w.id == *id)
    }

    /// The first writer whose signing key is here.
    pub fn signer(&self) -> Option<(WriterId, SigningKey)> {
        let own = self.writer_seeds.first()?;
        Some((own.id, SigningKey::from_seed(&Secret::from_bytes(*own.seed))))
    }
}

/// Who signs, and for which repository: what a signed object is checked against.
#[derive(Debug, Clone, Copy)]
pub struct Trust<'a> {
    /// Repository.
    pub repo: RepoId,
    /// Keys and writers.
    pub ring: &'a Keyring,
}
