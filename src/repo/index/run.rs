//! A run: an immutable file with the entries of some segments, sorted by id and cut into small buckets, with its
//! packs, its segments and a filter. Nothing in it says which region has what: only a listing does.
//!
//! In memory: 1.5 bytes an entry for the filter and about 1 for the offsets of buckets, both read page by page when
//! first asked for; and the packs that were met. A look-up that passes the filter reads one bucket of about 240 bytes.
//! The entries of a small run are read into memory once a part of them was asked for.

use super::filter;
use super::memory::Found;
use super::scaled;
use super::sealed::{BODY_AT, Broken, Part, Sealed, Sealing, TAG_BYTES, Table, table_bytes};
use crate::base::{ChunkId, Generation, PackName, SegmentName, SessionId, WriterId};
use crate::crypto::Secret;
use crate::format::index::{ENTRY_BYTES, PackLine, Place};
use std::fs::File;
use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Entries a bucket, on average.
const BUCKET: u64 = 4;
const OFFSET_BYTES: usize = 4;
const PACK_BYTES: usize = 48;
const SEGMENT_BYTES: usize = 96;
/// Buckets that are read at once in a pass over all.
const BUCKETS_AT_ONCE: u64 = 512;
/// Most entries: offsets are 32 bits.
pub const ENTRIES_MAX: u64 = u32::MAX as u64;

/// Most entries of a run that are held in memory: 7 MiB. There are at most as many such runs as runs.
const HELD_MAX: u64 = 1 << 17;
/// They are read when so many look-ups for a bucket passed the filter.
const ASKED_SHARE: u64 = 32;

/// A raw entry: as in a segment, but for the pack, whose number is that in the run.
pub type Raw = [u8; ENTRY_BYTES];

/// A segment in a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentLine {
    /// Its name.
    pub name: SegmentName,
    /// Size of the object, in bytes.
    pub size: u64,
    /// Who signed it.
    pub writer: WriterId,
    /// Who wrote its packs.
    pub sid: SessionId,
    /// Their generation.
    pub generation: Generation,
    /// How many.
    pub packs: u32,
    /// Entries.
    pub entries: u32,
}

impl SegmentLine {
    fn push(&self, out: &mut Vec<u8>) {
        let begin = out.len();
        out.extend_from_slice(self.name.bytes());
        out.extend_from_slice(&self.size.to_le_bytes());
        out.extend_from_slice(self.writer.bytes());
        out.extend_from_slice(self.sid.bytes());
        for n in [self.generation.0, self.packs, self.entries] {
            out.extend_from_slice(&n.to_le_bytes());
        }
        out.resize(begin + SEGMENT_BYTES, 0);
    }

    fn parse(raw: &[u8]) -> Option<SegmentLine> {
        let number = |at: usize| raw.get(at..)?.first_chunk().map(|n| u32::from_le_bytes(*n));
        Some(SegmentLine {
            name: SegmentName(*raw.first_chunk()?),
            size: raw.get(32..)?.first_chunk().map(|n| u64::from_le_bytes(*n))?,
            writer: WriterId(*raw.get(40..)?.first_chunk()?),
            sid: SessionId(*raw.get(56..)?.first_chunk()?),
            generation: Generation(number(72)?),
            packs: number(76)?,
            entries: number(80)?,
        })
    }
}

fn bucket_of(raw: &[u8], buckets: u64) -> u64 {
    scaled(raw.first_chunk().map_or(0, |key| u64::from_be_bytes(*key)), buckets)
}

/// An open run.
#[derive(Debug)]
pub struct Run {
    file: Sealed,
    buckets: u64,
    lines: u64,
    /// Entries.
    pub entries: u64,
    /// Packs.
    pub packs: u32,
    /// Its segments; their packs are numbered one after the other.
    pub segments: Vec<SegmentLine>,
    offsets: Table,
    filter: Table,
    pack_table: Table,
    /// Look-ups that passed the filter, until its entries are held.
    asked: AtomicU64,
    /// The entries of a small one.
    held: OnceLock<Vec<u8>>,
}

