//! Bytes that can be read at any place, and a part of them.

use crate::model::pickle::fill_or_fail;
use std::io::{self, Read};

/// Something of known size that can be read at any place.
pub trait At {
    /// How many bytes there are.
    fn size(&self) -> u64;
    /// Reads some bytes from `offset`; none only behind the end.
    ///
    /// # Errors
    /// They could not be read.
    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize>;
}

impl At for [u8] {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|from| self.get(from..)).unwrap_or_default();
        let count = rest.len().min(out.len());
        if let (Some(to), Some(from)) = (out.get_mut(..count), rest.get(..count)) {
            to.copy_from_slice(from);
        }
        Ok(count)
    }
}

impl At for &[u8] {
    fn size(&self) -> u64 {
        (**self).size()
    }

    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize> {
        (**self).read_at(out, offset)
    }
}

impl At for Vec<u8> {
    fn size(&self) -> u64 {
        self.as_slice().size()
    }

    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize> {
        self.as_slice().read_at(out, offset)
    }
}

/// A part of something; also a reader of it, from the front.
#[derive(Clone, Copy)]
pub struct Part<'a> {
    whole: &'a dyn At,
    start: u64,
    size: u64,
    at: u64,
}

impl<'a> Part<'a> {
    /// All of it.
    pub fn whole(whole: &'a dyn At) -> Self {
        Part { whole, start: 0, size: whole.size(), at: 0 }
    }

    /// How many bytes it has.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// A part of this, as far as it has it.
    pub fn part(&self, offset: u64, size: u64) -> Part<'a> {
        let offset = offset.min(self.size);
        let size = size.min(self.size.saturating_sub(offset));
        Part { whole: self.whole, start: self.start.saturating_add(offset), size, at: 0 }
    }

    /// Fills as much of `out` as there is from `offset` on.
    pub fn fill_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize> {
        fill_or_fail(&mut self.part(offset, u64::MAX), out)
    }

    /// Up to `count` bytes from `offset` on.
    pub fn piece(&self, offset: u64, count: usize) -> io::Result<Vec<u8>> {
        let rest = self.size.saturating_sub(offset);
        let mut out = vec![0; count.min(usize::try_from(rest).unwrap_or(usize::MAX))];
        let got = self.fill_at(&mut out, offset)?;
        out.truncate(got);
        Ok(out)
    }
}

impl Read for Part<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.size.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let count = out.len().min(left);
        let Some(out) = out.get_mut(..count).filter(|out| !out.is_empty()) else { return Ok(0) };
        let got = self.whole.read_at(out, self.start.saturating_add(self.at))?;
        self.at = self.at.saturating_add(got as u64);
        Ok(got)
    }
}

/// A number of `N` bytes at `from`, little-endian; zero where there is none.
pub fn number<const N: usize>(bytes: &[u8], from: usize) -> u64 {
    let field = bytes.get(from..from.saturating_add(N)).unwrap_or_default();
    field.iter().rev().fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
}
