//! Copies objects between regions: several at once, within a budget of bytes, each verified before it is written
//! anywhere. A bad copy is recorded, and another region's is taken.

use crate::base::{Cancel, Progress};
use crate::error::{Kind, Result};
use crate::format::envelope::OBJECT_BYTES_MAX;
use crate::format::run::Run;
use crate::format::{FormatError, pack, signed};
use crate::region::{RegionSet, lock};
use crate::repo::index::open_segment;
use crate::repo::open::{Chain, chain, open_slot_object};
use crate::repo::{Repo, keys, view};
use crate::store::{Key, Put};
use bytes::Bytes;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};

/// Most bytes that are on their way at a time, over all regions.
const IN_FLIGHT_BYTES_MAX: u64 = 96 << 20;
/// Threads that copy.
pub const WORKERS_MAX: usize = 6;

/// What the work may use.
#[derive(Clone, Copy)]
pub struct Means<'m> {
    /// Threads; 0: everything inline, in a fixed order.
    pub workers: usize,
    /// What is told of it.
    pub progress: Option<&'m Progress>,
    /// Asks it to stop.
    pub cancel: &'m Cancel,
}

/// One object to be copied.
#[derive(Debug, Clone, Copy)]
pub(super) struct Job {
    pub(super) key: Key,
    /// Bytes, as it is listed.
    pub(super) size: u64,
    /// Regions that have it.
    pub(super) from: RegionSet,
    /// Regions that are to have it.
    pub(super) to: RegionSet,
}

/// What became of a job.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Stands {
    /// Regions that have the object now.
    pub(super) at: RegionSet,
    /// Whether no region could show it intact. It was recorded, and is no lack of those that do not have it.
    pub(super) spoiled: bool,
}

/// What was written into a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Moved {
    /// Objects.
    pub objects: u64,
    /// Bytes.
    pub bytes: u64,
}

/// Bytes that may still be taken.
struct Budget {
    free: Mutex<u64>,
    freed: Condvar,
}

impl Budget {
    /// Waits until there is room, runs, and gives the room back.
    fn within<T>(&self, bytes: u64, act: impl FnOnce() -> T) -> T {
        let bytes = bytes.min(IN_FLIGHT_BYTES_MAX);
        let mut free = lock(&self.free);
        while *free < bytes {
            free = self.freed.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
        *free -= bytes;
        drop(free);
        let done = act();
        *lock(&self.free) += bytes;
        self.freed.notify_all();
        done
    }
}

/// Copies objects and counts what it wrote.
pub(super) struct Copier<'c> {
    pub(super) repo: &'c Repo,
    pub(super) means: Means<'c>,
    budget: Budget,
    chain: OnceLock<Chain>,
    moved: Mutex<Vec<Moved>>,
}

