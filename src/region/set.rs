//! Sets of regions.

use super::REGIONS_MAX;

/// A set of regions, by their place in [`super::Regions`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct RegionSet(u32);

impl RegionSet {
    /// None.
    pub const NONE: RegionSet = RegionSet(0);

    /// All that there can be.
    pub const ALL: RegionSet = RegionSet(u32::MAX);

    /// These.
    pub fn of(members: impl IntoIterator<Item = usize>) -> RegionSet {
        RegionSet(members.into_iter().filter(|ix| *ix < REGIONS_MAX).fold(0, |set, ix| set | 1 << ix))
    }

    /// Whether it has this one.
    pub fn has(self, ix: usize) -> bool {
        ix < REGIONS_MAX && self.0 & (1 << ix) != 0
    }

    /// A bit for each region.
    pub fn bits(self) -> u32 {
        self.0
    }

    /// Its members, in order.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        (0..REGIONS_MAX).filter(move |ix| self.has(*ix))
    }

    /// How many.
    pub fn count(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether all of `other` are in it.
    pub fn covers(self, other: RegionSet) -> bool {
        self.0 & other.0 == other.0
    }

    /// With one more.
    pub fn with(self, ix: usize) -> RegionSet {
        if ix < REGIONS_MAX { RegionSet(self.0 | 1 << ix) } else { self }
    }

    /// Less one.
    pub fn without(self, ix: usize) -> RegionSet {
        if ix < REGIONS_MAX { RegionSet(self.0 & !(1 << ix)) } else { self }
    }

    /// What is in either.
    pub fn or(self, other: RegionSet) -> RegionSet {
        RegionSet(self.0 | other.0)
    }

    /// What is in both.
    pub fn and(self, other: RegionSet) -> RegionSet {
        RegionSet(self.0 & other.0)
    }
}

impl IntoIterator for RegionSet {
    type Item = usize;
    type IntoIter = std::vec::IntoIter<usize>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter().collect::<Vec<_>>().into_iter()
    }
}
