//! Files of models in the source, where verdicts on several of them need to see some again: lists of hashes, signatures,
//! and what was signed in parts or by another hash.

use crate::base::Cancel;
use crate::ops::verdicts::{Shelf, Stoppable};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The source, by paths from the snapshot's root.
pub(super) struct Origin<'c> {
    root: PathBuf,
    cancel: &'c Cancel,
}

impl<'c> Origin<'c> {
    /// One directory is the root itself, as in the walk.
    pub(super) fn new(paths: &[PathBuf], cancel: &'c Cancel) -> Self {
        let root = match paths {
            [only] if only.is_dir() => only.clone(),
            _ => PathBuf::from("/"),
        };
        Origin { root, cancel }
    }
}

impl Shelf for Origin<'_> {
    fn open(&self, path: &Path) -> io::Result<Box<dyn Read + '_>> {
        Ok(Box::new(Stoppable::open(&self.root.join(path), self.cancel)?))
    }
}
