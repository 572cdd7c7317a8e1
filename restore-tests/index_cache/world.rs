//! Segments made up from a seed, the regions that list them, and what an index must say of them.

use holdfast::base::{
    ChunkId, ConfigNo, Digest, Domain, Epoch, Generation, PackName, SegmentName, SessionId, WriterId,
};
use holdfast::base::{Env, RepoId};
use holdfast::crypto::Secret;
use holdfast::format::index::{PackLine, Place, Segment, encode_packs, encode_places};
use holdfast::format::signed::Fresh;
use holdfast::region::RegionSet;
use holdfast::repo::index::cache::Cache;
use holdfast::repo::index::{Content, Index, Listing, Reusable, Reuse, Source};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// Chunks are drawn from so many.
pub const CHUNKS: u64 = 300;
pub const REGIONS: usize = 3;

pub fn id(n: u64) -> ChunkId {
    ChunkId(*blake3::hash(&n.to_le_bytes()).as_bytes())
}

fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

/// Segment number `n`: up to 5 packs, up to `chunks` entries, some of them twice; always the same.
fn segment(n: u64, chunks: u64) -> (SegmentName, Content) {
    let mut state = n.wrapping_mul(77) + 5;
    let packs: Vec<PackLine> = (0..next(&mut state) % 6)
        .map(|p| PackLine { name: PackName(*id(1 << 40 | n << 8 | p).bytes()), size: 1 << 20, tree: p % 2 == 1 })
        .collect();
    let entries = if packs.is_empty() { 0 } else { next(&mut state) % chunks };
    let mut places: Vec<Place> = (0..entries)
        .map(|_| Place {
            id: id(next(&mut state) % CHUNKS),
            pack: (next(&mut state) % packs.len() as u64) as u32,
            offset: (next(&mut state) % 1000) as u32,
            record_len: 100,
            number: 1,
            inside: None,
            len: 12,
        })
        .collect();
    let segment = Segment {
        fresh: Fresh { config: ConfigNo(1), digest: Digest::ZERO, epoch: Epoch(1) },
        sid: SessionId([n as u8; 16]),
        generation: Generation(1 + (n % 2) as u32),
        domain: Domain(0),
        packs: encode_packs(&packs).into(),
        entries: encode_places(&mut places).into(),
    };
    let writer = WriterId([(n % 5) as u8; 16]);
    (SegmentName(*id(1 << 50 | n).bytes()), Content { segment, packs, writer, size: 1000 + n })
}

/// What stands in the regions.
#[derive(Default)]
pub struct World {
    segments: BTreeMap<SegmentName, Content>,
    pub distrusted: Mutex<BTreeSet<WriterId>>,
    pub away: std::sync::atomic::AtomicBool,
    pub reads: AtomicUsize,
}

impl Source for World {
    fn read(&self, name: SegmentName, at: RegionSet) -> Option<Content> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let content = self.segments.get(&name).filter(|content| self.trusts(&content.writer))?;
        (!at.is_empty()).then(|| content.clone())
    }

    fn trusts(&self, writer: &WriterId) -> bool {
        !self.distrusted.lock().unwrap().contains(writer)
    }

    fn odd(&self, _: SegmentName, at: RegionSet) {
        assert!(!at.is_empty());
    }

    fn whole(&self) -> bool {
        !self.away.load(Ordering::Relaxed)
    }
}

/// A place as it is compared: chunk, pack, offset, generation, regions.
type Seen = (ChunkId, PackName, u32, u32, u32);

impl World {
    pub fn new(segments: u64, chunks: u64) -> Arc<World> {
        Arc::new(World { segments: (0..segments).map(|n| segment(n, chunks)).collect(), ..World::default() })
    }

    /// A listing: for each segment the regions that have it, as bits; `odd` has another size.
    pub fn listing(&self, masks: &[u8]) -> Listing {
        let mut listing = Listing::new();
        for ((name, content), mask) in self.segments.iter().zip(masks) {
            for ix in (0..REGIONS).filter(|ix| mask >> ix & 1 == 1) {
                let odd = u64::from(mask >> (4 + ix) & 1);
                listing.entry(*name).or_default().add(content.size + odd, ix);
            }
        }
        listing
    }

    fn counted(&self, masks: &[u8]) -> impl Iterator<Item = (&Content, RegionSet)> {
        self.segments.values().zip(masks).filter_map(|(content, mask)| {
            let at = RegionSet::of((0..REGIONS).filter(|ix| mask >> ix & 1 == 1 && mask >> (4 + ix) & 1 == 0));
            (!at.is_empty() && self.trusts(&content.writer)).then_some((content, at))
        })
    }

    fn expected(&self, masks: &[u8]) -> Vec<Seen> {
        let mut all = Vec::new();
        for (content, at) in self.counted(masks) {
            for raw in content.segment.entries.as_chunks().0 {
                let place = Place::parse(raw);
                let pack = content.packs[place.pack as usize].name;
                all.push((place.id, pack, place.offset, content.segment.generation.0, at.bits()));
            }
        }
        all.sort_unstable();
        all
    }

    /// Holds an index against what it must say.
    pub fn check(&self, index: Index, masks: &[u8]) -> Arc<Index> {
        let expected = self.expected(masks);
        let found = (0..CHUNKS + 50).flat_map(|n| index.locate(&id(n)));
        let mut found: Vec<Seen> =
            found.map(|at| (at.place.id, at.pack.name, at.place.offset, at.generation.0, at.regions.bits())).collect();
        found.sort_unstable();
        assert!(found == expected, "{} places, {} expected", found.len(), expected.len());
        assert_eq!(index.all().len(), expected.len());
        let packs: BTreeSet<PackName> =
            self.counted(masks).flat_map(|(content, _)| content.packs.iter().map(|pack| pack.name)).collect();
        assert!(index.packs().into_keys().collect::<BTreeSet<_>>() == packs, "packs");
        assert_eq!(index.segments().count(), self.counted(masks).count());
        let index = Arc::new(index);
        self.check_reuse(&index, &expected);
        index
    }

    /// What need not be stored again, for two of the regions and one generation.
    fn check_reuse(&self, index: &Arc<Index>, expected: &[Seen]) {
        let wanted = RegionSet::of([0, 2]);
        let bad: PackName = expected.first().map_or(PackName([0; 32]), |seen| seen.1);
        let rules = Reuse { regions: wanted, bad: [bad].into(), generation: Generation(1), present: None };
        let known = Reusable::new(Arc::clone(index), rules);
        let good = |seen: &&Seen| seen.1 != bad && seen.3 == 1 && seen.4 & wanted.bits() == wanted.bits();
        let (mut has, mut may_use) = (BTreeSet::new(), BTreeSet::new());
        expected.iter().filter(good).for_each(|seen| {
            has.insert(seen.0);
            may_use.insert(seen.1);
        });
        for n in 0..CHUNKS {
            assert_eq!(known.has(&id(n), |_| false), has.contains(&id(n)), "chunk {n}");
        }
        let used = known.used();
        assert_eq!(used.is_empty(), has.is_empty());
        assert!(used.iter().all(|pack| may_use.contains(pack)), "a pack counts as used that was not");
    }
}

/// The cache below a folder, as a process of its own would open it.
pub fn cache(state: &Path, key: u8) -> Option<Arc<Cache>> {
    Some(Arc::new(Cache::new(state, &RepoId([7; 16]), &Secret::from_bytes([key; 32]), &Env::system())))
}
