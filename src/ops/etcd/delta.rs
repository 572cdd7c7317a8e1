//! What changed in a cluster since its last snapshot, as a snapshot of mode `delta`.
//!
//! It holds the files of the snapshot that it goes on from, as they are, and beside them one file a run with the changes
//! since the last one. So each delta can be restored, kept and removed by itself, and nothing that it needs can be taken
//! from under it. The files are a chain: each names the hash of the one before.

use super::backup::{EtcdOptions, EtcdReport, backup, known, miss, no_majority};
use super::seam::Seam;
use super::{
    BASE, CHAIN, CHANGES, CLUSTER, DISAGREE, EVERY, HISTORY, KIND, MEMBER, NEW_CLUSTER, REVISION, UNDECIDED, WHOLE,
    ids, label, last_of, number, of_source,
};
use crate::base::{Cancel, Progress};
use crate::chunk::Coder;
use crate::error::{Error, Kind, Result};
use crate::format::snapshot::{Label, Manifest, Mode};
use crate::format::tree::Entry;
use crate::ops::backup::{self as store, BackupOptions, BackupReport, Cut, Given, StreamName};
use crate::policy::Between;
use crate::repo::Repo;
use crate::repo::index::Index;
use crate::repo::reader::Reader;
use crate::repo::tree::DirReader;
use crate::repo::view::{Snapshot, View};
use crate::source::etcd::cluster::{Before, Cluster};
use crate::source::etcd::follow::{Changes, Followed, Follower, HELD_BYTES_MAX, Until};
use crate::source::etcd::segment::{self, HASH_BYTES, Head};
use crate::source::stream::Stream;
use std::io::Cursor;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// Changes are gathered until there are so many bytes; more of them are another part.
const PART_BYTES_MAX: usize = 8 << 20;
/// Where nothing changes, and a daemon looks more often, there is a snapshot about as often as this.
const STILL_MS: i64 = 60_000;
/// A daemon makes no whole snapshots instead of deltas more often than this.
const WHOLE_AFTER_MS: i64 = 5 * 60_000;
/// How long a watch may be silent while there is something to be told.
const SILENCE: Duration = Duration::from_secs(60);
/// Changes are gathered in so many parts at most: so it comes to an end, however slowly a member tells them.
const PARTS_MAX: usize = 64;
/// Why there is no delta.
const TOO_MUCH: &str = "more changed since the last snapshot than is worth a delta";
/// Why there is no delta.
const COMPACTED: &str = "what changed since the last snapshot was compacted away";
/// Why there is no delta.
const AT_ODDS: &str = "the members do not say the same of what changed";
/// Why there is no delta.
const DOUBTED: &str = "each member that answers is called corrupt, or had other keys than the last snapshot";
/// Why there is no delta.
const DAMAGED: &str = "the last snapshot is damaged, or not in every region";
/// A watch that is lost, or says something else than the last snapshot, is begun anew so often.
const WATCHES_MAX: u32 = 4;
/// Before it is: a cluster that lost its leader needs a moment to elect another one.
const ELECTION: Duration = Duration::from_secs(1);
/// A snapshot goes on with so many files of changes at most: then a whole one is better.
const FILES_MAX: usize = 4096;

/// What was gathered.
#[derive(Debug, Clone, Default)]
pub struct DeltaReport {
    /// The revision that the last snapshot had.
    pub after: i64,
    /// The newest one now.
    pub to: i64,
    /// Changes.
    pub changes: u64,
    /// How long ago the last snapshot was begun, ms: what a loss of the cluster just now would have cost.
    pub exposed_ms: i64,
}

/// What to do where nothing changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unchanged {
    /// There is no snapshot.
    Left,
    /// There is one, which says of which time it is.
    Stored,
    /// There is one if the last one began so long ago, ms.
    After(i64),
}

/// When a whole snapshot was last tried instead of a delta, ms; none yet where it is 0.
pub type Tried = AtomicI64;

