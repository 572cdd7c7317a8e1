//! Reading chunks: whichever region has a good copy, verified before a byte is used.
//!
//! Every record's tags are checked by opening it, and every chunk's id is computed again. A copy that
//! fails is recorded (region, object) and the next region, then the next known place, is tried. A pack that no region has
//! whole is put together from what is good of it.

use super::Repo;
use super::gather::{self, keys_of};
use super::index::{Index, Located};
use super::tree_packs::TreePacks;
use crate::base::{ChunkId, PackName};
use crate::chunk::{Codec, Coder, IdKey};
use crate::error::{Error, Kind, Result};
use crate::format::FormatError;
use crate::format::envelope::{HEADER_BYTES, ObjectKeys, RecordKind};
use crate::format::pack;
use crate::region::{self, RegionSet, lock};
use crate::store::Key;
use bytes::{Bytes, BytesMut};
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

/// Decoded bundles that are kept, of at most 1 MiB each, mostly 256 KiB.
const BUNDLES_KEPT: usize = 96;
/// Pack keys that are kept, about 1 KiB each.
const PACK_KEYS_KEPT: usize = 4096;
/// So often the index is read anew for one chunk.
const RENEWALS_MAX: usize = 3;
/// Stands for this machine in the place of a region.
const KEPT: usize = usize::MAX;

/// A small cache that throws the oldest half away when it is full.
struct Cache<K, V> {
    map: HashMap<K, (u64, V)>,
    clock: u64,
    kept: usize,
}

impl<K: Eq + std::hash::Hash + Copy, V: Clone> Cache<K, V> {
    fn new(kept: usize) -> Self {
        Cache { map: HashMap::new(), clock: 0, kept }
    }

    fn get(&mut self, key: &K) -> Option<V> {
        self.clock += 1;
        let hit = self.map.get_mut(key)?;
        hit.0 = self.clock;
        Some(hit.1.clone())
    }

    fn put(&mut self, key: K, value: V) {
        if self.map.len() >= self.kept {
            let mut ages: Vec<u64> = self.map.values().map(|v| v.0).collect();
            ages.sort_unstable();
            let median = ages[ages.len() / 2];
            self.map.retain(|_, v| v.0 > median);
        }
        self.clock += 1;
        self.map.insert(key, (self.clock, value));
    }
}

/// A bundle, decoded, with the chunks whose ids were computed from it.
struct Opened {
    plain: Vec<u8>,
    content: Content,
}

type Bundle = Arc<Opened>;

/// Reads chunks of one repository through one index.
pub struct Reader {
    /// The repository.
    pub repo: Arc<Repo>,
    /// Where chunks lie.
    pub index: Arc<Index>,
    keys: Mutex<Cache<(PackName, usize), Arc<ObjectKeys>>>,
    bundles: Mutex<Cache<(PackName, u32), Bundle>>,
    /// Packs of trees that this machine keeps, if they may be used.
    trees: Option<TreePacks>,
    gathered: Mutex<Gathered>,
    renewed: Mutex<Renewed>,
}

/// The index as it was read again, since a prune removed what the first one named.
#[derive(Default)]
struct Renewed {
    index: Option<Arc<Index>>,
    /// Packs that failed, and that no prune had removed when it was asked.
    failed: HashSet<PackName>,
    /// How often it was read again for a chunk that had no place at all.
    placeless: usize,
}

/// Packs that were put together: the last one, and those of which that cannot be done.
#[derive(Default)]
struct Gathered {
    last: Option<(PackName, Arc<Vec<u8>>)>,
    lost: HashSet<PackName>,
}

impl Reader {
    /// A reader with empty caches.
    pub fn new(repo: Arc<Repo>, index: Arc<Index>) -> Reader {
        Reader {
            repo,
            index,
            keys: Mutex::new(Cache::new(PACK_KEYS_KEPT)),
            bundles: Mutex::new(Cache::new(BUNDLES_KEPT)),
            trees: None,
            gathered: Mutex::default(),
            renewed: Mutex::default(),
        }
    }

