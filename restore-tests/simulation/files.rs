//! What is backed up: small trees whose files come from one stock of contents, so that sources share chunks; and the folders
//! of local state that outlive a death.

use super::rng::Rng;
use crate::harness::noise;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Different contents.
const STOCK: u64 = 40;

/// By path, what is in each file.
pub type Tree = BTreeMap<String, Vec<u8>>;

fn content(number: u64) -> Vec<u8> {
    let len = match number % 10 {
        0 => 70_000,
        1 => 200,
        n => 600 + 300 * n as usize,
    };
    noise(0x5eed_0000 + number, len)
}

/// Files of a source.
pub struct Source {
    pub folder: PathBuf,
    pub tree: Tree,
}

impl Source {
    pub fn new(folder: PathBuf) -> Source {
        Source { folder, tree: Tree::new() }
    }

    /// Changes so many files, and sets all times that changed to `now`.
    pub fn change(&mut self, rng: &mut Rng, changes: u64, now: i64) {
        for _ in 0..changes.max(u64::from(self.tree.is_empty())) {
            let path = format!("{}/{}", *rng.pick(&["a", "b"]), rng.below(5));
            let gone = rng.percent(20) && self.tree.len() > 1;
            let there = self.folder.join(&path);
            if gone {
                let path = rng.pick(&self.tree.keys().cloned().collect::<Vec<_>>()).clone();
                std::fs::remove_file(self.folder.join(&path)).expect("a file");
                self.tree.remove(&path);
                continue;
            }
            let bytes = content(rng.below(STOCK));
            std::fs::create_dir_all(there.parent().expect("a folder")).expect("a folder");
            std::fs::write(&there, &bytes).expect("a file");
            stamp(&there, now);
            self.tree.insert(path, bytes);
        }
        for folder in ["", "a", "b"].map(|name| self.folder.join(name)) {
            if folder.exists() {
                stamp(&folder, now);
            }
        }
    }
}

fn stamp(path: &Path, now: i64) {
    // Below what the clock's granularity may hide.
    let time = Timespec { tv_sec: now / 1000 - 10, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, path, &times, AtFlags::empty()).expect("times");
}

fn kept(folder: &Path) -> PathBuf {
    folder.with_extension("kept")
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).into_iter().flatten().flatten() {
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() { copy(&path, &to) } else { drop(std::fs::copy(&path, &to)) }
    }
}

/// A process dies: its folder as it is now is what it leaves behind.
pub fn keep_state(folder: &Path) {
    copy(folder, &kept(folder));
}

/// What a process left behind that died is there again, or nothing.
pub fn after_death(folder: &Path) {
    let _ = std::fs::remove_dir_all(folder);
    if kept(folder).exists() {
        std::fs::rename(kept(folder), folder).expect("a folder");
    }
}
