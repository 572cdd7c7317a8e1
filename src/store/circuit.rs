//! A breaker for a store that is reached over a network: one that does not answer, although it was given its time, is not
//! asked again for a while; then one call tries it, and the others wait for what becomes of that.
//!
//! A call has made its own attempts before it counts as failed here, so one is enough to open the breaker. What a store
//! answers, even if it is a refusal, closes it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// So long nothing is asked once the breaker opens; twice as long when the trial after that fails too,
const PAUSE_FIRST: Duration = Duration::from_secs(5);
/// and no longer than this.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// How a breaker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum State {
    /// Calls are made.
    #[default]
    Closed,
    /// No call is made.
    Open,
    /// One call is made to see.
    HalfOpen,
}

impl State {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            State::Closed => "closed",
            State::Open => "open",
            State::HalfOpen => "half-open",
        }
    }
}

#[derive(Debug, Default)]
struct Inner {
    state: State,
    /// While it is open: until when.
    until: Option<Instant>,
    pause: Duration,
    opened: u64,
    why: String,
}

/// The breaker.
#[derive(Debug, Default)]
pub(super) struct Circuit(Mutex<Inner>);

impl Circuit {
    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a call may be made now; if not, why.
    pub(super) fn admit(&self, now: Instant) -> Result<(), String> {
        let mut inner = self.lock();
        match (inner.state, inner.until) {
            (State::Closed, _) => Ok(()),
            (State::Open, Some(until)) if now >= until => {
                inner.state = State::HalfOpen;
                Ok(())
            }
            _ => Err(format!("it is not asked, because it did not answer before: {}", inner.why)),
        }
    }

    /// Whether calls that are under way should go on trying.
    pub(super) fn gave_up(&self) -> bool {
        self.lock().state == State::Open
    }

    /// The store answered.
    pub(super) fn answered(&self) {
        let mut inner = self.lock();
        if inner.state != State::Closed {
            *inner = Inner { opened: inner.opened, ..Inner::default() };
        }
    }

    /// The store did not answer within the time that it was given.
    pub(super) fn failed(&self, now: Instant, why: &str) {
        let mut inner = self.lock();
        inner.pause = match inner.state {
            State::Closed => PAUSE_FIRST,
            // Another call that was under way tells nothing new.
            State::Open => return,
            State::HalfOpen => (inner.pause * 2).min(PAUSE_MAX),
        };
        inner.opened += u64::from(inner.state == State::Closed);
        (inner.state, inner.until, inner.why) = (State::Open, Some(now + inner.pause), why.to_owned());
    }

    /// A trial came to no end: its caller went away.
    pub(super) fn abandoned(&self, now: Instant) {
        let mut inner = self.lock();
        if inner.state == State::HalfOpen {
            (inner.state, inner.until) = (State::Open, Some(now + inner.pause));
        }
    }

    /// How it is, and how often it opened.
    pub(super) fn read(&self) -> (State, u64) {
        let inner = self.lock();
        (inner.state, inner.opened)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_tries_and_closes() {
        let (circuit, begin) = (Circuit::default(), Instant::now());
        let after = |seconds| begin + Duration::from_secs(seconds);
        assert!(circuit.admit(begin).is_ok());
        circuit.failed(begin, "nobody is there");
        circuit.failed(after(1), "another call");
        assert_eq!(circuit.read(), (State::Open, 1));
        assert!(circuit.admit(after(4)).unwrap_err().contains("nobody is there"));
        // One call tries, and no other.
        assert!(circuit.admit(after(5)).is_ok());
        assert_eq!(circuit.read(), (State::HalfOpen, 1));
        assert!(circuit.admit(after(5)).is_err() && !circuit.gave_up());
        circuit.failed(after(6), "still");
        assert!(circuit.admit(after(15)).is_err());
        assert!(circuit.admit(after(16)).is_ok());
        // Whose caller goes away has tried nothing.
        circuit.abandoned(after(17));
        assert!(circuit.admit(after(26)).is_err());
        assert!(circuit.admit(after(27)).is_ok());
        circuit.answered();
        assert_eq!(circuit.read(), (State::Closed, 1));
        assert!(circuit.admit(after(28)).is_ok());
        circuit.failed(after(30), "again");
        assert_eq!(circuit.read(), (State::Open, 2));
        assert!(circuit.admit(after(35)).is_ok());
    }

    #[test]
    fn it_is_asked_at_least_every_minute() {
        let (circuit, mut now) = (Circuit::default(), Instant::now());
        circuit.failed(now, "x");
        for _ in 0..20 {
            now += PAUSE_MAX;
            assert!(circuit.admit(now).is_ok());
            circuit.failed(now, "x");
        }
    }
}
