//! Arguments of `holdfast tag`.

use super::Filter;
use clap::Args as ClapArgs;

#[derive(Debug, ClapArgs)]
#[command(group = clap::ArgGroup::new("change").args(["add", "remove", "set", "clear"]).multiple(true).required(true))]
#[command(
    after_help = "A snapshot is never changed: the change is kept beside it, signed. The tag `may-shrink` says that a snapshot is right as it \
is, however small.\n\nExit codes: 0 done, also if nothing was to change · 4 a region is behind"
)]
pub struct Tag {
    /// Digits of ids, or `latest`
    #[arg(required = true)]
    pub snapshot: Vec<String>,
    /// A tag to put on; repeat for more
    #[arg(long, value_name = "TAG")]
    pub add: Vec<String>,
    /// A tag to take off; repeat for more
    #[arg(long, value_name = "TAG")]
    pub remove: Vec<String>,
    /// Have this tag and none but those given so; repeat for more
    #[arg(long, value_name = "TAG", conflicts_with_all = ["add", "remove"])]
    pub set: Vec<String>,
    /// Take all tags off
    #[arg(long, conflicts_with_all = ["add", "remove", "set"])]
    pub clear: bool,
    #[command(flatten)]
    pub filter: Filter,
}
