//! `holdfast model check`.

use super::args::ModelCheck;
use super::common::Context;
use super::named::{find, reader};
use super::output::{Outcome, path_text, plain};
use crate::base::units;
use crate::error::{Error, Exit, Kind, Result};
use crate::model::signature::Trust;
use crate::model::verdict::{Finding, Grade, Named, Signed};
use crate::ops::model_check::{self, Wish};
use crate::ops::verdicts::{
    Again, Judged, List, Names, Other, Report, Signature, again_of_snapshot, is_one, of_snapshot, read_chain, read_key,
};
use crate::repo::view::View;
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Most entries of a list of what is wrong.
const LIST_MAX: usize = 1000;

pub fn run(context: &Context, args: &ModelCheck) -> Result<Outcome> {
    let mut trust = Vec::new();
    for file in &args.signature_key {
        trust.push(Trust::Key(read_key(file)?));
    }
    for file in &args.signature_chain {
        trust.push(Trust::Chain(read_chain(file)?));
    }
    let (report, again) = match &args.snapshot {
        Some(name) => stored(context, args, name, &trust)?,
        None => {
            let wish = Wish { paths: &args.path, trust: &trust, now: context.env.now() };
            (model_check::run(&wish, &context.cancel)?, None)
        }
    };
    context.cancel.check()?;
    let mut outcome = Outcome::new(report.exit(), text(&report), value(&report));
    if let Some(again) = again {
        outcome.json["again"] = again_json(&again);
        outcome.text.push_str(&again_text(&again));
        outcome = outcome.at_best(if again.hashes + again.lost > 0 { Exit::Damage } else { Exit::Done });
    }
    Ok(outcome)
}

/// What stands in a snapshot.
fn stored(context: &Context, args: &ModelCheck, name: &OsStr, trust: &[Trust]) -> Result<(Report, Option<Again>)> {
    let repo = context.open()?;
    let view = View::load(&repo)?;
    let snapshot = find(&view, name, &args.filter)?.snapshot;
    let manifest = &snapshot.manifest;
    if !is_one(manifest) {
        let what = format!("the snapshot is of {}, which have no verdicts", manifest.source.kind);
        return Err(Error::new(Kind::Config, what).at(manifest.sid.short()).advise("back up model:/PATH"));
    }
    let (reader, now) = (reader(&repo)?, context.env.now());
    Ok(match args.again {
        true => {
            let (report, again) = again_of_snapshot(&reader, manifest, trust, now, &context.cancel)?;
            (report, Some(again))
        }
        false => (of_snapshot(&reader, manifest, trust, now, &context.cancel)?, None),
    })
}

fn again_json(again: &Again) -> Value {
    let one = |other: &Other| {
        let was = other.was.map(Grade::name);
        json!({"path": path(&other.path), "was": was, "now": other.now.name(), "hash": other.hash})
    };
    json!({
        "files": again.files, "bytes": again.bytes, "lost": again.lost, "hashes": again.hashes,
        "others": again.others.iter().map(one).collect::<Vec<_>>(), "others_total": again.others_total,
    })
}

/// What is recorded otherwise.
fn again_text(again: &Again) -> String {
    const SHOWN: usize = 20;
    let mut text = String::new();
    for other in again.others.iter().take(SHOWN) {
        let was = other.was.map_or("not recorded", Grade::name);
        let hash = if other.hash { "; ANOTHER HASH is recorded" } else { "" };
        text.push_str(&format!("OTHERWISE {}: was {was}, is {}{hash}\n", path(&other.path), other.now.name()));
    }
    let (files, others) = (units::count(again.files), units::count(again.others_total));
    text.push_str(&format!("{files} files judged again, {others} of them otherwise than recorded"));
    if again.lost > 0 {
        text.push_str(&format!(", {} LOST", units::count(again.lost)));
    }
    text.push('\n');
    text
}

fn path(path: &Path) -> String {
    path_text(path.as_os_str().as_bytes())
}

fn value(report: &Report) -> Value {
    let count = |grade| report.count(grade);
    let errors = report.errors.iter().take(LIST_MAX);
    json!({
        "verb": "model check", "grade": report.grade().name(),
        "none": count(Grade::None), "safe": count(Grade::Safe), "unknown": count(Grade::Unknown),
        "unsafe": count(Grade::Unsafe),
        "files": report.files.iter().map(file_json).collect::<Vec<_>>(),
        "signatures": report.signatures.iter().map(signature_json).collect::<Vec<_>>(),
        "sums": report.lists.iter().map(list_json).collect::<Vec<_>>(),
        "errors": errors.map(|(at, why)| json!({"path": path(at), "message": why})).collect::<Vec<_>>(),
        "errors_total": report.errors.len(),
    })
}

fn file_json(file: &Judged) -> Value {
    let verdict = &file.verdict;
    let finding = |f: &Finding| {
        let global = f.global.as_deref().map(plain);
        json!({"grade": f.grade.name(), "place": plain(&f.place), "offset": f.offset, "global": global,
            "what": plain(&f.what)})
    };
    json!({
        "path": path(&file.path), "bytes": file.bytes, "sha256": verdict.sha256.hex(),
        "blob": verdict.blob.name(), "sums": verdict.sums.name(), "signed": verdict.signed.name(),
        "pickle": verdict.pickle.grade.name(), "pickles": verdict.pickle.pickles,
        "findings": verdict.pickle.findings.iter().map(finding).collect::<Vec<_>>(),
        "findings_total": verdict.pickle.findings_total,
    })
}

