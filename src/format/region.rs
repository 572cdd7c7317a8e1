//! The `region` object: which repository a store holds a copy of (docs/format.md, section 2).

use super::{FormatError, cbor, signed};
use crate::base::{RegionId, RepoId};
use minicbor::{Decode, Encode};

/// Version of the format.
pub const FORMAT_VERSION: u32 = 1;

/// The first object of a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct RegionMark {
    /// [`FORMAT_VERSION`].
    #[n(0)]
    pub version: u32,
    /// Repository.
    #[n(1)]
    pub repo: RepoId,
    /// Region.
    #[n(2)]
    pub region: RegionId,
    /// When, ms.
    #[n(3)]
    pub created: i64,
}

impl RegionMark {
    /// The object.
    pub fn to_object(&self) -> Vec<u8> {
        let mut bytes = cbor::encode(self);
        signed::add_checksum(&mut bytes);
        bytes
    }

    /// Reads the object.
    ///
    /// # Errors
    /// Damaged, or from a newer program.
    pub fn from_object(bytes: &[u8]) -> Result<RegionMark, FormatError> {
        let (body, _) = signed::check_sum(bytes)?;
        // A later version may say more than this program can decode: the first two bytes are
        // the map and its first key, the third is the version.
        if body.len() > 2 && body[1] == 0 && body[2] != FORMAT_VERSION as u8 {
            return Err(FormatError::Newer("format version"));
        }
        cbor::decode("region", body)
    }
}
