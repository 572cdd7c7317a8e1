//! Retention of real snapshots: which of each source stay, why, and which may be forgotten. A plan first; it is
//! printed or carried out, exactly as it is.

use super::etcd::{self, Row};
use super::forget::Target;
use super::verdicts;
use crate::base::{SessionId, TimeMs, units};
use crate::error::{Error, Kind, Result};
use crate::format::snapshot::{Manifest, Mode};
use crate::policy::{self, Candidate, Extent, Reason, Retention, Small, Zone};
use crate::repo::Repo;
use crate::repo::holds::Holds;
use crate::repo::view::{Snapshot, View};
use std::collections::{BTreeMap, BTreeSet};

/// A claimed end may be this much before the time that the stores give: a manifest's last way into a store.
const CLAIM_BEFORE_MS_MAX: i64 = 24 * 3_600_000;
/// And this much after it.
const CLAIM_AFTER_MS_MAX: i64 = 5 * 60_000;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wish {
    /// What is kept.
    pub rules: Retention,
    /// Whose days and weeks count.
    pub zone: Zone,
    /// A person says that sources which were suddenly small are what they are.
    pub accept_small: bool,
}

/// What will be done with one snapshot.
#[derive(Debug, Clone)]
pub struct Line {
    /// The snapshot.
    pub target: Target,
    /// Its host.
    pub host: String,
    /// Begin of its run, as it claims.
    pub start: TimeMs,
    /// The time that counts.
    pub time: TimeMs,
    /// What it holds.
    pub extent: Extent,
    /// What could not be read.
    pub errors_total: u64,
    /// Why it stays; empty: it goes.
    pub reasons: Vec<Reason>,
    /// Why its time is not believed.
    pub doubt: Option<String>,
    /// Whether the source was suddenly small.
    pub small: Small,
}

impl Line {
    /// Whether it stays.
    pub fn stays(&self) -> bool {
        !self.reasons.is_empty()
    }
}

/// What will be done with the snapshots of one source.
#[derive(Debug, Clone)]
pub struct SourcePlan {
    /// Its name.
    pub source: String,
    /// All its snapshots that were judged, newest first.
    pub lines: Vec<Line>,
    /// Why a person has to say that so much may go.
    pub brake: Option<&'static str>,
}

impl SourcePlan {
    /// What is said where hosts take turns: one that comes again after another was not replaced by it.
    pub fn hosts_in_turn(&self) -> Option<String> {
        let mut hosts: Vec<&str> = self.lines.iter().map(|line| line.host.as_str()).collect();
        hosts.dedup();
        let again = hosts.iter().enumerate().find(|(n, host)| hosts[..*n].contains(host))?.1;
        let other = hosts.iter().find(|host| *host != again)?;
        Some(format!(
            "hosts {again} and {other} make snapshots of it in turn, and retention takes them for one source: if they \
             are not, give each a name of its own"
        ))
    }

    /// What is said where the newest snapshot is suddenly small.
    pub fn shrunk(&self) -> Option<String> {
        let believed = || self.lines.iter().filter(|line| line.doubt.is_none());
        believed().next().filter(|line| line.small == Small::Waiting)?;
        let mut whole = believed().filter(|line| !line.extent.delta);
        let newest = whole.next()?;
        let before = whole.find(|line| line.small == Small::No)?;
        let held =
            |line: &Line| format!("{} files, {}", units::count(line.extent.files), units::bytes(line.extent.bytes));
        Some(format!(
            "its newest snapshot holds {}; one of {} held {}: older ones stay until somebody says that it is right so \
             (holdfast run --accept-shrunk, or a backup with --tag {})",
            held(newest),
            before.time.rfc3339(),
            held(before),
            policy::MAY_SHRINK
        ))
    }
}

/// What will be done.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// Sources by name.
    pub sources: Vec<SourcePlan>,
}

/// What the judgement rests on beside the manifests.
struct Facts {
    now: TimeMs,
    held: BTreeSet<SessionId>,
    first_seen: BTreeMap<SessionId, TimeMs>,
}

