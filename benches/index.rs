//! The dedup index at scale, as runs of the local cache.
//!
//! `cargo bench --bench index -- CHUNKS [FOLDER]` makes a synthetic index of so many chunks (1,000,000 by default) in
//! a folder of its own (below `/dev/shm` by default; 61 bytes a chunk, twice that while it is made), then opens it
//! and looks chunks up as a writer does. Memory is the growth of this process's anonymous pages.

use holdfast::base::{ChunkId, Env, Generation, PackName, RepoId, SegmentName, SessionId, WriterId};
use holdfast::base::{ConfigNo, Digest, Domain, Epoch};
use holdfast::crypto::Secret;
use holdfast::format::index::{PackLine, Place, Segment, encode_packs, encode_places};
use holdfast::format::signed::Fresh;
use holdfast::region::RegionSet;
use holdfast::repo::index::cache::Cache;
use holdfast::repo::index::{Content, Index, Listing, Reusable, Reuse, Source};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

type Done<T> = Result<T, Box<dyn std::error::Error>>;

const ENTRIES: u64 = 1 << 17;
const CHUNKS_A_PACK: u64 = 32;
const LOOKUPS: u64 = 2_000_000;

fn id(n: u64) -> ChunkId {
    ChunkId(*blake3::hash(&n.to_le_bytes()).as_bytes())
}

/// Segments made up from their numbers; only a few at a time are in memory.
struct Synthetic {
    chunks: u64,
}

impl Synthetic {
    fn name(n: u64) -> SegmentName {
        let mut name = [0; 32];
        name[..8].copy_from_slice(&n.to_be_bytes());
        SegmentName(name)
    }

    fn listing(&self) -> Listing {
        let mut listing = Listing::new();
        for n in 0..self.chunks.div_ceil(ENTRIES) {
            let holders = listing.entry(Synthetic::name(n)).or_default();
            (0..3).for_each(|ix| holders.add(1, ix));
        }
        listing
    }
}

impl Source for Synthetic {
    fn read(&self, name: SegmentName, _: RegionSet) -> Option<Content> {
        let n = u64::from_be_bytes(*name.bytes().first_chunk()?);
        let (begin, end) = (n * ENTRIES, ((n + 1) * ENTRIES).min(self.chunks));
        let pack = |p: u64| PackLine { name: PackName(*id(u64::MAX - p).bytes()), size: 64 << 20, tree: false };
        let packs: Vec<PackLine> = (begin / CHUNKS_A_PACK..end.div_ceil(CHUNKS_A_PACK)).map(pack).collect();
        let place = |c: u64| Place {
            id: id(c),
            pack: ((c - begin) / CHUNKS_A_PACK) as u32,
            offset: ((c % CHUNKS_A_PACK) << 20) as u32,
            record_len: 1 << 20,
            number: (c % CHUNKS_A_PACK) as u32,
            inside: None,
            len: 1 << 20,
        };
        let mut places: Vec<Place> = (begin..end).map(place).collect();
        let segment = Segment {
            fresh: Fresh { config: ConfigNo(1), digest: Digest::ZERO, epoch: Epoch(1) },
            sid: SessionId([1; 16]),
            generation: Generation(1),
            domain: Domain(0),
            packs: encode_packs(&packs).into(),
            entries: encode_places(&mut places).into(),
        };
        Some(Content { segment, packs, writer: WriterId([0; 16]), size: 1 })
    }

    fn trusts(&self, _: &WriterId) -> bool {
        true
    }

    fn odd(&self, _: SegmentName, _: RegionSet) {}

    fn whole(&self) -> bool {
        true
    }
}

/// Anonymous memory of this process, in bytes.
fn memory() -> Done<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).ok_or("no RssAnon")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? << 10)
}

fn stored(folder: &Path) -> Done<(u64, u64)> {
    let (mut files, mut bytes) = (0, 0);
    let mut open = vec![folder.to_path_buf()];
    while let Some(at) = open.pop() {
        for entry in std::fs::read_dir(at)?.flatten() {
            let meta = entry.metadata()?;
            if meta.is_dir() {
                open.push(entry.path());
            } else if meta.len() > 0 {
                (files, bytes) = (files + 1, bytes + meta.len());
            }
        }
    }
    Ok((files, bytes))
}

/// Look-ups a second, on one thread.
fn look_up(known: &Reusable, ids: &[ChunkId], expected: bool) -> Done<f64> {
    let begin = Instant::now();
    let found = ids.iter().filter(|id| known.has(id, |_| false)).count();
    let rate = ids.len() as f64 / begin.elapsed().as_secs_f64();
    if found != if expected { ids.len() } else { 0 } {
        return Err(format!("{found} of {} found", ids.len()).into());
    }
    Ok(rate)
}

fn known(index: Index) -> Reusable {
    let rules =
        Reuse { regions: RegionSet::of([0, 1, 2]), bad: Default::default(), generation: Generation(1), present: None };
    Reusable::new(Arc::new(index), rules)
}

fn main() -> Done<()> {
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    let chunks: u64 = args.next().map_or(Ok(1_000_000), |text| text.parse())?;
    let chunks = chunks.next_multiple_of(ENTRIES);
    let dir = tempfile::TempDir::new_in(args.next().unwrap_or_else(|| "/dev/shm".into()))?;
    let cache = || {
        let root = Secret::from_bytes([7; 32]);
        Some(Arc::new(Cache::new(dir.path(), &RepoId([7; 16]), &root, &Env::system())))
    };
    let source = |chunks| Arc::new(Synthetic { chunks });
    let listing = Synthetic { chunks }.listing();
    let begin = Instant::now();
    drop(Index::assemble(&listing, source(chunks), cache()));
    let (files, bytes) = stored(dir.path())?;
    println!("{chunks} chunks: made in {:.1} s; {files} runs", begin.elapsed().as_secs_f64());
    println!("on disk         {:>10.2} bytes a chunk", bytes as f64 / chunks as f64);

    let step = (chunks / LOOKUPS).max(1);
    let hits: Vec<ChunkId> =
        (0..LOOKUPS.min(chunks)).map(|n| id(n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % chunks)).collect();
    let misses: Vec<ChunkId> = (0..LOOKUPS).map(|n| id((1 << 60) + n * step)).collect();
    let before = memory()?;
    let begin = Instant::now();
    let index = known(Index::assemble(&listing, source(chunks), cache()));
    println!("open            {:>10.1} ms", begin.elapsed().as_secs_f64() * 1000.0);
    println!("in memory then  {:>10.2} bytes a chunk", (memory()? - before) as f64 / chunks as f64);
    for round in ["first", "then"] {
        println!("misses, {round:<7} {:>10.0} a second", look_up(&index, &misses, false)?);
        println!("hits, {round:<9} {:>10.0} a second", look_up(&index, &hits, true)?);
    }
    println!("in memory after {:>10.2} bytes a chunk", (memory()? - before) as f64 / chunks as f64);
    drop(index);

    let more = chunks + 100_000;
    let listing = Synthetic { chunks: more }.listing();
    let begin = Instant::now();
    let index = Index::assemble(&listing, source(more), cache());
    println!("add 100,000     {:>10.1} ms", begin.elapsed().as_secs_f64() * 1000.0);
    drop(index);
    Ok(())
}
