//! A store tried out on purpose: whether it keeps the contract, what its credentials may do, how quick it is.
//!
//! Everything is tried with probes: objects of a few hundred bytes under names that nobody else has, and that every
//! reader of a repository passes over. They are removed at the end; nothing else is deleted. Where that is refused, or
//! where versions are kept for good, one of them stays. What takes larger ones is tried only where nothing stays, or
//! when that is asked for.

use super::ask::{Ask, Lock, Versioning};
use super::bucket::Bucket;
use super::error::{StoreError, StoreErrorKind as Kind};
use super::{Backend, Ground, Key, Prefix, Put, Store, Transport};
use crate::base::{Cancel, Env, ProbeId};
use bytes::Bytes;
use futures_util::future::join_all;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// Creates of one key that race.
const RACERS: u8 = 4;
/// Reads whose median is the latency.
const READS: usize = 5;
/// Further puts for the same, where nothing stays of them.
const PUTS: u8 = 3;
/// Bytes of a small probe.
const SMALL_BYTES: usize = 512;
/// How long the probes may take to go.
const TIDY_TIME: Duration = Duration::from_secs(30);
/// How often an interruption is looked for.
const LOOK: Duration = Duration::from_millis(100);

/// How a store is examined.
#[derive(Debug, Clone)]
pub struct Examination {
    /// What the names of its probes are made of; the last byte numbers them.
    pub name: [u8; ProbeId::LEN],
    /// Bytes of the large probe.
    pub large_bytes: usize,
    /// Whether the large one is made even where something of it stays.
    pub throughput: bool,
    /// All in all it takes at most so long.
    pub limit: Duration,
    /// One store at a time: they share the way to them.
    pub turn: Arc<tokio::sync::Mutex<()>>,
}

/// What a step showed; `None`: it was not made.
pub type Tried<T> = Option<Result<T, StoreError>>;

/// What creates of one key showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Creates {
    /// Of several at once, how many were told that it was theirs.
    pub winners: usize,
    /// Whether one more, afterwards, replaced it.
    pub replaced: bool,
}

/// What a deletion showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    /// The object is not shown any more.
    Gone,
    /// It still is.
    Stays,
}

/// So many bytes in so long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Bytes.
    pub bytes: u64,
    /// Time.
    pub time: Duration,
}

impl Rate {
    /// Bytes a second.
    pub fn per_second(self) -> u64 {
        let ms = self.time.as_millis().max(1);
        u64::try_from(u128::from(self.bytes) * 1000 / ms).unwrap_or(u64::MAX)
    }
}

/// What a store showed.
#[derive(Debug, Default)]
pub struct Examined {
    /// How it is reached; of a bucket.
    pub transport: Option<Transport>,
    /// Where its URL allows an old version of TLS: whether it knows a newer one.
    pub knows_newer: Option<bool>,
    /// What it stands on; of a folder.
    pub ground: Option<Ground>,
    /// How long the first listing took, with the connection.
    pub first: Tried<Duration>,
    /// Probes of others that were there.
    pub found: usize,
    /// Creates of one key.
    pub create: Tried<Creates>,
    /// Whether what was created was read back; where nothing could be, whether anything may be read.
    pub read: Tried<bool>,
    /// Whether a part of it was.
    pub range: Tried<bool>,
    /// Whether it was listed at once.
    pub listed: Tried<bool>,
    /// Whether the bucket keeps old versions.
    pub versioning: Tried<Versioning>,
    /// Whether it locks new objects.
    pub lock: Tried<Lock>,
    /// Deletion of a probe.
    pub delete: Tried<Deletion>,
    /// Deletion of a version of it, for good.
    pub delete_version: Tried<()>,
    /// How far its clock is ahead of ours, ms: at least, at most.
    pub ahead_ms: Option<(i64, i64)>,
    /// Times of small reads.
    pub reads: Vec<Duration>,
    /// Times of small puts.
    pub puts: Vec<Duration>,
    /// A large put; none: it took too long.
    pub put_rate: Tried<Option<Rate>>,
    /// A large read.
    pub get_rate: Tried<Option<Rate>>,
    /// Whether it took too long as a whole, or was interrupted.
    pub cut_short: bool,
    /// Probes that are still shown.
    pub left: Vec<String>,
    /// Whether versions of probes stay, which are not shown.
    pub versions_left: bool,
}

