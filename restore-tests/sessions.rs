//! A writer's part of the retention protocol: what it does when a prune works beside it, when it was
//! fenced, and when its decision region is lost.

use crate::harness::{Bench, assert_same, opened, small_tree};
use holdfast::base::{Cancel, ConfigNo, Digest, Epoch, Generation, HoldId, PackName, RegionId, SessionId};
use holdfast::crypto::Secret;
use holdfast::error::Kind;
use holdfast::format::config::{Features, Next};
use holdfast::format::envelope::Kind as ObjectKind;
use holdfast::format::objects::{EpochBegin, EpochEnd, Forgotten, Hold, Member, Root, Tombstone};
use holdfast::format::signed;
use holdfast::format::snapshot::Manifest;
use holdfast::ops::forget::Target;
use holdfast::region::RegionSet;
use holdfast::repo::Repo;
use holdfast::repo::holds::Holds;
use holdfast::repo::init::wrap_randomness;
use holdfast::repo::members;
use holdfast::repo::pruning;
use holdfast::repo::session::{Ended, Errand, Session, Work};
use holdfast::repo::view::{Outcomes, View};
use holdfast::store::{Key, Prefix, Put};
use std::collections::HashSet;

/// Every pack that a region lists.
fn packs(repo: &Repo) -> Vec<PackName> {
    let listed = repo.regions.list(0, Prefix::Packs).unwrap();
    let name = |key| match key {
        Key::Pack(name) => name,
        other => panic!("{other} among the packs"),
    };
    listed.into_iter().map(|line| name(line.key)).collect()
}

fn bytes_of(packs: &[PackName]) -> Vec<u8> {
    packs.iter().flat_map(|p| p.bytes().to_vec()).collect()
}

/// Begins the next epoch in all regions, as a prune does; returns the digest of its beginning.
pub fn begin_epoch(repo: &Repo, condemned: &[PackName], roots: &[SessionId]) -> (Epoch, Digest) {
    let number = Epoch(repo.epochs_since(repo.epochs()).newest().0 + 1);
    let key = Key::EpochBegin(number, 0);
    let begin = EpochBegin {
        fresh: repo.fresh(),
        number,
        members: repo.epochs().members().to_vec(),
        condemned: bytes_of(condemned).into(),
        roots: roots.iter().map(|sid| Root { sid: *sid, digest: Digest::ZERO, first_seen: 1 }).collect(),
        created: 1,
    };
    let bytes = repo.seal(ObjectKind::EpochBegin, &key.canonical(), &begin).unwrap();
    assert_eq!(repo.regions.put_all(repo.usable(), &key, &bytes), repo.usable());
    (number, signed::check_sum(&bytes).unwrap().1)
}

/// Decides an epoch in all regions.
fn end_epoch(repo: &Repo, (number, begin): (Epoch, Digest), doomed: &[PackName]) {
    let key = Key::EpochEnd(number, 0);
    let end = EpochEnd {
        fresh: repo.fresh(),
        number,
        begin,
        doomed: bytes_of(doomed).into(),
        roots: Vec::new(),
        created: 1,
        forgotten: Vec::new().into(),
        doomed_before: None,
    };
    let bytes = repo.seal(ObjectKind::EpochEnd, &key.canonical(), &end).unwrap();
    assert_eq!(repo.regions.put_all(repo.usable(), &key, &bytes), repo.usable());
}

fn sid(value: &serde_json::Value) -> SessionId {
    SessionId::parse(value["snapshot"].as_str().unwrap()).unwrap()
}

