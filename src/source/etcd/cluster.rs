//! A live cluster: which member to ask, its snapshot to the last byte, and what the members say their keys hash to.
//!
//! One member is asked, and its word is taken for nothing: a stream counts once its end, its length and its hash are
//! right. A member that only learns, that has no leader, that is not in the cluster any more or that is behind the last
//! snapshot is not asked; the leader is asked where nobody else is left.

use super::calls::{self, Header, Part, Status};
use super::grpc::{Channel, Failed, Means, PATIENCE, tls};
use super::kv::alarm_name;
use super::scratch;
use crate::base::Cancel;
use crate::error::{Error, Kind, Result};
use futures_util::future::join_all;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::future::Future;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;

/// A snapshot ends with so many bytes of hash, behind pages of at least 512 bytes.
const HASH_BYTES: usize = 32;
const SECTOR_BYTES: u64 = 512;
/// How long a stream may be silent.
const SILENCE: Duration = Duration::from_secs(60);
/// Between two looks whether the run was interrupted.
const LOOK: Duration = Duration::from_millis(200);
/// Where no port is named.
const PORT: &str = "2379";

/// Members by their addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// `host:port`, each.
    pub endpoints: Vec<String>,
    /// Without TLS.
    pub plain: bool,
}

impl Address {
    /// Whether this names a cluster at all.
    pub fn is_one(text: &str) -> bool {
        text.starts_with("etcd://") || text.starts_with("etcd+http://")
    }

    /// `etcd://HOST[:PORT],…`, or `etcd+http://…` without TLS.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(text: &str) -> Result<Address> {
        let bad = |what| Error::new(Kind::Config, what).at(text).advise("etcd://HOST:2379,HOST:2379");
        let (plain, hosts) = match (text.strip_prefix("etcd://"), text.strip_prefix("etcd+http://")) {
            (Some(hosts), _) => (false, hosts),
            (_, Some(hosts)) => (true, hosts),
            _ => return Err(bad("no address of etcd")),
        };
        let mut endpoints = Vec::new();
        for host in hosts.trim_end_matches('/').split(',') {
            let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
            let open = host.starts_with('[') && !host.contains("]:");
            if host.is_empty() || host.contains(['/', '@', ' ', '?', '#']) {
                return Err(bad("no address of etcd"));
            }
            endpoints.push(if has_port && !open { host.to_owned() } else { format!("{host}:{PORT}") });
        }
        endpoints.sort();
        endpoints.dedup();
        Ok(Address { endpoints, plain })
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.plain { "etcd+http" } else { "etcd" };
        write!(f, "{scheme}://{}", self.endpoints.join(","))
    }
}

/// What is known of the source from before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Before {
    /// The cluster's id.
    pub cluster: Option<u64>,
    /// The revision of the last snapshot.
    pub revision: i64,
}

/// A member that answered.
struct Connected {
    channel: Channel,
    status: Status,
}

impl Connected {
    fn endpoint(&self) -> &str {
        self.channel.authority()
    }

    fn leads(&self) -> bool {
        self.status.leader == self.status.header.member
    }
}

/// A cluster that is connected to.
pub struct Cluster {
    pub(super) runtime: Runtime,
    members: Vec<Connected>,
    /// Who did not answer, and why.
    away: Vec<Error>,
    /// Members that the cluster has and nobody named.
    pub unnamed: Vec<String>,
}

/// A snapshot in a scratch file.
pub struct Snapshot {
    /// The database, without the hash behind it.
    pub file: File,
    /// Its bytes.
    pub bytes: u64,
    /// Who sent it.
    pub header: Header,
    /// Its address.
    pub endpoint: String,
    /// Version of its program.
    pub version: String,
}

/// What a member says its keys hash to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compared {
    /// This, compacted up to that revision.
    Hash(u32, i64),
    /// It cannot say, for this reason.
    Not(String),
}

