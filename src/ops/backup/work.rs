//! Workers: read, cut, store. A job is a batch of small files or a turn at a big one; whoever holds a big
//! file's token reads and cuts the next few chunks, then stores them while another holds the token.

use super::build::{Builder, Built};
use super::plan::{Planned, Planner, WHOLE_BYTES_MAX, Work, miss};
use super::step::{Done, Piece, Step};
use crate::base::{Cancel, ChunkId, Pace, Progress};
use crate::chunk::{CUT_BYTES_MAX, Cutter, Layout, MODEL_HEADER_BYTES_MAX, MODEL_PROBE_BYTES};
use crate::error::{Error, Kind, Result};
use crate::format::envelope::Class;
use crate::format::snapshot::Miss;
use crate::format::tree::{Entry, INLINE_BYTES_MAX, Item, push_item};
use crate::region::lock;
use crate::repo::Repo;
use crate::repo::writer::{Packer, Writer};
use crate::source::files::{self, DirHandle, Extent, SourceError, SourceFile, Stamp};
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use std::sync::{Arc, Mutex};

/// What a worker reads at once.
const READ_BYTES: usize = 16 << 20;
const _: () = assert!(READ_BYTES > MODEL_HEADER_BYTES_MAX + MODEL_PROBE_BYTES);
/// How far the walk may run ahead of the tree.
const STEPS_AHEAD: usize = 64;
/// Pieces of one file that may wait for the tree.
const PIECES_AHEAD: usize = 64;
/// How often a file that changes is read before it is taken as it is.
const ATTEMPTS_MAX: u32 = 3;
/// Files up to this are left to one worker.
const SHARED_BYTES_MIN: u64 = 32 << 20;

enum Job {
    Batch { dir: Arc<DirHandle>, work: Vec<Work>, results: Sender<Vec<Done>> },
    Big(Arc<Big>),
}

/// What there is to work with.
pub(super) struct Means<'m> {
    pub(super) workers: usize,
    pub(super) progress: &'m Progress,
    pub(super) cancel: &'m Cancel,
    /// How fast files may be read.
    pub(super) pace: Option<&'m Pace>,
}

/// Plans, works and builds.
pub(super) fn run(writer: &Writer<'_>, planner: &mut Planner<'_>, means: &Means<'_>, repo: &Repo) -> Result<Built> {
    let &Means { workers, progress, cancel, pace } = means;
    let mut trees = writer.packer(Class::Tree);
    let crew =
        Crew { writer, progress, cancel, pace, cutter: Cutter::files(repo.gear_seed()), failed: Mutex::new(None) };
    let result = {
        let mut builder = Builder::new(&mut trees, progress);
        let done = if workers == 0 {
            crew.inline(planner, &mut builder)
        } else {
            crew.threads(planner, &mut builder, workers)
        };
        // A worker's error is the cause of the builder's.
        let cause = lock(&crew.failed).take();
        match (cause, done) {
            (Some(cause), _) => Err(cause),
            (None, Err(e)) => Err(e),
            (None, Ok(())) => Ok(builder.built),
        }
    };
    trees.flush()?;
    result
}

struct Crew<'c, 'r> {
    writer: &'c Writer<'r>,
    progress: &'c Progress,
    cancel: &'c Cancel,
    pace: Option<&'c Pace>,
    cutter: Cutter,
    failed: Mutex<Option<Error>>,
}

impl Crew<'_, '_> {
    fn worker(&self) -> Worker<'_, '_> {
        let packer = self.writer.packer(Class::Data);
        let (cutter, progress, cancel, pace) = (&self.cutter, self.progress, self.cancel, self.pace);
        Worker { packer, buf: Vec::new(), cutter, progress, cancel, pace }
    }

    fn fail(&self, error: Error) {
        lock(&self.failed).get_or_insert(error);
    }

