//! Workers: read, cut, store. A job is a batch of small files or a hand at a big one (`super::big`).

use super::big::Big;
use super::build::{Builder, Built};
use super::hand::{ATTEMPTS_MAX, Worker, attributes, failed};
use super::object::opened;
use super::plan::{Planned, Planner, WHOLE_BYTES_MAX, Work};
use super::step::{Done, Piece, Step};
use crate::base::{Cancel, Pace, Progress};
use crate::chunk::Cutter;
use crate::error::{Error, Kind, Result};
use crate::format::envelope::Class;
use crate::format::tree::{Entry, INLINE_BYTES_MAX, Item, push_item};
use crate::model::recorded::Recorded;
use crate::ops::verdicts::attribute;
use crate::region::lock;
use crate::repo::Repo;
use crate::repo::writer::Writer;
use crate::source::any::{Dir, File};
use crate::source::files::{SourceError, Stamp};
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use std::sync::{Arc, Mutex};

/// How far the walk may run ahead of the tree.
const STEPS_AHEAD: usize = 64;
/// Pieces of one file that may wait for the tree.
const PIECES_AHEAD: usize = 64;
/// Files up to this are left to one worker.
const SHARED_BYTES_MIN: u64 = 32 << 20;

enum Job {
    Batch { dir: Dir, work: Vec<Work>, results: Sender<Vec<Done>> },
    Big(Arc<Big>),
}

/// What there is to work with.
pub(super) struct Means<'m> {
    pub(super) workers: usize,
    pub(super) progress: &'m Progress,
    pub(super) cancel: &'m Cancel,
    /// How fast files may be read.
    pub(super) pace: Option<&'m Pace>,
    /// Whether files are judged as models.
    pub(super) judges: bool,
}

/// Plans, works and builds.
pub(super) fn run(writer: &Writer<'_>, planner: &mut Planner<'_>, means: &Means<'_>, repo: &Repo) -> Result<Built> {
    let &Means { workers, progress, cancel, pace, judges } = means;
    let mut trees = writer.packer(Class::Tree);
    let (cutter, failed) = (Cutter::files(repo.gear_seed()), Mutex::new(None));
    let crew = Crew { writer, progress, cancel, pace, judges, cutter, failed };
    let result = {
        let mut builder = Builder::new(&mut trees, progress, judges);
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
    judges: bool,
    cutter: Cutter,
    failed: Mutex<Option<Error>>,
}

impl Crew<'_, '_> {
    fn worker(&self) -> Worker<'_, '_> {
        let packer = self.writer.packer(Class::Data);
        let (cutter, progress, cancel, pace) = (&self.cutter, self.progress, self.cancel, self.pace);
        Worker { packer, buf: Vec::new(), cutter, progress, cancel, pace, judges: self.judges }
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
            let big = Arc::new(Big::new(dir, *entry, pieces));
            (Step::Big(out), (0..hands).map(|_| Job::Big(Arc::clone(&big))).collect())
        }
    }
}

impl Worker<'_, '_> {
    fn job(&mut self, job: Job) -> Result<()> {
        match job {
            Job::Batch { dir, work, results } => {
                let mut all = Vec::with_capacity(work.len());
                // What is far away is asked for before it is needed.
                let mut objects = opened(&dir, &work).into_iter();
                for Work { entry, read } in work {
                    let object = objects.next().flatten();
                    self.cancel.check()?;
                    self.progress.bytes_done.add(entry.size());
                    all.push(match (read, object) {
                        (true, Some(object)) => self.object(&dir, &object, entry)?,
                        (true, None) => self.small(&dir, entry)?,
                        (false, _) => Done {
                            result: Ok(entry),
                            items: None,
                            read: false,
                            model: false,
                            misses: Vec::new(),
                            changed: None,
                        },
                    });
                }
                dir.gone().map_or(Ok(()), Err)?;
                // The builder is gone only when the run was given up.
                let _ = results.send(all);
                Ok(())
            }
            Job::Big(big) => {
                self.big(&big)?;
                big.gone().map_or(Ok(()), Err)
            }
        }
    }

    /// Fills the begin of the buffer from a file, as fast as is allowed; returns how much there was.
    fn read(&mut self, file: &File, offset: u64, len: usize) -> std::result::Result<usize, SourceError> {
        self.read_to(0, file, offset, len)
    }

    /// Fills the begin of the buffer with a whole file of so many bytes, and one more if it grew. Who is told that it ends
    /// there need not ask whether more follows.
    fn read_file(&mut self, file: &File, len: usize) -> std::result::Result<usize, SourceError> {
        match self.pace {
            None if let File::File(file) = file => file.read_until(0, &mut self.buf[..len + 1], len.max(1)),
            _ => self.read(file, 0, len + 1),
        }
    }

    /// A file that is read whole.
    fn small(&mut self, dir: &Dir, mut entry: Entry) -> Result<Done> {
        let file = match dir.open(&entry) {
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
                if self.judges {
                    attribute::put(&mut entry, &Recorded::of(&self.buf[..got.min(len)]));
                }
                break;
            }
            if let Err(e) = file.apply(&mut entry) {
                return Ok(failed(&e));
            }
        }
        Ok(Done {
            result: Ok(entry),
            items: None,
            read: true,
            model: false,
            misses,
            changed: changed.then(|| file.path()),
        })
    }

    /// Stores the first `len` bytes of the buffer as the content of a small file.
    pub(super) fn content(&mut self, entry: &mut Entry, len: usize) -> Result<()> {
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
    pub(super) fn alone(&mut self, dir: &Dir, entry: Entry) -> Result<Done> {
        let (pieces, out) = unbounded();
        let big = Big::new(dir.clone(), entry, pieces);
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
}
