//! Snapshots into another repository: opened with this one's keys, sealed with that one's, deduplicated there.
//!
//! Every chunk has another id there, so trees are written anew. Where a file is cut stays as it is. A copy is a snapshot
//! like every other, complete when it is visible; its labels say what it was made of, so that it is made once. What was
//! stored by a run that died is found by the next through the index there.
//!
//! Memory: about 100 bytes for each different chunk that is copied in one run.

use super::ahead::{self, Answer, Asker, Job, STEP_CHUNKS_MAX};
use super::catch_up;
use crate::base::{Cancel, ChunkId, Digest, Generation, Pace, Progress, SessionId};
use crate::chunk::{Coder, Compression};
use crate::error::{Error, Kind, Result};
use crate::format::envelope::Class;
use crate::format::snapshot::{Label, Manifest, Transfer, content_digest};
use crate::format::tree::{Entry, EntryType, Item};
use crate::region::{RegionSet, lock};
use crate::repo::Repo;
use crate::repo::index::{Index, Reusable, Reuse};
use crate::repo::reader::Reader;
use crate::repo::session::{Committed, Ended, Errand, Session, Work};
use crate::repo::tree::{ChunkList, DirReader, DirWriter, ListReader, ListWriter, PageSink, check_depth};
use crate::repo::view::View;
use crate::repo::writer::{Packer, Writer};
use crossbeam_channel::{Receiver, Sender};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// Label of a copy: repository and snapshot that it was made of.
pub const COPIED_FROM: &str = "copied-from";
/// Label of a copy: the generation of that.
const COPIED_GENERATION: &str = "copied-generation";
/// How many sessions one snapshot may need.
const SESSIONS_MAX: usize = 4;
/// Known chunks are spread over this many locks.
const SHARDS: usize = 64;

/// How it is copied.
#[derive(Debug, Clone, Copy, Default)]
pub struct CopyOptions {
    /// Threads that read and store.
    pub workers: usize,
    /// How much work goes into making content smaller.
    pub compression: Compression,
    /// Most bytes a second that are written to each region.
    pub upload: Option<u64>,
}

/// A snapshot that was copied.
#[derive(Debug, Clone)]
pub struct Copied {
    /// The copy.
    pub sid: SessionId,
    /// Regions in which it is visible.
    pub regions: RegionSet,
    /// What it cost.
    pub transfer: Transfer,
}

/// What became of one snapshot.
#[derive(Debug)]
pub enum Fate {
    /// It was copied now.
    Copied(Copied),
    /// It was copied before, into this snapshot.
    There(SessionId),
    /// It could not be copied; nothing of it is visible.
    Failed(Error),
}

/// The value of a label.
pub fn label<'m>(manifest: &'m Manifest, key: &str) -> Option<&'m str> {
    manifest.labels.iter().find(|label| label.key == key).map(|label| label.value.as_str())
}

/// What a chunk is called in the other repository, and the session in which that was found out.
type Known = Vec<Mutex<HashMap<ChunkId, (ChunkId, SessionId)>>>;

/// Copies into one repository.
pub struct Copier<'c> {
    from: &'c Reader,
    to: &'c Arc<Repo>,
    options: CopyOptions,
    progress: &'c Progress,
    cancel: &'c Cancel,
    view: View,
    known: Known,
}

