//! `holdfast model`.

use super::args::ModelVerb;
use super::common::Context;
use super::model_check;
use super::output::Outcome;
use crate::error::Result;

pub fn run(context: &Context, verb: &ModelVerb) -> Result<Outcome> {
    match verb {
        ModelVerb::Check(args) => model_check::run(context, args),
    }
}
