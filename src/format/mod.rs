//! One file a stored thing: bytes in, bytes out, limits beside. No I/O.
//! The normative text is `docs/format.md`.

pub mod cbor;
pub mod config;
pub mod envelope;
pub mod index;
pub mod leaf;
pub mod objects;
pub mod pack;
pub mod quarantine;
pub mod region;
pub mod ring;
pub mod run;
pub mod signed;
pub mod slot;
pub mod snapshot;
pub mod tree;

use thiserror::Error;

/// Why bytes were refused. The order of judgement is that of `docs/format.md`, section 3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FormatError {
    /// The name or the checksum does not fit the bytes.
    #[error("damaged: the bytes do not fit the {0}")]
    Damaged(&'static str),
    /// Written for another repository.
    #[error("belongs to another repository")]
    Foreign,
    /// Needs a newer program.
    #[error("needs a newer program: {0}")]
    Newer(&'static str),
    /// The commitment says that the key is another.
    #[error("sealed with another key")]
    WrongKey,
    /// Name and commitment are right, content is not.
    #[error("written wrong: {0}")]
    WrittenWrong(&'static str),
    /// Not a thing of this format.
    #[error("malformed {0}: {1}")]
    Malformed(&'static str, &'static str),
    /// Longer than this format allows.
    #[error("{0} exceeds its limit")]
    Limit(&'static str),
    /// No valid signature by someone with the right role.
    #[error("not signed by anyone with the right to it: {0}")]
    Unsigned(&'static str),
}

/// Largest chunk, in bytes.
pub const CHUNK_BYTES_MAX: usize = 4 << 20;
/// Largest sum of chunk lengths in a bundle, in bytes.
pub const BUNDLE_BYTES_MAX: usize = 1 << 20;
