//! Calls to an etcd member: HTTP/2 over TLS, a few calls, messages in their frames.
//!
//! A frame is five bytes (not compressed, length) and a message; how a call ended stands in the trailers.

use super::proto::{Fields, Message};
use crate::error::{Error, Kind, Result};
use bytes::{Bytes, BytesMut};
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Uri};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use std::cell::RefCell;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

/// An answer to a watch is never longer: etcd's own limit of a request is 1.5 MiB, which may be raised.
const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// A part of a snapshot is never longer: etcd's are 32 KiB.
const PART_BYTES_MAX: usize = 8 << 20;
/// Names and values of a call's head, and of its end, are never more.
const HEADERS_BYTES_MAX: u32 = 64 << 10;
/// A password has so many bytes at most.
const PASSWORD_BYTES_MAX: u64 = 4096;
/// Bytes on their way at once.
const WINDOW_BYTES: u32 = 4 << 20;
/// The answer to a short question is never longer.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// What a member says of a failure is believed up to this length.
const REASON_CHARS_MAX: usize = 400;
/// How long a stream may be silent, from its very beginning.
pub const SILENCE: Duration = Duration::from_secs(60);
/// How long a member may take to take a connection, and to answer a short question.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// How a member is spoken to.
#[derive(Clone, Default)]
pub struct Means {
    /// Without TLS.
    pub plain: bool,
    /// TLS 1.2 will do.
    pub older_tls: bool,
    /// Certificates of the authorities that are believed; the system's if there is none.
    pub ca: Option<PathBuf>,
    /// This client's certificate and key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// A user's name and password.
    pub user: Option<(String, Password)>,
}

/// A password, which shows itself to nobody.
#[derive(Clone)]
pub struct Password(pub String);

impl Password {
    /// From a file; a line's end behind it is no part of it.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(file: &Path) -> Result<Password> {
        let failed = |e: std::io::Error| config(format!("cannot read the password: {}", e.kind())).at(file.display());
        let mut text = String::new();
        let input = std::fs::File::open(file).map_err(failed)?;
        input.take(PASSWORD_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
        text.truncate(text.trim_end_matches(['\n', '\r']).len());
        Ok(Password(text))
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(a password)")
    }
}

fn config(what: impl Into<String>) -> Error {
    Error::new(Kind::Config, what)
}

/// What is spoken where nothing else is allowed.
const NEWEST_TLS: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// What TLS is made of.
///
/// # Errors
/// A file is not there, or holds something else.
pub fn tls(means: &Means) -> Result<Option<Arc<rustls::ClientConfig>>> {
    if means.plain {
        return Ok(None);
    }
    let mut roots = rustls::RootCertStore::empty();
    match &means.ca {
        Some(path) => {
            let bad = |why: String| config(format!("no certificates of authorities: {why}")).at(path.display());
            let found = CertificateDer::pem_file_iter(path).map_err(|e| bad(e.to_string()))?;
            for certificate in found {
                roots.add(certificate.map_err(|e| bad(e.to_string()))?).map_err(|e| bad(e.to_string()))?;
            }
            if roots.is_empty() {
                return Err(bad("the file has none".into()));
            }
        }
        None => _ = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs),
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(if means.older_tls { rustls::ALL_VERSIONS } else { NEWEST_TLS })
        .map_err(|e| config(e.to_string()))?
        .with_root_certificates(roots);
    let mut tls = match &means.identity {
        Some((certificate, key)) => {
            let bad =
                |path: &PathBuf, e: String| config(format!("no client certificate or key: {e}")).at(path.display());
            let chain = CertificateDer::pem_file_iter(certificate).map_err(|e| bad(certificate, e.to_string()))?;
            let chain: std::result::Result<Vec<_>, _> = chain.collect();
            let chain = chain.map_err(|e| bad(certificate, e.to_string()))?;
            let private = PrivateKeyDer::from_pem_file(key).map_err(|e| bad(key, e.to_string()))?;
            builder.with_client_auth_cert(chain, private).map_err(|e| bad(certificate, e.to_string()))?
        }
        None => builder.with_no_client_auth(),
    };
    tls.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Some(Arc::new(tls)))
}

/// How a call ended that did not end well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// The number of gRPC's, 14 where the connection broke.
    pub code: u32,
    /// What the member said.
    pub message: String,
}

