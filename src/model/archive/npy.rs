//! NumPy's files: arrays of objects are pickles behind a head, and several arrays may stand in a row.

use super::{Here, Visit};
use crate::model::pickle::{self, Loaded, Walked};
use std::io::Read;

/// Longest head.
const HEAD_MAX: u64 = 1 << 20;
/// Most arrays in a row.
const ARRAYS_MAX: usize = 10_000;

/// Judges all arrays of it.
pub fn visit(visit: &mut Visit, input: &mut dyn Read, here: Here<'_>) -> Walked {
    for number in 0..ARRAYS_MAX {
        let mut magic = [0; 8];
        match pickle::fill(input, &mut magic) {
            0 => return Walked { any: false },
            8 if magic.starts_with(b"\x93NUMPY") => {}
            _ => {
                visit.unknown(here, 0, "bytes follow the last array");
                let mut rest = magic.as_slice().chain(input);
                return pickle::walk(&mut rest, here.origin(here.loaded), &mut visit.report);
            }
        }
        let Some(head) = head(input, magic[6]) else {
            visit.unknown(here, 0, format!("the head of array {number} is broken"));
            return Walked { any: false };
        };
        if has_objects(&head) {
            return pickle::walk(input, here.origin(Loaded::Surely), &mut visit.report);
        }
        let Some(size) = data_size(&head) else {
            visit.unknown(here, 0, format!("the size of array {number} is not understood"));
            return pickle::walk(input, here.origin(here.loaded), &mut visit.report);
        };
        let passed = std::io::copy(&mut input.take(size), &mut std::io::sink());
        if passed.unwrap_or(0) != size {
            visit.unknown(here, 0, format!("the data of array {number} is not all there"));
            return Walked { any: false };
        }
    }
    visit.unknown(here, 0, "there are too many arrays in a row");
    Walked { any: false }
}

fn head(input: &mut dyn Read, version: u8) -> Option<String> {
    let mut size = [0; 4];
    let width = if version == 1 { 2 } else { 4 };
    let field = size.get_mut(..width)?;
    (pickle::fill(input, field) == width).then_some(())?;
    let size = u64::from(u32::from_le_bytes(size));
    let mut head = Vec::new();
    input.take(size.min(HEAD_MAX)).read_to_end(&mut head).ok()?;
    (head.len() as u64 == size).then(|| String::from_utf8_lossy(&head).into_owned())
}

/// Texts in quotes, in their order.
fn quoted(head: &str) -> impl Iterator<Item = &str> {
    head.split(['\'', '"']).skip(1).step_by(2)
}

/// Whether a type of the head is one of objects: `O`, `|O`, `<O8`, `f4,O`, however it is nested. What stands between any two
/// quotes is looked at, so that quotes in names shift nothing; escapes may hide anything, and texts that follow each other
/// are one.
fn has_objects(head: &str) -> bool {
    let objects = |part: &str| {
        let part = part.trim_matches(|c: char| c.is_ascii_digit() || "|<>=() \t\n".contains(c));
        part == "O" || part.starts_with("object")
    };
    let joined: String = head.chars().filter(|c| !c.is_whitespace() && !matches!(c, '\'' | '"')).collect();
    head.contains('\\')
        || joined.contains("object")
        || head.split(['\'', '"']).skip(1).any(|text| text.split(',').any(objects))
}

/// Whether a head is written as NumPy writes it: texts in single quotes, each by itself, and nothing beside them that joins,
/// hides or repeats.
fn is_plain(head: &str) -> bool {
    let pieces: Vec<&str> = head.split('\'').collect();
    let between = |n: usize, text: &str| {
        let (first, last) = (n == 0, n.saturating_add(1) == pieces.len());
        let text = text.trim_matches([' ', '\n']);
        let after = first || text.starts_with([',', ':', ')', ']', '}']);
        let before = last || text.ends_with(['{', '(', '[', ',', ':']);
        let known = |c: char| c.is_ascii_alphanumeric() || " \n,:(){}[]".contains(c);
        after && before && text.chars().all(known)
    };
    let once = |key: &str| head.matches(key).count() == 1;
    let texts = pieces.iter().skip(1).step_by(2).all(|text| !text.contains(['"', '\\']));
    !pieces.len().is_multiple_of(2)
        && texts
        && ["'descr'", "'fortran_order'", "'shape'"].into_iter().all(once)
        && pieces.iter().enumerate().step_by(2).all(|(n, text)| between(n, text))
}

