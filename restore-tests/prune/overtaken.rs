//! What somebody else did meanwhile, or what a region did not show, and a prune or a run would have gone on from.

use super::beside::{log, shell};
use super::stops::inside;
use super::{NOW, Versions, backup, clean, forget, prune, versions, write};
use crate::crash::{complete_alone, interfere, restores, text};
use crate::harness::Bench;
use crate::spoilt::{Spoil, Spoilt};
use holdfast::base::{Generation, PackName, RegionId, SegmentName};
use holdfast::error::Kind;
use holdfast::format::index::PackLine;
use holdfast::format::region::RegionMark;
use holdfast::repo::index::open_segment;
use holdfast::repo::members;
use holdfast::repo::pruning;
use holdfast::repo::session::{Errand, Session};
use holdfast::store::{Key, StoreErrorKind};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Index segments of the first region, and the packs that each names.
pub fn segments(bench: &Bench) -> BTreeMap<String, BTreeSet<PackName>> {
    let inside = inside(bench);
    let repo = &inside.repo;
    let objects = bench.objects(bench.regions[0]).into_iter().filter(|object| !object.contains('#'));
    let names = objects.filter_map(|object| Some(object.strip_prefix("index/")?.to_owned()));
    let packs = |name: &String| {
        let key = Key::Index(SegmentName::parse(name).unwrap());
        let content = open_segment(repo, &key, &repo.regions.get(0, &key, 1 << 24).unwrap()).unwrap();
        content.packs.iter().map(|line: &PackLine| line.name).collect()
    };
    names.map(|name| (name.clone(), packs(&name))).collect()
}

/// A segment loses its dead, becomes part of another with seven more, and of that again all the others die: what is left says
/// the same as it did before. Under its old name somebody may be about to remove it, for the merged one's sake.
#[test]
fn what_a_merge_leaves_in_the_end_has_no_earlier_name() {
    let bench = Bench::with_key(&["a", "b"]);
    let (source, below) = (bench.path("source"), bench.path("source/below"));
    let some = |from: u64, count: u64| {
        std::fs::create_dir_all(&below).unwrap();
        for n in from..from + count {
            // Each is a chunk of its own.
            std::fs::write(below.join(format!("{n}")), crate::harness::noise(n, 40_000)).unwrap();
        }
    };
    some(0, 9);
    let mut sids = vec![backup(&bench, &source)];
    let mut earlier = segments(&bench);
    assert_eq!(earlier.len(), 1);
    // The first snapshot's own pages die with it; its chunks are needed by all.
    for version in 1..9 {
        some(100 * version, 20);
        sids.push(backup(&bench, &source));
        earlier.extend(segments(&bench));
        if version == 1 {
            forget(&bench, &sids[0]);
            prune(&bench);
            earlier.extend(segments(&bench));
        }
    }
    prune(&bench);
    let merged = segments(&bench);
    assert_eq!(merged.len(), 1, "nothing was merged");
    earlier.extend(merged);
    // Of all that, the first nine files stay, in a snapshot whose own pages are no part of it.
    for entry in std::fs::read_dir(&below).unwrap().flatten() {
        if entry.file_name().to_str().unwrap().len() > 1 {
            std::fs::remove_file(entry.path()).unwrap();
        }
    }
    let last = backup(&bench, &source);
    let own = segments(&bench);
    sids[1..].iter().for_each(|sid| forget(&bench, sid));
    prune(&bench);
    let left = segments(&bench);
    let anew: Vec<_> = left.keys().filter(|name| !own.contains_key(*name)).collect();
    assert_eq!(anew.len(), 1, "{left:?}");
    let said_before = earlier.values().any(|packs| *packs == left[anew[0]]);
    assert!(said_before, "it says something new, and so shows nothing: {left:?} of {earlier:?}");
    assert!(!earlier.contains_key(anew[0]), "{} is back", anew[0]);
    restores(&bench, &last, &source, "after all");
    clean(&bench, "after all");
}

