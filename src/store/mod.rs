//! One object store: typed keys, create-if-absent, ranges, complete listings.
//!
//! Contract: [`Store::put_new`] has one winner and is durable when it returns; a read sees every
//! finished put; a listing is complete or an error. The store sees no plaintext. This is the only
//! place that knows the crate `object_store`.

mod direct;
mod error;
mod key;

pub use error::{StoreError, StoreErrorKind};
pub use key::{Key, Prefix};

use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, PutMode, PutOptions, PutPayload};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// A staged file older than this was left by a process that is dead: no put takes a day.
const STAGED_FILE_AGE_MIN: Duration = Duration::from_secs(24 * 3600);

/// What became of a create.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// This call created the object.
    Created,
    /// The object was there with the same bytes.
    Same,
    /// Something else stands there.
    Other,
}

/// One line of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Key.
    pub key: Key,
    /// Size in bytes.
    pub size: u64,
    /// The store's time of it, ms since 1970.
    pub modified: i64,
}

/// A connected store.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<dyn ObjectStore>,
    folder: Arc<Folder>,
}

/// A folder that is held open. Everything goes through the descriptor, never again through the path: a disk
/// that is unmounted under a run leaves an empty folder of the same name, into which nothing must be written.
#[derive(Debug)]
struct Folder {
    held: File,
}

impl Folder {
    /// A path to it that follows it wherever it is moved.
    fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.held.as_raw_fd()))
    }

    /// Where /proc is not mounted, that path is an ordinary one: it would be made, and written to.
    fn check_path(&self) -> std::io::Result<()> {
        let (held, named) = (self.held.metadata()?, std::fs::metadata(self.path()));
        match named.is_ok_and(|named| (named.dev(), named.ino()) == (held.dev(), held.ino())) {
            true => Ok(()),
            false => Err(std::io::Error::other("/proc is not mounted, and folder regions are reached through it")),
        }
    }
}

impl Store {
    /// A folder. With `create` the folder and its parents are made.
    ///
    /// # Errors
    /// The folder does not exist, is no folder, or cannot be reached.
    pub fn folder(path: &Path, create: bool) -> Result<Store, StoreError> {
        let fail = |e: std::io::Error| StoreError::io("open folder", &path.display().to_string(), &e);
        if create {
            make_folder(path).map_err(fail)?;
        }
        let held = File::open(path).map_err(fail)?;
        if !held.metadata().map_err(fail)?.is_dir() {
            return Err(fail(std::io::Error::from(std::io::ErrorKind::NotADirectory)));
        }
        let folder = Folder { held };
        folder.check_path().map_err(fail)?;
        let prefix = ObjectPath::from_absolute_path(folder.path())
            .map_err(|e| StoreError::from_store("open folder", "", e.into()))?;
        let inner = PrefixStore::new(LocalFileSystem::new().with_fsync(true), prefix);
        Ok(Store { inner: Arc::new(inner), folder: Arc::new(folder) })
    }