fn names(names: &[String]) -> Vec<String> {
    names.iter().take(LIST_MAX).map(|name| plain(name)).collect()
}

fn signature_json(signature: &Signature) -> Value {
    let (checked, files) = (signature.checked.as_ref(), &signature.files);
    let left_out = checked.and_then(|checked| checked.statement.as_ref()).map(|statement| names(&statement.ignored));
    json!({
        "path": path(&signature.path), "standing": signature.standing(),
        "why": checked.map(|checked| plain(&checked.why)),
        "checked_at": checked.map(|checked| checked.at.rfc3339()),
        "ignore_paths": left_out.unwrap_or_default(), "same": files.same,
        "missing": names(&files.missing.first), "missing_total": files.missing.total,
        "unlisted": names(&files.unlisted.first), "unlisted_total": files.unlisted.total,
        "different": names(&files.different.first), "different_total": files.different.total,
        "ignored": names(&files.ignored.first), "ignored_total": files.ignored.total,
    })
}

fn list_json(list: &List) -> Value {
    json!({
        "path": path(&list.path), "bad": list.bad,
        "missing": names(&list.missing.first), "missing_total": list.missing.total,
        "different": names(&list.different.first), "different_total": list.different.total,
    })
}

fn text(report: &Report) -> String {
    let mut text = String::new();
    report.files.iter().for_each(|file| file_line(file, &mut text));
    report.signatures.iter().for_each(|signature| signature_lines(signature, &mut text));
    for list in &report.lists {
        text.push_str(&format!("hashes    {}\n", path(&list.path)));
        if list.bad > 0 {
            text.push_str(&format!("          {} lines are not understood, or contradict each other\n", list.bad));
        }
        some("missing", &list.missing, &mut text);
        some("different", &list.different, &mut text);
    }
    for (at, why) in report.errors.iter().take(LIST_MAX) {
        text.push_str(&format!("not read  {}: {}\n", path(at), plain(why)));
    }
    let count = |grade| report.count(grade);
    text.push_str(&format!(
        "{} files: {} without pickles, {} safe, {} unknown, {} UNSAFE\n",
        report.files.len(),
        count(Grade::None),
        count(Grade::Safe),
        count(Grade::Unknown),
        count(Grade::Unsafe)
    ));
    text
}

fn file_line(file: &Judged, text: &mut String) {
    let verdict = &file.verdict;
    let word = match verdict.pickle.grade {
        Grade::None => "-",
        Grade::Unsafe => "UNSAFE",
        other => other.name(),
    };
    let mut marks = Vec::new();
    for (of, named) in [("name", verdict.blob), ("list", verdict.sums)] {
        match named {
            Named::None => {}
            Named::Same => marks.push(format!("as its {of} says")),
            Named::Different => marks.push(format!("NOT as its {of} says")),
        }
    }
    match verdict.signed {
        Signed::None => {}
        Signed::Same => marks.push("as signed".into()),
        Signed::Ignored => marks.push("left out by the signer".into()),
        Signed::Unlisted => marks.push("NOT signed".into()),
        Signed::Different => marks.push("NOT as signed".into()),
    }
    let marks = if marks.is_empty() { String::new() } else { format!("  ({})", marks.join(", ")) };
    let digest = verdict.sha256.hex();
    text.push_str(&format!("{word:<9} {}  {}{marks}\n", digest.get(..12).unwrap_or(&digest), path(&file.path)));
    for finding in &verdict.pickle.findings {
        let place = if finding.place.is_empty() { String::new() } else { format!("{}, ", plain(&finding.place)) };
        text.push_str(&format!("          {place}byte {}: {}\n", finding.offset, plain(&finding.what)));
    }
    let more = verdict.pickle.findings_total.saturating_sub(verdict.pickle.findings.len() as u64);
    if more > 0 {
        text.push_str(&format!("          and {more} more\n"));
    }
}

fn signature_lines(signature: &Signature, text: &mut String) {
    match &signature.checked {
        None => text.push_str(&format!("MISSING   {}: a signature is expected\n", path(&signature.path))),
        Some(checked) => text.push_str(&format!(
            "{:<9} {}: {}, on {}\n",
            checked.standing.name(),
            path(&signature.path),
            plain(&checked.why),
            checked.at.rfc3339()
        )),
    }
    some("missing", &signature.files.missing, text);
    some("not signed", &signature.files.unlisted, text);
    some("different", &signature.files.different, text);
    some("left out by the signer", &signature.files.ignored, text);
}

/// The first of a list of names, and how many there are.
fn some(what: &str, list: &Names, text: &mut String) {
    const SHOWN: usize = 20;
    list.first.iter().take(SHOWN).for_each(|name| text.push_str(&format!("          {what}: {}\n", plain(name))));
    let more = list.total.saturating_sub(SHOWN as u64);
    if more > 0 {
        text.push_str(&format!("          {what}: {more} more\n"));
    }
}
