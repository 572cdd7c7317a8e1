//! `holdfast find`.

use super::args::{Find, TypeArg};
use super::browse::{entry_json, long_line};
use super::common::{Context, passes};
use super::etcd;
use super::found;
use super::named::{self, reader};
use super::output::{Outcome, path_text, plain, remark};
use crate::base::SessionId;
use crate::error::{Error, Exit, Kind, Result};
use crate::format::snapshot::Manifest;
use crate::format::tree::EntryType;
use crate::ops;
use crate::ops::find::{self, Query};
use crate::ops::side_by_side::{Trees, Version};
use crate::policy;
use crate::repo::view::View;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

/// Parts that could not be looked at, shown by name in text.
const SHOWN_MAX: usize = 20;

fn query(context: &Context, args: &Find) -> Result<Query> {
    let now = context.env.now();
    let time = |text: &Option<String>| text.as_ref().map(|text| policy::since(text, now)).transpose();
    let kinds = args.kind.iter().flat_map(|kind| match kind {
        TypeArg::File => vec![EntryType::File],
        TypeArg::Dir => vec![EntryType::Dir],
        TypeArg::Symlink => vec![EntryType::Symlink],
        TypeArg::Other => vec![EntryType::Fifo, EntryType::Socket, EntryType::CharDevice, EntryType::BlockDevice],
    });
    let mut query = Query::parse(&args.pattern, args.ignore_case)?;
    query.kinds = kinds.collect();
    (query.bytes_min, query.bytes_max) = (args.larger, args.smaller);
    (query.since, query.before) = (time(&args.newer)?, time(&args.older)?);
    Ok(query)
}

/// The snapshots to look in, of each source, the newest first.
fn chosen<'v>(view: &'v View, args: &Find) -> Result<BTreeMap<&'v str, Vec<&'v Manifest>>> {
    let named = args.snapshot.iter().map(|text| Ok(named::snapshot(view, text, &args.filter)?.manifest.sid));
    let named: BTreeSet<SessionId> = named.collect::<Result<_>>()?;
    let mut sources: BTreeMap<&str, Vec<&Manifest>> = BTreeMap::new();
    for snapshot in view.newest_first() {
        let manifest = &snapshot.manifest;
        let wanted = if named.is_empty() { passes(&args.filter, manifest) } else { named.contains(&manifest.sid) };
        if wanted {
            let all = sources.entry(&manifest.source.name).or_default();
            if all.is_empty() || !args.newest {
                all.push(manifest);
            }
        }
    }
    Ok(sources)
}

/// Snapshots by their numbers.
fn having<'m>(snapshots: &[&'m Manifest], trees: &Trees) -> Vec<&'m Manifest> {
    trees.iter().filter_map(|number| snapshots.get(number).copied()).collect()
}

fn text_line(path: &[u8], version: &Version, snapshots: &[&Manifest], long: bool) -> String {
    let having = having(snapshots, &version.trees);
    let newest = having.first().map_or_else(String::new, |m| m.sid.short());
    let name = format!("{newest}:/{}", path_text(path));
    let line = match (long, version.entry.kind) {
        (true, _) => long_line(&name, &version.entry),
        (_, EntryType::Dir) => format!("{name}/"),
        _ => name,
    };
    match having.as_slice() {
        [] | [_] => line,
        [.., oldest] => format!("{line}  ({} snapshots, from {})", having.len(), oldest.sid.short()),
    }
}

fn json_line(path: &[u8], version: &Version, source: &str, snapshots: &[&Manifest]) -> String {
    let mut line = entry_json(path, &version.entry);
    line["source"] = json!(source);
    line["snapshots"] = having(snapshots, &version.trees).iter().map(|m| m.sid.hex()).collect();
    line.to_string()
}

pub fn run(context: &Context, args: &Find) -> Result<Outcome> {
    let query = query(context, args)?;
    let repo = context.open()?;
    let view = View::load(&repo)?;
    let sources = chosen(&view, args)?;
    let reader = reader(&repo)?;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let closed = |_| Error::new(Kind::Cancelled, "the output was closed");
    let (json, mut lost, mut text) = (context.global.json, Vec::new(), String::new());
    let (mut found, mut lost_total, mut pages, mut searched) = (0, 0, 0, 0);
    for (source, snapshots) in &sources {
        let mut show = |path: &[u8], version: &Version| {
            let line = if json {
                json_line(path, version, source, snapshots)
            } else {
                text_line(path, version, snapshots, args.long)
            };
            writeln!(out, "{line}").map_err(closed)
        };
        let report = find::run(&reader, snapshots, &query, &context.cancel, &mut show)?;
        (found, pages) = (found + report.found, pages + report.pages);
        let keys = ops::etcd::find(&reader, snapshots, &query, &context.cancel)?;
        for (line, having) in &keys.found {
            found += 1;
            let having: Vec<&Manifest> = having.iter().filter_map(|number| snapshots.get(*number).copied()).collect();
            writeln!(out, "{}", etcd::found_line(line, source, &having, (json, args.long))).map_err(closed)?;
        }
        for (number, why) in &keys.lost {
            let sid = snapshots.get(*number).map(|manifest| manifest.sid.hex());
            lost_total += 1;
            text.push_str(&format!("NOT LOOKED AT: keys of {}: {}\n", plain(source), plain(why)));
            lost.push(json!({"path": "", "source": source, "snapshots": [sid], "message": why}));
        }
        (lost_total, searched) = (lost_total + report.lost_total, searched + snapshots.len());
        for (path, trees, why) in &report.lost {
            let sids: Vec<String> = having(snapshots, trees).iter().map(|m| m.sid.hex()).collect();
            if lost.len() < SHOWN_MAX {
                text.push_str(&format!("NOT LOOKED AT: {} of {}: {}\n", path_text(path), plain(source), plain(why)));
            }
            lost.push(json!({"path": path_text(path), "source": source, "snapshots": sids, "message": why}));
        }
    }
    out.flush().map_err(closed)?;
    drop(out);
    let mut value: Value = json!({
        "verb": "find", "snapshots_searched": searched, "found": found, "tree_pages_read": pages,
        "lost": lost, "lost_total": lost_total,
    });
    found::add(&repo, &mut value, &mut text);
    if !json && !text.is_empty() {
        remark(text.trim_end());
    }
    let exit = if lost_total > 0 || !view.damaged.is_empty() { Exit::Damage } else { Exit::Done };
    Ok(Outcome::new(exit, "", value))
}
