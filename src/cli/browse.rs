//! `holdfast snapshots`, `ls` and `cat`.

use super::args::{Cat, Filter, Ls};
use super::common::{Context, passes};
use super::found;
use super::hold;
use super::output::{Outcome, path_text, plain, remark};
use crate::base::{TimeMs, units};
use crate::error::{Error, Exit, Kind, Result};
use crate::format::tree::{Entry, EntryType};
use crate::ops::browse;
use crate::repo::Repo;
use crate::repo::holds::Holds;
use crate::repo::index::Index;
use crate::repo::reader::Reader;
use crate::repo::view::{Snapshot, View};
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

/// A reader over everything that the regions have.
pub fn reader(repo: &Arc<Repo>) -> Result<Reader> {
    Ok(Reader::new(Arc::clone(repo), Arc::new(Index::load(repo)?)))
}

/// What `SNAPSHOT[:PATH]` names.
pub struct Named<'v, 't> {
    pub snapshot: &'v Snapshot,
    pub path: &'t [u8],
    /// How to end at best: with damage, if the snapshot may not be the one that was meant.
    pub exit: Exit,
}

/// The snapshot that `SNAPSHOT[:PATH]` names, and the path. Says aloud what makes it unsure.
pub fn find<'v, 't>(view: &'v View, text: &'t OsStr, filter: &Filter) -> Result<Named<'v, 't>> {
    let (name, path) = browse::split_target(text.as_bytes());
    let name = String::from_utf8_lossy(name);
    let snapshot = view.find(&name, |m| passes(filter, m))?;
    let doubt = view.doubt(&name);
    if let Some(why) = &doubt {
        remark(&format!("warning: this is {}, but {why}", snapshot.manifest.sid.short()));
    }
    Ok(Named { snapshot, path, exit: if doubt.is_some() { Exit::Damage } else { Exit::Done } })
}

fn region_names(repo: &Repo, snapshot: &Snapshot) -> Vec<String> {
    snapshot.regions.iter().map(|ix| repo.regions.region(ix).name.clone()).collect()
}

fn snapshot_json(repo: &Repo, snapshot: &Snapshot, holds: &Holds) -> Value {
    let m = &snapshot.manifest;
    let held: Vec<Value> = holds.of(m.sid).map(|held| hold::held_json(&held.hold)).collect();
    json!({
        "id": m.sid.hex(), "digest": snapshot.digest.hex(), "time": TimeMs(m.start).rfc3339(), "start_ms": m.start, "end_ms": m.end,
        "source": m.source.name, "host": m.source.host, "paths": m.source.paths.iter().map(|p| path_text(p)).collect::<Vec<_>>(),
        "mode": m.mode.name(), "parent": m.parent.map(|p| p.hex()), "generation": m.generation.0,
        "files": m.counts.files, "bytes": m.counts.bytes, "bytes_stored": m.transfer.bytes_stored,
        "errors_total": m.errors_total, "tags": m.tags, "regions": region_names(repo, snapshot), "program": m.program,
        "stored_ms": snapshot.stored.0, "holds": held,
    })
}

pub fn snapshots(context: &Context, filter: &Filter) -> Result<Outcome> {
    let repo = context.open()?;
    let view = View::load(&repo)?;
    let holds = Holds::load(&repo);
    let mut text = String::new();
    let mut all = Vec::new();
    for snapshot in view.newest_first().into_iter().rev().filter(|s| passes(filter, &s.manifest)) {
        let m = &snapshot.manifest;
        let wrong = if m.errors_total > 0 { format!("  {} errors", m.errors_total) } else { String::new() };
        let held = if holds.of(m.sid).next().is_some() { "  HELD" } else { "" };
        text.push_str(&format!(
            "{}  {}  {:<11}  {:>9}  {:>9} files  {}  [{}]{wrong}{held}\n",
            m.sid.short(),
            TimeMs(m.start).rfc3339(),
            m.mode.name(),
            units::bytes(m.counts.bytes),
            units::count(m.counts.files),
            plain(&m.source.name),
            region_names(&repo, snapshot).join(" "),
        ));
        all.push(snapshot_json(&repo, snapshot, &holds));
    }
    if all.is_empty() {
        text.push_str("no snapshots\n");
    }
    let mut exit = Exit::Done;
    for (sid, why) in &view.damaged {
        text.push_str(&format!("DAMAGED: snapshot {}: {why}\n", sid.short()));
        exit = exit.worse(Exit::Damage);
    }
    for lost in &view.lost {
        text.push_str(&format!("LOST: {lost}\n"));
        exit = exit.worse(Exit::Damage);
    }
    let damaged: Vec<String> = view.damaged.keys().map(|s| s.hex()).collect();
    let mut value = json!({"verb": "snapshots", "repository": repo.id.hex(), "snapshots": all, "damaged": damaged, "lost": view.lost});
    found::add(&repo, &mut value, &mut text);
    Ok(Outcome::new(exit, text, value))
}

