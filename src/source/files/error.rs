//! What can go wrong with one entry.

use crate::error::{Error, Kind};
use rustix::io::Errno;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The reactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceErrorKind {
    /// It was there a moment ago.
    Vanished,
    /// No permission.
    Denied,
    /// No space left in the target.
    Full,
    /// Not the kind of thing that it was.
    Changed,
    /// An object whose key is no path.
    Unaddressable,
    /// Cannot be kept or made here.
    Unsupported,
    /// Anything else.
    Io,
}

impl SourceErrorKind {
    /// A word for reports.
    pub fn name(self) -> &'static str {
        match self {
            SourceErrorKind::Vanished => "vanished",
            SourceErrorKind::Denied => "denied",
            SourceErrorKind::Full => "full",
            SourceErrorKind::Changed => "changed",
            SourceErrorKind::Unaddressable => "unaddressable",
            SourceErrorKind::Unsupported => "unsupported",
            SourceErrorKind::Io => "io",
        }
    }
}

/// One entry's failure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", String::from_utf8_lossy(.path))]
pub struct SourceError {
    /// Which entry.
    pub path: Vec<u8>,
    /// Reaction.
    pub kind: SourceErrorKind,
    /// What happened.
    pub message: String,
}

impl SourceError {
    /// From the kernel's answer.
    pub fn new(path: &[u8], action: &str, errno: Errno) -> Self {
        let kind = match errno {
            Errno::NOENT => SourceErrorKind::Vanished,
            Errno::ACCESS | Errno::PERM | Errno::ROFS => SourceErrorKind::Denied,
            Errno::NOSPC | Errno::DQUOT | Errno::FBIG => SourceErrorKind::Full,
            Errno::LOOP | Errno::NOTDIR | Errno::ISDIR => SourceErrorKind::Changed,
            Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL => SourceErrorKind::Unsupported,
            _ => SourceErrorKind::Io,
        };
        let text = std::io::Error::from(errno).to_string();
        let text = text.split(" (os error").next().unwrap_or(&text).to_lowercase();
        SourceError { path: path.to_vec(), kind, message: format!("cannot {action}: {text}") }
    }

    /// Something other than the kernel's answer.
    pub fn other(path: &[u8], kind: SourceErrorKind, message: impl Into<String>) -> Self {
        SourceError { path: path.to_vec(), kind, message: message.into() }
    }

    pub(super) fn at_path(path: &Path, errno: Errno) -> Self {
        Self::new(path.as_os_str().as_bytes(), "reach it", errno)
    }

    /// The same for callers above.
    pub fn lift(&self) -> Error {
        let kind = if self.kind == SourceErrorKind::Full { Kind::Full } else { Kind::Source };
        Error::new(kind, self.message.clone()).at(String::from_utf8_lossy(&self.path))
    }
}
