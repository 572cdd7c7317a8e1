//! Every pack once: what the regions list, what their indexes name, and what was found of its chunks. 96 bytes a pack,
//! and 4 for each time that a segment names one.

use crate::base::{Generation, PackName, SessionId};
use crate::error::{Error, Kind, Result};
use crate::region::RegionSet;
use crate::repo::Repo;
use crate::repo::epochs::Epochs;
use crate::repo::index::{Index, Located};
use crate::store::{Key, Prefix};
use std::collections::BTreeSet;

/// One pack.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) name: PackName,
    /// Bytes, as the index says it, or else the regions.
    pub(super) size: u64,
    /// The first time that a store gives it, by our clock, ms.
    pub(super) modified: i64,
    /// Regions that list it.
    pub(super) listed: RegionSet,
    /// Of them, those that give it another size than the first of them.
    odd: RegionSet,
    /// Regions that list a segment which names it.
    pub(super) indexed: RegionSet,
    pub(super) generation: Option<Generation>,
    /// Whether it holds trees.
    pub(super) tree: bool,
    /// Bytes of its chunks, before compression.
    total_bytes: u64,
    /// Of them, those that snapshots need.
    pub(super) live_bytes: u64,
    /// Chunks that snapshots need.
    pub(super) live: u32,
    /// It has a chunk that is nowhere else.
    pub(super) sole: bool,
    /// It belongs to a session that is at work.
    pub(super) busy: bool,
    /// It is dead for ever, by an earlier epoch.
    pub(super) doomed: bool,
    /// Nothing more rests on it, as the ends of an epoch disagree on it: whoever needs what it has stores that again.
    pub(super) disputed: bool,
    /// A check found a copy of it damaged.
    damaged: bool,
    /// Whether the size that the regions list is the one that the index says.
    sized: bool,
}

impl Row {
    /// Regions that have it, with its right size.
    pub(super) fn present(&self) -> RegionSet {
        if !self.sized {
            return RegionSet::NONE;
        }
        RegionSet::of(self.listed.iter().filter(|ix| !self.odd.has(*ix)))
    }

    /// Bytes of it that no snapshot needs, by the share of its content before compression.
    pub(super) fn unused(&self) -> u64 {
        let (total, live) = (u128::from(self.total_bytes.max(1)), u128::from(self.live_bytes.min(self.total_bytes)));
        let used = u128::from(self.size) * live / total;
        self.size.saturating_sub(u64::try_from(used).unwrap_or(u64::MAX))
    }

    /// Whether it may be judged by what its chunks are worth. One that the index names and no listing showed came after the
    /// packs were listed: a session made it that was not seen either.
    pub(super) fn may_go(&self) -> bool {
        !self.busy && !self.doomed && !self.is_orphan() && !self.listed.is_empty()
    }

    /// Whether only an index knows it: it was lost with its region, or is just being made by a session that was not seen.
    pub(super) fn is_vanished(&self) -> bool {
        !self.busy && !self.doomed && !self.is_orphan() && self.listed.is_empty()
    }

    /// Whether only a listing knows it.
    pub(super) fn is_orphan(&self) -> bool {
        self.indexed.is_empty()
    }
}

/// What it costs is said in docs/scale.md.
const _: () = assert!(size_of::<Row>() <= 96);

/// All packs, in the order of their names.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) rows: Vec<Row>,
    /// The row of each pack of the index, by its number there.
    by_number: Vec<u32>,
}

fn row(name: PackName) -> Row {
    Row {
        name,
        size: 0,
        modified: i64::MAX,
        listed: RegionSet::NONE,
        odd: RegionSet::NONE,
        indexed: RegionSet::NONE,
        generation: None,
        tree: false,
        total_bytes: 0,
        live_bytes: 0,
        live: 0,
        sole: false,
        busy: false,
        doomed: false,
        disputed: false,
        damaged: false,
        sized: true,
    }
}

impl Table {
    /// The packs that the members list. Listed before anything that says whose they are.
    ///
    /// # Errors
    /// A listing failed.
    pub(super) fn list(repo: &Repo, members: RegionSet) -> Result<Table> {
        let mut table = Table::default();
        for ix in members.iter() {
            let found = repo.regions.list(ix, Prefix::Packs)?;
            let ahead = repo.regions.clock_ahead_ms(ix, repo.env.now());
            // Both are in the order of their names.
            let (old, mut lines) = (std::mem::take(&mut table.rows), found.into_iter().peekable());
            table.rows.reserve(old.len().max(lines.len()));
            let mut old = old.into_iter().peekable();
            loop {
                let next = match (old.peek(), lines.peek()) {
                    (None, None) => break,
                    (Some(row), Some(line)) if Key::Pack(row.name) < line.key => None,
                    (Some(_), None) => None,
                    (_, Some(_)) => lines.next(),
                };
                let Some(line) = next else {
                    table.rows.extend(old.next());
                    continue;
                };
                let Key::Pack(name) = line.key else { continue };
                let mut row = old.next_if(|row| row.name == name).unwrap_or_else(|| row(name));
                if row.listed.is_empty() {
                    row.size = line.size;
                } else if row.size != line.size {
                    row.odd = row.odd.with(ix);
                }
                row.listed = row.listed.with(ix);
                row.modified = row.modified.min(line.modified.saturating_sub(ahead));
                table.rows.push(row);
            }
        }
        Ok(table)
    }

