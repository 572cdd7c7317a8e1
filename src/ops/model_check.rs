//! Judges model files on a disk: what loading each would do, and whether the hashes and signatures that lie beside them
//! hold. Reads; loads, executes and writes nothing.

use crate::base::{Cancel, TimeMs};
use crate::error::{Error, Exit, Kind, Result};
use crate::model::archive::{self, At, Part};
use crate::model::signature::{self, BUNDLE_MAX, Comparison, Hash, Standing, Statement, Trust};
use crate::model::verdict::{FileVerdict, Grade, Named, Sha256, Signed, Sums, blob_name};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// The name of a signature, and that of a list of hashes.
const SIGNATURE: &str = "model.sig";
const SUMS: &str = "SHA256SUMS";
/// Longest list of hashes that is read.
const SUMS_MAX: u64 = 64 << 20;
/// How deep folders may lie in each other.
const DEPTH_MAX: u32 = 256;

/// What is to be judged, and by whom.
pub struct Wish<'a> {
    /// Files and folders.
    pub paths: &'a [PathBuf],
    /// Who is believed; where somebody is, each file must lie in a folder that is signed, or below one.
    pub trust: &'a [Trust],
    /// Now.
    pub now: TimeMs,
}

/// One file that was judged.
pub struct Judged {
    /// Its path as it was found.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// What was found.
    pub verdict: FileVerdict,
}

/// One signature.
pub struct Signature {
    /// Where it is; where it should be, if it is missing.
    pub path: PathBuf,
    /// How it stands; none if it is missing.
    pub checked: Option<signature::Checked>,
    /// The files beside what it says.
    pub files: Comparison,
}

/// One list of hashes.
pub struct List {
    /// Where it is.
    pub path: PathBuf,
    /// Lines that were not understood, or contradict each other.
    pub bad: u64,
    /// Files that it names and that are not there.
    pub missing: Vec<String>,
    /// Files that it names and that are others.
    pub different: Vec<String>,
}

/// All that was found.
#[derive(Default)]
pub struct Report {
    /// By path.
    pub files: Vec<Judged>,
    /// Signatures.
    pub signatures: Vec<Signature>,
    /// Lists of hashes.
    pub lists: Vec<List>,
    /// What could not be read, and why.
    pub errors: Vec<(PathBuf, String)>,
}

impl Report {
    /// The worst of all files.
    pub fn grade(&self) -> Grade {
        self.files.iter().map(|file| file.verdict.pickle.grade).max().unwrap_or(Grade::None)
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

/// Judges everything.
///
/// # Errors
/// It was stopped, or one of the paths does not exist.
pub fn run(wish: &Wish<'_>, cancel: &Cancel) -> Result<Report> {
    let mut run = Run { report: Report::default(), known: HashMap::new(), cancel };
    for path in wish.paths {
        let meta = fs::metadata(path).map_err(|e| {
            let kind = if e.kind() == io::ErrorKind::NotFound { Kind::NotFound } else { Kind::Source };
            Error::new(kind, format!("cannot read it: {}", e.kind())).at(path.display())
        })?;
        let first = run.report.files.len();
        if !meta.is_dir() {
            run.file(path, &meta)?;
            if !wish.trust.is_empty() {
                run.alone(path, first, wish);
            }
            continue;
        }
        run.folder(path, 0)?;
        run.beside(path, first, wish)?;
    }
    Ok(run.report)
}

struct Run<'a> {
    report: Report,
    /// Files that were read already, by device and inode: those of a cache have several names.
    known: HashMap<(u64, u64), FileVerdict>,
    cancel: &'a Cancel,
}

impl Run<'_> {
    fn failed(&mut self, path: &Path, e: &io::Error) {
        self.report.errors.push((path.to_owned(), e.kind().to_string()));
    }

    fn folder(&mut self, path: &Path, depth: u32) -> Result<()> {
        let entries =
            fs::read_dir(path).and_then(|list| list.map(|e| e.map(|e| e.path())).collect::<io::Result<Vec<_>>>());
        let mut entries = match entries {
            Ok(entries) if depth < DEPTH_MAX => entries,
            Ok(_) => {
                self.failed(path, &io::Error::from(io::ErrorKind::InvalidFilename));
                return Ok(());
            }
            Err(e) => {
                self.failed(path, &e);
                return Ok(());
            }
        };
        entries.sort_unstable();
        for path in entries {
            self.cancel.check()?;
            match fs::symlink_metadata(&path) {
                Ok(meta) if meta.is_dir() => self.folder(&path, depth.saturating_add(1))?,
                Ok(meta) if meta.is_symlink() => self.linked(&path)?,
                Ok(meta) if meta.is_file() => self.file(&path, &meta)?,
                Ok(_) => {}
                Err(e) => self.failed(&path, &e),
            }
        }
        Ok(())
    }

    /// A link to a file is one, as in the caches of Hugging Face; one to a folder is not followed.
    fn linked(&mut self, path: &Path) -> Result<()> {
        match fs::metadata(path) {
            Ok(meta) if meta.is_file() => self.file(path, &meta)?,
            Ok(meta) if meta.is_dir() => {
                let what = "a link to a folder, which is not followed".to_owned();
                self.report.errors.push((path.to_owned(), what));
            }
            Ok(_) => {}
            Err(e) => self.failed(path, &e),
        }
        Ok(())
    }

