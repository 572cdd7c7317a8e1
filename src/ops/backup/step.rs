//! What workers hand to the builder.

use crate::format::snapshot::Miss;
use crate::format::tree::{Entry, Item};
use crate::repo::pages::Same;
use crossbeam_channel::Receiver;

/// What the builder takes, in the order of the tree.
pub(super) enum Step {
    Enter(Box<Entry>),
    Leave,
    Ready(Vec<Entry>),
    /// Files that did not change, of so many bytes together.
    Same(Same, u64),
    Batch(Receiver<Vec<Done>>),
    Big(Receiver<Piece>),
    Missed(Miss),
    Excluded,
}

/// An entry with its content stored, or why not.
pub(super) struct Done {
    pub(super) result: std::result::Result<Entry, Miss>,
    /// Its chunks, where the list is not in the entry yet.
    pub(super) items: Option<Vec<Item>>,
    /// Whether content was read.
    pub(super) read: bool,
    /// Whether it was cut by its tensors.
    pub(super) model: bool,
    /// Attributes that could not be read.
    pub(super) misses: Vec<Miss>,
    /// The path, if the file changed each time it was read.
    pub(super) changed: Option<Vec<u8>>,
}

/// A part of a big file.
pub(super) enum Piece {
    Items {
        seq: u64,
        items: Vec<Item>,
    },
    /// The file changed: forget what came so far.
    Restart,
    End(Box<Done>),
}
