//! Creating a repository in empty regions.
//!
//! Order: slots, configuration 1, epoch 1 in each region, and last the marks. A crash in between leaves
//! objects that no secret may open any more; nothing is deleted here, so the next `init` says which regions
//! are to be emptied.

use super::members;
use crate::base::{ConfigNo, Digest, Domain, Env, Epoch, KeyEpoch, RegionId, RepoId, SlotId};
use crate::crypto::{Argon2Params, Secret, SigningKey, passphrase_seed, public_key};
use crate::error::{Error, Kind, Result};
use crate::format::config::{Features, Next};
use crate::format::envelope::{Header, Kind as ObjectKind};
use crate::format::objects::{EpochBegin, EpochEnd, Member};
use crate::format::region::{FORMAT_VERSION, RegionMark};
use crate::format::ring::{Keyring, SlotEntry};
use crate::format::signed::{self, Fresh, Signer};
use crate::format::slot::{Anchor, Slot, SlotKind};
use crate::region::{self, Regions};
use crate::store::{Key, Prefix, Put};
use bytes::Bytes;
use zeroize::Zeroizing;

/// A secret for a new slot.
pub enum NewSecret {
    /// A passphrase.
    Passphrase(Zeroizing<String>),
    /// 32 bytes for a key file.
    KeyFile(Secret<32>),
    /// 32 bytes for paper.
    Recovery(Secret<32>),
}

impl NewSecret {
    /// The kind of slot.
    pub fn kind(&self) -> SlotKind {
        match self {
            NewSecret::Passphrase(_) => SlotKind::Passphrase,
            NewSecret::KeyFile(_) => SlotKind::KeyFile,
            NewSecret::Recovery(_) => SlotKind::Recovery,
        }
    }

    fn seed(&self, salt: &[u8; 32]) -> Result<Secret<32>> {
        match self {
            NewSecret::Passphrase(text) => passphrase_seed(text.as_bytes(), salt, Argon2Params::DEFAULT)
                .map_err(|e| Error::new(Kind::Bug, format!("argon2id failed: {e}"))),
            NewSecret::KeyFile(seed) | NewSecret::Recovery(seed) => Ok(seed.clone()),
        }
    }
}

/// A slot ready to be stored.
pub struct MadeSlot {
    /// Its line in the keyring.
    pub entry: SlotEntry,
    /// `keys/<slot>`.
    pub object: Bytes,
}

/// Makes a slot that is anchored before configuration `anchor.number + 1`.
///
/// # Errors
/// No random bytes, or the key derivation failed.
pub fn make_slot(env: &Env, repo: RepoId, label: &str, secret: &NewSecret, anchor: &Anchor) -> Result<MadeSlot> {
    let id = SlotId(env.random()?);
    let salt = env.random()?;
    let (object, kem_seed) = Slot::create(repo, id, secret.kind(), salt, &secret.seed(&salt)?, anchor);
    let (_, digest) = signed::check_sum(&object).map_err(region::lift)?;
    let entry = SlotEntry {
        id,
        kind: secret.kind() as u8,
        label: label.to_owned(),
        public: public_key(&kem_seed).into(),
        created: env.now().0,
        object: Some(digest),
    };
    Ok(MadeSlot { entry, object: object.into() })
}

/// Fresh randomness for the wraps of every slot.
///
/// # Errors
/// No random bytes.
pub fn wrap_randomness(env: &Env, slots: usize) -> Result<Vec<Secret<64>>> {
    (0..slots).map(|_| Ok(Secret::from_bytes(env.random()?))).collect()
}

