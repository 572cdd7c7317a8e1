//! Strict CBOR: what is decoded must encode to the same bytes again.
//!
//! This refuses every non-canonical form at once: indefinite lengths, long integers, unsorted or
//! repeated keys, unknown keys, trailing bytes (RFC 8949, section 4.2.1).

use super::FormatError;
use minicbor::data::Type;
use minicbor::{Decode, Decoder, Encode};

/// Deepest nesting that is read.
const DEPTH_MAX: usize = 16;

/// Canonical encoding of `value`.
pub fn encode<T: Encode<()>>(value: &T) -> Vec<u8> {
    let mut out = Vec::new();
    // Writing into a Vec cannot fail, and no type of ours refuses to be encoded.
    let done = minicbor::encode(value, &mut out);
    debug_assert!(done.is_ok());
    out
}

/// Decodes the one value that `bytes` hold.
///
/// # Errors
/// [`FormatError::Malformed`] for anything but the canonical encoding of a `T`.
pub fn decode<'b, T: Decode<'b, ()> + Encode<()>>(what: &'static str, bytes: &'b [u8]) -> Result<T, FormatError> {
    check_depth(bytes).map_err(|_| FormatError::Malformed(what, "nesting"))?;
    let value: T = minicbor::decode(bytes).map_err(|_| FormatError::Malformed(what, "CBOR"))?;
    if encode(&value) == bytes { Ok(value) } else { Err(FormatError::Malformed(what, "not canonical")) }
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
        assert!(decode::<Probe>("probe", &[0x81; 10_000]).is_err());
    }
}