#[test]
fn condemned_packs_are_not_used_again_and_an_unlisted_parent_is_looked_up() {
    let bench = Bench::new(&["a", "b"]);
    small_tree(&bench.path("source"));
    let first = bench.ok(&["backup", "source"]);
    let all = {
        let repo = opened(&bench);
        let all = packs(&repo);
        // An undecided epoch that names the parent among its roots: whole files of it may be taken over.
        begin_epoch(&repo, &all, &[sid(&first)]);
        all
    };
    let trusted = bench.ok(&["backup", "source"]);
    assert_eq!(trusted["bytes_read"], 0, "the epoch names the parent");
    assert!(trusted["chunks_new"].as_u64() > Some(0), "tree pages lie in condemned packs: {trusted:#}");
    {
        let repo = opened(&bench);
        let begun = repo.epochs().newest();
        assert_eq!(begun, Epoch(2));
        let begin = Key::EpochBegin(begun, 0);
        let bytes = repo.regions.get(0, &begin, 1 << 20).unwrap();
        end_epoch(&repo, (begun, signed::check_sum(&bytes).unwrap().1), &[]);
        // Another one that does not name any parent.
        begin_epoch(&repo, &all, &[]);
    }
    let looked_up = bench.ok(&["backup", "source"]);
    let stored = |report: &serde_json::Value| report["chunks_new"].as_u64().unwrap();
    let pages = stored(&trusted);
    assert_eq!(stored(&looked_up), stored(&first) - pages, "all but the new tree pages lie in condemned packs");
    let read = |report: &serde_json::Value| report["bytes_read"].as_u64().unwrap();
    let inline = std::fs::metadata(bench.path("source/tiny")).unwrap().len();
    assert_eq!(read(&looked_up), read(&first) - inline, "only a file without chunks was taken over");
    // What is doomed is dead for ever; what was stored beside the epoch stands.
    {
        let repo = opened(&bench);
        let bytes = repo.regions.get(0, &Key::EpochBegin(Epoch(3), 0), 1 << 20).unwrap();
        end_epoch(&repo, (Epoch(3), signed::check_sum(&bytes).unwrap().1), &all);
    }
    let again = bench.ok(&["backup", "--full", "source"]);
    assert_eq!(again["chunks_new"], 0);
    for pack in &all {
        for region in ["a", "b"] {
            std::fs::remove_file(bench.region(region).join(Key::Pack(*pack).path())).unwrap();
        }
    }
    let target = bench.path("target");
    bench.ok(&["restore", "latest", "--target", target.to_str().unwrap()]);
    assert_same(&bench.path("source"), &target);
}

/// A manifest like that of the snapshot that is there.
fn manifest_of(repo: &Repo) -> Manifest {
    View::load(repo).unwrap().newest_first()[0].manifest.clone()
}

struct Fenced {
    repo: std::sync::Arc<Repo>,
    session: Session,
    manifest: Manifest,
    packs: HashSet<PackName>,
    _runtime: crate::harness::Opened,
    _bench: Bench,
}

impl Fenced {
    fn forget_all(&self) {
        let view = View::load(&self.repo).unwrap();
        let chosen: Vec<_> = view.newest_first().into_iter().map(Target::of).collect();
        holdfast::ops::forget::run(&self.repo, &view, &chosen, true, "", &Cancel::new()).unwrap();
    }

    /// A session that is ready to commit, in three regions.
    fn ready() -> Fenced {
        let bench = Bench::new(&["a", "b", "c"]);
        small_tree(&bench.path("source"));
        bench.ok(&["backup", "source"]);
        let opened = opened(&bench);
        let repo = std::sync::Arc::clone(&opened);
        let manifest = manifest_of(&repo);
        let errand = Errand { host: "host".into(), source: manifest.source.name.clone(), generation: Generation(1) };
        let session = Session::announce(&repo, errand, None).unwrap();
        let packs = packs(&repo).into_iter().collect();
        Fenced { repo, session, manifest, packs, _runtime: opened, _bench: bench }
    }

    fn commit(&self, parent: Option<SessionId>) -> Ended {
        let work = Work { complete: RegionSet::of(0..3), packs: self.packs.clone(), parent, stored: true };
        let make = |session: &Session| Ok(Manifest { sid: session.sid, ..self.manifest.clone() });
        self.session.clone().commit(&self.repo, &work, make).unwrap()
    }

