//! `holdfast daemon`.

mod told;
mod watch;

use super::args::Daemon as Args;
use super::common::{Context, Signal};
use super::output::Outcome;
use crate::base::{Cancel, TimeMs, units};
use crate::daemon::alert::Told as AlertTold;
use crate::daemon::between;
use crate::daemon::crew::{Crew, Done};
use crate::daemon::engine::{Engine, Event, Host, Standing};
use crate::daemon::mend::Mender;
use crate::daemon::notify::Notify;
use crate::daemon::round::{self, Announcement, Telling, Undone};
use crate::daemon::run::{Open, Report, SourceEnd, Surroundings};
use crate::daemon::seed::seeds;
use crate::daemon::state::StateDir;
use crate::daemon::tally::Tally;
use crate::daemon::teller::Teller;
use crate::daemon::{Job, JobId, Limits, Note, Reading, Start};
use crate::error::{Exit, Result};
use crate::ops::live::Over;
use crate::policy::{self, BackupPolicy, Configuration, RegionSpec, Retries, Task};
use crate::region::lock;
use crate::repo::held::Held;
use crate::source::files::hostname;
use crossbeam_channel::{Receiver, unbounded};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use told::Told;
use watch::Watch;

/// Late runs start within this, by a share that follows from their policy's name.
const CATCH_UP_MS: i64 = 5 * 60_000;
/// How long those who tell may take to end once they are asked to.
const TELLING_ENDS_MS: i64 = 5_000;
/// How often it is looked whether all is told.
const LOOK_MS: i64 = 50;

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
    let secret = Held::new(context.secret()?);
    let open: &Open<'_> =
        &|repository, copies_min| context.open_held(&context.places_of(repository, copies_min), &secret);
    let (in_force, over) = (Mutex::new(configuration.clone()), Over { host: hostname(), before: context.env.now() });
    let alerts = Alerts { teller: Teller::new(), telling: Cancel::new(), told: told.clone() };
    let (in_force, state, alerts) = (&in_force, state.as_path(), &alerts);
    let work =
        Working { context, told: &told, open, state, in_force, over, alerts, tally: Tally::default(), once: args.once };
    let work = |start: &Start, cancel: &Cancel, earlier: Vec<SourceEnd>| work.run(start, cancel, earlier);
    let (done_to, done) = unbounded();
    let (signals_to, signals) = unbounded();
    context.forward_signals(signals_to)?;
    // One that came before was meant for this, too.
    context.cancel.check()?;
    let catch_up_ms = if args.once { 0 } else { CATCH_UP_MS };
    let limits = Limits { runs: args.runs, per_regions: args.runs_per_repository, catch_up_ms };
    let begin = Reading { wall: context.env.now(), steady: context.env.steady() };
    let mending = Mending::new((context, &told), open, state, in_force, &args.replicate_every)?;
    std::thread::scope(|scope| {
        mending.beside(scope, args.once);
        let mut desk = Desk {
            context,
            in_force,
            told: &told,
            watch,
            notify: Notify::from_env(),
            crew: Crew::new(scope, &work, done_to),
            alerts,
            state,
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
        mending.cancel.raise();
        desk.all_told(turned.is_err());
        turned.map(|()| desk.outcome(args.once))
    })
}

/// What runs need.
struct Working<'a> {
    context: &'a Context,
    told: &'a Told,
    open: &'a Open<'a>,
    state: &'a Path,
    in_force: &'a InForce,
    over: Over,
    alerts: &'a Alerts,
    tally: Tally,
    once: bool,
}

impl Working<'_> {
    /// Does a run, as the configuration wants it that is in force now.
    fn run(&self, start: &Start, cancel: &Cancel, earlier: Vec<SourceEnd>) -> Result<Report> {
        let configuration = lock(self.in_force).clone();
        let policy = configuration.policy(&start.job.policy)?;
        let repository = configuration.repository(Some(policy.repository().as_str()))?;
        let say = |text: &str| self.told.remark(Some(&start.job), text);
        let (env, workers, over) = (&self.context.env, self.context.workers(), Some(&self.over));
        let Working { open, state, .. } = *self;
        let around = Surroundings { open, say: &say, env, state, cancel, workers, over, tally: None };
        let aside = |announced: Announcement| self.alerts.tell(&start.job, announced);
        if start.job.kind == Task::Delta {
            return between::run(&around, policy, repository, &self.tally, &aside);
        }
        let retries = if self.once { policy.retries() } else { Retries { max: 0, ..policy.retries() } };
        let again = |exit: Exit| !self.once && comes_again(policy, start, exit, env.now());
        let telling = Telling { again: &again, aside: Some(&aside) };
        round::run(&around, policy, repository, start.job.kind, (retries, earlier), &telling)
    }
}

/// Brings up regions that are behind, beside the runs.
struct Mending<'a> {
    context: &'a Context,
    told: &'a Told,
    open: &'a Open<'a>,
    state: &'a Path,
    in_force: &'a InForce,
    every_ms: i64,
    cancel: Cancel,
}

impl<'a> Mending<'a> {
    fn new(
        (context, told): (&'a Context, &'a Told),
        open: &'a Open<'a>,
        state: &'a Path,
        in_force: &'a InForce,
        every: &str,
    ) -> Result<Mending<'a>> {
        let (every_ms, cancel) = (policy::duration_ms(every)?, Cancel::new());
        Ok(Mending { context, told, open, state, in_force, every_ms, cancel })
    }

    /// Until it is cancelled; not `once`, for a run does it itself.
    fn beside<'scope>(&'scope self, scope: &'scope std::thread::Scope<'scope, '_>, once: bool) {
        if !once {
            scope.spawn(|| {
                let say = |text: &str| self.told.remark(None, text);
                let (env, workers) = (&self.context.env, self.context.workers());
                let Mending { open, state, cancel, .. } = self;
                let around = Surroundings { open, say: &say, env, state, cancel, workers, over: None, tally: None };
                Mender::new(self.every_ms).run(&around, &|| lock(self.in_force).clone());
            });
        }
    }
}

