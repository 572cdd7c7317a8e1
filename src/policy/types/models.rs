//! Fields of sources that are models. The comments are the schema's descriptions.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the paths of a source, or its bucket, hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum SourceKind {
    /// Anything.
    #[default]
    Files,
    /// Models.
    Model,
}

/// What becomes of models that are not to be trusted. Nothing of it keeps a snapshot from being made: one that has what is
/// refused is marked, its run fails, and it is restored only with leave.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TrustSpec {
    /// Signatures (OpenSSF Model Signing). Default: warn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<SignatureRule>,
    /// Pickles. Default: warn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pickle: Option<PickleRule>,
    /// Files (PEM) with the public keys whose signatures are believed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub key: Vec<String>,
    /// Files (PEM) with certificates of the authorities that vouch for signers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chain: Vec<String>,
}

/// What is asked of signatures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum SignatureRule {
    /// Each file is signed by who is believed, and is as it was signed; anything else is refused.
    Require,
    /// What is wrong is said.
    #[default]
    Warn,
    /// Nothing.
    Off,
}

/// What is asked of pickles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum PickleRule {
    /// What is not known to be harmless is refused: unsafe and unknown ones.
    Refuse,
    /// Unsafe ones are said.
    #[default]
    Warn,
    /// Nothing.
    Off,
}
