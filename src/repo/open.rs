//! Opening a repository: marks of the regions, a slot, the chain of configurations, epochs.
//!
//! A region that is missing, empty or another repository's is set aside with its reason; the others go on.

use super::epochs::Epochs;
use super::held::Held;
use super::index::cache::Cache;
use super::{OpeningLists, Repo, SMALL_OBJECT_BYTES_MAX};
use crate::base::{ConfigNo, Digest, Domain, Env, RepoId, SlotId};
use crate::chunk::IdKey;
use crate::crypto::{Secret, VerifyKey, passphrase_seed, recovery_decode};
use crate::error::{Error, Kind, Result};
use crate::format::FormatError;
use crate::format::config::{Config, Features};
use crate::format::region::RegionMark;
use crate::format::ring::{Keyring, Trust};
use crate::format::slot::{Anchor, Slot, SlotKeys, SlotKind};
use crate::region::{self, Address, Lists, RegionSet, Regions, by_key};
use crate::store::{Key, Prefix};
use crate::unlock::Unlock;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use tokio::runtime::Handle;

/// Most bytes of a key slot.
pub const SLOT_BYTES_MAX: u64 = 1 << 16;

/// What is needed to open a repository.
pub struct Opening<'a> {
    /// Its regions.
    pub addresses: &'a [Address],
    /// How many complete copies a run must make.
    pub copies_min: usize,
    /// The id that it must have, where that is known.
    pub pin: Option<RepoId>,
    /// The folder of this machine beside the catalog, where what was read of the repository is kept.
    pub state: Option<&'a Path>,
    /// Clock and entropy.
    pub env: &'a Env,
    /// The runtime that serves the stores.
    pub handle: &'a Handle,
}

/// Regions connected and judged by their marks.
pub struct Marked {
    /// The regions.
    pub regions: Regions,
    /// The repository.
    pub id: RepoId,
}

/// Connects and reads the marks. Needs no key.
///
/// # Errors
/// No region holds the repository, or two addresses lead to one region.
pub fn mark(opening: &Opening<'_>) -> Result<Marked> {
    let mut regions = Regions::connect(opening.addresses, false, opening.handle);
    let marks = region::read_marks(&regions);
    let rivals = repositories(&regions, &marks);
    if opening.pin.is_none() && rivals.len() > 1 {
        return Err(several(&rivals));
    }
    let mut id = opening.pin;
    let mut seen = Vec::new();
    for (ix, mark) in marks {
        let mark = match mark {
            Ok(mark) => mark,
            Err(e) => {
                record_mark(&regions, ix, &e);
                regions.fail(ix, e);
                continue;
            }
        };
        let expected = *id.get_or_insert(mark.repo);
        let place = format!("region {}", regions.region(ix).name);
        if mark.repo != expected {
            let what = format!("holds another repository (id {}, expected {expected})", mark.repo);
            let e = Error::new(Kind::Foreign, what).at(place).advise("check the region's path");
            record_mark(&regions, ix, &e);
            regions.fail(ix, e);
        } else if let Some((_, other)) = seen.iter().find(|(id, _)| *id == mark.region) {
            return Err(Error::new(Kind::Config, format!("is the same store as region {other}"))
                .at(place)
                .advise("two addresses of one store are one copy; remove one"));
        } else {
            seen.push((mark.region, regions.region(ix).name.clone()));
            regions.set_id(ix, mark.region);
        }
    }
    match id {
        Some(id) if !regions.healthy().is_empty() => {
            advise_repair(&regions);
            Ok(Marked { regions, id })
        }
        _ => Err(nothing_usable(&regions)),
    }
}

/// Where others have the repository, a place without it is no place for `init`.
fn advise_repair(regions: &Regions) {
    for ix in 0..regions.len() {
        if let Some(e) = regions.failure(ix).filter(|e| e.kind() == Kind::NoRepository) {
            let name = &regions.region(ix).name;
            let repair = format!("if it was emptied or replaced: `holdfast region repair {name} --emptied`");
            let better = Error::new(e.kind(), e.what()).at(format!("region {name}"));
            regions.explain(ix, better.advise(format!("is the disk mounted, the path right? {repair}")));
        }
    }
}

