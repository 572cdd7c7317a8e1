//! Positioned reads, and a cursor over them that believes no length and keeps little in memory.

use super::{Malformed, Stop};
use std::io;

/// A file that can be read at any place.
pub trait ReadAt {
    /// Fills `buf` from `offset` on; less only at the end of the file.
    ///
    /// # Errors
    /// It cannot be read.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize>;
}

impl ReadAt for [u8] {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|at| self.get(at..)).unwrap_or(&[]);
        let len = rest.len().min(buf.len());
        for (to, from) in buf.iter_mut().zip(rest) {
            *to = *from;
        }
        Ok(len)
    }
}

impl ReadAt for &[u8] {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        (**self).read_at(offset, buf)
    }
}

impl ReadAt for Vec<u8> {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.as_slice().read_at(offset, buf)
    }
}

impl ReadAt for std::fs::File {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let mut got = 0;
        while let Some(rest) = buf.get_mut(got..).filter(|rest| !rest.is_empty()) {
            match std::os::unix::fs::FileExt::read_at(self, rest, offset.saturating_add(got as u64)) {
                Ok(0) => break,
                Ok(n) => got += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(got)
    }
}

/// What is read at once where a header is walked from begin to end, in bytes.
pub(super) const WALK_BYTES: usize = 32 << 10;
/// The same where one looks at a few bytes here and there.
pub(super) const PEEK_BYTES: usize = 512;
/// Most that is read of one file to know it, in bytes: more than any true header has, and soon over.
const READ_BYTES_MAX: u64 = 256 << 20;

/// A place in a file, which goes forward.
pub(super) struct Cursor<'f> {
    file: &'f dyn ReadAt,
    /// Where the part ends that may be looked at.
    end: u64,
    pos: u64,
    window: Vec<u8>,
    /// Where the window begins in the file.
    from: u64,
    step: usize,
    read: u64,
}

impl<'f> Cursor<'f> {
    /// At the begin of a file of this length, reading so much at once.
    pub(super) fn new(file: &'f dyn ReadAt, end: u64, step: usize) -> Cursor<'f> {
        Cursor { file, end, pos: 0, window: Vec::new(), from: 0, step, read: 0 }
    }

    pub(super) fn pos(&self) -> u64 {
        self.pos
    }

    pub(super) fn seek(&mut self, pos: u64) {
        self.pos = pos;
    }

    /// What is wrong here.
    pub(super) fn wrong(&self, what: &'static str) -> Stop {
        Stop::Malformed(Malformed { at: self.pos, what })
    }

    /// Passes over so many bytes, which must be there.
    pub(super) fn skip(&mut self, len: u64) -> Result<(), Stop> {
        match self.pos.checked_add(len).filter(|end| *end <= self.end) {
            Some(end) => {
                self.pos = end;
                Ok(())
            }
            None => Err(self.wrong("a length behind the end")),
        }
    }

    /// The next bytes, which must be there; not to be asked for many.
    pub(super) fn take(&mut self, len: usize) -> Result<&[u8], Stop> {
        let end = self.pos.checked_add(len as u64).filter(|end| *end <= self.end);
        let Some(end) = end else { return Err(self.wrong("a length behind the end")) };
        let there = self.from.saturating_add(self.window.len() as u64);
        if self.pos < self.from || end > there {
            self.fill(len)?;
        }
        let at = usize::try_from(self.pos.saturating_sub(self.from)).unwrap_or(usize::MAX);
        let Some(bytes) = at.checked_add(len).and_then(|to| self.window.get(at..to)) else {
            return Err(Stop::Malformed(Malformed { at: self.pos, what: "the file is shorter than it was" }));
        };
        self.pos = end;
        Ok(bytes)
    }

    fn fill(&mut self, len: usize) -> Result<(), Stop> {
        let left = usize::try_from(self.end.saturating_sub(self.pos)).unwrap_or(usize::MAX);
        let want = len.max(self.step).min(left);
        self.read = self.read.saturating_add(want as u64);
        if self.read > READ_BYTES_MAX {
            return Err(self.wrong("a header that is too long"));
        }
        self.window.resize(want, 0);
        self.from = self.pos;
        let got = self.file.read_at(self.pos, &mut self.window).map_err(Stop::Read)?;
        self.window.truncate(got);
        Ok(())
    }

    /// The next bytes as a number of the machine, or the other way round.
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Stop> {
        let at = self.pos;
        let bytes = self.take(N)?;
        bytes.first_chunk().copied().ok_or(Stop::Malformed(Malformed { at, what: "the file is shorter than it was" }))
    }

    pub(super) fn u8(&mut self) -> Result<u8, Stop> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    pub(super) fn u16(&mut self) -> Result<u16, Stop> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(super) fn u32(&mut self) -> Result<u32, Stop> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, Stop> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// The next bytes as a text of at most `most`.
    pub(super) fn text(&mut self, len: u64, most: usize) -> Result<String, Stop> {
        let Some(len) = usize::try_from(len).ok().filter(|len| *len <= most) else {
            return Err(self.wrong("a text that is too long"));
        };
        let at = self.pos;
        let text = std::str::from_utf8(self.take(len)?).map(str::to_owned);
        text.map_err(|_| Stop::Malformed(Malformed { at, what: "a text that is none" }))
    }
}

/// A part of a file as a whole.
pub(super) fn whole(file: &dyn ReadAt, at: u64, len: usize) -> Result<Vec<u8>, Stop> {
    let mut bytes = vec![0; len];
    let got = file.read_at(at, &mut bytes).map_err(Stop::Read)?;
    if got < len {
        return Err(Stop::Malformed(Malformed { at, what: "the file is shorter than it was" }));
    }
    Ok(bytes)
}
