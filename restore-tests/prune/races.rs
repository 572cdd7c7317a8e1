//! Orders of steps that the search through the protocol found to lose something, or to raise a false alarm.

use super::stops::inside;
use super::{ANEW, NOW, Versions, clean, comes_back, forget, packs, planned, prune, versions};
use crate::crash::{complete_alone, interfere};
use crate::harness::{Bench, noise};
use crate::inside::{Inside, plant};
use holdfast::base::{Generation, PackName, SegmentName, SessionId};
use holdfast::format::envelope::Kind as ObjectKind;
use holdfast::format::index::{ENTRY_BYTES, PackLine, Place, Segment, encode_packs, encode_places};
use holdfast::format::objects::{Root, Tombstone};
use holdfast::repo::index::open_segment;
use holdfast::repo::pruning;
use holdfast::repo::session::{Errand, Session};
use holdfast::store::Key;
use std::collections::BTreeSet;

fn segments(bench: &Bench, region: &str) -> BTreeSet<String> {
    let objects = bench.objects(region).into_iter();
    objects.filter_map(|object| Some(object.strip_prefix("index/")?.to_owned())).collect()
}

/// One segment that says all that some say, as whoever merges them makes it.
pub fn merged(inside: &Inside, names: &BTreeSet<String>) -> (Key, bytes::Bytes) {
    let repo = &inside.repo;
    let (mut packs, mut places): (Vec<PackLine>, Vec<Place>) = Default::default();
    let mut first: Option<Segment> = None;
    for name in names {
        let key = Key::Index(SegmentName::parse(name).unwrap());
        let content = open_segment(repo, &key, &repo.regions.get(0, &key, 1 << 20).unwrap()).unwrap();
        let (entries, _) = content.segment.entries.as_chunks::<ENTRY_BYTES>();
        let before = packs.len() as u32;
        places.extend(entries.iter().map(Place::parse).map(|place| Place { pack: before + place.pack, ..place }));
        packs.extend(content.packs);
        first.get_or_insert(content.segment);
    }
    let segment =
        Segment { packs: encode_packs(&packs).into(), entries: encode_places(&mut places).into(), ..first.unwrap() };
    let bytes = repo.seal(ObjectKind::Index, "", &segment).unwrap();
    (Key::Index(SegmentName(*blake3::hash(&bytes).as_bytes())), bytes)
}

/// Whoever merges segments has published the merged one, and sleeps before it removes its parts. A prune takes the merged one
/// away, as it names what is dead; then the parts go.
#[test]
fn a_merged_segment_that_goes_leaves_its_own_behind() {
    let versions = versions(&["a", "b"]);
    let bench = &versions.bench;
    let parts = segments(bench, "a");
    {
        let inside = inside(bench);
        let (key, bytes) = merged(&inside, &parts);
        inside.put(key, bytes);
    }
    forget(bench, &versions.sids[0]);
    let done = prune(bench);
    assert!(done["regions"][0]["removed"]["packs"].as_u64() > Some(0), "{done:#}");
    for region in ["a", "b"] {
        for name in &parts {
            let _ = std::fs::remove_file(bench.region(region).join("index").join(name));
        }
    }
    complete_alone(bench, "without the parts");
    comes_back(&versions, bench, 1, "without the parts");
    comes_back(&versions, bench, 2, "without the parts");
    clean(bench, "without the parts");
}

#[test]
fn two_prunes_write_the_same_segments() {
    let versions = versions(&["a", "b"]);
    let before = segments(&versions.bench, "a");
    forget(&versions.bench, &versions.sids[0]);
    let (one, two) = (versions.bench.copy(), versions.bench.copy());
    prune(&one);
    prune(&two);
    let after = segments(&one, "a");
    assert_eq!((&segments(&two, "a"), &segments(&one, "b")), (&after, &after));
    assert!(!after.is_subset(&before), "nothing was written anew");
    // A store that kept the old ones: what took their place is found to be there.
    for name in before.difference(&after) {
        let old = std::fs::read(versions.bench.region("a").join("index").join(name)).unwrap();
        plant(&one.region("a"), &format!("index/{name}"), &old);
    }
    prune(&one);
    assert_eq!(segments(&one, "a"), after);
}

fn whole_junk() -> Vec<u8> {
    let mut junk = noise(5, 400);
    let sum = *blake3::hash(&junk).as_bytes();
    junk.extend_from_slice(&sum);
    junk
}

