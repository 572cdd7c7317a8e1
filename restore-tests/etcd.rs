//! Backups of real etcd clusters, and real etcds that come up on what comes back.

mod auth;
mod between;
mod checks;
mod compaction;
mod deltas;
mod diverged;
mod failover;
mod histories;
mod liar;
mod load;
mod measured;
mod proxy;
mod refused;
mod restoring;
mod runbook;
mod server;

use crate::command_line::fields::of_etcd;
use crate::harness::Bench;
use crate::reader::python;
use proxy::{Harm, Proxy};
use server::{Cluster, VERSIONS, said, tool};
use std::fs;
use std::path::Path;
use std::process::Command;

/// The arguments by which the program is let in.
fn with_certificates(cluster: &Cluster) -> Vec<String> {
    let path = |name: &str| cluster.path(name).to_str().unwrap().to_owned();
    ["ca", "cert", "key"]
        .into_iter()
        .zip(["ca.crt", "client.crt", "client.key"])
        .flat_map(|(flag, file)| [format!("--etcd-{flag}"), path(file)])
        .collect()
}

fn backup(bench: &Bench, cluster: &Cluster, more: &[&str]) -> (i32, serde_json::Value) {
    backup_as(bench, cluster, "cluster", more)
}

fn backup_as(bench: &Bench, cluster: &Cluster, name: &str, more: &[&str]) -> (i32, serde_json::Value) {
    let means = with_certificates(cluster);
    let address = cluster.address();
    let args: Vec<&str> = ["backup", "--name", name, &address]
        .into_iter()
        .chain(means.iter().map(String::as_str))
        .chain(more.iter().copied())
        .collect();
    bench.json(&args)
}

/// The mode of the snapshot that a backup made.
fn mode(bench: &Bench, report: &serde_json::Value) -> String {
    let listed = bench.ok(&["snapshots"]);
    let made = listed["snapshots"].as_array().unwrap().iter().find(|snapshot| snapshot["id"] == report["snapshot"]);
    made.unwrap_or_else(|| panic!("{report:#} is not listed"))["mode"].as_str().unwrap().to_owned()
}

/// Restores at a revision, starts an etcd on it and asks it for everything.
fn comes_up(bench: &Bench, version: &'static str, snapshot: &str, revision: i64) -> Cluster {
    let file = format!("at-{revision}.db");
    let number = revision.to_string();
    let report = bench.ok(&["restore", snapshot, "--to", &file, "--revision", &number]);
    assert_eq!((report["revision"].as_i64(), report["leases_lost"].as_u64()), (Some(revision), Some(0)), "{report:#}");
    let cluster = comes_up_on(version, &bench.path(&file));
    fs::remove_file(bench.path(&file)).unwrap();
    cluster
}

fn comes_up_on(version: &'static str, file: &Path) -> Cluster {
    Cluster::restored(version, file, &[])
}

fn every_revision(version: &'static str) {
    let bench = Bench::with_key(&["a", "b"]);
    let cluster = Cluster::start(version, 3);
    cluster.load(250, 1);
    let begin = cluster.revision() - 40;
    cluster.ctl(&["compact", &begin.to_string()]);
    cluster.ctl(&["defrag"]);
    let last = cluster.load(60, 2);
    let (code, report) = backup(&bench, &cluster, &[]);
    assert_eq!(code, 0, "{report:#}");
    let etcd = &report["etcd"];
    assert_eq!((etcd["revision"].as_i64(), etcd["compacted"].as_i64()), (Some(last), Some(begin)), "{etcd:#}");
    assert_eq!(etcd["agree"].as_array().unwrap().len(), 3, "all members have the same hash: {etcd:#}");
    assert_eq!(etcd["keys"].as_i64().unwrap() as usize, cluster.dump(&[last]).lines().count());
    let revisions = [begin, begin + 1, begin + 17, last - 33, last - 1, last];
    for revision in revisions {
        let restored = comes_up(&bench, version, "latest", revision);
        assert_eq!(restored.revision(), revision);
        assert!(restored.dump(&[revision]) == cluster.dump(&[revision]), "revision {revision} of etcd {version}");
        if revision == last {
            assert!(restored.dump(&revisions) == cluster.dump(&revisions), "earlier revisions are there, too");
            assert_eq!(restored.leases(), cluster.leases());
        }
    }
    let gone = (begin - 1).to_string();
    let (code, report) = bench.json(&["restore", "latest", "--to", "x.db", "--revision", &gone]);
    assert_eq!(code, 1, "{report:#}");
    assert!(report["error"]["what"].as_str().unwrap().contains("compacted away") && !bench.path("x.db").exists());
    let future = (last + 1).to_string();
    assert_eq!(bench.json(&["restore", "latest", "--to", "x.db", "--revision", &future]).0, 1);
}

