//! A bucket of an object store: what is asked of it, how often, and what its answers mean.
//!
//! Every attempt is signed anew. What may pass by itself is tried again with growing, random pauses until a deadline;
//! a store that asks to be left alone is, by all who want something of it. Creates are conditional, and one that may
//! have been made by an attempt whose answer was lost is looked at before it is believed.

use super::ask::{Answer, Ask, Asker};
use super::connect::{Client, Connected};
use super::counts::Counts;
use super::error::{StoreError, StoreErrorKind as Kind};
use super::heard::{Heard, Transport};
use super::key::{Key, Prefix};
use super::verdict::{Verdict, judge};
use super::wire::{SEEN, Seen};
use super::{Found, Patience};
use bytes::Bytes;
use futures_util::StreamExt;
use object_store::list::PaginatedListOptions;
use object_store::path::Path as ObjectPath;
use object_store::{GetOptions, GetRange, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use std::collections::HashSet;
use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout};

/// The first pause is about this long, each further one twice as long.
const PAUSE_FIRST: Duration = Duration::from_millis(200);
/// And none longer than this, unless the store asks for it.
const PAUSE_MAX: Duration = Duration::from_secs(8);
/// Keys in a page of a listing, as all services have it.
const PAGE_KEYS: usize = 1000;

/// Pages without a key that follow one another, as a store shows them that steps over what was deleted.
const EMPTY_PAGES_MAX: usize = 10_000;

/// A prefix of a bucket.
pub(super) struct Bucket {
    client: Arc<dyn Client>,
    pub(super) asker: Option<Asker>,
    /// How it is reached.
    pub(super) transport: Transport,
    /// What its answers said in passing.
    pub(super) heard: Arc<Heard>,
    /// Empty, or with a slash at its end.
    prefix: String,
    counts: Arc<Counts>,
    patience: Patience,
    /// Whether it can start a listing behind a key.
    lists_from: bool,
    /// Whether it ever answered: who never did is not waited for as long.
    answered: AtomicBool,
    /// Nothing is asked of it before this.
    not_before: Mutex<Option<Instant>>,
}

impl std::fmt::Debug for Bucket {
    /// Clients hold secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bucket").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl Bucket {
    pub(super) fn new(connected: Connected, prefix: &str, counts: Arc<Counts>, patience: Patience) -> Bucket {
        Bucket {
            client: connected.client,
            asker: connected.asker,
            transport: connected.transport,
            heard: connected.heard,
            prefix: if prefix.is_empty() { String::new() } else { format!("{prefix}/") },
            counts,
            patience,
            lists_from: connected.lists_from,
            answered: AtomicBool::new(false),
            not_before: Mutex::default(),
        }
    }

    fn path(&self, key: &Key) -> ObjectPath {
        ObjectPath::from(format!("{}{}", self.prefix, key.path()))
    }

    /// Whether it was created; if not, something stands there, perhaps by an attempt of ours whose answer was lost.
    pub(super) async fn create(&self, key: &Key, bytes: &Bytes) -> Result<bool, StoreError> {
        let path = self.path(key);
        let object = key.path();
        self.patiently("create", &object, || async {
            let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
            match self.client.put_opts(&path, PutPayload::from_bytes(bytes.clone()), options).await {
                Ok(_) => Ok(true),
                Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => Ok(false),
                Err(e) => Err(Attempt::Store(e)),
            }
        })
        .await
    }

    /// Puts an object at its key, whatever stands there. Says whether the store keeps what stood there, as an older
    /// version.
    pub(super) async fn replace(&self, key: &Key, bytes: &Bytes) -> Result<bool, StoreError> {
        let path = self.path(key);
        let object = key.path();
        self.patiently("replace", &object, || async {
            let payload = PutPayload::from_bytes(bytes.clone());
            let put = self.client.put_opts(&path, payload, PutOptions::default()).await?;
            Ok(put.version.is_some_and(|version| version != "null"))
        })
        .await
    }

    pub(super) async fn get(&self, key: &Key, len_max: u64) -> Result<Bytes, StoreError> {
        let (path, object) = (self.path(key), key.path());
        self.patiently("read", &object, || async {
            let answer = self.client.get_opts(&path, GetOptions::default()).await?;
            let size = answer.meta.size;
            if size > len_max {
                return Err(Attempt::Final(StoreError::too_long(&object)));
            }
            collect(answer, size, &object).await
        })
        .await
    }

