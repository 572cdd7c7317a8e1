//! Zips that say one thing here and another there. In each of them lies a pickle that would do harm.

use super::pickles::{Case, Face, by_lines, by_values, gzip, stored};
use holdfast::model::verdict::Grade;

/// An entry whose two heads may differ.
#[derive(Clone)]
struct Entry {
    name: Vec<u8>,
    directory_name: Vec<u8>,
    data: Vec<u8>,
    method: u16,
    flags: [u16; 2],
    crc: u32,
    sizes: [(u32, u32); 2],
    listed: bool,
}

impl Entry {
    fn new(name: &str, data: &[u8]) -> Entry {
        let size = u32::try_from(data.len()).unwrap();
        Entry {
            name: name.into(),
            directory_name: name.into(),
            data: data.to_vec(),
            method: 0,
            flags: [0; 2],
            crc: crc(data),
            sizes: [(size, size); 2],
            listed: true,
        }
    }

    fn evil() -> Entry {
        Entry::new("archive/data.pkl", &by_values("os", "system"))
    }

    fn deflated(mut self) -> Entry {
        let size = u32::try_from(self.data.len()).unwrap();
        self.data = stored(&self.data);
        self.method = 8;
        self.sizes = [(u32::try_from(self.data.len()).unwrap(), size); 2];
        self
    }

    fn with(mut self, change: impl FnOnce(&mut Entry)) -> Entry {
        change(&mut self);
        self
    }
}

fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8)
            .fold(crc ^ u32::from(*byte), |crc: u32, _| if crc & 1 == 1 { 0xedb8_8320 ^ (crc >> 1) } else { crc >> 1 })
    })
}

/// The zip, and where its directory begins.
fn zip(entries: &[Entry]) -> (Vec<u8>, usize) {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for entry in entries {
        let at = u32::try_from(out.len()).unwrap();
        let fields = |which: usize| {
            let (packed, size) = entry.sizes[which];
            let mut head = [20u16, entry.flags[which], entry.method, 0, 0].map(u16::to_le_bytes).concat();
            head.extend([entry.crc, packed, size].map(u32::to_le_bytes).concat());
            head
        };
        out.extend(b"PK\x03\x04");
        out.extend(fields(0));
        out.extend([u16::try_from(entry.name.len()).unwrap(), 0].map(u16::to_le_bytes).concat());
        out.extend(&entry.name);
        out.extend(&entry.data);
        if entry.listed {
            directory.extend(b"PK\x01\x02\x14\0");
            directory.extend(fields(1));
            let name = u16::try_from(entry.directory_name.len()).unwrap();
            directory.extend([name, 0, 0, 0, 0, 0, 0].map(u16::to_le_bytes).concat());
            directory.extend(at.to_le_bytes());
            directory.extend(&entry.directory_name);
        }
    }
    let (start, count) = (out.len(), entries.iter().filter(|entry| entry.listed).count());
    out.extend(&directory);
    out.extend(b"PK\x05\x06\0\0\0\0");
    out.extend([u16::try_from(count).unwrap(); 2].map(u16::to_le_bytes).concat());
    out.extend([directory.len(), start].map(|n| u32::try_from(n).unwrap().to_le_bytes()).concat());
    out.extend([0, 0]);
    (out, start)
}

/// A checkpoint in which nothing is wrong.
pub fn harmless() -> Vec<u8> {
    zip(&[Entry::new("archive/data.pkl", b"\x80\x02}."), Entry::new("archive/data/0", &[0; 64])]).0
}

/// A zip with one entry beside the mark of PyTorch.
pub fn one(name: &str, data: &[u8]) -> Vec<u8> {
    zip(&[Entry::new("archive/version", b"3\n"), Entry::new(name, data)]).0
}