#[test]
fn a_real_etcd_comes_up_on_every_revision_that_a_snapshot_has() {
    every_revision("3.5");
}

#[test]
fn a_real_etcd_comes_up_on_every_revision_that_a_snapshot_has_of_the_older_version() {
    every_revision("3.4");
}

/// What etcd's own tool says of a database: a hash of every pair of every bucket, the revision, the number of keys.
fn status(file: &Path) -> (u64, i64, u64) {
    let told = said(Command::new(tool("3.5", "etcdutl")).args(["snapshot", "status", "-w", "json"]).arg(file));
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    let number = |key: &str| told[key].as_u64().unwrap_or_else(|| panic!("{key} in {told}"));
    (number("hash"), number("revision") as i64, number("totalKey"))
}

#[test]
fn what_comes_back_is_pair_for_pair_what_etcd_itself_saves() {
    let bench = Bench::with_key(&["a"]);
    let cluster = Cluster::start("3.5", 1);
    let last = cluster.load(300, 3);
    cluster.ctl(&["compact", "--physical", &(last - 20).to_string()]);
    assert_eq!(backup(&bench, &cluster, &[]).0, 0);
    let saved = cluster.path("saved.db");
    cluster.ctl(&["snapshot", "save", saved.to_str().unwrap()]);
    bench.ok(&["restore", "latest", "--to", "back.db"]);
    let (theirs, ours) = (status(&saved), status(&bench.path("back.db")));
    assert_eq!((theirs.1, theirs.2), (ours.1, ours.2));
    // What a member notes about itself moves on between the two, and with it the hash: all else is compared by key.
    let restored = Cluster::restored("3.5", &bench.path("back.db"), &[]);
    assert!(restored.dump(&[last, last - 7]) == cluster.dump(&[last, last - 7]));
    // The other reader, written from the format's description alone, makes the same of it.
    bench.ok(&["restore", "latest", "--target", "plain"]);
    said(python().args(["-m", "holdfast_reader.etcd"]).arg(bench.path("plain/rows")).arg(bench.path("other.db")));
    assert_eq!(status(&bench.path("other.db")), ours);
    let (code, report) = bench.json(&["restore", "latest", "--to", "back.db"]);
    assert_eq!(code, 2, "what is there stays: {report:#}");
}

