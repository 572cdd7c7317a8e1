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
pub use delta::{Delta, DeltaReport, Terms, Tried, Unchanged, delta};
pub use find::{KeysFound, find};
pub use keys::{Keys, Kind as KeyChange, diff};
pub use put_back::{Fate, PutBack, PutReport, put_back};
pub use restore::{EtcdRestore, EtcdRestored, Goal, restore};

pub use source::{between, or_files};

use crate::format::snapshot::{Label, Manifest, Mode};
use crate::repo::view::{Snapshot, View};
use std::collections::BTreeSet;

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
/// The number of the history that a snapshot is part of: one that was said to be of a new cluster has the next one, and
/// what follows it the same; none is the first one.
const HISTORY: &str = "etcd.history";
/// The member that sent a whole snapshot.
const MEMBER: &str = "etcd.member";
/// Ids of members that had other keys than the snapshot; that of its own where it had others than the one before.
const DISAGREE: &str = "etcd.disagree";
/// How many members had the snapshot's keys, of how many, where that is no majority and others had other ones.
const UNDECIDED: &str = "etcd.undecided";
/// Why no member was compared, where that is no fault: each is `compacted` otherwise than the snapshot; or there is `no-key`.
const NOT_COMPARED: &str = "etcd.not-compared";

fn of_source<'v>(view: &'v View, source: &str) -> impl Iterator<Item = &'v Snapshot> {
    view.snapshots.values().filter(move |s| is_one(&s.manifest) && s.manifest.source.name == source)
}

/// The snapshot of a source that is furthest on.
fn last_of<'v>(view: &'v View, source: &str) -> Option<&'v Snapshot> {
    of_source(view, source).max_by_key(|s| place(s.manifest.mode, s.manifest.start, &s.manifest.labels))
}

/// How far on a snapshot is: in the history that is gone on with, of the highest revision, and a whole one where there are
/// several. One that began later may have less, if it took longer.
fn place(mode: Mode, start: i64, labels: &[Label]) -> (i64, i64, bool, i64) {
    let number = |key| number_in(labels, key).unwrap_or_default();
    (number(HISTORY), number(REVISION), mode != Mode::Delta, start)
}

/// What `latest` means where it began last of all that fit: of a cluster the snapshot that is furthest on, as backups take
/// it. The clock may have been set back meanwhile, and one that began later may have less.
pub fn latest<'v>(view: &'v View, newest: &'v Snapshot, fits: impl Fn(&Manifest) -> bool) -> &'v Snapshot {
    if !is_one(&newest.manifest) {
        return newest;
    }
    let own = of_source(view, &newest.manifest.source.name).filter(|s| fits(&s.manifest));
    own.max_by_key(|s| lately(&s.manifest)).unwrap_or(newest)
}

/// Where several are as far on, the one that began last, whole or not.
fn lately(manifest: &Manifest) -> impl Ord {
    (
        number(manifest, HISTORY).unwrap_or_default(),
        number(manifest, REVISION),
        manifest.start,
        manifest.seq,
        manifest.sid,
    )
}

/// The number of a history that begins now.
fn next_history(view: &View, source: &str) -> i64 {
    let known = of_source(view, source).map(|s| number(&s.manifest, HISTORY).unwrap_or_default()).max();
    known.map_or(0, |known| known.saturating_add(1))
}

/// Ids of members, as a label has them.
fn ids(members: &BTreeSet<u64>) -> Option<String> {
    let all: Vec<String> = members.iter().map(|id| format!("{id:x}")).collect();
    (!all.is_empty()).then(|| all.join(" "))
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
    number_in(&manifest.labels, key)
}

fn number_in(labels: &[Label], key: &str) -> Option<i64> {
    label_in(labels, key)?.parse().ok()
}

fn label<'m>(manifest: &'m Manifest, key: &str) -> Option<&'m str> {
    label_in(&manifest.labels, key)
}

fn label_in<'m>(labels: &'m [Label], key: &str) -> Option<&'m str> {
    labels.iter().find(|label| label.key == key).map(|label| label.value.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(history: Option<i64>, revision: i64, mode: Mode, start: i64) -> (i64, i64, bool, i64) {
        let label = |key: &str, value: i64| Label { key: key.into(), value: value.to_string() };
        let labels: Vec<Label> =
            history.map(|n| label(HISTORY, n)).into_iter().chain([label(REVISION, revision)]).collect();
        place(mode, start, &labels)
    }

    #[test]
    fn a_history_that_began_later_is_gone_on_with_whatever_the_clock_says() {
        let old = at(None, 61, Mode::Incremental, 9_000);
        // The clock went back before the new cluster was taken: its snapshots begin before the old one's last.
        let anew = at(Some(1), 6, Mode::Incremental, 1_000);
        let delta = at(Some(1), 8, Mode::Delta, 2_000);
        assert!(anew > old && delta > anew);
        assert!(
            at(Some(2), 3, Mode::Incremental, 500) > delta
                && at(Some(10), 1, Mode::Delta, 1) > at(Some(9), 5, Mode::Delta, 2)
        );
        assert!(at(Some(1), 8, Mode::Incremental, 1_500) > delta, "a whole one, where both have the same");
    }

    #[test]
    fn members_are_named_as_they_are_read() {
        let members = BTreeSet::from([7, 0xdead_beef_0000_0001]);
        assert_eq!(ids(&members).as_deref(), Some("7 deadbeef00000001"));
        assert_eq!(ids(&BTreeSet::new()), None);
    }
}
