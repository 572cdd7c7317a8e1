//! The set of stores that hold the repository: writes to all, reads from any, and a ledger of what
//! was found wrong. This is where plain threads meet the async store.
//!
//! Contract: a write that fails in one region marks that region as behind for the rest of the run and
//! disturbs no other. A read is handed to its caller only after the caller's own check passed; a copy
//! that fails the check is recorded and the next region is asked.

mod ahead;
mod each;
mod findings;
mod haste;
mod reads;
mod remove;
mod set;
mod together;
mod upload;

pub use ahead::Ahead;
pub use findings::{Finding, Flaw, Wrong};
pub use remove::Removed;
pub use set::RegionSet;
pub use together::{Hurry, Lists, by_key};
pub use upload::{Uploaded, Uploader};

use crate::base::{Bucket, Pace, PackName, Place, RegionId, TimeMs};
use crate::error::{Error, Kind, Result};
use crate::format::FormatError;
use crate::format::region::RegionMark;
use crate::store::{Key, Listed, Meter, Prefix, Put, Replaced, Store, StoreSettings, Trial};
use bytes::Bytes;
use findings::Found;
use futures_util::future::join_all;
use haste::Haste;
use reads::{Answers, Hedges};
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use tokio::runtime::Handle;
use tokio::sync::watch;

/// Most regions of a repository.
pub const REGIONS_MAX: usize = 32;

/// A region as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub place: Place,
}

/// One region.
#[derive(Debug)]
pub struct Region {
    /// Its name.
    pub name: String,
    /// Its id, once read.
    pub id: Option<RegionId>,
    /// Whether it is a bucket, and no folder.
    pub bucket: bool,
    place: Place,
    /// Whether its store does not create only if absent: it holds copies, and nothing is decided by what it creates.
    weak: AtomicBool,
    store: Option<Store>,
    failed: Mutex<Option<Error>>,
    read_only: Mutex<Option<Error>>,
    pace: Mutex<Option<Arc<Pace>>>,
    /// Set when it is not waited for any more in this run.
    dropped: watch::Sender<bool>,
    answers: Answers,
}

/// All regions of one repository.
#[derive(Debug)]
pub struct Regions {
    all: Vec<Region>,
    handle: Handle,
    found: Found,
    haste: Haste,
    hedges: Hedges,
}

