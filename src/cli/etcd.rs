//! What `backup`, `restore`, `ls`, `cat` and `diff` do with etcd.

use super::args::{Backup, EtcdSource, EtcdTarget, Ls, Restore};
use super::backup::{json_of, options, text_of};
use super::common::Context;
use super::found;
use super::named::{Named, find_etcd, reader};
use super::output::{Outcome, path_text, plain};
use super::progress::Shown;
use super::recorded::Recorded;
use crate::base::{Pace, Progress, TimeMs, units};
use crate::error::{Error, Exit, Kind, Result};
use crate::format::run::RunKind;
use crate::format::snapshot::{Manifest, Mode};
use crate::ops::etcd::{
    self, Delta, DeltaReport, EtcdOptions, EtcdReport, EtcdRestore, EtcdRestored, Fate, Goal, KeyChange, Keys, PutBack,
    PutReport, Terms,
};
use crate::ops::record::Closing;
use crate::policy::{self, Rate};
use crate::repo::Repo;
use crate::repo::reader::Reader;
use crate::repo::view::View;
use crate::source::etcd::cluster::Address;
use crate::source::etcd::grpc::{Means, Password};
use crate::source::etcd::keys::Line;
use crate::source::etcd::tools::Membership;
use serde_json::{Value, json};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How far the revision of a data folder is moved up: more than a week of 1,500 writes a second.
const BUMP: i64 = 1_000_000_000;

/// The cluster that is to be backed up, if it is one.
pub fn address(args: &Backup) -> Result<Option<Address>> {
    let is_one = |path: &Path| path.to_str().is_some_and(Address::is_one);
    match args.path.as_slice() {
        [only] if is_one(only) && !args.stdin_from_command => Address::parse(&only.to_string_lossy()).map(Some),
        several if several.iter().any(|path| is_one(path)) && !args.stdin_from_command => {
            let what = "a cluster of etcd is a source of its own";
            Err(Error::new(Kind::Config, what).advise("name all members in one address: etcd://HOST:2379,HOST:2379"))
        }
        _ => Ok(None),
    }
}

fn means(source: &EtcdSource) -> Result<Means> {
    let user = match (&source.etcd_user, &source.etcd_password_file) {
        (Some(name), Some(file)) => Some((name.clone(), Password::read(file)?)),
        _ => None,
    };
    if source.etcd_cert.is_some() != source.etcd_key.is_some() {
        return Err(Error::new(Kind::Config, "a certificate without its key, or the other way round")
            .advise("give both --etcd-cert and --etcd-key"));
    }
    let identity = source.etcd_cert.clone().zip(source.etcd_key.clone());
    Ok(Means { ca: source.etcd_ca.clone(), identity, user, ..Means::default() })
}

