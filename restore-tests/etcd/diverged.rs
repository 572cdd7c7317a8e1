//! Members that are not at one: what the majority has is taken, of whole snapshots and of deltas.

use super::mode;
use super::server::Cluster;
use crate::harness::Bench;
use serde_json::Value;

/// A database of one key with this value, and another one; it is at revision 3.
fn database(dir: &Cluster, value: &str) -> std::path::PathBuf {
    let mut one = Cluster::prepared("3.5", &["one"]);
    one.run_all();
    one.ctl(&["put", "/a", value]);
    one.ctl(&["put", "/other", "x"]);
    let saved = dir.path(&format!("{value}.db"));
    one.ctl(&["snapshot", "save", saved.to_str().unwrap()]);
    saved
}

/// A cluster of three, whose members came of databases of the same revision, but that one of them has another value. It is
/// asked first: of those that follow, it has the first address. Returns which it is.
fn diverged() -> (Cluster, usize) {
    let mut cluster = Cluster::prepared("3.5", &["m0", "m1", "m2"]);
    let mut order: Vec<usize> = (0..3).collect();
    order.sort_by_key(|n| cluster.ports()[*n].to_string());
    let (good, bad) = (database(&cluster, "good"), database(&cluster, "bad"));
    (0..3).for_each(|n| cluster.unpack(n, if n == order[0] { &bad } else { &good }));
    cluster.run_all();
    let (ids, leader) = cluster.ids();
    if leader == ids[order[0]] {
        cluster.ctl(&["move-leader", &format!("{:x}", ids[order[1]])]);
    }
    (cluster, order[0])
}

fn run(bench: &Bench, address: &str, more: &[&str]) -> (i32, Value) {
    bench.json(&[&["backup", "--name", "cluster", address], more].concat())
}

