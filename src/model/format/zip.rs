//! Zip files: entries by the list at their end, each held against its own header. Nothing is unpacked.

use super::read::{Cursor, PEEK_BYTES, ReadAt, WALK_BYTES, whole};
use super::tensors::Gathered;
use super::{Malformed, Stop, TENSORS_MAX};

const LOCAL: &[u8] = b"PK\x03\x04";
const LISTED: u32 = u32::from_le_bytes(*b"PK\x01\x02");
const END: &[u8] = b"PK\x05\x06";
const END64: u32 = u32::from_le_bytes(*b"PK\x06\x06");
const LOCATOR64: &[u8] = b"PK\x06\x07";
/// A header in front of an entry, without name and extra fields.
const LOCAL_BYTES: usize = 30;
const END_BYTES: usize = 22;
const LOCATOR64_BYTES: usize = 20;
/// Longest remark behind the end.
const REMARK_BYTES_MAX: usize = 65_535;
/// Stands for a number that is in an extra field.
const ELSEWHERE: u32 = u32::MAX;
const EXTRA_64: u16 = 1;
const FLAG_ENCRYPTED: u16 = 1;
const NAME_BYTES_MAX: usize = 4 << 10;

/// The name of the first entry of a file that begins with one; nothing if more than the front is needed for it.
pub(super) fn first_name(front: &[u8]) -> Option<&[u8]> {
    if !front.starts_with(LOCAL) {
        return None;
    }
    let len = front.get(26..28)?.first_chunk().map(|len| u16::from_le_bytes(*len))?;
    front.get(LOCAL_BYTES..LOCAL_BYTES.checked_add(usize::from(len))?)
}

/// An entry.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    /// Where its bytes lie; `None` if they are packed or encrypted.
    pub(super) stored: Option<(u64, u64)>,
    /// Where the header in front of it begins.
    local: u64,
    bytes: u64,
}

/// All entries, and where the list of them lies.
pub(super) struct Entries {
    pub(super) all: Vec<Entry>,
    pub(super) list: (u64, u64),
}

/// Reads the list of entries. What they take is weighed with the tensors. A list without such a name is no model's: where each
/// entry begins is not asked for.
pub(super) fn entries(
    file: &dyn ReadAt,
    file_bytes: u64,
    gathered: &mut Gathered,
    is_model: impl Fn(&str) -> bool,
) -> Result<Entries, Stop> {
    let List { begin, end, count } = list(file, file_bytes)?;
    let mut cursor = Cursor::new(file, end, WALK_BYTES);
    cursor.seek(begin);
    let mut all = Vec::new();
    for _ in 0..count {
        let entry = listed(&mut cursor)?;
        gathered.weigh(entry.name.len().saturating_add(2 * size_of::<Entry>() + 32), cursor.pos())?;
        all.push(entry);
    }
    if cursor.pos() != end {
        return Err(cursor.wrong("a list of entries of another length"));
    }
    if !all.iter().any(|entry: &Entry| is_model(&entry.name)) {
        return Err(Stop::Other);
    }
    let mut local = Cursor::new(file, begin, PEEK_BYTES);
    for entry in &mut all {
        place(&mut local, entry)?;
    }
    apart(&mut all)?;
    Ok(Entries { all, list: (begin, file_bytes) })
}

/// Refuses entries that lie upon each other, or have one name.
fn apart(all: &mut [Entry]) -> Result<(), Stop> {
    all.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    let twice = all.windows(2).find_map(|pair| match pair {
        [a, b] if a.name == b.name => Some(b.local),
        _ => None,
    });
    if let Some(at) = twice {
        return Err(Stop::Malformed(Malformed { at, what: "two entries of one name" }));
    }
    all.sort_unstable_by_key(|entry| entry.local);
    let mut behind = 0;
    for entry in all.iter() {
        let end = entry.stored.map_or_else(|| entry.local.saturating_add(entry.bytes), |(_, end)| end);
        if entry.local < behind {
            return Err(Stop::Malformed(Malformed { at: entry.local, what: "two entries that overlap" }));
        }
        behind = end;
    }
    Ok(())
}

struct List {
    begin: u64,
    end: u64,
    count: u64,
}

/// Finds the list by what stands at the end of the file.
fn list(file: &dyn ReadAt, file_bytes: u64) -> Result<List, Stop> {
    let tail_bytes = file_bytes.min((LOCATOR64_BYTES + END_BYTES + REMARK_BYTES_MAX) as u64);
    let from = file_bytes.saturating_sub(tail_bytes);
    let tail = whole(file, from, usize::try_from(tail_bytes).unwrap_or(0))?;
    let wrong = |what| Stop::Malformed(Malformed { at: from, what });
    let at = find_end(&tail).ok_or_else(|| wrong("no list of entries at the end"))?;
    let end_at = from.saturating_add(at as u64);
    let mut cursor = Cursor::new(file, file_bytes, PEEK_BYTES);
    cursor.seek(end_at.saturating_add(4));
    let (disk, first_disk) = (cursor.u16()?, cursor.u16()?);
    let (here, count) = (cursor.u16()?, cursor.u16()?);
    let (bytes, begin) = (cursor.u32()?, cursor.u32()?);
    let before = at.checked_sub(LOCATOR64_BYTES).and_then(|at| tail.get(at..));
    if before.is_some_and(|before| before.starts_with(LOCATOR64)) {
        return list64(&mut cursor, end_at.saturating_sub(LOCATOR64_BYTES as u64));
    }
    if (disk, first_disk, here) != (0, 0, count) {
        return Err(wrong("a zip file in several parts"));
    }
    let (begin, end) = (u64::from(begin), u64::from(begin).saturating_add(u64::from(bytes)));
    checked(List { begin, end, count: u64::from(count) }, end_at)
}

