//! A breaker for a store that is reached over a network: whoever can do without one that does not answer, although it was
//! given its time, asks somebody else for a while; then one call tries it.
//!
//! It refuses nothing by itself. Only reads that another region may answer ask it first, and those come back to a store
//! that nobody can replace: a pause of the network must not fail in a moment what would have outlasted it. A call has
//! made its own attempts before it counts as failed here, so one is enough to open the breaker.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// So long others are asked first once the breaker opens; twice as long when the trial after that fails too,
const PAUSE_FIRST: Duration = Duration::from_secs(5);
/// and no longer than this. A trial of which nothing is heard is repeated after as long.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// How a breaker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum State {
    /// It answers, as far as is known.
    #[default]
    Closed,
    /// It did not answer what it was asked last.
    Open,
}

impl State {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            State::Closed => "closed",
            State::Open => "open",
        }
    }
}

/// What is known of a store that did not answer.
#[derive(Debug)]
struct Opened {
    until: Instant,
    pause: Duration,
    /// Whether a call is under way to see.
    tried: bool,
    /// Whether nothing at all came from it.
    silent: bool,
}

#[derive(Debug, Default)]
struct Inner {
    opened: Option<Opened>,
    times: u64,
}

/// The breaker.
#[derive(Debug, Default)]
pub(super) struct Circuit(Mutex<Inner>);

impl Circuit {
    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether somebody who could ask elsewhere should ask here now. Once a pause is over, that is true for one.
    pub(super) fn worth_asking(&self, now: Instant) -> bool {
        match &mut self.lock().opened {
            None => true,
            Some(opened) if now >= opened.until => {
                (opened.until, opened.tried) = (now + PAUSE_MAX, true);
                true
            }
            Some(_) => false,
        }
    }

    /// The store answered.
    pub(super) fn answered(&self) {
        self.lock().opened = None;
    }

    /// A call came to nothing within the time that the store was given. `silent`: nothing came at all.
    pub(super) fn failed(&self, now: Instant, silent: bool) {
        let mut inner = self.lock();
        let pause = match &inner.opened {
            None => PAUSE_FIRST,
            Some(opened) if opened.tried => (opened.pause * 2).min(PAUSE_MAX),
            // Another call that was under way tells nothing new.
            Some(_) => return,
        };
        inner.times += u64::from(inner.opened.is_none());
        inner.opened = Some(Opened { until: now + pause, pause, tried: false, silent });
    }

    /// How it is, and how often it opened.
    pub(super) fn read(&self) -> (State, u64) {
        let inner = self.lock();
        (if inner.opened.is_some() { State::Open } else { State::Closed }, inner.times)
    }

    /// Whether somebody who could ask elsewhere would be asked to, and whether nothing came from it when it was asked last.
    pub(super) fn look(&self, now: Instant) -> (bool, bool) {
        self.lock().opened.as_ref().map_or((false, false), |opened| (now < opened.until, opened.silent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_is_tried_and_closes() {
        let (circuit, begin) = (Circuit::default(), Instant::now());
        let after = |seconds| begin + Duration::from_secs(seconds);
        assert!(circuit.worth_asking(begin));
        circuit.failed(begin, true);
        circuit.failed(after(1), true);
        assert_eq!((circuit.read(), circuit.look(after(4))), ((State::Open, 1), (true, true)));
        assert!(!circuit.worth_asking(after(4)));
        // One call tries, and no other.
        assert_eq!(circuit.look(after(5)), (false, true));
        assert!(circuit.worth_asking(after(5)) && !circuit.worth_asking(after(5)));
        circuit.failed(after(6), false);
        assert!(!circuit.worth_asking(after(15)));
        assert_eq!(circuit.look(after(15)), (true, false));
        // Of this trial nothing is heard.
        assert!(circuit.worth_asking(after(16)));
        assert!(!circuit.worth_asking(after(75)) && circuit.worth_asking(after(76)));
        circuit.answered();
        assert_eq!((circuit.read(), circuit.look(after(76))), ((State::Closed, 1), (false, false)));
        assert!(circuit.worth_asking(after(77)) && circuit.worth_asking(after(77)));
        circuit.failed(after(80), true);
        assert_eq!(circuit.read(), (State::Open, 2));
        assert!(circuit.worth_asking(after(85)));
    }

    #[test]
    fn it_is_tried_at_least_every_minute() {
        let (circuit, mut now) = (Circuit::default(), Instant::now());
        circuit.failed(now, true);
        for _ in 0..20 {
            now += PAUSE_MAX;
            assert!(circuit.worth_asking(now));
            circuit.failed(now, true);
        }
    }
}
