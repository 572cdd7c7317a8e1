//! `holdfast diff`.

use super::args::Diff;
use super::common::Context;
use super::etcd;
use super::found;
use super::model_diff;
use super::named::{find, reader};
use super::output::{Outcome, one_line, path_text, plain, remark};
use crate::base::units;
use crate::error::{Error, Exit, Kind, Result};
use crate::format::tree::{Entry, EntryType};
use crate::ops::difference::{self, Change, DiffReport, Difference};
use crate::ops::model::{Between, ModelsReport};
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

/// Shows which tensors of a model differ, behind its file.
fn tensors(between: &mut Between<'_>, difference: &Difference<'_>, json: bool, out: &mut dyn Write) -> Result<()> {
    let told = between.compare(difference, &mut |model, tensor| {
        let mut value = if json { model_diff::json_of(tensor) } else { Value::Null };
        let line = match json {
            true => {
                value["model"] = json!(path_text(model));
                one_line(&value)
            }
            false => format!("    {}", model_diff::text_of(tensor)),
        };
        writeln!(out, "{line}").map_err(closed)
    })?;
    let Some((model, report)) = told.filter(|_| !json) else { return Ok(()) };
    // A model in several files is told with the first of them that differs.
    let of = if model == difference.path { String::new() } else { format!("of {}: ", path_text(&model)) };
    writeln!(out, "    {of}{}", model_diff::summary(&report)).map_err(closed)
}

fn closed(_: std::io::Error) -> Error {
    Error::new(Kind::Cancelled, "the output was closed")
}

pub fn run(context: &Context, args: &Diff) -> Result<Outcome> {
    let repo = context.open()?;
    let view = View::load(&repo)?;
    let (old, new) = (find(&view, &args.old, &args.filter)?, find(&view, &args.new, &args.filter)?);
    let reader = reader(&repo)?;
    let manifests = (&old.snapshot.manifest, &new.snapshot.manifest);
    if ops::etcd::is_one(manifests.0) && ops::etcd::is_one(manifests.1) {
        if args.tensors {
            return Err(Error::new(Kind::Config, "snapshots of etcd have no models; --tensors has no place here"));
        }
        let exit = old.exit.worse(new.exit);
        return etcd::diff(context, &reader, manifests, (old.path, new.path)).map(|outcome| outcome.at_best(exit));
    }
    let roots = (browse::find(&reader, manifests.0, old.path)?, browse::find(&reader, manifests.1, new.path)?);
    let entries = manifests.0.counts.entries().saturating_add(manifests.1.counts.entries());
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let json = context.global.json;
    let named = [(manifests.0, old.path), (manifests.1, new.path)];
    let mut between = args.tensors.then(|| Between::new(&reader, named, &roots.0, &context.cancel));
    let mut show = |difference: &Difference<'_>| {
        if difference.change == Change::Metadata && !args.metadata {
            return Ok(());
        }
        let line = if json { json_line(difference) } else { text_line(difference) };
        writeln!(out, "{line}").map_err(closed)?;
        between.as_mut().map_or(Ok(()), |between| tensors(between, difference, json, &mut out))
    };
    let report = difference::run(&reader, (&roots.0, &roots.1), entries, &context.cancel, &mut show)?;
    out.flush().map_err(closed)?;
    drop(out);
    let mut value = json_of(&report);
    (value["old"], value["new"]) = (json!(manifests.0.sid.hex()), json!(manifests.1.sid.hex()));
    let (mut text, mut wrong) = (text_of(&report), String::new());
    let models = between.map(|between| between.report);
    if let Some(models) = &models {
        value["tensors"] = json_of_models(models);
        text.push_str(&format!("{} models: {}\n", units::count(models.models), model_diff::summary(&models.tensors)));
    }
    let lost = report.lost.iter().chain(models.iter().flat_map(|models| &models.failed));
    for (path, why) in lost.take(SHOWN_MAX) {
        wrong.push_str(&format!("NOT COMPARED: {}: {}\n", path_text(path), plain(why)));
    }
    found::add(&repo, &mut value, &mut wrong);
    if !json && !wrong.is_empty() {
        remark(wrong.trim_end());
        text.push_str("this is not all: see what could not be compared\n");
    }
    let exit = match &models {
        _ if report.lost_total > 0 => Exit::Damage,
        Some(models) if models.damage => Exit::Damage,
        Some(models) if models.failed_total > 0 => Exit::Partial,
        _ => Exit::Done,
    };
    Ok(Outcome::new(exit.worse(old.exit).worse(new.exit), text, value))
}

fn json_of_models(models: &ModelsReport) -> Value {
    let one = |(path, why): &(Vec<u8>, String)| json!({"path": path_text(path), "message": why});
    let mut value = model_diff::counts(&models.tensors);
    value["models"] = json!(models.models);
    value["not_compared"] = models.failed.iter().map(one).collect();
    value["not_compared_total"] = json!(models.failed_total);
    value
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
