//! What is whole and of no key that anybody has, and parts of the index that nobody can read any more: they neither keep a
//! session from being ended nor stop a prune for good.

use super::stops::inside;
use super::{ANEW, NOW, Versions, clean, comes_back, forget, packs, prune, versions};
use crate::harness::Bench;
use crate::inside::{Inside, plant};
use holdfast::base::{Generation, SessionId};
use holdfast::format::envelope::Kind as ObjectKind;
use holdfast::repo::pruning;
use holdfast::repo::session::{Errand, Session};
use holdfast::store::Key;

/// Where an object says with which keys it is sealed.
const KEY_EPOCH_AT: usize = 16;

/// The same with a key that never was; `checked`: with the right sum at its end.
fn of_no_key(object: &[u8], checked: bool) -> Vec<u8> {
    let mut bytes = object.to_vec();
    bytes[KEY_EPOCH_AT] ^= 0x40;
    if checked {
        let body = bytes.len() - 32;
        let sum = *blake3::hash(&bytes[..body]).as_bytes();
        bytes[body..].copy_from_slice(&sum);
    }
    bytes
}

/// Somebody who sleeps, and decides in the first region.
fn sleeper(inside: &Inside) -> SessionId {
    let errand = Errand { host: "h".into(), source: "sleeper".into(), generation: Generation(1) };
    Session::announce(&inside.repo, errand, None).unwrap().sid
}

/// Something is to go, and somebody sleeps.
fn one_sleeps() -> (Versions, Inside, SessionId) {
    let versions = versions(&["a", "b"]);
    forget(&versions.bench, &versions.sids[0]);
    let inside = inside(&versions.bench);
    let sid = sleeper(&inside);
    (versions, inside, sid)
}

fn is_ended_in(inside: &Inside, ix: usize, sid: SessionId) -> bool {
    let key = Key::Snapshot(sid);
    let bytes = inside.repo.regions.get(ix, &key, 1 << 20).unwrap();
    inside.repo.open_object(&key, &bytes).is_ok_and(|opened| opened.kind == ObjectKind::Tombstone)
}

/// What another region makes up at its outcome is no snapshot: it would commit after what it rests on was removed.
#[test]
fn a_session_is_ended_where_it_decides_whatever_another_region_makes_up() {
    let (versions, inside, sid) = one_sleeps();
    let bench = &versions.bench;
    let manifest = std::fs::read(bench.region("a").join("snapshots").join(&versions.sids[2])).unwrap();
    plant(&bench.region("b"), &format!("snapshots/{}", sid.hex()), &of_no_key(&manifest, true));
    let done = prune(bench);
    assert_eq!(done["sessions_ended"], 1, "{done:#}");
    assert!(done["regions"][0]["removed"]["packs"].as_u64() > Some(0), "{done:#}");
    assert!(is_ended_in(&inside, 0, sid), "it could commit yet");
    comes_back(&versions, bench, 2, "beside what a region made up");
}

/// What cannot be read may be its snapshot; when a person says that it is lost, it must not be made afterwards.
#[test]
fn a_session_whose_snapshot_is_said_to_be_lost_is_ended() {
    let (versions, inside, sid) = one_sleeps();
    let bench = &versions.bench;
    plant(&bench.region("b"), &format!("snapshots/{}", sid.hex()), b"torn");
    let before = packs(bench, "a");
    let (code, value) = bench.json(&NOW);
    assert!(code == 5 && value.to_string().contains(&sid.hex()), "{value:#}");
    assert_eq!(packs(bench, "a"), before);
    assert!(!bench.region("a").join("snapshots").join(sid.hex()).exists(), "it may have been made");
    let done = bench.ok(&[&NOW[..], &["--lost", &sid.hex()]].concat());
    assert!(done["regions"][0]["removed"]["packs"].as_u64() > Some(0), "{done:#}");
    assert!(is_ended_in(&inside, 0, sid), "it could commit yet");
    comes_back(&versions, bench, 2, "without what was lost");
}

/// A pack and a part of the index that one region makes up.
#[test]
fn packs_and_segments_of_a_key_that_never_was_stop_nothing() {
    let versions = versions(&["a", "b"]);
    let bench = &versions.bench;
    forget(bench, &versions.sids[0]);
    let one = |dir: &str| bench.objects("a").into_iter().find(|object| object.starts_with(dir)).unwrap();
    let made_up = |object: &str, checked: bool| {
        let bytes = of_no_key(&std::fs::read(bench.region("a").join(object)).unwrap(), checked);
        (blake3::hash(&bytes).to_hex().to_string(), bytes)
    };
    let (pack, bytes) = made_up(&one("packs/"), false);
    plant(&bench.region("b"), &format!("packs/{}/{pack}", &pack[..2]), &bytes);
    let (segment, bytes) = made_up(&one("index/"), true);
    plant(&bench.region("b"), &format!("index/{segment}"), &bytes);
    let done = prune(bench);
    assert!(done["regions"][0]["removed"]["packs"].as_u64() > Some(0), "{done:#}");
    let said = done["findings"].to_string();
    assert!(said.contains(&pack) && said.contains(&segment), "{done:#}");
    assert!(bench.region("b").join(format!("packs/{}/{pack}", &pack[..2])).exists(), "nobody knows what is in it");
    comes_back(&versions, bench, 2, "beside what a region made up");
}

