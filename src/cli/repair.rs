//! What a repair did, in words and as JSON.

use super::common::Context;
use super::found;
use super::output::Outcome;
use super::progress::Shown;
use crate::base::{Progress, SessionId, units};
use crate::error::{Exit, Result};
use crate::ops::harm::Harm;
use crate::ops::repair::{Done, Mended, RepairReport};
use crate::ops::repair_index;
use crate::region::Finding;
use crate::source::files;
use crate::store::Key;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Objects shown by name in text.
const SHOWN_MAX: usize = 20;

/// Adds it to what a verb says at its end, where one was asked for.
pub fn shown_repair(report: Option<&RepairReport>, outcome: &mut Outcome) {
    if let Some(report) = report {
        outcome.json["repair"] = as_json(report);
        outcome.text.push_str(&as_text(report));
    }
}

/// `holdfast repair index`.
pub fn index(context: &Context) -> Result<Outcome> {
    let repo = context.open()?;
    let progress = Arc::new(Progress::default());
    let shown = Shown::start("reading packs", &progress, context.global.quiet);
    let done = repair_index::run(&repo, context.workers(), &files::hostname(), &progress, &context.cancel)?;
    let seconds = shown.elapsed_ms() as f64 / 1000.0;
    let mut text = format!(
        "{} packs that no segment named ({} read): {} chunks have a place again, in {} new segments\n",
        units::count(done.packs),
        units::bytes(done.bytes),
        units::count(done.chunks),
        units::count(done.segments)
    );
    if done.unreadable > 0 {
        text.push_str(&format!("{} packs are damaged in every region that has them\n", units::count(done.unreadable)));
    }
    let brought = done.caught_up;
    let mut value = json!({
        "verb": "repair index", "seconds": seconds, "packs": done.packs, "bytes": done.bytes, "chunks": done.chunks,
        "segments": done.segments, "unreadable": done.unreadable,
        "caught_up": {"objects": brought.objects, "bytes": brought.bytes, "snapshots": brought.snapshots},
    });
    found::add(&repo, &mut value, &mut text);
    let mut exit = Exit::Done;
    if !repo.regions.failures().is_empty() || !brought.lacking.is_empty() {
        exit = exit.worse(Exit::Behind);
    }
    if !repo.findings().is_empty() {
        exit = exit.worse(Exit::Damage);
    }
    Ok(Outcome::new(exit, text, value))
}

/// Adds what is wrong, finding by finding: of which kind, and what it touches, as far as that is known.
pub fn shown_damage(findings: &[Finding], harms: Option<&BTreeMap<Key, Harm>>, outcome: &mut Outcome) {
    let one = |finding: &Finding| {
        let harm = harms.zip(Key::parse(&finding.object)).and_then(|(harms, key)| harms.get(&key));
        let ids: Option<Vec<String>> = harm.map(|harm| harm.snapshot_ids.iter().map(SessionId::hex).collect());
        json!({
            "region": finding.region, "object": finding.object, "kind": finding.flaw.name(), "what": finding.what,
            "chunks": harm.map(|harm| harm.chunks), "snapshots": harm.map(|harm| harm.snapshots),
            "snapshot_ids": ids, "files": harm.map(|harm| harm.files), "paths": harm.map(|harm| &harm.paths),
        })
    };
    outcome.json["damage"] = findings.iter().map(one).collect();
    for (key, harm) in harms.into_iter().flatten().take(SHOWN_MAX) {
        outcome.text.push_str(&format!(
            "  {key}: {} chunks, {} snapshots, {} files{}\n",
            units::count(harm.chunks),
            units::count(harm.snapshots),
            units::count(harm.files),
            if harm.paths.is_empty() { String::new() } else { format!(" ({}, ...)", harm.paths.join(", ")) }
        ));
    }
}

/// What became of one object: a word, and where it is left or comes from more of it.
fn words(one: &Mended) -> (&'static str, Option<String>) {
    match &one.done {
        Done::PutBack { from, version_kept: false } => ("put back", Some(format!("from region {from}"))),
        Done::PutBack { from, version_kept: true } => {
            ("put back", Some(format!("from region {from}, as a new version: the store keeps the damaged one too")))
        }
        Done::Sound => ("sound", Some("it was good when it was read again".into())),
        Done::Left(why) => ("left", Some(why.clone())),
    }
}

fn as_json(report: &RepairReport) -> Value {
    let object = |one: &Mended| {
        let (done, detail) = words(one);
        let quarantine = one.kept.map(|id| Key::Quarantine(id).path());
        json!({"region": one.region, "object": one.object, "done": done, "detail": detail, "quarantine": quarantine})
    };
    let objects: Vec<Value> = report.objects.iter().map(object).collect();
    json!({
        "put_back": report.put_back(), "left": report.left(), "objects": objects, "bytes_read": report.bytes_read,
        "bytes_written": report.bytes_written,
        "caught_up": {"objects": report.caught_up.objects, "bytes": report.caught_up.bytes,
            "snapshots": report.caught_up.snapshots},
    })
}

fn as_text(report: &RepairReport) -> String {
    let (put_back, left) = (report.put_back(), report.left());
    let mut text = format!(
        "repaired: {} put back ({} read, {} written), {} left as they were\n",
        units::count(put_back),
        units::bytes(report.bytes_read),
        units::bytes(report.bytes_written),
        units::count(left)
    );
    let mut lines: Vec<&Mended> = report.objects.iter().collect();
    lines.sort_by_key(|one| !matches!(one.done, Done::Left(_)));
    for one in lines.iter().take(SHOWN_MAX) {
        let (done, detail) = words(one);
        let detail = detail.map(|detail| format!(", {detail}")).unwrap_or_default();
        text.push_str(&format!("  region {}: {}: {done}{detail}\n", one.region, one.object));
    }
    if lines.len() > SHOWN_MAX {
        text.push_str(&format!("  and {} more (see --json)\n", lines.len() - SHOWN_MAX));
    }
    let brought = report.caught_up;
    if brought.objects > 0 {
        let (objects, bytes) = (units::count(brought.objects), units::bytes(brought.bytes));
        text.push_str(&format!("brought up: {objects} objects that a region lacked, {bytes}\n"));
    }
    text
}
