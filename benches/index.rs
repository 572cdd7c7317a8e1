//! The dedup index at scale, as runs of the local cache.
//!
//! `cargo bench --bench index -- CHUNKS [FOLDER]` makes a synthetic index of so many chunks (1,000,000 by default) in
//! a folder of its own (below `/dev/shm` by default; 64 bytes a chunk, twice that while it is made), then opens it
//! and looks chunks up as a writer does. Memory is the growth of this process's anonymous pages.

use holdfast::base::{ChunkId, Env, Generation, PackName, RepoId, SegmentName, SessionId, WriterId};
use holdfast::base::{ConfigNo, Digest, Domain, Epoch};
use holdfast::crypto::Secret;
use holdfast::format::index::{PackLine, Place, Segment, encode_packs, encode_places};
use holdfast::format::signed::Fresh;
use holdfast::region::RegionSet;
use holdfast::repo::index::cache::Cache;
use holdfast::repo::index::{Content, Index, Listing, Reusable, Reuse, Source};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
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

/// What this thread has used of the processor, in seconds: other work on the machine does not count.
fn used() -> Done<f64> {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(stat.split(' ').next().ok_or("no schedstat")?.parse::<u64>()? as f64 / 1e9)
}

/// Look-ups a second of the processor, on one thread.
fn look_up(known: &Reusable, ids: &[ChunkId], expected: bool) -> Done<f64> {
    let begin = used()?;
    let found = ids.iter().filter(|id| known.has(id, |_| false)).count();
    let rate = ids.len() as f64 / (used()? - begin);
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

/// What a look-up cannot do without: a read of a few bytes of a large file that is in memory.
fn reads(folder: &Path) -> Done<f64> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(std::fs::read_dir(folder)?.next().ok_or("no index")??.path())?.flatten() {
        files.push((entry.metadata()?.len(), entry.path()));
    }
    let (len, path) = files.into_iter().max().ok_or("no run")?;
    let (file, mut piece) = (File::open(path)?, [0; 240]);
    let begin = used()?;
    for n in 0..LOOKUPS {
        file.read_exact_at(&mut piece, n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % (len - 240))?;
    }
    Ok(LOOKUPS as f64 / (used()? - begin))
}

fn cache(folder: &Path) -> Option<Arc<Cache>> {
    let root = Secret::from_bytes([7; 32]);
    Some(Arc::new(Cache::new(folder, &RepoId([7; 16]), &root, &Env::system())))
}

fn open(chunks: u64, folder: &Path) -> Index {
    let synthetic = Synthetic { chunks };
    Index::assemble(&synthetic.listing(), Arc::new(synthetic), cache(folder))
}

fn main() -> Done<()> {
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    let chunks: u64 = args.next().map_or(Ok(1_000_000), |text| text.parse())?;
    let chunks = chunks.next_multiple_of(ENTRIES);
    let parent = args.next().unwrap_or_else(|| "/dev/shm".into());
    if args.next().is_some() {
        drop(open(chunks, Path::new(&parent)));
        return Ok(());
    }
    let dir = tempfile::TempDir::new_in(parent)?;
    let begin = Instant::now();
    // In another process, so that this one's memory tells what an open index takes.
    let made = Command::new(std::env::current_exe()?).arg(chunks.to_string()).arg(dir.path()).arg("make").status()?;
    if !made.success() {
        return Err("it was not made".into());
    }
    let (files, bytes) = stored(dir.path())?;
    println!("{chunks} chunks: made in {:.1} s; {files} runs", begin.elapsed().as_secs_f64());
    println!("on disk         {:>10.2} bytes a chunk", bytes as f64 / chunks as f64);
    println!("bare reads      {:>10.0} a second", reads(dir.path())?);

    let step = (chunks / LOOKUPS).max(1);
    let hit = |n: u64| id(n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % chunks);
    let hits: Vec<ChunkId> = (0..LOOKUPS.min(chunks)).map(hit).collect();
    // As a re-read asks: pack after pack.
    let in_order: Vec<ChunkId> = (0..LOOKUPS.min(chunks)).map(id).collect();
    let misses: Vec<ChunkId> = (0..LOOKUPS).map(|n| id((1 << 60) + n * step)).collect();
    let synthetic = Synthetic { chunks };
    let listing = synthetic.listing();
    let before = memory()?;
    let (begin, wall) = (used()?, Instant::now());
    let index = known(Index::assemble(&listing, Arc::new(synthetic), cache(dir.path())));
    let (cpu, wall) = (used()? - begin, wall.elapsed().as_secs_f64());
    println!("open            {:>10.1} ms ({:.1} ms on the clock)", cpu * 1000.0, wall * 1000.0);
    let grown = |now: u64| now.saturating_sub(before) as f64 / chunks as f64;
    println!("in memory then  {:>10.2} bytes a chunk", grown(memory()?));
    for round in ["first", "then"] {
        println!("misses, {round:<7} {:>10.0} a second", look_up(&index, &misses, false)?);
        println!("hits, {round:<9} {:>10.0} a second", look_up(&index, &hits, true)?);
        println!("by pack, {round:<6} {:>10.0} a second", look_up(&index, &in_order, true)?);
    }
    println!("in memory after {:>10.2} bytes a chunk", grown(memory()?));
    drop(index);

    let (begin, wall) = (used()?, Instant::now());
    drop(open(chunks + 100_000, dir.path()));
    let (cpu, wall) = (used()? - begin, wall.elapsed().as_secs_f64());
    println!("add 100,000     {:>10.1} ms ({:.1} ms on the clock)", cpu * 1000.0, wall * 1000.0);
    Ok(())
}