/// The repositories that the marks name, with the regions that name them.
fn repositories(regions: &Regions, marks: &[(usize, Result<RegionMark>)]) -> BTreeMap<RepoId, Vec<String>> {
    let mut found: BTreeMap<RepoId, Vec<String>> = BTreeMap::new();
    for (ix, mark) in marks {
        if let Ok(mark) = mark {
            found.entry(mark.repo).or_default().push(regions.region(*ix).name.clone());
        }
    }
    found
}

/// The error of regions that do not belong together.
fn several(rivals: &BTreeMap<RepoId, Vec<String>>) -> Error {
    let each: Vec<String> = rivals.iter().map(|(id, at)| format!("{id} in {}", at.join(", "))).collect();
    Error::new(Kind::Foreign, format!("the regions hold different repositories: {}", each.join("; ")))
        .advise("check the regions' paths, or name the right one by its id in holdfast.yaml")
}

/// Marks that name different repositories: the one that the secret opens is meant. Without that, one forged or
/// swapped mark would lock everybody out.
fn open_among(opening: &Opening<'_>, asked: Asked<'_>) -> Result<Repo> {
    let regions = Regions::connect(opening.addresses, false, opening.handle);
    let rivals = repositories(&regions, &region::read_marks(&regions));
    let mut opened = None;
    let mut failed = None;
    for id in rivals.keys() {
        let one = Opening { pin: Some(*id), ..*opening };
        match open_asked(&one, asked, &mut |_| {}) {
            Ok(_) if opened.is_some() => return Err(several(&rivals)),
            Ok(repo) => opened = Some(repo),
            Err(e) => failed = Some(e),
        }
    }
    opened.ok_or_else(|| failed.unwrap_or_else(|| several(&rivals)))
}

/// A mark that is wrong is damage; one that is missing may be a disk that is not mounted.
fn record_mark(regions: &Regions, ix: usize, e: &Error) {
    if matches!(e.kind(), Kind::Damage | Kind::Foreign | Kind::Newer) {
        regions.record(ix, &Key::Region.path(), e);
    }
}

/// The error that explains why no region can be used: the most telling of their reasons.
fn nothing_usable(regions: &Regions) -> Error {
    let rank = |kind: Kind| match kind {
        Kind::Foreign => 0,
        Kind::Newer => 1,
        Kind::Damage => 2,
        Kind::Denied => 3,
        Kind::NoRepository => 4,
        Kind::NotFound => 5,
        _ => 6,
    };
    let worst = regions.failures().into_iter().map(|(_, e)| e).min_by_key(|e| rank(e.kind()));
    match worst {
        Some(e) if e.kind() == Kind::NotFound => e.with_kind(Kind::NoRepository),
        Some(e) => e,
        None => Error::new(Kind::Config, "no region was given").advise("use --region NAME=PATH or a holdfast.yaml"),
    }
}

/// Opens the repository with one secret.
///
/// # Errors
/// Nothing usable, wrong key, a key that was removed, a newer format, or damage in all copies.
pub fn open(opening: &Opening<'_>, secret: &Unlock) -> Result<Repo> {
    open_asked(opening, Asked { secret, held: None }, &mut |_| {})
}

/// The same; `beside` is called once the regions are known and before the secret is tried, which may take its time.
///
/// # Errors
/// As [`open`].
pub fn open_beside(opening: &Opening<'_>, secret: &Unlock, beside: &mut dyn FnMut(&Marked)) -> Result<Repo> {
    open_asked(opening, Asked { secret, held: None }, beside)
}

/// Opens the repository with a secret that was used before, and will be.
///
/// # Errors
/// As [`open`].
pub fn open_held(opening: &Opening<'_>, held: &Held) -> Result<Repo> {
    open_asked(opening, Asked { secret: held.secret(), held: Some(held) }, &mut |_| {})
}

/// What is tried at the slots.
#[derive(Clone, Copy)]
struct Asked<'a> {
    secret: &'a Unlock,
    held: Option<&'a Held>,
}

