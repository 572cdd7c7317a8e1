//! The second reader, written from docs/format.md alone, against repositories that the program made.

pub mod tree;
pub mod walk;

use crate::harness::{Bench, PASSPHRASE, noise, opened, small_tree};
use holdfast::base::{ConfigNo, HoldId, PackName, SessionId, TimeMs};
use holdfast::crypto::Secret;
use holdfast::format::config::{Features, Next};
use holdfast::format::envelope::Kind;
use holdfast::format::objects::{Forgotten, Hold, HoldRelease, Moved, Repack, Tombstone};
use holdfast::format::ring::role;
use holdfast::repo::Repo;
use holdfast::store::Key;
use rustix::fs::{AtFlags, Mode, OFlags, linkat, mkdirat, openat};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
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
    /// With the recovery key of `with_recovery_key`: unlike a passphrase it takes no time.
    fn new(bench: &'b Bench) -> Reader<'b> {
        Reader::with(bench, "--recovery-key-file", "recovery")
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
        assert_eq!(report["notes"], json!([]));
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
    let bench = with_recovery_key();
    let source = bench.path("source");
    tree::build(&source);
    bench.ok(&["backup", source.to_str().unwrap()]);
    let reader = Reader::new(&bench);
    let report = reader.check();
    assert_eq!(report["problems"], json!([]));
    let codecs = ["chunk raw", "chunk zstd", "chunk bf16", "chunk f16", "chunk f32", "bundle raw", "bundle zstd"];
    assert_counted(&report["codecs"], &codecs);
    let kinds = ["data pack", "tree pack", "index segment", "manifest", "session", "epoch begin", "epoch end"];
    assert_counted(&report["objects"], &kinds);
    assert_counted(&report["objects"], &["region", "slot", "config"]);
    assert_counted(&report["forms"], &["inline", "chunk list", "chunk list out of line", "list page level 1", "hole"]);
    assert_counted(&report["forms"], &["linked", "type 0", "type 1", "type 2", "type 3", "type 4", "type 5", "type 6"]);
    assert_same(&source, &reader.restore("latest", "back"));
}

/// A bench with a repository in one region, and its recovery key in a file.
fn with_recovery_key() -> Bench {
    let bench = Bench::empty(&["a"]);
    bench.ok(&["init", "--recovery-key-out", "recovery"]);
    bench
}

/// A bench with one snapshot of a small tree; its id.
fn backed_up(bench: &Bench) -> String {
    small_tree(&bench.path("source"));
    backup(bench, &[])
}

/// Backs up the bench's `source`; the snapshot's id.
fn backup(bench: &Bench, options: &[&str]) -> String {
    let source = bench.path("source").display().to_string();
    let report = bench.ok(&[&["backup", &source], options].concat());
    report["snapshot"].as_str().unwrap().to_owned()
}

#[test]
fn a_wide_directory_has_pages_above_pages() {
    let bench = with_recovery_key();
    let source = bench.path("source");
    std::fs::create_dir(&source).unwrap();
    for n in 0..8000 {
        std::fs::write(source.join(format!("entry-{n}")), if n % 100 == 0 { "some" } else { "" }).unwrap();
    }
    bench.ok(&["backup", source.to_str().unwrap()]);
    let reader = Reader::new(&bench);
    let report = reader.check();
    assert_eq!(report["problems"], json!([]));
    assert!(report["forms"]["tree page level 0"].as_u64() > Some(5), "{report:#}");
    assert_counted(&report["forms"], &["tree page level 1"]);
    assert_same(&source, &reader.restore("latest", "back"));
}

/// On a memory file system, because few others take attributes of this size.
#[test]
fn large_attributes_come_from_chunks_of_their_own() {
    let bench = with_recovery_key();
    let memory = tempfile::TempDir::new_in("/dev/shm").expect("a memory file system at /dev/shm");
    let source = memory.path().join("source");
    std::fs::create_dir_all(source.join("directory")).unwrap();
    std::fs::write(source.join("file"), "content").unwrap();
    for n in 0..5 {
        tree::set_xattr(&source.join("file"), &format!("trusted.large-{n}"), &noise(n, 30_000));
        tree::set_xattr(&source.join("directory"), &format!("trusted.some-{n}"), &noise(n, 2000));
    }
    bench.ok(&["backup", source.to_str().unwrap()]);
    let reader = Reader::new(&bench);
    assert_counted(&reader.check()["forms"], &["attributes out of line"]);
    let target = memory.path().join("back");
    reader.ok(&["--restore", target.to_str().unwrap()]);
    assert_same(&source, &target);
}

#[test]
fn several_sources_lie_under_a_root_made_up() {
    let bench = with_recovery_key();
    small_tree(&bench.path("here/one"));
    small_tree(&bench.path("there/two"));
    std::fs::write(bench.path("here/file"), "by itself").unwrap();
    let paths: Vec<String> = ["here/one", "there/two", "here/file"].map(|p| bench.path(p).display().to_string()).into();
    bench.ok(&["backup", &paths[0], &paths[1], &paths[2]]);
    let back = Reader::new(&bench).restore("latest", "back");
    for path in paths {
        let path = Path::new(&path);
        if path.is_dir() {
            assert_same(path, &back.join(path.strip_prefix("/").unwrap()));
        }
    }
    bench.ok(&["restore", "latest", "--target", bench.path("own").to_str().unwrap()]);
    assert_same(&bench.path("own"), &back);
}

#[test]
fn later_snapshots_and_other_generations_are_read_alike() {
    let bench = with_recovery_key();
    let source = bench.path("source");
    let first = backed_up(&bench);
    let before = bench.path("before");
    let copied = Command::new("cp").arg("-a").arg(&source).arg(&before).status().expect("cp runs");
    assert!(copied.success());
    std::fs::remove_file(source.join("docs/note-1")).unwrap();
    std::fs::write(source.join("docs/new"), noise(900, 3000)).unwrap();
    std::fs::File::options().write(true).open(source.join("cut")).unwrap().write_all_at(b"changed", 2_000_000).unwrap();
    let second = backup(&bench, &["--tag", "t"]);
    let third = backup(&bench, &["--mode", "independent"]);
    let reader = Reader::new(&bench);
    let seen: Vec<Value> = reader.list().iter().map(|s| json!([s["id"], s["mode"], s["generation"]])).collect();
    assert_eq!(seen, [json!([first, 0, 1]), json!([second, 0, 1]), json!([third, 2, 2])]);
    assert_eq!(reader.check()["problems"], json!([]));
    assert_same(&before, &reader.restore(&first[..8], "back-1"));
    assert_same(&source, &reader.restore(&second, "back-2"));
    assert_same(&source, &reader.restore("latest", "back-3"));
}

#[test]
fn every_kind_of_secret_opens_until_it_is_removed() {
    let bench = with_recovery_key();
    std::fs::write(bench.path("passphrase"), format!("{PASSPHRASE}\n")).unwrap();
    let first = Reader::with(&bench, "--passphrase-file", "passphrase");
    backed_up(&bench);
    std::fs::write(bench.path("other"), "another-passphrase-that-nobody-guesses-7755\n").unwrap();
    bench.ok(&["key", "add", "--new-key-file", "key"]);
    bench.ok(&["key", "add", "--new-passphrase-file", "other"]);
    let readers = [
        Reader::with(&bench, "--key-file", "key"),
        Reader::with(&bench, "--passphrase-file", "other"),
        Reader::with(&bench, "--recovery-key-file", "recovery"),
    ];
    let tested = bench.ok(&["key", "test"]);
    let own = tested["slot"]["id"].as_str().unwrap_or_else(|| panic!("no slot in {tested:#}")).to_owned();
    bench.ok(&["key", "remove", &own, "--key-file", bench.path("key").to_str().unwrap()]);
    let source = bench.path("source");
    std::fs::write(source.join("after"), noise(5, 50_000)).unwrap();
    bench.ok(&["backup", source.to_str().unwrap(), "--key-file", bench.path("key").to_str().unwrap()]);

    let (code, output) = first.run(&["--list"]);
    assert_eq!((code, text(&output).contains("removed")), (12, true), "{}", text(&output));
    let report = readers[0].check();
    assert_eq!((&report["problems"], &report["config"], &report["visible"]), (&json!([]), &json!(4), &json!(2)));
    for (n, reader) in readers.iter().enumerate() {
        assert_same(&source, &reader.restore("latest", &format!("back-{n}")));
    }
    // The same secret once more: its old slot is dead, its new one opens.
    let (secret, key) = (bench.path("passphrase"), bench.path("key"));
    let again = ["key", "add", "--new-passphrase-file", secret.to_str().unwrap(), "--key-file", key.to_str().unwrap()];
    bench.ok(&again);
    let (code, output) = first.run(&["--list"]);
    assert_eq!(code, 0, "{}", text(&output));
}

#[test]
fn wrong_secrets_are_refused() {
    let bench = with_recovery_key();
    let mut typo = std::fs::read_to_string(bench.path("recovery")).unwrap().trim().to_owned();
    let last = if typo.pop() == Some('Q') { 'P' } else { 'Q' };
    typo.push(last);
    std::fs::write(bench.path("typo"), typo).unwrap();
    std::fs::write(bench.path("wrong"), "not the passphrase").unwrap();
    std::fs::write(bench.path("key"), [7; 32]).unwrap();
    std::fs::write(bench.path("short"), [7; 31]).unwrap();
    let wrong = [
        ("--passphrase-file", "wrong"),
        ("--key-file", "key"),
        ("--key-file", "short"),
        ("--recovery-key-file", "typo"),
    ];
    for (option, file) in wrong {
        let (code, output) = Reader::with(&bench, option, file).run(&["--list"]);
        assert_eq!(code, 12, "{file}: {}", text(&output));
    }
}

#[test]
fn what_was_forgotten_is_refused() {
    let bench = with_recovery_key();
    let first = backed_up(&bench);
    let second = backup(&bench, &["--full"]);
    bench.ok(&["forget", &first]);
    let reader = Reader::new(&bench);
    assert_eq!(reader.list().iter().map(|s| s["id"].clone()).collect::<Vec<_>>(), [json!(second)]);
    let report = reader.check();
    assert_eq!((&report["objects"]["forgotten"], &report["visible"]), (&json!(1), &json!(1)));
    let target = bench.path("back").display().to_string();
    let (code, output) = reader.run(&["--snapshot", &first, "--restore", &target]);
    assert_eq!(code, 1, "{}", text(&output));
    assert!(!bench.path("back").exists());
}

/// Puts a signed object that the program does not write by itself yet.
fn put<T: minicbor::Encode<()>>(bench: &Bench, repo: &Repo, kind: Kind, key: &Key, value: &T) {
    let path = bench.region("a").join(key.path());
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, repo.seal(kind, &key.canonical(), value).unwrap()).unwrap();
}