#[test]
fn a_revision_that_is_moved_up_is_so_in_every_version() {
    let bench = Bench::with_key(&["a"]);
    let cluster = Cluster::start("3.5", 1);
    let last = cluster.load(120, 9);
    assert_eq!(backup(&bench, &cluster, &[]).0, 0);
    bench.ok(&["restore", "latest", "--to", "plain.db"]);
    bench.ok(&["restore", "latest", "--to", "bumped.db", "--bump-revision", "1000000000"]);
    for version in VERSIONS {
        let programs = tool(version, "etcd").parent().unwrap().display().to_string();
        for (bump, begins) in [(vec![], last), (vec!["--bump-revision", "5000"], last + 5000)] {
            let words =
                [&["restore", "latest", "--to", "checked.db", "--check", "--etcd-bin", &programs], &bump[..]].concat();
            let report = bench.ok(&words);
            assert_eq!(report["checked"]["revision"].as_i64(), Some(begins), "{report:#}");
            of_etcd("restore --to", "restore", &report);
            assert!(report["checked"]["version"].as_str().unwrap().starts_with(version));
            fs::remove_file(bench.path("checked.db")).unwrap();
        }
    }
    let (code, report) = bench.json(&["restore", "latest", "--to", "no.db", "--check", "--etcd-bin", "/nowhere"]);
    assert!(code == 2 && report["error"]["what"] == "there is no etcdutl", "{report:#}");
    // etcd's own tool, from 3.5.16 on, as the example.
    let bump = ["--bump-revision", "1000000000", "--mark-compacted"];
    let theirs = Cluster::restored("3.5", &bench.path("plain.db"), &bump);
    assert_eq!(theirs.revision(), last + 1_000_000_000);
    for version in VERSIONS {
        let ours = Cluster::restored(version, &bench.path("bumped.db"), &[]);
        assert_eq!(ours.revision(), last + 1_000_000_000, "etcd {version}");
        let newest = |cluster: &Cluster| cluster.dump(&[0]);
        assert!(newest(&ours) == newest(&theirs) && newest(&ours) == newest(&cluster), "the newest keys are the same");
        let refused = ours.talk(&["dump", &last.to_string()]).output().unwrap();
        assert!(String::from_utf8_lossy(&refused.stderr).contains("compacted"), "what a client remembers is compacted");
    }
}

