//! Where pickles hide: a file by itself, in a zip, a tar, gzip or zlib, behind the head of a NumPy file; one in another.
//!
//! What something is, its first bytes say, and never its name. A zip is known by its end as well, as its readers know it,
//! whatever stands before it. What begins like an archive may be a pickle all the same, and is walked as both. What cannot
//! be unpacked here is *unknown*.

mod blob;
mod directory;
mod inflate;
mod npy;
mod tar;
mod zip;

use super::pickle::{self, Loaded, Origin, Walked};
use super::verdict::{Grade, Report};
pub use blob::{At, Part};
use inflate::{Gunzip, Inflate};
use std::io::{self, Read};

/// How deep one may lie in another.
const DEPTH_MAX: u32 = 4;
/// Most bytes that are looked at for one file, beside four times its own: what is unpacked, and what entries share.
const LOOKED_MAX: u64 = 16 << 30;
/// Most bytes that are held, of what was unpacked and must be read at any place.
const SPOOL_MAX: u64 = 32 << 20;
/// Most entries of all archives in one file.
const ENTRIES_MAX: u64 = 200_000;
/// Bytes by which something is known.
const HEAD: usize = 512;

/// Judges one file.
pub fn examine(file: &dyn At) -> Report {
    let left = file.size().saturating_mul(4).saturating_add(LOOKED_MAX);
    let mut visit = Visit { report: Report::default(), left, entries_left: ENTRIES_MAX, spool_left: SPOOL_MAX };
    visit.part(Part::whole(file), Here { place: "", depth: 0, torch: false, loaded: Loaded::Perhaps, raw: false });
    visit.report
}

/// Where a visit is.
#[derive(Clone, Copy)]
struct Here<'a> {
    place: &'a str,
    depth: u32,
    /// It is where PyTorch has its pickle.
    torch: bool,
    loaded: Loaded,
    /// Its bytes were walked as a pickle already, whatever else they are.
    raw: bool,
}

impl<'a> Here<'a> {
    fn inside(self, place: &'a str) -> Here<'a> {
        Here { place, depth: self.depth.saturating_add(1), torch: false, loaded: Loaded::Perhaps, raw: false }
    }

    /// What a head says here: numbers of a tensor may look like many a thing by chance.
    fn kind(self, head: &[u8]) -> Kind {
        match kind(head) {
            Kind::Zlib | Kind::Closed(_) if self.loaded == Loaded::Hardly => Kind::Other,
            Kind::Tar if self.loaded == Loaded::Hardly && !tar::is_ustar(head) => Kind::Other,
            found => found,
        }
    }

    /// Whether what comes out of a stream may be a pickle beside what its head says, and so must be read twice. The other
    /// heads begin with no opcode.
    fn is_both(self, kind: Kind, head: &[u8]) -> bool {
        let zlib = kind == Kind::Zlib && matches!(head.first(), Some(b'(' | b'X' | b'h'));
        !self.raw && kind != Kind::Other && (zlib || self.loaded == Loaded::Surely)
    }

    fn origin(self, loaded: Loaded) -> Origin<'a> {
        Origin { place: self.place, torch: self.torch, loaded }
    }
}

/// What a head says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Zip,
    Tar,
    Gzip,
    Zlib,
    Npy,
    /// It may hold anything, and is not opened.
    Closed(&'static str),
    Other,
}

