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
    let once = Retries { max: 0, ..policy.retries() };
    let ended = run::run(&quiet, &policy.between(), repository, Task::Delta, once, Vec::new());
    let Some(fate) = fate(&ended) else { return ended };
    let every_ms = policy.between_ms().unwrap_or_default();
    let turn = tally.turn(policy.name().as_str(), fate, around.env.now(), every_ms);
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

/// The worst that became of a source; `None` where that is nobody's fault: it was interrupted, or others are at work.
fn fate(ended: &Result<Report>) -> Option<Fate> {
    match ended {
        Err(e) => (e.exit() != Exit::Interrupted).then_some(Fate::Failed),
        Ok(report) if report.exit() == Exit::Interrupted => None,
        Ok(report) => report.sources.iter().map(|source| source.fate).filter(|fate| *fate != Fate::Excluded).max(),
    }
}
