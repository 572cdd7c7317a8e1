//! etcd: its snapshots into a repository, and out of it as files that a real etcd comes up on.
//!
//! A snapshot of etcd has two files, tables of rows ([`crate::source::etcd::table`]): the database, and the newest state
//! of its keys. What the database says about itself stands in labels of the manifest.

mod backup;
mod delta;
mod deltas;
mod keys;
mod restore;

pub use backup::{EtcdOptions, EtcdReport, backup, or_files};
pub use delta::{Delta, DeltaReport, delta};
pub use keys::{Keys, Kind as KeyChange, diff};
pub use restore::{EtcdRestore, EtcdRestored, restore};

use crate::format::snapshot::Manifest;

/// Kind of the source.
pub const KIND: &str = "etcd";
/// The table of all rows of the database.
pub const ROWS: &[u8] = b"rows";
/// The table of its keys.
pub const KEYS: &[u8] = b"keys";
const REVISION: &str = "etcd.revision";
const CLUSTER: &str = "etcd.cluster";

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

fn number(manifest: &Manifest, key: &str) -> Option<i64> {
    label(manifest, key)?.parse().ok()
}

fn label<'m>(manifest: &'m Manifest, key: &str) -> Option<&'m str> {
    manifest.labels.iter().find(|label| label.key == key).map(|label| label.value.as_str())
}
