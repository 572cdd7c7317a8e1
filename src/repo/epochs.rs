//! Epochs of the retention protocol as each region shows them: members, condemned and doomed packs.

use super::SMALL_OBJECT_BYTES_MAX;
use crate::base::{Digest, Epoch, PackName, RegionId};
use crate::error::{Error, Kind, Result};
use crate::format::FormatError;
use crate::format::objects::{EpochBegin, EpochEnd, Member, pack_list};
use crate::format::ring::{Trust, role};
use crate::format::signed::Opened;
use crate::region::{RegionSet, Regions};
use crate::store::{Key, Prefix};
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// One epoch.
#[derive(Debug, Clone)]
struct EpochState {
    begin: EpochBegin,
    digest: Digest,
    end: Option<EpochEnd>,
}

/// What the regions say.
#[derive(Debug, Clone, Default)]
pub struct Epochs {
    known: BTreeMap<Epoch, EpochState>,
    newest_in: BTreeMap<usize, Epoch>,
}

impl Epochs {
    /// Reads every epoch of the regions in `among`; a region whose epochs cannot be read is marked as failed.
    ///
    /// # Errors
    /// A record that verifies contradicts another.
    pub fn load(regions: &Regions, trust: Trust<'_>, among: RegionSet) -> Result<Epochs> {
        let mut epochs = Epochs::default();
        for ix in among.iter() {
            if let Err(e) = epochs.load_region(regions, trust, ix) {
                regions.fail(ix, e);
            }
        }
        epochs.drop_unchained();
        Ok(epochs)
    }

    fn load_region(&mut self, regions: &Regions, trust: Trust<'_>, ix: usize) -> Result<()> {
        let keys: Vec<Key> = regions.list(ix, Prefix::Epochs)?.into_iter().map(|l| l.key).collect();
        let numbers: BTreeSet<Epoch> = keys
            .iter()
            .filter_map(|k| match k {
                Key::EpochBegin(n, _) => Some(*n),
                _ => None,
            })
            .collect();
        for number in numbers {
            let begins = keys.iter().filter(|k| matches!(k, Key::EpochBegin(n, _) if *n == number));
            let Some((begin, digest)) = first_valid(regions, ix, begins, |key, bytes| read_begin(key, bytes, trust))?
            else {
                continue;
            };
            let ends = keys.iter().filter(|k| matches!(k, Key::EpochEnd(n, _) if *n == number));
            let end = first_valid(regions, ix, ends, |key, bytes| {
                let end: EpochEnd = open_as(key, bytes, trust)?;
                pack_list(&end.doomed)?;
                if end.number == number && end.begin == digest {
                    Ok(end)
                } else {
                    Err(FormatError::Unsigned("end of another begin"))
                }
            })?;
            self.newest_in.insert(ix, number);
            let known = self.known.entry(number).or_insert(EpochState { begin, digest, end: None });
            if known.digest != digest {
                return Err(Error::new(Kind::Damage, format!("epoch {number} differs from that of another region")));
            }
            known.end = known.end.take().or(end);
        }
        Ok(())
    }

    /// Members may change only on the owner's word, and the first epoch sets them.
    fn drop_unchained(&mut self) {
        if let Some(gap) = self.known.keys().zip(1u32..).find(|(n, expected)| n.0 != *expected).map(|(n, _)| *n) {
            self.known.split_off(&gap);
        }
    }

    /// The newest epoch anywhere; 0 while there is none.
    pub fn newest(&self) -> Epoch {
        self.known.keys().next_back().copied().unwrap_or(Epoch(0))
    }

    /// The newest epoch of a region.
    pub fn newest_in(&self, ix: usize) -> Option<Epoch> {
        self.newest_in.get(&ix).copied()
    }

    /// Members by the newest epoch; the first is home.
    pub fn members(&self) -> &[Member] {
        self.known.values().next_back().map_or(&[], |e| &e.begin.members)
    }

    /// Whether a region is a member.
    pub fn is_member(&self, id: &RegionId) -> bool {
        self.members().iter().any(|m| m.id == *id)
    }

    /// Packs that must not be re-used: all doomed, and those condemned by an undecided epoch.
    pub fn bad_packs(&self) -> Result<HashSet<PackName>> {
        let mut bad = HashSet::new();
        for epoch in self.known.values() {
            let list = match &epoch.end {
                Some(end) => pack_list(&end.doomed),
                None => pack_list(&epoch.begin.condemned),
            };
            bad.extend(list.map_err(crate::region::lift)?);
        }
        Ok(bad)
    }
}

fn open_as<T>(key: &Key, bytes: &[u8], trust: Trust<'_>) -> std::result::Result<T, FormatError>
where
    T: for<'b> minicbor::Decode<'b, ()> + minicbor::Encode<()>,
{
    Opened::open(bytes, &key.canonical(), trust)?.decode("epoch")
}

fn read_begin(key: &Key, bytes: &[u8], trust: Trust<'_>) -> std::result::Result<(EpochBegin, Digest), FormatError> {
    let opened = Opened::open(bytes, &key.canonical(), trust)?;
    let begin: EpochBegin = opened.decode("epoch")?;
    pack_list(&begin.condemned)?;
    let fits = matches!(key, Key::EpochBegin(n, _) if *n == begin.number);
    // The first epoch names members, so it needs the owner's word; so would any later change of members.
    let owner = trust.ring.writer(&opened.writer).is_some_and(|w| w.roles & role::OWNER != 0);
    if !fits || (begin.number == Epoch(1) && !owner) {
        return Err(FormatError::Unsigned("members not signed by an owner"));
    }
    Ok((begin, opened.digest))
}

/// The first of `keys` (in order of suffix) that passes; the others are recorded as junk.
fn first_valid<'k, T>(
    regions: &Regions,
    ix: usize,
    keys: impl Iterator<Item = &'k Key>,
    check: impl Fn(&Key, &[u8]) -> std::result::Result<T, FormatError>,
) -> Result<Option<T>> {
    for key in keys {
        let bytes = regions.get(ix, key, SMALL_OBJECT_BYTES_MAX)?;
        match check(key, &bytes) {
            Ok(value) => return Ok(Some(value)),
            Err(why) => regions.record(ix, &key.path(), why.to_string()),
        }
    }
    Ok(None)
}
