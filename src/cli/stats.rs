//! `holdfast stats`.

use super::args::Stats;
use super::common::Context;
use super::found;
use super::named::{self, reader};
use super::output::{Outcome, plain};
use crate::base::units;
use crate::error::{Exit, Result};
use crate::format::snapshot::Manifest;
use crate::ops::stats::{self, Chunks, Objects, RepositoryStats, SourceStats};
use crate::repo::Repo;
use crate::repo::index::Index;
use crate::repo::view::View;
use serde_json::{Value, json};
use std::sync::Arc;

pub fn run(context: &Context, args: &Stats) -> Result<Outcome> {
    let repo = context.open()?;
    let view = View::load(&repo)?;
    match &args.snapshot {
        Some(name) => of_snapshot(context, args, name, (&repo, &view)),
        None => of_repository(&repo, &view),
    }
}

/// How many times larger, to two digits; `None` where there is nothing to compare with.
fn ratio(large: u64, small: u64) -> Option<f64> {
    (small > 0).then(|| (large as f64 / small as f64 * 100.0).round() / 100.0)
}

fn ratio_text(large: u64, small: u64) -> String {
    ratio(large, small).map_or_else(|| "-".into(), |ratio| format!("{ratio:.2}"))
}

fn objects_json(objects: Objects) -> Value {
    json!({"count": objects.count, "bytes": objects.bytes})
}

fn chunks_json(chunks: &Chunks) -> Value {
    json!({
        "chunks": chunks.unique.count, "bytes": chunks.unique.bytes, "bytes_stored": chunks.records.bytes,
        "records": chunks.records.count, "chunks_again": chunks.again.count, "bytes_again": chunks.again.bytes,
        "packs": chunks.packs.count, "bytes_packs": chunks.packs.bytes,
    })
}

fn source_json((name, source): (&String, &SourceStats)) -> Value {
    json!({
        "name": name, "snapshots": source.snapshots, "bytes": source.bytes, "files_newest": source.files_newest,
        "bytes_newest": source.bytes_newest, "bytes_stored": source.bytes_stored,
    })
}

fn of_repository(repo: &Arc<Repo>, view: &View) -> Result<Outcome> {
    let stats = stats::repository(repo, view, &Index::load(repo)?);
    let total = stats.total();
    let regions = stats.regions.iter().map(|region| {
        let kinds = region.kinds.iter();
        let kinds = kinds.map(|(kind, o)| json!({"kind": kind, "count": o.count, "bytes": o.bytes}));
        json!({
            "name": region.name, "objects": region.total().count, "bytes": region.total().bytes,
            "kinds": kinds.collect::<Vec<_>>(), "failed": region.failed,
        })
    });
    let mut value = json!({
        "verb": "stats", "repository": repo.id.hex(), "snapshots": total.snapshots, "bytes": total.bytes,
        "dedup_ratio": ratio(total.bytes, stats.data.unique.bytes),
        "compression_ratio": ratio(stats.data.unique.bytes, stats.data.records.bytes),
        "data": chunks_json(&stats.data), "trees": chunks_json(&stats.trees),
        "regions": regions.collect::<Vec<_>>(),
        "sources": stats.sources.iter().map(source_json).collect::<Vec<_>>(),
    });
    let mut text = repository_text(&stats);
    found::add(repo, &mut value, &mut text);
    let mut exit = if view.damaged.is_empty() { Exit::Done } else { Exit::Damage };
    if stats.regions.iter().any(|region| region.failed.is_some()) {
        exit = exit.worse(Exit::Behind);
    }
    Ok(Outcome::new(exit, text, value))
}