/// Bytes of the data: of the shape and a simple type; `None` for types of parts that are nested, and for any head that NumPy
/// does not write.
fn data_size(head: &str) -> Option<u64> {
    let after = |key: &str| head.split_once(key).map(|(_, rest)| rest.trim_start_matches([':', ' ']));
    let descr = after("'descr'").filter(|_| is_plain(head))?;
    let item = if let Some(list) = descr.strip_prefix('[') {
        parts_size(list)?
    } else {
        type_size(descr.strip_prefix('\'')?.split('\'').next()?)?
    };
    let shape = after("'shape'")?.strip_prefix('(')?.split(')').next()?;
    shape
        .split(',')
        .map(str::trim)
        .filter(|text| !text.is_empty())
        .try_fold(item, |sum, text| sum.checked_mul(text.trim_end_matches('L').parse().ok()?))
}

/// The size of a type of parts, `('name', 'type'), …`, where none has a shape of its own.
fn parts_size(list: &str) -> Option<u64> {
    let list = list.split(']').next().filter(|list| !list.contains('[') && list.matches('(').count() > 0)?;
    list.split("), (").try_fold(0u64, |sum, pair| {
        let texts: Vec<&str> = quoted(pair).collect();
        let [_, kind] = texts[..] else { return None };
        sum.checked_add(type_size(kind)?).filter(|_| pair.matches('(').count() <= 1)
    })
}

fn type_size(kind: &str) -> Option<u64> {
    let kind = kind.split('[').next()?.trim_start_matches(['|', '<', '>', '=']);
    let (letter, digits) = (kind.chars().next()?, kind.get(1..)?);
    // A letter by itself is another type than the same with a size.
    let digits: u64 = digits.parse().ok().filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
    match letter {
        'U' => digits.checked_mul(4),
        'b' | 'i' | 'u' | 'f' | 'c' | 'S' | 'V' | 'M' | 'm' => Some(digits),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_found_in_every_type() {
        let head = |descr: &str| format!("{{'descr': {descr}, 'fortran_order': False, 'shape': (3, 2), }}");
        for descr in [
            "'|O'",
            "'O'",
            "'<O8'",
            "[('a', '<f4'), ('b', '|O')]",
            "[('a', [('b', 'O')])]",
            "'\\x4f'",
            "'f4,2O'",
            "[(\"a'\", '<f4'), ('b', 'O')]",
            "'|' 'O'",
            "'o' 'bject'",
            "\"obj\" \n'ect'",
        ] {
            assert!(has_objects(&head(descr)), "{descr}");
        }
        for (descr, size) in [("'<f4'", 24), ("'<U5'", 120), ("'|b1'", 6), ("[('Oa', '<f4'), ('b', '<i2')]", 36)] {
            assert!(!has_objects(&head(descr)), "{descr}");
            assert_eq!(data_size(&head(descr)), Some(size), "{descr}");
        }
        assert_eq!(data_size(&head("[('a', '<f4', (2,))]")), None);
        // Texts that follow each other, what hides them, letters that are other types, and keys that come twice.
        for descr in ["'<f' '4'", "u'<f4'", "'<f4' #'\n", "'f'", "'<f4', 'descr': '<f8'", "'<f4', \"shape\": (9,)"] {
            assert_eq!(data_size(&head(descr)), None, "{descr}");
        }
        assert_eq!(data_size("{'descr': '<f8', 'fortran_order': False, 'shape': (), }"), Some(8));
    }
}
