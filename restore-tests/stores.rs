//! Regions on object stores: one suite for all stores, faults on the way, and whole repositories.

mod conformance;
mod doctor;
mod end_to_end;
mod faults;
mod gcs;
mod heal;
pub mod http;
mod locked;
mod one_writer;
pub mod proxy;
mod pruned;
mod requests;
pub mod servers;
mod slow;
mod strange;

use conformance::Subject;
use holdfast::base::{Bucket, Place, Service};
use holdfast::store::{Key, Put, StoreErrorKind as Kind, Trial};
use servers::{ACCOUNT, ACCOUNT_KEY, WRITER};

/// A prefix of a bucket at an S3 server on this machine.
fn s3(port: u16, bucket: &str, prefix: &str) -> Place {
    let endpoint = Some(format!("http://127.0.0.1:{port}"));
    Place::Bucket(Bucket { endpoint, ..Bucket::new(Service::S3, bucket, prefix) })
}

fn variables<'a>(credentials: (&'a str, &'a str)) -> [(&'static str, &'a str); 2] {
    [("AWS_ACCESS_KEY_ID", credentials.0), ("AWS_SECRET_ACCESS_KEY", credentials.1)]
}

#[test]
fn a_folder_keeps_the_contract() {
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    conformance::all(&Subject::new(dir.path().join("region").into(), &[]));
}

#[test]
fn seaweedfs_keeps_the_contract() {
    let server = servers::seaweed(&["bucket"]);
    conformance::all_but_listings(&Subject::new(s3(server.port, "bucket", ""), &variables(WRITER)));
}

#[test]
fn seaweedfs_keeps_the_contract_below_a_prefix() {
    let server = servers::seaweed(&["bucket"]);
    conformance::all(&Subject::new(s3(server.port, "bucket", "deep/down"), &variables(WRITER)));
}

#[test]
fn seaweedfs_keeps_the_contract_on_a_bad_network() {
    let server = servers::seaweed(&["bucket"]);
    faults::all(&server, "bucket");
}

#[test]
fn s3s_fs_keeps_the_contract_for_one_writer() {
    let server = one_writer::start("bucket");
    conformance::one_writer(&Subject::new(s3(server.port, "bucket", "deep/down"), &variables(WRITER)));
    let wrong = Subject::new(s3(server.port, "bucket", "p"), &variables((WRITER.0, "no such secret")));
    let e = wrong.runtime.block_on(wrong.connect().get(&Key::Region, 9)).unwrap_err();
    assert!(matches!(e.kind, Kind::Denied | Kind::Credentials), "{e}");
}

#[test]
fn azurite_keeps_the_contract() {
    let server = servers::azurite("container");
    let endpoint = format!("http://127.0.0.1:{}/{ACCOUNT}", server.port);
    let bucket = Bucket {
        endpoint: Some(endpoint.clone()),
        account: Some(ACCOUNT.into()),
        ..Bucket::new(Service::Azure, "container", "p")
    };
    conformance::all(&Subject::new(Place::Bucket(bucket.clone()), &[("AZURE_STORAGE_KEY", ACCOUNT_KEY)]));
    // As `az` has it, all in one.
    let text = format!("BlobEndpoint={endpoint};AccountName={ACCOUNT};AccountKey={ACCOUNT_KEY}");
    let whole = Place::Bucket(Bucket { endpoint: None, account: None, ..bucket.clone() });
    let subject = Subject::new(whole, &[("AZURE_STORAGE_CONNECTION_STRING", &text)]);
    let other = subject.connect();
    assert_eq!(subject.runtime.block_on(other.get(&Key::Region, 9)).unwrap_err().kind, Kind::NotFound);
    let wrong = Subject::new(Place::Bucket(bucket.clone()), &[("AZURE_STORAGE_KEY", "aHVudGVyMg==")]);
    let e = wrong.runtime.block_on(wrong.connect().get(&Key::Region, 9)).unwrap_err();
    // Azure itself says AuthenticationFailed; the emulator does not tell a wrong key from a missing permission.
    assert_eq!((e.kind, e.lift().kind()), (Kind::Denied, holdfast::error::Kind::Denied), "{e}");
    let nowhere = Place::Bucket(Bucket { name: "nowhere".into(), ..bucket });
    let nowhere = Subject::new(nowhere, &[("AZURE_STORAGE_KEY", ACCOUNT_KEY)]);
    let e = nowhere.runtime.block_on(nowhere.connect().get(&Key::Region, 9)).unwrap_err();
    assert_eq!(e.kind, Kind::NoBucket, "{e}");
}

#[test]
fn the_stand_in_for_google_keeps_the_contract() {
    let host = format!("127.0.0.1:{}", gcs::start());
    let bucket = |name: &str| Place::Bucket(Bucket::new(Service::Gcs, name, "a/b"));
    let variables = [("STORAGE_EMULATOR_HOST", host.as_str())];
    conformance::all(&Subject::new(bucket("bucket"), &variables));
    for (name, kind) in [("private", Kind::Credentials), ("nowhere", Kind::NoBucket)] {
        let subject = Subject::new(bucket(name), &variables);
        let e = subject.runtime.block_on(subject.connect().get(&Key::Region, 9)).unwrap_err();
        assert_eq!(e.kind, kind, "{e}");
    }
}

#[test]
fn a_store_that_lies_is_found_out() {
    let server = servers::rclone("bucket");
    let subject = Subject::new(s3(server.port, "bucket", "p"), &variables(WRITER));
    let store = subject.connect();
    let bytes = bytes::Bytes::from_static(b"some bytes of an object");
    let tried = subject.runtime.block_on(store.try_out(&conformance::fresh(), &bytes, false)).unwrap();
    assert_eq!(tried, (Put::Created, Trial::Overwrites));
}
