//! Bodies of signed objects, as they are once their envelope was opened: what decodes is written again byte for byte, and
//! its checks end.
#![no_main]

use holdfast::base::RunId;
use holdfast::format::cbor;
use holdfast::format::index::Segment;
use holdfast::format::objects::{
    EpochBegin, EpochEnd, Forgotten, Hold, HoldRelease, Repack, Session, Tags, Tombstone, pack_list,
};
use holdfast::format::ring::Keyring;
use holdfast::format::run::Run;
use holdfast::format::snapshot::{Manifest, content_digest};
use libfuzzer_sys::fuzz_target;
use minicbor::{Decode, Encode};

fn again<T: for<'b> Decode<'b, ()> + Encode<()>>(bytes: &[u8]) -> Option<T> {
    let value: T = cbor::decode("fuzzed", bytes).ok()?;
    assert!(cbor::encode(&value) == bytes, "another writing of the same was taken");
    Some(value)
}

fuzz_target!(|data: &[u8]| {
    let Some((kind, body)) = data.split_first() else { return };
    match kind % 12 {
        0 => _ = again::<Session>(body),
        1 => _ = again::<Tombstone>(body),
        2 => _ = again::<Forgotten>(body),
        3 => _ = again::<Hold>(body),
        4 => _ = again::<HoldRelease>(body),
        5 => _ = again::<Tags>(body),
        6 => _ = again::<Repack>(body),
        7 => _ = again::<EpochBegin>(body).map(|begin| pack_list(&begin.condemned)),
        8 => _ = again::<EpochEnd>(body).map(|end| pack_list(&end.doomed)),
        9 => _ = again::<Keyring>(body),
        10 => {
            if let Some(manifest) = again::<Manifest>(body) {
                let _ = (manifest.check(), content_digest(&manifest.root));
            }
        }
        _ => {
            if let Some(run) = again::<Run>(body) {
                let _ = run.check(RunId([0; 16]));
            }
            if let Some(segment) = again::<Segment>(body) {
                let _ = (segment.pack_lines(), segment.check());
            }
        }
    }
});