/// Where the session decides cannot be told, as its announcement is damaged; junk stands at its outcome in one region.
#[test]
fn a_session_of_which_nobody_knows_where_it_decides_is_ended_wherever_it_could_commit() {
    let versions = versions(&["a", "b"]);
    let bench = &versions.bench;
    forget(bench, &versions.sids[0]);
    for squatted in ["a", "b"] {
        let case = bench.copy();
        let inside = inside(&case);
        let errand = Errand { host: "h".into(), source: "sleeper".into(), generation: Generation(1) };
        let session = Session::announce(&inside.repo, errand, None).unwrap();
        let key = format!("sessions/{}", session.sid.hex());
        ["a", "b"].iter().for_each(|region| plant(&case.region(region), &key, b"torn"));
        let outcome = format!("snapshots/{}", session.sid.hex());
        plant(&case.region(squatted), &outcome, &whole_junk());
        prune(&case);
        assert!(["a", "b"].iter().all(|region| case.region(region).join(&outcome).exists()), "junk in {squatted}");
        let other = if squatted == "a" { 1 } else { 0 };
        let bytes = inside.repo.regions.get(other, &Key::Snapshot(session.sid), 1 << 20).unwrap();
        let opened = inside.repo.open_object(&Key::Snapshot(session.sid), &bytes).unwrap();
        assert_eq!(opened.kind, ObjectKind::Tombstone);
    }
}

/// The same, but it did make its snapshot, which one region shows: nobody puts an end beside it.
#[test]
fn a_session_whose_snapshot_is_shown_is_not_ended_elsewhere() {
    let versions = versions(&["a", "b"]);
    let bench = &versions.bench;
    forget(bench, &versions.sids[0]);
    let outcome = format!("snapshots/{}", versions.sids[2]);
    let key = format!("sessions/{}", versions.sids[2]);
    ["a", "b"].iter().for_each(|region| plant(&bench.region(region), &key, b"torn"));
    std::fs::remove_file(bench.region("b").join(&outcome)).unwrap();
    prune(bench);
    assert!(!bench.region("b").join(&outcome).exists(), "an end was put beside a snapshot");
    bench.ok(&["replicate"]);
    comes_back(&versions, bench, 2, "after a prune that knew no decision region");
    // Once it is shown everywhere, the announcement says nothing any more.
    prune(bench);
    clean(bench, "after a prune that knew no decision region");
}

/// The region that decides has lost it: that it was made is said by the one that shows it.
#[test]
fn a_session_whose_snapshot_is_shown_is_not_ended_where_it_was_lost() {
    let versions = versions(&["a", "b"]);
    let bench = &versions.bench;
    forget(bench, &versions.sids[0]);
    let outcome = format!("snapshots/{}", versions.sids[2]);
    std::fs::remove_file(bench.region("a").join(&outcome)).unwrap();
    prune(bench);
    assert!(!bench.region("a").join(&outcome).exists(), "an end was put where the snapshot was");
    bench.ok(&["replicate"]);
    comes_back(&versions, bench, 2, "after its decision region lost it");
    prune(bench);
    clean(bench, "after its decision region lost it");
}

/// A region was emptied under a run, which still named what it had stored there: no region has it, and nobody needs it.
#[test]
fn what_an_index_names_and_nobody_has_or_needs_is_named_no_longer() {
    let versions = versions(&["a", "b"]);
    let bench = &versions.bench;
    forget(bench, &versions.sids[0]);
    let garbage = planned(&super::plan(bench), "dead");
    assert!(!garbage.is_empty());
    for region in ["a", "b"] {
        for name in &garbage {
            std::fs::remove_file(bench.region(region).join("packs").join(&name[..2]).join(name)).unwrap();
        }
    }
    let (code, value) = bench.json(&["replicate"]);
    assert_eq!((code, &value["nowhere_total"]), (1, &garbage.len().into()), "{value:#}");
    // A segment that is young may be somebody's who stores just now what it names.
    let before = segments(bench, "a");
    bench.ok(&["prune", "--wait", "0s", "--repack-above", "100", "--repack-small", "1000"]);
    assert_eq!(segments(bench, "a"), before);
    prune(bench);
    assert_eq!(bench.ok(&["replicate"])["nowhere_total"], 0);
    for n in [1, 2] {
        comes_back(&versions, bench, n, "after what was lost is forgotten");
    }
    clean(bench, "after what was lost is forgotten");
}

/// Begins an epoch that condemns everything, and dies.
pub fn condemn_everything(bench: &Bench) {
    let all = packs(bench, "a").into_iter().map(|name| PackName::parse(&name).unwrap()).collect::<Vec<_>>();
    let inside = inside(bench);
    let roots: Vec<Root> = Vec::new();
    assert!(pruning::begin(&inside.repo, inside.repo.epochs(), &all, roots).unwrap());
}

