//! Sources of policies, some of which are clusters.

use super::backup::{EtcdOptions, backup};
use super::delta::{Delta, Terms, Tried, Unchanged, delta};
use crate::base::{Cancel, Progress};
use crate::error::{Error, Kind, Result};
use crate::format::snapshot::Mode;
use crate::ops::backup::{self as store, BackupOptions, BackupReport};
use crate::policy::{self, Deltas};
use crate::repo::Repo;
use std::sync::Arc;

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
    let said = |what: &str| say(&format!("source {}: {what}", source.name));
    let Some(cluster) = &source.etcd else {
        let report = store::run(repo, options, means.0, means.1)?;
        report.models.lines().iter().for_each(|what| said(what));
        return Ok(report);
    };
    let (etcd, mut options) = (EtcdOptions::of(cluster)?, options);
    let (report, found) = if cluster.deltas == Deltas::Incremental && options.mode == Mode::Incremental {
        options.mode = Mode::Delta;
        // A snapshot is made though nothing changed: it says of which time it is.
        let terms = Terms { unchanged: Unchanged::Stored, ..Terms::ASKED };
        match delta(repo, &mut options, &etcd, &terms, means)? {
            Delta::Stored(report, _) => return Ok(*report),
            Delta::Nothing(_) => return Err(Error::new(Kind::Bug, "a delta was not stored")),
            Delta::Whole(report, found, why) => {
                said(&format!("a whole snapshot, no delta: {why}"));
                (*report, *found)
            }
        }
    } else {
        backup(repo, &options, &etcd, means)?
    };
    found.remarks.iter().for_each(|what| said(what));
    Ok(report)
}

/// Takes what changed in a cluster between its backups; there may be nothing to store. Says of which mode the snapshot is;
/// what should be known is said. `tried` remembers when a whole snapshot was tried instead.
///
/// # Errors
/// As for deltas.
pub fn between(
    repo: &Arc<Repo>,
    (source, tried): (&policy::Source, Option<&Tried>),
    mut options: BackupOptions,
    say: &dyn Fn(&str),
    means: (&Progress, &Cancel),
) -> Result<(Option<BackupReport>, Mode)> {
    let Some((cluster, between)) = source.etcd.as_ref().zip(source.between()) else {
        return Err(Error::new(Kind::Bug, "a source without deltas between its backups"));
    };
    let etcd = EtcdOptions::of(cluster)?;
    options.mode = Mode::Delta;
    match delta(repo, &mut options, &etcd, &Terms::between(&between, tried), means)? {
        Delta::Stored(report, _) => Ok((Some(*report), Mode::Delta)),
        Delta::Nothing(_) => Ok((None, Mode::Delta)),
        Delta::Whole(report, found, why) => {
            let why = format!("a whole snapshot, no delta: {why}");
            std::iter::once(&why)
                .chain(&found.remarks)
                .for_each(|what| say(&format!("source {}: {what}", source.name)));
            Ok((Some(*report), options.mode))
        }
    }
}