/// `holdfast backup etcd://…`.
pub fn backup(context: &Context, args: &Backup, address: Address) -> Result<Outcome> {
    if args.dry_run || args.clone || !args.exclude.is_empty() || !args.exclude_file.is_empty() {
        let what = "a cluster of etcd is taken whole: --dry-run, --clone and --exclude have no place there";
        return Err(Error::new(Kind::Config, what));
    }
    let mut options = options(context, args)?;
    options.name.get_or_insert_with(|| format!("etcd:{}", address.endpoints.join(",")));
    let scratch = std::env::temp_dir();
    let etcd = EtcdOptions { address, means: means(&args.etcd)?, new_cluster: args.new_cluster, scratch };
    let repo = context.open()?;
    let progress = Arc::new(Progress::default());
    let shown = Shown::start("backing up", &progress, context.global.quiet);
    let opening =
        Closing { source: Some(options.source_name()?), how: Some(options.mode.name().into()), ..Closing::default() };
    let recorded = Recorded { kind: RunKind::Backup, repo: Some(&repo), id: repo.id, opening };
    let means = (&*progress, &context.cancel);
    let (done, closed) = recorded.run(
        context,
        true,
        |_| match options.mode {
            Mode::Delta => etcd::delta(&repo, &mut options, &etcd, &Terms::ASKED, means),
            _ => etcd::backup(&repo, &options, &etcd, means)
                .map(|(stored, found)| Delta::Whole(Box::new(stored), Box::new(found), String::new())),
        },
        |done, closing| match done {
            Delta::Stored(report, _) | Delta::Whole(report, ..) => (closing.backup(report), report.exit()),
            Delta::Nothing(_) => (closing, Exit::Done),
        },
    )?;
    let elapsed_ms = shown.elapsed_ms();
    drop(shown);
    let (mut report, more, said) = match done {
        Delta::Whole(report, found, why) => {
            let note =
                if why.is_empty() { String::new() } else { format!("NOTE: a whole snapshot, no delta: {why}\n") };
            (*report, etcd_json(&found), etcd_text(&found) + &note)
        }
        Delta::Stored(report, found) => (*report, delta_json(&found), delta_text(&found)),
        Delta::Nothing(revision) => {
            let value = json!({"verb": "backup", "snapshot": null, "etcd": {"revision": revision, "changes": 0}});
            let text = format!("nothing changed since revision {revision}, which the last snapshot has\n");
            return Ok(Outcome::new(Exit::Done, text, value));
        }
    };
    closed.iter().for_each(|closed| closed.count_missed(&mut report.behind));
    let mut value = json_of(&report, elapsed_ms);
    value["run"] = json!(closed.map(|closed| closed.id.hex()));
    value["etcd"] = more;
    let mut text = text_of(&report, elapsed_ms, false);
    text.push_str(&said);
    found::add(&repo, &mut value, &mut text);
    Ok(Outcome::new(report.exit(), text, value))
}

fn delta_json(report: &DeltaReport) -> Value {
    json!({"after": report.after, "revision": report.to, "changes": report.changes, "exposed_ms": report.exposed_ms})
}

fn delta_text(report: &DeltaReport) -> String {
    format!(
        "  etcd revisions {} to {}: {} changes; {} of them were nowhere else until now\n",
        report.after.saturating_add(1),
        report.to,
        units::count(report.changes),
        units::duration_ms(report.exposed_ms.unsigned_abs())
    )
}

fn etcd_json(report: &EtcdReport) -> Value {
    let (facts, notes) = (&report.facts, &report.facts.notes);
    json!({
        "cluster": format!("{:x}", report.cluster), "endpoint": report.endpoint, "version": report.version,
        "storage_version": notes.storage_version, "revision": facts.revision, "compacted": notes.compacted,
        "keys": facts.keys, "revisions": facts.revisions, "leases": notes.leases, "members": notes.members,
        "bytes": facts.bytes, "bytes_used": facts.bytes_used, "auth": notes.auth,
        "hash": report.hash.map(|(hash, _)| hash), "hash_compacted": report.hash.map(|(_, compacted)| compacted),
        "agree": report.agree, "secrets": facts.secrets, "secrets_encrypted": facts.secrets_sealed,
        "remarks": report.remarks,
    })
}

fn etcd_text(report: &EtcdReport) -> String {
    let (facts, notes) = (&report.facts, &report.facts.notes);
    let mut text = format!(
        "  etcd {} by {}: revision {}, compacted up to {}; {} keys, {} leases, {} in use of {}\n",
        plain(&report.version),
        plain(&report.endpoint),
        facts.revision,
        notes.compacted,
        units::count(facts.keys),
        units::count(notes.leases),
        units::bytes(facts.bytes_used),
        units::bytes(facts.bytes)
    );
    match report.hash {
        Some((hash, _)) => {
            let agree = report.agree.join(", ");
            text.push_str(&format!("  keys hash to {hash:08x}; so say {}\n", plain(&agree)));
        }
        None => text.push_str("WARNING: the keys could be compared with no member's\n"),
    }
    report.remarks.iter().for_each(|what| text.push_str(&format!("NOTE: {}\n", plain(what))));
    text
}

