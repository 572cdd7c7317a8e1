//! A run as a policy wants it, from its first hook to its last alert.

use super::alert::{self, LINES_MAX, Memory, Message, Told};
use super::hook::{Around, Outcome};
use super::run::{self, Fate, Report, SourceEnd, Surroundings};
use crate::base::{Cancel, Env, TimeMs};
use crate::error::{Error, Exit, Result};
use crate::ops::not_begun::{self, NotBegun};
use crate::ops::verify::VerifyReport;
use crate::policy::{BackupPolicy, Event, Repository, Retries, Task};
use crate::source::files;
use serde_json::{Value, json};

/// Runs a policy now, with its hooks, and tells who wants to know. `earlier` is as for [`run::run`]. Where whoever started a
/// run tries it `again` later, after such an exit, its failure is left to the last attempt to tell.
///
/// # Errors
/// Nothing could be tried, see [`run::run`]; a hook before a check failed.
pub fn run(
    around: &Surroundings<'_>,
    policy: &BackupPolicy,
    repository: &Repository,
    kind: Task,
    (retries, earlier): (Retries, Vec<SourceEnd>),
    again: &dyn Fn(Exit) -> bool,
) -> Result<Report> {
    let start = around.env.now();
    let names = (policy.name().as_str(), kind.name(), None);
    let mut hooks = Around::new(policy.hooks(), names, around.say, around.cancel);
    let before = hooks.before();
    let mut ended = match &before {
        Ok(()) => run::run(around, policy, repository, kind, retries, earlier),
        Err(e) => aborted(policy, kind, e, &earlier).ok_or_else(|| e.clone()),
    };
    remember(around, policy, kind, before.as_ref().err().or(ended.as_ref().err()));
    let exit = exit_of(&ended);
    let variables = vec![("HOLDFAST_EXIT", (exit as u8).to_string())];
    hooks.later(&Outcome { failed: failed(&ended), variables });
    let hooked = hooks.ended.iter().any(|hook| hook.why.is_some());
    if let Ok(report) = &mut ended {
        report.hooks = hooks.ended;
    }
    let end = Ending { around, policy, kind, start, hooked };
    let told = if again(exit_of(&ended)) { Vec::new() } else { end.tell(&ended) };
    told.iter().filter_map(Told::failure).for_each(|what| (around.say)(&what));
    if let Ok(report) = &mut ended {
        report.alerts = told;
    }
    ended
}

/// A run that could not begin is in no catalog: `status` is told apart.
fn remember(around: &Surroundings<'_>, policy: &BackupPolicy, kind: Task, failed: Option<&Error>) {
    let name = policy.name().as_str();
    let kept = match failed {
        None => {
            not_begun::clear(around.state, name);
            Ok(())
        }
        Some(e) if e.exit() == Exit::Interrupted => Ok(()),
        Some(e) => {
            let (kind, at) = (kind.name().to_owned(), around.env.now());
            not_begun::keep(around.state, name, &NotBegun { kind, at, exit: e.exit() as u8, why: e.to_string() })
        }
    };
    if let Err(e) = kept {
        (around.say)(&e.to_string());
    }
}

/// Runs of a policy that did not take place.
pub struct Missed {
    /// The policy.
    pub policy: BackupPolicy,
    /// What they would have done.
    pub kind: Task,
    /// When they were due, and why they were left out, in words.
    pub lines: Vec<String>,
    /// When the last one was due.
    pub due: TimeMs,
}

/// Tells who wants to know of runs that did not take place.
pub fn missed(missed: &Missed, env: &Env, cancel: &Cancel) -> Vec<Told> {
    let (policy, kind, end) = (&missed.policy, missed.kind, env.now());
    if !policy.alerts().iter().any(|alert| alert.events.contains(&Event::Missed)) {
        return Vec::new();
    }
    let message = Message {
        policy: policy.name().to_string(),
        kind: kind.name(),
        host: files::hostname(),
        start: missed.due,
        end,
        exit: Exit::Failed,
        events: vec![Event::Missed],
        summary: format!("{} ({}): {} runs were missed", policy.name(), kind.name(), missed.lines.len()),
        lines: missed.lines.clone(),
        sources: Vec::new(),
        sources_total: 0,
        findings: Vec::new(),
        findings_total: 0,
    };
    alert::tell(policy.alerts(), &message, cancel)
}

/// A backup that a hook kept from being made; none for a check, which has no sources. What earlier attempts did stands.
fn aborted(policy: &BackupPolicy, kind: Task, e: &Error, earlier: &[SourceEnd]) -> Option<Report> {
    let stands = |name: &str| earlier.iter().find(|end| end.source == name && end.fate != Fate::Failed).cloned();
    let sources = policy.sources().iter();
    let sources = sources.map(|source| stands(&source.name).unwrap_or_else(|| SourceEnd::failed(source, e))).collect();
    (kind != Task::Verify).then(|| Report { sources, ..Report::new(policy, kind) })
}

