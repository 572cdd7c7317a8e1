//! X-Wing: ML-KEM-768 and X25519 (draft-connolly-cfrg-xwing-kem).

use super::{CryptoError, Secret};
use x_wing::{Decapsulate, DecapsulationKey, Decapsulator, EncapsulationKey, KeyExport};

/// The public key of a seed, 1216 bytes.
pub fn public_key(seed: &Secret<32>) -> Vec<u8> {
    let key = DecapsulationKey::from(*seed.bytes());
    key.encapsulation_key().to_bytes().to_vec()
}

/// Ciphertext (1120 bytes) and shared secret for a public key.
///
/// # Errors
/// Not a public key.
pub fn encapsulate(public: &[u8], randomness: &Secret<64>) -> Result<(Vec<u8>, Secret<32>), CryptoError> {
    let key = EncapsulationKey::try_from(public).map_err(|_| CryptoError::Secret("not an X-Wing public key"))?;
    let (ciphertext, shared) = key.encapsulate_deterministic(randomness.bytes().into());
    Ok((ciphertext.to_vec(), Secret::from_bytes(shared.into())))
}

/// The shared secret of a ciphertext.
///
/// # Errors
/// Not a ciphertext.
pub fn decapsulate(seed: &Secret<32>, ciphertext: &[u8]) -> Result<Secret<32>, CryptoError> {
    let known = ciphertext.try_into().map_err(|_| CryptoError::Secret("not an X-Wing ciphertext"))?;
    let open = || DecapsulationKey::from(*seed.bytes()).decapsulate(known).into();
    #[cfg(feature = "testing")]
    let open = || super::remembered::shared([seed.bytes(), ciphertext], open);
    Ok(Secret::from_bytes(open()))
}
