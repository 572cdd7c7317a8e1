//! Arguments of `holdfast policy`.

use clap::{Args as ClapArgs, Subcommand};
use std::path::PathBuf;

#[derive(Debug, ClapArgs)]
pub struct Policy {
    #[command(subcommand)]
    pub verb: PolicyVerb,
}

/// What to ask of policies.
#[derive(Debug, Subcommand)]
pub enum PolicyVerb {
    /// Name every mistake in the configuration, or say in words what each policy will do
    Check,
    /// Show policies with every default filled in
    Show {
        /// Name of a policy [default: all]
        name: Option<String>,
    },
    /// Show the coming runs
    Next(PolicyNext),
    /// Say what a change of the configuration does
    Diff {
        /// The configuration as it was: a file or a folder
        old: PathBuf,
        /// The configuration as it will be
        new: PathBuf,
        /// Judge the snapshots of the repositories too; needs the key
        #[arg(long)]
        snapshots: bool,
    },
    /// Print the JSON Schema of the configuration
    Schema,
}

#[derive(Debug, ClapArgs)]
pub struct PolicyNext {
    /// Name of a policy [default: all]
    pub name: Option<String>,
    /// What is due within so many days [default: 7]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=3660))]
    pub days: Option<u32>,
    /// So many runs of each policy, however late
    #[arg(long, value_name = "N", conflicts_with = "days", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub count: Option<u32>,
}
