//! Packs: many sealed chunks in one object (docs/format.md, section 3).
//!
//! A pack is built in one buffer and hashed while it fills; a half-filled one is thrown away,
//! never continued. The sealed table at its end lets a lost index be rebuilt.

use super::envelope::{
    Filled, HEADER_BYTES, Header, OBJECT_BYTES_MAX, ObjectKeys, RECORD_OVERHEAD, RECORDS_MAX, RecordAt, RecordKind,
    Sealer, array, round_up, u32_at, u64_at,
};
use super::{FormatError, envelope};
use crate::base::{ChunkId, PackName};
use crate::crypto::Secret;

/// Most chunks of a bundle.
pub const BUNDLE_CHUNKS_MAX: usize = 1 << 16;
/// What one chunk costs in a bundle's table, in bytes.
pub const BUNDLE_ITEM_BYTES: usize = 36;
/// Bytes of one table item.
const TABLE_ITEM_BYTES: usize = 12;
/// With this share of the target missing, a pack of the largest size less one target ends: the rule of best choice for
/// some thirty chunks a pack, of lengths that are about even (a dynamic programme gives nearly the same).
const PADDING_DIVISOR: usize = 2400;
/// The hasher follows in steps of this: odd-sized updates halve BLAKE3's speed.
const HASH_STEP_BYTES: usize = 256 << 10;

/// One pack being filled.
pub struct PackWriter {
    sealer: Sealer,
    hasher: blake3::Hasher,
    hashed: usize,
    table: Vec<u8>,
}

/// A finished pack.
pub struct Pack {
    /// BLAKE3 of `bytes`.
    pub name: PackName,
    /// The whole object.
    pub bytes: Vec<u8>,
}

impl PackWriter {
    /// Begins a pack in `buf`, whose capacity is re-used.
    pub fn new(buf: Vec<u8>, header: &Header, secret: &Secret<32>) -> PackWriter {
        PackWriter {
            sealer: Sealer::new(buf, header, secret),
            hasher: blake3::Hasher::new(),
            hashed: 0,
            table: Vec::new(),
        }
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.sealer.bytes().len()
    }

    /// Whether nothing was stored yet.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Whether a record of at most `body_len` bytes still fits, with everything that must follow it.
    pub fn has_room(&self, body_len: usize) -> bool {
        let tail = 3 * RECORD_OVERHEAD + self.table.len() + TABLE_ITEM_BYTES + 8;
        let padded = (self.len() + body_len + tail) / 100 * 101 + (64 << 10);
        padded <= OBJECT_BYTES_MAX && self.sealer.records() + 3 < RECORDS_MAX
    }

    /// How many bytes of padding it would get if it were finished now.
    pub fn padding(&self) -> usize {
        let table_len = RECORD_OVERHEAD + self.table.len() + 8;
        let size = self.len() + RECORD_OVERHEAD + table_len;
        round_up(size, pad_step(size)) - size
    }

    /// Whether it is to be finished, where packs are to have about `target` bytes. Wherever it ends it is padded to the next step
    /// of sizes; a store takes half a step of nothing for each pack that ends just anywhere. So from three quarters of the target on
    /// it ends where little is missing to a step, and the less is left to the largest size, the more may be missing.
    pub fn is_full(&self, target: usize) -> bool {
        let (len, most) = (self.len(), target / 2 * 3);
        if len < target / 4 * 3 {
            return false;
        }
        let left = most.saturating_sub(len);
        left == 0 || self.padding() <= target / (PADDING_DIVISOR * (left + target / 11) / target).max(1)
    }

    /// Appends one chunk; `fill` appends its encoded body and returns the codec's id.
    pub fn chunk(&mut self, id: ChunkId, plain_len: usize, fill: impl FnOnce(&mut Vec<u8>) -> u8) -> RecordAt {
        self.push(|buf| Filled { id: Some(id), kind: RecordKind::Chunk, codec: fill(buf), plain_len })
    }

