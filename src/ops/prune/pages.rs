//! Pages of trees, read and taken apart beside the walk that asks for them: opening, proving and decoding them takes as long
//! as all that is made of them.

use crate::base::ChunkId;
use crate::chunk::Coder;
use crate::error::{Error, Kind, Result};
use crate::format::leaf::Leaf;
use crate::format::tree::{Entry, ListPage, Page, items};
use crate::region::lift;
use crate::repo::reader::Reader;
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::Scope;

/// So many pages are asked for ahead, for each that reads.
const AHEAD: usize = 8;
/// No more than so many read: what waits is taken by one alone.
const WORKERS_MAX: usize = 8;

/// Something that is still to be walked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Open {
    Dir(ChunkId),
    /// With its level.
    List(ChunkId, u8),
}

impl Open {
    pub(super) fn page(&self) -> &ChunkId {
        match self {
            Open::Dir(page) | Open::List(page, _) => page,
        }
    }
}

/// What a page names.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) chunks: Vec<ChunkId>,
    pub(super) open: Vec<Open>,
}

impl Found {
    /// What an entry of a directory names.
    ///
    /// # Errors
    /// Its list of chunks is damaged.
    pub(super) fn of(entry: &Entry) -> Result<Found> {
        let mut found = Found::default();
        found.entry(entry)?;
        Ok(found)
    }

    fn entry(&mut self, entry: &Entry) -> Result<()> {
        self.chunks.extend(entry.xattrs_ref);
        if let Some(chunks) = &entry.chunks {
            self.items(chunks)?;
        }
        self.open.extend(entry.tree.map(Open::Dir));
        self.open.extend(entry.list.map(|list| Open::List(list.page, list.level)));
        Ok(())
    }

    fn items(&mut self, list: &[u8]) -> Result<()> {
        self.chunks.extend(items(list).map_err(lift)?.map(|item| item.id).filter(|id| *id != ChunkId::HOLE));
        Ok(())
    }

    fn dir(&mut self, page: ChunkId, bytes: Vec<u8>) -> Result<()> {
        let leaf = match Leaf::new(page, bytes).map_err(lift)? {
            Ok(leaf) => leaf,
            Err(bytes) => {
                let page = Page::decode(&bytes).map_err(lift)?;
                for entry in page.entries.iter().flatten() {
                    self.entry(entry)?;
                }
                self.open.extend(page.children.iter().flatten().map(|child| Open::Dir(child.page)));
                return Ok(());
            }
        };
        let mut scan = leaf.scan().map_err(lift)?;
        while let Some(raw) = leaf.next(&mut scan).map_err(lift)? {
            if !raw.plain {
                self.entry(&leaf.entry(&raw).map_err(lift)?)?;
                continue;
            }
            if let Some(chunks) = &raw.chunks {
                self.items(leaf.part(chunks))?;
            }
            self.open.extend(raw.tree.map(Open::Dir));
        }
        Ok(())
    }

    fn list(&mut self, level: u8, bytes: &[u8]) -> Result<()> {
        let found = ListPage::decode(bytes).map_err(lift)?;
        if found.level != level {
            return Err(Error::new(Kind::Damage, "list page of a wrong level"));
        }
        match level.checked_sub(1) {
            None => self.items(&found.items)?,
            Some(below) => self.open.extend(items(&found.items).map_err(lift)?.map(|item| Open::List(item.id, below))),
        }
        Ok(())
    }
}

fn read(reader: &Reader, open: Open, coder: &mut Coder) -> Result<Found> {
    let bytes = reader.chunk(open.page(), coder)?;
    let mut found = Found::default();
    match open {
        Open::Dir(page) => found.dir(page, bytes)?,
        Open::List(_, level) => found.list(level, &bytes)?,
    }
    Ok(found)
}

/// A page that somebody reads, for which walk, and where to say what it names.
type Job = (Open, u64, Sender<Result<Found>>);

/// A page that was asked for.
pub(super) enum Asked {
    Here(Open),
    Beside(Receiver<Result<Found>>),
}

/// Who reads pages.
pub(super) struct Pages<'m> {
    reader: &'m Reader,
    coder: Coder,
    jobs: Option<Sender<Job>>,
    /// The walk that goes on: what was asked for another one is not read any more.
    walk: Arc<AtomicU64>,
    /// How many may be asked for before the first is taken.
    pub(super) ahead: usize,
}

impl<'m> Pages<'m> {
    /// Every page is read when it is taken.
    pub(super) fn here(reader: &'m Reader) -> Pages<'m> {
        Pages { reader, coder: Coder::default(), jobs: None, walk: Arc::default(), ahead: 1 }
    }

    /// Pages are read by so many beside, until this is dropped.
    pub(super) fn beside<'s>(scope: &'s Scope<'s, '_>, reader: &'m Reader, workers: usize) -> Pages<'m>
    where
        'm: 's,
    {
        if workers == 0 {
            return Pages::here(reader);
        }
        let (jobs, queue) = unbounded::<Job>();
        let (workers, pages) = (workers.min(WORKERS_MAX), Pages::here(reader));
        for _ in 0..workers {
            let (queue, now) = (queue.clone(), Arc::clone(&pages.walk));
            scope.spawn(move || {
                let mut coder = Coder::default();
                for (open, walk, answer) in queue {
                    if now.load(Ordering::Acquire) == walk {
                        // Nobody waits for it where the walk was ended meanwhile.
                        let _ = answer.send(read(reader, open, &mut coder));
                    }
                }
            });
        }
        Pages { jobs: Some(jobs), ahead: workers.saturating_mul(AHEAD), ..pages }
    }

    /// What was asked for and not taken is of no use any more.
    pub(super) fn next_walk(&self) {
        self.walk.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn ask(&self, open: Open) -> Asked {
        let Some(jobs) = &self.jobs else { return Asked::Here(open) };
        let (answer, asked) = bounded(1);
        match jobs.send((open, self.walk.load(Ordering::Acquire), answer)) {
            Ok(()) => Asked::Beside(asked),
            Err(_) => Asked::Here(open),
        }
    }

    /// Ends those who read: what was asked for is not read any more.
    pub(super) fn end(&mut self) {
        self.next_walk();
        (self.jobs, self.ahead) = (None, 1);
    }

    pub(super) fn take(&mut self, asked: Asked) -> Result<Found> {
        match asked {
            Asked::Here(open) => read(self.reader, open, &mut self.coder),
            Asked::Beside(asked) => {
                asked.recv().unwrap_or_else(|_| Err(Error::new(Kind::Bug, "who read a page of a tree is gone")))
            }
        }
    }
}