    /// Everything in the calling thread.
    fn inline(&self, planner: &mut Planner<'_>, builder: &mut Builder<'_>) -> Result<()> {
        let mut worker = self.worker();
        let done = loop {
            if let Err(e) = self.cancel.check() {
                break Err(e);
            }
            let Some(planned) = planner.next() else { break Ok(()) };
            let (step, jobs) = prepare(planned, 1, usize::MAX);
            if let Err(e) = jobs.into_iter().try_for_each(|job| worker.job(job)).and_then(|()| builder.step(step)) {
                break Err(e);
            }
        };
        worker.packer.flush()?;
        done
    }

    fn threads(&self, planner: &mut Planner<'_>, builder: &mut Builder<'_>, workers: usize) -> Result<()> {
        let (job_in, job_out) = unbounded::<Job>();
        let (step_in, step_out) = bounded::<Step>(STEPS_AHEAD);
        std::thread::scope(|scope| {
            for _ in 0..workers {
                let jobs = job_out.clone();
                scope.spawn(move || {
                    if let Err(e) = self.work_off(&jobs) {
                        self.fail(e);
                    }
                });
            }
            drop(job_out);
            scope.spawn(move || {
                while let (false, Some(planned)) = (self.cancel.raised(), planner.next()) {
                    let (step, jobs) = prepare(planned, workers, PIECES_AHEAD);
                    let sent = jobs.into_iter().all(|job| job_in.send(job).is_ok());
                    if !sent || step_in.send(step).is_err() {
                        break;
                    }
                }
            });
            // Ends when the planner has ended and every step was taken. Dropping the receiver ends the others.
            for step in step_out {
                self.cancel.check()?;
                builder.step(step)?;
            }
            self.cancel.check()
        })
    }

    fn work_off(&self, jobs: &Receiver<Job>) -> Result<()> {
        let mut worker = self.worker();
        let mut done = Ok(());
        for job in jobs {
            if self.cancel.raised() || lock(&self.failed).is_some() {
                break;
            }
            done = worker.job(job);
            if done.is_err() {
                break;
            }
        }
        // Also when interrupted: what was stored is kept for the next run.
        let flushed = worker.packer.flush();
        done.and(flushed)
    }
}

/// Splits planned work into jobs for workers and a step for the builder.
fn prepare(planned: Planned, workers: usize, ahead: usize) -> (Step, Vec<Job>) {
    match planned {
        Planned::Enter(entry) => (Step::Enter(entry), Vec::new()),
        Planned::Leave => (Step::Leave, Vec::new()),
        Planned::Missed(miss) => (Step::Missed(miss), Vec::new()),
        Planned::Excluded => (Step::Excluded, Vec::new()),
        Planned::Same(same, bytes) => (Step::Same(same, bytes), Vec::new()),
        Planned::Batch { work, .. } if work.iter().all(|w| !w.read) => {
            (Step::Ready(work.into_iter().map(|w| w.entry).collect()), Vec::new())
        }
        Planned::Batch { dir, work } => {
            let (results, out) = bounded(1);
            (Step::Batch(out), vec![Job::Batch { dir, work, results }])
        }
        Planned::Big { dir, entry } => {
            let (pieces, out) = if ahead == usize::MAX { unbounded() } else { bounded(ahead) };
            let hands = if entry.size() >= SHARED_BYTES_MIN { workers } else { 1 };
            let big = Arc::new(Big { dir, entry: *entry, open: Mutex::default(), pieces });
            (Step::Big(out), (0..hands).map(|_| Job::Big(Arc::clone(&big))).collect())
        }
    }
}

/// A big file on which several workers take turns.
struct Big {
    dir: Arc<DirHandle>,
    entry: Entry,
    open: Mutex<Token>,
    pieces: Sender<Piece>,
}

/// Who holds it cuts next.
#[derive(Default)]
struct Token {
    file: Option<Arc<SourceFile>>,
    expected: Option<Stamp>,
    /// Set for a file of tensors.
    layout: Option<Layout>,
    size: u64,
    pos: u64,
    data_end: u64,
    seq: u64,
    busy: usize,
    attempt: u32,
    cut_all: bool,
    over: bool,
}

