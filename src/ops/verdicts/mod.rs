//! What is known of the files of models: verdicts on each, lists of hashes and signatures that speak of several, and what
//! follows from them where trust is asked for.
//!
//! A snapshot of kind [`KIND`] has a verdict with each of its files ([`attribute`]); [`Gathered`] makes one report of them,
//! while such a snapshot is made as well as when it is read again ([`of_snapshot`]), or judged again ([`Again`]). What lies beside the files is
//! compared by [`beside()`], wherever they are; what comes of it is judged by [`Rules`], and written down as [`labels`].

mod again;
pub mod attribute;
mod beside;
mod gathered;
mod labels;
mod links;
mod rules;
mod stoppable;
mod stored;

pub use again::{Again, Other};
pub use beside::{Means, Shelf, alone, beside};
pub use gathered::Gathered;
pub use labels::{Noted, is_refused, labels, noted};
pub use links::TO_FOLDER;
pub use rules::{Complaint, Rules, read_chain, read_key};
pub use stoppable::Stoppable;
pub use stored::{again_of_snapshot, of_snapshot};

use crate::error::Exit;
use crate::format::snapshot::Manifest;
use crate::model::recorded::Malformed;
use crate::model::signature::{Checked, Comparison, Standing};
use crate::model::verdict::{FileVerdict, Grade, Named};
use std::path::PathBuf;

/// Kind of the source.
pub const KIND: &str = "model";

/// Whether a snapshot is one of models.
pub fn is_one(manifest: &Manifest) -> bool {
    manifest.source.kind == KIND
}

/// One file that was judged.
#[derive(Debug, Clone)]
pub struct Judged {
    /// Its path as it was found.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// What was found.
    pub verdict: FileVerdict,
}

/// One signature.
#[derive(Debug, Clone)]
pub struct Signature {
    /// Where it is; where it should be, if it is missing.
    pub path: PathBuf,
    /// How it stands; none if it is missing.
    pub checked: Option<Checked>,
    /// The files beside what it says.
    pub files: Against,
}

/// Names of files: the first, and how many there are. Who wrote them down may have written as many as he liked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// The first, at most [`Names::MAX`].
    pub first: Vec<String>,
    /// All of them, counted.
    pub total: u64,
}

impl Names {
    /// Most that are kept.
    pub const MAX: usize = 100;

    /// One more.
    pub fn add(&mut self, name: String) {
        self.total = self.total.saturating_add(1);
        if self.first.len() < Names::MAX {
            self.first.push(name);
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.total == 0
    }
}

impl From<Vec<String>> for Names {
    fn from(mut all: Vec<String>) -> Names {
        let total = all.len() as u64;
        all.truncate(Names::MAX);
        all.shrink_to_fit();
        Names { first: all, total }
    }
}

/// The files of a folder beside those that were signed, as [`Comparison`] has them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Against {
    /// How many are as they were signed.
    pub same: u64,
    /// Signed, and not there.
    pub missing: Names,
    /// There, and not signed.
    pub unlisted: Names,
    /// Not as they were signed.
    pub different: Names,
    /// There, and left out by the signer.
    pub ignored: Names,
    /// Of these, those that may do harm: all but empty ones, and lists that Git alone reads.
    pub unsaid: Names,
}

impl Against {
    fn of(files: Comparison) -> Against {
        Against {
            same: files.same.len() as u64,
            missing: files.missing.into(),
            unlisted: files.unlisted.into(),
            different: files.different.into(),
            ignored: files.ignored.into(),
            unsaid: Names::default(),
        }
    }

    /// Whether the folder is what was signed.
    pub fn is_same(&self) -> bool {
        self.missing.is_empty() && self.unlisted.is_empty() && self.different.is_empty()
    }
}

impl Signature {
    /// The word for how it stands.
    pub fn standing(&self) -> &'static str {
        self.checked.as_ref().map_or("missing", |checked| checked.standing.name())
    }
}

/// One list of hashes.
#[derive(Debug, Clone)]
pub struct List {
    /// Where it is.
    pub path: PathBuf,
    /// Lines that were not understood, or contradict each other.
    pub bad: u64,
    /// Files that it names and that are not there.
    pub missing: Names,
    /// Files that it names and that are others.
    pub different: Names,
}

/// All that was found.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// By path.
    pub files: Vec<Judged>,
    /// Signatures.
    pub signatures: Vec<Signature>,
    /// Lists of hashes.
    pub lists: Vec<List>,
    /// Files that begin like a model and are none: the first, at most [`Report::MALFORMED_MAX`]. They are bytes like others.
    pub malformed: Vec<(PathBuf, Malformed)>,
    /// How many there are.
    pub malformed_total: u64,
    /// What could not be read, and why.
    pub errors: Vec<(PathBuf, String)>,
}

impl Report {
    /// Most malformed files that are kept.
    pub const MALFORMED_MAX: usize = 1000;

    /// The worst of all files.
    pub fn grade(&self) -> Grade {
        self.files.iter().map(|file| file.verdict.pickle.grade).max().unwrap_or(Grade::None)
    }

    /// How many files are of a grade.
    pub fn count(&self, grade: Grade) -> usize {
        self.files.iter().filter(|file| file.verdict.pickle.grade == grade).count()
    }

    /// The exit code: damage for what is bad, partial for what is not known.
    pub fn exit(&self) -> Exit {
        let signature = |signature: &Signature| match signature.checked.as_ref().map(|checked| checked.standing) {
            None | Some(Standing::Invalid | Standing::Expired) => Exit::Damage,
            Some(_) if !signature.files.is_same() => Exit::Damage,
            Some(Standing::Unknown) => Exit::Partial,
            Some(Standing::Valid) => Exit::Done,
        };
        let list = |list: &List| match (list.missing.is_empty() && list.different.is_empty(), list.bad) {
            (false, _) => Exit::Damage,
            (true, 0) => Exit::Done,
            _ => Exit::Partial,
        };
        let file = |file: &Judged| match file.verdict.pickle.grade {
            _ if file.verdict.blob == Named::Different => Exit::Damage,
            Grade::Unsafe => Exit::Damage,
            Grade::Unknown => Exit::Partial,
            Grade::Safe | Grade::None => Exit::Done,
        };
        let read = if self.errors.is_empty() { Exit::Done } else { Exit::Partial };
        let all = self.signatures.iter().map(signature).chain(self.lists.iter().map(list));
        all.chain(self.files.iter().map(file)).fold(read, Exit::worse)
    }
}
