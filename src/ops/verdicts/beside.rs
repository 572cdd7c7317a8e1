//! Lists of hashes and signatures of folders, once all files below are known.

use super::{Against, Judged, List, Names, Report, Signature};
use crate::base::{Cancel, TimeMs};
use crate::error::Result;
use crate::model::signature::{self, BUNDLE_MAX, Comparison, Hash, Range, Standing, Statement, Trust};
use crate::model::verdict::{Hashing, Named, Sha256, Signed, Sums};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The name of a signature, and that of a list of hashes.
const SIGNATURE: &str = "model.sig";
const SUMS: &str = "SHA256SUMS";
/// Longest list of hashes that is read.
const SUMS_MAX: u64 = 16 << 20;
/// What signers leave out by default, and nobody reads but Git, as patterns.
const HARMLESS: [&str; 2] = [".gitattributes", ".gitignore"];
/// What lists and signatures may cost, all of them together: a folder that comes from a stranger may have as many as it likes.
const BUDGET: Budget = Budget { bytes: 64 << 20, files: 16 << 20, again: 1 << 30 };
/// How often all files may be read again for signatures by parts or by another hash, beside what [`BUDGET`] has.
const READS_MAX: u64 = 4;

/// Where files can be read again.
pub trait Shelf {
    /// A file, from its front; a link leads to its file.
    ///
    /// # Errors
    /// It is not there, is no file, or could not be read.
    fn open(&self, path: &Path) -> io::Result<Box<dyn Read + '_>>;
}

/// All of a small file.
fn whole(shelf: &dyn Shelf, path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    shelf.open(path)?.take(max.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(bytes) }
}

/// The hashes of all parts of a file, which follow one another. They are those of what was judged: the same bytes that are
/// hashed by parts are hashed as a whole, and compared with what is known of that.
fn digests(shelf: &dyn Shelf, file: &Judged, hash: Hash, parts: &[Range]) -> Option<Vec<Vec<u8>>> {
    let mut content = Both { content: shelf.open(&file.path).ok()?, whole: Hashing::default() };
    let mut found = Vec::with_capacity(parts.len());
    for (start, end) in parts {
        found.push(hash.of(&mut content.by_ref().take(end.checked_sub(*start)?)).ok()?);
    }
    io::copy(&mut content, &mut io::sink()).ok()?;
    (content.whole.finish() == file.verdict.sha256).then_some(found)
}

/// A file of which all that is read is hashed, too.
struct Both<'s> {
    content: Box<dyn Read + 's>,
    whole: Hashing,
}

impl Read for Both<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let got = self.content.read(out)?;
        self.whole.update(out.get(..got).unwrap_or_default());
        Ok(got)
    }
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

/// Compares the files of a report from `first` on, which lie below `root`, with what lies beside them. What is too much of
/// that is an error of the report, and nothing else suffers from it.
///
/// # Errors
/// It was stopped.
pub fn beside(report: &mut Report, root: &Path, first: usize, means: &Means<'_>) -> Result<()> {
    within(BUDGET, report, root, first, means)
}

fn within(budget: Budget, report: &mut Report, root: &Path, first: usize, means: &Means<'_>) -> Result<()> {
    let mut run = Run::new(report, first, means, budget);
    let named = |name: &str| -> Vec<PathBuf> {
        let paths = run.files().iter().map(|file| &file.path);
        paths.filter(|path| path.file_name().is_some_and(|n| n == name)).cloned().collect()
    };
    let (lists, mut signatures) = (named(SUMS), named(SIGNATURE));
    for list in lists {
        run.list(&list)?;
    }
    if !means.trust.is_empty() {
        run.unsigned(root, &signatures).into_iter().for_each(|folder| run.missing(&folder));
    }
    signatures.sort_unstable();
    for path in signatures {
        run.signature(&path, path.parent().unwrap_or(&path), false)?;
    }
    Ok(())
}

/// Compares one file with the signature of its folder, as far as that speaks of it.
///
/// # Errors
/// It was stopped.
pub fn alone(report: &mut Report, path: &Path, first: usize, means: &Means<'_>) -> Result<()> {
    let mut run = Run::new(report, first, means, BUDGET);
    let folder = path.parent().unwrap_or(path).to_owned();
    let signature = folder.join(SIGNATURE);
    match means.shelf.open(&signature).map(drop) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => run.missing(&folder),
        // What cannot be read is told when it is read.
        _ => run.signature(&signature, &folder, true)?,
    }
    Ok(())
}

