//! A flag that asks long work to stop at its next step, and ends the waits of those who wait.

use crate::error::{Error, Kind, Result};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A wait looks at the flag at least so often, whoever raises it and however.
const PIECE: Duration = Duration::from_millis(500);

/// Shared by the signal handler and every stage.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<Flag>);

#[derive(Debug, Default)]
struct Flag {
    raised: AtomicBool,
    /// Between a look at the flag and the wait for the bell nobody rings it.
    gate: Mutex<()>,
    bell: Condvar,
}

impl Cancel {
    /// A flag nobody has raised.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks everybody to stop.
    pub fn raise(&self) {
        self.0.raised.store(true, Ordering::Relaxed);
        let _gate = self.0.gate.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.bell.notify_all();
    }

    /// Whether somebody asked.
    pub fn raised(&self) -> bool {
        self.0.raised.load(Ordering::Relaxed)
    }

    /// An error once raised.
    ///
    /// # Errors
    /// [`Kind::Cancelled`] after [`Cancel::raise`].
    pub fn check(&self) -> Result<()> {
        if self.raised() { Err(Error::new(Kind::Cancelled, "interrupted")) } else { Ok(()) }
    }

    /// Waits so long, or until the flag is raised.
    ///
    /// # Errors
    /// [`Kind::Cancelled`]: it is raised.
    pub fn wait(&self, time: Duration) -> Result<()> {
        let begin = Instant::now();
        let mut gate = self.0.gate.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(left) = time.checked_sub(begin.elapsed()).filter(|left| !left.is_zero() && !self.raised()) {
            let (next, _) = self.0.bell.wait_timeout(gate, left.min(PIECE)).unwrap_or_else(PoisonError::into_inner);
            gate = next;
        }
        drop(gate);
        self.check()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_lasts_as_long_as_it_says() {
        let (cancel, begin) = (Cancel::new(), Instant::now());
        cancel.wait(Duration::from_millis(30)).unwrap();
        assert!(begin.elapsed() >= Duration::from_millis(30));
        cancel.wait(Duration::ZERO).unwrap();
    }

    #[test]
    fn an_interruption_ends_a_wait() {
        let cancel = Cancel::new();
        let waits = std::thread::spawn({
            let cancel = cancel.clone();
            move || cancel.wait(Duration::from_secs(600)).unwrap_err().kind()
        });
        cancel.raise();
        assert_eq!(waits.join().unwrap(), Kind::Cancelled);
        assert_eq!(cancel.wait(Duration::ZERO).unwrap_err().kind(), Kind::Cancelled);
    }
}
