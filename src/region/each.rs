//! Writes to several regions at once, with the answer of each.

use super::{RegionSet, Regions, lock};
use crate::error::{Error, Result};
use crate::store::{Key, Put};
use bytes::Bytes;
use futures_util::future::join_all;

impl Regions {
    /// Says better why a region failed.
    pub fn explain(&self, ix: usize, error: Error) {
        if let Some(region) = self.all.get(ix) {
            *lock(&region.failed) = Some(error);
        }
    }

    /// Creates an object in several regions at once. What each answered is the caller's to judge: no region is marked.
    pub fn put_each(&self, among: RegionSet, key: &Key, bytes: &Bytes) -> Vec<(usize, Result<Put>)> {
        let there = among.iter().filter(|ix| *ix < self.len());
        let puts = there.map(|ix| async move { (ix, self.put_one(ix, key, bytes).await) });
        self.handle.block_on(join_all(puts))
    }
}