impl Store {
    /// Examines it.
    pub async fn examine(&self, how: &Examination, env: &Env, cancel: &Cancel) -> Examined {
        let mut trial = Trial { store: self, how, made: Vec::new(), found: Examined::default() };
        match &self.backend {
            Backend::Folder(folder) => trial.found.ground = folder.ground(),
            Backend::Bucket(bucket) => trial.found.transport = Some(bucket.transport.clone()),
            #[cfg(feature = "testing")]
            Backend::StandIn(_) => {}
        }
        let ended = tokio::select! {
            ended = timeout(how.limit, trial.all(env)) => ended.is_ok(),
            () = raised(cancel) => false,
        };
        trial.found.cut_short = !ended;
        if timeout(TIDY_TIME, trial.tidy()).await.is_err() {
            trial.found.cut_short = true;
            trial.found.left = trial.made.iter().map(Key::path).collect();
        }
        if let Backend::Bucket(bucket) = &self.backend {
            trial.found.ahead_ms = bucket.heard.ahead(env.now());
        }
        trial.found
    }
}

async fn raised(cancel: &Cancel) {
    while !cancel.raised() {
        sleep(LOOK).await;
    }
}

/// The small probe, of one length in all variants. Whoever finds one that stayed can read what it is.
fn small(variant: u8) -> Bytes {
    let text =
        format!("A probe of `holdfast doctor`, number {variant}. It is of no use any more and may be deleted.\n");
    let mut bytes = text.into_bytes();
    bytes.resize(SMALL_BYTES, b'.');
    bytes.into()
}

/// A larger one, of bytes that nothing on the way makes smaller.
fn large(name: &[u8], len: usize) -> Bytes {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(name).finalize_xof().fill(&mut bytes);
    bytes.into()
}

/// An examination under way.
struct Trial<'s> {
    store: &'s Store,
    how: &'s Examination,
    /// Probes that may be there.
    made: Vec<Key>,
    found: Examined,
}

