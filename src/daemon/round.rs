//! A run as a policy wants it, from its first hook to its last alert.

use super::alert::{self, LINES_MAX, Lines, Memory, Message, Told, WHY_MAX, line};
use super::hook::{Around, Outcome};
use super::run::{self, Fate, Report, SourceEnd, Surroundings};
use crate::base::{Cancel, Env, TimeMs};
use crate::error::{Error, Exit, Result};
use crate::ops::not_begun::{self, NotBegun};
use crate::ops::prune;
use crate::ops::verify::VerifyReport;
use crate::policy::{Alert, BackupPolicy, Event, Repository, Retries, Task};
use crate::source::files;
use serde_json::{Value, json};
use std::path::Path;

/// Something to tell, and to whom.
pub struct Announcement {
    alerts: Vec<Alert>,
    message: Message,
}

impl Announcement {
    /// Tells everybody. What was not sent is in it, too.
    pub fn tell(&self, cancel: &Cancel) -> Vec<Told> {
        alert::tell(&self.alerts, &self.message, cancel)
    }
}

/// How it is told how runs end.
pub struct Telling<'a> {
    /// Whether whoever started a run tries it again later, after such an exit: its failure is left to the last attempt to
    /// tell.
    pub again: &'a dyn Fn(Exit) -> bool,
    /// Takes what is to be told, so that the run can end; without it everybody is told before the end.
    pub aside: Option<&'a dyn Fn(Announcement)>,
}

/// Runs a policy now, with its hooks, and tells who wants to know. `earlier` is as for [`run::run`].
///
/// # Errors
/// Nothing could be tried, see [`run::run`]; a hook before a check failed.
pub fn run(
    around: &Surroundings<'_>,
    policy: &BackupPolicy,
    repository: &Repository,
    kind: Task,
    (retries, earlier): (Retries, Vec<SourceEnd>),
    telling: &Telling<'_>,
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
    let announced = if (telling.again)(exit_of(&ended)) { None } else { end.announce(&ended) };
    match (announced, telling.aside) {
        (None, _) => {}
        (Some(announced), Some(aside)) => aside(announced),
        (Some(announced), None) => {
            let told = announced.tell(around.cancel);
            told.iter().filter_map(Told::failure).for_each(|what| (around.say)(&what));
            if let Ok(report) = &mut ended {
                report.alerts = told;
            }
        }
    }
    ended
}

/// What is to be told of a run between backups, which has no hooks.
pub(super) fn between(
    around: &Surroundings<'_>,
    policy: &BackupPolicy,
    start: TimeMs,
    ended: &Result<Report>,
) -> Option<Announcement> {
    remember(around, policy, Task::Delta, ended.as_ref().err());
    Ending { around, policy, kind: Task::Delta, start, hooked: false }.announce(ended)
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

/// Runs of a policy that nobody can tell of: they did not take place, or were cut off.
pub struct Undone<'a> {
    /// The policy.
    pub policy: &'a BackupPolicy,
    /// What they would have done.
    pub kind: Task,
    /// What became of them.
    pub event: Event,
    /// When they were due, and why they were not done, in words.
    pub lines: Vec<String>,
    /// When the last one was due.
    pub due: TimeMs,
}

/// What is to be told of runs that were not done, where somebody wants to know.
pub fn undone(undone: Undone<'_>, env: &Env, state: &Path, say: &dyn Fn(&str)) -> Option<Announcement> {
    let Undone { policy, kind, event, lines, due } = undone;
    let end = env.now();
    if event == Event::Failure && !policy.alerts().is_empty() {
        // The next good one is a recovery.
        let kept = Memory::of(state, policy.name().as_str(), kind).keep(false, end);
        kept.err().iter().for_each(|e| say(&e.to_string()));
    }
    if !policy.alerts().iter().any(|alert| alert.events.contains(&event)) {
        return None;
    }
    let summed = lines.len();
    let mut shown = Lines::default();
    shown.extend(lines);
    let what = if event == Event::Failure { "given up: each attempt was cut off" } else { "missed" };
    let message = Message {
        policy: policy.name().to_string(),
        kind: kind.name(),
        host: files::hostname(),
        start: due,
        end,
        exit: Exit::Failed,
        events: vec![event],
        summary: format!("{} ({}): {summed} runs were {what}", policy.name(), kind.name()),
        lines: shown,
        sources: Vec::new(),
        sources_total: 0,
        findings: Vec::new(),
        findings_total: 0,
    };
    Some(Announcement { alerts: policy.alerts().to_vec(), message })
}

/// A backup that a hook kept from being made; none for a check or a prune, which have no sources. What earlier attempts did stands.
fn aborted(policy: &BackupPolicy, kind: Task, e: &Error, earlier: &[SourceEnd]) -> Option<Report> {
    let stands = |name: &str| earlier.iter().find(|end| end.source == name && end.fate != Fate::Failed).cloned();
    let sources = policy.sources().iter();
    let sources = sources.map(|source| stands(&source.name).unwrap_or_else(|| SourceEnd::failed(source, e))).collect();
    kind.is_backup().then(|| Report { sources, ..Report::new(policy, kind) })
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
    /// What is to be told. An interrupted run tells nobody: it was a person who stopped it, or a machine that goes down.
    fn announce(&self, ended: &Result<Report>) -> Option<Announcement> {
        let (policy, exit) = (self.policy, exit_of(ended));
        if policy.alerts().is_empty() || exit == Exit::Interrupted {
            return None;
        }
        let memory = Memory::of(self.around.state, policy.name().as_str(), self.kind);
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
        // Before it is told: the next run may end before somebody who is slow has taken this.
        if let Err(e) = memory.keep(good, end) {
            (self.around.say)(&e.to_string());
        }
        let wanted = policy.alerts().iter().any(|alert| alert.events.iter().any(|event| events.contains(event)));
        let alerts = policy.alerts().to_vec();
        wanted.then(|| Announcement { alerts, message: self.message(ended, exit, events, end) })
    }

    fn events(&self, ended: &Result<Report>, exit: Exit) -> Vec<Event> {
        let report = ended.as_ref().ok();
        let has = |what: fn(&SourceEnd) -> bool| report.is_some_and(|report| report.sources.iter().any(what));
        let damaged = exit == Exit::Damage || has(|source| source.exit == Exit::Damage);
        let checked = report.and_then(|report| report.verified.as_ref()).map(VerifyReport::exit);
        let pruned = report.and_then(|report| report.pruned.as_ref()).map(prune::Report::exit);
        let checked = checked.or(pruned);
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
        let mut lines = Lines::default();
        for source in sources {
            lines.extend(source.why.iter().map(|why| format!("source {}: {why}", source.source)));
        }
        lines.extend(report.iter().flat_map(|report| &report.hooks).filter_map(|hook| hook.failure()));
        lines.extend(report.and_then(|report| report.pruned.as_ref()).into_iter().flat_map(prune::Report::troubles));
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
            findings: findings.iter().take(LINES_MAX).map(|finding| line(&finding.to_string())).collect(),
            findings_total: findings.len(),
        }
    }
}

fn source_json(source: &SourceEnd) -> Value {
    let mut why: Vec<String> = source.why.iter().take(WHY_MAX).map(|why| line(why)).collect();
    let more = source.why.len().saturating_sub(WHY_MAX);
    if more > 0 {
        why.push(format!("and {more} more"));
    }
    json!({
        "source": source.source, "fate": source.fate.name(), "exit": source.exit as u8,
        "snapshot": source.snapshot.map(|sid| sid.hex()), "why": why,
    })
}
