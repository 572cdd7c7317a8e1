//! Repositories that have at least two of every kind of object, and quick copies of them.

use crate::harness::{Bench, PASSPHRASE, files, noise, small_tree};
use crate::inside::Inside;
use holdfast::base::{Epoch, Generation, HoldId, SessionId, SlotId};
use holdfast::crypto::Secret;
use holdfast::format::envelope::Kind as ObjectKind;
use holdfast::format::objects::{EpochBegin, EpochEnd, Hold};
use holdfast::format::signed::check_sum;
use holdfast::repo::SMALL_OBJECT_BYTES_MAX;
use holdfast::repo::index::{Index, open_segment};
use holdfast::repo::init::NewSecret;
use holdfast::repo::keys;
use holdfast::repo::session::{Errand, Session};
use holdfast::store::Key;
use holdfast::unlock::Unlock;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// Kinds of objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Region,
    Slot,
    Config,
    Data,
    Tree,
    Index,
    Manifest,
    Session,
    Forgotten,
    Begin,
    End,
    Tombstone,
    Hold,
}

impl Kind {
    pub const ALL: [Kind; 13] = [
        Kind::Region,
        Kind::Slot,
        Kind::Config,
        Kind::Data,
        Kind::Tree,
        Kind::Index,
        Kind::Manifest,
        Kind::Session,
        Kind::Forgotten,
        Kind::Begin,
        Kind::End,
        Kind::Tombstone,
        Kind::Hold,
    ];
}

/// A repository in two regions, and what is where in it.
pub struct Fixture {
    pub bench: Bench,
    /// Of each kind the object to be damaged, and another one.
    pub objects: BTreeMap<Kind, [String; 2]>,
    /// The first two snapshots of `main`, with the trees that they are of.
    pub first: String,
    pub second: String,
    pub first_tree: PathBuf,
    pub tree: PathBuf,
    /// A snapshot with a hold.
    pub held: String,
}

/// Runs the program in `dir` on regions `a` and `b` there; never longer than a minute.
pub fn run(dir: &Path, key: &Path, args: &[&str]) -> (i32, Value) {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=1", "60", env!("CARGO_BIN_EXE_holdfast"), "--json", "--quiet", "--copies-min=1"]);
    for name in ["a", "b"] {
        command.arg("--region").arg(format!("{name}={}", dir.join(format!("region-{name}")).display()));
    }
    command.arg("--key-file").arg(key).args(args).current_dir(dir).stdin(Stdio::null());
    command.env("HOLDFAST_STATE", dir.join("state"));
    let out = command.output().expect("timeout is there");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let value = serde_json::from_str(text.lines().last().unwrap_or_default()).unwrap_or(Value::Null);
    let said = format!("{args:?}: {text}\n{}", String::from_utf8_lossy(&out.stderr));
    let code = out.status.code().unwrap_or_else(|| panic!("killed: {said}"));
    assert!(![101, 124, 137].contains(&code), "exit {code} of {said}");
    assert!(!value.is_null(), "no JSON from {said}");
    (code, value)
}

impl Fixture {
    /// `key` are the 32 bytes of the key file that opens it.
    pub fn new(key: [u8; 32], passphrase: &str) -> Fixture {
        let bench = Bench::empty(&["a", "b"]);
        let made = bench
            .command(&["--quiet", "init", "--no-recovery-key", "--weak-passphrase"])
            .env("HOLDFAST_PASSPHRASE", passphrase)
            .status();
        assert!(made.expect("init runs").success());
        std::fs::write(bench.path("key"), key).expect("key file");
        let slot = {
            let inside = Inside::open(&bench, &Unlock::Passphrase(passphrase.to_owned().into()));
            let seed = NewSecret::KeyFile(Secret::from_bytes(key));
            (inside.repo.slot, keys::add(&inside.repo, "key file", &seed).expect("a slot is added"))
        };
        let inside = Inside::with_key(&bench, key);
        second_epoch(&inside);
        drop(inside);
        Self::fill(bench, key, slot)
    }

    /// The repository of the tests.
    pub fn ours() -> Fixture {
        Self::new([7; 32], PASSPHRASE)
    }

