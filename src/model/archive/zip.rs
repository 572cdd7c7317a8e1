//! Zip: each entry as the directory has it, and as the head before its data has it, which may be another; what stands
//! before, between and behind them. Flags, checksums and sizes are compared, and none of them keeps anything from being
//! looked at.

use super::blob::Part;
use super::directory::{self, Directory, Entry};
use super::inflate::Inflate;
use super::{Budget, Here, Visit, inside};
use crate::model::pickle::{Loaded, Walked};
use crate::model::verdict::cut;
use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io::Read;

/// Bytes between two entries that may be sizes behind the data.
const BEHIND_DATA: u64 = 24;
/// Most places between entries that are looked at.
const GAPS_MAX: usize = 1000;
/// Bytes of a gap in which a lost entry is sought.
const SEARCH_MAX: usize = 1 << 20;

/// Judges all entries.
pub fn visit(visit: &mut Visit, part: Part<'_>, here: Here<'_>) -> Walked {
    let mut found = Walked { any: false };
    match directory::find(part) {
        Ok(Some(directory)) => {
            if let Some(why) = directory.doubtful {
                visit.unknown(here, directory.end, why);
            }
            let mut zip = Zip::new(part, here);
            found.any = zip.entries(visit, directory);
            found.any |= zip.gaps(visit, directory);
        }
        Ok(None) => {
            visit.unknown(here, 0, "the zip has no directory");
            let zip = Zip::new(part, here);
            found.any = zip.lost(visit, 0, part.size());
        }
        Err(e) => visit.unknown(here, 0, format!("it could not be read: {e}")),
    }
    found
}

struct Zip<'a> {
    part: Part<'a>,
    here: Here<'a>,
    /// Where entries are: begin of the head, end of the data.
    spans: Vec<(u64, u64)>,
    /// Names that were met, by their hashes.
    names: HashSet<u64>,
    hasher: RandomState,
}

impl<'a> Zip<'a> {
    fn new(part: Part<'a>, here: Here<'a>) -> Self {
        Zip { part, here, spans: Vec::new(), names: HashSet::new(), hasher: RandomState::new() }
    }

    /// All that the directory names.
    fn entries(&mut self, visit: &mut Visit, directory: Directory) -> bool {
        let (mut at, mut count, mut any) = (directory.start, 0u64, false);
        while at < directory.end && visit.entry(self.here) {
            match directory::entry(self.part, at) {
                Ok(Some((entry, next))) => {
                    any |= self.entry(visit, &entry, directory.before);
                    at = next;
                }
                Ok(None) => {
                    visit.unknown(self.here, at, "the zip's directory is broken");
                    break;
                }
                Err(e) => {
                    visit.unknown(self.here, at, format!("it could not be read: {e}"));
                    break;
                }
            }
            count = count.saturating_add(1);
        }
        if count != directory.entries {
            visit.unknown(self.here, directory.start, "the zip's directory has not as many entries as it says");
        }
        any
    }

    fn entry(&mut self, visit: &mut Visit, entry: &Entry, before: u64) -> bool {
        let at = before.saturating_add(entry.offset);
        if !self.names.insert(self.hasher.hash_one(known_by(&entry.name))) {
            visit.unknown(self.here, at, format!("two entries have the name {}", shown(&entry.name)));
        }
        if entry.name.contains('\0') || entry.name.is_empty() {
            visit.unknown(self.here, at, format!("an entry has a name that readers cut: {}", shown(&entry.name)));
        }
        let (local, data_at) = match directory::local(self.part, at) {
            Ok(Some(local)) => local,
            Ok(None) => {
                visit.unknown(self.here, at, format!("{} is not where the directory says", shown(&entry.name)));
                return false;
            }
            Err(e) => {
                visit.unknown(self.here, at, format!("it could not be read: {e}"));
                return false;
            }
        };
        self.compare(visit, entry, &local);
        self.spans.push((at, data_at.saturating_add(entry.packed)));
        let mut any = self.content(visit, entry, data_at);
        let otherwise = (local.method, packed(&local, entry)) != (entry.method, entry.packed);
        if otherwise {
            let local = Entry { packed: packed(&local, entry), ..local };
            any |= self.content(visit, &local, data_at);
        }
        any
    }

    /// The two heads of an entry must say the same; one may leave its sizes to those behind the data.
    fn compare(&self, visit: &mut Visit, entry: &Entry, local: &Entry) {
        let name = shown(&entry.name);
        let mut differs = |what: &str, differs: bool| {
            if differs {
                visit.unknown(
                    self.here,
                    local.offset,
                    format!("{name}: its head and the directory differ in the {what}"),
                );
            }
        };
        differs("name", local.name != entry.name);
        differs("method", local.method != entry.method);
        differs("flags", (local.flags ^ entry.flags) & 0b1001 != 0);
        let later = local.flags & 8 != 0;
        let same = |here: u64, there: u64| here == there || (later && here == 0) || (later && here == 0xffff_ffff);
        differs("checksum", !same(local.crc, entry.crc));
        differs("size", !same(local.size, entry.size) || !same(local.packed, entry.packed));
        if (entry.flags | local.flags) & 1 != 0 {
            visit.unknown(self.here, local.offset, format!("{name} says that it is encrypted"));
        }
    }

