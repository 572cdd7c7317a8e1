//! A prune that is cut off at any instant, and whatever fails under it.

use super::{ANEW, NOW, Versions, clean, comes_back, forget, packs, prune, versions};
use crate::crash::{KILLED, complete_alone, interfere, restores, sids, sweep};
use crate::harness::Bench;
use std::path::PathBuf;

fn prepared() -> Versions {
    let versions = versions(&["a", "b"]);
    forget(&versions.bench, &versions.sids[0]);
    forget(&versions.bench, &versions.sids[1]);
    versions
}

fn kept_stands(versions: &Versions, case: &Bench, context: &str) {
    assert_eq!(sids(case, context), [versions.sids[2].as_str()], "{context}");
    complete_alone(case, context);
    comes_back(versions, case, 2, context);
}

#[test]
fn any_instant_crash_of_a_prune() {
    let versions = prepared();
    let done = versions.bench.copy();
    prune(&done);
    let left = packs(&done, "a");
    sweep("prune", &versions.bench, &NOW, |case, code, context| {
        kept_stands(&versions, case, context);
        if code == 0 {
            assert_eq!((packs(case, "a"), packs(case, "b")), (left.clone(), left.clone()), "{context}");
        }
        prune(case);
        assert_eq!((packs(case, "a"), packs(case, "b")), (left.clone(), left.clone()), "{context}");
        kept_stands(&versions, case, context);
        clean(case, context);
    });
}

/// A prune that goes on with the epoch of one that died.
#[test]
fn any_instant_crash_of_a_prune_that_goes_on_for_another() {
    let versions = prepared();
    let bench = &versions.bench;
    super::races::condemn_everything(bench);
    sweep("adopted", bench, &NOW, |case, _, context| {
        kept_stands(&versions, case, context);
        // For an announcement without an outcome the next prune would make an end, which stays for ever.
        for region in ["a", "b"] {
            let there = |folder: &str, sid: &String| case.region(region).join(folder).join(sid).exists();
            let left = versions.sids.iter().filter(|sid| there("sessions", sid) && !there("snapshots", sid));
            assert_eq!(left.count(), 0, "{context}: a manifest went before its announcement in region {region}");
        }
        prune(case);
        kept_stands(&versions, case, context);
        for region in ["a", "b"] {
            let left = case.objects(region).into_iter().filter(|object| object.starts_with("snapshots/"));
            assert_eq!(left.collect::<Vec<_>>(), [format!("snapshots/{}", versions.sids[2])], "{context}");
        }
        clean(case, context);
    });
}

/// A repository with ten index segments, its source and the last snapshot.
fn many_segments() -> (Bench, PathBuf, String) {
    let bench = Bench::with_key(&["a", "b"]);
    let source = bench.path("source");
    let mut last = String::new();
    for version in 0..10 {
        super::write(&source.join(format!("part-{version}")), version);
        last = super::backup(&bench, &source);
    }
    (bench, source, last)
}

fn segments(case: &Bench, region: &str) -> usize {
    case.objects(region).iter().filter(|o| o.starts_with("index/") && !o.contains('#')).count()
}

#[test]
fn any_instant_crash_of_a_merge() {
    let (bench, source, last) = many_segments();
    sweep("merge", &bench, &NOW, |case, _, context| {
        complete_alone(case, context);
        restores(case, &last, &source, context);
        prune(case);
        assert_eq!((segments(case, "a"), segments(case, "b")), (1, 1), "{context}");
        restores(case, &last, &source, context);
        clean(case, context);
    });
}

/// Between publishing the one and removing the many, in the regions one after the other: the next merge removes what is left.
#[test]
fn a_merge_that_is_cut_short_anywhere_in_its_removals_is_finished() {
    let (bench, ..) = many_segments();
    let mut left = std::collections::BTreeSet::new();
    let counted = interfere(&bench.copy(), "count", 0, &NOW).steps;
    for n in 1..=counted.iter().filter(|step| *step == "unlink").count() {
        let case = bench.copy();
        assert_eq!(interfere(&case, "kill:unlink", n, &NOW).code, KILLED);
        let (a, b) = (segments(&case, "a"), segments(&case, "b"));
        if a > 10 || a == 1 && b == 1 || !left.insert((a, b)) {
            continue;
        }
        prune(&case);
        assert_eq!((segments(&case, "a"), segments(&case, "b")), (1, 1), "{a} and {b} were left");
        clean(&case, &format!("{a} and {b} were left"));
    }
    assert!(left.len() > 8, "{left:?}");
}

/// Packs are written anew, and the old ones go, in the same run.
#[test]
fn any_instant_crash_of_a_prune_that_writes_packs_anew() {
    let versions = prepared();
    sweep("repack", &versions.bench, &ANEW, |case, _, context| {
        kept_stands(&versions, case, context);
        case.ok(&ANEW);
        kept_stands(&versions, case, context);
        clean(case, context);
    });
}
