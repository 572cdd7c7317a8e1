//! Parts that are lost or cannot be listed at the wrong moment: nothing that is incomplete becomes visible, and
//! nothing is taken over that is no longer there.

use crate::harness::{Bench, assert_same, noise, opened, settle};
use crate::inside::plant;
use crate::membership::inside;
use holdfast::base::{Cancel, HoldId, PackName, SessionId};
use holdfast::format::envelope::Kind;
use holdfast::format::objects::{Hold, Tombstone};
use holdfast::ops::complete::{self, Known};
use holdfast::ops::repair::{Bounds, Judge, Repair};
use holdfast::region::{Finding, Flaw, RegionSet};
use holdfast::repo::index::Index;
use holdfast::repo::members;
use holdfast::repo::reader::Reader;
use holdfast::repo::view::View;
use holdfast::store::Key;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::os::unix::fs::symlink;
use std::sync::Arc;

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

/// Three regions with a snapshot, of which b alone shows the outcome: a session there that is over looks open elsewhere.
fn only_b_shows_it() -> (Bench, String) {
    let bench = with_source(&["a", "b", "c"]);
    let sid = id_of(&good(&bench, &[]));
    for region in ["a", "c"] {
        std::fs::remove_file(bench.region(region).join("snapshots").join(&sid)).unwrap();
    }
    (bench, sid)
}

#[test]
fn no_session_is_ended_while_a_region_cannot_be_listed() {
    let (bench, sid) = only_b_shows_it();
    {
        let inside = inside(&bench);
        let repo = &inside.repo;
        // From here on the outcomes of b cannot be listed.
        symlink("loop", bench.region("b").join("snapshots/loop")).unwrap();
        let e = members::close_sessions(repo, repo.epochs(), (0, repo.regions.region(0).id)).unwrap_err();
        assert!(e.to_string().contains("nothing was ended"), "{e}");
    }
    // The same where a region goes in which it was decided: b, which has it, answers, and cannot be listed.
    {
        std::fs::remove_file(bench.region("b").join("snapshots/loop")).unwrap();
        let inside = inside(&bench);
        let repo = &inside.repo;
        let left: Vec<_> = repo.epochs().members().iter().skip(1).cloned().collect();
        members::begin(repo, repo.epochs(), 0, left).unwrap();
        let now = repo.epochs_since(repo.epochs());
        symlink("loop", bench.region("b").join("snapshots/loop")).unwrap();
        let e = members::resolve(repo, &now).unwrap_err();
        assert!(e.to_string().contains("nothing was ended"), "{e}");
    }
    std::fs::remove_file(bench.region("b").join("snapshots/loop")).unwrap();
    for region in ["a", "c"] {
        assert!(!bench.region(region).join("snapshots").join(&sid).exists(), "{region}: it was ended");
    }
}

/// The end of a session, as somebody may have made it who did not see its snapshot.
fn end_in(bench: &Bench, region: &str, sid: &str) -> Vec<u8> {
    let inside = inside(bench);
    let sid = SessionId::parse(sid).unwrap();
    let end = Tombstone { fresh: inside.repo.fresh(), sid, created: 0, reason: "away".into() };
    let key = Key::Snapshot(sid);
    let bytes = inside.repo.seal(Kind::Tombstone, &key.canonical(), &end).unwrap();
    plant(&bench.region(region), &key.path(), &bytes);
    bytes.to_vec()
}

#[test]
fn an_end_is_not_brought_where_a_snapshot_that_cannot_be_read_may_belong() {
    let bench = with_source(&["a", "b", "c"]);
    let sid = id_of(&good(&bench, &[]));
    let at = |region: &str| bench.region(region).join("snapshots").join(&sid);
    let whole = std::fs::read(at("b")).unwrap();
    end_in(&bench, "a", &sid);
    std::fs::write(at("b"), &whole[..whole.len() / 2]).unwrap();
    std::fs::remove_file(at("c")).unwrap();
    bench.json(&["replicate"]);
    assert!(!at("c").exists(), "the end was brought");
    std::fs::write(at("b"), &whole).unwrap();
    bench.json(&["replicate"]);
    assert!(std::fs::read(at("c")).unwrap() == whole, "the snapshot was not brought");
}