    pub(super) async fn get_range(&self, key: &Key, offset: u64, len: u64) -> Result<Bytes, StoreError> {
        let (path, object) = (self.path(key), key.path());
        let range = offset..offset.saturating_add(len);
        self.patiently("read", &object, || async {
            let options = GetOptions { range: Some(GetRange::Bounded(range.clone())), ..GetOptions::default() };
            let answer = self.client.get_opts(&path, options).await?;
            let got = answer.range.end.saturating_sub(answer.range.start);
            if answer.range.start != range.start || got < len {
                return Err(Attempt::Final(StoreError::short(&object)));
            }
            collect(answer, len, &object).await
        })
        .await
    }

    pub(super) async fn size(&self, key: &Key) -> Result<u64, StoreError> {
        let (path, object) = (self.path(key), key.path());
        self.patiently("stat", &object, || async { Ok(self.client.head(&path).await?.size) }).await
    }

    pub(super) async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        let (path, object) = (self.path(key), key.path());
        let deleted = self.patiently("delete", &object, || async { Ok(self.client.delete(&path).await?) }).await;
        // Of an object that is not there, services and their clients say that in several ways.
        match deleted {
            Err(e) if e.kind == Kind::NotFound => Ok(()),
            Err(e) if e.kind == Kind::Failed => match self.size(key).await {
                Err(there) if there.kind == Kind::NotFound => Ok(()),
                _ => Err(e),
            },
            other => other,
        }
    }

    /// Everything under a prefix, page by page.
    pub(super) async fn list(&self, prefix: Prefix) -> Result<Vec<Found>, StoreError> {
        let below = format!("{}{}/", self.prefix, prefix.path());
        let mut all = Vec::new();
        let mut from = Begin::default();
        let mut tokens = HashSet::new();
        let mut empty = 0;
        loop {
            let options = from.options();
            let page = self.page(prefix.path(), &below, options).await?;
            let found = page.result.objects;
            let (full, last) = (found.len() >= PAGE_KEYS, found.last().map(|meta| meta.location.to_string()));
            empty = if found.is_empty() { empty + 1 } else { 0 };
            all.extend(found.into_iter().filter_map(|meta| {
                // The others are marks of folders, as consoles make them.
                let path = meta.location.as_ref().strip_prefix(&self.prefix)?.to_owned();
                let inside = path.len() > prefix.path().len();
                inside.then(|| Found { path, size: meta.size, modified: meta.last_modified.timestamp_millis() })
            }));
            from = match (page.page_token, last) {
                // A listing that never ends must not be waited for, nor kept in memory.
                (Some(token), _) if empty > EMPTY_PAGES_MAX || !tokens.insert(token.clone()) => {
                    return Err(StoreError::new(Kind::Failed, "list", prefix.path(), "its pages lead in a circle"));
                }
                (Some(token), _) => Begin { token: Some(token), ..Begin::default() },
                // A store that forgets to say that there is more would hide objects: that is asked for.
                (None, Some(last)) if full && self.lists_from => Begin { behind: Some(last), ..Begin::default() },
                (None, _) => break,
            };
        }
        all.sort_by(|a, b| a.path.cmp(&b.path));
        all.dedup_by(|a, b| a.path == b.path);
        Ok(all)
    }

    /// A name at the top that is none of `ours`.
    pub(super) async fn stranger(&self, ours: &[&str]) -> Result<Option<String>, StoreError> {
        let options = PaginatedListOptions { delimiter: Some("/".into()), ..PaginatedListOptions::default() };
        let page = self.page("everything", &self.prefix, options).await?.result;
        let paths = page.common_prefixes.iter().chain(page.objects.iter().map(|meta| &meta.location));
        let names = paths.filter_map(|path| path.as_ref().strip_prefix(&self.prefix));
        let mut strange = names.filter(|name| !name.is_empty() && !ours.contains(name));
        Ok(strange.next().map(str::to_owned))
    }

    /// Whether the service has such requests.
    pub(super) fn asks(&self) -> bool {
        self.asker.is_some()
    }

    /// Asks what the client does not; `None` where the service has no such request.
    pub(super) async fn ask(&self, ask: &Ask) -> Option<Result<Answer, StoreError>> {
        let asker = self.asker.as_ref()?;
        let (action, object) = ask.words();
        Some(self.patiently(action, object, || async { Ok(asker.send(ask).await?) }).await)
    }

    /// Where an object lies in the bucket, and the version that is shown of it, where there are several.
    pub(super) async fn version(&self, key: &Key) -> Result<(String, Option<String>), StoreError> {
        let (path, object) = (self.path(key), key.path());
        let meta = self.patiently("stat", &object, || async { Ok(self.client.head(&path).await?) }).await?;
        // An object that is older than the bucket's versions is called so.
        Ok((path.to_string(), meta.version.filter(|version| version != "null")))
    }

    async fn page(
        &self,
        what: &str,
        below: &str,
        options: PaginatedListOptions,
    ) -> Result<object_store::list::PaginatedListResult, StoreError> {
        let below = Some(below).filter(|below| !below.is_empty());
        let page = || async { Ok(self.client.list_paginated(below, options.clone()).await?) };
        self.patiently("list", what, page).await.map_err(|e| match e.kind {
            // A prefix without objects is an empty listing; only a bucket can be missing.
            Kind::NotFound => StoreError::new(Kind::NoBucket, "list", what, "there is no such bucket"),
            _ => e,
        })
    }

    /// Makes attempts until one succeeds, fails for good, or the deadline is over.
    pub(super) async fn patiently<T, F>(
        &self,
        action: &'static str,
        object: &str,
        attempt: impl Fn() -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, Attempt>>,
    {
        let begin = Instant::now();
        let circuit = &self.counts.circuit;
        let mut pause = PAUSE_FIRST;
        loop {
            self.wait_until_allowed().await;
            let seen = Arc::new(Seen::default());
            let done = timeout(self.patience.attempt, SEEN.scope(Arc::clone(&seen), attempt())).await;
            let verdict = match done {
                Ok(Ok(value)) => {
                    self.answered.store(true, Ordering::Relaxed);
                    circuit.answered();
                    return Ok(value);
                }
                Ok(Err(Attempt::Final(e))) => {
                    circuit.answered();
                    return Err(e);
                }
                Ok(Err(Attempt::Store(e))) => judge(&e, seen.take()),
                Err(_) => Verdict::too_slow(self.patience.attempt),
            };
            let asked = verdict.retry_after.unwrap_or_default();
            let wait = jittered(pause).max(asked);
            let patience = self.patience_for(verdict.kind);
            if !verdict.again || begin.elapsed().saturating_add(wait) > patience {
                match verdict.kind {
                    Kind::Unreachable | Kind::TimedOut | Kind::Throttled => circuit.failed(Instant::now(), true),
                    Kind::Failed if verdict.again => circuit.failed(Instant::now(), false),
                    _ => circuit.answered(),
                }
                return Err(verdict.error(action, object));
            }
            let end = Instant::now() + wait;
            if asked > Duration::ZERO {
                let mut not_before = self.not_before.lock().unwrap_or_else(PoisonError::into_inner);
                *not_before = Some(not_before.map_or(end, |before| before.max(end)));
            }
            self.counts.add_retry();
            sleep_until(end).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// How long one call is tried for.
    fn patience_for(&self, kind: Kind) -> Duration {
        match kind {
            Kind::Unreachable => self.patience.unreachable,
            _ if !self.answered.load(Ordering::Relaxed) => self.patience.unreachable,
            _ => self.patience.retry,
        }
    }

    async fn wait_until_allowed(&self) {
        let end = *self.not_before.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(end) = end {
            sleep_until(end).await;
        }
    }
}

/// Where the next page begins.
#[derive(Debug, Default)]
struct Begin {
    token: Option<String>,
    behind: Option<String>,
}

impl Begin {
    fn options(&self) -> PaginatedListOptions {
        PaginatedListOptions {
            page_token: self.token.clone(),
            offset: self.behind.clone(),
            ..PaginatedListOptions::default()
        }
    }
}

/// Why an attempt failed.
pub(super) enum Attempt {
    /// What the client says.
    Store(object_store::Error),
    /// What another attempt would not change.
    Final(StoreError),
}

impl From<object_store::Error> for Attempt {
    fn from(e: object_store::Error) -> Attempt {
        Attempt::Store(e)
    }
}

/// Exactly so many bytes of an answer.
async fn collect(answer: object_store::GetResult, len: u64, object: &str) -> Result<Bytes, Attempt> {
    let mut bytes = Vec::with_capacity(usize::try_from(len).unwrap_or_default());
    let mut stream = answer.into_stream();
    while let Some(part) = stream.next().await {
        bytes.extend_from_slice(&part?);
        if bytes.len() as u64 > len {
            return Err(Attempt::Final(StoreError::too_long(object)));
        }
    }
    match bytes.len() as u64 == len {
        true => Ok(bytes.into()),
        false => Err(Attempt::Final(StoreError::short(object))),
    }
}

/// Between half of it and all of it, so that many do not come back at once.
fn jittered(pause: Duration) -> Duration {
    // Its keys are random; nothing is derived from this but a pause.
    let random = RandomState::new().hash_one(0u8) % 1000;
    pause / 2 + pause / 2 * (random as u32) / 1000
}
