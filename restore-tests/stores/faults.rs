//! What a store and the way to it do wrong, in front of a real one.

use super::conformance::{Subject, fresh};
use super::proxy::{Fault, Proxy};
use super::servers::{READER, Server, WRITER};
use super::{s3, variables};
use crate::harness::noise;
use bytes::Bytes;
use holdfast::base::Place;
use holdfast::error::Kind as Reaction;
use holdfast::store::{Key, Prefix, Put, State, Store, StoreErrorKind as Kind, StoreSettings};
use std::time::{Duration, Instant};

/// Everything, in front of a server that is there already.
pub fn all(server: &Server, bucket: &str) {
    let proxy = Proxy::before(server.port);
    let subject = Subject::new(s3(proxy.port, bucket, "faults"), &variables(WRITER));
    let store = subject.connect();
    subject.runtime.block_on(async {
        throttled(&store, &proxy).await;
        cut(&store, &proxy).await;
        short(&store, &proxy).await;
    });
    hangs(&subject, &proxy);
    gives_up(&subject, &proxy);
    assert_eq!(proxy.left(), 0);
    unknown(server, bucket);
}

async fn stored(store: &Store, seed: u64) -> (Key, Bytes) {
    let (key, bytes) = (fresh(), Bytes::from(noise(seed, 300_000)));
    assert_eq!(store.put_new(&key, bytes.clone()).await.unwrap(), Put::Created);
    (key, bytes)
}

async fn throttled(store: &Store, proxy: &Proxy) {
    let (key, bytes) = stored(store, 1).await;
    let before = store.meter().read();
    proxy.spoil("GET", "packs", Fault::Refuse(429, Some(2)));
    let begin = Instant::now();
    assert_eq!(store.get(&key, 1 << 20).await.unwrap(), bytes);
    assert!(begin.elapsed() >= Duration::from_secs(2), "Retry-After was not waited for");
    proxy.spoil("GET", "packs", Fault::Refuse(503, None));
    proxy.spoil("GET", "packs", Fault::Refuse(500, None));
    assert_eq!(store.get_range(&key, 5, 10).await.unwrap(), bytes.slice(5..15));
    proxy.spoil("PUT", "packs", Fault::Refuse(503, None));
    assert_eq!(store.put_new(&fresh(), bytes.clone()).await.unwrap(), Put::Created);
    proxy.spoil("GET", "list-type=2", Fault::Refuse(503, None));
    store.list(Prefix::Runs).await.unwrap();
    let after = store.meter().read();
    assert_eq!((after.retries - before.retries, after.get - before.get, after.put - before.put), (5, 5, 2));
    assert_eq!((after.list - before.list, after.head - before.head), (2, 0));
}

async fn cut(store: &Store, proxy: &Proxy) {
    let (key, bytes) = stored(store, 2).await;
    for bytes_before in [0, 1, 200_000] {
        proxy.spoil("GET", "packs", Fault::CutAnswer(bytes_before));
        assert_eq!(store.get(&key, 1 << 20).await.unwrap(), bytes);
        proxy.spoil("PUT", "packs", Fault::CutRequest(bytes_before));
        assert_eq!(store.put_new(&fresh(), bytes.clone()).await.unwrap(), Put::Created);
    }
    // The answer of a create is lost: it was made, and the second attempt is refused. These are our bytes.
    proxy.spoil("PUT", "packs", Fault::CutAnswer(0));
    let done = store.put_new(&fresh(), bytes).await.unwrap();
    assert!(matches!(done, Put::Created | Put::Same), "{done:?}");
}

async fn short(store: &Store, proxy: &Proxy) {
    let (key, bytes) = stored(store, 3).await;
    proxy.spoil("GET", "packs", Fault::ShortBody(1000));
    let e = store.get_range(&key, 0, 2000).await.unwrap_err();
    assert_eq!((e.kind, e.lift().kind()), (Kind::Short, Reaction::Damage), "{e}");
    assert_eq!(store.get_range(&key, 0, 2000).await.unwrap(), bytes.slice(..2000));
}