#[test]
fn keys_are_read_without_any_cluster() {
    let bench = Bench::with_key(&["a", "b"]);
    let mut cluster = Cluster::start("3.5", 1);
    cluster.load(150, 4);
    cluster.ctl(&["put", "/registry/configmaps/kube-system/coredns", "old value"]);
    cluster.ctl(&["put", "/registry/configmaps/kube-system/gone", "x"]);
    assert_eq!(backup(&bench, &cluster, &[]).0, 0);
    let first = bench.ok(&["snapshots"])["snapshots"][0]["id"].as_str().unwrap().to_owned();
    cluster.ctl(&["put", "/registry/configmaps/kube-system/coredns", "new value"]);
    cluster.ctl(&["put", "/registry/configmaps/kube-system/fresh", "y"]);
    cluster.ctl(&["del", "/registry/configmaps/kube-system/gone"]);
    let (code, second) = backup(&bench, &cluster, &[]);
    assert_eq!(code, 0, "{second:#}");
    of_etcd("backup", "backup", &second);
    assert!(second["bytes_new"].as_u64() < Some(second["bytes"].as_u64().unwrap() / 2), "{second:#}");
    cluster.kill(0);
    let text = |args: &[&str]| {
        let (code, output) = bench.run(args);
        assert_eq!(code, 0, "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert_eq!(text(&["--quiet", "cat", "latest:/registry/configmaps/kube-system/coredns"]), "new value");
    let old = format!("{first}:/registry/configmaps/kube-system/coredns");
    assert_eq!(text(&["--quiet", "cat", &old]), "old value");
    assert_eq!(bench.run(&["cat", "latest:/registry/configmaps/kube-system/gone"]).0, 1);
    assert_eq!(text(&["--quiet", "ls", "latest:/registry/configmaps/"]), "/registry/configmaps/kube-system/\n");
    assert_eq!(
        text(&["--quiet", "ls", "--recursive", "latest:/registry/configmaps/"]),
        "/registry/configmaps/kube-system/coredns\n/registry/configmaps/kube-system/fresh\n"
    );
    assert!(text(&["--quiet", "ls", "latest"]).contains("rows"));
    // Each state of a key once, with the snapshots that have it, by the rules for paths.
    let found = text(&["--quiet", "find", "registry/configmaps/**/{coredns,gone}", "--smaller", "9B"]);
    let keys: Vec<_> = found.lines().map(|line| line.split_once(':').unwrap()).collect();
    let (old, new) = (&first[..8], &second["snapshot"].as_str().unwrap()[..8]);
    let config = |name: &str| format!("/registry/configmaps/kube-system/{name}");
    assert_eq!(keys, [(old, &*config("coredns")), (new, &*config("coredns")), (old, &*config("gone"))]);
    assert_eq!(text(&["--quiet", "find", "--newest", "gone"]), "");
    let changes = text(&["--quiet", "diff", &first, "latest"]);
    let wanted = "M /registry/configmaps/kube-system/coredns\n+ /registry/configmaps/kube-system/fresh\n\
                  - /registry/configmaps/kube-system/gone\n";
    assert!(changes.starts_with(wanted), "{changes}");
    // Keys of any bytes are shown so that they can be told apart.
    assert!(text(&["--quiet", "ls", "-R", "latest:"]).contains("rows"));
    bench.ok(&["verify", "--level", "content"]);
}

#[test]
fn a_cluster_that_is_not_what_it_was_is_refused_and_nothing_is_visible() {
    let bench = Bench::with_key(&["a"]);
    let cluster = Cluster::start("3.5", 1);
    cluster.load(30, 5);
    let path = |name: &str| cluster.path(name).to_str().unwrap().to_owned();
    let refused = |args: &[&str], says: &str| {
        let (code, report) = bench.json(args);
        assert_eq!(code, 1, "{args:?}: {report:#}");
        assert!(report["error"].to_string().contains(says), "{says}: {report:#}");
        assert!(bench.ok(&["snapshots"])["snapshots"].as_array().unwrap().is_empty());
    };
    let (ca, address) = (path("ca.crt"), cluster.address());
    let (cert, key) = (path("client.crt"), path("client.key"));
    let ours = ["--etcd-cert", &cert, "--etcd-key", &key];
    let other = path("other.crt");
    refused(&[&["backup", &address, "--etcd-ca", &other], &ours[..]].concat(), "another authority");
    refused(&["backup", &address, "--etcd-ca", &ca], "client's certificate");
    let (cert, key) = (path("expired.crt"), path("expired.key"));
    refused(&["backup", &address, "--etcd-ca", &ca, "--etcd-cert", &cert, "--etcd-key", &key], "client's certificate");
    refused(&["backup", "etcd+http://127.0.0.1:1"], "does not answer");
    assert_eq!(bench.json(&["backup", "etcd://a", "etcd://b"]).0, 2);
    assert_eq!(bench.json(&["backup", "etcd://a/b"]).0, 2);
    // Another cluster under the name of the first.
    assert_eq!(backup(&bench, &cluster, &[]).0, 0);
    let strange = Cluster::start("3.5", 1);
    strange.load(5, 6);
    let (code, report) = backup(&bench, &strange, &[]);
    assert_eq!(code, 11, "{report:#}");
    assert!(report["error"]["what"].as_str().unwrap().contains("another cluster than before"), "{report:#}");
    let (code, report) = backup(&bench, &strange, &["--mode", "delta"]);
    assert_eq!(code, 11, "{report:#}");
    assert_eq!(bench.ok(&["snapshots"])["snapshots"].as_array().unwrap().len(), 1, "nothing of it is visible");
    assert_eq!(backup(&bench, &strange, &["--new-cluster"]).0, 0);
}

#[test]
fn single_keys_are_put_back_into_a_living_cluster() {
    let bench = Bench::with_key(&["a"]);
    let cluster = Cluster::start("3.5", 1);
    let lease = cluster.ctl(&["lease", "grant", "600"]).split_whitespace().nth(1).unwrap().to_owned();
    for (key, value) in [("/app/a", "one"), ("/app/b", "two"), ("/app/c", "three"), ("/other", "x")] {
        cluster.ctl(&["put", key, value]);
    }
    cluster.ctl(&["put", "/app/lock", "held", "--lease", &lease]);
    assert_eq!(backup(&bench, &cluster, &[]).0, 0);
    cluster.ctl(&["del", "/app/a"]);
    cluster.ctl(&["put", "/app/b", "newer"]);
    cluster.ctl(&["del", "/app/lock"]);
    cluster.ctl(&["del", "/other"]);
    let before = cluster.revision();
    let (means, address) = (with_certificates(&cluster), cluster.address());
    let run = |more: &[&str]| {
        let words: Vec<&str> = ["restore", "latest:/app/", "--into", &address].into_iter().collect();
        bench.json(
            &words.into_iter().chain(means.iter().map(String::as_str)).chain(more.iter().copied()).collect::<Vec<_>>(),
        )
    };
    let fates = |report: &serde_json::Value| {
        ["put", "overwritten", "same", "differs", "leased"].map(|fate| report[fate].as_u64().unwrap())
    };
    let (code, report) = run(&["--dry-run", "--overwrite"]);
    assert_eq!((code, fates(&report), cluster.revision()), (3, [1, 1, 1, 0, 1], before), "{report:#}");
    let (code, report) = run(&[]);
    assert_eq!((code, fates(&report), cluster.revision()), (3, [1, 0, 1, 1, 1], before + 1), "{report:#}");
    of_etcd("restore --into", "restore", &report);
    let values =
        |cluster: &Cluster| cluster.ctl(&["get", "/", "--prefix"]).lines().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(values(&cluster), ["/app/a", "one", "/app/b", "newer", "/app/c", "three"]);
    let (code, report) = run(&["--overwrite"]);
    assert_eq!((code, fates(&report)), (3, [0, 1, 2, 0, 1]), "{report:#}");
    assert_eq!(values(&cluster), ["/app/a", "one", "/app/b", "two", "/app/c", "three"]);
    let (code, report) = bench.json(&[
        "restore",
        "latest:/app/c",
        "--into",
        &address,
        "--etcd-ca",
        &means[1],
        "--etcd-cert",
        &means[3],
        "--etcd-key",
        &means[5],
    ]);
    assert_eq!((code, fates(&report)), (0, [0, 0, 1, 0, 0]), "{report:#}");
}

#[test]
fn a_stream_that_breaks_off_or_is_falsified_is_no_snapshot() {
    let bench = Bench::with_key(&["a"]);
    let source = Cluster::start("3.5", 1);
    let last = source.load(60, 60);
    source.ctl(&["snapshot", "save", "all.db"]);
    let bytes = fs::metadata(source.path("all.db")).unwrap().len() as usize;
    // Without TLS, which would find out by itself.
    let cluster = Cluster::restored("3.5", &source.path("all.db"), &[]);
    let proxy = Proxy::before(cluster.ports()[0]);
    let address = format!("etcd+http://127.0.0.1:{}", proxy.port);
    let run = || bench.json(&["backup", "--name", "cluster", &address]);
    let place = |n: usize| 1 + n * 0x9e37_79b1 % (bytes - 1);
    for n in 0..50 {
        proxy.harm(Harm::Cut(place(n)));
        let (code, report) = run();
        assert_eq!((code, report["error"]["kind"].as_str()), (1, Some("retry")), "cut at {}: {report:#}", place(n));
        let says = ["the member does not answer: ", "the stream of the snapshot ended early"];
        assert!(says.iter().any(|says| report["error"].to_string().contains(says)), "{report:#}");
    }
    assert_eq!(bench.ok(&["snapshots"])["snapshots"].as_array().unwrap().len(), 0, "nothing is visible");
    let mut refused = 0;
    for n in 0..20 {
        proxy.harm(Harm::Flip(place(50 + n), n as u32 % 8));
        match run() {
            (0, report) => assert_eq!(report["etcd"]["revision"].as_i64(), Some(last), "{report:#}"),
            (code, _) => refused += i32::from(code == 1),
        }
    }
    // Some bits say nothing of the content: in a number of a frame that nobody looks at.
    let stored = bench.ok(&["snapshots"])["snapshots"].as_array().unwrap().len() as i32;
    assert!(refused >= 17 && refused + stored == 20, "{refused} refused, {stored} stored");
    proxy.harm(Harm::None);
    let (code, report) = run();
    assert_eq!((code, report["etcd"]["revision"].as_i64()), (0, Some(last)), "{report:#}");
    let restored = comes_up(&bench, "3.5", "latest", last);
    assert!(restored.dump(&[last]) == source.dump(&[last]));
}

#[test]
fn a_member_that_is_away_is_named_and_a_lost_majority_is_said() {
    let bench = Bench::with_key(&["a"]);
    let mut cluster = Cluster::start("3.5", 3);
    cluster.load(30, 7);
    cluster.kill(0);
    let (code, report) = backup(&bench, &cluster, &[]);
    assert_eq!(code, 0, "{report:#}");
    let remarks = report["etcd"]["remarks"].to_string();
    assert!(remarks.contains("a member is away") && remarks.contains("member m0 was not asked"), "{remarks}");
    assert_eq!(report["etcd"]["agree"].as_array().unwrap().len(), 2);
    cluster.kill(1);
    // It takes the last one a moment to find out.
    let lost = (0..100).any(|_| {
        server::wait_a_little();
        let (code, report) = backup(&bench, &cluster, &[]);
        code == 1 && report["error"].to_string().contains("majority of the cluster is lost")
    });
    assert!(lost, "the majority is lost");
}

/// Writes the configuration of a policy `daily` with deltas of a cluster of one member.
fn let_a_policy_protect(bench: &Bench, cluster: &Cluster) {
    let path = |name: &str| cluster.path(name).display().to_string();
    let port = cluster.ports()[0];
    let text = format!(
        "apiVersion: holdfast.io/v1alpha1\nkind: Repository\nmetadata: {{name: main}}\nspec:\n  regions: [{{name: a, url: {}}}]\n---\n\
         apiVersion: holdfast.io/v1alpha1\nkind: BackupPolicy\nmetadata: {{name: daily}}\nspec:\n  retention: {{last: 1}}\n  sources:\n  \
         - etcd: {{endpoints: ['127.0.0.1:{port}'], caFile: {}, certFile: {}, keyFile: {}, deltas: true}}\n",
        bench.region("a").display(),
        path("ca.crt"),
        path("client.crt"),
        path("client.key")
    );
    fs::write(bench.path("holdfast.yaml"), text).unwrap();
}

#[test]
fn a_policy_protects_a_cluster() {
    let bench = Bench::with_key(&["a"]);
    let cluster = Cluster::start("3.5", 1);
    let mut last = cluster.load(40, 10);
    let_a_policy_protect(&bench, &cluster);
    let words = ["--config", "holdfast.yaml", "run", "daily"];
    // A whole one, as there is nothing to go on from; then what changed, and that nothing did.
    for (mode, more) in [("incremental", 15), ("delta", 0), ("delta", 0)] {
        let (code, report) = bench.json_at(&[], &words);
        assert_eq!(code, 0, "{report:#}");
        let listed = bench.ok(&["snapshots"]);
        let snapshots = listed["snapshots"].as_array().unwrap();
        assert_eq!(snapshots.len(), 1, "the policy's retention holds for it: {listed:#}");
        assert_eq!(snapshots[0]["mode"], mode);
        let (now, file) = (cluster.revision(), format!("{more}-{last}.db"));
        bench.ok(&["restore", "latest", "--to", &file]);
        assert_eq!(status(&bench.path(&file)).1, now);
        fs::remove_file(bench.path(&file)).unwrap();
        last = if more > 0 { cluster.load(more, 31) } else { now };
    }
}
