//! Who is told how a run ended. Best effort, within a bound: what could not be told is said, and fails no run.

use super::child::{self, Call};
use super::webhook::{self, Unsent};
use crate::base::{Cancel, TimeMs};
use crate::error::{Error, Exit, Kind, Result};
use crate::policy::{Alert, Event, Receiver, Task};
use crossbeam_channel::{RecvTimeoutError, Sender, unbounded};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Attempts for each alert.
const ATTEMPTS_MAX: u32 = 4;
/// Wait before the second attempt; each later one is twice as long.
const BACKOFF: Duration = Duration::from_secs(1);
/// How long those who tell may take to notice an interruption, and beyond their timeouts to end.
const STOP_TIME: Duration = Duration::from_secs(2);
/// The same for what an attempt takes beyond its timeout: a program is asked to end before it is made to.
const ATTEMPT_TIME: Duration = Duration::from_secs(10);
/// Lists in a message have at most so many lines.
pub const LINES_MAX: usize = 50;
/// Of what is wrong with a source so many lines are in a message.
pub const WHY_MAX: usize = 10;
/// Lines of a message have at most so many bytes. With the lines there are, that makes a message that a variable of a
/// program can hold (128 KiB) and that no receiver finds too large.
const LINE_BYTES_MAX: usize = 1000;

/// What there is to tell.
#[derive(Debug, Clone)]
pub struct Message {
    /// Name of the policy.
    pub policy: String,
    /// What was run.
    pub kind: &'static str,
    /// Where.
    pub host: String,
    /// When it began.
    pub start: TimeMs,
    /// When it ended.
    pub end: TimeMs,
    /// How.
    pub exit: Exit,
    /// What happened; the same as the alert's `events`.
    pub events: Vec<Event>,
    /// For people: what happened, in a line.
    pub summary: String,
    /// For people: what is wrong, line by line.
    pub lines: Lines,
    /// Sources, as JSON.
    pub sources: Vec<Value>,
    /// How many sources there are.
    pub sources_total: usize,
    /// Damaged or missing objects.
    pub findings: Vec<String>,
    /// How many there are.
    pub findings_total: usize,
}

/// What became of an alert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Its name.
    pub name: String,
    /// Of what it tells.
    pub events: Vec<Event>,
    /// Attempts made.
    pub attempts: u32,
    /// Why it was not sent; `None`: it was.
    pub why: Option<String>,
}

impl Told {
    /// That it was not sent, in words; `None`: it was.
    pub fn failure(&self) -> Option<String> {
        self.why.as_ref().map(|why| format!("alert {} was not sent ({} attempts): {why}", self.name, self.attempts))
    }
}

/// Lines of a message: the first, and how many more there are. Messages may have to wait, many of them.
#[derive(Debug, Clone, Default)]
pub struct Lines {
    first: Vec<String>,
    more: usize,
}

impl Extend<String> for Lines {
    fn extend<T: IntoIterator<Item = String>>(&mut self, all: T) {
        for text in all {
            if self.first.len() < LINES_MAX {
                self.first.push(line(&text));
            } else {
                self.more += 1;
            }
        }
    }
}

