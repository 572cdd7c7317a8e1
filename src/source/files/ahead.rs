//! A walk on a thread of its own, ahead of who takes its events.
//!
//! It may begin before anybody is ready to take them, while a key is derived for one. How far it goes ahead is bounded, in
//! events (memory) and in directories (each is held open until its last file was read). Who loses interest drops it: then
//! it ends at its next step. A walk that ends before its root does gives no more events, and is never taken for complete.

use super::descriptors;
use super::walk::{Event, Walker};
use crate::format::tree::Entry;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Events that are handed over at once: fewer, and the two threads wait for each other.
const CHUNK_EVENTS: usize = 256;
/// Most events that wait, of some 200 bytes each; those with long paths or attributes count as several.
const EVENTS_MAX: usize = 1 << 16;
/// So many bytes beside it count as one event more.
const EVENT_BYTES: usize = 256;
/// Most directories that wait, where so many can be open.
const DIRS_MAX: usize = 1 << 14;

/// Events of a walk, in their order.
#[derive(Debug)]
pub enum Walk {
    /// Each step is taken when it is asked for.
    Here(Box<Walker>),
    /// Steps are taken ahead.
    Ahead(Ahead),
}

impl Walk {
    /// The next step; `None` at the end.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Option<Event> {
        match self {
            Walk::Here(walker) => walker.next(),
            Walk::Ahead(ahead) => ahead.next(),
        }
    }
}

/// A walk that goes on by itself.
#[derive(Debug)]
pub struct Ahead {
    shared: Arc<Shared>,
    taken: VecDeque<Event>,
}

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    chunks: VecDeque<Chunk>,
    events: usize,
    dirs: usize,
    /// Nothing more will come.
    over: bool,
    /// Nobody takes anything more.
    unwanted: bool,
}

#[derive(Debug, Default)]
struct Chunk {
    events: Vec<Event>,
    /// What they count as.
    weight: usize,
    entered: usize,
    left: usize,
}

impl Chunk {
    /// How many directories it keeps open, at most.
    fn dirs(&self) -> usize {
        self.entered.max(self.left) + 1
    }
}

/// How far a walk may go ahead.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    events: usize,
    dirs: usize,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'w>(&self, waiting: MutexGuard<'w, Waiting>) -> MutexGuard<'w, Waiting> {
        self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a chunk where it is taken from, once there is room; whether anybody wants more.
    fn put(&self, chunk: Chunk, bounds: Bounds) -> bool {
        let (events, dirs) = (chunk.weight, chunk.dirs());
        let mut waiting = self.lock();
        // One chunk always has room: what was taken may be kept until the next step is seen.
        while !waiting.unwanted
            && !waiting.chunks.is_empty()
            && (waiting.events + events > bounds.events || waiting.dirs + dirs > bounds.dirs)
        {
            waiting = self.wait(waiting);
        }
        waiting.events += events;
        waiting.dirs += dirs;
        waiting.chunks.push_back(chunk);
        self.changed.notify_all();
        !waiting.unwanted
    }

    fn take(&self) -> Option<Chunk> {
        let mut waiting = self.lock();
        loop {
            if let Some(chunk) = waiting.chunks.pop_front() {
                waiting.events -= chunk.weight;
                waiting.dirs -= chunk.dirs();
                self.changed.notify_all();
                return Some(chunk);
            }
            if waiting.over {
                return None;
            }
            waiting = self.wait(waiting);
        }
    }
}

/// Says that nothing more comes, however the walk ends.
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.lock().over = true;
        self.0.changed.notify_all();
    }
}

impl Ahead {
    /// Begins. Where no thread can be had, the steps are taken when they are asked for.
    pub fn start(walker: Walker) -> Walk {
        // The other half is for what the process has open beside: its regions, and files that are read.
        let bounds = Bounds { events: EVENTS_MAX, dirs: (descriptors() / 2).min(DIRS_MAX) };
        Ahead::within(walker, bounds)
    }

    fn within(walker: Walker, bounds: Bounds) -> Walk {
        let shared = Arc::new(Shared::default());
        // Behind a lock, so that it is still there if there is no thread.
        let walker = Arc::new(Mutex::new(Some(walker)));
        let (theirs, taken) = (Arc::clone(&shared), Arc::clone(&walker));
        let begun = std::thread::Builder::new().name("walk".into()).spawn(move || {
            let ending = Ending(theirs);
            let walker = taken.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(mut walker) = walker {
                run(&mut walker, &ending.0, bounds);
            }
        });
        let left = if begun.is_err() { walker.lock().unwrap_or_else(PoisonError::into_inner).take() } else { None };
        match left {
            Some(walker) => Walk::Here(Box::new(walker)),
            None => Walk::Ahead(Ahead { shared, taken: VecDeque::new() }),
        }
    }

