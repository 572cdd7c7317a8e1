//! Writing anew what is needed of packs of which most is not: a session of its own, which stores the needed chunks in new
//! packs of the same generation and ends with a record of it. Nothing is removed here: the next survey sees two copies of
//! each chunk, and lets the old pack go once every region has the new one.

use super::super::verify::parallel;
use super::bounds::Clock;
use super::mark::{Marks, entry_of};
use super::survey::numbers_hold;
use super::table::{Row, Table};
use crate::base::{Cancel, ChunkId, Generation, PackName, Progress};
use crate::chunk::{Coder, Compression};
use crate::error::{Error, Kind, Result};
use crate::format::envelope::{Class, Kind as ObjectKind, OBJECT_BYTES_MAX};
use crate::format::objects::{Moved, Repack};
use crate::format::pack;
use crate::region::{lift, lock};
use crate::repo::Repo;
use crate::repo::gather::keys_of;
use crate::repo::index::{Index, Located, Reusable, Reuse};
use crate::repo::reader::{Content, open_record};
use crate::repo::session::{Errand, Session};
use crate::repo::writer::{Packer, Writer};
use crate::store::{Key, Put};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

/// Most packs that one session writes anew: their names stand in its record.
const PACKS_MAX: usize = 512;
/// A pack of content below this is small,
const SMALL_DATA_BYTES: u64 = 4 << 20;
/// and one of trees below this.
const SMALL_TREE_BYTES: u64 = 1 << 20;
/// So many small ones become fewer, where nothing else is said.
pub const SMALL_MIN: usize = 256;
/// Where there are more bytes than this for each, several are read and encoded side by side: each hand leaves packs that are not
/// full.
const PART_BYTES_MIN: u64 = 16 << 20;
/// Each has a pack that is read and two that are written in memory, some 100 MiB.
const HANDS_MAX: usize = 3;
/// What its session says that it backs up.
const SOURCE: &str = "(repack)";

/// Which packs are written anew.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Those of which more than this is needed by nobody, percent; none of 100.
    pub above_percent: u8,
    /// At most so many bytes of them in one run.
    pub bytes_max: u64,
    /// Small ones are put together where there are so many of them.
    pub small_min: usize,
}

/// What was written anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Repacked {
    /// Old packs.
    pub packs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes of the new ones.
    pub bytes_new: u64,
}

/// Why a pack is written anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Choice {
    /// Nothing more rests on it, as the ends of an epoch disagree on it.
    Disputed,
    /// Most of it is needed by nobody.
    Waste,
    /// It is one of many small ones: whoever restores asks for each.
    Small,
}

/// The packs to be written anew, by generation: those with the most that nobody needs first, then small ones, the oldest
/// first, so that what came together lies together.
pub(super) fn choose(table: &Table, going: &HashSet<PackName>, limits: Limits) -> BTreeMap<Generation, Vec<u32>> {
    let mut chosen: BTreeMap<Generation, Vec<u32>> = BTreeMap::new();
    if limits.above_percent >= 100 {
        return chosen;
    }
    let mut rows: Vec<(Choice, u32)> = (0u32..)
        .zip(&table.rows)
        .filter(|(_, row)| row.live > 0 && row.may_go() && !going.contains(&row.name))
        .filter(|(_, row)| !row.present().is_empty())
        .filter_map(|(n, row)| Some((choice(row, limits)?, n)))
        .collect();
    many_only(table, &mut rows, limits.small_min);
    rows.sort_by_key(|(choice, n)| {
        let rank = table.row(*n).map(|row| match choice {
            Choice::Disputed => (0, std::cmp::Reverse(row.unused()), 0, row.name),
            Choice::Waste => (1, std::cmp::Reverse(row.unused()), 0, row.name),
            Choice::Small => (2, std::cmp::Reverse(0), row.modified, row.name),
        });
        rank.unwrap_or((2, std::cmp::Reverse(0), i64::MAX, PackName([0; 32])))
    });
    let mut bytes = 0u64;
    for (_, n) in rows {
        let Some((row, generation)) = table.row(n).and_then(|row| Some((row, row.generation?))) else { continue };
        bytes = bytes.saturating_add(row.size);
        if bytes > limits.bytes_max {
            break;
        }
        let own = chosen.entry(generation).or_default();
        if own.len() < PACKS_MAX {
            own.push(n);
        }
    }
    chosen
}

fn choice(row: &Row, limits: Limits) -> Option<Choice> {
    let wasteful = u128::from(row.unused()) * 100 > u128::from(row.size) * u128::from(limits.above_percent);
    let small = row.size < if row.tree { SMALL_TREE_BYTES } else { SMALL_DATA_BYTES };
    if row.disputed {
        return Some(Choice::Disputed);
    }
    match (wasteful, small) {
        (true, _) => Some(Choice::Waste),
        (false, true) => Some(Choice::Small),
        (false, false) => None,
    }
}

