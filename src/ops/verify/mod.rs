//! Verify: are the copies there, undamaged, and do the snapshots resolve?
//!
//! `presence`: every listed pack and segment is there with its size, every tree resolves. `ciphertext`:
//! every object's bytes fit its name or checksum; needs no key. `content`: every record of every pack is
//! opened, decoded and its chunk ids computed again, in every region.

mod packs;
mod part;
mod pruned;
mod told;
mod trees;

pub(super) use self::packs::parallel;
use self::packs::{Hands, Packs, Places, check_pack, ciphertexts, fetch_pack, places_by_pack};
pub use self::part::Part;
pub use self::told::Told;
use self::trees::trees_beside;
use super::back_in_time;
use super::ledger::Ledger;
use super::scrub::Scrub;
use crate::base::{Cancel, Pace, PackName, Progress, RepoId};
use crate::catalog::PackLook;
use crate::error::{Error, Exit, Kind, Result};
use crate::format::envelope::{Kind as ObjectKind, OBJECT_BYTES_MAX};
use crate::format::{FormatError, pack, signed};
use crate::region::{Ahead, Finding, Flaw, RegionSet, Regions, by_key, lock};
use crate::repo::Repo;
use crate::repo::index::cache::Cache;
use crate::repo::index::{Index, LoadedSegment};
use crate::repo::keys;
use crate::repo::open::{self, Chain};
use crate::repo::reader::Reader;
use crate::repo::view::View;
use crate::store::{Key, Listed, Prefix};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
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
    /// Whether there was a key to look with.
    pub keyed: bool,
    /// What snapshots of models say of their verdicts.
    pub verdicts: Vec<Told>,
}

/// How deep, how much of it, and how fast.
#[derive(Debug, Clone, Copy)]
pub struct Wish {
    /// How deep.
    pub level: Level,
    /// Threads.
    pub workers: usize,
    /// How many packs are read.
    pub part: Part,
    /// Packs are read no faster than so many bytes a second, over all regions.
    pub rate: Option<u64>,
}

impl Wish {
    /// All of it.
    pub fn all(level: Level, workers: usize) -> Wish {
        Wish { level, workers, part: Part::default(), rate: None }
    }

    fn pace(&self, cancel: &Cancel) -> Option<Pace> {
        self.rate.map(|rate| Pace::new(rate, cancel))
    }
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
    wish: &Wish,
    ledger: Option<&Ledger>,
    progress: &Progress,
    cancel: &Cancel,
) -> Result<VerifyReport> {
    let view = View::load(repo)?;
    // What the regions themselves can do is the question.
    let index = Arc::new(Index::load_afresh(repo)?);
    let reader = Reader::new(Arc::clone(repo), Arc::clone(&index));
    let mut report =
        VerifyReport { lost: view.lost.clone(), keyed: true, verdicts: told::of(&view), ..VerifyReport::default() };
    if let Some(ledger) = ledger {
        report.lost.extend(back_in_time::regions(repo, &view, ledger));
    }
    let (mut packs, doomed) = (index.packs(), pruned::doomed(repo));
    packs.retain(|name, _| !doomed.contains(name));
    let total = packs.values().map(|(line, on)| line.size * on.count() as u64).sum();
    progress.bytes_expected.set(if wish.level == Level::Presence { 0 } else { wish.part.expected(total) });
    let places = if wish.level == Level::Content { places_by_pack(&index) } else { Places::new() };
    let pace = wish.pace(cancel);
    let looking = Looking { repo, wish, pace, ledger, chain: open::chain(repo), packs, places, progress, cancel };
    for (sid, why) in &view.damaged {
        report.broken.push(format!("snapshot {}: {why}", sid.short()));
    }
    trees_beside((&reader, &view), wish.workers, &mut report, cancel, |report| looking.all(&view, report))?;
    for slot in keys::list(repo) {
        keys::is_disputed(repo, slot.id, repo.usable());
    }
    lacking(repo, &view, &index, &mut report);
    lacking_small(repo, &mut report);
    report.findings = pruned::findings(repo);
    distrust(repo, &report.findings);
    if report.regions.iter().all(|r| r.failed.is_some()) {
        return Err(Error::new(Kind::Retry, "no region could be looked at"));
    }
    Ok(report)
}

/// Where a segment, an outcome or a marker was found damaged, what this machine knows of it must not hide that from the
/// next backup: what no region can say any more is to be stored again.
fn distrust(repo: &Repo, findings: &[Finding]) {
    if let Some(cache) = repo.index_cache().filter(|_| names_known(findings)) {
        cache.clear();
    }
}

