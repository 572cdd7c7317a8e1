//! Storing chunks: each worker fills packs of its own; full packs go to all regions; what every region
//! acknowledged is named by index segments.
//!
//! Order: pack acknowledged → segment → manifest. A checkpoint publishes segments while the run goes on,
//! so that a run that dies leaves its work to the next. Memory: one open pack a worker, packs in flight
//! (bounded by the uploader), 56 bytes for every chunk not yet in a segment, 32 for every chunk claimed.

use super::Repo;
use super::index::Reusable;
use super::session::Session;
use super::tree::PageSink;
use super::tree_packs;
use crate::base::{ChunkId, Generation, PackName, Progress, SegmentName, SessionId};
use crate::chunk::{Coder, Compression};
use crate::error::{Error, Kind, Result};
use crate::format::CHUNK_BYTES_MAX;
use crate::format::envelope::{Class, Kind as ObjectKind};
use crate::format::index::{PackLine, Place, SEGMENT_ENTRIES_MAX, Segment, divide, encode_packs, encode_places};
use crate::format::pack::PackWriter;
use crate::format::signed::Fresh;
use crate::region::{RegionSet, Uploaded, Uploader, lock};
use crate::store::Key;
use bytes::Bytes;

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;

/// A data pack has about this many bytes: where it ends is [`PackWriter::is_full`]'s to say.
const DATA_PACK_BYTES: usize = 32 << 20;
/// A tree pack.
const TREE_PACK_BYTES: usize = 8 << 20;
/// Chunks below this share bundles.
const BUNDLED_BYTES_MAX: usize = 64 << 10;
/// A bundle is closed once it has this many bytes.
const BUNDLE_BYTES: usize = 256 << 10;
/// Segments are published after this many acknowledged bytes: what a crash may cost.
const CHECKPOINT_BYTES: u64 = 256 << 20;
/// Claimed ids are spread over this many locks.
const SHARDS: usize = 64;

struct Outstanding {
    places: Vec<Place>,
    tree: bool,
}

#[derive(Default)]
struct Ledger {
    /// Packs sent and not yet answered for.
    sent: HashMap<PackName, Outstanding>,
    lines: Vec<PackLine>,
    places: Vec<Place>,
    confirmed_bytes: u64,
    stored: Vec<PackName>,
}

/// Where workers store chunks.
pub struct Writer<'r> {
    repo: &'r Repo,
    known: Reusable,
    sid: SessionId,
    fresh: Fresh,
    generation: Generation,
    used: RegionSet,
    complete: Mutex<RegionSet>,
    claimed: Vec<Mutex<HashSet<ChunkId>>>,
    ledger: Mutex<Ledger>,
    uploader: Uploader,
    compression: Compression,
    buffers: Mutex<Vec<Vec<u8>>>,
    progress: &'r Progress,
}

