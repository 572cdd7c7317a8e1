//! Deflate, and what wraps it: zlib and gzip. Checksums are not believed and not needed; what is read is what is judged.

use crate::model::pickle::{fill, fill_or_fail};
use miniz_oxide::inflate::stream::{InflateState, inflate};
use miniz_oxide::{DataFormat, MZError, MZFlush, MZStatus};
use std::io::{self, Read};

const BUFFER: usize = 32 << 10;
/// Most members of a gzip file.
const MEMBERS_MAX: u32 = 100_000;

/// Whether what begins so may be unpacked as zlib: two bytes are soon the same by chance. What gives nothing yet may still
/// give something behind its head.
pub fn may_be_zlib(head: &[u8]) -> bool {
    let mut state = InflateState::new_boxed(DataFormat::ZLibIgnoreChecksum);
    let (mut rest, mut out) = (head, [0; 64]);
    loop {
        let step = inflate(&mut state, rest, &mut out, MZFlush::None);
        rest = rest.get(step.bytes_consumed..).unwrap_or_default();
        match step.status {
            _ if step.bytes_written > 0 => return true,
            Err(e) => return e == MZError::Buf,
            Ok(MZStatus::StreamEnd) => return true,
            Ok(_) if rest.is_empty() || step.bytes_consumed == 0 => return true,
            Ok(_) => {}
        }
    }
}

/// What was inflated, as a reader.
pub struct Inflate<R> {
    inner: R,
    state: Box<InflateState>,
    buffer: Vec<u8>,
    at: usize,
    whole: bool,
}

impl<R: Read> Inflate<R> {
    /// Bare deflate, as in zip and gzip.
    pub fn raw(inner: R) -> Self {
        Self::new(inner, DataFormat::Raw)
    }

    /// With the head of zlib.
    pub fn zlib(inner: R) -> Self {
        Self::new(inner, DataFormat::ZLibIgnoreChecksum)
    }

    fn new(inner: R, format: DataFormat) -> Self {
        Inflate { inner, state: InflateState::new_boxed(format), buffer: Vec::new(), at: 0, whole: false }
    }

    /// Whether its end was met.
    pub fn ended(&self) -> bool {
        self.whole
    }

    /// Whether more follows than the checksum of zlib.
    pub fn goes_on(mut self) -> bool {
        let ahead = self.buffer.get(self.at..).unwrap_or_default();
        fill(&mut ahead.chain(&mut self.inner), &mut [0; 5]) > 4
    }

    /// What was read and does not belong to it, and the reader.
    fn rest(self) -> (Vec<u8>, R) {
        (self.buffer.get(self.at..).unwrap_or_default().to_vec(), self.inner)
    }
}

impl<R: Read> Read for Inflate<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while !self.whole && !out.is_empty() {
            if self.at >= self.buffer.len() {
                self.buffer.resize(BUFFER, 0);
                self.at = 0;
                let got = fill_or_fail(&mut self.inner, &mut self.buffer);
                self.buffer.truncate(*got.as_ref().unwrap_or(&0));
                got?;
            }
            let input = self.buffer.get(self.at..).unwrap_or_default();
            let step = inflate(&mut self.state, input, out, MZFlush::None);
            self.at = self.at.saturating_add(step.bytes_consumed);
            self.whole = step.status == Ok(MZStatus::StreamEnd);
            if step.bytes_written > 0 {
                return Ok(step.bytes_written);
            }
            if step.bytes_consumed == 0 && !self.whole {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "it cannot be unpacked"));
            }
        }
        Ok(0)
    }
}

/// The members of a gzip file, one after the other, as Python reads them.
pub struct Gunzip<R: Read> {
    state: State<R>,
    members: u32,
}

enum State<R: Read> {
    Member(Inflate<Next<R>>),
    End,
    /// And so it stays, however often it is asked.
    Failed,
}

impl<R: Read> Gunzip<R> {
    /// From the start of the first member.
    pub fn new(inner: R) -> io::Result<Self> {
        let member = Inflate::raw(head(io::Cursor::new(Vec::new()).chain(inner))?);
        Ok(Gunzip { state: State::Member(member), members: 1 })
    }
}

impl<R: Read> Read for Gunzip<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            match std::mem::replace(&mut self.state, State::Failed) {
                State::Failed => return Err(bad("it cannot be unpacked")),
                State::End => {
                    self.state = State::End;
                    return Ok(0);
                }
                State::Member(mut member) => {
                    let got = member.read(out)?;
                    if got == 0 && member.ended() {
                        self.members = self.members.saturating_add(1);
                        if self.members > MEMBERS_MAX {
                            return Err(bad("it has too many members"));
                        }
                        self.state = next(member)?;
                    } else {
                        self.state = State::Member(member);
                        return Ok(got);
                    }
                }
            }
        }
    }
}

/// What comes after a member.
fn next<R: Read>(member: Inflate<Next<R>>) -> io::Result<State<R>> {
    let (ahead, chain) = member.rest();
    let mut from = before(&ahead, chain);
    // The checksum and the size of what ended.
    let mut trailer = [0; 8];
    exactly(&mut from, &mut trailer)?;
    Ok(match after_padding(from)? {
        Some(next) => State::Member(Inflate::raw(head(next)?)),
        None => State::End,
    })
}

/// Bytes, and then what is left of others.
fn before<R: Read>(bytes: &[u8], chain: Next<R>) -> Next<R> {
    let (old, inner) = chain.into_inner();
    let read = usize::try_from(old.position()).unwrap_or(usize::MAX);
    let unread = old.get_ref().get(read..).unwrap_or_default();
    io::Cursor::new([bytes, unread].concat()).chain(inner)
}

type Next<R> = io::Chain<io::Cursor<Vec<u8>>, R>;

/// Passes over zeros; `None` at the end.
fn after_padding<R: Read>(mut from: Next<R>) -> io::Result<Option<Next<R>>> {
    let mut byte = [0; 1];
    while fill_or_fail(&mut from, &mut byte)? == 1 {
        if byte != [0] {
            return Ok(Some(before(&byte, from)));
        }
    }
    Ok(None)
}

/// Passes over a member's head.
fn head<R: Read>(mut from: R) -> io::Result<R> {
    let mut fixed = [0; 10];
    exactly(&mut from, &mut fixed)?;
    let [0x1f, 0x8b, 8, flags, ..] = fixed else { return Err(bad("bytes follow that are no gzip")) };
    if flags & 4 != 0 {
        let mut size = [0; 2];
        exactly(&mut from, &mut size)?;
        (0..u16::from_le_bytes(size)).try_for_each(|_| exactly(&mut from, &mut [0]))?;
    }
    for flag in [8, 16] {
        let mut byte = [u8::from(flags & flag != 0)];
        let mut length = 0u32;
        while byte != [0] {
            exactly(&mut from, &mut byte)?;
            length = length.saturating_add(1);
            if length > 1 << 16 {
                return Err(bad("the head of a gzip file has no end"));
            }
        }
    }
    if flags & 2 != 0 {
        exactly(&mut from, &mut [0; 2])?;
    }
    Ok(from)
}

fn exactly<R: Read>(from: &mut R, out: &mut [u8]) -> io::Result<()> {
    let wanted = out.len();
    let got = fill_or_fail(from, out)?;
    if got == wanted { Ok(()) } else { Err(bad("it ends too early")) }
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}
