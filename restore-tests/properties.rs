//! Properties of the format and of the data path: what arbitrary and damaged bytes do, and what always comes back.

use crate::harness::{Bench, noise, opened};
use holdfast::base::{
    Cancel, ChunkId, ConfigNo, Digest, Domain, Epoch, Generation, HoldId, KeyEpoch, PackName, Progress, RegionId,
    RepoId, SessionId, SlotId, TimeMs,
};
use holdfast::chunk::{CUT_BYTES_MAX, Codec, Coder, Cutter};
use holdfast::crypto::{Secret, recovery_decode, recovery_encode};
use holdfast::format::envelope::{Filled, HEADER_BYTES, Header, Kind, ObjectKeys, RecordKind, Sealer};
use holdfast::format::index::{PackLine, Place, Segment, encode_packs, encode_places};
use holdfast::format::objects::{
    EpochBegin, EpochEnd, Forgotten, Hold, HoldRelease, Member, Moved, Repack, Root, Session, Tombstone, pack_list,
};
use holdfast::format::pack::{self, PackWriter};
use holdfast::format::region::RegionMark;
use holdfast::format::ring::{Keyring, SlotEntry, Trust};
use holdfast::format::signed::{self, Fresh, Opened, Signer, add_checksum};
use holdfast::format::slot::{Anchor, Slot, SlotKind};
use holdfast::format::snapshot::{Label, Manifest, Miss, Mode, Seen, Source, content_digest};
use holdfast::format::tree::{Child, Entry, EntryType, ListPage, ListRef, Page, Xattr, items};
use holdfast::format::{cbor, config};
use holdfast::ops::backup::{self, BackupOptions};
use holdfast::store::Key;
use minicbor::{Decode, Encode};
use proptest::collection::vec;
use proptest::prelude::*;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

const REPO: RepoId = RepoId([7; 16]);

