//! The only source of time and randomness. Everything else is handed an [`Env`].

use super::Cancel;
use crate::error::{Error, Kind, Result};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970-01-01 UTC; negative before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct TimeMs(pub i64);

impl TimeMs {
    /// `2026-11-24T08:00:00Z` (RFC 3339, UTC, seconds).
    pub fn rfc3339(self) -> String {
        let secs = self.0.div_euclid(1000);
        let (days, rest) = (secs.div_euclid(86_400), secs.rem_euclid(86_400));
        let (y, m, d) = civil_from_days(days);
        format!("{y:04}-{m:02}-{d:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
    }
}

impl TimeMs {
    /// A time as HTTP has it, `Sat, 28 Nov 2026 12:00:00 GMT`; `None` for anything else.
    pub fn from_http_date(text: &str) -> Option<TimeMs> {
        const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        let [_, day, month, year, time, "GMT"] = words[..] else { return None };
        let number = |text: &str, max: i64| text.parse().ok().filter(|n| (0..=max).contains(n));
        let month = MONTHS.iter().zip(1i64..).find(|(name, _)| **name == month)?.1;
        let (hour, rest) = time.split_once(':')?;
        let (minute, second) = rest.split_once(':')?;
        let days = days_from_civil(number(year, 9999)?, month, number(day, 31)?);
        let (hour, minute, second) = (number(hour, 23)?, number(minute, 59)?, number(second, 60)?);
        Some(TimeMs((days * 86_400 + hour * 3600 + minute * 60 + second) * 1000))
    }
}

impl TimeMs {
    /// A time as stores have it in their listings, `2026-11-28T12:00:00.000Z`; `None` for anything else.
    pub fn from_utc(text: &str) -> Option<TimeMs> {
        let number = |part: &str, min: i64, max: i64| {
            let plain = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
            part.parse::<i64>().ok().filter(|n| plain && (min..=max).contains(n))
        };
        let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
        let [year, month, day] = date.split('-').collect::<Vec<_>>()[..] else { return None };
        let (time, parts) = time.split_once('.').unwrap_or((time, "0"));
        let [hour, minute, second] = time.split(':').collect::<Vec<_>>()[..] else { return None };
        let days = days_from_civil(number(year, 0, 9999)?, number(month, 1, 12)?, number(day, 1, 31)?);
        let seconds = number(hour, 0, 23)? * 3600 + number(minute, 0, 59)? * 60 + number(second, 0, 60)?;
        let ms = number(&format!("{parts:0<3}").chars().take(3).collect::<String>(), 0, 999)?;
        Some(TimeMs((days * 86_400 + seconds) * 1000 + ms))
    }
}

/// Year, month, day (proleptic Gregorian) to days since 1970-01-01.
fn days_from_civil(y: i64, m: i64, d: i64) -> i64 {
    let y = y - i64::from(m <= 2);
    let era = y.div_euclid(400);
    let yoe = y.rem_euclid(400);
    let doy = (153 * ((m + 9) % 12) + 2) / 5 + d - 1;
    era * 146_097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719_468
}

/// Days since 1970-01-01 to year, month, day (proleptic Gregorian).
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    // Years are counted from 1 March, so that the leap day is a year's last.
    let z = days.saturating_add(719_468);
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let d = doy - (153 * mp + 2) / 5 + 1;
    let m = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + i64::from(m <= 2), m, d)
}

/// Clock and entropy.
pub trait Ambient: Send + Sync {
    /// The wall clock.
    fn now(&self) -> TimeMs;
    /// Milliseconds by a clock that nobody sets and that goes on while the machine sleeps.
    fn steady(&self) -> i64;
    /// Waits so long, or until `cancel` is raised.
    ///
    /// # Errors
    /// It is raised.
    fn wait(&self, cancel: &Cancel, time: Duration) -> Result<()> {
        cancel.wait(time)
    }
    /// Fills `out` with bytes from the kernel's generator.
    ///
    /// # Errors
    /// The kernel gave none.
    fn random(&self, out: &mut [u8]) -> Result<()>;
}

/// A handle to the clock and the entropy of this process.
#[derive(Clone)]
pub struct Env(Arc<dyn Ambient>);

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Env")
    }
}

