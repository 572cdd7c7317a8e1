//! Arguments of every verb.

mod backup;
mod copy;
mod daemon;
mod doctor;
mod etcd;
mod generated;
mod look;
mod model;
mod policy;
mod prune;
mod region;
mod tag;
mod trust;

use crate::policy::Rate;
pub use backup::{Backup, ModeArg};
use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
pub use copy::{Copy, CopyTo};
pub use daemon::Daemon;
pub use doctor::Doctor;
pub use etcd::{EtcdSource, EtcdTarget};
pub use generated::{Completions, Man};
pub use look::{Diff, Dump, Find, Stats, TypeArg};
pub use model::{Model, ModelCheck, ModelDiff, ModelLs, ModelVerb, TensorTarget};
pub use policy::{Policy, PolicyNext, PolicyVerb};
pub use prune::Prune;
pub use region::{Region, RegionAdd, RegionRemove, RegionRepair, RegionVerb, Replicate};
use std::ffi::OsString;
use std::path::PathBuf;
pub use tag::Tag;
pub use trust::{RestoreTrust, TrustArgs};

/// Encrypted, deduplicated backups, complete in several regions at once, and proven.
#[derive(Debug, Parser)]
#[command(name = "holdfast", version, arg_required_else_help = true, after_help = EXIT_CODES)]
pub struct Args {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub verb: Verb,
}

const EXIT_CODES: &str = "Exit codes: 0 done · 1 failed · 2 usage · 3 part of the source not read or restored · \
4 a region is behind · 5 damage found · 10 no repository · 11 refused · 12 wrong key · 130 interrupted";

/// Options of every verb.
#[derive(Debug, Clone, Default, ClapArgs)]
pub struct Global {
    /// The configuration: a file, or a folder of .yaml and .yml files [default: holdfast.yaml here, in ~/.config/holdfast, in /etc/holdfast]
    #[arg(long, global = true, value_name = "PATH", help_heading = "Repository")]
    pub config: Option<PathBuf>,
    /// Which repository of the configuration [default: the only one]
    #[arg(long, global = true, value_name = "NAME", help_heading = "Repository", conflicts_with = "region")]
    pub repository: Option<String>,
    /// A region, instead of a configuration: a folder, s3://BUCKET/PREFIX, gs://… or az://…; repeat for more
    #[arg(long, global = true, value_name = "NAME=URL", help_heading = "Repository")]
    pub region: Vec<String>,
    /// Complete copies that a run must make, with --region [default: 2, or 1 with one region]
    #[arg(long, global = true, value_name = "N", help_heading = "Repository")]
    pub copies_min: Option<u32>,
    /// File with the passphrase [else: HOLDFAST_PASSPHRASE, or a prompt]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Key", group = "secret")]
    pub passphrase_file: Option<PathBuf>,
    /// File with a key of 32 bytes
    #[arg(long, global = true, value_name = "FILE", help_heading = "Key", group = "secret")]
    pub key_file: Option<PathBuf>,
    /// File with a recovery key
    #[arg(long, global = true, value_name = "FILE", help_heading = "Key", group = "secret")]
    pub recovery_key_file: Option<PathBuf>,
    /// Folder of the local catalog and of the daemon's memory; all in it can be deleted [default: $XDG_STATE_HOME/holdfast, or as root /var/lib/holdfast, else ~/.local/state/holdfast]
    #[arg(long, global = true, value_name = "DIR", env = "HOLDFAST_STATE", help_heading = "Repository")]
    pub state: Option<PathBuf>,
    /// Print one JSON object instead of text
    #[arg(long, global = true, help_heading = "Output")]
    pub json: bool,
    /// No progress
    #[arg(long, short, global = true, help_heading = "Output")]
    pub quiet: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Try everything once on a directory: back up, verify, restore, compare
    Quickstart(Quickstart),
    /// Create a repository in empty regions
    Init(Init),
    /// Back up directories or files
    Backup(Backup),
    /// List snapshots
    Snapshots(Snapshots),
    /// List what is in a snapshot
    Ls(Ls),
    /// Write a file of a snapshot to standard output
    Cat(Cat),
    /// Find paths in snapshots
    Find(Find),
    /// Show what differs between two snapshots
    Diff(Diff),
    /// Count what a repository or a snapshot has
    Stats(Stats),
    /// Write a directory of a snapshot as a tar archive, or a file as it is
    Dump(Dump),
    /// Restore a snapshot, or a part of one
    Restore(Restore),
    /// Copy snapshots into another repository
    Copy(Copy),
    /// Check that the copies are there and undamaged
    Verify(Verify),
    /// Rebuild what is lost from what is left
    Repair(Repair),
    /// Copy to each region what it lacks and another has
    Replicate(Replicate),
    /// Which regions the repository has: add, remove, repair
    Region(Region),
    /// Mark snapshots as no longer wanted; deletes nothing
    Forget(Forget),
    /// Give back the space of what no snapshot needs
    Prune(Prune),
    /// Change the tags of snapshots
    Tag(Tag),
    /// Holds: snapshots that must not be forgotten
    Hold(Hold),
    /// Run a policy now, once
    Run(Run),
    /// Run all policies by their schedules
    Daemon(Daemon),
    /// Keys that open the repository
    Key(Key),
    /// What the policies of the configuration say and do; needs no repository
    Policy(Policy),
    /// Show how everything is: sources, copies, verification, regions
    Status(Status),
    /// Try the regions out and say what that means for the repository
    Doctor(Doctor),
    /// List runs, the newest last
    Runs(Runs),
    /// The local catalog of runs, snapshots and verification
    Catalog(Catalog),
    /// Look into files of models, on this machine
    Model(Model),
    /// Print manifests for Kubernetes
    Manifest(Manifest),
    /// Print a script that completes arguments in a shell
    Completions(Completions),
    /// Write manual pages
    Man(Man),
}

