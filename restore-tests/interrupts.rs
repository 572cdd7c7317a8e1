//! Interrupted by a signal in the middle of the work: an early end with its own exit code, nothing lost.

use crate::crash::{complete_alone, restores, sids, text};
use crate::harness::{Bench, assert_same, files, noise};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Generous: the machine may be busy. What was measured is printed.
const END_TIME_MAX: Duration = Duration::from_secs(10);
const MIB: usize = 1 << 20;
/// One big file and many that are not.
const BIG_MIB: usize = 70;
const FILES: u64 = 11;
const FILE_MIB: usize = 10;
const SOURCE_BYTES: u64 = ((BIG_MIB + FILES as usize * FILE_MIB) * MIB) as u64;

/// A bench and a bigger source, in memory if there is enough.
fn ready() -> (Bench, PathBuf) {
    let bench = Bench::with_key(&["a", "b"]);
    let source = bench.path("source");
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("big"), noise(1, BIG_MIB * MIB)).unwrap();
    for n in 0..FILES {
        std::fs::write(source.join(format!("file-{n}")), noise(100 + n, FILE_MIB * MIB)).unwrap();
    }
    (bench, source)
}

fn start(bench: &Bench, args: &[&str]) -> Child {
    let mut command = bench.command(&[&["--quiet"], args].concat());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts")
}

/// Waits for the moment; the program must still be at work then.
fn until(child: &mut Child, moment: impl Fn() -> bool) {
    while !moment() {
        assert_eq!(child.try_wait().unwrap(), None, "it ended before the moment came");
        std::thread::yield_now();
    }
    assert_eq!(child.try_wait().unwrap(), None, "it ended before it was interrupted");
}

fn signal(child: &Child, name: &str) {
    let done = Command::new("kill").args(["-s", name, &child.id().to_string()]).status();
    assert!(done.is_ok_and(|s| s.success()), "kill");
}

/// Sends these signals and waits for the end; returns what was said.
fn interrupt(child: Child, names: &[&str], what: &str) -> String {
    let sent = Instant::now();
    names.iter().for_each(|name| signal(&child, name));
    let out = child.wait_with_output().unwrap();
    let took = sent.elapsed();
    println!("{what}: ended {} ms after {names:?}", took.as_millis());
    assert_eq!(out.status.code(), Some(130), "{what}: {out:?}");
    assert!(took < END_TIME_MAX, "{what}: {took:?}");
    String::from_utf8_lossy(&out.stderr).into_owned()
}

fn packs(bench: &Bench) -> Vec<PathBuf> {
    let all = files(&bench.region("a").join("packs"));
    all.into_iter().filter(|p| !p.to_string_lossy().contains('#')).collect()
}

fn interrupted_backup(name: &str) {
    let (bench, source) = ready();
    let args = ["backup", text(&source)];
    let mut child = start(&bench, &args);
    until(&mut child, || !packs(&bench).is_empty());
    let said = interrupt(child, &[name], "backup");
    assert!(said.contains("stored work is kept") && said.contains("interrupted"), "{said}");
    assert!(sids(&bench, name).is_empty());
    complete_alone(&bench, name);
    let stored: u64 = packs(&bench).iter().map(|p| p.metadata().unwrap().len()).sum();
    assert!(stored > 0 && stored < SOURCE_BYTES, "{stored}");
    let again = bench.ok(&args);
    let bytes = again["bytes_stored"].as_u64().unwrap();
    println!("{stored} bytes were stored, {bytes} more by the next run");
    assert!(bytes + stored < SOURCE_BYTES + SOURCE_BYTES / 20, "{stored} stored, {bytes} again of {SOURCE_BYTES}");
    bench.ok(&["verify", "--level", "content"]);
    restores(&bench, again["snapshot"].as_str().unwrap(), &source, name);
}

#[test]
fn a_backup_interrupted_from_the_terminal_keeps_what_it_stored() {
    interrupted_backup("INT");
}

#[test]
fn a_backup_that_is_terminated_keeps_what_it_stored() {
    interrupted_backup("TERM");
}

#[test]
fn a_restore_that_is_interrupted_is_finished_by_the_next() {
    let (bench, source) = ready();
    let sid = bench.ok(&["backup", text(&source)])["snapshot"].as_str().unwrap().to_owned();
    let target = bench.path("target");
    let args = ["restore", &sid, "--target", text(&target)];
    for name in ["INT", "TERM"] {
        let mut child = start(&bench, &args);
        let some = |path: &Path| path.metadata().is_ok_and(|m| m.len() > 0);
        until(&mut child, || files(&target).iter().any(|path| some(path)));
        interrupt(child, &[name], "restore");
        let missing = Command::new("diff").args(["-rq"]).arg(&source).arg(&target).status().unwrap();
        assert!(!missing.success(), "it was interrupted at its end");
        crate::crash::nothing_false(&source, &target, name);
        if name == "INT" {
            std::fs::remove_dir_all(&target).unwrap();
        }
    }
    bench.ok(&args);
    assert_same(&source, &target);
}

#[test]
fn a_verify_that_is_interrupted_ends_soon() {
    let (bench, source) = ready();
    bench.ok(&["backup", text(&source)]);
    for level in ["content", "ciphertext"] {
        let mut child = start(&bench, &["verify", "--level", level]);
        let io = format!("/proc/{}/io", child.id());
        let read = || {
            let text = std::fs::read_to_string(&io).unwrap_or_default();
            text.lines().find_map(|l| l.strip_prefix("rchar: ")?.parse::<usize>().ok()).unwrap_or(0)
        };
        until(&mut child, || read() > 40 * MIB);
        interrupt(child, &["INT"], level);
    }
}

#[test]
fn a_second_interrupt_stops_at_once_and_leaves_nothing_wrong() {
    let (bench, source) = ready();
    let mut child = start(&bench, &["backup", text(&source)]);
    until(&mut child, || !packs(&bench).is_empty());
    interrupt(child, &["INT", "INT", "INT"], "backup, several times");
    assert!(sids(&bench, "").is_empty());
    complete_alone(&bench, "");
    let sid = bench.ok(&["backup", text(&source)])["snapshot"].as_str().unwrap().to_owned();
    bench.ok(&["verify", "--level", "content"]);
    restores(&bench, &sid, &source, "");
}

/// What stands at the file's name is not touched before there is something to put there.
#[test]
fn interrupted_tensors_leave_the_file_that_was_there() {
    use crate::formats::containers::{Array, safetensors};
    let bench = Bench::with_key(&["a"]);
    let source = bench.path("source");
    std::fs::create_dir(&source).unwrap();
    let all: Vec<Array> = (1..20).map(|n| Array::new(&format!("t{n}"), "F32", &[1000, 500], n)).collect();
    let (file, bytes) = (source.join("model.safetensors"), safetensors(&all));
    std::fs::write(&file, &bytes).unwrap();
    bench.ok(&["backup", "--name", "s", text(&source)]);
    let args = ["restore", "latest:/model.safetensors", "--tensors", "*", "--target", text(&source), "--overwrite"];
    let mut child = start(&bench, &[&args[..], &["--limit-download", "1MiB/s"]].concat());
    until(&mut child, || files(&source).len() > 1);
    interrupt(child, &["INT"], "restore --tensors");
    assert_eq!(files(&source), std::slice::from_ref(&file));
    assert!(std::fs::read(&file).unwrap() == bytes);
}
