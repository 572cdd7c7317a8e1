//! Which region is asked first, and when a second one is.
//!
//! A folder comes before a bucket, a region that the configuration prefers before others, and of equals the one that has
//! answered sooner in this run. One that does not answer at all comes last, and is asked all the same where nobody else
//! has it. Where a bucket takes longer than nearly all of its answers did, the next region is asked too, and who answers
//! first is taken; what comes is the reader's to check in any case. Second requests are few: they cost money.

use super::{Regions, lock};
use crate::base::Pace;
use crate::error::{Error, Kind, Result};
use crate::store::{Key, Meter};
use bytes::Bytes;
use futures_util::future::try_join_all;
use std::future::Future;
use std::ops::Range;
use std::pin::pin;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// So many answers of a region are remembered.
const SAMPLES: usize = 64;
/// With fewer than this nothing is known of it,
const SAMPLES_MIN: usize = 8;
/// and so long it is waited for.
const DELAY_UNKNOWN: Duration = Duration::from_secs(1);
/// Otherwise as long as this share of its answers took, percent, and never less or more than:
const PERCENTILE: usize = 95;
const DELAY_MIN: Duration = Duration::from_millis(50);
const DELAY_MAX: Duration = Duration::from_secs(2);
/// One request in so many may be a second one,
const HEDGED_SHARE: u64 = 20;
/// and so many beside.
const HEDGED_FREE: u64 = 8;

/// How soon a region answers.
#[derive(Debug, Default)]
pub(super) struct Answers {
    /// Microseconds of the last answers, the oldest replaced first.
    last: Mutex<Vec<u64>>,
    count: AtomicU64,
    priority: AtomicI32,
    /// No faster than this, on average.
    pace: Mutex<Option<Arc<Pace>>>,
}

impl Answers {
    pub(super) fn note(&self, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let n = self.count.fetch_add(1, Ordering::Relaxed) as usize;
        let mut last = lock(&self.last);
        match last.get_mut(n % SAMPLES) {
            Some(slot) => *slot = took,
            None => last.push(took),
        }
    }

    /// How long it is waited before another region is asked.
    fn delay(&self) -> Duration {
        let mut sorted = lock(&self.last).clone();
        if sorted.len() < SAMPLES_MIN {
            return DELAY_UNKNOWN;
        }
        sorted.sort_unstable();
        let at = sorted.get(sorted.len() * PERCENTILE / 100).copied().unwrap_or_default();
        Duration::from_micros(at).clamp(DELAY_MIN, DELAY_MAX)
    }

    /// In steps of two, so that chance does not change the order; 0 for who was not asked yet.
    fn step(&self) -> u32 {
        let mut sorted = lock(&self.last).clone();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).map_or(0, |median| (median / 1000).checked_ilog2().map_or(0, |log| log + 1))
    }
}

/// Requests made to see who is quicker.
#[derive(Debug, Default)]
pub(super) struct Hedges {
    reads: AtomicU64,
    second: AtomicU64,
}

impl Hedges {
    /// Whether one more second request may be made; it counts as made.
    fn take(&self) -> bool {
        let most = self.reads.load(Ordering::Relaxed) / HEDGED_SHARE + HEDGED_FREE;
        let more = |made: u64| (made < most).then_some(made + 1);
        self.second.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }
}

impl Regions {
    /// Prefers regions in reads: the smaller the number, the sooner; 0 where nothing is said.
    pub fn prefer(&self, priority: impl Fn(&str) -> Option<i32>) {
        for region in &self.all {
            region.answers.priority.store(priority(&region.name).unwrap_or(0), Ordering::Relaxed);
        }
    }

    /// From now on reads from each region keep to a pace of its own, on average: what is asked for at once comes at once.
    pub fn read_slowly(&self, pace: impl Fn() -> Option<Pace>) {
        self.all.iter().for_each(|region| *lock(&region.answers.pace) = pace().map(Arc::new));
    }

    /// Waits until so many bytes that were read may have been.
    pub(super) fn slowed(&self, ix: usize, bytes: usize) {
        let pace = self.all.get(ix).and_then(|region| lock(&region.answers.pace).clone());
        if let Some(pace) = pace {
            pace.book(bytes as u64).wait();
        }
    }

    /// What decides the order in which regions are asked: the smallest first.
    pub fn cost(&self, ix: usize) -> impl Ord + use<> {
        let region = &self.all[ix];
        let step = if region.bucket { region.answers.step() } else { 0 };
        (self.is_away(ix).0, region.answers.priority.load(Ordering::Relaxed), region.bucket, step)
    }

    fn meter(&self, ix: usize) -> Option<Meter> {
        self.all.get(ix)?.store.as_ref().map(|store| store.meter())
    }

    /// Whether other regions should be asked first, and whether nothing at all came from this one when it was asked last.
    fn is_away(&self, ix: usize) -> (bool, bool) {
        self.meter(ix).map_or((false, false), |meter| meter.is_away())
    }

    /// Whether a region should be asked by somebody who can ask others too.
    pub(super) fn worth_asking(&self, ix: usize) -> bool {
        self.meter(ix).is_none_or(|meter| meter.worth_asking())
    }

    /// Records that an object could not be read. A region from which nothing comes at all says nothing of its objects.
    pub fn record_unread(&self, ix: usize, key: &Key, e: &Error) {
        if !(e.kind() == Kind::Retry && self.is_away(ix).1) {
            self.record(ix, &key.path(), e);
        }
    }

