//! A file that is there whole or not at all: written beside its name, made durable, and given the name in one step that
//! overwrites nothing. What a restore left that was killed is no file of that name, and the next one takes it away.

use super::data_dir::STAGED;
use crate::error::{Error, Kind, Result};
use crate::source::scratch;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Only its owner may read a database.
const MODE: u32 = 0o600;

/// Of the hash of a file's name so many digits are part of the name beside it: the name itself may be as long as names may be.
const DIGITS: usize = 16;

/// A file that has no name of its own yet.
#[derive(Debug)]
pub struct NewFile {
    /// To be written. It is locked as long as this one lives, so that nobody takes it for one that was left.
    file: File,
    beside: PathBuf,
    to: PathBuf,
    dir: PathBuf,
}

fn wrote(e: &std::io::Error, at: &Path) -> Error {
    let kind = if e.kind() == std::io::ErrorKind::StorageFull { Kind::Full } else { Kind::Source };
    Error::new(kind, format!("cannot write the database: {}", e.kind())).at(at.display())
}

fn exists(to: &Path) -> Error {
    Error::new(Kind::Config, "the file exists").at(to.display()).advise("give the name of a new file")
}

impl NewFile {
    /// Begins one, if there is nothing of that name. What an earlier restore to it left that was killed goes.
    ///
    /// # Errors
    /// There is something of that name, or its folder cannot be written.
    pub fn begin(to: &Path) -> Result<NewFile> {
        let name = to.file_name().ok_or_else(|| Error::new(Kind::Config, "no name for a file").at(to.display()))?;
        if to.symlink_metadata().is_ok() {
            return Err(exists(to));
        }
        let dir = to.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
        let hash = blake3::hash(name.as_bytes()).to_hex();
        let own = format!("{STAGED}{}-", hash.get(..DIGITS).unwrap_or_default());
        let beside = dir.join(format!("{own}{}", std::process::id()));
        clear(dir, &own).map_err(|e| wrote(&e, dir))?;
        let made = OpenOptions::new().read(true).write(true).create_new(true).mode(MODE).open(&beside);
        let new = NewFile { file: made.map_err(|e| wrote(&e, to))?, beside, to: to.to_owned(), dir: dir.to_owned() };
        new.lock()?;
        Ok(new)
    }

    /// Between its making and its locking another restore may have taken it for one that was left.
    fn lock(&self) -> Result<()> {
        let busy = || Error::new(Kind::Config, "another restore is at work there").at(self.to.display());
        match self.file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(busy().advise("let it end")),
            // Where a file system knows no locks nobody takes anything away either.
            Err(TryLockError::Error(_)) => return Ok(()),
        }
        let is = |meta: std::fs::Metadata| (meta.dev(), meta.ino());
        let own = self.file.metadata().map(is).map_err(|e| wrote(&e, &self.to))?;
        let there = self.beside.symlink_metadata().map(is).ok();
        if there == Some(own) { Ok(()) } else { Err(busy().advise("run again")) }
    }

    /// The file, to be written.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Makes it durable and gives it its name.
    ///
    /// # Errors
    /// It cannot be written, or there is something of that name by now.
    pub fn finish(self) -> Result<()> {
        let failed = |e: std::io::Error| wrote(&e, &self.to);
        self.file.sync_all().map_err(failed)?;
        match named(&self.beside, &self.to) {
            Ok(()) => {}
            Err(Errno::EXIST) => return Err(exists(&self.to)),
            Err(e) => return Err(failed(e.into())),
        }
        File::open(&self.dir).and_then(|dir| dir.sync_all()).map_err(failed)
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        // It has its name by then, or is worth nothing; what cannot be removed the next restore removes.
        let _ = std::fs::remove_file(&self.beside);
    }
}

/// Gives a file another name that nothing has yet.
fn named(from: &Path, to: &Path) -> std::result::Result<(), Errno> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Some network file systems cannot; a second name overwrites nothing either.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => linked(from, to),
        done => done,
    }
}

