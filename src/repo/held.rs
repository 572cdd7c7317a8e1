//! A secret that is held for longer than one opening, with the seeds that it gave: a passphrase then costs its time and
//! memory once, and not at every run of a daemon.
//!
//! A seed follows from the secret, the slot's salt and the parameters, and from nothing else; it is kept only if it opened
//! its slot, and used only for a slot with the same salt and parameters. So nothing can become stale: a slot that was made
//! anew has another salt, and whether a slot still counts is asked of the regions at every opening. Wiped when dropped.

use crate::base::SlotId;
use crate::crypto::{Argon2Params, Secret};
use crate::format::slot::{Slot, SlotKind};
use crate::unlock::Unlock;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A secret, and what it gave so far.
pub struct Held {
    secret: Unlock,
    seeds: Mutex<Vec<Seed>>,
}

struct Seed {
    slot: SlotId,
    salt: [u8; 32],
    params: Option<Argon2Params>,
    seed: Secret<32>,
}

impl Seed {
    fn is_of(&self, slot: &Slot) -> bool {
        self.slot == slot.id && self.salt == slot.salt && self.params == slot.argon2
    }
}

impl Held {
    /// Nothing was opened with it yet.
    pub fn new(secret: Unlock) -> Held {
        Held { secret, seeds: Mutex::default() }
    }

    /// The secret.
    pub fn secret(&self) -> &Unlock {
        &self.secret
    }

    /// The seed of a slot that it opened before.
    pub(super) fn known(&self, slot: &Slot) -> Option<Secret<32>> {
        self.seeds().iter().find(|seed| seed.is_of(slot)).map(|seed| seed.seed.clone())
    }

    /// Keeps the seed that opened a slot. Only that of a passphrase costs more than it is worth.
    pub(super) fn keep(&self, slot: &Slot, seed: &Secret<32>) {
        if slot.kind != Some(SlotKind::Passphrase) || self.known(slot).is_some() {
            return;
        }
        let new = Seed { slot: slot.id, salt: slot.salt, params: slot.argon2, seed: seed.clone() };
        let mut seeds = self.seeds();
        seeds.retain(|seed| seed.slot != slot.id);
        seeds.push(new);
    }

    /// Slots in the order in which they are to be tried: those that it opened before come first, so that what a hostile
    /// store plants beside them is not worked for again and again.
    pub(super) fn in_turn(&self, ids: BTreeSet<SlotId>) -> Vec<SlotId> {
        let known: BTreeSet<SlotId> = self.seeds().iter().map(|seed| seed.slot).collect();
        let (first, rest): (Vec<SlotId>, Vec<SlotId>) = ids.into_iter().partition(|id| known.contains(id));
        first.into_iter().chain(rest).collect()
    }

    fn seeds(&self) -> MutexGuard<'_, Vec<Seed>> {
        self.seeds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Held({:?})", self.secret)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{ConfigNo, Digest, RepoId};
    use crate::crypto::SigningKey;
    use crate::format::slot::Anchor;
    use zeroize::Zeroizing;

    fn slot(id: u8, kind: SlotKind, salt: u8, seed: &Secret<32>) -> Slot {
        let owner = SigningKey::from_seed(&Secret::from_bytes([9; 32])).verify_key();
        let (repo, anchor) = (RepoId([1; 16]), Anchor { owner, number: ConfigNo(0), digest: Digest::ZERO });
        let (object, _) = Slot::create(repo, SlotId([id; 16]), kind, [salt; 32], seed, &anchor);
        Slot::from_object(&object, &repo).unwrap()
    }

    #[test]
    fn a_seed_is_known_for_the_same_slot_only() {
        let held = Held::new(Unlock::Passphrase(Zeroizing::new("hunter2".into())));
        let seed = Secret::from_bytes([7; 32]);
        let one = slot(3, SlotKind::Passphrase, 1, &seed);
        assert!(held.known(&one).is_none());
        held.keep(&one, &seed);
        held.keep(&one, &seed);
        assert!(held.known(&one) == Some(seed.clone()) && held.seeds().len() == 1);
        // Made anew, with another salt or other parameters, or another slot altogether.
        let anew = slot(3, SlotKind::Passphrase, 2, &seed);
        let mut other = one.clone();
        other.argon2 = Some(Argon2Params { t: 4, ..Argon2Params::DEFAULT });
        assert!(
            [&anew, &other, &slot(2, SlotKind::Passphrase, 1, &seed)].iter().all(|slot| held.known(slot).is_none())
        );
        held.keep(&anew, &seed);
        assert!(held.known(&one).is_none() && held.seeds().len() == 1);
        held.keep(&slot(4, SlotKind::KeyFile, 1, &seed), &seed);
        assert_eq!(held.seeds().len(), 1, "that costs nothing");
        // What is known is tried first; all others still are.
        let ids = BTreeSet::from([1, 2, 3, 4].map(|n| SlotId([n; 16])));
        assert_eq!(held.in_turn(ids), [3, 1, 2, 4].map(|n| SlotId([n; 16])));
        assert!(!format!("{held:?}").contains("hunter"));
    }
}