    fn fill(bench: Bench, key: [u8; 32], slots: (SlotId, SlotId)) -> Fixture {
        let (first_tree, tree, other) = (bench.path("first"), bench.path("tree"), bench.path("other"));
        for tree in [&first_tree, &tree] {
            small_tree(tree);
            // Still cut, but quicker to write many times.
            std::fs::write(tree.join("cut"), noise(101, 900_000)).expect("file");
        }
        std::fs::write(tree.join("whole"), noise(200, 150_000)).expect("file");
        std::fs::write(tree.join("new"), noise(201, 90_000)).expect("file");
        std::fs::create_dir(&other).expect("directory");
        std::fs::write(other.join("file"), noise(300, 70_000)).expect("file");
        let back_up = |name: &str, tree: &Path| -> String {
            let tree = tree.display().to_string();
            let (code, done) = run(bench.dir.path(), &bench.path("key"), &["backup", "--name", name, &tree]);
            assert_eq!(code, 0, "{done:#}");
            done["snapshot"].as_str().expect("a snapshot").to_owned()
        };
        let first = back_up("main", &first_tree);
        let second = back_up("main", &tree);
        let held = back_up("other", &other);
        let gone = ["gone"; 3].map(|name| back_up(name, &other));
        let (code, done) = run(bench.dir.path(), &bench.path("key"), &["forget", &gone[0], &gone[1]]);
        assert_eq!(code, 0, "{done:#}");
        let inside = Inside::with_key(&bench, key);
        let holds = [(1, &held), (2, &gone[2])].map(|(n, sid)| hold(&inside, n, sid));
        let ends = [0; 2].map(|_| ended_session(&inside));
        let (data, trees, segments) = packs_of(&inside, &second, &first);
        let pair = |prefix: &str, one: &str, two: &str| [format!("{prefix}{one}"), format!("{prefix}{two}")];
        let objects = BTreeMap::from([
            (Kind::Region, pair("", "region", "region")),
            (Kind::Slot, [slots.1, slots.0].map(|id| Key::Slot(id).path())),
            (Kind::Config, pair("config/", "00000002", "00000001")),
            (Kind::Data, data),
            (Kind::Tree, trees),
            (Kind::Index, segments),
            (Kind::Manifest, pair("snapshots/", &second, &first)),
            (Kind::Session, pair("sessions/", &second, &first)),
            (Kind::Forgotten, pair("forgotten/", &gone[0], &gone[1])),
            (Kind::Begin, pair("epochs/", "00000002/begin", "00000001/begin")),
            (Kind::End, pair("epochs/", "00000002/end", "00000001/end")),
            (Kind::Tombstone, ends),
            (Kind::Hold, holds),
        ]);
        drop(inside);
        Fixture { bench, objects, first, second, first_tree, tree, held }
    }

    /// A copy of both regions: the objects are the same files, which nobody may change in place.
    pub fn copy(&self) -> TempDir {
        let dir = TempDir::new_in(self.bench.dir.path()).expect("temporary directory");
        for name in ["region-a", "region-b"] {
            let from = self.bench.path(name);
            for file in files(&from) {
                let to = dir.path().join(name).join(file.strip_prefix(&from).expect("inside"));
                std::fs::create_dir_all(to.parent().expect("parent")).expect("folder");
                std::fs::hard_link(&file, to).expect("hard link");
            }
        }
        dir
    }

    pub fn key(&self) -> PathBuf {
        self.bench.path("key")
    }

    /// An object as stored in a region.
    pub fn bytes(&self, region: &str, object: &str) -> Vec<u8> {
        std::fs::read(self.bench.region(region).join(object)).expect("object")
    }
}

/// An epoch with the same members, nothing condemned and nothing doomed.
fn second_epoch(inside: &Inside) {
    let repo = &inside.repo;
    let begin = EpochBegin {
        fresh: repo.fresh(),
        number: Epoch(2),
        members: repo.epochs().members().to_vec(),
        condemned: Vec::new().into(),
        roots: Vec::new(),
        created: 0,
    };
    let key = Key::EpochBegin(Epoch(2), 0);
    let bytes = repo.seal(ObjectKind::EpochBegin, &key.canonical(), &begin).expect("sealed");
    let (_, digest) = check_sum(&bytes).expect("checksum");
    inside.put(key, bytes);
    let end = EpochEnd {
        fresh: repo.fresh(),
        number: Epoch(2),
        begin: digest,
        doomed: Vec::new().into(),
        roots: Vec::new(),
        created: 0,
        forgotten: Vec::new().into(),
        doomed_before: None,
    };
    let key = Key::EpochEnd(Epoch(2), 0);
    inside.put(key, repo.seal(ObjectKind::EpochEnd, &key.canonical(), &end).expect("sealed"));
}

fn hold(inside: &Inside, n: u8, sid: &str) -> String {
    let (id, sid) = (HoldId([n; 16]), SessionId::parse(sid).expect("an id"));
    let hold =
        Hold { fresh: inside.repo.fresh(), hold: id, sid, created: 0, reason: "wanted by a court".into(), until: None };
    let key = Key::Hold(id);
    inside.put(key, inside.repo.seal(ObjectKind::Hold, &key.canonical(), &hold).expect("sealed"));
    key.path()
}

fn ended_session(inside: &Inside) -> String {
    let errand = Errand { generation: Generation(1), host: "host".into(), source: "source".into() };
    let session = Session::announce(&inside.repo, errand, None).expect("announced");
    session.give_up(&inside.repo, "only a test").expect("ended");
    Key::Snapshot(session.sid).path()
}

/// Data packs, tree packs and segments that belong together: of the first snapshot the data pack and the segment
/// to be damaged, of the second the tree pack.
fn packs_of(inside: &Inside, second: &str, first: &str) -> ([String; 2], [String; 2], [String; 2]) {
    let index = Index::load(&inside.repo).expect("index");
    let of = |sid: &str| index.segments().find(|s| s.sid.hex() == sid).expect("a segment");
    let pack = |sid: &str, tree: bool| {
        let key = Key::Index(of(sid).name);
        let bytes = inside.repo.regions.get(0, &key, SMALL_OBJECT_BYTES_MAX).expect("a segment");
        let packs = open_segment(&inside.repo, &key, &bytes).expect("a sound segment").packs;
        Key::Pack(packs.iter().find(|line| line.tree == tree).expect("a pack").name).path()
    };
    let segment = |sid: &str| Key::Index(of(sid).name).path();
    (
        [pack(first, false), pack(second, false)],
        [pack(second, true), pack(first, true)],
        [segment(first), segment(second)],
    )
}
