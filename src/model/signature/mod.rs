//! OpenSSF Model Signing v1, off-line: a bundle, whom to believe, and the files.
//!
//! The signature is checked before a word of the statement is believed. Keys and authorities come from whoever asks, and
//! never from the bundle. What the statement says of files is compared as sets: missing, unlisted, different, and what
//! the signer left out is named.

mod bundle;
mod der;
mod key;
mod statement;
mod text;

use crate::base::TimeMs;
pub use bundle::BUNDLE_MAX;
use bundle::{Bundle, Material};
use key::Vouched;
pub use key::{Chain, PublicKey, Trust};
use serde::{Deserialize, Serialize};
pub use statement::{Hash, Piece, Range, Statement};
use std::collections::BTreeMap;

/// How a signature stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// It is right, and made by who is believed.
    Valid,
    /// It could not be judged: nobody to believe was given, or it is of a kind that is not known.
    Unknown,
    /// It is right, and the certificate it rests on has ended.
    Expired,
    /// It is wrong, broken, or made by somebody else.
    Invalid,
}

impl Standing {
    /// The word that is shown.
    pub fn name(self) -> &'static str {
        match self {
            Standing::Valid => "valid",
            Standing::Unknown => "unknown",
            Standing::Expired => "expired",
            Standing::Invalid => "invalid",
        }
    }
}

/// What a signature came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// How it stands.
    pub standing: Standing,
    /// Why, in words.
    pub why: String,
    /// When this was so.
    pub at: TimeMs,
    /// What it says; of one that is invalid nothing.
    pub statement: Option<Statement>,
}

/// Checks a bundle. Without anybody to believe it is at best unknown.
pub fn check(bytes: &[u8], trust: &[Trust], now: TimeMs) -> Checked {
    let (standing, why, statement) = match Bundle::read(bytes) {
        Err(why) => (Standing::Invalid, why, None),
        Ok(bundle) => {
            let (standing, why) = judged(&bundle, trust, now);
            match Statement::read(&bundle.payload) {
                _ if standing == Standing::Invalid => (standing, why, None),
                Ok(statement) => (standing, why, Some(statement)),
                // Who is believed said what is not understood here.
                Err(e) if e.ends_with("is not known here") => (Standing::Unknown, e, None),
                Err(e) => (Standing::Invalid, e, None),
            }
        }
    };
    Checked { standing, why, at: now, statement }
}

fn judged(bundle: &Bundle, trust: &[Trust], now: TimeMs) -> (Standing, String) {
    let message = bundle.message();
    let told = match &bundle.material {
        Material::Key(hint) => by_key(bundle, hint.as_deref(), &message, trust),
        Material::Certificates(certificates) => by_chain(bundle, certificates, &message, trust, now),
        Material::Keyless => Some((Standing::Unknown, "it rests on a public log, which is not asked".into())),
    };
    told.unwrap_or_else(|| {
        let wanted = if matches!(bundle.material, Material::Key(_)) { "key" } else { "certificate of an authority" };
        (Standing::Unknown, format!("no {wanted} to check it with was given"))
    })
}

fn by_key(bundle: &Bundle, hint: Option<&str>, message: &[u8], trust: &[Trust]) -> Option<(Standing, String)> {
    let keys = || trust.iter().filter_map(|trust| if let Trust::Key(key) = trust { Some(key) } else { None });
    if keys().any(|key| key.signed(message, &bundle.signature)) {
        return Some((Standing::Valid, "signed by the given key".into()));
    }
    let named = hint.is_none_or(|hint| hint.is_empty() || keys().any(|key| key.hint == hint));
    let why = if named { "it is wrong, or what it signs was changed" } else { "it says that another key made it" };
    keys().next().map(|_| (Standing::Invalid, why.into()))
}

fn by_chain(
    bundle: &Bundle,
    certificates: &[Vec<u8>],
    message: &[u8],
    trust: &[Trust],
    now: TimeMs,
) -> Option<(Standing, String)> {
    let chains = trust.iter().filter_map(|trust| if let Trust::Chain(chain) = trust { Some(chain) } else { None });
    let told = chains.map(|chain| match chain.vouches(certificates, message, &bundle.signature, now) {
        Vouched::Now => (Standing::Valid, "signed by whom the given authority vouches for".to_owned()),
        Vouched::Until(time) => (Standing::Expired, format!("its certificate ended at {}", time.rfc3339())),
        Vouched::No(why) => (Standing::Invalid, why),
    });
    told.min_by_key(|(standing, _)| *standing)
}

/// The files of a folder beside those that were signed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comparison {
    /// As they were signed.
    pub same: Vec<String>,
    /// Signed, and not there.
    pub missing: Vec<String>,
    /// There, and not signed.
    pub unlisted: Vec<String>,
    /// Not as they were signed.
    pub different: Vec<String>,
    /// There, and left out by the signer, by name or as they are empty: nothing is said of them.
    pub ignored: Vec<String>,
}

impl Comparison {
    /// Whether the folder is what was signed.
    pub fn is_same(&self) -> bool {
        self.missing.is_empty() && self.unlisted.is_empty() && self.different.is_empty()
    }
}

/// Gives the hashes of parts of a file that follow one another from its front to its end, all of them out of one reading, or
/// none if it could not be read.
pub type Digests<'a> = dyn FnMut(&str, &[Range]) -> Option<Vec<Vec<u8>>> + 'a;

/// Compares what is `there`, paths and sizes, with a statement.
pub fn compare(statement: &Statement, there: &BTreeMap<String, u64>, digests: &mut Digests<'_>) -> Comparison {
    let mut found = Comparison::default();
    for (path, pieces) in &statement.files {
        let Some(size) = there.get(path) else {
            found.missing.push(path.clone());
            continue;
        };
        let ranges: Vec<Range> = pieces.iter().map(|piece| piece.range.unwrap_or((0, *size))).collect();
        let mut at = 0;
        let follow = ranges.iter().all(|(start, end)| {
            let follows = *start == at && start <= end;
            at = *end;
            follows
        });
        // Parts that leave out an end would leave it unsigned.
        let same = follow && at == *size && {
            let wanted = pieces.iter().map(|piece| &piece.digest);
            digests(path, &ranges).is_some_and(|found| found.iter().eq(wanted))
        };
        let list = if same { &mut found.same } else { &mut found.different };
        list.push(path.clone());
    }
    for (path, size) in there.iter().filter(|(path, _)| !statement.files.contains_key(*path)) {
        let unsaid = statement.ignores(path) || (statement.sharded && *size == 0);
        let list = if unsaid { &mut found.ignored } else { &mut found.unlisted };
        list.push(path.clone());
    }
    found
}
