//! A member's data folder, made of a restored database by etcd's own tool.
//!
//! It is made beside what it will be, and put in its place in one step: what was cut short is no data folder, and the next
//! restore takes it away. A folder that holds anything is left alone, whoever may be at work in it.

use super::tools::{self, Membership, failed};
use crate::error::{Error, Kind, Result};
use std::fs::{DirBuilder, File, TryLockError};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// What is being made lies in folders, or files, that begin with this name.
pub(super) const STAGED: &str = ".holdfast-restoring-";
/// What etcd has in its data folder.
const MEMBER: &str = "member";
/// What a file system of its own has at its top.
const LOST: &str = "lost+found";

/// A data folder in which nobody is at work.
#[derive(Debug)]
pub struct DataDir {
    dir: PathBuf,
    staged: PathBuf,
    /// Whether it was made here, and goes again if nothing comes of it.
    made: bool,
    /// Locked as long as this one lives.
    _lock: File,
}

fn wrote(e: &std::io::Error, at: &Path) -> Error {
    let kind = if e.kind() == std::io::ErrorKind::StorageFull { Kind::Full } else { Kind::Source };
    Error::new(kind, format!("cannot make the data folder: {}", e.kind())).at(at.display())
}

/// A folder that nobody else has: a restore that lives keeps its own locked.
fn locked(path: &Path) -> Result<File> {
    let dir = File::open(path).map_err(|e| wrote(&e, path))?;
    match dir.try_lock() {
        Ok(()) => Ok(dir),
        Err(TryLockError::WouldBlock) => {
            Err(Error::new(Kind::Config, "another restore is at work there").at(path.display()).advise("let it end"))
        }
        Err(TryLockError::Error(e)) => Err(wrote(&e, path)),
    }
}

fn durable(path: &Path) -> std::io::Result<()> {
    File::open(path)?.sync_all()
}

impl DataDir {
    /// Claims a folder: a new one, or one that is there and empty. What an earlier restore left there that was killed goes.
    ///
    /// # Errors
    /// There is something in it, or it cannot be written.
    pub fn claim(dir: &Path) -> Result<DataDir> {
        let dir = std::path::absolute(dir).map_err(|e| wrote(&e, dir))?;
        let made = match DirBuilder::new().mode(0o700).create(&dir) {
            Ok(()) => true,
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => false,
            Err(e) => return Err(wrote(&e, &dir)),
        };
        let mut left = Vec::new();
        for entry in std::fs::read_dir(&dir).map_err(|e| wrote(&e, &dir))? {
            let name = entry.map_err(|e| wrote(&e, &dir))?.file_name();
            match name.to_string_lossy() {
                name if name == LOST => {}
                name if name.starts_with(STAGED) => left.push(dir.join(&*name)),
                name => {
                    let what = format!("the data folder is not empty: there is {name:?} in it");
                    return Err(Error::new(Kind::Config, what)
                        .at(dir.display())
                        .advise("stop its etcd and set the folder aside (mv), or name a new one"));
                }
            }
        }
        for path in left {
            let _lock = locked(&path)?;
            // A restore to a file here leaves a file of such a name.
            let is_dir = path.symlink_metadata().is_ok_and(|meta| meta.is_dir());
            let gone = if is_dir { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            gone.map_err(|e| wrote(&e, &dir))?;
        }
        let staged = dir.join(format!("{STAGED}{}", std::process::id()));
        DirBuilder::new().mode(0o700).create(&staged).map_err(|e| wrote(&e, &dir))?;
        let lock = locked(&staged)?;
        Ok(DataDir { dir, staged, made, _lock: lock })
    }

    /// Where the database is to be written that [`DataDir::fill`] takes.
    pub fn database(&self) -> PathBuf {
        self.staged.join("snapshot.db")
    }

    /// Makes the data folder of [`DataDir::database`]. What is in it belongs to whom the folder belongs.
    ///
    /// # Errors
    /// There is no tool of etcd's, it does not take the database, or the folder cannot be written.
    pub fn fill(self, member: &Membership, folder: Option<&Path>) -> Result<()> {
        tools::unpack(&self.database(), member, folder, (&self.staged, "data"))?;
        let made = self.staged.join("data").join(MEMBER);
        let owner = std::fs::metadata(&self.dir).map_err(|e| wrote(&e, &self.dir))?;
        given(&made, (owner.uid(), owner.gid())).map_err(|e| wrote(&e, &self.dir))?;
        let place = self.dir.join(MEMBER);
        if place.symlink_metadata().is_ok() {
            return Err(failed("somebody else put something into the data folder meanwhile").at(self.dir.display()));
        }
        std::fs::rename(&made, &place).and_then(|()| durable(&self.dir)).map_err(|e| wrote(&e, &self.dir))
    }
}

impl Drop for DataDir {
    fn drop(&mut self) {
        // What cannot be removed is no data folder, and the next restore removes it. A folder with a member in it stays.
        let _ = std::fs::remove_dir_all(&self.staged);
        if self.made {
            let _ = std::fs::remove_dir(&self.dir);
        }
    }
}

/// Gives all below to an owner, and makes it durable, from the leaves up.
fn given(path: &Path, owner: (u32, u32)) -> std::io::Result<()> {
    let meta = path.symlink_metadata()?;
    if meta.is_dir() {
        std::fs::read_dir(path)?.try_for_each(|entry| given(&entry?.path(), owner))?;
    }
    if (meta.uid(), meta.gid()) != owner {
        std::os::unix::fs::lchown(path, Some(owner.0), Some(owner.1))?;
    }
    durable(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_empty_folder_is_taken_and_nothing_stays_of_what_failed() {
        let top = tempfile::tempdir().unwrap();
        let dir = top.path().join("etcd");
        let claimed = DataDir::claim(&dir).unwrap();
        std::fs::write(claimed.database(), "no database").unwrap();
        let member = Membership::of("a", "a=http://127.0.0.1:1", None).unwrap();
        assert_eq!(claimed.fill(&member, Some(top.path())).unwrap_err().kind(), Kind::Config, "there is no tool");
        assert!(!dir.exists(), "a folder that was made goes again");

        let first = DataDir::claim(&dir).unwrap();
        assert_eq!(DataDir::claim(&dir).unwrap_err().kind(), Kind::Config, "one restore at a time");
        assert!(first.staged.exists());
        drop(first);

        std::fs::create_dir_all(dir.join(LOST)).unwrap();
        std::fs::create_dir_all(dir.join(format!("{STAGED}1/data/member"))).unwrap();
        drop(DataDir::claim(&dir).unwrap());
        let left: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, [LOST], "what a killed restore left has gone, the folder is still there");

        std::fs::create_dir(dir.join(MEMBER)).unwrap();
        assert_eq!(DataDir::claim(&dir).unwrap_err().kind(), Kind::Config);
        assert!(dir.join(MEMBER).exists());
    }
}
