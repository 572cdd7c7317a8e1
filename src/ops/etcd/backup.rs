//! A snapshot of a live cluster into the repository.
//!
//! The whole stream is in a scratch file, and judged, before a session begins: what is not sound leaves no trace. Then the
//! members are asked what their keys hash to at the file's revision. If that member disagrees that sent it, there is no
//! snapshot; if another one does, there is, and it is said aloud: the cluster itself is not at one.

use super::{CLUSTER, KEYS, KIND, REVISION, ROWS, label, number};
use crate::base::{Cancel, Progress};
use crate::error::{Error, Kind, Result};
use crate::format::snapshot::{Label, Manifest, Miss};
use crate::ops::backup::{self, BackupOptions, BackupReport, Cut, Given, StreamName};
use crate::policy;
use crate::repo::Repo;
use crate::repo::view::View;
use crate::source::etcd::bolt::Bolt;
use crate::source::etcd::cluster::{Address, Before, Cluster, Compared, Snapshot};
use crate::source::etcd::grpc::{Means, Password};
use crate::source::etcd::keys::write_rows;
use crate::source::etcd::kv::alarm_name;
use crate::source::etcd::survey::{Facts, Survey, survey};
use crate::source::stream::Stream;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Seek;
use std::path::PathBuf;
use std::sync::Arc;

/// Which cluster, and how.
pub struct EtcdOptions {
    /// Its members.
    pub address: Address,
    /// How they are spoken to.
    pub means: Means,
    /// Whether it may be another cluster than before.
    pub new_cluster: bool,
    /// Where scratch files go.
    pub scratch: PathBuf,
}

impl EtcdOptions {
    /// As a policy describes it.
    ///
    /// # Errors
    /// An address that is none, or a password that cannot be read.
    pub fn of(cluster: &policy::Etcd) -> Result<EtcdOptions> {
        let scheme = if cluster.plain { "etcd+http" } else { "etcd" };
        let address = Address::parse(&format!("{scheme}://{}", cluster.endpoints.join(",")))?;
        let user = cluster.user.as_ref().map(|(name, file)| Ok((name.clone(), Password::read(file)?))).transpose()?;
        let (ca, identity) = (cluster.ca.clone(), cluster.identity.clone());
        let means = Means { plain: cluster.plain, ca, identity, user };
        Ok(EtcdOptions { address, means, new_cluster: false, scratch: std::env::temp_dir() })
    }
}

/// What was found.
#[derive(Debug, Clone, Default)]
pub struct EtcdReport {
    /// What the database holds.
    pub facts: Facts,
    /// Who sent it.
    pub endpoint: String,
    /// The version of its program.
    pub version: String,
    /// The cluster's id.
    pub cluster: u64,
    /// What the keys hash to, and up to which revision they count as compacted.
    pub hash: Option<(u32, i64)>,
    /// Members that say the same.
    pub agree: Vec<String>,
    /// What should be known.
    pub remarks: Vec<String>,
}

/// Takes a snapshot and stores it.
///
/// # Errors
/// The cluster is not what it was, no member is fit, its stream is not sound, or it cannot be stored anywhere.
pub fn backup(
    repo: &Arc<Repo>,
    options: &BackupOptions,
    etcd: &EtcdOptions,
    (progress, cancel): (&Progress, &Cancel),
) -> Result<(BackupReport, EtcdReport)> {
    repo.may_write()?;
    let before = before(repo, options, etcd.new_cluster)?;
    let cluster = Cluster::connect(&etcd.address, &etcd.means, before, cancel)?;
    let snapshot = cluster.snapshot(before, &etcd.scratch, cancel)?;
    let bolt = Bolt::open(copy(&snapshot.file)?)?;
    let survey = survey(&bolt, &etcd.scratch, cancel)?;
    if survey.facts.revision < before.revision {
        let what = format!(
            "the snapshot is older than the last one: revision {}, it has {}",
            survey.facts.revision, before.revision
        );
        return Err(Error::new(Kind::Refused, what).at(snapshot.endpoint));
    }
    let mut report = EtcdReport {
        facts: survey.facts.clone(),
        endpoint: snapshot.endpoint.clone(),
        version: snapshot.version.clone(),
        cluster: cluster.id(),
        ..EtcdReport::default()
    };
    let mut misses = compare(&cluster, &bolt, &survey, &mut report, cancel)?;
    remark(&cluster, &mut report, &mut misses, cancel)?;
    let given = given(etcd, &snapshot, (bolt, survey), &report, misses)?;
    let stored = backup::streams(repo, options, given, (progress, cancel))?;
    Ok((stored, report))
}

