//! What verdicts are to be, and what is wrong where they are not.

use super::{List, Names, Report, Signature};
use crate::error::{Error, Kind, Result};
use crate::model::signature::{Chain, PublicKey, Standing, Trust};
use crate::model::verdict::{Grade, Named};
use crate::policy::{self, PickleRule, SignatureRule};
use std::collections::HashSet;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Longest file with keys or certificates.
const PEM_MAX: u64 = 1 << 20;

/// What verdicts are to be, and whose signatures are believed.
#[derive(Default)]
pub struct Rules {
    signature: SignatureRule,
    pickle: PickleRule,
    trust: Vec<Trust>,
    /// Keys and certificates that could not be read: where, and why.
    unread: Vec<(PathBuf, String)>,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    /// What it is about: a file, a signature, a list.
    pub path: Vec<u8>,
    /// What is wrong.
    pub what: String,
    /// Whether it is more than a warning.
    pub refused: bool,
}

impl Rules {
    /// As they are given, with keys and certificates read from their files.
    ///
    /// # Errors
    /// A file that cannot be read or understood; signatures are required, and nobody is believed.
    pub fn read(spec: &policy::Trust) -> Result<Rules> {
        let (rules, failure) = Rules::gather(spec)?;
        failure.map_or(Ok(rules), Err)
    }

    /// The same for a backup: keys that cannot be read are complained of, and keep no snapshot from being made.
    ///
    /// # Errors
    /// Signatures are required, and nobody is named who is believed.
    pub fn for_backup(spec: &policy::Trust) -> Result<Rules> {
        Rules::gather(spec).map(|(rules, _)| rules)
    }

    /// The rules with what could be read, and the first thing that could not.
    fn gather(spec: &policy::Trust) -> Result<(Rules, Option<Error>)> {
        if spec.keys.is_empty() && spec.chains.is_empty() && spec.signature == SignatureRule::Require {
            return Err(Error::new(Kind::Config, "signatures are required, and nobody's are believed")
                .advise("give the public key of the signer, or certificates of authorities"));
        }
        let keys = spec.keys.iter().map(|file| (file, read_key(file).map(Trust::Key)));
        let chains = spec.chains.iter().map(|file| (file, read_chain(file).map(Trust::Chain)));
        let mut rules = Rules { signature: spec.signature, pickle: spec.pickle, ..Rules::default() };
        let mut failure = None;
        for (file, read) in keys.chain(chains) {
            match read {
                Ok(trust) => rules.trust.push(trust),
                Err(e) => {
                    rules.unread.push((file.clone(), format!("whose signatures are believed: {}", e.what())));
                    failure.get_or_insert(e);
                }
            }
        }
        Ok((rules, failure))
    }

    /// Who is believed.
    pub fn trust(&self) -> &[Trust] {
        if self.signature == SignatureRule::Off { &[] } else { &self.trust }
    }

    /// Whether anything may be refused by them.
    pub fn refuse(&self) -> bool {
        self.signature == SignatureRule::Require || self.pickle == PickleRule::Refuse
    }

    /// All that is wrong, what is refused first. What is unknown is refused like what is bad where that is refused, and is
    /// no complaint where one is only warned.
    pub fn complaints(&self, report: &Report) -> Vec<Complaint> {
        let mut found = Vec::new();
        self.pickles(report, &mut found);
        if self.signature != SignatureRule::Off {
            let require = self.signature == SignatureRule::Require;
            found.extend(self.unread.iter().map(|(path, why)| complaint(path, why.clone(), require)));
            report.signatures.iter().for_each(|signature| self.signature(signature, &mut found));
        }
        self.hashes(report, &mut found);
        let refuse = self.refuse();
        found.extend(report.errors.iter().map(|(path, why)| complaint(path, why.clone(), refuse)));
        found.sort_by_key(|complaint| !complaint.refused);
        found
    }