fn open_asked(opening: &Opening<'_>, asked: Asked<'_>, beside: &mut dyn FnMut(&Marked)) -> Result<Repo> {
    let marked = match mark(opening) {
        Err(e) if e.kind() == Kind::Foreign && opening.pin.is_none() => return open_among(opening, asked),
        marked => marked?,
    };
    beside(&marked);
    let Marked { regions, id } = marked;
    let wanted = [Prefix::Keys, Prefix::Config, Prefix::Epochs];
    let [slots, configs, begun] = regions.list_several(regions.healthy(), wanted);
    let lists = OpeningLists { slots, configs };
    let unlocked = unlock(&regions, &id, asked, &lists)?;
    let slot = &unlocked.slot;
    let lay = |config: &Config| lay((opening, &regions, &id), &begun, &unlocked, config);
    let mut ground = lay(&unlocked.config)?;
    if let Some(config) = of_the_members(&regions, &id, &unlocked, (&ground.epochs, &lists.configs)) {
        if !config.lists(&slot.id) {
            return Err(removed_in(&config));
        }
        ground = lay(&config)?;
    }
    let Ground { config, ring, cache, epochs } = ground;
    let domain = Domain(0);
    let key_epoch =
        ring.key_epoch(domain).ok_or_else(|| Error::new(Kind::Damage, "the keyring has no open key for domain 0"))?;
    if regions.healthy().is_empty() {
        return Err(nothing_usable(&regions));
    }
    let id_key = IdKey::derive(&ring.id_root(), domain);
    Ok(Repo {
        regions: Arc::new(regions),
        env: opening.env.clone(),
        id,
        copies_min: opening.copies_min,
        slot: slot.id,
        slot_digest: slot.digest,
        config: config.number(),
        config_digest: config.digest(),
        features: config.features().clone(),
        ring,
        seen: Mutex::new(Arc::new(epochs.clone())),
        epochs,
        listed: Mutex::new(Some(lists)),
        id_key,
        domain,
        key_epoch,
        index_cache: cache,
    })
}

/// What everything else rests on.
struct Ground {
    config: Config,
    ring: Keyring,
    cache: Option<Arc<Cache>>,
    epochs: Epochs,
}

