//! Regions in buckets that die, come back, are emptied and added.

use super::conformance::Subject;
use super::end_to_end::{World, url};
use super::proxy::Proxy;
use super::servers::{self, WRITER};
use super::{s3, variables};
use crate::crash::{fill, text};
use holdfast::base::Place;
use holdfast::store::{Key, Prefix};
use serde_json::{Value, json};
use std::collections::BTreeSet;

const ALL: [&str; 3] = ["a", "b", "c"];

/// Packs, segments and snapshots that a place lists.
fn listed(place: Place) -> BTreeSet<Key> {
    let subject = Subject::new(place, &variables(WRITER));
    let store = subject.connect();
    let list = |prefix| subject.runtime.block_on(store.list(prefix)).unwrap().0;
    [Prefix::Packs, Prefix::Index, Prefix::Snapshots].into_iter().flat_map(list).map(|line| line.key).collect()
}

fn of<'v>(value: &'v Value, region: &str) -> &'v Value {
    value["regions"].as_array().unwrap().iter().find(|r| r["region"] == region).unwrap_or_else(|| panic!("{value:#}"))
}

#[test]
fn the_decision_region_dies_in_the_middle_and_is_brought_up() {
    let servers = [(); 2].map(|()| servers::seaweed(&["bucket"]));
    let proxy = Proxy::before(servers[0].port);
    let folder = tempfile::tempdir().unwrap();
    let world = World::new(vec![
        ("a", url(proxy.port, "bucket/a")),
        ("b", url(servers[1].port, "bucket/b")),
        ("c", folder.path().join("c").display().to_string()),
    ]);
    world.ok(&ALL, &["init", "--no-recovery-key"]);
    let source = text(&world.source);
    world.ok(&ALL, &["backup", source]);
    fill(&world.source, 2, 60, 2_000_000);
    proxy.kill_after("PUT", "packs/", 1);
    let (code, value) = world.run(&ALL, &["--copies-min", "2", "backup", source]);
    assert_eq!((code, &value["regions"]), (4, &json!(["b", "c"])), "{value:#}");
    assert_eq!(value["behind"][0]["region"], "a", "{value:#}");
    world.restores(&["b"], "while-a-is-dead");
    // Several runs later it is back.
    fill(&world.source.join("more"), 900, 4, 300_000);
    assert_eq!(world.run(&ALL, &["--copies-min", "2", "backup", source]).0, 4);
    let (code, away) = world.run(&ALL, &["--copies-min", "2", "replicate"]);
    assert_eq!((code, away["objects"].as_u64(), &of(&away, "a")["complete"]), (4, Some(0), &json!(false)), "{away:#}");
    proxy.revive();
    let value = world.ok(&ALL, &["replicate"]);
    assert_eq!((&of(&value, "a")["snapshots"], &value["findings"]), (&json!(2), &json!([])), "{value:#}");
    println!("replicate: {} bytes, {} objects, {} s", value["bytes"], value["objects"], value["seconds"]);
    let places =
        [s3(servers[0].port, "bucket", "a"), s3(servers[1].port, "bucket", "b"), folder.path().join("c").into()];
    let listings = places.map(listed);
    assert!(listings[0].len() > 8 && listings.iter().all(|listing| *listing == listings[0]), "{listings:#?}");
    for region in ALL {
        world.ok(&[region], &["verify", "--level", "content"]);
    }
    world.restores(&["a"], "from-a");
}

#[test]
fn a_bucket_is_added_and_another_is_filled_again_after_it_was_emptied() {
    let server = servers::seaweed(&["first", "second", "empty"]);
    let mut world = World::new(vec![("a", url(server.port, "first/x")), ("b", url(server.port, "second/x"))]);
    world.ok(&["a", "b"], &["init", "--no-recovery-key"]);
    let source = text(&world.source).to_owned();
    world.ok(&["a", "b"], &["backup", &source]);
    let (code, value) = world.run(&["a", "b"], &["region", "add", &format!("c={}", url(server.port, "first"))]);
    assert!(code == 11 && value.to_string().contains("the bucket is not empty there"), "{code}: {value:#}");
    let overwrites = servers::rclone("bucket");
    let (code, value) = world.run(&["a", "b"], &["region", "add", &format!("c={}", url(overwrites.port, "bucket/p"))]);
    assert!(code == 2 && value.to_string().contains("only if it is absent"), "{code}: {value:#}");
    let third = url(server.port, "empty/x");
    let value = world.ok(&["a", "b"], &["region", "add", &format!("c={third}")]);
    assert_eq!(value["members"].as_array().map(Vec::len), Some(3), "{value:#}");
    world.urls.push(("c", third));
    world.ok(&["c"], &["verify", "--level", "content"]);
    // An empty bucket where b was.
    world.urls[1].1 = url(server.port, "empty/other");
    let (code, value) = world.run(&ALL, &["backup", &source]);
    assert!(code == 4 && value["behind"].to_string().contains("region repair b"), "{code}: {value:#}");
    world.ok(&ALL, &["region", "repair", "b", "--emptied"]);
    let places = ["first/x", "empty/x", "empty/other"].map(|at| at.split_once('/').unwrap());
    let listings = places.map(|(bucket, prefix)| listed(s3(server.port, bucket, prefix)));
    assert!(listings.iter().all(|listing| *listing == listings[0]), "{listings:#?}");
    world.ok(&["b"], &["verify", "--level", "content"]);
    assert_eq!(world.ok(&ALL, &["backup", &source])["behind"], json!([]));
}
