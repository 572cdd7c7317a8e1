//! `holdfast status`.

use super::args::Status as Args;
use super::common::{Context, Places};
use super::output::{Outcome, plain, show};
use super::runs::{existing, run_json};
use crate::base::{TimeMs, units};
use crate::catalog::{Coverage, RunLine, Size};
use crate::error::{Exit, Kind, Result};
use crate::ops::ledger;
use crate::ops::not_begun::NotBegun;
use crate::ops::status::{self, Expected, PolicyStatus, RegionStatus, SourceStatus, Status};
use crate::policy::{self, BackupPolicy, Configuration, Name, local_time};
use crate::repo::open;
use serde_json::{Value, json};
use std::io::IsTerminal;
use std::time::Duration;

/// How often `--watch` looks when it says no number of seconds.
const WATCH_SECONDS: u64 = 5;

pub fn run(context: &Context, args: &Args) -> Result<Outcome> {
    let Some(seconds) = args.watch else { return look(context, args) };
    let seconds = seconds.unwrap_or(WATCH_SECONDS).max(1);
    let screen = std::io::stdout().is_terminal() && !context.global.json;
    loop {
        let outcome = look(context, args)?;
        if screen {
            // Cursor home, and nothing below: what was there before is gone.
            show("\u{1b}[H\u{1b}[2J");
        }
        let exit = outcome.exit;
        outcome.print(context.global.json);
        if context.cancel.wait(Duration::from_secs(seconds)).is_err() {
            return Ok(Outcome::silent(exit));
        }
    }
}

fn look(context: &Context, args: &Args) -> Result<Outcome> {
    let rpo = args.rpo.as_deref().map(policy::duration_ms).transpose()?;
    let now = context.env.now();
    let (places, configuration, refused) = configured(context)?;
    let policies = configuration.as_ref().map(|(all, repository)| of_repository(all, repository)).unwrap_or_default();
    let state = context.state().ok();
    let expected = Expected { policies, rpo, state: state.as_deref() };
    let status = if args.from_regions {
        let repo = context.open_at(&places, &context.secret()?)?;
        let (catalog, _) = ledger::from_regions(&repo)?;
        status::of(Some(&catalog), &repo.regions, now, &expected)
    } else {
        let marked = open::mark(&context.opening(&places))?;
        let catalog = existing(context, &marked.id)?;
        status::of(catalog.as_ref(), &marked.regions, now, &expected)
    };
    let status = status.map_err(|e| ledger::lift(&e))?;
    let exit = match status.exit() {
        exit if refused.is_empty() || matches!(exit, Exit::Failed | Exit::Damage) => exit,
        _ => Exit::Usage,
    };
    let now = now.0;
    let value = json!({
        "verb": "status", "known": status.known, "period_seconds": status.period_ms / 1000, "refused": refused,
        "policies": status.policies.iter().map(policy_json).collect::<Vec<_>>(),
        "sources": status.sources.iter().map(|s| source_json(s, now)).collect::<Vec<_>>(),
        "regions": status.regions.iter().map(|r| region_json(r, now)).collect::<Vec<_>>(),
        "damage": status.damage.iter().map(checked_json).collect::<Vec<_>>(),
    });
    Ok(Outcome::new(exit, text(&status, &refused, exit, now), value))
}

/// Where the repository is, the configuration with its name in it, and what is wrong with that.
type Configured = (Places, Option<(Configuration, Name)>, Vec<String>);

/// The repository and the configuration. Where that has mistakes which do not concern the repository, they are
/// returned, and the rest is told all the same.
fn configured(context: &Context) -> Result<Configured> {
    let e = match context.places_and_configuration() {
        Ok((places, configuration)) => return Ok((places, configuration, Vec::new())),
        Err(e) => e,
    };
    if e.kind() != Kind::Config {
        return Err(e);
    }
    let Ok(places) = context.places() else { return Err(e) };
    let mistakes = std::iter::once(&e).chain(e.more()).map(ToString::to_string).collect();
    Ok((places, None, mistakes))
}

/// The policies that back up into a repository.
fn of_repository<'c>(configuration: &'c Configuration, repository: &Name) -> Vec<&'c BackupPolicy> {
    configuration.policies().iter().filter(|policy| policy.repository() == repository).collect()
}

