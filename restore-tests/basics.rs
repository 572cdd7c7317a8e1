//! The main road: back up, look, verify, restore, forget.

use crate::harness::{Bench, assert_same, small_tree};

#[test]
fn what_went_in_comes_out() {
    let bench = Bench::new(&["a", "b"]);
    let source = bench.path("source");
    small_tree(&source);
    let text = source.display().to_string();
    let first = bench.ok(&["backup", &text]);
    assert_eq!(first["regions"].as_array().map(Vec::len), Some(2));
    assert!(first["chunks_new"].as_u64() > Some(40));
    let again = bench.ok(&["backup", &text]);
    assert_eq!(again["bytes_read"], 0);
    assert_eq!(again["files_unchanged"], first["files"]);
    bench.ok(&["verify", "--level", "content"]);
    let target = bench.path("target");
    bench.ok(&["restore", "latest", "--target", &target.display().to_string()]);
    assert_same(&source, &target);
}

#[test]
fn a_repository_below_its_own_source_does_not_hold_itself() {
    let bench = Bench::new(&["a", "b"]);
    small_tree(&bench.path("source"));
    let all = bench.dir.path().display().to_string();
    let first = bench.ok(&["backup", "--name", "all", &all]);
    assert_eq!(first["excluded"], 3, "the two regions and the local index: {first:#}");
    let again = bench.ok(&["backup", "--name", "all", &all]);
    assert_eq!(again["files"], first["files"], "nothing of the repository was read: {again:#}");
    let target = bench.path("target");
    bench.ok(&["restore", "latest", "--target", target.to_str().unwrap()]);
    assert_same(&bench.path("source"), &target.join("source"));
    assert_eq!(std::fs::read_dir(target.join("region-a")).unwrap().count(), 0);
}
