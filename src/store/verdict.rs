//! What an object store's refusal, or its silence, means: for the caller's reaction, and in words.
//!
//! The words are our own: those of the store and of the client may hold an address with a token in it.

use super::error::{StoreError, StoreErrorKind as Kind};
use super::wire::{Refusal, Trouble};
use std::time::Duration;

/// A judged failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) kind: Kind,
    /// Whether it may pass by itself.
    pub(super) again: bool,
    /// How long the store asks to be left alone.
    pub(super) retry_after: Option<Duration>,
    detail: String,
    advice: Option<String>,
}

impl Verdict {
    fn new(kind: Kind, again: bool, detail: impl Into<String>) -> Verdict {
        Verdict { kind, again, retry_after: None, detail: detail.into(), advice: None }
    }

    fn final_(kind: Kind, detail: impl Into<String>) -> Verdict {
        Verdict::new(kind, false, detail)
    }

    fn passing(kind: Kind, detail: impl Into<String>) -> Verdict {
        Verdict::new(kind, true, detail)
    }

    fn advise(self, advice: impl Into<String>) -> Verdict {
        Verdict { advice: Some(advice.into()), ..self }
    }

    /// One attempt took too long, although it went on.
    pub(super) fn too_slow(limit: Duration) -> Verdict {
        Verdict::passing(Kind::TimedOut, format!("it took more than {} s", limit.as_secs_f64()))
    }

    pub(super) fn error(self, action: &'static str, object: &str) -> StoreError {
        let error = StoreError::new(self.kind, action, object, self.detail);
        match self.advice {
            Some(advice) => error.advise(advice),
            None => error,
        }
    }
}

/// Judges a failed attempt by what was met on the wire, and by the client's error where nothing was.
pub(super) fn judge(error: &object_store::Error, met: Option<(Trouble, bool)>) -> Verdict {
    let Some((trouble, store)) = met else { return of_client(error) };
    let verdict = of_trouble(&trouble);
    if store {
        return verdict;
    }
    let detail = format!("no credentials were handed out: {}", verdict.detail);
    // On a machine without such a service nobody answers, and nobody will.
    let again = verdict.again && !matches!(trouble, Trouble::Unreachable(_));
    let advice = "set the credentials of this region, or its profile: docs/regions.md";
    Verdict::new(Kind::Credentials, again, detail).advise(advice)
}

fn of_trouble(trouble: &Trouble) -> Verdict {
    match trouble {
        Trouble::Refused(refusal) => of_refusal(refusal),
        Trouble::Unreachable(why) => Verdict::passing(Kind::Unreachable, format!("the store cannot be reached: {why}")),
        // A server that knows no newer version refuses the greeting in one of these ways.
        Trouble::Untrusted(why) if why.contains("ProtocolVersion") || why.contains("incompatible") => {
            Verdict::final_(Kind::Unfit, format!("the store and Holdfast agree on no version of TLS: {why}"))
                .advise("add `tls=1.2` to the region's URL if the store knows no TLS 1.3")
        }
        Trouble::Untrusted(why) => Verdict::final_(Kind::Unfit, format!("its certificate is not trusted: {why}"))
            .advise("AWS_CA_BUNDLE or SSL_CERT_FILE names the certificates to trust"),
        Trouble::Stalled(limit) => {
            Verdict::passing(Kind::TimedOut, format!("nothing moved for {} s", limit.as_secs_f64()))
        }
        Trouble::Cut => Verdict::passing(Kind::Failed, "the connection was cut"),
        Trouble::Garbled(why) => Verdict::final_(Kind::Unfit, why.clone()),
    }
}

fn of_refusal(refusal: &Refusal) -> Verdict {
    let said = |what: &str| match refusal.code.as_str() {
        "" => format!("{what} (status {})", refusal.status),
        code => format!("{what} ({code})"),
    };
    let verdict = match of_code(refusal, &said) {
        Some(verdict) => verdict,
        None => of_status(refusal, &said),
    };
    Verdict { retry_after: refusal.retry_after, ..verdict }
}

