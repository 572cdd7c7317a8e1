//! The packs of a region: fetched whole, against their names, and record by record.

use super::super::scrub::Scrub;
use super::{RegionReport, Wish, is_away, still_damaged};
use crate::base::{Cancel, ChunkId, Pace, PackName, Progress};
use crate::chunk::Coder;
use crate::error::{Error, Result};
use crate::format::envelope::{OBJECT_BYTES_MAX, ObjectKeys, RecordAt};
use crate::format::{FormatError, pack};
use crate::region::{Flaw, RegionSet, Regions, lock};
use crate::repo::Repo;
use crate::repo::gather::keys_of;
use crate::repo::index::{Index, Located};
use crate::repo::reader::{Content, open_record};
use crate::store::{Key, Prefix};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What one worker re-uses from pack to pack.
#[derive(Default)]
pub(in crate::ops) struct Hands {
    /// Threads that may work at this pack.
    pub(super) threads: usize,
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
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(number) else { break };
            // Of the last ones some are larger than others, and nobody should be left without work.
            hands.threads = (workers / items.len().saturating_sub(number).clamp(1, workers.max(1))).max(1);
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

/// A chunk in a pack, sorted by its place: record, offset inside, id, bytes of the record, its number, length.
type Chunk = (u32, Option<u32>, ChunkId, u32, u32, u32);

/// Opens every record of a pack by its own table and compares with the index. Returns the number of chunks.
pub(super) fn check_pack(
    repo: &Repo,
    name: &PackName,
    bytes: &mut [u8],
    expected: &[Located],
    threads: usize,
    (coder, scratch): (&mut Coder, &mut Vec<u8>),
) -> std::result::Result<u64, FormatError> {
    pack::check_name(name, bytes)?;
    let opening = Opening { repo, keys: &keys_of(repo, bytes)? };
    let records = pack::records(opening.keys, bytes)?;
    let mut found = opening.split(&records, bytes, 0, threads, (coder, scratch))?;
    found.sort_unstable();
    found.dedup();
    for at in expected {
        let p = at.place;
        if found.binary_search(&(p.offset, p.inside, p.id, p.record_len, p.number, p.len)).is_err() {
            return Err(FormatError::WrittenWrong("the index names a chunk that is not there"));
        }
    }
    Ok(found.len() as u64)
}

/// What the records of a pack are opened with.
#[derive(Clone, Copy)]
struct Opening<'o> {
    repo: &'o Repo,
    keys: &'o ObjectKeys,
}

impl Opening<'_> {
    /// Opens records on so many threads, each with its part of the pack. `bytes` begin at `base` of the pack.
    fn split(
        self,
        records: &[RecordAt],
        bytes: &mut [u8],
        base: u32,
        threads: usize,
        hands: (&mut Coder, &mut Vec<u8>),
    ) -> std::result::Result<Vec<Chunk>, FormatError> {
        let half = base.saturating_add((bytes.len() / 2) as u32);
        let at = records.partition_point(|record| record.offset < half);
        let (left, right) = records.split_at(at);
        let cut = right.first().map(|first| first.offset).filter(|_| threads > 1 && !left.is_empty());
        let Some(cut) = cut else { return self.all(records, bytes, base, hands) };
        let middle = cut.saturating_sub(base) as usize;
        let Some((head, tail)) = bytes.split_at_mut_checked(middle) else {
            return self.all(records, bytes, base, hands);
        };
        let rest = || self.split(right, tail, cut, threads / 2, (&mut Coder::default(), &mut Vec::new()));
        std::thread::scope(|scope| {
            let beside = scope.spawn(rest);
            let mut found = self.split(left, head, base, threads - threads / 2, hands)?;
            found.append(&mut beside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
            Ok(found)
        })
    }

    fn all(
        self,
        records: &[RecordAt],
        bytes: &mut [u8],
        base: u32,
        (coder, scratch): (&mut Coder, &mut Vec<u8>),
    ) -> std::result::Result<Vec<Chunk>, FormatError> {
        let mut found = Vec::with_capacity(records.len());
        for at in records {
            let record = bytes.get_mut(at.offset.saturating_sub(base) as usize..).unwrap_or_default();
            match open_record(self.repo.id_key(), self.keys, at.number, record, coder, scratch)?.0 {
                Content::Chunk(id, len) => found.push((at.offset, None, id, at.len, at.number, len)),
                Content::Bundle(chunks) => {
                    found.extend(chunks.iter().map(|(id, offset, len)| {
                        (at.offset, Some(*offset as u32), *id, at.len, at.number, *len as u32)
                    }))
                }
            }
        }
        Ok(found)
    }
}
