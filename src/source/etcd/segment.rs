//! Changes as they are stored: a table whose rows are those of the bucket of keys, its first row saying what they follow.
//!
//! The first row has an empty key and says: the cluster, the revision before the first change, the last revision, the hash
//! of the segment before (zeros behind a snapshot), and the time. Behind the changes come rows of leases.

use super::follow::Changes;
use super::kv::Revision;
use super::proto::{Malformed, put_varint, varint};
use super::rebuild::Change;
use super::table::{Rows, Table, TableWriter};
use crate::error::{Error, Kind, Result};
use std::collections::BTreeMap;

/// Rows of leases begin so; a revision does not.
const LEASE: u8 = 0xff;
/// Bytes of the hash of a segment.
pub const HASH_BYTES: usize = 32;

/// What a segment says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The cluster's id.
    pub cluster: u64,
    /// The revision before the first change.
    pub after: i64,
    /// The last one.
    pub to: i64,
    /// The hash of the segment before; zeros behind a snapshot.
    pub before: [u8; HASH_BYTES],
    /// When it was gathered, ms.
    pub time: i64,
}

impl Head {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_varint(&mut out, self.cluster);
        [self.after, self.to, self.time].iter().for_each(|n| put_varint(&mut out, n.cast_unsigned()));
        out.extend_from_slice(&self.before);
        out
    }

    fn decode(mut bytes: &[u8]) -> std::result::Result<Head, Malformed> {
        let cluster = varint(&mut bytes)?;
        let mut number = || varint(&mut bytes).map(u64::cast_signed);
        let (after, to, time) = (number()?, number()?, number()?);
        Ok(Head { cluster, after, to, time, before: bytes.try_into().map_err(|_| Malformed)? })
    }
}

fn bad(what: &str) -> Error {
    Error::new(Kind::Damage, format!("changes of the snapshot are not sound: {what}"))
}

/// A segment's bytes.
///
/// # Errors
/// The changes are not in their order.
pub fn encode(head: &Head, changes: &Changes) -> Result<Vec<u8>> {
    let mut table = TableWriter::new(Vec::new());
    table.push(b"", &head.encode())?;
    for change in &changes.changes {
        table.push(&change.revision.encode(change.deleted), &change.message)?;
    }
    // As bytes they are in another order than as numbers: ids may be negative.
    let leases: BTreeMap<[u8; 8], i64> =
        changes.leases.iter().map(|(id, seconds)| (id.to_be_bytes(), *seconds)).collect();
    for (lease, seconds) in leases {
        let mut value = Vec::new();
        put_varint(&mut value, seconds.cast_unsigned());
        table.push(&[&[LEASE][..], &lease].concat(), &value)?;
    }
    table.finish()
}

/// The hash of a segment, by which the next one names it.
pub fn hash(bytes: &[u8]) -> [u8; HASH_BYTES] {
    *blake3::hash(bytes).as_bytes()
}

/// A segment that is read.
pub struct Segment {
    /// What it says of itself.
    pub head: Head,
    /// Its leases: id, and the seconds they were granted for.
    pub leases: BTreeMap<i64, i64>,
    table: Table<Vec<u8>>,
}

impl Segment {
    /// Reads a segment.
    ///
    /// # Errors
    /// It is none.
    pub fn decode(bytes: Vec<u8>) -> Result<Segment> {
        let table = Table::open(bytes)?;
        let first = table.from(b"").next().transpose()?.filter(|row| row.key.is_empty());
        let head = first.and_then(|row| Head::decode(&row.value).ok()).ok_or_else(|| bad("they have no head"))?;
        let mut leases = BTreeMap::new();
        for row in table.from(&[LEASE]) {
            let row = row?;
            let id = row.key.get(1..).and_then(|id| <[u8; 8]>::try_from(id).ok()).ok_or_else(|| bad("a lease"))?;
            let seconds = varint(&mut &row.value[..]).map_err(|_| bad("a lease"))?;
            leases.insert(i64::from_be_bytes(id), seconds.cast_signed());
        }
        Ok(Segment { head, leases, table })
    }

    /// Its changes, in order.
    pub fn changes(&self) -> Each<'_> {
        Each { rows: self.table.from(&[0]), last: self.head.after, to: self.head.to }
    }
}

/// Changes in order.
pub struct Each<'s> {
    rows: Rows<'s, Vec<u8>>,
    last: i64,
    to: i64,
}

impl Iterator for Each<'_> {
    type Item = Result<Change>;

    fn next(&mut self) -> Option<Result<Change>> {
        let row = match self.rows.next() {
            Some(Ok(row)) if row.key.first() != Some(&LEASE) => row,
            Some(Err(e)) => return Some(Err(e)),
            _ if self.last == self.to => return None,
            _ => {
                self.last = self.to;
                return Some(Err(bad("they end early")));
            }
        };
        Some(Revision::decode(&row.key).and_then(|(revision, deleted)| {
            self.last = revision.main;
            if revision.main > self.to {
                Err(bad("they go on too far"))
            } else {
                Ok(Change { revision, deleted, message: row.value })
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::etcd::kv::KeyValue;

    fn changes() -> Changes {
        let change = |main, sub, deleted| {
            let kv = KeyValue { key: b"/k", value: b"v", modified: main, ..KeyValue::default() };
            Change { revision: Revision { main, sub }, deleted, message: kv.encode() }
        };
        let all = vec![change(8, 0, false), change(8, 1, true), change(9, 0, false)];
        Changes { after: 7, to: 9, changes: all, leases: BTreeMap::from([(-5, 60), (1 << 60, 3600)]), bytes: 9 }
    }

    const HEAD: Head = Head { cluster: u64::MAX, after: 7, to: 9, before: [3; HASH_BYTES], time: -1 };

    #[test]
    fn a_segment_comes_back() {
        let segment = Segment::decode(encode(&HEAD, &changes()).unwrap()).unwrap();
        assert_eq!((segment.head, &segment.leases), (HEAD, &changes().leases));
        assert!(segment.changes().map(Result::unwrap).eq(changes().changes));
    }

    #[test]
    fn what_does_not_end_where_it_says_is_refused() {
        for to in [8, 10] {
            let segment = Segment::decode(encode(&Head { to, ..HEAD }, &changes()).unwrap()).unwrap();
            assert!(segment.changes().any(|change| change.is_err()), "{to}");
        }
        assert!(Segment::decode(encode(&HEAD, &Changes::default()).unwrap()).unwrap().changes().any(|c| c.is_err()));
        let bytes = encode(&HEAD, &changes()).unwrap();
        assert!((0..bytes.len()).all(|len| Segment::decode(bytes[..len].to_vec()).is_err()));
    }
}
