//! The documents as they are written: plain types without any judgement. The published schema is made of
//! them, and so are the effective documents that are shown.
//!
//! The comments of fields are the schema's descriptions.

mod models;

pub use models::{PickleRule, SignatureRule, SourceKind, TrustSpec};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::borrow::Cow;

const DURATION: &str = "^([0-9]+y)?([0-9]+w)?([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?$";
const SPAN: &str = "^([0-9]+y)?([0-9]+w)?([0-9]+d)?([0-9]+h)?$";
const RATE: &str = "^[0-9]+(B|kB|MB|GB|KiB|MiB|GiB)/s$";
const NAME: &str = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$";

/// A document of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Document<S> {
    /// Version of the language.
    pub api_version: String,
    /// What is described.
    pub kind: String,
    /// What it is called.
    pub metadata: Metadata,
    /// What is wanted.
    pub spec: S,
}

/// What it is called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Metadata {
    /// Its name: a lower-case DNS label, unique among the documents of its kind.
    #[schemars(length(min = 1, max = 63), extend("pattern" = NAME))]
    pub name: String,
}

/// Which regions hold a repository, and how many copies make a run a success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RepositorySpec {
    /// The regions; each holds a complete copy.
    #[schemars(length(min = 1, max = 16))]
    pub regions: Vec<RegionEntry>,
    /// Copies that make a run a success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copies: Option<Copies>,
    /// The only repository that may be found there: its id, 32 hex digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = "^[0-9a-f]{32}$"))]
    pub repository_id: Option<String>,
}

/// A place for a complete copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RegionEntry {
    /// Its name, unique in the repository.
    #[schemars(length(min = 1, max = 63), extend("pattern" = NAME))]
    pub name: String,
    /// A folder (absolute, relative to the file, or a `file` URL), or `s3://`, `gs://` or `az://bucket/prefix`.
    pub url: String,
    /// Which region is read first: the smaller the number, the sooner. Default: 0, and of equals the one that is quicker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = -1000, max = 1000))]
    pub priority: Option<i32>,
}

/// Copies that make a run a success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Copies {
    /// Regions that must hold a complete copy. Default: 2, or 1 where there is one region.
    #[schemars(range(min = 1, max = 16))]
    pub min: u32,
}

/// What is backed up, when, where to, how long it is kept and how it is proven.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BackupPolicySpec {
    /// Name of a Repository document. Default: the only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// What is backed up; each source makes snapshots of its own.
    #[schemars(length(min = 1))]
    pub sources: Vec<SourceSpec>,
    /// Copies that make a run a success. Default: what the repository says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copies: Option<Copies>,
    /// When backups are due. Default: never, runs are started by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<ScheduleSpec>,
    /// A run that could not start within this time after it was due is missed. Default: it starts however late.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = DURATION))]
    pub starting_deadline: Option<String>,
    /// What happens when a run is due while an earlier one of the same policy and kind is at work. Default: forbid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<Concurrency>,
    /// How a failed run is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<RetriesSpec>,
    /// Which snapshots of each source are kept. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<RetentionSpec>,
    /// When the repository is checked, and how deep.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<VerifySpec>,
    /// When space is given back that no snapshot needs any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prune: Option<PruneSpec>,
    /// What the backups are for, in figures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objectives: Option<ObjectivesSpec>,
    /// What a run may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<LimitsSpec>,
    /// Commands around a whole run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hooks: Option<HooksSpec>,
    /// Who is told how runs end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alerts: Vec<AlertSpec>,
    /// Which run goes first when several wait: the higher number. Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = -1000, max = 1000))]
    pub priority: Option<i32>,
}

/// Directories or files that are backed up together, or a cluster of etcd.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SourceSpec {
    /// The source's identity over time, unique in the repository. Default: the policy's name, where it has one source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What the paths or the bucket hold: anything, or models, whose files are judged (docs/models.md). Default: files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<SourceKind>,
    /// Absolute paths of directories or files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    /// A cluster of etcd, instead of paths.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etcd: Option<EtcdSpec>,
    /// What becomes of models that are not to be trusted; only of kind model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust: Option<TrustSpec>,
    /// A bucket of S3 or what speaks its protocol, instead of paths: s3://bucket/prefix, with the options of regions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bucket: Option<String>,
    /// Patterns of what is left out, as in .gitignore.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// Leave out the content of directories tagged by CACHEDIR.TAG. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exclude_caches: Option<bool>,
    /// Name of files in the source whose patterns apply to their directory. Default: .holdfastignore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ignore_file: Option<String>,
    /// Do not enter other file systems. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub one_file_system: Option<bool>,
    /// Tags of its snapshots.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Commands around each backup of this source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hooks: Option<HooksSpec>,
}

