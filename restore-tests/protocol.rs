//! The retention protocol, searched through: every state of small worlds, in every order of steps. What is searched is a
//! model of what the program does, step by step; each rule of the protocol is taken away once, and must be missed.
//!
//! What was found, and how large the worlds are: `docs/protocol-check.md`.

mod actors;
mod check;
mod faults;
mod others;
mod prune;
mod rules;
mod scopes;
mod search;
mod sets;
mod state;
mod writer;

use rules::Rule;
use search::{Found, explore};
use state::Scope;

/// Most states of one scope; a scope that has more is no scope.
const STATES_MAX: usize = 40_000_000;

fn shown(scope: &Scope, found: &Found) -> String {
    let mut text = format!("{}: {} states, {} steps, depth {}", scope.name, found.states, found.steps, found.depth);
    if let Some((what, trace)) = &found.broken {
        text += &format!("\n  {what}");
        for (n, label) in trace.iter().enumerate() {
            text += &format!("\n  {:3}. {label}", n + 1);
        }
    }
    text
}

fn holds(scope: &Scope) {
    let found = explore(scope, STATES_MAX);
    println!("{}", shown(scope, &found));
    assert!(found.broken.is_none(), "{}", shown(scope, &found));
    assert!(!found.cut_off, "{}: more than {STATES_MAX} states", scope.name);
}

#[test]
fn every_state_of_one_region_is_good() {
    scopes::one_region().iter().for_each(holds);
}

#[test]
fn every_state_of_two_regions_is_good() {
    scopes::two_regions().iter().for_each(holds);
}

/// `just check-protocol` asks for the larger ones too.
#[test]
fn every_state_of_the_larger_scopes_is_good() {
    let wanted = std::env::var_os("HOLDFAST_PROTOCOL_LARGE").is_some();
    let larger = scopes::large();
    assert!(!larger.is_empty());
    larger.iter().filter(|_| wanted).for_each(holds);
}

/// A check that cannot fail proves nothing.
#[test]
fn each_rule_is_missed_when_it_is_taken_away() {
    let scopes = scopes::small();
    let missed = |rule: Rule| {
        let name = rules::scope_against(rule);
        let scope = scopes.iter().find(|scope| scope.name == name).unwrap().clone().without(rule);
        let found = explore(&scope, STATES_MAX);
        println!("without {rule:?}, {}", shown(&scope, &found));
        found.broken.is_some()
    };
    let unmissed: Vec<Rule> = rules::ALL.iter().copied().filter(|rule| !missed(*rule)).collect();
    assert!(unmissed.is_empty(), "nothing happens without {unmissed:?}");
}
