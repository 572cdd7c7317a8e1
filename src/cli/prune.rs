//! `holdfast prune`.

use super::args::Prune;
use super::common::Context;
use super::found;
use super::output::{Outcome, plain, remark};
use super::recorded::Recorded;
use crate::base::units;
use crate::error::{Exit, Result};
use crate::format::run::RunKind;
use crate::ops::prune::{self, Bounds, Limits, Line, RegionReport, Report, Stopped, Sum, Wish};
use crate::ops::record::Closing;
use crate::policy;
use crate::region::RegionSet;
use crate::repo::Repo;
use crate::source::files;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Packs shown by name in text.
const SHOWN_MAX: usize = 20;

pub fn run(context: &Context, args: &Prune) -> Result<Outcome> {
    let time = |text: &str| policy::duration_ms(text).map(|ms| Duration::from_millis(ms.unsigned_abs()));
    let host = files::hostname();
    let wish = Wish {
        dry_run: args.dry_run,
        grace: time(&args.grace)?,
        wait: time(&args.wait)?,
        dead_after: time(&args.dead_after)?,
        last: &args.last,
        lost: &args.lost,
        repack: Limits {
            above_percent: args.repack_above,
            bytes_max: policy::size(&args.repack_max)?,
            small_min: args.repack_small,
        },
        bounds: Bounds { time: args.stop_after.as_deref().map(time).transpose()?, removals_max: args.removals_max },
        workers: context.workers(),
        host: &host,
        cancel: &context.cancel,
    };
    let repo = context.open()?;
    let begun = Instant::now();
    let recorded = Recorded { kind: RunKind::Prune, repo: Some(&repo), id: repo.id, opening: Closing::default() };
    let (report, closed) = recorded.run(
        context,
        !args.dry_run,
        |_| prune::run(&repo, &wish),
        |report, closing| (closing.prune(report), report.exit()),
    )?;
    let seconds = begun.elapsed().as_secs_f64();
    let mut exit = report.exit();
    if closed.as_ref().is_some_and(|closed| !closed.missed.is_empty()) {
        exit = exit.worse(Exit::Behind);
    }
    let mut value = json_of(&repo, &report, seconds);
    value["run"] = json!(closed.map(|closed| closed.id.hex()));
    let mut text = text_of(&repo, &report, seconds);
    let findings: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
    found::findings_text(&findings, &mut text);
    if !context.global.quiet && context.global.json {
        report.alarms.iter().for_each(|alarm| remark(&plain(&format!("warning: {alarm}"))));
    }
    Ok(Outcome::new(exit, text, value))
}

fn names(repo: &Repo, regions: RegionSet) -> Vec<&str> {
    regions.iter().map(|ix| repo.regions.region(ix).name.as_str()).collect()
}

fn sum_json(sum: Sum) -> Value {
    json!({"packs": sum.packs, "bytes": sum.bytes})
}

fn line_json(repo: &Repo, line: &Line) -> Value {
    json!({
        "pack": line.name.hex(), "bytes": line.size, "reason": line.reason.name(), "regions": names(repo, line.regions),
    })
}

fn region_json(region: &RegionReport) -> Value {
    let planned = region.planned.iter().map(|(reason, sum)| (reason.name().to_owned(), sum_json(*sum)));
    json!({
        "region": region.region, "planned": Value::Object(planned.collect()), "removed": sum_json(region.removed),
        "postponed": sum_json(region.postponed), "why": region.why, "segments": region.segments,
        "snapshots": region.snapshots, "sessions": region.sessions, "left": region.left, "failed": region.failed,
    })
}

