//! Safetensors: `u64 n ‖ n bytes of JSON ‖ data` (docs/format.md, section 4).
//!
//! Nothing is believed that does not fit everything else: the tensors cover the data once, without a gap.

use super::dtype::bits;
use super::read::{ReadAt, whole};
use super::tensors::{DIMENSIONS_MAX, Gathered, Place, Tensor, elements};
use super::{Format, HEADER_BYTES_MAX, Malformed, Model, Stop, TENSORS_MAX};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use std::borrow::Cow;

/// The number in front of the header: its length.
const LENGTH_BYTES: usize = 8;
/// No header is so long that this number's upper bytes are used; text in front of a brace uses them.
const LENGTH_MAX: u64 = 1 << 40;

/// Whether a file begins so: a length, and a brace behind it.
pub(super) fn probe(front: &[u8]) -> bool {
    front
        .split_first_chunk::<LENGTH_BYTES>()
        .is_some_and(|(length, rest)| rest.first() == Some(&b'{') && u64::from_le_bytes(*length) < LENGTH_MAX)
}

fn wrong(at: u64, what: &'static str) -> Stop {
    Stop::Malformed(Malformed { at, what })
}

pub(super) fn read(file: &dyn ReadAt, file_bytes: u64) -> Result<Model, Stop> {
    let length = whole(file, 0, LENGTH_BYTES)?;
    let length = length.first_chunk().map_or(0, |length| u64::from_le_bytes(*length));
    let data = length.saturating_add(LENGTH_BYTES as u64);
    if data > file_bytes {
        return Err(wrong(0, "a header that is longer than the file"));
    }
    let Some(length) = usize::try_from(length).ok().filter(|length| *length <= HEADER_BYTES_MAX) else {
        return Err(wrong(0, "a header that is too long"));
    };
    let header = whole(file, LENGTH_BYTES as u64, length)?;
    let Tensors(mut gathered) = serde_json::from_slice(&header).map_err(|e| refused(&header, &e))?;
    drop(header);
    gathered.names_differ(LENGTH_BYTES as u64)?;
    for tensor in gathered.all_mut() {
        if let Place::Here(begin, end) = &mut tensor.place {
            let moved = begin.checked_add(data).zip(end.checked_add(data));
            (*begin, *end) = moved.ok_or_else(|| wrong(data, "an offset behind the end"))?;
        }
    }
    cover(&gathered, data, file_bytes)?;
    Ok(Model::new(Format::Safetensors, None, (0, data), gathered))
}

/// What the JSON's reader says, and where.
fn refused(header: &[u8], e: &serde_json::Error) -> Stop {
    let line = header.split(|b| *b == b'\n').take(e.line().saturating_sub(1));
    let before: usize = line.map(|line| line.len().saturating_add(1)).sum();
    let at = before.saturating_add(e.column()).saturating_add(LENGTH_BYTES) as u64;
    let known = REASONS.iter().find(|reason| e.to_string().starts_with(**reason));
    wrong(at, known.unwrap_or(&"a header that is not as it should be"))
}

const TOO_MANY: &str = "too many tensors, or too much of them";
const SHAPE: &str = "a shape that does not fit";
const METADATA: &str = "metadata twice";
const REASONS: [&str; 3] = [TOO_MANY, SHAPE, METADATA];

/// No gap, no overlap, up to the end.
fn cover(gathered: &Gathered, data: u64, file_bytes: u64) -> Result<(), Stop> {
    let mut ranges: Vec<(u64, u64)> = gathered.all().iter().filter_map(Tensor::range).collect();
    ranges.sort_unstable();
    let mut at = data;
    for (begin, end) in ranges {
        if begin != at {
            return Err(wrong(at.min(begin), if begin > at { "a gap" } else { "two tensors that overlap" }));
        }
        at = end;
    }
    if at != file_bytes {
        return Err(wrong(at, "tensors that do not end where the file does"));
    }
    Ok(())
}

