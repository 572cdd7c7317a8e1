//! A live cluster: which member to ask, its snapshot to the last byte, and what the members say their keys hash to.
//!
//! One member is asked, and its word is taken for nothing: a stream counts once its end, its length and its hash are
//! right. A member that only learns, that has no leader, that is not in the cluster any more or that is behind the last
//! snapshot is not asked; the leader is asked where nobody else is left.

use super::calls::{self, Header, Part, Status};
use super::grpc::{Channel, Failed, Means, OUT_OF_RANGE, PATIENCE, SILENCE, tls};
use super::kv::{CORRUPT, alarm_name};
use super::taken::Taken;
use crate::base::Cancel;
use crate::error::{Error, Kind, Result};
use crate::source::scratch;
use futures_util::future::join_all;
use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs::File;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;

/// So many bytes must come in the time in which it may be silent.
const BYTES_PER_SILENCE: u64 = 1 << 20;
/// Between two looks whether the run was interrupted.
const LOOK: Duration = Duration::from_millis(200);
/// Where no port is named.
const PORT: &str = "2379";

/// What is said instead of alarms if nobody can be asked.
pub const UNKNOWN_ALARMS: &str = "alarms are not known";

/// Members by their addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// `host:port`, each.
    pub endpoints: Vec<String>,
    /// Without TLS.
    pub plain: bool,
    /// TLS 1.2 will do.
    pub older_tls: bool,
}

/// What allows TLS 1.2, as in a region's URL.
const OLDER_TLS: &str = "?tls=1.2";

impl Address {
    /// Whether this names a cluster at all.
    pub fn is_one(text: &str) -> bool {
        text.starts_with("etcd://") || text.starts_with("etcd+http://")
    }

    /// `etcd://HOST[:PORT],…`, or `etcd+http://…` without TLS. With `?tls=1.2` behind it members are taken that know no TLS 1.3.
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
        let (hosts, older_tls) = hosts.strip_suffix(OLDER_TLS).map_or((hosts, false), |hosts| (hosts, true));
        if plain && older_tls {
            return Err(bad("a version of TLS, and no TLS"));
        }
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
        Ok(Address { endpoints, plain, older_tls })
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.plain { "etcd+http" } else { "etcd" };
        let tls = if self.older_tls { OLDER_TLS } else { "" };
        write!(f, "{scheme}://{}{tls}", self.endpoints.join(","))
    }
}

/// What is known of the source from before.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Before {
    /// The cluster's id.
    pub cluster: Option<u64>,
    /// The revision of the last snapshot.
    pub revision: i64,
    /// Members, by their ids, that had other keys than the last snapshot.
    pub doubted: BTreeSet<u64>,
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
    /// Ids of all members that the cluster has; none if it could not be asked.
    listed: BTreeSet<u64>,
    /// Those of them that vote; or of those that answer, if it could not be asked.
    voters: BTreeSet<u64>,
    /// Whether a user was named and a member asks for none.
    pub asks_for_no_user: bool,
    /// Members whose data an alarm calls corrupt, or that had other keys before.
    doubted: BTreeSet<u64>,
    /// The member that answered last for the majority.
    chosen: Cell<Option<u64>>,
}

/// A snapshot in a scratch file.
pub struct Snapshot {
    /// The database, without the hash behind it.
    pub file: File,
    /// Its bytes.
    pub bytes: u64,
    /// It has this revision at least.
    pub newest: i64,
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
    pub fn connect(address: &Address, means: &Means, before: &Before, cancel: &Cancel) -> Result<Cluster> {
        if address.plain && means.user.is_some() && !address.endpoints.iter().all(|endpoint| is_here(endpoint)) {
            let what = "a password is not sent without TLS";
            return Err(Error::new(Kind::Config, what).at(address).advise("use etcd://, with --etcd-ca"));
        }
        let tls = tls(&Means { plain: address.plain, older_tls: address.older_tls, ..means.clone() })?;
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
        let (listed, doubted, chosen) = (BTreeSet::new(), before.doubted.clone(), Cell::new(None));
        let voters = members.iter().filter(|m| !m.status.learner).map(|m| m.status.header.member).collect();
        let unnamed = Vec::new();
        let mut cluster =
            Cluster { runtime, members, away, unnamed, listed, voters, asks_for_no_user: false, doubted, chosen };
        cluster.judge(before)?;
        cluster.ask_members(cancel)?;
        // Those that are no members any more may say something else.
        cluster.asks_for_no_user = means.user.is_some() && cluster.members.iter().any(|m| !m.channel.has_user());
        Ok(cluster)
    }

