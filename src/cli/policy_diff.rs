//! `holdfast policy diff`.

use super::coming::{DAY_MS, DAYS, RUNS_MAX, due_json, run_text};
use super::common::Context;
use super::configuration;
use super::output::{Outcome, plain};
use crate::base::{SessionId, TimeMs};
use crate::error::{Exit, Result};
use crate::ops::retain::{Plan, Wish};
use crate::policy::{
    self, BackupPolicy, Change, Coming, Configuration, Retention, Zone, changes, local_time, retention_effect,
};
use crate::repo::Repo;
use crate::repo::view::View;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Snapshots that are named in text.
const SHOWN_MAX: usize = 10;

/// `policy diff`; with `snapshots` on those of the repositories, too.
pub fn run(context: &Context, old: &Path, new: &Path, snapshots: bool) -> Result<Outcome> {
    let read = |path: &Path| policy::load(&configuration::texts(&configuration::files(Some(path))?));
    let (old, new) = (read(old)?, read(new)?);
    let found = changes(&old, &new);
    let mut text: String = found.iter().map(change_text).collect();
    if found.is_empty() {
        text.push_str("the configurations mean the same\n");
    }
    let now = context.env.now();
    let mut effects = Vec::new();
    for before in old.policies() {
        if let Some(after) = new.policies().iter().find(|p| p.name() == before.name()) {
            effects.extend(effect(before, after, now, &mut text));
        }
    }
    let real = if snapshots { on_snapshots(context, &old, &new, &mut text)? } else { Vec::new() };
    let change =
        |c: &Change| json!({"document": c.document, "field": c.path, "old": shown(&c.old), "new": shown(&c.new)});
    let changes: Vec<Value> = found.iter().map(change).collect();
    Ok(Outcome::new(
        Exit::Done,
        text,
        json!({"verb": "policy diff", "changes": changes, "policies": effects, "snapshots": real}),
    ))
}

/// What a change of a policy does to its runs and to its snapshots.
fn effect(before: &BackupPolicy, after: &BackupPolicy, now: TimeMs, text: &mut String) -> Option<Value> {
    let (old_runs, new_runs) = (week(before, now), week(after, now));
    let rules = (before.retention(), before.zone()) != (after.retention(), after.zone());
    if old_runs == new_runs && !rules {
        return None;
    }
    let (added, dropped) = (only_in(&new_runs, &old_runs), only_in(&old_runs, &new_runs));
    let (name, old, new) = (before.name(), old_runs.len(), new_runs.len());
    text.push_str(&format!("policy {name}: {old} runs in the next {DAYS} days before, {new} after\n"));
    dropped.iter().for_each(|run| text.push_str(&format!("  - {}\n", run_text(before, run))));
    added.iter().for_each(|run| text.push_str(&format!("  + {}\n", run_text(after, run))));
    let kept = retention_effect(before, after, now);
    if rules {
        text.push_str(&format!(
            "  of {} snapshots of a source that the old schedule made, {} are kept now and {} will be",
            kept.made, kept.kept_old, kept.kept_new
        ));
        let (lost, zone) = (kept.lost.len(), after.zone());
        let newest = kept.lost.first().map(|at| format!("; {lost} no more, the newest of {}", local_time(zone, *at)));
        text.push_str(&newest.unwrap_or_default());
        text.push('\n');
    }
    let runs = |runs: &[&Coming]| runs.iter().map(|run| due_json(run.task, run.due)).collect::<Vec<_>>();
    let lost: Vec<String> = kept.lost.iter().map(|at| at.rfc3339()).collect();
    Some(json!({
        "policy": name.as_str(), "added": runs(&added), "dropped": runs(&dropped),
        "retention": {"made": kept.made, "kept_old": kept.kept_old, "kept_new": kept.kept_new, "lost": lost},
    }))
}

/// The runs of the next days.
fn week(policy: &BackupPolicy, now: TimeMs) -> Vec<Coming> {
    policy.calendar().coming(now, TimeMs(now.0 + i64::from(DAYS) * DAY_MS), RUNS_MAX)
}

fn only_in<'r>(these: &'r [Coming], those: &[Coming]) -> Vec<&'r Coming> {
    these.iter().filter(|run| !those.contains(run)).collect()
}

/// A value on one line.
fn shown(value: &Option<Value>) -> Option<String> {
    value.as_ref().map(|value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    })
}

fn change_text(change: &Change) -> String {
    let document = &change.document;
    match (&change.old, &change.new) {
        (None, _) if change.path.is_empty() => format!("+ {document}\n"),
        (_, None) if change.path.is_empty() => format!("- {document}\n"),
        (old, new) => {
            let side = |value: &Option<Value>| shown(value).map_or("nothing".into(), |text| plain(&text));
            format!("~ {document}: {}: {} -> {}\n", change.path, side(old), side(new))
        }
    }
}

/// What a change does to the snapshots of one source.
struct Judged {
    source: String,
    policies: [Option<String>; 2],
    total: usize,
    kept: [usize; 2],
    /// Those that only the old rules keep, newest first, each with its time.
    lost: Vec<(SessionId, TimeMs)>,
    /// Those that only the new rules keep.
    won: Vec<(SessionId, TimeMs)>,
    brake: Option<&'static str>,
    zone: Zone,
}

