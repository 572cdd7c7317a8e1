//! What a prune removes while a check looks is no damage: packs that are decided to be dead, and objects that are not
//! listed any more once they were found to be missing.

use crate::base::PackName;
use crate::error::{Error, Result};
use crate::region::{Finding, Regions};
use crate::repo::Repo;
use crate::store::{Key, Prefix};
use std::collections::{BTreeSet, HashSet};

/// Packs that are dead, as far as the regions say now.
pub(super) fn doomed(repo: &Repo) -> HashSet<PackName> {
    repo.epochs_since(&repo.epochs_seen()).doomed()
}

/// Findings without those of packs that were decided to be dead meanwhile.
pub(super) fn findings(repo: &Repo) -> Vec<Finding> {
    if repo.findings().iter().any(|finding| matches!(Key::parse(&finding.object), Some(Key::Pack(_)))) {
        repo.epochs_since(&repo.epochs_seen());
    }
    repo.findings()
}

/// Whether a prune removes such objects.
pub(super) fn may_go(key: &Key) -> bool {
    matches!(key, Key::Index(_) | Key::Snapshot(_) | Key::Session(_))
}

/// Records objects that were listed and not there, if they are still listed.
///
/// # Errors
/// A listing failed.
pub(super) fn record_missing(regions: &Regions, ix: usize, missing: &[(Key, Error)]) -> Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    let mut listed: BTreeSet<Key> = BTreeSet::new();
    for prefix in [Prefix::Index, Prefix::Snapshots, Prefix::Sessions] {
        listed.extend(regions.list(ix, prefix)?.into_iter().map(|line| line.key));
    }
    let there = missing.iter().filter(|(key, _)| listed.contains(key));
    there.for_each(|(key, why)| regions.record(ix, &key.path(), why));
    Ok(())
}
