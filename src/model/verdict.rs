//! Verdicts: what is known of a file's content, in words that can be shown, compared and stored.

use ring::digest;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::io::Read;

/// How many findings of one file are kept; the rest is counted.
pub const FINDINGS_MAX: usize = 64;
/// Longest text of one finding.
const WORDS_MAX: usize = 400;
/// Longest text of one finding's place.
const PLACE_MAX: usize = 1000;

/// What loading a file would do. The order is that of concern: of several, the greatest counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Grade {
    /// There is no pickle in it.
    None,
    /// Pickles that make nothing but what is known to be harmless.
    Safe,
    /// It was not read wholly, or names what is not known. Never to be taken for safe.
    Unknown,
    /// It would do what no checkpoint needs to do.
    Unsafe,
}

impl Grade {
    /// The word that is shown.
    pub fn name(self) -> &'static str {
        match self {
            Grade::None => "none",
            Grade::Safe => "safe",
            Grade::Unknown => "unknown",
            Grade::Unsafe => "unsafe",
        }
    }
}

/// One reason for a grade.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Finding {
    /// How bad it is.
    pub grade: Grade,
    /// Where inside the file: the entries of archives, from the outside in; empty for the file itself.
    pub place: String,
    /// Byte within that place.
    pub offset: u64,
    /// The global it is about, as `module.name`.
    pub global: Option<String>,
    /// What it is.
    pub what: String,
}

/// What was found in one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The worst of all findings.
    pub grade: Grade,
    /// Pickles that were walked to their end.
    pub pickles: u64,
    /// The first findings, the worst of them for certain.
    pub findings: Vec<Finding>,
    /// How many there were.
    pub findings_total: u64,
}

impl Default for Report {
    fn default() -> Self {
        Report { grade: Grade::None, pickles: 0, findings: Vec::new(), findings_total: 0 }
    }
}

impl Report {
    /// Adds a finding about bytes.
    pub fn add(&mut self, grade: Grade, place: &str, offset: u64, what: impl Into<String>) {
        let (place, what) = (cut(place, PLACE_MAX), cut(&what.into(), WORDS_MAX));
        self.push(Finding { grade, place, offset, global: None, what });
    }

    /// Adds a finding; where there are too many, a bad one takes the place of one that is not.
    pub fn push(&mut self, finding: Finding) {
        self.grade = self.grade.max(finding.grade);
        self.findings_total = self.findings_total.saturating_add(1);
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        } else if finding.grade == Grade::Unsafe
            && let Some(other) = self.findings.iter_mut().rev().find(|f| f.grade < Grade::Unsafe)
        {
            *other = finding;
        }
    }

    /// It is at least so bad.
    pub fn at_least(&mut self, grade: Grade) {
        self.grade = self.grade.max(grade);
    }
}

/// Text of at most so many bytes.
pub fn cut(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    let end = (0..=max).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    format!("{}…", text.get(..end).unwrap_or_default())
}

/// SHA-256 of a file's content.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sha256(pub [u8; 32]);

impl Sha256 {
    /// Of all that `input` gives.
    ///
    /// # Errors
    /// It could not be read.
    pub fn of(input: &mut dyn Read) -> std::io::Result<Sha256> {
        let mut hashing = Hashing::default();
        let mut buffer = vec![0; 256 << 10];
        loop {
            match input.read(&mut buffer) {
                Ok(0) => return Ok(hashing.finish()),
                Ok(got) => hashing.update(buffer.get(..got).unwrap_or_default()),
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// In hexadecimal.
    pub fn hex(&self) -> String {
        let mut text = String::with_capacity(64);
        for byte in &self.0 {
            let _ = write!(text, "{byte:02x}");
        }
        text
    }

    /// From 64 hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<Sha256> {
        let digits = text.as_bytes();
        if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        let mut out = [0; 32];
        for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Sha256(out))
    }
}

/// A SHA-256 that is under way, for content that comes in pieces.
#[derive(Clone)]
pub struct Hashing(digest::Context);

impl Default for Hashing {
    fn default() -> Self {
        Hashing(digest::Context::new(&digest::SHA256))
    }
}

impl Hashing {
    /// The next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// So many zero bytes: a hole.
    pub fn zeros(&mut self, mut count: u64) {
        const ZEROS: [u8; 16 << 10] = [0; 16 << 10];
        while count > 0 {
            let part = usize::try_from(count).unwrap_or(usize::MAX).min(ZEROS.len());
            self.0.update(ZEROS.get(..part).unwrap_or_default());
            count = count.saturating_sub(part as u64);
        }
    }

    /// The hash of all of it.
    pub fn finish(self) -> Sha256 {
        let mut out = [0; 32];
        out.iter_mut().zip(self.0.finish().as_ref()).for_each(|(to, from)| *to = *from);
        Sha256(out)
    }
}

impl std::fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.hex())
    }
}

impl From<Sha256> for String {
    fn from(digest: Sha256) -> String {
        digest.hex()
    }
}

impl TryFrom<String> for Sha256 {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Sha256::from_hex(&text).ok_or_else(|| "no SHA-256 in hexadecimal".to_owned())
    }
}