impl<'c> Copier<'c> {
    /// Looks at what is there, and brings up its regions.
    ///
    /// # Errors
    /// They are the same repository, the other cannot be written, or the run was interrupted.
    pub fn new(
        from: &'c Reader,
        to: &'c Arc<Repo>,
        options: CopyOptions,
        (progress, cancel): (&'c Progress, &'c Cancel),
    ) -> Result<Copier<'c>> {
        if from.repo.id == to.id {
            return Err(
                Error::new(Kind::Config, "both are the same repository").advise("regions are brought up by themselves")
            );
        }
        to.may_write()?;
        to.regions.slow_down(|| options.upload.map(|rate| Pace::new(rate, cancel)));
        catch_up::run(to, options.workers, cancel)?;
        let known = (0..SHARDS).map(|_| Mutex::default()).collect();
        Ok(Copier { from, to, options, progress, cancel, view: View::load(to)?, known })
    }

    fn origin(&self, manifest: &Manifest) -> String {
        format!("{}/{}", self.from.repo.id, manifest.sid)
    }

    /// The copy of a snapshot of the first repository.
    fn copy_of(&self, origin: &str) -> Option<&Manifest> {
        let mut all = self.view.snapshots.values().map(|snapshot| &snapshot.manifest);
        all.find(|manifest| label(manifest, COPIED_FROM) == Some(origin))
    }

    /// Copies one snapshot. Older ones should come first: parents are found among the copies.
    ///
    /// # Errors
    /// Interrupted, or the other repository cannot be written: further ones need not be tried.
    pub fn copy(&mut self, manifest: &Manifest) -> Result<Fate> {
        self.cancel.check()?;
        if let Some(there) = self.copy_of(&self.origin(manifest)) {
            return Ok(Fate::There(there.sid));
        }
        let generation = self.generation(manifest)?;
        let before = Sums::of(self.progress);
        let mut refreshes = None;
        for _ in 0..SESSIONS_MAX {
            let source = &manifest.source;
            let errand = Errand { host: source.host.clone(), source: source.name.clone(), generation };
            let session = Session::announce(self.to, errand, refreshes)?;
            let (root, work) = match self.write(&session, manifest) {
                Ok(done) => done,
                Err(e) => {
                    session.give_up(self.to, e.what())?;
                    return if e.kind() == Kind::Damage { Ok(Fate::Failed(e)) } else { Err(e) };
                }
            };
            let transfer = before.until(self.progress);
            match session.commit(self.to, &work, |session| self.manifest(manifest, session, &root, transfer))? {
                Ended::Committed(done) => {
                    let Committed { sid, regions, .. } = *done;
                    self.view = std::mem::take(&mut self.view).again(self.to)?;
                    return Ok(Fate::Copied(Copied { sid, regions, transfer }));
                }
                Ended::Fenced(sid) => refreshes = Some(sid),
            }
        }
        Err(Error::new(Kind::Retry, "the session was fenced again and again").advise("run again: stored work is kept"))
    }

    /// Generations share no chunks. Those of a source here become as many there.
    fn generation(&self, manifest: &Manifest) -> Result<Generation> {
        let own = manifest.generation.0.to_string();
        let repo = self.from.repo.id.to_string();
        let of_source = |m: &&Manifest| m.source.name == manifest.source.name;
        let all = || self.view.snapshots.values().map(|snapshot| &snapshot.manifest).filter(of_source);
        let copied = |m: &&Manifest| label(m, COPIED_FROM).is_some_and(|origin| origin.starts_with(&repo));
        let same = all().filter(copied).find(|m| label(m, COPIED_GENERATION) == Some(&own));
        if let Some(same) = same {
            return Ok(same.generation);
        }
        let newest = self.view.generation_max.unwrap_or(Generation(0)).0;
        if all().next().is_none() {
            return Ok(Generation(newest.max(1)));
        }
        let used = if self.view.damaged.is_empty() { None } else { Index::load(self.to)?.generation_max() };
        let next = newest.max(used.map_or(0, |used| used.0)).checked_add(1);
        next.map(Generation).ok_or_else(|| Error::new(Kind::Refused, "no further generation is possible"))
    }

    fn write(&self, session: &Session, manifest: &Manifest) -> Result<(Entry, Work)> {
        let rules = Reuse {
            regions: session.regions.and(self.to.writable()),
            bad: session.epochs.bad_packs(),
            generation: session.errand.generation,
            present: None,
        };
        let reusable = Reusable::new(Arc::new(Index::load(self.to)?), rules);
        let how = (self.options.compression, self.options.workers);
        let writer = Writer::new(self.to, session, reusable, how, self.progress);
        let translator = Translator { from: self.from, writer: &writer, known: &self.known, session: session.sid };
        let root = self.tree(&translator, manifest);
        // Whatever happened: what was stored is named, so that the next run finds it.
        let finished = writer.finish();
        let (root, complete) = (root?, finished?);
        let stored = !writer.stored().is_empty();
        Ok((root, Work { complete, packs: writer.packs(), parent: None, stored }))
    }

    /// Copies a tree; its new root.
    fn tree(&self, translator: &Translator<'_>, manifest: &Manifest) -> Result<Entry> {
        let mut trees = translator.writer.packer(Class::Tree);
        let failed = Mutex::new(None);
        let (planned, built) = ahead::run(
            self.options.workers,
            |jobs| {
                if let Err(e) = translator.work(jobs) {
                    lock(&failed).get_or_insert(e);
                }
            },
            |asker, steps| {
                let entries_left = manifest.counts.entries();
                let plan = Plan {
                    reader: self.from,
                    asker,
                    steps,
                    cancel: self.cancel,
                    coder: Coder::default(),
                    entries_left,
                };
                plan.run(&manifest.root)
            },
            |steps| Builder { open: Vec::new(), root: None, trees: &mut trees, progress: self.progress }.run(steps),
        );
        let flushed = trees.flush();
        let failed = failed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        let planned = planned.unwrap_or_else(|| Err(Error::new(Kind::Bug, "the planner ended early")));
        self.cancel.check()?;
        // A worker's error is the cause of the builder's, and the builder's of the planner's.
        let root = failed.map_or(built, Err)?;
        planned?;
        flushed?;
        root.ok_or_else(|| Error::new(Kind::Bug, "the walk ended without a root"))
    }

    fn manifest(&self, old: &Manifest, session: &Session, root: &Entry, transfer: Transfer) -> Result<Manifest> {
        let own = self.to.ring().signer().map(|(id, _)| id);
        let of_source = self.view.snapshots.values().filter(|s| s.manifest.source.name == old.source.name);
        let before = of_source.filter(|s| Some(s.writer) == own).max_by_key(|s| s.manifest.seq);
        let parent = old.parent.and_then(|parent| self.copy_of(&format!("{}/{parent}", self.from.repo.id)));
        let mut labels: Vec<Label> =
            old.labels.iter().filter(|l| l.key != COPIED_FROM && l.key != COPIED_GENERATION).cloned().collect();
        labels.push(Label { key: COPIED_FROM.into(), value: self.origin(old) });
        labels.push(Label { key: COPIED_GENERATION.into(), value: old.generation.0.to_string() });
        Ok(Manifest {
            fresh: session.fresh(self.to),
            sid: session.sid,
            parent: parent.map(|parent| parent.sid),
            content: content_digest(root),
            root: root.clone(),
            transfer,
            generation: session.errand.generation,
            domain: self.to.domain(),
            seq: before.map_or(1, |s| s.manifest.seq.saturating_add(1)),
            prev: before.map_or(Digest::ZERO, |s| s.digest),
            seen: self.view.heads(),
            program: env!("CARGO_PKG_VERSION").into(),
            labels,
            decision: session.decision_id(self.to)?,
            ..old.clone()
        })
    }
}

