//! When the runs of a policy start. The daemon and `policy next` both ask here.
//!
//! A run is *due* when its schedule says so. It starts then, or up to the jitter later, by a share that follows from
//! the policy's name and the due time; never inside a blackout, but at its end, unless that is later than the
//! starting deadline allows: then it is missed. What becomes of runs that are due while others wait is in
//! `coming`.

use super::cron::Cron;
use super::gaps::{Gaps, gaps, never_longer};
use crate::base::TimeMs;
use chrono_tz::Tz;
use serde::{Deserialize, Serialize};

const MINUTE_MS: i64 = 60_000;
const YEAR_MS: i64 = 366 * 24 * 60 * MINUTE_MS;
/// A blackout that lasts longer has no end in sight.
const SIGHT_MS: i64 = 2 * YEAR_MS;
/// Where checks that need some time begin: 2027-01-01. The same text gets the same verdict every day.
pub(super) const REFERENCE: TimeMs = TimeMs(1_798_761_600_000);
/// How long ago the newest due time is looked for.
const LOOK_BACK_MS: i64 = 10 * YEAR_MS;
/// Most runs that are looked at for one gap.
const LOOKED_AT_MAX: usize = 1500;

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// An incremental backup.
    Incremental,
    /// A full backup.
    Full,
    /// A check of the repository.
    Verify,
    /// Space is given back.
    Prune,
    /// What changed in clusters is taken between backups. It has a period and no schedule.
    Delta,
}

impl Task {
    /// All that have schedules.
    pub const ALL: [Task; 4] = [Task::Incremental, Task::Full, Task::Verify, Task::Prune];

    /// Whether it makes snapshots of the policy's sources.
    pub fn is_backup(self) -> bool {
        matches!(self, Task::Incremental | Task::Full | Task::Delta)
    }

    /// Its name in options, reports and files.
    pub fn name(self) -> &'static str {
        match self {
            Task::Incremental => "incremental",
            Task::Full => "full",
            Task::Verify => "verify",
            Task::Prune => "prune",
            Task::Delta => "delta",
        }
    }
}

/// A time in which no run starts.
#[derive(Debug, Clone, PartialEq)]
pub struct Blackout {
    start: Cron,
    duration_ms: i64,
    /// Whether the next begins before it ends, always.
    endless: bool,
}

impl Blackout {
    /// Begins by a schedule and lasts so many milliseconds.
    pub fn new(start: Cron, duration_ms: i64) -> Blackout {
        let endless = never_longer(&start, duration_ms / MINUTE_MS);
        Blackout { start, duration_ms, endless }
    }

    /// When it begins.
    pub fn start(&self) -> &Cron {
        &self.start
    }

    /// How long it lasts, milliseconds.
    pub fn duration_ms(&self) -> i64 {
        self.duration_ms
    }
}

/// The schedules of a policy and what moves its runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Calendar {
    /// Name of the policy.
    pub policy: String,
    /// The time zone of all schedules.
    pub zone: Tz,
    /// When incremental backups are due.
    pub incremental: Option<Cron>,
    /// When full ones are.
    pub full: Option<Cron>,
    /// When checks are.
    pub verify: Option<Cron>,
    /// When space is given back.
    pub prune: Option<Cron>,
    /// How much later than due a run may start, milliseconds.
    pub jitter_ms: i64,
    /// How late a run may start before it is missed, milliseconds; `None`: however late.
    pub deadline_ms: Option<i64>,
    /// When no run starts.
    pub blackouts: Vec<Blackout>,
}

/// When a run that is due starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Then.
    At(TimeMs),
    /// Not at all: its blackout ends then, which is too late.
    Missed(TimeMs),
}

impl Calendar {
    /// The time zone of all schedules.
    pub fn zone(&self) -> Tz {
        self.zone
    }

    /// When something is due, if it ever is.
    pub fn cron(&self, task: Task) -> Option<&Cron> {
        match task {
            Task::Incremental => self.incremental.as_ref(),
            Task::Full => self.full.as_ref(),
            Task::Verify => self.verify.as_ref(),
            Task::Prune => self.prune.as_ref(),
            Task::Delta => None,
        }
    }

    /// How much later than due a run may start, milliseconds.
    pub fn jitter_ms(&self) -> i64 {
        self.jitter_ms
    }

    /// How late a run may start before it is missed, milliseconds; `None`: however late.
    pub fn starting_deadline_ms(&self) -> Option<i64> {
        self.deadline_ms
    }

    /// When no run starts.
    pub fn blackouts(&self) -> &[Blackout] {
        &self.blackouts
    }

