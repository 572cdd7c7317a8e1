//! A source that is suddenly small, or has become so step by step: an unmounted disk, an emptied bucket, a mistake in
//! a path. Its snapshots must not push out those of what it was before a person has said that it is right so.

use crate::base::TimeMs;

/// The tag by which a person says that a snapshot is right as it is, however small: what is smaller than before it is
/// not small after it.
pub const MAY_SHRINK: &str = "may-shrink";
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
    /// Whether a person has said that it is right so.
    pub accepted: bool,
    /// Whether it is changes beside an earlier one: how large it is says how much was changed since, not what the source
    /// is. It is as small as the whole one before it.
    pub delta: bool,
}

/// Whether nothing is left of `then`, or a tenth at most.
fn shrank(now: u64, then: u64) -> bool {
    then > 0 && now.saturating_mul(10) <= then
}

/// The size that a source usually has: the second largest of what is known, so that one day on which it was large
/// makes no other small; the largest while little is known. What is still kept counts, however old: so a source that
/// shrinks in steps is seen as well.
#[derive(Default)]
struct Usual {
    known: usize,
    files: [u64; 2],
    bytes: [u64; 2],
}

impl Usual {
    fn add(&mut self, now: &Extent) {
        self.known += 1;
        for ([first, second], value) in [(&mut self.files, now.files), (&mut self.bytes, now.bytes)] {
            *second = (*second).max(value.min(*first));
            *first = (*first).max(value);
        }
    }

    fn makes_small(&self, now: &Extent) -> bool {
        let rank = usize::from(self.known > 2);
        shrank(now.files, self.files[rank]) || shrank(now.bytes, self.bytes[rank])
    }
}

/// Whether a source had become small.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Small {
    /// No, or a person said that this is its size.
    #[default]
    No,
    /// It did, and was its old self again later.
    Once,
    /// It did, and nobody has said yet that it is right so.
    Waiting,
}

