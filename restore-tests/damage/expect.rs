//! What each action must end with, by kind of object, damage and place. The exit codes are those of the README.

use super::fixture::Kind;
use super::spoil::Damage;

/// What is done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    Snapshots,
    KeyList,
    Restore,
    Presence,
    Ciphertext,
    Content,
    Forget,
    Incremental,
    Full,
}

use Action as A;
use Damage as D;
use Kind as K;

/// The damage is in region `a`; `b` is intact: everything works, and verify says what is wrong.
pub fn in_one(kind: Kind, damage: Damage, action: Action) -> &'static [i32] {
    match (kind, damage, action) {
        // Two marks that changed places are two good marks.
        (K::Region, D::Swapped, _) => &[0],
        // One mark in two places is one region with two addresses.
        (K::Region, D::Replayed, _) => &[2],
        (K::Region, _, A::Snapshots | A::KeyList | A::Restore) => &[0],
        (K::Region, D::Missing, _) => &[4],
        (K::Region, _, A::Presence | A::Ciphertext | A::Content) => &[5],
        // Copies are lacking in the region that cannot be used.
        (K::Region, _, _) => &[4],
        // A region without a valid first epoch is read, but not written.
        (K::Begin, D::Swapped, A::Forget | A::Incremental | A::Full) => &[4],
        (_, _, A::Snapshots | A::KeyList | A::Restore | A::Forget | A::Incremental | A::Full) => &[0],
        (_, _, A::Ciphertext) => ciphertext(kind, damage),
        (K::Data | K::Tree, _, _) => pack(kind, damage, action),
        // Sessions and their ends are not copied, so that nobody can tell that one is missing.
        (K::Session | K::Tombstone, D::Missing, _) => &[0],
        (_, D::Missing, _) => &[4],
        _ => &[5],
    }
}

/// Without a key: only what the bytes themselves, or their name, say; and which packs there were, which this machine
/// knows from the check before.
fn ciphertext(kind: Kind, damage: Damage) -> &'static [i32] {
    let named_by_hash = matches!(kind, K::Data | K::Tree | K::Index);
    match damage {
        D::Missing if matches!(kind, K::Data | K::Tree) => &[5],
        D::Missing => &[0],
        _ if damage.is_another() && !named_by_hash => &[0],
        _ => &[5],
    }
}

fn pack(kind: Kind, damage: Damage, action: Action) -> &'static [i32] {
    match (kind, action) {
        // A tree is walked, and may meet the damage or not.
        (K::Tree, A::Presence) if damage.keeps_length() => &[0, 5],
        // One of the same content may have the same length.
        (K::Data, A::Presence) if damage.is_another() => &[0, 5],
        (_, A::Presence) if damage.keeps_length() => &[0],
        _ => &[5],
    }
}

/// The damage is in every region: a clear end.
pub fn in_both(kind: Kind, damage: Damage, action: Action) -> &'static [i32] {
    match (kind, damage, action) {
        (K::Region, D::Swapped, _) => &[0],
        (K::Region, D::Replayed, _) => &[2],
        (K::Region, D::Missing, _) => &[10],
        // The marks are whole, but nothing else fits them.
        (K::Region, D::Stranger | D::Twin, A::Ciphertext) => &[0],
        (K::Region, D::Stranger | D::Twin, _) => &[12],
        (K::Region, _, _) => &[5],
        (_, _, A::Ciphertext) => ciphertext(kind, damage),
        (K::Slot, _, _) => &[12],
        (K::Config, _, _) => &[5],
        (K::Begin, _, _) => begin(damage, action),
        (_, _, A::KeyList) => &[0],
        // New chunks, or those that nobody knows any more, are stored again.
        (_, _, A::Incremental | A::Full) => &[0],
        (K::Manifest, _, A::Snapshots | A::Presence | A::Content) => &[5],
        (K::Manifest, D::Missing, A::Restore) => &[1],
        (K::Manifest, _, A::Restore) => &[5],
        // The first snapshot has the bytes of the second.
        (K::Manifest, D::Swapped, A::Forget) => &[5],
        (K::Tombstone, D::Missing, _) => &[0],
        (K::Tombstone, _, A::Snapshots) => &[5],
        // What it held cannot be told any more, so nothing is forgotten.
        (K::Hold, D::FlipMiddle, A::Forget) => &[11],
        (_, _, A::Snapshots | A::Forget) => &[0],
        (K::Index, _, A::Restore) => &[5],
        (K::Data | K::Tree, _, A::Restore) => unread(kind, damage),
        (_, _, A::Restore) => &[0],
        (K::Data | K::Tree, _, _) => pack(kind, damage, action),
        (K::Index, _, _) => &[5],
        (_, D::Missing, _) => &[0],
        _ => &[5],
    }
}

/// The second epoch is vouched for by every snapshot. Without it the first one counts; without any nothing is written.
fn begin(damage: Damage, action: Action) -> &'static [i32] {
    match (damage, action) {
        (_, A::Snapshots | A::Presence | A::Content) => &[5],
        (D::Swapped, A::Incremental | A::Full | A::Forget) => &[5],
        _ => &[0],
    }
}

/// A restore reads parts of packs: it meets the damage or does without the damaged part.
fn unread(kind: Kind, damage: Damage) -> &'static [i32] {
    match (kind, damage) {
        // It may be a part that only the first snapshot needs.
        (K::Data, D::FlipMiddle) => &[0, 5],
        (K::Data, D::ByteLess | D::ByteMore | D::FlipEnd) => &[0],
        (K::Tree, D::Half | D::ByteLess | D::ByteMore | D::FlipMiddle | D::FlipEnd) => &[0, 5],
        _ => &[5],
    }
}

/// Whether what writes is tried too: by far the longest part, of which one damage of a sort tells enough.
pub fn is_written(damage: Damage) -> bool {
    matches!(damage, D::Missing | D::FlipMiddle | D::Swapped)
}

/// Whether a full backup makes the newest snapshot whole again: it looks for the presence of every pack, not at
/// its bytes.
pub fn full_heals(kind: Kind, damage: Damage) -> bool {
    !(matches!(kind, K::Data | K::Tree) && (damage.keeps_length() || damage.is_another()))
}

/// Whether an incremental one does: what the index does not know is stored again.
pub fn incremental_heals(kind: Kind) -> bool {
    !matches!(kind, K::Data | K::Tree)
}
