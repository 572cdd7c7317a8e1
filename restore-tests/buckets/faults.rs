//! What goes wrong between a listing and the last byte.

use super::World;
use super::stand_in::{Act, StandIn};
use crate::harness::noise;
use serde_json::Value;

fn backup(world: &World, store: &StandIn) -> (i32, Value) {
    world.run(&["backup", &store.url("p"), "--name", "s"])
}

fn ranges(store: &StandIn) -> usize {
    store.with(|state| state.seen.iter().filter(|seen| seen.starts_with("GET /bucket/p/big")).count())
}

#[test]
fn an_object_that_changes_is_read_again_and_never_mixed() {
    let (before, after) = (noise(1, 30 << 20), noise(2, 31 << 20));
    let store = StandIn::start(&[(b"p/big", &before), (b"p/small", b"before")]);
    store.with(|state| {
        state.script.push(("GET", "/bucket/p/big", 3, Act::Put("p/big", after.clone())));
        state.script.push(("GET", "/bucket/p/small", 0, Act::Put("p/small", b"afterwards".to_vec())));
    });
    let world = World::new();
    let (code, report) = backup(&world, &store);
    assert_eq!((code, &report["errors_total"]), (0, &0.into()), "{report:#}");
    let restored = world.restored("back", 0);
    assert!(restored["big"] == after && restored["small"] == b"afterwards");
    // What was stored is known by the version that was read.
    let (code, again) = backup(&world, &store);
    assert!(code == 0 && again["files_read"] == 0, "{again:#}");
    assert!(ranges(&store) > 8, "in parts");
}

#[test]
fn an_object_that_changes_all_the_time_is_named_and_not_stored() {
    let store = StandIn::start(&[(b"p/big", &noise(0, 5 << 20)), (b"p/small", b"0"), (b"p/still", b"still")]);
    store.with(|state| {
        for n in 1..14u8 {
            let big = noise(u64::from(n), 5 << 20);
            state.script.push(("GET", "/bucket/p/big", usize::from(n) * 2, Act::Put("p/big", big)));
            state.script.push(("GET", "/bucket/p/small", usize::from(n - 1), Act::Put("p/small", vec![n])));
        }
    });
    let world = World::new();
    let (code, report) = backup(&world, &store);
    assert_eq!((code, &report["errors_total"]), (3, &2.into()), "{report:#}");
    assert!(report["errors"].as_array().unwrap().iter().all(|e| e["kind"] == "changed"), "{report:#}");
    assert_eq!(world.restored("back", 0).into_keys().collect::<Vec<_>>(), ["still"]);
}

#[test]
fn a_store_that_takes_any_version_for_the_one_that_was_asked_for_is_found_out() {
    let (before, after) = (noise(1, 30 << 20), noise(2, 30 << 20));
    let store = StandIn::start(&[(b"p/big", &before)]);
    store.with(|state| {
        state.careless = true;
        state.script.push(("GET", "/bucket/p/big", 3, Act::Put("p/big", after.clone())));
    });
    let world = World::new();
    let (code, report) = backup(&world, &store);
    assert_eq!(code, 0, "{report:#}");
    assert!(world.restored("back", 0)["big"] == after);
}

#[test]
fn where_a_store_says_no_tags_nothing_is_mixed_either() {
    let (before, after) = (noise(1, 30 << 20), noise(2, 30 << 20));
    for (listed, given, code) in [(false, true, 0), (true, false, 3), (false, false, 3)] {
        let store = StandIn::start(&[(b"p/big", &before), (b"p/small", b"small")]);
        store.with(|state| {
            (state.no_tags_listed, state.no_tags_given, state.careless) = (!listed, !given, true);
            state.script.push(("GET", "/bucket/p/big", 3, Act::Put("p/big", after.clone())));
        });
        let world = World::new();
        let (ended, report) = backup(&world, &store);
        assert_eq!(ended, code, "{listed} {given}: {report:#}");
        let restored = world.restored("back", 0);
        match code {
            0 => assert!(restored["big"] == after && restored["small"] == b"small"),
            _ => assert!(!restored.contains_key("big") && report.to_string().contains("the store does not say")),
        }
    }
}

#[test]
fn a_store_that_ignores_ranges_is_told_as_one() {
    let store = StandIn::start(&[(b"p/big", &noise(1, 30 << 20)), (b"p/small", b"small")]);
    store.with(|state| state.no_ranges = true);
    let world = World::new();
    let (code, report) = backup(&world, &store);
    assert!(code == 2 && report.to_string().contains("the store ignores ranges"), "{code} {report:#}");
}

#[test]
fn a_tag_that_stands_for_several_contents_says_nothing() {
    let store = StandIn::start(&[(b"p/a", b"before"), (b"p/b", b"still")]);
    store.with(|state| state.tag = Some("W/\"6\""));
    let world = World::new();
    assert_eq!(backup(&world, &store).0, 0);
    store.with(|state| state.objects.insert(b"p/a".to_vec(), b"behind".to_vec()));
    let (code, report) = backup(&world, &store);
    assert!(code == 0 && report["files_read"] == 2, "{report:#}");
    assert_eq!(world.restored("back", 0)["a"], b"behind");
}

