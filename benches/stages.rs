//! Every stage of a backup, a restore and a verification alone, on one core, through the program's own code.
//!
//! `cargo bench --bench stages [DIR]` needs about 2 GB in `/dev/shm` and a quiet machine. Text comes from the files below DIR
//! (default: the sources of crates that cargo unpacked). Prints the best of several rounds as gigabytes a second, or
//! microseconds an item, and then the roofline that follows from them, as a Markdown table: seconds for a gigabyte if the
//! processors are always busy with these stages and with nothing else.

use holdfast::base::{
    ChunkId, ConfigNo, Digest, Domain, Env, Epoch, Generation, KeyEpoch, PackName, RepoId, SegmentName, SessionId,
    WriterId,
};
use holdfast::chunk::{Codec, Coder, Compression, Cutter, IdKey};
use holdfast::crypto::{BulkCipher, Secret};
use holdfast::error::Result as Held;
use holdfast::format::envelope::{Header, Kind};
use holdfast::format::index::{PackLine, Place, Segment, encode_packs, encode_places};
use holdfast::format::pack::{PackWriter, check_name};
use holdfast::format::signed::Fresh;
use holdfast::format::tree::Entry;
use holdfast::region::RegionSet;
use holdfast::repo::index::cache::Cache;
use holdfast::repo::index::{Content, Index, Listing, Source};
use holdfast::repo::tree::{DirWriter, PageSink};
use holdfast::source::files::{
    DirHandle, Event, RestoreOptions, Target, TargetDir, TargetFile, WalkOptions, Walker, open,
};
use std::fs::File;
use std::hint::black_box;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

type Done<T> = Result<T, Box<dyn std::error::Error>>;

const ROUNDS: usize = 7;
/// Bytes of each kind of data.
const DATA_BYTES: usize = 256 << 20;
/// Chunks are of about this size.
const CHUNK_BYTES: usize = 1 << 20;
const PACK_BYTES: usize = 32 << 20;
const FILES_MAX: usize = 20_000;
const FILES_A_DIR: usize = 32;

/// Seconds of the quickest round.
fn best(mut act: impl FnMut() -> Done<()>) -> Done<f64> {
    let mut quickest = f64::MAX;
    for _ in 0..ROUNDS {
        let begin = Instant::now();
        act()?;
        quickest = quickest.min(begin.elapsed().as_secs_f64());
    }
    Ok(quickest)
}

/// Prints a stage, and returns seconds for a gigabyte.
fn bytes(name: &str, count: usize, seconds: f64) -> f64 {
    println!("{name:<44} {:>8.2} GB/s {:>8.3} s/GB", count as f64 / seconds / 1e9, seconds / count as f64 * 1e9);
    seconds / count as f64 * 1e9
}

/// Prints a stage, and returns seconds an item.
fn items(name: &str, count: usize, seconds: f64) -> f64 {
    println!("{name:<44} {:>8.2} µs each, of {count}", seconds / count as f64 * 1e6);
    seconds / count as f64
}

fn random() -> Vec<u8> {
    let mut data = vec![0; DATA_BYTES];
    blake3::Hasher::new().update(b"stages").finalize_xof().fill(&mut data);
    data
}

/// Gaussian weights, deviation 0.02, as bfloat16.
fn weights(random: &[u8]) -> Vec<u8> {
    let mut data = Vec::with_capacity(random.len() / 2);
    for eight in random.chunks_exact(8) {
        let unit = |b: &[u8]| f64::from(u32::from_le_bytes([b[0], b[1], b[2], b[3]])) / 4294967296.0;
        let radius = (-2.0 * (1.0 - unit(&eight[..4])).ln()).sqrt() * 0.02;
        let angle = std::f64::consts::TAU * unit(&eight[4..]);
        for value in [radius * angle.cos(), radius * angle.sin()] {
            data.extend((((value as f32).to_bits() >> 16) as u16).to_le_bytes());
        }
    }
    data
}

