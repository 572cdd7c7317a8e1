//! The little of the protocol buffers' encoding that etcd's messages need: bytes in, fields out.
//!
//! What is read comes from a server or a file and is believed in nothing: every length is checked.

/// Texts are believed up to this length: names, versions, reasons, tokens.
const TEXT_BYTES_MAX: usize = 8 << 10;

/// Bytes that are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("bytes that are no message")]
pub struct Malformed;

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// A number.
    Number(u64),
    /// Bytes, a text, or a message.
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    /// As a number; a field of another kind is 0.
    pub fn number(self) -> u64 {
        match self {
            Value::Number(n) => n,
            Value::Bytes(_) => 0,
        }
    }

    /// As a signed number.
    pub fn signed(self) -> i64 {
        self.number().cast_signed()
    }

    /// As bytes; a field of another kind is empty.
    pub fn bytes(self) -> &'a [u8] {
        match self {
            Value::Number(_) => &[],
            Value::Bytes(bytes) => bytes,
        }
    }

    /// As a text, or its beginning.
    pub fn text(self) -> String {
        let bytes = self.bytes();
        String::from_utf8_lossy(bytes.get(..TEXT_BYTES_MAX).unwrap_or(bytes)).into_owned()
    }
}

/// The fields of a message, in their order.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a> {
    left: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Of these bytes.
    pub fn of(message: &'a [u8]) -> Fields<'a> {
        Fields { left: message }
    }

    fn take(&mut self, len: u64) -> Result<&'a [u8], Malformed> {
        let len = usize::try_from(len).map_err(|_| Malformed)?;
        let (head, tail) = self.left.split_at_checked(len).ok_or(Malformed)?;
        self.left = tail;
        Ok(head)
    }

    fn field(&mut self) -> Result<(u64, Value<'a>), Malformed> {
        let tag = varint(&mut self.left)?;
        let value = match tag & 7 {
            0 => Value::Number(varint(&mut self.left)?),
            1 => Value::Number(self.take(8)?.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b))),
            2 => {
                let len = varint(&mut self.left)?;
                Value::Bytes(self.take(len)?)
            }
            5 => Value::Number(self.take(4)?.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b))),
            _ => return Err(Malformed),
        };
        Ok((tag >> 3, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.left = &[];
        }
        Some(field)
    }
}

/// Takes a variable-length number from the front.
///
/// # Errors
/// It does not end within ten bytes.
pub fn varint(from: &mut &[u8]) -> Result<u64, Malformed> {
    let mut number = 0u64;
    for place in 0..10 {
        let (byte, rest) = from.split_first().ok_or(Malformed)?;
        *from = rest;
        number |= u64::from(byte & 0x7f).checked_shl(7 * place).ok_or(Malformed)?;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(Malformed)
}

/// Appends a variable-length number.
pub fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// A message that is being written.
#[derive(Debug, Clone, Default)]
pub struct Message(Vec<u8>);

impl Message {
    /// An empty one.
    pub fn new() -> Message {
        Message::default()
    }

    /// With a number; 0 is what a reader takes where there is none.
    #[must_use]
    pub fn number(mut self, field: u64, number: u64) -> Message {
        if number != 0 {
            put_varint(&mut self.0, field << 3);
            put_varint(&mut self.0, number);
        }
        self
    }

    /// With bytes, a text or a message, though it be empty.
    #[must_use]
    pub fn bytes(mut self, field: u64, bytes: &[u8]) -> Message {
        put_varint(&mut self.0, field << 3 | 2);
        put_varint(&mut self.0, bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }

    /// Its bytes.
    pub fn finish(self) -> Vec<u8> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let inner = Message::new().number(1, u64::MAX).finish();
        let bytes = Message::new().number(1, 300).bytes(2, b"key").number(3, 0).bytes(16, &inner).finish();
        let fields: Vec<_> = Fields::of(&bytes).map(Result::unwrap).collect();
        assert_eq!(fields, [(1, Value::Number(300)), (2, Value::Bytes(b"key")), (16, Value::Bytes(&inner))]);
        let inner: Vec<_> = Fields::of(&inner).map(Result::unwrap).collect();
        assert_eq!(inner, [(1, Value::Number(u64::MAX))]);
        assert_eq!(inner[0].1.signed(), -1);
    }

    #[test]
    fn fixed_fields_are_little_endian() {
        let bytes = [0x09, 1, 0, 0, 0, 0, 0, 0, 0x80, 0x15, 2, 1, 0, 0];
        let fields: Vec<_> = Fields::of(&bytes).map(Result::unwrap).collect();
        assert_eq!(fields, [(1, Value::Number(0x8000_0000_0000_0001)), (2, Value::Number(0x102))]);
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        for bytes in [
            &[0x0a, 5, 1, 2][..],
            &[0x0a],
            &[0x08],
            &[0x0b],
            &[0x09, 1],
            &[0xff; 12],
            &[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
        ] {
            assert!(Fields::of(bytes).any(|f| f == Err(Malformed)), "{bytes:?}");
        }
        assert_eq!(varint(&mut &[0x80; 20][..]), Err(Malformed));
    }
}
