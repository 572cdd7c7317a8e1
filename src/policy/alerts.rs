//! Who is told how runs end.

use super::duration;
use super::hooks::judge_command;
use super::name::{Name, one_line, quoted};
use super::sheet::Sheet;
use super::types::{AlertSpec, Event, WebhookSpec};
use crate::error::{Error, Kind, Result};
use std::fmt;
use std::path::{Path, PathBuf};

/// How long an attempt may take where nothing is said, milliseconds.
const TIMEOUT_MS: i64 = 30_000;

/// Who is told, and of what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    /// Its name, unique in the policy.
    pub name: Name,
    /// What is told: at least one.
    pub events: Vec<Event>,
    /// How it is told.
    pub to: Receiver,
    /// How long one attempt may take, milliseconds.
    pub timeout_ms: i64,
}

/// How it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Receiver {
    /// By a request.
    Webhook(Webhook),
    /// By a program, and its arguments.
    Command(Vec<String>),
}

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// Where to.
    pub address: Address,
    /// A file with headers.
    pub headers_file: Option<PathBuf>,
}

/// Where an address is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// Here.
    Url(Url),
    /// In a file.
    File(PathBuf),
}

/// An address of the web. It may hold a token: only its host is ever shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Url(String);

impl Url {
    /// An `http` or `https` address with a host and without a user.
    ///
    /// # Errors
    /// [`Kind::Config`] for anything else; the text is not in it.
    pub fn parse(text: &str) -> Result<Url> {
        let refuse = |why: &str| {
            let what = format!("this is no address of a webhook: {why}");
            Error::new(Kind::Config, what).advise("write it like `https://alerts.example.org/path`")
        };
        let url = Url(text.to_owned());
        if !text.starts_with("http://") && !text.starts_with("https://") {
            return Err(refuse("it begins neither with `https://` nor with `http://`"));
        }
        if !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(refuse("it has blanks, or letters that are not ASCII"));
        }
        let (name, port) = url.host().rsplit_once(':').unwrap_or((url.host(), "443"));
        if url.host().contains('@') {
            let e = Error::new(Kind::Config, "this is no address of a webhook: it has a user in it");
            return Err(e.advise("put that into a header, with `headersFile:`"));
        }
        let bracketed = url.host().ends_with(']');
        if name.is_empty() || (!bracketed && port.parse::<u16>().is_err()) {
            return Err(refuse("it has no host, or a wrong port"));
        }
        Ok(url)
    }

    /// All of it; not to be shown.
    pub fn secret(&self) -> &str {
        &self.0
    }

    /// Host and port.
    pub fn host(&self) -> &str {
        let rest = self.0.split_once("://").map_or("", |(_, rest)| rest);
        rest.split(['/', '?', '#']).next().unwrap_or_default()
    }

    fn is_plain(&self) -> bool {
        let local = ["127.", "localhost", "[::1]"].iter().any(|local| self.host().starts_with(local));
        self.0.starts_with("http://") && !local
    }

    /// An address of the same host that tells two apart, and not what they are. What is masked stays as it is.
    fn masked(&self) -> String {
        let scheme = self.0.split_once("://").map_or("", |(scheme, _)| scheme);
        let mark = self.0.strip_prefix(&format!("{scheme}://{}/hidden-", self.host()));
        if mark.is_some_and(|mark| mark.len() == 8 && mark.bytes().all(|b| b.is_ascii_hexdigit())) {
            return self.0.clone();
        }
        let mark: String = blake3::hash(self.0.as_bytes()).to_hex().chars().take(8).collect();
        format!("{scheme}://{}/hidden-{mark}", self.host())
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.masked())
    }
}

impl Event {
    /// All of them.
    pub const ALL: [Event; 6] =
        [Event::Failure, Event::Degraded, Event::Damage, Event::Brake, Event::Missed, Event::Recovered];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Event::Failure => "failure",
            Event::Degraded => "degraded",
            Event::Damage => "damage",
            Event::Brake => "brake",
            Event::Missed => "missed",
            Event::Recovered => "recovered",
        }
    }
}

impl Alert {
    /// The document that says the same with nothing left out, but for what must not be shown.
    pub(super) fn effective(&self) -> AlertSpec {
        let path = |path: &PathBuf| path.display().to_string();
        let (webhook, command) = match &self.to {
            Receiver::Command(command) => (None, command.clone()),
            Receiver::Webhook(Webhook { address, headers_file }) => {
                let (url, url_file) = match address {
                    Address::Url(url) => (Some(url.masked()), None),
                    Address::File(file) => (None, Some(path(file))),
                };
                (Some(WebhookSpec { url, url_file, headers_file: headers_file.as_ref().map(path) }), Vec::new())
            }
        };
        let timeout = Some(duration::text(self.timeout_ms));
        AlertSpec { name: self.name.to_string(), events: self.events.clone(), webhook, command, timeout }
    }

    /// In words.
    pub(super) fn sentence(&self) -> String {
        let events: Vec<&str> = self.events.iter().map(|event| event.name()).collect();
        let to = match &self.to {
            Receiver::Command(command) => format!("runs {}", one_line(&command.join(" "))),
            Receiver::Webhook(Webhook { address: Address::Url(url), .. }) => format!("posts to {}", url.host()),
            Receiver::Webhook(Webhook { address: Address::File(file), .. }) => {
                format!("posts to the address in {}", file.display())
            }
        };
        format!("alert {} {to} on {}", self.name, events.join(", "))
    }
}