/// Locks whatever happened to the last holder: the data behind our locks is valid at every step.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Regions {
    /// Connects to every address. A region that cannot be reached is kept as failed.
    /// With `create` folders are made.
    pub fn connect(addresses: &[Address], create: bool, handle: &Handle) -> Regions {
        Regions::connect_with(addresses, create, handle, &StoreSettings::default())
    }

    /// The same with settings of one's own.
    pub fn connect_with(addresses: &[Address], create: bool, handle: &Handle, settings: &StoreSettings) -> Regions {
        let all = addresses.iter().take(REGIONS_MAX).map(|address| connect_one(address, create, settings)).collect();
        let haste = Haste::new(addresses.len().min(REGIONS_MAX));
        Regions { all, handle: handle.clone(), found: Found::default(), haste, hedges: Hedges::default() }
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// One of them.
    pub fn region(&self, ix: usize) -> &Region {
        &self.all[ix]
    }

    /// Sets a region's id once its mark was read.
    pub fn set_id(&mut self, ix: usize, id: RegionId) {
        self.all[ix].id = Some(id);
    }

    /// Whether nothing may be decided by what its store creates.
    pub fn is_weak(&self, ix: usize) -> bool {
        self.all.get(ix).is_none_or(|region| region.weak.load(Ordering::Relaxed))
    }

    /// Takes note of what the repository calls a region, whatever the configuration says.
    pub fn set_weak(&self, ix: usize, weak: bool) {
        self.all[ix].weak.store(weak, Ordering::Relaxed);
    }

    /// Those that have not failed.
    pub fn healthy(&self) -> RegionSet {
        RegionSet::of((0..self.all.len()).filter(|ix| lock(&self.all[*ix].failed).is_none()))
    }

    /// Marks a region as unusable for the rest of the run; the first reason is kept, but of one that was only slow.
    pub fn fail(&self, ix: usize, error: Error) {
        let region = &self.all[ix];
        let mut failed = lock(&region.failed);
        if *region.dropped.borrow() && error.kind() == Kind::Damage {
            *failed = Some(error);
        } else {
            failed.get_or_insert(error);
        }
    }

    /// Says why a region is read but not written, or that it may be written.
    pub fn restrict(&self, ix: usize, why: Option<Error>) {
        *lock(&self.all[ix].read_only) = why.map(|e| e.at(self.label(ix)));
    }

    /// Healthy regions that may be written.
    pub fn writable(&self) -> RegionSet {
        RegionSet::of(self.healthy().iter().filter(|ix| lock(&self.all[*ix].read_only).is_none()))
    }

    /// Regions that failed or must not be written, with the reasons.
    pub fn failures(&self) -> Vec<(String, Error)> {
        (0..self.all.len()).filter_map(|ix| self.failure(ix).map(|e| (self.all[ix].name.clone(), e))).collect()
    }

    /// Why a region failed or must not be written.
    pub fn failure(&self, ix: usize) -> Option<Error> {
        let failed = lock(&self.all[ix].failed).clone();
        failed.or_else(|| lock(&self.all[ix].read_only).clone())
    }

    /// Records something wrong with one copy, once.
    pub fn record(&self, ix: usize, object: &str, what: impl Into<Wrong>) {
        self.found.record(&self.all[ix].name, object, what.into());
    }

    /// Takes packs for damaged that were found to be so by somebody else, without recording it again.
    pub fn suspect(&self, packs: impl IntoIterator<Item = PackName>) {
        self.found.suspect(packs);
    }

    /// Whether a copy of this pack was found to be damaged or missing, so far.
    pub fn is_damaged(&self, name: &PackName) -> bool {
        self.found.is_damaged(name)
    }

    /// Everything recorded so far.
    pub fn findings(&self) -> Vec<Finding> {
        self.found.all()
    }

    /// How often something was found to be wrong so far, the same again included.
    pub fn found_times(&self) -> u64 {
        self.found.times()
    }

    /// Removes what dead writers left half-written.
    ///
    /// # Errors
    /// The store failed.
    pub fn sweep(&self, ix: usize) -> Result<u64> {
        self.store(ix)?.sweep_staged().map_err(|e| e.lift().at(self.label(ix)))
    }

    /// Something at the top of a bucket's prefix that no region has.
    ///
    /// # Errors
    /// It cannot be looked at.
    pub fn stranger(&self, ix: usize) -> Result<Option<String>> {
        let store = self.store(ix)?;
        self.handle.block_on(store.stranger()).map_err(|e| e.lift().at(self.label(ix)))
    }

    /// Creates an object in one region and sees on the way whether its store keeps what everything here rests on.
    ///
    /// # Errors
    /// The store failed, or is not fit to be a region.
    pub fn try_out(&self, ix: usize, key: &Key, bytes: &Bytes) -> Result<Put> {
        let store = self.store(ix)?;
        let weak = self.is_weak(ix);
        let tried = self.handle.block_on(store.try_out(key, bytes, weak)).map_err(|e| e.lift().at(self.label(ix)))?;
        let (lacks, advice) = match tried {
            (put, Trial::Fit) => return Ok(put),
            (_, Trial::Overwrites) => (
                "the store replaces an object that is to be created only if it is absent",
                "two writers would destroy each other's work there: use a store that honours `If-None-Match: *`; beside \
                 one that does, this one may hold copies, and decide nothing, if its URL says `weak=yes`",
            ),
            (_, Trial::NoRanges) => ("the store does not read parts of objects", "use a store that honours ranges"),
        };
        // What was tried there is of no use to anybody; whether it goes or stays, the store is refused.
        let _ = self.handle.block_on(store.delete(key));
        Err(Error::new(Kind::Config, lacks).at(self.label(ix)).advise(advice))
    }

    /// What counts the requests made of each region.
    pub fn meters(&self) -> Vec<(String, Meter)> {
        self.all.iter().filter_map(|region| Some((region.name.clone(), region.store.as_ref()?.meter()))).collect()
    }

    /// How far a region's clock is surely ahead of one that says `now`, ms.
    pub fn clock_ahead_ms(&self, ix: usize, now: TimeMs) -> i64 {
        let store = self.all.get(ix).and_then(|region| region.store.as_ref());
        store.map_or(0, |store| store.clock_ahead_ms(now))
    }

    /// Device and inode of each folder.
    pub fn identities(&self) -> Vec<(u64, u64)> {
        self.all.iter().filter_map(|r| r.store.as_ref()?.identity()).collect()
    }

    /// The buckets among them.
    pub fn buckets(&self) -> impl Iterator<Item = &Bucket> {
        self.all.iter().filter_map(|region| match &region.place {
            Place::Bucket(bucket) => Some(bucket),
            Place::Folder(_) => None,
        })
    }

    /// The runtime.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    fn store(&self, ix: usize) -> Result<&Store> {
        let region = &self.all[ix];
        region.store.as_ref().ok_or_else(|| self.unreachable(ix))
    }

    fn unreachable(&self, ix: usize) -> Error {
        self.failure(ix).unwrap_or_else(|| Error::new(Kind::Retry, "not connected").at(self.label(ix)))
    }

    fn label(&self, ix: usize) -> String {
        format!("region {}", self.all[ix].name)
    }

    /// One object of one region, whole and unchecked.
    ///
    /// # Errors
    /// Missing, too long, or the store failed.
    pub fn get(&self, ix: usize, key: &Key, len_max: u64) -> Result<Bytes> {
        let store = self.store(ix)?;
        let bytes = self.handle.block_on(store.get(key, len_max)).map_err(|e| e.lift().at(self.label(ix)))?;
        self.slowed(ix, bytes.len());
        Ok(bytes)
    }

    /// A range of one object of one region, unchecked.
    ///
    /// # Errors
    /// Missing, shorter, or the store failed.
    pub fn get_range(&self, ix: usize, key: &Key, offset: u64, len: u64) -> Result<Bytes> {
        let bytes = self.handle.block_on(self.fetch(ix, key, &(offset..offset.saturating_add(len))))?;
        self.slowed(ix, bytes.len());
        Ok(bytes)
    }

    /// As [`Regions::get`], into a buffer that keeps its memory for the next read.
    ///
    /// # Errors
    /// As for [`Regions::get`].
    pub fn get_into<'b>(&self, ix: usize, key: &Key, len_max: u64, buffer: &'b mut Vec<u8>) -> Result<&'b mut [u8]> {
        let store = self.store(ix)?;
        let read = store.get_into(key, len_max, buffer);
        let bytes = self.handle.block_on(read).map_err(|e| e.lift().at(self.label(ix)))?;
        self.slowed(ix, bytes.len());
        Ok(bytes)
    }

    /// As [`Regions::get_range`], into a buffer that keeps its memory for the next read.
    ///
    /// # Errors
    /// As for [`Regions::get_range`].
    pub fn get_range_into<'b>(
        &self,
        ix: usize,
        key: &Key,
        range: std::ops::Range<u64>,
        buffer: &'b mut Vec<u8>,
    ) -> Result<&'b mut [u8]> {
        let store = self.store(ix)?;
        let len = range.end.saturating_sub(range.start);
        let read = store.get_range_into(key, range.start, len, buffer);
        let bytes = self.handle.block_on(read).map_err(|e| e.lift().at(self.label(ix)))?;
        self.slowed(ix, bytes.len());
        Ok(bytes)
    }

    /// The first copy that passes `check`, of the regions in `among`, in their order. Every copy that does not pass is
    /// recorded.
    ///
    /// # Errors
    /// No region has a copy that passes: the last reason, or that of one that did not answer, and may have it.
    pub fn read_among<T>(
        &self,
        among: impl IntoIterator<Item = usize>,
        key: &Key,
        fetch: impl Fn(usize) -> Result<Bytes>,
        mut check: impl FnMut(Bytes) -> std::result::Result<T, FormatError>,
    ) -> Result<T> {
        let mut last = None;
        // Those that did not answer are asked in the end, where nobody else has it.
        let (mut away, mut turn) = (VecDeque::new(), among.into_iter().fuse());
        loop {
            let next = turn.by_ref().find(|ix| {
                let asked = self.worth_asking(*ix);
                if !asked {
                    away.push_back(*ix);
                }
                asked
            });
            let Some(ix) = next.or_else(|| away.pop_front()) else { break };
            let failed = match fetch(ix) {
                Err(e) => e,
                Ok(bytes) => match check(bytes) {
                    Ok(value) => return Ok(value),
                    Err(why) => {
                        self.record(ix, &key.path(), &why);
                        let failed = lift(why).at(key).at(self.label(ix));
                        last = last.filter(|e: &Error| e.kind() == Kind::Retry).or(Some(failed));
                        continue;
                    }
                },
            };
            self.record_unread(ix, key, &failed);
            last = last.filter(|e: &Error| e.kind() == Kind::Retry).or(Some(failed));
        }
        Err(last.unwrap_or_else(|| Error::new(Kind::Retry, "no region can be reached").at(key)))
    }

    /// [`Regions::read_among`] for a whole object.
    ///
    /// # Errors
    /// No region has a copy that passes: the last reason.
    pub fn read<T>(
        &self,
        among: RegionSet,
        key: &Key,
        len_max: u64,
        mut check: impl FnMut(&[u8]) -> std::result::Result<T, FormatError>,
    ) -> Result<T> {
        self.read_among(among, key, |ix| self.get(ix, key, len_max), |bytes| check(&bytes))
    }

    /// Lists one region.
    ///
    /// # Errors
    /// The listing is incomplete.
    pub fn list(&self, ix: usize, prefix: Prefix) -> Result<Vec<Listed>> {
        self.handle.block_on(self.list_one(ix, prefix))
    }

    async fn list_one(&self, ix: usize, prefix: Prefix) -> Result<Vec<Listed>> {
        let store = self.store(ix)?;
        let (known, junk) = store.list(prefix).await.map_err(|e| e.lift().at(self.label(ix)))?;
        for name in junk {
            self.record(ix, &name, "not an object of this format; ignored");
        }
        Ok(known)
    }

    /// What several regions list, with those that list it. A region that cannot be listed is marked as failed.
    pub fn listed(&self, among: RegionSet, prefix: Prefix) -> BTreeMap<Key, RegionSet> {
        by_key(&self.list_all(among, prefix))
    }

    /// Lists several regions at once. One that cannot be listed is marked as failed.
    pub fn list_all(&self, among: RegionSet, prefix: Prefix) -> Lists {
        let [listed] = self.list_several(among, [prefix]);
        listed
    }

    /// From now on writes to each region keep to a pace of its own, on average: an object is written at once.
    pub fn slow_down(&self, pace: impl Fn() -> Option<Pace>) {
        self.all.iter().for_each(|region| *lock(&region.pace) = pace().map(Arc::new));
    }

    /// Waits until so many bytes may be written.
    async fn paced(&self, ix: usize, bytes: usize) {
        let Some(pace) = lock(&self.all[ix].pace).clone() else { return };
        let booked = pace.book(bytes as u64);
        while let Some(left) = booked.left() {
            tokio::time::sleep(left).await;
        }
    }

    async fn put_one(&self, ix: usize, key: &Key, bytes: &Bytes) -> Result<Put> {
        let store = self.store(ix)?;
        let put = async {
            self.paced(ix, bytes.len()).await;
            let put = match self.is_weak(ix) {
                true => store.put_weakly(key, bytes).await,
                false => store.put_new(key, bytes.clone()).await,
            };
            put.map_err(|e| e.lift().at(self.label(ix)))
        };
        self.unless_dropped(ix, put).await
    }

    /// Creates an object in one region. In a weak one it is looked whether something stands there before.
    ///
    /// # Errors
    /// The store failed.
    pub fn put(&self, ix: usize, key: &Key, bytes: &Bytes) -> Result<Put> {
        self.handle.block_on(self.put_one(ix, key, bytes))
    }

    /// Puts an object where a damaged copy of it stands: at once, or not at all. Who calls this has kept the damaged copy
    /// and proved these bytes to be the object of this key.
    ///
    /// # Errors
    /// The store failed, or refused.
    pub fn put_back(&self, ix: usize, key: &Key, bytes: &Bytes) -> Result<Replaced> {
        let store = self.store(ix)?;
        self.handle.block_on(async {
            self.paced(ix, bytes.len()).await;
            store.put_back(key, bytes.clone()).await.map_err(|e| e.lift().at(self.label(ix)))
        })
    }

    /// Creates an object in several regions at once and returns where it stands now with these bytes.
    /// Regions in which it could not be created are marked as failed.
    pub fn put_all(&self, among: RegionSet, key: &Key, bytes: &Bytes) -> RegionSet {
        self.handle.block_on(self.put_all_async(among, key, bytes))
    }

    async fn put_all_async(&self, among: RegionSet, key: &Key, bytes: &Bytes) -> RegionSet {
        let puts = self.together(among, |ix| self.put_one(ix, key, bytes)).await;
        RegionSet::of(puts.into_iter().filter_map(|(ix, put)| self.stands(ix, key, put).then_some(ix)))
    }

    /// Whether an object stands in a region now; one in which it could not be created is marked as failed.
    fn stands(&self, ix: usize, key: &Key, put: Result<Put>) -> bool {
        let e = match put {
            Ok(Put::Created | Put::Same) => return true,
            Ok(Put::Other) => {
                let what = "another object stands at this key";
                self.record(ix, &key.path(), what);
                Error::new(Kind::Damage, what).at(key).at(self.label(ix))
            }
            Err(e) => e,
        };
        self.fail(ix, e);
        false
    }
}