/// The keyring of a configuration, and the epochs by it.
fn lay(
    (opening, regions, id): (&Opening<'_>, &Regions, &RepoId),
    begun: &Lists,
    by: &Unlocked,
    config: &Config,
) -> Result<Ground> {
    if let Some(name) = Features::unknown(&config.features().read, &Features::ours().read) {
        return Err(Error::new(Kind::Newer, format!("the repository needs the feature `{name}`"))
            .advise("install a newer holdfast; nothing was changed"));
    }
    let ring = config.open(&by.slot.id, &by.keys.kem_seed).map_err(region::lift)?;
    let cache = opening.state.map(|state| Arc::new(Cache::new(state, id, &ring.id_root(), opening.env)));
    let epochs = Epochs::load(regions, Trust { repo: *id, ring: &ring }, begun, cache.as_deref());
    check_members(regions, &epochs);
    Ok(Ground { config: config.clone(), ring, cache, epochs })
}

/// The configuration that the members go by, where a region is named that is none and went on with another one: a home that was
/// given up for lost may have made it, and come back. That it has more of the same chain is no reason: it is signed.
fn of_the_members(
    regions: &Regions,
    id: &RepoId,
    by: &Unlocked,
    (epochs, configs): (&Epochs, &Lists),
) -> Option<Config> {
    let healthy = regions.healthy();
    let members = RegionSet::of(healthy.iter().filter(|ix| epochs.is_source(regions.region(*ix).id)));
    if members.is_empty() || members.covers(healthy) {
        return None;
    }
    let (config, _) = walk_chain(regions, id, &by.anchor, (configs, members)).ok()?;
    (by.chain.get(&config.number()) != Some(&config.digest())).then_some(config)
}

/// A region is written only if the newest epoch that it shows counts it as a member. It is read in any case.
pub(super) fn check_members(regions: &Regions, epochs: &Epochs) {
    for ix in regions.healthy().iter() {
        let id = regions.region(ix).id;
        // Where something is decided, nobody may put what replaces; nor the other way about.
        if let Some(member) = epochs.members().iter().find(|member| Some(member.id) == id) {
            regions.set_weak(ix, member.is_weak());
        }
        regions.restrict(ix, epochs.unwritable(ix, regions.region(ix)));
    }
}

/// Every slot id of any region, with the regions that list it.
pub(super) fn slot_ids(lists: &Lists) -> BTreeMap<SlotId, RegionSet> {
    let listed = by_key(lists).into_iter();
    listed.filter_map(|(key, at)| if let Key::Slot(id) = key { Some((id, at)) } else { None }).collect()
}

/// The first good copy: of the regions that list it, since one may have been added only there.
fn read_slot(regions: &Regions, repo: &RepoId, id: SlotId, at: RegionSet) -> Result<Slot> {
    regions.read(at.and(regions.healthy()), &Key::Slot(id), SLOT_BYTES_MAX, |bytes| open_slot_object(bytes, repo, id))
}

/// Reads the slot `id`.
///
/// # Errors
/// As [`Slot::from_object`], and another slot at this key.
pub fn open_slot_object(bytes: &[u8], repo: &RepoId, id: SlotId) -> std::result::Result<Slot, FormatError> {
    let slot = Slot::from_object(bytes, repo)?;
    if slot.id == id { Ok(slot) } else { Err(FormatError::Malformed("key slot", "another slot stands at this key")) }
}

/// What a secret opens.
struct Unlocked {
    slot: Slot,
    keys: SlotKeys,
    anchor: Anchor,
    /// The newest configuration of any region, and those before it.
    config: Config,
    chain: Chain,
}

/// Slots that are tried one after the other.
struct Tries<'t> {
    regions: &'t Regions,
    repo: &'t RepoId,
    asked: Asked<'t>,
    configs: &'t Lists,
    tried: BTreeSet<Digest>,
    /// How many were of the secret's kind.
    fitting: usize,
    opened: Option<Error>,
    unreadable: Option<Error>,
}

impl Tries<'_> {
    fn one(&mut self, slot: Slot, at: RegionSet) -> Result<Option<Unlocked>> {
        let (regions, Asked { secret, held }) = (self.regions, self.asked);
        self.tried.insert(slot.digest);
        let known = held.and_then(|held| held.known(&slot));
        let seed = match known.map_or_else(|| seed_for(&slot, secret), |seed| Ok(Some(seed))) {
            Ok(Some(seed)) => seed,
            Ok(None) => return Ok(None),
            Err(e) if e.kind() == Kind::WrongKey => return Err(e),
            // Somebody's slot with parameters out of bounds keeps nobody from using theirs.
            Err(e) => {
                at.iter().for_each(|ix| regions.record(ix, &Key::Slot(slot.id).path(), &e));
                self.unreadable = Some(e);
                return Ok(None);
            }
        };
        self.fitting += 1;
        let Ok((anchor, keys)) = slot.open(&seed) else { return Ok(None) };
        held.into_iter().for_each(|held| held.keep(&slot, &seed));
        match walk_chain(regions, self.repo, &anchor, (self.configs, regions.healthy())) {
            Ok((config, chain)) if config.lists(&slot.id) => {
                return Ok(Some(Unlocked { slot, keys, anchor, config, chain }));
            }
            Ok((config, _)) => self.opened = Some(removed_in(&config)),
            Err(e) => self.opened = Some(e),
        }
        Ok(None)
    }
}

