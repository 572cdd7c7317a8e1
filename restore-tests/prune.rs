//! Prune gives space back, and nothing that a snapshot needs.

pub mod beside;
mod crash;
mod decided;
mod overtaken;
mod patience;
pub mod races;
mod refused;
pub mod stops;
mod strange;
mod told;

use crate::crash::{complete_alone, restores, text};
use crate::harness::{Bench, configure_daily, noise};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A prune that waits for nobody.
pub const NOW: [&str; 9] = ["prune", "--wait", "0s", "--dead-after", "0s", "--grace", "0s", "--repack-above", "100"];

/// The same, and nearly everything is written anew that has something in it that nobody needs.
pub const ANEW: [&str; 9] = ["prune", "--wait", "0s", "--dead-after", "0s", "--grace", "0s", "--repack-above", "10"];

/// Prunes at once; expects exit code 0.
pub fn prune(bench: &Bench) -> Value {
    bench.ok(&NOW)
}

/// What would go.
pub fn plan(bench: &Bench) -> Value {
    bench.ok(&[&NOW[..], &["--dry-run"]].concat())
}

/// Names of the packs of a plan, by the reason for which they go.
pub fn planned(report: &Value, reason: &str) -> BTreeSet<String> {
    let lines = report["plan"].as_array().unwrap().iter();
    lines.filter(|line| line["reason"] == reason).map(|line| line["pack"].as_str().unwrap().to_owned()).collect()
}

/// Names of the packs that a region has.
pub fn packs(bench: &Bench, region: &str) -> BTreeSet<String> {
    let objects = bench.objects(region).into_iter();
    let packs = objects.filter(|object| object.starts_with("packs/") && !object.contains('#'));
    packs.map(|object| object.rsplit('/').next().unwrap().to_owned()).collect()
}

pub fn backup(bench: &Bench, source: &Path) -> String {
    bench.ok(&["backup", "--name", "s", text(source)])["snapshot"].as_str().unwrap().to_owned()
}

pub fn forget(bench: &Bench, sid: &str) {
    bench.ok(&["forget", sid]);
}

/// Nothing is left that no snapshot needs, every region is complete on its own, and nothing is damaged.
pub fn clean(bench: &Bench, context: &str) {
    let report = plan(bench);
    assert_eq!(report["plan"].as_array().map(Vec::len), Some(0), "{context}: garbage is left: {report:#}");
    assert_eq!(report["forgotten"].as_array().map(Vec::len), Some(0), "{context}: {report:#}");
    let (_, value) = bench.json(&["verify", "--level", "content"]);
    // A run with one region alone is recorded there alone.
    let behind = value["behind"].as_array().unwrap().iter().filter(|what| !what.to_string().contains(" lacks runs/"));
    let wrong = ["findings", "broken", "lost"].map(|what| value[what].as_array().unwrap().len());
    assert_eq!((behind.count(), wrong), (0, [0; 3]), "{context}: {value:#}");
    complete_alone(bench, context);
}

/// A source of some versions, each of which replaces most files of the one before.
pub struct Versions {
    pub bench: Bench,
    pub sids: Vec<String>,
    /// What each version was.
    pub copies: Vec<PathBuf>,
}

pub fn write(dir: &Path, version: u64) {
    std::fs::create_dir_all(dir.join("below")).unwrap();
    for n in 0..6u64 {
        std::fs::write(dir.join(format!("changes-{n}")), noise(1000 * version + n, 90_000 + n as usize)).unwrap();
        std::fs::write(dir.join(format!("stays-{n}")), noise(n, 70_000 + n as usize)).unwrap();
        std::fs::write(dir.join(format!("below/small-{n}")), noise(2000 * version + n, 3_000)).unwrap();
    }
}

