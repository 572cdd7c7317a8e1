//! A prune of a bucket that locks its objects: what is locked waits, and is said to.

use super::end_to_end::{World, url};
use super::servers::{self, Server, Version};
use crate::crash::{fill, text};
use crate::prune::NOW;
use std::path::Path;
use std::time::Instant;

const BUCKET: &str = "pruned";
/// How long the short locks last, seconds: longer than it takes to look once.
const LOCK_S: u32 = 10;

/// A bucket and a folder, with a snapshot that stays and one that is forgotten.
fn world(server: &Server, folder: &Path) -> World {
    let world = World::new(vec![
        ("a", url(server.port, &format!("{BUCKET}/main"))),
        ("b", folder.join("b").display().to_string()),
    ]);
    let both = ["a", "b"];
    world.ok(&both, &["init", "--no-recovery-key"]);
    let source = text(&world.source);
    let first = world.ok(&both, &["backup", source]);
    for entry in std::fs::read_dir(&world.source).unwrap().flatten() {
        let _ = std::fs::remove_file(entry.path());
    }
    fill(&world.source, 20, 10, 100_000);
    world.ok(&both, &["backup", source]);
    world.ok(&both, &["forget", first["snapshot"].as_str().unwrap()]);
    world
}

fn versions_of(server: &Server, prefix: &str) -> Vec<Version> {
    servers::versions(server, BUCKET).into_iter().filter(|version| version.key.contains(prefix)).collect()
}

/// What stays of a lock that somebody put on it: nothing is given back before its end, and all of it after.
#[test]
fn what_was_locked_goes_once_its_lock_has_ended() {
    let server = servers::seaweed(&[]);
    servers::make_lockable_bucket(&server, BUCKET);
    let folder = tempfile::tempdir().unwrap();
    let (world, both) = (world(&server, folder.path()), ["a", "b"]);
    let before = versions_of(&server, "/packs/");
    let locks: Vec<String> = before.iter().map(|v| format!("lock {} {} {LOCK_S}", v.key, v.id)).collect();
    assert!(servers::each(&server, BUCKET, &locks).iter().all(|status| *status == 200));
    let first = world.ok(&both, &NOW);
    let (a, b) = (&first["regions"][0], &first["regions"][1]);
    let gone = b["removed"]["packs"].as_u64().unwrap();
    assert!(gone > 0, "{first:#}");
    assert_eq!((&a["removed"]["packs"], &a["postponed"]["packs"]), (&0.into(), &gone.into()), "{first:#}");
    assert!(a["why"].as_str().unwrap().contains("locked until 20"), "{first:#}");
    assert_eq!(versions_of(&server, "/packs/"), before, "something was hidden");
    // Every later prune tries again, and says what still waits.
    let (begun, mut removed) = (Instant::now(), 0);
    while removed < gone {
        let again = world.ok(&both, &NOW);
        let a = &again["regions"][0];
        // Each lock ends when it ends.
        removed += a["removed"]["packs"].as_u64().unwrap();
        assert_eq!(a["postponed"]["packs"], gone - removed, "{again:#}");
        assert!(begun.elapsed().as_secs() < u64::from(LOCK_S) * 12, "the lock never ended: {again:#}");
    }
    let left = versions_of(&server, "/packs/");
    assert_eq!(left.len() as u64, before.len() as u64 - gone, "{left:#?}");
    assert!(left.iter().all(|version| !version.marker), "hidden and not gone: {left:#?}");
    world.ok(&both, &["verify", "--level", "content"]);
    world.restores(&["a"], "alone");
}

