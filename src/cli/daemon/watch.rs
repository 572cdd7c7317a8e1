//! Whether the files of the configuration are others than before. They are looked at, not subscribed to: that sees
//! links that are swapped, as clusters do, and works on every file system.

use crate::base::{Digest, Env};
use crate::cli::configuration::look;
use std::path::Path;

/// How often it is looked, at the most.
const LOOK_MS: i64 = 2_000;
/// Of the time at most a share of this is spent on looking.
const SHARE: i64 = 250;

/// Watches.
pub struct Watch<'c> {
    path: Option<&'c Path>,
    /// The files as they are in force.
    taken: Option<Digest>,
    /// As they were when last looked at.
    seen: Option<Digest>,
    next: i64,
}

impl<'c> Watch<'c> {
    /// Begins; the files are to be read after this.
    pub fn new(path: Option<&'c Path>) -> Watch<'c> {
        let taken = look(path);
        Watch { path, taken, seen: taken, next: i64::MIN }
    }

    /// Milliseconds until it is to be looked again.
    pub fn wait_ms(&self, env: &Env) -> i64 {
        self.next.saturating_sub(env.steady()).clamp(1, LOOK_MS * SHARE)
    }

    /// Whether the files are others now, and have been so for one look: nobody is just writing them.
    pub fn changed(&mut self, env: &Env) -> bool {
        let begin = env.steady();
        if begin < self.next {
            return false;
        }
        let now = look(self.path);
        let end = env.steady();
        self.next = end.saturating_add(LOOK_MS.max((end - begin).saturating_mul(SHARE)));
        let still = std::mem::replace(&mut self.seen, now) == now;
        still && now != self.taken
    }

    /// What is read now counts as taken, whatever comes of it; whether it was still the same after `read`.
    pub fn taking<T>(&mut self, read: impl FnOnce() -> T) -> (T, bool) {
        self.taken = look(self.path);
        let value = read();
        (value, look(self.path) == self.taken)
    }
}
