//! Whole regions that are not what they should be.

use super::fixture::{Fixture, Kind, run};
use super::run_restore;
use crate::harness::files;
use crate::inside::plant;
use holdfast::base::{RegionId, RepoId};
use holdfast::format::region::RegionMark;
use holdfast::format::signed::{add_checksum, check_sum};
use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// With `b` intact: reading works, writing is behind, verify ends with `verify`; nothing is put into `a`.
fn check_without_a(ours: &Fixture, dir: &Path, what: &str, verify: i32, why: &str) {
    let before = files(&dir.join("region-a")).len();
    let (code, list) = run(dir, &ours.key(), &["snapshots"]);
    assert_eq!((code, list["snapshots"].as_array().map(Vec::len)), (0, Some(4)), "{what}: {list:#}");
    let failed = list["failed"].to_string();
    assert!(failed.contains("region a") && failed.contains(why), "{what}: {failed}");
    let (code, report) = run_restore(dir, &ours.key(), &ours.second, &ours.tree);
    assert_eq!(code, 0, "{what}: {report:#}");
    let (code, report) = run(dir, &ours.key(), &["verify"]);
    assert_eq!(code, verify, "{what}: {report:#}");
    let (code, done) = run(dir, &ours.key(), &["backup", "--name", "main", &ours.tree.display().to_string()]);
    assert_eq!((code, done["behind"].as_array().map(Vec::len)), (4, Some(1)), "{what}: {done:#}");
    assert!(done["behind"].to_string().contains(why), "{what}: {done:#}");
    let (code, report) = run_restore(dir, &ours.key(), "latest", &ours.tree);
    assert_eq!(code, 0, "{what}: {report:#}");
    assert_eq!(files(&dir.join("region-a")).len(), before, "{what}: something was put there");
}

/// Every verb ends with this code.
fn check_nothing(ours: &Fixture, dir: &Path, what: &str, wanted: i32, said: &str) {
    let (tree, target) = (ours.tree.display().to_string(), dir.join("target").display().to_string());
    let verbs: [&[&str]; 6] = [
        &["snapshots"],
        &["key", "list"],
        &["restore", "latest", "--target", &target],
        &["verify"],
        &["backup", &tree],
        &["forget", "latest"],
    ];
    for verb in verbs {
        let (code, value) = run(dir, &ours.key(), verb);
        assert_eq!(code, wanted, "{what}: {verb:?}: {value:#}");
        assert!(value["error"].to_string().contains(said), "{what}: {verb:?}: {value:#}");
    }
    assert!(!Path::new(&target).exists(), "{what}: a target was made");
}

fn both(dir: &Path, act: impl Fn(&Path)) {
    ["region-a", "region-b"].iter().for_each(|name| act(&dir.join(name)));
}

fn empty(region: &Path) {
    std::fs::remove_dir_all(region).expect("removed");
    std::fs::create_dir(region).expect("folder");
}

#[test]
fn an_unmounted_disk_is_no_repository() {
    let ours = Fixture::ours();
    let copy = ours.copy();
    empty(&copy.path().join("region-a"));
    check_without_a(&ours, copy.path(), "empty", 4, "no repository here");
    both(copy.path(), empty);
    check_nothing(&ours, copy.path(), "both empty", 10, "is the disk mounted");
    both(copy.path(), |region| assert_eq!(files(region).len(), 0));

    let copy = ours.copy();
    std::fs::remove_dir_all(copy.path().join("region-a")).expect("removed");
    check_without_a(&ours, copy.path(), "gone", 4, "is the disk mounted");
    assert!(!copy.path().join("region-a").exists());
    std::fs::remove_dir_all(copy.path().join("region-b")).expect("removed");
    check_nothing(&ours, copy.path(), "both gone", 10, "is the disk mounted");
    assert!(!copy.path().join("region-b").exists());
}

#[test]
fn another_repositorys_region_is_left_alone() {
    let ours = Fixture::ours();
    let twin = Fixture::new([8; 32], crate::harness::PASSPHRASE);
    let copy = ours.copy();
    let theirs = twin.copy();
    std::fs::remove_dir_all(copy.path().join("region-a")).expect("removed");
    std::fs::rename(theirs.path().join("region-a"), copy.path().join("region-a")).expect("moved");
    check_without_a(&ours, copy.path(), "another's", 5, "another repository");
    // A key that opens both: nobody can say which is meant.
    let twin = Fixture::ours();
    let theirs = twin.copy();
    std::fs::remove_dir_all(copy.path().join("region-a")).expect("removed");
    std::fs::rename(theirs.path().join("region-a"), copy.path().join("region-a")).expect("moved");
    check_nothing(&ours, copy.path(), "same secrets", 5, "different repositories");
    // One place under two names is one copy.
    let dir = copy.path();
    std::fs::remove_dir_all(dir.join("region-a")).expect("removed");
    std::os::unix::fs::symlink(dir.join("region-b"), dir.join("region-a")).expect("symlink");
    check_nothing(&ours, dir, "two addresses", 2, "two addresses of one store");
}

