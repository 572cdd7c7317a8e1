//! Tensors as they are gathered from a header: counted, weighed, and each name once.

use super::{Malformed, Stop, TENSORS_MAX};
use std::borrow::Cow;

/// Most dimensions: NumPy allows 64, others less.
pub(super) const DIMENSIONS_MAX: usize = 64;
/// Longest name, in bytes.
pub(super) const NAME_BYTES_MAX: usize = 64 << 10;
/// Most memory that the tensors of one file may take, in bytes; what a list needs while it grows is counted.
const GATHERED_BYTES_MAX: usize = 36 << 20;
/// What one tensor takes beside its name and shape: itself, half as much again while the list grows, and the allocator's
/// part of both.
const TENSOR_BYTES: usize = size_of::<Tensor>() / 2 * 3 + 48;

/// Where the bytes of a tensor lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In this file, from and to.
    Here(u64, u64),
    /// In another one beside it, named by the header.
    Beside(Box<Beside>),
    /// Nowhere as bytes in a row: single numbers of the header, or texts.
    Written,
}

/// A place in another file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beside {
    /// Its path from the folder of the file that names it, as that has it: nothing to be opened before it is judged.
    pub file: String,
    /// Where the tensor begins there.
    pub offset: u64,
    /// How long it is, if that is said.
    pub bytes: Option<u64>,
}

/// A tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// Its name; empty for an array that has none.
    pub name: String,
    /// What its numbers are: as safetensors calls them where it knows them, else as the format does.
    pub dtype: Cow<'static, str>,
    /// Its sizes, the outermost first. `None` where the format does not say.
    pub shape: Option<Vec<u64>>,
    /// Where it lies.
    pub place: Place,
    /// Whether its numbers lie there as safetensors has them: row by row, of each the lowest byte first.
    pub rows: bool,
}

impl Tensor {
    /// Where it lies within this file.
    pub fn range(&self) -> Option<(u64, u64)> {
        match self.place {
            Place::Here(begin, end) => Some((begin, end)),
            _ => None,
        }
    }

    /// Its length, if it is known.
    pub fn bytes(&self) -> Option<u64> {
        match &self.place {
            Place::Here(begin, end) => Some(end.saturating_sub(*begin)),
            Place::Beside(beside) => beside.bytes,
            Place::Written => None,
        }
    }
}

/// Tensors so far.
#[derive(Default)]
pub(super) struct Gathered {
    tensors: Vec<Tensor>,
    weight: usize,
}

impl Gathered {
    pub(super) fn len(&self) -> usize {
        self.tensors.len()
    }

    /// Weighs what is kept beside the tensors. `at` is where a complaint points to.
    pub(super) fn weigh(&mut self, bytes: usize, at: u64) -> Result<(), Stop> {
        self.weight = self.weight.saturating_add(bytes);
        if self.weight > GATHERED_BYTES_MAX {
            return Err(Stop::Malformed(Malformed { at, what: "a header that needs too much memory" }));
        }
        Ok(())
    }

    /// What was weighed.
    pub(super) fn weight(&self) -> usize {
        self.weight
    }

    /// One more.
    pub(super) fn push(&mut self, tensor: Tensor, at: u64) -> Result<(), Stop> {
        if self.tensors.len() >= TENSORS_MAX {
            return Err(Stop::Malformed(Malformed { at, what: "too many tensors" }));
        }
        let beside = if let Place::Beside(other) = &tensor.place { other.file.len() + size_of::<Beside>() } else { 0 };
        let shape = tensor.shape.as_ref().map_or(0, |shape| shape.capacity().saturating_mul(size_of::<u64>()));
        self.weigh(
            TENSOR_BYTES.saturating_add(tensor.name.capacity()).saturating_add(shape).saturating_add(beside),
            at,
        )?;
        self.tensors.push(tensor);
        Ok(())
    }

    /// Refuses a name that occurs twice.
    pub(super) fn names_differ(&self, at: u64) -> Result<(), Stop> {
        let mut names: Vec<&str> = self.tensors.iter().map(|tensor| tensor.name.as_str()).collect();
        names.sort_unstable();
        let twice = names.windows(2).any(|pair| matches!(pair, [a, b] if a == b));
        if twice { Err(Stop::Malformed(Malformed { at, what: "two tensors of one name" })) } else { Ok(()) }
    }

    /// Refuses tensors that lie upon each other.
    pub(super) fn places_differ(&self) -> Result<(), Stop> {
        let mut ranges: Vec<(u64, u64)> = self.tensors.iter().filter_map(Tensor::range).collect();
        ranges.retain(|(begin, end)| begin < end);
        ranges.sort_unstable();
        let upon = ranges.windows(2).find_map(|pair| match pair {
            [(_, end), (next, _)] if next < end => Some(*next),
            _ => None,
        });
        match upon {
            Some(at) => Err(Stop::Malformed(Malformed { at, what: "two tensors that overlap" })),
            None => Ok(()),
        }
    }

    /// The tensors, to be changed while they are gathered.
    pub(super) fn all_mut(&mut self) -> &mut Vec<Tensor> {
        &mut self.tensors
    }

    pub(super) fn all(&self) -> &[Tensor] {
        &self.tensors
    }

    pub(super) fn into_tensors(self) -> Vec<Tensor> {
        self.tensors
    }
}

/// How many numbers a shape has; `None` if that is no number.
pub(super) fn elements(shape: &[u64]) -> Option<u64> {
    // A shape with a zero has none, however large the others are; but a product that overflows on the way is refused all the same.
    shape.iter().try_fold(1u64, |product, size| product.checked_mul(*size))
}
