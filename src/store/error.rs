//! What a store can answer, by the reaction it asks for.

use crate::error::{Error, Kind};
use thiserror::Error as ThisError;

/// The reactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreErrorKind {
    /// No such object or folder.
    NotFound,
    /// No such bucket.
    NoBucket,
    /// No permission, or read-only.
    Denied,
    /// Credentials are missing, wrong or expired.
    Credentials,
    /// The clocks of the store and of this machine are too far apart.
    Skewed,
    /// The region cannot be used as it is configured, or the store lacks what is needed of it.
    Unfit,
    /// No space left.
    Full,
    /// Longer than was asked for.
    TooLong,
    /// Shorter than was asked for.
    Short,
    /// Something that is no file stands there.
    NoFile,
    /// Another version stands there than the one that was asked for.
    Changed,
    /// The store asks to be left alone for a while.
    Throttled,
    /// Nobody answers there.
    Unreachable,
    /// It did not answer in time.
    TimedOut,
    /// Anything else; may work later.
    Failed,
}

impl StoreErrorKind {
    /// How callers above react, and what the reader can do.
    fn reaction(self) -> (Kind, Option<&'static str>) {
        match self {
            Self::NotFound => (Kind::NotFound, None),
            Self::NoBucket => (Kind::Config, Some("buckets are not made here: make it, or correct the region's URL")),
            Self::Denied => (Kind::Denied, Some("check permissions and that it is not mounted read-only")),
            Self::Credentials => (Kind::Denied, Some("check the credentials of this region: docs/regions.md")),
            Self::Skewed => (Kind::Denied, Some("set this machine's clock, then run again")),
            Self::Unfit => (Kind::Config, None),
            Self::Full => (Kind::Full, Some("free or add space there, then run again: stored work is kept")),
            Self::TooLong | Self::Short | Self::NoFile => (Kind::Damage, None),
            Self::Changed => (Kind::Source, None),
            Self::Throttled | Self::Unreachable | Self::TimedOut | Self::Failed => (Kind::Retry, None),
        }
    }
}

/// A failed call.
#[derive(Debug, Clone, ThisError)]
#[error("cannot {action} {object}: {detail}")]
pub struct StoreError {
    /// Reaction.
    pub kind: StoreErrorKind,
    action: &'static str,
    object: String,
    detail: String,
    advice: Option<String>,
}

impl StoreError {
    pub(super) fn too_long(object: &str) -> Self {
        Self::new(StoreErrorKind::TooLong, "read", object, "longer than any valid object of this kind")
    }

    pub(super) fn no_file(object: &str) -> Self {
        Self::new(StoreErrorKind::NoFile, "read", object, "something that is no file stands there")
    }

    pub(super) fn short(object: &str) -> Self {
        Self::new(StoreErrorKind::Short, "read", object, "shorter than it should be")
    }

    pub(crate) fn new(kind: StoreErrorKind, action: &'static str, object: &str, detail: impl Into<String>) -> Self {
        StoreError { kind, action, object: object.to_owned(), detail: detail.into(), advice: None }
    }

    /// A region that cannot be used as it is configured.
    pub(super) fn unfit(place: &dyn std::fmt::Display, detail: impl Into<String>) -> Self {
        Self::new(StoreErrorKind::Unfit, "use", &place.to_string(), detail)
    }

    /// With something better to do than its kind alone says.
    pub(super) fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice.get_or_insert(advice.into());
        self
    }

    pub(super) fn io(action: &'static str, object: &str, error: &std::io::Error) -> Self {
        Self::new(kind_of_io(error), action, object, plain(error))
    }

    /// Of a folder: its errors hold the operating system's.
    pub(super) fn from_folder(action: &'static str, object: &str, error: object_store::Error) -> Self {
        use object_store::Error as E;
        let io = io_cause(&error);
        let kind = match (&error, io) {
            (E::NotFound { .. }, _) => StoreErrorKind::NotFound,
            (E::PermissionDenied { .. } | E::Unauthenticated { .. }, _) => StoreErrorKind::Denied,
            (_, Some(cause)) => kind_of_io(cause),
            _ if is_range(&error) => StoreErrorKind::Short,
            _ => StoreErrorKind::Failed,
        };
        let detail = match (kind, io) {
            (StoreErrorKind::NotFound, _) => "not found".to_owned(),
            (_, Some(cause)) => plain(cause),
            _ => error.to_string(),
        };
        Self::new(kind, action, object, detail)
    }

    /// The same for callers above, who say which region it was.
    pub fn lift(&self) -> Error {
        let (kind, advice) = self.kind.reaction();
        let error = Error::new(kind, self.to_string());
        match self.advice.as_deref().or(advice) {
            Some(advice) => error.advise(advice),
            None => error,
        }
    }
}

/// The operating system's words without the number.
fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_lowercase()
}

fn io_cause<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a std::io::Error> {
    let mut next = Some(error);
    while let Some(current) = next {
        if let Some(io) = current.downcast_ref::<std::io::Error>()
            && io.raw_os_error().is_some()
        {
            return Some(io);
        }
        next = current.source();
    }
    None
}

fn is_range(error: &object_store::Error) -> bool {
    // A range beyond the end has no kind of its own in this crate.
    error.to_string().to_lowercase().contains("range")
}

fn kind_of_io(error: &std::io::Error) -> StoreErrorKind {
    use std::io::ErrorKind as K;
    match error.kind() {
        K::NotFound => StoreErrorKind::NotFound,
        K::PermissionDenied | K::ReadOnlyFilesystem => StoreErrorKind::Denied,
        K::StorageFull | K::QuotaExceeded | K::FileTooLarge => StoreErrorKind::Full,
        _ => StoreErrorKind::Failed,
    }
}
