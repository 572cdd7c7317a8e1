//! Epochs that this machine has read before, in a sealed file beside the local index: they are in every region, never
//! change, and would be read again at every run. A line counts while its region lists the object with the same size and
//! time; what it holds is verified as if it had come from there just now. The file may be deleted at any time.

use super::SMALL_OBJECT_BYTES_MAX;
use super::index::cache::Cache;
use crate::base::RegionId;
use crate::error::Result;
use crate::format::cbor;
use crate::region::{Lists, RegionSet, Regions};
use crate::store::{Key, Listed};
use bytes::Bytes;
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use std::collections::{HashMap, HashSet};

/// Name of the file.
const FILE: &str = "epochs";
/// Objects up to this are kept,
const OBJECT_BYTES_MAX: u64 = 1 << 20;
/// and so many bytes in all.
const KEPT_BYTES_MAX: u64 = 16 << 20;
/// So many bytes are read side by side, and held in memory for a moment.
const FETCHED_BYTES_MAX: u64 = 64 << 20;

#[derive(Debug, Clone, Encode, Decode)]
#[cbor(array)]
struct Line {
    #[n(0)]
    region: RegionId,
    #[n(1)]
    path: String,
    #[n(2)]
    size: u64,
    /// The store's time, ms.
    #[n(3)]
    modified: i64,
    #[n(4)]
    bytes: ByteVec,
}

/// What was read before.
#[derive(Debug, Default)]
struct Known(HashMap<(RegionId, String), Line>);

impl Known {
    fn read(cache: &Cache) -> Known {
        let lines: Option<Vec<Line>> = cache.read_file(FILE).and_then(|bytes| minicbor::decode(&bytes).ok());
        let lines = lines.unwrap_or_default().into_iter();
        Known(lines.map(|line| ((line.region, line.path.clone()), line)).collect())
    }

    /// The object that a region lists so.
    fn object(&self, region: RegionId, listed: &Listed) -> Option<Bytes> {
        let line = self.0.get(&(region, listed.key.path()))?;
        let same = line.size == listed.size && line.modified == listed.modified;
        same.then(|| Bytes::copy_from_slice(&line.bytes))
    }
}

/// Writes down what was read, in place of all before. A file that cannot be written costs requests at the next run, and
/// nothing else.
fn write<'l, 'b>(cache: &Cache, read: impl Iterator<Item = (RegionId, &'l Listed, &'b Bytes)>) {
    let mut left = KEPT_BYTES_MAX;
    let fitting =
        read.filter(|(_, listed, bytes)| listed.size <= OBJECT_BYTES_MAX && bytes.len() as u64 == listed.size);
    let within = fitting.map_while(|(region, listed, bytes)| {
        left = left.checked_sub(listed.size)?;
        let (path, bytes) = (listed.key.path(), bytes.to_vec().into());
        Some(Line { region, path, size: listed.size, modified: listed.modified, bytes })
    });
    let lines: Vec<Line> = within.collect();
    let _ = cache.write_file(FILE, cbor::encode(&lines));
}

/// Objects of epochs as the regions show them, read side by side or known from before.
pub(super) struct Fetched<'f> {
    regions: &'f Regions,
    lists: &'f Lists,
    cache: Option<&'f Cache>,
    read: HashMap<(usize, Key), Result<Bytes>>,
    /// Those that were known, and need not be written down again.
    known: HashSet<(usize, Key)>,
    verified: HashMap<(usize, Key), Bytes>,
    /// Whether something was whole, and not by a hand that is known.
    pub(super) unknown_hand: bool,
    /// Regions that list an epoch, and do not have it under any name.
    pub(super) unshown: RegionSet,
}

impl<'f> Fetched<'f> {
    /// Reads what the regions list, of all of them at once; what is too much is read when it is asked for.
    pub(super) fn of(regions: &'f Regions, lists: &'f Lists, cache: Option<&'f Cache>) -> Fetched<'f> {
        let before = cache.map(Known::read).unwrap_or_default();
        let healthy = regions.healthy();
        let there = lists.iter().filter(|(ix, _)| healthy.has(*ix));
        let lines = there.flat_map(|(ix, lines)| lines.iter().map(move |line| (*ix, line)));
        let mut left = FETCHED_BYTES_MAX;
        let within = lines.map_while(|(ix, line)| {
            left = left.checked_sub(line.size)?;
            Some((ix, line))
        });
        let (mut read, mut known, mut wanted) = (HashMap::new(), HashSet::new(), Vec::new());
        for (ix, line) in within {
            match kept_as(regions, ix).and_then(|id| before.object(id, line)) {
                Some(bytes) => {
                    known.insert((ix, line.key));
                    read.insert((ix, line.key), Ok(bytes));
                }
                // No longer than it is listed: what a region says may be read at once is counted by that.
                None => wanted.push((ix, line.key, line.size.min(SMALL_OBJECT_BYTES_MAX))),
            }
        }
        let came = regions.get_sized(&wanted);
        read.extend(wanted.into_iter().map(|(ix, key, _)| (ix, key)).zip(came));
        Fetched {
            regions,
            lists,
            cache,
            read,
            known,
            verified: HashMap::new(),
            unknown_hand: false,
            unshown: RegionSet::NONE,
        }
    }

    /// The regions.
    pub(super) fn regions(&self) -> &'f Regions {
        self.regions
    }

    /// What a region shows at a key.
    ///
    /// # Errors
    /// As [`Regions::get`].
    pub(super) fn take(&mut self, ix: usize, key: &Key) -> Result<Bytes> {
        let read = self.read.remove(&(ix, *key));
        read.unwrap_or_else(|| self.regions.get(ix, key, SMALL_OBJECT_BYTES_MAX))
    }

    /// It is what belongs there: of whatever branch, it never changes.
    pub(super) fn verified(&mut self, ix: usize, key: &Key, bytes: Bytes) {
        if self.cache.is_some() && kept_as(self.regions, ix).is_some() {
            self.verified.insert((ix, *key), bytes);
        }
    }

    /// Writes down what verified, if any of it was not known.
    pub(super) fn keep(self) {
        let Some(cache) = self.cache.filter(|_| self.verified.keys().any(|at| !self.known.contains(at))) else {
            return;
        };
        let lines = self.lists.iter().flat_map(|(ix, lines)| lines.iter().map(move |line| (*ix, line)));
        let kept = lines.filter_map(|(ix, line)| {
            let bytes = self.verified.get(&(ix, line.key))?;
            Some((kept_as(self.regions, ix)?, line, bytes))
        });
        write(cache, kept);
    }
}

/// The id under which what a region shows is kept: a folder answers as soon as any file here.
fn kept_as(regions: &Regions, ix: usize) -> Option<RegionId> {
    let region = regions.region(ix);
    region.id.filter(|_| region.bucket)
}
