//! Deltas: every revision of them, and what they must not be built upon.

use super::server::{Cluster, said};
use super::{backup, comes_up, mode, with_certificates};
use crate::harness::Bench;
use crate::membership::inside;
use crate::reader::python;
use crate::sessions::begin_epoch;
use holdfast::base::PackName;
use holdfast::repo::index::Index;
use holdfast::store::Key;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::process::Command;

fn unbase64(text: &str) -> Vec<u8> {
    let script = "import base64, sys; sys.stdout.buffer.write(base64.b64decode(sys.argv[1]))";
    python().args(["-c", script, text]).output().unwrap().stdout
}

/// The time, to the millisecond.
fn now() -> String {
    said(Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%S.%3NZ"])).trim().to_owned()
}

fn deltas(version: &'static str) {
    let bench = Bench::with_key(&["a", "b"]);
    let mut cluster = Cluster::start(version, 3);
    cluster.load(60, 11);
    // There is nothing to go on from: it is a whole one.
    let (code, report) = backup(&bench, &cluster, &["--mode", "delta"]);
    assert_eq!((code, report["etcd"]["agree"].as_array().map(Vec::len)), (0, Some(3)), "{report:#}");
    let begin = report["etcd"]["revision"].as_i64().unwrap();
    let (mut ends, mut times) = (vec![begin], vec![now()]);
    for n in 0..3 {
        ends.push(cluster.load(40, 12 + n));
        if n == 1 {
            cluster.kill(2);
        }
        let (code, report) = backup(&bench, &cluster, &["--mode", "delta"]);
        assert_eq!(code, 0, "{report:#}");
        let etcd = &report["etcd"];
        assert_eq!((etcd["after"].as_i64(), etcd["revision"].as_i64()), (Some(ends[n]), Some(ends[n + 1])));
        times.push(now());
    }
    let (code, report) = backup(&bench, &cluster, &["--mode", "delta"]);
    assert_eq!((code, report["snapshot"].is_null()), (0, true), "nothing changed: {report:#}");
    let snapshots = bench.ok(&["snapshots"])["snapshots"].as_array().unwrap().clone();
    assert_eq!(snapshots.iter().filter(|s| s["mode"] == "delta").count(), 3, "{snapshots:#?}");
    // Earlier ones may go: each delta has all that it needs.
    let newest = bench.ok(&["snapshots", "--name", "cluster"])["snapshots"].as_array().unwrap().clone();
    let id = |snapshot: &serde_json::Value| snapshot["id"].as_str().unwrap().to_owned();
    let latest = bench.ok(&["ls", "latest"])["snapshot"].as_str().unwrap().to_owned();
    newest.iter().map(id).filter(|id| *id != latest).for_each(|id| _ = bench.ok(&["forget", &id]));
    let last = ends[3];
    for revision in [begin, begin + 1, ends[1], ends[2] - 5, last - 1, last] {
        let restored = comes_up(&bench, version, "latest", revision);
        assert_eq!(restored.revision(), revision);
        assert!(restored.dump(&[revision]) == cluster.dump(&[revision]), "revision {revision} of etcd {version}");
    }
    for (time, end) in times.iter().zip(&ends) {
        let report = bench.ok(&["restore", "latest", "--to", "then.db", "--time", time]);
        assert_eq!((report["revision"].as_i64(), report["known_at"].is_string()), (Some(*end), true), "{report:#}");
        fs::remove_file(bench.path("then.db")).unwrap();
    }
    let (code, report) = bench.json(&["restore", "latest", "--to", "then.db", "--time", "1h"]);
    assert!(code == 1 && report["error"]["what"].as_str().unwrap().contains("goes back to"), "{report:#}");
    // What is shown is the newest state.
    let newest = cluster.ctl(&["get", "/registry", "--prefix", "--keys-only"]);
    let shown = String::from_utf8(bench.run(&["--quiet", "ls", "-R", "latest:/registry"]).1.stdout).unwrap();
    let wanted: Vec<&str> = newest.lines().filter(|line| line.starts_with("/registry")).collect();
    assert_eq!(shown.lines().collect::<Vec<_>>(), wanted);
    let last_dump = cluster.dump(&[last]);
    for line in last_dump.lines().filter(|line| !line.contains(" - ")).step_by(29) {
        let fields: Vec<&str> = line.split(' ').collect();
        let [key, value] = [1, 2].map(|n| unbase64(fields[n]));
        if key.contains(&0) {
            continue;
        }
        let name = [b"latest:", key.as_slice()].concat();
        let output = bench.command(&["--quiet", "cat"]).arg(OsStr::from_bytes(&name)).output().unwrap();
        assert!(output.stdout == value, "{name:?}");
    }
    bench.ok(&["verify", "--level", "content"]);
    // Compacted away what was not taken: a whole snapshot, and it is said why.
    let end = cluster.load(20, 30);
    cluster.ctl(&["compact", &end.to_string()]);
    let output = bench
        .run(
            &[
                &["backup", "--name", "cluster", "--mode", "delta", &cluster.address()],
                &with_certificates(&cluster).iter().map(String::as_str).collect::<Vec<_>>()[..],
            ]
            .concat(),
        )
        .1;
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("compacted away") && output.status.success(), "{text}");
    assert!(comes_up(&bench, version, "latest", end).dump(&[end]) == cluster.dump(&[end]));
}

