//! What the daemon tells while it works: lines for people on standard error, or one JSON object a line on standard output.

use crate::base::{Env, TimeMs};
use crate::cli::output::{line, plain, remark};
use crate::daemon::crew::Done;
use crate::daemon::{JobId, Note};
use crate::error::Kind;
use crate::policy::Task;
use serde_json::{Value, json};

/// Where it is told.
#[derive(Clone)]
pub struct Told {
    pub json: bool,
    pub env: Env,
}

impl Told {
    /// Something that has to do with a run, or with none.
    pub fn remark(&self, job: Option<&JobId>, text: &str) {
        let text = job.map_or_else(|| text.to_owned(), |job| format!("{job}: {text}"));
        self.tell("remark", job, None, &text, Value::Null);
    }

    /// Decisions. After a long absence many due times of a job are done by one run, or all are missed: that is one line.
    pub fn notes(&self, notes: &[Note]) {
        let many = |note: &Note| match note {
            Note::Coalesced { job, .. } => Some((job.clone(), None)),
            Note::Missed { job, why, .. } => Some((job.clone(), Some(*why))),
            _ => None,
        };
        for same in notes.chunk_by(|a, b| many(a).is_some() && many(a) == many(b)) {
            let (Some(first), Some(last)) = (same.first(), same.last()) else { continue };
            let (job, due) = last.about();
            let text = match first.about().1.filter(|_| same.len() > 1) {
                Some(from) => format!("{last}, and {} before it from {} on", same.len() - 1, from.rfc3339()),
                None => last.to_string(),
            };
            self.tell("note", job, due, &text, Value::Null);
        }
    }

    /// The end of a run. One between backups has said what there is to say; but not of a mistake that ended it.
    pub fn done(&self, done: &Done) {
        let job = &done.start.job;
        if job.kind == Task::Delta && !done.result.as_ref().is_err_and(|e| e.kind() == Kind::Bug) {
            return;
        }
        let text = match &done.result {
            Ok(report) => report.summary(),
            Err(e) => format!("{job}: {} (exit code {}): {e}", e.exit().name(), e.exit() as u8),
        };
        self.tell("ended", Some(job), Some(done.start.due), &text, json!(done.exit() as u8));
    }

    fn tell(&self, event: &str, job: Option<&JobId>, due: Option<TimeMs>, text: &str, code: Value) {
        if !self.json {
            return remark(&plain(text));
        }
        let value = json!({
            "event": event, "time": self.env.now().rfc3339(), "policy": job.map(|job| &job.policy),
            "kind": job.map(|job| job.kind.name()), "due": due.map(TimeMs::rfc3339), "exit_code": code,
            "text": plain(text),
        });
        line(&mut std::io::stdout().lock(), &value.to_string());
    }
}
