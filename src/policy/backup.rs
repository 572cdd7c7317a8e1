//! `kind: BackupPolicy`: what is backed up, when, where to, how long it is kept and how it is proven.

use super::alerts::{self, Alert};
use super::bucket;
use super::calendar::{Blackout, Calendar, Task};
use super::cron::Cron;
use super::duration;
use super::etcd::{self, Between, Deltas, Etcd};
use super::exclude::Excludes;
use super::hooks::{self, Hooks};
use super::limits::{self, Limits};
use super::name::{Name, guess, quoted};
use super::paths::{self, is_file_name};
use super::prune::{self, Prune};
use super::repository::Repository;
use super::retention::Retention;
use super::sheet::Sheet;
use super::trust::Trust;
use super::types::{
    BackupPolicySpec, BlackoutSpec, Concurrency, Copies, Document, Metadata, ObjectivesSpec, RetentionSpec,
    RetriesSpec, ScheduleSpec, SourceKind, SourceSpec,
};
use super::verify::{self, Verify};
use super::{API_VERSION, DocumentKind};
use super::{trust, when};
use crate::base::Bucket;
use crate::error::{Error, Kind, Result};
use chrono_tz::Tz;
use std::path::PathBuf;
use std::sync::Arc;

/// Longest name of a source and longest tag, in bytes.
const LABEL_BYTES_MAX: usize = 255;
const IGNORE_FILE: &str = ".holdfastignore";

/// A policy, judged.
#[derive(Debug, Clone)]
pub struct BackupPolicy {
    name: Name,
    place: String,
    repository: Name,
    sources: Vec<Source>,
    copies_min: u32,
    calendar: Arc<Calendar>,
    concurrency: Concurrency,
    retries: Retries,
    retention: Retention,
    verify: Option<Verify>,
    prune: Option<Prune>,
    rpo_ms: Option<i64>,
    limits: Limits,
    hooks: Hooks,
    alerts: Vec<Alert>,
    priority: i32,
}

/// Directories or files that are backed up together, or a cluster of etcd, or a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Its identity over time.
    pub name: String,
    /// Absolute paths; none of a cluster or a bucket.
    pub paths: Vec<PathBuf>,
    /// The cluster, if it is one.
    pub etcd: Option<Etcd>,
    /// What is asked of its models, if it is of these: in directories or in a bucket.
    pub model: Option<Trust>,
    /// The bucket, if it is one.
    pub bucket: Option<Bucket>,
    /// Patterns of what is left out; they compile.
    pub exclude: Vec<String>,
    /// Whether the content of tagged caches is left out.
    pub exclude_caches: bool,
    /// Name of files whose patterns apply to their directory.
    pub ignore_file: String,
    /// Whether other file systems are not entered.
    pub one_file_system: bool,
    /// Tags of its snapshots.
    pub tags: Vec<String>,
    /// Commands around each backup of it.
    pub hooks: Hooks,
}

/// How a failed run is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retries {
    /// How often.
    pub max: u32,
    /// How long to wait before the first, milliseconds; each later wait is twice as long.
    pub backoff_ms: i64,
    /// The longest wait, milliseconds.
    pub backoff_max_ms: i64,
}

impl Retries {
    /// The wait before attempt `attempt` (2 is the first that waits).
    pub fn wait_ms(&self, attempt: u32) -> i64 {
        let doublings = attempt.saturating_sub(2).min(62);
        self.backoff_ms.saturating_mul(1i64.checked_shl(doublings).unwrap_or(i64::MAX)).min(self.backoff_max_ms).max(0)
    }
}

impl Default for Retries {
    fn default() -> Self {
        Retries { max: 3, backoff_ms: 60_000, backoff_max_ms: 3_600_000 }
    }
}

impl BackupPolicy {
    /// Its name.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// `file:line:column` of the document.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// The repository's name in the same configuration.
    pub fn repository(&self) -> &Name {
        &self.repository
    }

    /// What is backed up: at least one, names unique in the repository.
    pub fn sources(&self) -> &[Source] {
        &self.sources
    }

