//! Snapshots in another repository: everything comes over, once, and under other keys.

use crate::harness::{Bench, assert_same, files, noise, small_tree};
use crate::reader::{tree, walk};
use serde_json::{Value, json};
use std::fs;

/// A repository, and another with a key and regions of its own.
struct Two {
    from: Bench,
    to: Bench,
}

impl Two {
    fn new() -> Two {
        let (from, mut to) = (Bench::with_key(&["a"]), Bench::in_memory(&["b", "c"]));
        to.make_key();
        fs::remove_file(to.path("key")).unwrap();
        fs::write(to.path("key"), noise(4711, 32)).unwrap();
        fs::set_permissions(to.path("key"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        to.ok(&["init", "--no-recovery-key"]);
        Two { from, to }
    }

    fn copy(&self, args: &[&str]) -> (i32, Value) {
        let region = |name: &str| format!("{name}={}", self.to.region(name).display());
        let key = self.to.path("key").display().to_string();
        let (b, c) = (region("b"), region("c"));
        let to = ["copy", "--to-key-file", &key, "--to-region", &b, "--to-region", &c];
        self.from.json(&[&to[..], args].concat())
    }

    fn copied(&self, args: &[&str]) -> Value {
        let (code, report) = self.copy(args);
        assert_eq!(code, 0, "{report:#}");
        report
    }
}

fn backup(bench: &Bench, args: &[&str]) -> String {
    bench.ok(&[&["backup", "source", "--name", "s"], args].concat())["snapshot"].as_str().unwrap().to_owned()
}

fn stored_bytes(bench: &Bench) -> u64 {
    files(&bench.region("b").join("packs")).iter().map(|path| fs::metadata(path).unwrap().len()).sum()
}

#[test]
fn what_is_copied_is_whole_and_comes_once() {
    let two = Two::new();
    let (from, to) = (&two.from, &two.to);
    let source = from.path("source");
    small_tree(&source);
    let first = backup(from, &["--tag", "t", "--host", "h"]);
    fs::write(source.join("new"), noise(1, 400_000)).unwrap();
    let second = backup(from, &[]);
    let report = two.copied(&[]);
    assert_eq!((&report["copied"], &report["there"], &report["not_copied"]), (&json!(2), &json!(0), &json!(0)));
    // The second shares all but the new file and the pages above it.
    let new = |n: usize| report["snapshots"][n]["bytes_new"].as_u64().unwrap();
    assert!(new(0) > 5_000_000 && (400_000..500_000).contains(&new(1)), "{report:#}");
    to.ok(&["verify", "--level", "content"]);
    let there = to.ok(&["snapshots"]);
    let copies = there["snapshots"].as_array().unwrap();
    let field = |n: usize, name: &str| copies[n][name].clone();
    assert_eq!(
        field(1, "copied_from"),
        format!("{}/{second}", from.ok(&["snapshots"])["repository"].as_str().unwrap())
    );
    assert_eq!((field(0, "tags"), field(0, "host"), field(0, "source")), (json!(["t"]), json!("h"), json!("s")));
    assert_eq!(field(1, "parent"), field(0, "id"));
    assert_eq!(field(0, "regions"), json!(["b", "c"]));
    let times = |bench: &Bench| {
        bench.ok(&["snapshots"])["snapshots"]
            .as_array()
            .unwrap()
            .iter()
            .map(|s| s["start_ms"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(times(from), times(to));
    // Nothing of the one opens with the key of the other; nothing has the same name.
    let names = |bench: &Bench, region| {
        files(&bench.region(region).join("packs")).iter().map(|p| p.file_name().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert!(names(from, "a").iter().all(|name| !names(to, "b").contains(name)));
    // Once more: nothing to do. A third: only what is new.
    let before = stored_bytes(to);
    let again = two.copied(&[]);
    assert_eq!((&again["copied"], &again["there"], &again["bytes_new"]), (&json!(0), &json!(2), &json!(0)));
    assert_eq!(stored_bytes(to), before);
    fs::remove_file(source.join("whole")).unwrap();
    let third = backup(from, &[]);
    let report = two.copied(&[&third]);
    assert!(report["bytes_new"].as_u64() < Some(100_000), "{report:#}");
    for (bench, target) in [(from, "own"), (to, "other")] {
        let target = from.path(target).display().to_string();
        bench.ok(&["restore", "latest", "--target", &target]);
    }
    assert_same(&from.path("own"), &from.path("other"));
    // A backup made there goes on from the copy: files are not read again.
    let text = source.display().to_string();
    let report = to.ok(&["backup", &text, "--name", "s"]);
    assert_eq!(
        (&report["parent"], &report["bytes_read"]),
        (&to.ok(&["snapshots"])["snapshots"][2]["id"], &json!(0)),
        "{report:#}"
    );
    assert_eq!(first.len(), 32);
}

#[test]
fn everything_that_a_snapshot_can_have_comes_over() {
    let two = Two::new();
    let disk = tempfile::TempDir::new().unwrap();
    tree::build(&disk.path().join("source"));
    two.from.ok(&["backup", &disk.path().join("source").display().to_string()]);
    two.copied(&["--compression", "max"]);
    two.to.ok(&["restore", "latest", "--target", &disk.path().join("back").display().to_string()]);
    walk::assert_same(&disk.path().join("source"), &disk.path().join("back"));
    two.to.ok(&["verify", "--level", "content"]);
}

#[test]
fn generations_stay_apart() {
    let two = Two::new();
    small_tree(&two.from.path("source"));
    backup(&two.from, &[]);
    backup(&two.from, &["--mode", "independent"]);
    backup(&two.from, &[]);
    let report = two.copied(&[]);
    let new: Vec<u64> = (0..3).map(|n| report["snapshots"][n]["bytes_new"].as_u64().unwrap()).collect();
    assert!(new[0] > 5_000_000 && new[1] > 5_000_000 && new[2] == 0, "{new:?}");
    two.to.ok(&["verify", "--level", "content"]);
}

#[test]
fn a_damaged_snapshot_is_not_copied_and_the_others_are() {
    let two = Two::new();
    let source = two.from.path("source");
    small_tree(&source);
    backup(&two.from, &[]);
    let known = files(&two.from.region("a").join("packs"));
    fs::write(source.join("new"), noise(1, 400_000)).unwrap();
    let second = backup(&two.from, &[]);
    for pack in files(&two.from.region("a").join("packs")).iter().filter(|pack| !known.contains(pack)) {
        fs::write(pack, noise(1, 1000)).unwrap();
    }
    let (code, report) = two.copy(&[]);
    assert_eq!((code, &report["copied"], &report["not_copied"]), (5, &json!(1), &json!(1)), "{report:#}");
    assert_eq!(
        (&report["snapshots"][1]["snapshot"], &report["snapshots"][1]["state"]),
        (&json!(second), &json!("failed"))
    );
    assert_eq!(two.to.ok(&["snapshots"])["snapshots"].as_array().unwrap().len(), 1);
    two.to.ok(&["verify", "--level", "content"]);
}

#[test]
fn copies_that_cannot_be_are_refused_and_a_region_that_is_away_is_named() {
    let two = Two::new();
    small_tree(&two.from.path("source"));
    backup(&two.from, &[]);
    let region = format!("a={}", two.from.region("a").display());
    let key = two.from.path("key").display().to_string();
    assert_eq!(two.from.json(&["copy", "--to-region", &region, "--to-key-file", &key]).0, 2, "into itself");
    assert_eq!(two.from.json(&["copy"]).0, 2, "nowhere");
    let other = format!("b={}", two.to.region("b").display());
    assert_eq!(two.from.json(&["copy", "--to-region", &other, "--to-key-file", &key]).0, 12, "with the wrong key");
    let nowhere = format!("x={}", two.to.path("nothing").display());
    assert_eq!(two.from.json(&["copy", "--to-region", &nowhere, "--to-key-file", &key]).0, 10);
    assert_eq!(two.copy(&["zz"]).0, 1);
    fs::rename(two.to.region("c"), two.to.path("away")).unwrap();
    let (code, report) = two.copy(&["--to-copies-min", "1"]);
    assert_eq!((code, &report["copied"], &report["behind"][0]["region"]), (4, &json!(1), &json!("c")), "{report:#}");
    fs::rename(two.to.path("away"), two.to.region("c")).unwrap();
    // The next one brings it up.
    assert_eq!(two.copied(&[])["there"], 1);
    two.to.ok(&["verify", "--level", "content"]);
    assert_eq!(two.to.ok(&["snapshots"])["snapshots"][0]["regions"], json!(["b", "c"]));
}