fn list64(cursor: &mut Cursor<'_>, locator: u64) -> Result<List, Stop> {
    cursor.seek(locator.saturating_add(8));
    let at = cursor.u64()?;
    cursor.seek(at);
    if at >= locator || cursor.u32()? != END64 {
        return Err(cursor.wrong("no list of entries where it should be"));
    }
    // Its length, versions, and numbers of parts.
    cursor.skip(8 + 2 + 2 + 4 + 4)?;
    let (here, count, bytes, begin) = (cursor.u64()?, cursor.u64()?, cursor.u64()?, cursor.u64()?);
    if here != count {
        return Err(cursor.wrong("a zip file in several parts"));
    }
    let end = begin.checked_add(bytes).ok_or_else(|| cursor.wrong("a list of entries behind the end"))?;
    checked(List { begin, end, count }, at)
}

fn checked(list: List, behind: u64) -> Result<List, Stop> {
    let wrong = |what| Err(Stop::Malformed(Malformed { at: behind, what }));
    if list.end > behind {
        return wrong("a list of entries behind the end");
    }
    if list.count > TENSORS_MAX as u64 {
        return wrong("too many entries");
    }
    Ok(list)
}

/// Where the record at the end begins: the last place where its remark ends with the file.
fn find_end(tail: &[u8]) -> Option<usize> {
    let last = tail.len().checked_sub(END_BYTES)?;
    (0..=last).rev().find(|at| {
        let Some(record) = tail.get(*at..).filter(|record| record.starts_with(END)) else { return false };
        let remark = record.get(20..22).and_then(|len| len.first_chunk()).map(|len| u16::from_le_bytes(*len));
        remark.is_some_and(|remark| record.len() == END_BYTES + usize::from(remark))
    })
}

/// One entry of the list.
fn listed(cursor: &mut Cursor<'_>) -> Result<Entry, Stop> {
    if cursor.u32()? != LISTED {
        return Err(cursor.wrong("an entry that is none"));
    }
    cursor.skip(4)?;
    let (flags, method) = (cursor.u16()?, cursor.u16()?);
    // Time, and a checksum, which is not reckoned here.
    cursor.skip(8)?;
    let (packed, bytes) = (cursor.u32()?, cursor.u32()?);
    let (name, extra, remark) = (cursor.u16()?, cursor.u16()?, cursor.u16()?);
    let disk = cursor.u16()?;
    cursor.skip(6)?;
    let local = cursor.u32()?;
    let name = cursor.text(u64::from(name), NAME_BYTES_MAX)?;
    let behind = cursor.pos().saturating_add(u64::from(extra));
    let mut numbers = [bytes, packed, local].map(u64::from);
    wide(cursor, behind, &mut numbers)?;
    cursor.seek(behind);
    cursor.skip(u64::from(remark))?;
    let [bytes, packed, local] = numbers;
    if disk != 0 && disk != u16::MAX {
        return Err(cursor.wrong("a zip file in several parts"));
    }
    let plain = method == 0 && flags & FLAG_ENCRYPTED == 0;
    if plain && packed != bytes {
        return Err(cursor.wrong("an entry that has two lengths"));
    }
    // Its begin is known when its own header was read.
    Ok(Entry { name, stored: plain.then_some((0, 0)), local, bytes: packed })
}

/// Numbers that did not fit: in this order in the extra field, those that are there.
fn wide(cursor: &mut Cursor<'_>, behind: u64, numbers: &mut [u64; 3]) -> Result<(), Stop> {
    if numbers.iter().all(|number| *number != u64::from(ELSEWHERE)) {
        return Ok(());
    }
    while cursor.pos().saturating_add(4) <= behind {
        let (id, len) = (cursor.u16()?, u64::from(cursor.u16()?));
        let next = cursor.pos().saturating_add(len);
        if next > behind {
            break;
        }
        if id != EXTRA_64 {
            cursor.seek(next);
            continue;
        }
        for number in numbers.iter_mut().filter(|number| **number == u64::from(ELSEWHERE)) {
            if cursor.pos().saturating_add(8) > next {
                return Err(cursor.wrong("a length that is missing"));
            }
            *number = cursor.u64()?;
        }
        return Ok(());
    }
    Err(cursor.wrong("a length that is missing"))
}

/// Holds an entry against the header in front of it, and sets where its bytes lie.
fn place(cursor: &mut Cursor<'_>, entry: &mut Entry) -> Result<(), Stop> {
    cursor.seek(entry.local);
    if cursor.take(LOCAL.len())? != LOCAL {
        return Err(cursor.wrong("an entry that is not where the list says"));
    }
    cursor.skip(2)?;
    let (flags, method) = (cursor.u16()?, cursor.u16()?);
    cursor.skip(16)?;
    let (name, extra) = (cursor.u16()?, cursor.u16()?);
    if cursor.take(usize::from(name))? != entry.name.as_bytes() {
        return Err(cursor.wrong("an entry of another name than in the list"));
    }
    cursor.skip(u64::from(extra))?;
    let begin = cursor.pos();
    cursor.skip(entry.bytes)?;
    if let Some(range) = &mut entry.stored {
        if method != 0 || flags & FLAG_ENCRYPTED != 0 {
            return Err(cursor.wrong("an entry that is packed, and not so in the list"));
        }
        *range = (begin, cursor.pos());
    }
    Ok(())
}
