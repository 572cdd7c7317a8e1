//! `doctor`: every store is tried, and what its answers mean for the repository is said, one line each.
//!
//! Needs no repository: before `init` the stores alone are looked at. Needs no key: without one, what the regions say
//! without is compared. Writes nothing but probes, and deletes nothing else.

mod check;
mod repository;
mod store;

pub use check::{Check, Grade};
pub use repository::Findings;

use crate::base::{Cancel, Place, ProbeId, units};
use crate::error::{Exit, Result};
use crate::region::Address;
use crate::repo::open::Opening;
use crate::store::{Examination, Examined, Meter, Patience, Prefix, Store, StoreError, StoreErrorKind, StoreSettings};
use crate::unlock::Unlock;
use futures_util::future::join_all;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Bytes of the probe that measures throughput.
const LARGE_BYTES: usize = 8 * units::MIB as usize;
/// A store is examined for at most so long.
const LIMIT: Duration = Duration::from_secs(120);

/// What is wanted.
pub struct Wish<'a> {
    /// Opens the repository, if it is there.
    pub secret: Option<&'a Unlock>,
    /// Where this machine keeps what it knows, or why nowhere.
    pub state: Option<&'a Path>,
    /// Throughput is measured also where the probe stays.
    pub throughput: bool,
}

/// A region.
#[derive(Debug)]
pub struct Region {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub place: Place,
    /// What its store showed.
    pub examined: Examined,
    /// What that means.
    pub checks: Vec<Check>,
}

impl Region {
    /// The worst of its answers.
    pub fn grade(&self) -> Grade {
        worst(&self.checks)
    }

    /// Whether a backup can be stored there, as far as was seen.
    fn takes(&self) -> bool {
        let denied = |e: &StoreError| e.kind == StoreErrorKind::Denied;
        self.grade() != Grade::Bad
            && !self.examined.create.as_ref().is_some_and(|made| made.as_ref().is_err_and(denied))
    }

    /// By how much its clock is ahead of ours, ms, as far as that can be told.
    pub fn clock_ms(&self) -> Option<i64> {
        let (low, high) = self.examined.ahead_ms?;
        let (ahead, off) = offset(low, high);
        Some(if ahead { off } else { -off })
    }
}

/// All of it.
#[derive(Debug)]
pub struct Report {
    /// Regions, as configured.
    pub regions: Vec<Region>,
    /// What was found of the repository.
    pub repository: Findings,
    /// How many complete copies a run must make.
    pub copies_min: usize,
}

impl Report {
    /// What keeps every backup from being made comes first; then damage; then a key that opens nothing.
    pub fn exit(&self) -> Exit {
        let all = || self.regions.iter().flat_map(|region| &region.checks).chain(&self.repository.checks);
        let bad = self.regions.iter().filter(|region| region.grade() == Grade::Bad).count();
        let fit = self.regions.len().saturating_sub(bad);
        if fit < self.copies_min {
            return Exit::Failed;
        }
        if all().any(|check| check.damage) {
            return Exit::Damage;
        }
        match &self.repository.locked {
            Some(e) => e.exit(),
            None if bad > 0 => Exit::Behind,
            None if all().any(|check| check.grade == Grade::Bad) => Exit::Failed,
            None => Exit::Done,
        }
    }

    /// The worst of all answers.
    pub fn grade(&self) -> Grade {
        let regions = self.regions.iter().map(Region::grade).max().unwrap_or(Grade::Good);
        regions.max(worst(&self.repository.checks))
    }
}

fn worst(checks: &[Check]) -> Grade {
    checks.iter().map(|check| check.grade).max().unwrap_or(Grade::Good)
}

/// A clock between two bounds: whether it is ahead, and by how much at least. Within the bounds it may be right.
fn offset(low: i64, high: i64) -> (bool, i64) {
    match (low, high) {
        (1.., _) => (true, low),
        (_, ..=-1) => (false, high.saturating_neg()),
        _ => (true, 0),
    }
}

/// Looks at everything. `meter` is told whom requests are made of.
///
/// # Errors
/// No random bytes.
pub fn run(
    opening: &Opening<'_>,
    wish: &Wish<'_>,
    cancel: &Cancel,
    meter: &dyn Fn(Vec<(String, Meter)>),
) -> Result<Report> {
    let name = opening.env.random::<{ ProbeId::LEN }>()?;
    let turn = Arc::default();
    let how = Examination { name, large_bytes: LARGE_BYTES, throughput: wish.throughput, limit: LIMIT, turn };
    let examined = opening.addresses.iter().map(|address| examine(address, &how, opening, cancel, meter));
    let mut regions = opening.handle.block_on(join_all(examined));
    let repository = match cancel.raised() {
        true => Findings::default(),
        false => repository::look(opening, wish, &mut regions, meter),
    };
    Ok(Report { regions, repository, copies_min: opening.copies_min })
}

/// Shorter than that of a backup: who asks the doctor waits for the answer.
fn settings() -> StoreSettings {
    let patience = Patience { retry: Duration::from_secs(15), stall: Duration::from_secs(20), ..Patience::default() };
    StoreSettings { patience, ..StoreSettings::default() }
}

async fn examine(
    address: &Address,
    how: &Examination,
    opening: &Opening<'_>,
    cancel: &Cancel,
    meter: &dyn Fn(Vec<(String, Meter)>),
) -> Region {
    let examined = match Store::connect(&address.place, false, &settings()) {
        Ok(store) => {
            meter(vec![(address.name.clone(), store.meter())]);
            let mut examined = store.examine(how, opening.env, cancel).await;
            if let (Place::Bucket(bucket), Some(Ok(_))) = (&address.place, &examined.first)
                && bucket.tls.as_deref() == Some("1.2")
            {
                examined.knows_newer = Some(knows_newer(&address.place).await);
            }
            examined
        }
        Err(e) => {
            let ground = address.place.folder().and_then(crate::store::Ground::below);
            Examined { first: Some(Err(e)), ground, ..Examined::default() }
        }
    };
    let mut checks = store::judge(&examined);
    if address.place.is_weak() {
        checks.iter_mut().for_each(store::weaken);
    }
    Region { name: address.name.clone(), place: address.place.clone(), examined, checks }
}

/// Whether a store to which an old version of TLS is allowed knows a newer one.
async fn knows_newer(place: &Place) -> bool {
    let Place::Bucket(bucket) = place else { return false };
    let newer = Place::Bucket(crate::base::Bucket { tls: None, ..bucket.clone() });
    let Ok(store) = Store::connect(&newer, false, &settings()) else { return false };
    !matches!(store.list(Prefix::Probe).await, Err(e) if e.kind != StoreErrorKind::Denied)
}

/// Figures of a region, for `--json`.
pub struct Figures {
    /// The first answer, ms.
    pub first_ms: Option<f64>,
    /// A small read, ms.
    pub read_ms: Option<f64>,
    /// A small put, ms.
    pub put_ms: Option<f64>,
}

impl Region {
    /// Its times.
    pub fn figures(&self) -> Figures {
        let x = &self.examined;
        let first = x.first.as_ref().and_then(|first| first.as_ref().ok()).copied();
        Figures {
            first_ms: first.map(store::ms),
            read_ms: store::median(&x.reads).map(store::ms),
            put_ms: store::median(&x.puts).map(store::ms),
        }
    }
}
