//! The scheduler: a state machine without I/O, threads or a clock. It is told what the clocks show, how runs
//! ended and which jobs there are; it answers what to start, what to stop, and when to look again.
//!
//! Every due time of a job is handled exactly once: its run starts, or the run of a later due time does its work
//! (coalesced), or a full run of the same sources does (given way), or it is missed with a reason. What was decided is
//! in the [`Memory`] of the job, which must be stored before a run is started: after a crash the decisions that were
//! not stored are taken again, and a run that was at work is one that was interrupted, and tried again.
//!
//! Late runs: when the program was not there at a planned start, all due times since are caught up by one run. It
//! starts within [`Limits::catch_up_ms`], by a share that follows from the policy's name, so that not everything starts
//! at once.
//!
//! Clocks: due times and planned starts follow the wall clock; waits (for another attempt, for the share of a
//! late run) follow a clock that nobody sets and that goes on while the machine sleeps. A wall clock that is set
//! forwards passes due times, which are then late. One that is set back by at most [`BACK_MAX_MS`] repeats
//! nothing: due times that were handled stay handled. One that is set back further had been wrong: due times that
//! were handled and are in the future again become due again when they come.
//!
//! What is taken between backups has a period and no due times: it is in [`super::beat`], and none of this is about it.

use super::agenda::Agenda;
use super::beat::Beats;
use super::job::{Job, JobId};
use super::memory::{Again, Memory, Pending, Running};
use super::note::{Missed, Note};
use crate::base::TimeMs;
use crate::error::Exit;
use crate::policy::{Concurrency, Start as Begin, Task, share};
use std::collections::{BTreeMap, BTreeSet};

/// A run that starts so much later than planned is late.
pub const LATE_MS: i64 = 120_000;
/// How far the wall clock may be set back without repeating anything.
pub const BACK_MAX_MS: i64 = 3 * 3_600_000;
/// Differences between the clocks below this are no step.
pub const STEP_MS: i64 = 10_000;
/// Most due times of a job that are looked at one by one when time has passed; beyond, only the newest is. A clock that
/// stood at 1970 until the network was there would ask for half a million hourly ones.
const LOOKED_AT_MAX: usize = 1000;
/// Attempts that are made in any case when the program, not the run, ends too early.
const INTERRUPTED_MAX: u32 = 3;

/// What the clocks show, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// The wall clock.
    pub wall: TimeMs,
    /// A clock that nobody sets and that goes on while the machine sleeps.
    pub steady: i64,
}

/// How much may run at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// In all.
    pub runs: usize,
    /// Into one set of regions.
    pub per_regions: usize,
    /// Late runs start within so many milliseconds.
    pub catch_up_ms: i64,
}

/// A run to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// Whose.
    pub job: JobId,
    /// Its due time.
    pub due: TimeMs,
    /// Number of the attempt, from 1.
    pub attempt: u32,
}

/// What is to be done now. The memory is to be stored before any of it.
#[derive(Debug, Default)]
pub struct Plan {
    /// Runs to start.
    pub start: Vec<Start>,
    /// Runs to stop; their end is still to be told.
    pub stop: Vec<JobId>,
    /// When to tick at the latest, by the wall clock.
    pub wake: Option<TimeMs>,
    /// What was decided.
    pub notes: Vec<Note>,
}

/// The scheduler.
#[derive(Debug)]
pub struct Scheduler {
    jobs: BTreeMap<JobId, Job>,
    memory: BTreeMap<JobId, Memory>,
    /// Jobs of the runs at work, as they were when these started.
    active: BTreeMap<JobId, Job>,
    agenda: Agenda,
    beats: Beats,
    /// Full runs by what they read.
    fulls: BTreeMap<String, Vec<JobId>>,
    limits: Limits,
    last: Option<Reading>,
    changed: bool,
}

impl Scheduler {
    /// Starts with what was remembered. Of a job that is not in it, due times after `seeds` are asked for, or
    /// after now. Runs that were at work were interrupted.
    pub fn new(
        jobs: Vec<Job>,
        memory: BTreeMap<JobId, Memory>,
        seeds: &BTreeMap<JobId, TimeMs>,
        limits: Limits,
        now: Reading,
    ) -> (Scheduler, Vec<Note>) {
        let mut all = Scheduler {
            jobs: BTreeMap::new(),
            memory,
            active: BTreeMap::new(),
            agenda: Agenda::default(),
            beats: Beats::default(),
            fulls: BTreeMap::new(),
            limits,
            last: None,
            changed: true,
        };
        let mut notes = Vec::new();
        all.replace_jobs(jobs, seeds, now.wall, &mut notes);
        let ids: Vec<JobId> = all.jobs.keys().cloned().collect();
        for id in ids {
            let Some(run) = all.memory.get_mut(&id).and_then(|m| m.running.take()) else { continue };
            all.cut_off(&id, run, now.wall, &mut notes);
            all.touch(&id, now.wall);
        }
        (all, notes)
    }