    fn tombstone(&self, region: usize) {
        let key = Key::Snapshot(self.session.sid);
        let tombstone =
            Tombstone { fresh: self.repo.fresh(), sid: self.session.sid, created: 1, reason: "patience ended".into() };
        let bytes = self.repo.seal(ObjectKind::Tombstone, &key.canonical(), &tombstone).unwrap();
        assert_eq!(self.repo.regions.put(region, &key, &bytes).unwrap(), Put::Created);
    }

    /// The snapshot of a commit that went on under a new id.
    fn went_on(&self, ended: Ended) -> SessionId {
        let Ended::Committed(done) = ended else { panic!("fenced") };
        assert_ne!(done.sid, self.session.sid);
        for ix in done.regions.iter() {
            let key = Key::Session(done.sid);
            let object = self.repo.regions.get(ix, &key, 1 << 20).unwrap();
            let opened = self.repo.open_object(&key, &object).unwrap();
            let session: holdfast::format::objects::Session = opened.decode("session").unwrap();
            assert_eq!(session.refreshes, Some(self.session.sid));
        }
        assert!(View::load(&self.repo).unwrap().snapshots.contains_key(&done.sid));
        done.sid
    }
}

#[test]
fn an_epoch_that_began_since_the_opening_is_seen_after_the_announcement() {
    let bench = Bench::new(&["a", "b"]);
    small_tree(&bench.path("source"));
    bench.ok(&["backup", "source"]);
    let (opened, other) = (opened(&bench), opened(&bench));
    let condemned = packs(&other);
    let (begun, _) = begin_epoch(&other, &condemned, &[]);
    let seen: HashSet<SessionId> = View::load(&other).unwrap().ended.into_iter().collect();
    let errand = Errand { host: "host".into(), source: "s".into(), generation: Generation(1) };
    let session = Session::announce(&opened, errand, None).unwrap();
    assert_eq!(session.epochs.newest(), begun);
    assert_eq!(session.epochs.bad_packs(), condemned.into_iter().collect());
    // The one that was announced under the epoch before was given up where whoever began this one sees it.
    let ended = View::load(&other).unwrap().ended;
    assert_eq!(ended.iter().filter(|sid| !seen.contains(sid)).count(), 1);
    assert!(!ended.contains(&session.sid));
}

#[test]
fn a_fenced_session_goes_on_under_a_new_id() {
    let fenced = Fenced::ready();
    fenced.tombstone(fenced.session.decision);
    let ended = fenced.commit(Some(fenced.manifest.sid));
    fenced.went_on(ended);
    let view = View::load(&fenced.repo).unwrap();
    assert!(view.ended.contains(&fenced.session.sid) && !view.snapshots.contains_key(&fenced.session.sid));
}

#[test]
fn a_tombstone_met_in_another_member_fences_too() {
    let fenced = Fenced::ready();
    fenced.tombstone(2);
    let ended = fenced.commit(None);
    fenced.went_on(ended);
}

#[test]
fn junk_where_the_outcome_belongs_counts_as_a_tombstone() {
    let fenced = Fenced::ready();
    let key = Key::Snapshot(fenced.session.sid);
    fenced.repo.regions.put(fenced.session.decision, &key, &bytes::Bytes::from_static(b"junk")).unwrap();
    let ended = fenced.commit(None);
    fenced.went_on(ended);
}

#[test]
fn a_session_whose_packs_were_condemned_does_not_commit() {
    let fenced = Fenced::ready();
    let condemned: Vec<PackName> = fenced.packs.iter().take(1).copied().collect();
    begin_epoch(&fenced.repo, &condemned, &[fenced.manifest.sid]);
    fenced.tombstone(fenced.session.decision);
    assert!(matches!(fenced.commit(None), Ended::Fenced(_)));
    assert_eq!(View::load(&fenced.repo).unwrap().snapshots.len(), 1);
}

#[test]
fn a_session_whose_parent_was_forgotten_does_not_commit_after_a_fence() {
    let fenced = Fenced::ready();
    fenced.forget_all();
    fenced.tombstone(fenced.session.decision);
    assert!(matches!(fenced.commit(Some(fenced.manifest.sid)), Ended::Fenced(_)));
}

