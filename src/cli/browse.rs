//! `holdfast ls` and `cat`.

use super::args::{Cat, Ls};
use super::common::Context;
use super::etcd;
use super::named::{Named, find, reader};
use super::output::{Outcome, path_text};
use crate::base::TimeMs;
use crate::error::{Error, Kind, Result};
use crate::format::tree::{Entry, EntryType};
use crate::ops::browse;
use crate::repo::view::View;
use serde_json::{Value, json};
use std::io::Write;

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

pub fn long_line(path: &str, entry: &Entry) -> String {
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

pub fn entry_json(path: &[u8], entry: &Entry) -> Value {
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
    if etcd::has(&snapshot.manifest, path) {
        return etcd::ls(context, args, (&reader, &snapshot.manifest), path).map(|outcome| outcome.at_best(exit));
    }
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
    if etcd::has(&snapshot.manifest, path) {
        return etcd::cat(context, &reader, &snapshot.manifest, path).map(|outcome| outcome.at_best(exit));
    }
    let entry = browse::find(&reader, &snapshot.manifest, path).and_then(|entry| {
        if path.is_empty() { Err(Error::new(Kind::Config, "give a path: SNAPSHOT:PATH")) } else { Ok(entry) }
    })?;
    let mut out = std::io::stdout().lock();
    browse::cat(&reader, &entry, &mut out, &context.cancel)?;
    out.flush().map_err(|_| Error::new(Kind::Cancelled, "the output was closed"))?;
    Ok(Outcome::new(exit, "", json!({})))
}
