//! What is taken between backups, by a period of seconds.

use super::*;

/// Every 30 seconds, between the backups of `p`.
fn between(p: &str) -> Job {
    Job { every_ms: Some(30_000), ..utc(p, Task::Delta, "0 0 1 1 *") }
}

#[test]
fn what_comes_between_backups_keeps_its_period_and_is_remembered_nowhere() {
    let mut desk = Desk::new(vec![between("p"), between("q"), utc("p", Task::Incremental, "0 * * * *")]);
    desk.scheduler.take_changed();
    let starts = desk.starts(10 * MINUTE, Exit::Failed);
    for name in ["p (delta)", "q (delta)"] {
        let at: Vec<i64> = starts.iter().filter(|(job, _)| job == name).map(|(_, at)| *at).collect();
        assert_eq!(at.len(), 20, "{starts:?}");
        assert!(at.windows(2).all(|pair| pair[1] - pair[0] == 30_000), "{at:?}");
    }
    // Policies do not all begin at once. Nothing was to be stored; a failed one is not tried again but by the next.
    assert_ne!(starts[0].1, starts[1].1);
    assert!(!desk.scheduler.take_changed() && desk.scheduler.memory().keys().all(|id| id.kind != Task::Delta));
}

#[test]
fn what_comes_between_backups_is_left_out_where_something_is_in_its_way() {
    let (delta, incremental) = (between("p"), utc("p", Task::Incremental, "0 * * * *"));
    let mut desk = Desk::new(vec![delta.clone(), incremental.clone()]);
    let first = desk.pass(30_000);
    assert_eq!(first.start.iter().map(|start| &start.job).collect::<Vec<_>>(), [&delta.id]);
    // It takes long: those that are due meanwhile do not wait for its end, and a backup does.
    let mut quiet = true;
    while desk.now.wall.0 < NOON + HOUR {
        let plan = desk.pass(10_000);
        quiet &= plan.start.is_empty() && plan.notes.is_empty();
    }
    assert!(quiet);
    assert_eq!(desk.scheduler.at_work(), 1);
    let then: Vec<JobId> = desk.end(&delta.id, Exit::Done).start.into_iter().map(|start| start.job).collect();
    assert_eq!(
        then,
        std::slice::from_ref(&incremental.id),
        "the backup goes first, and none of those that were left out"
    );
    // Nor does one begin beside the backup, or to the room of others.
    assert!((0..10).all(|_| desk.pass(30_000).start.is_empty()));
    assert!(desk.end(&incremental.id, Exit::Done).start.is_empty());
    assert_eq!(desk.pass(30_000).start.len(), 1);
    let full: Vec<Job> = (0..2).map(|n| utc(&format!("f{n}"), Task::Full, "0 13 * * *")).collect();
    let mut desk = Desk::new([vec![delta.clone()], full].concat());
    assert_eq!(desk.pass(HOUR).start.len(), 2, "the fulls");
    assert!(desk.pass(30_000).start.is_empty());
}

#[test]
fn what_comes_between_backups_keeps_to_blackouts_and_to_a_clock_that_is_set() {
    let blackout = Blackout::new(Cron::parse("0 13 * * *").unwrap(), HOUR);
    let mut desk = Desk::new(vec![with(between("p"), |c| c.blackouts = vec![blackout])]);
    let at: Vec<i64> = desk.starts(3 * HOUR, Exit::Done).into_iter().map(|(_, at)| at).collect();
    assert_eq!(at.len(), 240, "two hours of three");
    assert!(at.iter().all(|at| !(HOUR..2 * HOUR).contains(at)));
    let mut desk = Desk::new(vec![between("p")]);
    for set in [-2 * HOUR, 5 * HOUR, -2 * DAY, 400 * DAY] {
        desk.now.wall = TimeMs(desk.now.wall.0 + set);
        let begin = desk.now.wall.0;
        let at: Vec<i64> = desk.starts(5 * MINUTE, Exit::Done).into_iter().map(|(_, at)| at + NOON - begin).collect();
        assert!(
            (10..=11).contains(&at.len()) && at.windows(2).all(|pair| pair[1] - pair[0] <= 30_000),
            "{set}: {at:?}"
        );
    }
    // Another period counts from now on; the same one goes on; one that is gone ends, also while it is at work.
    let mut desk = Desk::new(vec![between("p")]);
    let next = desk.pass(0).wake;
    let reload = |desk: &mut Desk, jobs| desk.scheduler.reload(jobs, &BTreeMap::new(), desk.now);
    assert_eq!(reload(&mut desk, vec![between("p")]).wake, next);
    assert_eq!(desk.pass(30_000).start.len(), 1);
    let gone = reload(&mut desk, Vec::new());
    assert!(gone.start.is_empty() && desk.scheduler.at_work() == 1);
    let id = between("p").id;
    assert!(desk.end(&id, Exit::Done).start.is_empty() && desk.scheduler.at_work() == 0);
    assert!(desk.pass(HOUR).start.is_empty());
}

#[test]
fn a_backup_that_waits_for_two_sources_is_not_kept_out_by_turns() {
    let on = |p: &str, source: &str| Job { sources: of(&[source]), ..between(p) };
    let full = Job { sources: of(&["a", "b"]), ..utc("full", Task::Full, "1 12 * * *") };
    let (one, other) = (on("p", "a"), on("q", "b"));
    let mut desk = Desk::new(vec![one, other, full.clone()]);
    let (mut active, mut alone): (Vec<JobId>, u32) = (Vec::new(), 0);
    // Each is at work until the other has begun: one of them always is, unless it is kept from it for longer than its period.
    for _ in 0..60 {
        let plan = desk.pass(10_000);
        active.extend(plan.start.into_iter().map(|start| start.job));
        alone = if active.len() == 1 { alone + 1 } else { 0 };
        if active.len() > 1 || alone > 4 {
            let first = active.remove(0);
            let then = desk.end(&first, Exit::Done);
            active.extend(then.start.into_iter().map(|start| start.job));
        }
        if active.contains(&full.id) {
            return;
        }
    }
    panic!("the backup never began: {active:?}");
}