fn letter(kind: EntryType) -> char {
    match kind {
        EntryType::File => '-',
        EntryType::Dir => 'd',
        EntryType::Symlink => 'l',
        EntryType::Fifo => 'p',
        EntryType::Socket => 's',
        EntryType::CharDevice => 'c',
        EntryType::BlockDevice => 'b',
    }
}

fn long_line(path: &str, entry: &Entry) -> String {
    let bits = |shift: u32| {
        let b = entry.mode >> shift;
        [(4, 'r'), (2, 'w'), (1, 'x')].iter().map(|(bit, c)| if b & bit != 0 { *c } else { '-' }).collect::<String>()
    };
    let target = entry.target.as_ref().map_or(String::new(), |t| format!(" -> {}", path_text(t)));
    let time = TimeMs(entry.mtime_s.saturating_mul(1000)).rfc3339();
    let (letter, size) = (letter(entry.kind), entry.size());
    format!(
        "{letter}{}{}{} {:>6} {:>6} {size:>12} {time} {path}{target}",
        bits(6),
        bits(3),
        bits(0),
        entry.uid,
        entry.gid
    )
}

fn entry_json(path: &[u8], entry: &Entry) -> Value {
    json!({
        "path": path_text(path), "type": letter(entry.kind).to_string(), "mode": entry.mode, "uid": entry.uid, "gid": entry.gid,
        "size": entry.size(), "mtime_s": entry.mtime_s, "mtime_ns": entry.mtime_ns,
        "target": entry.target.as_ref().map(|t| path_text(t)),
    })
}

pub fn ls(context: &Context, args: &Ls) -> Result<Outcome> {
    let repo = context.open()?;
    let view = View::load(&repo)?;
    let Named { snapshot, path, exit } = find(&view, &args.snapshot, &args.filter)?;
    let reader = reader(&repo)?;
    let root = browse::find(&reader, &snapshot.manifest, path)?;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let closed = |_| Error::new(Kind::Cancelled, "the output was closed");
    let json = context.global.json;
    let mut show = |path: &[u8], entry: &Entry| {
        let name = path_text(path);
        let line = match (json, args.long) {
            (true, _) => entry_json(path, entry).to_string(),
            (_, true) => long_line(&name, entry),
            _ if entry.kind == EntryType::Dir => format!("{name}/"),
            _ => name,
        };
        writeln!(out, "{line}").map_err(closed)
    };
    browse::list(&reader, &root, args.recursive, &context.cancel, &mut show)?;
    out.flush().map_err(closed)?;
    drop(out);
    Ok(Outcome::new(exit, "", json!({"verb": "ls", "snapshot": snapshot.manifest.sid.hex()})))
}

pub fn cat(context: &Context, args: &Cat) -> Result<Outcome> {
    if context.global.json {
        return Err(Error::new(Kind::Config, "cat writes the file itself; --json has no place here"));
    }
    let repo = context.open()?;
    let view = View::load(&repo)?;
    let Named { snapshot, path, exit } = find(&view, &args.snapshot, &args.filter)?;
    let reader = reader(&repo)?;
    let entry = browse::find(&reader, &snapshot.manifest, path).and_then(|entry| {
        if path.is_empty() { Err(Error::new(Kind::Config, "give a path: SNAPSHOT:PATH")) } else { Ok(entry) }
    })?;
    let mut out = std::io::stdout().lock();
    browse::cat(&reader, &entry, &mut out, &context.cancel)?;
    out.flush().map_err(|_| Error::new(Kind::Cancelled, "the output was closed"))?;
    Ok(Outcome::new(exit, "", json!({})))
}
