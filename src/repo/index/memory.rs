//! Segments in memory: 56 bytes an entry and about 7 for the table.

use super::Content;
use crate::base::ChunkId;
use crate::format::index::{ENTRY_BYTES, PackLine, Place};
use hashbrown::HashTable;

/// One segment of it.
#[derive(Debug)]
struct Part {
    packs: Vec<PackLine>,
    first_entry: u32,
    first_pack: u32,
}

/// Segments, looked up by chunk id.
#[derive(Debug, Default)]
pub struct Memory {
    parts: Vec<Part>,
    entries: Vec<u8>,
    table: HashTable<u32>,
    packs: u32,
}

/// A place with the numbers of its segment and its pack among those added.
pub struct Found {
    /// Where.
    pub place: Place,
    /// The pack.
    pub pack: PackLine,
    /// Its number.
    pub pack_no: u32,
    /// The segment's number.
    pub segment: u32,
    /// Its own number among the entries of its part.
    pub entry: u32,
}

/// Ids are keyed hashes: their first bytes are as good as any hash of them.
fn hash_of(id: &[u8]) -> u64 {
    id.first_chunk().map_or(0, |first| u64::from_le_bytes(*first))
}

impl Memory {
    /// Adds one segment; [`Memory::build`] makes it known.
    pub fn add(&mut self, content: Option<&Content>, packs: u32) {
        let (first_entry, first_pack) = (self.count() as u32, self.packs);
        let lines = content.map_or_else(Vec::new, |content| {
            self.entries.extend_from_slice(&content.segment.entries);
            content.packs.clone()
        });
        self.packs += packs;
        self.parts.push(Part { packs: lines, first_entry, first_pack });
    }

    /// Builds the table.
    pub fn build(&mut self) {
        let entries = &self.entries;
        let hash = |n: &u32| hash_of(&entries[*n as usize * ENTRY_BYTES..]);
        let count = (entries.len() / ENTRY_BYTES) as u32;
        self.table = HashTable::with_capacity(count as usize);
        for n in 0..count {
            self.table.insert_unique(hash(&n), n, hash);
        }
    }

    /// How many entries there are.
    pub fn count(&self) -> usize {
        self.entries.len() / ENTRY_BYTES
    }

    /// Every place of a chunk.
    pub fn find(&self, id: &ChunkId) -> impl Iterator<Item = Found> {
        let id = *id;
        self.table.iter_hash(hash_of(id.bytes())).filter_map(move |n| {
            let found = self.entry(*n)?;
            (found.place.id == id).then_some(found)
        })
    }

    fn entry(&self, n: u32) -> Option<Found> {
        let (raw, _) = self.entries.get(n as usize * ENTRY_BYTES..)?.split_first_chunk::<ENTRY_BYTES>()?;
        let place = Place::parse(raw);
        let at = self.parts.partition_point(|s| s.first_entry <= n).checked_sub(1)?;
        let part = &self.parts[at];
        let pack = *part.packs.get(place.pack as usize)?;
        Some(Found { place, pack, pack_no: part.first_pack + place.pack, segment: at as u32, entry: n })
    }

    /// Entries sorted by id, each with its pack's number.
    pub fn sorted(&self) -> impl Iterator<Item = [u8; ENTRY_BYTES]> {
        let (entries, _) = self.entries.as_chunks::<ENTRY_BYTES>();
        let key = |raw: &[u8; ENTRY_BYTES]| raw.first_chunk().map_or(0, |key| u64::from_be_bytes(*key));
        let mut order: Vec<(u64, u32)> = entries.iter().zip(0..).map(|(raw, n)| (key(raw), n)).collect();
        order.sort_unstable_by(|a, b| {
            a.0.cmp(&b.0).then_with(|| entries[a.1 as usize].cmp(&entries[b.1 as usize])).then(a.1.cmp(&b.1))
        });
        order.into_iter().filter_map(|(_, n)| {
            let mut raw = entries[n as usize];
            raw[32..36].copy_from_slice(&self.entry(n)?.pack_no.to_le_bytes());
            Some(raw)
        })
    }

    /// The packs in the order of their numbers, each with its segment's.
    pub fn packs(&self) -> impl Iterator<Item = (u32, &PackLine)> {
        self.parts.iter().zip(0..).flat_map(|(part, n)| part.packs.iter().map(move |pack| (n, pack)))
    }

    /// All entries.
    pub fn all(&self) -> impl Iterator<Item = Found> {
        (0..self.count() as u32).filter_map(|n| self.entry(n))
    }

    /// Pack number `n`, with its segment's.
    pub fn pack(&self, n: u32) -> Option<(u32, PackLine)> {
        let at = self.parts.partition_point(|s| s.first_pack <= n).checked_sub(1)?;
        let part = &self.parts[at];
        Some((at as u32, *part.packs.get((n - part.first_pack) as usize)?))
    }
}
