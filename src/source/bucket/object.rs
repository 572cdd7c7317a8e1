//! Reading one object: ranges of one version of it, several at once.

use super::{Source, attrs};
use crate::format::tree::{Entry, EntryType, Xattr};
use crate::source::files::{SourceError, SourceErrorKind, Stamp};
use crate::store::{Content, Facts, StoreError};
use bytes::Bytes;
use futures_util::StreamExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes that one request asks for.
const PART_BYTES: usize = 4 << 20;
/// Requests at once, for one read.
const PARTS_AT_ONCE: usize = 4;
/// Requests at once, for many small objects.
const SMALL_AT_ONCE: usize = 16;
/// Reads of this length go around the window.
const DIRECT_BYTES: usize = 8 << 20;
/// The window's first length; it doubles while reads follow each other.
const WINDOW_BYTES_MIN: usize = 256 << 10;
/// And its longest.
const WINDOW_BYTES_MAX: usize = PART_BYTES * PARTS_AT_ONCE;

type Answer<T> = Result<T, SourceError>;

/// An object that is being read.
#[derive(Debug)]
pub struct Object {
    source: Arc<Source>,
    key: Vec<u8>,
    pinned: Mutex<Pinned>,
    window: Mutex<Window>,
}

/// The version that is read.
#[derive(Debug, Default)]
struct Pinned {
    /// Its content, and the store's time of it, ms.
    content: Option<(Content, i64)>,
    /// What the store said with its bytes.
    facts: Option<Facts>,
    /// All its bytes, where they came before they were asked for.
    whole: Option<Bytes>,
}

