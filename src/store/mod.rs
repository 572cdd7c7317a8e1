//! One object store: typed keys, create-if-absent, ranges, complete listings.
//!
//! Contract: [`Store::put_new`] has one winner and is durable when it returns; a read sees every
//! finished put; a listing is complete or an error. No call waits for ever for a store that is reached over a network.
//! The store sees no plaintext of a repository; [`Objects`] is for buckets that are backed up. This is the only place that knows the crate `object_store`.

mod ask;
mod bucket;
mod circuit;
mod connect;
mod counts;
mod direct;
mod error;
mod examine;
mod folder;
mod ground;
mod heard;
mod key;
mod objects;
mod page;
mod profile;
mod removal;
mod settings;
#[cfg(feature = "testing")]
pub mod testing;
mod verdict;
mod wire;

pub use ask::{Lock, Versioning};
pub use circuit::State;
pub use counts::{Meter, Requests};
pub use error::{StoreError, StoreErrorKind};
pub use examine::{Creates, Deletion, Examination, Examined, Rate, Tried};
pub use ground::{Ground, Lasting};
pub use heard::Transport;
pub use key::{Key, Prefix};
pub use objects::{Content, Facts, Objects, Pages, Part, unfit_headers};
pub use page::Line;
pub use settings::Variables;

use crate::base::{Place, TimeMs};
use bytes::Bytes;
use counts::{Counts, Request};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// A create that was refused although nothing stands there is made again so often,
const CREATE_ROUNDS_MAX: u32 = 5;
/// after pauses that grow by this.
const CREATE_PAUSE: Duration = Duration::from_millis(100);

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

/// What a store did with what stood at a key before an object was put back there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replaced {
    /// It is gone.
    Gone,
    /// It is an older version now.
    Kept,
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

/// How long a store that is reached over a network is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patience {
    /// For a connection.
    pub connect: Duration,
    /// While nothing moves.
    pub stall: Duration,
    /// For one attempt, although it moves.
    pub attempt: Duration,
    /// No further attempt begins so long after the first.
    pub retry: Duration,
    /// The same where nobody answers, or never did.
    pub unreachable: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience {
            connect: Duration::from_secs(10),
            stall: Duration::from_secs(30),
            attempt: Duration::from_secs(900),
            retry: Duration::from_secs(60),
            unreachable: Duration::from_secs(10),
        }
    }
}

/// What a store is connected with.
#[derive(Debug, Clone, Default)]
pub struct StoreSettings {
    /// Where endpoints and credentials come from.
    pub variables: Variables,
    /// How long it is waited for.
    pub patience: Patience,
}

/// A connected store.
#[derive(Debug, Clone)]
pub struct Store {
    backend: Backend,
    counts: Arc<Counts>,
}

#[derive(Debug, Clone)]
enum Backend {
    Folder(Arc<folder::Folder>),
    Bucket(Arc<bucket::Bucket>),
    #[cfg(feature = "testing")]
    StandIn(testing::Mounted),
}

/// One object of a listing, whatever its name.
#[derive(Debug)]
struct Found {
    path: String,
    size: u64,
    modified: i64,
}

/// Puts what was fetched at the beginning of a buffer.
fn filled<'b>(key: &Key, bytes: &[u8], buffer: &'b mut Vec<u8>) -> Result<&'b mut [u8], StoreError> {
    let room = direct::room(buffer, bytes.len() as u64).ok_or_else(|| StoreError::too_long(&key.path()))?;
    room.copy_from_slice(bytes);
    Ok(room)
}

impl Store {
    /// A folder. With `create` the folder and its parents are made.
    ///
    /// # Errors
    /// The folder does not exist, is no folder, or cannot be reached.
    pub fn folder(path: &Path, create: bool) -> Result<Store, StoreError> {
        let folder = folder::Folder::open(path, create)?;
        Ok(Store { backend: Backend::Folder(Arc::new(folder)), counts: Arc::default() })
    }

