//! A source that is a cluster of etcd.

use super::name::quoted;
use super::paths::absolute;
use super::sheet::Sheet;
use super::types::{BetweenSpec, DeltasSpec, EtcdSpec, SourceSpec};
use super::{duration, rate};
use crate::error::{Error, Kind, Result};
use std::path::PathBuf;

/// Less would make too many files of what a cluster changes at once, in bytes.
const SEGMENT_BYTES_MIN: u64 = 1 << 20;
/// So much is gathered at once; and what a file of changes has at most where nothing is said, in bytes.
const SEGMENT_BYTES_MAX: u64 = 8 << 20;

/// A cluster of etcd, and how it is spoken to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Etcd {
    /// Its members: `HOST` or `HOST:PORT`; at least one.
    pub endpoints: Vec<String>,
    /// Without TLS.
    pub plain: bool,
    /// TLS 1.2 will do.
    pub older_tls: bool,
    /// Certificates of authorities.
    pub ca: Option<PathBuf>,
    /// The certificate to show, and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// A user, and the file with its password.
    pub user: Option<(String, PathBuf)>,
    /// When only what changed is taken.
    pub deltas: Deltas,
}

/// When only what changed since the last snapshot is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deltas {
    /// Never: each snapshot is a whole one.
    Never,
    /// By incremental backups.
    Incremental,
    /// By a daemon, between backups, which are all whole ones.
    Between(Between),
}

/// How a daemon takes what changed between backups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Between {
    /// How often, milliseconds: whole seconds, one at least.
    pub every_ms: i64,
    /// A file of changes has at most so many bytes, unless a single transaction has more.
    pub bytes_max: u64,
}

impl Deltas {
    fn effective(self) -> DeltasSpec {
        match self {
            Deltas::Never => DeltasSpec::Incremental(false),
            Deltas::Incremental => DeltasSpec::Incremental(true),
            Deltas::Between(Between { every_ms, bytes_max }) => DeltasSpec::Between(BetweenSpec {
                every: duration::text(every_ms),
                max_bytes: Some(rate::size_text(bytes_max)),
            }),
        }
    }
}

impl Etcd {
    /// The document that says the same.
    pub(super) fn effective(&self) -> EtcdSpec {
        let text = |path: &PathBuf| path.display().to_string();
        EtcdSpec {
            endpoints: self.endpoints.clone(),
            plain: Some(self.plain),
            tls: (!self.plain).then(|| if self.older_tls { "1.2" } else { "1.3" }.to_owned()),
            ca_file: self.ca.as_ref().map(text),
            cert_file: self.identity.as_ref().map(|(certificate, _)| text(certificate)),
            key_file: self.identity.as_ref().map(|(_, key)| text(key)),
            user: self.user.as_ref().map(|(name, _)| name.clone()),
            password_file: self.user.as_ref().map(|(_, file)| text(file)),
            deltas: Some(self.deltas.effective()),
        }
    }
}

