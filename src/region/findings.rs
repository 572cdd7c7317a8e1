//! The ledger of what was found wrong with single copies.

use super::lock;
use crate::base::PackName;
use crate::error::{Error, Kind};
use crate::format::FormatError;
use crate::store::Key;
use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// The kinds of damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// The region does not have it.
    Missing,
    /// It is shorter or longer than it can be.
    Size,
    /// It is there, and cannot be read.
    Unreadable,
    /// Its bytes are not those that were written.
    Bytes,
    /// It was made for another repository, or with another key.
    Foreign,
    /// Its bytes are those that were written, but not by who may write it, or not for this place.
    Unsigned,
    /// Its bytes are those that were written, and what was written is wrong.
    Written,
    /// Something else.
    Other,
}

impl Flaw {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Flaw::Missing => "missing",
            Flaw::Size => "size",
            Flaw::Unreadable => "unreadable",
            Flaw::Bytes => "bytes",
            Flaw::Foreign => "foreign",
            Flaw::Unsigned => "unsigned",
            Flaw::Written => "written",
            Flaw::Other => "other",
        }
    }
}

/// What is wrong: in words, and of which kind.
#[derive(Debug, Clone)]
pub struct Wrong {
    flaw: Flaw,
    what: String,
}

impl From<&str> for Wrong {
    fn from(what: &str) -> Wrong {
        Wrong { flaw: Flaw::Other, what: what.to_owned() }
    }
}

impl From<String> for Wrong {
    fn from(what: String) -> Wrong {
        Wrong { flaw: Flaw::Other, what }
    }
}

impl From<(Flaw, String)> for Wrong {
    fn from((flaw, what): (Flaw, String)) -> Wrong {
        Wrong { flaw, what }
    }
}

impl From<&FormatError> for Wrong {
    fn from(why: &FormatError) -> Wrong {
        let flaw = match why {
            FormatError::Damaged(_) | FormatError::Malformed(..) => Flaw::Bytes,
            FormatError::Limit(_) => Flaw::Size,
            FormatError::Foreign | FormatError::WrongKey => Flaw::Foreign,
            FormatError::Unsigned(_) => Flaw::Unsigned,
            FormatError::WrittenWrong(_) => Flaw::Written,
            FormatError::Newer(_) => Flaw::Other,
        };
        Wrong { flaw, what: why.to_string() }
    }
}

impl From<&Error> for Wrong {
    /// What a store answers when it is asked for an object.
    fn from(e: &Error) -> Wrong {
        match e.kind() {
            Kind::NotFound => Wrong { flaw: Flaw::Missing, what: "missing".into() },
            Kind::Damage => Wrong { flaw: Flaw::Size, what: e.what().to_owned() },
            Kind::Foreign | Kind::WrongKey => Wrong { flaw: Flaw::Foreign, what: e.what().to_owned() },
            Kind::Newer => Wrong { flaw: Flaw::Other, what: e.what().to_owned() },
            _ => Wrong { flaw: Flaw::Unreadable, what: e.what().to_owned() },
        }
    }
}

/// Something wrong with one copy. The same thing said twice is one, whoever found out of which kind it is.
#[derive(Debug, Clone)]
pub struct Finding {
    /// Region.
    pub region: String,
    /// Object.
    pub object: String,
    /// What is wrong.
    pub what: String,
    /// Of which kind it is.
    pub flaw: Flaw,
}

impl Finding {
    fn said(&self) -> (&str, &str, &str) {
        (&self.region, &self.object, &self.what)
    }
}

impl PartialEq for Finding {
    fn eq(&self, other: &Finding) -> bool {
        self.said() == other.said()
    }
}

impl Eq for Finding {}

impl Hash for Finding {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.said().hash(state);
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "region {}: {}: {}", self.region, self.object, self.what)
    }
}

/// In the order in which they were found, each once. There may be as many as a region has objects.
#[derive(Debug, Default)]
struct Findings {
    all: Vec<Arc<Finding>>,
    known: HashSet<Arc<Finding>>,
    /// How often something was found, the same again included.
    times: u64,
}

/// The ledger.
#[derive(Debug, Default)]
pub(super) struct Found {
    findings: Mutex<Findings>,
    /// Packs with a finding.
    damaged: Mutex<HashSet<PackName>>,
    any_damaged: AtomicBool,
}

impl Found {
    pub(super) fn record(&self, region: &str, object: &str, Wrong { flaw, what }: Wrong) {
        let finding = Arc::new(Finding { region: region.to_owned(), object: object.to_owned(), what, flaw });
        let mut findings = lock(&self.findings);
        findings.times = findings.times.saturating_add(1);
        if findings.known.insert(Arc::clone(&finding)) {
            findings.all.push(finding);
        }
        drop(findings);
        if let Some(Key::Pack(name)) = Key::parse(object) {
            self.suspect([name]);
        }
    }

    pub(super) fn suspect(&self, packs: impl IntoIterator<Item = PackName>) {
        let mut damaged = lock(&self.damaged);
        damaged.extend(packs);
        self.any_damaged.store(!damaged.is_empty(), Ordering::Release);
    }

    pub(super) fn is_damaged(&self, name: &PackName) -> bool {
        self.any_damaged.load(Ordering::Acquire) && lock(&self.damaged).contains(name)
    }

    pub(super) fn all(&self) -> Vec<Finding> {
        lock(&self.findings).all.iter().map(|finding| Finding::clone(finding)).collect()
    }

    /// How often something was found: who reads an object and finds this unchanged met nothing, not even what was known.
    pub(super) fn times(&self) -> u64 {
        lock(&self.findings).times
    }
}
