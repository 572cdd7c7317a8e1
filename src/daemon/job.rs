//! A job: one policy's runs of one kind, and what decides when each of them may start.

use crate::base::TimeMs;
use crate::policy::{BackupPolicy, Calendar, Concurrency, Retries, Source, Start, Task};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

/// Which job: there is one for each policy and task that has a schedule or a period.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct JobId {
    /// Name of the policy.
    pub policy: String,
    /// What its runs do.
    pub kind: Task,
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.policy, self.kind.name())
    }
}

/// When and how runs of one policy and kind are started.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// Which one.
    pub id: JobId,
    /// When a run is due and when it starts: the one calculation that there is.
    pub calendar: Arc<Calendar>,
    /// What happens when a run is due while the one before of the same job is still at work.
    pub concurrency: Concurrency,
    /// Rule for failed runs.
    pub retry: Retries,
    /// Higher ones start first.
    pub priority: i32,
    /// What it reads, as `repository/source`. Runs that share a source never overlap.
    pub sources: Arc<BTreeSet<String>>,
    /// Where it writes: the name of the repository.
    pub regions: String,
    /// How often it runs where that is no schedule, milliseconds.
    pub every_ms: Option<i64>,
}

impl Job {
    /// The jobs of a policy, one for each of its schedules, and one for what is taken between its backups.
    pub fn of(policy: &BackupPolicy) -> Vec<Job> {
        let regions = policy.repository().to_string();
        let named = |among: &dyn Fn(&Source) -> bool| -> Arc<BTreeSet<String>> {
            let sources = policy.sources().iter().filter(|source| among(source));
            Arc::new(sources.map(|source| format!("{regions}/{}", source.name)).collect())
        };
        // Checks of one repository do the same work, and prunes do; no source has an empty name.
        let (sources, checks) = (named(&|_| true), Arc::new(BTreeSet::from([format!("{regions}/")])));
        let job = |kind: Task| Job {
            id: JobId { policy: policy.name().to_string(), kind },
            calendar: policy.calendar().clone(),
            concurrency: policy.concurrency(),
            retry: policy.retries(),
            priority: policy.priority(),
            sources: if kind.is_backup() { sources.clone() } else { checks.clone() },
            regions: regions.clone(),
            every_ms: None,
        };
        let scheduled = Task::ALL.into_iter().filter(|kind| policy.calendar().cron(*kind).is_some()).map(job);
        let between = |every_ms| Job {
            sources: named(&|source| source.between().is_some()),
            every_ms: Some(every_ms),
            ..job(Task::Delta)
        };
        scheduled.chain(policy.between_ms().map(between)).collect()
    }

    /// The schedule as text: when it changes, what was due by the old one is no longer asked for.
    pub fn schedule(&self) -> String {
        let cron = self.calendar.cron(self.id.kind).map_or("never", |cron| cron.text());
        format!("{cron} {}", self.calendar.zone())
    }

    /// The first due time after another.
    pub fn next_after(&self, after: TimeMs) -> Option<TimeMs> {
        self.calendar.next_due(self.id.kind, after)
    }

    /// The newest due time up to `until`.
    pub fn last_due(&self, until: TimeMs) -> Option<TimeMs> {
        self.calendar.last_due(self.id.kind, until)
    }

    /// When the run that is due at `due` is to start.
    pub fn start(&self, due: TimeMs) -> Start {
        self.calendar.start(self.id.kind, due)
    }

    /// Whether a run of this job makes one of `other` needless: it reads all of the other's sources completely
    /// into the same regions.
    pub fn stands_for(&self, other: &Job) -> bool {
        self.id.kind == Task::Full
            && other.id.kind == Task::Incremental
            && self.regions == other.regions
            && !other.sources.is_empty()
            && other.sources.is_subset(&self.sources)
    }
}