/// What was counted when a snapshot was begun.
struct Sums(Transfer);

impl Sums {
    fn of(progress: &Progress) -> Sums {
        Sums(Transfer {
            bytes_read: progress.bytes_read.get(),
            bytes_new: progress.bytes_new.get(),
            bytes_stored: progress.bytes_stored.get(),
            chunks_new: progress.chunks_new.get(),
            chunks_used: progress.chunks_used.get(),
        })
    }

    fn until(&self, progress: &Progress) -> Transfer {
        let (Sums(now), before) = (Sums::of(progress), &self.0);
        Transfer {
            bytes_read: now.bytes_read.saturating_sub(before.bytes_read),
            bytes_new: now.bytes_new.saturating_sub(before.bytes_new),
            bytes_stored: now.bytes_stored.saturating_sub(before.bytes_stored),
            chunks_new: now.chunks_new.saturating_sub(before.chunks_new),
            chunks_used: now.chunks_used.saturating_sub(before.chunks_used),
        }
    }
}

/// Finds out what a chunk is called there, and stores it if need be.
struct Translator<'t> {
    from: &'t Reader,
    writer: &'t Writer<'t>,
    known: &'t Known,
    session: SessionId,
}

impl Translator<'_> {
    fn work(&self, jobs: &Receiver<Job<ChunkId>>) -> Result<()> {
        let mut packer = self.writer.packer(Class::Data);
        let mut coder = Coder::default();
        let mut failed = Ok(());
        for job in jobs {
            let done = self.translate(&job.item, &mut packer, &mut coder);
            failed = failed.and(done.as_ref().map(drop).map_err(Clone::clone));
            job.answer(done);
            if failed.is_err() {
                break;
            }
        }
        failed.and(packer.flush())
    }

    fn translate(&self, item: &Item, packer: &mut Packer<'_, '_>, coder: &mut Coder) -> Result<ChunkId> {
        let shard = &self.known[usize::from(item.id.bytes()[0]) % SHARDS];
        let known = lock(shard).get(&item.id).copied();
        // One that an earlier session named must be there still, and counts as used by this one.
        if let Some((id, session)) = known
            && (session == self.session || self.writer.has(&id))
        {
            lock(shard).insert(item.id, (id, self.session));
            return Ok(id);
        }
        let bytes = self.from.chunk(&item.id, coder)?;
        if bytes.len() as u64 != item.len {
            return Err(Error::new(Kind::Damage, "a chunk's length is not what the file's list says"));
        }
        let id = packer.chunk(&bytes)?;
        lock(shard).insert(item.id, (id, self.session));
        Ok(id)
    }
}

