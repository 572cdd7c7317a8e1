//! AES-256-GCM for records, several times as fast: the same bytes as [`Cipher`] makes, from another library.
//!
//! Tests hold both against each other. The decision is in docs/decisions/0007-bulk-encryption.md.

use super::{Cipher, CryptoError, Secret};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, Tag, UnboundKey};

/// One key, ready to seal and open records.
pub struct BulkCipher {
    /// `None` where the library does not take the key; it takes every one of 32 bytes.
    quick: Option<LessSafeKey>,
    plain: Cipher,
}

impl BulkCipher {
    /// Expands a key.
    pub fn new(key: &Secret<32>) -> BulkCipher {
        let quick = UnboundKey::new(&AES_256_GCM, key.bytes()).ok().map(LessSafeKey::new);
        BulkCipher { quick, plain: Cipher::new(key) }
    }

    /// Encrypts `buf` in place; returns the tag.
    pub fn seal_in_place(&self, nonce: &[u8; 12], aad: &[u8], buf: &mut [u8]) -> [u8; 16] {
        let once = Nonce::assume_unique_for_key(*nonce);
        let quick = self.quick.as_ref().and_then(|key| key.seal_in_place_separate_tag(once, Aad::from(aad), buf).ok());
        match quick.and_then(|tag| tag.as_ref().try_into().ok()) {
            Some(tag) => tag,
            None => self.plain.seal_in_place(nonce, aad, buf),
        }
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
        let Some(key) = &self.quick else { return self.plain.open_in_place(nonce, aad, buf, tag) };
        let once = Nonce::assume_unique_for_key(*nonce);
        let opened = key.open_in_place_separate_tag(once, Aad::from(aad), Tag::from(*tag), buf, 0..);
        opened.map(drop).map_err(|_| CryptoError::Tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever one seals, the other opens, and both make the same bytes.
        #[test]
        fn both_libraries_are_one_cipher(
            key in any::<[u8; 32]>(), nonce in any::<[u8; 12]>(), aad in proptest::collection::vec(any::<u8>(), 0..70),
            plain in proptest::collection::vec(any::<u8>(), 0..9000), spoiled in any::<proptest::sample::Index>(),
        ) {
            let key = Secret::from_bytes(key);
            let (quick, careful) = (BulkCipher::new(&key), Cipher::new(&key));
            let (mut one, mut two) = (plain.clone(), plain.clone());
            let tags = (quick.seal_in_place(&nonce, &aad, &mut one), careful.seal_in_place(&nonce, &aad, &mut two));
            prop_assert_eq!((&one, tags.0), (&two, tags.1));
            let mut opened = one.clone();
            quick.open_in_place(&nonce, &aad, &mut opened, &tags.0).unwrap();
            prop_assert_eq!(&opened, &plain);
            let mut all = [one.as_slice(), &tags.0].concat();
            let at = spoiled.index(all.len());
            all[at] ^= 1;
            let (body, tag) = all.split_last_chunk_mut::<16>().unwrap();
            prop_assert!(quick.open_in_place(&nonce, &aad, body, tag).is_err());
        }
    }

    /// NIST's example of AES-256-GCM with associated data (test case 16 of the GCM specification, McGrew and Viega).
    #[test]
    fn the_known_answer() {
        let hex = |text: &str| -> Vec<u8> {
            (0..text.len() / 2).map(|n| u8::from_str_radix(&text[2 * n..2 * n + 2], 16).unwrap()).collect()
        };
        let key = Secret::from_slice(&hex("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308")).unwrap();
        let mut text =
            hex("d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525\
             b16aedf5aa0de657ba637b39");
        let aad = hex("feedfacedeadbeeffeedfacedeadbeefabaddad2");
        let nonce = hex("cafebabefacedbaddecaf888").try_into().unwrap();
        let tag = BulkCipher::new(&key).seal_in_place(&nonce, &aad, &mut text);
        assert_eq!(text[..8], hex("522dc1f099567d07"));
        assert_eq!(tag.to_vec(), hex("76fc6ece0f4e1768cddf8853bb2d551b"));
    }
}
