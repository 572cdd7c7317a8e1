//! Put-back: where a check found an object damaged or missing in one region and another has it good, the damaged one is
//! set aside under `quarantine/`, the good one put in its place and read back.
//!
//! Order, which is what a crash leaves: the damaged bytes are kept → their record is → the good ones replace them, at
//! once or not at all. So at every instant the damaged or the good object stands at the key, and nothing is put
//! anywhere that is not, byte for byte, the object of that key: its BLAKE3 is the name, or checksum and signature verify
//! for that very key. Packs come before the segments that name them, segments before snapshots; a snapshot is put back
//! only where everything that it needs is. What was never there is not brought here: [`super::catch_up`] does that.

mod judge;
mod quarantine;

pub use judge::Judge;

use super::catch_up::{self, CaughtUp};
use super::complete::{self, Known};
use super::ledger::Ledger;
use super::scrub::Scrub;
use super::verify::{VerifyReport, behind_still, parallel};
use crate::base::{Cancel, Env, Pace, PackName, QuarantineId, RepoId};
use crate::catalog::PackLook;
use crate::error::{Error, Kind, Result};
use crate::format::FormatError;
use crate::format::envelope::OBJECT_BYTES_MAX;
use crate::format::signed;
use crate::format::snapshot::Manifest;
use crate::region::{Finding, Flaw, RegionSet, Regions, lock};
use crate::repo::Repo;
use crate::repo::gather::gather;
use crate::repo::index::Index;
use crate::repo::reader::Reader;
use crate::store::{Key, Prefix, Put, Replaced};
use bytes::Bytes;
use judge::There;
use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// What became of one damaged object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// A good copy stands there now: from which region or regions, and whether the store keeps the damaged one as an older version.
    PutBack {
        /// The region that it came from.
        from: String,
        /// Whether the store keeps what it replaced.
        version_kept: bool,
    },
    /// It was good when it was read again.
    Sound,
    /// It is as it was: why.
    Left(String),
}

/// One damaged object.
#[derive(Debug, Clone)]
pub struct Mended {
    /// Region.
    pub region: String,
    /// Object.
    pub object: String,
    /// What became of it.
    pub done: Done,
    /// Where the damaged bytes are kept.
    pub kept: Option<QuarantineId>,
}

/// What a repair did.
#[derive(Debug, Default)]
pub struct RepairReport {
    /// Each damaged object.
    pub objects: Vec<Mended>,
    /// What regions lacked and was brought.
    pub caught_up: CaughtUp,
    /// Bytes read for it.
    pub bytes_read: u64,
    /// Bytes written.
    pub bytes_written: u64,
}

impl RepairReport {
    /// Objects that were put back.
    pub fn put_back(&self) -> u64 {
        self.objects.iter().filter(|one| matches!(one.done, Done::PutBack { .. })).count() as u64
    }

    /// What was mended afterwards.
    fn add(&mut self, more: RepairReport) {
        self.objects.extend(more.objects);
        self.bytes_read += more.bytes_read;
        self.bytes_written += more.bytes_written;
    }

    /// Damaged objects that are as they were.
    pub fn left(&self) -> u64 {
        self.objects.iter().filter(|one| matches!(one.done, Done::Left(_))).count() as u64
    }
}

/// A copy to be mended.
#[derive(Debug, Clone)]
struct Target {
    ix: usize,
    key: Key,
    flaw: Flaw,
    what: String,
}

/// What a repair may do that nobody watches.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bounds {
    /// So many bytes are moved, read and written, and then no more; the next repair goes on.
    pub bytes_max: Option<u64>,
    /// Bytes are moved no faster than so many a second.
    pub rate: Option<u64>,
    /// A region most of whose packs are missing is left to a person: a mount may be missing, not the packs.
    pub wary: bool,
}

/// What a restore mends on its way, at most, bytes: whoever waits for files waits for no whole region.
const BY_THE_WAY: Bounds = Bounds { bytes_max: Some(1 << 30), rate: None, wary: true };
/// So many missing packs are not most of a region, however few it has.
const MISSING_MIN: usize = 16;

