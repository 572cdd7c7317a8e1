//! A region's folder in this process that refuses, or says what is not so: what a store does now and then, and a folder never
//! when it is asked to.

use bytes::Bytes;
use holdfast::base::Place;
use holdfast::store::StoreErrorKind;
use holdfast::store::testing::{Answer, Line, StandIn, mount, unmount};
use std::io::ErrorKind;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

/// What it does. Objects are meant whose path begins so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spoil {
    /// They are answered so when they are read.
    Reads(&'static str, StoreErrorKind),
    /// They cannot be removed.
    Keeps(&'static str),
    /// Who lists the first folder is told of the other one too.
    Tells(&'static str, &'static str),
    /// They are listed with one byte.
    Shrinks(&'static str),
}

/// In front of the folder until it is dropped.
pub struct Spoilt(Place);

#[derive(Debug)]
struct Folder {
    root: PathBuf,
    spoil: Spoil,
}

impl Spoilt {
    /// Whoever connects to the folder from now on meets this.
    pub fn at(root: &Path, spoil: Spoil) -> Spoilt {
        let place = Place::from(root.to_owned());
        mount(&place, Arc::new(Folder { root: root.to_owned(), spoil }));
        Spoilt(place)
    }
}

impl Drop for Spoilt {
    fn drop(&mut self) {
        unmount(&self.0);
    }
}

fn answer<T>(done: std::io::Result<T>) -> Answer<T> {
    done.map_err(|e| if e.kind() == ErrorKind::NotFound { StoreErrorKind::NotFound } else { StoreErrorKind::Failed })
}

impl Folder {
    fn lines(&self, folder: &Path, lines: &mut Vec<Line>) -> std::io::Result<()> {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let meta = entry.metadata()?;
            let below = entry.path();
            if meta.is_dir() {
                self.lines(&below, lines)?;
                continue;
            }
            let path = below.strip_prefix(&self.root).expect("below the root").display().to_string();
            // What is not finished has such a name.
            if !path.contains('#') {
                let modified = meta.modified()?.duration_since(UNIX_EPOCH).expect("a time").as_millis() as i64;
                lines.push(Line { path, size: meta.len(), modified });
            }
        }
        Ok(())
    }
}

impl StandIn for Folder {
    fn connect(&self, _: bool) -> Answer<()> {
        answer(std::fs::metadata(&self.root).map(drop))
    }

    fn create(&self, path: &str, bytes: &Bytes) -> Answer<bool> {
        let at = self.root.join(path);
        answer(std::fs::create_dir_all(at.parent().expect("objects lie in folders")))?;
        match std::fs::File::create_new(&at).and_then(|mut file| std::io::Write::write_all(&mut file, bytes)) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(false),
            done => answer(done.map(|()| true)),
        }
    }

    fn replace(&self, path: &str, bytes: &Bytes) -> Answer<()> {
        answer(std::fs::write(self.root.join(path), bytes))
    }

    fn get(&self, path: &str, range: Option<Range<u64>>) -> Answer<Bytes> {
        if let Spoil::Reads(below, with) = self.spoil
            && path.starts_with(below)
        {
            return Err(with);
        }
        let bytes = Bytes::from(answer(std::fs::read(self.root.join(path)))?);
        let Some(range) = range else { return Ok(bytes) };
        let (from, to) = (range.start as usize, range.end as usize);
        if to > bytes.len() { Err(StoreErrorKind::Short) } else { Ok(bytes.slice(from..to)) }
    }

    fn size(&self, path: &str) -> Answer<u64> {
        answer(std::fs::metadata(self.root.join(path)).map(|meta| meta.len()))
    }

    fn list(&self, folder: &str) -> Answer<Vec<Line>> {
        let mut lines = Vec::new();
        let also =
            if let Spoil::Tells(asked, other) = self.spoil { Some(other).filter(|_| asked == folder) } else { None };
        for folder in std::iter::once(folder).chain(also) {
            match self.lines(&self.root.join(folder), &mut lines) {
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                done => answer(done)?,
            }
        }
        if let Spoil::Shrinks(below) = self.spoil {
            lines.iter_mut().filter(|line| line.path.starts_with(below)).for_each(|line| line.size = 1);
        }
        Ok(lines)
    }

    fn delete(&self, path: &str) -> Answer<()> {
        if let Spoil::Keeps(below) = self.spoil
            && path.starts_with(below)
        {
            return Err(StoreErrorKind::Denied);
        }
        answer(std::fs::remove_file(self.root.join(path)))
    }

    fn pause(&self, _: Duration) {}
}
