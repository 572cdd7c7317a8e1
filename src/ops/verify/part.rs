//! Which packs a check reads that may not read all: those that waited longest, and no more than it may.

use crate::base::{PackName, TimeMs};
use std::collections::HashSet;

/// How much of every region is read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Part {
    /// At most this share of the bytes, percent.
    pub percent: Option<u8>,
    /// At most so many bytes.
    pub bytes_max: Option<u64>,
    /// At most so many packs: each is one request.
    pub packs_max: Option<u64>,
    /// A place among all names: of packs that waited equally long, those from it on come first.
    pub turn: u64,
}

impl Part {
    /// For a run at `now`, where everything is to be read within `period_ms`. Names are hashes, so the time of the
    /// period points to a place among them, and runs that know nothing of each other still get round all packs.
    pub fn at(now: TimeMs, period_ms: i64) -> Part {
        let period = period_ms.max(1);
        let gone = u128::from(now.0.rem_euclid(period).unsigned_abs());
        let turn = (u128::from(u64::MAX) * gone / u128::from(period.unsigned_abs())) as u64;
        Part { turn, ..Part::default() }
    }

    /// Those of `there`, the one first that waited longest, by what is known of `all`.
    pub(super) fn order(
        &self,
        waiting: Option<Vec<(PackName, i64)>>,
        all: &[PackName],
        there: Vec<PackName>,
    ) -> Vec<PackName> {
        let there: HashSet<PackName> = there.into_iter().collect();
        let mut order: Vec<(PackName, i64)> = waiting.unwrap_or_else(|| all.iter().map(|name| (*name, 0)).collect());
        order.retain(|(name, _)| there.contains(name));
        order.sort_by_key(|(name, since)| (*since, place(name) < self.turn, *name));
        order.into_iter().map(|(name, _)| name).collect()
    }

    /// Of so many bytes, those that the share lets be read.
    pub(super) fn expected(&self, total: u64) -> u64 {
        self.percent.map_or(total, |percent| (u128::from(total) * u128::from(percent)).div_ceil(100) as u64)
    }

    /// The first of them, as many as may be read, at least one. `total`: bytes of all packs of the region.
    pub(super) fn cut(&self, order: Vec<PackName>, total: u64, size: impl Fn(&PackName) -> u64) -> Vec<PackName> {
        let share = self.percent.map(|_| self.expected(total));
        let packs = self.packs_max.map_or(usize::MAX, |most| usize::try_from(most.max(1)).unwrap_or(usize::MAX));
        let order: Vec<PackName> = order.into_iter().take(packs).collect();
        let Some(most) = share.into_iter().chain(self.bytes_max).min() else { return order };
        let mut sum = 0u64;
        let within = |name: &PackName| {
            let first = sum == 0;
            sum = sum.saturating_add(size(name));
            first || sum <= most
        };
        let mut within = within;
        order.into_iter().take_while(|name| within(name)).collect()
    }
}

fn place(name: &PackName) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&name.bytes()[..8]);
    u64::from_be_bytes(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn names(count: u64) -> Vec<PackName> {
        (0..count).map(|n| PackName(*blake3::hash(&n.to_le_bytes()).as_bytes())).collect()
    }

    #[test]
    fn as_much_as_allowed_and_at_least_one() {
        let all = names(10);
        let cut = |part: Part| part.cut(all.clone(), 100, |_| 10).len();
        assert_eq!(cut(Part::default()), 10);
        assert_eq!(cut(Part { percent: Some(25), ..Part::default() }), 2);
        assert_eq!(cut(Part { percent: Some(100), ..Part::default() }), 10);
        assert_eq!(cut(Part { bytes_max: Some(1), ..Part::default() }), 1);
        assert_eq!(cut(Part { percent: Some(90), bytes_max: Some(35), ..Part::default() }), 3);
        assert_eq!(cut(Part { packs_max: Some(4), ..Part::default() }), 4);
        assert_eq!(cut(Part { packs_max: Some(4), bytes_max: Some(35), ..Part::default() }), 3);
        assert_eq!(cut(Part { packs_max: Some(2), bytes_max: Some(35), ..Part::default() }), 2);
        assert!(Part { percent: Some(1), ..Part::default() }.cut(Vec::new(), 0, |_| 0).is_empty());
    }

    #[test]
    fn runs_without_a_memory_get_round_everything_in_a_period() {
        const DAY: i64 = 86_400_000;
        let all = names(3000);
        // Every day a tenth, in a period of ten days; the first run at any time of it.
        for first in [0, 3 * DAY + 12_345, 1_800_000_000_000] {
            let mut seen = BTreeSet::new();
            for run in 0..10 {
                let part = Part { percent: Some(11), ..Part::at(TimeMs(first + run * DAY), 10 * DAY) };
                let order = part.order(None, &all, all.clone());
                seen.extend(part.cut(order, 3000, |_| 1));
            }
            assert!(seen.len() >= 2990, "{} of 3000", seen.len());
        }
    }
}
