//! Control objects by somebody who has no right to them: a stranger, a holder of the data keys, a writer whose
//! role does not go so far; and good ones at a key that is not theirs. None is believed, and each is named.

use crate::damage::fixture::{Fixture, run};
use crate::harness::{assert_same, files};
use crate::inside::{Inside, plant};
use holdfast::base::{ConfigNo, Domain, Epoch, Generation, HoldId, RegionId, SessionId};
use holdfast::crypto::{Secret, SigningKey};
use holdfast::format::config::{Features, Next};
use holdfast::format::envelope::Kind as ObjectKind;
use holdfast::format::index::Segment;
use holdfast::format::objects::{EpochBegin, Forgotten, HoldRelease, Member, Session, Tombstone};
use holdfast::format::ring::{Writer, role};
use holdfast::format::signed::{Signer, check_sum, seal};
use holdfast::repo::init::wrap_randomness;
use holdfast::repo::view::View;
use holdfast::store::Key;
use minicbor::Encode;
use serde_json::Value;
use std::path::Path;

/// Signing seeds of writers that the keyring lists with less than all rights, and of one that it does not list.
const WRITES_OTHER: [u8; 32] = [21; 32];
const PRUNES: [u8; 32] = [22; 32];
const UNKNOWN: [u8; 32] = [23; 32];

fn signer(seed: [u8; 32]) -> Signer {
    let key = SigningKey::from_seed(&Secret::from_bytes(seed));
    Signer { id: key.verify_key().writer_id(), key }
}

/// Configuration 3 lists two writers more.
fn list_writers(inside: &Inside) {
    let repo = &inside.repo;
    let mut ring = repo.ring().clone();
    for (seed, roles, sources) in [(WRITES_OTHER, role::WRITE, vec!["other".to_owned()]), (PRUNES, role::PRUNE, vec![])]
    {
        let verify = SigningKey::from_seed(&Secret::from_bytes(seed)).verify_key();
        let (id, name) = (verify.writer_id(), "limited".to_owned());
        ring.writers.push(Writer { id, verify, roles, domains: vec![Domain(0)], sources, name, created: 0 });
    }
    inside.put(Key::Config(ConfigNo(3), 0), config(inside, 3, &ring.owner(), &ring));
}

fn config(inside: &Inside, number: u32, owner: &SigningKey, ring: &holdfast::format::ring::Keyring) -> bytes::Bytes {
    let repo = &inside.repo;
    let next = Next {
        repo: repo.id,
        number: ConfigNo(number),
        previous: repo.config().1,
        owner,
        features: Features::ours(),
        ring,
        g: Secret::from_bytes([1; 32]),
        randomness: wrap_randomness(&repo.env, ring.slots.len()).expect("random"),
        created: repo.env.now(),
    };
    next.to_object().expect("an object").into()
}

/// A repository with its limited writers, and tools to forge.
struct Forge {
    ours: Fixture,
    inside: Inside,
}

impl Forge {
    fn new() -> Forge {
        let ours = Fixture::ours();
        list_writers(&Inside::with_key(&ours.bench, [7; 32]));
        let inside = Inside::with_key(&ours.bench, [7; 32]);
        assert_eq!(inside.repo.config().0, ConfigNo(3));
        Forge { ours, inside }
    }

    /// An object of this kind for this key by this writer, sealed with the right keys.
    fn object<T: Encode<()>>(&self, kind: ObjectKind, key: &str, value: &T, by: [u8; 32]) -> Vec<u8> {
        let repo = &self.inside.repo;
        let header = repo.header(kind).expect("random");
        seal(value, key, &header, &repo.secret(kind.class()).expect("key"), &signer(by))
    }

    /// One by the repository's own writer, with all rights.
    fn good<T: Encode<()>>(&self, kind: ObjectKind, key: &str, value: &T) -> Vec<u8> {
        self.inside.repo.seal(kind, key, value).expect("sealed").to_vec()
    }

    fn second(&self) -> SessionId {
        SessionId::parse(&self.ours.second).expect("an id")
    }

