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