#[test]
fn the_rarer_kinds_are_understood() {
    let bench = with_recovery_key();
    backed_up(&bench);
    let repo = opened(&bench);
    let (fresh, created, reason) = (repo.fresh(), -1, String::from("to see it read"));
    let (dead, moved, hold) = (SessionId([1; 16]), SessionId([2; 16]), HoldId([3; 16]));
    let tombstone = Tombstone { fresh, sid: dead, created, reason: reason.clone() };
    put(&bench, &repo, Kind::Tombstone, &Key::Snapshot(dead), &tombstone);
    let old = PackName([4; 32]);
    let repack = Repack { fresh, sid: moved, created, moved: vec![Moved { old, new: vec![PackName([5; 32])] }] };
    put(&bench, &repo, Kind::Repack, &Key::Snapshot(moved), &repack);
    put(&bench, &repo, Kind::Hold, &Key::Hold(hold), &Hold { fresh, hold, sid: dead, created, reason, until: Some(1) });
    put(&bench, &repo, Kind::HoldRelease, &Key::HoldRelease(hold), &HoldRelease { fresh, hold, created });
    bench.ok(&["tag", "latest", "--add", "x", "--add", "y"]);
    bench.ok(&["tag", "latest", "--remove", "x"]);
    let report = Reader::new(&bench).check();
    assert_eq!(report["problems"], json!([]));
    assert_counted(
        &report["objects"],
        &["tombstone", "repack record", "hold", "hold release", "manifest", "change of tags"],
    );
    assert_eq!(report["visible"], 1);
}

