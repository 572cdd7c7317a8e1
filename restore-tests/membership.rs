//! Which regions a repository has is in the repository: they are added, removed and replaced while everything else goes on,
//! and whatever cuts that off.

use crate::crash::{complete_alone, fill, interfere, sweep, text};
use crate::harness::start;
use crate::harness::{Bench, files, noise, opened};
use crate::inside::{Inside, plant};
use crate::replicate::{equal, flip};
use holdfast::base::{Cancel, Generation, SessionId};
use holdfast::format::envelope::Kind as ObjectKind;
use holdfast::format::objects::Member;
use holdfast::ops::membership;
use holdfast::ops::replicate::Means;
use holdfast::repo::members;
use holdfast::repo::session::{Errand, Session};
use holdfast::store::Key;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

/// The repository of a bench with a key file, in this process.
pub fn inside(bench: &Bench) -> Inside {
    Inside::with_key(bench, noise(0x6b65_7900, 32).try_into().unwrap())
}

pub fn with_snapshot(regions: &[&'static str]) -> (Bench, PathBuf) {
    let bench = Bench::with_key(regions);
    let source = bench.path("source");
    fill(&source, 1, 8, 80_000);
    bench.ok(&["backup", text(&source)]);
    (bench, source)
}

pub fn place(bench: &Bench, region: &str) -> String {
    format!("{region}={}", bench.region(region).display())
}

pub fn names(value: &Value) -> Vec<&str> {
    value["members"]
        .as_array()
        .unwrap_or_else(|| panic!("{value:#}"))
        .iter()
        .map(|m| m["name"].as_str().unwrap())
        .collect()
}

/// The change was refused, or could not be made, with these words.
pub fn refused(bench: &Bench, code: i32, words: &str, args: &[&str]) {
    let (ended, value) = bench.json(args);
    assert!(ended == code && value["error"].to_string().contains(words), "{args:?}: {ended}: {value:#}");
}

#[test]
fn a_fourth_region_is_added_while_a_backup_runs() {
    let (mut bench, source) = with_snapshot(&["a", "b", "c"]);
    fill(&source.join("new"), 100, 20, 700_000);
    let backup = start(&bench, &["backup", text(&source)]);
    let value = bench.ok(&["region", "add", &place(&bench, "d")]);
    assert_eq!((names(&value), &value["epoch"]), (vec!["a", "b", "c", "d"], &json!(2)), "{value:#}");
    assert!(value["todo"].as_str().unwrap().contains("add `{name: d, url: "), "{value:#}");
    let backup = end_of(backup);
    assert!(backup.0 == 0 || backup.0 == 4, "{:#}", backup.1);
    // Who does not name it yet is told, and so is who removes another meanwhile.
    let (code, behind) = bench.json(&["backup", text(&source)]);
    assert_eq!((code, &behind["behind"][0]["region"]), (4, &json!("d")), "{behind:#}");
    assert!(behind["behind"][0]["why"].to_string().contains("does not name it"), "{behind:#}");
    refused(&bench, 1, "region d is a member and cannot be used now", &["region", "remove", "c"]);
    bench.regions.push("d");
    bench.ok(&["replicate"]);
    bench.ok(&["replicate"]);
    equal(&bench, "with d");
    let listed = bench.ok(&["region", "list"]);
    assert_eq!((names(&listed), &listed["decided"]), (vec!["a", "b", "c", "d"], &json!(true)), "{listed:#}");
    assert_eq!(bench.ok(&["backup", text(&source)])["regions"], json!(["a", "b", "c", "d"]));
    let again = bench.ok(&["region", "add", &place(&bench, "d")]);
    assert_eq!((&again["epoch"], &again["todo"]), (&Value::Null, &Value::Null), "{again:#}");
    assert_eq!(names(&again).len(), 4);
}

fn end_of(child: std::process::Child) -> (i32, Value) {
    let out = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    (out.status.code().unwrap_or(-1), serde_json::from_str(&said).unwrap_or_else(|e| panic!("{e}: {said}")))
}

/// What a run had stored in a region is gone with it: where the run decides it must not make its snapshot any more.
#[test]
fn a_session_that_used_a_region_which_is_filled_again_is_ended_where_it_decides() {
    let (bench, _) = with_snapshot(&["a", "b", "c"]);
    let inside = inside(&bench);
    let repo = &inside.repo;
    let errand = Errand { host: "host".into(), source: "source".into(), generation: Generation(1) };
    let session = Session::announce(repo, errand, None).unwrap();
    std::fs::remove_dir_all(bench.region("c")).unwrap();
    std::fs::create_dir(bench.region("c")).unwrap();
    bench.ok(&["region", "repair", "c", "--emptied"]);
    let key = Key::Snapshot(session.sid);
    let ended = repo.regions.get(session.decision, &key, 1 << 20).expect("it could commit yet");
    assert_eq!(repo.open_object(&key, &ended).unwrap().kind, ObjectKind::Tombstone);
}

/// Writers go by what every region has that they use: one that has nothing yet would make them store all of it again.
#[test]
fn a_region_is_filled_before_it_becomes_a_member() {
    let (bench, _) = with_snapshot(&["a", "b"]);
    let (begun, seen) = (bench.region("a").join("epochs/00000002/begin"), bench.path("seen"));
    let (begun, list, d) = (text(&begun), text(&seen), bench.region("d"));
    let find = format!("(cd {} && find packs index snapshots -type f)", text(&d));
    let hook = format!("if [ -e {begun} ] && ! [ -e {list} ]; then {find} > {list}; fi");
    let ended = interfere(&bench, &format!("hooks:{hook}"), 1, &["region", "add", &place(&bench, "d")]);
    assert_eq!(ended.code, 0, "{}", ended.said);
    let seen: BTreeSet<String> = std::fs::read_to_string(&seen).unwrap().lines().map(str::to_owned).collect();
    let is_content = |object: &String| ["packs/", "index/", "snapshots/"].iter().any(|dir| object.starts_with(dir));
    let wanted: BTreeSet<String> = bench.objects("a").into_iter().filter(is_content).collect();
    assert!(!wanted.is_empty() && seen == wanted, "when it became a member it had {seen:?}");
}

#[test]
fn any_instant_crash_of_adding_a_region() {
    let (bench, source) = with_snapshot(&["a", "b"]);
    let args = ["region", "add", "d=region-d"];
    let all = ["a", "b", "d"];
    sweep("region add", &bench, &args, |case, code, context| {
        complete_alone(case, context);
        // Half a region is no copy, whoever names it; what it shows is whole.
        let (ended, value) = case.json_at(&all, &["backup", text(&source)]);
        let member = value["regions"].as_array().is_some_and(|regions| regions.contains(&json!("d")));
        assert!(ended == 4 || (ended == 0 && member), "{context}: {ended}: {value:#}");
        assert!(member || code != 0, "{context}: {value:#}");
        if case.region("d").join("region").exists() {
            let (_, shown) = case.json_at(&["a", "d"], &["verify", "--level", "content"]);
            assert_eq!((&shown["findings"], &shown["broken"]), (&json!([]), &json!([])), "{context}: {shown:#}");
        }
        let again = case.ok(&args);
        assert_eq!(names(&again), ["a", "b", "d"], "{context}: {again:#}");
        let mut whole = case.copy();
        whole.regions = all.to_vec();
        whole.ok(&["replicate"]);
        equal(&whole, context);
        assert_eq!(whole.ok(&["region", "list"])["decided"], true, "{context}");
    });
}

#[test]
fn a_place_that_is_no_empty_region_is_not_added() {
    let (bench, _) = with_snapshot(&["a", "b"]);
    let (other, _) = with_snapshot(&["a"]);
    std::fs::create_dir(bench.path("full")).unwrap();
    std::fs::write(bench.path("full/photo.jpg"), b"somebody's").unwrap();
    refused(&bench, 11, "the folder is not empty", &["region", "add", "d=full"]);
    refused(
        &bench,
        11,
        "another repository is here",
        &["region", "add", &format!("d={}", other.region("a").display())],
    );
    refused(&bench, 2, "is the same store as region b", &["region", "add", "b2=region-b"]);
    refused(&bench, 2, "names another place for region b", &["region", "add", "b=elsewhere"]);
    refused(&bench, 2, "names no region", &["region", "add", "elsewhere"]);
    assert!(!bench.path("elsewhere").exists());
    assert_eq!(names(&bench.ok(&["region", "list"])), ["a", "b"]);
}

#[test]
fn an_emptied_region_is_recognised_and_filled_again() {
    for gone in ["b", "a"] {
        let (bench, source) = with_snapshot(&["a", "b", "c"]);
        let old = bench.ok(&["region", "list"])["members"].clone();
        std::fs::remove_dir_all(bench.region(gone)).unwrap();
        std::fs::create_dir(bench.region(gone)).unwrap();
        let (code, value) = bench.json(&["backup", text(&source)]);
        let said = value["behind"][0].to_string();
        assert!(code == 4 && said.contains(&format!("holdfast region repair {gone} --emptied")), "{value:#}");
        refused(&bench, 11, "say --emptied", &["region", "repair", gone]);
        assert_eq!(bench.objects(gone), Vec::<String>::new());
        let value = bench.ok(&["region", "repair", gone, "--emptied"]);
        assert_eq!((value["epoch"].as_u64(), names(&value).len()), (Some(2), 3), "{value:#}");
        // It is another region by its id, and decides nothing that the old one may have decided.
        let ids = |of: &Value| -> Vec<String> { of.as_array().unwrap().iter().map(|m| m["id"].to_string()).collect() };
        assert_eq!(ids(&old).iter().filter(|id| !ids(&value["members"]).contains(id)).count(), 1, "{value:#}");
        assert_ne!(names(&value)[0], if gone == "a" { "a" } else { "b" });
        equal(&bench, &format!("{gone} was emptied"));
        assert_eq!(bench.ok(&["backup", text(&source)])["regions"], json!(["a", "b", "c"]));
        bench.ok(&["key", "add", "--new-key-file", "spare"]);
        equal(&bench, &format!("{gone} was emptied, and keys changed"));
    }
}

#[test]
fn any_instant_crash_of_repairing_an_emptied_region() {
    let (bench, source) = with_snapshot(&["a", "b", "c"]);
    std::fs::remove_dir_all(bench.region("c")).unwrap();
    std::fs::create_dir(bench.region("c")).unwrap();
    let args = ["region", "repair", "c", "--emptied"];
    sweep("region repair", &bench, &args, |case, _, context| {
        for region in ["a", "b"] {
            let (code, value) = case.json_at(&[region], &["verify", "--level", "content"]);
            assert_eq!(code, 0, "{context}: {value:#}");
        }
        let (code, value) = case.json(&["backup", text(&source)]);
        assert!(code == 0 || code == 4, "{context}: {code}: {value:#}");
        case.ok(&args);
        case.ok(&["replicate"]);
        case.ok(&["replicate"]);
        equal(case, context);
    });
}

#[test]
fn a_region_that_lost_its_mark_alone_is_taken_up_again() {
    let (bench, _) = with_snapshot(&["a", "b"]);
    std::fs::remove_file(bench.region("b").join("region")).unwrap();
    let before = files(&bench.region("b").join("packs"));
    let value = bench.ok(&["region", "repair", "b", "--emptied"]);
    let moved = value["regions"].as_array().unwrap().iter().find(|r| r["region"] == "b").unwrap()["objects"].as_u64();
    assert!(moved < Some(4), "what was there was sent again: {value:#}");
    assert_eq!(files(&bench.region("b").join("packs")).len(), before.len());
    equal(&bench, "with another mark");
}

/// Region c as it was two changes ago.
fn rolled_back() -> (Bench, PathBuf) {
    let (mut bench, source) = with_snapshot(&["a", "b", "c"]);
    let old = bench.path("old");
    let copied = std::process::Command::new("cp").arg("-a").arg(bench.region("c")).arg(&old).status().unwrap();
    assert!(copied.success());
    for region in ["d", "e"] {
        bench.ok(&["region", "add", &place(&bench, region)]);
        bench.regions.push(region);
    }
    fill(&source.join("new"), 100, 4, 90_000);
    bench.ok(&["backup", text(&source)]);
    std::fs::remove_dir_all(bench.region("c")).unwrap();
    std::fs::rename(&old, bench.region("c")).unwrap();
    (bench, source)
}

#[test]
fn a_region_that_was_rolled_back_is_not_written_until_it_is_repaired() {
    let (bench, source) = rolled_back();
    let before = bench.objects("c");
    let (code, value) = bench.json(&["backup", text(&source)]);
    assert_eq!(code, 4, "{value:#}");
    assert!(value["behind"][0]["why"].to_string().contains("was rolled back: it shows epoch 1"), "{value:#}");
    assert_eq!(bench.objects("c"), before);
    refused(&bench, 1, "region c is a member and cannot be used now", &["region", "remove", "e"]);
    assert_eq!(bench.objects("c"), before);
    let value = bench.ok(&["region", "repair", "c"]);
    assert_eq!((&value["epoch"], names(&value)), (&Value::Null, vec!["a", "b", "c", "d", "e"]), "{value:#}");
    bench.ok(&["replicate"]);
    equal(&bench, "brought forward");
    assert_eq!(bench.ok(&["backup", text(&source)])["regions"], json!(["a", "b", "c", "d", "e"]));
}

#[test]
fn a_region_is_removed_once_the_others_have_everything() {
    let (mut bench, source) = with_snapshot(&["a", "b", "c"]);
    // Only c has the newest snapshot.
    fill(&source.join("new"), 100, 4, 90_000);
    let (code, _) = bench.json_at(&["c"], &["--copies-min", "1", "backup", text(&source)]);
    assert_eq!(code, 4, "a and b are members that it does not name");
    refused(&bench, 11, "2 regions would be left", &["--copies-min", "3", "region", "remove", "c"]);
    refused(&bench, 11, "it answers, so it is not lost", &["region", "remove", "c", "--lost"]);
    let value = bench.ok(&["region", "remove", "c"]);
    assert_eq!((names(&value), value["objects"].as_u64() > Some(0)), (vec!["a", "b"], true), "{value:#}");
    // Who still names it reads it, and writes nothing there.
    let before = bench.objects("c");
    let (code, value) = bench.json(&["backup", text(&source)]);
    assert_eq!((code, &value["regions"]), (4, &json!(["a", "b"])), "{value:#}");
    assert!(value["behind"][0]["why"].to_string().contains("epoch 2 removed it"), "{value:#}");
    assert_eq!(bench.objects("c"), before);
    assert_eq!(bench.json(&["region", "list"]).0, 4);
    bench.regions.retain(|region| *region != "c");
    equal(&bench, "without c");
    assert_eq!(bench.ok(&["snapshots"])["snapshots"].as_array().unwrap().len(), 3);
    refused(&bench, 11, "was removed from the repository by epoch 2", &["region", "add", "c=region-c"]);
    std::fs::remove_dir_all(bench.region("c")).unwrap();
    assert_eq!(names(&bench.ok(&["region", "add", "c=region-c"])), ["a", "b", "c"]);
}

#[test]
fn any_instant_crash_of_removing_a_region() {
    let (bench, source) = with_snapshot(&["a", "b", "c"]);
    let args = ["region", "remove", "a"];
    sweep("region remove", &bench, &args, |case, _, context| {
        for region in ["b", "c"] {
            let (code, value) = case.json_at(&[region], &["verify", "--level", "content"]);
            assert_eq!(code, 0, "{context}: {value:#}");
        }
        let (code, value) = case.json(&["backup", text(&source)]);
        assert!(code == 0 || code == 4, "{context}: {code}: {value:#}");
        let (code, value) = case.json(&args);
        // It is done, or it was.
        assert!(code == 0 || (code == 1 && value["error"]["kind"] == "not-found"), "{context}: {code} {value:#}");
        let mut left = case.copy();
        left.regions = vec!["b", "c"];
        let listed = left.ok(&["region", "list"]);
        assert_eq!((names(&listed), &listed["decided"]), (vec!["b", "c"], &json!(true)), "{context}");
        left.ok(&["replicate"]);
        left.ok(&["replicate"]);
        equal(&left, context);
    });
}

#[test]
fn a_region_with_the_only_good_copy_is_not_removed() {
    let (bench, _) = with_snapshot(&["a", "b", "c"]);
    let pack = files(&bench.region("a").join("packs")).remove(0);
    let name = pack.strip_prefix(bench.region("a")).unwrap().to_owned();
    for region in ["a", "b"] {
        flip(&bench.region(region).join(&name));
    }
    refused(&bench, 11, "the only good copy", &["region", "remove", "c"]);
    assert_eq!(names(&bench.ok(&["region", "list"])).len(), 3);
    // A damaged one may go.
    let (whole, _) = with_snapshot(&["a", "b", "c"]);
    let pack = files(&whole.region("c").join("packs")).remove(0);
    flip(&pack);
    assert_eq!(names(&whole.ok(&["region", "remove", "c"])), ["a", "b"]);
}

/// A session was ended in the regions that stay, for their sake, as they had been filled again. It made its snapshot all the same,
/// where it decides: to a listing its end looks like it.
#[test]
fn a_region_whose_snapshot_ended_everywhere_else_is_not_removed_by_trust_in_listings() {
    let (bench, source) = with_snapshot(&["a", "b", "c"]);
    fill(&source.join("new"), 100, 2, 50_000);
    let (code, made) = bench.json_at(&["c"], &["--copies-min", "1", "backup", text(&source)]);
    assert_eq!(code, 4, "{made:#}");
    let sid = made["snapshot"].as_str().unwrap();
    {
        let inside = inside(&bench);
        let (repo, id) = (&inside.repo, SessionId::parse(sid).unwrap());
        let end = members::tombstone(repo, repo.epochs(), id, "filled again").unwrap();
        ["a", "b"].iter().for_each(|region| plant(&bench.region(region), &format!("snapshots/{sid}"), &end));
    }
    let args = ["region", "remove", "c", "--trust-listings"];
    refused(&bench, 11, "ended in every region that stays", &args);
    assert_eq!(names(&bench.json(&["region", "list"]).1), ["a", "b", "c"]);
    bench.json(&["forget", sid]);
    assert_eq!(names(&bench.ok(&args)), ["a", "b"], "nobody wants it any more");
}

/// Another whole object stands at a key of one member: listings and checksums say nothing of it.
#[test]
fn a_member_that_does_not_show_every_snapshot_alone_keeps_the_others_from_going() {
    let (bench, source) = with_snapshot(&["a", "b", "c"]);
    fill(&source.join("new"), 100, 2, 50_000);
    bench.ok(&["backup", text(&source)]);
    bench.ok(&["key", "add", "--new-key-file", "spare"]);
    let swapped = |prefix: &str| {
        let case = bench.copy();
        let all: Vec<String> = case.objects("b").into_iter().filter(|o| o.starts_with(prefix)).collect();
        assert!(all.len() >= 2, "{prefix}: {all:?}");
        let (one, other) = (case.region("b").join(&all[0]), case.region("b").join(&all[1]));
        std::fs::copy(one, other).unwrap();
        case
    };
    for (prefix, words) in [("snapshots/", "does not show snapshot"), ("config/", "region b: ")] {
        let case = swapped(prefix);
        refused(&case, 11, words, &["region", "remove", "c"]);
        assert_eq!(names(&case.json(&["region", "list"]).1), ["a", "b", "c"], "{prefix}");
        assert!(case.objects("a").iter().all(|o| !o.starts_with("epochs/00000002")), "{prefix}");
    }
    assert_eq!(names(&bench.ok(&["region", "remove", "c"])), ["a", "b"]);
}

#[test]
fn no_epoch_is_begun_unless_every_member_that_stays_answers() {
    let (bench, _) = with_snapshot(&["a", "b", "c"]);
    {
        let inside = inside(&bench);
        let cancel = Cancel::default();
        let means = Means { workers: 1, progress: None, cancel: &cancel };
        let who = membership::find(&inside.repo, "c").unwrap();
        membership::may_go(&inside.repo, &who, false, means).unwrap();
        // From here on b cannot be listed.
        symlink("loop", bench.region("b").join("epochs/loop")).unwrap();
        let e = membership::remove(&inside.repo, &who, false, means).unwrap_err();
        assert!(e.to_string().contains("region b is a member and cannot be used now"), "{e}");
    }
    for region in ["a", "b", "c"] {
        assert!(bench.objects(region).iter().all(|o| !o.starts_with("epochs/00000002")), "{region}");
    }
    std::fs::remove_file(bench.region("b").join("epochs/loop")).unwrap();
    assert_eq!(names(&bench.ok(&["region", "remove", "c"])), ["a", "b"]);
}

#[test]
fn a_region_that_is_lost_is_removed_by_a_persons_word_alone() {
    for gone in ["c", "a"] {
        let (mut bench, source) = with_snapshot(&["a", "b", "c"]);
        std::fs::remove_dir_all(bench.region(gone)).unwrap();
        refused(&bench, 11, "it does not answer", &["region", "remove", gone]);
        // While home is away nothing else is changed.
        refused(&bench, 1, "cannot be used now", &["region", "remove", "b"]);
        let value = bench.ok(&["region", "remove", gone, "--lost"]);
        let left: Vec<&str> = ["a", "b", "c"].into_iter().filter(|region| *region != gone).collect();
        assert_eq!((names(&value), &value["lost"]), (left, &json!(true)), "{value:#}");
        bench.regions.retain(|region| *region != gone);
        assert_eq!(bench.ok(&["backup", text(&source)])["behind"], json!([]));
        bench.ok(&["key", "add", "--new-key-file", "spare"]);
        equal(&bench, &format!("{gone} was lost"));
        let (code, value) = bench.json(&["region", "remove", "b", "--lost"]);
        assert_eq!(code, 11, "{value:#}");
    }
}

#[test]
fn a_change_that_was_begun_is_finished_by_the_next_one() {
    let (bench, source) = (Bench::new(&["a", "b", "c"]), "source");
    fill(&bench.path(source), 1, 8, 80_000);
    {
        let repo = opened(&bench);
        let left: Vec<Member> = repo.epochs().members().iter().take(2).cloned().collect();
        members::begin(&repo, repo.epochs(), 0, left).unwrap();
        let again = members::begin(&repo, repo.epochs(), 0, repo.epochs().members().to_vec()).unwrap_err();
        assert!(again.to_string().contains("somebody else began an epoch just now"), "{again}");
    }
    let (code, listed) = bench.json(&["region", "list"]);
    assert_eq!((code, &listed["decided"], names(&listed)), (4, &json!(false), vec!["a", "b"]), "{listed:#}");
    // Backups go on meanwhile, into the members that are left.
    let (code, value) = bench.json(&["backup", source]);
    assert_eq!((code, &value["regions"]), (4, &json!(["a", "b"])), "{value:#}");
    let value = bench.json(&["region", "add", &place(&bench, "d")]).1;
    assert_eq!((names(&value), &value["epoch"]), (vec!["a", "b", "d"], &json!(3)), "{value:#}");
    assert_eq!(bench.json(&["region", "list"]).1["decided"], true);
}

#[test]
fn two_who_add_at_once_both_come_to_an_end() {
    let (mut bench, _) = with_snapshot(&["a", "b"]);
    let running = ["d", "e"].map(|region| start(&bench, &["region", "add", &place(&bench, region)]));
    let codes = running.map(|child| end_of(child).0);
    assert!(codes.iter().all(|code| [0, 1, 4, 11].contains(code)) && codes.contains(&0), "{codes:?}");
    for region in ["d", "e"] {
        let args = ["region", "add", &place(&bench, region)];
        let named: Vec<&str> = bench.regions.iter().copied().chain(["d", "e"]).collect();
        // The other one may be no member yet.
        let (code, value) = bench.json_at(&named, &args);
        assert!(code == 0 || code == 4, "{code}: {value:#}");
    }
    bench.regions.extend(["d", "e"]);
    bench.ok(&["replicate"]);
    bench.ok(&["replicate"]);
    equal(&bench, "two more");
    let mut all = names(&bench.ok(&["region", "list"])).iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    all.sort();
    assert_eq!(all, ["a", "b", "d", "e"]);
}
