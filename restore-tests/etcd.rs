//! Backups of real etcd clusters, and real etcds that come up on what comes back.

mod server;

use crate::harness::Bench;
use crate::reader::python;
use server::{Cluster, VERSIONS, said, tool};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
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
    let means = with_certificates(cluster);
    let address = cluster.address();
    let args: Vec<&str> = ["backup", "--name", "cluster", &address]
        .into_iter()
        .chain(means.iter().map(String::as_str))
        .chain(more.iter().copied())
        .collect();
    bench.json(&args)
}

/// Restores at a revision, starts an etcd on it and asks it for everything.
fn comes_up(bench: &Bench, version: &'static str, snapshot: &str, revision: i64) -> Cluster {
    let file = format!("at-{revision}.db");
    let number = revision.to_string();
    let report = bench.ok(&["restore", snapshot, "--to", &file, "--revision", &number]);
    assert_eq!((report["revision"].as_i64(), report["leases_lost"].as_u64()), (Some(revision), Some(0)), "{report:#}");
    let cluster = Cluster::restored(version, &bench.path(&file), &[]);
    fs::remove_file(bench.path(&file)).unwrap();
    cluster
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
    assert_eq!(backup(&bench, &strange, &["--new-cluster"]).0, 0);
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
}

#[test]
fn a_policy_protects_a_cluster() {
    let bench = Bench::with_key(&["a"]);
    let cluster = Cluster::start("3.5", 1);
    let last = cluster.load(40, 10);
    let path = |name: &str| cluster.path(name).display().to_string();
    let port = cluster.ports()[0];
    let text = format!(
        "apiVersion: holdfast.io/v1alpha1\nkind: Repository\nmetadata: {{name: main}}\nspec:\n  regions: [{{name: a, url: {}}}]\n---\n\
         apiVersion: holdfast.io/v1alpha1\nkind: BackupPolicy\nmetadata: {{name: daily}}\nspec:\n  retention: {{last: 1}}\n  sources:\n  \
         - etcd: {{endpoints: ['127.0.0.1:{port}'], caFile: {}, certFile: {}, keyFile: {}}}\n",
        bench.region("a").display(),
        path("ca.crt"),
        path("client.crt"),
        path("client.key")
    );
    fs::write(bench.path("holdfast.yaml"), text).unwrap();
    let words = ["--config", "holdfast.yaml", "run", "daily"];
    for _ in 0..2 {
        let (code, report) = bench.json_at(&[], &words);
        assert_eq!(code, 0, "{report:#}");
    }
    let listed = bench.ok(&["snapshots"]);
    let snapshots = listed["snapshots"].as_array().unwrap();
    assert_eq!(snapshots.len(), 1, "the policy's retention holds for it: {listed:#}");
    bench.ok(&["restore", "latest", "--to", "back.db"]);
    assert_eq!(status(&bench.path("back.db")).1, last);
}

fn unbase64(text: &str) -> Vec<u8> {
    let script = "import base64, sys; sys.stdout.buffer.write(base64.b64decode(sys.argv[1]))";
    python().args(["-c", script, text]).output().unwrap().stdout
}

fn deltas(version: &'static str) {
    let bench = Bench::with_key(&["a", "b"]);
    let mut cluster = Cluster::start(version, 3);
    cluster.load(60, 11);
    // There is nothing to go on from: it is a whole one.
    let (code, report) = backup(&bench, &cluster, &["--mode", "delta"]);
    assert_eq!((code, report["etcd"]["agree"].as_array().map(Vec::len)), (0, Some(3)), "{report:#}");
    let begin = report["etcd"]["revision"].as_i64().unwrap();
    let mut ends = vec![begin];
    for n in 0..3 {
        ends.push(cluster.load(40, 12 + n));
        if n == 1 {
            cluster.kill(2);
        }
        let (code, report) = backup(&bench, &cluster, &["--mode", "delta"]);
        assert_eq!(code, 0, "{report:#}");
        let etcd = &report["etcd"];
        assert_eq!((etcd["after"].as_i64(), etcd["revision"].as_i64()), (Some(ends[n]), Some(ends[n + 1])));
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

/// The block of commands in the runbook that has this.
fn in_the_runbook(has: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/runbooks/etcd-lost.md");
    let book = fs::read_to_string(path).unwrap();
    let mut blocks = book.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap().to_owned());
    blocks.find(|block| block.contains(has)).unwrap_or_else(|| panic!("the runbook has no {has}"))
}

#[test]
fn a_lost_cluster_comes_back_by_the_runbook() {
    let bench = Bench::with_key(&["a"]);
    let mut lost = Cluster::start("3.5", 3);
    let last = lost.load(80, 21);
    assert_eq!(backup(&bench, &lost, &[]).0, 0);
    let wanted = lost.dump(&[last]);
    (0..3).for_each(|n| lost.kill(n));
    let command = in_the_runbook("--bump-revision");
    let words: Vec<&str> = command.split_whitespace().skip(1).collect();
    bench.ok(&words);
    let mut new = Cluster::prepared("3.5", &["node-1", "node-2", "node-3"]);
    fs::copy(bench.path("snapshot.db"), new.path("snapshot.db")).unwrap();
    let command = in_the_runbook("etcdutl snapshot restore");
    for n in 0..3 {
        let own = new.peer(n).0.to_owned();
        let script = command
            .replace("--name node-1", &format!("--name {own}"))
            .replace(
                "--initial-advertise-peer-urls https://10.0.0.11:2380",
                &format!("--initial-advertise-peer-urls {}", new.peer(n).1),
            )
            .replace("/var/lib/etcd", &own);
        let script =
            (0..3).fold(script, |script, m| script.replace(&format!("https://10.0.0.1{}:2380", m + 1), &new.peer(m).1));
        let path = format!("{}:/usr/bin:/bin", tool("3.5", "etcdutl").parent().unwrap().display());
        said(Command::new("bash").args(["-ec", &script]).env("PATH", path).current_dir(new.path("")));
    }
    (0..3).for_each(|n| new.run(n));
    new.wait();
    assert_eq!(new.revision(), last + 1_000_000_000);
    assert!(
        new.dump(&[0])
            .lines()
            .map(|l| l.split_once(' ').unwrap().1)
            .eq(wanted.lines().map(|l| l.split_once(' ').unwrap().1))
    );
    let hashes: serde_json::Value = serde_json::from_str(&new.ctl(&["endpoint", "hashkv", "-w", "json"])).unwrap();
    let hashes: Vec<_> = hashes.as_array().unwrap().iter().map(|one| one["HashKV"]["hash"].as_u64().unwrap()).collect();
    assert!(hashes.len() == 3 && hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
    assert!(new.ctl(&["alarm", "list"]).is_empty());
}