    /// A folder or a bucket. With `create` a folder and its parents are made; a bucket never is.
    ///
    /// # Errors
    /// The folder cannot be used, or the bucket's configuration is wrong. Whether a bucket is there, only requests say.
    pub fn connect(place: &Place, create: bool, settings: &StoreSettings) -> Result<Store, StoreError> {
        #[cfg(feature = "testing")]
        if let Some(mounted) = testing::mounted(place) {
            return Ok(Store { backend: Backend::StandIn(mounted.connected(create)?), counts: Arc::default() });
        }
        let bucket = match place {
            Place::Folder(path) => return Store::folder(path, create),
            Place::Bucket(bucket) => bucket,
        };
        let counts = Arc::<Counts>::default();
        let connected = connect::connect(bucket, settings, &counts)?;
        let patience = settings.patience.clone();
        let bucket = bucket::Bucket::new(connected, &bucket.prefix, Arc::clone(&counts), patience);
        Ok(Store { backend: Backend::Bucket(Arc::new(bucket)), counts })
    }

    /// Something at the top of a bucket's prefix that no region has. Folders are looked at before they are opened.
    ///
    /// # Errors
    /// The bucket cannot be looked at.
    pub async fn stranger(&self) -> Result<Option<String>, StoreError> {
        let mut ours: Vec<&str> = Prefix::ALL.iter().map(|prefix| prefix.path()).collect();
        // What stays of a try where nothing may be deleted is in nobody's way.
        ours.extend(["region", Prefix::Quarantine.path(), Prefix::Probe.path()]);
        match &self.backend {
            Backend::Bucket(bucket) => bucket.stranger(&ours).await,
            Backend::Folder(_) => Ok(None),
            #[cfg(feature = "testing")]
            Backend::StandIn(_) => Ok(None),
        }
    }

    /// Creates an object if there is none of that key.
    ///
    /// # Errors
    /// The store refused, is full, or cannot be reached.
    pub async fn put_new(&self, key: &Key, bytes: Bytes) -> Result<Put, StoreError> {
        let mut rounds = 0;
        loop {
            if self.create(key, &bytes).await? {
                return Ok(Put::Created);
            }
            // Undecided: our own retry may have made it, or somebody else.
            match self.get(key, bytes.len() as u64 + 1).await {
                Ok(found) if found == bytes => return Ok(Put::Same),
                Ok(_) => return Ok(Put::Other),
                Err(e) if e.kind == StoreErrorKind::TooLong => return Ok(Put::Other),
                // A store may refuse two creates that met, and take neither.
                Err(e) if e.kind == StoreErrorKind::NotFound && rounds < CREATE_ROUNDS_MAX => rounds += 1,
                Err(e) => return Err(e),
            }
            #[cfg(feature = "testing")]
            if let Backend::StandIn(mounted) = &self.backend {
                mounted.pause(CREATE_PAUSE * rounds);
                continue;
            }
            tokio::time::sleep(CREATE_PAUSE * rounds).await;
        }
    }

    /// The same where the store would replace what is there: it is looked at before. Between the look and the put another may
    /// put something too, so that nothing may rest on who was first.
    ///
    /// # Errors
    /// The store refused, is full, or cannot be reached.
    pub async fn put_weakly(&self, key: &Key, bytes: &Bytes) -> Result<Put, StoreError> {
        match self.get(key, bytes.len() as u64 + 1).await {
            Ok(found) if found == bytes => Ok(Put::Same),
            Ok(_) => Ok(Put::Other),
            Err(e) if e.kind == StoreErrorKind::TooLong => Ok(Put::Other),
            // Some such stores refuse a request with a condition in it.
            Err(e) if e.kind == StoreErrorKind::NotFound => {
                self.put_back(key, bytes.clone()).await.map(|_| Put::Created)
            }
            Err(e) => Err(e),
        }
    }

    /// Puts an object at its key, whatever stands there, at once or not at all. For repair alone: everything else is
    /// created, and never replaced.
    ///
    /// # Errors
    /// The store refused, is full, or cannot be reached.
    pub async fn put_back(&self, key: &Key, bytes: Bytes) -> Result<Replaced, StoreError> {
        match &self.backend {
            Backend::Folder(folder) => {
                self.counts.add(Request::Put);
                folder.replace(key, &bytes).await.map(|()| Replaced::Gone)
            }
            Backend::Bucket(bucket) => {
                Ok(if bucket.replace(key, &bytes).await? { Replaced::Kept } else { Replaced::Gone })
            }
            #[cfg(feature = "testing")]
            Backend::StandIn(mounted) => mounted.replace(key, &bytes).map(|()| Replaced::Gone),
        }
    }