fn text(dir: &Path) -> Done<Vec<u8>> {
    let (mut data, mut stack) = (Vec::with_capacity(DATA_BYTES), vec![dir.to_path_buf()]);
    while let Some(next) = stack.pop().filter(|_| data.len() < DATA_BYTES) {
        for entry in std::fs::read_dir(next)?.flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => stack.push(entry.path()),
                Ok(kind) if kind.is_file() => drop(File::open(entry.path())?.read_to_end(&mut data)?),
                _ => {}
            }
        }
    }
    data.truncate(DATA_BYTES);
    if data.len() < CHUNK_BYTES { Err(format!("{}: too little text", dir.display()).into()) } else { Ok(data) }
}

fn cutting(name: &str, data: &[u8]) -> Done<f64> {
    let cutter = Cutter::files(7);
    let seconds = best(|| {
        let mut rest = data;
        while let Some(len) = cutter.next(rest, true) {
            rest = &rest[black_box(len)..];
        }
        Ok(())
    })?;
    Ok(bytes(&format!("cut, {name}"), data.len(), seconds))
}

fn id_key() -> IdKey {
    IdKey::derive(&Secret::from_bytes([3; 32]), Domain(0))
}

fn hashing(data: &[u8]) -> Done<f64> {
    let key = id_key();
    let run = |name: &str, size: usize| -> Done<f64> {
        let seconds = best(|| {
            for chunk in data.chunks(size) {
                black_box(key.id(chunk));
            }
            Ok(())
        })?;
        Ok(bytes(name, data.len(), seconds))
    };
    run("chunk id, 4 KiB", 4096)?;
    run("chunk id, 1 MiB", CHUNK_BYTES)
}

/// Encoding with its check, and decoding; seconds for a gigabyte of plaintext, and the share that is stored.
fn coding(name: &str, data: &[u8]) -> Done<(f64, f64, f64)> {
    let mut coder = Coder::new(Compression::Default);
    let mut bodies: Vec<(Codec, Vec<u8>, usize)> = Vec::new();
    let mut out = Vec::with_capacity(2 * CHUNK_BYTES);
    let encode = best(|| {
        for chunk in data.chunks(CHUNK_BYTES) {
            out.clear();
            black_box(coder.encode(chunk, &mut out));
        }
        Ok(())
    })?;
    for chunk in data.chunks(CHUNK_BYTES) {
        let mut body = Vec::new();
        let codec = coder.encode(chunk, &mut body);
        bodies.push((codec, body, chunk.len()));
    }
    let stored: usize = bodies.iter().map(|(_, body, _)| body.len()).sum();
    let decode = best(|| {
        for (codec, body, len) in &bodies {
            out.clear();
            coder.decode(*codec, body, *len, &mut out).map_err(|_| "a body does not decode")?;
            black_box(&out);
        }
        Ok(())
    })?;
    let ratio = stored as f64 / data.len() as f64;
    let encode = bytes(&format!("encode and check, {name} (stored: {ratio:.3})"), data.len(), encode);
    Ok((encode, bytes(&format!("decode, {name}"), data.len(), decode), ratio))
}

fn sealing(data: &[u8]) -> Done<(f64, f64)> {
    let cipher = BulkCipher::new(&Secret::from_bytes([5; 32]));
    let mut buffer = data[..CHUNK_BYTES].to_vec();
    let rounds = data.len() / CHUNK_BYTES;
    let seal = best(|| {
        for _ in 0..rounds {
            black_box(cipher.seal_in_place(&[0; 12], b"", &mut buffer));
        }
        Ok(())
    })?;
    let seal = bytes("seal, 1 MiB", data.len(), seal);
    let mut sealed = data[..CHUNK_BYTES].to_vec();
    let tag = cipher.seal_in_place(&[0; 12], b"", &mut sealed);
    let open = best(|| {
        for _ in 0..rounds {
            buffer.copy_from_slice(&sealed);
            cipher.open_in_place(&[0; 12], b"", &mut buffer, &tag).map_err(|_| "a record does not open")?;
        }
        Ok(())
    })?;
    Ok((seal, bytes("open, 1 MiB, with a copy", data.len(), open)))
}

