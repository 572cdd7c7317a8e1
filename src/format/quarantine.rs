//! The record beside a damaged object that was set aside (docs/format.md, section 2). Repair makes it without a key,
//! so it is plain; nothing is decided by it.

use super::{FormatError, cbor, signed};
use crate::base::{Digest, QuarantineId, RepoId};
use minicbor::{Decode, Encode};

/// Version of this record.
const VERSION: u32 = 1;

/// What was set aside.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Quarantined {
    /// 1.
    #[n(0)]
    pub version: u32,
    /// Repository.
    #[n(1)]
    pub repo: RepoId,
    /// Where it stood.
    #[n(2)]
    pub object: String,
    /// When it was set aside, ms.
    #[n(3)]
    pub when: i64,
    /// What was found wrong.
    #[n(4)]
    pub why: String,
    /// BLAKE3 of the bytes that were there, as far as they could be read and were kept.
    #[n(5)]
    pub hash: Option<Digest>,
    /// How many that were.
    #[n(6)]
    pub bytes: u64,
    /// Whether that is all of it.
    #[n(7)]
    pub whole: bool,
}

impl Quarantined {
    /// A record of today's version.
    pub fn new(repo: RepoId, object: &str, when: i64, why: &str) -> Quarantined {
        let (object, why) = (object.to_owned(), why.to_owned());
        Quarantined { version: VERSION, repo, object, when, why, hash: None, bytes: 0, whole: false }
    }

    /// Where it is kept: the same damage of the same object always at the same place, so that a repair that was cut short
    /// finds what it has kept already.
    pub fn id(&self, turn: u32) -> QuarantineId {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&(self.object.len() as u64).to_le_bytes()).update(self.object.as_bytes());
        hasher.update(self.hash.as_ref().map_or(&[], |hash| &hash.0[..])).update(&turn.to_le_bytes());
        let (id, _) =
            hasher.finalize().as_bytes().split_first_chunk().map_or(([0; 16], &[][..]), |(id, rest)| (*id, rest));
        QuarantineId(id)
    }

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
    pub fn from_object(bytes: &[u8]) -> Result<Quarantined, FormatError> {
        let (body, _) = signed::check_sum(bytes)?;
        let record: Quarantined = cbor::decode("quarantine record", body)?;
        if record.version == VERSION { Ok(record) } else { Err(FormatError::Newer("quarantine record")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_back_and_its_place_depends_on_what_was_found() {
        let mut record = Quarantined::new(RepoId([1; 16]), "packs/aa/bb", 5, "damaged");
        let unread = record.id(0);
        record.hash = Some(Digest([7; 32]));
        assert_eq!(Quarantined::from_object(&record.to_object()).unwrap(), record);
        let other = Quarantined { object: "packs/aa/bc".into(), ..record.clone() };
        let ids = [unread, record.id(0), record.id(1), other.id(0)];
        assert!((1..4).all(|n| !ids[..n].contains(&ids[n])), "{ids:?}");
        // When it was found does not matter.
        assert_eq!(Quarantined { when: 9, ..record.clone() }.id(0), record.id(0));
        let newer = Quarantined { version: 2, ..record };
        assert_eq!(Quarantined::from_object(&newer.to_object()), Err(FormatError::Newer("quarantine record")));
    }
}
