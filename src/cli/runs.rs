//! `holdfast runs` and `holdfast catalog rebuild`.

use super::args::Runs;
use super::common::Context;
use super::found;
use super::output::{Outcome, plain, remark};
use crate::base::{RepoId, TimeMs, units};
use crate::catalog::{self, Catalog, RunLine, RunQuery};
use crate::error::{Error, Exit, Kind, Result};
use crate::ops::ledger::{self, Ledger};
use crate::repo::open;
use serde_json::{Value, json};

/// The catalog of the repository that the regions hold; needs no key.
pub fn local(context: &Context) -> Result<Catalog> {
    local_of(context).map(|(_, catalog)| catalog)
}

/// The same, with the repository's id.
pub fn local_of(context: &Context) -> Result<(RepoId, Catalog)> {
    let places = context.places()?;
    let marked = open::mark(&context.opening(&places))?;
    Ok((marked.id, existing(context, &marked.id)?.ok_or_else(no_catalog)?))
}

/// The catalog as it is; nothing is made.
pub fn existing(context: &Context, id: &RepoId) -> Result<Option<Catalog>> {
    let path = catalog::path_of(&context.state()?, id);
    Catalog::open(&path).map_err(|e| ledger::lift(&e).at(path.display()))
}

/// There is nothing to ask.
fn no_catalog() -> Error {
    Error::new(Kind::NotFound, "there is no catalog of this repository here")
        .advise("`holdfast catalog rebuild` makes one; --from-regions asks the regions")
}

pub fn run(context: &Context, args: &Runs) -> Result<Outcome> {
    let catalog = if args.from_regions {
        let repo = context.open()?;
        let (catalog, filled) = ledger::from_regions(&repo)?;
        if filled.runs_lost > 0 {
            remark(&format!("warning: {} records are damaged in every region", filled.runs_lost));
        }
        catalog
    } else {
        local(context)?
    };
    let query = RunQuery { last: args.last, source: args.source.clone(), failed: args.failed };
    let mut lines = catalog.runs(&query).map_err(|e| ledger::lift(&e))?;
    lines.reverse();
    let mut text: String = lines.iter().map(line).collect();
    if lines.is_empty() {
        text.push_str("no runs\n");
    }
    let value = json!({"verb": "runs", "runs": lines.iter().map(run_json).collect::<Vec<_>>()});
    Ok(Outcome::new(Exit::Done, text, value))
}

fn line(run: &RunLine) -> String {
    let took = u64::try_from(run.end.saturating_sub(run.start)).unwrap_or(0);
    let errors = match run.details["errors_total"].as_u64() {
        None | Some(0) => String::new(),
        Some(n) => format!("  {n} errors"),
    };
    let error = run.details["error"].as_str().map_or_else(String::new, |e| format!("  {}", plain(e)));
    format!(
        "{}  {}  {:<7}  {:<12} {:>9}  {}{errors}{error}\n",
        run.id.short(),
        TimeMs(run.start).rfc3339(),
        plain(&run.kind),
        plain(&run.exit_name),
        units::duration_ms(took),
        plain(run.source.as_deref().unwrap_or("-")),
    )
}

/// A run for JSON.
pub fn run_json(run: &RunLine) -> Value {
    let mut value = json!({
        "id": run.id.hex(), "kind": run.kind, "policy": run.policy, "source": run.source, "host": run.host,
        "time": TimeMs(run.start).rfc3339(), "start_ms": run.start, "end_ms": run.end,
        "code": run.exit, "name": run.exit_name,
    });
    for (name, detail) in run.details.as_object().into_iter().flatten() {
        value[name] = detail.clone();
    }
    value
}

pub fn rebuild(context: &Context) -> Result<Outcome> {
    let repo = context.open()?;
    let ledger = Ledger::open(&context.state()?, &repo.id, &context.env);
    let (filled, new) = ledger.rebuild(&repo)?;
    ledger.remarks().iter().for_each(|what| remark(&format!("warning: {what}")));
    let mut text =
        format!("brought back {} runs and {} snapshots\n", units::count(filled.runs), units::count(filled.snapshots));
    let mut not = Vec::new();
    if filled.runs_lost > 0 {
        not.push(format!("{} runs, whose records are damaged in every region", units::count(filled.runs_lost)));
    }
    if filled.snapshots_lost > 0 {
        not.push(format!("{} snapshots that no region shows intact", units::count(filled.snapshots_lost)));
    }
    if new {
        let what = "which pack was verified when (`holdfast verify` begins anew), and runs that left no record";
        not.push(what.to_owned());
    }
    not.iter().for_each(|what| text.push_str(&format!("not brought back: {what}\n")));
    let exit = if filled.runs_lost + filled.snapshots_lost > 0 { Exit::Damage } else { Exit::Done };
    let mut value = json!({
        "verb": "catalog rebuild", "runs": filled.runs, "snapshots": filled.snapshots,
        "runs_lost": filled.runs_lost, "snapshots_lost": filled.snapshots_lost, "not_brought_back": not,
    });
    found::add(&repo, &mut value, &mut text);
    Ok(Outcome::new(exit, text, value))
}