/// A cluster of etcd, and how it is spoken to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EtcdSpec {
    /// All members: HOST or HOST:PORT.
    #[schemars(length(min = 1))]
    pub endpoints: Vec<String>,
    /// Speak without TLS. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plain: Option<bool>,
    /// Lowest version of TLS that is spoken: 1.3 or 1.2. Default: 1.3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["1.2", "1.3"]))]
    pub tls: Option<String>,
    /// File with certificates of the authorities that the members are believed by. Default: the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<String>,
    /// File with the certificate to show.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert_file: Option<String>,
    /// File with its key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_file: Option<String>,
    /// User, where etcd asks for one; it needs the role root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// File with the user's password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_file: Option<String>,
    /// Whether incremental backups take only what changed; or how often a daemon does, between backups. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deltas: Option<DeltasSpec>,
}

/// When only what changed is taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum DeltasSpec {
    /// By incremental backups, or never.
    Incremental(bool),
    /// Between backups.
    Between(BetweenSpec),
}

impl JsonSchema for DeltasSpec {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Deltas".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        // Of either type; what is said of fields is said of a mapping only.
        let mut schema = BetweenSpec::json_schema(generator);
        schema.insert("type".into(), json!(["boolean", "object"]));
        schema
    }
}

/// How a daemon takes what changed between backups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BetweenSpec {
    /// How often: whole seconds or more, and more often than backups are due.
    #[schemars(extend("pattern" = DURATION))]
    pub every: String,
    /// A file of changes has at most so many bytes, unless a single transaction has more. Default: 8MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = "^[0-9]+(B|kB|MB|Ki|Mi|KiB|MiB)$"))]
    pub max_bytes: Option<String>,
}

/// When backups are due: five cron fields, or @hourly, @daily, @weekly, @monthly, @yearly.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ScheduleSpec {
    /// IANA name of the time zone of all schedules and of retention's days. Default: UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// When incremental backups are due; one gives way to a full that starts at the same time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incremental: Option<String>,
    /// When full backups are due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full: Option<String>,
    /// Runs start up to this much later than due, so that not all start at once. Default: 0s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = DURATION))]
    pub jitter: Option<String>,
    /// Times in which no run starts; what is due then waits for the end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blackouts: Vec<BlackoutSpec>,
}

/// A time in which no run starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BlackoutSpec {
    /// When it begins: a schedule.
    pub start: String,
    /// How long it lasts.
    #[schemars(extend("pattern" = DURATION))]
    pub duration: String,
}

/// What happens when a run is due while an earlier one of the same policy and kind is at work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Concurrency {
    /// The new one is missed.
    #[default]
    Forbid,
    /// The new one waits.
    Queue,
    /// The earlier one is stopped.
    Replace,
}

/// How a failed run is tried again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RetriesSpec {
    /// How often. Default: 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 100))]
    pub max: Option<u32>,
    /// How long to wait before the first; each later wait is twice as long. Default: 1m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = DURATION))]
    pub backoff: Option<String>,
    /// The longest wait. Default: 1h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = DURATION))]
    pub backoff_max: Option<String>,
}

/// Which snapshots of each source are kept: what any of the rules keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RetentionSpec {
    /// The newest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 100_000))]
    pub last: Option<u32>,
    /// The newest of each hour, for so many hours that have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 100_000))]
    pub hourly: Option<u32>,
    /// Of each day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 100_000))]
    pub daily: Option<u32>,
    /// Of each ISO week.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 100_000))]
    pub weekly: Option<u32>,
    /// Of each month.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 100_000))]
    pub monthly: Option<u32>,
    /// Of each year.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 100_000))]
    pub yearly: Option<u32>,
    /// Everything that is not older than this before the newest snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = SPAN))]
    pub within: Option<String>,
}

