//! How far apart the times of schedules are, on a calendar without changes of the clock.

use super::cron::Cron;
use chrono::NaiveDate;

/// Days that are looked at: they hold two leap days.
const DAYS: usize = 6 * 366;

/// Minutes between neighbouring times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gaps {
    pub smallest: u32,
    pub largest: u32,
}

/// The gaps between the times of a policy's schedules (at most eight) together; `None` where two times are more
/// than six years apart.
pub(super) fn gaps(crons: &[&Cron]) -> Option<Gaps> {
    let mut found: Option<Gaps> = None;
    each_gap(crons, |gap| {
        found = Some(found.map_or(gap, |found| found.join(gap)));
        true
    });
    found
}

/// Whether no gap between the times of a schedule is longer than so many minutes.
pub(super) fn never_longer(cron: &Cron, minutes: i64) -> bool {
    let mut any = false;
    each_gap(&[cron], |gap| {
        any = true;
        i64::from(gap.largest) <= minutes
    }) && any
}

/// Shows the gaps inside and between days until `look` has seen enough; whether it has seen all.
fn each_gap(crons: &[&Cron], mut look: impl FnMut(Gaps) -> bool) -> bool {
    let mut days: Vec<(u8, Day)> = Vec::new();
    let mut before: Option<u32> = None;
    let Some(first) = NaiveDate::from_ymd_opt(2027, 1, 1) else { return true };
    for (n, date) in first.iter_days().take(DAYS).enumerate() {
        let due = crons.iter().enumerate().fold(0, |due, (bit, cron)| due | u8::from(cron.on(date)) << bit);
        if due == 0 {
            continue;
        }
        let known = days.iter().position(|(which, _)| *which == due);
        let at = known.unwrap_or_else(|| {
            let on = crons.iter().enumerate().filter(|(bit, _)| due >> bit & 1 == 1).map(|(_, cron)| *cron);
            days.push((due, Day::of(on)));
            days.len() - 1
        });
        let day = &days[at].1;
        let midnight = n as u32 * 24 * 60;
        let joint = before.map(|before| midnight + day.first - before).map(|gap| Gaps { smallest: gap, largest: gap });
        before = Some(midnight + day.last);
        let inside = day.inside.filter(|_| known.is_none());
        if ![inside, joint].into_iter().flatten().all(&mut look) {
            return false;
        }
    }
    true
}

impl Gaps {
    fn join(self, other: Gaps) -> Gaps {
        Gaps { smallest: self.smallest.min(other.smallest), largest: self.largest.max(other.largest) }
    }
}

/// A day on which certain schedules are due.
struct Day {
    first: u32,
    last: u32,
    inside: Option<Gaps>,
}

impl Day {
    fn of<'c>(crons: impl Iterator<Item = &'c Cron>) -> Day {
        let mut minutes: Vec<u32> = crons.flat_map(Cron::minutes).collect();
        minutes.sort_unstable();
        minutes.dedup();
        let between = minutes.windows(2).map(|pair| pair[1] - pair[0]);
        let inside = between.map(|gap| Gaps { smallest: gap, largest: gap }).reduce(Gaps::join);
        let (first, last) = (minutes.first().copied().unwrap_or(0), minutes.last().copied().unwrap_or(0));
        Day { first, last, inside }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::TimeMs;
    use proptest::prelude::*;

    fn of(texts: &[&str]) -> Option<(u32, u32)> {
        let crons: Vec<Cron> = texts.iter().map(|text| Cron::parse(text).unwrap()).collect();
        gaps(&crons.iter().collect::<Vec<_>>()).map(|g| (g.smallest, g.largest))
    }

    #[test]
    fn as_one_reckons() {
        let day = 24 * 60;
        assert_eq!(of(&["30 2 * * *"]), Some((day, day)));
        assert_eq!(of(&["0 */6 * * *"]), Some((360, 360)));
        assert_eq!(of(&["0 3 * * 1-5"]), Some((day, 3 * day)));
        assert_eq!(of(&["0 3 * * 1-6", "0 1 * * 0"]), Some((day - 120, day + 120)));
        assert_eq!(of(&["0 3 * * *", "0 3 * * 0"]), Some((day, day)));
        assert_eq!(of(&["@monthly"]), Some((28 * day, 31 * day)));
        assert_eq!(of(&["* 8-9 * * *"]), Some((1, day - 119)));
        assert_eq!(of(&["0 0 29 2 *"]), Some((1461 * day, 1461 * day)));
        assert_eq!(of(&["0 0 13 * 5"]), Some((day, 7 * day)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        /// Against the times themselves.
        #[test]
        fn as_the_schedule_runs(minute in 0u32..60, hour in 0u32..24, step in 1u32..12, weekday in 0u32..7) {
            let text = format!("{minute} {hour}/{step} * * {weekday},3");
            let cron = Cron::parse(&text).unwrap();
            let mut at = TimeMs(1_798_761_600_000);
            let mut all = Vec::new();
            for _ in 0..200 {
                let next = cron.next_after(chrono_tz::UTC, at).unwrap();
                all.push(((next.0 - at.0) / 60_000) as u32);
                at = next;
            }
            let wanted = (*all[1..].iter().min().unwrap(), *all[1..].iter().max().unwrap());
            prop_assert_eq!(of(&[&text]), Some(wanted));
        }
    }
}
