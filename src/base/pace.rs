//! Bytes a second: who has something to move books time for it, and waits until that is over.

use super::Cancel;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Waits are cut into pieces of this, so that an interruption ends them.
const PIECE: Duration = Duration::from_millis(50);
/// What is moved slowly is moved in parts that take about this long.
const PART: Duration = Duration::from_millis(100);

/// A rate that several threads share.
#[derive(Debug)]
pub struct Pace {
    rate: u64,
    cancel: Cancel,
    /// When everything booked so far is over.
    booked: Mutex<Option<Instant>>,
}

/// Time that was booked.
#[derive(Debug)]
pub struct Booked<'p> {
    pace: &'p Pace,
    end: Instant,
}

impl Pace {
    /// So many bytes a second, until `cancel` is raised: then nobody waits any more.
    pub fn new(rate: u64, cancel: &Cancel) -> Pace {
        Pace { rate: rate.max(1), cancel: cancel.clone(), booked: Mutex::new(None) }
    }

    /// Books the time for so many bytes, behind what is booked already. Time in which nothing was moved is not
    /// made up for.
    pub fn book(&self, bytes: u64) -> Booked<'_> {
        let now = Instant::now();
        let mut booked = self.booked.lock().unwrap_or_else(PoisonError::into_inner);
        let end = booked.map_or(now, |end| end.max(now)) + self.lasts(bytes);
        *booked = Some(end);
        Booked { pace: self, end }
    }

    fn lasts(&self, bytes: u64) -> Duration {
        let ns = u128::from(bytes) * 1_000_000_000 / u128::from(self.rate);
        Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX / 2))
    }

    /// How many bytes make a part that is neither a burst nor a waste of time.
    pub fn part(&self) -> usize {
        let bytes = self.rate * PART.as_millis() as u64 / 1000;
        usize::try_from(bytes).unwrap_or(usize::MAX).max(16 << 10)
    }
}

impl Booked<'_> {
    /// Waits on this thread until it is over.
    pub fn wait(&self) {
        while let Some(left) = self.left() {
            // Nothing else ends the wait, so the answer says only that the time has passed.
            let _ = crossbeam_channel::after(left).recv();
        }
    }

    /// How long to wait before asking again; `None`: it is over.
    pub fn left(&self) -> Option<Duration> {
        if self.pace.cancel.raised() {
            return None;
        }
        Some(self.end.saturating_duration_since(Instant::now()).min(PIECE)).filter(|left| !left.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_booked_one_after_the_other() {
        let (cancel, begin) = (Cancel::new(), Instant::now());
        let pace = Pace::new(1 << 20, &cancel);
        let ends: Vec<Duration> = (0..4).map(|_| pace.book(512 << 10).end - begin).collect();
        for (n, end) in ends.iter().enumerate() {
            let due = Duration::from_millis(500 * (n as u64 + 1));
            assert!(*end >= due && *end < due + Duration::from_millis(400), "{ends:?}");
        }
        assert_eq!(pace.part(), 104_857);
        assert!(pace.book(u64::MAX).left().is_some_and(|left| left <= PIECE));
    }

    #[test]
    fn nobody_waits_after_an_interruption() {
        let cancel = Cancel::new();
        let pace = Pace::new(1, &cancel);
        let booked = pace.book(1 << 30);
        assert!(booked.left().is_some());
        cancel.raise();
        assert!(booked.left().is_none() && pace.book(1 << 30).left().is_none());
    }

    #[test]
    fn nothing_takes_no_time() {
        assert!(Pace::new(1, &Cancel::new()).book(0).left().is_none());
    }
}
