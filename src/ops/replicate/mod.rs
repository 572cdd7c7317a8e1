//! Replication: what a region lacks is copied from one that has it, what is needed before what needs it.
//!
//! Order: epochs, keys, configurations, markers and holds; packs; the segments that name them, each where all its packs
//! are; outcomes, each where every chunk of its tree is named by a listed segment, in a pack that is there. So a region
//! shows a snapshot only once it is complete there, whenever this is cut off, and the next time goes on: what is listed
//! with its size is not sent again. Nothing is overwritten, and nothing is carried on that does not verify. What a region says
//! that is no member is not carried either, however well it is signed: it may be out of date. Packs and segments are
//! taken from there too, where a member names them. Memory: the bytes on their way (bounded), and a line for every pack
//! that is looked for.

mod copier;
mod outcomes;
mod plan;

pub use copier::{Means, Moved, WORKERS_MAX};
pub use plan::Depth;

use crate::error::{Exit, Result};
use crate::region::{self, Finding, Lists, RegionSet};
use crate::repo::epochs::{Epochs, Lag};
use crate::repo::members::{self, UNNAMED};
use crate::repo::view::Listing;
use crate::repo::{OpeningLists, Repo, SMALL_OBJECT_BYTES_MAX};
use crate::store::{Key, Prefix, Put};
use bytes::Bytes;
use copier::{Copier, Job, Stands};
use plan::{Stored, small_jobs};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Passes that one replication makes at most: backups beside it go on making snapshots.
const PASSES_MAX: usize = 3;
/// So many objects that no region can show are named.
const NOWHERE_NAMED_MAX: usize = 1000;

/// What one region lacks, by listings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lack {
    /// Packs.
    pub packs: u64,
    /// Index segments.
    pub segments: u64,
    /// Snapshots.
    pub snapshots: u64,
    /// Everything else: keys, configurations, markers, holds, ends of sessions, records of runs.
    pub small: u64,
    /// Bytes of all of it.
    pub bytes: u64,
}

impl Lack {
    /// Objects of all kinds.
    pub fn objects(&self) -> u64 {
        self.packs + self.segments + self.snapshots + self.small
    }

    fn add(&mut self, job: &Job, snapshot: bool) {
        match (job.key, snapshot) {
            (Key::Pack(_), _) => self.packs += 1,
            (Key::Index(_), _) => self.segments += 1,
            (Key::Snapshot(_), true) => self.snapshots += 1,
            _ => self.small += 1,
        }
        self.bytes = self.bytes.saturating_add(job.size);
    }
}

/// What one pass did.
#[derive(Debug, Default)]
pub struct Pass {
    /// What was written into each region.
    pub moved: Vec<Moved>,
    /// What each region still lacks.
    pub lack: Vec<Lack>,
    /// Snapshots that became visible in each region.
    pub shown: Vec<u64>,
    /// Snapshots that became visible in any further region.
    pub snapshots: u64,
    /// Packs that segments name and no region lists.
    pub nowhere: Vec<String>,
    /// How many.
    pub nowhere_total: u64,
    /// Whether segments are lacking that name what a prune has condemned and not decided.
    pub waits: bool,
    /// Markers and outcomes as they were listed, if no region lacked any of them.
    pub listing: Option<Listing>,
}

impl Pass {
    /// Counts what did not come.
    fn left(&mut self, jobs: &[Job], now: &[Stands]) {
        for (job, now) in jobs.iter().zip(now) {
            self.lacks(job, job.to, now, false);
        }
    }

    fn lacks(&mut self, job: &Job, wanted: RegionSet, now: &Stands, snapshot: bool) {
        for ix in wanted.iter().filter(|ix| !now.spoiled && !now.at.has(*ix)) {
            if let Some(lack) = self.lack.get_mut(ix) {
                lack.add(job, snapshot);
            }
        }
    }
}

/// What is to be done.
#[derive(Clone, Copy)]
pub struct Wish<'w> {
    /// How far it is looked.
    pub depth: Depth,
    /// Regions that are brought up; without them those that may be written.
    pub targets: Option<RegionSet>,
    /// Only say what is lacking.
    pub dry_run: bool,
    /// What it may use.
    pub means: Means<'w>,
}

/// One pass at work.
struct Work<'w> {
    repo: &'w Arc<Repo>,
    wish: Wish<'w>,
    copier: Copier<'w>,
    pass: Pass,
}

