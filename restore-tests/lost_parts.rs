//! Parts that are lost or cannot be listed at the wrong moment: nothing that is incomplete becomes visible, and
//! nothing is taken over that is no longer there.

use crate::harness::{Bench, assert_same, noise, opened};
use holdfast::base::{HoldId, SessionId};
use holdfast::format::envelope::Kind;
use holdfast::format::objects::Hold;
use holdfast::store::Key;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::os::unix::fs::symlink;
use std::path::Path;

fn backup(bench: &Bench, more: &[&str]) -> (i32, Value) {
    bench.json(&[&["--copies-min", "1", "backup", "--name", "s", "source"], more].concat())
}

fn good(bench: &Bench, more: &[&str]) -> Value {
    let (code, value) = backup(bench, more);
    assert_eq!(code, 0, "{value:#}");
    value
}

fn id_of(value: &Value) -> String {
    value["snapshot"].as_str().unwrap_or_else(|| panic!("no snapshot: {value:#}")).to_owned()
}

fn ids(bench: &Bench, region: &'static str) -> Vec<String> {
    let (_, value) = bench.json_at(&[region], &["snapshots"]);
    let all = value["snapshots"].as_array().unwrap_or_else(|| panic!("{value:#}"));
    all.iter().map(|s| s["id"].as_str().unwrap().to_owned()).collect()
}

fn segments(bench: &Bench, region: &str) -> BTreeSet<String> {
    bench.objects(region).into_iter().filter(|o| o.starts_with("index/")).collect()
}

/// Waits until nothing written so far is too recent to be trusted.
fn settle(dir: &Path) {
    let made = || {
        std::fs::write(dir.join("probe"), b"x").unwrap();
        dir.join("probe").metadata().unwrap().modified().unwrap()
    };
    let start = made();
    while made().duration_since(start).unwrap_or_default().as_millis() < 200 {}
}

fn with_source(regions: &[&'static str]) -> Bench {
    let bench = Bench::with_key(regions);
    let source = bench.path("source");
    std::fs::create_dir(&source).unwrap();
    for n in 0..5 {
        std::fs::write(source.join(format!("file-{n}")), noise(n, 90_000)).unwrap();
    }
    bench
}

/// Region b misses a snapshot, and comes back.
fn b_is_behind() -> (Bench, String) {
    let bench = with_source(&["a", "b"]);
    let away = bench.path("away");
    std::fs::rename(bench.region("b"), &away).unwrap();
    let (code, value) = backup(&bench, &[]);
    assert_eq!(code, 4, "{value:#}");
    std::fs::rename(&away, bench.region("b")).unwrap();
    (bench, id_of(&value))
}

#[test]
fn visible_means_complete_although_the_index_of_the_other_region_cannot_be_listed() {
    let (bench, first) = b_is_behind();
    // Listing fails from here on; single objects can still be read.
    symlink("loop", bench.region("a").join("index/loop")).unwrap();
    let (code, value) = backup(&bench, &[]);
    assert_eq!((code, &value["regions"]), (4, &json!(["b"])), "{value:#}");
    assert!(!ids(&bench, "b").contains(&first), "shown in b, which has nothing of it");
    let (code, value) = bench.json_at(&["b"], &["verify", "--level", "content"]);
    assert_eq!(code, 0, "{value:#}");
}

#[test]
fn a_region_that_cannot_be_brought_up_is_named_and_not_passed_over() {
    let (bench, first) = b_is_behind();
    for pack in bench.objects("a").iter().filter(|o| o.starts_with("packs/")) {
        std::fs::remove_file(bench.region("a").join(pack)).unwrap();
    }
    let (code, value) = backup(&bench, &[]);
    assert!(!ids(&bench, "b").contains(&first));
    assert_eq!(code, 4, "{value:#}");
    assert_eq!(value["behind"][0]["region"], "b", "{value:#}");
}

#[test]
fn half_a_pack_in_the_region_is_no_copy() {
    let (bench, first) = b_is_behind();
    for pack in bench.objects("a").iter().filter(|o| o.starts_with("packs/")) {
        let bytes = std::fs::read(bench.region("a").join(pack)).unwrap();
        let there = bench.region("b").join(pack);
        std::fs::create_dir_all(there.parent().unwrap()).unwrap();
        std::fs::write(there, &bytes[..bytes.len() / 2]).unwrap();
    }
    let (code, value) = backup(&bench, &[]);
    assert_eq!((code, &value["behind"][0]["region"]), (4, &json!("b")), "{value:#}");
    assert!(!ids(&bench, "b").contains(&first), "shown in b, which has half of it");
}

#[test]
fn an_independent_snapshot_shares_nothing_with_one_whose_manifest_is_damaged() {
    let bench = with_source(&["a"]);
    good(&bench, &[]);
    let second = good(&bench, &["--mode", "independent"]);
    let manifest = bench.region("a").join("snapshots").join(id_of(&second));
    let mut bytes = std::fs::read(&manifest).unwrap();
    bytes[200] ^= 1;
    std::fs::write(&manifest, bytes).unwrap();
    let third = good(&bench, &["--mode", "independent"]);
    assert_eq!(third["chunks_new"], second["chunks_new"], "{third:#}");
}

#[test]
fn a_long_file_is_read_again_when_some_of_its_chunks_are_in_no_index() {
    use std::os::unix::fs::FileExt;
    let bench = Bench::with_key(&["a"]);
    let source = bench.path("source");
    std::fs::create_dir(&source).unwrap();
    let file = std::fs::File::create(source.join("long")).unwrap();
    let write = |n: u64| file.write_all_at(&noise(n, 4096), n * 65536).unwrap();
    (0..100).for_each(write);
    good(&bench, &[]);
    let old = segments(&bench, "a");
    // The list of its chunks is written anew, with the second segment; most of the chunks are named by the first.
    write(100);
    settle(bench.dir.path());
    good(&bench, &[]);
    for segment in &old {
        std::fs::remove_file(bench.region("a").join(segment)).unwrap();
    }
    let third = good(&bench, &[]);
    let (code, value) = bench.json(&["restore", &id_of(&third), "--target", "target"]);
    assert_eq!(code, 0, "{value:#}");
    assert_same(&source, &bench.path("target"));
}

#[test]
fn verify_names_attributes_that_are_in_no_index() {
    let bench = Bench::with_key(&["a"]);
    let source = bench.path("source");
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("file"), b"").unwrap();
    for n in 0..10u64 {
        let value = noise(n, 1000);
        let name = format!("user.large-{n}");
        rustix::fs::setxattr(source.join("file"), name.as_str(), &value, rustix::fs::XattrFlags::empty()).unwrap();
    }
    let first = good(&bench, &[]);
    let old = segments(&bench, "a");
    std::fs::write(source.join("more"), b"more").unwrap();
    good(&bench, &[]);
    bench.ok(&["forget", &id_of(&first)]);
    bench.ok(&["verify"]);
    for segment in &old {
        std::fs::remove_file(bench.region("a").join(segment)).unwrap();
    }
    let (code, value) = bench.json(&["verify"]);
    assert_eq!(code, 5, "{value:#}");
    assert!(value["broken"].to_string().contains("/file"), "{value:#}");
}