    fn marker(&self, sid: SessionId) -> Forgotten {
        let digest = check_sum(&self.ours.bytes("a", &Key::Snapshot(self.second()).path())).expect("manifest").1;
        Forgotten {
            fresh: self.inside.repo.fresh(),
            sid,
            manifest: digest,
            created: 0,
            reason: "forged".into(),
            last: None,
        }
    }

    fn begin(&self, members: Vec<Member>, condemned: Vec<u8>) -> EpochBegin {
        let fresh = self.inside.repo.fresh();
        EpochBegin { fresh, number: Epoch(3), members, condemned: condemned.into(), roots: Vec::new(), created: 0 }
    }

    fn members(&self) -> Vec<Member> {
        self.inside.repo.epochs().members().to_vec()
    }

    /// What is planted: name, key and bytes.
    fn forgeries(&self) -> Vec<(&'static str, String, Vec<u8>)> {
        [self.markers(), self.outcomes(), self.epochs(), self.others()].concat()
    }

    fn markers(&self) -> Vec<(&'static str, String, Vec<u8>)> {
        let sid = self.second();
        let key = Key::Forgotten(sid).path();
        let by = |seed| self.object(ObjectKind::Forgotten, &key, &self.marker(sid), seed);
        let repo = &self.inside.repo;
        let header = repo.header(ObjectKind::Forgotten).expect("random");
        let keyless = seal(&self.marker(sid), &key, &header, &Secret::from_bytes([0; 32]), &signer(UNKNOWN));
        let session = self.object(ObjectKind::Session, &key, &self.marker(sid), WRITES_OTHER);
        let moved = self.ours.bytes("a", &self.ours.objects[&crate::damage::fixture::Kind::Forgotten][0]);
        vec![
            ("a marker by a stranger", key.clone(), keyless),
            ("a marker by a holder of the data keys", key.clone(), by(UNKNOWN)),
            ("a marker by a writer who may not forget", key.clone(), by(WRITES_OTHER)),
            ("a marker that calls itself a session", key.clone(), session),
            ("the marker of another snapshot", key.clone(), moved),
            ("an empty marker", key, Vec::new()),
        ]
    }

    fn outcomes(&self) -> Vec<(&'static str, String, Vec<u8>)> {
        let sid = self.second();
        let key = Key::Snapshot(sid).path();
        let fresh = self.inside.repo.fresh();
        let end = Tombstone { fresh, sid, created: 0, reason: "forged".into() };
        let new = SessionId([0xee; 16]);
        let new_key = Key::Snapshot(new).path();
        let view = View::load(&self.inside.repo).expect("view");
        let mut manifest = view.snapshots[&sid].manifest.clone();
        (manifest.sid, manifest.start, manifest.seq) = (new, manifest.start + 1000, manifest.seq + 1);
        vec![
            (
                "an end by a holder of the data keys",
                key.clone(),
                self.object(ObjectKind::Tombstone, &key, &end, UNKNOWN),
            ),
            ("an end by another writer", key.clone(), self.object(ObjectKind::Tombstone, &key, &end, WRITES_OTHER)),
            ("an end by the writer, too late", key.clone(), self.good(ObjectKind::Tombstone, &key, &end)),
            (
                "a manifest by a writer of another source",
                new_key.clone(),
                self.object(ObjectKind::Manifest, &new_key, &manifest, WRITES_OTHER),
            ),
            ("the manifest of another session", new_key, self.ours.bytes("a", &key)),
        ]
    }

    fn epochs(&self) -> Vec<(&'static str, String, Vec<u8>)> {
        let key = Key::EpochBegin(Epoch(3), 0).path();
        let strangers = vec![Member { id: RegionId([5; 16]), name: "elsewhere".into(), weak: None }];
        let packs: Vec<u8> = self
            .ours
            .bench
            .objects("a")
            .iter()
            .filter_map(|o| o.strip_prefix("packs/"))
            .flat_map(|o| holdfast::base::unhex(&o[3..]).expect("hex"))
            .collect();
        let members = self.begin(strangers, Vec::new());
        let condemns = self.begin(self.members(), packs);
        let by = |value: &EpochBegin, seed| self.object(ObjectKind::EpochBegin, &key, value, seed);
        let session = self.object(ObjectKind::Session, &key, &condemns, WRITES_OTHER);
        vec![
            ("an epoch of other members by a pruner", key.clone(), by(&members, PRUNES)),
            ("an epoch that condemns everything, by a writer", key.clone(), by(&condemns, WRITES_OTHER)),
            ("an epoch that calls itself a session", key.clone(), session),
            ("an epoch by a holder of the data keys", key.clone(), by(&condemns, UNKNOWN)),
        ]
    }

