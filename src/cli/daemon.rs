//! `holdfast daemon`.

mod told;
mod watch;

use super::args::Daemon as Args;
use super::common::{Context, Signal};
use super::output::Outcome;
use crate::base::{Cancel, TimeMs, units};
use crate::daemon::alert::Told as AlertTold;
use crate::daemon::crew::{Crew, Done};
use crate::daemon::engine::{Engine, Event, Host, Standing};
use crate::daemon::notify::Notify;
use crate::daemon::round::{self, Missed};
use crate::daemon::run::{Open, SourceEnd, Surroundings};
use crate::daemon::seed::seeds;
use crate::daemon::state::StateDir;
use crate::daemon::{Job, JobId, Limits, Note, Reading, Start};
use crate::error::{Exit, Result};
use crate::ops::live::Over;
use crate::policy::{self, Configuration, Retries};
use crate::region::lock;
use crate::source::files::hostname;
use crossbeam_channel::{Receiver, unbounded};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use told::Told;
use watch::Watch;

/// Late runs start within this, by a share that follows from their policy's name.
const CATCH_UP_MS: i64 = 5 * 60_000;

/// The configuration in force.
type InForce = Mutex<Arc<Configuration>>;

pub fn run(context: &Context, args: &Args) -> Result<Outcome> {
    let stop_within_ms = policy::duration_ms(&args.stop_within)?;
    let state = context.state()?;
    let (mut watch, told) =
        (Watch::new(context.global.config.as_deref()), Told { json: context.global.json, env: context.env.clone() });
    let configuration = Arc::new(watch.taking(|| context.configuration()).0?);
    // Before the secret is asked for: a second daemon need not be told it.
    let held = StateDir::take(&state)?;
    let secret = context.secret()?;
    let open: &Open<'_> =
        &|repository, copies_min| context.open_at(&context.places_of(repository, copies_min), &secret);
    let (in_force, over) = (Mutex::new(configuration.clone()), Over { host: hostname(), before: context.env.now() });
    let retries_here = args.once;
    let work = |start: &Start, cancel: &Cancel, earlier: Vec<SourceEnd>| {
        let configuration = lock(&in_force).clone();
        let policy = configuration.policy(&start.job.policy)?;
        let repository = configuration.repository(Some(policy.repository().as_str()))?;
        let say = |text: &str| told.remark(Some(&start.job), text);
        let (env, workers) = (&context.env, context.workers());
        let around = Surroundings { open, say: &say, env, state: &state, cancel, workers, over: Some(&over) };
        let retries = if retries_here { policy.retries() } else { Retries { max: 0, ..policy.retries() } };
        // The scheduler's rule: a later attempt comes unless another run is due before it.
        let again = |exit: Exit| {
            let wait = policy.retries().wait_ms(start.attempt.saturating_add(1));
            let next = policy.calendar().next_due(start.job.kind, start.due);
            let before = next.is_none_or(|next| context.env.now().0.saturating_add(wait) < next.0);
            let worth = matches!(exit, Exit::Failed | Exit::NoRepository);
            !retries_here && worth && before && start.attempt <= policy.retries().max
        };
        round::run(&around, policy, repository, start.job.kind, (retries, earlier), &again)
    };
    let (done_to, done) = unbounded();
    let (signals_to, signals) = unbounded();
    context.forward_signals(signals_to)?;
    // One that came before was meant for this, too.
    context.cancel.check()?;
    let catch_up_ms = if args.once { 0 } else { CATCH_UP_MS };
    let limits = Limits { runs: args.runs, per_regions: args.runs_per_repository, catch_up_ms };
    let begin = Reading { wall: context.env.now(), steady: context.env.steady() };
    std::thread::scope(|scope| {
        let mut desk = Desk {
            context,
            in_force: &in_force,
            told: &told,
            watch,
            notify: Notify::from_env(),
            crew: Crew::new(scope, &work, done_to),
            telling: Cancel::new(),
            done,
            signals,
            frozen: args.once.then_some(begin),
            stop_within_ms,
            stop_at: None,
            broken: false,
            runs: 0,
            worst: Exit::Done,
        };
        let jobs = jobs(&configuration, args.once);
        let say = |text: &str| told.remark(None, text);
        let seed = |jobs: &[Job]| seeds(jobs, &configuration, begin.wall, open, &say);
        let mut engine = Engine::begin(held, jobs, seed, limits, &mut desk)?;
        desk.notify.ready();
        let turned = engine.run(&mut desk, args.once);
        // An error of the loop must not leave runs behind that nobody waits for.
        desk.crew.stop_all();
        turned.map(|()| desk.outcome(args.once))
    })
}

