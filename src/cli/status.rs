//! `holdfast status`.

use super::args::Status as Args;
use super::common::Context;
use super::output::{Outcome, plain};
use super::runs::{existing, run_json};
use crate::base::{TimeMs, units};
use crate::catalog::Coverage;
use crate::error::{Exit, Result};
use crate::ops::ledger;
use crate::ops::status::{self, RegionStatus, SourceStatus, Status};
use crate::policy;
use crate::repo::open;
use serde_json::{Value, json};

pub fn run(context: &Context, args: &Args) -> Result<Outcome> {
    let rpo = args.rpo.as_deref().map(policy::duration_ms).transpose()?;
    let now = context.env.now().0;
    let places = context.places()?;
    let status = if args.from_regions {
        let repo = context.open_at(&places, &context.secret()?)?;
        let (catalog, _) = ledger::from_regions(&repo)?;
        status::of(Some(&catalog), &repo.regions, now, rpo)
    } else {
        let marked = open::mark(&context.opening(&places))?;
        let catalog = existing(context, &marked.id)?;
        status::of(catalog.as_ref(), &marked.regions, now, rpo)
    };
    let status = status.map_err(|e| ledger::lift(&e))?;
    let exit = status.exit();
    let value = json!({
        "verb": "status", "known": status.known,
        "sources": status.sources.iter().map(|s| source_json(s, now)).collect::<Vec<_>>(),
        "regions": status.regions.iter().map(|r| region_json(r, now)).collect::<Vec<_>>(),
    });
    Ok(Outcome::new(exit, text(&status, exit, now), value))
}

fn age(now: i64, at: i64) -> u64 {
    u64::try_from(now.saturating_sub(at)).unwrap_or(0)
}

fn source_json(source: &SourceStatus, now: i64) -> Value {
    let copies = source.copies.iter().map(|(region, n)| json!({"region": region, "snapshots": n}));
    json!({
        "source": source.name, "snapshots": source.snapshots, "copies": copies.collect::<Vec<_>>(),
        "behind": source.behind, "missed": source.missed,
        "success": source.success.map(|at| TimeMs(at).rfc3339()),
        "success_age_seconds": source.success.map(|at| age(now, at) / 1000),
        "last": source.last.iter().map(run_json).collect::<Vec<_>>(),
    })
}

/// Share of packs that count as verified; `None` where no pack is known.
fn share(coverage: &Coverage) -> Option<f64> {
    (coverage.packs > 0).then(|| coverage.recent as f64 / coverage.packs as f64)
}

fn region_json(region: &RegionStatus, now: i64) -> Value {
    let coverage = region.coverage.as_ref();
    let last = coverage.and_then(|c| c.last);
    json!({
        "region": region.name, "failed": region.failed,
        "packs": coverage.map(|c| c.packs), "damaged": coverage.map(|c| c.damaged),
        "coverage": coverage.and_then(share),
        "oldest_age_seconds": coverage.and_then(|c| c.oldest).map(|at| age(now, at) / 1000),
        "verified": last.map(|(at, _)| TimeMs(at).rfc3339()), "level": last.map(|(_, level)| level.name()),
    })
}

fn text(status: &Status, exit: Exit, now: i64) -> String {
    let mut text = String::new();
    if !status.known {
        text.push_str("no catalog here: `holdfast catalog rebuild` makes one, --from-regions does without\n");
    }
    status.sources.iter().for_each(|source| source_text(source, now, &mut text));
    status.regions.iter().for_each(|region| region_text(region, now, &mut text));
    text.push_str(match exit {
        Exit::Done => "healthy\n",
        Exit::Behind => "BEHIND: a region lacks something or cannot be used\n",
        Exit::Damage => "DAMAGED: a verification found damage that none has seen mended\n",
        _ => "MISSED: the last success of a source is older than the objective\n",
    });
    text
}

fn source_text(source: &SourceStatus, now: i64, text: &mut String) {
    let success = match source.success {
        Some(at) => format!("{} ago", units::duration_ms(age(now, at))),
        None => "never".to_owned(),
    };
    let missed = if source.missed { "  OBJECTIVE MISSED" } else { "" };
    text.push_str(&format!("{}\n  last success {success}{missed}\n", plain(&source.name)));
    if let Some(last) = &source.last {
        let error = last.details["error"].as_str().map_or_else(String::new, |e| format!(": {}", plain(e)));
        text.push_str(&format!("  last run {}  {}{error}\n", TimeMs(last.start).rfc3339(), last.exit_name));
    }
    let copies: Vec<String> = source.copies.iter().map(|(name, n)| format!("{name} {}", units::count(*n))).collect();
    text.push_str(&format!("  {} snapshots; {}\n", units::count(source.snapshots), copies.join(", ")));
}

fn region_text(region: &RegionStatus, now: i64, text: &mut String) {
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
    let share = share(coverage).map_or_else(String::new, |s| {
        format!("; {:.0}% of {} packs within 30 days", (s * 100.0).floor(), units::count(coverage.packs))
    });
    let oldest = coverage.oldest.map_or_else(String::new, |at| format!(", the oldest unread for {}", ago(at)));
    text.push_str(&format!("  {verified}{share}{oldest}\n"));
    if coverage.damaged > 0 {
        text.push_str(&format!("  DAMAGED: {} packs\n", units::count(coverage.damaged)));
    }
}