/// All tensors of a header, in its order; their places counted from the begin of the data.
struct Tensors(Gathered);

impl<'de> Deserialize<'de> for Tensors {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(Names)
    }
}

/// Names and what stands behind them.
struct Names;

impl<'de> Visitor<'de> for Names {
    type Value = Tensors;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("tensors by name")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tensors, A::Error> {
        let (mut gathered, mut metadata) = (Gathered::default(), false);
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                map.next_value::<Texts>()?;
                if std::mem::replace(&mut metadata, true) {
                    return Err(A::Error::custom(METADATA));
                }
                continue;
            }
            let entry: Entry = map.next_value()?;
            let (begin, end) = entry.offsets().ok_or_else(|| A::Error::custom(SHAPE))?;
            let (dtype, Shape(shape)) = (entry.dtype.0, entry.shape);
            let tensor = Tensor { name, dtype, shape: Some(shape), place: Place::Here(begin, end), rows: true };
            if gathered.len() >= TENSORS_MAX || gathered.push(tensor, 0).is_err() {
                return Err(A::Error::custom(TOO_MANY));
            }
        }
        Ok(Tensors(gathered))
    }
}

/// One tensor, as the header has it.
#[derive(serde::Deserialize)]
struct Entry {
    dtype: Dtype,
    shape: Shape,
    data_offsets: (u64, u64),
}

impl Entry {
    /// Where it lies, if its length is that of its shape. The widths of types that are not known here are not
    /// judged.
    fn offsets(&self) -> Option<(u64, u64)> {
        let (begin, end) = self.data_offsets;
        let len = end.checked_sub(begin)?;
        let count = elements(&self.shape.0)?;
        let fits = match bits(&self.dtype.0) {
            Some(bits) => count.checked_mul(bits).is_some_and(|all| all % 8 == 0 && all / 8 == len),
            None => true,
        };
        fits.then_some((begin, end))
    }
}

/// A type's name, which takes no memory of its own where it is a known one.
struct Dtype(Cow<'static, str>);

/// Names that most files have.
pub(super) const KNOWN: [&str; 20] = [
    "F32", "F16", "BF16", "F64", "I64", "I32", "I16", "I8", "U8", "U16", "U32", "U64", "BOOL", "F8_E5M2", "F8_E4M3",
    "F8_E8M0", "F4", "F6_E2M3", "F6_E3M2", "C64",
];
/// Longest name of a type, in bytes.
const DTYPE_BYTES_MAX: usize = 64;

impl<'de> Deserialize<'de> for Dtype {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Dtype;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("the name of a type")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Dtype, E> {
                match KNOWN.iter().find(|known| **known == text) {
                    Some(known) => Ok(Dtype(Cow::Borrowed(known))),
                    None if text.len() <= DTYPE_BYTES_MAX => Ok(Dtype(Cow::Owned(text.to_owned()))),
                    None => Err(E::custom(SHAPE)),
                }
            }
        }
        from.deserialize_str(Text)
    }
}

/// Sizes of dimensions.
struct Shape(Vec<u64>);

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Sizes;
        impl<'de> Visitor<'de> for Sizes {
            type Value = Shape;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("sizes of dimensions")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut sizes: A) -> Result<Shape, A::Error> {
                let mut shape = Vec::new();
                while let Some(size) = sizes.next_element::<u64>()? {
                    if shape.len() >= DIMENSIONS_MAX {
                        return Err(A::Error::custom(SHAPE));
                    }
                    shape.push(size);
                }
                Ok(Shape(shape))
            }
        }
        from.deserialize_seq(Sizes)
    }
}

