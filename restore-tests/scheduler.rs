//! The scheduler through a year of bad luck: every due time is handled exactly once, by an independent calculation.

mod between;
pub mod calendar;
mod world;

use holdfast::base::TimeMs;
use holdfast::daemon::{Job, JobId, Limits, Memory, Missed, Note, Plan, Reading, Scheduler};
use holdfast::error::Exit;
use holdfast::policy::{Blackout, Calendar, Concurrency, Cron, Retries, Start, Task, Zone};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use world::{DAY, Dice, Fate, HOUR, How, MINUTE, World};

const BERLIN: Zone = chrono_tz::Europe::Berlin;
/// 2027-01-01T00:00:00Z.
const NEW_YEAR: i64 = 1_798_761_600_000;

fn job(policy: &str, kind: Task, cron: &str, zone: Zone) -> Job {
    let cron = |of: Task| (of == kind).then(|| Cron::parse(cron).unwrap());
    let calendar = Calendar {
        policy: policy.into(),
        zone,
        incremental: cron(Task::Incremental),
        full: cron(Task::Full),
        verify: cron(Task::Verify),
        prune: cron(Task::Prune),
        jitter_ms: 0,
        deadline_ms: None,
        blackouts: Vec::new(),
    };
    Job {
        id: JobId { policy: policy.into(), kind },
        calendar: Arc::new(calendar),
        concurrency: Concurrency::Queue,
        retry: Retries { max: 3, backoff_ms: MINUTE, backoff_max_ms: HOUR },
        priority: 0,
        sources: of(&[policy]),
        regions: "main".into(),
        every_ms: None,
    }
}

fn of(sources: &[&str]) -> Arc<BTreeSet<String>> {
    Arc::new(sources.iter().map(|source| (*source).to_owned()).collect())
}

/// The same job with another calendar.
fn with(mut job: Job, change: impl FnOnce(&mut Calendar)) -> Job {
    change(Arc::make_mut(&mut job.calendar));
    job
}

/// Four policies in four zones, all of which change their clocks, at different times.
fn four_policies() -> Vec<Job> {
    let (new_york, lord_howe) = (chrono_tz::America::New_York, chrono_tz::Australia::Lord_Howe);
    let santiago = chrono_tz::America::Santiago;
    let day = Blackout::new(Cron::parse("0 8 * * 1-5").unwrap(), 10 * HOUR);
    let jitter = |job| with(job, |c| c.jitter_ms = 20 * MINUTE);
    vec![
        jitter(job("berlin", Task::Incremental, "30 2 * * *", BERLIN)),
        jitter(job("berlin", Task::Full, "30 2 * * 0", BERLIN)),
        Job { sources: of(&[]), ..job("berlin", Task::Verify, "0 12 1 * *", BERLIN) },
        Job {
            concurrency: Concurrency::Forbid,
            ..with(job("new-york", Task::Incremental, "*/30 * * * *", new_york), |c| c.deadline_ms = Some(2 * HOUR))
        },
        with(job("new-york", Task::Full, "30 1 * * 6", new_york), |c| c.blackouts = vec![day.clone()]),
        Job { priority: 5, ..job("new-york", Task::Verify, "0 2 * * 0", new_york) },
        Job {
            concurrency: Concurrency::Replace,
            regions: "other".into(),
            ..job("lord-howe", Task::Incremental, "15 2,14 * * *", lord_howe)
        },
        Job { regions: "other".into(), ..job("lord-howe", Task::Full, "15 2 1,15 * *", lord_howe) },
        with(job("santiago", Task::Incremental, "0 0-23/2 * * *", santiago), |c| {
            (c.blackouts, c.jitter_ms, c.deadline_ms) = (vec![day.clone()], 90 * MINUTE, Some(6 * HOUR));
        }),
        Job { sources: of(&["santiago", "berlin"]), ..job("santiago", Task::Full, "0 0 * * 0", santiago) },
    ]
}

const LIMITS: Limits = Limits { runs: 3, per_regions: 2, catch_up_ms: 5 * MINUTE };

