//! `holdfast run`.

use super::args::{KindArg, Run};
use super::common::Context;
use super::output::{Outcome, plain, remark};
use crate::base::units;
use crate::daemon::alert::Told;
use crate::daemon::entrusted;
use crate::daemon::hook::HookEnd;
use crate::daemon::round::{self, Telling};
use crate::daemon::run::{Fate, Report, Surroundings};
use crate::error::{Error, Exit, Kind, Result};
use crate::policy::{BackupPolicy, Coming, MAY_SHRINK, Task, local_time};
use crate::repo::Repo;
use crate::unlock::Unlock;
use serde_json::{Value, json};
use std::sync::Arc;

pub fn run(context: &Context, args: &Run) -> Result<Outcome> {
    let configuration = context.configuration()?;
    let policy = configuration.policy(&args.policy)?;
    let kind = match args.kind {
        KindArg::Incremental => Task::Incremental,
        KindArg::Full => Task::Full,
        KindArg::Verify => Task::Verify,
        KindArg::Prune => Task::Prune,
    };
    if args.accept_shrunk && !kind.is_backup() {
        let what = format!("{} makes no snapshot that could say that a source is right as it is", kind.name());
        let e = Error::new(Kind::Config, what);
        return Err(e.advise("use --accept-shrunk with a backup"));
    }
    let accepted = args.accept_shrunk.then(|| policy.tagged(MAY_SHRINK));
    let policy = accepted.as_ref().unwrap_or(policy);
    let repository = configuration.repository(Some(policy.repository().as_str()))?;
    if args.scheduled
        && let Some(other) = wait(context, policy, kind)?
    {
        return Ok(gave_way(context, policy, kind, &other));
    }
    // A run without a key fails like any other: who wants to know of failures is told.
    let secret: Result<Unlock> = context.secret();
    let open = |repository: &_, copies_min| -> Result<Arc<Repo>> {
        context.open_at(&context.places_of(repository, copies_min), secret.as_ref().map_err(Clone::clone)?)
    };
    let around = Surroundings {
        open: &open,
        say: &|text| remark(&plain(text)),
        env: &context.env,
        state: &context.state()?,
        cancel: &context.cancel,
        workers: context.workers(),
        over: None,
        tally: None,
    };
    let telling = Telling { again: &|_| false, aside: None };
    let report = round::run(&around, policy, repository, kind, (policy.retries(), Vec::new()), &telling)?;
    Ok(outcome(context, &report))
}

/// Waits for the run's turn; the other run where there is one to give way to.
fn wait(context: &Context, policy: &BackupPolicy, kind: Task) -> Result<Option<Coming>> {
    entrusted::wait(policy.calendar(), kind, &context.env, &context.cancel, &|text| remark(&plain(text)))
}

/// Nothing was to be done.
fn gave_way(context: &Context, policy: &BackupPolicy, kind: Task, other: &Coming) -> Outcome {
    let due = other.due.rfc3339();
    let report = Report::new(policy, kind);
    let mut outcome = outcome(context, &report);
    outcome.json["gave_way_to"] = json!({"task": other.task.name(), "due": due});
    let (name, at) = (other.task.name(), local_time(policy.zone(), other.due));
    outcome.text = format!("{} ({}): gives way to the {name} that is due {at}", policy.name(), kind.name());
    Outcome { exit: Exit::Done, ..outcome }
}

fn outcome(context: &Context, report: &Report) -> Outcome {
    let now = context.env.now();
    let age = |at: i64| u64::try_from(now.0.saturating_sub(at)).unwrap_or(0);
    let sources: Vec<_> = report
        .sources
        .iter()
        .map(|s| {
            json!({"source": s.source, "fate": s.fate.name(), "exit": s.exit as u8,
                "snapshot": s.snapshot.map(|sid| sid.hex()), "why": s.why, "forgotten": s.forgotten})
        })
        .collect();
    let mut value = json!({
        "verb": "run", "policy": report.policy, "kind": report.kind.name(), "attempts": report.attempts,
        "sources": sources, "sources_total": report.sources.len(), "findings": [],
        "hooks": report.hooks().map(hook_json).collect::<Vec<_>>(),
        "alerts": report.alerts.iter().map(alert_json).collect::<Vec<_>>(),
    });
    value["coverage"] = report
        .coverage
        .iter()
        .map(|part| {
            json!({"region": part.region.name, "packs": part.packs, "damaged": part.damaged, "share": part.share(),
                "oldest_age_seconds": part.oldest.map(|at| age(at) / 1000)})
        })
        .collect();
    for fate in Fate::ALL {
        value[fate.name()] = report.count(fate).into();
    }
    if let Some(verified) = &report.verified {
        value["findings"] = verified.findings.iter().map(ToString::to_string).collect::<Vec<_>>().into();
    }
    if let Some(pruned) = &report.pruned {
        value["findings"] = pruned.findings.iter().map(ToString::to_string).collect::<Vec<_>>().into();
        value["pruned"] = json!({
            "epoch": pruned.epoch.map(|epoch| epoch.0), "packs": pruned.removed().packs, "bytes": pruned.removed().bytes,
            "stopped": pruned.stopped.map(|why| why.name()), "alarms": pruned.alarms,
        });
    }
    let mut text = String::new();
    for part in &report.coverage {
        let share = part.share().map_or(0.0, |share| (share * 100.0).floor());
        let oldest = part.oldest.map(|at| format!(", the oldest unread for {}", units::duration_ms(age(at))));
        let (region, packs) = (plain(&part.region.name), units::count(part.packs));
        text.push_str(&format!("  {region}: {share}% of {packs} packs verified{}\n", oldest.unwrap_or_default()));
    }
    for end in &report.sources {
        let sid = end.snapshot.map(|sid| format!(", snapshot {}", sid.short())).unwrap_or_default();
        let gone = if end.forgotten > 0 { format!(", {} older forgotten", end.forgotten) } else { String::new() };
        text.push_str(&format!("  {}: {}{sid}{gone}\n", plain(&end.source), end.fate.name()));
    }
    for hook in report.hooks().filter_map(HookEnd::failure) {
        text.push_str(&format!("  {} FAILED\n", plain(&hook)));
    }
    for alert in &report.alerts {
        let how = alert.why.as_ref().map_or("sent".into(), |why| format!("NOT SENT: {why}"));
        text.push_str(&format!("  alert {}: {}\n", alert.name, plain(&how)));
    }
    text.push_str(&plain(&report.summary()));
    Outcome::new(report.exit(), text, value)
}

fn hook_json(hook: &HookEnd) -> Value {
    json!({
        "when": hook.when.name(), "source": hook.source, "program": hook.program, "seconds": hook.ms as f64 / 1000.0,
        "why": hook.why,
    })
}

fn alert_json(alert: &Told) -> Value {
    let events: Vec<&str> = alert.events.iter().map(|event| event.name()).collect();
    json!({
        "name": alert.name, "events": events, "sent": alert.why.is_none(), "attempts": alert.attempts, "why": alert.why,
    })
}
