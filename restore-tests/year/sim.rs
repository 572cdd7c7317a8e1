//! A clock that is moved by hand, also for what the stores say of their objects, and a fuse that ends a run in its
//! middle.

use holdfast::base::clock::Ambient;
use holdfast::base::{Env, TimeMs};
use holdfast::error::{Error, Kind, Result};
use std::collections::BTreeSet;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Folders of objects whose time means something.
const TIMED: [&str; 5] = ["snapshots", "sessions", "forgotten", "index", "runs"];

/// A folder, when it was last written to, and the files that were there.
type Seen = (PathBuf, Option<SystemTime>, BTreeSet<std::ffi::OsString>);

pub struct Sim {
    wall: AtomicI64,
    /// Random draws until the program is dead.
    fuse: AtomicI64,
    drawn: AtomicI64,
    seen: Mutex<Vec<Seen>>,
}

impl Sim {
    pub fn new(wall: i64, regions: &[PathBuf]) -> Sim {
        let folders = regions.iter().flat_map(|region| TIMED.map(|name| (region.join(name), None, BTreeSet::new())));
        Sim {
            wall: AtomicI64::new(wall),
            fuse: AtomicI64::new(i64::MAX),
            drawn: AtomicI64::new(0),
            seen: Mutex::new(folders.collect()),
        }
    }

    pub fn wall(&self) -> i64 {
        self.wall.load(Ordering::SeqCst)
    }

    pub fn move_to(&self, wall: i64) {
        self.wall.store(wall, Ordering::SeqCst);
    }

    /// From the `n`th random draw on (1 is the next) nothing can be sealed any more.
    pub fn light(&self, n: i64) {
        self.fuse.store(n, Ordering::SeqCst);
    }

    /// Random draws since this was last asked.
    pub fn draws(&self) -> i64 {
        self.drawn.swap(0, Ordering::SeqCst)
    }

    /// Whether the fuse has burnt down; it is put out.
    pub fn burnt(&self) -> bool {
        self.fuse.swap(i64::MAX, Ordering::SeqCst) <= 0
    }

    /// Gives every new object the simulated time, as a store of that time would.
    pub fn stamp(&self) {
        let time = UNIX_EPOCH + Duration::from_millis(self.wall().unsigned_abs());
        for (folder, at, names) in self.seen.lock().unwrap().iter_mut() {
            let Ok(modified) = folder.metadata().and_then(|meta| meta.modified()) else { continue };
            if *at == Some(modified) {
                continue;
            }
            for entry in std::fs::read_dir(&*folder).unwrap().flatten() {
                let name = entry.file_name();
                // Staged files are of no interest, and may be gone.
                if !names.contains(&name) && !name.to_string_lossy().contains('#') {
                    File::options().write(true).open(entry.path()).unwrap().set_modified(time).unwrap();
                    names.insert(name);
                }
            }
            *at = Some(modified);
        }
    }
}

impl Ambient for Sim {
    fn now(&self) -> TimeMs {
        self.stamp();
        TimeMs(self.wall())
    }

    fn steady(&self) -> i64 {
        self.wall()
    }

    fn random(&self, out: &mut [u8]) -> Result<()> {
        self.stamp();
        self.drawn.fetch_add(1, Ordering::SeqCst);
        if self.fuse.fetch_sub(1, Ordering::SeqCst) <= 1 {
            self.fuse.store(0, Ordering::SeqCst);
            return Err(Error::new(Kind::Bug, "dead"));
        }
        let fresh: Vec<u8> = std::iter::repeat_with(|| Env::system().random::<32>().unwrap())
            .take(out.len().div_ceil(32))
            .flatten()
            .collect();
        out.copy_from_slice(&fresh[..out.len()]);
        Ok(())
    }
}
