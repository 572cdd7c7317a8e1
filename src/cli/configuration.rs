//! The files of the configuration.

use crate::base::Digest;
use crate::error::{Error, Kind, Result};
use crate::policy::{FILE_NAME, TEXT_BYTES_MAX, Text};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// How often files that change while they are read are read again.
const READS_MAX: usize = 20;

/// Links that are followed on the way to a file.
const LINKS_MAX: usize = 16;

/// A file's name for errors and its text.
pub type Named = (String, String);

/// Reads a file, the files of a folder, or what is found in the usual places.
pub fn files(path: Option<&Path>) -> Result<Vec<Named>> {
    let (files, unread) = readable_files(path)?;
    Error::all(unread).map_or(Ok(files), Err)
}

/// The same, with what of it cannot be read apart. All of them are of one moment: a cluster that swaps the link behind
/// its files while they are read must not give half of the old configuration and half of the new one.
pub fn readable_files(path: Option<&Path>) -> Result<(Vec<Named>, Vec<Error>)> {
    of_one_moment(|| look(path), || once(path))?
}

/// Reads until the files were the same before and after.
fn of_one_moment<T>(mut look: impl FnMut() -> Option<Digest>, mut read: impl FnMut() -> T) -> Result<T> {
    for _ in 0..READS_MAX {
        let before = look();
        let found = read();
        // What has no state that could be compared, like a pipe, can be read only once.
        if before.is_none() || look() == before {
            return Ok(found);
        }
    }
    let e = Error::new(Kind::Config, "the configuration changes whenever it is read");
    Err(e.advise("let whatever writes it come to its end, and try again"))
}

fn once(path: Option<&Path>) -> Result<(Vec<Named>, Vec<Error>)> {
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

/// Which files there are, and their places, sizes and times; `None` where one is read that is no file.
pub fn look(path: Option<&Path>) -> Option<Digest> {
    let mut lines = String::new();
    match paths(path) {
        Ok((paths, whole)) => {
            for path in &paths {
                lines.push_str(&line(path, whole)?);
            }
        }
        Err(e) => lines.push_str(&e.to_string()),
    }
    Some(Digest::of(lines.as_bytes()))
}

fn line(path: &Path, whole: bool) -> Option<String> {
    match std::fs::metadata(path) {
        Ok(m) if !whole && !m.is_file() => None,
        Ok(m) => {
            let mut line = format!("{} {}", path.display(), state(&m));
            links(path, LINKS_MAX, &mut line);
            line.push('\n');
            Some(line)
        }
        Err(e) => Some(format!("{} {e}\n", path.display())),
    }
}

fn state(m: &std::fs::Metadata) -> String {
    let times = [m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec()];
    format!("{} {} {} {times:?}", m.dev(), m.ino(), m.len())
}

/// The links on the way to a file. Each swap makes a new one: where it points there and back again while files are read,
/// the files themselves are the same before and after.
fn links(path: &Path, most: usize, line: &mut String) {
    let mut at = PathBuf::new();
    for part in path.components() {
        at.push(part);
        let Ok(meta) = std::fs::symlink_metadata(&at) else { return };
        if let (true, Ok(target), Some(left)) = (meta.is_symlink(), std::fs::read_link(&at), most.checked_sub(1)) {
            line.push_str(&format!(" {} {}", target.display(), state(&meta)));
            at.pop();
            at.push(target);
            links(&at, left, line);
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn what_changes_while_it_is_read_is_read_again() {
        let (now, reads) = (Cell::new(0_u64), Cell::new(0_u64));
        let look = || Some(Digest::of(&now.get().to_le_bytes()));
        let changes = |times: u64| {
            now.set(0);
            reads.set(0);
            of_one_moment(look, || {
                reads.set(reads.get() + 1);
                if reads.get() <= times {
                    now.set(now.get() + 1);
                }
                reads.get()
            })
        };
        assert_eq!(changes(0).unwrap(), 1);
        assert_eq!(changes(3).unwrap(), 4);
        let e = changes(u64::MAX).unwrap_err();
        assert!(e.kind() == Kind::Config && reads.get() == READS_MAX as u64, "{e}");
        // A pipe has given all it had.
        reads.set(0);
        assert_eq!(of_one_moment(|| None, || reads.set(reads.get() + 1)).map(|()| reads.get()).unwrap(), 1);
    }
}
