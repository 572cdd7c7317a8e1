//! `holdfast key add|list|remove|test`.

use super::args::{KeyAdd, KeyVerb};
use super::common::{Context, ask};
use super::init::{judged, write_new};
use super::output::{Outcome, remark};
use crate::base::SlotId;
use crate::crypto::{Secret, recovery_encode};
use crate::error::{Error, Exit, Kind, Result};
use crate::repo::Repo;
use crate::repo::init::NewSecret;
use crate::repo::keys::{self, SlotInfo};
use crate::unlock::{self, Unlock};
use serde_json::{Value, json};
use zeroize::Zeroizing;

pub fn run(context: &Context, verb: &KeyVerb) -> Result<Outcome> {
    let repo = context.open()?;
    match verb {
        KeyVerb::Add(args) => add(context, &repo, args),
        KeyVerb::List => Ok(list(&repo)),
        KeyVerb::Remove { slot } => remove(&repo, slot),
        KeyVerb::Test => Ok(test(&repo)),
    }
}

fn slot_json(slot: &SlotInfo) -> Value {
    json!({"id": slot.id.hex(), "kind": slot.kind, "label": slot.label, "created": slot.created.rfc3339(), "current": slot.current})
}

fn slot_line(slot: &SlotInfo) -> String {
    let mark = if slot.current { "  (opened this)" } else { "" };
    format!("{}  {:<13} {}  {}{mark}\n", slot.id.short(), slot.kind, slot.created.rfc3339(), slot.label)
}

fn list(repo: &Repo) -> Outcome {
    let slots = keys::list(repo);
    let removed: Vec<String> = keys::removed(repo).iter().map(SlotId::hex).collect();
    let mut text: String = slots.iter().map(slot_line).collect();
    removed.iter().for_each(|id| text.push_str(&format!("{}  removed\n", &id[..8])));
    let slots: Vec<Value> = slots.iter().map(slot_json).collect();
    let value = json!({"verb": "key list", "slots": slots, "removed": removed, "config": repo.config().0.0});
    Outcome::new(Exit::Done, text, value)
}

fn test(repo: &Repo) -> Outcome {
    let slot = keys::list(repo).into_iter().find(|s| s.current);
    let text = slot.as_ref().map_or_else(String::new, |s| format!("this key opens slot {}", slot_line(s)));
    let value = json!({"verb": "key test", "slot": slot.as_ref().map(slot_json), "repository": repo.id.hex()});
    Outcome::new(Exit::Done, text, value)
}

fn add(context: &Context, repo: &Repo, args: &KeyAdd) -> Result<Outcome> {
    keys::ready(repo)?;
    let (secret, shown) = new_secret(context, args)?;
    let id = match keys::add(repo, &args.label, &secret) {
        Ok(id) => id,
        Err(e) => return Err(withdraw(args, e)),
    };
    let mut text = format!("added slot {} ({})\n", id.short(), secret.kind().name());
    let mut value = json!({"verb": "key add", "slot": id.hex(), "kind": secret.kind().name()});
    if let Some(key) = shown {
        text.push_str(&format!("recovery key, shown only now:\n  {}\n", *key));
        value["recovery_key"] = json!(*key);
    }
    Ok(finish(repo, text, value))
}

/// A file that was made for a slot that was refused opens nothing, and would stand in the way of the next try.
fn withdraw(args: &KeyAdd, e: Error) -> Error {
    let made = args.new_key_file.as_ref().or(args.new_recovery_key_file.as_ref());
    // Only then: whatever else went wrong may have come after the slot was listed.
    if let (Some(path), Kind::Refused) = (made, e.kind()) {
        // If it stays, the next try says that it is there.
        let _ = std::fs::remove_file(path);
    }
    e
}

/// The new secret, and the recovery key to be shown.
fn new_secret(context: &Context, args: &KeyAdd) -> Result<(NewSecret, Option<Zeroizing<String>>)> {
    let mut shown = None;
    let secret = if let Some(path) = &args.new_passphrase_file {
        let found = unlock::from_passphrase_file(path)?;
        found.warnings.iter().for_each(|w| remark(&format!("warning: {w}")));
        let Unlock::Passphrase(text) = found.unlock else {
            return Err(Error::new(Kind::Bug, "not a passphrase"));
        };
        judged(text, args.weak_passphrase)?
    } else if let Some(path) = &args.new_key_file {
        let bytes = Zeroizing::new(context.env.random::<32>()?);
        unlock::create_key_file(path, &bytes)?;
        NewSecret::KeyFile(Secret::from_bytes(*bytes))
    } else if args.new_recovery_key || args.new_recovery_key_file.is_some() {
        let seed = Secret::from_bytes(context.env.random()?);
        let printed = Zeroizing::new(recovery_encode(&seed));
        match &args.new_recovery_key_file {
            Some(path) => write_new(path, printed.as_bytes())?,
            None => shown = Some(printed),
        }
        NewSecret::Recovery(seed)
    } else {
        let text = ask("new passphrase: ")?;
        if ask("the same again: ")? != text {
            return Err(Error::new(Kind::Config, "the two passphrases differ"));
        }
        judged(text, args.weak_passphrase)?
    };
    Ok((secret, shown))
}

fn remove(repo: &Repo, digits: &str) -> Result<Outcome> {
    let slots = keys::list(repo);
    let hits: Vec<&SlotInfo> = slots.iter().filter(|s| !digits.is_empty() && s.id.hex().starts_with(digits)).collect();
    let [slot] = hits.as_slice() else {
        let what = format!("`{digits}` fits {} key slots", hits.len());
        let kind = if hits.is_empty() { Kind::NotFound } else { Kind::Config };
        return Err(Error::new(kind, what).advise("see `holdfast key list`"));
    };
    keys::ready(repo)?;
    keys::remove(repo, slot.id)?;
    let text = format!(
        "removed slot {}; what is written from now on has new keys\nwhat its owner could read before stays readable to whoever kept the keys\n",
        slot.id.short()
    );
    Ok(finish(repo, text, json!({"verb": "key remove", "slot": slot.id.hex()})))
}

/// Regions that did not take the change are named.
fn finish(repo: &Repo, mut text: String, mut value: Value) -> Outcome {
    let failures = repo.regions.failures();
    for (region, e) in &failures {
        text.push_str(&format!("BEHIND: region {region}: {e}\n"));
    }
    value["behind"] =
        json!(failures.iter().map(|(r, e)| json!({"region": r, "why": e.to_string()})).collect::<Vec<_>>());
    Outcome::new(if failures.is_empty() { Exit::Done } else { Exit::Behind }, text, value)
}
