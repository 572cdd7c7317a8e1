//! The command of a CronJob in a bare environment: it backs up, it verifies, and its exit codes say how it went.

use super::pod::Cluster;
use crate::harness::{assert_same, files, noise, small_tree};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

const SCHEDULE: &str =
    "  schedule: {incremental: 30 2 * * *, full: 30 4 * * 0}\n  verify: {schedule: 0 5 1 * *, level: content}\n";

/// With something to back up and a repository, made in the same environment.
fn ready(spec: &str, wishes: &[&str]) -> Cluster {
    let cluster = Cluster::new(spec, wishes);
    let source = cluster.claim("srv-data");
    small_tree(&source);
    let config = ["--config", "/holdfast/config", "--passphrase-file", "/holdfast/secret/passphrase"];
    let init = [&["init", "--no-recovery-key"], &config[..]].concat();
    let (code, said) = cluster.run_with("incremental", &init);
    assert_eq!(code, 0, "{said}");
    cluster
}

/// What the storage holds, seen from outside with the ordinary program.
fn outside(cluster: &Cluster, args: &[&str]) -> serde_json::Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
    for region in ["a", "b"] {
        let folder = cluster.claim(&format!("main-{region}"));
        command.arg("--region").arg(format!("{region}={}", folder.display()));
    }
    command.args(["--json", "--passphrase-file"]).arg(cluster.dir.path().join("secret")).args(args);
    let out = command.env("HOME", cluster.dir.path()).output().expect("the program runs");
    assert!(out.status.success(), "{}", super::said(&out));
    serde_json::from_slice(&out.stdout).expect("JSON")
}

#[test]
fn the_command_backs_up_and_verifies() {
    let cluster = ready(SCHEDULE, &[]);
    for task in ["incremental", "full", "incremental"] {
        let (code, said) = cluster.run(task);
        assert_eq!(code, 0, "{task}: {said}");
        assert!(said.contains("1 protected, 0 degraded, 0 failed, 0 excluded: done (exit code 0)"), "{said}");
        // Nothing is warned of: the secret is as private as a pod can have it.
        assert!(!said.contains("warning"), "{said}");
    }
    let (code, said) = cluster.run("verify");
    assert!(code == 0 && said.contains("3 snapshots checked, 0 findings"), "{code}: {said}");
    let snapshots = outside(&cluster, &["snapshots"]);
    let hosts: Vec<&str> =
        snapshots["snapshots"].as_array().unwrap().iter().map(|s| s["host"].as_str().unwrap()).collect();
    assert_eq!(hosts, ["holdfast-data"; 3], "the pod's name is another each time");
    let back = cluster.dir.path().join("back");
    outside(&cluster, &["restore", "latest", "--target", back.to_str().unwrap()]);
    assert_same(&cluster.claim("srv-data"), &back);
    // A damaged pack is found.
    let packs = files(&cluster.claim("main-a").join("packs"));
    std::fs::write(&packs[0], noise(1, 1000)).unwrap();
    let (code, said) = cluster.run("verify");
    assert!(code == 5 && said.contains("DAMAGE"), "{code}: {said}");
}

#[test]
fn without_key_repository_or_policy_it_says_so() {
    let cluster = ready(SCHEDULE, &[]);
    let ends = |wanted: i32, part: &str| {
        let (code, said) = cluster.run("incremental");
        assert!(code == wanted && said.contains(part), "{code} instead of {wanted}: {said}");
    };
    cluster.secret(None);
    ends(12, "cannot be read");
    cluster.secret(Some("this is another passphrase 77"));
    ends(12, "key");
    cluster.secret(Some(crate::harness::PASSPHRASE));
    ends(0, "1 protected");
    let claims = cluster.dir.path().join("claims");
    let aside = |region: &str| std::fs::rename(claims.join(region), claims.join(format!("away-{region}"))).unwrap();
    // One volume is not the right one: too few copies. Neither is: there is no repository.
    aside("main-b");
    ends(1, "region b");
    aside("main-a");
    ends(10, "no repository");
    assert!(files(&claims.join("main-a")).is_empty(), "nothing is created in an empty place");
    let (code, said) = cluster.run_with("incremental", &["run", "dta", "--config", "/holdfast/config"]);
    assert!(code == 2 && said.contains("did you mean `data`?"), "{code}: {said}");
}

#[test]
fn files_of_others_are_named_and_root_reads_them() {
    let secret = |cluster: &Cluster| {
        let path = cluster.claim("srv-data").join("private");
        std::fs::write(&path, "of root alone").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    };
    let cluster = ready(SCHEDULE, &[]);
    secret(&cluster);
    let (code, said) = cluster.run("incremental");
    assert!(code == 3 && said.contains("private"), "{code}: {said}");
    let cluster = ready(SCHEDULE, &["--run-as", "0"]);
    secret(&cluster);
    let path = cluster.claim("srv-data").join("private");
    std::os::unix::fs::chown(&path, Some(1234), Some(1234)).unwrap();
    let (code, said) = cluster.run("incremental");
    assert_eq!(code, 0, "{said}");
    let (code, said) = cluster.run_with(
        "incremental",
        &["cat", "latest:/private", "--config", "/holdfast/config", "--passphrase-file", "/holdfast/secret/passphrase"],
    );
    assert_eq!((code, said.as_str()), (0, "of root alone"));
}

#[test]
fn an_incremental_gives_way_to_the_full_of_the_same_time() {
    let cluster = ready("  schedule: {incremental: '* * * * *', full: '* * * * *'}\n", &[]);
    let (code, said) = cluster.run("incremental");
    assert!(code == 0 && said.contains("gives way to the full that is due"), "{code}: {said}");
    let (code, said) = cluster.run("full");
    assert!(code == 0 && said.contains("1 protected"), "{code}: {said}");
    let snapshots = outside(&cluster, &["snapshots"]);
    let modes: Vec<&str> =
        snapshots["snapshots"].as_array().unwrap().iter().map(|s| s["mode"].as_str().unwrap()).collect();
    assert_eq!(modes, ["full"]);
}
