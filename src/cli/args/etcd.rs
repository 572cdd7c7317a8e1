//! Arguments that say how etcd is spoken to, and what is made of its snapshots.

use clap::Args as ClapArgs;
use std::path::PathBuf;

/// How the members of a cluster are spoken to.
#[derive(Debug, ClapArgs)]
pub struct EtcdSource {
    /// Certificates of the authorities that etcd's servers are believed by [default: the system's]
    #[arg(long, value_name = "FILE", help_heading = "etcd", env = "ETCDCTL_CACERT")]
    pub etcd_ca: Option<PathBuf>,
    /// Certificate to show to etcd
    #[arg(long, value_name = "FILE", help_heading = "etcd", env = "ETCDCTL_CERT")]
    pub etcd_cert: Option<PathBuf>,
    /// Its key
    #[arg(long, value_name = "FILE", help_heading = "etcd", env = "ETCDCTL_KEY")]
    pub etcd_key: Option<PathBuf>,
    /// User, where etcd asks for one
    #[arg(long, value_name = "NAME", help_heading = "etcd", requires = "etcd_password_file")]
    pub etcd_user: Option<String>,
    /// File with the user's password
    #[arg(long, value_name = "FILE", help_heading = "etcd", requires = "etcd_user")]
    pub etcd_password_file: Option<PathBuf>,
}

/// A database out of a snapshot of etcd.
#[derive(Debug, ClapArgs)]
pub struct EtcdTarget {
    /// Put the keys of SNAPSHOT:PREFIX into this living cluster, where they are not there: etcd://HOST:2379,HOST:2379
    #[arg(long, value_name = "ADDRESS", help_heading = "etcd", group = "puts", conflicts_with_all = ["target", "tar", "to", "etcd_data_dir", "delete", "no_owner", "no_xattrs", "no_devices", "include", "exclude"])]
    pub into: Option<String>,
    /// Give keys that are there with another value the snapshot's; put objects where there are some already; with
    /// --tensors, replace a file of the same name
    #[arg(long, help_heading = "etcd")]
    pub overwrite: bool,
    #[command(flatten)]
    pub source: EtcdSource,
    /// Write the database of a snapshot of etcd into this new file, as `etcdutl snapshot restore` takes it; or the files
    /// of any other snapshot into a bucket, as objects: s3://BUCKET/PREFIX
    #[arg(long, value_name = "FILE|URL", help_heading = "etcd", groups = ["database", "puts"], conflicts_with_all = ["target", "tar", "delete", "dry_run", "no_owner", "no_xattrs", "no_devices", "include", "exclude"])]
    pub to: Option<PathBuf>,
    /// Make the data folder of a member of a new cluster, by etcd's own tool; it must not exist, or be empty
    #[arg(long, value_name = "DIR", help_heading = "etcd", group = "database", requires_all = ["etcd_name", "etcd_cluster"], conflicts_with_all = ["target", "tar", "delete", "dry_run", "no_owner", "no_xattrs", "no_devices", "include", "exclude"])]
    pub etcd_data_dir: Option<PathBuf>,
    /// The member's name
    #[arg(long, value_name = "NAME", help_heading = "etcd", requires = "etcd_data_dir")]
    pub etcd_name: Option<String>,
    /// All members of the new cluster: NAME=https://10.0.0.11:2380,NAME=…
    #[arg(long, value_name = "MEMBERS", help_heading = "etcd", requires = "etcd_data_dir")]
    pub etcd_cluster: Option<String>,
    /// The new cluster's token, the same for all members and never used before [default: etcd-cluster]
    #[arg(long, value_name = "TOKEN", help_heading = "etcd", requires = "etcd_data_dir")]
    pub etcd_token: Option<String>,
    /// Let the revision be the snapshot's; a data folder begins a billion later otherwise
    #[arg(long, help_heading = "etcd", requires = "etcd_data_dir", conflicts_with = "bump_revision")]
    pub no_bump: bool,
    /// At this revision, instead of the newest one
    #[arg(long, value_name = "N", help_heading = "etcd", requires = "database", value_parser = clap::value_parser!(i64).range(1..))]
    pub revision: Option<i64>,
    /// As it was at this time, as far as the snapshot's changes tell it: 2027-03-01T12:00:00Z, or 90s for so long ago
    #[arg(long, value_name = "WHEN", help_heading = "etcd", requires = "database", conflicts_with = "revision")]
    pub time: Option<String>,
    /// Start a real etcd on a copy of the file, for a moment, and compare what it says of its keys
    #[arg(long, help_heading = "etcd", requires = "database")]
    pub check: bool,
    /// Folder with etcd's programs [default: PATH]
    #[arg(long, value_name = "DIR", help_heading = "etcd", requires = "database")]
    pub etcd_bin: Option<PathBuf>,
    /// Move the revision up by so much, and count what is below as compacted, so that no client takes a revision that it
    /// remembers for one of the restored cluster: 1000000000
    #[arg(long, value_name = "N", help_heading = "etcd", requires = "database", value_parser = clap::value_parser!(i64).range(1..))]
    pub bump_revision: Option<i64>,
}
