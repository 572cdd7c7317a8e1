//! The files of the configuration.

use crate::error::{Error, Kind, Result};
use crate::policy::{FILE_NAME, TEXT_BYTES_MAX, Text};
use std::io::Read;
use std::path::{Path, PathBuf};

/// A file's name for errors and its text.
pub type Named = (String, String);

/// Reads a file, the files of a folder, or what is found in the usual places.
pub fn files(path: Option<&Path>) -> Result<Vec<Named>> {
    let (files, unread) = readable_files(path)?;
    Error::all(unread).map_or(Ok(files), Err)
}

/// The same, with what of it cannot be read apart.
pub fn readable_files(path: Option<&Path>) -> Result<(Vec<Named>, Vec<Error>)> {
    let (mut files, mut unread) = (Vec::new(), Vec::new());
    let (paths, whole) = paths(path)?;
    for path in &paths {
        match text(path, whole) {
            Ok(text) => files.push((path.display().to_string(), text)),
            Err(e) => unread.push(e),
        }
    }
    Ok((files, unread))
}

/// The files, unread, and whether they are those of a folder.
pub fn paths(path: Option<&Path>) -> Result<(Vec<PathBuf>, bool)> {
    let path = match path {
        Some(path) => path.to_path_buf(),
        None => usual_places().into_iter().find(|p| p.exists()).ok_or_else(|| {
            Error::new(Kind::Config, "no regions were given and there is no holdfast.yaml")
                .advise("use --region NAME=PATH or --config FILE")
        })?,
    };
    if path.is_dir() { Ok((folder(&path)?, true)) } else { Ok((vec![path], false)) }
}

/// As the language reads them.
pub fn texts(files: &[Named]) -> Vec<Text<'_>> {
    files.iter().map(|(name, text)| Text { name, text }).collect()
}

fn unreadable(path: &Path) -> impl Fn(std::io::Error) -> Error + '_ {
    |e| Error::new(Kind::Config, format!("cannot read the configuration: {}", e.kind())).at(path.display())
}

/// What is in a file. In a folder a pipe is there by mistake, and would be waited for without end.
fn text(path: &Path, only_files: bool) -> Result<String> {
    if only_files && !std::fs::metadata(path).map_err(unreadable(path))?.is_file() {
        let e = Error::new(Kind::Config, "this is no file, and cannot be a configuration").at(path.display());
        return Err(e.advise("move it out of the folder"));
    }
    let mut text = String::new();
    // One more than is allowed, so that too much is seen as such.
    let file = std::fs::File::open(path).map_err(unreadable(path))?;
    file.take(TEXT_BYTES_MAX as u64 + 4).read_to_string(&mut text).map_err(unreadable(path))?;
    Ok(text)
}

/// The `.yaml` and `.yml` files of a folder by name, without hidden ones: mounted folders of a cluster have such
/// beside the files.
fn folder(path: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).map_err(unreadable(path))? {
        let file = entry.map_err(unreadable(path))?.path();
        let hidden = file.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        let right = file.extension().is_some_and(|ending| ending == "yaml" || ending == "yml");
        if right && !hidden && !file.is_dir() {
            found.push(file);
        }
    }
    found.sort();
    if found.is_empty() {
        let e = Error::new(Kind::Config, "the folder has no configuration").at(path.display());
        return Err(e.advise("put files that end in .yaml or .yml into it"));
    }
    Ok(found)
}

fn usual_places() -> Vec<PathBuf> {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let config = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).or(home.map(|h| h.join(".config")));
    let mut places = vec![PathBuf::from(FILE_NAME)];
    places.extend(config.map(|c| c.join("holdfast").join(FILE_NAME)));
    places.push(PathBuf::from("/etc/holdfast").join(FILE_NAME));
    places
}