#[test]
fn deltas_come_back_at_every_revision() {
    deltas("3.5");
}

#[test]
fn deltas_come_back_at_every_revision_of_the_older_version() {
    deltas("3.4");
}

#[test]
fn a_delta_does_not_go_on_with_another_history() {
    let bench = Bench::with_key(&["a"]);
    let mut cluster = Cluster::start("3.5", 1);
    cluster.load(30, 40);
    cluster.ctl(&["snapshot", "save", "old.db"]);
    let last = cluster.load(30, 41);
    assert_eq!(backup(&bench, &cluster, &[]).0, 0);
    // Put back to the older state, and written to since: the cluster's id is what it was, and its revision higher.
    cluster.put_back("old.db");
    assert!(cluster.load(60, 42) > last);
    let (code, report) = backup(&bench, &cluster, &["--mode", "delta"]);
    assert_eq!(code, 11, "{report:#}");
    assert!(report["error"]["what"].as_str().unwrap().contains("history is another one"), "{report:#}");
    let (code, report) = backup(&bench, &cluster, &["--mode", "delta", "--new-cluster"]);
    assert_eq!((code, mode(&bench, &report).as_str()), (0, "incremental"), "{report:#}");
    let now = cluster.load(10, 43);
    assert_eq!(backup(&bench, &cluster, &["--mode", "delta"]).0, 0);
    let restored = comes_up(&bench, "3.5", "latest", now);
    assert!(restored.dump(&[now]) == cluster.dump(&[now]));
}

/// Packs, and whether they hold trees.
fn packs(bench: &Bench) -> BTreeSet<(PackName, bool)> {
    let inside = inside(bench);
    Index::load(&inside.repo).unwrap().packs().into_iter().map(|(name, (line, _))| (name, line.tree)).collect()
}

/// Damages packs of region `a` all over.
fn damage(bench: &Bench, packs: impl IntoIterator<Item = PackName>) {
    for name in packs {
        let path = bench.region("a").join(Key::Pack(name).path());
        let mut bytes = fs::read(&path).unwrap();
        bytes.iter_mut().step_by(256).for_each(|byte| *byte ^= 1);
        fs::write(path, bytes).unwrap();
    }
}

/// The same of those that hold trees, or others.
fn damage_packs(bench: &Bench, which: impl Fn(bool) -> bool) {
    damage(bench, packs(bench).into_iter().filter(|(_, tree)| which(*tree)).map(|(name, _)| name));
}

#[test]
fn changes_that_are_damaged_keep_nobody_from_what_was_before() {
    let bench = Bench::with_key(&["a"]);
    let cluster = Cluster::start("3.5", 1);
    let (mut ends, mut times, mut before) = (Vec::new(), Vec::new(), BTreeSet::new());
    for seed in 0..3 {
        ends.push(cluster.load(40, 60 + seed));
        before = packs(&bench);
        let (code, report) = backup(&bench, &cluster, &["--mode", "delta"]);
        assert_eq!((code, report["etcd"]["revision"].as_i64()), (0, ends.last().copied()), "{report:#}");
        times.push(now());
    }
    // What the last delta brought, and nothing else.
    damage(&bench, packs(&bench).difference(&before).filter(|(_, tree)| !tree).map(|(name, _)| *name));
    for revision in [ends[0] - 3, ends[0], ends[0] + 1, ends[1]] {
        let restored = comes_up(&bench, "3.5", "latest", revision);
        assert!(restored.dump(&[revision]) == cluster.dump(&[revision]), "revision {revision}");
    }
    let then = bench.ok(&["restore", "latest", "--to", "then.db", "--time", &times[0]]);
    assert_eq!(then["revision"].as_i64(), Some(ends[0]), "what came a delta later is not waited for: {then:#}");
    let beyond = (ends[1] + 1).to_string();
    for more in [&[][..], &["--revision", &beyond], &["--time", &times[2]]] {
        let (code, report) = bench.json(&[&["restore", "latest", "--to", "no.db"], more].concat());
        let error = report["error"].to_string();
        assert_eq!((code, report["error"]["kind"].as_str()), (5, Some("damage")), "{report:#}");
        let [file, advice] = [format!("changes-{:020}-", ends[1] + 1), format!("restore --revision {} gives", ends[1])];
        assert!(error.contains(&file) && error.contains(&advice), "{report:#}");
        assert!(!bench.path("no.db").exists());
    }
}

