//! How many requests a run makes of each region: they cost money, and on a long way each costs its time.

use super::end_to_end::{ALL, World, requests, url};
use super::servers;
use crate::crash::{fill, text};
use crate::harness::files;
use serde_json::Value;
use std::path::PathBuf;

/// All requests made of a region.
fn total(value: &Value, region: &str) -> u64 {
    ["put", "get", "head", "list", "delete"].iter().map(|kind| requests(value, region, kind)).sum()
}

fn at_most(value: &Value, most: u64) {
    for region in ALL {
        let made = total(value, region);
        assert!(made <= most, "{made} requests of {region}, at most {most} are expected: {value:#}");
        assert_eq!(requests(value, region, "retries"), 0, "{value:#}");
    }
}

/// Three buckets, and a source with many small files in some directories.
fn world(server: &servers::Server) -> World {
    let bucket = |name| url(server.port, name);
    let world = World::new(vec![("a", bucket("first/x")), ("b", bucket("second")), ("c", bucket("third"))]);
    for dir in 0..12 {
        fill(&world.source.join(format!("dir-{dir:02}")), 1000 * dir, 150, 700);
    }
    world.ok(&ALL, &["init", "--no-recovery-key"]);
    world
}

fn state_files(world: &World, prefix: &str) -> Vec<PathBuf> {
    let all = files(&world.bench.path("state")).into_iter();
    all.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix))).collect()
}

#[test]
fn an_unchanged_backup_makes_few_requests_of_each_region() {
    let server = servers::seaweed(&["first", "second", "third"]);
    let world = world(&server);
    let source = text(&world.source);
    world.ok(&ALL, &["backup", source]);
    // Of what the run before has made, its index segment alone is read back, once, from any of the regions.
    for most in [21, 20] {
        let warm = world.ok(&ALL, &["backup", source]);
        assert_eq!((&warm["bytes_new"], &warm["files_read"]), (&0.into(), &0.into()), "{warm:#}");
        at_most(&warm, most);
    }
    // Whatever this machine keeps may be lost, and is then asked for.
    std::fs::remove_dir_all(world.bench.path("state")).unwrap();
    let cold = world.ok(&ALL, &["backup", source]);
    assert_eq!((&cold["bytes_new"], &cold["files_read"]), (&0.into(), &0.into()), "{cold:#}");
    assert!(total(&cold, "a") > 20, "{cold:#}");
    at_most(&cold, 42);
    at_most(&world.ok(&ALL, &["backup", source]), 20);
}

#[test]
fn a_restore_of_one_file_on_a_new_machine_makes_few_requests() {
    let server = servers::seaweed(&["first", "second", "third"]);
    let world = world(&server);
    world.ok(&ALL, &["backup", text(&world.source)]);
    world.ok(&ALL, &["backup", text(&world.source)]);
    std::fs::remove_dir_all(world.bench.path("state")).unwrap();
    let wanted = world.source.join("dir-07/file-77");
    let one = world.ok(&ALL, &["restore", "latest:dir-07/file-77", "--target", "one"]);
    at_most(&one, 19);
    let restored: Vec<PathBuf> = files(&world.bench.path("one"));
    assert_eq!(restored.len(), 1);
    assert_eq!(std::fs::read(&restored[0]).unwrap(), std::fs::read(&wanted).unwrap());
    // The history that the new machine lacks is read back by the next who has the time.
    world.ok(&ALL, &["backup", text(&world.source)]);
    let runs = world.ok(&ALL, &["runs"]);
    assert_eq!(runs["runs"].as_array().map(Vec::len), Some(4), "{runs:#}");
}

#[test]
fn what_a_machine_keeps_of_trees_and_epochs_is_verified_and_may_be_anything() {
    let server = servers::seaweed(&["first", "second", "third"]);
    let world = world(&server);
    let source = text(&world.source);
    world.ok(&ALL, &["backup", source]);
    world.ok(&ALL, &["backup", source]);
    let kept = [state_files(&world, "tree-"), state_files(&world, "about-")].concat();
    assert!(kept.len() >= 3, "{kept:?}");
    for path in &kept {
        let mut bytes = std::fs::read(path).unwrap();
        bytes.iter_mut().skip(8).step_by(97).for_each(|byte| *byte ^= 1);
        std::fs::write(path, bytes).unwrap();
    }
    let again = world.ok(&ALL, &["backup", source]);
    assert_eq!((&again["bytes_new"], &again["files_read"]), (&0.into(), &0.into()), "{again:#}");
    for path in &kept {
        std::fs::write(path, b"short").unwrap();
    }
    world.restores(&ALL, "restored");
    let again = world.ok(&ALL, &["backup", source]);
    assert_eq!((&again["bytes_new"], &again["files_read"]), (&0.into(), &0.into()), "{again:#}");
    world.ok(&ALL, &["verify", "--level", "content"]);
}

#[test]
fn a_region_is_brought_up_from_a_folder_rather_than_from_a_bucket() {
    let server = servers::seaweed(&["first", "third"]);
    let near = tempfile::tempdir().unwrap();
    let world = World::new(vec![
        ("a", url(server.port, "first")),
        ("b", near.path().join("b").display().to_string()),
        ("c", url(server.port, "third")),
    ]);
    world.ok(&ALL, &["init", "--no-recovery-key"]);
    for round in 0..6 {
        fill(&world.source, 100 + round, 10, 400_000);
        let (code, value) = world.run(&["a", "b"], &["backup", text(&world.source)]);
        assert_eq!(code, 4, "c is a member and not named: {value:#}");
    }
    let value = world.ok(&ALL, &["replicate"]);
    let c = value["regions"].as_array().unwrap().iter().find(|region| region["region"] == "c").unwrap();
    let copied = c["objects"].as_u64().unwrap();
    // Per run at least a pack of data, one of trees, a segment, a session's outcome and a record of the run.
    assert!(copied >= 6 * 5 && c["complete"] == true, "{value:#}");
    assert!(requests(&value, "b", "get") >= copied, "{value:#}");
    assert!(requests(&value, "a", "get") < copied, "{value:#}");
    world.restores(&["c"], "from-c");
    world.ok(&["c"], &["verify", "--level", "content"]);
}