struct System;

impl Ambient for System {
    #[allow(clippy::disallowed_methods)] // the one place that reads the clock
    fn now(&self) -> TimeMs {
        let ms = |d: std::time::Duration| i64::try_from(d.as_millis()).unwrap_or(i64::MAX);
        TimeMs(match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(after) => ms(after),
            Err(before) => -ms(before.duration()),
        })
    }

    fn steady(&self) -> i64 {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        time.tv_sec.saturating_mul(1000).saturating_add(time.tv_nsec / 1_000_000)
    }

    fn random(&self, out: &mut [u8]) -> Result<()> {
        getrandom::fill(out).map_err(|e| Error::new(Kind::Bug, format!("the kernel gave no random bytes: {e}")))
    }
}

impl Env {
    /// The system's clock and `getrandom`.
    pub fn system() -> Self {
        Env(Arc::new(System))
    }

    /// Another clock or generator, for simulations.
    pub fn custom(ambient: Arc<dyn Ambient>) -> Self {
        Env(ambient)
    }

    /// The wall clock.
    pub fn now(&self) -> TimeMs {
        self.0.now()
    }

    /// Milliseconds by a clock that nobody sets and that goes on while the machine sleeps; only differences mean
    /// something.
    pub fn steady(&self) -> i64 {
        self.0.steady()
    }

    /// Waits so long.
    ///
    /// # Errors
    /// [`Kind::Cancelled`]: `cancel` was raised meanwhile.
    pub fn wait(&self, cancel: &Cancel, time: Duration) -> Result<()> {
        self.0.wait(cancel, time)
    }

    /// `N` random bytes.
    ///
    /// # Errors
    /// The kernel gave none.
    pub fn random<const N: usize>(&self) -> Result<[u8; N]> {
        let mut out = [0; N];
        self.0.random(&mut out)?;
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_before_and_after_the_epoch() {
        assert_eq!(TimeMs(0).rfc3339(), "1970-01-01T00:00:00Z");
        assert_eq!(TimeMs(-1).rfc3339(), "1969-12-31T23:59:59Z");
        assert_eq!(TimeMs(951_782_400_000).rfc3339(), "2000-02-29T00:00:00Z");
        assert_eq!(TimeMs(4_102_444_799_000).rfc3339(), "2099-12-31T23:59:59Z");
    }

    #[test]
    fn times_of_listings() {
        for (text, ms) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T23:59:58.5Z", 951_868_798_500),
            ("2026-11-28T12:00:00.123456Z", 1_795_867_200_123),
        ] {
            assert_eq!(TimeMs::from_utc(text), Some(TimeMs(ms)), "{text}");
        }
        for text in [
            "",
            "2026-11-28",
            "2026-13-28T12:00:00Z",
            "2026-11-28T12:00:00",
            "2026-11-28T12:00:00.xZ",
            "+026-11-28T12:00:00Z",
        ] {
            assert_eq!(TimeMs::from_utc(text), None, "{text}");
        }
    }

    #[test]
    fn dates_of_http() {
        for (text, same) in [
            ("Thu, 01 Jan 1970 00:00:00 GMT", "1970-01-01T00:00:00Z"),
            ("Tue, 29 Feb 2000 23:59:58 GMT", "2000-02-29T23:59:58Z"),
            ("Sun, 01 Mar 2026 01:02:03 GMT", "2026-03-01T01:02:03Z"),
            ("Fri, 31 Dec 1999 12:00:00 GMT", "1999-12-31T12:00:00Z"),
        ] {
            assert_eq!(TimeMs::from_http_date(text).unwrap().rfc3339(), same);
        }
        let no = ["", "Sat, 28 Nov 2026 12:00:00 CET", "28 Nov 2026 12:00:00 GMT", "Sat, 28 Nov 20260 12:00:00 GMT"];
        for text in no.into_iter().chain(["Sat, 28 Nov 2026 99:00:00 GMT", "Sat, 28 Not 2026 12:00:00 GMT"]) {
            assert_eq!(TimeMs::from_http_date(text), None, "{text}");
        }
    }
}
