//! Epochs that somebody else began, and sessions of before.

use super::stops::inside;
use super::{NOW, clean, comes_back, forget, packs, plan, planned, prune, versions};
use holdfast::base::{Generation, PackName, SessionId};
use holdfast::error::Kind;
use holdfast::format::objects::Root;
use holdfast::format::snapshot::Manifest;
use holdfast::region::RegionSet;
use holdfast::repo::pruning;
use holdfast::repo::session::{Ended, Errand, Session, Work};
use holdfast::repo::view::View;
use std::collections::HashSet;

fn names(packs: impl IntoIterator<Item = String>) -> Vec<PackName> {
    packs.into_iter().map(|name| PackName::parse(&name).unwrap()).collect()
}

#[test]
fn an_epoch_that_another_prune_left_is_carried_through_and_spares_what_is_needed() {
    let versions = versions(&["a", "b"]);
    let bench = &versions.bench;
    forget(bench, &versions.sids[0]);
    let garbage = planned(&plan(bench), "dead");
    let all = packs(bench, "a");
    {
        // It condemned everything, and died before it told any other region.
        let inside = inside(bench);
        let repo = &inside.repo;
        let roots: Vec<Root> = Vec::new();
        assert!(pruning::begin(repo, repo.epochs(), &names(all.clone()), roots).unwrap());
    }
    let said = plan(bench);
    assert_eq!(said["carried"][0], 2, "{said:#}");
    let done = prune(bench);
    assert_eq!(done["carried"][0], 2, "{done:#}");
    assert_eq!(done["spared"], all.len() - garbage.len(), "{done:#}");
    let left: HashSet<String> = all.difference(&garbage).cloned().collect();
    assert_eq!(packs(bench, "a").into_iter().collect::<HashSet<_>>(), left);
    comes_back(&versions, bench, 1, "after another's epoch");
    comes_back(&versions, bench, 2, "after another's epoch");
    clean(bench, "after another's epoch");
}

#[test]
fn who_sleeps_through_two_prunes_and_then_commits_is_fenced_and_goes_on() {
    let versions = versions(&["a", "b"]);
    let bench = &versions.bench;
    let inside = inside(bench);
    let repo = &inside.repo;
    let view = View::load(repo).unwrap();
    let first = SessionId::parse(&versions.sids[0]).unwrap();
    let manifest = view.snapshots[&first].manifest.clone();
    let session = |refreshes| {
        let errand = Errand { host: "h".into(), source: "sleeper".into(), generation: Generation(1) };
        Session::announce(repo, errand, refreshes).unwrap()
    };
    let (stays, goes) = (session(None), session(None));
    versions.sids[..2].iter().for_each(|sid| forget(bench, sid));
    let garbage = planned(&plan(bench), "dead");
    let done = prune(bench);
    assert_eq!(done["sessions_ended"], 2, "{done:#}");
    prune(bench);
    let commit = |session: Session, packs: HashSet<PackName>| {
        let work = Work { complete: RegionSet::of(0..2), packs, parent: None, stored: true };
        session.commit(repo, &work, |session| Ok(Manifest { sid: session.sid, ..manifest.clone() }))
    };
    // What it rests on is gone: it must not commit, and its caller reads the source again.
    let ended = commit(goes.clone(), names(garbage).into_iter().collect()).unwrap();
    let Ended::Fenced(sid) = ended else { panic!("committed on doomed packs") };
    assert!(!View::load(repo).unwrap().snapshots.contains_key(&sid));
    // What it rests on is there: it goes on under a new id.
    let latest = names(packs(bench, "a")).into_iter().collect();
    let Ended::Committed(done) = commit(stays.clone(), latest).unwrap() else { panic!("fenced") };
    assert_ne!(done.sid, stays.sid);
    let view = View::load(repo).unwrap();
    assert!(view.ended.contains(&stays.sid) && view.ended.contains(&goes.sid));
}

/// It did not reach the first region when it was announced: that one's outcome says nothing to its writer.
#[test]
fn a_session_is_ended_where_it_decides() {
    let versions = versions(&["a", "b"]);
    let bench = &versions.bench;
    let (home, aside) = (bench.region("a"), bench.path("aside"));
    std::fs::rename(&home, &aside).unwrap();
    let sid = {
        let inside = inside(bench);
        let errand = Errand { host: "h".into(), source: "sleeper".into(), generation: Generation(1) };
        Session::announce(&inside.repo, errand, None).unwrap().sid
    };
    std::fs::rename(&aside, &home).unwrap();
    forget(bench, &versions.sids[0]);
    let done = prune(bench);
    assert_eq!(done["sessions_ended"], 1, "{done:#}");
    let shown = ["a", "b"].map(|region| bench.region(region).join("snapshots").join(sid.hex()).exists());
    assert_eq!(shown, [false, true]);
}

