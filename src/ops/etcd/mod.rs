//! etcd: its snapshots into a repository, and out of it as files that a real etcd comes up on.
//!
//! A snapshot of etcd has two files, tables of rows ([`crate::source::etcd::table`]): the database, and the newest state
//! of its keys. What the database says about itself stands in labels of the manifest.

mod backup;
mod delta;
mod deltas;
mod find;
mod keys;
mod put_back;
mod restore;
mod seam;
mod source;

pub use backup::{EtcdOptions, EtcdReport, backup};
pub use delta::{Delta, DeltaReport, Terms, Unchanged, delta};
pub use find::{KeysFound, find};
pub use keys::{Keys, Kind as KeyChange, diff};
pub use put_back::{Fate, PutBack, PutReport, put_back};
pub use restore::{EtcdRestore, EtcdRestored, Goal, restore};

pub use source::{between, or_files};

use crate::format::snapshot::{Manifest, Mode};
use crate::repo::view::{Snapshot, View};

/// Kind of the source.
pub const KIND: &str = "etcd";
/// The table of all rows of the database.
pub const ROWS: &[u8] = b"rows";
/// The table of its keys.
pub const KEYS: &[u8] = b"keys";
const REVISION: &str = "etcd.revision";
const CLUSTER: &str = "etcd.cluster";
/// What to do if a cluster is not what it was.
const NEW_CLUSTER: &str = "after a restore that is right: --new-cluster takes it";

/// Whether a snapshot is one of etcd.
pub fn is_one(manifest: &Manifest) -> bool {
    manifest.source.kind == KIND
}

/// Changes since the snapshot that a delta goes on from: what their files' names begin with.
pub const CHANGES: &[u8] = b"changes-";
/// The hash of the newest of them.
const CHAIN: &str = "etcd.changes-hash";
/// Where the snapshot that a delta goes on from ends.
const BASE: &str = "etcd.base-revision";
/// When all of it had been read, ms.
const WHOLE: &str = "etcd.base-end";

/// How often a daemon takes such deltas between backups, ms.
const EVERY: &str = "etcd.every-ms";

/// A snapshot with which another history begins.
const ANEW: &str = "etcd.begins-anew";

/// The snapshot of a source that is furthest on in the history that is gone on with: of the highest revision, and a whole
/// one where there are several. One that began later may have less, if it took longer.
fn last_of<'v>(view: &'v View, source: &str) -> Option<&'v Snapshot> {
    let all = || view.snapshots.values().filter(|s| is_one(&s.manifest) && s.manifest.source.name == source);
    let anew = all().filter(|s| label(&s.manifest, ANEW).is_some()).map(|s| s.manifest.start).max();
    let here = all().filter(|s| anew.is_none_or(|anew| s.manifest.start >= anew));
    here.max_by_key(|s| (number(&s.manifest, REVISION), s.manifest.mode != Mode::Delta, s.manifest.start))
}

/// What deltas of one row have in common: the cluster, and the whole snapshot that they go on from.
pub type Row<'m> = [Option<&'m str>; 3];

/// Of a delta that a daemon took between backups, its row and its last revision: a later one of the same row that is as far
/// on has every revision that it has.
pub fn row(manifest: &Manifest) -> Option<(Row<'_>, i64)> {
    label(manifest, EVERY).filter(|_| is_one(manifest) && manifest.mode == Mode::Delta)?;
    Some(([CLUSTER, BASE, WHOLE].map(|key| label(manifest, key)), number(manifest, REVISION)?))
}

fn number(manifest: &Manifest, key: &str) -> Option<i64> {
    label(manifest, key)?.parse().ok()
}

fn label<'m>(manifest: &'m Manifest, key: &str) -> Option<&'m str> {
    manifest.labels.iter().find(|label| label.key == key).map(|label| label.value.as_str())
}