#[derive(Debug, ClapArgs)]
pub struct Quickstart {
    /// A directory of yours; it is only read
    pub path: PathBuf,
    /// Where to make the regions and the restored copy; must not exist or be empty [default: a temporary directory, removed at the end]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

#[derive(Debug, ClapArgs)]
pub struct Init {
    /// Write the recovery key to a new file instead of showing it
    #[arg(long, value_name = "FILE")]
    pub recovery_key_out: Option<PathBuf>,
    /// Make no recovery key
    #[arg(long, conflicts_with = "recovery_key_out")]
    pub no_recovery_key: bool,
    /// Make a passphrase of seven words and show it once
    #[arg(long)]
    pub generate_passphrase: bool,
    /// Accept a passphrase that can be guessed
    #[arg(long)]
    pub weak_passphrase: bool,
}

/// Which snapshots.
#[derive(Debug, Clone, Default, ClapArgs)]
pub struct Filter {
    /// Only of this source
    #[arg(long = "name", id = "filter_name", value_name = "NAME")]
    pub name: Option<String>,
    /// Only of this host
    #[arg(long = "host", id = "filter_host", value_name = "HOST")]
    pub host: Option<String>,
    /// Only with this tag; repeat for all of several
    #[arg(long = "tag", id = "filter_tag", value_name = "TAG")]
    pub tag: Vec<String>,
}

#[derive(Debug, ClapArgs)]
pub struct Snapshots {
    #[command(flatten)]
    pub filter: Filter,
    /// Only the newest so many
    #[arg(long, value_name = "N")]
    pub last: Option<usize>,
    /// Ask the local catalog instead of the regions: quick, without a key, and as far as this machine knows
    #[arg(long, conflicts_with_all = ["filter_host", "filter_tag"])]
    pub local: bool,
}

#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Exit codes: 0 done · 3 with --tensors: a file begins like a model and is none · 5 with --tensors: a file could not be read"
)]
pub struct Ls {
    /// Digits of an id, or `latest`; `:PATH` for something in it
    #[arg(value_name = "SNAPSHOT[:PATH]")]
    pub snapshot: OsString,
    /// Everything below, too
    #[arg(long, short = 'R')]
    pub recursive: bool,
    /// Modes, owners, sizes, times
    #[arg(long, short)]
    pub long: bool,
    /// Look into each file that is shown, and show its tensors if it is one of a model
    #[arg(long)]
    pub tensors: bool,
    #[command(flatten)]
    pub filter: Filter,
}

#[derive(Debug, ClapArgs)]
pub struct Cat {
    /// Digits of an id, or `latest`, and the file's path
    #[arg(value_name = "SNAPSHOT:PATH")]
    pub snapshot: OsString,
    #[command(flatten)]
    pub filter: Filter,
}

