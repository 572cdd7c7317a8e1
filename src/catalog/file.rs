//! The file: found, opened, set aside when it cannot be used.

use super::{Catalog, CatalogError, Result, schema};
use crate::base::RepoId;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use rustix::fs::{FlockOperation, flock};
use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long one waits for another process.
const BUSY_TIME: Duration = Duration::from_secs(5);
/// What SQLite keeps beside the file.
const COMPANIONS: [&str; 2] = ["-wal", "-shm"];

/// A file that could not be used and stands under another name now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAside {
    /// What was wrong with it.
    pub why: String,
    /// Where it is.
    pub now: PathBuf,
}

/// Where the catalog of a repository is.
pub fn path_of(state: &Path, repo: &RepoId) -> PathBuf {
    state.join(format!("catalog-{repo}.sqlite"))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn unusable(what: &str, path: &Path, e: &std::io::Error) -> CatalogError {
    CatalogError::Unusable(format!("cannot {what} {}: {}", path.display(), e.kind()))
}

/// Names of files and errors of the source stand in it, so it is its owner's alone.
fn make_folder(state: &Path) -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(state);
    made.map_err(|e| unusable("make the folder", state, &e))
}

/// Held while a file is made or set aside: two processes must not do that at once.
fn turn(path: &Path) -> Result<File> {
    let lock = with_suffix(path, ".lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&lock);
    let file = file.map_err(|e| unusable("open", &lock, &e))?;
    flock(&file, FlockOperation::LockExclusive).map_err(|e| unusable("lock", &lock, &e.into()))?;
    Ok(file)
}

fn connect(path: &Path) -> Result<Catalog> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIME)?;
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        return Err(CatalogError::Unusable(format!("no write-ahead log in {}", path.display())));
    }
    // The last moments may be lost with the power; the file stays whole, and the regions know better anyway.
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "trusted_schema", false)?;
    // The log is moved into the file when it has grown, not at the end of every run: that would wait for the disk.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    let inode = path.metadata().map_err(|e| unusable("open", path, &e))?.ino();
    let mut catalog = Catalog { connection, inode };
    schema::migrate(&mut catalog.connection)?;
    Ok(catalog)
}

impl Catalog {
    /// Opens the catalog at this path, if there is one.
    ///
    /// # Errors
    /// The file is damaged, another's or newer, or cannot be read and written.
    pub fn open(path: &Path) -> Result<Option<Catalog>> {
        match path.symlink_metadata() {
            Ok(meta) if meta.is_file() => connect(path).map(Some),
            Ok(_) => Err(CatalogError::Damaged("not a file".into())),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(unusable("open", path, &e)),
        }
    }

    /// Opens the catalog, or makes a new one. A file that cannot be used is renamed first. Says whether it is new,
    /// and what was set aside.
    ///
    /// # Errors
    /// There is no catalog to be had here: the folder cannot be written.
    pub fn open_or_make(path: &Path) -> Result<(Catalog, bool, Option<SetAside>)> {
        if let Ok(Some(catalog)) = Catalog::open(path) {
            return Ok((catalog, false, None));
        }
        make_folder(path.parent().unwrap_or(Path::new("/")))?;
        let _turn = turn(path)?;
        // Again: whoever had the turn before may have done it all.
        let aside = match Catalog::open(path) {
            Ok(Some(catalog)) => return Ok((catalog, false, None)),
            Ok(None) => None,
            Err(CatalogError::Damaged(why)) => Some(set_aside(path, why)?),
            // A file that others keep busy is in use, not unusable.
            Err(e) if readable(path) => return Err(e),
            Err(CatalogError::Unusable(why)) => Some(set_aside(path, why)?),
        };
        Ok((make(path)?, true, aside))
    }

    /// Sets this catalog's file aside, in which damage was met, and makes a new one, unless somebody else has done so.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn replace(self, path: &Path, why: String) -> Result<(Catalog, Option<SetAside>)> {
        let _turn = turn(path)?;
        if path.metadata().is_ok_and(|meta| meta.ino() != self.inode) {
            return Ok((connect(path)?, None));
        }
        drop(self.connection);
        let aside = if path.exists() { Some(set_aside(path, why)?) } else { None };
        Ok((make(path)?, aside))
    }
}

fn make(path: &Path) -> Result<Catalog> {
    let made = OpenOptions::new().create_new(true).write(true).mode(0o600).open(path);
    made.map_err(|e| unusable("make", path, &e))?;
    connect(path)
}

/// Whether this process may read and write the file.
fn readable(path: &Path) -> bool {
    use rustix::fs::{Access, access};
    access(path, Access::READ_OK | Access::WRITE_OK).is_ok()
}

/// Renames the file and what belongs to it, to a name that is free.
fn set_aside(path: &Path, why: String) -> Result<SetAside> {
    let free = |n: &u32| !with_suffix(path, &format!(".aside-{n}")).exists();
    let n = (1..1000).find(free).ok_or_else(|| CatalogError::Unusable("too many files were set aside".into()))?;
    let now = with_suffix(path, &format!(".aside-{n}"));
    // The log first: with another database it would be taken for that one's.
    for companion in COMPANIONS {
        let from = with_suffix(path, companion);
        match std::fs::rename(&from, with_suffix(&now, companion)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(unusable("rename", &from, &e)),
            _ => {}
        }
    }
    std::fs::rename(path, &now).map_err(|e| unusable("rename", path, &e))?;
    Ok(SetAside { why, now })
}
