//! A daemon through a simulated year: four policies, real repositories in two regions, changes of the clocks, and
//! twenty deaths. Only the clock is made up; what decides, stores, runs and forgets is the program.

mod rules;
mod sim;

use crate::harness::Bench;
use crate::scheduler::calendar::dues;
use chrono_tz::Tz;
use holdfast::base::{Cancel, Env, SessionId, TimeMs};
use holdfast::daemon::engine::{Engine, Event, Host, Standing};
use holdfast::daemon::run::{self, SourceEnd, Surroundings};
use holdfast::daemon::state::StateDir;
use holdfast::daemon::{Job, JobId, Limits, Note, Reading, Start};
use holdfast::error::{Error, Exit, Kind, Result};
use holdfast::ops::live::Over;
use holdfast::policy::{self, Configuration, Repository, Retries, Task, Text};
use holdfast::region::Address;
use holdfast::repo::Repo;
use holdfast::repo::open::{Opening, open};
use holdfast::repo::view::View;
use holdfast::source::files::hostname;
use holdfast::unlock::Unlock;
use rules::{Rules, Snap};
use sim::Sim;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
/// 2031-01-01T00:00:00Z: later than any machine that runs this.
const BEGIN: i64 = 1_924_992_000_000;
const LIMITS: Limits = Limits { runs: 2, per_regions: 1, catch_up_ms: 5 * MINUTE };

/// A policy as the test knows it.
struct Wanted {
    name: &'static str,
    repository: usize,
    zone: Tz,
    crons: [Option<&'static str>; 3],
    rules: Rules,
    yaml: &'static str,
}

/// 02:30 comes twice or not at all where clocks change; so does 01:30 in New York in autumn.
fn wanted() -> [Wanted; 4] {
    let none = Rules::default();
    [
        Wanted {
            name: "berlin",
            repository: 0,
            zone: chrono_tz::Europe::Berlin,
            crons: [Some("30 2 * * *"), Some("30 2 * * 0"), Some("0 5 1 * *")],
            rules: Rules { daily: 7, weekly: 5, monthly: 12, ..none },
            yaml: "timeZone: Europe/Berlin, incremental: 30 2 * * *, full: 30 2 * * 0}\n  \
                   retention: {daily: 7, weekly: 5, monthly: 12}\n  verify: {schedule: 0 5 1 * *}\n",
        },
        Wanted {
            name: "new-york",
            repository: 0,
            zone: chrono_tz::America::New_York,
            crons: [Some("30 1 * * 2,4"), Some("30 2 * * 0"), None],
            rules: Rules { last: 3, daily: 14, ..none },
            yaml: "timeZone: America/New_York, incremental: '30 1 * * 2,4', full: 30 2 * * 0, jitter: 20m}\n  \
                   retention: {last: 3, daily: 14}\n",
        },
        Wanted {
            name: "twice",
            repository: 1,
            zone: chrono_tz::America::New_York,
            crons: [Some("30 1,13 * * 0,3"), None, Some("0 8 * * 6")],
            rules: Rules { within_ms: 10 * DAY, weekly: 4, ..none },
            yaml: "timeZone: America/New_York, incremental: '30 1,13 * * 0,3'}\n  \
                   retention: {within: 10d, weekly: 4}\n  verify: {schedule: 0 8 * * 6, level: content}\n",
        },
        Wanted {
            name: "weekly",
            repository: 1,
            zone: Tz::UTC,
            crons: [None, Some("0 0 * * 0"), None],
            rules: Rules { last: 2, monthly: 6, ..none },
            yaml: "full: '@weekly', blackouts: [{start: 30 23 * * 6, duration: 2h}]}\n  \
                   retention: {last: 2, monthly: 6}\n",
        },
    ]
}

/// Where the daemon dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// Before it looks at the clock.
    Clock,
    /// What it decided is stored, and nothing is done.
    Decided,
    /// Before a run of this kind begins.
    Before(Task),
    /// A run of this kind has drawn so many of a hundred of its random numbers: each object that is sealed needs some.
    In(Task, i64),
    /// A run of this kind is over, and nobody was told.
    After(Task),
    /// The end of a run was told, and is not stored.
    Told,
    /// While it waits for an attempt after one that failed.
    Retrying,
    /// While it waits.
    Waiting,
}

