//! The configuration language: documents of a `kind`, in YAML, judged once and turned into types that the
//! rest of the program trusts. Pure: text in, types out.
//!
//! A mistake is reported with its file, line and column. What the language does not know is refused, never
//! ignored: a misspelt field that silently does nothing is how backups go missing. Anchors, aliases, merge
//! keys and unknown tags are refused too, and with them the documents that grow without bound when read.

mod cron;
mod name;
mod region;
mod repository;
mod retention;
mod yaml;

pub use chrono_tz::Tz as Zone;
pub use cron::Cron;
pub use name::Name;
pub use region::RegionSpec;
pub use repository::{API_VERSION, FILE_NAME, REGIONS_MAX, Repository, parse};
pub use retention::{Candidate, Reason, Retention, Verdict, judge};
pub use yaml::TEXT_BYTES_MAX;
