//! Epochs that this machine has read before, in a sealed file beside the local index: they are in every region, never
//! change, and would be read again at every run. A line counts while its region lists the object with the same size and
//! time; what it holds is verified as if it had come from there just now. The file may be deleted at any time.

use super::index::cache::Cache;
use crate::base::RegionId;
use crate::format::cbor;
use crate::store::Listed;
use bytes::Bytes;
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use std::collections::HashMap;

/// Name of the file.
const FILE: &str = "epochs";
/// Objects up to this are kept,
const OBJECT_BYTES_MAX: u64 = 1 << 20;
/// and so many bytes in all.
const KEPT_BYTES_MAX: u64 = 16 << 20;

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
pub(super) struct Known(HashMap<(RegionId, String), Line>);

impl Known {
    pub(super) fn read(cache: &Cache) -> Known {
        let lines: Option<Vec<Line>> = cache.read_file(FILE).and_then(|bytes| minicbor::decode(&bytes).ok());
        let lines = lines.unwrap_or_default().into_iter();
        Known(lines.map(|line| ((line.region, line.path.clone()), line)).collect())
    }

    /// The object that a region lists so.
    pub(super) fn object(&self, region: RegionId, listed: &Listed) -> Option<Bytes> {
        let line = self.0.get(&(region, listed.key.path()))?;
        let same = line.size == listed.size && line.modified == listed.modified;
        same.then(|| Bytes::copy_from_slice(&line.bytes))
    }
}

/// Writes down what was read, in place of all before. A file that cannot be written costs requests at the next run, and
/// nothing else.
pub(super) fn write<'l, 'b>(cache: &Cache, read: impl Iterator<Item = (RegionId, &'l Listed, &'b Bytes)>) {
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
