//! Requests to an object store over HTTP: counted, watched, and what came back noted for who judges it.
//!
//! A request that makes no progress for a while is given up, whether it sends or waits. Nothing is made again here:
//! that is `bucket`'s, which signs each attempt anew. Addresses may hold tokens: no text made here has one in it.

use super::counts::{Counts, Request};
use super::heard::Heard;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use object_store::ClientOptions;
use object_store::client::{
    ClientConfigKey, HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse,
    HttpResponseBody, HttpService,
};
use reqwest::header::HeaderMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// What is read of an answer that says no.
const REFUSAL_BYTES_MAX: usize = 64 << 10;
/// And of a page of a listing: a thousand keys of a kilobyte, escaped, with all that stands beside them.
const LISTING_BYTES_MAX: usize = 16 << 20;
/// A body goes out in pieces of this, so that progress is seen.
const PIECE_BYTES: usize = 256 << 10;
/// Metadata services are on the machine itself, or nowhere.
const METADATA_CONNECT: Duration = Duration::from_secs(2);
/// Idle connections are closed before a server or something in between forgets them.
const IDLE: Duration = Duration::from_secs(50);

tokio::task_local! {
    /// What the attempt of this task met.
    pub(super) static SEEN: Arc<Seen>;
}

/// A refusal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Refusal {
    /// Status.
    pub(super) status: u16,
    /// The store's own word for it.
    pub(super) code: String,
    /// Whether the store explained that a time was wrong.
    pub(super) date_wrong: bool,
    /// How long it asks to be left alone.
    pub(super) retry_after: Option<Duration>,
    /// The region in which it says that the bucket is.
    pub(super) region: Option<String>,
    /// Its clock.
    pub(super) date: Option<String>,
}

/// What went wrong on the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The store said no.
    Refused(Refusal),
    /// Nobody is there: why.
    Unreachable(String),
    /// No protection that is trusted: why.
    Untrusted(String),
    /// No progress for so long.
    Stalled(Duration),
    /// The connection was cut.
    Cut,
    /// Not HTTP, or not as it should be.
    Garbled(String),
}

/// What an attempt met: the last trouble counts.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// With whether it was the store itself, and not a service that hands out credentials.
    last: Mutex<Option<(Trouble, bool)>>,
}

impl Seen {
    fn note(&self, trouble: Trouble, store: bool) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((trouble, store));
    }

    pub(super) fn take(&self) -> Option<(Trouble, bool)> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Makes the clients of one store: for those that hand out credentials, and last for itself.
#[derive(Debug, Clone)]
pub(super) struct Connector {
    pub(super) tls: rustls::ClientConfig,
    pub(super) connect: Duration,
    pub(super) stall: Duration,
    pub(super) counts: Arc<Counts>,
    pub(super) heard: Arc<Heard>,
    /// Clients made so far. The store's own is made last, so its number is the count.
    pub(super) clients: Arc<AtomicUsize>,
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let given = |key: ClientConfigKey| options.get_config_value(&key);
        let plain_allowed = given(ClientConfigKey::AllowHttp).is_some_and(|value| value == "true");
        // A client for a metadata service comes with less patience than usual.
        let usual = ClientOptions::default().get_config_value(&ClientConfigKey::ConnectTimeout);
        let metadata = given(ClientConfigKey::ConnectTimeout) != usual;
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(self.tls.clone())
            .https_only(!plain_allowed)
            // A redirection would be told what is signed for somebody else.
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .retry(reqwest::retry::never())
            .connect_timeout(if metadata { METADATA_CONNECT } else { self.connect })
            .pool_idle_timeout(IDLE)
            .tcp_keepalive(IDLE)
            .user_agent(concat!("holdfast/", env!("CARGO_PKG_VERSION")));
        if metadata {
            builder = builder.no_proxy();
        }
        let client = builder.build().map_err(|e| object_store::Error::Generic { store: "HTTP", source: e.into() })?;
        let number = self.clients.fetch_add(1, Ordering::AcqRel) + 1;
        Ok(HttpClient::new(Wire { client, number, connector: self.clone() }))
    }
}

