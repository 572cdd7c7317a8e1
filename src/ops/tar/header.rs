//! Headers of a tar archive: ustar blocks with the extended headers of POSIX.1-2001 (pax) before them.
//!
//! What a ustar block can say exactly stands there, whatever its bytes. Extended headers must be UTF-8: a long name that
//! is none goes into a long-name block of the GNU format instead, which everybody reads who reads either. Attributes are
//! `SCHILY.xattr.*`; files with holes are version 1.0 of GNU's sparse format.

use crate::format::tree::{Entry, EntryType, Xattr};

/// An archive is made of blocks of so many bytes.
pub(super) const BLOCK_BYTES: usize = 512;
/// Longest name that a ustar block holds.
const NAME_BYTES_MAX: usize = 100;
/// Largest number of eleven octal digits: sizes and times.
const OCTAL_11_MAX: u64 = 0o77_777_777_777;
/// Largest number of seven octal digits: owners and devices.
const OCTAL_7_MAX: u32 = 0o7_777_777;

/// One member of an archive.
pub(super) struct Member<'m> {
    /// Path, without a slash at the end.
    pub(super) path: &'m [u8],
    /// What it is.
    pub(super) entry: &'m Entry,
    /// Its attributes.
    pub(super) xattrs: &'m [Xattr],
    /// The member of which it is a further name.
    pub(super) link: Option<&'m [u8]>,
    /// Bytes that follow, without those that fill the last block.
    pub(super) stored_bytes: u64,
    /// Whether these begin with a map of the data between holes.
    pub(super) sparse: bool,
}

/// How many bytes fill the last block of so many.
pub(super) fn padding(bytes: u64) -> usize {
    let over = (bytes % BLOCK_BYTES as u64) as usize;
    (BLOCK_BYTES - over) % BLOCK_BYTES
}

