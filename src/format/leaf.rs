//! A page of entries read where it lies, entry by entry, without making anything of what nobody asks for.
//!
//! As strict as [`super::tree::Page::decode`]: what is read here encodes to the same bytes again, so that entries which did
//! not change can be copied as they stand. What is not read here (the rare fields of an entry) is decoded from its bytes.

use super::FormatError;
use super::cbor;
use super::tree::{Entry, EntryType, PAGE_BYTES_MAX};
use crate::base::ChunkId;
use std::ops::Range;

/// Fields of content: in the entry itself, and in chunks.
const CONTENTS: u32 = 1 << 12 | 1 << 13;
const MALFORMED: FormatError = FormatError::Malformed("tree page", "entry");

/// A page of entries, and its id.
#[derive(Debug)]
pub struct Leaf {
    /// Its id.
    pub id: ChunkId,
    bytes: Vec<u8>,
}

/// What a file system says of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Meta {
    /// Permission bits.
    pub mode: u32,
    /// Owner and group.
    pub owner: (u32, u32),
    /// Modification time: seconds, nanoseconds.
    pub mtime: (i64, u32),
    /// Change time.
    pub ctime: (i64, u32),
    /// Inode number.
    pub inode: u64,
    /// Link count, if a non-directory has more than one.
    pub nlink: Option<u64>,
    /// Device of the file system, beside a link count.
    pub dev: Option<u64>,
    /// Size of a file, in bytes.
    pub size: Option<u64>,
}

impl Meta {
    /// What an entry says.
    pub fn of(entry: &Entry) -> Meta {
        Meta {
            mode: entry.mode,
            owner: (entry.uid, entry.gid),
            mtime: (entry.mtime_s, entry.mtime_ns),
            ctime: (entry.ctime_s, entry.ctime_ns),
            inode: entry.inode,
            nlink: entry.nlink,
            dev: entry.dev,
            size: entry.size,
        }
    }
}

/// An entry of a page, by where its parts lie.
#[derive(Debug, Clone)]
pub struct Raw {
    /// The whole entry.
    pub at: Range<usize>,
    /// Its name.
    pub name: Range<usize>,
    /// What it is.
    pub kind: EntryType,
    /// What the file system said of it.
    pub meta: Meta,
    /// The chunk list that stands in it.
    pub chunks: Option<Range<usize>>,
    /// The root page of a directory.
    pub tree: Option<ChunkId>,
    /// Whether it has nothing beside these and its content or attributes in itself: what else there is needs a closer look.
    pub plain: bool,
}

/// Goes over the entries of a page.
#[derive(Debug, Clone, Default)]
pub struct Scan {
    pos: usize,
    left: u64,
    last: Range<usize>,
}

impl Scan {
    /// Where the name of the last entry lies.
    pub fn last(&self) -> &Range<usize> {
        &self.last
    }
}

impl Leaf {
    /// A page, if it is one of entries; else its bytes.
    ///
    /// # Errors
    /// Too long for a page.
    pub fn new(id: ChunkId, bytes: Vec<u8>) -> Result<Result<Leaf, Vec<u8>>, FormatError> {
        if bytes.len() > PAGE_BYTES_MAX {
            return Err(FormatError::Limit("tree page"));
        }
        // A map of two: level 0, and entries.
        if bytes.starts_with(&[0xa2, 0, 0, 1]) { Ok(Ok(Leaf { id, bytes })) } else { Ok(Err(bytes)) }
    }

    /// The page as it is stored.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// A part of it.
    pub fn part(&self, range: &Range<usize>) -> &[u8] {
        self.bytes.get(range.clone()).unwrap_or_default()
    }

    /// The begin of its entries.
    ///
    /// # Errors
    /// Malformed, or without any.
    pub fn scan(&self) -> Result<Scan, FormatError> {
        let mut at = At { bytes: &self.bytes, pos: 4 };
        match at.head() {
            Some((4, left)) if left > 0 => Ok(Scan { pos: at.pos, left, last: 0..0 }),
            _ => Err(MALFORMED),
        }
    }

    /// The next entry; `None` at the end of the page.
    ///
    /// # Errors
    /// Anything that a writer would not have written.
    pub fn next(&self, scan: &mut Scan) -> Result<Option<Raw>, FormatError> {
        if scan.left == 0 {
            return if scan.pos == self.bytes.len() { Ok(None) } else { Err(MALFORMED) };
        }
        let mut at = At { bytes: &self.bytes, pos: scan.pos };
        let raw = at.entry().ok_or(MALFORMED)?;
        let first = scan.last == (0..0);
        if !first && self.part(&scan.last) >= self.part(&raw.name) {
            return Err(FormatError::Malformed("tree page", "order or level"));
        }
        scan.left -= 1;
        scan.pos = at.pos;
        scan.last = raw.name.clone();
        Ok(Some(raw))
    }

    /// An entry in full.
    ///
    /// # Errors
    /// Anything that a writer would not have written.
    pub fn entry(&self, raw: &Raw) -> Result<Entry, FormatError> {
        cbor::decode("tree entry", self.part(&raw.at))
    }
}