/// When the repository is checked, and how deep.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VerifySpec {
    /// When a check is due.
    pub schedule: String,
    /// How deep to look. Default: presence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<Level>,
    /// Within this time everything stored is to be read once. Default: 30d.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = DURATION))]
    pub period: Option<String>,
    /// One run reads at most this share of what a region holds, what waited longest first. Default: 100%.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = "^[0-9]{1,3}%$"))]
    pub share: Option<String>,
    /// One run reads at most so many bytes of each region. Default: no bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = "^[0-9]+(B|kB|MB|GB|KiB|MiB|GiB)$"))]
    pub bytes_max: Option<String>,
    /// One run reads at most so many packs of each region, and each costs one request. Default: no bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub packs_max: Option<u64>,
    /// Packs are read no faster than this. Default: no bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = RATE))]
    pub rate: Option<String>,
    /// Whether what is damaged or missing in one region is put back from another. Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repair: Option<bool>,
}

/// How deep a check looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Level {
    /// Everything is there, every tree resolves.
    #[default]
    Presence,
    /// Stored bytes fit their hashes.
    Ciphertext,
    /// Every chunk decrypts to what it was.
    Content,
}

/// When space is given back that no snapshot needs any more, and what one run may take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PruneSpec {
    /// When a prune is due.
    pub schedule: String,
    /// Packs are written anew of which more than this is needed by nobody; 100%: none. Default: 50%.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = "^[0-9]{1,3}%$"))]
    pub repack_above: Option<String>,
    /// At most so many bytes of packs are written anew in one run. Default: 4GiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = "^[0-9]+(B|kB|MB|GB|KiB|MiB|GiB)$"))]
    pub repack_max: Option<String>,
    /// Nothing new is begun after so long; what is over waits for the next run. Default: no bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = DURATION))]
    pub stop_after: Option<String>,
    /// At most so many objects are removed from each region in one run. Default: no bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub removals_max: Option<u32>,
}

/// What the backups are for, in figures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ObjectivesSpec {
    /// Recovery point objective: the newest good snapshot must never be older than this.
    #[schemars(extend("pattern" = DURATION))]
    pub rpo: String,
}

/// What a run may use.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LimitsSpec {
    /// How much work goes into making content smaller: none, fast, default, better, max. Default: default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = crate::chunk::Compression::NAMES))]
    pub compression: Option<String>,
    /// Most bytes a second that are written to each region, on average. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = RATE))]
    pub upload: Option<String>,
    /// Most bytes a second that are read from files of the sources, on average. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = RATE))]
    pub read: Option<String>,
    /// Threads that read, compress and encrypt. Default: one for each processor, 16 at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub workers: Option<u32>,
}

/// Commands that are run before and after something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HooksSpec {
    /// Before, one after the other.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub before: Vec<HookSpec>,
    /// When it failed, ahead of `after`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub on_failure: Vec<HookSpec>,
    /// After it in any case: when it was done, failed or was interrupted, and when a `before` failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<HookSpec>,
}

/// A command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HookSpec {
    /// The program and its arguments, each as it is; no shell reads them.
    #[schemars(length(min = 1))]
    pub command: Vec<String>,
    /// After this time it is ended, with all that it started. Default: 5m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = DURATION))]
    pub timeout: Option<String>,
    /// What its failure does; only for `before`. Default: abort.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<HookFailure>,
}

/// What the failure of a hook does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum HookFailure {
    /// Nothing is backed up.
    #[default]
    Abort,
    /// It is backed up all the same, and counts as degraded.
    Warn,
}

/// Who is told, and of what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AlertSpec {
    /// Its name, unique in the policy.
    #[schemars(length(min = 1, max = 63), extend("pattern" = NAME))]
    pub name: String,
    /// What is told.
    #[schemars(length(min = 1))]
    pub events: Vec<Event>,
    /// Where it is posted to; this or `command`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<WebhookSpec>,
    /// A program and its arguments that get it on standard input; this or `webhook`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// How long one attempt may take. Default: 30s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = DURATION))]
    pub timeout: Option<String>,
}

/// What a run may end with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Event {
    /// The run, or a source of it, failed.
    Failure,
    /// A source is degraded or was left to another run, or a hook failed.
    Degraded,
    /// Stored bytes are damaged or missing.
    Damage,
    /// Retention refused to forget.
    Brake,
    /// The daemon left out a run that was due.
    Missed,
    /// The run before was none of the good ones, and this one is.
    Recovered,
}

/// Where an alert is posted to, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WebhookSpec {
    /// Its address: `http` or `https`. Only its host is ever shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// A file with the address, instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_file: Option<String>,
    /// A file with headers of the request, one a line: `Name: value`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers_file: Option<String>,
}