/// Nothing comes back: it is noticed, and tried again.
fn hangs(subject: &Subject, proxy: &Proxy) {
    let mut settings = subject.settings.clone();
    settings.patience.stall = Duration::from_millis(700);
    let store = Store::connect(&subject.place, false, &settings).unwrap();
    subject.runtime.block_on(async {
        let (key, bytes) = stored(&store, 4).await;
        proxy.spoil("GET", "packs", Fault::Hang);
        let begin = Instant::now();
        assert_eq!(store.get(&key, 1 << 20).await.unwrap(), bytes);
        assert!(begin.elapsed() >= Duration::from_millis(700));
        proxy.spoil("PUT", "packs", Fault::Hang);
        let done = store.put_new(&fresh(), bytes).await.unwrap();
        assert!(matches!(done, Put::Created | Put::Same), "{done:?}");
    });
}

/// A deadline ends it, whatever the fault is.
fn gives_up(subject: &Subject, proxy: &Proxy) {
    let mut settings: StoreSettings = subject.settings.clone();
    settings.patience.stall = Duration::from_millis(300);
    settings.patience.retry = Duration::from_millis(900);
    settings.patience.unreachable = Duration::from_millis(600);
    let store = Store::connect(&subject.place, false, &settings).unwrap();
    subject.runtime.block_on(async {
        let (key, _) = stored(&store, 5).await;
        proxy.spoil("GET", "packs", Fault::Refuse(503, Some(3600)));
        let e = store.get(&key, 1 << 20).await.unwrap_err();
        assert_eq!((e.kind, e.lift().kind()), (Kind::Throttled, Reaction::Retry), "{e}");
        let circuit = || (store.meter().read().circuit, store.meter().read().opened);
        assert_eq!((circuit(), store.meter().worth_asking()), ((State::Open, 1), false));
        // Whoever asks it all the same is served, and then everybody.
        assert!(store.get(&key, 1 << 20).await.is_ok());
        assert_eq!((circuit(), store.meter().worth_asking()), ((State::Closed, 1), true));
        proxy.spoil("GET", "packs", Fault::Refuse(503, Some(u64::MAX)));
        let e = store.get(&key, 1 << 20).await.unwrap_err();
        assert_eq!(e.kind, Kind::Throttled, "{e}");
        assert_eq!(circuit(), (State::Open, 2));
        proxy.kill();
        let begin = Instant::now();
        let e = store.get(&key, 1 << 20).await.unwrap_err();
        assert_eq!((e.kind, e.lift().kind()), (Kind::Unreachable, Reaction::Retry), "{e}");
        assert!(begin.elapsed() < Duration::from_secs(20));
        proxy.revive();
    });
}

/// Whom the store does not know, or does not let.
fn unknown(server: &Server, bucket: &str) {
    let refused = |credentials: (&str, &str), place: Place, put: bool| {
        let subject = Subject::new(place, &variables(credentials));
        let store = subject.connect();
        let e = subject.runtime.block_on(async {
            match put {
                true => store.put_new(&fresh(), Bytes::from_static(b"x")).await.unwrap_err(),
                false => store.get(&Key::Region, 10).await.unwrap_err(),
            }
        });
        let shown = format!("{e} {e:?} {} {store:?} {:?}", e.lift(), subject.settings);
        assert!(!shown.contains("SKX") && !shown.contains("SKR"), "{shown}");
        e
    };
    let place = || s3(server.port, bucket, "unknown");
    let wrong = refused((WRITER.0, "SKX-wrong"), place(), false);
    assert_eq!(wrong.kind, Kind::Credentials, "{wrong}");
    let nobody = refused(("AKNOBODY", "SKX-wrong"), place(), false);
    assert_eq!(nobody.kind, Kind::Credentials, "{nobody}");
    let reader = refused(READER, place(), true);
    assert_eq!((reader.kind, reader.lift().kind()), (Kind::Denied, Reaction::Denied), "{reader}");
    let nowhere = refused(WRITER, s3(server.port, "no-such-bucket", "x"), false);
    assert_eq!((nowhere.kind, nowhere.lift().kind()), (Kind::NoBucket, Reaction::Config), "{nowhere}");
}