/// Day of the year, where, and how long it is away.
const DEATHS: [(i64, At, i64); 20] = {
    use Task::{Full, Incremental, Verify};
    [
        (10, At::Clock, MINUTE),
        (24, At::Decided, 3 * MINUTE),
        (39, At::Before(Incremental), MINUTE),
        (55, At::Before(Full), 20 * MINUTE),
        (67, At::In(Incremental, 0), MINUTE),
        (87, At::In(Incremental, 25), 5 * MINUTE),
        (100, At::In(Incremental, 50), MINUTE),
        (115, At::In(Incremental, 75), MINUTE),
        (133, At::In(Incremental, 95), 30 * MINUTE),
        (140, At::In(Full, 20), MINUTE),
        (160, At::In(Full, 60), MINUTE),
        (178, At::In(Full, 90), 2 * HOUR),
        (190, At::In(Verify, 50), MINUTE),
        (205, At::After(Incremental), MINUTE),
        (222, At::After(Full), MINUTE),
        (240, At::After(Verify), MINUTE),
        (258, At::Told, MINUTE),
        (272, At::Retrying, 2 * MINUTE),
        (298, At::Waiting, MINUTE),
        (305, At::Waiting, 3 * DAY),
    ]
};

/// The day on which a source is away for a while.
const AWAY_DAY: i64 = 272;

/// An attempt of a run.
#[derive(Debug, Clone)]
struct Attempt {
    due: i64,
    number: u32,
    wall: i64,
    /// How it ended; `None`: the daemon died before it was told.
    exit: Option<Exit>,
}

struct Year {
    benches: [Bench; 2],
    state: PathBuf,
    sim: Arc<Sim>,
    env: Env,
    runtime: tokio::runtime::Runtime,
    configuration: Configuration,
    policies: [Wanted; 4],
    end: i64,
    deaths: Vec<(i64, At, i64)>,
    died: Vec<At>,
    /// From when to when no daemon was there.
    gone: Vec<(i64, i64)>,
    at_work: Vec<(i64, JobId, Exit)>,
    /// Random numbers that the last run of each kind drew, and runs that were cut off in their middle.
    draws: BTreeMap<Task, i64>,
    cut: usize,
    attempts: BTreeMap<JobId, Vec<Attempt>>,
    notes: BTreeMap<(JobId, i64), Vec<&'static str>>,
    /// Snapshots that are there, by policy, and ids that were never snapshots.
    kept: BTreeMap<&'static str, Vec<Snap>>,
    ended: BTreeSet<SessionId>,
    made: usize,
    checked_days: i64,
    /// Whose end was just told.
    told: Option<JobId>,
}

fn dead() -> Error {
    Error::new(Kind::Bug, "the daemon died")
}

fn yaml(benches: &[Bench; 2], policies: &[Wanted; 4]) -> String {
    let head = |kind: &str, name: &str| {
        format!("---\napiVersion: holdfast.io/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec:\n")
    };
    let mut text = String::new();
    for (n, bench) in benches.iter().enumerate() {
        let url = |name| bench.region(name).display().to_string();
        text += &head("Repository", ["main", "other"][n]);
        text += &format!("  regions: [{{name: a, url: {}}}, {{name: b, url: {}}}]\n", url("a"), url("b"));
    }
    for policy in policies {
        let path = benches[policy.repository].path(policy.name);
        text += &head("BackupPolicy", policy.name);
        text += &format!("  repository: {}\n", ["main", "other"][policy.repository]);
        text += &format!("  sources: [{{paths: [{}]}}]\n  schedule: {{{}", path.display(), policy.yaml);
    }
    text
}

impl Year {
    fn new(days: i64) -> Year {
        let benches = [Bench::with_key(&["a", "b"]), Bench::with_key(&["a", "b"])];
        let policies = wanted();
        for policy in &policies {
            let dir = benches[policy.repository].path(policy.name);
            std::fs::create_dir(&dir).unwrap();
            (0..3).for_each(|n| std::fs::write(dir.join(format!("still-{n}")), format!("{n}")).unwrap());
        }
        let text = yaml(&benches, &policies);
        let configuration = policy::load(&[Text { name: "year.yaml", text: &text }]).unwrap();
        let regions: Vec<PathBuf> = benches.iter().flat_map(|b| [b.region("a"), b.region("b")]).collect();
        let sim = Arc::new(Sim::new(BEGIN, &regions));
        Year {
            state: benches[0].path("daemon"),
            env: Env::custom(sim.clone()),
            benches,
            sim,
            runtime: tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap(),
            configuration,
            policies,
            end: BEGIN + days * DAY,
            deaths: DEATHS.iter().rev().copied().filter(|(day, ..)| *day < days).collect(),
            died: Vec::new(),
            gone: Vec::new(),
            at_work: Vec::new(),
            draws: BTreeMap::new(),
            cut: 0,
            attempts: BTreeMap::new(),
            notes: BTreeMap::new(),
            kept: BTreeMap::new(),
            ended: BTreeSet::new(),
            made: 0,
            checked_days: 0,
            told: None,
        }
    }

