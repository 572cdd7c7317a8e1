//! Signed requests to an S3 bucket that the crate's client does not make: what the bucket says of itself, deletion of
//! one version of an object, and whatever concerns objects that are no part of a repository.

use super::wire::Connector;
use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderMap, Method, Response};
use object_store::ClientOptions;
use object_store::aws::{AwsAuthorizer, AwsCredentialProvider};
use object_store::client::{HttpClient, HttpConnector, HttpRequestBody, HttpResponseBody};

/// Longer than any answer that is understood.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// What is asked.
#[derive(Debug, Clone)]
pub(super) enum Ask {
    /// Whether old versions are kept.
    Versioning,
    /// Whether objects are locked when they are created.
    ObjectLock,
    /// Until when a version of an object is locked.
    Retention(String, String),
    /// Deletes an object, by its path in the bucket; where versions are kept, it is hidden.
    Delete(String),
    /// Deletes a version of it.
    DeleteVersion(String, String),
}

impl Ask {
    /// For errors: `cannot ask for …`.
    pub(super) fn words(&self) -> (&'static str, &str) {
        match self {
            Ask::Versioning => ("ask for", "versioning"),
            Ask::ObjectLock => ("ask for", "object lock"),
            Ask::Retention(path, _) => ("ask for the retention of", path),
            Ask::Delete(path) => ("delete", path),
            Ask::DeleteVersion(path, _) => ("delete a version of", path),
        }
    }

    fn method(&self) -> Method {
        match self {
            Ask::Versioning | Ask::ObjectLock | Ask::Retention(..) => Method::GET,
            Ask::Delete(_) | Ask::DeleteVersion(..) => Method::DELETE,
        }
    }

    /// Behind the bucket's address.
    fn target(&self) -> String {
        match self {
            Ask::Versioning => "?versioning".into(),
            Ask::ObjectLock => "?object-lock".into(),
            Ask::Retention(path, version) => format!("/{path}?retention&versionId={}", escaped(version.as_bytes())),
            Ask::Delete(path) => format!("/{path}"),
            Ask::DeleteVersion(path, version) => format!("/{path}?versionId={}", escaped(version.as_bytes())),
        }
    }
}

/// As it stands in an address, whatever the bytes.
pub(super) fn escaped(bytes: &[u8]) -> String {
    let one = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    bytes.iter().copied().map(one).collect()
}

/// A request in its parts.
#[derive(Debug, Clone, Default)]
pub(super) struct Call {
    pub(super) method: Method,
    /// Behind the bucket's address, escaped.
    pub(super) target: String,
    /// Only texts: the signer takes that for granted.
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// What came back of a request that was granted.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    /// The version that the request made or removed.
    pub(super) version: Option<String>,
    /// The body, as text.
    pub(super) text: String,
}

/// Makes them.
pub(super) struct Asker {
    credentials: AwsCredentialProvider,
    client: HttpClient,
    region: String,
    /// The bucket's address, without a slash at its end.
    url: String,
}

impl Asker {
    /// # Errors
    /// No client can be made.
    pub(super) fn new(
        credentials: &AwsCredentialProvider,
        connector: &Connector,
        options: &ClientOptions,
        region: String,
        url: String,
    ) -> object_store::Result<Asker> {
        Ok(Asker { credentials: credentials.clone(), client: connector.connect(options)?, region, url })
    }

    /// Makes one request.
    ///
    /// # Errors
    /// It was refused, which the transport has noted, or could not be made.
    pub(super) async fn send(&self, ask: &Ask) -> object_store::Result<Answer> {
        let call = Call { method: ask.method(), target: ask.target(), ..Call::default() };
        let (parts, body) = self.call(call).await?.into_parts();
        let version = parts.headers.get("x-amz-version-id").and_then(|id| id.to_str().ok()).map(str::to_owned);
        Ok(Answer { version, text: String::from_utf8_lossy(&read(body).await?).into_owned() })
    }

    /// Makes one request of any kind; its answer may still be on its way.
    ///
    /// # Errors
    /// As [`Asker::send`].
    pub(super) async fn call(&self, call: Call) -> object_store::Result<Response<HttpResponseBody>> {
        let url = format!("{}{}", self.url, call.target);
        // The signer takes for granted that this is an address.
        reqwest::Url::parse(&url).map_err(|_| failed("the address of the store is not valid"))?;
        let body = if call.body.is_empty() { HttpRequestBody::empty() } else { call.body.into() };
        let request = http::Request::builder().method(call.method).uri(url);
        let mut request = request.body(body).map_err(|_| failed("the address of the store is not valid"))?;
        *request.headers_mut() = call.headers;
        let credential = self.credentials.get_credential().await?;
        AwsAuthorizer::new(&credential, "s3", &self.region).try_authorize(&mut request, None)?;
        let response = self.client.execute(request).await.map_err(|_| failed("the request failed"))?;
        if response.status().is_success() { Ok(response) } else { Err(failed("the store refused it")) }
    }
}

/// The words do not matter where the transport has noted what went wrong.
pub(super) fn failed(what: &'static str) -> object_store::Error {
    object_store::Error::Generic { store: "S3", source: std::io::Error::other(what).into() }
}

