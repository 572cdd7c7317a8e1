//! The scheduler's memory on disk: one small file, replaced as a whole, and one program at a time.
//!
//! Nothing here is needed to restore anything: without the file the scheduler begins with the times of the newest
//! snapshots.

use super::job::JobId;
use super::memory::Memory;
use crate::base::TimeMs;
use crate::error::{Error, Kind, Result};
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// Largest file that is read.
const FILE_BYTES_MAX: u64 = 256 << 20;
const VERSION: u32 = 1;
const FILE: &str = "schedule.json";
const FILE_NEW: &str = "schedule.json.new";
const LOCK: &str = "daemon.lock";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u32,
    jobs: Vec<Entry>,
    /// BLAKE3 of `jobs` as text: a disk that lies is noticed.
    checksum: String,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    #[serde(flatten)]
    job: JobId,
    memory: Memory,
}

/// An entry as it is written: the same fields, borrowed.
#[derive(Serialize)]
struct Line<'m> {
    #[serde(flatten)]
    job: &'m JobId,
    memory: &'m Memory,
}

/// What was found on the disk.
#[derive(Debug)]
pub enum Found {
    /// The memory.
    Memory(BTreeMap<JobId, Memory>),
    /// None: the program was never here.
    Nothing,
    /// Something that cannot be used. It was set aside under this name.
    SetAside(PathBuf, String),
}

/// The folder with the scheduler's memory. While it is held, no other program can have it.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    _lock: OwnedFd,
}

impl StateDir {
    /// Takes the folder; makes it if it is missing.
    ///
    /// # Errors
    /// [`Kind::Refused`] when another program has it; [`Kind::Config`] when it cannot be used.
    pub fn take(path: &Path) -> Result<StateDir> {
        let failed = |e: std::io::Error| unusable(path, &e);
        let mut builder = std::fs::DirBuilder::new();
        std::os::unix::fs::DirBuilderExt::mode(builder.recursive(true), 0o700).create(path).map_err(failed)?;
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let lock = open(path.join(LOCK), flags, Mode::RUSR | Mode::WUSR).map_err(|e| failed(e.into()))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(StateDir { path: path.to_owned(), _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let e = Error::new(Kind::Refused, "another holdfast daemon uses this state folder");
                Err(e.at(path.display()).advise("stop it, or give this one another folder with --state"))
            }
            Err(e) => Err(failed(e.into())),
        }
    }

    /// Reads the memory. What cannot be used is set aside, not deleted.
    ///
    /// # Errors
    /// The disk cannot be read or written.
    pub fn load(&self, now: TimeMs) -> Result<Found> {
        let path = self.path.join(FILE);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Found::Nothing),
            Err(e) => return Err(unusable(&path, &e)),
        };
        let mut bytes = Vec::new();
        file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|e| unusable(&path, &e))?;
        match read(&bytes) {
            Ok(memory) => Ok(Found::Memory(memory)),
            Err(why) => {
                let aside = self.path.join(format!("{FILE}.bad-{}", now.0));
                std::fs::rename(&path, &aside).map_err(|e| unusable(&path, &e))?;
                Ok(Found::SetAside(aside, why))
            }
        }
    }

    /// Stores the memory: durable when it returns, and never half of it.
    ///
    /// # Errors
    /// The disk cannot be written.
    pub fn save(&self, memory: &BTreeMap<JobId, Memory>) -> Result<()> {
        let path = self.path.join(FILE_NEW);
        let parts = write(memory)?;
        let stored = (|| {
            let mut file = File::create(&path)?;
            parts.iter().try_for_each(|part| file.write_all(part.as_bytes()))?;
            file.sync_all()?;
            std::fs::rename(&path, self.path.join(FILE))?;
            File::open(&self.path)?.sync_all()
        })();
        stored.map_err(|e| unusable(&self.path, &e))
    }
}

/// A path that leads nowhere does not become right by trying again; a disk may.
fn unusable(path: &Path, e: &std::io::Error) -> Error {
    let kind = match e.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Kind::Full,
        ErrorKind::NotADirectory
        | ErrorKind::IsADirectory
        | ErrorKind::NotFound
        | ErrorKind::AlreadyExists
        | ErrorKind::PermissionDenied
        | ErrorKind::ReadOnlyFilesystem
        | ErrorKind::InvalidFilename
        | ErrorKind::InvalidInput => Kind::Config,
        _ if e.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => Kind::Config,
        _ => Kind::Retry,
    };
    Error::new(kind, format!("the state folder cannot be used: {e}")).at(path.display())
}

