//! Arguments of `holdfast replicate` and `holdfast region`.

use crate::policy::Rate;
use clap::{Args as ClapArgs, Subcommand};

#[derive(Debug, ClapArgs)]
pub struct Replicate {
    /// Only say what each region lacks
    #[arg(long)]
    pub dry_run: bool,
    /// Most bytes a second that are written to each region: 10MiB/s
    #[arg(long, value_name = "RATE", value_parser = Rate::parse)]
    pub limit_upload: Option<Rate>,
}

#[derive(Debug, ClapArgs)]
pub struct Region {
    #[command(subcommand)]
    pub verb: RegionVerb,
}

#[derive(Debug, Subcommand)]
pub enum RegionVerb {
    /// Show which regions the repository has, and how they are
    List,
    /// Fill a new region and make it a member
    Add(RegionAdd),
    /// Take a region out, once the others have all that it has
    Remove(RegionRemove),
    /// Bring a region forward that was emptied, replaced or rolled back
    Repair(RegionRepair),
}

#[derive(Debug, ClapArgs)]
pub struct RegionAdd {
    /// Its name and an empty place
    #[arg(value_name = "NAME=URL")]
    pub new: String,
}

#[derive(Debug, ClapArgs)]
pub struct RegionRemove {
    /// Its name, or digits of its id
    pub name: String,
    /// It will never answer again: what only it had is lost
    #[arg(long)]
    pub lost: bool,
    /// Believe the listings of the regions that stay, and do not read everything there first
    #[arg(long, conflicts_with = "lost")]
    pub trust_listings: bool,
}

#[derive(Debug, ClapArgs)]
pub struct RegionRepair {
    /// Its name in the configuration
    pub name: String,
    /// Its place was emptied or its disk replaced: what it had is gone
    #[arg(long)]
    pub emptied: bool,
}
