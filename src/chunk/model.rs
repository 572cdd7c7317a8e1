//! Files of tensors (safetensors), known by their header and cut where their tensors begin (docs/format.md, section 4).
//!
//! A tensor that stands in another file, or at another place of the same, makes the same chunks again. The
//! header is hostile input: nothing is believed that does not fit everything else, and what is not believed is cut
//! like any other file. Whatever the layout says, every byte of the file belongs to exactly one chunk.

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use std::collections::HashSet;

/// The number in front of the header: its length.
const LENGTH_BYTES: usize = 8;
/// What tells a candidate from other files: that number, and the brace behind it.
pub const PROBE_BYTES: usize = LENGTH_BYTES + 1;
/// Longest header that is looked at, in bytes: some 80,000 tensors.
pub const HEADER_BYTES_MAX: usize = 8 << 20;
/// Most tensors.
const TENSORS_MAX: usize = 1 << 17;
/// Largest chunk of a tensor, in bytes; a multiple of every width of a number. A little less than 1 MiB: about as many
/// chunks as other files of that length have; what is made of one stays in a processor's cache while it is named,
/// coded and sealed; and packs of pieces that do not shrink do not all end just behind a step of their sizes.
const PIECE_BYTES: u64 = (1 << 20) - (16 << 10);
/// Tensors below this share chunks with neighbours of their kind: what a chunk costs is no small part of them, in bytes.
const SMALL_BYTES: u64 = 1 << 10;
/// How long such a chunk may become, in bytes.
const SHARED_BYTES_MAX: u64 = 64 << 10;

/// Where a file of tensors is cut.
#[derive(Debug, PartialEq, Eq)]
pub struct Layout {
    /// Where sections begin, increasing from 0; the last is the end of the file.
    bounds: Vec<u64>,
}

impl Layout {
    /// How many bytes of a file must be read to know, told by its first [`PROBE_BYTES`]; `None`: it is no file of
    /// tensors.
    pub fn probe(front: &[u8], file_bytes: u64) -> Option<usize> {
        let (length, rest) = front.split_first_chunk::<LENGTH_BYTES>()?;
        let header = usize::try_from(u64::from_le_bytes(*length)).ok().filter(|len| *len <= HEADER_BYTES_MAX)?;
        let all = header + LENGTH_BYTES;
        (rest.first() == Some(&b'{') && all as u64 <= file_bytes).then_some(all)
    }

    /// The layout of a file whose front, as long as [`Layout::probe`] said, is this. `None`: its header is not valid,
    /// or does not fit the file.
    pub fn parse(front: &[u8], file_bytes: u64) -> Option<Layout> {
        let all = Layout::probe(front, file_bytes)?;
        let header = front.get(LENGTH_BYTES..all)?;
        let Tensors(mut tensors) = serde_json::from_slice(header).ok()?;
        let data = all as u64;
        tensors.sort_unstable();
        let mut layout = Layout { bounds: vec![0] };
        let (mut at, mut shared) = (data, None);
        for (begin, end) in tensors {
            let (begin, end) = (data.checked_add(begin)?, data.checked_add(end)?);
            // No gap, no overlap, no tensor of less than nothing.
            if begin != at || end < begin {
                return None;
            }
            if begin < end {
                layout.add(begin, end, &mut shared);
            }
            at = end;
        }
        if at != file_bytes {
            return None;
        }
        layout.bounds.push(at);
        // A header alone.
        layout.bounds.dedup();
        Some(layout)
    }

    /// Begins a section for a tensor, unless it is small and goes with the one before. `shared` is where a section
    /// of small ones began.
    fn add(&mut self, begin: u64, end: u64, shared: &mut Option<u64>) {
        let small = end - begin < SMALL_BYTES;
        if small && shared.is_some_and(|from| end - from <= SHARED_BYTES_MAX) {
            return;
        }
        self.bounds.push(begin);
        *shared = small.then_some(begin);
    }

    /// Length of the chunk at `position`, of which and of what follows it `available` bytes are at hand; `None` if
    /// more are needed. `at_end`: there are no more.
    pub fn next(&self, position: u64, available: usize, at_end: bool) -> Option<usize> {
        if available == 0 {
            return None;
        }
        let after = self.bounds.partition_point(|bound| *bound <= position);
        let begin = after.checked_sub(1).and_then(|ix| self.bounds.get(ix)).copied().unwrap_or(0);
        // Counted from the tensor's begin also where a hole ended within it.
        let piece = PIECE_BYTES - (position - begin) % PIECE_BYTES;
        let len = self.bounds.get(after).map_or(piece, |end| piece.min(end - position));
        match usize::try_from(len) {
            Ok(len) if len <= available => Some(len),
            _ => at_end.then_some(available),
        }
    }

