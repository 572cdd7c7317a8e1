//! What was taken between backups so far. It comes by the second: not each of it is recorded, and not each of it is told.
//!
//! Of a source a record is made of the first one, of each that ended otherwise than the one before, of each that had to
//! be a whole snapshot, and else of one an hour; its figures count all since the record before. Of a policy people are told
//! when something has been wrong for a while, when it became worse, and when it is well again. Kept in memory: a daemon
//! that begins records its first one.

use super::report::Fate;
use crate::base::TimeMs;
use crate::ops::etcd::Tried;
use crate::region::lock;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// How long one record stands for all that end like it.
const RECORD_MS: i64 = 3_600_000;
/// How long something may be wrong before people are told: this, and so many periods.
const PATIENCE_MS: i64 = 5 * 60_000;
const PATIENCE_PERIODS: i64 = 3;

/// One that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct One {
    /// What became of the source.
    pub fate: Fate,
    /// Whether there is a new snapshot.
    pub stored: bool,
    /// Whether it is a whole one.
    pub whole: bool,
}

/// What is done about a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Turn {
    /// What it has to say is said: it ended otherwise than the one before.
    pub said: bool,
    /// Who wants to know is told.
    pub told: bool,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Tally {
    /// By policy and source.
    rows: Mutex<BTreeMap<(String, String), Row>>,
    /// By policy and source, too.
    courses: Mutex<BTreeMap<(String, String), Course>>,
    /// When whole snapshots were tried, by policy and source.
    tried: Mutex<BTreeMap<(String, String), Arc<Tried>>>,
}

#[derive(Debug, Default)]
struct Row {
    recorded: Option<(TimeMs, Fate)>,
    stored: u64,
    unchanged: u64,
    failed: u64,
}

#[derive(Debug, Default)]
struct Course {
    last: Option<Fate>,
    /// Since when something is wrong.
    since: Option<TimeMs>,
    told: Option<Fate>,
}

