//! `holdfast region list|add|remove|repair`.

use super::args::{RegionAdd, RegionRemove, RegionRepair, RegionVerb};
use super::common::{Context, Places};
use super::init::refuse_occupied;
use super::output::{Outcome, plain};
use super::progress::Shown;
use super::recorded::Recorded;
use super::replicate::{json_of, text_of};
use crate::base::{Place, Progress, RegionId};
use crate::error::{Error, Exit, Kind, Result};
use crate::format::objects::Member;
use crate::format::run::RunKind;
use crate::ops::membership::{self, Changed, MemberInfo, Outsider};
use crate::ops::record::Closing;
use crate::ops::replicate::{Means, Report};
use crate::ops::verify::{self, Level, Wish};
use crate::policy::RegionSpec;
use crate::region::{Address, Regions};
use crate::repo::Repo;
use crate::repo::held::Held;
use crate::repo::init::{Leftovers, prepare};
use crate::repo::open;
use crate::repo::view::View;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

pub fn run(context: &Context, verb: &RegionVerb) -> Result<Outcome> {
    match verb {
        RegionVerb::List => list(context),
        RegionVerb::Add(args) => add(context, args),
        RegionVerb::Remove(args) => remove(context, args),
        RegionVerb::Repair(args) => repair(context, args),
    }
}

fn list(context: &Context) -> Result<Outcome> {
    let repo = context.open()?;
    let found = membership::list(&repo);
    let mut text = format!(
        "epoch {}, {}\n",
        found.epoch,
        if found.decided { "decided" } else { "NOT DECIDED: a change is at work or was cut off" }
    );
    for MemberInfo { member, home, region, why } in &found.members {
        let mark = match (*home, member.is_weak()) {
            (true, _) => " (home)",
            (_, true) => " (weak)",
            _ => "",
        };
        let also = region.as_ref().filter(|name| **name != member.name);
        let also = also.map_or_else(String::new, |name| format!(", here called {name}"));
        let state = why.as_ref().map_or_else(|| "in use".to_owned(), |why| format!("NOT USED: {}", plain(why)));
        text.push_str(&format!("  {:<12} {}{mark}{also}: {state}\n", plain(&member.name), &member.id.hex()[..8]));
    }
    for Outsider { region, why, .. } in &found.outsiders {
        text.push_str(&format!("  {region:<12} is configured and no member: {}\n", plain(why)));
    }
    let member = |info: &MemberInfo| {
        json!({"name": info.member.name, "id": info.member.id.hex(), "home": info.home, "weak": info.member.is_weak(), "region": info.region,
            "used": info.why.is_none(), "why": info.why})
    };
    let outsider = |out: &Outsider| json!({"region": out.region, "id": out.id.map(|id| id.hex()), "why": out.why});
    let value = json!({
        "verb": "region list", "epoch": found.epoch.0, "decided": found.decided,
        "members": found.members.iter().map(member).collect::<Vec<_>>(),
        "outsiders": found.outsiders.iter().map(outsider).collect::<Vec<_>>(),
    });
    let well = found.decided && found.outsiders.is_empty() && found.members.iter().all(|info| info.why.is_none());
    Ok(Outcome::new(if well { Exit::Done } else { Exit::Behind }, text, value))
}

