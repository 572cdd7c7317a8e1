//! What a store says of an object, as metadata of a file and back.
//!
//! Attributes: `user.s3.etag`, `user.s3.version-id`, a header as `user.s3.` and its name, one of the object's own as
//! `user.s3.meta.` and its name. The time of a file is the store's; its inode is made of the tag of its content.

use super::number;
use crate::format::leaf::Meta;
use crate::format::tree::{Entry, EntryType, Xattr};
use crate::source::files::{ParentRule, too_recent};
use crate::store::Facts;

const ETAG: &str = "user.s3.etag";
const VERSION: &str = "user.s3.version-id";
const META: &str = "user.s3.meta.";
const HEADER: &str = "user.s3.";
const META_HEADER: &str = "x-amz-meta-";
const AMAZON: &str = "x-amz-";
/// Permissions of files and directories: a bucket has none.
const FILE_MODE: u32 = 0o644;
const DIR_MODE: u32 = 0o755;

/// The entry of an object or a directory, with what a listing says.
pub(super) fn entry(name: &[u8], kind: EntryType, modified: i64) -> Entry {
    let mode = if kind == EntryType::Dir { DIR_MODE } else { FILE_MODE };
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let mut entry = Entry { mode, uid, gid, ..Entry::bare(name, kind) };
    stamp(&mut entry, modified);
    entry
}

/// Its times.
pub(super) fn stamp(entry: &mut Entry, modified: i64) {
    let (s, ns) = (modified.div_euclid(1000), (modified.rem_euclid(1000) * 1_000_000) as u32);
    (entry.mtime_s, entry.mtime_ns, entry.ctime_s, entry.ctime_ns) = (s, ns, s, ns);
}

/// The number by which content is known again; 0: it is not.
pub(super) fn inode(etag: Option<&str>) -> u64 {
    etag.map_or(0, |etag| number(etag.as_bytes()).max(1))
}

/// Whether an object has the content that it had in the run from `ran.0` to `ran.1`, by all of its tag. A weak tag stands for
/// several contents; one that is no digest may be made of time and size, and was given again within the same second.
pub fn is_same_content(old: &Entry, new: &Entry, ran: (i64, i64)) -> bool {
    let (Some(was), Some(is)) = (etag_of(old.xattrs.as_deref()), etag_of(new.xattrs.as_deref())) else { return false };
    was == is && !is.starts_with("W/") && (is_digest(is) || !is_new(new, ran))
}

/// Whether its time cannot tell that it did not change in, or right after, that run: stores have seconds.
pub fn is_new(entry: &Entry, ran: (i64, i64)) -> bool {
    let later = Meta { ctime: (entry.ctime_s.saturating_add(2), 0), ..Meta::of(entry) };
    too_recent(&later, ParentRule::SameFs, ran)
}

/// Whether a tag is made like MD5, with the number of parts behind it where there are some.
fn is_digest(etag: &str) -> bool {
    let bare = etag.trim_matches('"');
    let (digits, parts) = bare.split_once('-').unwrap_or((bare, "1"));
    let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.len() == 32 && digits.bytes().all(|b| b.is_ascii_hexdigit()) && number(parts)
}

/// The attribute with the tag.
pub(super) fn tagged(etag: Option<&str>) -> Option<Vec<Xattr>> {
    etag.map(|etag| vec![xattr(ETAG, etag.as_bytes())])
}

pub(super) fn etag_of(xattrs: Option<&[Xattr]>) -> Option<&str> {
    let found = xattrs?.iter().find(|x| x.name[..] == *ETAG.as_bytes())?;
    std::str::from_utf8(&found.value).ok()
}

fn xattr(name: &str, value: &[u8]) -> Xattr {
    Xattr { name: name.as_bytes().to_vec().into(), value: value.to_vec().into() }
}

/// All attributes, sorted.
pub(super) fn of(facts: &Facts) -> Vec<Xattr> {
    let own = facts.etag.iter().map(|etag| xattr(ETAG, etag.as_bytes()));
    let version = facts.version.iter().map(|version| xattr(VERSION, version.as_bytes()));
    let headers = facts.headers.iter().map(|(name, value)| {
        let name = match name.strip_prefix(META_HEADER) {
            Some(own) => format!("{META}{own}"),
            None => format!("{HEADER}{}", name.strip_prefix(AMAZON).unwrap_or(name)),
        };
        xattr(&name, value)
    });
    let mut all: Vec<Xattr> = own.chain(version).chain(headers).collect();
    all.sort();
    all
}

/// The headers with which an object is put back, and names of the other attributes of objects that say nothing there.
pub(super) fn headers(xattrs: &[Xattr]) -> Vec<(String, Vec<u8>)> {
    let one = |x: &Xattr| {
        let name = std::str::from_utf8(&x.name).ok()?;
        if name == ETAG || name == VERSION {
            return None;
        }
        let header = match (name.strip_prefix(META), name.strip_prefix(HEADER)?) {
            (Some(own), _) => format!("{META_HEADER}{own}"),
            (None, name @ ("storage-class" | "website-redirect-location")) => format!("{AMAZON}{name}"),
            (None, name) => name.to_owned(),
        };
        Some((header, x.value.to_vec()))
    };
    xattrs.iter().filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_come_back_as_they_were() {
        let header = |name: &str, value: &str| (name.to_owned(), value.as_bytes().to_vec());
        let facts = Facts {
            size: 1,
            etag: Some("\"e\"".into()),
            version: Some("v".into()),
            modified: None,
            headers: vec![
                header("content-type", "text/plain"),
                header("x-amz-meta-etag", "mine"),
                header("x-amz-meta-storage-class", "mine too"),
                header("x-amz-storage-class", "STANDARD_IA"),
            ],
        };
        let all = of(&facts);
        assert!(all.is_sorted() && all.len() == 6, "{all:?}");
        assert_eq!(etag_of(Some(&all)), Some("\"e\""));
        let mut back = headers(&all);
        back.sort();
        assert_eq!(back, facts.headers);
    }

    #[test]
    fn content_is_known_again_by_all_of_its_tag() {
        let with = |etag: &str, second: i64| {
            let mut entry = entry(b"k", EntryType::File, second * 1000);
            // All have one number, as tags do that were made to agree in it.
            (entry.size, entry.inode, entry.xattrs) = (Some(3), 7, tagged(Some(etag)));
            entry
        };
        let (digest, parts) = (format!("\"{}\"", "0a".repeat(16)), format!("\"{}-12\"", "0a".repeat(16)));
        let ran = (100_000, 105_000);
        let same = |was: &str, is: &str, second: i64| is_same_content(&with(was, second), &with(is, second), ran);
        assert!(same(&digest, &digest, 50) && same(&digest, &digest, 100) && same(&parts, &parts, 100));
        assert!(!same(&digest, &parts, 50) && !same("\"a\"", "\"b\"", 50));
        // By time and size alone: not within the second of the run.
        assert!(same("\"64-3\"", "\"64-3\"", 50) && !same("\"64-3\"", "\"64-3\"", 100));
        assert!(!same("W/\"a\"", "W/\"a\"", 50));
        let bare = Entry { xattrs: None, ..with(&digest, 50) };
        assert!(!is_same_content(&bare, &with(&digest, 50), ran) && !is_same_content(&with(&digest, 50), &bare, ran));
    }

    #[test]
    fn times_before_the_epoch_have_nanoseconds_too() {
        let mut entry = Entry::bare(b"x", EntryType::File);
        stamp(&mut entry, -1);
        assert_eq!((entry.mtime_s, entry.mtime_ns), (-1, 999_000_000));
    }
}
