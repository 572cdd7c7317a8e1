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

/// With a region in a prefix of the bucket, each of these is refused, and the repository is what it was.
#[test]
fn neither_source_nor_target_is_a_region() {
    let server = crate::stores::servers::seaweed(&["shared"]);
    let mut world = World::new();
    super::put(&world, &server, "shared", &[super::plain("data/x", b"mine")]);
    world.bench.regions.clear();
    let address = |rest: &str| super::url(&server, &format!("shared{rest}"));
    let region = format!("own={}", address("/repo"));
    let with = |more: &[&str]| world.run(&[&["--region", region.as_str()][..], more].concat());
    assert_eq!(with(&["init", "--no-recovery-key"]).0, 0);
    super::put(&world, &server, "shared", &[super::plain("repo/mine", b"too")]);
    for source in ["/repo", "/repo/snapshots"] {
        for end in ["", "/"] {
            let (code, value) = with(&["backup", &format!("{}{end}", address(source))]);
            assert!(code == 2 && value.to_string().contains("lies in a region"), "{source}{end}: {code} {value:#}");
        }
    }
    let (code, report) = with(&["backup", &format!("{}/", address("/data"))]);
    assert!(code == 0 && report["files"] == 1, "{report:#}");
    let folder = world.bench.path("folder");
    std::fs::create_dir_all(folder.join("repo/config")).unwrap();
    std::fs::write(folder.join("repo/config/00000001"), b"EVIL").unwrap();
    std::fs::write(folder.join("beside"), b"beside").unwrap();
    assert_eq!(with(&["backup", "--name", "evil", folder.to_str().unwrap()]).0, 0);
    for (from, to) in [
        ("latest", ""),
        ("latest", "/"),
        ("latest:/repo", "/repo"),
        ("latest:/repo", "/repo/"),
        ("latest:/beside", "/repo/packs"),
    ] {
        let (code, value) = with(&["restore", from, "--to", &address(to), "--overwrite"]);
        assert!(code == 11 && value.to_string().contains("into a region"), "{from} {to}: {code} {value:#}");
    }
    // What falls beside it may be put.
    for (from, to) in [("latest:/beside", ""), ("latest:/repo", ""), ("latest", "/other")] {
        assert_eq!(with(&["restore", from, "--to", &address(to), "--overwrite"]).0, 0, "{from} {to}");
    }
    assert_eq!(with(&["verify"]).0, 0);
}

#[test]
fn an_object_is_not_given_up_for_a_mark() {
    let store = StandIn::start(&[
        (b"p/c", b"content"),
        (b"p/c/", b""),
        (b"p/c/sub/", b""),
        (b"p/c-1", b"beside"),
        (b"p/d", b"content"),
        (b"p/d/", b""),
        (b"p/d/x", b"real"),
        (b"p/last", b"content"),
        (b"p/last/", b""),
    ]);
    let world = World::new();
    let (code, report) = world.run(&["backup", &store.url("p")]);
    assert_eq!((code, &report["errors_total"]), (3, &4.into()), "{report:#}");
    let mut named: Vec<&str> =
        report["errors"].as_array().unwrap().iter().map(|e| e["path"].as_str().unwrap()).collect();
    named.sort();
    assert_eq!(named, ["c/", "c/sub/", "d", "last/"].map(|key| format!("s3://bucket/p/{key}")));
    let restored = world.restored("back", 0);
    let paths: Vec<&str> = restored.keys().map(String::as_str).collect();
    assert_eq!(paths, ["c", "c-1", "d/x", "last"]);
    assert_eq!(restored["c"], b"content");
}
