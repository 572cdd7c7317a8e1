//! One answer of the doctor: what was looked at, how good it is, what it means, what to do.

use crate::error::Error;

/// How good it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grade {
    /// As it should be.
    Good,
    /// Worth knowing; nothing needs to be done.
    Note,
    /// It works, and something should be done.
    Warning,
    /// It does not work, or not for long.
    Bad,
}

impl Grade {
    /// In words for people and in `--json`.
    pub fn name(self) -> &'static str {
        match self {
            Grade::Good => "good",
            Grade::Note => "note",
            Grade::Warning => "warning",
            Grade::Bad => "bad",
        }
    }
}

/// One answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// How good it is.
    pub grade: Grade,
    /// What was found, and what it means for the repository.
    pub says: String,
    /// What to do.
    pub advice: Option<String>,
    /// Whether it shows that stored bytes were damaged or rolled back.
    pub damage: bool,
}

impl Check {
    /// An answer without advice.
    pub fn new(name: &'static str, grade: Grade, says: impl Into<String>) -> Check {
        Check { name, grade, says: says.into(), advice: None, damage: false }
    }

    /// As it should be.
    pub fn good(name: &'static str, says: impl Into<String>) -> Check {
        Check::new(name, Grade::Good, says)
    }

    /// Worth knowing.
    pub fn note(name: &'static str, says: impl Into<String>) -> Check {
        Check::new(name, Grade::Note, says)
    }

    /// Something should be done.
    pub fn warning(name: &'static str, says: impl Into<String>) -> Check {
        Check::new(name, Grade::Warning, says)
    }

    /// It does not work.
    pub fn bad(name: &'static str, says: impl Into<String>) -> Check {
        Check::new(name, Grade::Bad, says)
    }

    /// What an error says, with its advice.
    pub fn of(name: &'static str, grade: Grade, e: &Error) -> Check {
        Check { advice: e.advice().map(str::to_owned), ..Check::new(name, grade, e.what()) }
    }

    /// With what to do, unless that is said already.
    pub fn advise(mut self, advice: impl Into<String>) -> Check {
        self.advice.get_or_insert(advice.into());
        self
    }

    /// As a sign of damage.
    pub fn damage(self) -> Check {
        Check { damage: true, ..self }
    }
}
