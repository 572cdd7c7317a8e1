//! Arguments of `holdfast prune`.

use clap::Args as ClapArgs;

/// Eight digits of an id, or more.
fn id_prefix(text: &str) -> Result<String, String> {
    let fits = (8..=32).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if fits { Ok(text.to_owned()) } else { Err("write 8 to 32 digits of a snapshot's id".to_owned()) }
}

#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Takes no lock: backups, restores, replication and other prunes go on beside it. Every region must answer. What is cut off is \
carried through by the next prune.\n\nExit codes: 0 done, also where a store keeps locked objects for later · 1 a region does not answer · 4 a \
region was not finished · 5 something that must be known is damaged or missing; nothing was removed · 11 a source would lose its last snapshot: \
it stays; or a hold cannot be read"
)]
pub struct Prune {
    /// Only say what would go, and why
    #[arg(long, short = 'n')]
    pub dry_run: bool,
    /// Write packs anew of which more than this is needed by nobody, percent; 100: none
    #[arg(long, value_name = "PERCENT", default_value_t = 50, help_heading = "Repacking", value_parser = clap::value_parser!(u8).range(1..=100))]
    pub repack_above: u8,
    /// At most so many bytes of packs are written anew in one run
    #[arg(long, value_name = "SIZE", default_value = "4GiB", help_heading = "Repacking")]
    pub repack_max: String,
    /// Small packs are put together where there are at least so many
    #[arg(long, value_name = "COUNT", default_value_t = crate::ops::prune::SMALL_MIN, help_heading = "Repacking")]
    pub repack_small: usize,
    /// How long runs at work are waited for before they have to begin a new session
    #[arg(long, value_name = "DURATION", default_value = "10m", help_heading = "Patience")]
    pub wait: String,
    /// A run that stored nothing for so long is taken for dead; what it left goes
    #[arg(long, value_name = "DURATION", default_value = "30m", help_heading = "Patience")]
    pub dead_after: String,
    /// How long readers are left with the old index before further copies of what they may read go; who misses one reads the
    /// index again
    #[arg(long, value_name = "DURATION", default_value = "0s", help_heading = "Patience")]
    pub grace: String,
    /// Nothing new is begun after so long: what is over waits for the next run
    #[arg(long, value_name = "DURATION", help_heading = "Bounds")]
    pub stop_after: Option<String>,
    /// At most so many objects are removed from each region
    #[arg(long, value_name = "COUNT", help_heading = "Bounds")]
    pub removals_max: Option<u64>,
    /// This source may lose its last snapshot; repeat for more
    #[arg(long, value_name = "NAME")]
    pub last: Vec<String>,
    /// This snapshot is gone from every region and will not come back: go on without it; repeat for more
    #[arg(long, value_name = "ID", value_parser = id_prefix)]
    pub lost: Vec<String>,
}