    /// How much to read at `position`: one chunk or several small ones, so that none is read in part and then again,
    /// and what was read is still in the processor's cache when it is stored.
    pub fn ahead(&self, position: u64) -> usize {
        let (most, mut len) = (PIECE_BYTES as usize, 0);
        while let Some(next) = self.next(position.saturating_add(len as u64), most - len, false) {
            len += next;
        }
        len
    }
}

/// Offsets of all tensors of a header, in its order.
struct Tensors(Vec<(u64, u64)>);

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
        let (mut names, mut tensors) = (HashSet::new(), Vec::new());
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                map.next_value::<Texts>()?;
            } else {
                let tensor: Tensor = map.next_value()?;
                tensors.push(tensor.offsets().ok_or_else(|| A::Error::custom("a shape that does not fit"))?);
            }
            if tensors.len() > TENSORS_MAX || !names.insert(name) {
                return Err(A::Error::custom("too many tensors, or two of one name"));
            }
        }
        Ok(Tensors(tensors))
    }
}

/// One tensor, as the header has it.
#[derive(serde::Deserialize)]
struct Tensor {
    dtype: String,
    shape: Elements,
    data_offsets: (u64, u64),
}

impl Tensor {
    /// Where it lies, if its length is that of its shape. The widths of types that are not known here are not
    /// judged.
    fn offsets(&self) -> Option<(u64, u64)> {
        let (begin, end) = self.data_offsets;
        let len = end.checked_sub(begin)?;
        let fits = match bits(&self.dtype) {
            Some(bits) => self.shape.0.checked_mul(bits).is_some_and(|all| all % 8 == 0 && all / 8 == len),
            None => true,
        };
        fits.then_some((begin, end))
    }
}

/// Bits of a number.
fn bits(dtype: &str) -> Option<u64> {
    Some(match dtype {
        "F4" => 4,
        "F6_E2M3" | "F6_E3M2" => 6,
        "BOOL" | "U8" | "I8" | "F8_E5M2" | "F8_E4M3" | "F8_E8M0" | "F8_E4M3FNUZ" | "F8_E5M2FNUZ" => 8,
        "I16" | "U16" | "F16" | "BF16" => 16,
        "I32" | "U32" | "F32" => 32,
        "I64" | "U64" | "F64" | "C64" => 64,
        _ => return None,
    })
}

/// How many numbers a shape has.
struct Elements(u64);