fn value(bench: &Bench, key: &str) -> String {
    let (code, output) = bench.run(&["--quiet", "cat", &format!("latest:{key}")]);
    assert_eq!(code, 0, "{key}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A member's address as a report has it.
fn endpoint(cluster: &Cluster, n: usize) -> String {
    format!("127.0.0.1:{}", cluster.ports()[n])
}

#[test]
fn a_delta_asks_nobody_who_had_other_keys_than_its_snapshot() {
    let bench = Bench::with_key(&["a"]);
    let (cluster, bad) = diverged();
    let (code, report) = run(&bench, &cluster.address(), &[]);
    assert_eq!(code, 3, "{report:#}");
    assert_ne!(report["etcd"]["endpoint"], endpoint(&cluster, bad), "{report:#}");
    let remarks = report["etcd"]["remarks"].to_string();
    let outvoted =
        format!("{} has other keys than the majority of the members, and was not taken", endpoint(&cluster, bad));
    assert!(remarks.contains(&outvoted), "it was asked first: {report:#}");
    assert_eq!(report["etcd"]["agree"].as_array().map(Vec::len), Some(2), "{report:#}");
    assert_eq!(value(&bench, "/a"), "good");
    // From one delta to the next.
    for key in ["/b", "/c"] {
        let at = cluster.put_by("/a", key);
        let (code, report) = run(&bench, &cluster.address(), &["--mode", "delta"]);
        assert_eq!((code, mode(&bench, &report).as_str()), (0, "delta"), "{report:#}");
        assert_eq!(report["etcd"]["revision"].as_i64(), Some(at), "{report:#}");
        assert_eq!(value(&bench, key), "good");
    }
    // Where nobody else is named, no delta is made: a whole one, which says what it is, and is gone on from by nothing.
    cluster.put_by("/a", "/d");
    let alone = format!("etcd+http://{}", endpoint(&cluster, bad));
    for _ in 0..2 {
        let (code, report) = run(&bench, &alone, &["--mode", "delta"]);
        assert_eq!((code, mode(&bench, &report).as_str()), (3, "incremental"), "{report:#}");
        assert!(report["errors"].to_string().contains("had other keys than the last snapshot"), "{report:#}");
        assert_eq!(value(&bench, "/d"), "bad");
    }
    let (code, report) = run(&bench, &cluster.address(), &["--mode", "delta"]);
    assert_eq!((code, mode(&bench, &report).as_str()), (3, "incremental"), "{report:#}");
    assert_eq!(value(&bench, "/d"), "good");
    let (code, report) = run(&bench, &cluster.address(), &["--mode", "delta"]);
    assert_eq!((code, report["snapshot"].is_null()), (0, true), "nothing changed: {report:#}");
}

#[test]
fn a_member_that_is_named_twice_counts_once() {
    let bench = Bench::with_key(&["a"]);
    let (cluster, bad) = diverged();
    let address = format!("{},localhost:{}", cluster.address(), cluster.ports()[bad]);
    let (code, report) = run(&bench, &address, &[]);
    assert_eq!(code, 3, "{report:#}");
    let taken = report["etcd"]["endpoint"].as_str().unwrap();
    assert!(!taken.ends_with(&format!(":{}", cluster.ports()[bad])), "one against two: {report:#}");
    assert_eq!(report["etcd"]["agree"].as_array().map(Vec::len), Some(2), "{report:#}");
    assert_eq!(value(&bench, "/a"), "good");
}

#[test]
fn while_nobody_knows_who_is_right_deltas_say_so_too() {
    let bench = Bench::with_key(&["a"]);
    let (mut cluster, bad) = diverged();
    let (ids, leader) = cluster.ids();
    // Of those that are left each is alone with what it has.
    let away = (0..3).find(|n| *n != bad && ids[*n] != leader).unwrap();
    cluster.kill(away);
    let says = "1 of 3 members had the keys of the last whole snapshot, which is no majority";
    let backup = |cluster: &Cluster, more: &[&str], wanted: (i32, &str)| {
        let (code, report) = run(&bench, &cluster.address(), more);
        assert_eq!((code, mode(&bench, &report).as_str()), wanted, "{report:#}");
        assert_eq!(report["errors"].to_string().contains(says), wanted.0 == 3, "{report:#}");
    };
    backup(&cluster, &[], (3, "incremental"));
    for key in ["/b", "/c"] {
        cluster.put_by("/a", key);
        backup(&cluster, &["--mode", "delta"], (3, "delta"));
    }
    // Once a majority answers, a whole snapshot finds out.
    cluster.run(away);
    cluster.wait();
    let (code, report) = run(&bench, &cluster.address(), &[]);
    assert_eq!((code, report["etcd"]["agree"].as_array().map(Vec::len)), (3, Some(2)), "{report:#}");
    assert!(!report["errors"].to_string().contains("which is no majority"), "{report:#}");
    cluster.put_by("/a", "/d");
    backup(&cluster, &["--mode", "delta"], (0, "delta"));
    assert_eq!(value(&bench, "/d"), "good");
}

#[test]
fn a_member_that_says_something_else_of_the_last_revision_is_not_the_cluster() {
    let bench = Bench::with_key(&["a"]);
    let (cluster, bad) = diverged();
    cluster.put_by("/a", "/b");
    // It is not compared: nobody named it.
    let others: Vec<String> = (0..3).filter(|n| *n != bad).map(|n| endpoint(&cluster, n)).collect();
    let (code, report) = run(&bench, &format!("etcd+http://{}", others.join(",")), &[]);
    assert_eq!(code, 0, "{report:#}");
    for (key, wanted) in [("/c", 3), ("/d", 0)] {
        cluster.put_by("/a", key);
        let (code, report) = run(&bench, &cluster.address(), &["--mode", "delta"]);
        assert_eq!((code, mode(&bench, &report).as_str()), (wanted, "delta"), "{report:#}");
        let said = format!("member {} says something else of revision", endpoint(&cluster, bad));
        assert_eq!(report["errors"].to_string().contains(&said), wanted == 3, "{report:#}");
        assert_eq!((value(&bench, "/b"), value(&bench, key)), ("good".into(), "good".into()));
    }
}

#[test]
fn a_member_that_an_alarm_calls_corrupt_is_asked_last_and_an_alarm_is_said() {
    let bench = Bench::with_key(&["a"]);
    let mut cluster = Cluster::prepared("3.5", &["m0", "m1", "m2"]);
    cluster.run_all();
    cluster.ctl(&["put", "/a", "good"]);
    let (ids, leader) = cluster.ids();
    cluster.raise("NOSPACE", ids[0]);
    let (code, report) = run(&bench, &cluster.address(), &[]);
    let remarks = report["etcd"]["remarks"].to_string();
    assert!(code == 0 && remarks.contains(&format!("ALARM: NOSPACE of member {:x}", ids[0])), "{report:#}");
    // The one that would be asked, as a follower that has the first address.
    let mut order: Vec<usize> = (0..3).filter(|n| ids[*n] != leader).collect();
    order.sort_by_key(|n| cluster.ports()[*n].to_string());
    assert_eq!(report["etcd"]["endpoint"], endpoint(&cluster, order[0]), "{report:#}");
    cluster.raise("CORRUPT", ids[order[0]]);
    let (code, report) = run(&bench, &cluster.address(), &[]);
    let remarks = report["etcd"]["remarks"].to_string();
    assert!(code == 3 && remarks.contains(&format!("ALARM: CORRUPT of member {:x}", ids[order[0]])), "{report:#}");
    assert_eq!(report["etcd"]["endpoint"], endpoint(&cluster, order[1]), "{report:#}");
}
