//! The index as a prune needs it: complete, or not at all. A segment that is listed and cannot be read is as bad as a
//! listing that failed: good packs would look like ones that nobody names. Only what no region has whole, and hides nothing any
//! more as each pack is named by others, is passed over.

use super::table::Table;
use crate::base::{Cancel, SegmentName, WriterId};
use crate::error::{Error, Kind, Result};
use crate::format::FormatError;
use crate::format::ring::role;
use crate::region::{Ahead, RegionSet, lift, lock};
use crate::repo::index::{Content, Holders, Index, Listing, Source, open_segment};
use crate::repo::{Repo, SMALL_OBJECT_BYTES_MAX, changed};
use crate::store::{Key, Listed, Prefix};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};

/// Listings of one region until two of them agree.
const LISTINGS_MAX: usize = 8;
/// Clocks of stores are known to a second.
const MOMENT_MS: i64 = 2000;
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
    /// The same, if the keys by which that was found are the newest.
    Strange,
    /// Removed after it was listed.
    Gone,
    /// Damaged.
    Bad(Error),
}

fn mend_first(e: Error) -> Error {
    e.advise("an index that cannot be read hides good packs: `holdfast verify --repair` first; nothing was removed")
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
        Err(e) if e.kind() == Kind::Damage => return Ok(Copy::Bad(e)),
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
        FormatError::WrongKey => Ok(Copy::Strange),
        why @ FormatError::Newer(_) => Err(mend_first(lift(why).with_kind(Kind::Damage).at(key).at(place()))),
        why => Ok(Copy::Bad(lift(why).with_kind(Kind::Damage).at(key).at(place()))),
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
                Ok(Copy::Junk | Copy::Strange) => return None,
                Ok(Copy::Gone) => {}
                Ok(Copy::Bad(e)) | Err(e) => {
                    self.fail(mend_first(e));
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

/// Whether what a listing showed is in the next one too, and what is new there was stored since the first was asked for, or a
/// moment before: then the first was whole. Who stores without a pause would else keep two listings from ever being equal.
fn agree(before: &[Listed], now: &[Listed], since: i64) -> bool {
    let old: HashMap<Key, u64> = before.iter().map(|line| (line.key, line.size)).collect();
    let same = now.iter().filter(|line| old.get(&line.key) == Some(&line.size)).count();
    same == old.len() && now.iter().all(|line| old.contains_key(&line.key) || line.modified >= since)
}

/// What the members list, each until two listings agree.
fn listing(repo: &Repo, members: RegionSet) -> Result<Listing> {
    let mut all = Listing::new();
    for ix in members.iter() {
        let mut asked = repo.env.now().0;
        let mut before = repo.regions.list(ix, Prefix::Index)?;
        let mut agreed = false;
        for _ in 1..LISTINGS_MAX {
            let next = repo.env.now().0;
            let now = repo.regions.list(ix, Prefix::Index)?;
            let ahead = repo.regions.clock_ahead_ms(ix, repo.env.now());
            agreed = agree(&before, &now, asked.saturating_add(ahead).saturating_sub(MOMENT_MS));
            (before, asked) = (now, next);
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

/// What was found of all copies.
#[derive(Default)]
struct Judged {
    /// One was removed meanwhile.
    gone: bool,
    /// One is of no key that is known.
    strange: bool,
    /// Those that cannot be read, the regions that show them so, and why.
    bad: BTreeMap<SegmentName, (RegionSet, Error)>,
}

impl Judged {
    fn add(&mut self, name: SegmentName, ix: usize, copy: Result<Copy>) -> Result<()> {
        match copy {
            Ok(Copy::Good | Copy::Junk) => {}
            Ok(Copy::Strange) => self.strange = true,
            Ok(Copy::Gone) => self.gone = true,
            Ok(Copy::Bad(e)) => {
                let (at, _) = self.bad.entry(name).or_insert((RegionSet::NONE, e));
                *at = at.with(ix);
            }
            Err(e) => return Err(e),
        }
        Ok(())
    }

    fn and(mut self, other: Judged) -> Judged {
        (self.gone, self.strange) = (self.gone || other.gone, self.strange || other.strange);
        for (name, (more, e)) in other.bad {
            let (at, _) = self.bad.entry(name).or_insert((RegionSet::NONE, e));
            *at = at.or(more);
        }
        self
    }
}

/// Reads every copy of every segment: each should be what its name says.
fn judge_all(
    repo: &Repo,
    listing: &Listing,
    members: RegionSet,
    (workers, cancel): (usize, &Cancel),
) -> Result<Judged> {
    let of = |ix: usize| -> Result<Judged> {
        let here = listing.iter().filter(|(_, holders)| holders.all().has(ix));
        let names: Vec<(SegmentName, u64)> = here.map(|(name, holders)| (*name, holders.size())).collect();
        let (mut left, mut judged) = (names.as_slice(), Judged::default());
        while !left.is_empty() {
            cancel.check()?;
            let (some, later) = left.split_at(at_once(left));
            left = later;
            let sized =
                |(name, size): &(SegmentName, u64)| (ix, Key::Index(*name), (*size).min(SMALL_OBJECT_BYTES_MAX));
            let read = repo.regions.get_sized(&some.iter().map(sized).collect::<Vec<_>>());
            for ((name, _), read) in some.iter().zip(read) {
                judged.add(*name, ix, judge(repo, *name, ix, read, &mut None))?;
            }
        }
        Ok(judged)
    };
    if workers == 0 {
        return members.iter().try_fold(Judged::default(), |judged, ix| Ok(judged.and(of(ix)?)));
    }
    std::thread::scope(|scope| {
        let threads: Vec<_> = members.iter().map(|ix| scope.spawn(move || of(ix))).collect();
        threads.into_iter().try_fold(Judged::default(), |judged, thread| {
            let one = thread.join().unwrap_or_else(|_| Err(Error::new(Kind::Bug, "reading the index ended early")))?;
            Ok(judged.and(one))
        })
    })
}

/// The index of all members, as far as it can be read.
pub(super) struct Loaded {
    /// What can be read.
    pub(super) index: Arc<Index>,
    /// Why not all of it.
    lost: Option<Error>,
}

impl Loaded {
    /// A pack that no index names may be named by what cannot be read: then nothing can be said of it, nor of what is in it.
    /// What else is in packs that others name too is found there, or not at all, and then the marking stops.
    ///
    /// # Errors
    /// There is one.
    pub(super) fn hides_nothing(&self, table: &Table) -> Result<()> {
        match &self.lost {
            Some(why) if table.rows.iter().any(|row| row.is_orphan() && !row.doomed) => Err(why.clone().advise(
                "no region has this part of the index whole, and packs are there that no other part names: \
                     `holdfast repair index` reads what is in them; nothing was removed",
            )),
            _ => Ok(()),
        }
    }
}

/// Loads the index of all members.
///
/// # Errors
/// A listing failed, a segment cannot be read and a region has it whole, the keys were changed, or interrupted.
pub(super) fn load(repo: &Arc<Repo>, members: RegionSet, means: (usize, &Cancel)) -> Result<Loaded> {
    for _ in 0..ROUNDS_MAX {
        let mut listing = listing(repo, members)?;
        let judged = judge_all(repo, &listing, members, means)?;
        if judged.strange {
            changed::keys_stand(repo)?;
        }
        if judged.gone {
            continue;
        }
        let mut lost = None;
        for (name, (at, why)) in judged.bad {
            let holders = listing.get(&name).map_or(RegionSet::NONE, Holders::all);
            for ix in holders.iter().filter(|ix| !at.has(*ix)) {
                if matches!(copy_of(repo, name, ix, &mut None)?, Copy::Good) {
                    return Err(mend_first(why));
                }
            }
            listing.remove(&name);
            lost = Some(why);
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
            return Ok(Loaded { index: Arc::new(index), lost });
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
        match copy_of(repo, name, ix, &mut content)? {
            Copy::Good => break,
            Copy::Bad(e) => return Err(mend_first(e)),
            Copy::Junk | Copy::Strange | Copy::Gone => {}
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

#[cfg(test)]
mod tests {
    use super::*;

    fn line(n: u8, size: u64, modified: i64) -> Listed {
        Listed { key: Key::Index(SegmentName([n; 32])), size, modified }
    }

    /// What was stored meanwhile takes nothing from the first listing; what was there before, and was not in it, does.
    #[test]
    fn listings_agree_beside_somebody_who_stores() {
        let before = [line(1, 10, 100), line(2, 20, 200)];
        let with = |more: Listed| [before[0].clone(), before[1].clone(), more];
        assert!(agree(&before, &before, 300));
        assert!(agree(&before, &with(line(3, 30, 300)), 300), "stored since");
        assert!(!agree(&before, &with(line(3, 30, 299)), 300), "the first one was short");
        assert!(!agree(&before, &before[1..], 300), "removed, or the second one is short");
        assert!(!agree(&before, &[before[0].clone(), line(2, 21, 200)], 300), "another size");
        assert!(agree(&[], &[], 0));
    }
}
