//! One look at a whole file: what it holds, which pages are in use, its keys in order, and the hash that members
//! compare.
//!
//! Memory does not grow with the file but for a bit a page and a bit a revision: keys are sorted in scratch files.

use super::bolt::{Bolt, Pages};
use super::crc::Crc;
use super::keys::Line;
use super::kv::{KEYS, KeyValue, Notes, Revision, keys, strange};
use super::table::TableWriter;
use crate::base::Cancel;
use crate::error::{Error, Kind, Result};
use crate::source::sort::{Sorted, Sorter};
use std::cmp::Ordering;
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

/// Where Kubernetes keeps its Secrets, unless it was told otherwise.
const SECRETS: &[u8] = b"/registry/secrets/";
/// What a value begins with that is encrypted at rest.
const SEALED: &[u8] = b"k8s:enc:";
/// Marks of a record.
const DELETED: u8 = 1;
const AT_REST: u8 = 2;
/// A key is never longer: etcd's own limit of a request is 1.5 MiB, with the value in it. Keys are sorted in as many runs as
/// there are times 64 MiB of them, and one of each run is held.
const KEY_BYTES_MAX: usize = 2 << 20;
/// After so many revisions a run looks whether it was interrupted.
const LOOK: u64 = 4096;

/// What a file holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// The newest revision.
    pub revision: i64,
    /// Keys that are there at that revision.
    pub keys: u64,
    /// Revisions kept of all keys.
    pub revisions: u64,
    /// Secrets of Kubernetes among them.
    pub secrets: u64,
    /// Of those, the ones that are encrypted at rest.
    pub secrets_sealed: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// Bytes of the pages in use.
    pub bytes_used: u64,
    /// What the member notes.
    pub notes: Notes,
}

/// What a look found.
pub struct Survey {
    /// What the file holds.
    pub facts: Facts,
    /// The table of keys ([`super::table`]).
    pub keys: File,
    /// Of each revision, whether it is the last one of a key that is there.
    live: Vec<u64>,
}

/// A record for the sorting: key, revision, number; and what the index wants to know.
fn record(kv: &KeyValue<'_>, revision: Revision, deleted: bool, number: u64, out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(&(kv.key.len() as u32).to_be_bytes());
    out.extend_from_slice(kv.key);
    for word in
        [revision.main, revision.sub, number.cast_signed(), kv.created, kv.version, kv.lease, kv.value.len() as i64]
    {
        out.extend_from_slice(&word.to_be_bytes());
    }
    out.push(if deleted { DELETED } else { 0 } | if kv.value.starts_with(SEALED) { AT_REST } else { 0 });
}

/// The key in front of a record, and what is behind it.
fn split(record: &[u8]) -> (&[u8], &[u8]) {
    let Some((len, rest)) = record.split_first_chunk::<4>() else { return (&[], &[]) };
    rest.split_at_checked(u32::from_be_bytes(*len) as usize).unwrap_or((rest, &[]))
}

fn by_key(a: &[u8], b: &[u8]) -> Ordering {
    split(a).cmp(&split(b))
}

fn word(fields: &[u8], at: usize) -> i64 {
    fields.get(at * 8..).and_then(|f| f.first_chunk()).map_or(0, |b| i64::from_be_bytes(*b))
}

