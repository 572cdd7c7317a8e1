//! A member that is gone in the middle of what it says: another one is asked, in the same run.

use super::proxy::{Harm, Proxy};
use super::server::{Cluster, wait_a_little};
use super::{backup, comes_up, with_certificates};
use crate::harness::{Bench, end, start};
use serde_json::json;

/// Behind this byte of what a member says its snapshot is on its way.
const IN_THE_STREAM: usize = 40_000;
/// A member tells a thousand revisions at once, which are taken as one: of these values that is a part, more than 8 MiB. In
/// the middle of the next thousand it is gone.
const VALUES: usize = 2200;
const VALUE_BYTES: usize = 9_000;
const BEHIND_A_PART: usize = 13 << 20;

/// A cluster of three with a proxy before each member, in the order of the proxies' addresses; and who leads.
fn proxied() -> (Cluster, Vec<(usize, Proxy)>, usize) {
    let mut cluster = Cluster::prepared("3.5", &["m0", "m1", "m2"]);
    cluster.run_all();
    let mut proxies: Vec<(usize, Proxy)> = cluster.ports().into_iter().map(Proxy::before).enumerate().collect();
    proxies.sort_by_key(|(_, proxy)| proxy.port.to_string());
    let (ids, leader) = cluster.ids();
    let leads = ids.iter().position(|id| *id == leader).unwrap();
    (cluster, proxies, leads)
}

fn through(proxies: &[(usize, Proxy)]) -> String {
    let hosts: Vec<String> = proxies.iter().map(|(_, proxy)| format!("127.0.0.1:{}", proxy.port)).collect();
    format!("etcd+http://{}", hosts.join(","))
}

fn run(bench: &Bench, proxies: &[(usize, Proxy)], more: &[&str]) -> serde_json::Value {
    bench.ok(&[&["backup", "--name", "cluster", &through(proxies)], more].concat())
}

#[test]
fn the_next_member_sends_the_snapshot_that_one_broke_off() {
    let bench = Bench::with_key(&["a"]);
    let (cluster, proxies, leads) = proxied();
    let last = cluster.load(120, 97);
    // Followers are asked before their leader.
    let followers: Vec<&Proxy> = proxies.iter().filter(|(n, _)| *n != leads).map(|(_, proxy)| proxy).collect();
    followers[0].harm(Harm::Cut(IN_THE_STREAM));
    let report = run(&bench, &proxies, &[]);
    assert_eq!(followers[0].cuts(), 1, "it was asked first");
    let next = format!("127.0.0.1:{}", followers[1].port);
    assert_eq!((report["etcd"]["endpoint"].as_str(), report["etcd"]["revision"].as_i64()), (Some(&*next), Some(last)));
    assert_eq!(report["etcd"]["agree"].as_array().map(Vec::len), Some(2), "{report:#}");
    assert!(comes_up(&bench, "3.5", "latest", last).dump(&[last]) == cluster.dump(&[last]));
}

