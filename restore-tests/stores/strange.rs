//! Stores that are none, or that nobody should talk to.

use super::conformance::Subject;
use super::servers::WRITER;
use super::{http, s3, variables};
use holdfast::base::{Bucket, Place, Service, SessionId};
use holdfast::store::{Key, Prefix, StoreErrorKind as Kind};
use std::io::BufReader;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

#[test]
fn a_listing_whose_pages_lead_in_a_circle_ends() {
    let asked = AtomicUsize::new(0);
    let port = http::always(move |_| {
        let token = ["first", "second"][asked.fetch_add(1, Ordering::Relaxed) % 2];
        format!(
            "<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>{token}</NextContinuationToken>\
             </ListBucketResult>"
        )
        .into_bytes()
    });
    let subject = Subject::new(s3(port, "bucket", "p"), &variables(WRITER));
    let e = subject.runtime.block_on(subject.connect().list(Prefix::Runs)).unwrap_err();
    assert!(e.to_string().contains("circle"), "{e}");
}

/// The page of a portal, with status 200, must not pass for a region without objects.
#[test]
fn a_page_that_is_no_listing_is_not_an_empty_one() {
    let whole = "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>";
    for (text, is_listing) in [
        ("<html><body>Please log in</body></html>", false),
        ("<HTML><BODY>/ListBucketResult</BODY></HTML>", false),
        ("", false),
        ("<ListBucketResult><IsTruncated>false</IsTruncated>", false),
        (whole, true),
    ] {
        let port = http::always(move |_| text.as_bytes().to_vec());
        let subject = Subject::new(s3(port, "bucket", "p"), &variables(WRITER));
        match subject.runtime.block_on(subject.connect().list(Prefix::Runs)) {
            Ok(found) => assert!(is_listing && found.0.is_empty(), "{text}"),
            Err(e) => assert!(!is_listing && e.kind == Kind::Unfit, "{text}: {e}"),
        }
    }
}

/// Who may not list everything is told that what is not there is forbidden: a removal that worked did.
#[test]
fn what_was_removed_may_be_forbidden_afterwards() {
    let shown = AtomicUsize::new(1);
    let port = http::serve(move |stream| {
        let mut from = BufReader::new(stream.try_clone().unwrap());
        let (Some(head), mut to) = (http::Head::read(&mut from), stream) else { return };
        let version = [("x-amz-version-id", "v1"), ("ETag", "\"e\"")];
        match (head.method.as_str(), shown.load(Ordering::Relaxed)) {
            ("DELETE", _) => {
                shown.store(0, Ordering::Relaxed);
                http::answer(&mut to, 204, &[], b"", false);
            }
            (_, 0) => http::answer(&mut to, 403, &[], b"", false),
            _ => http::answer(&mut to, 200, &version, b"", false),
        }
    });
    let subject = Subject::new(s3(port, "bucket", "p"), &variables(WRITER));
    let key = Key::Forgotten(SessionId([7; 16]));
    subject.runtime.block_on(subject.connect().remove(&key)).unwrap();
    // What is forbidden from the start is refused.
    let e = subject.runtime.block_on(subject.connect().remove(&key)).unwrap_err();
    assert_eq!(e.kind, Kind::Denied, "{e}");
}

/// A TLS server that speaks one version.
struct Tls {
    child: Child,
    port: u16,
}

impl Drop for Tls {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Tls {
    fn start(dir: &std::path::Path, version: &str) -> Tls {
        let (key, certificate) = (dir.join("key.pem"), dir.join("certificate.pem"));
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
            .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"])
            .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
            .args([&key, std::path::Path::new("-out"), &certificate])
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(made.success());
        let mut child = Command::new("openssl")
            .args(["s_server", "-accept", "127.0.0.1:0", "-www", version, "-cert"])
            .args([&certificate, std::path::Path::new("-key"), &key])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // It says where it listens: "ACCEPT 127.0.0.1:41234 …".
        let out = std::io::BufReader::new(child.stdout.take().unwrap());
        let line = std::io::BufRead::lines(out).map_while(Result::ok).find(|line| line.starts_with("ACCEPT")).unwrap();
        let port = line.split_whitespace().nth(1).and_then(|at| at.rsplit_once(':')?.1.parse().ok()).unwrap();
        Tls { child, port }
    }

    fn listed(&self, dir: &std::path::Path, tls: Option<&str>) -> holdfast::store::StoreError {
        let place = Place::Bucket(Bucket {
            endpoint: Some(format!("https://127.0.0.1:{}", self.port)),
            tls: tls.map(str::to_owned),
            ..Bucket::new(Service::S3, "bucket", "p")
        });
        let bundle = dir.join("certificate.pem");
        let [id, secret] = variables(WRITER);
        let subject = Subject::new(place, &[id, secret, ("AWS_CA_BUNDLE", bundle.to_str().unwrap())]);
        subject.runtime.block_on(subject.connect().list(Prefix::Runs)).unwrap_err()
    }
}

#[test]
fn nothing_older_than_tls_1_3_is_spoken_unless_the_url_allows_it() {
    let dir = tempfile::tempdir().unwrap();
    let old = Tls::start(dir.path(), "-tls1_2");
    let refused = old.listed(dir.path(), None);
    assert_eq!(refused.kind, Kind::Unfit, "{refused}");
    assert!(refused.lift().to_string().contains("tls=1.2"), "{}", refused.lift());
    // It answers with a page for people: it was reached.
    let allowed = old.listed(dir.path(), Some("1.2"));
    assert!(allowed.to_string().contains("no listing"), "{allowed}");
    let dir = tempfile::tempdir().unwrap();
    let new = Tls::start(dir.path(), "-tls1_3");
    let reached = new.listed(dir.path(), None);
    assert_eq!(reached.to_string(), allowed.to_string());
}
