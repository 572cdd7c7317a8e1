//! Repair that is cut short, and regions that do not take it.

use crate::crash::{
    KILLED, STUMBLES, complete_alone, fill, instants, interfere, regions_agree, restores, says, spread, text,
};
use crate::harness::{Bench, files};
use crate::prune::{Versions, clean, forget, prune, versions};
use std::collections::BTreeSet;
use std::path::PathBuf;

const REPAIR: [&str; 4] = ["verify", "--level", "content", "--repair"];

/// Two regions, the first with a damaged pack, a damaged segment and a pack that is gone.
struct Spoilt {
    bench: Bench,
    source: PathBuf,
    sid: String,
    /// Object, its good bytes, its damaged ones.
    objects: Vec<(String, Vec<u8>, Option<Vec<u8>>)>,
}

fn spoilt() -> Spoilt {
    let bench = Bench::with_key(&["a", "b"]);
    let source = bench.path("source");
    fill(&source, 1, 12, 90_000);
    let sid = bench.ok(&["backup", text(&source)])["snapshot"].as_str().unwrap().to_owned();
    let find = |prefix: &str| bench.objects("a").into_iter().filter(|o| o.starts_with(prefix)).collect::<Vec<_>>();
    let (packs, segments) = (find("packs/"), find("index/"));
    assert!(packs.len() >= 2, "{packs:?}");
    let mut objects = Vec::new();
    for (object, gone) in [(&packs[0], false), (&segments[0], false), (&packs[1], true)] {
        let path = bench.region("a").join(object);
        let good = std::fs::read(&path).unwrap();
        let mut bad = good.clone();
        bad[good.len() / 2] ^= 4;
        if gone {
            std::fs::remove_file(&path).unwrap()
        } else {
            std::fs::write(&path, &bad).unwrap()
        }
        objects.push((object.clone(), good, (!gone).then_some(bad)));
    }
    Spoilt { bench, source, sid, objects }
}

/// At every key stands the damaged object or the good one, and where the good one stands the damaged one is kept.
fn nothing_is_lost(case: &Bench, was: &Spoilt, context: &str) {
    let kept: BTreeSet<Vec<u8>> =
        files(&case.region("a").join("quarantine")).iter().map(|file| std::fs::read(file).unwrap()).collect();
    for (object, good, bad) in &was.objects {
        let there = std::fs::read(case.region("a").join(object)).ok();
        let mended = there.as_ref() == Some(good);
        assert!(mended || there == *bad, "{context}: {object} is neither what it was nor good");
        let is_kept = bad.as_ref().is_none_or(|bad| kept.contains(bad));
        assert!(!mended || is_kept, "{context}: {object} was replaced and not kept");
    }
    restores(case, &was.sid, &was.source, context);
}

#[test]
fn any_instant_crash_of_a_repair() {
    let was = spoilt();
    let counted = interfere(&was.bench.copy(), "count", 0, &REPAIR);
    assert_eq!(counted.code, 5, "{}", counted.said);
    let mut killed = 0;
    for (what, at) in instants(&counted.steps) {
        let case = was.bench.copy();
        let ended = interfere(&case, &what, at, &REPAIR);
        let context = format!("{what} {at} of {}: {}", counted.steps.len(), ended.said);
        killed += usize::from(ended.code == KILLED);
        assert!(matches!(ended.code, KILLED | 5), "{context}");
        nothing_is_lost(&case, &was, &context);
        let (code, value) = case.json(&REPAIR);
        assert!(matches!(code, 0 | 5) && value["repair"]["left"] == 0, "{context}: {value:#}");
        nothing_is_lost(&case, &was, &context);
        regions_agree_but_for_what_is_kept(&case, &context);
    }
    assert!(killed > 8, "{killed} kills of {} steps", counted.steps.len());
}

fn regions_agree_but_for_what_is_kept(case: &Bench, context: &str) {
    let quarantine = case.region("a").join("quarantine");
    if quarantine.exists() {
        std::fs::remove_dir_all(quarantine).unwrap();
    }
    regions_agree(case, context);
}

