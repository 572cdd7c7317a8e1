//! A walk that begins before the repository is open: it needs no key, and deriving one takes its time.
//!
//! A file that changes between the look that the walk took at it and the start of the run is met as any that changes while
//! it is read: what is stored with its content is how it was after reading. One that was taken over unread has other
//! times than those stored, and is read by the next run.

use super::{BackupOptions, absolute};
use crate::base::{Bucket, Cancel};
use crate::error::{Error, Kind, Result};
use crate::ops::own;
use crate::region::Regions;
use crate::repo::Repo;
use crate::source::any::Walk;
use crate::source::bucket;
use crate::source::files::{Ahead, Walk as Steps, Walker};
use std::path::{Path, PathBuf};

/// A walk that has begun. Dropped, it ends.
#[derive(Debug)]
pub struct Begun {
    pub(super) walk: Result<Walk>,
    skip: Vec<(u64, u64)>,
    paths: Vec<PathBuf>,
}

impl BackupOptions {
    /// Begins to walk directories beside what else is to be done first. `index` is the folder of the local index, if there
    /// is one: like the regions it is left out.
    pub fn begin(&self, regions: &Regions, index: Option<(u64, u64)>) -> Begun {
        let skip: Vec<(u64, u64)> = regions.identities().into_iter().chain(index).collect();
        let paths = absolute(&self.paths);
        let walk = paths.clone().and_then(|paths| {
            let mut options = self.walk.clone();
            options.skip.clone_from(&skip);
            walk(Walker::new(&paths, options)?, self.workers)
        });
        Begun { walk, skip, paths: paths.unwrap_or_default() }
    }
}

impl Begun {
    /// Whether it is the walk of these paths that leaves out what is to be left out. A folder of the local index that
    /// was made only now is missed by nobody, unless it lies within the source.
    pub(super) fn suits(&self, repo: &Repo, skip: &[(u64, u64)], paths: &[PathBuf]) -> bool {
        let index = repo.index_cache().map(|cache| cache.folder());
        let outside = |id: &(u64, u64)| {
            index.is_some_and(|folder| !repo.regions.identities().contains(id) && !is_within(folder, paths))
        };
        self.paths == paths && skip.iter().all(|id| self.skip.contains(id) || outside(id))
    }
}

/// Whether a folder lies, or may lie, below one of the paths.
fn is_within(folder: &Path, paths: &[PathBuf]) -> bool {
    let Ok(folder) = folder.canonicalize() else { return true };
    paths.iter().any(|path| path.canonicalize().map_or(true, |path| folder.starts_with(path)))
}

/// Begins to walk now.
pub(super) fn begin(repo: &Repo, paths: &[PathBuf], options: &BackupOptions, cancel: &Cancel) -> Result<Walk> {
    let Some(place) = &options.bucket else {
        return walk(Walker::new(paths, options.walk.clone())?, options.workers);
    };
    let skip = own_prefixes(&repo.regions, place)?;
    let source = bucket::Source::connect(place, cancel)?;
    let walker = bucket::Walker::new(source, options.walk.excludes.clone(), &skip)?;
    Ok(Walk::Bucket(Box::new(walker)))
}

fn walk(walker: Walker, workers: usize) -> Result<Walk> {
    Ok(Walk::Files(if workers == 0 { Steps::Here(Box::new(walker)) } else { Ahead::start(walker) }))
}

/// What the repository has in the bucket that is backed up: it would grow with every run.
fn own_prefixes(regions: &Regions, place: &Bucket) -> Result<Vec<String>> {
    let (all, own) = (own::below(place), own::prefixes(regions, place));
    match own.iter().any(|prefix| all.starts_with(prefix.as_str())) {
        true => Err(Error::new(Kind::Config, "what is to be backed up lies in a region of the repository, or is one")
            .at(place.to_string())
            .advise("back up another prefix or bucket; a region beside other things needs a prefix of its own")),
        false => Ok(own),
    }
}