    fn open(&self, which: usize) -> Result<Arc<Repo>> {
        let address = |name: &str| Address { name: name.into(), place: self.benches[which].region(name).into() };
        let addresses = [address("a"), address("b")];
        let (env, handle) = (&self.env, self.runtime.handle());
        let key: [u8; 32] = std::fs::read(self.benches[which].path("key")).unwrap().try_into().unwrap();
        let opening = Opening { addresses: &addresses, copies_min: 2, pin: None, state: None, env, handle };
        let mut repo = open(&opening, &Unlock::KeyFile(key.into()))?;
        repo.keep_index_in(&self.state);
        Ok(Arc::new(repo))
    }

    /// The daemon's whole life: from one death to the next.
    fn live(&mut self) {
        while self.sim.wall() < self.end {
            let state = StateDir::take(&self.state).unwrap();
            let jobs: Vec<Job> = self.configuration.policies().iter().flat_map(Job::of).collect();
            let turned = Engine::begin(state, jobs, |_| BTreeMap::new(), LIMITS, self)
                .and_then(|mut engine| engine.run(self, false));
            if turned.is_ok() {
                return;
            }
            let (_, at, away) = self.deaths.pop().unwrap();
            self.died.push(at);
            self.sim.light(i64::MAX);
            self.at_work.clear();
            let from = self.sim.wall();
            self.sim.move_to(from + away);
            self.gone.push((from, from + away));
            self.look_again();
        }
    }

    /// Dies, if this is where.
    fn step(&self, here: At) -> Result<()> {
        let armed = |(day, at, _): &(i64, At, i64)| *at == here && self.sim.wall() >= BEGIN + day * DAY;
        if self.deaths.last().is_some_and(armed) { Err(dead()) } else { Ok(()) }
    }

    /// After a death: what is there now is between what has to stay and what was there, with perhaps one more.
    fn look_again(&mut self) {
        for which in 0..2 {
            let view = View::load(&self.open(which).unwrap()).unwrap();
            self.ended.extend(view.ended.iter().copied());
            for policy in self.policies.iter().filter(|p| p.repository == which) {
                let there: Vec<Snap> = view
                    .snapshots
                    .values()
                    .filter(|s| s.manifest.source.name == policy.name)
                    .map(|s| (s.stored.0, s.manifest.sid))
                    .collect();
                let before = self.kept.entry(policy.name).or_default();
                let new: Vec<Snap> = there.iter().filter(|snap| !before.contains(snap)).copied().collect();
                assert!(new.len() <= 1, "{}: {new:?} out of nothing", policy.name);
                self.made += new.len();
                before.extend(new);
                let ids: BTreeSet<SessionId> = there.iter().map(|(_, sid)| *sid).collect();
                let must = policy.rules.kept(before, policy.zone);
                assert!(must.is_subset(&ids), "{}: too much was forgotten", policy.name);
                *before = there;
            }
        }
    }

    fn last(&mut self, job: &JobId) -> &mut Attempt {
        self.attempts.get_mut(job).unwrap().last_mut().unwrap()
    }

    fn policy(&self, name: &str) -> &Wanted {
        self.policies.iter().find(|p| p.name == name).unwrap()
    }

    fn work(&self, start: &Start, earlier: Vec<SourceEnd>) -> Result<run::Report> {
        let open = |repository: &Repository, _: u32| self.open(usize::from(repository.name().as_str() == "other"));
        let policy = self.configuration.policy(&start.job.policy)?;
        let repository = self.configuration.repository(Some(policy.repository().as_str()))?;
        let around = Surroundings {
            open: &open,
            say: &|_| {},
            env: &self.env,
            state: &self.state,
            cancel: &Cancel::new(),
            workers: 1,
            over: Some(&Over { host: hostname(), before: TimeMs(self.gone.last().map_or(BEGIN, |(_, to)| *to)) }),
            tally: None,
        };
        run::run(&around, policy, repository, start.job.kind, Retries { max: 0, ..policy.retries() }, earlier)
    }

    /// A new snapshot, and what has to go for it.
    fn made(&mut self, name: &str, sid: SessionId) {
        let (wall, policy) = (self.sim.wall(), self.policies.iter().find(|p| p.name == name).unwrap());
        let kept = self.kept.entry(policy.name).or_default();
        kept.push((wall, sid));
        let stay = policy.rules.kept(kept, policy.zone);
        kept.retain(|(_, sid)| stay.contains(sid));
        self.made += 1;
    }

