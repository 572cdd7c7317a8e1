//! Sets of small numbers, and how many there may be of each thing.

/// Regions at most; the first is home.
pub const REGIONS: usize = 2;
/// Packs at most.
pub const PACKS: usize = 8;
/// Sessions at most.
pub const SESSIONS: usize = 8;
/// Epochs at most, the first one included.
pub const EPOCHS: usize = 5;
/// Home.
pub const HOME: usize = 0;

/// A set of small numbers: chunks, packs, sessions, epochs or regions.
pub type Set = u8;

/// The set of one.
pub const fn one(n: usize) -> Set {
    1 << n
}

/// Whether a set has this member.
pub const fn has(set: Set, n: usize) -> bool {
    set >> n & 1 == 1
}

/// The members, the smallest first.
pub fn each(set: Set) -> impl Iterator<Item = usize> {
    (0..8).filter(move |n| has(set, *n))
}

/// The smallest member.
pub const fn first(set: Set) -> usize {
    set.trailing_zeros() as usize
}

/// The newest epoch of a series without gaps; the first one also where there is none.
pub const fn newest(begins: Set) -> usize {
    (begins.trailing_ones() as usize).saturating_sub(1)
}

/// The largest member.
pub const fn last(set: Set) -> usize {
    7 - set.leading_zeros() as usize
}
