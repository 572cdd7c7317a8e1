//! Stores that stand in for real ones, in the tests alone: whoever writes one decides when a call is made, what becomes
//! of it and what is told of that.
//!
//! A stand-in is mounted at an address; from then on connecting to that address leads to it. Its calls return when they are
//! done and never wait for another thread of the caller, so that a program without workers makes one call at a time, in
//! a fixed order.

use super::error::{StoreError, StoreErrorKind};
use super::key::{Key, Prefix};
use super::{Found, Place};
use bytes::Bytes;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

/// What a call came to.
pub type Answer<T> = Result<T, StoreErrorKind>;

/// One line of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Where the object lies.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// When it was stored, ms since 1970.
    pub modified: i64,
}

/// A store that stands in for a real one. It need not keep the contract of one.
pub trait StandIn: std::fmt::Debug + Send + Sync {
    /// Somebody connects. With `create` a place is made.
    ///
    /// # Errors
    /// It cannot be reached, or there is no such place.
    fn connect(&self, create: bool) -> Answer<()>;
    /// Creates an object if there is none; says whether it did.
    ///
    /// # Errors
    /// As it likes; also after it was done.
    fn create(&self, path: &str, bytes: &Bytes) -> Answer<bool>;
    /// Puts an object, whatever stands there.
    ///
    /// # Errors
    /// As it likes.
    fn replace(&self, path: &str, bytes: &Bytes) -> Answer<()>;
    /// The object, or a part of it.
    ///
    /// # Errors
    /// Not there, or as it likes.
    fn get(&self, path: &str, range: Option<Range<u64>>) -> Answer<Bytes>;
    /// Its size.
    ///
    /// # Errors
    /// Not there, or as it likes.
    fn size(&self, path: &str) -> Answer<u64>;
    /// Everything below a folder.
    ///
    /// # Errors
    /// As it likes.
    fn list(&self, folder: &str) -> Answer<Vec<Line>>;
    /// Removes an object.
    ///
    /// # Errors
    /// As it likes.
    fn delete(&self, path: &str) -> Answer<()>;
    /// The caller would wait for so long.
    fn pause(&self, time: Duration);
}

static MOUNTS: LazyLock<Mutex<HashMap<String, Arc<dyn StandIn>>>> = LazyLock::new(Mutex::default);

fn mounts() -> std::sync::MutexGuard<'static, HashMap<String, Arc<dyn StandIn>>> {
    MOUNTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on this address leads to a stand-in.
pub fn mount(place: &Place, store: Arc<dyn StandIn>) {
    mounts().insert(place.to_string(), store);
}

/// From now on it leads where it says.
pub fn unmount(place: &Place) {
    mounts().remove(&place.to_string());
}

pub(super) fn mounted(place: &Place) -> Option<Mounted> {
    let store = mounts().get(&place.to_string()).cloned()?;
    Some(Mounted { store, place: place.to_string().into() })
}

/// A stand-in at an address.
#[derive(Debug, Clone)]
pub(super) struct Mounted {
    store: Arc<dyn StandIn>,
    place: Arc<str>,
}

fn failed<T>(action: &'static str, object: &str, answer: Answer<T>) -> Result<T, StoreError> {
    answer.map_err(|kind| StoreError::new(kind, action, object, "so the stand-in says"))
}

impl Mounted {
    pub(super) fn connected(self, create: bool) -> Result<Mounted, StoreError> {
        failed("open folder", &self.place, self.store.connect(create))?;
        Ok(self)
    }

    pub(super) fn create(&self, key: &Key, bytes: &Bytes) -> Result<bool, StoreError> {
        failed("create", &key.path(), self.store.create(&key.path(), bytes))
    }

    pub(super) fn replace(&self, key: &Key, bytes: &Bytes) -> Result<(), StoreError> {
        failed("replace", &key.path(), self.store.replace(&key.path(), bytes))
    }

    pub(super) fn get(&self, key: &Key, len_max: u64) -> Result<Bytes, StoreError> {
        let bytes = failed("read", &key.path(), self.store.get(&key.path(), None))?;
        if bytes.len() as u64 > len_max { Err(StoreError::too_long(&key.path())) } else { Ok(bytes) }
    }

    pub(super) fn get_range(&self, key: &Key, offset: u64, len: u64) -> Result<Bytes, StoreError> {
        let range = offset..offset.saturating_add(len);
        failed("read", &key.path(), self.store.get(&key.path(), Some(range)))
    }

    pub(super) fn size(&self, key: &Key) -> Result<u64, StoreError> {
        failed("stat", &key.path(), self.store.size(&key.path()))
    }

    pub(super) fn list(&self, prefix: Prefix) -> Result<Vec<Found>, StoreError> {
        let lines = failed("list", prefix.path(), self.store.list(prefix.path()))?;
        let found = |line: Line| Found { path: line.path, size: line.size, modified: line.modified };
        Ok(lines.into_iter().map(found).collect())
    }

    pub(super) fn delete(&self, key: &Key) -> Result<(), StoreError> {
        failed("delete", &key.path(), self.store.delete(&key.path()))
    }

    pub(super) fn pause(&self, time: Duration) {
        self.store.pause(time);
    }
}
