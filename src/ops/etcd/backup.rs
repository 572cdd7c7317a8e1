//! A snapshot of a live cluster into the repository.
//!
//! The whole stream is in a scratch file, and judged, before a session begins: what is not sound leaves no trace. Then the
//! members are asked what their keys hash to at the file's revision. If that member disagrees that sent it, there is no
//! snapshot; if another one does, there is, and it is said aloud: the cluster itself is not at one.

use super::{
    CLUSTER, DISAGREE, HISTORY, KEYS, KIND, MEMBER, NOT_COMPARED, REVISION, ROWS, UNDECIDED, ids, label, last_of,
    next_history, number,
};
use crate::base::{Cancel, Progress};
use crate::error::{Error, Kind, Result};
use crate::format::snapshot::{Label, Manifest, Miss};
use crate::ops::backup::{self, BackupOptions, BackupReport, Cut, Given, StreamName};
use crate::policy;
use crate::repo::Repo;
use crate::repo::view::View;
use crate::source::etcd::bolt::Bolt;
use crate::source::etcd::cluster::{self, Address, Before, Cluster, Compared, Snapshot};
use crate::source::etcd::grpc::{Means, Password};
use crate::source::etcd::keys::write_rows;
use crate::source::etcd::kv::{CORRUPT, alarm_name};
use crate::source::etcd::survey::{Facts, Survey, survey};
use crate::source::stream::Stream;
use std::collections::{BTreeMap, BTreeSet};
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
        let address = Address { older_tls: cluster.older_tls, ..address };
        let user = cluster.user.as_ref().map(|(name, file)| Ok((name.clone(), Password::read(file)?))).transpose()?;
        let (ca, identity) = (cluster.ca.clone(), cluster.identity.clone());
        let means = Means { ca, identity, user, ..Means::default() };
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
    /// Ids of members that have other keys.
    pub disagree: BTreeSet<u64>,
    /// How many members have the snapshot's keys, of how many, where that is no majority and others have other ones.
    pub undecided: Option<String>,
    /// Why no member was compared, where that is no fault.
    pub not_compared: Option<&'static str>,
    /// The number of the history that it is part of.
    pub history: i64,
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
    // What was changed from now on may be missing.
    let begun = repo.env.now().0;
    let (before, history, doubt) = before(repo, options, etcd.new_cluster)?;
    let cluster = Cluster::connect(&etcd.address, &etcd.means, &before, cancel)?;
    let (mut without, mut outvoted) = (BTreeSet::new(), BTreeSet::new());
    let (snapshot, bolt, survey, mut report, mut misses) = loop {
        let snapshot = cluster.snapshot(&before, &without, &etcd.scratch, cancel)?;
        let bolt = Bolt::open(copy(&snapshot.file)?)?;
        let survey = survey(&bolt, &etcd.scratch, cancel)?;
        let least = before.revision.max(snapshot.newest);
        if survey.facts.revision < least {
            let what =
                format!("the snapshot is older than what is known: revision {}, not {least}", survey.facts.revision);
            return Err(Error::new(Kind::Refused, what).at(snapshot.endpoint));
        }
        let mut report = EtcdReport {
            facts: survey.facts.clone(),
            endpoint: snapshot.endpoint.clone(),
            version: snapshot.version.clone(),
            cluster: cluster.id(),
            history,
            ..EtcdReport::default()
        };
        let found = compare((&cluster, snapshot.header.member), &bolt, &survey, &mut report, cancel)?;
        // Whoever is alone against several has what the others have not, and not the other way round.
        if found.others.len() <= found.agree.len() {
            report.disagree = doubted(&before, &found, |member| cluster.may_have(member));
            report.disagree.extend(&outvoted);
            report.undecided = match found.others.is_empty() && outvoted.is_empty() {
                // Where nobody else could be compared, nobody knows more than before.
                true if found.agree.len() <= cluster.voters() / 2 => doubt.filter(|_| !report.disagree.is_empty()),
                _ => undecided(found.agree.len(), cluster.voters(), &report.disagree),
            };
            break (snapshot, bolt, survey, report, found.all);
        }
        without.insert(snapshot.endpoint);
        outvoted.insert(snapshot.header.member);
    };
    report.remarks.extend(without.iter().map(|endpoint| {
        format!("ALARM: {endpoint} has other keys than the majority of the members, and was not taken")
    }));
    misses.extend(without.iter().map(|endpoint| miss(format!("member {endpoint} has other keys than the majority"))));
    if report.disagree.contains(&snapshot.header.member) {
        let who = &snapshot.endpoint;
        misses.push(miss(format!("{who} had other keys than the last snapshot, and nobody else agrees with it")));
    }
    misses.extend(report.undecided.iter().map(|agree| no_majority(agree)));
    remark(&cluster, &mut report, &mut misses, cancel)?;
    let given = Given { begun: Some(begun), ..given(etcd, &snapshot, (bolt, survey), &report, misses)? };
    let stored = backup::streams(repo, options, given, (progress, cancel))?;
    Ok((stored, report))
}

