//! The scheduler through a year of bad luck: every due time is handled exactly once, by an independent calculation.

mod calendar;
mod world;

use holdfast::base::TimeMs;
use holdfast::daemon::{
    Blackout, Concurrency, Job, JobId, Limits, Missed, Note, Plan, Reading, Retry, RunKind, Scheduler,
};
use holdfast::error::Exit;
use holdfast::policy::{Cron, Zone};
use proptest::prelude::*;
use std::collections::BTreeMap;
use world::{DAY, Dice, Fate, HOUR, How, MINUTE, World};

const BERLIN: Zone = chrono_tz::Europe::Berlin;
/// 2027-01-01T00:00:00Z.
const NEW_YEAR: i64 = 1_798_761_600_000;

fn job(policy: &str, kind: RunKind, cron: &str, zone: Zone) -> Job {
    Job {
        id: JobId { policy: policy.into(), kind },
        cron: Cron::parse(cron).unwrap(),
        zone,
        jitter_ms: 0,
        blackouts: Vec::new(),
        deadline_ms: None,
        concurrency: Concurrency::Queue,
        retry: Retry { count: 3, backoff_ms: MINUTE, backoff_max_ms: HOUR },
        priority: 0,
        sources: [policy.to_owned()].into(),
        regions: "main".into(),
    }
}

