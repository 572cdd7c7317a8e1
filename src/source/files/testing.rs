//! Files whose metadata follows from what a test sets: change times and inodes are the kernel's, and would make every run of
//! a simulation another one.

use crate::format::tree::Entry;
use std::cell::Cell;

thread_local! {
    static SETTLED: Cell<bool> = const { Cell::new(false) };
}

/// From now on, on this thread, change times are modification times, and inodes and file systems have the number 1.
pub fn settle_here() {
    SETTLED.set(true);
}

pub(super) fn settled() -> bool {
    SETTLED.get()
}

pub(super) fn settle(entry: &mut Entry) {
    if settled() {
        (entry.ctime_s, entry.ctime_ns, entry.inode) = (entry.mtime_s, entry.mtime_ns, 1);
    }
}
