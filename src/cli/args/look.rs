//! Arguments of the verbs that look into snapshots.

use super::Filter;
use clap::{Args as ClapArgs, ValueEnum};
use std::ffi::OsString;
use std::path::PathBuf;

const DUMP_EXIT_CODES: &str = "A directory becomes a tar archive (pax): long names, times to the nanosecond, owners, hard links, holes, \
devices; attributes and ACLs, which `tar -x --xattrs --xattrs-include='*'` takes back. Sockets are left out and named.\n\n\
Exit codes: 0 all is in it · 3 something is not in it, and is named · 5 damage: a file is not in it, or the output ends \
before its end · 130 interrupted, or the output was closed";

#[derive(Debug, ClapArgs)]
#[command(after_help = DUMP_EXIT_CODES)]
pub struct Dump {
    /// Digits of an id, or `latest`; `:PATH` for a directory or a file of it
    #[arg(value_name = "SNAPSHOT[:PATH]")]
    pub snapshot: OsString,
    /// Write into this new file [default: standard output]
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// A tar archive also of a single file
    #[arg(long)]
    pub tar: bool,
    /// Only what matches, as in .gitignore, and what is below it; repeat for more
    #[arg(long, value_name = "GLOB")]
    pub include: Vec<String>,
    /// Not what matches; repeat for more
    #[arg(long, value_name = "GLOB")]
    pub exclude: Vec<String>,
    /// Write holes as zeros, for programs that know no holes in archives
    #[arg(long)]
    pub no_sparse: bool,
    #[command(flatten)]
    pub filter: Filter,
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TypeArg {
    /// Regular files
    #[value(alias = "f")]
    File,
    /// Directories
    #[value(alias = "d")]
    Dir,
    /// Symbolic links
    #[value(alias = "l")]
    Symlink,
    /// Pipes, sockets, devices
    Other,
}

#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Each path is shown once for each of its versions, with the snapshots that have it, newest first.\n\n\
Exit codes: 0 done, also if nothing was found · 5 damage: a part of a snapshot could not be looked at, and is named"
)]
pub struct Find {
    /// Globs. One with `/` is held against the whole path, where `**` is any number of directories; one without against
    /// the name
    #[arg(required = true)]
    pub pattern: Vec<String>,
    /// Case does not matter
    #[arg(long, short)]
    pub ignore_case: bool,
    /// Only in this snapshot: digits of an id, or `latest`; repeat for more [default: in all]
    #[arg(long, short, value_name = "SNAPSHOT")]
    pub snapshot: Vec<String>,
    /// Only in the newest snapshot of each source
    #[arg(long, conflicts_with = "snapshot")]
    pub newest: bool,
    /// Only entries of this type; repeat for more
    #[arg(long = "type", value_name = "TYPE", value_enum)]
    pub kind: Vec<TypeArg>,
    /// Only files of at least this size: 10MiB
    #[arg(long, value_name = "SIZE", value_parser = crate::policy::size)]
    pub larger: Option<u64>,
    /// Only files of at most this size
    #[arg(long, value_name = "SIZE", value_parser = crate::policy::size)]
    pub smaller: Option<u64>,
    /// Only what was modified at this time or later: 2027-03-01, 2027-03-01T12:00:00Z, or 36h for so long ago
    #[arg(long, value_name = "WHEN")]
    pub newer: Option<String>,
    /// Only what was modified before this time
    #[arg(long, value_name = "WHEN")]
    pub older: Option<String>,
    /// Modes, owners, sizes, times
    #[arg(long, short)]
    pub long: bool,
    #[command(flatten)]
    pub filter: Filter,
}

#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Signs: + added · - removed · M other content · T another type · U other metadata only. What both share is not \
read. Signs of tensors: + added · - removed · M other bytes, type or shape · ? not compared.\n\nExit codes: 0 done, whatever \
differs · 3 a model could not be compared, as it is no valid one · 5 damage: a part could not be compared, and is named"
)]
pub struct Diff {
    /// Digits of an id, or `latest`; `:PATH` for a part of it
    #[arg(value_name = "SNAPSHOT[:PATH]")]
    pub old: OsString,
    /// What it is compared with
    #[arg(value_name = "SNAPSHOT[:PATH]")]
    pub new: OsString,
    /// Show what differs in metadata only, too
    #[arg(long)]
    pub metadata: bool,
    /// Show of models that differ which tensors do, by their headers and lists of chunks
    #[arg(long)]
    pub tensors: bool,
    #[command(flatten)]
    pub filter: Filter,
}

#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Without a snapshot: the repository. Content is counted by the index, so also what no snapshot needs any more.\n\n\
Exit codes: 0 done · 4 a region could not be asked · 5 damage: a snapshot cannot be read wholly"
)]
pub struct Stats {
    /// Digits of an id, or `latest`
    pub snapshot: Option<String>,
    /// Count also what no other snapshot has; walks all of them
    #[arg(long, requires = "snapshot")]
    pub unique: bool,
    #[command(flatten)]
    pub filter: Filter,
}
