//! Lists of hashes and signatures of folders, once all files below are known.

use super::{Judged, List, Report, Signature};
use crate::base::{Cancel, TimeMs};
use crate::error::Result;
use crate::model::signature::{self, BUNDLE_MAX, Comparison, Hash, Range, Standing, Statement, Trust};
use crate::model::verdict::{Named, Sha256, Signed, Sums};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::path::{Path, PathBuf};

/// The name of a signature, and that of a list of hashes.
const SIGNATURE: &str = "model.sig";
const SUMS: &str = "SHA256SUMS";
/// Longest list of hashes that is read.
const SUMS_MAX: u64 = 64 << 20;

/// Where files can be read again.
pub trait Shelf {
    /// All of a small file; a link leads to its file.
    ///
    /// # Errors
    /// It is not there, is longer than `max`, or could not be read.
    fn whole(&self, path: &Path, max: u64) -> io::Result<Vec<u8>>;

    /// A hash of a part of a file, if it can be had.
    fn digest(&self, file: &Judged, hash: Hash, range: Range) -> Option<Vec<u8>>;
}

/// By whom it is judged, when, and where files are read again.
pub struct Means<'a> {
    /// Who is believed; where somebody is, each file must lie in a folder that is signed, or below one.
    pub trust: &'a [Trust],
    /// Now.
    pub now: TimeMs,
    /// Where files are read again.
    pub shelf: &'a dyn Shelf,
    /// Raised when it is to stop.
    pub cancel: &'a Cancel,
}

/// Compares the files of a report from `first` on, which lie below `root`, with what lies beside them.
///
/// # Errors
/// It was stopped.
pub fn beside(report: &mut Report, root: &Path, first: usize, means: &Means<'_>) -> Result<()> {
    let mut run = Run { report, first, means };
    let named = |name: &str| -> Vec<PathBuf> {
        let paths = run.files().map(|file| &file.path);
        paths.filter(|path| path.file_name().is_some_and(|n| n == name)).cloned().collect()
    };
    let (lists, mut signatures) = (named(SUMS), named(SIGNATURE));
    for list in lists {
        means.cancel.check()?;
        run.list(&list);
    }
    if !means.trust.is_empty() {
        run.unsigned(root, &signatures).into_iter().for_each(|folder| run.missing(&folder));
    }
    signatures.sort_unstable();
    for path in signatures {
        means.cancel.check()?;
        let below = run.below(path.parent().unwrap_or(&path));
        run.signature(&path, below, false);
    }
    Ok(())
}

/// Compares one file with the signature of its folder, as far as that speaks of it.
pub fn alone(report: &mut Report, path: &Path, first: usize, means: &Means<'_>) {
    let mut run = Run { report, first, means };
    let folder = path.parent().unwrap_or(path).to_owned();
    let signature = folder.join(SIGNATURE);
    match means.shelf.whole(&signature, BUNDLE_MAX as u64) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => run.missing(&folder),
        // What cannot be read is told when it is read.
        _ => {
            let below = run.below(&folder);
            run.signature(&signature, below, true);
        }
    }
}

struct Run<'r> {
    report: &'r mut Report,
    first: usize,
    means: &'r Means<'r>,
}