/// A pack filled with raw chunks: sealing and the pack's hash, in a buffer that is used again.
fn packing(data: &[u8]) -> Done<f64> {
    let header =
        Header { kind: Kind::Data, domain: Domain(0), key_epoch: KeyEpoch(0), repo: RepoId([1; 16]), salt: [2; 32] };
    let secret = Secret::from_bytes([9; 32]);
    let mut buffer = Vec::with_capacity(64 << 20);
    let seconds = best(|| {
        for part in data.chunks(PACK_BYTES) {
            buffer.clear();
            let mut pack = PackWriter::new(std::mem::take(&mut buffer), &header, &secret);
            for (n, chunk) in part.chunks(CHUNK_BYTES).enumerate() {
                pack.chunk(ChunkId([n as u8; 32]), chunk.len(), |out| {
                    out.extend_from_slice(chunk);
                    Codec::Raw.id()
                });
            }
            buffer = black_box(pack.finish()).bytes;
        }
        Ok(())
    })?;
    Ok(bytes("pack: copy, seal, hash", data.len(), seconds))
}

/// The hash of a pack that is read back, by the program's own check of its name.
fn pack_hash(data: &[u8]) -> Done<f64> {
    let name = |part: &[u8]| PackName(*blake3::hash(part).as_bytes());
    let names: Vec<PackName> = data.chunks(PACK_BYTES).map(name).collect();
    let seconds = best(|| {
        for (part, name) in data.chunks(PACK_BYTES).zip(&names) {
            check_name(name, part).map_err(|_| "a pack's name")?;
        }
        Ok(())
    })?;
    Ok(bytes("hash of a pack", data.len(), seconds))
}

/// Entries of the index that is asked.
const ENTRIES: u64 = 1 << 20;

/// One segment, made up.
struct Made;

