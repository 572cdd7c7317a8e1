//! Where a link leads within what was backed up, step by step as a kernel goes.
//!
//! Contract: a path that is returned is that of a file of the tree. A link that leads anywhere else is an error in words:
//! what stands there was not judged, and a loader would open it.

use std::ffi::OsString;
use std::io;
use std::path::{Component, Path, PathBuf};

/// How many links may lead to each other.
const LINKS_MAX: u32 = 16;
/// Of a link to a folder: what lies in it has another path, by which it is judged.
pub const TO_FOLDER: &str = "a link to a folder, which is not followed";

/// What stands at a path of a tree.
pub(super) enum Stands {
    /// A file.
    File,
    /// A directory.
    Dir,
    /// A link, and what it says.
    Link(PathBuf),
    /// Nothing, or nothing that is known.
    Nothing,
}

/// The file at a path below the root, with links followed: each part of a path before the next, since `..` behind a link is
/// what lies above the place that it leads to.
///
/// # Errors
/// It leads out of the tree, to a folder, to nothing, or through too many links; or looking failed.
pub(super) fn resolve(path: &Path, look: &mut dyn FnMut(&Path) -> io::Result<Stands>) -> io::Result<PathBuf> {
    let lost = |why: &str| Err(io::Error::other(format!("{why}: nothing is known of what stands there")));
    let mut at = path.parent().unwrap_or(Path::new("")).to_path_buf();
    let mut todo: Vec<OsString> = path.file_name().map(OsString::from).into_iter().collect();
    let mut links = 0u32;
    while let Some(part) = todo.pop() {
        if part == ".." {
            if !at.pop() {
                return lost("a link that leads out of what was backed up");
            }
            continue;
        }
        at.push(part);
        match look(&at)? {
            Stands::Dir => {}
            Stands::File if todo.is_empty() => return Ok(at),
            Stands::File | Stands::Nothing => return lost("a link that leads to nothing that was backed up"),
            Stands::Link(_) if links >= LINKS_MAX => return lost("a link that leads to a link again and again"),
            Stands::Link(target) if target.has_root() => return lost("a link that leads out of what was backed up"),
            Stands::Link(target) => {
                links = links.saturating_add(1);
                at.pop();
                let parts = target.components().filter(|part| *part != Component::CurDir);
                let parts: Vec<OsString> = parts.map(|part| part.as_os_str().to_owned()).collect();
                todo.extend(parts.into_iter().rev());
            }
        }
    }
    Err(io::Error::other(TO_FOLDER))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    /// `d` is a folder, `d/e` one in it, `d/f` and `same` are files; links as given.
    fn found(path: &str, links: &[(&str, &str)]) -> Result<String, String> {
        let links: HashMap<&Path, &str> = links.iter().map(|(path, target)| (Path::new(*path), *target)).collect();
        let mut look = |path: &Path| {
            Ok(match (path.to_str().unwrap(), links.get(path)) {
                (_, Some(target)) => Stands::Link(PathBuf::from(target)),
                ("d" | "d/e", _) => Stands::Dir,
                ("d/f" | "d/same" | "same", _) => Stands::File,
                _ => Stands::Nothing,
            })
        };
        resolve(Path::new(path), &mut look).map(|path| path.display().to_string()).map_err(|e| e.to_string())
    }

    #[test]
    fn a_link_is_followed_before_what_lies_above_it() {
        assert_eq!(found("l", &[("l", "d/./f")]).as_deref(), Ok("d/f"));
        assert_eq!(found("d/l", &[("d/l", "../same")]).as_deref(), Ok("same"));
        assert_eq!(found("l", &[("l", "m"), ("m", "d/f")]).as_deref(), Ok("d/f"));
        // By its letters alone, `to/../same` would be the file `same` of the root.
        assert_eq!(found("l", &[("l", "to/../same"), ("to", "d/e")]).as_deref(), Ok("d/same"));
        for away in ["/x/y", "../y"] {
            let e = found("l", &[("l", "to/../same"), ("to", away)]).unwrap_err();
            assert!(e.contains("leads out of what was backed up"), "{away}: {e}");
        }
    }

    #[test]
    fn what_is_no_file_of_the_tree_is_an_error_in_words() {
        for (target, why) in [
            ("/d/f", "leads out"),
            ("../same", "leads out"),
            ("gone", "leads to nothing"),
            ("d/f/../f", "leads to nothing"),
            ("d", TO_FOLDER),
            ("d/e/..", TO_FOLDER),
            (".", TO_FOLDER),
            ("", TO_FOLDER),
            ("l", "again and again"),
            ("d/f/..", "leads to nothing"),
        ] {
            let e = found("l", &[("l", target)]).unwrap_err();
            assert!(e.contains(why), "{target}: {e}");
        }
    }
}
