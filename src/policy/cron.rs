//! Cron expressions as people know them from crontabs and CronJobs: five fields, or `@daily` and its kin.
//!
//! The crate `cron` has another dialect: a field for seconds, 1 for Sunday, days of month and of week both
//! needed. Expressions are therefore judged here, field by field, and handed to it as plain lists; where both
//! day fields are restricted it gets two schedules, and a day of either counts.
//!
//! Daylight saving: the crate is asked on a calendar without offsets, and the times that it names are turned
//! into instants here. A local time that is skipped runs once, at the first instant after the gap; a local time
//! that comes twice runs the first time only, unless the schedule is one for every hour: that is about what has passed
//! since, and not about the time of day. Times that fall together run once.

use super::name::{one_line, quoted};
use crate::base::TimeMs;
use crate::error::{Error, Kind, Result};
use chrono::{
    DateTime, Datelike, FixedOffset, MappedLocalTime, NaiveDate, NaiveDateTime, NaiveTime, Offset, TimeDelta, TimeZone,
    Utc,
};
use chrono_tz::Tz;
use std::str::FromStr;

/// Longest expression, in bytes.
const TEXT_BYTES_MAX: usize = 512;
/// Longest gap of a time zone that is looked through, in minutes: a zone has skipped a whole day.
const GAP_MINUTES_MAX: i64 = 2 * 24 * 60;
/// Where changes of clocks are looked for: two years from 2027-01-01 on, in steps of half an hour, at which all known
/// changes lie.
const CHANGES_FROM_S: i64 = 1_798_761_600;
const CHANGES_STEP_S: i64 = 30 * 60;
const CHANGES_STEPS: i64 = 2 * 366 * 48;

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
/// Days of each month; February in a leap year, since a schedule that fires then does fire.
const MONTH_DAYS: [u8; 12] = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];

/// One of the five fields.
struct Rules {
    name: &'static str,
    min: u8,
    max: u8,
    names: &'static [&'static str],
    /// Number of the first name.
    first: u8,
    /// Whether `?` stands for `*`, as it may in day fields.
    question: bool,
}

const MINUTE: Rules = Rules { name: "minute", min: 0, max: 59, names: &[], first: 0, question: false };
const HOUR: Rules = Rules { name: "hour", min: 0, max: 23, names: &[], first: 0, question: false };
const DAY: Rules = Rules { name: "day of month", min: 1, max: 31, names: &[], first: 0, question: true };
const MONTH: Rules = Rules { name: "month", min: 1, max: 12, names: &MONTHS, first: 1, question: false };
const WEEKDAY: Rules = Rules { name: "day of week", min: 0, max: 7, names: &WEEKDAYS, first: 0, question: true };

/// The values of a field, as bits, and whether it was left open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Field {
    bits: u64,
    open: bool,
}

impl Field {
    fn values(self) -> impl Iterator<Item = u8> {
        (0..64).filter(move |n| self.bits & (1 << n) != 0)
    }

    fn has(self, n: u8) -> bool {
        self.bits & (1 << n) != 0
    }

    /// As the crate reads it, with every value moved by `by`.
    fn list(self, by: u8) -> String {
        self.values().map(|n| (n + by).to_string()).collect::<Vec<_>>().join(",")
    }
}

/// A schedule: when something is due, in the local time of some zone.
#[derive(Debug, Clone)]
pub struct Cron {
    text: String,
    schedules: Vec<::cron::Schedule>,
    minute: Field,
    hour: Field,
    month: Field,
    /// Day of month and of week; a day that fits one of them counts.
    days: Vec<(Field, Field)>,
}

impl PartialEq for Cron {
    fn eq(&self, other: &Self) -> bool {
        self.schedules.iter().map(|s| s.source()).eq(other.schedules.iter().map(|s| s.source()))
    }
}

