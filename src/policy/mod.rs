//! The configuration language: documents of a `kind`, in YAML, judged once and turned into types that the
//! rest of the program trusts. Pure: text in, types out.
//!
//! A text goes this way: `yaml` makes trees with places, `schema` holds them against the published schema (made of
//! the plain types in `types`), `backup` and `repository` judge what a schema cannot say, `configuration` looks
//! across documents. Every mistake is reported, with file, line, column and path, not only the first.
//!
//! What the language does not know is refused, never ignored: a misspelt field that silently does nothing is how
//! backups go missing. Anchors, aliases, merge keys and tags are refused too, and with them the documents that
//! grow without bound when read.

mod alerts;
mod backup;
mod bucket;
mod calendar;
mod coming;
mod configuration;
mod cron;
mod diff;
mod doubts;
mod duration;
mod etcd;
mod exclude;
mod gaps;
mod hooks;
mod limits;
mod name;
mod paths;
mod prune;
mod rate;
mod region;
mod repository;
mod retention;
mod schema;
mod sheet;
mod shrink;
mod trust;
mod types;
mod verify;
mod when;
mod words;
mod write;
mod yaml;

pub use alerts::{Address, Alert, Receiver, Url, Webhook};
pub use backup::{BackupPolicy, Retries, Source};
pub use bucket::{bucket, is_bucket};
pub use calendar::{Blackout, Calendar, Start, Task, share};
pub use coming::Coming;
pub use configuration::{Checked, Configuration, DocumentKind, Text, check, load, parse, repository as one_repository};
pub use cron::Cron;
pub use diff::{Change, RetentionEffect, changes, lost_by, retention_effect};
pub use duration::{parse as duration_ms, span_ms};
pub use etcd::{Between, Deltas, Etcd};
pub use exclude::Excludes;
pub use hooks::{Hook, Hooks};
pub use limits::Limits;
pub use name::Name;
pub use paths::is_file_name;
pub use prune::Prune;
pub use rate::{Rate, size};
pub use region::RegionSpec;
pub use repository::{REGIONS_MAX, Repository};
pub use retention::{Candidate, Reason, Retention, Verdict, judge};
pub use schema::schema;
pub use shrink::{Extent, MAY_SHRINK, Small, brake, small};
pub use trust::Trust;
pub use types::{Concurrency, Event, HookFailure, Level, PickleRule, SignatureRule};
pub use verify::Verify;
pub use when::{Zone, since, until, zone};
pub use words::{local_time, sentences};
pub use write::yaml_text;
pub use yaml::TEXT_BYTES_MAX;

/// What the configuration file is called where it is looked for.
pub const FILE_NAME: &str = "holdfast.yaml";
/// The version of the language that this build knows.
pub const API_VERSION: &str = "holdfast.io/v1alpha1";