    fn file(&mut self, path: &Path, meta: &Metadata) -> Result<()> {
        if !meta.is_file() {
            self.report.errors.push((path.to_owned(), "it is no file".into()));
            return Ok(());
        }
        let key = (meta.dev(), meta.ino());
        let verdict = match self.known.get(&key) {
            Some(verdict) => verdict.clone(),
            None => match judge(path, self.cancel) {
                Ok(verdict) => verdict,
                Err(e) => {
                    self.cancel.check()?;
                    self.failed(path, &e);
                    return Ok(());
                }
            },
        };
        if meta.nlink() > 1 || fs::symlink_metadata(path).is_ok_and(|meta| meta.is_symlink()) || in_blobs(path) {
            self.known.insert(key, verdict.clone());
        }
        self.report.files.push(Judged { path: path.to_owned(), bytes: meta.len(), verdict });
        Ok(())
    }

    /// Lists of hashes and signatures of a folder, once all in it is known.
    fn beside(&mut self, root: &Path, first: usize, wish: &Wish<'_>) -> Result<()> {
        let named = |name: &str| -> Vec<PathBuf> {
            let files = self.report.files.iter().skip(first).map(|file| &file.path);
            files.filter(|path| path.file_name().is_some_and(|n| n == name)).cloned().collect()
        };
        let (lists, mut signatures) = (named(SUMS), named(SIGNATURE));
        for list in lists {
            self.list(&list, first);
        }
        if !wish.trust.is_empty() {
            self.unsigned(root, first, &signatures).into_iter().for_each(|folder| self.missing(&folder));
        }
        signatures.sort_unstable();
        for path in signatures {
            self.cancel.check()?;
            let below = self.below(path.parent().unwrap_or(&path), first);
            self.signature(&path, below, wish, false);
        }
        Ok(())
    }

    /// Folders of files that no signature is said to cover, without those that lie in one of them.
    fn unsigned(&self, root: &Path, first: usize, signatures: &[PathBuf]) -> BTreeSet<PathBuf> {
        if signatures.is_empty() {
            return [root.to_owned()].into();
        }
        let signed: HashSet<&Path> = signatures.iter().filter_map(|path| path.parent()).collect();
        let files = self.report.files.iter().skip(first).filter_map(|file| file.path.parent());
        let folders: BTreeSet<&Path> =
            files.filter(|folder| !folder.ancestors().any(|above| signed.contains(above))).collect();
        let inner = |folder: &Path| folder.ancestors().skip(1).any(|above| folders.contains(above));
        folders.iter().filter(|folder| !inner(folder)).map(|folder| folder.to_path_buf()).collect()
    }

    fn missing(&mut self, folder: &Path) {
        let path = folder.join(SIGNATURE);
        self.report.signatures.push(Signature { path, checked: None, files: Comparison::default() });
    }

    /// The signature of the folder of one file that was asked for by itself, as far as it speaks of that.
    fn alone(&mut self, path: &Path, first: usize, wish: &Wish<'_>) {
        let folder = path.parent().unwrap_or(path).to_owned();
        let signature = folder.join(SIGNATURE);
        match fs::metadata(&signature) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => self.missing(&folder),
            // What cannot be read is told when it is read.
            _ => {
                let below = self.below(&folder, first);
                self.signature(&signature, below, wish, true);
            }
        }
    }

    /// The files below a folder: path below it, and place in the report.
    fn below(&self, folder: &Path, first: usize) -> BTreeMap<String, usize> {
        let files = self.report.files.iter().enumerate().skip(first);
        files
            .filter_map(|(n, file)| Some((file.path.strip_prefix(folder).ok()?.to_string_lossy().into_owned(), n)))
            .collect()
    }

    fn list(&mut self, path: &Path, first: usize) {
        let text = match read_whole(path, SUMS_MAX) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(e) => return self.failed(path, &e),
        };
        let sums = Sums::read(&text);
        let below = self.below(path.parent().unwrap_or(path), first);
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
    fn signature(&mut self, path: &Path, mut below: BTreeMap<String, usize>, wish: &Wish<'_>, some: bool) {
        let bytes = match read_whole(path, BUNDLE_MAX as u64) {
            Ok(bytes) => bytes,
            Err(e) => return self.failed(path, &e),
        };
        let checked = signature::check(&bytes, wish.trust, wish.now);
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
            let opened = Opened::new(&file.path, self.cancel).ok()?;
            statement.hash.of(&mut Part::whole(&opened).part(start, end.saturating_sub(start))).ok()
        })
    }
}

/// All that one file says of itself.
fn judge(path: &Path, cancel: &Cancel) -> io::Result<FileVerdict> {
    let opened = Opened::new(path, cancel)?;
    let sha256 = Sha256::of(&mut Part::whole(&opened))?;
    let pickle = archive::examine(&opened);
    Ok(FileVerdict { sha256, blob: Named::of(claimed(path), sha256), sums: Named::None, signed: Signed::None, pickle })
}

/// The hash that the name of a blob claims, of which this may be a link.
fn claimed(path: &Path) -> Option<Sha256> {
    let target = fs::canonicalize(path).ok()?;
    let name = |path: &Path| path.file_name().and_then(|name| name.to_str()).map(str::to_owned);
    blob_name(&name(target.parent()?)?, &name(&target)?)
}

fn in_blobs(path: &Path) -> bool {
    path.parent().and_then(Path::file_name).is_some_and(|name| name == "blobs")
}

fn read_whole(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(max.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(bytes) }
}

/// A file as the judges read it; reading ends when the run is stopped.
struct Opened<'a> {
    file: File,
    size: u64,
    cancel: &'a Cancel,
}

impl<'a> Opened<'a> {
    fn new(path: &Path, cancel: &'a Cancel) -> io::Result<Self> {
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        Ok(Opened { file, size, cancel })
    }
}

impl At for Opened<'_> {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize> {
        if self.cancel.raised() {
            return Err(io::Error::other("stopped"));
        }
        self.file.read_at(out, offset)
    }
}
