//! Where a region is: today a folder, named by a path or a `file` URL.

use super::name::{Name, quoted};
use crate::error::{Error, Kind, Result};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

/// A region as the configuration names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegionSpec {
    /// Its name, unique in the repository.
    pub name: Name,
    /// Its folder. Relative paths of the command line stay relative to the working directory, those of a
    /// file are relative to the file's own folder.
    pub path: PathBuf,
}

impl RegionSpec {
    /// `NAME=URL`, as on the command line.
    ///
    /// # Errors
    /// [`Kind::Config`] when there is no `=`, the name is no DNS label or the URL no folder.
    pub fn parse(text: &str) -> Result<Self> {
        let Some((name, url)) = text.split_once('=') else {
            let e = Error::new(Kind::Config, format!("{} names no region", quoted(text)));
            return Err(e.advise("write NAME=URL, like `eu-west=/mnt/backup`"));
        };
        Ok(RegionSpec { name: Name::parse("region", name)?, path: folder(url, Path::new(""))? })
    }
}

/// The folder that `url` names, seen from `base`. The error never repeats more of a URL than its scheme,
/// for there may be a password in it.
pub(super) fn folder(url: &str, base: &Path) -> Result<PathBuf> {
    let plain = |path: &str| {
        if path == "~" || path.starts_with("~/") {
            return Err(refused("`~` is not expanded here").advise("write the path of the home directory"));
        }
        tidy(&base.join(path))
    };
    match scheme(url) {
        None => plain(url),
        Some(("file", rest)) => tidy(&from_file_url(rest)?),
        Some((other, rest)) if rest.starts_with("//") => {
            let e = refused(&format!("regions at {}: are not supported by this build", quoted(other)));
            Err(e.advise("use a folder: `/abs/path` or `file:///abs/path`"))
        }
        Some((other, _)) => {
            let e = refused(&format!("{}: looks like the beginning of a URL", quoted(other)));
            Err(e.advise("use a folder: `/abs/path` or `file:///abs/path`; a folder of this name is `./name`"))
        }
    }
}

fn refused(what: &str) -> Error {
    Error::new(Kind::Config, what)
}

/// The scheme in lower case, and what follows its colon.
fn scheme(url: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = url.split_once(':')?;
    let inner = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'+' | b'-' | b'.');
    let right = scheme.bytes().next().is_some_and(|c| c.is_ascii_alphabetic()) && scheme.bytes().all(inner);
    let scheme = if scheme.eq_ignore_ascii_case("file") { "file" } else { scheme };
    right.then_some((scheme, rest))
}

/// The path of `file:` + `rest`.
fn from_file_url(rest: &str) -> Result<PathBuf> {
    let advice = "write `file:///abs/path` with three slashes, or the path alone";
    let path = rest.strip_prefix("//").filter(|path| path.starts_with('/'));
    let path = path.ok_or_else(|| refused("the file URL names a host or a relative path").advise(advice))?;
    if path.contains(['?', '#']) {
        return Err(refused("the file URL has a query or a fragment").advise("write the path alone, or %3F and %23"));
    }
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = tail.get(..2).and_then(|d| std::str::from_utf8(d).ok()).filter(|d| !d.starts_with('+'));
        let byte = digits.and_then(|d| u8::from_str_radix(d, 16).ok());
        bytes.push(byte.ok_or_else(|| refused("the file URL has a `%` without two hex digits").advise(advice))?);
        rest = &tail[2..];
    }
    Ok(PathBuf::from(OsString::from_vec(bytes)))
}

/// Without `.`, empty and trailing parts, so that one folder written twice is seen. `..` stays: only the
/// file system knows where it leads.
fn tidy(path: &Path) -> Result<PathBuf> {
    if path.as_os_str().as_encoded_bytes().contains(&0) {
        return Err(refused("the path of a region has a NUL byte").advise("no file system knows such a name"));
    }
    if path.as_os_str().is_empty() {
        return Err(refused("the path of a region is empty").advise("write `/abs/path` or `file:///abs/path`"));
    }
    let parts: PathBuf = path.components().filter(|c| *c != Component::CurDir).collect();
    Ok(if parts.as_os_str().is_empty() { PathBuf::from(".") } else { parts })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(url: &str) -> String {
        folder(url, Path::new("/base")).unwrap().to_str().unwrap().to_owned()
    }

    fn error(url: &str) -> String {
        let e = folder(url, Path::new("/base")).unwrap_err();
        assert_eq!(e.kind(), Kind::Config);
        assert!(e.advice().is_some(), "{e}");
        e.to_string()
    }

    #[test]
    fn folders() {
        assert_eq!(path("/mnt/a"), "/mnt/a");
        assert_eq!(path("//mnt/./a//"), "/mnt/a");
        assert_eq!(path("a/b"), "/base/a/b");
        assert_eq!(path("../b"), "/base/../b");
        assert_eq!(path("./s3:bucket"), "/base/s3:bucket");
        assert_eq!(path("file:///mnt/a%20b/%c3%A4"), "/mnt/a b/ä");
        assert_eq!(path("FILE:///mnt/a/"), "/mnt/a");
        assert_eq!(folder("./", Path::new("")).unwrap(), Path::new("."));
    }

    #[test]
    fn no_folders() {
        assert!(error("s3://bucket/prefix").contains("not supported by this build"));
        assert!(error("gs://bucket").contains("`gs`"));
        assert!(error("s3:bucket").contains("beginning of a URL"));
        assert!(error("file://host/a").contains("host"));
        assert!(error("file:a").contains("host or a relative path"));
        assert!(error("file:///a?b").contains("query"));
        for bad in ["file:///%", "file:///%2", "file:///%zz", "file:///%+1", "file:///%2ä"] {
            assert!(error(bad).contains("hex"), "{bad}");
        }
        assert!(error("~/backup").contains("not expanded"));
        assert!(error("/a\0").contains("NUL"));
        assert!(error("file:///a%00").contains("NUL"));
        assert!(folder("", Path::new("")).unwrap_err().what().contains("empty"));
    }

    #[test]
    fn a_password_in_a_url_is_not_repeated() {
        for url in
            ["s3://key:hunter2@host/bucket", "file://user:hunter2@host/x", "file:///x?hunter2", "https://hunter2@h"]
        {
            assert!(!error(url).contains("hunter2"), "{url}");
        }
    }

    #[test]
    fn on_the_command_line() {
        let region = RegionSpec::parse("eu-west=/mnt/a=b").unwrap();
        assert_eq!((region.name.as_str(), region.path.to_str()), ("eu-west", Some("/mnt/a=b")));
        assert_eq!(RegionSpec::parse("a=b").unwrap().path, Path::new("b"));
        for bad in ["/mnt/a", "=/mnt/a", "A=/mnt/a", "a=", ""] {
            assert_eq!(RegionSpec::parse(bad).unwrap_err().kind(), Kind::Config, "{bad}");
        }
    }
}
