//! The test vectors of the format. Python makes them (restore-tests/reader/make_vectors.py) and reads them; here the
//! program does both too. What Python cannot compute is in golden.json, which the program must still agree with.

use crate::reader::python;
use holdfast::base::{ChunkId, ConfigNo, Digest, Domain, KeyEpoch, RepoId, SlotId, TimeMs, hex, unhex};
use holdfast::chunk::{Codec, Coder, Cutter, IdKey, gear_seed};
use holdfast::crypto::{self, Argon2Params, Secret, SigningKey, VerifyKey};
use holdfast::format::config::{Config, Features, Next};
use holdfast::format::envelope::{Class, Filled, Header, Kind, ObjectKeys, RecordKind, Sealer, class_secret};
use holdfast::format::objects::HoldRelease;
use holdfast::format::pack::{self, PackWriter};
use holdfast::format::ring::{Keyring, SlotEntry, Trust};
use holdfast::format::signed::{self, Opened, Signer};
use holdfast::format::slot::{Anchor, Slot, SlotKind};
use holdfast::format::snapshot::Manifest;
use holdfast::format::tree::Page;
use holdfast::format::{FormatError, cbor};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("restore-tests/vectors").join(name)
}

fn read(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(file(name)).unwrap()).unwrap()
}

fn vectors() -> Value {
    read("vectors.json")
}

fn bytes(value: &Value) -> Vec<u8> {
    unhex(value.as_str().unwrap_or_else(|| panic!("no text: {value}"))).unwrap_or_else(|| panic!("no hex: {value}"))
}

fn array<const N: usize>(value: &Value) -> [u8; N] {
    bytes(value).try_into().unwrap_or_else(|_| panic!("not {N} bytes: {value}"))
}

fn secret(value: &Value) -> Secret<32> {
    Secret::from_bytes(array(value))
}

fn number(value: &Value) -> u32 {
    value.as_u64().and_then(|n| n.try_into().ok()).unwrap_or_else(|| panic!("no number: {value}"))
}

fn list(value: &Value) -> &Vec<Value> {
    value.as_array().filter(|list| !list.is_empty()).unwrap_or_else(|| panic!("no list: {value}"))
}

fn header(all: &Value, kind: Kind, salt: [u8; 32]) -> Header {
    Header { kind, domain: Domain(0), key_epoch: KeyEpoch(1), repo: RepoId(array(&all["repository"])), salt }
}

/// The first writer of the vectors' keyring, which is made from these seeds.
fn ring(all: &Value) -> Keyring {
    let mut ring = Keyring::new(&[[1; 32], [2; 32], [5; 32], [4; 32]], TimeMs(CREATED));
    for slot in list(&all["slots"]) {
        let (id, public) = (SlotId(array(&slot["id"])), bytes(&slot["xwing public"]).into());
        let kind = u8::try_from(number(&slot["kind"])).unwrap();
        let object = Some(signed::check_sum(&bytes(&slot["object"])).unwrap().1);
        ring.slots.push(SlotEntry { id, kind, label: String::new(), public, created: CREATED, object });
    }
    ring
}

const CREATED: i64 = 1_700_000_000_000;

