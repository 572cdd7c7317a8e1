//! Formats of files of tensors, known by their content: safetensors, GGUF, PyTorch's zip files, ONNX, NumPy
//! (docs/models.md).
//!
//! Headers are hostile input: no length, offset, count or depth is believed before it is checked against the file, no
//! sum is made that can overflow, and what is kept of a header stays below [`MEMORY_BYTES_MAX`] whatever it says. What is
//! not valid is no model but bytes, with a note of what is wrong and where.

mod dtype;
mod gguf;
mod npy;
mod onnx;
mod protobuf;
mod read;
mod safetensors;
mod shards;
mod state;
mod tensors;
mod torch;
mod write;
mod zip;

pub use read::ReadAt;
pub use shards::{SHARDS_BYTES_MAX, Shards, read_shards};
use std::cmp::Reverse;
use std::io;
use tensors::Gathered;
pub use tensors::{Beside, Place, Tensor};
pub use write::{bytes_written, header_of, width};

/// What tells a candidate from other files: so many bytes of its front. More is read of candidates only.
pub const FRONT_BYTES: usize = 128;
/// Longest header that is held as a whole, in bytes: safetensors' some 80,000 tensors.
pub const HEADER_BYTES_MAX: usize = 8 << 20;
/// Most tensors of one file.
pub const TENSORS_MAX: usize = 1 << 17;
/// Most memory that one header may take, in bytes, with everything that is made of it.
pub const MEMORY_BYTES_MAX: usize = 64 << 20;

/// A format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Safetensors.
    Safetensors,
    /// GGUF.
    Gguf,
    /// A zip file as PyTorch writes it.
    Torch,
    /// ONNX.
    Onnx,
    /// One array of NumPy.
    Npy,
    /// A zip file of arrays of NumPy.
    Npz,
}

impl Format {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Format::Safetensors => "safetensors",
            Format::Gguf => "gguf",
            Format::Torch => "pytorch",
            Format::Onnx => "onnx",
            Format::Npy => "npy",
            Format::Npz => "npz",
        }
    }

    /// The format whose files begin like this; whether it is one is known when it was read.
    pub fn probe(front: &[u8]) -> Option<Format> {
        if safetensors::probe(front) {
            Some(Format::Safetensors)
        } else if front.starts_with(gguf::MAGIC) {
            Some(Format::Gguf)
        } else if front.starts_with(npy::MAGIC) {
            Some(Format::Npy)
        } else if onnx::probe(front) {
            Some(Format::Onnx)
        } else {
            zip::first_name(front).and_then(of_entry)
        }
    }
}

/// What a zip file is, by the name of its first entry.
fn of_entry(name: &[u8]) -> Option<Format> {
    if name.ends_with(npy::ENTRY_SUFFIX.as_bytes()) {
        return Some(Format::Npz);
    }
    torch::is_entry(name).then_some(Format::Torch)
}

/// What is wrong with a file that begins like a model, and where: it is no model but bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed {
    /// Where in the file, roughly.
    pub at: u64,
    /// What.
    pub what: &'static str,
}

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at byte {}", self.what, self.at)
    }
}

/// Why a header was not read to its end.
#[derive(Debug)]
enum Stop {
    /// The file cannot be read.
    Read(io::Error),
    /// It is not valid.
    Malformed(Malformed),
    /// It is no model at all.
    Other,
}

/// What a file is.
#[derive(Debug)]
pub enum Found {
    /// Nothing that is known here.
    Other,
    /// A model.
    Model(Box<Model>),
    /// It begins like one, and is none.
    Malformed(Format, Malformed),
}

/// A file of tensors.
#[derive(Debug)]
pub struct Model {
    /// Its format.
    pub format: Format,
    /// The version of the format that it says it has.
    pub version: Option<u64>,
    /// Where its header lies; that of a zip file is its list of entries, at its end.
    pub header: (u64, u64),
    /// Tensors in the order of the header.
    pub tensors: Vec<Tensor>,
    /// Long parts of the header that are often the same in other files: lists of a vocabulary.
    parts: Vec<(u64, u64)>,
    /// Entries that hold something packed, which is not looked into.
    pub packed: u64,
}

impl Model {
    fn new(format: Format, version: Option<u64>, header: (u64, u64), gathered: Gathered) -> Model {
        Model { format, version, header, tensors: gathered.into_tensors(), parts: Vec::new(), packed: 0 }
    }

    /// Where cuts are worth it: places of tensors within this file and parts of its header, in order and apart from each other. Of
    /// two that overlap the one that begins first counts.
    pub fn sections(&self) -> Vec<(u64, u64)> {
        apart(self.tensors.iter().filter_map(Tensor::range).chain(self.parts.iter().copied()).collect())
    }

    /// The same for a file beside this one, as this one names it.
    pub fn sections_beside(&self, file: &str) -> Vec<(u64, u64)> {
        let range = |tensor: &Tensor| match &tensor.place {
            Place::Beside(other) if other.file.strip_prefix("./").unwrap_or(&other.file) == file => {
                Some((other.offset, other.offset.checked_add(other.bytes?)?))
            }
            _ => None,
        };
        apart(self.tensors.iter().filter_map(range).collect())
    }
}

/// Places in order, without those that are empty and those that begin within another; the longest of those that begin
/// together.
fn apart(mut all: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    all.retain(|(begin, end)| begin < end);
    all.sort_unstable_by_key(|(begin, end)| (*begin, Reverse(*end)));
    let mut behind = 0;
    all.retain(|(begin, end)| {
        let apart = *begin >= behind;
        if apart {
            behind = *end;
        }
        apart
    });
    all
}

/// Reads what a file is, of which the length is known.
///
/// # Errors
/// It cannot be read.
pub fn read(file: &dyn ReadAt, file_bytes: u64) -> io::Result<Found> {
    let mut front = [0; FRONT_BYTES];
    let got = file.read_at(0, &mut front)?;
    let front = front.get(..got).unwrap_or(&[]);
    match Format::probe(front) {
        Some(format) => read_as(format, file, file_bytes),
        None => Ok(Found::Other),
    }
}

/// Reads a file that begins like one of this format.
///
/// # Errors
/// It cannot be read.
pub fn read_as(format: Format, file: &dyn ReadAt, file_bytes: u64) -> io::Result<Found> {
    let read = match format {
        Format::Safetensors => safetensors::read(file, file_bytes),
        Format::Gguf => gguf::read(file, file_bytes),
        Format::Torch => torch::read(file, file_bytes),
        Format::Onnx => onnx::read(file, file_bytes),
        Format::Npy => npy::read(file, file_bytes),
        Format::Npz => npy::read_zip(file, file_bytes),
    };
    match read {
        Ok(model) => Ok(Found::Model(Box::new(model))),
        Err(Stop::Malformed(what)) => Ok(Found::Malformed(format, what)),
        Err(Stop::Other) => Ok(Found::Other),
        Err(Stop::Read(e)) => Err(e),
    }
}
