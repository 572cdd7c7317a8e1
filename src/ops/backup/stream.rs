//! Streams of unknown length become the files of a snapshot: one, or a few in one directory.
//!
//! The calling thread cuts, workers store; so memory holds a few chunks a worker. A stream that breaks, or whose command
//! fails, makes no snapshot; what was stored is kept, and the next run finds it.

use super::build::Built;
use super::plan::are_known;
use super::run::Run;
use super::{BackupOptions, BackupReport, catch_up, generation_of};
use crate::base::{Cancel, Pace, PackName, Progress, SessionId};
use crate::chunk::{CUT_BYTES_MAX, Cutter};
use crate::error::{Error, Kind, Result};
use crate::format::envelope::Class;
use crate::format::snapshot::{Counts, Label, Miss, Source};
use crate::format::tree::{Entry, EntryType, INLINE_BYTES_MAX, Item};
use crate::repo::Repo;
use crate::repo::index::{Index, Reusable, Reuse};
use crate::repo::reader::Reader;
use crate::repo::session::{Ended, Errand, Session, Work};
use crate::repo::tree::{ChunkList, DirWriter, ListWriter};
use crate::repo::view::View;
use crate::repo::writer::{Packer, Writer};
use crate::source::stream::Stream;
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Chunks that wait for each worker.
const CHUNKS_AHEAD: usize = 2;
/// Permissions of the file: what a command prints is nobody else's business.
const FILE_MODE: u32 = 0o600;
/// Why an earlier snapshot is not gone on from.
const NOT_THERE: &str =
    "the snapshot that this one goes on from is not in every region any more, or parts of it are being removed";
/// Permissions of the directories that its name needs.
const DIR_MODE: u32 = 0o755;

/// Where a stream stands in its snapshot: names of directories and of the file.
#[derive(Debug, Clone)]
pub struct StreamName(Vec<Vec<u8>>);

impl StreamName {
    /// A path; a slash at its begin says nothing.
    ///
    /// # Errors
    /// A name that no directory can hold.
    pub fn parse(path: &[u8]) -> Result<StreamName> {
        let names: Vec<Vec<u8>> = path.split(|b| *b == b'/').filter(|n| !n.is_empty()).map(<[u8]>::to_vec).collect();
        let safe = |name: &Vec<u8>| Entry::bare(name, EntryType::File).name_is_safe();
        if names.is_empty() || !names.iter().all(safe) || path.ends_with(b"/") {
            let what = "a name or a path for the file is needed";
            return Err(Error::new(Kind::Config, what).at(String::from_utf8_lossy(path)));
        }
        Ok(StreamName(names))
    }

    /// As a path from the snapshot's root.
    pub fn path(&self) -> Vec<u8> {
        self.0.join(&b'/')
    }
}

/// Backs up a stream. The paths, exclusions and the parent's rule of `options` say nothing here; the name of the source
/// must be there.
///
/// # Errors
/// The stream broke or its command failed, nothing can be stored anywhere, or the run was interrupted.
pub fn stream(
    repo: &Arc<Repo>,
    options: &BackupOptions,
    name: &StreamName,
    input: Stream,
    (progress, cancel): (&Progress, &Cancel),
) -> Result<BackupReport> {
    repo.may_write()?;
    let given = Given {
        kind: super::FILES,
        paths: vec![name.path()],
        parts: vec![(name.clone(), input, Cut::Content)],
        labels: Vec::new(),
        misses: Vec::new(),
        begun: None,
        kept: None,
    };
    streams(repo, options, given, (progress, cancel))
}

/// Where a stream is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// By its content.
    Content,
    /// By its content, into small pieces: what is changed in many places by a little.
    Small,
}