impl<'r> Writer<'r> {
    /// A writer of a session, into the regions that the session uses. Without workers it sends each pack where it was
    /// filled.
    pub fn new(
        repo: &'r Repo,
        session: &Session,
        known: Reusable,
        (compression, workers): (Compression, usize),
        progress: &'r Progress,
    ) -> Writer<'r> {
        let used = session.regions.and(repo.writable());
        Writer {
            repo,
            sid: session.sid,
            fresh: session.fresh(repo),
            generation: session.errand.generation,
            used,
            complete: Mutex::new(used),
            known,
            claimed: (0..SHARDS).map(|_| Mutex::default()).collect(),
            ledger: Mutex::default(),
            uploader: Uploader::new(std::sync::Arc::clone(&repo.regions), workers == 0),
            compression,
            buffers: Mutex::default(),
            progress,
        }
    }

    /// Packs that were re-used or stored so far.
    pub fn packs(&self) -> HashSet<PackName> {
        let mut packs = self.known.used();
        packs.extend(lock(&self.ledger).stored.iter().copied());
        packs
    }

    /// Packs that were stored so far.
    pub fn stored(&self) -> Vec<PackName> {
        lock(&self.ledger).stored.to_vec()
    }

    /// A worker's own pack for data or trees. Trees are small, and always compressed as usual.
    pub fn packer(&self, class: Class) -> Packer<'_, 'r> {
        let compression = if class == Class::Tree { Compression::Default } else { self.compression };
        Packer {
            writer: self,
            class,
            coder: Coder::new(compression).with_planes(self.repo.knows_planes()),
            pack: None,
            places: Vec::new(),
            bundle: Vec::new(),
            bundled: Vec::new(),
        }
    }

    /// Whether a chunk need not be stored: the repository has it, and no copy of its pack was found damaged.
    pub fn has(&self, id: &ChunkId) -> bool {
        self.known.has(id, |pack| self.repo.regions.is_damaged(pack))
    }

    /// Whether the caller is the first to ask for this chunk in this run, and must store it.
    fn claim(&self, id: ChunkId) -> bool {
        if self.has(&id) {
            return false;
        }
        lock(&self.claimed[usize::from(id.bytes()[31]) % SHARDS]).insert(id)
    }

    fn buffer(&self) -> Vec<u8> {
        lock(&self.buffers).pop().unwrap_or_default()
    }

    fn submit(&self, name: PackName, bytes: Vec<u8>, work: Outstanding) -> Result<()> {
        self.progress.bytes_stored.add(bytes.len() as u64);
        if work.tree {
            // The next run asks for its pages.
            tree_packs::keep(self.repo, &name, &bytes);
        }
        lock(&self.ledger).sent.insert(name, work);
        self.uploader.submit(self.used, name, bytes);
        self.settle()
    }

    /// Takes note of finished uploads and publishes a checkpoint when one is due.
    fn settle(&self) -> Result<()> {
        while let Ok(done) = self.uploader.done.try_recv() {
            self.confirm(done)?;
        }
        let due = {
            let ledger = lock(&self.ledger);
            ledger.confirmed_bytes >= CHECKPOINT_BYTES || ledger.places.len() >= SEGMENT_ENTRIES_MAX / 2
        };
        if due { self.checkpoint() } else { Ok(()) }
    }

    /// Takes note of one pack that every region answered for. It is off the list in any case: `finish` waits
    /// for what is on it.
    fn confirm(&self, done: Uploaded) -> Result<()> {
        lock(&self.buffers).push(done.buffer);
        let work = lock(&self.ledger).sent.remove(&done.name);
        let left = {
            let mut complete = lock(&self.complete);
            *complete = complete.and(done.acks);
            *complete
        };
        if left.is_empty() {
            return Err(self.lost());
        }
        let Some(work) = work else { return Ok(()) };
        let mut ledger = lock(&self.ledger);
        let pack = ledger.lines.len() as u32;
        ledger.lines.push(PackLine { name: done.name, size: done.size, tree: work.tree });
        ledger.places.extend(work.places.into_iter().map(|place| Place { pack, ..place }));
        ledger.confirmed_bytes += done.size;
        ledger.stored.push(done.name);
        Ok(())
    }

    fn lost(&self) -> Error {
        let why = self.repo.regions.failures().pop().map(|(_, e)| e);
        why.unwrap_or_else(|| Error::new(Kind::Retry, "no region takes packs any more"))
    }

    /// Publishes segments for everything acknowledged so far.
    fn checkpoint(&self) -> Result<()> {
        let (lines, places) = {
            let mut ledger = lock(&self.ledger);
            ledger.confirmed_bytes = 0;
            (std::mem::take(&mut ledger.lines), std::mem::take(&mut ledger.places))
        };
        for (lines, mut places) in divide(&lines, &places) {
            let segment = Segment {
                fresh: self.fresh,
                sid: self.sid,
                generation: self.generation,
                domain: self.repo.domain(),
                packs: encode_packs(&lines).into(),
                entries: encode_places(&mut places).into(),
            };
            let bytes: Bytes = self.repo.seal(ObjectKind::Index, "", &segment)?;
            self.progress.bytes_stored.add(bytes.len() as u64);
            let key = Key::Index(SegmentName(*blake3::hash(&bytes).as_bytes()));
            let among = lock(&self.complete).and(self.repo.writable());
            let stored = self.repo.regions.put_all(among, &key, &bytes);
            let left = {
                let mut complete = lock(&self.complete);
                *complete = complete.and(stored);
                *complete
            };
            if left.is_empty() {
                return Err(self.lost());
            }
        }
        Ok(())
    }

    /// Waits for everything in flight and names it; returns the regions that are complete.
    /// Every packer must have been flushed before.
    ///
    /// # Errors
    /// No region has everything.
    pub fn finish(&self) -> Result<RegionSet> {
        // To the last one even when all regions have failed: a put that is cut off leaves its staged file, and
        // the disk may be full.
        let mut confirmed = Ok(());
        while !lock(&self.ledger).sent.is_empty() {
            match self.uploader.wait() {
                Some(done) => confirmed = confirmed.and(self.confirm(done)),
                None => return Err(Error::new(Kind::Bug, "uploads ended early")),
            }
        }
        confirmed?;
        self.checkpoint()?;
        Ok(lock(&self.complete).and(self.repo.writable()))
    }
}

/// One worker's open pack, bundle and coder: no lock in the hot path but the claim.
pub struct Packer<'w, 'r> {
    writer: &'w Writer<'r>,
    class: Class,
    coder: Coder,
    pack: Option<PackWriter>,
    places: Vec<Place>,
    bundle: Vec<u8>,
    bundled: Vec<(ChunkId, u32)>,
}