/// Looks through a file.
///
/// # Errors
/// It is no sound database of etcd, or the scratch directory cannot be used.
pub fn survey<P: Pages>(bolt: &Bolt<P>, scratch: &Path, cancel: &Cancel) -> Result<Survey> {
    let notes = Notes::read(bolt)?;
    let mut used = bolt.used()?;
    let mut facts = Facts { bytes: bolt.page_count() * bolt.page_size(), notes, ..Facts::default() };
    facts.revision = facts.notes.compacted.max(1);
    let mut sorter = Sorter::new(scratch, by_key);
    for (name, tree) in bolt.buckets()? {
        let mut line = Vec::new();
        let mut cursor = bolt.marking(&tree, &mut used);
        while let Some(element) = cursor.next()? {
            if element.bucket {
                return Err(strange("a bucket inside a bucket"));
            }
            if name != KEYS {
                continue;
            }
            if facts.revisions.is_multiple_of(LOOK) {
                cancel.check()?;
            }
            let (revision, deleted) = Revision::decode(element.key)?;
            let kv = KeyValue::decode(element.value).map_err(|e| strange(&e.to_string()))?;
            if kv.key.is_empty() && !deleted && kv.modified != 0 {
                return Err(strange("a value without a key"));
            }
            if kv.key.len() > KEY_BYTES_MAX {
                return Err(strange("a key is longer than a request may be"));
            }
            facts.revision = facts.revision.max(revision.main);
            record(&kv, revision, deleted, facts.revisions, &mut line);
            sorter.push(&line)?;
            facts.revisions += 1;
        }
    }
    keys(bolt)?;
    facts.bytes_used = used.count() * bolt.page_size();
    let mut live = vec![0; usize::try_from(facts.revisions.div_ceil(64)).unwrap_or(usize::MAX)];
    let keys = table(sorter.finish()?, scratch, &mut live, &mut facts, cancel)?;
    Ok(Survey { facts, keys, live })
}

/// Writes the table of keys: of each the last revision, if it is no deletion.
fn table(mut sorted: Sorted, scratch: &Path, live: &mut [u64], facts: &mut Facts, cancel: &Cancel) -> Result<File> {
    let mut writer = TableWriter::new(BufWriter::new(crate::source::scratch::file(scratch)?));
    let mut last: Vec<u8> = Vec::new();
    loop {
        let next = sorted.next()?;
        if next.is_none_or(|next| split(next).0 != split(&last).0) && !last.is_empty() {
            let (key, fields) = split(&last);
            let marks = fields.last().copied().unwrap_or(DELETED);
            let there = marks & DELETED == 0;
            if there {
                let number = word(fields, 2).cast_unsigned();
                live.get_mut((number / 64) as usize).iter_mut().for_each(|bits| **bits |= 1 << (number % 64));
            }
            // A key without a name is what a revision that was moved up leaves.
            if there && !key.is_empty() {
                let revision = Revision { main: word(fields, 0), sub: word(fields, 1) };
                let (created, version, lease) = (word(fields, 3), word(fields, 4), word(fields, 5));
                let bytes = word(fields, 6).cast_unsigned();
                let line = Line { key: key.to_vec(), revision, created, version, lease, bytes };
                writer.push(key, &line.encode())?;
                facts.keys += 1;
                facts.secrets += u64::from(key.starts_with(SECRETS));
                facts.secrets_sealed += u64::from(key.starts_with(SECRETS) && marks & AT_REST != 0);
                if facts.keys.is_multiple_of(LOOK) {
                    cancel.check()?;
                }
            }
        }
        let Some(next) = next else { break };
        last.clear();
        last.extend_from_slice(next);
    }
    let out = writer.finish()?;
    out.into_inner().map_err(|e| Error::new(Kind::Source, format!("cannot write a table: {}", e.error().kind())))
}

impl Survey {
    /// The hashes that a sound member may answer for the file's newest revision, if it is compacted up to this one. A
    /// compaction removes what is not the newest state of a key that is there; since 3.5.16 it keeps the deletions of its very revision. What counts where no key is there at all differs from version to version: then there is
    /// nothing to compare.
    ///
    /// # Errors
    /// The file is not sound, or the run was interrupted.
    pub fn hashes<P: Pages>(&self, bolt: &Bolt<P>, compacted: i64, cancel: &Cancel) -> Result<[u32; 2]> {
        let tree = keys(bolt)?;
        let (mut cursor, mut sums, mut number) = (bolt.cursor(&tree), [Crc::default(); 2], 0u64);
        sums.iter_mut().for_each(|sum| sum.write(KEYS));
        while let Some(element) = cursor.next()? {
            if number.is_multiple_of(LOOK) {
                cancel.check()?;
            }
            let live = self.live.get((number / 64) as usize).is_some_and(|bits| bits >> (number % 64) & 1 == 1);
            number += 1;
            let (revision, deleted) = Revision::decode(element.key)?;
            let (later, last) = (revision.main > compacted, deleted && revision.main == self.facts.revision);
            let counts = [later || live, later || live || last];
            for (sum, _) in sums.iter_mut().zip(counts).filter(|(_, counts)| *counts) {
                sum.write(element.key);
                sum.write(element.value);
            }
        }
        Ok(sums.map(Crc::sum))
    }
}