    /// One that takes pages of trees from what this machine keeps of them, where every region is far. Not for who asks what
    /// the regions can do.
    pub fn near(repo: Arc<Repo>, index: Arc<Index>) -> Reader {
        Reader { trees: Some(TreePacks::default()), ..Reader::new(repo, index) }
    }

    /// Reads one chunk. A pack that a prune has removed since the index was read is no damage: what of it is needed lies in
    /// another one, of which the index of now knows.
    ///
    /// # Errors
    /// No region has it intact.
    pub fn chunk(&self, id: &ChunkId, coder: &mut Coder) -> Result<Vec<u8>> {
        let (mut last, mut nowhere) = (None, false);
        let mut index = lock(&self.renewed).index.clone().unwrap_or_else(|| Arc::clone(&self.index));
        for _ in 0..RENEWALS_MAX {
            let places: Vec<Located> = index.locate(id).collect();
            for at in &places {
                match self.chunk_at(at, coder) {
                    Ok(bytes) => return Ok(bytes),
                    Err(e) => last = Some(e),
                }
            }
            // In the index of now it is nowhere either.
            if std::mem::replace(&mut nowhere, places.is_empty()) && places.is_empty() {
                break;
            }
            match self.renew(&index, &places)? {
                Some(newer) => index = newer,
                None => break,
            }
        }
        Err(last.unwrap_or_else(|| {
            Error::new(Kind::Damage, format!("chunk {} is in no index segment", id.short()))
                .advise("a region that was away may have it; run verify")
        }))
    }

    /// The index of now, if a prune has removed one of these packs since `used` was read; once also where there is no place.
    fn renew(&self, used: &Arc<Index>, places: &[Located]) -> Result<Option<Arc<Index>>> {
        let mut renewed = lock(&self.renewed);
        if let Some(newer) = renewed.index.as_ref().filter(|newer| !Arc::ptr_eq(newer, used)) {
            return Ok(Some(Arc::clone(newer)));
        }
        // A listing in several requests may have missed the segment that went and the one that took its place.
        if places.is_empty() {
            if renewed.placeless >= RENEWALS_MAX {
                return Ok(None);
            }
            renewed.placeless += 1;
            renewed.index = Some(Arc::new(Index::load(&self.repo)?));
            return Ok(renewed.index.clone());
        }
        if places.iter().all(|at| renewed.failed.contains(&at.pack.name)) {
            return Ok(None);
        }
        let doomed = self.repo.epochs_since(&self.repo.epochs_seen()).doomed();
        if !places.iter().any(|at| doomed.contains(&at.pack.name)) {
            renewed.failed.extend(places.iter().map(|at| at.pack.name));
            return Ok(None);
        }
        renewed.index = Some(Arc::new(Index::load(&self.repo)?));
        Ok(renewed.index.clone())
    }

    fn chunk_at(&self, at: &Located, coder: &mut Coder) -> Result<Vec<u8>> {
        if at.place.inside.is_some() {
            let bundle = self.bundle(at, coder)?;
            return bundle.content.part(at, &bundle.plain).map(<[u8]>::to_vec).ok_or(MISPLACED).map_err(region::lift);
        }
        let mut scratch = Vec::new();
        self.record(at, |keys, bytes| self.open_at(keys, at, bytes, coder, &mut scratch).map(|(_, b)| b.to_vec()))
    }

