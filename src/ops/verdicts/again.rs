//! The files of a snapshot, judged again by the program of now: a recorded verdict is as good as the program that made it.
//!
//! Every file is read, by its chunks, and nothing is written: neither to a disk nor into the snapshot. What is recorded
//! otherwise is told; what cannot be read is, too, and the rest is judged.

use super::attribute;
use crate::base::Cancel;
use crate::error::{Error, Kind, Result};
use crate::format::tree::Entry;
use crate::model::archive::{At, Part, examine};
use crate::model::recorded::Recorded;
use crate::model::verdict::{Grade, Sha256};
use crate::region::lock;
use crate::repo::file_at::FileAt;
use crate::repo::reader::Reader;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// Files that are kept by name.
const NAMED_MAX: usize = 1000;
/// Bytes of chunks that are fetched for one file beside four times its own: an archive whose parts lie here and there is
/// fetched by whole chunks, again and again.
const FETCHED_MAX: u64 = 1 << 30;

/// A file with another verdict than the recorded one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Other {
    /// Its path.
    pub path: PathBuf,
    /// What loading it would do, as it is recorded; `None` without a verdict that is understood.
    pub was: Option<Grade>,
    /// The same by the program of now.
    pub now: Grade,
    /// Whether the recorded hash is not that of its content.
    pub hash: bool,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Again {
    /// Files that were judged.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The first that are recorded otherwise.
    pub others: Vec<Other>,
    /// How many are.
    pub others_total: u64,
    /// Of them, those whose hash is another.
    pub hashes: u64,
    /// Files that no region has intact.
    pub lost: u64,
}

impl Again {
    /// Judges a file, gives its entry the verdict in place of the recorded one, and keeps what differs.
    ///
    /// # Errors
    /// No region has its content intact; stopped.
    pub(super) fn judge(&mut self, reader: &Reader, path: &Path, entry: &mut Entry, cancel: &Cancel) -> Result<()> {
        let now = judged(reader, entry, cancel).inspect_err(|e| {
            self.lost = self.lost.saturating_add(u64::from(e.kind() != Kind::Cancelled));
        })?;
        let was = attribute::of(entry);
        self.files = self.files.saturating_add(1);
        self.bytes = self.bytes.saturating_add(entry.size());
        let hash = was.as_ref().is_some_and(|was| was.sha256 != now.sha256);
        let (was, grade) = (was.map(|was| was.pickle.grade), now.pickle.grade);
        attribute::put(entry, &now);
        if was != Some(grade) || hash {
            self.others_total = self.others_total.saturating_add(1);
            self.hashes = self.hashes.saturating_add(u64::from(hash));
            if self.others.len() < NAMED_MAX {
                self.others.push(Other { path: path.to_owned(), was, now: grade, hash });
            }
        }
        Ok(())
    }
}

fn judged(reader: &Reader, entry: &Entry, cancel: &Cancel) -> Result<Recorded> {
    let file = Stored { file: FileAt::open(reader, entry)?, failed: Mutex::new(None), cancel };
    let failed = |e: io::Error| {
        let why = lock(&file.failed).take();
        why.unwrap_or_else(|| Error::new(Kind::Damage, format!("cannot be read: {e}")))
    };
    let sha256 = Sha256::of(&mut Part::whole(&file)).map_err(failed)?;
    // What is lost of it is known by now: what still fails was too much, and makes it unknown.
    let pickle = examine(&file);
    cancel.check()?;
    match lock(&file.failed).take() {
        Some(e) if e.kind() != Kind::Source => Err(e),
        _ => Ok(Recorded::new(sha256, pickle)),
    }
}

/// A file of a snapshot as the judges read it; remembers why it could not be read.
struct Stored<'s> {
    file: FileAt<'s>,
    failed: Mutex<Option<Error>>,
    cancel: &'s Cancel,
}

impl At for Stored<'_> {
    fn size(&self) -> u64 {
        self.file.size()
    }

    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize> {
        let left = usize::try_from(self.size().saturating_sub(offset)).unwrap_or(usize::MAX);
        let len = out.len().min(left);
        let most = self.size().saturating_mul(4).saturating_add(FETCHED_MAX);
        let read = self.cancel.check().and_then(|()| match self.file.fetched() > most {
            true => Err(Error::new(Kind::Source, "too much of it would have to be fetched")),
            false => self.file.read_at(offset, out.get_mut(..len).unwrap_or_default()),
        });
        read.map(|()| len).map_err(|e| {
            let told = io::Error::other(e.what().to_owned());
            lock(&self.failed).get_or_insert(e);
            told
        })
    }
}
