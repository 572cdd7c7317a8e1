//! Files without a name, for what is too large for memory: nobody else can open them, and they go with the program.

use crate::error::{Error, Kind, Result};
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::path::Path;

/// Only its owner may read a scratch file.
const MODE: Mode = Mode::RUSR.union(Mode::WUSR);

/// An empty file in this directory.
///
/// # Errors
/// The directory is not there, or does not take files without a name.
pub fn file(dir: &Path) -> Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    rustix::fs::open(dir, flags, MODE).map(File::from).map_err(|e| {
        let what = format!("cannot make a scratch file: {}", std::io::Error::from(e).kind());
        Error::new(Kind::Source, what).at(dir.display()).advise("set TMPDIR to a directory with room for the database")
    })
}