impl<'c> Copier<'c> {
    pub(super) fn new(repo: &'c Repo, means: Means<'c>) -> Copier<'c> {
        Copier {
            repo,
            means,
            budget: Budget { free: Mutex::new(IN_FLIGHT_BYTES_MAX), freed: Condvar::new() },
            chain: OnceLock::new(),
            moved: Mutex::new(vec![Moved::default(); repo.regions.len()]),
        }
    }

    /// What was written so far, by region.
    pub(super) fn moved(&self) -> Vec<Moved> {
        lock(&self.moved).to_vec()
    }

    /// Copies all of them, in any order; returns what became of each.
    ///
    /// # Errors
    /// Interrupted.
    pub(super) fn copy(&self, jobs: &[Job]) -> Result<Vec<Stands>> {
        if let Some(progress) = self.means.progress {
            let bytes = |job: &Job| job.size.saturating_mul(self.missing(job).count() as u64);
            progress.bytes_expected.add(jobs.iter().map(bytes).fold(0, u64::saturating_add));
        }
        if self.means.workers < 2 || jobs.len() < 2 {
            return jobs.iter().map(|job| self.one(job)).collect();
        }
        let (next, stands) = (AtomicUsize::new(0), Mutex::new(vec![Stands::default(); jobs.len()]));
        let work = || -> Result<()> {
            while let Some((at, job)) =
                Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|at| Some((at, jobs.get(at)?)))
            {
                let now = self.one(job)?;
                if let Some(slot) = lock(&stands).get_mut(at) {
                    *slot = now;
                }
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..self.means.workers.min(WORKERS_MAX).min(jobs.len())).map(|_| scope.spawn(work)).collect();
            // A thread that panicked has said so; its objects count as not copied.
            threads.into_iter().try_for_each(|thread| thread.join().unwrap_or(Ok(())))
        })?;
        Ok(stands.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// Copies them one after the other.
    ///
    /// # Errors
    /// Interrupted.
    pub(super) fn in_order(&self, jobs: &[Job]) -> Result<Vec<Stands>> {
        jobs.iter().map(|job| self.one(job)).collect()
    }

    /// Regions that are to have it, do not, and can take it.
    fn missing(&self, job: &Job) -> RegionSet {
        RegionSet::of(job.to.and(self.repo.usable()).iter().filter(|ix| !job.from.has(*ix)))
    }

    fn one(&self, job: &Job) -> Result<Stands> {
        self.means.cancel.check()?;
        let (missing, from) = (self.missing(job), job.from.and(self.repo.usable()));
        if missing.is_empty() || from.is_empty() {
            return Ok(Stands { at: job.from, spoiled: false });
        }
        let done = self.budget.within(job.size, || self.carry(job, from, missing));
        // One that failed meanwhile, or did not answer, may have had a good one.
        let damaged = done.as_ref().is_err_and(|e| e.kind() != Kind::Retry);
        let spoiled = damaged && self.repo.usable().covers(job.from);
        Ok(Stands { at: job.from.or(done.unwrap_or_default()), spoiled })
    }

    /// Reads a good copy and writes it; returns where it was taken. An error: there is no good copy.
    fn carry(&self, job: &Job, from: RegionSet, missing: RegionSet) -> Result<RegionSet> {
        let (regions, key) = (&self.repo.regions, &job.key);
        let fetch = |ix| regions.get(ix, key, OBJECT_BYTES_MAX as u64);
        let check = |bytes: Bytes| self.check(key, &bytes).map(|()| bytes);
        // What no region has intact was recorded by the read.
        let bytes = regions.read_among(from, key, fetch, check)?;
        let mut taken = RegionSet::NONE;
        for (ix, put) in regions.put_each(missing, key, &bytes) {
            match put {
                Ok(Put::Created) => {
                    self.count(ix, bytes.len() as u64);
                    taken = taken.with(ix);
                }
                Ok(Put::Same) => taken = taken.with(ix),
                Ok(Put::Other) => regions.record(ix, &key.path(), "another object stands at this key"),
                Err(e) => regions.fail(ix, e),
            }
        }
        Ok(taken)
    }

    pub(super) fn count(&self, ix: usize, bytes: u64) {
        if let Some(moved) = lock(&self.moved).get_mut(ix) {
            moved.objects += 1;
            moved.bytes += bytes;
        }
        if let Some(progress) = self.means.progress {
            progress.objects.add(1);
            progress.bytes_done.add(bytes);
            progress.bytes_stored.add(bytes);
        }
    }

    /// Whether these bytes are what belongs at this key. What does not verify is carried nowhere: one hostile region
    /// must not reach the others.
    fn check(&self, key: &Key, bytes: &[u8]) -> std::result::Result<(), FormatError> {
        let repo = self.repo;
        match key {
            Key::Pack(name) => pack::check_name(name, bytes),
            Key::Index(_) => open_segment(repo, key, bytes).map(drop),
            Key::Snapshot(sid) => view::check_outcome(repo, key, *sid, bytes),
            Key::Forgotten(sid) => view::open_marker(repo, key, *sid, bytes),
            Key::Run(id) => repo.open_object(key, bytes)?.decode::<Run>("run")?.check(*id),
            Key::EpochBegin(..)
            | Key::EpochEnd(..)
            | Key::Hold(_)
            | Key::HoldRelease(_)
            | Key::Tags(_)
            | Key::Session(_) => repo.open_object(key, bytes).map(drop),
            Key::Slot(id) => {
                if !keys::is_listed(repo, *id) {
                    return Err(FormatError::Unsigned("no configuration lists this key slot"));
                }
                open_slot_object(bytes, &repo.id, *id).map(drop)
            }
            Key::Config(number, _) => {
                let (_, digest) = signed::check_sum(bytes)?;
                let chain = self.chain.get_or_init(|| chain(repo));
                match chain.get(number) == Some(&digest) {
                    true => Ok(()),
                    false => Err(FormatError::Unsigned("not a configuration of this repository's chain")),
                }
            }
            Key::Quarantine(_) | Key::QuarantineRecord(_) | Key::Probe(_) => Err(FormatError::Unsigned("set aside")),
            Key::Region => Err(FormatError::Malformed("region", "marks are not copied")),
        }
    }
}