impl Tally {
    /// Counts one; the figures of its record, if one is to be made.
    pub fn count(&self, policy: &str, source: &str, one: One, now: TimeMs) -> Option<[(&'static str, u64); 3]> {
        let mut rows = lock(&self.rows);
        let row = rows.entry((policy.to_owned(), source.to_owned())).or_default();
        match (one.fate, one.stored) {
            (Fate::Failed | Fate::Excluded, _) => row.failed += 1,
            (_, true) => row.stored += 1,
            (_, false) => row.unchanged += 1,
        }
        let worth = match row.recorded {
            None => true,
            Some((_, before)) if before != one.fate => true,
            // One that stored nothing has nothing to show for the hour; the next one will, in a minute.
            Some((at, _)) => {
                let over = !(0..RECORD_MS).contains(&now.0.saturating_sub(at.0));
                one.whole || over && (one.stored || one.fate != Fate::Protected)
            }
        };
        worth.then(|| {
            let counted = std::mem::replace(row, Row { recorded: Some((now, one.fate)), ..Row::default() });
            [("deltas", counted.stored), ("deltas_failed", counted.failed), ("deltas_unchanged", counted.unchanged)]
        })
    }

    /// Where it is noted when a whole snapshot of a source was tried instead.
    pub fn tried(&self, policy: &str, source: &str) -> Arc<Tried> {
        let mut tried = lock(&self.tried);
        Arc::clone(tried.entry((policy.to_owned(), source.to_owned())).or_default())
    }

    /// What is done about a run of a policy that comes so often, milliseconds, in which this became of its sources: what is
    /// new of any of them is said and told.
    pub fn turn(&self, policy: &str, ends: &[(&str, Fate)], now: TimeMs, every_ms: i64) -> Turn {
        let mut courses = lock(&self.courses);
        ends.iter().fold(Turn::default(), |all, (source, fate)| {
            let course = courses.entry((policy.to_owned(), (*source).to_owned())).or_default();
            let turn = course.turn(*fate, now, every_ms);
            Turn { said: all.said || turn.said, told: all.told || turn.told }
        })
    }
}

impl Course {
    fn turn(&mut self, fate: Fate, now: TimeMs, every_ms: i64) -> Turn {
        let before = self.last.replace(fate);
        let said = before != Some(fate);
        match fate {
            // That others are at work on it is nobody's fault, and says nothing of how it is.
            Fate::Excluded => return Turn { said, told: false },
            Fate::Protected => {
                self.since = None;
                // The first one, too: what a daemon before this one has told is not known here.
                return Turn { said, told: self.told.take().is_some() || before.is_none() };
            }
            Fate::Degraded | Fate::Failed => {}
        }
        let since = *self.since.get_or_insert(now);
        let patience = PATIENCE_MS.max(every_ms.saturating_mul(PATIENCE_PERIODS));
        let told = now.0.saturating_sub(since.0) >= patience && self.told < Some(fate);
        if told {
            self.told = Some(fate);
        }
        Turn { said, told }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: One = One { fate: Fate::Protected, stored: true, whole: false };
    const BAD: One = One { fate: Fate::Failed, stored: false, whole: false };
    const QUIET: One = One { stored: false, ..GOOD };

    /// What is recorded of these, a second apart: the number of each, and its figures.
    fn recorded(all: impl IntoIterator<Item = One>) -> Vec<(usize, [u64; 3])> {
        let tally = Tally::default();
        let count = |(n, one)| Some((n, tally.count("p", "s", one, TimeMs(n as i64 * 1000))?.map(|(_, value)| value)));
        all.into_iter().enumerate().filter_map(count).collect()
    }

    #[test]
    fn a_day_by_the_second_is_a_record_an_hour_with_everything_counted() {
        let day = recorded(std::iter::repeat_n(GOOD, 86_400));
        assert_eq!(day.len(), 24);
        assert_eq!(&day[..2], &[(0, [1, 0, 0]), (3600, [3600, 0, 0])]);
        let quiet = recorded((0..7300).map(|n| if n % 60 == 0 { GOOD } else { QUIET }));
        assert_eq!(quiet, [(0, [1, 0, 0]), (3600, [60, 0, 3540]), (7200, [60, 0, 3540])]);
    }

    #[test]
    fn changes_of_state_and_whole_ones_are_recorded_at_once() {
        let whole = One { whole: true, ..GOOD };
        let degraded = One { fate: Fate::Degraded, ..GOOD };
        let all = [GOOD, GOOD, BAD, BAD, BAD, QUIET, GOOD, whole, degraded, degraded, GOOD];
        let wanted = [(0, [1, 0, 0]), (2, [1, 1, 0]), (5, [0, 2, 1]), (7, [2, 0, 0]), (8, [1, 0, 0]), (10, [2, 0, 0])];
        assert_eq!(recorded(all), wanted);
        // What goes on to fail is recorded once an hour, too.
        assert_eq!(
            recorded(std::iter::repeat_n(BAD, 7201)),
            [(0, [0, 1, 0]), (3600, [0, 3600, 0]), (7200, [0, 3600, 0])]
        );
    }

    #[test]
    fn people_are_told_after_a_while_once_and_when_it_is_well_again() {
        let tally = Tally::default();
        let turn = |fate, second: i64| tally.turn("p", &[("s", fate)], TimeMs(second * 1000), 30_000);
        let (nothing, said) = (Turn::default(), Turn { said: true, told: false });
        assert_eq!(turn(Fate::Protected, 0), Turn { said: true, told: true });
        assert_eq!(turn(Fate::Protected, 30), nothing);
        // A short one is nobody's business but the log's.
        assert_eq!([turn(Fate::Failed, 60), turn(Fate::Protected, 90)], [said, said]);
        assert_eq!(turn(Fate::Degraded, 120), said);
        assert!((121..420).all(|second| turn(Fate::Degraded, second) == nothing));
        assert_eq!(turn(Fate::Degraded, 420), Turn { said: false, told: true });
        assert_eq!(turn(Fate::Degraded, 421), nothing);
        assert_eq!(turn(Fate::Failed, 450), Turn { said: true, told: true });
        assert_eq!(turn(Fate::Degraded, 480), said);
        assert_eq!(turn(Fate::Failed, 510), said);
        assert_eq!(turn(Fate::Protected, 540), Turn { said: true, told: true });
        assert_eq!(turn(Fate::Protected, 570), nothing);
        // Where they are far apart, three of them.
        let slow = |second: i64| tally.turn("q", &[("s", Fate::Failed)], TimeMs(second * 1000), 600_000).told;
        assert_eq!([0, 600, 1200, 1800].map(slow), [false, false, false, true]);
    }

    #[test]
    fn of_several_sources_each_is_told() {
        let tally = Tally::default();
        let turn = |a, b, second: i64| tally.turn("p", &[("a", a), ("b", b)], TimeMs(second * 1000), 30_000);
        use Fate::{Excluded, Failed, Protected};
        let (nothing, said, told) =
            (Turn::default(), Turn { said: true, told: false }, Turn { said: false, told: true });
        turn(Protected, Protected, 0);
        assert_eq!([turn(Failed, Protected, 30), turn(Failed, Protected, 330)], [said, told]);
        // The second one fails while the first still does.
        assert_eq!(
            [turn(Failed, Failed, 360), turn(Failed, Failed, 390), turn(Failed, Failed, 660)],
            [said, nothing, told]
        );
        assert_eq!(turn(Protected, Failed, 690), Turn { said: true, told: true }, "the first is well again");
        // Left to others: said once, and neither well nor worse.
        assert_eq!([turn(Protected, Excluded, 720), turn(Protected, Excluded, 750)], [said, nothing]);
        assert_eq!(turn(Protected, Protected, 780), Turn { said: true, told: true });
        assert!(Arc::ptr_eq(&tally.tried("p", "a"), &tally.tried("p", "a")));
        assert!(!Arc::ptr_eq(&tally.tried("p", "a"), &tally.tried("p", "b")));
    }
}
