//! `holdfast backup`.

use super::args::{Backup, ModeArg};
use super::common::Context;
use super::found;
use super::output::{Outcome, path_text, plain};
use super::paths;
use super::progress::Shown;
use super::recorded::Recorded;
use super::verdicts;
use crate::base::{Bucket, Progress, units};
use crate::error::{Error, Kind, Result};
use crate::format::run::RunKind;
use crate::format::snapshot::{Miss, Mode};
use crate::ops::backup::{self, BackupOptions, BackupReport, Limits, StreamName};
use crate::ops::model::{Compared, Counts, Sudden};
use crate::ops::record::Closing;
use crate::policy::{self, Hooks, Rate, Source, is_file_name};
use crate::repo::index::cache::Cache;
use crate::source::files;
use crate::source::stream::Stream;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

/// Errors shown by name in text.
const SHOWN_MAX: usize = 20;

pub fn run(context: &Context, args: &Backup) -> Result<Outcome> {
    if args.mode == ModeArg::Delta {
        return Err(Error::new(Kind::Config, "only clusters of etcd have deltas").advise("use --mode incremental"));
    }
    let mut options = options(context, args)?;
    let name = stream_name(args, &mut options)?;
    files::raise_descriptors();
    let mut begun = None;
    let repo = context.open_beside(&mut |marked| {
        // A stream has no walk, and a bucket is listed once it is known what of it is the repository's.
        if name.is_none() && options.bucket.is_none() {
            let state = context.state().ok();
            let index = state.and_then(|state| Cache::identity_of(&state, &marked.id));
            begun = Some(options.begin(&marked.regions, index));
        }
    })?;
    // A command begins once its output can be stored.
    let stream = name.map(|name| Ok((name, input(args)?))).transpose()?;
    let progress = Arc::new(Progress::default());
    let shown = Shown::start("backing up", &progress, context.global.quiet);
    let opening =
        Closing { source: Some(options.source_name()?), how: Some(options.mode.name().into()), ..Closing::default() };
    let recorded = Recorded { kind: RunKind::Backup, repo: Some(&repo), id: repo.id, opening };
    let (mut report, closed) = recorded.run(
        context,
        !args.dry_run,
        |_| match stream {
            None => backup::run_begun(&repo, options, begun, &progress, &context.cancel),
            Some((name, input)) => backup::stream(&repo, &options, &name, input, (&progress, &context.cancel)),
        },
        |report, closing| (closing.backup(report), report.exit()),
    )?;
    let elapsed_ms = shown.elapsed_ms();
    drop(shown);
    closed.iter().for_each(|closed| closed.count_missed(&mut report.behind));
    let mut value = json_of(&report, elapsed_ms);
    value["run"] = json!(closed.map(|closed| closed.id.hex()));
    let mut text = text_of(&report, elapsed_ms, args.dry_run);
    found::add(&repo, &mut value, &mut text);
    Ok(Outcome::new(report.exit(), text, value))
}

pub(super) fn options(context: &Context, args: &Backup) -> Result<BackupOptions> {
    let mut patterns = args.exclude.clone();
    for path in &args.exclude_file {
        let text = std::fs::read_to_string(path).map_err(|e| {
            Error::new(Kind::Config, format!("cannot read the exclude file: {}", e.kind())).at(path.display())
        })?;
        let lines = text.lines().map(str::trim_end).filter(|l| !l.is_empty() && !l.starts_with('#'));
        patterns.extend(lines.map(str::to_owned));
    }
    let mode = match (args.full, args.mode) {
        (true, _) | (_, ModeArg::Full) => Mode::Full,
        (_, ModeArg::Incremental) => Mode::Incremental,
        (_, ModeArg::Independent) => Mode::Independent,
        (_, ModeArg::Delta) => Mode::Delta,
    };
    if !is_file_name(&args.ignore_file) {
        return Err(Error::new(Kind::Config, "--ignore-file takes the name of a file, not a path")
            .advise("a file of this name is looked for in each directory; --exclude-file reads one file"));
    }
    let (bucket, of_objects) = bucket(args)?.unzip();
    let all = if bucket.is_some() { Vec::new() } else { paths::all(args)? };
    let of_models = match of_objects {
        Some(true) => Some(Vec::new()),
        Some(false) | None => verdicts::paths(args, &all)?,
    };
    let model = of_models.is_some().then(|| args.trust.trust());
    let source = Source {
        name: String::new(),
        paths: of_models.unwrap_or(all),
        etcd: None,
        bucket,
        model,
        exclude: patterns,
        exclude_caches: args.exclude_caches,
        ignore_file: args.ignore_file.clone(),
        one_file_system: args.one_file_system,
        tags: args.tag.clone(),
        hooks: Hooks::default(),
    };
    let host = args.host.clone().unwrap_or_else(files::hostname);
    let options = BackupOptions::of(&source, host, mode, context.workers())?;
    let limits = Limits {
        compression: args.compression,
        upload: args.limit_upload.as_ref().map(Rate::bytes),
        read: args.limit_read.as_ref().map(Rate::bytes),
    };
    Ok(BackupOptions { name: args.name.clone(), clone: args.clone, dry_run: args.dry_run, limits, ..options })
}