impl Source for Made {
    fn read(&self, _: SegmentName, _: RegionSet) -> Option<Content> {
        let packs: Vec<PackLine> = (0..ENTRIES / 32)
            .map(|n| PackLine { name: PackName(*entry_id(!n).bytes()), size: 1, tree: false })
            .collect();
        let place = |n: u64| Place {
            id: entry_id(n),
            pack: (n / 32) as u32,
            offset: ((n % 32) << 20) as u32,
            record_len: 1 << 20,
            number: (n % 32) as u32,
            inside: None,
            len: 1 << 20,
        };
        let mut places: Vec<Place> = (0..ENTRIES).map(place).collect();
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

fn entry_id(n: u64) -> ChunkId {
    ChunkId(*blake3::hash(&n.to_le_bytes()).as_bytes())
}

/// Look-ups in a local index of a million chunks; seconds for one that is there.
fn looking_up(scratch: &Path) -> Done<f64> {
    let cache = Cache::new(scratch, &RepoId([7; 16]), &Secret::from_bytes([7; 32]), &Env::system());
    let mut listing = Listing::new();
    listing.entry(SegmentName([1; 32])).or_default().add(1, 0);
    let index = Index::assemble(&listing, Arc::new(Made), Some(Arc::new(cache)));
    let ask = |first: u64, found: usize| -> Done<f64> {
        let ids: Vec<ChunkId> = (0..ENTRIES / 4).map(|n| entry_id(first + n * 3)).collect();
        let seconds = best(|| match ids.iter().filter(|id| index.locate(id).next().is_some()).count() {
            count if count == found => Ok(()),
            count => Err(format!("{count} of {found} chunks found").into()),
        })?;
        Ok(seconds)
    };
    let count = (ENTRIES / 4) as usize;
    items("index look-up of 1,048,576 chunks, not there", count, ask(1 << 40, 0)?);
    Ok(items("index look-up of 1,048,576 chunks, there", count, ask(0, count)?))
}

/// Keeps nothing.
struct Nowhere(IdKey);

impl PageSink for Nowhere {
    fn put(&mut self, page: &[u8]) -> Held<ChunkId> {
        Ok(self.0.id(page))
    }
}

type Found = Vec<(Entry, Arc<DirHandle>)>;

fn walk(dir: &Path) -> Done<(Found, usize)> {
    let options = WalkOptions { ignore_file: Some(b".holdfastignore".to_vec()), ..WalkOptions::default() };
    let mut walker = Walker::new(&[dir.to_path_buf()], options)?;
    let (mut files, mut count) = (Vec::new(), 0);
    while let Some(event) = walker.next() {
        count += 1;
        if let Event::File { found, dir } = event {
            files.push((found.entry(), dir));
        }
    }
    Ok((files, count))
}

/// Seconds a file, and bytes of a file.
struct Small {
    walk: f64,
    read: f64,
    tree: f64,
    restore: f64,
    bytes: f64,
}

fn small_files(dir: &Path, scratch: &Path) -> Done<Small> {
    let (files, count) = walk(dir)?;
    let seconds = best(|| {
        black_box(walk(dir)?);
        Ok(())
    })?;
    let walk = items("walk with metadata, sorted: an entry", count, seconds);
    let files = &files[..files.len().min(FILES_MAX)];
    let mut buffer = vec![0; 4 << 20];
    let mut total = 0;
    let seconds = best(|| {
        total = 0;
        for (entry, dir) in files {
            total += open(dir, entry)?.read_at(0, &mut buffer)?;
        }
        Ok(())
    })?;
    let read = items(&format!("read a small file, {} KB on average", total / files.len() / 1000), files.len(), seconds);
    let seconds = best(|| {
        let mut sink = Nowhere(id_key());
        let mut writer = DirWriter::default();
        for (n, (entry, _)) in files.iter().enumerate() {
            writer.push(Entry { name: format!("{n:08}").into_bytes().into(), ..entry.clone() }, &mut sink)?;
        }
        black_box(writer.finish(&mut sink)?);
        Ok(())
    })?;
    let tree = items("encode a tree entry, with the page's id", files.len(), seconds);
    let mut round = 0;
    let seconds = best(|| {
        round += 1;
        let target = Target::create(&scratch.join(round.to_string()), RestoreOptions::default())?.root();
        for (number, some) in files.chunks(FILES_A_DIR).enumerate() {
            let dir = target.enter(number.to_string().as_bytes())?;
            some.iter().enumerate().try_for_each(|(n, (entry, _))| restore(&dir, n, entry, &buffer))?;
        }
        Ok(())
    })?;
    let restore = items("restore a small file with its metadata", files.len(), seconds);
    Ok(Small { walk, read, tree, restore, bytes: total as f64 / files.len() as f64 })
}

fn restore(target: &TargetDir, number: usize, entry: &Entry, content: &[u8]) -> Done<()> {
    let entry = Entry { name: format!("{number:08}").into_bytes().into(), ..entry.clone() };
    let size = usize::try_from(entry.size())?.min(content.len());
    let file = TargetFile::create(target, &entry)?;
    file.write_at(0, &content[..size])?;
    file.finish(&entry).map_err(|all| all.into_iter().next().map_or("no reason".into(), |e| e.to_string()).into())
}

/// Reading a large file, and writing one in fresh pages.
fn large_files(scratch: &Path, data: &[u8]) -> Done<(f64, f64)> {
    let path = scratch.join("large");
    File::create(&path)?.write_all(data)?;
    let mut buffer = vec![0; CHUNK_BYTES];
    let read = best(|| {
        let mut file = File::open(&path)?;
        while file.read(&mut buffer)? > 0 {}
        Ok(())
    })?;
    let write = best(|| {
        let copy = scratch.join("copy");
        let _ = std::fs::remove_file(&copy);
        let mut file = File::create(&copy)?;
        data.chunks(CHUNK_BYTES).try_for_each(|chunk| Ok(file.write_all(chunk)?))
    })?;
    Ok((bytes("read a large file", data.len(), read), bytes("write a large file, fresh pages", data.len(), write)))
}

/// Coding of one kind of data: seconds for a gigabyte of plaintext, and the share of it that is stored.
#[derive(Clone, Copy)]
struct Coded {
    cut: f64,
    encode: f64,
    decode: f64,
    share: f64,
}

/// What every kind has in common, in seconds for a gigabyte; of a chunk, seconds.
struct Common {
    read: f64,
    write: f64,
    id: f64,
    open: f64,
    pack: f64,
    hash: f64,
    look_up: f64,
}

impl Common {
    fn backup(&self, kind: &Coded) -> f64 {
        self.read + kind.cut + self.id + kind.encode + kind.share * (self.pack + self.write)
    }

    fn restore(&self, kind: &Coded) -> f64 {
        kind.share * (self.read + self.open) + kind.decode + self.id + self.write
    }

    fn verify(&self, kind: &Coded) -> f64 {
        kind.share * (self.read + self.hash + self.open) + kind.decode + self.id
    }
}

fn row(name: &str, works: [Option<f64>; 3]) {
    let cell = |seconds: &Option<f64>| {
        seconds.map_or(" – |".to_owned(), |s| format!(" {s:.2}; {:.2}; {:.2} |", s / 2.0, 2.0 / s))
    };
    println!("| {name} |{}", works.iter().map(cell).collect::<String>());
}

/// Seconds for a gigabyte of source with one core, with two, and gigabytes a second with two.
fn roofline(common: &Common, [random, text, weights]: [Coded; 3], small: &Small) {
    println!("\n| s/GB: 1 core; 2 cores; GB/s with 2 | backup | restore | verify content |");
    println!("| --- | --- | --- | --- |");
    for (name, kind) in [("incompressible", &random), ("large text", &text), ("bf16 weights", &weights)] {
        row(name, [Some(common.backup(kind)), Some(common.restore(kind)), Some(common.verify(kind))]);
    }
    let known = common.read + random.cut + common.id + common.look_up * 1e9 / CHUNK_BYTES as f64;
    row("everything stored already, all read again", [Some(known), None, None]);
    // Small files are one chunk each: nothing is cut, and reading and writing are a matter of their number.
    let each = 1e9 / small.bytes;
    let stored = text.share * (common.pack + common.write);
    let backup = each * (small.walk + small.read + small.tree + common.look_up) + common.id + text.encode + stored;
    let restore = each * small.restore + text.share * (common.read + common.open) + text.decode + common.id;
    row("small text files", [Some(backup), Some(restore), Some(common.verify(&text))]);
    let known = each * (small.walk + small.read + small.tree + common.look_up) + common.id;
    row("small text files, stored already, all read again", [Some(known), None, None]);
}

/// Cutting and coding of one kind of data.
fn kind(name: &str, data: &[u8]) -> Done<Coded> {
    let cut = cutting(name, data)?;
    let (encode, decode, share) = coding(name, data)?;
    Ok(Coded { cut, encode, decode, share })
}

fn main() -> Done<()> {
    let given = std::env::args().skip(1).find(|arg| !arg.starts_with("--"));
    let cargo = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo"));
    let sources = cargo.or(home).ok_or("HOME is not set")?.join("registry/src");
    let dir = given.map_or(sources, PathBuf::from);
    let scratch = tempfile::TempDir::new_in("/dev/shm")?;
    let random = random();
    let kinds = {
        let (text, weights) = (text(&dir)?, weights(&random));
        // Tensors are cut where they begin and end, without looking at a byte.
        [kind("random", &random)?, kind("text", &text)?, Coded { cut: 0.0, ..kind("bf16", &weights)? }]
    };
    let id = hashing(&random)?;
    let (_, open) = sealing(&random)?;
    let (pack, hash) = (packing(&random)?, pack_hash(&random)?);
    let look_up = looking_up(scratch.path())?;
    let (read, write) = large_files(scratch.path(), &random)?;
    let small = small_files(&dir, scratch.path())?;
    roofline(&Common { read, write, id, open, pack, hash, look_up }, kinds, &small);
    Ok(())
}
