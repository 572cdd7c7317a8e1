//! What a run may use: limits of bandwidth hold, compression changes what is stored and nothing else, and an
//! interruption ends every wait.

use crate::harness::{Bench, assert_same, files, noise};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;

fn stored(bench: &Bench, args: &[&str]) -> Value {
    let report = bench.ok(&[&["backup", "source"], args].concat());
    assert_eq!(report["errors_total"], 0, "{report:#}");
    report
}

fn seconds(report: &Value) -> f64 {
    report["seconds"].as_f64().expect("seconds")
}

/// Text as people write it: every word comes again, no line does.
fn prose(path: &Path, bytes: usize) {
    let words: Vec<&str> = include_str!("../README.md").split_whitespace().collect();
    let mut text = String::new();
    let mut order = noise(7, bytes / 2).into_iter();
    while text.len() < bytes {
        let (a, b) = (order.next().expect("more"), order.next().expect("more"));
        text.push_str(words[(usize::from(a) << 8 | usize::from(b)) % words.len()]);
        text.push(' ');
    }
    std::fs::write(path, text).expect("file");
}

#[test]
fn an_upload_takes_as_long_as_its_limit_says() {
    let bench = Bench::with_key(&["a", "b"]);
    std::fs::create_dir(bench.path("source")).unwrap();
    std::fs::write(bench.path("source/file"), noise(1, 3 * MIB as usize)).unwrap();
    let slow = stored(&bench, &["--limit-upload", "1MiB/s"]);
    let bytes = slow["bytes_stored"].as_u64().unwrap();
    assert!(bytes >= 3 * MIB, "{slow:#}");
    let due = bytes as f64 / MIB as f64;
    assert!(seconds(&slow) >= due && seconds(&slow) < due + 20.0, "{} s for {bytes}", seconds(&slow));
    // A region that is brought up is written as slowly.
    std::fs::rename(bench.region("b"), bench.path("away")).unwrap();
    std::fs::write(bench.path("source/file"), noise(2, 3 * MIB as usize)).unwrap();
    bench.json(&["backup", "source", "--copies-min", "1"]);
    std::fs::rename(bench.path("away"), bench.region("b")).unwrap();
    let caught = stored(&bench, &["--limit-upload", "1MiB/s"]);
    assert!(caught["caught_up"]["bytes"].as_u64().unwrap() >= 3 * MIB, "{caught:#}");
    assert!(seconds(&caught) >= 3.0, "{} s", seconds(&caught));
}

#[test]
fn files_are_read_no_faster_than_the_limit_says() {
    let bench = Bench::with_key(&["a"]);
    std::fs::create_dir(bench.path("source")).unwrap();
    std::fs::write(bench.path("source/big"), noise(1, 2 * MIB as usize)).unwrap();
    for n in 0..16 {
        std::fs::write(bench.path(&format!("source/{n}")), noise(10 + n, MIB as usize / 16)).unwrap();
    }
    let slow = stored(&bench, &["--limit-read", "1MiB/s"]);
    assert!(slow["bytes_read"].as_u64().unwrap() >= 3 * MIB, "{slow:#}");
    assert!(seconds(&slow) >= 3.0 && seconds(&slow) < 20.0, "{} s", seconds(&slow));
    bench.ok(&["restore", "latest", "--target", bench.path("back").to_str().unwrap()]);
    assert_same(&bench.path("source"), &bench.path("back"));
}

