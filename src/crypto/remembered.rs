//! What slow functions gave before for the same input, in the tests alone: the simulation opens the same objects some ten
//! thousand times, and spent half of its time on that. What they give follows from their input, whoever asks.

use std::collections::{HashMap, HashSet};
use std::sync::{LazyLock, Mutex, PoisonError};

/// So many are remembered; then all are forgotten.
const MOST: usize = 1 << 16;

static VERIFIED: LazyLock<Mutex<HashSet<[u8; 32]>>> = LazyLock::new(Mutex::default);
static SHARED: LazyLock<Mutex<HashMap<[u8; 32], [u8; 32]>>> = LazyLock::new(Mutex::default);

/// A name for these parts, of which all but the last have one length.
fn name<const N: usize>(parts: [&[u8]; N]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(part);
    }
    *hasher.finalize().as_bytes()
}

/// Whether a signature holds; one that did is not tried again.
pub(super) fn verified(of: [&[u8]; 3], verify: impl FnOnce() -> bool) -> bool {
    let name = name(of);
    let known = || VERIFIED.lock().unwrap_or_else(PoisonError::into_inner);
    if known().contains(&name) {
        return true;
    }
    let holds = verify();
    if holds {
        let mut known = known();
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(name);
    }
    holds
}

/// A shared secret, made once.
pub(super) fn shared(of: [&[u8]; 2], make: impl FnOnce() -> [u8; 32]) -> [u8; 32] {
    let name = name(of);
    let known = || SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(shared) = known().get(&name) {
        return *shared;
    }
    let shared = make();
    let mut known = known();
    if known.len() >= MOST {
        known.clear();
    }
    known.insert(name, shared);
    shared
}