fn marker(repo: &Repo, sid: &str) -> (Key, Forgotten) {
    let sid = SessionId::parse(sid).unwrap();
    let manifest = holdfast::base::Digest([0; 32]);
    (
        Key::Forgotten(sid),
        Forgotten { fresh: repo.fresh(), sid, manifest, created: 1, reason: String::new(), last: None },
    )
}

/// Reports what is wrong, and goes on listing the snapshot.
fn assert_junk(bench: &Bench, why: &str) {
    let reader = Reader::new(bench);
    assert_eq!(reader.list().len(), 1);
    let (code, output) = reader.run(&["--check"]);
    assert!(code == 1 && text(&output).contains(why), "{code}: {}", text(&output));
}

#[test]
fn an_object_of_another_kind_or_for_another_key_is_junk() {
    let bench = with_recovery_key();
    let sid = backed_up(&bench);
    let repo = opened(&bench);
    let (key, value) = marker(&repo, &sid);
    put(&bench, &repo, Kind::Hold, &key, &value);
    assert_junk(&bench, "kind 9");
    let bytes = std::fs::read(bench.region("a").join(key.path())).unwrap();
    assert!(repo.open_object(&key, &bytes).is_err());
    assert_eq!(bench.ok(&["snapshots"])["snapshots"].as_array().map(Vec::len), Some(1));

    let other = Key::Forgotten(SessionId([9; 16]));
    put(&bench, &repo, Kind::Forgotten, &other, &value);
    std::fs::rename(bench.region("a").join(other.path()), bench.region("a").join(key.path())).unwrap();
    assert_junk(&bench, "the signature does not fit");
}

