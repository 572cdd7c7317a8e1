//! Strict CBOR: what is decoded must encode to the same bytes again.
//!
//! This refuses every non-canonical form at once: indefinite lengths, long integers, unsorted or
//! repeated keys, unknown keys, trailing bytes (RFC 8949, section 4.2.1).

use super::FormatError;
use minicbor::data::Type;
use minicbor::{Decode, Decoder, Encode};

/// Deepest nesting that is read in long input.
const DEPTH_MAX: usize = 16;
/// Input up to this may be nested as it likes, in bytes.
const NESTED_BYTES_MAX: usize = 512 << 10;

/// Canonical encoding of `value`.
pub fn encode<T: Encode<()>>(value: &T) -> Vec<u8> {
    let mut out = Vec::new();
    encode_into(value, &mut out);
    out
}

/// The same, behind what is there.
pub fn encode_into<T: Encode<()>>(value: &T, out: &mut Vec<u8>) {
    // Writing into a Vec cannot fail, and no type of ours refuses to be encoded.
    let done = minicbor::encode(value, out);
    debug_assert!(done.is_ok());
}

/// Takes what is written only as long as it is what is expected.
struct Expected<'b>(&'b [u8]);

impl minicbor::encode::Write for Expected<'_> {
    type Error = ();

    fn write_all(&mut self, bytes: &[u8]) -> Result<(), ()> {
        self.0 = self.0.strip_prefix(bytes).ok_or(())?;
        Ok(())
    }
}

fn encodes_to<T: Encode<()>>(value: &T, bytes: &[u8]) -> bool {
    let mut expected = Expected(bytes);
    minicbor::encode(value, &mut expected).is_ok() && expected.0.is_empty()
}

/// Decodes the one value that `bytes` hold.
///
/// # Errors
/// [`FormatError::Malformed`] for anything but the canonical encoding of a `T`.
pub fn decode<'b, T: Decode<'b, ()> + Encode<()>>(what: &'static str, bytes: &'b [u8]) -> Result<T, FormatError> {
    // No type of ours contains itself, and what is not known is skipped without recursion: nesting costs memory, some
    // bytes for each level. Short input cannot cost much; pages of trees are read by the thousand.
    if bytes.len() > NESTED_BYTES_MAX {
        check_depth(bytes).map_err(|_| FormatError::Malformed(what, "nesting"))?;
    }
    let value: T = minicbor::decode(bytes).map_err(|_| FormatError::Malformed(what, "CBOR"))?;
    if encodes_to(&value, bytes) { Ok(value) } else { Err(FormatError::Malformed(what, "not canonical")) }
}

/// Walks the items without recursion; counts of containers are bounded by the bytes that are there.
fn check_depth(bytes: &[u8]) -> Result<(), minicbor::decode::Error> {
    let refuse = |why| Err(minicbor::decode::Error::message(why));
    let mut d = Decoder::new(bytes);
    let mut open: Vec<u64> = vec![1];
    while let Some(left) = open.last_mut() {
        if *left == 0 {
            open.pop();
            continue;
        }
        *left -= 1;
        let items = match d.datatype()? {
            Type::Array => d.array()?,
            Type::Map => d.map()?.map(|n| n.saturating_mul(2)),
            Type::ArrayIndef | Type::MapIndef | Type::BytesIndef | Type::StringIndef | Type::Tag => {
                return refuse("not definite");
            }
            _ => {
                d.skip()?;
                continue;
            }
        };
        open.push(items.unwrap_or(0));
        if open.len() > DEPTH_MAX + 1 {
            return refuse("too deep");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Encode, Decode)]
    #[cbor(map)]
    struct Probe {
        #[n(0)]
        a: u32,
        #[n(2)]
        b: Option<u32>,
    }

    #[test]
    fn only_the_canonical_form_is_read() {
        let good = encode(&Probe { a: 1, b: None });
        assert_eq!(good, [0xa1, 0, 1]);
        assert_eq!(decode::<Probe>("probe", &good).unwrap(), Probe { a: 1, b: None });
        let bad: [&[u8]; 8] = [
            &[0xa1, 0, 0x18, 1],    // long integer
            &[0xbf, 0, 1, 0xff],    // indefinite
            &[0xa1, 0, 1, 0],       // trailing
            &[0xa2, 0, 1, 0, 1],    // key twice
            &[0xa2, 2, 1, 0, 1],    // unsorted
            &[0xa2, 0, 1, 9, 1],    // unknown key
            &[0xa2, 0, 1, 2, 0xf6], // null for absent
            &[0x9f, 0x9f],
        ];
        for bytes in bad {
            assert!(decode::<Probe>("probe", bytes).is_err(), "{bytes:x?}");
        }
        for (deep, length) in
            [0x81, 0x9f, 0xa1, 0xbf, 0xc1].into_iter().flat_map(|deep| [(deep, 100_000), (deep, 1_000_000)])
        {
            assert!(decode::<Probe>("probe", &vec![deep; length]).is_err());
            let unknown = [&[0xa2, 0, 1, 9][..], &vec![deep; length]].concat();
            assert!(decode::<Probe>("probe", &unknown).is_err());
        }
    }
}
