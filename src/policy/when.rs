//! Time zones and days as people write them.

use super::duration::{parse, span_ms};
use super::name::{guess, quoted};
use crate::base::TimeMs;
use crate::error::{Error, Kind, Result};
use chrono::{DateTime, NaiveDate};
pub use chrono_tz::Tz as Zone;

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

/// The end that a duration from `now`, a day (with all of it, in UTC) or an RFC 3339 time names.
///
/// # Errors
/// [`Kind::Config`]: none of them, or not after `now`.
pub fn until(text: &str, now: TimeMs) -> Result<TimeMs> {
    let day = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok();
    let end_of = |day: NaiveDate| Some(day.succ_opt()?.and_hms_opt(0, 0, 0)?.and_utc().timestamp_millis());
    let end = match (day, DateTime::parse_from_rfc3339(text)) {
        (Some(day), _) => end_of(day),
        (None, Ok(time)) => Some(time.timestamp_millis()),
        (None, Err(_)) => span_ms(text).ok().map(|ms| now.0.saturating_add(ms)),
    };
    match end {
        None => Err(Error::new(Kind::Config, format!("{} is neither a day nor a duration", quoted(text)))
            .advise("give 2027-03-01, 2027-03-01T12:00:00Z, or 90d")),
        Some(end) if end <= now.0 => {
            Err(Error::new(Kind::Config, format!("{} is over already", quoted(text))).advise("give a later time"))
        }
        Some(end) => Ok(TimeMs(end)),
    }
}

/// The time that a duration before `now`, a day (its begin, in UTC) or an RFC 3339 time names.
///
/// # Errors
/// [`Kind::Config`]: none of them.
pub fn since(text: &str, now: TimeMs) -> Result<TimeMs> {
    let day = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok();
    let begin = |day: NaiveDate| Some(day.and_hms_opt(0, 0, 0)?.and_utc().timestamp_millis());
    let time = match (day, DateTime::parse_from_rfc3339(text)) {
        (Some(day), _) => begin(day),
        (None, Ok(time)) => Some(time.timestamp_millis()),
        (None, Err(_)) => parse(text).ok().map(|ms| now.0.saturating_sub(ms)),
    };
    time.map(TimeMs).ok_or_else(|| {
        Error::new(Kind::Config, format!("{} is neither a time nor a duration", quoted(text)))
            .advise("give 2027-03-01, 2027-03-01T12:00:00Z, or 36h for what was so long ago")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn times_past() {
        let now = TimeMs(1_800_000_000_000);
        assert_eq!(since("2027-01-15", now).unwrap().rfc3339(), "2027-01-15T00:00:00Z");
        assert_eq!(since("2026-01-15T10:00:00+01:00", now).unwrap().rfc3339(), "2026-01-15T09:00:00Z");
        assert_eq!(since("90m", now).unwrap().rfc3339(), "2027-01-15T06:30:00Z");
        for wrong in ["yesterday", "", "2027-02-30"] {
            assert_eq!(since(wrong, now).unwrap_err().kind(), Kind::Config, "{wrong}");
        }
    }

    #[test]
    fn zones() {
        assert_eq!(zone("Europe/Berlin").unwrap(), chrono_tz::Europe::Berlin);
        assert_eq!(zone("UTC").unwrap(), Zone::UTC);
        assert_eq!(zone("Mars/Base\n").unwrap_err().kind(), Kind::Config);
    }
}