#[test]
fn what_is_locked_waits_until_its_lock_ends() {
    let server = servers::seaweed(&[]);
    servers::make_locked_bucket(&server, BUCKET, 3);
    let folder = tempfile::tempdir().unwrap();
    let (world, both) = (world(&server, folder.path()), ["a", "b"]);
    let packs = || -> usize {
        let versions: Vec<Version> = servers::versions(&server, BUCKET);
        versions.iter().filter(|version| version.key.contains("/packs/")).count()
    };
    let before = packs();
    let done = world.ok(&both, &NOW);
    let (a, b) = (&done["regions"][0], &done["regions"][1]);
    assert!(b["removed"]["packs"].as_u64() > Some(0), "{done:#}");
    assert_eq!((&a["removed"]["packs"], &a["postponed"]["packs"]), (&0.into(), &b["removed"]["packs"]), "{done:#}");
    assert!(a["why"].as_str().unwrap().contains("locked until 20"), "{done:#}");
    assert_eq!(packs(), before, "something was hidden");
    world.ok(&both, &["verify", "--level", "content"]);
    world.restores(&["a"], "alone");
    // It is taken up later, and nothing is written twice for it.
    let objects = || servers::versions(&server, BUCKET).iter().filter(|v| v.key.contains("/index/")).count();
    let segments = objects();
    let again = world.ok(&both, &NOW);
    assert_eq!(again["regions"][0]["postponed"]["packs"], a["postponed"]["packs"], "{again:#}");
    assert_eq!(objects(), segments, "an index segment was written once more");
    world.restores(&["a"], "again");
}

/// A folder would let the merged segments go, and the bucket does not: both keep them, and nobody says that one lacks them.
#[test]
fn a_bucket_that_locks_and_a_folder_stay_alike_when_segments_are_merged() {
    let server = servers::seaweed(&[]);
    servers::make_locked_bucket(&server, BUCKET, 3);
    let folder = tempfile::tempdir().unwrap();
    let (world, both) = (world(&server, folder.path()), ["a", "b"]);
    for n in 0..8 {
        fill(&world.source.join(format!("more-{n}")), 50 + 20 * n, 12, 50_000);
        world.ok(&both, &["backup", text(&world.source)]);
    }
    world.ok(&both, &NOW);
    let objects = || servers::versions(&server, BUCKET).iter().filter(|v| v.key.contains("/index/")).count();
    let before = objects();
    let verified = world.ok(&both, &["verify", "--level", "ciphertext"]);
    assert_eq!(verified["behind"].as_array().map(Vec::len), Some(0), "{verified:#}");
    let again = world.ok(&both, &["backup", text(&world.source)]);
    assert_eq!(again["behind"].as_array().map(Vec::len), Some(0), "{again:#}");
    world.ok(&both, &NOW);
    assert_eq!(objects(), before, "an index segment was written once more");
    world.restores(&["a"], "alone");
    world.restores(&["b"], "the-other");
}

/// Damage that was repaired is an older version: it does not come back when the newer one is removed.
#[test]
fn what_is_removed_uncovers_no_damage() {
    let server = servers::seaweed(&[]);
    servers::make_lockable_bucket(&server, BUCKET);
    let folder = tempfile::tempdir().unwrap();
    let (world, both) = (world(&server, folder.path()), ["a", "b"]);
    let damaged = versions_of(&server, "/index/");
    let junk: Vec<String> = damaged.iter().map(|version| format!("junk {}", version.key)).collect();
    assert!(servers::each(&server, BUCKET, &junk).iter().all(|status| *status == 200));
    let (code, repaired) = world.run(&both, &["verify", "--level", "ciphertext", "--repair"]);
    assert!(code == 5 && repaired["repair"]["left"] == 0, "{repaired:#}");
    for n in 0..8 {
        fill(&world.source.join(format!("more-{n}")), 50 + 20 * n, 12, 50_000);
        world.ok(&both, &["backup", text(&world.source)]);
    }
    world.ok(&both, &NOW);
    world.ok(&both, &NOW);
    let left = versions_of(&server, "/index/");
    let back: Vec<&Version> = left.iter().filter(|version| damaged.iter().any(|old| old.key == version.key)).collect();
    assert!(back.is_empty(), "{back:#?}");
    world.ok(&both, &["verify", "--level", "content"]);
    world.restores(&["a"], "alone");
}
