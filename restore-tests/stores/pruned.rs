//! A prune of a bucket that locks its objects: what is locked waits, and is said to.

use super::end_to_end::{World, url};
use super::servers::{self, Version};
use crate::crash::{fill, text};
use crate::prune::NOW;

const BUCKET: &str = "pruned";

#[test]
fn what_is_locked_waits_until_its_lock_ends() {
    let server = servers::seaweed(&[]);
    servers::make_locked_bucket(&server, BUCKET, 3);
    let folder = tempfile::tempdir().unwrap();
    let world = World::new(vec![
        ("a", url(server.port, &format!("{BUCKET}/main"))),
        ("b", folder.path().join("b").display().to_string()),
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
