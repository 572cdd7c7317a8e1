//! What snapshots of models say of their verdicts. Nothing is judged anew here: a verdict is of the content, and whether that
//! is what it was the rest of the check says.

use crate::base::SessionId;
use crate::ops::verdicts::{Noted, noted};
use crate::repo::view::View;
use std::collections::BTreeSet;
use std::fmt;

/// Most snapshots that are shown.
const SHOWN_MAX: usize = 1000;

/// The verdicts on one snapshot, as they were when it was made.
#[derive(Debug, Clone)]
pub struct Told {
    /// The snapshot.
    pub sid: SessionId,
    /// Its source.
    pub source: String,
    /// What it says.
    pub noted: Noted,
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "models of {}, snapshot {}: {}", self.source, self.sid.short(), self.noted.line())?;
        match self.noted.complaints.first() {
            Some(first) if self.noted.refused > 0 => write!(f, ": {first}"),
            _ => Ok(()),
        }
    }
}

/// The newest of each source, and all of which something was refused; newest first.
pub(super) fn of(view: &View) -> Vec<Told> {
    let mut known = BTreeSet::new();
    let all = view.newest_first().into_iter().filter_map(|snapshot| {
        let (manifest, noted) = (&snapshot.manifest, noted(&snapshot.manifest)?);
        let newest = known.insert(manifest.source.name.clone());
        let source = manifest.source.name.clone();
        (newest || noted.refused > 0).then_some(Told { sid: manifest.sid, source, noted })
    });
    all.take(SHOWN_MAX).collect()
}