    /// Appends a bundle of chunks given by id and length; `fill` appends the encoded payload and
    /// returns the codec's id.
    pub fn bundle(&mut self, chunks: &[(ChunkId, u32)], fill: impl FnOnce(&mut Vec<u8>) -> u8) -> RecordAt {
        self.push(|buf| {
            buf.extend_from_slice(&(chunks.len() as u32).to_le_bytes());
            for (id, len) in chunks {
                buf.extend_from_slice(id.bytes());
                buf.extend_from_slice(&len.to_le_bytes());
            }
            let plain_len = chunks.iter().map(|(_, len)| *len as usize).sum();
            Filled { id: None, kind: RecordKind::Bundle, codec: fill(buf), plain_len }
        })
    }

    fn push(&mut self, fill: impl FnOnce(&mut Vec<u8>) -> Filled) -> RecordAt {
        let at = self.sealer.record(fill);
        self.table.extend_from_slice(&u64::from(at.offset).to_le_bytes());
        self.table.extend_from_slice(&at.number.to_le_bytes());
        self.hash_along();
        at
    }

    fn hash_along(&mut self) {
        let bytes = self.sealer.bytes();
        let until = bytes.len() / HASH_STEP_BYTES * HASH_STEP_BYTES;
        if until > self.hashed {
            self.hasher.update(&bytes[self.hashed..until]);
            self.hashed = until;
        }
    }

    /// Pads, writes the table and names the pack.
    pub fn finish(self) -> Pack {
        self.close(true)
    }

    fn close(mut self, padded: bool) -> Pack {
        if padded {
            self.sealer.padding(self.padding());
        }
        let table = std::mem::take(&mut self.table);
        let at = self.sealer.record(|buf| {
            buf.extend_from_slice(&table);
            Filled { id: None, kind: RecordKind::Table, codec: 0, plain_len: table.len() }
        });
        let mut bytes = self.sealer.into_bytes();
        bytes.extend_from_slice(&u64::from(at.offset).to_le_bytes());
        self.hasher.update(&bytes[self.hashed..]);
        Pack { name: PackName(*self.hasher.finalize().as_bytes()), bytes }
    }
}

/// Packs of `size` bytes are padded to a multiple of this, so that a store sees sizes in steps
/// of below one percent.
fn pad_step(size: usize) -> usize {
    let power = size.checked_ilog2().map_or(0, |log| 1usize << log);
    (power / 128).max(64 << 10)
}

/// Refuses bytes that are not those the name was made of.
///
/// # Errors
/// [`FormatError::Damaged`].
pub fn check_name(name: &PackName, bytes: &[u8]) -> Result<(), FormatError> {
    if blake3::hash(bytes).as_bytes() == name.bytes() { Ok(()) } else { Err(FormatError::Damaged("name")) }
}

/// The records of a whole pack, from its table, in order of their offsets.
///
/// # Errors
/// A pack that no writer of this format wrote.
pub fn records(keys: &ObjectKeys, bytes: &[u8]) -> Result<Vec<RecordAt>, FormatError> {
    const BAD: FormatError = FormatError::Malformed("pack", "table");
    let (rest, tail) = bytes.split_last_chunk::<8>().ok_or(BAD)?;
    let at = usize::try_from(u64::from_le_bytes(*tail)).map_err(|_| BAD)?;
    let mut sealed = rest.get(at..).filter(|_| at >= HEADER_BYTES).ok_or(BAD)?.to_vec();
    // The table's own number: every table item, and a padding record if there is one.
    let (head, body) = open_table(keys, &mut sealed)?;
    if head.kind != RecordKind::Table || head.record_len() != rest.len() - at {
        return Err(BAD);
    }
    let mut found = Vec::with_capacity(body.len() / TABLE_ITEM_BYTES);
    let mut previous = HEADER_BYTES;
    for item in body.chunks(TABLE_ITEM_BYTES) {
        let item: &[u8; TABLE_ITEM_BYTES] = item.try_into().map_err(|_| BAD)?;
        let offset = usize::try_from(u64_at(item, 0)).map_err(|_| BAD)?;
        if offset < previous || offset >= at {
            return Err(BAD);
        }
        let number = u32_at(item, 8);
        let head = keys.head(number, &bytes[offset..at])?;
        previous = offset.saturating_add(head.record_len());
        if previous > at {
            return Err(BAD);
        }
        found.push(RecordAt { offset: offset as u32, len: head.record_len() as u32, number });
    }
    Ok(found)
}