impl Run<'_> {
    fn files(&self) -> impl Iterator<Item = &Judged> {
        self.report.files.iter().skip(self.first)
    }

    fn failed(&mut self, path: &Path, e: &io::Error) {
        self.report.errors.push((path.to_owned(), why(e)));
    }

    /// A file as it was judged, and not as it may have become since.
    fn whole(&self, path: &Path, max: u64) -> io::Result<Vec<u8>> {
        let bytes = self.means.shelf.whole(path, max)?;
        let judged = self.files().find(|file| file.path == path);
        match judged.map(|file| Sha256::of(&mut &bytes[..]).map(|found| found == file.verdict.sha256)).transpose()? {
            Some(false) => Err(io::Error::other("it changed while it was judged")),
            _ => Ok(bytes),
        }
    }

    /// Folders of files that no signature is said to cover, without those that lie in one of them.
    fn unsigned(&self, root: &Path, signatures: &[PathBuf]) -> BTreeSet<PathBuf> {
        if signatures.is_empty() {
            return [root.to_owned()].into();
        }
        let signed: HashSet<&Path> = signatures.iter().filter_map(|path| path.parent()).collect();
        let files = self.files().filter_map(|file| file.path.parent());
        let folders: BTreeSet<&Path> =
            files.filter(|folder| !folder.ancestors().any(|above| signed.contains(above))).collect();
        let inner = |folder: &Path| folder.ancestors().skip(1).any(|above| folders.contains(above));
        folders.iter().filter(|folder| !inner(folder)).map(|folder| folder.to_path_buf()).collect()
    }

    fn missing(&mut self, folder: &Path) {
        let path = folder.join(SIGNATURE);
        self.report.signatures.push(Signature { path, checked: None, files: Comparison::default() });
    }

    /// The files below a folder: path below it, and place in the report.
    fn below(&self, folder: &Path) -> BTreeMap<String, usize> {
        let files = self.report.files.iter().enumerate().skip(self.first);
        files
            .filter_map(|(n, file)| Some((file.path.strip_prefix(folder).ok()?.to_string_lossy().into_owned(), n)))
            .collect()
    }

    fn list(&mut self, path: &Path) {
        let text = match self.whole(path, SUMS_MAX) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(e) => return self.failed(path, &e),
        };
        let sums = Sums::read(&text);
        let below = self.below(path.parent().unwrap_or(path));
        let bad = sums.bad.saturating_add(sums.twice.len() as u64);
        let mut list = List { path: path.to_owned(), bad, missing: Vec::new(), different: Vec::new() };
        for (hash, name) in sums.lines {
            let Some(file) = below.get(&name).and_then(|n| self.report.files.get_mut(*n)) else {
                list.missing.push(name);
                continue;
            };
            let found = Named::of(Some(hash), file.verdict.sha256);
            file.verdict.sums = file.verdict.sums.max(found);
            if found == Named::Different {
                list.different.push(name);
            }
        }
        self.report.lists.push(list);
    }

    /// Checks a signature and compares the files `below` its folder with it; of `some` of them only these.
    fn signature(&mut self, path: &Path, mut below: BTreeMap<String, usize>, some: bool) {
        let bytes = match self.whole(path, BUNDLE_MAX as u64) {
            Ok(bytes) => bytes,
            Err(e) => return self.failed(path, &e),
        };
        let checked = signature::check(&bytes, self.means.trust, self.means.now);
        below.remove(SIGNATURE);
        let mut files = match &checked.statement {
            Some(statement) => self.compare(statement, &below),
            None => Comparison::default(),
        };
        if some {
            files.missing.clear();
        }
        let believed = matches!(checked.standing, Standing::Valid | Standing::Expired);
        let lists = [
            (&files.same, Signed::Same),
            (&files.ignored, Signed::Ignored),
            (&files.unlisted, Signed::Unlisted),
            (&files.different, Signed::Different),
        ];
        for (list, signed) in lists.into_iter().filter(|_| believed) {
            for n in list.iter().filter_map(|path| below.get(path)) {
                if let Some(file) = self.report.files.get_mut(*n) {
                    file.verdict.signed = file.verdict.signed.max(signed);
                }
            }
        }
        self.report.signatures.push(Signature { path: path.to_owned(), checked: Some(checked), files });
    }

    fn compare(&self, statement: &Statement, below: &BTreeMap<String, usize>) -> Comparison {
        let file = |path: &str| below.get(path).and_then(|n| self.report.files.get(*n));
        let there = below.keys().filter_map(|path| Some((path.clone(), file(path)?.bytes))).collect();
        signature::compare(statement, &there, &mut |path, (start, end)| {
            let file = file(path)?;
            if statement.hash == Hash::Sha256 && (start, end) == (0, file.bytes) {
                return Some(file.verdict.sha256.0.to_vec());
            }
            self.means.shelf.digest(file, statement.hash, (start, end))
        })
    }
}

/// What an error says: its words, where it has some of its own.
pub(super) fn why(e: &io::Error) -> String {
    if e.kind() == io::ErrorKind::Other { e.to_string() } else { e.kind().to_string() }
}