/// The work of one change, shown and recorded.
fn recorded<T>(
    context: &Context,
    repo: &Arc<Repo>,
    how: &str,
    act: impl FnOnce(Means<'_>, &Progress) -> Result<T>,
    report: impl Fn(&T) -> Option<&Report>,
) -> Result<(T, u64)> {
    let progress = Arc::new(Progress::default());
    let shown = Shown::start("copying", &progress, context.global.quiet);
    let means = Means { workers: context.workers(), progress: Some(&progress), cancel: &context.cancel };
    let opening = Closing { how: Some(how.to_owned()), ..Closing::default() };
    let recorded = Recorded { kind: RunKind::Replicate, repo: Some(repo), id: repo.id, opening };
    let end = |done: &T, closing: Closing| match report(done) {
        Some(report) => (closing.replicate(report), report.exit()),
        None => (closing, Exit::Done),
    };
    let (done, _) = recorded.run(context, true, |_| act(means, &progress), end)?;
    Ok((done, shown.elapsed_ms()))
}

fn members_json(members: &[Member]) -> Value {
    members.iter().map(|member| json!({"name": member.name, "id": member.id.hex()})).collect()
}

/// What a person has to do about the configuration, which this program does not write.
fn configure(context: &Context, what: &str) -> String {
    let place = match (context.global.region.is_empty(), &context.global.config) {
        (true, Some(path)) => format!("in {}", path.display()),
        (true, None) => "in holdfast.yaml".to_owned(),
        (false, _) => "in every command line and configuration that names the regions".to_owned(),
    };
    format!("{what} {place}, on every machine that uses this repository")
}

fn changed(verb: &str, changed: &Changed, name: &str, elapsed_ms: u64, todo: Option<String>) -> Outcome {
    let mut value = json_of(&changed.report, elapsed_ms);
    if let Value::Object(map) = &mut value {
        ["dry_run", "nowhere", "nowhere_total"].iter().for_each(|name| drop(map.remove(*name)));
    }
    value["verb"] = json!(verb);
    value["region"] = json!(name);
    value["epoch"] = json!(changed.epoch.map(|epoch| epoch.0));
    value["members"] = members_json(&changed.members);
    value["todo"] = json!(todo);
    let mut text = match changed.epoch {
        Some(epoch) => format!("region {name} is a member since epoch {epoch}\n"),
        None => format!("region {name} was a member already\n"),
    };
    text.push_str(&text_of(&changed.report, elapsed_ms));
    todo.iter().for_each(|todo| text.push_str(&format!("now: {todo}\n")));
    Outcome::new(changed.report.exit(), text, value)
}

/// Whether two say the same: a path may be seen from here or be whole.
fn is_same(one: &Place, other: &Place) -> bool {
    match (one.folder(), other.folder()) {
        (Some(one), Some(other)) => std::path::absolute(one).ok() == std::path::absolute(other).ok(),
        _ => one == other,
    }
}

fn add(context: &Context, args: &RegionAdd) -> Result<Outcome> {
    let spec = RegionSpec::parse(&args.new)?;
    let new = Address { name: spec.name.as_str().to_owned(), place: spec.place };
    let mut places = context.places()?;
    let named = places.addresses.iter().find(|address| address.name == new.name).cloned();
    if let Some(other) = named.as_ref().filter(|other| !is_same(&other.place, &new.place)) {
        let what = format!("the configuration names another place for region {}: {}", new.name, other.place);
        return Err(Error::new(Kind::Config, what).advise("use one name for one place"));
    }
    places.addresses.retain(|address| address.name != new.name);
    let held = Held::new(context.secret()?);
    let repo = context.open_held(&places, &held)?;
    if let Ok(same) = membership::find(&repo, &new.name)
        && named.is_none()
        && membership::list(&repo).members.iter().any(|info| info.member == same && info.region.is_some())
    {
        let what = format!("a member is called {} already", new.name);
        return Err(Error::new(Kind::Refused, what).advise("use another name"));
    }
    make(context, &new, &repo, Leftovers::Refused)?;
    drop(repo);
    places.addresses.push(new.clone());
    let repo = context.open_held(&places, &held)?;
    let ix = index_of(&repo, &new.name)?;
    let act = |means: Means<'_>, _: &Progress| membership::admit(&repo, ix, None, means);
    let (done, elapsed_ms) = recorded(context, &repo, "region add", act, |done| Some(&done.report))?;
    let line = format!("add `{{name: {}, url: {}}}` to the regions", new.name, new.place);
    let todo = named.is_none().then(|| configure(context, &line));
    Ok(changed("region add", &done, &new.name, elapsed_ms, todo))
}

/// Tries the store and gives it a mark, or finds the mark of an earlier try.
fn make(context: &Context, new: &Address, repo: &Repo, leftovers: Leftovers) -> Result<RegionId> {
    let places = Places { addresses: vec![new.clone()], copies_min: 1, pin: None, priorities: BTreeMap::new() };
    let regions = Regions::connect(&places.addresses, true, context.handle());
    context.meter(regions.meters());
    if leftovers == Leftovers::Refused {
        refuse_occupied(&places, &regions)?;
    }
    prepare(&regions, &context.env, repo.id, leftovers)
}

fn index_of(repo: &Repo, name: &str) -> Result<usize> {
    let found = (0..repo.regions.len()).find(|ix| repo.regions.region(*ix).name == name);
    found.ok_or_else(|| {
        Error::new(Kind::Config, format!("no region is called {name}"))
            .advise("name it with its place in the configuration")
    })
}

fn remove(context: &Context, args: &RegionRemove) -> Result<Outcome> {
    let places = context.places()?;
    let held = Held::new(context.secret()?);
    let repo = context.open_held(&places, &held)?;
    if args.lost {
        membership::spare_all(&repo, &membership::find(&repo, &args.name)?)?;
    }
    // One that was cut off may have been this very one.
    let gone = if args.lost { membership::lost(&repo, &args.name) } else { None };
    membership::settle(&repo, gone, Means { workers: context.workers(), progress: None, cancel: &context.cancel })?;
    let who = membership::find(&repo, &args.name)?;
    let act = |means: Means<'_>, progress: &Progress| {
        let report = membership::may_go(&repo, &who, args.lost, means)?;
        if !args.lost && !args.trust_listings {
            read_others(context, &places, (&repo, &held), &who, progress)?;
        }
        let (epoch, members) = membership::remove(&repo, &who, args.lost, means)?;
        Ok((report, epoch, members))
    };
    let ((report, epoch, members), elapsed_ms) =
        recorded(context, &repo, "region remove", act, |(report, ..)| report.as_ref())?;
    let todo = configure(context, &format!("take region {} out of the regions", args.name));
    let moved = report.as_ref().map(Report::moved).unwrap_or_default();
    let mut text =
        format!("region {} is no member since epoch {epoch}; what is stored there was left alone\n", who.name);
    if members.len() < repo.copies_min {
        text.push_str(&format!("WARNING: {} regions are left, and copies.min is {}\n", members.len(), repo.copies_min));
    }
    text.push_str(&format!("now: {todo}\n"));
    let value = json!({
        "verb": "region remove", "region": who.name, "id": who.id.hex(), "lost": args.lost, "epoch": epoch.0,
        "members": members_json(&members), "objects": moved.objects, "bytes": moved.bytes,
        "seconds": elapsed_ms as f64 / 1000.0, "todo": todo,
    });
    Ok(Outcome::new(Exit::Done, text, value))
}

