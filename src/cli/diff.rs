//! `holdfast diff`.

use super::args::Diff;
use super::common::Context;
use super::etcd;
use super::found;
use super::named::{find, reader};
use super::output::{Outcome, path_text, plain, remark};
use crate::base::units;
use crate::error::{Error, Exit, Kind, Result};
use crate::format::tree::{Entry, EntryType};
use crate::ops::difference::{self, Change, DiffReport, Difference};
use crate::ops::{self, browse};
use crate::repo::view::View;
use serde_json::{Value, json};
use std::io::Write;

/// Parts that could not be compared, shown by name in text.
const SHOWN_MAX: usize = 20;

fn text_line(difference: &Difference<'_>) -> String {
    let entry = difference.new.or(difference.old);
    let slash = if entry.is_some_and(|entry| entry.kind == EntryType::Dir) { "/" } else { "" };
    let line = format!("{} {}{slash}", difference.change.sign(), path_text(difference.path));
    let size = |entry: Option<&Entry>| entry.filter(|e| e.kind == EntryType::File).map(|e| units::bytes(e.size()));
    match (size(difference.old), size(difference.new)) {
        _ if difference.change == Change::Metadata => line,
        (Some(old), Some(new)) => format!("{line}  {old} -> {new}"),
        (Some(one), None) | (None, Some(one)) => format!("{line}  {one}"),
        (None, None) => line,
    }
}

fn json_line(difference: &Difference<'_>) -> String {
    let size = |entry: Option<&Entry>| entry.and_then(|entry| entry.size);
    json!({
        "path": path_text(difference.path), "change": difference.change.name(),
        "size_old": size(difference.old), "size_new": size(difference.new),
    })
    .to_string()
}

pub fn run(context: &Context, args: &Diff) -> Result<Outcome> {
    let repo = context.open()?;
    let view = View::load(&repo)?;
    let (old, new) = (find(&view, &args.old, &args.filter)?, find(&view, &args.new, &args.filter)?);
    let reader = reader(&repo)?;
    let manifests = (&old.snapshot.manifest, &new.snapshot.manifest);
    if ops::etcd::is_one(manifests.0) && ops::etcd::is_one(manifests.1) {
        let exit = old.exit.worse(new.exit);
        return etcd::diff(context, &reader, manifests, (old.path, new.path)).map(|outcome| outcome.at_best(exit));
    }
    let roots = (browse::find(&reader, manifests.0, old.path)?, browse::find(&reader, manifests.1, new.path)?);
    let entries = manifests.0.counts.entries().saturating_add(manifests.1.counts.entries());
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let closed = |_| Error::new(Kind::Cancelled, "the output was closed");
    let json = context.global.json;
    let mut show = |difference: &Difference<'_>| {
        if difference.change == Change::Metadata && !args.metadata {
            return Ok(());
        }
        let line = if json { json_line(difference) } else { text_line(difference) };
        writeln!(out, "{line}").map_err(closed)
    };
    let report = difference::run(&reader, (&roots.0, &roots.1), entries, &context.cancel, &mut show)?;
    out.flush().map_err(closed)?;
    drop(out);
    let mut value = json_of(&report);
    (value["old"], value["new"]) = (json!(manifests.0.sid.hex()), json!(manifests.1.sid.hex()));
    let (mut text, mut wrong) = (text_of(&report), String::new());
    for (path, why) in report.lost.iter().take(SHOWN_MAX) {
        wrong.push_str(&format!("NOT COMPARED: {}: {}\n", path_text(path), plain(why)));
    }
    found::add(&repo, &mut value, &mut wrong);
    if !json && !wrong.is_empty() {
        remark(wrong.trim_end());
        text.push_str("this is not all: see what could not be compared\n");
    }
    let exit = if report.lost_total > 0 { Exit::Damage } else { Exit::Done };
    Ok(Outcome::new(exit.worse(old.exit).worse(new.exit), text, value))
}

fn json_of(report: &DiffReport) -> Value {
    let one = |(path, why): &(Vec<u8>, String)| json!({"path": path_text(path), "message": why});
    json!({
        "verb": "diff", "added": report.added, "added_bytes": report.added_bytes,
        "removed": report.removed, "removed_bytes": report.removed_bytes,
        "modified": report.modified, "modified_bytes_old": report.modified_bytes_old,
        "modified_bytes_new": report.modified_bytes_new, "types": report.types, "metadata": report.metadata,
        "tree_pages_read": report.pages,
        "lost": report.lost.iter().map(one).collect::<Vec<_>>(), "lost_total": report.lost_total,
    })
}

fn text_of(report: &DiffReport) -> String {
    format!(
        "{} added ({}), {} removed ({}), {} with other content ({} -> {}), {} of another type, {} with other metadata only\n",
        units::count(report.added),
        units::bytes(report.added_bytes),
        units::count(report.removed),
        units::bytes(report.removed_bytes),
        units::count(report.modified),
        units::bytes(report.modified_bytes_old),
        units::bytes(report.modified_bytes_new),
        units::count(report.types),
        units::count(report.metadata)
    )
}
