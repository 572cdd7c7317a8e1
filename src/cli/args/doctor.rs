//! Arguments of `holdfast doctor`.

use clap::Args as ClapArgs;

#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Exit codes: 0 nothing bad · 1 fewer than copies.min regions can be used · 4 a region cannot be used · 5 damage or a rollback · 12 the key that was given opens nothing"
)]
pub struct Doctor {
    /// Measure throughput also where the 8 MiB that are written for it cannot be removed
    #[arg(long)]
    pub throughput: bool,
}
