//! Where a region is: a folder, named by a path or a `file` URL, or a bucket, named by the URL of its service.

use super::name::{Name, quoted};
use crate::base::{Bucket, Place, Service};
use crate::error::{Error, Kind, Result};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

/// A region as the configuration names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegionSpec {
    /// Its name, unique in the repository.
    pub name: Name,
    /// Where it is. Relative paths of the command line stay relative to the working directory, those of a
    /// file are relative to the file's own folder.
    pub place: Place,
    /// Which is read first: the smaller, the sooner.
    pub priority: i32,
}

impl RegionSpec {
    /// `NAME=URL`, as on the command line.
    ///
    /// # Errors
    /// [`Kind::Config`] when there is no `=`, the name is no DNS label or the URL no place.
    pub fn parse(text: &str) -> Result<Self> {
        let Some((name, url)) = text.split_once('=') else {
            let e = Error::new(Kind::Config, format!("{} names no region", quoted(text)));
            return Err(e.advise("write NAME=URL, like `eu-west=/mnt/backup`"));
        };
        Ok(RegionSpec { name: Name::parse("region", name)?, place: place(url, Path::new(""))?, priority: 0 })
    }
}

/// The place that `url` names, seen from `base`. The error never repeats more of a URL than its scheme,
/// for there may be a password in it.
pub(super) fn place(url: &str, base: &Path) -> Result<Place> {
    let plain = |path: &str| {
        if path == "~" || path.starts_with("~/") {
            return Err(refused("`~` is not expanded here").advise("write the path of the home directory"));
        }
        tidy(&base.join(path)).map(Place::Folder)
    };
    let Some((scheme, rest)) = scheme(url) else { return plain(url) };
    if scheme == "file" {
        return tidy(&from_file_url(rest)?).map(Place::Folder);
    }
    let known = [Service::S3, Service::Gcs, Service::Azure];
    let service = known.into_iter().find(|service| service.scheme().eq_ignore_ascii_case(scheme));
    match (service, rest.strip_prefix("//")) {
        (Some(service), Some(rest)) => bucket(service, rest).map(Place::Bucket),
        (None, Some(_)) => {
            let e = refused(&format!("regions at {}: are not supported", quoted(scheme)));
            Err(e.advise("use a folder, `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`"))
        }
        (_, None) => {
            let e = refused(&format!("{}: looks like the beginning of a URL", quoted(scheme)));
            Err(e.advise("use a folder: `/abs/path` or `file:///abs/path`; a folder of this name is `./name`"))
        }
    }
}

/// The bucket of `scheme://` + `rest`.
fn bucket(service: Service, rest: &str) -> Result<Bucket> {
    let scheme = service.scheme();
    let form = format!("write `{scheme}://bucket/prefix`; options follow as `?name=value&name=value`");
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    if rest.contains('#') || place.contains('@') {
        return Err(refused("the URL of the bucket has a user or a fragment").advise(format!(
            "{form}; credentials come from the service's usual variables and files (docs/regions.md)"
        )));
    }
    let (name, prefix) = place.split_once('/').unwrap_or((place, ""));
    let plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.');
    let label = |part: &str| !part.is_empty() && !part.bytes().all(|c| c == b'.') && part.bytes().all(plain);
    if !label(name) {
        return Err(refused("the URL names no bucket").advise(form));
    }
    let prefix = prefix.trim_matches('/');
    if !prefix.is_empty() && !prefix.split('/').all(label) {
        let e = refused("the prefix has an empty part, or a character other than letters, digits, `-`, `_` and `.`");
        return Err(e.advise(form));
    }
    let mut bucket = Bucket::new(service, name, prefix);
    for option in query.split('&').filter(|option| !option.is_empty()) {
        set_option(&mut bucket, option)?;
    }
    Ok(bucket)
}

/// One `name=value`. What is not known is not repeated either: it may be a secret.
fn set_option(bucket: &mut Bucket, option: &str) -> Result<()> {
    let scheme = bucket.service.scheme();
    let mut options = bucket.options();
    let known = options.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let (name, value) = option.split_once('=').unwrap_or((option, ""));
    let Some((name, slot)) = options.iter_mut().find(|(known, _)| *known == name) else {
        let e = refused(&format!("the URL has an option that {scheme} regions do not have"));
        return Err(e.advise(format!(
            "there are {known}; secrets come from the service's usual variables and files (docs/regions.md)"
        )));
    };
    let decoded = unescaped(value).and_then(|bytes| String::from_utf8(bytes).ok());
    let value = decoded.filter(|value| !value.is_empty() && !value.chars().any(char::is_control));
    let value = value.ok_or_else(|| {
        refused(&format!("the option `{name}` has no value, or one that is no text")).advise("write name=value")
    })?;
    if *name == "endpoint" && !is_endpoint(&value) {
        let e = refused("the endpoint is no address of a server, or has a user or a query in it");
        return Err(e.advise("write https://host or https://host:port (http only inside a network that you trust)"));
    }
    if *name == "tls" && !matches!(value.as_str(), "1.2" | "1.3") {
        let e = refused("the option `tls` is the oldest version that is allowed");
        return Err(e.advise("leave it out for 1.3, or write tls=1.2 for a store that knows no newer one"));
    }
    if *name == "weak" && value != "yes" {
        let e = refused("the option `weak` says that the store does not create only if absent");
        return Err(e.advise("leave it out, or write weak=yes for a store that is to hold copies and never decides"));
    }
    if slot.replace(value).is_some() {
        return Err(refused(&format!("the option `{name}` stands twice")).advise("leave one of them out"));
    }
    Ok(())
}

