//! Prune: space is given back, without a lock, beside whatever else is at work (docs/prune.md).
//!
//! Order: everything that snapshots need is marked, over all regions; what may go is planned; an epoch begins with that list
//! in it, and is copied everywhere; sessions of older epochs are waited for, then ended; markers are copied everywhere; what
//! is needed now is marked again; the epoch is decided; then each region's index is written anew, and what is doomed is
//! removed. An epoch that was begun and not decided is carried through by whoever prunes next. Cut off anywhere, nothing
//! that a snapshot needs is gone, and running again goes on. Accepted: segments written twice after a crash.
//!
//! Memory: 80 bytes a pack, a few bits and the local index's pages for each entry of the index.

mod bounds;
mod decide;
mod mark;
mod merge;
mod orphans;
mod pages;
mod plan;
mod repack;
mod roots;
mod segments;
mod sessions;
mod superseded;
mod survey;
mod sweep;
mod table;

pub use bounds::{Bounds, Stopped};
pub use plan::{Line, Reason};
pub use repack::{Limits, Repacked, SMALL_MIN};
pub use sweep::{RegionReport, Sum};

use crate::base::{Cancel, Epoch, PackName, SegmentName, SessionId, units};
use crate::error::{Error, Exit, Kind, Result};
use crate::policy;
use crate::region::{Finding, RegionSet};
use crate::repo::Repo;
use crate::repo::changed;
use crate::repo::epochs::Epochs;
use crate::repo::pruning;
use crate::store::Key;
use bounds::Clock;
use decide::Decided;
use roots::{Ask, Roots, Stage};
use sessions::Patience;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;
use survey::Survey;
use sweep::Order;

/// Epochs of others that are carried through before one's own.
const ROUNDS_MAX: usize = 6;

/// What is asked for.
#[derive(Clone, Copy)]
pub struct Wish<'w> {
    /// Only say what would be done.
    pub dry_run: bool,
    /// How long readers of an older index are given.
    pub grace: Duration,
    /// How long sessions that show life are waited for.
    pub wait: Duration,
    /// A session without a sign of life for so long is taken for dead.
    pub dead_after: Duration,
    /// Sources that may lose their last snapshot.
    pub last: &'w [String],
    /// Snapshots that are known to be lost: prefixes of their ids.
    pub lost: &'w [String],
    /// Which packs are written anew.
    pub repack: Limits,
    /// What it may take.
    pub bounds: Bounds,
    /// Threads; 0: none, everything inline.
    pub workers: usize,
    /// On which host.
    pub host: &'w str,
    /// Asks it to stop.
    pub cancel: &'w Cancel,
}

impl<'w> Wish<'w> {
    /// What a policy says, and what is usual where it says nothing.
    pub fn of(spec: policy::Prune, workers: usize, host: &'w str, cancel: &'w Cancel) -> Wish<'w> {
        let time = spec.stop_after_ms.map(|ms| Duration::from_millis(ms.unsigned_abs()));
        Wish {
            dry_run: false,
            grace: Duration::ZERO,
            wait: Duration::from_secs(10 * 60),
            dead_after: Duration::from_secs(30 * 60),
            last: &[],
            lost: &[],
            repack: Limits { above_percent: spec.repack_above, bytes_max: spec.repack_max, small_min: SMALL_MIN },
            bounds: Bounds { time, removals_max: spec.removals_max.map(u64::from) },
            workers,
            host,
            cancel,
        }
    }

    fn patience(&self) -> Patience {
        let ms = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        Patience { wait_ms: ms(self.wait), dead_after_ms: ms(self.dead_after) }
    }
}

/// What was done.
#[derive(Debug, Default)]
pub struct Report {
    /// Whether it only looked.
    pub dry_run: bool,
    /// The epoch that decided it.
    pub epoch: Option<Epoch>,
    /// Epochs of other prunes that were carried through.
    pub adopted: Vec<Epoch>,
    /// Snapshots that stay, once that was looked at.
    pub snapshots: Option<u64>,
    /// Snapshots that are forgotten, and whose manifests go.
    pub forgotten: Vec<SessionId>,
    /// Different chunks that they need.
    pub chunks: u64,
    /// Pages of trees that were read.
    pub pages: u64,
    /// What goes.
    pub plan: Vec<Line>,
    /// Packs that may go and wait for the next run: the list was full.
    pub left: u64,
    /// Why it did less than it could.
    pub stopped: Option<Stopped>,
    /// Packs of the plan that stay after all: something needs them now.
    pub spared: u64,
    /// Packs that stay, once it was looked at all: not for an epoch that somebody else began.
    pub kept: Option<Sum>,
    /// Bytes in them that no snapshot needs, about.
    pub unused: Option<u64>,
    /// What was written anew, or would be.
    pub repacked: Repacked,
    /// Index segments that became part of larger ones.
    pub merged: u64,
    /// Sessions that were ended.
    pub ended: u64,
    /// Sessions at work.
    pub at_work: u64,
    /// Packs that no index names and that stay: as a session at work may have made them; as they have what is not everywhere
    /// else; as nobody can read them.
    pub orphans: [u64; 3],
    /// Every region.
    pub regions: Vec<RegionReport>,
    /// What a person should know.
    pub alarms: Vec<String>,
    /// Whatever was found wrong on the way.
    pub findings: Vec<Finding>,
}

