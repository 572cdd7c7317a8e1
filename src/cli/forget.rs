//! `holdfast forget`: by id, or by rules.

use super::args::Forget;
use super::common::{Context, passes};
use super::found;
use super::named;
use super::output::{Outcome, plain};
use super::recorded::Recorded;
use crate::error::{Error, Kind, Result};
use crate::format::run::RunKind;
use crate::format::snapshot::Manifest;
use crate::ops::forget::{self, ForgetReport, Target};
use crate::ops::record::Closing;
use crate::ops::retain::{Line, Plan, SourcePlan, Wish};
use crate::policy::{self, Retention};
use crate::repo::Repo;
use crate::repo::view::View;
use serde_json::{Value, json};
use std::sync::Arc;

pub fn run(context: &Context, args: &Forget) -> Result<Outcome> {
    if args.snapshot.is_empty() { by_rules(context, args) } else { by_id(context, args) }
}

/// What was done, and what is to be said of it so far.
type Told = (ForgetReport, String, Value);

/// Records the run, unless it is a dry one.
fn recorded(context: &Context, repo: &Repo, dry_run: bool, act: impl FnOnce() -> Result<Told>) -> Result<Outcome> {
    let recorded = Recorded { kind: RunKind::Forget, repo: Some(repo), id: repo.id, opening: Closing::default() };
    let ((mut report, text, mut value), closed) =
        recorded.run(context, !dry_run, |_| act(), |(report, ..), closing| (closing.forget(report), report.exit()))?;
    closed.iter().for_each(|closed| closed.count_missed(&mut report.behind));
    value["run"] = json!(closed.map(|closed| closed.id.hex()));
    Ok(told(repo, &report, text, value))
}

fn by_id(context: &Context, args: &Forget) -> Result<Outcome> {
    let repo = context.open()?;
    recorded(context, &repo, false, || {
        let view = View::load(&repo)?;
        let chosen = chosen(&view, args)?;
        let report = forget::run(&repo, &view, &chosen, args.last, &args.reason, &context.cancel)?;
        Ok((report, String::new(), json!({"verb": "forget", "dry_run": false})))
    })
}

fn chosen(view: &View, args: &Forget) -> Result<Vec<Target>> {
    let mut chosen: Vec<Target> = Vec::new();
    for text in &args.snapshot {
        if let Some(why) = view.doubt(text) {
            return Err(Error::new(Kind::Refused, why).advise("name what to forget by its id"));
        }
        let target = Target::of(named::snapshot(view, text, &args.filter)?);
        if !chosen.contains(&target) {
            chosen.push(target);
        }
    }
    Ok(chosen)
}

/// What is judged, by which rules.
struct Asked {
    repo: Arc<Repo>,
    wish: Wish,
    /// Only these; `None`: all of the repository.
    sources: Option<Vec<String>>,
    /// Why, for the record.
    reason: String,
}

fn asked(context: &Context, args: &Forget) -> Result<Asked> {
    let accept_small = args.applying.accept_shrunk;
    let Some(name) = &args.rules.policy else {
        let wish = Wish { accept_small, ..by_flags(args)? };
        return Ok(Asked { repo: context.open()?, wish, sources: None, reason: args.reason.clone() });
    };
    let configuration = context.configuration()?;
    let policy = configuration.policy(name)?;
    if !context.global.region.is_empty() {
        let e = Error::new(Kind::Config, format!("policy {name} names its repository"));
        return Err(e.advise("leave --region out"));
    }
    let repository = configuration.repository(Some(policy.repository().as_str()))?;
    let places = context.places_of(repository, policy.copies_min());
    let given = Some(&args.reason).filter(|reason| !reason.is_empty());
    Ok(Asked {
        repo: context.open_at(&places, &context.secret()?)?,
        wish: Wish { rules: policy.retention(), zone: policy.zone(), accept_small },
        sources: Some(policy.sources().iter().map(|source| source.name.clone()).collect()),
        reason: given.cloned().unwrap_or_else(|| policy.retention_reason()),
    })
}

fn by_flags(args: &Forget) -> Result<Wish> {
    let rules = &args.rules;
    let within_ms = rules.keep_within.as_deref().map(policy::span_ms).transpose()?.unwrap_or_default();
    let count = |rule: Option<u32>| rule.unwrap_or_default();
    let rules = Retention {
        last: count(rules.keep_last),
        hourly: count(rules.keep_hourly),
        daily: count(rules.keep_daily),
        weekly: count(rules.keep_weekly),
        monthly: count(rules.keep_monthly),
        yearly: count(rules.keep_yearly),
        within_ms,
    };
    let zone = policy::zone(args.applying.time_zone.as_deref().unwrap_or("UTC"))?;
    Ok(Wish { rules, zone, accept_small: false })
}