    /// What an entry holds, taken for plain whatever its flags say.
    fn content(&self, visit: &mut Visit, entry: &Entry, data_at: u64) -> bool {
        let place = inside(self.here.place, &shown(&entry.name));
        let mut here = self.here.inside(&place);
        here.torch = is_data(&entry.name);
        if here.torch {
            here.loaded = Loaded::Surely;
        } else if is_storage(&entry.name) {
            here.loaded = Loaded::Hardly;
        }
        if is_program(&entry.name) {
            visit.unknown(here, 0, "it is program text, which TorchScript runs");
        }
        if is_agent(&entry.name) {
            visit.unknown(here, 0, "it may have pickles as text, which stable-baselines3 loads");
        }
        let data = self.part.part(data_at, entry.packed);
        if data.size() < entry.packed {
            visit.unknown(here, 0, "it goes beyond the end of the zip");
        }
        match entry.method {
            0 => {
                if entry.size != entry.packed {
                    visit.unknown(here, 0, "it is stored, and its two sizes differ");
                }
                let longer = self.part.part(data_at, entry.packed.max(entry.size));
                let any = visit.part(longer, here).any;
                if any {
                    checksum(visit, here, &mut { data }, entry);
                }
                any
            }
            8 => self.deflated(visit, here, data, entry),
            other => {
                visit.unknown(here, 0, format!("it is packed by method {other}, which is not opened here"));
                // A method that lies hides nothing either.
                visit.part(data, here).any
            }
        }
    }

    fn deflated(&self, visit: &mut Visit, here: Here<'_>, data: Part<'_>, entry: &Entry) -> bool {
        let any = visit.stream(&mut Inflate::raw(data), here).any;
        if any {
            checksum(visit, here, &mut Inflate::raw(data), entry);
        }
        any
    }

    /// What stands before, between and behind the entries.
    fn gaps(&mut self, visit: &mut Visit, directory: Directory) -> bool {
        self.spans.sort_unstable();
        let (mut at, mut any) = (0, false);
        let mut gaps = Vec::new();
        let ends = self.spans.iter().copied().chain([(directory.start, directory.end)]);
        for (start, end) in ends {
            if start < at {
                visit.unknown(self.here, start, "entries of the zip overlap");
            } else if start > at && (at == 0 || start.saturating_sub(at) > BEHIND_DATA) && gaps.len() < GAPS_MAX {
                gaps.push((at, start));
            }
            at = at.max(end);
        }
        for (start, end) in gaps {
            any |= self.gap(visit, start, end);
        }
        any |= self.beside(visit, self.part.part(directory.comment, u64::MAX));
        if directory.last < self.part.size() {
            visit.unknown(self.here, directory.last, "bytes follow the end of the zip");
            any |= self.beside(visit, self.part.part(directory.last, u64::MAX));
        } else if directory.last > self.part.size() {
            visit.unknown(self.here, directory.comment, "the end of the zip is missing");
        }
        any
    }

    fn gap(&self, visit: &mut Visit, start: u64, end: u64) -> bool {
        let size = end.saturating_sub(start);
        let what = if start == 0 { "bytes stand before the zip" } else { "bytes stand between entries of the zip" };
        visit.unknown(self.here, start, what);
        let any = self.beside(visit, self.part.part(start, size));
        self.lost(visit, start, end) | any
    }

    fn beside(&self, visit: &mut Visit, part: Part<'_>) -> bool {
        visit.stream(&mut { part }, self.here.inside(self.here.place)).any
    }

    /// Entries that no directory names, by the heads before their data.
    fn lost(&self, visit: &mut Visit, start: u64, end: u64) -> bool {
        const MARK: &[u8] = b"PK\x03\x04";
        let (mut at, mut any) = (start, false);
        while at < end {
            let count = usize::try_from(end.saturating_sub(at)).unwrap_or(SEARCH_MAX).min(SEARCH_MAX);
            let Ok(bytes) = self.part.piece(at, count) else {
                visit.unknown(self.here, at, "it could not be read");
                break;
            };
            for (n, _) in bytes.windows(MARK.len()).enumerate().filter(|(_, window)| *window == MARK) {
                if !visit.entry(self.here) {
                    return any;
                }
                any |= self.lost_entry(visit, at.saturating_add(n as u64));
            }
            // A mark may lie across two pieces.
            let step = bytes.len().saturating_sub(MARK.len() - 1).max(1);
            at = at.saturating_add(step as u64);
        }
        any
    }

