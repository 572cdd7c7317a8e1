//! A job: one policy's runs of one kind, and when each of them may start.

use crate::base::TimeMs;
use crate::policy::{Cron, Zone};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;

/// How far a blackout, or several in a row, may move a run; one that would move further is missed.
pub const BLACKOUT_MOVE_MAX_MS: i64 = 14 * 24 * 3_600_000;

/// What a run does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunKind {
    /// Reads what changed.
    Incremental,
    /// Reads everything.
    Full,
    /// Checks what is stored.
    Verify,
}

impl RunKind {
    /// Its name in options, logs and files.
    pub fn name(self) -> &'static str {
        match self {
            RunKind::Incremental => "incremental",
            RunKind::Full => "full",
            RunKind::Verify => "verify",
        }
    }
}

/// Which job: there is one for each policy and kind.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct JobId {
    /// Name of the policy.
    pub policy: String,
    /// What its runs do.
    pub kind: RunKind,
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.policy, self.kind.name())
    }
}

/// What happens when a run is due while the one before of the same job is still at work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Concurrency {
    /// The new one is missed.
    Forbid,
    /// The new one waits.
    Queue,
    /// The old one is stopped, and the new one starts when it has ended.
    Replace,
}

/// How often and when a failed run is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// Further attempts after the first.
    pub count: u32,
    /// Wait before the second attempt; doubled before each further one.
    pub backoff_ms: i64,
    /// Longest wait.
    pub backoff_max_ms: i64,
}

impl Retry {
    /// The wait before attempt `attempt` (2 is the first that waits).
    pub fn wait_ms(&self, attempt: u32) -> i64 {
        let doublings = attempt.saturating_sub(2).min(62);
        self.backoff_ms.saturating_mul(1i64.checked_shl(doublings).unwrap_or(i64::MAX)).min(self.backoff_max_ms).max(0)
    }
}

/// A time in which nothing of a job starts: it begins by a schedule and has a length.
#[derive(Debug, Clone, PartialEq)]
pub struct Blackout {
    /// When it begins.
    pub begin: Cron,
    /// Zone of the schedule.
    pub zone: Zone,
    /// How long it lasts.
    pub length_ms: i64,
}

impl Blackout {
    /// Its end, if `at` lies in it.
    fn end(&self, at: TimeMs) -> Option<TimeMs> {
        let begin = self.begin.next_after(self.zone, TimeMs(at.0.saturating_sub(self.length_ms)))?;
        (begin <= at).then_some(TimeMs(begin.0 + self.length_ms))
    }
}

/// When and how runs of one policy and kind are started.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// Which one.
    pub id: JobId,
    /// When a run is due.
    pub cron: Cron,
    /// In which zone.
    pub zone: Zone,
    /// Each start is moved by a part of this that follows from policy and due time. It never reaches the next
    /// due time.
    pub jitter_ms: i64,
    /// When nothing starts.
    pub blackouts: Vec<Blackout>,
    /// How much later than due a run may start; what cannot is missed.
    pub deadline_ms: Option<i64>,
    /// Rule for a run that is due while the one before is at work.
    pub concurrency: Concurrency,
    /// Rule for failed runs.
    pub retry: Retry,
    /// Higher ones start first.
    pub priority: i32,
    /// What it reads. Runs that share a source never overlap.
    pub sources: BTreeSet<String>,
    /// Where it writes: a name for the set of regions.
    pub regions: String,
}

impl Job {
    /// The schedule as text: when it changes, what was due by the old one is no longer asked for.
    pub fn schedule(&self) -> String {
        format!("{} {}", self.cron.text(), self.zone.name())
    }

    /// The first due time after another.
    pub fn next_after(&self, after: TimeMs) -> Option<TimeMs> {
        self.cron.next_after(self.zone, after)
    }

    /// When the run that is due at `due` is to start: after its jitter and outside of blackouts. `None` if
    /// blackouts leave no time.
    pub fn planned(&self, due: TimeMs) -> Option<TimeMs> {
        let moved = self.free_from(TimeMs(due.0.saturating_add(self.jitter(due))));
        // Jitter moves a run, it does not make it late.
        moved.filter(|at| !self.too_late(due, *at)).or_else(|| self.free_from(due))
    }

    /// Whether a start at `at` is too late for what is due at `due`.
    pub fn too_late(&self, due: TimeMs, at: TimeMs) -> bool {
        self.deadline_ms.is_some_and(|ms| at.0 > due.0.saturating_add(ms))
    }

    /// The first time from `at` on that is in no blackout.
    pub fn free_from(&self, at: TimeMs) -> Option<TimeMs> {
        let mut free = at;
        while let Some(end) = self.blackouts.iter().filter_map(|b| b.end(free)).max() {
            free = end;
            if free.0 - at.0 > BLACKOUT_MOVE_MAX_MS {
                return None;
            }
        }
        Some(free)
    }

    fn jitter(&self, due: TimeMs) -> i64 {
        if self.jitter_ms <= 0 {
            return 0;
        }
        let gap = self.next_after(due).map_or(i64::MAX, |next| next.0 - due.0);
        share(&[self.id.policy.as_bytes(), &due.0.to_le_bytes()], self.jitter_ms.min(gap - 1))
    }

    /// Whether a run of this job makes one of `other` needless: it reads all of the other's sources completely
    /// into the same regions.
    pub fn stands_for(&self, other: &Job) -> bool {
        self.id.kind == RunKind::Full
            && other.id.kind == RunKind::Incremental
            && self.regions == other.regions
            && other.sources.is_subset(&self.sources)
    }
}

/// A number from 0 to `most` that follows from `parts`.
pub fn share(parts: &[&[u8]], most: i64) -> i64 {
    let mut hash = blake3::Hasher::new();
    for part in parts {
        hash.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    let mut first = [0; 8];
    hash.finalize_xof().fill(&mut first);
    // 63 bits, so that it fits; the bias is far below a millisecond.
    (u64::from_le_bytes(first) >> 1) as i64 % most.max(0).saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_their_limit() {
        let retry = Retry { count: 9, backoff_ms: 1000, backoff_max_ms: 6000 };
        let waits: Vec<i64> = (2..7).map(|attempt| retry.wait_ms(attempt)).collect();
        assert_eq!(waits, [1000, 2000, 4000, 6000, 6000]);
        assert_eq!(retry.wait_ms(u32::MAX), 6000);
    }

    #[test]
    fn shares_are_in_range_and_differ() {
        let all: BTreeSet<i64> = (0..1000i64).map(|n| share(&[b"policy", &n.to_le_bytes()], 299_999)).collect();
        assert!(all.len() > 990 && all.iter().all(|n| (0..300_000).contains(n)));
        assert_eq!(share(&[b"x"], 0), 0);
        assert_eq!(share(&[b"x"], -5), 0);
        assert!(share(&[b"x"], i64::MAX) >= 0);
    }
}
