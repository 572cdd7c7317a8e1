//! The header of a new file of safetensors, for tensors out of any container.

use super::dtype::bits;
use super::safetensors::KNOWN;
use super::tensors::{Tensor, elements};
use super::{HEADER_BYTES_MAX, TENSORS_MAX};
use std::fmt::Write as _;

/// The header is filled with blanks up to a multiple of this, so that the widest numbers lie at multiples of their width.
const ALIGNMENT: usize = 8;

/// Bytes that a tensor has in a file of safetensors.
///
/// # Errors
/// Why it cannot stand in one.
pub fn bytes_written(tensor: &Tensor) -> Result<u64, String> {
    let Some(bits) = bits(&tensor.dtype).filter(|_| KNOWN.contains(&&*tensor.dtype)) else {
        return Err(format!("safetensors has no numbers of type {}", tensor.dtype));
    };
    if !tensor.rows {
        return Err("its numbers lie in another order than safetensors has them".into());
    }
    let wanted = tensor.shape.as_deref().and_then(elements).and_then(|count| count.checked_mul(bits));
    match (wanted.filter(|all| all % 8 == 0).map(|all| all / 8), tensor.bytes()) {
        (Some(wanted), Some(there)) if wanted == there => Ok(there),
        (_, None) => Err("its numbers stand nowhere as bytes in a row".into()),
        _ => Err("its length is not that of its shape".into()),
    }
}

/// Bits of a type's numbers: in files of safetensors the widest stand first, so that all are aligned.
pub fn width(dtype: &str) -> u64 {
    bits(dtype).unwrap_or(0)
}

/// The header of a file with these tensors one behind the other in this order, each with so many bytes; the data follow it
/// at once.
///
/// # Errors
/// Why there can be no such file.
pub fn header_of(tensors: &[(&str, &Tensor, u64)]) -> Result<Vec<u8>, &'static str> {
    if tensors.len() > TENSORS_MAX {
        return Err("too many tensors for one file");
    }
    let (mut text, mut at) = (String::from("{"), 0u64);
    for (name, tensor, bytes) in tensors {
        if *name == "__metadata__" {
            return Err("a tensor with a name that safetensors keeps for itself: __metadata__");
        }
        let end = at.checked_add(*bytes).ok_or("more bytes than a file can have")?;
        let name = serde_json::to_string(name).map_err(|_| "a name that cannot be written")?;
        let shape: Vec<String> = tensor.shape.iter().flatten().map(u64::to_string).collect();
        let comma = if at == 0 && text.len() == 1 { "" } else { "," };
        let (dtype, shape) = (&tensor.dtype, shape.join(","));
        // Writing to a text cannot fail.
        let _ =
            write!(text, "{comma}{name}:{{\"dtype\":\"{dtype}\",\"shape\":[{shape}],\"data_offsets\":[{at},{end}]}}");
        if text.len() > HEADER_BYTES_MAX - ALIGNMENT {
            return Err("a header that would be too long");
        }
        at = end;
    }
    text.push('}');
    while !text.len().is_multiple_of(ALIGNMENT) {
        text.push(' ');
    }
    Ok([&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use super::super::tensors::Place;
    use super::super::{Found, read};
    use super::*;
    use std::borrow::Cow;

    fn tensor(name: &str, dtype: &'static str, shape: &[u64], bytes: u64) -> Tensor {
        let place = Place::Here(100, 100 + bytes);
        Tensor { name: name.into(), dtype: Cow::Borrowed(dtype), shape: Some(shape.to_vec()), place, rows: true }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let all = [
            tensor("a \"b\" \\ \u{1b} é", "F32", &[2, 3], 24),
            tensor("none", "BF16", &[0, 7], 0),
            tensor("one", "I8", &[], 1),
        ];
        let listed: Vec<_> = all.iter().map(|t| (t.name.as_str(), t, bytes_written(t).unwrap())).collect();
        let mut file = header_of(&listed).unwrap();
        let data = file.len() as u64;
        assert_eq!(data % 8, 0);
        file.resize(file.len() + 25, 7);
        let Found::Model(model) = read(&file, data + 25).unwrap() else { panic!("not known") };
        for (was, is) in all.iter().zip(&model.tensors) {
            assert_eq!((&was.name, &was.dtype, &was.shape), (&is.name, &is.dtype, &is.shape));
        }
        assert_eq!(model.tensors[2].range(), Some((data + 24, data + 25)));
        let empty = header_of(&[]).unwrap();
        assert!(matches!(read(&empty, empty.len() as u64).unwrap(), Found::Model(model) if model.tensors.is_empty()));
    }

    #[test]
    fn what_safetensors_cannot_hold_is_refused() {
        let refused = |tensor: &Tensor| bytes_written(tensor).unwrap_err();
        assert!(refused(&tensor("a", "Q4_K", &[256], 144)).contains("type Q4_K"));
        assert!(refused(&tensor("a", "F8_E4M3FNUZ", &[8], 8)).contains("type F8_E4M3FNUZ"));
        assert!(refused(&tensor("a", "F32", &[2], 7)).contains("length"));
        assert!(refused(&tensor("a", "F32", &[u64::MAX, 2], 8)).contains("length"));
        assert!(refused(&Tensor { shape: None, ..tensor("a", "F32", &[], 4) }).contains("length"));
        assert!(refused(&Tensor { rows: false, ..tensor("a", "F32", &[1], 4) }).contains("order"));
        assert!(refused(&Tensor { place: Place::Written, ..tensor("a", "F32", &[1], 4) }).contains("nowhere"));
        let metadata = tensor("__metadata__", "F32", &[1], 4);
        assert!(header_of(&[(metadata.name.as_str(), &metadata, 4)]).is_err());
        let long = tensor(&"n".repeat(60_000), "F32", &[1], 4);
        assert!(header_of(&vec![(long.name.as_str(), &long, 4); 150]).is_err());
        assert!(header_of(&[(long.name.as_str(), &long, u64::MAX), ("b", &long, 1)]).is_err());
    }
}
