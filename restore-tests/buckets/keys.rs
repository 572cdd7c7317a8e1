//! Keys that are no paths: counted, named, and left where they are; everything else is kept.

use super::World;
use super::stand_in::StandIn;
use serde_json::Value;

const LONG: [u8; 256] = [b'x'; 256];

#[test]
fn keys_that_are_no_paths_are_named_and_lead_nowhere() {
    let long = [&b"p/"[..], &LONG[..]].concat();
    let bad: [(&[u8], &str); 14] = [
        (b"p//rooted", "empty part"),
        (b"p/a//b", "empty part"),
        (b"p/../escaped", "a part `.` or `..`"),
        (b"p/a/../../escaped", "a part `.` or `..`"),
        (b"p/.", "a part `.` or `..`"),
        (b"p/a/./b", "a part `.` or `..`"),
        (b"p/..", "a part `.` or `..`"),
        (b"p/nul\0byte", "a NUL"),
        (b"p/bad\xff", "not UTF-8"),
        (&long, "longer than 255 bytes"),
        (b"p/both", "other keys lie below it"),
        (b"p/full/", "and has content"),
        (b"p/dir/both", "other keys lie below it"),
        (b"p///", "and has content"),
    ];
    let good: [(&[u8], &str); 9] = [
        (b"p/both/inside", "both/inside"),
        (b"p/both-1", "both-1"),
        (b"p/both.txt", "both.txt"),
        (b"p/dir/both/in", "dir/both/in"),
        (b"p/a b+c%20d", "a b+c%20d"),
        ("p/ü/\u{1}".as_bytes(), "ü/\u{1}"),
        (b"p/...", "..."),
        (b"p/z", "z"),
        (b"p/a.b/c", "a.b/c"),
    ];
    let all = bad.iter().map(|(key, _)| *key).chain(good.iter().map(|(key, _)| *key));
    let mut objects: Vec<(&[u8], &[u8])> = all.map(|key| (key, key)).collect();
    for (key, bytes) in [("p/hollow/", ""), ("p/", ""), ("outside", "not asked for")] {
        objects.push((key.as_bytes(), bytes.as_bytes()));
    }
    let store = StandIn::start(&objects);
    store.with(|state| state.page = 4);
    let world = World::new();
    let (code, report) = world.run(&["backup", &store.url("p")]);
    assert_eq!(code, 3, "{report:#}");
    assert_eq!((report["errors_total"].as_u64(), report["files"].as_u64()), (Some(14), Some(9)), "{report:#}");
    let errors = report["errors"].as_array().unwrap();
    assert!(errors.iter().all(|e| e["kind"] == "unaddressable"), "{report:#}");
    for (key, why) in bad {
        let tail = String::from_utf8_lossy(key.split(|b| b"\0\xff".contains(b)).next().unwrap()).into_owned();
        let named = |e: &Value| {
            let (path, message) = (e["path"].as_str().unwrap(), e["message"].as_str().unwrap());
            path.starts_with(&format!("s3://bucket/{tail}")) && message.contains(why)
        };
        assert!(errors.iter().any(named), "{tail}: {why}: {report:#}");
    }
    let record = world.ok(&["runs"]);
    assert!(record.to_string().contains("s3://bucket/p/a//b"), "{record:#}");
    let restored = world.restored("back", 0);
    let there: Vec<(&str, &[u8])> = restored.iter().map(|(path, bytes)| (&path[..], &bytes[..])).collect();
    let mut wanted = good.map(|(key, path)| (path, key));
    wanted.sort();
    assert_eq!(there, wanted);
    assert!(world.bench.path("back/hollow").is_dir() && !world.bench.path("escaped").exists());
    // A run that finds the same again reads none of it, and says it again.
    let (code, again) = world.run(&["backup", &store.url("p")]);
    assert!(code == 3 && again["errors_total"] == 14 && again["files_read"] == 0, "{again:#}");
}

#[test]
fn a_repository_in_its_own_source_is_left_out() {
    let server = crate::stores::servers::seaweed(&["shared"]);
    let mut world = World::new();
    super::put(&world, &server, "shared", &[super::plain("data/x", b"mine")]);
    world.bench.regions.clear();
    let region = format!("own={}", super::url(&server, "shared/backups"));
    let with = |more: &[&str]| world.run(&[&["--region", region.as_str()][..], more].concat());
    let (code, value) = with(&["init", "--no-recovery-key"]);
    assert_eq!(code, 0, "{value:#}");
    for _ in 0..2 {
        let (code, report) = with(&["backup", &super::url(&server, "shared")]);
        assert!(code == 0 && report["files"] == 1 && report["excluded"].as_u64() > Some(3), "{report:#}");
    }
}