/// Creates the repository in all regions.
///
/// # Errors
/// A region is not empty, not reachable, or not writable.
pub fn create(regions: &Regions, env: &Env, secrets: &[(String, NewSecret)]) -> Result<RepoId> {
    check_empty(regions)?;
    let repo = RepoId(env.random()?);
    let random = [env.random()?, env.random()?, env.random()?, env.random()?];
    let mut ring = Keyring::new(&random, env.now());
    // The first configuration is signed by a key that only it knows; it names the keyring's.
    let first_owner = SigningKey::from_seed(&Secret::from_bytes(env.random()?));
    let anchor = Anchor { owner: first_owner.verify_key(), number: ConfigNo(0), digest: Digest::ZERO };
    let mut objects = Vec::new();
    for (label, secret) in secrets {
        let slot = make_slot(env, repo, label, secret, &anchor)?;
        objects.push((Key::Slot(slot.entry.id), slot.object));
        ring.slots.push(slot.entry);
    }
    let config = Next {
        repo,
        number: ConfigNo(1),
        previous: Digest::ZERO,
        owner: &first_owner,
        features: Features::ours(),
        ring: &ring,
        g: Secret::from_bytes(env.random()?),
        randomness: wrap_randomness(env, ring.slots.len())?,
        created: env.now(),
    }
    .to_object()
    .map_err(region::lift)?;
    let (_, digest) = signed::check_sum(&config).map_err(region::lift)?;
    objects.push((Key::Config(ConfigNo(1), 0), config.into()));
    let ids: Vec<RegionId> = (0..regions.len()).map(|_| Ok(RegionId(env.random()?))).collect::<Result<_>>()?;
    let members = first_members(regions, &ids)?;
    let fresh = Fresh { config: ConfigNo(1), digest, epoch: Epoch(1) };
    objects.extend(first_epoch(env, repo, &ring, fresh, &members)?);
    // Before anything else, so that little is left behind where a store is not fit.
    if let Some((key, bytes)) = objects.first() {
        (0..ids.len()).try_for_each(|ix| regions.try_out(ix, key, bytes).map(|_| ()))?;
    }
    for ix in 0..ids.len() {
        for (key, bytes) in &objects {
            if region::put_numbered(regions, ix, *key, bytes)? == Put::Other {
                return Err(Error::new(Kind::Refused, "too many leftovers stand in the way")
                    .at(key)
                    .advise("use an empty place"));
            }
        }
    }
    for (ix, id) in ids.iter().enumerate() {
        let mark = RegionMark { version: FORMAT_VERSION, repo, region: *id, created: env.now().0 };
        if regions.put(ix, &Key::Region, &mark.to_object().into())? == Put::Other {
            return Err(Error::new(Kind::Refused, "somebody else created a repository here just now")
                .at(format!("region {}", regions.region(ix).name)));
        }
    }
    Ok(repo)
}

/// In the order of the configuration, but for the first one, which is home: nothing is decided in a weak region.
fn first_members(regions: &Regions, ids: &[RegionId]) -> Result<Vec<Member>> {
    let of = |(ix, id): (usize, &RegionId)| Member {
        id: *id,
        name: regions.region(ix).name.clone(),
        weak: regions.is_weak(ix).then_some(true),
    };
    let mut members: Vec<Member> = ids.iter().enumerate().map(of).collect();
    members::home_first(&mut members)?;
    Ok(members)
}

/// What stands in a region before `init`.
enum Before {
    Nothing,
    /// Objects of an `init` that did not come to its end, with a mark or without.
    Unfinished,
    /// A repository.
    Marked(RepoId),
}

fn check_empty(regions: &Regions) -> Result<()> {
    let before = (0..regions.len()).map(|ix| look(regions, ix)).collect::<Result<Vec<_>>>()?;
    let marked = before.iter().filter(|b| matches!(b, Before::Marked(_))).count();
    let mut unfinished = Vec::new();
    for (ix, found) in before.iter().enumerate() {
        let name = &regions.region(ix).name;
        match found {
            Before::Nothing => {}
            Before::Unfinished => unfinished.push(name.as_str()),
            // Marks come last and together: one that is alone, with no work in it, is of the same kind.
            Before::Marked(_) if marked < before.len() && !has_work(regions, ix)? => unfinished.push(name),
            Before::Marked(id) => {
                return Err(Error::new(Kind::Refused, format!("a repository is here already (id {id})"))
                    .at(format!("region {name}"))
                    .advise("use another place, or open this one"));
            }
        }
    }
    if unfinished.is_empty() {
        return Ok(());
    }
    let names = unfinished.join(", ");
    Err(Error::new(Kind::Refused, "an `init` before this one did not finish; nothing was backed up there yet")
        .at(format!("region {names}"))
        .advise(format!("empty region {names}, then run `holdfast init` again")))
}

/// What may stand in a place that is to be a region of a repository that there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leftovers {
    /// Nothing, but for the mark of an earlier try.
    Refused,
    /// What a region that lost its mark still has: objects are never replaced, and each is verified when it is used.
    Taken,
}