    fn lost_entry(&self, visit: &mut Visit, at: u64) -> bool {
        let Ok(Some((local, data_at))) = directory::local(self.part, at) else { return false };
        visit.unknown(self.here, at, format!("{} is not in the zip's directory", shown(&local.name)));
        let without = local.packed == 0 || local.packed == 0xffff_ffff;
        let packed = if without { self.part.size().saturating_sub(data_at) } else { local.packed };
        self.content(visit, &Entry { packed, size: packed.max(local.size), ..local }, data_at)
    }
}

/// The packed size that the head before the data says, where it says one.
fn packed(local: &Entry, entry: &Entry) -> u64 {
    let later = local.flags & 8 != 0 && (local.packed == 0 || local.packed == 0xffff_ffff);
    if later { entry.packed } else { local.packed }
}

/// The name by which PyTorch finds an entry: without regard to case. NumPy's arrays differ by it.
fn known_by(name: &str) -> String {
    let lower = name.to_ascii_lowercase();
    if lower.ends_with(".npy") { name.to_owned() } else { lower }
}

/// PyTorch has its pickle here.
fn is_data(name: &str) -> bool {
    let name = known_by(name);
    name == "data.pkl" || name.ends_with("/data.pkl")
}

/// TorchScript keeps its program below `code/`.
fn is_program(name: &str) -> bool {
    let name = known_by(name);
    name.ends_with(".py") && name.split('/').rev().skip(1).any(|part| part == "code")
}

/// Agents of stable-baselines3 have what is no tensor in JSON of this name: pickles as base64, behind keys that JSON can write
/// in many ways.
fn is_agent(name: &str) -> bool {
    known_by(name) == "data"
}

/// PyTorch has its tensors' bytes below `data/`, by numbers.
fn is_storage(name: &str) -> bool {
    let (folder, file) = name.rsplit_once('/').unwrap_or(("", name));
    (folder == "data" || folder.ends_with("/data")) && !file.is_empty() && file.bytes().all(|b| b.is_ascii_digit())
}

fn shown(name: &str) -> String {
    cut(name, 200)
}

/// Readers differ in what they do when it is wrong; so what was read is no longer certain.
fn checksum(visit: &mut Visit, here: Here<'_>, data: &mut dyn Read, entry: &Entry) {
    let mut data = Budget { inner: data, left: visit.left };
    let mut buffer = vec![0; 64 << 10];
    let (mut crc, mut size) = (!0u32, 0u64);
    loop {
        match data.read(&mut buffer) {
            Ok(0) => break,
            Ok(got) => {
                size = size.saturating_add(got as u64);
                crc = buffer.get(..got).unwrap_or_default().iter().fold(crc, |crc, byte| step(crc, *byte));
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => {
                visit.unknown(here, size, format!("it was not read to its end: {e}"));
                break;
            }
        }
    }
    visit.left = data.left;
    if u64::from(!crc) != entry.crc {
        visit.unknown(here, 0, "its checksum is another");
    }
    if size != entry.size {
        visit.unknown(here, size, "its size is another");
    }
}

/// One byte of CRC-32.
fn step(crc: u32, byte: u8) -> u32 {
    let index = usize::from((crc as u8) ^ byte);
    CRC.get(index).copied().unwrap_or(0) ^ (crc >> 8)
}

const CRC: [u32; 256] = {
    let mut table = [0; 256];
    let mut n = 0;
    while n < 256 {
        let (mut value, mut bit) = (n as u32, 0);
        while bit < 8 {
            value = if value & 1 == 1 { 0xedb8_8320 ^ (value >> 1) } else { value >> 1 };
            bit += 1;
        }
        table[n] = value;
        n += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_usual_one() {
        assert_eq!(!b"123456789".iter().fold(!0u32, |crc, byte| step(crc, *byte)), 0xcbf4_3926);
    }

    #[test]
    fn entries_of_pytorch_are_known_by_their_folders() {
        assert!(is_program("m/code/__torch__.py") && is_program("code/a/b.py") && is_program("m/CODE/__Torch__.PY"));
        assert!(is_data("m/data.pkl") && is_data("DATA.pkl") && is_data("m/Data.PKL") && !is_data("m/mydata.pkl"));
        assert_ne!(known_by("W.npy"), known_by("w.npy"));
        assert!(is_storage("m/data/17") && is_storage("data/0") && !is_storage("m/data/x") && !is_storage("0"));
        assert!(is_agent("data") && !is_agent("m/data") && !is_agent("data/0") && !is_agent("data.pkl"));
        assert!(!is_program("m/data.pkl") && !is_program("code.py") && !is_program("m/code"));
    }
}