/// Brings regions up to the union of all, once.
///
/// # Errors
/// Interrupted. A region that fails is marked as such; an object that no region has intact is recorded.
pub fn pass(repo: &Arc<Repo>, wish: Wish<'_>) -> Result<Pass> {
    let regions = repo.regions.len();
    let pass = Pass { lack: vec![Lack::default(); regions], shown: vec![0; regions], ..Pass::default() };
    let mut work = Work { repo, wish, copier: Copier::new(repo, wish.means), pass };
    work.run()?;
    Ok(Pass { moved: work.copier.moved(), ..work.pass })
}

/// Brings every region the records of runs that another has. Apart, because nothing waits for them.
///
/// # Errors
/// Interrupted.
pub fn records(repo: &Arc<Repo>, wish: Wish<'_>) -> Result<Pass> {
    let pass = Pass { lack: vec![Lack::default(); repo.regions.len()], ..Pass::default() };
    let mut work = Work { repo, wish, copier: Copier::new(repo, wish.means), pass };
    work.copier.sources = repo.sources(repo.epochs());
    let runs = repo.regions.list_all(repo.usable(), Prefix::Runs);
    work.small(&runs)?;
    Ok(Pass { moved: work.copier.moved(), ..work.pass })
}

impl Work<'_> {
    fn run(&mut self) -> Result<()> {
        let repo = self.repo;
        let epochs = if self.wish.dry_run {
            let epochs = repo.epochs_since(repo.epochs());
            self.lacks_epochs(&epochs);
            epochs
        } else {
            for ix in repo.usable() {
                if let Err(e) = repo.regions.sweep(ix) {
                    repo.regions.fail(ix, e);
                }
            }
            self.epochs()
        };
        self.copier.sources = repo.sources(&epochs);
        let OpeningLists { slots, configs } = self.opening_lists();
        // Listed side by side, copied in this order. Outcomes are listed before the segments are: what another writer
        // makes meanwhile, and may need segments that were not seen, is left to the next time.
        let wanted = [Prefix::Forgotten, Prefix::Holds, Prefix::Tags, Prefix::Snapshots];
        let [markers, holds, tags, outcomes] = repo.regions.list_several(repo.usable(), wanted);
        self.small(&slots)?;
        self.small(&configs)?;
        let all_marked = self.small(&markers)?;
        self.small(&holds)?;
        self.small(&tags)?;
        let jobs = small_jobs(&self.copier, &outcomes, self.targets());
        let as_listed = all_marked && jobs.is_empty();
        let mut stored = Stored::look(&self.copier, &epochs, self.targets(), self.wish.depth);
        self.stored(&mut stored)?;
        self.pass.waits = stored.waits();
        self.outcomes(jobs, &stored)?;
        self.pass.listing = as_listed.then_some(Listing { markers, outcomes });
        Ok(())
    }

    /// What the opening of the repository has listed is not listed again for the quick form, which comes soon after it. What
    /// is made meanwhile is left to the next time.
    fn opening_lists(&self) -> OpeningLists {
        let listed = if self.wish.depth == Depth::Segments { self.repo.take_listed() } else { None };
        listed.unwrap_or_else(|| {
            let wanted = [Prefix::Keys, Prefix::Config];
            let [slots, configs] = self.repo.regions.list_several(self.repo.usable(), wanted);
            OpeningLists { slots, configs }
        })
    }

    /// Regions to be brought up, less those that failed meanwhile.
    fn targets(&self) -> RegionSet {
        self.wish.targets.map_or_else(|| self.repo.writable(), |targets| targets.and(self.repo.usable()))
    }

    /// Copies; returns what became of each object.
    fn copy(&self, jobs: &[Job]) -> Result<Vec<Stands>> {
        let as_is = |job: &Job| Stands { at: job.from, spoiled: false };
        if self.wish.dry_run { Ok(jobs.iter().map(as_is).collect()) } else { self.copier.copy(jobs) }
    }

    /// Copies what is listed somewhere and lacking elsewhere; says whether nothing was.
    fn small(&mut self, lists: &Lists) -> Result<bool> {
        let jobs = small_jobs(&self.copier, lists, self.targets());
        let now = self.copy(&jobs)?;
        self.pass.left(&jobs, &now);
        Ok(jobs.is_empty())
    }

    /// Epochs first: they say which regions may be written. A damaged or squatted copy is passed over: the good
    /// one goes to the next suffix. The quick form goes by what was seen last: a backup looks again once it is announced.
    fn epochs(&self) -> Epochs {
        let repo = self.repo;
        let before = match self.wish.depth {
            Depth::Segments => Epochs::clone(&repo.epochs_seen()),
            Depth::Packs => repo.epochs_since(&repo.epochs_seen()),
        };
        let lags = before.lag(repo.usable());
        if lags.is_empty() {
            return before;
        }
        for Lag { from, to, key, .. } in lags {
            let Some(bytes) = self.epoch(from, &key) else { continue };
            match region::put_numbered(&repo.regions, to, key, &bytes) {
                Ok(Put::Created) => self.copier.count(to, bytes.len() as u64),
                Ok(_) => {}
                Err(e) => repo.regions.fail(to, e),
            }
        }
        repo.epochs_since(&before)
    }

    /// An object of an epoch as a region has it, if it verifies there.
    fn epoch(&self, from: usize, key: &Key) -> Option<Bytes> {
        let bytes = self.repo.regions.get(from, key, SMALL_OBJECT_BYTES_MAX).ok()?;
        self.repo.open_object(key, &bytes).is_ok().then_some(bytes)
    }

    /// Counts what would be copied of epochs: each once, whoever else has it too.
    fn lacks_epochs(&mut self, epochs: &Epochs) {
        let mut counted = BTreeSet::new();
        for Lag { from, to, key, digest } in epochs.lag(self.repo.usable()) {
            let Some(bytes) = self.epoch(from, &key).filter(|_| counted.insert((to, digest))) else {
                continue;
            };
            if let Some(lack) = self.pass.lack.get_mut(to) {
                lack.small += 1;
                lack.bytes = lack.bytes.saturating_add(bytes.len() as u64);
            }
        }
    }

    /// Packs, then the segments that name them.
    fn stored(&mut self, stored: &mut Stored) -> Result<()> {
        let jobs = stored.pack_jobs();
        let now = self.copy(&jobs)?;
        stored.packs_came(&jobs, &now);
        self.pass.left(&jobs, &now);
        for job in jobs.iter().filter(|job| job.from.is_empty()) {
            self.pass.nowhere_total += 1;
            if self.pass.nowhere.len() < NOWHERE_NAMED_MAX {
                self.pass.nowhere.push(job.key.path());
            }
        }
        let jobs = stored.segment_jobs();
        let now = self.copy(&jobs)?;
        for ((lacked, job), now) in stored.segments.iter().zip(&jobs).zip(now) {
            // What it says cannot be told: it was recorded, and may be anybody's.
            let spoiled = now.spoiled || lacked.is_unreadable();
            self.pass.lacks(job, lacked.missing, &Stands { spoiled, ..now }, false);
        }
        Ok(())
    }

    fn outcomes(&mut self, listed: Vec<Job>, stored: &Stored) -> Result<()> {
        if self.wish.dry_run {
            for (lacked, _) in outcomes::wanted(self.repo, &self.copier, listed, self.targets())? {
                let as_is = Stands { at: lacked.job.from, spoiled: false };
                self.pass.lacks(&lacked.job, lacked.missing, &as_is, lacked.shows);
            }
            return Ok(());
        }
        let lacked = outcomes::plan(self.repo, &self.copier, listed, self.targets(), stored)?;
        let jobs: Vec<Job> = lacked.iter().map(|lacked| lacked.job).collect();
        let now = self.copier.in_order(&jobs)?;
        for (lacked, now) in lacked.iter().zip(now) {
            self.pass.lacks(&lacked.job, lacked.missing, &now, lacked.shows);
            let came = RegionSet::of(now.at.iter().filter(|ix| lacked.missing.has(*ix)));
            if lacked.shows && !came.is_empty() {
                self.pass.snapshots += 1;
                for ix in came {
                    self.pass.shown.get_mut(ix).into_iter().for_each(|n| *n += 1);
                }
            }
        }
        Ok(())
    }
}