/// What one turn took: chunk lengths in the worker's buffer, and holes.
enum Cut {
    Chunk(usize),
    Hole(u64),
}

struct Worker<'c, 'r> {
    packer: Packer<'c, 'r>,
    buf: Vec<u8>,
    cutter: &'c Cutter,
    progress: &'c Progress,
    cancel: &'c Cancel,
    pace: Option<&'c Pace>,
}

impl Worker<'_, '_> {
    fn job(&mut self, job: Job) -> Result<()> {
        match job {
            Job::Batch { dir, work, results } => {
                let mut all = Vec::with_capacity(work.len());
                for Work { entry, read } in work {
                    self.cancel.check()?;
                    self.progress.bytes_done.add(entry.size());
                    all.push(if read {
                        self.small(&dir, entry)?
                    } else {
                        Done { result: Ok(entry), items: None, read: false, misses: Vec::new(), changed: None }
                    });
                }
                // The builder is gone only when the run was given up.
                let _ = results.send(all);
                Ok(())
            }
            Job::Big(big) => self.big(&big),
        }
    }

    /// Fills the begin of the buffer from a file, as fast as is allowed; returns how much there was.
    fn read(&mut self, file: &SourceFile, offset: u64, len: usize) -> std::result::Result<usize, SourceError> {
        let Some(pace) = self.pace else { return file.read_at(offset, &mut self.buf[..len]) };
        let mut got = 0;
        for part in self.buf[..len].chunks_mut(pace.part()) {
            let read = file.read_at(offset + got as u64, part)?;
            pace.book(read as u64).wait();
            got += read;
            if read < part.len() {
                break;
            }
        }
        Ok(got)
    }

    /// Fills the begin of the buffer with a whole file of so many bytes, and one more if it grew. Who is told that it ends
    /// there need not ask whether more follows.
    fn read_file(&mut self, file: &SourceFile, len: usize) -> std::result::Result<usize, SourceError> {
        match self.pace {
            None => file.read_until(0, &mut self.buf[..len + 1], len.max(1)),
            Some(_) => self.read(file, 0, len + 1),
        }
    }

    /// A file that is read whole.
    fn small(&mut self, dir: &DirHandle, mut entry: Entry) -> Result<Done> {
        let file = match files::open(dir, &entry) {
            Ok(file) => file,
            Err(e) => return Ok(failed(&e)),
        };
        let mut misses = Vec::new();
        let mut changed = false;
        for attempt in 1.. {
            // Each time: what changed them changed the file's time, which is brought up to date below.
            (entry.xattrs, misses) = attributes(&file);
            if file.is_sparse() || entry.size() > WHOLE_BYTES_MAX {
                return self.alone(dir, entry);
            }
            let expected = Stamp::of(&entry);
            // One byte more than expected shows that it grew.
            let len = entry.size() as usize;
            self.buf.resize(self.buf.len().max(len + 1), 0);
            let read = self.read_file(&file, len);
            let (got, now) = match read.and_then(|got| Ok((got, file.stamp()?))) {
                Ok(both) => both,
                Err(e) => return Ok(failed(&e)),
            };
            self.progress.bytes_read.add(got as u64);
            changed = got != len || now != expected;
            if !changed || attempt == ATTEMPTS_MAX {
                self.content(&mut entry, got.min(len))?;
                break;
            }
            if let Err(e) = file.apply(&mut entry) {
                return Ok(failed(&e));
            }
        }
        Ok(Done { result: Ok(entry), items: None, read: true, misses, changed: changed.then(|| file.path()) })
    }