/// Judges all snapshots of a source, oldest first.
pub fn small(history: &[Extent]) -> Vec<Small> {
    let mut found = vec![Small::No; history.len()];
    let mut usual = Usual::default();
    // Bytes of the largest delta: they measure where no whole snapshot is left. Each holds its base.
    let mut deltas = 0;
    let mut first = None;
    for (n, now) in history.iter().enumerate() {
        if now.accepted {
            found[first.take().unwrap_or(n)..n].fill(Small::No);
            (usual, deltas) = (Usual::default(), 0);
        } else if now.delta {
            if first.is_some() || usual.makes_small(now) {
                first.get_or_insert(n);
                found[n] = Small::Waiting;
            }
        } else if usual.makes_small(now) || usual.known == 0 && shrank(now.bytes, deltas) {
            first.get_or_insert(n);
            found[n] = Small::Waiting;
            continue;
        } else if let Some(first) = first.take() {
            found[first..n].fill(Small::Once);
        }
        if now.delta {
            deltas = deltas.max(now.bytes);
        } else {
            usual.add(now);
        }
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
    // What is older than a person's word does not count.
    let newest_word = snapshots.iter().position(|(extent, ..)| extent.accepted);
    let counted = newest_word.map_or(snapshots, |n| &snapshots[..=n]);
    let all_go = counted.iter().all(|(_, goes, _)| *goes);
    let most = |gone: bool, size: fn(&Extent) -> u64| {
        let measured = counted.iter().filter(|(extent, goes, _)| *goes == gone && (!extent.delta || all_go));
        measured.map(|(extent, ..)| size(extent)).max()
    };
    // Where only changes stay, the whole ones that they go on from stay in them.
    let deltas_alone = !all_go && most(false, |extent| extent.files).is_none();
    let sizes: [fn(&Extent) -> u64; 2] = [|extent| extent.files, |extent| extent.bytes];
    let less = |size| shrank(most(false, size).unwrap_or(0), most(true, size).unwrap_or(0));
    if !deltas_alone && sizes.into_iter().any(less) {
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
            accepted: false,
            delta: false,
        };
        sizes.iter().enumerate().map(extent).collect()
    }

    #[test]
    fn small_until_a_person_says_that_it_is_right() {
        let big = (100, 1000);
        let days = [&[big][..], &[(0, 0); 400]].concat();
        assert_eq!(small(&daily(&days)), [&[No][..], &[Waiting; 400]].concat());
        assert_eq!(small(&daily(&[big, (0, 0), (0, 0), big, (10, 1000)])), [No, Once, Once, No, Waiting]);
        assert_eq!(small(&daily(&[big, (90, 100), (91, 101)])), [No, Once, No]);
        // What was empty from the first day on is what it is; one file that goes is all of it.
        assert_eq!(small(&daily(&[(0, 0), (0, 0), (1, 0), (0, 0)])), [No, No, No, No]);
        assert_eq!(small(&daily(&[(1, 0), (0, 0)])), [No, Waiting]);
        assert!(small(&[]).is_empty());
        let mut told = daily(&[big, (0, 0), (5, 50), (5, 50), (4, 40), (0, 0)]);
        told[2].accepted = true;
        assert_eq!(small(&told), [No, No, No, No, No, Waiting]);
    }

    #[test]
    fn steps_are_added_up_and_one_large_day_is_not_the_measure() {
        assert_eq!(small(&daily(&[(100, 1000), (11, 101), (2, 11)])), [No, No, Waiting]);
        let halves: Vec<(u64, u64)> = (0..8).map(|n| (1 << (10 - n), 1)).collect();
        assert_eq!(small(&daily(&halves)), [No, No, No, No, No, Waiting, Waiting, Waiting]);
        assert_eq!(small(&daily(&[(5, 5), (5, 5), (500, 5), (5, 5), (5, 5)])), [No; 5]);
    }

    #[test]
    fn changes_beside_an_earlier_one_measure_nothing() {
        let judged = |sizes: &[(u64, u64)], deltas: &[usize]| {
            let mut all = daily(sizes);
            deltas.iter().for_each(|n| all[*n].delta = true);
            small(&all)
        };
        // An hour of changes beside a whole one, and the next whole one: it is as large as the first.
        let hour = [(2, 100), (20, 900), (62, 4000), (2, 110), (3, 120)];
        assert_eq!(judged(&hour, &[1, 2, 4]), [No; 5]);
        assert_eq!(judged(&hour, &[]), [No, No, No, Once, No]);
        // What goes on from a small one waits with it, until a whole one is as it was or a person speaks.
        let emptied = [(2, 1000), (30, 2000), (2, 10), (3, 5000), (2, 1000)];
        assert_eq!(judged(&emptied, &[1, 3]), [No, No, Once, Once, No]);
        assert_eq!(judged(&emptied[..4], &[1, 3]), [No, No, Waiting, Waiting]);
        // Where the small whole one was thinned out, those that hold it tell; where all whole ones were, the others measure.
        assert_eq!(judged(&[(2, 1000), (2, 1000), (2, 10), (2, 12)], &[2, 3]), [No, No, Waiting, Waiting]);
        assert_eq!(judged(&[(2, 1000), (9, 1000), (2, 10)], &[0, 1]), [No, No, Waiting]);
        let mut told = daily(&[(2, 1000), (2, 10), (3, 20), (2, 10)]);
        (told[2].delta, told[2].accepted) = (true, true);
        assert_eq!(small(&told), [No; 4]);
    }

    #[test]
    fn changes_that_go_are_no_reason_for_the_brake() {
        let line = |n: i64, files, delta, goes| {
            (Extent { time: TimeMs(n * DAY), files, bytes: files, accepted: false, delta }, goes, No)
        };
        // A whole one stays; many changes that grew beside an older one go.
        let mut all: Vec<_> = (0..20).map(|n| line(20 - n, 40 - n as u64, n > 0, n > 0)).collect();
        (all[0].0.files, all[0].0.bytes) = (2, 2);
        assert_eq!(brake(&all), None);
        all.iter_mut().for_each(|(extent, ..)| extent.delta = false);
        assert!(brake(&all).is_some());
        // Of a day the newest changes stay, and whole ones that are older go.
        let all: Vec<_> = (0..20).map(|n| line(20 - n, 40, n == 0, n > 0)).collect();
        assert_eq!(brake(&all), None);
    }

    #[test]
    fn the_brake_needs_many_and_something_strange() {
        let line = |n: i64, files, goes, small| {
            (Extent { time: TimeMs(n * DAY), files, bytes: files, accepted: false, delta: false }, goes, small)
        };
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
        calm[1].0.accepted = true;
        assert_eq!(brake(&calm), None);
        calm[1].0.accepted = false;
        // Few, or the smaller part.
        let few: Vec<_> = (0..6).rev().map(|n| line(n, 100, n < 3, Waiting)).collect();
        assert_eq!(brake(&few), None);
        let part: Vec<_> = (0..20).rev().map(|n| line(n, 100, n < 10, Waiting)).collect();
        assert_eq!(brake(&part), None);
    }
}
