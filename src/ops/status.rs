//! How everything is, from the catalog and from what the regions answer now. Needs no key.

use super::ledger::region_ref;
use super::not_begun::{self, NotBegun};
use super::record::{BROKEN, DAMAGED, LOST};
use super::verify::Level;
use crate::base::TimeMs;
use crate::catalog::{self, AHEAD_MS, Catalog, Coverage, RegionRef, RunLine, Size, SourceRuns, SourceSnapshots};
use crate::error::Exit;
use crate::policy::{self, BackupPolicy, Extent, Small, Task, Verify, Zone};
use crate::region::Regions;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// A pack counts as verified for so long, ms, where no policy says it.
pub const COVERAGE_MS: i64 = 30 * 86_400_000;

/// Exit codes of a check that came to its end.
const ENDED: [u8; 4] = [Exit::Done as u8, Exit::Partial as u8, Exit::Behind as u8, Exit::Damage as u8];

/// A source.
#[derive(Debug, Clone)]
pub struct SourceStatus {
    /// Its name.
    pub name: String,
    /// Start of the last backup that left a snapshot in enough regions which is still there, ms.
    pub success: Option<i64>,
    /// The policy that it belongs to.
    pub policy: Option<String>,
    /// How long ago the last success may be, ms.
    pub rpo: Option<i64>,
    /// Whether it is longer ago than that.
    pub missed: bool,
    /// Whether the last backup left no snapshot in enough regions, or the last one that was no delta.
    pub broken: bool,
    /// The last backup, however it ended.
    pub last: Option<RunLine>,
    /// Snapshots.
    pub snapshots: u64,
    /// Snapshots in each region.
    pub copies: Vec<(String, u64)>,
    /// Regions that lack some.
    pub behind: Vec<String>,
    /// Whether the last backup could not read something.
    pub partial: bool,
    /// Start of its newest snapshot, ms: what was changed since can be restored from nowhere.
    pub newest: Option<i64>,
    /// Whether its policy says that it is a cluster of etcd.
    pub cluster: bool,
    /// What its newest snapshot holds, where the source is suddenly small, and what an earlier one held.
    pub shrunk: Option<(Size, Size)>,
}

impl SourceStatus {
    /// Whether a policy wants snapshots of it and there is none.
    pub fn bare(&self) -> bool {
        self.policy.is_some() && self.snapshots == 0
    }
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
    /// Whether a pack has waited for longer than a policy allows.
    pub overdue: bool,
}

/// A policy.
#[derive(Debug, Clone)]
pub struct PolicyStatus {
    /// Its name.
    pub name: String,
    /// When each task that has a schedule is due next.
    pub next: Vec<(Task, TimeMs)>,
    /// Its zone.
    pub zone: Zone,
    /// Its last check, however it ended.
    pub checked: Option<RunLine>,
    /// A run of it that could not begin, if none has since.
    pub not_begun: Option<NotBegun>,
}

impl PolicyStatus {
    /// Whether its last check came to no end.
    pub fn unchecked(&self) -> bool {
        self.checked.as_ref().is_some_and(|run| !ENDED.contains(&run.exit))
    }
}

/// What is expected.
#[derive(Debug, Default)]
pub struct Expected<'p> {
    /// Policies of the repository.
    pub policies: Vec<&'p BackupPolicy>,
    /// An objective for all sources, ms, whatever their policies say.
    pub rpo: Option<i64>,
    /// Where runs that could not begin have left word.
    pub state: Option<&'p Path>,
}

impl<'p> Expected<'p> {
    fn of(&self, source: &str) -> Option<&'p BackupPolicy> {
        self.policies.iter().copied().find(|policy| policy.sources().iter().any(|s| s.name == source))
    }

    /// The shortest time within which a policy wants everything verified, ms.
    fn period_ms(&self) -> Option<i64> {
        let wishes = self.policies.iter().filter_map(|policy| policy.verify());
        wishes.filter(Verify::reads).map(|verify| verify.period_ms).min()
    }
}

/// All of it.
#[derive(Debug, Clone)]
pub struct Status {
    /// Whether there is a catalog that knows what the regions know.
    pub known: bool,
    /// Whether an objective was asked for.
    pub objective: bool,
    /// A pack counts as verified for so long, ms.
    pub period_ms: i64,
    /// By name.
    pub policies: Vec<PolicyStatus>,
    /// By name.
    pub sources: Vec<SourceStatus>,
    /// As configured.
    pub regions: Vec<RegionStatus>,
    /// A check that found damage beyond packs, if none has seen it mended since.
    pub damage: Option<RunLine>,
}