impl<'de> Deserialize<'de> for Elements {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Sizes;
        impl<'de> Visitor<'de> for Sizes {
            type Value = Elements;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("sizes of dimensions")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut sizes: A) -> Result<Elements, A::Error> {
                let mut product = 1u64;
                while let Some(size) = sizes.next_element::<u64>()? {
                    product = product.checked_mul(size).ok_or_else(|| A::Error::custom("a shape that is too large"))?;
                }
                Ok(Elements(product))
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

    fn front(header: &str) -> Vec<u8> {
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat()
    }

    fn bounds(header: &str, data: u64) -> Option<Vec<u64>> {
        let front = front(header);
        let size = front.len() as u64 + data;
        assert_eq!(Layout::probe(&front[..PROBE_BYTES.min(front.len())], size), Layout::probe(&front, size));
        Layout::parse(&front, size)
            .map(|layout| layout.bounds.iter().map(|b| b.saturating_sub(8 + header.len() as u64)).collect())
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
    fn sections_begin_where_tensors_do() {
        assert_eq!(bounds(&header(&[(0, 2000), (2000, 5000)]), 5000), Some(vec![0, 0, 2000, 5000]));
        // In any order of their names, with nothing in some, of any type, behind blanks.
        assert_eq!(
            bounds(&header(&[(2000, 5000), (2000, 2000), (0, 2000), (5000, 5000)]), 5000),
            Some(vec![0, 0, 2000, 5000])
        );
        assert_eq!(
            bounds(r#"{"x":{"dtype":"NEW","shape":[9],"data_offsets":[0,3000]}}   "#, 3000),
            Some(vec![0, 0, 3000])
        );
        assert_eq!(bounds(r#"{"__metadata__":{"format":"pt"}}"#, 0), Some(vec![0, 0]));
        assert_eq!(bounds("{}", 0), Some(vec![0, 0]));
        // Small ones share a section, which is not too long either.
        let small: Vec<(u64, u64)> = (0..100).map(|n| (n * 1000, n * 1000 + 1000)).collect();
        assert_eq!(bounds(&header(&small), 100_000), Some(vec![0, 0, 65_000, 100_000]));
        assert_eq!(
            bounds(&header(&[(0, 10), (10, 20), (20, 2020), (2020, 2030)]), 2030),
            Some(vec![0, 0, 20, 2020, 2030])
        );
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
            ("a shape that is none", one(r#""U8""#, "20", "[0,20]")),
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
        assert!(bounds(&header(&[(0, 20)]), 20).is_some());
        for (what, header) in refused {
            assert_eq!(bounds(&header, 20), None, "{what}");
        }
        let mut broken = front(&header(&[(0, 20)]));
        let name = broken.iter().position(|b| *b == b'0').unwrap();
        broken[name] = 0xff;
        assert_eq!(Layout::parse(&broken, broken.len() as u64 + 20), None, "a name that is no text");
        let many: Vec<(u64, u64)> = (0..=TENSORS_MAX as u64).map(|_| (0, 0)).collect();
        assert_eq!(bounds(&header(&many), 0), None, "too many");
        assert!(bounds(&header(&many[1..]), 0).is_some(), "not too many");
    }

    #[test]
    fn lengths_of_headers_are_bounded() {
        let lengths = [u64::MAX, 1 << 63, 4 << 30, HEADER_BYTES_MAX as u64 + 1, 100 << 20];
        for length in lengths {
            let front = [&length.to_le_bytes()[..], b"{}"].concat();
            assert_eq!(Layout::probe(&front, u64::MAX), None, "{length}");
        }
        let probe = |length: u64, size| Layout::probe(&[&length.to_le_bytes()[..], b"{"].concat(), size);
        assert_eq!(probe(HEADER_BYTES_MAX as u64, u64::MAX), Some(HEADER_BYTES_MAX + 8));
        assert_eq!((probe(2, 9), probe(2, 10)), (None, Some(10)));
        assert_eq!(Layout::probe(&[2, 0, 0, 0, 0, 0, 0, 0], 10), None);
        assert_eq!(Layout::probe(&[2, 0, 0, 0, 0, 0, 0, 0, b'['], 10), None);
        // As long as it may be, and read shorter than it was.
        let short = header(&[(0, 20)]);
        let mut whole = front(&(short.clone() + &" ".repeat(HEADER_BYTES_MAX - short.len())));
        let size = whole.len() as u64 + 20;
        assert!(Layout::parse(&whole, size).is_some());
        whole.pop();
        assert_eq!(Layout::parse(&whole, size), None);
    }

    #[test]
    fn tensors_are_cut_into_pieces_that_add_up() {
        const P: u64 = PIECE_BYTES;
        assert_eq!(P, 1_032_192);
        let end = 3 * P + 507;
        let layout = Layout { bounds: vec![0, 100, 100 + P * 5 / 2, end - 7, end] };
        let cut = |available: u64| {
            let (mut at, mut lens) = (0, Vec::new());
            while at < end {
                let there = available.min(end - at);
                let len = layout.next(at, there as usize, at + there == end).unwrap() as u64;
                lens.push(len);
                at += len;
            }
            lens
        };
        assert_eq!(cut(P), [100, P, P, P / 2, P / 2 + 400, 7]);
        assert_eq!(cut(9 * P), cut(P));
        let next = |at: u64, available: u64, at_end: bool| layout.next(at, available as usize, at_end);
        assert_eq!(next(100, P, false), Some(P as usize));
        assert_eq!(next(100, P - 1, false), None);
        assert_eq!(next(100, 5, true), Some(5));
        assert_eq!(next(100, 0, true), None);
        // Behind a hole, and behind what the layout knows of.
        assert_eq!(next(100 + P / 4, 9 * P, false), Some(P as usize / 4 * 3));
        assert_eq!(next(end, 9 * P, false), Some(P as usize));
        // Whole chunks are read.
        let ahead = [0, 100, 100 + 2 * P, 100 + P * 5 / 2, end].map(|at| layout.ahead(at) as u64);
        assert_eq!(ahead, [100, P, P / 2, P / 2 + 407, P]);
    }
}
