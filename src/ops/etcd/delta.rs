//! What changed in a cluster since its last snapshot, as a snapshot of mode `delta`.
//!
//! It holds the files of the snapshot that it goes on from, as they are, and beside them one file a run with the changes
//! since the last one. So each delta can be restored, kept and removed by itself, and nothing that it needs can be taken
//! from under it. The files are a chain: each names the hash of the one before.

use super::backup::{EtcdOptions, EtcdReport, backup, known};
use super::{BASE, CHAIN, CHANGES, CLUSTER, KIND, REVISION, is_one, label};
use crate::base::{Cancel, Progress};
use crate::chunk::Coder;
use crate::error::{Error, Kind, Result};
use crate::format::snapshot::{Label, Manifest, Mode};
use crate::format::tree::Entry;
use crate::ops::backup::{self as store, BackupOptions, BackupReport, Cut, Given, StreamName};
use crate::repo::Repo;
use crate::repo::index::Index;
use crate::repo::reader::Reader;
use crate::repo::tree::DirReader;
use crate::repo::view::{Snapshot, View};
use crate::source::etcd::cluster::Cluster;
use crate::source::etcd::follow::{Changes, Followed, Follower, Until};
use crate::source::etcd::segment::{self, HASH_BYTES, Head};
use crate::source::stream::Stream;
use std::io::Cursor;
use std::sync::Arc;
use std::time::Duration;

/// Changes of so many bytes make a file; more of them another one.
const FILE_BYTES_MAX: usize = 8 << 20;
/// How long a watch may be silent while there is something to be told.
const SILENCE: Duration = Duration::from_secs(60);
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
    means: (&Progress, &Cancel),
) -> Result<Delta> {
    repo.may_write()?;
    let cancel = means.1;
    let view = View::recall(repo)?;
    let last = view.latest_of(&options.source_name()?).filter(|last| is_one(&last.manifest) && !etcd.new_cluster);
    let Some(last) = last else {
        return whole(repo, options, etcd, means, "there is no snapshot yet to go on from".into());
    };
    let reader = Reader::near(Arc::clone(repo), Arc::new(Index::load(repo)?));
    let kept = files(&reader, &last.manifest)?;
    if kept.len() >= FILES_MAX {
        let why = format!("the last snapshot has {} files of changes already", kept.len());
        return whole(repo, options, etcd, means, why);
    }
    let before = known(&last.manifest);
    let cluster = Cluster::connect(&etcd.address, &etcd.means, before, cancel)?;
    let target = cluster.revision();
    if target < before.revision {
        let what = format!("the cluster went back: revision {target}, the last snapshot has {}", before.revision);
        return Err(Error::new(Kind::Refused, what).advise("after a restore that is right: --new-cluster takes it"));
    }
    if target == before.revision {
        return Ok(Delta::Nothing(target));
    }
    let Some(gathered) = gather(&cluster, before.revision, target, cancel)? else {
        return whole(repo, options, etcd, means, "what changed since the last snapshot was compacted away".into());
    };
    let report = DeltaReport {
        after: before.revision,
        to: gathered.last().map_or(before.revision, |changes| changes.to),
        changes: gathered.iter().map(|changes| changes.changes.len() as u64).sum(),
        exposed_ms: repo.env.now().0.saturating_sub(last.manifest.start),
    };
    let given = given(repo, &cluster, last, kept, &gathered)?;
    let stored = store::streams(repo, options, given, means)?;
    Ok(Delta::Stored(Box::new(stored), report))
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

/// Everything up to a revision, in parts; `None` if it was compacted away.
fn gather(cluster: &Cluster, after: i64, target: i64, cancel: &Cancel) -> Result<Option<Vec<Changes>>> {
    let mut follower = Follower::begin(cluster, after, cancel)?;
    let (mut all, mut at) = (Vec::new(), after);
    while at < target {
        let until = Until { revision: Some(target), time: SILENCE, bytes: FILE_BYTES_MAX };
        match follower.gather(until, cancel)? {
            Followed::Compacted(_) => return Ok(None),
            Followed::Changes(changes) if changes.to > at => {
                at = changes.to;
                all.push(changes);
            }
            Followed::Changes(_) => {
                let what = format!("the watch is silent at revision {at}, and the cluster is at {target}");
                return Err(Error::new(Kind::Retry, what));
            }
        }
    }
    Ok(Some(all))
}

/// The name of a file of changes: they are in order.
fn name(head: &Head) -> Vec<u8> {
    [CHANGES, format!("{:020}-{:020}", head.after.saturating_add(1), head.to).as_bytes()].concat()
}

fn given(repo: &Repo, cluster: &Cluster, last: &Snapshot, kept: Vec<Entry>, gathered: &[Changes]) -> Result<Given> {
    let manifest = &last.manifest;
    let mut before = label(manifest, CHAIN).and_then(unhex).unwrap_or([0; HASH_BYTES]);
    let (mut parts, mut to) = (Vec::new(), known(manifest).revision);
    for changes in gathered {
        let (id, time) = (cluster.id(), repo.env.now().0);
        let head = Head { cluster: id, after: changes.after, to: changes.to, before, time };
        let bytes = segment::encode(&head, changes)?;
        before = segment::hash(&bytes);
        to = changes.to;
        parts.push((StreamName::parse(&name(&head))?, Stream::reader(Cursor::new(bytes)), Cut::Small));
    }
    let base = label(manifest, BASE).map_or_else(|| known(manifest).revision.to_string(), str::to_owned);
    let hash = before.iter().map(|b| format!("{b:02x}")).collect();
    let labels = [(BASE, base), (CHAIN, hash), (CLUSTER, format!("{:x}", cluster.id())), (REVISION, to.to_string())];
    Ok(Given {
        kind: KIND,
        paths: manifest.source.paths.iter().map(|path| path.to_vec()).collect(),
        parts,
        labels: labels.map(|(key, value)| Label { key: key.into(), value }).into(),
        misses: Vec::new(),
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
