//! Golden repositories: what an older version wrote is read by every later one, and by the second reader. Nothing below
//! `golden/` ever changes; a version of the format that is added gets a folder of its own (`scripts/golden`).

use crate::harness::{Bench, noise};
use crate::reader::python;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What was made by the program that added to the format last, and by the first one.
const VERSIONS: [&str; 2] = ["v1", "v1-planes"];
const SECRETS: [[&str; 2]; 3] =
    [["--key-file", "key"], ["--passphrase-file", "passphrase"], ["--recovery-key-file", "recovery-key"]];

/// A copy of a golden repository that may be written into.
struct Golden {
    bench: Bench,
    from: PathBuf,
    /// Digests of what is in each snapshot.
    expected: BTreeMap<String, String>,
}

impl Golden {
    fn version(name: &str) -> Golden {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("restore-tests/golden").join(name);
        let bench = Bench::in_memory(&["a"]);
        let done = Command::new("tar").arg("-xf").arg(from.join("region.tar")).current_dir(bench.dir.path()).status();
        assert!(done.unwrap().success(), "no region in {}", from.display());
        std::fs::rename(bench.path("region"), bench.region("a")).unwrap();
        let expected = serde_json::from_slice(&std::fs::read(from.join("expected.json")).unwrap()).unwrap();
        Golden { bench, from, expected }
    }