/// The jobs of all policies. A run that is started by hand has no jitter, and is tried again at once by itself.
fn jobs(configuration: &Configuration, once: bool) -> Vec<Job> {
    let mut jobs: Vec<Job> = configuration.policies().iter().flat_map(Job::of).collect();
    if once {
        for job in &mut jobs {
            Arc::make_mut(&mut job.calendar).jitter_ms = 0;
            job.retry.max = 0;
        }
    }
    jobs
}

/// Where the loop meets the world.
struct Desk<'a, 'scope, 'env> {
    context: &'a Context,
    in_force: &'a InForce,
    told: &'a Told,
    watch: Watch<'a>,
    notify: Notify,
    crew: Crew<'scope, 'env>,
    /// Raised when nobody is to be told any more.
    telling: Cancel,
    done: Receiver<Done>,
    signals: Receiver<Signal>,
    /// With `--once` no time passes: what becomes due meanwhile is the next one's.
    frozen: Option<Reading>,
    stop_within_ms: i64,
    /// When runs at work are stopped, by the steady clock; set by the first signal.
    stop_at: Option<i64>,
    broken: bool,
    runs: u64,
    worst: Exit,
}

impl Host for Desk<'_, '_, '_> {
    fn now(&mut self) -> Result<Reading> {
        let env = &self.context.env;
        Ok(self.frozen.unwrap_or_else(|| Reading { wall: env.now(), steady: env.steady() }))
    }

    fn start(&mut self, start: &Start) -> Result<()> {
        self.crew.start(start);
        Ok(())
    }

    fn stop(&mut self, job: &JobId) -> Result<()> {
        self.crew.stop(job);
        Ok(())
    }

    fn notes(&mut self, notes: &[Note]) -> Result<()> {
        self.told.notes(notes);
        self.missed(notes);
        Ok(())
    }

    fn trouble(&mut self, what: &str) -> Result<()> {
        self.told.remark(None, &format!("TROUBLE: {what}"));
        Ok(())
    }

    fn wait(&mut self, most_ms: i64, standing: &Standing) -> Result<Event> {
        let until = self.context.env.steady().saturating_add(most_ms);
        loop {
            let now = self.context.env.steady();
            let status = self.status(standing);
            self.notify.turn(now, status);
            if self.stop_at.is_some_and(|at| now >= at) {
                self.cut_off("the time for stopping is over");
            }
            if self.watches()
                && self.watch.changed(&self.context.env)
                && let Some(event) = self.reload()
            {
                return Ok(event);
            }
            if now >= until {
                return Ok(Event::Time);
            }
            let stop = self.stop_at.map_or(i64::MAX, |at| at - now);
            let look = if self.watches() { self.watch.wait_ms(&self.context.env) } else { i64::MAX };
            let wait = (until - now).min(look).min(stop).min(self.notify.wait_max_ms()).max(1);
            crossbeam_channel::select! {
                recv(self.done) -> done => if let Ok(done) = done { return Ok(self.ended(&done)) },
                recv(self.signals) -> signal => if let Some(event) = signal.ok().and_then(|s| self.signal(s)) { return Ok(event) },
                default(Duration::from_millis(wait.unsigned_abs())) => {}
            }
        }
    }
}

