//! Secrets in files. Symbolic links, pipes and descriptors are followed: that is how secrets are mounted and
//! piped in. A file is read once, and no further than its limit.

use super::{FromFile, PASSPHRASE_BYTES_MAX, Unlock, from_recovery_key, no_secret, passphrase, text};
use crate::error::{Error, Kind, Result};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use zeroize::Zeroizing;

/// Length of a key file, in bytes.
pub const KEY_FILE_BYTES: usize = 32;

/// Room for the longest secret, a line end of two bytes, and one byte more to see that there is more.
const BUFFER_BYTES: usize = PASSPHRASE_BYTES_MAX + 3;

/// The start of a file that may hold a secret.
struct Content {
    buffer: Zeroizing<[u8; BUFFER_BYTES]>,
    len: usize,
    warnings: Vec<String>,
}

impl Content {
    fn bytes(&self) -> &[u8] {
        &self.buffer[..self.len]
    }
}

/// A passphrase file: UTF-8, one line end at its end is cut off (`\n` or `\r\n`), everything else counts.
///
/// # Errors
/// [`Kind::WrongKey`] when the file cannot be read, is empty, too long or no text.
pub fn from_passphrase_file(path: &Path) -> Result<FromFile> {
    let content = read("passphrase file", path)?;
    let bytes = content.bytes();
    let bytes = bytes.strip_suffix(b"\n").map_or(bytes, |line| line.strip_suffix(b"\r").unwrap_or(line));
    let unlock = passphrase(bytes).map_err(|e| e.at(path.display()))?;
    Ok(FromFile { unlock, warnings: content.warnings })
}

/// A key file: 32 bytes, all of them key.
///
/// # Errors
/// [`Kind::WrongKey`] when the file cannot be read or has another length.
pub fn from_key_file(path: &Path) -> Result<FromFile> {
    let content = read("key file", path)?;
    let bytes = content.bytes();
    let mut key = Zeroizing::new([0; KEY_FILE_BYTES]);
    if bytes.len() != key.len() {
        let long = if bytes.len() == BUFFER_BYTES { "more".into() } else { bytes.len().to_string() };
        let e = no_secret(&format!("the key file has {long} bytes instead of {KEY_FILE_BYTES}")).at(path.display());
        return Err(e.advise("use a file that `key add` has made, or 32 random bytes; a text is a passphrase"));
    }
    key.copy_from_slice(bytes);
    Ok(FromFile { unlock: Unlock::KeyFile(key), warnings: content.warnings })
}

/// A file with the text of a recovery key; white space around it is cut off.
///
/// # Errors
/// [`Kind::WrongKey`] when the file cannot be read, is empty, too long or no text.
pub fn from_recovery_file(path: &Path) -> Result<FromFile> {
    let content = read("recovery key file", path)?;
    let unlock = text(content.bytes()).and_then(from_recovery_key).map_err(|e| e.at(path.display()))?;
    Ok(FromFile { unlock, warnings: content.warnings })
}

fn read(what: &str, path: &Path) -> Result<Content> {
    let failed = |e: io::Error| {
        let e = no_secret(&format!("the {what} cannot be read: {}", reason(&e))).at(path.display());
        e.advise("nothing can be opened without it: check the path and the permissions")
    };
    let mut file = File::open(path).map_err(failed)?;
    let meta = file.metadata().map_err(failed)?;
    let mut warnings = Vec::new();
    let mode = meta.mode() & 0o777;
    // Who does not own it can read it because its group was given it: so clusters mount secrets.
    let user = rustix::process::geteuid();
    let others = if user.is_root() || user.as_raw() == meta.uid() { 0o044 } else { 0o004 };
    if meta.is_file() && mode & others != 0 {
        warnings.push(format!(
            "the {what} can be read by others (mode {mode:04o}) [{}]; chmod 600 makes it private",
            path.display()
        ));
    }
    let mut content = Content { buffer: Zeroizing::new([0; BUFFER_BYTES]), len: 0, warnings };
    while content.len < BUFFER_BYTES {
        match file.read(&mut content.buffer[content.len..]) {
            Ok(0) => break,
            Ok(n) => content.len += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(failed(e)),
        }
    }
    Ok(content)
}

/// Writes a new key file: for its owner only, never over anything, on the disk when this returns. Killed
/// in between it may leave a file that is too short, which [`from_key_file`] refuses.
///
/// # Errors
/// [`Kind::Config`] when something stands there already, [`Kind::Full`], [`Kind::Denied`] or [`Kind::Source`]
/// when it cannot be written; what was begun is taken away then.
pub fn create_key_file(path: &Path, bytes: &[u8; KEY_FILE_BYTES]) -> Result<()> {
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let file = made.map_err(|e| not_written(path, &e))?;
    fill(file, path, bytes).map_err(|e| match std::fs::remove_file(path) {
        Ok(()) => not_written(path, &e),
        Err(_) => {
            let what = format!("the key file is incomplete and cannot be removed: {}", reason(&e));
            Error::new(Kind::Source, what).at(path.display()).advise("remove it")
        }
    })
}

