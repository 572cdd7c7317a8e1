//! `holdfast policy`.

use super::args::{PolicyNext, PolicyVerb};
use super::common::Context;
use super::configuration;
use super::output::{Outcome, plain, remark};
use crate::base::{TimeMs, units};
use crate::error::{Error, Exit, Result};
use crate::policy::{
    self, BackupPolicy, Change, Coming, Configuration, Start, changes, local_time, retention_effect, sentences,
    yaml_text,
};
use serde_json::{Value, json};
use std::path::Path;

const DAY_MS: i64 = 86_400_000;
/// Days shown when nothing is said.
const DAYS: u32 = 7;
/// Most runs of a policy that are shown.
const RUNS_MAX: usize = 10_000;

pub fn run(context: &Context, verb: &PolicyVerb) -> Result<Outcome> {
    match verb {
        PolicyVerb::Check => check(context),
        PolicyVerb::Show { name } => show(context, name.as_deref()),
        PolicyVerb::Next(args) => next(context, args),
        PolicyVerb::Diff { old, new } => diff(context, old, new),
        PolicyVerb::Schema => {
            let text = format!("{:#}", policy::schema());
            Ok(Outcome::new(Exit::Done, text, json!({"verb": "policy schema", "schema": policy::schema()})))
        }
    }
}

/// One policy, or all.
fn chosen<'c>(configuration: &'c Configuration, name: Option<&str>) -> Result<Vec<&'c BackupPolicy>> {
    match name {
        Some(name) => Ok(vec![configuration.policy(name)?]),
        None => Ok(configuration.policies().iter().collect()),
    }
}

fn check(context: &Context) -> Result<Outcome> {
    let files = configuration::files(context.global.config.as_deref())?;
    let checked = policy::check(&configuration::texts(&files))?;
    let configuration = &checked.configuration;
    let now = context.env.now();
    let (mut text, mut policies) = (String::new(), Vec::new());
    for policy in configuration.policies() {
        let said = sentences(policy, configuration.repository(Some(policy.repository().as_str()))?);
        text.push_str(&format!("policy {} [{}]\n", policy.name(), plain(policy.place())));
        said.iter().for_each(|one| text.push_str(&format!("  {}\n", plain(one))));
        let next = policy.calendar().coming(now, TimeMs(i64::MAX), 1);
        if let Some(next) = next.first() {
            text.push_str(&format!("  next: {}\n", run_text(policy, next)));
        }
        policies.push(json!({
            "name": policy.name().as_str(), "repository": policy.repository().as_str(),
            "where": policy.place(), "does": said, "next": next.first().map(|run| run.at().rfc3339()),
        }));
    }
    let repositories: Vec<&str> = configuration.repositories().iter().map(|r| r.name().as_str()).collect();
    for warning in &checked.warnings {
        text.push_str(&format!("warning: {}\n", plain(&warning.to_string())));
    }
    let many =
        |n: usize, one: &str, more: &str| format!("{} {}", units::count(n as u64), if n == 1 { one } else { more });
    text.push_str(&format!(
        "{}, {}, {}: no mistake
",
        many(files.len(), "file", "files"),
        many(repositories.len(), "repository", "repositories"),
        many(policies.len(), "policy", "policies")
    ));
    let warning = |e: &Error| json!({"what": e.what(), "where": e.place(), "advice": e.advice()});
    let warnings: Vec<Value> = checked.warnings.iter().map(warning).collect();
    let value = json!({
        "verb": "policy check", "files": files.len(), "repositories": repositories, "policies": policies,
        "warnings": warnings,
    });
    Ok(Outcome::new(Exit::Done, text, value))
}