/// What a delta may be.
#[derive(Debug, Clone, Copy)]
pub struct Terms<'t> {
    /// What to do where nothing changed.
    pub unchanged: Unchanged,
    /// A file of changes has at most so many bytes, however they were told, unless a single revision has more.
    pub file_bytes_max: u64,
    /// A whole snapshot may stand for it if the last whole one was read so long ago, ms.
    pub whole_after_ms: i64,
    /// How often it is taken, where a daemon does it between backups, ms.
    pub every_ms: Option<i64>,
    /// Where it is noted that a whole one is tried: it counts whatever becomes of it.
    pub tried: Option<&'t Tried>,
}

impl Unchanged {
    /// Whether there is a snapshot, so long after the last one began, ms.
    fn is_stored(self, ms: i64) -> bool {
        match self {
            Unchanged::Left => false,
            Unchanged::Stored => true,
            // A clock that was set back says nothing.
            Unchanged::After(least) => !(0..least).contains(&ms),
        }
    }
}

impl<'t> Terms<'t> {
    /// Of one that somebody asks for.
    pub const ASKED: Terms<'static> =
        Terms { unchanged: Unchanged::Left, file_bytes_max: u64::MAX, whole_after_ms: 0, every_ms: None, tried: None };

    /// Of one between backups. Where nothing changes there is a snapshot each minute or so: it says of which time it is.
    pub fn between(between: &Between, tried: Option<&'t Tried>) -> Terms<'t> {
        Terms {
            unchanged: Unchanged::After(STILL_MS.saturating_sub(between.every_ms / 2)),
            file_bytes_max: between.bytes_max,
            whole_after_ms: WHOLE_AFTER_MS,
            every_ms: Some(between.every_ms),
            tried,
        }
    }

    /// Whether there may be a whole snapshot now instead: it reads all of a member, so there is not one after the other,
    /// neither where deltas cannot go on from one nor where none comes to be.
    fn allow(&self, last: Option<&Manifest>, now: i64, why: &str) -> Result<()> {
        let read = last.map(|last| number(last, WHOLE).unwrap_or(last.end));
        let tried = self.tried.map(|tried| tried.load(Ordering::Relaxed)).filter(|tried| *tried != 0);
        let soon = |before: i64| (0..self.whole_after_ms).contains(&now.saturating_sub(before));
        if read.is_some_and(soon) {
            let what = format!("no delta ({why}), and the last whole snapshot is not five minutes old");
            return Err(Error::new(Kind::Retry, what));
        }
        if tried.is_some_and(soon) {
            let what = format!("no delta ({why}), and a whole snapshot was tried less than five minutes ago");
            return Err(Error::new(Kind::Retry, what));
        }
        self.tried.iter().for_each(|tried| tried.store(now, Ordering::Relaxed));
        Ok(())
    }
}

/// What became of it.
pub enum Delta {
    /// A snapshot of what changed.
    Stored(Box<BackupReport>, DeltaReport),
    /// Nothing changed since this revision.
    Nothing(i64),
    /// It had to be a whole snapshot, for this reason.
    Whole(Box<BackupReport>, Box<EtcdReport>, String),
}

/// Stores what changed since the last snapshot of the source.
///
/// # Errors
/// As for a whole snapshot; or the watch was lost.
pub fn delta(
    repo: &Arc<Repo>,
    options: &mut BackupOptions,
    etcd: &EtcdOptions,
    terms: &Terms<'_>,
    means: (&Progress, &Cancel),
) -> Result<Delta> {
    repo.may_write()?;
    let (cancel, begun) = (means.1, repo.env.now().0);
    let view = View::recall(repo)?;
    let source = options.source_name()?;
    let Some(last) = last_of(&view, &source).filter(|_| !etcd.new_cluster) else {
        let why = "there is no snapshot yet to go on from";
        terms.allow(None, begun, why)?;
        return whole(repo, options, etcd, means, why.into());
    };
    let manifest = &last.manifest;
    let reader = Reader::near(Arc::clone(repo), Arc::new(Index::load(repo)?));
    let (before, not) = (known(manifest), |why: String| (0, Gathered::Not(why)));
    let (revision, listed) = (before.revision, or_damaged(files(&reader, manifest))?);
    let whole_instead = |options: &mut BackupOptions, why: String| {
        terms.allow(Some(manifest), begun, &why)?;
        whole(repo, options, etcd, means, why)
    };
    let (id, gathered) = match listed.as_ref().map(|kept| unfit((&reader, manifest), kept, &before, begun)) {
        None => not(DAMAGED.into()),
        Some(Some(why)) => not(why),
        Some(None) => changed(etcd, (&reader, manifest), before, cancel)?,
    };
    let exposed_ms = repo.env.now().0.saturating_sub(newest_beside(&view, manifest));
    let mut gathered = match gathered {
        Gathered::All(gathered) if gathered.is_empty() && !terms.unchanged.is_stored(exposed_ms) => {
            return Ok(Delta::Nothing(revision));
        }
        Gathered::All(gathered) => gathered,
        Gathered::Not(why) => return whole_instead(options, why),
    };
    let all = &gathered.all;
    let report = DeltaReport {
        after: revision,
        to: all.last().map_or(revision, |changes| changes.to),
        changes: all.iter().map(|changes| changes.changes.len() as u64).sum(),
        exposed_ms,
    };
    let most = usize::try_from(terms.file_bytes_max).unwrap_or(usize::MAX);
    gathered.all = gathered.all.into_iter().flat_map(|changes| changes.parts(most)).collect();
    let mut given = Given { begun: Some(begun), ..given(repo, id, last, listed.unwrap_or_default(), gathered)? };
    given.labels.extend(terms.every_ms.map(|ms| Label { key: EVERY.into(), value: ms.to_string() }));
    match store::streams(repo, options, given, means) {
        Ok(stored) => Ok(Delta::Stored(Box::new(stored), report)),
        // A prune that is at work takes something of it away.
        Err(e) if e.kind() == Kind::NotFound => whole_instead(options, e.what().to_owned()),
        Err(e) => Err(e),
    }
}

/// What was read of the last snapshot; nothing where it is damaged.
fn or_damaged<T>(read: Result<T>) -> Result<Option<T>> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(e) if e.kind() == Kind::Damage => Ok(None),
        Err(e) => Err(e),
    }
}

