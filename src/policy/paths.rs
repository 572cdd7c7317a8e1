//! Paths in policies.

use super::name::quoted;
use super::sheet::Sheet;
use crate::error::{Error, Kind, Result};
use std::path::{Component, Path, PathBuf};

/// Whether it can be the name of a file in any directory: no path, and neither of the two that mean directories.
pub fn is_file_name(text: &str) -> bool {
    !text.is_empty() && !text.contains(['/', '\0']) && !matches!(text, "." | "..")
}

/// The paths of a source.
pub(super) fn judge(sheet: &mut Sheet<'_>, at: &str, texts: &[String]) -> Vec<PathBuf> {
    if texts.is_empty() {
        sheet.refuse(&format!("{at}.paths"), "the source has no path", "name at least one: `paths: [/srv]`");
    }
    let mut paths: Vec<PathBuf> = Vec::with_capacity(texts.len());
    for (n, text) in texts.iter().enumerate() {
        let at = format!("{at}.paths[{n}]");
        let Some(path) = sheet.take(&at, absolute(text)) else { continue };
        if paths.contains(&path) {
            sheet.refuse(&at, format!("the path {} is given twice", quoted(text)), "remove one of them");
        }
        paths.push(path);
    }
    paths
}

/// An absolute path, without what changes nothing.
pub(super) fn absolute(text: &str) -> Result<PathBuf> {
    let path = Path::new(text);
    if text.contains('\0') || !path.is_absolute() {
        let what = format!("{} is not an absolute path", quoted(text));
        return Err(Error::new(Kind::Config, what).advise("write it from `/` on; `~` and variables are not expanded"));
    }
    if path.components().any(|part| part == Component::ParentDir) {
        let what = format!("the path {} has `..` in it", quoted(text));
        return Err(Error::new(Kind::Config, what).advise("write where it leads"));
    }
    Ok(path.components().collect())
}