impl Desk<'_, '_, '_> {
    /// Whether another configuration would be taken: not with `--once`, and not on the way to the end.
    fn watches(&self) -> bool {
        self.frozen.is_none() && self.stop_at.is_none()
    }

    fn ended(&mut self, done: &Done) -> Event {
        self.crew.ended(done);
        self.told.done(done);
        self.runs += 1;
        let exit = done.exit();
        self.worst = if exit == Exit::Interrupted { exit } else { self.worst.worse(exit) };
        Event::Ended(done.start.job.clone(), exit)
    }

    fn signal(&mut self, signal: Signal) -> Option<Event> {
        match (signal, self.stop_at) {
            (Signal::Reload, None) if self.frozen.is_none() => self.reload(),
            (Signal::Reload, _) => None,
            (Signal::Stop, None) => {
                self.notify.stopping();
                let within = units::duration_ms(self.stop_within_ms.unsigned_abs());
                self.told.remark(None, &format!("stopping: runs at work may end within {within} (once more: at once)"));
                self.stop_at = Some(self.context.env.steady().saturating_add(self.stop_within_ms));
                Some(Event::Stop)
            }
            // Somebody wants it gone, and a run does not listen: what it stored is kept as after a crash.
            (Signal::Stop, Some(i64::MAX)) => std::process::exit(i32::from(Exit::Interrupted as u8)),
            (Signal::Stop, Some(_)) => {
                self.cut_off("a second signal");
                None
            }
        }
    }

    /// Tells who wants to know of runs that were left out, beside the loop.
    fn missed(&self, notes: &[Note]) {
        let mut all: BTreeMap<&JobId, Vec<&Note>> = BTreeMap::new();
        for note in notes {
            if let Note::Missed { job, .. } = note {
                all.entry(job).or_default().push(note);
            }
        }
        let configuration = lock(self.in_force).clone();
        for (job, notes) in all {
            let Ok(policy) = configuration.policy(&job.policy) else { continue };
            let due = notes.iter().filter_map(|note| note.about().1).max().unwrap_or(TimeMs(0));
            let lines = notes.iter().map(|note| note.to_string()).collect();
            let missed = Missed { policy: policy.clone(), kind: job.kind, lines, due };
            let (told, env, telling) = (self.told.clone(), self.context.env.clone(), self.telling.clone());
            let job = job.clone();
            self.crew.aside(move || {
                let done = round::missed(&missed, &env, &telling);
                done.iter().filter_map(AlertTold::failure).for_each(|what| told.remark(Some(&job), &what));
            });
        }
    }

    /// Stops all runs at work; what they stored is kept.
    fn cut_off(&mut self, why: &str) {
        self.telling.raise();
        self.stop_at = Some(i64::MAX);
        self.told.remark(None, &format!("{why}: runs at work are stopped; what they stored is kept"));
        self.crew.stop_all();
    }

    /// Takes another configuration, all of it or nothing.
    fn reload(&mut self) -> Option<Event> {
        self.notify.reloading();
        let (read, still) = self.watch.taking(|| self.context.configuration());
        let event = match read {
            Ok(configuration) => Some(self.take(configuration)),
            // Somebody is writing it: it is read again.
            Err(_) if !still => None,
            Err(e) => {
                self.broken = true;
                for e in std::iter::once(&e).chain(e.more()) {
                    self.told.remark(None, &format!("CONFIGURATION REFUSED, the last good one stays in force: {e}"));
                }
                None
            }
        };
        self.notify.ready();
        event
    }

    fn take(&mut self, configuration: Configuration) -> Event {
        self.broken = false;
        let names =
            |c: &Configuration| -> BTreeSet<String> { c.policies().iter().map(|p| p.name().to_string()).collect() };
        let configuration = Arc::new(configuration);
        let before = std::mem::replace(&mut *lock(self.in_force), configuration.clone());
        let (old, new) = (names(&before), names(&configuration));
        let gone: Vec<&str> = old.difference(&new).map(String::as_str).collect();
        self.told.remark(None, &format!("configuration read: {} policies", units::count(new.len() as u64)));
        if !gone.is_empty() {
            let first = gone.iter().take(10).copied().collect::<Vec<_>>().join(", ");
            let count = units::count(gone.len() as u64);
            let text = format!(
                "{count} policies are gone ({first}): their schedules stop, and none of their snapshots is forgotten"
            );
            self.told.remark(None, &text);
        }
        Event::Jobs(jobs(&configuration, false))
    }

    /// One line for the service manager.
    fn status(&self, standing: &Standing) -> String {
        let policies = lock(self.in_force).policies().len();
        let next = standing.next.map_or("nothing".into(), TimeMs::rfc3339);
        let broken = if self.broken { "; CONFIGURATION REFUSED, the last good one is in force" } else { "" };
        format!("{policies} policies; {} runs at work; next: {next}{broken}", standing.at_work)
    }

    fn outcome(&self, once: bool) -> Outcome {
        let exit = match (once, self.crew.was_stopped()) {
            (_, true) => Exit::Interrupted,
            (true, false) => self.worst,
            (false, false) => Exit::Done,
        };
        let policies = lock(self.in_force).policies().len();
        let text = match (self.runs, once) {
            (0, true) => "nothing was due".to_owned(),
            (runs, _) => format!("{} runs ended: {}", units::count(runs), exit.name()),
        };
        Outcome::new(exit, text, json!({"verb": "daemon", "once": once, "policies": policies, "runs": self.runs}))
    }
}
