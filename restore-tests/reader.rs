//! The second reader, written from docs/format.md alone, against repositories that the program made.

mod tree;
mod walk;

use crate::harness::{Bench, PASSPHRASE};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use walk::assert_same;

/// The reader's interpreter, with its packages.
pub fn python() -> Command {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = here.join(".tools/venv/bin/python");
    assert!(python.exists(), "{} is needed: scripts/test makes it", python.display());
    let mut command = Command::new(python);
    command.env("PYTHONPATH", here.join("restore-tests/reader"));
    command.env("PYTHONPYCACHEPREFIX", concat!(env!("CARGO_TARGET_TMPDIR"), "/pycache"));
    command
}

/// A bench, its region `a`, and a secret in a file.
struct Reader<'b> {
    bench: &'b Bench,
    option: &'static str,
    secret: PathBuf,
}

impl<'b> Reader<'b> {
    /// With the passphrase of every bench.
    fn new(bench: &'b Bench) -> Reader<'b> {
        let secret = bench.path("passphrase");
        std::fs::write(&secret, format!("{PASSPHRASE}\n")).unwrap();
        Reader { bench, option: "--passphrase-file", secret }
    }

    fn with(bench: &'b Bench, option: &'static str, secret: &str) -> Reader<'b> {
        Reader { bench, option, secret: bench.path(secret) }
    }

    fn run(&self, args: &[&str]) -> (i32, Output) {
        let mut command = python();
        command.args(["-m", "holdfast_reader", "--region"]).arg(self.bench.region("a"));
        let output = command.arg(self.option).arg(&self.secret).args(args).output().expect("Python runs");
        (output.status.code().unwrap_or(-1), output)
    }

    /// Expects exit code 0; gives standard output.
    fn ok(&self, args: &[&str]) -> String {
        let (code, output) = self.run(args);
        assert_eq!(code, 0, "{args:?}: {}", text(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    fn check(&self) -> Value {
        serde_json::from_str(&self.ok(&["--check"])).unwrap()
    }

    /// Ids of the visible snapshots, oldest first.
    fn list(&self) -> Vec<Value> {
        self.ok(&["--list"]).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Restores into the bench's directory `name`.
    fn restore(&self, snapshot: &str, name: &str) -> PathBuf {
        let target = self.bench.path(name);
        let out = self.ok(&["--snapshot", snapshot, "--restore", target.to_str().unwrap()]);
        let report: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(report["notes"], serde_json::json!([]));
        target
    }
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Each of these must have been counted at least once.
fn assert_counted(counts: &Value, wanted: &[&str]) {
    for name in wanted {
        assert!(counts[*name].as_u64().is_some_and(|n| n > 0), "no {name} in {counts:#}");
    }
}

#[test]
fn every_form_comes_out_of_the_second_reader() {
    let bench = Bench::new(&["a"]);
    let source = bench.path("source");
    tree::build(&source);
    bench.ok(&["backup", source.to_str().unwrap()]);
    let reader = Reader::new(&bench);
    let report = reader.check();
    assert_eq!(report["problems"], serde_json::json!([]));
    let codecs = ["chunk raw", "chunk zstd", "chunk bf16", "chunk f16", "chunk f32", "bundle raw", "bundle zstd"];
    assert_counted(&report["codecs"], &codecs);
    let kinds = ["data pack", "tree pack", "index segment", "manifest", "session", "epoch begin", "epoch end"];
    assert_counted(&report["objects"], &kinds);
    assert_counted(&report["objects"], &["region", "slot", "config"]);
    assert_counted(&report["forms"], &["inline", "chunk list", "chunk list out of line", "list page level 1", "hole"]);
    assert_counted(&report["forms"], &["linked", "type 0", "type 1", "type 2", "type 3", "type 4", "type 5", "type 6"]);
    assert_same(&source, &reader.restore("latest", "back"));
}
