//! Writing one object: at once, or in parts when it is large.

use super::{Source, Trouble, attrs};
use crate::error::{Error, Result};
use crate::format::tree::Entry;
use crate::store::{Part, StoreErrorKind, unfit_headers};
use bytes::Bytes;
use std::io::Write;
use std::sync::Arc;

/// Bytes of a part, and of the largest object that is put at once.
const PART_BYTES: usize = 16 << 20;
/// S3 takes ten thousand; a few are left for what an object has beyond what was expected.
const PARTS_MAX: u64 = 9_000;
/// Longest key, in bytes.
const KEY_BYTES_MAX: usize = 1024;

/// An object that is being written. Dropped before its end, it leaves nothing.
pub struct Sink {
    source: Arc<Source>,
    key: Vec<u8>,
    headers: Vec<(String, Vec<u8>)>,
    part_bytes: usize,
    buf: Vec<u8>,
    /// Bytes that were put, or will be with what is left.
    bytes: u64,
    upload: Option<(String, Vec<Part>)>,
    failed: Option<Error>,
}

impl Source {
    /// Whether no object lies below the prefix.
    ///
    /// # Errors
    /// The bucket cannot be looked at.
    pub fn is_empty(&self) -> Result<bool> {
        self.wait(self.objects.is_empty(&self.prefix)).map_err(|e| e.lift(&self.place))
    }

    /// Begins an object at this path below the prefix, with what the entry's attributes say of it.
    ///
    /// # Errors
    /// What cannot be a key, in words.
    pub fn sink(self: &Arc<Self>, path: &[u8], entry: &Entry) -> std::result::Result<Sink, String> {
        let key = [self.prefix.as_bytes(), path].concat();
        if key.is_empty() {
            return Err("not restored: its key would be empty".into());
        }
        if key.len() > KEY_BYTES_MAX {
            return Err(format!("not restored: its key would be longer than {KEY_BYTES_MAX} bytes"));
        }
        if std::str::from_utf8(&key).is_err() {
            return Err("not restored: a key is UTF-8, and its path is not".into());
        }
        let headers = attrs::headers(entry.xattrs.as_deref().unwrap_or_default());
        let least = usize::try_from(entry.size() / PARTS_MAX).unwrap_or(usize::MAX);
        let part_bytes = least.saturating_add(1).max(PART_BYTES);
        let (source, buf) = (Arc::clone(self), Vec::new());
        Ok(Sink { source, key, headers, part_bytes, buf, bytes: 0, upload: None, failed: None })
    }
}

impl Sink {
    /// Attributes that cannot stand in a request, and are not put.
    pub fn unfit(&self) -> Vec<&str> {
        unfit_headers(&self.headers)
    }

    /// What the store said where writing failed.
    pub fn take_error(&mut self) -> Option<Error> {
        self.failed.take()
    }

    /// Puts what is left, and makes the object.
    ///
    /// # Errors
    /// The store refused, is full, or cannot be reached.
    pub fn finish(mut self) -> Result<()> {
        let place = &self.source.place;
        let body = Bytes::from(std::mem::take(&mut self.buf));
        let Some((id, mut parts)) = self.upload.take() else {
            let put = self.source.objects.put(&self.key, &self.headers, body);
            return self.source.wait(put).map_err(|e| e.lift(place));
        };
        let made = self
            .put(&id, &mut parts, body)
            .and_then(|()| self.source.wait(self.source.objects.complete(&self.key, &id, &parts)));
        let made = made.or_else(|e| if self.stands(&e, parts.len()) { Ok(()) } else { Err(e) });
        made.map_err(|e| {
            let error = e.lift(place);
            // Given up when this is dropped.
            self.upload = Some((id, parts));
            error
        })
    }

    /// Whether the object was made all the same: its upload is gone, as that was the answer to a request which had to be made
    /// again, and what stands there has its size and as many parts.
    fn stands(&self, why: &Trouble, parts: usize) -> bool {
        let gone = matches!(why, Trouble::Store(e) if e.kind == StoreErrorKind::NotFound);
        let made = || self.source.wait(self.source.objects.head(&self.key)).ok();
        let parts = format!("-{parts}\"");
        gone && made()
            .is_some_and(|facts| facts.size == self.bytes && facts.etag.is_some_and(|etag| etag.ends_with(&parts)))
    }

    fn put(&self, id: &str, parts: &mut Vec<Part>, body: Bytes) -> std::result::Result<(), Trouble> {
        if body.is_empty() {
            return Ok(());
        }
        let number = u32::try_from(parts.len()).unwrap_or(u32::MAX).saturating_add(1);
        parts.push(self.source.wait(self.source.objects.part(&self.key, id, number, body))?);
        Ok(())
    }

    fn send(&mut self) -> std::result::Result<(), Trouble> {
        let body = Bytes::from(std::mem::take(&mut self.buf));
        let (id, mut parts) = match self.upload.take() {
            Some(upload) => upload,
            None => (self.source.wait(self.source.objects.begin(&self.key, &self.headers))?, Vec::new()),
        };
        let done = self.put(&id, &mut parts, body);
        self.upload = Some((id, parts));
        done
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.buf.len() >= self.part_bytes
            && let Err(e) = self.send()
        {
            self.failed = Some(e.lift(&self.source.place));
            return Err(std::io::ErrorKind::Other.into());
        }
        let len = bytes.len().min(self.part_bytes.saturating_sub(self.buf.len()));
        self.buf.extend_from_slice(bytes.get(..len).unwrap_or_default());
        self.bytes = self.bytes.saturating_add(len as u64);
        Ok(len)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        if let Some((id, _)) = self.upload.take() {
            // What does not reach the store, the bucket's own rules for unfinished uploads remove. Also when interrupted.
            let _ = self.source.runtime.block_on(self.source.objects.give_up(&self.key, &id));
        }
    }
}