/// What comes before the content of a member. `Err`: what it has that no archive can hold.
pub(super) fn encode(member: &Member<'_>) -> Result<Vec<u8>, &'static str> {
    let entry = member.entry;
    let mut path = member.path.to_vec();
    if entry.kind == EntryType::Dir {
        path.push(b'/');
    }
    let target: &[u8] = member.link.or(entry.target.as_deref().map(|t| &t[..])).unwrap_or_default();
    let (mut out, mut pax) = (Vec::new(), Pax::default());
    if member.sparse {
        pax.sparse(&path, entry.size());
        path = [b"GNUSparseFile.0/", &entry.name[..]].concat();
    } else {
        long_name(b'L', "path", &path, &mut pax, &mut out);
    }
    long_name(b'K', "linkpath", target, &mut pax, &mut out);
    pax.numbers(member);
    // Attributes belong to the inode: its first name brings them.
    let xattrs = if member.link.is_some() { &[] } else { member.xattrs };
    xattrs.iter().for_each(|x| pax.xattr(x));
    if !pax.records.is_empty() {
        let name = [b"PaxHeaders/", &entry.name[..]].concat();
        out.extend(Block::plain(&name, b'x', pax.records.len() as u64).finish());
        padded(&pax.records, &mut out);
    }
    out.extend(block(member, &path, target)?.finish());
    Ok(out)
}

/// Appends bytes and what fills their last block.
fn padded(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(bytes);
    out.resize(out.len() + padding(bytes.len() as u64), 0);
}

fn long_name(kind: u8, key: &str, name: &[u8], pax: &mut Pax, out: &mut Vec<u8>) {
    if name.len() <= NAME_BYTES_MAX {
        return;
    }
    if std::str::from_utf8(name).is_ok() {
        return pax.record(key.as_bytes(), name);
    }
    let zeroed = [name, b"\0"].concat();
    out.extend(Block::plain(b"././@LongLink", kind, zeroed.len() as u64).finish());
    padded(&zeroed, out);
}

/// Records of an extended header.
#[derive(Default)]
struct Pax {
    records: Vec<u8>,
}

impl Pax {
    /// Appends `LENGTH KEY=VALUE\n`, where the length counts its own digits.
    fn record(&mut self, key: &[u8], value: &[u8]) {
        let rest = key.len() + value.len() + 3;
        let mut len = rest + 1;
        while rest + len.to_string().len() != len {
            len = rest + len.to_string().len();
        }
        self.records.extend_from_slice(len.to_string().as_bytes());
        for part in [b" ", key, b"=", value, b"\n"] {
            self.records.extend_from_slice(part);
        }
    }

    fn number(&mut self, key: &str, value: u64) {
        self.record(key.as_bytes(), value.to_string().as_bytes());
    }

    fn sparse(&mut self, path: &[u8], size: u64) {
        self.number("GNU.sparse.major", 1);
        self.number("GNU.sparse.minor", 0);
        self.record(b"GNU.sparse.name", path);
        self.number("GNU.sparse.realsize", size);
    }

    /// What does not fit the digits of a block.
    fn numbers(&mut self, member: &Member<'_>) {
        let entry = member.entry;
        for (key, value) in [("uid", entry.uid), ("gid", entry.gid)] {
            if value > OCTAL_7_MAX {
                self.number(key, value.into());
            }
        }
        if member.stored_bytes > OCTAL_11_MAX {
            self.number("size", member.stored_bytes);
        }
        if entry.mtime_ns != 0 || u64::try_from(entry.mtime_s).map_or(true, |s| s > OCTAL_11_MAX) {
            self.record(b"mtime", time(entry.mtime_s, entry.mtime_ns).as_bytes());
        }
    }

    /// The key's own sign, and the one that escapes it, are escaped, as GNU tar reads them.
    fn xattr(&mut self, xattr: &Xattr) {
        let mut key = b"SCHILY.xattr.".to_vec();
        for byte in xattr.name.iter() {
            match byte {
                b'%' => key.extend_from_slice(b"%25"),
                b'=' => key.extend_from_slice(b"%3D"),
                other => key.push(*other),
            }
        }
        self.record(&key, &xattr.value);
    }
}

/// Seconds with nanoseconds, as a decimal number.
fn time(s: i64, ns: u32) -> String {
    match (s, ns) {
        (s, 0) => s.to_string(),
        // Nanoseconds count upwards, also before 1970.
        (s, ns) if s < 0 => {
            let below = 1_000_000_000_u32.saturating_sub(ns);
            format!("-{}.{below:09}", s.saturating_add(1).unsigned_abs())
        }
        (s, ns) => format!("{s}.{ns:09}"),
    }
}

fn block(member: &Member<'_>, path: &[u8], target: &[u8]) -> Result<Block, &'static str> {
    let entry = member.entry;
    let kind = match entry.kind {
        _ if member.link.is_some() => b'1',
        EntryType::File => b'0',
        EntryType::Symlink => b'2',
        EntryType::CharDevice => b'3',
        EntryType::BlockDevice => b'4',
        EntryType::Dir => b'5',
        EntryType::Fifo => b'6',
        EntryType::Socket => return Err("an archive cannot hold a socket"),
    };
    let mut block = Block::new();
    block.text(0, NAME_BYTES_MAX, path);
    block.octal(100, 7, (entry.mode & 0o7777).into());
    block.octal(108, 7, if entry.uid > OCTAL_7_MAX { 0 } else { entry.uid.into() });
    block.octal(116, 7, if entry.gid > OCTAL_7_MAX { 0 } else { entry.gid.into() });
    block.octal(124, 11, if member.stored_bytes > OCTAL_11_MAX { 0 } else { member.stored_bytes });
    let seconds = u64::try_from(entry.mtime_s).unwrap_or(0);
    block.octal(136, 11, if seconds > OCTAL_11_MAX { 0 } else { seconds });
    block.bytes[156] = kind;
    block.text(157, NAME_BYTES_MAX, target);
    if matches!(kind, b'3' | b'4') {
        let (major, minor) = (entry.rdev_major.unwrap_or(0), entry.rdev_minor.unwrap_or(0));
        if major > OCTAL_7_MAX || minor > OCTAL_7_MAX {
            return Err("an archive cannot hold a device of this number");
        }
        block.octal(329, 7, major.into());
        block.octal(337, 7, minor.into());
    }
    Ok(block)
}

/// One header block.
struct Block {
    bytes: [u8; BLOCK_BYTES],
}

impl Block {
    fn new() -> Block {
        let mut block = Block { bytes: [0; BLOCK_BYTES] };
        block.text(257, 8, b"ustar\x0000");
        block
    }

    /// The header of a header.
    fn plain(name: &[u8], kind: u8, size: u64) -> Block {
        let mut block = Block::new();
        block.text(0, NAME_BYTES_MAX, name);
        block.octal(100, 7, 0o644);
        for at in [108, 116] {
            block.octal(at, 7, 0);
        }
        block.octal(124, 11, size);
        block.octal(136, 11, 0);
        block.bytes[156] = kind;
        block
    }

    fn text(&mut self, at: usize, len_max: usize, text: &[u8]) {
        let len = text.len().min(len_max);
        self.bytes[at..at + len].copy_from_slice(&text[..len]);
    }

    fn octal(&mut self, at: usize, digits: usize, value: u64) {
        self.text(at, digits, format!("{value:0digits$o}").as_bytes());
    }

    /// With its checksum, which is that of the block with spaces in its place.
    fn finish(mut self) -> [u8; BLOCK_BYTES] {
        self.text(148, 8, b"        ");
        let sum: u32 = self.bytes.iter().map(|b| u32::from(*b)).sum();
        self.text(148, 8, format!("{sum:06o}\0 ").as_bytes());
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(path: &[u8], change: impl FnOnce(&mut Entry)) -> Vec<u8> {
        let mut entry = Entry::bare(path.rsplit(|b| *b == b'/').next().unwrap(), EntryType::File);
        change(&mut entry);
        let stored_bytes = entry.size();
        encode(&Member { path, entry: &entry, xattrs: &[], link: None, stored_bytes, sparse: false }).unwrap()
    }

    #[test]
    fn the_length_of_a_record_counts_itself() {
        for value_len in (0..1200).chain([9_980, 9_990, 9_995, 99_990]) {
            let mut pax = Pax::default();
            pax.record(b"key", &vec![b'v'; value_len]);
            let text = String::from_utf8(pax.records).unwrap();
            let (len, rest) = text.split_once(' ').unwrap();
            assert_eq!(len.parse::<usize>().unwrap(), text.len());
            assert!(rest.starts_with("key=") && rest.ends_with('\n'));
        }
    }

    #[test]
    fn times_before_1970_and_after_2242_are_exact() {
        assert_eq!(time(-1, 500_000_000), "-0.500000000");
        assert_eq!(time(-2, 1), "-1.999999999");
        assert_eq!(time(-7, 0), "-7");
        assert_eq!(time(7, 5), "7.000000005");
        let late = encoded(b"f", |e| e.mtime_s = 1 << 40);
        assert!(late.windows(19).any(|w| w == b"mtime=1099511627776"));
    }

    #[test]
    fn small_numbers_and_short_names_need_one_block() {
        assert_eq!(encoded(&[0xff; 100], |_| {}).len(), BLOCK_BYTES);
        assert_eq!(encoded(&[b'a'; 101], |_| {}).len(), 3 * BLOCK_BYTES);
        let long = encoded(&[0xff; 101], |_| {});
        assert_eq!((long.len(), long[156]), (3 * BLOCK_BYTES, b'L'));
        assert_eq!(encoded(b"f", |e| e.size = Some(OCTAL_11_MAX)).len(), BLOCK_BYTES);
        assert_eq!(encoded(b"f", |e| e.size = Some(OCTAL_11_MAX + 1)).len(), 3 * BLOCK_BYTES);
        assert_eq!(encoded(b"f", |e| e.uid = u32::MAX).len(), 3 * BLOCK_BYTES);
    }
}
