//! What every worker has: a pack of its own, a buffer, and ways to read a file into it.

use super::plan::miss;
use super::step::Done;
use crate::base::{Cancel, Pace, Progress};
use crate::chunk::Cutter;
use crate::format::snapshot::Miss;
use crate::model::format::ReadAt;
use crate::repo::writer::Packer;
use crate::source::any::File;
use crate::source::files::SourceError;

/// What a worker reads at once.
pub(super) const READ_BYTES: usize = 16 << 20;
/// How often a file that changes is read before it is taken as it is.
pub(super) const ATTEMPTS_MAX: u32 = 3;

/// Reads, cuts and stores; `big` and `work` say how.
pub(super) struct Worker<'c, 'r> {
    pub(super) packer: Packer<'c, 'r>,
    pub(super) buf: Vec<u8>,
    pub(super) cutter: &'c Cutter,
    pub(super) progress: &'c Progress,
    pub(super) cancel: &'c Cancel,
    /// How fast files may be read.
    pub(super) pace: Option<&'c Pace>,
    /// Whether files are judged as models.
    pub(super) judges: bool,
}

impl Worker<'_, '_> {
    /// Fills the buffer from a place in it on with a part of a file, as fast as is allowed; returns how much there was.
    pub(super) fn read_to(
        &mut self,
        at: usize,
        file: &File,
        offset: u64,
        len: usize,
    ) -> std::result::Result<usize, SourceError> {
        Paced { file, pace: self.pace }.read(offset, &mut self.buf[at..at + len])
    }

    pub(super) fn make_room(&mut self, len: usize) {
        if self.buf.len() < len {
            self.buf.resize(READ_BYTES, 0);
        }
    }
}

/// A file that is read as fast as is allowed.
pub(super) struct Paced<'f> {
    pub(super) file: &'f File,
    pub(super) pace: Option<&'f Pace>,
}

impl Paced<'_> {
    fn read(&self, offset: u64, buf: &mut [u8]) -> std::result::Result<usize, SourceError> {
        let Some(pace) = self.pace else { return self.file.read_at(offset, buf) };
        let mut got = 0;
        for part in buf.chunks_mut(pace.part()) {
            let read = self.file.read_at(offset + got as u64, part)?;
            pace.book(read as u64).wait();
            got += read;
            if read < part.len() {
                break;
            }
        }
        Ok(got)
    }
}

impl ReadAt for Paced<'_> {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> std::io::Result<usize> {
        self.read(offset, buf).map_err(|e| std::io::Error::other(e.lift().to_string()))
    }
}

pub(super) fn attributes(file: &File) -> (Option<Vec<crate::format::tree::Xattr>>, Vec<Miss>) {
    match file.xattrs() {
        Ok(found) if found.is_empty() => (None, Vec::new()),
        Ok(found) => (Some(found), Vec::new()),
        Err(e) => (None, vec![miss(e.path.clone(), &e)]),
    }
}

pub(super) fn failed(error: &SourceError) -> Done {
    Done {
        result: Err(miss(error.path.clone(), error)),
        items: None,
        read: true,
        model: false,
        misses: Vec::new(),
        changed: None,
    }
}
