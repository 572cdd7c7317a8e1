//! The record of a closed run (docs/format.md, section 5). Nothing depends on one: it says what was done.

use super::FormatError;
use super::signed::Fresh;
use super::snapshot::Miss;
use crate::base::{RunId, SessionId};
use minicbor::{Decode, Encode};

/// Most errors that are kept by name.
pub const ERRORS_MAX: usize = 20;
/// Most figures.
pub const FIGURES_MAX: usize = 64;

/// What was executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunKind {
    /// A source became a snapshot.
    Backup,
    /// Copies were checked.
    Verify,
    /// A snapshot became files.
    Restore,
    /// Snapshots were marked as no longer wanted.
    Forget,
    /// Regions were brought up.
    Replicate,
    /// What no snapshot needs was removed.
    Prune,
}

impl RunKind {
    /// Its name in the record and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            RunKind::Backup => "backup",
            RunKind::Verify => "verify",
            RunKind::Restore => "restore",
            RunKind::Forget => "forget",
            RunKind::Replicate => "replicate",
            RunKind::Prune => "prune",
        }
    }
}

/// A number with its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(array)]
pub struct Figure {
    /// As in `docs/json.md`.
    #[n(0)]
    pub name: String,
    /// How many.
    #[n(1)]
    pub value: u64,
}

/// A region that did not get everything.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Lagging {
    /// Its name.
    #[n(0)]
    pub region: String,
    /// Reason.
    #[n(1)]
    pub why: String,
}

/// A run from its begin to its end.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Run {
    /// What its writer knew.
    #[n(0)]
    pub fresh: Fresh,
    /// Run.
    #[n(1)]
    pub id: RunId,
    /// What was executed: a name of [`RunKind`], or one of a newer program.
    #[n(2)]
    pub kind: String,
    /// Policy.
    #[n(3)]
    pub policy: Option<String>,
    /// Name of the source.
    #[n(4)]
    pub source: Option<String>,
    /// Host.
    #[n(5)]
    pub host: String,
    /// Start, ms.
    #[n(6)]
    pub start: i64,
    /// End, ms.
    #[n(7)]
    pub end: i64,
    /// Exit code.
    #[n(8)]
    pub exit: u8,
    /// Its name.
    #[n(9)]
    pub exit_name: String,
    /// Snapshots made, restored or forgotten.
    #[n(10)]
    pub snapshots: Vec<SessionId>,
    /// Figures, sorted by name.
    #[n(11)]
    pub figures: Vec<Figure>,
    /// Regions that have everything.
    #[n(12)]
    pub reached: Vec<String>,
    /// Regions that have not.
    #[n(13)]
    pub behind: Vec<Lagging>,
    /// The first errors.
    #[n(14)]
    pub errors: Vec<Miss>,
    /// Number of errors.
    #[n(15)]
    pub errors_total: u64,
    /// Program version.
    #[n(16)]
    pub program: String,
    /// What ended it.
    #[n(17)]
    pub error: Option<String>,
    /// Mode or level.
    #[n(18)]
    pub how: Option<String>,
}

impl Run {
    /// Checks what the type cannot.
    ///
    /// # Errors
    /// Limits exceeded, another run's id, or figures out of order.
    pub fn check(&self, id: RunId) -> Result<(), FormatError> {
        if self.id != id {
            return Err(FormatError::Unsigned("not the record of this run"));
        }
        if self.errors.len() > ERRORS_MAX || self.figures.len() > FIGURES_MAX {
            return Err(FormatError::Limit("list of a run"));
        }
        if self.figures.windows(2).any(|pair| pair[0].name >= pair[1].name) {
            return Err(FormatError::WrittenWrong("figures are not sorted"));
        }
        Ok(())
    }
}
