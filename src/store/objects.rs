//! Objects of a bucket that belong to somebody else: listed with whatever keys they have, read at one version of theirs,
//! and put. Nothing here knows of a repository.
//!
//! Contract: a listing is complete or an error; bytes that are returned are of the version that was asked for, and all of
//! them; no call waits for ever. Requests are made again while their failure may pass by itself. Of S3 and what speaks
//! its protocol.

use super::StoreSettings;
use super::ask::{Asker, Call, between, escaped, failed};
use super::bucket::{Attempt, Bucket};
use super::connect::connect;
use super::counts::{Counts, Meter};
use super::error::{StoreError, StoreErrorKind as Kind};
use super::page::{Line, Page, is_etag};
use crate::base::{self, Service, TimeMs};
use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use object_store::client::HttpResponseBody;
use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

/// Keys in a page of a listing.
const PAGE_KEYS: usize = 1000;
/// A page is never longer; the transport has looked already.
const PAGE_BYTES_MAX: u64 = 16 << 20;
/// The answer to anything that is no listing and no object.
const ANSWER_BYTES_MAX: u64 = 64 << 10;
/// Pages without a key that follow one another.
const EMPTY_PAGES_MAX: usize = 10_000;
/// What is said of a store that gives all of an object where a part was asked for.
const IGNORES_RANGES: &str = "the store ignores ranges";
/// How headers of an object's own begin.
const OWN: &str = "x-amz-meta-";
/// What else is kept of an object's headers, and put back.
const KEPT: [&str; 8] = [
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-type",
    "expires",
    "x-amz-storage-class",
    "x-amz-website-redirect-location",
];

/// A bucket of objects.
pub struct Objects {
    bucket: Bucket,
    counts: Arc<Counts>,
    /// Bucket and endpoint, for messages.
    place: String,
}

impl std::fmt::Debug for Objects {
    /// Clients hold secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Objects").field("place", &self.place).finish_non_exhaustive()
    }
}

/// What a store says of an object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Size in bytes.
    pub size: u64,
    /// What it calls this version of the content, with the quotes.
    pub etag: Option<String>,
    /// The version, where the bucket keeps several.
    pub version: Option<String>,
    /// The store's time of it, ms since 1970.
    pub modified: Option<i64>,
    /// Headers that belong to the object, sorted by name, in lower case.
    pub headers: Vec<(String, Vec<u8>)>,
}

impl Facts {
    fn of(headers: &HeaderMap, size: u64) -> Facts {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let kept = |name: &str| name.starts_with(OWN) || KEPT.contains(&name);
        let own = headers.iter().filter(|(name, _)| kept(name.as_str()));
        let mut own: Vec<_> = own.map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec())).collect();
        own.sort();
        Facts {
            size,
            etag: text("etag").filter(|etag| is_etag(etag)),
            version: text("x-amz-version-id").filter(|version| version != "null" && is_etag(version)),
            modified: text("last-modified").and_then(|time| TimeMs::from_http_date(&time)).map(|time| time.0),
            headers: own,
        }
    }
}

/// Which content of an object is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// What the store calls it; without it only the size is compared, and only of the whole it is known to be of one version.
    pub etag: Option<String>,
    /// Its size in bytes.
    pub size: u64,
}

/// Goes through a listing, page by page.
#[derive(Debug)]
pub struct Pages {
    target: String,
    next: Option<String>,
    tokens: HashSet<[u8; 32]>,
    empty: usize,
}

/// A part of an object that was put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part(String);

impl Objects {
    /// A bucket of S3. Whether it is there, only requests say.
    ///
    /// # Errors
    /// Another service, or something of the bucket's configuration is missing or wrong.
    pub fn connect(place: &base::Bucket, settings: &StoreSettings) -> Result<Objects, StoreError> {
        if place.service != Service::S3 {
            let what = "only buckets of S3, and of what speaks its protocol, can be backed up or restored into";
            return Err(
                StoreError::unfit(place, what).advise("use an s3:// URL; services like Google's have such an endpoint")
            );
        }
        let counts = Arc::<Counts>::default();
        let connected = connect(place, settings, &counts)?;
        // Keys are given whole.
        let bucket = Bucket::new(connected, "", Arc::clone(&counts), settings.patience.clone());
        let place = base::Bucket { prefix: String::new(), ..place.clone() }.to_string();
        Ok(Objects { bucket, counts, place })
    }

    /// Counts the requests that are made.
    pub fn meter(&self) -> Meter {
        Meter(Arc::clone(&self.counts))
    }

    fn asker(&self) -> Result<&Asker, StoreError> {
        let missing = || StoreError::unfit(&self.place, "its service has no such requests");
        self.bucket.asker.as_ref().ok_or_else(missing)
    }

