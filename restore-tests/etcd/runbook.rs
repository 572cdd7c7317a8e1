//! The runbook, by its own words: its blocks of commands are run as they stand there, but for names, addresses and paths.

use super::server::{Cluster, said, tool};
use super::{backup, backup_as};
use crate::harness::Bench;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

/// Whom the folders are given to that units of etcd work in.
const OWNER: (u32, u32) = (4711, 4712);

/// The block of commands in the runbook that has this.
fn in_the_runbook(has: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/runbooks/etcd-lost.md");
    let book = fs::read_to_string(path).unwrap();
    let mut blocks = book.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap().to_owned());
    blocks.find(|block| block.contains(has)).unwrap_or_else(|| panic!("the runbook has no {has}"))
}

/// The book, for a cluster that comes in the place of a lost one.
struct Book<'b> {
    bench: &'b Bench,
    new: &'b Cluster,
    /// The snapshot that is chosen.
    snapshot: &'b str,
}

impl Book<'_> {
    /// A block, as one would write it on this node.
    fn written(&self, has: &str, n: usize) -> String {
        let new = self.new;
        let (own, peer) = new.peer(n);
        let path = |name: &str| new.path(name).display().to_string();
        let own_peer = |url: &str| format!("--initial-advertise-peer-urls {url}");
        let mut script = in_the_runbook(has)
            .replace("3f2a91c0", self.snapshot)
            .replace("--name node-1", &format!("--name {own}"))
            .replace("--etcd-name node-1", &format!("--etcd-name {own}"))
            .replace(&own_peer("https://10.0.0.11:2380"), &own_peer(&peer))
            .replace("etcd://10.0.0.11,10.0.0.12,10.0.0.13", &new.address())
            .replace("/var/lib/etcd", &path(own))
            .replace("etcd:etcd", &format!("{}:{}", OWNER.0, OWNER.1));
        for m in 0..3 {
            script = script.replace(&format!("https://10.0.0.1{}:2380", m + 1), &new.peer(m).1);
            script = script.replace(&format!("https://10.0.0.1{}:2379", m + 1), &new.client(m));
        }
        for (theirs, ours) in
            [("ca.crt", "ca.crt"), ("healthcheck-client.crt", "client.crt"), ("healthcheck-client.key", "client.key")]
        {
            script = script.replace(&format!("/etc/kubernetes/pki/etcd/{theirs}"), &path(ours));
        }
        script = script.replace("/etc/kubernetes/pki", &path("pki"));
        assert!(!script.contains("10.0.0.") && !script.contains("/etc/"), "{script}");
        script
    }

    /// Runs a block on a node, in a shell that was told whom to speak to; returns what it printed.
    fn run(&self, has: &str, n: usize) -> String {
        let script = format!("{}\n{}", self.written("ETCDCTL_ENDPOINTS=", n), self.written(has, n));
        let programs = tool("3.5", "etcdutl").parent().unwrap().display().to_string();
        let path = format!("{}:{programs}:/usr/bin:/bin", self.bench.path("programs").display());
        said(Command::new("bash").args(["-ec", &script]).env("PATH", path).current_dir(self.bench.dir.path()))
    }

    /// Puts the program where a shell finds it, as it is set up for the bench.
    fn install(&self) {
        let command = self.bench.command(&[]);
        let quoted = |text: &std::ffi::OsStr| format!("'{}'", text.to_str().unwrap());
        let mut script = "#!/bin/sh\n".to_owned();
        for (key, value) in command.get_envs() {
            script += &format!("export {}={}\n", key.to_str().unwrap(), quoted(value.unwrap()));
        }
        let words: Vec<String> = std::iter::once(command.get_program()).chain(command.get_args()).map(quoted).collect();
        script += &format!("exec {} \"$@\"\n", words.join(" "));
        let path = self.bench.path("programs/holdfast");
        fs::create_dir(path.parent().unwrap()).unwrap();
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

fn owner(path: &Path) -> (u32, u32, u32) {
    let meta = fs::metadata(path).unwrap();
    (meta.uid(), meta.gid(), meta.mode() & 0o77)
}

/// The runbook's other way: a member's data folder at once.
fn in_one_step(book: &Book<'_>, n: usize) {
    let (bench, new) = (book.bench, book.new);
    let own = new.peer(n).0;
    let command = book.written("--etcd-data-dir", n).replace("\\\n", "");
    let programs = tool("3.5", "etcdutl").parent().unwrap().to_str().unwrap().to_owned();
    let words = command.split_whitespace().skip(1).chain(["--etcd-bin", &programs, "--check"]);
    let words: Vec<&str> = words.collect();
    // An empty folder that is there already keeps its owner, who owns what comes into it.
    fs::create_dir(new.path(own)).unwrap();
    std::os::unix::fs::chown(new.path(own), Some(OWNER.0), Some(OWNER.1)).unwrap();
    let done = bench.ok(&words);
    assert_eq!(done["checked"]["revision"], done["begins"], "{done:#}");
    let database = owner(&new.path(own).join("member/snap/db"));
    assert_eq!(database, (OWNER.0, OWNER.1, 0), "its owner's, and nobody else's");
    assert_eq!(fs::read_dir(new.path(own)).unwrap().count(), 1, "nothing else is left there");
    let (code, refused) = bench.json(&words);
    assert!(code == 2 && refused.to_string().contains("not empty"), "{code} {refused:#}");
}

/// What is in a repository beside the cluster, and newer: files, and another cluster.
fn beside(bench: &Bench) {
    let other = Cluster::start("3.5", 1);
    other.load(15, 22);
    assert_eq!(backup(bench, &other, &[]).0, 0);
    fs::create_dir(bench.path("pki")).unwrap();
    fs::write(bench.path("pki/sa.key"), "no key").unwrap();
    bench.ok(&["backup", "--name", "control-plane-files", "pki"]);
}

/// `latest` is never of files, nor of whichever cluster was last.
fn latest_is_of_one_cluster(bench: &Bench, address: &str) {
    for words in [&["restore", "latest", "--to", "no.db"][..], &["restore", "latest:/registry/", "--into", address]] {
        let (code, report) = bench.json(words);
        let said = report["error"].to_string();
        assert!(code == 2 && said.contains("2 clusters of etcd: cluster, etcd-prod"), "{words:?}: {report:#}");
        let (code, report) = bench.json(&[words, &["--name", "control-plane-files"]].concat());
        assert!(code == 1 && report["error"]["kind"] == "not-found", "{words:?}: {report:#}");
    }
    assert!(!bench.path("no.db").exists());
}

#[test]
fn a_lost_cluster_comes_back_by_the_runbook() {
    let bench = Bench::with_key(&["a"]);
    let mut lost = Cluster::start("3.5", 3);
    lost.load(20, 20);
    assert_eq!(backup_as(&bench, &lost, "etcd-prod", &[]).0, 0);
    let first = bench.ok(&["ls", "latest"])["snapshot"].as_str().unwrap().to_owned();
    let last = lost.load(80, 21);
    let (code, report) = backup_as(&bench, &lost, "etcd-prod", &[]);
    assert_eq!(code, 0, "{report:#}");
    let snapshot = report["snapshot"].as_str().unwrap();
    let wanted = lost.dump(&[last]);
    beside(&bench);
    latest_is_of_one_cluster(&bench, &lost.address());
    (0..3).for_each(|n| lost.kill(n));
    let mut new = Cluster::prepared("3.5", &["node-1", "node-2", "node-3"]).with_tls();
    let book = Book { bench: &bench, new: &new, snapshot };
    book.install();
    // What lies beside etcd comes first.
    book.run("control-plane-files", 0);
    assert_eq!(fs::read_to_string(new.path("pki/sa.key")).unwrap(), "no key");
    // The old folder is set aside.
    fs::create_dir(new.path("node-1")).unwrap();
    book.run("mv /var/lib/etcd", 0);
    assert!(new.path("node-1.lost").exists() && !new.path("node-1").exists());
    let compared = Book { snapshot: &first, ..book }.run("holdfast diff", 0);
    assert!(compared.contains("etcd-prod") && compared.contains("keys added"), "{compared}");
    let restored = book.run("--bump-revision", 0);
    assert!(restored.contains(&format!("snapshot {} of etcd-prod, 20", &snapshot[..8])), "{restored}");
    in_one_step(&book, 2);
    for n in 0..2 {
        book.run("etcdutl snapshot restore", n);
        book.run("chown -R etcd", n);
        assert_eq!(owner(&new.path(new.peer(n).0).join("member/snap/db")), (OWNER.0, OWNER.1, 0));
    }
    new.run_all();
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
    let book = Book { bench: &bench, new: &new, snapshot };
    let looked = book.run("etcdctl alarm list", 0);
    assert!((0..3).all(|n| looked.matches(&new.client(n)).count() >= 2), "{looked}");
    // The new cluster is refused until it is told, by the book's last command.
    assert_eq!(backup_as(&bench, &new, "etcd-prod", &[]).0, 11);
    book.run("--new-cluster", 0);
    assert_eq!(backup_as(&bench, &new, "etcd-prod", &[]).0, 0);
}
