//! `holdfast ls` and `cat`.

use super::args::{Cat, Ls};
use super::common::Context;
use super::etcd;
use super::found;
use super::model_ls::{Sums, is_other, json_of, text_of};
use super::named::{Named, find, reader};
use super::output::{Outcome, one_line, path_text, plain, remark};
use crate::base::TimeMs;
use crate::error::{Error, Exit, Kind, Result};
use crate::format::snapshot::Manifest;
use crate::format::tree::{Entry, EntryType};
use crate::ops::browse;
use crate::ops::model::{Holding, look_into};
use crate::repo::reader::Reader;
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

/// What `--tensors` looks into, and what it saw.
struct Looking<'l> {
    reader: &'l Reader,
    manifest: &'l Manifest,
    /// What was named, and whether that is a directory.
    root: (&'l [u8], bool),
    sums: Sums,
    exit: Exit,
}

impl Looking<'_> {
    /// The file of a model that an entry is.
    fn look(&mut self, below: &[u8], entry: &Entry) -> Option<Holding> {
        let path = if self.root.1 { [self.root.0, b"/", below].concat() } else { self.root.0.to_vec() };
        match look_into(self.reader, self.manifest, &path, entry) {
            Ok(found) => {
                let holding = found?;
                self.sums.take(&holding);
                (!is_other(&holding)).then_some(holding)
            }
            Err(e) => {
                let exit = if matches!(e.kind(), Kind::Source | Kind::NotFound) { Exit::Partial } else { Exit::Damage };
                self.exit = self.exit.worse(exit);
                self.sums.unread += 1;
                remark(&format!("NOT LOOKED INTO: {}: {}", path_text(below), plain(&e.to_string())));
                None
            }
        }
    }

    fn exit(&self) -> Exit {
        self.exit.worse(if self.sums.malformed > 0 { Exit::Partial } else { Exit::Done })
    }
}

pub fn ls(context: &Context, args: &Ls) -> Result<Outcome> {
    let repo = context.open()?;
    let view = View::load(&repo)?;
    let Named { snapshot, path, exit } = find(&view, &args.snapshot, &args.filter)?;
    let reader = reader(&repo)?;
    if etcd::has(&snapshot.manifest, path) {
        if args.tensors {
            return Err(Error::new(
                Kind::Config,
                "a snapshot of etcd has no files of models; --tensors has no place here",
            ));
        }
        return etcd::ls(context, args, (&reader, &snapshot.manifest), path).map(|outcome| outcome.at_best(exit));
    }
    let root = browse::find(&reader, &snapshot.manifest, path)?;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let closed = |_| Error::new(Kind::Cancelled, "the output was closed");
    let json = context.global.json;
    let named = (path, root.kind == EntryType::Dir);
    let (sums, manifest) = (Sums::default(), &snapshot.manifest);
    let mut looking = Looking { reader: &reader, manifest, root: named, sums, exit: Exit::Done };
    let mut show = |path: &[u8], entry: &Entry| {
        let name = path_text(path);
        let model = if args.tensors { looking.look(path, entry) } else { None };
        let line = match (json, args.long) {
            (true, _) => {
                let mut value = entry_json(path, entry);
                if let Some(model) = &model {
                    value["model"] = json_of(model);
                }
                return writeln!(out, "{}", one_line(&value)).map_err(closed);
            }
            (_, true) => long_line(&name, entry),
            _ if entry.kind == EntryType::Dir => format!("{name}/"),
            _ => name,
        };
        let text = model.map_or_else(|| format!("{line}\n"), |model| text_of(&line, &model));
        out.write_all(text.as_bytes()).map_err(closed)
    };
    browse::list(&reader, &root, args.recursive, &context.cancel, &mut show)?;
    out.flush().map_err(closed)?;
    drop(out);
    let mut value = json!({"verb": "ls", "snapshot": manifest.sid.hex()});
    if !args.tensors {
        return Ok(Outcome::new(exit, "", value));
    }
    value["tensors"] = looking.sums.json();
    let mut text = format!("{}\n", looking.sums.text());
    found::add(&repo, &mut value, &mut text);
    Ok(Outcome::new(exit.worse(looking.exit()), text, value))
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