/// When the newest snapshot was begun that is as far on as this one: where nothing changed there may be several.
fn newest_beside(view: &View, last: &Manifest) -> i64 {
    let beside = |m: &&Manifest| [HISTORY, REVISION].iter().all(|key| number(m, key) == number(last, key));
    let own = of_source(view, &last.source.name).map(|s| &s.manifest);
    own.filter(beside).map(|m| m.start).max().unwrap_or(last.start)
}

/// Why a snapshot with these files is not to be gone on from, if so.
fn unfit((reader, manifest): (&Reader, &Manifest), kept: &[Entry], before: &Before, now: i64) -> Option<String> {
    let whole = number(manifest, WHOLE).unwrap_or(manifest.end);
    if label(manifest, UNDECIDED).is_some() && now.saturating_sub(whole) >= WHOLE_AFTER_MS {
        return Some(
            "no majority had the keys of the last whole snapshot, and another one may find who is right".into(),
        );
    }
    if kept.len() >= FILES_MAX {
        return Some(format!("the last snapshot has {} files of changes already", kept.len()));
    }
    let sender = label(manifest, MEMBER).and_then(|id| u64::from_str_radix(id, 16).ok());
    if sender.is_some_and(|sender| before.doubted.contains(&sender)) {
        return Some("the last snapshot is of a member that had other keys than the one before".into());
    }
    (!store::are_intact(reader, kept)).then(|| DAMAGED.into())
}

/// What changed since a snapshot, and the cluster's id.
fn changed(
    etcd: &EtcdOptions,
    (reader, manifest): (&Reader, &Manifest),
    before: Before,
    cancel: &Cancel,
) -> Result<(u64, Gathered)> {
    let cluster = Cluster::connect(&etcd.address, &etcd.means, &before, cancel)?;
    if !cluster.has_fit() {
        return Ok((cluster.id(), Gathered::Not(DOUBTED.into())));
    }
    let (id, target) = (cluster.id(), cluster.newest(cancel)?);
    if target < before.revision {
        let what = format!("the cluster went back: revision {target}, the last snapshot has {}", before.revision);
        return Err(Error::new(Kind::Refused, what).advise(NEW_CLUSTER));
    }
    match or_damaged(Seam::of(reader, manifest, before.revision, cancel))? {
        Some(seam) => Ok((id, gather(etcd, cluster, (before, target), seam, cancel)?)),
        None => Ok((id, Gathered::Not(DAMAGED.into()))),
    }
}

