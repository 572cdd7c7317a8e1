//! Public keys, and chains of certificates, in whose hands a signature is believed.

use super::der::{self, BITS, Der, OID, SEQUENCE};
use super::text::pem;
use crate::base::TimeMs;
use ring::signature as ring;
use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, UnixTime};
use std::time::Duration;
use webpki::ring::{
    ECDSA_P256_SHA256, ECDSA_P256_SHA384, ECDSA_P384_SHA256, ECDSA_P384_SHA384, ED25519, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
};
use webpki::{EndEntityCert, KeyUsage};

/// With which a certificate may be signed by another one.
const ISSUING: &[&dyn SignatureVerificationAlgorithm] = &[
    ECDSA_P256_SHA256,
    ECDSA_P256_SHA384,
    ECDSA_P384_SHA256,
    ECDSA_P384_SHA384,
    ED25519,
    RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512,
];
/// With which a model may be signed.
const SIGNING: &[&dyn SignatureVerificationAlgorithm] = &[ECDSA_P256_SHA256, ECDSA_P384_SHA384, ED25519];
/// The use "signing of code", 1.3.6.1.5.5.7.3.3.
const CODE_SIGNING: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 3];
const MAX_CERTIFICATES: usize = 64;

/// Whose signatures are believed.
pub enum Trust {
    /// Of the holder of one key.
    Key(PublicKey),
    /// Of those whom an authority vouches for.
    Chain(Chain),
}

/// A public key.
pub struct PublicKey {
    algorithm: &'static dyn ring::VerificationAlgorithm,
    bits: Vec<u8>,
    /// SHA-256 of the key as text, by which a bundle may name it.
    pub hint: String,
}

impl PublicKey {
    /// From a PEM file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(text: &str) -> Result<PublicKey, String> {
        let blocks = pem(text).ok_or("it is no PEM file")?;
        let [(label, bytes)] = &blocks[..] else { return Err("one public key is expected in it".into()) };
        if label != "PUBLIC KEY" {
            return Err(format!("it holds a {}, and a PUBLIC KEY is expected", label.to_lowercase()));
        }
        let (algorithm, bits) = spki(bytes).ok_or("the key is broken")?;
        let algorithm: &'static dyn ring::VerificationAlgorithm = match algorithm {
            Algorithm::P256 => &ring::ECDSA_P256_SHA256_ASN1,
            Algorithm::P384 => &ring::ECDSA_P384_SHA384_ASN1,
            Algorithm::Ed25519 => &ring::ED25519,
            Algorithm::Other => return Err("only keys of P-256, P-384 and Ed25519 are known".into()),
        };
        Ok(PublicKey { algorithm, bits: bits.to_vec(), hint: hint(text) })
    }

    /// Whether it signed `message`.
    pub fn signed(&self, message: &[u8], signature: &[u8]) -> bool {
        ring::UnparsedPublicKey::new(self.algorithm, &self.bits).verify(message, signature).is_ok()
    }
}

fn hint(text: &str) -> String {
    let lines: String = text.trim().lines().map(|line| format!("{}\n", line.trim())).collect();
    let digest = ::ring::digest::digest(&::ring::digest::SHA256, lines.as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Algorithm {
    P256,
    P384,
    Ed25519,
    Other,
}

/// Algorithm and bits of a SubjectPublicKeyInfo.
fn spki(bytes: &[u8]) -> Option<(Algorithm, &[u8])> {
    const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
    const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
    const P384: &[u8] = &[0x2b, 0x81, 4, 0, 0x22];
    const ED25519: &[u8] = &[0x2b, 0x65, 0x70];
    let mut outer = Der(Der(bytes).expect_tag(SEQUENCE)?);
    let mut names = Der(outer.expect_tag(SEQUENCE)?);
    let bits = outer.expect_tag(BITS)?.strip_prefix(&[0])?;
    let (first, curve) = (names.expect_tag(OID)?, names.expect_tag(OID));
    let algorithm = match (first, curve) {
        (EC, Some(P256)) => Algorithm::P256,
        (EC, Some(P384)) => Algorithm::P384,
        (ED25519, None) => Algorithm::Ed25519,
        _ => Algorithm::Other,
    };
    Some((algorithm, bits))
}

/// Certificates of authorities.
pub struct Chain {
    authorities: Vec<CertificateDer<'static>>,
}

/// What a chain says of a signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Vouched {
    /// It is right, and the certificates are valid now.
    Now,
    /// It is right, and a certificate ended at this time.
    Until(TimeMs),
    /// It is wrong, or nobody vouches for it.
    No(String),
}

impl Chain {
    /// From a PEM file: its certificates that may issue others are believed.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(text: &str) -> Result<Chain, String> {
        let blocks = pem(text).ok_or("it is no PEM file")?;
        let certificates = blocks.into_iter().filter(|(label, _)| label == "CERTIFICATE").map(|(_, bytes)| bytes);
        let authorities: Vec<CertificateDer<'static>> =
            certificates.filter(|bytes| der::is_authority(bytes)).map(CertificateDer::from).collect();
        if authorities.is_empty() {
            return Err("no certificate of an authority is in it".into());
        }
        Ok(Chain { authorities })
    }

    /// Judges a signature and the certificates that came with it, the signer's first.
    pub fn vouches(&self, certificates: &[Vec<u8>], message: &[u8], signature: &[u8], now: TimeMs) -> Vouched {
        let no = |why: &str| Vouched::No(why.to_owned());
        let Some((first, between)) = certificates.split_first() else { return no("it has no certificate") };
        if between.len() > MAX_CERTIFICATES {
            return no("it has too many certificates");
        }
        let first = CertificateDer::from(first.as_slice());
        let Ok(signer) = EndEntityCert::try_from(&first) else { return no("its certificate is broken") };
        if der::may_not_sign(&first) {
            return no("its certificate may not be used to sign");
        }
        if !SIGNING.iter().any(|algorithm| signer.verify_signature(*algorithm, message, signature).is_ok()) {
            return no("it was not made by the key of its certificate, or what it signs was changed");
        }
        let between: Vec<CertificateDer<'_>> = between.iter().map(|c| CertificateDer::from(c.as_slice())).collect();
        let seconds = u64::try_from(now.0.div_euclid(1000)).unwrap_or(0);
        let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        match self.path(&signer, &between, now) {
            Ok(()) => Vouched::Now,
            // What ended was right at its last moment, or it never was.
            Err(webpki::Error::CertExpired { not_after, .. }) => match self.path(&signer, &between, not_after) {
                Ok(()) => Vouched::Until(TimeMs(i64::try_from(not_after.as_secs()).unwrap_or(0).saturating_mul(1000))),
                Err(e) => Vouched::No(format!("its certificate ended, and was not valid before: {e}")),
            },
            Err(e) => Vouched::No(format!("none of the given authorities vouches for it: {e}")),
        }
    }

    fn path(
        &self,
        signer: &EndEntityCert<'_>,
        between: &[CertificateDer<'_>],
        at: UnixTime,
    ) -> Result<(), webpki::Error> {
        let anchors = self.authorities.iter().map(webpki::anchor_from_trusted_cert).collect::<Result<Vec<_>, _>>()?;
        let usage = KeyUsage::required_if_present(CODE_SIGNING);
        signer.verify_for_usage(ISSUING, &anchors, between, at, usage, None, None).map(drop)
    }
}
