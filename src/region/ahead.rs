//! Small objects read ahead, side by side: where many are read one after the other, each would cost the way to its bucket
//! and back. A folder answers at once, and is not read ahead.

use super::{RegionSet, Regions};
use crate::format::FormatError;
use crate::format::envelope::OBJECT_BYTES_MAX;
use crate::store::Key;
use bytes::Bytes;
use std::collections::HashMap;

/// So many objects are read at a time,
const OBJECTS_MAX: usize = 64;
/// and so many bytes, but for one object.
const BYTES_MAX: u64 = 32 << 20;

/// What will be asked for, in this order.
#[derive(Debug, Default)]
pub struct Ahead {
    wanted: Vec<(Key, usize, u64)>,
    places: HashMap<Key, usize>,
    /// What stands before was read, or passed over; what of it is not here failed, and is not tried once more.
    read: usize,
    here: HashMap<Key, (usize, Bytes)>,
}

impl Ahead {
    /// Keys with the regions that have them, and their sizes. Each is read from the cheapest.
    pub fn of(regions: &Regions, wanted: impl IntoIterator<Item = (Key, RegionSet, u64)>) -> Ahead {
        let mut order: Vec<usize> = regions.healthy().iter().collect();
        order.sort_by_cached_key(|ix| regions.cost(*ix));
        let from = |(key, at, size): (Key, RegionSet, u64)| {
            let ix = order.iter().copied().find(|ix| at.has(*ix))?;
            regions.region(ix).bucket.then_some((key, ix, size))
        };
        let wanted: Vec<(Key, usize, u64)> = wanted.into_iter().filter_map(from).collect();
        let places = wanted.iter().enumerate().map(|(place, (key, ..))| (*key, place)).collect();
        Ahead { wanted, places, read: 0, here: HashMap::new() }
    }

    /// What `check` makes of an object that was read ahead; what is wrong with it is recorded. `None`: it is to be read as
    /// usual.
    pub fn open<T>(
        &mut self,
        regions: &Regions,
        key: &Key,
        check: impl FnOnce(&[u8]) -> Result<T, FormatError>,
    ) -> Option<T> {
        let (ix, bytes) = self.take(regions, key)?;
        check(&bytes).inspect_err(|why| regions.record(ix, &key.path(), why)).ok()
    }

    /// An object that was read ahead, unchecked, and from which region. `None`: it is to be read as usual.
    pub fn take(&mut self, regions: &Regions, key: &Key) -> Option<(usize, Bytes)> {
        let place = self.places.remove(key)?;
        if place >= self.read {
            self.read(regions, place);
        }
        self.here.remove(key)
    }

    /// Reads some from this place on. What was passed over is let go.
    fn read(&mut self, regions: &Regions, place: usize) {
        let mut sum = 0u64;
        let fits = |(_, _, size): &&(Key, usize, u64)| {
            let first = sum == 0;
            sum = sum.saturating_add(*size).max(1);
            first || sum <= BYTES_MAX
        };
        let some = self.wanted.iter().skip(place).take(OBJECTS_MAX).take_while(fits);
        // No more of each than was listed, or a region could send much more than is held at a time.
        let asked: Vec<(usize, Key, u64)> =
            some.map(|(key, ix, size)| (*ix, *key, (*size).min(OBJECT_BYTES_MAX as u64))).collect();
        self.read = place.saturating_add(asked.len());
        let read = regions.get_sized(&asked);
        // What could not be read is read again by who asks for it, who then knows what to make of it.
        let came = asked.into_iter().zip(read).filter_map(|((ix, key, _), read)| Some((key, (ix, read.ok()?))));
        self.here = came.collect();
    }
}