impl Cron {
    /// Five fields (minute, hour, day of month, month, day of week), or one of `@hourly`, `@daily`, `@midnight`,
    /// `@weekly`, `@monthly`, `@yearly`, `@annually`.
    ///
    /// # Errors
    /// [`Kind::Config`] for anything else, and for a schedule that never fires.
    pub fn parse(text: &str) -> Result<Cron> {
        let refuse = |why: String| {
            Error::new(Kind::Config, format!("{} is not a schedule: {why}", quoted(text)))
                .advise("five fields: minute hour day-of-month month day-of-week, like `30 2 * * *`; or `@daily`")
        };
        if text.len() > TEXT_BYTES_MAX {
            return Err(refuse(format!("it has more than {TEXT_BYTES_MAX} bytes")));
        }
        let expanded = expand(text.trim()).map_err(refuse)?;
        let fields: Vec<&str> = expanded.split_ascii_whitespace().collect();
        let &[minute, hour, day, month, weekday] = fields.as_slice() else {
            let count = fields.len();
            let seconds = if count > 5 { "; there is no field for seconds or years" } else { "" };
            return Err(refuse(format!("it has {count} fields instead of 5{seconds}")));
        };
        let read = |text, rules: &Rules| field(text, rules).map_err(|why| refuse(format!("{}: {why}", rules.name)));
        let (minute, hour, month) = (read(minute, &MINUTE)?, read(hour, &HOUR)?, read(month, &MONTH)?);
        let (day, weekday) = (read(day, &DAY)?, sunday_is_zero(read(weekday, &WEEKDAY)?));
        if weekday.open && !ever(day, month) {
            return Err(refuse("it never fires: no such day in these months".into()));
        }
        let all = |rules: &Rules| Field { bits: range_bits(rules.min, rules.max, 1), open: true };
        let days = match (day.open, weekday.open) {
            (false, false) => vec![(day, all(&WEEKDAY)), (all(&DAY), weekday)],
            _ => vec![(day, weekday)],
        };
        let build = |(day, weekday): (Field, Field)| {
            let weekdays = sunday_is_zero(weekday).list(1);
            let source = format!("0 {} {} {} {} {weekdays}", minute.list(0), hour.list(0), day.list(0), month.list(0));
            ::cron::Schedule::from_str(&source).map_err(|e| refuse(one_line(&e.to_string())))
        };
        let schedules = days.iter().copied().map(build).collect::<Result<_>>()?;
        let days = days.into_iter().map(|(day, weekday)| (day, sunday_is_zero(weekday))).collect();
        Ok(Cron { text: text.trim().to_owned(), schedules, minute, hour, month, days })
    }

    /// The expression as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The five fields as Kubernetes reads them: nicknames written out, Sunday as 0 and never as 7.
    pub fn five_fields(&self) -> String {
        let mut fields: Vec<String> =
            expand(&self.text).unwrap_or(&self.text).split_ascii_whitespace().map(str::to_owned).collect();
        // There a range of weekdays ends with 6, so that 7 is refused, and `1/2` never reaches Sunday.
        if let Some(last) = fields.last_mut().filter(|text| text.contains(['7', '/']))
            && let Ok(weekday) = field(last, &WEEKDAY)
        {
            *last = if weekday.open { "*".into() } else { sunday_is_zero(weekday).list(0) };
        }
        fields.join(" ")
    }

    /// The first times of day that a change of the zone's clocks skips and brings twice, in 2027 and 2028; `None`
    /// where it is due every hour, so that nothing is missed.
    pub fn clock_changes(&self, zone: Tz) -> (Option<NaiveTime>, Option<NaiveTime>) {
        let (mut skipped, mut doubled) = (None, None);
        if self.hour.values().count() == 24 {
            return (skipped, doubled);
        }
        let local = |step: i64| {
            let at = DateTime::<Utc>::from_timestamp(CHANGES_FROM_S + step * CHANGES_STEP_S, 0)?;
            Some(at.with_timezone(&zone).naive_local())
        };
        let due_in = |from: NaiveDateTime, to: NaiveDateTime| {
            let due = self.next_local(from - TimeDelta::seconds(1))?;
            (due < to).then(|| due.time())
        };
        for step in 0..CHANGES_STEPS {
            let (Some(before), Some(after)) = (local(step), local(step + 1)) else { break };
            let expected = before + TimeDelta::seconds(CHANGES_STEP_S);
            if after > expected {
                skipped = skipped.or_else(|| due_in(expected, after));
            } else if after < expected {
                doubled = doubled.or_else(|| due_in(after, expected));
            }
        }
        (skipped, doubled)
    }

