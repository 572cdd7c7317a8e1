//! Judges model files on a disk: what loading each would do, and whether the hashes and signatures that lie beside them
//! hold. Reads; loads, executes and writes nothing.

use super::verdicts::{self, Judged, Means, Report, Shelf, Stoppable};
use crate::base::{Cancel, TimeMs};
use crate::error::{Error, Kind, Result};
use crate::model::archive::{self, At, Part};
use crate::model::signature::Trust;
use crate::model::verdict::{FileVerdict, Named, Sha256, Signed, blob_name};
use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

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

/// Judges everything.
///
/// # Errors
/// It was stopped, or one of the paths does not exist.
pub fn run(wish: &Wish<'_>, cancel: &Cancel) -> Result<Report> {
    let mut run = Run { report: Report::default(), known: HashMap::new(), cancel };
    let shelf = Disk { cancel };
    let means = Means { trust: wish.trust, now: wish.now, shelf: &shelf, cancel };
    for path in wish.paths {
        let meta = fs::metadata(path).map_err(|e| {
            let kind = if e.kind() == io::ErrorKind::NotFound { Kind::NotFound } else { Kind::Source };
            Error::new(kind, format!("cannot read it: {}", e.kind())).at(path.display())
        })?;
        let first = run.report.files.len();
        if !meta.is_dir() {
            run.file(path, &meta)?;
            if !wish.trust.is_empty() {
                verdicts::alone(&mut run.report, path, first, &means)?;
            }
            continue;
        }
        run.folder(path, 0)?;
        verdicts::beside(&mut run.report, path, first, &means)?;
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
                self.report.errors.push((path.to_owned(), verdicts::TO_FOLDER.to_owned()));
            }
            Ok(_) => self.report.errors.push((path.to_owned(), "a link to what is no file".to_owned())),
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

/// Files on a disk.
struct Disk<'a> {
    cancel: &'a Cancel,
}

impl Shelf for Disk<'_> {
    fn open(&self, path: &Path) -> io::Result<Box<dyn Read + '_>> {
        Ok(Box::new(Stoppable::open(path, self.cancel)?))
    }
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
