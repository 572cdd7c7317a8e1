//! Directories wider and deeper than usual, and few descriptors.

use super::{Case, text};
use crate::harness::{PASSPHRASE, noise};
use rustix::fs::{self, CWD, Mode, OFlags};
use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// Memory that is enough for any source.
const MEMORY_BYTES_MAX: u64 = 700 << 20;
/// Length of the names of the deep tree: long enough for its paths to add up to more than that.
const NAME_LEN: usize = 240;

/// Runs with a limit on open files and on memory.
fn limited(case: &Case, files: u32, args: &[&str]) -> (i32, Value) {
    let region = format!("a={}", text(&case.bench.region("a")));
    let output = Command::new("prlimit")
        .args([format!("--nofile={files}"), format!("--data={MEMORY_BYTES_MAX}")])
        .args([env!("CARGO_BIN_EXE_holdfast"), "--json", "--quiet", "--region", &region])
        .args(args)
        .env("HOLDFAST_PASSPHRASE", PASSPHRASE)
        .env("HOLDFAST_STATE", case.bench.path("state"))
        .output()
        .expect("prlimit runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let value = serde_json::from_str(text.lines().last().unwrap_or_default());
    let value = value.unwrap_or_else(|e| panic!("{e}: {text}{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code().unwrap_or(-1), value)
}

#[test]
fn a_hundred_thousand_files_in_one_directory() {
    let case = Case::new();
    let source = case.path("source");
    std::fs::create_dir(&source).expect("directory");
    let dir = fs::openat(CWD, &source, OFlags::RDONLY, Mode::empty()).expect("open");
    for n in 0..100_000u32 {
        let name = format!("file-{n}");
        let file = fs::openat(&dir, &name, OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).expect("file");
        if n % 7 == 0 {
            rustix::io::write(&file, name.as_bytes()).expect("write");
        }
        if n % 50 == 0 {
            std::fs::hard_link(source.join(&name), source.join(format!("also-{n}"))).expect("hard link");
        }
    }
    let first = case.bench.ok(&["backup", &text(&source)]);
    assert_eq!(first["files"], 102_000);
    std::fs::write(source.join("file-5"), b"changed").expect("file");
    std::fs::remove_file(source.join("file-77777")).expect("removed");
    let second = case.bench.ok(&["backup", &text(&source)]);
    assert_eq!(second["files"], 101_999);
    let target = case.path("target");
    let restored = case.bench.ok(&["restore", "latest", "--target", &text(&target)]);
    assert_eq!(restored["files"], 101_999);
    std::fs::write(target.join("extra"), b"extra").expect("file");
    let again = case.bench.ok(&["restore", "latest", "--delete", "--target", &text(&target)]);
    assert_eq!((&again["bytes_written"], &again["deleted"]), (&Value::from(0), &Value::from(1)));
    let (before, after) = (names(&source), names(&target));
    assert_eq!(before.len(), 101_999);
    assert!(before == after);
    assert_eq!(std::fs::read(target.join("file-99995")).expect("read"), b"file-99995");
    assert_eq!(std::fs::read(target.join("file-5")).expect("read"), b"changed");
}

/// Names, inode groups' sizes and lengths.
fn names(dir: &Path) -> Vec<(std::ffi::OsString, u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let look = |entry: std::io::Result<std::fs::DirEntry>| {
        let entry = entry.expect("entry");
        let meta = entry.metadata().expect("stat");
        (entry.file_name(), meta.nlink(), meta.len())
    };
    let mut found: Vec<_> = std::fs::read_dir(dir).expect("list").map(look).collect();
    found.sort();
    found
}

/// How many directories lie in each other.
fn depth(dir: &Path) -> usize {
    let mut at = fs::openat(CWD, dir, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).expect("open");
    for levels in 0.. {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        match fs::openat(&at, &[b'a' + (levels % 26) as u8; NAME_LEN][..], flags, Mode::empty()) {
            Ok(below) => at = below,
            Err(_) => return levels,
        }
    }
    0
}

#[test]
fn too_deep_a_tree_is_named_and_the_rest_is_kept() {
    let case = Case::new();
    std::fs::create_dir(case.path("source")).expect("directory");
    super::tree::deep(&case.path("source/deep"), 4200, NAME_LEN);
    std::fs::write(case.path("source/file"), b"file").expect("file");
    let (code, report) = limited(&case, 20_000, &["backup", &case.text("source")]);
    assert_eq!((code, &report["errors_total"]), (3, &Value::from(1)), "{report:#}");
    let message = report["errors"][0]["message"].as_str().expect("a message");
    assert!(message.contains("deeper than 4096"), "{message}");
    let (code, report) = limited(&case, 20_000, &["restore", "latest", "--target", &case.text("target")]);
    assert_eq!(code, 0, "{report:#}");
    assert_eq!(depth(&case.path("target/deep")), 4095);
    assert_eq!(std::fs::read(case.path("target/file")).expect("read"), b"file");
    let (code, _) = limited(&case, 20_000, &["verify", "--level", "content"]);
    assert_eq!(code, 0);
    let (code, report) = limited(&case, 20_000, &["restore", "latest:/file", "--target", &case.text("other")]);
    assert_eq!(code, 0, "{report:#}");
    // The standard library would use a descriptor and a frame of the stack for each level.
    let done = Command::new("rm").arg("-rf").arg(case.path("source")).arg(case.path("target")).status();
    assert!(done.expect("rm runs").success());
}

/// Few descriptors: slower, but the same.
#[test]
fn few_descriptors_are_enough() {
    let case = Case::new();
    let source = case.path("source");
    std::fs::create_dir(&source).expect("directory");
    for n in 0..3000u64 {
        std::fs::write(source.join(format!("f{n}")), noise(n, 3000)).expect("file");
    }
    for n in 0..300u64 {
        std::fs::create_dir(source.join(format!("d{n}"))).expect("directory");
        std::fs::write(source.join(format!("d{n}/f")), noise(n, 5000)).expect("file");
    }
    let (code, report) = limited(&case, 256, &["backup", &text(&source)]);
    assert_eq!(code, 0, "{report:#}");
    for _ in 0..2 {
        let (code, report) = limited(&case, 256, &["restore", "latest", "--target", &case.text("target")]);
        assert_eq!(code, 0, "{report:#}");
        crate::harness::assert_same(&source, &case.path("target"));
        // The second time every file stands there, and must be written again.
        for n in 0..3000u64 {
            std::fs::write(case.path("target").join(format!("f{n}")), noise(n + 1, 3000)).expect("file");
        }
    }
}
