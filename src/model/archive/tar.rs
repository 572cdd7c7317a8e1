//! Tar, in which PyTorch kept its checkpoints long ago, and others do today.

use super::blob::Part;
use super::{Here, Visit, inside};
use crate::model::pickle::Walked;
use crate::model::verdict::cut;

const BLOCK: usize = 512;

/// Bytes of a record of more words that are looked at.
const PAX_MAX: usize = 64 << 10;

/// Whether such a record says a size or holes, by which readers go then, or may do so behind what is looked at.
fn resizes(text: &[u8], size: u64) -> bool {
    let says = |what: &[u8]| text.windows(what.len()).any(|window| window == what);
    size > PAX_MAX as u64 || says(b" size=") || says(b"GNU.sparse")
}

/// Whether this is the head of a tar's entry: its checksum is right, or it has the mark of one.
pub fn is_head(block: &[u8]) -> bool {
    block.len() >= BLOCK && (is_ustar(block) || is_right(block))
}

/// Whether a head has the mark.
pub fn is_ustar(block: &[u8]) -> bool {
    block.get(257..262) == Some(&b"ustar"[..])
}

/// Whether the checksum of a head is right: of bytes, or of bytes with a sign, as some have written it.
fn is_right(block: &[u8]) -> bool {
    let said = block.get(148..156).and_then(number);
    let bytes = || block.iter().take(BLOCK).enumerate();
    let blank = |n: usize, byte: u8| if (148..156).contains(&n) { b' ' } else { byte };
    let plain: i128 = bytes().map(|(n, byte)| i128::from(blank(n, *byte))).sum();
    let signed: i128 = bytes().map(|(n, byte)| i128::from(blank(n, *byte).cast_signed())).sum();
    said.is_some_and(|said| said == plain || said == signed)
}

/// Judges all entries.
pub fn visit(visit: &mut Visit, part: Part<'_>, here: Here<'_>) -> Walked {
    let (mut at, mut found) = (0, Walked { any: false });
    while at < part.size() && visit.entry(here) {
        let Ok(block) = part.piece(at, BLOCK) else {
            visit.unknown(here, at, "it could not be read");
            break;
        };
        if !is_head(&block) {
            found.any |= behind(visit, part, at, here);
            break;
        }
        let data_at = at.saturating_add(BLOCK as u64);
        let size = block.get(124..136).and_then(number).and_then(|size| u64::try_from(size).ok());
        let Some(size) = size.filter(|size| *size <= part.size().saturating_sub(data_at)) else {
            visit.unknown(here, at, "an entry of the tar goes beyond its end");
            found.any |= visit.part(part.part(data_at, u64::MAX), here.inside(here.place)).any;
            break;
        };
        let data = part.part(data_at, size);
        if let Some(why) = doubt(&block, data) {
            visit.unknown(here, at, why);
        }
        let place = inside(here.place, &cut(&String::from_utf8_lossy(name(&block)), 200));
        found.any |= visit.part(data, here.inside(&place)).any;
        let blocks = size.div_ceil(BLOCK as u64);
        at = data_at.saturating_add(blocks.saturating_mul(BLOCK as u64));
    }
    found
}

fn name(block: &[u8]) -> &[u8] {
    block.get(..100).unwrap_or_default().split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Why readers may see other bytes than those that the head tells.
fn doubt(block: &[u8], data: Part<'_>) -> Option<&'static str> {
    let kind = block.get(156).copied().unwrap_or(0);
    let folder = kind == 0 && name(block).ends_with(b"/");
    let more = || data.piece(0, PAX_MAX).is_ok_and(|text| resizes(&text, data.size()));
    match kind {
        _ if !is_right(block) => Some("the checksum of an entry of the tar is wrong"),
        b'1'..=b'6' if data.size() > 0 => Some("an entry of the tar is no file and has data"),
        0 if folder && data.size() > 0 => Some("an entry of the tar is no file and has data"),
        b'x' | b'g' if more() => Some("the tar says another size of what follows than its head"),
        0 | b'0'..=b'7' | b'x' | b'g' | b'L' | b'K' => None,
        _ => Some("an entry of the tar is of a kind that is not known here"),
    }
}

/// A tar ends with zeros; what stands behind its first empty block may be another one.
fn behind(visit: &mut Visit, part: Part<'_>, at: u64, here: Here<'_>) -> bool {
    let mut from = at;
    loop {
        match part.piece(from, 64 << 10) {
            Ok(bytes) if bytes.is_empty() => return false,
            Ok(bytes) => {
                if let Some(first) = bytes.iter().position(|byte| *byte != 0) {
                    from = from.saturating_add(first as u64);
                    break;
                }
                from = from.saturating_add(bytes.len() as u64);
            }
            Err(e) => {
                visit.unknown(here, from, format!("it could not be read: {e}"));
                return false;
            }
        }
    }
    visit.unknown(here, from, "bytes follow the end of the tar");
    visit.part(part.part(from, u64::MAX), here.inside(here.place)).any
}

/// A number as Python reads it: binary where its first byte says so, else in octal digits.
fn number(field: &[u8]) -> Option<i128> {
    let Some((first, rest)) = field.split_first().filter(|(first, _)| matches!(**first, 0x80 | 0xff)) else {
        return octal(field);
    };
    // Fields have at most twelve bytes.
    let value = rest.iter().try_fold(0i128, |sum, byte| Some(sum.checked_mul(256)? | i128::from(*byte)))?;
    if *first == 0x80 { Some(value) } else { value.checked_sub(256i128.checked_pow(u32::try_from(rest.len()).ok()?)?) }
}

/// Digits up to the first zero, with what Python's `int` allows: blanks around, a sign, `0o`, underscores.
fn octal(field: &[u8]) -> Option<i128> {
    let text = std::str::from_utf8(field.split(|byte| *byte == 0).next()?).ok()?;
    let text = text.trim_matches(|c: char| c == ' ' || ('\t'..='\r').contains(&c) || ('\x1c'..='\x1f').contains(&c));
    let (negative, digits) =
        text.strip_prefix('-').map_or((false, text.strip_prefix('+').unwrap_or(text)), |t| (true, t));
    let digits = digits.strip_prefix("0o").or(digits.strip_prefix("0O")).unwrap_or(digits);
    let value = digits
        .chars()
        .filter(|c| *c != '_')
        .try_fold(0i128, |sum, c| sum.checked_mul(8)?.checked_add(i128::from(c.to_digit(8)?)))?;
    Some(if negative { value.saturating_neg() } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_python() {
        for (field, value) in [
            (&b"0000017\0"[..], 15),
            (b"17\0junk\xff", 15),
            (b" \t17 \0", 15),
            (b"0o1_7 \0", 15),
            (b"\0\0\0", 0),
            (b"   ", 0),
            (b"-7", -7),
            (b"\x80\0\x01\x02", 258),
            (b"\xff\xff\xff\xfe", -2),
        ] {
            assert_eq!(number(field), Some(value), "{field:?}");
        }
        for field in [&b"18\0"[..], b"1 7", b"x", b"\xe9\0"] {
            assert_eq!(number(field), None, "{field:?}");
        }
    }
}
