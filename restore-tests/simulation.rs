//! Histories of several actors on regions that fail, by the real code and from a seed: whatever happens, every snapshot that a
//! region shows is complete there, and in the end everything is given back (docs/simulation.md).

mod actors;
mod fault;
mod files;
mod history;
mod model;
mod plan;
mod region;
mod rng;
mod walk;
mod world;

use fault::{Fault, Kind, On};
use history::{Outcome, run};
use plan::Plan;

/// Runs histories of these seeds; what fails is made as small as it goes.
fn campaign(plans: impl Iterator<Item = Plan>) -> Vec<Outcome> {
    let mut done = Vec::new();
    for plan in plans {
        let outcome = run(&plan, false);
        if !outcome.wrong.is_empty() {
            panic!("{}", history::explain(outcome));
        }
        done.push(outcome);
    }
    done
}

fn part(number: u64) {
    const HISTORIES: u64 = 30;
    let seeds = number * HISTORIES / 2..(number + 1) * HISTORIES / 2;
    let all = campaign(seeds.flat_map(|seed| [Plan::of(seed), Plan::with_prunes(seed)]));
    for outcome in &all {
        let figures = &outcome.figures;
        assert!(
            figures.steps >= history::STEPS_MIN && figures.crashes > 0,
            "seed {} is too short: {figures:?}",
            outcome.plan
        );
    }
}

macro_rules! parts {
    ($($name:ident $number:literal)*) => { $(#[test] fn $name() { part($number); })* };
}

parts! {
    thirty_histories_0 0 thirty_histories_1 1 thirty_histories_2 2 thirty_histories_3 3 thirty_histories_4 4
    thirty_histories_5 5 thirty_histories_6 6 thirty_histories_7 7 thirty_histories_8 8 thirty_histories_9 9
}

#[test]
fn a_history_follows_from_its_seed() {
    // Without repairs: what is set aside has a name that follows from an error's text, and that from where a store is mounted.
    for plan in [Plan::of(3), Plan::of(14), Plan::with_prunes(92)] {
        let (first, second) = (run(&plan, true), run(&plan, true));
        // But for the place at which it was mounted.
        let same = |line: &String, number: u64| line.replace(&format!("/simulated/{number}/"), "/simulated/");
        let lines = first.told.iter().map(|line| same(line, first.number));
        let differ =
            lines.zip(second.told.iter().map(|line| same(line, second.number))).find(|(one, other)| one != other);
        assert_eq!(differ, None, "seed {plan}");
        assert_eq!(first.figures.trace, second.figures.trace);
    }
}

/// A check that cannot fail proves nothing.
#[test]
fn what_is_eaten_is_noticed_and_the_smallest_history_still_shows_it() {
    let mut found = Vec::new();
    for seed in 0..2 {
        let plan = Plan::of(seed).with(Fault { kind: Kind::Eaten, from: 200, on: On::Any, region: None, actor: None });
        let outcome = run(&plan, false);
        if !outcome.wrong.is_empty() {
            found.push(history::shrink(outcome));
        }
    }
    assert!(!found.is_empty(), "a pack was removed in two histories, and nobody saw it");
    for outcome in found {
        assert!(outcome.wrong[0].starts_with("visible-means-complete"), "{:?}", outcome.wrong);
        assert_eq!(outcome.plan.faults.len(), 1, "{}", outcome.plan);
        let deeds: usize = outcome.plan.actors.iter().map(|actor| actor.deeds.len()).sum();
        assert!(deeds <= 6, "{}", outcome.plan);
    }
}

/// `HOLDFAST_SIMULATE=SEED` shows one history, `FROM..TO` runs many.
#[test]
fn as_asked() {
    let Ok(asked) = std::env::var("HOLDFAST_SIMULATE") else { return };
    if let Some((from, to)) = asked.split_once("..") {
        let number = |text: &str| text.parse::<u64>().expect("a number");
        // Of each seed both histories, or those with prunes alone.
        let with = match from.strip_prefix('p') {
            Some(from) => (number(from)..number(to)).map(Plan::with_prunes).collect(),
            None => (number(from)..number(to)).flat_map(|n| [Plan::of(n), Plan::with_prunes(n)]).collect(),
        };
        history::many(with);
        return;
    }
    let plan = Plan::parse(&asked).expect("a seed, and what is left out");
    let outcome = run(&plan, true);
    outcome.told.iter().for_each(|line| println!("{line}"));
    for (n, actor) in plan.actors.iter().enumerate() {
        println!("actor {n}: {:?}", actor.deeds);
    }
    plan.faults.iter().for_each(|fault| println!("{fault:?}"));
    println!("regions {}, liar {:?}, copies {}", plan.regions, plan.liar, plan.copies_min);
    println!("{:?}", outcome.figures);
    assert!(outcome.wrong.is_empty(), "{:#?}", outcome.wrong);
}
