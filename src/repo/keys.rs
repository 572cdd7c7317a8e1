//! Adding and removing key slots: each is the next number of the chain of configurations, written for
//! every slot without the slots' secrets.

use super::Repo;
use super::init::{MadeSlot, NewSecret, make_slot, wrap_randomness};
use super::open::{SLOT_BYTES_MAX, open_slot_object, slot_ids};
use super::view::View;
use crate::base::{ConfigNo, Digest, KeyEpoch, SlotId, TimeMs};
use crate::crypto::Secret;
use crate::error::{Error, Kind, Result};
use crate::format::FormatError;
use crate::format::config::{Config, Next};
use crate::format::ring::{EpochKey, Keyring, SlotEntry};
use crate::format::slot::{Anchor, SlotKind};
use crate::region::{self, RegionSet};
use crate::store::{Key, Prefix, Put};
use bytes::Bytes;

/// A slot for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotInfo {
    /// Slot.
    pub id: SlotId,
    /// `passphrase`, `key-file`, `recovery-key`.
    pub kind: &'static str,
    /// Its label.
    pub label: String,
    /// When it was added.
    pub created: TimeMs,
    /// Whether it opened the repository just now.
    pub current: bool,
}

/// The slots in force.
pub fn list(repo: &Repo) -> Vec<SlotInfo> {
    let info = |slot: &SlotEntry| SlotInfo {
        id: slot.id,
        kind: SlotKind::from_id(slot.kind).map_or("unknown", SlotKind::name),
        label: slot.label.clone(),
        created: TimeMs(slot.created),
        current: slot.id == repo.slot,
    };
    repo.ring.slots.iter().map(info).collect()
}

/// Whether the configuration in force lists this slot.
pub fn is_listed(repo: &Repo, id: SlotId) -> bool {
    repo.ring.slots.iter().any(|slot| slot.id == id)
}

/// Slot objects that no longer open anything.
pub fn removed(repo: &Repo) -> Vec<SlotId> {
    let lists = repo.regions.list_all(repo.usable(), Prefix::Keys);
    slot_ids(&lists).into_keys().filter(|id| !is_listed(repo, *id)).collect()
}

/// What the configuration in force, or having been opened with it, says of the object of a slot.
fn bound(repo: &Repo, id: SlotId) -> Option<Digest> {
    let listed = repo.ring.slots.iter().find(|slot| slot.id == id).and_then(|slot| slot.object);
    listed.or((id == repo.slot).then_some(repo.slot_digest))
}

/// Whether these bytes are the slot of this id. A slot has no signature: a listed one is the one that the configuration names.
///
/// # Errors
/// As [`open_slot_object`], and another one than is listed.
pub fn check_slot(repo: &Repo, id: SlotId, bytes: &[u8]) -> std::result::Result<(), FormatError> {
    let slot = open_slot_object(bytes, &repo.id, id)?;
    match bound(repo, id) {
        Some(digest) if digest != slot.digest => Err(FormatError::Unsigned("not the key slot that is listed")),
        _ => Ok(()),
    }
}

/// Whether regions show different slots of one id, and nothing says which is right; recorded. Only those of older
/// repositories can be.
pub fn is_disputed(repo: &Repo, id: SlotId, among: RegionSet) -> bool {
    if bound(repo, id).is_some() {
        return false;
    }
    let key = Key::Slot(id);
    let copy = |ix| repo.regions.get(ix, &key, SLOT_BYTES_MAX).ok();
    let slot = |ix| Some((ix, open_slot_object(&copy(ix)?, &repo.id, id).ok()?.digest));
    let copies: Vec<(usize, Digest)> = among.and(repo.usable()).iter().filter_map(slot).collect();
    let differ = copies.iter().any(|(_, digest)| copies.first().is_some_and(|(_, first)| first != digest));
    for (ix, _) in copies.iter().filter(|_| differ) {
        let what =
            "differs from that of another region, and nothing says which is right: try `key test` with each alone";
        repo.regions.record(*ix, &key.path(), what);
    }
    differ
}

/// Whether the keys can be changed now: the home region can be written, and nothing shows that the
/// configuration was rolled back. Asked before a new secret is made.
///
/// # Errors
/// Why not; nothing was changed.
pub fn ready(repo: &Repo) -> Result<()> {
    View::load(repo)?;
    home(repo).map(|_| ())
}

/// Adds a slot.
///
/// # Errors
/// No region could store it; somebody else changed the keys at the same time.
pub fn add(repo: &Repo, label: &str, secret: &NewSecret) -> Result<SlotId> {
    repo.may_write()?;
    home(repo)?;
    let owner = repo.ring.owner();
    let anchor = Anchor { owner: owner.verify_key(), number: repo.config, digest: repo.config_digest };
    let MadeSlot { entry, object } = make_slot(&repo.env, repo.id, label, secret, &anchor)?;
    let id = entry.id;
    let stored = repo.regions.put_all(repo.writable(), &Key::Slot(id), &object);
    enough(repo, stored)?;
    let mut ring = repo.ring.clone();
    ring.slots.push(entry);
    rotate_owner(repo, &mut ring)?;
    publish(repo, &ring)?;
    Ok(id)
}

