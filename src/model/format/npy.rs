//! NumPy: single arrays, and zip files of them.

use super::dtype::{bits, numpy, numpy_bytes};
use super::read::{Cursor, PEEK_BYTES, ReadAt};
use super::tensors::{DIMENSIONS_MAX, Gathered, Place, Tensor, elements};
use super::{Format, Malformed, Model, Stop, zip};
use std::borrow::Cow;

pub(super) const MAGIC: &[u8] = b"\x93NUMPY";
/// How the entries of a zip file of arrays end.
pub(super) const ENTRY_SUFFIX: &str = ".npy";
/// Longest header, in bytes. NumPy itself refuses longer ones than 10,000 unless it is told to trust the file.
const HEADER_BYTES_MAX: u64 = 64 << 10;
/// How deep the description of a type may go.
const DEPTH_MAX: usize = 32;
/// Longest name of a type that is kept, in bytes.
const DTYPE_BYTES_MAX: usize = 64;

pub(super) fn read(file: &dyn ReadAt, file_bytes: u64) -> Result<Model, Stop> {
    let mut cursor = Cursor::new(file, file_bytes, PEEK_BYTES);
    let (array, version) = array(&mut cursor, (0, file_bytes), String::new())?;
    let data = array.range().map_or(file_bytes, |(begin, _)| begin);
    let mut gathered = Gathered::default();
    gathered.push(array, 0)?;
    Ok(Model::new(Format::Npy, Some(u64::from(version)), (0, data), gathered))
}

pub(super) fn read_zip(file: &dyn ReadAt, file_bytes: u64) -> Result<Model, Stop> {
    let mut gathered = Gathered::default();
    let entries = zip::entries(file, file_bytes, &mut gathered, |name| name.ends_with(ENTRY_SUFFIX))?;
    let mut cursor = Cursor::new(file, file_bytes, PEEK_BYTES);
    let mut packed = 0;
    for entry in entries.all {
        let Some(name) = entry.name.strip_suffix(ENTRY_SUFFIX) else { continue };
        let Some((begin, end)) = entry.stored else {
            packed += 1;
            continue;
        };
        let (array, _) = array(&mut cursor, (begin, end), name.to_owned())?;
        gathered.push(array, begin)?;
    }
    let mut model = Model::new(Format::Npz, None, entries.list, gathered);
    model.packed = packed;
    Ok(model)
}

/// The array between two places, and the version of its format.
fn array(cursor: &mut Cursor<'_>, (begin, end): (u64, u64), name: String) -> Result<(Tensor, u8), Stop> {
    cursor.seek(begin);
    if cursor.take(MAGIC.len())? != MAGIC {
        return Err(cursor.wrong("an array that is none"));
    }
    let (version, _) = (cursor.u8()?, cursor.u8()?);
    let len = match version {
        1 => u64::from(cursor.u16()?),
        2 | 3 => u64::from(cursor.u32()?),
        _ => return Err(cursor.wrong("a version that is not known")),
    };
    let at = cursor.pos();
    if len > HEADER_BYTES_MAX || at.checked_add(len).is_none_or(|data| data > end) {
        return Err(cursor.wrong("a header that is too long"));
    }
    let bytes = cursor.take(usize::try_from(len).unwrap_or(0))?;
    let what = "a header that is not as it should be";
    let header = Header::parse(bytes).ok_or(Stop::Malformed(Malformed { at, what }))?;
    let data = cursor.pos();
    let what = "a shape that does not fit";
    let tensor = header.tensor(name, data, end).ok_or(Stop::Malformed(Malformed { at, what }))?;
    Ok((tensor, version))
}

/// What stands in front of an array: a dictionary as Python writes it.
struct Header {
    descr: String,
    /// Whether it lies column by column.
    columns: bool,
    shape: Vec<u64>,
}

impl Header {
    fn parse(bytes: &[u8]) -> Option<Header> {
        let mut words = Words { rest: bytes };
        let (mut descr, mut order, mut shape) = (None, None, None);
        words.sign(b'{')?;
        while !words.is(b'}') {
            let key = words.quoted()?;
            words.sign(b':')?;
            let fresh = match key {
                b"descr" => descr.replace(words.descr()?).is_none(),
                b"fortran_order" => order.replace(words.truth()?).is_none(),
                b"shape" => shape.replace(words.shape()?).is_none(),
                _ => return None,
            };
            if !fresh || !(words.is(b',') || words.rest.trim_ascii_start().first() == Some(&b'}')) {
                return None;
            }
        }
        let (descr, columns, shape) = (descr?, order?, shape?);
        words.rest.trim_ascii().is_empty().then_some(Header { descr, columns, shape })
    }

