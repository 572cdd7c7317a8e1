//! What changed in clusters, taken between the backups of a policy: a run of its own kind, without hooks and attempts,
//! which is recorded and told as the [`Tally`] says.

use super::report::{Fate, Report};
use super::round::{self, Announcement};
use super::run::{self, Surroundings};
use super::tally::Tally;
use crate::error::{Exit, Result};
use crate::policy::{BackupPolicy, Repository, Retries, Task};
use crate::region::lock;
use std::sync::Mutex;

/// Takes what changed now. What is to be told is handed to `aside`.
///
/// # Errors
/// The repository cannot be opened, or the run was interrupted.
pub fn run(
    around: &Surroundings<'_>,
    policy: &BackupPolicy,
    repository: &Repository,
    tally: &Tally,
    aside: &dyn Fn(Announcement),
) -> Result<Report> {
    let (start, said) = (around.env.now(), Mutex::new(Vec::new()));
    let keep = |text: &str| lock(&said).push(text.to_owned());
    let quiet = Surroundings { say: &keep, tally: Some(tally), ..*around };
    let named = policy.between();
    let once = Retries { max: 0, ..policy.retries() };
    let ended = run::run(&quiet, &named, repository, Task::Delta, once, Vec::new());
    let Some(ends) = ends(&ended, &named) else { return ended };
    let every_ms = policy.between_ms().unwrap_or_default();
    let turn = tally.turn(policy.name().as_str(), &ends, around.env.now(), every_ms);
    if turn.said {
        lock(&said).iter().for_each(|text| (around.say)(text));
        match &ended {
            Ok(report) => (around.say)(&report.outcome()),
            Err(e) => (around.say)(&format!("{} (exit code {}): {e}", e.exit().name(), e.exit() as u8)),
        }
    }
    if turn.told
        && let Some(announced) = round::between(around, policy, start, &ended)
    {
        aside(announced);
    }
    ended
}

/// What became of each source; `None` where that is nobody's fault: it was interrupted. Where nothing could be tried, all failed.
fn ends<'e>(ended: &'e Result<Report>, policy: &'e BackupPolicy) -> Option<Vec<(&'e str, Fate)>> {
    match ended {
        Err(e) if e.exit() == Exit::Interrupted => None,
        Err(_) => Some(policy.sources().iter().map(|source| (source.name.as_str(), Fate::Failed)).collect()),
        Ok(report) if report.exit() == Exit::Interrupted => None,
        Ok(report) => Some(report.sources.iter().map(|end| (end.source.as_str(), end.fate)).collect()),
    }
}