impl Cluster {
    /// Connects to all members that are named.
    ///
    /// # Errors
    /// Nobody answers, they belong to different clusters or another than before, or the majority is lost.
    pub fn connect(address: &Address, means: &Means, before: Before, cancel: &Cancel) -> Result<Cluster> {
        let tls = tls(&Means { plain: address.plain, ..means.clone() })?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| Error::new(Kind::Bug, format!("no runtime: {}", e.kind())))?;
        let all = join_all(address.endpoints.iter().map(|endpoint| greet(endpoint, &tls, means)));
        let (mut members, mut away) = (Vec::new(), Vec::new());
        for (endpoint, answer) in address.endpoints.iter().zip(run(&runtime, cancel, all)?) {
            match answer {
                Ok(member) => members.push(member),
                Err(failed) => away.push(failed.at(endpoint)),
            }
        }
        let mut cluster = Cluster { runtime, members, away, unnamed: Vec::new() };
        cluster.judge(before)?;
        cluster.ask_members(cancel)?;
        Ok(cluster)
    }

    fn judge(&self, before: Before) -> Result<()> {
        let Some(first) = self.members.first() else {
            let none = || Error::new(Kind::Config, "no member is named");
            return Err(Error::all(self.away.clone()).unwrap_or_else(none));
        };
        let id = first.status.header.cluster;
        if let Some(other) = self.members.iter().find(|m| m.status.header.cluster != id) {
            let what =
                format!("these members belong to different clusters: {id:x} and {:x}", other.status.header.cluster);
            return Err(Error::new(Kind::Refused, what).at(format!("{}, {}", first.endpoint(), other.endpoint())));
        }
        if let Some(known) = before.cluster.filter(|known| *known != id) {
            let what = format!("this is another cluster than before: its id is {id:x}, it was {known:x}");
            return Err(Error::new(Kind::Refused, what)
                .at(first.endpoint())
                .advise("after a restore that is right: --new-cluster takes it; else see what is served there"));
        }
        if self.members.iter().all(|m| m.status.leader == 0) {
            return Err(Error::new(
                Kind::Retry,
                "no member that answers has a leader: the majority of the cluster is lost",
            )
            .at(first.endpoint())
            .advise("see docs/runbooks/etcd-lost.md"));
        }
        Ok(())
    }

    /// Leaves out who is not in the cluster any more, and notes whom nobody named.
    fn ask_members(&mut self, cancel: &Cancel) -> Result<()> {
        let Some(asked) = self.members.iter().find(|m| m.status.leader != 0) else { return Ok(()) };
        let Ok(listed) = run(&self.runtime, cancel, calls::members(&asked.channel))? else { return Ok(()) };
        if listed.is_empty() {
            return Ok(());
        }
        let gone = |m: &Connected| listed.iter().all(|l| l.id != m.status.header.member);
        let away = self
            .members
            .iter()
            .filter(|m| gone(m))
            .map(|m| Error::new(Kind::Source, "the member was removed from the cluster").at(m.endpoint()));
        self.away.extend(away);
        self.members.retain(|m| !gone(m));
        let named = |id: u64| self.members.iter().any(|m| m.status.header.member == id);
        self.unnamed = listed.iter().filter(|l| !named(l.id)).map(|l| l.name.clone()).collect();
        Ok(())
    }

    /// The cluster's id.
    pub fn id(&self) -> u64 {
        self.members.first().map_or(0, |m| m.status.header.cluster)
    }

    /// A member that can be asked for what a majority knows.
    pub(super) fn channel(&self) -> Result<&Channel> {
        let fit = self.members.iter().find(|m| m.status.leader != 0 && !m.status.learner);
        fit.map(|m| &m.channel).ok_or_else(|| Error::new(Kind::Retry, "no member that answers has a leader"))
    }

    /// The newest revision that a member knew when it was connected to.
    pub fn revision(&self) -> i64 {
        self.members.iter().map(|m| m.status.header.revision).max().unwrap_or_default()
    }

    /// Who did not answer, and why.
    pub fn away(&self) -> &[Error] {
        &self.away
    }

    /// Alarms that are raised, as texts.
    ///
    /// # Errors
    /// The run was interrupted.
    pub fn alarms(&self, cancel: &Cancel) -> Result<Vec<String>> {
        let Some(asked) = self.members.iter().find(|m| m.status.leader != 0) else { return Ok(Vec::new()) };
        let raised = run(&self.runtime, cancel, calls::alarms(&asked.channel))?;
        Ok(match raised {
            Ok(raised) => {
                raised.iter().map(|(member, kind)| format!("{} of member {member:x}", alarm_name(*kind))).collect()
            }
            Err(failed) => vec![format!("alarms are not known: {}", failed.message)],
        })
    }

    /// Who may be asked, the best first.
    fn order(&self, revision: i64) -> Vec<&Connected> {
        let fit = |m: &&Connected| !m.status.learner && m.status.leader != 0 && m.status.header.revision >= revision;
        let mut order: Vec<&Connected> = self.members.iter().filter(fit).collect();
        order.sort_by_key(|m| (m.leads(), std::cmp::Reverse(m.status.header.revision)));
        order
    }

    /// Streams the snapshot of one member into a scratch file; if a member goes away meanwhile, the next one's.
    ///
    /// # Errors
    /// No member is fit, or a stream is not what it should be.
    pub fn snapshot(&self, before: Before, dir: &Path, cancel: &Cancel) -> Result<Snapshot> {
        let order = self.order(before.revision);
        if order.is_empty() {
            let newest = self.members.iter().map(|m| m.status.header.revision).max().unwrap_or_default();
            let learns = self.members.iter().all(|m| m.status.learner);
            return Err(if learns {
                Error::new(Kind::Config, "the members that answer only learn; name one that votes")
            } else {
                let what =
                    format!("the members are behind the last snapshot: revision {newest}, it has {}", before.revision);
                Error::new(Kind::Refused, what)
                    .advise("a member was restored from an older state? --new-cluster takes it")
            });
        }
        let mut lost = Vec::new();
        for member in order {
            match run(&self.runtime, cancel, stream(member, self.id(), dir))? {
                Ok(snapshot) => return Ok(snapshot),
                Err(e) if e.kind() == Kind::Retry => lost.push(e),
                Err(e) => return Err(e),
            }
        }
        Err(Error::all(lost).unwrap_or_else(|| Error::new(Kind::Bug, "no member was asked")))
    }

    /// What the members say their keys hash to at a revision, each with its address.
    ///
    /// # Errors
    /// The run was interrupted.
    pub fn hashes(&self, revision: i64, cancel: &Cancel) -> Result<Vec<(String, Compared)>> {
        let voters = || self.members.iter().filter(|m| !m.status.learner);
        let all = join_all(voters().map(|m| hash(&m.channel, revision)));
        let answers = run(&self.runtime, cancel, all)?;
        let compared = |answer: std::result::Result<calls::Hash, Failed>| match answer {
            Ok(hash) => Compared::Hash(hash.hash, hash.compacted),
            Err(failed) => Compared::Not(failed.message),
        };
        Ok(voters().map(|m| m.endpoint().to_owned()).zip(answers.into_iter().map(compared)).collect())
    }
}

