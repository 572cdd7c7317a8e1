//! A world for the scheduler: clocks that are moved by hand, runs that take their time and fail, and a program
//! that dies at any moment and has only what it stored.

use super::calendar;
use holdfast::base::TimeMs;
use holdfast::daemon::{Job, JobId, Limits, Memory, Missed, Note, Plan, Reading, Scheduler};
use holdfast::error::Exit;
use holdfast::policy::{Start, Task};
use std::collections::{BTreeMap, BTreeSet};

pub const MINUTE: i64 = 60_000;
pub const HOUR: i64 = 60 * MINUTE;
pub const DAY: i64 = 24 * HOUR;

/// SplitMix64 (Steele et al. 2014).
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, most: i64) -> i64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 1) as i64 % most
    }

    /// One in so many.
    pub fn one_in(&mut self, n: i64) -> bool {
        self.below(n) == 0
    }
}

/// What befalls the world: each `0` for never, else once in so many steps.
#[derive(Debug, Clone, Copy)]
pub struct Fate {
    pub crashes: i64,
    pub clock_steps: i64,
    /// How far the clock is moved at most.
    pub step_ms: i64,
    /// How long the program is away at most.
    pub away_ms: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum How {
    Started,
    Coalesced,
    GaveWay,
    Deadline,
    Running,
    Blackout,
}

pub struct World {
    pub jobs: Vec<Job>,
    limits: Limits,
    fate: Fate,
    dice: Dice,
    /// Time that passes, and what the wall clock is off by.
    steady: i64,
    off: i64,
    pub wall_max: i64,
    scheduler: Scheduler,
    wake: Option<TimeMs>,
    /// What was stored, as text.
    stored: String,
    stored_memory: BTreeMap<JobId, Memory>,
    /// Runs at work, and when they end.
    at_work: BTreeMap<JobId, i64>,
    pub decided: BTreeMap<(JobId, i64), Vec<How>>,
    pub crashes: u64,
    pub most_at_once: usize,
    begin: i64,
}

fn text_of(memory: &BTreeMap<JobId, Memory>) -> String {
    serde_json::to_string(&memory.iter().collect::<Vec<_>>()).unwrap()
}

impl World {
    pub fn new(jobs: Vec<Job>, limits: Limits, fate: Fate, seed: u64, begin: i64) -> World {
        let now = Reading { wall: TimeMs(begin), steady: 0 };
        let (scheduler, _) = Scheduler::new(jobs.clone(), BTreeMap::new(), &BTreeMap::new(), limits, now);
        let mut world = World {
            jobs,
            limits,
            fate,
            dice: Dice(seed),
            steady: 0,
            off: begin,
            wall_max: begin,
            stored: text_of(scheduler.memory()),
            stored_memory: scheduler.memory().clone(),
            scheduler,
            wake: None,
            at_work: BTreeMap::new(),
            decided: BTreeMap::new(),
            crashes: 0,
            most_at_once: 0,
            begin,
        };
        let plan = world.scheduler.tick(now);
        world.act(plan);
        world
    }

    fn reading(&self) -> Reading {
        Reading { wall: TimeMs(self.steady + self.off), steady: self.steady }
    }

    fn job(&self, id: &JobId) -> &Job {
        self.jobs.iter().find(|j| j.id == *id).unwrap()
    }

    /// Until the wall clock shows `end`.
    pub fn run_until(&mut self, end: i64) {
        while self.steady + self.off < end {
            self.step();
        }
        // Whatever happened last, the program is there at the end.
        let plan = self.scheduler.tick(self.reading());
        self.act(plan);
    }

    fn step(&mut self) {
        let ends = self.at_work.values().min().copied();
        let wakes = self.wake.map(|at| at.0 - self.off);
        // The program looks at least once an hour.
        let next = [ends, wakes, Some(self.steady + HOUR)].into_iter().flatten().min().unwrap();
        self.steady = self.steady.max(next);
        if self.fate.clock_steps > 0 && self.dice.one_in(self.fate.clock_steps) {
            // Somewhere around the true time, so that it never goes back by more than what is forgiven.
            self.off = self.begin + self.dice.below(2 * self.fate.step_ms) - self.fate.step_ms;
        }
        self.wall_max = self.wall_max.max(self.steady + self.off);
        let now = self.reading();
        let ended = self.at_work.iter().find(|(_, end)| **end <= self.steady).map(|(id, _)| id.clone());
        let plan = match ended {
            Some(id) => {
                self.at_work.remove(&id);
                let exit = match self.dice.below(10) {
                    0 | 1 => Exit::Failed,
                    2 => Exit::Partial,
                    3 => Exit::Refused,
                    _ => Exit::Done,
                };
                self.scheduler.ended(&id, exit, now)
            }
            None => self.scheduler.tick(now),
        };
        if self.fate.crashes > 0 && self.dice.one_in(self.fate.crashes) {
            // Nothing of this plan was stored; half of the time all of it was, and nothing was done.
            if self.dice.one_in(2) {
                self.store(&plan.notes);
            }
            return self.crash();
        }
        self.act(plan);
    }

    fn store(&mut self, notes: &[Note]) {
        self.stored = text_of(self.scheduler.memory());
        self.stored_memory = self.scheduler.memory().clone();
        for note in notes {
            self.note(note);
        }
    }