/// Judges the snapshots that there are by the old and by the new rules, wherever these differ. A source that no policy
/// names is forgotten by no policy.
fn on_snapshots(context: &Context, old: &Configuration, new: &Configuration, text: &mut String) -> Result<Vec<Value>> {
    let secret = context.secret()?;
    let mut all = Vec::new();
    for repository in new.repositories() {
        let rules = |configuration: &'_ Configuration| -> BTreeMap<String, (String, Wish)> {
            let own = configuration.policies().iter().filter(|p| p.repository() == repository.name());
            let wish = |p: &BackupPolicy| Wish { rules: p.retention(), zone: p.zone(), accept_small: false };
            own.flat_map(|p| p.sources().iter().map(|s| (s.name.clone(), (p.name().to_string(), wish(p))))).collect()
        };
        let (before, after) = (rules(old), rules(new));
        let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        let changed: Vec<&String> = names
            .into_iter()
            .filter(|name| before.get(*name).map(|(_, wish)| wish) != after.get(*name).map(|(_, wish)| wish))
            .collect();
        if changed.is_empty() {
            continue;
        }
        let repo = context.open_at(&context.places_of(repository, repository.copies_min()), &secret)?;
        let view = View::load(&repo)?;
        for source in changed {
            let judged = judge(&repo, &view, source, [before.get(source), after.get(source)])?;
            text.push_str(&judged.text());
            all.push(judged.json(repository.name().as_str()));
        }
    }
    if all.is_empty() {
        text.push_str("no snapshot is judged differently\n");
    }
    Ok(all)
}

fn judge(repo: &Repo, view: &View, source: &str, sides: [Option<&(String, Wish)>; 2]) -> Result<Judged> {
    let nothing = Wish { rules: Retention::default(), zone: Zone::UTC, accept_small: false };
    let wishes = sides.map(|side| side.map_or(nothing, |(_, wish)| *wish));
    let plan = |wish: &Wish| Plan::make(repo, view, wish, |m| m.source.name == source);
    let [before, after] = [plan(&wishes[0])?, plan(&wishes[1])?];
    let kept = |plan: &Plan| -> BTreeMap<SessionId, TimeMs> {
        let stay = plan.sources.iter().flat_map(|s| &s.lines).filter(|line| line.stays());
        stay.map(|line| (line.target.sid, line.time)).collect()
    };
    let (old, new) = (kept(&before), kept(&after));
    let only = |these: &BTreeMap<SessionId, TimeMs>, those: &BTreeMap<SessionId, TimeMs>| {
        let only = these.iter().filter(|(sid, _)| !those.contains_key(sid));
        let mut only: Vec<(SessionId, TimeMs)> = only.map(|(sid, time)| (*sid, *time)).collect();
        only.sort_by_key(|(sid, time)| std::cmp::Reverse((*time, *sid)));
        only
    };
    Ok(Judged {
        source: source.to_owned(),
        policies: sides.map(|side| side.map(|(name, _)| name.clone())),
        total: after.sources.iter().map(|s| s.lines.len()).sum(),
        kept: [old.len(), new.len()],
        lost: only(&old, &new),
        won: only(&new, &old),
        brake: after.sources.iter().find_map(|s| s.brake),
        zone: wishes[1].zone,
    })
}

impl Judged {
    fn text(&self) -> String {
        let [old, new] = self.kept;
        let source = plain(&self.source);
        let mut text = match &self.policies[1] {
            None => format!("source {source}: no policy names it any more: its {} snapshots stay\n", self.total),
            Some(_) => {
                format!("source {source}: of its {} snapshots {old} are kept now and {new} will be\n", self.total)
            }
        };
        let told = |word: &str, these: &[(SessionId, TimeMs)]| -> String {
            let line = |(sid, time): &(SessionId, TimeMs)| {
                format!("  {word}  {}  {}\n", sid.short(), local_time(self.zone, *time))
            };
            let mut told: String = these.iter().take(SHOWN_MAX).map(line).collect();
            let more = these.len().saturating_sub(SHOWN_MAX);
            if more > 0 {
                told.push_str(&format!("  {word}  {more} older ones (see --json)\n"));
            }
            told
        };
        text.push_str(&told("forgets", &self.lost));
        text.push_str(&told("keeps  ", &self.won));
        if let Some(why) = self.brake {
            text.push_str(&format!("  BRAKE: {why}: the first run will forget nothing\n"));
        }
        text
    }

    fn json(&self, repository: &str) -> Value {
        let ids = |these: &[(SessionId, TimeMs)]| these.iter().map(|(sid, _)| sid.hex()).collect::<Vec<_>>();
        json!({
            "repository": repository, "source": self.source, "old_policy": self.policies[0], "new_policy": self.policies[1],
            "total": self.total, "kept_old": self.kept[0], "kept_new": self.kept[1],
            "lost": ids(&self.lost), "won": ids(&self.won), "brake": self.brake,
        })
    }
}
