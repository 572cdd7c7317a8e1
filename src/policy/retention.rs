//! Retention: which snapshots of one source are kept, and by which rule. Pure; nothing is deleted here.
//!
//! Grandfather, father, son: of each hour, day, ISO week, month and year of the policy's time zone the newest
//! snapshot counts, for as many of these periods as the rule says and that have one. In each period a snapshot
//! without errors is preferred to a newer one with errors. What no rule keeps may be forgotten, except the last
//! good snapshot of the source in each place, held ones, and those whose time cannot be believed.
//!
//! Snapshots of a source that was suddenly small never push out others: the rules are applied to the others alone,
//! and a small one is kept where they would keep it if it counted; the newest of them while nobody has said that it
//! is right so.

use super::shrink::Small;
use crate::base::{SessionId, TimeMs};
use chrono::{DateTime, Datelike, Timelike};
use chrono_tz::Tz;
use std::collections::{BTreeMap, BTreeSet};

/// How many are kept of each period. All zero: everything is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    /// The newest.
    pub last: u32,
    /// Hours.
    pub hourly: u32,
    /// Days.
    pub daily: u32,
    /// ISO weeks.
    pub weekly: u32,
    /// Months.
    pub monthly: u32,
    /// Years.
    pub yearly: u32,
    /// Everything not older than this before the newest snapshot, milliseconds.
    pub within_ms: i64,
}

impl Retention {
    /// Whether it keeps everything.
    pub fn keeps_all(&self) -> bool {
        *self == Retention::default()
    }
}

/// A snapshot as retention sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Snapshot.
    pub sid: SessionId,
    /// When it was made, by the time that is believed.
    pub time: TimeMs,
    /// Whether everything could be read.
    pub good: bool,
    /// Whether a hold is on it.
    pub held: bool,
    /// Whether its claimed time and the stores' time differ too much.
    pub suspect: bool,
    /// Whether the source was suddenly small.
    pub small: Small,
    /// Where it is complete, a bit for each place.
    pub places: u32,
}

/// Why a snapshot is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// There is no rule.
    NoRule,
    /// Among the newest.
    Last,
    /// Not old enough.
    Within,
    /// The newest of its hour.
    Hourly,
    /// Of its day.
    Daily,
    /// Of its week.
    Weekly,
    /// Of its month.
    Monthly,
    /// Of its year.
    Yearly,
    /// The last good one of its source, in one of the places at least.
    LastGood,
    /// The newest of a source that was suddenly small, and nobody has said yet that it is right so.
    Shrunk,
    /// Held.
    Held,
    /// Its time cannot be believed: a person decides.
    TimeSuspect,
}

impl Reason {
    /// A word for reports.
    pub fn name(self) -> &'static str {
        match self {
            Reason::NoRule => "no-rule",
            Reason::Last => "last",
            Reason::Within => "within",
            Reason::Hourly => "hourly",
            Reason::Daily => "daily",
            Reason::Weekly => "weekly",
            Reason::Monthly => "monthly",
            Reason::Yearly => "yearly",
            Reason::LastGood => "last-good",
            Reason::Shrunk => "shrunk",
            Reason::Held => "held",
            Reason::TimeSuspect => "time-suspect",
        }
    }
}

/// The verdict on one snapshot: kept for these reasons, or for none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The snapshot.
    pub candidate: Candidate,
    /// Why it is kept, each reason once; empty: it may be forgotten.
    pub reasons: Vec<Reason>,
}

/// Judges all snapshots of one source; newest first.
pub fn judge(candidates: &[Candidate], rules: &Retention, zone: Tz) -> Vec<Verdict> {
    let mut sorted = candidates.to_vec();
    sorted.sort_by_key(|c| std::cmp::Reverse((c.time, c.sid)));
    let believed: Vec<usize> = (0..sorted.len()).filter(|n| !sorted[*n].suspect).collect();
    let usual: Vec<usize> = believed.iter().copied().filter(|n| sorted[*n].small == Small::No).collect();
    let mut reasons: Vec<Vec<Reason>> = vec![Vec::new(); sorted.len()];
    for (n, reason) in kept_by_rules(&sorted, &usual, rules, zone) {
        reasons[n].push(reason);
    }
    for (n, reason) in kept_by_rules(&sorted, &believed, rules, zone) {
        if sorted[n].small != Small::No {
            reasons[n].push(reason);
        }
    }
    for n in last_good(&sorted, &usual, &believed) {
        reasons[n].push(Reason::LastGood);
    }
    let shrunk = believed.iter().copied().find(|n| sorted[*n].small == Small::Waiting);
    for (n, c) in sorted.iter().enumerate() {
        let more = [(shrunk == Some(n), Reason::Shrunk), (c.held, Reason::Held), (c.suspect, Reason::TimeSuspect)];
        reasons[n].extend(more.into_iter().filter(|(is, _)| *is).map(|(_, reason)| reason));
    }
    sorted.into_iter().zip(reasons).map(|(candidate, reasons)| Verdict { candidate, reasons }).collect()
}