fn connect_one(address: &Address, create: bool, settings: &StoreSettings) -> Region {
    let label = format!("region {}", address.name);
    let opened = Store::connect(&address.place, create, settings).map_err(|e| {
        let error = e.lift().at(&label);
        match error.kind() {
            Kind::NotFound => error.advise("is the disk mounted? only `init` creates a folder"),
            _ => error,
        }
    });
    let (store, failed) = match opened {
        Ok(store) => (Some(store), None),
        Err(e) => (None, Some(e)),
    };
    Region {
        name: address.name.clone(),
        id: None,
        bucket: address.place.folder().is_none(),
        place: address.place.clone(),
        weak: AtomicBool::new(address.place.is_weak()),
        store,
        failed: Mutex::new(failed),
        read_only: Mutex::default(),
        pace: Mutex::default(),
        dropped: watch::Sender::new(false),
        answers: Answers::default(),
    }
}

/// Most bytes of a region's mark.
const MARK_BYTES_MAX: u64 = 4096;

/// Reads a region's mark.
///
/// # Errors
/// [`Kind::NoRepository`] where there is none.
pub fn read_mark(regions: &Regions, ix: usize) -> Result<RegionMark> {
    regions.handle.block_on(mark_of(regions, ix))
}

/// The marks of all healthy regions, read at once: one that does not answer holds up no other.
pub fn read_marks(regions: &Regions) -> Vec<(usize, Result<RegionMark>)> {
    let marks = regions.healthy().iter().map(|ix| async move { (ix, mark_of(regions, ix).await) });
    regions.handle.block_on(join_all(marks))
}