/// Removes a slot: a new configuration with a new key epoch in every domain and a new owner key.
///
/// # Errors
/// Unknown slot, the last one, or somebody else changed the keys at the same time.
pub fn remove(repo: &Repo, id: SlotId) -> Result<()> {
    repo.may_write()?;
    let mut ring = repo.ring.clone();
    let before = ring.slots.len();
    ring.slots.retain(|s| s.id != id);
    if ring.slots.len() == before {
        return Err(Error::new(Kind::NotFound, format!("no key slot {id}")).advise("see `holdfast key list`"));
    }
    if ring.slots.is_empty() {
        return Err(Error::new(
            Kind::Refused,
            "this is the last key slot; without it nobody could read the repository",
        )
        .advise("add another key first"));
    }
    let now = repo.env.now().0;
    for domain in &mut ring.domains {
        let last = domain.epochs.iter().map(|e| e.number.0).max().unwrap_or(0);
        domain.epochs.iter_mut().for_each(|e| e.state = 1);
        let key = repo.env.random::<32>()?.into();
        domain.epochs.push(EpochKey { number: KeyEpoch(last.saturating_add(1)), key, created: now, state: 0 });
    }
    rotate_owner(repo, &mut ring)?;
    publish(repo, &ring)
}

fn rotate_owner(repo: &Repo, ring: &mut Keyring) -> Result<()> {
    ring.owner_seed = repo.env.random::<32>()?.into();
    Ok(())
}

/// Writes the next number: at home first, whose creation decides, then the copies.
fn publish(repo: &Repo, ring: &Keyring) -> Result<()> {
    let number = ConfigNo(repo.config.0.saturating_add(1));
    let object: Bytes = Next {
        repo: repo.id,
        number,
        previous: repo.config_digest,
        owner: &repo.ring.owner(),
        features: repo.features.clone(),
        ring,
        g: Secret::from_bytes(repo.env.random()?),
        randomness: wrap_randomness(&repo.env, ring.slots.len())?,
        created: repo.env.now(),
    }
    .to_object()
    .map_err(region::lift)?
    .into();
    let home = home(repo)?;
    put_at_home(repo, home, number, &object)?;
    // Decided. A region that does not take its copy is behind, and brought up by a later run.
    for ix in repo.writable().without(home) {
        let key = Key::Config(number, 0);
        match region::put_numbered(&repo.regions, ix, key, &object) {
            Ok(Put::Created | Put::Same) => {}
            Ok(Put::Other) => {
                let what = "junk stands at every key of the new configuration";
                repo.regions.fail(ix, Error::new(Kind::Damage, what).at(key));
            }
            Err(e) => repo.regions.fail(ix, e),
        }
    }
    Ok(())
}

/// The region whose creation of a number decides.
fn home(repo: &Repo) -> Result<usize> {
    let id = repo.epochs.members().first().map(|member| member.id);
    let home = (0..repo.regions.len()).find(|ix| id.is_some() && repo.regions.region(*ix).id == id);
    if let Some(ix) = home.filter(|ix| repo.writable().has(*ix)) {
        return Ok(ix);
    }
    let away = "the home region cannot be reached, and only it can take a new configuration";
    let advice = "bring it back, then run again; nothing was changed";
    let what = match home.and_then(|ix| repo.regions.failure(ix)) {
        Some(e) => format!("{away}: {}", e.what()),
        None => away.to_owned(),
    };
    Err(Error::new(Kind::Retry, what).advise(advice))
}

fn put_at_home(repo: &Repo, home: usize, number: ConfigNo, object: &Bytes) -> Result<()> {
    for suffix in 0..region::SUFFIXES {
        let key = Key::Config(number, suffix);
        if repo.regions.put(home, &key, object)? != Put::Other {
            return Ok(());
        }
        let there = repo.regions.get(home, &key, super::SMALL_OBJECT_BYTES_MAX)?;
        let owner = repo.ring.owner().verify_key();
        if Config::from_object(&there, &repo.id, number, &repo.config_digest, &owner).is_ok() {
            return Err(Error::new(Kind::Refused, "somebody else changed the keys just now").advise("run again"));
        }
        repo.regions.record(home, &key.path(), "junk in the chain of configurations; passed over");
    }
    Err(Error::new(Kind::Damage, "junk stands at every key of the next configuration"))
}

fn enough(repo: &Repo, stored: RegionSet) -> Result<()> {
    if stored.is_empty() {
        let why = repo.regions.failures().pop().map(|(_, e)| e);
        return Err(why.unwrap_or_else(|| Error::new(Kind::Retry, "no region could store it")));
    }
    Ok(())
}