/// A piece of a file.
enum Piece {
    Hole(u64),
    Chunk(u64, Answer<ChunkId>),
}

/// What the planner hands to the builder, in the order of the tree.
enum Step {
    Enter(Box<Entry>, Option<Vec<u8>>),
    Leave,
    /// An entry; its attributes, if they are a chunk of their own; whether pieces follow.
    Entry(Box<Entry>, Option<Vec<u8>>, bool),
    Pieces(Vec<Piece>, bool),
}

/// Walks the old tree.
struct Plan<'p> {
    reader: &'p Reader,
    asker: &'p Asker<ChunkId>,
    steps: &'p Sender<Step>,
    cancel: &'p Cancel,
    coder: Coder,
    /// Entries still allowed: directories that share pages could make any number of few.
    entries_left: u64,
}

impl<'p> Plan<'p> {
    fn run(mut self, root: &Entry) -> Result<()> {
        let mut path = Vec::new();
        let mut stack: Vec<(DirReader<'p>, usize)> = Vec::new();
        self.enter(root, &mut stack, 0)?;
        while let Some((dir, path_len)) = stack.last_mut() {
            self.cancel.check()?;
            path.truncate(*path_len);
            let next = dir.next(&mut self.coder).map_err(|e| e.at(String::from_utf8_lossy(&path)))?;
            let Some(entry) = next else {
                stack.pop();
                self.send(Step::Leave)?;
                continue;
            };
            self.entries_left = self
                .entries_left
                .checked_sub(1)
                .ok_or_else(|| Error::new(Kind::Damage, "the snapshot has more entries than its manifest says"))?;
            path.push(b'/');
            path.extend_from_slice(&entry.name);
            if entry.kind == EntryType::Dir {
                check_depth(stack.len())?;
                self.enter(&entry, &mut stack, path.len())?;
            } else {
                self.entry(entry).map_err(|e| e.at(String::from_utf8_lossy(&path)))?;
            }
        }
        Ok(())
    }

    fn send(&self, step: Step) -> Result<()> {
        self.steps.send(step).map_err(|_| Error::new(Kind::Cancelled, "interrupted"))
    }

    fn enter(&mut self, entry: &Entry, stack: &mut Vec<(DirReader<'p>, usize)>, path_len: usize) -> Result<()> {
        let xattrs = self.xattrs(entry)?;
        stack.push((DirReader::new(self.reader, entry.tree), path_len));
        self.send(Step::Enter(Box::new(Entry { tree: None, xattrs_ref: None, ..entry.clone() }), xattrs))
    }

    /// Attributes in a chunk of their own.
    fn xattrs(&mut self, entry: &Entry) -> Result<Option<Vec<u8>>> {
        entry.xattrs_ref.map(|id| self.reader.chunk(&id, &mut self.coder)).transpose()
    }

    fn entry(&mut self, entry: Entry) -> Result<()> {
        let xattrs = self.xattrs(&entry)?;
        let mut list = ListReader::new(self.reader, &entry)?;
        let has_list = entry.chunks.is_some() || entry.list.is_some();
        let bare = Entry { chunks: None, list: None, xattrs_ref: None, ..entry.clone() };
        self.send(Step::Entry(Box::new(bare), xattrs, has_list))?;
        if !has_list {
            return Ok(());
        }
        let (mut pieces, mut total) = (Vec::new(), 0u64);
        while let Some(item) = list.next(&mut self.coder)? {
            self.cancel.check()?;
            if pieces.len() >= STEP_CHUNKS_MAX {
                self.send(Step::Pieces(std::mem::take(&mut pieces), false))?;
            }
            total = total.saturating_add(item.len);
            pieces.push(if item.id == ChunkId::HOLE {
                Piece::Hole(item.len)
            } else {
                Piece::Chunk(item.len, self.asker.ask(item))
            });
        }
        if total != entry.size() {
            return Err(Error::new(Kind::Damage, "the file's chunks do not add up to its size"));
        }
        self.send(Step::Pieces(pieces, true))
    }
}

/// Puts the new tree together.
struct Builder<'b, 'w, 'r> {
    open: Vec<(Entry, DirWriter)>,
    root: Option<Entry>,
    trees: &'b mut Packer<'w, 'r>,
    progress: &'b Progress,
}

impl Builder<'_, '_, '_> {
    fn run(mut self, steps: &Receiver<Step>) -> Result<Option<Entry>> {
        let mut file: Option<(Box<Entry>, ListWriter)> = None;
        for step in steps {
            match step {
                Step::Enter(mut entry, xattrs) => {
                    entry.xattrs_ref = self.put(xattrs)?;
                    self.open.push((*entry, DirWriter::default()));
                }
                Step::Leave => self.leave()?,
                Step::Entry(mut entry, xattrs, has_list) => {
                    entry.xattrs_ref = self.put(xattrs)?;
                    if has_list {
                        file = Some((entry, ListWriter::default()));
                    } else {
                        self.add(*entry)?;
                    }
                }
                Step::Pieces(pieces, last) => {
                    let Some((entry, mut list)) = file.take() else { continue };
                    for piece in pieces {
                        let item = match piece {
                            Piece::Hole(len) => Item { id: ChunkId::HOLE, len },
                            Piece::Chunk(len, answer) => Item { id: answer.take()?, len },
                        };
                        self.progress.bytes_done.add(item.len);
                        list.push(item, self.trees)?;
                    }
                    if last {
                        self.finish(*entry, list)?;
                    } else {
                        file = Some((entry, list));
                    }
                }
            }
        }
        Ok(self.root)
    }

