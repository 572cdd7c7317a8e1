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

/// Their seeds.
const FOUND: [&str; 20] = [
    "899", "968", "p21", "p86", "p137", "p175", "p511", "p579", "p797", "p1165", "p1650", "o63", "o165", "o784",
    "o6199", "o908", "o2897", "o3609", "o3804", "o6371",
];

fn part(number: u64) {
    const HISTORIES: u64 = 50;
    let all = campaign((number * HISTORIES..(number + 1) * HISTORIES).map(Plan::nth));
    for outcome in &all {
        let figures = &outcome.figures;
        assert!(
            figures.steps >= history::STEPS_MIN && figures.crashes > 0,
            "seed {} is too short: {figures:?}",
            outcome.plan
        );
    }
    // More than half of all of them; of fifty there may be some less.
    let overlaps = all.iter().filter(|outcome| outcome.overlaps > 0).count();
    assert!(overlaps * 5 >= all.len() * 2, "a prune began beside somebody at work in {overlaps} of {}", all.len());
}

macro_rules! parts {
    ($($name:ident $number:literal)*) => { $(#[test] fn $name() { part($number); })* };
}

parts! {
    fifty_histories_0 0 fifty_histories_1 1 fifty_histories_2 2 fifty_histories_3 3 fifty_histories_4 4
    fifty_histories_5 5 fifty_histories_6 6 fifty_histories_7 7 fifty_histories_8 8 fifty_histories_9 9
}

/// Histories in which something was found that is mended, beside those above.
#[test]
fn what_was_found_once_is_not_found_again() {
    campaign(FOUND.iter().map(|seed| Plan::parse(seed).expect("a seed")));
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

fn range(asked: &str) -> Vec<Plan> {
    let one = |seed| vec![Plan::parse(seed).expect("a seed, and what is left out")];
    let Some((from, to)) = asked.split_once("..") else { return one(asked) };
    let number = |text: &str| text.parse::<u64>().expect("a number");
    // All in their order, or those of one kind.
    match from.split_at(1) {
        ("p", from) => (number(from)..number(to)).map(Plan::with_prunes).collect(),
        ("o", from) => (number(from)..number(to)).map(Plan::with_overlap).collect(),
        _ => (number(from)..number(to)).map(Plan::nth).collect(),
    }
}

/// `HOLDFAST_SIMULATE=SEED` shows one history; `FROM..TO`, `found`, or several of these run many.
#[test]
fn as_asked() {
    let Ok(asked) = std::env::var("HOLDFAST_SIMULATE") else { return };
    let asked = asked.replace("found", &FOUND.join(" "));
    let words: Vec<&str> = asked.split_whitespace().collect();
    if words.len() != 1 || asked.contains("..") {
        history::many(words.into_iter().flat_map(range).collect());
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
