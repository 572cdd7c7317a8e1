//! A whole pack from copies that are all damaged, each in another place.
//!
//! A pack is a header and records one behind the other, each sealed with its number. So its pieces can be told good or bad
//! one by one, whichever copy they come from; the few bytes at the end that are not sealed follow from them. What comes
//! out is the pack if its hash is the name, and nothing otherwise. Memory: every copy and what is made of them.

use super::Repo;
use crate::base::PackName;
use crate::format::envelope::{
    HEADER_BYTES, Header, Kind as ObjectKind, OBJECT_BYTES_MAX, ObjectKeys, PLAIN_HEADER_BYTES, RECORDS_MAX, RecordKind,
};
use crate::format::{FormatError, pack};
use crate::store::Key;
use bytes::Bytes;

/// Keys of the pack that `bytes` begin.
///
/// # Errors
/// Not a pack of ours, or another key.
pub fn keys_of(repo: &Repo, bytes: &[u8]) -> std::result::Result<ObjectKeys, FormatError> {
    let (header, commitment) = Header::parse(bytes, &repo.id)?;
    if !matches!(header.kind, ObjectKind::Data | ObjectKind::Tree) {
        return Err(FormatError::Malformed("pack", "kind"));
    }
    let secret =
        repo.ring().class_secret(header.domain, header.key_epoch, header.kind.class()).ok_or(FormatError::WrongKey)?;
    ObjectKeys::open(&header, &commitment, &secret)
}

/// A pack that no usable region has whole, from the pieces that are good in any of them.
pub fn from_regions(repo: &Repo, name: &PackName) -> Option<Vec<u8>> {
    let read = |ix| repo.regions.get(ix, &Key::Pack(*name), OBJECT_BYTES_MAX as u64).ok();
    let copies: Vec<Bytes> = repo.usable().iter().filter_map(read).collect();
    gather(repo, name, &copies).map(|(whole, _)| whole)
}

/// The pack, and which of the copies gave something to it.
pub fn gather(repo: &Repo, name: &PackName, copies: &[Bytes]) -> Option<(Vec<u8>, Vec<bool>)> {
    let (header, keys) = header(repo, copies)?;
    let mut gathering = Gathering { keys, copies, whole: header, used: vec![false; copies.len()] };
    gathering.records()?;
    let Gathering { whole, used, .. } = gathering;
    pack::check_name(name, &whole).ok()?;
    Some((whole, used))
}

/// The header and the commitment, each from any copy, that fit each other.
fn header(repo: &Repo, copies: &[Bytes]) -> Option<(Vec<u8>, ObjectKeys)> {
    let long: Vec<&Bytes> = copies.iter().filter(|copy| copy.len() >= HEADER_BYTES).collect();
    for plain in &long {
        for commitment in &long {
            let mut header = plain[..PLAIN_HEADER_BYTES].to_vec();
            header.extend_from_slice(&commitment[PLAIN_HEADER_BYTES..HEADER_BYTES]);
            if let Ok(keys) = keys_of(repo, &header) {
                return Some((header, keys));
            }
        }
    }
    None
}

struct Gathering<'g> {
    keys: ObjectKeys,
    copies: &'g [Bytes],
    whole: Vec<u8>,
    used: Vec<bool>,
}

impl Gathering<'_> {
    /// Record by record up to the table, which is the last, and the place of the table behind it.
    fn records(&mut self) -> Option<()> {
        for number in 0..RECORDS_MAX {
            let at = self.whole.len();
            if self.record(number, at)? == RecordKind::Table {
                self.whole.extend_from_slice(&(at as u64).to_le_bytes());
                return Some(());
            }
            if self.whole.len() > OBJECT_BYTES_MAX {
                return None;
            }
        }
        None
    }

    /// One record from the first copy that has it good; or its head from one and its body from another.
    fn record(&mut self, number: u32, at: usize) -> Option<RecordKind> {
        for head_of in 0..self.copies.len() {
            let Some(rest) = self.copies[head_of].get(at..) else { continue };
            let Ok(head) = self.keys.head(number, rest) else { continue };
            // What is sealed behind the head has no length of its own to be wrong about.
            let body = head.record_len().checked_sub(head.sealed_len as usize)?;
            let own_first = std::iter::once(head_of).chain((0..self.copies.len()).filter(|other| *other != head_of));
            for body_of in own_first {
                let Some(sealed) =
                    self.copies[body_of].get(at.saturating_add(body)..at.saturating_add(head.record_len()))
                else {
                    continue;
                };
                let record = [rest.get(..body)?, sealed].concat();
                if self.keys.record(number, &mut record.clone()).is_ok() {
                    self.whole.extend_from_slice(&record);
                    (self.used[head_of], self.used[body_of]) = (true, true);
                    return Some(head.kind);
                }
            }
        }
        None
    }
}