    /// Opens the record at a place and returns what it holds and the plaintext of all of it, every chunk's id checked.
    ///
    /// # Errors
    /// Written wrong, or not what the index says.
    pub fn open_at<'r>(
        &self,
        keys: &ObjectKeys,
        at: &Located,
        record: &'r mut [u8],
        coder: &mut Coder,
        scratch: &'r mut Vec<u8>,
    ) -> std::result::Result<(Content, &'r [u8]), FormatError> {
        let (content, plain) = open_record(self.repo.id_key(), keys, at.place.number, record, coder, scratch)?;
        let fits = match &content {
            Content::Chunk(id, len) => at.place.inside.is_none() && *id == at.place.id && *len == at.place.len,
            Content::Bundle(_) => at.place.inside.is_some(),
        };
        if fits { Ok((content, plain)) } else { Err(FormatError::WrittenWrong("record is not what the index names")) }
    }

    fn bundle(&self, at: &Located, coder: &mut Coder) -> Result<Bundle> {
        let cached = (at.pack.name, at.place.number);
        if let Some(hit) = lock(&self.bundles).get(&cached) {
            return Ok(hit);
        }
        let mut scratch = Vec::new();
        let bundle = self.record(at, |keys, bytes| {
            let (content, plain) = self.open_at(keys, at, bytes, coder, &mut scratch)?;
            // A whole bundle of another pack opens as well: only the chunk's id tells them apart.
            content.part(at, plain).ok_or(MISPLACED)?;
            Ok(Opened { plain: plain.to_vec(), content })
        })?;
        let bundle = Arc::new(bundle);
        lock(&self.bundles).put(cached, Arc::clone(&bundle));
        Ok(bundle)
    }

    /// Fetches a record from each region in turn until `open` accepts it.
    fn record<T>(
        &self,
        at: &Located,
        mut open: impl FnMut(&ObjectKeys, &mut [u8]) -> std::result::Result<T, FormatError>,
    ) -> Result<T> {
        if let Some(done) = self.kept(at, &mut open) {
            return Ok(done);
        }
        let key = Key::Pack(at.pack.name);
        let regions = &self.repo.regions;
        let (mut order, mut first) = (self.order(at.regions), None);
        if let Some((ix, read)) = self.first_of(&order, at) {
            match self.opened(at, ix, read, &mut open) {
                Err(e) if order.len() == 1 => return Err(e),
                Err(e) => first = Some(e),
                done => return done,
            }
            order.retain(|other| *other != ix);
        }
        let keys = RefCell::new(None);
        let fetch = |ix| {
            *keys.borrow_mut() = Some(self.pack_keys(&at.pack.name, ix)?);
            regions.get_range(ix, &key, u64::from(at.place.offset), u64::from(at.place.record_len))
        };
        let read = regions.read_among(order, &key, fetch, |bytes| match &*keys.borrow() {
            Some(keys) => open(keys, &mut BytesMut::from(bytes)),
            None => Err(FormatError::WrongKey),
        });
        // Who did not answer may have it whole.
        match (read, first.filter(|e| e.kind() == Kind::Retry)) {
            (Err(_), Some(e)) => Err(e),
            (Err(e), None) if e.kind() != Kind::Retry => self.in_pieces(at, &mut open).ok_or(e),
            (read, _) => read,
        }
    }

    /// A record of a pack of which every region that has it has lost something.
    fn in_pieces<T>(
        &self,
        at: &Located,
        open: &mut impl FnMut(&ObjectKeys, &mut [u8]) -> std::result::Result<T, FormatError>,
    ) -> Option<T> {
        let whole = self.whole(&at.pack.name)?;
        let keys = keys_of(&self.repo, &whole).ok()?;
        let begin = at.place.offset as usize;
        let record = whole.get(begin..begin.checked_add(at.place.record_len as usize)?)?;
        open(&keys, &mut BytesMut::from(record)).ok()
    }

    /// The pack, put together; once for all of its records.
    fn whole(&self, name: &PackName) -> Option<Arc<Vec<u8>>> {
        let mut gathered = lock(&self.gathered);
        match &gathered.last {
            Some((last, whole)) if last == name => return Some(Arc::clone(whole)),
            _ if gathered.lost.contains(name) => return None,
            _ => {}
        }
        let Some(whole) = gather::from_regions(&self.repo, name).map(Arc::new) else {
            gathered.lost.insert(*name);
            return None;
        };
        gathered.last = Some((*name, Arc::clone(&whole)));
        Some(whole)
    }

    /// The same from a pack of trees that this machine has, or fetches whole. What does not open is dropped, and asked of
    /// the regions.
    fn kept<T>(
        &self,
        at: &Located,
        open: &mut impl FnMut(&ObjectKeys, &mut [u8]) -> std::result::Result<T, FormatError>,
    ) -> Option<T> {
        let trees = self.trees.as_ref()?;
        let begin = u64::from(at.place.offset);
        let [record, header] = trees.parts(
            &self.repo,
            &at.pack,
            [begin..begin + u64::from(at.place.record_len), 0..HEADER_BYTES as u64],
            || self.fetch_whole(at),
        )?;
        let known = lock(&self.keys).get(&(at.pack.name, KEPT));
        let keys = known.map_or_else(|| self.keep_keys(&at.pack.name, KEPT, &header), Ok);
        let opened = keys.and_then(|keys| open(&keys, &mut BytesMut::from(record)));
        opened.inspect_err(|_| trees.forget(&self.repo, &at.pack.name)).ok()
    }

    /// A whole pack from the first region or a quicker one. A region that has it otherwise is named; who cannot be read is
    /// left to those who then ask for less.
    fn fetch_whole(&self, at: &Located) -> Option<Bytes> {
        let (regions, key) = (&self.repo.regions, Key::Pack(at.pack.name));
        let all = 0..at.pack.size;
        let (ix, read) = regions.get_ranges_from(&self.order(at.regions), &key, std::slice::from_ref(&all))?;
        let bytes = read.ok()?.into_iter().next()?;
        let checked = pack::check_name(&at.pack.name, &bytes);
        checked.inspect_err(|why| regions.record(ix, &key.path(), why)).ok()?;
        Some(bytes)
    }

    /// A record, and the header of its pack where that is not known, from the first region or a quicker one.
    fn first_of(&self, order: &[usize], at: &Located) -> Option<(usize, Result<Vec<Bytes>>)> {
        let begin = u64::from(at.place.offset);
        let ranges = [begin..begin + u64::from(at.place.record_len), 0..HEADER_BYTES as u64];
        let known = lock(&self.keys).get(&(at.pack.name, order.first().copied()?)).is_some();
        let ranges = if known { &ranges[..1] } else { &ranges[..] };
        self.repo.regions.get_ranges_from(order, &Key::Pack(at.pack.name), ranges)
    }

    /// Opens what one region gave; what is wrong with it is recorded.
    fn opened<T>(
        &self,
        at: &Located,
        ix: usize,
        read: Result<Vec<Bytes>>,
        open: &mut impl FnMut(&ObjectKeys, &mut [u8]) -> std::result::Result<T, FormatError>,
    ) -> Result<T> {
        let (key, regions) = (Key::Pack(at.pack.name), &self.repo.regions);
        let parts = read.inspect_err(|e| regions.record_unread(ix, &key, e))?;
        let wrong = |why: FormatError| {
            regions.record(ix, &key.path(), &why);
            region::lift(why).at(key).at(format!("region {}", regions.region(ix).name))
        };
        let keys = match parts.get(1) {
            Some(header) => self.keep_keys(&at.pack.name, ix, header).map_err(wrong)?,
            None => self.pack_keys(&at.pack.name, ix).inspect_err(|e| regions.record_unread(ix, &key, e))?,
        };
        let record = parts.into_iter().next().unwrap_or_default();
        open(&keys, &mut BytesMut::from(record)).map_err(wrong)
    }

    /// Usable regions: those that should have it first, and of these the cheapest.
    pub fn order(&self, listed: RegionSet) -> Vec<usize> {
        let usable = self.repo.usable();
        let mut order: Vec<usize> = usable.iter().collect();
        order.sort_by_cached_key(|ix| (!listed.has(*ix), self.repo.regions.cost(*ix)));
        order
    }

    /// The keys of a region's copy of a pack, from its header. Each copy has its own say: the header of another
    /// pack of this repository, put in this one's place, gives keys that open nothing elsewhere.
    ///
    /// # Errors
    /// This region has no good header.
    pub fn pack_keys(&self, name: &PackName, ix: usize) -> Result<Arc<ObjectKeys>> {
        if let Some(hit) = lock(&self.keys).get(&(*name, ix)) {
            return Ok(hit);
        }
        let bytes = self.repo.regions.get_range(ix, &Key::Pack(*name), 0, HEADER_BYTES as u64)?;
        self.keep_keys(name, ix, &bytes).map_err(region::lift)
    }

    fn keep_keys(
        &self,
        name: &PackName,
        ix: usize,
        header: &[u8],
    ) -> std::result::Result<Arc<ObjectKeys>, FormatError> {
        let keys = Arc::new(keys_of(&self.repo, header)?);
        lock(&self.keys).put((*name, ix), Arc::clone(&keys));
        Ok(keys)
    }
}