/// What the last snapshot of the source says, the number of the history that goes on, or begins, and whether no majority was
/// known to have its keys.
fn before(repo: &Arc<Repo>, options: &BackupOptions, new_cluster: bool) -> Result<(Before, i64, Option<String>)> {
    let (view, source) = (View::recall(repo)?, options.source_name()?);
    if new_cluster {
        return Ok((Before::default(), next_history(&view, &source), None));
    }
    let last = last_of(&view, &source).map(|last| &last.manifest);
    let history = last.and_then(|last| number(last, HISTORY)).unwrap_or_default();
    let doubt = last.and_then(|last| label(last, UNDECIDED)).map(str::to_owned);
    Ok((last.map(known).unwrap_or_default(), history, doubt))
}

/// What a snapshot says of its cluster.
pub(super) fn known(manifest: &Manifest) -> Before {
    let id = |text: &str| u64::from_str_radix(text, 16).ok();
    let doubted = label(manifest, DISAGREE).unwrap_or_default().split(' ').filter_map(id).collect();
    let cluster = label(manifest, CLUSTER).and_then(id);
    Before { cluster, revision: number(manifest, REVISION).unwrap_or_default(), doubted }
}

fn copy(file: &File) -> Result<File> {
    file.try_clone().map_err(|e| Error::new(Kind::Source, format!("cannot open the scratch file: {}", e.kind())))
}

pub(super) fn miss(message: String) -> Miss {
    Miss { path: ROWS.to_vec().into(), kind: KIND.into(), message }
}

/// What is missing where no majority is known to have the snapshot's keys.
pub(super) fn no_majority(agree: &str) -> Miss {
    miss(format!(
        "{agree} members had the keys of the last whole snapshot, which is no majority, and others had other keys"
    ))
}

/// How many members agree, of those that vote, if nobody knows who of them is right.
fn undecided(agree: usize, voters: usize, disagree: &BTreeSet<u64>) -> Option<String> {
    (!disagree.is_empty() && agree <= voters / 2).then(|| format!("{agree} of {voters}"))
}

/// What a comparison found amiss.
struct Compare {
    all: Vec<Miss>,
    /// Members that have the same keys.
    agree: BTreeSet<u64>,
    /// Members that have other keys.
    others: BTreeSet<u64>,
}

/// Who has other keys than the snapshot. Who had other keys before, and could not be compared now, is what it was; so is who
/// agrees with nobody but such.
fn doubted(before: &Before, found: &Compare, may_have: impl Fn(u64) -> bool) -> BTreeSet<u64> {
    let is_known = !found.agree.is_subset(&before.doubted);
    let still = before.doubted.iter().filter(|id| !(is_known && found.agree.contains(id)) && may_have(**id));
    still.chain(&found.others).copied().collect()
}

/// Why a member that has a hash, and was compacted so far, cannot be compared, if so.
fn is_no_match(survey: &Survey, compacted: i64) -> Option<&'static str> {
    if survey.facts.keys == 0 {
        return Some("there is no key");
    }
    let later = "it answers with what its last compaction saw, or has still to compact";
    (compacted < survey.facts.notes.compacted).then_some(later)
}

/// Asks all members what their keys hash to, and holds it against what this one sent.
fn compare(
    (cluster, sender): (&Cluster, u64),
    bolt: &Bolt<File>,
    survey: &Survey,
    report: &mut EtcdReport,
    cancel: &Cancel,
) -> Result<Compare> {
    let (mut own, mut misses, mut dumb) = (BTreeMap::new(), Vec::new(), true);
    let (mut agree, mut others) = (BTreeSet::new(), BTreeSet::new());
    for (member, endpoint, compared) in cluster.hashes(survey.facts.revision, cancel)? {
        let (hash, compacted) = match compared {
            // A member that was never compacted says so by -1.
            Compared::Hash(hash, compacted) => (hash, compacted.max(0)),
            Compared::Not(why) => {
                dumb &= !why.contains("compacted");
                report.remarks.push(format!("{endpoint} was not compared: {why}"));
                continue;
            }
        };
        dumb = false;
        if let Some(why) = is_no_match(survey, compacted) {
            report.remarks.push(format!("{endpoint} was not compared: {why}"));
            continue;
        }
        let known = own.get(&compacted).copied();
        let ours = known.map_or_else(|| survey.hashes(bolt, compacted, cancel), Ok)?;
        own.insert(compacted, ours);
        let [first, _] = ours;
        if ours.contains(&hash) {
            report.hash.get_or_insert((hash, compacted));
            report.agree.push(endpoint);
            agree.insert(member);
        } else if member == sender || endpoint == report.endpoint {
            let what = format!("the keys of the snapshot hash to {first:08x}, those of the member to {hash:08x}");
            return Err(Error::new(Kind::Source, what)
                .at(endpoint)
                .advise("the member's file may be damaged: see its log"));
        } else {
            let revision = survey.facts.revision;
            others.insert(member);
            misses.push(miss(format!(
                "member {endpoint} has other keys at revision {revision}: {hash:08x}, not {first:08x}"
            )));
        }
    }
    if dumb {
        misses.push(miss("no member could say what its keys hash to".into()));
    } else if agree.is_empty() && others.is_empty() {
        // No fault of the cluster: a compaction came between, or there is nothing to compare. The next one is compared again.
        report.not_compared = Some(if survey.facts.keys == 0 { "no-key" } else { "compacted" });
    }
    Ok(Compare { all: misses, agree, others })
}

