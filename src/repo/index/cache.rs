//! The index on this machine: a folder of runs beside the catalog. Never the truth: a run holds what segments say,
//! whose names are hashes of what they say; which of them count is what the regions list now. Any file may be
//! deleted at any time. One that is not what this program sealed there is removed.
//!
//! Several processes may use one folder: a run is made under another name and renamed when it is whole, and never
//! changed; who has it open keeps it when somebody else merges it into a larger one.

use super::memory::Memory;
use super::run::{Cursor, Making, Plan, Raw, Run, SegmentLine};
use super::sealed::{self, Broken};
use crate::base::{Env, RepoId};
use crate::crypto::{Secret, kd};
use crate::region::lock;
use rustix::fs::{FlockOperation, OFlags, flock};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// More runs than this are merged.
const RUNS_MAX: usize = 6;
/// A run stays as it is while it has this many times the entries of all smaller ones.
const TIER: u64 = 8;
/// How often one looks again when a run went away in between.
const LOOKS_MAX: usize = 3;
/// A file younger than this may have just been made, and not be held yet, in seconds.
const STAGED_S: i64 = 60;
/// More files than this are not opened: this program never leaves as many.
const FILES_MAX: usize = 256;

/// The folder of one repository.
#[derive(Debug)]
pub struct Cache {
    folder: PathBuf,
    root: Secret<32>,
    env: Env,
    said: Mutex<Vec<String>>,
}

/// An open run and the name of its file.
#[derive(Debug)]
pub struct Kept {
    /// The run.
    pub run: Run,
    path: PathBuf,
}

/// Why runs could not be merged.
#[derive(Debug)]
pub enum Unmerged {
    /// This run is broken.
    Broken(usize),
    /// The new one cannot be written.
    Unwritable(io::Error),
}

impl From<io::Error> for Unmerged {
    fn from(e: io::Error) -> Unmerged {
        Unmerged::Unwritable(e)
    }
}

/// Which of the runs are to be one, given their sizes from the largest to the smallest: those from this one on.
fn to_merge(sizes: &[u64]) -> Option<usize> {
    if sizes.len() <= RUNS_MAX {
        return None;
    }
    let mut from = sizes.len() - 1;
    let mut sum = sizes[from];
    while from > 0 && (sizes.len() - from < 2 || sizes[from - 1] < sum.saturating_mul(TIER)) {
        from -= 1;
        sum = sum.saturating_add(sizes[from]);
    }
    Some(from)
}

fn folder_of(state: &Path, repo: &RepoId) -> PathBuf {
    state.join(format!("index-{repo}"))
}

fn identity(folder: &Path) -> Option<(u64, u64)> {
    folder.metadata().map(|meta| (meta.dev(), meta.ino())).ok()
}

fn clear(folder: &Path) {
    ["run-", "about-", "tree-"].iter().flat_map(|prefix| files(folder, prefix)).for_each(|path| remove(&path));
}

fn files(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let ours = entries.filter(|entry| entry.file_name().to_str().is_some_and(|name| name.starts_with(prefix)));
    ours.map(|entry| entry.path()).take(FILES_MAX).collect()
}

impl Cache {
    /// The cache below the folder `state`. Nothing is made before something is kept.
    pub fn new(state: &Path, repo: &RepoId, id_root: &Secret<32>, env: &Env) -> Cache {
        // Of those who can read the repository, nobody else: they could make us believe that a chunk is stored.
        let root = kd("index cache", &[id_root.bytes(), repo.bytes()]);
        Cache { folder: folder_of(state, repo), root, env: env.clone(), said: Mutex::default() }
    }