#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Exit codes: 0 done · 3 part of it was not restored · 5 files lack bytes, or are not what was recorded · 11 models are not to be trusted"
)]
pub struct Restore {
    /// Digits of an id, or `latest`; `:PATH` for a part of it
    #[arg(value_name = "SNAPSHOT[:PATH]")]
    pub snapshot: OsString,
    /// Directory to restore into; made if it is missing
    #[arg(long, short, value_name = "DIR", required_unless_present_any = ["tar", "to", "etcd_data_dir", "into"])]
    pub target: Option<PathBuf>,
    /// Write a tar archive into a new file instead, or with `-` to standard output, as `dump --tar` does
    #[arg(long, value_name = "FILE", conflicts_with_all = ["target", "delete", "dry_run", "no_owner", "no_xattrs", "no_devices", "no_repair", "limit_download"])]
    pub tar: Option<PathBuf>,
    /// Only what matches, as in .gitignore, and what is below it; repeat for more
    #[arg(long, value_name = "GLOB")]
    pub include: Vec<String>,
    /// Not what matches; repeat for more
    #[arg(long, value_name = "GLOB")]
    pub exclude: Vec<String>,
    /// Remove from the target what the snapshot does not have
    #[arg(long)]
    pub delete: bool,
    /// Only say what would be restored
    #[arg(long, short = 'n')]
    pub dry_run: bool,
    /// Do not restore owners
    #[arg(long)]
    pub no_owner: bool,
    /// Do not restore extended attributes and ACLs
    #[arg(long)]
    pub no_xattrs: bool,
    /// Do not restore device nodes
    #[arg(long)]
    pub no_devices: bool,
    /// Leave what is found damaged on the way as it is. Else it is set aside under `quarantine/` in its region, and a good
    /// copy is put in its place from another, where these credentials may do that
    #[arg(long)]
    pub no_repair: bool,
    /// Most bytes a second that are read from each region: 10MiB/s
    #[arg(long, value_name = "RATE", value_parser = Rate::parse)]
    pub limit_download: Option<Rate>,
    #[command(flatten)]
    pub pick: TensorTarget,
    #[command(flatten)]
    pub etcd: EtcdTarget,
    #[command(flatten)]
    pub trust: RestoreTrust,
    #[command(flatten)]
    pub filter: Filter,
}

/// How deep to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LevelArg {
    /// Everything is there, every tree resolves
    Presence,
    /// Stored bytes fit their hashes; needs no key
    Ciphertext,
    /// Every chunk decrypts to what it was
    Content,
}

#[derive(Debug, ClapArgs)]
pub struct Verify {
    /// How deep to look
    #[arg(long, value_enum, default_value = "presence")]
    pub level: LevelArg,
    /// Mend what is found: damaged objects are set aside under `quarantine/` in their region, good ones are put in their
    /// place from another, and regions that lack something are brought up
    #[arg(long)]
    pub repair: bool,
    /// Most bytes a second of packs that are read, over all regions: 10MiB/s
    #[arg(long, value_name = "RATE", value_parser = Rate::parse)]
    pub limit_download: Option<Rate>,
}

#[derive(Debug, ClapArgs)]
pub struct Repair {
    #[command(subcommand)]
    pub verb: RepairVerb,
}

#[derive(Debug, Subcommand)]
pub enum RepairVerb {
    /// Lost index segments, from the packs themselves; what is damaged is mended by `verify --repair`
    Index,
}

#[derive(Debug, ClapArgs)]
pub struct Forget {
    /// Digits of ids, or `latest`; without rules
    #[arg(required_unless_present = "rules")]
    pub snapshot: Vec<String>,
    /// Also the last snapshot of a source
    #[arg(long, conflicts_with = "rules")]
    pub last: bool,
    /// Why, for the record
    #[arg(long, default_value = "")]
    pub reason: String,
    #[command(flatten)]
    pub rules: Rules,
    #[command(flatten)]
    pub applying: Applying,
    #[command(flatten)]
    pub filter: Filter,
}