    /// Why its retention forgets, for the record.
    pub fn retention_reason(&self) -> String {
        format!("retention of policy {}", self.name)
    }

    /// The same policy, whose snapshots have one more tag.
    pub fn tagged(&self, tag: &str) -> BackupPolicy {
        let mut policy = self.clone();
        let without = policy.sources.iter_mut().filter(|source| !source.tags.iter().any(|own| own == tag));
        without.for_each(|source| source.tags.push(tag.to_owned()));
        policy
    }

    /// How often a daemon takes what changed in its clusters between backups, milliseconds; `None`: never.
    pub fn between_ms(&self) -> Option<i64> {
        self.sources.iter().find_map(Source::between).map(|between| between.every_ms)
    }

    /// The same policy for what is taken between backups: only the sources that have it, without hooks, and a source that
    /// somebody else is at work on is left to him.
    pub fn between(&self) -> BackupPolicy {
        let mut sources = self.sources.clone();
        sources.retain(|source| source.between().is_some());
        sources.iter_mut().for_each(|source| source.hooks = Hooks::default());
        BackupPolicy { sources, hooks: Hooks::default(), concurrency: Concurrency::Forbid, ..self.clone() }
    }

    /// Regions that must hold a complete copy before a run counts as done.
    pub fn copies_min(&self) -> u32 {
        self.copies_min
    }

    /// When runs start.
    pub fn calendar(&self) -> &Arc<Calendar> {
        &self.calendar
    }

    /// The time zone of its schedules and of retention's days.
    pub fn zone(&self) -> Tz {
        self.calendar.zone
    }

    /// What happens when a run is due while an earlier one of the same kind is at work.
    pub fn concurrency(&self) -> Concurrency {
        self.concurrency
    }

    /// How a failed run is tried again.
    pub fn retries(&self) -> Retries {
        self.retries
    }

    /// Which snapshots of each source are kept.
    pub fn retention(&self) -> Retention {
        self.retention
    }

    /// How the repository is checked, if it is scheduled.
    pub fn verify(&self) -> Option<Verify> {
        self.verify
    }

    /// How space is given back, if it is scheduled.
    pub fn prune(&self) -> Option<Prune> {
        self.prune
    }

    /// How old the newest good snapshot may become, milliseconds.
    pub fn rpo_ms(&self) -> Option<i64> {
        self.rpo_ms
    }

    /// What a run may use.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Commands around a whole run.
    pub fn hooks(&self) -> &Hooks {
        &self.hooks
    }

    /// Who is told how runs end.
    pub fn alerts(&self) -> &[Alert] {
        &self.alerts
    }

    /// Which run goes first when several wait: the higher number.
    pub fn priority(&self) -> i32 {
        self.priority
    }

    /// The document that says the same with nothing left out.
    pub fn effective(&self) -> Document<BackupPolicySpec> {
        let text = |ms: i64| Some(duration::text(ms));
        let count = |n: u32| (n > 0).then_some(n);
        let (r, retries) = (&self.retention, &self.retries);
        let retention = RetentionSpec {
            last: count(r.last),
            hourly: count(r.hourly),
            daily: count(r.daily),
            weekly: count(r.weekly),
            monthly: count(r.monthly),
            yearly: count(r.yearly),
            within: (r.within_ms > 0).then(|| duration::text(r.within_ms)),
        };
        let verify = self.verify.zip(self.calendar.cron(Task::Verify));
        let prune = self.prune.zip(self.calendar.cron(Task::Prune));
        let spec = BackupPolicySpec {
            repository: Some(self.repository.to_string()),
            sources: self.sources.iter().map(Source::effective).collect(),
            copies: Some(Copies { min: self.copies_min }),
            schedule: self.effective_schedule(),
            starting_deadline: self.calendar.deadline_ms.and_then(text),
            concurrency: Some(self.concurrency),
            retries: Some(RetriesSpec {
                max: Some(retries.max),
                backoff: text(retries.backoff_ms),
                backoff_max: text(retries.backoff_max_ms),
            }),
            retention: (!r.keeps_all()).then_some(retention),
            verify: verify.map(|(v, cron)| v.effective(cron.text())),
            prune: prune.map(|(p, cron)| p.effective(cron.text())),
            objectives: self.rpo_ms.map(|ms| ObjectivesSpec { rpo: duration::text(ms) }),
            limits: Some(self.limits.effective()),
            hooks: self.hooks.effective(),
            alerts: self.alerts.iter().map(Alert::effective).collect(),
            priority: Some(self.priority),
        };
        let metadata = Metadata { name: self.name.to_string() };
        Document { api_version: API_VERSION.into(), kind: DocumentKind::BackupPolicy.name().into(), metadata, spec }
    }

