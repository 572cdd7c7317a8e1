//! `holdfast restore`.

use super::args::Restore;
use super::backup::{misses_json, misses_text};
use super::common::Context;
use super::etcd;
use super::found;
use super::named::{Named, find, reader};
use super::output::{Outcome, path_text};
use super::progress::Shown;
use super::recorded::Recorded;
use super::repair::shown_repair;
use super::verdicts;
use crate::base::{Bucket, Pace, Progress, SessionId, units};
use crate::error::{Error, Exit, Kind, Result};
use crate::format::run::RunKind;
use crate::ops::browse;
use crate::ops::record::Closing;
use crate::ops::repair::{self, RepairReport};
use crate::ops::restore::{self, RestoreReport, RestoreRequest};
use crate::ops::restore_bucket::{self, BucketRequest};
use crate::policy::{self, Rate};
use crate::repo::Repo;
use crate::repo::view::View;
use crate::source::files::{Excludes, RestoreOptions};
use serde_json::json;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

struct Restored {
    sid: SessionId,
    source: String,
    /// What naming the snapshot alone makes of the exit code.
    named: Exit,
    report: RestoreReport,
    elapsed_ms: u64,
    /// What was done about damage that was met.
    repaired: Option<Result<RepairReport>>,
}

fn restore(context: &Context, args: &Restore, repo: &Arc<Repo>) -> Result<Restored> {
    // Tags are asked for only where somebody goes by them.
    let view = if args.filter.tag.is_empty() { View::recall(repo)? } else { View::load(repo)? };
    let Named { snapshot, path, exit } = find(&view, &args.snapshot, &args.filter)?;
    let reader = reader(repo)?;
    verdicts::leave(context, &args.trust, &reader, &snapshot.manifest)?;
    let root = browse::find(&reader, &snapshot.manifest, path)?;
    let request = request(context, args)?;
    let progress = Arc::new(Progress::default());
    let shown = Shown::start("restoring", &progress, context.global.quiet);
    let report = match bucket(args)? {
        None => restore::run(&reader, &snapshot.manifest, &root, &request, &progress, &context.cancel)?,
        Some(place) => {
            let request = BucketRequest { place, overwrite: args.etcd.overwrite, workers: context.workers() };
            restore_bucket::run(&reader, &snapshot.manifest, &root, &request, (&progress, &context.cancel))?
        }
    };
    let (source, elapsed_ms) = (snapshot.manifest.source.name.clone(), shown.elapsed_ms());
    let repaired = mended(context, args, repo);
    Ok(Restored { sid: snapshot.manifest.sid, source, named: exit, report, elapsed_ms, repaired })
}

/// Damage that was met is mended once everything is restored. Whatever comes of that, the files are there.
pub(super) fn mended(context: &Context, args: &Restore, repo: &Arc<Repo>) -> Option<Result<RepairReport>> {
    let found = repo.findings();
    if found.is_empty() || args.no_repair || args.dry_run {
        return None;
    }
    Some(repair::found(repo, &found, context.workers(), &context.cancel))
}

pub fn run(context: &Context, args: &Restore) -> Result<Outcome> {
    if args.etcd.overwrite && args.etcd.into.is_none() && args.etcd.to.is_none() {
        let e =
            Error::new(Kind::Config, "--overwrite has no place here: files that stand in a target are replaced anyway");
        return Err(e.advise("it goes with --into, --to s3://… and --tensors"));
    }
    let repo = context.open()?;
    if let Some(address) = &args.etcd.into {
        return etcd::put_back(context, args, &repo, address);
    }
    if bucket(args)?.is_none()
        && let Some(outcome) = etcd::restore(context, args, &repo)?
    {
        return Ok(outcome);
    }
    let rate = args.limit_download.as_ref().map(Rate::bytes);
    repo.regions.read_slowly(|| rate.map(|rate| Pace::new(rate, &context.cancel)));
    let recorded = Recorded { kind: RunKind::Restore, repo: Some(&repo), id: repo.id, opening: Closing::default() };
    let (Restored { sid, named, report, elapsed_ms, repaired, .. }, closed) = recorded.run(
        context,
        !args.dry_run,
        |_| restore(context, args, &repo),
        |done, closing| {
            let closing = Closing { source: Some(done.source.clone()), snapshots: vec![done.sid], ..closing };
            let closing = closing.restore(&done.report);
            (done.repaired.iter().flatten().fold(closing, Closing::repair), done.report.exit().worse(done.named))
        },
    )?;
    let mut value = json!({
        "verb": "restore", "run": closed.map(|closed| closed.id.hex()), "snapshot": sid.hex(), "target": path_text(target(args).as_os_str().as_bytes()),
        "dry_run": args.dry_run, "seconds": elapsed_ms as f64 / 1000.0,
        "files": report.files, "files_same": report.files_same, "directories": report.dirs, "other": report.others,
        "bytes": report.bytes, "bytes_written": report.bytes_written, "deleted": report.deleted,
        "errors": misses_json(&report.misses), "errors_total": report.misses_total, "lost": report.lost,
        "checked": report.checked,
    });
    let mut text = text_of(&report, args, elapsed_ms);
    found::add(&repo, &mut value, &mut text);
    let mut outcome = Outcome::new(report.exit().worse(named), text, value);
    match repaired.as_ref() {
        Some(Err(e)) => outcome.text.push_str(&format!("what was damaged was not mended, or not all of it: {e}\n")),
        done => shown_repair(done.and_then(|done| done.as_ref().ok()), &mut outcome),
    }
    Ok(outcome)
}

/// The target; the arguments are refused without one.
fn target(args: &Restore) -> &Path {
    args.target.as_deref().or(args.etcd.to.as_deref()).unwrap_or_else(|| Path::new(""))
}

/// The bucket that is the target, if one is.
fn bucket(args: &Restore) -> Result<Option<Bucket>> {
    let text = args.etcd.to.as_deref().and_then(Path::to_str).filter(|text| policy::is_bucket(text));
    let Some(text) = text else { return Ok(None) };
    let etcd = &args.etcd;
    if etcd.revision.is_some() || etcd.time.is_some() || etcd.bump_revision.is_some() || etcd.check {
        let what =
            "--revision, --time, --bump-revision and --check belong to databases of etcd, and no bucket takes one";
        return Err(Error::new(Kind::Config, what));
    }
    policy::bucket(text).map(Some)
}

fn request(context: &Context, args: &Restore) -> Result<RestoreRequest> {
    let default = RestoreOptions::default();
    Ok(RestoreRequest {
        target: target(args).to_owned(),
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

fn text_of(report: &RestoreReport, args: &Restore, elapsed_ms: u64) -> String {
    let mut text = format!(
        "{} {} files, {} directories, {} other, {} to {} in {}\n",
        if args.dry_run { "would restore" } else { "restored" },
        units::count(report.files),
        units::count(report.dirs),
        units::count(report.others),
        units::bytes(report.bytes),
        path_text(target(args).as_os_str().as_bytes()),
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
    if report.checked > 0 {
        let checked = units::count(report.checked);
        let of_bucket = target(args).to_str().is_some_and(policy::is_bucket);
        let how = if of_bucket { "hashed while they were put" } else { "read again" };
        text.push_str(&format!("  {checked} files of models were {how}, and are what was recorded\n"));
    }
    if args.dry_run && args.delete {
        text.push_str("  what --delete would remove is not looked for in a dry run\n");
    }
    if report.misses_total > 0 {
        text.push_str(&format!("{} could not be restored:\n", units::count(report.misses_total)));
        misses_text(&report.misses, report.misses_total, &mut text);
    }
    text
}