/// A whole snapshot instead.
fn whole(
    repo: &Arc<Repo>,
    options: &mut BackupOptions,
    etcd: &EtcdOptions,
    means: (&Progress, &Cancel),
    why: String,
) -> Result<Delta> {
    options.mode = Mode::Incremental;
    let (stored, found) = backup(repo, options, etcd, means)?;
    Ok(Delta::Whole(Box::new(stored), Box::new(found), why))
}

/// The files of a snapshot.
fn files(reader: &Reader, manifest: &Manifest) -> Result<Vec<Entry>> {
    let (mut coder, mut dir) = (Coder::default(), DirReader::new(reader, manifest.root.tree));
    let mut files = Vec::new();
    while let Some(entry) = dir.next(&mut coder)? {
        files.push(entry);
    }
    Ok(files)
}

/// What came of a watch.
enum Gathered {
    /// Everything up to the revision.
    All(Parts),
    /// Only a whole snapshot has it, for this reason.
    Not(String),
}

/// How far a watch led.
enum Went {
    /// To the revision.
    There,
    /// Nowhere, for this reason.
    Not(String),
    /// To another history.
    Elsewhere,
}

/// Gathers everything up to a revision. A watch that is lost begins again, with whoever is there then; one that says
/// something else of the last snapshot's revision, with another member: who is alone with it is not the cluster.
fn gather(
    etcd: &EtcdOptions,
    cluster: Cluster,
    (before, target): (Before, i64),
    seam: Seam,
    cancel: &Cancel,
) -> Result<Gathered> {
    let at = before.revision;
    let mut parts = Parts { all: Vec::new(), at, bytes: 0, seam, oldest: None, before, strange: Vec::new() };
    let mut here = Some(cluster);
    for left in (0..WATCHES_MAX).rev() {
        let cluster = here.take().map_or_else(|| again(etcd, &parts.before, cancel), |cluster| Ok(Some(cluster)));
        let went = match cluster {
            Ok(Some(cluster)) => parts.all_of(&cluster, target, cancel),
            Ok(None) if parts.strange.is_empty() => Ok(Went::Not(DOUBTED.into())),
            Ok(None) => return Err(another(at)),
            Err(e) => Err(e),
        };
        match went {
            Ok(Went::There) => return Ok(Gathered::All(parts)),
            Ok(Went::Not(why)) => return Ok(Gathered::Not(why)),
            // Which of them is right, only a whole snapshot finds out: it compares what all of them have.
            Ok(Went::Elsewhere) if !parts.all.is_empty() => return Ok(Gathered::Not(AT_ODDS.into())),
            Ok(Went::Elsewhere) if left > 0 => {}
            Ok(Went::Elsewhere) => return Err(another(at)),
            Err(e) if e.kind() == Kind::Retry && left > 0 => cancel.wait(ELECTION)?,
            Err(e) => return Err(e),
        }
    }
    Err(Error::new(Kind::Bug, "no watch was begun"))
}

fn another(revision: i64) -> Error {
    let what = format!("the cluster's history is another one: its revision {revision} is not the last snapshot's");
    Error::new(Kind::Refused, what).advise(NEW_CLUSTER)
}

/// Connects anew, to whoever answers for the majority by now, if there is one that can be asked.
fn again(etcd: &EtcdOptions, before: &Before, cancel: &Cancel) -> Result<Option<Cluster>> {
    let cluster = Cluster::connect(&etcd.address, &etcd.means, before, cancel)?;
    if !cluster.has_fit() {
        return Ok(None);
    }
    cluster.newest(cancel).map(|_| Some(cluster))
}

