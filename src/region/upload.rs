//! Sealed packs on their way to all regions: the one crossing from plain threads to async.
//!
//! Bytes in flight are bounded; a full queue makes [`Uploader::submit`] wait. Every pack comes back as
//! one [`Uploaded`] with the regions that acknowledged it and its buffer, to be used again. A region that the run can do
//! without may fill the queue only for as long as [`Regions::hurry`] lets it; then it is left behind.

use super::{RegionSet, Regions, lock};
use crate::base::PackName;
use crate::store::Key;
use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, unbounded};
use futures_util::stream::{FuturesUnordered, StreamExt};
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;
use tokio::sync::Semaphore;

/// Most bytes in flight, over all regions: they share the buffers.
pub const IN_FLIGHT_BYTES_MAX: usize = 96 << 20;
/// The semaphore counts in units of this.
const UNIT_BYTES: usize = 64 << 10;
/// While somebody waits, it is looked this often what for.
const LOOK: Duration = Duration::from_millis(50);

/// A pack that every region has answered for.
#[derive(Debug)]
pub struct Uploaded {
    /// Pack.
    pub name: PackName,
    /// Its size, in bytes.
    pub size: u64,
    /// Regions that acknowledged it.
    pub acks: RegionSet,
    /// Its buffer, emptied.
    pub buffer: Vec<u8>,
}

/// A pack under way.
#[derive(Debug)]
struct Flying {
    bytes: usize,
    /// Regions that have not answered.
    left: RegionSet,
    acks: RegionSet,
}

/// What is under way.
struct Flight {
    regions: Arc<Regions>,
    packs: Mutex<HashMap<PackName, Flying>>,
    /// How many wait for some of it.
    waiting: AtomicUsize,
}

/// Sends packs to all healthy regions.
pub struct Uploader {
    flight: Arc<Flight>,
    budget: Arc<Semaphore>,
    /// Whether each pack is sent before [`Uploader::submit`] returns, on the thread of who calls it.
    inline: bool,
    sender: Sender<Uploaded>,
    /// Answers, in the order in which packs were finished.
    pub done: Receiver<Uploaded>,
}

/// Says that somebody waits, until it is dropped.
struct Waiting<'f>(&'f Flight);

