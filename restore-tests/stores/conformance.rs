//! One suite for all stores: what the program asks of one, tried as the program does it.

use bytes::Bytes;
use holdfast::base::{PackName, Place, SegmentName};
use holdfast::store::{Key, Patience, Prefix, Put, Store, StoreErrorKind as Kind, StoreSettings, Trial, Variables};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::harness::noise;

/// More than five pages of any service.
const LISTED: usize = 5_001;
/// Requests at once, where there are many.
const AT_ONCE: usize = 32;

/// A store under test.
pub struct Subject {
    pub place: Place,
    pub settings: StoreSettings,
    pub runtime: tokio::runtime::Runtime,
}

/// So long that a busy machine is no fault, and so short that a test is over soon.
pub fn patience() -> Patience {
    Patience {
        connect: Duration::from_secs(5),
        stall: Duration::from_secs(20),
        attempt: Duration::from_secs(60),
        retry: Duration::from_secs(60),
        unreachable: Duration::from_secs(5),
    }
}

impl Subject {
    pub fn new(place: Place, variables: &[(&str, &str)]) -> Subject {
        let settings = StoreSettings { variables: Variables::of(variables.iter().copied()), patience: patience() };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        Subject { place, settings, runtime }
    }

    /// A client of its own.
    pub fn connect(&self) -> Store {
        Store::connect(&self.place, true, &self.settings).unwrap()
    }
}

/// A key that no other check uses.
pub fn fresh() -> Key {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let mut name = [0x5a; 32];
    name[..8].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    Key::Pack(PackName(name))
}

fn some(seed: u64, len: usize) -> Bytes {
    noise(seed, len).into()
}

/// All of it.
pub fn all(subject: &Subject) {
    all_but_listings(subject);
    let (store, other) = (subject.connect(), subject.connect());
    subject.runtime.block_on(lists(&store, &other));
}

/// What a store must do for one writer at a time: all but races.
pub fn one_writer(subject: &Subject) {
    let (store, other) = (subject.connect(), subject.connect());
    subject.runtime.block_on(async {
        in_turn(&store, &other).await;
        lists(&store, &other).await;
    });
}

/// What takes little time.
pub fn all_but_listings(subject: &Subject) {
    let (store, other) = (subject.connect(), subject.connect());
    subject.runtime.block_on(async {
        races(&store, &other).await;
        in_turn(&store, &other).await;
    });
}

async fn in_turn(store: &Store, other: &Store) {
    creates(store, other).await;
    reads(store, other).await;
    missing(store).await;
    deletes(store, other).await;
    large(store, other).await;
    fit(store).await;
}

async fn creates(store: &Store, other: &Store) {
    let (key, mine, theirs) = (fresh(), some(1, 1000), some(2, 1000));
    assert_eq!(store.put_new(&key, mine.clone()).await.unwrap(), Put::Created);
    assert_eq!(store.put_new(&key, mine.clone()).await.unwrap(), Put::Same);
    assert_eq!(other.put_new(&key, mine.clone()).await.unwrap(), Put::Same);
    assert_eq!(other.put_new(&key, theirs).await.unwrap(), Put::Other);
    assert_eq!(other.put_new(&key, some(3, 2000)).await.unwrap(), Put::Other);
    assert_eq!(other.put_new(&key, some(4, 0)).await.unwrap(), Put::Other);
    assert_eq!(other.get(&key, 1000).await.unwrap(), mine);
}

async fn races(store: &Store, other: &Store) {
    for round in 0..20 {
        let key = fresh();
        let bodies: Vec<Bytes> = (0..8).map(|n| some(100 * round + n, 4000)).collect();
        let tries = bodies.iter().enumerate().map(|(n, body)| {
            let store = if n % 2 == 0 { store } else { other };
            store.put_new(&key, body.clone())
        });
        let done = futures_util::future::join_all(tries).await;
        let done: Vec<Put> = done.into_iter().map(Result::unwrap).collect();
        let winners: Vec<usize> = (0..8).filter(|n| done[*n] != Put::Other).collect();
        assert_eq!(winners.len(), 1, "round {round}: {done:?}");
        assert_eq!(store.get(&key, 4000).await.unwrap(), bodies[winners[0]]);
    }
}

