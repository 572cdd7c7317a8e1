//! The packs of a region: fetched whole, against their names, and record by record.

use super::super::scrub::Scrub;
use super::{RegionReport, Wish, is_away, still_damaged};
use crate::base::{Cancel, ChunkId, Pace, PackName, Progress};
use crate::chunk::Coder;
use crate::error::{Error, Result};
use crate::format::envelope::OBJECT_BYTES_MAX;
use crate::format::{FormatError, pack};
use crate::region::{Flaw, RegionSet, Regions, lock};
use crate::repo::Repo;
use crate::repo::index::{Index, Located};
use crate::repo::reader::{Content, keys_of, open_record};
use crate::store::{Key, Prefix};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What one worker re-uses from pack to pack.
#[derive(Default)]
pub(in crate::ops) struct Hands {
    /// A whole pack.
    pub(super) buffer: Vec<u8>,
    pub(super) coder: Coder,
    pub(super) scratch: Vec<u8>,
}

/// Runs `each` for every item on several threads; stops at the first error.
pub(in crate::ops) fn parallel<T: Sync>(
    items: &[T],
    workers: usize,
    cancel: &Cancel,
    each: impl Fn(&T, &mut Hands) -> Result<()> + Sync,
) -> Result<()> {
    let next = AtomicUsize::new(0);
    let failed: Mutex<Option<Error>> = Mutex::new(None);
    let work = || {
        let mut hands = Hands::default();
        while !cancel.raised() && lock(&failed).is_none() {
            let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) else { break };
            if let Err(e) = each(item, &mut hands) {
                lock(&failed).get_or_insert(e);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..workers.max(1) {
            scope.spawn(work);
        }
        work();
    });
    cancel.check()?;
    lock(&failed).take().map_or(Ok(()), Err)
}

/// Every pack listed, its bytes against its name.
pub(super) fn ciphertexts(
    regions: &Regions,
    ix: usize,
    (wish, scrub): (&Wish, Option<&Scrub<'_>>),
    progress: &Progress,
    cancel: &Cancel,
    here: &mut RegionReport,
) -> Result<()> {
    let listed = regions.list(ix, Prefix::Packs)?;
    let sizes: HashMap<PackName, u64> =
        listed.iter().filter_map(|l| if let Key::Pack(name) = l.key { Some((name, l.size)) } else { None }).collect();
    let all: Vec<PackName> = sizes.keys().copied().collect();
    let there: HashSet<PackName> = all.iter().copied().collect();
    let waiting = scrub.and_then(|scrub| {
        let waiting = scrub.waiting(&all)?;
        // Without a key nobody knows what should be here, but nothing that was here may go.
        for name in &waiting.others {
            regions.record(ix, &Key::Pack(*name).path(), (Flaw::Missing, "missing: it was here before".to_owned()));
            scrub.missing(name);
        }
        Some(waiting.order)
    });
    let order = wish.part.order(waiting, &all, all.clone());
    let packs = wish.part.cut(order, sizes.values().sum(), |name| sizes.get(name).copied().unwrap_or(0));
    still_damaged(regions, ix, scrub, &there, &packs);
    let totals = Mutex::new((0u64, 0u64));
    let pace = wish.pace(cancel);
    parallel(&packs, wish.workers, cancel, |name, hands| {
        let fetched = fetch_pack(regions, ix, name, (pace.as_ref(), scrub), &mut hands.buffer)?;
        let Some(bytes) = fetched else { return Ok(()) };
        progress.bytes_read.add(bytes.len() as u64);
        progress.bytes_done.add(bytes.len() as u64);
        let mut totals = lock(&totals);
        totals.0 += 1;
        totals.1 += bytes.len() as u64;
        drop(totals);
        let checked = pack::check_name(name, bytes);
        if let Some(scrub) = scrub {
            scrub.looked(name, checked.as_ref().err().map(ToString::to_string));
        }
        if let Err(why) = checked {
            regions.record(ix, &Key::Pack(*name).path(), &why);
        }
        Ok(())
    })?;
    let (objects, bytes) = totals.into_inner().unwrap_or_default();
    here.objects += objects;
    here.bytes += bytes;
    Ok(())
}

/// A whole pack; `None` when it is not to be had, which is recorded.
pub(super) fn fetch_pack<'b>(
    regions: &Regions,
    ix: usize,
    name: &PackName,
    (pace, scrub): (Option<&Pace>, Option<&Scrub<'_>>),
    buffer: &'b mut Vec<u8>,
) -> Result<Option<&'b mut [u8]>> {
    let key = Key::Pack(*name);
    match regions.get_into(ix, &key, OBJECT_BYTES_MAX as u64, buffer) {
        Ok(bytes) => {
            if let Some(pace) = pace {
                pace.book(bytes.len() as u64).wait();
            }
            Ok(Some(bytes))
        }
        Err(e) if is_away(regions, ix, &e) => Err(e),
        Err(e) => {
            regions.record(ix, &key.path(), &e);
            // It had its turn: else it would be the first again and again.
            if let Some(scrub) = scrub {
                scrub.looked(name, Some(e.what().to_owned()));
            }
            Ok(None)
        }
    }
}

/// Every pack that is named, with the regions whose segments name it.
pub(super) type Packs = BTreeMap<PackName, (crate::format::index::PackLine, RegionSet)>;

/// What the index says of each pack.
pub(super) type Places = HashMap<PackName, Vec<Located>>;

pub(super) fn places_by_pack(index: &Index) -> Places {
    let mut places: Places = HashMap::new();
    for at in index.all() {
        places.entry(at.pack.name).or_default().push(at);
    }
    places.values_mut().for_each(|all| all.sort_by_key(|at| (at.place.offset, at.place.inside)));
    places
}

/// Opens every record of a pack by its own table and compares with the index. Returns the number of chunks.
pub(super) fn check_pack(
    repo: &Repo,
    name: &PackName,
    bytes: &mut [u8],
    expected: &[Located],
    coder: &mut Coder,
    scratch: &mut Vec<u8>,
) -> std::result::Result<u64, FormatError> {
    pack::check_name(name, bytes)?;
    let keys = keys_of(repo, bytes)?;
    let mut found: HashSet<(ChunkId, u32, u32, u32, Option<u32>, u32)> = HashSet::new();
    for at in pack::records(&keys, bytes)? {
        let record = bytes.get_mut(at.offset as usize..).unwrap_or_default();
        match open_record(repo.id_key(), &keys, at.number, record, coder, scratch)?.0 {
            Content::Chunk(id, len) => {
                found.insert((id, at.offset, at.len, at.number, None, len));
            }
            Content::Bundle(chunks) => found.extend(
                chunks
                    .iter()
                    .map(|(id, offset, len)| (*id, at.offset, at.len, at.number, Some(*offset as u32), *len as u32)),
            ),
        }
    }
    for at in expected {
        let p = at.place;
        if !found.contains(&(p.id, p.offset, p.record_len, p.number, p.inside, p.len)) {
            return Err(FormatError::WrittenWrong("the index names a chunk that is not there"));
        }
    }
    Ok(found.len() as u64)
}
