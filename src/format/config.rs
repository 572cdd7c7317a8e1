//! The chain of configurations: `config/<n>` is a signed plain head and a sealed keyring
//! (docs/format.md, section 7). Whoever opens the keyring can write the next number for every
//! slot without the slots' secrets, because each slot has an X-Wing public key in it.

use super::ring::Keyring;
use super::{FormatError, cbor, region::FORMAT_VERSION, signed};
use crate::base::{ConfigNo, Digest, RepoId, SlotId, TimeMs};
use crate::crypto::{Cipher, Secret, SigningKey, VerifyKey, decapsulate, encapsulate, kd, same};
use minicbor::bytes::{ByteArray, ByteVec};
use minicbor::{Decode, Encode};

/// Label of configurations in signatures.
const SIGN_KIND: u8 = 32;
/// The only cipher suite: BLAKE3, AES-256-GCM, X-Wing, Ed25519.
const SUITE: u8 = 1;

/// Names of what a program must understand.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Features {
    /// To read.
    #[n(0)]
    pub read: Vec<String>,
    /// To write.
    #[n(1)]
    pub write: Vec<String>,
    /// To prune.
    #[n(2)]
    pub prune: Vec<String>,
}

/// To read: chunks of which both planes are frames.
pub const PLANES: &str = "planes1";

impl Features {
    /// What this program understands, and asks of those who use a repository that it makes.
    pub fn ours() -> Features {
        Features {
            read: vec!["base1".into(), PLANES.into()],
            write: vec!["base1".into()],
            prune: vec!["epochs1".into()],
        }
    }

    /// The first name among `needed` that is not among `known`.
    pub fn unknown<'a>(needed: &'a [String], known: &[String]) -> Option<&'a str> {
        needed.iter().find(|n| !known.contains(n)).map(String::as_str)
    }
}

/// Parameters of a chunking profile. Sizes in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Profile {
    /// 1 `files`.
    #[n(0)]
    pub profile: u8,
    /// 1: fastcdc 5.0.0 v2020, level 2.
    #[n(1)]
    pub algorithm: u8,
    /// Smallest chunk.
    #[n(2)]
    pub min: u32,
    /// Average.
    #[n(3)]
    pub average: u32,
    /// Largest.
    #[n(4)]
    pub max: u32,
    /// Files up to this are one chunk.
    #[n(5)]
    pub whole: u32,
    /// Files up to this stand in their entry.
    #[n(6)]
    pub inline: u32,
}