    fn effective_schedule(&self) -> Option<ScheduleSpec> {
        let c = &self.calendar;
        let cron = |task: Task| c.cron(task).map(|cron| cron.text().to_owned());
        let blackout =
            |b: &Blackout| BlackoutSpec { start: b.start().text().into(), duration: duration::text(b.duration_ms()) };
        let schedule = ScheduleSpec {
            time_zone: Some(c.zone.name().into()),
            incremental: cron(Task::Incremental),
            full: cron(Task::Full),
            jitter: Some(duration::text(c.jitter_ms)),
            blackouts: c.blackouts.iter().map(blackout).collect(),
        };
        Task::ALL.iter().any(|task| c.cron(*task).is_some()).then_some(schedule)
    }
}

impl Source {
    /// How what changed is taken between backups, if it is.
    pub fn between(&self) -> Option<Between> {
        match self.etcd.as_ref()?.deltas {
            Deltas::Between(between) => Some(between),
            Deltas::Never | Deltas::Incremental => None,
        }
    }

    fn effective(&self) -> SourceSpec {
        let of_files = self.etcd.is_none() && self.bucket.is_none();
        SourceSpec {
            name: Some(self.name.clone()),
            kind: match self.model {
                Some(_) => Some(SourceKind::Model),
                None => of_files.then_some(SourceKind::Files),
            },
            paths: self.paths.iter().map(|path| path.display().to_string()).collect(),
            etcd: self.etcd.as_ref().map(Etcd::effective),
            trust: self.model.as_ref().map(Trust::effective),
            bucket: self.bucket.as_ref().map(Bucket::to_string),
            exclude: self.exclude.clone(),
            exclude_caches: of_files.then_some(self.exclude_caches),
            ignore_file: of_files.then(|| self.ignore_file.clone()),
            one_file_system: of_files.then_some(self.one_file_system),
            tags: self.tags.clone(),
            hooks: self.hooks.effective(),
        }
    }
}

fn config(what: impl Into<String>, advice: impl Into<String>) -> Error {
    Error::new(Kind::Config, what).advise(advice)
}

/// Judges a document; what is wrong with it stands on the sheet. `repositories` are those that were understood;
/// `complete` says whether these are all, so that a name can be called unknown.
pub(super) fn judge(
    sheet: &mut Sheet<'_>,
    document: &Document<BackupPolicySpec>,
    repositories: &[Repository],
    complete: bool,
) -> Option<BackupPolicy> {
    let before = sheet.found.len();
    let spec = &document.spec;
    let name = sheet.take("metadata.name", Name::parse("policy", &document.metadata.name));
    let repository = judge_repository(sheet, spec, repositories, complete);
    let copies_min = repository.and_then(|repository| judge_copies(sheet, spec, repository));
    let sources = judge_sources(sheet, &spec.sources, &document.metadata.name);
    let calendar = judge_calendar(sheet, &document.metadata.name, spec);
    if sheet.found.len() == before {
        let periods = sources.iter().enumerate().filter_map(|(n, source)| Some((n, source.between()?.every_ms)));
        etcd::judge_periods(sheet, &periods.collect::<Vec<_>>(), calendar.largest_gap_ms());
    }
    let retries = judge_retries(sheet, spec.retries.as_ref());
    let retention = judge_retention(sheet, spec.retention.as_ref());
    let rpo = spec.objectives.as_ref().map(|o| o.rpo.as_str());
    let rpo_ms = positive(sheet, "spec.objectives.rpo", rpo);
    let verify = spec.verify.as_ref().map(|spec| verify::judge(sheet, spec));
    let prune = spec.prune.as_ref().map(|spec| prune::judge(sheet, spec));
    let limits = limits::judge(sheet, spec.limits.as_ref());
    let hooks = hooks::judge(sheet, "spec.hooks", spec.hooks.as_ref());
    let alerts = alerts::judge(sheet, &spec.alerts);
    if sheet.found.len() > before {
        return None;
    }
    Some(BackupPolicy {
        name: name?,
        place: sheet.place(""),
        repository: repository?.name().clone(),
        sources,
        copies_min: copies_min?,
        calendar: Arc::new(calendar),
        concurrency: spec.concurrency.unwrap_or_default(),
        retries,
        retention,
        verify,
        prune,
        rpo_ms,
        limits,
        hooks,
        alerts,
        priority: spec.priority.unwrap_or(0),
    })
}

