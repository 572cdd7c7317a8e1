//! Sets a damaged object aside, with a record of what it was.

use super::{Target, Work};
use crate::base::{Digest, QuarantineId};
use crate::error::{Error, Kind, Result};
use crate::format::quarantine::Quarantined;
use crate::store::{Key, Put};
use bytes::Bytes;
use std::sync::atomic::Ordering;

/// So many places are tried where something else stands at one.
const TURNS_MAX: u32 = 8;

impl Work<'_> {
    /// Keeps what was read of a damaged object, and says so in a record beside it; of one that cannot be read there is only
    /// the record.
    pub(super) fn set_aside(&self, target: &Target, found: Option<(&Bytes, bool)>) -> Result<QuarantineId> {
        let now = self.with.env.now().0;
        let mut record = Quarantined::new(self.with.id, &target.key.path(), now, &target.what);
        if let Some((bytes, whole)) = found {
            record.hash = Some(Digest(*blake3::hash(bytes).as_bytes()));
            (record.bytes, record.whole) = (bytes.len() as u64, whole);
        }
        for turn in 0..TURNS_MAX {
            let id = record.id(turn);
            if let Some((bytes, _)) = found
                && !self.kept(target.ix, &Key::Quarantine(id), bytes)?
            {
                continue;
            }
            // One that stands there is of the same damage, found earlier.
            self.kept(target.ix, &Key::QuarantineRecord(id), &record.to_object().into())?;
            return Ok(id);
        }
        Err(Error::new(Kind::Damage, "the damaged object could not be set aside: its places are taken").at(target.key))
    }

    /// Whether these bytes stand there now.
    fn kept(&self, ix: usize, key: &Key, bytes: &Bytes) -> Result<bool> {
        let put = self.with.regions.put(ix, key, bytes).map_err(|e| {
            let what = format!("the damaged object could not be set aside first: {}", e.what());
            Error::new(e.kind(), what).at(key)
        })?;
        if put == Put::Created {
            self.written.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        }
        Ok(put != Put::Other)
    }
}
