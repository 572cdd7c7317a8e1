//! `holdfast replicate`.

use super::args::Replicate;
use super::common::Context;
use super::found::findings_text;
use super::output::{Outcome, plain};
use super::progress::Shown;
use super::recorded::Recorded;
use crate::base::{Pace, Progress, units};
use crate::error::{Exit, Result};
use crate::format::run::RunKind;
use crate::ops::record::Closing;
use crate::ops::replicate::{self, Depth, Means, RegionReport, Report, Wish};
use crate::policy::Rate;
use serde_json::{Value, json};
use std::sync::Arc;

/// Packs shown by name in text.
const SHOWN_MAX: usize = 20;

pub fn run(context: &Context, args: &Replicate) -> Result<Outcome> {
    let repo = context.open()?;
    let progress = Arc::new(Progress::default());
    let shown = Shown::start("replicating", &progress, context.global.quiet);
    let limit = args.limit_upload.as_ref().map(Rate::bytes);
    repo.regions.slow_down(|| limit.map(|rate| Pace::new(rate, &context.cancel)));
    let means = Means { workers: context.workers(), progress: Some(&progress), cancel: &context.cancel };
    let wish = Wish { depth: Depth::Packs, targets: None, dry_run: args.dry_run, means };
    let recorded = Recorded { kind: RunKind::Replicate, repo: Some(&repo), id: repo.id, opening: Closing::default() };
    let (report, closed) = recorded.run(
        context,
        !args.dry_run,
        |_| replicate::run(&repo, wish),
        |report, closing| (closing.replicate(report), report.exit()),
    )?;
    let elapsed_ms = shown.elapsed_ms();
    drop(shown);
    let mut value = json_of(&report, elapsed_ms);
    value["verb"] = json!("replicate");
    value["run"] = json!(closed.as_ref().map(|closed| closed.id.hex()));
    let missed = closed.is_some_and(|closed| !closed.missed.is_empty());
    let exit = if missed { report.exit().worse(Exit::Behind) } else { report.exit() };
    Ok(Outcome::new(exit, text_of(&report, elapsed_ms), value))
}

fn region_json(region: &RegionReport) -> Value {
    let lack = &region.lack;
    json!({
        "region": region.region, "objects": region.moved.objects, "bytes": region.moved.bytes,
        "snapshots": region.snapshots, "failed": region.failed, "complete": region.is_complete(),
        "lacks": {"packs": lack.packs, "segments": lack.segments, "snapshots": lack.snapshots, "other": lack.small,
            "bytes": lack.bytes},
    })
}

/// What was done, for JSON.
pub fn json_of(report: &Report, elapsed_ms: u64) -> Value {
    let (moved, behind) = (report.moved(), report.behind());
    json!({
        "dry_run": report.dry_run, "seconds": elapsed_ms as f64 / 1000.0,
        "objects": moved.objects, "bytes": moved.bytes, "snapshots": report.snapshots,
        "regions": report.regions.iter().map(region_json).collect::<Vec<_>>(),
        "behind": behind.iter().map(|(region, why)| json!({"region": region, "why": why})).collect::<Vec<_>>(),
        "findings": report.findings.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "nowhere": report.nowhere, "nowhere_total": report.nowhere_total, "copies_min": report.copies_min,
    })
}

/// The same for people.
pub fn text_of(report: &Report, elapsed_ms: u64) -> String {
    let moved = report.moved();
    let mut text = match report.dry_run {
        true => "nothing was written; what each region lacks:\n".to_owned(),
        false => format!(
            "copied {} objects, {}, in {}; {} snapshots in further regions\n",
            units::count(moved.objects),
            units::bytes(moved.bytes),
            units::duration_ms(elapsed_ms),
            units::count(report.snapshots)
        ),
    };
    for region in &report.regions {
        text.push_str(&region_line(region));
    }
    let findings: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
    findings_text(&findings, &mut text);
    if report.nowhere_total > 0 {
        text.push_str(&format!("{} packs are named and in no region:\n", units::count(report.nowhere_total)));
        report.nowhere.iter().take(SHOWN_MAX).for_each(|name| text.push_str(&format!("  {}\n", plain(name))));
    }
    text
}

fn region_line(region: &RegionReport) -> String {
    let (lack, moved) = (&region.lack, &region.moved);
    let state = match (&region.failed, lack.objects()) {
        (Some(why), _) => format!("BEHIND: {}", plain(why)),
        (None, 0) => "complete".to_owned(),
        (None, _) => format!(
            "lacks {} packs, {} segments, {} snapshots, {} others ({}){}",
            units::count(lack.packs),
            units::count(lack.segments),
            units::count(lack.snapshots),
            units::count(lack.small),
            units::bytes(lack.bytes),
            region.waits_for().map_or_else(String::new, |what| format!("; {what}"))
        ),
    };
    format!(
        "  {:<12} {} objects, {} written; {state}\n",
        region.region,
        units::count(moved.objects),
        units::bytes(moved.bytes)
    )
}
