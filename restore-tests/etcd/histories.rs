//! Clusters that begin anew, or go back: which history a backup goes on with.

use super::server::Cluster;
use super::{backup, let_a_policy_protect, mode};
use crate::harness::{Bench, noise};
use crate::inside::Inside;
use holdfast::base::clock::Ambient;
use holdfast::base::{Cancel, Env, Progress, TimeMs};
use holdfast::error::Result;
use holdfast::format::snapshot::Mode;
use holdfast::ops::backup::BackupOptions;
use holdfast::ops::etcd::{self, Delta, EtcdOptions, Terms};
use holdfast::source::etcd::cluster::Address;
use holdfast::source::etcd::grpc::Means;
use holdfast::unlock::Unlock;
use std::sync::Arc;

/// Milliseconds of an hour.
const HOUR: i64 = 3_600_000;

/// A clock that was set back by an hour.
struct Behind;

impl Ambient for Behind {
    fn now(&self) -> TimeMs {
        TimeMs(Env::system().now().0 - HOUR)
    }

    fn steady(&self) -> i64 {
        Env::system().steady()
    }

    fn random(&self, out: &mut [u8]) -> Result<()> {
        let fresh = std::iter::repeat_with(|| Env::system().random::<32>().unwrap()).flatten();
        out.iter_mut().zip(fresh).for_each(|(to, from)| *to = from);
        Ok(())
    }
}

/// Backs up in this process, whole or what changed, by a clock that is behind; returns the snapshot's id.
fn backup_behind(bench: &Bench, cluster: &Cluster, mode: Mode) -> String {
    let key: [u8; 32] = noise(0x6b65_7900, 32).try_into().unwrap();
    let opened = Inside::at(bench, &Unlock::KeyFile(key.into()), &Env::custom(Arc::new(Behind)));
    let mut options = BackupOptions::plain("cluster".into(), "h".into(), Vec::new(), mode);
    let identity = Some((cluster.path("client.crt"), cluster.path("client.key")));
    let means = Means { ca: Some(cluster.path("ca.crt")), identity, ..Means::default() };
    let address = Address::parse(&cluster.address()).unwrap();
    let etcd = EtcdOptions { address, means, new_cluster: false, scratch: std::env::temp_dir() };
    let means = (&Progress::default(), &Cancel::new());
    if mode == Mode::Delta {
        let made = etcd::delta(&opened.repo, &mut options, &etcd, &Terms::ASKED, means).unwrap();
        let Delta::Stored(report, _) = made else { panic!("nothing was stored") };
        return report.snapshot.unwrap().hex();
    }
    let (report, _) = etcd::backup(&opened.repo, &options, &etcd, means).unwrap();
    report.snapshot.unwrap().hex()
}

#[test]
fn the_latest_of_a_cluster_is_furthest_on_whatever_the_clock_says() {
    let bench = Bench::with_key(&["a"]);
    let cluster = Cluster::start("3.5", 1);
    cluster.load(20, 89);
    assert_eq!(backup(&bench, &cluster, &[]).0, 0);
    cluster.ctl(&["put", "/new", "x"]);
    let last = cluster.revision();
    let newest = backup_behind(&bench, &cluster, Mode::Incremental);
    bench.ok(&["tag", "latest", "--add", "furthest"]);
    let tagged = bench.ok(&["snapshots", "--tag", "furthest"])["snapshots"].clone();
    assert_eq!((tagged.as_array().unwrap().len(), tagged[0]["id"].as_str()), (1, Some(&newest[..])), "{tagged:#}");
    for words in [&["ls", "latest:/new"][..], &["restore", "latest", "--to", "back.db"]] {
        let report = bench.ok(words);
        assert_eq!(report["snapshot"], newest, "{words:?}: {report:#}");
        assert!(report["revision"].is_null() || report["revision"].as_i64() == Some(last), "{report:#}");
    }
    // So do backups, which go on from it.
    let (code, report) = backup(&bench, &cluster, &["--mode", "delta"]);
    assert_eq!((code, report["snapshot"].is_null()), (0, true), "{report:#}");
}

#[test]
fn what_was_known_at_a_time_is_the_last_of_it_whatever_was_stamped_later() {
    let bench = Bench::with_key(&["a"]);
    let cluster = Cluster::start("3.5", 1);
    cluster.load(20, 89);
    backup_behind(&bench, &cluster, Mode::Incremental);
    cluster.ctl(&["put", "/ahead", "x"]);
    assert_eq!(backup(&bench, &cluster, &["--mode", "delta"]).0, 0);
    cluster.ctl(&["put", "/behind", "x"]);
    backup_behind(&bench, &cluster, Mode::Delta);
    let (last, then) = (cluster.revision(), TimeMs(Env::system().now().0 - HOUR / 2).rfc3339());
    let report = bench.ok(&["restore", "latest", "--to", "then.db", "--time", &then]);
    assert_eq!(report["revision"].as_i64(), Some(last), "{report:#}");
    // The last one is stamped later than its time, and what was known is what was known before it.
    cluster.ctl(&["put", "/ahead", "y"]);
    assert_eq!(backup(&bench, &cluster, &["--mode", "delta"]).0, 0);
    let report = bench.ok(&["restore", "latest", "--to", "before.db", "--time", &then]);
    assert_eq!(report["revision"].as_i64(), Some(last), "{report:#}");
}