    /// What was to be said so far, once.
    pub fn remarks(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.said))
    }

    /// Takes note of something that the user should know.
    pub fn say(&self, what: impl Into<String>) {
        let (mut said, what) = (lock(&self.said), what.into());
        if !said.contains(&what) {
            said.push(what);
        }
    }

    /// Device and inode of the folder, which is made first if so wished: files that change with every run, and are
    /// worth nothing elsewhere, need no backup.
    pub fn identity(&self, make: bool) -> Option<(u64, u64)> {
        if make {
            self.make_folder().ok()?;
        }
        identity(&self.folder)
    }

    /// The same for a repository that is not open yet, if there is a folder for it.
    pub fn identity_of(state: &Path, repo: &RepoId) -> Option<(u64, u64)> {
        identity(&folder_of(state, repo))
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn make_folder(&self) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)
    }

    /// Removes everything that is kept for a repository; needs no key.
    pub fn discard(state: &Path, repo: &RepoId) {
        clear(&folder_of(state, repo));
    }

    /// Removes everything.
    pub fn clear(&self) {
        clear(&self.folder);
    }

    /// What [`Cache::write_file`] wrote under this name, if it is still that.
    pub fn read_file(&self, name: &str) -> Option<Vec<u8>> {
        let path = self.folder.join(format!("about-{name}"));
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32;
        let file = OpenOptions::new().read(true).custom_flags(flags).open(&path).ok()?;
        sealed::read_whole(&file, name, &self.root).or_else(|| {
            self.broken(&path);
            None
        })
    }

    /// Seals bytes into a file of this name, in place of the one before.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn write_file(&self, name: &str, bytes: Vec<u8>) -> io::Result<()> {
        let salt = self.env.random().map_err(io::Error::other)?;
        let path = self.folder.join(format!("about-{name}"));
        self.write_as(&path, |file| sealed::write_whole(file, name, &self.root, salt, bytes))
    }

    /// Writes a file under another name, and gives it its own when it is whole.
    pub(super) fn write_as(&self, path: &Path, write: impl FnOnce(&File) -> io::Result<()>) -> io::Result<()> {
        self.make_folder()?;
        self.sweep();
        let random: [u8; 8] = self.env.random().map_err(io::Error::other)?;
        let staged = self.folder.join(format!("new-{:016x}", u64::from_le_bytes(random)));
        let written = self.stage(&staged).and_then(|file| {
            write(&file)?;
            std::fs::rename(&staged, path)
        });
        written.inspect_err(|_| remove(&staged))
    }

    /// A new file, held as long as it is open: what nobody holds was left by a dead process.
    fn stage(&self, staged: &Path) -> io::Result<File> {
        let file = OpenOptions::new().create_new(true).read(true).write(true).mode(0o600).open(staged)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(file)
    }

    fn files(&self, prefix: &str) -> Vec<PathBuf> {
        files(&self.folder, prefix)
    }

    /// Opens all runs, the largest first.
    pub fn runs(&self) -> Vec<Kept> {
        for _ in 1..LOOKS_MAX {
            if let Ok(runs) = self.look() {
                return runs;
            }
        }
        self.look().unwrap_or_default()
    }

    /// # Errors
    /// A run went away: somebody merged it, and another has what was in it.
    fn look(&self) -> io::Result<Vec<Kept>> {
        let mut runs = Vec::new();
        for path in self.files("run-") {
            let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
            match OpenOptions::new().read(true).custom_flags(flags as i32).open(&path) {
                Ok(file) => match Run::open(file, &self.root) {
                    Ok(run) => runs.push(Kept { run, path }),
                    Err(Broken) => self.broken(&path),
                },
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(e),
                Err(_) => self.broken(&path),
            }
        }
        runs.sort_by(|a, b| (b.run.entries, &a.path).cmp(&(a.run.entries, &b.path)));
        Ok(runs)
    }

    fn broken(&self, path: &Path) {
        self.say("the local index was damaged; what was damaged is read from the regions again");
        remove(path);
    }

    /// Takes a run out of use that turned out to be broken.
    pub fn drop_broken(&self, kept: &Kept) {
        self.broken(&kept.path);
    }

    /// Makes a run of segments in memory.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn keep(&self, lines: &[SegmentLine], memory: &Memory) -> io::Result<Kept> {
        let mut plan = Plan::default();
        lines.iter().for_each(|line| _ = plan.segment(line));
        memory.packs().for_each(|(segment, pack)| _ = plan.pack(segment, pack));
        self.make(plan, |making| memory.sorted().try_for_each(|raw| making.entry(&raw)))
    }

    fn make<E: From<io::Error>>(&self, plan: Plan, fill: impl FnOnce(&mut Making) -> Result<(), E>) -> Result<Kept, E> {
        self.make_folder()?;
        self.sweep();
        let name: [u8; 8] = self.env.random().map_err(io::Error::other)?;
        let salt = self.env.random().map_err(io::Error::other)?;
        let name = format!("{:016x}", u64::from_le_bytes(name));
        let staged = self.folder.join(format!("new-{name}"));
        let made = self.fill(&staged, salt, plan, fill);
        if made.is_err() {
            remove(&staged);
        }
        let run = made?;
        let path = self.folder.join(format!("run-{name}"));
        match std::fs::rename(&staged, &path) {
            Ok(()) => Ok(Kept { run, path }),
            Err(e) => {
                remove(&staged);
                Err(e.into())
            }
        }
    }

    fn fill<E: From<io::Error>>(
        &self,
        staged: &Path,
        salt: [u8; 32],
        plan: Plan,
        fill: impl FnOnce(&mut Making) -> Result<(), E>,
    ) -> Result<Run, E> {
        let mut making = Making::begin(self.stage(staged)?, &self.root, salt, plan)?;
        fill(&mut making)?;
        let file = making.finish()?;
        Run::open(file, &self.root).map_err(|Broken| io::Error::other("it does not hold what was written").into())
    }

    /// Removes what dead processes left half-written: old, and held by nobody.
    fn sweep(&self) {
        let before = self.env.now().0 / 1000 - STAGED_S;
        let dead = |file: File| {
            file.metadata().is_ok_and(|meta| meta.mtime() < before)
                && flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()
        };
        for path in self.files("new-") {
            if File::open(&path).is_ok_and(dead) {
                remove(&path);
            }
        }
    }

    /// Merges runs if there are too many, or if most of one is of no use; `wanted` says which segments are. Returns
    /// the new one and the number of the first that it replaces: it and all smaller ones.
    ///
    /// # Errors
    /// A run is broken, or the new one cannot be written.
    pub fn tidy(&self, runs: &[Kept], wanted: &[Vec<bool>]) -> Result<Option<(usize, Kept)>, Unmerged> {
        let sizes: Vec<u64> = runs.iter().map(|kept| kept.run.entries).collect();
        let stale = |(kept, wanted): (&Kept, &Vec<bool>)| {
            let of_use = kept.run.segments.iter().zip(wanted).filter(|(_, wanted)| **wanted);
            of_use.map(|(line, _)| u64::from(line.entries)).sum::<u64>() < kept.run.entries / 2
        };
        let stale = runs.iter().zip(wanted).position(stale);
        let Some(from) = [to_merge(&sizes), stale].into_iter().flatten().min() else { return Ok(None) };
        let turn = self.folder.join("lock");
        let turn = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(turn)?;
        // Somebody else is at it.
        if flock(&turn, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Ok(None);
        }
        let merged = self.merge(&runs[from..], &wanted[from..]).map_err(|e| match e {
            Unmerged::Broken(n) => Unmerged::Broken(from + n),
            other => other,
        })?;
        runs[from..].iter().for_each(|kept| remove(&kept.path));
        Ok(Some((from, merged)))
    }

    fn merge(&self, runs: &[Kept], wanted: &[Vec<bool>]) -> Result<Kept, Unmerged> {
        let mut plan = Plan::default();
        let mut numbers = Vec::new();
        for (n, (kept, wanted)) in runs.iter().zip(wanted).enumerate() {
            numbers.push(plan_of(&kept.run, wanted, &mut plan).map_err(|Broken| Unmerged::Broken(n))?);
        }
        let cursors: Vec<Cursor<'_>> = runs.iter().map(|kept| kept.run.cursor()).collect();
        self.make(plan, |making| weave(cursors, &numbers, making))
    }
}

