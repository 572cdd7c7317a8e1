//! Regions that are slow, or die while they are read: how long anybody waits for them, and what happens instead.

use super::end_to_end::{ALL, World, requests, url};
use super::proxy::{Fault, Proxy};
use super::servers;
use crate::crash::{fill, text};
use serde_json::Value;
use std::time::{Duration, Instant};

fn of<'v>(value: &'v Value, region: &str) -> &'v Value {
    let all = value["requests"].as_array().unwrap_or_else(|| panic!("no requests in {value:#}"));
    all.iter().find(|of| of["region"] == region).unwrap_or_else(|| panic!("no {region} in {value:#}"))
}

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
    let begin = Instant::now();
    let (code, value) = world.run(&ALL, &["--copies-min", "2", "backup", source]);
    let took = begin.elapsed();
    assert_eq!((code, &value["behind"][0]["region"]), (4, &"b".into()), "{value:#}");
    let why = value["behind"][0]["why"].as_str().unwrap();
    assert!(why.contains("fell behind"), "{value:#}");
    // A mark, slots, configurations and epochs are waited for, one after the other, before it is known who is slow.
    assert!(took < Duration::from_secs(60), "{took:?}");
    world.restores(&["a"], "from-a");
    world.restores(&["c"], "from-c");
    // Where it is needed it is waited for.
    proxy.delay(Duration::from_millis(100), Duration::from_millis(100));
    let (code, value) = world.run(&["a", "b"], &["--copies-min", "2", "backup", source]);
    assert_eq!(code, 0, "{value:#}");
    proxy.delay(Duration::ZERO, Duration::ZERO);
    world.restores(&["b"], "from-b");
    world.ok(&["b"], &["verify", "--level", "content"]);
}

#[test]
fn a_region_that_dies_while_it_is_read_is_not_asked_again() {
    let server = servers::seaweed(&["first", "second"]);
    let (first, second) = (Proxy::before(server.port), Proxy::before(server.port));
    let world = World::new(vec![("a", url(first.port, "first")), ("b", url(second.port, "second"))]);
    let both = ["a", "b"];
    world.ok(&both, &["init", "--no-recovery-key"]);
    fill(&world.source, 2, 20, 2_000_000);
    world.ok(&both, &["backup", text(&world.source)]);
    // The second one is farther away, so the first is read, until it hangs: the other is asked.
    second.delay(Duration::from_millis(20), Duration::from_millis(20));
    first.spoil("GET", "packs/", Fault::Hang);
    let begin = Instant::now();
    let value = world.ok(&both, &["restore", "latest", "--target", "while-it-hangs"]);
    assert_eq!(first.left(), 0, "{value:#}");
    assert!(begin.elapsed() < Duration::from_secs(25), "nobody else was asked");
    crate::harness::assert_same(&world.source, &world.bench.path("while-it-hangs"));
    assert_eq!(value["findings"], Value::Array(Vec::new()), "{value:#}");
    // It dies: it costs once what it takes to see that.
    first.kill_after("GET", "packs/", 2);
    let begin = Instant::now();
    let value = world.ok(&both, &["restore", "latest", "--target", "while-it-dies"]);
    assert!(begin.elapsed() < Duration::from_secs(45), "{:?}", begin.elapsed());
    crate::harness::assert_same(&world.source, &world.bench.path("while-it-dies"));
    assert_eq!((&of(&value, "a")["circuit"], &of(&value, "a")["opened"]), (&"open".into(), &1.into()), "{value:#}");
    assert_eq!(value["findings"], Value::Array(Vec::new()), "an absence is no damage: {value:#}");
    assert!(requests(&value, "b", "get") > 2, "{value:#}");
    first.revive();
    world.restores(&both, "alive");
}