#[test]
fn a_new_cluster_is_gone_on_with_though_its_first_snapshot_is_forgotten() {
    let bench = Bench::with_key(&["a"]);
    let old = Cluster::start("3.5", 1);
    old.load(60, 92);
    assert_eq!(backup(&bench, &old, &[]).0, 0);
    drop(old);
    let new = Cluster::start("3.5", 1);
    new.load(5, 93);
    assert_eq!(backup(&bench, &new, &[]).0, 11);
    let (code, first) = backup(&bench, &new, &["--new-cluster"]);
    assert_eq!(code, 0, "{first:#}");
    new.load(5, 94);
    assert_eq!(backup(&bench, &new, &[]).0, 0);
    bench.ok(&["forget", first["snapshot"].as_str().unwrap()]);
    // A delta goes on from the second one, and has as much of the history as that: the next goes on from it alone.
    for more in [&["--mode", "delta"][..], &["--mode", "delta"], &[]] {
        let last = new.load(5, 95);
        let before = bench.ok(&["ls", "latest"])["snapshot"].as_str().unwrap().to_owned();
        let (code, report) = backup(&bench, &new, more);
        assert_eq!((code, report["etcd"]["revision"].as_i64()), (0, Some(last)), "{report:#}");
        assert_eq!(mode(&bench, &report), if more.is_empty() { "incremental" } else { "delta" });
        bench.ok(&["forget", &before]);
    }
}

/// A cluster that was put back to what it was before its last write, and written to once since.
fn written_again(cluster: &mut Cluster, backup: &dyn Fn(&Cluster)) {
    cluster.load(30, 96);
    cluster.ctl(&["snapshot", "save", "old.db"]);
    cluster.ctl(&["put", "/x", "lost"]);
    let last = cluster.revision();
    backup(cluster);
    cluster.put_back("old.db");
    cluster.ctl(&["put", "/x", "other"]);
    assert_eq!(cluster.revision(), last);
}

#[test]
fn another_history_of_the_same_revision_is_refused() {
    let bench = Bench::with_key(&["a"]);
    let mut cluster = Cluster::start("3.5", 1);
    written_again(&mut cluster, &|cluster: &Cluster| assert_eq!(backup(&bench, cluster, &[]).0, 0));
    let (code, report) = backup(&bench, &cluster, &["--mode", "delta"]);
    assert_eq!(code, 11, "{report:#}");
    assert!(report["error"]["what"].as_str().unwrap().contains("history is another one"), "{report:#}");
}

#[test]
fn another_history_of_the_same_revision_is_refused_to_a_policy() {
    let bench = Bench::with_key(&["a"]);
    let mut cluster = Cluster::start("3.5", 1);
    let_a_policy_protect(&bench, &cluster);
    let words = ["--config", "holdfast.yaml", "run", "daily"];
    let visible = || bench.ok(&["snapshots"])["snapshots"].as_array().unwrap().len();
    written_again(&mut cluster, &|_: &Cluster| {
        for _ in 0..2 {
            let (code, report) = bench.json_at(&[], &words);
            assert_eq!(code, 0, "nothing changed, and there is one: {report:#}");
        }
    });
    let before = bench.ok(&["ls", "latest"])["snapshot"].clone();
    let (code, report) = bench.json_at(&[], &words);
    assert!(code != 0 && report.to_string().contains("history is another one"), "{code} {report:#}");
    assert_eq!((bench.ok(&["ls", "latest"])["snapshot"].clone(), visible()), (before, 1), "nothing of it is visible");
}

#[test]
fn a_compaction_that_is_not_there_any_more_is_another_history() {
    let bench = Bench::with_key(&["a"]);
    let mut cluster = Cluster::start("3.5", 1);
    cluster.load(20, 97);
    cluster.ctl(&["snapshot", "save", "old.db"]);
    // Of the snapshot's last revision nothing is left to be compared.
    cluster.ctl(&["put", "/gone", "x"]);
    cluster.ctl(&["del", "/gone"]);
    cluster.ctl(&["compact", "--physical", &cluster.revision().to_string()]);
    assert_eq!(backup(&bench, &cluster, &[]).0, 0);
    let (code, report) = backup(&bench, &cluster, &["--mode", "delta"]);
    assert_eq!((code, report["snapshot"].is_null()), (0, true), "{report:#}");
    let last = cluster.revision();
    cluster.put_back("old.db");
    assert!(cluster.load(30, 98) > last);
    let (code, report) = backup(&bench, &cluster, &["--mode", "delta"]);
    assert_eq!(code, 11, "{report:#}");
    assert!(report["error"]["what"].as_str().unwrap().contains("history is another one"), "{report:#}");
}
