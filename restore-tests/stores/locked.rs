//! A bucket that locks what is put into it: everything works, and a thief of the credentials destroys nothing.

use super::doctor::{ask, of, s3_variables};
use super::end_to_end::{World, requests, url};
use super::servers::{self, Server, Version, WRITER};
use crate::crash::{fill, text};

const BUCKET: &str = "locked";

fn all(server: &Server) -> Vec<Version> {
    servers::versions(server, BUCKET)
}

fn lines(versions: &[Version], line: impl Fn(&Version) -> String) -> Vec<String> {
    versions.iter().map(line).collect()
}

#[test]
fn a_bucket_that_locks_its_objects_works_and_outlives_a_thief() {
    let server = servers::seaweed(&[]);
    servers::make_locked_bucket(&server, BUCKET, 3);
    let folder = tempfile::tempdir().unwrap();
    let world = World::new(vec![
        ("a", url(server.port, &format!("{BUCKET}/main"))),
        ("b", folder.path().join("b").display().to_string()),
    ]);
    let both = ["a", "b"];
    before_init(&world, &server);
    world.ok(&both, &["init", "--no-recovery-key"]);
    let source = text(&world.source);
    let first = world.ok(&both, &["backup", source]);
    fill(&world.source, 2, 10, 100_000);
    world.ok(&both, &["backup", source]);
    let third = world.ok(&both, &["backup", "--full", source]);
    assert_eq!(requests(&third, "a", "delete"), 0, "{third:#}");
    // One that was away is brought up.
    fill(&world.source, 3, 5, 100_000);
    let (code, alone) = world.run(&["b"], &["backup", source]);
    assert_eq!(code, 4, "{alone:#}");
    let replicated = world.ok(&both, &["replicate"]);
    assert_eq!(requests(&replicated, "a", "delete"), 0, "{replicated:#}");
    let held = world.ok(&both, &["hold", "add", "latest", "--reason", "case 7"]);
    world.ok(&both, &["forget", first["snapshot"].as_str().unwrap()]);
    world.ok(&both, &["hold", "remove", held["hold"].as_str().unwrap()]);
    world.ok(&both, &["verify", "--level", "content"]);
    world.restores(&["a"], "before");

    a_thief_deletes(&world, &server);
    a_thief_puts_junk(&world, &server);
}

/// The doctor says what the bucket is, and leaves next to nothing in it.
fn before_init(world: &World, server: &Server) {
    let region = [world.urls[0].clone()];
    let (code, report) = ask(&world.bench, &region, &s3_variables(WRITER), &[]);
    assert_eq!(code, 0, "{report:#}");
    let a = &report["regions"][0];
    assert_eq!((&a["versioning"], &a["lock_mode"], &a["lock_days"]), (&"on".into(), &"COMPLIANCE".into(), &3.into()));
    for check in ["create-if-absent", "versions", "object-lock", "delete"] {
        assert_eq!(of(&report, "a", check).0, "good", "{check}: {report:#}");
    }
    assert_eq!((of(&report, "a", "throughput").0, of(&report, "a", "probes").0), ("note", "note"), "{report:#}");
    let stays: Vec<Version> = all(server);
    assert_eq!(stays.iter().filter(|version| !version.marker).count(), 1, "{stays:#?}");
    assert!(stays.iter().all(|version| version.key.starts_with("main/probe/")), "{stays:#?}");
}

/// Every version is refused, with all rights there are; what only hides goes again.
fn a_thief_deletes(world: &World, server: &Server) {
    let objects = all(server);
    assert!(objects.len() > 20, "{objects:#?}");
    let kept = objects.iter().filter(|version| !version.marker).cloned().collect::<Vec<_>>();
    let erased = servers::each(server, BUCKET, &lines(&kept, |v| format!("delete {} {}", v.key, v.id)));
    assert!(erased.iter().all(|status| *status == 403), "{erased:?}");
    world.restores(&["a"], "after-erasing");
    // Hiding is allowed, and shows as what it is: a region without a repository.
    let hidden = servers::each(server, BUCKET, &lines(&kept, |v| format!("delete {}", v.key)));
    assert!(hidden.iter().all(|status| *status == 204), "{hidden:?}");
    assert_eq!(world.run(&["a"], &["snapshots"]).0, 10);
    world.restores(&["a", "b"], "while-hidden");
    let markers: Vec<Version> = all(server).into_iter().filter(|version| version.marker).collect();
    let back = servers::each(server, BUCKET, &lines(&markers, |v| format!("delete {} {}", v.key, v.id)));
    assert!(back.iter().all(|status| *status == 204), "{back:?}");
    world.restores(&["a"], "shown-again");
    world.ok(&["a"], &["verify", "--level", "content"]);
}

/// A newer version stands over each pack. It is found out and read from elsewhere; the older ones are still there.
fn a_thief_puts_junk(world: &World, server: &Server) {
    let packs: Vec<Version> =
        all(server).into_iter().filter(|v| v.key.starts_with("main/packs/") && v.latest && !v.marker).collect();
    assert!(packs.len() >= 2, "{packs:#?}");
    let put = servers::each(server, BUCKET, &lines(&packs, |v| format!("junk {}", v.key)));
    assert!(put.iter().all(|status| *status == 200), "{put:?}");
    let (code, value) = world.run(&["a", "b"], &["verify", "--level", "ciphertext"]);
    let named = value["findings"].to_string();
    assert_eq!(code, 5, "{value:#}");
    for pack in &packs {
        assert!(named.contains(pack.key.trim_start_matches("main/")), "{} in {value:#}", pack.key);
    }
    world.restores(&["a", "b"], "from-b");
    let (code, alone) = world.run(&["a"], &["restore", "latest", "--target", "alone"]);
    assert_eq!(code, 5, "{alone:#}");
    // A repair puts the good bytes over the junk: one more version.
    let (code, repaired) = world.run(&["a", "b"], &["verify", "--level", "ciphertext", "--repair"]);
    assert!(code == 5 && repaired["repair"]["left"] == 0, "{repaired:#}");
    world.restores(&["a"], "repaired");
    // Without another region a person does it, from the version that was there first: docs/regions.md.
    servers::each(server, BUCKET, &lines(&packs, |v| format!("junk {}", v.key)));
    let again = servers::each(server, BUCKET, &lines(&packs, |v| format!("again {} {}", v.key, v.id)));
    assert!(again.iter().all(|status| *status == 200), "{again:?}");
    world.restores(&["a"], "mended");
    world.ok(&["a"], &["verify", "--level", "content"]);
}