/// How a file compares with a hash that somebody wrote down for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Named {
    /// Nobody wrote one down.
    None,
    /// It is the same.
    Same,
    /// It is another.
    Different,
}

impl Named {
    /// Of the hash that was written down, if one was, and that of the content.
    pub fn of(written: Option<Sha256>, found: Sha256) -> Named {
        match written {
            None => Named::None,
            Some(written) if written == found => Named::Same,
            Some(_) => Named::Different,
        }
    }

    /// The word that is shown.
    pub fn name(self) -> &'static str {
        match self {
            Named::None => "none",
            Named::Same => "same",
            Named::Different => "different",
        }
    }
}

/// What a signature says of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Signed {
    /// No signature speaks of it.
    None,
    /// It is as it was signed.
    Same,
    /// The signer left it out by its name.
    Ignored,
    /// It lies in the signed folder, and was not signed.
    Unlisted,
    /// It is not as it was signed.
    Different,
}

impl Signed {
    /// The word that is shown.
    pub fn name(self) -> &'static str {
        match self {
            Signed::None => "none",
            Signed::Same => "same",
            Signed::Ignored => "ignored",
            Signed::Unlisted => "unlisted",
            Signed::Different => "different",
        }
    }
}

/// All verdicts on one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileVerdict {
    /// Hash of its content.
    pub sha256: Sha256,
    /// Compared with its name, where it is a blob of a Hugging Face cache.
    pub blob: Named,
    /// Compared with a `SHA256SUMS` beside it or above.
    pub sums: Named,
    /// Compared with a signature.
    pub signed: Signed,
    /// What loading it would do.
    pub pickle: Report,
}

/// The hash that a blob's name in a Hugging Face cache claims: `blobs/` and 64 digits. Blobs that are no large files are
/// named by Git's SHA-1, of which nothing is believed.
pub fn blob_name(parent: &str, name: &str) -> Option<Sha256> {
    let lower = name.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase());
    if parent == "blobs" && lower { Sha256::from_hex(name) } else { None }
}

/// The lines of a `SHA256SUMS`: hash and name, in the form of `sha256sum` or of BSD. Lines that are neither are counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sums {
    /// Hash and name, in the order of the file.
    pub lines: Vec<(Sha256, String)>,
    /// Lines that were not understood.
    pub bad: u64,
    /// Names that have two different hashes.
    pub twice: BTreeSet<String>,
}

impl Sums {
    /// Reads them.
    pub fn read(text: &str) -> Sums {
        let mut sums = Sums::default();
        let mut known = std::collections::BTreeMap::new();
        for line in text.lines().map(str::trim_end).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            match sum_line(line) {
                Some((hash, name)) => {
                    if *known.entry(name.clone()).or_insert(hash) != hash {
                        sums.twice.insert(name.clone());
                    }
                    sums.lines.push((hash, name));
                }
                None => sums.bad = sums.bad.saturating_add(1),
            }
        }
        sums
    }
}

fn sum_line(line: &str) -> Option<(Sha256, String)> {
    let clean = |name: &str| name.strip_prefix("./").unwrap_or(name).to_owned();
    if let Some(rest) = line.strip_prefix("SHA256 (") {
        let (name, hash) = rest.rsplit_once(") = ")?;
        return Some((Sha256::from_hex(hash)?, clean(name)));
    }
    let hash = Sha256::from_hex(line.get(..64)?)?;
    let rest = line.get(64..)?;
    let name = rest.strip_prefix("  ").or_else(|| rest.strip_prefix(" *"))?;
    Some((hash, clean(name))).filter(|(_, name)| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_finding_is_kept_however_many_there_are() {
        let mut report = Report::default();
        (0..1000).for_each(|n| report.add(Grade::Unknown, "", n, "x"));
        report.add(Grade::Unsafe, "", 1, "bad");
        assert_eq!((report.grade, report.findings.len(), report.findings_total), (Grade::Unsafe, FINDINGS_MAX, 1001));
        assert!(report.findings.iter().any(|f| f.what == "bad"));
    }

    #[test]
    fn sums_of_both_forms_are_read() {
        let hash = "ab".repeat(32);
        let text = format!("{hash}  a b\n{hash} *./c\n\nSHA256 (d (e)) = {hash}\nrubbish\n{}  a b\n", "cd".repeat(32));
        let sums = Sums::read(&text);
        let names: Vec<&str> = sums.lines.iter().map(|(_, name)| name.as_str()).collect();
        assert_eq!(names, ["a b", "c", "d (e)", "a b"]);
        assert_eq!((sums.bad, sums.twice.len()), (1, 1));
        assert_eq!(sums.lines[0].0.hex(), hash);
    }

    #[test]
    fn only_blobs_are_named_by_their_hash() {
        let hash = "0f".repeat(32);
        assert!(blob_name("blobs", &hash).is_some());
        assert!(blob_name("snapshots", &hash).is_none());
        assert!(blob_name("blobs", &hash[..40]).is_none());
        assert!(blob_name("blobs", &hash.to_uppercase()).is_none());
    }
}