/// The region that decides went back, and lost the tombstone by which a prune had ended the session there.
#[test]
fn what_was_taken_over_whole_is_asked_for_again_where_an_epoch_went_by() {
    for forgotten in [false, true] {
        let fenced = Fenced::ready();
        if forgotten {
            fenced.forget_all();
        }
        let begun = begin_epoch(&fenced.repo, &[], &[fenced.manifest.sid]);
        end_epoch(&fenced.repo, begun, &[]);
        let ended = fenced.commit(Some(fenced.manifest.sid));
        assert_eq!(matches!(ended, Ended::Fenced(_)), forgotten, "{ended:?}");
    }
}

#[test]
fn a_session_that_decides_in_a_region_that_is_removed_goes_on_in_another() {
    let fenced = Fenced::ready();
    let removed = fenced._bench.ok(&["region", "remove", "a", "--trust-listings"]);
    assert_eq!(removed["members"].as_array().map(Vec::len), Some(2), "{removed:#}");
    let view = View::load(&fenced.repo).unwrap();
    assert!(view.ended.contains(&fenced.session.sid), "nobody ended it");
    let ended = fenced.commit(None);
    let Ended::Committed(done) = &ended else { panic!("fenced") };
    assert_eq!(done.regions, RegionSet::of([1, 2]));
    fenced.went_on(ended);
}

#[test]
fn a_session_whose_decision_region_is_lost_for_ever_goes_on_in_another() {
    let fenced = Fenced::ready();
    std::fs::remove_dir_all(fenced._bench.region("a")).unwrap();
    fenced._bench.ok(&["region", "remove", "a", "--lost"]);
    let key = Key::Snapshot(fenced.session.sid);
    for ix in [1, 2] {
        let there = fenced.repo.regions.get(ix, &key, 1 << 20).unwrap();
        assert_eq!(fenced.repo.open_object(&key, &there).unwrap().kind, ObjectKind::Tombstone);
    }
    let ended = fenced.commit(None);
    fenced.went_on(ended);
}

#[test]
fn a_member_that_is_lost_while_a_prune_is_undecided_can_be_removed_and_nothing_is_doomed() {
    for lost in ["a", "c"] {
        let fenced = Fenced::ready();
        let condemned: Vec<PackName> = fenced.packs.iter().copied().collect();
        begin_epoch(&fenced.repo, &condemned, &[fenced.manifest.sid]);
        // While it answers, the prune is to be carried through.
        let (code, value) = fenced._bench.json(&["region", "remove", lost, "--trust-listings"]);
        assert!(code == 11 && value["error"].to_string().contains("a prune is at work"), "{code}: {value:#}");
        std::fs::remove_dir_all(fenced._bench.region(lost)).unwrap();
        let removed = fenced._bench.ok(&["region", "remove", lost, "--lost"]);
        assert_eq!((&removed["epoch"], removed["members"].as_array().map(Vec::len)), (&3.into(), Some(2)));
        let epochs = opened(&fenced._bench).epochs().clone();
        assert!(epochs.unended().is_none() && epochs.bad_packs().is_empty());
    }
}

/// What a region shows at the session's outcome.
fn outcome_in(fenced: &Fenced, region: usize) -> Option<ObjectKind> {
    let key = Key::Snapshot(fenced.session.sid);
    let bytes = fenced.repo.regions.get(region, &key, 1 << 20).ok()?;
    fenced.repo.open_object(&key, &bytes).ok().map(|opened| opened.kind)
}

#[test]
fn an_end_in_another_region_does_not_keep_a_session_from_being_ended_where_it_decides() {
    let fenced = Fenced::ready();
    // As when region b was brought forward meanwhile: nothing of it binds region a.
    fenced.tombstone(1);
    fenced._bench.ok(&["region", "remove", "a", "--trust-listings"]);
    assert_eq!(outcome_in(&fenced, 0), Some(ObjectKind::Tombstone));
}