/// What is left to spend.
struct Budget {
    /// Bytes of lists and signatures that are read.
    bytes: u64,
    /// Files below their folders, counted for each of them.
    files: u64,
    /// Bytes of files that are read again for a signature.
    again: u64,
}

fn spend(left: &mut u64, cost: u64) -> io::Result<()> {
    let spent = left.checked_sub(cost);
    *left = spent.ok_or_else(|| io::Error::other("there are more lists and signatures here than are compared"))?;
    Ok(())
}

struct Run<'r> {
    report: &'r mut Report,
    first: usize,
    means: &'r Means<'r>,
    left: Budget,
}

impl<'r> Run<'r> {
    fn new(report: &'r mut Report, first: usize, means: &'r Means<'r>, mut left: Budget) -> Self {
        let files = report.files.get_mut(first..).unwrap_or_default();
        // What lies below a folder stands together then.
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let bytes = files.iter().fold(0u64, |sum, file| sum.saturating_add(file.bytes));
        left.again = left.again.saturating_add(bytes.saturating_mul(READS_MAX));
        Run { report, first, means, left }
    }

    fn files(&self) -> &[Judged] {
        self.report.files.get(self.first..).unwrap_or_default()
    }

    fn failed(&mut self, path: &Path, e: &io::Error) {
        self.report.errors.push((path.to_owned(), why(e)));
    }

