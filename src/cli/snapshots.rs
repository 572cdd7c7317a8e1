//! `holdfast snapshots`.

use super::args::Snapshots;
use super::common::{Context, passes};
use super::found;
use super::hold;
use super::output::{Outcome, path_text, plain};
use super::runs::local_of;
use crate::base::{TimeMs, units};
use crate::catalog::SnapshotLine;
use crate::error::{Exit, Result};
use crate::ops::{copy, ledger, verdicts};
use crate::repo::Repo;
use crate::repo::holds::Holds;
use crate::repo::view::{Snapshot, View};
use serde_json::{Value, json};

/// Lines of the catalog shown when nothing is said.
const LOCAL_LAST: usize = 100;

pub fn run(context: &Context, args: &Snapshots) -> Result<Outcome> {
    if args.local { from_catalog(context, args) } else { from_regions(context, args) }
}

fn region_names(repo: &Repo, snapshot: &Snapshot) -> Vec<String> {
    snapshot.regions.iter().map(|ix| repo.regions.region(ix).name.clone()).collect()
}

fn snapshot_json(repo: &Repo, snapshot: &Snapshot, holds: &Holds) -> Value {
    let m = &snapshot.manifest;
    let held: Vec<Value> = holds.of(m.sid).map(|held| hold::held_json(&held.hold)).collect();
    let mut value = json!({
        "id": m.sid.hex(), "digest": snapshot.digest.hex(), "time": TimeMs(m.start).rfc3339(), "start_ms": m.start, "end_ms": m.end,
        "source": m.source.name, "host": m.source.host, "paths": m.source.paths.iter().map(|p| path_text(p)).collect::<Vec<_>>(),
        "mode": m.mode.name(), "parent": m.parent.map(|p| p.hex()), "generation": m.generation.0,
        "files": m.counts.files, "bytes": m.counts.bytes, "bytes_stored": m.transfer.bytes_stored,
        "errors_total": m.errors_total, "tags": m.tags, "regions": region_names(repo, snapshot), "program": m.program,
        "stored_ms": snapshot.stored.0, "holds": held, "copied_from": copy::label(m, copy::COPIED_FROM),
    });
    if let Some(noted) = verdicts::noted(m) {
        value["refused"] = json!(noted.refused);
    }
    value
}

fn from_regions(context: &Context, args: &Snapshots) -> Result<Outcome> {
    let repo = context.open()?;
    let view = View::load(&repo)?;
    let holds = Holds::load(&repo);
    let mut text = String::new();
    let mut all = Vec::new();
    let newest = view.newest_first().into_iter().filter(|s| passes(&args.filter, &s.manifest));
    let shown: Vec<&Snapshot> = newest.take(args.last.unwrap_or(usize::MAX)).collect();
    for snapshot in shown.into_iter().rev() {
        let m = &snapshot.manifest;
        let wrong = if m.errors_total > 0 { format!("  {} errors", m.errors_total) } else { String::new() };
        let held = if holds.of(m.sid).next().is_some() { "  HELD" } else { "" };
        let refused = if verdicts::is_refused(m) { "  REFUSED" } else { "" };
        text.push_str(&format!(
            "{}  {}  {:<11}  {:>9}  {:>9} files  {}  [{}]{wrong}{held}{refused}\n",
            m.sid.short(),
            TimeMs(m.start).rfc3339(),
            m.mode.name(),
            units::bytes(m.counts.bytes),
            units::count(m.counts.files),
            plain(&m.source.name),
            region_names(&repo, snapshot).join(" "),
        ));
        all.push(snapshot_json(&repo, snapshot, &holds));
    }
    if all.is_empty() {
        text.push_str("no snapshots\n");
    }
    let mut exit = Exit::Done;
    for (sid, why) in &view.damaged {
        text.push_str(&format!("DAMAGED: snapshot {}: {why}\n", sid.short()));
        exit = exit.worse(Exit::Damage);
    }
    for lost in &view.lost {
        text.push_str(&format!("LOST: {lost}\n"));
        exit = exit.worse(Exit::Damage);
    }
    let damaged: Vec<String> = view.damaged.keys().map(|s| s.hex()).collect();
    let mut value = json!({"verb": "snapshots", "repository": repo.id.hex(), "snapshots": all, "damaged": damaged, "lost": view.lost});
    found::add(&repo, &mut value, &mut text);
    Ok(Outcome::new(exit, text, value))
}

fn from_catalog(context: &Context, args: &Snapshots) -> Result<Outcome> {
    let (id, catalog) = local_of(context)?;
    let last = args.last.unwrap_or(LOCAL_LAST);
    let (lines, total) = catalog.snapshots(args.filter.name.as_deref(), last).map_err(|e| ledger::lift(&e))?;
    let older = total.saturating_sub(lines.len() as u64);
    let mut text = String::new();
    if older > 0 {
        text.push_str(&format!("{} older ones are not shown (--last N)\n", units::count(older)));
    }
    lines.iter().rev().for_each(|line| text.push_str(&local_text(line)));
    if total == 0 {
        text.push_str("no snapshots\n");
    }
    let all: Vec<Value> = lines.iter().rev().map(local_json).collect();
    let value = json!({"verb": "snapshots", "local": true, "repository": id.hex(), "total": total, "snapshots": all});
    Ok(Outcome::new(Exit::Done, text, value))
}

fn names(line: &SnapshotLine) -> Vec<&str> {
    line.regions.iter().map(|region| region.name.as_str()).collect()
}

fn local_text(line: &SnapshotLine) -> String {
    let wrong = if line.errors > 0 { format!("  {} errors", line.errors) } else { String::new() };
    format!(
        "{}  {}  {:<11}  {:>9}  {:>9} files  {}  [{}]{wrong}\n",
        line.sid.short(),
        TimeMs(line.start).rfc3339(),
        line.mode,
        units::bytes(line.bytes),
        units::count(line.files),
        plain(&line.source),
        names(line).join(" "),
    )
}

fn local_json(line: &SnapshotLine) -> Value {
    json!({
        "id": line.sid.hex(), "time": TimeMs(line.start).rfc3339(), "start_ms": line.start, "source": line.source,
        "host": line.host, "mode": line.mode, "files": line.files, "bytes": line.bytes, "errors_total": line.errors,
        "regions": names(line),
    })
}
