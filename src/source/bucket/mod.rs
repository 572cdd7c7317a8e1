//! Objects of a bucket as files: their keys' parts are directories and names.
//!
//! Contract: a listing is complete before the first object is read; what of it cannot be a path is named, never left out;
//! the bytes of a file are those of one version of its object. Nothing is written into the bucket that is backed up.

mod attrs;
mod front;
mod object;
mod put;
mod walk;

pub use attrs::{is_new, is_same_content};
pub use front::Front;
pub use object::Object;
pub use put::Sink;
pub use walk::{Event, Walker};

use super::files::{SourceError, SourceErrorKind};
use super::sort::{Sorted, Sorter};
use crate::base::{Bucket, Cancel};
use crate::error::{Error, Kind, Result};
use crate::format::tree::Entry;
use crate::store::{Content, Facts, Line, Objects, StoreError, StoreErrorKind, StoreSettings};
use std::cmp::Ordering;
use std::ops::Range;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::runtime::Runtime;

/// Threads that serve the sockets.
const THREADS: usize = 2;
/// After so many failures in a row, each of them after all patience, the store is as good as away.
const FAILURES_MAX: u32 = 16;
/// Between two looks whether the run was interrupted.
const LOOK: Duration = Duration::from_millis(100);

/// A prefix of a bucket that is spoken to.
#[derive(Debug)]
pub struct Source {
    objects: Objects,
    runtime: Runtime,
    cancel: Cancel,
    place: Bucket,
    /// Empty, or with a slash at its end.
    prefix: String,
    /// Why it cannot be used any more.
    gone: Mutex<Option<Error>>,
    /// Requests in a row that failed for no reason of their own.
    failures: AtomicU32,
}

/// A directory: keys that begin alike.
#[derive(Debug)]
pub struct Folder {
    source: Arc<Source>,
    /// The key of what lies in it begins so: empty, or with a slash at its end.
    key: Vec<u8>,
}

impl Source {
    /// Speaks to a bucket from now on. Whether it is there, only a listing says.
    ///
    /// # Errors
    /// Something of its configuration is missing or wrong.
    pub fn connect(place: &Bucket, cancel: &Cancel) -> Result<Arc<Source>> {
        let objects = Objects::connect(place, &StoreSettings::default()).map_err(|e| e.lift())?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(THREADS).enable_all().build();
        let runtime = runtime.map_err(|e| Error::new(Kind::Bug, format!("no runtime: {}", e.kind())))?;
        let prefix = if place.prefix.is_empty() { String::new() } else { format!("{}/", place.prefix) };
        let (place, cancel) = (place.clone(), cancel.clone());
        Ok(Arc::new(Source {
            objects,
            runtime,
            cancel,
            place,
            prefix,
            gone: Mutex::default(),
            failures: AtomicU32::new(0),
        }))
    }

    /// A number for the place: objects of another one are not compared.
    pub fn id(place: &Bucket) -> u64 {
        let endpoint = place.endpoint.as_deref().unwrap_or_default();
        number(format!("{}\n{}\n{}\n{endpoint}", place.service.scheme(), place.name, place.prefix).as_bytes())
    }

    /// Why nothing more can be had of it: the store is away, or wants nothing more of these credentials.
    pub fn gone(&self) -> Option<Error> {
        self.gone.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for the store, or for somebody who interrupts.
    fn wait<T>(
        &self,
        work: impl Future<Output = std::result::Result<T, StoreError>>,
    ) -> std::result::Result<T, Trouble> {
        self.runtime.block_on(async {
            let mut work = std::pin::pin!(work);
            loop {
                if self.cancel.raised() {
                    return Err(Trouble::Interrupted);
                }
                if let Ok(done) = tokio::time::timeout(LOOK, &mut work).await {
                    return done.inspect(|_| self.answered()).map_err(|e| self.note(e));
                }
            }
        })
    }

    /// Takes note of what concerns all that would follow.
    fn note(&self, e: StoreError) -> Trouble {
        use StoreErrorKind as K;
        let all = matches!(
            e.kind,
            K::NoBucket | K::Credentials | K::Skewed | K::Unreachable | K::TimedOut | K::Throttled | K::Unfit
        );
        // A store may fail at one object; at one after the other, it would be asked for days.
        let failing = e.kind == K::Failed && self.failures.fetch_add(1, Relaxed) >= FAILURES_MAX - 1;
        if all || failing {
            let error = e.lift().at(self.place.to_string());
            self.gone.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        }
        Trouble::Store(e)
    }

    /// It has given what was asked for.
    fn answered(&self) {
        self.failures.store(0, Relaxed);
    }

    /// All objects, in the order of a tree.
    fn listed(&self) -> Result<Sorted> {
        let mut sorter = Sorter::new(&std::env::temp_dir(), Row::order);
        let mut pages = self.objects.pages(&self.prefix);
        let mut empty = true;
        while let Some(lines) = self.wait(self.objects.page(&mut pages)).map_err(|e| e.lift(&self.place))? {
            for line in &lines {
                let Some(rest) = line.key.strip_prefix(self.prefix.as_bytes()) else {
                    let what = "its listing has keys that were not asked for";
                    return Err(Error::new(Kind::Source, what).at(self.place.to_string()));
                };
                empty = false;
                sorter.push(&Row::record(rest, line))?;
            }
        }
        if empty {
            let what = "there is no object below it";
            let advice = "check bucket and prefix; a prefix ends at a `/`, and one object alone is no prefix";
            return Err(Error::new(Kind::Source, what).at(self.place.to_string()).advise(advice));
        }
        sorter.finish()
    }

    fn head(&self, key: &[u8]) -> std::result::Result<Facts, SourceError> {
        self.wait(self.objects.head(key)).map_err(|e| e.of(&self.shown(key)))
    }

    fn get(
        &self,
        key: &[u8],
        content: &Content,
        range: Option<Range<u64>>,
    ) -> std::result::Result<(Facts, bytes::Bytes), SourceError> {
        self.wait(self.objects.get(key, content, range)).map_err(|e| e.of(&self.shown(key)))
    }

    /// An object in messages.
    fn shown(&self, key: &[u8]) -> Vec<u8> {
        let bucket = format!("{}://{}/", self.place.service.scheme(), self.place.name);
        [bucket.as_bytes(), key].concat()
    }
}

impl Folder {
    /// The path of an entry in it, for messages.
    pub fn path_of(&self, name: &[u8]) -> Vec<u8> {
        self.source.shown(&[&self.key, name].concat())
    }

