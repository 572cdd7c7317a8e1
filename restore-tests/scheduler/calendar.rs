//! When things are due, worked out by looking at every minute: slow, and without the program's own rules.

use chrono::{DateTime, Datelike, NaiveDateTime, TimeDelta, Timelike};
use chrono_tz::Tz;

const MINUTE_MS: i64 = 60_000;

fn fits(field: &str, value: u32, open_from: u32) -> bool {
    field.split(',').any(|part| {
        let (range, step) = part.split_once('/').map_or((part, 1), |(r, s)| (r, s.parse().unwrap()));
        match range.split_once('-') {
            _ if range == "*" => (value - open_from).is_multiple_of(step),
            Some((from, to)) => {
                let (from, to): (u32, u32) = (from.parse().unwrap(), to.parse().unwrap());
                (from..=to).contains(&value) && (value - from).is_multiple_of(step)
            }
            None => range.parse::<u32>().unwrap() == value,
        }
    })
}

fn matches(cron: &str, at: NaiveDateTime) -> bool {
    let [minute, hour, day, month, weekday] = cron.split(' ').collect::<Vec<_>>()[..] else { panic!("{cron}") };
    let on_day = fits(day, at.day(), 1);
    let on_weekday = fits(weekday, at.weekday().num_days_from_sunday(), 0);
    let days = if day != "*" && weekday != "*" { on_day || on_weekday } else { on_day && on_weekday };
    fits(minute, at.minute(), 0) && fits(hour, at.hour(), 0) && fits(month, at.month(), 1) && days
}

/// All due times after `from` up to `to`.
pub fn dues(cron: &str, zone: Tz, from: i64, to: i64) -> Vec<i64> {
    let minute = TimeDelta::minutes(1);
    let local = |ms: i64| DateTime::from_timestamp_millis(ms).unwrap().with_timezone(&zone).naive_local();
    // A day before, so that an hour that comes twice is known to have been there.
    let mut at = (from - 24 * 60 * MINUTE_MS).div_euclid(MINUTE_MS) * MINUTE_MS;
    let mut newest = local(at);
    let mut found = Vec::new();
    // What is due every hour is due in both of two that have the same name.
    let hours = cron.split(' ').nth(1).unwrap();
    let every_hour = (0..24).all(|hour| fits(hours, hour, 0));
    while at < to {
        at += MINUTE_MS;
        let now = local(at);
        let mut due = every_hour && matches(cron, now);
        while newest < now {
            newest += minute;
            due |= matches(cron, newest);
        }
        if due && at > from && at <= to {
            found.push(at);
        }
    }
    found
}