/// The connection broke, or never was.
pub const UNAVAILABLE: u32 = 14;

/// What was asked for is not there any more, or not yet.
pub const OUT_OF_RANGE: u32 = 11;

/// What is said of a user's token that ended: it lives for some minutes.
const STALE: &str = "invalid auth token";
/// What is said of one that was given before users were changed.
const OUTDATED: &str = "revision of auth store is old";
/// What a member says to who signs in where nobody is asked for users.
const NO_USERS: &str = "authentication is not enabled";
/// Who is not known has this code.
const UNAUTHENTICATED: u32 = 16;

impl Failed {
    /// Whether a new token of the same user may help.
    fn is_of_token(&self) -> bool {
        self.code == UNAUTHENTICATED || [STALE, OUTDATED].iter().any(|says| self.message.contains(says))
    }

    fn broken(what: &impl std::fmt::Display) -> Failed {
        Failed { code: UNAVAILABLE, message: explained(&what.to_string()) }
    }

    /// As an error at a member.
    pub fn at(&self, endpoint: &str) -> Error {
        let about = |kind, advice: &str| Error::new(kind, &*self.message).at(endpoint).advise(advice);
        let says = |part: &str| self.message.contains(part);
        match self.code {
            _ if says(STALE) => Error::new(Kind::Retry, "the member takes no token that it gave its user")
                .at(endpoint)
                .advise("were users changed meanwhile? else see --auth-token-ttl of the member"),
            7 | 16 => about(Kind::Denied, "a user with the role root is needed where auth is enabled"),
            _ if says("user name is empty") || says("authentication failed") || says("permission denied") => about(
                Kind::Denied,
                "auth is enabled: give --etcd-user and --etcd-password-file, of a user with the role root",
            ),
            UNAVAILABLE | 4 => {
                Error::new(Kind::Retry, format!("the member does not answer: {}", self.message)).at(endpoint)
            }
            _ => Error::new(Kind::Source, format!("the member answers: {}", self.message)).at(endpoint),
        }
    }
}

/// With what a failure of TLS means, which is worded for programs. One side may see it only after the other is content.
fn explained(text: &str) -> String {
    let certificate = ["Certificate", "UnknownCA", "DecryptError"].iter().any(|word| text.contains(word));
    let more = if text.contains("fatal alert") && certificate {
        ": the member does not take the client's certificate (--etcd-cert, --etcd-key)"
    } else if ["broken pipe", "connection reset", "Broken pipe", "Connection reset"]
        .iter()
        .any(|word| text.contains(word))
    {
        // What it said before it hung up is lost where something was written to it meanwhile.
        ": it hung up; it may not take the client's certificate (--etcd-cert, --etcd-key)"
    } else if text.contains("ProtocolVersion") || text.contains("PeerIncompatible") {
        ": if the member knows no TLS 1.3, allow 1.2 (?tls=1.2 behind the address, tls: \"1.2\" in a policy)"
    } else if text.contains("UnknownIssuer") {
        ": the member's certificate is of another authority than --etcd-ca"
    } else if text.contains("invalid peer certificate: Expired") || text.contains("certificate expired") {
        ": the member's certificate has expired"
    } else {
        ""
    };
    format!("{text}{more}")
}

/// A connection to a member.
pub struct Channel {
    send: SendRequest<Bytes>,
    authority: String,
    secure: bool,
    user: Option<(String, Password)>,
    /// What the member gave the user, which it takes for some minutes.
    token: RefCell<Option<String>>,
}

impl Channel {
    /// Connects to `host:port`.
    ///
    /// # Errors
    /// Nobody answers, or not with whom this client wants to speak.
    pub async fn connect(
        endpoint: &str,
        tls: Option<Arc<rustls::ClientConfig>>,
    ) -> std::result::Result<Channel, Failed> {
        let tcp = TcpStream::connect(endpoint).await.map_err(|e| Failed::broken(&e))?;
        tcp.set_nodelay(true).map_err(|e| Failed::broken(&e))?;
        let secure = tls.is_some();
        let send = match tls {
            Some(tls) => {
                let host = endpoint.rsplit_once(':').map_or(endpoint, |(host, _)| host);
                let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
                let name = ServerName::try_from(host).map_err(|e| Failed::broken(&e))?;
                let stream = TlsConnector::from(tls).connect(name, tcp).await.map_err(|e| Failed::broken(&e))?;
                Self::handshake(stream).await?
            }
            None => Self::handshake(tcp).await?,
        };
        Ok(Channel { send, authority: endpoint.to_owned(), secure, user: None, token: RefCell::new(None) })
    }

