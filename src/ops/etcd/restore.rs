//! A database out of the repository, into a file that the tools of etcd take.
//!
//! It is written anew from its rows: at the newest or an earlier revision, and with the revision moved up if that is
//! wanted. It is made off-line; no server runs meanwhile, so no lease can expire on the way.

use super::ROWS;
use super::deltas::{Deltas, Known};
use crate::base::{Cancel, Progress, TimeMs};
use crate::error::{Error, Kind, Result};
use crate::format::snapshot::Manifest;
use crate::ops::{browse, tar};
use crate::repo::reader::Reader;
use crate::source::etcd::data_dir::DataDir;
use crate::source::etcd::new_file::NewFile;
use crate::source::etcd::rebuild::{Rebuilt, Wanted, rebuild};
use crate::source::etcd::table::Table;
use crate::source::etcd::tools::Membership;
use crate::source::etcd::trial::{Trial, trial};
use crate::source::scratch;
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

/// Bytes that are gathered before they are written.
const BUFFER_BYTES: usize = 1 << 20;

/// What comes of a restore.
#[derive(Debug, Clone)]
pub enum Goal {
    /// A new file, as etcd's tools take it.
    File(PathBuf),
    /// The data folder of a member, new or empty, made by etcd's own tool.
    DataDir(PathBuf, Membership),
}

/// What to make of a snapshot.
#[derive(Debug, Clone)]
pub struct EtcdRestore {
    /// The new file, or the data folder of a member.
    pub to: Goal,
    /// The newest revision to keep.
    pub revision: Option<i64>,
    /// Instead of a revision: what was known at this time.
    pub time: Option<TimeMs>,
    /// Move the revision up by so much.
    pub bump: Option<i64>,
    /// Whether to try it with a real etcd.
    pub check: bool,
    /// The folder of etcd's programs, if they are not on PATH.
    pub programs: Option<PathBuf>,
    /// Where scratch files go.
    pub scratch: PathBuf,
    /// Threads that read.
    pub workers: usize,
}

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdRestored {
    /// Bytes of the file.
    pub bytes: u64,
    /// What is in it.
    pub rebuilt: Rebuilt,
    /// When that was read of the cluster, if a time was asked for.
    pub known_at: Option<TimeMs>,
    /// What a real etcd said, if one was tried.
    pub trial: Option<Trial>,
}

fn failed(e: &std::io::Error) -> Error {
    let kind = if e.kind() == std::io::ErrorKind::StorageFull { Kind::Full } else { Kind::Source };
    Error::new(kind, format!("cannot write the database: {}", e.kind()))
}

/// Restores the database of a snapshot into a new file, or into the data folder of a member. What did not get everything has no
/// name, and does not stay.
///
/// # Errors
/// The file or folder has something in it or cannot be written, etcd's tool is missing, the revision is not in the snapshot, or no region has it intact.
pub fn restore(
    reader: &Reader,
    manifest: &Manifest,
    request: &EtcdRestore,
    (progress, cancel): (&Progress, &Cancel),
) -> Result<EtcdRestored> {
    if !super::is_one(manifest) {
        let what = format!("the snapshot is of {}, not of etcd", manifest.source.kind);
        return Err(Error::new(Kind::Config, what).advise("--target DIR restores it"));
    }
    let (claimed, to) = match &request.to {
        Goal::File(to) => (None, to.clone()),
        Goal::DataDir(dir, member) => {
            let claimed = DataDir::claim(dir)?;
            let to = claimed.database();
            (Some((claimed, member)), to)
        }
    };
    let made = database(reader, manifest, request, &to, (progress, cancel))?;
    if let Some((claimed, member)) = claimed {
        claimed.fill(member, request.programs.as_deref())?;
    }
    Ok(made)
}

fn database(
    reader: &Reader,
    manifest: &Manifest,
    request: &EtcdRestore,
    to: &Path,
    (progress, cancel): (&Progress, &Cancel),
) -> Result<EtcdRestored> {
    let new = NewFile::begin(to)?;
    let mut made = fill(reader, manifest, request, new.file(), (progress, cancel))?;
    new.finish()?;
    // A file that etcd does not come up on stays, to be looked at.
    let tried = request.check.then(|| trial(to, request.programs.as_deref(), &request.scratch, cancel));
    made.trial = tried.transpose().map_err(|e| e.at(to.display()))?;
    Ok(made)
}

fn fill(
    reader: &Reader,
    manifest: &Manifest,
    request: &EtcdRestore,
    out: &File,
    (progress, cancel): (&Progress, &Cancel),
) -> Result<EtcdRestored> {
    let entry = browse::find(reader, manifest, ROWS)?;
    let own = |file: &File| file.try_clone().map_err(|e| failed(&e));
    let rows = scratch::file(&request.scratch)?;
    let mut writer = BufWriter::with_capacity(BUFFER_BYTES, own(&rows)?);
    tar::content(reader, &entry, request.workers, &mut writer, (progress, cancel))?;
    drop(writer.into_inner().map_err(|e| failed(e.error()))?);
    let deltas = |revision| Deltas::open(reader, manifest, cancel).map(|deltas| deltas.up_to(revision));
    let Known { leases, until } = deltas(request.revision)?.known(request.time)?;
    let known_at = until.map(|(_, time)| time);
    let revision = request.revision.or(until.map(|(to, _)| to));
    let mut deltas = deltas(revision)?;
    let wanted = Wanted { revision, bump: request.bump, leases };
    let rebuilt = rebuild(&Table::open(rows)?, &wanted, &mut || deltas.next(), own(out)?, cancel)?;
    Ok(EtcdRestored { bytes: out.metadata().map(|m| m.len()).map_err(|e| failed(&e))?, rebuilt, known_at, trial: None })
}