/// Tries the store of the only one of `regions`, and gives it a mark with a new id; one that an earlier try left is kept.
/// It is no member by that, and nobody writes there.
///
/// # Errors
/// Something else is there, or the store is not fit to be a region.
pub fn prepare(regions: &Regions, env: &Env, repo: RepoId, leftovers: Leftovers) -> Result<RegionId> {
    let place = || format!("region {}", regions.region(0).name);
    let refused = |what: &str| Err(Error::new(Kind::Refused, what).at(place()).advise("use an empty place"));
    if let Some(e) = regions.failure(0) {
        return Err(e);
    }
    let mark = match region::read_mark(regions, 0) {
        Ok(mark) if mark.repo == repo => mark,
        Ok(mark) => return refused(&format!("another repository is here (id {})", mark.repo)),
        Err(e) if e.kind() != Kind::NoRepository => return Err(e),
        Err(_) => {
            let taken = leftovers == Leftovers::Taken;
            if !taken && !matches!(look(regions, 0)?, Before::Nothing) {
                return refused("objects of an unfinished repository are here");
            }
            let id = RegionId(env.random()?);
            RegionMark { version: FORMAT_VERSION, repo, region: id, created: env.now().0 }
        }
    };
    // Also a mark that is there: its trial may have been cut off.
    match regions.try_out(0, &Key::Region, &mark.to_object().into())? {
        Put::Created | Put::Same => Ok(mark.region),
        Put::Other => refused("somebody else made a region here just now"),
    }
}

fn look(regions: &Regions, ix: usize) -> Result<Before> {
    if let Some(e) = regions.failure(ix) {
        return Err(e);
    }
    match region::read_mark(regions, ix) {
        Ok(mark) => return Ok(Before::Marked(mark.repo)),
        Err(e) if e.kind() == Kind::NoRepository => {}
        Err(e) => return Err(e),
    }
    if has_work(regions, ix)? {
        return Err(Error::new(Kind::Refused, "backed up objects are here although there is no repository")
            .at(format!("region {}", regions.region(ix).name))
            .advise("use an empty place"));
    }
    for prefix in Prefix::ALL {
        if !regions.list(ix, prefix)?.is_empty() {
            return Ok(Before::Unfinished);
        }
    }
    Ok(Before::Nothing)
}

/// Whether anything was ever backed up there.
fn has_work(regions: &Regions, ix: usize) -> Result<bool> {
    for prefix in [Prefix::Packs, Prefix::Index, Prefix::Snapshots] {
        if !regions.list(ix, prefix)?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

fn first_epoch(env: &Env, repo: RepoId, ring: &Keyring, fresh: Fresh, members: &[Member]) -> Result<[(Key, Bytes); 2]> {
    let created = env.now().0;
    let begin = EpochBegin {
        fresh,
        number: Epoch(1),
        members: members.to_vec(),
        condemned: Vec::new().into(),
        roots: Vec::new(),
        created,
    };
    let begin_key = Key::EpochBegin(Epoch(1), 0);
    let begin = seal_with(env, repo, ring, ObjectKind::EpochBegin, &begin_key, &begin)?;
    let (_, begin_digest) = signed::check_sum(&begin).map_err(region::lift)?;
    let end = EpochEnd {
        fresh,
        number: Epoch(1),
        begin: begin_digest,
        doomed: Vec::new().into(),
        roots: Vec::new(),
        created,
        forgotten: Vec::new().into(),
        doomed_before: None,
    };
    let end_key = Key::EpochEnd(Epoch(1), 0);
    let end = seal_with(env, repo, ring, ObjectKind::EpochEnd, &end_key, &end)?;
    Ok([(begin_key, begin), (end_key, end)])
}

fn seal_with<T: minicbor::Encode<()>>(
    env: &Env,
    repo: RepoId,
    ring: &Keyring,
    kind: ObjectKind,
    key: &Key,
    value: &T,
) -> Result<Bytes> {
    let bug = || Error::new(Kind::Bug, "a fresh keyring lacks its keys");
    let (domain, key_epoch) = (Domain(0), KeyEpoch(1));
    let header = Header { kind, domain, key_epoch, repo, salt: env.random()? };
    let secret = ring.class_secret(domain, key_epoch, kind.class()).ok_or_else(bug)?;
    let (id, signing) = ring.signer().ok_or_else(bug)?;
    Ok(signed::seal(value, &key.canonical(), &header, &secret, &Signer { id, key: signing }).into())
}
