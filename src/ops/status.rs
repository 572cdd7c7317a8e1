//! How everything is, from the catalog and from what the regions answer now. Needs no key.

use super::ledger::region_ref;
use crate::catalog::{self, Catalog, Coverage, RegionRef, RunLine, SourceRuns, SourceSnapshots};
use crate::error::Exit;
use crate::region::Regions;
use std::collections::BTreeMap;

/// A pack counts as verified for so long, ms.
pub const COVERAGE_MS: i64 = 30 * 86_400_000;

/// A source.
#[derive(Debug, Clone)]
pub struct SourceStatus {
    /// Its name.
    pub name: String,
    /// Start of the last backup that left a snapshot in enough regions, ms.
    pub success: Option<i64>,
    /// Whether that is longer ago than the objective allows.
    pub missed: bool,
    /// The last backup, however it ended.
    pub last: Option<RunLine>,
    /// Snapshots.
    pub snapshots: u64,
    /// Snapshots in each region.
    pub copies: Vec<(String, u64)>,
    /// Regions that lack some.
    pub behind: Vec<String>,
}

/// A region.
#[derive(Debug, Clone)]
pub struct RegionStatus {
    /// Its name.
    pub name: String,
    /// Why it cannot be used now.
    pub failed: Option<String>,
    /// What was verified there.
    pub coverage: Option<Coverage>,
}

/// All of it.
#[derive(Debug, Clone)]
pub struct Status {
    /// Whether there is a catalog at all.
    pub known: bool,
    /// Whether an objective was asked for.
    pub objective: bool,
    /// By name.
    pub sources: Vec<SourceStatus>,
    /// As configured.
    pub regions: Vec<RegionStatus>,
}

impl Status {
    /// Healthy, behind, an objective missed, or damage.
    pub fn exit(&self) -> Exit {
        let mut exit = Exit::Done;
        if self.regions.iter().any(|r| r.failed.is_some()) || self.sources.iter().any(|s| !s.behind.is_empty()) {
            exit = exit.worse(Exit::Behind);
        }
        if self.regions.iter().any(|r| r.coverage.as_ref().is_some_and(|c| c.damaged > 0)) {
            exit = exit.worse(Exit::Damage);
        }
        // An objective for which nothing speaks is not met.
        if self.sources.iter().any(|s| s.missed) || (self.objective && self.sources.is_empty()) {
            exit = exit.worse(Exit::Failed);
        }
        exit
    }
}

/// A configured region, with its id if it could be reached.
struct Place {
    name: String,
    id: Option<RegionRef>,
}

impl Place {
    fn is(&self, region: &RegionRef) -> bool {
        self.id.as_ref().map_or(self.name == region.name, |own| own.id == region.id)
    }
}

/// Puts it together. `rpo`: the objective, ms.
///
/// # Errors
/// The catalog could not be read.
pub fn of(catalog: Option<&Catalog>, regions: &Regions, now: i64, rpo: Option<i64>) -> catalog::Result<Status> {
    let place = |ix| Place { name: regions.region(ix).name.clone(), id: region_ref(regions, ix) };
    let places: Vec<Place> = (0..regions.len()).map(place).collect();
    let coverage = catalog.map_or(Ok(Vec::new()), |c| c.coverage(now.saturating_sub(COVERAGE_MS)))?;
    let region = |(ix, place): (usize, &Place)| RegionStatus {
        name: place.name.clone(),
        failed: regions.failure(ix).map(|e| e.to_string()),
        coverage: coverage.iter().find(|c| place.is(&c.region)).cloned(),
    };
    let mut sources: BTreeMap<String, (Option<SourceRuns>, Option<SourceSnapshots>)> = BTreeMap::new();
    for runs in catalog.map_or(Ok(Vec::new()), Catalog::source_runs)? {
        let name = runs.source.clone();
        sources.entry(name).or_default().0 = Some(runs);
    }
    for snapshots in catalog.map_or(Ok(Vec::new()), Catalog::source_snapshots)? {
        let name = snapshots.source.clone();
        sources.entry(name).or_default().1 = Some(snapshots);
    }
    let source = |(name, (runs, snapshots))| source(name, runs, snapshots, &places);
    let sources = sources.into_iter().map(source).map(|s| judged(s, now, rpo)).collect();
    Ok(Status {
        known: catalog.is_some(),
        objective: rpo.is_some(),
        sources,
        regions: places.iter().enumerate().map(region).collect(),
    })
}

fn source(
    name: String,
    runs: Option<SourceRuns>,
    snapshots: Option<SourceSnapshots>,
    places: &[Place],
) -> SourceStatus {
    let (last, success) = runs.map_or((None, None), |r| (r.last, r.success));
    // Runs of programs that kept no records left snapshots only.
    let success = success.max(snapshots.as_ref().filter(|s| last.is_none() && s.snapshots > 0).and_then(|s| s.newest));
    let total = snapshots.as_ref().map_or(0, |s| s.snapshots);
    let held = |place: &Place| {
        let copies = snapshots.iter().flat_map(|s| &s.copies);
        copies.filter(|c| place.is(&c.region)).map(|c| c.snapshots).max().unwrap_or(0)
    };
    let copies: Vec<(String, u64)> = places.iter().map(|place| (place.name.clone(), held(place))).collect();
    let behind = copies.iter().filter(|(_, n)| *n < total).map(|(name, _)| name.clone()).collect();
    SourceStatus { name, success, missed: false, last, snapshots: total, copies, behind }
}

fn judged(mut source: SourceStatus, now: i64, rpo: Option<i64>) -> SourceStatus {
    source.missed = rpo.is_some_and(|rpo| source.success.is_none_or(|at| now.saturating_sub(at) > rpo));
    source
}