fn judge_repository<'r>(
    sheet: &mut Sheet<'_>,
    spec: &BackupPolicySpec,
    repositories: &'r [Repository],
    complete: bool,
) -> Option<&'r Repository> {
    let known: Vec<&str> = repositories.iter().map(|r| r.name().as_str()).collect();
    match (&spec.repository, repositories) {
        (Some(name), _) => {
            let found = repositories.iter().find(|r| r.name().as_str() == name);
            if found.is_none() && complete {
                let advice = match guess(name, &known) {
                    Some(meant) => format!("did you mean `{meant}`?"),
                    None if known.is_empty() => "add a document of kind Repository".into(),
                    None => format!("known here: {}", known.join(", ")),
                };
                sheet.refuse("spec.repository", format!("there is no repository {}", quoted(name)), advice);
            }
            found
        }
        (None, [only]) => Some(only),
        (None, []) if complete => {
            sheet.refuse("spec", "there is no repository to back up to", "add a document of kind Repository");
            None
        }
        (None, []) => None,
        (None, _) => {
            let advice = format!("say which with `repository:`: {}", known.join(", "));
            sheet.refuse("spec", "there are several repositories", advice);
            None
        }
    }
}

fn judge_copies(sheet: &mut Sheet<'_>, spec: &BackupPolicySpec, repository: &Repository) -> Option<u32> {
    let Some(Copies { min }) = spec.copies else { return Some(repository.copies_min()) };
    let regions = repository.regions().len() as u32;
    if (1..=regions).contains(&min) {
        return Some(min);
    }
    let what = format!("copies.min is {min}, the repository `{}` has {regions} regions", repository.name());
    sheet.refuse("spec.copies.min", what, format!("use a number from 1 to {regions}"));
    None
}

fn judge_sources(sheet: &mut Sheet<'_>, specs: &[SourceSpec], policy: &str) -> Vec<Source> {
    if specs.is_empty() {
        sheet.refuse("spec.sources", "there is nothing to back up", "name at least one source: `- paths: [/srv]`");
    }
    let mut sources: Vec<Source> = Vec::with_capacity(specs.len());
    for (n, spec) in specs.iter().enumerate() {
        let at = format!("spec.sources[{n}]");
        let name = match &spec.name {
            Some(name) => name.clone(),
            None if specs.len() == 1 => policy.to_owned(),
            None => {
                let advice = "add `name:`; a source is known by it over time, whatever its place in the list";
                sheet.refuse(&at, "one of several sources has no name", advice);
                String::from("unnamed")
            }
        };
        sheet.take(&format!("{at}.name"), label("the name of a source", &name));
        if spec.name.is_some() && sources.iter().any(|s| s.name == name) {
            let what = format!("two sources are named {}", quoted(&name));
            sheet.refuse(&format!("{at}.name"), what, "give each a name of its own");
        }
        for (m, tag) in spec.tags.iter().enumerate() {
            sheet.take(&format!("{at}.tags[{m}]"), label("a tag", tag));
        }
        for (m, pattern) in spec.exclude.iter().enumerate() {
            sheet.take(&format!("{at}.exclude[{m}]"), Excludes::understood(pattern));
        }
        let ignore_file = spec.ignore_file.as_deref().unwrap_or(IGNORE_FILE);
        if !is_file_name(ignore_file) {
            let what = format!("{} is not the name of a file", quoted(ignore_file));
            sheet.refuse(&format!("{at}.ignoreFile"), what, "write a name without `/`, like `.holdfastignore`");
        }
        let (etcd, bucket) = (etcd::judge(sheet, &at, spec), bucket::judge(sheet, &at, spec));
        let model = trust::judge(sheet, &at, spec);
        let elsewhere = etcd.is_some() || spec.bucket.is_some();
        let paths = if elsewhere { Vec::new() } else { paths::judge(sheet, &at, &spec.paths) };
        sources.push(Source {
            name,
            paths,
            etcd,
            model,
            bucket,
            exclude: spec.exclude.clone(),
            exclude_caches: spec.exclude_caches.unwrap_or(false),
            ignore_file: ignore_file.to_owned(),
            one_file_system: spec.one_file_system.unwrap_or(false),
            tags: spec.tags.clone(),
            hooks: hooks::judge(sheet, &format!("{at}.hooks"), spec.hooks.as_ref()),
        });
    }
    sources
}

