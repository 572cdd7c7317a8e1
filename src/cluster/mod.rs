//! Kubernetes: manifests made of policies. Nothing here talks to a cluster.

mod cronjob;
mod names;
mod volumes;

pub use cronjob::{Manifest, Manifests, SecretKey, User, Wishes, cron_jobs};
pub use names::check_name;
pub use volumes::Claim;

/// What is ours in a pod: the program and what it is given. No claim can be mounted there.
pub const HOME: &str = "/holdfast";