/// Writes the configuration that follows, with another keyring.
fn next_config(bench: &Bench, repo: &Repo, change: impl FnOnce(&mut holdfast::format::ring::Keyring)) {
    let mut ring = repo.ring().clone();
    change(&mut ring);
    let (number, previous) = repo.config();
    let number = ConfigNo(number.0 + 1);
    let randomness = (0..ring.slots.len()).map(|_| Secret::from_bytes([8; 64])).collect();
    let g = Secret::from_bytes([7; 32]);
    let owner = repo.ring().owner();
    let features = Features::ours();
    let next = Next {
        repo: repo.id,
        number,
        previous,
        owner: &owner,
        features,
        ring: &ring,
        g,
        randomness,
        created: TimeMs(5),
    };
    let path = bench.region("a").join(Key::Config(number, 0).path());
    std::fs::write(path, next.to_object().unwrap()).unwrap();
}

#[test]
fn a_writer_without_the_role_is_not_believed() {
    let bench = with_recovery_key();
    let sid = backed_up(&bench);
    let repo = opened(&bench);
    let (key, value) = marker(&repo, &sid);
    put(&bench, &repo, Kind::Forgotten, &key, &value);
    assert_eq!(Reader::new(&bench).list().len(), 0);
    next_config(&bench, &repo, |ring| ring.writers[0].roles &= !role::FORGET);
    assert_junk(&bench, "has not the role");
}

#[test]
fn junk_in_the_chain_of_configurations_is_passed_over() {
    let bench = with_recovery_key();
    backed_up(&bench);
    let junk = bench.region("a").join("config/00000002");
    std::fs::write(&junk, b"junk").unwrap();
    assert_eq!(Reader::new(&bench).list().len(), 1);
    bench.ok(&["key", "add", "--new-key-file", "key"]);
    let reader = Reader::with(&bench, "--key-file", "key");
    assert_eq!(reader.list().len(), 1);
    std::fs::remove_file(junk).unwrap();
    std::fs::write(bench.region("a").join("config/00000002"), std::fs::read(first(&bench, "config/")).unwrap())
        .unwrap();
    assert_eq!(reader.list().len(), 1);
}

#[test]
fn a_configuration_that_was_taken_away_is_missed() {
    let bench = with_recovery_key();
    bench.ok(&["key", "add", "--new-key-file", "key"]);
    backed_up(&bench);
    assert_eq!(Reader::new(&bench).list().len(), 1);
    std::fs::remove_file(bench.region("a").join("config/00000002")).unwrap();
    let reader = Reader::new(&bench);
    assert_eq!(reader.list().len(), 0);
    let (code, output) = reader.run(&["--check"]);
    assert!(code == 1 && text(&output).contains("knows config 2, the last one here is 1"), "{}", text(&output));
    let (code, output) = Reader::with(&bench, "--key-file", "key").run(&["--list"]);
    assert!(code == 1 && text(&output).contains("config/00000002: not there"), "{code}: {}", text(&output));
}

/// The first object, in order, whose key begins so.
fn first(bench: &Bench, prefix: &str) -> PathBuf {
    let all = bench.objects("a");
    bench.region("a").join(all.iter().find(|key| key.starts_with(prefix)).unwrap_or_else(|| panic!("no {prefix}")))
}

/// What an adversary would do who knows no key: the checksum fits again.
fn sum_up(bytes: &mut [u8]) {
    let (body, sum) = bytes.split_at_mut(bytes.len() - 32);
    sum.copy_from_slice(blake3::hash(body).as_bytes());
}

/// Flips a bit of the byte at these hundredths of an object. `summed`: makes its checksum fit again.
fn flip(path: &Path, hundredths: usize, summed: bool) {
    let mut bytes = std::fs::read(path).unwrap();
    let at = (bytes.len() - 1) * hundredths / 100;
    bytes[at] ^= 1;
    if summed && at < bytes.len() - 32 {
        sum_up(&mut bytes);
    }
    std::fs::write(path, bytes).unwrap();
}