/// What became of one region.
#[derive(Debug, Clone)]
pub struct RegionReport {
    /// Its name.
    pub region: String,
    /// What was written into it.
    pub moved: Moved,
    /// Snapshots that became visible there.
    pub snapshots: u64,
    /// What it still lacks.
    pub lack: Lack,
    /// Whether some of that may be waiting for a prune's decision.
    pub waits: bool,
    /// Why it was not brought up.
    pub failed: Option<String>,
}

impl RegionReport {
    /// Whether it has everything that any region has.
    pub fn is_complete(&self) -> bool {
        self.failed.is_none() && self.lack.objects() == 0
    }

    /// What some of that which it lacks may be waiting for.
    pub fn waits_for(&self) -> Option<&'static str> {
        let waits = self.waits && self.failed.is_none() && self.lack.objects() > 0;
        waits.then_some("a prune has begun and not ended, and what it may remove waits for it")
    }

    /// Why it is behind, where it is.
    pub fn behind(&self) -> Option<String> {
        match (&self.failed, self.lack.objects(), self.waits_for()) {
            (Some(why), ..) => Some(why.clone()),
            (None, 0, _) => None,
            (None, n, Some(what)) => Some(format!("lacks {n} objects; {what}")),
            (None, n, None) => Some(format!("lacks {n} objects")),
        }
    }
}