/// The bucket that is to be backed up, if it is one, and whether its objects are models.
fn bucket(args: &Backup) -> Result<Option<(Bucket, bool)>> {
    let bare = |text: &'_ str| match text.strip_prefix(verdicts::PREFIX) {
        Some(bare) => (bare.to_owned(), true),
        None => (text.to_owned(), false),
    };
    let texts = args.path.iter().filter_map(|path| path.to_str()).map(bare);
    let mut texts = texts.filter(|(text, _)| policy::is_bucket(text));
    let Some((text, models)) = texts.next().filter(|_| !args.stdin_from_command) else { return Ok(None) };
    let lists = !args.files_from.is_empty() || !args.files_from_raw.is_empty();
    if args.path.len() > 1 || lists {
        let advice = "back each up by itself, under a name of its own";
        return Err(Error::new(Kind::Config, "a bucket is a source of its own").advise(advice));
    }
    if args.clone || args.one_file_system || args.exclude_caches {
        let what = "--clone, --one-file-system and --exclude-caches say nothing of a bucket";
        return Err(Error::new(Kind::Config, what));
    }
    policy::bucket(&text).map(|bucket| Some((bucket, models)))
}

/// Where a stream stands in its snapshot, if it is one that is backed up; it names the source too.
fn stream_name(args: &Backup, options: &mut BackupOptions) -> Result<Option<StreamName>> {
    if !args.stdin && !args.stdin_from_command {
        return Ok(None);
    }
    let name = StreamName::parse(args.stdin_filename.as_bytes())?;
    let shown = path_text(&name.path());
    options.name.get_or_insert_with(|| format!("stdin:{}:{shown}", options.host));
    Ok(Some(name))
}

fn input(args: &Backup) -> Result<Stream> {
    if args.stdin {
        return Ok(Stream::stdin());
    }
    let command: Vec<OsString> = args.path.iter().map(|part| part.clone().into_os_string()).collect();
    Stream::command(&command)
}

/// Misses for JSON.
pub fn misses_json(misses: &[Miss]) -> Value {
    let one = |m: &Miss| json!({"path": path_text(&m.path), "kind": m.kind, "message": m.message});
    json!(misses.iter().map(one).collect::<Vec<_>>())
}

/// Misses for people.
pub fn misses_text(misses: &[Miss], total: u64, text: &mut String) {
    for miss in misses.iter().take(SHOWN_MAX) {
        text.push_str(&format!("  {}: {}\n", path_text(&miss.path), plain(&miss.message)));
    }
    let more = total.saturating_sub(misses.len().min(SHOWN_MAX) as u64);
    if more > 0 {
        text.push_str(&format!("  and {} more (see --json)\n", units::count(more)));
    }
}

pub(super) fn json_of(report: &BackupReport, elapsed_ms: u64) -> Value {
    let (c, t) = (&report.counts, &report.transfer);
    let mut value = json!({
        "verb": "backup",
        "snapshot": report.snapshot.map(|s| s.hex()),
        "parent": report.parent.map(|s| s.hex()),
        "source": report.source,
        "seconds": elapsed_ms as f64 / 1000.0,
        "files": c.files, "directories": c.dirs, "symlinks": c.symlinks, "other": c.other,
        "bytes": c.bytes, "files_read": c.files_read, "files_unchanged": c.files_unchanged, "excluded": c.excluded,
        "bytes_read": t.bytes_read, "bytes_new": t.bytes_new, "bytes_stored": t.bytes_stored,
        "chunks_new": t.chunks_new, "chunks_used": t.chunks_used,
        "errors": misses_json(&report.errors), "errors_total": report.errors_total,
        "changed": report.changed.iter().map(|p| path_text(p)).collect::<Vec<_>>(),
        "changed_total": report.changed_total,
        "regions": report.regions,
        "behind": report.behind.iter().map(|(r, why)| json!({"region": r, "why": why})).collect::<Vec<_>>(),
        "caught_up": {"objects": report.caught_up.objects, "bytes": report.caught_up.bytes, "snapshots": report.caught_up.snapshots},
        "copies_min": report.copies_min, "encoder_errors": report.encoder_errors,
    });
    if let Some(found) = &report.verdicts {
        value["verdicts"] = verdicts::json_of(found);
    }
    if !report.models.is_empty() {
        value["models"] = models_json(&report.models);
    }
    value
}

