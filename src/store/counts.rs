//! How many requests were made of a store, by kind: they are what an object store charges for.

use super::circuit::{Circuit, State};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::time::Instant;

/// The kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// An object is stored.
    Put,
    /// An object, or a part of it, is read.
    Get,
    /// An object's size is asked for.
    Head,
    /// A page of a listing.
    List,
    /// An object is removed.
    Delete,
}

/// Requests so far. A request that was made again counts again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Requests {
    /// Objects stored.
    pub put: u64,
    /// Objects, or parts of them, read.
    pub get: u64,
    /// Sizes asked for.
    pub head: u64,
    /// Pages of listings.
    pub list: u64,
    /// Objects removed.
    pub delete: u64,
    /// Calls made again after a failure; each made at least one of the requests above, or tried to.
    pub retries: u64,
    /// How the breaker is.
    pub circuit: State,
    /// How often it opened.
    pub opened: u64,
}

impl std::ops::AddAssign for Requests {
    fn add_assign(&mut self, other: Requests) {
        self.put += other.put;
        self.get += other.get;
        self.head += other.head;
        self.list += other.list;
        self.delete += other.delete;
        self.retries += other.retries;
        // Of several clients of one region, one that does not get through is what is told.
        self.circuit = if other.circuit == State::Closed { self.circuit } else { other.circuit };
        self.opened += other.opened;
    }
}

/// The counters of one store, readable while it works and afterwards.
#[derive(Debug, Clone)]
pub struct Meter(pub(super) Arc<Counts>);

impl Meter {
    /// Whether somebody who could ask another region should ask this one now; once it was away for a while, one is told to.
    pub fn worth_asking(&self) -> bool {
        self.0.circuit.worth_asking(Instant::now())
    }

    /// Whether another region should be asked first, and whether nothing at all came from this one when it was asked last.
    pub fn is_away(&self) -> (bool, bool) {
        self.0.circuit.look(Instant::now())
    }

    /// Requests so far.
    pub fn read(&self) -> Requests {
        self.0.read()
    }

    /// Whether nobody counts any more.
    pub fn is_over(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }
}

/// The counters of one store.
#[derive(Debug, Default)]
pub struct Counts {
    by_kind: [AtomicU64; 5],
    retries: AtomicU64,
    pub(super) circuit: Circuit,
}

impl Counts {
    pub(super) fn add(&self, request: Request) {
        self.by_kind[request as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn add_retry(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> Requests {
        let (circuit, opened) = self.circuit.read();
        let of = |request: Request| self.by_kind[request as usize].load(Ordering::Relaxed);
        Requests {
            put: of(Request::Put),
            get: of(Request::Get),
            head: of(Request::Head),
            list: of(Request::List),
            delete: of(Request::Delete),
            retries: self.retries.load(Ordering::Relaxed),
            circuit,
            opened,
        }
    }
}
