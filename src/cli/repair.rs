//! What a repair did, in words and as JSON.

use super::output::Outcome;
use crate::base::units;
use crate::ops::repair::{Done, Mended, RepairReport};
use crate::store::Key;
use serde_json::{Value, json};

/// Objects shown by name in text.
const SHOWN_MAX: usize = 20;

/// Adds it to what a verb says at its end, where one was asked for.
pub fn shown_repair(report: Option<&RepairReport>, outcome: &mut Outcome) {
    if let Some(report) = report {
        outcome.json["repair"] = as_json(report);
        outcome.text.push_str(&as_text(report));
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