    /// Whether it is due on a day of the calendar.
    pub(super) fn on(&self, date: NaiveDate) -> bool {
        let (day, weekday) = (date.day() as u8, date.weekday().num_days_from_sunday() as u8);
        let right = |(days, weekdays): &(Field, Field)| days.has(day) && weekdays.has(weekday);
        self.month.has(date.month() as u8) && self.days.iter().any(right)
    }

    /// The minutes of such a day at which it is due, in order.
    pub(super) fn minutes(&self) -> impl Iterator<Item = u32> {
        let hours = self.hour.values().map(u32::from);
        hours.flat_map(|hour| self.minute.values().map(move |minute| hour * 60 + u32::from(minute)))
    }

    /// The first time after `after` at which it is due in the zone; `None` beyond what the calendar knows.
    pub fn next_after(&self, zone: Tz, after: TimeMs) -> Option<TimeMs> {
        let instant = DateTime::<Utc>::from_timestamp_millis(after.0)?;
        // What lies before the local time of `after` also lies before it as an instant, whatever was skipped or
        // came twice: the search may begin there.
        let mut local = instant.with_timezone(&zone).naive_local();
        loop {
            local = self.next_local(local)?;
            let due = resolve(zone, local)?;
            if due > instant {
                let due = self.in_second_pass(zone, instant, due).unwrap_or(due);
                return Some(TimeMs(due.timestamp_millis()));
            }
        }
    }

    /// The first time after `after` and before `due`, which is the next one that comes for the first time, that comes for
    /// the second time; only where it is due every hour.
    fn in_second_pass(&self, zone: Tz, after: DateTime<Utc>, due: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let offset = |at: DateTime<Utc>| zone.offset_from_utc_datetime(&at.naive_utc()).fix();
        let name = after.naive_utc() + offset(after);
        let second = matches!(zone.from_local_datetime(&name), MappedLocalTime::Ambiguous(_, at) if at == after);
        if self.hour.values().count() < 24 || (offset(after) == offset(due) && !second) {
            return None;
        }
        // Clocks were set back before `after` or are between the two: asked by a clock that is not set at all.
        let by = |clock: FixedOffset| {
            let mut local = after.naive_utc() + clock;
            loop {
                local = self.next_local(local)?;
                let at = (local - clock).and_utc();
                if at >= due || offset(at) == clock {
                    return Some(at).filter(|at| *at < due);
                }
            }
        };
        [offset(after), offset(due)].into_iter().filter_map(by).min()
    }

    /// The first calendar time after another.
    fn next_local(&self, after: NaiveDateTime) -> Option<NaiveDateTime> {
        let after = after.and_utc();
        self.schedules.iter().filter_map(|s| s.after(&after).next()).min().map(|next| next.naive_utc())
    }
}

/// The instant at which a local time counts as come.
fn resolve(zone: Tz, local: NaiveDateTime) -> Option<DateTime<Utc>> {
    (0..GAP_MINUTES_MAX).find_map(|minutes| {
        let local = local.checked_add_signed(TimeDelta::minutes(minutes))?;
        match zone.from_local_datetime(&local) {
            MappedLocalTime::Single(at) | MappedLocalTime::Ambiguous(at, _) => Some(at.with_timezone(&Utc)),
            MappedLocalTime::None => None,
        }
    })
}