    fn note(&mut self, note: &Note) {
        let wall = self.steady + self.off;
        let Some((id, due)) = note.decided() else { return };
        let job = self.job(id).clone();
        let how = match note {
            Note::Started { .. } => How::Started,
            Note::Coalesced { into, .. } => {
                assert!(*into > due && *into <= TimeMs(wall), "{note}");
                How::Coalesced
            }
            Note::GaveWay { to, .. } => {
                let full = self.job(to);
                assert!(full.id.kind == Task::Full && job.id.kind == Task::Incremental, "{note}");
                assert!(job.sources.is_subset(&full.sources) && job.regions == full.regions, "{note}");
                How::GaveWay
            }
            Note::Missed { why: Missed::Deadline, .. } => {
                let Start::At(planned) = job.start(due) else { panic!("{note}") };
                let deadline = job.calendar.starting_deadline_ms().expect("a deadline");
                assert!(wall.max(planned.0) > due.0 + deadline, "{note}");
                How::Deadline
            }
            Note::Missed { why: Missed::Running, .. } => How::Running,
            Note::Missed { why: Missed::Blackout, .. } => How::Blackout,
            other => panic!("{other}"),
        };
        self.decided.entry((id.clone(), due.0)).or_default().push(how);
    }

    fn act(&mut self, plan: Plan) {
        self.store(&plan.notes);
        self.wake = plan.wake;
        let wall = self.steady + self.off;
        assert!(plan.wake.is_none_or(|at| at.0 > wall), "it would never sleep");
        for id in plan.stop {
            // It takes a moment to stop.
            self.at_work.insert(id, self.steady + 5000);
        }
        for start in plan.start {
            let job = self.job(&start.job).clone();
            if self.fate.clock_steps == 0 {
                assert!(start.due.0 <= wall, "{start:?} before it is due");
            }
            assert_eq!(job.calendar.free_from(TimeMs(wall)), TimeMs(wall), "{start:?} in a blackout");
            for other in self.at_work.keys() {
                assert!(self.job(other).sources.is_disjoint(&job.sources), "{start:?} overlaps with {other}");
            }
            let long = if self.dice.one_in(40) { 30 * HOUR } else { 40 * MINUTE };
            let end = self.steady + 1 + self.dice.below(long);
            assert!(self.at_work.insert(start.job, end).is_none(), "it runs twice");
        }
        self.most_at_once = self.most_at_once.max(self.at_work.len());
        assert!(self.at_work.len() <= self.limits.runs);
        let mut regions: BTreeMap<String, usize> = BTreeMap::new();
        self.at_work.keys().for_each(|id| *regions.entry(self.job(id).regions.clone()).or_default() += 1);
        assert!(regions.values().all(|n| *n <= self.limits.per_regions));
    }

    fn crash(&mut self) {
        self.crashes += 1;
        self.at_work.clear();
        let short = self.dice.one_in(2);
        self.steady += self.dice.below(if short { MINUTE } else { self.fate.away_ms });
        let stored: Vec<(JobId, Memory)> = serde_json::from_str(&self.stored).unwrap();
        let memory: BTreeMap<JobId, Memory> = stored.into_iter().collect();
        assert_eq!(memory, self.stored_memory, "what is stored is what was meant");
        // The machine may have been started anew: the steady clock says nothing about before.
        let now = self.reading();
        self.wall_max = self.wall_max.max(now.wall.0);
        let (scheduler, notes) = Scheduler::new(self.jobs.clone(), memory, &BTreeMap::new(), self.limits, now);
        self.scheduler = scheduler;
        self.wake = Some(TimeMs(now.wall.0 + 1));
        self.store(&notes);
    }

    /// Every due time was handled exactly once, none was made up, and the books agree.
    pub fn check(&self) -> BTreeMap<How, u64> {
        let mut totals: BTreeMap<How, u64> = BTreeMap::new();
        let mut wanted: BTreeSet<(JobId, i64)> = BTreeSet::new();
        for job in &self.jobs {
            let memory = &self.stored_memory[&job.id];
            let cron = job.calendar.cron(job.id.kind).unwrap().text();
            let dues = calendar::dues(cron, job.calendar.zone(), self.begin, memory.handled.0);
            let pending = memory.pending.map(|p| p.due.0);
            for due in &dues {
                let how = self.decided.get(&(job.id.clone(), *due)).cloned().unwrap_or_default();
                let wanted = usize::from(pending != Some(*due));
                assert_eq!(how.len(), wanted, "{} due {}: {how:?}", job.id, TimeMs(*due).rfc3339());
                how.into_iter().for_each(|how| *totals.entry(how).or_default() += 1);
            }
            let open = memory.counts.handled() + u64::from(pending.is_some());
            assert_eq!(open, dues.len() as u64, "the books of {}: {memory:?}", job.id);
            let last = calendar::dues(cron, job.calendar.zone(), memory.handled.0, self.steady + self.off);
            assert!(last.is_empty(), "{}: not looked at: {last:?}", job.id);
            wanted.extend(dues.into_iter().map(|due| (job.id.clone(), due)));
        }
        let made_up: Vec<_> = self.decided.keys().filter(|key| !wanted.contains(key)).collect();
        assert!(made_up.is_empty(), "{made_up:?}");
        totals
    }
}
