//! `holdfast policy`.

use super::args::{PolicyNext, PolicyVerb};
use super::coming::{DAY_MS, DAYS, RUNS_MAX, due_json, run_text};
use super::common::Context;
use super::configuration;
use super::output::{Outcome, plain, remark};
use super::policy_diff;
use crate::base::{TimeMs, units};
use crate::error::{Error, Exit, Result};
use crate::policy::{self, BackupPolicy, Coming, Configuration, Start, sentences, yaml_text};
use serde_json::{Value, json};

pub fn run(context: &Context, verb: &PolicyVerb) -> Result<Outcome> {
    match verb {
        PolicyVerb::Check => check(context),
        PolicyVerb::Show { name } => show(context, name.as_deref()),
        PolicyVerb::Next(args) => next(context, args),
        PolicyVerb::Diff { old, new, snapshots } => policy_diff::run(context, old, new, *snapshots),
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