fn first_segment(bench: &Bench) -> String {
    bench.objects("a").into_iter().find(|object| object.starts_with("index/")).unwrap()
}

/// No region has it whole: once each pack is named by others it hides nothing.
#[test]
fn a_segment_that_is_lost_for_good_stops_prunes_until_the_index_was_rebuilt() {
    for regions in [&["a"][..], &["a", "b"]] {
        let versions = versions(regions);
        let bench = &versions.bench;
        forget(bench, &versions.sids[0]);
        let segment = first_segment(bench);
        for region in regions {
            let mut bytes = std::fs::read(bench.region(region).join(&segment)).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            plant(&bench.region(region), &segment, &bytes);
        }
        let before = packs(bench, "a");
        let (code, value) = bench.json(&NOW);
        assert!(code == 5 && value.to_string().contains("holdfast repair index"), "{value:#}");
        assert_eq!(packs(bench, "a"), before, "something was removed");
        assert!(bench.json(&["repair", "index"]).1["packs"].as_u64() > Some(0));
        let (code, done) = bench.json(&NOW);
        assert_eq!(code, 0, "{done:#}");
        assert!(done["regions"][0]["removed"]["packs"].as_u64() > Some(0), "{done:#}");
        assert!(done["findings"].to_string().contains(&segment), "{done:#}");
        let (code, done) = bench.json(&ANEW);
        assert_eq!(code, 0, "{done:#}");
        comes_back(&versions, bench, 1, "after the index was rebuilt");
        comes_back(&versions, bench, 2, "after the index was rebuilt");
    }
}

/// The store's clock stood years ahead when a run was killed.
#[test]
fn who_died_while_a_clock_was_ahead_is_not_waited_for_until_then() {
    let versions = versions(&["a", "b"]);
    let bench = &versions.bench;
    let inside = inside(bench);
    let sid = sleeper(&inside);
    let segments = super::patience::hand_over(bench, &inside.repo, &versions.sids[0], sid);
    forget(bench, &versions.sids[0]);
    let keys = [&segments[..], &[Key::Session(sid)]].concat();
    super::patience::set_times(bench, &keys, 10 * 365 * 24 * 3600 * 1000);
    let before = packs(bench, "a");
    bench.ok(&super::patience::PATIENT);
    assert!(packs(bench, "a").len() < before.len(), "it is taken for one at work");
    comes_back(&versions, bench, 2, "after a clock was wrong");
    prune(bench);
    clean(bench, "after a clock was wrong");
}

/// A region goes back to before these epochs.
fn set_back(bench: &Bench, region: &str, epochs: &[u32]) {
    for number in epochs {
        std::fs::remove_dir_all(bench.region(region).join(format!("epochs/{number:08}"))).unwrap();
    }
}

/// Only a region that is no member any more shows the newest epoch, decided: its word for the end counts for nothing, and the
/// beginning is brought back and decided anew.
#[test]
fn an_epoch_that_every_member_lost_is_decided_anew() {
    let versions = versions(&["a", "b", "c"]);
    let bench = &versions.bench;
    let (code, value) = bench.json(&["region", "remove", "a"]);
    assert!(matches!(code, 0 | 4) && value["epoch"] == 2, "{value:#}");
    bench.json(&["forget", &versions.sids[0]]);
    let (code, value) = bench.json(&NOW);
    assert!(matches!(code, 0 | 4) && value["epoch"] == 3, "{code}: {value:#}");
    let source = bench.path("source");
    bench.json(&["backup", "--name", "s", source.to_str().unwrap()]);
    assert!(bench.region("a").join("epochs/00000003/end").exists(), "the outsider knows nothing of it");
    ["b", "c"].iter().for_each(|region| set_back(bench, region, &[3]));
    let (code, value) = bench.json(&NOW);
    assert!(matches!(code, 0 | 4), "{value:#}");
    for region in ["b", "c"] {
        assert!(bench.region(region).join("epochs/00000003/end").exists(), "{region}: {value:#}");
        let (code, value) = bench.json_at(&[region], &["verify", "--level", "content"]);
        assert!(matches!(code, 0 | 4), "{value:#}");
    }
    comes_back(&versions, bench, 1, "after an epoch was decided anew");
    let listed = bench.json(&["region", "list"]).1;
    assert_eq!(listed["decided"], true, "{listed:#}");
}

/// A member is set back while a prune waits: it must not look as if it had not been.
#[test]
fn a_prune_makes_no_member_look_sound_that_was_set_back_under_it() {
    let versions = versions(&["a", "b", "c"]);
    let bench = &versions.bench;
    for sid in &versions.sids[..2] {
        forget(bench, sid);
        prune(bench);
    }
    let (before, error) = {
        let inside = inside(bench);
        let repo = &inside.repo;
        let members = pruning::all_members(repo, repo.epochs()).unwrap();
        set_back(bench, "b", &[2, 3]);
        let now = repo.epochs_since(repo.epochs());
        (bench.objects("b"), pruning::spread(repo, &now, members).unwrap_err())
    };
    assert!(error.to_string().contains("rolled back"), "{error}");
    assert_eq!(bench.objects("b"), before, "something was put there");
    bench.ok(&["region", "repair", "b"]);
    prune(bench);
    comes_back(&versions, bench, 2, "after a member was set back under a prune");
    clean(bench, "after a member was set back under a prune");
}
