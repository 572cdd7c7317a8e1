//! Files and objects as a backup meets them, whichever they are.

use super::bucket;
use super::files::{self, DirHandle, Extent, SourceError, SourceFile, Stamp};
use crate::error::Error;
use crate::format::leaf::Meta;
use crate::format::tree::{Entry, Xattr};
use std::sync::Arc;

type Answer<T> = std::result::Result<T, SourceError>;

/// A directory that is walked.
#[derive(Debug, Clone)]
pub enum Dir {
    /// Of a file system.
    Files(Arc<DirHandle>),
    /// Of a bucket.
    Bucket(Arc<bucket::Folder>),
}

impl Dir {
    /// Whether both are the same one.
    pub fn is(&self, other: &Dir) -> bool {
        match (self, other) {
            (Dir::Files(one), Dir::Files(other)) => Arc::ptr_eq(one, other),
            (Dir::Bucket(one), Dir::Bucket(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }

    /// Opens a file in it.
    ///
    /// # Errors
    /// Gone, refused, or no file any more. Of an object only reading it says that.
    pub fn open(&self, entry: &Entry) -> Answer<File> {
        match self {
            Dir::Files(dir) => files::open(dir, entry).map(File::File),
            Dir::Bucket(dir) => Ok(File::Object(Box::new(dir.open(entry)))),
        }
    }

    /// Attributes of an entry in it.
    ///
    /// # Errors
    /// One of them cannot be read.
    pub fn xattrs(&self, entry: &Entry) -> Answer<Vec<Xattr>> {
        match self {
            Dir::Files(dir) => dir.xattrs(&entry.name),
            Dir::Bucket(dir) => dir.open(entry).xattrs(),
        }
    }

    /// Why nothing more can be read, of this and any other directory.
    pub fn gone(&self) -> Option<Error> {
        match self {
            Dir::Files(_) => None,
            Dir::Bucket(dir) => dir.gone(),
        }
    }
}

/// A file that is read.
#[derive(Debug)]
pub enum File {
    /// Of a file system.
    File(SourceFile),
    /// Of a bucket.
    Object(Box<bucket::Object>),
}

impl File {
    /// Its path, for messages.
    pub fn path(&self) -> Vec<u8> {
        match self {
            File::File(file) => file.path(),
            File::Object(object) => object.path(),
        }
    }

    /// What tells whether it changed.
    ///
    /// # Errors
    /// It cannot be asked for.
    pub fn stamp(&self) -> Answer<Stamp> {
        match self {
            File::File(file) => file.stamp(),
            File::Object(object) => object.stamp(),
        }
    }

    /// Brings the entry's metadata up to date.
    ///
    /// # Errors
    /// It cannot be asked for.
    pub fn apply(&self, entry: &mut Entry) -> Answer<()> {
        match self {
            File::File(file) => file.apply(entry),
            File::Object(object) => object.apply(entry),
        }
    }

    /// Before it is read anew: of an object, the version that is there now is meant from here on.
    ///
    /// # Errors
    /// It is gone, or the store failed.
    pub fn renew(&self) -> Answer<()> {
        match self {
            File::File(_) => Ok(()),
            File::Object(object) => object.renew(),
        }
    }

    /// Whether reading it anew may succeed where it failed with this.
    pub fn is_passing(&self, e: &SourceError) -> bool {
        matches!(self, File::Object(_)) && e.kind == files::SourceErrorKind::Changed
    }

    /// Whether it has fewer blocks than bytes.
    pub fn is_sparse(&self) -> bool {
        matches!(self, File::File(file) if file.is_sparse())
    }

    /// Fills `buf` from `offset`, unless the file ends before; returns how much.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> Answer<usize> {
        match self {
            File::File(file) => file.read_at(offset, buf),
            File::Object(object) => object.read_at(offset, buf),
        }
    }

    /// What lies at `offset`.
    ///
    /// # Errors
    /// It cannot be asked for.
    pub fn extent(&self, offset: u64) -> Answer<Extent> {
        match self {
            File::File(file) => file.extent(offset),
            File::Object(object) => {
                let size = object.stamp()?.size;
                Ok(if offset < size { Extent::Data { start: offset, end: size } } else { Extent::End })
            }
        }
    }

    /// Its attributes, sorted.
    ///
    /// # Errors
    /// One of them cannot be read.
    pub fn xattrs(&self) -> Answer<Vec<Xattr>> {
        match self {
            File::File(file) => file.xattrs(),
            File::Object(object) => object.xattrs(),
        }
    }

    /// Says that it will be read from front to back.
    pub fn advise_sequential(&self) {
        if let File::File(file) = self {
            file.advise_sequential();
        }
    }
}

/// A file as a walk meets it.
#[derive(Debug)]
pub enum Found {
    /// Of a file system.
    File(files::Found),
    /// Of a bucket.
    Object(Box<Entry>),
}

impl Found {
    /// Its name.
    pub fn name(&self) -> &[u8] {
        match self {
            Found::File(found) => found.name(),
            Found::Object(entry) => &entry.name,
        }
    }

    /// What is said of it.
    pub fn meta(&self) -> Meta {
        match self {
            Found::File(found) => found.meta(),
            Found::Object(entry) => Meta::of(entry),
        }
    }

    /// Its entry, without content.
    pub fn entry(self) -> Entry {
        match self {
            Found::File(found) => found.entry(),
            Found::Object(entry) => *entry,
        }
    }
}

/// One step of a walk.
#[derive(Debug)]
pub enum Event {
    /// A directory begins.
    Enter(Box<Entry>),
    /// A file.
    File(Found, Dir),
    /// Anything else but a directory.
    Item(Box<Entry>, Dir),
    /// The directory entered last ends.
    Leave,
    /// Something cannot be read, at this path.
    Failed(Vec<u8>, SourceError),
    /// Something was left out.
    Excluded,
}

/// A walk.
#[derive(Debug)]
pub enum Walk {
    /// Through directories.
    Files(files::Walk),
    /// Through the listing of a bucket.
    Bucket(Box<bucket::Walker>),
}

impl Walk {
    /// Why nothing more can be had, where what is walked can go away as a whole.
    pub fn gone(&self) -> Option<Error> {
        match self {
            Walk::Files(_) => None,
            Walk::Bucket(walker) => walker.gone(),
        }
    }

    /// The bucket that is walked, if one is.
    pub fn bucket(&self) -> Option<Arc<bucket::Source>> {
        match self {
            Walk::Files(_) => None,
            Walk::Bucket(walker) => Some(walker.source()),
        }
    }

    /// The next step; `None` at the end.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Option<Event> {
        Some(match self {
            Walk::Files(walk) => match walk.next()? {
                files::Event::Enter { entry, .. } => Event::Enter(entry),
                files::Event::File { found, dir } => Event::File(Found::File(found), Dir::Files(dir)),
                files::Event::Item { entry, dir } => Event::Item(entry, Dir::Files(dir)),
                files::Event::Leave => Event::Leave,
                files::Event::Failed { path, error } => Event::Failed(path, error),
                files::Event::Excluded => Event::Excluded,
            },
            Walk::Bucket(walker) => match walker.next()? {
                bucket::Event::Enter(entry) => Event::Enter(entry),
                bucket::Event::Object(entry, dir) => Event::File(Found::Object(entry), Dir::Bucket(dir)),
                bucket::Event::Leave => Event::Leave,
                bucket::Event::Failed(error) => Event::Failed(error.path.clone(), error),
                bucket::Event::Excluded => Event::Excluded,
            },
        })
    }
}