/// Judges a source that may be a cluster.
pub(super) fn judge(sheet: &mut Sheet<'_>, at: &str, source: &SourceSpec) -> Option<Etcd> {
    let spec = source.etcd.as_ref()?;
    let of_files = !source.paths.is_empty() || !source.exclude.is_empty() || source.ignore_file.is_some();
    if of_files || source.exclude_caches.is_some() || source.one_file_system.is_some() {
        let advice = "make two sources of it; exclude, excludeCaches, ignoreFile and oneFileSystem belong to paths";
        sheet.refuse(at, "the source is a cluster of etcd and files at once", advice);
    }
    let at = format!("{at}.etcd");
    if spec.endpoints.is_empty() {
        sheet.refuse(
            &format!("{at}.endpoints"),
            "the cluster has no member",
            "name all: `endpoints: [10.0.0.11:2379]`",
        );
    }
    for (n, endpoint) in spec.endpoints.iter().enumerate() {
        if endpoint.is_empty() || endpoint.contains(['/', '@', ',', ' ', '?', '#']) {
            let what = format!("{} is not a member's address", quoted(endpoint));
            sheet.refuse(&format!("{at}.endpoints[{n}]"), what, "write HOST or HOST:PORT");
        }
    }
    let mut path = |field: &str, text: &Option<String>| {
        text.as_deref().and_then(|text| sheet.take(&format!("{at}.{field}"), absolute(text)))
    };
    let ca = path("caFile", &spec.ca_file);
    let (certificate, key) = (path("certFile", &spec.cert_file), path("keyFile", &spec.key_file));
    let password = path("passwordFile", &spec.password_file);
    if spec.cert_file.is_some() != spec.key_file.is_some() {
        sheet.refuse(&at, "a certificate without its key, or the other way round", "give both certFile and keyFile");
    }
    if spec.plain == Some(true) && (ca.is_some() || certificate.is_some()) {
        sheet.refuse(&at, "certificates without TLS", "leave plain out, or caFile, certFile and keyFile");
    }
    if let Some(tls) = spec.tls.as_deref() {
        if !matches!(tls, "1.2" | "1.3") {
            let what = format!("{} is no version of TLS that can be asked for", quoted(tls));
            sheet.refuse(&format!("{at}.tls"), what, "write \"1.3\" or \"1.2\", with the quotes");
        }
        if spec.plain == Some(true) {
            sheet.refuse(&format!("{at}.tls"), "a version of TLS, and no TLS", "leave plain or tls out");
        }
    }
    if spec.user.is_some() != spec.password_file.is_some() {
        sheet.refuse(&at, "a user without a password, or the other way round", "give both user and passwordFile");
    }
    Some(Etcd {
        endpoints: spec.endpoints.clone(),
        plain: spec.plain.unwrap_or(false),
        older_tls: spec.tls.as_deref() == Some("1.2"),
        ca,
        identity: certificate.zip(key),
        user: spec.user.clone().zip(password),
        deltas: deltas(sheet, &format!("{at}.deltas"), spec.deltas.as_ref()),
    })
}

fn deltas(sheet: &mut Sheet<'_>, at: &str, spec: Option<&DeltasSpec>) -> Deltas {
    let spec = match spec {
        None | Some(DeltasSpec::Incremental(false)) => return Deltas::Never,
        Some(DeltasSpec::Incremental(true)) => return Deltas::Incremental,
        Some(DeltasSpec::Between(spec)) => spec,
    };
    let whole = |e: Error| Error::new(Kind::Config, e.what()).advise("write whole seconds or more, like `30s`");
    let every = duration::length_ms(&spec.every).map_err(whole);
    let bytes_max = spec.max_bytes.as_deref().map_or(Ok(SEGMENT_BYTES_MAX), segment_bytes);
    let every = sheet.take(&format!("{at}.every"), every);
    let bytes_max = sheet.take(&format!("{at}.maxBytes"), bytes_max);
    let between = every.zip(bytes_max).map(|(every_ms, bytes_max)| Between { every_ms, bytes_max });
    between.map_or(Deltas::Never, Deltas::Between)
}

fn segment_bytes(text: &str) -> Result<u64> {
    // As Kubernetes writes it, too.
    let bytes = if text.ends_with('i') { rate::size(&format!("{text}B")) } else { rate::size(text) }?;
    if !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&bytes) {
        let what = format!("{} is out of range for a file of changes", quoted(text));
        return Err(Error::new(Kind::Config, what).advise("use 1MiB to 8MiB; left out: 8MiB"));
    }
    Ok(bytes)
}

/// Judges how often sources, each by its number, have deltas between backups that are so far apart at most: deltas go on
/// from whole snapshots, which must come, and less often; and one run takes those of all sources.
pub(super) fn judge_periods(sheet: &mut Sheet<'_>, periods: &[(usize, i64)], gap: Option<i64>) {
    let Some((_, first)) = periods.first() else { return };
    for (n, every) in periods {
        let at = format!("spec.sources[{n}].etcd.deltas.every");
        let text = duration::text(*every);
        match gap {
            None => {
                let what = "deltas go on from whole snapshots, and the policy schedules none";
                sheet.refuse(&at, what, "add a schedule, for instance `schedule: {full: '@hourly'}`");
            }
            Some(gap) if *every >= gap => {
                let what = format!("no delta every {text} comes between backups {} apart", duration::text(gap));
                sheet.refuse(&at, what, "use a shorter period, or leave deltas out");
            }
            Some(_) if every != first => {
                let first = duration::text(*first);
                let what = format!("deltas of one policy come together, every {first} and not every {text}");
                sheet.refuse(&at, what, "use the same period, or make two policies");
            }
            Some(_) => {}
        }
    }
}