/// A few small packs stay as they are: the next backup makes one more.
fn many_only(table: &Table, rows: &mut Vec<(Choice, u32)>, least: usize) {
    let kind = |n: u32| table.row(n).map(|row| (row.generation, row.tree));
    let mut counts: HashMap<_, usize> = HashMap::new();
    for (_, n) in rows.iter().filter(|(choice, _)| *choice == Choice::Small) {
        *counts.entry(kind(*n)).or_default() += 1;
    }
    rows.retain(|(choice, n)| *choice != Choice::Small || counts.get(&kind(*n)).is_some_and(|count| *count >= least));
}

/// Where a pack is opened, used again for the next one.
#[derive(Default)]
struct Room {
    coder: Coder,
    buffer: Vec<u8>,
    scratch: Vec<u8>,
}

/// What it works with.
pub(super) struct Means<'m> {
    pub(super) repo: &'m Arc<Repo>,
    pub(super) index: &'m Arc<Index>,
    pub(super) table: &'m Table,
    pub(super) marks: &'m Marks,
    pub(super) host: &'m str,
    pub(super) workers: usize,
    pub(super) clock: &'m Clock,
    pub(super) cancel: &'m Cancel,
}

impl Means<'_> {
    /// Writes these packs of one generation anew.
    ///
    /// # Errors
    /// No region takes packs, a needed chunk cannot be read anywhere, or interrupted. What was stored is named, and is
    /// looked at by the next survey.
    pub(super) fn run(&self, generation: Generation, rows: &[u32]) -> Result<Repacked> {
        let errand = Errand { host: self.host.to_owned(), source: SOURCE.to_owned(), generation };
        let session = Session::announce(self.repo, errand, None)?;
        let done = self.store(&session, generation, rows);
        let (repacked, record, complete) = match done {
            Ok(done) => done,
            Err(e) => {
                session.give_up(self.repo, e.what())?;
                return Err(e);
            }
        };
        let key = Key::Snapshot(session.sid);
        let bytes = self.repo.seal(ObjectKind::Repack, &key.canonical(), &record)?;
        if !complete.has(session.decision) {
            session.give_up(self.repo, "its decision region is not complete")?;
            return Ok(repacked);
        }
        // Ended by another prune: what was stored is there all the same, and nothing rests on it.
        if self.repo.regions.put(session.decision, &key, &bytes)? != Put::Other {
            self.repo.regions.put_all(complete.without(session.decision), &key, &bytes);
        }
        Ok(repacked)
    }

    fn store(
        &self,
        session: &Session,
        generation: Generation,
        rows: &[u32],
    ) -> Result<(Repacked, Repack, crate::region::RegionSet)> {
        let (repo, progress) = (self.repo, Progress::default());
        let (mut bad, regions) = (session.epochs.bad_packs(), session.regions.and(repo.writable()));
        bad.extend(rows.iter().filter_map(|n| self.table.row(*n)).map(|row| row.name));
        // What an index names and not every region has is no copy to rest on: the old one could not go.
        let is_whole = |row: &&Row| row.present().covers(regions);
        bad.extend(self.table.rows.iter().filter(|row| !is_whole(row)).map(|row| row.name));
        let rules = Reuse { regions, bad, generation, present: None };
        let known = Reusable::new(Arc::clone(self.index), rules);
        let writer = Writer::new(repo, session, known, (Compression::Default, self.workers), &progress);
        let mut repacked = Repacked::default();
        let filled = self.fill(&writer, generation, rows, &mut repacked);
        let finished = writer.finish();
        let old = filled?;
        let complete = finished?;
        // By other numbers, what is needed may have been passed over.
        numbers_hold(self.index)?;
        repacked.bytes_new = progress.bytes_stored.get();
        let new = writer.stored();
        let moved = old.into_iter().map(|old| Moved { old, new: new.clone() }).collect();
        let created = repo.env.now().0;
        Ok((repacked, Repack { fresh: session.fresh(repo), sid: session.sid, created, moved }, complete))
    }

    /// Returns the packs whose content was written anew: all, unless the time is over. Many are read and encoded side by side,
    /// each part in its order.
    fn fill(
        &self,
        writer: &Writer<'_>,
        generation: Generation,
        rows: &[u32],
        done: &mut Repacked,
    ) -> Result<Vec<PackName>> {
        let bytes: u64 = rows.iter().filter_map(|n| self.table.row(*n)).map(|row| row.size).sum();
        let most = self.workers.clamp(1, HANDS_MAX);
        let hands = usize::try_from(bytes / PART_BYTES_MIN).unwrap_or(usize::MAX).clamp(1, most);
        let parts: Vec<&[u32]> = rows.chunks(rows.len().div_ceil(hands).max(1)).collect();
        let filled = Mutex::new((Vec::new(), Repacked::default()));
        parallel(&parts, hands, self.cancel, |part, _| {
            let (old, own) = self.fill_part(writer, generation, part)?;
            let mut all = lock(&filled);
            all.0.extend(old);
            all.1.packs += own.packs;
            all.1.bytes = all.1.bytes.saturating_add(own.bytes);
            Ok(())
        })?;
        let (old, sum) = filled.into_inner().unwrap_or_else(PoisonError::into_inner);
        *done = sum;
        Ok(old)
    }

    fn fill_part(
        &self,
        writer: &Writer<'_>,
        generation: Generation,
        rows: &[u32],
    ) -> Result<(Vec<PackName>, Repacked)> {
        let (mut old, mut done) = (Vec::new(), Repacked::default());
        let (mut data, mut tree) = (writer.packer(Class::Data), writer.packer(Class::Tree));
        let mut room = Room::default();
        for n in rows {
            self.cancel.check()?;
            if self.clock.is_over() {
                break;
            }
            let Some(row) = self.table.row(*n) else { continue };
            match self.one(&row.name, generation, (&mut data, &mut tree), &mut room) {
                Ok(()) => {}
                // It is not in the way of anything.
                Err(e) if row.disputed && matches!(e.kind(), Kind::Damage | Kind::NotFound) => continue,
                Err(e) => return Err(e),
            }
            old.push(row.name);
            done.packs += 1;
            done.bytes = done.bytes.saturating_add(row.size);
        }
        data.flush()?;
        tree.flush()?;
        Ok((old, done))
    }

    /// Writes anew what is needed of a pack, as data or as trees.
    fn one<'w, 'r>(
        &self,
        name: &PackName,
        generation: Generation,
        (data, tree): (&mut Packer<'w, 'r>, &mut Packer<'w, 'r>),
        Room { coder, buffer, scratch }: &mut Room,
    ) -> Result<()> {
        let bytes = self.fetch(name, buffer)?;
        let keys = keys_of(self.repo, bytes).map_err(lift)?;
        let is_tree =
            crate::format::envelope::Header::parse(bytes, &self.repo.id).map_err(lift)?.0.kind == ObjectKind::Tree;
        let packer = if is_tree { tree } else { data };
        for at in pack::records(&keys, bytes).map_err(lift)? {
            let record = bytes.get_mut(at.offset as usize..).unwrap_or_default();
            let opened = open_record(self.repo.id_key(), &keys, at.number, record, coder, scratch);
            let (content, plain) = opened.map_err(lift)?;
            self.record(packer, generation, &content, plain)?;
        }
        Ok(())
    }

    fn record(
        &self,
        packer: &mut Packer<'_, '_>,
        generation: Generation,
        content: &Content,
        plain: &[u8],
    ) -> Result<()> {
        match content {
            Content::Chunk(id, _) if self.is_live(id, generation) => packer.chunk(plain).map(drop),
            Content::Chunk(..) => Ok(()),
            Content::Bundle(chunks) => {
                for (id, offset, len) in chunks.iter().filter(|(id, ..)| self.is_live(id, generation)) {
                    let part = plain.get(*offset..offset.saturating_add(*len));
                    let part =
                        part.ok_or_else(|| Error::new(Kind::Damage, format!("chunk {} is cut short", id.short())))?;
                    packer.chunk(part)?;
                }
                Ok(())
            }
        }
    }

    fn is_live(&self, id: &ChunkId, generation: Generation) -> bool {
        let places: Vec<Located> = self.index.locate(id).collect();
        entry_of(&places, generation).is_some_and(|entry| self.marks.is_live(generation, entry))
    }

    /// A whole pack, from the first region that has it intact.
    fn fetch<'b>(&self, name: &PackName, buffer: &'b mut Vec<u8>) -> Result<&'b mut [u8]> {
        let (regions, key) = (&self.repo.regions, Key::Pack(*name));
        let check = |bytes: bytes::Bytes| pack::check_name(name, &bytes).map(|()| bytes);
        let fetch = |ix| regions.get(ix, &key, OBJECT_BYTES_MAX as u64);
        let bytes = regions.read_among(self.repo.usable(), &key, fetch, check)?;
        buffer.clear();
        buffer.extend_from_slice(&bytes);
        Ok(buffer)
    }
}