    /// What must be remembered.
    pub fn memory(&self) -> &BTreeMap<JobId, Memory> {
        &self.memory
    }

    /// The jobs.
    pub fn jobs(&self) -> &BTreeMap<JobId, Job> {
        &self.jobs
    }

    /// How many runs are at work.
    pub fn at_work(&self) -> usize {
        self.active.len()
    }

    /// From now on nothing is started; what is due is remembered.
    pub fn start_nothing(&mut self) {
        self.limits.runs = 0;
    }

    /// Whether the memory is another than when this was last asked.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Reading) -> Plan {
        let mut plan = Plan::default();
        self.clock(now, &mut plan.notes);
        let due = self.agenda.due(now.wall);
        due.iter().for_each(|id| self.admit(id, now.wall, &mut plan.notes));
        let waiting = self.agenda.waiting();
        waiting.iter().for_each(|id| self.judge(id, now.wall, &mut plan));
        let wanted = self.start(&waiting, now.wall, &mut plan);
        due.iter().chain(&waiting).for_each(|id| self.touch(id, now.wall));
        self.between(now.wall, &wanted, &mut plan);
        plan.wake = self.agenda.first().into_iter().chain(self.beats.first()).min();
        plan
    }

    /// Starts what is to be taken between backups now, where nothing is in its way and nobody waits for its sources; there is
    /// a next time.
    fn between(&mut self, now: TimeMs, wanted: &BTreeSet<String>, plan: &mut Plan) {
        for (job, due) in self.beats.due(now) {
            let free = job.calendar.free_from(now) == now && wanted.is_disjoint(&job.sources);
            if free && self.has_room(&job) {
                plan.start.push(Start { job: job.id.clone(), due, attempt: 1 });
                self.active.insert(job.id.clone(), job);
            }
        }
    }

    /// The run of a job has ended.
    pub fn ended(&mut self, id: &JobId, exit: Exit, now: Reading) -> Plan {
        let mut notes = Vec::new();
        self.clock(now, &mut notes);
        let between = self.active.remove(id).is_some_and(|job| job.every_ms.is_some());
        if between {
            // Nothing of it is remembered.
            let plan = self.tick(now);
            return Plan { notes: [notes, plan.notes].concat(), ..plan };
        }
        self.changed = true;
        if let Some(run) = self.memory.get_mut(id).and_then(|m| m.running.take()) {
            if self.jobs.contains_key(id) {
                self.close(id, run, exit, now.wall, &mut notes);
            } else {
                self.memory.remove(id);
            }
        }
        self.touch(id, now.wall);
        let plan = self.tick(now);
        Plan { notes: [notes, plan.notes].concat(), ..plan }
    }

    /// There are other jobs now. What is due by the old ones is decided first.
    pub fn reload(&mut self, jobs: Vec<Job>, seeds: &BTreeMap<JobId, TimeMs>, now: Reading) -> Plan {
        let mut notes = Vec::new();
        self.clock(now, &mut notes);
        self.agenda.due(now.wall).iter().for_each(|id| self.admit(id, now.wall, &mut notes));
        self.replace_jobs(jobs, seeds, now.wall, &mut notes);
        let plan = self.tick(now);
        Plan { notes: [notes, plan.notes].concat(), ..plan }
    }

    fn replace_jobs(&mut self, jobs: Vec<Job>, seeds: &BTreeMap<JobId, TimeMs>, now: TimeMs, notes: &mut Vec<Note>) {
        let (beats, jobs): (Vec<Job>, Vec<Job>) = jobs.into_iter().partition(|job| job.every_ms.is_some());
        let beats = beats.into_iter().filter_map(|job| job.every_ms.map(|every_ms| (job, every_ms)));
        self.beats.replace(beats.collect(), now);
        self.jobs = jobs.into_iter().map(|job| (job.id.clone(), job)).collect();
        let (known, active) = (&self.jobs, &self.active);
        self.memory.retain(|id, memory| {
            if known.contains_key(id) {
                return true;
            }
            if let Some(pending) = memory.pending.take() {
                notes.push(Note::Missed { job: id.clone(), due: pending.due, why: Missed::Removed });
            }
            memory.again = None;
            active.contains_key(id)
        });
        for (id, job) in &self.jobs {
            let schedule = job.schedule();
            let from = seeds.get(id).copied().unwrap_or(now);
            let memory = self.memory.entry(id.clone()).or_insert_with(|| Memory::new(schedule.clone(), from));
            if memory.schedule != schedule {
                // What the new schedule would have asked for before it was known is nobody's wish.
                memory.handled = memory.handled.max(now);
                memory.schedule = schedule;
            }
        }
        self.changed = true;
        self.agenda = Agenda::default();
        self.fulls = BTreeMap::new();
        let ids: Vec<JobId> = self.jobs.keys().cloned().collect();
        for id in ids {
            self.touch(&id, now);
            let Some(job) = self.jobs.get(&id).filter(|_| id.kind == Task::Full) else { continue };
            job.sources.iter().for_each(|source| self.fulls.entry(source.clone()).or_default().push(id.clone()));
        }
    }

    /// Compares the clocks.
    fn clock(&mut self, now: Reading, notes: &mut Vec<Note>) {
        let moved = |last: Reading| (now.wall.0 - last.wall.0) - (now.steady - last.steady);
        let step = self.last.map_or(0, moved);
        let back = self.last.is_none_or(|last| now.wall < last.wall);
        self.last = Some(now);
        if step.abs() >= STEP_MS {
            notes.push(Note::ClockStep(step));
            self.changed = true;
            for memory in self.memory.values_mut() {
                memory.again.iter_mut().for_each(|again| again.at.0 += step);
                memory.pending.iter_mut().filter(|p| p.late).for_each(|p| p.start.0 += step);
            }
        }
        if back {
            self.take_back(now.wall, notes);
        }
        if back || step.abs() >= STEP_MS {
            let ids: Vec<JobId> = self.jobs.keys().cloned().collect();
            ids.iter().for_each(|id| self.touch(id, now.wall));
        }
    }

    /// A clock that had been far ahead is forgiven.
    fn take_back(&mut self, now: TimeMs, notes: &mut Vec<Note>) {
        for (id, memory) in &mut self.memory {
            if memory.handled.0 - now.0 <= BACK_MAX_MS {
                continue;
            }
            self.changed = true;
            memory.handled = now;
            let pending = memory.pending.take_if(|p| p.due > now).map(|p| p.due);
            memory.again.take_if(|again| again.due > now);
            notes.push(Note::TakenBack { job: id.clone(), to: now, pending });
        }
    }

    /// Looks at every due time that has come, once.
    fn admit(&mut self, id: &JobId, now: TimeMs, notes: &mut Vec<Note>) {
        let (Some(job), Some(memory)) = (self.jobs.get(id), self.memory.get_mut(id)) else { return };
        let (before, mut looked_at) = (memory.pending, 0);
        while let Some(due) = self.agenda.next_due(job, memory.handled).filter(|due| *due <= now) {
            self.changed = true;
            looked_at += 1;
            if looked_at > LOOKED_AT_MAX
                && let Some(newest) = job.last_due(now).filter(|newest| *newest > due)
            {
                notes.push(Note::PassedOver { job: id.clone(), from: due, into: newest });
                memory.handled = TimeMs(newest.0 - 1);
                continue;
            }
            memory.handled = due;
            if let Some(again) = memory.again.take() {
                memory.counts.failed += 1;
                let attempts = again.attempt.saturating_sub(1);
                notes.push(Note::GaveUp { job: id.clone(), due: again.due, attempts, cut_off: false });
            }
            let planned = match job.start(due) {
                Begin::At(at) => at,
                Begin::Missed(_) => {
                    memory.counts.missed_blackout += 1;
                    notes.push(Note::Missed { job: id.clone(), due, why: Missed::Blackout });
                    continue;
                }
            };
            if job.calendar.too_late(due, planned.max(now)) {
                memory.counts.missed_deadline += 1;
                notes.push(Note::Missed { job: id.clone(), due, why: Missed::Deadline });
                continue;
            }
            let mut next = Pending { due, start: planned, late: now.0 - planned.0 > LATE_MS };
            if next.late {
                let most = job.calendar.starting_deadline_ms().map_or(i64::MAX, |ms| due.0 + ms - now.0);
                next.start = TimeMs(now.0 + share(&[id.policy.as_bytes()], self.limits.catch_up_ms.min(most)));
            }
            if let Some(old) = memory.pending.replace(next) {
                memory.counts.coalesced += 1;
                notes.push(Note::Coalesced { job: id.clone(), due: old.due, into: due });
                // It keeps its turn: a schedule faster than its runs would never start otherwise.
                memory.pending = Some(Pending { start: next.start.min(old.start), ..next });
            }
        }
        if let Some(late) = memory.pending.filter(|p| p.late && before.is_none_or(|b| b.due != p.due)) {
            notes.push(Note::CatchUp { job: id.clone(), due: late.due, at: late.start });
        }
        self.touch(id, now);
    }

    /// Decides about a due run that has not started: too late, given way, or against the rule of its policy.
    fn judge(&mut self, id: &JobId, now: TimeMs, plan: &mut Plan) {
        let Some(job) = self.jobs.get(id) else { return };
        let Some(pending) = self.memory.get(id).and_then(|m| m.pending) else { return };
        let full = self.full_instead(job, pending, now);
        let Some(memory) = self.memory.get_mut(id) else { return };
        let (job_id, due, decided) = (id.clone(), pending.due, plan.notes.len());
        if let Some(to) = full {
            memory.pending = None;
            memory.counts.gave_way += 1;
            plan.notes.push(Note::GaveWay { job: job_id, due, to });
        } else if job.calendar.too_late(due, now) {
            memory.pending = None;
            memory.counts.missed_deadline += 1;
            plan.notes.push(Note::Missed { job: job_id, due, why: Missed::Deadline });
        } else if let Some(run) = memory.running.as_mut().filter(|_| pending.start <= now) {
            match job.concurrency {
                Concurrency::Forbid => {
                    memory.pending = None;
                    memory.counts.missed_running += 1;
                    plan.notes.push(Note::Missed { job: job_id, due, why: Missed::Running });
                }
                Concurrency::Replace if !run.replaced => {
                    run.replaced = true;
                    plan.notes.push(Note::Replaced { job: job_id, due: run.due });
                    plan.stop.push(id.clone());
                }
                Concurrency::Queue | Concurrency::Replace => {}
            }
        }
        self.changed |= plan.notes.len() > decided;
    }

    /// The full run that does the work of this one: it was due at the same time, is at work, or comes before the
    /// next due time.
    fn full_instead(&self, job: &Job, pending: Pending, now: TimeMs) -> Option<JobId> {
        let candidates = self.fulls.get(job.sources.first().filter(|_| job.id.kind == Task::Incremental)?)?;
        let next = job.next_after(pending.due);
        let does = |full: &&Job| {
            self.memory.get(&full.id).is_some_and(|m| {
                m.running.is_some()
                    || m.started == Some(pending.due)
                    || m.pending.is_some_and(|p| next.is_none_or(|next| p.start < next))
                    || m.again.is_some_and(|again| again.at <= now)
            })
        };
        let fulls = candidates.iter().filter_map(|id| self.jobs.get(id)).filter(|full| full.stands_for(job));
        fulls.into_iter().find(does).map(|full| full.id.clone())
    }

    /// Starts what may start, by priority, then full runs, then the longest wait. Returns the sources that others wait for.
    fn start(&mut self, waiting: &[JobId], now: TimeMs, plan: &mut Plan) -> BTreeSet<String> {
        let mut ready: Vec<(i32, bool, TimeMs, JobId)> = Vec::new();
        for (id, job) in waiting.iter().filter_map(|id| Some((id, self.jobs.get(id)?))) {
            let ripe = self.memory.get(id).and_then(|m| ripe(m, now));
            ready.extend(ripe.map(|since| (-job.priority, job.id.kind != Task::Full, since, id.clone())));
        }
        ready.sort();
        let mut waiting: BTreeSet<String> = BTreeSet::new();
        for (_, _, _, id) in ready {
            let Some(job) = self.jobs.get(&id).cloned() else { continue };
            if self.in_blackout(&job, now) {
                continue;
            }
            if !self.has_room(&job) || !waiting.is_disjoint(&job.sources) {
                // Later ones must not take its sources again and again.
                waiting.extend(job.sources.iter().cloned());
                continue;
            }
            self.begin(job, now, plan);
        }
        waiting
    }

    /// Moves a run that is ready within a blackout to its end.
    fn in_blackout(&mut self, job: &Job, now: TimeMs) -> bool {
        let until = job.calendar.free_from(now);
        if until == now {
            return false;
        }
        self.changed = true;
        if let Some(memory) = self.memory.get_mut(&job.id) {
            if let Some(pending) = &mut memory.pending {
                *pending = Pending { start: until, late: false, ..*pending };
            }
            memory.again.iter_mut().for_each(|again| again.at = until);
        }
        true
    }

    fn has_room(&self, job: &Job) -> bool {
        let same_regions = self.active.values().filter(|other| other.regions == job.regions).count();
        self.active.len() < self.limits.runs
            && same_regions < self.limits.per_regions
            && !self.active.contains_key(&job.id)
            && self.active.values().all(|other| other.sources.is_disjoint(&job.sources))
    }

    fn begin(&mut self, job: Job, now: TimeMs, plan: &mut Plan) {
        let id = job.id.clone();
        let Some(memory) = self.memory.get_mut(&id) else { return };
        let (due, attempt) = match (memory.pending.take(), memory.again.take()) {
            (Some(pending), _) => (pending.due, 1),
            (None, Some(again)) => (again.due, again.attempt),
            (None, None) => return,
        };
        self.changed = true;
        if attempt == 1 {
            memory.counts.started += 1;
            memory.started = Some(due);
        }
        memory.running = Some(Running { due, attempt, since: now, replaced: false });
        plan.notes.push(Note::Started { job: id.clone(), due, attempt });
        plan.start.push(Start { job: id.clone(), due, attempt });
        self.active.insert(id, job);
    }

    /// A run has ended by itself.
    fn close(&mut self, id: &JobId, run: Running, exit: Exit, now: TimeMs, notes: &mut Vec<Note>) {
        let (Some(job), Some(memory)) = (self.jobs.get(id), self.memory.get_mut(id)) else { return };
        match exit {
            Exit::Done | Exit::Partial | Exit::Behind => memory.counts.done += 1,
            Exit::Interrupted if !run.replaced => self.cut_off(id, run, now, notes),
            // What a second attempt may find different.
            Exit::Failed | Exit::NoRepository if run.attempt <= job.retry.max => {
                self.try_again(id, run, now, notes);
            }
            _ => {
                memory.counts.failed += 1;
                if !run.replaced {
                    notes.push(Note::GaveUp { job: id.clone(), due: run.due, attempts: run.attempt, cut_off: false });
                }
            }
        }
    }

    /// The program ended before the run did.
    fn cut_off(&mut self, id: &JobId, run: Running, now: TimeMs, notes: &mut Vec<Note>) {
        let Some(memory) = self.memory.get_mut(id) else { return };
        memory.counts.interrupted += 1;
        let more = self.jobs.get(id).is_some_and(|job| run.attempt <= job.retry.max.max(INTERRUPTED_MAX));
        if more {
            self.try_again(id, run, now, notes);
        } else {
            memory.counts.failed += 1;
            notes.push(Note::GaveUp { job: id.clone(), due: run.due, attempts: run.attempt, cut_off: true });
        }
    }

    /// Another attempt, unless a newer run comes before it.
    fn try_again(&mut self, id: &JobId, run: Running, now: TimeMs, notes: &mut Vec<Note>) {
        let (Some(job), Some(memory)) = (self.jobs.get(id), self.memory.get_mut(id)) else { return };
        let attempt = run.attempt + 1;
        let at = TimeMs(now.0 + job.retry.wait_ms(attempt));
        let next = job.next_after(memory.handled);
        if memory.pending.is_none() && next.is_none_or(|next| at < next) {
            memory.again = Some(Again { due: run.due, attempt, at });
            notes.push(Note::Again { job: id.clone(), due: run.due, attempt, at });
        } else {
            memory.counts.failed += 1;
            notes.push(Note::GaveUp { job: id.clone(), due: run.due, attempts: run.attempt, cut_off: false });
        }
    }

    /// Writes into the agenda when something may change for this job without anybody's doing.
    fn touch(&mut self, id: &JobId, now: TimeMs) {
        let (Some(job), Some(memory)) = (self.jobs.get(id), self.memory.get(id)) else {
            return self.agenda.set(id, None, false);
        };
        let deadline = job.calendar.starting_deadline_ms();
        let expires = |p: Pending| deadline.map(|ms| TimeMs(p.due.0.saturating_add(ms).saturating_add(1)));
        let pending = memory.pending.map(|p| p.start);
        let next = self.agenda.next_due(job, memory.handled);
        let times = [pending, memory.pending.and_then(expires), memory.again.map(|a| a.at)];
        // A due time that has passed is one that nobody has looked at.
        let at = times.into_iter().flatten().filter(|at| *at > now).chain(next).min();
        self.agenda.set(id, at, memory.pending.is_some() || memory.again.is_some());
    }
}

/// Since when a run of this job waits to start; `None` if none may.
fn ripe(memory: &Memory, now: TimeMs) -> Option<TimeMs> {
    let waits = memory.pending.map(|p| p.start).or(memory.again.map(|a| a.at));
    waits.filter(|at| *at <= now && memory.running.is_none())
}