/// One client.
#[derive(Debug)]
struct Wire {
    client: reqwest::Client,
    number: usize,
    connector: Connector,
}

#[async_trait::async_trait]
impl HttpService for Wire {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let seen = SEEN.try_with(Arc::clone).unwrap_or_default();
        let store = self.number == self.connector.clients.load(Ordering::Acquire);
        let kind = kind_of(&request).filter(|_| store);
        if let Some(kind) = kind {
            self.connector.counts.add(kind);
        }
        let stall = self.connector.stall;
        let sent = Instant::now();
        let (request, progress) =
            translate(request).inspect_err(|e| seen.note(Trouble::Garbled(e.to_string()), store))?;
        let answer = tokio::select! {
            answer = self.client.execute(request) => answer,
            () = progress.stalled(stall) => {
                seen.note(Trouble::Stalled(stall), store);
                return Err(failed(HttpErrorKind::Timeout, "no progress"));
            }
        };
        let answer = answer.map_err(|e| {
            let trouble = trouble_of(&e, self.connector.connect);
            seen.note(trouble, store);
            failed(HttpErrorKind::Unknown, "the request failed")
        })?;
        let (parts, body) = http::Response::<reqwest::Body>::from(answer).into_parts();
        if store && let Some(date) = parts.headers.get("date").and_then(|date| date.to_str().ok()) {
            self.connector.heard.note(date, sent);
        }
        let body = Watched { body, stall, timer: None, seen: Arc::clone(&seen), store };
        if parts.status.is_success() && kind == Some(Request::List) {
            let text = listing(body).await.inspect_err(|e| {
                // What was cut or stalled is noted already.
                if matches!(e.kind(), HttpErrorKind::Decode) {
                    seen.note(Trouble::Garbled("its answer is no listing".into()), store);
                }
            })?;
            return Ok(HttpResponse::from_parts(parts, HttpResponseBody::from(text)));
        }
        if parts.status.is_success() {
            return Ok(HttpResponse::from_parts(parts, HttpResponseBody::new(body)));
        }
        let text = beginning(body).await;
        seen.note(Trouble::Refused(refusal(parts.status.as_u16(), &parts.headers, &text)), store);
        Ok(HttpResponse::from_parts(parts, HttpResponseBody::from(text)))
    }
}

/// What a request of the store is for, as its price list has it.
fn kind_of(request: &HttpRequest) -> Option<Request> {
    let query = request.uri().query().unwrap_or_default();
    let listing = query.split('&').any(|part| matches!(part, "list-type=2" | "comp=list"));
    match request.method().as_str() {
        "PUT" => Some(Request::Put),
        "HEAD" => Some(Request::Head),
        // Azure's client deletes one object by a batch of one.
        "DELETE" | "POST" => Some(Request::Delete),
        "GET" if listing => Some(Request::List),
        "GET" => Some(Request::Get),
        _ => None,
    }
}

fn failed(kind: HttpErrorKind, what: &'static str) -> HttpError {
    HttpError::new(kind, std::io::Error::other(what))
}

/// The same request for the client, with a body that shows its progress.
fn translate(request: HttpRequest) -> Result<(reqwest::Request, Arc<Progress>), HttpError> {
    let (parts, body) = request.into_parts();
    let url = reqwest::Url::parse(&parts.uri.to_string())
        .map_err(|_| failed(HttpErrorKind::Unknown, "the address of the store is not valid"))?;
    let mut translated = reqwest::Request::new(parts.method, url);
    *translated.headers_mut() = parts.headers;
    let progress = Arc::new(Progress::new());
    if body.content_length() > 0 {
        let piece = Bytes::new();
        let outgoing = Outgoing { body, piece, progress: Arc::clone(&progress) };
        *translated.body_mut() = Some(reqwest::Body::wrap(outgoing));
    }
    Ok((translated, progress))
}

/// When something last moved.
#[derive(Debug)]
struct Progress {
    begin: Instant,
    last_ms: AtomicU64,
}

