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
    #[arg(long, value_name = "FILE", help_heading = "etcd", env = "ETCDCTL_CERT", requires = "etcd_key")]
    pub etcd_cert: Option<PathBuf>,
    /// Its key
    #[arg(long, value_name = "FILE", help_heading = "etcd", env = "ETCDCTL_KEY", requires = "etcd_cert")]
    pub etcd_key: Option<PathBuf>,
    /// User, where etcd asks for one
    #[arg(long, value_name = "NAME", help_heading = "etcd", requires = "etcd_password_file")]
    pub etcd_user: Option<String>,
    /// File with the user's password
    #[arg(long, value_name = "FILE", help_heading = "etcd", requires = "etcd_user")]
    pub etcd_password_file: Option<PathBuf>,
    /// Take another cluster than before, or one that went back to an older state: after a restore
    #[arg(long, help_heading = "etcd")]
    pub new_cluster: bool,
}

/// A database out of a snapshot of etcd.
#[derive(Debug, ClapArgs)]
pub struct EtcdTarget {
    /// Write the database of a snapshot of etcd into this new file, as `etcdutl snapshot restore` takes it
    #[arg(long, value_name = "FILE", help_heading = "etcd", conflicts_with_all = ["target", "tar", "delete", "dry_run", "no_owner", "no_xattrs", "no_devices", "include", "exclude"])]
    pub to: Option<PathBuf>,
    /// At this revision, instead of the newest one
    #[arg(long, value_name = "N", help_heading = "etcd", requires = "to", value_parser = clap::value_parser!(i64).range(1..))]
    pub revision: Option<i64>,
    /// Move the revision up by so much, and count what is below as compacted, so that no client takes a revision that it
    /// remembers for one of the restored cluster: 1000000000
    #[arg(long, value_name = "N", help_heading = "etcd", requires = "to", value_parser = clap::value_parser!(i64).range(1..))]
    pub bump_revision: Option<i64>,
}
