//! Key slots have no signature: the configuration names the object of each, and a region that shows another one passes it to
//! nobody, and keeps nobody out.

use crate::harness::{Bench, noise};
use crate::inside::plant;
use crate::membership::{inside, place};
use holdfast::base::{ConfigNo, Digest, RepoId, SlotId};
use holdfast::crypto::{Secret, SigningKey};
use holdfast::format::config::{Features, Next};
use holdfast::format::slot::{Anchor, Slot, SlotKind};
use holdfast::repo::init::wrap_randomness;
use holdfast::store::Key;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// A slot that nobody of the repository made, whole by its checksum.
fn strange(repo: RepoId, id: SlotId) -> Vec<u8> {
    let owner = SigningKey::from_seed(&Secret::from_bytes([9; 32])).verify_key();
    let anchor = Anchor { owner, number: ConfigNo(0), digest: Digest::ZERO };
    Slot::create(repo, id, SlotKind::KeyFile, [8; 32], &Secret::from_bytes([7; 32]), &anchor).0
}

/// Two regions with a snapshot and a second key, whose slot region a shows altered.
struct Altered {
    bench: Bench,
    spare: PathBuf,
    slot: String,
    good: Vec<u8>,
}

fn altered(between: impl Fn(&Bench)) -> Altered {
    let bench = Bench::with_key(&["a", "b"]);
    std::fs::create_dir(bench.path("source")).unwrap();
    std::fs::write(bench.path("source/file"), noise(1, 90_000)).unwrap();
    bench.ok(&["backup", "source"]);
    let id = bench.ok(&["key", "add", "--new-key-file", "spare"])["slot"].as_str().unwrap().to_owned();
    between(&bench);
    let slot = format!("keys/{id}");
    let good = std::fs::read(bench.region("a").join(&slot)).unwrap();
    let repo = inside(&bench).repo.id;
    plant(&bench.region("a"), &slot, &strange(repo, SlotId::parse(&id).unwrap()));
    Altered { spare: bench.path("spare"), bench, slot, good }
}

/// What the spare key says to some regions.
fn spare_at(was: &Altered, regions: &[&str], args: &[&str]) -> (i32, Value) {
    let mut other = Bench::empty(&[]);
    other.key = Some(was.spare.clone());
    let at = |region: &&str| format!("{region}={}", was.bench.region(region).display());
    let regions: Vec<String> = regions.iter().map(at).collect();
    let named = regions.iter().flat_map(|region| ["--region", region.as_str()]);
    other.json(&named.chain(["--copies-min", "1"]).chain(args.iter().copied()).collect::<Vec<_>>())
}

fn names(value: &Value, region: &str, object: &str) -> bool {
    let start = format!("region {region}: {object}");
    value["findings"].as_array().is_some_and(|all| all.iter().any(|f| f.as_str().unwrap().starts_with(&start)))
}

#[test]
fn an_altered_slot_is_named_mended_and_passed_on_by_nobody() {
    let was = altered(|_| {});
    let (bench, slot) = (&was.bench, &was.slot);
    // It keeps nobody out: the other region has the right one.
    for regions in [["a", "b"], ["b", "a"]] {
        let (code, value) = spare_at(&was, &regions, &["key", "test"]);
        assert_eq!(code, 0, "{regions:?}: {value:#}");
    }
    let (code, value) = spare_at(&was, &["a"], &["key", "test"]);
    assert_eq!(code, 12, "{value:#}");
    let (code, value) = bench.json(&["region", "add", &place(bench, "d")]);
    assert_eq!(code, 5, "{value:#}");
    assert!(names(&value, "a", slot), "{value:#}");
    assert!(std::fs::read(bench.region("d").join(slot)).unwrap() == was.good);
    let (code, value) = spare_at(&was, &["d"], &["key", "test"]);
    assert_eq!(code, 0, "{value:#}");
    let mut all = bench.copy();
    all.regions = vec!["a", "b", "d"];
    let (code, value) = all.json(&["verify"]);
    assert!(code == 5 && names(&value, "a", slot), "{value:#}");
    let (code, value) = all.json(&["verify", "--level", "content", "--repair"]);
    assert!(matches!(code, 0 | 4 | 5) && value["repair"]["put_back"] == 1, "{value:#}");
    assert!(std::fs::read(all.region("a").join(slot)).unwrap() == was.good);
    assert_eq!(all.json(&["verify", "--level", "content"]).0, 0);
}

/// As a program made it that did not name the objects of slots.
fn forget_objects(bench: &Bench) {
    let inside = inside(bench);
    let repo = &inside.repo;
    let mut ring = repo.ring().clone();
    ring.slots.iter_mut().for_each(|slot| slot.object = None);
    let number = ConfigNo(repo.config().0.0 + 1);
    let next = Next {
        repo: repo.id,
        number,
        previous: repo.config().1,
        owner: &repo.ring().owner(),
        features: Features::ours(),
        ring: &ring,
        g: Secret::from_bytes([1; 32]),
        randomness: wrap_randomness(&repo.env, ring.slots.len()).unwrap(),
        created: repo.env.now(),
    };
    inside.put(Key::Config(number, 0), next.to_object().unwrap().into());
}

#[test]
fn where_nothing_says_which_of_two_slots_is_right_neither_is_passed_on() {
    let was = altered(forget_objects);
    let (bench, slot) = (&was.bench, &was.slot);
    let (code, value) = bench.json(&["region", "add", &place(bench, "d")]);
    assert_eq!(code, 5, "{value:#}");
    assert!(names(&value, "a", slot) && names(&value, "b", slot), "{value:#}");
    assert!(value.to_string().contains("nothing says which is right"), "{value:#}");
    assert!(!bench.region("d").join(slot).exists());
    // The slot that opened the repository is proved by that.
    let (code, value) = bench.json_at(&["d"], &["--copies-min", "1", "snapshots"]);
    assert!(matches!(code, 0 | 4 | 5) && value["snapshots"].as_array().map(Vec::len) == Some(1), "{value:#}");
    let (code, value) = bench.json(&["verify"]);
    assert!(code == 5 && names(&value, "a", slot) && names(&value, "b", slot), "{value:#}");
    let repaired = bench.json(&["verify", "--level", "content", "--repair"]).1;
    assert_eq!(repaired["repair"]["put_back"], 0, "{repaired:#}");
    assert!(std::fs::read(bench.region("b").join(slot)).unwrap() == was.good);
    // With the right key each region alone tells.
    assert_eq!((spare_at(&was, &["a"], &["key", "test"]).0, spare_at(&was, &["b"], &["key", "test"]).0), (12, 0));
}

#[test]
fn a_slot_that_was_added_in_one_region_alone_is_missing_nowhere() {
    let bench = Bench::with_key(&["a", "b"]);
    let repo = inside(&bench).repo.id;
    // Before and behind the one that counts: which is tried first is no matter.
    for id in [[0; 16], [0xff; 16]] {
        plant(&bench.region("b"), &format!("keys/{}", SlotId(id)), &strange(repo, SlotId(id)));
    }
    for level in ["presence", "content"] {
        let value = bench.ok(&["verify", "--level", level]);
        assert_eq!(
            (&value["findings"], &value["behind"]),
            (&serde_json::json!([]), &serde_json::json!([])),
            "{value:#}"
        );
    }
    assert_eq!(bench.ok(&["key", "list"])["removed"].as_array().map(Vec::len), Some(2));
    assert!(Path::new(&bench.region("b")).join(format!("keys/{}", SlotId([0; 16]))).exists());
}
