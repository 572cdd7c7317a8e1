//! `holdfast restore --tensors`.

use super::args::Restore;
use super::common::Context;
use super::found;
use super::model_ls::form;
use super::named::{Named, find, reader};
use super::output::{Outcome, path_text, plain};
use super::progress::Shown;
use super::recorded::Recorded;
use super::repair::shown_repair;
use super::restore::mended;
use super::verdicts;
use crate::base::{Pace, Progress, units};
use crate::error::{Error, Kind, Result};
use crate::format::run::RunKind;
use crate::ops::model::{PickRequest, Picked, PickedTensor, pick};
use crate::ops::record::Closing;
use crate::policy::{Rate, is_bucket};
use crate::repo::view::View;
use serde_json::{Value, json};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

/// Tensors shown by name in text.
const SHOWN_MAX: usize = 20;

/// `holdfast restore SNAPSHOT:PATH --tensors NAME`.
pub fn restore(context: &Context, args: &Restore) -> Result<Outcome> {
    let repo = &context.open()?;
    let view = if args.filter.tag.is_empty() { View::recall(repo)? } else { View::load(repo)? };
    let Named { snapshot, path, exit } = find(&view, &args.snapshot, &args.filter)?;
    let rate = args.limit_download.as_ref().map(Rate::bytes);
    repo.regions.read_slowly(|| rate.map(|rate| Pace::new(rate, &context.cancel)));
    let request = PickRequest {
        patterns: args.pick.tensors.clone(),
        target: target(args)?,
        overwrite: args.etcd.overwrite,
        dry_run: args.dry_run,
        workers: context.workers(),
    };
    let manifest = &snapshot.manifest;
    let progress = Arc::new(Progress::default());
    let shown = Shown::start("restoring", &progress, context.global.quiet);
    let opening = Closing { source: Some(manifest.source.name.clone()), ..Closing::default() };
    let opening = Closing { snapshots: vec![manifest.sid], ..opening };
    let recorded = Recorded { kind: RunKind::Restore, repo: Some(repo), id: repo.id, opening };
    let (picked, closed) = recorded.run(
        context,
        !args.dry_run,
        |_| {
            let reader = reader(repo)?;
            verdicts::leave(context, &args.trust, &reader, manifest)?;
            pick(&reader, manifest, path, &request, (&progress, &context.cancel))
        },
        |picked, closing| (closing.restore(&picked.report), exit),
    )?;
    let elapsed_ms = shown.elapsed_ms();
    drop(shown);
    let file = request.target.join(std::ffi::OsStr::from_bytes(&picked.name));
    let file = path_text(file.as_os_str().as_bytes());
    let mut value = json!({
        "verb": "restore", "run": closed.map(|closed| closed.id.hex()), "snapshot": manifest.sid.hex(), "file": file,
        "dry_run": args.dry_run, "replaces": picked.replaces, "seconds": elapsed_ms as f64 / 1000.0, "bytes": picked.report.bytes,
        "bytes_fetched": picked.bytes_fetched, "tensors": picked.tensors.iter().map(json_of).collect::<Vec<_>>(),
        "tensors_total": picked.tensors_total,
    });
    let mut text = text_of(&picked, &file, args.dry_run, elapsed_ms);
    found::add(repo, &mut value, &mut text);
    let mut outcome = Outcome::new(exit, text, value);
    match mended(context, args, repo).as_ref() {
        Some(Err(e)) => outcome.text.push_str(&format!("what was damaged was not mended, or not all of it: {e}\n")),
        done => shown_repair(done.and_then(|done| done.as_ref().ok()), &mut outcome),
    }
    Ok(outcome)
}

/// `--to` says the same here as `--target`.
fn target(args: &Restore) -> Result<PathBuf> {
    let target = args.target.clone().or_else(|| args.etcd.to.clone()).unwrap_or_default();
    match target.to_str().is_some_and(is_bucket) {
        true => Err(Error::new(Kind::Config, "tensors are written into a directory, and into no bucket")
            .at(target.display())
            .advise("name a directory with --target")),
        false => Ok(target),
    }
}

fn json_of(tensor: &PickedTensor) -> Value {
    json!({"name": tensor.name, "dtype": tensor.dtype, "shape": tensor.shape, "bytes": tensor.bytes})
}

fn text_of(picked: &Picked, file: &str, dry_run: bool, elapsed_ms: u64) -> String {
    let mut text = format!(
        "{} {} of {} tensors, {} to {file}{} in {}; {} of chunks held them\n",
        if dry_run { "would restore" } else { "restored" },
        units::count(picked.tensors.len() as u64),
        units::count(picked.tensors_total),
        units::bytes(picked.report.bytes),
        if picked.replaces { ", in place of the file that was there," } else { "" },
        units::duration_ms(elapsed_ms),
        units::bytes(picked.bytes_fetched)
    );
    for tensor in picked.tensors.iter().take(SHOWN_MAX) {
        let form = form(&tensor.dtype, Some(&tensor.shape));
        text.push_str(&format!("  {}  {form}  {}\n", plain(&tensor.name), units::bytes(tensor.bytes)));
    }
    let more = picked.tensors.len().saturating_sub(SHOWN_MAX);
    if more > 0 {
        text.push_str(&format!("  and {} more (see --json)\n", units::count(more as u64)));
    }
    text
}
