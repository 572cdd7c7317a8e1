//! Ed25519 (RFC 8032), verified strictly.

use super::Secret;
use crate::base::WriterId;
use ed25519_dalek::Signer;

/// Signs.
pub struct SigningKey(ed25519_dalek::SigningKey);

impl SigningKey {
    /// From its seed.
    pub fn from_seed(seed: &Secret<32>) -> SigningKey {
        SigningKey(ed25519_dalek::SigningKey::from_bytes(seed.bytes()))
    }

    /// The public half.
    pub fn verify_key(&self) -> VerifyKey {
        VerifyKey(self.0.verifying_key().to_bytes())
    }

    /// A signature.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SigningKey")
    }
}

/// Checks signatures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerifyKey(pub [u8; 32]);

impl VerifyKey {
    /// Whether `signature` over `message` is by this key.
    pub fn verify(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        #[cfg(feature = "testing")]
        return super::remembered::verified([&self.0, signature, message], || self.verify_now(message, signature));
        #[cfg(not(feature = "testing"))]
        self.verify_now(message, signature)
    }

    fn verify_now(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        let signature = ed25519_dalek::Signature::from_bytes(signature);
        ed25519_dalek::VerifyingKey::from_bytes(&self.0).is_ok_and(|key| key.verify_strict(message, &signature).is_ok())
    }

    /// First half of the key's hash.
    pub fn writer_id(&self) -> WriterId {
        let mut id = [0; 16];
        id.copy_from_slice(&blake3::hash(&self.0).as_bytes()[..16]);
        WriterId(id)
    }
}

impl<C> minicbor::Encode<C> for VerifyKey {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.bytes(&self.0)?;
        Ok(())
    }
}

impl<'b, C> minicbor::Decode<'b, C> for VerifyKey {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        let bytes: [u8; 32] =
            d.bytes()?.try_into().map_err(|_| minicbor::decode::Error::message("wrong length of a verify key"))?;
        Ok(VerifyKey(bytes))
    }
}