fn kind(head: &[u8]) -> Kind {
    const CLOSED: &[(&[u8], &str)] = &[
        (b"BZh", "bzip2"),
        (b"\xfd7zXZ\0", "xz"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"\x04\x22\x4d\x18", "lz4"),
        (b"\x02\x21\x4c\x18", "lz4"),
        (b"LZIP", "lzip"),
        (b"7z\xbc\xaf\x27\x1c", "7-Zip"),
        (b"Rar!\x1a\x07", "RAR"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"\x7fELF", "machine code"),
    ];
    match head {
        [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..] => Kind::Zip,
        [0x1f, 0x8b, 8, ..] => Kind::Gzip,
        [0x93, b'N', b'U', b'M', b'P', b'Y', ..] => Kind::Npy,
        // The head of zlib is two bytes that are divisible by 31, of a window up to 32 KiB.
        [method, flags, ..]
            if method & 0x0f == 8
                && method >> 4 <= 7
                && (u16::from(*method) << 8 | u16::from(*flags)).is_multiple_of(31)
                && flags & 0x20 == 0
                && inflate::may_be_zlib(head) =>
        {
            Kind::Zlib
        }
        _ if tar::is_head(head) => Kind::Tar,
        _ if is_lzma(head) => Kind::Closed("lzma"),
        // What zstd and lz4 pass over before their first frame.
        [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Kind::Closed("zstd or lz4"),
        _ if is_zfile(head) => Kind::Closed("joblib's old Z-file"),
        _ => {
            CLOSED.iter().find(|(magic, _)| head.starts_with(magic)).map_or(Kind::Other, |(_, name)| Kind::Closed(name))
        }
    }
}

/// The head of lzma has no mark: properties, the size of a window, the size of what is packed or none. What writers write is
/// taken for one; and of others (every reader takes any) what begins as its coder does, with a byte of zero, a number that is
/// none, and a byte that was not there before.
fn is_lzma(head: &[u8]) -> bool {
    let Some((&properties, Some((window, behind)))) =
        head.split_first().map(|(first, rest)| (first, rest.split_first_chunk()))
    else {
        return false;
    };
    let Some((size, coder)) = behind.split_first_chunk() else { return false };
    let (window, size) = (u32::from_le_bytes(*window), u64::from_le_bytes(*size));
    if properties == 0x5d && window & 0xff == 0 {
        return true;
    }
    let usual = window.is_power_of_two() || (window % 3 == 0 && (window / 3).is_power_of_two()) || window == u32::MAX;
    let coded =
        matches!(coder, [0, first @ 0..=0x7f, rest @ ..] if *first > 0 || rest.iter().take(3).any(|byte| *byte > 0));
    properties < 225 && usual && coded && (size == u64::MAX || (size > 0 && size < 1 << 38))
}

/// joblib's files of old: a mark, and the size of what is packed on 19 places, in hexadecimal digits as Python reads them.
fn is_zfile(head: &[u8]) -> bool {
    let digit = |byte: &u8| byte.is_ascii_hexdigit() || b"xX_+- \t\r\n\x0b\x0c".contains(byte);
    head.starts_with(b"ZF") && head.get(2..21).is_some_and(|size| size.iter().all(digit))
}

struct Visit {
    report: Report,
    /// Bytes that may still be looked at.
    left: u64,
    entries_left: u64,
    /// Bytes that may still be held to be read at any place.
    spool_left: u64,
}

impl Visit {
    fn unknown(&mut self, here: Here<'_>, offset: u64, what: impl Into<String>) {
        self.report.add(Grade::Unknown, here.place, offset, what);
    }

    /// Something that can be read at any place. Tells whether it was, or held, a pickle.
    fn part(&mut self, part: Part<'_>, here: Here<'_>) -> Walked {
        let mut head = [0; HEAD];
        let head = match part.fill_at(&mut head, 0) {
            Ok(got) => head.get(..got).unwrap_or_default(),
            Err(e) => {
                self.unknown(here, 0, format!("it could not be read: {e}"));
                return Walked { any: false };
            }
        };
        let kind = here.kind(head);
        if here.depth > DEPTH_MAX && kind != Kind::Other {
            self.unknown(here, 0, "archives lie too deep in each other");
            return Walked { any: false };
        }
        // A zip begins with the opcode of a persistent id, which plain loaders refuse.
        let both = kind != Kind::Other && (kind != Kind::Zip || here.loaded == Loaded::Surely);
        let any = both && self.raw(part, here).any;
        let found = match kind {
            Kind::Zip => zip::visit(self, part, here),
            Kind::Tar => tar::visit(self, part, here),
            _ => self.stream(&mut { part }, Here { raw: both, ..here }),
        };
        // The end of a tar is often that of a zip in it, which was seen as its entry.
        if !matches!(kind, Kind::Zip | Kind::Tar) && directory::find(part).is_ok_and(|found| found.is_some()) {
            self.unknown(here, 0, "a zip stands at the end of something else");
            if here.depth <= DEPTH_MAX {
                zip::visit(self, part, here);
            }
        }
        Walked { any: any || found.any }
    }

    /// What begins like an archive, walked as a pickle: a loader of pickles asks for no head.
    fn raw(&mut self, part: Part<'_>, here: Here<'_>) -> Walked {
        let mut limited = Budget { inner: part, left: self.left };
        let found = pickle::walk(&mut limited, here.origin(here.loaded), &mut self.report);
        self.left = limited.left;
        found
    }

    /// Something that is read once, from the front, as far as there is leave.
    fn stream(&mut self, input: &mut dyn Read, here: Here<'_>) -> Walked {
        let mut limited = Budget { inner: input, left: self.left };
        let found = self.limited(&mut limited, here);
        // What lay in it took of its own leave, and of this.
        self.left = self.left.min(limited.left);
        if limited.left == 0 {
            self.unknown(here, 0, "it is more than is looked at");
        }
        found
    }

    fn limited(&mut self, input: &mut dyn Read, here: Here<'_>) -> Walked {
        let mut head = [0; HEAD];
        let got = pickle::fill(input, &mut head);
        let head = head.get(..got).unwrap_or_default();
        let kind = here.kind(head);
        if here.depth > DEPTH_MAX && kind != Kind::Other {
            self.unknown(here, 0, "archives lie too deep in each other");
            return Walked { any: false };
        }
        let both = here.is_both(kind, head);
        let mut whole = head.chain(input);
        match kind {
            Kind::Zip | Kind::Tar => self.spooled(&mut whole, here),
            _ if both => self.spooled(&mut whole, here),
            Kind::Npy => npy::visit(self, &mut whole, here),
            Kind::Gzip => match Gunzip::new(&mut whole as &mut dyn Read) {
                Ok(mut inner) => self.unpacked(&mut inner, here, "gzip"),
                Err(e) => {
                    self.unknown(here, 0, format!("gzip: {e}"));
                    Walked { any: false }
                }
            },
            Kind::Zlib => {
                let mut inner = Inflate::zlib(whole);
                let found = self.unpacked(&mut inner, here, "zlib");
                if inner.ended() && inner.goes_on() {
                    self.unknown(here, 0, "bytes follow what is packed");
                }
                found
            }
            Kind::Closed(name) => {
                self.unknown(here, 0, format!("{name} is not opened here"));
                Walked { any: false }
            }
            Kind::Other => pickle::walk(&mut whole, here.origin(here.loaded), &mut self.report),
        }
    }

    fn unpacked(&mut self, inner: &mut dyn Read, here: Here<'_>, name: &str) -> Walked {
        let place = inside(here.place, name);
        self.stream(inner, here.inside(&place))
    }

    /// What must be read at any place, and comes out of a stream: as far as it fits into memory.
    fn spooled(&mut self, input: &mut dyn Read, here: Here<'_>) -> Walked {
        let (mut bytes, most) = (Vec::new(), self.spool_left);
        if let Err(e) = input.take(most.saturating_add(1)).read_to_end(&mut bytes) {
            self.unknown(here, 0, format!("it could not be unpacked: {e}"));
        }
        let Some(left) = most.checked_sub(bytes.len() as u64) else {
            self.unknown(here, 0, "an archive in a packed stream is too large to be opened");
            return Walked { any: false };
        };
        self.spool_left = left;
        let found = self.part(Part::whole(&bytes), here);
        self.spool_left = most;
        found
    }

    /// One more entry; false when there were too many.
    fn entry(&mut self, here: Here<'_>) -> bool {
        self.entries_left = self.entries_left.saturating_sub(1);
        if self.entries_left == 0 {
            self.unknown(here, 0, "there are too many entries");
        }
        self.entries_left > 0
    }
}

/// The place of something in something else.
fn inside(place: &str, name: &str) -> String {
    if place.is_empty() { name.to_owned() } else { format!("{place} > {name}") }
}

/// A reader that ends with an error when too much came out of it.
struct Budget<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Budget<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = out.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if count == 0 && !out.is_empty() {
            return Err(io::Error::other("it is more than is looked at"));
        }
        let got = self.inner.read(out.get_mut(..count).unwrap_or_default())?;
        self.left = self.left.saturating_sub(got as u64);
        Ok(got)
    }
}