#[test]
fn junk_in_another_region_does_not_keep_a_session_from_being_ended_where_something_was_lost() {
    let fenced = Fenced::ready();
    let key = Key::Snapshot(fenced.session.sid);
    fenced.repo.regions.put(1, &key, &bytes::Bytes::from_static(b"junk")).unwrap();
    members::close_sessions(&fenced.repo, fenced.repo.epochs(), (2, id_of(&fenced, 2))).unwrap();
    assert_eq!(outcome_in(&fenced, 0), Some(ObjectKind::Tombstone), "it ends where it decides");
}

fn id_of(fenced: &Fenced, region: usize) -> Option<RegionId> {
    fenced.repo.regions.region(region).id
}

/// An end in a region that a session has nothing to do with would stand beside its snapshot for ever.
#[test]
fn a_session_that_does_not_use_a_region_is_not_ended_for_what_was_lost_there() {
    let fenced = Fenced::ready();
    let other = Some(RegionId([7; 16]));
    members::close_sessions(&fenced.repo, fenced.repo.epochs(), (2, other)).unwrap();
    assert_eq!([0, 1, 2].map(|region| outcome_in(&fenced, region)), [None; 3]);
    // Where it would decide in the region itself it ends there.
    members::close_sessions(&fenced.repo, fenced.repo.epochs(), (0, id_of(&fenced, 0))).unwrap();
    assert_eq!([0, 1, 2].map(|region| outcome_in(&fenced, region)), [Some(ObjectKind::Tombstone), None, None]);
}

/// A region was emptied, and somebody made another one of it, while a run was at work: what it stored there is gone.
#[test]
fn a_region_that_lost_the_announcement_gets_no_snapshot() {
    for emptied in ["a", "b"] {
        let fenced = Fenced::ready();
        std::fs::remove_dir_all(fenced._bench.region(emptied).join("sessions")).unwrap();
        let Ended::Committed(done) = fenced.commit(None) else { panic!("fenced") };
        let left = if emptied == "a" { [1, 2] } else { [0, 2] };
        assert_eq!(done.regions, RegionSet::of(left), "{emptied}");
        let gone = usize::from(emptied == "b");
        let why = fenced.repo.regions.failure(gone).unwrap().to_string();
        assert!(why.contains("emptied, or replaced, meanwhile"), "{why}");
        let key = Key::Snapshot(done.sid);
        assert!(!fenced._bench.region(emptied).join(key.path()).exists(), "{emptied}");
    }
}

#[test]
fn what_another_region_shows_as_made_is_not_ended() {
    let fenced = Fenced::ready();
    let Ended::Committed(done) = fenced.commit(None) else { panic!("fenced") };
    assert_eq!(done.sid, fenced.session.sid);
    std::fs::remove_file(fenced._bench.region("c").join(Key::Snapshot(done.sid).path())).unwrap();
    members::close_sessions(&fenced.repo, fenced.repo.epochs(), (2, id_of(&fenced, 2))).unwrap();
    assert_eq!((outcome_in(&fenced, 1), outcome_in(&fenced, 2)), (Some(ObjectKind::Manifest), None));
}

#[test]
fn a_decision_region_that_lies_is_found_out() {
    let fenced = Fenced::ready();
    let doomed: Vec<PackName> = fenced.packs.iter().take(1).copied().collect();
    let begun = begin_epoch(&fenced.repo, &doomed, &[]);
    end_epoch(&fenced.repo, begun, &doomed);
    // It takes the manifest although the session was resolved: the epochs, read once more, tell.
    assert!(matches!(fenced.commit(None), Ended::Fenced(_)));
    let findings = fenced.repo.findings();
    assert!(findings.iter().any(|f| f.what.contains("doomed")), "{findings:?}");
}

#[test]
fn with_the_decision_region_lost_another_decides() {
    let fenced = Fenced::ready();
    let folder = fenced._bench.region("a");
    assert_eq!(fenced.session.decision, 0);
    // Renaming it would not do: an open region is followed wherever it goes.
    std::fs::remove_dir_all(&folder).unwrap();
    std::fs::write(&folder, b"a file where the folder was").unwrap();
    let Ended::Committed(done) = fenced.commit(None) else { panic!("fenced") };
    assert_ne!(done.sid, fenced.session.sid);
    assert_eq!(done.regions, RegionSet::of([1, 2]));
}

