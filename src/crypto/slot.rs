//! Secrets of key slots: Argon2id (RFC 9106) and Bech32m (BIP 350).

use super::{CryptoError, Secret};
use argon2::{Algorithm, Argon2, Params, Version};
use bech32::{Bech32m, Hrp};

/// Parameters of Argon2id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Argon2Params {
    /// Memory, KiB.
    pub m_kib: u32,
    /// Passes.
    pub t: u32,
    /// Lanes.
    pub p: u32,
}

impl Argon2Params {
    /// RFC 9106, second recommended set; floor and default.
    pub const DEFAULT: Argon2Params = Argon2Params { m_kib: 64 << 10, t: 3, p: 4 };

    /// Refuses what would exhaust the machine, before it runs.
    ///
    /// # Errors
    /// [`CryptoError::Parameters`].
    pub fn check_open(self) -> Result<(), CryptoError> {
        if self.m_kib > 1 << 20 {
            return Err(CryptoError::Parameters("memory above 1 GiB"));
        }
        if self.t == 0 || self.t > 16 || self.p == 0 || self.p > 16 || self.m_kib < 8 * self.p {
            return Err(CryptoError::Parameters("passes or lanes"));
        }
        Ok(())
    }
}

/// The seed of a passphrase.
///
/// # Errors
/// Parameters out of bounds.
pub fn passphrase_seed(pass: &[u8], salt: &[u8; 32], params: Argon2Params) -> Result<Secret<32>, CryptoError> {
    params.check_open()?;
    let params =
        Params::new(params.m_kib, params.t, params.p, Some(32)).map_err(|_| CryptoError::Parameters("argon2"))?;
    let mut out = [0; 32];
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(pass, salt, &mut out)
        .map_err(|_| CryptoError::Parameters("argon2"))?;
    Ok(Secret::from_bytes(out))
}

/// Prints a recovery key.
pub fn recovery_encode(seed: &Secret<32>) -> String {
    let hrp = Hrp::parse_unchecked("hfkey");
    bech32::encode_upper::<Bech32m>(hrp, seed.bytes()).unwrap_or_default()
}

/// Reads a recovery key.
///
/// # Errors
/// [`CryptoError::Secret`].
pub fn recovery_decode(text: &str) -> Result<Secret<32>, CryptoError> {
    let clean: String = text.chars().filter(|c| !c.is_whitespace() && *c != '-').collect();
    let checked = bech32::primitives::decode::CheckedHrpstring::new::<Bech32m>(&clean)
        .map_err(|_| CryptoError::Secret("checksum differs"))?;
    if checked.hrp().to_string().to_lowercase() != "hfkey" {
        return Err(CryptoError::Secret("does not begin with hfkey"));
    }
    let bytes: Vec<u8> = checked.byte_iter().collect();
    Secret::from_slice(&bytes).ok_or(CryptoError::Secret("wrong length"))
}
