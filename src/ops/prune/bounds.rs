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
    removals_max: u64,
}

impl Clock {
    pub(super) fn start(env: &Env, bounds: Bounds) -> Clock {
        let ms = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        let end = bounds.time.map(|time| env.steady().saturating_add(ms(time)));
        Clock { env: env.clone(), end, removals_max: bounds.removals_max.unwrap_or(u64::MAX) }
    }

    /// How much time is left, ms.
    pub(super) fn left_ms(&self) -> i64 {
        self.end.map_or(i64::MAX, |end| end.saturating_sub(self.env.steady()).max(0))
    }

    pub(super) fn is_over(&self) -> bool {
        self.left_ms() == 0
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