/// What was gathered so far.
struct Parts {
    all: Vec<Changes>,
    at: i64,
    bytes: usize,
    /// The end of the last snapshot, which each member that is watched must know.
    seam: Seam,
    /// The oldest revision that must not have been compacted when all is told, once something is asked of it.
    oldest: Option<i64>,
    /// What is known from before, with the members that say something else now.
    before: Before,
    /// The addresses of those.
    strange: Vec<String>,
}

/// How a watch begins.
enum Begin {
    /// With a revision that must be told again as it is known.
    With(Seam),
    /// Behind what the member was asked for.
    Behind,
    /// Not at all.
    Never(Went),
}

impl Parts {
    /// Whether there is nothing to be told.
    fn is_empty(&self) -> bool {
        self.all.is_empty() && self.strange.is_empty()
    }

    /// Watches on to a revision, and asks whether that was all.
    fn all_of(&mut self, cluster: &Cluster, target: i64, cancel: &Cancel) -> Result<Went> {
        let went = match self.begin(cluster, cancel)? {
            Begin::Never(went) => Ok(went),
            Begin::With(seam) => self.follow(cluster, target, Some(seam), cancel),
            Begin::Behind => self.follow(cluster, target, None, cancel),
        };
        let oldest = self.oldest.unwrap_or(self.before.revision);
        let told = match &went {
            Ok(went) => !matches!(went, Went::Not(_)),
            // Revisions that a compaction took while they were told are a gap.
            Err(e) => e.kind() == Kind::Source,
        };
        if told && !cluster.has(oldest, cancel)? {
            return Ok(Went::Not(COMPACTED.into()));
        }
        if let Ok(Went::Elsewhere) = &went {
            let (member, endpoint) = cluster.asks()?;
            self.before.doubted.insert(member);
            self.strange.push(endpoint);
        }
        went
    }

    /// Looks whether a member goes on from what is known. Of a revision at which a compaction ended a watch may tell only a
    /// part, or nothing; what was changed before is gone.
    fn begin(&mut self, cluster: &Cluster, cancel: &Cancel) -> Result<Begin> {
        let gone = || Ok(Begin::Never(Went::Not(COMPACTED.into())));
        let has = |revision: i64| cluster.has(revision, cancel);
        let elsewhere = || Ok(Begin::Never(Went::Elsewhere));
        if let Some(last) = self.all.last() {
            return if has(self.oldest.unwrap_or(self.at))? { Ok(Begin::With(Seam::behind(last))) } else { gone() };
        }
        let (revision, before) = (self.seam.revision(), self.seam.revision().saturating_sub(1));
        let has_before = has(before)?;
        if !self.seam.is_empty() && has_before {
            self.oldest = Some(before);
            return Ok(Begin::With(self.seam.clone()));
        }
        self.oldest = Some(revision);
        if !has(revision)? {
            return gone();
        }
        if self.seam.is_empty() {
            // What was compacted once is so for ever: this was put back to a time before.
            return if self.seam.was_compacted() && has_before { elsewhere() } else { Ok(Begin::Behind) };
        }
        match self.seam.stands_in(cluster, cancel) {
            Ok(true) => Ok(Begin::Behind),
            Ok(false) => elsewhere(),
            Err(_) if !has(revision)? => gone(),
            Err(e) => Err(e),
        }
    }

    /// Watches on.
    fn follow(&mut self, cluster: &Cluster, target: i64, mut seam: Option<Seam>, cancel: &Cancel) -> Result<Went> {
        if self.at >= target && seam.is_none() {
            return Ok(Went::There);
        }
        let again = i64::from(seam.is_some());
        let mut follower = Follower::begin(cluster, self.at.saturating_sub(again), cancel)?;
        while self.at < target || seam.is_some() {
            let until = Until { revision: Some(target), time: SILENCE, bytes: PART_BYTES_MAX, held: self.bytes };
            let mut changes = match follower.gather(until, cancel)? {
                Followed::Compacted(_) => return Ok(Went::Not(COMPACTED.into())),
                Followed::TooMuch => return Ok(Went::Not(TOO_MUCH.into())),
                Followed::Changes(changes) => changes,
            };
            if changes.changes.is_empty() {
                let what = format!("the watch is silent at revision {}, and the cluster is at {target}", self.at);
                return Err(Error::new(Kind::Retry, what));
            }
            if seam.take().is_some_and(|seam| !seam.take_from(&mut changes)) {
                return Ok(Went::Elsewhere);
            }
            self.bytes = self.bytes.saturating_add(changes.bytes);
            if self.bytes > HELD_BYTES_MAX || self.all.len() >= PARTS_MAX {
                return Ok(Went::Not(TOO_MUCH.into()));
            }
            if changes.to > self.at {
                self.at = changes.to;
                self.all.push(changes);
            }
        }
        Ok(Went::There)
    }
}

