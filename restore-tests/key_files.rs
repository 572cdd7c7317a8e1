//! Key files seen from the kernel: when they are on the disk, and what is left when they do not fit.
//!
//! Each test runs itself again under a tool; the inner run does the work and says how it ended.

use holdfast::unlock::create_key_file;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const INNER: &str = "HOLDFAST_TEST_KEY_FILE";

/// In the inner run: makes the key file, says how it went, and gives `true`.
fn inner() -> bool {
    let Some(path) = std::env::var_os(INNER) else { return false };
    match create_key_file(Path::new(&path), &[0x6b; 32]) {
        Ok(()) => println!("made"),
        Err(e) => println!("failed: {} {e}", e.kind().name()),
    }
    true
}

/// Runs this one test again behind the words of `tool`.
fn again(tool: &[&str], test: &str, path: &Path) -> Output {
    let mut command = Command::new(tool[0]);
    command.args(&tool[1..]).arg(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(INNER, path);
    command.output().unwrap_or_else(|e| panic!("{} is needed: {e}", tool[0]))
}

fn key_path(dir: &tempfile::TempDir) -> PathBuf {
    dir.path().join("new.key")
}

#[test]
fn a_key_file_is_on_the_disk_before_anybody_relies_on_it() {
    if inner() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (path, trace) = (key_path(&dir), dir.path().join("trace"));
    let tool = ["strace", "-f", "-y", "-e", "trace=open,openat,write,fsync", "-o", trace.to_str().unwrap()];
    let out = again(&tool, "key_files::a_key_file_is_on_the_disk_before_anybody_relies_on_it", &path);
    assert!(String::from_utf8_lossy(&out.stdout).contains("made"), "{out:?}");

    let trace = std::fs::read_to_string(trace).unwrap();
    let (file, folder) = (format!("<{}>", path.display()), format!("<{}>", dir.path().display()));
    let at = |call: &str, on: &str| {
        let line = trace.lines().position(|l| l.contains(call) && l.contains(on));
        line.unwrap_or_else(|| panic!("no {call} on {on} in\n{trace}"))
    };
    let made = at("O_CREAT|O_EXCL", "new.key\", ");
    assert!(trace.lines().nth(made).unwrap().contains("0600"), "{trace}");
    let order = [made, at("write(", &file), at("fsync(", &file), at("fsync(", &folder)];
    assert!(order.is_sorted(), "{order:?}\n{trace}");
    let said = at("write(", "\"made");
    assert!(order[3] < said, "{trace}");
}

#[test]
fn a_key_file_that_does_not_fit_is_taken_away() {
    if inner() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = key_path(&dir);
    let tool = ["env", "--ignore-signal=XFSZ", "prlimit", "--fsize=16", "--"];
    let out = again(&tool, "key_files::a_key_file_that_does_not_fit_is_taken_away", &path);
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(said.contains("failed: source the key file cannot be written: File too large"), "{out:?}");
    assert!(!path.exists(), "a torn key file was left behind");
}