impl Report {
    /// How it ended.
    pub fn exit(&self) -> Exit {
        match (self.regions.iter().any(|region| region.failed.is_some()), self.alarms.is_empty()) {
            (true, _) => Exit::Behind,
            (false, false) => Exit::Refused,
            (false, true) => Exit::Done,
        }
    }

    /// Regions that were not finished, and why.
    pub fn behind(&self) -> Vec<(String, String)> {
        self.regions.iter().filter_map(|r| Some((r.region.clone(), r.failed.clone()?))).collect()
    }

    /// One line.
    pub fn summary(&self) -> String {
        let removed = self.removed();
        let (packs, bytes) = (units::count(removed.packs), units::bytes(removed.bytes));
        let stay = self.snapshots.map(|n| format!("; {} snapshots stay", units::count(n)));
        format!("{packs} packs removed, {bytes}{}", stay.unwrap_or_default())
    }

    /// What a person should know: alarms, and what was not finished.
    pub fn troubles(&self) -> Vec<String> {
        let alarms = self.alarms.iter().map(|alarm| format!("WARNING: {alarm}"));
        let behind = self.behind().into_iter().map(|(region, why)| format!("region {region} was not finished: {why}"));
        alarms.chain(behind).collect()
    }

    /// Packs that are gone from any region, each once: what was planned and stays is none of them.
    pub fn gone(&self) -> BTreeSet<PackName> {
        self.regions.iter().flat_map(|region| &region.gone).copied().collect()
    }

    /// Bytes that were given back, over all regions.
    pub fn removed(&self) -> Sum {
        self.regions.iter().fold(Sum::default(), |sum, region| Sum {
            packs: sum.packs + region.removed.packs,
            bytes: sum.bytes.saturating_add(region.removed.bytes),
        })
    }
}

/// Whether all of them still answer.
fn still_here(repo: &Repo, members: RegionSet) -> Result<()> {
    match members.iter().find(|ix| !repo.usable().has(*ix)) {
        None => Ok(()),
        Some(ix) => Err(repo
            .regions
            .failure(ix)
            .unwrap_or_else(|| Error::new(Kind::Retry, "a region failed"))
            .advise("space is given back only while every member answers: run again once it does")),
    }
}

/// The epochs, the same in every member.
fn epochs(repo: &Repo, dry_run: bool) -> Result<(Epochs, RegionSet)> {
    let epochs = repo.epochs_since(repo.epochs());
    let members = pruning::all_members(repo, &epochs)?;
    if epochs.has_unknown_hand() {
        changed::keys_stand(repo)?;
    }
    let lags = members.iter().any(|ix| !epochs.lacking(ix).is_empty());
    if !lags || dry_run {
        return Ok((epochs, members));
    }
    let epochs = pruning::spread(repo, &epochs, members)?;
    let members = pruning::all_members(repo, &epochs)?;
    Ok((epochs, members))
}

/// Gives back what no snapshot needs.
///
/// # Errors
/// A member does not answer, something that must be known cannot be read, or interrupted. Nothing that a snapshot needs is
/// gone, and running again goes on.
pub fn run(repo: &Arc<Repo>, wish: &Wish<'_>) -> Result<Report> {
    repo.may_write()?;
    repo.may_prune()?;
    let region = |ix: usize| RegionReport { region: repo.regions.region(ix).name.clone(), ..RegionReport::default() };
    let regions = (0..repo.regions.len()).map(region).collect();
    let mut prune = Prune {
        repo,
        wish,
        report: Report { dry_run: wish.dry_run, regions, ..Report::default() },
        repacked: false,
        clock: Clock::start(&repo.env, wish.bounds),
        seen: Some(state(repo.epochs())),
    };
    let mut why = Error::new(Kind::Retry, "other prunes begin epochs again and again");
    for _ in 0..ROUNDS_MAX {
        match prune.round() {
            Ok(true) => return Ok(prune.done()),
            Ok(false) => {}
            // What it looked at another prune has removed meanwhile, and rightly: it looks anew.
            Err(e) if e.kind() != Kind::Cancelled && prune.is_overtaken() => why = e,
            Err(e) => return Err(e),
        }
    }
    Err(why.advise("run again: nothing is lost"))
}

