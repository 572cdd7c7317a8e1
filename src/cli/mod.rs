//! The command line: one file a verb. The only place that prints.

mod args;
mod backup;
mod browse;
mod coming;
mod common;
mod configuration;
mod copy;
mod daemon;
mod diff;
mod doctor;
mod dump;
mod etcd;
mod find;
mod forget;
mod found;
mod generated;
mod hold;
mod init;
mod key;
mod manifest;
mod model;
mod model_check;
mod model_diff;
mod model_ls;
mod named;
mod output;
mod paths;
mod policy;
mod policy_diff;
mod progress;
mod prune;
mod quickstart;
mod recorded;
mod region;
mod repair;
mod replicate;
mod restore;
mod run;
mod runs;
mod snapshots;
mod stats;
mod status;
mod tag;
mod tensors;
mod verdicts;
mod verify;

use crate::base::memory;
use crate::error::{Error, Exit, Kind};
use args::{Args, Verb};
use clap::Parser;
use common::Context;
use output::Outcome;

/// Parses, runs one verb, prints, and returns the exit code.
pub fn main() -> u8 {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(e) if e.use_stderr() && json_is_wanted() => return output::print_error(&usage(&e), true),
        Err(e) => {
            let code = if e.use_stderr() { Exit::Usage as u8 } else { 0 };
            // A closed output cannot be told anything.
            let _ = e.print();
            return code;
        }
    };
    memory::give_large_buffers_back();
    raise_descriptor_limit();
    let json = args.global.json;
    let done =
        Context::new(args.global).and_then(|context| Ok(run(&context, args.verb)?.with_requests(&context.requests())));
    match done {
        Ok(outcome) => outcome.print(json),
        Err(e) => output::print_error(&e, json),
    }
}

fn run(context: &Context, verb: Verb) -> Result<Outcome, Error> {
    match verb {
        Verb::Quickstart(args) => quickstart::run(context, &args),
        Verb::Init(args) => init::run(context, &args),
        Verb::Backup(args) => match etcd::address(&args)? {
            Some(address) => etcd::backup(context, &args, address),
            None => backup::run(context, &args),
        },
        Verb::Snapshots(args) => snapshots::run(context, &args),
        Verb::Ls(args) => browse::ls(context, &args),
        Verb::Cat(args) => browse::cat(context, &args),
        Verb::Find(args) => find::run(context, &args),
        Verb::Diff(args) => diff::run(context, &args),
        Verb::Stats(args) => stats::run(context, &args),
        Verb::Dump(args) => dump::run(context, &args),
        Verb::Restore(args) => match &args.tar {
            Some(file) => dump::restore(context, &args, file),
            None if !args.pick.tensors.is_empty() => tensors::restore(context, &args),
            None => restore::run(context, &args),
        },
        Verb::Copy(args) => copy::run(context, &args),
        Verb::Verify(args) => verify::run(context, &args),
        Verb::Repair(args) => match args.verb {
            args::RepairVerb::Index => repair::index(context),
        },
        Verb::Replicate(args) => replicate::run(context, &args),
        Verb::Region(args) => region::run(context, &args.verb),
        Verb::Forget(args) => forget::run(context, &args),
        Verb::Prune(args) => prune::run(context, &args),
        Verb::Tag(args) => tag::run(context, &args),
        Verb::Hold(args) => hold::run(context, &args.verb),
        Verb::Run(args) => run::run(context, &args),
        Verb::Daemon(args) => daemon::run(context, &args),
        Verb::Key(args) => key::run(context, &args.verb),
        Verb::Policy(args) => policy::run(context, &args.verb),
        Verb::Status(args) => status::run(context, &args),
        Verb::Doctor(args) => doctor::run(context, &args),
        Verb::Runs(args) => runs::run(context, &args),
        Verb::Catalog(args) => match args.verb {
            args::CatalogVerb::Rebuild => runs::rebuild(context),
        },
        Verb::Model(args) => model::run(context, &args.verb),
        Verb::Manifest(args) => manifest::run(context, &args.verb),
        Verb::Completions(args) => generated::completions(context, &args),
        Verb::Man(args) => generated::man(&args),
    }
}

/// Whether JSON is wanted, where the arguments cannot be understood.
fn json_is_wanted() -> bool {
    std::env::args_os().skip(1).take_while(|arg| arg != "--").any(|arg| arg == "--json")
}

/// What is wrong with the arguments: what it is, and what else was said of it.
fn usage(e: &clap::Error) -> Error {
    if e.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return Error::new(Kind::Config, "a verb is missing").advise("`holdfast --help` shows them");
    }
    let text = e.render().to_string();
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let what = lines.next().unwrap_or("wrong usage");
    let advice: Vec<&str> = lines.collect();
    let error = Error::new(Kind::Config, what.strip_prefix("error: ").unwrap_or(what));
    if advice.is_empty() { error } else { error.advise(advice.join("; ")) }
}

/// A restore of a deep tree holds many directories open.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Without the higher limit only very deep trees fail, and say so.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}