/// Runs to the end, or until somebody interrupts.
pub(super) fn run<T>(runtime: &Runtime, cancel: &Cancel, work: impl Future<Output = T>) -> Result<T> {
    runtime.block_on(async {
        let mut work = std::pin::pin!(work);
        loop {
            cancel.check()?;
            if let Ok(done) = tokio::time::timeout(LOOK, &mut work).await {
                return Ok(done);
            }
        }
    })
}

async fn greet(
    endpoint: &str,
    tls: &Option<Arc<rustls::ClientConfig>>,
    means: &Means,
) -> std::result::Result<Connected, Failed> {
    let greeted = async {
        let mut channel = Channel::connect(endpoint, tls.clone()).await?;
        if let Some((name, password)) = &means.user {
            let token = calls::authenticate(&channel, name, &password.0).await?;
            channel.authorize(token);
        }
        let status = calls::status(&channel).await?;
        Ok(Connected { channel, status })
    };
    let late = || Failed { code: super::grpc::UNAVAILABLE, message: "it takes too long".into() };
    tokio::time::timeout(PATIENCE, greeted).await.map_err(|_| late())?
}

/// A member's hash, once it has the revision: a follower may be a moment behind.
async fn hash(channel: &Channel, revision: i64) -> std::result::Result<calls::Hash, Failed> {
    let begin = tokio::time::Instant::now();
    loop {
        match calls::hash(channel, revision).await {
            Err(failed) if failed.message.contains("future revision") && begin.elapsed() < PATIENCE => {
                tokio::time::sleep(LOOK).await;
            }
            answer => return answer,
        }
    }
}

async fn stream(member: &Connected, cluster: u64, dir: &Path) -> Result<Snapshot> {
    let endpoint = member.endpoint();
    let mut taken = Taken::new(scratch::file(dir)?);
    let mut answers = member.channel.stream("Maintenance/Snapshot", &[]).await.map_err(|e| e.at(endpoint))?;
    let mut header = member.status.header;
    loop {
        let next = tokio::time::timeout(SILENCE, answers.next()).await;
        let next = next.map_err(|_| Error::new(Kind::Retry, "the stream of the snapshot is silent").at(endpoint))?;
        let Some(message) = next.map_err(|e| e.at(endpoint))? else { break };
        let part = Part::decode(&message).map_err(|e| e.at(endpoint))?;
        if part.header.cluster != 0 && part.header.cluster != cluster {
            return Err(Error::new(Kind::Refused, "the stream is of another cluster").at(endpoint));
        }
        if part.header.member != 0 {
            header = part.header;
        }
        taken.take(&part).map_err(|e| e.at(endpoint))?;
    }
    let (file, bytes) = taken.finish().map_err(|e| e.at(endpoint))?;
    Ok(Snapshot { file, bytes, header, endpoint: endpoint.to_owned(), version: member.status.version.clone() })
}

/// A stream on its way into a file: all but the last 32 bytes, which are the hash of the others.
struct Taken {
    out: BufWriter<File>,
    hash: Sha256,
    held: Vec<u8>,
    bytes: u64,
    /// What the member said would still come.
    remaining: Option<u64>,
}

