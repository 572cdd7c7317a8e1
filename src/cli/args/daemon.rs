//! Arguments of `holdfast daemon`.

use clap::Args as ClapArgs;

#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Signals: HUP reads the configuration again · TERM and INT start nothing more and wait for runs at work, the second one stops them\nExit codes: 0 stopped, all runs at work had ended · 130 runs at work were stopped · with --once the worst of all runs"
)]
pub struct Daemon {
    /// Run what is due or overdue now, wait for it, and end
    #[arg(long)]
    pub once: bool,
    /// Most runs at the same time
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = at_least_one())]
    pub runs: usize,
    /// Most runs at the same time into one repository
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = at_least_one())]
    pub runs_per_repository: usize,
    /// How often it is looked whether a region that was behind answers again and can be brought up
    #[arg(long, value_name = "DURATION", default_value = "15m")]
    pub replicate_every: String,
    /// How long runs at work may take to end after a signal
    #[arg(long, value_name = "DURATION", default_value = "60s")]
    pub stop_within: String,
}

fn at_least_one() -> impl clap::builder::TypedValueParser<Value = usize> {
    use clap::builder::TypedValueParser;
    clap::value_parser!(u32).range(1..=1000).map(|n| n as usize)
}