    fn judge(&self, before: &Before) -> Result<()> {
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

    /// The first answer of a member that has a leader, to what each of them could say. One that broke off does not keep the
    /// others from saying it.
    fn first<T>(
        &self,
        cancel: &Cancel,
        ask: impl AsyncFn(&Channel) -> std::result::Result<T, Failed>,
    ) -> Result<std::result::Result<T, Option<Failed>>> {
        let mut unknown = None;
        for asked in self.members.iter().filter(|m| m.status.leader != 0) {
            match run(&self.runtime, cancel, ask(&asked.channel))? {
                Ok(said) => return Ok(Ok(said)),
                Err(failed) => unknown = unknown.or(Some(failed)),
            }
        }
        Ok(Err(unknown))
    }

    /// Leaves out who is not in the cluster any more, and notes whom nobody named.
    fn ask_members(&mut self, cancel: &Cancel) -> Result<()> {
        if let Ok(alarms) = self.first(cancel, calls::alarms)? {
            self.doubted.extend(alarms.iter().filter(|(_, kind)| alarm_name(*kind) == CORRUPT).map(|(id, _)| *id));
        }
        let Ok(listed) = self.first(cancel, listed)? else { return Ok(()) };
        let gone = |m: &Connected| listed.iter().all(|l| l.id != m.status.header.member);
        let away = self
            .members
            .iter()
            .filter(|m| gone(m))
            .map(|m| Error::new(Kind::Source, "the member was removed from the cluster").at(m.endpoint()));
        self.away.extend(away);
        self.members.retain(|m| !gone(m));
        self.listed = listed.iter().map(|l| l.id).collect();
        self.voters = listed.iter().filter(|l| !l.learner).map(|l| l.id).collect();
        let named = |id: u64| self.members.iter().any(|m| m.status.header.member == id);
        self.unnamed = listed.iter().filter(|l| !named(l.id)).map(|l| l.name.clone()).collect();
        Ok(())
    }

    /// The cluster's id.
    pub fn id(&self) -> u64 {
        self.members.first().map_or(0, |m| m.status.header.cluster)
    }

    /// Whether the cluster has such a member, as far as it could be asked.
    pub fn may_have(&self, member: u64) -> bool {
        self.listed.is_empty() || self.listed.contains(&member)
    }

    /// How many members vote.
    pub fn voters(&self) -> usize {
        self.voters.len()
    }

    /// Members that can be asked for what a majority knows, in the order of their addresses. Who is called corrupt or
    /// had other keys than the last snapshot is none of them: what it says is another history.
    fn fit(&self) -> impl Iterator<Item = &Connected> {
        let doubted = |m: &Connected| self.doubted.contains(&m.status.header.member);
        self.members.iter().filter(move |m| m.status.leader != 0 && !m.status.learner && !doubted(m))
    }

    /// Whether there is one.
    pub fn has_fit(&self) -> bool {
        self.fit().next().is_some()
    }

    /// The one that is asked.
    fn asked(&self) -> Result<&Connected> {
        let chosen = self.members.iter().find(|m| self.chosen.get() == Some(m.status.header.member));
        chosen.or_else(|| self.fit().next()).ok_or_else(|| self.nobody())
    }

    fn nobody(&self) -> Error {
        if self.members.iter().any(|m| m.status.leader != 0 && !m.status.learner) {
            let what = "each member that answers is called corrupt, or had other keys than the last snapshot";
            return Error::new(Kind::Source, what);
        }
        Error::new(Kind::Retry, "no member that answers has a leader")
    }

    /// A member that can be asked for what a majority knows.
    pub(super) fn channel(&self) -> Result<&Channel> {
        self.asked().map(|m| &m.channel)
    }

    /// The id and the address of the member that is asked.
    ///
    /// # Errors
    /// There is none that could be.
    pub fn asks(&self) -> Result<(u64, String)> {
        self.asked().map(|m| (m.status.header.member, m.endpoint().to_owned()))
    }

    /// The newest revision there is, by the word of a majority, through a member that has it. A member that is cut off
    /// from the others, or far behind, does not answer; who does is asked from now on.
    ///
    /// # Errors
    /// No member answers for a majority.
    pub fn newest(&self, cancel: &Cancel) -> Result<i64> {
        let mut lost = Vec::new();
        for member in self.fit() {
            match run(&self.runtime, cancel, calls::newest(&member.channel))? {
                Ok(revision) => {
                    self.chosen.set(Some(member.status.header.member));
                    return Ok(revision);
                }
                Err(failed) => lost.push(failed.at(member.endpoint())),
            }
        }
        Err(Error::all(lost).unwrap_or_else(|| self.nobody()))
    }

    /// Whether the member that is asked was not compacted beyond a revision yet.
    ///
    /// # Errors
    /// It does not answer.
    pub fn has(&self, revision: i64, cancel: &Cancel) -> Result<bool> {
        let channel = self.channel()?;
        run(&self.runtime, cancel, calls::has(channel, revision))?.map_err(|e| e.at(channel.authority()))
    }

    /// The value of a key and the revision that changed it last, if it is there.
    ///
    /// # Errors
    /// No member answers, or no majority does.
    pub fn get(&self, key: &[u8], cancel: &Cancel) -> Result<Option<(Vec<u8>, i64)>> {
        let channel = self.channel()?;
        run(&self.runtime, cancel, calls::get(channel, key))?.map_err(|e| e.at(channel.authority()))
    }

    /// A key as the member that is asked had it at a revision, as etcd's message; `None` where it was not there.
    ///
    /// # Errors
    /// It does not answer, or has compacted the revision.
    pub fn at(&self, key: &[u8], revision: i64, cancel: &Cancel) -> Result<Option<Vec<u8>>> {
        let channel = self.channel()?;
        run(&self.runtime, cancel, calls::at(channel, key, revision))?.map_err(|e| e.at(channel.authority()))
    }

    /// Puts a key, if this revision changed it last, or it is not there where that is 0; says whether it did.
    ///
    /// # Errors
    /// No member answers, no majority does, or the value is not taken.
    pub fn put(&self, key: &[u8], value: &[u8], modified: i64, cancel: &Cancel) -> Result<bool> {
        let channel = self.channel()?;
        run(&self.runtime, cancel, calls::put(channel, key, value, modified))?.map_err(|e| e.at(channel.authority()))
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
        let said = |(member, kind): &(u64, u64)| format!("{} of member {member:x}", alarm_name(*kind));
        Ok(match self.first(cancel, calls::alarms)? {
            Ok(raised) => raised.iter().map(said).collect(),
            Err(unknown) => unknown.iter().map(|failed| format!("{UNKNOWN_ALARMS}: {}", failed.message)).collect(),
        })
    }

    /// Who may be asked, the best first. Who is left out is so by each of its addresses.
    fn order(&self, revision: i64, without: &BTreeSet<String>) -> Vec<&Connected> {
        let left = self.members.iter().filter(|m| without.contains(m.endpoint()));
        let left: BTreeSet<u64> = left.map(|m| m.status.header.member).collect();
        let fit = |m: &&Connected| {
            !m.status.learner
                && m.status.leader != 0
                && m.status.header.revision >= revision
                && !left.contains(&m.status.header.member)
        };
        let mut order: Vec<&Connected> = self.members.iter().filter(fit).collect();
        let doubted = |m: &Connected| self.doubted.contains(&m.status.header.member);
        order.sort_by_key(|m| (doubted(m), m.leads(), std::cmp::Reverse(m.status.header.revision)));
        order
    }

    /// Streams the snapshot of one member into a scratch file; if a member goes away meanwhile, the next one's. Some may
    /// be left out.
    ///
    /// # Errors
    /// No member is fit, or a stream is not what it should be.
    pub fn snapshot(
        &self,
        before: &Before,
        without: &BTreeSet<String>,
        dir: &Path,
        cancel: &Cancel,
    ) -> Result<Snapshot> {
        let order = self.order(before.revision, without);
        if order.is_empty() && !without.is_empty() {
            return Err(Error::new(Kind::Source, "no member is left that agrees with the majority"));
        }
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

    /// What the members say their keys hash to at a revision, each with its id and its address: one that has several
    /// addresses is asked, and counts, once.
    ///
    /// # Errors
    /// The run was interrupted.
    pub fn hashes(&self, revision: i64, cancel: &Cancel) -> Result<Vec<(u64, String, Compared)>> {
        let mut seen = BTreeSet::new();
        let new = |m: &&Connected| !m.status.learner && seen.insert(m.status.header.member);
        let voters: Vec<&Connected> = self.members.iter().filter(new).collect();
        let all = join_all(voters.iter().map(|m| hash(&m.channel, revision)));
        let answers = run(&self.runtime, cancel, all)?;
        let compared = |answer: std::result::Result<calls::Hash, Failed>| match answer {
            Ok(hash) => Compared::Hash(hash.hash, hash.compacted),
            Err(failed) => Compared::Not(failed.message),
        };
        let said = |(m, answer): (&&Connected, _)| (m.status.header.member, m.endpoint().to_owned(), compared(answer));
        Ok(voters.iter().zip(answers).map(said).collect())
    }
}

/// Whether an endpoint is of this host.
fn is_here(endpoint: &str) -> bool {
    let host = endpoint.rsplit_once(':').map_or(endpoint, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
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

/// The members that one lists. One that lists none knows nothing of them.
async fn listed(channel: &Channel) -> std::result::Result<Vec<calls::Member>, Failed> {
    let none = || Failed { code: super::grpc::UNAVAILABLE, message: "it lists no member".into() };
    Some(calls::members(channel).await?).filter(|listed| !listed.is_empty()).ok_or_else(none)
}

async fn greet(
    endpoint: &str,
    tls: &Option<Arc<rustls::ClientConfig>>,
    means: &Means,
) -> std::result::Result<Connected, Failed> {
    let greeted = async {
        let mut channel = Channel::connect(endpoint, tls.clone()).await?;
        if let Some(user) = &means.user {
            channel.sign_in(user.clone()).await?;
        }
        let status = calls::status(&channel).await?;
        Ok(Connected { channel, status })
    };
    let late = || Failed { code: super::grpc::UNAVAILABLE, message: "it takes too long".into() };
    tokio::time::timeout(PATIENCE, greeted).await.map_err(|_| late())?
}

/// A member's hash, once it has the revision: a follower may be a moment behind. A member that was compacted beyond it
/// meanwhile may answer with the hash that the compaction saw, of a later revision, and does not say so.
async fn hash(channel: &Channel, revision: i64) -> std::result::Result<calls::Hash, Failed> {
    let begin = tokio::time::Instant::now();
    loop {
        match calls::hash(channel, revision).await {
            Err(failed) if failed.message.contains("future revision") && begin.elapsed() < PATIENCE => {
                tokio::time::sleep(LOOK).await;
            }
            Ok(hash) => {
                let late =
                    || Failed { code: OUT_OF_RANGE, message: "it was compacted beyond the revision meanwhile".into() };
                return calls::has(channel, revision).await?.then_some(hash).ok_or_else(late);
            }
            Err(failed) => return Err(failed),
        }
    }
}

async fn stream(member: &Connected, cluster: u64, dir: &Path) -> Result<Snapshot> {
    let endpoint = member.endpoint();
    // It answers once it has everything that the majority had when it was asked.
    let newest = calls::newest(&member.channel).await.map_err(|e| e.at(endpoint))?;
    let mut taken = Taken::new(scratch::file(dir)?);
    let mut answers = member.channel.stream("Maintenance/Snapshot", &[]).await.map_err(|e| e.at(endpoint))?;
    let mut header = member.status.header;
    let (mut window, mut before) = (tokio::time::Instant::now(), 0);
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
        if window.elapsed() > SILENCE {
            if taken.bytes < before + BYTES_PER_SILENCE {
                return Err(Error::new(Kind::Retry, "the stream of the snapshot hardly moves").at(endpoint));
            }
            (window, before) = (tokio::time::Instant::now(), taken.bytes);
        }
    }
    let (file, bytes) = taken.finish().map_err(|e| e.at(endpoint))?;
    Ok(Snapshot { file, bytes, newest, header, endpoint: endpoint.to_owned(), version: member.status.version.clone() })
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

    #[test]
    fn a_password_does_not_leave_the_host_without_tls() {
        assert!(is_here("127.0.0.1:1") && is_here("[::1]:2379") && is_here("localhost:2379"));
        assert!(!is_here("10.0.0.1:2379") && !is_here("localhost.example:2379"));
        let user = Some(("root".into(), super::super::grpc::Password("secret".into())));
        let address = Address::parse("etcd+http://192.0.2.1").unwrap();
        let error = Cluster::connect(&address, &Means { user, ..Means::default() }, &Before::default(), &Cancel::new());
        assert_eq!(error.err().map(|e| e.kind()), Some(Kind::Config));
    }
}