/// A snapshot with the time that counts for it.
struct Dated<'v> {
    snapshot: &'v Snapshot,
    time: TimeMs,
    doubt: Option<String>,
}

impl Plan {
    /// Judges the snapshots that pass `filter`, source by source.
    ///
    /// # Errors
    /// A hold cannot be read: it may hold anything.
    pub fn make(repo: &Repo, view: &View, wish: &Wish, filter: impl Fn(&Manifest) -> bool) -> Result<Plan> {
        let mut judged = view.snapshots.values().filter(|s| filter(&s.manifest));
        let none_goes = wish.rules.keeps_all() && judged.all(|s| etcd::row(&s.manifest).is_none());
        let holds = if none_goes { Holds::load(repo) } else { Holds::certain(repo)? };
        let facts = Facts { now: repo.env.now(), held: holds.held(), first_seen: repo.epochs().first_seen() };
        let mut sources: BTreeMap<&str, Vec<&Snapshot>> = BTreeMap::new();
        for snapshot in view.snapshots.values().filter(|s| filter(&s.manifest)) {
            sources.entry(&snapshot.manifest.source.name).or_default().push(snapshot);
        }
        let sources = sources.into_iter().map(|(source, all)| plan_source(source, &all, wish, &facts)).collect();
        Ok(Plan { sources })
    }

    /// Snapshots that go.
    pub fn targets(&self) -> Vec<Target> {
        let lines = self.sources.iter().flat_map(|source| &source.lines);
        lines.filter(|line| !line.stays()).map(|line| line.target.clone()).collect()
    }

    /// What is said of sources whose snapshots come from several hosts in turn, by name.
    pub fn hosts_in_turn(&self) -> impl Iterator<Item = (&str, String)> {
        self.sources.iter().filter_map(|plan| Some((plan.source.as_str(), plan.hosts_in_turn()?)))
    }

    /// What is said of sources whose newest snapshot is suddenly small, by name.
    pub fn shrunk(&self) -> impl Iterator<Item = (&str, String)> {
        self.sources.iter().filter_map(|plan| Some((plan.source.as_str(), plan.shrunk()?)))
    }

    /// Refuses a plan of which one source is strange, unless a person has looked at it.
    ///
    /// # Errors
    /// [`Kind::Refused`], naming the source.
    pub fn check_brakes(&self) -> Result<()> {
        let braked = self.sources.iter().find_map(|plan| plan.brake.map(|why| (plan, why)));
        let Some((plan, why)) = braked else { return Ok(()) };
        let goes = plan.lines.iter().filter(|line| !line.stays()).count();
        let what = format!("{goes} of {} snapshots of {} would go, but {why}", plan.lines.len(), plan.source);
        Err(Error::new(Kind::Refused, what).advise("look with --dry-run; --release-brake if they may go"))
    }
}

fn plan_source(source: &str, all: &[&Snapshot], wish: &Wish, facts: &Facts) -> SourcePlan {
    let mut dated: Vec<Dated<'_>> = all.iter().map(|snapshot| date(snapshot, facts)).collect();
    dated.sort_by_key(|one| (one.time, one.snapshot.manifest.sid));
    let believed: Vec<&Dated<'_>> = dated.iter().filter(|one| one.doubt.is_none()).collect();
    let history: Vec<Extent> = believed.iter().map(|one| extent(one)).collect();
    let small = if wish.accept_small { Vec::new() } else { policy::small(&history) };
    let small: BTreeMap<SessionId, Small> =
        believed.iter().zip(small).map(|(one, small)| (one.snapshot.manifest.sid, small)).collect();
    let small = |sid: &SessionId| small.get(sid).copied().unwrap_or_default();
    let stood_for = stood_for(&dated, &small, &facts.held);
    let candidates: Vec<Candidate> = dated
        .iter()
        .filter(|one| !stood_for.contains(&one.snapshot.manifest.sid))
        .map(|Dated { snapshot, time, doubt }| {
            let m = &snapshot.manifest;
            let small = small(&m.sid);
            let good = m.errors_total == 0 && small == Small::No && !verdicts::is_refused(m);
            let (held, suspect) = (facts.held.contains(&m.sid), doubt.is_some());
            Candidate { sid: m.sid, time: *time, good, held, suspect, small, places: snapshot.regions.bits() }
        })
        .collect();
    let verdicts = policy::judge(&candidates, &wish.rules, wish.zone).into_iter();
    let mut reasons: BTreeMap<SessionId, Vec<Reason>> = verdicts.map(|v| (v.candidate.sid, v.reasons)).collect();
    let lines = dated.iter().rev().map(|one| {
        let sid = one.snapshot.manifest.sid;
        line(one, reasons.remove(&sid).unwrap_or_default(), small(&sid))
    });
    let lines: Vec<Line> = lines.collect();
    let seen: Vec<_> = lines.iter().filter(|l| l.doubt.is_none()).map(|l| (l.extent, !l.stays(), l.small)).collect();
    SourcePlan { source: source.to_owned(), brake: policy::brake(&seen), lines }
}

