//! Holds against forgetting, in every order; and two that forget at once.

use super::past::{DAY, HOUR, Made, Past, Snap, at};
use super::{ids, kept, plan};
use holdfast::base::{Cancel, HoldId, SessionId, TimeMs};
use holdfast::error::Kind;
use holdfast::format::envelope::Kind as ObjectKind;
use holdfast::format::objects::Hold;
use holdfast::ops::{forget, hold};
use holdfast::repo::holds::Holds;
use holdfast::repo::view::View;
use holdfast::store::Key;
use serde_json::json;

const T: i64 = 1_700_000_000_000;

fn hourly(past: &Past, count: i64) -> Vec<Made> {
    (0..count).map(|n| past.make(&Snap::at(T + n * HOUR))).collect()
}

fn sid(made: &Made) -> SessionId {
    SessionId::parse(&made.id).unwrap()
}

#[test]
fn what_is_held_is_not_forgotten_until_the_hold_is_removed() {
    let past = Past::new(&["a", "b"]);
    let made = hourly(&past, 4);
    let held = past.bench.ok(&["hold", "add", &made[0].id, "--reason", "a court wants it"]);
    assert_eq!((&held["regions"], &held["until"]), (&json!(["a", "b"]), &json!(null)));
    let id = held["hold"].as_str().unwrap();
    let (code, refused) = past.bench.json(&["forget", &made[0].id]);
    assert_eq!(code, 11, "{refused:#}");
    let advice = refused["error"]["advice"].as_str().unwrap();
    assert!(refused["error"]["what"].as_str().unwrap().ends_with("is held: a court wants it"), "{refused:#}");
    assert!(advice.ends_with(&format!("holdfast hold remove {}", &id[..8])), "{advice}");
    assert_eq!(plan(&past, &["--keep-last", "1"]).1[&made[0].id], ["held"]);
    past.bench.ok(&["forget", "--keep-last", "1"]);
    assert_eq!(past.visible("data"), ids([&made[0], &made[3]]));
    // Shown beside the snapshot, and in a list.
    let shown = past.bench.ok(&["snapshots", "--name", "data"]);
    assert_eq!(shown["snapshots"][0]["holds"][0]["id"], id);
    assert_eq!(shown["snapshots"][1]["holds"], json!([]));
    assert_eq!(past.text(&["snapshots"]).lines().filter(|line| line.ends_with("  HELD")).count(), 1);
    let listed = past.bench.ok(&["hold", "list"]);
    let one = &listed["holds"][0];
    assert_eq!((&one["state"], &one["active"], &one["source"]), (&json!("visible"), &json!(true), &json!("data")));
    past.bench.ok(&["hold", "remove", &id[..8]]);
    assert_eq!(past.bench.ok(&["hold", "list"])["holds"], json!([]));
    let (code, again) = past.bench.json(&["hold", "remove", id]);
    assert_eq!(code, 1, "{again:#}");
    assert!(again["error"]["what"].as_str().unwrap().contains("released already"), "{again:#}");
    assert_eq!(past.bench.json(&["hold", "remove", "00"]).0, 1);
    past.bench.ok(&["forget", "--keep-last", "1"]);
    assert_eq!(past.visible("data"), ids([&made[3]]));
    // What was forgotten cannot be held.
    assert_eq!(past.bench.json(&["hold", "add", &made[0].id, "--reason", "late"]).0, 1);
}

#[test]
fn a_hold_that_comes_after_the_marker_is_released_again() {
    let past = Past::new(&["a", "b"]);
    let made = hourly(&past, 2);
    let view = View::load(&past.inside.repo).unwrap();
    // One region's marker is enough.
    past.bench.ok(&["forget", &made[0].id]);
    std::fs::remove_file(past.bench.region("a").join(Key::Forgotten(sid(&made[0])).path())).unwrap();
    let snapshot = &view.snapshots[&sid(&made[0])];
    let e = hold::add(&past.inside.repo, snapshot, "too late", None).unwrap_err();
    assert_eq!(e.kind(), Kind::NotFound, "{e}");
    let holds = Holds::load(&past.inside.repo);
    assert!(holds.all.is_empty() && holds.released.len() == 1);
    for region in ["a", "b"] {
        let objects = past.bench.objects(region);
        assert_eq!(objects.iter().filter(|o| o.starts_with("holds/")).count(), 2, "{objects:?}");
    }
}

#[test]
fn forgetting_sees_a_hold_that_was_made_after_its_plan() {
    let past = Past::new(&["a", "b"]);
    let made = hourly(&past, 3);
    let repo = &past.inside.repo;
    let view = View::load(repo).unwrap();
    let chosen = [forget::Target::of(&view.snapshots[&sid(&made[0])])];
    let held = past.bench.ok(&["hold", "add", &made[0].id, "--reason", "first"]);
    // One region's hold is enough.
    let key = Key::Hold(HoldId::parse(held["hold"].as_str().unwrap()).unwrap());
    std::fs::remove_file(past.bench.region("a").join(key.path())).unwrap();
    let e = forget::run(repo, &view, &chosen, false, "", &Cancel::new()).unwrap_err();
    assert_eq!(e.kind(), Kind::Refused, "{e}");
    assert_eq!(past.visible("data"), ids(&made));
}

