//! What may go, by what was marked: packs that nothing needs, further copies of what is whole elsewhere, and packs that no
//! index names.

use super::mark::Judge;
use super::table::Table;
use crate::base::PackName;
use crate::format::objects::LIST_PACKS_MAX;
use crate::region::RegionSet;
use crate::repo::index::Located;
use std::cmp::Reverse;
use std::collections::BTreeSet;

/// Places of chunks that lie in several packs are remembered up to this many, 8 bytes each: what is more waits for the
/// next prune.
const COPIES_MAX: usize = 1 << 24;

/// Why a pack may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// No snapshot needs a chunk of it.
    Dead,
    /// Every chunk of it that a snapshot needs lies in another pack, which every region has.
    Copy,
    /// No index names it: a run that died left it.
    Orphan,
    /// An earlier prune decided that it goes, and it is still there.
    Again,
}

impl Reason {
    /// All of them.
    pub const ALL: [Reason; 4] = [Reason::Dead, Reason::Copy, Reason::Orphan, Reason::Again];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Reason::Dead => "dead",
            Reason::Copy => "copy",
            Reason::Orphan => "orphan",
            Reason::Again => "again",
        }
    }
}

/// A pack that goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Its name.
    pub name: PackName,
    /// Its size, in bytes.
    pub size: u64,
    /// Why.
    pub reason: Reason,
    /// Regions that have it.
    pub regions: RegionSet,
}

/// What is counted while roots are walked.
pub(super) struct Counting<'c> {
    pub(super) table: &'c Table,
    pub(super) members: RegionSet,
    /// By row: chunks that are needed, and their bytes.
    live: Vec<(u32, u64)>,
    /// By row: whether it has a chunk of which there is no other copy.
    sole: Vec<bool>,
    /// Copies of chunks that lie in several packs, chunk after chunk: the row, and whether all can do with it.
    copies: Vec<(u32, bool)>,
    /// Where each of these chunks begins.
    begins: Vec<u32>,
}

impl<'c> Counting<'c> {
    pub(super) fn new(table: &'c Table, members: RegionSet) -> Counting<'c> {
        let rows = table.rows.len();
        Counting {
            table,
            members,
            live: vec![(0, 0); rows],
            sole: vec![false; rows],
            copies: Vec::new(),
            begins: Vec::new(),
        }
    }

    fn alone(&mut self, rows: &[(u32, RegionSet)]) {
        for (n, _) in rows {
            if let Some(sole) = self.sole.get_mut(*n as usize) {
                *sole = true;
            }
        }
    }
}

impl Judge for Counting<'_> {
    fn needed(&mut self, places: &[Located], copies: &[(u32, RegionSet)]) {
        for (n, _) in copies {
            let at = places.iter().find(|at| self.table.row_of(at) == Some(*n));
            let bytes = at.map_or(0, |at| u64::from(at.place.len));
            if let Some((chunks, sum)) = self.live.get_mut(*n as usize) {
                (*chunks, *sum) = (chunks.saturating_add(1), sum.saturating_add(bytes));
            }
        }
        if copies.len() < 2 || self.copies.len() + copies.len() > COPIES_MAX {
            return self.alone(copies);
        }
        self.begins.push(self.copies.len() as u32);
        let full = copies.iter().map(|copy| (copy.0, self.table.is_full(*copy, self.members)));
        self.copies.extend(full);
    }
}

/// What was counted, apart from the table.
pub(super) struct Counted {
    live: Vec<(u32, u64)>,
    sole: Vec<bool>,
    copies: Vec<(u32, bool)>,
    begins: Vec<u32>,
}

impl Counting<'_> {
    pub(super) fn done(self) -> Counted {
        Counted { live: self.live, sole: self.sole, copies: self.copies, begins: self.begins }
    }
}

impl Counted {
    /// Puts what was counted into the table.
    pub(super) fn enter(&self, table: &mut Table) {
        for ((row, (live, bytes)), sole) in table.rows.iter_mut().zip(&self.live).zip(&self.sole) {
            (row.live, row.live_bytes, row.sole) = (*live, *bytes, *sole);
        }
    }

    /// The copies of one of the chunks that have several.
    fn group(&self, group: u32) -> &[(u32, bool)] {
        let at = |n: usize| self.begins.get(n).map_or(self.copies.len(), |at| *at as usize);
        self.copies.get(at(group as usize)..at(group as usize + 1)).unwrap_or_default()
    }

    /// Packs all of whose needed chunks lie in another one that stays, which every member has: first those with the most
    /// that nobody needs, so that what was written anew stays. Those that vanished are among them.
    pub(super) fn further_copies(&self, table: &Table, vanished: &BTreeSet<u32>) -> Vec<u32> {
        let mut of_pack: Vec<(u32, u32)> = Vec::with_capacity(self.copies.len());
        for group in 0..self.begins.len() as u32 {
            of_pack.extend(self.group(group).iter().map(|(row, _)| (*row, group)));
        }
        of_pack.sort_unstable();
        let fits = |n: &u32| {
            table.row(*n).is_some_and(|row| row.live > 0 && !row.sole && (row.may_go() || vanished.contains(n)))
        };
        let mut candidates: Vec<u32> = of_pack.iter().map(|(row, _)| *row).collect();
        candidates.dedup();
        candidates.retain(fits);
        candidates.sort_by_key(|n| table.row(*n).map(|row| (Reverse(row.unused()), row.live_bytes, row.name)));
        let mut goes = vec![false; table.rows.len()];
        let mut chosen = Vec::new();
        for n in candidates {
            let first = of_pack.partition_point(|(row, _)| *row < n);
            let groups = of_pack[first..].iter().take_while(|(row, _)| *row == n).map(|(_, group)| *group);
            let stays = |(row, full): &(u32, bool)| *row != n && *full && goes.get(*row as usize) == Some(&false);
            if groups.map(|group| self.group(group)).all(|copies| copies.iter().any(stays)) {
                if let Some(slot) = goes.get_mut(n as usize) {
                    *slot = true;
                }
                chosen.push(n);
            }
        }
        chosen
    }
}

/// Packs of the index of which no snapshot needs a chunk.
pub(super) fn dead(table: &Table) -> impl Iterator<Item = u32> {
    let goes = |(_, row): &(u32, &super::table::Row)| row.live == 0 && row.may_go();
    (0u32..).zip(&table.rows).filter(goes).map(|(n, _)| n)
}

/// Lines of the plan, as many as one epoch takes, in the order of their names; and how many are left for the next.
pub(super) fn lines(table: &Table, chosen: impl IntoIterator<Item = (u32, Reason)>) -> (Vec<Line>, u64) {
    let line = |(n, reason): (u32, Reason)| {
        let row = table.row(n)?;
        Some(Line { name: row.name, size: row.size, reason, regions: row.listed })
    };
    let mut lines: Vec<Line> = chosen.into_iter().filter_map(line).collect();
    lines.sort_by_key(|line| line.name);
    let left = lines.len().saturating_sub(LIST_PACKS_MAX) as u64;
    lines.truncate(LIST_PACKS_MAX);
    (lines, left)
}