fn open_table<'a>(keys: &ObjectKeys, sealed: &'a mut [u8]) -> Result<(envelope::Head, &'a [u8]), FormatError> {
    let items = sealed.len().saturating_sub(RECORD_OVERHEAD) / TABLE_ITEM_BYTES;
    let items = u32::try_from(items).map_err(|_| FormatError::Limit("records of a pack"))?;
    let with_padding = items.saturating_add(1);
    let number = if keys.head(with_padding, sealed).is_ok() { with_padding } else { items };
    keys.record(number, sealed)
}

/// The chunks of a bundle: where each lies in the decoded payload, and the payload as stored.
#[derive(Debug)]
pub struct Bundle<'a> {
    /// Id, offset and length of each chunk.
    pub chunks: Vec<(ChunkId, usize, usize)>,
    /// The payload before decoding.
    pub payload: &'a [u8],
}

/// Splits a bundle's body.
///
/// # Errors
/// Lengths that do not add up to `plain_len` or exceed the limits.
pub fn bundle(body: &[u8], plain_len: usize) -> Result<Bundle<'_>, FormatError> {
    const BAD: FormatError = FormatError::Malformed("bundle", "table");
    let (count, rest) = body.split_first_chunk::<4>().ok_or(BAD)?;
    let count = u32::from_le_bytes(*count) as usize;
    if count > BUNDLE_CHUNKS_MAX {
        return Err(FormatError::Limit("chunks of a bundle"));
    }
    let (table, payload) = rest.split_at_checked(count * BUNDLE_ITEM_BYTES).ok_or(BAD)?;
    let mut offset = 0usize;
    let mut chunks = Vec::with_capacity(count);
    for item in table.chunks_exact(BUNDLE_ITEM_BYTES) {
        let len = u32_at(item, 32) as usize;
        chunks.push((ChunkId(array(&item[..32])), offset, len));
        offset = offset.saturating_add(len);
    }
    if offset == plain_len { Ok(Bundle { chunks, payload }) } else { Err(BAD) }
}

#[cfg(test)]
mod tests {
    use super::super::envelope::Kind;
    use super::*;
    use crate::base::{Domain, KeyEpoch, RepoId, unhex};

    fn header(kind: Kind) -> Header {
        let repo = RepoId(std::array::from_fn(|i| i as u8));
        Header { kind, domain: Domain(0), key_epoch: KeyEpoch(1), repo, salt: [5; 32] }
    }

    #[test]
    fn the_vector_of_the_format_page() {
        let id = unhex("257a9b6e765b852091f2a527b8211ff6ede8d175bbb7c9d5e4d3560a4b54d538").unwrap();
        let mut pack = PackWriter::new(Vec::new(), &header(Kind::Data), &Secret::from_bytes([9; 32]));
        pack.chunk(ChunkId::from_slice(&id).unwrap(), 14, |out| {
            out.extend_from_slice(b"hello holdfast");
            0
        });
        let pack = pack.close(false);
        assert_eq!(pack.bytes.len(), 322);
        assert_eq!(pack.name.hex(), "543b6c0df7ac9e254720ca5c0183856b0026a8219a37ac5e7a52eb26bff3fad3");
        let (parsed, commitment) = Header::parse(&pack.bytes, &header(Kind::Data).repo).unwrap();
        let keys = ObjectKeys::open(&parsed, &commitment, &Secret::from_bytes([9; 32])).unwrap();
        assert_eq!(records(&keys, &pack.bytes).unwrap().len(), 1);
    }

