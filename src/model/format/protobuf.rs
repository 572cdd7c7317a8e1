//! The few things of protocol buffers that are needed to find something in them.

use super::Stop;
use super::read::Cursor;

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value {
    /// A number of variable length.
    Number(u64),
    /// Eight or four bytes, from here on.
    Fixed(u64),
    /// Bytes from and to.
    Bytes(u64, u64),
}

/// Walks fields of messages in one file, and counts them.
pub(super) struct Fields<'f> {
    pub(super) cursor: Cursor<'f>,
    left: u64,
}

/// Most fields of one file: a few times those of the largest graphs, and soon passed over.
const FIELDS_MAX: u64 = 1 << 24;

impl<'f> Fields<'f> {
    pub(super) fn new(cursor: Cursor<'f>) -> Fields<'f> {
        Fields { cursor, left: FIELDS_MAX }
    }

    /// The next field of a message that ends at `end`, and its number; the cursor is behind it then.
    pub(super) fn next(&mut self, end: u64) -> Result<Option<(u64, Value)>, Stop> {
        if self.cursor.pos() == end {
            return Ok(None);
        }
        self.left = self.left.checked_sub(1).ok_or_else(|| self.cursor.wrong("too many fields"))?;
        let key = self.varint()?;
        let (number, value) = (key >> 3, self.value(key & 7)?);
        if number == 0 {
            return Err(self.cursor.wrong("a field that has no number"));
        }
        if self.cursor.pos() > end {
            return Err(self.cursor.wrong("a field that is longer than its message"));
        }
        Ok(Some((number, value)))
    }

    fn value(&mut self, wire: u64) -> Result<Value, Stop> {
        match wire {
            0 => self.varint().map(Value::Number),
            2 => {
                let len = self.varint()?;
                let begin = self.cursor.pos();
                self.cursor.skip(len)?;
                Ok(Value::Bytes(begin, self.cursor.pos()))
            }
            1 | 5 => {
                let begin = self.cursor.pos();
                self.cursor.skip(if wire == 1 { 8 } else { 4 })?;
                Ok(Value::Fixed(begin))
            }
            _ => Err(self.cursor.wrong("a field of a kind that is not known")),
        }
    }

    pub(super) fn varint(&mut self) -> Result<u64, Stop> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.cursor.u8()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.cursor.wrong("a number that is too long"))
    }
}