    /// A file as it was judged, and not as it may have become since.
    fn whole(&mut self, path: &Path, max: u64) -> io::Result<Vec<u8>> {
        let at = self.files().binary_search_by(|file| file.path.as_path().cmp(path)).ok();
        let judged = at.and_then(|at| self.files().get(at)).map(|file| (file.bytes, file.verdict.sha256));
        spend(&mut self.left.bytes, judged.map_or(0, |(bytes, _)| bytes))?;
        let bytes = whole(self.means.shelf, path, max)?;
        match judged.map(|(_, sha256)| Sha256::of(&mut &bytes[..]).map(|found| found == sha256)).transpose()? {
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
        let files = self.files().iter().filter_map(|file| file.path.parent());
        let folders: BTreeSet<&Path> =
            files.filter(|folder| !folder.ancestors().any(|above| signed.contains(above))).collect();
        let inner = |folder: &Path| folder.ancestors().skip(1).any(|above| folders.contains(above));
        folders.iter().filter(|folder| !inner(folder)).map(|folder| folder.to_path_buf()).collect()
    }

    fn missing(&mut self, folder: &Path) {
        let path = folder.join(SIGNATURE);
        self.report.signatures.push(Signature { path, checked: None, files: Against::default() });
    }

    /// The files below a folder: path below it, and place in the report.
    fn below(&mut self, folder: &Path) -> io::Result<BTreeMap<String, usize>> {
        let files = self.files();
        let from = files.partition_point(|file| *file.path < *folder);
        let behind = files.get(from..).unwrap_or_default();
        let count = behind.partition_point(|file| file.path.starts_with(folder));
        let first = self.first.saturating_add(from);
        spend(&mut self.left.files, count as u64)?;
        let inside = self.report.files.iter().enumerate().skip(first).take(count);
        let below = |path: &Path| Some(path.strip_prefix(folder).ok()?.to_string_lossy().into_owned());
        Ok(inside.filter_map(|(n, file)| Some((below(&file.path)?, n))).collect())
    }

    fn list(&mut self, path: &Path) -> Result<()> {
        self.means.cancel.check()?;
        let folder = path.parent().unwrap_or(path);
        let read = self.whole(path, SUMS_MAX).and_then(|bytes| Ok((bytes, self.below(folder)?)));
        let (sums, below) = match read {
            Ok((bytes, below)) => (Sums::read(&String::from_utf8_lossy(&bytes)), below),
            Err(e) => {
                self.failed(path, &e);
                return Ok(());
            }
        };
        let bad = sums.bad.saturating_add(sums.twice.len() as u64);
        let mut list = List { path: path.to_owned(), bad, missing: Names::default(), different: Names::default() };
        for (hash, name) in sums.lines {
            self.means.cancel.check()?;
            let Some(file) = below.get(&name).and_then(|n| self.report.files.get_mut(*n)) else {
                list.missing.add(name);
                continue;
            };
            let found = Named::of(Some(hash), file.verdict.sha256);
            file.verdict.sums = file.verdict.sums.max(found);
            if found == Named::Different {
                list.different.add(name);
            }
        }
        self.report.lists.push(list);
        Ok(())
    }

    /// Checks a signature and compares the files below its folder with it; of `some` of them only these.
    fn signature(&mut self, path: &Path, folder: &Path, some: bool) -> Result<()> {
        self.means.cancel.check()?;
        let read = self.whole(path, BUNDLE_MAX as u64).and_then(|bytes| Ok((bytes, self.below(folder)?)));
        let compared = read.and_then(|(bytes, mut below)| {
            let checked = signature::check(&bytes, self.means.trust, self.means.now);
            below.remove(SIGNATURE);
            let files = match &checked.statement {
                Some(statement) => self.compare(statement, &below)?,
                None => Comparison::default(),
            };
            Ok((checked, files, below))
        });
        self.means.cancel.check()?;
        let (mut checked, mut files, below) = match compared {
            Ok(compared) => compared,
            Err(e) => {
                self.failed(path, &e);
                return Ok(());
            }
        };
        if some {
            files.missing.clear();
        }
        if matches!(checked.standing, Standing::Valid | Standing::Expired) {
            self.mark(&files, &below);
        }
        let unsaid = self.unsaid(&files.ignored, &below);
        // What it says of each file was compared, and may be long.
        checked.statement.iter_mut().for_each(|statement| statement.files.clear());
        let signature = Signature {
            path: path.to_owned(),
            checked: Some(checked),
            files: Against { unsaid, ..Against::of(files) },
        };
        self.report.signatures.push(signature);
        Ok(())
    }

    /// What a signer left out, and could do harm.
    fn unsaid(&self, ignored: &[String], below: &BTreeMap<String, usize>) -> Names {
        let mut unsaid = Names::default();
        for path in ignored {
            let name = path.rsplit('/').next().unwrap_or(path);
            let is_empty = below.get(path).and_then(|n| self.report.files.get(*n)).is_some_and(|file| file.bytes == 0);
            if !is_empty && !HARMLESS.contains(&name) {
                unsaid.add(path.clone());
            }
        }
        unsaid
    }

    /// Gives files what a signature that is believed says of them.
    fn mark(&mut self, files: &Comparison, below: &BTreeMap<String, usize>) {
        let lists = [
            (&files.same, Signed::Same),
            (&files.ignored, Signed::Ignored),
            (&files.unlisted, Signed::Unlisted),
            (&files.different, Signed::Different),
        ];
        for (list, signed) in lists {
            for n in list.iter().filter_map(|path| below.get(path)) {
                if let Some(file) = self.report.files.get_mut(*n) {
                    file.verdict.signed = file.verdict.signed.max(signed);
                }
            }
        }
    }

    fn compare(&mut self, statement: &Statement, below: &BTreeMap<String, usize>) -> io::Result<Comparison> {
        let (files, shelf) = (&self.report.files, self.means.shelf);
        let file = |path: &str| below.get(path).and_then(|n| files.get(*n));
        let there = below.keys().filter_map(|path| Some((path.clone(), file(path)?.bytes))).collect();
        let (mut left, mut enough) = (self.left.again, Ok(()));
        let found = signature::compare(statement, &there, &mut |path, parts| {
            let file = file(path)?;
            if statement.hash == Hash::Sha256 && *parts == [(0, file.bytes)] {
                return Some(vec![file.verdict.sha256.0.to_vec()]);
            }
            if enough.is_ok() {
                enough = spend(&mut left, file.bytes);
            }
            enough.as_ref().ok()?;
            digests(shelf, file, statement.hash, parts)
        });
        self.left.again = left;
        enough.map(|()| found)
    }
}

/// What an error says: its words, where it has some of its own.
pub(super) fn why(e: &io::Error) -> String {
    if e.kind() == io::ErrorKind::Other { e.to_string() } else { e.kind().to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::recorded::Recorded;
    use crate::model::verdict::FileVerdict;
    use std::collections::HashMap;

    /// Files by their paths.
    struct Files(HashMap<PathBuf, Vec<u8>>);

    impl Shelf for Files {
        fn open(&self, path: &Path) -> io::Result<Box<dyn Read + '_>> {
            let bytes = self.0.get(path).ok_or(io::ErrorKind::NotFound)?;
            Ok(Box::new(&bytes[..]))
        }
    }

    /// The report of these files with a budget of so many bytes, and of so many files.
    fn report(files: &[(String, String)], bytes: u64, visits: u64) -> Report {
        let judged = |(path, content): &(String, String)| {
            let Recorded { sha256, pickle, .. } = Recorded::of(content.as_bytes());
            let verdict = FileVerdict { sha256, blob: Named::None, sums: Named::None, signed: Signed::None, pickle };
            Judged { path: path.into(), bytes: content.len() as u64, verdict }
        };
        let mut report = Report { files: files.iter().map(judged).collect(), ..Report::default() };
        let shelf = Files(files.iter().map(|(path, text)| (path.into(), text.clone().into_bytes())).collect());
        let means = Means { trust: &[], now: TimeMs(0), shelf: &shelf, cancel: &Cancel::default() };
        let budget = Budget { bytes, files: visits, again: 0 };
        within(budget, &mut report, Path::new(""), 0, &means).unwrap();
        report
    }

    #[test]
    fn parts_are_hashed_of_what_was_judged_and_of_nothing_else() {
        let file = |content: &str| {
            let Recorded { sha256, pickle, .. } = Recorded::of(content.as_bytes());
            let verdict = FileVerdict { sha256, blob: Named::None, sums: Named::None, signed: Signed::None, pickle };
            Judged { path: "f".into(), bytes: content.len() as u64, verdict }
        };
        let shelf = Files([(PathBuf::from("f"), b"good bytes".to_vec())].into());
        let parts = [(0, 4), (4, 10)];
        for hash in [Hash::Sha256, Hash::Blake3] {
            let wanted = [&b"good"[..], b" bytes"].map(|mut part| hash.of(&mut part).unwrap());
            assert_eq!(digests(&shelf, &file("good bytes"), hash, &parts).as_deref(), Some(&wanted[..]));
            // What was stored is evil; what can be read by now is as it was signed.
            assert_eq!(digests(&shelf, &file("evil bytes"), hash, &parts), None);
            // A part alone says nothing of the rest.
            assert_eq!(digests(&shelf, &file("good"), hash, &parts[..1]), None);
        }
    }

    fn line(content: &str, name: &str) -> String {
        format!("{}  {name}\n", Recorded::of(content.as_bytes()).sha256.hex())
    }

    #[test]
    fn a_list_keeps_the_first_names_and_a_count() {
        let list: String = (0..500).map(|n| line("x", &format!("gone-{n}"))).collect();
        let list = list + &line("a", "a/x") + &line("a", "a/y");
        let file = |path: &str, content: &str| (path.to_owned(), content.to_owned());
        let files =
            [file("b", "b"), file("a/y", "other"), file("SHA256SUMS", &list), file("a/x", "a"), file("a-b", "a")];
        let report = report(&files, 1 << 20, 100);
        let [list] = &report.lists[..] else { panic!("{report:?}") };
        assert_eq!((list.missing.total, list.missing.first.len()), (500, Names::MAX));
        assert_eq!((list.missing.first[0].as_str(), &list.different.first[..]), ("gone-0", &["a/y".to_owned()][..]));
        let sums = |path: &str| report.files.iter().find(|file| file.path == Path::new(path)).unwrap().verdict.sums;
        assert_eq!(["a/x", "a/y", "a-b"].map(sums), [Named::Same, Named::Different, Named::None]);
    }

    #[test]
    fn a_list_of_a_folder_speaks_of_what_lies_below_it_alone() {
        let file = |path: &str, content: &str| (path.to_owned(), content.to_owned());
        let files = [file("a/SHA256SUMS", &line("z", "x")), file("a/x", "z"), file("a-b/x", "y"), file("x", "y")];
        let report = report(&files, 1 << 20, 2);
        assert!(report.errors.is_empty() && report.lists[0].missing.total == 0, "{report:?}");
        assert_eq!(report.lists[0].different.total, 0);
    }

    #[test]
    fn more_lists_than_are_compared_are_told_and_nothing_else_is_lost() {
        let list = line("x", "model");
        let each = |n: usize| [(format!("{n:02}/SHA256SUMS"), list.clone()), (format!("{n:02}/model"), "x".to_owned())];
        let files: Vec<_> = (0..20).flat_map(each).collect();
        for (bytes, visits) in [(list.len() as u64 * 12, 1000), (1 << 20, 24)] {
            let report = report(&files, bytes, visits);
            assert_eq!(
                (report.files.len(), report.lists.len(), report.errors.len()),
                (40, 12, 8),
                "{:?}",
                report.errors
            );
            let (path, why) = &report.errors[0];
            assert!(path == Path::new("12/SHA256SUMS") && why.contains("than are compared"), "{path:?}: {why}");
        }
    }
}