fn policy_json(policy: &PolicyStatus) -> Value {
    let next = policy.next.iter().map(|(task, due)| json!({"task": task.name(), "due": due.rfc3339()}));
    json!({
        "policy": policy.name, "next": next.collect::<Vec<_>>(),
        "checked": policy.checked.iter().map(checked_json).collect::<Vec<_>>(),
        "not_begun": policy.not_begun.iter().map(not_begun_json).collect::<Vec<_>>(),
    })
}

fn not_begun_json(run: &NotBegun) -> Value {
    json!({"task": run.kind, "time": run.at.rfc3339(), "code": run.exit, "why": run.why})
}

fn age(now: i64, at: i64) -> u64 {
    u64::try_from(now.saturating_sub(at)).unwrap_or(0)
}

fn checked_json(run: &RunLine) -> Value {
    let time = TimeMs(run.start).rfc3339();
    json!({"id": run.id.hex(), "time": time, "code": run.exit, "name": run.exit_name, "how": run.details["how"]})
}

fn source_json(source: &SourceStatus, now: i64) -> Value {
    let copies = source.copies.iter().map(|(region, n)| json!({"region": region, "snapshots": n}));
    json!({
        "source": source.name, "snapshots": source.snapshots, "copies": copies.collect::<Vec<_>>(),
        "behind": source.behind, "missed": source.missed, "broken": source.broken, "policy": source.policy,
        "partial": source.partial, "shrunk": source.shrunk.is_some(),
        "exposed_ms": source.newest.map(|at| age(now, at)),
        "rpo_seconds": source.rpo.map(|ms| ms / 1000),
        "success": source.success.map(|at| TimeMs(at).rfc3339()),
        "success_age_seconds": source.success.map(|at| age(now, at) / 1000),
        "last": source.last.iter().map(run_json).collect::<Vec<_>>(),
    })
}

fn region_json(region: &RegionStatus, now: i64) -> Value {
    let coverage = region.coverage.as_ref();
    let last = coverage.and_then(|c| c.last);
    json!({
        "region": region.name, "failed": region.failed,
        "packs": coverage.map(|c| c.packs), "damaged": coverage.map(|c| c.damaged),
        "coverage": coverage.and_then(Coverage::share), "overdue": region.overdue,
        "oldest_age_seconds": coverage.and_then(|c| c.oldest).map(|at| age(now, at) / 1000),
        "verified": last.map(|(at, _)| TimeMs(at).rfc3339()), "level": last.map(|(_, level)| level.name()),
    })
}

fn text(status: &Status, refused: &[String], exit: Exit, now: i64) -> String {
    let mut text = String::new();
    refused.iter().for_each(|mistake| text.push_str(&format!("CONFIGURATION REFUSED: {}\n", plain(mistake))));
    if !status.known {
        let what =
            "no catalog here that was filled: `holdfast catalog rebuild` makes one, --from-regions does without\n";
        text.push_str(what);
    }
    for policy in &status.policies {
        policy_text(policy, now, &mut text);
        let own = |source: &&SourceStatus| source.policy.as_ref() == Some(&policy.name);
        status.sources.iter().filter(own).for_each(|source| source_text(source, now, &mut text));
    }
    let mut others = status.sources.iter().filter(|source| source.policy.is_none()).peekable();
    if others.peek().is_some() && !status.policies.is_empty() {
        text.push_str("in no policy\n");
    }
    others.for_each(|source| source_text(source, now, &mut text));
    status.regions.iter().for_each(|region| region_text(region, status.period_ms, now, &mut text));
    if let Some(run) = &status.damage {
        let (id, ago) = (run.id.short(), units::duration_ms(age(now, run.start)));
        text.push_str(&format!(
            "DAMAGED: run {id}, {ago} ago, found more than packs: holdfast runs, holdfast verify\n"
        ));
    }
    text.push_str(match exit {
        Exit::Done => "healthy\n",
        Exit::Behind => "BEHIND: a region lacks something or cannot be used\n",
        Exit::Partial => "PARTIAL: a last backup could not read everything\n",
        Exit::Damage => "DAMAGED: a verification found damage that none has seen mended\n",
        Exit::Refused => "SHRUNK: a source is suddenly small\n",
        Exit::Usage => "UNKNOWN: with this configuration no policy is run\n",
        _ if !status.known => "UNKNOWN: nothing here says how it is\n",
        _ => "UNHEALTHY: a last run failed, there is no snapshot, or an objective is missed\n",
    });
    text
}