fn show(context: &Context, name: Option<&str>) -> Result<Outcome> {
    let configuration = context.configuration()?;
    let chosen = chosen(&configuration, name)?;
    let documents: Vec<Value> = chosen.iter().map(|policy| json!(policy.effective())).collect();
    let text: Vec<String> = documents.iter().map(yaml_text).collect();
    let one = |(policy, document): (&&BackupPolicy, &Value)| json!({"name": policy.name().as_str(), "where": policy.place(), "document": document});
    let policies: Vec<Value> = chosen.iter().zip(&documents).map(one).collect();
    let value = json!({"verb": "policy show", "policies": policies});
    Ok(Outcome::new(Exit::Done, text.join("---\n"), value))
}

fn next(context: &Context, args: &PolicyNext) -> Result<Outcome> {
    let configuration = context.configuration()?;
    let now = context.env.now();
    let (until, count) = match (args.count, args.days.unwrap_or(DAYS)) {
        (Some(count), _) => (TimeMs(i64::MAX), count as usize),
        (None, days) => (TimeMs(now.0 + i64::from(days) * DAY_MS), RUNS_MAX),
    };
    let mut runs: Vec<(&BackupPolicy, Coming)> = Vec::new();
    for policy in chosen(&configuration, args.name.as_deref())? {
        let coming = policy.calendar().coming(now, until, count);
        if coming.len() == RUNS_MAX {
            remark(&format!(
                "policy {}: only the first {} runs are shown",
                policy.name(),
                units::count(RUNS_MAX as u64)
            ));
        }
        runs.extend(coming.into_iter().map(|run| (policy, run)));
    }
    runs.sort_by_key(|(policy, run)| (run.at(), policy.name().clone(), run.task));
    let line = |(policy, run): &(&BackupPolicy, Coming)| format!("{}  {}\n", run_text(policy, run), policy.name());
    let mut text: String = runs.iter().map(line).collect();
    if runs.is_empty() {
        text.push_str("nothing is scheduled in this time\n");
    }
    let one = |(policy, run): &(&BackupPolicy, Coming)| {
        let mut value = run_json(run);
        value["policy"] = policy.name().as_str().into();
        value
    };
    let value = json!({"verb": "policy next", "runs": runs.iter().map(one).collect::<Vec<_>>()});
    Ok(Outcome::new(Exit::Done, text, value))
}

/// When, what, and why then.
fn run_text(policy: &BackupPolicy, run: &Coming) -> String {
    let zone = policy.zone();
    let mut text = format!("{}  {:<11}", local_time(zone, run.at()), run.task.name());
    let mut notes = Vec::new();
    match run.start {
        Start::At(at) if at > run.due => {
            let why = if policy.calendar().blackout_end(run.due).is_some() {
                "waits for the end of a blackout"
            } else {
                "moved by jitter"
            };
            notes.push(format!("due {}, {why}", local_time(zone, run.due)));
        }
        Start::At(_) => {}
        Start::Missed(end) => {
            notes.push(format!("MISSED: a blackout lasts until {}, too long to wait", local_time(zone, end)));
        }
    }
    if let Some((first, _)) = run.instead_of.first() {
        let also = run.instead_of.len();
        let what = if also == 1 { format!("the {}", first.name()) } else { format!("{also} others") };
        notes.push(format!("instead of {what}"));
    }
    if !notes.is_empty() {
        text.push_str(&format!("  ({})", notes.join("; ")));
    }
    text
}

fn run_json(run: &Coming) -> Value {
    let (start, missed) = match run.start {
        Start::At(at) => (Some(at.rfc3339()), None),
        Start::Missed(end) => (None, Some(end.rfc3339())),
    };
    json!({
        "task": run.task.name(), "due": run.due.rfc3339(), "start": start, "missed_until": missed,
        "instead_of": run.instead_of.iter().map(|(task, due)| due_json(*task, *due)).collect::<Vec<_>>(),
    })
}

