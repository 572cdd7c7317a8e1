//! Small objects of a bucket: one request each, and the version that it met.

use super::hand::{ATTEMPTS_MAX, Worker, failed};
use super::plan::{WHOLE_BYTES_MAX, Work};
use super::step::Done;
use crate::error::Result;
use crate::format::tree::{Entry, Xattr};
use crate::model::recorded::Recorded;
use crate::ops::verdicts::attribute;
use crate::source::any::Dir;
use crate::source::bucket::Object;
use crate::source::files::{SourceError, SourceErrorKind};

/// The objects of a batch, as far as they are to be read or asked for, in its order; of files there are none. All of them
/// are on their way at once, as far as that is bounded: a store answers late, and many at a time.
pub(super) fn opened(dir: &Dir, work: &[Work]) -> Vec<Option<Object>> {
    let Dir::Bucket(folder) = dir else { return Vec::new() };
    let opened: Vec<Option<Object>> = work.iter().map(|w| w.read.then(|| folder.open(&w.entry))).collect();
    let wanted = opened.iter().zip(work).filter_map(|(object, w)| {
        let bytes = !w.entry.has_content();
        object.as_ref().filter(|_| !bytes || w.entry.size() <= WHOLE_BYTES_MAX).map(|object| (object, bytes))
    });
    folder.preload(&wanted.collect::<Vec<_>>());
    opened
}

impl Worker<'_, '_> {
    /// An object that is read at once, or only asked for its attributes where its content is known.
    pub(super) fn object(&mut self, dir: &Dir, object: &Object, mut entry: Entry) -> Result<Done> {
        if entry.has_content() {
            match object.xattrs() {
                Ok(found) => return Ok(done(entry, found, false)),
                Err(e) if e.kind == SourceErrorKind::Changed => {
                    (entry.inline, entry.chunks, entry.list) = (None, None, None);
                    // What is said of the content before is not true of the one that comes.
                    attribute::take(&mut entry);
                }
                Err(e) => return Ok(failed(&e)),
            }
            if let Err(e) = object.renew().and_then(|()| object.apply(&mut entry)) {
                return Ok(failed(&e));
            }
        }
        let mut changed = None;
        for _ in 0..ATTEMPTS_MAX {
            if entry.size() > WHOLE_BYTES_MAX {
                return self.of_now(dir, object, entry);
            }
            match self.whole(object, &mut entry)? {
                Ok(found) => return Ok(done(entry, found, true)),
                Err(e) if e.kind == SourceErrorKind::Changed => changed = Some(e),
                Err(e) => return Ok(failed(&e)),
            }
            if let Err(e) = object.renew().and_then(|()| object.apply(&mut entry)) {
                return Ok(failed(&e));
            }
        }
        let e = changed.unwrap_or_else(|| SourceError::other(&object.path(), SourceErrorKind::Changed, "it changed"));
        Ok(failed(&e))
    }

    /// Reads it and stores it.
    fn whole(&mut self, object: &Object, entry: &mut Entry) -> Result<std::result::Result<Vec<Xattr>, SourceError>> {
        let bytes = match object.read_whole() {
            Ok(bytes) => bytes,
            Err(e) => return Ok(Err(e)),
        };
        self.pace.iter().for_each(|pace| pace.book(bytes.len() as u64).wait());
        self.progress.bytes_read.add(bytes.len() as u64);
        self.make_room(bytes.len());
        if let Some(room) = self.buf.get_mut(..bytes.len()) {
            room.copy_from_slice(&bytes);
        }
        self.content(entry, bytes.len())?;
        if self.judges {
            attribute::put(entry, &Recorded::of(&bytes));
        }
        Ok(object.xattrs())
    }

    /// One that has grown to need turns: the version that is there now, by its own tag.
    fn of_now(&mut self, dir: &Dir, object: &Object, mut entry: Entry) -> Result<Done> {
        match object.xattrs() {
            Ok(found) => entry.xattrs = Some(found),
            Err(e) => return Ok(failed(&e)),
        }
        self.alone(dir, entry)
    }
}

/// The attributes are those that the store says, and the verdict stays with its content.
fn done(mut entry: Entry, found: Vec<Xattr>, read: bool) -> Done {
    let before = std::mem::replace(&mut entry.xattrs, Some(found).filter(|found| !found.is_empty()));
    attribute::keep(&mut entry, before.as_deref());
    Done { result: Ok(entry), items: None, read, model: false, misses: Vec::new(), changed: None }
}