#[test]
fn a_region_that_takes_nothing_is_left_as_it_is() {
    let was = spoilt();
    let counted = interfere(&was.bench.copy(), "count", 0, &REPAIR).steps.len();
    let mut left = 0;
    for (what, words) in STUMBLES {
        for at in spread(counted, 1) {
            let case = was.bench.copy();
            let ended = interfere(&case, what, at, &REPAIR);
            let context = format!("{what} {at} of {counted}: {}", ended.said);
            assert!(matches!(ended.code, 4 | 5), "{context}");
            nothing_is_lost(&case, &was, &context);
            left += usize::from(says(&ended.said, words));
            let (_, value) = case.json(&REPAIR);
            assert_eq!(value["repair"]["left"], 0, "{context}: {value:#}");
            complete_alone(&case, &context);
        }
    }
    assert!(left > 4, "{left}");
}

/// Flips bytes of an object in a region, at these parts of its length.
fn flip(bench: &Bench, region: &str, object: &str, at: &[usize]) {
    let path = bench.region(region).join(object);
    let mut bytes = std::fs::read(&path).unwrap();
    for percent in at {
        let place = bytes.len() * percent / 100;
        bytes[place] ^= 4;
    }
    std::fs::write(&path, bytes).unwrap();
}

fn largest_pack(bench: &Bench) -> String {
    let size = |object: &String| std::fs::metadata(bench.region("a").join(object)).unwrap().len();
    bench.objects("a").into_iter().filter(|o| o.starts_with("packs/")).max_by_key(size).unwrap()
}

#[test]
fn a_pack_damaged_everywhere_at_other_places_is_put_together() {
    let bench = Bench::with_key(&["a", "b", "c"]);
    let source = bench.path("source");
    fill(&source, 1, 12, 90_000);
    let sid = bench.ok(&["backup", text(&source)])["snapshot"].as_str().unwrap().to_owned();
    let pack = largest_pack(&bench);
    let good = std::fs::read(bench.region("a").join(&pack)).unwrap();
    // The header of one, records of another, the table of the third; and one of them is short.
    flip(&bench, "a", &pack, &[0, 30]);
    flip(&bench, "b", &pack, &[55, 70]);
    std::fs::write(bench.region("c").join(&pack), &good[..good.len() / 2]).unwrap();
    restores(&bench, &sid, &source, "chunk by chunk");
    let (code, value) = bench.json(&["verify", "--level", "content"]);
    assert_eq!((code, &value["broken"]), (5, &serde_json::json!([])), "{value:#}");
    let harm = &value["damage"][0];
    assert!(harm["chunks"].as_u64() >= Some(12) && harm["files"].as_u64() == Some(12), "{value:#}");
    assert_eq!((&harm["snapshots"], &harm["snapshot_ids"][0]), (&1.into(), &sid.as_str().into()), "{value:#}");
    assert_eq!(harm["paths"].as_array().map(Vec::len), Some(8), "{value:#}");
    let (code, value) = bench.json(&REPAIR);
    assert_eq!((code, &value["repair"]["put_back"], &value["repair"]["left"]), (5, &3.into(), &0.into()), "{value:#}");
    assert!(value["repair"]["objects"][0]["detail"].as_str().unwrap().contains("from region a and b"), "{value:#}");
    for region in ["a", "b", "c"] {
        assert!(std::fs::read(bench.region(region).join(&pack)).unwrap() == good, "region {region}");
    }
    complete_alone(&bench, "put together");
    // A record that is nowhere good is not made up; what can be restored is.
    ["a", "b", "c"].iter().for_each(|region| flip(&bench, region, &pack, &[40]));
    let (code, value) = bench.json(&REPAIR);
    assert_eq!((code, &value["repair"]["put_back"], &value["repair"]["left"]), (5, &0.into(), &3.into()), "{value:#}");
    let (code, value) = bench.json(&["restore", &sid, "--target", "partly"]);
    assert_eq!((code, value["errors_total"].as_u64()), (5, Some(1)), "{value:#}");
}