    /// Adds what the index names, whose sessions are at work, and what is doomed.
    ///
    /// # Errors
    /// More packs than can be counted.
    pub(super) fn add_index(
        &mut self,
        repo: &Repo,
        index: &Index,
        busy: &BTreeSet<SessionId>,
        epochs: &Epochs,
    ) -> Result<()> {
        let mut unlisted: Vec<PackName> =
            index.packs_seen().map(|seen| seen.line.name).filter(|name| self.find(name).is_none()).collect();
        unlisted.sort_unstable();
        unlisted.dedup();
        self.rows.extend(unlisted.into_iter().map(row));
        self.rows.sort_unstable_by_key(|row| row.name);
        u32::try_from(self.rows.len()).map_err(|_| Error::new(Kind::Refused, "more packs than can be counted"))?;
        self.by_number = vec![u32::MAX; index.packs_total() as usize];
        for seen in index.packs_seen() {
            let Some(n) = self.find(&seen.line.name) else { continue };
            if let Some(slot) = self.by_number.get_mut(seen.number as usize) {
                *slot = n;
            }
            let Some(row) = self.rows.get_mut(n as usize) else { continue };
            let first = row.indexed.is_empty();
            if !row.listed.is_empty() && row.size != seen.line.size {
                row.sized = false;
            }
            row.size = if row.listed.is_empty() { seen.line.size } else { row.size };
            // One that two generations claim is left alone.
            row.busy |= busy.contains(&seen.sid) || (!first && row.generation != Some(seen.generation));
            (row.generation, row.tree) = (Some(seen.generation), seen.line.tree);
            row.indexed = row.indexed.or(seen.regions);
        }
        // Every segment that names a pack names all of it: several of them say the same.
        let mut totals = vec![0u64; index.packs_total() as usize];
        index.each_length(|pack, len| {
            if let Some(total) = totals.get_mut(pack as usize) {
                *total = total.saturating_add(u64::from(len));
            }
        });
        for (n, total) in self.by_number.iter().zip(totals) {
            if let Some(row) = self.rows.get_mut(*n as usize) {
                row.total_bytes = row.total_bytes.max(total);
            }
        }
        let (doomed, disputed) = (epochs.doomed(), epochs.disputed());
        for row in &mut self.rows {
            row.disputed = disputed.contains(&row.name);
            (row.doomed, row.damaged) = (doomed.contains(&row.name), repo.regions.is_damaged(&row.name));
        }
        Ok(())
    }

    /// The row of a pack.
    pub(super) fn find(&self, name: &PackName) -> Option<u32> {
        self.rows.binary_search_by_key(name, |row| row.name).ok().map(|n| n as u32)
    }

    /// The row of the pack in which a chunk lies.
    pub(super) fn row_of(&self, at: &Located) -> Option<u32> {
        self.by_number.get(at.pack_no as usize).copied().filter(|n| *n != u32::MAX)
    }

    pub(super) fn row(&self, n: u32) -> Option<&Row> {
        self.rows.get(n as usize)
    }

    /// The rows in which a chunk of this generation lies, each once, with the regions whose indexes say so. What is
    /// doomed is gone, however late it is removed.
    pub(super) fn copies(&self, places: &[Located], generation: Generation) -> Vec<(u32, RegionSet)> {
        let mut copies: Vec<(u32, RegionSet)> = Vec::with_capacity(places.len());
        for at in places.iter().filter(|at| at.generation == generation) {
            let Some(n) = self.row_of(at) else { continue };
            if self.row(n).is_none_or(|row| row.doomed) {
                continue;
            }
            match copies.iter_mut().find(|(known, _)| *known == n) {
                Some((_, regions)) => *regions = regions.or(at.regions),
                None => copies.push((n, at.regions)),
            }
        }
        copies
    }

    /// Whether it was known of each pack on which the ends of an epoch disagree.
    pub(super) fn knows_disputed(&self, epochs: &Epochs) -> bool {
        let known = |name: &PackName| self.find(name).and_then(|n| self.row(n)).is_none_or(|row| row.disputed);
        epochs.disputed().iter().all(known)
    }

    /// Whether a copy is one that all can do with: indexed and present in every member, nowhere known to be damaged, and such
    /// that writers may rest on it.
    pub(super) fn is_full(&self, (n, regions): (u32, RegionSet), members: RegionSet) -> bool {
        regions.covers(members)
            && self.row(n).is_some_and(|row| row.present().covers(members) && !row.damaged && !row.disputed)
    }
}
