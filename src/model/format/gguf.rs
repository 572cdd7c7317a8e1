//! GGUF, versions 1 to 3, in either order of bytes.

use super::dtype::ggml;
use super::read::{Cursor, ReadAt, WALK_BYTES};
use super::tensors::{Gathered, NAME_BYTES_MAX, Place, Tensor, elements};
use super::{Format, Malformed, Model, Stop, TENSORS_MAX};
use std::borrow::Cow;

pub(super) const MAGIC: &[u8] = b"GGUF";
const VERSION_MAX: u32 = 3;
/// Most pairs of a key and a value.
const PAIRS_MAX: u64 = 1 << 16;
/// Most values of all lists that have to be walked one by one: texts, and lists in lists.
const WALKED_MAX: u64 = 1 << 24;
/// How deep lists may lie in lists.
const DEPTH_MAX: u32 = 4;
/// Most dimensions: GGML has four.
const DIMENSIONS_MAX: u32 = 8;
/// Where tensors begin unless a header says otherwise: at multiples of this.
const ALIGNMENT: u64 = 32;
const ALIGNMENT_MAX: u64 = 1 << 30;
/// Lists from this length on are likely to be those of other files: parts of a vocabulary.
const PART_BYTES_MIN: u64 = 64 << 10;

/// Types of values that are written out here.
const TYPE_U32: u32 = 4;
const TYPE_TEXT: u32 = 8;
const TYPE_LIST: u32 = 9;

pub(super) fn read(file: &dyn ReadAt, file_bytes: u64) -> Result<Model, Stop> {
    let mut header = Header::open(file, file_bytes)?;
    let tensors = header.count()?;
    let pairs = header.count()?;
    if tensors > TENSORS_MAX as u64 || pairs > PAIRS_MAX {
        return Err(header.cursor.wrong("too many tensors or values"));
    }
    header.pairs(pairs)?;
    let mut places = Vec::new();
    for _ in 0..tensors {
        let place = header.tensor()?;
        places.push(place);
    }
    let end = header.cursor.pos();
    let data = align(end, header.alignment).filter(|data| *data <= file_bytes || tensors == 0);
    let Some(data) = data else { return Err(header.cursor.wrong("data behind the end")) };
    let mut gathered = header.gathered;
    settle(&mut gathered, &places, data, file_bytes)?;
    gathered.names_differ(end)?;
    gathered.places_differ()?;
    let mut model = Model::new(Format::Gguf, Some(u64::from(header.version)), (0, end), gathered);
    model.parts = header.parts;
    Ok(model)
}

fn align(at: u64, alignment: u64) -> Option<u64> {
    at.checked_next_multiple_of(alignment)
}

/// Where a tensor lies: its offset, and its length where its type is known.
type Lies = (u64, Option<u64>);

/// Sets the places of all tensors. One whose type is not known ends where the next one begins.
fn settle(gathered: &mut Gathered, places: &[Lies], data: u64, file_bytes: u64) -> Result<(), Stop> {
    let mut begins: Vec<u64> = places.iter().map(|(offset, _)| *offset).collect();
    begins.sort_unstable();
    for (tensor, (offset, len)) in gathered.all_mut().iter_mut().zip(places) {
        let wrong = |what| Stop::Malformed(Malformed { at: data.saturating_add(*offset), what });
        let begin = data.checked_add(*offset).filter(|begin| *begin <= file_bytes);
        let begin = begin.ok_or_else(|| wrong("an offset behind the end"))?;
        let end = match len {
            Some(len) => begin.checked_add(*len),
            None => {
                let next = begins.get(begins.partition_point(|other| other <= offset));
                next.map_or(Some(file_bytes), |next| data.checked_add(*next))
            }
        };
        let end = end.filter(|end| *end <= file_bytes).ok_or_else(|| wrong("a tensor behind the end"))?;
        tensor.place = Place::Here(begin, end);
    }
    Ok(())
}

struct Header<'f> {
    cursor: Cursor<'f>,
    version: u32,
    big_endian: bool,
    alignment: u64,
    walked: u64,
    gathered: Gathered,
    parts: Vec<(u64, u64)>,
}