    fn sample() -> (Pack, ObjectKeys, Vec<RecordAt>) {
        let secret = Secret::from_bytes([9; 32]);
        let mut pack = PackWriter::new(Vec::new(), &header(Kind::Data), &secret);
        let mut at = vec![pack.chunk(ChunkId([1; 32]), 3, |out| {
            out.extend_from_slice(b"abc");
            0
        })];
        at.push(pack.bundle(&[(ChunkId([2; 32]), 1), (ChunkId([3; 32]), 2)], |out| {
            out.extend_from_slice(b"xyz");
            0
        }));
        let pack = pack.finish();
        let (parsed, commitment) = Header::parse(&pack.bytes, &header(Kind::Data).repo).unwrap();
        let keys = ObjectKeys::open(&parsed, &commitment, &secret).unwrap();
        (pack, keys, at)
    }

    #[test]
    fn a_pack_is_padded_and_lists_its_records() {
        let (mut pack, keys, at) = sample();
        assert_eq!(pack.bytes.len() % (64 << 10), 0);
        check_name(&pack.name, &pack.bytes).unwrap();
        assert_eq!(records(&keys, &pack.bytes).unwrap(), at);
        let (head, body) = keys.record(1, &mut pack.bytes[at[1].offset as usize..]).unwrap();
        let bundle = bundle(body, head.plain_len as usize).unwrap();
        assert_eq!(bundle.payload, b"xyz");
        assert_eq!(bundle.chunks[1], (ChunkId([3; 32]), 1, 2));
    }

    /// Length of a finished pack of records of these lengths.
    fn filled(target: usize, len: &mut dyn FnMut() -> usize) -> usize {
        let mut pack = PackWriter::new(Vec::new(), &header(Kind::Data), &Secret::from_bytes([9; 32]));
        while !pack.is_full(target) {
            let len = len();
            pack.chunk(ChunkId([1; 32]), len, |out| {
                out.resize(out.len() + len, 0);
                0
            });
        }
        let (len, padding) = (pack.len(), pack.padding());
        let bytes = pack.finish().bytes;
        assert_eq!(bytes.len(), len + padding + 2 * RECORD_OVERHEAD + (len_of_table(&bytes)) + 8);
        assert_eq!(bytes.len() % pad_step(bytes.len() - padding), 0);
        bytes.len()
    }

    fn len_of_table(bytes: &[u8]) -> usize {
        let at = u64::from_le_bytes(*bytes.last_chunk().unwrap()) as usize;
        bytes.len() - 8 - at - RECORD_OVERHEAD
    }

    #[test]
    fn packs_end_where_little_padding_is_needed() {
        const TARGET: usize = 8 << 20;
        let mut xof = blake3::Hasher::new().finalize_xof();
        let mut random = || {
            let mut two = [0; 2];
            xof.fill(&mut two);
            usize::from(u16::from_le_bytes(two))
        };
        // About as many records a pack as large packs have of large chunks.
        let (mut all, mut records) = (0, 0);
        for _ in 0..60 {
            let mut own = 0;
            let len = filled(TARGET, &mut || {
                let len = 160_000 + 2 * random();
                own += len + RECORD_OVERHEAD;
                len
            });
            assert!((TARGET / 4 * 3..TARGET / 2 * 3 + 600_000).contains(&len), "{len}");
            all += len;
            records += own;
        }
        let waste = (all - records) as f64 / all as f64;
        assert!(waste < 0.0022, "{waste}");
        // However they fall: between three quarters and one and a half of the target.
        let even = filled(TARGET, &mut || 1 << 20);
        assert!(even <= TARGET / 2 * 3 + (2 << 20), "{even}");
    }

    #[test]
    fn no_flipped_byte_passes() {
        let (pack, keys, at) = sample();
        let end = (at[1].offset + at[1].len) as usize;
        for byte in HEADER_BYTES..end {
            let mut bytes = pack.bytes.clone();
            bytes[byte] ^= 1;
            assert!(check_name(&pack.name, &bytes).is_err());
            let hurt = if byte < at[1].offset as usize { at[0] } else { at[1] };
            assert!(keys.record(hurt.number, &mut bytes[hurt.offset as usize..]).is_err(), "byte {byte}");
        }
    }
}
