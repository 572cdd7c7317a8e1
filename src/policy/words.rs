//! A policy in words.

use super::alerts::Alert;
use super::backup::{BackupPolicy, Source};
use super::calendar::{Calendar, Task};
use super::duration;
use super::etcd::{Deltas, Etcd};
use super::repository::Repository;
use super::retention::Retention;
use super::types::Concurrency;
use crate::base::TimeMs;
use chrono::DateTime;
use chrono_tz::Tz;

/// A time in a zone, with the weekday: `Sun 2027-01-03 02:30 CET`.
pub fn local_time(zone: Tz, at: TimeMs) -> String {
    match DateTime::from_timestamp_millis(at.0) {
        Some(time) => time.with_timezone(&zone).format("%a %F %H:%M %Z").to_string(),
        None => at.rfc3339(),
    }
}

/// What a policy does, sentence by sentence.
pub fn sentences(policy: &BackupPolicy, repository: &Repository) -> Vec<String> {
    let mut said = Vec::new();
    let (copies, regions) = (policy.copies_min(), repository.regions().len());
    said.push(format!(
        "backs up to repository {}; done with {copies} complete copies in {regions} regions",
        repository.name()
    ));
    said.extend(policy.hooks().sentences("a run"));
    for one in policy.sources() {
        said.push(source(one));
        said.extend(one.hooks.sentences(&format!("source `{}`", one.name)));
    }
    said.extend(policy.limits().sentences());
    said.extend(schedule(policy.calendar()));
    if Task::ALL.iter().any(|task| policy.calendar().cron(*task).is_some()) {
        said.push(match policy.concurrency() {
            Concurrency::Forbid => "a run that is due while an earlier one of its kind is at work is missed".into(),
            Concurrency::Queue => "a run that is due while an earlier one of its kind is at work waits for it".into(),
            Concurrency::Replace => {
                "a run that is due while an earlier one of its kind is at work stops that one".into()
            }
        });
    }
    let retries = policy.retries();
    said.push(match retries.max {
        0 => "a failed run is not tried again".into(),
        max => format!(
            "a failed run is tried again up to {max} times, after {}, doubled each time up to {}",
            duration::text(retries.backoff_ms),
            duration::text(retries.backoff_max_ms)
        ),
    });
    said.push(retention(&policy.retention()));
    if let (Some(verify), Some(cron)) = (policy.verify(), policy.calendar().cron(Task::Verify)) {
        said.push(verify.sentence(cron.text()));
    }
    if let (Some(prune), Some(cron)) = (policy.prune(), policy.calendar().cron(Task::Prune)) {
        said.push(prune.sentence(cron.text()));
    }
    if let Some(rpo) = policy.rpo_ms() {
        said.push(format!("the newest good snapshot must never be older than {}", duration::text(rpo)));
    }
    said.extend(policy.alerts().iter().map(Alert::sentence));
    if policy.priority() != 0 {
        said.push(format!("goes before what has a priority below {}", policy.priority()));
    }
    said
}

fn etcd_words(etcd: &Etcd) -> String {
    let deltas = match etcd.deltas {
        Deltas::Never => String::new(),
        Deltas::Incremental => " (only what changed, but for full backups)".into(),
        Deltas::Between(between) => {
            format!(" (what changed every {}, by a daemon between backups)", duration::text(between.every_ms))
        }
    };
    format!("etcd at {}{deltas}", etcd.endpoints.join(", "))
}

fn source(source: &Source) -> String {
    let paths: Vec<String> = source.paths.iter().map(|path| path.display().to_string()).collect();
    let files = || source.bucket.as_ref().map_or(paths.join(", "), |bucket| bucket.to_string());
    let what = source.etcd.as_ref().map_or_else(files, etcd_words);
    let mut text = format!("reads {what} as `{}`", source.name);
    let mut without = source.exclude.clone();
    if source.exclude_caches {
        without.push("tagged caches".into());
    }
    if source.one_file_system {
        without.push("other file systems".into());
    }
    if !without.is_empty() {
        text.push_str(&format!(", without {}", without.join(", ")));
    }
    if !source.tags.is_empty() {
        text.push_str(&format!("; tags {}", source.tags.join(", ")));
    }
    text
}

fn schedule(calendar: &Calendar) -> Vec<String> {
    let crons = [Task::Incremental, Task::Full].map(|task| (task, calendar.cron(task)));
    let due: Vec<String> =
        crons.iter().filter_map(|(task, cron)| Some(format!("{} `{}`", task.name(), (*cron)?.text()))).collect();
    let mut said = Vec::new();
    said.push(match due.is_empty() {
        true => "no backup is scheduled: start it by hand".into(),
        false => format!("backups: {} ({})", due.join(", "), calendar.zone()),
    });
    if calendar.jitter_ms() > 0 {
        said.push(format!("runs start up to {} later than due", duration::text(calendar.jitter_ms())));
    }
    for blackout in calendar.blackouts() {
        let lasts = duration::text(blackout.duration_ms());
        said.push(format!("no run starts from `{}` for {lasts}; what is due then waits", blackout.start().text()));
    }
    if let Some(deadline) = calendar.starting_deadline_ms() {
        said.push(format!("a run that could not start within {} is missed", duration::text(deadline)));
    }
    said
}

fn retention(rules: &Retention) -> String {
    if rules.keeps_all() {
        return "keeps every snapshot".into();
    }
    let counts = [
        (rules.last, "newest"),
        (rules.hourly, "hourly"),
        (rules.daily, "daily"),
        (rules.weekly, "weekly"),
        (rules.monthly, "monthly"),
        (rules.yearly, "yearly"),
    ];
    let mut kept: Vec<String> =
        counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
    if rules.within_ms > 0 {
        kept.push(format!("all of the last {}", duration::text(rules.within_ms)));
    }
    format!("keeps of each source {}; the last good snapshot always", kept.join(", "))
}