    fn others(&self) -> Vec<(&'static str, String, Vec<u8>)> {
        let repo = &self.inside.repo;
        let fresh = repo.fresh();
        let wrong_owner = SigningKey::from_seed(&Secret::from_bytes(UNKNOWN));
        let segment = Segment {
            fresh,
            sid: SessionId([9; 16]),
            generation: Generation(1),
            domain: Domain(0),
            packs: Vec::new().into(),
            entries: Vec::new().into(),
        };
        let segment = self.object(ObjectKind::Index, "", &segment, UNKNOWN);
        let release_key = Key::HoldRelease(HoldId([1; 16])).path();
        let release = HoldRelease { fresh, hold: HoldId([1; 16]), created: 0 };
        let session = Session {
            fresh,
            sid: SessionId([8; 16]),
            decision: RegionId([5; 16]),
            created: 0,
            host: "h".into(),
            source: "s".into(),
            generation: Generation(1),
            regions: Vec::new(),
            refreshes: None,
        };
        let session_key = Key::Session(session.sid).path();
        vec![
            (
                "a configuration by a wrong owner",
                "config/00000004".into(),
                config(&self.inside, 4, &wrong_owner, repo.ring()).to_vec(),
            ),
            ("an unsigned index segment", format!("index/{}", blake3::hash(&segment).to_hex()), segment.clone()),
            (
                "a release by a writer",
                release_key.clone(),
                self.object(ObjectKind::HoldRelease, &release_key, &release, WRITES_OTHER),
            ),
            ("an empty release", release_key, Vec::new()),
            (
                "an unsigned session",
                session_key.clone(),
                self.object(ObjectKind::Session, &session_key, &session, UNKNOWN),
            ),
        ]
    }
}

fn names(report: &Value, object: &str) -> bool {
    report["findings"].as_array().into_iter().flatten().filter_map(Value::as_str).any(|l| l.contains(object))
}

/// Everything goes on as if the object were not there, but it is named.
fn check_ignored(ours: &Fixture, dir: &Path, what: &str, object: &str) {
    let key = ours.key();
    let (code, list) = run(dir, &key, &["snapshots"]);
    assert!(matches!(code, 0 | 5), "{what}: {list:#}");
    let shown: Vec<&str> =
        list["snapshots"].as_array().into_iter().flatten().filter_map(|s| s["id"].as_str()).collect();
    assert!(
        [&ours.first, &ours.second, &ours.held].iter().all(|sid| shown.contains(&sid.as_str())),
        "{what}: {list:#}"
    );
    assert_eq!(shown.len(), 4, "{what}: {list:#}");
    if !["index/", "holds/", "sessions/"].iter().any(|p| object.starts_with(p)) {
        assert!(names(&list, object), "{what} is not named: {list:#}");
    }
    let target = dir.join("target");
    let latest = ["restore", "latest", "--name", "main", "--no-repair", "--target", &target.display().to_string()];
    let (code, restored) = run(dir, &key, &latest);
    assert_eq!(code, 0, "{what}: {restored:#}");
    assert_eq!(restored["snapshot"], ours.second.as_str(), "{what}");
    assert_same(&ours.tree, &target);
    let (code, held) = run(dir, &key, &["forget", "--last", &ours.held]);
    assert_eq!(code, 11, "{what}: a held snapshot was forgotten: {held:#}");
    let (code, report) = run(dir, &key, &["verify"]);
    assert!(code == 5 && names(&report, object), "{what} is not named by verify: {report:#}");
    let (code, done) = run(dir, &key, &["backup", "--name", "main", &ours.tree.display().to_string()]);
    assert_eq!(code, 0, "{what}: {done:#}");
    assert_eq!(done["regions"].as_array().map(Vec::len), Some(2), "{what}: {done:#}");
    assert_eq!(done["bytes_new"], 0, "{what}: what was stored is still good: {done:#}");
    let (code, list) = run(dir, &key, &["snapshots"]);
    assert!(matches!(code, 0 | 5) && list["snapshots"].as_array().map(Vec::len) == Some(5), "{what}: {list:#}");
}

