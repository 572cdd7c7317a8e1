//! `holdfast model diff`.

use super::args::ModelDiff;
use super::common::Context;
use super::model_ls::{form, shown};
use super::output::{Outcome, one_line, plain, remark};
use crate::base::units;
use crate::error::{Error, Exit, Kind, Result};
use crate::ops::model::{Change, Difference, Report, Side, compare};
use serde_json::{Value, json};
use std::io::Write;

/// Files that are no models, shown by name in text.
const SHOWN_MAX: usize = 20;

pub fn run(context: &Context, args: &ModelDiff) -> Result<Outcome> {
    let json = context.global.json;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let closed = |_| Error::new(Kind::Cancelled, "the output was closed");
    let mut show = |difference: &Difference<'_>| {
        let line = if json { one_line(&json_of(difference)) } else { text_of(difference) };
        writeln!(out, "{line}").map_err(closed)
    };
    let report = compare((&args.old, &args.new), &context.cancel, &mut show)?;
    out.flush().map_err(closed)?;
    drop(out);
    for (path, what) in report.malformed.iter().take(SHOWN_MAX) {
        remark(&format!("NOT COMPARED: {}: {what}", shown(path)));
    }
    let exit = if report.malformed.is_empty() { Exit::Done } else { Exit::Partial };
    Ok(Outcome::new(exit, summary(&report), json_of_report(&report)))
}

/// `12.5%`; what is not nothing is not shown as nothing, and what is not all not as all.
fn share(part: u64, all: u64) -> String {
    if all == 0 {
        return "0%".into();
    }
    let percent = part as f64 * 100.0 / all as f64;
    match part {
        0 => "0%".into(),
        _ if percent < 0.1 => "under 0.1%".into(),
        _ if part < all && percent > 99.9 => "over 99.9%".into(),
        _ => format!("{percent:.1}%"),
    }
}

/// The same of what may be less: `up to 12.5%`.
fn share_of(part: u64, all: u64, at_most: bool) -> String {
    let share = share(part, all);
    match at_most && part > 0 {
        true if share.starts_with("over") => "up to 100.0%".into(),
        true if !share.starts_with("under") => format!("up to {share}"),
        _ => share,
    }
}

fn bytes_of(side: Option<&Side>) -> Option<u64> {
    side.and_then(|side| side.range).map(|(_, bytes)| bytes)
}

/// A line for a tensor.
pub fn text_of(difference: &Difference<'_>) -> String {
    let Difference { name, change, old, new, bytes_changed, at_most } = difference;
    let form = |side: &Side| form(&side.dtype, side.shape.as_deref());
    let size = |side: Option<&Side>| bytes_of(side).map_or("of unknown size".into(), units::bytes);
    let line = format!("{} {}", change.sign(), plain(name));
    match (old, new, bytes_changed) {
        (Some(old), Some(new), None) if *change == Change::Form => {
            let (before, after) = (form(old), form(new));
            if before == after {
                format!("{line}  {before}  {} -> {}", size(Some(old)), size(Some(new)))
            } else {
                format!("{line}  {before} -> {after}")
            }
        }
        (Some(one), Some(_), Some(changed)) => {
            let share = share_of(*changed, bytes_of(Some(one)).unwrap_or(0), *at_most);
            format!("{line}  {}  {share} of {}", form(one), size(Some(one)))
        }
        (Some(one), _, _) | (None, Some(one), _) => format!("{line}  {}  {}", form(one), size(Some(one))),
        (None, None, _) => line,
    }
}

/// The same as JSON.
pub fn json_of(difference: &Difference<'_>) -> Value {
    let mut value = json!({
        "name": difference.name, "change": difference.change.name(), "bytes_changed": difference.bytes_changed,
    });
    for (which, side) in [("old", difference.old), ("new", difference.new)] {
        value[format!("file_{which}")] = json!(side.map(|side| shown(&side.file)));
        value[format!("dtype_{which}")] = json!(side.map(|side| &side.dtype));
        value[format!("shape_{which}")] = json!(side.and_then(|side| side.shape.as_ref()));
        value[format!("bytes_{which}")] = json!(bytes_of(side));
    }
    value
}

fn json_of_report(report: &Report) -> Value {
    let one = |(path, what): &(std::path::PathBuf, crate::model::format::Malformed)| json!({"path": shown(path), "at": what.at, "what": what.what});
    let mut value = counts(report);
    value["verb"] = json!("model diff");
    value["malformed"] = report.malformed.iter().map(one).collect();
    value
}

/// Tensors by what became of them.
pub fn counts(report: &Report) -> Value {
    json!({
        "same": report.same, "added": report.added, "removed": report.removed, "form": report.form,
        "changed": report.bytes, "unknown": report.unknown, "bytes_compared": report.bytes_compared,
        "bytes_changed": report.bytes_changed,
    })
}

/// What came of all tensors, in words.
pub fn summary(report: &Report) -> String {
    let mut text = format!(
        "{} tensors the same, {} with other bytes ({} of {}), {} of another type or shape, {} added, {} removed",
        units::count(report.same),
        units::count(report.bytes),
        share_of(report.bytes_changed, report.bytes_compared, report.at_most),
        units::bytes(report.bytes_compared),
        units::count(report.form),
        units::count(report.added),
        units::count(report.removed)
    );
    if report.unknown > 0 {
        text.push_str(&format!(", {} not compared", units::count(report.unknown)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_nothing_or_all_only_if_it_is() {
        let shares = [(0, 0), (0, 9), (1, 1_000_000), (1, 8), (999_999, 1_000_000), (7, 7)].map(|(a, b)| share(a, b));
        assert_eq!(shares, ["0%", "0%", "under 0.1%", "12.5%", "over 99.9%", "100.0%"]);
        let bounds = [(0, 9), (1, 1_000_000), (1, 8), (999_999, 1_000_000)].map(|(a, b)| share_of(a, b, true));
        assert_eq!(bounds, ["0%", "under 0.1%", "up to 12.5%", "up to 100.0%"]);
    }
}