    /// Whether it was created, as far as the store says.
    async fn create(&self, key: &Key, bytes: &Bytes) -> Result<bool, StoreError> {
        match &self.backend {
            Backend::Folder(folder) => {
                self.counts.add(Request::Put);
                folder.create(key, bytes).await
            }
            Backend::Bucket(bucket) => bucket.create(key, bytes).await,
            #[cfg(feature = "testing")]
            Backend::StandIn(mounted) => mounted.create(key, bytes),
        }
    }

    /// The whole object, if it has at most `len_max` bytes.
    ///
    /// # Errors
    /// Not there, longer, or the store failed.
    pub async fn get(&self, key: &Key, len_max: u64) -> Result<Bytes, StoreError> {
        match &self.backend {
            Backend::Folder(folder) => {
                self.counts.add(Request::Get);
                folder.get(key, len_max)
            }
            Backend::Bucket(bucket) => bucket.get(key, len_max).await,
            #[cfg(feature = "testing")]
            Backend::StandIn(mounted) => mounted.get(key, len_max),
        }
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
        match &self.backend {
            Backend::Folder(folder) => {
                self.counts.add(Request::Get);
                folder.get_into(key, len_max, buffer)
            }
            Backend::Bucket(bucket) => filled(key, &bucket.get(key, len_max).await?, buffer),
            #[cfg(feature = "testing")]
            Backend::StandIn(mounted) => filled(key, &mounted.get(key, len_max)?, buffer),
        }
    }

    /// `len` bytes from `offset`.
    ///
    /// # Errors
    /// Not there, shorter than that, or the store failed.
    pub async fn get_range(&self, key: &Key, offset: u64, len: u64) -> Result<Bytes, StoreError> {
        if len == 0 {
            return Ok(Bytes::new());
        }
        let bytes = match &self.backend {
            Backend::Folder(folder) => {
                self.counts.add(Request::Get);
                folder.get_range(key, offset, len)?
            }
            Backend::Bucket(bucket) => bucket.get_range(key, offset, len).await?,
            #[cfg(feature = "testing")]
            Backend::StandIn(mounted) => mounted.get_range(key, offset, len)?,
        };
        if bytes.len() as u64 == len { Ok(bytes) } else { Err(StoreError::short(&key.path())) }
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
        match &self.backend {
            Backend::Folder(folder) => {
                self.counts.add(Request::Get);
                folder.get_range_into(key, offset, len, buffer)
            }
            #[cfg(feature = "testing")]
            Backend::StandIn(_) => filled(key, &self.get_range(key, offset, len).await?, buffer),
            Backend::Bucket(_) => filled(key, &self.get_range(key, offset, len).await?, buffer),
        }
    }

    /// Size of an object, in bytes.
    ///
    /// # Errors
    /// Not there, or the store failed.
    pub async fn size(&self, key: &Key) -> Result<u64, StoreError> {
        match &self.backend {
            Backend::Folder(folder) => {
                self.counts.add(Request::Head);
                folder.size(key)
            }
            Backend::Bucket(bucket) => bucket.size(key).await,
            #[cfg(feature = "testing")]
            Backend::StandIn(mounted) => mounted.size(key),
        }
    }

