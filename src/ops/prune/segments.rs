//! The index as a prune needs it: complete, or not at all. A segment that is listed and cannot be read is as bad as a
//! listing that failed: good packs would look like ones that nobody names.

use crate::base::{Cancel, SegmentName, WriterId};
use crate::error::{Error, Kind, Result};
use crate::format::FormatError;
use crate::format::ring::role;
use crate::region::{Ahead, RegionSet, lift, lock};
use crate::repo::index::{Content, Index, Listing, Source, open_segment};
use crate::repo::{Repo, SMALL_OBJECT_BYTES_MAX};
use crate::store::{Key, Prefix};
use bytes::Bytes;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

/// Listings of one region until two of them agree.
const LISTINGS_MAX: usize = 8;
/// So many copies of segments are read side by side,
const READS_MAX: usize = 64;
/// and so many bytes of them, but for one: a large one has 14 MiB.
const READ_BYTES_MAX: u64 = 32 << 20;
/// Attempts to load an index of which somebody else removes segments meanwhile.
const ROUNDS_MAX: usize = 5;

/// What one copy of a segment is.
enum Copy {
    Good,
    /// Whole, and nobody's who may write: junk.
    Junk,
    /// Removed after it was listed.
    Gone,
}

fn copy_of(repo: &Repo, name: SegmentName, ix: usize, content: &mut Option<Content>) -> Result<Copy> {
    judge(repo, name, ix, repo.regions.get(ix, &Key::Index(name), SMALL_OBJECT_BYTES_MAX), content)
}

fn judge(
    repo: &Repo,
    name: SegmentName,
    ix: usize,
    read: Result<Bytes>,
    content: &mut Option<Content>,
) -> Result<Copy> {
    let key = Key::Index(name);
    let place = || format!("region {}", repo.regions.region(ix).name);
    let bytes = match read {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == Kind::NotFound => return Ok(Copy::Gone),
        Err(e) => return Err(e),
    };
    let why = match open_segment(repo, &key, &bytes) {
        Ok(opened) => {
            *content = Some(opened);
            return Ok(Copy::Good);
        }
        Err(why) => why,
    };
    repo.regions.record(ix, &key.path(), &why);
    match why {
        FormatError::Foreign | FormatError::Unsigned(_) | FormatError::Malformed(..) => Ok(Copy::Junk),
        why => Err(lift(why).with_kind(Kind::Damage).at(key).at(place()).advise(
            "an index that cannot be read hides good packs: `holdfast verify --repair` first; nothing was removed",
        )),
    }
}

/// Reads segments and keeps what was wrong.
struct Strict {
    repo: Arc<Repo>,
    ahead: Mutex<Ahead>,
    whole: bool,
    failed: Mutex<Option<Error>>,
    gone: Mutex<bool>,
}

impl Strict {
    fn fail(&self, e: Error) {
        lock(&self.failed).get_or_insert(e);
    }
}

impl Source for Strict {
    fn prepare(&self, wanted: &[(SegmentName, RegionSet, u64)]) {
        let wanted = wanted.iter().map(|(name, at, size)| (Key::Index(*name), *at, *size));
        *lock(&self.ahead) = Ahead::of(&self.repo.regions, wanted);
    }

    fn read(&self, name: SegmentName, at: RegionSet) -> Option<Content> {
        let key = Key::Index(name);
        let check = |bytes: &[u8]| open_segment(&self.repo, &key, bytes);
        if let Some(read) = lock(&self.ahead).open(&self.repo.regions, &key, check) {
            return Some(read);
        }
        let mut content = None;
        for ix in at.iter() {
            match copy_of(&self.repo, name, ix, &mut content) {
                Ok(Copy::Good) => return content,
                Ok(Copy::Junk) => return None,
                Ok(Copy::Gone) => {}
                Err(e) => {
                    self.fail(e);
                    return None;
                }
            }
        }
        *lock(&self.gone) = true;
        None
    }

    fn trusts(&self, writer: &WriterId) -> bool {
        self.repo.ring().writer(writer).is_some_and(|writer| writer.roles & role::WRITE != 0)
    }

    fn odd(&self, name: SegmentName, at: RegionSet) {
        let region = at.iter().next().map_or_else(String::new, |ix| self.repo.regions.region(ix).name.clone());
        self.fail(
            Error::new(Kind::Damage, "has another size than the segment of this name")
                .at(Key::Index(name))
                .at(format!("region {region}"))
                .advise("`holdfast verify --repair` first; nothing was removed"),
        );
    }

    fn whole(&self) -> bool {
        self.whole
    }
}

