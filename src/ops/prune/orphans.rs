//! Packs that no index names: they say themselves what is in them, and go only if everything in them that a snapshot
//! needs is whole elsewhere. And those that only an index names.

use super::mark::{Marks, entry_of};
use super::table::Table;
use crate::base::{Cancel, ChunkId, PackName, SegmentName};
use crate::error::{Kind, Result};
use crate::format::envelope::{OBJECT_BYTES_MAX, RecordKind};
use crate::format::{FormatError, pack};
use crate::region::RegionSet;
use crate::repo::gather::keys_of;
use crate::repo::index::{Index, Located};
use crate::repo::{Repo, changed};
use crate::store::{Key, Prefix};
use std::collections::{BTreeSet, HashSet};

/// What became of them.
#[derive(Debug, Default)]
pub(super) struct Orphans {
    /// Rows of those that may go.
    pub(super) go: Vec<u32>,
    /// Those that belong to a session which is at work, or came after one.
    pub(super) young: u64,
    /// Those with something in them that a snapshot needs and that not every region has elsewhere.
    pub(super) needed: u64,
    /// Those that no region can show.
    pub(super) unreadable: u64,
}

/// What they are judged by.
pub(super) struct Means<'m> {
    pub(super) repo: &'m Repo,
    pub(super) index: &'m Index,
    pub(super) table: &'m Table,
    pub(super) marks: &'m Marks,
    pub(super) members: RegionSet,
    /// Rows that go anyway: nothing rests on them.
    pub(super) going: &'m HashSet<u32>,
    /// When the oldest session that is at work was announced, ms.
    pub(super) oldest: i64,
    pub(super) cancel: &'m Cancel,
}

impl Means<'_> {
    /// Reads the tables of all of them.
    ///
    /// # Errors
    /// A member does not answer, or interrupted.
    pub(super) fn judge(&self) -> Result<Orphans> {
        let mut orphans = Orphans::default();
        let mut buffer = Vec::new();
        for (n, row) in (0u32..).zip(&self.table.rows).filter(|(_, row)| row.is_orphan() && !row.doomed) {
            self.cancel.check()?;
            if row.modified >= self.oldest {
                orphans.young += 1;
                continue;
            }
            match self.chunks(&row.name, row.listed, &mut buffer)? {
                None => orphans.unreadable += 1,
                Some(chunks) if chunks.iter().all(|id| self.can_do_without(id)) => orphans.go.push(n),
                Some(_) => orphans.needed += 1,
            }
        }
        Ok(orphans)
    }

    /// The chunks of a pack by its own table; `None` if no region can show it.
    fn chunks(&self, name: &PackName, at: RegionSet, buffer: &mut Vec<u8>) -> Result<Option<Vec<ChunkId>>> {
        let key = Key::Pack(*name);
        for ix in at.iter() {
            let bytes = match self.repo.regions.get_into(ix, &key, OBJECT_BYTES_MAX as u64, buffer) {
                Ok(bytes) => bytes,
                Err(e) if matches!(e.kind(), Kind::NotFound | Kind::Damage) => continue,
                Err(e) => return Err(e),
            };
            match pack::check_name(name, bytes).and_then(|()| self.read(bytes)) {
                Ok(chunks) => return Ok(Some(chunks)),
                Err(why) => {
                    // By a key that is newer it may be somebody's; while the keys stand nobody made it who is known here.
                    if matches!(why, FormatError::WrongKey) {
                        changed::keys_stand(self.repo)?;
                    }
                    self.repo.regions.record(ix, &key.path(), &why);
                }
            }
        }
        Ok(None)
    }

    fn read(&self, bytes: &mut [u8]) -> std::result::Result<Vec<ChunkId>, FormatError> {
        let keys = keys_of(self.repo, bytes)?;
        let mut chunks = Vec::new();
        for at in pack::records(&keys, bytes)? {
            let record = bytes.get_mut(at.offset as usize..).unwrap_or_default();
            let (head, body) = keys.record(at.number, record)?;
            match head.kind {
                RecordKind::Chunk => chunks.push(head.id),
                RecordKind::Bundle => {
                    let bundle = pack::bundle(body, head.plain_len as usize)?;
                    chunks.extend(bundle.chunks.iter().map(|(id, ..)| *id));
                }
                _ => {}
            }
        }
        Ok(chunks)
    }

    /// Whether nobody needs a chunk, or every region has it in a pack that stays.
    fn can_do_without(&self, id: &ChunkId) -> bool {
        let places: Vec<Located> = self.index.locate(id).collect();
        self.marks.generations().into_iter().all(|generation| {
            let live = entry_of(&places, generation).is_some_and(|entry| self.marks.is_live(generation, entry));
            let stays =
                |copy: &(u32, RegionSet)| !self.going.contains(&copy.0) && self.table.is_full(*copy, self.members);
            !live || self.table.copies(&places, generation).iter().any(stays)
        })
    }
}

/// Packs that no region lists: what names them can go where no snapshot needs it, or each of its chunks is elsewhere too. Who has made one just now, and was not seen as a
/// session, names it in a segment that is young: one stored since then.
///
/// # Errors
/// A listing failed.
pub(super) fn vanished(
    (repo, members): (&Repo, RegionSet),
    index: &Index,
    table: &Table,
    since: i64,
) -> Result<BTreeSet<u32>> {
    let vanished: BTreeSet<u32> =
        (0u32..).zip(&table.rows).filter(|(_, row)| row.is_vanished()).map(|(n, _)| n).collect();
    if vanished.is_empty() {
        return Ok(vanished);
    }
    let (mut listed, mut young) = (HashSet::new(), HashSet::new());
    for ix in members.iter() {
        let ahead = repo.regions.clock_ahead_ms(ix, repo.env.now());
        for line in repo.regions.list(ix, Prefix::Index)? {
            let Key::Index(name) = line.key else { continue };
            listed.insert(name);
            if line.modified.saturating_sub(ahead) >= since {
                young.insert(name);
            }
        }
    }
    let is_old = |name: &SegmentName| listed.contains(name) && !young.contains(name);
    let stay: HashSet<PackName> =
        index.lines().filter(|(segment, ..)| !is_old(segment)).map(|(_, line, _)| line.name).collect();
    let goes = |n: &u32| table.row(*n).is_some_and(|row| !stay.contains(&row.name));
    Ok(vanished.into_iter().filter(goes).collect())
}