    /// Makes a request until it is answered; status, headers, and a body of at most `most` bytes.
    async fn call(
        &self,
        action: &'static str,
        key: &[u8],
        call: Call,
        most: u64,
    ) -> Result<(StatusCode, HeaderMap, Bytes), StoreError> {
        let asker = self.asker()?;
        let object = String::from_utf8_lossy(key);
        let ranged = call.headers.contains_key("range");
        self.bucket
            .patiently(action, &object, || async {
                let (parts, body) = asker.call(call.clone()).await?.into_parts();
                let longer = length(&parts.headers).is_none_or(|len| len > most);
                if ranged && longer && parts.status == StatusCode::OK {
                    return Err(Attempt::Final(StoreError::new(Kind::Unfit, action, &object, IGNORES_RANGES)));
                }
                Ok((parts.status, parts.headers, read(body, most, &object).await?))
            })
            .await
    }

    /// Begins a listing of all keys with a prefix.
    pub fn pages(&self, prefix: &str) -> Pages {
        let target =
            format!("?list-type=2&encoding-type=url&max-keys={PAGE_KEYS}&prefix={}", escaped(prefix.as_bytes()));
        Pages { next: Some(target.clone()), target, tokens: HashSet::new(), empty: 0 }
    }

    /// The next page, not in the order of anything; `None` once all were there.
    ///
    /// # Errors
    /// It cannot be had, or is not understood: the listing is not complete then.
    pub async fn page(&self, pages: &mut Pages) -> Result<Option<Vec<Line>>, StoreError> {
        let Some(target) = pages.next.take() else { return Ok(None) };
        let wrong = |what: &'static str| StoreError::new(Kind::Failed, "list", &self.place, what);
        let call = Call { target, ..Call::default() };
        let (.., text) =
            self.call("list", self.place.as_bytes(), call, PAGE_BYTES_MAX).await.map_err(|e| match e.kind {
                // A prefix without objects is an empty listing; only a bucket can be missing.
                Kind::NotFound => StoreError::new(Kind::NoBucket, "list", &self.place, "there is no such bucket"),
                _ => e,
            })?;
        let page = Page::parse(&text).ok_or_else(|| wrong("its listing is not understood"))?;
        pages.empty = if page.lines.is_empty() { pages.empty.saturating_add(1) } else { 0 };
        let last = page.lines.last().map(|line| &line.key);
        pages.next = match (page.token.filter(|_| page.more), last) {
            (Some(token), _) => {
                let new = pages.tokens.insert(*blake3::hash(token.as_bytes()).as_bytes());
                if !new || pages.empty > EMPTY_PAGES_MAX {
                    return Err(wrong("its pages lead in a circle"));
                }
                Some(format!("{}&continuation-token={}", pages.target, escaped(token.as_bytes())))
            }
            (None, _) if page.more => return Err(wrong("a page says that there is more, and not where")),
            // A store that forgets to say that there is more would hide objects: that is asked for.
            (None, Some(last)) if page.lines.len() >= PAGE_KEYS => {
                if !pages.tokens.insert(*blake3::hash(last).as_bytes()) {
                    return Err(wrong("its pages lead in a circle"));
                }
                Some(format!("{}&start-after={}", pages.target, escaped(last)))
            }
            (None, _) => None,
        };
        Ok(Some(page.lines))
    }

