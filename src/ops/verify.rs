//! Verify: are the copies there, undamaged, and do the snapshots resolve?
//!
//! `presence`: every listed pack and segment is there with its size, every tree resolves. `ciphertext`:
//! every object's bytes fit its name or checksum; needs no key. `content`: every record of every pack is
//! opened, decoded and its chunk ids computed again, in every region.

use crate::base::{Cancel, ChunkId, PackName, Progress};
use crate::chunk::Coder;
use crate::error::{Error, Exit, Kind, Result};
use crate::format::envelope::{Kind as ObjectKind, OBJECT_BYTES_MAX};
use crate::format::tree::{Entry, EntryType};
use crate::format::{FormatError, pack, signed};
use crate::region::{Finding, RegionSet, Regions, lock};
use crate::repo::Repo;
use crate::repo::index::{Index, Located};
use crate::repo::open::{self, Chain};
use crate::repo::reader::{Content, Reader, keys_of, open_record};
use crate::repo::tree::{DirReader, ListReader, check_depth};
use crate::repo::view::View;
use crate::store::{Key, Listed, Prefix};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// How deep to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Listings, and trees through the index.
    Presence,
    /// Every byte against its hash, without a key.
    Ciphertext,
    /// Every chunk against its id.
    Content,
}

impl Level {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Level::Presence => "presence",
            Level::Ciphertext => "ciphertext",
            Level::Content => "content",
        }
    }
}

/// What was looked at in one region.
#[derive(Debug, Clone, Default)]
pub struct RegionReport {
    /// Region.
    pub region: String,
    /// Objects looked at.
    pub objects: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Chunks whose ids were computed.
    pub chunks: u64,
    /// Why it could not be looked at.
    pub failed: Option<String>,
    /// Snapshots visible here.
    pub snapshots: u64,
}

/// The result.
#[derive(Debug, Default)]
pub struct VerifyReport {
    /// By region.
    pub regions: Vec<RegionReport>,
    /// What is wrong: region and object.
    pub findings: Vec<Finding>,
    /// Files of snapshots that cannot be restored from any region.
    pub broken: Vec<String>,
    /// What newer objects vouch for and is gone.
    pub lost: Vec<String>,
    /// Snapshots looked at.
    pub snapshots: u64,
    /// Regions that lack something that another has.
    pub behind: Vec<String>,
}

impl VerifyReport {
    /// How it ended.
    pub fn exit(&self) -> Exit {
        let mut exit = Exit::Done;
        if self.regions.iter().any(|r| r.failed.is_some()) || !self.behind.is_empty() {
            exit = exit.worse(Exit::Behind);
        }
        if !self.findings.is_empty() || !self.broken.is_empty() || !self.lost.is_empty() {
            exit = exit.worse(Exit::Damage);
        }
        exit
    }
}

/// Levels that need the key.
///
/// # Errors
/// Nothing could be looked at, or interrupted.
pub fn run(
    repo: &Arc<Repo>,
    level: Level,
    workers: usize,
    progress: &Progress,
    cancel: &Cancel,
) -> Result<VerifyReport> {
    let view = View::load(repo)?;
    let index = Arc::new(Index::load(repo)?);
    let reader = Reader::new(Arc::clone(repo), Arc::clone(&index));
    let mut report = VerifyReport { lost: view.lost.clone(), ..VerifyReport::default() };
    let packs = index.packs();
    progress.bytes_expected.set(packs.values().map(|(line, on)| line.size * on.count() as u64).sum());
    let places = (level == Level::Content).then(|| places_by_pack(&index));
    let looking = Looking { repo, chain: open::chain(repo), level, packs, places, workers, progress, cancel };
    for ix in 0..repo.regions.len() {
        cancel.check()?;
        let mut here = RegionReport { region: repo.regions.region(ix).name.clone(), ..RegionReport::default() };
        here.snapshots = view.snapshots.values().filter(|s| s.regions.has(ix)).count() as u64;
        // One that is away or no copy of this repository is not looked at: that is no damage in it.
        let looked = match repo.regions.failure(ix).filter(|_| !repo.usable().has(ix)) {
            Some(e) => Err(e),
            None => looking.region(ix, &mut here),
        };
        match looked {
            Ok(()) => {}
            Err(e) if e.kind() == Kind::Cancelled => return Err(e),
            Err(e) => here.failed = Some(e.to_string()),
        }
        report.regions.push(here);
    }
    for (sid, why) in &view.damaged {
        report.broken.push(format!("snapshot {}: {why}", sid.short()));
    }
    trees(&reader, &view, &mut report, cancel)?;
    lacking(repo, &view, &index, &mut report);
    lacking_small(repo, &mut report);
    report.findings = repo.findings();
    if report.regions.iter().all(|r| r.failed.is_some()) {
        return Err(Error::new(Kind::Retry, "no region could be looked at"));
    }
    Ok(report)
}

