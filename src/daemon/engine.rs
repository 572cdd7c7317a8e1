//! The loop of the daemon: an event, a decision, the decision stored, and only then acted on. Everything else, the
//! clocks, the runs, who is told, is the host's.

use super::job::{Job, JobId};
use super::note::Note;
use super::schedule::{Limits, Plan, Reading, Scheduler, Start};
use super::state::{Found, StateDir};
use crate::base::TimeMs;
use crate::error::{Error, Exit, Result};
use std::collections::BTreeMap;

/// The loop looks at the clocks at least so often: one may be set, and the machine may sleep.
pub const LOOK_MS: i64 = 60_000;

/// What a host tells the loop.
#[derive(Debug)]
pub enum Event {
    /// Time has passed.
    Time,
    /// A run that was started is over.
    Ended(JobId, Exit),
    /// These are the jobs now.
    Jobs(Vec<Job>),
    /// Nothing is to be started any more; runs at work may end.
    Stop,
}

/// What a loop needs from the world. An error of any of these ends the loop where it stands, as a crash would.
pub trait Host {
    /// What the clocks show.
    ///
    /// # Errors
    /// The loop ends.
    fn now(&mut self) -> Result<Reading>;

    /// Starts a run; its end is an event.
    ///
    /// # Errors
    /// The loop ends.
    fn start(&mut self, start: &Start) -> Result<()>;

    /// Asks a run to stop; its end is an event.
    ///
    /// # Errors
    /// The loop ends.
    fn stop(&mut self, job: &JobId) -> Result<()>;

    /// Tells people what was decided; at least one decision.
    ///
    /// # Errors
    /// The loop ends.
    fn notes(&mut self, notes: &[Note]) -> Result<()>;

    /// Tells people that the memory could not be stored, or was not to be used.
    ///
    /// # Errors
    /// The loop ends.
    fn trouble(&mut self, what: &str) -> Result<()>;

    /// Waits for an event, at most so long, and at most [`LOOK_MS`].
    ///
    /// # Errors
    /// The loop ends.
    fn wait(&mut self, most_ms: i64, state: &Standing) -> Result<Event>;
}

/// How things stand while the loop waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Runs at work.
    pub at_work: usize,
    /// When the next thing is due.
    pub next: Option<TimeMs>,
}

/// The loop and all that it remembers.
#[derive(Debug)]
pub struct Engine {
    scheduler: Scheduler,
    state: StateDir,
    stopping: bool,
    unsaved: bool,
}

impl Engine {
    /// Takes up what the state folder remembers. Of a job that is not in it, due times after `seed` are asked for, or
    /// after now; `seed` is asked only if nothing is remembered of anything.
    ///
    /// # Errors
    /// The state folder cannot be read, or the host gave up.
    pub fn begin(
        state: StateDir,
        jobs: Vec<Job>,
        seed: impl FnOnce(&[Job]) -> BTreeMap<JobId, TimeMs>,
        limits: Limits,
        host: &mut dyn Host,
    ) -> Result<Engine> {
        let now = host.now()?;
        let (memory, seeds) = match state.load(now.wall)? {
            Found::Memory(memory) => (memory, BTreeMap::new()),
            Found::Nothing => (BTreeMap::new(), seed(&jobs)),
            Found::SetAside(path, why) => {
                host.trouble(&format!("the schedule's memory cannot be used ({why}); it is now {}", path.display()))?;
                (BTreeMap::new(), seed(&jobs))
            }
        };
        let (scheduler, notes) = Scheduler::new(jobs, memory, &seeds, limits, now);
        let mut engine = Engine { scheduler, state, stopping: false, unsaved: false };
        engine.act(Plan { notes, ..Plan::default() }, host)?;
        Ok(engine)
    }

    /// Turns until it is told to stop and no run is at work; with `once` until no run is at work.
    ///
    /// # Errors
    /// The host gave up.
    pub fn run(&mut self, host: &mut dyn Host, once: bool) -> Result<()> {
        let mut event = Event::Time;
        loop {
            let now = host.now()?;
            let plan = self.decide(event, now);
            let next = plan.wake;
            self.act(plan, host)?;
            let at_work = self.scheduler.at_work();
            if at_work == 0 && (once || self.stopping) {
                return Ok(());
            }
            let most = next.map_or(LOOK_MS, |at| at.0.saturating_sub(now.wall.0)).clamp(0, LOOK_MS);
            event = host.wait(most, &Standing { at_work, next })?;
        }
    }

    fn decide(&mut self, event: Event, now: Reading) -> Plan {
        match event {
            Event::Time => self.scheduler.tick(now),
            Event::Ended(id, exit) => self.scheduler.ended(&id, exit, now),
            Event::Jobs(jobs) => self.scheduler.reload(jobs, &BTreeMap::new(), now),
            Event::Stop => {
                self.stopping = true;
                self.scheduler.start_nothing();
                self.scheduler.tick(now)
            }
        }
    }

    /// What was decided is stored before any of it is done. A state folder that is full or gone stops no backup: a
    /// crash would then let runs be done again, and that is all.
    fn act(&mut self, plan: Plan, host: &mut dyn Host) -> Result<()> {
        if self.scheduler.take_changed() || self.unsaved {
            let saved: std::result::Result<(), Error> = self.state.save(self.scheduler.memory());
            let was = std::mem::replace(&mut self.unsaved, saved.is_err());
            match saved {
                Err(e) if !was => host.trouble(&format!("runs go on, but a restart would forget them: {e}"))?,
                Ok(()) if was => host.trouble("the state folder can be written again")?,
                _ => {}
            }
        }
        if !plan.notes.is_empty() {
            host.notes(&plan.notes)?;
        }
        plan.stop.iter().try_for_each(|job| host.stop(job))?;
        plan.start.iter().try_for_each(|start| host.start(start))
    }
}
