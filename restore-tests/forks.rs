//! Regions that are not there when it is decided who belongs to a repository, and come back: what was begun is decided
//! without them, what they made meanwhile is not believed, and what they lost is not taken for whole.

use crate::crash::{fill, interfere, restores, text};
use crate::harness::{Bench, files};
use crate::membership::{inside, names, place, refused, with_snapshot};
use crate::prune::beside::{log, shell};
use crate::replicate::{equal, flip};
use holdfast::base::Epoch;
use holdfast::format::objects::Member;
use holdfast::repo::members;
use holdfast::store::Key;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
}

/// Begins the next epoch at home without `goes`, and decides nothing. It is brought to the other regions, or to none.
fn begin(bench: &Bench, goes: &str, spread: bool) {
    let inside = inside(bench);
    let repo = &inside.repo;
    let keep = |member: &&Member| member.name != goes;
    let left: Vec<Member> = repo.epochs().members().iter().filter(keep).cloned().collect();
    let home = &repo.epochs().members()[0];
    let home = (0..repo.regions.len()).find(|ix| repo.regions.region(*ix).id == Some(home.id)).unwrap();
    members::begin(repo, repo.epochs(), home, left).unwrap();
    let now = repo.epochs_since(repo.epochs());
    for ix in (0..repo.regions.len()).filter(|_| spread) {
        members::copy_epochs(repo, &now, ix);
    }
}

fn ends(bench: &Bench, region: &str, epoch: u32) -> usize {
    let prefix = format!("epochs/{epoch:08}/end");
    bench.objects(region).iter().filter(|object| object.starts_with(&prefix)).count()
}

#[test]
fn a_member_that_dies_while_a_change_is_undecided_can_be_given_up() {
    // Home, which decides until then; what becomes home by that; or neither.
    for gone in ["a", "b", "c"] {
        let (mut bench, source) = with_snapshot(&["a", "b", "c", "d"]);
        begin(&bench, if gone == "b" { "a" } else { "d" }, true);
        let left: Vec<&'static str> = ["a", "b", "c", "d"]
            .into_iter()
            .filter(|r| *r != gone && *r != if gone == "b" { "a" } else { "d" })
            .collect();
        std::fs::rename(bench.region(gone), bench.path("gone")).unwrap();
        // Nothing else is changed, and with another one away neither is this.
        refused(&bench, 1, "cannot be used now", &["region", "remove", left[0]]);
        std::fs::rename(bench.region(left[0]), bench.path("away")).unwrap();
        refused(&bench, 1, "cannot be used now", &["region", "remove", gone, "--lost"]);
        std::fs::rename(bench.path("away"), bench.region(left[0])).unwrap();
        assert!(left.iter().all(|region| ends(&bench, region, 2) == 0), "{gone}: decided although one was away");
        let value = bench.ok(&["region", "remove", gone, "--lost"]);
        assert_eq!((names(&value), &value["epoch"]), (left.clone(), &json!(3)), "{gone}: {value:#}");
        assert!(left.iter().all(|region| ends(&bench, region, 2) == 1 && ends(&bench, region, 3) == 1), "{gone}");
        let all = std::mem::replace(&mut bench.regions, left.clone());
        let listed = bench.ok(&["region", "list"]);
        assert_eq!((names(&listed), &listed["decided"]), (left.clone(), &json!(true)), "{gone}: {listed:#}");
        assert_eq!(bench.ok(&["backup", text(&source)])["behind"], json!([]));
        equal(&bench, &format!("{gone} was given up"));
        // It comes back, and knows only what was begun.
        std::fs::rename(bench.path("gone"), bench.region(gone)).unwrap();
        bench.regions = all;
        let (code, value) = bench.json(&["backup", text(&source)]);
        assert_eq!((code, &value["regions"]), (4, &json!(left)), "{gone}: {value:#}");
    }
}