fn diff(context: &Context, old: &Path, new: &Path) -> Result<Outcome> {
    let read = |path: &Path| policy::load(&configuration::texts(&configuration::files(Some(path))?));
    let (old, new) = (read(old)?, read(new)?);
    let found = changes(&old, &new);
    let mut text: String = found.iter().map(change_text).collect();
    if found.is_empty() {
        text.push_str("the configurations mean the same\n");
    }
    let now = context.env.now();
    let mut effects = Vec::new();
    for before in old.policies() {
        if let Some(after) = new.policies().iter().find(|p| p.name() == before.name()) {
            effects.extend(effect(before, after, now, &mut text));
        }
    }
    let change =
        |c: &Change| json!({"document": c.document, "field": c.path, "old": shown(&c.old), "new": shown(&c.new)});
    let changes: Vec<Value> = found.iter().map(change).collect();
    Ok(Outcome::new(Exit::Done, text, json!({"verb": "policy diff", "changes": changes, "policies": effects})))
}

/// What a change of a policy does to its runs and to its snapshots.
fn effect(before: &BackupPolicy, after: &BackupPolicy, now: TimeMs, text: &mut String) -> Option<Value> {
    let (old_runs, new_runs) = (week(before, now), week(after, now));
    let rules = (before.retention(), before.zone()) != (after.retention(), after.zone());
    if old_runs == new_runs && !rules {
        return None;
    }
    let (added, dropped) = (only_in(&new_runs, &old_runs), only_in(&old_runs, &new_runs));
    let (name, old, new) = (before.name(), old_runs.len(), new_runs.len());
    text.push_str(&format!("policy {name}: {old} runs in the next {DAYS} days before, {new} after\n"));
    dropped.iter().for_each(|run| text.push_str(&format!("  - {}\n", run_text(before, run))));
    added.iter().for_each(|run| text.push_str(&format!("  + {}\n", run_text(after, run))));
    let kept = retention_effect(before, after, now);
    if rules {
        text.push_str(&format!(
            "  of {} snapshots of a source that the old schedule made, {} are kept now and {} will be",
            kept.made, kept.kept_old, kept.kept_new
        ));
        let (lost, zone) = (kept.lost.len(), after.zone());
        let newest = kept.lost.first().map(|at| format!("; {lost} no more, the newest of {}", local_time(zone, *at)));
        text.push_str(&newest.unwrap_or_default());
        text.push('\n');
    }
    let runs = |runs: &[&Coming]| runs.iter().map(|run| due_json(run.task, run.due)).collect::<Vec<_>>();
    let lost: Vec<String> = kept.lost.iter().map(|at| at.rfc3339()).collect();
    Some(json!({
        "policy": name.as_str(), "added": runs(&added), "dropped": runs(&dropped),
        "retention": {"made": kept.made, "kept_old": kept.kept_old, "kept_new": kept.kept_new, "lost": lost},
    }))
}

fn due_json(task: policy::Task, due: TimeMs) -> Value {
    json!({"task": task.name(), "due": due.rfc3339()})
}

/// The runs of the next days.
fn week(policy: &BackupPolicy, now: TimeMs) -> Vec<Coming> {
    policy.calendar().coming(now, TimeMs(now.0 + i64::from(DAYS) * DAY_MS), RUNS_MAX)
}

fn only_in<'r>(these: &'r [Coming], those: &[Coming]) -> Vec<&'r Coming> {
    these.iter().filter(|run| !those.contains(run)).collect()
}

/// A value on one line.
fn shown(value: &Option<Value>) -> Option<String> {
    value.as_ref().map(|value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    })
}

fn change_text(change: &Change) -> String {
    let document = &change.document;
    match (&change.old, &change.new) {
        (None, _) if change.path.is_empty() => format!("+ {document}\n"),
        (_, None) if change.path.is_empty() => format!("- {document}\n"),
        (old, new) => {
            let side = |value: &Option<Value>| shown(value).map_or("nothing".into(), |text| plain(&text));
            format!("~ {document}: {}: {} -> {}\n", change.path, side(old), side(new))
        }
    }
}