    /// Whether no key has this prefix.
    ///
    /// # Errors
    /// The bucket cannot be looked at.
    pub async fn is_empty(&self, prefix: &str) -> Result<bool, StoreError> {
        let target = format!("?list-type=2&max-keys=1&prefix={}", escaped(prefix.as_bytes()));
        let mut pages = Pages { next: Some(target.clone()), target, tokens: HashSet::new(), empty: 0 };
        while let Some(lines) = self.page(&mut pages).await? {
            if !lines.is_empty() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What the store says of an object now.
    ///
    /// # Errors
    /// Not there, or the store failed.
    pub async fn head(&self, key: &[u8]) -> Result<Facts, StoreError> {
        let call = Call { method: Method::HEAD, target: target(key), ..Call::default() };
        let (_, headers, _) = self.call("stat", key, call, 0).await?;
        let size = length(&headers).ok_or_else(|| self.odd("stat", key, "the store does not say how long it is"))?;
        Ok(Facts::of(&headers, size))
    }

    /// Bytes of an object, all or a range of them, if its content is the one that is meant.
    ///
    /// # Errors
    /// [`Kind::Changed`] where it is another one; [`Kind::Short`] where the store says one size and has another; not
    /// there; the store failed.
    pub async fn get(
        &self,
        key: &[u8],
        content: &Content,
        range: Option<Range<u64>>,
    ) -> Result<(Facts, Bytes), StoreError> {
        let mut call = Call { target: target(key), ..Call::default() };
        let text = |text: String| HeaderValue::from_str(&text).map_err(|_| self.odd("read", key, "no such range"));
        if let Some(range) = &range {
            call.headers.insert("range", text(format!("bytes={}-{}", range.start, range.end.saturating_sub(1)))?);
        }
        if let Some(etag) = &content.etag {
            call.headers.insert("if-match", text(etag.clone())?);
        }
        let want = range.as_ref().map_or(content.size, |range| range.end.saturating_sub(range.start));
        let (status, headers, bytes) = self.call("read", key, call, want).await.map_err(|e| match e.kind {
            // No such range, or more than was asked for.
            Kind::Short | Kind::TooLong => self.odd("read", key, "it has another size than its listing says"),
            _ => e,
        })?;
        let whole = total(&headers).filter(|_| status == StatusCode::PARTIAL_CONTENT);
        let facts = Facts::of(&headers, whole.map_or(bytes.len() as u64, |(_, total)| total));
        match (&content.etag, &facts.etag) {
            (None, _) => {}
            (Some(_), None) => {
                return Err(self.odd("read", key, "the store does not say of which version these bytes are"));
            }
            (Some(wanted), Some(there)) if wanted == there => {}
            _ => return Err(StoreError::new(Kind::Changed, "read", &shown(key), "another version stands there")),
        }
        let first = whole.map_or(0, |(first, _)| first);
        if range.as_ref().is_some_and(|range| range.start != first || (whole.is_none() && want != content.size)) {
            return Err(StoreError::new(Kind::Unfit, "read", &shown(key), IGNORES_RANGES));
        }
        if facts.size != content.size || bytes.len() as u64 != want {
            let what = format!("its listing says {} bytes, and it has {}", content.size, facts.size);
            return Err(StoreError::new(Kind::Short, "read", &shown(key), what));
        }
        Ok((facts, bytes))
    }

    fn odd(&self, action: &'static str, key: &[u8], what: &str) -> StoreError {
        StoreError::new(Kind::Short, action, &shown(key), what)
    }

    /// Puts an object at once, whatever stands there.
    ///
    /// # Errors
    /// The store refused, is full, or cannot be reached.
    pub async fn put(&self, key: &[u8], headers: &[(String, Vec<u8>)], body: Bytes) -> Result<(), StoreError> {
        let call = Call { method: Method::PUT, target: target(key), headers: map(headers), body };
        self.call("write", key, call, ANSWER_BYTES_MAX).await.map(|_| ())
    }

    /// Begins an object that is put in parts; its number at the store.
    ///
    /// # Errors
    /// As [`Objects::put`].
    pub async fn begin(&self, key: &[u8], headers: &[(String, Vec<u8>)]) -> Result<String, StoreError> {
        let target = format!("{}?uploads", target(key));
        let call = Call { method: Method::POST, target, headers: map(headers), ..Call::default() };
        let (.., text) = self.call("write", key, call, ANSWER_BYTES_MAX).await?;
        let id = between(&String::from_utf8_lossy(&text), "UploadId").map(str::to_owned);
        id.ok_or_else(|| {
            StoreError::new(Kind::Unfit, "write", &shown(key), "the store does not say which upload it is")
        })
    }

    /// Puts a part, from 1 on.
    ///
    /// # Errors
    /// As [`Objects::put`].
    pub async fn part(&self, key: &[u8], upload: &str, number: u32, body: Bytes) -> Result<Part, StoreError> {
        let target = format!("{}?partNumber={number}&uploadId={}", target(key), escaped(upload.as_bytes()));
        let call = Call { method: Method::PUT, target, body, ..Call::default() };
        let (_, headers, _) = self.call("write", key, call, ANSWER_BYTES_MAX).await?;
        let etag = headers.get("etag").and_then(|etag| etag.to_str().ok()).filter(|etag| is_etag(etag));
        let missing =
            || StoreError::new(Kind::Unfit, "write", &shown(key), "the store does not say what a part is called");
        etag.map(|etag| Part(etag.to_owned())).ok_or_else(missing)
    }

    /// Makes the object of its parts.
    ///
    /// # Errors
    /// As [`Objects::put`].
    pub async fn complete(&self, key: &[u8], upload: &str, parts: &[Part]) -> Result<(), StoreError> {
        let one = |(n, part): (usize, &Part)| {
            let etag = part.0.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;");
            format!("<Part><PartNumber>{}</PartNumber><ETag>{etag}</ETag></Part>", n.saturating_add(1))
        };
        let all: String = parts.iter().enumerate().map(one).collect();
        let body = Bytes::from(format!("<CompleteMultipartUpload>{all}</CompleteMultipartUpload>"));
        let target = format!("{}?uploadId={}", target(key), escaped(upload.as_bytes()));
        let call = Call { method: Method::POST, target, body, ..Call::default() };
        let (.., text) = self.call("write", key, call, ANSWER_BYTES_MAX).await?;
        // A failure that comes late is told under a good status.
        match String::from_utf8_lossy(&text).contains("<Error>") {
            true => Err(StoreError::new(Kind::Failed, "write", &shown(key), "its parts could not be put together")),
            false => Ok(()),
        }
    }

    /// Takes the parts of an object back that was not finished.
    ///
    /// # Errors
    /// As [`Objects::put`].
    pub async fn give_up(&self, key: &[u8], upload: &str) -> Result<(), StoreError> {
        let target = format!("{}?uploadId={}", target(key), escaped(upload.as_bytes()));
        let call = Call { method: Method::DELETE, target, ..Call::default() };
        self.call("write", key, call, ANSWER_BYTES_MAX).await.map(|_| ())
    }
}

/// Whether an object can be put with these headers; those with which it cannot are named.
pub fn unfit_headers(headers: &[(String, Vec<u8>)]) -> Vec<&str> {
    headers.iter().filter(|(name, value)| one(name, value).is_none()).map(|(name, _)| name.as_str()).collect()
}

/// The signer takes only texts.
fn one(name: &str, value: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    let known = name.starts_with(OWN) || KEPT.contains(&name);
    let text = std::str::from_utf8(value).is_ok();
    let both = HeaderName::from_bytes(name.as_bytes()).ok().zip(HeaderValue::from_bytes(value).ok());
    both.filter(|_| known && text)
}

fn map(headers: &[(String, Vec<u8>)]) -> HeaderMap {
    headers.iter().filter_map(|(name, value)| one(name, value)).collect()
}

fn shown(key: &[u8]) -> String {
    String::from_utf8_lossy(key).into_owned()
}

fn target(key: &[u8]) -> String {
    format!("/{}", key.split(|b| *b == b'/').map(escaped).collect::<Vec<_>>().join("/"))
}

fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get("content-length")?.to_str().ok()?.trim().parse().ok()
}

/// Where a range begins, and how long the whole is.
fn total(headers: &HeaderMap) -> Option<(u64, u64)> {
    let text = headers.get("content-range")?.to_str().ok()?;
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, _) = range.split_once('-')?;
    Some((first.trim().parse().ok()?, total.trim().parse().ok()?))
}

