//! A real etcd on a restored database, for a moment: whether it comes up, and what it says of its keys.
//!
//! It works on a copy, in a folder of its own, and listens on sockets in there that nobody but this user can reach: what
//! is in a database is not for everybody on the machine.

use super::bolt::{Bolt, Builder};
use super::calls;
use super::grpc::{Channel, Failed};
use super::kv::{AUTH, AUTH_ENABLED, LEASES, strange};
use super::proto::Fields;
use super::rebuild::seal;
use super::survey::survey;
use super::tools::{self, Membership, failed, missing, told};
use crate::base::Cancel;
use crate::error::{Error, Kind, Result};
use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

/// How long an etcd may take to come up: it reads the whole database.
const UP_WITHIN: Duration = Duration::from_secs(300);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);
/// Folders that are tried.
const TRIES: u32 = 64;
/// Its sockets, named as etcd wants addresses.
const CLIENT: &str = "client:1";
const PEER: &str = "unix://peer:1";
/// A lease of less is prolonged by etcd when it comes up (`minLeaseTTL`, of its election timeout), seconds.
const LEASE_LEAST_S: i64 = 5;

/// What an etcd said that came up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trial {
    /// Its version.
    pub version: String,
    /// Its newest revision.
    pub revision: i64,
    /// Keys that it has: as many as the file.
    pub keys: u64,
    /// What they hash to, the same as those of the file; etcd 3.4 does not say it of a revision that is compacted.
    pub hash: Option<u32>,
    /// Leases that it has, each with the seconds of the file.
    pub leases: u64,
}

/// A folder that is removed in the end, with the program that is at work in it.
struct Place {
    dir: PathBuf,
    child: Option<Child>,
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It may have ended by itself; what is left of the folder is told by nobody, but it is only its owner's.
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn place(scratch: &Path) -> Result<Place> {
    for n in 0..TRIES {
        let dir = scratch.join(format!("holdfast-etcd-{}-{n}", std::process::id()));
        match DirBuilder::new().mode(0o700).create(&dir) {
            Ok(()) => return Ok(Place { dir, child: None }),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(failed(format!("cannot make a folder: {}", e.kind())).at(scratch.display())),
        }
    }
    Err(failed("cannot make a folder: all names are taken").at(scratch.display()))
}

impl Place {
    /// The same database in a file here, but for one pair: no user is asked for. The trial has none, and its socket is
    /// reached by nobody else.
    fn for_nobody(&self, bolt: &Bolt<File>) -> Result<PathBuf> {
        let path = self.dir.join("for-nobody.db");
        let made = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path);
        let made = made.map_err(|e| failed(format!("cannot make a file: {}", e.kind())).at(self.dir.display()))?;
        let mut out = Builder::new(made, bolt.page_size())?;
        for (name, tree) in bolt.buckets()? {
            out.bucket(&name)?;
            let mut cursor = bolt.cursor(&tree);
            while let Some(element) = cursor.next()? {
                let is_auth = name == AUTH && element.key == AUTH_ENABLED;
                out.put(element.key, if is_auth { &[0] } else { element.value })?;
            }
        }
        seal(out.finish()?).map(|()| path)
    }

    /// Makes a data folder of the file, by the tool that there is.
    fn unpack(&self, file: &Path, folder: Option<&Path>) -> Result<()> {
        let member =
            Membership { name: "trial".into(), cluster: format!("trial={PEER}"), peers: PEER.into(), token: None };
        tools::unpack(file, &member, folder, (&self.dir, "data"))
    }

    fn start(&mut self, folder: Option<&Path>) -> Result<()> {
        let client = format!("unix://{CLIENT}");
        let mut command = tools::command(&self.dir, folder, "etcd", "etcd.log")?;
        command.args(["--name", "trial", "--data-dir", "data", "--listen-client-urls", &client]);
        command.args(["--advertise-client-urls", &client, "--listen-peer-urls", PEER]);
        command.args(["--initial-advertise-peer-urls", PEER, "--initial-cluster", &format!("trial={PEER}")]);
        self.child = Some(command.spawn().map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => missing("etcd"),
            kind => failed(format!("etcd cannot be started: {kind}")),
        })?);
        Ok(())
    }

    /// Fails if the program ended.
    fn lives(&mut self) -> Result<()> {
        let ended = self.child.as_mut().map(Child::try_wait).transpose();
        match ended.map_err(|e| failed(format!("its end is not known: {}", e.kind())))?.flatten() {
            Some(_) => {
                Err(failed(format!("etcd does not come up on the database: {}", told(&self.dir.join("etcd.log")))))
            }
            None => Ok(()),
        }
    }
}

/// What an etcd says: how it is, how many keys it has, and what they hash to.
type Said = (calls::Status, u64, Option<calls::Hash>);

async fn ask(socket: &Path) -> std::result::Result<Said, Failed> {
    let channel = Channel::local(socket).await?;
    let status = calls::status(&channel).await?;
    let count = calls::count(&channel).await?;
    let hash = match calls::hash(&channel, status.header.revision).await {
        Err(failed) if failed.message.contains("compacted") => None,
        hash => Some(hash?),
    };
    Ok((status, count, hash))
}

