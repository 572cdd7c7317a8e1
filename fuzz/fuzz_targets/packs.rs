//! Packs and bundles. What is inside is sealed, so records with made-up heads are sealed here, as a writer that is not
//! honest would do it; and bytes as they come.
#![no_main]

use holdfast::base::{ChunkId, Domain, KeyEpoch, PackName, RepoId};
use holdfast::crypto::Secret;
use holdfast::format::envelope::{Filled, Header, Kind, ObjectKeys, RecordKind, Sealer};
use holdfast::format::pack;
use libfuzzer_sys::fuzz_target;

const REPO: RepoId = RepoId([7; 16]);

fuzz_target!(|data: &[u8]| {
    let Some((how, body)) = data.split_first() else { return };
    let secret = Secret::from_bytes([9; 32]);
    let header = Header { kind: Kind::Data, domain: Domain(0), key_epoch: KeyEpoch(1), repo: REPO, salt: [3; 32] };
    let mut sealer = Sealer::new(Vec::new(), &header, &secret);
    let kinds = [RecordKind::Chunk, RecordKind::Bundle, RecordKind::Table, RecordKind::Body, RecordKind::Padding];
    for (n, part) in body.chunks(1 + usize::from(*how)).enumerate() {
        let kind = kinds[usize::from(part[0]) % kinds.len()];
        let plain_len = part.len().wrapping_mul(usize::from(part[0]));
        let id = (n % 2 == 0).then_some(ChunkId([part[0]; 32]));
        sealer.record(|out| {
            out.extend_from_slice(part);
            Filled { id, kind, codec: part[0] % 8, plain_len }
        });
    }
    let mut sealed = sealer.into_bytes();
    let Ok((parsed, commitment)) = Header::parse(&sealed, &REPO) else { panic!("our own header") };
    let Ok(keys) = ObjectKeys::open(&parsed, &commitment, &secret) else { panic!("our own keys") };
    for bytes in [&mut sealed[..], &mut data.to_vec()[..]] {
        for at in pack::records(&keys, bytes).unwrap_or_default() {
            let Some(record) = bytes.get_mut(at.offset as usize..) else { panic!("a record behind the end") };
            let _ = keys.record(at.number, record);
        }
        let _ = pack::check_name(&PackName([0; 32]), bytes);
    }
    if let Ok(bundle) = pack::bundle(body, usize::from(*how) * 16) {
        for (_, at, len) in &bundle.chunks {
            assert!(at + len <= bundle.payload.len());
        }
    }
});
