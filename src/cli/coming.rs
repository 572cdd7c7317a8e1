//! Runs to come, for people and in JSON.

use crate::base::TimeMs;
use crate::policy::{BackupPolicy, Coming, Start, Task, local_time};
use serde_json::{Value, json};

pub const DAY_MS: i64 = 86_400_000;
/// Days shown when nothing is said.
pub const DAYS: u32 = 7;
/// Most runs of a policy that are shown.
pub const RUNS_MAX: usize = 10_000;

/// When, what, and why then.
pub fn run_text(policy: &BackupPolicy, run: &Coming) -> String {
    let zone = policy.zone();
    let mut text = format!("{}  {:<11}", local_time(zone, run.at()), run.task.name());
    let mut notes = Vec::new();
    match run.start {
        Start::At(at) if at > run.due => {
            let blackout = policy.calendar().blackout_end(run.due).is_some();
            let why = if blackout { "waits for the end of a blackout" } else { "moved by jitter" };
            notes.push(format!("due {}, {why}", local_time(zone, run.due)));
        }
        Start::At(_) => {}
        Start::Missed(end) => {
            notes.push(format!("MISSED: a blackout lasts until {}, too long to wait", local_time(zone, end)));
        }
    }
    if let Some((first, _)) = run.instead_of.first() {
        let also = run.instead_of.len();
        let what = if also == 1 { format!("the {}", first.name()) } else { format!("{also} others") };
        notes.push(format!("instead of {what}"));
    }
    if !notes.is_empty() {
        text.push_str(&format!("  ({})", notes.join("; ")));
    }
    text
}

pub fn due_json(task: Task, due: TimeMs) -> Value {
    json!({"task": task.name(), "due": due.rfc3339()})
}
