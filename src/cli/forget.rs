//! `holdfast forget`.

use super::args::Forget;
use super::common::{Context, passes};
use super::found;
use super::output::{Outcome, plain};
use crate::error::{Error, Exit, Kind, Result};
use crate::ops::forget;
use crate::repo::view::View;
use serde_json::json;

pub fn run(context: &Context, args: &Forget) -> Result<Outcome> {
    let repo = context.open()?;
    let view = View::load(&repo)?;
    let mut chosen = Vec::new();
    for text in &args.snapshot {
        if let Some(why) = view.doubt(text) {
            return Err(Error::new(Kind::Refused, why).advise("name what to forget by its id"));
        }
        let snapshot = view.find(text, |m| passes(&args.filter, m))?;
        if !chosen.iter().any(|s: &crate::repo::view::Snapshot| s.manifest.sid == snapshot.manifest.sid) {
            chosen.push(snapshot.clone());
        }
    }
    let report = forget::run(&repo, &chosen, args.last, &args.reason)?;
    let mut text = String::new();
    for (sid, source) in &report.forgotten {
        text.push_str(&format!("forgot {} of {}\n", sid.short(), plain(source)));
    }
    for (region, why) in &report.behind {
        text.push_str(&format!("BEHIND: region {region}: {why}\n"));
    }
    let exit = if report.behind.is_empty() { Exit::Done } else { Exit::Behind };
    let forgotten: Vec<_> = report.forgotten.iter().map(|(sid, _)| sid.hex()).collect();
    let behind: Vec<_> = report.behind.iter().map(|(r, why)| json!({"region": r, "why": why})).collect();
    let mut value = json!({"verb": "forget", "forgotten": forgotten, "behind": behind});
    found::add(&repo, &mut value, &mut text);
    Ok(Outcome::new(exit, text, value))
}