/// Between one prune's look and its decision a snapshot is forgotten, and another prune decides without it.
#[test]
fn another_prune_that_decides_after_a_forget_is_no_alarm() {
    let versions = versions(&["a", "b"]);
    let bench = &versions.bench;
    forget(bench, &versions.sids[0]);
    condemn_everything(bench);
    let steps = interfere(&bench.copy(), "count", 0, &NOW).steps;
    let mut decided_otherwise = 0;
    // Every third: between most of them nothing is decided.
    for at in (1..=steps.len()).step_by(3) {
        let case = bench.copy();
        let forgets = super::beside::shell(&case, &["forget", &versions.sids[1]]);
        let hook = format!("{forgets}; {}", super::beside::shell(&case, &NOW));
        let ended = interfere(&case, &format!("hook:{hook}"), at, &NOW);
        let context = format!("step {at} of {}: {}", steps.len(), ended.said);
        assert_eq!(ended.code, 0, "{context}");
        decided_otherwise += usize::from(!case.region("a").join("snapshots").join(&versions.sids[1]).exists());
        comes_back(&versions, &case, 2, &context);
        prune(&case);
        comes_back(&versions, &case, 2, &context);
        clean(&case, &context);
    }
    assert!(decided_otherwise > 0);
}

/// A prune that dooms everything, and dies once it has decided that at home.
fn doom_everything_at_home(bench: &Bench) {
    condemn_everything(bench);
    let inside = inside(bench);
    let repo = &inside.repo;
    let now = pruning::spread(repo, &repo.epochs_since(repo.epochs()), repo.usable()).unwrap();
    let mut all: Vec<PackName> = now.undecided().into_iter().collect();
    all.sort();
    pruning::end(repo, &now, &now.unended().unwrap(), &all, Vec::new()).unwrap();
}

/// Home decided an epoch, told nobody, and lost its mark alone. The others decide that nothing of the list is dead; then home is a
/// member again, and shows what it decided: what others may rest on by then is dead to nobody.
#[test]
fn what_home_decided_that_lost_its_mark_dooms_nothing_once_it_is_a_member_again() {
    let versions = versions(&["a", "b", "c"]);
    let bench = &versions.bench;
    forget(bench, &versions.sids[0]);
    doom_everything_at_home(bench);
    std::fs::remove_file(bench.region("a").join("region")).unwrap();
    let value = bench.ok(&["region", "repair", "a", "--emptied"]);
    assert_eq!(value["epoch"], 3, "{value:#}");
    let ends = |region: &str| {
        let objects = bench.objects(region).into_iter().filter(|object| object.starts_with("epochs/00000002/end"));
        let read = |object: String| std::fs::read(bench.region(region).join(object)).unwrap();
        objects.map(read).collect::<BTreeSet<Vec<u8>>>()
    };
    assert!(ends("a").len() == 2 && ends("a") == ends("b") && ends("b") == ends("c"), "not every end is everywhere");
    let (before, source) = (packs(bench, "b"), bench.path("source"));
    let (_, next) = bench.json(&["backup", "--name", "t", "--full", source.to_str().unwrap()]);
    assert!(next["chunks_new"].as_u64() > Some(0), "it rests on what one of them dooms: {next:#}");
    // Those are lost that decided otherwise.
    for region in ["b", "c"] {
        std::fs::remove_dir_all(bench.region(region)).unwrap();
        std::fs::create_dir(bench.region(region)).unwrap();
        bench.ok(&["region", "repair", region, "--emptied"]);
    }
    let done = prune(bench);
    assert!(before.difference(&packs(bench, "b")).count() > 0, "garbage stays: {done:#}");
    for n in [1, 2] {
        comes_back(&versions, bench, n, "after home came back with its own decision");
    }
    clean(bench, "after home came back with its own decision");
}

/// Three versions of which one is forgotten, and an epoch of which one end dooms every pack and another one none.
fn disputed() -> Versions {
    let versions = versions(&["a", "b", "c"]);
    let bench = &versions.bench;
    forget(bench, &versions.sids[0]);
    doom_everything_at_home(bench);
    std::fs::remove_file(bench.region("a").join("region")).unwrap();
    bench.ok(&["region", "repair", "a", "--emptied"]);
    versions
}

