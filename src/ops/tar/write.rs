//! Writes what was planned, in order.

use super::TarReport;
use super::header::{BLOCK_BYTES, padding};
use crate::base::{Cancel, Progress};
use crate::error::{Error, Kind, Result};
use crate::format::tree::{Entry, EntryType};
use crate::ops::ahead::Answer;
use crossbeam_channel::Receiver;
use std::collections::HashSet;
use std::io::Write;

/// Zeros that are written at once.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
/// Two empty blocks end an archive, and programs expect it to have a multiple of so many bytes.
const RECORD_BYTES: u64 = 20 * BLOCK_BYTES as u64;

/// A piece of a file.
pub(super) enum Piece {
    /// A hole of so many bytes, which are written as zeros.
    Zeros(u64),
    /// Bytes that are there already.
    Here(Vec<u8>),
    /// A chunk on its way.
    Chunk(Answer<Vec<u8>>),
}

impl Piece {
    /// The same, once its bytes are there.
    fn ready(self) -> Result<Piece> {
        match self {
            Piece::Chunk(answer) => answer.take().map(Piece::Here),
            other => Ok(other),
        }
    }
}

/// What the planner hands on.
pub(super) enum Step {
    /// A member without content.
    Plain { head: Vec<u8>, entry: Box<Entry> },
    /// A further name of an inode.
    Link { path: Vec<u8>, first: Vec<u8>, head: Vec<u8>, entry: Box<Entry> },
    /// A file that is not in the archive; links to it cannot be either.
    Failed { path: Vec<u8> },
    /// A part of a file; the first has the header.
    Content { path: Vec<u8>, head: Option<Vec<u8>>, entry: Option<Box<Entry>>, pieces: Vec<Piece>, last: bool },
    /// Everything was planned. Where it does not come, the planner says why.
    End,
}

pub(super) struct Writer<'w> {
    out: &'w mut dyn Write,
    progress: &'w Progress,
    cancel: &'w Cancel,
    /// Bytes of the member that is being written.
    member_bytes: u64,
    failed: HashSet<Vec<u8>>,
    report: TarReport,
}

impl<'w> Writer<'w> {
    pub(super) fn new(out: &'w mut dyn Write, progress: &'w Progress, cancel: &'w Cancel) -> Self {
        Writer { out, progress, cancel, member_bytes: 0, failed: HashSet::new(), report: TarReport::default() }
    }

    pub(super) fn archive(mut self, steps: &Receiver<Step>) -> Result<TarReport> {
        let mut ended = false;
        for step in steps {
            self.cancel.check()?;
            ended = matches!(step, Step::End);
            self.step(step)?;
        }
        self.cancel.check()?;
        if ended {
            self.end()?;
        }
        self.out.flush().map_err(|e| refused(&e))?;
        Ok(self.report)
    }

    /// What shows that an archive is whole.
    fn end(&mut self) -> Result<()> {
        let end = 2 * BLOCK_BYTES as u64;
        let over = self.report.bytes_written.saturating_add(end) % RECORD_BYTES;
        self.zeros(end + (RECORD_BYTES - over) % RECORD_BYTES)
    }

    /// The pieces of one file, and nothing around them.
    pub(super) fn content(mut self, steps: &Receiver<Step>) -> Result<TarReport> {
        for step in steps {
            self.cancel.check()?;
            if let Step::Content { pieces, path, .. } = step {
                self.pieces(pieces).map_err(|e| e.at(String::from_utf8_lossy(&path)))?;
            }
        }
        self.out.flush().map_err(|e| refused(&e))?;
        Ok(self.report)
    }

    fn step(&mut self, step: Step) -> Result<()> {
        match step {
            Step::Plain { head, entry } => {
                self.bytes(&head)?;
                self.count(&entry);
            }
            Step::Link { path, first, head, entry } => {
                if self.failed.contains(&first) {
                    self.report.miss(&path, "link", "not linked: its first name is not in the archive");
                } else {
                    self.bytes(&head)?;
                    // The bytes stand behind the first name.
                    self.count(&Entry { size: None, ..*entry });
                }
            }
            Step::Failed { path } => _ = self.failed.insert(path),
            Step::End => {}
            Step::Content { path, head: Some(head), entry: Some(entry), pieces, last: true } => {
                self.whole(path, &head, &entry, pieces)?;
            }
            Step::Content { path, head, entry, pieces, last } => {
                self.part(&path, head.as_deref(), entry.as_deref(), pieces)?;
                if last {
                    self.fill()?;
                }
            }
        }
        Ok(())
    }

    /// A file whose pieces are all here: one that is damaged is left out.
    fn whole(&mut self, path: Vec<u8>, head: &[u8], entry: &Entry, pieces: Vec<Piece>) -> Result<()> {
        let ready: Result<Vec<Piece>> = pieces.into_iter().map(Piece::ready).collect();
        let ready = match ready {
            Ok(ready) => ready,
            Err(e) => {
                self.cancel.check()?;
                self.progress.errors.add(1);
                self.report.lost(&path, &e);
                self.failed.insert(path);
                return Ok(());
            }
        };
        self.part(&path, Some(head), Some(entry), ready)?;
        self.fill()
    }

    fn part(&mut self, path: &[u8], head: Option<&[u8]>, entry: Option<&Entry>, pieces: Vec<Piece>) -> Result<()> {
        if let Some(head) = head {
            self.bytes(head)?;
            self.member_bytes = 0;
        }
        if let Some(entry) = entry {
            self.count(entry);
        }
        let before = self.report.bytes_written;
        self.pieces(pieces).map_err(|e| match e.kind() {
            Kind::Damage => e.at(String::from_utf8_lossy(path)).advise(
                "the archive ends inside of this file; --exclude leaves it out, and `restore` goes on without it",
            ),
            _ => e,
        })?;
        self.member_bytes += self.report.bytes_written - before;
        Ok(())
    }

    fn pieces(&mut self, pieces: Vec<Piece>) -> Result<()> {
        for piece in pieces {
            let len = match piece.ready()? {
                Piece::Zeros(len) => self.zeros(len).map(|()| len)?,
                Piece::Here(bytes) => self.bytes(&bytes).map(|()| bytes.len() as u64)?,
                Piece::Chunk(_) => 0,
            };
            self.progress.bytes_done.add(len);
        }
        Ok(())
    }

    /// Fills the last block of a member.
    fn fill(&mut self) -> Result<()> {
        self.zeros(padding(self.member_bytes) as u64)
    }

    fn count(&mut self, entry: &Entry) {
        self.report.count(entry);
        match entry.kind {
            EntryType::File => self.progress.files.add(1),
            EntryType::Dir => self.progress.dirs.add(1),
            _ => {}
        }
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(|e| refused(&e))?;
        self.report.bytes_written = self.report.bytes_written.saturating_add(bytes.len() as u64);
        Ok(())
    }

    fn zeros(&mut self, mut len: u64) -> Result<()> {
        while len > 0 {
            self.cancel.check()?;
            let piece = len.min(ZEROS.len() as u64);
            self.bytes(&ZEROS[..piece as usize])?;
            len -= piece;
        }
        Ok(())
    }
}

fn refused(e: &std::io::Error) -> Error {
    match e.kind() {
        std::io::ErrorKind::BrokenPipe => Error::new(Kind::Cancelled, "the output was closed"),
        std::io::ErrorKind::StorageFull => Error::new(Kind::Full, "the disk of the output is full"),
        kind => Error::new(Kind::Source, format!("cannot write the output: {kind}")),
    }
}