    /// Connects to a member of this host by its socket.
    ///
    /// # Errors
    /// Nobody answers there.
    pub async fn local(socket: &Path) -> std::result::Result<Channel, Failed> {
        let stream = UnixStream::connect(socket).await.map_err(|e| Failed::broken(&e))?;
        let send = Self::handshake(stream).await?;
        Ok(Channel { send, authority: "localhost".into(), secure: false, user: None, token: RefCell::new(None) })
    }

    async fn handshake<S>(stream: S) -> std::result::Result<SendRequest<Bytes>, Failed>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(WINDOW_BYTES).initial_connection_window_size(WINDOW_BYTES).enable_push(false);
        builder.max_header_list_size(HEADERS_BYTES_MAX);
        let (send, connection) = builder.handshake(stream).await.map_err(|e| Failed::broken(&e))?;
        // It ends with the last call, or when the other side closes; who calls hears of it.
        tokio::spawn(async move { _ = connection.await });
        Ok(send)
    }

    /// Whom it speaks to.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Speaks as this user from now on; as nobody where no user is asked for.
    ///
    /// # Errors
    /// The member does not know them, or does not answer.
    pub async fn sign_in(&mut self, user: (String, Password)) -> std::result::Result<(), Failed> {
        self.user = Some(user);
        match self.renew().await {
            Err(failed) if failed.message.contains(NO_USERS) => {
                self.user = None;
                Ok(())
            }
            done => done,
        }
    }

    /// Whether it speaks as a user.
    pub fn has_user(&self) -> bool {
        self.user.is_some()
    }

    /// Gets a token, where there is a user.
    async fn renew(&self) -> std::result::Result<(), Failed> {
        let Some((name, password)) = &self.user else { return Ok(()) };
        self.token.replace(None);
        let request = Message::new().bytes(1, name.as_bytes()).bytes(2, password.0.as_bytes()).finish();
        let answer = self.once(PATIENCE, "Auth/Authenticate", &request).await?;
        let token = Fields::of(&answer).find_map(|field| field.ok().filter(|(n, _)| *n == 2).map(|(_, v)| v.text()));
        self.token.replace(Some(token.ok_or_else(|| Failed::broken(&"it sent a message that is none"))?));
        Ok(())
    }

    async fn open(
        &self,
        call: &str,
        last: bool,
    ) -> std::result::Result<(SendStream<Bytes>, h2::client::ResponseFuture), Failed> {
        let scheme = if self.secure { "https" } else { "http" };
        let uri =
            Uri::builder().scheme(scheme).authority(&*self.authority).path_and_query(format!("/etcdserverpb.{call}"));
        let mut request = Request::post(uri.build().map_err(|e| Failed::broken(&e))?)
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        if let Some(token) = &*self.token.borrow() {
            request = request.header("token", token);
        }
        let request = request.body(()).map_err(|e| Failed::broken(&e))?;
        let ready = tokio::time::timeout(PATIENCE, self.send.clone().ready()).await;
        let ready = ready.map_err(|_| Failed::broken(&"it takes no further call"))?;
        let mut send = ready.map_err(|e| Failed::broken(&e))?;
        let (response, stream) = send.send_request(request, last).map_err(|e| Failed::broken(&e))?;
        Ok((stream, response))
    }

    /// A call with one message, answered by a stream of them.
    ///
    /// # Errors
    /// The connection broke, or the member refuses.
    pub async fn stream(&self, call: &str, message: &[u8]) -> std::result::Result<Answers, Failed> {
        let (mut send, response) = self.open(call, false).await?;
        send.send_data(frame(message), true).map_err(|e| Failed::broken(&e))?;
        Answers::begin(response, None, PART_BYTES_MAX).await
    }

    /// A call with messages either way.
    ///
    /// # Errors
    /// The connection broke, or the member refuses.
    pub async fn both_ways(&self, call: &str, first: &[u8]) -> std::result::Result<Answers, Failed> {
        let (mut send, response) = self.open(call, false).await?;
        send.send_data(frame(first), false).map_err(|e| Failed::broken(&e))?;
        Answers::begin(response, Some(send), MESSAGE_BYTES_MAX).await
    }

    /// A call with one message and one answer.
    ///
    /// # Errors
    /// The connection broke, the member refuses, or takes too long.
    pub async fn ask(&self, call: &str, message: &[u8]) -> std::result::Result<Bytes, Failed> {
        self.ask_within(PATIENCE, call, message).await
    }

    /// The same, of a question that takes so long at most. A user whose token ended meanwhile gets another one.
    ///
    /// # Errors
    /// As [`Channel::ask`].
    pub async fn ask_within(&self, time: Duration, call: &str, message: &[u8]) -> std::result::Result<Bytes, Failed> {
        match self.once(time, call, message).await {
            Err(failed) if self.has_user() && failed.is_of_token() => {
                self.renew().await?;
                self.once(time, call, message).await
            }
            done => done,
        }
    }

    async fn once(&self, time: Duration, call: &str, message: &[u8]) -> std::result::Result<Bytes, Failed> {
        let asked = async {
            let mut answers = self.stream(call, message).await?;
            answers.most = ANSWER_BYTES_MAX;
            let answer = answers.next().await?.ok_or_else(|| Failed::broken(&"it sent no answer"))?;
            // The trailers may still say that it failed.
            answers.next().await?;
            Ok(answer)
        };
        tokio::time::timeout(time, asked).await.map_err(|_| Failed::broken(&"it takes too long"))?
    }
}