impl Progress {
    fn new() -> Progress {
        Progress { begin: Instant::now(), last_ms: AtomicU64::new(0) }
    }

    fn moved(&self) {
        self.last_ms.store(self.begin.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// Returns when nothing has moved for so long.
    async fn stalled(&self, stall: Duration) {
        loop {
            let end = self.begin + Duration::from_millis(self.last_ms.load(Ordering::Relaxed)) + stall;
            if Instant::now() >= end {
                return;
            }
            tokio::time::sleep_until(end).await;
        }
    }
}

/// A body on its way out, in pieces.
struct Outgoing {
    body: HttpRequestBody,
    piece: Bytes,
    progress: Arc<Progress>,
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        self.progress.moved();
        while self.piece.is_empty() {
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => self.piece = frame.into_data().unwrap_or_default(),
                other => return other,
            }
        }
        let len = self.piece.len().min(PIECE_BYTES);
        Poll::Ready(Some(Ok(Frame::data(self.piece.split_to(len)))))
    }

    fn size_hint(&self) -> SizeHint {
        let left = self.body.size_hint().exact().unwrap_or_default();
        SizeHint::with_exact(left.saturating_add(self.piece.len() as u64))
    }

    fn is_end_stream(&self) -> bool {
        self.piece.is_empty() && self.body.is_end_stream()
    }
}

/// A body on its way in, given up when nothing comes for a while.
struct Watched {
    body: reqwest::Body,
    stall: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    seen: Arc<Seen>,
    store: bool,
}

impl Body for Watched {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let this = &mut *self;
        match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Ready(Some(Err(e))) => {
                let trouble = if e.is_timeout() { Trouble::Stalled(this.stall) } else { Trouble::Cut };
                this.seen.note(trouble, this.store);
                Poll::Ready(Some(Err(failed(HttpErrorKind::Interrupted, "the answer was cut short"))))
            }
            Poll::Ready(other) => {
                this.timer = None;
                Poll::Ready(other.map(|frame| frame.map_err(|_| failed(HttpErrorKind::Interrupted, "cut short"))))
            }
            Poll::Pending => {
                let stall = this.stall;
                let timer = this.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(stall)));
                if timer.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                this.seen.note(Trouble::Stalled(stall), this.store);
                Poll::Ready(Some(Err(failed(HttpErrorKind::Timeout, "no progress"))))
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

/// The first bytes of a refusal; what does not come is not missed.
async fn beginning(body: Watched) -> Bytes {
    let mut body = body;
    let mut text = Vec::new();
    while text.len() < REFUSAL_BYTES_MAX {
        let next = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await;
        let Some(Ok(frame)) = next else { break };
        text.extend_from_slice(&frame.into_data().unwrap_or_default());
    }
    text.truncate(REFUSAL_BYTES_MAX);
    text.into()
}

/// A page of a listing, whole. The client's reader takes any document for a listing without keys, and a page of
/// something in between (a portal, another server) would show a full region as an empty one.
async fn listing(body: Watched) -> Result<Bytes, HttpError> {
    let mut body = body;
    let mut text = Vec::new();
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        text.extend_from_slice(&frame?.into_data().unwrap_or_default());
        if text.len() > LISTING_BYTES_MAX {
            return Err(failed(HttpErrorKind::Decode, "a page of a listing is too long"));
        }
    }
    match ["ListBucketResult", "EnumerationResults"].iter().any(|root| is_document(&text, root)) {
        true => Ok(text.into()),
        false => Err(failed(HttpErrorKind::Decode, "the answer is no listing")),
    }
}

/// Whether a text of XML begins and ends with this element.
fn is_document(text: &[u8], root: &str) -> bool {
    let text = text.trim_ascii();
    let head = text.get(..text.len().min(1024)).unwrap_or_default();
    let opens = String::from_utf8_lossy(head).contains(&format!("<{root}"));
    opens && text.ends_with(format!("</{root}>").as_bytes())
}

