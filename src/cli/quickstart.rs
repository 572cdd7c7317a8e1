//! `holdfast quickstart`: the whole job once, on a directory of the user's.

use super::args::Quickstart;
use super::common::{Context, Places};
use super::init;
use super::output::{Outcome, line};
use super::progress::Shown;
use crate::base::{Progress, units};
use crate::crypto::{Secret, generate_passphrase};
use crate::error::{Error, Exit, Kind, Result};
use crate::format::snapshot::Mode;
use crate::ops::backup::{self, BackupOptions, BackupReport};
use crate::ops::compare::{self, Comparison};
use crate::ops::restore::{self, RestoreReport, RestoreRequest};
use crate::ops::verify::{self, Level, VerifyReport, Wish};
use crate::region::Address;
use crate::repo::Repo;
use crate::repo::init::NewSecret;
use crate::repo::open;
use crate::repo::view::View;
use crate::source::files::{self, Excludes, RestoreOptions, WalkOptions};
use crate::unlock::Unlock;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Removed when dropped, unless the user named the place.
struct Place {
    dir: PathBuf,
    ours: bool,
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.ours {
            // What cannot be removed is only disk space in a temporary place.
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}

fn place(context: &Context, args: &Quickstart) -> Result<Place> {
    let fail = |dir: &Path, e: std::io::Error| {
        Error::new(Kind::Config, format!("cannot make the directory: {}", e.kind())).at(dir.display())
    };
    match &args.dir {
        Some(dir) => {
            std::fs::create_dir_all(dir).map_err(|e| fail(dir, e))?;
            if std::fs::read_dir(dir).map_err(|e| fail(dir, e))?.next().is_some() {
                return Err(Error::new(Kind::Refused, "the directory is not empty").at(dir.display()));
            }
            Ok(Place { dir: dir.clone(), ours: false })
        }
        None => {
            let name = format!("holdfast-quickstart-{}", crate::base::hex(&context.env.random::<6>()?));
            let dir = std::env::temp_dir().join(name);
            std::fs::create_dir(&dir).map_err(|e| fail(&dir, e))?;
            Ok(Place { dir, ours: true })
        }
    }
}

/// One numbered line of the report.
fn step(context: &Context, text: &str) {
    if !context.global.json {
        line(&mut std::io::stdout().lock(), text);
    }
}

pub fn run(context: &Context, args: &Quickstart) -> Result<Outcome> {
    let place = place(context, args)?;
    let places = Places {
        addresses: ["region-a", "region-b"]
            .map(|name| Address { name: name.into(), place: place.dir.join(name).into() })
            .to_vec(),
        copies_min: 2,
        pin: None,
        priorities: BTreeMap::new(),
    };
    let words = generate_passphrase(&Secret::from_bytes(context.env.random()?));
    let id = init::make(context, &places, &[(String::new(), NewSecret::Passphrase(words.clone()))])?;
    step(context, &format!("1 created   repository {} in two regions below {}", id.short(), place.dir.display()));
    // It leaves nothing behind, so no index on this machine either.
    let repo = Arc::new(open::open(&context.opening(&places), &Unlock::Passphrase(words.clone()))?);
    let (first, ms) = timed(context, "backing up", |p| back_up(context, &repo, args, p))?;
    step(context, &backup_line("2 backed up", &first, ms));
    let (second, ms2) = timed(context, "backing up", |p| back_up(context, &repo, args, p))?;
    step(context, &backup_line("3 again    ", &second, ms2));
    let (verified, ms3) = timed(context, "verifying", |p| {
        verify::run(&repo, &Wish::all(Level::Content, context.workers()), None, p, &context.cancel)
    })?;
    let (chunks, bytes) = verified.regions.iter().fold((0, 0), |(c, b), r| (c + r.chunks, b + r.bytes));
    step(
        context,
        &format!(
            "4 verified  {} chunks, {} in both regions in {}: {}",
            units::count(chunks),
            units::bytes(bytes),
            units::duration_ms(ms3),
            if verified.exit() == Exit::Done { "no damage" } else { "DAMAGE FOUND" }
        ),
    );
    let target = place.dir.join("restored");
    let (restored, ms4) = timed(context, "restoring", |p| restore_latest(context, &repo, &target, p))?;
    step(
        context,
        &format!(
            "5 restored  {} files, {} in {}",
            units::count(restored.files),
            units::bytes(restored.bytes),
            units::duration_ms(ms4)
        ),
    );
    let compared = compare::trees(&args.path, &target, &WalkOptions::default(), &context.cancel)?;
    step(context, &compared_line(&compared));
    Ok(finish(&place, &words, &Results { first, second, verified, restored, compared }, [ms, ms2, ms3, ms4]))
}

struct Results {
    first: BackupReport,
    second: BackupReport,
    verified: VerifyReport,
    restored: RestoreReport,
    compared: Comparison,
}

fn timed<T>(context: &Context, title: &'static str, act: impl FnOnce(&Progress) -> Result<T>) -> Result<(T, u64)> {
    let progress = Arc::new(Progress::default());
    let shown = Shown::start(title, &progress, context.global.quiet || context.global.json);
    let done = act(&progress)?;
    Ok((done, shown.elapsed_ms()))
}

fn back_up(context: &Context, repo: &Arc<Repo>, args: &Quickstart, progress: &Progress) -> Result<BackupReport> {
    let (name, paths) = ("quickstart".into(), vec![args.path.clone()]);
    let options = BackupOptions::plain(name, files::hostname(), paths, Mode::Incremental);
    let options = BackupOptions { workers: context.workers(), ..options };
    backup::run(repo, options, progress, &context.cancel)
}

fn backup_line(title: &str, report: &BackupReport, ms: u64) -> String {
    let errors = match report.errors_total {
        0 => String::new(),
        n => format!(", {n} NOT READ"),
    };
    format!(
        "{title} {} files, {}: {} read, {} stored in each of {} regions in {}{errors}",
        units::count(report.counts.files),
        units::bytes(report.counts.bytes),
        units::bytes(report.transfer.bytes_read),
        units::bytes(report.transfer.bytes_stored),
        report.regions.len(),
        units::duration_ms(ms)
    )
}

fn restore_latest(context: &Context, repo: &Arc<Repo>, target: &Path, progress: &Progress) -> Result<RestoreReport> {
    let view = View::load(repo)?;
    let snapshot = view.find("latest", |_| true)?;
    let reader = super::named::reader(repo)?;
    let request = RestoreRequest {
        target: target.to_path_buf(),
        include: Excludes::default(),
        exclude: Excludes::default(),
        only_included: false,
        delete: false,
        dry_run: false,
        options: RestoreOptions::default(),
        workers: context.workers(),
    };
    restore::run(&reader, &snapshot.manifest, &snapshot.manifest.root, &request, progress, &context.cancel)
}

fn compared_line(compared: &Comparison) -> String {
    let mut text =
        format!("6 compared  {} entries, {}: ", units::count(compared.entries), units::bytes(compared.bytes));
    match compared.differences_total {
        0 => text.push_str("equal in content, names, modes, owners, times, links and attributes"),
        n => {
            text.push_str(&format!("{n} DIFFERENCES"));
            compared.differences.iter().take(10).for_each(|d| text.push_str(&format!("\n    {d}")));
        }
    }
    text
}

fn finish(place: &Place, words: &str, results: &Results, ms: [u64; 4]) -> Outcome {
    let mut exit = results.first.exit().worse(results.second.exit()).worse(results.restored.exit());
    exit = exit.worse(results.verified.exit());
    if results.compared.differences_total > 0 {
        exit = exit.worse(Exit::Partial);
    }
    let mut text = String::new();
    if place.ours {
        text.push_str("\nEverything was made in a temporary directory, which is removed now. To keep it: --dir DIR\n");
    } else {
        text.push_str(&format!(
            "\nKept in {}. Its passphrase: {words}\nLook around: HOLDFAST_PASSPHRASE={words} holdfast --region a={}/region-a snapshots\n",
            place.dir.display(),
            place.dir.display()
        ));
    }
    let seconds = ms.map(|ms| ms as f64 / 1000.0);
    let value = json!({
        "verb": "quickstart", "files": results.first.counts.files, "bytes": results.first.counts.bytes,
        "bytes_stored": results.first.transfer.bytes_stored,
        "seconds": {"backup": seconds[0], "unchanged": seconds[1], "verify": seconds[2], "restore": seconds[3]},
        "differences": results.compared.differences, "differences_total": results.compared.differences_total,
        "errors_total": results.first.errors_total,
    });
    Outcome::new(exit, text, value)
}