/// A prune removes the announcements of sessions that are over: of which generation old packs are, the snapshots still say.
#[test]
fn an_index_that_is_lost_after_a_prune_gets_its_generations_back() {
    let Versions { bench, sids, copies } = versions(&["a", "b"]);
    let source = bench.path("source");
    let independent = bench.ok(&["backup", "--name", "s", "--mode", "independent", text(&source)]);
    forget(&bench, &sids[0]);
    prune(&bench);
    let sessions = bench.objects("a").into_iter().filter(|object| object.starts_with("sessions/"));
    assert_eq!(sessions.count(), 0, "the prune left announcements");
    ["a", "b"].iter().for_each(|region| std::fs::remove_dir_all(bench.region(region).join("index")).unwrap());
    bench.ok(&["repair", "index"]);
    prune(&bench);
    restores(&bench, &sids[2], &copies[2], "of the first generation");
    restores(&bench, independent["snapshot"].as_str().unwrap(), &copies[2], "of the second generation");
    clean(&bench, "rebuilt");
}

#[test]
fn lost_indexes_are_rebuilt_from_the_packs() {
    let bench = Bench::with_key(&["a", "b"]);
    let source = bench.path("source");
    crate::harness::small_tree(&source);
    let first = bench.ok(&["backup", text(&source)])["snapshot"].as_str().unwrap().to_owned();
    fill(&source, 5, 3, 300_000);
    let second = bench.ok(&["backup", text(&source)])["snapshot"].as_str().unwrap().to_owned();
    let lose = |region: &str| std::fs::remove_dir_all(bench.region(region).join("index")).unwrap();
    // In one region: the others' are brought.
    lose("a");
    let value = bench.ok(&["repair", "index"]);
    assert_eq!((&value["packs"], &value["segments"]), (&0.into(), &0.into()), "{value:#}");
    regions_agree(&bench, "lost in one");
    bench.ok(&["replicate"]);
    // In all of them.
    ["a", "b"].iter().for_each(|region| lose(region));
    let (code, value) = bench.json(&["restore", &second, "--target", "nothing"]);
    assert_ne!(code, 0, "{value:#}");
    let value = bench.ok(&["repair", "index"]);
    let packs = bench.objects("a").iter().filter(|o| o.starts_with("packs/")).count() as u64;
    assert_eq!((value["packs"].as_u64(), &value["unreadable"]), (Some(packs), &0.into()), "{value:#}");
    assert!(value["chunks"].as_u64() > Some(40) && value["segments"].as_u64() > Some(0), "{value:#}");
    regions_agree(&bench, "lost in all");
    restores(&bench, &second, &source, "lost in all");
    bench.ok(&["restore", &first, "--target", "first"]);
    assert_eq!(bench.ok(&["repair", "index"])["packs"], 0);
    // What was rebuilt is built upon.
    let value = bench.ok(&["backup", text(&source)]);
    assert_eq!(value["bytes_new"], 0, "{value:#}");
    let value = bench.ok(&["backup", "--mode", "full", text(&source)]);
    assert_eq!(value["bytes_new"], 0, "{value:#}");
    // With a pack that is damaged in one region, and gone in the other.
    ["a", "b"].iter().for_each(|region| lose(region));
    let pack = largest_pack(&bench);
    flip(&bench, "a", &pack, &[50]);
    std::fs::remove_file(bench.region("b").join(&pack)).unwrap();
    let (code, value) = bench.json(&["repair", "index"]);
    assert_eq!((code, &value["unreadable"]), (5, &1.into()), "{value:#}");
    assert!(value["findings"][0].as_str().unwrap().contains(&pack), "{value:#}");
    let (code, value) = bench.json(&["restore", &second, "--target", "partly"]);
    assert_eq!(code, 5, "{value:#}");
}