fn fill(mut file: File, path: &Path, bytes: &[u8; KEY_FILE_BYTES]) -> io::Result<()> {
    file.write_all(bytes)?;
    file.sync_all()?;
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

fn not_written(path: &Path, e: &io::Error) -> Error {
    let (kind, advice) = match e.kind() {
        io::ErrorKind::AlreadyExists => (Kind::Config, "name a file that does not exist: a key is never overwritten"),
        io::ErrorKind::NotFound => (Kind::Config, "make its folder first"),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => (Kind::Full, "make room"),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => (Kind::Denied, "name another folder"),
        _ => (Kind::Source, "name another folder"),
    };
    Error::new(kind, format!("the key file cannot be written: {}", reason(e))).at(path.display()).advise(advice)
}

/// The reason without the number of the system call's error.
fn reason(e: &io::Error) -> String {
    let text = e.to_string();
    text.split(" (os error").next().map_or_else(String::new, str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    /// A private file with this content.
    fn file(dir: &tempfile::TempDir, content: &[u8]) -> PathBuf {
        let path = dir.path().join("secret");
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        path
    }

    #[track_caller]
    fn refused(read: Result<FromFile>, part: &str) {
        let e = read.unwrap_err();
        assert_eq!(e.kind(), Kind::WrongKey);
        assert!(e.to_string().contains(part) && !e.to_string().contains("hunter"), "{e}");
        assert!(e.place().is_some() && e.advice().is_some(), "{e}");
    }

    fn read_passphrase(path: &Path) -> String {
        let read = from_passphrase_file(path).unwrap();
        assert!(read.warnings.is_empty(), "{:?}", read.warnings);
        match read.unlock {
            Unlock::Passphrase(text) => text.to_string(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn one_line_end_is_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let cases = [
            ("a", "a"),
            ("a\n", "a"),
            ("a\r\n", "a"),
            ("a\n\n", "a\n"),
            (" a \n", " a "),
            ("a\r", "a\r"),
            ("ä\nb\n", "ä\nb"),
        ];
        for (content, wanted) in cases {
            assert_eq!(read_passphrase(&file(&dir, content.as_bytes())), wanted, "{content:?}");
        }
        let longest = "x".repeat(PASSPHRASE_BYTES_MAX);
        assert_eq!(read_passphrase(&file(&dir, format!("{longest}\r\n").as_bytes())), longest);
    }

    #[test]
    fn no_passphrase() {
        let dir = tempfile::tempdir().unwrap();
        for empty in ["", "\n", "\r\n"] {
            refused(from_passphrase_file(&file(&dir, empty.as_bytes())), "empty");
        }
        refused(from_passphrase_file(&file(&dir, b"hunter2\xff\n")), "not text");
        refused(from_passphrase_file(&file(&dir, "hunter2".repeat(586).as_bytes())), "more than 4096");
        refused(from_passphrase_file(&dir.path().join("none")), "cannot be read: No such file or directory");
        refused(from_passphrase_file(dir.path()), "cannot be read");
        refused(from_passphrase_file(Path::new("/dev/zero")), "more than 4096");
    }

    #[test]
    fn others_can_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = file(&dir, &[7; 32]);
        for (mode, warns) in [(0o600, false), (0o400, false), (0o640, true), (0o604, true), (0o622, false)] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            for read in [from_key_file(&path), from_passphrase_file(&path), from_recovery_file(&path)] {
                let warnings = read.unwrap().warnings;
                assert_eq!(!warnings.is_empty(), warns, "{mode:o} {warnings:?}");
                assert!(warnings.iter().all(|w| w.contains(&format!("{mode:04o}"))), "{warnings:?}");
            }
        }
    }

    #[test]
    fn key_files_have_32_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let key: [u8; 32] = std::array::from_fn(|i| if i == 31 { b'\n' } else { i as u8 });
        match from_key_file(&file(&dir, &key)).unwrap().unlock {
            Unlock::KeyFile(got) => assert_eq!(*got, key),
            other => panic!("{other:?}"),
        }
        for len in [0, 31, 33, 64] {
            refused(from_key_file(&file(&dir, &vec![b'x'; len])), &format!("has {len} bytes instead of 32"));
        }
        refused(from_key_file(&file(&dir, &vec![0; 1 << 20])), "has more bytes instead of 32");
        refused(from_key_file(&dir.path().join("none")), "cannot be read");
    }

    #[test]
    fn recovery_files() {
        let dir = tempfile::tempdir().unwrap();
        match from_recovery_file(&file(&dir, b"hfkey1abc\n\n")).unwrap().unlock {
            Unlock::RecoveryKey(got) => assert_eq!(*got, "hfkey1abc"),
            other => panic!("{other:?}"),
        }
        refused(from_recovery_file(&file(&dir, b"\n")), "empty");
        refused(from_recovery_file(&file(&dir, b"hunter2\xff")), "not text");
    }

    #[test]
    fn links_and_pipes_are_followed() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(file(&dir, b"a\n"), &link).unwrap();
        assert_eq!(read_passphrase(&link), "a");
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(b"from a pipe\n").unwrap();
        drop(writer);
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&reader));
        assert_eq!(read_passphrase(Path::new(&path)), "from a pipe");
    }

    #[test]
    fn a_new_key_file_is_private_and_never_overwrites() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        create_key_file(&path, &[9; 32]).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        let read = from_key_file(&path).unwrap();
        assert!(read.warnings.is_empty() && matches!(read.unlock, Unlock::KeyFile(k) if *k == [9; 32]));
        let e = create_key_file(&path, &[1; 32]).unwrap_err();
        assert_eq!(e.kind(), Kind::Config);
        assert!(e.to_string().contains("never overwritten"), "{e}");
        assert_eq!(fs::read(&path).unwrap(), [9; 32]);
        let dangling = dir.path().join("dangling");
        std::os::unix::fs::symlink(dir.path().join("elsewhere"), &dangling).unwrap();
        assert_eq!(create_key_file(&dangling, &[1; 32]).unwrap_err().kind(), Kind::Config);
        assert!(!dir.path().join("elsewhere").exists(), "a link was followed");
        assert_eq!(create_key_file(&dir.path().join("no/key"), &[1; 32]).unwrap_err().kind(), Kind::Config);
    }
}
