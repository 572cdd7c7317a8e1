//! Repair that is cut short, and regions that do not take it.

use crate::crash::{KILLED, complete_alone, fill, instants, interfere, regions_agree, restores, spread, text};
use crate::harness::{Bench, files};
use std::collections::BTreeSet;
use std::path::PathBuf;

const REPAIR: [&str; 4] = ["verify", "--level", "content", "--repair"];

/// Two regions, the first with a damaged pack, a damaged segment and a pack that is gone.
struct Spoilt {
    bench: Bench,
    source: PathBuf,
    sid: String,
    /// Object, its good bytes, its damaged ones.
    objects: Vec<(String, Vec<u8>, Option<Vec<u8>>)>,
}

fn spoilt() -> Spoilt {
    let bench = Bench::with_key(&["a", "b"]);
    let source = bench.path("source");
    fill(&source, 1, 12, 90_000);
    let sid = bench.ok(&["backup", text(&source)])["snapshot"].as_str().unwrap().to_owned();
    let find = |prefix: &str| bench.objects("a").into_iter().filter(|o| o.starts_with(prefix)).collect::<Vec<_>>();
    let (packs, segments) = (find("packs/"), find("index/"));
    assert!(packs.len() >= 2, "{packs:?}");
    let mut objects = Vec::new();
    for (object, gone) in [(&packs[0], false), (&segments[0], false), (&packs[1], true)] {
        let path = bench.region("a").join(object);
        let good = std::fs::read(&path).unwrap();
        let mut bad = good.clone();
        bad[good.len() / 2] ^= 4;
        if gone {
            std::fs::remove_file(&path).unwrap()
        } else {
            std::fs::write(&path, &bad).unwrap()
        }
        objects.push((object.clone(), good, (!gone).then_some(bad)));
    }
    Spoilt { bench, source, sid, objects }
}

/// At every key stands the damaged object or the good one, and where the good one stands the damaged one is kept.
fn nothing_is_lost(case: &Bench, was: &Spoilt, context: &str) {
    let kept: BTreeSet<Vec<u8>> =
        files(&case.region("a").join("quarantine")).iter().map(|file| std::fs::read(file).unwrap()).collect();
    for (object, good, bad) in &was.objects {
        let there = std::fs::read(case.region("a").join(object)).ok();
        let mended = there.as_ref() == Some(good);
        assert!(mended || there == *bad, "{context}: {object} is neither what it was nor good");
        let is_kept = bad.as_ref().is_none_or(|bad| kept.contains(bad));
        assert!(!mended || is_kept, "{context}: {object} was replaced and not kept");
    }
    restores(case, &was.sid, &was.source, context);
}

#[test]
fn any_instant_crash_of_a_repair() {
    let was = spoilt();
    let counted = interfere(&was.bench.copy(), "count", 0, &REPAIR);
    assert_eq!(counted.code, 5, "{}", counted.said);
    let mut killed = 0;
    for (what, at) in instants(&counted.steps) {
        let case = was.bench.copy();
        let ended = interfere(&case, &what, at, &REPAIR);
        let context = format!("{what} {at} of {}: {}", counted.steps.len(), ended.said);
        killed += usize::from(ended.code == KILLED);
        assert!(matches!(ended.code, KILLED | 5), "{context}");
        nothing_is_lost(&case, &was, &context);
        let (code, value) = case.json(&REPAIR);
        assert!(matches!(code, 0 | 5) && value["repair"]["left"] == 0, "{context}: {value:#}");
        nothing_is_lost(&case, &was, &context);
        regions_agree_but_for_what_is_kept(&case, &context);
    }
    assert!(killed > 8, "{killed} kills of {} steps", counted.steps.len());
}

fn regions_agree_but_for_what_is_kept(case: &Bench, context: &str) {
    let quarantine = case.region("a").join("quarantine");
    if quarantine.exists() {
        std::fs::remove_dir_all(quarantine).unwrap();
    }
    regions_agree(case, context);
}

#[test]
fn a_region_that_takes_nothing_is_left_as_it_is() {
    let was = spoilt();
    let counted = interfere(&was.bench.copy(), "count", 0, &REPAIR).steps.len();
    let mut left = 0;
    for (what, words) in [("once:5", "input/output error"), ("from:28", "no space")] {
        for at in spread(counted, 1) {
            let case = was.bench.copy();
            let ended = interfere(&case, what, at, &REPAIR);
            let context = format!("{what} {at} of {counted}: {}", ended.said);
            assert!(matches!(ended.code, 4 | 5), "{context}");
            nothing_is_lost(&case, &was, &context);
            left += usize::from(ended.said.to_lowercase().contains(words));
            let (_, value) = case.json(&REPAIR);
            assert_eq!(value["repair"]["left"], 0, "{context}: {value:#}");
            complete_alone(&case, &context);
        }
    }
    assert!(left > 4, "{left}");
}
