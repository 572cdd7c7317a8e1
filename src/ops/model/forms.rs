//! The tensors of a model in a snapshot, and what each is known by without a look at its bytes: the ids of its chunks.

use super::alike::Lies;
use super::stored::{Held, StoredModel, is_too_much};
use crate::base::{Cancel, ChunkId};
use crate::chunk::Coder;
use crate::error::{Error, Kind, Result};
use crate::format::snapshot::Manifest;
use crate::format::tree::Entry;
use crate::repo::reader::Reader;
use crate::repo::tree::ListReader;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Most chunks of a file whose tensors are compared: about a terabyte.
const ITEMS_MAX: usize = 1 << 20;

/// What a tensor is known by.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Identity {
    /// A digest of the ids of its chunks, which hold nothing else.
    Own([u8; 32]),
    /// The same, of chunks that it shares with others.
    Shared([u8; 32]),
    /// Nothing is known.
    Unknown,
}

/// A tensor without its name.
pub(super) struct Form {
    pub(super) dtype: Cow<'static, str>,
    pub(super) shape: Option<Vec<u64>>,
    pub(super) bytes: u64,
    pub(super) identity: Identity,
    pub(super) lies: Option<Lies>,
}

/// How two tensors of one name compare, as far as their headers and chunks tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Same,
    /// Of another type, shape or length.
    Form,
    /// Of other bytes.
    Other,
    /// Only their bytes tell, if anything does.
    Unsure,
}

impl Form {
    /// Beside the one of the same name.
    pub(super) fn beside(&self, new: &Form) -> Standing {
        if (&self.dtype, &self.shape, self.bytes) != (&new.dtype, &new.shape, new.bytes) {
            return Standing::Form;
        }
        match (&self.identity, &new.identity) {
            (Identity::Own(old), Identity::Own(new)) if old != new => Standing::Other,
            (Identity::Own(old), Identity::Own(new)) | (Identity::Shared(old), Identity::Shared(new)) if old == new => {
                Standing::Same
            }
            _ => Standing::Unsure,
        }
    }
}

/// The tensors of a model by name, and its files with their paths.
#[derive(Default)]
pub(super) struct Forms {
    pub(super) forms: BTreeMap<String, Form>,
    pub(super) files: Vec<(Vec<u8>, Entry)>,
}

/// All tensors of a model by name.
///
/// # Errors
/// There is no model, or what it needs is not there, or cannot be read.
pub(super) fn forms(reader: &Reader, manifest: &Manifest, path: &[u8], cancel: &Cancel) -> Result<Forms> {
    let mut model = StoredModel::open(reader, manifest, path, &|_| true)?;
    model.tensors.sort_by_key(|held| held.file);
    let (mut forms, mut lies) = (BTreeMap::new(), (usize::MAX, None));
    let there = model.files.iter().fold(0u64, |sum, (_, entry)| sum.saturating_add(entry.size()));
    let mut looked = 0u64;
    for Held { name, tensor, file } in model.tensors {
        cancel.check()?;
        if lies.0 != file {
            lies = (file, model.files.get(file).map(|(_, entry)| items(reader, entry)).transpose()?.flatten());
        }
        let bytes = tensor.bytes().unwrap_or(0);
        looked = looked.saturating_add(bytes);
        let identity = match (tensor.range(), &lies.1) {
            // Thousands of names of the same bytes would take as many looks at the same chunks.
            (Some(range), Some(items)) if !is_too_much(looked, there) => identity(items, range),
            _ => Identity::Unknown,
        };
        let lies = tensor.range().map(|range| (file, range));
        forms.insert(name, Form { dtype: tensor.dtype, shape: tensor.shape, bytes, identity, lies });
    }
    Ok(Forms { forms, files: model.files })
}

/// A chunk of a file: where it begins, its length, its id.
type Lying = (u64, u64, ChunkId);

/// The chunks of a file, unless they are too many.
fn items(reader: &Reader, entry: &Entry) -> Result<Option<Vec<Lying>>> {
    let (mut list, mut coder) = (ListReader::new(reader, entry)?, Coder::default());
    let (mut all, mut at) = (Vec::new(), 0u64);
    while let Some(item) = list.next(&mut coder)? {
        if all.len() >= ITEMS_MAX {
            return Ok(None);
        }
        all.push((at, item.len, item.id));
        let wrong = || Error::new(Kind::Damage, "chunks do not add up to the file's size");
        at = at.checked_add(item.len).ok_or_else(wrong)?;
    }
    Ok(Some(all))
}

fn identity(items: &[Lying], (begin, end): (u64, u64)) -> Identity {
    let (mut hasher, mut own, mut at) = (blake3::Hasher::new(), true, begin);
    let first = items.partition_point(|(from, len, _)| from.saturating_add(*len) <= begin);
    for (from, len, id) in items.get(first..).unwrap_or(&[]) {
        if at >= end {
            break;
        }
        let (inside, behind) = (at.saturating_sub(*from), from.saturating_add(*len).min(end));
        // What lies before a part of a hole is nothing.
        let inside = if *id == ChunkId::HOLE { 0 } else { inside };
        own &= *id == ChunkId::HOLE || inside == 0 && behind == from.saturating_add(*len);
        hasher.update(id.bytes()).update(&inside.to_le_bytes()).update(&behind.saturating_sub(at).to_le_bytes());
        at = behind;
    }
    let digest = *hasher.finalize().as_bytes();
    match (at >= end, own) {
        (false, _) => Identity::Unknown,
        (true, true) => Identity::Own(digest),
        (true, false) => Identity::Shared(digest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> ChunkId {
        ChunkId([n; 32])
    }

    #[test]
    fn a_tensor_is_known_by_chunks_of_its_own_wherever_they_lie() {
        let one = [(0, 100, id(9)), (100, 50, id(1)), (150, 30, id(2)), (180, 40, id(3))];
        let two = [(0, 10, id(8)), (10, 40, id(3)), (50, 50, id(1)), (100, 30, id(2))];
        assert_eq!(identity(&one, (100, 180)), identity(&two, (50, 130)));
        assert!(matches!(identity(&one, (100, 180)), Identity::Own(_)));
        assert_ne!(identity(&one, (100, 150)), identity(&one, (150, 180)));
        // What shares a chunk is the same only at the same place of the same one.
        assert!(matches!(identity(&one, (180, 200)), Identity::Shared(_)));
        assert_eq!(identity(&one, (180, 200)), identity(&two, (10, 30)));
        assert_ne!(identity(&one, (180, 200)), identity(&two, (20, 40)));
        // Parts of holes are holes.
        let hole = [(0, 1000, ChunkId::HOLE)];
        assert_eq!(identity(&hole, (10, 30)), identity(&hole, (500, 520)));
        assert!(matches!(identity(&hole, (10, 30)), Identity::Own(_)));
        assert_eq!(identity(&one, (200, 230)), Identity::Unknown);
        assert!(matches!(identity(&one, (220, 220)), Identity::Own(_)));
        assert!(matches!(identity(&[], (0, 0)), Identity::Own(_)));
    }
}