impl Packer<'_, '_> {
    /// The id of a chunk with this content.
    pub fn id(&self, plain: &[u8]) -> ChunkId {
        self.writer.repo.id_key().id(plain)
    }

    /// Stores a chunk unless it is stored already; returns its id.
    ///
    /// # Errors
    /// No region takes packs any more.
    pub fn chunk(&mut self, plain: &[u8]) -> Result<ChunkId> {
        // No reader would take it, nor the index that names it.
        if plain.len() > CHUNK_BYTES_MAX {
            return Err(Error::new(Kind::Bug, format!("a chunk of {} bytes is longer than one may be", plain.len())));
        }
        let id = self.id(plain);
        self.writer.progress.chunks_used.add(1);
        if !self.writer.claim(id) {
            return Ok(id);
        }
        self.writer.progress.chunks_new.add(1);
        self.writer.progress.bytes_new.add(plain.len() as u64);
        if plain.len() < BUNDLED_BYTES_MAX {
            self.bundle.extend_from_slice(plain);
            self.bundled.push((id, plain.len() as u32));
            if self.bundle.len() >= BUNDLE_BYTES {
                self.close_bundle()?;
            }
        } else {
            self.store(id, plain)?;
        }
        Ok(id)
    }

    fn store(&mut self, id: ChunkId, plain: &[u8]) -> Result<()> {
        self.open_pack(plain.len())?;
        let Some(pack) = &mut self.pack else { return Err(no_pack()) };
        let coder = &mut self.coder;
        let at = pack.chunk(id, plain.len(), |out| coder.encode(plain, out).id());
        let (offset, record_len, number, len) = (at.offset, at.len, at.number, plain.len() as u32);
        self.places.push(Place { id, pack: 0, offset, record_len, number, inside: None, len });
        self.close_if_full()
    }

    fn close_bundle(&mut self) -> Result<()> {
        if self.bundled.is_empty() {
            return Ok(());
        }
        self.open_pack(self.bundle.len() + self.bundled.len() * crate::format::pack::BUNDLE_ITEM_BYTES + 4)?;
        let Some(pack) = &mut self.pack else { return Err(no_pack()) };
        let (coder, plain) = (&mut self.coder, &self.bundle);
        let at = pack.bundle(&self.bundled, |out| coder.encode_plain(plain, out).id());
        let mut inside = 0;
        for (id, len) in self.bundled.drain(..) {
            let (offset, record_len, number) = (at.offset, at.len, at.number);
            self.places.push(Place { id, pack: 0, offset, record_len, number, inside: Some(inside), len });
            inside += len;
        }
        self.bundle.clear();
        self.close_if_full()
    }

    /// Makes sure that a pack is open with room for `body_len` more bytes.
    fn open_pack(&mut self, body_len: usize) -> Result<()> {
        if self.pack.as_ref().is_some_and(|pack| !pack.has_room(body_len)) {
            self.close_pack()?;
        }
        if self.pack.is_none() {
            let kind = if self.class == Class::Tree { ObjectKind::Tree } else { ObjectKind::Data };
            let header = self.writer.repo.header(kind)?;
            let secret = self.writer.repo.secret(self.class)?;
            self.pack = Some(PackWriter::new(self.writer.buffer(), &header, &secret));
        }
        Ok(())
    }

    fn close_if_full(&mut self) -> Result<()> {
        let full = if self.class == Class::Tree { TREE_PACK_BYTES } else { DATA_PACK_BYTES };
        if self.pack.as_ref().is_some_and(|pack| pack.is_full(full)) { self.close_pack() } else { Ok(()) }
    }

    fn close_pack(&mut self) -> Result<()> {
        let Some(pack) = self.pack.take() else { return Ok(()) };
        let pack = pack.finish();
        let places = std::mem::take(&mut self.places);
        self.writer.submit(pack.name, pack.bytes, Outstanding { places, tree: self.class == Class::Tree })
    }

    /// Sends what is open on its way.
    ///
    /// # Errors
    /// No region takes packs any more.
    pub fn flush(&mut self) -> Result<()> {
        self.close_bundle()?;
        self.writer.progress.encoder_errors.add(self.coder.take_rejected());
        self.close_pack()
    }
}

impl PageSink for Packer<'_, '_> {
    fn put(&mut self, page: &[u8]) -> Result<ChunkId> {
        self.chunk(page)
    }

    fn put_known(&mut self, id: ChunkId, page: &[u8]) -> Result<ChunkId> {
        if !self.writer.has(&id) {
            // Lost, or damaged somewhere: it is stored again.
            return self.chunk(page);
        }
        self.writer.progress.chunks_used.add(1);
        Ok(id)
    }
}

fn no_pack() -> Error {
    Error::new(Kind::Bug, "no open pack")
}
