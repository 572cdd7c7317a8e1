//! Temporary.

use super::Secret;

/// Temporary.
pub fn generate_passphrase(entropy: &Secret<32>) -> String {
    crate::base::hex(&entropy.bytes()[..14])
}

/// Temporary.
pub fn passphrase_bits(text: &str) -> u32 {
    text.len() as u32 * 4
}