#[test]
fn a_member_that_is_emptied_while_a_change_is_undecided_is_replaced() {
    for gone in ["a", "b"] {
        let (mut bench, source) = with_snapshot(&["a", "b", "c", "d"]);
        begin(&bench, "d", true);
        std::fs::remove_dir_all(bench.region(gone)).unwrap();
        std::fs::create_dir(bench.region(gone)).unwrap();
        refused(&bench, 1, "cannot be used now", &["region", "remove", "c"]);
        let (code, value) = bench.json(&["region", "repair", gone, "--emptied"]);
        // d is named, and no member any more.
        assert_eq!((code, names(&value).len(), &value["epoch"]), (4, 3, &json!(3)), "{gone}: {value:#}");
        bench.regions.retain(|region| *region != "d");
        assert_eq!(bench.ok(&["region", "list"])["decided"], true);
        assert_eq!(bench.ok(&["backup", text(&source)])["behind"], json!([]));
        equal(&bench, &format!("{gone} was emptied"));
    }
}

/// Home a begins an epoch that nobody else sees, dies, and is given up; b and c go on with another epoch of that number.
fn forked(decided: bool) -> (Bench, std::path::PathBuf) {
    let (mut bench, source) = with_snapshot(&["a", "b", "c"]);
    begin(&bench, "b", false);
    std::fs::rename(bench.region("a"), bench.path("gone")).unwrap();
    if decided {
        bench.ok(&["region", "remove", "a", "--lost"]);
    } else {
        bench.regions = vec!["b", "c"];
        let inside = inside(&bench);
        let repo = &inside.repo;
        let left: Vec<Member> = repo.epochs().members().iter().skip(1).cloned().collect();
        members::begin(repo, repo.epochs(), 0, left).unwrap();
    }
    bench.regions = vec!["b", "c"];
    (bench, source)
}

/// A region that has something else at every key an end may have cannot be told that an epoch is decided: it is said which.
#[test]
fn a_region_without_a_key_for_the_end_of_an_epoch_is_named() {
    let (bench, _) = with_snapshot(&["a", "b"]);
    begin(&bench, "b", true);
    let inside = inside(&bench);
    let repo = &inside.repo;
    let now = repo.epochs_since(repo.epochs());
    members::end(repo, &now, 0, &now.unended().unwrap()).unwrap();
    let key = |suffix| Key::EpochEnd(Epoch(2), suffix);
    for path in (0..16).map(|suffix| bench.region("b").join(key(suffix).path())) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, b"something else").unwrap();
    }
    let why = members::bring_epochs(repo, &repo.epochs_since(&now), 1).unwrap_err().to_string();
    assert!(why.contains("region b") && why.contains("stand at every key"), "{why}");
}

/// While a change is begun at home, home is given up elsewhere by a change of that number, and comes back: what counts then is not
/// what was asked for, and nobody is told that it was done.
#[test]
fn a_change_that_another_one_took_the_place_of_is_not_said_to_be_made() {
    let (mut bench, _) = with_snapshot(&["a", "b", "c", "d"]);
    let (home, gone) = (text(&bench.region("a")).to_owned(), text(&bench.path("gone")).to_owned());
    let all = std::mem::replace(&mut bench.regions, vec!["b", "c", "d"]);
    let gives_up = shell(&bench, &["region", "remove", "a", "--lost"]);
    bench.regions = all;
    let (begun, once) = (bench.region("a").join("epochs/00000002/begin"), bench.path("once"));
    let (begun, once) = (text(&begun), text(&once));
    let hook = format!(
        "if [ -e {begun} ] && ! [ -e {once} ]; then touch {once}; mv {home} {gone}; {gives_up}; mv {gone} {home}; fi"
    );
    let ended = interfere(&bench, &format!("hooks:{hook}"), 1, &["region", "remove", "d", "--json"]);
    let said = std::fs::read_to_string(log(&bench)).unwrap_or_default();
    assert!(ended.code == 11 && ended.said.contains("somebody else changed the regions"), "{}\n{said}", ended.said);
    let (code, listed) = bench.json(&["region", "list"]);
    assert_eq!(
        (code, names(&listed), &listed["decided"]),
        (4, vec!["b", "c", "d"], &json!(true)),
        "{listed:#}\n{said}"
    );
}

