//! A source that is suddenly small: an unmounted disk, an emptied bucket, a mistake in a path. Its snapshots must
//! not push out those of what it was before somebody had the time to look.

use crate::base::TimeMs;

/// How long a source must stay small before that is taken for what it is: a long weekend.
const CONFIRMED_AFTER_MS: i64 = 3 * 24 * 3_600_000;
/// A gap between the two newest snapshots after which many old ones do not go at once.
const GAP_MS_MAX: i64 = 30 * 24 * 3_600_000;
/// A run that forgets no more than this many of a source is never stopped.
const FORGOTTEN_FREE: usize = 3;

/// What a snapshot of a source holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// When it was made.
    pub time: TimeMs,
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Extent {
    /// Whether nothing is left of `before`, or a tenth at most in files or in bytes.
    fn is_small_against(&self, before: &Extent) -> bool {
        let shrank = |now: u64, then: u64| then > 0 && now.saturating_mul(10) <= then;
        shrank(self.files, before.files) || shrank(self.bytes, before.bytes)
    }
}

/// Whether a source had become small.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Small {
    /// No, or it stayed so and that is its size now.
    #[default]
    No,
    /// It did, and was its old self again later.
    Once,
    /// It did, and whether it stays so is not known yet.
    Waiting,
}

/// Judges all snapshots of a source, oldest first.
pub fn small(history: &[Extent]) -> Vec<Small> {
    let mut found = vec![Small::No; history.len()];
    let mut before: Option<&Extent> = None;
    let mut first = None;
    for (n, now) in history.iter().enumerate() {
        if before.is_some_and(|before| now.is_small_against(before)) {
            let first_small = *first.get_or_insert(n);
            found[n] = Small::Waiting;
            if now.time.0.saturating_sub(history[first_small].time.0) < CONFIRMED_AFTER_MS {
                continue;
            }
            found[first_small..=n].fill(Small::No);
        } else if let Some(first_small) = first {
            found[first_small..n].fill(Small::Once);
        }
        before = Some(now);
        first = None;
    }
    found
}

/// Why so many snapshots of a source must not go at once without a word from a person: more than three and more
/// than half of them would, and something else is strange. Rules that thin a lot are not strange.
/// All snapshots of the source, newest first: what it holds, whether it goes, whether it is small and waits.
pub fn brake(snapshots: &[(Extent, bool, Small)]) -> Option<&'static str> {
    let goes = snapshots.iter().filter(|(_, goes, _)| *goes).count();
    if goes <= FORGOTTEN_FREE || goes * 2 <= snapshots.len() {
        return None;
    }
    if snapshots.first().is_some_and(|(_, _, small)| *small == Small::Waiting) {
        return Some("its newest snapshot is empty or a tenth of what the source was");
    }
    let most = |gone: bool| {
        let of = snapshots.iter().filter(|(_, goes, _)| *goes == gone).map(|(extent, ..)| extent);
        of.fold(Extent { time: TimeMs(0), files: 0, bytes: 0 }, |most, one| Extent {
            files: most.files.max(one.files),
            bytes: most.bytes.max(one.bytes),
            ..most
        })
    };
    if most(false).is_small_against(&most(true)) {
        return Some("what stays holds a tenth of what goes, or nothing");
    }
    match snapshots {
        [(newest, ..), (before, ..), ..] if newest.time.0.saturating_sub(before.time.0) > GAP_MS_MAX => {
            Some("its newest snapshot is more than 30 days after the one before")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Small::{No, Once, Waiting};

    const DAY: i64 = 24 * 3_600_000;

    fn daily(sizes: &[(u64, u64)]) -> Vec<Extent> {
        let extent = |(n, (files, bytes)): (usize, &(u64, u64))| Extent {
            time: TimeMs(n as i64 * DAY),
            files: *files,
            bytes: *bytes,
        };
        sizes.iter().enumerate().map(extent).collect()
    }

    #[test]
    fn small_until_it_stays_so() {
        let big = (100, 1000);
        assert_eq!(small(&daily(&[big, (0, 0), (0, 0), (0, 0)])), [No, Waiting, Waiting, Waiting]);
        assert_eq!(small(&daily(&[big, (0, 0), (0, 0), (0, 0), (0, 0)])), [No; 5]);
        assert_eq!(small(&daily(&[big, (0, 0), (0, 0), big, (10, 1000)])), [No, Once, Once, No, Waiting]);
        assert_eq!(small(&daily(&[big, (11, 101), (2, 11)])), [No, No, No]);
        assert_eq!(
            small(&daily(&[big, (90, 100), (91, 101)])),
            [No, Waiting, No].map(|s| match s {
                Waiting => Once,
                other => other,
            })
        );
        // What was empty from the first day on is what it is; one file that goes is all of it.
        assert_eq!(small(&daily(&[(0, 0), (0, 0), (1, 0), (0, 0)])), [No, No, No, Waiting]);
        assert!(small(&[]).is_empty());
    }

    #[test]
    fn the_brake_needs_many_and_something_strange() {
        let line = |n: i64, files, goes, small| (Extent { time: TimeMs(n * DAY), files, bytes: files }, goes, small);
        let mut calm: Vec<_> = (0..20).rev().map(|n| line(n, 100, n < 18, No)).collect();
        assert_eq!(brake(&calm), None);
        calm[0].2 = Waiting;
        assert!(brake(&calm).is_some_and(|why| why.contains("newest")));
        calm[0].2 = No;
        calm[0].0.time = TimeMs(50 * DAY);
        assert!(brake(&calm).is_some_and(|why| why.contains("30 days")));
        calm[0].0.time = TimeMs(19 * DAY);
        calm[4].0.bytes = 1000;
        assert!(brake(&calm).is_some_and(|why| why.contains("stays")));
        // Few, or the smaller part.
        let few: Vec<_> = (0..6).rev().map(|n| line(n, 100, n < 3, Waiting)).collect();
        assert_eq!(brake(&few), None);
        let part: Vec<_> = (0..20).rev().map(|n| line(n, 100, n < 10, Waiting)).collect();
        assert_eq!(brake(&part), None);
    }
}