    /// Stores the first `len` bytes of the buffer as the content of a small file.
    fn content(&mut self, entry: &mut Entry, len: usize) -> Result<()> {
        entry.size = Some(len as u64);
        let plain = &self.buf[..len];
        if len == 0 {
            return Ok(());
        }
        if len <= INLINE_BYTES_MAX {
            entry.inline = Some(plain.to_vec().into());
            return Ok(());
        }
        let id = self.packer.chunk(plain)?;
        let mut list = Vec::with_capacity(crate::format::tree::ITEM_BYTES);
        push_item(&mut list, Item { id, len: len as u64 });
        entry.chunks = Some(list.into());
        Ok(())
    }

    /// A file of a batch that turned out to need turns: sparse, or it grew.
    fn alone(&mut self, dir: &DirHandle, entry: Entry) -> Result<Done> {
        let (pieces, out) = unbounded();
        let big = Big { dir: Arc::new(dir.try_clone().map_err(|e| e.lift())?), entry, open: Mutex::default(), pieces };
        self.big(&big)?;
        let mut list = Vec::new();
        let mut end = None;
        // One worker's pieces come in order.
        for piece in out.try_iter() {
            match piece {
                Piece::Items { items, .. } => list.extend(items),
                Piece::Restart => list.clear(),
                Piece::End(done) => end = Some(*done),
            }
        }
        let mut done = end.ok_or_else(|| Error::new(Kind::Cancelled, "interrupted"))?;
        done.items = Some(list);
        Ok(done)
    }

    /// Takes turns at a big file until it is done.
    fn big(&mut self, big: &Big) -> Result<()> {
        loop {
            self.cancel.check()?;
            let mut cuts = Vec::new();
            let seq = {
                let mut token = lock(&big.open);
                if token.cut_all || token.over {
                    return Ok(());
                }
                match self.cut(big, &mut token, &mut cuts) {
                    Ok(()) => {}
                    Err(e) => {
                        token.over = true;
                        let _ = big.pieces.send(Piece::End(Box::new(failed(&e))));
                        return Ok(());
                    }
                }
                token.busy += 1;
                token.seq += 1;
                token.seq - 1
            };
            let items = self.store(&cuts)?;
            if big.pieces.send(Piece::Items { seq, items }).is_err() {
                // The builder is gone: the run was given up, and nobody wants the rest.
                return Ok(());
            }
            let mut token = lock(&big.open);
            token.busy -= 1;
            if token.cut_all && token.busy == 0 && !token.over {
                self.end(big, &mut token);
            }
        }
    }

    /// Reads and cuts the next few chunks of a file; `cut_all` once its end is reached.
    fn cut(&mut self, big: &Big, token: &mut Token, cuts: &mut Vec<Cut>) -> std::result::Result<(), SourceError> {
        let file = match &token.file {
            Some(file) => Arc::clone(file),
            None => {
                let file = Arc::new(files::open(&big.dir, &big.entry)?);
                file.advise_sequential();
                token.begin(&file)?;
                file
            }
        };
        if token.seq == 0 && token.pos == 0 {
            token.layout = self.layout(&file, token.size)?;
        }
        while token.pos >= token.data_end {
            let next = if token.pos >= token.size {
                Extent::End
            } else if file.is_sparse() {
                file.extent(token.pos)?
            } else {
                Extent::Data { start: token.pos, end: token.size }
            };
            match next {
                Extent::End => {
                    token.cut_all = true;
                    return Ok(());
                }
                Extent::Hole { end, .. } => {
                    let end = end.min(token.size);
                    cuts.push(Cut::Hole(end - token.pos));
                    token.pos = end;
                    token.data_end = end;
                }
                Extent::Data { end, .. } => token.data_end = end.min(token.size),
            }
        }
        let most = token.layout.as_ref().map_or(READ_BYTES, |layout| layout.ahead(token.pos));
        let want = usize::try_from(token.data_end - token.pos).unwrap_or(usize::MAX).min(most);
        self.make_room(want);
        let got = self.read(&file, token.pos, want)?;
        if got == 0 {
            // Shorter than it was: what there was is all there is.
            token.cut_all = true;
            return Ok(());
        }
        let at_end = got < want || token.pos + got as u64 >= token.data_end;
        let mut done = 0;
        while let Some(len) = match &token.layout {
            Some(layout) => layout.next(token.pos + done as u64, got - done, at_end),
            None => self.cutter.next(&self.buf[done..got], at_end),
        } {
            cuts.push(Cut::Chunk(len));
            done += len;
        }
        debug_assert!(done > 0 || got < CUT_BYTES_MAX);
        self.progress.bytes_read.add(done as u64);
        self.progress.bytes_done.add(done as u64);
        token.pos += done as u64;
        if got < want {
            token.cut_all = true;
        }
        Ok(())
    }

