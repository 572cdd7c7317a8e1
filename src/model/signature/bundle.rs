//! The file `model.sig`: a bundle of Sigstore around an envelope (DSSE) around a statement (in-toto).

use super::text::base64;
use serde::Deserialize;

/// Longest bundle that is read: a hundred thousand files.
pub const BUNDLE_MAX: usize = 32 << 20;
const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";

/// What is in a bundle.
pub struct Bundle {
    /// The statement, as it was signed.
    pub payload: Vec<u8>,
    /// The signature.
    pub signature: Vec<u8>,
    /// With what it can be checked.
    pub material: Material,
}

/// With what a signature says it can be checked.
pub enum Material {
    /// A key that one must have; perhaps its hash.
    Key(Option<String>),
    /// Certificates, the signer's first.
    Certificates(Vec<Vec<u8>>),
    /// Something else: a certificate of the hour, and a public log.
    Keyless,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Outer {
    media_type: String,
    verification_material: Verification,
    dsse_envelope: Envelope,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Verification {
    public_key: Option<KeyId>,
    x509_certificate_chain: Option<Certificates>,
}

#[derive(Deserialize)]
struct KeyId {
    hint: Option<String>,
}

#[derive(Deserialize)]
struct Certificates {
    certificates: Vec<Certificate>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Certificate {
    raw_bytes: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<Signature>,
}

#[derive(Deserialize)]
struct Signature {
    sig: String,
}

impl Bundle {
    /// Reads it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(bytes: &[u8]) -> Result<Bundle, String> {
        if bytes.len() > BUNDLE_MAX {
            return Err("it is too large".into());
        }
        let outer: Outer = serde_json::from_slice(bytes).map_err(|e| format!("it is no bundle: {e}"))?;
        if outer.media_type != MEDIA_TYPE {
            return Err("it is a bundle of another kind".into());
        }
        let envelope = outer.dsse_envelope;
        if envelope.payload_type != PAYLOAD_TYPE {
            return Err("it signs something else than a statement".into());
        }
        let [signature] = &envelope.signatures[..] else { return Err("it has not exactly one signature".into()) };
        let decoded = |text: &str, what: &str| base64(text).ok_or_else(|| format!("its {what} is no base64"));
        let material =
            match (outer.verification_material.public_key, outer.verification_material.x509_certificate_chain) {
                (Some(key), None) => Material::Key(key.hint),
                (None, Some(chain)) => {
                    let all = chain.certificates.iter().map(|c| decoded(&c.raw_bytes, "certificate"));
                    Material::Certificates(all.collect::<Result<_, _>>()?)
                }
                (None, None) => Material::Keyless,
                (Some(_), Some(_)) => return Err("it says two ways in which it can be checked".into()),
            };
        Ok(Bundle {
            payload: decoded(&envelope.payload, "payload")?,
            signature: decoded(&signature.sig, "signature")?,
            material,
        })
    }

    /// The bytes that the signature is about.
    pub fn message(&self) -> Vec<u8> {
        let head = format!("DSSEv1 {} {PAYLOAD_TYPE} {} ", PAYLOAD_TYPE.len(), self.payload.len());
        [head.as_bytes(), &self.payload].concat()
    }
}
