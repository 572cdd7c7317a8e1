//! An object from front to back, by its path below the prefix: all of one version of it, or an error.

use super::{Object, Source};
use crate::format::tree::{Entry, EntryType};
use crate::source::files::{SourceError, SourceErrorKind};
use bytes::{Buf, Bytes};
use std::io::{self, Read};
use std::sync::Arc;

/// Up to this an object is read by one request, which needs no name of its version.
const WHOLE_BYTES_MAX: u64 = 256 << 10;

/// An object that is read from its front.
#[derive(Debug)]
pub struct Front {
    object: Object,
    at: u64,
    size: u64,
    /// What is left of it, where it was read at once.
    whole: Option<Bytes>,
}

impl Source {
    /// Opens the version that is there now.
    ///
    /// # Errors
    /// It is not there, or the store failed.
    pub fn front(self: &Arc<Self>, path: &[u8]) -> io::Result<Front> {
        let key = [self.prefix.as_bytes(), path].concat();
        let object = Object::new(Arc::clone(self), key, &Entry::bare(path, EntryType::File));
        let size = object.stamp().map_err(lift)?.size;
        let whole = if size <= WHOLE_BYTES_MAX { Some(object.read_whole().map_err(lift)?) } else { None };
        Ok(Front { object, at: 0, size, whole })
    }
}

fn lift(e: SourceError) -> io::Error {
    match e.kind {
        SourceErrorKind::Vanished => io::ErrorKind::NotFound.into(),
        SourceErrorKind::Denied => io::ErrorKind::PermissionDenied.into(),
        _ => io::Error::other(e.message),
    }
}

impl Read for Front {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if let Some(bytes) = &mut self.whole {
            let count = bytes.remaining().min(out.len());
            bytes.copy_to_slice(out.get_mut(..count).unwrap_or_default());
            return Ok(count);
        }
        if self.at >= self.size {
            return Ok(0);
        }
        let got = self.object.read_at(self.at, out).map_err(lift)?;
        self.at = self.at.saturating_add(got as u64);
        Ok(got)
    }
}