/// The newest epoch, and whether it is decided.
fn state(epochs: &Epochs) -> (Epoch, bool) {
    (epochs.newest(), epochs.unended().is_none())
}

/// Whether what counts now is the beginning of a prune that followed `before` with this list.
fn is_own(now: &Epochs, before: &Epochs, condemned: &[PackName]) -> bool {
    let next = before.newest().0.checked_add(1);
    let begun = now.unended().filter(|unended| unended.prunes && Some(unended.number.0) == next);
    let listed = now.undecided();
    begun.is_some() && listed.len() == condemned.len() && condemned.iter().all(|pack| listed.contains(pack))
}

/// A prune at work.
struct Prune<'p> {
    repo: &'p Arc<Repo>,
    wish: &'p Wish<'p>,
    report: Report,
    /// Whether packs were written anew: once in a run.
    repacked: bool,
    clock: Clock,
    /// What it saw of the epochs, or did to them, last; nothing once another one was quicker.
    seen: Option<(Epoch, bool)>,
}

impl Prune<'_> {
    fn done(self) -> Report {
        Report { findings: self.repo.findings(), ..self.report }
    }

    /// Carries an undecided epoch through, or begins one. Says whether that was all.
    fn round(&mut self) -> Result<bool> {
        if self.stops() {
            return Ok(true);
        }
        let (epochs, members) = epochs(self.repo, self.wish.dry_run)?;
        self.seen = Some(state(&epochs));
        if let Some(unended) = epochs.unended() {
            if !unended.prunes {
                let what = format!("the regions are being changed: epoch {} is not decided", unended.number);
                return Err(
                    Error::new(Kind::Refused, what).advise("finish that first: run the same `holdfast region` again")
                );
            }
            if self.is_late() {
                return Ok(true);
            }
            self.report.adopted.push(unended.number);
            self.carry(&epochs, members, None)?;
            return Ok(self.wish.dry_run);
        }
        let survey = Survey::make(self.repo, &epochs, members, self.wish)?;
        survey.tell(&mut self.report);
        if !self.repacked && self.repack(&survey)? {
            return Ok(false);
        }
        if self.wish.dry_run {
            self.plan_by_region();
            return Ok(true);
        }
        let condemned = survey.condemned();
        if condemned.is_empty() && !survey.roots.is_news() {
            self.finish(&epochs, members, &survey)?;
            return Ok(true);
        }
        if self.stops() || (survey.at_work > 0 && self.is_late()) {
            self.plan_by_region();
            return Ok(true);
        }
        if !pruning::begin(self.repo, &epochs, &condemned, survey.roots.lines())? {
            return Ok(false);
        }
        let begun = pruning::spread(self.repo, &self.repo.epochs_since(&epochs), members)?;
        // Another prune may have carried it through already, and begun the next; or the regions were changed, in place of a
        // home that was given up: what was marked is no answer to that list.
        if !is_own(&begun, &epochs, &condemned) {
            return Ok(false);
        }
        self.seen = Some(state(&begun));
        self.carry(&begun, members, Some(&survey))?;
        Ok(true)
    }

    /// Whether another prune has begun or decided an epoch since this one looked.
    fn is_overtaken(&self) -> bool {
        self.seen != Some(state(&self.repo.epochs_since(&self.repo.epochs_seen())))
    }

    /// Whether its time is over.
    fn stops(&mut self) -> bool {
        if self.clock.is_over() {
            self.report.stopped = Some(Stopped::Time);
        }
        self.clock.is_over()
    }

    /// Whether too little of its time is left to wait for those who are at work: each of them would be ended at once.
    fn is_late(&mut self) -> bool {
        let late = self.clock.is_late(self.wish.wait);
        if late {
            self.report.stopped = Some(Stopped::Time);
        }
        late
    }

    /// Writes anew what is needed of packs of which most is not. Says whether there was anything: then it is looked again.
    fn repack(&mut self, survey: &Survey) -> Result<bool> {
        self.repacked = true;
        let going: HashSet<PackName> = survey.condemned().into_iter().collect();
        let chosen = repack::choose(&survey.table, &going, self.wish.repack);
        for (generation, rows) in &chosen {
            if self.wish.dry_run {
                for row in rows.iter().filter_map(|n| survey.table.row(*n)) {
                    self.report.repacked.packs += 1;
                    self.report.repacked.bytes = self.report.repacked.bytes.saturating_add(row.size);
                }
                continue;
            }
            let (host, cancel) = (self.wish.host, self.wish.cancel);
            let (index, table, marks) = (&survey.index, &survey.table, &survey.marks);
            let means = repack::Means {
                repo: self.repo,
                index,
                table,
                marks,
                host,
                workers: self.wish.workers,
                clock: &self.clock,
                cancel,
            };
            let done = means.run(*generation, rows)?;
            let sum = &mut self.report.repacked;
            sum.packs += done.packs;
            sum.bytes = sum.bytes.saturating_add(done.bytes);
            sum.bytes_new = sum.bytes_new.saturating_add(done.bytes_new);
        }
        Ok(!self.wish.dry_run && self.report.repacked.packs > 0)
    }

    /// From the begun epoch to its end, and what follows.
    fn carry(&mut self, epochs: &Epochs, members: RegionSet, survey: Option<&Survey>) -> Result<()> {
        let (repo, wish) = (self.repo, self.wish);
        let unended = epochs
            .unended()
            .ok_or_else(|| Error::new(Kind::Retry, "the epoch is decided already").advise("run again"))?;
        let (mut stage, mut unsure) = (Stage::Planned, BTreeSet::new());
        if !wish.dry_run {
            let Patience { wait_ms, dead_after_ms } = wish.patience();
            let patience = Patience { wait_ms: wait_ms.min(self.clock.left_ms()), dead_after_ms };
            // An epoch that condemns nothing is in nobody's way.
            if unended.condemns {
                let lost = |sid: &SessionId| roots::is_named(wish.lost, sid);
                let resolved = sessions::resolve(repo, epochs, members, patience, &lost, wish.cancel)?;
                self.report.ended += resolved.ended;
                unsure = resolved.unsure;
            }
            roots::spread_markers(repo, members)?;
            stage = Stage::Decided;
        }
        let roots = Roots::look(repo, epochs, &Ask { members, stage, last: wish.last, lost: wish.lost })?;
        roots.know(&unsure)?;
        let decided = decide::decide(repo, epochs, members, &roots, survey, wish)?;
        self.report.spared += decided.spared.len() as u64;
        if survey.is_none() {
            self.report.snapshots = Some(roots.roots.len() as u64);
            self.report.plan = decided.lines(epochs);
            self.report.alarms.clone_from(&roots.alarms);
        }
        if wish.dry_run {
            self.plan_by_region();
            return Ok(());
        }
        still_here(repo, members)?;
        // It may have taken hours: whoever was quicker has decided, also where home does not show that any more.
        let still = repo.epochs_since(epochs);
        if still.disputed() != epochs.disputed() {
            self.seen = None;
            return Err(Error::new(Kind::Retry, "another end of an earlier epoch shows").advise("run again"));
        }
        let open = still.unended();
        let is_open = open.is_some_and(|open| (open.number, open.begin) == (unended.number, unended.begin));
        let ours = is_open && pruning::end(repo, epochs, &unended, &decided.doomed, roots.lines())?;
        let now = pruning::spread(repo, &repo.epochs_since(epochs), members)?;
        let doomed = now.doomed();
        // Whoever was quicker is at its work behind the end, and what was looked at may be another by now.
        self.seen = ours.then_some((unended.number, true));
        if !now.is_in_force(&Key::EpochBegin(unended.number, 0), &unended.begin) {
            let what = format!("another epoch {} counts than the one that was carried through", unended.number);
            return Err(Error::new(Kind::Retry, what).advise("run again"));
        }
        self.report.epoch = Some(unended.number);
        if !decided.spared.iter().any(|pack| doomed.contains(pack)) {
            return self.sweep(&now, members, &decided, survey, roots);
        }
        // Another prune was quicker. What kept the pack may have been forgotten between our look and its own.
        let roots = Roots::look(repo, epochs, &Ask { members, stage, last: wish.last, lost: wish.lost })?;
        let decided = decide::decide(repo, epochs, members, &roots, survey, wish)?;
        if let Some(pack) = decided.spared.iter().find(|pack| doomed.contains(pack)) {
            // Whoever looks again would not see what is wrong.
            self.seen = Some(state(&now));
            let what = format!("epoch {} dooms a pack that a snapshot needs", unended.number);
            return Err(Error::new(Kind::Damage, what).at(Key::Pack(*pack)).advise("nothing was removed"));
        }
        self.sweep(&now, members, &decided, survey, roots)
    }

    /// Nothing is to be decided: what is left of earlier prunes goes.
    fn finish(&mut self, epochs: &Epochs, members: RegionSet, survey: &Survey) -> Result<()> {
        let mut roots = Roots::default();
        if !survey.roots.gone.is_empty() {
            roots::spread_markers(self.repo, members)?;
            let ask = Ask { members, stage: Stage::Decided, last: self.wish.last, lost: self.wish.lost };
            roots = Roots::look(self.repo, epochs, &ask)?;
        }
        let decided = Decided::nothing(survey);
        self.sweep(epochs, members, &decided, Some(survey), roots)
    }

    fn sweep(
        &mut self,
        epochs: &Epochs,
        members: RegionSet,
        decided: &Decided<'_>,
        survey: Option<&Survey>,
        roots: Roots,
    ) -> Result<()> {
        let doomed: HashSet<PackName> = epochs.doomed();
        let packs: Vec<Line> = decided.listed(&doomed, &self.report.plan);
        self.report.plan.clone_from(&packs);
        self.plan_by_region();
        let recorded: HashSet<SessionId> = epochs.last_roots().iter().map(|root| root.sid).collect();
        let mut over: BTreeMap<SessionId, RegionSet> = BTreeMap::new();
        if let Some(survey) = survey {
            let known = |sid: &SessionId| recorded.contains(sid) || survey.roots.ended.contains_key(sid);
            let over_now = survey.sessions.over(members).filter(|(sid, _)| known(sid) && !survey.busy.contains(sid));
            over.extend(over_now);
            over.extend(roots.gone.keys().map(|sid| (*sid, survey.sessions.at(sid))));
        }
        // Who reads what stays may have an index that knows one copy only, and that one goes.
        let copies = packs.iter().any(|line| matches!(line.reason, Reason::Copy | Reason::Again));
        let order = Order {
            repo: self.repo,
            members,
            index: decided.index(),
            doomed: &doomed,
            packs,
            // Announcements go first. Of an epoch that somebody else began they were not looked at: the next round does.
            gone: if survey.is_some() { roots.gone } else { BTreeMap::new() },
            sessions: over,
            grace: self.wish.grace,
            copies: copies || survey.is_none(),
            clock: &self.clock,
            cancel: self.wish.cancel,
        };
        self.report.forgotten = order.gone.keys().copied().collect();
        let stopped = order.execute(&mut self.report.regions)?;
        self.report.stopped = stopped.or(self.report.stopped);
        // What it may remove is used up: the next run merges.
        if self.report.stopped.is_some() || self.stops() { Ok(()) } else { self.merge(members, &doomed, survey) }
    }

    /// Merges index segments, by what was seen of those that were not touched.
    fn merge(&mut self, members: RegionSet, doomed: &HashSet<PackName>, survey: Option<&Survey>) -> Result<()> {
        let Some(survey) = survey.filter(|_| self.report.behind().is_empty()) else { return Ok(()) };
        // Another one may rewrite what was seen here as whole.
        if self.is_overtaken() {
            return Ok(());
        }
        let mut unresolved = survey.sessions.unresolved();
        unresolved.extend(&survey.busy);
        let refused = |(ix, report): (usize, &RegionReport)| report.why.is_some().then_some(ix);
        let refusing = self.report.regions.iter().enumerate().filter_map(refused);
        let merging = merge::Merging {
            repo: self.repo,
            members,
            index: &survey.index,
            table: &survey.table,
            doomed,
            unresolved: &unresolved,
            refusing: Cell::new(RegionSet::of(refusing)),
            turn: SegmentName(self.repo.env.random()?),
            grace: self.wish.grace,
            cancel: self.wish.cancel,
        };
        self.report.merged += merging.run(&mut self.report.regions)?;
        Ok(())
    }

    fn plan_by_region(&mut self) {
        for (ix, region) in self.report.regions.iter_mut().enumerate() {
            region.planned.clear();
            for reason in Reason::ALL {
                let mut sum = Sum::default();
                let own = self.report.plan.iter().filter(|line| line.reason == reason && line.regions.has(ix));
                own.for_each(|line| sum.add(line.size));
                region.planned.push((reason, sum));
            }
        }
    }
}