    fn secret(&self, [option, file]: [&str; 2]) -> [String; 2] {
        // A key is asked to be nobody else's, which a checkout does not keep.
        let copy = self.bench.path(file);
        std::fs::copy(self.from.join(file), &copy).unwrap();
        std::fs::set_permissions(&copy, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        [option.to_owned(), copy.display().to_string()]
    }

    fn ok(&self, secret: &[String; 2], args: &[&str]) -> Value {
        let secret = [secret[0].as_str(), secret[1].as_str()];
        self.bench.ok(&[&["--copies-min", "1"][..], &secret, args].concat())
    }

    /// What the second reader says.
    fn read(&self, args: &[&str]) -> String {
        let [option, key] = self.secret(SECRETS[0]);
        let mut command = python();
        command.args(["-m", "holdfast_reader", "--region"]).arg(self.bench.region("a")).arg(&option).arg(&key);
        let output = command.args(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// How chunks are encoded, by the second reader.
    fn codecs(&self) -> Value {
        serde_json::from_str::<Value>(&self.read(&["--check"])).unwrap()["codecs"].clone()
    }

    /// Every snapshot but one restores, and all content is whole.
    fn all_is_as_it_was(&self, key: &[String; 2], but: Option<&str>) {
        for id in self.expected.keys().filter(|id| but != Some(id.as_str())) {
            let target = self.bench.path(id);
            self.ok(key, &["restore", id, "--target", target.to_str().unwrap()]);
            self.is_expected(id, &target);
            std::fs::remove_dir_all(&target).unwrap();
        }
        let verified = self.ok(key, &["verify", "--level", "content"]);
        assert_eq!(
            (&verified["findings"], &verified["broken"], &verified["lost"]),
            (&json!([]), &json!([]), &json!([]))
        );
    }

    fn is_expected(&self, snapshot: &str, restored: &Path) {
        let lines = listing(restored);
        let digest = blake3::hash(lines.as_bytes()).to_hex();
        if self.expected[snapshot] != digest.as_str() {
            let newest = std::fs::read_to_string(self.from.join("newest")).unwrap();
            let other: Vec<&str> = lines.lines().filter(|line| !newest.lines().any(|n| n == *line)).take(9).collect();
            panic!("{snapshot} is not what it was; of its lines the newest snapshot lacks {other:#?}");
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A line for each entry, as `scripts/golden` writes it.
fn listing(root: &Path) -> String {
    let (mut lines, mut stack) = (Vec::new(), vec![root.to_owned()]);
    while let Some(dir) = stack.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let meta = std::fs::symlink_metadata(&path).unwrap();
            let kind = meta.file_type();
            let (what, rest) = if kind.is_dir() {
                stack.push(path.clone());
                ("directory", "-".to_owned())
            } else if kind.is_symlink() {
                ("link", hex(std::fs::read_link(&path).unwrap().as_os_str().as_bytes()))
            } else if kind.is_fifo() {
                ("fifo", "-".to_owned())
            } else {
                ("file", format!("{} {}", meta.len(), blake3::hash(&std::fs::read(&path).unwrap()).to_hex()))
            };
            let below = hex(path.strip_prefix(root).unwrap().as_os_str().as_bytes());
            let time = i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec());
            lines.push(format!("{below} {what} {:o} {time} {rest}\n", meta.mode() & 0o7777));
        }
    }
    lines.sort();
    lines.concat()
}

#[test]
fn what_was_written_is_restored_by_every_secret() {
    VERSIONS.map(Golden::version).iter().for_each(is_restored_by_every_secret);
}

fn is_restored_by_every_secret(golden: &Golden) {
    let mut listed = Value::Null;
    for secret in SECRETS.map(|secret| golden.secret(secret)) {
        listed = golden.ok(&secret, &["snapshots"]);
    }
    let stream = std::fs::read_to_string(golden.from.join("stream")).unwrap();
    let ids: Vec<&str> = listed["snapshots"].as_array().unwrap().iter().map(|s| s["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), golden.expected.len() + 1, "{ids:?}");
    assert!(ids.contains(&stream.trim()) && golden.expected.keys().all(|id| ids.contains(&id.as_str())));
    let key = golden.secret(SECRETS[0]);
    golden.all_is_as_it_was(&key, None);
}

#[test]
fn what_was_written_is_gone_on_with() {
    for (version, planes) in VERSIONS.into_iter().zip([false, true]) {
        is_gone_on_with(&Golden::version(version), planes);
    }
}

fn is_gone_on_with(golden: &Golden, planes: bool) {
    let key = golden.secret(SECRETS[0]);
    let newest = golden.expected.keys().map(String::as_str);
    let listed = golden.ok(&key, &["snapshots", "--name", "tree"]);
    let last = listed["snapshots"].as_array().unwrap().iter().max_by_key(|s| s["start_ms"].as_i64());
    let last = last.unwrap()["id"].as_str().unwrap().to_owned();
    assert!(newest.clone().any(|id| id == last));
    let source = golden.bench.path("source");
    golden.ok(&key, &["restore", &last, "--target", source.to_str().unwrap()]);
    // What it stored is found again, chunk by chunk: only trees are new, whose files have other times of change.
    let made = golden.ok(&key, &["backup", "--name", "tree", "--full", source.to_str().unwrap()]);
    let [new, read] = ["bytes_new", "bytes_read"].map(|name| made[name].as_u64().unwrap());
    assert!(new < read / 4, "{made:#}");
    std::fs::write(source.join("new"), noise(1, 40_000)).unwrap();
    // Numbers of 16 bits of which three are nothing: how they are stored depends on who may read the repository.
    let few = noise(2, 400_000).into_iter().enumerate().map(|(n, byte)| byte & [0xf8, 0x87][n % 2]);
    std::fs::write(source.join("few"), few.collect::<Vec<u8>>()).unwrap();
    let before = golden.codecs()["chunk planes"].as_u64().unwrap_or(0);
    golden.ok(&key, &["backup", "--name", "tree", source.to_str().unwrap()]);
    let after = golden.codecs()["chunk planes"].as_u64().unwrap_or(0);
    assert_eq!((before > 0, after > before), (planes, planes), "{before}, then {after}");
    golden.ok(&key, &["forget", &last]);
    let at_once = ["--dead-after", "0s", "--wait", "0s", "--grace", "0s"];
    golden.ok(&key, &[&["prune", "--repack-above", "1"], &at_once[..]].concat());
    golden.ok(&key, &[&["prune"], &at_once[..]].concat());
    golden.all_is_as_it_was(&key, Some(&last));
    // A prune that writes packs anew is a writer like any other.
    assert_eq!(golden.codecs()["chunk planes"].as_u64().unwrap_or(0) > 0, planes);
}

#[test]
fn the_second_reader_reads_what_was_written() {
    for (version, planes) in VERSIONS.into_iter().zip([None, Some("chunk planes")]) {
        is_read_by_the_second_reader(&Golden::version(version), planes);
    }
}

fn is_read_by_the_second_reader(golden: &Golden, planes: Option<&str>) {
    let report: Value = serde_json::from_str(&golden.read(&["--check"])).unwrap();
    assert_eq!(report["problems"], json!([]));
    let counted = |group: &str, names: &[&str]| {
        for name in names {
            assert!(report[group][*name].as_u64().is_some_and(|n| n > 0), "no {name} in {:#}", report[group]);
        }
    };
    counted(
        "codecs",
        &["chunk raw", "chunk zstd", "chunk bf16", "chunk f16", "chunk f32", "bundle raw", "bundle zstd"],
    );
    counted("codecs", planes.as_slice());
    counted(
        "objects",
        &["region", "slot", "config", "data pack", "tree pack", "index segment", "manifest", "session", "forgotten"],
    );
    counted(
        "objects",
        &["epoch begin", "epoch end", "tombstone", "repack record", "hold", "hold release", "run", "change of tags"],
    );
    let newest = std::fs::read_to_string(golden.from.join("newest")).unwrap();
    let newest = blake3::hash(newest.as_bytes()).to_hex();
    let first = golden.expected.keys().next().unwrap().as_str();
    let last = golden.expected.iter().find(|(_, digest)| digest.as_str() == newest.as_str()).unwrap().0;
    for id in [first, last] {
        let target = golden.bench.path(&format!("read-{id}"));
        golden.read(&["--snapshot", id, "--restore", target.to_str().unwrap()]);
        golden.is_expected(id, &target);
    }
}
