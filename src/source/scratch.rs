//! Files without a name, for what is too large for memory: nobody else can open them, and they go with the program.

use crate::error::{Error, Kind, Result};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::path::Path;

/// Only its owner may read a scratch file.
const MODE: Mode = Mode::RUSR.union(Mode::WUSR);

/// How often a name that is taken already is given up for another one.
const TRIES: u32 = 16;

/// An empty file in this directory.
///
/// # Errors
/// The directory is not there, or cannot be written.
pub fn file(dir: &Path) -> Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    // Not every filesystem has them: an older overlay, some network filesystems.
    let made = rustix::fs::open(dir, flags, MODE).map(File::from).or_else(|e| match e {
        Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOENT => unlinked(dir),
        e => Err(e),
    });
    made.map_err(|e| {
        let what = format!("cannot make a scratch file: {}", std::io::Error::from(e).kind());
        Error::new(Kind::Source, what).at(dir.display()).advise("set TMPDIR to a directory with more room")
    })
}

/// A file that is there, and no link to another one.
///
/// # Errors
/// It is none, or cannot be opened.
pub fn existing(path: &Path) -> std::io::Result<File> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::open(path, flags, Mode::empty())?))
}

/// A new file whose name is taken away at once.
fn unlinked(dir: &Path) -> std::result::Result<File, Errno> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::RDWR | OFlags::CLOEXEC;
    let mut taken = Errno::EXIST;
    for n in 0..TRIES {
        let path = dir.join(format!(".holdfast-scratch-{}-{n}", std::process::id()));
        match rustix::fs::open(&path, flags, MODE) {
            Ok(file) => {
                rustix::fs::unlink(&path)?;
                return Ok(File::from(file));
            }
            Err(Errno::EXIST) => {}
            Err(e) => {
                taken = e;
                break;
            }
        }
    }
    Err(taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek, Write};

    #[test]
    fn a_scratch_file_has_no_name_on_any_filesystem() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(format!(".holdfast-scratch-{}-0", std::process::id())), "of another").unwrap();
        for mut file in [file(dir.path()).unwrap(), unlinked(dir.path()).unwrap()] {
            file.write_all(b"kept").unwrap();
            file.rewind().unwrap();
            let mut text = String::new();
            file.read_to_string(&mut text).unwrap();
            assert_eq!(text, "kept");
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(file(&dir.path().join("none")).is_err() && unlinked(&dir.path().join("none")).is_err());
    }
}