fn policy_text(policy: &PolicyStatus, now: i64, text: &mut String) {
    let next = policy.next.iter().map(|(task, due)| format!("{} {}", task.name(), local_time(policy.zone, *due)));
    let next: Vec<String> = next.collect();
    let next = if next.is_empty() { "nothing is scheduled".to_owned() } else { format!("next: {}", next.join(", ")) };
    text.push_str(&format!("policy {}  {next}\n", plain(&policy.name)));
    if let Some(run) = &policy.checked {
        let ago = units::duration_ms(age(now, run.start));
        let word = if policy.unchecked() { "FAILED: " } else { "" };
        text.push_str(&format!("  checked {ago} ago: {word}{}\n", plain(&run.exit_name)));
    }
    if let Some(run) = &policy.not_begun {
        let (ago, kind) = (units::duration_ms(age(now, run.at.0)), plain(&run.kind));
        text.push_str(&format!("  COULD NOT RUN ({kind}) {ago} ago: {}\n", plain(&run.why)));
    }
}

fn source_text(source: &SourceStatus, now: i64, text: &mut String) {
    let success = match source.success {
        Some(at) => format!("{} ago", units::duration_ms(age(now, at))),
        None => "never".to_owned(),
    };
    let of = |rpo: i64| format!(" of {}", units::duration_ms(u64::try_from(rpo).unwrap_or(0)));
    let rpo = source.rpo.map(of).unwrap_or_default();
    let missed = if source.missed { "  OBJECTIVE MISSED" } else { "" };
    text.push_str(&format!("  {}: last success {success}{rpo}{missed}\n", plain(&source.name)));
    if let (true, Some(at)) = (source.cluster, source.newest) {
        let exposed = units::duration_ms(age(now, at));
        text.push_str(&format!("    the newest state of the cluster that can be restored is {exposed} old\n"));
    }
    if let Some(last) = &source.last {
        let error = last.details["error"].as_str().map_or_else(String::new, |e| format!(": {}", plain(e)));
        let word = if source.broken { "FAILED: " } else { "" };
        let name = plain(&last.exit_name);
        text.push_str(&format!("    last run {}  {word}{name}{error}\n", TimeMs(last.start).rfc3339()));
    }
    if let Some((now, before)) = &source.shrunk {
        let held = |size: &Size| format!("{} files, {}", units::count(size.files), units::bytes(size.bytes));
        let when = TimeMs(before.start).rfc3339();
        text.push_str(&format!(
            "    SHRUNK: its newest snapshot holds {}; that of {when} {}\n",
            held(now),
            held(before)
        ));
    }
    if source.bare() {
        text.push_str("    NO SNAPSHOT\n");
    }
    let copies: Vec<String> = source.copies.iter().map(|(name, n)| format!("{name} {}", units::count(*n))).collect();
    text.push_str(&format!("    {} snapshots; {}\n", units::count(source.snapshots), copies.join(", ")));
}

fn region_text(region: &RegionStatus, period_ms: i64, now: i64, text: &mut String) {
    text.push_str(&format!("region {}", region.name));
    if let Some(why) = &region.failed {
        text.push_str(&format!("  NOT USED: {why}"));
    }
    text.push('\n');
    let Some(coverage) = &region.coverage else { return };
    let ago = |at: i64| units::duration_ms(age(now, at));
    let verified = match coverage.last {
        Some((at, level)) => format!("verified {} ago at level {}", ago(at), level.name()),
        None => "never verified".to_owned(),
    };
    let share = coverage.share().map_or_else(String::new, |s| {
        let period = units::duration_ms(u64::try_from(period_ms).unwrap_or(0));
        format!("; {:.0}% of {} packs within {period}", (s * 100.0).floor(), units::count(coverage.packs))
    });
    let oldest = coverage.oldest.map_or_else(String::new, |at| format!(", the oldest unread for {}", ago(at)));
    let overdue = if region.overdue { "  OVERDUE" } else { "" };
    text.push_str(&format!("  {verified}{share}{oldest}{overdue}\n"));
    if coverage.damaged > 0 {
        text.push_str(&format!("  DAMAGED: {} packs\n", units::count(coverage.damaged)));
    }
}
