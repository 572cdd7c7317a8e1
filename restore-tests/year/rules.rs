//! What a policy keeps, in other words: written from the description of the rules.

use chrono::DateTime;
use chrono_tz::Tz;
use holdfast::base::SessionId;
use std::collections::BTreeSet;

/// A snapshot: when it was stored, and its id.
pub type Snap = (i64, SessionId);

/// What is kept of each source.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rules {
    pub last: usize,
    pub daily: usize,
    pub weekly: usize,
    pub monthly: usize,
    pub within_ms: i64,
}

impl Rules {
    /// Those that stay, of good snapshots of one source.
    pub fn kept(&self, all: &[Snap], zone: Tz) -> BTreeSet<SessionId> {
        let mut sorted = all.to_vec();
        sorted.sort();
        sorted.reverse();
        let mut kept: BTreeSet<SessionId> = sorted.iter().take(self.last.max(1)).map(|(_, sid)| *sid).collect();
        let newest = sorted.first().map_or(0, |(at, _)| *at);
        kept.extend(sorted.iter().filter(|(at, _)| self.within_ms > 0 && newest - at <= self.within_ms).map(|s| s.1));
        for (count, format) in [(self.daily, "%F"), (self.weekly, "%G week %V"), (self.monthly, "%Y-%m")] {
            let mut periods: Vec<String> = Vec::new();
            for (at, sid) in &sorted {
                let local = DateTime::from_timestamp_millis(*at).unwrap().with_timezone(&zone);
                let period = local.format(format).to_string();
                if periods.last() != Some(&period) && periods.len() < count {
                    periods.push(period);
                    kept.insert(*sid);
                }
            }
        }
        kept
    }
}