/// What the store's own word for it means.
fn of_code(refusal: &Refusal, said: &dyn Fn(&str) -> String) -> Option<Verdict> {
    if refusal.date_wrong {
        let theirs = refusal.date.as_deref().map(|date| format!(": its clock says {date}")).unwrap_or_default();
        let detail = format!("the clocks of the store and of this machine differ too much{theirs}");
        return Some(Verdict::final_(Kind::Skewed, detail));
    }
    Some(match refusal.code.as_str() {
        "NoSuchBucket" | "ContainerNotFound" | "ContainerBeingDeleted" | "ContainerDisabled" => {
            Verdict::final_(Kind::NoBucket, said("there is no such bucket"))
        }
        "InvalidBucketName" | "InvalidResourceName" => {
            Verdict::final_(Kind::NoBucket, said("no bucket can have this name"))
        }
        "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "AuthenticationFailed"
        | "NoAuthenticationInformation"
        | "InvalidAuthenticationInfo"
        | "MissingSecurityHeader" => {
            Verdict::final_(Kind::Credentials, said("the store does not know these credentials"))
        }
        "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired" | "invalid_grant" => {
            Verdict::final_(Kind::Credentials, said("the credentials have expired, or were withdrawn"))
        }
        "AuthorizationHeaderMalformed"
        | "PermanentRedirect"
        | "TemporaryRedirect"
        | "IllegalLocationConstraintException" => elsewhere(refusal, said),
        "QuotaExceeded" | "InsufficientStorage" | "StorageFull" | "XMinioStorageFull" | "AccountLimitExceeded" => {
            Verdict::final_(Kind::Full, said("no space is left"))
        }
        "SlowDown" | "ServerBusy" | "Throttling" | "ThrottlingException" | "RequestLimitExceeded" => {
            Verdict::passing(Kind::Throttled, said("the store asks for fewer requests"))
        }
        "BadDigest" | "InvalidDigest" | "XAmzContentSHA256Mismatch" | "XAmzContentChecksumMismatch" | "Md5Mismatch" => {
            Verdict::passing(Kind::Failed, said("the bytes arrived damaged"))
        }
        "RequestTimeout"
        | "InternalError"
        | "OperationAborted"
        | "ConditionalRequestConflict"
        | "OperationTimedOut" => Verdict::passing(Kind::Failed, said("the store could not do it just now")),
        "NotImplemented" => Verdict::final_(Kind::Unfit, said("the store does not know this request")),
        _ => return None,
    })
}

/// What the status alone means.
fn of_status(refusal: &Refusal, said: &dyn Fn(&str) -> String) -> Verdict {
    match refusal.status {
        404 => Verdict::final_(Kind::NotFound, "not found"),
        401 => Verdict::final_(Kind::Credentials, said("the store does not know these credentials")),
        403 => Verdict::final_(Kind::Denied, said("permission denied"))
            .advise("the credentials may lack a permission: docs/regions.md has what each task needs"),
        301 | 302 | 307 | 308 => elsewhere(refusal, said),
        408 | 409 | 425 | 500 | 502 | 504 => Verdict::passing(Kind::Failed, said("the store could not do it just now")),
        429 | 503 => Verdict::passing(Kind::Throttled, said("the store asks for fewer requests")),
        412 => Verdict::final_(Kind::Changed, "another version stands there"),
        416 => Verdict::final_(Kind::Short, "shorter than it should be"),
        507 => Verdict::final_(Kind::Full, said("no space is left")),
        501 => Verdict::final_(Kind::Unfit, said("the store does not know this request")),
        _ => Verdict::final_(Kind::Failed, said("the store refused it")),
    }
}

fn elsewhere(refusal: &Refusal, said: &dyn Fn(&str) -> String) -> Verdict {
    match &refusal.region {
        Some(region) => Verdict::final_(Kind::Unfit, said(&format!("the bucket is in the region {region}")))
            .advise(format!("add `region={region}` to the region's URL, or set AWS_REGION")),
        None => Verdict::final_(Kind::Unfit, said("the bucket is elsewhere"))
            .advise("add `region=NAME` or `endpoint=URL` to the region's URL"),
    }
}