/// What the rules keep of `counted`, newest first.
fn kept_by_rules(sorted: &[Candidate], counted: &[usize], rules: &Retention, zone: Tz) -> Vec<(usize, Reason)> {
    let mut kept: Vec<(usize, Reason)> = Vec::new();
    if rules.keeps_all() {
        kept.extend(counted.iter().map(|n| (*n, Reason::NoRule)));
    }
    kept.extend(counted.iter().take(rules.last as usize).map(|n| (*n, Reason::Last)));
    if let (Some(newest), true) = (counted.first(), rules.within_ms > 0) {
        let oldest = sorted[*newest].time.0.saturating_sub(rules.within_ms);
        kept.extend(counted.iter().filter(|n| sorted[**n].time.0 >= oldest).map(|n| (*n, Reason::Within)));
    }
    for (reason, count) in [
        (Reason::Hourly, rules.hourly),
        (Reason::Daily, rules.daily),
        (Reason::Weekly, rules.weekly),
        (Reason::Monthly, rules.monthly),
        (Reason::Yearly, rules.yearly),
    ] {
        if count > 0 {
            kept.extend(best_of_periods(sorted, counted, reason, count, zone).map(|n| (n, reason)));
        }
    }
    kept
}

/// The last good one, and the last good one of each place: a place that is behind must not be left with nothing.
/// Better one with errors than none, better a small one than none.
fn last_good(sorted: &[Candidate], usual: &[usize], believed: &[usize]) -> BTreeSet<usize> {
    let newest = |there: &dyn Fn(&Candidate) -> bool| {
        let first = |among: &[usize], good: bool| {
            among.iter().copied().find(|n| there(&sorted[*n]) && (sorted[*n].good || !good))
        };
        first(usual, true).or_else(|| first(usual, false)).or_else(|| first(believed, false))
    };
    let places = sorted.iter().fold(0, |all, c| all | c.places);
    let of_places = (0..u32::BITS).map(|bit| 1 << bit).filter(|bit| places & bit != 0);
    of_places.filter_map(|bit| newest(&|c| c.places & bit != 0)).chain(newest(&|_| true)).collect()
}

/// The best snapshot of each of the newest `count` periods that have one.
fn best_of_periods(
    sorted: &[Candidate],
    counted: &[usize],
    rule: Reason,
    count: u32,
    zone: Tz,
) -> impl Iterator<Item = usize> {
    let mut best: BTreeMap<(i32, u32, u32), usize> = BTreeMap::new();
    for n in counted {
        let period = period_of(sorted[*n].time, rule, zone);
        let before = best.entry(period).or_insert(*n);
        if sorted[*n].good && !sorted[*before].good {
            *before = *n;
        }
    }
    best.into_values().rev().take(count as usize)
}