/// A body of at most so many bytes.
async fn read(body: HttpResponseBody, most: u64, object: &str) -> Result<Bytes, Attempt> {
    let mut bytes = Vec::new();
    let mut stream = body.bytes_stream();
    while let Some(part) = stream.next().await {
        let part = part.map_err(|_| failed("the answer was cut short"))?;
        if (bytes.len() as u64).saturating_add(part.len() as u64) > most {
            return Err(Attempt::Final(StoreError::too_long(object)));
        }
        bytes.extend_from_slice(&part);
    }
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_an_objects_own_is_kept_of_its_headers() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("x-amz-meta-b", "2"),
            ("x-amz-meta-a", "1"),
            ("content-type", "text/plain"),
            ("server", "s"),
            ("etag", "\"e\""),
            ("x-amz-version-id", "null"),
            ("last-modified", "Sat, 28 Nov 2026 12:00:00 GMT"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let facts = Facts::of(&headers, 3);
        let names: Vec<&str> = facts.headers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["content-type", "x-amz-meta-a", "x-amz-meta-b"]);
        assert_eq!(
            (facts.etag.as_deref(), facts.version, facts.modified),
            (Some("\"e\""), None, Some(1_795_867_200_000))
        );
    }

    #[test]
    fn what_nobody_can_sign_is_named() {
        let header = |name: &str, value: &[u8]| (name.to_owned(), value.to_vec());
        let all = [
            header("x-amz-meta-a", "ä".as_bytes()),
            header("x-amz-meta-b", b"\xff"),
            header("x-amz-meta-c", b"a\nb"),
            header("authorization", b"x"),
        ];
        assert_eq!(unfit_headers(&all), ["x-amz-meta-b", "x-amz-meta-c", "authorization"]);
        assert_eq!(map(&all).len(), 1);
    }

    #[test]
    fn keys_and_ranges() {
        assert_eq!(target("a b/ä+%".as_bytes()), "/a%20b/%C3%A4%2B%25");
        let range = |text: &'static str| {
            total(&HeaderMap::from_iter([(HeaderName::from_static("content-range"), HeaderValue::from_static(text))]))
        };
        assert_eq!(range("bytes 5-9/20"), Some((5, 20)));
        assert_eq!((range("bytes */20"), range("5-9/20"), range("bytes 5-9/*")), (None, None, None));
    }
}
