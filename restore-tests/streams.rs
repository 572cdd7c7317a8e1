//! Backups of streams, of what commands print, and of lists of paths.

use crate::harness::{Bench, noise, small_tree};
use std::fs;
use std::io::Write;
use std::process::{Command, Output, Stdio};

/// Runs with these bytes as standard input.
fn fed(bench: &Bench, args: &[&str], bytes: &[u8]) -> Output {
    let mut command = bench.command(&[&["--json", "--quiet"], args].concat());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A program that refuses reads nothing.
    let _ = child.stdin.take().unwrap().write_all(bytes);
    child.wait_with_output().unwrap()
}

fn ok(output: &Output) -> serde_json::Value {
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(text.lines().last().unwrap()).unwrap()
}

#[test]
fn a_stream_comes_back_byte_for_byte_and_shares_what_it_has() {
    let bench = Bench::with_key(&["a", "b"]);
    // Longer than all that may wait: empty, in its entry, one chunk, many.
    for (n, len) in [0, 1, 512, 513, 200_000, 40 << 20].into_iter().enumerate() {
        let bytes = noise(n as u64, len);
        let report = ok(&fed(&bench, &["backup", "--stdin", "--stdin-filename", "/dumps/db.sql"], &bytes));
        assert_eq!((report["bytes"].as_u64(), report["files"].as_u64()), (Some(len as u64), Some(1)));
        assert!(report["source"].as_str().unwrap().ends_with(":dumps/db.sql"), "{report:#}");
        let back = bench.run(&["--quiet", "cat", "latest:/dumps/db.sql"]).1;
        assert!(back.stdout == bytes, "{len}");
    }
    // A few bytes in front: what follows is known.
    let long = [b"some bytes more".to_vec(), noise(5, 40 << 20)].concat();
    let again = ok(&fed(&bench, &["backup", "--stdin", "--stdin-filename", "dumps/db.sql"], &long));
    assert!(again["bytes_new"].as_u64() < Some(8 << 20), "{again:#}");
    assert_eq!(again["parent"].as_str().map(str::len), Some(32));
    bench.ok(&["verify", "--level", "content"]);
    bench.ok(&["restore", "latest", "--target", "back"]);
    assert!(fs::read(bench.path("back/dumps/db.sql")).unwrap() == long);
    // The same bytes in a directory share its chunks: a stream is cut as a file is.
    fs::create_dir(bench.path("source")).unwrap();
    fs::write(bench.path("source/file"), &long).unwrap();
    assert_eq!(bench.ok(&["backup", "source"])["chunks_new"].as_u64(), Some(1), "the directory's page");
}

#[test]
fn a_command_that_fails_makes_no_snapshot() {
    let bench = Bench::with_key(&["a"]);
    let script = "echo \"$HOLDFAST_PASSPHRASE\"; head -c 3000000 /dev/zero";
    let stored = ["backup", "--name", "db", "--stdin-filename", "dump", "--stdin-from-command", "--"];
    bench.ok(&[&stored[..], &["sh", "-c", script]].concat());
    let back = bench.run(&["--quiet", "cat", "latest:/dump"]).1.stdout;
    assert_eq!((back.len(), back[0]), (3_000_001, b'\n'), "the command knows no passphrase");
    let (code, report) = bench.json(&[&stored[..], &["sh", "-c", "head -c 9000000 /dev/urandom; exit 7"]].concat());
    assert_eq!(code, 1, "{report:#}");
    assert!(report["error"]["what"].as_str().unwrap().contains("exit code 7"), "{report:#}");
    assert_eq!(bench.ok(&["snapshots"])["snapshots"].as_array().unwrap().len(), 1);
    assert_eq!(bench.ok(&["runs", "--failed"])["runs"].as_array().unwrap().len(), 1);
    assert_eq!(bench.json(&[&stored[..], &["no-such-program"]].concat()).0, 2);
    // Nothing was lost: what is there verifies, and the next one works.
    bench.ok(&["verify", "--level", "content"]);
    bench.ok(&[&stored[..], &["echo", "--", "-n"]].concat());
    assert_eq!(bench.run(&["--quiet", "cat", "latest:/dump"]).1.stdout, b"-- -n\n");
    let wrong: [&[&str]; 6] = [
        &["backup", "--stdin", "source"],
        &["backup", "--stdin", "--exclude", "x"],
        &["backup", "--stdin", "--stdin-filename", "../x"],
        &["backup", "--stdin", "--stdin-filename", "x/"],
        &["backup", "--stdin-from-command"],
        &["backup"],
    ];
    wrong.iter().for_each(|args| assert_eq!(bench.json(args).0, 2, "{args:?}"));
}

#[test]
fn a_stream_that_is_silent_can_be_interrupted() {
    let bench = Bench::with_key(&["a"]);
    let args = ["backup", "--stdin-from-command", "--", "sh", "-c", "echo begun >&2; exec sleep 1000"];
    let mut child = bench.command(&args).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stderr.take().unwrap()));
    assert_eq!(lines.next().unwrap().unwrap(), "begun");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    // What it ran ends with it: the pipe is closed.
    assert!(lines.all(|line| line.is_ok()));
    assert!(bench.ok(&["snapshots"])["snapshots"].as_array().unwrap().is_empty());
}

#[test]
fn lists_name_what_is_backed_up() {
    let bench = Bench::with_key(&["a"]);
    small_tree(&bench.path("source"));
    let odd = "source/odd # name\n of two lines";
    fs::write(bench.path(odd), b"odd").unwrap();
    fs::write(bench.path("list"), "# a remark\nsource/tiny\n\nsource/docs/deep\n").unwrap();
    let raw = format!("{odd}\0source/whole\0");
    let args = ["backup", "--name", "list", "--files-from", "list", "--files-from-raw", "-", "source/empty"];
    let report = ok(&fed(&bench, &args, raw.as_bytes()));
    assert_eq!(report["files"].as_u64(), Some(5), "{report:#}");
    bench.ok(&["restore", "latest", "--target", "back"]);
    let back = bench.path("back").join(bench.dir.path().strip_prefix("/").unwrap()).join("source");
    for name in ["tiny", "empty", "whole", "docs/deep/text", &odd["source/".len()..]] {
        assert!(fs::read(back.join(name)).unwrap() == fs::read(bench.path("source").join(name)).unwrap(), "{name}");
    }
    assert!(!back.join("cut").exists());
    let same = Command::new("diff").arg("-r").arg(bench.path("source/docs/deep")).arg(back.join("docs/deep")).status();
    assert!(same.unwrap().success());
    fs::write(bench.path("nothing"), "# nothing\n\n").unwrap();
    let wrong: [&[&str]; 3] = [
        &["backup", "--files-from", "list"],
        &["backup", "--name", "x", "--files-from", "nothing"],
        &["backup", "--name", "x", "--files-from", "missing"],
    ];
    wrong.iter().for_each(|args| assert_eq!(bench.json(args).0, 2, "{args:?}"));
}