#[test]
fn a_lease_that_is_granted_again_has_at_each_revision_the_seconds_that_it_had_then() {
    let bench = Bench::with_key(&["a"]);
    let cluster = Cluster::start("3.5", 1);
    let mut had = Vec::new();
    for seconds in ["600", "700", "800"] {
        // Of an id that its user chose, as some do.
        let revision = said(&mut cluster.talk(&["lease", "4711", seconds, "/held"])).trim().parse().unwrap();
        assert_eq!(backup(&bench, &cluster, &["--mode", "delta"]).0, 0);
        had.push((revision, cluster.leases()));
    }
    for (revision, leases) in had {
        assert_eq!(comes_up(&bench, "3.5", "latest", revision).leases(), leases, "revision {revision}");
    }
}

#[test]
fn a_delta_does_not_build_upon_what_is_damaged() {
    let bench = Bench::with_key(&["a"]);
    let cluster = Cluster::start("3.5", 1);
    cluster.load(60, 50);
    assert_eq!(backup(&bench, &cluster, &[]).0, 0);
    damage_packs(&bench, |_| true);
    assert_ne!(bench.json(&["verify", "--level", "content"]).0, 0);
    let last = cluster.load(10, 51);
    let (code, report) = backup(&bench, &cluster, &["--mode", "delta"]);
    assert_eq!((code, mode(&bench, &report).as_str()), (0, "incremental"), "{report:#}");
    let restored = comes_up(&bench, "3.5", "latest", last);
    assert!(restored.dump(&[last]) == cluster.dump(&[last]));
}

#[test]
fn damage_that_a_delta_meets_itself_makes_a_whole_snapshot() {
    for which in ["the directory", "the rows"] {
        let bench = Bench::with_key(&["a"]);
        let cluster = Cluster::start("3.5", 1);
        cluster.load(60, 52);
        assert_eq!(backup(&bench, &cluster, &[]).0, 0);
        // Nobody looked since.
        damage_packs(&bench, |tree| tree == (which == "the directory"));
        let last = cluster.load(10, 53);
        let (code, report) = backup(&bench, &cluster, &["--mode", "delta"]);
        assert_eq!((code, mode(&bench, &report).as_str()), (0, "incremental"), "{which}: {report:#}");
        if which == "the rows" {
            // It rests on what else is there, of which only a check knows that it is damaged, too.
            assert_ne!(bench.json(&["verify", "--level", "content"]).0, 0);
            assert_eq!(backup(&bench, &cluster, &[]).0, 0);
        }
        let restored = comes_up(&bench, "3.5", "latest", last);
        assert!(restored.dump(&[last]) == cluster.dump(&[last]), "{which}");
    }
}

#[test]
fn deltas_go_on_while_an_epoch_is_undecided() {
    let bench = Bench::with_key(&["a", "b"]);
    let cluster = Cluster::start("3.5", 1);
    cluster.load(40, 54);
    assert_eq!(backup(&bench, &cluster, &[]).0, 0);
    {
        let inside = inside(&bench);
        // As a prune that was cut off leaves it, which knew of no snapshot.
        begin_epoch(&inside.repo, &[], &[]);
    }
    for seed in 0..3 {
        let last = cluster.load(10, 55 + seed);
        let (code, report) = backup(&bench, &cluster, &["--mode", "delta"]);
        assert_eq!((code, mode(&bench, &report).as_str()), (0, "delta"), "{report:#}");
        let restored = comes_up(&bench, "3.5", "latest", last);
        assert!(restored.dump(&[last]) == cluster.dump(&[last]));
    }
}
