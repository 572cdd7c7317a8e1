//! Primitives behind one door: key derivation, AEAD, signatures, key encapsulation, secrets of slots.

mod aead;
mod bulk;
mod kem;
mod passphrase;
#[cfg(feature = "testing")]
mod remembered;
mod sign;
mod slot;

pub use aead::Cipher;
pub use bulk::BulkCipher;
pub use kem::{decapsulate, encapsulate, public_key};
pub use passphrase::{generate_passphrase, passphrase_bits};
pub use sign::{SigningKey, VerifyKey};
pub use slot::{Argon2Params, passphrase_seed, recovery_decode, recovery_encode};

use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Why a primitive refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CryptoError {
    /// Another key.
    #[error("wrong key")]
    WrongKey,
    /// The tag does not fit.
    #[error("authentication failed")]
    Tag,
    /// Parameters out of bounds.
    #[error("parameters out of bounds: {0}")]
    Parameters(&'static str),
    /// Not a secret of this form.
    #[error("{0}")]
    Secret(&'static str),
}

/// Secret bytes: wiped when dropped, never shown.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Secret<const N: usize>([u8; N]);

impl<const N: usize> Secret<N> {
    /// Takes the bytes.
    pub fn from_bytes(bytes: [u8; N]) -> Self {
        Secret(bytes)
    }

    /// From exactly `N` bytes.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Secret)
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8; N] {
        &self.0
    }
}

impl<const N: usize> std::fmt::Debug for Secret<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

impl<const N: usize> PartialEq for Secret<N> {
    fn eq(&self, other: &Self) -> bool {
        same(&self.0, &other.0)
    }
}

/// `KD(context, parts, N)` of docs/format.md.
pub fn kd<const N: usize>(context: &'static str, parts: &[&[u8]]) -> Secret<N> {
    let mut hasher = blake3::Hasher::new_derive_key(&format!("holdfast.io/format/1 {context}"));
    parts.iter().for_each(|part| {
        hasher.update(part);
    });
    let mut out = Secret([0; N]);
    hasher.finalize_xof().fill(&mut out.0);
    out
}

/// Keyed BLAKE3.
pub fn mac(key: &[u8; 32], message: &[u8]) -> [u8; 32] {
    *blake3::keyed_hash(key, message).as_bytes()
}

/// Equality in constant time.
pub fn same(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}
