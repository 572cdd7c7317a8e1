//! What `backup`, `restore` and `verify` say of models, and how a restore asks for leave.

use super::args::{Backup, RestoreTrust};
use super::common::Context;
use super::output::{path_text, plain, remark};
use crate::base::units;
use crate::error::{Error, Kind, Result};
use crate::format::snapshot::Manifest;
use crate::model::verdict::Grade;
use crate::ops::backup::Verdicts;
use crate::ops::verdicts::{Complaint, Report, Rules, is_one, noted, of_snapshot};
use crate::repo::reader::Reader;
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Complaints shown by name in text.
const SHOWN_MAX: usize = 20;
/// How a path of models, or a bucket of them, begins.
pub const PREFIX: &str = "model:";

/// The paths of models, without what makes them such; `None` if they are paths of any files.
///
/// # Errors
/// Some are, and some are not; or trust is asked of what is none.
pub fn paths(args: &Backup, paths: &[PathBuf]) -> Result<Option<Vec<PathBuf>>> {
    let stream = args.stdin || args.stdin_from_command;
    let bare = |path: &PathBuf| path.as_os_str().as_bytes().strip_prefix(PREFIX.as_bytes()).map(<[u8]>::to_vec);
    let found: Vec<PathBuf> = paths
        .iter()
        .filter(|_| !stream)
        .filter_map(bare)
        .map(|path| Path::new(OsStr::from_bytes(&path)).into())
        .collect();
    if found.is_empty() {
        if args.trust.is_given() {
            let e = Error::new(Kind::Config, "trust is asked of models only");
            return Err(e.advise("write model: before the path: model:/srv/models"));
        }
        return Ok(None);
    }
    if found.len() < paths.len() {
        let e = Error::new(Kind::Config, "models and other files are sources of their own");
        return Err(e.advise("write model: before each path, or make two backups"));
    }
    if found.iter().any(|path| path.as_os_str().is_empty()) {
        return Err(Error::new(Kind::Config, "model: needs a path behind it").advise("model:/srv/models"));
    }
    if let Some(path) = found.iter().find(|path| path.to_string_lossy().contains("://")) {
        let what = "models are backed up from paths of this machine, and from a bucket that is named by itself";
        let advice =
            "write model:/PATH or model:s3://BUCKET/PREFIX; a path with :// in it can be written with a single slash";
        return Err(Error::new(Kind::Config, what).at(path.display()).advise(advice));
    }
    Ok(Some(found))
}

/// Verdicts for JSON.
pub fn json_of(verdicts: &Verdicts) -> Value {
    let report = &verdicts.report;
    json!({
        "files": report.files.len(), "none": report.count(Grade::None), "safe": report.count(Grade::Safe),
        "unknown": report.count(Grade::Unknown), "unsafe": report.count(Grade::Unsafe),
        "signatures": report.signatures.iter().map(|s| {
            json!({"path": path_text(s.path.as_os_str().as_bytes()), "standing": s.standing()})
        }).collect::<Vec<_>>(),
        "refused": verdicts.refused(), "complaints": complaints_json(&verdicts.complaints),
        "complaints_total": verdicts.complaints.len(),
        "malformed": report.malformed.iter().map(|(path, malformed)| {
            let path = path_text(path.as_os_str().as_bytes());
            json!({"path": path, "format": plain(&malformed.format), "what": plain(&malformed.what), "at": malformed.at})
        }).collect::<Vec<_>>(),
        "malformed_total": report.malformed_total,
    })
}

fn complaints_json(complaints: &[Complaint]) -> Value {
    const MOST: usize = 1000;
    let one = |c: &Complaint| json!({"path": path_text(&c.path), "what": plain(&c.what), "refused": c.refused});
    complaints.iter().take(MOST).map(one).collect()
}

/// Verdicts for people.
pub fn text_of(verdicts: &Verdicts, text: &mut String) {
    let report = &verdicts.report;
    text.push_str(&format!(
        "  models: {} files without pickles, {} safe, {} unknown, {} UNSAFE; {} signatures\n",
        report.count(Grade::None),
        report.count(Grade::Safe),
        report.count(Grade::Unknown),
        report.count(Grade::Unsafe),
        report.signatures.iter().filter(|signature| signature.checked.is_some()).count()
    ));
    malformed_text(report, text);
    complaints_text(&verdicts.complaints, text);
    if verdicts.refused() > 0 {
        text.push_str("REFUSED: the snapshot is stored, and is restored only with --trust-anyway\n");
    }
}

/// What begins like a model and is none may be a download that is under way: it is stored as bytes, and said.
fn malformed_text(report: &Report, text: &mut String) {
    if report.malformed_total == 0 {
        return;
    }
    let count = units::count(report.malformed_total);
    text.push_str(&format!("  {count} files begin like models and are none, and are stored as bytes:\n"));
    for (path, malformed) in report.malformed.iter().take(SHOWN_MAX) {
        let path = path_text(path.as_os_str().as_bytes());
        text.push_str(&format!("    {path}: {}\n", plain(&malformed.to_string())));
    }
    let more = report.malformed_total.saturating_sub(SHOWN_MAX as u64);
    if more > 0 {
        text.push_str(&format!("    and {} more (see --json)\n", units::count(more)));
    }
}

fn complaints_text(complaints: &[Complaint], text: &mut String) {
    for Complaint { path, what, refused } in complaints.iter().take(SHOWN_MAX) {
        let title = if *refused { "REFUSED" } else { "WARNING" };
        text.push_str(&format!("{title}: {}: {}\n", path_text(path), plain(what)));
    }
    let more = complaints.len().saturating_sub(SHOWN_MAX);
    if more > 0 {
        text.push_str(&format!("  and {more} more (see --json)\n"));
    }
}

/// Whether a snapshot may be restored: not if something of it was refused when it was made, or is by what is asked for now;
/// but with leave.
///
/// # Errors
/// It may not, or keys cannot be read.
pub fn leave(context: &Context, args: &RestoreTrust, reader: &Reader, manifest: &Manifest) -> Result<()> {
    if !is_one(manifest) {
        if args.trust.is_given() {
            let what = format!("the snapshot is of {}, and trust is asked of models only", manifest.source.kind);
            return Err(Error::new(Kind::Config, what).at(manifest.sid.short()));
        }
        return Ok(());
    }
    let mut refused = Vec::new();
    if let Some(noted) = noted(manifest).filter(|noted| noted.refused > 0) {
        refused.push(format!("{} things of it were refused when it was made", noted.refused));
        refused.extend(noted.complaints);
    }
    if args.trust.is_given() {
        let rules = Rules::read(&args.trust.trust())?;
        let report = of_snapshot(reader, manifest, rules.trust(), context.env.now(), &context.cancel)?;
        let complaints = rules.complaints(&report);
        let said = |c: &Complaint| format!("{}: {}", String::from_utf8_lossy(&c.path), c.what);
        for complaint in complaints.iter().filter(|complaint| !complaint.refused).take(SHOWN_MAX) {
            remark(&plain(&format!("warning: {}", said(complaint))));
        }
        refused.extend(complaints.iter().filter(|complaint| complaint.refused).map(said));
    }
    let Some((first, rest)) = refused.split_first() else { return Ok(()) };
    rest.iter().take(SHOWN_MAX).for_each(|what| remark(&plain(&format!("refused: {what}"))));
    if args.trust_anyway {
        remark(&plain(&format!("warning: restored anyway: {first}")));
        return Ok(());
    }
    let e = Error::new(Kind::Refused, format!("the models are not to be trusted: {first}"));
    Err(e.at(manifest.sid.short()).advise("--trust-anyway restores them all the same"))
}
