//! How much there is: of a repository by kind, region and source; of a snapshot, and of it alone.

use super::side_by_side::{Trees, Version, Visitor, Walk};
use crate::base::{Cancel, ChunkId};
use crate::chunk::Coder;
use crate::error::{Error, Kind, Result};
use crate::format::snapshot::Manifest;
use crate::format::tree::EntryType;
use crate::repo::Repo;
use crate::repo::index::{Index, Located};
use crate::repo::reader::Reader;
use crate::repo::tree::ListReader;
use crate::repo::view::View;
use crate::store::Prefix;
use std::collections::{BTreeMap, HashMap, HashSet};

/// Objects of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Objects {
    /// How many.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Objects {
    fn add(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

/// Chunks of one class, in one region.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Chunks {
    /// Different ones, and their bytes before compression.
    pub unique: Objects,
    /// The records that hold them, and their bytes as stored.
    pub records: Objects,
    /// Chunks that are stored more than once, and the bytes of these further copies before compression.
    pub again: Objects,
    /// Packs.
    pub packs: Objects,
}

/// What a region stores.
#[derive(Debug, Clone, Default)]
pub struct RegionStats {
    /// Its name.
    pub name: String,
    /// By the kind of object.
    pub kinds: Vec<(&'static str, Objects)>,
    /// Why it could not be asked.
    pub failed: Option<String>,
}

impl RegionStats {
    /// All of it.
    pub fn total(&self) -> Objects {
        self.kinds.iter().fold(Objects::default(), |sum, (_, objects)| Objects {
            count: sum.count + objects.count,
            bytes: sum.bytes.saturating_add(objects.bytes),
        })
    }
}

/// The snapshots of one source.
#[derive(Debug, Clone, Default)]
pub struct SourceStats {
    /// How many.
    pub snapshots: u64,
    /// Bytes of files in all of them.
    pub bytes: u64,
    /// Files in the newest.
    pub files_newest: u64,
    /// Bytes of files in the newest.
    pub bytes_newest: u64,
    /// What their runs stored in each region.
    pub bytes_stored: u64,
}

/// All of a repository.
#[derive(Debug, Clone, Default)]
pub struct RepositoryStats {
    /// By name.
    pub sources: BTreeMap<String, SourceStats>,
    /// Content.
    pub data: Chunks,
    /// Directories and lists.
    pub trees: Chunks,
    /// What each region stores.
    pub regions: Vec<RegionStats>,
}

impl RepositoryStats {
    /// All sources together.
    pub fn total(&self) -> SourceStats {
        self.sources.values().fold(SourceStats::default(), |sum, source| SourceStats {
            snapshots: sum.snapshots + source.snapshots,
            bytes: sum.bytes.saturating_add(source.bytes),
            files_newest: sum.files_newest.saturating_add(source.files_newest),
            bytes_newest: sum.bytes_newest.saturating_add(source.bytes_newest),
            bytes_stored: sum.bytes_stored.saturating_add(source.bytes_stored),
        })
    }
}

/// Counts what a repository has. Content is counted by the index, so also what no snapshot needs any more.
pub fn repository(repo: &Repo, view: &View, index: &Index) -> RepositoryStats {
    let (data, trees) = chunks(index);
    RepositoryStats { sources: sources(view), data, trees, regions: regions(repo) }
}

fn sources(view: &View) -> BTreeMap<String, SourceStats> {
    let mut sources: BTreeMap<String, SourceStats> = BTreeMap::new();
    for snapshot in view.newest_first() {
        let manifest = &snapshot.manifest;
        let source = sources.entry(manifest.source.name.clone()).or_insert_with(|| SourceStats {
            files_newest: manifest.counts.files,
            bytes_newest: manifest.counts.bytes,
            ..SourceStats::default()
        });
        source.snapshots += 1;
        source.bytes = source.bytes.saturating_add(manifest.counts.bytes);
        source.bytes_stored = source.bytes_stored.saturating_add(manifest.transfer.bytes_stored);
    }
    sources
}

/// Data and trees.
fn chunks(index: &Index) -> (Chunks, Chunks) {
    let mut all = index.all();
    all.sort_unstable_by_key(|at| (at.place.id, at.pack.name, at.place.number));
    all.dedup_by_key(|at| (at.place.id, at.pack.name, at.place.number));
    let (mut data, mut trees) = (Chunks::default(), Chunks::default());
    let mut last: Option<ChunkId> = None;
    for at in &all {
        let chunks = if at.pack.tree { &mut trees } else { &mut data };
        let known = last.replace(at.place.id) == Some(at.place.id);
        let count = if known { &mut chunks.again } else { &mut chunks.unique };
        count.add(at.place.len.into());
    }
    all.sort_unstable_by_key(|at| (at.pack.name, at.place.number));
    all.dedup_by_key(|at| (at.pack.name, at.place.number));
    for at in &all {
        let chunks = if at.pack.tree { &mut trees } else { &mut data };
        chunks.records.add(at.place.record_len.into());
    }
    for (pack, _) in index.packs().values() {
        let chunks = if pack.tree { &mut trees } else { &mut data };
        chunks.packs.add(pack.size);
    }
    (data, trees)
}

fn regions(repo: &Repo) -> Vec<RegionStats> {
    let one = |ix: usize| {
        let name = repo.regions.region(ix).name.clone();
        if let Some(e) = repo.regions.failure(ix) {
            return RegionStats { name, kinds: Vec::new(), failed: Some(e.to_string()) };
        }
        let mut kinds = Vec::new();
        for prefix in Prefix::ALL {
            let mut objects = Objects::default();
            match repo.regions.list(ix, prefix) {
                Ok(listed) => listed.iter().for_each(|line| objects.add(line.size)),
                Err(e) => return RegionStats { name, kinds, failed: Some(e.to_string()) },
            }
            kinds.push((prefix.path(), objects));
        }
        RegionStats { name, kinds, failed: None }
    };
    (0..repo.regions.len()).map(one).collect()
}

/// One snapshot.
#[derive(Debug, Clone, Copy, Default)]
pub struct SnapshotStats {
    /// Different chunks of its files, and their bytes before compression.
    pub unique: Objects,
    /// The records in which they lie; some hold chunks of others too.
    pub records: Objects,
    /// Chunks that no other snapshot has, if that was asked for.
    pub alone: Option<Objects>,
    /// Bytes that a restore writes: holes and further names of one inode need none.
    pub restore_bytes: u64,
}

/// Chunks of files, as they are met.
struct Gatherer<'g> {
    reader: &'g Reader,
    coder: Coder,
    chunks: HashMap<ChunkId, u64>,
    /// Whether what is met is taken away instead.
    take_away: bool,
    restore_bytes: u64,
    linked: HashSet<(u64, u64)>,
    lost: Option<Error>,
}