impl Run {
    /// Opens a run.
    ///
    /// # Errors
    /// It is no run of this version and key, or is cut short.
    pub fn open(file: File, root: &Secret<32>) -> Result<Run, Broken> {
        let file = Sealed::open(file, root)?;
        let [entries, buckets, lines, packs, segments] = file.counts;
        let offsets_at = BODY_AT + entries * ENTRY_BYTES as u64 + buckets * TAG_BYTES as u64;
        let filter_at = offsets_at + table_bytes(OFFSET_BYTES, buckets + 1);
        let packs_at = filter_at + table_bytes(filter::LINE_BYTES, lines);
        let segments_at = packs_at + table_bytes(PACK_BYTES, packs);
        if file.len()? != segments_at + table_bytes(SEGMENT_BYTES, segments) {
            return Err(Broken);
        }
        let table = Table::new(Part::Segments, SEGMENT_BYTES, segments, segments_at);
        let line = |n| SegmentLine::parse(table.record(&file, n)?).ok_or(Broken);
        let segments = (0..segments).map(line).collect::<Result<_, _>>()?;
        Ok(Run {
            buckets,
            lines,
            entries,
            packs: u32::try_from(packs).map_err(|_| Broken)?,
            segments,
            offsets: Table::new(Part::Offsets, OFFSET_BYTES, buckets + 1, offsets_at),
            filter: Table::new(Part::Filter, filter::LINE_BYTES, lines, filter_at),
            pack_table: Table::new(Part::Packs, PACK_BYTES, packs, packs_at),
            asked: AtomicU64::new(0),
            held: OnceLock::new(),
            file,
        })
    }

    /// First entry of bucket `n`.
    fn offset(&self, n: u64) -> Result<u64, Broken> {
        let raw = self.offsets.record(&self.file, n)?.first_chunk().ok_or(Broken)?;
        Ok(u64::from(u32::from_le_bytes(*raw)))
    }

    /// Where bucket `n` lies, given its first entry.
    fn bucket_at(n: u64, first: u64) -> u64 {
        BODY_AT + first * ENTRY_BYTES as u64 + n * TAG_BYTES as u64
    }

    /// Every place of a chunk.
    ///
    /// # Errors
    /// The file is broken there.
    pub fn find(&self, id: &ChunkId) -> Result<Vec<Found>, Broken> {
        if !filter::may_have(self.filter.record(&self.file, filter::line_of(id, self.lines))?, id) {
            return Ok(Vec::new());
        }
        let n = bucket_of(id.bytes(), self.buckets);
        let (first, end) = (self.offset(n)?, self.offset(n + 1)?);
        if let Some(held) = self.held()? {
            let bytes = held.get(first as usize * ENTRY_BYTES..end as usize * ENTRY_BYTES).ok_or(Broken)?;
            return self.matching(bytes, first, id);
        }
        let len = end.checked_sub(first).ok_or(Broken)? as usize * ENTRY_BYTES + TAG_BYTES;
        let (mut few, mut many) = ([0; 12 * ENTRY_BYTES + TAG_BYTES], Vec::new());
        let piece = match few.get_mut(..len) {
            Some(piece) => piece,
            None => {
                many.resize(len, 0);
                &mut many[..]
            }
        };
        self.file.read(Run::bucket_at(n, first), piece)?;
        self.matching(self.file.unseal(Part::Bucket, n, piece)?, first, id)
    }

    /// The entries, if they are held in memory or should be by now.
    fn held(&self) -> Result<Option<&[u8]>, Broken> {
        if self.entries > HELD_MAX {
            return Ok(None);
        }
        if let Some(held) = self.held.get() {
            return Ok(Some(held));
        }
        if self.asked.fetch_add(1, Ordering::Relaxed) < self.buckets / ASKED_SHARE {
            return Ok(None);
        }
        let mut all = Vec::with_capacity(self.entries as usize * ENTRY_BYTES);
        let mut from = 0;
        while from < self.buckets {
            let to = self.buckets.min(from + BUCKETS_AT_ONCE);
            self.read_buckets(from, to, &mut all)?;
            from = to;
        }
        Ok(Some(self.held.get_or_init(|| all)))
    }

