//! Regions that are slow, or die while they are read: how long anybody waits for them, and what happens instead.

use super::conformance::{Subject, fresh};
use super::end_to_end::{ALL, World, requests, url};
use super::proxy::{Fault, Proxy};
use super::servers::{self, WRITER};
use super::{s3, variables};
use crate::crash::{fill, text};
use bytes::Bytes;
use holdfast::base::Place;
use holdfast::error::Kind;
use holdfast::region::{Address, RegionSet, Regions};
use holdfast::store::{Key, State};
use serde_json::Value;
use std::time::Duration;

#[test]
fn a_region_that_is_slow_is_left_behind_and_brought_up_later() {
    let server = servers::seaweed(&["first", "second"]);
    let proxy = Proxy::before(server.port);
    let folder = tempfile::tempdir().unwrap();
    let world = World::new(vec![
        ("a", url(server.port, "first")),
        ("b", url(proxy.port, "second")),
        ("c", folder.path().join("c").display().to_string()),
    ]);
    world.ok(&ALL, &["init", "--no-recovery-key"]);
    let source = text(&world.source);
    world.ok(&ALL, &["backup", source]);
    // Every answer takes far longer than the whole run; but nobody needs it.
    proxy.delay(Duration::from_secs(1), Duration::from_secs(1));
    fill(&world.source, 2, 20, 2_000_000);
    let (code, value) = world.run(&ALL, &["--copies-min", "2", "backup", source]);
    assert_eq!((code, &value["behind"][0]["region"]), (4, &"b".into()), "{value:#}");
    let why = value["behind"][0]["why"].as_str().unwrap();
    assert!(why.contains("fell behind"), "{value:#}");
    world.restores(&["a"], "from-a");
    world.restores(&["c"], "from-c");
    // Where it is needed it is waited for.
    proxy.delay(Duration::from_millis(100), Duration::from_millis(100));
    let (code, value) = world.run(&ALL, &["--copies-min", "3", "backup", source]);
    assert_eq!(code, 0, "{value:#}");
    proxy.delay(Duration::ZERO, Duration::ZERO);
    world.restores(&["b"], "from-b");
    world.ok(&["b"], &["verify", "--level", "content"]);
}

/// A repository, and what is to be stored in it: of its regions one is slow enough to be left behind, and another dies when its
/// snapshot is to be created, after everything else.
fn slow_and_dying(world: &World, slow: &Proxy, dying: &Proxy) {
    world.ok(&ALL, &["init", "--no-recovery-key"]);
    fill(&world.source, 2, 20, 2_000_000);
    slow.delay(Duration::from_millis(350), Duration::from_millis(350));
    dying.kill_after("PUT", "snapshots/", 0);
}

#[test]
fn a_region_that_was_left_behind_is_brought_up_once_another_one_dies() {
    let server = servers::seaweed(&["second", "third"]);
    let (dying, slow) = (Proxy::before(server.port), Proxy::before(server.port));
    let folder = tempfile::tempdir().unwrap();
    let world = World::new(vec![
        ("a", folder.path().join("a").display().to_string()),
        ("b", url(dying.port, "second")),
        ("c", url(slow.port, "third")),
    ]);
    slow_and_dying(&world, &slow, &dying);
    let (code, value) = world.run(&ALL, &["--copies-min", "2", "backup", text(&world.source)]);
    assert_eq!((code, value["behind"].as_array().map(Vec::len)), (4, Some(1)), "{value:#}");
    assert_eq!(
        (&value["behind"][0]["region"], &value["regions"]),
        (&"b".into(), &serde_json::json!(["a", "c"])),
        "{value:#}"
    );
    slow.delay(Duration::ZERO, Duration::ZERO);
    world.restores(&["c"], "from-c");
    world.ok(&["c"], &["verify", "--level", "content"]);
}

