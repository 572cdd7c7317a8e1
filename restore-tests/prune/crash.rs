//! A prune that is cut off at any instant, and whatever fails under it.

use super::{NOW, Versions, clean, comes_back, forget, packs, prune, versions};
use crate::crash::{complete_alone, sids, sweep};
use crate::harness::Bench;

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

/// Packs are written anew, and the old ones go, in the same run.
#[test]
fn any_instant_crash_of_a_prune_that_writes_packs_anew() {
    let versions = prepared();
    let args = [&NOW[..7], &["--repack-above", "10"]].concat();
    sweep("repack", &versions.bench, &args, |case, _, context| {
        kept_stands(&versions, case, context);
        case.ok(&args);
        kept_stands(&versions, case, context);
        clean(case, context);
    });
}