/// What is kept of each source; what no rule keeps is forgotten.
#[derive(Debug, Clone, Default, ClapArgs)]
#[group(id = "rules", multiple = true, conflicts_with = "snapshot")]
pub struct Rules {
    /// Keep the newest N of each source
    #[arg(long, value_name = "N", help_heading = "Rules", value_parser = count())]
    pub keep_last: Option<u32>,
    /// Keep the newest of each of N hours that have one
    #[arg(long, value_name = "N", help_heading = "Rules", value_parser = count())]
    pub keep_hourly: Option<u32>,
    /// … of N days
    #[arg(long, value_name = "N", help_heading = "Rules", value_parser = count())]
    pub keep_daily: Option<u32>,
    /// … of N weeks, from Monday on
    #[arg(long, value_name = "N", help_heading = "Rules", value_parser = count())]
    pub keep_weekly: Option<u32>,
    /// … of N months
    #[arg(long, value_name = "N", help_heading = "Rules", value_parser = count())]
    pub keep_monthly: Option<u32>,
    /// … of N years
    #[arg(long, value_name = "N", help_heading = "Rules", value_parser = count())]
    pub keep_yearly: Option<u32>,
    /// Keep all that are at most this much older than the newest: 12h, 30d, 2w, 1y
    #[arg(long, value_name = "DURATION", help_heading = "Rules")]
    pub keep_within: Option<String>,
    /// Keep what the retention of this policy keeps; only its sources are judged, in its repository and time zone
    #[arg(long, value_name = "NAME", help_heading = "Rules", conflicts_with_all = POLICY_HAS)]
    pub policy: Option<String>,
}

/// What a policy says by itself.
const POLICY_HAS: [&str; 9] = [
    "keep_last",
    "keep_hourly",
    "keep_daily",
    "keep_weekly",
    "keep_monthly",
    "keep_yearly",
    "keep_within",
    "time_zone",
    "repository",
];

/// How the rules are applied.
#[derive(Debug, Clone, Default, ClapArgs)]
pub struct Applying {
    /// Whose hours, days and weeks count [default: UTC]
    #[arg(long, value_name = "ZONE", help_heading = "Rules", requires = "rules")]
    pub time_zone: Option<String>,
    /// Only say what would be forgotten, and why the others stay
    #[arg(long, short = 'n', help_heading = "Rules", requires = "rules")]
    pub dry_run: bool,
    /// Sources that became empty or a tenth of what they were are right as they are
    #[arg(long, help_heading = "Rules", requires = "rules")]
    pub accept_shrunk: bool,
    /// Forget even if most of a source would go and something about it is strange
    #[arg(long, help_heading = "Rules", requires = "rules")]
    pub release_brake: bool,
}

fn count() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..)
}

#[derive(Debug, ClapArgs)]
pub struct Hold {
    #[command(subcommand)]
    pub verb: HoldVerb,
}

/// What to do with holds.
#[derive(Debug, Subcommand)]
pub enum HoldVerb {
    /// Hold a snapshot: it cannot be forgotten
    Add(HoldAdd),
    /// Show the holds
    List,
    /// End a hold
    Remove {
        /// Digits of the hold's id
        hold: String,
    },
}

#[derive(Debug, ClapArgs)]
pub struct HoldAdd {
    /// Digits of an id, or `latest`
    pub snapshot: String,
    /// Why
    #[arg(long)]
    pub reason: String,
    /// The last day, a time, or how long: 2027-03-01, 2027-03-01T12:00:00Z, 90d [default: until it is removed]
    #[arg(long, value_name = "WHEN")]
    pub until: Option<String>,
    #[command(flatten)]
    pub filter: Filter,
}

/// What a run does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum KindArg {
    /// Back up what changed
    Incremental,
    /// Back up everything, trusting nothing
    Full,
    /// Check the repository, as deep as the policy says
    Verify,
    /// Give back what no snapshot needs, as the policy says
    Prune,
}

#[derive(Debug, ClapArgs)]
pub struct Run {
    /// Name of the policy
    pub policy: String,
    /// What to do
    #[arg(long, value_enum, default_value = "incremental")]
    pub kind: KindArg,
    /// Sources that became empty or a tenth of what they were are right as they are; said in the new snapshots
    #[arg(long)]
    pub accept_shrunk: bool,
    /// Cron, a timer or a CronJob starts it when it is due: waits as the policy's jitter and blackouts say, and does
    /// nothing if another run of the policy does its work
    #[arg(long)]
    pub scheduled: bool,
}

