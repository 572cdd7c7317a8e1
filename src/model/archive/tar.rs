//! Tar, in which PyTorch kept its checkpoints long ago, and others do today.

use super::blob::Part;
use super::{Here, Visit, inside};
use crate::model::pickle::Walked;
use crate::model::verdict::cut;

const BLOCK: usize = 512;

/// Bytes of a record of more words that are looked at.
const PAX_MAX: usize = 64 << 10;

/// Whether such a record says a size, by which readers go then, or may do so behind what is looked at.
fn sizes(text: &[u8], size: u64) -> bool {
    size > PAX_MAX as u64 || text.windows(6).any(|window| window == b" size=")
}

/// Whether this is the head of a tar's entry: its checksum is right.
pub fn is_head(block: &[u8]) -> bool {
    let Some(field) = block.get(148..156).filter(|_| block.len() >= BLOCK && block.first() != Some(&0)) else {
        return false;
    };
    let sum = |skip: bool| -> u64 {
        let blank = |n: usize, byte: u8| if skip && (148..156).contains(&n) { b' ' } else { byte };
        block.iter().take(BLOCK).enumerate().map(|(n, byte)| u64::from(blank(n, *byte))).sum()
    };
    octal(field) == Some(sum(true))
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
        let size = size(block.get(124..136).unwrap_or_default());
        let data_at = at.saturating_add(BLOCK as u64);
        let Some(size) = size.filter(|size| *size <= part.size().saturating_sub(data_at)) else {
            visit.unknown(here, at, "an entry of the tar goes beyond its end");
            found.any |= visit.stream(&mut part.part(data_at, u64::MAX), here.inside(here.place)).any;
            break;
        };
        if matches!(block.get(156), Some(b'x' | b'g'))
            && part.piece(data_at, PAX_MAX).is_ok_and(|text| sizes(&text, size))
        {
            visit.unknown(here, at, "the tar says another size of what follows than its head");
        }
        let name = block.get(..100).unwrap_or_default();
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        let place = inside(here.place, &cut(&String::from_utf8_lossy(name), 200));
        found.any |= visit.part(part.part(data_at, size), here.inside(&place)).any;
        let blocks = size.div_ceil(BLOCK as u64);
        at = data_at.saturating_add(blocks.saturating_mul(BLOCK as u64));
    }
    found
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

fn size(field: &[u8]) -> Option<u64> {
    // Sizes that have no room in octal digits are binary.
    if field.first() == Some(&0x80) {
        let high = field.get(1..4)?.iter().all(|byte| *byte == 0);
        return field.get(4..12).and_then(|b| b.try_into().ok()).map(u64::from_be_bytes).filter(|_| high);
    }
    octal(field)
}

fn octal(field: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(field).ok()?.trim_matches(|c| c == ' ' || c == '\0');
    if text.is_empty() { Some(0) } else { u64::from_str_radix(text, 8).ok() }
}
