//! The bytes of a pickle, read once from front to back, with the offset of each.

use std::io::Read;

/// Why reading stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// The bytes end where more must come.
    End,
    /// They are no pickle, or a broken one.
    Broken(String),
    /// They may be one, and it goes beyond what is walked.
    Beyond(String),
}

/// Size of the buffer.
const BUFFER: usize = 64 << 10;

/// A reader with an offset.
pub struct Bytes<'a> {
    inner: &'a mut dyn Read,
    buffer: Vec<u8>,
    at: usize,
    offset: u64,
}

impl<'a> Bytes<'a> {
    /// From the start of `inner`.
    pub fn new(inner: &'a mut dyn Read) -> Self {
        Bytes { inner, buffer: Vec::new(), at: 0, offset: 0 }
    }

    /// How many bytes were taken.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// What is read already and not taken; empty only at the end.
    fn ahead(&mut self) -> Result<&[u8], Stop> {
        if self.at >= self.buffer.len() {
            self.buffer.resize(BUFFER, 0);
            self.at = 0;
            let got = read(self.inner, &mut self.buffer);
            self.buffer.truncate(*got.as_ref().unwrap_or(&0));
            got?;
        }
        Ok(self.buffer.get(self.at..).unwrap_or_default())
    }

    fn advance(&mut self, count: usize) {
        self.at = self.at.saturating_add(count);
        self.offset = self.offset.saturating_add(count as u64);
    }

    /// The next byte, or `None` at the end.
    pub fn next(&mut self) -> Result<Option<u8>, Stop> {
        let next = self.ahead()?.first().copied();
        if next.is_some() {
            self.advance(1);
        }
        Ok(next)
    }

    /// What comes next, without taking it.
    pub fn peek(&mut self) -> Result<Option<u8>, Stop> {
        Ok(self.ahead()?.first().copied())
    }

    /// Whether these come next. It does not look beyond what is read already, so that it may say no at the end of that.
    pub fn starts_with(&mut self, bytes: &[u8]) -> bool {
        self.ahead().is_ok_and(|ahead| ahead.starts_with(bytes))
    }

    /// `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Stop> {
        let mut out = [0; N];
        for byte in &mut out {
            *byte = self.next()?.ok_or(Stop::End)?;
        }
        Ok(out)
    }

    /// Passes over so many bytes.
    pub fn skip(&mut self, mut count: u64) -> Result<(), Stop> {
        while count > 0 {
            let there = self.ahead()?.len();
            if there == 0 {
                return Err(Stop::End);
            }
            let step = usize::try_from(count).unwrap_or(usize::MAX).min(there);
            self.advance(step);
            count = count.saturating_sub(step as u64);
        }
        Ok(())
    }

    /// So many bytes; those beyond `max` are passed over, and `None` is returned for all.
    pub fn text(&mut self, count: u64, max: usize) -> Result<Option<Vec<u8>>, Stop> {
        let Some(size) = usize::try_from(count).ok().filter(|n| *n <= max) else {
            self.skip(count)?;
            return Ok(None);
        };
        let mut out = Vec::with_capacity(size);
        while out.len() < size {
            let ahead = self.ahead()?;
            let step = ahead.len().min(size.saturating_sub(out.len()));
            if step == 0 {
                return Err(Stop::End);
            }
            out.extend_from_slice(ahead.get(..step).unwrap_or_default());
            self.advance(step);
        }
        Ok(Some(out))
    }

    /// A line without its end; `None` for one longer than `max`, which is passed over.
    pub fn line(&mut self, max: usize) -> Result<Option<Vec<u8>>, Stop> {
        let (mut out, mut fits) = (Vec::new(), true);
        loop {
            match self.next()? {
                None => return Err(Stop::End),
                Some(b'\n') => return Ok(Some(out).filter(|_| fits)),
                Some(byte) if out.len() < max => out.push(byte),
                Some(_) => fits = false,
            }
        }
    }

    /// A line that is a number, as C reads it: without the blanks before it, and up to the first zero. A longer one is beyond
    /// what is walked if there is nothing but what numbers are written with; else it is none.
    pub fn number(&mut self, max: usize) -> Result<Vec<u8>, Stop> {
        let (mut out, mut ended, mut long, mut odd) = (Vec::new(), false, false, false);
        loop {
            let byte = self.next()?.ok_or(Stop::End)?;
            let blank = matches!(byte, b' ' | b'\t' | b'\r' | 0x0b | 0x0c);
            match byte {
                b'\n' if long && odd => return Err(Stop::Broken("a memo slot is no number".into())),
                b'\n' if long => return Err(Stop::Beyond("the number of a memo slot is too long".into())),
                b'\n' => return Ok(out),
                _ if ended || (blank && out.is_empty()) => {}
                0 => ended = true,
                _ => {
                    odd |= !blank && !matches!(byte, b'0'..=b'9' | b'_' | b'+' | b'-');
                    long |= out.len() >= max;
                    if !long {
                        out.push(byte);
                    }
                }
            }
        }
    }

    /// A line that is the name of something. One that is too long is no pickle if other things than names are in it. Where
    /// the bytes end in a name, Python takes it without its last byte.
    pub fn name(&mut self, max: usize) -> Result<String, Stop> {
        let (mut out, mut named) = (Vec::new(), true);
        loop {
            match self.next()? {
                Some(b'\n') => return Ok(String::from_utf8_lossy(&out).into_owned()),
                None if out.len() > 1 => {
                    out.pop();
                    return Ok(String::from_utf8_lossy(&out).into_owned());
                }
                None => return Err(Stop::End),
                Some(_) if out.len() >= max && named => return Err(Stop::Beyond("a name is too long".into())),
                Some(_) if out.len() >= max => return Err(Stop::Broken("a name is too long".into())),
                Some(byte) => {
                    named &= byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.' || byte >= 0x80;
                    out.push(byte);
                }
            }
        }
    }
}

fn read(inner: &mut dyn Read, buffer: &mut [u8]) -> Result<usize, Stop> {
    loop {
        match inner.read(buffer) {
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Stop::Beyond(format!("it could not be read further: {e}"))),
            Ok(got) => return Ok(got),
        }
    }
}
