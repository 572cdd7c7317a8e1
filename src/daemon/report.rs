//! What became of a run and of each of its sources.

use super::alert::Told;
use super::hook::HookEnd;
use super::wrong::wrong_with;
use crate::base::SessionId;
use crate::catalog::Coverage;
use crate::error::{Error, Exit};
use crate::ops::backup::BackupReport;
use crate::ops::prune;
use crate::ops::verify::VerifyReport;
use crate::policy::{BackupPolicy, Source, Task};

/// What became of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// There is a snapshot of all of it, with as many copies as asked for, everywhere.
    Protected,
    /// There is one, but something is wrong with it: a file could not be read, a region is behind.
    Degraded,
    /// There is none.
    Failed,
    /// It was left to another run that is at work on it.
    Excluded,
}

impl Fate {
    /// All of them.
    pub const ALL: [Fate; 4] = [Fate::Protected, Fate::Degraded, Fate::Failed, Fate::Excluded];

    /// After this exit code, with a new snapshot or without.
    pub(super) fn of(exit: Exit, stored: bool) -> Fate {
        match exit {
            Exit::Done => Fate::Protected,
            Exit::Failed => Fate::Failed,
            _ if stored => Fate::Degraded,
            _ => Fate::Failed,
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Fate::Protected => "protected",
            Fate::Degraded => "degraded",
            Fate::Failed => "failed",
            Fate::Excluded => "excluded",
        }
    }
}

/// How the run ended for one source.
#[derive(Debug, Clone)]
pub struct SourceEnd {
    /// Its name.
    pub source: String,
    /// What became of it.
    pub fate: Fate,
    /// The exit code for it alone.
    pub exit: Exit,
    /// The new snapshot.
    pub snapshot: Option<SessionId>,
    /// What is wrong, for people.
    pub why: Vec<String>,
    /// Snapshots of it that the policy's retention no longer keeps, and that were forgotten.
    pub forgotten: usize,
    /// Whether a brake kept retention from forgetting.
    pub braked: bool,
    /// The hooks around it that ran.
    pub hooks: Vec<HookEnd>,
}

impl SourceEnd {
    fn bare(source: &Source, fate: Fate, exit: Exit) -> SourceEnd {
        SourceEnd {
            source: source.name.clone(),
            fate,
            exit,
            snapshot: None,
            why: Vec::new(),
            forgotten: 0,
            braked: false,
            hooks: Vec::new(),
        }
    }

    /// A source without a snapshot.
    pub fn failed(source: &Source, e: &Error) -> SourceEnd {
        SourceEnd { why: vec![e.to_string()], ..SourceEnd::bare(source, Fate::Failed, e.exit()) }
    }

    /// A source with a snapshot, or one that reached too few regions.
    pub(super) fn of(source: &Source, report: &BackupReport) -> SourceEnd {
        let (exit, why) = (report.exit(), wrong_with(report));
        SourceEnd { snapshot: report.snapshot, why, ..SourceEnd::bare(source, Fate::of(exit, true), exit) }
    }

    /// A source in which nothing changed since its last snapshot, a moment ago.
    pub(super) fn unchanged(source: &Source) -> SourceEnd {
        SourceEnd::bare(source, Fate::Protected, Exit::Done)
    }

    /// What was protected is degraded where a hook failed.
    pub(super) fn hooked(mut self, hooks: Vec<HookEnd>) -> SourceEnd {
        let failed = hooks.iter().filter_map(HookEnd::failure);
        if self.fate != Fate::Failed {
            for why in failed {
                self.why.push(why);
                (self.fate, self.exit) = (Fate::Degraded, self.exit.worse(Exit::Partial));
            }
        }
        SourceEnd { hooks, ..self }
    }
}

impl SourceEnd {
    /// Something is wrong with what there is.
    pub(super) fn worse(&mut self, exit: Exit, why: String) {
        self.why.push(why);
        self.exit = self.exit.worse(exit);
        self.fate = Fate::Degraded;
    }
}

/// How a run ended.
#[derive(Debug)]
pub struct Report {
    /// The policy.
    pub policy: String,
    /// What was done.
    pub kind: Task,
    /// Attempts made.
    pub attempts: u32,
    /// Whether it was interrupted while it waited for another attempt.
    pub interrupted: bool,
    /// Every source of the policy, once; none for a check or a prune.
    pub sources: Vec<SourceEnd>,
    /// What a check found.
    pub verified: Option<VerifyReport>,
    /// What a prune did.
    pub pruned: Option<prune::Report>,
    /// After a check that reads: how much of each region has been verified within the policy's period.
    pub coverage: Vec<Coverage>,
    /// The hooks around the whole run that ran.
    pub hooks: Vec<HookEnd>,
    /// Who was told, or could not be.
    pub alerts: Vec<Told>,
}

impl Report {
    /// Nothing was done yet.
    pub fn new(policy: &BackupPolicy, kind: Task) -> Report {
        Report {
            policy: policy.name().to_string(),
            kind,
            attempts: 0,
            interrupted: false,
            sources: Vec::new(),
            verified: None,
            pruned: None,
            coverage: Vec::new(),
            hooks: Vec::new(),
            alerts: Vec::new(),
        }
    }

    /// Every hook that ran, around the run and around its sources.
    pub fn hooks(&self) -> impl Iterator<Item = &HookEnd> {
        self.hooks.iter().chain(self.sources.iter().flat_map(|source| &source.hooks))
    }

    /// How many sources ended so.
    pub fn count(&self, fate: Fate) -> usize {
        self.sources.iter().filter(|s| s.fate == fate).count()
    }

    /// The exit code.
    pub fn exit(&self) -> Exit {
        if self.interrupted || self.sources.iter().any(|s| s.exit == Exit::Interrupted) {
            return Exit::Interrupted;
        }
        let hooks = if self.hooks().any(|hook| hook.why.is_some()) { Exit::Partial } else { Exit::Done };
        let verified = self.verified.as_ref().map_or(Exit::Done, VerifyReport::exit);
        let pruned = self.pruned.as_ref().map_or(Exit::Done, prune::Report::exit);
        self.sources.iter().fold(verified.worse(pruned).worse(hooks), |exit, s| exit.worse(s.exit))
    }

    /// One line with every source counted, and whose run it was.
    pub fn summary(&self) -> String {
        format!("{} ({}): {}", self.policy, self.kind.name(), self.outcome())
    }

    /// One line with every source counted.
    pub fn outcome(&self) -> String {
        let exit = self.exit();
        let end = format!("{} (exit code {})", exit.name(), exit as u8);
        let attempts = if self.attempts > 1 { format!(", {} attempts", self.attempts) } else { String::new() };
        let what = match (&self.verified, &self.pruned) {
            (Some(report), _) => format!("{} snapshots checked, {} findings", report.snapshots, report.findings.len()),
            (None, Some(report)) => report.summary(),
            (None, None) => {
                let counts = Fate::ALL.map(|fate| format!("{} {}", self.count(fate), fate.name()));
                format!("{} sources: {}", self.sources.len(), counts.join(", "))
            }
        };
        format!("{what}{attempts}: {end}")
    }
}
