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
use crate::source::etcd::follow::Changes;
use crate::source::etcd::keys::{row_key, split_key};
use crate::source::etcd::kv::{KEYS, KeyValue, Revision};
use crate::source::etcd::rebuild::Change;
use crate::source::etcd::table::Table;

/// The last revision of a snapshot.
pub struct Seam {
    revision: i64,
    /// Its changes, in order; none where a compaction left nothing of them.
    changes: Vec<Change>,
}

impl Seam {
    /// Of a snapshot.
    ///
    /// # Errors
    /// No region has the parts that say it intact.
    pub fn of(reader: &Reader, manifest: &Manifest, revision: i64, cancel: &Cancel) -> Result<Seam> {
        let mut changes = match Deltas::open(reader, manifest, cancel)?.last()? {
            Some(segment) => segment.changes().collect::<Result<Vec<_>>>()?,
            None => last_rows(reader, manifest, revision)?,
        };
        changes.retain(|change| change.revision.main == revision);
        Ok(Seam { revision, changes })
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

/// What the rows of a whole snapshot say of a revision.
fn last_rows(reader: &Reader, manifest: &Manifest, revision: i64) -> Result<Vec<Change>> {
    let rows = Table::open(part(reader, manifest, ROWS)?)?;
    let mut changes = Vec::new();
    for row in rows.from(&row_key(KEYS, &Revision { main: revision, sub: 0 }.encode(false))) {
        let row = row?;
        let Some((KEYS, key)) = split_key(&row.key) else { break };
        let (found, deleted) = Revision::decode(key)?;
        if found.main != revision {
            break;
        }
        // A revision that was moved up stands there as a row of no key, of which a watch says nothing.
        if KeyValue::decode(&row.value).is_ok_and(|kv| kv.key.is_empty()) {
            continue;
        }
        changes.push(Change { revision: found, deleted, message: row.value });
    }
    Ok(changes)
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
        let seam = || Seam { revision: 7, changes: vec![change(7, 0, b"a", false), change(7, 1, b"", true)] };
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
        assert!(Seam { revision: 7, changes: Vec::new() }.take_from(&mut new));
        assert_eq!(new, told(vec![change(8, 0, b"b", false)]));
    }
}
