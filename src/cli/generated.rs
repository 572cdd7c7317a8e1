//! `holdfast completions` and `man`: made of the arguments as they are.

use super::args::{Args, Completions, Man};
use super::common::Context;
use super::output::Outcome;
use crate::error::{Error, Exit, Kind, Result};
use clap::CommandFactory;
use serde_json::json;
use std::io::Write;
use std::path::Path;

/// What the program is called.
const NAME: &str = "holdfast";
/// What stands at the foot of each page.
const SOURCE: &str = concat!("holdfast ", env!("CARGO_PKG_VERSION"));

pub fn completions(context: &Context, args: &Completions) -> Result<Outcome> {
    if context.global.json {
        return Err(Error::new(Kind::Config, "completions prints a script; --json has no place here"));
    }
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Args::command(), NAME, &mut script);
    let mut out = std::io::stdout().lock();
    out.write_all(&script)
        .and_then(|()| out.flush())
        .map_err(|_| Error::new(Kind::Cancelled, "the output was closed"))?;
    Ok(Outcome::silent(Exit::Done))
}

pub fn man(args: &Man) -> Result<Outcome> {
    let failed = |e: std::io::Error| {
        Error::new(Kind::Source, format!("cannot write the pages: {}", e.kind())).at(args.dir.display())
    };
    std::fs::create_dir_all(&args.dir).map_err(failed)?;
    let mut command = Args::command();
    // Options of every verb stand in every page only once they were handed down.
    command.build();
    let mut pages = Vec::new();
    page(&command, NAME, &args.dir, &mut pages).map_err(failed)?;
    let text = format!("wrote {} pages into {}\n", pages.len(), args.dir.display());
    Ok(Outcome::new(Exit::Done, text, json!({"verb": "man", "pages": pages})))
}

/// Writes the page of a command, and those of the commands below it.
fn page(command: &clap::Command, name: &str, dir: &Path, pages: &mut Vec<String>) -> std::io::Result<()> {
    let file = format!("{name}.1");
    let mut text = Vec::new();
    clap_mangen::Man::new(command.clone()).title(name).source(SOURCE).render(&mut text)?;
    std::fs::write(dir.join(&file), text)?;
    pages.push(file);
    for below in command.get_subcommands().filter(|below| !below.is_hide_set() && below.get_name() != "help") {
        page(below, &format!("{name}-{}", below.get_name()), dir, pages)?;
    }
    Ok(())
}