/// Reads every byte of the regions that stay: what is listed there may be damaged, and the copy that goes the only good one.
fn read_others(
    context: &Context,
    places: &Places,
    (repo, held): (&Repo, &Held),
    who: &Member,
    progress: &Progress,
) -> Result<()> {
    let goes = |name: &str| {
        (0..repo.regions.len())
            .any(|ix| repo.regions.region(ix).name == name && repo.regions.region(ix).id == Some(who.id))
    };
    let addresses: Vec<Address> = places.addresses.iter().filter(|a| !goes(&a.name)).cloned().collect();
    let left = Places { addresses, copies_min: 1, pin: Some(repo.id), priorities: BTreeMap::new() };
    let marked = open::mark(&context.opening(&left))?;
    context.meter(marked.regions.meters());
    let wish = Wish::all(Level::Ciphertext, context.workers());
    let report = verify::ciphertext(&marked.regions, &wish, None, progress, &context.cancel)?;
    let failed = report.regions.iter().find_map(|r| Some(format!("region {}: {}", r.region, r.failed.as_ref()?)));
    match report.findings.first().map(ToString::to_string).or(failed) {
        None => each_alone(context, &left, (repo, held), who),
        Some(why) => Err(membership::only_good_copy(who, &why)),
    }
}

/// Every member that stays must open by itself, and show every snapshot: something else may stand at their keys that is whole.
fn each_alone(context: &Context, left: &Places, (repo, held): (&Repo, &Held), who: &Member) -> Result<()> {
    let all = View::load(repo)?;
    let stays = |name: &str| {
        let shown = (0..repo.regions.len()).map(|ix| repo.regions.region(ix)).find(|region| region.name == name);
        let id = shown.and_then(|region| region.id);
        repo.epochs().members().iter().any(|member| Some(member.id) == id)
    };
    for address in left.addresses.iter().filter(|address| stays(&address.name)) {
        let place =
            Places { addresses: vec![address.clone()], copies_min: 1, pin: Some(repo.id), priorities: BTreeMap::new() };
        let why = |e: &dyn std::fmt::Display| membership::only_good_copy(who, &format!("region {}: {e}", address.name));
        let alone = context.open_held(&place, held).map_err(|e| why(&e))?;
        let shown = View::load(&alone).map_err(|e| why(&e))?;
        if alone.config() != repo.config() {
            return Err(why(&"shows another configuration"));
        }
        if let Some(sid) = all.snapshots.keys().find(|sid| !shown.snapshots.contains_key(*sid)) {
            return Err(why(&format!("does not show snapshot {}", sid.short())));
        }
    }
    Ok(())
}

