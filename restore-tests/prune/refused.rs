//! Regions that let nothing go, and those that say of themselves what is not so.

use super::overtaken::segments;
use super::races::merged;
use super::stops::inside;
use super::{backup, clean, forget, packs, prune, versions, write};
use crate::crash::{complete_alone, fill, restores, text};
use crate::harness::Bench;
use crate::inside::plant;
use crate::spoilt::{Spoil, Spoilt};
use holdfast::base::{Cancel, SessionId};
use holdfast::format::envelope::Kind as ObjectKind;
use holdfast::format::objects::Tombstone;
use holdfast::ops::prune::{Bounds, Limits, Report, Wish, run};
use holdfast::ops::replicate::{self, Depth, Means};
use holdfast::store::Key;
use std::collections::BTreeSet;
use std::time::Duration;

/// A prune in this process that waits for nobody, as [`super::NOW`]; packs are written anew of which nobody needs more than so
/// many percent.
fn prune_inside(bench: &Bench, above_percent: u8) -> Report {
    let (opened, cancel) = (inside(bench), Cancel::default());
    let none = Duration::ZERO;
    let wish = Wish {
        dry_run: false,
        grace: none,
        wait: none,
        dead_after: none,
        last: &[],
        lost: &[],
        repack: Limits { above_percent, bytes_max: u64::MAX, small_min: usize::MAX },
        bounds: Bounds::default(),
        workers: 1,
        host: "h",
        cancel: &cancel,
    };
    run(&opened.repo, &wish).unwrap()
}

/// One segment names the packs of many snapshots, of which one after the other is forgotten; it stays, and so does all that is
/// made of it.
#[test]
fn where_nothing_may_be_removed_each_prune_adds_one_segment() {
    let bench = Bench::with_key(&["a", "b"]);
    let (source, mut sids) = (bench.path("source"), Vec::new());
    for version in 0..7 {
        write(&source, version);
        sids.push(backup(&bench, &source));
    }
    let parts: BTreeSet<String> = segments(&bench).into_keys().collect();
    {
        let opened = inside(&bench);
        let (key, bytes) = merged(&opened, &parts);
        opened.put(key, bytes);
    }
    for region in ["a", "b"] {
        parts.iter().for_each(|name| std::fs::remove_file(bench.region(region).join("index").join(name)).unwrap());
    }
    let _spoilt = ["a", "b"].map(|region| Spoilt::at(&bench.region(region), Spoil::Keeps("")));
    let count = || segments(&bench).len();
    assert_eq!(count(), 1);
    for (n, sid) in sids[..6].iter().enumerate() {
        forget(&bench, sid);
        let report = prune_inside(&bench, 100);
        assert!(report.regions.iter().all(|region| region.postponed.packs > 0 && region.why.is_some()), "{report:?}");
        assert_eq!(count(), n + 2, "after {} prunes", n + 1);
        // Another one finds it done.
        prune_inside(&bench, 100);
        assert_eq!(count(), n + 2, "after {} prunes and another", n + 1);
    }
    restores(&bench, &sids[6], &source, "where nothing may be removed");
    drop(_spoilt);
    // Once all may go it goes.
    prune(&bench);
    prune(&bench);
    assert_eq!(count(), 1);
    clean(&bench, "once all may go");
}

/// One of two regions lets no index segment go: they stay in both, as the next backup would bring them back.
#[test]
fn a_merge_removes_from_all_regions_or_from_none() {
    let bench = Bench::with_key(&["a", "b"]);
    let source = bench.path("source");
    let mut last = String::new();
    for version in 0..9 {
        write(&source, version);
        last = backup(&bench, &source);
    }
    let listed = |region: &str| -> BTreeSet<String> {
        bench.objects(region).into_iter().filter(|object| object.starts_with("index/")).collect()
    };
    let before = listed("a");
    for keeps in ["a", "b"] {
        let _spoilt = Spoilt::at(&bench.region(keeps), Spoil::Keeps("index/"));
        for _ in 0..2 {
            let report = prune_inside(&bench, 100);
            assert_eq!(report.merged, 0, "{report:?}");
            assert_eq!(listed("a"), listed("b"), "{keeps} keeps them");
            assert!(listed("a").is_superset(&before) && listed("a").len() == before.len() + 1, "{:?}", listed("a"));
        }
    }
    let verified = bench.ok(&["verify", "--level", "content"]);
    assert_eq!(verified["behind"].as_array().map(Vec::len), Some(0), "{verified:#}");
    prune(&bench);
    assert_eq!((listed("a").len(), listed("b").len()), (1, 1));
    restores(&bench, &last, &source, "once they may go");
    clean(&bench, "once they may go");
}