impl Trial<'_> {
    fn key(&self, number: u8) -> Key {
        let mut name = self.how.name;
        name[ProbeId::LEN - 1] = number;
        Key::Probe(ProbeId(name))
    }

    fn bucket(&self) -> Option<&Bucket> {
        match &self.store.backend {
            Backend::Bucket(bucket) => Some(bucket),
            Backend::Folder(_) => None,
            #[cfg(feature = "testing")]
            Backend::StandIn(_) => None,
        }
    }

    async fn all(&mut self, env: &Env) {
        let first = self.key(0);
        if !self.reach().await {
            return;
        }
        let stands = self.create(first).await;
        self.read(first, stands.as_ref()).await;
        self.ask().await;
        if stands.is_some() {
            self.list(first, env).await;
            self.delete(first).await;
        }
        let gone = matches!(self.found.delete, Some(Ok(Deletion::Gone))) && !self.found.versions_left;
        if stands.is_some() && (gone || self.how.throughput) {
            self.measure().await;
        }
    }

    /// The first request; whether it makes sense to go on.
    async fn reach(&mut self) -> bool {
        let begin = Instant::now();
        let listed = self.store.list(Prefix::Probe).await;
        self.found.found = listed.as_ref().map_or(0, |(known, _)| known.len());
        let first = listed.map(|_| begin.elapsed());
        let go_on = first.as_ref().map_or_else(|e| e.kind == Kind::Denied, |_| true);
        self.found.first = Some(first);
        go_on
    }

    /// Creates it several times at once, and once more; what stands there afterwards, as far as that can be known.
    async fn create(&mut self, key: Key) -> Option<Bytes> {
        self.made.push(key);
        let store = self.store;
        let racing = (1..=RACERS).map(|variant| async move {
            let begin = Instant::now();
            let put = store.put_new(&key, small(variant)).await;
            (variant, put, begin.elapsed())
        });
        let (mut won, mut refused) = (Vec::new(), None);
        for (variant, put, time) in join_all(racing).await {
            match put {
                Ok(Put::Created | Put::Same) => won.push((variant, time)),
                Ok(Put::Other) => {}
                Err(e) => refused = Some(e),
            }
        }
        if let (true, Some(e)) = (won.is_empty(), refused) {
            self.found.create = Some(Err(e));
            return None;
        }
        let again = match self.store.put_new(&key, small(0)).await {
            Ok(put) => put != Put::Other,
            Err(e) => {
                self.found.create = Some(Err(e));
                return None;
            }
        };
        self.found.puts.extend(won.first().map(|(_, time)| *time));
        self.found.create = Some(Ok(Creates { winners: won.len(), replaced: again }));
        Some(match (again, &won[..]) {
            (true, _) => small(0),
            (false, [(variant, _), ..]) => small(*variant),
            // Nobody was told that it was his: one of them stands there all the same.
            (false, []) => small(0),
        })
    }

    /// Reads what was created, and how quickly; where nothing was, whether reading is allowed at all.
    async fn read(&mut self, key: Key, stands: Option<&Bytes>) {
        let Some(stands) = stands else {
            // Whatever is there, or not: who may not read is told so.
            let read = self.store.size(&Key::Region).await;
            self.found.read = Some(match read {
                Err(e) if e.kind != Kind::NotFound => Err(e),
                _ => Ok(true),
            });
            return;
        };
        for _ in 0..READS {
            let begin = Instant::now();
            let read = self.store.get(&key, SMALL_BYTES as u64).await;
            self.found.reads.extend(read.is_ok().then(|| begin.elapsed()));
            let same = read.map(|bytes| bytes == *stands);
            let good = matches!(same, Ok(true));
            if !matches!(self.found.read, Some(Err(_) | Ok(false))) {
                self.found.read = Some(same);
            }
            if !good {
                break;
            }
        }
        let (offset, len) = (SMALL_BYTES as u64 / 2, 100);
        let part = self.store.get_range(&key, offset, len).await;
        self.found.range = Some(part.map(|part| part == stands.slice(SMALL_BYTES / 2..SMALL_BYTES / 2 + 100)));
    }

    async fn list(&mut self, key: Key, env: &Env) {
        let begin = env.now();
        let listed = self.store.list(Prefix::Probe).await;
        self.found.listed = Some(listed.map(|(known, _)| {
            let line = known.iter().find(|line| line.key == key && line.size == SMALL_BYTES as u64);
            // A folder has no other clock to show than the times of its files.
            if let (Some(line), None) = (line, self.bucket()) {
                let made = self.found.puts.iter().chain(&self.found.reads).sum::<Duration>();
                let ahead = line.modified.saturating_sub(begin.0);
                let slack = i64::try_from(made.as_millis()).unwrap_or(i64::MAX).saturating_add(1000);
                self.found.ahead_ms = Some((ahead, ahead.saturating_add(slack)));
            }
            line.is_some()
        }));
    }

    /// What the bucket says of itself.
    async fn ask(&mut self) {
        let Some(bucket) = self.bucket() else { return };
        let strange = |what: &str| StoreError::new(Kind::Failed, "ask for", what, "its answer is not understood");
        let versioning = bucket
            .ask(&Ask::Versioning)
            .await
            .map(|said| said.and_then(|answer| Versioning::read(&answer.text).ok_or_else(|| strange("versioning"))));
        let lock = bucket.ask(&Ask::ObjectLock).await.map(|said| match said {
            Ok(answer) => Lock::read(&answer.text).ok_or_else(|| strange("object lock")),
            // That is how a bucket says that it was made without.
            Err(e) if e.kind == Kind::NotFound => Ok(Lock::Off),
            Err(e) => Err(e),
        });
        (self.found.versioning, self.found.lock) = (versioning, lock);
    }

    /// Deletes a probe: first as anybody would, then the version that may be behind it.
    async fn delete(&mut self, key: Key) {
        let (deleted, version) = remove(self.store, &key).await;
        let stays = match &deleted {
            Ok(()) => match self.store.size(&key).await {
                Ok(_) => Ok(Deletion::Stays),
                Err(e) if e.kind == Kind::NotFound => Ok(Deletion::Gone),
                Err(e) => Err(e),
            },
            Err(e) => Err(e.clone()),
        };
        if matches!(stays, Ok(Deletion::Gone)) {
            self.made.retain(|made| *made != key);
        }
        self.found.delete = Some(stays);
        self.found.versions_left |= matches!(version, Some(Err(_)));
        self.found.delete_version = version;
    }

    /// How quick it is, with further probes.
    async fn measure(&mut self) {
        let _turn = self.how.turn.lock().await;
        for number in 1..=PUTS {
            let (key, begin) = (self.key(number), Instant::now());
            self.made.push(key);
            let put = self.store.put_new(&key, small(number)).await;
            self.found.puts.extend(put.is_ok().then(|| begin.elapsed()));
        }
        let (key, bytes) = (self.key(PUTS + 1), large(&self.how.name, self.how.large_bytes));
        let rate = |begin: Instant| Rate { bytes: self.how.large_bytes as u64, time: begin.elapsed() };
        let limit = self.how.limit / 4;
        self.made.push(key);
        let begin = Instant::now();
        let put = timeout(limit, self.store.put_new(&key, bytes.clone())).await;
        self.found.put_rate = Some(match put {
            Ok(put) => put.map(|_| Some(rate(begin))),
            Err(_) => Ok(None),
        });
        if !matches!(self.found.put_rate, Some(Ok(Some(_)))) {
            return;
        }
        let begin = Instant::now();
        let got = timeout(limit, self.store.get(&key, bytes.len() as u64)).await;
        self.found.get_rate = Some(match got {
            Ok(got) => got.map(|_| Some(rate(begin))),
            Err(_) => Ok(None),
        });
    }

    /// Removes what is left of the probes, as far as that is allowed.
    async fn tidy(&mut self) {
        let refused = matches!(&self.found.delete, Some(Err(e)) if e.kind == Kind::Denied);
        for key in self.made.clone() {
            let stays = refused || {
                let (deleted, version) = remove(self.store, &key).await;
                self.found.versions_left |= matches!(version, Some(Err(_)));
                deleted.is_err()
            };
            if !stays || matches!(self.store.size(&key).await, Err(e) if e.kind == Kind::NotFound) {
                self.made.retain(|made| *made != key);
            }
        }
        self.found.left = self.made.iter().map(Key::path).collect();
        if let Backend::Folder(folder) = &self.store.backend {
            folder.tidy();
        }
    }
}

