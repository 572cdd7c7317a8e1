//! A run as a policy wants it, from its first hook to its last alert.

use super::alert::{self, LINES_MAX, Memory, Message};
use super::hook::{Around, Outcome};
use super::job::{Retry, RunKind};
use super::run::{self, Fate, Report, SourceEnd, Surroundings};
use crate::base::TimeMs;
use crate::error::{Error, Exit, Result};
use crate::ops::verify::VerifyReport;
use crate::policy::{BackupPolicy, Event, Repository};
use crate::source::files;
use serde_json::{Value, json};

/// Runs a policy now, with its hooks, and tells who wants to know. With `again` a failed run is tried again later by whoever
/// started it: its failure is told by the last attempt.
///
/// # Errors
/// Nothing could be tried, see [`run::run`]; a hook before a check failed.
pub fn run(
    around: &Surroundings<'_>,
    policy: &BackupPolicy,
    repository: &Repository,
    kind: RunKind,
    retry: Retry,
    again: bool,
) -> Result<Report> {
    let start = around.env.now();
    let names = (policy.name().as_str(), kind.name(), None);
    let mut hooks = Around::new(policy.hooks(), names, around.say, around.cancel);
    let mut ended = match hooks.before() {
        Ok(()) => run::run(around, policy, repository, kind, retry),
        Err(e) => aborted(policy, kind, &e).ok_or(e),
    };
    let exit = exit_of(&ended);
    let variables = vec![("HOLDFAST_EXIT", (exit as u8).to_string())];
    hooks.later(&Outcome { failed: failed(&ended), variables });
    let hooked = hooks.ended.iter().any(|hook| hook.why.is_some());
    if let Ok(report) = &mut ended {
        report.hooks = hooks.ended;
    }
    let end = Ending { around, policy, kind, start, hooked };
    let told = end.tell(&ended, again);
    for one in &told {
        if let Some(why) = &one.why {
            (around.say)(&format!("alert {} was not sent ({} attempts): {why}", one.name, one.attempts));
        }
    }
    if let Ok(report) = &mut ended {
        report.alerts = told;
    }
    ended
}

/// A backup that a hook kept from being made; none for a check, which has no sources.
fn aborted(policy: &BackupPolicy, kind: RunKind, e: &Error) -> Option<Report> {
    let sources = policy.sources().iter().map(|source| SourceEnd::failed(source, e)).collect();
    (kind != RunKind::Verify).then(|| Report { sources, ..Report::new(policy, kind) })
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
    kind: RunKind,
    start: TimeMs,
    /// Whether a hook around the run failed.
    hooked: bool,
}

impl Ending<'_> {
    /// Tells who wants to know. An interrupted run tells nobody: it was a person who stopped it, or a machine that goes down.
    fn tell(&self, ended: &Result<Report>, again: bool) -> Vec<alert::Told> {
        let (policy, exit) = (self.policy, exit_of(ended));
        if policy.alerts().is_empty() || exit == Exit::Interrupted || (again && failed(ended)) {
            return Vec::new();
        }
        let memory = Memory::of(self.around.state, policy.name().as_str(), self.kind == RunKind::Verify);
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
