//! What the scheduler says about its decisions.

use super::job::JobId;
use crate::base::{TimeMs, units};
use std::fmt;

/// Why a due run did not start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Missed {
    /// It could not start within its starting deadline.
    Deadline,
    /// The run before was at work, and the policy forbids a second one.
    Running,
    /// Blackouts left no time.
    Blackout,
    /// Its policy, or its schedule, was taken away.
    Removed,
}

impl Missed {
    /// For people.
    pub fn reason(self) -> &'static str {
        match self {
            Missed::Deadline => "its starting deadline has passed",
            Missed::Running => "the run before is still at work",
            Missed::Blackout => "blackouts leave no time for it",
            Missed::Removed => "its schedule was removed",
        }
    }
}

/// One decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// A run starts.
    Started {
        /// Whose.
        job: JobId,
        /// Due time.
        due: TimeMs,
        /// Number of the attempt.
        attempt: u32,
    },
    /// The run of a later due time does the work of this one.
    Coalesced {
        /// Whose.
        job: JobId,
        /// Due time.
        due: TimeMs,
        /// The later one.
        into: TimeMs,
    },
    /// More due times had come than are looked at one by one, as when a clock had stood still for years: these were
    /// passed over, and the run of the one that follows does their work.
    PassedOver {
        /// Whose.
        job: JobId,
        /// The first of them.
        from: TimeMs,
        /// The one that follows the last of them.
        into: TimeMs,
    },
    /// A full run of the same sources does the work.
    GaveWay {
        /// Whose.
        job: JobId,
        /// Due time.
        due: TimeMs,
        /// The full one.
        to: JobId,
    },
    /// It does not start.
    Missed {
        /// Whose.
        job: JobId,
        /// Due time.
        due: TimeMs,
        /// Why.
        why: Missed,
    },
    /// A due run is late and is caught up.
    CatchUp {
        /// Whose.
        job: JobId,
        /// Due time.
        due: TimeMs,
        /// When.
        at: TimeMs,
    },
    /// A failed or interrupted run is tried again.
    Again {
        /// Whose.
        job: JobId,
        /// Due time.
        due: TimeMs,
        /// Number of the attempt.
        attempt: u32,
        /// When.
        at: TimeMs,
    },
    /// It failed and is not tried again.
    GaveUp {
        /// Whose.
        job: JobId,
        /// Due time.
        due: TimeMs,
        /// Attempts made.
        attempts: u32,
        /// Whether its last attempt was cut off: then it could not tell anybody, and no run that is due now will.
        cut_off: bool,
    },
    /// It is asked to stop for a newer one.
    Replaced {
        /// Whose.
        job: JobId,
        /// Due time.
        due: TimeMs,
    },
    /// The wall clock was moved by so many milliseconds.
    ClockStep(
        /// Forwards, or backwards if negative.
        i64,
    ),
    /// The clock had been far ahead: due times after this one are waited for again.
    TakenBack {
        /// Whose.
        job: JobId,
        /// The time now.
        to: TimeMs,
        /// A due time that had not started and is waited for again.
        pending: Option<TimeMs>,
    },
}

impl Note {
    /// The due time that this note decides once and for all, and whose it is.
    pub fn decided(&self) -> Option<(&JobId, TimeMs)> {
        match self {
            Note::Started { job, due, attempt: 1 }
            | Note::Coalesced { job, due, .. }
            | Note::GaveWay { job, due, .. }
            | Note::Missed { job, due, .. } => Some((job, *due)),
            _ => None,
        }
    }

    /// Whose it is and of which due time.
    pub fn about(&self) -> (Option<&JobId>, Option<TimeMs>) {
        match self {
            Note::Started { job, due, .. }
            | Note::Coalesced { job, due, .. }
            | Note::GaveWay { job, due, .. }
            | Note::Missed { job, due, .. }
            | Note::CatchUp { job, due, .. }
            | Note::Again { job, due, .. }
            | Note::GaveUp { job, due, .. }
            | Note::Replaced { job, due } => (Some(job), Some(*due)),
            Note::TakenBack { job, pending, .. } => (Some(job), *pending),
            Note::PassedOver { job, into, .. } => (Some(job), Some(*into)),
            Note::ClockStep(_) => (None, None),
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Note::Started { job, due, attempt: 1 } => write!(f, "{job}: starts, due {}", due.rfc3339()),
            Note::Started { job, due, attempt } => write!(f, "{job}: attempt {attempt}, due {}", due.rfc3339()),
            Note::Coalesced { job, due, into } => {
                write!(f, "{job}: due {}: done together with the run due {}", due.rfc3339(), into.rfc3339())
            }
            Note::PassedOver { job, from, into } => {
                let (from, into) = (from.rfc3339(), into.rfc3339());
                write!(f, "{job}: all that was due from {from} on: done together with the run due {into}")
            }
            Note::GaveWay { job, due, to } => write!(f, "{job}: due {}: gives way to {to}", due.rfc3339()),
            Note::Missed { job, due, why } => write!(f, "{job}: MISSED, due {}: {}", due.rfc3339(), why.reason()),
            Note::CatchUp { job, due, at } => {
                write!(f, "{job}: late, due {}: caught up at {}", due.rfc3339(), at.rfc3339())
            }
            Note::Again { job, due, attempt, at } => {
                write!(f, "{job}: due {}: attempt {attempt} at {}", due.rfc3339(), at.rfc3339())
            }
            Note::GaveUp { job, due, attempts, .. } => {
                write!(f, "{job}: GIVEN UP after {attempts} attempts, due {}", due.rfc3339())
            }
            Note::Replaced { job, due } => {
                write!(f, "{job}: the run due {} is stopped for a newer one", due.rfc3339())
            }
            Note::ClockStep(ms) => {
                let way = if *ms < 0 { "back" } else { "forwards" };
                write!(f, "the clock was moved {way} by {}", units::duration_ms(ms.unsigned_abs()))
            }
            Note::TakenBack { job, to, .. } => {
                write!(f, "{job}: the clock had been ahead; due times after {} are waited for again", to.rfc3339())
            }
        }
    }
}