/// Where the database goes that a restore is to write, if it is to.
fn goal(args: &EtcdTarget) -> Result<Option<(Goal, PathBuf)>> {
    if let (Some(dir), Some(name), Some(cluster)) = (&args.etcd_data_dir, &args.etcd_name, &args.etcd_cluster) {
        let member = Membership::of(name, cluster, args.etcd_token.clone())?;
        return Ok(Some((Goal::DataDir(dir.clone(), member), dir.clone())));
    }
    Ok(args.to.clone().map(|to| (Goal::File(to.clone()), to)))
}

/// A data folder is for a cluster that clients come back to, so its revisions are new ones.
fn bump(args: &EtcdTarget) -> Option<i64> {
    args.bump_revision.or_else(|| (args.etcd_data_dir.is_some() && !args.no_bump).then_some(BUMP))
}

/// `holdfast restore --to FILE`, or `--etcd-data-dir DIR`; nothing if it is none of them.
pub fn restore(context: &Context, args: &Restore, repo: &Arc<Repo>) -> Result<Option<Outcome>> {
    goal(&args.etcd)?.map(|goal| database(context, args, repo, goal)).transpose()
}

fn database(context: &Context, args: &Restore, repo: &Arc<Repo>, (goal, to): (Goal, PathBuf)) -> Result<Outcome> {
    let view = if args.filter.tag.is_empty() { View::recall(repo)? } else { View::load(repo)? };
    let Named { snapshot, path, exit } = find_etcd(&view, &args.snapshot, &args.filter)?;
    if args.etcd.overwrite {
        return Err(Error::new(Kind::Config, "a database is written into a new file: --overwrite has no place there"));
    }
    if !path.is_empty() {
        return Err(Error::new(Kind::Config, "the whole database is restored: name the snapshot without a path"));
    }
    let rate = args.limit_download.as_ref().map(Rate::bytes);
    repo.regions.read_slowly(|| rate.map(|rate| Pace::new(rate, &context.cancel)));
    let reader = reader(repo)?;
    let time = args.etcd.time.as_ref().map(|text| policy::since(text, context.env.now())).transpose()?;
    let request = EtcdRestore {
        to: goal,
        revision: args.etcd.revision,
        time,
        bump: bump(&args.etcd),
        check: args.etcd.check,
        programs: args.etcd.etcd_bin.clone(),
        scratch: std::env::temp_dir(),
        workers: context.workers(),
    };
    let progress = Arc::new(Progress::default());
    let shown = Shown::start("restoring", &progress, context.global.quiet);
    let opening = Closing { source: Some(snapshot.manifest.source.name.clone()), ..Closing::default() };
    let opening = Closing { snapshots: vec![snapshot.manifest.sid], ..opening };
    let recorded = Recorded { kind: RunKind::Restore, repo: Some(repo), id: repo.id, opening };
    let (done, closed) = recorded.run(
        context,
        true,
        |_| etcd::restore(&reader, &snapshot.manifest, &request, (&progress, &context.cancel)),
        |done, closing| (closing, exit.worse(lost(done))),
    )?;
    let (elapsed_ms, exit) = (shown.elapsed_ms(), exit.worse(lost(&done)));
    drop(shown);
    let rebuilt = &done.rebuilt;
    let mut value = json!({
        "verb": "restore", "run": closed.map(|closed| closed.id.hex()), "snapshot": snapshot.manifest.sid.hex(),
        "source": snapshot.manifest.source.name, "time": time_of(&snapshot.manifest),
        "target": path_text(to.as_os_str().as_bytes()), "seconds": elapsed_ms as f64 / 1000.0, "bytes": done.bytes,
        "revision": rebuilt.revision, "begins": rebuilt.begins, "revisions": rebuilt.revisions,
        "leases_lost": rebuilt.leases_lost, "alarms_dropped": rebuilt.alarms_dropped, "known_at": done.known_at.map(TimeMs::rfc3339),
        "checked": done.trial.as_ref().map(|t| json!({"version": t.version, "revision": t.revision, "keys": t.keys, "hash": t.hash, "leases": t.leases})),
    });
    let mut text = restored_text(&snapshot.manifest, &done, &to, elapsed_ms);
    found::add(repo, &mut value, &mut text);
    Ok(Outcome::new(exit, text, value))
}

