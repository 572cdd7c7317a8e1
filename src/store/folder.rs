//! A folder as a store. It is held open, and everything goes through the descriptor, never again through the
//! path: a disk that is unmounted under a run leaves an empty folder of the same name, into which nothing must be
//! written.

use super::Found;
use super::direct;
use super::error::StoreError;
use super::ground::Ground;
use super::key::{Key, Prefix};
use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A staged file older than this was left by a process that is dead: no put takes a day.
const STAGED_FILE_AGE_MIN: Duration = Duration::from_secs(24 * 3600);

/// A folder that is held open.
#[derive(Debug)]
pub(super) struct Folder {
    held: File,
    inner: PrefixStore<LocalFileSystem>,
}

/// A path to an open folder that follows it wherever it is moved.
fn path_of(held: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", held.as_raw_fd()))
}

/// Where /proc is not mounted, that path is an ordinary one: it would be made, and written to.
fn check_path(held: &File) -> std::io::Result<()> {
    let (meta, named) = (held.metadata()?, std::fs::metadata(path_of(held)));
    match named.is_ok_and(|named| (named.dev(), named.ino()) == (meta.dev(), meta.ino())) {
        true => Ok(()),
        false => Err(std::io::Error::other("/proc is not mounted, and folder regions are reached through it")),
    }
}

impl Folder {
    /// Opens it. With `create` the folder and its parents are made.
    pub(super) fn open(path: &Path, create: bool) -> Result<Folder, StoreError> {
        let fail = |e: std::io::Error| StoreError::io("open folder", &path.display().to_string(), &e);
        if create {
            make_folder(path).map_err(fail)?;
        }
        let held = File::open(path).map_err(fail)?;
        if !held.metadata().map_err(fail)?.is_dir() {
            return Err(fail(std::io::Error::from(std::io::ErrorKind::NotADirectory)));
        }
        check_path(&held).map_err(fail)?;
        let prefix = ObjectPath::from_absolute_path(path_of(&held))
            .map_err(|e| StoreError::from_folder("open folder", "", e.into()))?;
        let inner = PrefixStore::new(LocalFileSystem::new().with_fsync(true), prefix);
        Ok(Folder { held, inner })
    }

    /// Whether it was created; if not, something stands there.
    pub(super) async fn create(&self, key: &Key, bytes: &Bytes) -> Result<bool, StoreError> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let path = ObjectPath::from(key.path());
        match self.inner.put_opts(&path, PutPayload::from_bytes(bytes.clone()), options).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
            Err(e) => Err(StoreError::from_folder("create", &key.path(), e)),
        }
    }

    /// Puts an object at its key, whatever stands there: by a rename, so that at every instant one of both is there.
    pub(super) async fn replace(&self, key: &Key, bytes: &Bytes) -> Result<(), StoreError> {
        let path = ObjectPath::from(key.path());
        let put = self.inner.put_opts(&path, PutPayload::from_bytes(bytes.clone()), PutOptions::default()).await;
        put.map(drop).map_err(|e| StoreError::from_folder("replace", &key.path(), e))
    }

    pub(super) fn get(&self, key: &Key, len_max: u64) -> Result<Bytes, StoreError> {
        let mut bytes = Vec::new();
        self.get_into(key, len_max, &mut bytes)?;
        Ok(bytes.into())
    }

    pub(super) fn get_into<'b>(
        &self,
        key: &Key,
        len_max: u64,
        buffer: &'b mut Vec<u8>,
    ) -> Result<&'b mut [u8], StoreError> {
        direct::get(&self.held, key, len_max, buffer)
    }

    pub(super) fn get_range(&self, key: &Key, offset: u64, len: u64) -> Result<Bytes, StoreError> {
        let mut bytes = Vec::new();
        self.get_range_into(key, offset, len, &mut bytes)?;
        Ok(bytes.into())
    }

    pub(super) fn get_range_into<'b>(
        &self,
        key: &Key,
        offset: u64,
        len: u64,
        buffer: &'b mut Vec<u8>,
    ) -> Result<&'b mut [u8], StoreError> {
        direct::get_range(&self.held, key, offset, len, buffer)
    }

    pub(super) fn size(&self, key: &Key) -> Result<u64, StoreError> {
        direct::size(&self.held, key)
    }

    pub(super) async fn list(&self, prefix: Prefix) -> Result<Vec<Found>, StoreError> {
        let path = ObjectPath::from(prefix.path());
        let all: Vec<_> = self
            .inner
            .list(Some(&path))
            .try_collect()
            .await
            .map_err(|e| StoreError::from_folder("list", prefix.path(), e))?;
        let found = |meta: object_store::ObjectMeta| Found {
            path: meta.location.to_string(),
            size: meta.size,
            modified: meta.last_modified.timestamp_millis(),
        };
        Ok(all.into_iter().map(found).collect())
    }

    pub(super) async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        match self.inner.delete(&ObjectPath::from(key.path())).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(StoreError::from_folder("delete", &key.path(), e)),
        }
    }

    fn path(&self) -> PathBuf {
        path_of(&self.held)
    }

    /// Device and inode.
    pub(super) fn identity(&self) -> Option<(u64, u64)> {
        self.held.metadata().ok().map(|meta| (meta.dev(), meta.ino()))
    }

    /// What the file system is.
    pub(super) fn ground(&self) -> Option<Ground> {
        Ground::of(&self.held)
    }

    /// Removes the folder of what a store is tried with, if nothing is in it.
    pub(super) fn tidy(&self) {
        // Somebody else's try may be under way; that one tidies up itself.
        let _ = std::fs::remove_dir(self.path().join(Prefix::Probe.path()));
    }

    /// Removes staged files that dead writers left. Live writers' files are young.
    pub(super) fn sweep(&self) -> Result<u64, StoreError> {
        sweep(&self.path())
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