    /// An object in it, as a walk met it, or just by its name.
    pub fn open(&self, entry: &Entry) -> Object {
        Object::new(Arc::clone(&self.source), [&self.key[..], &entry.name].concat(), entry)
    }

    /// Reads several small objects at once, or asks for their attributes alone: what comes is kept with each until it is
    /// used. What fails is asked for again by whoever needs it.
    pub fn preload(&self, objects: &[(&Object, bool)]) {
        object::preload(&self.source, objects);
    }

    /// As [`Source::gone`].
    pub fn gone(&self) -> Option<Error> {
        self.source.gone()
    }
}

/// Why nothing came.
enum Trouble {
    Interrupted,
    Store(StoreError),
}

impl Trouble {
    fn lift(&self, place: &Bucket) -> Error {
        match self {
            Trouble::Interrupted => Error::new(Kind::Cancelled, "interrupted"),
            Trouble::Store(e) => e.lift().at(place.to_string()),
        }
    }

    /// Of one object.
    fn of(self, path: &[u8]) -> SourceError {
        use StoreErrorKind as K;
        let Trouble::Store(e) = self else {
            return SourceError::other(path, SourceErrorKind::Io, "interrupted");
        };
        let kind = match e.kind {
            K::NotFound => SourceErrorKind::Vanished,
            K::Denied | K::Credentials | K::Skewed => SourceErrorKind::Denied,
            K::Changed => SourceErrorKind::Changed,
            K::Full => SourceErrorKind::Full,
            _ => SourceErrorKind::Io,
        };
        SourceError::other(path, kind, e.to_string())
    }
}

/// The first bytes of a hash.
fn number(bytes: &[u8]) -> u64 {
    blake3::hash(bytes).as_bytes().first_chunk().map_or(0, |first| u64::from_le_bytes(*first))
}

/// A line of the listing on its way through the sorter: lengths and numbers, the key below the prefix, the tag.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    rest: Vec<u8>,
    size: u64,
    modified: i64,
    etag: Option<String>,
}

impl Row {
    fn record(rest: &[u8], line: &Line) -> Vec<u8> {
        let etag = line.etag.as_deref().unwrap_or_default().as_bytes();
        let head =
            [&line.size.to_le_bytes()[..], &line.modified.to_le_bytes(), &(rest.len() as u64).to_le_bytes()].concat();
        [&head, rest, etag].concat()
    }

    fn split(record: &[u8]) -> Option<(u64, i64, &[u8], &[u8])> {
        let (size, behind) = record.split_first_chunk()?;
        let (modified, behind) = behind.split_first_chunk()?;
        let (len, behind) = behind.split_first_chunk()?;
        let (rest, etag) = behind.split_at_checked(usize::try_from(u64::from_le_bytes(*len)).ok()?)?;
        Some((u64::from_le_bytes(*size), i64::from_le_bytes(*modified), rest, etag))
    }

    fn parse(record: &[u8]) -> Option<Row> {
        let (size, modified, rest, etag) = Row::split(record)?;
        let etag = Some(String::from_utf8(etag.to_vec()).ok()?).filter(|etag| !etag.is_empty());
        Some(Row { rest: rest.to_vec(), size, modified, etag })
    }

    /// By the parts of the keys, so that a directory stands where its name does, then by all.
    fn order(a: &[u8], b: &[u8]) -> Ordering {
        let (Some((.., one, _)), Some((.., other, _))) = (Row::split(a), Row::split(b)) else { return a.cmp(b) };
        one.split(|b| *b == b'/').cmp(other.split(|b| *b == b'/')).then_with(|| a.cmp(b))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Service;

    #[test]
    fn a_store_that_fails_again_and_again_is_gone_and_one_that_fails_at_times_is_not() {
        // Nobody is asked: only failures are counted.
        let place = Bucket { endpoint: Some("http://127.0.0.1:9".into()), ..Bucket::new(Service::S3, "b", "p") };
        let source = Source::connect(&place, &Cancel::default()).unwrap();
        let failed = || StoreError::new(StoreErrorKind::Failed, "read", "k", "internal error");
        for _ in 0..3 {
            (1..FAILURES_MAX).for_each(|_| drop(source.note(failed())));
            assert!(source.gone().is_none());
            source.answered();
        }
        (0..FAILURES_MAX).for_each(|_| drop(source.note(failed())));
        let gone = source.gone().unwrap();
        assert!(gone.kind() == Kind::Retry && gone.to_string().contains("internal error"), "{gone}");
    }
}