/// Another prune begins, removes more, and ends, while this one is at its removals; the store keeps what is removed, as one
/// that locks does. What this one took for whole before is not merged: it names what is gone.
#[test]
fn a_prune_that_was_overtaken_merges_nothing_that_it_saw_before() {
    let bench = Bench::with_key(&["a", "b"]);
    let (source, mut sids) = (bench.path("source"), Vec::new());
    for version in 0..12 {
        write(&source, version);
        sids.push(backup(&bench, &source));
    }
    forget(&bench, &sids[0]);
    let steps = interfere(&bench.copy(), "count", 0, &NOW).steps;
    let (count, mut overtaken, mut cases) = (steps.len(), 0, 0);
    // While it removes: then nothing is on its way that it looked at before.
    let removals = (1..).zip(&steps).filter(|(_, step)| *step == "unlink").map(|(at, _)| at).collect::<Vec<usize>>();
    for at in removals.into_iter().take(8).step_by(2) {
        let case = bench.copy();
        let kept = case.path("kept");
        let (a, b, aside) = (case.region("a"), case.region("b"), text(&kept));
        let (a, b) = (text(&a), text(&b));
        let mut hook = vec![format!("mkdir {aside} && cp -a {a}/index {aside}/a && cp -a {b}/index {aside}/b")];
        hook.extend([shell(&case, &["forget", &sids[6]]), shell(&case, &NOW)]);
        hook.extend([format!("cp -an {aside}/a/. {a}/index"), format!("cp -an {aside}/b/. {b}/index")]);
        let ended = interfere(&case, &format!("hook:{}", hook.join("; ")), at, &NOW);
        let said = std::fs::read_to_string(log(&case)).unwrap_or_default();
        let context = format!("step {at} of {count}: {}\n{said}", ended.said);
        assert_eq!(ended.code, 0, "{context}");
        if !kept.exists() {
            continue;
        }
        cases += 1;
        let before: BTreeSet<String> = listed(&kept.join("a"));
        let packs: BTreeSet<String> = super::packs(&case, "a");
        for (name, named) in segments(&case).into_iter().filter(|(name, _)| !before.contains(name)) {
            let gone: Vec<_> = named.iter().filter(|pack| !packs.contains(&pack.hex())).collect();
            assert!(gone.is_empty(), "{context}\n{name} was made, and names {gone:?}, which nobody has");
        }
        overtaken += usize::from(before.len() > 1);
        restores(&case, &sids[11], &source, &context);
        prune(&case);
        clean(&case, &context);
    }
    assert!(cases > 3 && overtaken > 0, "{cases} cases, {overtaken} with something to merge");
}

fn listed(folder: &Path) -> BTreeSet<String> {
    let names = std::fs::read_dir(folder).unwrap().flatten();
    names.map(|entry| entry.file_name().to_str().unwrap().to_owned()).collect()
}

/// An epoch that a region lists and does not show may condemn what a run rests on: nothing new goes there, and nothing is
/// removed anywhere.
#[test]
fn an_epoch_that_is_listed_and_not_shown_keeps_everybody_from_going_on_there() {
    let Versions { bench, sids, .. } = versions(&["a", "b"]);
    forget(&bench, &sids[0]);
    let spoilt = Spoilt::at(&bench.region("b"), Spoil::Reads("epochs/", StoreErrorKind::NotFound));
    let opened = inside(&bench);
    let repo = &opened.repo;
    assert_eq!((repo.usable().count(), repo.writable().count()), (2, 1));
    let why = pruning::all_members(repo, repo.epochs()).unwrap_err();
    assert!(why.what().contains("lists an epoch that is not there"), "{why}");
    drop((opened, spoilt));
    assert_eq!(inside(&bench).repo.writable().count(), 2);
    prune(&bench);
    clean(&bench, "once it is shown");
}

/// A session whose announcement cannot be read now may decide anywhere: it is not ended in one place on the chance.
#[test]
fn a_session_that_cannot_be_read_just_now_keeps_a_region_from_being_filled_again() {
    let Versions { bench, .. } = versions(&["a", "b"]);
    let sid = {
        let opened = inside(&bench);
        let errand = Errand { host: "h".into(), source: "sleeper".into(), generation: Generation(1) };
        Session::announce(&opened.repo, errand, None).unwrap().sid
    };
    // Region b was emptied, and has what was brought there since.
    std::fs::remove_file(bench.region("b").join(Key::Session(sid).path())).unwrap();
    let ended = |region: &str| bench.region(region).join(Key::Snapshot(sid).path()).exists();
    {
        let _spoilt = Spoilt::at(&bench.region("a"), Spoil::Reads("sessions/", StoreErrorKind::Failed));
        let opened = inside(&bench);
        let repo = &opened.repo;
        let lost = repo.regions.region(1).id;
        let why = members::close_sessions(repo, repo.epochs(), (1, lost)).unwrap_err();
        assert_eq!(why.kind(), Kind::Retry, "{why}");
        assert_eq!((ended("a"), ended("b")), (false, false));
    }
    let opened = inside(&bench);
    let repo = &opened.repo;
    members::close_sessions(repo, repo.epochs(), (1, repo.regions.region(1).id)).unwrap();
    assert_eq!((ended("a"), ended("b")), (true, false), "it ends where it decides");
}

