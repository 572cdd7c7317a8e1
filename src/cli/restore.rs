//! `holdfast restore`.

use super::args::Restore;
use super::backup::{misses_json, misses_text};
use super::browse::{find, reader};
use super::common::Context;
use super::output::{Outcome, path_text, plain};
use super::progress::Shown;
use crate::base::{Progress, units};
use crate::error::Result;
use crate::ops::browse;
use crate::ops::restore::{self, RestoreReport, RestoreRequest};
use crate::repo::view::View;
use crate::source::files::{Excludes, RestoreOptions};
use serde_json::json;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

/// Findings shown by name in text.
const SHOWN_MAX: usize = 20;

pub fn run(context: &Context, args: &Restore) -> Result<Outcome> {
    let repo = context.open()?;
    let view = View::load(&repo)?;
    let (snapshot, path) = find(&view, &args.snapshot, &args.filter)?;
    let reader = reader(&repo)?;
    let root = browse::find(&reader, &snapshot.manifest, path)?;
    let request = request(context, args)?;
    let progress = Arc::new(Progress::default());
    let shown = Shown::start("restoring", &progress, context.global.quiet);
    let report = restore::run(&reader, &snapshot.manifest, &root, &request, &progress, &context.cancel)?;
    let elapsed_ms = shown.elapsed_ms();
    drop(shown);
    let findings: Vec<String> = repo.findings().iter().map(ToString::to_string).collect();
    let value = json!({
        "verb": "restore", "snapshot": snapshot.manifest.sid.hex(), "target": path_text(args.target.as_os_str().as_bytes()),
        "dry_run": args.dry_run, "seconds": elapsed_ms as f64 / 1000.0,
        "files": report.files, "files_same": report.files_same, "directories": report.dirs, "other": report.others,
        "bytes": report.bytes, "bytes_written": report.bytes_written, "deleted": report.deleted,
        "errors": misses_json(&report.misses), "errors_total": report.misses_total, "lost": report.lost,
        "findings": findings,
    });
    Ok(Outcome::new(report.exit(), text_of(&report, args, elapsed_ms, &findings), value))
}

fn request(context: &Context, args: &Restore) -> Result<RestoreRequest> {
    let default = RestoreOptions::default();
    Ok(RestoreRequest {
        target: args.target.clone(),
        include: Excludes::parse(&args.include)?,
        exclude: Excludes::parse(&args.exclude)?,
        only_included: !args.include.is_empty(),
        delete: args.delete,
        dry_run: args.dry_run,
        options: RestoreOptions {
            owners: default.owners && !args.no_owner,
            devices: default.devices && !args.no_devices,
            xattrs: !args.no_xattrs,
        },
        workers: context.workers(),
    })
}

fn text_of(report: &RestoreReport, args: &Restore, elapsed_ms: u64, findings: &[String]) -> String {
    let mut text = format!(
        "{} {} files, {} directories, {} other, {} to {} in {}\n",
        if args.dry_run { "would restore" } else { "restored" },
        units::count(report.files),
        units::count(report.dirs),
        units::count(report.others),
        units::bytes(report.bytes),
        path_text(args.target.as_os_str().as_bytes()),
        units::duration_ms(elapsed_ms)
    );
    if !args.dry_run {
        text.push_str(&format!(
            "  {} written, {} files had their content already, {} removed\n",
            units::bytes(report.bytes_written),
            units::count(report.files_same),
            units::count(report.deleted)
        ));
    }
    if report.misses_total > 0 {
        text.push_str(&format!("{} could not be restored:\n", units::count(report.misses_total)));
        misses_text(&report.misses, report.misses_total, &mut text);
    }
    findings_text(findings, &mut text);
    text
}

/// Damage found on the way, for people.
pub fn findings_text(findings: &[String], text: &mut String) {
    if findings.is_empty() {
        return;
    }
    text.push_str(&format!("{} damaged or missing objects found:\n", findings.len()));
    findings.iter().take(SHOWN_MAX).for_each(|f| text.push_str(&format!("  {}\n", plain(f))));
    if findings.len() > SHOWN_MAX {
        text.push_str(&format!("  and {} more (see --json)\n", findings.len() - SHOWN_MAX));
    }
}
