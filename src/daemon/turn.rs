//! Whose turn it is among the programs of this host: a file in the state folder for each source, which the kernel
//! locks for as long as its holder lives. It also tells that an earlier holder was killed: whatever that one has
//! announced in the regions is over, and need not be waited for.

use crate::base::{RepoId, TimeMs};
use crate::ops::live::Over;
use crate::source::files;
use std::fs::{File, TryLockError};
use std::io::{Read, Write};
use std::path::Path;

/// The turn; it ends with this.
#[derive(Debug)]
pub struct Turn {
    file: File,
    /// What is known to be over because an earlier holder died.
    pub over: Option<Over>,
}

/// Whose turn it is.
#[derive(Debug)]
pub enum Whose {
    /// Ours.
    Ours(Turn),
    /// Another program of this host is at work.
    Anothers,
    /// There is no place to ask.
    Unknown,
}

/// Takes the turn at a source.
pub fn take(state: &Path, repo: &RepoId, source: &str, now: TimeMs) -> Whose {
    let name = blake3::hash(source.as_bytes()).to_hex();
    let dir = state.join("turns");
    let path = dir.join(format!("{}-{}", repo.hex(), &name[..32]));
    let opened = std::fs::create_dir_all(&dir)
        .and_then(|()| File::options().read(true).write(true).create(true).truncate(false).open(path));
    let Ok(mut file) = opened else { return Whose::Unknown };
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Whose::Anothers,
        Err(TryLockError::Error(_)) => return Whose::Unknown,
    }
    // Whoever ends as he should leaves it empty.
    let mut left = Vec::new();
    let died = file.read_to_end(&mut left).is_ok() && !left.is_empty();
    let over = died.then(|| Over { host: files::hostname(), before: now });
    if !died && file.write_all(b"at work\n").is_err() {
        return Whose::Unknown;
    }
    Whose::Ours(Turn { file, over })
}

impl Drop for Turn {
    fn drop(&mut self) {
        // If that fails, the next one only believes that this one was killed, and it has ended.
        let _ = self.file.set_len(0);
    }
}