/// Asks the library to mend one object of a region.
fn mend(bench: &Bench, region: &str, object: &str, flaw: Flaw) -> String {
    let inside = inside(bench);
    let (repo, cancel) = (&inside.repo, Cancel::default());
    let judge = Judge::of(repo);
    let regions = &repo.regions;
    let (id, env, bounds) = (repo.id, &repo.env, Bounds::default());
    let repair = Repair { regions, id, judge, ledger: None, env, workers: 1, cancel: &cancel, bounds };
    let finding = Finding { region: region.into(), object: object.into(), what: "cannot be read".into(), flaw };
    let report = repair.run(&[finding]).unwrap();
    format!("{:?}", report.objects[0].done)
}

#[test]
fn an_end_is_not_put_where_a_snapshot_cannot_be_read_or_another_region_may_have_it() {
    let bench = with_source(&["a", "b", "c"]);
    let sid = id_of(&good(&bench, &[]));
    let object = format!("snapshots/{sid}");
    let at = |region: &str| bench.region(region).join(&object);
    let whole = std::fs::read(at("c")).unwrap();
    let end = end_in(&bench, "a", &sid);
    plant(&bench.region("b"), &object, &end);
    // It is there, and cannot be read just now.
    std::fs::remove_file(at("c")).unwrap();
    symlink(&sid, at("c")).unwrap();
    let done = mend(&bench, "c", &object, Flaw::Unreadable);
    assert!(done.contains("may be the snapshot"), "{done}");
    assert!(at("c").symlink_metadata().unwrap().is_symlink());
    // It is damaged, and a region that may have it whole is away.
    std::fs::remove_file(at("c")).unwrap();
    std::fs::write(at("c"), &whole[..whole.len() - 1]).unwrap();
    std::fs::write(at("b"), &whole).unwrap();
    std::fs::rename(bench.region("b"), bench.path("away")).unwrap();
    let done = mend(&bench, "c", &object, Flaw::Bytes);
    assert!(done.contains("may be the snapshot"), "{done}");
    assert!(std::fs::read(at("c")).unwrap() == whole[..whole.len() - 1]);
    std::fs::rename(bench.path("away"), bench.region("b")).unwrap();
    let done = mend(&bench, "c", &object, Flaw::Bytes);
    assert!(done.contains("PutBack"), "{done}");
    assert!(std::fs::read(at("c")).unwrap() == whole);
}

#[test]
fn what_is_known_to_be_complete_in_one_region_is_not_taken_to_be_so_in_another() {
    let bench = with_source(&["a", "b"]);
    good(&bench, &[]);
    std::fs::rename(bench.region("b"), bench.path("away")).unwrap();
    std::fs::create_dir(bench.path("source/new")).unwrap();
    std::fs::write(bench.path("source/new/file"), noise(77, 90_000)).unwrap();
    let (code, value) = backup(&bench, &[]);
    assert_eq!(code, 4, "{value:#}");
    std::fs::rename(bench.path("away"), bench.region("b")).unwrap();
    let inside = inside(&bench);
    let repo = &inside.repo;
    let view = View::load(repo).unwrap();
    let root = |sid: &str| view.snapshots[&SessionId::parse(sid).unwrap()].manifest.root.clone();
    let newer = root(&id_of(&value));
    let older = view.newest_first().last().unwrap().manifest.root.clone();
    let reader = Reader::new(Arc::clone(repo), Arc::new(Index::load(repo).unwrap()));
    let (both, only_a) = (RegionSet::of([0, 1]), RegionSet::of([0]));
    let mut known = Known::default();
    let mut ask = |root, among| {
        let all = |_: &PackName| RegionSet::ALL;
        complete::regions(&reader, &mut known, root, (among, &all), &Cancel::default()).unwrap()
    };
    assert_eq!(ask(&older, both), both);
    assert_eq!(ask(&newer, only_a), only_a);
    // That b has it was never asked.
    assert_eq!(ask(&newer, both), only_a);
    assert_eq!(ask(&newer, both), only_a);
    assert_eq!(ask(&older, both), both);
}