/// The document in parts; with many jobs it is large.
fn write(memory: &BTreeMap<JobId, Memory>) -> Result<[String; 3]> {
    let bug = |e: serde_json::Error| Error::new(Kind::Bug, format!("the schedule cannot be written: {e}"));
    let jobs: Vec<Line<'_>> = memory.iter().map(|(job, memory)| Line { job, memory }).collect();
    let jobs = serde_json::to_string(&jobs).map_err(bug)?;
    let checksum = blake3::hash(jobs.as_bytes()).to_hex();
    Ok([format!("{{\"version\":{VERSION},\"jobs\":"), jobs, format!(",\"checksum\":\"{checksum}\"}}")])
}

fn checksum(jobs: &[Entry]) -> serde_json::Result<String> {
    Ok(blake3::hash(serde_json::to_string(jobs)?.as_bytes()).to_hex().to_string())
}

fn read(bytes: &[u8]) -> std::result::Result<BTreeMap<JobId, Memory>, String> {
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("it has more than {FILE_BYTES_MAX} bytes"));
    }
    let document: Document = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    if document.version != VERSION {
        return Err(format!("its version is {}, this program knows {VERSION}", document.version));
    }
    if checksum(&document.jobs).map_err(|e| e.to_string())? != document.checksum {
        return Err("its checksum is wrong".into());
    }
    Ok(document.jobs.into_iter().map(|entry| (entry.job, entry.memory)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Task;

    fn memory() -> BTreeMap<JobId, Memory> {
        let id = |policy: &str| JobId { policy: policy.into(), kind: Task::Full };
        let one = Memory::new("0 2 * * * UTC".into(), TimeMs(1_798_761_600_000));
        BTreeMap::from([(id("a"), one.clone()), (id("b"), one)])
    }

    fn dir() -> (tempfile::TempDir, StateDir) {
        let temp = tempfile::TempDir::new().unwrap();
        let state = StateDir::take(&temp.path().join("deep/state")).unwrap();
        (temp, state)
    }

    #[test]
    fn what_is_saved_is_found() {
        let (_temp, state) = dir();
        assert!(matches!(state.load(TimeMs(0)).unwrap(), Found::Nothing));
        state.save(&memory()).unwrap();
        state.save(&memory()).unwrap();
        assert!(matches!(state.load(TimeMs(0)).unwrap(), Found::Memory(found) if found == memory()));
    }

    #[test]
    fn a_disk_that_is_full_is_no_mistake_of_the_configuration() {
        use rustix::io::Errno;
        let kind = |errno: Errno| unusable(Path::new("/state"), &errno.into()).kind();
        assert_eq!([Errno::NOSPC, Errno::DQUOT].map(kind), [Kind::Full; 2]);
        assert_eq!([Errno::IO, Errno::STALE, Errno::MFILE, Errno::NOMEM].map(kind), [Kind::Retry; 4]);
        let wrong = [Errno::NOTDIR, Errno::ACCESS, Errno::ROFS, Errno::LOOP, Errno::NAMETOOLONG];
        assert_eq!(wrong.map(kind), [Kind::Config; 5]);
    }

    #[test]
    fn the_folder_belongs_to_one() {
        let (_temp, state) = dir();
        let e = StateDir::take(&state.path).unwrap_err();
        assert_eq!(e.kind(), Kind::Refused, "{e}");
        let path = state.path.clone();
        drop(state);
        StateDir::take(&path).unwrap();
    }

    #[test]
    fn every_changed_byte_is_noticed_and_nothing_is_deleted() {
        let (_temp, state) = dir();
        state.save(&memory()).unwrap();
        let path = state.path.join(FILE);
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            std::fs::write(&path, &bytes).unwrap();
            let Found::SetAside(aside, _) = state.load(TimeMs(at as i64)).unwrap() else { panic!("byte {at}") };
            assert_eq!(std::fs::read(aside).unwrap(), bytes);
            assert!(matches!(state.load(TimeMs(0)).unwrap(), Found::Nothing));
        }
        for len in 0..whole.len() {
            assert!(read(&whole[..len]).is_err());
        }
    }
}