#[test]
fn the_second_reader_makes_and_reads_the_vectors() {
    let dir = tempfile::tempdir().unwrap();
    let made = dir.path().join("vectors.json");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("restore-tests/reader/make_vectors.py");
    let out = python().arg(script).arg(file("golden.json")).arg(&made).output().expect("Python runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert!(std::fs::read(made).unwrap() == std::fs::read(file("vectors.json")).unwrap(), "other vectors were made");
    let out = python().args(["-m", "holdfast_reader", "--vectors"]).arg(file("vectors.json")).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

/// BLAKE3 extended output over a name, as in make_vectors.py.
fn stream(name: &str, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(name.as_bytes()).finalize_xof().fill(&mut out);
    out
}

fn cuts(len: usize) -> Value {
    let data = stream("cut", len);
    let seed = gear_seed(&Secret::from_bytes([1; 32]), Domain(7));
    let cutter = Cutter::files(seed);
    let (mut lengths, mut at) = (Vec::new(), 0);
    while let Some(len) = cutter.next(&data[at..], true) {
        lengths.push(len);
        at += len;
    }
    json!({"stream": "cut", "length": len, "gear seed": hex(&seed.to_le_bytes()), "lengths": lengths})
}

fn encapsulations(all: &Value) -> Value {
    let of = |(n, slot): (usize, &Value)| {
        let (ciphertext, _) = crypto::encapsulate(&bytes(&slot["xwing public"]), &randomness(n)).unwrap();
        hex(&ciphertext)
    };
    let slots = list(&all["slots"]).iter().enumerate();
    let random: Vec<String> = (0..slots.len()).map(|n| hex(randomness(n).bytes())).collect();
    json!({"randomness": random, "ciphertexts": slots.map(of).collect::<Vec<_>>()})
}

fn randomness(n: usize) -> Secret<64> {
    Secret::from_bytes([60 + n as u8; 64])
}

#[test]
fn cut_points_and_encapsulations_are_what_they_were() {
    let golden = read("golden.json");
    let now = json!({"cut": cuts(12 * 1024 * 1024 + 12_345), "xwing": encapsulations(&vectors())});
    assert_eq!(golden, now, "{now}");
    assert!(list(&golden["cut"]["lengths"]).len() > 5);
}

#[test]
fn keys_are_derived_alike() {
    let all = vectors();
    for v in list(&all["derive"]) {
        let (material, output) = (bytes(&v["material"]), bytes(&v["output"]));
        let made = match v["context"].as_str().unwrap() {
            "class" => crypto::kd::<32>("class", &[&material]).bytes().to_vec(),
            "object" => crypto::kd::<96>("object", &[&material]).bytes().to_vec(),
            "chunk id" => crypto::kd::<32>("chunk id", &[&material]).bytes().to_vec(),
            "gear" => crypto::kd::<8>("gear", &[&material]).bytes().to_vec(),
            "slot" => crypto::kd::<96>("slot", &[&material]).bytes().to_vec(),
            "wrap" => crypto::kd::<64>("wrap", &[&material]).bytes().to_vec(),
            "ring" => crypto::kd::<64>("ring", &[&material]).bytes().to_vec(),
            other => panic!("a context that is not tested: {other}"),
        };
        assert_eq!(hex(&made), hex(&output), "{}", v["context"]);
    }
    let classes = [Class::Data, Class::Tree, Class::Index, Class::Root];
    for (v, class) in list(&all["classes"]).iter().zip(classes) {
        assert_eq!(number(&v["class"]), class as u32);
        let made = class_secret(&secret(&v["epoch key"]), Domain(number(&v["domain"])), class);
        assert_eq!(hex(made.bytes()), v["secret"]);
    }
    for v in list(&all["chunks"]) {
        let (root, domain) = (secret(&v["id root"]), Domain(number(&v["domain"])));
        assert_eq!(IdKey::derive(&root, domain).id(&bytes(&v["plain"])).hex(), v["id"]);
        assert_eq!(hex(&gear_seed(&root, domain).to_le_bytes()), v["gear seed"]);
    }
}

#[test]
fn envelopes_are_sealed_alike() {
    let all = vectors();
    let v = &all["page"];
    let (id, plain) = (ChunkId(array(&v["id"])), b"hello holdfast");
    let mut sealer = Sealer::new(Vec::new(), &header(&all, Kind::Data, [5; 32]), &secret(&v["secret"]));
    let filled = |kind, id, plain_len| Filled { id, kind, codec: 0, plain_len };
    let at = sealer.record(|out| {
        out.extend_from_slice(plain);
        filled(RecordKind::Chunk, Some(id), plain.len())
    });
    let table = [&u64::from(at.offset).to_le_bytes()[..], &0u32.to_le_bytes()].concat();
    let at = sealer.record(|out| {
        out.extend_from_slice(&table);
        filled(RecordKind::Table, None, table.len())
    });
    let made = [&sealer.into_bytes()[..], &u64::from(at.offset).to_le_bytes()].concat();
    assert_eq!(hex(&made), v["object"]);
    assert_eq!(Digest::of(&made).hex(), v["name"]);
}

#[test]
fn packs_and_bundles_are_made_alike() {
    let all = vectors();
    let v = &all["bundle"];
    let chunks: Vec<(ChunkId, Vec<u8>)> =
        list(&v["members"]).iter().map(|m| (ChunkId(array(&m["id"])), bytes(&m["plain"]))).collect();
    let lens: Vec<(ChunkId, u32)> = chunks.iter().map(|(id, plain)| (*id, plain.len() as u32)).collect();
    let secret = class_secret(&secret(&v["epoch key"]), Domain(0), Class::Data);
    let head = header(&all, Kind::Data, array(&v["salt"]));
    let mut writer = PackWriter::new(Vec::new(), &head, &secret);
    writer.bundle(&lens, |out| {
        chunks.iter().for_each(|(_, plain)| out.extend_from_slice(plain));
        Codec::Raw.id()
    });
    writer.chunk(chunks[0].0, chunks[0].1.len(), |out| {
        out.extend_from_slice(&chunks[0].1);
        Codec::Raw.id()
    });
    let made = writer.finish();
    assert_eq!(
        (made.bytes.len() as u64, made.name.hex()),
        (v["pack size"].as_u64().unwrap(), v["pack name"].as_str().unwrap().into())
    );
    let (parsed, commitment) = Header::parse(&made.bytes, &head.repo).unwrap();
    let keys = ObjectKeys::open(&parsed, &commitment, &secret).unwrap();
    assert_eq!(pack::records(&keys, &made.bytes).unwrap().len(), 2);
    let body = bytes(&v["body"]);
    let bundle = pack::bundle(&body, lens.iter().map(|(_, len)| *len as usize).sum()).unwrap();
    let members: Vec<_> =
        bundle.chunks.iter().map(|(id, at, len)| (*id, bundle.payload[*at..at + len].to_vec())).collect();
    assert_eq!(members, chunks);
}

#[test]
fn bodies_are_decoded_alike() {
    let mut coder = Coder::default();
    let all = vectors();
    let seen: Vec<u32> = list(&all["codecs"])
        .iter()
        .map(|v| {
            let (plain, mut out) = (bytes(&v["plain"]), Vec::new());
            let codec = Codec::from_id(u8::try_from(number(&v["codec"])).unwrap()).unwrap();
            coder.decode(codec, &bytes(&v["body"]), plain.len(), &mut out).unwrap();
            assert_eq!(hex(&out), hex(&plain), "{codec:?}");
            number(&v["codec"])
        })
        .collect();
    assert_eq!(seen, [0, 1, 2, 3, 4, 5]);
}

#[test]
fn slots_and_configurations_are_made_alike() {
    let all = vectors();
    let repo = RepoId(array(&all["repository"]));
    let owner = SigningKey::from_seed(&Secret::from_bytes([3; 32]));
    let anchor = Anchor { owner: owner.verify_key(), number: ConfigNo(0), digest: Digest::ZERO };
    let ring = ring(&all);
    assert_eq!(hex(&cbor::encode(&ring)), all["keyring"]);
    let v = &all["config"];
    let next = Next {
        // As the first programs set them.
        features: Features { read: vec!["base1".into()], ..Features::ours() },
        repo,
        number: ConfigNo(1),
        previous: Digest::ZERO,
        owner: &owner,
        ring: &ring,
        g: secret(&v["grant"]),
        randomness: (0..ring.slots.len()).map(randomness).collect(),
        created: TimeMs(CREATED),
    };
    let made = next.to_object().unwrap();
    assert_eq!(hex(&made), v["object"]);
    let config = Config::from_object(&made, &repo, ConfigNo(1), &Digest::ZERO, &owner.verify_key()).unwrap();
    assert_eq!(config.digest().hex(), v["digest"]);
    for slot in list(&all["slots"]) {
        let (kind, seed) = seed(slot);
        assert_eq!(hex(seed.bytes()), slot["seed"]);
        let id = SlotId(array(&slot["id"]));
        let (object, kem) = Slot::create(repo, id, kind, array(&slot["salt"]), &seed, &anchor);
        assert_eq!(hex(&object), slot["object"]);
        assert_eq!(hex(kem.bytes()), slot["xwing seed"]);
        assert_eq!(hex(&crypto::public_key(&kem)), slot["xwing public"]);
        assert!(config.open(&id, &kem).unwrap() == ring);
    }
}

/// The seed of a slot, from the secret as a user would have it.
fn seed(slot: &Value) -> (SlotKind, Secret<32>) {
    let text = slot["secret"].as_str().unwrap();
    match SlotKind::from_id(u8::try_from(number(&slot["kind"])).unwrap()).unwrap() {
        SlotKind::Passphrase => {
            let seed = crypto::passphrase_seed(text.as_bytes(), &array(&slot["salt"]), Argon2Params::DEFAULT);
            (SlotKind::Passphrase, seed.unwrap())
        }
        SlotKind::KeyFile => (SlotKind::KeyFile, secret(&slot["secret"])),
        SlotKind::Recovery => {
            let seed = crypto::recovery_decode(text).unwrap();
            assert_eq!(crypto::recovery_encode(&seed).to_lowercase(), text);
            (SlotKind::Recovery, seed)
        }
    }
}

#[test]
fn manifests_are_sealed_and_signed_alike() {
    let all = vectors();
    let v = &all["manifest"];
    let manifest: Manifest = cbor::decode("manifest", &bytes(&v["cbor"])).unwrap();
    manifest.check().unwrap();
    let (key, ring) = (v["key"].as_str().unwrap(), ring(&all));
    let (id, signing) = ring.signer().unwrap();
    let secret = ring.class_secret(Domain(0), KeyEpoch(1), Class::Root).unwrap();
    let header = header(&all, Kind::Manifest, array(&v["salt"]));
    let made = signed::seal(&manifest, key, &header, &secret, &Signer { id, key: signing });
    assert_eq!(hex(&made), v["object"]);
    let trust = Trust { repo: header.repo, ring: &ring };
    let opened = Opened::open(&made, key, trust).unwrap();
    assert_eq!((opened.writer, opened.decode::<Manifest>("manifest").unwrap()), (id, manifest));
    let other = "snapshots/00000000000000000000000000000000";
    assert!(matches!(Opened::open(&made, other, trust), Err(FormatError::Unsigned(_))));
    assert!(matches!(Opened::open(&made, "holds/0", trust), Err(FormatError::Malformed(..))));
}

#[test]
fn the_same_is_refused() {
    let all = vectors();
    let v = &all["ed25519"];
    for s in list(&v["signatures"]) {
        let verified = VerifyKey(array(&s["key"])).verify(&bytes(&v["message"]), &array(&s["signature"]));
        assert_eq!(verified, s["good"], "{}", s["why"]);
    }
    assert!(cbor::decode::<HoldRelease>("release", &bytes(&all["cbor"]["good"])).is_ok());
    for s in list(&all["cbor"]["bad"]) {
        assert!(cbor::decode::<HoldRelease>("release", &bytes(&s["cbor"])).is_err(), "{}", s["why"]);
    }
}

#[test]
fn pages_that_no_directory_has_are_refused() {
    let all = vectors();
    let read = |page: &Value| {
        let page = Page::decode(&bytes(page)).ok()?;
        let safe = page.entries.iter().flatten().all(|entry| entry.name_is_safe());
        safe.then(|| page.entries.map_or(0, |entries| entries.len()))
    };
    assert_eq!(read(&all["pages"]["good"]), Some(2));
    for s in list(&all["pages"]["bad"]) {
        assert_eq!(read(&s["cbor"]), None, "{}", s["why"]);
    }
}