/// A run is ended by a prune when everything is stored, and goes on; from then on a region loses what is announced there, or shows
/// another mark: what the run stored there is gone all the same.
#[test]
fn a_region_that_is_emptied_under_a_later_session_of_a_run_gets_no_snapshot() {
    for filled_again in [false, true] {
        emptied_under_a_later_session(filled_again);
    }
}

/// The mark of another place of the same repository.
fn other_mark(bench: &Bench) -> Vec<u8> {
    let mark = RegionMark::from_object(&std::fs::read(bench.region("b").join("region")).unwrap()).unwrap();
    RegionMark { region: RegionId([7; 16]), ..mark }.to_object()
}

fn emptied_under_a_later_session(filled_again: bool) {
    let Versions { bench, sids, .. } = versions(&["a", "b"]);
    forget(&bench, &sids[0]);
    let source = bench.path("source");
    // Another source needs all that the parent needs.
    bench.ok(&["backup", "--name", "other", text(&source)]);
    write(&source, 4);
    let args = ["--copies-min", "1", "--json", "--quiet", "backup", "--name", "s", "source"];
    let copied = || {
        let case = bench.copy();
        let done = std::process::Command::new("cp").arg("-a").arg(&source).arg(case.path("source")).status();
        assert!(done.is_ok_and(|status| status.success()));
        case
    };
    let steps = interfere(&copied(), "count", 0, &args).steps;
    let (count, mut cases) = (steps.len(), 0);
    // Objects are linked into their places: the last of all packs and segments, the snapshot, the record of the run.
    let links =
        (1..).zip(&steps).filter(|(_, step)| step.starts_with("link")).map(|(at, _)| at).collect::<Vec<usize>>();
    for at in links.into_iter().rev().take(8) {
        let case = copied();
        let (sessions, folder) = (format!("{}/sessions", text(&case.region("b"))), text(case.dir.path()).to_owned());
        // At this step a prune ends the session; from then on region b loses whatever is announced.
        let (forgets, prunes) = (shell(&case, &["forget", "--last", &sids[1], &sids[2]]), shell(&case, &NOW));
        let first = format!("{forgets}; {prunes}; touch {folder}/before");
        let marks = ["old", "new"].map(|name| format!("{folder}/mark-{name}"));
        let mark = case.region("b").join("region");
        std::fs::copy(&mark, &marks[0]).unwrap();
        std::fs::write(&marks[1], other_mark(&case)).unwrap();
        let then = match filled_again {
            true => format!("cp {} {}", marks[1], text(&mark)),
            false => format!("rm -f {sessions}/*"),
        };
        let hook = format!("if [ -e {folder}/before ]; then {then}; else {first}; fi");
        let ended = interfere(&case, &format!("hooks:{hook}"), at, &args);
        let said = std::fs::read_to_string(log(&case)).unwrap_or_default();
        let context = format!("filled again: {filled_again}, step {at} of {count}: {}\n{said}", ended.said);
        std::fs::copy(&marks[0], &mark).unwrap();
        if !said.contains("had not ended, and were") {
            continue;
        }
        cases += 1;
        let line = ended.said.lines().next().unwrap_or_default();
        let value: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {context}"));
        assert_eq!((ended.code, &value["behind"][0]["region"]), (4, &"b".into()), "{context}");
        let sid = value["snapshot"].as_str().unwrap();
        assert!(!case.region("b").join("snapshots").join(sid).exists(), "{context}");
        restores(&case, sid, &source, &context);
    }
    assert!(cases > 0, "no session was ended");
    complete_alone(&bench, "before all that");
}