/// A byte of each object at a time, so that one check can name them all.
#[test]
fn a_flipped_byte_is_noticed_in_every_kind_of_object() {
    let bench = with_recovery_key();
    let sid = backed_up(&bench);
    backup(&bench, &["--full"]);
    bench.ok(&["forget", &sid]);
    let reader = Reader::new(&bench);
    assert_eq!(reader.check()["problems"], json!([]));
    let sealed = ["packs/", "index/", "snapshots/", "sessions/", "forgotten/", "epochs/"];
    let all = bench.objects("a");
    let victims: Vec<&String> = all.iter().filter(|key| sealed.iter().any(|p| key.starts_with(p))).collect();
    assert!(victims.len() >= 10 && sealed.iter().all(|p| victims.iter().any(|key| key.starts_with(p))), "{victims:?}");
    let path = |key: &str| bench.region("a").join(key);
    let good: Vec<Vec<u8>> = victims.iter().map(|key| std::fs::read(path(key)).unwrap()).collect();
    for hundredths in [0, 1, 2, 50, 100] {
        for key in &victims {
            // Names that are hashes cannot be made to fit.
            flip(&path(key), hundredths, !key.starts_with("packs/") && !key.starts_with("index/"));
        }
        let (code, output) = reader.run(&["--check"]);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", text(&output)));
        let problems = report["problems"].to_string();
        let unnamed: Vec<_> = victims.iter().filter(|key| !problems.contains(key.as_str())).collect();
        assert!(code == 1 && unnamed.is_empty(), "{hundredths}: {code}, not noticed: {unnamed:?} in {report:#}");
        victims.iter().zip(&good).for_each(|(key, bytes)| std::fs::write(path(key), bytes).unwrap());
    }
    assert_eq!(reader.check()["problems"], json!([]));
}

/// A mark has nothing but its checksum, and so has a slot for everybody who has another secret.
#[test]
fn a_flipped_byte_of_what_opens_the_repository_is_noticed() {
    let bench = with_recovery_key();
    let reader = Reader::new(&bench);
    for (prefix, summed) in [("region", false), ("keys/", false), ("config/", false), ("config/", true)] {
        let path = first(&bench, prefix);
        let good = std::fs::read(&path).unwrap();
        for hundredths in [0, 50, 100] {
            flip(&path, hundredths, summed);
            let (code, output) = reader.run(&["--check"]);
            let said = text(&output);
            assert!((code == 1 || code == 12) && !said.contains("Traceback"), "{prefix}, {hundredths}: {code} {said}");
            std::fs::write(&path, &good).unwrap();
        }
    }
    reader.check();
}

/// Opens a directory in another, made first if `make` says so. Paths would be too long.
fn step(dir: &impl std::os::fd::AsFd, name: &str, make: bool) -> std::os::fd::OwnedFd {
    if make {
        mkdirat(dir, name, Mode::from_raw_mode(0o755)).unwrap();
    }
    openat(dir, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW, Mode::empty()).unwrap()
}

#[test]
fn what_lies_deeper_than_a_path_is_long_comes_back() {
    let bench = with_recovery_key();
    let (source, levels, name) = (bench.path("source"), 60, "n".repeat(100));
    std::fs::create_dir(&source).unwrap();
    let mut dir = std::fs::File::open(&source).unwrap().into();
    for _ in 0..levels {
        dir = step(&dir, &name, true);
    }
    let flags = OFlags::WRONLY | OFlags::CREATE;
    std::fs::File::from(openat(&dir, "b", flags, Mode::from_raw_mode(0o600)).unwrap()).write_all(b"deep").unwrap();
    linkat(&dir, "b", &dir, "a", AtFlags::empty()).unwrap();
    bench.ok(&["backup", source.to_str().unwrap()]);

    let back = Reader::new(&bench).restore("latest", "back");
    let mut dir = std::fs::File::open(back).unwrap().into();
    for _ in 0..levels {
        dir = step(&dir, &name, false);
    }
    let [a, b] = ["a", "b"].map(|name| openat(&dir, name, OFlags::RDONLY, Mode::empty()).unwrap());
    let inode = |fd| rustix::fs::fstat(fd).unwrap().st_ino;
    assert_eq!(inode(&a), inode(&b));
    let mut content = String::new();
    std::fs::File::from(a).read_to_string(&mut content).unwrap();
    assert_eq!(content, "deep");
}
