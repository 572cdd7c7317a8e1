//! Runs at work, each on a thread and with a flag of its own that stops it.

use super::job::JobId;
use super::run::{Fate, Report, SourceEnd};
use super::schedule::Start;
use crate::base::{Cancel, TimeMs, memory};
use crate::error::{Error, Exit, Kind, Result};
use crossbeam_channel::Sender;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::Scope;

/// A run that is over.
#[derive(Debug)]
pub struct Done {
    /// Which one it was.
    pub start: Start,
    /// How it ended.
    pub result: Result<Report>,
}

impl Done {
    /// Its exit code.
    pub fn exit(&self) -> Exit {
        self.result.as_ref().map_or_else(Error::exit, Report::exit)
    }
}

/// Does a run: which one, its flag, and how sources ended in attempts before this one.
pub type Work<'a> = dyn Fn(&Start, &Cancel, Vec<SourceEnd>) -> Result<Report> + Sync + 'a;

/// Everybody at work.
pub struct Crew<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    work: &'env Work<'env>,
    done: Sender<Done>,
    at_work: BTreeMap<JobId, Cancel>,
    /// How sources ended in an attempt of which some failed, and of which due time it was.
    earlier: BTreeMap<JobId, (TimeMs, Vec<SourceEnd>)>,
    stopped: bool,
}

impl<'scope, 'env> Crew<'scope, 'env> {
    /// Nobody yet. Ends are sent to `done`, and are to be shown to [`Crew::ended`].
    pub fn new(scope: &'scope Scope<'scope, 'env>, work: &'env Work<'env>, done: Sender<Done>) -> Self {
        Crew { scope, work, done, at_work: BTreeMap::new(), earlier: BTreeMap::new(), stopped: false }
    }

    /// Starts a run.
    pub fn start(&mut self, start: &Start) {
        let (cancel, work, done, start) = (Cancel::new(), self.work, self.done.clone(), start.clone());
        self.at_work.insert(start.job.clone(), cancel.clone());
        let earlier = self.earlier.remove(&start.job).filter(|(due, _)| *due == start.due && start.attempt > 1);
        let earlier = earlier.map(|(_, ends)| ends).unwrap_or_default();
        self.scope.spawn(move || {
            // Whatever becomes of it, its end is told: the source would never be backed up again otherwise.
            let result = catch_unwind(AssertUnwindSafe(|| work(&start, &cancel, earlier)))
                .unwrap_or_else(|_| Err(Error::new(Kind::Bug, "the run ended by a mistake of this program")));
            memory::trim();
            // Nobody listens only when the daemon itself is gone.
            let _ = done.send(Done { start, result });
        });
    }

    /// Does something beside the runs.
    pub fn aside(&self, act: impl FnOnce() + Send + 'scope) {
        self.scope.spawn(act);
    }

    /// Asks a run to stop.
    pub fn stop(&self, job: &JobId) {
        self.at_work.get(job).into_iter().for_each(Cancel::raise);
    }

    /// Asks all of them to stop.
    pub fn stop_all(&mut self) {
        self.stopped |= !self.at_work.is_empty();
        self.at_work.values().for_each(Cancel::raise);
    }

    /// Whether runs were at work when all were asked to stop.
    pub fn was_stopped(&self) -> bool {
        self.stopped
    }

    /// Takes note of an end.
    pub fn ended(&mut self, done: &Done) {
        self.at_work.remove(&done.start.job);
        if let Ok(report) = &done.result
            && report.count(Fate::Failed) > 0
        {
            self.earlier.insert(done.start.job.clone(), (done.start.due, report.sources.clone()));
        }
    }
}
