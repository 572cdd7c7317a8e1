//! What slow functions gave before for the same input, in the tests alone: the simulation opens the same objects some ten
//! thousand times, and spent half of its time on that. What they give follows from their input, whoever asks.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

/// So many are remembered; then all are forgotten.
const MOST: usize = 1 << 16;

type Memory<T> = LazyLock<Mutex<HashMap<[u8; 32], T>>>;

static VERIFIED: Memory<bool> = LazyLock::new(Mutex::default);
static SHARED: Memory<[u8; 32]> = LazyLock::new(Mutex::default);

/// What was made of these parts, of which all but the last have one length; made now, and kept if it is worth it, where it is
/// not known.
fn recall<T: Copy>(memory: &Memory<T>, of: &[&[u8]], make: impl FnOnce() -> T, keep: fn(&T) -> bool) -> T {
    let mut hasher = blake3::Hasher::new();
    for part in of {
        hasher.update(part);
    }
    let name = *hasher.finalize().as_bytes();
    let known = || memory.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(before) = known().get(&name) {
        return *before;
    }
    let made = make();
    if keep(&made) {
        let mut known = known();
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(name, made);
    }
    made
}

/// Whether a signature holds; one that did is not tried again.
pub(super) fn verified(of: [&[u8]; 3], verify: impl FnOnce() -> bool) -> bool {
    recall(&VERIFIED, &of, verify, |holds| *holds)
}

/// A shared secret, made once.
pub(super) fn shared(of: [&[u8]; 2], make: impl FnOnce() -> [u8; 32]) -> [u8; 32] {
    recall(&SHARED, &of, make, |_| true)
}