    /// Those of a bucket that are the chunk's; `first` is the number of the bucket's first entry.
    fn matching(&self, bucket: &[u8], first: u64, id: &ChunkId) -> Result<Vec<Found>, Broken> {
        let (entries, _) = bucket.as_chunks::<ENTRY_BYTES>();
        let own = entries.iter().zip(first..).filter(|(raw, _)| raw[..32] == *id.bytes());
        own.map(|(raw, entry)| self.found(raw, entry)).collect()
    }

    /// An entry with what surrounds it, and its number among those of the run.
    ///
    /// # Errors
    /// The file is broken where its pack is described.
    pub fn found(&self, raw: &Raw, entry: u64) -> Result<Found, Broken> {
        let place = Place::parse(raw);
        let (segment, pack) = self.pack(place.pack)?;
        let entry = u32::try_from(entry).map_err(|_| Broken)?;
        Ok(Found { place, pack, pack_no: place.pack, segment, entry })
    }

    /// Pack number `n`, with its segment's number.
    ///
    /// # Errors
    /// There is none, or the file is broken there.
    pub fn pack(&self, n: u32) -> Result<(u32, PackLine), Broken> {
        let raw = self.pack_table.record(&self.file, u64::from(n))?;
        let size = raw[32..].first_chunk().map(|n| u64::from_le_bytes(*n)).ok_or(Broken)?;
        let segment = raw[40..].first_chunk().map(|n| u32::from_le_bytes(*n)).ok_or(Broken)?;
        let name = PackName(*raw.first_chunk().ok_or(Broken)?);
        if segment as usize >= self.segments.len() {
            return Err(Broken);
        }
        Ok((segment, PackLine { name, size, tree: raw[44] == 2 }))
    }

    /// All entries in their order.
    pub fn cursor(&self) -> Cursor<'_> {
        Cursor { run: self, next: 0, entries: Vec::new(), at: 0 }
    }

    /// Appends the entries of some buckets.
    fn read_buckets(&self, from: u64, to: u64, out: &mut Vec<u8>) -> Result<(), Broken> {
        let (first, end) = (self.offset(from)?, self.offset(to)?);
        let len = end.checked_sub(first).ok_or(Broken)? * ENTRY_BYTES as u64 + (to - from) * TAG_BYTES as u64;
        let mut raw = vec![0; len as usize];
        self.file.read(Run::bucket_at(from, first), &mut raw)?;
        let mut rest = &mut raw[..];
        for n in from..to {
            let len = self.offset(n + 1)?.checked_sub(self.offset(n)?).ok_or(Broken)? as usize * ENTRY_BYTES;
            let (piece, after) = rest.split_at_mut_checked(len + TAG_BYTES).ok_or(Broken)?;
            out.extend_from_slice(self.file.unseal(Part::Bucket, n, piece)?);
            rest = after;
        }
        Ok(())
    }
}

/// A pass over the entries of a run.
pub struct Cursor<'r> {
    run: &'r Run,
    next: u64,
    entries: Vec<u8>,
    at: usize,
}

impl Cursor<'_> {
    /// The entry to come, if there is one.
    ///
    /// # Errors
    /// The file is broken there.
    pub fn peek(&mut self) -> Result<Option<&Raw>, Broken> {
        while self.at >= self.entries.len() {
            if self.next >= self.run.buckets {
                return Ok(None);
            }
            let to = self.run.buckets.min(self.next + BUCKETS_AT_ONCE);
            self.entries.clear();
            self.run.read_buckets(self.next, to, &mut self.entries)?;
            (self.next, self.at) = (to, 0);
        }
        Ok(self.entries[self.at..].first_chunk())
    }

    /// Goes on to the next.
    pub fn advance(&mut self) {
        self.at += ENTRY_BYTES;
    }
}

/// What a new run is made of, beside its entries.
#[derive(Debug, Default)]
pub struct Plan {
    segments: Vec<u8>,
    packs: Vec<u8>,
    segments_total: u32,
    packs_total: u32,
    entries_total: u64,
}