/// `holdfast restore SNAPSHOT:PREFIX --into ADDRESS`.
pub fn put_back(context: &Context, args: &Restore, repo: &Arc<Repo>, address: &str) -> Result<Outcome> {
    let view = if args.filter.tag.is_empty() { View::recall(repo)? } else { View::load(repo)? };
    let Named { snapshot, path, exit } = find_etcd(&view, &args.snapshot, &args.filter)?;
    let manifest = &snapshot.manifest;
    if !has(manifest, path) {
        let what = "--into takes keys of a snapshot of etcd";
        return Err(Error::new(Kind::Config, what).advise("name a prefix: SNAPSHOT:/registry/configmaps/"));
    }
    let reader = reader(repo)?;
    let request = PutBack {
        address: Address::parse(address)?,
        means: means(&args.etcd.source)?,
        prefix: path.to_vec(),
        overwrite: args.etcd.overwrite,
        dry_run: args.dry_run,
    };
    let opening = Closing { source: Some(manifest.source.name.clone()), ..Closing::default() };
    let opening = Closing { snapshots: vec![manifest.sid], ..opening };
    let recorded = Recorded { kind: RunKind::Restore, repo: Some(repo), id: repo.id, opening };
    let end = |done: &PutReport| if done.is_whole() { exit } else { exit.worse(Exit::Partial) };
    let (done, closed) = recorded.run(
        context,
        !args.dry_run,
        |_| etcd::put_back(&Keys::open(&reader, manifest, &context.cancel)?, &request, &context.cancel),
        |done, closing| (closing, end(done)),
    )?;
    let mut value = json!({
        "verb": "restore", "run": closed.map(|closed| closed.id.hex()), "snapshot": manifest.sid.hex(),
        "source": manifest.source.name, "time": time_of(manifest), "target": request.address.to_string(), "prefix": path_text(path), "dry_run": args.dry_run,
        "keys": done.keys.iter().map(|(key, fate)| json!({"key": path_text(key), "fate": fate.name()})).collect::<Vec<_>>(),
    });
    Fate::ALL.iter().zip(done.counts).for_each(|(fate, count)| value[fate.name()] = json!(count));
    let mut text = put_text(manifest, &done, args.dry_run);
    found::add(repo, &mut value, &mut text);
    Ok(Outcome::new(end(&done), text, value))
}

/// When what is in a snapshot was read.
fn time_of(manifest: &Manifest) -> String {
    TimeMs(manifest.start).rfc3339()
}

/// Which snapshot, of which cluster, of when.
fn whose(manifest: &Manifest) -> String {
    format!("snapshot {} of {}, {}", manifest.sid.short(), plain(&manifest.source.name), time_of(manifest))
}

fn put_text(manifest: &Manifest, done: &PutReport, dry_run: bool) -> String {
    let mut text = whose(manifest) + "\n";
    for (key, fate) in &done.keys {
        let why = match fate {
            Fate::Put => "+",
            Fate::Overwritten => "M",
            Fate::Same => "=",
            Fate::Differs => "LEFT (has another value; --overwrite changes it)",
            Fate::Changed => "LEFT (somebody changes it)",
            Fate::Leased => "LEFT (had a lease)",
        };
        text.push_str(&format!("{why} {}\n", path_text(key)));
    }
    let counts: Vec<String> = Fate::ALL
        .iter()
        .zip(done.counts)
        .map(|(fate, count)| format!("{} {}", units::count(count), fate.name()))
        .collect();
    let note = if dry_run { "nothing was written, this would be: " } else { "keys: " };
    text + note + &counts.join(", ") + "\n"
}