    /// The first time after `after` at which something is due.
    pub fn next_due(&self, task: Task, after: TimeMs) -> Option<TimeMs> {
        self.cron(task)?.next_after(self.zone, after)
    }

    /// The newest time up to `until`, and not more than ten years before it, at which something was due.
    pub fn last_due(&self, task: Task, until: TimeMs) -> Option<TimeMs> {
        let due_after = |at: i64| self.next_due(task, TimeMs(at)).filter(|due| *due <= until);
        let mut due = due_after(until.0.saturating_sub(LOOK_BACK_MS))?;
        // Nothing is due after `high`.
        let mut high = until.0;
        while high - due.0 > MINUTE_MS {
            let middle = due.0 + (high - due.0) / 2;
            match due_after(middle) {
                Some(later) => due = later,
                None => high = middle,
            }
        }
        due_after(due.0).or(Some(due))
    }

    /// The end of the blackout that holds at a time, together with those that begin before it ends.
    pub fn blackout_end(&self, at: TimeMs) -> Option<TimeMs> {
        let far = TimeMs(at.0.saturating_add(SIGHT_MS));
        let mut end = at;
        while let Some(next) = self.blackouts.iter().find_map(|blackout| self.holds(blackout, end)) {
            end = next.min(far);
            if end == far {
                break;
            }
        }
        (end > at).then_some(end)
    }

    /// The end of one blackout that holds at a time.
    fn holds(&self, blackout: &Blackout, at: TimeMs) -> Option<TimeMs> {
        let start = blackout.start.next_after(self.zone, TimeMs(at.0.saturating_sub(blackout.duration_ms)))?;
        let end = if blackout.endless { i64::MAX } else { start.0.saturating_add(blackout.duration_ms) };
        (start <= at).then_some(TimeMs(end))
    }

    /// The first time from `at` on that is in no blackout.
    pub fn free_from(&self, at: TimeMs) -> TimeMs {
        self.blackout_end(at).unwrap_or(at)
    }

    /// Whether a start at `at` is too late for what is due at `due`.
    pub fn too_late(&self, due: TimeMs, at: TimeMs) -> bool {
        self.deadline_ms.is_some_and(|ms| at.0 > due.0.saturating_add(ms))
    }

    /// When a run that is due at a time starts, if nothing else is in its way.
    pub fn start(&self, task: Task, due: TimeMs) -> Start {
        let earliest = self.free_from(due);
        if self.too_late(due, earliest) || earliest.0.saturating_sub(due.0) >= SIGHT_MS {
            return Start::Missed(earliest);
        }
        let moved = match self.jitter(task, due) {
            0 => earliest,
            ms => self.free_from(TimeMs(due.0.saturating_add(ms))),
        };
        // Jitter moves a run, it does not make it late.
        Start::At(if self.too_late(due, moved) { earliest } else { moved })
    }

    /// How much later a run starts, so that not all start at once. It never reaches the next due time.
    fn jitter(&self, task: Task, due: TimeMs) -> i64 {
        if self.jitter_ms <= 0 {
            return 0;
        }
        let gap = self.next_due(task, due).map_or(i64::MAX, |next| next.0 - due.0);
        share(&[self.policy.as_bytes(), &due.0.to_le_bytes()], self.jitter_ms.min(gap - 1))
    }

    /// Whether a task that has a schedule starts within a year of its first time.
    pub(super) fn ever_starts(&self, task: Task) -> bool {
        let Some(first) = self.next_due(task, REFERENCE) else { return false };
        let limit = TimeMs(first.0.saturating_add(YEAR_MS));
        let mut next = Some(first);
        while let Some(due) = next.filter(|due| *due <= limit) {
            let skip = match self.start(task, due) {
                Start::At(at) => return at <= limit,
                // Until then everything is too early.
                Start::Missed(end) => end.0 - self.deadline_ms.unwrap_or(0) - 1,
            };
            next = self.next_due(task, TimeMs(skip.max(due.0)));
        }
        false
    }

    /// The largest gap between two runs of one task, milliseconds, without blackouts.
    pub(super) fn largest_gap_of(&self, task: Task) -> Option<i64> {
        gaps(&[self.cron(task)?]).map(|g| i64::from(g.largest) * MINUTE_MS)
    }

    fn backups(&self) -> Vec<&Cron> {
        self.incremental.iter().chain(&self.full).collect()
    }

    /// The smallest gap between two backups, milliseconds, without blackouts.
    pub(super) fn smallest_gap_ms(&self) -> Option<i64> {
        gaps(&self.backups()).map(|Gaps { smallest, .. }| i64::from(smallest) * MINUTE_MS)
    }