/// The answer to the last request is lost: the object is there, and so the next answer is that there is no such upload.
#[test]
fn an_object_in_parts_that_was_made_is_not_called_missing() {
    let bytes = noise(5, 40 << 20);
    let store = StandIn::start(&[(b"p/big", &bytes)]);
    let world = World::new();
    assert_eq!(backup(&world, &store).0, 0);
    let lost = |store: &StandIn| store.with(|state| state.script.push(("POST", "uploadId", 0, Act::Lose)));
    lost(&store);
    let value = world.ok(&["restore", "latest", "--to", &store.url("made")]);
    assert_eq!((&value["files"], &value["errors_total"]), (&1.into(), &0.into()), "{value:#}");
    assert!(store.with(|state| state.objects[&b"made/big"[..]] == bytes));
    // One that was taken away meanwhile is.
    lost(&store);
    store.with(|state| state.script.push(("HEAD", "gone/big", 0, Act::Remove("gone/big"))));
    let (code, value) = world.run(&["restore", "latest", "--to", &store.url("gone")]);
    assert_eq!((code, &value["errors_total"]), (3, &1.into()), "{value:#}");
}

#[test]
fn the_empty_key_is_never_put() {
    let store = StandIn::start(&[(b"p/", b""), (b"p/a", b"1"), (b"p/d/", b""), (b"p/d/b", b"2")]);
    let world = World::new();
    assert_eq!(backup(&world, &store).0, 0);
    for from in ["latest", "latest:/d"] {
        let value = world.ok(&["restore", from, "--to", &store.url(""), "--overwrite"]);
        assert_eq!(value["errors_total"], 0, "{value:#}");
    }
    let put: Vec<String> =
        store.with(|state| state.seen.iter().filter(|seen| seen.starts_with("PUT")).cloned().collect());
    let put: Vec<&str> = put.iter().filter_map(|seen| seen.split('?').next()).collect();
    assert!(
        put.contains(&"PUT /bucket/a") && put.contains(&"PUT /bucket/b") && put.contains(&"PUT /bucket/d/"),
        "{put:?}"
    );
    assert!(!put.contains(&"PUT /bucket/") && !put.contains(&"PUT /bucket"), "{put:?}");
}

#[test]
fn what_vanishes_or_has_another_size_is_named() {
    let store = StandIn::start(&[
        (b"p/gone", b"soon"),
        (b"p/longer", b"0123456789"),
        (b"p/shorter", b"0123456789"),
        (b"p/big-longer", &noise(1, 3 << 20)),
        (b"p/big-shorter", &noise(2, 3 << 20)),
        (b"p/huge", b"ten bytes!"),
        (b"p/still", b"still"),
    ]);
    store.with(|state| {
        state.script.push(("GET", "list-type", 0, Act::Refuse(503, "SlowDown")));
        state.script.push(("GET", "/bucket/p/gone", 0, Act::Remove("p/gone")));
        let sizes: [(&[u8], u64); 5] = [
            (b"p/longer", 5),
            (b"p/shorter", 20),
            (b"p/big-longer", 2 << 20),
            (b"p/big-shorter", 4 << 20),
            (b"p/huge", u64::MAX),
        ];
        state.sizes = sizes.map(|(key, size)| (key.to_vec(), size)).into();
    });
    let world = World::new();
    let (code, report) = backup(&world, &store);
    assert_eq!((code, &report["errors_total"]), (3, &6.into()), "{report:#}");
    for e in report["errors"].as_array().unwrap() {
        let (path, message) = (e["path"].as_str().unwrap(), e["message"].as_str().unwrap());
        match path == "s3://bucket/p/gone" {
            true => assert_eq!(e["kind"], "vanished"),
            false => assert!(message.contains("its listing says") && e["kind"] == "io", "{path}: {message}"),
        }
    }
    assert_eq!(world.restored("back", 0).into_iter().collect::<Vec<_>>(), [("still".to_owned(), b"still".to_vec())]);
}

#[test]
fn a_store_that_wants_no_more_of_us_ends_the_run() {
    let objects: Vec<(Vec<u8>, Vec<u8>)> =
        (0..900).map(|n| (format!("p/{n:04}").into_bytes(), noise(n, 3000))).collect();
    let objects: Vec<(&[u8], &[u8])> = objects.iter().map(|(key, bytes)| (&key[..], &bytes[..])).collect();
    let store = StandIn::start(&objects);
    store.with(|state| state.script.push(("GET", "/bucket/p/", 5, Act::Refuse(400, "ExpiredToken"))));
    let world = World::new();
    let (code, report) = backup(&world, &store);
    assert!(code == 1 && report.to_string().contains("have expired"), "{code} {report:#}");
    let listed = world.ok(&["snapshots"]);
    assert_eq!(listed["snapshots"].as_array().map(Vec::len), Some(0), "{listed:#}");
    // One object that is refused is one object.
    store.with(|state| state.private.push("p/0123"));
    let (code, report) = backup(&world, &store);
    assert!(code == 3 && report["errors_total"] == 1 && report["errors"][0]["kind"] == "denied", "{code} {report:#}");
    assert_eq!(world.restored("back", 0).len(), 899);
}

#[test]
fn a_listing_that_is_not_whole_is_none() {
    let store = StandIn::start(&[(b"p/a", b"1"), (b"p/b", b"2"), (b"p/c", b"3")]);
    let world = World::new();
    let refused = |said: &str| {
        let (code, report) = backup(&world, &store);
        assert!(code == 1 && report.to_string().contains(said), "{code} {report:#}");
    };
    store.with(|state| (state.page, state.lost) = (2, true));
    refused("there is more, and not where");
    store.with(|state| (state.lost, state.circle) = (false, true));
    refused("lead in a circle");
    store.with(|state| {
        state.circle = false;
        state.script.push(("GET", "continuation-token", 0, Act::Refuse(403, "AccessDenied")));
    });
    refused("permission denied");
    let (code, report) = backup(&world, &store);
    assert!(code == 0 && report["files"] == 3, "{report:#}");
}
