//! How long a run waits for a region that it can do without.
//!
//! With as many copies as it must make in other regions, a run waits for one that is slow only so long: a moment, and a
//! share of the time that it has taken so far. What counts is time in which it waited for that region alone, beyond what it
//! waited so for each other: chance makes now one the last and now another, and of regions that are all slow none is.

use super::lock;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// So long any region may hold a run up,
const GRACE: Duration = Duration::from_secs(3);
/// and so much of the time that it has taken, percent.
const SHARE: u32 = 10;

/// What each region has cost a run.
#[derive(Debug)]
pub(super) struct Haste {
    /// When it began, and how many copies it must make.
    begun: Mutex<Option<(Instant, usize)>>,
    held_us: Vec<AtomicU64>,
    /// Held by who gives a region up, so that two never do at once what only one may.
    pub(super) giving_up: Mutex<()>,
}

impl Haste {
    pub(super) fn new(regions: usize) -> Haste {
        let held_us = (0..regions).map(|_| AtomicU64::new(0)).collect();
        Haste { begun: Mutex::default(), held_us, giving_up: Mutex::default() }
    }

    /// From now on only so many regions are waited for.
    pub(super) fn begin(&self, now: Instant, needed: usize) {
        self.held_us.iter().for_each(|held| held.store(0, Ordering::Relaxed));
        *lock(&self.begun) = Some((now, needed.max(1)));
    }

    /// From now on every region is waited for again.
    pub(super) fn end(&self) {
        *lock(&self.begun) = None;
    }

    /// How many copies must be made; `None` while every region is waited for.
    pub(super) fn needed(&self) -> Option<usize> {
        lock(&self.begun).map(|(_, needed)| needed)
    }

    /// How much longer it may be waited for a region alone.
    pub(super) fn left(&self, ix: usize, now: Instant) -> Duration {
        let Some((begin, _)) = *lock(&self.begun) else { return Duration::MAX };
        let allowed = GRACE + now.saturating_duration_since(begin) * SHARE / 100;
        let others = (0..self.held_us.len()).filter(|other| *other != ix).map(|other| self.held(other)).min();
        allowed.saturating_sub(self.held(ix).saturating_sub(others.unwrap_or_default()))
    }

    /// How long it was waited for a region alone.
    pub(super) fn held(&self, ix: usize) -> Duration {
        self.held_us.get(ix).map_or(Duration::ZERO, |held| Duration::from_micros(held.load(Ordering::Relaxed)))
    }

    /// It was waited so long for a region alone.
    pub(super) fn hold(&self, ix: usize, waited: Duration) {
        if let Some(held) = self.held_us.get(ix) {
            held.fetch_add(u64::try_from(waited.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_may_cost_a_moment_and_a_share() {
        let (haste, begin) = (Haste::new(2), Instant::now());
        assert_eq!((haste.needed(), haste.left(0, begin)), (None, Duration::MAX));
        haste.begin(begin, 1);
        assert_eq!((haste.needed(), haste.left(0, begin)), (Some(1), GRACE));
        haste.hold(0, Duration::from_secs(2));
        let later = begin + Duration::from_secs(20);
        assert_eq!(haste.left(0, later), Duration::from_secs(3));
        assert_eq!(haste.left(1, later), Duration::from_secs(5));
        haste.hold(0, Duration::from_secs(4));
        assert_eq!((haste.left(0, later), haste.held(0)), (Duration::ZERO, Duration::from_secs(6)));
        // The other one is no quicker.
        haste.hold(1, Duration::from_secs(5));
        assert_eq!((haste.left(0, later), haste.left(1, later)), (Duration::from_secs(4), Duration::from_secs(5)));
        haste.end();
        assert_eq!((haste.needed(), haste.left(0, later)), (None, Duration::MAX));
        haste.begin(later, 2);
        assert_eq!((haste.needed(), haste.left(0, later)), (Some(2), GRACE));
    }
}