#[test]
fn a_commit_between_the_marking_and_the_decision_keeps_its_packs() {
    let versions = versions(&["a", "b"]);
    let bench = &versions.bench;
    forget(bench, &versions.sids[0]);
    let garbage = planned(&plan(bench), "dead");
    assert!(!garbage.is_empty());
    {
        let inside = inside(bench);
        let repo = &inside.repo;
        // It was announced before, re-used what the first snapshot had, and commits once the epoch is begun.
        let first = SessionId::parse(&versions.sids[0]).unwrap();
        let key = holdfast::store::Key::Snapshot(first);
        let manifest: Manifest = repo.read_object(repo.usable(), &key).unwrap().decode("manifest").unwrap();
        let errand = Errand { host: "h".into(), source: "late".into(), generation: Generation(1) };
        let session = Session::announce(repo, errand, None).unwrap();
        assert!(pruning::begin(repo, repo.epochs(), &names(garbage.clone()), Vec::new()).unwrap());
        let work = Work {
            complete: RegionSet::of(0..2),
            packs: names(garbage.clone()).into_iter().collect(),
            parent: None,
            stored: true,
        };
        let mut source = manifest.source.clone();
        source.name = "late".into();
        let make = |session: &Session| Ok(Manifest { sid: session.sid, source: source.clone(), ..manifest.clone() });
        assert!(matches!(session.commit(repo, &work, make).unwrap(), Ended::Committed(_)));
    }
    let done = prune(bench);
    assert_eq!(done["spared"], garbage.len(), "{done:#}");
    assert!(packs(bench, "a").is_superset(&garbage));
    let target = bench.path("late");
    bench.ok(&["restore", "latest", "--name", "late", "--target", target.to_str().unwrap()]);
    crate::harness::assert_same(&versions.copies[0], &target);
    clean(bench, "after a late commit");
}

#[test]
fn an_epoch_begins_once() {
    let versions = versions(&["a", "b"]);
    let bench = &versions.bench;
    let some = names(packs(bench, "a").into_iter().take(1));
    let (one, two) = (inside(bench), inside(bench));
    assert!(pruning::begin(&one.repo, one.repo.epochs(), &some, Vec::new()).unwrap());
    assert!(!pruning::begin(&two.repo, two.repo.epochs(), &some, Vec::new()).unwrap(), "two began the same epoch");
    let now = two.repo.epochs_afresh();
    assert_eq!(pruning::begin(&two.repo, &now, &some, Vec::new()).unwrap_err().kind(), Kind::Bug);
    let (code, value) = bench.json(&NOW);
    assert_eq!(code, 0, "{value:#}");
    comes_back(&versions, bench, 0, "spared");
}

/// Visible means complete: what a prune may still remove is nothing to rest on.
#[test]
fn a_damaged_manifest_whose_packs_are_condemned_is_put_back_once_the_prune_ended() {
    let versions = versions(&["a", "b"]);
    let bench = &versions.bench;
    {
        // It condemned everything, and died.
        let inside = inside(bench);
        let all = names(packs(bench, "a"));
        assert!(pruning::begin(&inside.repo, inside.repo.epochs(), &all, Vec::new()).unwrap());
    }
    let manifest = bench.region("b").join("snapshots").join(&versions.sids[1]);
    let good = std::fs::read(&manifest).unwrap();
    let mut bad = good.clone();
    bad[200] ^= 1;
    std::fs::write(&manifest, &bad).unwrap();
    let repair = ["verify", "--level", "content", "--repair"];
    let (code, value) = bench.json(&repair);
    assert_eq!((code, &value["repair"]["put_back"], &value["repair"]["left"]), (5, &0.into(), &1.into()), "{value:#}");
    let why = value["repair"]["objects"][0]["detail"].as_str().unwrap();
    assert!(why.contains("condemned") && why.contains("then repair again"), "{why}");
    assert_eq!(std::fs::read(&manifest).unwrap(), bad, "an object is put back or left, nothing between");
    prune(bench);
    let (code, value) = bench.json(&repair);
    assert_eq!((code, &value["repair"]["put_back"], &value["repair"]["left"]), (5, &1.into(), &0.into()), "{value:#}");
    assert_eq!(std::fs::read(&manifest).unwrap(), good);
    comes_back(&versions, bench, 1, "put back after a prune");
    clean(bench, "put back after a prune");
}