impl<'f> Waiting<'f> {
    fn begin(flight: &'f Flight) -> Self {
        flight.waiting.fetch_add(1, Ordering::AcqRel);
        Waiting(flight)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Uploader {
    /// An uploader with nothing in flight. Inline, nothing ever is.
    pub fn new(regions: Arc<Regions>, inline: bool) -> Uploader {
        let (sender, done) = unbounded();
        let flight = Arc::new(Flight { regions, packs: Mutex::default(), waiting: AtomicUsize::new(0) });
        if !inline {
            flight.regions.handle().spawn(look(Arc::downgrade(&flight)));
        }
        let budget = Arc::new(Semaphore::new(IN_FLIGHT_BYTES_MAX / UNIT_BYTES));
        Uploader { flight, budget, inline, sender, done }
    }

    /// Sends a pack to the regions of `among` that are healthy. Waits while too much is in flight.
    pub fn submit(&self, among: RegionSet, name: PackName, bytes: Vec<u8>) {
        let units = bytes.len().div_ceil(UNIT_BYTES).min(IN_FLIGHT_BYTES_MAX / UNIT_BYTES) as u32;
        let regions = &self.flight.regions;
        let permit = Arc::clone(&self.budget).try_acquire_many_owned(units).or_else(|_| {
            let _waiting = Waiting::begin(&self.flight);
            regions.handle().block_on(Arc::clone(&self.budget).acquire_many_owned(units))
        });
        let left = among.and(regions.healthy());
        lock(&self.flight.packs).insert(name, Flying { bytes: bytes.len(), left, acks: RegionSet::NONE });
        let (flight, sender) = (Arc::clone(&self.flight), self.sender.clone());
        let sent = async move {
            let bytes = Bytes::from(bytes);
            let size = bytes.len() as u64;
            let acks = flight.send(left, name, &bytes).await;
            let mut buffer = Vec::from(bytes);
            buffer.clear();
            // The receiver is gone only when the run was given up.
            let _ = sender.send(Uploaded { name, size, acks, buffer });
            drop(permit);
        };
        match self.inline {
            true => regions.handle().block_on(sent),
            false => drop(regions.handle().spawn(sent)),
        }
    }

    /// Waits for the next answer; `None` if none can come.
    pub fn wait(&self) -> Option<Uploaded> {
        let _waiting = Waiting::begin(&self.flight);
        self.done.recv().ok()
    }
}

impl Flight {
    /// Regions that have the pack, once all have answered.
    async fn send(&self, among: RegionSet, name: PackName, bytes: &Bytes) -> RegionSet {
        let key = Key::Pack(name);
        let put = |ix| async move { (ix, self.regions.put_one(ix, &key, bytes).await) };
        let mut puts: FuturesUnordered<_> = among.iter().map(put).collect();
        while let Some((ix, put)) = puts.next().await {
            let stands = self.regions.stands(ix, &key, put);
            if let Some(pack) = lock(&self.packs).get_mut(&name) {
                pack.left = pack.left.without(ix);
                pack.acks = if stands { pack.acks.with(ix) } else { pack.acks };
            }
        }
        lock(&self.packs).remove(&name).map_or(RegionSet::NONE, |pack| pack.acks)
    }

    /// Regions for which most of what is under way waits, and could do without.
    fn laggards(&self, needed: usize) -> RegionSet {
        let (packs, healthy) = (lock(&self.packs), self.regions.healthy());
        let total: usize = packs.values().map(|pack| pack.bytes).sum();
        let waits = |ix: usize| {
            // A copy in a region that has failed meanwhile belongs to nothing complete.
            let enough = |pack: &&Flying| pack.acks.and(healthy).count() >= needed;
            let own = packs.values().filter(|pack| pack.left.has(ix)).filter(enough);
            let bytes: usize = own.map(|pack| pack.bytes).sum();
            bytes > 0 && bytes >= total / 4 * 3
        };
        RegionSet::of((0..self.regions.len()).filter(|ix| waits(*ix)))
    }
}

/// While somebody waits, charges it to the regions that it is for, and leaves them behind when it was too much.
async fn look(flight: Weak<Flight>) {
    let mut last = tokio::time::Instant::now();
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(flight) = flight.upgrade() else { return };
        let now = tokio::time::Instant::now();
        let passed = now.saturating_duration_since(std::mem::replace(&mut last, now));
        let Some(needed) = flight.regions.haste.needed() else { continue };
        if flight.waiting.load(Ordering::Acquire) == 0 {
            continue;
        }
        for ix in flight.laggards(needed).iter() {
            flight.regions.haste.hold(ix, passed);
            if flight.regions.haste.left(ix, now).is_zero() {
                flight.regions.drop_behind(ix);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Address;
    use super::*;

    /// Three folders, with what they need as long as they are used.
    fn three() -> ((tokio::runtime::Runtime, tempfile::TempDir), Regions) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let address = |name: &str| Address { name: name.into(), place: dir.path().join(name).into() };
        let regions = Regions::connect(&["a", "b", "c"].map(address), true, runtime.handle());
        ((runtime, dir), regions)
    }

    #[test]
    fn nobody_is_left_behind_who_is_needed_after_all() {
        let (_kept, regions) = three();
        let flight = Flight { regions: Arc::new(regions), packs: Mutex::default(), waiting: AtomicUsize::new(0) };
        let (a, b, c) = (0, 1, 2);
        let pack = Flying { bytes: 9, left: RegionSet::of([c]), acks: RegionSet::of([a, b]) };
        lock(&flight.packs).insert(PackName([7; 32]), pack);
        let _hurry = flight.regions.hurry(2);
        assert_eq!(flight.laggards(2), RegionSet::of([c]));
        assert_eq!(flight.laggards(3), RegionSet::NONE);
        // What is in a region that failed afterwards is no copy.
        flight.regions.fail(b, crate::error::Error::new(crate::error::Kind::Retry, "its disk is away"));
        assert_eq!(flight.laggards(2), RegionSet::NONE);
        flight.regions.drop_behind(c);
        assert_eq!(flight.regions.healthy(), RegionSet::of([a, c]));
    }

    #[test]
    fn only_so_many_are_left_behind() {
        let (_kept, regions) = three();
        let hurry = regions.hurry(2);
        regions.drop_behind(0);
        regions.drop_behind(1);
        assert_eq!(regions.healthy(), RegionSet::of([1, 2]));
        assert!(regions.failure(0).is_some_and(|e| e.to_string().contains("fell behind")));
        drop(hurry);
        regions.drop_behind(2);
        assert_eq!(regions.healthy(), RegionSet::of([1, 2]));
    }

    #[test]
    fn those_left_behind_are_taken_back_and_no_others() {
        let (_kept, regions) = three();
        let _hurry = regions.hurry(1);
        regions.fail(1, crate::error::Error::new(crate::error::Kind::Retry, "its disk is away"));
        regions.drop_behind(0);
        assert_eq!(regions.healthy(), RegionSet::of([2]));
        assert_eq!(regions.take_back(), RegionSet::of([0]));
        assert_eq!(regions.healthy(), RegionSet::of([0, 2]));
        // One of which worse is known is not.
        regions.drop_behind(2);
        regions.take_back();
        let again = regions.hurry(1);
        regions.drop_behind(0);
        regions.fail(0, crate::error::Error::new(crate::error::Kind::Damage, "another object stands there"));
        assert_eq!((regions.take_back(), regions.healthy()), (RegionSet::NONE, RegionSet::of([2])));
        drop(again);
    }

    #[test]
    fn who_failed_before_is_not_taken_for_slow() {
        let (_kept, regions) = three();
        let _hurry = regions.hurry(1);
        regions.fail(0, crate::error::Error::new(crate::error::Kind::Retry, "its disk is away"));
        regions.drop_behind(0);
        assert!(regions.failure(0).is_some_and(|e| e.to_string().contains("disk")));
        assert_eq!((regions.take_back(), regions.healthy()), (RegionSet::NONE, RegionSet::of([1, 2])));
    }

    #[test]
    fn who_was_taken_back_is_waited_for() {
        let (_kept, regions) = three();
        let _hurry = regions.hurry(1);
        regions.drop_behind(0);
        assert_eq!(regions.take_back(), RegionSet::of([0]));
        regions.drop_behind(0);
        assert_eq!((regions.healthy(), regions.take_back()), (RegionSet::of([0, 1, 2]), RegionSet::NONE));
    }

    #[test]
    fn the_only_region_that_may_decide_is_waited_for() {
        let (_kept, regions) = three();
        (1..3).for_each(|ix| regions.set_weak(ix, true));
        let _hurry = regions.hurry(1);
        regions.drop_behind(0);
        assert_eq!(regions.healthy(), RegionSet::of([0, 1, 2]));
        regions.drop_behind(1);
        assert_eq!(regions.healthy(), RegionSet::of([0, 2]));
    }
}