/// The harmless one with the end that large ones have: where its mark says that the end is, how many bytes stand between,
/// and the three fields of the end of small ones.
fn large(move_by: u64, between: &[u8], fields: impl Fn([u64; 3]) -> [u64; 3]) -> Vec<u8> {
    let (whole, start) = zip(&[Entry::new("archive/data.pkl", b"\x80\x02}."), Entry::new("archive/data/0", &[0; 64])]);
    let (head, end) = whole.split_at(whole.len() - 22);
    let real = [2, (head.len() - start) as u64, start as u64];
    let mut out = head.to_vec();
    out.extend(b"PK\x06\x06");
    out.extend(44u64.to_le_bytes());
    out.extend([45, 0, 45, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    out.extend([real[0], real[0], real[1], real[2]].map(u64::to_le_bytes).concat());
    out.extend(between);
    out.extend(b"PK\x06\x07\0\0\0\0");
    out.extend((head.len() as u64 + move_by).to_le_bytes());
    out.extend([1, 0, 0, 0]);
    let [entries, size, offset] = fields(real).map(|n| n.to_le_bytes());
    out.extend(&end[..8]);
    out.extend([&entries[..2], &entries[..2], &size[..4], &offset[..4], &[0, 0]].concat());
    out
}

/// Zips of which readers find different ends, or entries by different names.
pub fn faces() -> Vec<Face> {
    let ones = |_: [u64; 3]| [u64::MAX; 3];
    let twice = zip(&[Entry::new("archive/data.pkl", b"\x80\x02}."), Entry::new("archive/DATA.pkl", b"\x80\x02}.")]).0;
    let arrays = zip(&[Entry::new("W.npy", b""), Entry::new("w.npy", b"")]).0;
    vec![
        ("zip, large, as Python writes it", large(0, b"", |real| real), Grade::Safe),
        ("zip, large, as others write it", large(0, b"", ones), Grade::Safe),
        ("zip, large, another end by its mark", large(4, b"", ones), Grade::Unknown),
        ("zip, large, bytes before the mark", large(0, b"more", |real| real), Grade::Unknown),
        ("zip, large, fewer entries in the other end", large(0, b"", |[_, b, c]| [1, b, c]), Grade::Unknown),
        ("zip, large, another size in the other end", large(0, b"", |[a, b, c]| [a, b - 1, c]), Grade::Unknown),
        ("zip, large, another place in the other end", large(0, b"", |[a, b, _]| [a, b, 0]), Grade::Unknown),
        ("zip, twice by a name in capitals", twice, Grade::Unknown),
        ("zip, two arrays whose names differ in capitals", arrays, Grade::None),
    ]
}

/// All cases.
pub fn all() -> Vec<Case> {
    let one = |entry: Entry| zip(&[Entry::new("archive/version", b"3\n"), entry]).0;
    let evil = by_lines("os", "system");
    let mut cases = vec![
        ("zip, stored", one(Entry::evil())),
        ("zip, deflated", one(Entry::evil().deflated())),
        ("zip, under another name", one(Entry::new("archive/README.txt", &evil))),
        ("zip, under the name of a folder", one(Entry::new("archive/data/", &evil))),
        ("zip, encrypted as it says in both heads", one(Entry::evil().with(|e| e.flags = [1, 1]))),
        ("zip, encrypted as its head says", one(Entry::evil().with(|e| e.flags = [1, 0]))),
        ("zip, encrypted as its directory says", one(Entry::evil().deflated().with(|e| e.flags = [0, 0x41]))),
        ("zip, wrong checksum", one(Entry::evil().with(|e| e.crc ^= 1))),
        ("zip, wrong checksum, deflated", one(Entry::evil().deflated().with(|e| e.crc = 0))),
        (
            "zip, other name in the directory",
            one(Entry::evil().with(|e| e.directory_name = b"archive/version2".to_vec())),
        ),
        ("zip, other name in the head", one(Entry::evil().with(|e| e.name = b"archive/weights.0".to_vec()))),
        ("zip, name with a zero", one(Entry::evil().with(|e| e.directory_name = b"archive/data.pkl\0.txt".to_vec()))),
        ("zip, size of nothing in the directory", one(Entry::evil().with(|e| e.sizes[1] = (0, 0)))),
        ("zip, size of nothing in the head", one(Entry::evil().with(|e| e.sizes[0] = (0, 0)))),
        ("zip, size beyond the end", one(Entry::evil().with(|e| e.sizes = [(1 << 30, 1 << 30); 2]))),
        ("zip, sizes that differ", one(Entry::evil().with(|e| e.sizes = [(2, 100); 2]))),
        ("zip, a method that is none", one(Entry::evil().with(|e| e.method = 99))),
        ("zip, not in the directory", one(Entry::evil().with(|e| e.listed = false))),
        ("zip, twice by one name", zip(&[Entry::new("archive/data.pkl", b"\x80\x02}."), Entry::evil()]).0),
        ("zip, in a zip", one(Entry::new("inner.zip", &one(Entry::evil())))),
        ("zip, in a zip, deflated", one(Entry::new("inner.zip", &one(Entry::evil())).deflated())),
        ("zip, in gzip", gzip(&one(Entry::evil()))),
        ("zip, gzip in it", one(Entry::new("archive/data.pkl", &gzip(&evil)))),
        ("zip, program of TorchScript", one(Entry::new("archive/code/__torch__.py", b"import os"))),
        ("zip, persistent id where none belongs", one(Entry::new("archive/other.pkl", b"\x80\x02U\x04evilQ."))),
    ];
    let (whole, directory) = zip(&[Entry::evil()]);
    cases.push(("zip, without a directory", whole[..directory].to_vec()));
    cases.push(("zip, broken directory", {
        let mut broken = zip(&[Entry::new("a", b"a"), Entry::evil()]).0;
        let second = broken.windows(4).rposition(|w| w == b"PK\x01\x02").unwrap();
        broken[second] = b'X';
        broken
    }));
    cases.push(("zip, a pickle before it", [&evil[..], &harmless()].concat()));
    cases.push(("zip, a pickle behind it", [&harmless()[..], &evil].concat()));
    cases.push(("zip, behind a harmless pickle", [b"\x80\x02N.", &one(Entry::evil())[..]].concat()));
    cases.push(("zip, behind what looks like weights", [&[0; 500][..], &one(Entry::evil())].concat()));
    let mut deep = evil.clone();
    (0..8).for_each(|_| deep = one(Entry::new("inner.zip", &deep)));
    cases.push(("zip, nine deep", deep));
    cases.into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).collect()
}
