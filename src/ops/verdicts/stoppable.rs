//! A file on a disk that is read again, until the run is stopped.

use crate::base::Cancel;
use rustix::fs::OFlags;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// A file of which reading ends when the run is stopped.
pub struct Stoppable<'c> {
    file: File,
    cancel: &'c Cancel,
}

impl<'c> Stoppable<'c> {
    /// Opens it. What was put in its place, a pipe for instance, is not waited for.
    ///
    /// # Errors
    /// It cannot be opened, or is no file.
    pub fn open(path: &Path, cancel: &'c Cancel) -> io::Result<Self> {
        let file = File::options().read(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("it is no file any more"));
        }
        Ok(Stoppable { file, cancel })
    }
}

impl Read for Stoppable<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.cancel.raised() {
            return Err(io::Error::other("stopped"));
        }
        self.file.read(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_file_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let (pipe, file, cancel) = (dir.path().join("pipe"), dir.path().join("file"), Cancel::default());
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        std::fs::write(&file, b"words").unwrap();
        for no_file in [&pipe, dir.path()] {
            assert!(Stoppable::open(no_file, &cancel).err().unwrap().to_string().contains("no file"));
        }
        let mut text = String::new();
        Stoppable::open(&file, &cancel).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "words");
    }
}