fn repository_text(stats: &RepositoryStats) -> String {
    let (total, data, trees) = (stats.total(), &stats.data, &stats.trees);
    let mut text = format!(
        "{} snapshots of {} sources, {} in all\n",
        units::count(total.snapshots),
        units::count(stats.sources.len() as u64),
        units::bytes(total.bytes)
    );
    text.push_str(&format!(
        "  content: {} in {} different chunks (deduplicated {} : 1), {} as stored (compressed {} : 1)\n",
        units::bytes(data.unique.bytes),
        units::count(data.unique.count),
        ratio_text(total.bytes, data.unique.bytes),
        units::bytes(data.records.bytes),
        ratio_text(data.unique.bytes, data.records.bytes)
    ));
    text.push_str(&format!(
        "  directories: {} in {} pages, {} as stored\n",
        units::bytes(trees.unique.bytes),
        units::count(trees.unique.count),
        units::bytes(trees.records.bytes)
    ));
    if data.again.count + trees.again.count > 0 {
        text.push_str(&format!(
            "  stored more than once: {} chunks, {}\n",
            units::count(data.again.count + trees.again.count),
            units::bytes(data.again.bytes + trees.again.bytes)
        ));
    }
    for region in &stats.regions {
        let (all, name) = (region.total(), &region.name);
        text.push_str(&format!("region {name}: {} objects, {}", units::count(all.count), units::bytes(all.bytes)));
        let shown = region.kinds.iter().filter(|(_, objects)| objects.count > 0);
        let shown = shown.map(|(kind, o)| format!("{kind} {} ({})", units::count(o.count), units::bytes(o.bytes)));
        text.push_str(&format!("; {}\n", shown.collect::<Vec<_>>().join(", ")));
        if let Some(why) = &region.failed {
            text.push_str(&format!("NOT ASKED: region {name}: {why}\n"));
        }
    }
    for (name, source) in &stats.sources {
        text.push_str(&format!(
            "source {}: {} snapshots, {} in all, the newest {} files and {}; their runs stored {}\n",
            plain(name),
            units::count(source.snapshots),
            units::bytes(source.bytes),
            units::count(source.files_newest),
            units::bytes(source.bytes_newest),
            units::bytes(source.bytes_stored)
        ));
    }
    text
}

fn of_snapshot(context: &Context, args: &Stats, name: &str, (repo, view): (&Arc<Repo>, &View)) -> Result<Outcome> {
    let manifest = &named::snapshot(view, name, &args.filter)?.manifest;
    let others: Vec<&Manifest> =
        view.snapshots.values().map(|s| &s.manifest).filter(|m| m.sid != manifest.sid).collect();
    let alone = args.unique.then_some(&others[..]);
    let stats = stats::snapshot(&reader(repo)?, manifest, alone, &context.cancel)?;
    let c = &manifest.counts;
    let mut value = json!({
        "verb": "stats", "snapshot": manifest.sid.hex(), "source": manifest.source.name,
        "files": c.files, "directories": c.dirs, "symlinks": c.symlinks, "other": c.other, "bytes": c.bytes,
        "restore_bytes": stats.restore_bytes, "chunks": stats.unique.count, "bytes_unique": stats.unique.bytes,
        "bytes_stored": stats.records.bytes, "alone": stats.alone.map(objects_json),
    });
    let mut text = format!(
        "snapshot {} of {}\n  {} files, {} directories, {} other; {}\n",
        manifest.sid.short(),
        plain(&manifest.source.name),
        units::count(c.files),
        units::count(c.dirs),
        units::count(c.symlinks + c.other),
        units::bytes(c.bytes)
    );
    text.push_str(&format!(
        "  a restore writes {}; {} different chunks of {}, in records of {}\n",
        units::bytes(stats.restore_bytes),
        units::count(stats.unique.count),
        units::bytes(stats.unique.bytes),
        units::bytes(stats.records.bytes)
    ));
    if let Some(alone) = stats.alone {
        text.push_str(&format!(
            "  no other snapshot has {} of them, {}\n",
            units::count(alone.count),
            units::bytes(alone.bytes)
        ));
    }
    found::add(repo, &mut value, &mut text);
    Ok(Outcome::new(Exit::Done, text, value))
}