#[cfg(test)]
mod tests {
    use super::super::bolt::Builder;
    use super::*;

    /// Revisions of keys: a value that is empty means that the key is deleted.
    fn file(rows: &[(i64, &[u8], &[u8])]) -> Bolt<File> {
        let out = tempfile::tempfile().unwrap();
        let mut builder = Builder::new(out, 4096).unwrap();
        builder.bucket(KEYS).unwrap();
        for (main, key, value) in rows {
            let (key, message) = row(*main, key, value);
            builder.put(&key, &message).unwrap();
        }
        Bolt::open(builder.finish().unwrap()).unwrap()
    }

    fn row(main: i64, key: &[u8], value: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let kv = KeyValue { key, value, created: main, modified: main, version: 1, lease: 0 };
        let kv = if value.is_empty() { KeyValue { key, ..KeyValue::default() } } else { kv };
        (Revision { main, sub: 0 }.encode(value.is_empty()), kv.encode())
    }

    fn looked(bolt: &Bolt<File>) -> Survey {
        survey(bolt, &std::env::temp_dir(), &Cancel::new()).unwrap()
    }

    fn sum(rows: &[(i64, &[u8], &[u8])]) -> u32 {
        let mut crc = Crc::default();
        crc.write(KEYS);
        for (main, key, value) in rows {
            let (key, message) = row(*main, key, value);
            crc.write(&key);
            crc.write(&message);
        }
        crc.sum()
    }

    type Rows<'r> = &'r [(i64, &'r [u8], &'r [u8])];

    #[test]
    fn a_key_that_nobody_can_have_put_is_refused() {
        let survey = |len: usize| {
            let bolt = file(&[(2, &vec![b'k'; len], b"v")]);
            survey(&bolt, &std::env::temp_dir(), &Cancel::new()).map(|survey| survey.facts.keys)
        };
        assert_eq!(survey(KEY_BYTES_MAX).unwrap(), 1);
        assert!(survey(KEY_BYTES_MAX + 1).unwrap_err().what().contains("longer than a request"));
    }

    #[test]
    fn a_file_says_what_it_holds() {
        let all: Rows = &[
            (2, b"/a", b"1"),
            (3, b"/registry/secrets/x", b"k8s:enc:aescbc"),
            (4, b"/a", b"2"),
            (5, b"/registry/secrets/y", b"plain"),
            (6, b"/b", b""),
        ];
        let facts = looked(&file(all)).facts;
        assert_eq!((facts.revision, facts.keys, facts.revisions), (6, 3, 5));
        assert_eq!((facts.secrets, facts.secrets_sealed), (2, 1));
        let none = looked(&file(&[])).facts;
        assert_eq!((none.revision, none.keys, none.revisions), (1, 0, 0), "a new cluster is at revision 1");
    }

    #[test]
    fn what_a_compaction_removes_or_keeps_does_not_change_the_hash() {
        let cancel = Cancel::new();
        let all: Rows = &[
            (2, b"/a", b"1"),
            (3, b"/b", b"1"),
            (4, b"/a", b"2"),
            (5, b"/b", b""),
            (6, b"/c", b"1"),
            (7, b"/d", b"1"),
            (8, b"/d", b""),
        ];
        let bolt = file(all);
        let hashes = |compacted| looked(&bolt).hashes(&bolt, compacted, &cancel).unwrap();
        assert_eq!(hashes(-1), [sum(all); 2]);
        // Of what is compacted the newest states of keys that are there count; what comes later counts, whatever it is.
        assert_eq!(hashes(6), [sum(&[all[2], all[4], all[5], all[6]]); 2]);
        // At the newest revision: its deletions count with newer versions.
        assert_eq!(hashes(8), [sum(&[all[2], all[4]]), sum(&[all[2], all[4], all[6]])]);
    }
}
