//! `holdfast verify`.

use super::args::{LevelArg, Verify};
use super::common::Context;
use super::found::findings_text;
use super::output::{Outcome, plain};
use super::progress::Shown;
use super::recorded::Recorded;
use super::repair::{shown_damage, shown_repair};
use crate::base::{Progress, units};
use crate::error::{Exit, Kind, Result};
use crate::format::run::RunKind;
use crate::ops::harm::{self, Harm};
use crate::ops::ledger::Ledger;
use crate::ops::record::Closing;
use crate::ops::repair::{self, Bounds, Judge, Repair, RepairReport};
use crate::ops::verify::{self, Level, Told, VerifyReport, Wish};
use crate::policy::Rate;
use crate::repo::open;
use crate::store::Key;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What was found, and what was done about it.
struct Checked {
    report: VerifyReport,
    repaired: Option<RepairReport>,
    /// What the damaged objects touch, where there is a key to tell.
    harms: Option<BTreeMap<Key, Harm>>,
}

pub fn run(context: &Context, args: &Verify) -> Result<Outcome> {
    let level = match args.level {
        LevelArg::Presence => Level::Presence,
        LevelArg::Ciphertext => Level::Ciphertext,
        LevelArg::Content => Level::Content,
    };
    let progress = Arc::new(Progress::default());
    let places = context.places()?;
    let rate = args.limit_download.as_ref().map(Rate::bytes);
    let wish = Wish { rate, ..Wish::all(level, context.workers()) };
    let opening = Closing { how: Some(level.name().into()), ..Closing::default() };
    let end = |checked: &Checked, closing: Closing| {
        let closing = closing.verify(&checked.report);
        (checked.repaired.iter().fold(closing, Closing::repair), checked.report.exit())
    };
    let kind = RunKind::Verify;
    let (checked, closed, elapsed_ms) = if level == Level::Ciphertext {
        let marked = open::mark(&context.opening(&places))?;
        let shown = Shown::start("verifying", &progress, context.global.quiet);
        let look = |ledger: Option<&Ledger>| -> Result<Checked> {
            let (regions, cancel) = (&marked.regions, &context.cancel);
            let report = verify::ciphertext(regions, &wish, ledger, &progress, cancel)?;
            let (id, env, workers, judge) = (marked.id, &context.env, wish.workers, Judge::Names);
            let bounds = Bounds::default();
            let repair = Repair { regions, id, judge, ledger, env, workers, cancel, bounds };
            let repaired = args.repair.then(|| repair.run(&report.findings)).transpose()?;
            Ok(Checked { report, repaired, harms: None })
        };
        let (checked, closed) = Recorded { kind, repo: None, id: marked.id, opening }.run(context, true, look, end)?;
        verify::distrust_local(&context.state()?, &marked.id, &checked.report.findings);
        (checked, closed, shown.elapsed_ms())
    } else {
        let repo = context.open_at(&places, &context.secret()?)?;
        let shown = Shown::start("verifying", &progress, context.global.quiet);
        if args.repair {
            repo.may_write()?;
        }
        let look = |ledger: Option<&Ledger>| -> Result<Checked> {
            let mut report = verify::run(&repo, &wish, ledger, &progress, &context.cancel)?;
            let harms = match harm::of(&repo, &report.findings, &context.cancel) {
                Err(e) if e.kind() == Kind::Cancelled => return Err(e),
                // What was found stands also where nobody can tell any more what it touches.
                harms => harms.ok(),
            };
            if !args.repair {
                return Ok(Checked { report, repaired: None, harms });
            }
            let repaired = repair::after(&repo, &report.findings, ledger, wish.workers, &context.cancel)?;
            verify::behind_still(&repo, &mut report)?;
            Ok(Checked { report, repaired: Some(repaired), harms })
        };
        let recorded = Recorded { kind, repo: Some(&repo), id: repo.id, opening };
        let (checked, closed) = recorded.run(context, true, look, end)?;
        (checked, closed, shown.elapsed_ms())
    };
    let mut outcome = outcome(&checked.report, level, elapsed_ms);
    shown_damage(&checked.report.findings, checked.harms.as_ref(), &mut outcome);
    shown_repair(checked.repaired.as_ref(), &mut outcome);
    outcome.json["run"] = json!(closed.map(|closed| closed.id.hex()));
    Ok(outcome)
}

fn told_json(told: &Told) -> Value {
    let noted = &told.noted;
    json!({
        "snapshot": told.sid.hex(), "source": told.source, "files": noted.files, "none": noted.none, "safe": noted.safe,
        "unknown": noted.unknown, "unsafe": noted.unsafe_, "signatures": noted.signatures, "checked_at": noted.checked,
        "refused": noted.refused, "complaints": noted.complaints,
    })
}

fn outcome(report: &VerifyReport, level: Level, elapsed_ms: u64) -> Outcome {
    let findings: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
    let regions: Vec<_> = report
        .regions
        .iter()
        .map(|r| {
            json!({"region": r.region, "objects": r.objects, "bytes": r.bytes, "chunks": r.chunks,
                "snapshots": r.snapshots, "failed": r.failed})
        })
        .collect();
    let value = json!({
        "verb": "verify", "level": level.name(), "seconds": elapsed_ms as f64 / 1000.0, "snapshots": report.snapshots,
        "regions": regions, "findings": findings, "broken": report.broken, "lost": report.lost, "behind": report.behind,
        "verdicts": report.verdicts.iter().map(told_json).collect::<Vec<_>>(),
    });
    let mut text = format!("verified at level {} in {}\n", level.name(), units::duration_ms(elapsed_ms));
    for r in &report.regions {
        match &r.failed {
            Some(why) => text.push_str(&format!("  {:<12} NOT VERIFIED: {why}\n", r.region)),
            None => text.push_str(&format!(
                "  {:<12} {} objects, {} read, {} chunks\n",
                r.region,
                units::count(r.objects),
                units::bytes(r.bytes),
                units::count(r.chunks)
            )),
        }
    }
    findings_text(&findings, &mut text);
    for (title, lines) in [("BROKEN", &report.broken), ("LOST", &report.lost), ("BEHIND", &report.behind)] {
        lines.iter().for_each(|line| text.push_str(&format!("{title}: {line}\n")));
    }
    report.verdicts.iter().for_each(|told| text.push_str(&format!("  {}\n", plain(&told.to_string()))));
    if report.exit() == Exit::Done {
        text.push_str("no damage found\n");
    }
    Outcome::new(report.exit(), text, value)
}
