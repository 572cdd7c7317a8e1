//! What a manifest says of its verdicts: counts, what was wrong, and whether that was refused. Every label can be found
//! again from the tree; this is what was so when the snapshot was made, and what a list of snapshots can show.

use super::{Complaint, Report, is_one};
use crate::base::TimeMs;
use crate::format::snapshot::{Label, Manifest};
use crate::model::verdict::{Grade, cut};
use std::collections::BTreeMap;

const CHECKED: &str = "model.checked";
const COMPLAINTS: &str = "model.complaints";
const FILES: &str = "model.files";
const NONE: &str = "model.pickles.none";
const REFUSED: &str = "model.refused";
const SAFE: &str = "model.pickles.safe";
const SIGNATURES: &str = "model.signatures";
const UNKNOWN: &str = "model.pickles.unknown";
const UNSAFE: &str = "model.pickles.unsafe";
/// Complaints that are kept in words, and the longest.
const COMPLAINTS_MAX: usize = 20;
const WORDS_MAX: usize = 400;

/// The labels of a snapshot of models.
pub fn labels(report: &Report, complaints: &[Complaint], now: TimeMs) -> Vec<Label> {
    let refused = complaints.iter().filter(|complaint| complaint.refused).count();
    let said = complaints.iter().take(COMPLAINTS_MAX).map(|complaint| {
        let path = String::from_utf8_lossy(&complaint.path);
        cut(&format!("{path}: {}", complaint.what).replace('\n', " "), WORDS_MAX)
    });
    let said = said.collect::<Vec<_>>().join("\n");
    let mut standings: BTreeMap<&str, u64> = BTreeMap::new();
    report.signatures.iter().for_each(|signature| *standings.entry(signature.standing()).or_default() += 1);
    let signatures: Vec<String> = standings.iter().map(|(name, count)| format!("{name} {count}")).collect();
    let count = |grade| Some(report.count(grade).to_string());
    let all = [
        (CHECKED, Some(now.rfc3339())),
        (COMPLAINTS, Some(said).filter(|said| !said.is_empty())),
        (FILES, Some(report.files.len().to_string())),
        (NONE, count(Grade::None)),
        (SAFE, count(Grade::Safe)),
        (UNKNOWN, count(Grade::Unknown)),
        (UNSAFE, count(Grade::Unsafe)),
        (REFUSED, (refused > 0).then(|| refused.to_string())),
        (SIGNATURES, Some(signatures.join(", ")).filter(|text| !text.is_empty())),
    ];
    all.into_iter().filter_map(|(key, value)| Some(Label { key: key.into(), value: value? })).collect()
}

/// What the labels of a snapshot of models say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Noted {
    /// Files, links to files among them.
    pub files: u64,
    /// Of them, those without a pickle.
    pub none: u64,
    /// With pickles that are known to be harmless.
    pub safe: u64,
    /// With pickles that are not.
    pub unknown: u64,
    /// With pickles that would do harm.
    pub unsafe_: u64,
    /// How many signatures stand how.
    pub signatures: String,
    /// When this was so.
    pub checked: String,
    /// How much was refused.
    pub refused: u64,
    /// What was wrong, the first of it.
    pub complaints: Vec<String>,
}

impl Noted {
    /// In one line.
    pub fn line(&self) -> String {
        let signatures = match self.signatures.as_str() {
            "" => "no signature",
            some => some,
        };
        let marked = if self.refused > 0 { "; REFUSED" } else { "" };
        format!(
            "{} files: {} without pickles, {} safe, {} unknown, {} UNSAFE; signatures: {signatures}{marked}",
            self.files, self.none, self.safe, self.unknown, self.unsafe_
        )
    }
}

/// Whether something of a snapshot was refused when it was made.
pub fn is_refused(manifest: &Manifest) -> bool {
    is_one(manifest) && manifest.labels.iter().any(|label| label.key == REFUSED)
}

/// What a snapshot says of its verdicts; `None` for one that is not of models.
pub fn noted(manifest: &Manifest) -> Option<Noted> {
    let text = |key: &str| manifest.labels.iter().find(|label| label.key == key).map(|label| label.value.as_str());
    let number = |key: &str| text(key).and_then(|text| text.parse().ok()).unwrap_or(0);
    let words = |key: &str| text(key).unwrap_or_default().to_owned();
    is_one(manifest).then(|| Noted {
        files: number(FILES),
        none: number(NONE),
        safe: number(SAFE),
        unknown: number(UNKNOWN),
        unsafe_: number(UNSAFE),
        signatures: words(SIGNATURES),
        checked: words(CHECKED),
        refused: number(REFUSED),
        complaints: words(COMPLAINTS).lines().map(str::to_owned).collect(),
    })
}
