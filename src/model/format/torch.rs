//! Zip files as PyTorch writes them: one stored entry a storage, and a pickle that says which tensors lie in which
//! (`super::state`). Where that is not plain, storages stand for themselves.

use super::dtype::bits;
use super::read::{ReadAt, whole};
use super::state::{self, State, View};
use super::tensors::{Gathered, Place, Tensor};
use super::zip::{self, Entry};
use super::{Format, Model, Stop};
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

/// Names below the archive's folder that such files begin with.
const FIRST: [&[u8]; 6] =
    [b"data.pkl", b"constants.pkl", b".format_version", b".storage_alignment", b"byteorder", b"version"];
const STATE: &str = "data.pkl";
const ORDER: &str = "byteorder";
/// Folders of storages.
const FOLDERS: [&str; 2] = ["data/", "constants/"];
/// Longest pickle that is looked at, in bytes.
const STATE_BYTES_MAX: u64 = 8 << 20;
/// Most memory that the list of entries may take beside it, in bytes: some 30,000.
const ENTRIES_BYTES_MAX: usize = 8 << 20;

/// Whether an entry of this name stands at the front of such a file.
pub(super) fn is_entry(name: &[u8]) -> bool {
    let Some(slash) = name.iter().position(|b| *b == b'/') else { return false };
    let Some(below) = name.get(slash.saturating_add(1)..) else { return false };
    FIRST.contains(&below)
        || FOLDERS.iter().any(|folder| below.starts_with(folder.as_bytes()))
        || below == b".data/serialization_id"
}

/// What the name of an entry is below the archive's folder.
fn below<'n>(name: &'n str, folder: &str) -> Option<&'n str> {
    name.strip_prefix(folder)?.strip_prefix('/')
}

pub(super) fn read(file: &dyn ReadAt, file_bytes: u64) -> Result<Model, Stop> {
    let mut gathered = Gathered::default();
    let is_state = |name: &str| name.split_once('/').is_some_and(|(_, below)| below == STATE);
    let entries = zip::entries(file, file_bytes, &mut gathered, is_state)?;
    let Some((folder, _)) = entries.all.iter().find_map(|entry| entry.name.split_once('/')) else {
        return Err(Stop::Other);
    };
    let folder = folder.to_owned();
    let find = |name: &str| entries.all.iter().find(|entry| below(&entry.name, &folder) == Some(name));
    let Some(pickle) = find(STATE) else { return Err(Stop::Other) };
    let little = find(ORDER).is_none_or(|entry| is_little(file, entry));
    // Both together would take too much memory.
    let few = gathered.weight() <= ENTRIES_BYTES_MAX;
    let state = if little && few { state(file, pickle) } else { None };
    let storages = Storages::of(&entries.all, &folder);
    let named = state.as_ref().and_then(|state| storages.tensors(state));
    let (views, used) = named.unwrap_or_default();
    for (name, view, range) in views {
        let place = Place::Here(range.0, range.1);
        let (dtype, shape) = (Cow::Borrowed(view.dtype), Some(view.shape.clone()));
        gathered.push(Tensor { name, dtype, shape, place, rows: view.is_dense() }, range.0)?;
    }
    for (name, range) in &storages.all {
        if used.contains(name) {
            continue;
        }
        let place = Place::Here(range.0, range.1);
        let dtype = Cow::Borrowed("storage");
        let tensor = Tensor { name: (*name).to_owned(), dtype, shape: None, place, rows: false };
        gathered.push(tensor, range.0)?;
    }
    let packed = entries.all.iter().filter(|entry| entry.stored.is_none()).count() as u64;
    let mut model = Model::new(Format::Torch, None, entries.list, gathered);
    model.packed = packed;
    Ok(model)
}

/// Whether an entry says that numbers lie as this program has them.
fn is_little(file: &dyn ReadAt, entry: &Entry) -> bool {
    let range = entry.stored.filter(|(begin, end)| end.saturating_sub(*begin) == 6);
    range.and_then(|(begin, _)| whole(file, begin, 6).ok()).is_some_and(|order| order == b"little")
}

/// What the pickle says, if it is plain.
fn state(file: &dyn ReadAt, entry: &Entry) -> Option<State> {
    let (begin, end) = entry.stored?;
    let len = end.checked_sub(begin).filter(|len| *len <= STATE_BYTES_MAX)?;
    state::read(&whole(file, begin, usize::try_from(len).ok()?).ok()?)
}

/// A tensor with a name, and its place.
type Named<'s> = (String, &'s View, (u64, u64));

/// Entries that are storages, by their names below the archive's folder.
struct Storages<'e> {
    all: Vec<(&'e str, (u64, u64))>,
}

impl<'e> Storages<'e> {
    fn of(entries: &'e [Entry], folder: &str) -> Storages<'e> {
        let storage = |entry: &'e Entry| {
            let name = below(&entry.name, folder)?;
            FOLDERS.iter().any(|folder| name.starts_with(folder)).then_some((name, entry.stored?))
        };
        Storages { all: entries.iter().filter_map(storage).collect() }
    }

    /// Tensors in their storages, and which of these are used; `None` if any does not fit.
    fn tensors<'s>(&self, state: &'s State) -> Option<(Vec<Named<'s>>, HashSet<&'e str>)> {
        let by_key: HashMap<&str, (&'e str, (u64, u64))> =
            self.all.iter().filter_map(|(name, range)| Some((name.strip_prefix("data/")?, (*name, *range)))).collect();
        let mut used = HashSet::new();
        let mut tensors = Vec::new();
        for (name, view) in state.tensors() {
            let (entry, range) = by_key.get(view.key.as_str())?;
            used.insert(*entry);
            tensors.push((name.to_owned(), view, within(view, *range)?));
        }
        Some((tensors, used))
    }
}

/// Where a view of a storage lies, from its first number to its last.
fn within(view: &View, (begin, end): (u64, u64)) -> Option<(u64, u64)> {
    let width = bits(view.dtype)?.checked_div(8)?;
    if view.numbers.checked_mul(width)? != end.checked_sub(begin)? {
        return None;
    }
    let span = if view.shape.contains(&0) {
        0
    } else {
        let steps = view
            .shape
            .iter()
            .zip(&view.strides)
            .try_fold(0u64, |all, (size, stride)| all.checked_add(size.saturating_sub(1).checked_mul(*stride)?));
        steps?.checked_add(1)?
    };
    let from = begin.checked_add(view.offset.checked_mul(width)?)?;
    let to = from.checked_add(span.checked_mul(width)?)?;
    (to <= end).then_some((from, to))
}