/// Whether a further attempt follows one that ended so. The scheduler's rule: unless another run is due before it.
fn comes_again(policy: &BackupPolicy, start: &Start, exit: Exit, now: TimeMs) -> bool {
    let wait = policy.retries().wait_ms(start.attempt.saturating_add(1));
    let next = policy.calendar().next_due(start.job.kind, start.due);
    let before = next.is_none_or(|next| now.0.saturating_add(wait) < next.0);
    matches!(exit, Exit::Failed | Exit::NoRepository) && before && start.attempt <= policy.retries().max
}

/// The jobs of all policies. A run that is started by hand has no jitter, and is tried again at once by itself; there is
/// no time between backups.
fn jobs(configuration: &Configuration, once: bool) -> Vec<Job> {
    let mut jobs: Vec<Job> = configuration.policies().iter().flat_map(Job::of).collect();
    if once {
        jobs.retain(|job| job.every_ms.is_none());
        for job in &mut jobs {
            Arc::make_mut(&mut job.calendar).jitter_ms = 0;
            job.retry.max = 0;
        }
    }
    jobs
}

/// What a policy backs up, and where.
fn backs_up<'c>(configuration: &'c Configuration, policy: &str) -> Option<(&'c [policy::Source], &'c [RegionSpec])> {
    let policy = configuration.policy(policy).ok()?;
    let repository = configuration.repository(Some(policy.repository().as_str())).ok()?;
    Some((policy.sources(), repository.regions()))
}

/// Who is told of runs, beside them.
struct Alerts {
    teller: Teller,
    /// Raised when nobody is to be told any more.
    telling: Cancel,
    told: Told,
}

impl Alerts {
    fn tell(&self, job: &JobId, announced: Announcement) {
        let (telling, told, of) = (self.telling.clone(), self.told.clone(), job.clone());
        let errand = move || {
            if telling.raised() {
                return told.remark(Some(&of), "alerts were not sent: interrupted");
            }
            let done = announced.tell(&telling);
            done.iter().filter_map(AlertTold::failure).for_each(|what| told.remark(Some(&of), &what));
        };
        if let Err(why) = self.teller.tell(&job.policy, Box::new(errand)) {
            self.told.remark(Some(job), &format!("alerts were not sent: {why}"));
        }
    }
}

/// Where the loop meets the world.
struct Desk<'a, 'scope, 'env> {
    context: &'a Context,
    in_force: &'a InForce,
    told: &'a Told,
    watch: Watch<'a>,
    notify: Notify,
    crew: Crew<'scope, 'env>,
    alerts: &'a Alerts,
    state: &'a Path,
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
        self.undone(notes);
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

    /// Tells who wants to know of runs that were left out, or given up after they were cut off.
    fn undone(&self, notes: &[Note]) {
        let mut all: BTreeMap<(&JobId, &str), (policy::Event, Vec<&Note>)> = BTreeMap::new();
        for note in notes {
            let (job, event) = match note {
                Note::Missed { job, .. } => (job, policy::Event::Missed),
                Note::GaveUp { job, cut_off: true, .. } => (job, policy::Event::Failure),
                _ => continue,
            };
            all.entry((job, event.name())).or_insert((event, Vec::new())).1.push(note);
        }
        let configuration = lock(self.in_force).clone();
        for ((job, _), (event, notes)) in all {
            let Ok(policy) = configuration.policy(&job.policy) else { continue };
            let due = notes.iter().filter_map(|note| note.about().1).max().unwrap_or(TimeMs(0));
            let lines = notes.iter().map(|note| note.to_string()).collect();
            let undone = Undone { policy, kind: job.kind, event, lines, due };
            let say = |text: &str| self.told.remark(Some(job), text);
            if let Some(announced) = round::undone(undone, &self.context.env, self.state, &say) {
                self.alerts.tell(job, announced);
            }
        }
    }

    /// Waits until everything is told: as long as runs at work might have taken, or until somebody wants it to end. With
    /// `now` nobody is waited for.
    fn all_told(&mut self, now: bool) {
        if now {
            self.alerts.telling.raise();
        }
        let mut ends_at: Option<i64> = None;
        while !self.alerts.teller.idle() {
            let now = self.context.env.steady();
            self.notify.turn(now, "runs have ended; alerts are told".into());
            if self.stop_at.is_some_and(|at| now >= at) {
                self.alerts.telling.raise();
            }
            if self.alerts.telling.raised() && now > *ends_at.get_or_insert(now.saturating_add(TELLING_ENDS_MS)) {
                return;
            }
            match self.signals.recv_timeout(Duration::from_millis(LOOK_MS.unsigned_abs())) {
                Ok(Signal::Stop) if self.alerts.telling.raised() => return,
                Ok(Signal::Stop) => self.alerts.telling.raise(),
                Ok(Signal::Reload) | Err(_) => {}
            }
        }
    }

    /// Stops all runs at work; what they stored is kept.
    fn cut_off(&mut self, why: &str) {
        self.alerts.telling.raise();
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
        // What was protected as the old one said is not what the new one wants.
        self.crew.forget_earlier(|name| {
            backs_up(&before, name).is_some_and(|old| Some(old) == backs_up(&configuration, name))
        });
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
