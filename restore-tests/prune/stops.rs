//! What stops a prune, before anything is removed; and what a hostile region makes up, which does not.

use super::{NOW, Versions, clean, comes_back, forget, packs, plan, prune, versions};
use crate::harness::{Bench, noise};
use crate::inside::{Inside, plant};
use holdfast::base::{Epoch, HoldId, SessionId};
use holdfast::format::envelope::Kind as ObjectKind;
use holdfast::format::objects::{Forgotten, Hold, Root};
use holdfast::repo::pruning;
use holdfast::store::Key;
use std::path::PathBuf;

pub fn inside(bench: &Bench) -> Inside {
    let key: [u8; 32] = noise(0x6b65_7900, 32).try_into().unwrap();
    Inside::with_key(bench, key)
}

fn two_gone() -> Versions {
    let versions = versions(&["a", "b"]);
    forget(&versions.bench, &versions.sids[0]);
    forget(&versions.bench, &versions.sids[1]);
    versions
}

fn everything(bench: &Bench) -> Vec<Vec<String>> {
    let apart = |o: &String| !o.starts_with("runs/");
    bench.regions.iter().map(|region| bench.objects(region).into_iter().filter(apart).collect()).collect()
}

/// The prune ends with this exit code and this word, and changes nothing.
fn stops(bench: &Bench, code: i32, word: &str) {
    let before = everything(bench);
    let (ended, value) = bench.json(&NOW);
    assert_eq!(ended, code, "{value:#}");
    assert!(value["error"].to_string().contains(word), "{value:#}");
    assert_eq!(everything(bench), before, "something was changed");
}

fn segments(bench: &Bench, region: &str) -> Vec<PathBuf> {
    crate::harness::files(&bench.region(region).join("index"))
}

#[test]
fn a_member_that_is_away_stops_it() {
    let versions = two_gone();
    let bench = &versions.bench;
    let (away, aside) = (bench.region("b"), bench.path("aside"));
    std::fs::rename(&away, &aside).unwrap();
    let (code, value) = bench.json(&NOW);
    assert_eq!(code, 1, "{value:#}");
    assert!(value["error"]["what"].as_str().unwrap().contains("region b is a member"), "{value:#}");
    let (code, value) = bench.json_at(&["a"], &NOW);
    assert_eq!(code, 1, "a configuration that does not name a member: {value:#}");
    std::fs::rename(&aside, &away).unwrap();
    prune(bench);
    clean(bench, "once it is back");
}

#[test]
fn a_damaged_segment_in_any_region_stops_it() {
    let versions = two_gone();
    for region in ["a", "b"] {
        let case = versions.bench.copy();
        let file = &segments(&case, region)[0];
        let mut bytes = std::fs::read(file).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        plant(&case.region(region), file.strip_prefix(case.region(region)).unwrap().to_str().unwrap(), &bytes);
        stops(&case, 5, "index/");
        case.json(&["verify", "--level", "content", "--repair"]);
        prune(&case);
        comes_back(&versions, &case, 2, "once it is mended");
        clean(&case, "once it is mended");
    }
}

#[test]
fn a_lost_segment_stops_it() {
    let versions = two_gone();
    // In one region: what the other names is not found by the first one's index.
    let case = versions.bench.copy();
    segments(&case, "b").iter().for_each(|file| std::fs::remove_file(file).unwrap());
    stops(&case, 5, "no index names");
    case.ok(&["replicate"]);
    prune(&case);
    comes_back(&versions, &case, 2, "once it was replicated");
    // In both: good packs look like those of a run that died.
    let case = versions.bench.copy();
    for region in ["a", "b"] {
        segments(&case, region).iter().for_each(|file| std::fs::remove_file(file).unwrap());
    }
    stops(&case, 5, "no index names");
}

#[test]
fn a_snapshot_that_is_gone_without_a_marker_stops_it() {
    let versions = versions(&["a", "b"]);
    let bench = &versions.bench;
    forget(bench, &versions.sids[0]);
    prune(bench);
    forget(bench, &versions.sids[1]);
    for region in ["a", "b"] {
        std::fs::remove_file(bench.region(region).join("snapshots").join(&versions.sids[2])).unwrap();
    }
    stops(bench, 5, "gone without a marker");
    // A person knows that it is lost: what it alone needed goes.
    let (code, value) = bench.json(&[&NOW[..], &["--lost", "00000000"]].concat());
    assert_eq!(code, 5, "another's id: {value:#}");
    bench.ok(&[&NOW[..], &["--last", "s", "--lost", &versions.sids[2]]].concat());
    assert!(packs(bench, "a").is_empty());
    assert_eq!(prune(bench)["alarms"].as_array().map(Vec::len), Some(0));
}