/// The slot that the secret opens, and the configuration in force. One secret may open several: one that was
/// removed, or never listed because another change was quicker, must not hide the one that counts.
fn unlock(regions: &Regions, repo: &RepoId, asked: Asked<'_>, lists: &OpeningLists) -> Result<Unlocked> {
    let places = slot_ids(&lists.slots);
    if places.is_empty() {
        return Err(Error::new(Kind::Damage, "the repository shows no key slot").advise("is a region incomplete?"));
    }
    let ids: BTreeSet<SlotId> = places.keys().copied().collect();
    let ids = asked.held.map_or_else(|| ids.iter().copied().collect(), |held| held.in_turn(ids.clone()));
    let at = |id: &SlotId| places.get(id).copied().unwrap_or_default();
    let (configs, tried) = (&lists.configs, BTreeSet::new());
    let mut tries = Tries { regions, repo, asked, configs, tried, fitting: 0, opened: None, unreadable: None };
    for id in &ids {
        match read_slot(regions, repo, *id, at(id)) {
            Ok(slot) => {
                if let Some(done) = tries.one(slot, at(id))? {
                    return Ok(done);
                }
            }
            Err(e) => tries.unreadable = Some(e),
        }
    }
    // One region may show something else in place of a slot, whole as it is: every copy has its turn.
    for (id, ix) in ids.iter().flat_map(|id| at(id).iter().map(move |ix| (id, ix))) {
        let copy = regions.get(ix, &Key::Slot(*id), SLOT_BYTES_MAX).ok();
        let slot = copy.and_then(|bytes| open_slot_object(&bytes, repo, *id).ok());
        if let Some(slot) = slot.filter(|slot| !tries.tried.contains(&slot.digest))
            && let Some(done) = tries.one(slot, RegionSet::of([ix]))?
        {
            return Ok(done);
        }
    }
    Err(tries.opened.unwrap_or_else(|| no_slot(asked.secret, tries.fitting, tries.unreadable)))
}

fn removed_in(config: &Config) -> Error {
    let what = format!("this key was removed from the repository (before or in configuration {})", config.number());
    Error::new(Kind::WrongKey, what).advise("use another key")
}

fn no_slot(secret: &Unlock, tried: usize, unreadable: Option<Error>) -> Error {
    let kind = secret_kind(secret).name();
    match (tried, unreadable) {
        (_, Some(e)) => e.with_kind(Kind::WrongKey).advise("a key slot is unreadable in every region; try another key"),
        (0, None) => Error::new(Kind::WrongKey, format!("the repository has no {kind} slot"))
            .advise("`holdfast key list` with another key shows them"),
        (_, None) => Error::new(Kind::WrongKey, format!("wrong {kind}: it opens no key slot"))
            .advise("check for typing errors, or use another key"),
    }
}

fn secret_kind(secret: &Unlock) -> SlotKind {
    match secret {
        Unlock::Passphrase(_) => SlotKind::Passphrase,
        Unlock::KeyFile(_) => SlotKind::KeyFile,
        Unlock::RecoveryKey(_) => SlotKind::Recovery,
    }
}

/// The seed that a secret gives for a slot; `None` for a slot of another kind.
pub(super) fn seed_for(slot: &Slot, secret: &Unlock) -> Result<Option<Secret<32>>> {
    if slot.kind != Some(secret_kind(secret)) {
        return Ok(None);
    }
    match secret {
        Unlock::KeyFile(bytes) => Ok(Some(Secret::from_bytes(**bytes))),
        Unlock::RecoveryKey(text) => {
            let seed = recovery_decode(text).map_err(|e| {
                Error::new(Kind::WrongKey, format!("this is no recovery key: {e}")).advise("check it against the paper")
            })?;
            Ok(Some(seed))
        }
        Unlock::Passphrase(text) => {
            let refuse = |what: String| Error::new(Kind::Damage, what).at(Key::Slot(slot.id));
            let params = slot.argon2.ok_or_else(|| refuse("a passphrase slot without parameters".into()))?;
            params.check_open().map_err(|e| refuse(format!("refused before any work: {e}")))?;
            let seed = passphrase_seed(text.as_bytes(), &slot.salt, params).map_err(|e| refuse(e.to_string()))?;
            Ok(Some(seed))
        }
    }
}