fn frame(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(5 + message.len());
    frame.extend_from_slice(&[0]);
    frame.extend_from_slice(&(message.len() as u32).to_be_bytes());
    frame.extend_from_slice(message);
    frame.freeze()
}

/// Messages that answer a call.
pub struct Answers {
    body: RecvStream,
    /// Open as long as this side may say more.
    _send: Option<SendStream<Bytes>>,
    held: BytesMut,
    /// Bytes of a message that are believed.
    most: usize,
    ended: bool,
}

impl Answers {
    async fn begin(
        response: h2::client::ResponseFuture,
        send: Option<SendStream<Bytes>>,
        most: usize,
    ) -> std::result::Result<Answers, Failed> {
        let response = tokio::time::timeout(SILENCE, response).await;
        let response = response.map_err(|_| Failed::broken(&"it takes the call, and says nothing"))?;
        let (head, body) = response.map_err(|e| Failed::broken(&e))?.into_parts();
        // A call that fails at once has its end in the head.
        end(&head.headers)?;
        if !head.status.is_success() {
            return Err(Failed::broken(&format!("it answers with HTTP status {}", head.status)));
        }
        Ok(Answers { body, _send: send, held: BytesMut::new(), most, ended: false })
    }

    /// The next message; `None` at a good end.
    ///
    /// # Errors
    /// The connection broke, or the call ended with a failure.
    pub async fn next(&mut self) -> std::result::Result<Option<Bytes>, Failed> {
        loop {
            if let Some((head, _)) = self.held.split_first_chunk::<5>() {
                let [compressed, len @ ..] = *head;
                let len = u32::from_be_bytes(len) as usize;
                if compressed != 0 {
                    return Err(Failed::broken(&"it sent a frame that is none"));
                }
                if len > self.most {
                    let what = format!("it announces a message of {len} bytes, and {} are believed", self.most);
                    return Err(Failed::broken(&what));
                }
                if self.held.len() >= 5 + len {
                    let mut message = self.held.split_to(5 + len);
                    return Ok(Some(message.split_off(5).freeze()));
                }
            }
            if self.ended {
                return if self.held.is_empty() { Ok(None) } else { Err(Failed::broken(&"the stream ended early")) };
            }
            match self.body.data().await {
                Some(data) => {
                    let data = data.map_err(|e| Failed::broken(&e))?;
                    self.body.flow_control().release_capacity(data.len()).map_err(|e| Failed::broken(&e))?;
                    self.held.extend_from_slice(&data);
                }
                None => {
                    let trailers = self.body.trailers().await.map_err(|e| Failed::broken(&e))?;
                    // Without a word about its end, a call did not end well.
                    let trailers = trailers.ok_or_else(|| Failed::broken(&"the stream ended early"))?;
                    if !end(&trailers)? {
                        return Err(Failed::broken(&"the stream ended without a status"));
                    }
                    self.ended = true;
                }
            }
        }
    }
}

