//! What a daemon takes between the backups of a policy.

use super::comes_up;
use super::server::{Cluster, wait_a_little};
use crate::harness::Bench;
use crate::serve::Daemon;
use serde_json::Value;
use std::fs;
use std::time::{Duration, Instant};

/// How long a daemon may take to do what it does every second.
const WITHIN: Duration = Duration::from_secs(120);

/// A policy whose backups are due once a year, and what changed every second.
fn configure(bench: &Bench, cluster: &Cluster, more: &str) {
    let path = |name: &str| cluster.path(name).display().to_string();
    let text = format!(
        "apiVersion: holdfast.io/v1alpha1\nkind: Repository\nmetadata: {{name: main}}\nspec:\n  regions: [{{name: a, url: {}}}]\n---\n\
         apiVersion: holdfast.io/v1alpha1\nkind: BackupPolicy\nmetadata: {{name: often}}\nspec:\n  sources:\n  \
         - {{name: cluster, etcd: {{endpoints: ['127.0.0.1:{}'], caFile: {}, certFile: {}, keyFile: {}, \
         deltas: {{every: 1s, maxBytes: 1Mi}}}}}}\n  schedule: {{full: 0 0 1 1 *}}\n{more}",
        bench.region("a").display(),
        cluster.ports()[0],
        path("ca.crt"),
        path("client.crt"),
        path("client.key")
    );
    fs::write(bench.path("holdfast.yaml"), text).unwrap();
}

fn until(what: &str, is: impl Fn() -> bool) {
    let begin = Instant::now();
    while !is() {
        assert!(begin.elapsed() < WITHIN, "{what}");
        wait_a_little();
    }
}

/// Modes of the snapshots, oldest first.
fn modes(bench: &Bench) -> Vec<String> {
    let listed = bench.ok(&["snapshots"]);
    let all = listed["snapshots"].as_array().unwrap().iter();
    all.map(|snapshot| snapshot["mode"].as_str().unwrap().to_owned()).collect()
}

/// Records of backups, oldest first: the exit code, the mode, and a figure.
fn records(bench: &Bench, figure: &str) -> Vec<(u64, String, u64)> {
    let value = bench.ok(&["runs", "--last", "1000"]);
    let all = value["runs"].as_array().unwrap().iter().filter(|run| run["kind"] == "backup");
    let counted = |run: &Value| {
        let figures = run["figures"].as_array().unwrap().iter();
        figures.filter(|one| one["name"] == figure).filter_map(|one| one["value"].as_u64()).sum()
    };
    let line = |run: &Value| (run["code"].as_u64().unwrap(), run["how"].as_str().unwrap().to_owned(), counted(run));
    all.rev().map(line).collect()
}

/// Whether the newest snapshot has a revision.
fn has(bench: &Bench, revision: i64) -> bool {
    let (code, _) = bench.json(&["restore", "latest", "--to", "has.db", "--revision", &revision.to_string()]);
    let _ = fs::remove_file(bench.path("has.db"));
    code == 0
}

fn status(bench: &Bench) -> Value {
    let (code, value) = bench.json_at(&[], &["status"]);
    assert_eq!(code, 0, "{value:#}");
    value["sources"][0].clone()
}

