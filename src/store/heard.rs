//! What a store shows in passing: its clock, and how it is reached.

use crate::base::TimeMs;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// The store's clock, as far as the times in its answers tell. They are cut to seconds, and made at some moment between
/// a request and its answer: each bounds the clock, and all together bound it well.
#[derive(Debug)]
pub(super) struct Heard {
    begin: Instant,
    /// The store's time at `begin`, ms: at least, at most.
    bounds: Mutex<Option<(i64, i64)>>,
}

impl Default for Heard {
    fn default() -> Heard {
        Heard { begin: Instant::now(), bounds: Mutex::default() }
    }
}

fn ms(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

impl Heard {
    /// Takes the time of an answer that has just come.
    pub(super) fn note(&self, date: &str, sent: Instant) {
        let Some(TimeMs(date)) = TimeMs::from_http_date(date) else { return };
        let low = date.saturating_sub(ms(self.begin.elapsed()));
        let high = date.saturating_add(1000).saturating_sub(ms(sent.saturating_duration_since(self.begin)));
        let mut bounds = self.bounds.lock().unwrap_or_else(PoisonError::into_inner);
        let both = bounds.map_or((low, high), |(l, h)| (l.max(low), h.min(high)));
        // Several clocks, or one that was set: the last word counts.
        *bounds = Some(if both.0 <= both.1 { both } else { (low, high) });
    }

    /// How far the store's clock is ahead of one that says `now`, ms: at least, at most.
    pub(super) fn ahead(&self, now: TimeMs) -> Option<(i64, i64)> {
        let (low, high) = (*self.bounds.lock().unwrap_or_else(PoisonError::into_inner))?;
        let begin = now.0.saturating_sub(ms(self.begin.elapsed()));
        Some((low.saturating_sub(begin), high.saturating_sub(begin)))
    }
}

/// What two bounds say for certain: the nearer of them, or nothing where zero lies between.
pub(super) fn surely((low, high): (i64, i64)) -> i64 {
    0i64.clamp(low.min(high), high.max(low))
}

/// How a store is reached over a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transport {
    /// Scheme, host and port.
    pub endpoint: String,
    /// Whether nothing but Holdfast's own sealing protects what is sent.
    pub plain: bool,
    /// Whether it is this machine.
    pub loopback: bool,
}

impl Transport {
    /// Of an address; what stands before an `@` or behind the host is nobody's business.
    pub(super) fn of(address: &str) -> Transport {
        let (scheme, rest) = address.split_once("://").unwrap_or(("https", address));
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let host_and_port = authority.rsplit('@').next().unwrap_or_default();
        let host = match host_and_port.strip_prefix('[') {
            Some(v6) => v6.split(']').next().unwrap_or_default(),
            None => host_and_port.split(':').next().unwrap_or_default(),
        };
        let loopback = host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
        Transport { endpoint: format!("{scheme}://{host_and_port}"), plain: scheme == "http", loopback }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_bounded_by_all_that_was_heard() {
        let heard = Heard::default();
        assert_eq!(heard.ahead(TimeMs(0)), None);
        let date = TimeMs::from_http_date("Sat, 28 Nov 2026 12:00:00 GMT").unwrap();
        heard.note("Sat, 28 Nov 2026 12:00:00 GMT", heard.begin);
        heard.note("nonsense", heard.begin);
        let (low, high) = heard.ahead(TimeMs(date.0 - 5000)).unwrap();
        assert!(low > 0 && low <= 5000 && (5000..=6000).contains(&high) && low <= high, "{low} {high}");
        assert_eq!([surely((-3, 4)), surely((2, 4)), surely((-4, -2))], [0, 2, -2]);
        // A clock that was set.
        heard.note("Sat, 28 Nov 2026 13:00:00 GMT", heard.begin);
        assert!(heard.ahead(date).unwrap().0 > 3_500_000);
    }

    #[test]
    fn addresses_are_shown_without_secrets() {
        let of = |text: &str| Transport::of(text);
        assert_eq!(of("http://user:hunter2@store.example:9000/x?y").endpoint, "http://store.example:9000");
        assert!(of("http://store.example").plain && !of("http://store.example").loopback);
        assert!(of("http://127.0.0.1:1").loopback && of("http://[::1]:1/").loopback && of("http://localhost").loopback);
        assert!(!of("https://a").plain);
    }
}