#[test]
fn a_hold_ends_with_its_last_day() {
    let past = Past::new(&["a"]);
    let made = hourly(&past, 3);
    let held = past.bench.ok(&["hold", "add", &made[0].id, "--reason", "a drill", "--until", "2d"]);
    assert!(held["until"].is_string(), "{held:#}");
    assert_eq!(past.bench.json(&["forget", &made[0].id]).0, 11);
    let then = past.opened_at(T + 10 * DAY);
    let view = View::load(&then.repo).unwrap();
    let end = TimeMs(T + 11 * DAY);
    let (hold, _) = hold::add(&then.repo, &view.snapshots[&sid(&made[1])], "a day", Some(end)).unwrap();
    assert_eq!(hold.until, Some(end.0));
    let active = |now| Holds::load(&past.opened_at(now).repo).held().contains(&sid(&made[1]));
    assert_eq!([end.0 - 1, end.0, end.0 + 1].map(active), [true, false, false]);
    // It is over by now, still listed, and can be removed.
    let listed = past.bench.ok(&["hold", "list"]);
    let states: Vec<_> = listed["holds"].as_array().unwrap().iter().map(|h| h["active"].as_bool().unwrap()).collect();
    assert_eq!(states, [false, true], "{listed:#}");
    assert!(past.text(&["hold", "list"]).contains(&format!("ENDED {}", at(end.0).format("%FT%TZ"))));
    past.bench.ok(&["forget", &made[1].id]);
    past.bench.ok(&["hold", "remove", &hold.hold.hex()]);
    assert_eq!(past.visible("data"), ids([&made[0], &made[2]]));
}

#[test]
fn a_hold_by_nobody_holds_nothing() {
    let past = Past::new(&["a"]);
    let made = hourly(&past, 3);
    let (repo, id) = (&past.inside.repo, HoldId([5; 16]));
    let hold = Hold {
        fresh: repo.fresh(),
        hold: HoldId([6; 16]),
        sid: sid(&made[0]),
        created: 0,
        reason: "".into(),
        until: None,
    };
    // Signed as another hold than the one at whose key it stands.
    let key = Key::Hold(id);
    past.inside.put(key, repo.seal(ObjectKind::Hold, &key.canonical(), &hold).unwrap());
    let listed = past.bench.ok(&["hold", "list"]);
    assert_eq!(listed["holds"], json!([]));
    assert_eq!(super::past::texts(&listed["findings"]).len(), 1, "{listed:#}");
    assert_eq!(kept(&past, &["--keep-last", "1", "--name", "data"]), ids([&made[2]]));
}

#[test]
fn a_region_that_was_away_gets_the_holds() {
    let past = Past::new(&["a", "b"]);
    let made = hourly(&past, 2);
    std::fs::rename(past.bench.region("b"), past.bench.path("away")).unwrap();
    let (code, held) = past.bench.json(&["hold", "add", &made[0].id, "--reason", "r"]);
    assert_eq!(code, 4, "{held:#}");
    assert_eq!((&held["regions"], &held["behind"][0]["region"]), (&json!(["a"]), &json!("b")));
    std::fs::rename(past.bench.path("away"), past.bench.region("b")).unwrap();
    past.bench.ok(&["backup", "--name", "base", "source"]);
    let listed = past.bench.ok(&["hold", "list"]);
    assert_eq!(listed["holds"][0]["regions"], json!(["a", "b"]), "{listed:#}");
    // Removed while a is away; the other region's word counts there too.
    std::fs::rename(past.bench.region("a"), past.bench.path("away")).unwrap();
    let id = held["hold"].as_str().unwrap();
    assert_eq!(past.bench.json(&["hold", "remove", id]).0, 4);
    std::fs::rename(past.bench.path("away"), past.bench.region("a")).unwrap();
    assert_eq!(past.bench.ok(&["hold", "list"])["holds"], json!([]));
}

#[test]
fn two_that_forget_at_once_say_that_nothing_is_left() {
    let past = Past::new(&["a", "b"]);
    let made = hourly(&past, 2);
    let repo = &past.inside.repo;
    // Both have looked before one of them writes.
    let view = View::load(repo).unwrap();
    let chosen: Vec<_> = made.iter().map(|m| forget::Target::of(&view.snapshots[&sid(m)])).collect();
    let cancel = Cancel::new();
    let first = forget::run(repo, &view, &chosen[..1], false, "", &cancel).unwrap();
    assert!(first.warnings.is_empty(), "{first:?}");
    let second = forget::run(repo, &view, &chosen[1..], false, "", &cancel).unwrap();
    assert!(second.warnings.len() == 1 && second.warnings[0].contains("data has no snapshot left"), "{second:?}");
    // On purpose it is no surprise.
    let base = [forget::Target::of(&view.snapshots[&sid(&past.base)])];
    assert!(forget::run(repo, &view, &base, true, "", &cancel).unwrap().warnings.is_empty());
}
