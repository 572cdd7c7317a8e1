//! Sealed packs on their way to all regions: the one crossing from plain threads to async.
//!
//! Bytes in flight are bounded; a full queue makes [`Uploader::submit`] wait. Every pack comes back as
//! one [`Uploaded`] with the regions that acknowledged it and its buffer, to be used again.

use super::{RegionSet, Regions};
use crate::base::PackName;
use crate::store::Key;
use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, unbounded};
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Most bytes in flight, over all regions: they share the buffers.
pub const IN_FLIGHT_BYTES_MAX: usize = 96 << 20;
/// The semaphore counts in units of this.
const UNIT_BYTES: usize = 64 << 10;

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

/// Sends packs to all healthy regions.
pub struct Uploader {
    regions: Arc<Regions>,
    budget: Arc<Semaphore>,
    sender: Sender<Uploaded>,
    /// Answers, in the order in which packs were finished.
    pub done: Receiver<Uploaded>,
}

impl Uploader {
    /// An uploader with nothing in flight.
    pub fn new(regions: Arc<Regions>) -> Uploader {
        let (sender, done) = unbounded();
        Uploader { regions, budget: Arc::new(Semaphore::new(IN_FLIGHT_BYTES_MAX / UNIT_BYTES)), sender, done }
    }

    /// Sends a pack to the regions of `among` that are healthy. Waits while too much is in flight.
    pub fn submit(&self, among: RegionSet, name: PackName, bytes: Vec<u8>) {
        let units = bytes.len().div_ceil(UNIT_BYTES).min(IN_FLIGHT_BYTES_MAX / UNIT_BYTES) as u32;
        let budget = Arc::clone(&self.budget);
        let permit = self.regions.handle().block_on(budget.acquire_many_owned(units));
        let (regions, sender) = (Arc::clone(&self.regions), self.sender.clone());
        self.regions.handle().spawn(async move {
            let bytes = Bytes::from(bytes);
            let size = bytes.len() as u64;
            let among = among.and(regions.healthy());
            let acks = regions.put_all_async(among, &Key::Pack(name), &bytes).await;
            let mut buffer = Vec::from(bytes);
            buffer.clear();
            // The receiver is gone only when the run was given up.
            let _ = sender.send(Uploaded { name, size, acks, buffer });
            drop(permit);
        });
    }
}