    /// Everything under a prefix that has the form of a key of it, and the names of what has not.
    ///
    /// # Errors
    /// The listing could not be completed.
    pub async fn list(&self, prefix: Prefix) -> Result<(Vec<Listed>, Vec<String>), StoreError> {
        let all = match &self.backend {
            Backend::Folder(folder) => {
                self.counts.add(Request::List);
                folder.list(prefix).await?
            }
            Backend::Bucket(bucket) => bucket.list(prefix).await?,
            #[cfg(feature = "testing")]
            Backend::StandIn(mounted) => mounted.list(prefix)?,
        };
        let (mut known, mut junk) = (Vec::with_capacity(all.len()), Vec::new());
        let below = |path: &str| path.strip_prefix(prefix.path()).is_some_and(|rest| rest.starts_with('/'));
        for found in all {
            // What lies elsewhere was not asked for: whoever listens to one kind of objects must not be told of another.
            match Key::parse(&found.path).filter(|_| below(&found.path)) {
                Some(key) => known.push(Listed { key, size: found.size, modified: found.modified }),
                None => junk.push(found.path),
            }
        }
        known.sort_by_key(|line| line.key);
        Ok((known, junk))
    }

    /// Removes an object; one that is not there is removed already.
    ///
    /// # Errors
    /// The store refused, or cannot be reached.
    pub async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        match &self.backend {
            Backend::Folder(folder) => {
                self.counts.add(Request::Delete);
                folder.delete(key).await
            }
            Backend::Bucket(bucket) => bucket.delete(key).await,
            #[cfg(feature = "testing")]
            Backend::StandIn(mounted) => mounted.delete(key),
        }
    }

    /// Counts the requests that are made.
    pub fn meter(&self) -> Meter {
        Meter(Arc::clone(&self.counts))
    }

    /// How far its clock is ahead of one that says `now`, at least, ms; 0 where it may be right. A folder has no clock of its own.
    pub fn clock_ahead_ms(&self, now: TimeMs) -> i64 {
        let bounds = match &self.backend {
            Backend::Folder(_) => None,
            Backend::Bucket(bucket) => bucket.heard.ahead(now),
            #[cfg(feature = "testing")]
            Backend::StandIn(_) => None,
        };
        bounds.map_or(0, heard::surely)
    }

    /// Device and inode, of a folder.
    pub fn identity(&self) -> Option<(u64, u64)> {
        match &self.backend {
            Backend::Folder(folder) => folder.identity(),
            Backend::Bucket(_) => None,
            #[cfg(feature = "testing")]
            Backend::StandIn(_) => None,
        }
    }

    /// Removes staged files that dead writers left in a folder; a bucket has none.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn sweep_staged(&self) -> Result<u64, StoreError> {
        match &self.backend {
            Backend::Folder(folder) => folder.sweep(),
            Backend::Bucket(_) => Ok(0),
            #[cfg(feature = "testing")]
            Backend::StandIn(_) => Ok(0),
        }
    }
}

/// What a store was found to be at `init`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trial {
    /// It keeps the contract, as far as two creates one after the other and a range can tell.
    Fit,
    /// A second create of one key replaced the first.
    Overwrites,
    /// A part of an object cannot be read.
    NoRanges,
}

impl Store {
    /// Tries a store with an object that it needs anyway, and leaves nothing else behind: creates it, creates it
    /// once more with other bytes, which must be refused, and reads a part of it. Of a weak one only the latter is asked.
    ///
    /// # Errors
    /// The store failed, or something else stands at that key.
    pub async fn try_out(&self, key: &Key, bytes: &Bytes, weak: bool) -> Result<(Put, Trial), StoreError> {
        let first = if weak { self.put_weakly(key, bytes).await? } else { self.put_new(key, bytes.clone()).await? };
        if first == Put::Other {
            return Ok((first, Trial::Fit));
        }
        // Of the same length: a store that takes it has nothing to see the difference by.
        let other: Bytes = bytes.iter().map(|byte| !byte).collect();
        if !weak && self.put_new(key, other).await? != Put::Other {
            return Ok((first, Trial::Overwrites));
        }
        let middle = bytes.len() / 2..bytes.len();
        let (offset, len) = (middle.start as u64, middle.len() as u64);
        match self.get_range(key, offset, len).await {
            Ok(part) if part == bytes.slice(middle) => Ok((first, Trial::Fit)),
            Ok(_) => Ok((first, Trial::NoRanges)),
            Err(e) if matches!(e.kind, StoreErrorKind::Unfit | StoreErrorKind::Short) => Ok((first, Trial::NoRanges)),
            Err(e) => Err(e),
        }
    }
}
