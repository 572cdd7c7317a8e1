//! What changed in a cluster since its last snapshot, as a snapshot of mode `delta`.
//!
//! It holds the files of the snapshot that it goes on from, as they are, and beside them one file a run with the changes
//! since the last one. So each delta can be restored, kept and removed by itself, and nothing that it needs can be taken
//! from under it. The files are a chain: each names the hash of the one before.

use super::backup::{EtcdOptions, EtcdReport, backup, known, miss};
use super::seam::Seam;
use super::{
    BASE, CHAIN, CHANGES, CLUSTER, DISAGREE, EVERY, HISTORY, KIND, MEMBER, NEW_CLUSTER, REVISION, WHOLE, ids, label,
    last_of, number, of_source,
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
const DOUBTED: &str = "each member that answers is called corrupt, or had other keys than the last snapshot";
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

/// What a delta may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// What to do where nothing changed.
    pub unchanged: Unchanged,
    /// A file of changes has at most so many bytes, however they were told, unless a single revision has more.
    pub file_bytes_max: u64,
    /// A whole snapshot may stand for it if the last whole one was read so long ago, ms.
    pub whole_after_ms: i64,
    /// How often it is taken, where a daemon does it between backups, ms.
    pub every_ms: Option<i64>,
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

impl Terms {
    /// Of one that somebody asks for.
    pub const ASKED: Terms =
        Terms { unchanged: Unchanged::Left, file_bytes_max: u64::MAX, whole_after_ms: 0, every_ms: None };

    /// Of one between backups. Where nothing changes there is a snapshot each minute or so: it says of which time it is.
    pub fn between(between: &Between) -> Terms {
        Terms {
            unchanged: Unchanged::After(STILL_MS.saturating_sub(between.every_ms / 2)),
            file_bytes_max: between.bytes_max,
            whole_after_ms: WHOLE_AFTER_MS,
            every_ms: Some(between.every_ms),
        }
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
    terms: &Terms,
    means: (&Progress, &Cancel),
) -> Result<Delta> {
    repo.may_write()?;
    let (cancel, begun) = (means.1, repo.env.now().0);
    let view = View::recall(repo)?;
    let source = options.source_name()?;
    let Some(last) = last_of(&view, &source).filter(|_| !etcd.new_cluster) else {
        return whole(repo, options, etcd, means, "there is no snapshot yet to go on from".into());
    };
    let manifest = &last.manifest;
    let reader = Reader::near(Arc::clone(repo), Arc::new(Index::load(repo)?));
    let kept = files(&reader, manifest)?;
    let before = known(manifest);
    let revision = before.revision;
    let (id, gathered) = match unfit((&reader, manifest), &kept, &before) {
        Some(why) => (0, Gathered::Not(why)),
        None => changed(etcd, (&reader, manifest), before, cancel)?,
    };
    let exposed_ms = repo.env.now().0.saturating_sub(newest_beside(&view, manifest));
    let mut gathered = match gathered {
        Gathered::All(gathered) if gathered.is_empty() && !terms.unchanged.is_stored(exposed_ms) => {
            return Ok(Delta::Nothing(revision));
        }
        Gathered::All(gathered) => gathered,
        Gathered::Not(why) => {
            not_again(manifest, begun, terms, &why)?;
            return whole(repo, options, etcd, means, why);
        }
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
    let mut given = Given { begun: Some(begun), ..given(repo, id, last, kept, gathered)? };
    given.labels.extend(terms.every_ms.map(|ms| Label { key: EVERY.into(), value: ms.to_string() }));
    let stored = store::streams(repo, options, given, means)?;
    Ok(Delta::Stored(Box::new(stored), report))
}

/// When the newest snapshot was begun that is as far on as this one: where nothing changed there may be several.
fn newest_beside(view: &View, last: &Manifest) -> i64 {
    let beside = |m: &&Manifest| [HISTORY, REVISION].iter().all(|key| number(m, key) == number(last, key));
    let own = of_source(view, &last.source.name).map(|s| &s.manifest);
    own.filter(beside).map(|m| m.start).max().unwrap_or(last.start)
}

/// Why a snapshot with these files is not to be gone on from, if so.
fn unfit((reader, manifest): (&Reader, &Manifest), kept: &[Entry], before: &Before) -> Option<String> {
    if kept.len() >= FILES_MAX {
        return Some(format!("the last snapshot has {} files of changes already", kept.len()));
    }
    let sender = label(manifest, MEMBER).and_then(|id| u64::from_str_radix(id, 16).ok());
    if sender.is_some_and(|sender| before.doubted.contains(&sender)) {
        return Some("the last snapshot is of a member that had other keys than the one before".into());
    }
    (!store::are_intact(reader, kept)).then(|| "the last snapshot is damaged, or not in every region".into())
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
    let seam = Seam::of(reader, manifest, before.revision, cancel)?;
    Ok((id, gather(etcd, cluster, (before, target), seam, cancel)?))
}

/// A whole snapshot reads all of a member: where deltas cannot go on from one, there is not one after the other.
fn not_again(last: &Manifest, now: i64, terms: &Terms, why: &str) -> Result<()> {
    let read = number(last, WHOLE).unwrap_or(last.end);
    if (0..terms.whole_after_ms).contains(&now.saturating_sub(read)) {
        let what = format!("no delta ({why}), and the last whole snapshot is not five minutes old");
        return Err(Error::new(Kind::Retry, what));
    }
    Ok(())
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
    let (at, seam) = (before.revision, Some(seam).filter(|seam| !seam.is_empty()));
    let mut parts = Parts { all: Vec::new(), at, bytes: 0, seam, before, strange: Vec::new() };
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
    /// What must come first, until it came.
    seam: Option<Seam>,
    /// What is known from before, with the members that say something else now.
    before: Before,
    /// The addresses of those.
    strange: Vec<String>,
}

impl Parts {
    /// Whether there is nothing to be told.
    fn is_empty(&self) -> bool {
        self.all.is_empty() && self.strange.is_empty()
    }

    /// Watches on to a revision, and asks whether that was all.
    fn all_of(&mut self, cluster: &Cluster, target: i64, cancel: &Cancel) -> Result<Went> {
        if self.at >= target && self.seam.is_none() {
            return Ok(Went::There);
        }
        // Of a revision at which a compaction ended a watch may tell only a part, or nothing; what was changed before is gone.
        let begin = self.before.revision.saturating_sub(1);
        let compacted = || if begin < 1 { Ok(false) } else { cluster.has(begin, cancel).map(|has| !has) };
        if compacted()? {
            return Ok(Went::Not(COMPACTED.into()));
        }
        match self.follow(cluster, target, cancel)? {
            Went::There | Went::Elsewhere if compacted()? => Ok(Went::Not(COMPACTED.into())),
            Went::Elsewhere => {
                let (member, endpoint) = cluster.asks()?;
                self.before.doubted.insert(member);
                self.strange.push(endpoint);
                Ok(Went::Elsewhere)
            }
            went => Ok(went),
        }
    }

    /// Watches on.
    fn follow(&mut self, cluster: &Cluster, target: i64, cancel: &Cancel) -> Result<Went> {
        let again = i64::from(self.seam.is_some());
        let mut follower = Follower::begin(cluster, self.at.saturating_sub(again), cancel)?;
        while self.at < target || self.seam.is_some() {
            let until = Until { revision: Some(target), time: SILENCE, bytes: PART_BYTES_MAX };
            let mut changes = match follower.gather(until, cancel)? {
                Followed::Compacted(_) => return Ok(Went::Not(COMPACTED.into())),
                Followed::TooMuch => return Ok(Went::Not(TOO_MUCH.into())),
                Followed::Changes(changes) => changes,
            };
            if changes.changes.is_empty() {
                let what = format!("the watch is silent at revision {}, and the cluster is at {target}", self.at);
                return Err(Error::new(Kind::Retry, what));
            }
            if self.seam.as_ref().is_some_and(|seam| !seam.take_from(&mut changes)) {
                return Ok(Went::Elsewhere);
            }
            self.seam = None;
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
    let labels = [
        (BASE, Some(base)),
        (WHOLE, Some(end)),
        (CHAIN, Some(hash)),
        (CLUSTER, Some(format!("{id:x}"))),
        (DISAGREE, ids(&gathered.before.doubted)),
        (HISTORY, label(manifest, HISTORY).map(str::to_owned)),
        (REVISION, Some(to.to_string())),
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
        misses: gathered.strange.iter().map(|who| miss(says(who))).collect(),
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
