//! Rebuilds lost indexes from the packs: each says itself what lies in it.
//!
//! First what other regions still have is brought: damaged segments are put back by `verify --repair`, missing ones copied
//! here. Then every pack that is listed and that no readable segment names is read whole, each of its records opened and
//! each chunk's id computed again; new segments name them, in every region that lists them, and are brought to the others
//! together with the packs. That is work of a session, announced like any other, so that nothing is built upon a pack that
//! is condemned meanwhile; it ends without a snapshot.
//!
//! A pack does not say of which generation it is. In a repository that has several, it is taken to be of that of the last
//! session that had begun when it was stored: by the snapshots too, since a prune removes the announcements of sessions that
//! are over.

use super::catch_up::{self, CaughtUp};
use super::verify::parallel;
use crate::base::{Cancel, Generation, PackName, Progress, SegmentName};
use crate::error::Result;
use crate::format::FormatError;
use crate::format::envelope::{Header, Kind as ObjectKind, OBJECT_BYTES_MAX};
use crate::format::index::{PackLine, Place, Segment, divide, encode_packs, encode_places};
use crate::format::objects::Session as SessionObject;
use crate::format::pack;
use crate::format::snapshot::Manifest;
use crate::region::{RegionSet, lock};
use crate::repo::Repo;
use crate::repo::gather::keys_of;
use crate::repo::index::Index;
use crate::repo::reader::{Content, open_record};
use crate::repo::session::{Errand, Session};
use crate::store::{Key, Prefix};
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

/// What was done.
#[derive(Debug, Default)]
pub struct Rebuilt {
    /// Packs that no segment named.
    pub packs: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Chunks that have a place again.
    pub chunks: u64,
    /// Segments written.
    pub segments: u64,
    /// Packs that no region has intact.
    pub unreadable: u64,
    /// What regions lacked and was brought.
    pub caught_up: CaughtUp,
}

/// A pack that no segment names.
#[derive(Debug, Clone, Copy)]
struct Orphan {
    name: PackName,
    size: u64,
    /// When it was stored, by the store that says the earliest time, ms.
    stored: i64,
    /// Regions that list it with this size.
    at: RegionSet,
}

/// What a pack says of itself.
struct Told {
    line: PackLine,
    places: Vec<Place>,
    at: RegionSet,
    generation: Generation,
}

/// Rebuilds what is lost.
///
/// # Errors
/// Interrupted, or nothing can be written.
pub fn run(repo: &Arc<Repo>, workers: usize, host: &str, progress: &Progress, cancel: &Cancel) -> Result<Rebuilt> {
    repo.may_write()?;
    let mut done = Rebuilt { caught_up: catch_up::run(repo, workers, cancel)?, ..Rebuilt::default() };
    let orphans = orphans(repo)?;
    done.packs = orphans.len() as u64;
    if orphans.is_empty() {
        return Ok(done);
    }
    progress.bytes_expected.set(orphans.iter().map(|orphan| orphan.size).sum());
    let generations = Generations::read(repo);
    let errand = Errand { host: host.to_owned(), source: "repair index".into(), generation: generations.newest() };
    let session = Session::announce(repo, errand, None)?;
    // What ends of an epoch disagree on stays, and is needed perhaps: it is told again as any other.
    let bad = session.epochs.going();
    let told: Mutex<Vec<Told>> = Mutex::default();
    let read = parallel(&orphans, workers, cancel, |orphan, _| {
        if !bad.contains(&orphan.name)
            && let Some(one) = tell(repo, orphan, &generations)
        {
            progress.bytes_done.add(orphan.size);
            lock(&told).push(one);
        }
        Ok(())
    });
    let told = told.into_inner().unwrap_or_default();
    done.unreadable = orphans.iter().filter(|orphan| !bad.contains(&orphan.name)).count() as u64 - told.len() as u64;
    done.bytes = told.iter().map(|one| one.line.size).sum();
    // What was read so far is worth its segments also where the rest was interrupted.
    let written = publish(repo, &session, told, &mut done);
    session.give_up(repo, "it rebuilt indexes")?;
    read.and(written)?;
    let more = catch_up::run(repo, workers, cancel)?;
    done.caught_up.count(more);
    done.caught_up.lacking = more.lacking;
    Ok(done)
}

/// Packs that are listed and not named where they are listed. One that a segment names in every region that has it is
/// none, however many regions lack it.
fn orphans(repo: &Arc<Repo>) -> Result<Vec<Orphan>> {
    let index = Index::load_afresh(repo)?;
    let named = index.packs();
    let mut found: BTreeMap<PackName, Orphan> = BTreeMap::new();
    for (ix, lines) in repo.regions.list_all(repo.usable(), Prefix::Packs) {
        for line in lines {
            let Key::Pack(name) = line.key else { continue };
            if named.get(&name).is_some_and(|(_, at)| at.has(ix)) || line.size > OBJECT_BYTES_MAX as u64 {
                continue;
            }
            let none = Orphan { name, size: line.size, stored: line.modified, at: RegionSet::NONE };
            let orphan = found.entry(name).or_insert(none);
            orphan.stored = orphan.stored.min(line.modified);
            // Of several sizes the largest is the likeliest to be whole.
            if line.size > orphan.size {
                (orphan.size, orphan.at) = (line.size, RegionSet::NONE);
            }
            if line.size == orphan.size {
                orphan.at = orphan.at.with(ix);
            }
        }
    }
    Ok(found.into_values().collect())
}