/// What a record of a pack holds.
#[derive(Debug)]
pub enum Content {
    /// One chunk: id and length.
    Chunk(ChunkId, u32),
    /// Several: id, offset and length of each.
    Bundle(Vec<(ChunkId, usize, usize)>),
}

const MISPLACED: FormatError = FormatError::WrittenWrong("place of a chunk in its bundle");

impl Content {
    /// The chunk that the index places in this record, whose plaintext is `plain`: its id was computed from these very
    /// bytes when the record was opened. `None` if another chunk, or none, lies there.
    pub fn part<'p>(&self, at: &Located, plain: &'p [u8]) -> Option<&'p [u8]> {
        match (self, at.place.inside) {
            (Content::Chunk(id, len), None) => (*id == at.place.id && *len == at.place.len).then_some(plain),
            (Content::Bundle(chunks), Some(inside)) => {
                let (inside, len) = (inside as usize, at.place.len as usize);
                // In order of their places; of those at one place all but the last are empty.
                let from = chunks.partition_point(|(_, offset, _)| *offset < inside);
                let mut here = chunks[from..].iter().take_while(|(_, offset, _)| *offset == inside);
                let known = here.any(|(id, _, bytes)| *bytes == len && *id == at.place.id);
                known.then(|| plain.get(inside..inside.saturating_add(len))).flatten()
            }
            _ => None,
        }
    }
}

