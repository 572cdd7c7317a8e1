//! What the tables of a snapshot hold: rows of buckets, and the newest state of every key.

use super::bolt::{Bolt, Pages};
use super::kv::{Revision, strange};
use super::proto::{Malformed, put_varint, varint};
use super::table::{Row, TableWriter};
use crate::error::Result;
use std::io::Write;

/// A key in its newest state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The key.
    pub key: Vec<u8>,
    /// The change that made its value.
    pub revision: Revision,
    /// The revision that made it.
    pub created: i64,
    /// Changes since it was made.
    pub version: i64,
    /// Its lease; 0 for none.
    pub lease: i64,
    /// Bytes of its value.
    pub bytes: u64,
}

impl Line {
    /// What its row says.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let numbers = [self.revision.main, self.revision.sub, self.created, self.version, self.lease];
        numbers.iter().for_each(|n| put_varint(&mut out, n.cast_unsigned()));
        put_varint(&mut out, self.bytes);
        out
    }

    /// From a row.
    ///
    /// # Errors
    /// It is none of a key.
    pub fn decode(row: Row) -> std::result::Result<Line, Malformed> {
        let mut left = &row.value[..];
        let mut number = || varint(&mut left).map(u64::cast_signed);
        let revision = Revision { main: number()?, sub: number()? };
        let (created, version, lease) = (number()?, number()?, number()?);
        Ok(Line { key: row.key, revision, created, version, lease, bytes: number()?.cast_unsigned() })
    }
}

/// The key of a row of a bucket in the table of rows: the bucket, a zero, the key. Without a key it stands for the bucket
/// itself, which may be empty.
pub fn row_key(bucket: &[u8], key: &[u8]) -> Vec<u8> {
    [bucket, &[0], key].concat()
}

/// The bucket and the key of a row.
pub fn split_key(row: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = row.iter().position(|b| *b == 0)?;
    Some((row.get(..at)?, row.get(at + 1..)?))
}

/// Writes all rows of a database as a table; the first one, without a key, has the size of a page.
///
/// # Errors
/// The file is not sound, or the output does not take it.
pub fn write_rows<P: Pages>(bolt: &Bolt<P>, out: impl Write) -> Result<()> {
    let mut table = TableWriter::new(out);
    table.push(b"", &bolt.page_size().to_le_bytes())?;
    for (name, tree) in bolt.buckets()? {
        if name.is_empty() || name.contains(&0) {
            return Err(strange("the name of a bucket"));
        }
        table.push(&row_key(&name, b""), b"")?;
        let mut cursor = bolt.cursor(&tree);
        while let Some(element) = cursor.next()? {
            table.push(&row_key(&name, element.key), element.value)?;
        }
    }
    table.finish()?.flush().map_err(|e| strange(&e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_comes_back_from_its_row() {
        let revision = Revision { main: i64::MAX, sub: 3 };
        let line = Line { key: b"/a\0b".to_vec(), revision, created: 7, version: 2, lease: -9, bytes: 1 << 40 };
        let row = Row { key: line.key.clone(), value: line.encode() };
        assert_eq!(Line::decode(row).unwrap(), line);
        assert!(Line::decode(Row { key: vec![], value: vec![1, 2] }).is_err());
        assert_eq!(split_key(&row_key(b"lease", b"\0\x01")), Some((&b"lease"[..], &b"\0\x01"[..])));
        assert_eq!(split_key(b"key"), None);
    }
}