    /// The array whose data lie so. What is pickled or put together of several types goes up to the end.
    fn tensor(self, name: String, data: u64, end: u64) -> Option<Tensor> {
        let Header { descr, columns, shape } = self;
        let known = numpy(&descr);
        let width = known.and_then(bits).map(|bits| bits / 8).or_else(|| numpy_bytes(&descr));
        let count = elements(&shape)?;
        let place = match width {
            Some(width) => {
                let behind = data.checked_add(count.checked_mul(width)?)?;
                // Several arrays may have been written into one file.
                if behind > end {
                    return None;
                }
                Place::Here(data, behind)
            }
            None => Place::Here(data, end),
        };
        // Of one dimension, columns are rows; a type that is not known may have its bytes the other way round.
        let rows = known.is_some() && !(columns && shape.len() > 1);
        let dtype = known.map_or(Cow::Owned(descr), Cow::Borrowed);
        Some(Tensor { name, dtype, shape: Some(shape), place, rows })
    }
}

/// Words of a literal.
struct Words<'b> {
    rest: &'b [u8],
}

impl<'b> Words<'b> {
    /// Takes this sign if it is the next one.
    fn is(&mut self, sign: u8) -> bool {
        let rest = self.rest.trim_ascii_start();
        let next = rest.split_first().filter(|(first, _)| **first == sign);
        if let Some((_, behind)) = next {
            self.rest = behind;
        }
        next.is_some()
    }

    fn sign(&mut self, sign: u8) -> Option<()> {
        self.is(sign).then_some(())
    }

    /// A text in quotes, without anything that needs a backslash.
    fn quoted(&mut self) -> Option<&'b [u8]> {
        let rest = self.rest.trim_ascii_start();
        let (quote, rest) = rest.split_first().filter(|(quote, _)| matches!(quote, b'\'' | b'"'))?;
        let len = rest.iter().position(|b| b == quote)?;
        let (text, behind) = rest.split_at_checked(len)?;
        self.rest = behind.get(1..)?;
        (!text.contains(&b'\\')).then_some(text)
    }

    fn truth(&mut self) -> Option<bool> {
        let rest = self.rest.trim_ascii_start();
        let (value, behind) = match (rest.strip_prefix(b"True"), rest.strip_prefix(b"False")) {
            (Some(behind), _) => (true, behind),
            (_, Some(behind)) => (false, behind),
            _ => return None,
        };
        self.rest = behind;
        Some(value)
    }

    /// A number; Python 2 wrote an L behind some.
    fn number(&mut self) -> Option<u64> {
        let rest = self.rest.trim_ascii_start();
        let len = rest.iter().take_while(|b| b.is_ascii_digit()).count();
        let (digits, behind) = rest.split_at_checked(len)?;
        self.rest = behind.strip_prefix(b"L").unwrap_or(behind);
        std::str::from_utf8(digits).ok()?.parse().ok()
    }

    fn shape(&mut self) -> Option<Vec<u64>> {
        let mut shape = Vec::new();
        self.sign(b'(')?;
        while !self.is(b')') {
            if shape.len() >= DIMENSIONS_MAX {
                return None;
            }
            shape.push(self.number()?);
            if !self.is(b',') {
                self.sign(b')')?;
                break;
            }
        }
        Some(shape)
    }

    /// A type: a text, or a list of fields, of which only the beginning is kept.
    fn descr(&mut self) -> Option<String> {
        let rest = self.rest.trim_ascii_start();
        if rest.first() != Some(&b'[') {
            let text = std::str::from_utf8(self.quoted()?).ok()?;
            return (text.len() <= DTYPE_BYTES_MAX).then(|| text.to_owned());
        }
        self.rest = rest;
        self.nested()?;
        Some("structure".to_owned())
    }

    /// Passes over a list with everything in it.
    fn nested(&mut self) -> Option<()> {
        let mut open = Vec::new();
        loop {
            let rest = self.rest.trim_ascii_start();
            let (first, behind) = rest.split_first()?;
            match first {
                b'\'' | b'"' => {
                    self.quoted()?;
                    continue;
                }
                b'[' | b'(' if open.len() < DEPTH_MAX => open.push(*first),
                b']' | b')' => {
                    let begin = if *first == b']' { b'[' } else { b'(' };
                    open.pop().filter(|open| *open == begin)?;
                }
                b',' => {}
                b if b.is_ascii_digit() => {}
                _ => return None,
            }
            self.rest = behind;
            if open.is_empty() {
                return Some(());
            }
        }
    }
}