/// Three versions in these regions.
pub fn versions(regions: &[&'static str]) -> Versions {
    let bench = Bench::with_key(regions);
    let (mut sids, mut copies) = (Vec::new(), Vec::new());
    for version in 1..=3 {
        let source = bench.path("source");
        write(&source, version);
        sids.push(backup(&bench, &source));
        let copy = bench.path(&format!("version-{version}"));
        write(&copy, version);
        copies.push(copy);
    }
    Versions { bench, sids, copies }
}

/// A repacked tree restores to what it was, whatever the times of its files say.
pub fn comes_back(versions: &Versions, bench: &Bench, n: usize, context: &str) {
    restores(bench, &versions.sids[n], &versions.copies[n], context);
}

#[test]
fn space_comes_back_and_everything_kept_restores() {
    let versions = versions(&["a", "b", "c"]);
    let bench = &versions.bench;
    let before = packs(bench, "a");
    assert!(plan(bench)["plan"].as_array().unwrap().is_empty(), "nothing is forgotten yet");
    forget(bench, &versions.sids[0]);
    forget(bench, &versions.sids[1]);
    let said = plan(bench);
    assert_eq!(packs(bench, "a"), before, "a dry run removed something");
    let done = prune(bench);
    let removed: BTreeSet<String> = before.difference(&packs(bench, "a")).cloned().collect();
    assert!(!removed.is_empty(), "{done:#}");
    assert_eq!(planned(&said, "dead"), removed, "what was said is not what was done");
    for (ix, region) in ["a", "b", "c"].into_iter().enumerate() {
        let told = &done["regions"][ix];
        assert_eq!(told["removed"]["packs"], removed.len(), "{told:#}");
        assert_eq!(packs(bench, region), packs(bench, "a"));
        assert_eq!(told["snapshots"], 2, "{told:#}");
        let left = bench.objects(region);
        let manifests: Vec<_> = left.iter().filter(|o| o.starts_with("snapshots/")).collect();
        assert_eq!(manifests, [&format!("snapshots/{}", versions.sids[2])]);
        assert_eq!(left.iter().filter(|o| o.starts_with("forgotten/")).count(), 2, "a marker is for ever");
    }
    comes_back(&versions, bench, 2, "after a prune");
    clean(bench, "after a prune");
    let again = prune(bench);
    assert!(again["epoch"].is_null(), "an epoch with nothing in it: {again:#}");
    // A backup goes on from there, and finds what is left.
    let next = bench.ok(&["backup", "--name", "s", text(&bench.path("source"))]);
    assert_eq!(next["chunks_new"], 0, "{next:#}");
}

#[test]
fn what_a_dead_run_left_goes_and_what_may_be_at_work_stays() {
    let versions = versions(&["a", "b"]);
    let bench = &versions.bench;
    let other = bench.path("other");
    std::fs::create_dir(&other).unwrap();
    (0..30).for_each(|n| std::fs::write(other.join(format!("{n}")), noise(7000 + n, 1_500_000)).unwrap());
    let before = packs(bench, "a");
    let args = ["backup", "--name", "other", text(&other)];
    let steps = crate::crash::interfere(&bench.copy(), "count", 0, &args).steps;
    // Killed as the last packs are linked into their places: nothing names them yet.
    let links = steps.iter().filter(|step| step.starts_with("link")).count();
    let link = steps.iter().find(|step| step.starts_with("link")).unwrap();
    let mut left = 0;
    for at in 2..links {
        let case = bench.copy();
        let ended = crate::crash::interfere(&case, &format!("kill:{link}"), at, &args);
        // How packs fill differs from run to run: one may have fewer.
        if ended.code == 0 {
            continue;
        }
        assert_eq!(ended.code, crate::crash::KILLED, "{}", ended.said);
        let orphans: BTreeSet<String> = packs(&case, "a").difference(&before).cloned().collect();
        if orphans.is_empty() || left > 3 {
            continue;
        }
        left += 1;
        let patient = case.ok(&["prune", "--wait", "0s"]);
        assert_eq!(patient["regions"][0]["removed"]["packs"], 0, "a young session's packs went: {patient:#}");
        assert_eq!(patient["sessions_at_work"], 1, "{patient:#}");
        prune(&case);
        assert_eq!(packs(&case, "a"), before, "step {at} of {links}");
        assert_eq!(packs(&case, "b"), before, "step {at} of {links}");
        comes_back(&versions, &case, 2, "after the dead run's packs went");
        clean(&case, "after the dead run's packs went");
    }
    assert!(left > 0, "no instant left an orphan");
}

#[test]
fn of_what_is_stored_twice_one_copy_stays() {
    let versions = versions(&["a", "b"]);
    let bench = &versions.bench;
    // As two machines do that begin at the same time: each has an index without the other's chunks.
    let one = bench.copy();
    let source = bench.path("twin");
    write(&source, 9);
    let first = bench.ok(&["backup", "--name", "one", text(&source)])["snapshot"].as_str().unwrap().to_owned();
    let twin = one.path("twin");
    write(&twin, 9);
    let second = one.ok(&["backup", "--name", "two", text(&twin)])["snapshot"].as_str().unwrap().to_owned();
    for region in ["a", "b"] {
        let from = format!("{}/.", one.region(region).display());
        let done = std::process::Command::new("cp").arg("-an").arg(from).arg(bench.region(region)).status();
        assert!(done.unwrap().success());
    }
    let before = packs(bench, "a").len();
    let said = plan(bench);
    assert!(!planned(&said, "copy").is_empty(), "{said:#}");
    let done = prune(bench);
    assert_eq!(packs(bench, "a").len(), before - planned(&said, "copy").len(), "{done:#}");
    for sid in [&first, &second] {
        restores(bench, sid, &source, "with one copy left");
    }
    clean(bench, "with one copy left");
}

#[test]
fn packs_of_which_little_is_needed_are_written_anew() {
    let versions = versions(&["a", "b"]);
    let bench = &versions.bench;
    forget(bench, &versions.sids[0]);
    forget(bench, &versions.sids[1]);
    let args = ANEW;
    let said = bench.ok(&[&args[..], &["--dry-run"]].concat());
    assert!(said["repacked"]["packs"].as_u64() > Some(0), "{said:#}");
    let done = bench.ok(&args);
    assert_eq!(done["repacked"]["packs"], said["repacked"]["packs"], "{done:#}");
    let (unused, kept) = (done["unused"].as_u64().unwrap(), done["kept"]["bytes"].as_u64().unwrap());
    assert!(unused * 10 <= kept, "{done:#}");
    for region in ["a", "b"] {
        let outcomes = bench.objects(region).into_iter().filter(|o| o.starts_with("snapshots/"));
        assert!(outcomes.count() > 1, "no record of what was moved");
    }
    comes_back(&versions, bench, 2, "written anew");
    clean(bench, "written anew");
    let again = bench.ok(&args);
    assert_eq!((&again["repacked"]["packs"], &again["epoch"]), (&0.into(), &Value::Null), "{again:#}");
}

#[test]
fn many_small_index_segments_become_one() {
    let bench = Bench::with_key(&["a", "b"]);
    let source = bench.path("source");
    let mut sids = Vec::new();
    for version in 0..10 {
        write(&source.join(format!("part-{version}")), version);
        sids.push(backup(&bench, &source));
    }
    let segments = |region| bench.objects(region).into_iter().filter(|o| o.starts_with("index/")).collect::<Vec<_>>();
    assert_eq!(segments("a").len(), 10);
    let done = prune(&bench);
    assert_eq!(done["segments_merged"], 10, "{done:#}");
    assert_eq!((segments("a").len(), segments("a")), (1, segments("b")), "{done:#}");
    restores(&bench, &sids[9], &source, "with one segment");
    clean(&bench, "with one segment");
    let next = bench.ok(&["backup", "--name", "s", text(&source)]);
    assert_eq!(next["chunks_new"], 0, "{next:#}");
    assert_eq!(prune(&bench)["segments_merged"], 0);
}

#[test]
fn many_small_packs_become_few() {
    let bench = Bench::with_key(&["a", "b"]);
    let source = bench.path("source");
    let mut sids = Vec::new();
    for version in 0..18 {
        std::fs::create_dir_all(source.join(format!("part-{version}"))).unwrap();
        std::fs::write(source.join(format!("part-{version}/file")), noise(version, 40_000)).unwrap();
        sids.push(backup(&bench, &source));
    }
    let before = packs(&bench, "a").len();
    let said = bench.ok(&[&ANEW[..8], &["90", "--repack-small", "16", "--dry-run"]].concat());
    assert_eq!(packs(&bench, "a").len(), before);
    let done = bench.ok(&[&ANEW[..8], &["90", "--repack-small", "16"]].concat());
    assert_eq!(done["repacked"]["packs"], said["repacked"]["packs"], "{done:#}");
    assert!(packs(&bench, "a").len() < before / 3, "{} of {before}: {done:#}", packs(&bench, "a").len());
    restores(&bench, &sids[17], &source, "few packs");
    clean(&bench, "few packs");
    let again = bench.ok(&[&ANEW[..8], &["90", "--repack-small", "16"]].concat());
    assert_eq!(again["repacked"]["packs"], 0, "written anew again and again: {again:#}");
    let next = bench.ok(&["backup", "--name", "s", text(&source)]);
    assert_eq!(next["chunks_new"], 0, "{next:#}");
}

#[test]
fn what_a_run_may_not_remove_waits_for_the_next() {
    let versions = versions(&["a", "b"]);
    let bench = &versions.bench;
    forget(bench, &versions.sids[0]);
    forget(bench, &versions.sids[1]);
    let before = (packs(bench, "a"), bench.objects("a").iter().filter(|o| o.starts_with("epochs/")).count());
    let none = bench.ok(&[&NOW[..], &["--stop-after", "0s"]].concat());
    assert_eq!((none["stopped"].as_str(), &none["epoch"]), (Some("time"), &Value::Null), "{none:#}");
    let epochs = bench.objects("a").iter().filter(|o| o.starts_with("epochs/")).count();
    assert_eq!((packs(bench, "a"), epochs), before, "something was done in no time");
    let mut runs = 0;
    loop {
        let done = bench.ok(&[&NOW[..], &["--removals-max", "2"]].concat());
        runs += 1;
        comes_back(&versions, bench, 2, "between two runs");
        for region in [0, 1] {
            let told = &done["regions"][region];
            let removed = ["segments", "snapshots", "sessions"].map(|what| told[what].as_u64().unwrap());
            assert!(told["removed"]["packs"].as_u64().unwrap() + removed.iter().sum::<u64>() <= 2, "{done:#}");
        }
        if done["stopped"].is_null() {
            break;
        }
        assert_eq!(done["stopped"], "removals");
        assert!(runs < 50, "{done:#}");
    }
    assert!(runs > 2);
    clean(bench, "after several runs");
}

/// However many snapshots share a page of a tree, it is read once.
#[test]
fn a_shared_page_is_read_once() {
    let bench = Bench::with_key(&["a"]);
    let source = bench.path("source");
    for dir in 0..20 {
        std::fs::create_dir_all(source.join(format!("d{dir}"))).unwrap();
        (0..5).for_each(|n| std::fs::write(source.join(format!("d{dir}/f{n}")), noise(100 * dir + n, 20_000)).unwrap());
    }
    backup(&bench, &source);
    let one = plan(&bench)["pages"].as_u64().unwrap();
    assert!(one > 20);
    for n in 0..5 {
        std::fs::write(source.join("d0").join(format!("new-{n}")), noise(9000 + n, 20_000)).unwrap();
        backup(&bench, &source);
    }
    // Each of them has a root and a directory of its own.
    let six = plan(&bench);
    assert_eq!(six["snapshots"], 6);
    assert!(six["pages"].as_u64().unwrap() <= one + 5 * 2, "{one}: {six:#}");
}

#[test]
fn a_policy_prunes() {
    let bench = Bench::with_key(&["a", "b"]);
    configure_daily(&bench, "prune: {schedule: '@weekly', repackAbove: 100%, stopAfter: 1h}");
    let run = |kind: &str| bench.json_at(&[], &["run", "daily", "--kind", kind]);
    let mut sids = Vec::new();
    for version in 1..=2 {
        write(&bench.path("source"), version);
        let (code, value) = run("incremental");
        assert_eq!(code, 0, "{value:#}");
        sids.push(value["sources"][0]["snapshot"].as_str().unwrap().to_owned());
    }
    let before = packs(&bench, "a").len();
    forget(&bench, &sids[0]);
    let (code, value) = run("prune");
    assert_eq!((code, value["kind"].as_str()), (0, Some("prune")), "{value:#}");
    let gone = value["pruned"]["packs"].as_u64().unwrap();
    assert!(gone > 0 && value["pruned"]["epoch"] == 2, "{value:#}");
    assert_eq!(packs(&bench, "a").len() + packs(&bench, "b").len(), 2 * before - gone as usize);
    restores(&bench, &sids[1], &bench.path("source"), "after a policy's prune");
    let runs = bench.ok(&["runs"]);
    let last = runs["runs"].as_array().unwrap().iter().find(|run| run["kind"] == "prune").unwrap();
    assert_eq!((last["policy"].as_str(), &last["code"]), (Some("daily"), &0.into()), "{last:#}");
    // A member that is away: it says so, and would be tried again by its schedule.
    std::fs::rename(bench.region("b"), bench.path("aside")).unwrap();
    let (code, value) = run("prune");
    assert_eq!(code, 1, "{value:#}");
}

#[test]
fn an_independent_generation_keeps_its_own_copy() {
    let versions = versions(&["a", "b"]);
    let bench = &versions.bench;
    let source = bench.path("source");
    let sid = bench.ok(&["backup", "--name", "s", "--mode", "independent", text(&source)]);
    let sid = sid["snapshot"].as_str().unwrap().to_owned();
    let both = packs(bench, "a");
    let done = prune(bench);
    assert_eq!(packs(bench, "a"), both, "a copy of another generation went: {done:#}");
    versions.sids.iter().for_each(|sid| forget(bench, sid));
    prune(bench);
    restores(bench, &sid, &source, "the second generation");
    clean(bench, "with one generation left");
}