#[test]
fn what_a_damaged_hold_may_hold_is_not_forgotten() {
    let bench = Bench::new(&["a"]);
    std::fs::create_dir(bench.path("source")).unwrap();
    let (first, _) = (id_of(&good(&bench, &[])), good(&bench, &[]));
    let repo = opened(&bench);
    let id = HoldId([1; 16]);
    let key = Key::Hold(id);
    let sid = SessionId::parse(&first).unwrap();
    let hold = Hold { fresh: repo.fresh(), hold: id, sid, created: 0, reason: "a drill".into(), until: None };
    let sealed = repo.seal(Kind::Hold, &key.canonical(), &hold).unwrap();
    let path = bench.region("a").join(key.path());
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, &sealed).unwrap();
    assert_eq!(bench.json(&["forget", &first]).0, 11);
    let mut torn = sealed.to_vec();
    torn[300] ^= 1;
    std::fs::write(&path, torn).unwrap();
    let (code, value) = bench.json(&["forget", &first]);
    assert_eq!(code, 11, "{value:#}");
    assert!(value.to_string().contains(&key.path()), "{value:#}");
}

#[test]
fn a_snapshot_of_which_a_part_of_the_index_is_lost_is_not_brought_to_another_region() {
    let (bench, first) = b_is_behind();
    let away = bench.path("away");
    std::fs::rename(bench.region("b"), &away).unwrap();
    let of_the_first = segments(&bench, "a");
    std::fs::write(bench.path("source/later"), noise(77, 90_000)).unwrap();
    let (code, value) = backup(&bench, &[]);
    assert_eq!(code, 4, "{value:#}");
    let second = id_of(&value);
    for segment in of_the_first {
        std::fs::remove_file(bench.region("a").join(segment)).unwrap();
    }
    std::fs::rename(&away, bench.region("b")).unwrap();
    // The root page of the second snapshot is indexed, what it shares with the first is not.
    let (code, value) = backup(&bench, &[]);
    assert_eq!((code, &value["behind"][0]["region"]), (4, &json!("b")), "{value:#}");
    let shown = ids(&bench, "b");
    assert!(!shown.contains(&first) && !shown.contains(&second), "{shown:?}");
    // What b shows is whole; that it lacks what the newest vouches for is another matter, and is said.
    let (_, value) = bench.json_at(&["b"], &["verify", "--level", "content"]);
    assert_eq!((&value["broken"], &value["findings"]), (&json!([]), &json!([])), "{value:#}");
}