/// A line of a message: it has an end, and what a file's name does to a terminal or to lines is shown, not done.
pub fn line(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if out.len() >= LINE_BYTES_MAX {
            out.push('…');
            break;
        }
        if c.is_control() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

impl Message {
    /// For people.
    fn text(&self) -> String {
        let mut lines = vec![line(&format!("holdfast on {}: {}", self.host, self.summary))];
        lines.extend(self.lines.first.iter().cloned());
        if self.lines.more > 0 {
            lines.push(format!("and {} more", self.lines.more));
        }
        lines.join("\n")
    }

    /// As it is sent (`docs/json.md`).
    fn json(&self, alert: &Alert, events: &[Event]) -> Value {
        let names: Vec<&str> = events.iter().map(|event| event.name()).collect();
        json!({
            "version": 1, "alert": alert.name.as_str(), "events": names, "policy": self.policy, "kind": self.kind,
            "host": self.host, "start": self.start.rfc3339(), "end": self.end.rfc3339(),
            "exit": {"code": self.exit as u8, "name": self.exit.name()}, "text": self.text(),
            "sources": self.sources, "sources_total": self.sources_total,
            "findings": self.findings, "findings_total": self.findings_total,
        })
    }
}

/// Tells everybody who wants to know of one of the events; each is told once. Ends soon after an interruption.
pub fn tell(alerts: &[Alert], message: &Message, cancel: &Cancel) -> Vec<Told> {
    let (sender, receiver) = unbounded();
    let mut longest = Duration::ZERO;
    let mut told: Vec<Told> = Vec::new();
    for alert in alerts {
        let events: Vec<Event> = message.events.iter().copied().filter(|event| alert.events.contains(event)).collect();
        if events.is_empty() {
            continue;
        }
        let errand = Errand::new(alert, message, &events, cancel);
        longest = longest.max(errand.time_max());
        let (number, sender) = (told.len(), sender.clone());
        // Not waited for after an interruption: a request that is under way cannot be taken back.
        let begun = std::thread::Builder::new().spawn(move || errand.run(number, &sender));
        let why = begun.err().map_or("interrupted".into(), |e| format!("no thread can be started: {e}"));
        told.push(Told { name: alert.name.to_string(), events, attempts: 0, why: Some(why) });
    }
    drop(sender);
    let (begin, mut interrupted): (Instant, Option<Instant>) = (Instant::now(), None);
    loop {
        match receiver.recv_timeout(Duration::from_millis(100)) {
            Ok((number, attempts, why)) => {
                if let Some(one) = told.get_mut::<usize>(number) {
                    (one.attempts, one.why) = (attempts, why);
                }
            }
            Err(RecvTimeoutError::Disconnected) => return told,
            Err(RecvTimeoutError::Timeout) => {}
        }
        if cancel.raised() && interrupted.get_or_insert_with(Instant::now).elapsed() > STOP_TIME {
            return told;
        }
        if begin.elapsed() > longest {
            // Whatever holds one up must not hold up the run.
            let late = told.iter_mut().filter(|one| one.attempts == 0 && one.why.as_deref() == Some("interrupted"));
            late.for_each(|one| one.why = Some("it took too long".into()));
            return told;
        }
    }
}

/// Telling one alert.
struct Errand {
    to: Receiver,
    body: Vec<u8>,
    variables: Vec<(&'static str, String)>,
    timeout: Duration,
    cancel: Cancel,
}

impl Errand {
    fn new(alert: &Alert, message: &Message, events: &[Event], cancel: &Cancel) -> Errand {
        let names: Vec<&str> = events.iter().map(|event| event.name()).collect();
        Errand {
            to: alert.to.clone(),
            body: message.json(alert, events).to_string().into_bytes(),
            variables: vec![
                ("HOLDFAST_ALERT", alert.name.to_string()),
                ("HOLDFAST_EVENTS", names.join(",")),
                ("HOLDFAST_POLICY", message.policy.clone()),
                ("HOLDFAST_KIND", message.kind.into()),
                ("HOLDFAST_EXIT", (message.exit as u8).to_string()),
                ("HOLDFAST_TEXT", message.text()),
            ],
            timeout: Duration::from_millis(alert.timeout_ms.unsigned_abs()),
            cancel: cancel.clone(),
        }
    }

    /// How long it may take, with all attempts.
    fn time_max(&self) -> Duration {
        let waits = BACKOFF.saturating_mul(1 << ATTEMPTS_MAX);
        self.timeout.saturating_add(ATTEMPT_TIME).saturating_mul(ATTEMPTS_MAX).saturating_add(waits)
    }

    fn run(&self, number: usize, sender: &Sender<(usize, u32, Option<String>)>) {
        let mut wait = BACKOFF;
        for attempt in 1..=ATTEMPTS_MAX {
            let why = match self.once() {
                Ok(()) => None,
                Err(unsent) if unsent.again && attempt < ATTEMPTS_MAX && !self.cancel.raised() => {
                    // Interrupted, the next attempt is the last.
                    let _ = self.cancel.wait(wait);
                    wait *= 2;
                    continue;
                }
                Err(unsent) => Some(unsent.why),
            };
            // Nobody listens any more after an interruption.
            let _ = sender.send((number, attempt, why));
            return;
        }
    }

    fn once(&self) -> std::result::Result<(), Unsent> {
        let command = match &self.to {
            Receiver::Webhook(webhook) => return webhook::post(webhook, &self.body, self.timeout),
            Receiver::Command(command) => command,
        };
        let (variables, input, timeout) = (&self.variables, &self.body, self.timeout);
        let ended = child::run(&Call { command, variables, input, timeout, grace: Duration::ZERO }, &self.cancel);
        let Some(why) = ended.why else { return Ok(()) };
        let said = if ended.output.is_empty() { String::new() } else { format!("; it said: {}", ended.output) };
        Err(Unsent { why: format!("{}: {why}{said}", command.first().map_or("", String::as_str)), again: true })
    }
}

/// How the runs of policies ended, for the next ones: small files in the state folder, one for each policy's backups,
/// one for its checks, one for its prunes and one for its deltas, which may end at the same time.
pub struct Memory {
    path: PathBuf,
}

impl Memory {
    /// Of a policy's backups, or of its checks, or of its prunes, or of what is taken between backups.
    pub fn of(state: &Path, policy: &str, kind: Task) -> Memory {
        let subject = if matches!(kind, Task::Incremental | Task::Full) { "backup" } else { kind.name() };
        Memory { path: state.join("ends").join(format!("{policy}.{subject}.json")) }
    }

    fn read(&self) -> Map<String, Value> {
        let text = std::fs::read_to_string(&self.path).unwrap_or_default();
        // What cannot be read is not known.
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// Whether the run before was one of the good ones, if that is known.
    pub fn was_good(&self) -> Option<bool> {
        self.read().get("good")?.as_bool()
    }

    /// Keeps how this one was.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn keep(&self, good: bool, end: TimeMs) -> Result<()> {
        let text = json!({"good": good, "end": end.rfc3339()}).to_string();
        let new = self.path.with_extension("new");
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        let written = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&new, text));
        let written = written.and_then(|()| std::fs::rename(&new, &self.path));
        written.map_err(|e| {
            let what = format!("how the run ended cannot be kept: {e}");
            Error::new(Kind::Retry, what).at(self.path.display())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backups_and_checks_that_end_together_are_both_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let of = |check| Memory::of(dir.path(), "home", if check { Task::Verify } else { Task::Full });
        assert_eq!((of(false).was_good(), of(true).was_good()), (None, None));
        std::thread::scope(|scope| {
            for check in [false, true] {
                let of = &of;
                scope.spawn(move || (0..200).for_each(|n| of(check).keep(n % 2 == 0 || check, TimeMs(n)).unwrap()));
            }
        });
        assert_eq!((of(false).was_good(), of(true).was_good()), (Some(false), Some(true)));
    }

    #[test]
    fn a_line_has_an_end_and_does_nothing() {
        assert_eq!(line("a\nb\u{1b}[2J ä"), "a\\nb\\u{1b}[2J ä");
        let long = line(&"ä".repeat(100_000));
        assert!(long.len() <= LINE_BYTES_MAX + '…'.len_utf8() + 1 && long.ends_with('…'), "{}", long.len());
    }
}
