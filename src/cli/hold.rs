//! `holdfast hold`.

use super::args::{HoldAdd, HoldVerb};
use super::common::Context;
use super::found;
use super::named;
use super::output::{Outcome, plain};
use crate::base::TimeMs;
use crate::error::{Error, Exit, Kind, Result};
use crate::format::objects::Hold;
use crate::ops::hold;
use crate::policy;
use crate::region::RegionSet;
use crate::repo::Repo;
use crate::repo::holds::{Held, Holds};
use crate::repo::view::View;
use serde_json::{Value, json};

pub fn run(context: &Context, verb: &HoldVerb) -> Result<Outcome> {
    match verb {
        HoldVerb::Add(args) => add(context, args),
        HoldVerb::List => list(context),
        HoldVerb::Remove { hold } => remove(context, hold),
    }
}

/// A hold beside the snapshot that it is on.
pub fn held_json(hold: &Hold) -> Value {
    json!({
        "id": hold.hold.hex(), "reason": hold.reason, "created": TimeMs(hold.created).rfc3339(),
        "until": hold.until.map(|end| TimeMs(end).rfc3339()),
    })
}

fn names(repo: &Repo, regions: RegionSet) -> Vec<String> {
    regions.iter().map(|ix| repo.regions.region(ix).name.clone()).collect()
}

/// Ends a verb that wrote into regions: those that did not take it are behind.
fn written(repo: &Repo, value: &mut Value, text: &mut String) -> Exit {
    let failures = repo.regions.failures();
    failures.iter().for_each(|(region, e)| text.push_str(&format!("BEHIND: region {region}: {e}\n")));
    value["behind"] = failures.iter().map(|(region, e)| json!({"region": region, "why": e.to_string()})).collect();
    if failures.is_empty() { Exit::Done } else { Exit::Behind }
}

fn add(context: &Context, args: &HoldAdd) -> Result<Outcome> {
    if args.reason.trim().is_empty() {
        return Err(Error::new(Kind::Config, "a hold needs a reason").advise("say why: --reason TEXT"));
    }
    let until = args.until.as_ref().map(|text| policy::until(text, context.env.now())).transpose()?;
    let repo = context.open()?;
    let view = View::load(&repo)?;
    let snapshot = named::snapshot(&view, &args.snapshot, &args.filter)?;
    let (hold, regions) = hold::add(&repo, snapshot, &args.reason, until)?;
    let end = until.map_or(String::new(), |end| format!(" until {}", end.rfc3339()));
    let source = plain(&snapshot.manifest.source.name);
    let mut text = format!("hold {} on {} of {source}{end}\n", hold.hold.short(), hold.sid.short());
    let mut value = json!({
        "verb": "hold add", "hold": hold.hold.hex(), "snapshot": hold.sid.hex(),
        "until": until.map(TimeMs::rfc3339), "regions": names(&repo, regions),
    });
    let exit = written(&repo, &mut value, &mut text);
    Ok(Outcome::new(exit, text, value))
}

fn remove(context: &Context, id: &str) -> Result<Outcome> {
    let repo = context.open()?;
    let holds = Holds::load(&repo);
    let hold = &holds.find(id)?.hold;
    let regions = hold::release(&repo, hold.hold)?;
    let mut text = format!("released hold {} on {}\n", hold.hold.short(), hold.sid.short());
    let mut value = json!({
        "verb": "hold remove", "hold": hold.hold.hex(), "snapshot": hold.sid.hex(), "regions": names(&repo, regions),
    });
    let exit = written(&repo, &mut value, &mut text);
    Ok(Outcome::new(exit, text, value))
}

/// Visible, forgotten, or nowhere to be seen.
fn state(view: &View, held: &Held) -> &'static str {
    let sid = &held.hold.sid;
    match (view.snapshots.contains_key(sid), view.forgotten.contains(sid)) {
        (true, _) => "visible",
        (_, true) => "forgotten",
        _ => "unknown",
    }
}

fn list(context: &Context) -> Result<Outcome> {
    let repo = context.open()?;
    let view = View::load(&repo)?;
    let holds = Holds::load(&repo);
    let (mut text, mut all) = (String::new(), Vec::new());
    for held in &holds.all {
        let hold = &held.hold;
        let source = view.snapshots.get(&hold.sid).map(|s| s.manifest.source.name.as_str());
        let end = match hold.until.map(|end| TimeMs(end).rfc3339()) {
            None => "until it is removed".to_owned(),
            Some(end) if held.active => format!("until {end}"),
            Some(end) => format!("ENDED {end}"),
        };
        text.push_str(&format!(
            "{}  {} of {}  [{}]  {end}: {}\n",
            hold.hold.short(),
            hold.sid.short(),
            plain(source.unwrap_or(state(&view, held))),
            names(&repo, held.regions).join(" "),
            plain(&hold.reason)
        ));
        let mut line = held_json(hold);
        line["snapshot"] = json!(hold.sid.hex());
        line["source"] = json!(source);
        line["state"] = json!(state(&view, held));
        line["active"] = json!(held.active);
        line["regions"] = json!(names(&repo, held.regions));
        all.push(line);
    }
    if all.is_empty() {
        text.push_str("no holds\n");
    }
    let mut value = json!({"verb": "hold list", "holds": all});
    found::add(&repo, &mut value, &mut text);
    let exit = if holds.unreadable.is_some() { Exit::Damage } else { Exit::Done };
    Ok(Outcome::new(exit, text, value))
}