    pub(super) async fn fetch(&self, ix: usize, key: &Key, range: &Range<u64>) -> Result<Bytes> {
        let begin = Instant::now();
        let len = range.end.saturating_sub(range.start);
        let read = self.store(ix)?.get_range(key, range.start, len).await;
        let bytes = read.map_err(|e| e.lift().at(self.label(ix)))?;
        self.all[ix].answers.note(begin.elapsed());
        Ok(bytes)
    }

    /// One object of one region, whole and unchecked; how long it took counts where the cheapest region is asked for.
    ///
    /// # Errors
    /// Missing, too long, or the store failed.
    pub fn get_timed(&self, ix: usize, key: &Key, len_max: u64) -> Result<Bytes> {
        let begin = Instant::now();
        let bytes = self.get(ix, key, len_max)?;
        self.all[ix].answers.note(begin.elapsed());
        Ok(bytes)
    }

    /// A range of an object from the first of these regions, or from the second where that answers sooner, and which it was;
    /// into a buffer that keeps its memory for the next read. What it is, is the caller's to check. `None`: there is no
    /// region.
    pub fn get_range_from<'b>(
        &self,
        order: &[usize],
        key: &Key,
        range: Range<u64>,
        buffer: &'b mut Vec<u8>,
    ) -> Option<(usize, Result<&'b mut [u8]>)> {
        let (first, second) = self.first_two(order)?;
        if !self.all[first].bucket {
            return Some((first, self.get_range_into(first, key, range, buffer)));
        }
        let (ix, read) = self.racing((first, second), key, |ix| self.fetch(ix, key, &range));
        let copied = read.map(|bytes| {
            self.slowed(ix, bytes.len());
            buffer.clear();
            buffer.extend_from_slice(&bytes);
            &mut buffer[..]
        });
        Some((ix, copied))
    }

    /// Several ranges of an object, all from one region: the first of these, or the second where that answers sooner.
    pub fn get_ranges_from(
        &self,
        order: &[usize],
        key: &Key,
        ranges: &[Range<u64>],
    ) -> Option<(usize, Result<Vec<Bytes>>)> {
        let both = self.first_two(order)?;
        let all = |ix| try_join_all(ranges.iter().map(move |range| self.fetch(ix, key, range)));
        let (ix, read) = self.racing(both, key, all);
        self.slowed(ix, read.iter().flatten().map(Bytes::len).sum());
        Some((ix, read))
    }

    /// The region to ask, and the one after it.
    fn first_two(&self, order: &[usize]) -> Option<(usize, Option<usize>)> {
        let first = order.iter().copied().find(|ix| self.worth_asking(*ix)).or(order.first().copied())?;
        Some((first, order.iter().copied().find(|ix| *ix != first && !self.is_away(*ix).0)))
    }

    /// Makes a call of one region, and of a second one where the first takes long.
    fn racing<T, F>(
        &self,
        (first, second): (usize, Option<usize>),
        key: &Key,
        call: impl Fn(usize) -> F,
    ) -> (usize, Result<T>)
    where
        F: Future<Output = Result<T>>,
    {
        let second = second.filter(|_| self.all[first].bucket);
        self.hedges.reads.fetch_add(1, Ordering::Relaxed);
        self.handle.block_on(async {
            let begin = Instant::now();
            let mut one = pin!(call(first));
            let Some(second) = second else { return (first, one.await) };
            if let Ok(done) = timeout(self.all[first].answers.delay(), &mut one).await {
                return (first, done);
            }
            if !self.hedges.take() {
                return (first, one.await);
            }
            let mut two = pin!(call(second));
            // What one of them lacks is said, though the other has it.
            let failed = |ix, e: &Error| self.record_unread(ix, key, e);
            tokio::select! {
                done = &mut one => match done {
                    Ok(done) => (first, Ok(done)),
                    Err(e) => {
                        failed(first, &e);
                        (second, two.await)
                    }
                },
                done = &mut two => match done {
                    Ok(done) => {
                        // It would have taken longer still.
                        self.all[first].answers.note(begin.elapsed());
                        (second, Ok(done))
                    }
                    Err(e) => {
                        failed(second, &e);
                        (first, one.await)
                    }
                },
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_soon_a_region_answers() {
        let answers = Answers::default();
        assert_eq!((answers.delay(), answers.step()), (DELAY_UNKNOWN, 0));
        (0..100).for_each(|_| answers.note(Duration::from_millis(100)));
        assert_eq!((answers.delay(), answers.step()), (Duration::from_millis(100), 7));
        // A few that take longer do not matter; when it is slow from now on, that is known soon.
        (0..2).for_each(|_| answers.note(Duration::from_secs(9)));
        assert_eq!((answers.delay(), answers.step()), (Duration::from_millis(100), 7));
        (0..40).for_each(|_| answers.note(Duration::from_secs(9)));
        assert_eq!((answers.delay(), answers.step()), (DELAY_MAX, 14));
    }

    #[test]
    fn second_requests_are_few() {
        let hedges = Hedges::default();
        assert_eq!((0..100).filter(|_| hedges.take()).count(), 8);
        hedges.reads.store(1000, Ordering::Relaxed);
        assert_eq!((0..100).filter(|_| hedges.take()).count(), 50);
    }
}
