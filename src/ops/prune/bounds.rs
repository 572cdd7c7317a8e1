//! What one run may take: time, and objects removed. What is over waits for the next run, which finds it by itself.

use crate::base::Env;
use std::time::Duration;

/// What is asked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bounds {
    /// Nothing new is begun after so long.
    pub time: Option<Duration>,
    /// So many objects are removed from each region at most.
    pub removals_max: Option<u64>,
}

/// Why a run did less than it could.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// Its time was over.
    Time,
    /// It had removed as much as it may.
    Removals,
}

impl Stopped {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Stopped::Time => "time",
            Stopped::Removals => "removals",
        }
    }
}

/// The bounds of a run at work.
#[derive(Debug, Clone)]
pub(super) struct Clock {
    env: Env,
    end: Option<i64>,
    /// Half of all its time.
    half_ms: i64,
    removals_max: u64,
}

impl Clock {
    pub(super) fn start(env: &Env, bounds: Bounds) -> Clock {
        let ms = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        let end = bounds.time.map(|time| env.steady().saturating_add(ms(time)));
        let half_ms = bounds.time.map_or(i64::MAX, ms) / 2;
        Clock { env: env.clone(), end, half_ms, removals_max: bounds.removals_max.unwrap_or(u64::MAX) }
    }

    /// How much time is left, ms.
    pub(super) fn left_ms(&self) -> i64 {
        self.end.map_or(i64::MAX, |end| end.saturating_sub(self.env.steady()).max(0))
    }

    pub(super) fn is_over(&self) -> bool {
        self.left_ms() == 0
    }

    /// Whether less is left than `wait`. Half of all the time is enough, where that is less: else a run that may take less
    /// than what is waited would never begin anything.
    pub(super) fn is_late(&self, wait: Duration) -> bool {
        let wait = i64::try_from(wait.as_millis()).unwrap_or(i64::MAX);
        self.left_ms() < wait.min(self.half_ms)
    }

    /// How many further objects may be removed now, if so many were; else why none may.
    pub(super) fn removals(&self, removed: u64) -> Result<usize, Stopped> {
        match (self.is_over(), self.removals_max.saturating_sub(removed)) {
            (true, _) => Err(Stopped::Time),
            (false, 0) => Err(Stopped::Removals),
            (false, more) => Ok(usize::try_from(more).unwrap_or(usize::MAX)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::TimeMs;
    use crate::base::clock::Ambient;
    use crate::error::Result;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering};

    struct Hand(AtomicI64);

    impl Ambient for Hand {
        fn now(&self) -> TimeMs {
            TimeMs(self.steady())
        }

        fn steady(&self) -> i64 {
            self.0.load(Ordering::Relaxed)
        }

        fn random(&self, _: &mut [u8]) -> Result<()> {
            Ok(())
        }
    }

    #[test]
    fn nothing_is_begun_that_leaves_no_time_to_wait() {
        let minutes = |n: u64| Duration::from_secs(60 * n);
        // All of the time, what is waited, and when it is too late.
        for (all, wait, late) in [(60, 10, Some(50)), (6, 10, Some(3)), (60, 0, None)] {
            let hand = Arc::new(Hand(AtomicI64::new(1000)));
            let bounds = Bounds { time: Some(minutes(all)), removals_max: None };
            let clock = Clock::start(&Env::custom(hand.clone()), bounds);
            let first = (0..=all).find(|minute| {
                hand.0.store(1001 + i64::try_from(60_000 * minute).unwrap(), Ordering::Relaxed);
                clock.is_late(minutes(wait))
            });
            assert_eq!(first, late, "{all} {wait}");
        }
        let clock = Clock::start(&Env::system(), Bounds::default());
        assert!(!clock.is_late(minutes(1_000_000)));
    }
}
