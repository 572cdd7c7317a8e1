//! Programs of etcd's own: how they are found and called, and what they said.

use crate::base::child;
use crate::error::{Error, Kind, Result};
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

/// Of what a program printed so many characters are shown.
const SHOWN_CHARS: usize = 600;
/// Their settings in the environment begin so.
const VARIABLES: &str = "ETCD";

pub(super) fn failed(what: impl Into<String>) -> Error {
    Error::new(Kind::Source, what)
}

pub(super) fn missing(program: &str) -> Error {
    Error::new(Kind::Config, format!("there is no {program}"))
        .advise("put etcd's programs on PATH, or name their folder: --etcd-bin DIR")
}

/// The end of what was printed into a file.
pub(super) fn told(path: &Path) -> String {
    let text = std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let skipped = text.chars().count().saturating_sub(SHOWN_CHARS);
    text.chars().skip(skipped).filter(|c| !c.is_control() || *c == '\n').collect()
}

/// Which member of which new cluster a data folder is made for: what `etcdutl snapshot restore` is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// The member's name.
    pub name: String,
    /// All members: `NAME=URL,NAME=URL`.
    pub cluster: String,
    /// By which URLs the others reach this one.
    pub peers: String,
    /// What tells this cluster from others; `None`: etcd's default.
    pub token: Option<String>,
}

impl Membership {
    /// A member of a cluster, with the URLs that stand there for it.
    ///
    /// # Errors
    /// The cluster is no list of `NAME=URL`, or the name is not in it.
    pub fn of(name: &str, cluster: &str, token: Option<String>) -> Result<Membership> {
        let bad = |what: String| {
            Error::new(Kind::Config, what)
                .advise("name all members: --etcd-cluster node-1=https://10.0.0.11:2380,node-2=…")
        };
        let mut peers = Vec::new();
        for part in cluster.split(',') {
            let pair = part.split_once('=').filter(|(name, url)| !name.is_empty() && url.contains("://"));
            let (who, url) = pair.ok_or_else(|| bad(format!("{part:?} is not NAME=URL")))?;
            if who == name {
                peers.push(url);
            }
        }
        if peers.is_empty() {
            return Err(bad(format!("{name:?} is not among the members")));
        }
        Ok(Membership { name: name.into(), cluster: cluster.into(), peers: peers.join(","), token })
    }
}

/// A program of etcd's, at work in a folder, which knows nothing of how this one was called, and does not outlive the thread
/// that starts it. What it says goes into a file there.
pub(super) fn command(dir: &Path, folder: Option<&Path>, program: &str, output: &str) -> Result<Command> {
    let path = folder.map_or_else(|| PathBuf::from(program), |folder| folder.join(program));
    let file = |name: &str| File::create(dir.join(name)).map_err(|e| failed(format!("cannot write: {}", e.kind())));
    let log = file(output)?;
    let errors = log.try_clone().map_err(|e| failed(format!("cannot write: {}", e.kind())))?;
    let mut command = Command::new(path);
    let theirs =
        |key: &OsStr| key.to_string_lossy().starts_with(VARIABLES) || key.to_string_lossy().starts_with("HOLDFAST_");
    std::env::vars_os().map(|(key, _)| key).filter(|key| theirs(key)).for_each(|key| _ = command.env_remove(key));
    command.env("ETCDCTL_API", "3").current_dir(dir).process_group(0);
    command.stdin(Stdio::null()).stdout(log).stderr(errors);
    // In a group of its own it hears of no interrupt; and it has a copy of the database at work.
    child::end_with_this_one(&mut command);
    Ok(command)
}

/// Makes a data folder `data` in `dir` of a database, by the tool that there is: `etcdutl`, or `etcdctl` before 3.5.
///
/// # Errors
/// There is no such tool, or it does not take the file.
pub(super) fn unpack(
    file: &Path,
    member: &Membership,
    folder: Option<&Path>,
    (dir, data): (&Path, &str),
) -> Result<()> {
    const LOG: &str = "unpack.log";
    let absolute =
        |path: &Path| std::path::absolute(path).map_err(|e| failed(format!("cannot find the file: {}", e.kind())));
    let (file, folder) = (absolute(file)?, folder.map(absolute).transpose()?);
    let run = |program: &str| -> Result<Option<ExitStatus>> {
        let mut command = command(dir, folder.as_deref(), program, LOG)?;
        command.args(["snapshot", "restore"]).arg(&file).args(["--data-dir", data, "--name", &member.name]);
        command.args(["--initial-cluster", &member.cluster, "--initial-advertise-peer-urls", &member.peers]);
        member.token.as_ref().map(|token| command.args(["--initial-cluster-token", token]));
        match command.status() {
            Ok(status) => Ok(Some(status)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(failed(format!("{program} cannot be started: {}", e.kind()))),
        }
    };
    let status = match run("etcdutl")? {
        Some(status) => Some(status),
        None => run("etcdctl")?,
    };
    let status = status.ok_or_else(|| missing("etcdutl"))?;
    if status.success() {
        return Ok(());
    }
    Err(failed(format!("etcd's own tool does not take the file: {}", told(&dir.join(LOG)))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_printed_is_shown_by_its_end() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("log"), format!("begin{}\u{7}end", "x".repeat(2000))).unwrap();
        let shown = told(&dir.path().join("log"));
        assert!(shown.ends_with("xend") && shown.len() < 700, "{shown}");
        assert_eq!(told(&dir.path().join("none")), "");
    }

    #[test]
    fn a_member_is_one_of_its_cluster() {
        let all = "a=https://10.0.0.1:2380,b=https://10.0.0.2:2380,a=https://10.1.0.1:2380";
        let one = Membership::of("a", all, None).unwrap();
        assert_eq!(one.peers, "https://10.0.0.1:2380,https://10.1.0.1:2380");
        for (name, cluster) in
            [("c", all), ("a", "a"), ("a", "=https://x:1"), ("a", "a=10.0.0.1"), ("", all), ("a", "")]
        {
            assert_eq!(Membership::of(name, cluster, None).unwrap_err().kind(), Kind::Config, "{name} {cluster}");
        }
    }
}
