//! Index segments: which chunk lies where (docs/format.md, section 5).

use super::FormatError;
use super::envelope::{OBJECT_BYTES_MAX, RECORDS_MAX, array, u32_at, u64_at};
use super::signed::Fresh;
use crate::base::{ChunkId, Domain, Generation, PackName, SessionId};
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

/// Most entries of a segment.
pub const SEGMENT_ENTRIES_MAX: usize = 1 << 18;
/// Bytes of an entry.
pub const ENTRY_BYTES: usize = 56;
/// Bytes of a pack's line.
const PACK_BYTES: usize = 41;
/// Stands for "not in a bundle".
const NO_BUNDLE: u32 = u32::MAX;

/// A segment as it is signed.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Segment {
    /// What its writer knew.
    #[n(0)]
    pub fresh: Fresh,
    /// The session that wrote the packs.
    #[n(1)]
    pub sid: SessionId,
    /// Their generation.
    #[n(2)]
    pub generation: Generation,
    /// Their domain.
    #[n(3)]
    pub domain: Domain,
    /// Packs, 41 bytes each.
    #[n(4)]
    pub packs: ByteVec,
    /// Entries, 56 bytes each, sorted by id.
    #[n(5)]
    pub entries: ByteVec,
}

/// One pack of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackLine {
    /// Name.
    pub name: PackName,
    /// Size of the object, in bytes.
    pub size: u64,
    /// Whether it holds trees.
    pub tree: bool,
}

/// Where a chunk lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Chunk.
    pub id: ChunkId,
    /// Which of the segment's packs.
    pub pack: u32,
    /// Offset of its record, in bytes.
    pub offset: u32,
    /// Length of its record, in bytes.
    pub record_len: u32,
    /// Record number.
    pub number: u32,
    /// Offset in the bundle's payload, if it is in one, in bytes.
    pub inside: Option<u32>,
    /// Length of the chunk, in bytes.
    pub len: u32,
}

impl Place {
    /// Reads one entry of [`ENTRY_BYTES`].
    pub fn parse(raw: &[u8; ENTRY_BYTES]) -> Place {
        let inside = u32_at(raw, 48);
        Place {
            id: ChunkId(array(&raw[..32])),
            pack: u32_at(raw, 32),
            offset: u32_at(raw, 36),
            record_len: u32_at(raw, 40),
            number: u32_at(raw, 44),
            inside: (inside != NO_BUNDLE).then_some(inside),
            len: u32_at(raw, 52),
        }
    }

    fn push(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.id.bytes());
        for n in [self.pack, self.offset, self.record_len, self.number, self.inside.unwrap_or(NO_BUNDLE), self.len] {
            out.extend_from_slice(&n.to_le_bytes());
        }
    }
}

/// Encodes packs.
pub fn encode_packs(packs: &[PackLine]) -> Vec<u8> {
    let mut out = Vec::with_capacity(packs.len() * PACK_BYTES);
    for pack in packs {
        out.extend_from_slice(pack.name.bytes());
        out.extend_from_slice(&pack.size.to_le_bytes());
        out.push(if pack.tree { 2 } else { 1 });
    }
    out
}

/// Divides packs and what lies in them among segments of at most [`SEGMENT_ENTRIES_MAX`] entries, each of which names the packs
/// of its own entries and no others: a pack is to be missed where one of its segments is. Only a pack of more chunks than that
/// is in several. Places are expected pack after pack, by the number of their line.
pub fn divide(lines: &[PackLine], places: &[Place]) -> impl Iterator<Item = (Vec<PackLine>, Vec<Place>)> {
    let packs = places.chunk_by(|one, next| one.pack == next.pack);
    let mut pieces = packs.flat_map(|of_pack| of_pack.chunks(SEGMENT_ENTRIES_MAX)).peekable();
    std::iter::from_fn(move || {
        let (mut named, mut entries) = (Vec::new(), Vec::new());
        while let Some(piece) = pieces.next_if(|piece| entries.len() + piece.len() <= SEGMENT_ENTRIES_MAX) {
            let pack = named.len() as u32;
            named.extend(piece.first().and_then(|place| lines.get(place.pack as usize)).copied());
            entries.extend(piece.iter().map(|place| Place { pack, ..*place }));
        }
        (!entries.is_empty()).then_some((named, entries))
    })
}

/// Sorts places by id and encodes them.
pub fn encode_places(places: &mut [Place]) -> Vec<u8> {
    places.sort_unstable_by_key(|p| (p.id, p.pack, p.offset));
    let mut out = Vec::with_capacity(places.len() * ENTRY_BYTES);
    places.iter().for_each(|p| p.push(&mut out));
    out
}

