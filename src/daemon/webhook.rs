//! A request that tells somebody something. The address may hold a token: it is in no text that comes out of here.

use crate::policy::{Address, Url, Webhook};
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

/// More than any address or header has, in bytes.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// Why it was not sent.
#[derive(Debug)]
pub struct Unsent {
    /// For people.
    pub why: String,
    /// Whether another attempt may succeed.
    pub again: bool,
}

impl Unsent {
    fn final_(why: impl Into<String>) -> Unsent {
        Unsent { why: why.into(), again: false }
    }

    fn for_now(why: impl Into<String>) -> Unsent {
        Unsent { why: why.into(), again: true }
    }
}

/// Posts JSON, once.
///
/// # Errors
/// It was not taken.
pub fn post(webhook: &Webhook, body: &[u8], timeout: Duration) -> Result<(), Unsent> {
    let url = match &webhook.address {
        Address::Url(url) => url.clone(),
        Address::File(path) => {
            Url::parse(&text_of(path)?).map_err(|e| Unsent::final_(format!("{}: {}", path.display(), e.what())))?
        }
    };
    let host = url.host();
    let headers = match &webhook.headers_file {
        Some(path) => headers(path, &text_of(path)?)?,
        None => Vec::new(),
    };
    let mut config = ureq::Agent::config_builder()
        .timeout_global(Some(timeout))
        // A redirection could lead anywhere, and would be told the message.
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        .user_agent(concat!("holdfast/", env!("CARGO_PKG_VERSION")));
    if url.secret().starts_with("https://") {
        config = config.tls_config(tls()?);
    }
    let agent = config.build().new_agent();
    let mut request = agent.post(url.secret()).header("content-type", "application/json");
    for (name, value) in headers {
        request = request.header(name, value);
    }
    match request.send(body) {
        Ok(answer) => match answer.status().as_u16() {
            200..=299 => Ok(()),
            status @ (408 | 425 | 429 | 500..=599) => {
                Err(Unsent::for_now(format!("{host} answered with status {status}")))
            }
            status => Err(Unsent::final_(format!("{host} answered with status {status}"))),
        },
        Err(e) => Err(unsent(&e, host, timeout)),
    }
}

/// What went wrong, in words that cannot hold the address.
fn unsent(e: &ureq::Error, host: &str, timeout: Duration) -> Unsent {
    match e {
        ureq::Error::Timeout(_) => Unsent::for_now(format!("{host} did not answer within {} s", timeout.as_secs_f64())),
        ureq::Error::HostNotFound => Unsent::for_now(format!("the host of {host} is not known")),
        // A certificate that is not trusted, a protocol that is not spoken.
        ureq::Error::Io(e) if e.kind() == ErrorKind::InvalidData => Unsent::final_(format!("{host}: {e}")),
        ureq::Error::Io(e) => Unsent::for_now(format!("{host}: {e}")),
        ureq::Error::Rustls(e) => Unsent::final_(format!("{host}: {e}")),
        ureq::Error::Tls(why) => Unsent::final_(format!("{host}: {why}")),
        ureq::Error::ConnectionFailed => Unsent::for_now(format!("{host} cannot be reached")),
        ureq::Error::Protocol(_) => Unsent::for_now(format!("{host} does not answer as HTTP wants it")),
        ureq::Error::Http(_) => Unsent::final_("the address or a header is not valid"),
        _ => Unsent::final_(format!("the request to {host} could not be made")),
    }
}

/// What this system trusts.
fn tls() -> Result<TlsConfig, Unsent> {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        return Err(Unsent::final_("this system trusts no certificate: there are none to be found"));
    }
    let certificates: Vec<Certificate<'static>> =
        found.certs.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = TlsConfig::builder().root_certs(RootCerts::Specific(Arc::new(certificates)));
    Ok(config.unversioned_rustls_crypto_provider(provider).build())
}

/// What is in a file, without blanks around it.
fn text_of(path: &Path) -> Result<String, Unsent> {
    let wrong = |why: String| Unsent::final_(format!("{}: {why}", path.display()));
    let found = std::fs::metadata(path).map_err(|e| wrong(e.to_string()))?;
    if !found.is_file() {
        // A pipe would be waited for without end.
        return Err(wrong("it is no file".into()));
    }
    let file = std::fs::File::open(path).map_err(|e| wrong(e.to_string()))?;
    let mut text = String::new();
    file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(|e| wrong(e.kind().to_string()))?;
    Ok(text.trim().to_owned())
}

/// `Name: value`, one a line.
fn headers(path: &Path, text: &str) -> Result<Vec<(String, String)>, Unsent> {
    let lines = text.lines().map(str::trim).enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let one = |(n, line): (usize, &str)| {
        let wrong = || Unsent::final_(format!("{}: line {} is no header: `Name: value`", path.display(), n + 1));
        let (name, value) = line.split_once(':').ok_or_else(wrong)?;
        Ok((name.trim().to_owned(), value.trim().to_owned()))
    };
    lines.map(one).collect()
}