/// What ends of an epoch disagree on is written anew, and goes: not what backups stored in its place, which each would store again.
#[test]
fn what_ends_disagree_on_goes_and_what_was_stored_in_its_place_stays() {
    for stored in [false, true] {
        let versions = disputed();
        let bench = &versions.bench;
        let (before, source) = (packs(bench, "b"), bench.path("source"));
        let backup = || bench.json(&["backup", "--name", "t", "--full", source.to_str().unwrap()]).1;
        if stored {
            assert!(backup()["chunks_new"].as_u64() > Some(0));
        }
        bench.ok(&ANEW);
        let after = packs(bench, "b");
        assert_eq!(before.intersection(&after).count(), 0, "what nothing may rest on stays: {stored}");
        assert_eq!(backup()["chunks_new"], 0, "stored: {stored}");
        for n in [1, 2] {
            comes_back(&versions, bench, n, "after what ends disagree on went");
        }
        clean(bench, "after what ends disagree on went");
    }
}

/// It is needed until then: an index that was lost is told from it as from any other.
#[test]
fn an_index_is_rebuilt_from_packs_that_ends_disagree_on() {
    let versions = disputed();
    let bench = &versions.bench;
    for region in ["a", "b", "c"] {
        std::fs::remove_dir_all(bench.region(region).join("index")).unwrap();
    }
    let rebuilt = bench.json(&["repair", "index"]).1;
    assert!(rebuilt["packs"].as_u64() > Some(0) && rebuilt["unreadable"] == 0, "{rebuilt:#}");
    for n in [1, 2] {
        comes_back(&versions, bench, n, "after the index was rebuilt");
    }
}

/// Home decided an epoch, and was lost before anybody else saw it. The others gave it up and decided that nothing of the list
/// is dead; then it comes back, and its word counts for nothing.
#[test]
fn what_a_region_decided_that_is_no_member_any_more_dooms_nothing() {
    let versions = versions(&["a", "b", "c"]);
    let bench = &versions.bench;
    doom_everything_at_home(bench);
    let (home, aside) = (bench.region("a"), bench.path("aside"));
    std::fs::rename(&home, &aside).unwrap();
    bench.ok(&["region", "remove", "a", "--lost"]);
    std::fs::rename(&aside, &home).unwrap();
    // A region is named that is no member: that is said, and keeps nobody from anything.
    let (code, value) = bench.json(&["forget", &versions.sids[0]]);
    assert_eq!(code, 4, "{value:#}");
    let garbage = planned(&bench.json(&[&NOW[..], &["--dry-run"]].concat()).1, "dead");
    let before = packs(bench, "b");
    assert!(!garbage.is_empty());
    let (code, value) = bench.json(&NOW);
    assert!(matches!(code, 0 | 4), "{value:#}");
    let left: BTreeSet<String> = before.difference(&garbage).cloned().collect();
    assert_eq!((packs(bench, "b"), packs(bench, "c")), (left.clone(), left));
    for n in [1, 2] {
        comes_back(&versions, bench, n, "beside a region that was given up");
    }
    let source = bench.path("source");
    let (_, next) = bench.json(&["backup", "--name", "s", source.to_str().unwrap()]);
    assert_eq!(next["chunks_new"], 0, "what the members have is not believed: {next:#}");
    let alone = bench.json_at(&["b", "c"], &["verify", "--level", "content"]);
    assert_eq!(alone.0, 0, "{:#}", alone.1);
}

/// The same, where the member comes back with nothing: to fill it again the epoch must be decided, and to decide it as a prune
/// does every member must answer.
#[test]
fn a_region_that_was_emptied_under_a_prune_is_filled_again() {
    for emptied in ["a", "b"] {
        let versions = versions(&["a", "b", "c"]);
        let bench = &versions.bench;
        forget(bench, &versions.sids[0]);
        condemn_everything(bench);
        {
            let inside = inside(bench);
            let repo = &inside.repo;
            pruning::spread(repo, &repo.epochs_since(repo.epochs()), repo.usable()).unwrap();
        }
        std::fs::remove_dir_all(bench.region(emptied)).unwrap();
        std::fs::create_dir(bench.region(emptied)).unwrap();
        let (code, value) = bench.json(&NOW);
        assert!(code == 1 && value["error"].to_string().contains("cannot be used now"), "{value:#}");
        let value = bench.ok(&["region", "repair", emptied, "--emptied"]);
        assert_eq!(value["epoch"], 3, "{value:#}");
        let before = packs(bench, "c");
        let done = prune(bench);
        assert!(done["carried"].as_array().unwrap().is_empty() && packs(bench, "c").len() < before.len(), "{done:#}");
        for n in [1, 2] {
            comes_back(&versions, bench, n, emptied);
        }
        clean(bench, emptied);
    }
}

