//! AES-256-GCM (NIST SP 800-38D). All of it stands behind this file.

use super::{CryptoError, Secret};
use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes256Gcm, KeyInit};

/// One key, ready to seal and open.
pub struct Cipher(Aes256Gcm);

impl Cipher {
    /// Expands a key.
    pub fn new(key: &Secret<32>) -> Cipher {
        Cipher(Aes256Gcm::new(key.bytes().into()))
    }

    /// Encrypts `buf` in place; returns the tag.
    pub fn seal_in_place(&self, nonce: &[u8; 12], aad: &[u8], buf: &mut [u8]) -> [u8; 16] {
        // Fails only beyond 64 GiB, a thousand times the largest object.
        self.0.encrypt_inout_detached(nonce.into(), aad, buf.into()).map_or([0; 16], Into::into)
    }

    /// Decrypts `buf` in place.
    ///
    /// # Errors
    /// [`CryptoError::Tag`]; `buf` is then worthless.
    pub fn open_in_place(
        &self,
        nonce: &[u8; 12],
        aad: &[u8],
        buf: &mut [u8],
        tag: &[u8; 16],
    ) -> Result<(), CryptoError> {
        self.0.decrypt_inout_detached(nonce.into(), aad, buf.into(), tag.into()).map_err(|_| CryptoError::Tag)
    }

    /// Ciphertext with its tag.
    pub fn seal(&self, nonce: &[u8; 12], aad: &[u8], plain: &[u8]) -> Vec<u8> {
        let mut out = plain.to_vec();
        let tag = self.seal_in_place(nonce, aad, &mut out);
        out.extend_from_slice(&tag);
        out
    }

    /// The plaintext of what [`Cipher::seal`] made.
    ///
    /// # Errors
    /// [`CryptoError::Tag`].
    pub fn open(&self, nonce: &[u8; 12], aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>, CryptoError> {
        let (body, tag) = sealed.split_last_chunk::<16>().ok_or(CryptoError::Tag)?;
        let mut out = body.to_vec();
        self.open_in_place(nonce, aad, &mut out, tag)?;
        Ok(out)
    }
}
