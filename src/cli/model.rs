//! `holdfast model`.

use super::args::ModelVerb;
use super::common::Context;
use super::output::Outcome;
use super::{model_check, model_diff, model_ls};
use crate::error::Result;

pub fn run(context: &Context, verb: &ModelVerb) -> Result<Outcome> {
    match verb {
        ModelVerb::Check(args) => model_check::run(context, args),
        ModelVerb::Ls(args) => model_ls::run(context, args),
        ModelVerb::Diff(args) => model_diff::run(context, args),
    }
}