#[test]
fn a_region_that_went_back_in_time_is_named_and_brought_up() {
    let bench = Bench::with_key(&["a", "b"]);
    let source = bench.path("source");
    fill(&source, 1, 3, 90_000);
    bench.ok(&["backup", text(&source)]);
    let copied = std::process::Command::new("cp").arg("-a").arg(bench.region("b")).arg(bench.path("old")).status();
    assert!(copied.is_ok_and(|status| status.success()));
    fill(&source.join("more"), 50, 3, 90_000);
    let sid = bench.ok(&["backup", text(&source)])["snapshot"].as_str().unwrap().to_owned();
    std::fs::remove_dir_all(bench.region("b")).unwrap();
    std::fs::rename(bench.path("old"), bench.region("b")).unwrap();
    let (code, value) = bench.json(&["verify", "--repair"]);
    assert_eq!(code, 5, "{value:#}");
    let lost = value["lost"][0].as_str().unwrap_or_default();
    assert!(lost.starts_with("region b went back in time") && lost.contains(&sid[..8]), "{value:#}");
    assert_eq!((&value["repair"]["caught_up"]["snapshots"], &value["behind"]), (&1.into(), &serde_json::json!([])));
    regions_agree(&bench, "brought up");
    bench.ok(&["replicate"]);
    assert_eq!(bench.ok(&["verify"])["lost"], serde_json::json!([]));
}

#[test]
fn a_policy_repairs_what_its_check_finds() {
    let bench = Bench::with_key(&["a", "b"]);
    crate::harness::configure_daily(&bench, "verify: {schedule: '@daily', level: content}");
    fill(&bench.path("source"), 1, 3, 90_000);
    assert_eq!(bench.json_at(&[], &["run", "daily"]).0, 0);
    let pack = largest_pack(&bench);
    flip(&bench, "b", &pack, &[50]);
    let (code, value) = bench.json_at(&[], &["run", "daily", "--kind", "verify"]);
    assert_eq!(code, 5, "{value:#}");
    let (code, value) = bench.json_at(&[], &["run", "daily", "--kind", "verify"]);
    assert_eq!(code, 0, "{value:#}");
    let read = |region: &str| std::fs::read(bench.region(region).join(&pack)).unwrap();
    assert!(read("a") == read("b"));
}

#[test]
fn a_policy_may_leave_damage_to_a_person() {
    let bench = Bench::with_key(&["a", "b"]);
    crate::harness::configure_daily(&bench, "verify: {schedule: '@daily', level: content, repair: false}");
    fill(&bench.path("source"), 1, 3, 90_000);
    assert_eq!(bench.json_at(&[], &["run", "daily"]).0, 0);
    let pack = largest_pack(&bench);
    flip(&bench, "b", &pack, &[50]);
    let read = |region: &str| std::fs::read(bench.region(region).join(&pack)).unwrap();
    for _ in 0..2 {
        assert_eq!(bench.json_at(&[], &["run", "daily", "--kind", "verify"]).0, 5);
        assert!(read("a") != read("b"));
    }
}

#[test]
fn a_region_without_most_of_its_packs_is_left_to_a_person() {
    let bench = Bench::with_key(&["a", "b"]);
    crate::harness::configure_daily(&bench, "verify: {schedule: '@daily'}");
    for n in 0..12 {
        fill(&bench.path("source"), n, 2, 30_000);
        assert_eq!(bench.json_at(&[], &["run", "daily"]).0, 0);
    }
    let packs = |region: &str| bench.objects(region).into_iter().filter(|o| o.starts_with("packs/")).count();
    let all = packs("a");
    assert!(all > 20, "{all} packs");
    // As if they were on a disk of their own that is not mounted.
    for entry in std::fs::read_dir(bench.region("b").join("packs")).unwrap().flatten() {
        std::fs::remove_dir_all(entry.path()).unwrap();
    }
    assert_eq!(bench.json_at(&[], &["run", "daily", "--kind", "verify"]).0, 5);
    assert_eq!(packs("b"), 0);
    // One that is missing among many is another matter, and so is a person's word.
    assert_eq!(bench.json(&["verify", "--repair"]).0, 5);
    assert_eq!(packs("b"), all);
    std::fs::remove_file(bench.region("b").join(largest_pack(&bench))).unwrap();
    assert_eq!(bench.json_at(&[], &["run", "daily", "--kind", "verify"]).0, 5);
    assert_eq!(packs("b"), all);
    assert_eq!(bench.json_at(&[], &["run", "daily", "--kind", "verify"]).0, 0);
}

