//! The directory at the end of a zip.

use super::blob::{Part, number};
use std::io;

/// The record at the very end, its comment, and the two of ZIP64 before it.
const END: usize = 22;
const LOCATOR: u64 = 20;
const END_64: u64 = 56;
const COMMENT_MAX: usize = 0xffff;
/// One entry, without its name.
pub const ENTRY: usize = 46;
/// Longest name that is kept.
const NAME_MAX: usize = 4096;

/// Where the directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Directory {
    /// Where its entries begin.
    pub start: u64,
    /// Where they end.
    pub end: u64,
    /// Where the zip's comment begins.
    pub comment: u64,
    /// Where it ends, and the zip.
    pub last: u64,
    /// What must be added to each offset: the zip was put behind something else.
    pub before: u64,
    /// How many entries it claims.
    pub entries: u64,
    /// Why readers may choose another.
    pub doubtful: Option<&'static str>,
}

/// One entry as the directory, or the head before its data, has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name, cut if it is very long.
    pub name: String,
    /// Flags: 0 is encryption, 3 sizes behind the data.
    pub flags: u64,
    /// 0 stored, 8 deflated.
    pub method: u64,
    /// Checksum.
    pub crc: u64,
    /// Bytes in the zip.
    pub packed: u64,
    /// Bytes unpacked.
    pub size: u64,
    /// Where its head is.
    pub offset: u64,
}

/// Finds it as Python does: by the last mark of an end. `None` where no directory is where that mark says.
pub fn find(part: Part<'_>) -> io::Result<Option<Directory>> {
    let reach = (END + COMMENT_MAX) as u64;
    let from = part.size().saturating_sub(reach);
    let tail = part.piece(from, END + COMMENT_MAX)?;
    let mut marks = tail.windows(END).enumerate().rev().filter(|(_, w)| w.starts_with(b"PK\x05\x06")).map(|(at, _)| at);
    let Some(at) = marks.next() else { return Ok(None) };
    // Other ends stand before this one, which is not at the very end.
    let several = at.saturating_add(END) != tail.len() && marks.next().is_some();
    let end_at = from.saturating_add(at as u64);
    let record = tail.get(at..).unwrap_or_default();
    let comment = number::<2>(record, 20);
    let (entries, size, offset) = (number::<2>(record, 10), number::<4>(record, 12), number::<4>(record, 16));
    let comment_at = end_at.saturating_add(END as u64);
    let last = comment_at.saturating_add(comment);
    let large = with_64(part, end_at, record)?;
    let lies = matches!(large, Large::Lies | Large::There { agrees: false, .. });
    let doubtful = match (several, lies) {
        (true, _) => Some("the zip has several ends"),
        (false, true) => Some("the zip's two ends, that of large files and the other, do not agree"),
        (false, false) => None,
    };
    let (entries, size, offset, end) = match large {
        Large::There { entries, size, offset, at, .. } => (entries, size, offset, at),
        Large::None | Large::Lies => (entries, size, offset, end_at),
    };
    let Some(start) = end.checked_sub(size) else { return Ok(None) };
    let Some(before) = start.checked_sub(offset) else { return Ok(None) };
    let first = part.piece(start, 4)?;
    let there = first == b"PK\x01\x02" || size == 0;
    Ok(there.then_some(Directory { start, end, comment: comment_at, last, before, entries, doubtful }))
}

/// The end of the directory by the records of ZIP64.
enum Large {
    /// There is none.
    None,
    /// There is the mark that says where one is, and none where Python seeks it.
    Lies,
    /// As Python finds it: right before that mark, whatever that says.
    There {
        entries: u64,
        size: u64,
        offset: u64,
        at: u64,
        /// All readers find this one, and the end without ZIP64 says the same wherever it says something.
        agrees: bool,
    },
}