impl<'f> Header<'f> {
    fn open(file: &'f dyn ReadAt, file_bytes: u64) -> Result<Header<'f>, Stop> {
        let mut cursor = Cursor::new(file, file_bytes, WALK_BYTES);
        cursor.skip(MAGIC.len() as u64)?;
        let version = cursor.u32()?;
        // A small number has its bytes at one end.
        let big_endian = version > VERSION_MAX && version.swap_bytes() <= VERSION_MAX;
        let version = if big_endian { version.swap_bytes() } else { version };
        if version == 0 || version > VERSION_MAX {
            return Err(cursor.wrong("a version that is not known"));
        }
        let (alignment, gathered) = (ALIGNMENT, Gathered::default());
        Ok(Header { cursor, version, big_endian, alignment, walked: 0, gathered, parts: Vec::new() })
    }

    fn u32(&mut self) -> Result<u32, Stop> {
        let value = self.cursor.u32()?;
        Ok(if self.big_endian { value.swap_bytes() } else { value })
    }

    fn u64(&mut self) -> Result<u64, Stop> {
        let value = self.cursor.u64()?;
        Ok(if self.big_endian { value.swap_bytes() } else { value })
    }

    /// A count or a length: of 32 bits in the first version.
    fn count(&mut self) -> Result<u64, Stop> {
        if self.version == 1 { self.u32().map(u64::from) } else { self.u64() }
    }

    fn text(&mut self) -> Result<String, Stop> {
        let len = self.count()?;
        self.cursor.text(len, NAME_BYTES_MAX)
    }

    fn pairs(&mut self, pairs: u64) -> Result<(), Stop> {
        let mut keys = Vec::new();
        for _ in 0..pairs {
            let key = self.text()?;
            self.gathered.weigh(key.len().saturating_add(4 * size_of::<String>()), self.cursor.pos())?;
            let kind = self.u32()?;
            if key == "general.alignment" {
                self.set_alignment(kind)?;
            } else {
                self.value(kind, 0)?;
            }
            keys.push(key);
        }
        keys.sort_unstable();
        if keys.windows(2).any(|pair| matches!(pair, [a, b] if a == b)) {
            return Err(self.cursor.wrong("two values of one key"));
        }
        Ok(())
    }

    fn set_alignment(&mut self, kind: u32) -> Result<(), Stop> {
        if kind != TYPE_U32 {
            return Err(self.cursor.wrong("an alignment that is no number"));
        }
        self.alignment = u64::from(self.u32()?);
        if !self.alignment.is_power_of_two() || self.alignment > ALIGNMENT_MAX {
            return Err(self.cursor.wrong("an alignment that is none"));
        }
        Ok(())
    }

    /// Passes over a value.
    fn value(&mut self, kind: u32, depth: u32) -> Result<(), Stop> {
        if let Some(bytes) = fixed_bytes(kind) {
            return self.cursor.skip(bytes);
        }
        match kind {
            TYPE_TEXT => {
                let len = self.count()?;
                self.cursor.skip(len)
            }
            TYPE_LIST if depth < DEPTH_MAX => self.list(depth),
            TYPE_LIST => Err(self.cursor.wrong("lists that lie too deep")),
            _ => Err(self.cursor.wrong("a type of value that is not known")),
        }
    }

    fn list(&mut self, depth: u32) -> Result<(), Stop> {
        let (kind, count) = (self.u32()?, self.count()?);
        let begin = self.cursor.pos();
        if let Some(bytes) = fixed_bytes(kind) {
            let all = count.checked_mul(bytes).ok_or_else(|| self.cursor.wrong("a list that is too long"))?;
            self.cursor.skip(all)?;
        } else {
            self.walked = self.walked.saturating_add(count);
            if self.walked > WALKED_MAX {
                return Err(self.cursor.wrong("lists that are too long"));
            }
            for _ in 0..count {
                self.value(kind, depth + 1)?;
            }
        }
        let end = self.cursor.pos();
        if depth == 0 && end.saturating_sub(begin) >= PART_BYTES_MIN {
            self.parts.push((begin, end));
        }
        Ok(())
    }

    /// One tensor, whose place is set when all are known.
    fn tensor(&mut self) -> Result<Lies, Stop> {
        let name = self.text()?;
        let dimensions = self.u32()?;
        if dimensions > DIMENSIONS_MAX {
            return Err(self.cursor.wrong("too many dimensions"));
        }
        let mut shape = Vec::with_capacity(dimensions as usize);
        for _ in 0..dimensions {
            let size = self.count()?;
            shape.push(size);
        }
        let kind = self.u32()?;
        let offset = self.u64()?;
        if offset % self.alignment != 0 {
            return Err(self.cursor.wrong("an offset that is not aligned"));
        }
        let count = elements(&shape).ok_or_else(|| self.cursor.wrong("a shape that does not fit"))?;
        let (dtype, len) = match ggml(kind) {
            Some((name, block, bytes)) => {
                let row = shape.first().copied().unwrap_or(1);
                let len = count.checked_div(block).and_then(|blocks| blocks.checked_mul(bytes));
                let len = len.filter(|_| row % block == 0);
                let len = len.ok_or_else(|| self.cursor.wrong("a shape that does not fit"))?;
                (Cow::Borrowed(name), Some(len))
            }
            None => (Cow::Owned(format!("ggml type {kind}")), None),
        };
        // The innermost stands first here, and last elsewhere.
        shape.reverse();
        let at = self.cursor.pos();
        let rows = !self.big_endian;
        self.gathered.push(Tensor { name, dtype, shape: Some(shape), place: Place::Written, rows }, at)?;
        Ok((offset, len))
    }
}

/// Length of a value that is always as long.
fn fixed_bytes(kind: u32) -> Option<u64> {
    Some(match kind {
        0 | 1 | 7 => 1,
        2 | 3 => 2,
        4..=6 => 4,
        10..=12 => 8,
        _ => return None,
    })
}
