//! `restore --check`: the etcd that is tried does not outlive the program. And what a backup says of Kubernetes' secrets.

use super::backup;
use super::server::{Cluster, tool, wait_a_little};
use crate::harness::Bench;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

const WITHIN: Duration = Duration::from_secs(60);

/// Whether a program is at work in a folder below this one.
fn somebody_is_at_work_in(dir: &Path) -> bool {
    let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| Some(entry.ok()?.path()));
    let at_work = |process: &Path| {
        let is_etcd = fs::read_to_string(process.join("comm")).is_ok_and(|name| name.trim() == "etcd");
        is_etcd && fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd.starts_with(dir))
    };
    processes.into_iter().any(|process| at_work(&process))
}

#[test]
fn an_etcd_that_is_tried_ends_with_a_program_that_is_killed() {
    let bench = Bench::with_key(&["a"]);
    let cluster = Cluster::start("3.5", 1);
    cluster.load(40, 91);
    assert_eq!(backup(&bench, &cluster, &[]).0, 0);
    drop(cluster);
    let scratch = bench.path("scratch");
    fs::create_dir(&scratch).unwrap();
    let scratch = scratch.canonicalize().unwrap();
    let programs = tool("3.5", "etcd").parent().unwrap().display().to_string();
    let mut command = bench.command(&["restore", "latest", "--to", "back.db", "--check", "--etcd-bin", &programs]);
    command.env("TMPDIR", &scratch).stdout(Stdio::null()).stderr(Stdio::null());
    let (mut child, begin) = (command.spawn().unwrap(), Instant::now());
    // It is at work for a second or so.
    while !somebody_is_at_work_in(&scratch) {
        assert!(child.try_wait().unwrap().is_none() && begin.elapsed() < WITHIN, "no etcd was seen");
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let begin = Instant::now();
    while somebody_is_at_work_in(&scratch) {
        assert!(begin.elapsed() < WITHIN, "the etcd lives on");
        wait_a_little();
    }
}

#[test]
fn leases_of_a_restored_database_are_asked_for() {
    for version in ["3.5", "3.4"] {
        let bench = Bench::with_key(&["a"]);
        let cluster = Cluster::start(version, 1);
        ["300", "5000", "1000000"].iter().for_each(|seconds| drop(cluster.ctl(&["lease", "grant", seconds])));
        cluster.ctl(&["put", "/key", "value"]);
        assert_eq!(backup(&bench, &cluster, &[]).0, 0);
        let programs = tool(version, "etcd").parent().unwrap().display().to_string();
        let report = bench.ok(&["restore", "latest", "--to", "back.db", "--check", "--etcd-bin", &programs]);
        assert_eq!((&report["checked"]["leases"], &report["checked"]["keys"]), (&3.into(), &1.into()), "{report:#}");
    }
}

#[test]
fn secrets_in_plain_text_are_told_and_so_are_those_that_need_other_keys() {
    let bench = Bench::with_key(&["a"]);
    let cluster = Cluster::start("3.5", 1);
    cluster.ctl(&["put", "/registry/configmaps/a", "nothing"]);
    let told = || {
        let (code, report) = backup(&bench, &cluster, &["--mode", "full"]);
        assert_eq!(code, 0, "{report:#}");
        report["etcd"]["remarks"].to_string()
    };
    assert!(!told().contains("Secrets"));
    cluster.ctl(&["put", "/registry/secrets/default/a", "k8s:enc:aescbc:v1:key1:sealed"]);
    let remarks = told();
    assert!(remarks.contains("1 Kubernetes Secrets are encrypted at rest: without the keys"), "{remarks}");
    assert!(!remarks.contains("plain text"), "{remarks}");
    ["a", "b"].iter().for_each(|name| drop(cluster.ctl(&["put", &format!("/registry/secrets/x/{name}"), "open"])));
    let remarks = told();
    assert!(remarks.contains("2 Kubernetes Secrets lie in plain text in the database"), "{remarks}");
    assert!(remarks.contains("1 Kubernetes Secrets are encrypted at rest"), "{remarks}");
}