/// The same, where nothing goes with it: what a person has said once need not be said again.
#[test]
fn a_snapshot_that_a_person_calls_lost_is_missed_no_more() {
    let versions = versions(&["a", "b"]);
    let bench = &versions.bench;
    // Another source needs all that the lost one does.
    bench.ok(&["backup", "--name", "other", crate::crash::text(&bench.path("source"))]);
    forget(bench, &versions.sids[0]);
    prune(bench);
    for region in ["a", "b"] {
        std::fs::remove_file(bench.region(region).join("snapshots").join(&versions.sids[2])).unwrap();
    }
    let before = packs(bench, "a");
    stops(bench, 5, "gone without a marker");
    let done = bench.ok(&[&NOW[..], &["--lost", &versions.sids[2]]].concat());
    assert_eq!((&done["epoch"], packs(bench, "a")), (&3.into(), before), "{done:#}");
    let again = prune(bench);
    assert!(again["epoch"].is_null(), "{again:#}");
    comes_back(&versions, bench, 1, "beside one that is lost");
}

/// An epoch that only says which snapshots there are, cut off before its end: whoever comes next goes on, with the regions too.
#[test]
fn an_epoch_that_condemns_nothing_is_carried_through() {
    let versions = two_gone();
    for changes in [false, true] {
        let case = versions.bench.copy();
        {
            let inside = inside(&case);
            let digest = holdfast::base::Digest::ZERO;
            let sid = SessionId::parse(&versions.sids[2]).unwrap();
            let roots = vec![Root { sid, digest, first_seen: 1 }];
            assert!(pruning::begin(&inside.repo, inside.repo.epochs(), &[], roots).unwrap());
        }
        if changes {
            let value = case.ok(&["region", "add", "c=region-c"]);
            assert_eq!(value["epoch"], 3, "{value:#}");
            continue;
        }
        let done = prune(&case);
        assert_eq!(done["carried"], serde_json::json!([2]), "{done:#}");
        assert!(done["regions"][0]["removed"]["packs"].as_u64() > Some(0), "{done:#}");
        comes_back(&versions, &case, 2, "after both");
        clean(&case, "after both");
    }
}

#[test]
fn an_outcome_that_may_be_a_snapshot_stops_it_and_junk_does_not() {
    let versions = two_gone();
    let case = versions.bench.copy();
    spoil(&case, &versions.sids[2]);
    stops(&case, 5, "may be a snapshot");
    // Whole, and nobody's.
    let case = versions.bench.copy();
    let mut junk = noise(5, 400);
    junk.extend_from_slice(blake3::hash(&junk).as_bytes());
    plant(&case.region("b"), &format!("snapshots/{}", "ab".repeat(16)), &junk);
    prune(&case);
    comes_back(&versions, &case, 2, "beside junk");
}

#[test]
fn what_a_region_makes_up_hides_and_condemns_nothing() {
    let versions = two_gone();
    let bench = &versions.bench;
    let kept = &versions.sids[2];
    // A marker that is none, of the snapshot that stays; one of another snapshot; an epoch that nobody signed.
    plant(&bench.region("b"), &format!("forgotten/{kept}"), b"no marker");
    let other = std::fs::read(bench.region("b").join("forgotten").join(&versions.sids[0])).unwrap();
    plant(&bench.region("a"), &format!("forgotten/{kept}"), &other);
    plant(&bench.region("b"), "epochs/00000002/begin", &noise(3, 500));
    plant(&bench.region("b"), "epochs/00000002/end", &noise(4, 500));
    let (code, value) = bench.json(&NOW);
    assert_eq!(code, 0, "{value:#}");
    assert_eq!(value["epoch"], 2, "{value:#}");
    assert!(value["findings"].to_string().contains("forgotten/"), "nobody was told: {value:#}");
    assert!(bench.region("b").join("epochs/00000002/begin.1").exists(), "the epoch did not pass the junk by");
    comes_back(&versions, bench, 2, "beside forgeries");
}

/// A hold that was made at the moment when somebody else forgot the snapshot.
pub fn hold(bench: &Bench, sid: &str) {
    let inside = inside(bench);
    let hold = HoldId([7; 16]);
    let held = Hold {
        fresh: inside.repo.fresh(),
        hold,
        sid: SessionId::parse(sid).unwrap(),
        created: 1,
        reason: "a lawyer".into(),
        until: None,
    };
    let key = Key::Hold(hold);
    inside.put(key, inside.repo.seal(ObjectKind::Hold, &key.canonical(), &held).unwrap());
}

/// Spoils what every region shows at an outcome.
fn spoil(bench: &Bench, sid: &str) {
    let key = format!("snapshots/{sid}");
    for region in ["a", "b"] {
        let mut bytes = std::fs::read(bench.region(region).join(&key)).unwrap();
        bytes[200] ^= 1;
        plant(&bench.region(region), &key, &bytes);
    }
}

#[test]
fn what_is_forgotten_everywhere_need_not_be_readable() {
    let versions = two_gone();
    let bench = &versions.bench;
    spoil(bench, &versions.sids[0]);
    let held = bench.copy();
    hold(&held, &versions.sids[0]);
    stops(&held, 5, "may be a snapshot");
    prune(bench);
    for region in ["a", "b"] {
        assert!(!bench.region(region).join("snapshots").join(&versions.sids[0]).exists(), "{region}");
    }
    comes_back(&versions, bench, 2, "after a rotten one went");
    clean(bench, "after a rotten one went");
}