fn year(seed: u64, fate: Fate) -> (World, BTreeMap<How, u64>) {
    let mut world = World::new(four_policies(), LIMITS, fate, seed, NEW_YEAR + 7 * HOUR);
    world.run_until(NEW_YEAR + 365 * DAY);
    let totals = world.check();
    println!("seed {seed}: {} crashes, {} at once, {totals:?}", world.crashes, world.most_at_once);
    (world, totals)
}

#[test]
fn a_year_without_accidents() {
    let (world, totals) = year(1, Fate { crashes: 0, clock_steps: 0, step_ms: 1, away_ms: 1 });
    let started = |policy: &str, kind| {
        let of = |id: &JobId| id.policy == policy && id.kind == kind;
        world.decided.iter().filter(|((id, _), how)| of(id) && how[..] == [How::Started]).count()
    };
    // 365 days less 52 Sundays on which the full run does the work, less what waited behind one of the long runs.
    let daily = started("berlin", Task::Incremental);
    assert!((280..=313).contains(&daily), "{daily}");
    assert_eq!(started("berlin", Task::Verify), 12);
    assert!(started("lord-howe", Task::Full) >= 22);
    assert!(totals[&How::GaveWay] > 52 && totals[&How::Running] > 0, "{totals:?}");
    assert_eq!(world.most_at_once, LIMITS.runs);
}

#[test]
fn years_of_crashes_handle_every_due_run_exactly_once() {
    let mut seen: BTreeMap<How, u64> = BTreeMap::new();
    for seed in 0..3 {
        let (world, totals) = year(seed, Fate { crashes: 60, clock_steps: 0, step_ms: 1, away_ms: 3 * DAY });
        assert!(world.crashes > 100);
        totals.into_iter().for_each(|(how, n)| *seen.entry(how).or_default() += n);
    }
    for how in [How::Started, How::Coalesced, How::GaveWay, How::Deadline, How::Running] {
        assert!(seen.get(&how).is_some_and(|n| *n > 10), "{how:?} was not tried: {seen:?}");
    }
}

#[test]
fn years_of_moved_clocks_double_and_lose_nothing() {
    for seed in 10..12 {
        let fate = Fate { crashes: 200, clock_steps: 50, step_ms: 80 * MINUTE, away_ms: DAY };
        let (_, totals) = year(seed, fate);
        assert!(totals[&How::Started] > 3000, "{totals:?}");
    }
}