/// What the members list, each until two listings agree.
fn listing(repo: &Repo, members: RegionSet) -> Result<Listing> {
    let mut all = Listing::new();
    for ix in members.iter() {
        let mut before = repo.regions.list(ix, Prefix::Index)?;
        let mut agreed = false;
        for _ in 1..LISTINGS_MAX {
            let now = repo.regions.list(ix, Prefix::Index)?;
            agreed = now == before;
            before = now;
            if agreed {
                break;
            }
        }
        if !agreed {
            return Err(Error::new(Kind::Retry, "every listing of the index differs from the one before")
                .at(format!("region {}", repo.regions.region(ix).name))
                .advise("run again when less is written; nothing was removed"));
        }
        for line in before {
            if let Key::Index(name) = line.key {
                all.entry(name).or_default().add(line.size, ix);
            }
        }
    }
    Ok(all)
}

/// How many of these are read at once, one at least.
fn at_once(sizes: &[(SegmentName, u64)]) -> usize {
    let mut sum = 0u64;
    let fits = |(_, size): &&(SegmentName, u64)| {
        sum = sum.saturating_add(*size);
        sum <= READ_BYTES_MAX
    };
    sizes.iter().take(READS_MAX).take_while(fits).count().max(1)
}

/// Every copy of every segment is what its name says. Says whether none was removed meanwhile.
fn all_good(repo: &Repo, listing: &Listing, members: RegionSet, (workers, cancel): (usize, &Cancel)) -> Result<bool> {
    let of = |ix: usize| -> Result<bool> {
        let here = listing.iter().filter(|(_, holders)| holders.all().has(ix));
        let names: Vec<(SegmentName, u64)> = here.map(|(name, holders)| (*name, holders.size())).collect();
        let (mut left, mut whole) = (names.as_slice(), true);
        while !left.is_empty() {
            cancel.check()?;
            let (some, later) = left.split_at(at_once(left));
            left = later;
            let sized =
                |(name, size): &(SegmentName, u64)| (ix, Key::Index(*name), (*size).min(SMALL_OBJECT_BYTES_MAX));
            let read = repo.regions.get_sized(&some.iter().map(sized).collect::<Vec<_>>());
            for ((name, _), read) in some.iter().zip(read) {
                whole &= !matches!(judge(repo, *name, ix, read, &mut None)?, Copy::Gone);
            }
        }
        Ok(whole)
    };
    if workers == 0 {
        return members.iter().try_fold(true, |whole, ix| Ok(of(ix)? && whole));
    }
    std::thread::scope(|scope| {
        let threads: Vec<_> = members.iter().map(|ix| scope.spawn(move || of(ix))).collect();
        threads.into_iter().try_fold(true, |whole, thread| {
            let one = thread.join().unwrap_or_else(|_| Err(Error::new(Kind::Bug, "reading the index ended early")))?;
            Ok(whole && one)
        })
    })
}

/// Loads the index of all members.
///
/// # Errors
/// A listing failed, a segment cannot be read, or interrupted.
pub(super) fn load(repo: &Arc<Repo>, members: RegionSet, means: (usize, &Cancel)) -> Result<Arc<Index>> {
    for _ in 0..ROUNDS_MAX {
        let listing = listing(repo, members)?;
        if !all_good(repo, &listing, members, means)? {
            continue;
        }
        let whole = members.count() == repo.regions.len();
        let (ahead, failed, gone) = Default::default();
        let strict = Arc::new(Strict { repo: Arc::clone(repo), ahead, whole, failed, gone });
        let source: Arc<dyn Source> = strict.clone();
        let index = Index::assemble(&listing, source, repo.index_cache().cloned());
        if let Some(e) = lock(&strict.failed).take() {
            return Err(e);
        }
        if !*lock(&strict.gone) {
            return Ok(Arc::new(index));
        }
    }
    Err(Error::new(Kind::Retry, "index segments go away as they are read")
        .advise("another prune is at work: run again"))
}

/// What a segment says, from the first of these regions that has it; `None` if it was removed since it was listed, by another
/// prune, or is junk.
///
/// # Errors
/// A copy cannot be read.
pub(super) fn content(repo: &Repo, name: SegmentName, at: RegionSet) -> Result<Option<Content>> {
    let mut content = None;
    for ix in at.iter() {
        if matches!(copy_of(repo, name, ix, &mut content)?, Copy::Good) {
            break;
        }
    }
    Ok(content)
}

/// Whether a region lists all of these segments.
pub(super) fn are_listed(repo: &Repo, ix: usize, names: &BTreeSet<SegmentName>) -> Result<bool> {
    let there: BTreeSet<SegmentName> = repo
        .regions
        .list(ix, Prefix::Index)?
        .into_iter()
        .filter_map(|line| if let Key::Index(name) = line.key { Some(name) } else { None })
        .collect();
    Ok(names.is_subset(&there))
}