impl Status {
    /// Healthy, suddenly small, behind, not all of it, an objective missed, or damage.
    pub fn exit(&self) -> Exit {
        let mut exit = Exit::Done;
        if self.sources.iter().any(|s| s.shrunk.is_some()) {
            exit = exit.worse(Exit::Refused);
        }
        if self.sources.iter().any(|s| s.partial) {
            exit = exit.worse(Exit::Partial);
        }
        if self.regions.iter().any(|r| r.failed.is_some()) || self.sources.iter().any(|s| !s.behind.is_empty()) {
            exit = exit.worse(Exit::Behind);
        }
        if self.damage.is_some() || self.regions.iter().any(|r| r.coverage.as_ref().is_some_and(|c| c.damaged > 0)) {
            exit = exit.worse(Exit::Damage);
        }
        let overdue = self.regions.iter().any(|r| r.overdue);
        let failed = self.sources.iter().any(|s| s.missed || s.broken || s.bare());
        let idle = self.policies.iter().any(|p| p.not_begun.is_some() || p.unchecked());
        // An objective for which nothing speaks is not met, and of what is not known nobody can say that it is well.
        if overdue || failed || idle || !self.known || (self.objective && self.sources.is_empty()) {
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

/// Puts it together.
///
/// # Errors
/// The catalog could not be read.
pub fn of(
    catalog: Option<&Catalog>,
    regions: &Regions,
    now: TimeMs,
    expected: &Expected<'_>,
) -> catalog::Result<Status> {
    let place = |ix| Place { name: regions.region(ix).name.clone(), id: region_ref(regions, ix) };
    let places: Vec<Place> = (0..regions.len()).map(place).collect();
    let period_ms = expected.period_ms().unwrap_or(COVERAGE_MS);
    let (since, until) = (now.0.saturating_sub(period_ms), now.0.saturating_add(AHEAD_MS));
    let coverage = catalog.map_or(Ok(Vec::new()), |c| c.coverage(since, now.0))?;
    let region = |(ix, place): (usize, &Place)| {
        let coverage = coverage.iter().find(|c| place.is(&c.region)).cloned();
        let waited = coverage.as_ref().and_then(|c| c.oldest).is_some_and(|oldest| oldest < since);
        RegionStatus {
            name: place.name.clone(),
            failed: regions.failure(ix).map(|e| e.to_string()),
            coverage,
            overdue: waited && expected.period_ms().is_some(),
        }
    };
    let mut sources: BTreeMap<String, (Option<SourceRuns>, Option<SourceSnapshots>)> = BTreeMap::new();
    for source in expected.policies.iter().flat_map(|policy| policy.sources()) {
        sources.entry(source.name.clone()).or_default();
    }
    for runs in catalog.map_or(Ok(Vec::new()), |c| c.source_runs(until))? {
        let name = runs.source.clone();
        sources.entry(name).or_default().0 = Some(runs);
    }
    for snapshots in catalog.map_or(Ok(Vec::new()), |c| c.source_snapshots(until))? {
        let name = snapshots.source.clone();
        sources.entry(name).or_default().1 = Some(snapshots);
    }
    let source = |(name, (runs, snapshots))| -> catalog::Result<SourceStatus> {
        let mut source = source(name, runs, snapshots, &places);
        source.success = source.success.max(between(catalog, &source.name, expected, until)?);
        Ok(judged(source, now.0, expected))
    };
    let sources = sources.into_iter().map(source).collect::<catalog::Result<_>>()?;
    let policies: catalog::Result<Vec<PolicyStatus>> =
        expected.policies.iter().map(|policy| policy_status(catalog, policy, now, expected.state)).collect();
    Ok(Status {
        known: catalog.map_or(Ok(false), Catalog::is_filled)?,
        objective: expected.rpo.is_some(),
        period_ms,
        policies: policies?,
        sources,
        regions: places.iter().enumerate().map(region).collect(),
        damage: catalog.map_or(Ok(None), |c| damage(c, &places, until))?,
    })
}

/// How many checks are looked at, at most.
const CHECKS_MAX: usize = 1000;

/// Whether a check found damage beyond packs.
fn is_damaged(check: &RunLine) -> bool {
    let figures = check.details["figures"].as_array().map_or(&[][..], Vec::as_slice);
    let told = |name| figures.iter().find(|figure| figure["name"] == name).map(|figure| figure["value"] != 0);
    let told = [BROKEN, DAMAGED, LOST].map(told);
    // Older records do not tell what it was.
    check.exit == Exit::Damage as u8 && (told.contains(&Some(true)) || told.contains(&None))
}

/// The newest check that found damage beyond packs in a region in which no later one saw that it was mended. Every
/// check with a key looks at all small objects; one without sees less, and clears nothing but what others of its kind
/// have found.
fn damage(catalog: &Catalog, places: &[Place], until: i64) -> catalog::Result<Option<RunLine>> {
    let names: BTreeSet<&str> = places.iter().map(|place| place.name.as_str()).collect();
    let (mut left, mut left_keyless) = (names.clone(), names);
    let (mut found, mut looked) = (None, 0);
    catalog.checks(until, |check| {
        looked += 1;
        let keyless = check.policy.is_none() && check.details["how"] == Level::Ciphertext.name();
        if is_damaged(check) {
            found = Some(check.clone()).filter(|_| !(if keyless { &left_keyless } else { &left }).is_empty());
            return false;
        }
        for name in check.details["regions"].as_array().into_iter().flatten().filter_map(|name| name.as_str()) {
            left_keyless.remove(name);
            if !keyless {
                left.remove(name);
            }
        }
        looked < CHECKS_MAX && !left.is_empty()
    })?;
    Ok(found)
}

/// Start of the newest snapshot in enough regions that was taken between backups: most of them have no record.
fn between(catalog: Option<&Catalog>, name: &str, expected: &Expected<'_>, until: i64) -> catalog::Result<Option<i64>> {
    let Some((catalog, policy)) = catalog.zip(expected.of(name)) else { return Ok(None) };
    let has_them = policy.sources().iter().any(|source| source.name == name && source.between().is_some());
    if has_them { catalog.newest_delta(name, policy.copies_min(), until) } else { Ok(None) }
}

fn source(
    name: String,
    runs: Option<SourceRuns>,
    snapshots: Option<SourceSnapshots>,
    places: &[Place],
) -> SourceStatus {
    let (last, whole, success) = runs.map_or((None, None, None), |r| (r.last, r.last_but_deltas, r.success));
    // Runs of programs that kept no records left snapshots only.
    let newest = snapshots.as_ref().and_then(|s| s.sizes.last()).map(|size| size.start);
    let success = success.max(newest.filter(|_| last.is_none()));
    let total = snapshots.as_ref().map_or(0, |s| s.snapshots);
    let held = |place: &Place| {
        let copies = snapshots.iter().flat_map(|s| &s.copies);
        copies.filter(|c| place.is(&c.region)).map(|c| c.snapshots).max().unwrap_or(0)
    };
    let copies: Vec<(String, u64)> = places.iter().map(|place| (place.name.clone(), held(place))).collect();
    let behind = copies.iter().filter(|(_, n)| *n < total).map(|(name, _)| name.clone()).collect();
    // As `success` counts them.
    let broken = last.iter().map(|run| run.exit).chain(whole).any(|exit| ![0, 3, 4].contains(&exit));
    let partial = last.as_ref().is_some_and(|run| run.exit == Exit::Partial as u8);
    let shrunk = snapshots.as_ref().and_then(|s| shrunk(&s.sizes));
    SourceStatus {
        name,
        policy: None,
        rpo: None,
        success,
        missed: false,
        broken,
        last,
        snapshots: total,
        copies,
        behind,
        partial,
        newest,
        cluster: false,
        shrunk,
    }
}

/// What the newest snapshot holds, where the source is suddenly small, and what an earlier one held.
fn shrunk(sizes: &[Size]) -> Option<(Size, Size)> {
    let extent = |size: &Size| Extent {
        time: TimeMs(size.start),
        files: size.files,
        bytes: size.bytes,
        accepted: size.accepted,
        delta: size.delta,
    };
    let judged = policy::small(&sizes.iter().map(extent).collect::<Vec<_>>());
    judged.last().filter(|small| **small == Small::Waiting)?;
    let mut whole = sizes.iter().zip(judged).rev().filter(|(size, _)| !size.delta);
    let (newest, _) = whole.next()?;
    whole.find(|(_, small)| *small == Small::No).map(|(before, _)| (*newest, *before))
}

fn judged(mut source: SourceStatus, now: i64, expected: &Expected<'_>) -> SourceStatus {
    let policy = expected.of(&source.name);
    source.policy = policy.map(|policy| policy.name().to_string());
    let described = policy.and_then(|policy| policy.sources().iter().find(|s| s.name == source.name));
    source.cluster = described.is_some_and(|described| described.etcd.is_some());
    source.rpo = expected.rpo.or_else(|| policy.and_then(BackupPolicy::rpo_ms));
    // One that no policy names and that never had a snapshot was a mistake on the command line.
    source.broken &= source.policy.is_some() || source.success.is_some();
    source.missed = source.rpo.is_some_and(|rpo| source.success.is_none_or(|at| now.saturating_sub(at) > rpo));
    source
}

fn policy_status(
    catalog: Option<&Catalog>,
    policy: &BackupPolicy,
    now: TimeMs,
    state: Option<&Path>,
) -> catalog::Result<PolicyStatus> {
    let name = policy.name().to_string();
    let calendar = policy.calendar();
    let next = Task::ALL.into_iter().filter_map(|task| Some((task, calendar.next_due(task, now)?)));
    let checked = catalog.map_or(Ok(None), |c| c.last_of(&name, "verify", now.0.saturating_add(AHEAD_MS)))?;
    let not_begun = state.and_then(|state| not_begun::of(state, &name));
    Ok(PolicyStatus { next: next.collect(), zone: policy.zone(), checked, not_begun, name })
}
