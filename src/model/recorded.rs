//! A verdict as a snapshot of models keeps it beside each file (docs/format.md, section 12): hash of the content and what
//! loading it would do. It stands in an extended attribute that the source does not have, so it goes with the file wherever
//! that is taken over, copied or pruned, and a program that does not know it gives it back as what it is.

use super::archive::examine;
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
}

fn is_nothing(report: &Report) -> bool {
    *report == Report::default()
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
        Recorded { v: VERSION, sha256, pickle }
    }

    /// Of bytes.
    pub fn of(bytes: &[u8]) -> Recorded {
        let mut hashing = Hashing::default();
        hashing.update(bytes);
        Recorded::new(hashing.finish(), examine(&bytes))
    }

    /// Of a file that changed while it was read: what was judged may be another content than what was stored.
    #[must_use]
    pub fn changed(mut self) -> Recorded {
        self.pickle.add(Grade::Unknown, "", 0, "the file changed while it was read");
        Recorded::new(self.sha256, self.pickle)
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
        let kept = Recorded::new(plain.sha256, report);
        assert!(kept.value().len() < 8000, "{}", kept.value().len());
        let read = Recorded::read(&kept.value()).unwrap();
        assert_eq!((read.pickle.grade, read.pickle.findings_total), (Grade::Unsafe, 101));
        assert_eq!(read.pickle.findings[0].what, "bad");
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
