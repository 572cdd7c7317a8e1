//! The program with a folder for its index, and without one.

use crate::crash::interfere;
use crate::harness::{Bench, assert_same, files, noise, small_tree};
use std::path::PathBuf;
use std::process::{Command, Stdio};

fn index_files(bench: &Bench) -> Vec<PathBuf> {
    let mut found = files(&bench.path("state"));
    found.retain(|path| path.to_string_lossy().contains("/index-"));
    found
}

fn backup(bench: &Bench) -> serde_json::Value {
    bench.ok(&["backup", "--mode", "full", "source"])
}

fn made() -> Bench {
    let bench = Bench::with_key(&["a", "b"]);
    small_tree(&bench.path("source"));
    backup(&bench);
    backup(&bench);
    bench
}

fn segments(bench: &Bench, region: &str) -> Vec<String> {
    bench.objects(region).into_iter().filter(|name| name.starts_with("index/")).collect()
}

/// A run that has a cache stores what a run without one stores.
#[test]
fn with_and_without_a_cache_the_same_is_stored() {
    let with = made();
    assert!(!index_files(&with).is_empty(), "no index was kept");
    let without = with.copy();
    let source = with.path("source").display().to_string();
    for step in 0..4u64 {
        std::fs::write(with.path(&format!("source/new-{step}")), noise(900 + step, 300_000)).unwrap();
        let _ = std::fs::remove_dir_all(without.path("state"));
        let [one, other] = [&with, &without].map(|bench| bench.ok(&["backup", "--mode", "full", &source]));
        assert!(one["chunks_new"].as_u64() > Some(0), "{one:#}");
        for figure in ["chunks_new", "bytes_new", "chunks_used"] {
            assert_eq!(one[figure], other[figure], "{figure} in step {step}");
        }
    }
    assert_eq!(with.ok(&["verify"])["broken"], serde_json::json!([]));
    with.ok(&["restore", "latest", "--target", "out"]);
}

/// A segment that a region no longer lists makes nothing known there, whatever the cache holds.
#[test]
fn what_a_region_no_longer_lists_is_stored_there_again() {
    let bench = made();
    for region in ["a", "b"] {
        segments(&bench, region).iter().for_each(|name| std::fs::remove_file(bench.region(region).join(name)).unwrap());
    }
    let again = backup(&bench);
    assert!(again["chunks_new"].as_u64().unwrap() > 10, "{again:#}");
    std::fs::remove_dir_all(bench.path("state")).unwrap();
    bench.ok(&["restore", "latest", "--target", "out"]);
    assert_same(&bench.path("source"), &bench.path("out"));
}

/// A copy cut short counts as none: its size is in the listing.
#[test]
fn a_segment_cut_short_in_a_region_is_not_relied_on() {
    let bench = made();
    let name = segments(&bench, "b").remove(0);
    let path = bench.region("b").join(&name);
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() - 100]).unwrap();
    let (_, value) = bench.json(&["backup", "--mode", "full", "source"]);
    assert!(value["chunks_new"].as_u64().unwrap() > 10, "{value:#}");
    assert!(value["findings"].to_string().contains(&name), "{value:#}");
}

/// Damage that keeps the size does not show in a listing. Once `verify` has met it, the local copy is not believed
/// either, and what no region can say any more is stored again.
#[test]
fn what_verify_finds_damaged_is_stored_again() {
    // A check without a key meets it as well.
    for level in ["presence", "ciphertext"] {
        let bench = made();
        for region in ["a", "b"] {
            for name in segments(&bench, region) {
                let path = bench.region(region).join(&name);
                let mut bytes = std::fs::read(&path).unwrap();
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                std::fs::write(&path, bytes).unwrap();
            }
        }
        assert_eq!(bench.json(&["verify", "--level", level]).0, 5);
        let (_, again) = bench.json(&["backup", "--mode", "full", "source"]);
        assert!(again["chunks_new"].as_u64().unwrap() > 10, "{level}: {again:#}");
        std::fs::remove_dir_all(bench.path("state")).unwrap();
        bench.json(&["restore", "latest", "--target", "out"]);
        assert_same(&bench.path("source"), &bench.path("out"));
    }
}

/// Killed at every step of making its files: the next run is right, and nothing half-made is believed.
#[test]
fn killed_at_any_step_of_keeping_the_index_does_no_harm() {
    let bench = made();
    let fresh = || {
        let _ = std::fs::remove_dir_all(bench.path("state"));
    };
    fresh();
    let args = ["ls", "latest"];
    let undisturbed = interfere(&bench, "count", 0, &args);
    assert_eq!(undisturbed.code, 0, "{}", undisturbed.said);
    let total = undisturbed.steps.len();
    assert!(total >= 4 && !index_files(&bench).is_empty(), "{:?}", undisturbed.steps);
    for step in 1..=total {
        fresh();
        let killed = interfere(&bench, "kill", step, &args);
        assert_eq!(killed.code, 128 + 9, "{}", killed.said);
        bench.ok(&args);
    }
    assert_eq!(backup(&bench)["chunks_new"], 0);
}

/// Several processes that find no index make one each; nobody waits, and what is left is sound.
#[test]
fn several_processes_at_once_make_one_index() {
    let bench = made();
    std::fs::remove_dir_all(bench.path("state")).unwrap();
    let spawn = |args: &[&str]| bench.command(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let source = bench.path("source").display().to_string();
    let mut all: Vec<_> = (0..4).map(|_| spawn(&["ls", "latest"])).collect();
    all.extend((0..2).map(|_| spawn(&["backup", "--mode", "full", &source])));
    for mut child in all {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(backup(&bench)["chunks_new"], 0);
    let left = index_files(&bench);
    assert!(!left.is_empty() && left.iter().all(|path| !path.to_string_lossy().contains("/new-")), "{left:?}");
}

/// Without a place for it the index is in memory, as ever, and nothing else changes.
#[test]
fn a_folder_that_cannot_be_used_does_no_harm() {
    let bench = made();
    std::fs::remove_dir_all(bench.path("state")).unwrap();
    std::fs::write(bench.path("state"), b"a file stands in the way").unwrap();
    let value = backup(&bench);
    assert_eq!(value["chunks_new"], 0, "{value:#}");
    bench.ok(&["restore", "latest", "--target", "out"]);
    assert_same(&bench.path("source"), &bench.path("out"));
}

/// A full disk under the state folder costs the cache and nothing else.
#[test]
fn a_full_disk_in_the_state_folder_does_no_harm() {
    let bench = made();
    let state = bench.path("small");
    std::fs::create_dir_all(&state).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=16k", "small"]).arg(&state).status();
    assert!(mounted.is_ok_and(|s| s.success()), "mount is needed, and the right to use it");
    let out = bench.command(&["--json", "backup", "--mode", "full", "source"]).env("HOLDFAST_STATE", &state).output();
    let left = files(&state);
    let _ = Command::new("umount").arg("-l").arg(&state).status();
    let out = out.unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{said}");
    assert!(String::from_utf8_lossy(&out.stdout).contains("\"chunks_new\":0"));
    assert!(said.contains("local index cannot be written"), "{said}");
    assert!(left.iter().all(|path| !path.to_string_lossy().contains("/index-")), "{left:?}");
}