fn remark(cluster: &Cluster, report: &mut EtcdReport, misses: &mut Vec<Miss>, cancel: &Cancel) -> Result<()> {
    let away = cluster.away().iter().map(|e| format!("a member is away: {e}"));
    report.remarks.extend(away);
    report
        .remarks
        .extend(cluster.unnamed.iter().map(|name| format!("member {name} was not asked: it is not named, or away")));
    if cluster.asks_for_no_user {
        report.remarks.push("a user was named, and the cluster asks for none: nobody was signed in".into());
    }
    for alarm in cluster.alarms(cancel)? {
        if alarm.starts_with(CORRUPT) || alarm.starts_with(cluster::UNKNOWN_ALARMS) {
            misses.push(miss(alarm.clone()));
        }
        report.remarks.push(format!("ALARM: {alarm}"));
    }
    let facts = &report.facts;
    if let Some((member, kind)) = facts.notes.alarms.iter().find(|(_, kind)| alarm_name(*kind) == CORRUPT) {
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
    Ok(Given { kind: KIND, paths, parts, labels: labels(report, snapshot), misses, begun: None, kept: None })
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
        (DISAGREE, ids(&report.disagree)),
        ("etcd.endpoint", Some(snapshot.endpoint.clone())),
        ("etcd.hash", report.hash.map(|(hash, compacted)| format!("{hash:08x} compacted={compacted}"))),
        ("etcd.hash-members", some(report.agree.join(" "))),
        (HISTORY, Some(report.history.to_string()).filter(|_| report.history > 0)),
        ("etcd.keys", Some(facts.keys.to_string())),
        ("etcd.leases", Some(notes.leases.to_string())),
        (MEMBER, Some(format!("{:x}", snapshot.header.member))),
        (NOT_COMPARED, report.not_compared.map(str::to_owned)),
        (REVISION, Some(facts.revision.to_string())),
        ("etcd.revisions", Some(facts.revisions.to_string())),
        ("etcd.storage-version", notes.storage_version.clone()),
        (UNDECIDED, report.undecided.clone()),
        ("etcd.version", Some(snapshot.version.clone())),
    ];
    all.into_iter().filter_map(|(key, value)| Some(Label { key: key.into(), value: value? })).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_doubted_is_until_somebody_else_agrees() {
        let set = |ids: &[u64]| ids.iter().copied().collect::<BTreeSet<u64>>();
        let now = |before: &[u64], agree: &[u64], others: &[u64]| {
            let before = Before { doubted: set(before), ..Before::default() };
            let found = Compare { all: Vec::new(), agree: set(agree), others: set(others) };
            doubted(&before, &found, |member| member != 9)
        };
        assert_eq!(now(&[], &[1, 2], &[3]), set(&[3]));
        assert_eq!(now(&[3], &[1, 2], &[]), set(&[3]), "it was away");
        assert_eq!(now(&[3], &[1, 2, 3], &[]), set(&[]), "it was mended");
        assert_eq!(now(&[3], &[3], &[]), set(&[3]), "alone with itself");
        assert_eq!(now(&[3], &[], &[]), set(&[3]));
        assert_eq!(now(&[9], &[1], &[2]), set(&[2]), "the cluster has it no more");
    }

    #[test]
    fn who_is_right_is_known_only_with_a_majority() {
        let (nobody, one) = (BTreeSet::new(), BTreeSet::from([3]));
        assert_eq!(undecided(2, 3, &one), None);
        assert_eq!(undecided(1, 3, &one).as_deref(), Some("1 of 3"));
        assert_eq!(undecided(2, 4, &one).as_deref(), Some("2 of 4"), "half of them are none");
        // Members that are away are not at odds.
        assert_eq!(undecided(1, 3, &nobody), None);
    }
}