/// What every region is judged by.
struct Looking<'l> {
    repo: &'l Repo,
    chain: Chain,
    level: Level,
    packs: Packs,
    /// At level `content`.
    places: Option<Places>,
    workers: usize,
    progress: &'l Progress,
    cancel: &'l Cancel,
}

impl Looking<'_> {
    fn region(&self, ix: usize, here: &mut RegionReport) -> Result<()> {
        let regions = &self.repo.regions;
        let mut check = |key: &Key, bytes: &[u8]| check_signed(self.repo, &self.chain, key, bytes);
        small_objects(regions, ix, here, self.cancel, &mut check)?;
        let sound = check_packs(self.repo, ix, &self.packs, here)?;
        match (&self.places, self.level) {
            (Some(places), _) => self.contents(ix, &sound, places, here),
            (None, Level::Ciphertext) => ciphertexts(regions, ix, self.workers, self.progress, self.cancel, here),
            (None, _) => Ok(()),
        }
    }

    /// Every sound pack, record by record.
    fn contents(&self, ix: usize, packs: &[PackName], places: &Places, here: &mut RegionReport) -> Result<()> {
        let (regions, progress) = (&self.repo.regions, self.progress);
        let totals = Mutex::new((0u64, 0u64));
        parallel(packs, self.workers, self.cancel, |name| {
            let Some(bytes) = fetch_pack(regions, ix, name)? else { return Ok(()) };
            let size = bytes.len() as u64;
            progress.bytes_read.add(size);
            progress.bytes_done.add(size);
            let expected = places.get(name).map_or(&[][..], |all| all);
            match check_pack(self.repo, name, bytes.into(), expected) {
                Ok(chunks) => {
                    let mut totals = lock(&totals);
                    totals.0 += size;
                    totals.1 += chunks;
                }
                Err(why) => regions.record(ix, &Key::Pack(*name).path(), why.to_string()),
            }
            Ok(())
        })?;
        let (bytes, chunks) = totals.into_inner().unwrap_or_default();
        here.bytes += bytes;
        here.chunks += chunks;
        Ok(())
    }
}

/// The level that needs no key: every object's bytes against its name or checksum.
///
/// # Errors
/// Nothing could be looked at, or interrupted.
pub fn ciphertext(regions: &Regions, workers: usize, progress: &Progress, cancel: &Cancel) -> Result<VerifyReport> {
    let mut report = VerifyReport::default();
    for ix in 0..regions.len() {
        let mut here = RegionReport { region: regions.region(ix).name.clone(), ..RegionReport::default() };
        let looked = match regions.failure(ix) {
            Some(e) => Err(e),
            None => small_objects(regions, ix, &mut here, cancel, &mut |_, _| Ok(()))
                .and_then(|()| ciphertexts(regions, ix, workers, progress, cancel, &mut here)),
        };
        match looked {
            Ok(()) => {}
            Err(e) if e.kind() == Kind::Cancelled => return Err(e),
            Err(e) => here.failed = Some(e.to_string()),
        }
        report.regions.push(here);
    }
    report.findings = regions.findings();
    if report.regions.iter().all(|r| r.failed.is_some()) {
        return Err(Error::new(Kind::Retry, "no region could be looked at"));
    }
    Ok(report)
}

/// Checks of one small object beyond its checksum.
type Check<'c> = dyn FnMut(&Key, &[u8]) -> std::result::Result<(), FormatError> + 'c;