#[test]
fn an_interruption_ends_every_wait_and_keeps_what_was_stored() {
    for limit in ["--limit-upload", "--limit-read"] {
        let bench = Bench::with_key(&["a"]);
        std::fs::create_dir(bench.path("source")).unwrap();
        // An hour's work.
        for n in 0..40 {
            std::fs::write(bench.path(&format!("source/{n}")), noise(n, 24 * MIB as usize)).unwrap();
        }
        let mut command = bench.command(&["backup", "source", limit, "256KiB/s"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let announced = || bench.objects("a").iter().any(|object| object.starts_with("sessions/"));
        while !announced() {
            assert_eq!(child.try_wait().unwrap(), None, "{limit}: it ended early");
            std::thread::yield_now();
        }
        let sent = Instant::now();
        let done = Command::new("kill").args(["-s", "TERM", &child.id().to_string()]).status();
        assert!(done.is_ok_and(|s| s.success()), "kill");
        let said: Vec<String> = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok).collect();
        assert_eq!(child.wait().unwrap().code(), Some(130), "{limit}: {said:?}");
        assert!(sent.elapsed() < Duration::from_secs(10), "{limit}: {:?}", sent.elapsed());
        // Nothing half-written is left, and it is whole.
        assert!(files(&bench.region("a")).iter().all(|path| !path.to_string_lossy().contains('#')), "{limit}");
        bench.ok(&["verify", "--level", "ciphertext"]);
    }
}

#[test]
fn compression_changes_what_is_stored_and_not_what_is_known() {
    let mut sizes = Vec::new();
    for how in ["none", "fast", "default", "better", "max"] {
        let bench = Bench::with_key(&["a"]);
        std::fs::create_dir(bench.path("source")).unwrap();
        prose(&bench.path("source/prose"), 2 * MIB as usize);
        (0..40).for_each(|n| prose(&bench.path(&format!("source/note-{n}")), 5000 + n));
        let first = stored(&bench, &["--compression", how]);
        sizes.push(first["bytes_stored"].as_u64().unwrap());
        // Everything is read again, and found again, whatever it was stored with.
        for other in ["max", "none"] {
            let again = stored(&bench, &["--full", "--compression", other]);
            assert_eq!((&again["bytes_new"], &again["chunks_new"]), (&0.into(), &0.into()), "{how} {other}: {again:#}");
        }
        bench.ok(&["verify", "--level", "content"]);
    }
    assert!(sizes[0] > 2 * MIB && sizes[0] > sizes[1] && sizes[1] > sizes[2], "{sizes:?}");
    // Padding may hide a small difference between neighbours.
    assert!(sizes[2] > sizes[4] && sizes[2] >= sizes[3] && sizes[3] >= sizes[4], "{sizes:?}");
}

#[test]
fn a_policy_limits_its_runs_and_mistakes_are_named() {
    let bench = Bench::with_key(&["a"]);
    std::fs::create_dir(bench.path("source")).unwrap();
    prose(&bench.path("source/prose"), 2 * MIB as usize);
    let configure = |limits: &str| {
        let text = format!(
            "apiVersion: holdfast.io/v1alpha1\nkind: Repository\nmetadata: {{name: main}}\nspec:\n  \
             regions: [{{name: a, url: {}}}]\n---\napiVersion: holdfast.io/v1alpha1\nkind: BackupPolicy\n\
             metadata: {{name: daily}}\nspec:\n  sources: [{{paths: [{}]}}]\n  limits: {limits}\n",
            bench.region("a").display(),
            bench.path("source").display()
        );
        std::fs::write(bench.path("holdfast.yaml"), text).unwrap();
    };
    configure("{compression: none, upload: 1MiB/s, workers: 1}");
    let began = Instant::now();
    let (code, report) = bench.json_at(&[], &["run", "daily"]);
    assert_eq!(code, 0, "{report:#}");
    assert!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());
    let packs: u64 = files(&bench.region("a").join("packs")).iter().map(|p| p.metadata().unwrap().len()).sum();
    assert!(packs >= 2 * MIB, "{packs}");
    for (args, part) in [
        (["--limit-upload", "10MB"], "`10MB` is not a rate"),
        (["--limit-read", "1B/s"], "too little"),
        (["--compression", "best"], "possible values: none, fast, default, better, max"),
    ] {
        let (code, out) = bench.run(&[&["backup", "source"], &args[..]].concat());
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(code == 2 && said.contains(part), "{said}");
    }
}

#[test]
fn a_restore_and_a_check_take_as_long_as_their_limit_says() {
    let bench = Bench::with_key(&["a"]);
    std::fs::create_dir(bench.path("source")).unwrap();
    std::fs::write(bench.path("source/file"), noise(1, 2 * MIB as usize)).unwrap();
    stored(&bench, &[]);
    let restored = bench.ok(&["restore", "latest", "--target", "slow", "--limit-download", "1MiB/s"]);
    assert!(seconds(&restored) >= 2.0, "{restored:#}");
    let verified = bench.ok(&["verify", "--level", "content", "--limit-download", "1MiB/s"]);
    assert!(seconds(&verified) >= 2.0, "{verified:#}");
}
