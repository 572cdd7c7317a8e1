//! A page of a listing as S3 writes it, read for what it says of every object, whatever its key.
//!
//! The crate's own reader knows only keys that are paths, and fails at `a//b`. Keys here are bytes, as they stand in the
//! bucket.

use super::ask::between;
use crate::base::TimeMs;

/// An object as a listing has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Its key in the bucket.
    pub key: Vec<u8>,
    /// Size in bytes.
    pub size: u64,
    /// The store's time of it, ms since 1970; 0 where it says none.
    pub modified: i64,
    /// What the store calls this version of its content, with the quotes.
    pub etag: Option<String>,
}

/// What a page says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) lines: Vec<Line>,
    /// Where the next one begins, if there is one.
    pub(super) token: Option<String>,
    /// Whether it says that there is more.
    pub(super) more: bool,
}

/// Longest tag of a version that is believed, in bytes.
const ETAG_BYTES_MAX: usize = 256;

impl Page {
    /// `None`: it is not understood.
    pub(super) fn parse(bytes: &[u8]) -> Option<Page> {
        let text = String::from_utf8_lossy(bytes);
        let escaped = between(&text, "EncodingType") == Some("url");
        let mut lines = Vec::new();
        let mut rest = &text[..];
        while let Some((_, behind)) = rest.split_once("<Contents>") {
            let (block, behind) = behind.split_once("</Contents>")?;
            rest = behind;
            lines.push(line(block, escaped)?);
        }
        let token = between(&text, "NextContinuationToken").map(unescaped).filter(|token| !token.is_empty());
        let more = between(&text, "IsTruncated").is_some_and(|more| more.trim().eq_ignore_ascii_case("true"));
        Some(Page { lines, token, more })
    }
}

fn line(block: &str, escaped: bool) -> Option<Line> {
    let key = unescaped(between(block, "Key")?);
    let etag = between(block, "ETag").map(unescaped);
    Some(Line {
        key: if escaped { decoded(&key)? } else { key.into_bytes() },
        size: between(block, "Size")?.trim().parse().ok()?,
        modified: between(block, "LastModified")
            .and_then(|time| TimeMs::from_utc(time.trim()))
            .map_or(0, |time| time.0),
        etag: etag.filter(|etag| is_etag(etag)),
    })
}

/// Whether it can stand in a request as it is.
pub(super) fn is_etag(text: &str) -> bool {
    (1..=ETAG_BYTES_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
}

/// With `%xx` read, and `+` for a space, as forms have it and Amazon writes keys; a plus is always escaped. `None` where two
/// hex digits do not follow.
fn decoded(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        match first {
            b'%' => {
                let digits = tail.get(..2).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
                bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
                rest = tail.get(2..)?;
            }
            b'+' => bytes.push(b' '),
            byte => bytes.push(*byte),
        }
    }
    Some(bytes)
}

/// With the escapes of XML read. What is none stays as it is.
fn unescaped(text: &str) -> String {
    let mut all = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('&') {
        all.push_str(before);
        let known = behind.split_once(';').and_then(|(name, behind)| Some((named(name)?, behind)));
        match known {
            Some((c, behind)) => {
                all.push(c);
                rest = behind;
            }
            None => {
                all.push('&');
                rest = behind;
            }
        }
    }
    all.push_str(rest);
    all
}

fn named(name: &str) -> Option<char> {
    Some(match name {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        _ => {
            let number = name.strip_prefix('#')?;
            let code = match number.strip_prefix(['x', 'X']) {
                Some(hex) => u32::from_str_radix(hex, 16).ok()?,
                None => number.parse().ok()?,
            };
            char::from_u32(code)?
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(inner: &str) -> Option<Page> {
        Page::parse(format!("<ListBucketResult>{inner}</ListBucketResult>").as_bytes())
    }

    fn object(key: &str) -> String {
        format!(
            "<Contents><Key>{key}</Key><LastModified>2026-11-28T12:00:00.250Z</LastModified><ETag>&quot;x&quot;</ETag><Size>7</Size></Contents>"
        )
    }

    fn keys(inner: &str) -> Vec<Vec<u8>> {
        page(inner).unwrap().lines.into_iter().map(|line| line.key).collect()
    }

    #[test]
    fn keys_of_any_kind_are_read_as_they_are() {
        let plain = object("a//b") + &object("&lt;&amp;&#228;&#x1;+%41 ");
        assert_eq!(keys(&plain), [b"a//b".to_vec(), "<&ä\u{1}+%41 ".into()]);
        let url = "<EncodingType>url</EncodingType>";
        assert_eq!(keys(&format!("{url}{}", object("a+b%2Bc%FF%00"))), [b"a b+c\xff\0"]);
        assert_eq!(
            keys(&format!("{url}{}{}", object("a%20b/c+d"), object("e%2Bf"))),
            [b"a b/c d".to_vec(), b"e+f".to_vec()]
        );
        assert_eq!(page(&format!("{url}{}", object("%4"))), None);
    }

    #[test]
    fn a_page_says_what_it_has() {
        let read = page(
            &(object("k") + "<IsTruncated>true</IsTruncated><NextContinuationToken>t&amp;</NextContinuationToken>"),
        );
        let time = 1_795_867_200_250;
        let line = Line { key: b"k".to_vec(), size: 7, modified: time, etag: Some("\"x\"".into()) };
        assert_eq!(read, Some(Page { lines: vec![line], token: Some("t&".into()), more: true }));
        assert_eq!(page(""), Some(Page::default()));
        assert_eq!(page("<Contents><Key>k</Key></Contents>"), None, "without a size");
        assert_eq!(page("<Contents><Key>k</Key><Size>7</Size>"), None, "without an end");
    }

    proptest::proptest! {
        #![proptest_config(proptest::test_runner::Config {
            cases: 256, failure_persistence: None, ..proptest::test_runner::Config::default()
        })]

        #[test]
        fn any_key_comes_back_however_it_is_written(key in proptest::collection::vec(0..=255u8, 1..40), spaces in 0..2u8) {
            let escaped: String = key.iter().map(|b| match b {
                b' ' if spaces == 1 => "+".to_owned(),
                b => format!("%{b:02X}"),
            }).collect();
            let found = keys(&format!("<EncodingType>url</EncodingType>{}", object(&escaped)));
            assert_eq!(found, [key]);
        }

        #[test]
        fn no_text_is_too_strange(parts in proptest::collection::vec(0..12usize, 0..40), noise: Vec<u8>) {
            let words = ["<Contents>", "</Contents>", "<Key>", "</Key>", "<Size>", "</Size>", "%4", "&#x110000;", "&", "7", "<EncodingType>url</EncodingType>", "\u{e4}"];
            let text: Vec<u8> = parts.iter().flat_map(|n| words[*n].bytes()).chain(noise).collect();
            let _read_or_not = Page::parse(&text);
        }
    }

    #[test]
    fn what_cannot_stand_in_a_request_is_no_tag() {
        let bad = "x\u{1b}y".repeat(2);
        assert!(!is_etag(&bad) && !is_etag("") && !is_etag("a b") && !is_etag(&"x".repeat(300)) && is_etag("\"a-1\""));
    }
}
