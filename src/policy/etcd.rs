//! A source that is a cluster of etcd.

use super::name::quoted;
use super::paths::absolute;
use super::sheet::Sheet;
use super::types::{EtcdSpec, SourceSpec};
use std::path::PathBuf;

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
    /// Whether incremental backups take only what changed.
    pub deltas: bool,
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
            deltas: Some(self.deltas),
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
        deltas: spec.deltas.unwrap_or(false),
    })
}