impl Profile {
    /// The `files` profile.
    pub fn files() -> Profile {
        Profile {
            profile: 1,
            algorithm: 1,
            min: 256 << 10,
            average: 1 << 20,
            max: 4 << 20,
            whole: 256 << 10,
            inline: 512,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
struct Wrap {
    #[n(0)]
    slot: SlotId,
    #[n(1)]
    kem: ByteVec,
    #[n(2)]
    commitment: ByteArray<32>,
    #[n(3)]
    wrapped: ByteVec,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
struct ConfigHead {
    #[n(0)]
    version: u32,
    #[n(1)]
    repo: RepoId,
    #[n(2)]
    number: ConfigNo,
    #[n(3)]
    previous: Digest,
    #[n(4)]
    next_owner: VerifyKey,
    #[n(5)]
    features: Features,
    #[n(6)]
    suite: u8,
    #[n(7)]
    profiles: Vec<Profile>,
    #[n(8)]
    slots: Vec<Wrap>,
    #[n(9)]
    created: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
struct ConfigObject {
    #[n(0)]
    head: ByteVec,
    #[n(1)]
    commitment: ByteArray<32>,
    #[n(2)]
    sealed: ByteVec,
    #[n(3)]
    signature: ByteArray<64>,
}

/// The canonical key of a number, which its signature names.
pub fn key(number: ConfigNo) -> String {
    format!("config/{:08}", number.0)
}

/// A configuration whose place in the chain was verified.
#[derive(Debug, Clone)]
pub struct Config {
    head: ConfigHead,
    object: ConfigObject,
    digest: Digest,
}

fn sign_message(repo: &RepoId, number: ConfigNo, head: &[u8], commitment: &[u8; 32], sealed: &[u8]) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(head).update(commitment).update(sealed);
    signed::message(SIGN_KIND, repo, &key(number), hasher.finalize().as_bytes())
}

fn wrap_keys(shared: &Secret<32>, repo: &RepoId, number: ConfigNo, slot: &SlotId) -> (Cipher, [u8; 32]) {
    split(kd("wrap", &[shared.bytes(), repo.bytes(), &number.0.to_le_bytes(), slot.bytes()]))
}

fn ring_keys(g: &Secret<32>, head: &[u8]) -> (Cipher, [u8; 32]) {
    split(kd("ring", &[g.bytes(), Digest::of(head).bytes()]))
}

fn split(both: Secret<64>) -> (Cipher, [u8; 32]) {
    let key = Secret::from_bytes(super::envelope::array(&both.bytes()[..32]));
    (Cipher::new(&key), super::envelope::array(&both.bytes()[32..]))
}

/// What is needed to write the next number.
pub struct Next<'a> {
    /// Repository.
    pub repo: RepoId,
    /// Number to write.
    pub number: ConfigNo,
    /// Digest of the one before.
    pub previous: Digest,
    /// The owner's key that the one before named (or the anchor's).
    pub owner: &'a SigningKey,
    /// What a program must understand: carried over, for what it does not know it must not drop.
    pub features: Features,
    /// The keyring; its slots get a wrap each, its owner seed signs the number after.
    pub ring: &'a Keyring,
    /// Fresh key of this number.
    pub g: Secret<32>,
    /// Fresh randomness for each slot's encapsulation.
    pub randomness: Vec<Secret<64>>,
    /// When.
    pub created: TimeMs,
}

impl Next<'_> {
    /// The object.
    ///
    /// # Errors
    /// A slot's public key that is none, or too little randomness.
    pub fn to_object(&self) -> Result<Vec<u8>, FormatError> {
        const BAD: FormatError = FormatError::Malformed("keyring", "public key of a slot");
        let mut slots = Vec::with_capacity(self.ring.slots.len());
        for (slot, randomness) in self.ring.slots.iter().zip(&self.randomness) {
            let (kem, shared) = encapsulate(&slot.public, randomness).map_err(|_| BAD)?;
            let (cipher, commitment) = wrap_keys(&shared, &self.repo, self.number, &slot.id);
            let wrapped = cipher.seal(&[0; 12], b"", self.g.bytes());
            slots.push(Wrap { slot: slot.id, kem: kem.into(), commitment: commitment.into(), wrapped: wrapped.into() });
        }
        if slots.len() != self.ring.slots.len() {
            return Err(FormatError::Malformed("configuration", "randomness"));
        }
        let head = cbor::encode(&ConfigHead {
            version: FORMAT_VERSION,
            repo: self.repo,
            number: self.number,
            previous: self.previous,
            next_owner: self.ring.owner().verify_key(),
            features: self.features.clone(),
            suite: SUITE,
            profiles: vec![Profile::files()],
            slots,
            created: self.created.0,
        });
        let (cipher, commitment) = ring_keys(&self.g, &head);
        let plain = zeroize::Zeroizing::new(cbor::encode(self.ring));
        let sealed = cipher.seal(&[0; 12], b"", &plain);
        let signature = self.owner.sign(&sign_message(&self.repo, self.number, &head, &commitment, &sealed));
        let mut bytes = cbor::encode(&ConfigObject {
            head: head.into(),
            commitment: commitment.into(),
            sealed: sealed.into(),
            signature: signature.into(),
        });
        signed::add_checksum(&mut bytes);
        Ok(bytes)
    }
}

impl Config {
    /// Reads a configuration and checks that it is `number`, follows `previous` and is signed by `owner`.
    ///
    /// # Errors
    /// Damaged, another repository's, newer, or not a link of this chain.
    pub fn from_object(
        bytes: &[u8],
        repo: &RepoId,
        number: ConfigNo,
        previous: &Digest,
        owner: &VerifyKey,
    ) -> Result<Config, FormatError> {
        let (body, digest) = signed::check_sum(bytes)?;
        let object: ConfigObject = cbor::decode("configuration", body)?;
        let message = sign_message(repo, number, &object.head, &object.commitment, &object.sealed);
        if !owner.verify(&message, &object.signature) {
            return Err(FormatError::Unsigned("configuration not signed by the owner"));
        }
        let head: ConfigHead = cbor::decode("head of a configuration", &object.head)?;
        if head.repo != *repo {
            return Err(FormatError::Foreign);
        }
        if head.version != FORMAT_VERSION || head.suite != SUITE {
            return Err(FormatError::Newer("configuration"));
        }
        if head.number != number || head.previous != *previous {
            return Err(FormatError::Unsigned("configuration out of its chain"));
        }
        Ok(Config { head, object, digest })
    }

    /// The digest that the configuration with this digest gives for the one before it.
    pub fn previous_of(bytes: &[u8], digest: &Digest) -> Option<Digest> {
        let (body, found) = signed::check_sum(bytes).ok()?;
        let object: ConfigObject = cbor::decode("configuration", body).ok().filter(|_| found == *digest)?;
        let head: ConfigHead = cbor::decode("head of a configuration", &object.head).ok()?;
        Some(head.previous)
    }

    /// Its number.
    pub fn number(&self) -> ConfigNo {
        self.head.number
    }

    /// Its digest.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Who signs the next.
    pub fn next_owner(&self) -> &VerifyKey {
        &self.head.next_owner
    }

    /// What it asks of a program.
    pub fn features(&self) -> &Features {
        &self.head.features
    }

    /// Chunking parameters.
    pub fn profiles(&self) -> &[Profile] {
        &self.head.profiles
    }

    /// Whether a slot may open it.
    pub fn lists(&self, slot: &SlotId) -> bool {
        self.head.slots.iter().any(|w| w.slot == *slot)
    }

    /// Opens the keyring with a slot's X-Wing seed.
    ///
    /// # Errors
    /// The slot is not listed, or something was written wrong.
    pub fn open(&self, slot: &SlotId, kem_seed: &Secret<32>) -> Result<Keyring, FormatError> {
        let wrap = self.head.slots.iter().find(|w| w.slot == *slot).ok_or(FormatError::WrongKey)?;
        let shared = decapsulate(kem_seed, &wrap.kem).map_err(|_| FormatError::WrittenWrong("key wrap"))?;
        let (cipher, commitment) = wrap_keys(&shared, &self.head.repo, self.head.number, slot);
        if !same(&commitment, &*wrap.commitment) {
            return Err(FormatError::WrongKey);
        }
        let g = cipher.open(&[0; 12], b"", &wrap.wrapped).map_err(|_| FormatError::WrittenWrong("key wrap"))?;
        let g = Secret::from_slice(&zeroize::Zeroizing::new(g)).ok_or(FormatError::WrittenWrong("key wrap"))?;
        let (cipher, commitment) = ring_keys(&g, &self.object.head);
        if !same(&commitment, &*self.object.commitment) {
            return Err(FormatError::WrongKey);
        }
        let plain =
            cipher.open(&[0; 12], b"", &self.object.sealed).map_err(|_| FormatError::WrittenWrong("keyring"))?;
        let ring: Keyring = cbor::decode("keyring", &zeroize::Zeroizing::new(plain))?;
        if ring.owner().verify_key() == self.head.next_owner {
            Ok(ring)
        } else {
            Err(FormatError::WrittenWrong("owner key of the keyring"))
        }
    }
}
