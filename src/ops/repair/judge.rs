//! Which bytes are the object of a key.

use super::super::verify::{check_signed, check_sum_or_name};
use crate::format::FormatError;
use crate::format::envelope::{KIND_AT, Kind as ObjectKind};
use crate::format::pack;
use crate::format::signed;
use crate::repo::Repo;
use crate::repo::open::{self, Chain};
use crate::store::Key;
use bytes::Bytes;
use std::sync::Arc;

/// What stands at a key.
pub(super) enum There {
    Nothing,
    /// Its bytes, and whether that is all of it.
    Bytes(Bytes, bool),
    Unreadable,
}

impl There {
    /// Whether it may be a snapshot that is damaged: its bytes cannot be read, or its header says so and its checksum does not fit
    /// (else it is whole, and another object's). Where another region has an end of the session, one flipped bit must not let what
    /// only this snapshot needs be taken for garbage.
    pub(super) fn may_be_manifest(&self) -> bool {
        match self {
            There::Nothing => false,
            There::Bytes(bytes, _) => match bytes.get(KIND_AT) {
                Some(kind) if *kind == ObjectKind::Manifest as u8 => signed::check_sum(bytes).is_err(),
                // It may be the very byte that is damaged.
                Some(_) => {
                    let mut one = bytes.to_vec();
                    one.iter_mut().skip(KIND_AT).take(1).for_each(|kind| *kind = ObjectKind::Manifest as u8);
                    signed::check_sum(&one).is_ok()
                }
                None => false,
            },
            There::Unreadable => true,
        }
    }
}

/// Who decides what is good.
pub enum Judge<'j> {
    /// Names alone: packs and index segments.
    Names,
    /// Names, checksums and signatures.
    Signatures(&'j Arc<Repo>, Chain),
}

impl<'j> Judge<'j> {
    /// With the keys of a repository.
    pub fn of(repo: &'j Arc<Repo>) -> Judge<'j> {
        Judge::Signatures(repo, open::chain(repo))
    }

    /// The repository, where there is a key to it.
    pub(super) fn repo(&self) -> Option<&'j Arc<Repo>> {
        match self {
            Judge::Names => None,
            Judge::Signatures(repo, _) => Some(repo),
        }
    }

    /// Whether these bytes are the object of this key.
    ///
    /// # Errors
    /// They are not, or nobody can tell.
    pub fn check(&self, key: &Key, bytes: &[u8]) -> Result<(), FormatError> {
        match (self, key) {
            (_, Key::Pack(name)) => pack::check_name(name, bytes),
            (Judge::Names, Key::Index(_)) => check_sum_or_name(key, bytes),
            (Judge::Names, _) => Err(FormatError::Unsigned("no key to tell")),
            (Judge::Signatures(repo, chain), _) => {
                check_sum_or_name(key, bytes)?;
                check_signed(repo, chain, key, bytes)
            }
        }
    }
}
