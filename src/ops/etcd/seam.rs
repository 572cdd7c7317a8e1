//! Where a delta is joined to the snapshot that it goes on from.
//!
//! A cluster that was restored from an older state may have the id that it had, and by now a higher revision than the last
//! snapshot: what follows in it is another history. So a delta first sees the snapshot's last revision again, and goes on
//! only if the cluster says of it what the snapshot says.

use super::ROWS;
use super::deltas::Deltas;
use super::keys::part;
use crate::base::Cancel;
use crate::error::Result;
use crate::format::snapshot::Manifest;
use crate::repo::reader::Reader;
use crate::source::etcd::cluster::Cluster;
use crate::source::etcd::follow::Changes;
use crate::source::etcd::keys::{row_key, split_key};
use crate::source::etcd::kv::{KEYS, KeyValue, Revision};
use crate::source::etcd::rebuild::Change;
use crate::source::etcd::table::Table;

/// Of so many keys of a revision a member is asked, where it can be watched no more.
const ASKED_MAX: usize = 256;

/// The last revision of a snapshot, or of what was gathered behind it.
#[derive(Debug, Clone)]
pub struct Seam {
    revision: i64,
    /// Its changes, in order; none where a compaction left nothing of them.
    changes: Vec<Change>,
    /// Whether the revision was moved up: it has no changes of its own, whatever was compacted.
    moved: bool,
}

impl Seam {
    /// Of a snapshot.
    ///
    /// # Errors
    /// No region has the parts that say it intact.
    pub fn of(reader: &Reader, manifest: &Manifest, revision: i64, cancel: &Cancel) -> Result<Seam> {
        let (mut changes, moved) = match Deltas::open(reader, manifest, cancel)?.last()? {
            Some(segment) => (segment.changes().collect::<Result<Vec<_>>>()?, false),
            None => last_rows(reader, manifest, revision)?,
        };
        changes.retain(|change| change.revision.main == revision);
        Ok(Seam { revision, changes, moved })
    }

    /// Of the end of what a watch told.
    pub fn behind(told: &Changes) -> Seam {
        let last = told.changes.iter().filter(|change| change.revision.main == told.to);
        Seam { revision: told.to, changes: last.cloned().collect(), moved: false }
    }

    /// Which revision it is.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// Whether only a compaction can have left so little of it.
    pub fn was_compacted(&self) -> bool {
        self.is_empty() && !self.moved && self.revision > 1
    }

    /// Whether a member has at this revision what it changed. Of each key a transaction has one change at most.
    ///
    /// # Errors
    /// The member does not answer, or has compacted the revision.
    pub fn stands_in(&self, cluster: &Cluster, cancel: &Cancel) -> Result<bool> {
        for change in self.changes.iter().take(ASKED_MAX) {
            let Ok(wanted) = KeyValue::decode(&change.message) else { return Ok(false) };
            let found = cluster.at(wanted.key, self.revision, cancel)?;
            let same = match &found {
                Some(message) => !change.deleted && KeyValue::decode(message).is_ok_and(|kv| kv == wanted),
                None => change.deleted,
            };
            if !same {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether nothing is known of it.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Takes it from the front of what a watch told; says whether it was there, as the snapshot has it.
    pub fn take_from(&self, new: &mut Changes) -> bool {
        if self.is_empty() {
            return true;
        }
        let count = new.changes.iter().take_while(|change| change.revision.main == self.revision).count();
        let behind = new.changes.split_off(count);
        let told = std::mem::replace(&mut new.changes, behind);
        let same = told.len() == self.changes.len() && told.iter().zip(&self.changes).all(|(a, b)| is_same(a, b));
        new.after = self.revision;
        same
    }
}

fn is_same(a: &Change, b: &Change) -> bool {
    let (one, other) = (KeyValue::decode(&a.message), KeyValue::decode(&b.message));
    a.deleted == b.deleted && one.is_ok() && one == other
}

/// What the rows of a whole snapshot say of a revision, and whether it was moved up.
fn last_rows(reader: &Reader, manifest: &Manifest, revision: i64) -> Result<(Vec<Change>, bool)> {
    let rows = Table::open(part(reader, manifest, ROWS)?)?;
    let (mut changes, mut moved) = (Vec::new(), false);
    for row in rows.from(&row_key(KEYS, &Revision { main: revision, sub: 0 }.encode(false))) {
        let row = row?;
        let Some((KEYS, key)) = split_key(&row.key) else { break };
        let (found, deleted) = Revision::decode(key)?;
        if found.main != revision {
            break;
        }
        // A revision that was moved up stands there as a row of no key, of which a watch says nothing.
        if KeyValue::decode(&row.value).is_ok_and(|kv| kv.key.is_empty()) {
            moved = true;
            continue;
        }
        changes.push(Change { revision: found, deleted, message: row.value });
    }
    Ok((changes, moved))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(main: i64, sub: i64, value: &[u8], deleted: bool) -> Change {
        let kv = KeyValue { key: b"/k", value, modified: main, ..KeyValue::default() };
        Change { revision: Revision { main, sub }, deleted, message: kv.encode() }
    }

    fn told(changes: Vec<Change>) -> Changes {
        Changes { after: 6, to: 8, changes, ..Changes::default() }
    }

    #[test]
    fn only_the_same_history_is_gone_on_with() {
        let of = |changes| Seam { revision: 7, changes, moved: false };
        let seam = || of(vec![change(7, 0, b"a", false), change(7, 1, b"", true)]);
        let whole = vec![change(7, 0, b"a", false), change(7, 1, b"", true), change(8, 0, b"b", false)];
        let mut new = told(whole.clone());
        assert!(seam().take_from(&mut new));
        assert_eq!(new, Changes { after: 7, ..told(vec![change(8, 0, b"b", false)]) });
        for other in [
            vec![change(7, 0, b"x", false), whole[1].clone(), whole[2].clone()],
            vec![whole[0].clone(), change(7, 1, b"", false), whole[2].clone()],
            vec![whole[0].clone(), whole[2].clone()],
            vec![whole[2].clone()],
        ] {
            assert!(!seam().take_from(&mut told(other)));
        }
        let mut new = told(vec![change(8, 0, b"b", false)]);
        assert!(of(Vec::new()).take_from(&mut new));
        assert_eq!(new, told(vec![change(8, 0, b"b", false)]));
    }

    #[test]
    fn a_member_that_goes_on_with_what_another_told_must_know_its_end() {
        let told = told(vec![change(7, 0, b"a", false), change(8, 0, b"b", false), change(8, 1, b"", true)]);
        let seam = Seam::behind(&told);
        assert_eq!((seam.revision(), seam.changes.len()), (8, 2));
        let mut same = Changes { after: 7, ..told.clone() };
        same.changes.remove(0);
        assert!(seam.take_from(&mut same) && same.changes.is_empty());
        let mut other = Changes { changes: vec![change(8, 0, b"x", false), change(8, 1, b"", true)], ..told };
        assert!(!seam.take_from(&mut other));
    }

    #[test]
    fn nothing_is_left_of_a_revision_by_a_compaction_or_where_it_was_moved_up() {
        let of = |revision, moved| Seam { revision, changes: Vec::new(), moved };
        assert!(of(7, false).was_compacted());
        // A new cluster begins with a revision that has no change.
        assert!(!of(7, true).was_compacted() && !of(1, false).was_compacted());
    }
}