/// Judges what a document says.
pub(super) fn judge(sheet: &mut Sheet<'_>, specs: &[AlertSpec]) -> Vec<Alert> {
    let mut alerts: Vec<Alert> = Vec::with_capacity(specs.len());
    for (n, spec) in specs.iter().enumerate() {
        let at = format!("spec.alerts[{n}]");
        let name = sheet.take(&format!("{at}.name"), Name::parse("alert", &spec.name));
        if alerts.iter().any(|alert| alert.name.as_str() == spec.name) {
            let what = format!("two alerts are named {}", quoted(&spec.name));
            sheet.refuse(&format!("{at}.name"), what, "give each a name of its own");
        }
        judge_events(sheet, &format!("{at}.events"), &spec.events);
        let timeout = spec.timeout.as_deref();
        let timeout = timeout.and_then(|text| sheet.take(&format!("{at}.timeout"), duration::length_ms(text)));
        let to = judge_receiver(sheet, &at, spec);
        alerts.extend(name.zip(to).map(|(name, to)| Alert {
            name,
            events: spec.events.clone(),
            to,
            timeout_ms: timeout.unwrap_or(TIMEOUT_MS),
        }));
    }
    alerts
}

fn judge_events(sheet: &mut Sheet<'_>, at: &str, events: &[Event]) {
    if events.is_empty() {
        let all: Vec<&str> = Event::ALL.iter().map(|event| event.name()).collect();
        sheet.refuse(at, "the alert tells nothing", format!("name at least one of {}", all.join(", ")));
    }
    for (n, event) in events.iter().enumerate() {
        if events[..n].contains(event) {
            let what = format!("{} is there twice", quoted(event.name()));
            sheet.refuse(&format!("{at}[{n}]"), what, "remove one of them");
        }
    }
}

fn judge_receiver(sheet: &mut Sheet<'_>, at: &str, spec: &AlertSpec) -> Option<Receiver> {
    match (&spec.webhook, spec.command.as_slice()) {
        (None, []) => {
            sheet.refuse(at, "nobody is told", "add `webhook:` or `command:`");
            None
        }
        (Some(_), [_, ..]) => {
            sheet.refuse(at, "there are both a webhook and a command", "write an alert for each");
            None
        }
        (None, command) => {
            judge_command(sheet, &format!("{at}.command"), command);
            Some(Receiver::Command(command.to_vec()))
        }
        (Some(webhook), []) => judge_webhook(sheet, &format!("{at}.webhook"), webhook).map(Receiver::Webhook),
    }
}

fn judge_webhook(sheet: &mut Sheet<'_>, at: &str, spec: &WebhookSpec) -> Option<Webhook> {
    let mut file = |field: &str, text: &Option<String>| {
        let text = text.as_deref()?;
        let path = Path::new(text).is_absolute().then(|| PathBuf::from(text)).ok_or_else(|| {
            let e = Error::new(Kind::Config, format!("{} is not an absolute path", quoted(text)));
            e.advise("write it from `/` on; `~` and variables are not expanded")
        });
        sheet.take(&format!("{at}.{field}"), path)
    };
    let headers_file = file("headersFile", &spec.headers_file);
    let url_file = file("urlFile", &spec.url_file);
    let address = match (&spec.url, &spec.url_file) {
        (Some(_), Some(_)) => {
            sheet.refuse(at, "there are both a url and a urlFile", "remove one of them");
            None
        }
        (None, None) => {
            sheet.refuse(at, "the webhook has no address", "add `url:`, or `urlFile:` where it is a secret");
            None
        }
        (Some(url), None) => sheet.take(&format!("{at}.url"), Url::parse(url)).map(Address::Url),
        (None, Some(_)) => url_file.map(Address::File),
    };
    Some(Webhook { address: address?, headers_file })
}

/// What is allowed and probably not meant: path and words.
pub(super) fn warnings(alerts: &[Alert]) -> Vec<(String, String, &'static str)> {
    let plain = |(n, alert): (usize, &Alert)| match &alert.to {
        Receiver::Webhook(Webhook { address: Address::Url(url), .. }) if url.is_plain() => Some((
            format!("spec.alerts[{n}].webhook.url"),
            format!("what alert {} says goes to {} in the clear", alert.name, url.host()),
            "use https",
        )),
        _ => None,
    };
    alerts.iter().enumerate().filter_map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_never_shown() {
        let token = "https://hooks.example.org:8443/services/T0000/secret?key=secret#secret";
        let url = Url::parse(token).unwrap();
        assert_eq!((url.host(), url.secret()), ("hooks.example.org:8443", token));
        assert!(!format!("{url:?}").contains("secret"), "{url:?}");
        assert_ne!(url.masked(), Url::parse(&token.replace("T0000", "T0001")).unwrap().masked());
        assert_eq!(Url::parse(&url.masked()).unwrap().masked(), url.masked());
        assert_eq!(Url::parse("http://h?secret").unwrap().host(), "h");
    }

    #[test]
    fn what_is_no_address_is_refused_and_not_repeated() {
        for text in [
            "",
            "secret",
            "ftp://secret/",
            "https://",
            "https:///secret",
            "https://:443/secret",
            "https://h:secret/",
            "https://user:secret@host/",
            "https://host/a secret",
            "https://host/secret\n",
            "https://hóst/secret",
        ] {
            let e = Url::parse(text).expect_err(text);
            assert!(e.kind() == Kind::Config && !e.to_string().contains("secret"), "{e}");
        }
        for good in ["https://[::1]/x", "https://[::1]:80", "http://127.0.0.1:9/", "https://host"] {
            assert!(Url::parse(good).is_ok(), "{good}");
        }
    }
}