impl Taken {
    fn new(file: File) -> Taken {
        let out = BufWriter::with_capacity(1 << 20, file);
        Taken { out, hash: Sha256::new(), held: Vec::new(), bytes: 0, remaining: None }
    }

    fn take(&mut self, part: &Part<'_>) -> Result<()> {
        let torn = || Error::new(Kind::Source, "the stream of the snapshot has a gap");
        // The hash in the end is not counted in what remains.
        if let Some(remaining) = self.remaining.filter(|remaining| *remaining > 0) {
            let left = remaining.checked_sub(part.blob.len() as u64).ok_or_else(torn)?;
            if left != part.remaining {
                return Err(torn());
            }
        }
        self.remaining = Some(part.remaining);
        self.held.extend_from_slice(part.blob);
        let ready = self.held.len().saturating_sub(HASH_BYTES);
        let sure = self.held.get(..ready).unwrap_or_default();
        self.hash.update(sure);
        self.out.write_all(sure).map_err(|e| {
            let kind = if e.kind() == std::io::ErrorKind::StorageFull { Kind::Full } else { Kind::Source };
            Error::new(kind, format!("cannot write the scratch file: {}", e.kind()))
                .advise("set TMPDIR to a directory with room for the database")
        })?;
        self.bytes += ready as u64;
        self.held.drain(..ready);
        Ok(())
    }

    fn finish(self) -> Result<(File, u64)> {
        let short = |what| Error::new(Kind::Retry, what);
        if self.remaining != Some(0) || self.held.len() != HASH_BYTES || self.bytes == 0 {
            return Err(short("the stream of the snapshot ended early"));
        }
        if !self.bytes.is_multiple_of(SECTOR_BYTES) {
            return Err(short("the stream of the snapshot has no whole number of pages"));
        }
        if self.hash.finalize()[..] != self.held[..] {
            return Err(Error::new(
                Kind::Source,
                "the snapshot does not have the hash that came with it: it was changed on its way",
            ));
        }
        let file = self.out.into_inner();
        Ok((
            file.map_err(|e| Error::new(Kind::Source, format!("cannot write the scratch file: {}", e.error().kind())))?,
            self.bytes,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let endpoints = |text: &str| Address::parse(text).map(|a| a.endpoints.join(" "));
        assert_eq!(endpoints("etcd://b:1,a").unwrap(), "a:2379 b:1");
        assert_eq!(endpoints("etcd://[::1]:4,[::2]/").unwrap(), "[::1]:4 [::2]:2379");
        let plain = Address::parse("etcd+http://a:1").unwrap();
        assert_eq!((plain.plain, plain.to_string()), (true, "etcd+http://a:1".into()));
        for bad in ["etcd://", "etcd://a,,b", "etcd://u@a", "http://a", "etcd://a/b"] {
            assert!(endpoints(bad).is_err(), "{bad}");
        }
    }

    fn blobs(total: usize, size: usize) -> Vec<Vec<u8>> {
        let body: Vec<u8> = (0..total).map(|n| n as u8).collect();
        let hash = Sha256::digest(&body).to_vec();
        body.chunks(size).map(<[u8]>::to_vec).chain([hash]).collect()
    }

    fn taken(blobs: &[Vec<u8>]) -> Result<u64> {
        let total: usize = blobs.iter().map(Vec::len).sum();
        let (mut taken, mut left) = (Taken::new(tempfile::tempfile().unwrap()), (total.saturating_sub(32)) as u64);
        for blob in blobs {
            left = left.saturating_sub(blob.len() as u64);
            taken.take(&Part { header: Header::default(), remaining: left, blob })?;
        }
        taken.finish().map(|(_, bytes)| bytes)
    }

    #[test]
    fn only_a_whole_stream_with_its_hash_is_a_snapshot() {
        for size in [1, 31, 32, 33, 512, 4096, 8192] {
            assert_eq!(taken(&blobs(8192, size)).unwrap(), 8192);
        }
        assert!(taken(&blobs(8191, 512)).is_err());
        assert!(taken(&[]).is_err() && taken(&[vec![0; 32]]).is_err());
        let whole = blobs(8192, 512);
        for cut in 0..whole.len() {
            assert!(taken(&whole[..cut]).is_err());
        }
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at][7] ^= 0x10;
            let error = taken(&changed).unwrap_err();
            assert!(error.what().contains("changed on its way"), "{error}");
        }
        let mut gap = Taken::new(tempfile::tempfile().unwrap());
        gap.take(&Part { header: Header::default(), remaining: 1000, blob: &[0; 10] }).unwrap();
        assert!(gap.take(&Part { header: Header::default(), remaining: 980, blob: &[0; 10] }).is_err());
    }
}