/// Repairs the regions of one repository.
pub struct Repair<'r> {
    /// The regions.
    pub regions: &'r Regions,
    /// The repository.
    pub id: RepoId,
    /// What is good.
    pub judge: Judge<'r>,
    /// Which packs were mended is told to it.
    pub ledger: Option<&'r Ledger>,
    /// The clock.
    pub env: &'r Env,
    /// Threads.
    pub workers: usize,
    /// Ends it between two objects.
    pub cancel: &'r Cancel,
    /// What it may do.
    pub bounds: Bounds,
}

/// Work that is going on.
struct Work<'w> {
    with: &'w Repair<'w>,
    /// Dead for good, or about to be judged: not to be brought back.
    bad: HashSet<PackName>,
    /// Regions that are left to a person.
    bare: RegionSet,
    pace: Option<Pace>,
    read: AtomicU64,
    written: AtomicU64,
    done: Mutex<Vec<(Target, Mended)>>,
}

impl Repair<'_> {
    /// Mends what is mended by putting a good copy back.
    ///
    /// # Errors
    /// Interrupted. What could not be mended is in the report.
    pub fn run(&self, findings: &[Finding]) -> Result<RepairReport> {
        let mut report = RepairReport::default();
        let all = self.targets(findings, &mut report);
        let mut work = Work {
            with: self,
            bad: HashSet::new(),
            bare: self.bare(&all),
            pace: self.bounds.rate.map(|rate| Pace::new(rate, self.cancel)),
            read: AtomicU64::new(0),
            written: AtomicU64::new(0),
            done: Mutex::default(),
        };
        let mut read = false;
        let mut phases: BTreeMap<u8, Vec<Target>> = BTreeMap::new();
        for target in all {
            phases.entry(phase(&target.key)).or_default().push(target);
        }
        for (phase, targets) in phases {
            if phase > 0 && !read {
                work.bad = self.judge.repo().map(|repo| repo.epochs_afresh().going()).unwrap_or_default();
                read = true;
            }
            // What a snapshot needs is mended by now.
            let reader = match self.judge.repo().filter(|_| phase == SNAPSHOTS) {
                Some(repo) => Some(Reader::new(Arc::clone(repo), Arc::new(Index::load_afresh(repo)?))),
                None => None,
            };
            let known = Mutex::new(Known::default());
            parallel(&targets, self.workers, self.cancel, |target, _| {
                let mended = work.one(target, reader.as_ref().map(|reader| (reader, &known)))?;
                lock(&work.done).push((target.clone(), mended));
                Ok(())
            })?;
        }
        let done = work.done.into_inner().unwrap_or_default();
        self.tell(&done);
        report.objects.extend(done.into_iter().map(|(_, mended)| mended));
        report.objects.sort_by(|a, b| (&a.object, &a.region).cmp(&(&b.object, &b.region)));
        (report.bytes_read, report.bytes_written) = (work.read.into_inner(), work.written.into_inner());
        Ok(report)
    }

    /// Each damaged copy once, in an order that does not depend on which thread found it first. What lies at no key of ours is left to a person.
    fn targets(&self, findings: &[Finding], report: &mut RepairReport) -> Vec<Target> {
        let ix_of = |name: &str| (0..self.regions.len()).find(|ix| self.regions.region(*ix).name == name);
        let (mut seen, mut targets) = (HashSet::new(), Vec::new());
        // Of what is said of one copy, what says most comes first.
        let mut findings: Vec<&Finding> = findings.iter().collect();
        let vague = |one: &Finding| matches!(one.flaw, Flaw::Written | Flaw::Other);
        findings.sort_by_key(|one| (&one.object, &one.region, vague(one), &one.what));
        for finding in findings {
            if !seen.insert((&finding.region, &finding.object)) {
                continue;
            }
            match (ix_of(&finding.region), Key::parse(&finding.object)) {
                (Some(ix), Some(key)) => {
                    targets.push(Target { ix, key, flaw: finding.flaw, what: finding.what.clone() });
                }
                _ => report.objects.push(Mended {
                    region: finding.region.clone(),
                    object: finding.object.clone(),
                    done: Done::Left("it is no object of this format; remove it by hand".into()),
                    kept: None,
                }),
            }
        }
        targets
    }

    /// Regions that lack more packs than they have.
    fn bare(&self, targets: &[Target]) -> RegionSet {
        let lacks = |ix: usize| {
            let gone = |t: &&Target| t.ix == ix && t.flaw == Flaw::Missing && matches!(t.key, Key::Pack(_));
            let missing = targets.iter().filter(gone).count();
            missing > MISSING_MIN && self.regions.list(ix, Prefix::Packs).map_or(true, |there| there.len() < missing)
        };
        RegionSet::of((0..self.regions.len()).filter(|ix| self.bounds.wary && lacks(*ix)))
    }

    /// Packs that are good now are so for the catalog too.
    fn tell(&self, done: &[(Target, Mended)]) {
        for ix in 0..self.regions.len() {
            let Some(scrub) = Scrub::begin(self.ledger, self.regions, ix, PackLook::Ciphertext) else { continue };
            for (target, mended) in done.iter().filter(|(target, _)| target.ix == ix) {
                if let (Key::Pack(name), Done::PutBack { .. } | Done::Sound) = (&target.key, &mended.done) {
                    scrub.looked(name, None);
                }
            }
        }
    }
}