/// The period in which a time lies: year, day or week or month, hour.
fn period_of(time: TimeMs, rule: Reason, zone: Tz) -> (i32, u32, u32) {
    // Beyond the calendar's end there is one period.
    let Some(at) = DateTime::from_timestamp_millis(time.0) else { return (i32::MAX, 0, 0) };
    let local = at.with_timezone(&zone);
    match rule {
        // The second of two equal hours is the same hour of the day.
        Reason::Hourly => (local.year(), local.ordinal(), local.hour() + 1),
        Reason::Weekly => (local.iso_week().year(), local.iso_week().week(), 0),
        Reason::Monthly => (local.year(), local.month(), 0),
        Reason::Yearly => (local.year(), 0, 0),
        _ => (local.year(), local.ordinal(), 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOUR: i64 = 3_600_000;

    fn at(text: &str) -> Candidate {
        let time = TimeMs(DateTime::parse_from_rfc3339(text).unwrap().timestamp_millis());
        let mut sid = [0; 16];
        sid[..8].copy_from_slice(&time.0.to_be_bytes());
        Candidate { sid: SessionId(sid), time, good: true, held: false, suspect: false, small: Small::No, places: 0 }
    }

    fn kept(candidates: &[Candidate], rules: Retention, zone: Tz) -> Vec<String> {
        let text = |c: &Candidate| DateTime::from_timestamp_millis(c.time.0).unwrap().format("%F %H").to_string();
        let all = judge(candidates, &rules, zone);
        all.iter().filter(|v| !v.reasons.is_empty()).map(|v| text(&v.candidate)).collect()
    }

    #[test]
    fn days_weeks_and_months_of_the_zone() {
        let days: Vec<Candidate> = (1..=31).map(|d| at(&format!("2027-01-{d:02}T23:30:00Z"))).collect();
        let rules = Retention { daily: 2, weekly: 3, ..Retention::default() };
        // 31 January 2027 is a Sunday; in Berlin 23:30 UTC is the next day.
        assert_eq!(kept(&days, rules, Tz::UTC), ["2027-01-31 23", "2027-01-30 23", "2027-01-24 23", "2027-01-17 23"]);
        let berlin = kept(&days, rules, chrono_tz::Europe::Berlin);
        assert_eq!(berlin, ["2027-01-31 23", "2027-01-30 23", "2027-01-23 23"]);
        let monthly = Retention { monthly: 2, ..Retention::default() };
        assert_eq!(kept(&days, monthly, chrono_tz::Europe::Berlin), ["2027-01-31 23", "2027-01-30 23"]);
    }

    #[test]
    fn one_good_is_preferred_and_one_good_stays() {
        let mut day = vec![at("2027-01-01T01:00:00Z"), at("2027-01-01T02:00:00Z"), at("2027-01-02T01:00:00Z")];
        day[1].good = false;
        day[2].good = false;
        let rules = Retention { daily: 2, ..Retention::default() };
        assert_eq!(kept(&day, rules, Tz::UTC), ["2027-01-02 01", "2027-01-01 01"]);
        let last = Retention { last: 1, ..Retention::default() };
        assert_eq!(kept(&day, last, Tz::UTC), ["2027-01-02 01", "2027-01-01 01"]);
        day[0].good = false;
        assert_eq!(kept(&day, last, Tz::UTC), ["2027-01-02 01"]);
        day[0].held = true;
        assert_eq!(kept(&day, last, Tz::UTC), ["2027-01-02 01", "2027-01-01 01"]);
    }

    #[test]
    fn a_time_that_cannot_be_believed_neither_counts_nor_displaces() {
        let mut all: Vec<Candidate> = (1..=5).map(|d| at(&format!("2027-01-{d:02}T01:00:00Z"))).collect();
        let mut forged = at("2099-01-01T00:00:00Z");
        forged.suspect = true;
        all.push(forged);
        let rules = Retention { last: 2, within_ms: 24 * HOUR, ..Retention::default() };
        assert_eq!(kept(&all, rules, Tz::UTC), ["2099-01-01 00", "2027-01-05 01", "2027-01-04 01"]);
    }

    proptest! {
        /// What must hold whatever the snapshots are.
        #[test]
        fn whatever_there_is(
            hours in proptest::collection::vec((0i64..20_000, any::<bool>(), 0u8..20), 0..120),
            counts in proptest::array::uniform6(0u32..5),
            within in 0i64..100,
        ) {
            let candidates: Vec<Candidate> = hours.iter().enumerate().map(|(n, (hour, good, odd))| Candidate {
                sid: SessionId([n as u8; 16]), time: TimeMs(hour * HOUR), good: *good, held: *odd == 0, suspect: *odd == 1,
                small: match odd { 2 => Small::Once, 3 => Small::Waiting, _ => Small::No },
                places: u32::from(*odd).wrapping_mul(7) & 3,
            }).collect();
            let [last, hourly, daily, weekly, monthly, yearly] = counts;
            let rules = Retention { last, hourly, daily, weekly, monthly, yearly, within_ms: within * HOUR };
            let verdicts = judge(&candidates, &rules, chrono_tz::America::New_York);
            prop_assert_eq!(verdicts.len(), candidates.len());
            for (reason, count) in [(Reason::Last, last), (Reason::Hourly, hourly), (Reason::Daily, daily),
                (Reason::Weekly, weekly), (Reason::Monthly, monthly), (Reason::Yearly, yearly)] {
                for usual in [true, false] {
                    let of = verdicts.iter().filter(|v| (v.candidate.small == Small::No) == usual);
                    prop_assert!(of.filter(|v| v.reasons.contains(&reason)).count() <= count as usize);
                }
            }
            let good = |v: &&Verdict| v.candidate.good && !v.candidate.suspect && v.candidate.small == Small::No;
            if let Some(newest_good) = verdicts.iter().find(good) {
                prop_assert!(!newest_good.reasons.is_empty());
            }
            for v in &verdicts {
                prop_assert!(!(v.candidate.held || v.candidate.suspect) || !v.reasons.is_empty());
                prop_assert!(!rules.keeps_all() || !v.reasons.is_empty());
            }
            // Forgetting changes nothing about what stays, but for the fallback to a period's next best.
            let stay: Vec<Candidate> = verdicts.iter().filter(|v| !v.reasons.is_empty()).map(|v| v.candidate).collect();
            let again = judge(&stay, &rules, chrono_tz::America::New_York);
            prop_assert!(again.iter().all(|v| !v.reasons.is_empty()), "a second look forgets more");
        }
    }
}
