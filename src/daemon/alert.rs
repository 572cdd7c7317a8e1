//! Who is told how a run ended. Best effort, within a bound: what could not be told is said, and fails no run.

use super::child::{self, Call};
use super::webhook::{self, Unsent};
use crate::base::{Cancel, TimeMs};
use crate::error::{Error, Exit, Kind, Result};
use crate::policy::{Alert, Event, Receiver};
use crossbeam_channel::{RecvTimeoutError, Sender, unbounded};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Attempts for each alert.
const ATTEMPTS_MAX: u32 = 4;
/// Wait before the second attempt; each later one is twice as long.
const BACKOFF: Duration = Duration::from_secs(1);
/// How long those who tell may take to notice an interruption.
const STOP_TIME: Duration = Duration::from_secs(2);
/// Lists in a message have at most so many lines.
pub const LINES_MAX: usize = 50;

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
    pub lines: Vec<String>,
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

impl Message {
    /// For people.
    fn text(&self) -> String {
        let mut lines = vec![format!("holdfast on {}: {}", self.host, self.summary)];
        lines.extend(self.lines.iter().take(LINES_MAX).cloned());
        let more = self.lines.len().saturating_sub(LINES_MAX);
        if more > 0 {
            lines.push(format!("and {more} more"));
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
    let mut told: Vec<Told> = Vec::new();
    for alert in alerts {
        let events: Vec<Event> = message.events.iter().copied().filter(|event| alert.events.contains(event)).collect();
        if events.is_empty() {
            continue;
        }
        let why = Some("interrupted".into());
        told.push(Told { name: alert.name.to_string(), events: events.clone(), attempts: 0, why });
        let errand = Errand::new(alert, message, &events, cancel);
        let (number, sender) = (told.len() - 1, sender.clone());
        // Not waited for after an interruption: a request that is under way cannot be taken back.
        std::thread::spawn(move || errand.run(number, &sender));
    }
    drop(sender);
    let mut interrupted: Option<Instant> = None;
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

    fn run(&self, number: usize, sender: &Sender<(usize, u32, Option<String>)>) {
        let mut wait = BACKOFF;
        for attempt in 1..=ATTEMPTS_MAX {
            let why = match self.once() {
                Ok(()) => None,
                Err(unsent) if unsent.again && attempt < ATTEMPTS_MAX && !self.cancel.raised() => {
                    self.pause(wait);
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

    fn pause(&self, wait: Duration) {
        let began = Instant::now();
        while began.elapsed() < wait && !self.cancel.raised() {
            // Nothing else ends the wait, so the answer says only that the time has passed.
            let _ = crossbeam_channel::after(Duration::from_millis(50)).recv();
        }
    }
}

/// How the runs of policies ended, for the next ones: a small file a policy in the state folder.
pub struct Memory {
    path: PathBuf,
    subject: &'static str,
}

impl Memory {
    /// Of a policy's backups, or of its checks.
    pub fn of(state: &Path, policy: &str, check: bool) -> Memory {
        let subject = if check { "verify" } else { "backup" };
        Memory { path: state.join("ends").join(format!("{policy}.json")), subject }
    }

    fn read(&self) -> Map<String, Value> {
        let text = std::fs::read_to_string(&self.path).unwrap_or_default();
        // What cannot be read is not known.
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// Whether the run before was one of the good ones, if that is known.
    pub fn was_good(&self) -> Option<bool> {
        self.read().get(self.subject)?["good"].as_bool()
    }

    /// Keeps how this one was.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn keep(&self, good: bool, end: TimeMs) -> Result<()> {
        let mut all = self.read();
        all.insert(self.subject.into(), json!({"good": good, "end": end.rfc3339()}));
        let text = Value::Object(all).to_string();
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
