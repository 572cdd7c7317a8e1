//! Clusters that ask for users.

use super::proxy::{Harm, Proxy};
use super::server::{Cluster, VERSIONS, tool, wait_a_little};
use crate::harness::{Bench, end, start};
use holdfast::source::etcd::bolt::Bolt;
use holdfast::source::etcd::kv::Notes;
use std::fs;
use std::time::{Duration, Instant};

/// An etcd that is tried is up long before.
const UP_WITHIN: Duration = Duration::from_secs(60);
/// A token of theirs lives for a second, and as long as it is looked for.
const TOKEN_LIVES: Duration = Duration::from_secs(2);
/// Behind this byte of what a member says its snapshot is on its way.
const IN_THE_STREAM: usize = 40_000;

#[test]
fn a_user_is_asked_for_where_auth_is_enabled() {
    let bench = Bench::with_key(&["a"]);
    let plain = Cluster::start("3.5", 1);
    plain.load(10, 8);
    fs::write(plain.path("seed.db"), "").unwrap();
    plain.ctl(&["snapshot", "save", plain.path("seed.db").to_str().unwrap()]);
    let cluster = Cluster::restored("3.5", &plain.path("seed.db"), &[]);
    for args in [
        &["user", "add", "root:secret-of-root"][..],
        &["user", "grant-role", "root", "root"],
        &["user", "add", "reader:secret-of-reader"],
        &["auth", "enable"],
    ] {
        cluster.ctl(args);
    }
    fs::write(bench.path("password"), "secret-of-root\n").unwrap();
    fs::write(bench.path("wrong"), "something else\n").unwrap();
    fs::write(bench.path("reader"), "secret-of-reader\n").unwrap();
    let address = cluster.address();
    let run = |more: &[&str]| bench.json(&[&["backup", "--name", "auth", &address], more].concat());
    for (user, file) in [(None, ""), (Some("root"), "wrong"), (Some("reader"), "reader")] {
        let means: Vec<&str> =
            user.iter().flat_map(|user| ["--etcd-user", *user, "--etcd-password-file", file]).collect();
        let (code, report) = run(&means);
        assert_eq!(code, 1, "{user:?} {file}: {report:#}");
        assert_eq!(report["error"]["kind"], "denied", "{user:?} {file}: {report:#}");
        assert!(!report.to_string().contains("secret-of"), "{report:#}");
    }
    let (code, report) = run(&["--etcd-user", "root", "--etcd-password-file", "password"]);
    assert_eq!(code, 0, "{report:#}");
    assert_eq!(report["etcd"]["auth"], true);
    // What comes back asks for users too; the one that is tried does not.
    let programs = tool("3.5", "etcd").parent().unwrap().display().to_string();
    let begin = Instant::now();
    let report = bench.ok(&["restore", "latest", "--to", "back.db", "--check", "--etcd-bin", &programs]);
    assert_eq!(report["checked"]["revision"], report["revision"], "{report:#}");
    assert!(begin.elapsed() < UP_WITHIN, "{:?}", begin.elapsed());
    let file = Bolt::open(fs::File::open(bench.path("back.db")).unwrap()).unwrap();
    assert!(Notes::read(&file).unwrap().auth, "the file itself asks for users");
}

#[test]
fn a_user_is_named_where_none_is_asked_for() {
    for version in VERSIONS {
        let bench = Bench::with_key(&["a"]);
        let mut cluster = Cluster::prepared(version, &["default"]);
        cluster.run_all();
        let mut last = cluster.load(10, 9);
        fs::write(bench.path("password"), "secret-of-nobody\n").unwrap();
        let address = cluster.address();
        let words =
            ["backup", "--name", "plain", &address, "--etcd-user", "backup", "--etcd-password-file", "password"];
        let report = bench.ok(&words);
        assert_eq!(report["etcd"]["revision"].as_i64(), Some(last), "{report:#}");
        assert_eq!(report["etcd"]["agree"].as_array().map(Vec::len), Some(1), "{report:#}");
        let remarks = report["etcd"]["remarks"].to_string();
        assert!(remarks.contains("a user was named, and the cluster asks for none"), "{version}: {remarks}");
        last = cluster.load(10, 10);
        let report = bench.ok(&[&words[..], &["--mode", "delta"]].concat());
        assert_eq!(report["etcd"]["revision"].as_i64(), Some(last), "{version}: {report:#}");
    }
}

#[test]
fn a_token_that_ends_meanwhile_is_replaced() {
    let bench = Bench::with_key(&["a"]);
    let flags = ["--auth-token", "simple", "--auth-token-ttl", "1", "--log-level", "debug"];
    let mut cluster = Cluster::prepared("3.5", &["default"]).with_flags(&flags);
    cluster.run_all();
    let last = cluster.load(120, 90);
    for args in
        [&["user", "add", "root:secret-of-root"][..], &["user", "grant-role", "root", "root"], &["auth", "enable"]]
    {
        cluster.ctl(args);
    }
    fs::write(bench.path("password"), "secret-of-root\n").unwrap();
    let proxy = Proxy::before(cluster.ports()[0]);
    let address = format!("etcd+http://127.0.0.1:{}", proxy.port);
    let words = ["backup", "--name", "auth", &address, "--etcd-user", "root", "--etcd-password-file", "password"];
    proxy.harm(Harm::Hold(IN_THE_STREAM));
    let gone = || fs::read_to_string(cluster.path("default.log")).unwrap().matches("deleted a simple token").count();
    let backup = start(&bench, &words);
    proxy.wait_until_held();
    let (before, begin) = (gone(), Instant::now());
    // It may have gone before this was looked at; none that is not used lives for so long.
    while gone() == before && (before == 0 || begin.elapsed() < 5 * TOKEN_LIVES) {
        assert!(begin.elapsed() < UP_WITHIN, "the token lives on");
        wait_a_little();
    }
    proxy.harm(Harm::None);
    let report = end(backup);
    assert_eq!(report["etcd"]["revision"].as_i64(), Some(last), "{report:#}");
    assert_eq!(report["etcd"]["agree"].as_array().map(Vec::len), Some(1), "{report:#}");
}
