//! What etcd keeps in its file: revisions, keys with their values, and what it notes about itself.

use super::bolt::{Bolt, Pages, Tree};
use super::proto::{Fields, Malformed, Message};
use crate::error::{Error, Kind, Result};

/// The bucket of all revisions of all keys.
pub const KEYS: &[u8] = b"key";
/// The bucket of alarms.
pub const ALARMS: &[u8] = b"alarm";
/// The bucket of leases.
pub const LEASES: &[u8] = b"lease";
/// The bucket of what a member notes about itself.
pub const META: &[u8] = b"meta";

/// The bucket of what is asked of users, and its pair that says whether it is.
pub(super) const AUTH: &[u8] = b"auth";
pub(super) const AUTH_ENABLED: &[u8] = b"authEnabled";

/// Alarms that are believed: a kind or two of each member.
const ALARMS_MAX: usize = 1000;
/// A version is never longer.
const VERSION_BYTES_MAX: usize = 64;

/// A file that is no etcd's.
pub(super) fn strange(what: &str) -> Error {
    Error::new(Kind::Source, format!("not a database of etcd: {what}"))
}

/// The place of a change: the number of its transaction, and which of its changes it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Revision {
    /// The transaction's.
    pub main: i64,
    /// The change's inside it.
    pub sub: i64,
}

/// Bytes of a revision as a key.
const REVISION_BYTES: usize = 17;

impl Revision {
    /// As a key of the file, which may say that the key was deleted.
    ///
    /// # Errors
    /// It is none.
    pub fn decode(key: &[u8]) -> Result<(Revision, bool)> {
        let none = || strange("a key that is no revision");
        let number = |part: &[u8]| part.first_chunk().map(|b| i64::from_be_bytes(*b)).filter(|n| *n >= 0);
        let (bytes, mark) = key.split_at_checked(REVISION_BYTES).ok_or_else(none)?;
        if bytes[8] != b'_' || !matches!(mark, b"" | b"t") {
            return Err(none());
        }
        let main = number(bytes).ok_or_else(none)?;
        let sub = number(&bytes[9..]).ok_or_else(none)?;
        Ok((Revision { main, sub }, !mark.is_empty()))
    }

    /// As a key of the file.
    pub fn encode(self, deleted: bool) -> Vec<u8> {
        let mut key = Vec::with_capacity(REVISION_BYTES + 1);
        key.extend_from_slice(&self.main.to_be_bytes());
        key.push(b'_');
        key.extend_from_slice(&self.sub.to_be_bytes());
        if deleted {
            key.push(b't');
        }
        key
    }
}

/// A key at a revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KeyValue<'a> {
    /// The key.
    pub key: &'a [u8],
    /// Its value.
    pub value: &'a [u8],
    /// The revision that made it.
    pub created: i64,
    /// The revision that changed it last.
    pub modified: i64,
    /// Changes since it was made, from 1.
    pub version: i64,
    /// The lease it goes with; 0 for none.
    pub lease: i64,
}

impl<'a> KeyValue<'a> {
    /// From a message.
    ///
    /// # Errors
    /// It is none.
    pub fn decode(message: &'a [u8]) -> std::result::Result<KeyValue<'a>, Malformed> {
        let mut kv = KeyValue::default();
        for field in Fields::of(message) {
            let (number, value) = field?;
            match number {
                1 => kv.key = value.bytes(),
                2 => kv.created = value.signed(),
                3 => kv.modified = value.signed(),
                4 => kv.version = value.signed(),
                5 => kv.value = value.bytes(),
                6 => kv.lease = value.signed(),
                _ => {}
            }
        }
        Ok(kv)
    }

    /// As a message, byte for byte as etcd writes it.
    pub fn encode(&self) -> Vec<u8> {
        let some = |message: Message, field, bytes: &[u8]| {
            if bytes.is_empty() { message } else { message.bytes(field, bytes) }
        };
        let message = some(Message::new(), 1, self.key)
            .number(2, self.created.cast_unsigned())
            .number(3, self.modified.cast_unsigned())
            .number(4, self.version.cast_unsigned());
        some(message, 5, self.value).number(6, self.lease.cast_unsigned()).finish()
    }
}

/// What a member notes about itself, and what else its file says without a look at the keys.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Notes {
    /// Everything up to this revision was or is being compacted.
    pub compacted: i64,
    /// Index of the last entry of the log that is in the file.
    pub consistent_index: u64,
    /// Term of that entry.
    pub term: u64,
    /// Version of the file's layout, from etcd 3.6 on.
    pub storage_version: Option<String>,
    /// Version that the cluster agreed on.
    pub cluster_version: Option<String>,
    /// Alarms: member and kind.
    pub alarms: Vec<(u64, u64)>,
    /// Members.
    pub members: u64,
    /// Leases.
    pub leases: u64,
    /// Whether users and roles are asked for.
    pub auth: bool,
}

