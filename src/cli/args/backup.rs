//! Arguments of `holdfast backup`.

use super::{EtcdSource, TrustArgs};
use crate::chunk::Compression;
use crate::policy::Rate;
use clap::builder::TypedValueParser;
use clap::{Args as ClapArgs, ValueEnum};
use std::ffi::OsString;
use std::path::PathBuf;

/// What has no meaning for a stream.
const OF_FILES: [&str; 7] =
    ["files_from", "files_from_raw", "clone", "exclude", "exclude_file", "one_file_system", "dry_run"];

const AFTER: &str = "\
holdfast backup --stdin-from-command --stdin-filename db.sql --name db -- pg_dump --format=custom db\n\n\
Exit codes: 0 done · 1 fewer complete copies than wanted, or the command failed · 3 part of the source was not read · \
4 a region is behind · 11 models are stored, and not to be trusted by the rules that were given";

/// How much to trust the previous snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ModeArg {
    /// Read what changed
    Incremental,
    /// Read everything; ask every region for what is re-used
    Full,
    /// Store everything anew, sharing nothing with earlier snapshots
    Independent,
    /// Of a cluster of etcd: only what changed since its last snapshot
    Delta,
}

#[derive(Debug, ClapArgs)]
#[command(group = clap::ArgGroup::new("streams").args(["stdin", "stdin_from_command"]).multiple(true).conflicts_with_all(OF_FILES), after_help = AFTER)]
pub struct Backup {
    /// Directories or files; a bucket, as s3://BUCKET/PREFIX; of models, as model:/PATH or model:s3://BUCKET/PREFIX; a cluster
    /// of etcd, as etcd://HOST:2379,HOST:2379; with --stdin-from-command the command and its arguments, after `--`
    #[arg(required_unless_present_any = ["stdin", "files_from", "files_from_raw"])]
    pub path: Vec<PathBuf>,
    /// Name of the source, its identity over time [default: files:HOST:PATHS, model:HOST:PATHS, bucket:URL or model:URL]
    #[arg(long)]
    pub name: Option<String>,
    /// File with further paths, one a line, as they stand; empty lines and those with `#` in front are not read; `-` is
    /// standard input; repeat for more
    #[arg(long, value_name = "FILE", help_heading = "Lists", requires = "name")]
    pub files_from: Vec<PathBuf>,
    /// The same with a NUL behind each path, and nothing left out: any path can stand there
    #[arg(long, value_name = "FILE", help_heading = "Lists", requires = "name")]
    pub files_from_raw: Vec<PathBuf>,
    /// Back up standard input as one file
    #[arg(long, help_heading = "Streams", conflicts_with_all = ["path", "stdin_from_command"])]
    pub stdin: bool,
    /// Back up what a command prints as one file; no snapshot is made if the command fails
    #[arg(long, help_heading = "Streams", requires = "path")]
    pub stdin_from_command: bool,
    /// What the file is called in the snapshot: a name or a path
    #[arg(long, value_name = "PATH", help_heading = "Streams", default_value = "stdin")]
    pub stdin_filename: OsString,
    /// Host to record [default: this one's name]
    #[arg(long)]
    pub host: Option<String>,
    /// A tag; repeat for more
    #[arg(long)]
    pub tag: Vec<String>,
    /// How much to trust the previous snapshot
    #[arg(long, value_enum, default_value = "incremental")]
    pub mode: ModeArg,
    /// The same as --mode full
    #[arg(long, conflicts_with = "mode")]
    pub full: bool,
    /// The source is a clone of the file system of the previous snapshot: compare size and time of change of content only
    #[arg(long)]
    pub clone: bool,
    /// Leave out what matches, as in .gitignore; repeat for more
    #[arg(long, value_name = "GLOB")]
    pub exclude: Vec<String>,
    /// File with patterns, one a line; repeat for more
    #[arg(long, value_name = "FILE")]
    pub exclude_file: Vec<PathBuf>,
    /// Name of files in the source whose patterns apply to their directory
    #[arg(long, value_name = "NAME", default_value = ".holdfastignore")]
    pub ignore_file: String,
    /// Leave out the content of directories tagged by CACHEDIR.TAG
    #[arg(long)]
    pub exclude_caches: bool,
    /// Do not enter other file systems
    #[arg(long, short = 'x')]
    pub one_file_system: bool,
    /// Only say what would be read
    #[arg(long, short = 'n')]
    pub dry_run: bool,
    /// How much work goes into making content smaller
    #[arg(long, value_name = "HOW", default_value = "default", help_heading = "Limits", value_parser = compression())]
    pub compression: Compression,
    /// Most bytes a second that are written to each region: 10MiB/s
    #[arg(long, value_name = "RATE", help_heading = "Limits", value_parser = Rate::parse)]
    pub limit_upload: Option<Rate>,
    /// Most bytes a second that are read from files: 100MiB/s
    #[arg(long, value_name = "RATE", help_heading = "Limits", value_parser = Rate::parse)]
    pub limit_read: Option<Rate>,
    #[command(flatten)]
    pub trust: TrustArgs,
    #[command(flatten)]
    pub etcd: EtcdSource,
    /// Take another cluster than before, or one that went back to an older state: after a restore
    #[arg(long, help_heading = "etcd")]
    pub new_cluster: bool,
}

pub(super) fn compression() -> impl TypedValueParser<Value = Compression> {
    clap::builder::PossibleValuesParser::new(Compression::NAMES)
        .map(|name: String| Compression::parse(&name).unwrap_or_default())
}
