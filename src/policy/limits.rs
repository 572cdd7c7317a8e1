//! What a run may use.

use super::rate::Rate;
use super::sheet::Sheet;
use super::types::LimitsSpec;
use crate::chunk::Compression;

/// What a run may use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// How much work goes into making content smaller.
    pub compression: Compression,
    /// Most that is written to each region.
    pub upload: Option<Rate>,
    /// Most that is read from files.
    pub read: Option<Rate>,
    /// Threads that work.
    pub workers: Option<u32>,
}

impl Limits {
    /// The document that says the same with nothing left out.
    pub(super) fn effective(&self) -> LimitsSpec {
        let text = |rate: &Option<Rate>| rate.as_ref().map(|rate| rate.text().to_owned());
        LimitsSpec {
            compression: Some(self.compression.name().into()),
            upload: text(&self.upload),
            read: text(&self.read),
            workers: self.workers,
        }
    }

    /// In words.
    pub(super) fn sentences(&self) -> Vec<String> {
        let mut said = Vec::new();
        if self.compression != Compression::default() {
            said.push(format!("compression: {}", self.compression.name()));
        }
        said.extend(self.upload.as_ref().map(|rate| format!("writes at most {} to each region", rate.text())));
        said.extend(self.read.as_ref().map(|rate| format!("reads at most {} from files", rate.text())));
        said.extend(self.workers.map(|count| format!("works with {count} threads")));
        said
    }
}

/// Judges what a document says.
pub(super) fn judge(sheet: &mut Sheet<'_>, spec: Option<&LimitsSpec>) -> Limits {
    let Some(spec) = spec else { return Limits::default() };
    let mut rate = |path: &str, text: &Option<String>| sheet.take(path, Rate::parse(text.as_deref()?));
    Limits {
        upload: rate("spec.limits.upload", &spec.upload),
        read: rate("spec.limits.read", &spec.read),
        // The schema lets no other name pass.
        compression: spec.compression.as_deref().and_then(Compression::parse).unwrap_or_default(),
        workers: spec.workers,
    }
}
