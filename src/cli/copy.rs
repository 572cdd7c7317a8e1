//! `holdfast copy`.

use super::args::{Copy, CopyTo};
use super::common::{Context, TO_PASSPHRASE_ENV, passes};
use super::found;
use super::named::{self, reader};
use super::output::{Outcome, plain, remark};
use super::progress::Shown;
use crate::base::{Progress, units};
use crate::error::{Error, Exit, Kind, Result};
use crate::format::snapshot::Manifest;
use crate::ops::copy::{Copier, CopyOptions, Fate};
use crate::policy::Rate;
use crate::region::RegionSet;
use crate::repo::Repo;
use crate::repo::view::View;
use serde_json::{Value, json};
use std::sync::Arc;

/// Opens the repository that is copied into.
fn other(context: &Context, to: &CopyTo) -> Result<Arc<Repo>> {
    let mut global = context.global.clone();
    global.repository.clone_from(&to.to_repository);
    global.region.clone_from(&to.to_region);
    global.copies_min = to.to_copies_min;
    global.passphrase_file.clone_from(&to.to_passphrase_file);
    global.key_file.clone_from(&to.to_key_file);
    global.recovery_key_file.clone_from(&to.to_recovery_key_file);
    let places = context.places_by(&global)?;
    let secret = context.secret_by(&global, TO_PASSPHRASE_ENV, "passphrase of the other repository: ")?;
    context.open_at(&places, &secret)
}

/// The snapshots to copy, oldest first.
fn chosen<'v>(view: &'v View, args: &Copy) -> Result<Vec<&'v Manifest>> {
    let mut all: Vec<&Manifest> = if args.snapshot.is_empty() {
        view.snapshots.values().map(|s| &s.manifest).filter(|m| passes(&args.filter, m)).collect()
    } else {
        let find = |text: &String| Ok(&named::snapshot(view, text, &args.filter)?.manifest);
        args.snapshot.iter().map(find).collect::<Result<_>>()?
    };
    all.sort_by_key(|m| (m.start, m.seq, m.sid));
    all.dedup_by_key(|m| m.sid);
    if all.is_empty() {
        return Err(Error::new(Kind::NotFound, "there is no such snapshot").advise("see `holdfast snapshots`"));
    }
    Ok(all)
}

/// What became of all.
#[derive(Default)]
struct Told {
    lines: Vec<Value>,
    text: String,
    exit: Option<Exit>,
}

impl Told {
    fn worse(&mut self, exit: Exit) {
        self.exit = Some(self.exit.map_or(exit, |known| known.worse(exit)));
    }

    fn take(&mut self, to: &Repo, manifest: &Manifest, fate: &Fate) {
        let names =
            |regions: RegionSet| regions.iter().map(|ix| to.regions.region(ix).name.clone()).collect::<Vec<_>>();
        let (from, source) = (manifest.sid.short(), plain(&manifest.source.name));
        let mut line = json!({"snapshot": manifest.sid.hex(), "source": manifest.source.name});
        match fate {
            Fate::Copied(copied) => {
                let t = &copied.transfer;
                line["copy"] = json!(copied.sid.hex());
                line["state"] = json!("copied");
                line["regions"] = json!(names(copied.regions));
                line["bytes_new"] = json!(t.bytes_new);
                line["bytes_stored"] = json!(t.bytes_stored);
                self.text.push_str(&format!(
                    "copied {from} of {source} as {}: {} new, {} stored in each region; complete in: {}\n",
                    copied.sid.short(),
                    units::bytes(t.bytes_new),
                    units::bytes(t.bytes_stored),
                    names(copied.regions).join(", ")
                ));
                if copied.regions.count() < to.copies_min {
                    let (have, want) = (copied.regions.count(), to.copies_min);
                    self.text.push_str(&format!("FAILED: {have} complete copies, {want} wanted\n"));
                    self.worse(Exit::Failed);
                } else if copied.regions.count() < to.regions.len() {
                    self.worse(Exit::Behind);
                }
            }
            Fate::There(sid) => {
                line["copy"] = json!(sid.hex());
                line["state"] = json!("there");
                self.text.push_str(&format!("{from} of {source} is there already, as {}\n", sid.short()));
            }
            Fate::Failed(e) => {
                line["state"] = json!("failed");
                line["message"] = json!(e.to_string());
                self.text.push_str(&format!("NOT COPIED: {from} of {source}: {}\n", plain(&e.to_string())));
                self.worse(Exit::Damage);
            }
        }
        self.lines.push(line);
    }
}

pub fn run(context: &Context, args: &Copy) -> Result<Outcome> {
    let repo = context.open()?;
    let view = View::load(&repo)?;
    let manifests = chosen(&view, args)?;
    let to = other(context, &args.to)?;
    let from = reader(&repo)?;
    let progress = Arc::new(Progress::default());
    let bytes = manifests.iter().fold(0u64, |sum, m| sum.saturating_add(m.counts.bytes));
    progress.bytes_expected.set(bytes);
    let shown = Shown::start("copying", &progress, context.global.quiet);
    let options = CopyOptions {
        workers: context.workers(),
        compression: args.compression,
        upload: args.limit_upload.as_ref().map(Rate::bytes),
    };
    let mut copier = Copier::new(&from, &to, options, (&progress, &context.cancel))?;
    let mut told = Told::default();
    for manifest in manifests {
        let fate = copier.copy(manifest).inspect_err(|_| {
            // What was copied before stays, and is said in any case.
            if !told.text.is_empty() {
                remark(told.text.trim_end());
            }
        })?;
        told.take(&to, manifest, &fate);
    }
    let elapsed_ms = shown.elapsed_ms();
    drop(shown);
    let count = |state: &str| told.lines.iter().filter(|line| line["state"] == state).count();
    let mut value = json!({
        "verb": "copy", "from": repo.id.hex(), "to": to.id.hex(), "seconds": elapsed_ms as f64 / 1000.0,
        "copied": count("copied"), "there": count("there"), "not_copied": count("failed"),
        "bytes_new": progress.bytes_new.get(), "bytes_stored": progress.bytes_stored.get(),
        "chunks_new": progress.chunks_new.get(),
    });
    value["snapshots"] = json!(told.lines);
    let failures = to.regions.failures();
    failures.iter().for_each(|(region, e)| told.text.push_str(&format!("BEHIND: region {region}: {e}\n")));
    value["behind"] = failures.iter().map(|(region, e)| json!({"region": region, "why": e.to_string()})).collect();
    if !failures.is_empty() {
        told.worse(Exit::Behind);
    }
    found::add(&repo, &mut value, &mut told.text);
    Ok(Outcome::new(told.exit.unwrap_or(Exit::Done), told.text, value))
}