impl Gatherer<'_> {
    fn file(&mut self, version: &Version) -> Result<()> {
        let entry = &version.entry;
        if entry.link_group().is_some_and(|group| !self.linked.insert(group)) {
            return Ok(());
        }
        self.restore_bytes += entry.inline.as_ref().map_or(0, |inline| inline.len() as u64);
        let mut list = ListReader::new(self.reader, entry)?;
        while let Some(item) = list.next(&mut self.coder)? {
            if item.id == ChunkId::HOLE {
                continue;
            }
            self.restore_bytes = self.restore_bytes.saturating_add(item.len);
            if self.take_away {
                self.chunks.remove(&item.id);
            } else {
                self.chunks.insert(item.id, item.len);
            }
        }
        Ok(())
    }
}

impl Visitor for Gatherer<'_> {
    fn path(&mut self, _: &[u8], versions: &[Version]) -> Result<()> {
        versions.iter().filter(|version| version.entry.kind == EntryType::File).try_for_each(|version| {
            // Inodes of different snapshots are different things.
            if self.take_away {
                self.linked.clear();
            }
            self.file(version)
        })
    }

    fn lost(&mut self, path: &[u8], _: &Trees, why: &Error) {
        self.lost.get_or_insert(why.clone().at(String::from_utf8_lossy(path)));
    }
}

/// Counts one snapshot; with `alone` also what none of these others has, for which all of them are walked.
/// Memory: some 60 bytes for each chunk of the snapshot.
///
/// # Errors
/// A page that no region has intact: what is counted without it would be wrong.
pub fn snapshot(
    reader: &Reader,
    manifest: &Manifest,
    alone: Option<&[&Manifest]>,
    cancel: &Cancel,
) -> Result<SnapshotStats> {
    let (chunks, linked, lost) = (HashMap::new(), HashSet::new(), None);
    let mut gatherer =
        Gatherer { reader, coder: Coder::default(), chunks, take_away: false, restore_bytes: 0, linked, lost };
    walk(reader, &[manifest], &mut gatherer, cancel)?;
    let mut stats = SnapshotStats { restore_bytes: gatherer.restore_bytes, ..SnapshotStats::default() };
    gatherer.chunks.values().for_each(|len| stats.unique.add(*len));
    let mut records: HashMap<_, u32> = HashMap::new();
    for id in gatherer.chunks.keys() {
        let at: Option<Located> = reader.index.locate(id).next();
        let at = at.ok_or_else(|| Error::new(Kind::Damage, format!("chunk {} is in no index segment", id.short())))?;
        records.insert((at.pack.name, at.place.number), at.place.record_len);
    }
    records.values().for_each(|len| stats.records.add((*len).into()));
    if let Some(others) = alone {
        gatherer.take_away = true;
        walk(reader, others, &mut gatherer, cancel)?;
        let mut objects = Objects::default();
        gatherer.chunks.values().for_each(|len| objects.add(*len));
        stats.alone = Some(objects);
    }
    Ok(stats)
}

fn walk(reader: &Reader, manifests: &[&Manifest], gatherer: &mut Gatherer<'_>, cancel: &Cancel) -> Result<()> {
    let entries = manifests.iter().fold(0u64, |sum, manifest| sum.saturating_add(manifest.counts.entries()));
    Walk::everything(reader, entries, cancel).run(manifests.iter().map(|manifest| &manifest.root), gatherer)?;
    gatherer.lost.take().map_or(Ok(()), Err)
}
