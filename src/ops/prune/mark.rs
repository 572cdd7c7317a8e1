//! Marking: what the roots need. Every page of a tree is read once; memory is a few bits for each entry of the index.
//!
//! What is known of a chunk is kept by the number of its first place in the index. A chunk that was needed where it must
//! be in some regions is not looked up again for a root that is shown in no others. That a chunk was needed and that a
//! page was walked are different things: a file may have the bytes of a page.

use super::pages::{Asked, Found, Open, Pages};
use super::roots::Root;
use super::table::Table;
use crate::base::{Cancel, ChunkId, Generation};
use crate::error::{Error, Kind};
use crate::region::RegionSet;
use crate::repo::index::Located;
use crate::repo::reader::Reader;
use std::collections::VecDeque;

/// A set of small numbers.
#[derive(Debug, Default)]
pub(super) struct Bits(Vec<u64>);

impl Bits {
    pub(super) fn new(count: u64) -> Bits {
        Bits(vec![0; count.div_ceil(64) as usize])
    }

    pub(super) fn has(&self, n: u64) -> bool {
        self.0.get((n / 64) as usize).is_some_and(|word| word >> (n % 64) & 1 == 1)
    }

    pub(super) fn set(&mut self, n: u64) {
        if let Some(word) = self.0.get_mut((n / 64) as usize) {
            *word |= 1 << (n % 64);
        }
    }
}

/// What roots of one generation need that are shown in the same regions.
#[derive(Debug)]
struct Class {
    generation: Generation,
    regions: RegionSet,
    live: Bits,
    dirs: Bits,
    lists: Bits,
}

/// What is told of every chunk that is needed, once in each generation.
pub(super) trait Judge {
    /// Of a chunk, the packs in which it lies, each with the regions whose indexes say so. There is at least one.
    fn needed(&mut self, places: &[Located], copies: &[(u32, RegionSet)]);
}

/// Why a root could not be walked to its end.
#[derive(Debug)]
pub(super) enum Stopped {
    /// A region that lists it does not name a chunk of it.
    Lacks(usize, ChunkId),
    /// Anything else.
    Failed(Error),
}

impl From<Error> for Stopped {
    fn from(e: Error) -> Stopped {
        Stopped::Failed(e)
    }
}

/// Chunks that were needed a short while ago, by their first bytes: pages of one directory, from snapshot to snapshot, name
/// mostly the same ones, and a look into the index costs more than all else. 9 MiB.
#[derive(Debug, Default)]
struct Recent(Vec<[(ChunkId, u32); 2]>);

/// So many slots, of two each, the newer one first.
const RECENT: usize = 1 << 17;
/// No class has this number.
const NO_CLASS: u32 = u32::MAX;

impl Recent {
    fn slot(&mut self, id: &ChunkId) -> Option<&mut [(ChunkId, u32); 2]> {
        if self.0.is_empty() {
            self.0 = vec![[(ChunkId::HOLE, NO_CLASS); 2]; RECENT];
        }
        let first = id.bytes().first_chunk().map_or(0, |first| u32::from_le_bytes(*first));
        self.0.get_mut(first as usize % RECENT)
    }

    fn has(&mut self, id: &ChunkId, class: usize) -> bool {
        let is_it = |(known, of): &(ChunkId, u32)| *of as usize == class && *of != NO_CLASS && known == id;
        self.slot(id).is_some_and(|slot| slot.iter().any(is_it))
    }

    fn keep(&mut self, id: &ChunkId, class: usize) {
        let class = u32::try_from(class).unwrap_or(NO_CLASS);
        if let Some([newer, older]) = self.slot(id) {
            *older = std::mem::replace(newer, (*id, class));
        }
    }
}

/// What was found to be needed so far.
pub(super) struct Marks {
    classes: Vec<Class>,
    entries: u64,
    recent: Recent,
    /// Pages that were read.
    pub(super) pages: u64,
    /// Different chunks, by generation.
    pub(super) chunks: u64,
}

impl Marks {
    pub(super) fn new(entries: u64) -> Marks {
        Marks { classes: Vec::new(), entries, recent: Recent::default(), pages: 0, chunks: 0 }
    }

    /// The class of roots like this one.
    fn class(&mut self, generation: Generation, regions: RegionSet) -> usize {
        let same = |class: &Class| class.generation == generation && class.regions == regions;
        if let Some(at) = self.classes.iter().position(same) {
            return at;
        }
        let bits = || Bits::new(self.entries);
        self.classes.push(Class { generation, regions, live: bits(), dirs: bits(), lists: bits() });
        self.classes.len() - 1
    }

    /// Whether something is known of an entry that holds for this class too.
    fn known(&self, class: usize, of: fn(&Class) -> &Bits, entry: u64) -> bool {
        let Some(own) = self.classes.get(class) else { return false };
        let holds = |other: &&Class| other.generation == own.generation && other.regions.covers(own.regions);
        self.classes.iter().filter(holds).any(|other| of(other).has(entry))
    }

    /// Takes back that pages of this class were walked: a walk that was cut off has not been everywhere that it was
    /// about to go.
    fn forget_pages(&mut self, class: usize) {
        let entries = self.entries;
        if let Some(class) = self.classes.get_mut(class) {
            (class.dirs, class.lists) = (Bits::new(entries), Bits::new(entries));
        }
    }