#[test]
fn an_epoch_that_begins_during_the_announcement_makes_a_new_session() {
    let bench = Bench::new(&["a", "b"]);
    let opened = opened(&bench);
    // Opened before the epoch began: what it knows is old.
    begin_epoch(&opened, &[], &[]);
    let errand = Errand { host: "host".into(), source: "source".into(), generation: Generation(1) };
    let session = Session::announce(&opened, errand, None).unwrap();
    assert_eq!(session.epochs.newest(), Epoch(2));
    assert_eq!(session.fresh(&opened).epoch, Epoch(2));
}

#[test]
fn an_epoch_begun_with_keys_that_are_newer_is_not_passed_over() {
    let bench = Bench::new(&["a", "b", "c"]);
    let repo = opened(&bench);
    let errand = || Errand { host: "host".into(), source: "source".into(), generation: Generation(1) };
    // Junk alone keeps nobody from his work.
    let junk = bench.region("a").join("epochs/00000002/begin");
    std::fs::create_dir_all(junk.parent().unwrap()).unwrap();
    std::fs::copy(bench.region("a").join("epochs/00000001/begin"), &junk).unwrap();
    let session = Session::announce(&repo, errand(), None).unwrap();
    assert_eq!(session.epochs.newest(), Epoch(1));
    std::fs::remove_dir_all(junk.parent().unwrap()).unwrap();
    // Whoever removes a key changes the owner's too, and then the members.
    let added = bench.ok(&["key", "add", "--new-recovery-key", "--label", "spare"]);
    bench.ok(&["key", "remove", added["slot"].as_str().unwrap()]);
    bench.ok(&["region", "remove", "c"]);
    let e = Session::announce(&repo, errand(), None).expect_err("an epoch was overlooked");
    assert!(e.kind() == Kind::Retry && e.to_string().contains("keys"), "{e}");
    let session = Session::announce(&opened(&bench), errand(), None).unwrap();
    assert_eq!((session.regions, session.epochs.newest()), (RegionSet::of([0, 1]), Epoch(2)));
}

/// The keys of the repository are others from now on.
fn rotate(bench: &Bench) {
    let added = bench.ok(&["key", "add", "--new-recovery-key", "--label", "spare"]);
    bench.ok(&["key", "remove", added["slot"].as_str().unwrap()]);
}

#[test]
fn whoever_begins_an_epoch_with_old_keys_does_not_step_over_one_of_newer_keys() {
    let bench = Bench::new(&["a", "b", "c"]);
    small_tree(&bench.path("source"));
    bench.ok(&["backup", "source"]);
    let repo = opened(&bench);
    let (some, members) = (packs(&repo), repo.epochs().members().to_vec());
    rotate(&bench);
    bench.ok(&["region", "remove", "c"]);
    let pruned = pruning::begin(&repo, repo.epochs(), &some, Vec::new()).map(drop);
    let changed = members::begin(&repo, repo.epochs(), 0, members);
    for (what, ended) in [("a prune", pruned), ("a change of the regions", changed)] {
        let e = ended.expect_err(what);
        assert!(e.kind() == Kind::Retry && e.to_string().contains("keys"), "{what}: {e}");
    }
    let beside = bench.objects("a").into_iter().filter(|object| object.contains("begin."));
    assert_eq!(beside.count(), 0, "a second beginning stands beside the first");
}