#[test]
fn a_person_gets_past_an_outcome_that_nobody_can_read() {
    let versions = two_gone();
    let bench = &versions.bench;
    let torn = "ab".repeat(16);
    plant(&bench.region("b"), &format!("snapshots/{torn}"), b"torn");
    stops(bench, 5, &torn);
    let done = bench.ok(&[&NOW[..], &["--lost", &torn]].concat());
    assert!(done["regions"][0]["removed"]["packs"].as_u64() > Some(0), "{done:#}");
    assert!(bench.region("b").join("snapshots").join(&torn).exists(), "what may be mended was removed");
    comes_back(&versions, bench, 2, "beside a torn one");
}

/// Whole, sealed with a key that nobody has, and no configuration is newer: a region made it up.
#[test]
fn what_is_sealed_with_a_key_that_never_was_stops_nothing() {
    let versions = two_gone();
    let bench = &versions.bench;
    let manifest = std::fs::read(bench.region("a").join("snapshots").join(&versions.sids[2])).unwrap();
    let body = manifest.len() - 32;
    for (n, at) in (10u8..).zip((0..body).step_by(16)) {
        let mut bytes = manifest.clone();
        bytes[at] ^= 1;
        let sum = *blake3::hash(&bytes[..body]).as_bytes();
        bytes[body..].copy_from_slice(&sum);
        plant(&bench.region("b"), &format!("snapshots/{}", format!("{n:02x}").repeat(16)), &bytes);
        if n == 60 {
            break;
        }
    }
    let (_, value) = bench.json(&NOW);
    assert!(value["findings"].to_string().contains("another key"), "{value:#}");
    assert!(value["regions"][0]["removed"]["packs"].as_u64() > Some(0), "{value:#}");
    comes_back(&versions, bench, 2, "beside what a region made up");
}

#[test]
fn a_held_snapshot_stays_forgotten_or_not() {
    let versions = two_gone();
    let bench = &versions.bench;
    let before = packs(bench, "a");
    hold(bench, &versions.sids[0]);
    prune(bench);
    let manifest = bench.region("a").join("snapshots").join(&versions.sids[0]);
    assert!(manifest.exists(), "the manifest of a held snapshot went");
    assert!(packs(bench, "a").len() < before.len(), "the other one's packs stayed");
    bench.ok(&["hold", "remove", "0707"]);
    prune(bench);
    assert!(!manifest.exists());
    clean(bench, "after the hold");
}

fn mark(inside: &Inside, sid: &str) {
    let sid = SessionId::parse(sid).unwrap();
    let key = Key::Forgotten(sid);
    let digest = holdfast::base::Digest::ZERO;
    let marker = Forgotten {
        fresh: inside.repo.fresh(),
        sid,
        manifest: digest,
        created: 1,
        reason: "two at once".into(),
        last: None,
    };
    inside.put(key, inside.repo.seal(ObjectKind::Forgotten, &key.canonical(), &marker).unwrap());
}

#[test]
fn the_last_snapshot_of_a_source_stays_until_somebody_says_so() {
    let versions = two_gone();
    let bench = &versions.bench;
    // Two that forget at once each find the other's snapshot left.
    mark(&inside(bench), &versions.sids[2]);
    let (code, value) = bench.json(&NOW);
    assert_eq!(code, 11, "{value:#}");
    assert!(value["alarms"][0].as_str().unwrap().contains("every snapshot of s is forgotten"), "{value:#}");
    let manifest = bench.region("a").join("snapshots").join(&versions.sids[2]);
    assert!(manifest.exists());
    let left = packs(bench, "a");
    assert!(!left.is_empty());
    let (code, value) = bench.json(&[&NOW[..], &["--last", "another"]].concat());
    assert_eq!(code, 11, "{value:#}");
    bench.ok(&[&NOW[..], &["--last", "s"]].concat());
    assert!(!manifest.exists() && packs(bench, "a").is_empty());
}

#[test]
fn what_a_person_let_go_as_the_last_goes() {
    let versions = two_gone();
    let bench = &versions.bench;
    bench.ok(&["forget", "--last", &versions.sids[2]]);
    prune(bench);
    assert!(packs(bench, "a").is_empty() && packs(bench, "b").is_empty());
    assert!(plan(bench)["plan"].as_array().unwrap().is_empty());
}

#[test]
fn a_change_of_the_regions_that_is_not_decided_comes_first() {
    let versions = two_gone();
    let bench = &versions.bench;
    {
        let inside = inside(bench);
        let repo = &inside.repo;
        let home = repo.epochs().members().to_vec();
        holdfast::repo::members::begin(repo, repo.epochs(), 0, home).unwrap();
        assert_eq!(repo.epochs_since(repo.epochs()).newest(), Epoch(2));
    }
    let (code, value) = bench.json(&NOW);
    assert_eq!(code, 11, "{value:#}");
}