    /// Every day: what the regions show is what the rules say.
    fn check_day(&mut self) {
        self.checked_days += 1;
        for (which, bench) in self.benches.iter().enumerate() {
            let names = |region: &str, folder: &str| -> BTreeSet<SessionId> {
                let entries = std::fs::read_dir(bench.region(region).join(folder)).into_iter().flatten().flatten();
                entries.filter_map(|e| SessionId::parse(e.file_name().to_str().unwrap())).collect()
            };
            let policies = || self.policies.iter().filter(|p| p.repository == which);
            let wanted: BTreeSet<SessionId> =
                policies().filter_map(|p| self.kept.get(p.name)).flatten().map(|(_, sid)| *sid).collect();
            for region in ["a", "b"] {
                let gone: BTreeSet<SessionId> = &names(region, "forgotten") | &self.ended;
                let there = &names(region, "snapshots") - &gone;
                assert_eq!(there, wanted, "day {} in region {region}", self.checked_days);
            }
        }
    }
}

impl Host for Year {
    fn now(&mut self) -> Result<Reading> {
        self.step(At::Clock)?;
        if let Some(job) = self.told.take() {
            self.step(At::Told).inspect_err(|_| self.last(&job).exit = None)?;
        }
        let wall = self.sim.wall();
        Ok(Reading { wall: TimeMs(wall), steady: wall })
    }

    fn notes(&mut self, notes: &[Note]) -> Result<()> {
        for note in notes {
            let Some((job, due)) = note.decided() else { continue };
            let how = match note {
                Note::Started { .. } => "started",
                Note::Coalesced { .. } => "coalesced",
                Note::GaveWay { .. } => "gave way",
                other => panic!("{other}"),
            };
            self.notes.entry((job.clone(), due.0)).or_default().push(how);
        }
        self.step(At::Decided)
    }

    fn start(&mut self, start: &Start) -> Result<()> {
        let (kind, wall) = (start.job.kind, self.sim.wall());
        self.step(At::Before(kind))?;
        let dir = self.benches[self.policy(&start.job.policy).repository].path(&start.job.policy);
        let away = kind == Task::Incremental && start.attempt == 1 && wall / DAY == (BEGIN + AWAY_DAY * DAY) / DAY;
        let (dir, aside) = (&dir, dir.with_extension("away"));
        if away {
            std::fs::rename(dir, &aside).unwrap();
        } else {
            std::fs::write(dir.join(format!("new-{}", wall % 7)), format!("{wall}")).unwrap();
        }
        let fuse = self.deaths.last().and_then(|(day, at, _)| match at {
            At::In(of, percent) if *of == kind && wall >= BEGIN + day * DAY => {
                Some(1 + self.draws.get(&kind).copied().unwrap_or(0) * percent / 100)
            }
            _ => None,
        });
        self.sim.light(fuse.unwrap_or(i64::MAX));
        let done = self.work(start, Vec::new());
        self.sim.stamp();
        if away {
            std::fs::rename(&aside, dir).unwrap();
        }
        let attempt = Attempt { due: start.due.0, number: start.attempt, wall, exit: None };
        self.attempts.entry(start.job.clone()).or_default().push(attempt);
        self.draws.insert(kind, self.sim.draws());
        // A run that needed less than the one before it was just over.
        self.cut += usize::from(self.sim.burnt());
        if fuse.is_some() {
            return Err(dead());
        }
        self.step(At::After(kind))?;
        let exit = done.as_ref().map_or_else(Error::exit, run::Report::exit);
        let wanted = if away { Exit::Failed } else { Exit::Done };
        assert_eq!(exit, wanted, "{start:?}: {done:?}");
        for end in done.unwrap().sources.iter().filter(|end| end.snapshot.is_some()) {
            self.made(&start.job.policy, end.snapshot.unwrap());
        }
        self.at_work.push((wall + (3 + wall / MINUTE % 20) * MINUTE, start.job.clone(), exit));
        Ok(())
    }

    fn stop(&mut self, job: &JobId) -> Result<()> {
        panic!("{job} is stopped");
    }

    fn trouble(&mut self, what: &str) -> Result<()> {
        panic!("{what}");
    }