/// Walks the chain from the anchor to the newest number that verifies; returns that, and the digests on the way.
fn walk_chain(
    regions: &Regions,
    repo: &RepoId,
    anchor: &Anchor,
    (configs, among): (&Lists, RegionSet),
) -> Result<(Config, Chain)> {
    let places = config_places(configs, among);
    let (mut number, mut previous, mut owner) = (anchor.number, anchor.digest, anchor.owner);
    let (mut found, mut chain) = (None, Chain::new());
    while let Some(config) =
        read_config(regions, &places, repo, ConfigNo(number.0.saturating_add(1)), &previous, &owner)?
    {
        (number, previous, owner) = (config.number(), config.digest(), *config.next_owner());
        chain.insert(number, previous);
        found = Some(config);
    }
    found.map(|config| (config, chain)).ok_or_else(|| nothing_lists(number))
}

/// No configuration follows the one before a slot: the regions were rolled back, or `key add`, which stores the
/// slot first, was cut short. The key alone cannot tell these apart, so the worse is assumed.
fn nothing_lists(before: ConfigNo) -> Error {
    let next = before.0.saturating_add(1);
    Error::new(Kind::Damage, format!("configuration {next} is missing or damaged in every region"))
        .advise("bring back a region that has it; if adding this key was cut short, use another and add it again")
}

/// Where every number and suffix stands. Listed, not probed: a copy may have another suffix than its
/// neighbour, and the suffixes before it may be free.
fn config_places(lists: &Lists, among: RegionSet) -> BTreeMap<(ConfigNo, u32), RegionSet> {
    let mut places: BTreeMap<(ConfigNo, u32), RegionSet> = BTreeMap::new();
    for (ix, lines) in lists.iter().filter(|(ix, _)| among.has(*ix)) {
        for line in lines {
            if let Key::Config(number, suffix) = line.key {
                let at = places.entry((number, suffix)).or_insert(RegionSet::NONE);
                *at = at.with(*ix);
            }
        }
    }
    places
}

/// Configuration `number`, from any region and any suffix, if there is one that follows.
fn read_config(
    regions: &Regions,
    places: &BTreeMap<(ConfigNo, u32), RegionSet>,
    repo: &RepoId,
    number: ConfigNo,
    previous: &Digest,
    owner: &VerifyKey,
) -> Result<Option<Config>> {
    let mut newer = None;
    for ((_, suffix), at) in places.range((number, 0)..=(number, u32::MAX)) {
        let key = Key::Config(number, *suffix);
        for ix in at.and(regions.healthy()).iter() {
            let bytes = match regions.get(ix, &key, SMALL_OBJECT_BYTES_MAX) {
                Ok(bytes) => bytes,
                // Something else stands there; the rest of the region may be good.
                Err(e) if matches!(e.kind(), Kind::Damage | Kind::NotFound) => {
                    regions.record(ix, &key.path(), &e);
                    continue;
                }
                Err(e) => {
                    regions.fail(ix, e);
                    continue;
                }
            };
            match Config::from_object(&bytes, repo, number, previous, owner) {
                Ok(config) => return Ok(Some(config)),
                Err(why) => {
                    regions.record(ix, &key.path(), &why);
                    if matches!(why, FormatError::Newer(_)) {
                        newer = Some(region::lift(why).at(key));
                    }
                }
            }
        }
    }
    // A signed configuration that we cannot understand must not be passed over.
    newer.map_or(Ok(None), Err)
}

/// Digests of the configurations, by number.
pub type Chain = BTreeMap<ConfigNo, Digest>;

/// The chain backwards from the configuration in force, as far as any region shows it: each names the digest of
/// the one before.
pub fn chain(repo: &Repo) -> Chain {
    let (mut number, mut digest) = repo.config();
    let mut chain = Chain::from([(number, digest)]);
    while let Some(before) = number.0.checked_sub(1).filter(|n| *n > 0) {
        let Some(previous) = previous_of(repo, number, &digest) else { break };
        (number, digest) = (ConfigNo(before), previous);
        chain.insert(number, digest);
    }
    chain
}

fn previous_of(repo: &Repo, number: ConfigNo, digest: &Digest) -> Option<Digest> {
    repo.usable().iter().flat_map(|ix| (0..16).map(move |suffix| (ix, suffix))).find_map(|(ix, suffix)| {
        let bytes = repo.regions.get(ix, &Key::Config(number, suffix), SMALL_OBJECT_BYTES_MAX).ok()?;
        Config::previous_of(&bytes, digest)
    })
}