    /// Where the tensors of a file lie, if it says so and is as long as it says.
    fn layout(&mut self, file: &SourceFile, size: u64) -> std::result::Result<Option<Layout>, SourceError> {
        self.make_room(MODEL_PROBE_BYTES);
        let got = self.read(file, 0, MODEL_PROBE_BYTES)?;
        let Some(len) = Layout::probe(&self.buf[..got], size) else { return Ok(None) };
        self.make_room(len);
        let got = self.read(file, 0, len)?;
        Ok(Layout::parse(&self.buf[..got], size))
    }

    fn make_room(&mut self, len: usize) {
        if self.buf.len() < len {
            self.buf.resize(READ_BYTES, 0);
        }
    }

    fn store(&mut self, cuts: &[Cut]) -> Result<Vec<Item>> {
        let mut at = 0;
        let mut items = Vec::with_capacity(cuts.len());
        for cut in cuts {
            items.push(match cut {
                Cut::Hole(len) => Item { id: ChunkId::HOLE, len: *len },
                Cut::Chunk(len) => {
                    self.cancel.check()?;
                    let id = self.packer.chunk(&self.buf[at..at + len])?;
                    at += len;
                    Item { id, len: *len as u64 }
                }
            });
        }
        Ok(items)
    }

    /// Everything was cut and stored: did the file stay the same meanwhile?
    fn end(&mut self, big: &Big, token: &mut Token) {
        let Some(file) = token.file.clone() else { return };
        let mut entry = big.entry.clone();
        // One look, both to compare and to keep: a change between two would pass for what was read.
        let now = file.apply(&mut entry).map(|()| Stamp::of(&entry));
        let changed = now.as_ref().is_ok_and(|now| Some(now) != token.expected.as_ref());
        if changed && token.attempt < ATTEMPTS_MAX && token.begin(&file).is_ok() {
            let _ = big.pieces.send(Piece::Restart);
            return;
        }
        token.over = true;
        let done = match now {
            Err(e) => failed(&e),
            Ok(_) => {
                let (xattrs, misses) = attributes(&file);
                entry.xattrs = xattrs;
                Done { result: Ok(entry), items: None, read: true, misses, changed: changed.then(|| file.path()) }
            }
        };
        let _ = big.pieces.send(Piece::End(Box::new(done)));
    }
}

impl Token {
    /// Begins, or begins anew.
    fn begin(&mut self, file: &Arc<SourceFile>) -> std::result::Result<(), SourceError> {
        let stamp = file.stamp()?;
        *self = Token {
            file: Some(Arc::clone(file)),
            size: stamp.size,
            expected: Some(stamp),
            attempt: self.attempt + 1,
            ..Token::default()
        };
        Ok(())
    }
}

fn attributes(file: &SourceFile) -> (Option<Vec<crate::format::tree::Xattr>>, Vec<Miss>) {
    match file.xattrs() {
        Ok(found) if found.is_empty() => (None, Vec::new()),
        Ok(found) => (Some(found), Vec::new()),
        Err(e) => (None, vec![miss(e.path.clone(), &e)]),
    }
}

fn failed(error: &SourceError) -> Done {
    Done { result: Err(miss(error.path.clone(), error)), items: None, read: true, misses: Vec::new(), changed: None }
}