/// A place in canonical CBOR.
struct At<'b> {
    bytes: &'b [u8],
    pos: usize,
}

impl At<'_> {
    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.pos)?;
        self.pos += 1;
        Some(byte)
    }

    /// Major type and number, in its shortest form.
    fn head(&mut self) -> Option<(u8, u64)> {
        let first = self.byte()?;
        let (major, short) = (first >> 5, first & 0x1f);
        let (number, least) = match short {
            0..24 => return Some((major, u64::from(short))),
            24 => (u64::from(self.byte()?), 24),
            25 => (u64::from(u16::from_be_bytes(self.take()?)), 1 << 8),
            26 => (u64::from(u32::from_be_bytes(self.take()?)), 1 << 16),
            27 => (u64::from_be_bytes(self.take()?), 1 << 32),
            _ => return None,
        };
        (number >= least).then_some((major, number))
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let bytes = *self.bytes.get(self.pos..)?.first_chunk()?;
        self.pos += N;
        Some(bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.head().filter(|(major, _)| *major == 0).map(|(_, number)| number)
    }

    fn u32(&mut self) -> Option<u32> {
        self.u64()?.try_into().ok()
    }

    fn i64(&mut self) -> Option<i64> {
        let (major, number) = self.head()?;
        let number = i64::try_from(number).ok()?;
        match major {
            0 => Some(number),
            1 => Some(-1 - number),
            _ => None,
        }
    }

    fn range(&mut self) -> Option<Range<usize>> {
        let (major, len) = self.head()?;
        let end = self.pos.checked_add(usize::try_from(len).ok()?)?;
        if major != 2 || end > self.bytes.len() {
            return None;
        }
        let range = self.pos..end;
        self.pos = end;
        Some(range)
    }

    fn id(&mut self) -> Option<ChunkId> {
        let range = self.range()?;
        ChunkId::from_slice(self.bytes.get(range)?)
    }

    fn list(&mut self) -> Option<()> {
        let [map, page_key] = self.take()?;
        self.id()?;
        let level_key = self.byte()?;
        let level = self.u64()?;
        (map == 0xa2 && page_key == 0 && level_key == 1 && level <= 0xff).then_some(())
    }

    fn xattrs(&mut self) -> Option<()> {
        let (major, count) = self.head()?;
        for _ in 0..count {
            if self.byte()? != 0x82 {
                return None;
            }
            self.range()?;
            self.range()?;
        }
        (major == 4).then_some(())
    }

    fn entry(&mut self) -> Option<Raw> {
        let begin = self.pos;
        let (major, fields) = self.head()?;
        let (mut name, mut kind, mut chunks, mut tree, mut plain) = (None, None, None, None, true);
        let (mut meta, mut seen, mut next) = (Meta::default(), 0u32, 0);
        for _ in 0..fields {
            let key = self.u64().filter(|key| *key >= next && *key <= 22)?;
            next = key + 1;
            seen |= 1 << key;
            match key {
                0 => name = Some(self.range()?),
                1 => kind = Some(kind_of(self.u64()?)?),
                2 => meta.mode = self.u32()?,
                3 => meta.owner.0 = self.u32()?,
                4 => meta.owner.1 = self.u32()?,
                5 => meta.mtime.0 = self.i64()?,
                6 => meta.mtime.1 = self.u32()?,
                7 => meta.ctime.0 = self.i64()?,
                8 => meta.ctime.1 = self.u32()?,
                9 => meta.inode = self.u64()?,
                10 => meta.nlink = Some(self.u64()?),
                11 => meta.size = Some(self.u64()?),
                12 => {
                    self.range()?;
                }
                13 => chunks = Some(self.range()?),
                20 => meta.dev = Some(self.u64()?),
                19 => self.xattrs()?,
                15 => tree = Some(self.id()?),
                _ => {
                    plain = false;
                    self.rare(key)?;
                }
            }
        }
        // The fields that every entry has.
        if major != 5 || seen & 0x3ff != 0x3ff {
            return None;
        }
        // Content twice, or that of something else than a file, is for others to judge.
        plain &= tree.is_none() && seen & CONTENTS != CONTENTS;
        Some(Raw { at: begin..self.pos, name: name?, kind: kind?, meta, chunks, tree, plain })
    }

    fn rare(&mut self, key: u64) -> Option<()> {
        match key {
            14 => self.list(),
            22 => self.id().map(drop),
            16 => self.range().map(drop),
            17 | 18 | 21 => self.u32().map(drop),
            _ => None,
        }
    }
}

