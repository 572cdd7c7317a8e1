//! A verdict as a snapshot of models keeps it beside each file (docs/format.md, section 12): hash of the content, what
//! loading it would do, and what keeps it from being the model that it begins like. It stands in an extended attribute that
//! the source does not have, so it goes with the file wherever that is taken over, copied or pruned, and a program that does
//! not know it gives it back as what it is.

use super::archive::examine;
use super::format::{self, Found};
use super::verdict::{Finding, Grade, Hashing, Report, Sha256, cut};
use serde::{Deserialize, Serialize};

/// Name of the attribute.
pub const ATTRIBUTE: &[u8] = b"user.holdfast.verdict";
/// Version of what stands in it.
const VERSION: u32 = 1;
/// Findings that are kept, the worst first, and the longest texts of them: an attribute is to fit into its entry.
const FINDINGS_MAX: usize = 6;
const WORDS_MAX: usize = 160;
const PLACE_MAX: usize = 200;
const FORMAT_MAX: usize = 40;
/// Longest attribute that is believed.
const BYTES_MAX: usize = 64 << 10;

/// What is known of a file's content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    v: u32,
    /// Hash of it.
    pub sha256: Sha256,
    /// What loading it would do.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub pickle: Report,
    /// That it begins like a model, and is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub malformed: Option<Malformed>,
    /// Whether it was stored and could then not be read again to be judged: the next run is to try.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unread: bool,
}

fn is_nothing(report: &Report) -> bool {
    *report == Report::default()
}

/// What keeps a file from being the model that it begins like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Malformed {
    /// The format that it begins like.
    pub format: String,
    /// What is wrong.
    pub what: String,
    /// Where, roughly: a byte of the file.
    pub at: u64,
}

impl Malformed {
    /// Of what a file was found to be.
    pub fn of(found: &Found) -> Option<Malformed> {
        let Found::Malformed(format, malformed) = found else { return None };
        Some(Malformed { format: format.name().to_owned(), what: malformed.what.to_owned(), at: malformed.at }.short())
    }

    /// With texts that are not too long to be kept.
    #[must_use]
    pub fn short(self) -> Malformed {
        Malformed { format: cut(&self.format, FORMAT_MAX), what: cut(&self.what, WORDS_MAX), at: self.at }
    }
}

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "no {}: {} at byte {}", self.format, self.what, self.at)
    }
}

impl Recorded {
    /// Of a hash, and of what was found; the last findings are left out where there are many.
    pub fn new(sha256: Sha256, mut pickle: Report) -> Recorded {
        pickle.findings.sort_by_key(|finding| std::cmp::Reverse(finding.grade));
        pickle.findings.truncate(FINDINGS_MAX);
        for Finding { place, global, what, .. } in &mut pickle.findings {
            (*place, *what) = (cut(place, PLACE_MAX), cut(what, WORDS_MAX));
            *global = global.as_deref().map(|name| cut(name, WORDS_MAX));
        }
        Recorded { v: VERSION, sha256, pickle, malformed: None, unread: false }
    }

    /// Of bytes.
    pub fn of(bytes: &[u8]) -> Recorded {
        let mut hashing = Hashing::default();
        hashing.update(bytes);
        let found = format::read(&bytes, bytes.len() as u64);
        let malformed = found.ok().as_ref().and_then(Malformed::of);
        Recorded { malformed, ..Recorded::new(hashing.finish(), examine(&bytes)) }
    }

    /// Of a file that changed while it was read: what was judged may be another content than what was stored.
    #[must_use]
    pub fn changed(mut self) -> Recorded {
        self.pickle.add(Grade::Unknown, "", 0, "the file changed while it was read");
        Recorded::new(self.sha256, self.pickle)
    }

    /// Of a file that could not be read again to be judged.
    #[must_use]
    pub fn unread(mut self) -> Recorded {
        self.pickle.add(Grade::Unknown, "", 0, "it could not be read again to be judged");
        Recorded { malformed: self.malformed, unread: true, ..Recorded::new(self.sha256, self.pickle) }
    }

    /// The attribute's value.
    pub fn value(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// From an attribute's value; `None` for one that this program did not write, or that says less than its grade needs.
    pub fn read(value: &[u8]) -> Option<Recorded> {
        let found: Recorded = if value.len() > BYTES_MAX { None } else { serde_json::from_slice(value).ok() }?;
        let worst = found.pickle.findings.iter().map(|finding| finding.grade).max().unwrap_or(Grade::None);
        (found.v == VERSION && worst <= found.pickle.grade).then_some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_comes_back_and_fits_into_an_entry() {
        let plain = Recorded::of(b"words");
        assert_eq!(Recorded::read(&plain.value()), Some(plain.clone()));
        assert!(plain.value().len() < 100, "{}", plain.value().len());
        let mut report = Report::default();
        for n in 0..100 {
            report.add(Grade::Unknown, &"p".repeat(900), n, "\u{1}".repeat(300));
        }
        report.add(Grade::Unsafe, "", 7, "bad");
        let malformed = Malformed { format: "f".repeat(99), what: "\u{1}".repeat(300), at: u64::MAX }.short();
        let kept = Recorded { malformed: Some(malformed), ..Recorded::new(plain.sha256, report) }.unread();
        assert!(kept.value().len() < 8000, "{}", kept.value().len());
        assert_eq!(Recorded::read(&kept.value()).as_ref(), Some(&kept));
        let read = Recorded::read(&kept.value()).unwrap();
        assert_eq!((read.pickle.grade, read.pickle.findings_total), (Grade::Unsafe, 102));
        assert_eq!(read.pickle.findings[0].what, "bad");
    }

    #[test]
    fn what_begins_like_a_model_and_is_none_is_noted() {
        let with = |header: &str, data: usize| {
            [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![7; data]].concat()
        };
        let header = r#"{"t":{"dtype":"U8","shape":[9],"data_offsets":[0,9]}}"#;
        assert_eq!(Recorded::of(&with(header, 9)).malformed, None);
        assert_eq!(Recorded::of(b"{}").malformed, None);
        let short = Recorded::of(&with(header, 8));
        let malformed = short.malformed.as_ref().map(|malformed| malformed.format.as_str());
        assert_eq!((malformed, short.pickle.grade), (Some("safetensors"), Grade::None));
        assert_eq!(Recorded::read(&short.value()), Some(short));
        // What a later reader says of it is passed over, as this one is by an earlier.
        let more = r#"{"v":1,"sha256":"00","later":1}"#.replace("00", &"00".repeat(32));
        assert!(Recorded::read(more.as_bytes()).is_some_and(|read| read.malformed.is_none() && !read.unread));
    }

    #[test]
    fn what_is_not_understood_is_no_verdict() {
        let text = String::from_utf8(Recorded::of(b"cos\nsystem\n(tR.").value()).unwrap();
        assert!(Recorded::read(text.as_bytes()).is_some_and(|read| read.pickle.grade == Grade::Unsafe));
        let milder = text.replacen("\"grade\":\"unsafe\"", "\"grade\":\"safe\"", 1);
        assert_ne!(milder, text);
        for bad in [&milder, &text.replace("\"v\":1", "\"v\":2"), &text[..text.len() - 1], "", "[]"] {
            assert_eq!(Recorded::read(bad.as_bytes()), None, "{bad}");
        }
    }
}