/// Streams that make one snapshot.
pub struct Given {
    /// Kind of the source.
    pub kind: &'static str,
    /// What the manifest says that was backed up.
    pub paths: Vec<Vec<u8>>,
    /// The files, in the order of their names; of several, all in one directory.
    pub parts: Vec<(StreamName, Stream, Cut)>,
    /// What the manifest says beside.
    pub labels: Vec<Label>,
    /// What is missing from them.
    pub misses: Vec<Miss>,
    /// When its reading began, where all of it was read before, ms.
    pub begun: Option<i64>,
    /// Files of an earlier snapshot that are taken over as they are, and which it is.
    pub kept: Option<(SessionId, Vec<Entry>)>,
}

/// Backs up streams, as [`stream`] does one.
///
/// # Errors
/// As [`stream`]; [`Kind::NotFound`] where what is taken over is not there any more.
pub fn streams(
    repo: &Arc<Repo>,
    options: &BackupOptions,
    given: Given,
    (progress, cancel): (&Progress, &Cancel),
) -> Result<BackupReport> {
    repo.may_write()?;
    let source = Source {
        kind: given.kind.into(),
        name: options.source_name()?,
        host: options.host.clone(),
        paths: given.paths.iter().map(|path| path.clone().into()).collect(),
    };
    let start = given.begun.unwrap_or_else(|| repo.env.now().0);
    repo.regions.slow_down(|| options.limits.upload.map(|rate| Pace::new(rate, cancel)));
    let (mut caught_up, view) = catch_up::with_view(repo, options.workers, cancel)?;
    let used = if view.damaged.is_empty() { None } else { Index::load(repo)?.generation_max() };
    let generation = generation_of(&view, used, &source.name, options.mode)?;
    let parent = view.latest_of(&source.name).filter(|p| p.manifest.generation == generation).cloned();
    let run = Run { repo, options, paths: &[], source, start, generation, view, parent, fs_id: None, progress, cancel };
    let errand = Errand { host: options.host.clone(), source: run.source.name.clone(), generation };
    let session = Session::announce(repo, errand, None)?;
    let (built, work, packs) = write(&run, &session, given)?;
    caught_up.count(catch_up::records(repo, options.workers, cancel)?);
    match session.commit(repo, &work, |session| run.manifest(session, &built))? {
        Ended::Committed(done) => {
            View::remember(repo, &done);
            let report = run.report(Some(&done), built, done.manifest.transfer, caught_up, packs);
            Ok(BackupReport { view: run.view, ..report })
        }
        // A stream cannot be read again.
        Ended::Fenced(_) => {
            Err(Error::new(Kind::Retry, "the session was fenced").advise("run again: stored work is kept"))
        }
    }
}

fn write(run: &Run<'_>, session: &Session, given: Given) -> Result<(Built, Work, Vec<PackName>)> {
    let repo = run.repo;
    let parent = given.kept.as_ref().map(|(sid, _)| *sid).filter(|sid| session.parent_stands(repo, *sid));
    let rules = Reuse {
        regions: session.regions.and(repo.writable()),
        bad: session.epochs.bad_packs(),
        generation: run.generation,
        present: run.present_packs(session.regions),
    };
    let index = Arc::new(Index::load(repo)?);
    let known = Reusable::new(Arc::clone(&index), rules);
    let writer = Writer::new(repo, session, known, (run.options.limits.compression, run.options.workers), run.progress);
    let kept = given.kept.as_ref().filter(|_| parent.is_none());
    // Where nobody vouches for the earlier snapshot, as while an epoch is undecided, each of its parts is looked up.
    let there = kept.is_none_or(|(_, kept)| are_known(&Reader::near(Arc::clone(repo), index), kept, &writer));
    let built = match there {
        true => pour(run, &writer, given),
        false => Err(Error::new(Kind::NotFound, NOT_THERE).advise("take a whole snapshot")),
    };
    // Whatever happened: what was stored is named, so that the next run finds it.
    let finished = writer.finish();
    match (built, finished) {
        (Ok(built), Ok(complete)) => {
            let stored = writer.stored();
            let work = Work { complete, packs: writer.packs(), parent, stored: !stored.is_empty() };
            Ok((built, work, stored))
        }
        (Err(e), _) | (_, Err(e)) => {
            session.give_up(repo, e.what())?;
            Err(e)
        }
    }
}