impl Segment {
    /// The packs.
    ///
    /// # Errors
    /// Wrong length, unknown class, impossible size.
    pub fn pack_lines(&self) -> Result<Vec<PackLine>, FormatError> {
        if !self.packs.len().is_multiple_of(PACK_BYTES) {
            return Err(FormatError::Malformed("index segment", "packs"));
        }
        let line = |raw: &[u8]| {
            let size = u64_at(raw, 32);
            if !matches!(raw[40], 1 | 2) || size > OBJECT_BYTES_MAX as u64 {
                return Err(FormatError::Malformed("index segment", "pack"));
            }
            Ok(PackLine { name: PackName(array(&raw[..32])), size, tree: raw[40] == 2 })
        };
        self.packs.chunks_exact(PACK_BYTES).map(line).collect()
    }

    /// Checks every entry against the packs: sorted, inside its pack, lengths within limits.
    ///
    /// # Errors
    /// Anything that a writer would not have written.
    pub fn check(&self) -> Result<(), FormatError> {
        const BAD: FormatError = FormatError::Malformed("index segment", "entries");
        let packs = self.pack_lines()?;
        let (entries, rest) = self.entries.as_chunks::<ENTRY_BYTES>();
        if !rest.is_empty() || entries.len() > SEGMENT_ENTRIES_MAX {
            return Err(BAD);
        }
        let mut last = ChunkId([0; 32]);
        for raw in entries {
            let place = Place::parse(raw);
            let size = packs.get(place.pack as usize).ok_or(BAD)?.size;
            let end = u64::from(place.offset) + u64::from(place.record_len);
            let inside_end = place.inside.map_or(0, |at| at as usize) + place.len as usize;
            let limit = if place.inside.is_some() { super::BUNDLE_BYTES_MAX } else { super::CHUNK_BYTES_MAX };
            if place.id < last || end > size || inside_end > limit || place.number >= RECORDS_MAX {
                return Err(BAD);
            }
            last = place.id;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{ConfigNo, Digest, Epoch};

    fn segment(places: &mut [Place]) -> Segment {
        Segment {
            fresh: Fresh { config: ConfigNo(1), digest: Digest::ZERO, epoch: Epoch(1) },
            sid: SessionId([1; 16]),
            generation: Generation(1),
            domain: Domain(0),
            packs: encode_packs(&[PackLine { name: PackName([7; 32]), size: 1000, tree: false }]).into(),
            entries: encode_places(places).into(),
        }
    }

    #[test]
    fn a_segment_names_the_packs_of_its_entries_and_no_others() {
        let line = |name| PackLine { name: PackName([name; 32]), size: 1 << 24, tree: false };
        let place = |pack, n: usize| {
            let mut id = [pack as u8; 32];
            id[..8].copy_from_slice(&n.to_le_bytes());
            let (offset, number) = (112, n as u32 % RECORDS_MAX);
            Place { id: ChunkId(id), pack, offset, record_len: 100, number, inside: None, len: 12 }
        };
        let lines = [line(1), line(2), line(3), line(4)];
        let lengths = [SEGMENT_ENTRIES_MAX / 2, SEGMENT_ENTRIES_MAX / 2 + 1, 7, SEGMENT_ENTRIES_MAX + 5];
        let places: Vec<Place> = (0..).zip(lengths).flat_map(|(pack, n)| (0..n).map(move |n| place(pack, n))).collect();
        let parts: Vec<_> = divide(&lines, &places).collect();
        let named = |part: &(Vec<PackLine>, Vec<Place>)| part.0.iter().map(|line| line.name.0[0]).collect::<Vec<u8>>();
        assert_eq!(parts.iter().map(named).collect::<Vec<_>>(), [vec![1], vec![2, 3], vec![4], vec![4]]);
        let mut left = Vec::new();
        for (lines, mut entries) in parts {
            left.extend(entries.iter().map(|entry| (lines[entry.pack as usize].name, entry.id)));
            let segment = Segment { packs: encode_packs(&lines).into(), ..segment(&mut []) };
            Segment { entries: encode_places(&mut entries).into(), ..segment }.check().unwrap();
        }
        let whole: Vec<_> = places.iter().map(|place| (lines[place.pack as usize].name, place.id)).collect();
        assert!(left == whole, "an entry is lost, or of another pack");
    }

    #[test]
    fn entries_are_sorted_and_checked() {
        let place = |id, offset| Place {
            id: ChunkId([id; 32]),
            pack: 0,
            offset,
            record_len: 100,
            number: 0,
            inside: None,
            len: 12,
        };
        let good = segment(&mut [place(9, 112), place(3, 212)]);
        good.check().unwrap();
        assert_eq!(Place::parse(good.entries[..ENTRY_BYTES].try_into().unwrap()), place(3, 212));
        assert!(segment(&mut [place(9, 901)]).check().is_err());
        assert!(segment(&mut [Place { pack: 1, ..place(1, 0) }]).check().is_err());
        let mut swapped = good.clone();
        swapped.entries.rotate_left(ENTRY_BYTES);
        assert!(swapped.check().is_err());
    }
}
