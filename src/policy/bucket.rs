//! A bucket that is backed up, or restored into: named as regions are, with any prefix that can be a path.

use super::region::{place, unescaped};
use super::sheet::Sheet;
use super::types::SourceSpec;
use crate::base::{Bucket, Place, Service};
use crate::error::{Error, Kind, Result};
use std::path::Path;

/// Whether a text begins like the address of a bucket.
pub fn is_bucket(text: &str) -> bool {
    let known = [Service::S3, Service::Gcs, Service::Azure];
    let scheme = text.split_once("://").map(|(scheme, _)| scheme);
    scheme.is_some_and(|scheme| known.iter().any(|service| service.scheme().eq_ignore_ascii_case(scheme)))
}

/// The bucket that `s3://bucket/prefix?name=value` names. In the prefix `%xx` stands for any byte.
///
/// # Errors
/// [`Kind::Config`] where it is none, or the prefix is no path.
pub fn bucket(text: &str) -> Result<Bucket> {
    let form = "write `s3://bucket/prefix`; options follow as `?name=value&name=value`";
    let refused = |what: &str| Error::new(Kind::Config, what).advise(form);
    let (place_text, query) = match text.split_once('?') {
        Some((place_text, query)) => (place_text, format!("?{query}")),
        None => (text, String::new()),
    };
    let (scheme, rest) = place_text.split_once("://").ok_or_else(|| refused("the address names no bucket"))?;
    let (name, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let Place::Bucket(mut bucket) = place(&format!("{scheme}://{name}{query}"), Path::new(""))? else {
        return Err(refused("the address names no bucket"));
    };
    if bucket.service != Service::S3 {
        let what = "only buckets of S3, and of what speaks its protocol, can be backed up or restored into";
        return Err(
            Error::new(Kind::Config, what).advise("use an s3:// address; services like Google's have such an endpoint")
        );
    }
    if bucket.weak.is_some() {
        return Err(refused("the option `weak` belongs to regions"));
    }
    let prefix = unescaped(prefix).and_then(|bytes| String::from_utf8(bytes).ok());
    let prefix = prefix.ok_or_else(|| refused("the prefix has a `%` without two hex digits, or is no text"))?;
    let prefix = prefix.strip_suffix('/').unwrap_or(&prefix);
    let part = |part: &str| !matches!(part, "" | "." | "..") && !part.chars().any(char::is_control);
    if !prefix.is_empty() && !prefix.split('/').all(part) || prefix.contains('#') && place_text.contains('#') {
        let what = "the prefix is no path: it has an empty part, `.`, `..`, a control character or `#`";
        return Err(refused(what));
    }
    bucket.prefix = prefix.to_owned();
    Ok(bucket)
}

/// Judges a source that may be a bucket.
pub(super) fn judge(sheet: &mut Sheet<'_>, at: &str, source: &SourceSpec) -> Option<Bucket> {
    let text = source.bucket.as_deref()?;
    let of_files = !source.paths.is_empty() || source.ignore_file.is_some();
    if of_files || source.etcd.is_some() || source.exclude_caches.is_some() || source.one_file_system.is_some() {
        let advice = "make two sources of it; excludeCaches, ignoreFile and oneFileSystem belong to paths";
        sheet.refuse(at, "the source is a bucket and something else at once", advice);
    }
    sheet.take(&format!("{at}.bucket"), bucket(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_of_any_path() {
        let prefix = |text: &str| bucket(text).unwrap().prefix;
        assert_eq!(prefix("s3://b"), "");
        assert_eq!(prefix("s3://b/"), "");
        assert_eq!(prefix("s3://b/date=2026/a b/?region=x"), "date=2026/a b");
        assert_eq!(prefix("s3://b/%C3%A4%3F%25"), "ä?%");
        for text in ["s3://b/a?endpoint=http://h:1", "s3://b/%25%3F%23", "s3://b"] {
            assert_eq!(bucket(text).unwrap().to_string(), text);
        }
        assert!(is_bucket("S3://b") && is_bucket("az://b") && !is_bucket("/s3://b") && !is_bucket("etcd://b"));
    }

    #[test]
    fn what_is_no_bucket_is_refused() {
        for text in [
            "s3://",
            "s3:///a",
            "s3://b/a//c",
            "s3://b//a",
            "s3://b/../c",
            "s3://b/%",
            "s3://b/%ff",
            "s3://b/a%00",
            "s3://b/a#c",
            "s3://b?weak=yes",
            "gs://models/hub",
            "az://models/hub",
            "s3://b?secret=hunter2",
            "/b",
            "file:///b",
        ] {
            let e = bucket(text).unwrap_err();
            assert!(e.kind() == Kind::Config && !e.to_string().contains("hunter2"), "{text}: {e}");
        }
    }
}