async fn mark_of(regions: &Regions, ix: usize) -> Result<RegionMark> {
    let label = regions.label(ix);
    let advice = match regions.all[ix].bucket {
        true => "is the URL right? `holdfast init` creates a repository",
        false => "is the disk mounted, the path right? `holdfast init` creates a repository",
    };
    let begin = tokio::time::Instant::now();
    let read = regions.store(ix)?.get(&Key::Region, MARK_BYTES_MAX).await.map_err(|e| e.lift().at(&label));
    regions.all[ix].answers.note(begin.elapsed());
    let bytes = read.map_err(|e| match e.kind() {
        Kind::NotFound => Error::new(Kind::NoRepository, "there is no repository here").at(&label).advise(advice),
        _ => e,
    })?;
    RegionMark::from_object(&bytes).map_err(|why| lift(why).at(Key::Region).at(label))
}

/// Suffixes that are tried where a numbered key is squatted.
pub const SUFFIXES: u32 = 16;

/// Creates an object of a numbered series, at the next suffix where its key is taken by something else.
/// [`Put::Other`]: at every suffix stands something else, or the key has none.
///
/// # Errors
/// The store failed.
pub fn put_numbered(regions: &Regions, ix: usize, key: Key, bytes: &Bytes) -> Result<Put> {
    for suffix in 0..SUFFIXES {
        let done = regions.put(ix, &key.at_suffix(suffix), bytes)?;
        if done != Put::Other {
            return Ok(done);
        }
    }
    Ok(Put::Other)
}

/// A format error with the reaction that it asks for.
pub fn lift(why: FormatError) -> Error {
    let kind = match why {
        FormatError::Foreign => Kind::Foreign,
        FormatError::Newer(_) => Kind::Newer,
        FormatError::WrongKey => Kind::WrongKey,
        FormatError::Damaged(_)
        | FormatError::WrittenWrong(_)
        | FormatError::Malformed(..)
        | FormatError::Limit(_)
        | FormatError::Unsigned(_) => Kind::Damage,
    };
    let error = Error::new(kind, why.to_string());
    if kind == Kind::Newer { error.advise("install a newer holdfast; nothing was changed") } else { error }
}