fn exit_of(ended: &Result<Report>) -> Exit {
    ended.as_ref().map_or_else(Error::exit, Report::exit)
}

fn failed(ended: &Result<Report>) -> bool {
    match ended {
        Ok(report) => report.count(Fate::Failed) > 0 || report.exit() == Exit::Failed,
        Err(_) => true,
    }
}

/// What is known when a run is over.
struct Ending<'a> {
    around: &'a Surroundings<'a>,
    policy: &'a BackupPolicy,
    kind: Task,
    start: TimeMs,
    /// Whether a hook around the run failed.
    hooked: bool,
}

impl Ending<'_> {
    /// Tells who wants to know. An interrupted run tells nobody: it was a person who stopped it, or a machine that goes down.
    fn tell(&self, ended: &Result<Report>) -> Vec<Told> {
        let (policy, exit) = (self.policy, exit_of(ended));
        if policy.alerts().is_empty() || exit == Exit::Interrupted {
            return Vec::new();
        }
        let memory = Memory::of(self.around.state, policy.name().as_str(), self.kind == Task::Verify);
        let mut events = self.events(ended, exit);
        let (good, before) = (events.is_empty(), memory.was_good());
        if good && before == Some(false) {
            events.push(Event::Recovered);
        }
        let wanted = policy.alerts().iter().any(|alert| alert.events.contains(&Event::Recovered));
        if good && before.is_none() && wanted {
            (self.around.say)("how the run before ended is not known: no alert tells of a recovery");
        }
        let end = self.around.env.now();
        let told = alert::tell(policy.alerts(), &self.message(ended, exit, events, end), self.around.cancel);
        if let Err(e) = memory.keep(good, end) {
            (self.around.say)(&e.to_string());
        }
        told
    }

    fn events(&self, ended: &Result<Report>, exit: Exit) -> Vec<Event> {
        let report = ended.as_ref().ok();
        let has = |what: fn(&SourceEnd) -> bool| report.is_some_and(|report| report.sources.iter().any(what));
        let damaged = exit == Exit::Damage || has(|source| source.exit == Exit::Damage);
        let checked = report.and_then(|report| report.verified.as_ref()).map(VerifyReport::exit);
        let short = has(|source| matches!(source.fate, Fate::Degraded | Fate::Excluded))
            || checked.is_some_and(|exit| !matches!(exit, Exit::Done | Exit::Failed | Exit::Damage));
        let all = [
            (Event::Failure, failed(ended)),
            (Event::Degraded, short || self.hooked),
            (Event::Damage, damaged),
            (Event::Brake, has(|source| source.braked)),
        ];
        all.into_iter().filter_map(|(event, happened)| happened.then_some(event)).collect()
    }

    fn message(&self, ended: &Result<Report>, exit: Exit, events: Vec<Event>, end: TimeMs) -> Message {
        let report = ended.as_ref().ok();
        let sources = report.map_or(&[][..], |report| &report.sources);
        let findings = report.and_then(|report| report.verified.as_ref()).map_or(&[][..], |v| &v.findings);
        let mut lines: Vec<String> = Vec::new();
        for source in sources {
            lines.extend(source.why.iter().map(|why| format!("source {}: {why}", source.source)));
        }
        lines.extend(report.iter().flat_map(|report| &report.hooks).filter_map(|hook| hook.failure()));
        lines.extend(findings.iter().map(|finding| format!("DAMAGE: {finding}")));
        let name = self.policy.name();
        let summary = match ended {
            Ok(report) => report.summary(),
            Err(e) => format!("{name} ({}): {e} (exit code {})", self.kind.name(), exit as u8),
        };
        // Those with something to tell come first: the list is bounded.
        let mut told: Vec<&SourceEnd> = sources.iter().collect();
        told.sort_by_key(|source| source.fate == Fate::Protected);
        Message {
            policy: name.to_string(),
            kind: self.kind.name(),
            host: files::hostname(),
            start: self.start,
            end,
            exit,
            events,
            summary,
            lines,
            sources: told.iter().take(LINES_MAX).map(|source| source_json(source)).collect(),
            sources_total: sources.len(),
            findings: findings.iter().take(LINES_MAX).map(ToString::to_string).collect(),
            findings_total: findings.len(),
        }
    }
}

fn source_json(source: &SourceEnd) -> Value {
    json!({
        "source": source.source, "fate": source.fate.name(), "exit": source.exit as u8,
        "snapshot": source.snapshot.map(|sid| sid.hex()), "why": source.why,
    })
}
