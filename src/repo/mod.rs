//! The repository: open it, write sessions into it, read chunks out of it. Knows no source.
//!
//! Crash behaviour: packs are confirmed before an index segment names them, segments before a manifest
//! needs them, the manifest is created last. Whatever dies in between leaves objects that the next run
//! re-uses (those in published segments) or that nobody refers to.

pub mod branches;
pub mod changed;
pub mod epochs;
mod epochs_known;
pub mod file_at;
pub mod gather;
pub mod held;
pub mod holds;
pub mod index;
pub mod init;
pub mod keys;
pub mod members;
pub mod open;
pub mod pages;
pub mod pruning;
pub mod reader;
pub mod session;
pub mod tags;
pub mod tree;
mod tree_packs;
pub mod view;
pub mod writer;

use crate::base::{ConfigNo, Digest, Domain, Env, Epoch, KeyEpoch, RepoId, SegmentName, SlotId, WriterId};
use crate::chunk::{IdKey, gear_seed};
use crate::crypto::{Secret, SigningKey, kd, mac};
use crate::error::{Error, Kind, Result};
use crate::format::FormatError;
use crate::format::cbor;
use crate::format::config::{Features, PLANES};
use crate::format::envelope::{BODY_BYTES_MAX, Class, Header, Kind as ObjectKind, OBJECT_BYTES_MAX};
use crate::format::index::Segment;
use crate::format::ring::{Keyring, Trust, role};
use crate::format::signed::{self, Fresh, Opened, Signer};
use crate::region::{Finding, Lists, RegionSet, Regions, lock};
use crate::store::{Key, Prefix};
use bytes::Bytes;
use epochs::Epochs;
use index::cache::Cache;
use minicbor::Encode;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};

/// Largest small object that is read, in bytes.
pub const SMALL_OBJECT_BYTES_MAX: u64 = OBJECT_BYTES_MAX as u64;

/// What the regions listed when the repository was opened.
#[derive(Debug)]
pub struct OpeningLists {
    /// Key slots.
    pub slots: Lists,
    /// Configurations.
    pub configs: Lists,
}

/// An open repository.
pub struct Repo {
    /// Its regions.
    pub regions: Arc<Regions>,
    /// Clock and entropy.
    pub env: Env,
    /// Its id.
    pub id: RepoId,
    /// How many complete copies a run must make.
    pub copies_min: usize,
    /// The slot that opened it.
    pub slot: SlotId,
    slot_digest: Digest,
    ring: Keyring,
    config: ConfigNo,
    config_digest: Digest,
    features: Features,
    epochs: Epochs,
    /// As they were seen last.
    seen: Mutex<Arc<Epochs>>,
    listed: Mutex<Option<OpeningLists>>,
    id_key: IdKey,
    domain: Domain,
    key_epoch: KeyEpoch,
    index_cache: Option<Arc<Cache>>,
}

impl Repo {
    /// Keeps a copy of the index below the folder `state` of this machine.
    pub fn keep_index_in(&mut self, state: &Path) {
        self.index_cache = Some(Arc::new(Cache::new(state, &self.id, &self.ring.id_root(), &self.env)));
    }

    /// The copy of the index on this machine.
    pub fn index_cache(&self) -> Option<&Arc<Cache>> {
        self.index_cache.as_ref()
    }