async fn read(body: HttpResponseBody) -> object_store::Result<Bytes> {
    let mut stream = body.bytes_stream();
    let mut text = Vec::new();
    while let Some(part) = stream.next().await {
        text.extend_from_slice(&part.map_err(|_| failed("the answer was cut short"))?);
        if text.len() > ANSWER_BYTES_MAX {
            return Err(failed("the answer is too long"));
        }
    }
    Ok(text.into())
}

/// Whether a bucket keeps old versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Versioning {
    /// It never did.
    Off,
    /// It does.
    On,
    /// It did; what is replaced or deleted now is gone.
    Suspended,
}

impl Versioning {
    /// In words for people and in `--json`.
    pub fn name(self) -> &'static str {
        match self {
            Versioning::Off => "off",
            Versioning::On => "on",
            Versioning::Suspended => "suspended",
        }
    }

    /// From the answer of a bucket; `None`: it is none.
    pub(super) fn read(text: &str) -> Option<Versioning> {
        text.contains("<VersioningConfiguration").then(|| match between(text, "Status") {
            Some("Enabled") => Versioning::On,
            Some("Suspended") => Versioning::Suspended,
            _ => Versioning::Off,
        })
    }
}

/// How objects of a bucket are locked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lock {
    /// They are not.
    Off,
    /// They can be, and are not by default.
    NoDefault,
    /// Each new one is.
    Default {
        /// `COMPLIANCE`: by nobody removed; `GOVERNANCE`: by those with a special permission.
        mode: String,
        /// For so long.
        days: u32,
    },
}

impl Lock {
    /// From the answer of a bucket; `None`: it is none.
    pub(super) fn read(text: &str) -> Option<Lock> {
        if !text.contains("<ObjectLockConfiguration") {
            return None;
        }
        let word = |mode: &&str| !mode.is_empty() && mode.len() <= 16 && mode.bytes().all(|b| b.is_ascii_uppercase());
        let number = |name: &str| between(text, name).and_then(|n| n.trim().parse::<u32>().ok());
        let days = number("Days").or_else(|| number("Years").map(|years| years.saturating_mul(365)));
        Some(match (between(text, "Mode").filter(word), days) {
            (Some(mode), Some(days)) => Lock::Default { mode: mode.to_owned(), days },
            _ if between(text, "ObjectLockEnabled") == Some("Enabled") => Lock::NoDefault,
            _ => Lock::Off,
        })
    }
}

/// The end of a retention, from the answer of a bucket; `None`: it says none.
pub(super) fn retained_until(text: &str) -> Option<&str> {
    let time = |c: u8| c.is_ascii_digit() || matches!(c, b'-' | b':' | b'.' | b'T' | b'Z' | b'+');
    between(text, "RetainUntilDate").filter(|until| (1..=40).contains(&until.len()) && until.bytes().all(time))
}

/// What stands in the first element of this name.
pub(super) fn between<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    Some(rest.split_once(&format!("</{name}>"))?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_bucket_says_of_its_versions() {
        let of = |inner: &str| {
            Versioning::read(&format!("<VersioningConfiguration xmlns=\"x\">{inner}</VersioningConfiguration>"))
        };
        assert_eq!(of("<Status>Enabled</Status>"), Some(Versioning::On));
        assert_eq!(of("<Status>Suspended</Status>"), Some(Versioning::Suspended));
        assert_eq!(of(""), Some(Versioning::Off));
        assert_eq!(Versioning::read("<VersioningConfiguration/>"), Some(Versioning::Off));
        assert_eq!(Versioning::read("<html>Enabled</html>"), None);
    }

    #[test]
    fn what_a_bucket_says_of_its_lock() {
        let of = |inner: &str| Lock::read(&format!("<ObjectLockConfiguration>{inner}</ObjectLockConfiguration>"));
        let rule = |rest: &str| {
            format!(
                "<ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention>{rest}</DefaultRetention></Rule>"
            )
        };
        let locked = |mode: &str, days| Some(Lock::Default { mode: mode.into(), days });
        assert_eq!(of(&rule("<Mode>COMPLIANCE</Mode><Days>30</Days>")), locked("COMPLIANCE", 30));
        assert_eq!(of(&rule("<Years>2</Years><Mode>GOVERNANCE</Mode>")), locked("GOVERNANCE", 730));
        assert_eq!(of("<ObjectLockEnabled>Enabled</ObjectLockEnabled>"), Some(Lock::NoDefault));
        assert_eq!(of(&rule("<Mode>\u{1b}[2J</Mode><Days>1</Days>")), Some(Lock::NoDefault));
        assert_eq!(of(""), Some(Lock::Off));
        assert_eq!(Lock::read("<Error/>"), None);
    }

    #[test]
    fn what_a_bucket_says_of_a_retention() {
        let of = |until: &str| format!("<Retention><RetainUntilDate>{until}</RetainUntilDate></Retention>");
        assert_eq!(retained_until(&of("2026-12-01T00:00:00.000Z")), Some("2026-12-01T00:00:00.000Z"));
        assert_eq!(retained_until(&of("\u{1b}[2J")), None);
        assert_eq!(retained_until(&of("")), None);
        assert_eq!(Ask::Retention("a".into(), "v".into()).target(), "/a?retention&versionId=v");
    }

    #[test]
    fn a_version_is_escaped() {
        assert_eq!(Ask::DeleteVersion("a/b".into(), "x+/=&y".into()).target(), "/a/b?versionId=x%2B%2F%3D%26y");
    }
}