/// Stores the streams and the tree above them.
fn pour(run: &Run<'_>, writer: &Writer<'_>, given: Given) -> Result<Built> {
    let mut trees = writer.packer(Class::Tree);
    let Given { parts, labels, misses, kept, .. } = given;
    let kept = kept.map(|(_, entries)| entries).unwrap_or_default();
    let mut files = Vec::new();
    let mut made = Ok(());
    for (name, input, cut) in parts {
        made = made.and_then(|()| content(run, writer, (input, cut), &mut trees).map(|file| files.push((name, file))));
    }
    let made = made.and_then(|()| tree(run, kept, files, &mut trees));
    trees.flush()?;
    let mut built = made?;
    built.labels = labels;
    misses.into_iter().for_each(|miss| built.missed(miss, run.progress));
    Ok(built)
}

/// The directories above the files, and what there is to count.
fn tree(
    run: &Run<'_>,
    mut all: Vec<Entry>,
    files: Vec<(StreamName, Entry)>,
    trees: &mut Packer<'_, '_>,
) -> Result<Built> {
    let mut above = Vec::new();
    let mut counts = Counts { files_unchanged: all.len() as u64, files_read: files.len() as u64, ..Counts::default() };
    for (StreamName(mut names), mut entry) in files {
        run.progress.files.add(1);
        entry.name = names.pop().unwrap_or_default().into();
        all.push(entry);
        above = names;
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    let mut dir = DirWriter::default();
    for entry in all {
        counts.files += 1;
        counts.bytes = counts.bytes.saturating_add(entry.size());
        dir.push(entry, trees)?;
    }
    counts.dirs = above.len() as u64 + 1;
    let mut name = above.pop().unwrap_or_default();
    loop {
        let tree = dir.finish(trees)?;
        let entry = owned(run, Entry { mode: DIR_MODE, tree, ..Entry::bare(&name, EntryType::Dir) });
        if name.is_empty() {
            let mut built = Built::default();
            (built.root, built.counts) = (Some(entry), counts);
            return Ok(built);
        }
        dir = DirWriter::default();
        dir.push(entry, trees)?;
        name = above.pop().unwrap_or_default();
    }
}

/// With the times and the owner of the run.
fn owned(run: &Run<'_>, entry: Entry) -> Entry {
    let (s, ns) = (run.start.div_euclid(1000), (run.start.rem_euclid(1000) * 1_000_000) as u32);
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    Entry { uid, gid, mtime_s: s, mtime_ns: ns, ctime_s: s, ctime_ns: ns, ..entry }
}

struct Job {
    seq: u64,
    bytes: Vec<u8>,
}

/// What workers stored, by number.
type Stored = (u64, Result<Item>);

fn content(
    run: &Run<'_>,
    writer: &Writer<'_>,
    (input, cut): (Stream, Cut),
    trees: &mut Packer<'_, '_>,
) -> Result<Entry> {
    let workers = run.options.workers.max(1);
    let (jobs, queue) = bounded::<Job>(workers * CHUNKS_AHEAD);
    let (done, stored) = unbounded();
    std::thread::scope(|scope| {
        for _ in 0..workers {
            let (queue, done) = (queue.clone(), done.clone());
            scope.spawn(move || store(writer, &queue, &done));
        }
        drop((queue, done));
        Cuts { run, input, cut, jobs, stored, list: ListWriter::default(), early: BTreeMap::new(), sent: 0, taken: 0 }
            .run(trees)
    })
}

/// A worker: what it stored goes on its way in any case.
fn store(writer: &Writer<'_>, queue: &Receiver<Job>, done: &Sender<Stored>) {
    let mut packer = writer.packer(Class::Data);
    let mut last = 0;
    for Job { seq, bytes } in queue {
        last = seq;
        let id = packer.chunk(&bytes);
        // Whoever cuts is gone only when the run was given up.
        let _ = done.send((seq, id.map(|id| Item { id, len: bytes.len() as u64 })));
    }
    if let Err(e) = packer.flush() {
        let _ = done.send((last, Err(e)));
    }
}

/// Cuts a stream and takes what was stored in its order.
struct Cuts<'c, 'r> {
    run: &'c Run<'r>,
    input: Stream,
    cut: Cut,
    jobs: Sender<Job>,
    stored: Receiver<Stored>,
    list: ListWriter,
    early: BTreeMap<u64, Item>,
    sent: u64,
    taken: u64,
}

impl Cuts<'_, '_> {
    fn run(mut self, trees: &mut Packer<'_, '_>) -> Result<Entry> {
        let run = self.run;
        let seed = run.repo.gear_seed();
        let cutter = if self.cut == Cut::Small { Cutter::small(seed) } else { Cutter::files(seed) };
        let pace = run.options.limits.read.map(|rate| Pace::new(rate, run.cancel));
        let mut entry = owned(run, Entry { mode: FILE_MODE, size: Some(0), ..Entry::bare(&[], EntryType::File) });
        let (mut buf, mut at_end): (Vec<u8>, bool) = (Vec::new(), false);
        while !at_end {
            while buf.len() < 2 * CUT_BYTES_MAX && !at_end {
                match self.input.next(run.cancel)? {
                    Some(block) => {
                        run.progress.bytes_read.add(block.len() as u64);
                        pace.iter().for_each(|pace| pace.book(block.len() as u64).wait());
                        buf.extend_from_slice(&block);
                    }
                    None => at_end = true,
                }
            }
            if at_end && self.sent == 0 && buf.len() <= INLINE_BYTES_MAX {
                entry.size = Some(buf.len() as u64);
                entry.inline = (!buf.is_empty()).then(|| buf.into());
                return Ok(entry);
            }
            let mut cut = 0;
            while let Some(len) = cutter.next(&buf[cut..], at_end) {
                self.send(buf[cut..cut + len].to_vec(), trees)?;
                cut += len;
            }
            buf.drain(..cut);
        }
        drop(std::mem::replace(&mut self.jobs, bounded(0).0));
        while let Ok(done) = self.stored.recv() {
            self.take(done, trees)?;
        }
        self.finish(entry, trees)
    }

    fn send(&mut self, bytes: Vec<u8>, trees: &mut Packer<'_, '_>) -> Result<()> {
        self.run.cancel.check()?;
        let job = Job { seq: self.sent, bytes };
        self.jobs.send(job).map_err(|_| Error::new(Kind::Bug, "the workers ended early"))?;
        self.sent += 1;
        while let Ok(done) = self.stored.try_recv() {
            self.take(done, trees)?;
        }
        Ok(())
    }

    fn take(&mut self, (seq, item): Stored, trees: &mut Packer<'_, '_>) -> Result<()> {
        self.early.insert(seq, item?);
        while let Some(item) = self.early.remove(&self.taken) {
            self.run.progress.bytes_done.add(item.len);
            self.list.push(item, trees)?;
            self.taken += 1;
        }
        Ok(())
    }

    fn finish(self, mut entry: Entry, trees: &mut Packer<'_, '_>) -> Result<Entry> {
        if self.taken != self.sent {
            return Err(Error::new(Kind::Bug, "a chunk of the stream was not stored"));
        }
        entry.size = Some(self.list.total());
        match self.list.finish(trees)? {
            ChunkList::Inline(items) => entry.chunks = Some(items.into()),
            ChunkList::Pages(pages) => entry.list = Some(pages),
        }
        Ok(entry)
    }
}