/// Backs up a source of a policy, of either kind; what should be known is said.
///
/// # Errors
/// As for the kind.
pub fn or_files(
    repo: &Arc<Repo>,
    source: &policy::Source,
    options: BackupOptions,
    say: &dyn Fn(&str),
    means: (&Progress, &Cancel),
) -> Result<BackupReport> {
    let Some(cluster) = &source.etcd else { return backup::run(repo, options, means.0, means.1) };
    let (report, found) = self::backup(repo, &options, &EtcdOptions::of(cluster)?, means)?;
    found.remarks.iter().for_each(|what| say(&format!("source {}: {what}", source.name)));
    Ok(report)
}

/// What the last snapshot of the source says.
fn before(repo: &Arc<Repo>, options: &BackupOptions, new_cluster: bool) -> Result<Before> {
    if new_cluster {
        return Ok(Before::default());
    }
    let view = View::recall(repo)?;
    let Some(last) = view.latest_of(&options.source_name()?) else { return Ok(Before::default()) };
    Ok(known(&last.manifest))
}

/// What a snapshot says of its cluster.
pub(super) fn known(manifest: &Manifest) -> Before {
    let cluster = label(manifest, CLUSTER).and_then(|id| u64::from_str_radix(id, 16).ok());
    Before { cluster, revision: number(manifest, REVISION).unwrap_or_default() }
}

fn copy(file: &File) -> Result<File> {
    file.try_clone().map_err(|e| Error::new(Kind::Source, format!("cannot open the scratch file: {}", e.kind())))
}

fn miss(message: String) -> Miss {
    Miss { path: ROWS.to_vec().into(), kind: KIND.into(), message }
}

/// Asks all members what their keys hash to.
fn compare(
    cluster: &Cluster,
    bolt: &Bolt<File>,
    survey: &Survey,
    report: &mut EtcdReport,
    cancel: &Cancel,
) -> Result<Vec<Miss>> {
    let (mut own, mut misses) = (BTreeMap::new(), Vec::new());
    for (endpoint, compared) in cluster.hashes(survey.facts.revision, cancel)? {
        let (hash, compacted) = match compared {
            Compared::Hash(hash, compacted) => (hash, compacted),
            Compared::Not(why) => {
                report.remarks.push(format!("{endpoint} was not compared: {why}"));
                continue;
            }
        };
        if compacted < survey.facts.notes.compacted {
            report.remarks.push(format!("{endpoint} was not compared: it has still to compact its keys"));
            continue;
        }
        let known = own.get(&compacted).copied();
        let ours = known.map_or_else(|| survey.hash(bolt, compacted, cancel), Ok)?;
        own.insert(compacted, ours);
        if hash == ours {
            report.hash.get_or_insert((ours, compacted));
            report.agree.push(endpoint);
        } else if endpoint == report.endpoint {
            let what = format!("the keys of the snapshot hash to {ours:08x}, those of the member to {hash:08x}");
            return Err(Error::new(Kind::Source, what)
                .at(endpoint)
                .advise("the member's file may be damaged: see its log"));
        } else {
            let revision = survey.facts.revision;
            misses.push(miss(format!(
                "member {endpoint} has other keys at revision {revision}: {hash:08x}, not {ours:08x}"
            )));
        }
    }
    Ok(misses)
}