/// A region that lists segments and snapshots among its keys would have them copied before the packs that they need.
#[test]
fn what_is_listed_in_another_folder_is_not_believed() {
    for other in ["index", "snapshots"] {
        let bench = Bench::with_key(&["a", "b"]);
        let source = bench.path("source");
        fill(&source, 1, 4, 60_000);
        std::fs::rename(bench.region("b"), bench.path("aside")).unwrap();
        assert_eq!(bench.json(&["--copies-min", "1", "backup", text(&source)]).0, 4);
        std::fs::rename(bench.path("aside"), bench.region("b")).unwrap();
        // No pack can be read: nothing that needs one may come.
        let packs = bench.objects("a").into_iter().filter(|object| object.starts_with("packs/"));
        packs.for_each(|pack| std::fs::remove_file(bench.region("a").join(pack)).unwrap());
        let _spoilt = Spoilt::at(&bench.region("a"), Spoil::Tells("keys", other));
        let (opened, cancel) = (inside(&bench), Cancel::default());
        let means = Means { workers: 1, progress: None, cancel: &cancel };
        for depth in [Depth::Segments, Depth::Packs] {
            replicate::pass(&opened.repo, replicate::Wish { depth, targets: None, dry_run: false, means }).unwrap();
        }
        let came: Vec<String> =
            bench.objects("b").into_iter().filter(|o| o.starts_with("index/") || o.starts_with("snapshots/")).collect();
        assert!(came.is_empty(), "{other}: {came:?}");
    }
}

/// How much is read at once goes by what is listed: a region that lists one byte sends no more than that.
#[test]
fn an_epoch_that_is_longer_than_it_is_listed_is_not_read() {
    let versions = versions(&["a", "b"]);
    let bench = &versions.bench;
    let junk = vec![7; 5 << 20];
    for n in 0..4 {
        plant(&bench.region("b"), &format!("epochs/00000001/begin.{}", n + 1), &junk);
    }
    let spoilt = Spoilt::at(&bench.region("b"), Spoil::Shrinks("epochs/"));
    let opened = inside(bench);
    assert_eq!((opened.repo.usable().count(), opened.repo.writable().count()), (2, 1), "it has no epoch to show");
    drop((opened, spoilt));
    (1..=4).for_each(|n| std::fs::remove_file(bench.region("b").join(format!("epochs/00000001/begin.{n}"))).unwrap());
    complete_alone(bench, "afterwards");
}

/// A snapshot stands in one region alone, and rots there; another region says that its session ended without one.
#[test]
fn an_end_is_not_put_over_what_may_be_a_snapshot() {
    let versions = versions(&["a", "b"]);
    let bench = &versions.bench;
    let sid = SessionId::parse(&versions.sids[2]).unwrap();
    let key = Key::Snapshot(sid);
    {
        let opened = inside(bench);
        let repo = &opened.repo;
        let tombstone = Tombstone { fresh: repo.fresh(), sid, created: 1, reason: "patience ended".into() };
        plant(
            &bench.region("b"),
            &key.path(),
            &repo.seal(ObjectKind::Tombstone, &key.canonical(), &tombstone).unwrap(),
        );
    }
    let path = bench.region("a").join(key.path());
    let good = std::fs::read(&path).unwrap();
    // Also the byte that says what it is.
    for (at, bit) in [(good.len() / 2, 4), (8, 1)] {
        let mut bad = good.clone();
        bad[at] ^= bit;
        plant(&bench.region("a"), &key.path(), &bad);
        let (code, value) = bench.json(&["verify", "--level", "content", "--repair"]);
        assert_eq!((code, &value["repair"]["left"]), (5, &1.into()), "{value:#}");
        assert_eq!(std::fs::read(&path).unwrap(), bad, "something was put over it");
        assert_ne!(bench.json(&super::NOW).0, 0, "a prune that knows nothing of what it needs");
    }
    // Who has its bytes puts them back.
    plant(&bench.region("a"), &key.path(), &good);
    super::comes_back(&versions, &bench.copy(), 2, "put back");
}

/// A pack was written anew, and the old one is locked: listed, and dead. Once the new one is known to be damaged, a file that did
/// not change is stored again, not taken for stored in what goes when its lock ends.
#[test]
fn what_lies_in_a_dead_pack_that_is_locked_is_stored_again() {
    let bench = Bench::with_key(&["a", "b"]);
    let source = bench.path("source");
    write(&source, 1);
    let first = backup(&bench, &source);
    write(&source, 2);
    backup(&bench, &source);
    forget(&bench, &first);
    let before = packs(&bench, "a");
    {
        let _spoilt = ["a", "b"].map(|region| Spoilt::at(&bench.region(region), Spoil::Keeps("")));
        prune_inside(&bench, 10);
    }
    let after = packs(&bench, "a");
    assert!(after.is_superset(&before) && after.len() > before.len(), "nothing was written anew");
    let path = |region: &str, pack: &str| bench.region(region).join("packs").join(&pack[..2]).join(pack);
    let size = |pack: &&String| std::fs::metadata(path("a", pack)).unwrap().len();
    // That of content: the pages of the tree stay good.
    let pack = after.difference(&before).max_by_key(size).unwrap();
    for region in ["a", "b"] {
        let mut bytes = std::fs::read(path(region, pack)).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle - 2000..middle + 2000].iter_mut().for_each(|byte| *byte ^= 4);
        std::fs::write(path(region, pack), bytes).unwrap();
    }
    assert_eq!(bench.json(&["verify", "--level", "content"]).0, 5);
    let (_, next) = bench.json(&["backup", "--name", "s", text(&source)]);
    assert!(next["chunks_new"].as_u64() > Some(0), "{next:#}");
    // The locks end.
    for pack in inside(&bench).repo.epochs().doomed() {
        for region in ["a", "b"] {
            std::fs::remove_file(bench.region(region).join(Key::Pack(pack).path())).unwrap();
        }
    }
    restores(&bench, next["snapshot"].as_str().unwrap(), &source, "once the locks ended");
}
