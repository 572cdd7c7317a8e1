//! Keys in many snapshots of a cluster at once.

use super::{Keys, is_one};
use crate::base::Cancel;
use crate::error::{Kind, Result};
use crate::format::snapshot::Manifest;
use crate::ops::find::Query;
use crate::repo::reader::Reader;
use crate::source::etcd::keys::Line;
use std::collections::BTreeMap;

/// What came of it.
#[derive(Debug, Default)]
pub struct KeysFound {
    /// Each state of a key, and the numbers of the snapshots that have it.
    pub found: Vec<(Line, Vec<usize>)>,
    /// Snapshots whose keys could not be looked at to the end, and why.
    pub lost: Vec<(usize, String)>,
}

/// Looks through the keys of those snapshots that have some. Memory grows with what is found.
///
/// # Errors
/// Interrupted.
pub fn find(reader: &Reader, snapshots: &[&Manifest], query: &Query, cancel: &Cancel) -> Result<KeysFound> {
    let mut states: BTreeMap<(Vec<u8>, i64), (Line, Vec<usize>)> = BTreeMap::new();
    let mut lost = Vec::new();
    for (number, manifest) in snapshots.iter().enumerate().filter(|(_, manifest)| is_one(manifest)) {
        let looked = Keys::open(reader, manifest, cancel).and_then(|keys| {
            keys.each(b"", cancel, &mut |line| {
                if query.suits_key(&line.key, line.bytes) {
                    let state = states.entry((line.key.clone(), line.revision.main));
                    state.or_insert_with(|| (line.clone(), Vec::new())).1.push(number);
                }
                Ok(true)
            })
        });
        match looked {
            Err(e) if e.kind() == Kind::Cancelled => return Err(e),
            Err(e) => lost.push((number, e.to_string())),
            Ok(()) => {}
        }
    }
    Ok(KeysFound { found: states.into_values().collect(), lost })
}