/// Keys that do not expire any more are not what they were.
fn lost(done: &EtcdRestored) -> Exit {
    if done.rebuilt.leases_lost > 0 { Exit::Partial } else { Exit::Done }
}

fn restored_text(manifest: &Manifest, done: &EtcdRestored, to: &Path, elapsed_ms: u64) -> String {
    let (name, rebuilt) = (path_text(to.as_os_str().as_bytes()), &done.rebuilt);
    let mut text = format!(
        "restored {}: {} to {name} in {}: etcd at revision {}",
        whose(manifest),
        units::bytes(done.bytes),
        units::duration_ms(elapsed_ms),
        rebuilt.revision
    );
    if let Some(time) = done.known_at {
        text.push_str(&format!(", as it was known at {}", time.rfc3339()));
    }
    if rebuilt.begins > rebuilt.revision {
        text.push_str(&format!("; it will begin at {}, and all before counts as compacted\n", rebuilt.begins));
    } else {
        text.push_str("\nNOTE: clients that remember later revisions will meet them again: see --bump-revision\n");
    }
    if rebuilt.alarms_dropped > 0 {
        text.push_str("NOTE: alarms of the old members (NOSPACE, CORRUPT) were left out\n");
    }
    if let Some(trial) = &done.trial {
        let hash =
            trial.hash.map_or_else(String::new, |hash| format!("; they hash to {hash:08x}, as those of the file"));
        let (version, keys, leases) = (plain(&trial.version), units::count(trial.keys), units::count(trial.leases));
        text.push_str(&format!(
            "etcd {version} came up on it, at revision {}, with its {keys} keys{hash}, and its {leases} leases\n",
            trial.revision
        ));
    }
    if rebuilt.leases_lost > 0 {
        text.push_str(&format!(
            "WARNING: {} leases of keys had ended when the snapshot was made: those keys will not expire\n",
            units::count(rebuilt.leases_lost)
        ));
    }
    text
}

/// Whether a path in a snapshot means keys of etcd, and not its files.
pub fn has(manifest: &Manifest, path: &[u8]) -> bool {
    let name = path.strip_prefix(b"/").unwrap_or(path);
    etcd::is_one(manifest)
        && !path.is_empty()
        && path != b"/"
        && name != etcd::ROWS
        && name != etcd::KEYS
        && !name.starts_with(etcd::CHANGES)
}

fn line_json(line: &Line) -> Value {
    json!({
        "key": path_text(&line.key), "revision": line.revision.main, "created": line.created, "version": line.version,
        "lease": line.lease, "size": line.bytes,
    })
}

/// A line of `holdfast find`: a state of a key, and the snapshots that have it, the newest first.
pub fn found_line(line: &Line, source: &str, having: &[&Manifest], (json, long): (bool, bool)) -> String {
    if json {
        let mut value = line_json(line);
        value["source"] = json!(source);
        value["snapshots"] = having.iter().map(|m| m.sid.hex()).collect();
        return value.to_string();
    }
    let name = format!("{}:{}", having.first().map_or_else(String::new, |m| m.sid.short()), path_text(&line.key));
    let text = if long { long_line(line, &name) } else { name };
    match having {
        [] | [_] => text,
        [.., oldest] => format!("{text}  ({} snapshots, from {})", having.len(), oldest.sid.short()),
    }
}

fn long_line(line: &Line, name: &str) -> String {
    let Line { bytes, revision, created, version, lease, .. } = line;
    format!("{bytes:>10} {:>12} {created:>12} {version:>6} {lease:>16x} {name}", revision.main)
}

fn closed(_: std::io::Error) -> Error {
    Error::new(Kind::Cancelled, "the output was closed")
}