/// The fields that a nickname stands for.
fn expand(text: &str) -> std::result::Result<&str, String> {
    if text.contains('=') {
        return Err("a time zone belongs into the field for it".into());
    }
    match text {
        "@hourly" => Ok("0 * * * *"),
        "@daily" | "@midnight" => Ok("0 0 * * *"),
        "@weekly" => Ok("0 0 * * 0"),
        "@monthly" => Ok("0 0 1 * *"),
        "@yearly" | "@annually" => Ok("0 0 1 1 *"),
        other if other.starts_with('@') => {
            Err("known are @hourly, @daily, @midnight, @weekly, @monthly, @yearly, @annually".into())
        }
        fields => Ok(fields),
    }
}

fn field(text: &str, rules: &Rules) -> std::result::Result<Field, String> {
    let mut whole = Field { bits: 0, open: false };
    for part in text.split(',') {
        let one = item(part, rules)?;
        whole = Field { bits: whole.bits | one.bits, open: whole.open | one.open };
    }
    Ok(whole)
}

/// `*`, `n`, `a-b`, and each with `/step`.
fn item(text: &str, rules: &Rules) -> std::result::Result<Field, String> {
    let (range, step) = match text.split_once('/') {
        None => (text, None),
        Some((range, step)) => {
            let step = step.parse::<u8>().ok().filter(|n| *n > 0);
            (range, Some(step.ok_or_else(|| format!("{} has no valid step", quoted(text)))?))
        }
    };
    let any = range == "*" || (range == "?" && rules.question);
    // A week has no second Sunday at its end.
    let last = if rules.max == 7 { 6 } else { rules.max };
    let (from, to) = match range.split_once('-') {
        _ if any => (rules.min, last),
        Some((from, to)) => (value(from, rules)?, value(to, rules)?),
        // `5/10` is `5-59/10`.
        None => {
            let from = value(range, rules)?;
            (from, if step.is_some() { last.max(from) } else { from })
        }
    };
    if from > to {
        return Err(format!("{} ends before it begins", quoted(text)));
    }
    // A step leaves values out, so the field is restricted: as CronJobs have it.
    let open = any && step.is_none_or(|n| n == 1);
    Ok(Field { bits: range_bits(from, to, step.unwrap_or(1)), open })
}

fn value(text: &str, rules: &Rules) -> std::result::Result<u8, String> {
    let lower = text.to_ascii_lowercase();
    if let Some(n) = rules.names.iter().position(|name| *name == lower) {
        return Ok(rules.first + n as u8);
    }
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let number = text.parse::<u8>().ok().filter(|n| plain && (rules.min..=rules.max).contains(n));
    number.ok_or_else(|| format!("{} is not between {} and {}", quoted(text), rules.min, rules.max))
}

fn range_bits(from: u8, to: u8, step: u8) -> u64 {
    (from..=to).step_by(usize::from(step)).fold(0, |bits, n| bits | 1 << n)
}

/// 7 is Sunday as well as 0.
fn sunday_is_zero(field: Field) -> Field {
    let sunday = field.bits >> 7 & 1;
    Field { bits: field.bits & !(1 << 7) | sunday, ..field }
}

