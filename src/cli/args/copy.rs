//! Arguments of `holdfast copy`.

use super::Filter;
use super::backup::compression;
use crate::chunk::Compression;
use crate::policy::Rate;
use clap::Args as ClapArgs;
use std::path::PathBuf;

/// The repository that is copied into.
#[derive(Debug, ClapArgs)]
#[group(skip)]
pub struct CopyTo {
    /// Which repository of the configuration
    #[arg(long, value_name = "NAME", help_heading = "The other repository", conflicts_with = "to_region")]
    pub to_repository: Option<String>,
    /// Its regions, instead of a configuration; repeat for more
    #[arg(long, value_name = "NAME=URL", help_heading = "The other repository")]
    pub to_region: Vec<String>,
    /// Complete copies that each snapshot must have there, with --to-region [default: 2, or 1 with one region]
    #[arg(long, value_name = "N", help_heading = "The other repository", requires = "to_region")]
    pub to_copies_min: Option<u32>,
    /// File with its passphrase [else: HOLDFAST_TO_PASSPHRASE, or a prompt]
    #[arg(long, value_name = "FILE", help_heading = "The other repository", group = "to_secret")]
    pub to_passphrase_file: Option<PathBuf>,
    /// File with its key of 32 bytes
    #[arg(long, value_name = "FILE", help_heading = "The other repository", group = "to_secret")]
    pub to_key_file: Option<PathBuf>,
    /// File with its recovery key
    #[arg(long, value_name = "FILE", help_heading = "The other repository", group = "to_secret")]
    pub to_recovery_key_file: Option<PathBuf>,
}

#[derive(Debug, ClapArgs)]
#[command(group = clap::ArgGroup::new("to").args(["to_repository", "to_region"]).multiple(true).required(true))]
#[command(
    after_help = "The other repository must be there (`init`). What was copied before is not copied again; what it has is not stored again. \
A snapshot that cannot be read wholly is not copied, and named.\n\n\
Exit codes: 0 done · 1 fewer complete copies than wanted · 4 a region there is behind · 5 damage: a snapshot was not copied"
)]
pub struct Copy {
    /// Digits of ids, or `latest` [default: all]
    pub snapshot: Vec<String>,
    #[command(flatten)]
    pub to: CopyTo,
    /// How much work goes into making content smaller
    #[arg(long, value_name = "HOW", default_value = "default", help_heading = "Limits", value_parser = compression())]
    pub compression: Compression,
    /// Most bytes a second that are written to each region there: 10MiB/s
    #[arg(long, value_name = "RATE", help_heading = "Limits", value_parser = Rate::parse)]
    pub limit_upload: Option<Rate>,
    #[command(flatten)]
    pub filter: Filter,
}
