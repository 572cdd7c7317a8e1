//! Copies objects between regions: several at once, within a budget of bytes, each verified before it is written
//! anywhere. A bad copy is recorded, and another region's is taken.

use crate::base::{Cancel, Progress};
use crate::error::{Error, Kind, Result};
use crate::format::envelope::OBJECT_BYTES_MAX;
use crate::format::run::Run;
use crate::format::{FormatError, pack, signed};
use crate::region::{RegionSet, lock};
use crate::repo::index::open_segment;
use crate::repo::open::{Chain, chain};
use crate::repo::{Repo, keys, view};
use crate::store::{Key, Put};
use bytes::Bytes;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};

/// Most bytes that are on their way at a time, over all regions.
const IN_FLIGHT_BYTES_MAX: u64 = 96 << 20;
/// Most bytes of those that are written in order which are read ahead.
const AHEAD_BYTES_MAX: u64 = 32 << 20;
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
        let _taken = Taken { of: self, bytes };
        act()
    }
}

/// Room that is given back whatever ends the work, a panic too: others wait for it without an end.
struct Taken<'b> {
    of: &'b Budget,
    bytes: u64,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        *lock(&self.of.free) += self.bytes;
        self.of.freed.notify_all();
    }
}

/// Copies objects and counts what it wrote.
pub(super) struct Copier<'c> {
    pub(super) repo: &'c Arc<Repo>,
    pub(super) means: Means<'c>,
    /// Regions that are believed.
    pub(super) sources: RegionSet,
    budget: Budget,
    chain: OnceLock<Chain>,
    moved: Mutex<Vec<Moved>>,
}

impl<'c> Copier<'c> {
    pub(super) fn new(repo: &'c Arc<Repo>, means: Means<'c>) -> Copier<'c> {
        Copier {
            repo,
            means,
            sources: RegionSet::ALL,
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
        self.add_expected(jobs);
        self.side_by_side(jobs, |job| self.one(job))
    }

    fn add_expected(&self, jobs: &[Job]) {
        if let Some(progress) = self.means.progress {
            let bytes = |job: &Job| job.size.saturating_mul(self.missing(job).count() as u64);
            progress.bytes_expected.add(jobs.iter().map(bytes).fold(0, u64::saturating_add));
        }
    }