/// Home was emptied, and given another mark, under a prune that wrote the beginning of its epoch there and was cut off before it
/// told anybody: it stands in a place that is no member. Nobody has to wait for it, and what counts is decided without it.
#[test]
fn a_beginning_in_an_emptied_place_that_nobody_was_told_of_is_waited_for_by_nobody() {
    let object = "epochs/00000002/begin";
    for filled in [false, true] {
        let versions = versions(&["a", "b", "c"]);
        let bench = &versions.bench;
        let first = ["begin", "end"].map(|name| format!("epochs/00000001/{name}"));
        let kept = first.each_ref().map(|name| std::fs::read(bench.region("a").join(name)).unwrap());
        forget(bench, &versions.sids[0]);
        condemn_everything(bench);
        let begin = std::fs::read(bench.region("a").join(object)).unwrap();
        assert!(!bench.region("b").join(object).exists(), "others were told");
        std::fs::remove_dir_all(bench.region("a")).unwrap();
        std::fs::create_dir(bench.region("a")).unwrap();
        // With what comes before it too, as where the filling was cut off after that.
        if filled {
            first.iter().zip(&kept).for_each(|(name, bytes)| plant(&bench.region("a"), name, bytes));
        }
        plant(&bench.region("a"), object, &begin);
        let value = bench.ok(&["region", "repair", "a", "--emptied"]);
        assert!(value["members"].as_array().map(Vec::len) == Some(3) && value["epoch"] == 2, "{value:#}");
        let before = packs(bench, "c");
        let done = prune(bench);
        assert!(done["carried"].as_array().unwrap().is_empty() && packs(bench, "c").len() < before.len(), "{done:#}");
        for n in [1, 2] {
            comes_back(&versions, bench, n, "beside a beginning that nobody was told of");
        }
        clean(bench, "beside a beginning that nobody was told of");
    }
}

/// A prune that nobody can carry through, as a member is lost, is decided without a look: what is held then is held still.
#[test]
fn what_is_held_stays_after_a_prune_that_nobody_carried_through() {
    let versions = versions(&["a", "b", "c"]);
    let bench = &versions.bench;
    forget(bench, &versions.sids[0]);
    super::stops::hold(bench, &versions.sids[0]);
    condemn_everything(bench);
    std::fs::rename(bench.region("b"), bench.path("aside")).unwrap();
    bench.ok(&["region", "remove", "b", "--lost"]);
    let before = packs(bench, "a");
    let (code, value) = bench.json_at(&["a", "c"], &NOW);
    assert_eq!(code, 0, "{value:#}");
    assert!(bench.region("a").join("snapshots").join(&versions.sids[0]).exists(), "a held snapshot went: {value:#}");
    assert_eq!(packs(bench, "a"), before);
    let (code, value) = bench.json_at(&["a", "c"], &["verify", "--level", "content"]);
    assert_eq!(code, 0, "{value:#}");
}

/// That a session ended without a snapshot this machine may have learned from one region, as another did not answer.
#[test]
fn an_end_that_is_remembered_hides_no_snapshot() {
    let versions = versions(&["a", "b"]);
    let bench = &versions.bench;
    let (sid, object) = (SessionId::parse(&versions.sids[2]).unwrap(), format!("snapshots/{}", versions.sids[2]));
    let manifest = std::fs::read(bench.region("b").join(&object)).unwrap();
    let tombstone = {
        let inside = inside(bench);
        let (fresh, key) = (inside.repo.fresh(), Key::Snapshot(sid));
        let sized = |len: usize| {
            let reason = noise(8, len).iter().map(|byte| char::from(b'a' + byte % 26)).collect();
            let tombstone = Tombstone { fresh, sid, created: 1, reason };
            inside.repo.seal(ObjectKind::Tombstone, &key.canonical(), &tombstone).unwrap()
        };
        (0..2000).map(sized).find(|bytes| bytes.len() == manifest.len()).expect("an end of the manifest's size")
    };
    let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
    let show = |region: &str, bytes: &[u8]| {
        plant(&bench.region(region), &object, bytes);
        let file = std::fs::File::options().write(true).open(bench.region(region).join(&object)).unwrap();
        file.set_modified(time).unwrap();
    };
    show("a", &tombstone);
    show("b", &tombstone);
    let shown = bench.ok(&["snapshots"]);
    assert_eq!(shown["snapshots"].as_array().map(Vec::len), Some(2), "{shown:#}");
    show("b", &manifest);
    let said = super::plan(bench);
    assert_eq!((said["snapshots"].as_u64(), said["plan"].as_array().map(Vec::len)), (Some(3), Some(0)), "{said:#}");
}
