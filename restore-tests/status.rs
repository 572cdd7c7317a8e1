//! `holdfast status` says that all is well only when it is.

use crate::harness::{Bench, configure_daily, files, noise, small_tree};
use rusqlite::Connection;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// A policy `daily` of one source `s`, with `spec` beside it, and a first run.
fn ready(spec: &str) -> Bench {
    let bench = Bench::with_key(&["a", "b"]);
    configure(&bench, spec);
    for n in 0..30 {
        std::fs::create_dir_all(bench.path("source")).unwrap();
        std::fs::write(bench.path(&format!("source/{n}")), noise(n, 20_000)).unwrap();
    }
    assert_eq!(run(&bench, &[]).0, 0);
    bench
}

fn configure(bench: &Bench, spec: &str) {
    configure_daily(bench, &format!("verify: {{schedule: '@daily', repair: false}}\n  {spec}"));
}

fn run(bench: &Bench, more: &[&str]) -> (i32, Value) {
    bench.json_at(&[], &[&["run", "daily"], more].concat())
}

fn status(bench: &Bench) -> (i32, Value) {
    bench.json_at(&[], &["status"])
}

fn text(bench: &Bench) -> String {
    String::from_utf8(bench.command_at(&[], &["status"]).output().unwrap().stdout).unwrap()
}

