//! Files of models in the source, where verdicts on several of them need to see some again: lists of hashes, signatures,
//! and what was signed in parts or by another hash.

use crate::base::Cancel;
use crate::model::signature::{Hash, Range};
use crate::model::verdict::Sha256;
use crate::ops::verdicts::{Judged, Shelf};
use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// The source, by paths from the snapshot's root.
pub(super) struct Origin<'c> {
    root: PathBuf,
    cancel: &'c Cancel,
    /// Whether a file is still what was stored.
    same: RefCell<HashMap<PathBuf, bool>>,
}

impl<'c> Origin<'c> {
    /// One directory is the root itself, as in the walk.
    pub(super) fn new(paths: &[PathBuf], cancel: &'c Cancel) -> Self {
        let root = match paths {
            [only] if only.is_dir() => only.clone(),
            _ => PathBuf::from("/"),
        };
        Origin { root, cancel, same: RefCell::default() }
    }

    fn open(&self, path: &Path) -> io::Result<Stoppable<'c>> {
        Ok(Stoppable { file: File::open(self.root.join(path))?, cancel: self.cancel })
    }

    /// Whether all of a file is what was stored of it.
    fn is_same(&self, file: &Judged) -> bool {
        if let Some(same) = self.same.borrow().get(&file.path) {
            return *same;
        }
        let found = self.open(&file.path).and_then(|mut content| Sha256::of(&mut content));
        let same = found.is_ok_and(|found| found == file.verdict.sha256);
        self.same.borrow_mut().insert(file.path.clone(), same);
        same
    }
}

impl Shelf for Origin<'_> {
    fn whole(&self, path: &Path, max: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.open(path)?.take(max.saturating_add(1)).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > max { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(bytes) }
    }

    fn digest(&self, file: &Judged, hash: Hash, (start, end): Range) -> Option<Vec<u8>> {
        if !self.is_same(file) {
            return None;
        }
        let mut content = self.open(&file.path).ok()?;
        content.file.seek(SeekFrom::Start(start)).ok()?;
        hash.of(&mut content.take(end.checked_sub(start)?)).ok()
    }
}

/// A file of which reading ends when the run is stopped.
struct Stoppable<'c> {
    file: File,
    cancel: &'c Cancel,
}

impl Read for Stoppable<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.cancel.raised() {
            return Err(io::Error::other("stopped"));
        }
        self.file.read(out)
    }
}