#[test]
fn holds_markers_and_outcomes_of_newer_keys_are_not_overlooked() {
    let bench = Bench::new(&["a", "b"]);
    small_tree(&bench.path("source"));
    let parent = sid(&bench.ok(&["backup", "source"]));
    let repo = opened(&bench);
    let errand = Errand { host: "host".into(), source: "source".into(), generation: Generation(1) };
    let session = Session::announce(&repo, errand, None).unwrap();
    // Junk hides nothing, and keeps nobody from his work.
    let (marker, hold) = (Key::Forgotten(parent), Key::Hold(HoldId([7; 16])));
    let junk = repo.regions.get(0, &Key::Snapshot(parent), 1 << 20).unwrap();
    let outcome = Key::Snapshot(SessionId([9; 16]));
    for key in [marker, hold, outcome] {
        repo.regions.put_all(repo.usable(), &key, &junk);
    }
    assert!(session.parent_stands(&repo, parent) && Holds::certain(&repo).is_ok());
    let outcomes = Outcomes::load(&repo, repo.usable()).unwrap();
    assert!(outcomes.ended.contains_key(&SessionId([9; 16])) && outcomes.unsure.is_empty());
    for (region, key) in ["a", "b"].into_iter().flat_map(|region| [marker, hold, outcome].map(|key| (region, key))) {
        std::fs::remove_file(bench.region(region).join(key.path())).unwrap();
    }
    rotate(&bench);
    bench.ok(&["backup", "source"]);
    let now = opened(&bench);
    let fresh = now.fresh();
    let (reason, created) = (String::from("newer"), 1);
    let forgotten =
        Forgotten { fresh, sid: parent, manifest: Digest::ZERO, created, reason: reason.clone(), last: None };
    let held = Hold { fresh, hold: HoldId([7; 16]), sid: parent, created, reason, until: None };
    let sealed = [
        (marker, now.seal(ObjectKind::Forgotten, &marker.canonical(), &forgotten).unwrap()),
        (hold, now.seal(ObjectKind::Hold, &hold.canonical(), &held).unwrap()),
    ];
    for (key, bytes) in sealed {
        assert_eq!(now.regions.put_all(now.usable(), &key, &bytes), now.usable());
    }
    assert!(!session.parent_stands(&repo, parent), "a marker was overlooked");
    let errors = [Holds::certain(&repo).err(), Outcomes::load(&repo, repo.usable()).err()];
    for e in errors {
        assert!(e.as_ref().is_some_and(|e| e.to_string().contains("keys")), "{e:?}");
    }
}

#[test]
fn members_change_on_the_owners_word_only_and_gaps_end_the_series() {
    let bench = Bench::new(&["a", "b"]);
    let opened = opened(&bench);
    let (number, _) = begin_epoch(&opened, &[], &[]);
    // The owner (here the only writer, with all roles) may change members; a region that is none is read only.
    let key = Key::EpochBegin(Epoch(number.0 + 1), 0);
    let home = opened.epochs().members()[0].clone();
    let begin = EpochBegin {
        fresh: opened.fresh(),
        number: Epoch(number.0 + 1),
        members: vec![home, Member { id: RegionId([7; 16]), name: "elsewhere".into(), weak: None }],
        condemned: Vec::new().into(),
        roots: Vec::new(),
        created: 1,
    };
    let bytes = opened.seal(ObjectKind::EpochBegin, &key.canonical(), &begin).unwrap();
    opened.regions.put_all(opened.usable(), &key, &bytes);
    let now = opened.epochs_since(opened.epochs());
    assert_eq!(now.newest(), Epoch(3));
    assert_eq!((opened.usable(), opened.writable()), (RegionSet::of([0, 1]), RegionSet::of([0])));
    // An epoch behind a gap is no continuation.
    let far = Key::EpochBegin(Epoch(9), 0);
    let bytes =
        opened.seal(ObjectKind::EpochBegin, &far.canonical(), &EpochBegin { number: Epoch(9), ..begin }).unwrap();
    opened.regions.put_all(opened.usable(), &far, &bytes);
    assert_eq!(opened.epochs_since(&now).newest(), Epoch(3));
}

#[test]
fn a_squatted_or_damaged_copy_of_an_epoch_is_passed_over_and_healed() {
    let bench = Bench::new(&["a", "b"]);
    small_tree(&bench.path("source"));
    bench.ok(&["backup", "source"]);
    let begin = bench.region("b").join("epochs/00000001/begin");
    let mut bytes = std::fs::read(&begin).unwrap();
    bytes[200] ^= 1;
    std::fs::write(&begin, bytes).unwrap();
    let (code, report) = bench.json(&["backup", "source"]);
    assert_eq!(code, 0, "the good copy went to the next suffix: {report:#}");
    assert!(bench.region("b").join("epochs/00000001/begin.1").exists());
    assert_eq!(report["regions"].as_array().map(Vec::len), Some(2));
}