    fn pickles(&self, report: &Report, found: &mut Vec<Complaint>) {
        let least = match self.pickle {
            PickleRule::Off => return,
            PickleRule::Warn => Grade::Unsafe,
            PickleRule::Refuse => Grade::Unknown,
        };
        // A blob and the links to it are one file, that is best known by the name that a link gives it.
        let mut named = HashSet::new();
        let bad = || report.files.iter().filter(|file| file.verdict.pickle.grade >= least);
        let is_blob = |path: &Path| path.parent().and_then(Path::file_name).is_some_and(|name| name == "blobs");
        for blobs in [false, true] {
            for file in bad().filter(|file| is_blob(&file.path) == blobs) {
                if !named.insert(file.verdict.sha256) && blobs {
                    continue;
                }
                let pickle = &file.verdict.pickle;
                let finding = pickle.findings.iter().find(|finding| finding.grade == pickle.grade);
                let why = finding.map_or(String::new(), |finding| format!(": {}", finding.what));
                let what = format!("its pickle is {}{why}", pickle.grade.name());
                found.push(complaint(&file.path, what, self.pickle == PickleRule::Refuse));
            }
        }
    }

    fn signature(&self, signature: &Signature, found: &mut Vec<Complaint>) {
        let refused = self.signature == SignatureRule::Require;
        let mut complain = |what: String| found.push(complaint(&signature.path, what, refused));
        let Some(checked) = &signature.checked else {
            return complain("a signature is missing".into());
        };
        let bad = match checked.standing {
            Standing::Valid => false,
            // Without anybody who is believed nothing else was to be expected.
            Standing::Unknown => !self.trust.is_empty(),
            Standing::Expired | Standing::Invalid => true,
        };
        if bad {
            complain(format!("the signature is {}: {}", checked.standing.name(), checked.why));
        }
        let lists = [
            ("is missing", &signature.files.missing),
            ("is not signed", &signature.files.unlisted),
            ("is not as it was signed", &signature.files.different),
            ("was left out by the signer", &signature.files.unsaid),
        ];
        for (what, list) in lists {
            if let Some(said) = said(list, what) {
                complain(said);
            }
        }
    }

    fn hashes(&self, report: &Report, found: &mut Vec<Complaint>) {
        let refused = self.signature == SignatureRule::Require;
        for file in report.files.iter().filter(|file| file.verdict.blob == Named::Different) {
            found.push(complaint(&file.path, "its content is not what its name says".into(), refused));
        }
        for List { path, bad, missing, different } in &report.lists {
            for (what, list) in [("is missing", missing), ("is not as the list says", different)] {
                found.extend(said(list, what).map(|said| complaint(path, said, refused)));
            }
            if *bad > 0 {
                found.push(complaint(
                    path,
                    format!("{bad} lines are not understood, or contradict each other"),
                    refused,
                ));
            }
        }
    }
}

/// What is so of these files, if there are any.
fn said(names: &Names, what: &str) -> Option<String> {
    let first = names.first.first()?;
    Some(match names.total.saturating_sub(1) {
        0 => format!("{first} {what}"),
        more => format!("{first} {what}, and so are {more} more"),
    })
}

fn complaint(path: &Path, what: String, refused: bool) -> Complaint {
    use std::os::unix::ffi::OsStrExt;
    Complaint { path: path.as_os_str().as_bytes().to_vec(), what, refused }
}

/// A public key from a PEM file.
///
/// # Errors
/// It cannot be read or understood.
pub fn read_key(file: &Path) -> Result<PublicKey> {
    given(file, PublicKey::read)
}

/// Certificates of authorities from a PEM file.
///
/// # Errors
/// They cannot be read or understood.
pub fn read_chain(file: &Path) -> Result<Chain> {
    given(file, Chain::read)
}