/// Four policies in four zones, all of which change their clocks, at different times.
fn four_policies() -> Vec<Job> {
    let (new_york, lord_howe) = (chrono_tz::America::New_York, chrono_tz::Australia::Lord_Howe);
    let santiago = chrono_tz::America::Santiago;
    let day = Blackout { begin: Cron::parse("0 8 * * 1-5").unwrap(), zone: BERLIN, length_ms: 10 * HOUR };
    vec![
        Job { jitter_ms: 20 * MINUTE, ..job("berlin", RunKind::Incremental, "30 2 * * *", BERLIN) },
        Job { jitter_ms: 20 * MINUTE, ..job("berlin", RunKind::Full, "30 2 * * 0", BERLIN) },
        Job { sources: [].into(), ..job("berlin", RunKind::Verify, "0 12 1 * *", BERLIN) },
        Job {
            concurrency: Concurrency::Forbid,
            deadline_ms: Some(2 * HOUR),
            ..job("new-york", RunKind::Incremental, "*/30 * * * *", new_york)
        },
        Job { blackouts: vec![day.clone()], ..job("new-york", RunKind::Full, "30 1 * * 6", new_york) },
        Job { priority: 5, ..job("new-york", RunKind::Verify, "0 2 * * 0", new_york) },
        Job {
            concurrency: Concurrency::Replace,
            regions: "other".into(),
            ..job("lord-howe", RunKind::Incremental, "15 2,14 * * *", lord_howe)
        },
        Job { regions: "other".into(), ..job("lord-howe", RunKind::Full, "15 2 1,15 * *", lord_howe) },
        Job {
            blackouts: vec![day],
            jitter_ms: 90 * MINUTE,
            deadline_ms: Some(6 * HOUR),
            ..job("santiago", RunKind::Incremental, "0 0-23/2 * * *", santiago)
        },
        Job {
            sources: ["santiago".into(), "berlin".into()].into(),
            ..job("santiago", RunKind::Full, "0 0 * * 0", santiago)
        },
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
    let daily = started("berlin", RunKind::Incremental);
    assert!((280..=313).contains(&daily), "{daily}");
    assert_eq!(started("berlin", RunKind::Verify), 12);
    assert!(started("lord-howe", RunKind::Full) >= 22);
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
    let kinds = [RunKind::Incremental, RunKind::Full, RunKind::Verify];
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
    (what, limits, blackout, sources, 0..4u32, "[ab]").prop_map(|(what, limits, blackout, sources, count, regions)| {
        let ((cron, zone, kind), (jitter_ms, deadline_ms, concurrency, priority)) = (what, limits);
        let begin = |(cron, length_ms)| Blackout { begin: Cron::parse(cron).unwrap(), zone, length_ms };
        let retry = Retry { count, backoff_ms: MINUTE, backoff_max_ms: HOUR };
        let blackouts = blackout.into_iter().map(begin).collect();
        let base = job("x", kind, cron, zone);
        Job { jitter_ms, blackouts, deadline_ms, concurrency, retry, priority, sources, regions, ..base }
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

fn utc(policy: &str, kind: RunKind, cron: &str) -> Job {
    job(policy, kind, cron, Zone::UTC)
}

#[test]
fn late_runs_are_caught_up_once_and_not_all_at_once() {
    let names: Vec<String> = (0..40).map(|n| format!("policy-{n}")).collect();
    let jobs = names.iter().map(|n| utc(n, RunKind::Incremental, "0 13 * * *")).collect();
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
    let job = utc("p", RunKind::Incremental, "0 * * * *");
    let at = |starts: Vec<(String, i64)>| starts.into_iter().map(|(_, at)| at / MINUTE - 60).collect::<Vec<_>>();
    let retry = |count, backoff| Retry { count, backoff_ms: backoff * MINUTE, backoff_max_ms: 20 * MINUTE };
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
    let full = utc("p", RunKind::Full, "0 14 * * *");
    let jobs = vec![utc("p", RunKind::Incremental, "0 * * * *"), full.clone()];
    let mut desk = Desk::new(jobs);
    let starts = desk.starts(3 * HOUR, Exit::Done);
    let wanted = [("p (incremental)", 1), ("p (full)", 2), ("p (incremental)", 3)];
    assert_eq!(starts, wanted.map(|(name, hour)| (name.to_owned(), hour * HOUR)));
    // Another source is not its business, nor is another repository.
    for other in [Job { sources: ["q".into()].into(), ..full.clone() }, Job { regions: "other".into(), ..full.clone() }]
    {
        let mut desk = Desk::new(vec![utc("p", RunKind::Incremental, "0 * * * *"), other]);
        assert_eq!(desk.starts(3 * HOUR, Exit::Done).len(), 4);
    }
    // One that is moved behind the next incremental does not stand for this one.
    let day = Blackout { begin: full.cron.clone(), zone: Zone::UTC, length_ms: 2 * HOUR };
    let mut desk =
        Desk::new(vec![utc("p", RunKind::Incremental, "0 * * * *"), Job { blackouts: vec![day], ..full.clone() }]);
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
        let job = Job { concurrency: rule, ..utc("p", RunKind::Incremental, "0 * * * *") };
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
fn a_clock_that_was_far_ahead_is_forgiven() {
    let mut desk = Desk::new(vec![utc("p", RunKind::Incremental, "0 13 * * *")]);
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
    let (a, b) = (utc("a", RunKind::Incremental, "0 13 * * *"), utc("b", RunKind::Incremental, "0 13 * * *"));
    let mut desk = Desk::new(vec![a.clone(), b.clone()]);
    assert_eq!(desk.pass(HOUR).start.len(), 2);
    // `a` is due earlier now, `b` is gone while it runs, `c` is new.
    let earlier = utc("a", RunKind::Incremental, "0 10 * * *");
    let c = utc("c", RunKind::Incremental, "0 9 * * *");
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
    let job = utc("p", RunKind::Incremental, "0 * * * *");
    let seeds = BTreeMap::from([(job.id.clone(), TimeMs(NOON - 5 * HOUR))]);
    let now = Reading { wall: TimeMs(NOON), steady: 0 };
    let (scheduler, _) = Scheduler::new(vec![job], BTreeMap::new(), &seeds, LIMITS, now);
    let mut desk = Desk { scheduler, now };
    assert_eq!(desk.starts(10 * MINUTE, Exit::Done).len(), 1);
}

#[test]
fn a_priority_goes_first_and_a_run_with_many_sources_is_not_starved() {
    let mut jobs: Vec<Job> = (0..6).map(|n| utc(&format!("p{n}"), RunKind::Incremental, "0 13 * * *")).collect();
    jobs[4].priority = 9;
    let mut desk = Desk::new(jobs);
    let first: Vec<String> = desk.pass(HOUR).start.into_iter().map(|s| s.job.policy).collect();
    assert_eq!(first, ["p4", "p0"]);
    // `both` waits for `a`; meanwhile `b` must not be taken again.
    let both = Job { sources: ["a".into(), "b".into()].into(), ..utc("both", RunKind::Verify, "1 13 * * *") };
    let (a, b) = (utc("a", RunKind::Incremental, "0 13 * * *"), utc("b", RunKind::Incremental, "2 13 * * *"));
    let mut desk = Desk::new(vec![a.clone(), b, both]);
    assert_eq!(desk.pass(HOUR).start.len(), 1);
    assert!(desk.pass(MINUTE).start.is_empty() && desk.pass(MINUTE).start.is_empty());
    let next: Vec<String> = desk.end(&a.id, Exit::Done).start.into_iter().map(|s| s.job.policy).collect();
    assert_eq!(next, ["both"]);
}

#[test]
fn a_program_that_dies_in_every_run_gives_up_in_the_end() {
    let job = Job {
        retry: Retry { count: 0, backoff_ms: MINUTE, backoff_max_ms: MINUTE },
        ..utc("p", RunKind::Full, "0 13 1 1 *")
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
    let job = Job { jitter_ms: HOUR, ..utc("p", RunKind::Incremental, "0 2 * * *") };
    let full = Job { id: JobId { kind: RunKind::Full, ..job.id.clone() }, ..job.clone() };
    let mut dice = Dice(7);
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..200 {
        let due = job.next_after(TimeMs(NEW_YEAR + dice.below(300 * DAY))).unwrap();
        let planned = job.planned(due).unwrap();
        assert_eq!(full.planned(due), Some(planned));
        assert!((0..=HOUR).contains(&(planned.0 - due.0)));
        seen.insert(planned.0 - due.0);
    }
    assert!(seen.len() > 50);
    // It never reaches the next due time.
    let often = Job { cron: Cron::parse("* * * * *").unwrap(), ..job };
    let planned = |n: i64| often.planned(TimeMs(NEW_YEAR + n * MINUTE)).unwrap().0 - NEW_YEAR - n * MINUTE;
    assert!((0..100).all(|n| planned(n) < MINUTE));
}