fn back(bench: &mut Bench, regions: &[&'static str]) {
    std::fs::rename(bench.path("gone"), bench.region("a")).unwrap();
    bench.regions = regions.to_vec();
}

#[test]
fn a_home_that_was_given_up_comes_back_with_an_epoch_of_its_own_and_is_not_believed() {
    for order in [["a", "b", "c"], ["b", "a", "c"], ["c", "b", "a"]] {
        let (mut bench, source) = forked(true);
        back(&mut bench, &order);
        let before = bench.objects("a");
        let (code, listed) = bench.json(&["region", "list"]);
        assert_eq!(
            (code, names(&listed), &listed["decided"]),
            (4, vec!["b", "c"], &json!(true)),
            "{order:?}: {listed:#}"
        );
        let why = listed["outsiders"][0]["why"].to_string();
        assert!(why.contains("shows an epoch 2 of its own"), "{order:?}: {listed:#}");
        let (code, value) = bench.json(&["backup", text(&source)]);
        let members: Vec<&str> = order.into_iter().filter(|region| *region != "a").collect();
        assert_eq!((code, &value["regions"]), (4, &json!(members)), "{order:?}: {value:#}");
        assert_eq!(value["behind"].as_array().map(Vec::len), Some(1), "{order:?}: {value:#}");
        let new: Vec<String> = bench.objects("a").into_iter().filter(|object| !before.contains(object)).collect();
        assert!(new.iter().all(|object| object.starts_with("epochs/00000002/")), "{order:?}: {new:?}");
        // It was told meanwhile; its own stays where it is, and is passed over.
        let (_, listed) = bench.json(&["region", "list"]);
        assert!(listed["outsiders"][0]["why"].to_string().contains("epoch 2 removed it"), "{order:?}: {listed:#}");
        // A member's damaged copy is not mended with it.
        let begin = bench.region("b").join("epochs/00000002/begin");
        let good = std::fs::read(&begin).unwrap();
        flip(&begin);
        bench.json(&["verify", "--level", "content", "--repair"]);
        assert!(std::fs::read(&begin).unwrap() == good, "{order:?}");
        std::fs::remove_dir_all(bench.region("b").join("quarantine")).unwrap();
        bench.regions = vec!["b", "c"];
        bench.ok(&["region", "add", &place(&bench, "d")]);
        bench.regions.push("d");
        equal(&bench, &format!("{order:?}"));
    }
}

#[test]
fn changes_go_on_with_the_branch_of_the_members_however_old_the_fork_is() {
    for order in [["a", "b", "c", "d", "e"], ["e", "d", "c", "b", "a"]] {
        let (mut bench, source) = forked(true);
        for region in ["d", "e"] {
            bench.ok(&["region", "add", &place(&bench, region)]);
            bench.regions.push(region);
        }
        back(&mut bench, &order);
        let (code, listed) = bench.json(&["region", "list"]);
        let all = (code, names(&listed), &listed["epoch"]);
        assert_eq!(all, (4, vec!["b", "c", "d", "e"], &json!(4)), "{order:?}: {listed:#}");
        let (code, value) = bench.json(&["backup", text(&source)]);
        assert_eq!((code, value["regions"].as_array().map(Vec::len)), (4, Some(4)), "{order:?}: {value:#}");
        bench.ok(&["region", "remove", "e"]);
        let (_, listed) = bench.json(&["region", "list"]);
        assert_eq!((names(&listed), &listed["decided"]), (vec!["b", "c", "d"], &json!(true)), "{order:?}: {listed:#}");
    }
}

#[test]
fn of_two_undecided_epochs_one_is_decided_and_never_the_other() {
    for order in [["a", "b", "c"], ["c", "b", "a"]] {
        let (mut bench, _) = forked(false);
        back(&mut bench, &order);
        let (_, listed) = bench.json(&["region", "list"]);
        assert_eq!((names(&listed), &listed["decided"]), (vec!["b", "c"], &json!(false)), "{order:?}: {listed:#}");
        let (code, value) = bench.json(&["region", "add", &place(&bench, "d")]);
        assert_eq!((code, names(&value), &value["epoch"]), (4, vec!["b", "c", "d"], &json!(3)), "{order:?}: {value:#}");
        assert!(["a", "b", "c"].iter().all(|region| ends(&bench, region, 2) == 1), "{order:?}");
    }
}

#[test]
fn a_configuration_that_a_given_up_home_made_alone_does_not_count() {
    for order in [["a", "b", "c"], ["b", "c", "a"]] {
        let (mut bench, source) = with_snapshot(&["a", "b", "c"]);
        let (code, value) = bench.json_at(&["a"], &["--copies-min", "1", "key", "add", "--new-key-file", "at-a"]);
        assert!(code == 0 || code == 4, "{code}: {value:#}");
        // A snapshot that was made under it vouches for it.
        let (code, value) = bench.json_at(&["a"], &["--copies-min", "1", "backup", text(&source)]);
        assert!(code == 0 || code == 4, "{code}: {value:#}");
        std::fs::rename(bench.region("a"), bench.path("gone")).unwrap();
        bench.ok(&["region", "remove", "a", "--lost"]);
        bench.regions = vec!["b", "c"];
        let ours = bench.ok(&["key", "add", "--new-key-file", "at-b"])["slot"].clone();
        bench.ok(&["backup", text(&source)]);
        back(&mut bench, &order);
        let listed = bench.json(&["key", "list"]).1;
        let slots: Vec<&Value> = listed["slots"].as_array().unwrap().iter().map(|slot| &slot["id"]).collect();
        assert!(slots.len() == 2 && slots.contains(&&ours) && listed["config"] == 2, "{order:?}: {listed:#}");
        let (code, value) = bench.json(&["backup", text(&source)]);
        assert_eq!((code, &value["regions"]), (4, &json!(["b", "c"])), "{order:?}: {value:#}");
        assert_eq!(bench.json(&["snapshots"]).1["snapshots"].as_array().map(Vec::len), Some(4), "{order:?}");
        // Without it nothing is missed.
        let members = Bench { regions: vec!["b", "c"], ..bench.copy() };
        equal(&members, &format!("{order:?}"));
        bench.key = Some(bench.path("at-a"));
        let (code, value) = bench.json(&["key", "test"]);
        assert!(code == 12 && value["error"].to_string().contains("removed"), "{order:?}: {value:#}");
    }
}

/// What was made in a region alone that is no member any more, by a machine that did not know: a snapshot, a marker of one that
/// the others show, tags.
#[test]
fn what_a_region_says_that_is_no_member_is_carried_nowhere() {
    let (bench, source) = with_snapshot(&["c", "a", "b"]);
    let first = bench.ok(&["snapshots"])["snapshots"][0]["id"].as_str().unwrap().to_owned();
    copy(&bench.region("c"), &bench.path("old"));
    bench.ok(&["region", "remove", "c"]);
    std::fs::remove_dir_all(bench.region("c")).unwrap();
    std::fs::rename(bench.path("old"), bench.region("c")).unwrap();
    let (new, alone) = (bench.path("new"), ["c"]);
    fill(&new, 500, 3, 90_000);
    let act = |args: &[&str]| {
        let (code, value) = bench.json_at(&alone, &[&["--copies-min", "1"], args].concat());
        assert!(code == 0 || code == 4, "{args:?}: {code}: {value:#}");
        value
    };
    let second = act(&["backup", text(&new)])["snapshot"].as_str().unwrap().to_owned();
    act(&["hold", "add", &second, "--reason", "wanted"]);
    act(&["tag", &first, "--add", "stale"]);
    act(&["forget", "--last", &first]);
    let before = [bench.objects("a"), bench.objects("b")];
    // It is read: its snapshot is listed, and can be restored.
    restores_from(&bench, &second, &new);
    let (code, value) = bench.json(&["replicate"]);
    assert_eq!(code, 4, "{value:#}");
    assert!(value["regions"][0]["failed"].to_string().contains("epoch 2 removed it"), "{value:#}");
    let others = value["regions"].as_array().unwrap().iter().filter(|region| region["region"] != "c");
    assert!(others.clone().count() == 2 && others.clone().all(|region| region["complete"] == true), "{value:#}");
    let (code, value) = bench.json(&["backup", text(&source)]);
    assert_eq!((code, &value["regions"]), (4, &json!(["a", "b"])), "{value:#}");
    for (region, before) in ["a", "b"].into_iter().zip(before) {
        let now = bench.objects(region);
        let kinds = ["snapshots/", "forgotten/", "holds/", "tags/", "keys/", "config/"];
        let came = now.iter().filter(|o| !before.contains(o) && kinds.iter().any(|kind| o.starts_with(kind)));
        // That of the backup just now.
        assert_eq!(came.clone().count(), 1, "{region}: {:?}", came.collect::<Vec<_>>());
        assert!(!now.contains(&format!("snapshots/{second}")), "{region}");
    }
    let (code, value) = bench.json(&["verify"]);
    assert_eq!(code, 4, "{value:#}");
    assert!(value["behind"].to_string().contains("1 snapshots are in no member"), "{value:#}");
    // A pack names itself: where no member has it any more, it is good for the others.
    let packs: Vec<_> =
        bench.objects("a").into_iter().filter(|o| o.starts_with("packs/") && before_has(&bench, o)).collect();
    assert!(!packs.is_empty());
    for pack in &packs {
        ["a", "b"].iter().for_each(|region| std::fs::remove_file(bench.region(region).join(pack)).unwrap());
    }
    bench.json(&["replicate"]);
    for region in ["a", "b"] {
        assert!(packs.iter().all(|pack| bench.region(region).join(pack).exists()), "{region}");
        let (code, value) = bench.json_at(&[region], &["--copies-min", "1", "verify", "--level", "content"]);
        assert_eq!(code, 0, "{region}: {value:#}");
    }
}

fn before_has(bench: &Bench, object: &str) -> bool {
    bench.region("c").join(object).exists()
}

fn restores_from(bench: &Bench, sid: &str, source: &Path) {
    restores(bench, sid, source, "from what is no member");
}

#[test]
fn a_region_that_kept_nothing_but_its_mark_is_not_opened_again_by_a_backup() {
    for gone in ["b", "a"] {
        let (bench, source) = with_snapshot(&["a", "b"]);
        for file in files(&bench.region(gone)) {
            if !file.ends_with("region") {
                std::fs::remove_file(file).unwrap();
            }
        }
        let command = format!("holdfast region repair {gone} --emptied");
        for args in [&["backup", text(&source)][..], &["replicate"], &["backup", text(&source)]] {
            let (code, value) = bench.json(&[&["--copies-min", "1"], args].concat());
            assert_eq!(code, 4, "{gone}: {args:?}: {value:#}");
            let said = value.to_string();
            assert!(said.contains("was emptied") && said.contains(&command), "{gone}: {value:#}");
            assert_eq!(bench.objects(gone), ["region"], "{gone}: {args:?}");
        }
        let (code, listed) = bench.json(&["region", "list"]);
        assert!(code == 4 && listed["members"].to_string().contains("was emptied"), "{gone}: {listed:#}");
        refused(&bench, 11, "nothing but its mark is there", &["region", "repair", gone]);
        assert_eq!(bench.objects(gone), ["region"]);
        let value: Value = bench.ok(&["region", "repair", gone, "--emptied"]);
        assert_eq!(names(&value).len(), 2, "{value:#}");
        assert_eq!(bench.ok(&["backup", text(&source)])["regions"], json!(["a", "b"]));
        equal(&bench, &format!("{gone} kept its mark"));
    }
}