    /// Keys and writers.
    pub fn trust(&self) -> Trust<'_> {
        Trust { repo: self.id, ring: &self.ring }
    }

    /// The keyring.
    pub fn ring(&self) -> &Keyring {
        &self.ring
    }

    /// Number and digest of the configuration in force.
    pub fn config(&self) -> (ConfigNo, Digest) {
        (self.config, self.config_digest)
    }

    /// Epochs as read in each region when the repository was opened.
    pub fn epochs(&self) -> &Epochs {
        &self.epochs
    }

    /// Epochs as they were seen last: when the repository was opened, or by [`Repo::epochs_since`] after that.
    pub fn epochs_seen(&self) -> Arc<Epochs> {
        Arc::clone(&lock(&self.seen))
    }

    /// What was listed at the opening, for the first who asks: later it is too old to go by.
    pub fn take_listed(&self) -> Option<OpeningLists> {
        lock(&self.listed).take()
    }

    /// The trust domain that is written.
    pub fn domain(&self) -> Domain {
        self.domain
    }

    /// Whether whoever reads the repository knows chunks of which both planes are frames.
    pub fn knows_planes(&self) -> bool {
        self.features.read.iter().any(|name| name == PLANES)
    }

    /// Whether this program understands all that a writer must. Asked before anything is written.
    ///
    /// # Errors
    /// [`Kind::Newer`], naming the feature.
    pub fn may_write(&self) -> Result<()> {
        match Features::unknown(&self.features.write, &Features::ours().write) {
            None => Ok(()),
            Some(name) => Err(Error::new(Kind::Newer, format!("writing to the repository needs the feature `{name}`"))
                .advise("install a newer holdfast; nothing was changed, and reading works")),
        }
    }

    /// Whether this program understands all that a prune must, and its key may begin and decide epochs.
    ///
    /// # Errors
    /// [`Kind::Newer`], naming the feature, or [`Kind::Refused`].
    pub fn may_prune(&self) -> Result<()> {
        if let Some(name) = Features::unknown(&self.features.prune, &Features::ours().prune) {
            let what = format!("pruning the repository needs the feature `{name}`");
            return Err(Error::new(Kind::Newer, what).advise("install a newer holdfast; nothing was changed"));
        }
        let own = self.ring.signer().and_then(|(id, _)| self.ring.writer(&id));
        // It writes index segments, too.
        let needed = role::PRUNE | role::WRITE;
        match own.is_some_and(|writer| writer.roles & needed == needed) {
            true => Ok(()),
            false => Err(Error::new(Kind::Refused, "this key may not prune the repository")),
        }
    }

    /// Makes chunk ids.
    pub fn id_key(&self) -> &IdKey {
        &self.id_key
    }

    /// Seed of the gear tables.
    pub fn gear_seed(&self) -> u64 {
        gear_seed(&self.ring.id_root(), self.domain)
    }

    /// What new objects say that their writer knew.
    pub fn fresh(&self) -> Fresh {
        Fresh { config: self.config, digest: self.config_digest, epoch: self.epoch() }
    }

    /// The newest epoch.
    pub fn epoch(&self) -> Epoch {
        self.epochs.newest()
    }

    /// A header with a fresh salt.
    ///
    /// # Errors
    /// The kernel gave no random bytes.
    pub fn header(&self, kind: ObjectKind) -> Result<Header> {
        Ok(self.header_with(kind, self.env.random()?))
    }

    fn header_with(&self, kind: ObjectKind, salt: [u8; 32]) -> Header {
        Header { kind, domain: self.domain, key_epoch: self.key_epoch, repo: self.id, salt }
    }

    /// The key that seals new objects of a class.
    ///
    /// # Errors
    /// The keyring lacks it.
    pub fn secret(&self, class: Class) -> Result<Secret<32>> {
        self.ring
            .class_secret(self.domain, self.key_epoch, class)
            .ok_or_else(|| Error::new(Kind::Bug, "the keyring has no key for its own key epoch"))
    }

    /// Seals and signs a small object.
    ///
    /// # Errors
    /// No signing key, no random bytes, or larger than any reader takes.
    pub fn seal<T: Encode<()>>(&self, kind: ObjectKind, key: &str, value: &T) -> Result<Bytes> {
        self.seal_with(kind, key, value, self.env.random()?)
    }

    /// Seals an index segment that is made of others: whoever makes it of them makes the same bytes, and so, under a name that is
    /// their hash, the same object. The salt is a keyed hash of all that goes in, and of the names of the objects that it was made from, in
    /// their order: so what is made of an object, and of what was made of it, is never that object again, whatever it says.
    ///
    /// # Errors
    /// No signing key, or larger than any reader takes.
    pub fn seal_segment(&self, from: &BTreeSet<SegmentName>, segment: &Segment) -> Result<(SegmentName, Bytes)> {
        let salt_key = kd::<32>("salt", &[self.secret(ObjectKind::Index.class())?.bytes()]);
        let mut content = self.signer()?.0.bytes().to_vec();
        from.iter().for_each(|name| content.extend_from_slice(&name.0));
        content.extend_from_slice(&(from.len() as u64).to_le_bytes());
        content.extend_from_slice(&cbor::encode(segment));
        let bytes = self.seal_with(ObjectKind::Index, "", segment, mac(salt_key.bytes(), &content))?;
        Ok((SegmentName(*blake3::hash(&bytes).as_bytes()), bytes))
    }

    fn signer(&self) -> Result<(WriterId, SigningKey)> {
        let signer = self.ring.signer();
        signer.ok_or_else(|| Error::new(Kind::Refused, "this key may read the repository, but not write to it"))
    }

    fn seal_with<T: Encode<()>>(&self, kind: ObjectKind, key: &str, value: &T, salt: [u8; 32]) -> Result<Bytes> {
        let (id, signing) = self.signer()?;
        let header = self.header_with(kind, salt);
        let secret = self.secret(kind.class())?;
        let sealed = signed::seal(value, key, &header, &secret, &Signer { id, key: signing });
        // No reader takes a longer body: better no object than one that is there and cannot be read.
        if sealed.len() > BODY_BYTES_MAX {
            return Err(Error::new(Kind::Bug, format!("an object of {} bytes is too large", sealed.len())).at(key));
        }
        Ok(sealed.into())
    }

    /// Opens a small object and checks its signature.
    ///
    /// # Errors
    /// As [`Opened::open`].
    pub fn open_object(&self, key: &Key, bytes: &[u8]) -> std::result::Result<Opened, FormatError> {
        Opened::open(bytes, &key.canonical(), self.trust())
    }

    /// Reads a small object from the first region of `among` that has a good copy.
    ///
    /// # Errors
    /// No region has one.
    pub fn read_object(&self, among: RegionSet, key: &Key) -> Result<Opened> {
        self.regions.read(among, key, SMALL_OBJECT_BYTES_MAX, |bytes| self.open_object(key, bytes))
    }

    /// Regions that can be read: reachable, and of this repository. A restore needs nothing else.
    pub fn usable(&self) -> RegionSet {
        self.regions.healthy()
    }

    /// Regions that may be written too: members by the newest epoch read there.
    pub fn writable(&self) -> RegionSet {
        self.regions.writable()
    }

    /// Regions whose word may be carried to others: members, and those that go by a change that is not decided yet. Any, as
    /// long as nobody knows who is a member. What names itself by its hash may be taken from wherever it is.
    pub fn sources(&self, epochs: &Epochs) -> RegionSet {
        match epochs.members() {
            [] => self.usable(),
            _ => RegionSet::of(self.usable().iter().filter(|ix| epochs.is_source(self.regions.region(*ix).id))),
        }
    }

    /// Epochs as the regions show them now, given what was read before; regions that these bar from writing are
    /// marked so.
    pub fn epochs_since(&self, before: &Epochs) -> Epochs {
        self.saw(before.again(&self.regions, self.trust(), self.usable(), self.index_cache.as_deref()))
    }

    /// The same, read again although nothing was added: damaged ones may have been mended.
    pub fn epochs_afresh(&self) -> Epochs {
        let lists = self.regions.list_all(self.usable(), Prefix::Epochs);
        self.saw(Epochs::load(&self.regions, self.trust(), &lists, None))
    }

    fn saw(&self, epochs: Epochs) -> Epochs {
        open::check_members(&self.regions, &epochs);
        *lock(&self.seen) = Arc::new(epochs.clone());
        epochs
    }

    /// What was found wrong so far. That a pack is gone is not wrong once an epoch has decided so.
    pub fn findings(&self) -> Vec<Finding> {
        let mut findings = self.regions.findings();
        let pack = |finding: &Finding| match Key::parse(&finding.object) {
            Some(Key::Pack(name)) => Some(name),
            _ => None,
        };
        if findings.iter().any(|finding| pack(finding).is_some()) {
            let doomed = self.epochs_seen().doomed();
            findings.retain(|finding| pack(finding).is_none_or(|name| !doomed.contains(&name)));
        }
        findings
    }
}