#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Exit codes: 0 healthy · 1 a last backup failed, or an objective is missed · 4 a region is behind · 5 damage is known"
)]
pub struct Status {
    /// The oldest that the last successful backup of a source may be, as in 26h, 90m, 7d
    #[arg(long, value_name = "DURATION")]
    pub rpo: Option<String>,
    /// Ask the regions instead of the catalog; needs the key, and knows of no verification
    #[arg(long)]
    pub from_regions: bool,
    /// Look again every so many seconds, 5 if none are given, until interrupted
    #[arg(long, value_name = "SECONDS", num_args = 0..=1)]
    pub watch: Option<Option<u64>>,
}

#[derive(Debug, ClapArgs)]
pub struct Runs {
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub last: usize,
    /// Only of this source
    #[arg(long, value_name = "NAME")]
    pub source: Option<String>,
    /// Only those that did not end with exit code 0
    #[arg(long)]
    pub failed: bool,
    /// Ask the regions instead of the catalog; needs the key
    #[arg(long)]
    pub from_regions: bool,
}

#[derive(Debug, ClapArgs)]
pub struct Catalog {
    #[command(subcommand)]
    pub verb: CatalogVerb,
}

/// What to do with the catalog.
#[derive(Debug, Subcommand)]
pub enum CatalogVerb {
    /// Read runs and snapshots back from the regions
    Rebuild,
}

#[derive(Debug, ClapArgs)]
pub struct Key {
    #[command(subcommand)]
    pub verb: KeyVerb,
}

/// What to do with keys.
#[derive(Debug, Subcommand)]
pub enum KeyVerb {
    /// Make a slot for a new secret
    Add(KeyAdd),
    /// Show the slots
    List,
    /// Close a slot; what is written from then on has new keys
    Remove {
        /// Digits of the slot's id
        slot: String,
    },
    /// Say which slot the given secret opens; changes nothing
    Test,
}

#[derive(Debug, ClapArgs)]
pub struct KeyAdd {
    /// File with a new passphrase
    #[arg(long, value_name = "FILE", group = "new")]
    pub new_passphrase_file: Option<PathBuf>,
    /// Make a new key file here
    #[arg(long, value_name = "FILE", group = "new")]
    pub new_key_file: Option<PathBuf>,
    /// Make a new recovery key and show it once
    #[arg(long, group = "new")]
    pub new_recovery_key: bool,
    /// Write the new recovery key to a new file instead
    #[arg(long, value_name = "FILE", group = "new")]
    pub new_recovery_key_file: Option<PathBuf>,
    /// A name for people
    #[arg(long, default_value = "")]
    pub label: String,
    /// Accept a passphrase that can be guessed
    #[arg(long)]
    pub weak_passphrase: bool,
}

#[derive(Debug, ClapArgs)]
pub struct Manifest {
    #[command(subcommand)]
    pub verb: ManifestVerb,
}

/// What to print.
#[derive(Debug, Subcommand)]
pub enum ManifestVerb {
    /// A policy as CronJobs, one for each of its schedules
    Cronjob(CronJobArgs),
}

#[derive(Debug, ClapArgs)]
pub struct CronJobArgs {
    /// Name of the policy
    pub policy: String,
    /// Namespace to write into the manifests [default: none]
    #[arg(long, value_name = "NAME")]
    pub namespace: Option<String>,
    /// Image with the program at /holdfast/bin/holdfast [default: holdfast:VERSION]
    #[arg(long)]
    pub image: Option<String>,
    /// A ConfigMap that has the configuration [default: one with the policy and its repository is printed]
    #[arg(long, value_name = "NAME")]
    pub config_map: Option<String>,
    /// The Secret with the passphrase, and its key [default: holdfast-REPOSITORY/passphrase]
    #[arg(long = "secret", value_name = "NAME[/KEY]")]
    pub secret_name: Option<String>,
    /// A PersistentVolumeClaim, or a folder of it, and where it is mounted; repeat for more. /holdfast/state keeps the
    /// catalog [default: a name made of the path, or of repository and region]
    #[arg(long, value_name = "PATH=CLAIM[/FOLDER]")]
    pub claim: Vec<String>,
    /// User and group; 0 reads files of every owner, and is refused where pods are restricted [default: 65532]
    #[arg(long, value_name = "UID[:GID]")]
    pub run_as: Option<String>,
    /// Stop a run that takes longer: 90m, 12h, 2d [default: none]
    #[arg(long, value_name = "DURATION")]
    pub active_deadline: Option<String>,
    /// Memory that a pod may use
    #[arg(long, value_name = "QUANTITY", default_value = "2Gi")]
    pub memory: String,
}
