//! ONNX: initializers of the graph, of graphs within it, and constants, in the file or in files beside it.

use super::dtype::{bits, onnx};
use super::protobuf::{Fields, Value};
use super::read::{Cursor, ReadAt, WALK_BYTES};
use super::tensors::{Beside, DIMENSIONS_MAX, Gathered, NAME_BYTES_MAX, Place, Tensor, elements};
use super::{Format, Model, Stop};
use std::borrow::Cow;

/// How deep graphs may lie in graphs.
const DEPTH_MAX: u32 = 8;
/// Tags that stand behind the version in files that programs write: producer, its version, domain, version of the model, a text,
/// the graph, sets of operators.
const SECOND_TAGS: [u8; 7] = [0x12, 0x1a, 0x22, 0x28, 0x32, 0x3a, 0x42];
const VERSION_TAG: u8 = 0x08;
const VERSION_MAX: u8 = 64;
/// Longest text beside names, in bytes.
const TEXT_BYTES_MAX: usize = 4 << 10;

/// Whether a file begins so. A format without a magic number: what is asked for here one file in a hundred thousand has by
/// chance, and is then looked at more closely.
pub(super) fn probe(front: &[u8]) -> bool {
    matches!(front, [VERSION_TAG, 1..=VERSION_MAX, tag, ..] if SECOND_TAGS.contains(tag))
}

/// A model has few fields in front of its graph; what has more begins alike, and is something else.
const FIELDS_BEFORE_MAX: usize = 4096;

pub(super) fn read(file: &dyn ReadAt, file_bytes: u64) -> Result<Model, Stop> {
    let mut found = Found {
        fields: Fields::new(Cursor::new(file, file_bytes, WALK_BYTES)),
        gathered: Gathered::default(),
        unnamed: 0,
        graphs: 0,
        prefix: String::new(),
    };
    let (mut version, mut graph) = (None, None);
    let mut fields = 0;
    loop {
        fields += 1;
        if graph.is_none() && fields > FIELDS_BEFORE_MAX {
            return Err(Stop::Other);
        }
        match found.fields.next(file_bytes) {
            Ok(None) => break,
            Ok(Some((1, Value::Number(number)))) => version = Some(number),
            Ok(Some((7, Value::Bytes(begin, end)))) if graph.is_none() => graph = Some((begin, end)),
            Ok(Some((7, _))) => return Err(found.fields.cursor.wrong("two graphs")),
            Ok(Some(_)) => {}
            // As long as there is no graph it is something else that begins alike.
            Err(Stop::Malformed(_)) if graph.is_none() => return Err(Stop::Other),
            Err(e) => return Err(e),
        }
    }
    let Some((begin, end)) = graph else { return Err(Stop::Other) };
    found.graph(begin, end, 0)?;
    found.gathered.names_differ(begin)?;
    Ok(Model::new(Format::Onnx, version, (0, begin), found.gathered))
}

struct Found<'f> {
    fields: Fields<'f>,
    gathered: Gathered,
    /// Tensors so far that have no name.
    unnamed: u64,
    /// Graphs within the graph, so far.
    graphs: u64,
    /// In front of the names of the graph that is read: graphs beside each other may use the same.
    prefix: String,
}

