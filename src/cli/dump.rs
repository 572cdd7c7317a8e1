//! `holdfast dump`, and `restore --tar`.

use super::args::{Dump, Filter, Restore, RestoreTrust};
use super::backup::{misses_json, misses_text};
use super::common::Context;
use super::found;
use super::named::{Named, find, reader};
use super::output::{Outcome, path_text, remark};
use super::progress::Shown;
use super::verdicts;
use crate::base::{Progress, units};
use crate::error::{Error, Kind, Result};
use crate::format::tree::EntryType;
use crate::ops::browse;
use crate::ops::tar::{self, TarReport, TarRequest};
use crate::repo::view::View;
use crate::source::files::Excludes;
use serde_json::json;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufWriter, IsTerminal};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

/// Bytes that are gathered before they are written.
const BUFFER_BYTES: usize = 1 << 20;

/// What to write, and where.
struct Wanted<'a> {
    /// What is asked of models before they are restored.
    trust: Option<&'a RestoreTrust>,
    snapshot: &'a OsStr,
    filter: &'a Filter,
    /// `None`: standard output.
    output: Option<&'a Path>,
    tar: bool,
    request: TarRequest,
}

pub fn run(context: &Context, args: &Dump) -> Result<Outcome> {
    let request = TarRequest {
        include: Excludes::parse(&args.include)?,
        only_included: !args.include.is_empty(),
        exclude: Excludes::parse(&args.exclude)?,
        no_sparse: args.no_sparse,
        workers: context.workers(),
    };
    let output = args.output.as_deref().filter(|path| *path != Path::new("-"));
    let (snapshot, filter, tar) = (&args.snapshot, &args.filter, args.tar);
    dump(context, Wanted { trust: None, snapshot, filter, output, tar, request })
}

/// `restore --tar FILE`.
pub fn restore(context: &Context, args: &Restore, file: &Path) -> Result<Outcome> {
    let request = TarRequest {
        include: Excludes::parse(&args.include)?,
        only_included: !args.include.is_empty(),
        exclude: Excludes::parse(&args.exclude)?,
        no_sparse: false,
        workers: context.workers(),
    };
    let output = (file != Path::new("-")).then_some(file);
    let (snapshot, filter, trust) = (&args.snapshot, &args.filter, Some(&args.trust));
    dump(context, Wanted { trust, snapshot, filter, output, tar: true, request })
}

fn dump(context: &Context, wanted: Wanted<'_>) -> Result<Outcome> {
    if context.global.json && wanted.output.is_none() {
        let what = "what is dumped goes to standard output; --json has no place there";
        return Err(Error::new(Kind::Config, what).advise("use --output FILE"));
    }
    let repo = context.open()?;
    let view = View::load(&repo)?;
    let Named { snapshot, path, exit } = find(&view, wanted.snapshot, wanted.filter)?;
    let reader = reader(&repo)?;
    if let Some(trust) = wanted.trust {
        verdicts::leave(context, trust, &reader, &snapshot.manifest)?;
    }
    let root = browse::find(&reader, &snapshot.manifest, path)?;
    let archive = wanted.tar || root.kind == EntryType::Dir;
    let mut out = Output::open(wanted.output, archive)?;
    let progress = Arc::new(Progress::default());
    let shown = Shown::start("writing", &progress, context.global.quiet);
    let means = (&*progress, &context.cancel);
    let done = if archive {
        tar::archive(&reader, &snapshot.manifest, &root, &wanted.request, &mut out.file, means)
    } else {
        tar::content(&reader, &root, wanted.request.workers, &mut out.file, means)
    };
    let elapsed_ms = shown.elapsed_ms();
    drop(shown);
    let report = out.close(done)?;
    let mut value = json!({
        "verb": "dump", "snapshot": snapshot.manifest.sid.hex(), "archive": archive,
        "output": wanted.output.map(|path| path_text(path.as_os_str().as_bytes())), "seconds": elapsed_ms as f64 / 1000.0,
        "files": report.files, "directories": report.dirs, "other": report.others, "bytes": report.bytes,
        "bytes_written": report.bytes_written,
        "errors": misses_json(&report.misses), "errors_total": report.misses_total, "lost": report.lost,
    });
    let mut text = text_of(&report, elapsed_ms);
    found::add(&repo, &mut value, &mut text);
    let exit = report.exit().worse(exit);
    if wanted.output.is_some() {
        return Ok(Outcome::new(exit, text, value));
    }
    // Standard output has the bytes. What went wrong is said in any case.
    if !context.global.quiet || report.misses_total > 0 {
        remark(text.trim_end());
    }
    Ok(Outcome::silent(exit))
}

/// Where it goes.
struct Output<'a> {
    file: BufWriter<File>,
    path: Option<&'a Path>,
}

impl<'a> Output<'a> {
    fn open(path: Option<&'a Path>, archive: bool) -> Result<Output<'a>> {
        let failed = |e: std::io::Error| Error::new(Kind::Source, format!("cannot write the output: {}", e.kind()));
        let file = match path {
            None => {
                let out = std::io::stdout();
                if archive && out.is_terminal() {
                    let what = "an archive is not written to a terminal";
                    return Err(Error::new(Kind::Config, what).advise("use --output FILE, or `| tar -x -C DIR`"));
                }
                File::from(out.as_fd().try_clone_to_owned().map_err(failed)?)
            }
            Some(path) => File::create_new(path).map_err(|e| match e.kind() {
                std::io::ErrorKind::AlreadyExists => Error::new(Kind::Config, "the output exists")
                    .at(path.display())
                    .advise("give the name of a new file"),
                _ => failed(e).at(path.display()),
            })?,
        };
        Ok(Output { file: BufWriter::with_capacity(BUFFER_BYTES, file), path })
    }

    /// A file that did not get everything does not stay.
    fn close(self, done: Result<TarReport>) -> Result<TarReport> {
        let synced = done.and_then(|report| match self.path {
            Some(_) => self
                .file
                .get_ref()
                .sync_all()
                .map(|()| report)
                .map_err(|e| Error::new(Kind::Source, format!("cannot write the output: {}", e.kind()))),
            None => Ok(report),
        });
        if let (Err(_), Some(path)) = (&synced, self.path) {
            // What went wrong is told already.
            let _ = std::fs::remove_file(path);
        }
        synced
    }
}

fn text_of(report: &TarReport, elapsed_ms: u64) -> String {
    let mut text = format!(
        "wrote {} files, {} directories, {} other, {}; {} in {}\n",
        units::count(report.files),
        units::count(report.dirs),
        units::count(report.others),
        units::bytes(report.bytes),
        units::bytes(report.bytes_written),
        units::duration_ms(elapsed_ms)
    );
    if report.misses_total > 0 {
        text.push_str(&format!("{} are not in it, or not wholly:\n", units::count(report.misses_total)));
        misses_text(&report.misses, report.misses_total, &mut text);
    }
    text
}