#[test]
fn a_rolled_back_region_is_read_but_not_written() {
    let bench = Bench::new(&["a", "b"]);
    small_tree(&bench.path("source"));
    bench.ok(&["backup", "source"]);
    {
        let repo = opened(&bench);
        let begun = begin_epoch(&repo, &[], &[]);
        end_epoch(&repo, begun, &[]);
        let begun = begin_epoch(&repo, &[], &[]);
        end_epoch(&repo, begun, &[]);
    }
    for number in ["00000002", "00000003"] {
        std::fs::remove_dir_all(bench.region("b").join("epochs").join(number)).unwrap();
    }
    let before = bench.objects("b");
    let (code, report) = bench.json(&["--copies-min", "1", "backup", "source"]);
    assert_eq!(code, 4, "{report:#}");
    assert!(report["behind"][0]["why"].as_str().unwrap().contains("rolled back"), "{report:#}");
    assert_eq!(bench.objects("b"), before);
    // It is still a copy to restore from.
    std::fs::remove_dir_all(bench.region("a").join("packs")).unwrap();
    let target = bench.path("target");
    let (code, report) = bench.json(&["restore", "latest", "--target", target.to_str().unwrap()]);
    assert_eq!(code, 0, "{report:#}");
    assert_same(&bench.path("source"), &target);
}

/// The next configuration, asking for features beside those that this program knows.
pub fn ask_for(bench: &Bench, read: &[&str], write: &[&str]) {
    let repo = opened(bench);
    let mut features = Features::ours();
    features.read.extend(read.iter().map(|f| (*f).to_owned()));
    features.write.extend(write.iter().map(|f| (*f).to_owned()));
    let number = ConfigNo(repo.config().0.0 + 1);
    let object = Next {
        repo: repo.id,
        number,
        previous: repo.config().1,
        owner: &repo.ring().owner(),
        features,
        ring: repo.ring(),
        g: Secret::from_bytes([1; 32]),
        randomness: wrap_randomness(&repo.env, repo.ring().slots.len()).unwrap(),
        created: repo.env.now(),
    };
    let bytes = object.to_object().unwrap().into();
    assert_eq!(repo.regions.put_all(repo.usable(), &Key::Config(number, 0), &bytes), repo.usable());
}

#[test]
fn features_that_are_not_known_stop_what_they_are_for_by_name() {
    let bench = Bench::new(&["a", "b"]);
    small_tree(&bench.path("source"));
    let first = bench.ok(&["backup", "source"]);
    ask_for(&bench, &[], &["tensors9"]);
    let before = (bench.objects("a"), bench.objects("b"));
    let snapshot = first["snapshot"].as_str().unwrap();
    let writers: [&[&str]; 3] =
        [&["backup", "source"], &["forget", "--last", snapshot], &["key", "add", "--new-recovery-key"]];
    for args in writers {
        let (code, report) = bench.json(args);
        assert_eq!(code, 1, "{args:?}: {report:#}");
        assert_eq!(report["error"]["kind"], "newer", "{args:?}: {report:#}");
        assert!(report["error"]["what"].as_str().unwrap().contains("`tensors9`"), "{report:#}");
    }
    assert_eq!((bench.objects("a"), bench.objects("b")), before, "something was written");
    let target = bench.path("target");
    bench.ok(&["restore", "latest", "--target", target.to_str().unwrap()]);
    assert_same(&bench.path("source"), &target);
    ask_for(&bench, &["codec9"], &[]);
    for args in [&["snapshots"][..], &["restore", "latest", "--target", "elsewhere"], &["backup", "source"]] {
        let (code, report) = bench.json(args);
        assert_eq!((code, &report["error"]["kind"]), (1, &"newer".into()), "{args:?}: {report:#}");
        assert!(report["error"]["what"].as_str().unwrap().contains("`codec9`"), "{report:#}");
    }
}
