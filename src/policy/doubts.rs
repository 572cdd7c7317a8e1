//! What a policy may say, and probably does not mean.

use super::backup::BackupPolicy;
use super::sheet::Sheet;
use super::{alerts, duration, verify};
use crate::error::{Error, Kind};

/// What is allowed and probably not meant.
pub(super) fn warnings(sheet: &Sheet<'_>, policy: &BackupPolicy) -> Vec<Error> {
    let calendar = &**policy.calendar();
    let mut found = Vec::new();
    let mut warn = |path: &str, what: String, advice: &str| {
        found.push(sheet.at(path, Error::new(Kind::Config, what).advise(advice)))
    };
    let gap = calendar.largest_gap_ms();
    if let Some(rpo) = policy.rpo_ms() {
        let rpo_text = duration::text(rpo);
        // Blackouts hold for what comes between backups, too.
        let all = policy.sources().iter().all(|source| source.between().is_some()) && calendar.blackouts.is_empty();
        match policy.between_ms().filter(|_| all).or(gap) {
            Some(gap) if rpo < gap => {
                let what = format!("the rpo {rpo_text} will be missed: the schedule leaves {}", duration::text(gap));
                warn("spec.objectives.rpo", what, "schedule backups more often, or use a longer rpo");
            }
            Some(_) => {}
            None => {
                let what = format!("nothing is scheduled often enough to keep the rpo {rpo_text}");
                warn("spec.objectives.rpo", what, "add a schedule");
            }
        }
    }
    if calendar.incremental.is_some() && calendar.full.is_none() {
        let what = "no full backup is scheduled: what changed without a trace is never read again".into();
        warn("spec.schedule", what, "add `full:`, for instance `@weekly`");
    }
    if let Some(e) = policy.verify().and_then(|verify| verify::warning(&verify, calendar)) {
        found.push(sheet.at("spec.verify", e));
    }
    let mut warn = |path: &str, what: String, advice: &str| {
        found.push(sheet.at(path, Error::new(Kind::Config, what).advise(advice)))
    };
    let within = policy.retention().within_ms;
    if let Some(gap) = gap.filter(|gap| within > 0 && within < *gap) {
        let (within, gap) = (duration::text(within), duration::text(gap));
        let what = format!("within {within} may keep the newest snapshot only: the schedule leaves {gap}");
        warn("spec.retention.within", what, "use a longer one");
    }
    alerts::warnings(policy.alerts()).into_iter().for_each(|(path, what, advice)| warn(&path, what, advice));
    found
}