/// Mends what a check with a key found, then brings every region what it lacks.
///
/// # Errors
/// Interrupted, or this program must not write here.
pub fn after(
    repo: &Arc<Repo>,
    findings: &[Finding],
    ledger: Option<&Ledger>,
    workers: usize,
    cancel: &Cancel,
) -> Result<RepairReport> {
    everything(repo, findings, (ledger, Bounds::default()), workers, cancel)
}

/// The same by itself, after a check that nobody watches; what is still behind then is in its report.
///
/// # Errors
/// As [`after`]: the report stands as it was.
pub fn unwatched(
    repo: &Arc<Repo>,
    report: &mut VerifyReport,
    (ledger, bounds): (&Ledger, Bounds),
    workers: usize,
    cancel: &Cancel,
) -> Result<RepairReport> {
    let done = everything(repo, &report.findings, (Some(ledger), bounds), workers, cancel)?;
    behind_still(repo, report)?;
    Ok(done)
}

fn everything(
    repo: &Arc<Repo>,
    findings: &[Finding],
    ledger: (Option<&Ledger>, Bounds),
    workers: usize,
    cancel: &Cancel,
) -> Result<RepairReport> {
    let mut report = mend(repo, findings, ledger, workers, cancel)?;
    report.caught_up = catch_up::run(repo, workers, cancel)?;
    // What stands in the way of what is brought was not checked before: no segment of that region names it.
    let met: Vec<Finding> = repo.findings().into_iter().filter(|found| !findings.contains(found)).collect();
    if !met.is_empty() {
        report.add(mend(repo, &met, ledger, workers, cancel)?);
        let again = catch_up::run(repo, workers, cancel)?;
        report.caught_up.count(again);
        report.caught_up.lacking = again.lacking;
    }
    report.caught_up.count(catch_up::records(repo, workers, cancel)?);
    // Bringing up goes by the epochs as they were when the repository was opened.
    repo.epochs_afresh();
    Ok(report)
}

/// Mends what was found in passing, and no more.
///
/// # Errors
/// As [`after`].
pub fn found(repo: &Arc<Repo>, findings: &[Finding], workers: usize, cancel: &Cancel) -> Result<RepairReport> {
    mend(repo, findings, (None, BY_THE_WAY), workers, cancel)
}

fn mend(
    repo: &Arc<Repo>,
    findings: &[Finding],
    (ledger, bounds): (Option<&Ledger>, Bounds),
    workers: usize,
    cancel: &Cancel,
) -> Result<RepairReport> {
    repo.may_write()?;
    let judge = Judge::of(repo);
    let (regions, id, env) = (&*repo.regions, repo.id, &repo.env);
    Repair { regions, id, judge, ledger, env, workers, cancel, bounds }.run(findings)
}

