//! When each job is to be looked at next, so that time that passes costs nothing for those that have nothing to do.

use super::job::{Job, JobId};
use crate::base::TimeMs;
use std::collections::{BTreeMap, BTreeSet};

/// Times by job and jobs by time.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    times: BTreeSet<(TimeMs, JobId)>,
    of: BTreeMap<JobId, TimeMs>,
    /// Jobs with a run that waits: they are looked at whenever something happens.
    waiting: BTreeSet<JobId>,
    /// The next due time of each job, and after which it is that: cron arithmetic is done once.
    next: BTreeMap<JobId, (TimeMs, Option<TimeMs>)>,
}

impl Agenda {
    /// The first due time of a job after another.
    pub(super) fn next_due(&mut self, job: &Job, after: TimeMs) -> Option<TimeMs> {
        if let Some((_, next)) = self.next.get(&job.id).filter(|(of, _)| *of == after) {
            return *next;
        }
        let next = job.next_after(after);
        self.next.insert(job.id.clone(), (after, next));
        next
    }

    /// A job is to be looked at then, and always when `waits`.
    pub(super) fn set(&mut self, id: &JobId, at: Option<TimeMs>, waits: bool) {
        if self.of.get(id).copied() != at {
            if let Some(old) = self.of.remove(id) {
                self.times.remove(&(old, id.clone()));
            }
            if let Some(at) = at {
                self.of.insert(id.clone(), at);
                self.times.insert((at, id.clone()));
            }
        }
        match waits {
            true => drop(self.waiting.insert(id.clone())),
            false => drop(self.waiting.remove(id)),
        }
    }

    /// Jobs whose time has come.
    pub(super) fn due(&self, now: TimeMs) -> Vec<JobId> {
        self.times.iter().take_while(|(at, _)| *at <= now).map(|(_, id)| id.clone()).collect()
    }

    /// Jobs with a run that waits.
    pub(super) fn waiting(&self) -> Vec<JobId> {
        self.waiting.iter().cloned().collect()
    }

    /// The first of all times.
    pub(super) fn first(&self) -> Option<TimeMs> {
        self.times.first().map(|(at, _)| *at)
    }
}
