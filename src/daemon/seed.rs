//! Where schedules begin when nothing is remembered of them: at the newest snapshots.

use super::job::{Job, JobId};
use super::run::Open;
use crate::base::TimeMs;
use crate::error::Result;
use crate::format::snapshot::Mode;
use crate::ops::etcd;
use crate::policy::{Configuration, Task};
use crate::repo::view::View;
use std::collections::{BTreeMap, BTreeSet};

/// Due times that are further back are nobody's business.
const BACK_MAX_MS: i64 = 31 * 24 * 3_600_000;

/// Of each backup job all of whose sources have a snapshot of its kind: the time of the oldest of their newest ones. A
/// repository that cannot be opened is told to `say`; its jobs begin now.
pub fn seeds(
    jobs: &[Job],
    configuration: &Configuration,
    now: TimeMs,
    open: &Open<'_>,
    say: &dyn Fn(&str),
) -> BTreeMap<JobId, TimeMs> {
    let mut found = BTreeMap::new();
    let names: BTreeSet<&str> = jobs.iter().map(|job| job.regions.as_str()).collect();
    for name in names {
        let newest = match newest(configuration, name, open) {
            Ok(newest) => newest,
            Err(e) => {
                say(&format!("repository {name}: nothing is known of earlier runs, schedules begin now: {e}"));
                continue;
            }
        };
        for job in jobs.iter().filter(|job| job.regions == name && job.id.kind.is_backup()) {
            let of = |source: &String| newest.get(&(source.clone(), job.id.kind)).copied();
            let oldest =
                job.sources.iter().map(of).collect::<Option<Vec<TimeMs>>>().and_then(|all| all.into_iter().min());
            found.extend(oldest.map(|at| (job.id.clone(), at.max(TimeMs(now.0 - BACK_MAX_MS)))));
        }
    }
    found
}

/// The newest snapshot of each source, of any kind and of the full ones.
fn newest(configuration: &Configuration, name: &str, open: &Open<'_>) -> Result<BTreeMap<(String, Task), TimeMs>> {
    let repository = configuration.repository(Some(name))?;
    let repo = open(repository, repository.copies_min())?;
    let mut found: BTreeMap<(String, Task), TimeMs> = BTreeMap::new();
    for snapshot in View::recall(&repo)?.snapshots.values() {
        let manifest = &snapshot.manifest;
        let kinds: &[Task] = match manifest.mode {
            // What came between backups was none of them.
            Mode::Delta if etcd::row(manifest).is_some() => &[],
            Mode::Incremental | Mode::Delta => &[Task::Incremental],
            Mode::Full | Mode::Independent => &[Task::Incremental, Task::Full],
        };
        for kind in kinds {
            let at = found.entry((format!("{name}/{}", manifest.source.name), *kind)).or_insert(TimeMs(manifest.start));
            *at = (*at).max(TimeMs(manifest.start));
        }
    }
    Ok(found)
}