/// What was done.
#[derive(Debug)]
pub struct Report {
    /// Every region.
    pub regions: Vec<RegionReport>,
    /// Snapshots that became visible in a further region.
    pub snapshots: u64,
    /// Packs that segments name and no region lists: the first ones.
    pub nowhere: Vec<String>,
    /// How many.
    pub nowhere_total: u64,
    /// Members of the repository that the configuration does not name.
    pub unnamed: Vec<String>,
    /// Whatever was found wrong on the way.
    pub findings: Vec<Finding>,
    /// Complete copies that are asked for.
    pub copies_min: usize,
    /// Whether it only looked.
    pub dry_run: bool,
}

impl Report {
    /// What was written, over all regions.
    pub fn moved(&self) -> Moved {
        let sum = |a: Moved, r: &RegionReport| Moved {
            objects: a.objects + r.moved.objects,
            bytes: a.bytes.saturating_add(r.moved.bytes),
        };
        self.regions.iter().fold(Moved::default(), sum)
    }

    /// Regions that are behind, and why.
    pub fn behind(&self) -> Vec<(String, String)> {
        let unnamed = self.unnamed.iter().map(|name| (name.clone(), UNNAMED.to_owned()));
        self.regions.iter().filter_map(|r| Some((r.region.clone(), r.behind()?))).chain(unnamed).collect()
    }

    /// This, and what was done after it.
    #[must_use]
    pub fn then(self, later: Report) -> Report {
        let mut regions = later.regions;
        for (region, before) in regions.iter_mut().zip(&self.regions) {
            region.moved.objects += before.moved.objects;
            region.moved.bytes = region.moved.bytes.saturating_add(before.moved.bytes);
            region.snapshots += before.snapshots;
        }
        Report { regions, snapshots: self.snapshots + later.snapshots, ..later }
    }

    /// How it ended.
    pub fn exit(&self) -> Exit {
        let complete = self.regions.iter().filter(|r| r.is_complete()).count();
        let mut exit = if self.behind().is_empty() { Exit::Done } else { Exit::Behind };
        if !self.findings.is_empty() || self.nowhere_total > 0 {
            exit = exit.worse(Exit::Damage);
        }
        if complete < self.copies_min && !self.dry_run {
            exit = exit.worse(Exit::Failed);
        }
        exit
    }
}

/// Brings regions up, in passes until one finds nothing to do: other writers go on meanwhile.
///
/// # Errors
/// Interrupted, or this program may not write; what was copied stays, and the next time goes on.
pub fn run(repo: &Arc<Repo>, wish: Wish<'_>) -> Result<Report> {
    repo.may_write()?;
    let mut moved = vec![Moved::default(); repo.regions.len()];
    let mut shown = vec![0; repo.regions.len()];
    let (mut last, mut snapshots) = (Pass::default(), 0);
    for _ in 0..PASSES_MAX {
        last = pass(repo, wish)?;
        snapshots += last.snapshots;
        shown.iter_mut().zip(&last.shown).for_each(|(sum, n)| *sum += n);
        let came = last.moved.iter().map(|moved| moved.objects).sum::<u64>();
        add(&mut moved, &last.moved);
        if came == 0 {
            break;
        }
    }
    let records = records(repo, wish)?;
    add(&mut moved, &records.moved);
    last.lack.iter_mut().zip(&records.lack).for_each(|(all, of)| {
        all.small += of.small;
        all.bytes = all.bytes.saturating_add(of.bytes);
    });
    let name = |ix: usize| repo.regions.region(ix).name.clone();
    let why = |ix: usize| repo.regions.failure(ix).map(|e| e.to_string());
    let each = (0..repo.regions.len()).zip(moved).zip(shown).zip(last.lack);
    let region = |(((ix, moved), snapshots), lack)| {
        let (region, failed) = (name(ix), why(ix));
        RegionReport { region, moved, snapshots, lack, waits: last.waits, failed }
    };
    Ok(Report {
        regions: each.map(region).collect(),
        snapshots,
        nowhere: last.nowhere,
        nowhere_total: last.nowhere_total,
        unnamed: members::unnamed(repo, &repo.epochs_seen()).into_iter().map(|m| m.name).collect(),
        findings: repo.findings(),
        copies_min: repo.copies_min,
        dry_run: wish.dry_run,
    })
}

fn add(sum: &mut [Moved], more: &[Moved]) {
    for (sum, more) in sum.iter_mut().zip(more) {
        sum.objects += more.objects;
        sum.bytes = sum.bytes.saturating_add(more.bytes);
    }
}
