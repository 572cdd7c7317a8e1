//! Where a region is: a folder, or a bucket of an object store.

use std::fmt;
use std::path::{Path, PathBuf};

/// Who serves a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Service {
    /// Amazon S3, and all that speak its protocol.
    S3,
    /// Google Cloud Storage.
    Gcs,
    /// Azure Blob Storage.
    Azure,
}

impl Service {
    /// The scheme of its URLs.
    pub fn scheme(self) -> &'static str {
        match self {
            Service::S3 => "s3",
            Service::Gcs => "gs",
            Service::Azure => "az",
        }
    }
}

/// A prefix in a bucket, as its URL names it. It holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bucket {
    /// Who serves it.
    pub service: Service,
    /// Bucket or container.
    pub name: String,
    /// What its keys begin with, without slashes around it; may be empty.
    pub prefix: String,
    /// `endpoint`: the address of a store that is not the service's own.
    pub endpoint: Option<String>,
    /// `region`, of S3.
    pub region: Option<String>,
    /// `profile`, of S3: a section of the files of the AWS tools.
    pub profile: Option<String>,
    /// `account`, of Azure.
    pub account: Option<String>,
    /// `credentials`, of Google: a file.
    pub credentials: Option<String>,
    /// `tls`: `1.2` where the store knows no newer version.
    pub tls: Option<String>,
    /// `weak`: `yes` where the store does not create only if absent.
    pub weak: Option<String>,
}

impl Bucket {
    /// Without options.
    pub fn new(service: Service, name: impl Into<String>, prefix: impl Into<String>) -> Bucket {
        Bucket {
            service,
            name: name.into(),
            prefix: prefix.into(),
            endpoint: None,
            region: None,
            profile: None,
            account: None,
            credentials: None,
            tls: None,
            weak: None,
        }
    }

    /// The options of its service, by name.
    pub fn options(&mut self) -> Vec<(&'static str, &mut Option<String>)> {
        let mut all = vec![("endpoint", &mut self.endpoint), ("tls", &mut self.tls), ("weak", &mut self.weak)];
        match self.service {
            Service::S3 => all.extend([("region", &mut self.region), ("profile", &mut self.profile)]),
            Service::Gcs => all.push(("credentials", &mut self.credentials)),
            Service::Azure => all.push(("account", &mut self.account)),
        }
        all
    }
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.service.scheme(), self.name)?;
        if !self.prefix.is_empty() {
            write!(f, "/")?;
            self.prefix.chars().try_for_each(|c| match c {
                '%' | '?' | '#' => write!(f, "%{:02X}", u32::from(c)),
                c => write!(f, "{c}"),
            })?;
        }
        let mut mark = '?';
        for (name, value) in self.clone().options() {
            let Some(value) = value else { continue };
            write!(f, "{mark}{name}=")?;
            value.bytes().try_for_each(|byte| match byte {
                b'&' | b'%' | b'#' | b'+' | 0..=b' ' | 0x7f.. => write!(f, "%{byte:02X}"),
                _ => write!(f, "{}", char::from(byte)),
            })?;
            mark = '&';
        }
        Ok(())
    }
}

/// Where a region is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A folder.
    Folder(PathBuf),
    /// A bucket.
    Bucket(Bucket),
}

impl Place {
    /// The folder, where it is one.
    pub fn folder(&self) -> Option<&Path> {
        match self {
            Place::Folder(path) => Some(path),
            Place::Bucket(_) => None,
        }
    }
}

impl Place {
    /// Whether it is said that its store does not create only if absent.
    pub fn is_weak(&self) -> bool {
        matches!(self, Place::Bucket(bucket) if bucket.weak.is_some())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Folder(path) => path.display().fmt(f),
            Place::Bucket(bucket) => bucket.fmt(f),
        }
    }
}

impl<P: Into<PathBuf>> From<P> for Place {
    fn from(path: P) -> Place {
        Place::Folder(path.into())
    }
}