/// Texts by name, which are checked and not kept.
struct Texts;

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Texts;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("texts by name")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Texts, A::Error> {
                while map.next_entry::<String, String>()?.is_some() {}
                Ok(Texts)
            }
        }
        from.deserialize_map(Pairs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::format::{Found, read as read_any};

    fn front(header: &str) -> Vec<u8> {
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat()
    }

    /// Ranges of the tensors, counted from the begin of the data.
    fn ranges(header: &str, data: usize) -> Option<Vec<(u64, u64)>> {
        let mut file = front(header);
        let begin = file.len() as u64;
        file.resize(file.len() + data, 7);
        match read_any(&file, file.len() as u64).unwrap() {
            Found::Model(model) => {
                assert_eq!((model.format, model.header), (Format::Safetensors, (0, begin)));
                Some(model.sections().iter().map(|(b, e)| (b - begin, e - begin)).collect())
            }
            _ => None,
        }
    }

    /// A tensor of bytes.
    fn bytes(name: &str, begin: u64, end: u64) -> String {
        format!(r#""{name}":{{"dtype":"U8","shape":[{}],"data_offsets":[{begin},{end}]}}"#, end.saturating_sub(begin))
    }

    fn header(tensors: &[(u64, u64)]) -> String {
        let all: Vec<String> = tensors.iter().enumerate().map(|(n, (b, e))| bytes(&n.to_string(), *b, *e)).collect();
        format!("{{{}}}", all.join(","))
    }

    #[test]
    fn tensors_are_found_where_they_lie() {
        assert_eq!(ranges(&header(&[(0, 2000), (2000, 5000)]), 5000), Some(vec![(0, 2000), (2000, 5000)]));
        // In any order of their names, with nothing in some, of any type, behind blanks.
        assert_eq!(
            ranges(&header(&[(2000, 5000), (2000, 2000), (0, 2000), (5000, 5000)]), 5000),
            Some(vec![(0, 2000), (2000, 5000)])
        );
        assert_eq!(
            ranges(r#"{"x":{"dtype":"NEW","shape":[9],"data_offsets":[0,3000]}}   "#, 3000),
            Some(vec![(0, 3000)])
        );
        assert_eq!(ranges(r#"{"__metadata__":{"format":"pt"}}"#, 0), Some(vec![]));
        assert_eq!(ranges("{}", 0), Some(vec![]));
    }

    #[test]
    fn headers_that_do_not_hold_are_not_believed() {
        let deep = "[".repeat(100_000);
        let one = |dtype: &str, shape: &str, offsets: &str| {
            format!(r#"{{"a":{{"dtype":{dtype},"shape":{shape},"data_offsets":{offsets}}}}}"#)
        };
        let refused = [
            ("a gap", header(&[(0, 10), (11, 20)])),
            ("a gap in front", header(&[(1, 20)])),
            ("an overlap", header(&[(0, 11), (10, 20)])),
            ("the same place twice", header(&[(0, 20), (0, 20)])),
            ("behind the end", header(&[(0, 21)])),
            ("before the end", header(&[(0, 19)])),
            ("backwards", one(r#""U8""#, "[0]", "[20,0]")),
            ("an overflow", one(r#""NEW""#, "[1]", "[0,18446744073709551615]")),
            ("a large begin", one(r#""NEW""#, "[1]", "[18446744073709551615,18446744073709551615]")),
            ("a shape that overflows", one(r#""U8""#, "[4294967296,4294967296]", "[0,0]")),
            ("bits that overflow", one(r#""F64""#, "[4611686018427387904]", "[0,0]")),
            ("a shape of another length", one(r#""F32""#, "[4]", "[0,20]")),
            ("half a byte", one(r#""F4""#, "[41]", "[0,20]")),
            ("an offset below zero", one(r#""U8""#, "[20]", "[-20,0]")),
            ("an offset with a point", one(r#""U8""#, "[20]", "[0.0,20]")),
            ("an offset as text", one(r#""U8""#, "[20]", r#"["0",20]"#)),
            ("one offset", one(r#""U8""#, "[20]", "[20]")),
            ("three offsets", one(r#""U8""#, "[20]", "[0,20,20]")),
            ("a type that is no text", one("8", "[20]", "[0,20]")),
            ("a type with a long name", one(&format!("{:?}", "x".repeat(65)), "[20]", "[0,20]")),
            ("a shape that is none", one(r#""U8""#, "20", "[0,20]")),
            ("a shape of many sizes", one(r#""U8""#, &format!("[20{}]", ",1".repeat(64)), "[0,20]")),
            ("no shape", r#"{"a":{"dtype":"U8","data_offsets":[0,20]}}"#.into()),
            ("a field twice", r#"{"a":{"dtype":"U8","dtype":"U8","shape":[20],"data_offsets":[0,20]}}"#.into()),
            ("a name twice", format!("{{{},{}}}", bytes("a", 0, 10), bytes("a", 10, 20))),
            ("a name twice, written otherwise", format!("{{{},{}}}", bytes("a", 0, 10), bytes(r"\u0061", 10, 20))),
            ("metadata twice", format!(r#"{{"__metadata__":{{}},"__metadata__":{{}},{}}}"#, bytes("a", 0, 20))),
            ("metadata that is no text", format!(r#"{{"__metadata__":{{"a":[]}},{}}}"#, bytes("a", 0, 20))),
            ("deep metadata", format!(r#"{{"__metadata__":{deep}"#)),
            ("a deep tensor", format!(r#"{{"a":{{"x":{deep}"#)),
            ("a deep shape", one(r#""U8""#, &deep, "[0,20]")),
            ("a list", "[]".into()),
            ("an end too early", r#"{"a":{"dtype":"U8","#.into()),
            ("more behind the end", format!("{} x", header(&[(0, 20)]))),
            ("two headers", format!("{0}{0}", header(&[(0, 20)]))),
            ("nothing", String::new()),
        ];
        assert!(ranges(&header(&[(0, 20)]), 20).is_some());
        for (what, header) in refused {
            assert_eq!(ranges(&header, 20), None, "{what}");
        }
        let mut broken = front(&header(&[(0, 20)]));
        let name = broken.iter().position(|b| *b == b'0').unwrap();
        broken[name] = 0xff;
        broken.resize(broken.len() + 20, 0);
        let found = read_any(&broken, broken.len() as u64).unwrap();
        assert!(matches!(found, Found::Malformed(Format::Safetensors, Malformed { at, .. }) if at > 8), "{found:?}");
        let many: Vec<(u64, u64)> = (0..=TENSORS_MAX as u64).map(|_| (0, 0)).collect();
        assert_eq!(ranges(&header(&many), 0), None, "too many");
        assert!(ranges(&header(&many[1..]), 0).is_some(), "not too many");
    }

    #[test]
    fn lengths_of_headers_are_bounded() {
        let what = |length: u64, file_bytes| {
            let front = [&length.to_le_bytes()[..], b"{}"].concat();
            match read_any(&front, file_bytes).unwrap() {
                Found::Malformed(_, e) => Some(e.what),
                Found::Model(_) => Some("a model"),
                Found::Other => None,
            }
        };
        for length in [u64::MAX, 1 << 63, 1 << 40] {
            assert_eq!(what(length, u64::MAX), None, "{length}");
        }
        for length in [4 << 30, HEADER_BYTES_MAX as u64 + 1, 100 << 20] {
            assert_eq!(what(length, u64::MAX), Some("a header that is too long"), "{length}");
        }
        assert_eq!(what(HEADER_BYTES_MAX as u64, u64::MAX), Some("the file is shorter than it was"));
        assert_eq!(what(3, 10), Some("a header that is longer than the file"));
        assert_eq!(what(2, 10), Some("a model"));
        // As long as it may be.
        let short = header(&[(0, 20)]);
        assert!(ranges(&(short.clone() + &" ".repeat(HEADER_BYTES_MAX - short.len())), 20).is_some());
        assert!(ranges(&(short.clone() + &" ".repeat(HEADER_BYTES_MAX - short.len() + 1)), 20).is_none());
    }
}