/// Snapshots come last.
const SNAPSHOTS: u8 = 4;

/// Epochs come first: they say which regions may be written, and which packs are dead.
fn phase(key: &Key) -> u8 {
    match key {
        Key::EpochBegin(..) | Key::EpochEnd(..) => 0,
        Key::Pack(_) => 1,
        Key::Index(_) => 2,
        Key::Snapshot(_) => SNAPSHOTS,
        _ => 3,
    }
}

/// Whether what stands there is not to be replaced.
fn stays(checked: std::result::Result<(), FormatError>, flaw: Flaw) -> Option<Done> {
    let left = |why: &str| Some(Done::Left(why.to_owned()));
    match (checked, flaw) {
        (Err(FormatError::Newer(_)), _) => left("a newer program wrote it; repair with that one"),
        (Err(_), _) => None,
        (Ok(()), Flaw::Written) => left("its bytes are as they were written; `backup --full` stores it again"),
        (Ok(()), Flaw::Other) => left("it is whole, and nothing may replace it"),
        (Ok(()), _) => Some(Done::Sound),
    }
}

impl Work<'_> {
    fn one(&self, target: &Target, reader: Option<(&Reader, &Mutex<Known>)>) -> Result<Mended> {
        let regions = self.with.regions;
        let mut mended = Mended {
            region: regions.region(target.ix).name.clone(),
            object: target.key.path(),
            done: Done::Sound,
            kept: None,
        };
        let before = self.moved();
        if self.with.bounds.bytes_max.is_some_and(|most| before >= most) {
            mended.done = Done::Left("more was damaged than one run may move; the next one goes on".into());
            return Ok(mended);
        }
        mended.done = match self.mend(target, reader, &mut mended.kept) {
            Ok(done) => done,
            Err(e) if e.kind() == Kind::Cancelled => return Err(e),
            Err(e) => Done::Left(e.to_string()),
        };
        if let Some(pace) = &self.pace {
            pace.book(self.moved().saturating_sub(before)).wait();
        }
        Ok(mended)
    }

    /// Bytes read and written so far.
    fn moved(&self) -> u64 {
        self.read.load(Ordering::Relaxed).saturating_add(self.written.load(Ordering::Relaxed))
    }

    fn mend(
        &self,
        target: &Target,
        reader: Option<(&Reader, &Mutex<Known>)>,
        kept: &mut Option<QuarantineId>,
    ) -> Result<Done> {
        let (regions, judge) = (self.with.regions, &self.with.judge);
        let Target { ix, key, .. } = target;
        if let Some(why) = self.refused(target) {
            return Ok(Done::Left(why.into()));
        }
        let there = self.there(*ix, key)?;
        if let There::Bytes(bytes, true) = &there
            && let Some(done) = stays(judge.check(key, bytes), target.flaw)
        {
            return Ok(done);
        }
        let Some((from, good)) = self.good(*ix, key).or_else(|| self.gathered(*ix, key, &there)) else {
            return Ok(Done::Left("no region has it whole".into()));
        };
        if self.is_end(key, &good) && (there.may_be_manifest() || !self.all_asked()) {
            return Ok(Done::Left("elsewhere its session ended; what stands here may be the snapshot".into()));
        }
        if let Some(why) = self.not_yet(*ix, key, &good, reader)? {
            return Ok(Done::Left(why.into()));
        }
        let version_kept = match &there {
            There::Nothing => self.create(*ix, key, &good)?,
            There::Bytes(bytes, whole) => {
                *kept = Some(self.set_aside(target, Some((bytes, *whole)))?);
                self.replace(*ix, key, &good)?
            }
            There::Unreadable => {
                *kept = Some(self.set_aside(target, None)?);
                self.replace(*ix, key, &good)?
            }
        };
        self.written.fetch_add(good.len() as u64, Ordering::Relaxed);
        let back = regions.get(*ix, key, OBJECT_BYTES_MAX as u64)?;
        self.read.fetch_add(back.len() as u64, Ordering::Relaxed);
        if back != good {
            return Ok(Done::Left("it was put back, and the region does not show what was put".into()));
        }
        Ok(Done::PutBack { from: self.names(from), version_kept })
    }

    /// What is never put back.
    fn refused(&self, target: &Target) -> Option<&'static str> {
        let keyed = self.with.judge.repo();
        match target.key {
            _ if self.bare.has(target.ix) => Some(
                "most packs of this region are missing: if nothing has to be mounted, `verify --repair` fills it again",
            ),
            Key::Region => Some("the mark of a region is its own, and no other region has it"),
            Key::Pack(name) if self.bad.contains(&name) => Some("it is condemned, and is not brought back"),
            Key::Pack(_) | Key::Index(_) if keyed.is_none() && target.flaw == Flaw::Missing => {
                Some("without a key nobody knows whether it is wanted; use another level")
            }
            Key::Pack(_) | Key::Index(_) if keyed.is_none() => None,
            _ if keyed.is_none() => Some("it is signed, and a key is needed to mend it; use another level"),
            // A region that shows bad epochs must not be written for just that reason.
            Key::EpochBegin(..) | Key::EpochEnd(..) => None,
            _ if keyed.is_some_and(|repo| !repo.writable().has(target.ix)) => Some("the region must not be written"),
            _ => None,
        }
    }

    fn there(&self, ix: usize, key: &Key) -> Result<There> {
        let regions = self.with.regions;
        let most = OBJECT_BYTES_MAX as u64;
        let there = match regions.get(ix, key, most) {
            Ok(bytes) => There::Bytes(bytes, true),
            Err(e) if e.kind() == Kind::NotFound => There::Nothing,
            // Too long: what no object may have is not kept.
            Err(e) if e.kind() == Kind::Damage => match regions.get_range(ix, key, 0, most) {
                Ok(bytes) => There::Bytes(bytes, false),
                Err(e) => return Err(e),
            },
            Err(e) if super::verify::is_away(regions, ix, &e) => return Err(e),
            Err(e) if e.kind() == Kind::Denied => return Err(e),
            Err(_) => There::Unreadable,
        };
        if let There::Bytes(bytes, _) = &there {
            self.read.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        }
        Ok(there)
    }

    /// A copy that is the object of this key, from another region: a member before others. A snapshot comes before the end
    /// of its session.
    fn good(&self, ix: usize, key: &Key) -> Option<(RegionSet, Bytes)> {
        let mut end = None;
        let others = self.with.regions.healthy().without(ix);
        let first = self.with.judge.repo().map_or(others, |repo| others.and(repo.sources(repo.epochs())));
        for from in first.iter().chain(others.iter().filter(|from| !first.has(*from))) {
            let Ok(bytes) = self.with.regions.get(from, key, OBJECT_BYTES_MAX as u64) else { continue };
            self.read.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            if self.with.judge.check(key, &bytes).is_err() || !self.is_believed(from, key, &bytes) {
                continue;
            }
            match key {
                Key::Snapshot(_) if self.manifest(key, &bytes).is_none() => {
                    end = end.or(Some((RegionSet::of([from]), bytes)));
                }
                _ => return Some((RegionSet::of([from]), bytes)),
            }
        }
        end
    }

    /// Whether what a region shows may be put elsewhere. It is the object of that key, and stood there before; but of two epochs
    /// of one number only that of the branch that counts may be put anywhere, and slots have no signature.
    fn is_believed(&self, from: usize, key: &Key, bytes: &[u8]) -> bool {
        let Some(repo) = self.with.judge.repo() else { return true };
        let epochs = repo.epochs();
        match key {
            Key::EpochBegin(..) | Key::EpochEnd(..) => {
                signed::check_sum(bytes).is_ok_and(|(_, digest)| epochs.is_in_force(key, &digest))
            }
            Key::Slot(_) => repo.sources(epochs).has(from),
            _ => true,
        }
    }

    /// A pack that no region has whole, from the pieces that are good.
    fn gathered(&self, ix: usize, key: &Key, there: &There) -> Option<(RegionSet, Bytes)> {
        let (repo, Key::Pack(name)) = (self.with.judge.repo()?, key) else { return None };
        let mut copies = Vec::new();
        if let There::Bytes(bytes, _) = there {
            copies.push((ix, bytes.clone()));
        }
        for other in self.with.regions.healthy().without(ix).iter() {
            if let Ok(bytes) = self.with.regions.get(other, key, OBJECT_BYTES_MAX as u64) {
                self.read.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                copies.push((other, bytes));
            }
        }
        let (at, bytes): (Vec<usize>, Vec<Bytes>) = copies.into_iter().unzip();
        let (whole, used) = gather(repo, name, &bytes)?;
        let from = at.iter().zip(used).filter(|(_, used)| *used).map(|(ix, _)| *ix);
        Some((RegionSet::of(from), whole.into()))
    }

    fn names(&self, from: RegionSet) -> String {
        let names: Vec<&str> = from.iter().map(|ix| self.with.regions.region(ix).name.as_str()).collect();
        names.join(" and ")
    }

    /// Whether it says that a session ended without a snapshot.
    fn is_end(&self, key: &Key, good: &[u8]) -> bool {
        matches!(key, Key::Snapshot(_)) && self.manifest(key, good).is_none()
    }

    /// Whether no region is away that may have something better.
    fn all_asked(&self) -> bool {
        self.with.regions.healthy().count() == self.with.regions.len()
    }

    fn manifest(&self, key: &Key, bytes: &[u8]) -> Option<Manifest> {
        let opened = self.with.judge.repo()?.open_object(key, bytes).ok()?;
        opened.decode::<Manifest>("manifest").ok()
    }

    /// Visible means complete: a snapshot waits for what it needs.
    fn not_yet(
        &self,
        ix: usize,
        key: &Key,
        good: &Bytes,
        reader: Option<(&Reader, &Mutex<Known>)>,
    ) -> Result<Option<&'static str>> {
        let (Some((reader, known)), Key::Snapshot(_)) = (reader, key) else { return Ok(None) };
        let Some(manifest) = self.manifest(key, good) else { return Ok(None) };
        let only = RegionSet::of([ix]);
        let packs = self.with.regions.listed(only, Prefix::Packs);
        let listed = |name: &PackName| packs.get(&Key::Pack(*name)).copied().unwrap_or_default();
        // What is condemned goes, once the region lets it.
        let present = |name: &PackName| if self.bad.contains(name) { RegionSet::NONE } else { listed(name) };
        let lacks = |asked: &dyn Fn(&PackName) -> RegionSet| {
            let complete = complete::regions(reader, &mut lock(known), &manifest.root, (only, asked), self.with.cancel);
            complete.map(|complete| !complete.has(ix))
        };
        Ok(match lacks(&present)? {
            false => None,
            true if lacks(&listed)? => {
                Some("the region lacks parts of this snapshot; bring it up first, then repair again")
            }
            true => Some(
                "it rests on packs that a prune has condemned; let a prune come to its end, or give up the region \
                      for which it waits, then repair again",
            ),
        })
    }

    fn create(&self, ix: usize, key: &Key, good: &Bytes) -> Result<bool> {
        match self.with.regions.put(ix, key, good)? {
            Put::Created | Put::Same => Ok(false),
            Put::Other => Err(Error::new(Kind::Damage, "something else was put there meanwhile").at(key)),
        }
    }

    fn replace(&self, ix: usize, key: &Key, good: &Bytes) -> Result<bool> {
        let done = self.with.regions.put_back(ix, key, good).map_err(|e| match e.kind() {
            Kind::Denied => {
                e.advise("these credentials, or a rule of the store, let nobody replace an object: repair with others")
            }
            _ => e,
        })?;
        Ok(done == Replaced::Kept)
    }
}
