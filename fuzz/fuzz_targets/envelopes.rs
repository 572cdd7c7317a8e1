//! Objects as a region shows them, whole and without a key: marks, slots, configurations, headers, what lies in quarantine.
//! The checksum is made right, so that what is behind it is reached.
#![no_main]

use holdfast::base::{ConfigNo, Digest, RepoId, SlotId};
use holdfast::crypto::{Secret, SigningKey};
use holdfast::format::config::Config;
use holdfast::format::envelope::Header;
use holdfast::format::quarantine::Quarantined;
use holdfast::format::region::RegionMark;
use holdfast::format::ring::{Keyring, Trust};
use holdfast::format::signed::{Opened, add_checksum, check_sum};
use holdfast::format::slot::Slot;
use holdfast::repo::open::open_slot_object;
use holdfast::store::Key;
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

const REPO: RepoId = RepoId([7; 16]);
static RING: LazyLock<Keyring> =
    LazyLock::new(|| Keyring::new(&[[1; 32], [2; 32], [3; 32], [4; 32]], holdfast::base::TimeMs(0)));

fuzz_target!(|data: &[u8]| {
    let Some((how, body)) = data.split_first() else { return };
    let mut bytes = body.to_vec();
    if how & 128 != 0 {
        add_checksum(&mut bytes);
        assert!(check_sum(&bytes).is_ok());
    }
    match how % 7 {
        0 => {
            if let Ok(mark) = RegionMark::from_object(&bytes) {
                assert!(mark.to_object() == bytes);
            }
        }
        1 => {
            if let Ok(slot) = Slot::from_object(&bytes, &REPO) {
                let _ = slot.argon2.map(|params| params.check_open());
                let _ = slot.open(&Secret::from_bytes([5; 32]));
            }
        }
        2 => _ = open_slot_object(&bytes, &REPO, SlotId([1; 16])),
        3 => {
            let owner = SigningKey::from_seed(&Secret::from_bytes([6; 32])).verify_key();
            let _ = Config::from_object(&bytes, &REPO, ConfigNo(1), &Digest::ZERO, &owner);
            let _ = Config::previous_of(&bytes, &Digest::ZERO);
        }
        4 => _ = Header::parse(&bytes, &REPO),
        5 => {
            if let Ok(one) = Quarantined::from_object(&bytes) {
                assert!(one.to_object() == bytes);
            }
        }
        _ => {
            let key = Key::parse("region").map_or_else(String::new, |key| key.canonical());
            let _ = Opened::open(&bytes, &key, Trust { repo: REPO, ring: &RING });
        }
    }
});