/// The name of a file of changes: they are in order.
fn name(head: &Head) -> Vec<u8> {
    [CHANGES, format!("{:020}-{:020}", head.after.saturating_add(1), head.to).as_bytes()].concat()
}

fn given(repo: &Repo, id: u64, last: &Snapshot, kept: Vec<Entry>, gathered: Parts) -> Result<Given> {
    let manifest = &last.manifest;
    let mut before = label(manifest, CHAIN).and_then(unhex).unwrap_or([0; HASH_BYTES]);
    let (mut parts, mut to) = (Vec::new(), gathered.before.revision);
    for changes in &gathered.all {
        let time = repo.env.now().0;
        let head = Head { cluster: id, after: changes.after, to: changes.to, before, time };
        let bytes = segment::encode(&head, changes)?;
        before = segment::hash(&bytes);
        to = changes.to;
        parts.push((StreamName::parse(&name(&head))?, Stream::reader(Cursor::new(bytes)), Cut::Small));
    }
    let base = label(manifest, BASE).map_or_else(|| known(manifest).revision.to_string(), str::to_owned);
    let hash = before.iter().map(|b| format!("{b:02x}")).collect();
    let end = label(manifest, WHOLE).map_or_else(|| manifest.end.to_string(), str::to_owned);
    // Who is right is not known until a whole snapshot compares them again: what follows is of one side, too.
    let undecided = label(manifest, UNDECIDED);
    let labels = [
        (BASE, Some(base)),
        (WHOLE, Some(end)),
        (CHAIN, Some(hash)),
        (CLUSTER, Some(format!("{id:x}"))),
        (DISAGREE, ids(&gathered.before.doubted)),
        (HISTORY, label(manifest, HISTORY).map(str::to_owned)),
        (REVISION, Some(to.to_string())),
        (UNDECIDED, undecided.map(str::to_owned)),
    ];
    let label = |(key, value): (&str, Option<String>)| Some(Label { key: key.into(), value: value? });
    let says = |who| {
        format!("member {who} says something else of revision {} than the last snapshot", gathered.before.revision)
    };
    Ok(Given {
        kind: KIND,
        paths: manifest.source.paths.iter().map(|path| path.to_vec()).collect(),
        parts,
        labels: labels.into_iter().filter_map(label).collect(),
        misses: gathered.strange.iter().map(|who| miss(says(who))).chain(undecided.map(no_majority)).collect(),
        begun: None,
        kept: Some((manifest.sid, kept)),
    })
}

fn unhex(text: &str) -> Option<[u8; HASH_BYTES]> {
    let mut bytes = [0; HASH_BYTES];
    if text.len() != 2 * HASH_BYTES {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_snapshot_that_fails_is_not_tried_again_at_once() {
        let tried = Tried::new(0);
        let between = Between { every_ms: 1000, bytes_max: 1 << 20 };
        let terms = Terms::between(&between, Some(&tried));
        let allowed = |second: i64| terms.allow(None, second * 1000, "why").is_ok();
        // Nothing is stored by any of them: the daemon asks again each second.
        let tries: Vec<i64> = (1..1000).filter(|second| allowed(*second)).collect();
        assert_eq!(tries, [1, 301, 601, 901]);
        let again = terms.allow(None, 902_000, "why").unwrap_err();
        assert!(again.kind() == Kind::Retry && again.what().contains("less than five minutes ago"), "{again}");
        // Who asks for it gets it.
        assert!((0..3).all(|ms| Terms::ASKED.allow(None, ms, "why").is_ok()));
    }
}