fn kind_of(number: u64) -> Option<EntryType> {
    Some(match number {
        0 => EntryType::File,
        1 => EntryType::Dir,
        2 => EntryType::Symlink,
        3 => EntryType::Fifo,
        4 => EntryType::Socket,
        5 => EntryType::CharDevice,
        6 => EntryType::BlockDevice,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::tree::{ListRef, Page, Xattr};
    use proptest::prelude::*;

    fn page(entries: &[Entry]) -> Vec<u8> {
        cbor::encode(&Page { level: 0, entries: Some(entries.to_vec()), children: None })
    }

    /// What the scan makes of a page; `None` if it is refused.
    fn scanned(bytes: &[u8]) -> Option<Vec<(Raw, Vec<u8>, Entry)>> {
        let leaf = Leaf::new(ChunkId([7; 32]), bytes.to_vec()).ok()?.ok()?;
        let (mut scan, mut all) = (leaf.scan().ok()?, Vec::new());
        while let Some(raw) = leaf.next(&mut scan).ok()? {
            let entry = leaf.entry(&raw).ok()?;
            all.push((raw.clone(), leaf.part(&raw.at).to_vec(), entry));
        }
        Some(all)
    }

    fn number() -> impl Strategy<Value = u64> {
        prop_oneof![0..30u64, 200..300u64, 65_000..66_000u64, Just(u64::from(u32::MAX)), any::<u64>()]
    }

    prop_compose! {
        fn entry()(
            name in proptest::collection::vec(any::<u8>(), 0..40), kind in 0..7u64, small in any::<[u32; 3]>(),
            times in (any::<i64>(), any::<u32>(), -300..300i64, 0..70_000u32), inode in number(), which in any::<u16>(),
            some in number(), bytes in proptest::collection::vec(any::<u8>(), 0..300),
        ) -> Entry {
            let has = |bit: u32| which >> bit & 1 == 1;
            Entry {
                kind: kind_of(kind).unwrap(), mode: small[0] & 0o7777, uid: small[1], gid: small[2] % 30, mtime_s: times.0, mtime_ns: times.1,
                ctime_s: times.2, ctime_ns: times.3, inode, nlink: has(0).then_some(some), size: has(1).then_some(some),
                inline: has(2).then(|| bytes.clone().into()), chunks: has(3).then(|| bytes.clone().into()),
                list: has(4).then_some(ListRef { page: ChunkId([4; 32]), level: some as u8 }),
                tree: has(5).then_some(ChunkId([5; 32])), target: has(6).then(|| bytes.clone().into()),
                rdev_major: has(7).then_some(small[0]), rdev_minor: has(8).then_some(small[1]),
                xattrs: has(9).then(|| vec![Xattr { name: b"user.x".to_vec().into(), value: bytes.clone().into() }]),
                dev: has(10).then_some(some), flags: has(11).then_some(small[2]), xattrs_ref: has(12).then_some(ChunkId([6; 32])),
                ..Entry::bare(&name, EntryType::File)
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_scan_finds_what_a_page_says(mut entries in proptest::collection::vec(entry(), 1..20)) {
            entries.sort_by(|a, b| a.name.cmp(&b.name));
            entries.dedup_by(|a, b| a.name == b.name);
            let found = scanned(&page(&entries)).unwrap();
            prop_assert_eq!(found.len(), entries.len());
            for ((raw, bytes, decoded), wanted) in found.iter().zip(&entries) {
                prop_assert_eq!(decoded, wanted);
                prop_assert_eq!(bytes, &cbor::encode(wanted));
                prop_assert_eq!((raw.kind, raw.meta), (wanted.kind, Meta::of(wanted)));
                prop_assert_eq!(raw.chunks.is_some(), wanted.chunks.is_some());
                let bare = Entry { name: wanted.name.clone(), kind: wanted.kind, inline: wanted.inline.clone(),
                    chunks: wanted.chunks.clone(), xattrs: wanted.xattrs.clone(), ..Entry::bare(b"", wanted.kind) };
                let rest = Entry { mode: 0, uid: 0, gid: 0, mtime_s: 0, mtime_ns: 0, ctime_s: 0, ctime_ns: 0, inode: 0,
                    nlink: None, dev: None, size: None, ..wanted.clone() };
                prop_assert_eq!(raw.plain, rest == bare && !(rest.inline.is_some() && rest.chunks.is_some()));
                prop_assert_eq!(raw.tree, wanted.tree);
            }
        }

        #[test]
        fn what_a_page_is_refused_for_a_scan_refuses(entries in proptest::collection::vec(entry(), 1..4), at: usize, byte: u8) {
            let mut entries = entries;
            entries.sort_by(|a, b| a.name.cmp(&b.name));
            let mut bytes = page(&entries);
            let at = at % bytes.len();
            bytes[at] = byte;
            // A page of no entries is written by nobody.
            let decoded = Page::decode(&bytes).ok().and_then(|page| page.entries).filter(|entries| !entries.is_empty());
            let found = scanned(&bytes).map(|all| all.into_iter().map(|(_, _, entry)| entry).collect::<Vec<_>>());
            prop_assert_eq!(found, decoded);
        }

        #[test]
        fn a_page_cut_short_is_refused(entries in proptest::collection::vec(entry(), 1..4), cut in 1..100usize) {
            let bytes = page(&entries[..1]);
            prop_assert!(scanned(&bytes[..bytes.len().saturating_sub(cut)]).is_none());
            prop_assert!(scanned(&[&bytes[..], &[0]].concat()).is_none());
        }
    }
}