impl Found<'_> {
    fn graph(&mut self, begin: u64, end: u64, depth: u32) -> Result<(), Stop> {
        if depth > DEPTH_MAX {
            return Err(self.fields.cursor.wrong("graphs that lie too deep"));
        }
        self.each(begin, end, |found, number, begin, end| match number {
            1 => found.node(begin, end, depth),
            5 => found.tensor(begin, end, String::new()),
            _ => Ok(()),
        })
    }

    /// A graph within a graph.
    fn inner(&mut self, begin: u64, end: u64, depth: u32) -> Result<(), Stop> {
        self.graphs += 1;
        let prefix = std::mem::replace(&mut self.prefix, format!("graph.{}.", self.graphs));
        let done = self.graph(begin, end, depth);
        self.prefix = prefix;
        done
    }

    /// Hands on all fields of a message that are bytes, and goes behind it.
    fn each(
        &mut self,
        begin: u64,
        end: u64,
        mut take: impl FnMut(&mut Self, u64, u64, u64) -> Result<(), Stop>,
    ) -> Result<(), Stop> {
        self.fields.cursor.seek(begin);
        while let Some((number, value)) = self.fields.next(end)? {
            let behind = self.fields.cursor.pos();
            if let Value::Bytes(begin, end) = value {
                take(self, number, begin, end)?;
            }
            self.fields.cursor.seek(behind);
        }
        Ok(())
    }

    /// Constants and graphs of a node.
    fn node(&mut self, begin: u64, end: u64, depth: u32) -> Result<(), Stop> {
        let (mut output, mut attributes) = ((0, 0), false);
        self.each(begin, end, |_, number, begin, end| {
            match number {
                2 => output = (begin, end),
                5 => attributes = true,
                _ => {}
            }
            Ok(())
        })?;
        if !attributes {
            return Ok(());
        }
        self.each(begin, end, |found, number, begin, end| {
            if number != 5 {
                return Ok(());
            }
            found.each(begin, end, |found, number, begin, end| match number {
                5 => {
                    // A constant has no name of its own but that of what the node gives.
                    let name = found.text(output, NAME_BYTES_MAX)?;
                    found.tensor(begin, end, name)
                }
                6 | 11 => found.inner(begin, end, depth + 1),
                _ => Ok(()),
            })
        })
    }

    fn text(&mut self, (begin, end): (u64, u64), most: usize) -> Result<String, Stop> {
        self.fields.cursor.seek(begin);
        self.fields.cursor.text(end.saturating_sub(begin), most)
    }

    fn tensor(&mut self, begin: u64, end: u64, name: String) -> Result<(), Stop> {
        let mut parts = Parts { name, ..Parts::default() };
        self.fields.cursor.seek(begin);
        while let Some((number, value)) = self.fields.next(end)? {
            let behind = self.fields.cursor.pos();
            match (number, value) {
                (1, Value::Number(size)) => parts.size(size, self)?,
                (1, Value::Bytes(begin, end)) => {
                    self.fields.cursor.seek(begin);
                    while self.fields.cursor.pos() < end {
                        let size = self.fields.varint()?;
                        parts.size(size, self)?;
                    }
                }
                (2, Value::Number(dtype)) => parts.dtype = dtype,
                (14, Value::Number(location)) => parts.outside = location == 1,
                (8, Value::Bytes(begin, end)) if end > begin => parts.name = self.text((begin, end), NAME_BYTES_MAX)?,
                // Raw data, or numbers that are written one behind the other just like it.
                (4 | 9 | 10, Value::Bytes(begin, end)) if end > begin => match parts.data.replace((begin, end)) {
                    None => {}
                    Some(_) => return Err(self.fields.cursor.wrong("a tensor that has its data twice")),
                },
                (13, Value::Bytes(begin, end)) => self.outside(begin, end, &mut parts)?,
                _ => {}
            }
            self.fields.cursor.seek(behind);
        }
        let tensor = self.judged(parts)?;
        let at = self.fields.cursor.pos();
        self.gathered.push(tensor, at)
    }

    /// One of the pairs that say where data outside lie.
    fn outside(&mut self, begin: u64, end: u64, parts: &mut Parts) -> Result<(), Stop> {
        let (mut key, mut value) = ((0, 0), (0, 0));
        self.each(begin, end, |_, number, begin, end| {
            match number {
                1 => key = (begin, end),
                2 => value = (begin, end),
                _ => {}
            }
            Ok(())
        })?;
        let key = self.text(key, TEXT_BYTES_MAX)?;
        let value = self.text(value, TEXT_BYTES_MAX)?;
        let number = |found: &Self| value.parse().map_err(|_| found.fields.cursor.wrong("an offset that is no number"));
        match key.as_str() {
            "offset" => parts.offset = number(self)?,
            "length" => parts.bytes = Some(number(self)?),
            "location" => parts.file = value,
            _ => {}
        }
        Ok(())
    }

    /// A tensor whose data are as long as its shape says, if both are known.
    fn judged(&mut self, parts: Parts) -> Result<Tensor, Stop> {
        let wrong = |found: &Self| found.fields.cursor.wrong("a shape that does not fit");
        let dtype = onnx(parts.dtype);
        let count = elements(&parts.shape).ok_or_else(|| wrong(self))?;
        let bytes = match dtype.and_then(bits) {
            Some(bits) => Some(count.checked_mul(bits).ok_or_else(|| wrong(self))? / 8),
            None => None,
        };
        let place = match parts.data {
            _ if parts.outside => {
                let bytes = parts.bytes.or(bytes);
                Place::Beside(Box::new(Beside { file: parts.file, offset: parts.offset, bytes }))
            }
            Some((begin, end)) if bytes.is_none_or(|bytes| bytes == end.saturating_sub(begin)) => {
                Place::Here(begin, end)
            }
            // Half-precision numbers and such, each written as a number of its own.
            Some(_) => return Err(wrong(self)),
            None => Place::Written,
        };
        let name = if parts.name.is_empty() {
            self.unnamed += 1;
            format!("unnamed.{}", self.unnamed)
        } else {
            format!("{}{}", self.prefix, parts.name)
        };
        let dtype = dtype.map_or_else(|| Cow::Owned(format!("onnx type {}", parts.dtype)), Cow::Borrowed);
        Ok(Tensor { name, dtype, shape: Some(parts.shape), place, rows: true })
    }
}

/// A tensor as far as it was read.
#[derive(Default)]
struct Parts {
    name: String,
    dtype: u64,
    shape: Vec<u64>,
    data: Option<(u64, u64)>,
    outside: bool,
    file: String,
    offset: u64,
    bytes: Option<u64>,
}

impl Parts {
    fn size(&mut self, size: u64, found: &Found<'_>) -> Result<(), Stop> {
        if self.shape.len() >= DIMENSIONS_MAX {
            return Err(found.fields.cursor.wrong("too many dimensions"));
        }
        self.shape.push(size);
        Ok(())
    }
}
