//! Secrets of key slots: Argon2id (RFC 9106) and Bech32m (BIP 350).

use super::{CryptoError, Secret};
use argon2::{Algorithm, Argon2, Params, Version};
use bech32::primitives::decode::CheckedHrpstring;
use bech32::{Bech32m, Hrp};
use zeroize::Zeroizing;

/// `hfkey`, the separator, 52 characters of five bits, six of checksum.
const RECOVERY_CHARS: usize = 64;

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
    let mut out = zeroize::Zeroizing::new([0; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(pass, salt, &mut *out)
        .map_err(|_| CryptoError::Parameters("argon2"))?;
    Ok(Secret::from_bytes(*out))
}

/// Prints a recovery key.
pub fn recovery_encode(seed: &Secret<32>) -> String {
    let hrp = Hrp::parse_unchecked("hfkey");
    bech32::encode_upper::<Bech32m>(hrp, seed.bytes()).unwrap_or_default()
}

/// Reads a recovery key as people type it: in any case, with spaces and dashes anywhere.
///
/// # Errors
/// [`CryptoError::Secret`].
pub fn recovery_decode(text: &str) -> Result<Secret<32>, CryptoError> {
    let typed = text.chars().filter(|c| !c.is_whitespace() && *c != '-');
    let clean: Zeroizing<String> = Zeroizing::new(typed.map(|c| c.to_ascii_lowercase()).collect());
    if !clean.starts_with("hfkey1") {
        return Err(CryptoError::Secret("it does not begin with hfkey1"));
    }
    if clean.chars().count() != RECOVERY_CHARS {
        return Err(CryptoError::Secret("characters are missing, or there are too many"));
    }
    let checked = CheckedHrpstring::new::<Bech32m>(&clean)
        .map_err(|_| CryptoError::Secret("it has a typing error (the checksum differs)"))?;
    let bytes: Zeroizing<Vec<u8>> = Zeroizing::new(checked.byte_iter().collect());
    Secret::from_slice(&bytes).ok_or(CryptoError::Secret("it has the wrong length"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recovery_key_is_read_as_it_is_typed() {
        let seed = Secret::from_bytes(std::array::from_fn(|i| i as u8 * 7));
        let printed = recovery_encode(&seed);
        assert_eq!(printed.len(), RECOVERY_CHARS);
        let mixed: String =
            printed.chars().enumerate().map(|(i, c)| if i % 3 == 0 { c.to_ascii_lowercase() } else { c }).collect();
        let spaced: Vec<&str> = printed.as_bytes().chunks(4).map(|c| std::str::from_utf8(c).unwrap()).collect();
        for typed in
            [printed.clone(), printed.to_lowercase(), mixed, spaced.join(" "), spaced.join("-"), spaced.join("\n")]
        {
            assert_eq!(recovery_decode(&typed).unwrap(), seed, "{typed}");
        }
    }

    #[test]
    fn every_single_wrong_character_is_found() {
        let printed = recovery_encode(&Secret::from_bytes([0xa5; 32])).to_lowercase();
        for at in 6..printed.len() {
            for c in "qpzry9x8gf2tvdw0s3jn54khce6mua7lbio1é".chars() {
                let typed: String = printed.chars().enumerate().map(|(i, old)| if i == at { c } else { old }).collect();
                if typed != printed {
                    let e = recovery_decode(&typed).unwrap_err();
                    assert!(e.to_string().contains("checksum"), "{typed}: {e}");
                }
            }
        }
        for (text, why) in [("", "hfkey1"), ("hunter2", "hfkey1"), ("hfkey1qqqq", "missing"), (&printed[1..], "hfkey1")]
        {
            assert!(recovery_decode(text).unwrap_err().to_string().contains(why), "{text}");
        }
        assert!(recovery_decode(&format!("{printed}q")).unwrap_err().to_string().contains("too many"));
    }

    #[test]
    fn parameters_that_would_exhaust_the_machine_are_refused_before_any_work() {
        let bombs = [
            (u32::MAX, 3, 4),
            ((1 << 20) + 1, 3, 4),
            (64 << 10, 1 << 31, 4),
            (64 << 10, 17, 4),
            (64 << 10, 3, u32::MAX),
            (64 << 10, 0, 4),
            (64 << 10, 3, 0),
            (8, 3, 4),
            (0, 0, 0),
            (u32::MAX, u32::MAX, u32::MAX),
        ];
        for (m_kib, t, p) in bombs {
            // Argon2 with these would take terabytes or days; the suite's time limit is the measure.
            let refused = passphrase_seed(b"x", &[0; 32], Argon2Params { m_kib, t, p });
            assert!(matches!(refused, Err(CryptoError::Parameters(_))), "{m_kib} {t} {p}");
        }
    }
}