/// Reads a pack from the first region that has it whole. Copies that are not are recorded.
fn tell(repo: &Repo, orphan: &Orphan, generations: &Generations) -> Option<Told> {
    let key = Key::Pack(orphan.name);
    for ix in orphan.at.iter() {
        let mut bytes = match repo.regions.get(ix, &key, OBJECT_BYTES_MAX as u64) {
            Ok(bytes) => Vec::from(bytes),
            Err(e) => {
                repo.regions.record_unread(ix, &key, &e);
                continue;
            }
        };
        match places(repo, &orphan.name, &mut bytes) {
            Ok((tree, places)) => {
                let line = PackLine { name: orphan.name, size: bytes.len() as u64, tree };
                let generation = generations.at(orphan.stored);
                return Some(Told { line, places, at: orphan.at, generation });
            }
            Err(why) => repo.regions.record(ix, &key.path(), &why),
        }
    }
    None
}

/// Whether a pack holds trees, and where in it each chunk lies; every record is opened for that.
fn places(repo: &Repo, name: &PackName, bytes: &mut [u8]) -> std::result::Result<(bool, Vec<Place>), FormatError> {
    pack::check_name(name, bytes)?;
    let keys = keys_of(repo, bytes)?;
    let tree = Header::parse(bytes, &repo.id)?.0.kind == ObjectKind::Tree;
    let (mut coder, mut scratch, mut places) = (crate::chunk::Coder::default(), Vec::new(), Vec::new());
    for at in pack::records(&keys, bytes)? {
        let record = bytes.get_mut(at.offset as usize..).unwrap_or_default();
        let (content, _) = open_record(repo.id_key(), &keys, at.number, record, &mut coder, &mut scratch)?;
        let place = |id, inside, len| Place {
            id,
            pack: 0,
            offset: at.offset,
            record_len: at.len,
            number: at.number,
            inside,
            len,
        };
        match content {
            Content::Chunk(id, len) => places.push(place(id, None, len)),
            Content::Bundle(chunks) => {
                places.extend(chunks.iter().map(|(id, offset, len)| place(*id, Some(*offset as u32), *len as u32)));
            }
        }
    }
    Ok((tree, places))
}

/// Writes segments: of packs that the same regions list, and that are of one generation.
fn publish(repo: &Repo, session: &Session, told: Vec<Told>, done: &mut Rebuilt) -> Result<()> {
    let mut groups: HashMap<(u32, Generation), Vec<Told>> = HashMap::new();
    for one in told {
        groups.entry((one.at.bits(), one.generation)).or_default().push(one);
    }
    for ((_, generation), mut group) in groups {
        group.sort_by_key(|one| one.line.name);
        let Some(at) = group.first().map(|one| one.at) else { continue };
        let lines: Vec<PackLine> = group.iter().map(|one| one.line).collect();
        let numbered = group.into_iter().zip(0u32..);
        let places: Vec<Place> =
            numbered.flat_map(|(one, pack)| one.places.into_iter().map(move |place| Place { pack, ..place })).collect();
        for (lines, mut places) in divide(&lines, &places) {
            let segment = Segment {
                fresh: session.fresh(repo),
                sid: session.sid,
                generation,
                domain: repo.domain(),
                packs: encode_packs(&lines).into(),
                entries: encode_places(&mut places).into(),
            };
            let bytes: Bytes = repo.seal(ObjectKind::Index, "", &segment)?;
            let key = Key::Index(SegmentName(*blake3::hash(&bytes).as_bytes()));
            if !repo.regions.put_all(at.and(repo.writable()), &key, &bytes).is_empty() {
                done.segments += 1;
                done.chunks += places.len() as u64;
            }
        }
    }
    Ok(())
}

/// When sessions of which generation began.
struct Generations(Vec<(i64, Generation)>);

impl Generations {
    fn read(repo: &Repo) -> Generations {
        let mut begun = Vec::new();
        for (key, at) in repo.regions.listed(repo.usable(), Prefix::Sessions) {
            let opened = repo.read_object(at, &key).ok();
            let session = opened.and_then(|opened| opened.decode::<SessionObject>("session").ok());
            begun.extend(session.map(|session| (session.created, session.generation)));
        }
        // Forgotten ones too: what they stored may still be there.
        for (key, at) in repo.regions.listed(repo.usable(), Prefix::Snapshots) {
            let opened = repo.read_object(at, &key).ok().filter(|opened| opened.kind == ObjectKind::Manifest);
            let manifest = opened.and_then(|opened| opened.decode::<Manifest>("manifest").ok());
            begun.extend(manifest.map(|manifest| (manifest.start, manifest.generation)));
        }
        begun.sort_unstable_by_key(|(created, _)| *created);
        Generations(begun)
    }

    fn newest(&self) -> Generation {
        self.0.iter().map(|(_, generation)| *generation).max().unwrap_or(Generation(1))
    }

    /// That of the last session that had begun at a time, or of the first one.
    fn at(&self, time: i64) -> Generation {
        let before = self.0.partition_point(|(created, _)| *created <= time);
        let last = before.saturating_sub(1);
        self.0.get(last).map_or(Generation(1), |(_, generation)| *generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pack_is_of_the_session_that_stored_it() {
        let generations = Generations(vec![(10, Generation(1)), (20, Generation(1)), (30, Generation(2))]);
        let at = [5, 10, 29, 30, 99].map(|time| generations.at(time).0);
        assert_eq!((at, generations.newest()), ([1, 1, 1, 2, 2], Generation(2)));
        assert_eq!(Generations(Vec::new()).at(5), Generation(1));
    }
}
