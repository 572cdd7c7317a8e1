//! The opcodes of protocols 0 to 5, by their bytes, and the escapes in the texts of protocol 0.

/// Newest protocol.
pub const PROTOCOL_MAX: u8 = 5;

macro_rules! opcodes {
    ($($name:ident = $byte:expr),* $(,)?) => {
        $(#[allow(missing_docs)] pub const $name: u8 = $byte;)*
    };
}

opcodes! {
    MARK = b'(', STOP = b'.', POP = b'0', POP_MARK = b'1', DUP = b'2', FLOAT = b'F', INT = b'I', BININT = b'J',
    BININT1 = b'K', LONG = b'L', BININT2 = b'M', NONE = b'N', PERSID = b'P', BINPERSID = b'Q', REDUCE = b'R',
    STRING = b'S', BINSTRING = b'T', SHORT_BINSTRING = b'U', UNICODE = b'V', BINUNICODE = b'X', APPEND = b'a',
    BUILD = b'b', GLOBAL = b'c', DICT = b'd', EMPTY_DICT = b'}', APPENDS = b'e', GET = b'g', BINGET = b'h',
    INST = b'i', LONG_BINGET = b'j', LIST = b'l', EMPTY_LIST = b']', OBJ = b'o', PUT = b'p', BINPUT = b'q',
    LONG_BINPUT = b'r', SETITEM = b's', TUPLE = b't', EMPTY_TUPLE = b')', SETITEMS = b'u', BINFLOAT = b'G',
    BINBYTES = b'B', SHORT_BINBYTES = b'C', PROTO = 0x80, NEWOBJ = 0x81, EXT1 = 0x82, EXT2 = 0x83, EXT4 = 0x84,
    TUPLE1 = 0x85, TUPLE2 = 0x86, TUPLE3 = 0x87, NEWTRUE = 0x88, NEWFALSE = 0x89, LONG1 = 0x8a, LONG4 = 0x8b,
    SHORT_BINUNICODE = 0x8c, BINUNICODE8 = 0x8d, BINBYTES8 = 0x8e, EMPTY_SET = 0x8f, ADDITEMS = 0x90,
    FROZENSET = 0x91, NEWOBJ_EX = 0x92, STACK_GLOBAL = 0x93, MEMOIZE = 0x94, FRAME = 0x95, BYTEARRAY8 = 0x96,
    NEXT_BUFFER = 0x97, READONLY_BUFFER = 0x98,
}

/// A small number on a line, by its byte: from -128 to 255. A leading zero makes it octal to some readers, so that it is none;
/// but for `00` and `01`, which are truths.
pub fn flags(line: &[u8]) -> Option<u8> {
    let text = std::str::from_utf8(line).ok()?;
    let text = text.strip_suffix('L').unwrap_or(text);
    let digits = text.strip_prefix('-').unwrap_or(text);
    let is_plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    if !is_plain || (digits.len() > 1 && digits.starts_with('0') && !matches!(text, "00" | "01")) {
        return None;
    }
    let value: i32 = text.parse().ok()?;
    i8::try_from(value).map(i8::cast_unsigned).or_else(|_| u8::try_from(value)).ok()
}

/// A number on a line as Python's `int` takes it: blanks around, a sign, single underscores. `None` for what it refuses, and
/// for numbers below zero; `Some(None)` for those that have no room here.
pub fn number(line: &[u8]) -> Option<Option<u64>> {
    let text = std::str::from_utf8(line).ok()?.trim_matches([' ', '\t', '\r', '\n', '\x0b', '\x0c']);
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, text.get(1..)?),
        b'+' => (false, text.get(1..)?),
        _ => (false, text),
    };
    let parts = || digits.split('_');
    if parts().any(|part| part.is_empty() || !part.bytes().all(|b| b.is_ascii_digit())) {
        return None;
    }
    let whole: String = parts().collect();
    let significant = whole.trim_start_matches('0');
    let value = if significant.is_empty() { Some(0) } else { significant.parse().ok() };
    if negative && value != Some(0) { None } else { Some(value) }
}

/// The text of a line of STRING (`quoted`) or UNICODE. `None` for what cannot be text; then it can be no name either.
pub fn unescape(line: &[u8], quoted: bool) -> Option<String> {
    let text = String::from_utf8_lossy(line);
    let mut text = text.as_ref();
    if quoted {
        text = text.trim();
        let quote = text.chars().next().filter(|c| *c == '\'' || *c == '"')?;
        text = text.strip_prefix(quote)?.strip_suffix(quote)?;
    }
    let (mut out, mut rest) = (String::new(), text.chars());
    while let Some(c) = rest.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        let kind = rest.next()?;
        match kind {
            'u' if !quoted => out.push(escaped(&mut rest, 4, 16)?),
            'U' if !quoted => out.push(escaped(&mut rest, 8, 16)?),
            _ if !quoted => out.extend(['\\', kind]),
            'x' => out.push(escaped(&mut rest, 2, 16)?),
            '0'..='7' => out.push(octal(kind, &mut rest)?),
            'n' => out.push('\n'),
            't' => out.push('\t'),
            'r' => out.push('\r'),
            '\\' | '\'' | '"' => out.push(kind),
            _ => out.extend(['\\', kind]),
        }
    }
    Some(out)
}

fn escaped(rest: &mut std::str::Chars<'_>, digits: usize, radix: u32) -> Option<char> {
    let text: String = rest.take(digits).collect();
    let whole = text.chars().count() == digits && text.chars().all(|c| c.is_digit(radix));
    u32::from_str_radix(&text, radix).ok().filter(|_| whole).and_then(char::from_u32)
}

fn octal(first: char, rest: &mut std::str::Chars<'_>) -> Option<char> {
    let mut value = first.to_digit(8)?;
    for _ in 0..2 {
        let Some(digit) = rest.clone().next().and_then(|c| c.to_digit(8)) else { break };
        rest.next();
        value = value.saturating_mul(8).saturating_add(digit);
    }
    char::from_u32(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_python() {
        for (line, value) in [("7", 7), (" +0_7\r", 7), ("-0", 0), ("007", 7), ("00", 0)] {
            assert_eq!(number(line.as_bytes()), Some(Some(value)), "{line}");
        }
        for line in ["", "-1", "_7", "7_", "7__7", "x", "7.0", "0x7", "+", "- 7"] {
            assert_eq!(number(line.as_bytes()), None, "{line}");
        }
        assert_eq!(number(b"99999999999999999999999"), Some(None));
    }

    #[test]
    fn escapes_hide_no_name() {
        let string = |line: &str| unescape(line.as_bytes(), true);
        assert_eq!(string(r"'o\x73'").as_deref(), Some("os"));
        assert_eq!(string(r#""\157\163" "#).as_deref(), Some("os"));
        assert_eq!(string(r"'o\u0073'").as_deref(), Some(r"o\u0073"));
        assert_eq!(string("os"), None);
        assert_eq!(string("'"), None);
        let unicode = |line: &str| unescape(line.as_bytes(), false);
        assert_eq!(unicode(r"o\u0073").as_deref(), Some("os"));
        assert_eq!(unicode(r"o\U00000073").as_deref(), Some("os"));
        assert_eq!(unicode(r"o\x73").as_deref(), Some(r"o\x73"));
        assert_eq!(unicode(r"o\u00"), None);
    }
}
