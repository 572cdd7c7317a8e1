//! Chunks that several workers see to ahead of time, and that are taken in the order in which they were asked for.
//!
//! Memory: whoever asks is held up by a queue of [`STEPS_AHEAD`] steps, each of which should ask for no more than
//! [`STEP_CHUNKS_MAX`] chunks, or about as many bytes as these have.

use crate::error::{Error, Kind, Result};
use crate::format::tree::Item;
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

/// Steps that wait to be taken.
const STEPS_AHEAD: usize = 8;
/// Chunks of one step.
pub(super) const STEP_CHUNKS_MAX: usize = 4;

/// A chunk that a worker is to see to.
pub(super) struct Job<A> {
    /// Which.
    pub(super) item: Item,
    answer: Sender<Result<A>>,
}

impl<A> Job<A> {
    /// Says what came of it.
    pub(super) fn answer(self, done: Result<A>) {
        // Nobody waits for it any more: the run was given up.
        let _ = self.answer.send(done);
    }
}

/// What will come of a chunk.
pub(super) struct Answer<A>(Receiver<Result<A>>);

impl<A> Answer<A> {
    /// What came of it, once it is there.
    pub(super) fn take(self) -> Result<A> {
        self.0.recv().unwrap_or_else(|_| Err(Error::new(Kind::Cancelled, "interrupted")))
    }
}

/// Where chunks are asked for.
pub(super) struct Asker<A>(Sender<Job<A>>);

impl<A> Asker<A> {
    /// Asks for a chunk.
    pub(super) fn ask(&self, item: Item) -> Answer<A> {
        let (answer, chunk) = bounded(1);
        // Workers that are gone answer nothing, which whoever waits is told.
        let _ = self.0.send(Job { item, answer });
        Answer(chunk)
    }
}

/// Runs `plan` on a thread of its own, which asks for chunks and hands on steps; `work` on several, which see to what is
/// asked for; and `take` on this one, which takes the steps in their order.
pub(super) fn run<A: Send, S: Send, P: Send, T>(
    workers: usize,
    work: impl Fn(&Receiver<Job<A>>) + Sync,
    plan: impl FnOnce(&Asker<A>, &Sender<S>) -> P + Send,
    take: impl FnOnce(&Receiver<S>) -> T,
) -> (Option<P>, T) {
    let (jobs, queue) = unbounded::<Job<A>>();
    let (steps, taken) = bounded(STEPS_AHEAD);
    let work = &work;
    std::thread::scope(|scope| {
        for _ in 0..workers.max(1) {
            let queue = queue.clone();
            scope.spawn(move || work(&queue));
        }
        drop(queue);
        let planner = scope.spawn(move || plan(&Asker(jobs), &steps));
        let done = take(&taken);
        // Where it ended early, this ends the planner, which ends the workers.
        drop(taken);
        (planner.join().ok(), done)
    })
}
