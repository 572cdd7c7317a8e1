//! Files of a model: found below a folder, and looked into.

use crate::base::Cancel;
use crate::error::{Error, Kind, Result};
use crate::model::format::{Found, SHARDS_BYTES_MAX, Shards, Tensor, read, read_shards};
use rustix::fs::OFlags;
use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// How deep folders are walked.
const DEPTH_MAX: usize = 64;
/// Most files below a folder.
const FILES_MAX: usize = 1 << 20;

/// A file, and what it is.
#[derive(Debug)]
pub struct Holding {
    /// Its path.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// What it is.
    pub found: Found,
    /// Set for a list of shards.
    pub shards: Option<Shards>,
}

impl Holding {
    /// Its tensors, if it is a model.
    pub fn tensors(&self) -> &[Tensor] {
        if let Found::Model(model) = &self.found { &model.tensors } else { &[] }
    }

    /// How a tensor is called: an array without a name like its file.
    pub fn name_of<'h>(&'h self, tensor: &'h Tensor) -> std::borrow::Cow<'h, str> {
        if tensor.name.is_empty() {
            self.path.file_stem().map_or("".into(), |stem| stem.to_string_lossy())
        } else {
            tensor.name.as_str().into()
        }
    }
}

/// The error of a file that cannot be read.
pub(super) fn unread(path: &Path, what: &str, e: &std::io::Error) -> Error {
    let kind = if e.kind() == std::io::ErrorKind::NotFound { Kind::NotFound } else { Kind::Source };
    Error::new(kind, format!("{what}: {e}")).at(path.display())
}

/// All regular files that a path leads to: itself, or those below it, in order. Links to files are followed, as a cache of
/// models has them; a file that several paths lead to is named once, by a link if there is one.
///
/// # Errors
/// The path leads nowhere or cannot be read; there are too many files; interrupted.
pub fn files(path: &Path, cancel: &Cancel) -> Result<Vec<PathBuf>> {
    let meta = std::fs::metadata(path).map_err(|e| unread(path, "cannot be looked at", &e))?;
    if !meta.is_dir() {
        return Ok(vec![path.to_path_buf()]);
    }
    let mut seen = HashMap::new();
    let mut folders = vec![(path.to_path_buf(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        cancel.check()?;
        let wrong = |e: std::io::Error| unread(&folder, "cannot be listed", &e);
        for entry in std::fs::read_dir(&folder).map_err(wrong)? {
            let entry = entry.map_err(wrong)?;
            let (path, kind) = (entry.path(), entry.file_type().map_err(wrong)?);
            if kind.is_dir() && depth < DEPTH_MAX {
                folders.push((path, depth + 1));
            } else if let Some(meta) = file_behind(&path, kind.is_symlink() || kind.is_file()) {
                let place = seen.entry((meta.dev(), meta.ino())).or_insert_with(|| (path.clone(), kind.is_symlink()));
                // The name that a link has says more than that of what it leads to; of two alike the first one counts.
                let (old, new) = ((!place.1, &place.0), (!kind.is_symlink(), &path));
                if new < old {
                    *place = (path, kind.is_symlink());
                }
            }
        }
        if seen.len() > FILES_MAX {
            return Err(Error::new(Kind::Refused, "too many files for a model").at(path.display()));
        }
    }
    let mut all: Vec<PathBuf> = seen.into_values().map(|(path, _)| path).collect();
    all.sort_unstable();
    Ok(all)
}

/// What stands behind a path, if it is a regular file. A link that leads nowhere is none.
fn file_behind(path: &Path, candidate: bool) -> Option<std::fs::Metadata> {
    if !candidate {
        return None;
    }
    std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)
}

/// Opens a file that may be anything: a pipe would wait for somebody who writes.
pub(super) fn open(path: &Path) -> std::io::Result<File> {
    let file = File::options().read(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "it is no regular file"));
    }
    Ok(file)
}

/// What a file is.
///
/// # Errors
/// It cannot be read.
pub fn look(path: &Path) -> Result<Holding> {
    let wrong = |e: std::io::Error| unread(path, "cannot be read", &e);
    let file = open(path).map_err(wrong)?;
    let meta = file.metadata().map_err(wrong)?;
    let bytes = meta.len();
    let found = read(&file, bytes).map_err(wrong)?;
    let list = matches!(found, Found::Other) && bytes <= SHARDS_BYTES_MAX;
    let shards = if list { read_shards(&file, bytes).map_err(wrong)? } else { None };
    Ok(Holding { path: path.to_path_buf(), bytes, found, shards })
}