#[test]
fn a_member_that_is_removed_while_it_sends_does_no_harm() {
    let bench = Bench::with_key(&["a"]);
    let (mut cluster, proxies, _) = proxied();
    // More than waits anywhere on its way.
    let last = cluster.fill(VALUES, VALUE_BYTES);
    // Whichever is asked: one that is a revision behind just now is not.
    proxies.iter().for_each(|(_, proxy)| proxy.harm(Harm::Hold(IN_THE_STREAM)));
    let mut backup = start(&bench, &["backup", "--name", "cluster", &through(&proxies)]);
    let (first, proxy) = loop {
        if let Some(held) = proxies.iter().find(|(_, proxy)| proxy.has_held()) {
            break held;
        }
        assert!(backup.try_wait().unwrap().is_none(), "no member was asked");
        wait_a_little();
    };
    let mut removed = cluster.remove(*first);
    proxies.iter().for_each(|(_, proxy)| proxy.harm(Harm::None));
    // It may send the rest, or break off, and another one is asked: what is stored is whole, and what the others have.
    let report = end(backup);
    assert_eq!(report["etcd"]["revision"].as_i64(), Some(last), "{report:#}");
    let gone = format!("127.0.0.1:{}", proxy.port);
    for (_, other) in proxies.iter().filter(|(n, _)| n != first) {
        let other = json!(format!("127.0.0.1:{}", other.port));
        assert!(report["etcd"]["agree"].as_array().unwrap().contains(&other), "{report:#}");
    }
    assert!(comes_up(&bench, "3.5", "latest", last).dump(&[last]) == cluster.dump(&[last]));
    assert!(removed.wait().unwrap().code().is_some(), "etcd ends by itself");
    // Who still names it is told, and goes on.
    for mode in ["delta", "incremental"] {
        let last = cluster.load(20, 102);
        let report = run(&bench, &proxies, &["--mode", mode]);
        assert_eq!(report["etcd"]["revision"].as_i64(), Some(last), "{report:#}");
        if mode == "incremental" {
            assert!(report["etcd"]["remarks"].to_string().contains(&gone), "{report:#}");
            assert!(comes_up(&bench, "3.5", "latest", last).dump(&[last]) == cluster.dump(&[last]));
        }
    }
}

#[test]
fn a_watch_that_is_lost_behind_a_whole_part_goes_on() {
    let bench = Bench::with_key(&["a"]);
    let (cluster, proxies, _) = proxied();
    let begin = cluster.load(20, 98);
    run(&bench, &proxies, &[]);
    let last = cluster.fill(VALUES, VALUE_BYTES);
    // A value that is put again, because its first answer got lost, is one more.
    assert!(last >= begin + VALUES as i64);
    proxies[0].1.harm(Harm::Cut(BEHIND_A_PART));
    let report = run(&bench, &proxies, &["--mode", "delta"]);
    assert_eq!(proxies[0].1.cuts(), 1, "it was asked first, and broke off once: what was whole is not asked for again");
    let etcd = &report["etcd"];
    assert_eq!((etcd["after"].as_i64(), etcd["revision"].as_i64()), (Some(begin), Some(last)), "{report:#}");
    assert_eq!(etcd["changes"].as_u64(), u64::try_from(last - begin).ok(), "{report:#}");
    for revision in [begin + 3, last] {
        assert!(comes_up(&bench, "3.5", "latest", revision).dump(&[revision]) == cluster.dump(&[revision]));
    }
}

#[test]
fn a_member_that_only_learns_is_not_asked() {
    let bench = Bench::with_key(&["a"]);
    let mut cluster = Cluster::start("3.5", 1);
    cluster.load(60, 99);
    cluster.learner("m1");
    let [votes, learns] = [0, 1].map(|n| format!("127.0.0.1:{}", cluster.ports()[n]));
    let last = cluster.load(20, 100);
    for mode in ["full", "delta"] {
        let (code, report) = backup(&bench, &cluster, &["--mode", mode]);
        assert_eq!((code, report["etcd"]["revision"].as_i64()), (0, Some(cluster.revision())), "{report:#}");
        if mode == "full" {
            assert_eq!((&report["etcd"]["endpoint"], &report["etcd"]["agree"]), (&json!(votes), &json!([votes])));
            cluster.load(20, 101);
        }
    }
    assert!(comes_up(&bench, "3.5", "latest", last).dump(&[last]) == cluster.dump(&[last]));
    // Who names nobody else is told.
    let address = format!("etcd://{learns}");
    let means = with_certificates(&cluster);
    for mode in ["incremental", "delta"] {
        let args = ["backup", "--name", "cluster", "--mode", mode, &address];
        let (code, report) = bench.json(&args.into_iter().chain(means.iter().map(String::as_str)).collect::<Vec<_>>());
        let what = report["error"]["what"].as_str().unwrap_or_default();
        assert!(code == 2 && what.contains("only learn; name one that votes"), "{code} {report:#}");
    }
}