/// Deltas that a daemon took between backups and that others stand for: later ones of the same row, which go at least as far,
/// are as good, and are in every region in which they are. Whatever the rules say, they are not needed: what can be restored
/// from them can be from those. They are no candidates, so that the rules count what is left.
fn stood_for(
    dated: &[Dated<'_>],
    small: &dyn Fn(&SessionId) -> Small,
    held: &BTreeSet<SessionId>,
) -> BTreeSet<SessionId> {
    let mut later: BTreeMap<Row<'_>, Vec<(i64, Small, u32)>> = BTreeMap::new();
    let mut found = BTreeSet::new();
    for one in dated.iter().rev().filter(|one| one.doubt.is_none()) {
        let m = &one.snapshot.manifest;
        let Some((row, revision)) = etcd::row(m).filter(|_| m.errors_total == 0) else { continue };
        let (small, places) = (small(&m.sid), one.snapshot.regions.bits());
        let there = later.entry(row).or_default();
        let others = there.iter().filter(|(to, as_small, _)| *to >= revision && *as_small == small);
        let covered = others.fold(0, |all, (.., places)| all | places);
        if places != 0 && places & !covered == 0 && !held.contains(&m.sid) {
            found.insert(m.sid);
        } else {
            there.push((revision, small, places));
        }
    }
    found
}

fn line(one: &Dated<'_>, reasons: Vec<Reason>, small: Small) -> Line {
    let m = &one.snapshot.manifest;
    Line {
        target: Target::of(one.snapshot),
        host: m.source.host.clone(),
        start: TimeMs(m.start),
        time: one.time,
        extent: extent(one),
        errors_total: m.errors_total,
        reasons,
        doubt: one.doubt.clone(),
        small,
    }
}

fn extent(one: &Dated<'_>) -> Extent {
    let m = &one.snapshot.manifest;
    let accepted = m.tags.iter().any(|tag| tag == policy::MAY_SHRINK);
    let delta = m.mode == Mode::Delta;
    Extent { time: one.time, files: m.counts.files, bytes: m.counts.bytes, accepted, delta }
}

/// The time that counts is that of the stores, the earliest of all regions: a copy made later is younger. The time
/// that the manifest claims must fit it.
fn date<'v>(snapshot: &'v Snapshot, facts: &Facts) -> Dated<'v> {
    let m = &snapshot.manifest;
    let time = facts.first_seen.get(&m.sid).map_or(snapshot.stored, |first| snapshot.stored.min(*first));
    let text = |ms: i64| TimeMs(ms).rfc3339();
    let latest = time.0.saturating_add(CLAIM_AFTER_MS_MAX);
    let doubt = if m.end < time.0.saturating_sub(CLAIM_BEFORE_MS_MAX) {
        Some(format!("claims {}, but the stores have it from {}", text(m.end), time.rfc3339()))
    } else if m.end.max(m.start) > latest {
        Some(format!("claims {}, but the stores had it at {}", text(m.end.max(m.start)), time.rfc3339()))
    } else if time.0 > facts.now.0.saturating_add(CLAIM_AFTER_MS_MAX) {
        Some(format!("is from {}, which is yet to come", time.rfc3339()))
    } else {
        None
    };
    Dated { snapshot, time, doubt }
}