fn count<P: Pages>(bolt: &Bolt<P>, name: &[u8]) -> Result<u64> {
    let Some(tree) = bolt.bucket(name)? else { return Ok(0) };
    let (mut cursor, mut count) = (bolt.cursor(&tree), 0);
    while cursor.next()?.is_some() {
        count += 1;
    }
    Ok(count)
}

impl Notes {
    /// Reads them.
    ///
    /// # Errors
    /// The file is not sound.
    pub fn read<P: Pages>(bolt: &Bolt<P>) -> Result<Notes> {
        let get = |bucket: &[u8], key: &[u8]| match bolt.bucket(bucket)? {
            Some(tree) => bolt.get(&tree, key),
            None => Ok(None),
        };
        let number = |bytes: Option<Vec<u8>>| bytes.and_then(|b| b.first_chunk().map(|b| u64::from_be_bytes(*b)));
        let first = |b: Vec<u8>| String::from_utf8_lossy(b.get(..VERSION_BYTES_MAX).unwrap_or(&b)).into_owned();
        let text = |bytes: Option<Vec<u8>>| bytes.map(first);
        let mut compacted = 0;
        for name in [&b"scheduledCompactRev"[..], b"finishedCompactRev"] {
            if let Some(bytes) = get(META, name)? {
                compacted = compacted.max(Revision::decode(&bytes)?.0.main);
            }
        }
        let mut alarms = Vec::new();
        if let Some(tree) = bolt.bucket(ALARMS)? {
            let mut cursor = bolt.cursor(&tree);
            while let Some(element) = cursor.next()? {
                if alarms.len() >= ALARMS_MAX {
                    return Err(strange("it has more alarms than a cluster can raise"));
                }
                alarms.push(alarm(element.key).map_err(|e| strange(&e.to_string()))?);
            }
        }
        Ok(Notes {
            compacted,
            consistent_index: number(get(META, b"consistent_index")?).unwrap_or_default(),
            term: number(get(META, b"term")?).unwrap_or_default(),
            storage_version: text(get(META, b"storageVersion")?),
            cluster_version: text(get(b"cluster", b"clusterVersion")?),
            alarms,
            members: count(bolt, b"members")?,
            leases: count(bolt, LEASES)?,
            auth: get(AUTH, AUTH_ENABLED)?.is_some_and(|value| value == [1]),
        })
    }
}

/// An alarm: its member and its kind.
pub(super) fn alarm(message: &[u8]) -> std::result::Result<(u64, u64), Malformed> {
    Fields::of(message).try_fold((0, 0), |(member, kind), field| {
        Ok(match field? {
            (1, value) => (value.number(), kind),
            (2, value) => (member, value.number()),
            _ => (member, kind),
        })
    })
}

/// The alarm of a member whose data are not what the others have.
pub const CORRUPT: &str = "CORRUPT";

/// What an alarm is called.
pub fn alarm_name(kind: u64) -> &'static str {
    match kind {
        1 => "NOSPACE",
        2 => CORRUPT,
        _ => "unknown",
    }
}

/// The bucket of keys.
///
/// # Errors
/// There is none: the file is no etcd's.
pub fn keys<P: Pages>(bolt: &Bolt<P>) -> Result<Tree> {
    bolt.bucket(KEYS)?.ok_or_else(|| strange("it has no bucket of keys"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions_are_keys_in_order() {
        let revision = Revision { main: 5, sub: 2 };
        assert_eq!(revision.encode(false), b"\0\0\0\0\0\0\0\x05_\0\0\0\0\0\0\0\x02");
        assert_eq!(Revision::decode(&revision.encode(true)).unwrap(), (revision, true));
        assert!(Revision { main: 255, sub: 9 }.encode(true) < Revision { main: 256, sub: 0 }.encode(false));
        for bad in [
            &b""[..],
            b"\0\0\0\0\0\0\0\x05_\0\0\0\0\0\0\0",
            b"\0\0\0\0\0\0\0\x05-\0\0\0\0\0\0\0\x02",
            b"\0\0\0\0\0\0\0\x05_\0\0\0\0\0\0\0\x02x",
            b"\xff\0\0\0\0\0\0\x05_\0\0\0\0\0\0\0\x02",
        ] {
            assert!(Revision::decode(bad).is_err());
        }
    }

    #[test]
    fn a_key_comes_back_from_its_message() {
        let kv = KeyValue { key: b"/a", value: b"v", created: 3, modified: 900, version: 2, lease: -5 };
        assert_eq!(KeyValue::decode(&kv.encode()), Ok(kv));
        // As etcd writes a deletion: the key alone.
        assert_eq!(KeyValue { key: b"/a", ..KeyValue::default() }.encode(), [0x0a, 2, b'/', b'a']);
        assert_eq!(KeyValue::decode(&[0x0a, 9]), Err(Malformed));
    }
}
