//! Removing objects: for the execution of a plan alone.

use super::Regions;
use crate::base::Cancel;
use crate::error::{Error, Kind, Result};
use crate::store::Key;
use futures_util::StreamExt;

/// So many are removed at a time.
const AT_ONCE: usize = 32;
/// After so many it is looked whether the region still answers.
const BATCH: usize = 512;

/// What became of objects that were to be removed.
#[derive(Debug, Default)]
pub struct Removed {
    /// Those that are gone.
    pub gone: Vec<Key>,
    /// Those that the store refused to remove, and why.
    pub refused: Vec<(Key, Error)>,
    /// Why the rest was not tried, or failed.
    pub failed: Option<Error>,
}

impl Regions {
    /// Removes objects of one region; one that is not there is removed already. A region that does not answer is not
    /// asked for the rest.
    ///
    /// # Errors
    /// Interrupted.
    pub fn remove(&self, ix: usize, keys: &[Key], cancel: &Cancel) -> Result<Removed> {
        let mut removed = Removed::default();
        for batch in keys.chunks(BATCH) {
            cancel.check()?;
            for (key, done) in self.remove_batch(ix, batch) {
                match done {
                    Ok(()) => removed.gone.push(key),
                    Err(e) if e.kind() == Kind::Denied => removed.refused.push((key, e)),
                    Err(e) => drop(removed.failed.get_or_insert(e)),
                }
            }
            if removed.failed.is_some() {
                break;
            }
        }
        Ok(removed)
    }

    fn remove_batch(&self, ix: usize, keys: &[Key]) -> Vec<(Key, Result<()>)> {
        let store = match self.store(ix) {
            Ok(store) => store,
            Err(e) => return keys.iter().map(|key| (*key, Err(e.clone()))).collect(),
        };
        let one = |key: Key| async move { (key, store.remove(&key).await.map_err(|e| e.lift().at(self.label(ix)))) };
        let all = futures_util::stream::iter(keys.iter().copied().map(one)).buffer_unordered(AT_ONCE).collect();
        self.handle.block_on(all)
    }
}