/// Bytes that were read ahead.
#[derive(Debug, Default)]
struct Window {
    start: u64,
    bytes: Vec<u8>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Object {
    /// The version that a walk met; of an entry without a size, the one that is there when it is first asked for.
    pub(super) fn new(source: Arc<Source>, key: Vec<u8>, entry: &Entry) -> Object {
        let etag = attrs::etag_of(entry.xattrs.as_deref()).map(str::to_owned);
        let modified = entry.mtime_s.saturating_mul(1000).saturating_add(i64::from(entry.mtime_ns / 1_000_000));
        let content = entry.size.map(|size| (Content { etag, size }, modified));
        let pinned = Mutex::new(Pinned { content, facts: None, whole: None });
        Object { source, key, pinned, window: Mutex::default() }
    }

    /// Its path, for messages.
    pub fn path(&self) -> Vec<u8> {
        self.source.shown(&self.key)
    }

    /// From now on, the version that is there now.
    ///
    /// # Errors
    /// It is gone, or the store failed.
    pub fn renew(&self) -> Answer<()> {
        let facts = self.source.head(&self.key)?;
        let content = Content { etag: facts.etag.clone(), size: facts.size };
        *lock(&self.window) = Window::default();
        let content = Some((content, facts.modified.unwrap_or(0)));
        *lock(&self.pinned) = Pinned { content, facts: Some(facts), whole: None };
        Ok(())
    }

    fn content(&self) -> Answer<(Content, i64)> {
        if let Some(content) = &lock(&self.pinned).content {
            return Ok(content.clone());
        }
        self.renew()?;
        let missing = || SourceError::other(&self.path(), SourceErrorKind::Vanished, "not found");
        lock(&self.pinned).content.clone().ok_or_else(missing)
    }

    fn keep(&self, facts: Facts) {
        lock(&self.pinned).facts.get_or_insert(facts);
    }

    /// What tells this version from another. Where the walk met no tag, the version that is there now is meant from here on.
    ///
    /// # Errors
    /// It is not known yet, and cannot be asked for.
    pub fn stamp(&self) -> Answer<Stamp> {
        if self.content()?.0.etag.is_none() && lock(&self.pinned).facts.is_none() {
            self.renew()?;
        }
        let mut entry = Entry::bare(b"", EntryType::File);
        self.apply(&mut entry)?;
        Ok(Stamp::of(&entry))
    }

    /// Brings the entry's metadata to this version.
    ///
    /// # Errors
    /// As [`Object::stamp`].
    pub fn apply(&self, entry: &mut Entry) -> Answer<()> {
        let (content, modified) = self.content()?;
        attrs::stamp(entry, modified);
        (entry.size, entry.inode) = (Some(content.size), attrs::inode(content.etag.as_deref()));
        Ok(())
    }

    /// Its attributes, sorted: those that came with its bytes, else they are asked for.
    ///
    /// # Errors
    /// Another version is there by now, or the store failed.
    pub fn xattrs(&self) -> Answer<Vec<Xattr>> {
        let (content, _) = self.content()?;
        if let Some(facts) = &lock(&self.pinned).facts {
            return Ok(attrs::of(facts));
        }
        let facts = self.source.head(&self.key)?;
        if facts.etag != content.etag || facts.size != content.size {
            let kind = SourceErrorKind::Changed;
            return Err(SourceError::other(&self.path(), kind, "another version stands there"));
        }
        let all = attrs::of(&facts);
        self.keep(facts);
        Ok(all)
    }

    /// All of it, at once.
    ///
    /// # Errors
    /// Another version is there by now, or the store failed.
    pub fn read_whole(&self) -> Answer<Bytes> {
        if let Some(bytes) = lock(&self.pinned).whole.take() {
            return Ok(bytes);
        }
        let (content, _) = self.content()?;
        let (facts, bytes) = self.source.get(&self.key, &content, None)?;
        self.keep(facts);
        Ok(bytes)
    }

    /// Fills `buf` from `offset`, unless the object ends before; returns how much.
    ///
    /// # Errors
    /// As [`Object::read_whole`].
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> Answer<usize> {
        let (content, _) = self.content()?;
        if content.etag.is_none() {
            // Parts of two versions could not be told from those of one.
            let what = "the store does not say which version of it stands there, and it is too long to be read at once";
            return Err(SourceError::other(&self.path(), SourceErrorKind::Io, what));
        }
        let left = usize::try_from(content.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let len = left.min(buf.len());
        let Some(wanted) = buf.get_mut(..len) else { return Ok(0) };
        if len >= DIRECT_BYTES {
            self.fetch(&content, offset, wanted)?;
            return Ok(len);
        }
        let mut window = lock(&self.window);
        let mut got = 0;
        while let Some(missing) = wanted.get_mut(got..).filter(|missing| !missing.is_empty()) {
            let at = offset.saturating_add(got as u64);
            match window.copy(at, missing) {
                0 => self.advance(&content, &mut window, at, missing.len())?,
                copied => got = got.saturating_add(copied),
            }
        }
        Ok(len)
    }

    /// Reads ahead from `at`: the more, the longer reads have followed each other.
    fn advance(&self, content: &Content, window: &mut Window, at: u64, least: usize) -> Answer<()> {
        let follows = !window.bytes.is_empty() && window.end() == at;
        let len = if follows { window.bytes.len().saturating_mul(2) } else { WINDOW_BYTES_MIN };
        let left = usize::try_from(content.size.saturating_sub(at)).unwrap_or(usize::MAX);
        let len = len.clamp(WINDOW_BYTES_MIN, WINDOW_BYTES_MAX).max(least).min(left);
        let mut bytes = std::mem::take(&mut window.bytes);
        bytes.resize(len, 0);
        self.fetch(content, at, &mut bytes)?;
        *window = Window { start: at, bytes };
        Ok(())
    }

    /// Fills all of `buf`, by several requests at once.
    fn fetch(&self, content: &Content, offset: u64, buf: &mut [u8]) -> Answer<()> {
        let (key, objects) = (&self.key, &self.source.objects);
        let lens = buf.chunks(PART_BYTES).map(<[u8]>::len).collect::<Vec<_>>();
        let starts = lens.iter().scan(offset, |at, len| {
            let start = *at;
            *at = at.saturating_add(*len as u64);
            Some(start..*at)
        });
        let requests: Vec<_> = starts.map(|range| objects.get(key, content, Some(range))).collect();
        let work = async {
            let mut parts = futures_util::stream::iter(requests).buffered(PARTS_AT_ONCE);
            let mut slots = buf.chunks_mut(PART_BYTES);
            let mut first = None;
            while let (Some(part), Some(slot)) = (parts.next().await, slots.next()) {
                let (facts, bytes) = part?;
                // The store has looked that it is as long.
                if let Some(bytes) = bytes.get(..slot.len()) {
                    slot.copy_from_slice(bytes);
                }
                first.get_or_insert(facts);
            }
            Ok::<_, StoreError>(first)
        };
        let facts = self.source.wait(work).map_err(|e| e.of(&self.path()))?;
        facts.into_iter().for_each(|facts| self.keep(facts));
        Ok(())
    }
}

/// Reads several whole objects, or asks for their attributes; failures are left to whoever asks again.
pub(super) fn preload(source: &Source, objects: &[(&Object, bool)]) {
    let requests: Vec<_> = objects.iter().map(|(object, bytes)| load(source, object, *bytes)).collect();
    let work = async {
        let mut answers = futures_util::stream::iter(requests).buffer_unordered(SMALL_AT_ONCE);
        while answers.next().await.is_some() {
            if source.gone().is_some() {
                break;
            }
        }
        Ok(())
    };
    // An interruption is seen by whoever asks again.
    let _ = source.wait(work);
}

/// One of them; nothing is kept of another version than the one that a walk met.
async fn load(source: &Source, object: &Object, bytes: bool) -> Option<()> {
    let (content, _) = lock(&object.pinned).content.clone()?;
    let got = match bytes {
        true => source.objects.get(&object.key, &content, None).await.map(|(facts, bytes)| (facts, Some(bytes))),
        false => source.objects.head(&object.key).await.map(|facts| (facts, None)),
    };
    let (facts, whole) = got.map_err(|e| source.note(e)).ok()?;
    source.answered();
    if facts.etag == content.etag && facts.size == content.size {
        let mut pinned = lock(&object.pinned);
        (pinned.facts, pinned.whole) = (Some(facts), whole);
    }
    Some(())
}

impl Window {
    fn end(&self) -> u64 {
        self.start.saturating_add(self.bytes.len() as u64)
    }

    /// Copies what it has from `at` on; how much.
    fn copy(&self, at: u64, to: &mut [u8]) -> usize {
        let Some(from) = at.checked_sub(self.start).and_then(|skip| self.bytes.get(usize::try_from(skip).ok()?..))
        else {
            return 0;
        };
        let len = from.len().min(to.len());
        if let (Some(to), Some(from)) = (to.get_mut(..len), from.get(..len)) {
            to.copy_from_slice(from);
        }
        len
    }
}
