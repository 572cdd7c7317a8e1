//! What is taken between backups: small runs by a period of seconds.
//!
//! Nothing of them is remembered, neither over a restart nor for later: one that cannot start at its time is left out,
//! for the next one takes what it would have taken. So there is nothing to store before they start, and nothing to say of
//! those that are left out.

use super::job::{Job, JobId};
use crate::base::TimeMs;
use crate::policy::share;
use std::collections::BTreeMap;

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Beats(BTreeMap<JobId, Beat>);

#[derive(Debug)]
struct Beat {
    job: Job,
    every_ms: i64,
    next: TimeMs,
}

impl Beat {
    /// The first time after another. Policies with the same period do not all begin at once.
    fn after(job: &Job, every_ms: i64, now: TimeMs) -> TimeMs {
        let phase = share(&[job.id.policy.as_bytes()], every_ms - 1);
        let passed = now.0.saturating_sub(phase).div_euclid(every_ms);
        TimeMs(passed.saturating_add(1).saturating_mul(every_ms).saturating_add(phase))
    }
}

impl Beats {
    /// These are the jobs now, each with its period. One whose period is what it was keeps its next time.
    pub(super) fn replace(&mut self, jobs: Vec<(Job, i64)>, now: TimeMs) {
        let old = std::mem::take(&mut self.0);
        for (job, every_ms) in jobs {
            let every_ms = every_ms.max(1);
            let kept = old.get(&job.id).filter(|beat| beat.every_ms == every_ms).map(|beat| beat.next);
            let next = kept.unwrap_or_else(|| Beat::after(&job, every_ms, now));
            self.0.insert(job.id.clone(), Beat { job, every_ms, next });
        }
    }

    /// Those whose time has come, with their times. Whether they start or not, each is due next at a later one.
    pub(super) fn due(&mut self, now: TimeMs) -> Vec<(Job, TimeMs)> {
        let mut found = Vec::new();
        for beat in self.0.values_mut() {
            let next = Beat::after(&beat.job, beat.every_ms, now);
            if beat.next <= now {
                // Of several that have passed, the last.
                found.push((beat.job.clone(), TimeMs(next.0.saturating_sub(beat.every_ms))));
            }
            // Also where the clock was set back: nobody waits for a time that is far ahead.
            beat.next = next;
        }
        found
    }

    /// The next time of any.
    pub(super) fn first(&self) -> Option<TimeMs> {
        self.0.values().map(|beat| beat.next).min()
    }
}