/// `holdfast ls SNAPSHOT:PREFIX`: what lies below, like a directory.
pub fn ls(context: &Context, args: &Ls, (reader, manifest): (&Reader, &Manifest), prefix: &[u8]) -> Result<Outcome> {
    let keys = Keys::open(reader, manifest, &context.cancel)?;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let (json, mut last, mut count) = (context.global.json, Vec::new(), 0u64);
    keys.each(prefix, &context.cancel, &mut |line| {
        let below = line.key.get(prefix.len()..).unwrap_or_default();
        let deeper = below.iter().position(|b| *b == b'/').filter(|at| !args.recursive && *at + 1 < below.len());
        if let Some(at) = deeper {
            let dir = line.key.get(..=prefix.len() + at).unwrap_or_default();
            if last != dir {
                last = dir.to_vec();
                let name = path_text(dir);
                if json { writeln!(out, "{}", json!({"prefix": name})) } else { writeln!(out, "{name}") }
                    .map_err(closed)?;
            }
            return Ok(true);
        }
        count += 1;
        let name = path_text(&line.key);
        match (json, args.long) {
            (true, _) => writeln!(out, "{}", line_json(line)),
            (_, true) => writeln!(out, "{}", long_line(line, &name)),
            _ => writeln!(out, "{name}"),
        }
        .map_err(closed)?;
        Ok(true)
    })?;
    out.flush().map_err(closed)?;
    drop(out);
    Ok(Outcome::new(Exit::Done, "", json!({"verb": "ls", "snapshot": manifest.sid.hex(), "keys": count})))
}

/// `holdfast cat SNAPSHOT:KEY`.
pub fn cat(context: &Context, reader: &Reader, manifest: &Manifest, key: &[u8]) -> Result<Outcome> {
    let keys = Keys::open(reader, manifest, &context.cancel)?;
    let line = keys.get(key)?.ok_or_else(|| {
        let what = "no such key in the snapshot";
        Error::new(Kind::NotFound, what).at(path_text(key)).advise("see `holdfast ls SNAPSHOT:PREFIX`")
    })?;
    let value = keys.value(&line)?;
    let mut out = std::io::stdout().lock();
    out.write_all(&value).and_then(|()| out.flush()).map_err(closed)?;
    Ok(Outcome::new(Exit::Done, "", json!({})))
}

/// `holdfast diff` of two snapshots of etcd.
pub fn diff(
    context: &Context,
    reader: &Reader,
    manifests: (&Manifest, &Manifest),
    paths: (&[u8], &[u8]),
) -> Result<Outcome> {
    if paths.0 != paths.1 {
        return Err(Error::new(Kind::Config, "two snapshots of etcd are compared below the same prefix"));
    }
    let (old, new) =
        (Keys::open(reader, manifests.0, &context.cancel)?, Keys::open(reader, manifests.1, &context.cancel)?);
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let (json, mut counts) = (context.global.json, [0u64; 3]);
    etcd::diff((&old, &new), paths.0, &context.cancel, &mut |kind, old, new| {
        let (number, sign, name) = match kind {
            KeyChange::Added => (0, '+', "added"),
            KeyChange::Removed => (1, '-', "removed"),
            KeyChange::Changed => (2, 'M', "modified"),
        };
        counts[number] += 1;
        let key = path_text(new.or(old).map_or(&[], |line| &line.key));
        if json {
            let line = json!({"key": key, "change": name, "old": old.map(line_json), "new": new.map(line_json)});
            return writeln!(out, "{line}").map_err(closed);
        }
        writeln!(out, "{sign} {key}").map_err(closed)
    })?;
    out.flush().map_err(closed)?;
    drop(out);
    let [added, removed, modified] = counts;
    let value = json!({
        "verb": "diff", "old": manifests.0.sid.hex(), "new": manifests.1.sid.hex(), "added": added, "removed": removed,
        "modified": modified,
    });
    let text = format!(
        "{} keys added, {} removed, {} changed\n",
        units::count(added),
        units::count(removed),
        units::count(modified)
    );
    Ok(Outcome::new(Exit::Done, text, value))
}