/// Opens a chunk or bundle record and computes the id of every chunk. The plaintext stands in the record itself
/// where it was stored raw, else in `scratch`, which is cleared first: no chunk is copied that need not be.
///
/// # Errors
/// Written wrong, or a codec that is not known.
pub fn open_record<'r>(
    id_key: &IdKey,
    keys: &ObjectKeys,
    number: u32,
    record: &'r mut [u8],
    coder: &mut Coder,
    scratch: &'r mut Vec<u8>,
) -> std::result::Result<(Content, &'r [u8]), FormatError> {
    const NEWER: FormatError = FormatError::Newer("codec");
    let (head, body) = keys.record(number, record)?;
    let plain_len = head.plain_len as usize;
    match head.kind {
        RecordKind::Chunk => {
            let codec = Codec::from_id(head.codec).ok_or(NEWER)?;
            let plain = decoded(codec, body, plain_len, coder, scratch)?;
            if id_key.id(plain) != head.id {
                return Err(FormatError::WrittenWrong("id of a chunk"));
            }
            Ok((Content::Chunk(head.id, head.plain_len), plain))
        }
        RecordKind::Bundle => {
            let bundle = pack::bundle(body, plain_len)?;
            let codec = Codec::of_bundle(head.codec).ok_or(NEWER)?;
            let plain = decoded(codec, bundle.payload, plain_len, coder, scratch)?;
            for (id, offset, len) in &bundle.chunks {
                let chunk = plain.get(*offset..offset.saturating_add(*len));
                if chunk.is_none_or(|chunk| id_key.id(chunk) != *id) {
                    return Err(FormatError::WrittenWrong("id of a chunk in a bundle"));
                }
            }
            Ok((Content::Bundle(bundle.chunks), plain))
        }
        _ => Err(FormatError::WrittenWrong("type of a record")),
    }
}

fn decoded<'r>(
    codec: Codec,
    body: &'r [u8],
    plain_len: usize,
    coder: &mut Coder,
    scratch: &'r mut Vec<u8>,
) -> std::result::Result<&'r [u8], FormatError> {
    const WRONG: FormatError = FormatError::WrittenWrong("encoded body");
    if codec == Codec::Raw {
        return if body.len() == plain_len { Ok(body) } else { Err(WRONG) };
    }
    scratch.clear();
    coder.decode(codec, body, plain_len, scratch).map_err(|_| WRONG)?;
    Ok(scratch)
}
