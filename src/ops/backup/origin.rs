//! Files of models in the source, where verdicts on several of them need to see some again: lists of hashes, signatures,
//! and what was signed in parts or by another hash. Whoever reads one compares it with what was judged.

use crate::base::Cancel;
use crate::ops::verdicts::{Shelf, Stoppable};
use crate::source::bucket;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The source, by paths from the snapshot's root.
pub(super) enum Origin<'c> {
    Files { root: PathBuf, cancel: &'c Cancel },
    Bucket(Arc<bucket::Source>),
}

impl<'c> Origin<'c> {
    /// One directory is the root itself, as in the walk.
    pub(super) fn new(bucket: Option<Arc<bucket::Source>>, paths: &[PathBuf], cancel: &'c Cancel) -> Self {
        let root = match (bucket, paths) {
            (Some(bucket), _) => return Origin::Bucket(bucket),
            (None, [only]) if only.is_dir() => only.clone(),
            _ => PathBuf::from("/"),
        };
        Origin::Files { root, cancel }
    }
}

impl Shelf for Origin<'_> {
    fn open(&self, path: &Path) -> io::Result<Box<dyn Read + '_>> {
        Ok(match self {
            Origin::Files { root, cancel } => Box::new(Stoppable::open(&root.join(path), cancel)?),
            Origin::Bucket(bucket) => Box::new(bucket.front(path.as_os_str().as_bytes())?),
        })
    }
}
