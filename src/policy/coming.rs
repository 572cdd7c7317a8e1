//! The coming runs of one policy, as the daemon starts them when nothing is in their way.
//!
//! What is due while an earlier due time of the same task still waits does its work too, in its place. An incremental
//! backup gives way to a full one that waits, if that starts before the next incremental is due. So an incremental
//! that is due at the same time as a full does not run, and after a blackout one run does what several would have.

use super::calendar::{Calendar, Start, Task};
use crate::base::TimeMs;

/// A run to come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coming {
    /// What is done.
    pub task: Task,
    /// When it is due.
    pub due: TimeMs,
    /// When it starts.
    pub start: Start,
    /// What is due before it starts, and gave way.
    pub instead_of: Vec<(Task, TimeMs)>,
}

impl Coming {
    /// When it starts, or would have been due.
    pub fn at(&self) -> TimeMs {
        match self.start {
            Start::At(at) => at,
            Start::Missed(_) => self.due,
        }
    }

    /// The first due time of all that it stands for.
    fn first_due(&self) -> TimeMs {
        self.instead_of.iter().map(|(_, due)| *due).fold(self.due, TimeMs::min)
    }
}

/// One task on its way through time.
struct Lane {
    task: Task,
    next: Option<TimeMs>,
    waits: Option<Coming>,
    started: Option<TimeMs>,
}

impl Lane {
    /// Takes what is due now.
    fn admit(&mut self, calendar: &Calendar, now: TimeMs, found: &mut Vec<Coming>) {
        let Some(due) = self.next.filter(|due| *due <= now) else { return };
        self.next = calendar.next_due(self.task, due);
        let mut run = Coming { task: self.task, due, start: calendar.start(self.task, due), instead_of: Vec::new() };
        if matches!(run.start, Start::Missed(_)) {
            return found.push(run);
        }
        if let Some(before) = self.waits.take() {
            // It keeps its turn.
            run.start = Start::At(run.at().min(before.at()));
            run.instead_of = before.instead_of;
            run.instead_of.push((self.task, before.due));
        }
        self.waits = Some(run);
    }
}

impl Calendar {
    /// What is due after `after` and not after `until`, at most `count` runs, by their start.
    pub fn coming(&self, after: TimeMs, until: TimeMs, count: usize) -> Vec<Coming> {
        let lane = |task| Lane { task, next: self.next_due(task, after), waits: None, started: None };
        let mut lanes = Task::ALL.map(lane);
        let mut found: Vec<Coming> = Vec::new();
        while found.len() < count {
            // What waits for a blackout's end is still joined by what is due later.
            let open = |lane: &Lane| {
                lane.waits.as_ref().is_some_and(|run| run.first_due() <= until)
                    || lane.next.is_some_and(|due| due <= until)
            };
            let times = |lane: &Lane| lane.waits.as_ref().map(Coming::at).into_iter().chain(lane.next).min();
            let Some(now) = lanes.iter().filter_map(times).min().filter(|_| lanes.iter().any(open)) else { break };
            lanes.iter_mut().for_each(|lane| lane.admit(self, now, &mut found));
            give_way(&mut lanes);
            for task in [Task::Full, Task::Incremental, Task::Verify, Task::Prune] {
                let lane = &mut lanes[task as usize];
                if let Some(run) = lane.waits.take_if(|run| run.at() <= now) {
                    lane.started = Some(run.due);
                    found.extend(Some(run).filter(|run| run.first_due() <= until));
                }
            }
        }
        found.truncate(count);
        found.sort_by_key(|run| (run.at(), run.task));
        found
    }
}

/// The incremental that waits gives way to a full.
fn give_way(lanes: &mut [Lane; 4]) {
    let [incremental, full, ..] = lanes;
    let next = incremental.next;
    let Some(run) = &incremental.waits else { return };
    let waits = full.waits.as_mut().filter(|full| next.is_none_or(|next| full.at() < next));
    if full.started != Some(run.due) && waits.is_none() {
        return;
    }
    let gone = incremental.waits.take().map(|run| (run.instead_of, (run.task, run.due)));
    if let (Some(full), Some((before, last))) = (waits, gone) {
        full.instead_of.extend(before);
        full.instead_of.push(last);
    }
}