    /// Whether snapshots of this generation need the chunk whose first place this is.
    pub(super) fn is_live(&self, generation: Generation, entry: u64) -> bool {
        self.classes.iter().any(|class| class.generation == generation && class.live.has(entry))
    }

    /// The generations of what was marked.
    pub(super) fn generations(&self) -> Vec<Generation> {
        let mut all: Vec<Generation> = self.classes.iter().map(|class| class.generation).collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// The number by which a chunk of a generation goes.
pub(super) fn entry_of(places: &[Located], generation: Generation) -> Option<u64> {
    places.iter().find(|at| at.generation == generation).map(|at| at.entry)
}

/// A page that was asked for, and not taken yet.
struct Ahead {
    open: Open,
    entry: u64,
    page: Asked,
}

/// Walks roots.
pub(super) struct Marker<'m> {
    pub(super) reader: &'m Reader,
    pub(super) table: &'m Table,
    pub(super) marks: &'m mut Marks,
    pub(super) judge: &'m mut dyn Judge,
    pub(super) cancel: &'m Cancel,
    pub(super) pages: Pages<'m>,
    class: usize,
    open: Vec<Open>,
    ahead: VecDeque<Ahead>,
}

impl<'m> Marker<'m> {
    pub(super) fn new(
        reader: &'m Reader,
        table: &'m Table,
        marks: &'m mut Marks,
        judge: &'m mut dyn Judge,
        cancel: &'m Cancel,
    ) -> Marker<'m> {
        let (pages, ahead) = (Pages::here(reader), VecDeque::new());
        Marker { reader, table, marks, judge, cancel, pages, class: 0, open: Vec::new(), ahead }
    }

    /// Marks everything that a root needs.
    pub(super) fn root(&mut self, root: &Root) -> std::result::Result<(), Stopped> {
        self.class = self.marks.class(root.generation, root.regions);
        self.walk(root).inspect_err(|_| self.marks.forget_pages(self.class))
    }

    fn walk(&mut self, root: &Root) -> std::result::Result<(), Stopped> {
        self.open.clear();
        self.ahead.clear();
        self.pages.next_walk();
        self.found(Found::of(&root.entry)?)?;
        loop {
            self.cancel.check()?;
            self.ask()?;
            let Some(next) = self.ahead.pop_front() else { return Ok(()) };
            let found = self.pages.take(next.page)?;
            self.marks.pages += 1;
            self.found(found)?;
            match (self.marks.classes.get_mut(self.class), next.open) {
                (Some(class), Open::Dir(_)) => class.dirs.set(next.entry),
                (Some(class), Open::List(..)) => class.lists.set(next.entry),
                (None, _) => {}
            }
        }
    }

    /// Asks for pages that were not walked yet.
    fn ask(&mut self) -> std::result::Result<(), Stopped> {
        while self.ahead.len() < self.pages.ahead {
            let Some(open) = self.open.pop() else { break };
            let entry = self.need(open.page())?;
            let known: fn(&Class) -> &Bits = match open {
                Open::Dir(_) => |class| &class.dirs,
                Open::List(..) => |class| &class.lists,
            };
            if !self.marks.known(self.class, known, entry) && !self.ahead.iter().any(|ahead| ahead.open == open) {
                self.ahead.push_back(Ahead { open, entry, page: self.pages.ask(open) });
            }
        }
        Ok(())
    }

    fn found(&mut self, found: Found) -> std::result::Result<(), Stopped> {
        for id in &found.chunks {
            if !self.marks.recent.has(id, self.class) {
                self.need(id)?;
                self.marks.recent.keep(id, self.class);
            }
        }
        self.open.extend(found.open);
        Ok(())
    }

    /// A chunk without which a root is not complete; returns its number.
    fn need(&mut self, id: &ChunkId) -> std::result::Result<u64, Stopped> {
        let Some((generation, regions)) = self.marks.classes.get(self.class).map(|c| (c.generation, c.regions)) else {
            return Err(Error::new(Kind::Bug, "a root of no class").into());
        };
        let places: Vec<Located> = self.reader.index.locate(id).collect();
        let entry = entry_of(&places, generation);
        if let Some(entry) = entry.filter(|entry| self.marks.known(self.class, |class| &class.live, *entry)) {
            return Ok(entry);
        }
        let copies = self.table.copies(&places, generation);
        let named = copies.iter().fold(RegionSet::NONE, |all, (_, regions)| all.or(*regions));
        if let Some(ix) = regions.iter().find(|ix| !named.has(*ix)) {
            return Err(Stopped::Lacks(ix, *id));
        }
        let Some(entry) = entry else {
            return Err(Error::new(Kind::Damage, format!("chunk {} is in no index segment", id.short())).into());
        };
        if !self.marks.is_live(generation, entry) {
            self.marks.chunks += 1;
            self.judge.needed(&places, &copies);
        }
        if let Some(class) = self.marks.classes.get_mut(self.class) {
            class.live.set(entry);
        }
        Ok(entry)
    }
}
