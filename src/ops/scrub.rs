//! Tells the catalog which packs of a region were verified, in batches, and asks it which have waited longest.

use super::ledger::{Ledger, region_ref};
use crate::base::PackName;
use crate::catalog::{PackLook, RegionRef, Scrubbed};
use crate::region::{Regions, lock};
use std::sync::Mutex;

/// Packs that are told at once: what a killed run may have to read again.
const BATCH: usize = 32;

/// One region that is being verified.
pub struct Scrub<'l> {
    ledger: &'l Ledger,
    region: RegionRef,
    level: PackLook,
    waiting: Mutex<Vec<Scrubbed>>,
}

impl<'l> Scrub<'l> {
    /// `None` without a ledger, or for a region that has not said who it is.
    pub fn begin(ledger: Option<&'l Ledger>, regions: &Regions, ix: usize, level: PackLook) -> Option<Scrub<'l>> {
        Some(Scrub { ledger: ledger?, region: region_ref(regions, ix)?, level, waiting: Mutex::default() })
    }

    /// Makes `all` the packs that the region should have, and says of each since when it has waited (ms), the
    /// longest first. `None` without a catalog.
    pub fn waiting(&self, all: &[PackName]) -> Option<Vec<(PackName, i64)>> {
        let now = self.ledger.env.now().0;
        self.ledger.with(|catalog| catalog.oldest_first(&self.region, all, now))
    }

    /// A pack was read.
    pub fn looked(&self, pack: &PackName, damage: Option<String>) {
        self.note(pack, self.level, damage);
    }

    /// A pack is not there, or has another size.
    pub fn missing(&self, pack: &PackName) {
        self.note(pack, PackLook::Presence, Some("missing, or of another size".into()));
    }

    fn note(&self, pack: &PackName, level: PackLook, damage: Option<String>) {
        let mut waiting = lock(&self.waiting);
        waiting.push(Scrubbed { pack: *pack, at: self.ledger.env.now().0, level, damage });
        if waiting.len() >= BATCH {
            let batch = std::mem::take(&mut *waiting);
            drop(waiting);
            self.tell(&batch);
        }
    }

    fn tell(&self, batch: &[Scrubbed]) {
        self.ledger.with(|catalog| catalog.put_scrubbed(&self.region, batch));
    }
}

impl Drop for Scrub<'_> {
    fn drop(&mut self) {
        let rest = std::mem::take(&mut *lock(&self.waiting));
        if !rest.is_empty() {
            self.tell(&rest);
        }
    }
}