/// Whether one of the days is in one of the months.
fn ever(days: Field, months: Field) -> bool {
    let longest = months.values().filter_map(|m| MONTH_DAYS.get(usize::from(m).checked_sub(1)?)).max();
    days.values().next().zip(longest).is_some_and(|(first, longest)| first <= *longest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::Timelike;
    use proptest::prelude::*;

    fn times(expression: &str, zone: Tz, from: &str, count: usize) -> Vec<String> {
        let cron = Cron::parse(expression).unwrap_or_else(|e| panic!("{e}"));
        let mut at = TimeMs(DateTime::parse_from_rfc3339(from).unwrap().timestamp_millis());
        (0..count)
            .map(|_| {
                at = cron.next_after(zone, at).unwrap();
                DateTime::from_timestamp_millis(at.0).unwrap().with_timezone(&zone).format("%F %H:%M %z").to_string()
            })
            .collect()
    }

    #[test]
    fn as_people_know_them() {
        let utc = |e: &str| times(e, Tz::UTC, "2027-01-01T00:00:00Z", 3);
        assert_eq!(utc("30 2 * * *"), ["2027-01-01 02:30 +0000", "2027-01-02 02:30 +0000", "2027-01-03 02:30 +0000"]);
        assert_eq!(utc("@hourly")[0], "2027-01-01 01:00 +0000");
        // 2027-01-03 is a Sunday: 0, 7 and its name.
        for sunday in ["0 3 * * 0", "0 3 * * 7", "0 3 * * sun", "0 3 * * SUN", "@weekly"] {
            assert!(utc(sunday)[0].starts_with("2027-01-03"), "{sunday}");
        }
        for weekend in ["0 0 * * 6-7", "0 0 * * sat,sun", "0 0 * * 6,0"] {
            assert_eq!(utc(weekend), ["2027-01-02 00:00 +0000", "2027-01-03 00:00 +0000", "2027-01-09 00:00 +0000"]);
        }
        // A week that is stepped through ends with Saturday.
        assert_eq!(utc("0 0 * * 1/2"), ["2027-01-04 00:00 +0000", "2027-01-06 00:00 +0000", "2027-01-08 00:00 +0000"]);
        assert_eq!(utc("0 0 * * mon/2"), utc("0 0 * * 1,3,5"));
        assert_eq!(utc("0 0 * * 7/2"), utc("0 0 * * 7"));
        // Either day counts when both are restricted.
        assert_eq!(utc("0 0 13 * 5"), ["2027-01-08 00:00 +0000", "2027-01-13 00:00 +0000", "2027-01-15 00:00 +0000"]);
        // Both count when one of them is open.
        assert_eq!(utc("0 0 13 * *"), ["2027-01-13 00:00 +0000", "2027-02-13 00:00 +0000", "2027-03-13 00:00 +0000"]);
        assert_eq!(utc("0 0 ? * 1")[0], "2027-01-04 00:00 +0000");
        // A step restricts.
        assert_eq!(utc("0 0 */10 * 0"), ["2027-01-03 00:00 +0000", "2027-01-10 00:00 +0000", "2027-01-11 00:00 +0000"]);
        assert_eq!(utc("5/20 0 1 1 *"), ["2027-01-01 00:05 +0000", "2027-01-01 00:25 +0000", "2027-01-01 00:45 +0000"]);
        assert_eq!(utc("0 0 29 2 *"), ["2028-02-29 00:00 +0000", "2032-02-29 00:00 +0000", "2036-02-29 00:00 +0000"]);
        assert_eq!(utc("0 0 1 jan,Jul mon")[0], "2027-01-04 00:00 +0000");
    }

    #[test]
    fn daylight_saving() {
        let berlin = chrono_tz::Europe::Berlin;
        // Skipped: once, at the first instant after the gap.
        assert_eq!(
            times("30 2 * * *", berlin, "2027-03-27T12:00:00Z", 2),
            ["2027-03-28 03:00 +0200", "2027-03-29 02:30 +0200"]
        );
        // Several skipped times fall together, also with the one that is due then.
        assert_eq!(
            times("*/20 2-3 * * *", berlin, "2027-03-28T00:00:00Z", 3),
            ["2027-03-28 03:00 +0200", "2027-03-28 03:20 +0200", "2027-03-28 03:40 +0200"]
        );
        // Doubled: the first time only.
        assert_eq!(
            times("30 2 * * *", berlin, "2027-10-30T12:00:00Z", 2),
            ["2027-10-31 02:30 +0200", "2027-11-01 02:30 +0100"]
        );
        // Asked in the second of two equal hours.
        assert_eq!(times("30 2 * * *", berlin, "2027-10-31T01:10:00Z", 1), ["2027-11-01 02:30 +0100"]);
        // What is due every hour is so in both.
        assert_eq!(
            times("30 * * * *", berlin, "2027-10-30T23:45:00Z", 3),
            ["2027-10-31 02:30 +0200", "2027-10-31 02:30 +0100", "2027-10-31 03:30 +0100"]
        );
        assert_eq!(
            times("*/30 * * * 0", chrono_tz::Australia::Lord_Howe, "2027-04-03T14:15:00Z", 3),
            ["2027-04-04 01:30 +1100", "2027-04-04 01:30 +1030", "2027-04-04 02:00 +1030"]
        );
        assert_eq!(times("0 * * * *", berlin, "2027-03-28T00:30:00Z", 1), ["2027-03-28 03:00 +0200"]);
        // A zone that skipped a day.
        assert_eq!(
            times("0 12 30 12 *", chrono_tz::Pacific::Apia, "2011-12-01T00:00:00Z", 1),
            ["2011-12-31 00:00 +1400"]
        );
        // Half an hour of daylight saving.
        assert_eq!(
            times("15 2 * * *", chrono_tz::Australia::Lord_Howe, "2027-10-02T12:00:00Z", 1),
            ["2027-10-03 02:30 +1100"]
        );
    }

    #[test]
    fn what_is_none_is_refused_with_a_reason() {
        for (text, why) in [
            ("", "0 fields"),
            ("* * * *", "4 fields"),
            ("0 30 2 * * *", "no field for seconds"),
            ("60 * * * *", "minute: `60` is not between 0 and 59"),
            ("* 24 * * *", "hour"),
            ("* * 0 * *", "day of month"),
            ("* * * 13 *", "month"),
            ("* * * * 8", "day of week"),
            ("5-1 * * * *", "ends before it begins"),
            ("*/0 * * * *", "no valid step"),
            ("+1 * * * *", "not between"),
            ("1,,2 * * * *", "not between"),
            ("? * * * *", "not between"),
            ("0 0 31 2 *", "never fires"),
            ("0 0 30,31 feb *", "never fires"),
            ("0 0 31 4,6,9,11 *", "never fires"),
            ("@fortnightly", "@weekly"),
            ("CRON_TZ=Europe/Berlin 0 0 * * *", "time zone"),
            ("0 0 L * *", "not between"),
        ] {
            let e = Cron::parse(text).expect_err(text).to_string();
            assert!(e.contains(why) && !e.contains('\n'), "{text}: {e}");
        }
        // It fires on Mondays.
        assert!(Cron::parse("0 0 31 2 1").is_ok());
        assert!(Cron::parse(&"*".repeat(10_000)).is_err());
    }

    #[test]
    fn as_kubernetes_reads_them() {
        for (text, wanted) in [
            (" 30  2 * * * ", "30 2 * * *"),
            ("@weekly", "0 0 * * 0"),
            ("@annually", "0 0 1 1 *"),
            ("5/20 1-7 */7 JAN ?", "5/20 1-7 */7 JAN ?"),
            ("0 3 * * 7", "0 3 * * 0"),
            ("0 3 * * 5-7", "0 3 * * 0,5,6"),
            ("0 3 * * sat,7", "0 3 * * 0,6"),
            ("0 3 * * mon-fri", "0 3 * * mon-fri"),
            // Every second day from Monday on; a week has one Sunday.
            ("0 3 * * 1/2", "0 3 * * 1,3,5"),
            ("0 3 * * */2", "0 3 * * 0,2,4,6"),
            // Every day, and still restricted: day of month or this one.
            ("0 3 13 * 1-7", "0 3 13 * 0,1,2,3,4,5,6"),
            ("0 3 13 * */1", "0 3 13 * *"),
            ("0 3 * * *,7", "0 3 * * *"),
        ] {
            let cron = Cron::parse(text).unwrap();
            assert_eq!(cron.five_fields(), wanted, "{text}");
            assert_eq!(Cron::parse(&cron.five_fields()).unwrap(), cron, "{text}");
        }
    }

    #[test]
    fn what_a_change_of_clocks_hits() {
        let changes = |text: &str, zone: Tz| {
            let (skipped, doubled) = Cron::parse(text).unwrap().clock_changes(zone);
            [skipped, doubled].map(|time| time.map(|t| t.format("%H:%M").to_string()).unwrap_or_default())
        };
        let berlin = chrono_tz::Europe::Berlin;
        assert_eq!(changes("30 2 * * *", berlin), ["02:30", "02:30"]);
        assert_eq!(changes("0 3 * * *", berlin), ["", ""]);
        assert_eq!(changes("30 2 * * 1-6", berlin), ["", ""]);
        assert_eq!(changes("*/20 * * * *", berlin), ["", ""]);
        assert_eq!(changes("30 2 * * *", Tz::UTC), ["", ""]);
        assert_eq!(changes("15 1-2 * * *", chrono_tz::America::New_York), ["02:15", "01:15"]);
        assert_eq!(changes("45 1-2 * * *", chrono_tz::Australia::Lord_Howe), ["", "01:45"]);
    }

    /// Each field as text, with the values that are meant.
    fn any_field(min: u8, max: u8) -> impl Strategy<Value = (String, Vec<u8>, bool)> {
        let one = move |text: String, from: u8, to: u8, step: u8| {
            (text, (from..=to).step_by(usize::from(step)).collect::<Vec<u8>>(), false)
        };
        prop_oneof![
            Just(("*".to_owned(), (min..=max).collect(), true)),
            (min..=max).prop_map(move |n| one(n.to_string(), n, n, 1)),
            (min..=max, min..=max).prop_map(move |(a, b)| {
                let (a, b) = (a.min(b), a.max(b));
                one(format!("{a}-{b}"), a, b, 1)
            }),
            (2..=max).prop_map(move |step| one(format!("*/{step}"), min, max, step)),
            (min..=max, min..=max).prop_map(|(a, b)| (format!("{a},{b}"), vec![a, b], false)),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// Against a calculation that looks at every minute of four years.
        #[test]
        fn four_years_minute_by_minute(
            minute in any_field(0, 59),
            hour in any_field(0, 23),
            day in any_field(1, 31),
            month in any_field(1, 12),
            weekday in any_field(0, 6),
            zone in prop_oneof![
                Just(chrono_tz::Europe::Berlin),
                Just(chrono_tz::America::New_York),
                Just(chrono_tz::Australia::Lord_Howe),
                Just(Tz::UTC),
            ],
        ) {
            let expression = [&minute.0, &hour.0, &day.0, &month.0, &weekday.0].map(String::as_str).join(" ");
            let Ok(cron) = Cron::parse(&expression) else { return Ok(()) };
            let matches = |t: &NaiveDateTime| {
                let days = (day.1.contains(&(t.day() as u8)), weekday.1.contains(&(t.weekday().num_days_from_sunday() as u8)));
                let right_day = if day.2 || weekday.2 { days.0 && days.1 } else { days.0 || days.1 };
                right_day && minute.1.contains(&(t.minute() as u8)) && hour.1.contains(&(t.hour() as u8))
                    && month.1.contains(&(t.month() as u8))
            };
            let start = DateTime::from_timestamp(1_793_491_200, 0).unwrap();
            let (mut at, mut due_local) = (TimeMs(start.timestamp_millis()), None::<NaiveDateTime>);
            let mut before = start.with_timezone(&zone).naive_local();
            let mut latest = before;
            for n in 1..4 * 366 * 24 * 60 {
                let now = start + TimeDelta::minutes(n);
                let local = now.with_timezone(&zone).naive_local();
                // Local times that passed during this minute and were never there before.
                let mut passed = before + TimeDelta::minutes(1);
                let mut due = false;
                while passed <= local {
                    due |= passed > latest && matches(&passed);
                    passed += TimeDelta::minutes(1);
                }
                due |= hour.1.len() == 24 && matches(&local);
                latest = latest.max(local);
                before = local;
                if due {
                    let next = cron.next_after(zone, at);
                    prop_assert_eq!(next, Some(TimeMs(now.timestamp_millis())), "{} after {:?}", expression, due_local);
                    at = TimeMs(now.timestamp_millis());
                    due_local = Some(local);
                }
            }
        }
    }
}