/// Whether it is the address of a server, perhaps with a path.
fn is_endpoint(text: &str) -> bool {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or_default();
    let inner = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.' | b':' | b'/' | b'[' | b']');
    rest.bytes().next().is_some_and(|c| c.is_ascii_alphanumeric() || c == b'[') && rest.bytes().all(inner)
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
    let bytes = unescaped(path);
    let bytes = bytes.ok_or_else(|| refused("the file URL has a `%` without two hex digits").advise(advice))?;
    Ok(PathBuf::from(OsString::from_vec(bytes)))
}

/// With `%xx` read; `None` where two hex digits do not follow.
pub(super) fn unescaped(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = tail.get(..2).and_then(|d| std::str::from_utf8(d).ok()).filter(|d| !d.starts_with('+'));
        bytes.push(digits.and_then(|d| u8::from_str_radix(d, 16).ok())?);
        rest = tail.get(2..)?;
    }
    Some(bytes)
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
        place(url, Path::new("/base")).unwrap().folder().unwrap().to_str().unwrap().to_owned()
    }

    fn error(url: &str) -> String {
        let e = place(url, Path::new("/base")).unwrap_err();
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
        assert_eq!(place("./", Path::new("")).unwrap(), Place::from("."));
    }

    #[test]
    fn no_folders() {
        assert!(error("ftp://bucket/prefix").contains("`ftp`: are not supported"));
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
        assert!(place("", Path::new("")).unwrap_err().what().contains("empty"));
    }

    #[test]
    fn buckets() {
        let shown = |url: &str| match place(url, Path::new("/base")).unwrap() {
            Place::Bucket(bucket) => bucket.to_string(),
            Place::Folder(path) => panic!("{}", path.display()),
        };
        for url in [
            "s3://bucket",
            "s3://my.bucket/a/b-1",
            "s3://b/p?endpoint=http://[::1]:8333&region=eu-west-1&profile=a%20b",
            "gs://b/p?credentials=/etc/key.json",
            "az://container/p?endpoint=https://host/account&account=account",
        ] {
            assert_eq!(shown(url), url);
        }
        assert_eq!(shown("S3://bucket/a/"), "s3://bucket/a");
        assert_eq!(shown("s3://b?profile=x&endpoint=https%3A%2F%2Fh"), "s3://b?endpoint=https://h&profile=x");
    }

    #[test]
    fn no_buckets() {
        for bad in ["s3://", "s3:///a", "s3://a/b//c", "s3://a/../b", "s3://a b", "gs://a/b c", "az://./x"] {
            assert!(error(bad).contains("the URL names no bucket") || error(bad).contains("the prefix has"), "{bad}");
        }
        for bad in ["s3://b?account=x", "gs://b?profile=x", "az://b?region=x", "s3://b?x"] {
            assert!(error(bad).contains("an option that"), "{bad}");
        }
        for bad in ["s3://b?region=", "s3://b?region", "s3://b?region=%", "s3://b?region=%0a"] {
            assert!(error(bad).contains("`region` has no value"), "{bad}");
        }
        for bad in ["host", "https://", "https://u:hunter2@h", "https://h?hunter2", "ftp://h"] {
            assert!(error(&format!("s3://b?endpoint={bad}")).contains("the endpoint is no address"), "{bad}");
        }
        assert!(error("s3://b?region=a&region=b").contains("stands twice"));
        assert!(error("s3://b/a#c").contains("fragment"));
    }

    #[test]
    fn a_password_in_a_url_is_not_repeated() {
        for url in [
            "s3://key:hunter2@host/bucket",
            "s3://b?secret_key=hunter2",
            "s3://b?hunter2",
            "file://user:hunter2@host/x",
            "file:///x?hunter2",
            "https://hunter2@h",
        ] {
            assert!(!error(url).contains("hunter2"), "{url}");
        }
    }

    #[test]
    fn on_the_command_line() {
        let region = RegionSpec::parse("eu-west=/mnt/a=b").unwrap();
        assert_eq!((region.name.as_str(), region.place), ("eu-west", Place::from("/mnt/a=b")));
        assert_eq!(RegionSpec::parse("a=b").unwrap().place, Place::from("b"));
        for bad in ["/mnt/a", "=/mnt/a", "A=/mnt/a", "a=", ""] {
            assert_eq!(RegionSpec::parse(bad).unwrap_err().kind(), Kind::Config, "{bad}");
        }
    }
}