fn remark(cluster: &Cluster, report: &mut EtcdReport, misses: &mut Vec<Miss>, cancel: &Cancel) -> Result<()> {
    let away = cluster.away().iter().map(|e| format!("a member is away: {e}"));
    report.remarks.extend(away);
    report
        .remarks
        .extend(cluster.unnamed.iter().map(|name| format!("member {name} was not asked: it is not named, or away")));
    for alarm in cluster.alarms(cancel)? {
        report.remarks.push(format!("ALARM: {alarm}"));
    }
    let facts = &report.facts;
    if let Some((member, kind)) = facts.notes.alarms.iter().find(|(_, kind)| alarm_name(*kind) == "CORRUPT") {
        misses.push(miss(format!("the cluster has raised {} for member {member:x}", alarm_name(*kind))));
    }
    if facts.secrets > facts.secrets_sealed {
        let plain = facts.secrets - facts.secrets_sealed;
        report.remarks.push(format!(
            "{plain} Kubernetes Secrets lie in plain text in the database (no encryption at rest); here they are sealed like everything"
        ));
    }
    if facts.secrets_sealed > 0 {
        report.remarks.push(format!(
            "{} Kubernetes Secrets are encrypted at rest: without the keys of the EncryptionConfiguration the snapshot gives none of them; back those up too",
            facts.secrets_sealed
        ));
    }
    Ok(())
}

fn given(
    etcd: &EtcdOptions,
    snapshot: &Snapshot,
    (bolt, survey): (Bolt<File>, Survey),
    report: &EtcdReport,
    misses: Vec<Miss>,
) -> Result<Given> {
    let mut keys = survey.keys;
    keys.rewind().map_err(|e| Error::new(Kind::Source, format!("cannot read the scratch file: {}", e.kind())))?;
    let rows = Stream::written(move |out| write_rows(&bolt, out));
    let parts = vec![
        (StreamName::parse(KEYS)?, Stream::reader(keys), Cut::Small),
        (StreamName::parse(ROWS)?, rows, Cut::Small),
    ];
    let paths = vec![etcd.address.to_string().into_bytes()];
    Ok(Given { kind: KIND, paths, parts, labels: labels(report, snapshot), misses, kept: None })
}

fn labels(report: &EtcdReport, snapshot: &Snapshot) -> Vec<Label> {
    let (facts, notes) = (&report.facts, &report.facts.notes);
    let alarms: Vec<String> = notes.alarms.iter().map(|(m, kind)| format!("{}:{m:x}", alarm_name(*kind))).collect();
    let some = |text: String| Some(text).filter(|text| !text.is_empty());
    let all = [
        ("etcd.alarms", some(alarms.join(" "))),
        ("etcd.auth", Some(notes.auth.to_string())),
        ("etcd.bytes", Some(facts.bytes.to_string())),
        ("etcd.bytes-used", Some(facts.bytes_used.to_string())),
        (CLUSTER, Some(format!("{:x}", report.cluster))),
        ("etcd.cluster-version", notes.cluster_version.clone()),
        ("etcd.compacted", Some(notes.compacted.to_string())),
        ("etcd.endpoint", Some(snapshot.endpoint.clone())),
        ("etcd.hash", report.hash.map(|(hash, compacted)| format!("{hash:08x} compacted={compacted}"))),
        ("etcd.hash-members", some(report.agree.join(" "))),
        ("etcd.keys", Some(facts.keys.to_string())),
        ("etcd.leases", Some(notes.leases.to_string())),
        ("etcd.member", Some(format!("{:x}", snapshot.header.member))),
        (REVISION, Some(facts.revision.to_string())),
        ("etcd.revisions", Some(facts.revisions.to_string())),
        ("etcd.storage-version", notes.storage_version.clone()),
        ("etcd.version", Some(snapshot.version.clone())),
    ];
    all.into_iter().filter_map(|(key, value)| Some(Label { key: key.into(), value: value? })).collect()
}