/// The same after a check without a key: for what is known of repository `id` in the folder `state`.
pub fn distrust_local(state: &Path, id: &RepoId, findings: &[Finding]) {
    if names_known(findings) {
        Cache::discard(state, id);
    }
}

/// Whether something is among the findings of which this machine keeps what it read.
fn names_known(findings: &[Finding]) -> bool {
    let known = |finding: &Finding| {
        matches!(Key::parse(&finding.object), Some(Key::Index(_) | Key::Snapshot(_) | Key::Forgotten(_)))
    };
    findings.iter().any(known)
}

/// What every region is judged by.
struct Looking<'l> {
    repo: &'l Repo,
    wish: &'l Wish,
    pace: Option<Pace>,
    ledger: Option<&'l Ledger>,
    chain: Chain,
    packs: Packs,
    /// At level `content`.
    places: Places,
    progress: &'l Progress,
    cancel: &'l Cancel,
}

impl Looking<'_> {
    /// Every region.
    fn all(&self, view: &View, report: &mut VerifyReport) -> Result<()> {
        let repo = self.repo;
        for ix in 0..repo.regions.len() {
            self.cancel.check()?;
            let mut here = RegionReport { region: repo.regions.region(ix).name.clone(), ..RegionReport::default() };
            here.snapshots = view.snapshots.values().filter(|s| s.regions.has(ix)).count() as u64;
            // One that is away or no copy of this repository is not looked at: that is no damage in it.
            let looked = match repo.regions.failure(ix).filter(|_| !repo.usable().has(ix)) {
                Some(e) => Err(e),
                None => self.region(ix, &mut here),
            };
            match looked {
                Ok(()) => {}
                Err(e) if e.kind() == Kind::Cancelled => return Err(e),
                Err(e) => here.failed = Some(e.to_string()),
            }
            report.regions.push(here);
        }
        Ok(())
    }

    fn region(&self, ix: usize, here: &mut RegionReport) -> Result<()> {
        let regions = &self.repo.regions;
        let mut check = |key: &Key, bytes: &[u8]| check_signed(self.repo, &self.chain, key, bytes);
        small_objects(regions, ix, here, self.cancel, &mut check)?;
        let look = if self.wish.level == Level::Content { PackLook::Content } else { PackLook::Ciphertext };
        let scrub = Scrub::begin(self.ledger, regions, ix, look);
        let sound = check_packs(self.repo, ix, &self.packs, here)?;
        let all: Vec<PackName> = self.packs.iter().filter(|(_, (_, on))| on.has(ix)).map(|(name, _)| *name).collect();
        let there: HashSet<PackName> = sound.iter().copied().collect();
        let waiting = scrub.as_ref().and_then(|scrub| {
            let waiting = scrub.waiting(&all)?;
            // No segment names them.
            scrub.drop_packs(&waiting.others);
            all.iter().filter(|name| !there.contains(*name)).for_each(|name| scrub.missing(name));
            Some(waiting.order)
        });
        let sound = self.wish.part.order(waiting, &all, sound);
        if self.wish.level == Level::Presence {
            return Ok(());
        }
        let size = |name: &PackName| self.packs.get(name).map_or(0, |(line, _)| line.size);
        let total = all.iter().map(size).sum();
        let chosen = self.wish.part.cut(sound, total, size);
        still_damaged(regions, ix, scrub.as_ref(), &there, &chosen);
        self.contents(ix, &chosen, scrub.as_ref(), here)
    }

    /// These packs, against their names or record by record.
    fn contents(
        &self,
        ix: usize,
        packs: &[PackName],
        scrub: Option<&Scrub<'_>>,
        here: &mut RegionReport,
    ) -> Result<()> {
        let (regions, progress) = (&self.repo.regions, self.progress);
        let totals = Mutex::new((0u64, 0u64));
        parallel(packs, self.wish.workers, self.cancel, |name, Hands { threads, buffer, coder, scratch }| {
            let fetched = fetch_pack(regions, ix, name, (self.pace.as_ref(), scrub), buffer)?;
            let Some(bytes) = fetched else { return Ok(()) };
            let size = bytes.len() as u64;
            progress.bytes_read.add(size);
            progress.bytes_done.add(size);
            let checked = match self.wish.level {
                Level::Content => {
                    let expected = self.places.get(name).map_or(&[][..], |all| all);
                    check_pack(self.repo, name, bytes, expected, *threads, (coder, scratch))
                }
                Level::Presence | Level::Ciphertext => pack::check_name(name, bytes).map(|()| 0),
            };
            if let Some(scrub) = scrub {
                scrub.looked(name, checked.as_ref().err().map(ToString::to_string));
            }
            match checked {
                Ok(chunks) => {
                    let mut totals = lock(&totals);
                    totals.0 += size;
                    totals.1 += chunks;
                }
                Err(why) => regions.record(ix, &Key::Pack(*name).path(), &why),
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
pub fn ciphertext(
    regions: &Regions,
    wish: &Wish,
    ledger: Option<&Ledger>,
    progress: &Progress,
    cancel: &Cancel,
) -> Result<VerifyReport> {
    let mut report = VerifyReport::default();
    for ix in 0..regions.len() {
        let mut here = RegionReport { region: regions.region(ix).name.clone(), ..RegionReport::default() };
        let looked = match regions.failure(ix) {
            Some(e) => Err(e),
            None => small_objects(regions, ix, &mut here, cancel, &mut |_, _| Ok(())).and_then(|()| {
                let scrub = Scrub::begin(ledger, regions, ix, PackLook::Ciphertext);
                ciphertexts(regions, ix, (wish, scrub.as_ref()), progress, cancel, &mut here)
            }),
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

/// Whether an object could not be read because its region cannot be used now. Where the region's mark can still be
/// read it is the object that cannot, as on a bad sector: that must not keep all others from being looked at.
pub(super) fn is_away(regions: &Regions, ix: usize, e: &Error) -> bool {
    e.kind() == Kind::Retry && regions.get(ix, &Key::Region, OBJECT_BYTES_MAX as u64).is_err()
}

/// Names the packs that an earlier check found damaged and that it is not the turn of: a check that reads others must not
/// look as if they were mended.
fn still_damaged(
    regions: &Regions,
    ix: usize,
    scrub: Option<&Scrub<'_>>,
    there: &HashSet<PackName>,
    chosen: &[PackName],
) {
    let chosen: HashSet<&PackName> = chosen.iter().collect();
    let known = scrub.map(Scrub::known_damage).unwrap_or_default();
    for (name, why) in known.iter().filter(|(name, _)| there.contains(name) && !chosen.contains(name)) {
        regions.record(
            ix,
            &Key::Pack(*name).path(),
            (Flaw::Bytes, format!("{why}; found by an earlier check and not read by this one")),
        );
    }
}

/// Checks of one small object beyond its checksum.
type Check<'c> = dyn FnMut(&Key, &[u8]) -> std::result::Result<(), FormatError> + 'c;

/// Reads every small object of a region, those of buckets side by side.
fn small_objects(
    regions: &Regions,
    ix: usize,
    here: &mut RegionReport,
    cancel: &Cancel,
    check: &mut Check<'_>,
) -> Result<()> {
    let lines = regions.list_at(ix, Prefix::ALL.into_iter().filter(|prefix| *prefix != Prefix::Packs))?;
    let mut ahead = Ahead::of(regions, lines.iter().map(|line| (line.key, RegionSet::of([ix]), line.size)));
    let mut missing = Vec::new();
    for key in std::iter::once(Key::Region).chain(lines.into_iter().map(|line| line.key)) {
        cancel.check()?;
        let read = ahead.take(regions, &key).map(|(_, bytes)| Ok(bytes));
        let bytes = match read.unwrap_or_else(|| regions.get(ix, &key, OBJECT_BYTES_MAX as u64)) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == Kind::NotFound && pruned::may_go(&key) => {
                missing.push((key, e));
                continue;
            }
            Err(e) if is_away(regions, ix, &e) => return Err(e),
            Err(e) => {
                regions.record(ix, &key.path(), &e);
                continue;
            }
        };
        here.objects += 1;
        here.bytes += bytes.len() as u64;
        if let Err(why) = check_sum_or_name(&key, &bytes).and_then(|()| check(&key, &bytes)) {
            regions.record(ix, &key.path(), &why);
        }
    }
    pruned::record_missing(regions, ix, &missing)
}

/// What needs no key: the name of a segment, the checksum of everything else.
pub(super) fn check_sum_or_name(key: &Key, bytes: &[u8]) -> std::result::Result<(), FormatError> {
    match key {
        Key::Index(name) if blake3::hash(bytes).as_bytes() == name.bytes() => Ok(()),
        Key::Index(_) => Err(FormatError::Damaged("name")),
        _ => signed::check_sum(bytes).map(drop),
    }
}

pub(super) fn check_signed(
    repo: &Repo,
    chain: &Chain,
    key: &Key,
    bytes: &[u8],
) -> std::result::Result<(), FormatError> {
    match key {
        Key::Index(_) => crate::repo::index::open_segment(repo, key, bytes).map(drop),
        Key::Slot(id) => keys::check_slot(repo, *id, bytes),
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
        Key::Run(_) => kind == K::Run,
        Key::Tags(_) => kind == K::Tags,
        Key::Index(_) | Key::Slot(_) | Key::Config(..) | Key::Region | Key::Pack(_) => true,
        Key::Quarantine(_) | Key::QuarantineRecord(_) => false,
        Key::Probe(_) => false,
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
            None => repo.regions.record(ix, &key.path(), (Flaw::Missing, "missing".to_owned())),
            Some(size) if *size != line.size => {
                let what = format!("has {size} bytes instead of {}", line.size);
                repo.regions.record(ix, &key.path(), (Flaw::Size, what));
            }
            Some(_) => sound.push(*name),
        }
    }
    Ok(sound)
}

/// Small objects that one region shows undamaged and another lacks.
fn lacking_small(repo: &Repo, report: &mut VerifyReport) {
    let (findings, sources) = (repo.findings(), repo.sources(repo.epochs()));
    let small =
        [Prefix::Keys, Prefix::Config, Prefix::Epochs, Prefix::Forgotten, Prefix::Holds, Prefix::Tags, Prefix::Runs];
    for holders in repo.regions.list_several(repo.usable(), small).iter().map(by_key) {
        // A slot that no configuration lists opens nothing, and is brought nowhere.
        let dead = |key: &Key| matches!(key, Key::Slot(id) if !keys::is_listed(repo, *id));
        // Where its own key was squatted, one of a numbered series stands at another suffix.
        let mut all: BTreeMap<Key, (RegionSet, bool)> = BTreeMap::new();
        for (key, at) in holders.into_iter().filter(|(key, _)| !dead(key)) {
            let path = key.path();
            let sound = |ix: usize| {
                sources.has(ix)
                    && !findings.iter().any(|f| f.object == path && f.region == repo.regions.region(ix).name)
            };
            let (there, good) = all.entry(key.at_suffix(0)).or_default();
            (*there, *good) = (there.or(at), *good || at.iter().any(sound));
        }
        for (key, (at, _)) in all.into_iter().filter(|(_, (_, good))| *good) {
            let lacking = repo.usable().iter().filter(|ix| !at.has(*ix));
            report.behind.extend(lacking.map(|ix| format!("region {} lacks {key}", repo.regions.region(ix).name)));
        }
    }
}

/// The same regions again, once something was brought to them: which are still behind.
///
/// # Errors
/// As [`View::load`].
pub fn behind_still(repo: &Arc<Repo>, report: &mut VerifyReport) -> Result<()> {
    let (view, index) = (View::load(repo)?, Index::load_afresh(repo)?);
    report.behind.clear();
    lacking(repo, &view, &index, report);
    lacking_small(repo, report);
    lost_meanwhile(repo, report);
    Ok(())
}

/// Regions that failed after they were looked at: nobody knows any more what they lack.
fn lost_meanwhile(repo: &Repo, report: &mut VerifyReport) {
    let usable = repo.usable();
    let failed = report.regions.iter().enumerate().filter(|(ix, here)| !usable.has(*ix) && here.failed.is_none());
    report.behind.extend(failed.map(|(ix, here)| {
        let why = repo.regions.failure(ix).map_or_else(|| "it failed".to_owned(), |e| e.to_string());
        format!("region {} may lack something: {why}", here.region)
    }));
}

/// Regions that lack a snapshot or a segment that a member has. What only a region has that is none is brought to nobody.
fn lacking(repo: &Repo, view: &View, index: &Index, report: &mut VerifyReport) {
    let sources = repo.sources(repo.epochs());
    let lacks = |at: RegionSet, ix| !at.has(ix) && !at.and(sources).is_empty();
    let only_there = view.snapshots.values().filter(|s| s.regions.and(sources).is_empty()).count();
    if only_there > 0 {
        report
            .behind
            .push(format!("{only_there} snapshots are in no member; they can be restored, and stay where they are"));
    }
    let superseded = index.superseded(&repo.epochs_seen().doomed());
    let missed = |s: &LoadedSegment, ix| !superseded.get(&s.name).is_some_and(|at| at.has(ix));
    for ix in repo.usable().iter() {
        let snapshots = view.snapshots.values().filter(|s| lacks(s.regions, ix)).count();
        let segments = index.segments().filter(|s| lacks(s.regions, ix) && missed(s, ix)).count();
        if snapshots + segments > 0 {
            let name = &repo.regions.region(ix).name;
            report.behind.push(format!("region {name} lacks {snapshots} snapshots and {segments} index segments"));
        }
    }
}