fn given<T>(file: &Path, read: impl Fn(&str) -> std::result::Result<T, String>) -> Result<T> {
    let wrong = |what: String| Error::new(Kind::Config, what).at(file.display());
    let mut text = String::new();
    let opened = std::fs::File::open(file).map_err(|e| wrong(format!("cannot read it: {}", e.kind())))?;
    opened.take(PEM_MAX).read_to_string(&mut text).map_err(|e| wrong(format!("cannot read it: {}", e.kind())))?;
    read(&text).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::TimeMs;
    use crate::model::recorded::Recorded;
    use crate::model::signature::Checked;
    use crate::model::verdict::{FileVerdict, Signed};
    use crate::ops::verdicts::{Against, Judged};

    fn file(path: &str, content: &[u8]) -> Judged {
        let Recorded { sha256, pickle, .. } = Recorded::of(content);
        let verdict = FileVerdict { sha256, blob: Named::None, sums: Named::None, signed: Signed::None, pickle };
        Judged { path: path.into(), bytes: content.len() as u64, verdict }
    }

    fn signature(standing: Option<Standing>, unlisted: &[&str]) -> Signature {
        let checked = standing.map(|standing| Checked { standing, why: "w".into(), at: TimeMs(0), statement: None });
        let unlisted = unlisted.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>().into();
        Signature { path: "model.sig".into(), checked, files: Against { unlisted, ..Against::default() } }
    }

    fn said(rules: &Rules, report: &Report) -> Vec<(String, bool)> {
        let all = rules.complaints(report).into_iter();
        all.map(|c| (format!("{}: {}", String::from_utf8(c.path).unwrap(), c.what), c.refused)).collect()
    }

    #[test]
    fn unknown_pickles_are_refused_like_unsafe_ones_and_warned_of_by_none() {
        let (bad, strange) = (b"cos\nsystem\n(tR.", b"cmy_module\nNet\n.");
        let mut report = Report {
            files: vec![file("bad", bad), file("blobs/x", bad), file("good", b"words"), file("strange", strange)],
            ..Report::default()
        };
        assert_eq!(report.files[3].verdict.pickle.grade, Grade::Unknown);
        let with = |pickle| Rules { pickle, ..Rules::default() };
        assert!(said(&with(PickleRule::Off), &report).is_empty());
        let warned = said(&with(PickleRule::Warn), &report);
        assert!(
            warned.len() == 1 && warned[0].0.starts_with("bad: its pickle is unsafe: it loads os.system"),
            "{warned:?}"
        );
        assert!(!warned[0].1);
        let refused = said(&with(PickleRule::Refuse), &report);
        assert!(refused.len() == 2 && refused.iter().all(|(_, refused)| *refused), "{refused:?}");
        assert!(refused[1].0.starts_with("strange: its pickle is unknown"), "{refused:?}");
        // What could not be judged is not known to be harmless either.
        report.errors.push(("gone".into(), "it has no verdict".into()));
        assert!(said(&with(PickleRule::Refuse), &report).contains(&("gone: it has no verdict".into(), true)));
    }

    #[test]
    fn keys_that_cannot_be_read_are_complained_of_in_backups_and_fail_elsewhere() {
        for (signature, refused) in [(SignatureRule::Require, true), (SignatureRule::Warn, false)] {
            let spec = policy::Trust { signature, keys: vec!["/nonexistent/key".into()], ..policy::Trust::default() };
            assert_eq!(Rules::read(&spec).err().map(|e| e.kind()), Some(Kind::Config));
            let rules = Rules::for_backup(&spec).unwrap();
            let told = said(&rules, &Report::default());
            assert!(told.len() == 1 && told[0].1 == refused, "{told:?}");
            assert!(told[0].0.starts_with("/nonexistent/key: ") && told[0].0.contains("cannot read it"), "{told:?}");
        }
        let nobody = policy::Trust { signature: SignatureRule::Require, ..policy::Trust::default() };
        assert!(Rules::for_backup(&nobody).is_err());
    }

    #[test]
    fn signatures_are_required_or_warned_of() {
        let with = |signature| Rules { signature, ..Rules::default() };
        let (require, warn) = (with(SignatureRule::Require), with(SignatureRule::Warn));
        let report = |signature| Report { signatures: vec![signature], ..Report::default() };
        for (standing, files, count) in [
            (Some(Standing::Valid), &[][..], 0),
            (Some(Standing::Valid), &["a", "b"], 1),
            (Some(Standing::Expired), &[], 1),
            (Some(Standing::Invalid), &[], 1),
            (None, &[], 1),
        ] {
            let report = report(signature(standing, files));
            let (a, b) = (said(&require, &report), said(&warn, &report));
            assert!(a.len() == count && a.iter().all(|(_, refused)| *refused), "{standing:?}: {a:?}");
            assert!(b.len() == count && b.iter().all(|(_, refused)| !refused), "{standing:?}: {b:?}");
            assert!(said(&with(SignatureRule::Off), &report).is_empty());
        }
        let report = report(signature(Some(Standing::Valid), &["a", "b"]));
        assert_eq!(said(&warn, &report)[0].0, "model.sig: a is not signed, and so are 1 more");
    }
}