fn small_objects(
    regions: &Regions,
    ix: usize,
    here: &mut RegionReport,
    cancel: &Cancel,
    check: &mut Check<'_>,
) -> Result<()> {
    let mut keys = vec![Key::Region];
    for prefix in Prefix::ALL.into_iter().filter(|p| *p != Prefix::Packs) {
        keys.extend(regions.list(ix, prefix)?.into_iter().map(|l| l.key));
    }
    for key in keys {
        cancel.check()?;
        let bytes = match regions.get(ix, &key, OBJECT_BYTES_MAX as u64) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == Kind::Retry => return Err(e),
            Err(e) => {
                regions.record(ix, &key.path(), e.what());
                continue;
            }
        };
        here.objects += 1;
        here.bytes += bytes.len() as u64;
        let sum = match key {
            Key::Index(name) if blake3::hash(&bytes).as_bytes() == name.bytes() => Ok(()),
            Key::Index(_) => Err(FormatError::Damaged("name")),
            _ => signed::check_sum(&bytes).map(drop),
        };
        if let Err(why) = sum.and_then(|()| check(&key, &bytes)) {
            regions.record(ix, &key.path(), why.to_string());
        }
    }
    Ok(())
}

fn check_signed(repo: &Repo, chain: &Chain, key: &Key, bytes: &[u8]) -> std::result::Result<(), FormatError> {
    match key {
        Key::Index(_) => crate::repo::index::open_segment(repo, key, bytes).map(drop),
        Key::Slot(id) => open::open_slot_object(bytes, &repo.id, *id).map(drop),
        Key::Config(number, _) => match chain.get(number) {
            Some(digest) if *digest == signed::check_sum(bytes)?.1 => Ok(()),
            _ => Err(FormatError::Unsigned("not a link of the chain of configurations")),
        },
        // The mark was judged when the repository was opened.
        Key::Region | Key::Pack(_) => Ok(()),
        _ => check_kind(key, repo.open_object(key, bytes)?.kind),
    }
}

/// Only the kind that belongs to a key counts there.
fn check_kind(key: &Key, kind: ObjectKind) -> std::result::Result<(), FormatError> {
    use ObjectKind as K;
    let fits = match key {
        Key::Snapshot(_) => matches!(kind, K::Manifest | K::Tombstone | K::Repack),
        Key::Session(_) => kind == K::Session,
        Key::Forgotten(_) => kind == K::Forgotten,
        Key::Hold(_) => kind == K::Hold,
        Key::HoldRelease(_) => kind == K::HoldRelease,
        Key::EpochBegin(..) => kind == K::EpochBegin,
        Key::EpochEnd(..) => kind == K::EpochEnd,
        Key::Index(_) | Key::Slot(_) | Key::Config(..) | Key::Region | Key::Pack(_) => true,
    };
    if fits { Ok(()) } else { Err(FormatError::Unsigned("another kind of object than belongs here")) }
}

/// Packs of the index against the listing; returns those that are there with their size.
fn check_packs(repo: &Repo, ix: usize, packs: &Packs, here: &mut RegionReport) -> Result<Vec<PackName>> {
    let listed: HashMap<Key, u64> =
        repo.regions.list(ix, Prefix::Packs)?.into_iter().map(|l: Listed| (l.key, l.size)).collect();
    let mut sound = Vec::new();
    for (name, (line, on)) in packs.iter().filter(|(_, (_, on))| on.has(ix)) {
        debug_assert!(on.has(ix));
        let key = Key::Pack(*name);
        here.objects += 1;
        match listed.get(&key) {
            None => repo.regions.record(ix, &key.path(), "missing"),
            Some(size) if *size != line.size => {
                repo.regions.record(ix, &key.path(), format!("has {size} bytes instead of {}", line.size));
            }
            Some(_) => sound.push(*name),
        }
    }
    Ok(sound)
}