/// Deletes an object of ours; where versions are kept, also the one that was shown, and what hides it. `None`: there
/// are no versions, as far as is known.
async fn remove(store: &Store, key: &Key) -> (Result<(), StoreError>, Tried<()>) {
    let shown = match &store.backend {
        Backend::Bucket(bucket) => bucket.version(key).await.ok().map(|(path, version)| (bucket, path, version)),
        Backend::Folder(_) => None,
        #[cfg(feature = "testing")]
        Backend::StandIn(_) => None,
    };
    let Some((bucket, path, Some(version))) = shown else { return (store.delete(key).await, None) };
    let Some(hidden) = bucket.ask(&Ask::Delete(path.clone())).await else { return (store.delete(key).await, None) };
    let Some(deleted) = bucket.ask(&Ask::DeleteVersion(path.clone(), version)).await else {
        return (hidden.map(|_| ()), None);
    };
    if let (Ok(answer), Ok(_)) = (&hidden, &deleted)
        && let Some(marker) = answer.version.clone()
    {
        // What hides nothing any more; if it stays, it is in nobody's way.
        let _ = bucket.ask(&Ask::DeleteVersion(path, marker)).await;
    }
    // Who may remove the version needs no leave to hide it.
    let gone = if deleted.is_ok() { Ok(()) } else { hidden.map(|_| ()) };
    (gone, Some(deleted.map(|_| ())))
}