fn with_64(part: Part<'_>, end_at: u64, classic: &[u8]) -> io::Result<Large> {
    let Some(locator_at) = end_at.checked_sub(LOCATOR) else { return Ok(Large::None) };
    let locator = part.piece(locator_at, 20)?;
    if !locator.starts_with(b"PK\x06\x07") {
        return Ok(Large::None);
    }
    let Some(at) = locator_at.checked_sub(END_64) else { return Ok(Large::Lies) };
    let record = part.piece(at, 56)?;
    if !record.starts_with(b"PK\x06\x06") {
        return Ok(Large::Lies);
    }
    let same2 = |from: usize, large: u64| [large, 0xffff].contains(&number::<2>(classic, from));
    let same4 = |from: usize, large: u64| [large, 0xffff_ffff].contains(&number::<4>(classic, from));
    let large = |from: usize| number::<8>(&record, from);
    let agrees = number::<8>(&locator, 8) == at
        && same2(8, large(24))
        && same2(10, large(32))
        && same4(12, large(40))
        && same4(16, large(48));
    Ok(Large::There { entries: large(32), size: large(40), offset: large(48), at, agrees })
}

/// The entry of the directory at `offset`, and where the next one is. `None` where there is none.
pub fn entry(part: Part<'_>, offset: u64) -> io::Result<Option<(Entry, u64)>> {
    let head = part.piece(offset, ENTRY)?;
    if head.len() < ENTRY || !head.starts_with(b"PK\x01\x02") {
        return Ok(None);
    }
    let sizes = [number::<2>(&head, 28), number::<2>(&head, 30), number::<2>(&head, 32)];
    let name_at = offset.saturating_add(ENTRY as u64);
    let name = text(part, name_at, sizes[0])?;
    let extra_at = name_at.saturating_add(sizes[0]);
    let extra = part.piece(extra_at, usize::try_from(sizes[1]).unwrap_or(0))?;
    let mut entry = described(name, &head, 8, number::<4>(&head, 42));
    enlarge(&mut entry, &extra);
    let next = extra_at.saturating_add(sizes[1]).saturating_add(sizes[2]);
    Ok(Some((entry, next)))
}

/// What both heads say of an entry in the same order, from its flags at `at` on: flags, method, time and date, CRC, sizes.
fn described(name: String, head: &[u8], at: usize, offset: u64) -> Entry {
    Entry {
        name,
        flags: number::<2>(head, at),
        method: number::<2>(head, at + 2),
        crc: number::<4>(head, at + 8),
        packed: number::<4>(head, at + 12),
        size: number::<4>(head, at + 16),
        offset,
    }
}

/// The head before an entry's data at `offset`, and where the data begins.
pub fn local(part: Part<'_>, offset: u64) -> io::Result<Option<(Entry, u64)>> {
    const LOCAL: usize = 30;
    let head = part.piece(offset, LOCAL)?;
    if head.len() < LOCAL || !head.starts_with(b"PK\x03\x04") {
        return Ok(None);
    }
    let (name_size, extra_size) = (number::<2>(&head, 26), number::<2>(&head, 28));
    let name_at = offset.saturating_add(LOCAL as u64);
    let name = text(part, name_at, name_size)?;
    let extra_at = name_at.saturating_add(name_size);
    let extra = part.piece(extra_at, usize::try_from(extra_size).unwrap_or(0))?;
    let mut entry = described(name, &head, 6, offset);
    enlarge(&mut entry, &extra);
    Ok(Some((entry, extra_at.saturating_add(extra_size))))
}

fn text(part: Part<'_>, at: u64, size: u64) -> io::Result<String> {
    let bytes = part.piece(at, usize::try_from(size).unwrap_or(0))?;
    Ok(String::from_utf8_lossy(bytes.get(..bytes.len().min(NAME_MAX)).unwrap_or_default()).into_owned())
}

/// Numbers that have no room in 32 bits stand in a field of their own, in this order.
fn enlarge(entry: &mut Entry, mut extra: &[u8]) {
    while extra.len() >= 4 {
        let size = usize::try_from(number::<2>(extra, 2)).unwrap_or(0);
        let end = size.saturating_add(4).min(extra.len());
        if number::<2>(extra, 0) == 1 {
            let mut field = extra.get(4..end).unwrap_or_default();
            for value in [&mut entry.size, &mut entry.packed, &mut entry.offset] {
                if *value == 0xffff_ffff && field.len() >= 8 {
                    *value = number::<8>(field, 0);
                    field = field.get(8..).unwrap_or_default();
                }
            }
            return;
        }
        extra = extra.get(end..).unwrap_or_default();
    }
}