fn by_rules(context: &Context, args: &Forget) -> Result<Outcome> {
    let Asked { repo, wish, sources, reason } = asked(context, args)?;
    let judged =
        |m: &Manifest| passes(&args.filter, m) && sources.as_ref().is_none_or(|names| names.contains(&m.source.name));
    let dry_run = args.applying.dry_run;
    recorded(context, &repo, dry_run, || {
        let view = View::load(&repo)?;
        let plan = Plan::make(&repo, &view, &wish, judged)?;
        let brakes: Vec<Value> =
            plan.sources.iter().filter_map(|s| s.brake.map(|why| json!({"source": s.source, "why": why}))).collect();
        let lines = || plan.sources.iter().flat_map(|s| &s.lines);
        let value = json!({
            "verb": "forget", "dry_run": dry_run, "time_zone": wish.zone.name(), "brakes": brakes,
            "plan": lines().map(line_json).collect::<Vec<_>>(),
        });
        if dry_run {
            return Ok((ForgetReport::default(), plan.sources.iter().map(source_text).collect(), value));
        }
        if !args.applying.release_brake {
            plan.check_brakes()?;
        }
        let mut report = forget::run(&repo, &view, &plan.targets(), false, &reason, &context.cancel)?;
        report
            .warnings
            .extend(plan.shrunk().chain(plan.hosts_in_turn()).map(|(source, what)| format!("source {source}: {what}")));
        let stay = lines().filter(|line| line.stays()).count();
        let text = format!("{} forgotten, {stay} stay\n", report.forgotten.len());
        Ok((report, text, value))
    })
}

/// What was done, added to what is known already.
fn told(repo: &Repo, report: &ForgetReport, mut text: String, mut value: Value) -> Outcome {
    for target in &report.forgotten {
        text.push_str(&format!("forgot {} of {}\n", target.sid.short(), plain(&target.source)));
    }
    for (region, why) in &report.behind {
        text.push_str(&format!("BEHIND: region {region}: {why}\n"));
    }
    for warning in &report.warnings {
        text.push_str(&format!("WARNING: {}\n", plain(warning)));
    }
    if text.is_empty() {
        text.push_str("nothing to forget\n");
    }
    value["forgotten"] = report.forgotten.iter().map(|target| json!(target.sid.hex())).collect();
    value["behind"] = report.behind.iter().map(|(r, why)| json!({"region": r, "why": why})).collect();
    value["warnings"] = json!(report.warnings);
    found::add(repo, &mut value, &mut text);
    Outcome::new(report.exit(), text, value)
}

fn reasons(line: &Line) -> Vec<&'static str> {
    line.reasons.iter().map(|reason| reason.name()).collect()
}

fn line_json(line: &Line) -> Value {
    json!({
        "id": line.target.sid.hex(), "source": line.target.source, "host": line.host,
        "time": line.time.rfc3339(), "time_ms": line.time.0, "start_ms": line.start.0,
        "files": line.extent.files, "bytes": line.extent.bytes, "errors_total": line.errors_total,
        "keep": line.stays(), "reasons": reasons(line), "doubt": line.doubt,
    })
}

fn source_text(plan: &SourcePlan) -> String {
    let stay = plan.lines.iter().filter(|line| line.stays()).count();
    let (source, go) = (plain(&plan.source), plan.lines.len() - stay);
    let mut text = format!("{source}: {stay} stay, {go} go\n");
    for line in &plan.lines {
        let (word, why) = match line.stays() {
            true => ("keep", reasons(line).join(", ")),
            false => ("forget", "no rule keeps it".to_owned()),
        };
        let doubt = line.doubt.as_ref().map_or(String::new(), |doubt| format!(" ({doubt})"));
        let errors = if line.errors_total > 0 { format!("  {} errors", line.errors_total) } else { String::new() };
        text.push_str(&format!(
            "  {word:<6}  {}  {}  {}  {why}{doubt}{errors}\n",
            line.target.sid.short(),
            line.time.rfc3339(),
            plain(&line.host),
        ));
    }
    for (word, what) in [("SMALL", plan.shrunk()), ("HOSTS", plan.hosts_in_turn())] {
        text.push_str(&what.map_or(String::new(), |what| format!("  {word}: {}\n", plain(&what))));
    }
    if let Some(why) = plan.brake {
        text.push_str(&format!("  BRAKE: {why}; --release-brake if they may go\n"));
    }
    text
}
