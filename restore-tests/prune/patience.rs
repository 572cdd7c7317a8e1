//! What a session made that still shows life is left alone, although somebody ended it.

use super::stops::inside;
use super::{Versions, comes_back, forget, packs, prune, versions};
use crate::harness::Bench;
use holdfast::base::{Env, Generation, SegmentName, SessionId};
use holdfast::format::envelope::Kind as ObjectKind;
use holdfast::format::index::Segment;
use holdfast::repo::Repo;
use holdfast::repo::index::open_segment;
use holdfast::repo::session::{Errand, Session};
use holdfast::store::{Key, Prefix};
use std::time::{Duration, UNIX_EPOCH};

/// Waits for nobody, and takes for dead who showed no life for half an hour.
pub const PATIENT: [&str; 7] = ["prune", "--wait", "0s", "--grace", "0s", "--repack-above", "100"];

fn announce(repo: &Repo, refreshes: Option<SessionId>) -> Session {
    let errand = Errand { host: "h".into(), source: "long".into(), generation: Generation(1) };
    Session::announce(repo, errand, refreshes).unwrap()
}

/// The segments of a session, as if another one had stored what they name; returns what they are called now.
pub fn hand_over(bench: &Bench, repo: &Repo, from: &str, to: SessionId) -> Vec<Key> {
    let from = SessionId::parse(from).unwrap();
    let mut new = Vec::new();
    for line in repo.regions.list(0, Prefix::Index).unwrap() {
        let content = open_segment(repo, &line.key, &repo.regions.get(0, &line.key, 1 << 24).unwrap()).unwrap();
        if content.segment.sid != from {
            continue;
        }
        let bytes = repo.seal(ObjectKind::Index, "", &Segment { sid: to, ..content.segment }).unwrap();
        let key = Key::Index(SegmentName(*blake3::hash(&bytes).as_bytes()));
        assert_eq!(repo.regions.put_all(repo.usable(), &key, &bytes), repo.usable());
        for region in &bench.regions {
            std::fs::remove_file(bench.region(region).join(line.key.path())).unwrap();
        }
        new.push(key);
    }
    assert!(!new.is_empty());
    new
}

/// Everything at these keys was written hours ago.
fn age(bench: &Bench, keys: &[Key]) {
    set_times(bench, keys, -5 * 3600 * 1000);
}

/// Everything at these keys was written so many milliseconds from now.
pub fn set_times(bench: &Bench, keys: &[Key], from_now_ms: i64) {
    let then = Env::system().now().0 + from_now_ms;
    let time = UNIX_EPOCH + Duration::from_millis(u64::try_from(then).unwrap());
    for (region, key) in bench.regions.iter().flat_map(|region| keys.iter().map(move |key| (region, key))) {
        let file = std::fs::File::options().write(true).open(bench.region(region).join(key.path())).unwrap();
        file.set_modified(time).unwrap();
    }
}

fn stay(versions: &Versions, context: &str) {
    let before = packs(&versions.bench, "a");
    let done = versions.bench.ok(&PATIENT);
    assert_eq!(packs(&versions.bench, "a"), before, "{context}: {done:#}");
}

#[test]
fn what_a_writer_stored_who_was_ended_and_goes_on_stays() {
    let versions = versions(&["a", "b"]);
    let bench = &versions.bench;
    let inside = inside(bench);
    let session = announce(&inside.repo, None);
    let segments = hand_over(bench, &inside.repo, &versions.sids[0], session.sid);
    forget(bench, &versions.sids[0]);
    stay(&versions, "at work");
    // As a prune does whose patience has an end. He learns of it when he commits, and stores on until then.
    session.give_up(&inside.repo, "a prune ended it").unwrap();
    age(bench, &[Key::Session(session.sid)]);
    stay(&versions, "ended, and its last segment is young");
    // He goes on under a new id, with what he stored before.
    age(bench, &segments);
    let next = announce(&inside.repo, Some(session.sid));
    stay(&versions, "taken over by a session at work");
    age(bench, &[Key::Session(next.sid)]);
    let before = packs(bench, "a");
    let done = bench.ok(&PATIENT);
    assert!(packs(bench, "a").len() < before.len(), "dead for hours: {done:#}");
    comes_back(&versions, bench, 2, "after a dead one's packs went");
    prune(bench);
    super::clean(bench, "after a dead one's packs went");
}