fn any_job() -> impl Strategy<Value = Job> {
    let crons = ["*/7 * * * *", "0 * * * *", "30 2 * * *", "0 */6 * * *", "15 3 * * 0", "*/20 1-3 * * *"];
    let zones = [chrono_tz::Tz::UTC, BERLIN, chrono_tz::Australia::Lord_Howe, chrono_tz::America::St_Johns];
    let kinds = [Task::Incremental, Task::Full, Task::Verify];
    let rules = [Concurrency::Forbid, Concurrency::Queue, Concurrency::Replace];
    let source = prop::sample::select(vec!["a", "b", "c"]);
    let sources = prop::collection::btree_set(source.prop_map(str::to_owned), 0..3);
    let what = (
        prop::sample::select(crons[..].to_vec()),
        prop::sample::select(zones[..].to_vec()),
        prop::sample::select(kinds[..].to_vec()),
    );
    let limits = (0..3 * HOUR, prop::option::of(0..4 * HOUR), prop::sample::select(rules[..].to_vec()), -1..2i32);
    let blackout = prop::option::of((prop::sample::select(crons[1..].to_vec()), 1..8 * HOUR));
    (what, limits, blackout, sources, 0..4u32, "[ab]").prop_map(|(what, limits, blackout, sources, max, regions)| {
        let ((cron, zone, kind), (jitter_ms, deadline_ms, concurrency, priority)) = (what, limits);
        let begin = |(cron, length_ms)| Blackout::new(Cron::parse(cron).unwrap(), length_ms);
        let retry = Retries { max, backoff_ms: MINUTE, backoff_max_ms: HOUR };
        let blackouts: Vec<Blackout> = blackout.into_iter().map(begin).collect();
        let base = with(job("x", kind, cron, zone), |c| {
            (c.jitter_ms, c.blackouts, c.deadline_ms) = (jitter_ms, blackouts, deadline_ms);
        });
        Job { concurrency, retry, priority, sources: Arc::new(sources), regions, ..base }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_policies_in_any_week(
        mut jobs in prop::collection::vec(any_job(), 1..6), seed: u64, runs in 1..4usize, per_regions in 1..3usize,
        crashes in 0..80i64, clock_steps in 0..80i64, begin in 0..360i64,
    ) {
        for (n, job) in jobs.iter_mut().enumerate() {
            job.id.policy = format!("policy-{n}");
        }
        let fate = Fate { crashes, clock_steps, step_ms: 85 * MINUTE, away_ms: 2 * DAY };
        let begin = NEW_YEAR + begin * DAY;
        let mut world = World::new(jobs, Limits { runs, per_regions, catch_up_ms: 5 * MINUTE }, fate, seed, begin);
        world.run_until(begin + 7 * DAY);
        world.check();
    }
}

/// A scheduler at noon of 2027-01-01, UTC, and its clocks.
struct Desk {
    scheduler: Scheduler,
    now: Reading,
}

const NOON: i64 = NEW_YEAR + 12 * HOUR;

impl Desk {
    fn new(jobs: Vec<Job>) -> Desk {
        let now = Reading { wall: TimeMs(NOON), steady: 0 };
        let (scheduler, _) = Scheduler::new(jobs, BTreeMap::new(), &BTreeMap::new(), LIMITS, now);
        Desk { scheduler, now }
    }

    fn pass(&mut self, ms: i64) -> Plan {
        self.now = Reading { wall: TimeMs(self.now.wall.0 + ms), steady: self.now.steady + ms };
        self.scheduler.tick(self.now)
    }

    fn end(&mut self, id: &JobId, exit: Exit) -> Plan {
        self.scheduler.ended(id, exit, self.now)
    }

    /// All starts within so many milliseconds, as offsets from noon; each run takes no time and ends with `exit`.
    fn starts(&mut self, ms: i64, exit: Exit) -> Vec<(String, i64)> {
        let end = self.now.wall.0 + ms;
        let mut found = Vec::new();
        let mut plan = self.pass(0);
        loop {
            let mut ended = Vec::new();
            for start in plan.start {
                found.push((start.job.to_string(), self.now.wall.0 - NOON));
                ended.push(start.job);
            }
            plan = match ended.pop() {
                Some(id) => {
                    let rest: Vec<JobId> = ended;
                    rest.iter().for_each(|id| drop(self.end(id, exit)));
                    self.end(&id, exit)
                }
                None => match plan.wake.filter(|at| at.0 <= end) {
                    Some(at) => self.pass(at.0 - self.now.wall.0),
                    None => return found,
                },
            };
        }
    }
}

fn utc(policy: &str, kind: Task, cron: &str) -> Job {
    job(policy, kind, cron, Zone::UTC)
}

#[test]
fn late_runs_are_caught_up_once_and_not_all_at_once() {
    let names: Vec<String> = (0..40).map(|n| format!("policy-{n}")).collect();
    let jobs = names.iter().map(|n| utc(n, Task::Incremental, "0 13 * * *")).collect();
    let mut desk = Desk::new(jobs);
    desk.scheduler.tick(desk.now);
    let plan = desk.pass(3 * DAY);
    let coalesced = plan.notes.iter().filter(|n| matches!(n, Note::Coalesced { .. })).count();
    assert_eq!((coalesced, plan.start.len()), (80, 0));
    let mut starts = desk.starts(10 * MINUTE, Exit::Done);
    assert_eq!(starts.len(), 40);
    assert!(starts.iter().all(|(_, at)| (0..=5 * MINUTE).contains(&(at - 3 * DAY))));
    starts.dedup_by_key(|(_, at)| *at / 1000);
    assert!(starts.len() > 30, "not spread: {starts:?}");
    // And the next day at their time.
    assert!(desk.starts(DAY, Exit::Done).iter().all(|(_, at)| *at == 3 * DAY + HOUR));
}

#[test]
fn a_failed_run_is_tried_again_with_growing_waits_until_the_next_is_due() {
    let job = utc("p", Task::Incremental, "0 * * * *");
    let at = |starts: Vec<(String, i64)>| starts.into_iter().map(|(_, at)| at / MINUTE - 60).collect::<Vec<_>>();
    let retry = |max, backoff| Retries { max, backoff_ms: backoff * MINUTE, backoff_max_ms: 20 * MINUTE };
    let starts = |retry, exit| at(Desk::new(vec![Job { retry, ..job.clone() }]).starts(2 * HOUR - 1, exit));
    assert_eq!(starts(retry(3, 1), Exit::Failed), [0, 1, 3, 7]);
    assert_eq!(starts(retry(9, 8), Exit::Failed), [0, 8, 24, 44]);
    assert_eq!(starts(retry(9, 8), Exit::NoRepository).len(), 4);
    // A second attempt would find the same.
    for exit in [Exit::Done, Exit::Partial, Exit::Behind, Exit::Damage, Exit::Refused, Exit::WrongKey, Exit::Usage] {
        assert_eq!(starts(retry(3, 1), exit), [0], "{exit:?}");
    }
}

#[test]
fn a_full_run_makes_the_incremental_of_the_same_source_needless() {
    let full = utc("p", Task::Full, "0 14 * * *");
    let jobs = vec![utc("p", Task::Incremental, "0 * * * *"), full.clone()];
    let mut desk = Desk::new(jobs);
    let starts = desk.starts(3 * HOUR, Exit::Done);
    let wanted = [("p (incremental)", 1), ("p (full)", 2), ("p (incremental)", 3)];
    assert_eq!(starts, wanted.map(|(name, hour)| (name.to_owned(), hour * HOUR)));
    // Another source is not its business, nor is another repository.
    for other in [Job { sources: of(&["q"]), ..full.clone() }, Job { regions: "other".into(), ..full.clone() }] {
        let mut desk = Desk::new(vec![utc("p", Task::Incremental, "0 * * * *"), other]);
        assert_eq!(desk.starts(3 * HOUR, Exit::Done).len(), 4);
    }
    // One that is moved behind the next incremental does not stand for this one.
    let day = Blackout::new(Cron::parse("0 14 * * *").unwrap(), 2 * HOUR);
    let moved = with(full.clone(), |c| c.blackouts = vec![day]);
    let mut desk = Desk::new(vec![utc("p", Task::Incremental, "0 * * * *"), moved]);
    let starts = desk.starts(4 * HOUR + MINUTE, Exit::Done);
    let wanted = [("p (incremental)", 1), ("p (incremental)", 2), ("p (incremental)", 3), ("p (full)", 4)];
    assert_eq!(starts, wanted.map(|(name, hour)| (name.to_owned(), hour * HOUR)));
}

#[test]
fn the_rule_for_a_run_that_is_still_at_work() {
    for (rule, stops, why) in [
        (Concurrency::Forbid, 0, Some(Missed::Running)),
        (Concurrency::Queue, 0, None),
        (Concurrency::Replace, 1, None),
    ] {
        let job = Job { concurrency: rule, ..utc("p", Task::Incremental, "0 * * * *") };
        let id = job.id.clone();
        let mut desk = Desk::new(vec![job]);
        assert_eq!(desk.pass(HOUR).start.len(), 1);
        let plan = desk.pass(HOUR);
        assert_eq!((plan.start.len(), plan.stop.len()), (0, stops), "{rule:?}");
        let missed = plan.notes.iter().find_map(|n| if let Note::Missed { why, .. } = n { Some(*why) } else { None });
        assert_eq!(missed, why);
        assert!(desk.pass(MINUTE).stop.is_empty(), "it is asked once");
        let exit = if stops > 0 { Exit::Interrupted } else { Exit::Done };
        let plan = desk.end(&id, exit);
        let dues: Vec<i64> = plan.start.iter().map(|s| s.due.0 - NOON).collect();
        assert_eq!(dues, if why.is_some() { vec![] } else { vec![2 * HOUR] }, "{rule:?}");
    }
}

#[test]
fn the_rule_is_each_kinds_own_and_kinds_wait_for_each_other() {
    // An incremental that takes too long must not cost the week its full.
    let forbid = |kind, cron| Job { concurrency: Concurrency::Forbid, ..utc("p", kind, cron) };
    let jobs = vec![forbid(Task::Incremental, "0 13 * * *"), forbid(Task::Full, "0 14 * * *")];
    let id = jobs[0].id.clone();
    let mut desk = Desk::new(jobs);
    assert_eq!(desk.pass(HOUR).start.len(), 1);
    let plan = desk.pass(HOUR);
    assert!(plan.start.is_empty() && plan.stop.is_empty() && plan.notes.is_empty(), "{plan:?}");
    let started: Vec<Task> = desk.end(&id, Exit::Done).start.iter().map(|s| s.job.kind).collect();
    assert_eq!(started, [Task::Full]);
    // The next incremental is forbidden only by an incremental; the full at work does its work.
    let plan = desk.pass(23 * HOUR);
    assert!(matches!(&plan.notes[..], [Note::GaveWay { .. }]), "{plan:?}");
}

#[test]
fn a_clock_that_was_far_ahead_is_forgiven() {
    let mut desk = Desk::new(vec![utc("p", Task::Incremental, "0 13 * * *")]);
    desk.scheduler.tick(desk.now);
    desk.now.wall.0 += 400 * DAY;
    let plan = desk.scheduler.tick(desk.now);
    assert!(plan.notes.contains(&Note::ClockStep(400 * DAY)), "{:?}", plan.notes);
    let missed = plan.notes.iter().filter(|n| matches!(n, Note::Coalesced { .. })).count();
    assert_eq!(missed, 399);
    assert_eq!(desk.starts(10 * MINUTE, Exit::Done).len(), 1);
    desk.now.wall.0 -= 400 * DAY;
    let plan = desk.scheduler.tick(desk.now);
    assert!(plan.notes.iter().any(|n| matches!(n, Note::TakenBack { .. })), "{:?}", plan.notes);
    assert_eq!(desk.starts(DAY, Exit::Done), [("p (incremental)".to_owned(), HOUR)]);
}

#[test]
fn changed_policies_take_effect_from_now_on() {
    let (a, b) = (utc("a", Task::Incremental, "0 13 * * *"), utc("b", Task::Incremental, "0 13 * * *"));
    let mut desk = Desk::new(vec![a.clone(), b.clone()]);
    assert_eq!(desk.pass(HOUR).start.len(), 2);
    // `a` is due earlier now, `b` is gone while it runs, `c` is new.
    let earlier = utc("a", Task::Incremental, "0 10 * * *");
    let c = utc("c", Task::Incremental, "0 9 * * *");
    let plan = desk.scheduler.reload(vec![earlier, c], &BTreeMap::new(), desk.now);
    assert!(plan.start.is_empty());
    desk.end(&a.id, Exit::Done);
    assert!(desk.scheduler.memory().contains_key(&b.id), "its run is at work");
    desk.end(&b.id, Exit::Failed);
    assert!(!desk.scheduler.memory().contains_key(&b.id));
    let starts = desk.starts(DAY, Exit::Done);
    let wanted = [("c (incremental)", 21 * HOUR), ("a (incremental)", 22 * HOUR)];
    assert_eq!(starts, wanted.map(|(name, at)| (name.to_owned(), at)));
}

#[test]
fn what_is_known_of_the_last_runs_is_caught_up_when_the_memory_is_lost() {
    let job = utc("p", Task::Incremental, "0 * * * *");
    let seeds = BTreeMap::from([(job.id.clone(), TimeMs(NOON - 5 * HOUR))]);
    let now = Reading { wall: TimeMs(NOON), steady: 0 };
    let (scheduler, _) = Scheduler::new(vec![job], BTreeMap::new(), &seeds, LIMITS, now);
    let mut desk = Desk { scheduler, now };
    assert_eq!(desk.starts(10 * MINUTE, Exit::Done).len(), 1);
}

#[test]
fn a_priority_goes_first_and_a_run_with_many_sources_is_not_starved() {
    let mut jobs: Vec<Job> = (0..6).map(|n| utc(&format!("p{n}"), Task::Incremental, "0 13 * * *")).collect();
    jobs[4].priority = 9;
    let mut desk = Desk::new(jobs);
    let first: Vec<String> = desk.pass(HOUR).start.into_iter().map(|s| s.job.policy).collect();
    assert_eq!(first, ["p4", "p0"]);
    // `both` waits for `a`; meanwhile `b` must not be taken again.
    let both = Job { sources: of(&["a", "b"]), ..utc("both", Task::Verify, "1 13 * * *") };
    let (a, b) = (utc("a", Task::Incremental, "0 13 * * *"), utc("b", Task::Incremental, "2 13 * * *"));
    let mut desk = Desk::new(vec![a.clone(), b, both]);
    assert_eq!(desk.pass(HOUR).start.len(), 1);
    assert!(desk.pass(MINUTE).start.is_empty() && desk.pass(MINUTE).start.is_empty());
    let next: Vec<String> = desk.end(&a.id, Exit::Done).start.into_iter().map(|s| s.job.policy).collect();
    assert_eq!(next, ["both"]);
}

#[test]
fn a_program_that_dies_in_every_run_gives_up_in_the_end() {
    let job = Job {
        retry: Retries { max: 0, backoff_ms: MINUTE, backoff_max_ms: MINUTE },
        ..utc("p", Task::Full, "0 13 1 1 *")
    };
    let mut desk = Desk::new(vec![job.clone()]);
    let mut attempts = 0;
    let mut plan = desk.pass(HOUR);
    for _ in 0..20 {
        attempts += plan.start.len();
        let memory = desk.scheduler.memory().clone();
        let (scheduler, _) = Scheduler::new(vec![job.clone()], memory, &BTreeMap::new(), LIMITS, desk.now);
        desk.scheduler = scheduler;
        plan = desk.pass(MINUTE);
    }
    assert_eq!(attempts, 4);
    assert_eq!(desk.scheduler.memory()[&job.id].counts.failed, 1);
}

#[test]
fn the_same_policy_and_due_time_have_the_same_jitter() {
    let job = with(utc("p", Task::Incremental, "0 2 * * *"), |c| {
        (c.jitter_ms, c.full) = (HOUR, c.incremental.clone());
    });
    let full = Job { id: JobId { kind: Task::Full, ..job.id.clone() }, ..job.clone() };
    let start = |job: &Job, due| if let Start::At(at) = job.start(due) { at.0 - due.0 } else { panic!("missed") };
    let mut dice = Dice(7);
    let mut seen = BTreeSet::new();
    for _ in 0..200 {
        let due = job.next_after(TimeMs(NEW_YEAR + dice.below(300 * DAY))).unwrap();
        let moved = start(&job, due);
        assert_eq!(start(&full, due), moved);
        assert!((0..=HOUR).contains(&moved));
        seen.insert(moved);
    }
    assert!(seen.len() > 50);
    // It never reaches the next due time.
    let often = with(job, |c| c.incremental = Some(Cron::parse("* * * * *").unwrap()));
    assert!((0..100).all(|n| start(&often, TimeMs(NEW_YEAR + n * MINUTE)) < MINUTE));
}

/// A policy's calendar with all schedules.
fn any_calendar() -> impl Strategy<Value = Calendar> {
    let crons =
        ["*/7 * * * *", "0 * * * *", "30 2 * * *", "0 */6 * * *", "15 3 * * 0", "*/20 1-3 * * *", "30 2 */2 * *"];
    let zones = [Zone::UTC, BERLIN, chrono_tz::America::New_York, chrono_tz::Australia::Lord_Howe];
    let cron = || prop::option::of(prop::sample::select(crons[..].to_vec()));
    let blackout = prop::collection::vec((prop::sample::select(crons[1..].to_vec()), 1..90 * MINUTE), 0..3);
    let moved = (0..2 * HOUR, prop::option::of(0..4 * HOUR), blackout);
    ("[a-z]{1,6}", prop::sample::select(zones.to_vec()), (cron(), cron(), cron(), cron()), moved).prop_map(
        |(policy, zone, (incremental, full, verify, prune), (jitter_ms, deadline_ms, blackouts))| {
            let cron = |text: Option<&str>| text.map(|text| Cron::parse(text).unwrap());
            let begin = |(cron, length_ms)| Blackout::new(Cron::parse(cron).unwrap(), length_ms);
            Calendar {
                policy,
                zone,
                incremental: cron(incremental),
                full: cron(full),
                verify: cron(verify),
                prune: cron(prune),
                jitter_ms,
                deadline_ms,
                blackouts: blackouts.into_iter().map(begin).collect(),
            }
        },
    )
}

/// When the scheduler starts runs that take no time, and what it misses.
fn started(calendar: &Calendar, from: i64, to: i64) -> BTreeSet<(i64, Task, i64, bool)> {
    let calendar = Arc::new(calendar.clone());
    let kinds = Task::ALL.into_iter().filter(|kind| calendar.cron(*kind).is_some());
    let jobs: Vec<Job> = kinds
        .map(|kind| Job {
            id: JobId { policy: calendar.policy.clone(), kind },
            calendar: calendar.clone(),
            sources: of(&[if kind.is_backup() { "all" } else { "checks" }]),
            ..utc("p", kind, "0 0 * * *")
        })
        .collect();
    let reading = |at: i64| Reading { wall: TimeMs(at), steady: at };
    let (mut scheduler, _) = Scheduler::new(jobs, BTreeMap::new(), &BTreeMap::new(), LIMITS, reading(from));
    let (mut now, mut found) = (from, BTreeSet::new());
    let mut plan = scheduler.tick(reading(now));
    loop {
        for note in &plan.notes {
            if let Note::Missed { job, due, why: Missed::Blackout } = note {
                found.insert((due.0, job.kind, due.0, false));
            }
        }
        for start in &plan.start {
            found.insert((now, start.job.kind, start.due.0, true));
        }
        plan = match plan.start.pop() {
            Some(last) => {
                let mut next = scheduler.ended(&last.job, Exit::Done, reading(now));
                next.start.append(&mut plan.start);
                next
            }
            None => match plan.wake.filter(|at| at.0 <= to) {
                Some(at) => {
                    now = at.0;
                    scheduler.tick(reading(now))
                }
                None => return found,
            },
        };
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// What `policy next` shows is what the daemon does: every start to the millisecond.
    #[test]
    fn the_calendar_that_is_shown_is_what_the_scheduler_does(calendar in any_calendar(), day in 0..360i64) {
        let (from, to) = (NEW_YEAR + day * DAY, NEW_YEAR + (day + 6) * DAY);
        let shown = calendar.coming(TimeMs(from), TimeMs(to), usize::MAX);
        let shown = shown.iter().map(|run| (run.at().0, run.task, run.due.0, matches!(run.start, Start::At(_))));
        let shown: BTreeSet<_> = shown.filter(|(at, ..)| *at <= to).collect();
        prop_assert_eq!(shown, started(&calendar, from, to));
    }
}

#[test]
fn a_clock_that_stood_still_for_years_is_caught_up_at_once() {
    // A machine without a battery begins in 1970, and hears of the time a minute later.
    let jobs = vec![utc("often", Task::Incremental, "*/5 * * * *"), utc("yearly", Task::Full, "0 0 1 1 *")];
    let begin = |steady| Reading { wall: TimeMs(1_000_000 + steady), steady };
    let (mut scheduler, _) = Scheduler::new(jobs, BTreeMap::new(), &BTreeMap::new(), LIMITS, begin(0));
    scheduler.tick(begin(0));
    let plan = scheduler.tick(Reading { wall: TimeMs(NOON), steady: MINUTE });
    assert!(plan.notes.len() < 1100, "{} decisions", plan.notes.len());
    let over: Vec<&Note> = plan.notes.iter().filter(|note| matches!(note, Note::PassedOver { .. })).collect();
    assert!(matches!(over[..], [Note::PassedOver { into, .. }] if into.0 == NOON), "{over:?}");
    let due = |m: &Memory| m.pending.map(|p| p.due).or(m.started).map_or(0, |due| due.0);
    let pending: Vec<i64> = scheduler.memory().values().map(due).collect();
    // Neither the newest of the many nor the rare one is lost, and the others are done by these.
    let new_year = NOON - NOON.rem_euclid(DAY);
    assert!(pending[0] == NOON && pending[1] <= new_year && pending[1] > NOON - 367 * DAY, "{pending:?}");
    assert!(scheduler.memory().values().all(|m| m.handled.0 > NOON - 367 * DAY));
}
