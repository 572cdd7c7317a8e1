//! Whose turn it is when something else keeps the schedule: cron, a timer, a CronJob. It starts every run when it is
//! due and knows nothing of the policy's other runs; what the calendar says beyond that is made up for here.

use super::run::Say;
use crate::base::{Cancel, Env, TimeMs};
use crate::error::{Error, Kind, Result};
use crate::policy::{Calendar, Coming, Start, Task, local_time};
use std::time::Duration;

const MINUTE_MS: i64 = 60_000;
/// How much the clock that started the run may be ahead of ours.
const AHEAD_MS: i64 = 5_000;
/// How long before it there may be runs that still wait.
const WAITING_MS: i64 = 2 * 24 * 60 * MINUTE_MS;

/// What a run that was started by its schedule is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    /// To start at this time, which may have passed.
    At(TimeMs),
    /// Nothing: this other one does its work too.
    GivesWay(Coming),
}

/// The turn of the run that was due last.
///
/// # Errors
/// [`Kind::Config`]: nothing was due yet. [`Kind::Refused`]: a blackout leaves no time before the starting deadline.
pub fn of(calendar: &Calendar, task: Task, now: TimeMs) -> Result<Turn> {
    let due = calendar.last_due(task, TimeMs(now.0 + AHEAD_MS)).ok_or_else(|| {
        Error::new(Kind::Config, format!("the policy schedules no {} run that is due", task.name()))
            .advise("leave --scheduled out to start one by hand")
    })?;
    let runs = calendar.coming(TimeMs(due.0 - WAITING_MS), due, usize::MAX);
    let mine = runs.iter().find(|run| run.task == task && run.due == due).map(|run| (run.start, run.at()));
    let other = runs.into_iter().find(|run| run.instead_of.contains(&(task, due)));
    match (mine, other) {
        (_, Some(other)) => Ok(Turn::GivesWay(other)),
        (Some((Start::Missed(end), _)), None) => {
            let zone = calendar.zone();
            let (due, end) = (local_time(zone, due), local_time(zone, end));
            Err(Error::new(Kind::Refused, format!("the run due {due} is missed: a blackout lasts until {end}"))
                .advise("use a longer startingDeadline, a shorter blackout or another time"))
        }
        (mine, None) => Ok(Turn::At(mine.map_or(due, |(_, at)| at))),
    }
}

/// Waits for the turn of the run that was due last; the other one where there is one to give way to.
///
/// # Errors
/// As for [`of`]; or interrupted.
pub fn wait(calendar: &Calendar, task: Task, env: &Env, cancel: &Cancel, say: &Say<'_>) -> Result<Option<Coming>> {
    let at = match of(calendar, task, env.now())? {
        Turn::GivesWay(other) => return Ok(Some(other)),
        Turn::At(at) => at,
    };
    if at > env.now() {
        say(&format!("waiting until {}: jitter or a blackout", local_time(calendar.zone(), at)));
    }
    // By the clock, and not once for all of it: clocks are set.
    while at > env.now() {
        cancel.wait(Duration::from_millis((at.0 - env.now().0).clamp(1, MINUTE_MS).unsigned_abs()))?;
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Text, load};
    use proptest::prelude::*;

    fn calendar(spec: &str) -> Calendar {
        let head =
            |kind: &str| format!("---\napiVersion: holdfast.io/v1alpha1\nkind: {kind}\nmetadata: {{name: x}}\nspec:\n");
        let text = head("Repository")
            + "  regions: [{name: a, url: /a}]\n"
            + &head("BackupPolicy")
            + "  sources: [{paths: [/srv]}]\n"
            + spec;
        let read = load(&[Text { name: "x", text: &text }]).unwrap_or_else(|e| panic!("{e}"));
        Calendar::clone(read.policies()[0].calendar())
    }

    /// Friday 2027-01-01 and so many minutes later.
    fn at(minutes: i64) -> TimeMs {
        TimeMs(1_798_761_600_000 + minutes * MINUTE_MS)
    }

    const DAY: i64 = 24 * 60;

    #[test]
    fn an_incremental_gives_way_to_the_full_of_the_same_time() {
        let calendar = calendar("  schedule: {incremental: 30 2 * * *, full: 30 2 * * 0}\n");
        let turn = |task, minutes: i64| of(&calendar, task, at(minutes)).unwrap();
        let due = 2 * 60 + 30;
        // Saturday, Sunday: when due and hours late.
        for late in [0, 300] {
            assert_eq!(turn(Task::Incremental, DAY + due + late), Turn::At(at(DAY + due)));
            let sunday = turn(Task::Incremental, 2 * DAY + due + late);
            assert!(matches!(&sunday, Turn::GivesWay(full) if full.task == Task::Full), "{late}: {sunday:?}");
            assert_eq!(turn(Task::Full, 2 * DAY + due + late), Turn::At(at(2 * DAY + due)));
        }
        assert_eq!(turn(Task::Incremental, 3 * DAY + due), Turn::At(at(3 * DAY + due)));
        // Our clock may be a little behind.
        let early = of(&calendar, Task::Full, TimeMs(at(2 * DAY + due).0 - 3000)).unwrap();
        assert_eq!(early, Turn::At(at(2 * DAY + due)));
        assert_eq!(of(&calendar, Task::Verify, at(0)).unwrap_err().kind(), Kind::Config);
    }

    #[test]
    fn a_blackout_is_waited_for_by_one_run() {
        let spec =
            "  schedule: {incremental: 0 * * * *, full: 0 9 * * *, blackouts: [{start: 0 8 * * *, duration: 3h}]}\n";
        let calendar = calendar(spec);
        let turns = |task| (7..13).map(|hour| of(&calendar, task, at(DAY + hour * 60)).unwrap()).collect::<Vec<_>>();
        let starts = |turn: &Turn| matches!(turn, Turn::At(_));
        let incremental: Vec<bool> = turns(Task::Incremental).iter().map(starts).collect();
        assert_eq!(incremental[..3], [true, false, false]);
        assert_eq!(incremental[5..], [true]);
        assert_eq!(turns(Task::Full)[2], Turn::At(at(DAY + 11 * 60)));
    }

    #[test]
    fn a_blackout_that_is_too_long_is_said() {
        let spec = "  startingDeadline: 1h\n  schedule: {incremental: 0 8 * * *, blackouts: [{start: 0 8 * * 1-5, duration: 3h}]}\n";
        let e = of(&calendar(spec), Task::Incremental, at(8 * 60)).unwrap_err();
        assert!(e.kind() == Kind::Refused && e.what().contains("until Fri 2027-01-01 11:00 UTC"), "{e}");
        assert_eq!(of(&calendar(spec), Task::Incremental, at(DAY + 8 * 60)).unwrap(), Turn::At(at(DAY + 8 * 60)));
    }

    proptest! {
        #[test]
        fn the_last_due_time(minute in 0u32..60, step in 1u32..24, days in "\\*|1|13|\\*/7", now in 0i64..40 * DAY) {
            let calendar = calendar(&format!("  schedule: {{full: '{minute} */{step} {days} * *'}}\n"));
            let found = calendar.last_due(Task::Full, at(now)).unwrap();
            prop_assert!(found <= at(now));
            prop_assert!(calendar.next_due(Task::Full, found).unwrap() > at(now));
            prop_assert_eq!(calendar.next_due(Task::Full, TimeMs(found.0 - 1)), Some(found));
        }
    }
}