    fn wait(&mut self, most_ms: i64, standing: &Standing) -> Result<Event> {
        self.step(At::Waiting)?;
        let retrying = self.attempts.values().flatten().any(|a| a.exit == Some(Exit::Failed));
        if retrying && standing.at_work == 0 {
            self.step(At::Retrying)?;
        }
        let wall = self.sim.wall();
        let to = self.at_work.iter().map(|(end, ..)| *end).min().map_or(wall + most_ms, |end| end.min(wall + most_ms));
        while self.checked_days < (to - BEGIN) / DAY {
            self.check_day();
        }
        self.sim.move_to(to.max(wall + 1));
        if let Some(n) = self.at_work.iter().position(|(end, ..)| *end <= self.sim.wall()) {
            let (_, job, exit) = self.at_work.remove(n);
            self.last(&job).exit = Some(exit);
            self.told = Some(job.clone());
            return Ok(Event::Ended(job, exit));
        }
        Ok(if self.sim.wall() >= self.end { Event::Stop } else { Event::Time })
    }
}

impl Year {
    /// Every due time of the year, found by looking at every minute, was handled once and in the right way.
    fn check_books(&self) {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for policy in &self.policies {
            let all: Vec<Vec<i64>> =
                policy.crons.iter().map(|c| c.map_or(vec![], |c| dues(c, policy.zone, BEGIN, self.end))).collect();
            for (kind, dues) in Task::ALL.into_iter().zip(&all) {
                let id = JobId { policy: policy.name.into(), kind };
                for (n, due) in dues.iter().enumerate() {
                    let gap = self.gone.iter().find(|(from, to)| from < due && due <= to);
                    let next = dues.get(n + 1);
                    let fulls = if kind == Task::Incremental { &all[Task::Full as usize][..] } else { &[] };
                    let wanted = match gap {
                        Some((_, to)) if next.is_some_and(|next| next <= to) => "coalesced",
                        Some((from, to)) if fulls.iter().any(|full| from < full && full <= to) => "gave way",
                        _ if fulls.contains(due) => "gave way",
                        _ => "started",
                    };
                    let told = self.notes.get(&(id.clone(), *due)).cloned().unwrap_or_default();
                    assert_eq!(told, [wanted], "{id} due {}", TimeMs(*due).rfc3339());
                    *counts.entry(wanted).or_default() += 1;
                    self.check_attempts(&id, *due, wanted == "started");
                }
                let known: BTreeSet<i64> = dues.iter().copied().collect();
                let made_up = self.notes.keys().any(|(job, due)| *job == id && !known.contains(due));
                assert!(!made_up, "{id} was due when it was not");
            }
        }
        println!("{counts:?}, {} snapshots, died {:?}", self.made, self.died);
    }

    /// A run that was due ended well once, after attempts that failed or were cut off.
    fn check_attempts(&self, id: &JobId, due: i64, wanted: bool) {
        let attempts: Vec<&Attempt> = self.attempts.get(id).into_iter().flatten().filter(|a| a.due == due).collect();
        let done = attempts.iter().filter(|a| a.exit == Some(Exit::Done)).count();
        assert_eq!(done, usize::from(wanted), "{id} due {}: {attempts:?}", TimeMs(due).rfc3339());
        let Some((first, last)) = attempts.first().zip(attempts.last()) else { return };
        assert_eq!(last.exit, Some(Exit::Done), "{attempts:?}");
        assert!(attempts.windows(2).all(|pair| pair[0].number < pair[1].number), "{attempts:?}");
        // A death, or else jitter, a blackout, or one run before it.
        let there = self.gone.iter().find(|(from, to)| (*from..=*to).contains(&due)).map_or(due, |(_, to)| *to);
        let right = first.wall >= due && first.wall <= there + 150 * MINUTE;
        assert!(right, "{id} due {}: {attempts:?}", TimeMs(due).rfc3339());
    }
}

/// A quarter, with the changes of the clocks in spring and the deaths before April; `just year` sets the days of the
/// whole year.
#[test]
fn a_daemon_does_every_due_run_once_and_keeps_what_its_rules_say() {
    let days = std::env::var("HOLDFAST_YEAR_DAYS").map_or(91, |text| text.parse().unwrap());
    let mut year = Year::new(days);
    year.live();
    assert_eq!(year.checked_days, days);
    assert!(year.deaths.is_empty(), "not died: {:?}", year.deaths);
    let inside = year.died.iter().filter(|at| matches!(at, At::In(..))).count();
    assert!(year.cut > 0 && year.cut + 1 >= inside, "{} of {inside} were cut off in their middle", year.cut);
    year.check_books();
    year.look_again();
    year.check_day();
    for bench in &year.benches {
        bench.ok(&["verify", "--level", "content"]);
    }
}