/// Models that are not what they were.
fn models_json(models: &Compared) -> Value {
    let counts = |c: &Counts| {
        json!({
            "bytes": c.bytes, "bytes_changed": c.bytes_changed, "tensors_same": c.same, "tensors_changed": c.changed,
            "tensors_form": c.form, "tensors_added": c.added, "tensors_removed": c.removed, "tensors_unknown": c.unknown,
        })
    };
    let one = |sudden: &Sudden| {
        let mut value = counts(&sudden.counts);
        value["path"] = json!(path_text(&sudden.path));
        value["config"] = json!(sudden.config);
        value["gone"] = json!(sudden.gone);
        value
    };
    let mut value = counts(&models.counts);
    value["compared"] = json!(models.models);
    value["sudden"] = models.sudden.iter().map(one).collect();
    value["sudden_total"] = json!(models.sudden.len());
    value["unknown"] = json!(models.unknown);
    value["unknown_total"] = json!(models.unknown.len());
    value["left"] = json!(models.left);
    value
}

pub(super) fn text_of(report: &BackupReport, elapsed_ms: u64, dry_run: bool) -> String {
    let (c, t) = (&report.counts, &report.transfer);
    let mut text = String::new();
    if report.caught_up.objects > 0 {
        text.push_str(&format!(
            "brought up regions that were behind: {} objects, {}\n",
            units::count(report.caught_up.objects),
            units::bytes(report.caught_up.bytes)
        ));
    }
    match report.snapshot {
        Some(sid) => text.push_str(&format!("snapshot {} of {}\n", sid.short(), plain(&report.source))),
        None if dry_run => text.push_str(&format!("dry run of {}\n", plain(&report.source))),
        None => {}
    }
    text.push_str(&format!(
        "  {} files, {} directories, {} other; {}\n",
        units::count(c.files),
        units::count(c.dirs),
        units::count(c.symlinks + c.other),
        units::bytes(c.bytes)
    ));
    text.push_str(&format!(
        "  {} read ({} files; {} unchanged), {} new, {} stored in each region, {}\n",
        units::bytes(t.bytes_read),
        units::count(c.files_read),
        units::count(c.files_unchanged),
        units::bytes(t.bytes_new),
        units::bytes(t.bytes_stored),
        units::duration_ms(elapsed_ms)
    ));
    if report.snapshot.is_some() {
        text.push_str(&format!("  complete in: {}\n", report.regions.join(", ")));
        if report.regions.len() < report.copies_min {
            text.push_str(&format!("FAILED: {} complete copies, {} wanted\n", report.regions.len(), report.copies_min));
        }
    }
    report.verdicts.iter().for_each(|found| verdicts::text_of(found, &mut text));
    for (region, why) in &report.behind {
        text.push_str(&format!("BEHIND: region {region}: {why}\n"));
    }
    if !report.changed.is_empty() {
        text.push_str(&format!(
            "{} files changed while they were read; stored as they were last seen:\n",
            units::count(report.changed_total)
        ));
        for path in report.changed.iter().take(SHOWN_MAX) {
            text.push_str(&format!("  {}\n", path_text(path)));
        }
    }
    report.models.lines().iter().for_each(|what| text.push_str(&format!("{what}\n")));
    if report.encoder_errors > 0 {
        text.push_str(&format!(
            "WARNING: {} chunks did not decode to what they were encoded from and were stored as they are; test this machine's memory\n",
            report.encoder_errors
        ));
    }
    if report.errors_total > 0 {
        text.push_str(&format!("{} could not be read:\n", units::count(report.errors_total)));
        misses_text(&report.errors, report.errors_total, &mut text);
    }
    text
}