#[test]
fn a_newer_format_is_said_and_left_alone() {
    let ours = Fixture::ours();
    let copy = ours.copy();
    let newer = RegionMark { version: 2, repo: RepoId([1; 16]), region: RegionId([2; 16]), created: 0 };
    plant(&copy.path().join("region-a"), "region", &newer.to_object());
    check_without_a(&ours, copy.path(), "newer mark", 5, "needs a newer program");
    plant(&copy.path().join("region-b"), "region", &newer.to_object());
    check_nothing(&ours, copy.path(), "newer marks", 1, "newer");

    // An unknown critical flag of an envelope, in one region and in both.
    for kind in [Kind::Manifest, Kind::Forgotten, Kind::Session] {
        let copy = ours.copy();
        let object = &ours.objects[&kind][0];
        let good = ours.bytes("a", object);
        let mut bytes = check_sum(&good).expect("a checksum").0.to_vec();
        bytes[10] |= 2;
        add_checksum(&mut bytes);
        for (region, restored) in [("region-a", 0), ("region-b", if kind == Kind::Manifest { 5 } else { 0 })] {
            plant(&copy.path().join(region), object, &bytes);
            let (code, report) = run(copy.path(), &ours.key(), &["verify"]);
            let named = report["findings"].to_string();
            assert!(code == 5 && named.contains("newer program") && named.contains(object), "{report:#}");
            let (code, report) = run_restore(copy.path(), &ours.key(), &ours.second, &ours.tree);
            assert_eq!(code, restored, "{report:#}");
        }
    }
}

#[test]
fn lengths_that_lie_and_things_that_are_no_files_stop_nobody() {
    let ours = Fixture::ours();
    for (kind, [object, _]) in &ours.objects {
        for fifo in [false, true] {
            let copy = ours.copy();
            let path = copy.path().join("region-a").join(object);
            std::fs::remove_file(&path).expect("removed");
            if fifo {
                let made = Command::new("mkfifo").arg(&path).status().expect("mkfifo runs");
                assert!(made.success());
            } else {
                std::fs::File::create(&path).and_then(|file| file.set_len(1 << 40)).expect("a sparse file");
            }
            let what = format!("{kind:?}, {}", if fifo { "a fifo" } else { "a terabyte" });
            let (code, report) = run_restore(copy.path(), &ours.key(), &ours.second, &ours.tree);
            assert_eq!(code, 0, "{what}: {report:#}");
            let (code, report) = run(copy.path(), &ours.key(), &["verify", "--level", "content"]);
            // Nobody can tell that a session, or its end, is missing.
            let unknown = fifo && matches!(kind, Kind::Session | Kind::Tombstone);
            assert!(matches!(code, 4 | 5) || (unknown && code == 0), "{what}: {report:#}");
            assert!(fifo || report["findings"].to_string().contains(object), "{what}: {report:#}");
            let (code, done) = run(copy.path(), &ours.key(), &["backup", &ours.tree.display().to_string()]);
            assert!(matches!(code, 0 | 4), "{what}: {done:#}");
        }
    }
}

/// Runs the program as somebody who owns nothing but `b`.
fn as_nobody(ours: &Fixture, dir: &Path, args: &[&str]) -> (i32, Value) {
    let program = dir.join("holdfast");
    if !program.exists() {
        std::fs::copy(env!("CARGO_BIN_EXE_holdfast"), &program).expect("copied");
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(program);
    command.args(["--json", "--quiet", "--copies-min=1"]);
    for name in ["a", "b"] {
        command.arg("--region").arg(format!("{name}={}", dir.join(format!("region-{name}")).display()));
    }
    let out = command.arg("--key-file").arg(ours.key()).args(args).current_dir(dir).output().expect("setpriv runs");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    (out.status.code().expect("an exit code"), serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {out:?}")))
}

#[test]
fn a_region_that_cannot_be_written_is_still_read() {
    let ours = Fixture::ours();
    let copy = ours.copy();
    let dir = copy.path();
    let change = |program: &str, args: &[&str]| {
        assert!(Command::new(program).args(args).status().expect("it runs").success(), "{program} {args:?}");
    };
    let (all, b) = (ours.bench.dir.path().display().to_string(), dir.join("region-b").display().to_string());
    change("chmod", &["-R", "a+rX", &all]);
    change("chown", &["65534:65534", &ours.key().display().to_string(), &dir.display().to_string()]);
    // Not the objects: they are other copies' too.
    change("find", &[&b, "-type", "d", "-exec", "chown", "65534:65534", "{}", "+"]);
    let tree = ours.tree.display().to_string();
    let (code, done) = as_nobody(&ours, dir, &["backup", "--name", "main", &tree]);
    assert_eq!(code, 4, "{done:#}");
    assert!(done["behind"][0]["why"].to_string().contains("permission"), "{done:#}");
    let sid = done["snapshot"].as_str().expect("a snapshot");
    let target = dir.join("target").display().to_string();
    let (code, report) = as_nobody(&ours, dir, &["restore", sid, "--target", &target]);
    assert!(matches!(code, 0 | 3), "{report:#}");
    change("find", &[&b, "-type", "d", "-exec", "chown", "0:0", "{}", "+"]);
    let (code, done) = as_nobody(&ours, dir, &["backup", "--name", "main", &tree]);
    assert_eq!((code, done["error"]["kind"].as_str()), (1, Some("denied")), "{done:#}");
    let (code, list) = as_nobody(&ours, dir, &["snapshots"]);
    assert_eq!((code, list["snapshots"].as_array().map(Vec::len)), (0, Some(5)), "{list:#}");
}