#[test]
fn what_changed_is_taken_every_second_and_of_all_that_the_last_stays() {
    let bench = Bench::with_key(&["a"]);
    let cluster = Cluster::start("3.5", 1);
    let begin = cluster.load(40, 60);
    configure(&bench, &cluster, "  retention: {last: 100}\n  objectives: {rpo: 90s}\n");
    let mut daemon = Daemon::start(&bench, &[]);
    daemon.says("a whole snapshot, no delta: there is no snapshot yet to go on from");
    let mut ends = Vec::new();
    for n in 0..4 {
        ends.push(cluster.load(20, 61 + n));
        until("the revision is taken", || has(&bench, ends[n]));
    }
    // It is one row, of which hardly anything is recorded; the objective is kept by it all the same.
    let before = modes(&bench);
    assert!(before[0] == "incremental" && before[1..].iter().all(|mode| mode == "delta"), "{before:?}");
    assert!(before.len() > 4, "{before:?}");
    assert_eq!(records(&bench, "deltas"), [(0, "incremental".into(), 1)]);
    let source = status(&bench);
    assert!(source["exposed_ms"].as_u64().unwrap() < 90_000, "{source:#}");
    assert!(source["success_age_seconds"].as_u64().unwrap() <= source["exposed_ms"].as_u64().unwrap() / 1000 + 1);
    daemon.signal("TERM");
    let (ended, said) = daemon.ends();
    assert!(ended.success(), "{said}");
    assert!(!said.contains("(delta): starts") && said.matches("1 protected").count() == 1, "it says little: {said}");
    let count = modes(&bench).len();
    // A whole one, by which retention comes: of the row the last one stays, though the rule would keep them all.
    let (code, report) = bench.json_at(&[], &["run", "often", "--kind", "full"]);
    assert_eq!((code, report["sources"][0]["forgotten"].as_u64()), (0, Some(count as u64 - 2)), "{report:#}");
    assert_eq!(modes(&bench), ["incremental", "delta", "full"]);
    let listed = bench.ok(&["snapshots"]);
    let row = listed["snapshots"][1]["id"].as_str().unwrap();
    for revision in [begin, begin + 1, ends[0], ends[1] - 3, ends[2], ends[3] - 1, ends[3]] {
        let restored = comes_up(&bench, "3.5", row, revision);
        assert!(restored.dump(&[revision]) == cluster.dump(&[revision]), "revision {revision}");
    }
    bench.ok(&["verify", "--level", "content"]);
}

#[test]
fn what_fails_by_the_second_is_recorded_and_said_once_until_it_is_well_again() {
    let bench = Bench::with_key(&["a"]);
    let mut cluster = Cluster::start("3.5", 1);
    cluster.load(10, 70);
    configure(&bench, &cluster, "");
    let mut daemon = Daemon::start(&bench, &[]);
    daemon.says("1 protected");
    cluster.kill(0);
    daemon.says("1 failed");
    until("the failure is recorded", || records(&bench, "deltas_failed").len() == 2);
    let (code, value) = bench.json_at(&[], &["status"]);
    assert!(code == 1 && value["sources"][0]["broken"] == true, "{value:#}");
    cluster.run(0);
    cluster.wait();
    daemon.says("1 protected");
    let records = records(&bench, "deltas_failed");
    assert_eq!(records.iter().map(|record| record.0).collect::<Vec<_>>(), [0, 1, 0], "{records:?}");
    assert_eq!(status(&bench)["broken"], false);
    let last = cluster.load(10, 71);
    until("it goes on", || has(&bench, last));
    daemon.signal("TERM");
    let (ended, said) = daemon.ends();
    assert!(ended.success() && !said.contains("1 failed"), "{said}");
}

#[test]
fn nothing_new_is_a_snapshot_a_minute_and_not_a_second() {
    let bench = Bench::with_key(&["a"]);
    let cluster = Cluster::start("3.5", 1);
    let last = cluster.load(10, 80);
    configure(&bench, &cluster, "");
    let mut daemon = Daemon::start(&bench, &[]);
    daemon.says("1 protected");
    assert!(has(&bench, last));
    // Runs that have nothing to store leave their mark where they took their turn at the source.
    let turns = bench.path("state/turns");
    let turn = fs::read_dir(&turns).unwrap().next().unwrap().unwrap().path();
    let mark = || fs::metadata(&turn).unwrap().modified().unwrap();
    let begin = Instant::now();
    for _ in 0..10 {
        let before = mark();
        until("another one comes", || mark() != before);
    }
    let made = modes(&bench).len();
    assert!(made == 1 || begin.elapsed() > Duration::from_secs(50), "{made} snapshots");
    daemon.signal("TERM");
    assert!(daemon.ends().0.success());
}
