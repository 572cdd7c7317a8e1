//! The workers of a restore. The planner goes on reading the tree while they read packs and write files: one window
//! is gathered, and two are at work at most.

use super::Shared;
use super::window::{Hands, Link, Range, restore_range};
use crate::format::tree::Entry;
use crate::region::lock;
use crate::source::files::TargetDir;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex};

/// What is done when the ranges of a window are: links and the metadata of directories.
pub(super) struct Finish {
    pub(super) dirs: Vec<(Arc<TargetDir>, Entry, Vec<u8>)>,
    pub(super) links: Vec<Link>,
}

/// What is to be done.
#[derive(Default)]
struct Queue {
    /// Ranges, each with the number of its window.
    ranges: VecDeque<(u64, Range)>,
    /// Ranges of each window that are not done, of the oldest first.
    left: VecDeque<usize>,
    /// Number of the oldest.
    oldest: u64,
    closed: bool,
}

/// The workers, and the windows at work.
#[derive(Default)]
pub(super) struct Crew {
    queue: Mutex<Queue>,
    changed: Condvar,
}

/// A range at work: counted as done however it ends.
struct AtWork<'c>(&'c Crew, u64);

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        let mut queue = lock(&self.0.queue);
        let at = usize::try_from(self.1.saturating_sub(queue.oldest)).unwrap_or(usize::MAX);
        if let Some(left) = queue.left.get_mut(at) {
            *left = left.saturating_sub(1);
        }
        drop(queue);
        self.0.changed.notify_all();
    }
}

/// Closes the queue however the planner ends.
struct Closing<'c>(&'c Crew);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        lock(&self.0.queue).closed = true;
        self.0.changed.notify_all();
    }
}

impl Crew {
    /// Runs `plan` beside so many workers.
    pub(super) fn run<T>(&self, shared: &Shared<'_>, workers: usize, plan: impl FnOnce() -> T) -> T {
        std::thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| {
                    let mut hands = Hands::default();
                    while let Some((number, range)) = self.next() {
                        let _done = AtWork(self, number);
                        if !shared.cancel.raised() {
                            restore_range(shared, range, &mut hands);
                        }
                    }
                });
            }
            let _closing = Closing(self);
            plan()
        })
    }

    /// The next range; waits for one. `None` when there will be no more.
    fn next(&self) -> Option<(u64, Range)> {
        let mut queue = lock(&self.queue);
        loop {
            if let Some(range) = queue.ranges.pop_front() {
                return Some(range);
            }
            if queue.closed {
                return None;
            }
            queue = self.changed.wait(queue).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
    }

    /// Gives a window to the workers.
    pub(super) fn put(&self, ranges: Vec<Range>) {
        let mut queue = lock(&self.queue);
        let number = queue.oldest.saturating_add(queue.left.len() as u64);
        queue.left.push_back(ranges.len());
        queue.ranges.extend(ranges.into_iter().map(|range| (number, range)));
        drop(queue);
        self.changed.notify_all();
    }

    /// Waits until the oldest window is done.
    pub(super) fn wait(&self) {
        let mut queue = lock(&self.queue);
        while queue.left.front().is_some_and(|left| *left > 0) {
            queue = self.changed.wait(queue).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        if queue.left.pop_front().is_some() {
            queue.oldest = queue.oldest.saturating_add(1);
        }
    }
}