fn label(what: &str, text: &str) -> Result<()> {
    if text.is_empty() || text.len() > LABEL_BYTES_MAX || text.chars().any(char::is_control) {
        let advice = format!("write 1 to {LABEL_BYTES_MAX} bytes without control characters");
        return Err(config(format!("{} cannot be {what}", quoted(text)), advice));
    }
    Ok(())
}

/// A duration that may be zero.
fn any(sheet: &mut Sheet<'_>, path: &str, text: Option<&str>) -> Option<i64> {
    sheet.take(path, duration::parse(text?))
}

/// A duration that may not.
fn positive(sheet: &mut Sheet<'_>, path: &str, text: Option<&str>) -> Option<i64> {
    let ms = any(sheet, path, text)?;
    if ms == 0 {
        sheet.refuse(path, "the duration is zero", "use a longer one, or leave the field out");
    }
    Some(ms)
}

fn judge_calendar(sheet: &mut Sheet<'_>, policy: &str, spec: &BackupPolicySpec) -> Calendar {
    let before = sheet.found.len();
    let none = ScheduleSpec { time_zone: None, incremental: None, full: None, jitter: None, blackouts: Vec::new() };
    let schedule = spec.schedule.as_ref().unwrap_or(&none);
    let zone = schedule.time_zone.as_deref().map(when::zone);
    let mut cron = |path: &str, text: Option<&String>| sheet.take(path, Cron::parse(text?));
    let incremental = cron("spec.schedule.incremental", schedule.incremental.as_ref());
    let full = cron("spec.schedule.full", schedule.full.as_ref());
    let verify = cron("spec.verify.schedule", spec.verify.as_ref().map(|v| &v.schedule));
    let prune = cron("spec.prune.schedule", spec.prune.as_ref().map(|p| &p.schedule));
    let calendar = Calendar {
        policy: policy.to_owned(),
        zone: zone.and_then(|zone| sheet.take("spec.schedule.timeZone", zone)).unwrap_or(Tz::UTC),
        incremental,
        full,
        verify,
        prune,
        jitter_ms: any(sheet, "spec.schedule.jitter", schedule.jitter.as_deref()).unwrap_or(0),
        deadline_ms: positive(sheet, "spec.startingDeadline", spec.starting_deadline.as_deref()),
        blackouts: judge_blackouts(sheet, &schedule.blackouts),
    };
    let asked = [&schedule.incremental, &schedule.full];
    let others = spec.verify.is_some() || spec.prune.is_some();
    if spec.schedule.is_some() && !others && asked.iter().all(|text| text.is_none()) {
        let advice = "add `incremental:` or `full:`, or leave the schedule out and start runs by hand";
        sheet.refuse("spec.schedule", "the schedule says no time", advice);
    }
    if spec.schedule.is_none() && !others && spec.starting_deadline.is_some() {
        sheet.refuse(
            "spec.startingDeadline",
            "without a schedule nothing can be late",
            "add a schedule, or leave it out",
        );
    }
    if sheet.found.len() == before {
        judge_times(sheet, &calendar);
    }
    calendar
}