/// Adds the wanted segments of a run to a plan; returns the new number of each of its packs.
fn plan_of(run: &Run, wanted: &[bool], plan: &mut Plan) -> Result<Vec<Option<u32>>, Broken> {
    let mut numbers = Vec::with_capacity(run.packs as usize);
    for (line, wanted) in run.segments.iter().zip(wanted) {
        let segment = wanted.then(|| plan.segment(line));
        for _ in 0..line.packs {
            let (_, pack) = run.pack(numbers.len() as u32)?;
            numbers.push(segment.map(|segment| plan.pack(segment, &pack)));
        }
    }
    Ok(numbers)
}

/// Puts the entries of several runs in one order.
fn weave(mut cursors: Vec<Cursor<'_>>, numbers: &[Vec<Option<u32>>], making: &mut Making) -> Result<(), Unmerged> {
    loop {
        let mut least: Option<(usize, Raw)> = None;
        for (n, cursor) in cursors.iter_mut().enumerate() {
            let Some(raw) = cursor.peek().map_err(|Broken| Unmerged::Broken(n))? else { continue };
            if least.as_ref().is_none_or(|(_, least)| raw[..32] < least[..32]) {
                least = Some((n, *raw));
            }
        }
        let Some((n, mut raw)) = least else { return Ok(()) };
        cursors[n].advance();
        let pack = raw[32..].first_chunk().map_or(0, |pack| u32::from_le_bytes(*pack));
        if let Some(pack) = numbers[n].get(pack as usize).copied().flatten() {
            raw[32..36].copy_from_slice(&pack.to_le_bytes());
            making.entry(&raw)?;
        }
    }
}

/// It may be gone already, or its folder not ours to write: then it is found again, and found wrong again.
fn remove(path: &Path) {
    let _ = std::fs::remove_file(path);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_runs_stay_and_many_are_merged_from_the_smallest_on() {
        assert_eq!(to_merge(&[100, 10, 1, 1, 1, 1]), None);
        assert_eq!(to_merge(&[1000, 1, 1, 1, 1, 1, 1]), Some(1));
        assert_eq!(to_merge(&[8_000_000, 500_000, 60_000, 7000, 800, 90, 10]), Some(5));
        assert_eq!(to_merge(&[1, 1, 1, 1, 1, 1, 1]), Some(0));
        // However small the new ones are, there are never more than so many runs.
        let mut sizes = vec![100_000_000u64];
        let mut written = 0;
        for _ in 0..10_000 {
            sizes.push(1000);
            sizes.sort_unstable_by(|a, b| b.cmp(a));
            while let Some(from) = to_merge(&sizes) {
                let sum: u64 = sizes.drain(from..).sum();
                written += sum;
                sizes.push(sum);
            }
            assert!(sizes.len() <= RUNS_MAX);
        }
        assert!(written < 10_000_000 * 40, "{written}");
    }
}
