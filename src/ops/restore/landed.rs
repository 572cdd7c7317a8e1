//! A file is read again while it is written: what has come, as far as nothing is missing before it.

use crate::model::verdict::{Hashing, Sha256};
use crate::region::lock;
use crate::source::files::{SourceError, TargetFile};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Mutex;

/// Bytes read at once.
const READ_BYTES: usize = 1 << 20;

thread_local! {
    /// Of the hand, not of the file: many files may wait for what is to come.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// How far a file was read again, and what came beyond that.
#[derive(Default)]
pub(super) struct Landed {
    hashed: Mutex<Hashed>,
    /// Where what came begins and ends, and whether it is a hole.
    ahead: Mutex<BTreeMap<u64, (u64, bool)>>,
}

#[derive(Default)]
struct Hashed {
    hashing: Hashing,
    to: u64,
}

impl Hashed {
    /// Hashes up to `end`, which are bytes; false where the file ends before.
    fn read(&mut self, file: &TargetFile, end: u64) -> Result<bool, SourceError> {
        BUFFER.with_borrow_mut(|buffer| {
            while self.to < end {
                let len = usize::try_from(end.saturating_sub(self.to)).unwrap_or(READ_BYTES).min(READ_BYTES);
                buffer.resize(len.max(buffer.len()), 0);
                let part = buffer.get_mut(..len).unwrap_or_default();
                let got = file.read_at(self.to, part)?;
                self.hashing.update(part.get(..got).unwrap_or_default());
                self.to = self.to.saturating_add(got as u64);
                if got < len {
                    return Ok(false);
                }
            }
            Ok(true)
        })
    }

    fn hole(&mut self, end: u64) {
        self.hashing.zeros(end.saturating_sub(self.to));
        self.to = end.max(self.to);
    }
}

impl Landed {
    /// Bytes came, or a hole, each once. One hand at a time reads them; where it is at it, the others do not wait.
    ///
    /// # Errors
    /// They cannot be read.
    pub(super) fn came(&self, file: &TargetFile, offset: u64, len: u64, is_hole: bool) -> Result<(), SourceError> {
        lock(&self.ahead).insert(offset, (offset.saturating_add(len), is_hole));
        let Ok(mut hashed) = self.hashed.try_lock() else { return Ok(()) };
        loop {
            let to = hashed.to;
            match lock(&self.ahead).remove(&to) {
                None => return Ok(()),
                Some((end, true)) => hashed.hole(end),
                Some((end, false)) => {
                    if !hashed.read(file, end)? {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// The hash of the whole file of this size; `None` if it ends early, or `stop` said so. What is a hole is not read.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn rest(
        &self,
        file: &TargetFile,
        size: u64,
        stop: &dyn Fn() -> bool,
    ) -> Result<Option<Sha256>, SourceError> {
        let mut hashed = std::mem::take(&mut *lock(&self.hashed));
        while hashed.to < size {
            // A file system may look through all of it to find the end of the bytes: it is asked once for each part.
            let (start, end) = file.data_from(hashed.to)?.unwrap_or((size, size));
            hashed.hole(start.clamp(hashed.to, size));
            while hashed.to < end.min(size) {
                let step = end.min(size).min(hashed.to.saturating_add(READ_BYTES as u64));
                if stop() || !hashed.read(file, step)? {
                    return Ok(None);
                }
            }
        }
        Ok((hashed.to == size).then(|| hashed.hashing.finish()))
    }
}