/// `cases` of them; a failure prints its smallest input and leaves no file behind.
fn runs(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// One thing done to bytes.
#[derive(Debug, Clone)]
enum Damage {
    Flip(prop::sample::Index, u8),
    Insert(prop::sample::Index, Vec<u8>),
    Delete(prop::sample::Index, usize),
    Cut(prop::sample::Index),
    Repeat(prop::sample::Index, usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        4 => (at(), 1..=255u8).prop_map(|(i, b)| Damage::Flip(i, b)),
        2 => (at(), vec(any::<u8>(), 1..9)).prop_map(|(i, b)| Damage::Insert(i, b)),
        2 => (at(), 1..40usize).prop_map(|(i, n)| Damage::Delete(i, n)),
        1 => at().prop_map(Damage::Cut),
        1 => (at(), 1..40usize).prop_map(|(i, n)| Damage::Repeat(i, n)),
    ]
}

fn apply(bytes: &mut Vec<u8>, damage: &Damage) {
    if bytes.is_empty() {
        return;
    }
    let len = bytes.len();
    match damage {
        Damage::Flip(i, b) => bytes[i.index(len)] ^= b,
        Damage::Insert(i, new) => {
            let at = i.index(len);
            bytes.splice(at..at, new.iter().copied());
        }
        Damage::Delete(i, n) => {
            let at = i.index(len);
            bytes.drain(at..(at + n).min(len));
        }
        Damage::Cut(i) => bytes.truncate(i.index(len)),
        Damage::Repeat(i, n) => {
            let at = i.index(len);
            let again = bytes[at..(at + n).min(len)].to_vec();
            bytes.splice(at..at, again);
        }
    }
}

fn fresh() -> Fresh {
    Fresh { config: ConfigNo(300), digest: Digest([1; 32]), epoch: Epoch(2) }
}

fn entry() -> Entry {
    Entry {
        mode: 0o644,
        uid: 70_000,
        mtime_s: -5,
        mtime_ns: 999_999_999,
        nlink: Some(2),
        size: Some(1 << 40),
        inline: Some(vec![1; 30].into()),
        chunks: Some(vec![2; 80].into()),
        list: Some(ListRef { page: ChunkId([3; 32]), level: 1 }),
        tree: Some(ChunkId([4; 32])),
        target: Some(b"elsewhere".to_vec().into()),
        rdev_major: Some(8),
        rdev_minor: Some(1),
        xattrs: Some(vec![Xattr { name: b"user.a".to_vec().into(), value: vec![0xff; 3].into() }]),
        dev: Some(9),
        flags: Some(1),
        xattrs_ref: Some(ChunkId([5; 32])),
        ..Entry::bare(b"na\xffme", EntryType::File)
    }
}

fn manifest() -> Manifest {
    let root = entry();
    Manifest {
        fresh: fresh(),
        sid: SessionId([1; 16]),
        source: Source {
            kind: "files".into(),
            name: "n".into(),
            host: "h".into(),
            paths: vec![b"/a\xff".to_vec().into()],
        },
        mode: Mode::Full,
        parent: Some(SessionId([2; 16])),
        start: 1,
        end: 2,
        content: content_digest(&root),
        root,
        counts: Default::default(),
        transfer: Default::default(),
        errors: vec![Miss { path: b"/x".to_vec().into(), kind: "denied".into(), message: "no".into() }],
        errors_total: 1,
        consistency: 0,
        policy: Some("p".into()),
        site: None,
        fencing_epoch: Some(3),
        generation: Generation(1),
        domain: Domain(0),
        seq: 4,
        prev: Digest::ZERO,
        seen: vec![Seen { sid: SessionId([3; 16]), digest: Digest([4; 32]) }],
        program: "0".into(),
        tags: vec!["t".into()],
        labels: vec![Label { key: "k".into(), value: "v".into() }],
        fs_id: Some(u64::MAX),
        decision: RegionId([9; 16]),
    }
}

fn segment() -> Segment {
    let packs = [PackLine { name: PackName([7; 32]), size: 1 << 20, tree: false }];
    let place = |n: u8| Place {
        id: ChunkId([n; 32]),
        pack: 0,
        offset: u32::from(n) * 200,
        record_len: 150,
        number: n.into(),
        inside: (n == 2).then_some(5),
        len: 62,
    };
    Segment {
        fresh: fresh(),
        sid: SessionId([1; 16]),
        generation: Generation(1),
        domain: Domain(0),
        packs: encode_packs(&packs).into(),
        entries: encode_places(&mut [place(1), place(2), place(3)]).into(),
    }
}

fn ring() -> Keyring {
    let mut ring = Keyring::new(&[[1; 32], [2; 32], [3; 32], [4; 32]], TimeMs(5));
    let public = holdfast::crypto::public_key(&Secret::from_bytes([6; 32]));
    let (public, object) = (public.into(), Some(Digest([8; 32])));
    let slot = SlotEntry { id: SlotId([1; 16]), kind: 2, label: "l".into(), public, created: 7, object };
    ring.slots.push(slot);
    ring
}

/// Whatever bytes come: no panic, and what is accepted is the one encoding of its value.
fn decodes<T: for<'b> Decode<'b, ()> + Encode<()>>(bytes: &[u8]) -> bool {
    match cbor::decode::<T>("value", bytes) {
        Ok(value) => {
            assert!(cbor::encode(&value) == bytes);
            true
        }
        Err(_) => false,
    }
}

/// A type's name, a valid encoding, and its decoder.
type Decoder = (&'static str, Vec<u8>, fn(&[u8]) -> bool);

fn decoders() -> Vec<Decoder> {
    fn one<T: for<'b> Decode<'b, ()> + Encode<()>>(name: &'static str, value: &T) -> Decoder {
        (name, cbor::encode(value), decodes::<T>)
    }
    let (sid, created, reason) = (SessionId([1; 16]), -1, String::from("why"));
    let root = Root { sid, digest: Digest([2; 32]), first_seen: 1 << 40 };
    let anchor = Anchor { owner: ring().owner().verify_key(), number: ConfigNo(1), digest: Digest::ZERO };
    let child = |name: &[u8]| Child { page: ChunkId([1; 32]), first: name.to_vec().into(), entries: 5 };
    vec![
        one(
            "session",
            &Session {
                fresh: fresh(),
                sid,
                decision: RegionId([2; 16]),
                created,
                host: "h".into(),
                source: "s".into(),
                generation: Generation(1),
                regions: vec![RegionId([3; 16])],
                refreshes: Some(sid),
            },
        ),
        one("tombstone", &Tombstone { fresh: fresh(), sid, created, reason: reason.clone() }),
        one(
            "forgotten",
            &Forgotten {
                fresh: fresh(),
                sid,
                manifest: Digest::ZERO,
                created,
                reason: reason.clone(),
                last: Some(true),
            },
        ),
        one("hold", &Hold { fresh: fresh(), hold: HoldId([1; 16]), sid, created, reason, until: Some(2) }),
        one("hold release", &HoldRelease { fresh: fresh(), hold: HoldId([1; 16]), created }),
        one(
            "repack",
            &Repack {
                fresh: fresh(),
                sid,
                created,
                moved: vec![Moved { old: PackName([1; 32]), new: vec![PackName([2; 32])] }],
            },
        ),
        one(
            "epoch begin",
            &EpochBegin {
                fresh: fresh(),
                number: Epoch(1),
                members: vec![Member { id: RegionId([1; 16]), name: "a".into(), weak: None }],
                condemned: vec![1; 64].into(),
                roots: vec![root.clone()],
                created,
            },
        ),
        one(
            "epoch end",
            &EpochEnd {
                fresh: fresh(),
                number: Epoch(1),
                begin: Digest::ZERO,
                doomed: vec![1; 64].into(),
                roots: vec![root],
                created,
                forgotten: vec![1; 16].into(),
                doomed_before: Some(Vec::new().into()),
            },
        ),
        one("segment", &segment()),
        one("manifest", &manifest()),
        one("entry", &entry()),
        one("tree page", &Page { level: 0, entries: Some(vec![entry()]), children: None }),
        one("upper tree page", &Page { level: 2, entries: None, children: Some(vec![child(b"a"), child(b"b")]) }),
        one("list page", &ListPage { level: 0, items: vec![1; 80].into() }),
        one("keyring", &ring()),
        one("anchor", &anchor),
        one("mark", &RegionMark { version: 1, repo: REPO, region: RegionId([1; 16]), created }),
        one("xattrs", &entry().xattrs.unwrap()),
    ]
}

#[test]
fn what_is_valid_is_read() {
    for (name, valid, decodes) in decoders() {
        assert!(decodes(&valid), "{name}");
    }
    segment().check().unwrap();
    manifest().check().unwrap();
}

proptest! {
    #![proptest_config(runs(400))]

    #[test]
    fn arbitrary_cbor_is_refused_or_canonical(bytes in vec(any::<u8>(), 0..200)) {
        for (_, _, decodes) in decoders() {
            decodes(&bytes);
        }
    }

    #[test]
    fn damaged_cbor_is_refused_or_canonical(all in vec(damage(), 1..4)) {
        for (_, valid, decodes) in decoders() {
            let mut bytes = valid;
            all.iter().for_each(|d| apply(&mut bytes, d));
            decodes(&bytes);
            // What the types cannot say must not panic either.
            if let Ok(segment) = cbor::decode::<Segment>("segment", &bytes) {
                let _ = (segment.check(), segment.pack_lines());
            }
            if let Ok(manifest) = cbor::decode::<Manifest>("manifest", &bytes) {
                let _ = manifest.check();
            }
            let _ = (Page::decode(&bytes), ListPage::decode(&bytes), pack_list(&bytes), items(&bytes).map(Iterator::count));
        }
    }

    #[test]
    fn pages_that_are_read_are_ordered(names in vec(vec(any::<u8>(), 0..3), 0..6), level in 0..10u8) {
        let entries: Vec<Entry> = names.iter().map(|n| Entry::bare(n, EntryType::File)).collect();
        let sorted = names.windows(2).all(|w| w[0] < w[1]);
        let page = cbor::encode(&Page { level, entries: Some(entries), children: None });
        prop_assert_eq!(Page::decode(&page).is_ok(), sorted && level == 0);
        let child = |n: &Vec<u8>| Child { page: ChunkId([1; 32]), first: n.clone().into(), entries: 1 };
        let page = cbor::encode(&Page { level, entries: None, children: Some(names.iter().map(child).collect()) });
        prop_assert_eq!(Page::decode(&page).is_ok(), sorted && (1..=8).contains(&level));
    }

    #[test]
    fn plain_objects_are_refused_or_whole(bytes in vec(any::<u8>(), 0..120), all in vec(damage(), 1..3), resum: bool) {
        let seed = Secret::from_bytes([1; 32]);
        let anchor = Anchor { owner: ring().owner().verify_key(), number: ConfigNo(0), digest: Digest::ZERO };
        let (slot, _) = Slot::create(REPO, SlotId([1; 16]), SlotKind::Passphrase, [2; 32], &seed, &anchor);
        let mark = RegionMark { version: 1, repo: REPO, region: RegionId([1; 16]), created: 1 }.to_object();
        let ring = ring();
        let config = config::Next {
            features: config::Features::ours(),
            repo: REPO, number: ConfigNo(1), previous: Digest::ZERO, owner: &ring.owner(), ring: &ring,
            g: Secret::from_bytes([5; 32]), randomness: vec![Secret::from_bytes([6; 64])], created: TimeMs(1),
        }.to_object().unwrap();
        for valid in [bytes, slot, mark, config] {
            let mut object = valid.clone();
            if resum {
                object.truncate(object.len().saturating_sub(32));
            }
            all.iter().for_each(|d| apply(&mut object, d));
            if resum {
                // A store can make checksums.
                add_checksum(&mut object);
            }
            let slot = Slot::from_object(&object, &REPO).and_then(|slot| slot.open(&seed).map(|_| ()));
            prop_assert!(slot.is_err() || object == valid);
            let mark = RegionMark::from_object(&object);
            prop_assert!(mark.is_ok_and(|m| m.to_object() == object) || mark.is_err());
            let owner = ring.owner().verify_key();
            let config = config::Config::from_object(&object, &REPO, ConfigNo(1), &Digest::ZERO, &owner);
            prop_assert!(config.is_err() || object == valid);
        }
    }

    #[test]
    fn keys_read_back_or_are_none(text in "\\PC{0,80}", all in vec(damage(), 0..2), kind in 0..12usize, n: u32, suffix in 0..20u32, id: [u8; 32]) {
        let mut short = [0; 16];
        short.copy_from_slice(&id[..16]);
        let keys = [
            Key::Region, Key::Slot(SlotId(short)), Key::Config(ConfigNo(n), suffix), Key::Pack(PackName(id)),
            Key::Index(holdfast::base::SegmentName(id)), Key::Snapshot(SessionId(short)), Key::Session(SessionId(short)),
            Key::Forgotten(SessionId(short)), Key::Hold(HoldId(short)), Key::HoldRelease(HoldId(short)),
            Key::EpochBegin(Epoch(n), suffix), Key::EpochEnd(Epoch(n), suffix),
        ];
        prop_assert_eq!(Key::parse(&keys[kind].path()), Some(keys[kind]));
        let mut path = keys[kind].path().into_bytes();
        all.iter().for_each(|d| apply(&mut path, d));
        for text in [text, String::from_utf8_lossy(&path).into_owned()] {
            if let Some(key) = Key::parse(&text) {
                prop_assert_eq!(key.path(), text);
            }
        }
    }

    #[test]
    fn recovery_keys_are_read_back_or_refused(seed: [u8; 32], text in "\\PC{0,80}", all in vec(damage(), 1..3)) {
        let printed = recovery_encode(&Secret::from_bytes(seed));
        prop_assert_eq!(recovery_decode(&printed), Ok(Secret::from_bytes(seed)));
        let mut bytes = printed.into_bytes();
        all.iter().for_each(|d| apply(&mut bytes, d));
        for text in [text, String::from_utf8_lossy(&bytes).into_owned()] {
            // Three characters of damage may hit case or spaces only; then it is the same key.
            prop_assert!(recovery_decode(&text).is_ok_and(|s| s.bytes() == &seed) || recovery_decode(&text).is_err());
        }
    }

    #[test]
    fn configurations_never_panic(text in "\\PC{0,200}", all in vec(damage(), 1..6)) {
        let _ = holdfast::policy::parse("x.yaml", &text);
        let mut bytes = include_bytes!("../policies/repository.yaml").to_vec();
        all.iter().for_each(|d| apply(&mut bytes, d));
        let _ = holdfast::policy::parse("x.yaml", &String::from_utf8_lossy(&bytes));
        let _ = holdfast::policy::RegionSpec::parse(&text);
    }
}

fn header(kind: Kind) -> Header {
    Header { kind, domain: Domain(0), key_epoch: KeyEpoch(1), repo: REPO, salt: [5; 32] }
}

fn read_all(bytes: &[u8], secret: &Secret<32>, lens: &[usize]) -> Option<Vec<Vec<u8>>> {
    let (header, commitment) = Header::parse(bytes, &REPO).ok()?;
    let keys = ObjectKeys::open(&header, &commitment, secret).ok()?;
    let mut rest = bytes[HEADER_BYTES..].to_vec();
    let mut found = Vec::new();
    for number in 0..lens.len() as u32 {
        let (head, body) = keys.record(number, &mut rest).ok()?;
        found.push(body.to_vec());
        rest.drain(..head.record_len());
    }
    rest.is_empty().then_some(found)
}

proptest! {
    #![proptest_config(runs(150))]

    #[test]
    fn records_come_back_and_damaged_objects_do_not_open(
        bodies in vec(vec(any::<u8>(), 0..300), 0..6), all in vec(damage(), 1..3), key: [u8; 32],
    ) {
        let secret = Secret::from_bytes(key);
        let mut sealer = Sealer::new(Vec::new(), &header(Kind::Data), &secret);
        for body in &bodies {
            sealer.record(|out| {
                out.extend_from_slice(body);
                Filled { id: None, kind: RecordKind::Body, codec: 0, plain_len: body.len() }
            });
        }
        let good = sealer.into_bytes();
        let lens: Vec<usize> = bodies.iter().map(Vec::len).collect();
        prop_assert!(read_all(&good, &secret, &lens).is_some_and(|read| read == bodies));
        let mut bad = good.clone();
        all.iter().for_each(|d| apply(&mut bad, d));
        prop_assert!(bad == good || read_all(&bad, &secret, &lens).is_none());
        let other = Secret::from_bytes(std::array::from_fn(|i| key[i] ^ u8::from(i == 0)));
        prop_assert!(read_all(&good, &other, &lens).is_none());
    }

    #[test]
    fn signed_objects_come_back_and_damaged_ones_do_not(all in vec(damage(), 1..3), reason in "\\PC{0,6000}", resum: bool) {
        let ring = ring();
        let (id, key) = ring.signer().unwrap();
        let class = ring.class_secret(Domain(0), KeyEpoch(1), Kind::Tombstone.class()).unwrap();
        let value = Tombstone { fresh: fresh(), sid: SessionId([1; 16]), created: 3, reason };
        let path = "snapshots/01010101010101010101010101010101";
        let good = signed::seal(&value, path, &header(Kind::Tombstone), &class, &Signer { id, key });
        prop_assert_eq!(good.len() % 4096, 0);
        let trust = Trust { repo: REPO, ring: &ring };
        let opened = Opened::open(&good, path, trust).unwrap();
        prop_assert!(opened.decode::<Tombstone>("tombstone").unwrap() == value);
        // The signature names the key: no object is moved to another's place.
        prop_assert!(Opened::open(&good, "snapshots/02010101010101010101010101010101", trust).is_err());
        let mut bad = good.clone();
        bad.truncate(good.len() - if resum { 32 } else { 0 });
        // The padding behind the body is not read; everything before it is.
        let body = 112 + 88 + cbor::encode(&value).len() + 81;
        bad.truncate(if resum { body } else { bad.len() });
        all.iter().for_each(|d| apply(&mut bad, d));
        if resum {
            // Repeating the last bytes puts something behind the body.
            let same = bad.starts_with(&good[..body]);
            add_checksum(&mut bad);
            prop_assert!(same || Opened::open(&bad, path, trust).is_err());
        } else {
            prop_assert!(bad == good || Opened::open(&bad, path, trust).is_err());
        }
    }

    #[test]
    fn packs_list_what_was_put_into_them(
        chunks in vec(vec(any::<u8>(), 0..400), 1..8), bundled in vec(vec(any::<u8>(), 1..50), 1..5), all in vec(damage(), 1..3),
    ) {
        let secret = Secret::from_bytes([9; 32]);
        let id = |body: &[u8]| ChunkId(*blake3::hash(body).as_bytes());
        let mut writer = PackWriter::new(Vec::new(), &header(Kind::Data), &secret);
        let mut places: Vec<_> = chunks
            .iter()
            .map(|body| writer.chunk(id(body), body.len(), |out| { out.extend_from_slice(body); 0 }))
            .collect();
        let lines: Vec<_> = bundled.iter().map(|body| (id(body), body.len() as u32)).collect();
        places.push(writer.bundle(&lines, |out| { out.extend_from_slice(&bundled.concat()); 0 }));
        let mut done = writer.finish();
        let (parsed, commitment) = Header::parse(&done.bytes, &REPO).unwrap();
        let keys = ObjectKeys::open(&parsed, &commitment, &secret).unwrap();
        prop_assert_eq!(&pack::records(&keys, &done.bytes).unwrap(), &places);
        let mut bad = done.bytes.clone();
        all.iter().for_each(|d| apply(&mut bad, d));
        prop_assert!(bad == done.bytes || pack::check_name(&done.name, &bad).is_err());
        let _ = pack::records(&keys, &bad);
        for (body, at) in chunks.iter().zip(&places) {
            let (head, got) = keys.record(at.number, &mut done.bytes[at.offset as usize..][..at.len as usize]).unwrap();
            prop_assert_eq!((head.id, got), (id(body), &body[..]));
        }
        let last = places[chunks.len()];
        let (head, got) = keys.record(last.number, &mut done.bytes[last.offset as usize..]).unwrap();
        let bundle = pack::bundle(got, head.plain_len as usize).unwrap();
        let payload: Vec<&[u8]> = bundle.chunks.iter().map(|(_, at, len)| &bundle.payload[*at..at + len]).collect();
        prop_assert_eq!(payload, bundled.iter().map(|b| &b[..]).collect::<Vec<_>>());
    }

    #[test]
    fn bundles_of_arbitrary_bytes_add_up_or_are_refused(count in prop_oneof![0..4u32, any::<u32>()], rest in vec(any::<u8>(), 0..200), len in 0..100usize) {
        let body = [&count.to_le_bytes()[..], &rest].concat();
        if let Ok(bundle) = pack::bundle(&body, len) {
            prop_assert_eq!(bundle.chunks.len(), count as usize);
            prop_assert_eq!(bundle.chunks.iter().map(|(_, _, len)| len).sum::<usize>(), len);
        }
    }

    #[test]
    fn segments_that_pass_name_places_inside_their_packs(raw in vec(any::<u8>(), 0..200), at in 0..168usize, value: u8) {
        let arbitrary = Segment { entries: raw.into(), ..segment() };
        let mut changed = segment();
        changed.entries[at] = value;
        for segment in [arbitrary, changed] {
            if segment.check().is_ok() {
                let packs = segment.pack_lines().unwrap();
                for raw in segment.entries.as_chunks::<56>().0 {
                    let place = Place::parse(raw);
                    let end = u64::from(place.offset) + u64::from(place.record_len);
                    prop_assert!(end <= packs[place.pack as usize].size && place.len <= 4 << 20);
                }
            }
        }
    }
}

/// What chunks look like: noise, text, floats of two widths at every phase, and mixtures.
fn content() -> impl Strategy<Value = Vec<u8>> {
    let floats = |seed: u64, count: usize, width: usize, phase: usize| {
        let words = noise(seed, count * 4)
            .as_chunks::<4>()
            .0
            .iter()
            .flat_map(|w| {
                let value = (f32::from(w[0]) + f32::from(w[1]) - 255.0) * 0.001 + f32::from(w[2]) * 1e-6;
                let bits = value.to_bits() ^ u32::from(w[3]);
                if width == 4 {
                    bits.to_le_bytes().to_vec()
                } else {
                    ((bits >> 16) as u16 ^ u16::from(w[3] & 63)).to_le_bytes().to_vec()
                }
            })
            .collect::<Vec<u8>>();
        [&noise(seed, phase)[..], &words].concat()
    };
    prop_oneof![
        vec(any::<u8>(), 0..300),
        (any::<u64>(), 0..200_000usize).prop_map(|(seed, len)| noise(seed, len)),
        (vec(any::<u8>(), 1..40), 0..5000usize).prop_map(|(word, n)| word.repeat(n)),
        (any::<u64>(), 4000..40_000usize, prop_oneof![Just(2usize), Just(4)], 0..5usize)
            .prop_map(move |(seed, count, width, phase)| floats(seed, count, width, phase)),
        (any::<u64>(), 4000..40_000usize, 0..3usize).prop_map(|(seed, count, phase)| {
            let words = noise(seed, 2 * count).into_iter().enumerate().map(|(n, byte)| byte & [0xf8, 0x87][n % 2]);
            noise(seed, phase).into_iter().chain(words).collect()
        }),
        (any::<u64>(), 1..60_000usize, 1..60_000usize).prop_map(|(seed, a, b)| [
            noise(seed, a),
            vec![0; b],
            noise(seed ^ 1, a)
        ]
        .concat()),
    ]
}

proptest! {
    #![proptest_config(runs(60))]

    #[test]
    fn what_is_encoded_decodes_to_itself(plain in content(), both: bool, all in vec(damage(), 1..3)) {
        let mut coder = Coder::default().with_planes(both);
        let mut body = Vec::new();
        let codec = coder.encode(&plain, &mut body);
        prop_assert!(body.len() <= plain.len());
        let mut back = Vec::new();
        prop_assert!(coder.decode(codec, &body, plain.len(), &mut back).is_ok() && back == plain);
        prop_assert_eq!(coder.take_rejected(), 0);
        prop_assert!(plain.is_empty() || coder.decode(codec, &body, plain.len() - 1, &mut Vec::new()).is_err());
        // Damage is found by the tag and the id; here it must only not panic, and never give another length.
        all.iter().for_each(|d| apply(&mut body, d));
        let mut out = Vec::new();
        if coder.decode(codec, &body, plain.len(), &mut out).is_ok() {
            prop_assert_eq!(out.len(), plain.len());
        }
    }

    #[test]
    fn arbitrary_bodies_give_the_length_asked_for_or_nothing(
        body in vec(any::<u8>(), 0..300), frame: bool, id in 0..7u8, len in prop_oneof![0..400usize, 0..(4usize << 20)],
    ) {
        let mut coder = Coder::default();
        let body = if frame { [&[0x28, 0xb5, 0x2f, 0xfd][..], &body].concat() } else { body };
        if let Some(codec) = Codec::from_id(id) {
            let mut out = Vec::new();
            let done = coder.decode(codec, &body, len, &mut out);
            prop_assert!(done.is_err() || out.len() == len);
            prop_assert!(out.capacity() <= len.max(body.len()) * 2 + 64);
        }
    }
}

/// Cuts a whole extent; `step` bytes are added at a time, as the feeding rule allows.
fn cut(cutter: &Cutter, data: &[u8], step: usize) -> Vec<usize> {
    let (mut lens, mut from, mut until) = (Vec::new(), 0, 0);
    while from < data.len() {
        match cutter.next(&data[from..until], until == data.len()) {
            Some(len) => {
                lens.push(len);
                from += len;
                until = until.max(from);
            }
            None => until = (until + step).min(data.len()),
        }
    }
    lens
}

proptest! {
    #![proptest_config(runs(12))]

    #[test]
    fn cuts_add_up_and_depend_on_content_only(seed: u64, len in 1..24_000_000usize, step in 1000..9_000_000usize, zeros: bool) {
        let cutter = Cutter::files(seed);
        let data = if zeros { vec![0; len] } else { noise(seed, len) };
        let lens = cut(&cutter, &data, step);
        prop_assert_eq!(lens.iter().sum::<usize>(), len);
        let (last, others) = lens.split_last().unwrap();
        prop_assert!(others.iter().all(|n| (256 << 10..=CUT_BYTES_MAX).contains(n)) && *last <= CUT_BYTES_MAX);
        prop_assert_eq!(&lens, &cut(&cutter, &data, len));
        // Whatever is cut with more bytes to come is cut there with all of them too.
        let early = cutter.next(&data[..len.min(step)], false);
        prop_assert!(early.is_none_or(|early| early == lens[0]), "{early:?}");
        prop_assert_eq!(cutter.next(&data[..len.min(256 << 10)], false), None);
    }

}

proptest! {
    #![proptest_config(runs(4))]

    #[test]
    fn shifted_content_is_cut_at_the_same_places_again(seed: u64, shift in 1..100_000usize) {
        let cutter = Cutter::files(seed);
        let data = noise(seed, 40_000_000);
        let shifted = [noise(!seed, shift), data.clone()].concat();
        let ends = |lens: Vec<usize>, less: usize| -> Vec<usize> {
            lens.iter().scan(0, |at, len| { *at += len; Some(*at) }).filter(|at| *at > less).map(|at| at - less).collect()
        };
        let (plain, moved) = (ends(cut(&cutter, &data, data.len()), 0), ends(cut(&cutter, &shifted, shifted.len()), shift));
        // Once one cut falls together, all do from there on.
        let first = plain.iter().position(|at| moved.contains(at)).expect("they never meet");
        let from = moved.iter().position(|at| *at == plain[first]).unwrap();
        prop_assert_eq!(&plain[first..], &moved[from..]);
        prop_assert!(plain[first] < 30_000_000, "they meet only at {}", plain[first]);
    }
}

#[test]
fn lengths_that_lie_are_refused_before_anything_is_allocated() {
    // Each would take gigabytes if it were believed, and the peak of this process shows whether it was: every
    // test runs in a process of its own.
    let huge: [&[u8]; 8] = [
        &[0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        &[0xbb, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        &[0x5b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        &[0x7b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        &[0x9a, 0xff, 0xff, 0xff, 0xff, 0x00],
        &[0x5a, 0xff, 0xff, 0xff, 0xff, 0x00],
        &[0xa2, 0x00, 0x00, 0x01, 0x9b, 0x00, 0x00, 0x00, 0x7f, 0xff, 0xff, 0xff, 0xff],
        &[0xa2, 0x00, 0x00, 0x01, 0x5b, 0x00, 0x00, 0x00, 0x7f, 0xff, 0xff, 0xff, 0xff],
    ];
    let before = peak_kib();
    for bytes in huge {
        for (name, _, decodes) in decoders() {
            assert!(!decodes(bytes), "{name}");
        }
        assert!(Page::decode(bytes).is_err() && ListPage::decode(bytes).is_err());
    }
    assert!(pack::bundle(&[0xff; 64], 4 << 20).is_err());
    let secret = Secret::from_bytes([9; 32]);
    for plain_len in [u32::MAX as usize, (4 << 20) + 1] {
        let mut sealer = Sealer::new(Vec::new(), &header(Kind::Data), &secret);
        sealer.record(|_| Filled { id: Some(ChunkId([1; 32])), kind: RecordKind::Chunk, codec: 1, plain_len });
        assert_eq!(read_all(&sealer.into_bytes(), &secret, &[0]), None, "{plain_len}");
    }
    // A frame that says it holds four gigabytes, where its head says that the chunk has four megabytes.
    let frame = [&[0x28, 0xb5, 0x2f, 0xfd, 0xa0][..], &u32::MAX.to_le_bytes(), &[1, 0, 0]].concat();
    for codec in [Codec::Zstd, Codec::Bf16, Codec::F32, Codec::Planes] {
        let body = [&[0][..], &(frame.len() as u32).to_le_bytes(), &frame].concat();
        let body = if codec == Codec::Zstd { &frame } else { &body };
        assert!(Coder::default().decode(codec, body, 4 << 20, &mut Vec::new()).is_err());
    }
    assert!(peak_kib() - before < 64 << 10, "{} KiB", peak_kib() - before);
}

/// The most memory this process ever had.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A file or directory of a small tree.
#[derive(Debug, Clone)]
enum Node {
    File { size: usize, seed: u64, hole: bool },
    Link(Vec<u8>),
    Dir(Vec<(Vec<u8>, Node)>),
}

/// Any bytes that the kernel takes.
fn name() -> impl Strategy<Value = Vec<u8>> {
    let byte = any::<u8>().prop_map(|b| if b == 0 || b == b'/' { b'_' } else { b });
    prop_oneof![4 => vec(byte.clone(), 1..20), 1 => vec(byte, 250..=255)]
        .prop_filter("no name", |n| n != b"." && n != b".." && n != b".holdfastignore")
}

fn node() -> impl Strategy<Value = Node> {
    let edge = prop::sample::select(vec![0usize, 1, 512, 513, 64 << 10, 256 << 10, 257 << 10]);
    let size = prop_oneof![8 => edge.clone(), 4 => (edge, 0..3usize).prop_map(|(n, d)| (n + d).saturating_sub(1)), 1 => Just(5_000_000usize)];
    let file =
        (size, 0..1000u64, prop::bool::weighted(0.2)).prop_map(|(size, seed, hole)| Node::File { size, seed, hole });
    let leaf = prop_oneof![8 => file, 1 => vec(1..=255u8, 1..60).prop_map(Node::Link)];
    leaf.prop_recursive(3, 40, 10, |inner| vec((name(), inner), 0..10).prop_map(Node::Dir))
}

fn plant(at: &Path, node: &Node) {
    match node {
        Node::File { size, seed, hole: false } => std::fs::write(at, noise(*seed, *size)).unwrap(),
        Node::File { size, seed, hole: true } => {
            use std::os::unix::fs::FileExt;
            let file = std::fs::File::create(at).unwrap();
            file.set_len(*size as u64 * 2).unwrap();
            file.write_all_at(&noise(*seed, *size / 2), *size as u64).unwrap();
        }
        Node::Link(target) => std::os::unix::fs::symlink(std::ffi::OsString::from_vec(target.clone()), at).unwrap(),
        Node::Dir(children) => {
            std::fs::create_dir(at).unwrap();
            for (name, child) in children {
                let path = at.join(PathBuf::from(std::ffi::OsString::from_vec(name.clone())));
                if std::fs::symlink_metadata(&path).is_err() {
                    plant(&path, child);
                }
            }
        }
    }
}

/// Path, mode, time and content of everything below a directory.
fn look(root: &Path, below: &Path, found: &mut Vec<(PathBuf, u32, i64, i64, Vec<u8>)>) {
    use std::os::unix::fs::MetadataExt;
    let at = root.join(below);
    let meta = std::fs::symlink_metadata(&at).unwrap();
    let content = if meta.is_file() {
        std::fs::read(&at).unwrap()
    } else if meta.is_symlink() {
        std::fs::read_link(&at).unwrap().into_os_string().into_vec()
    } else {
        Vec::new()
    };
    found.push((below.to_path_buf(), meta.mode(), meta.mtime(), meta.mtime_nsec(), content));
    if meta.is_dir() {
        let mut names: Vec<_> = std::fs::read_dir(&at).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        names.into_iter().for_each(|name| look(root, &below.join(name), found));
    }
}

fn backed_up(repo: &std::sync::Arc<holdfast::repo::Repo>, source: &Path, name: &str, workers: usize) -> SessionId {
    let options = BackupOptions::plain(name.into(), "h".into(), vec![source.to_path_buf()], Mode::Full);
    let options = BackupOptions { workers, ..options };
    let report = backup::run(repo, options, &Progress::default(), &Cancel::new()).unwrap();
    assert_eq!(report.errors_total, 0);
    report.snapshot.unwrap()
}

/// Backs a tree up with and without workers, and restores it.
fn there_and_back(bench: &Bench, repo: &std::sync::Arc<holdfast::repo::Repo>, name: &str, order: [usize; 2]) {
    let (source, target) = (bench.path(name), bench.path(&format!("{name}-back")));
    // Whoever comes first stores; the other finds everything there.
    let sids = order.map(|workers| backed_up(repo, &source, &format!("{name}-{workers}"), workers));
    let view = holdfast::repo::view::View::load(repo).unwrap();
    let [one, other] = sids.map(|sid| view.snapshots[&sid].manifest.clone());
    assert_eq!((one.content, one.counts.bytes), (other.content, other.counts.bytes));
    bench.ok(&["restore", &sids[1].hex(), "--target", &target.display().to_string()]);
    let (mut before, mut after) = (Vec::new(), Vec::new());
    look(&source, Path::new(""), &mut before);
    look(&target, Path::new(""), &mut after);
    assert!(before == after, "{name} came back different");
}

#[test]
fn arbitrary_trees_come_back_and_do_not_depend_on_the_workers() {
    use proptest::strategy::ValueTree;
    let bench = Bench::new(&["a"]);
    let repo = opened(&bench);
    let mut runner = proptest::test_runner::TestRunner::new(runs(1));
    for case in 0..4 {
        let tree = vec((name(), node()), 0..14).prop_map(Node::Dir).new_tree(&mut runner).unwrap().current();
        let name = format!("case-{case}");
        plant(&bench.path(&name), &tree);
        // Shown only if the test fails.
        println!("{name}: {tree:?}");
        there_and_back(&bench, &repo, &name, if case % 2 == 0 { [0, 3] } else { [3, 0] });
    }
}

#[test]
fn wide_directories_and_long_chunk_lists_come_back() {
    use std::os::unix::fs::FileExt;
    let bench = Bench::new(&["a"]);
    let source = bench.path("wide");
    std::fs::create_dir_all(source.join("dir")).unwrap();
    for n in 0..1000 {
        std::fs::write(source.join(format!("dir/{n:0250}")), n.to_string()).unwrap();
    }
    // Every second block is a hole, so every block is an item of the list.
    let file = std::fs::File::create(source.join("sparse")).unwrap();
    for n in 0..2500u64 {
        file.write_all_at(&noise(n, 4096), n * 8192).unwrap();
    }
    there_and_back(&bench, &opened(&bench), "wide", [0, 3]);
}
