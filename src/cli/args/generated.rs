//! Arguments of the verbs that print what is made of the arguments.

use clap::Args as ClapArgs;
use clap_complete::Shell;
use std::path::PathBuf;

#[derive(Debug, ClapArgs)]
#[command(after_help = "bash: holdfast completions bash > /etc/bash_completion.d/holdfast\n\
zsh: holdfast completions zsh > \"${fpath[1]}/_holdfast\"\n\
fish: holdfast completions fish > ~/.config/fish/completions/holdfast.fish")]
pub struct Completions {
    /// Which shell
    #[arg(value_enum)]
    pub shell: Shell,
}

#[derive(Debug, ClapArgs)]
pub struct Man {
    /// Where the pages go, `holdfast.1` and one a verb; made if it is missing
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
}
