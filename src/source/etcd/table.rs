//! How a database of etcd is stored: tables of rows in the order of their keys (docs/format.md, section 10).
//!
//! A bbolt file is pages wherever there was room, each with its own number inside; a defragmentation moves all of them.
//! Its rows in their order stay what they are, so that is what a snapshot keeps: `rows`, every row of every bucket as it
//! stands in the file, and `keys`, the newest state of every key, by which one is found without reading the whole (the
//! file itself is ordered by revision; which key has which, etcd keeps in memory only).
//!
//! A table is blocks of rows, cut by the keys themselves, so that a change touches its own block; then the directory of
//! the blocks (first key, length); then 24 bytes: where the directory begins, how many rows there are, what this is.

use super::bolt::Pages;
use super::proto::{Malformed, put_varint, varint};
use crate::error::{Error, Kind, Result};
use std::io::Write;

/// What a table ends with.
const MAGIC: [u8; 8] = *b"hftable1";
const END_BYTES: u64 = 24;
/// A block with at least so many bytes ends with the row that fills it.
const BLOCK_BYTES_MAX: usize = 256 << 10;
/// One row of so many ends a block.
const ROWS_PER_BLOCK: u32 = 64;
/// A block is believed up to this size: one row may be long.
const BLOCK_BYTES_BELIEVED: u64 = 128 << 20;
/// A directory is believed up to this size: many million rows.
const DIRECTORY_BYTES_MAX: u64 = 256 << 20;

/// A row.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Row {
    /// Its key.
    pub key: Vec<u8>,
    /// What it says.
    pub value: Vec<u8>,
}

/// Takes a part with its length in front.
pub(super) fn take<'a>(from: &mut &'a [u8]) -> std::result::Result<&'a [u8], Malformed> {
    let len = usize::try_from(varint(from)?).map_err(|_| Malformed)?;
    let (head, tail) = from.split_at_checked(len).ok_or(Malformed)?;
    *from = tail;
    Ok(head)
}

/// Appends a part with its length in front.
pub(super) fn put(out: &mut Vec<u8>, part: &[u8]) {
    put_varint(out, part.len() as u64);
    out.extend_from_slice(part);
}

/// Whether a key ends its block.
fn ends_block(key: &[u8]) -> bool {
    let hash = key.iter().fold(0x811c_9dc5u32, |sum, b| (sum ^ u32::from(*b)).wrapping_mul(0x0100_0193));
    (hash ^ hash >> 15) % ROWS_PER_BLOCK == 0
}

/// Writes a table.
pub struct TableWriter<W> {
    out: W,
    at: u64,
    block: Vec<u8>,
    first: Vec<u8>,
    last: Option<Vec<u8>>,
    directory: Vec<u8>,
    rows: u64,
}

impl<W: Write> TableWriter<W> {
    /// Into an empty output.
    pub fn new(out: W) -> TableWriter<W> {
        TableWriter { out, at: 0, block: Vec::new(), first: Vec::new(), last: None, directory: Vec::new(), rows: 0 }
    }

    /// Adds a row; keys rise.
    ///
    /// # Errors
    /// They do not, or the output does not take it.
    pub fn push(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        if self.last.as_deref().is_some_and(|last| last >= key) {
            return Err(Error::new(Kind::Bug, "rows are written out of order"));
        }
        let last = self.last.get_or_insert_default();
        last.clear();
        last.extend_from_slice(key);
        if self.block.is_empty() {
            self.first = key.to_vec();
        }
        put(&mut self.block, key);
        put(&mut self.block, value);
        self.rows += 1;
        if ends_block(key) || self.block.len() >= BLOCK_BYTES_MAX { self.close() } else { Ok(()) }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.at += bytes.len() as u64;
        self.out.write_all(bytes).map_err(|e| {
            let kind = if e.kind() == std::io::ErrorKind::StorageFull { Kind::Full } else { Kind::Source };
            Error::new(kind, format!("cannot write a table: {}", e.kind()))
        })
    }