/// What a refusal says, as far as it is told what to do about it.
fn refusal(status: u16, headers: &HeaderMap, body: &[u8]) -> Refusal {
    let text = String::from_utf8_lossy(body);
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let code = header("x-ms-error-code").or_else(|| code_of(&text)).unwrap_or_default();
    // A code is one word; what is no such thing is not repeated.
    let word = code.len() <= 64 && code.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'-' | b'.'));
    Refusal {
        status,
        code: if word { code } else { String::new() },
        date_wrong: text.contains("RequestTimeTooSkewed") || text.contains("date header too old"),
        retry_after: header("retry-after").and_then(|value| value.trim().parse().ok()).map(Duration::from_secs),
        region: header("x-amz-bucket-region").filter(|r| r.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-')),
        date: header("date").filter(|date| date.len() <= 40 && !date.chars().any(char::is_control)),
    }
}

/// The code in an answer of XML (`<Code>`) or JSON (`"error":"…"`).
fn code_of(text: &str) -> Option<String> {
    let between = |begin: &str, end: &str| text.split_once(begin)?.1.split_once(end).map(|(code, _)| code.to_owned());
    between("<Code>", "</Code>").or_else(|| between("\"error\":\"", "\"")).or_else(|| between("\"error\": \"", "\""))
}

/// What went wrong before there was an answer.
fn trouble_of(e: &reqwest::Error, connect: Duration) -> Trouble {
    let mut causes = vec![];
    let mut next = std::error::Error::source(e);
    while let Some(cause) = next {
        causes.push(cause);
        next = cause.source();
    }
    let io = causes.iter().find_map(|cause| cause.downcast_ref::<std::io::Error>());
    if let Some(tls) = causes.iter().find_map(|cause| tls_cause(*cause)) {
        return Trouble::Untrusted(tls);
    }
    if e.is_connect() && e.is_timeout() {
        return Trouble::Unreachable(format!("no connection within {} s", connect.as_secs_f64()));
    }
    if e.is_connect() {
        let words = causes.last().map(|cause| cause.to_string()).unwrap_or_default();
        return Trouble::Unreachable(words.split(" (os error").next().unwrap_or_default().to_lowercase());
    }
    if e.is_builder() {
        return Trouble::Garbled("the endpoint is not https, and was not given as http".into());
    }
    match io {
        Some(_) => Trouble::Cut,
        None if e.is_request() || e.is_body() => Trouble::Cut,
        None => Trouble::Garbled("its answer is not HTTP".into()),
    }
}

/// What TLS did not like is inside one error of input and output, or several.
fn tls_cause(cause: &(dyn std::error::Error + 'static)) -> Option<String> {
    let mut cause = cause;
    loop {
        if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
            return Some(tls.to_string());
        }
        cause = cause.downcast_ref::<std::io::Error>()?.get_ref()?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_read() {
        let mut headers = HeaderMap::new();
        headers.insert("retry-after", "7".parse().unwrap());
        headers.insert("x-amz-bucket-region", "eu-west-1".parse().unwrap());
        let xml = b"<?xml version=\"1.0\"?><Error><Code>SlowDown</Code><Message>x</Message></Error>";
        let read = refusal(503, &headers, xml);
        assert_eq!((read.code.as_str(), read.retry_after), ("SlowDown", Some(Duration::from_secs(7))));
        assert_eq!(read.region.as_deref(), Some("eu-west-1"));
        assert_eq!(refusal(400, &HeaderMap::new(), b"{\"error\": \"invalid_grant\"}").code, "invalid_grant");
        headers.insert("x-ms-error-code", "AuthenticationFailed".parse().unwrap());
        let azure = refusal(403, &headers, b"The MAC is wrong. Request date header too old: 'x'");
        assert_eq!((azure.code.as_str(), azure.date_wrong), ("AuthenticationFailed", true));
    }

    #[test]
    fn what_is_no_code_is_not_repeated() {
        assert_eq!(refusal(400, &HeaderMap::new(), b"<Code>a b?sig=hunter2</Code>").code, "");
        assert_eq!(refusal(500, &HeaderMap::new(), &[0xff; 10]).code, "");
    }
}