fn json_of(repo: &Repo, report: &Report, seconds: f64) -> Value {
    let [young, needed, unreadable] = report.orphans;
    json!({
        "verb": "prune", "dry_run": report.dry_run, "seconds": seconds, "epoch": report.epoch.map(|epoch| epoch.0),
        "carried": report.adopted.iter().map(|epoch| epoch.0).collect::<Vec<_>>(), "snapshots": report.snapshots,
        "forgotten": report.forgotten.iter().map(|sid| sid.hex()).collect::<Vec<_>>(), "chunks": report.chunks,
        "pages": report.pages, "plan": report.plan.iter().map(|line| line_json(repo, line)).collect::<Vec<_>>(),
        "plan_left": report.left, "stopped": report.stopped.map(|why| why.name()), "spared": report.spared, "kept": {"packs": report.kept.map(|kept| kept.packs), "bytes": report.kept.map(|kept| kept.bytes)}, "unused": report.unused,
        "repacked": {"packs": report.repacked.packs, "bytes": report.repacked.bytes, "bytes_new": report.repacked.bytes_new},
        "segments_merged": report.merged, "sessions_ended": report.ended, "sessions_at_work": report.at_work,
        "orphans": {"young": young, "needed": needed, "unreadable": unreadable},
        "regions": report.regions.iter().map(region_json).collect::<Vec<_>>(), "alarms": report.alarms,
        "findings": report.findings.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}

fn text_of(repo: &Repo, report: &Report, seconds: f64) -> String {
    let mut text = match report.dry_run {
        true => "nothing was removed; what would go:\n".to_owned(),
        false => {
            let (removed, ms) = (report.removed(), (seconds * 1000.0) as u64);
            let (packs, bytes) = (units::count(removed.packs), units::bytes(removed.bytes));
            format!("removed {packs} packs, {bytes}, in {}\n", units::duration_ms(ms))
        }
    };
    if report.repacked.packs > 0 {
        let (packs, bytes) = (units::count(report.repacked.packs), units::bytes(report.repacked.bytes));
        text.push_str(&match report.dry_run {
            true => format!("{packs} packs, {bytes}, would be written anew first: most of each is needed by nobody\n"),
            false => {
                format!("{packs} packs, {bytes}, were written anew: {}\n", units::bytes(report.repacked.bytes_new))
            }
        });
    }
    for epoch in &report.adopted {
        text.push_str(&format!("epoch {epoch} of an earlier prune was not decided: it comes first\n"));
    }
    text.push_str(&stays_text(report));
    report.regions.iter().for_each(|region| text.push_str(&region_text(region)));
    if report.dry_run {
        text.push_str(&plan_text(repo, &report.plan));
    }
    text.push_str(&remarks_text(report));
    text
}

/// What stays, as far as it was looked at.
fn stays_text(report: &Report) -> String {
    let Some(snapshots) = report.snapshots.map(units::count) else { return String::new() };
    let (Some(kept), Some(unused)) = (report.kept, report.unused) else {
        return format!("{snapshots} snapshots stay\n");
    };
    format!(
        "{snapshots} snapshots stay, {} forgotten ones go; {} packs stay, {}, of which about {} are needed by no snapshot\n",
        units::count(report.forgotten.len() as u64),
        units::count(kept.packs),
        units::bytes(kept.bytes),
        units::bytes(unused),
    )
}

fn region_text(region: &RegionReport) -> String {
    let planned = region.planned.iter().filter(|(_, sum)| sum.packs > 0).map(|(reason, sum)| {
        format!("{} {} packs, {}", reason.name(), units::count(sum.packs), units::bytes(sum.bytes))
    });
    let planned: Vec<String> = planned.collect();
    let planned = if planned.is_empty() { "nothing".to_owned() } else { planned.join("; ") };
    let mut text = format!("  {:<12} {planned}\n", region.region);
    if let Some(why) = &region.why {
        let (packs, bytes) = (units::count(region.postponed.packs), units::bytes(region.postponed.bytes));
        text.push_str(&format!(
            "    POSTPONED: {packs} packs, {bytes}, wait until the store lets them go: {}\n",
            plain(why)
        ));
    }
    if region.left > 0 {
        text.push_str(&format!("    {} objects wait for the next run\n", units::count(region.left)));
    }
    if let Some(why) = &region.failed {
        text.push_str(&format!("    BEHIND: {}\n", plain(why)));
    }
    text
}

fn plan_text(repo: &Repo, plan: &[Line]) -> String {
    let mut text = String::new();
    for line in plan.iter().take(SHOWN_MAX) {
        let (reason, at) = (line.reason.name(), names(repo, line.regions).join(", "));
        text.push_str(&format!("  {:<6} {} {} ({at})\n", reason, line.name.short(), units::bytes(line.size)));
    }
    if plan.len() > SHOWN_MAX {
        text.push_str(&format!("  and {} more (see --json)\n", units::count((plan.len() - SHOWN_MAX) as u64)));
    }
    text
}

/// What is worth knowing, and what waits for another time.
fn remarks_text(report: &Report) -> String {
    let mut text = match report.stopped {
        Some(Stopped::Time) => "stopped, as its time was over: what is left goes with the next run\n".to_owned(),
        Some(Stopped::Removals) => "stopped after as many objects as it may remove\n".to_owned(),
        None => String::new(),
    };
    let [young, needed, unreadable] = report.orphans;
    let counted = [
        (report.ended, "sessions had not ended, and were: their runs go on under new ones"),
        (report.at_work, "sessions were at work; what they stored was left alone"),
        (report.spared, "packs of the list stay: something needs them now"),
        (report.left, "further packs may go: run again"),
        (young, "packs that no index names stay, as a session at work may have made them"),
        (
            needed,
            "packs that no index names stay, as not every region has their content elsewhere: `holdfast replicate`",
        ),
        (unreadable, "packs that no index names stay, as no region can show what is in them"),
    ];
    for (n, what) in counted.iter().filter(|(n, _)| *n > 0) {
        text.push_str(&format!("{} {what}\n", units::count(*n)));
    }
    report.alarms.iter().for_each(|alarm| text.push_str(&format!("WARNING: {}\n", plain(alarm))));
    text
}