    /// The largest gap between the starts of two backups, milliseconds. Without blackouts it is exact, but for
    /// the hours that clocks are changed by; with them it is the largest of a year or of many runs.
    pub fn largest_gap_ms(&self) -> Option<i64> {
        if self.blackouts.is_empty() {
            return gaps(&self.backups()).map(|g| i64::from(g.largest) * MINUTE_MS);
        }
        let only_backups = Calendar { verify: None, prune: None, jitter_ms: 0, ..self.clone() };
        let runs = only_backups.coming(REFERENCE, TimeMs(REFERENCE.0 + YEAR_MS), LOOKED_AT_MAX);
        let starts: Vec<i64> =
            runs.iter().filter(|run| matches!(run.start, Start::At(_))).map(|run| run.at().0).collect();
        starts.windows(2).map(|pair| pair[1] - pair[0]).max()
    }
}

/// A number from 0 to `most` that follows from `parts`.
pub fn share(parts: &[&[u8]], most: i64) -> i64 {
    let mut hash = blake3::Hasher::new();
    for part in parts {
        hash.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    let mut first = [0; 8];
    hash.finalize_xof().fill(&mut first);
    // 63 bits, so that it fits; the bias is far below a millisecond.
    (u64::from_le_bytes(first) >> 1) as i64 % most.max(0).saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const HOUR: i64 = 60 * MINUTE_MS;

    fn calendar(incremental: &str, full: &str, blackouts: &[(&str, i64)]) -> Calendar {
        let cron = |text: &str| (!text.is_empty()).then(|| Cron::parse(text).unwrap());
        let blackout = |(start, hours): &(&str, i64)| Blackout::new(Cron::parse(start).unwrap(), hours * HOUR);
        Calendar {
            policy: "p".into(),
            zone: Tz::UTC,
            incremental: cron(incremental),
            full: cron(full),
            verify: None,
            prune: None,
            jitter_ms: 0,
            deadline_ms: None,
            blackouts: blackouts.iter().map(blackout).collect(),
        }
    }

    /// Hours from Friday 2027-01-01 00:00 at which the first runs start, with their names.
    fn runs(calendar: &Calendar, count: usize) -> Vec<(String, i64)> {
        let runs = calendar.coming(TimeMs(REFERENCE.0 - 1), TimeMs(i64::MAX / 2), count);
        runs.iter().map(|run| (run.task.name().to_owned(), (run.at().0 - REFERENCE.0) / HOUR)).collect()
    }

    fn shown(list: &[(String, i64)]) -> String {
        list.iter().map(|(name, hour)| format!("{}@{hour}", &name[..1])).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn incrementals_give_way_to_fulls() {
        let daily = calendar("0 2 * * *", "0 2 * * 0", &[]);
        assert_eq!(shown(&runs(&daily, 4)), "i@2 i@26 f@50 i@74");
        let third = &daily.coming(REFERENCE, TimeMs(i64::MAX / 2), 4)[2];
        assert_eq!(third.instead_of, [(Task::Incremental, TimeMs(REFERENCE.0 + 50 * HOUR))]);
    }

    #[test]
    fn what_is_due_in_a_blackout_waits_and_becomes_one() {
        let hourly = calendar("0 * * * *", "0 9 * * *", &[("0 8 * * *", 3)]);
        assert_eq!(shown(&runs(&hourly, 10)), "i@0 i@1 i@2 i@3 i@4 i@5 i@6 i@7 f@11 i@12");
        let after = &hourly.coming(REFERENCE, TimeMs(i64::MAX / 2), 9)[7];
        assert_eq!((after.task, after.instead_of.len()), (Task::Full, 4));
        // The same although the window ends inside the blackout.
        let cut = hourly.coming(REFERENCE, TimeMs(REFERENCE.0 + 8 * HOUR), 100);
        assert_eq!(cut.last().map(|run| run.task), Some(Task::Full));
    }

    #[test]
    fn what_waits_too_long_is_missed() {
        let mut daily = calendar("0 8 * * *", "", &[("0 8 * * 1-5", 3)]);
        daily.deadline_ms = Some(2 * HOUR);
        let runs = daily.coming(TimeMs(REFERENCE.0 - 1), TimeMs(REFERENCE.0 + 48 * HOUR), 9);
        assert_eq!(runs[0].start, Start::Missed(TimeMs(REFERENCE.0 + 11 * HOUR)));
        assert_eq!(runs[1].start, Start::At(TimeMs(REFERENCE.0 + 32 * HOUR)));
        assert!(daily.ever_starts(Task::Incremental));
        daily.blackouts = vec![Blackout::new(Cron::parse("0 7 * * *").unwrap(), 4 * HOUR)];
        assert!(!daily.ever_starts(Task::Incremental));
        daily.deadline_ms = Some(3 * HOUR);
        assert!(daily.ever_starts(Task::Incremental));
    }

    #[test]
    fn blackouts_that_never_end() {
        for blackouts in [&[("0 0 * * *", 24)][..], &[("0 0 * * *", 12), ("0 12 * * *", 12)], &[("* * * * *", 1)]] {
            let never = calendar("@hourly", "", blackouts);
            assert!(!never.ever_starts(Task::Incremental), "{blackouts:?}");
            assert!(calendar("@hourly", "", &[]).ever_starts(Task::Incremental));
        }
        assert!(calendar("0 0 29 2 *", "", &[("@daily", 23)]).ever_starts(Task::Incremental));
    }

    #[test]
    fn jitter_and_blackouts() {
        let mut daily = calendar("0 7 * * *", "", &[("30 7 * * *", 2)]);
        daily.jitter_ms = HOUR;
        let starts: BTreeSet<i64> = (0..40)
            .map(|day| {
                let due = TimeMs(REFERENCE.0 + day * 24 * HOUR + 7 * HOUR);
                let Start::At(at) = daily.start(Task::Incremental, due) else { panic!("missed") };
                at.0 - due.0
            })
            .collect();
        // Before the blackout, anywhere; else at its end.
        assert!(starts.iter().all(|ms| (0..HOUR / 2).contains(ms) || *ms == 5 * HOUR / 2), "{starts:?}");
        assert!(starts.len() > 10 && starts.contains(&(5 * HOUR / 2)), "{starts:?}");
        // Where that is too late, the jitter is left out.
        daily.deadline_ms = Some(HOUR);
        let start = |day: i64| daily.start(Task::Incremental, TimeMs(REFERENCE.0 + (24 * day + 7) * HOUR));
        assert!((0..40).all(|day| matches!(start(day), Start::At(_))));
    }

    #[test]
    fn shares_are_in_range_and_differ() {
        let all: BTreeSet<i64> = (0..1000i64).map(|n| share(&[b"policy", &n.to_le_bytes()], 299_999)).collect();
        assert!(all.len() > 990 && all.iter().all(|n| (0..300_000).contains(n)));
        assert_eq!(share(&[b"x"], 0), 0);
        assert_eq!(share(&[b"x"], -5), 0);
        assert!(share(&[b"x"], i64::MAX) >= 0);
    }

    #[test]
    fn gaps_with_blackouts() {
        assert_eq!(calendar("@hourly", "", &[]).largest_gap_ms(), Some(HOUR));
        assert_eq!(calendar("@hourly", "", &[("0 8 * * *", 3)]).largest_gap_ms(), Some(4 * HOUR));
        assert_eq!(calendar("", "@weekly", &[]).largest_gap_ms(), Some(7 * 24 * HOUR));
    }

    proptest! {
        /// Runs are in order, none inside a blackout, none twice, and none is lost.
        #[test]
        fn order(minute in 0u8..60, hours in 1u8..12, weekday in 0u8..7, from in 0u8..24, long in 1i64..20) {
            let c = calendar(
                &format!("{minute} */{hours} * * *"),
                &format!("{minute} 0 * * {weekday}"),
                &[(&format!("15 {from} * * *"), long)],
            );
            let until = TimeMs(REFERENCE.0 + 20 * 24 * HOUR);
            let runs = c.coming(REFERENCE, until, usize::MAX);
            prop_assert!(runs.windows(2).all(|pair| pair[0].at() < pair[1].at()));
            prop_assert!(runs.iter().all(|run| c.blackout_end(run.at()).is_none()));
            let mut due: Vec<_> = runs.iter().map(|r| (r.due, r.task)).collect();
            due.extend(runs.iter().flat_map(|r| r.instead_of.iter().map(|(task, due)| (*due, *task))));
            due.sort();
            let mut wanted = Vec::new();
            for task in Task::ALL {
                let times = std::iter::successors(c.next_due(task, REFERENCE), |at| c.next_due(task, *at));
                wanted.extend(times.take_while(|at| *at <= until).map(|at| (at, task)));
            }
            wanted.sort();
            prop_assert!(wanted.iter().all(|one| due.contains(one)));
        }
    }
}