fn judge_blackouts(sheet: &mut Sheet<'_>, specs: &[BlackoutSpec]) -> Vec<Blackout> {
    let mut blackouts = Vec::with_capacity(specs.len());
    for (n, spec) in specs.iter().enumerate() {
        let at = format!("spec.schedule.blackouts[{n}]");
        let start = sheet.take(&format!("{at}.start"), Cron::parse(&spec.start));
        let lasts = positive(sheet, &format!("{at}.duration"), Some(&spec.duration));
        blackouts.extend(start.zip(lasts).map(|(start, ms)| Blackout::new(start, ms)));
    }
    blackouts
}

/// What jitter, deadline and blackouts do together.
fn judge_times(sheet: &mut Sheet<'_>, calendar: &Calendar) {
    let jitter = calendar.jitter_ms;
    let shown = duration::text;
    if let Some(gap) = (jitter > 0).then(|| calendar.smallest_gap_ms()).flatten().filter(|gap| jitter >= *gap) {
        let what = format!("the jitter {} would let runs overtake: two are {} apart", shown(jitter), shown(gap));
        sheet.refuse("spec.schedule.jitter", what, "use a jitter shorter than that");
    }
    if let Some(deadline) = calendar.deadline_ms.filter(|deadline| *deadline < jitter) {
        let what = format!("the jitter {} alone would miss the deadline {}", shown(jitter), shown(deadline));
        sheet.refuse("spec.startingDeadline", what, "use a longer deadline or a shorter jitter");
    }
    if calendar.blackouts.is_empty() {
        return;
    }
    for task in Task::ALL {
        if calendar.cron(task).is_some() && !calendar.ever_starts(task) {
            let what = format!("the blackouts leave no time for {} runs within a year", task.name());
            sheet.refuse("spec.schedule.blackouts", what, "shorten them, or use a longer startingDeadline");
        }
    }
}

fn judge_retries(sheet: &mut Sheet<'_>, spec: Option<&RetriesSpec>) -> Retries {
    let usual = Retries::default();
    let Some(spec) = spec else { return usual };
    let backoff = positive(sheet, "spec.retries.backoff", spec.backoff.as_deref());
    let most = positive(sheet, "spec.retries.backoffMax", spec.backoff_max.as_deref());
    let backoff_ms = backoff.unwrap_or(usual.backoff_ms.min(most.unwrap_or(i64::MAX)));
    let backoff_max_ms = most.unwrap_or(usual.backoff_max_ms.max(backoff_ms));
    if backoff_max_ms < backoff_ms {
        let what = format!("backoffMax is shorter than backoff, {}", duration::text(backoff_ms));
        sheet.refuse("spec.retries.backoffMax", what, "use a longer one, or leave it out");
    }
    Retries { max: spec.max.unwrap_or(usual.max), backoff_ms, backoff_max_ms }
}

fn judge_retention(sheet: &mut Sheet<'_>, spec: Option<&RetentionSpec>) -> Retention {
    let Some(spec) = spec else { return Retention::default() };
    let within = spec.within.as_deref().and_then(|text| sheet.take("spec.retention.within", duration::span_ms(text)));
    let retention = Retention {
        last: spec.last.unwrap_or(0),
        hourly: spec.hourly.unwrap_or(0),
        daily: spec.daily.unwrap_or(0),
        weekly: spec.weekly.unwrap_or(0),
        monthly: spec.monthly.unwrap_or(0),
        yearly: spec.yearly.unwrap_or(0),
        within_ms: within.unwrap_or(0),
    };
    if retention.keeps_all() && spec.within.is_none() {
        let advice = "say what to keep, like `daily: 7`; to keep everything, leave retention out";
        sheet.refuse("spec.retention", "the retention keeps nothing", advice);
    }
    retention
}