    /// Does something for each of them, several at a time and in any order; returns what came of each.
    ///
    /// # Errors
    /// The first that is met.
    pub(super) fn side_by_side<W: Sync, T: Default + Send>(
        &self,
        work: &[W],
        act: impl Fn(&W) -> Result<T> + Sync,
    ) -> Result<Vec<T>> {
        let workers = self.means.workers.min(WORKERS_MAX).min(work.len());
        if workers < 2 {
            return work.iter().map(act).collect();
        }
        let next = AtomicUsize::new(0);
        let done: Mutex<Vec<T>> = Mutex::new(work.iter().map(|_| T::default()).collect());
        let run = || -> Result<()> {
            while let Some((at, one)) =
                Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|at| Some((at, work.get(at)?)))
            {
                let came = act(one)?;
                if let Some(slot) = lock(&done).get_mut(at) {
                    *slot = came;
                }
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..workers).map(|_| scope.spawn(run)).collect();
            // A thread that panicked has said so; its objects count as not copied.
            threads.into_iter().try_for_each(|thread| thread.join().unwrap_or(Ok(())))
        })?;
        Ok(done.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// Copies them so that in no region one is there before an earlier one. They are read side by side, some at a time, and
    /// each is written into all its regions at once.
    ///
    /// # Errors
    /// Interrupted.
    pub(super) fn in_order(&self, jobs: &[Job]) -> Result<Vec<Stands>> {
        self.add_expected(jobs);
        let mut stands = Vec::with_capacity(jobs.len());
        let mut rest = jobs;
        while !rest.is_empty() {
            let mut bytes = 0u64;
            let fits = |job: &&Job| {
                bytes = bytes.saturating_add(job.size);
                bytes <= AHEAD_BYTES_MAX
            };
            let (some, more) = rest.split_at(rest.iter().take_while(fits).count().max(1));
            let read = self.side_by_side(some, |job| {
                self.means.cancel.check()?;
                let (missing, from) = (self.missing(job), self.holders(job).and(self.repo.usable()));
                let wanted = !missing.is_empty() && !from.is_empty();
                Ok(wanted.then(|| self.fetch(job, from)))
            })?;
            for (job, read) in some.iter().zip(read) {
                self.means.cancel.check()?;
                let missing = self.missing(job);
                stands.push(match read.filter(|_| !missing.is_empty()) {
                    None => Stands { at: job.from, spoiled: false },
                    Some(Ok(bytes)) => Stands { at: job.from.or(self.put(job, missing, &bytes)), spoiled: false },
                    Some(Err(e)) => Stands { at: job.from, spoiled: self.is_spoiled(job, &e) },
                });
            }
            rest = more;
        }
        Ok(stands)
    }

    /// Regions that this object may be taken from: what is named by its hash, or is a link of a chain, any can have.
    pub(super) fn believed(&self, key: &Key) -> RegionSet {
        match key {
            Key::Pack(_) | Key::Index(_) | Key::Config(..) => RegionSet::ALL,
            _ => self.sources,
        }
    }

    /// Regions that have it and are believed.
    fn holders(&self, job: &Job) -> RegionSet {
        job.from.and(self.believed(&job.key))
    }

    /// Regions that are to have it, do not, and can take it.
    fn missing(&self, job: &Job) -> RegionSet {
        RegionSet::of(job.to.and(self.repo.usable()).iter().filter(|ix| !job.from.has(*ix)))
    }

    fn one(&self, job: &Job) -> Result<Stands> {
        self.means.cancel.check()?;
        let (missing, from) = (self.missing(job), self.holders(job).and(self.repo.usable()));
        if missing.is_empty() || from.is_empty() {
            return Ok(Stands { at: job.from, spoiled: false });
        }
        self.budget.within(job.size, || match self.fetch(job, from) {
            Ok(bytes) => Ok(Stands { at: job.from.or(self.put(job, missing, &bytes)), spoiled: false }),
            Err(e) => Ok(Stands { at: job.from, spoiled: self.is_spoiled(job, &e) }),
        })
    }

    /// Whether an object counts as lost that could not be read: one that failed meanwhile, or did not answer, may have had
    /// a good one.
    fn is_spoiled(&self, job: &Job, e: &Error) -> bool {
        e.kind() != Kind::Retry && self.repo.usable().covers(self.holders(job))
    }

    /// A good copy, from the cheapest region that has one: a folder before a bucket, and of several the one that has
    /// answered sooner so far.
    fn fetch(&self, job: &Job, from: RegionSet) -> Result<Bytes> {
        let (regions, key) = (&self.repo.regions, &job.key);
        if let Key::Slot(id) = key
            && keys::is_disputed(self.repo, *id, from)
        {
            return Err(Error::new(Kind::Damage, "regions show different key slots").at(key));
        }
        let mut order: Vec<usize> = from.iter().collect();
        order.sort_by_cached_key(|ix| regions.cost(*ix));
        let fetch = |ix| regions.get_timed(ix, key, OBJECT_BYTES_MAX as u64);
        let check = |bytes: Bytes| self.check(key, &bytes).map(|()| bytes);
        // What no region has intact was recorded by the read.
        regions.read_among(order, key, fetch, check)
    }

    /// Writes it into these regions at once; returns where it was taken.
    fn put(&self, job: &Job, missing: RegionSet, bytes: &Bytes) -> RegionSet {
        let (regions, key) = (&self.repo.regions, &job.key);
        let mut taken = RegionSet::NONE;
        for (ix, put) in regions.put_each(missing, key, bytes) {
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
        taken
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
            Key::Slot(id) if !keys::is_listed(repo, *id) => {
                Err(FormatError::Unsigned("no configuration lists this key slot"))
            }
            Key::Slot(id) => keys::check_slot(repo, *id, bytes),
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    #[test]
    fn work_that_panics_gives_its_room_back() {
        let budget = Budget { free: Mutex::new(IN_FLIGHT_BYTES_MAX), freed: Condvar::new() };
        let free = || *lock(&budget.free);
        let died = catch_unwind(AssertUnwindSafe(|| {
            budget.within(1000, || {
                assert_eq!(free(), IN_FLIGHT_BYTES_MAX - 1000);
                assert_eq!(free(), 0, "it dies");
            });
        }));
        assert!(died.is_err());
        assert_eq!(free(), IN_FLIGHT_BYTES_MAX);
        // More than there is takes all, and does not wait for ever.
        assert_eq!(budget.within(u64::MAX, free), 0);
        assert_eq!(free(), IN_FLIGHT_BYTES_MAX);
    }
}