#[test]
fn what_somebody_had_no_right_to_say_is_not_believed() {
    let forge = Forge::new();
    let forgeries = forge.forgeries();
    assert!(forgeries.len() >= 20);
    for (what, object, bytes) in &forgeries {
        let copy = forge.ours.copy();
        // In one region; what stands at the key of a good object there hides it.
        plant(&copy.path().join("region-a"), object, bytes);
        check_ignored(&forge.ours, copy.path(), what, object);
    }
    println!("{} forgeries", forgeries.len());
}

#[test]
fn in_every_region_at_once_they_are_not_believed_either() {
    let forge = Forge::new();
    for (what, object, bytes) in
        forge.forgeries().iter().filter(|(_, o, _)| !o.ends_with(&forge.ours.second) || o.starts_with("forgotten"))
    {
        let copy = forge.ours.copy();
        for name in ["region-a", "region-b"] {
            plant(&copy.path().join(name), object, bytes);
        }
        check_ignored(&forge.ours, copy.path(), what, object);
    }
}

/// A copy of a region's folder as hard links.
fn set_aside(from: &Path, to: &Path) {
    for file in files(from) {
        let to = to.join(file.strip_prefix(from).expect("inside"));
        std::fs::create_dir_all(to.parent().expect("parent")).expect("folder");
        std::fs::hard_link(&file, to).expect("hard link");
    }
}

#[test]
fn a_region_that_was_rolled_back_hides_nothing() {
    let ours = Fixture::ours();
    let copy = ours.copy();
    let dir = copy.path();
    set_aside(&dir.join("region-a"), &dir.join("older"));
    let back_up = |name: &str| {
        let (code, done) = run(dir, &ours.key(), &["backup", "--name", name, &ours.first_tree.display().to_string()]);
        assert_eq!(code, 0, "{done:#}");
        done["snapshot"].as_str().expect("a snapshot").to_owned()
    };
    let (third, voucher) = (back_up("main"), back_up("voucher"));
    std::fs::remove_dir_all(dir.join("region-a")).expect("removed");
    std::fs::rename(dir.join("older"), dir.join("region-a")).expect("rolled back");
    let (code, list) = run(dir, &ours.key(), &["snapshots"]);
    assert_eq!(code, 0, "{list:#}");
    let shown = list["snapshots"].to_string();
    assert!(shown.contains(&third) && shown.contains(&voucher), "{list:#}");
    let (code, report) = run(dir, &ours.key(), &["verify"]);
    assert_eq!(code, 5, "{report:#}");
    assert!(report["behind"].to_string().contains("region a lacks 2 snapshots"), "{report:#}");
    assert!(report["lost"].to_string().contains("region a went back in time"), "{report:#}");
    let target = dir.join("target");
    let target = target.display().to_string();
    let (code, restored) = run(dir, &ours.key(), &["restore", "latest", "--name", "main", "--target", &target]);
    assert_eq!((code, restored["snapshot"].as_str()), (0, Some(third.as_str())), "{restored:#}");
    // The other region loses it too: what was made after it proves that it was there.
    std::fs::remove_file(dir.join("region-b/snapshots").join(&third)).expect("removed");
    let (code, list) = run(dir, &ours.key(), &["snapshots"]);
    assert_eq!(code, 5, "{list:#}");
    assert!(list["lost"].to_string().contains(&third[..8]), "{list:#}");
    let (code, report) = run(dir, &ours.key(), &["verify"]);
    assert_eq!(code, 5, "{report:#}");
}
