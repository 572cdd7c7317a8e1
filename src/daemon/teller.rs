//! Telling beside the runs: whoever is slow to take an alert keeps no run from ending and none from starting, and the
//! daemon from stopping only as long as runs at work may.
//!
//! What is to be told of one policy is told in order. There are few threads, only while there is something to tell, and
//! what waits is bounded: a receiver that is gone for days must not fill the memory.

use std::collections::{BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Most that is told at the same time.
const THREADS_MAX: usize = 8;
/// Most that waits, in all.
const WAITING_MAX: usize = 1000;
/// Most that waits of one policy.
const WAITING_OF_ONE_MAX: usize = 16;

/// Something to be told.
pub type Errand = Box<dyn FnOnce() + Send>;

/// Tells.
#[derive(Clone, Default)]
pub struct Teller(Arc<Mutex<Queue>>);

#[derive(Default)]
struct Queue {
    waiting: VecDeque<(String, Errand)>,
    /// Policies of which something is being told.
    busy: BTreeSet<String>,
    threads: usize,
}

impl Teller {
    /// Nothing to tell yet.
    pub fn new() -> Teller {
        Teller::default()
    }

    /// Has something told of a policy, behind what is still to be told of it.
    ///
    /// # Errors
    /// It is not told, in words: too much waits already, or there is no thread for it.
    pub fn tell(&self, policy: &str, errand: Errand) -> Result<(), String> {
        let mut queue = self.lock();
        let of_one = queue.waiting.iter().filter(|(of, _)| of == policy).count();
        if of_one >= WAITING_OF_ONE_MAX || queue.waiting.len() >= WAITING_MAX {
            return Err(format!("{} wait to be told already, {of_one} of them of this policy", queue.waiting.len()));
        }
        queue.waiting.push_back((policy.to_owned(), errand));
        if queue.threads < THREADS_MAX && !queue.busy.contains(policy) {
            let teller = self.clone();
            match std::thread::Builder::new().spawn(move || teller.work()) {
                Ok(_) => queue.threads += 1,
                // Those that there are come to it.
                Err(_) if queue.threads > 0 => {}
                Err(e) => {
                    queue.waiting.pop_back();
                    return Err(format!("no thread can be started: {e}"));
                }
            }
        }
        Ok(())
    }

    /// Whether everything is told.
    pub fn idle(&self) -> bool {
        let queue = self.lock();
        queue.waiting.is_empty() && queue.busy.is_empty()
    }

    /// Tells until there is nothing that this thread could tell.
    fn work(&self) {
        while let Some((policy, errand)) = self.next() {
            // A mistake in one must not keep the others from being told.
            let _ = catch_unwind(AssertUnwindSafe(errand));
            self.lock().busy.remove(&policy);
        }
    }

    fn next(&self) -> Option<(String, Errand)> {
        let mut queue = self.lock();
        let ready = queue.waiting.iter().position(|(policy, _)| !queue.busy.contains(policy));
        let next = ready.and_then(|at| queue.waiting.remove(at));
        match &next {
            Some((policy, _)) => drop(queue.busy.insert(policy.clone())),
            // Whoever is busy with the policies of those that wait comes to them.
            None => queue.threads = queue.threads.saturating_sub(1),
        }
        next
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::{bounded, unbounded};

    #[test]
    fn of_one_policy_in_order_and_nobody_waits_for_another() {
        let teller = Teller::new();
        let (go, gate) = bounded::<()>(0);
        let (said, heard) = unbounded();
        let errand = |word: String, gate: Option<crossbeam_channel::Receiver<()>>| -> Errand {
            let said = said.clone();
            Box::new(move || {
                let _ = gate.map(|gate| gate.recv());
                said.send(word).unwrap();
            })
        };
        teller.tell("slow", errand("slow 0".into(), Some(gate))).unwrap();
        for n in 1..4 {
            teller.tell("slow", errand(format!("slow {n}"), None)).unwrap();
            teller.tell("quick", errand(format!("quick {n}"), None)).unwrap();
        }
        let quick: Vec<String> = heard.iter().take(3).collect();
        assert_eq!(quick, ["quick 1", "quick 2", "quick 3"]);
        assert!(!teller.idle());
        go.send(()).unwrap();
        let slow: Vec<String> = heard.iter().take(4).collect();
        assert_eq!(slow, ["slow 0", "slow 1", "slow 2", "slow 3"]);
        while !teller.idle() {
            std::thread::yield_now();
        }
    }

    #[test]
    fn what_waits_and_who_tells_is_bounded_and_a_panic_ends_nothing() {
        let teller = Teller::new();
        let (go, gate) = bounded::<()>(0);
        let held = |gate: &crossbeam_channel::Receiver<()>| -> Errand {
            let gate = gate.clone();
            Box::new(move || {
                let _ = gate.recv();
            })
        };
        teller.tell("panics", Box::new(|| panic!("a mistake"))).unwrap();
        for n in 0..THREADS_MAX * 4 {
            teller.tell(&format!("policy-{n}"), held(&gate)).unwrap();
        }
        assert!(teller.lock().threads <= THREADS_MAX);
        let taken = (0..100).filter(|_| teller.tell("one", held(&gate)).is_ok()).count();
        assert_eq!(taken, WAITING_OF_ONE_MAX);
        let refused = (0..WAITING_MAX).find_map(|n| teller.tell(&format!("more-{n}"), held(&gate)).err());
        assert!(refused.is_some_and(|why| why.contains("wait to be told already")));
        drop(go);
        while !teller.idle() {
            std::thread::yield_now();
        }
        let (said, heard) = bounded(1);
        teller.tell("panics", Box::new(move || said.send(()).unwrap())).unwrap();
        heard.recv().unwrap();
    }
}