    fn close(&mut self) -> Result<()> {
        let mut block = std::mem::take(&mut self.block);
        if !block.is_empty() {
            put(&mut self.directory, &self.first);
            put_varint(&mut self.directory, block.len() as u64);
            // What no reader would take is not written.
            if block.len() as u64 > BLOCK_BYTES_BELIEVED || self.directory.len() as u64 > DIRECTORY_BYTES_MAX {
                return Err(Error::new(Kind::Source, "the database is too large for a table, or has a row that is"));
            }
        }
        self.write(&block)?;
        block.clear();
        self.block = block;
        Ok(())
    }

    /// Writes what is behind the blocks.
    ///
    /// # Errors
    /// The output does not take it.
    pub fn finish(mut self) -> Result<W> {
        self.close()?;
        let begin = self.at;
        let directory = std::mem::take(&mut self.directory);
        self.write(&directory)?;
        self.write(&begin.to_le_bytes())?;
        self.write(&self.rows.to_le_bytes())?;
        self.write(&MAGIC)?;
        Ok(self.out)
    }
}

struct Block {
    first: Vec<u8>,
    at: u64,
    len: u64,
}

/// Reads a table, by the blocks that are wanted.
pub struct Table<P> {
    pages: P,
    blocks: Vec<Block>,
    rows: u64,
}

fn bad() -> Error {
    Error::new(Kind::Damage, "a table of the snapshot is not sound")
}

impl<P: Pages> Table<P> {
    /// Reads its directory.
    ///
    /// # Errors
    /// It cannot be read, or is not sound.
    pub fn open(pages: P) -> Result<Table<P>> {
        let behind = pages.size().checked_sub(END_BYTES).ok_or_else(bad)?;
        let mut end = [0; END_BYTES as usize];
        pages.read_at(behind, &mut end)?;
        let number = |at: usize| end[at..].first_chunk().map_or(0, |b| u64::from_le_bytes(*b));
        let begin = number(0);
        let len = behind.checked_sub(begin).filter(|len| *len <= DIRECTORY_BYTES_MAX && end[16..] == MAGIC);
        let mut directory = vec![0; len.ok_or_else(bad)? as usize];
        pages.read_at(begin, &mut directory)?;
        let (mut left, mut blocks, mut at) = (&directory[..], Vec::new(), 0u64);
        while !left.is_empty() {
            let first = take(&mut left).map_err(|_| bad())?.to_vec();
            let len = varint(&mut left).map_err(|_| bad())?;
            let end = at.checked_add(len).filter(|end| *end <= begin && len <= BLOCK_BYTES_BELIEVED).ok_or_else(bad)?;
            blocks.push(Block { first, at, len });
            at = end;
        }
        let sound = at == begin && blocks.is_sorted_by(|a, b| a.first < b.first);
        if sound { Ok(Table { pages, blocks, rows: number(8) }) } else { Err(bad()) }
    }

    /// How many rows there are.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    fn block(&self, at: usize) -> Result<Vec<Row>> {
        let Some(block) = self.blocks.get(at) else { return Ok(Vec::new()) };
        let mut bytes = vec![0; block.len as usize];
        self.pages.read_at(block.at, &mut bytes)?;
        let (mut left, mut rows) = (&bytes[..], Vec::<Row>::new());
        while !left.is_empty() {
            let key = take(&mut left).map_err(|_| bad())?.to_vec();
            let value = take(&mut left).map_err(|_| bad())?.to_vec();
            rows.push(Row { key, value });
        }
        let next = self.blocks.get(at + 1).map(|next| &next.first);
        let begins = rows.first().is_some_and(|first| first.key == block.first);
        let ends = rows.last().is_none_or(|last| next.is_none_or(|next| last.key < *next));
        if begins && ends && rows.is_sorted_by(|a, b| a.key < b.key) { Ok(rows) } else { Err(bad()) }
    }

    /// The block in which a key is, if it is there.
    fn block_of(&self, key: &[u8]) -> usize {
        self.blocks.partition_point(|block| block.first.as_slice() <= key).saturating_sub(1)
    }

    /// What the row of a key says.
    ///
    /// # Errors
    /// Its block cannot be read.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.block(self.block_of(key))?.into_iter().find(|row| row.key == key).map(|row| row.value))
    }

    /// Every row from this key on, in order.
    pub fn from<'t>(&'t self, key: &[u8]) -> Rows<'t, P> {
        Rows { table: self, from: key.to_vec(), block: self.block_of(key), rows: Vec::new().into_iter() }
    }
}

