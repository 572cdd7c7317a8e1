//! What the scheduler remembers of a job, also over a restart.

use crate::base::TimeMs;
use serde::{Deserialize, Serialize};

/// A due run that has not started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pending {
    /// Its due time.
    pub due: TimeMs,
    /// When it may start.
    pub start: TimeMs,
    /// It is caught up: it waits for a share of some minutes, not for a time of day.
    pub late: bool,
}

/// A run at work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Running {
    /// Its due time.
    pub due: TimeMs,
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// When it was started.
    pub since: TimeMs,
    /// It was asked to stop, so that a newer one can start.
    pub replaced: bool,
}

/// A run that failed and is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Again {
    /// Its due time.
    pub due: TimeMs,
    /// Number of the next attempt.
    pub attempt: u32,
    /// When.
    pub at: TimeMs,
}

/// What became of all due times so far. Each is in exactly one of the first six, or is pending; those that were
/// passed over unseen are in none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// Started.
    pub started: u64,
    /// Done by the run of a later due time.
    pub coalesced: u64,
    /// Left to a full run.
    pub gave_way: u64,
    /// Missed: too late.
    pub missed_deadline: u64,
    /// Missed: the run before was at work.
    pub missed_running: u64,
    /// Missed: blackouts left no time.
    pub missed_blackout: u64,
    /// Runs that ended well.
    pub done: u64,
    /// Runs that were given up.
    pub failed: u64,
    /// Attempts that were cut off.
    pub interrupted: u64,
}

impl Counts {
    /// Due times that something became of.
    pub fn handled(&self) -> u64 {
        self.started
            + self.coalesced
            + self.gave_way
            + self.missed_deadline
            + self.missed_running
            + self.missed_blackout
    }
}

/// All that is remembered of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// The schedule that the times are of.
    pub schedule: String,
    /// Every due time up to here was looked at once.
    pub handled: TimeMs,
    /// Due time of the last run that started.
    pub started: Option<TimeMs>,
    /// A due run that has not started.
    pub pending: Option<Pending>,
    /// The run at work.
    pub running: Option<Running>,
    /// The failed run that waits.
    pub again: Option<Again>,
    /// What became of due times.
    pub counts: Counts,
}

impl Memory {
    /// Of a job whose due times up to `handled` are somebody else's business.
    pub fn new(schedule: String, handled: TimeMs) -> Memory {
        let counts = Counts::default();
        Memory { schedule, handled, started: None, pending: None, running: None, again: None, counts }
    }
}