#[test]
fn a_check_that_may_not_mend_says_what_it_found() {
    let bench = Bench::new(&["a", "b"]);
    fill(&bench.path("source"), 1, 3, 90_000);
    bench.ok(&["backup", "--name", "files:/source", "source"]);
    crate::harness::configure_daily(&bench, "verify: {schedule: '@daily', level: content}");
    crate::sessions::ask_for(&bench, &[], &["tensors9"]);
    let pack = largest_pack(&bench);
    flip(&bench, "b", &pack, &[50]);
    let (code, value) = bench.json_at(&[], &["run", "daily", "--kind", "verify"]);
    assert_eq!(code, 5, "{value:#}");
}

#[test]
fn a_restore_that_may_not_mend_restores() {
    let bench = Bench::with_key(&["a", "b"]);
    let source = bench.path("source");
    fill(&source, 1, 12, 90_000);
    let sid = bench.ok(&["backup", text(&source)])["snapshot"].as_str().unwrap().to_owned();
    let pack = largest_pack(&bench);
    flip(&bench, "a", &pack, &[50]);
    let read = |region: &str| std::fs::read(bench.region(region).join(&pack)).unwrap();
    let bad = read("a");
    // A folder that cannot be made says no to everybody, to root too.
    std::fs::remove_dir_all(bench.region("a").join("quarantine")).ok();
    std::fs::write(bench.region("a").join("quarantine"), b"in the way").unwrap();
    let (code, value) = bench.json(&["restore", &sid, "--target", "restored"]);
    assert_eq!((code, &value["repair"]["put_back"], &value["repair"]["left"]), (0, &0.into(), &1.into()), "{value:#}");
    assert!(read("a") == bad);
    crate::harness::assert_same(&source, &bench.path("restored"));
}

#[test]
fn a_restore_mends_what_it_meets() {
    let bench = Bench::with_key(&["a", "b"]);
    let source = bench.path("source");
    fill(&source, 1, 12, 90_000);
    let sid = bench.ok(&["backup", text(&source)])["snapshot"].as_str().unwrap().to_owned();
    let pack = largest_pack(&bench);
    let read = |region: &str| std::fs::read(bench.region(region).join(&pack)).unwrap();
    let good = read("a");
    flip(&bench, "a", &pack, &[50]);
    let bad = read("a");
    // Not where that is not wanted.
    let value = bench.ok(&["restore", &sid, "--target", "names-it", "--no-repair"]);
    assert!(value["findings"][0].as_str().unwrap().contains(&pack) && value.get("repair").is_none(), "{value:#}");
    assert!(read("a") == bad);
    let value = bench.ok(&["restore", &sid, "--target", "mends-it"]);
    assert_eq!((&value["repair"]["put_back"], &value["repair"]["left"]), (&1.into(), &0.into()), "{value:#}");
    assert!(read("a") == good && read("b") == good);
    let kept = bench.objects("a").into_iter().filter(|object| object.starts_with("quarantine/"));
    assert!(kept.map(|object| std::fs::read(bench.region("a").join(object)).unwrap()).any(|bytes| bytes == bad));
    crate::harness::assert_same(&source, &bench.path("mends-it"));
    assert_eq!(bench.ok(&["verify", "--level", "content"])["findings"], serde_json::json!([]));
    // What no region has is not made up, and the restore says what it lacks.
    ["a", "b"].iter().for_each(|region| flip(&bench, region, &pack, &[50]));
    let (code, value) = bench.json(&["restore", &sid, "--target", "partly"]);
    assert_eq!((code, &value["repair"]["put_back"], &value["repair"]["left"]), (5, &0.into(), &2.into()), "{value:#}");
}