fn only(folder: &Path) -> PathBuf {
    let mut found = files(folder);
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

fn catalog(bench: &Bench) -> Connection {
    let mut found = files(&bench.path("state"));
    found.retain(|path| path.extension().is_some_and(|end| end == "sqlite"));
    Connection::open(found.remove(0)).unwrap()
}

/// Only packs are known one by one: a damaged manifest must show too, until a check of that region has seen it mended.
#[test]
fn damage_beyond_packs_stays_until_a_check_sees_it_mended() {
    let bench = ready("");
    let manifest = only(&bench.region("b").join("snapshots"));
    let sound = std::fs::read(&manifest).unwrap();
    let mut bytes = sound.clone();
    bytes[90] ^= 1;
    std::fs::write(&manifest, bytes).unwrap();
    assert_eq!(status(&bench).0, 0, "nobody has looked yet");
    assert_eq!(run(&bench, &["--kind", "verify"]).0, 5);
    let damaged = || {
        let (code, value) = status(&bench);
        assert_eq!((code, value["damage"].as_array().map(Vec::len)), (5, Some(1)), "{value:#}");
        assert!(text(&bench).contains("DAMAGED: run "), "{}", text(&bench));
    };
    damaged();
    // A check of the other region, and one that sees less, prove nothing.
    assert_eq!(bench.json_at(&["a"], &["verify"]).0, 0);
    damaged();
    std::fs::write(&manifest, sound).unwrap();
    bench.ok(&["verify", "--level", "ciphertext"]);
    damaged();
    // It brings the record of the check of one region to the other as well.
    assert_eq!(run(&bench, &[]).0, 0);
    assert_eq!(run(&bench, &["--kind", "verify"]).0, 0);
    let (code, value) = status(&bench);
    assert_eq!((code, &value["damage"]), (0, &json!([])), "{value:#}");
}

/// A check that could look nowhere is no check.
#[test]
fn a_check_that_came_to_no_end_is_not_well() {
    let bench = ready("");
    assert_eq!(run(&bench, &["--kind", "verify"]).0, 0);
    let sql = "UPDATE runs SET exit = 1, exit_name = 'failed' WHERE kind = 'verify'";
    assert_eq!(catalog(&bench).execute(sql, []).unwrap(), 1);
    assert_eq!(status(&bench).0, 1);
    assert!(text(&bench).contains("FAILED: failed"), "{}", text(&bench));
}

/// A run that succeeded an hour ago is worth nothing when its snapshot is gone.
#[test]
fn a_success_of_which_no_snapshot_is_left_is_none() {
    let bench = ready("");
    assert_eq!(status(&bench).0, 0);
    let broken = bench.copy();
    configure(&broken, "");
    for region in ["a", "b"] {
        std::fs::remove_file(only(&broken.region(region).join("snapshots"))).unwrap();
    }
    let (code, value) = broken.json_at(&[], &["status", "--from-regions"]);
    let source = &value["sources"][0];
    assert_eq!((code, &source["missed"], &source["success"]), (1, &json!(true), &Value::Null), "{value:#}");
    // The catalog of a machine that looked comes to know it.
    std::fs::remove_file(only(&bench.region("a").join("snapshots"))).unwrap();
    assert_eq!(run(&bench, &["--kind", "verify"]).0, 5);
    let (code, value) = status(&bench);
    assert_eq!((code, &value["sources"][0]["behind"]), (5, &json!(["a"])), "{value:#}");
    bench.ok(&["forget", "latest", "--last"]);
    let (code, value) = status(&bench);
    assert_eq!((code, &value["sources"][0]["missed"]), (1, &json!(true)), "{value:#}");
    assert!(text(&bench).contains("NO SNAPSHOT"), "{}", text(&bench));
}

#[test]
fn where_nothing_is_known_nothing_is_well() {
    let bench = ready("");
    std::fs::remove_dir_all(bench.path("state")).unwrap();
    for regions in [&[][..], &["a", "b"]] {
        let (code, value) = bench.json_at(regions, &["status"]);
        assert_eq!((code, &value["known"]), (1, &json!(false)), "{value:#}");
    }
    assert!(text(&bench).contains("UNKNOWN") && !text(&bench).contains("healthy\n"), "{}", text(&bench));
    assert_eq!(bench.json_at(&[], &["status", "--from-regions"]).0, 0);
}

/// A check without a key makes a catalog that it cannot fill; the next run with one does.
#[test]
fn a_catalog_that_was_made_without_a_key_is_filled_later() {
    let bench = ready("");
    assert_eq!(run(&bench, &[]).0, 0);
    std::fs::remove_dir_all(bench.path("state")).unwrap();
    bench.ok(&["verify", "--level", "ciphertext"]);
    let (code, value) = status(&bench);
    assert_eq!((code, &value["known"]), (1, &json!(false)), "{value:#}");
    assert_eq!(run(&bench, &[]).0, 0);
    let (code, value) = status(&bench);
    assert_eq!((code, &value["sources"][0]["snapshots"]), (0, &json!(3)), "{value:#}");
}

#[test]
fn a_source_that_is_suddenly_small_shows_until_somebody_says_that_it_is_right() {
    let bench = ready("");
    std::fs::rename(bench.path("source"), bench.path("unmounted")).unwrap();
    std::fs::create_dir(bench.path("source")).unwrap();
    assert_eq!(run(&bench, &[]).0, 11);
    for more in [&[][..], &["--from-regions"]] {
        let (code, value) = bench.json_at(&[], &[&["status"], more].concat());
        assert_eq!((code, &value["sources"][0]["shrunk"]), (11, &json!(true)), "{value:#}");
    }
    assert!(text(&bench).contains("SHRUNK: its newest snapshot holds 0 files, 0 B"), "{}", text(&bench));
    assert_eq!(run(&bench, &["--accept-shrunk"]).0, 0);
    for more in [&[][..], &["--from-regions"]] {
        let (code, value) = bench.json_at(&[], &[&["status"], more].concat());
        assert_eq!((code, &value["sources"][0]["shrunk"]), (0, &json!(false)), "{value:#}");
    }
}

#[test]
fn what_could_not_be_read_shows() {
    let bench = ready("");
    std::fs::write(bench.path("source/.holdfastignore"), "[\n").unwrap();
    assert_eq!(run(&bench, &[]).0, 3);
    let (code, value) = status(&bench);
    assert_eq!((code, &value["sources"][0]["partial"]), (3, &json!(true)), "{value:#}");
    std::fs::remove_file(bench.path("source/.holdfastignore")).unwrap();
    assert_eq!(run(&bench, &[]).0, 0);
    assert_eq!(status(&bench).0, 0);
}

#[test]
fn a_refused_configuration_shows_beside_how_it_is() {
    let bench = ready("");
    configure(&bench, "retention: {dialy: 7}");
    let (code, value) = status(&bench);
    assert_eq!((code, &value["sources"][0]["snapshots"]), (2, &json!(1)), "{value:#}");
    assert!(value["refused"][0].as_str().is_some_and(|why| why.contains("dialy")), "{value:#}");
    assert!(text(&bench).contains("CONFIGURATION REFUSED: "), "{}", text(&bench));
    std::fs::write(bench.path("holdfast.yaml"), "kind: [\n").unwrap();
    assert_eq!(status(&bench).0, 2);
}

/// What cannot even open the repository is in no catalog.
#[test]
fn a_run_that_could_not_begin_shows_until_one_does() {
    let bench = ready("");
    let key = std::fs::read(bench.path("key")).unwrap();
    std::fs::write(bench.path("key"), noise(99, 32)).unwrap();
    assert_eq!(run(&bench, &[]).0, 12);
    let (code, value) = status(&bench);
    let told = &value["policies"][0]["not_begun"][0];
    assert_eq!((code, &told["code"], &told["task"]), (1, &json!(12), &json!("incremental")), "{value:#}");
    assert!(text(&bench).contains("COULD NOT RUN (incremental) "), "{}", text(&bench));
    std::fs::write(bench.path("key"), key).unwrap();
    assert_eq!(run(&bench, &[]).0, 0);
    assert_eq!(status(&bench).0, 0);
    // A hook that forbids a run keeps it out of the catalog, too.
    configure(&bench, "hooks: {before: [{command: ['false']}]}");
    assert_eq!(run(&bench, &[]).0, 1);
    let (code, value) = status(&bench);
    assert_eq!((code, value["policies"][0]["not_begun"].as_array().map(Vec::len)), (1, Some(1)), "{value:#}");
}

/// A clock that was years ahead for one run must not make its success young for years, nor hide failures after it.
#[test]
fn a_run_from_the_future_does_not_count() {
    let bench = ready("");
    let years = 10 * 365 * 86_400_000i64;
    for table in ["runs", "snapshots"] {
        catalog(&bench).execute(&format!("UPDATE {table} SET start = start + {years}"), []).unwrap();
    }
    let (code, value) = status(&bench);
    let source = &value["sources"][0];
    assert_eq!((code, &source["missed"], &source["last"]), (1, &json!(true), &json!([])), "{value:#}");
    std::fs::rename(bench.path("source"), bench.path("gone")).unwrap();
    assert_eq!(run(&bench, &[]).0, 1);
    let (code, value) = status(&bench);
    let source = &value["sources"][0];
    assert_eq!((code, &source["broken"], &source["last"][0]["code"]), (1, &json!(true), &json!(1)), "{value:#}");
}

/// Snapshots that only a region has which is away are not gone.
#[test]
fn a_region_that_is_away_keeps_what_it_has() {
    let bench = Bench::with_key(&["a", "b", "c"]);
    small_tree(&bench.path("source"));
    let at = |regions: &[&str], args: &[&str]| bench.json_at(regions, &[&["--copies-min", "1"], args].concat());
    let rename = |from: &str, to: &str| std::fs::rename(bench.path(from), bench.path(to)).unwrap();
    let all = ["a", "b", "c"];
    assert_eq!(at(&all, &["backup", "source", "--name", "s"]).0, 0);
    // One that only `c` has, then one in `a` alone, which comes into `b` while `c` is away.
    rename("region-a", "away-a");
    rename("region-b", "away-b");
    assert_eq!(at(&all, &["backup", "source", "--name", "s"]).0, 4);
    rename("away-a", "region-a");
    rename("region-c", "away-c");
    assert_eq!(at(&all, &["backup", "source", "--name", "s"]).0, 4);
    rename("away-b", "region-b");
    assert_eq!(at(&all, &["backup", "source", "--name", "s"]).0, 4);
    rename("away-c", "region-c");
    let (code, value) = bench.json(&["status"]);
    let source = &value["sources"][0];
    assert_eq!((code, &source["snapshots"], &source["behind"]), (4, &json!(4), &json!(["a", "b", "c"])), "{value:#}");
}
