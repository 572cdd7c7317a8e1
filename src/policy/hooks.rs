//! Commands around a run and around a source.

use super::duration;
use super::name::{one_line, quoted};
use super::sheet::Sheet;
use super::types::{HookFailure, HookSpec, HooksSpec};

/// How long a hook may take where nothing is said, milliseconds.
const TIMEOUT_MS: i64 = 5 * 60_000;

/// Commands around something.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hooks {
    /// Before.
    pub before: Vec<Hook>,
    /// When it failed.
    pub on_failure: Vec<Hook>,
    /// After it, whatever came of it.
    pub after: Vec<Hook>,
}

/// A command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// The program and its arguments; at least the program.
    pub command: Vec<String>,
    /// How long it may take, milliseconds.
    pub timeout_ms: i64,
    /// Whether its failure keeps what comes after from being done.
    pub failure: HookFailure,
}

impl Hooks {
    fn lists(&self) -> [(&'static str, &[Hook]); 3] {
        [("before", &self.before), ("onFailure", &self.on_failure), ("after", &self.after)]
    }

    /// The document that says the same with nothing left out; none where there are no hooks.
    pub(super) fn effective(&self) -> Option<HooksSpec> {
        let one = |hook: &Hook, failure| HookSpec {
            command: hook.command.clone(),
            timeout: Some(duration::text(hook.timeout_ms)),
            failure,
        };
        let late = |hooks: &[Hook]| hooks.iter().map(|hook| one(hook, None)).collect();
        (*self != Hooks::default()).then(|| HooksSpec {
            before: self.before.iter().map(|hook| one(hook, Some(hook.failure))).collect(),
            on_failure: late(&self.on_failure),
            after: late(&self.after),
        })
    }

    /// In words; `of` says what they stand around.
    pub(super) fn sentences(&self, of: &str) -> Vec<String> {
        let mut said = Vec::new();
        for (when, hooks) in self.lists() {
            for hook in hooks {
                let when = match when {
                    "before" => format!("before {of}"),
                    "onFailure" => format!("when {of} failed"),
                    _ => format!("after {of}, whatever came of it,"),
                };
                let lasts = duration::text(hook.timeout_ms);
                let warn = if hook.failure == HookFailure::Warn { "; its failure stops nothing" } else { "" };
                said.push(format!("{when} runs {}, for at most {lasts}{warn}", one_line(&hook.command.join(" "))));
            }
        }
        said
    }
}

/// Judges what stands at `at`.
pub(super) fn judge(sheet: &mut Sheet<'_>, at: &str, spec: Option<&HooksSpec>) -> Hooks {
    let Some(spec) = spec else { return Hooks::default() };
    if [&spec.before, &spec.on_failure, &spec.after].iter().all(|list| list.is_empty()) {
        sheet.refuse(at, "there is no hook", "add `before:`, `after:` or `onFailure:`, or leave it out");
    }
    let mut list = |when: &str, specs: &[HookSpec]| -> Vec<Hook> {
        let one = |(n, spec)| judge_one(sheet, &format!("{at}.{when}[{n}]"), spec, when == "before");
        specs.iter().enumerate().map(one).collect()
    };
    Hooks {
        before: list("before", &spec.before),
        on_failure: list("onFailure", &spec.on_failure),
        after: list("after", &spec.after),
    }
}

fn judge_one(sheet: &mut Sheet<'_>, at: &str, spec: &HookSpec, before: bool) -> Hook {
    judge_command(sheet, &format!("{at}.command"), &spec.command);
    if spec.failure.is_some() && !before {
        let advice = "leave it out: what ran before stands, and counts as degraded if this fails";
        sheet.refuse(&format!("{at}.failure"), "only a hook that runs before can stop anything", advice);
    }
    let timeout =
        spec.timeout.as_deref().and_then(|text| sheet.take(&format!("{at}.timeout"), duration::length_ms(text)));
    Hook {
        command: spec.command.clone(),
        timeout_ms: timeout.unwrap_or(TIMEOUT_MS),
        failure: spec.failure.unwrap_or_default(),
    }
}

/// Notes what cannot be started.
pub(super) fn judge_command(sheet: &mut Sheet<'_>, at: &str, command: &[String]) {
    match command.first().map(String::as_str) {
        None | Some("") => sheet.refuse(at, "there is no program to run", "write it first: `[/usr/bin/sync]`"),
        Some(program) if command.len() == 1 && program.contains(char::is_whitespace) => {
            let what = format!("{} is one word to the kernel: no shell takes it apart", quoted(program));
            sheet.refuse(at, what, "write each argument by itself, or `[sh, -c, \"…\"]`");
        }
        Some(_) if command.iter().any(|word| word.contains('\0')) => {
            sheet.refuse(at, "a word has a zero byte in it", "remove it");
        }
        Some(_) => {}
    }
}
