//! `holdfast tag`.

use super::args::Tag;
use super::common::Context;
use super::found;
use super::named;
use super::output::{Outcome, plain};
use crate::error::{Error, Exit, Kind, Result};
use crate::ops::tag::{self, Wish};
use crate::repo::view::{Snapshot, View};
use serde_json::json;
use std::collections::BTreeMap;

pub fn run(context: &Context, args: &Tag) -> Result<Outcome> {
    let set = args.clear.then(Vec::new).or_else(|| (!args.set.is_empty()).then(|| args.set.clone()));
    let wish = Wish { add: args.add.clone(), remove: args.remove.clone(), set };
    wish.check()?;
    let repo = context.open()?;
    let view = View::load(&repo)?;
    // Named twice, changed once.
    let mut chosen: BTreeMap<_, &Snapshot> = BTreeMap::new();
    for text in &args.snapshot {
        if let Some(why) = view.doubt(text) {
            return Err(Error::new(Kind::Refused, why).advise("name the snapshot by its id"));
        }
        let snapshot = named::snapshot(&view, text, &args.filter)?;
        chosen.insert(snapshot.manifest.sid, snapshot);
    }
    let (mut text, mut lines) = (String::new(), Vec::new());
    for (sid, snapshot) in chosen {
        let changed = tag::change(&repo, snapshot, &wish)?;
        let names = |ix: usize| repo.regions.region(ix).name.clone();
        let regions: Vec<String> = changed.regions.iter().flat_map(|set| set.iter()).map(names).collect();
        let tags = if changed.tags.is_empty() { "no tags".into() } else { changed.tags.join(", ") };
        let unchanged = if changed.regions.is_none() { " (as before)" } else { "" };
        text.push_str(&format!(
            "{} of {}: {}{unchanged}\n",
            sid.short(),
            plain(&snapshot.manifest.source.name),
            plain(&tags)
        ));
        lines.push(json!({
            "id": sid.hex(), "tags": changed.tags, "changed": changed.regions.is_some(), "regions": regions,
        }));
    }
    let mut value = json!({"verb": "tag", "snapshots": lines});
    let failures = repo.regions.failures();
    failures.iter().for_each(|(region, e)| text.push_str(&format!("BEHIND: region {region}: {e}\n")));
    value["behind"] = failures.iter().map(|(region, e)| json!({"region": region, "why": e.to_string()})).collect();
    found::add(&repo, &mut value, &mut text);
    let exit = if failures.is_empty() { Exit::Done } else { Exit::Behind };
    Ok(Outcome::new(exit, text, value))
}