impl Plan {
    /// Adds a segment; returns its number. Its packs follow.
    pub fn segment(&mut self, line: &SegmentLine) -> u32 {
        line.push(&mut self.segments);
        self.entries_total += u64::from(line.entries);
        self.segments_total += 1;
        self.segments_total - 1
    }

    /// Adds a pack of a segment; returns its number.
    pub fn pack(&mut self, segment: u32, line: &PackLine) -> u32 {
        self.packs.extend_from_slice(line.name.bytes());
        self.packs.extend_from_slice(&line.size.to_le_bytes());
        self.packs.extend_from_slice(&segment.to_le_bytes());
        self.packs.extend_from_slice(&[if line.tree { 2 } else { 1 }, 0, 0, 0]);
        self.packs_total += 1;
        self.packs_total - 1
    }

    /// Entries of all segments added.
    pub fn entries(&self) -> u64 {
        self.entries_total
    }
}

/// A run that is being written.
pub struct Making {
    out: Sealing,
    plan: Plan,
    buckets: u64,
    filter: Vec<u8>,
    offsets: Vec<u8>,
    bucket: Vec<u8>,
    entries: u64,
}

impl Making {
    /// Begins a run in an empty file.
    ///
    /// # Errors
    /// It cannot be written, or there are too many entries.
    pub fn begin(file: File, root: &Secret<32>, salt: [u8; 32], plan: Plan) -> io::Result<Making> {
        if plan.entries_total > ENTRIES_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let lines = filter::lines(plan.entries_total) as usize;
        let buckets = (plan.entries_total / BUCKET).max(1);
        Ok(Making {
            out: Sealing::begin(file, root, salt)?,
            plan,
            buckets,
            filter: vec![0; lines * filter::LINE_BYTES],
            offsets: Vec::with_capacity((buckets as usize + 1) * OFFSET_BYTES),
            bucket: Vec::new(),
            entries: 0,
        })
    }

    /// Adds the next entry.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn entry(&mut self, raw: &Raw) -> io::Result<()> {
        let n = bucket_of(raw, self.buckets);
        while (self.written() as u64) < n {
            self.close_bucket()?;
        }
        let id = ChunkId(*raw.first_chunk().ok_or(io::ErrorKind::InvalidData)?);
        let line = filter::line_of(&id, (self.filter.len() / filter::LINE_BYTES) as u64) as usize * filter::LINE_BYTES;
        filter::set(&mut self.filter[line..line + filter::LINE_BYTES], &id);
        self.bucket.extend_from_slice(raw);
        Ok(())
    }

    fn written(&self) -> usize {
        self.offsets.len() / OFFSET_BYTES
    }

    fn close_bucket(&mut self) -> io::Result<()> {
        let n = self.written() as u64;
        self.offsets.extend_from_slice(&(self.entries as u32).to_le_bytes());
        self.entries += (self.bucket.len() / ENTRY_BYTES) as u64;
        self.out.piece(Part::Bucket, n, &mut self.bucket)?;
        self.bucket.clear();
        Ok(())
    }

    /// Ends the run; returns the file.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn finish(mut self) -> io::Result<File> {
        while (self.written() as u64) < self.buckets {
            self.close_bucket()?;
        }
        self.offsets.extend_from_slice(&(self.entries as u32).to_le_bytes());
        self.out.table(Part::Offsets, OFFSET_BYTES, &self.offsets)?;
        self.out.table(Part::Filter, filter::LINE_BYTES, &self.filter)?;
        self.out.table(Part::Packs, PACK_BYTES, &self.plan.packs)?;
        self.out.table(Part::Segments, SEGMENT_BYTES, &self.plan.segments)?;
        let lines = (self.filter.len() / filter::LINE_BYTES) as u64;
        let (packs, segments) = (u64::from(self.plan.packs_total), u64::from(self.plan.segments_total));
        self.out.finish([self.entries, self.buckets, lines, packs, segments])
    }
}
