//! What a change of the configuration does.

use super::backup::BackupPolicy;
use super::calendar::Start;
use super::configuration::Configuration;
use super::retention::{Candidate, Retention, judge};
use super::shrink::Small;
use crate::base::{SessionId, TimeMs};
use chrono_tz::Tz;
use serde_json::Value;
use std::collections::BTreeMap;

/// How far back snapshots are imagined, and how many.
const BACK_MS: i64 = 2 * 366 * 86_400_000;
const IMAGINED_MAX: usize = 2000;

/// A field that changed: its document, its path, and its values; `None` where it is not there.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// `kind/name`.
    pub document: String,
    /// Path of the field; empty: the whole document.
    pub path: String,
    /// What it was.
    pub old: Option<Value>,
    /// What it is.
    pub new: Option<Value>,
}

/// Every document with nothing left out.
fn documents(configuration: &Configuration) -> BTreeMap<String, Value> {
    let value = |effective: serde_json::Result<Value>| effective.unwrap_or(Value::Null)["spec"].take();
    let repositories = configuration.repositories().iter();
    let repositories =
        repositories.map(|r| (format!("Repository/{}", r.name()), value(serde_json::to_value(r.effective()))));
    let policies = configuration.policies().iter();
    let policies = policies.map(|p| (format!("BackupPolicy/{}", p.name()), value(serde_json::to_value(p.effective()))));
    repositories.chain(policies).collect()
}

/// What differs between two configurations, defaults filled in: a default that is written out is no change.
pub fn changes(old: &Configuration, new: &Configuration) -> Vec<Change> {
    let (old, new) = (documents(old), documents(new));
    let mut found = Vec::new();
    let names: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    for name in names {
        compare(name, "", old.get(name), new.get(name), &mut found);
    }
    found
}

fn compare(document: &str, path: &str, old: Option<&Value>, new: Option<&Value>, found: &mut Vec<Change>) {
    if old == new {
        return;
    }
    if let (Some(Value::Object(a)), Some(Value::Object(b))) = (old, new) {
        let names: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
        for name in names {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            compare(document, &path, a.get(name), b.get(name), found);
        }
        return;
    }
    let (document, path) = (document.to_owned(), path.to_owned());
    found.push(Change { document, path, old: old.cloned(), new: new.cloned() });
}

/// The snapshots that the old rules keep and the new ones do not, newest first.
pub fn lost_by(candidates: &[Candidate], old: (&Retention, Tz), new: (&Retention, Tz)) -> Vec<Candidate> {
    let kept = judge(candidates, old.0, old.1);
    let mut still = judge(candidates, new.0, new.1).into_iter();
    let lost = kept.into_iter().filter(|before| {
        // Both are in the same order.
        let after = still.next();
        !before.reasons.is_empty() && after.is_some_and(|after| after.reasons.is_empty())
    });
    lost.map(|verdict| verdict.candidate).collect()
}

/// What a change of the rules does to the snapshots that the old schedule would have made until now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetentionEffect {
    /// Snapshots of each source that were imagined.
    pub made: usize,
    /// Of them, those that the old rules keep.
    pub kept_old: usize,
    /// Those that the new rules keep.
    pub kept_new: usize,
    /// When those were made that only the old rules keep, newest first.
    pub lost: Vec<TimeMs>,
}

/// Tries both policies' rules on two years of snapshots as the old schedule makes them.
pub fn retention_effect(old: &BackupPolicy, new: &BackupPolicy, now: TimeMs) -> RetentionEffect {
    let mut step = BACK_MS;
    let mut candidates = imagined(old, TimeMs(now.0 - step), now);
    // Often enough that there are too many: the newest count.
    while candidates.len() == IMAGINED_MAX {
        step /= 2;
        candidates = imagined(old, TimeMs(now.0 - step), now);
    }
    let kept = |rules: &Retention, zone: Tz| {
        judge(&candidates, rules, zone).iter().filter(|verdict| !verdict.reasons.is_empty()).count()
    };
    let (before, after) = (old.retention(), new.retention());
    let lost = lost_by(&candidates, (&before, old.zone()), (&after, new.zone()));
    RetentionEffect {
        made: candidates.len(),
        kept_old: kept(&before, old.zone()),
        kept_new: kept(&after, new.zone()),
        lost: lost.iter().map(|candidate| candidate.time).collect(),
    }
}

fn imagined(policy: &BackupPolicy, from: TimeMs, now: TimeMs) -> Vec<Candidate> {
    let runs = policy.calendar().coming(from, now, IMAGINED_MAX);
    let made = runs.iter().filter(|run| run.task.is_backup() && matches!(run.start, Start::At(_)));
    made.enumerate()
        .map(|(n, run)| {
            let mut sid = [0; 16];
            sid[..8].copy_from_slice(&(n as u64).to_be_bytes());
            Candidate {
                sid: SessionId(sid),
                time: run.at(),
                good: true,
                held: false,
                suspect: false,
                small: Small::No,
                places: 1,
            }
        })
        .collect()
}