#[test]
fn a_region_that_was_left_behind_is_complete_only_where_the_snapshot_stands() {
    let server = servers::seaweed(&["first", "second", "third"]);
    let [first, dying, slow] = [(); 3].map(|()| Proxy::before(server.port));
    let world = World::new(vec![
        ("a", url(first.port, "first")),
        ("b", url(dying.port, "second")),
        ("c", url(slow.port, "third")),
    ]);
    slow_and_dying(&world, &slow, &dying);
    // The last one that has it is gone when it is looked what the slow one lacks.
    first.kill_after("GET", "snapshots", 1);
    let (code, value) = world.run(&ALL, &["--copies-min", "2", "backup", text(&world.source)]);
    assert_eq!((code, &value["regions"]), (1, &serde_json::json!(["a"])), "{value:#}");
    let behind: Vec<&str> = value["behind"].as_array().unwrap().iter().map(|b| b["region"].as_str().unwrap()).collect();
    assert_eq!(behind, ["b", "c"], "{value:#}");
}

#[test]
fn a_region_that_hangs_or_dies_while_it_is_read_holds_nobody_up() {
    let server = servers::seaweed(&["first", "second"]);
    let (first, second) = (Proxy::before(server.port), Proxy::before(server.port));
    let world = World::new(vec![("a", url(first.port, "first")), ("b", url(second.port, "second"))]);
    let both = ["a", "b"];
    world.ok(&both, &["init", "--no-recovery-key"]);
    fill(&world.source, 2, 20, 2_000_000);
    world.ok(&both, &["backup", text(&world.source)]);
    // The second one is farther away, so the first is read, until it hangs: the other is asked, and nobody waits for the
    // end of that.
    second.delay(Duration::from_millis(150), Duration::from_millis(150));
    first.spoil("GET", "packs/", Fault::Hang);
    let value = world.ok(&both, &["restore", "latest", "--target", "while-it-hangs"]);
    assert_eq!((first.left(), requests(&value, "a", "retries")), (0, 0), "{value:#}");
    crate::harness::assert_same(&world.source, &world.bench.path("while-it-hangs"));
    assert_eq!(value["findings"], Value::Array(Vec::new()), "{value:#}");
    first.kill_after("GET", "packs/", 2);
    let value = world.ok(&both, &["restore", "latest", "--target", "while-it-dies"]);
    crate::harness::assert_same(&world.source, &world.bench.path("while-it-dies"));
    assert_eq!(value["findings"], Value::Array(Vec::new()), "an absence is no damage: {value:#}");
    assert!(requests(&value, "b", "get") > 2, "{value:#}");
    first.revive();
    world.restores(&both, "alive");
}

#[test]
fn who_does_not_answer_is_asked_last_and_never_given_up() {
    let server = servers::seaweed(&["first", "second"]);
    let proxy = Proxy::before(server.port);
    let mut subject = Subject::new(s3(proxy.port, "first", ""), &variables(WRITER));
    subject.settings.patience.unreachable = Duration::from_millis(600);
    let address = |name: &str, place: Place| Address { name: name.to_owned(), place };
    let addresses = [address("a", subject.place.clone()), address("b", s3(server.port, "second", ""))];
    let regions = Regions::connect_with(&addresses, false, subject.runtime.handle(), &subject.settings);
    let (both, only) = (RegionSet::of([0, 1]), RegionSet::of([0]));
    let (key, alone, bytes) = (fresh(), fresh(), Bytes::from_static(b"anything"));
    assert_eq!(regions.put_all(both, &key, &bytes), both);
    assert_eq!(regions.put_all(only, &alone, &bytes), only);
    let read = |key: &Key| regions.read(both, key, 100, |read| Ok(read.len()));
    let a = || regions.meters()[0].1.read();
    proxy.kill();
    assert_eq!(read(&key).unwrap(), bytes.len());
    assert_eq!((a().circuit, a().opened), (State::Open, 1));
    let tried = a().retries;
    assert!(tried > 0 && regions.findings().is_empty(), "{:?}", regions.findings());
    // Another region has it: the one that is away is not asked.
    assert_eq!(read(&key).unwrap(), bytes.len());
    assert_eq!(a().retries, tried);
    // None else has it: it is, and is given its time each time.
    let e = read(&alone).unwrap_err();
    assert_eq!(e.kind(), Kind::Retry, "{e}");
    assert!(a().retries > tried);
    proxy.revive();
    assert_eq!(read(&alone).unwrap(), bytes.len());
    assert_eq!((a().circuit, a().opened), (State::Closed, 1));
}
