//! Commands around a run and around each source: before, when it failed, and after in any case.

use super::child::{self, Call};
use crate::base::Cancel;
use crate::error::{Error, Kind, Result};
use crate::policy::{Hook, HookFailure, Hooks};
use std::time::Duration;

/// How long what cleans up may take once the run is interrupted.
const CLEAN_UP_TIME: Duration = Duration::from_secs(30);

/// Takes a remark.
type Say<'a> = &'a (dyn Fn(&str) + Send + Sync + 'a);

/// When a hook runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Before.
    Before,
    /// When it failed.
    OnFailure,
    /// After, in any case.
    After,
}

impl When {
    /// As in policies.
    pub fn name(self) -> &'static str {
        match self {
            When::Before => "before",
            When::OnFailure => "onFailure",
            When::After => "after",
        }
    }
}

/// How a hook ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookEnd {
    /// When it ran.
    pub when: When,
    /// Around which source; `None`: around the run.
    pub source: Option<String>,
    /// The program, without its arguments.
    pub program: String,
    /// How long it took, milliseconds.
    pub ms: u64,
    /// Why it failed; `None`: it did not.
    pub why: Option<String>,
}

impl HookEnd {
    /// Why it failed, in words; `None`: it did not.
    pub fn failure(&self) -> Option<String> {
        self.why.as_ref().map(|why| format!("hook {} ({}): {why}", self.program, self.when.name()))
    }
}

/// The hooks around something that is done now.
pub struct Around<'a> {
    hooks: &'a Hooks,
    policy: &'a str,
    kind: &'static str,
    source: Option<&'a str>,
    say: Say<'a>,
    cancel: &'a Cancel,
    /// Those that ran.
    pub ended: Vec<HookEnd>,
}

/// What came of it, for the hooks that run later.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Whether it failed.
    pub failed: bool,
    /// Variables that say more.
    pub variables: Vec<(&'static str, String)>,
}

impl<'a> Around<'a> {
    /// Around a run, or around a source of it.
    pub fn new(
        hooks: &'a Hooks,
        (policy, kind, source): (&'a str, &'static str, Option<&'a str>),
        say: Say<'a>,
        cancel: &'a Cancel,
    ) -> Around<'a> {
        Around { hooks, policy, kind, source, say, cancel, ended: Vec::new() }
    }

    /// Runs what comes before.
    ///
    /// # Errors
    /// One failed that must not, or the run was interrupted: what was to follow must not be done.
    pub fn before(&mut self) -> Result<()> {
        for hook in &self.hooks.before {
            self.cancel.check()?;
            let failure = self.one(When::Before, hook, &[], Duration::ZERO);
            self.cancel.check()?;
            if let Some(why) = failure.filter(|_| hook.failure == HookFailure::Abort) {
                return Err(Error::new(Kind::Source, why));
            }
        }
        Ok(())
    }

    /// Runs what comes later, each whatever became of the others.
    pub fn later(&mut self, outcome: &Outcome) {
        let after = self.hooks.after.iter().map(|hook| (When::After, hook));
        let failed = self.hooks.on_failure.iter().filter(|_| outcome.failed).map(|hook| (When::OnFailure, hook));
        for (when, hook) in failed.chain(after) {
            self.one(when, hook, &outcome.variables, CLEAN_UP_TIME);
        }
    }

    fn one(&mut self, when: When, hook: &Hook, more: &[(&'static str, String)], grace: Duration) -> Option<String> {
        let mut variables = vec![
            ("HOLDFAST_HOOK", when.name().to_owned()),
            ("HOLDFAST_POLICY", self.policy.to_owned()),
            ("HOLDFAST_KIND", self.kind.to_owned()),
        ];
        variables.extend(self.source.map(|source| ("HOLDFAST_SOURCE", source.to_owned())));
        variables.extend(more.iter().cloned());
        let timeout = Duration::from_millis(hook.timeout_ms.unsigned_abs());
        let call = Call { command: &hook.command, variables: &variables, input: b"", timeout, grace };
        let ended = child::run(&call, self.cancel);
        let program = hook.command.first().cloned().unwrap_or_default();
        if let Some(why) = &ended.why {
            let of = self.source.map_or_else(String::new, |source| format!("source {source}: "));
            (self.say)(&format!("{of}hook {program} ({}) failed: {why}", when.name()));
            ended.output.lines().for_each(|line| (self.say)(&format!("{of}hook {program}: {line}")));
        }
        let end = HookEnd { when, source: self.source.map(str::to_owned), program, ms: ended.ms, why: ended.why };
        let failure = end.failure();
        self.ended.push(end);
        failure
    }
}
