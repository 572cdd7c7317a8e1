//! Time zones, lengths of time and days as people write them.

use super::name::{guess, one_line, quoted};
use crate::base::TimeMs;
use crate::error::{Error, Kind, Result};
use chrono::{DateTime, NaiveDate};
pub use chrono_tz::Tz as Zone;

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;
/// No length of time is longer: a thousand years.
const LENGTH_MS_MAX: i64 = 1000 * 365 * DAY_MS;

/// A zone of the IANA database by its name, `Europe/Berlin` or `UTC`.
///
/// # Errors
/// [`Kind::Config`]: there is no such zone.
pub fn zone(text: &str) -> Result<Zone> {
    text.parse().map_err(|_| {
        let known: Vec<&str> = chrono_tz::TZ_VARIANTS.iter().map(|zone| zone.name()).collect();
        let advice = match guess(text, &known) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => "use an IANA name, like `Europe/Berlin` or `UTC`".into(),
        };
        Error::new(Kind::Config, format!("{} is no time zone", quoted(text))).advise(advice)
    })
}

/// A length of time in milliseconds: `12h`, `30d`, `2w`, `1y` (365 days), or several: `1d12h`.
///
/// # Errors
/// [`Kind::Config`]: not of that form, nothing, or more than a thousand years.
pub fn length_ms(text: &str) -> Result<i64> {
    let wrong = || {
        Error::new(Kind::Config, format!("{} is no length of time", one_line(text)))
            .advise("give hours, days, weeks or years of 365 days, as 12h, 30d, 2w, 1y or 1d12h")
    };
    let (mut total, mut digits) = (0i64, String::new());
    for c in text.chars() {
        let unit = match c {
            '0'..='9' => {
                digits.push(c);
                continue;
            }
            'h' => HOUR_MS,
            'd' => DAY_MS,
            'w' => 7 * DAY_MS,
            'y' => 365 * DAY_MS,
            _ => return Err(wrong()),
        };
        let count: i64 = digits.parse().map_err(|_| wrong())?;
        digits.clear();
        total = count.checked_mul(unit).and_then(|ms| total.checked_add(ms)).ok_or_else(wrong)?;
    }
    if digits.is_empty() && (1..=LENGTH_MS_MAX).contains(&total) { Ok(total) } else { Err(wrong()) }
}

/// The end that a length of time from `now`, a day (with all of it, in UTC) or an RFC 3339 time names.
///
/// # Errors
/// [`Kind::Config`]: none of them, or not after `now`.
pub fn until(text: &str, now: TimeMs) -> Result<TimeMs> {
    let day = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok();
    let end_of = |day: NaiveDate| Some(day.succ_opt()?.and_hms_opt(0, 0, 0)?.and_utc().timestamp_millis());
    let end = match (day, DateTime::parse_from_rfc3339(text)) {
        (Some(day), _) => end_of(day),
        (None, Ok(time)) => Some(time.timestamp_millis()),
        (None, Err(_)) => length_ms(text).ok().map(|ms| now.0.saturating_add(ms)),
    };
    match end {
        None => Err(Error::new(Kind::Config, format!("{} is neither a day nor a length of time", one_line(text)))
            .advise("give 2027-03-01, 2027-03-01T12:00:00Z, or 90d")),
        Some(end) if end <= now.0 => {
            Err(Error::new(Kind::Config, format!("{} is over already", one_line(text))).advise("give a later time"))
        }
        Some(end) => Ok(TimeMs(end)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time() {
        assert_eq!(length_ms("12h").unwrap(), 12 * HOUR_MS);
        assert_eq!(length_ms("1y2w3d4h").unwrap(), (365 + 14 + 3) * DAY_MS + 4 * HOUR_MS);
        for wrong in ["", "0d", "3", "d", "3m", "-3d", "3d4", "3 d", "1001y", "99999999999999999999d", "1.5d"] {
            assert_eq!(length_ms(wrong).unwrap_err().kind(), Kind::Config, "{wrong}");
        }
    }

    #[test]
    fn ends() {
        let now = TimeMs(1_800_000_000_000);
        assert_eq!(now.rfc3339(), "2027-01-15T08:00:00Z");
        assert_eq!(until("2027-01-15", now).unwrap().rfc3339(), "2027-01-16T00:00:00Z");
        assert_eq!(until("2027-01-15T10:00:00+01:00", now).unwrap().rfc3339(), "2027-01-15T09:00:00Z");
        assert_eq!(until("2d", now).unwrap().rfc3339(), "2027-01-17T08:00:00Z");
        for wrong in ["2027-01-14", "2027-01-15T09:00:00+01:00", "2027-02-30", "soon", "", "0d"] {
            assert_eq!(until(wrong, now).unwrap_err().kind(), Kind::Config, "{wrong}");
        }
    }

    #[test]
    fn zones() {
        assert_eq!(zone("Europe/Berlin").unwrap(), chrono_tz::Europe::Berlin);
        assert_eq!(zone("UTC").unwrap(), Zone::UTC);
        assert_eq!(zone("Mars/Base\n").unwrap_err().kind(), Kind::Config);
    }
}