/// Rows in order.
pub struct Rows<'t, P> {
    table: &'t Table<P>,
    from: Vec<u8>,
    block: usize,
    rows: std::vec::IntoIter<Row>,
}

impl<P: Pages> Iterator for Rows<'_, P> {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Result<Row>> {
        loop {
            if let Some(row) = self.rows.next() {
                if row.key >= self.from {
                    return Some(Ok(row));
                }
                continue;
            }
            if self.block >= self.table.blocks.len() {
                return None;
            }
            let rows = self.table.block(self.block);
            self.block += 1;
            match rows {
                Ok(rows) => self.rows = rows.into_iter(),
                Err(e) => {
                    // What is behind cannot be told to be all there is.
                    self.block = self.table.blocks.len();
                    return Some(Err(e));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(n: u32) -> Row {
        Row { key: format!("/registry/{n:07}").into_bytes(), value: vec![n as u8; n as usize % 50] }
    }

    fn written(rows: impl Iterator<Item = Row>) -> Vec<u8> {
        let mut writer = TableWriter::new(Vec::new());
        rows.for_each(|row| writer.push(&row.key, &row.value).unwrap());
        writer.finish().unwrap()
    }

    #[test]
    fn rows_are_found_and_listed() {
        for count in [0, 1, 70, 20_000] {
            let table = Table::open(written((0..count).map(row))).unwrap();
            assert_eq!(table.rows(), u64::from(count));
            for n in (0..count).step_by(37) {
                assert_eq!(table.get(&row(n).key).unwrap(), Some(row(n).value));
            }
            assert_eq!(table.get(b"/registry/").unwrap(), None);
            assert_eq!(table.get(b"zzz").unwrap(), None);
            let found = table.from(&row(count / 2).key).map(Result::unwrap).take(500);
            assert!(found.eq((count / 2..count).map(row).take(500)));
        }
    }

    #[test]
    fn rows_out_of_order_are_not_written() {
        let mut writer = TableWriter::new(Vec::new());
        writer.push(b"b", b"").unwrap();
        assert!(writer.push(b"b", b"").is_err() && writer.push(b"a", b"").is_err());
    }

    #[test]
    fn a_row_that_goes_touches_its_own_block() {
        let (all, less) = (written((0..20_000).map(row)), written((0..20_000).filter(|n| *n != 9_000).map(row)));
        let blocks = |bytes: &[u8]| {
            let table = Table::open(bytes.to_vec()).unwrap();
            (0..table.blocks.len()).map(|n| table.block(n).unwrap()).collect::<Vec<_>>()
        };
        let (all, less) = (blocks(&all), blocks(&less));
        let new = less.iter().filter(|block| !all.contains(block)).count();
        assert!(all.len() > 200 && new <= 2, "{new} of {}", all.len());
    }

    #[test]
    fn a_table_cut_short_or_changed_is_no_more_than_an_error() {
        let bytes = written((0..300).map(row));
        for len in 0..bytes.len() {
            assert!(Table::open(bytes[..len].to_vec()).is_err());
        }
        for at in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[at] ^= 0x81;
            if let Ok(table) = Table::open(bytes) {
                let _ = table.from(b"").count();
            }
        }
    }
}