    fn next(&mut self) -> Option<Event> {
        while self.taken.is_empty() {
            self.taken = self.shared.take()?.events.into();
        }
        self.taken.pop_front()
    }
}

impl Drop for Ahead {
    /// It is not waited for: a directory of a network that is stuck may hold it for ever.
    fn drop(&mut self) {
        let mut waiting = self.shared.lock();
        waiting.unwanted = true;
        waiting.chunks.clear();
        self.shared.changed.notify_all();
    }
}

/// Bytes that an event has beside itself, about.
fn bytes_of(event: &Event) -> usize {
    let of = |entry: &Entry| {
        let attributes = entry.xattrs.iter().flatten().map(|x| x.name.len() + x.value.len()).sum::<usize>();
        attributes + entry.name.len()
    };
    match event {
        Event::Enter { entry, .. } | Event::Item { entry, .. } => of(entry),
        Event::Failed { path, .. } => path.len().saturating_mul(2),
        Event::File { .. } | Event::Leave | Event::Excluded => 0,
    }
}

fn run(walker: &mut Walker, shared: &Shared, bounds: Bounds) {
    let mut chunk = Chunk::default();
    while let Some(event) = walker.next() {
        match &event {
            Event::Enter { .. } => chunk.entered += 1,
            Event::Leave => chunk.left += 1,
            _ => {}
        }
        chunk.weight += 1 + bytes_of(&event) / EVENT_BYTES;
        chunk.events.push(event);
        if (chunk.weight >= CHUNK_EVENTS || chunk.dirs() >= bounds.dirs / 4)
            && !shared.put(std::mem::take(&mut chunk), bounds)
        {
            return;
        }
    }
    shared.put(chunk, bounds);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::files::WalkOptions;
    use std::path::Path;

    /// Directories in and beside each other, with files.
    fn tree(root: &Path) {
        for n in 0..200 {
            let dir = root.join(format!("{n:03}/a/b"));
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(dir.join("x"), b"").unwrap();
            std::fs::write(root.join(format!("{n:03}/y")), b"").unwrap();
        }
        std::fs::create_dir(root.join("wide")).unwrap();
        (0..3000).for_each(|n| std::fs::write(root.join(format!("wide/{n}")), b"").unwrap());
    }

    fn told(event: &Event) -> String {
        match event {
            Event::Enter { entry, .. } => format!("+{:?}", entry.name),
            Event::File { found, .. } => format!("{:?}", found.name()),
            other => format!("{other:?}"),
        }
    }

    fn walker(root: &Path) -> Walker {
        Walker::new(&[root.to_path_buf()], WalkOptions::default()).unwrap()
    }

    #[test]
    fn it_says_the_same_and_keeps_within_its_bounds() {
        let dir = tempfile::tempdir().unwrap();
        tree(dir.path());
        let mut plain = walker(dir.path());
        let expected: Vec<String> = std::iter::from_fn(|| plain.next()).map(|event| told(&event)).collect();
        for bounds in
            [Bounds { events: 1, dirs: 1 }, Bounds { events: 600, dirs: 16 }, Bounds { events: 1 << 20, dirs: 1 << 20 }]
        {
            let Walk::Ahead(mut ahead) = Ahead::within(walker(dir.path()), bounds) else { panic!("no thread") };
            let mut found = Vec::new();
            while let Some(event) = ahead.next() {
                found.push(told(&event));
                let waiting = ahead.shared.lock();
                // One chunk may wait in any case.
                assert!(waiting.chunks.len() <= 1 || (waiting.events <= bounds.events && waiting.dirs <= bounds.dirs));
            }
            assert!(found == expected, "{bounds:?}");
        }
    }

    #[test]
    fn it_ends_when_nobody_wants_it_any_more() {
        let dir = tempfile::tempdir().unwrap();
        tree(dir.path());
        let Walk::Ahead(mut ahead) = Ahead::within(walker(dir.path()), Bounds { events: 300, dirs: 8 }) else {
            panic!("no thread")
        };
        assert!(ahead.next().is_some());
        let shared = Arc::downgrade(&ahead.shared);
        drop(ahead);
        // The suite's time limit is the measure: the thread lets go of it at its end.
        while shared.upgrade().is_some() {
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_walk_that_dies_is_not_taken_for_complete() {
        let shared = Arc::new(Shared::default());
        let mut ahead = Ahead { shared: Arc::clone(&shared), taken: VecDeque::new() };
        drop(Ending(shared));
        assert!(ahead.next().is_none(), "and the root was not left");
    }
}