    /// Creates an object if there is none of that key.
    ///
    /// # Errors
    /// The store refused, is full, or cannot be reached.
    pub async fn put_new(&self, key: &Key, bytes: Bytes) -> Result<Put, StoreError> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let path = ObjectPath::from(key.path());
        let done = self.inner.put_opts(&path, PutPayload::from_bytes(bytes.clone()), options).await;
        match done {
            Ok(_) => Ok(Put::Created),
            // Undecided: our own retry may have made it, or somebody else.
            Err(object_store::Error::AlreadyExists { .. }) => {
                let there = self.get(key, bytes.len() as u64 + 1).await;
                match there {
                    Ok(found) if found == bytes => Ok(Put::Same),
                    Ok(_) => Ok(Put::Other),
                    Err(e) if e.kind == StoreErrorKind::TooLong => Ok(Put::Other),
                    Err(e) => Err(e),
                }
            }
            Err(e) => Err(StoreError::from_store("create", &key.path(), e)),
        }
    }

    /// The whole object, if it has at most `len_max` bytes.
    ///
    /// # Errors
    /// Not there, longer, or the store failed.
    pub async fn get(&self, key: &Key, len_max: u64) -> Result<Bytes, StoreError> {
        let mut bytes = Vec::new();
        direct::get(&self.folder.held, key, len_max, &mut bytes)?;
        Ok(bytes.into())
    }

    /// The same into a buffer, which keeps its memory for the next read; what was in it is lost.
    ///
    /// # Errors
    /// As for [`Store::get`].
    pub async fn get_into<'b>(
        &self,
        key: &Key,
        len_max: u64,
        buffer: &'b mut Vec<u8>,
    ) -> Result<&'b mut [u8], StoreError> {
        direct::get(&self.folder.held, key, len_max, buffer)
    }

    /// `len` bytes from `offset`.
    ///
    /// # Errors
    /// Not there, shorter than that, or the store failed.
    pub async fn get_range(&self, key: &Key, offset: u64, len: u64) -> Result<Bytes, StoreError> {
        let mut bytes = Vec::new();
        direct::get_range(&self.folder.held, key, offset, len, &mut bytes)?;
        Ok(bytes.into())
    }

    /// The same into a buffer, which keeps its memory for the next read; what was in it is lost.
    ///
    /// # Errors
    /// As for [`Store::get_range`].
    pub async fn get_range_into<'b>(
        &self,
        key: &Key,
        offset: u64,
        len: u64,
        buffer: &'b mut Vec<u8>,
    ) -> Result<&'b mut [u8], StoreError> {
        direct::get_range(&self.folder.held, key, offset, len, buffer)
    }

    /// Size of an object, in bytes.
    ///
    /// # Errors
    /// Not there, or the store failed.
    pub async fn size(&self, key: &Key) -> Result<u64, StoreError> {
        direct::size(&self.folder.held, key)
    }

    /// Everything under a prefix that has the form of a key, and the names of what has not.
    ///
    /// # Errors
    /// The listing could not be completed.
    pub async fn list(&self, prefix: Prefix) -> Result<(Vec<Listed>, Vec<String>), StoreError> {
        let path = ObjectPath::from(prefix.path());
        let all: Vec<_> = self
            .inner
            .list(Some(&path))
            .try_collect()
            .await
            .map_err(|e| StoreError::from_store("list", prefix.path(), e))?;
        let (mut known, mut junk) = (Vec::with_capacity(all.len()), Vec::new());
        for meta in all {
            match Key::parse(meta.location.as_ref()) {
                Some(key) => {
                    let modified = meta.last_modified.timestamp_millis();
                    known.push(Listed { key, size: meta.size, modified });
                }
                None => junk.push(meta.location.to_string()),
            }
        }
        known.sort_by_key(|line| line.key);
        Ok((known, junk))
    }
}

impl Store {
    /// Device and inode of the folder.
    pub fn identity(&self) -> Option<(u64, u64)> {
        self.folder.held.metadata().ok().map(|meta| (meta.dev(), meta.ino()))
    }

    /// Removes staged files that dead writers left. Live writers' files are young.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn sweep_staged(&self) -> Result<u64, StoreError> {
        sweep(&self.folder.path())
    }
}

/// Makes a folder with its parents. What is stored in it later is on the disk only if its own name is.
fn make_folder(path: &Path) -> std::io::Result<()> {
    let path = std::path::absolute(path)?;
    let missing = path.ancestors().take_while(|dir| !dir.exists()).count();
    std::fs::create_dir_all(&path)?;
    path.ancestors().skip(1).take(missing).try_for_each(|parent| File::open(parent)?.sync_all())
}

fn sweep(folder: &Path) -> Result<u64, StoreError> {
    let fail = |e: std::io::Error| StoreError::io("sweep", &folder.display().to_string(), &e);
    let mut open: Vec<PathBuf> = vec![folder.to_path_buf()];
    let mut swept = 0;
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            if entry.file_type().map_err(fail)?.is_dir() {
                open.push(entry.path());
            } else if is_staged(&entry.file_name()) && entry.metadata().is_ok_and(|meta| is_old(&meta)) {
                std::fs::remove_file(entry.path()).map_err(fail)?;
                swept += 1;
            }
        }
    }
    Ok(swept)
}

/// `object_store` stages `name` as `name#1`, `name#2`, …
fn is_staged(name: &std::ffi::OsStr) -> bool {
    let Some(text) = name.to_str() else { return false };
    text.rsplit_once('#').is_some_and(|(_, n)| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

fn is_old(meta: &std::fs::Metadata) -> bool {
    meta.modified().ok().and_then(|at| at.elapsed().ok()).is_some_and(|age| age > STAGED_FILE_AGE_MIN)
}