/// Whether these headers say that a call ended, and well.
fn end(headers: &HeaderMap) -> std::result::Result<bool, Failed> {
    let text = |name| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    match text("grpc-status").as_deref() {
        None => Ok(false),
        Some("0") => Ok(true),
        Some(code) => Err(Failed {
            code: code.parse().unwrap_or(2),
            message: unescaped(&text("grpc-message").unwrap_or_default()).chars().take(REASON_CHARS_MAX).collect(),
        }),
    }
}

/// Undoes percent encoding.
fn unescaped(text: &str) -> String {
    let (mut bytes, mut left) = (Vec::new(), text.as_bytes());
    while let Some((first, rest)) = left.split_first() {
        let hex = rest.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.filter(|_| *first == b'%').and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                left = &rest[2..];
            }
            None => {
                bytes.push(*first);
                left = rest;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_member_says_is_readable() {
        assert_eq!(unescaped("etcdserver: user name is empty"), "etcdserver: user name is empty");
        assert_eq!(unescaped("a%20b%C3%BC%2"), "a bü%2");
        assert!(explained("received fatal alert: CertificateRequired").contains("client's certificate"));
        assert!(explained("invalid peer certificate: UnknownIssuer").contains("another authority"));
        assert_eq!(explained("connection refused"), "connection refused");
        let failed = |code, message: &str| Failed { code, message: message.into() }.at("h:1").kind();
        assert_eq!(failed(3, "etcdserver: user name is empty"), Kind::Denied);
        assert_eq!(failed(7, "etcdserver: permission denied"), Kind::Denied);
        assert_eq!(failed(2, "auth: permission denied"), Kind::Denied);
        assert_eq!(failed(14, "etcdserver: no leader"), Kind::Retry);
        assert_eq!(failed(16, "etcdserver: invalid auth token"), Kind::Retry);
        assert_eq!(failed(11, "etcdserver: mvcc: required revision has been compacted"), Kind::Source);
    }

    /// A member that answers one call with these bytes, and says then that it went well.
    async fn answered_with(call: &str, head: Vec<u8>) -> std::result::Result<Option<Bytes>, Failed> {
        let (here, there) = tokio::io::duplex(1 << 16);
        let serve = async move {
            let mut connection = h2::server::handshake(there).await.unwrap();
            let (_, mut respond) = connection.accept().await.unwrap().unwrap();
            let mut send = respond.send_response(http::Response::new(()), false).unwrap();
            send.send_data(head.into(), false).unwrap();
            let end = HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]);
            send.send_trailers(end).unwrap();
            // Until the other side has enough.
            while let Some(Ok(_)) = connection.accept().await {}
        };
        let ask = async move {
            let send = Channel::handshake(here).await?;
            let (authority, token) = ("h:1".into(), RefCell::new(None));
            let channel = Channel { send, authority, secure: false, user: None, token };
            match call {
                "ask" => channel.ask("Maintenance/Status", &[]).await.map(Some),
                "stream" => channel.stream("Maintenance/Snapshot", &[]).await?.next().await,
                _ => channel.both_ways("Watch/Watch", &[]).await?.next().await,
            }
        };
        let (_, answer) = futures_util::future::join(serve, ask).await;
        answer
    }

    #[tokio::test]
    async fn a_message_that_is_too_long_is_refused_before_it_comes() {
        for (call, most) in [("ask", ANSWER_BYTES_MAX), ("stream", PART_BYTES_MAX), ("watch", MESSAGE_BYTES_MAX)] {
            let head = |len: u32| [&[0][..], &len.to_be_bytes()].concat();
            let failed = answered_with(call, head(most as u32 + 1)).await.unwrap_err();
            assert!(failed.message.ends_with(&format!("and {most} are believed")), "{call}: {}", failed.message);
            assert_eq!(failed.at("h:1").kind(), Kind::Retry);
            let failed = answered_with(call, head(most as u32)).await.unwrap_err();
            assert_eq!(failed.message, "the stream ended early", "{call}");
            let failed = answered_with(call, vec![1, 0, 0, 0, 0]).await.unwrap_err();
            assert_eq!(failed.message, "it sent a frame that is none", "{call}");
            let whole = [head(3), b"abc".to_vec()].concat();
            assert_eq!(answered_with(call, whole).await.unwrap().as_deref(), Some(&b"abc"[..]), "{call}");
        }
    }
}