/// Nothing went wrong on the wire, and yet the client did not like it.
fn of_client(error: &object_store::Error) -> Verdict {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    let text = innermost.to_string();
    if text.contains("non-partial") {
        return Verdict::final_(Kind::Unfit, "the store ignores ranges");
    }
    if text.contains("Requested") && text.contains("got") || text.contains("ange") {
        return Verdict::final_(Kind::Short, "the store answered with another range than it was asked for");
    }
    let shown = if text.contains("://") || text.len() > 200 { "its answer is not understood" } else { &text };
    Verdict::final_(Kind::Failed, shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, code: &str) -> Verdict {
        of_refusal(&Refusal { status, code: code.into(), ..Refusal::default() })
    }

    #[test]
    fn refusals_by_the_reaction_they_ask_for() {
        let table = [
            (404, "", Kind::NotFound, false),
            (404, "NoSuchKey", Kind::NotFound, false),
            (404, "NoSuchBucket", Kind::NoBucket, false),
            (403, "", Kind::Denied, false),
            (403, "AccessDenied", Kind::Denied, false),
            (403, "SignatureDoesNotMatch", Kind::Credentials, false),
            (403, "AuthenticationFailed", Kind::Credentials, false),
            (400, "ExpiredToken", Kind::Credentials, false),
            (401, "", Kind::Credentials, false),
            (301, "PermanentRedirect", Kind::Unfit, false),
            (429, "", Kind::Throttled, true),
            (503, "SlowDown", Kind::Throttled, true),
            (500, "InternalError", Kind::Failed, true),
            (409, "OperationAborted", Kind::Failed, true),
            (400, "BadDigest", Kind::Failed, true),
            (507, "", Kind::Full, false),
            (403, "QuotaExceeded", Kind::Full, false),
            (501, "NotImplemented", Kind::Unfit, false),
            (400, "InvalidArgument", Kind::Failed, false),
        ];
        for (status, code, kind, again) in table {
            let verdict = refused(status, code);
            assert_eq!((verdict.kind, verdict.again), (kind, again), "{status} {code}");
        }
    }

    #[test]
    fn a_wrong_clock_and_a_wrong_region_say_what_is_right() {
        let refusal = Refusal {
            status: 403,
            code: "RequestTimeTooSkewed".into(),
            date_wrong: true,
            date: Some("Sat, 01 Jan 2000 00:00:00 GMT".into()),
            ..Refusal::default()
        };
        let skewed = of_refusal(&refusal);
        assert_eq!(skewed.kind, Kind::Skewed);
        assert!(skewed.detail.contains("01 Jan 2000"), "{}", skewed.detail);
        let moved = Refusal { status: 301, region: Some("eu-west-1".into()), ..Refusal::default() };
        let moved = of_refusal(&moved).error("read", "x").lift().to_string();
        assert!(moved.contains("add `region=eu-west-1`"), "{moved}");
    }

    #[test]
    fn no_service_that_hands_out_credentials() {
        let error = object_store::Error::NotImplemented { operation: String::new(), implementer: String::new() };
        let nobody = judge(&error, Some((Trouble::Unreachable("refused".into()), false)));
        assert_eq!((nobody.kind, nobody.again), (Kind::Credentials, false));
        let busy = judge(&error, Some((Trouble::Stalled(Duration::from_secs(1)), false)));
        assert_eq!((busy.kind, busy.again), (Kind::Credentials, true));
    }

    #[test]
    fn an_address_is_not_repeated() {
        let source = std::io::Error::other("cannot read https://host/?sig=hunter2");
        let verdict = of_client(&object_store::Error::Generic { store: "x", source: source.into() });
        assert!(!verdict.detail.contains("hunter2"), "{}", verdict.detail);
    }
}
