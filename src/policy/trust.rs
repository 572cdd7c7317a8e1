//! What becomes of models that are not to be trusted.

use super::paths::absolute;
use super::sheet::Sheet;
use super::types::{PickleRule, SignatureRule, SourceKind, SourceSpec, TrustSpec};
use std::path::PathBuf;

/// What is asked of models, and who is believed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trust {
    /// Of signatures.
    pub signature: SignatureRule,
    /// Of pickles.
    pub pickle: PickleRule,
    /// Files with public keys.
    pub keys: Vec<PathBuf>,
    /// Files with certificates of authorities.
    pub chains: Vec<PathBuf>,
}

impl Trust {
    /// The document that says the same.
    pub(super) fn effective(&self) -> TrustSpec {
        let texts = |paths: &[PathBuf]| paths.iter().map(|path| path.display().to_string()).collect();
        TrustSpec {
            signature: Some(self.signature),
            pickle: Some(self.pickle),
            key: texts(&self.keys),
            chain: texts(&self.chains),
        }
    }
}

/// Judges what a source says of its kind; `None`: it has no models.
pub(super) fn judge(sheet: &mut Sheet<'_>, at: &str, source: &SourceSpec) -> Option<Trust> {
    let is_model = source.kind == Some(SourceKind::Model);
    let elsewhere = match (&source.etcd, &source.bucket, source.kind) {
        (Some(_), _, Some(_)) => {
            Some(("the source is a cluster of etcd and has a kind of paths", "leave kind out: `etcd:` says what it is"))
        }
        (None, Some(_), Some(SourceKind::Files)) => Some((
            "the source is a bucket and has a kind of paths",
            "leave kind out: `bucket:` says what it is; or write `kind: model`, and its objects are judged",
        )),
        _ => None,
    };
    if let Some((what, advice)) = elsewhere {
        sheet.refuse(&format!("{at}.kind"), what, advice);
    }
    if !is_model && source.trust.is_some() {
        sheet.refuse(&format!("{at}.trust"), "trust is asked of models only", "add `kind: model`, or leave it out");
    }
    if !is_model {
        return None;
    }
    let none = TrustSpec::default();
    let spec = source.trust.as_ref().unwrap_or(&none);
    let mut paths = |field: &str, texts: &[String]| -> Vec<PathBuf> {
        let all = texts.iter().enumerate();
        all.filter_map(|(n, text)| sheet.take(&format!("{at}.trust.{field}[{n}]"), absolute(text))).collect()
    };
    let (keys, chains) = (paths("key", &spec.key), paths("chain", &spec.chain));
    let (signature, pickle) = (spec.signature.unwrap_or_default(), spec.pickle.unwrap_or_default());
    let believed = !spec.key.is_empty() || !spec.chain.is_empty();
    if signature == SignatureRule::Require && !believed {
        let advice = "add `key:` with the signer's public key, or `chain:` with certificates of authorities";
        sheet.refuse(&format!("{at}.trust.signature"), "signatures are required, and nobody's are believed", advice);
    }
    if signature == SignatureRule::Off && believed {
        let advice = "leave key and chain out, or write `signature: warn`";
        sheet.refuse(&format!("{at}.trust.signature"), "signatures are off, and somebody's are believed", advice);
    }
    Some(Trust { signature, pickle, keys, chains })
}
