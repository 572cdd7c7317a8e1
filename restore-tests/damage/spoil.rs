//! What is done to an object.

use super::fixture::{Fixture, Kind};
use crate::inside::plant;
use std::path::Path;

/// Damages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Damage {
    Missing,
    Empty,
    Half,
    ByteLess,
    ByteMore,
    FlipStart,
    FlipMiddle,
    FlipEnd,
    /// Changed places with another one of its kind.
    Swapped,
    /// Another one of its kind stands here too.
    Replayed,
    /// One of a repository with other keys.
    Stranger,
    /// One of another repository with the same secrets.
    Twin,
}

impl Damage {
    pub const ALL: [Damage; 12] = [
        Damage::Missing,
        Damage::Empty,
        Damage::Half,
        Damage::ByteLess,
        Damage::ByteMore,
        Damage::FlipStart,
        Damage::FlipMiddle,
        Damage::FlipEnd,
        Damage::Swapped,
        Damage::Replayed,
        Damage::Stranger,
        Damage::Twin,
    ];

    /// Whether another object stands there whole, with a checksum of its own.
    pub fn is_another(self) -> bool {
        matches!(self, Damage::Swapped | Damage::Replayed | Damage::Stranger | Damage::Twin)
    }

    /// Whether the length is right.
    pub fn keeps_length(self) -> bool {
        matches!(self, Damage::FlipStart | Damage::FlipMiddle | Damage::FlipEnd)
    }
}

/// The repositories of a test.
pub struct All {
    pub ours: Fixture,
    pub stranger: Fixture,
    pub twin: Fixture,
}

fn flipped(mut bytes: Vec<u8>, at: usize) -> Vec<u8> {
    bytes[at] ^= 0x10;
    bytes
}

/// Damages the object of this kind in the region `name` of the copy in `dir`.
pub fn spoil(all: &All, dir: &Path, name: &str, kind: Kind, damage: Damage) {
    let region = dir.join(format!("region-{name}"));
    let [object, other] = &all.ours.objects[&kind];
    let path = region.join(object);
    let good = std::fs::read(&path).expect("the object");
    // The only other mark is the other region's.
    let other_bytes = || match kind {
        Kind::Region => std::fs::read(all.ours.bench.region(if name == "a" { "b" } else { "a" }).join("region")),
        _ => std::fs::read(region.join(other)),
    };
    let bad = match damage {
        Damage::Missing => return std::fs::remove_file(path).expect("removed"),
        Damage::Empty => Vec::new(),
        Damage::Half => good[..good.len() / 2].to_vec(),
        Damage::ByteLess => good[..good.len() - 1].to_vec(),
        Damage::ByteMore => [&good[..], &[0]].concat(),
        Damage::FlipStart => flipped(good, 0),
        Damage::FlipMiddle => flipped(good.clone(), good.len() / 2),
        Damage::FlipEnd => flipped(good.clone(), good.len() - 1),
        Damage::Swapped => {
            let bytes = other_bytes().expect("the other object");
            let (region, other) = match kind {
                Kind::Region => (dir.join(if name == "a" { "region-b" } else { "region-a" }), object),
                _ => (region.clone(), other),
            };
            plant(&region, other, &good);
            bytes
        }
        Damage::Replayed => other_bytes().expect("the other object"),
        Damage::Stranger => all.stranger.bytes(name, &all.stranger.objects[&kind][0]),
        Damage::Twin => all.twin.bytes(name, &all.twin.objects[&kind][0]),
    };
    plant(&region, object, &bad);
}