/// Leases of a database, with the seconds that each was granted for.
fn leases(bolt: &Bolt<File>) -> Result<Vec<(i64, i64)>> {
    let mut all = Vec::new();
    let Some(tree) = bolt.bucket(LEASES)? else { return Ok(all) };
    let mut cursor = bolt.cursor(&tree);
    while let Some(element) = cursor.next()? {
        let (mut id, mut seconds) = (0, 0);
        for field in Fields::of(element.value) {
            match field.map_err(|_| strange("a lease is none"))? {
                (1, value) => id = value.signed(),
                (2, value) => seconds = value.signed(),
                _ => {}
            }
        }
        all.push((id, seconds));
    }
    Ok(all)
}

/// Whether an etcd has a lease as the file has it, so long after it was started. A short one may have ended since.
fn is_same_lease(seconds: i64, granted: i64, since: Duration) -> bool {
    let least = seconds.max(LEASE_LEAST_S);
    let may_have_ended = u64::try_from(least).is_ok_and(|least| since.as_secs() >= least);
    granted == seconds || (seconds..=least).contains(&granted) || (granted <= 0 && may_have_ended)
}

/// Starts an etcd on a copy of a restored database and compares what it says with what the file holds. Programs are taken
/// from a folder, or from PATH.
///
/// # Errors
/// There is no such program, it does not come up, or it has other keys or another revision than the file.
pub fn trial(file: &Path, folder: Option<&Path>, scratch: &Path, cancel: &Cancel) -> Result<Trial> {
    let input = File::open(file).map_err(|e| failed(format!("cannot read: {}", e.kind())).at(file.display()))?;
    let bolt = Bolt::open(input)?;
    let survey = survey(&bolt, scratch, cancel)?;
    let mut place = place(scratch)?;
    if survey.facts.notes.auth {
        place.unpack(&place.for_nobody(&bolt)?, folder)?;
    } else {
        place.unpack(file, folder)?;
    }
    place.start(folder)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Error::new(Kind::Bug, format!("no runtime: {}", e.kind())))?;
    let (socket, begin) = (place.dir.join(CLIENT), Instant::now());
    let (status, count, hash) = loop {
        cancel.wait(LOOK)?;
        place.lives()?;
        match runtime.block_on(ask(&socket)) {
            Ok(said) if said.0.leader != 0 => break said,
            _ if begin.elapsed() < UP_WITHIN => {}
            Ok(_) => return Err(failed("etcd came up on the database, and has no leader")),
            Err(e) => return Err(failed(format!("etcd does not answer: {}", e.message))),
        }
    };
    let (wanted, found) = (survey.facts.revision, status.header.revision);
    if wanted != found {
        return Err(failed(format!("etcd came up at revision {found}, and the database is at {wanted}")));
    }
    if count != survey.facts.keys {
        return Err(failed(format!("etcd has {count} keys, and the database {}", survey.facts.keys)));
    }
    if let Some(hash) = hash.filter(|_| count > 0) {
        let ours = survey.hashes(&bolt, hash.compacted, cancel)?;
        if !ours.contains(&hash.hash) {
            let what = format!("the keys of the database hash to {:08x}, those of etcd to {:08x}", ours[0], hash.hash);
            return Err(failed(what));
        }
    }
    let leases = leases(&bolt)?;
    let said = |e: Failed| failed(format!("etcd does not answer: {}", e.message));
    let channel = runtime.block_on(Channel::local(&socket)).map_err(said)?;
    for (id, seconds) in &leases {
        cancel.check()?;
        let granted = runtime.block_on(calls::granted(&channel, *id)).map_err(said)?;
        if !is_same_lease(*seconds, granted, begin.elapsed()) {
            let what = format!("lease {id:x} is of {seconds} seconds in the database, and of {granted} in etcd");
            return Err(failed(what));
        }
    }
    let (version, hash) = (status.version, hash.map(|hash| hash.hash));
    Ok(Trial { version, revision: found, keys: count, hash, leases: leases.len() as u64 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_are_the_same_by_their_seconds() {
        let same = |seconds, granted, since| is_same_lease(seconds, granted, Duration::from_secs(since));
        assert!(same(60, 60, 0) && same(1, 2, 0) && same(60, 0, 60) && same(1, -1, 5));
        assert!(!same(60, 59, 0) && !same(60, 61, 90) && !same(60, 0, 59) && !same(1, 6, 9) && !same(1, 0, 4));
    }

    #[test]
    fn a_folder_is_its_owners_and_does_not_stay() {
        use std::os::unix::fs::PermissionsExt;
        let scratch = tempfile::tempdir().unwrap();
        let (one, other) = (place(scratch.path()).unwrap(), place(scratch.path()).unwrap());
        assert_ne!(one.dir, other.dir);
        assert_eq!(std::fs::metadata(&one.dir).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(one.unpack(Path::new("none"), Some(scratch.path())).unwrap_err().kind(), Kind::Config);
        drop((one, other));
        assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0);
    }
}