async fn reads(store: &Store, other: &Store) {
    let (key, bytes) = (fresh(), some(5, 100_000));
    store.put_new(&key, bytes.clone()).await.unwrap();
    assert_eq!(other.size(&key).await.unwrap(), 100_000);
    assert_eq!(other.get(&key, 100_000).await.unwrap(), bytes);
    assert_eq!(other.get(&key, 99_999).await.unwrap_err().kind, Kind::TooLong);
    for (offset, len) in [(0, 1), (0, 100_000), (1, 99_999), (50_000, 10), (99_999, 1)] {
        let part = other.get_range(&key, offset, len).await.unwrap();
        assert_eq!(part, bytes.slice(offset as usize..(offset + len) as usize), "{offset} {len}");
    }
    assert!(other.get_range(&key, 7, 0).await.unwrap().is_empty());
    for (offset, len) in [(0, 100_001), (99_999, 2), (100_000, 1), (1_000_000, 1)] {
        let e = other.get_range(&key, offset, len).await.unwrap_err();
        assert_eq!(e.kind, Kind::Short, "{offset} {len}: {e}");
    }
    let empty = fresh();
    assert_eq!(store.put_new(&empty, Bytes::new()).await.unwrap(), Put::Created);
    assert_eq!(other.get(&empty, 10).await.unwrap(), Bytes::new());
    assert_eq!(other.size(&empty).await.unwrap(), 0);
}

async fn missing(store: &Store) {
    let key = fresh();
    assert_eq!(store.get(&key, 10).await.unwrap_err().kind, Kind::NotFound);
    assert_eq!(store.get_range(&key, 0, 1).await.unwrap_err().kind, Kind::NotFound);
    assert_eq!(store.size(&key).await.unwrap_err().kind, Kind::NotFound);
    assert_eq!(store.list(Prefix::Holds).await.unwrap(), (vec![], vec![]));
}

async fn deletes(store: &Store, other: &Store) {
    let key = fresh();
    store.put_new(&key, some(6, 10)).await.unwrap();
    other.delete(&key).await.unwrap();
    assert_eq!(store.get(&key, 10).await.unwrap_err().kind, Kind::NotFound);
    other.delete(&key).await.unwrap();
    assert_eq!(store.put_new(&key, some(7, 10)).await.unwrap(), Put::Created);
    assert_eq!(other.get(&key, 10).await.unwrap(), some(7, 10));
}

async fn large(store: &Store, other: &Store) {
    let (key, bytes) = (fresh(), some(8, 32 << 20));
    assert_eq!(store.put_new(&key, bytes.clone()).await.unwrap(), Put::Created);
    assert_eq!(store.put_new(&key, bytes.clone()).await.unwrap(), Put::Same);
    assert!(other.get(&key, 32 << 20).await.unwrap() == bytes);
    assert!(other.get_range(&key, 31 << 20, 1 << 20).await.unwrap() == bytes.slice(31 << 20..));
}

async fn fit(store: &Store) {
    let key = fresh();
    let bytes = some(9, 500);
    assert_eq!(store.try_out(&key, &bytes, false).await.unwrap(), (Put::Created, Trial::Fit));
    assert_eq!(store.get(&key, 500).await.unwrap(), bytes);
    assert_eq!(store.try_out(&key, &some(10, 500), false).await.unwrap().0, Put::Other);
}

async fn lists(store: &Store, other: &Store) {
    use futures_util::StreamExt;
    let name = |n: usize| {
        let mut name = [0; 32];
        name[..8].copy_from_slice(&(n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
        Key::Index(SegmentName(name))
    };
    let before = store.meter().read();
    let puts = (0..LISTED).map(|n| async move { store.put_new(&name(n), some(11, 1 + n % 50)).await });
    let done: Vec<_> = futures_util::stream::iter(puts).buffer_unordered(AT_ONCE).collect().await;
    assert!(done.iter().all(|put| *put.as_ref().unwrap() == Put::Created));
    assert_eq!(store.meter().read().put - before.put, LISTED as u64);
    let (listed, junk) = other.list(Prefix::Index).await.unwrap();
    let mut wanted: Vec<_> = (0..LISTED).map(|n| (name(n), 1 + n as u64 % 50)).collect();
    wanted.sort();
    assert_eq!(listed.iter().map(|line| (line.key, line.size)).collect::<Vec<_>>(), wanted);
    assert!(junk.is_empty(), "{junk:?}");
    other.delete(&name(7)).await.unwrap();
    let (fewer, _) = store.list(Prefix::Index).await.unwrap();
    assert_eq!(fewer.len(), LISTED - 1);
    // Another prefix is another listing.
    assert!(store.list(Prefix::Snapshots).await.unwrap().0.is_empty());
}