    fn put(&mut self, xattrs: Option<Vec<u8>>) -> Result<Option<ChunkId>> {
        xattrs.map(|bytes| self.trees.put(&bytes)).transpose()
    }

    fn finish(&mut self, mut entry: Entry, list: ListWriter) -> Result<()> {
        match list.finish(self.trees)? {
            ChunkList::Inline(items) if items.is_empty() => {}
            ChunkList::Inline(items) => entry.chunks = Some(items.into()),
            ChunkList::Pages(pages) => entry.list = Some(pages),
        }
        self.add(entry)
    }

    fn add(&mut self, entry: Entry) -> Result<()> {
        if entry.kind == EntryType::File {
            self.progress.files.add(1);
        }
        let (_, dir) = self.open.last_mut().ok_or_else(|| Error::new(Kind::Bug, "an entry outside any directory"))?;
        dir.push(entry, self.trees)
    }

    fn leave(&mut self) -> Result<()> {
        let (mut entry, dir) = self.open.pop().ok_or_else(|| Error::new(Kind::Bug, "left more than was entered"))?;
        entry.tree = dir.finish(self.trees)?;
        self.progress.dirs.add(1);
        if self.open.is_empty() {
            self.root = Some(entry);
            Ok(())
        } else {
            self.add(entry)
        }
    }
}