fn repair(context: &Context, args: &RegionRepair) -> Result<Outcome> {
    let places = context.places()?;
    let held = Held::new(context.secret()?);
    let mut repo = context.open_held(&places, &held)?;
    let mut ix = index_of(&repo, &args.name)?;
    let address = places.addresses.iter().find(|address| address.name == args.name).cloned();
    if repo.regions.region(ix).id.is_none() {
        let failure = repo.regions.failure(ix);
        let kind = failure.as_ref().map(Error::kind);
        if !matches!(kind, Some(Kind::NoRepository | Kind::NotFound)) {
            return Err(failure.unwrap_or_else(|| Error::new(Kind::Retry, "does not answer")));
        }
        // Of which member it is the place is asked before anything is made there.
        membership::find(&repo, &args.name)?;
        if !args.emptied {
            return Err(Error::new(Kind::Refused, "nothing of the repository is there")
                .at(format!("region {}", args.name))
                .advise("is the disk mounted, the path right? If it was emptied or replaced, say --emptied"));
        }
        if let Some(address) = &address {
            make(context, address, &repo, Leftovers::Taken)?;
        }
        repo = context.open_held(&places, &held)?;
        ix = index_of(&repo, &args.name)?;
    }
    if !args.emptied && membership::is_emptied(&repo, ix) {
        return Err(Error::new(Kind::Refused, "nothing but its mark is there")
            .at(format!("region {}", args.name))
            .advise("is it the right place? If it was emptied, say --emptied"));
    }
    let id = repo.regions.region(ix).id;
    let found = membership::list(&repo);
    let is_member = found.members.iter().any(|info| Some(info.member.id) == id);
    let replaces = if is_member { None } else { Some(lost_member(&found.members, &args.name)?.id) };
    let act = |means: Means<'_>, _: &Progress| match replaces {
        None => membership::bring_forward(&repo, ix, means),
        Some(_) => membership::admit(&repo, ix, replaces, means),
    };
    let (done, elapsed_ms) = recorded(context, &repo, "region repair", act, |done| Some(&done.report))?;
    Ok(changed("region repair", &done, &args.name, elapsed_ms, None))
}

/// The member whose place shows another mark, or none.
fn lost_member(members: &[MemberInfo], name: &str) -> Result<Member> {
    let gone = |info: &&MemberInfo| info.region.is_none() && info.member.name == name;
    members.iter().find(gone).map(|info| info.member.clone()).ok_or_else(|| {
        Error::new(Kind::NotFound, format!("no member is called {name} that is missing its region"))
            .advise("see `holdfast region list`; `holdfast region add` makes a new member")
    })
}
