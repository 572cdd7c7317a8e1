//! Tells the catalog which packs of a region were verified, in batches, and asks it which have waited longest.

use super::ledger::{Ledger, region_ref};
use crate::base::PackName;
use crate::catalog::{PackLook, RegionRef, Scrubbed, Waiting};
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

    /// Says of each pack in `all` since when it has waited, and which others were known. `None` without a catalog.
    pub fn waiting(&self, all: &[PackName]) -> Option<Waiting> {
        let now = self.ledger.env.now().0;
        self.ledger.with(|catalog| catalog.waiting(&self.region, all, now))
    }

    /// Forgets packs that the region should not have.
    pub fn drop_packs(&self, packs: &[PackName]) {
        self.ledger.with(|catalog| catalog.drop_packs(&self.region, packs));
    }

    /// Packs that earlier checks found damaged, and what was wrong.
    pub fn known_damage(&self) -> Vec<(PackName, String)> {
        self.ledger.with(|catalog| catalog.damaged_in(&self.region)).unwrap_or_default()
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