/// Runs `each` for every item on several threads; stops at the first error.
fn parallel<T: Sync>(
    items: &[T],
    workers: usize,
    cancel: &Cancel,
    each: impl Fn(&T) -> Result<()> + Sync,
) -> Result<()> {
    let next = AtomicUsize::new(0);
    let failed: Mutex<Option<Error>> = Mutex::new(None);
    let work = || {
        while !cancel.raised() && lock(&failed).is_none() {
            let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) else { break };
            if let Err(e) = each(item) {
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
fn ciphertexts(
    regions: &Regions,
    ix: usize,
    workers: usize,
    progress: &Progress,
    cancel: &Cancel,
    here: &mut RegionReport,
) -> Result<()> {
    let packs: Vec<Listed> = regions.list(ix, Prefix::Packs)?;
    let totals = Mutex::new((0u64, 0u64));
    parallel(&packs, workers, cancel, |line| {
        let Key::Pack(name) = line.key else { return Ok(()) };
        let Some(bytes) = fetch_pack(regions, ix, &name)? else { return Ok(()) };
        progress.bytes_read.add(bytes.len() as u64);
        progress.bytes_done.add(bytes.len() as u64);
        let mut totals = lock(&totals);
        totals.0 += 1;
        totals.1 += bytes.len() as u64;
        drop(totals);
        if let Err(why) = pack::check_name(&name, &bytes) {
            regions.record(ix, &line.key.path(), why.to_string());
        }
        Ok(())
    })?;
    let (objects, bytes) = totals.into_inner().unwrap_or_default();
    here.objects += objects;
    here.bytes += bytes;
    Ok(())
}

/// A whole pack; `None` when it is not to be had, which is recorded.
fn fetch_pack(regions: &Regions, ix: usize, name: &PackName) -> Result<Option<bytes::Bytes>> {
    let key = Key::Pack(*name);
    match regions.get(ix, &key, OBJECT_BYTES_MAX as u64) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == Kind::Retry => Err(e),
        Err(e) => {
            regions.record(ix, &key.path(), e.what());
            Ok(None)
        }
    }
}

/// Every pack that is named, with the regions whose segments name it.
type Packs = BTreeMap<PackName, (crate::format::index::PackLine, RegionSet)>;

/// What the index says of each pack.
type Places = HashMap<PackName, Vec<Located>>;

fn places_by_pack(index: &Index) -> Places {
    let mut places: Places = HashMap::new();
    for at in index.all() {
        places.entry(at.pack.name).or_default().push(at);
    }
    places.values_mut().for_each(|all| all.sort_by_key(|at| (at.place.offset, at.place.inside)));
    places
}

/// Opens every record of a pack by its own table and compares with the index. Returns the number of chunks.
fn check_pack(
    repo: &Repo,
    name: &PackName,
    mut bytes: Vec<u8>,
    expected: &[Located],
) -> std::result::Result<u64, FormatError> {
    pack::check_name(name, &bytes)?;
    let keys = keys_of(repo, &bytes)?;
    let mut coder = Coder::default();
    let mut found: HashSet<(ChunkId, u32, u32, u32, Option<u32>, u32)> = HashSet::new();
    let mut scratch = Vec::new();
    for at in pack::records(&keys, &bytes)? {
        let record = bytes.get_mut(at.offset as usize..).unwrap_or_default();
        match open_record(repo.id_key(), &keys, at.number, record, &mut coder, &mut scratch)?.0 {
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

/// Walks every tree once; names files whose chunks are in no index or only in packs known to be gone everywhere.
fn trees(reader: &Reader, view: &View, report: &mut VerifyReport, cancel: &Cancel) -> Result<()> {
    let mut coder = Coder::default();
    let gone = gone_everywhere(reader);
    let mut walked: HashSet<ChunkId> = HashSet::new();
    for snapshot in view.newest_first() {
        cancel.check()?;
        report.snapshots += 1;
        let sid = snapshot.manifest.sid.short();
        // One path for all: in a deep tree those of the open directories would add up to gigabytes.
        let mut path = Vec::new();
        if let Err(why) = attributes_resolve(reader, &snapshot.manifest.root, &gone) {
            report.broken.push(format!("snapshot {sid}: /: {why}"));
        }
        let mut stack = vec![(0, DirReader::new(reader, snapshot.manifest.root.tree))];
        while let Some((prefix, dir)) = stack.last_mut() {
            cancel.check()?;
            let entry = match dir.next(&mut coder) {
                Ok(Some(entry)) => entry,
                Ok(None) => {
                    stack.pop();
                    continue;
                }
                Err(e) => {
                    let dir = path[..*prefix].strip_suffix(b"/").unwrap_or_default();
                    report.broken.push(format!("snapshot {sid}: /{}: {e}", shown(dir)));
                    stack.pop();
                    continue;
                }
            };
            path.truncate(*prefix);
            path.extend_from_slice(&entry.name);
            if let Err(why) = attributes_resolve(reader, &entry, &gone) {
                report.broken.push(format!("snapshot {sid}: /{}: {why}", shown(&path)));
            }
            match entry.kind {
                EntryType::Dir if entry.tree.is_some_and(|id| walked.insert(id)) => match check_depth(stack.len()) {
                    Ok(()) => {
                        path.push(b'/');
                        stack.push((path.len(), DirReader::new(reader, entry.tree)));
                    }
                    Err(e) => report.broken.push(format!("snapshot {sid}: /{}: {e}", shown(&path))),
                },
                EntryType::File => {
                    if let Err(why) = file_resolves(reader, &entry, &gone, &mut coder) {
                        report.broken.push(format!("snapshot {sid}: /{}: {why}", shown(&path)));
                    }
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// A path for a report: bytes that are no text are replaced, and control characters shown as what they are.
fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).escape_debug().to_string()
}

/// Packs with a finding in every region that can be reached.
fn gone_everywhere(reader: &Reader) -> HashSet<PackName> {
    let findings = reader.repo.findings();
    let mut bad: HashMap<&str, HashSet<&str>> = HashMap::new();
    for finding in &findings {
        bad.entry(&finding.object).or_default().insert(&finding.region);
    }
    let regions = reader.repo.usable().count();
    let gone = |name: &PackName| bad.get(Key::Pack(*name).path().as_str()).is_some_and(|at| at.len() >= regions);
    reader.index.packs().into_keys().filter(gone).collect()
}

/// Whether a chunk is named by the index and not only in packs known to be gone.
fn chunk_resolves(reader: &Reader, id: &ChunkId, gone: &HashSet<PackName>) -> bool {
    reader.index.locate(id).any(|at| !gone.contains(&at.pack.name))
}

/// Attributes that are kept out of line.
fn attributes_resolve(reader: &Reader, entry: &Entry, gone: &HashSet<PackName>) -> Result<()> {
    match entry.xattrs_ref {
        Some(id) if !chunk_resolves(reader, &id, gone) => {
            let what = format!("extended attributes: chunk {} is nowhere intact", id.short());
            Err(Error::new(Kind::Damage, what))
        }
        _ => Ok(()),
    }
}

fn file_resolves(reader: &Reader, entry: &Entry, gone: &HashSet<PackName>, coder: &mut Coder) -> Result<()> {
    let mut list = ListReader::new(reader, entry)?;
    while let Some(item) = list.next(coder)? {
        if item.id != ChunkId::HOLE && !chunk_resolves(reader, &item.id, gone) {
            let what = format!("chunk {} is nowhere intact", item.id.short());
            return Err(Error::new(Kind::Damage, what));
        }
    }
    Ok(())
}

/// Small objects that one region shows undamaged and another lacks.
fn lacking_small(repo: &Repo, report: &mut VerifyReport) {
    let findings = repo.findings();
    for prefix in [Prefix::Keys, Prefix::Config, Prefix::Epochs, Prefix::Forgotten, Prefix::Holds] {
        let mut holders: BTreeMap<Key, Vec<usize>> = BTreeMap::new();
        for ix in repo.usable().iter() {
            for line in repo.regions.list(ix, prefix).unwrap_or_default() {
                holders.entry(line.key).or_default().push(ix);
            }
        }
        for (key, at) in holders {
            let path = key.path();
            let sound =
                |ix: &usize| !findings.iter().any(|f| f.object == path && f.region == repo.regions.region(*ix).name);
            if at.iter().any(sound) {
                let lacking = repo.usable().iter().filter(|ix| !at.contains(ix));
                report.behind.extend(lacking.map(|ix| format!("region {} lacks {path}", repo.regions.region(ix).name)));
            }
        }
    }
}

/// Regions that lack a snapshot or a segment that another has.
fn lacking(repo: &Repo, view: &View, index: &Index, report: &mut VerifyReport) {
    for ix in repo.usable().iter() {
        let snapshots = view.snapshots.values().filter(|s| !s.regions.has(ix)).count();
        let segments = index.segments().iter().filter(|s| !s.regions.has(ix)).count();
        if snapshots + segments > 0 {
            let name = &repo.regions.region(ix).name;
            report.behind.push(format!("region {name} lacks {snapshots} snapshots and {segments} index segments"));
        }
    }
}