fn linked(from: &Path, to: &Path) -> std::result::Result<(), Errno> {
    match rustix::fs::linkat(CWD, from, CWD, to, AtFlags::empty()) {
        // It has its name, whatever becomes of the other one: that is removed once more when this is dropped.
        Ok(()) => {
            let _ = rustix::fs::unlink(from);
            Ok(())
        }
        Err(Errno::NOSYS | Errno::PERM | Errno::OPNOTSUPP) => reserved(from, to),
        failed => failed,
    }
}

/// Where there are no hard links either: the name is taken by an empty file, which this one then replaces.
fn reserved(from: &Path, to: &Path) -> std::result::Result<(), Errno> {
    drop(rustix::fs::open(to, OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY, Mode::RUSR | Mode::WUSR)?);
    let done = rustix::fs::rename(from, to);
    if done.is_err() {
        let _ = rustix::fs::unlink(to);
    }
    done
}

/// Removes what was left of restores to one name: nobody has it locked.
fn clear(dir: &Path, own: &str) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let name: OsString = entry?.file_name();
        if !name.as_bytes().starts_with(own.as_bytes()) {
            continue;
        }
        let path = dir.join(name);
        // Gone by now, or somebody else's: then it is not for this one to remove.
        let Ok(file) = scratch::existing(&path) else { continue };
        if file.try_lock().is_ok() {
            std::fs::remove_file(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    fn names(dir: &Path) -> Vec<String> {
        let all = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut all: Vec<String> = all.collect();
        all.sort();
        all
    }

    #[test]
    fn a_file_is_there_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("a".repeat(255));
        let new = NewFile::begin(&to).unwrap();
        new.file().write_all(b"whole").unwrap();
        assert!(!to.exists());
        assert_eq!(names(dir.path()).len(), 1);
        new.finish().unwrap();
        assert_eq!(names(dir.path()), ["a".repeat(255)]);
        assert_eq!(std::fs::read(&to).unwrap(), b"whole");
        assert_eq!(std::fs::metadata(&to).unwrap().permissions().mode() & 0o777, MODE);
        assert_eq!(NewFile::begin(&to).unwrap_err().kind(), Kind::Config, "what is there stays");
        drop(NewFile::begin(&dir.path().join("b")).unwrap());
        assert_eq!(names(dir.path()).len(), 1, "what did not get everything does not stay");
    }

    #[test]
    fn what_somebody_else_put_there_meanwhile_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("to");
        let new = NewFile::begin(&to).unwrap();
        std::fs::write(&to, "of another").unwrap();
        assert_eq!(new.finish().unwrap_err().what(), "the file exists");
        assert_eq!(std::fs::read(&to).unwrap(), b"of another");
        let from = dir.path().join("from");
        std::fs::write(&from, "new").unwrap();
        assert_eq!(linked(&from, &to), Err(Errno::EXIST));
        std::fs::remove_file(&to).unwrap();
        linked(&from, &to).unwrap();
        assert_eq!((names(dir.path()), std::fs::read(&to).unwrap()), (vec!["to".to_owned()], b"new".to_vec()));
    }

    #[test]
    fn what_was_left_goes_and_what_is_at_work_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (to, other) = (dir.path().join("to"), dir.path().join("other"));
        let at_work = NewFile::begin(&to).unwrap();
        assert_eq!(NewFile::begin(&to).unwrap_err().kind(), Kind::Source, "one restore of a process at a time");
        assert!(at_work.beside.exists());
        let left = PathBuf::from(format!("{}9", at_work.beside.display()));
        std::fs::write(&left, "left").unwrap();
        drop(NewFile::begin(&other).unwrap());
        assert!(left.exists(), "it is of another name");
        drop(at_work);
        let new = NewFile::begin(&to).unwrap();
        assert!(!left.exists() && new.beside.exists());
        // Taken away before it was locked: it is not gone on with.
        std::fs::remove_file(&new.beside).unwrap();
        assert!(new.lock().is_err());
    }
}
