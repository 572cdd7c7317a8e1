//! A database written anew from the rows of a snapshot: as it was, at an earlier revision, with changes that came later, or with its revision
//! moved up, so that nobody who remembers a revision meets it again with other content.
//!
//! It is made off-line, never by a server that runs: there no lease can expire on the way. All buckets are taken over as
//! they are, but for the keys, the leases that changes brought, and what is compacted.

use super::bolt::{Builder, PAGE_SIZES, Pages};
use super::keys::{row_key, split_key};
use super::kv::{ALARMS, KEYS, KeyValue, LEASES, META, Revision, strange};
use super::proto::Message;
use super::table::{Row, Rows, Table};
use crate::base::Cancel;
use crate::error::{Error, Kind, Result};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::iter::Peekable;
use std::os::unix::fs::FileExt;

/// After so many revisions a run looks whether it was interrupted.
const LOOK: u64 = 4096;
const SCHEDULED: &[u8] = b"scheduledCompactRev";
const FINISHED: &[u8] = b"finishedCompactRev";

/// A change that came after a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its place.
    pub revision: Revision,
    /// Whether the key was deleted.
    pub deleted: bool,
    /// The key with its value, as a message.
    pub message: Vec<u8>,
}

/// What is wanted.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// The newest revision that is kept; the newest there is if none is named.
    pub revision: Option<i64>,
    /// The revision is moved up by so much, and what is below counts as compacted.
    pub bump: Option<i64>,
    /// Leases that changes brought: id and the seconds they were granted for last.
    pub leases: BTreeMap<i64, i64>,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rebuilt {
    /// The newest revision of the keys, before it was moved up.
    pub revision: i64,
    /// Where a server will begin.
    pub begins: i64,
    /// Revisions of keys.
    pub revisions: u64,
    /// Leases that keys name and of which nothing else is known.
    pub leases_lost: u64,
    /// Alarms that were left out.
    pub alarms_dropped: u64,
}

/// Where changes come from, in the order of their revisions.
pub type Changes<'c> = &'c mut dyn FnMut() -> Result<Option<Change>>;

/// The rows of a snapshot, bucket by bucket.
struct Input<'t, P: Pages> {
    rows: Peekable<Rows<'t, P>>,
}

impl<'t, P: Pages> Input<'t, P> {
    /// Begins behind the first row; returns the size of a page, too.
    fn open(table: &'t Table<P>) -> Result<(Input<'t, P>, u64)> {
        let mut rows = table.from(b"").peekable();
        let first = rows.next().transpose()?.filter(|first| first.key.is_empty());
        let size = first.and_then(|first| first.value.first_chunk().map(|b| u64::from_le_bytes(*b)));
        let size = size.filter(|size| PAGE_SIZES.contains(size) && size.is_power_of_two());
        Ok((Input { rows }, size.ok_or_else(|| strange("the size of its pages is not known"))?))
    }

    /// The bucket that begins here.
    fn bucket(&mut self) -> Result<Option<Vec<u8>>> {
        let Some(row) = self.rows.next().transpose()? else { return Ok(None) };
        match split_key(&row.key) {
            Some((name, b"")) if !name.is_empty() => Ok(Some(name.to_vec())),
            _ => Err(strange("a row outside of its bucket")),
        }
    }

    /// The next pair of this bucket.
    fn next_of(&mut self, bucket: &[u8]) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
        let here = |row: &Result<Row>| match row {
            Ok(row) => split_key(&row.key).is_some_and(|(name, key)| name == bucket && !key.is_empty()),
            Err(_) => true,
        };
        let Some(row) = self.rows.next_if(here).transpose()? else { return Ok(None) };
        let key = split_key(&row.key).map(|(_, key)| key.to_vec()).unwrap_or_default();
        Ok(Some((key, row.value)))
    }
}

struct Rebuild<'b, P: Pages> {
    input: Input<'b, P>,
    out: Builder,
    wanted: &'b Wanted,
    cancel: &'b Cancel,
    done: Rebuilt,
    /// Leases that the database has, and behind it those that changes brought.
    known: HashSet<i64>,
    /// Keys whose newest value names another one.
    orphans: HashMap<Vec<u8>, i64>,
    /// Leases that changes brought and one of those names that are kept.
    named: HashSet<i64>,
}

/// The leases of a snapshot.
fn leases<P: Pages>(table: &Table<P>) -> Result<HashSet<i64>> {
    let mut known = HashSet::new();
    for row in table.from(&row_key(LEASES, b"")) {
        let row = row?;
        let Some((LEASES, key)) = split_key(&row.key) else { break };
        known.extend(key.first_chunk().map(|id| i64::from_be_bytes(*id)));
    }
    Ok(known)
}

/// Up to which revision the rows of a snapshot are compacted.
fn compacted<P: Pages>(table: &Table<P>) -> Result<i64> {
    let mut compacted = 0;
    for name in [SCHEDULED, FINISHED] {
        if let Some(value) = table.get(&row_key(META, name))? {
            compacted = compacted.max(Revision::decode(&value)?.0.main);
        }
    }
    Ok(compacted)
}

/// Writes a database from rows, with the hash behind it that the tools of etcd ask for.
///
/// # Errors
/// The revision is not in it, changes do not follow each other, or a file cannot be read or written.
pub fn rebuild<P: Pages>(
    table: &Table<P>,
    wanted: &Wanted,
    changes: Changes<'_>,
    out: File,
    cancel: &Cancel,
) -> Result<Rebuilt> {
    let compacted = compacted(table)?;
    if let Some(revision) = wanted.revision.filter(|revision| *revision < compacted) {
        let what = format!("revision {revision} was compacted away: the snapshot goes back to {compacted}");
        return Err(Error::new(Kind::NotFound, what).advise("an older snapshot may have it"));
    }
    let (input, page_size) = Input::open(table)?;
    let out = Builder::new(out, page_size)?;
    let (known, orphans) = (leases(table)?, HashMap::new());
    let mut work =
        Rebuild { input, out, wanted, cancel, done: Rebuilt::default(), known, orphans, named: HashSet::new() };
    work.done.revision = compacted.max(1);
    let mut needed = vec![META, LEASES, KEYS];
    while let Some(name) = work.input.bucket()? {
        while let Some(missing) = needed.pop_if(|needed| *needed < name.as_slice()) {
            work.bucket(missing, changes)?;
        }
        needed.pop_if(|needed| *needed == name.as_slice());
        work.bucket(&name, changes)?;
    }
    while let Some(missing) = needed.pop() {
        work.bucket(missing, changes)?;
    }
    let (file, done) = (work.out.finish()?, work.done);
    seal(file)?;
    Ok(done)
}

impl<P: Pages> Rebuild<'_, P> {
    fn bucket(&mut self, name: &[u8], changes: Changes<'_>) -> Result<()> {
        self.out.bucket(name)?;
        match name {
            KEYS => self.keys(changes),
            LEASES => self.leases(),
            META => self.meta(),
            // An alarm is one of members that are not there any more, and would keep the new ones from writing, or reading.
            ALARMS => self.drop(name),
            _ => self.merge(name, BTreeMap::new()),
        }
    }

    /// Takes a bucket over, with these pairs instead of or beside its own.
    fn merge(&mut self, name: &[u8], mut new: BTreeMap<Vec<u8>, Vec<u8>>) -> Result<()> {
        while let Some((key, value)) = self.input.next_of(name)? {
            while let Some(first) = new.first_entry().filter(|first| *first.key() < key) {
                let (key, value) = first.remove_entry();
                self.out.put(&key, &value)?;
            }
            let value = new.remove(&key).unwrap_or(value);
            self.out.put(&key, &value)?;
        }
        new.iter().try_for_each(|(key, value)| self.out.put(key, value))
    }

    fn drop(&mut self, name: &[u8]) -> Result<()> {
        while self.input.next_of(name)?.is_some() {
            self.done.alarms_dropped += 1;
        }
        Ok(())
    }

    fn keys(&mut self, changes: Changes<'_>) -> Result<()> {
        let last = self.wanted.revision.unwrap_or(i64::MAX);
        // A new cluster is at revision 1, which changed nothing; what is compacted may have left nothing either.
        let mut place = Revision { main: self.done.revision, sub: i64::MAX };
        let mut newest = Revision::default();
        while let Some((key, value)) = self.input.next_of(KEYS)? {
            let (revision, deleted) = Revision::decode(&key)?;
            place = place.max(revision);
            if revision.main <= last {
                newest = newest.max(revision);
                self.put(revision, deleted, &value)?;
            }
        }
        self.known.extend(self.wanted.leases.keys());
        while let Some(change) = changes()? {
            let Change { revision, deleted, message } = change;
            let next = revision.main == place.main && Some(revision.sub) == place.sub.checked_add(1);
            if !next && (Some(revision.main) != place.main.checked_add(1) || revision.sub != 0) {
                let what = format!("the changes have a gap: revision {} follows {}", revision.main, place.main);
                return Err(Error::new(Kind::Damage, what));
            }
            place = revision;
            if revision.main <= last {
                newest = newest.max(revision);
                self.put(revision, deleted, &message)?;
                self.name(&message);
            }
        }
        self.done.revision = self.done.revision.max(newest.main);
        if let Some(wanted) = self.wanted.revision.filter(|wanted| *wanted > place.main) {
            let what = format!("there is no revision {wanted}: the newest one is {}", place.main);
            return Err(Error::new(Kind::NotFound, what));
        }
        self.done.begins = self.done.revision;
        if let Some(bump) = self.wanted.bump {
            let what = || Error::new(Kind::Config, "the revision cannot be moved up so far");
            self.done.begins = self.done.revision.checked_add(bump).ok_or_else(what)?;
            // As etcd's own tools do it: a revision that changes no key.
            self.out.put(&Revision { main: self.done.begins, sub: 0 }.encode(false), &[])?;
        }
        Ok(())
    }

    fn put(&mut self, revision: Revision, deleted: bool, message: &[u8]) -> Result<()> {
        if self.done.revisions.is_multiple_of(LOOK) {
            self.cancel.check()?;
        }
        self.done.revisions += 1;
        let kv = KeyValue::decode(message).map_err(|e| strange(&e.to_string()))?;
        if kv.lease != 0 && !deleted && !self.known.contains(&kv.lease) {
            self.orphans.insert(kv.key.to_vec(), kv.lease);
        } else if !self.orphans.is_empty() {
            self.orphans.remove(kv.key);
        }
        self.out.put(&revision.encode(deleted), message)
    }

    /// Notes the lease that a change names. What the snapshot itself names has the seconds that the snapshot knows.
    fn name(&mut self, message: &[u8]) {
        let lease = KeyValue::decode(message).map_or(0, |kv| kv.lease);
        if self.wanted.leases.contains_key(&lease) {
            self.named.insert(lease);
        }
    }

    fn leases(&mut self) -> Result<()> {
        let mut all = BTreeMap::new();
        while let Some((key, value)) = self.input.next_of(LEASES)? {
            all.insert(key, value);
        }
        for (lease, seconds) in self.wanted.leases.iter().filter(|(lease, _)| self.named.contains(lease)) {
            // Also where the snapshot knows one of this id: it may have ended since, and have been granted again.
            let message = Message::new().number(1, lease.cast_unsigned()).number(2, seconds.cast_unsigned());
            all.insert(lease.to_be_bytes().to_vec(), message.finish());
        }
        let lost: HashSet<i64> = self.orphans.values().filter(|lease| !self.named.contains(lease)).copied().collect();
        self.done.leases_lost = lost.len() as u64;
        all.iter().try_for_each(|(key, value)| self.out.put(key, value))
    }

    fn meta(&mut self) -> Result<()> {
        let mut new = BTreeMap::new();
        if self.wanted.bump.is_some() {
            new.insert(SCHEDULED.to_vec(), Revision { main: self.done.begins, sub: 0 }.encode(false));
        }
        self.merge(META, new)
    }
}

/// Puts the hash of a file behind it.
pub(super) fn seal(mut file: File) -> Result<()> {
    let failed = |e: std::io::Error| Error::new(Kind::Source, format!("cannot write the file: {}", e.kind()));
    let (mut hash, mut at, mut block) = (Sha256::new(), 0, vec![0; 1 << 20]);
    loop {
        let got = FileExt::read_at(&file, &mut block, at).map_err(failed)?;
        if got == 0 {
            break;
        }
        hash.update(&block[..got]);
        at += got as u64;
    }
    file.seek(SeekFrom::End(0)).map_err(failed)?;
    file.write_all(&hash.finalize()).and_then(|()| file.sync_all()).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::super::bolt::Bolt;
    use super::super::kv::{Notes, keys};
    use super::super::table::TableWriter;
    use super::*;

    const COMPACTED: i64 = 4;

    /// A row of the bucket of keys; a value that is empty means that the key is deleted.
    fn row(main: i64, key: &[u8], value: &[u8], lease: i64) -> (Vec<u8>, Vec<u8>) {
        let kv = KeyValue { key, value, created: main, modified: main, version: 1, lease };
        let kv = if value.is_empty() { KeyValue { key, ..KeyValue::default() } } else { kv };
        (row_key(KEYS, &Revision { main, sub: 0 }.encode(value.is_empty())), kv.encode())
    }

    /// Revisions 4 to 8, compacted up to 4; the lease 7 is there, 8 and 9 ended.
    fn table() -> Table<Vec<u8>> {
        let mut rows = vec![
            (Vec::new(), 4096u64.to_le_bytes().to_vec()),
            (row_key(KEYS, b""), Vec::new()),
            row(4, b"/a", b"one", 7),
            row(5, b"/b", b"two", 8),
            row(6, b"/c", b"three", 9),
            row(7, b"/b", b"", 0),
            row(8, b"/d", b"four", 0),
            (row_key(ALARMS, b""), Vec::new()),
            (row_key(ALARMS, b"\x08\x05\x10\x01"), Vec::new()),
            (row_key(LEASES, b""), Vec::new()),
            (row_key(LEASES, &7i64.to_be_bytes()), Message::new().number(1, 7).number(2, 60).finish()),
            (row_key(META, b""), Vec::new()),
            (row_key(META, FINISHED), Revision { main: COMPACTED, sub: 0 }.encode(false)),
        ];
        rows.sort();
        let mut writer = TableWriter::new(Vec::new());
        rows.iter().for_each(|(key, value)| writer.push(key, value).unwrap());
        Table::open(writer.finish().unwrap()).unwrap()
    }

    fn made(wanted: &Wanted, changes: &[Change]) -> Result<(Rebuilt, Bolt<File>)> {
        let (file, mut left) = (tempfile::tempfile().unwrap(), changes.iter().cloned());
        let out = file.try_clone().unwrap();
        let done = rebuild(&table(), wanted, &mut || Ok(left.next()), out, &Cancel::new())?;
        Ok((done, Bolt::open(file).unwrap()))
    }

    fn change(main: i64, key: &[u8], lease: i64) -> Change {
        let kv = KeyValue { key, value: b"v", created: main, modified: main, version: 1, lease };
        Change { revision: Revision { main, sub: 0 }, deleted: false, message: kv.encode() }
    }

    fn at(revision: i64) -> Wanted {
        Wanted { revision: Some(revision), ..Wanted::default() }
    }

    fn count(bolt: &Bolt<File>) -> usize {
        let (mut cursor, mut count) = (bolt.cursor(&keys(bolt).unwrap()), 0);
        while cursor.next().unwrap().is_some() {
            count += 1;
        }
        count
    }

    #[test]
    fn it_ends_with_the_revision_that_is_wanted() {
        for (revision, rows) in [(4, 1), (5, 2), (8, 5)] {
            let (done, bolt) = made(&at(revision), &[]).unwrap();
            assert_eq!((done.revision, done.begins, count(&bolt)), (revision, revision, rows));
        }
        assert_eq!(made(&at(3), &[]).unwrap_err().kind(), Kind::NotFound);
        assert_eq!(made(&at(9), &[]).unwrap_err().kind(), Kind::NotFound);
        let (done, bolt) = made(&at(9), &[change(9, b"/e", 0), change(10, b"/f", 0)]).unwrap();
        assert_eq!((done.revision, count(&bolt)), (9, 6));
        for gap in
            [vec![change(10, b"/e", 0)], vec![change(8, b"/e", 0)], vec![change(9, b"/e", 0), change(11, b"/f", 0)]]
        {
            assert_eq!(made(&Wanted::default(), &gap).unwrap_err().kind(), Kind::Damage);
        }
        let (done, bolt) = made(&Wanted::default(), &[]).unwrap();
        assert_eq!((done.alarms_dropped, Notes::read(&bolt).unwrap().alarms.len()), (1, 0));
        let (done, bolt) = made(&Wanted { bump: Some(1000), ..Wanted::default() }, &[]).unwrap();
        assert_eq!((done.revision, done.begins, Notes::read(&bolt).unwrap().compacted), (8, 1008, 1008));
        assert!(made(&Wanted { bump: Some(i64::MAX), ..Wanted::default() }, &[]).is_err());
    }

    #[test]
    fn leases_are_lost_only_by_keys_that_are_there_and_name_them() {
        // At 5 the key of lease 8 is there; at 6 that of lease 9, too; at 7 the former is deleted.
        for (revision, lost) in [(4, 0), (5, 1), (6, 2), (7, 1), (8, 1)] {
            assert_eq!(made(&at(revision), &[]).unwrap().0.leases_lost, lost, "{revision}");
        }
        let leases = BTreeMap::from([(7, 5), (11, 30), (12, 40)]);
        let all = [change(9, b"/c", 11), change(10, b"/g", 7), change(11, b"/h", 12)];
        let (done, bolt) = made(&Wanted { leases, ..at(10) }, &all).unwrap();
        assert_eq!((done.leases_lost, Notes::read(&bolt).unwrap().leases), (0, 2), "lease 12 came later");
        let tree = bolt.bucket(LEASES).unwrap().unwrap();
        let known = bolt.get(&tree, &7i64.to_be_bytes()).unwrap().unwrap();
        assert_eq!(known, Message::new().number(1, 7).number(2, 5).finish(), "granted again");
    }

    #[test]
    fn a_lease_has_the_seconds_that_it_was_granted_for_last() {
        let leases = BTreeMap::from([(7, 5)]);
        let seconds = |revision: i64| {
            let wanted = Wanted { leases: leases.clone(), ..at(revision) };
            let (_, bolt) = made(&wanted, &[change(9, b"/c", 0), change(10, b"/g", 7)]).unwrap();
            let tree = bolt.bucket(LEASES).unwrap().unwrap();
            let message = bolt.get(&tree, &7i64.to_be_bytes()).unwrap().unwrap();
            [60, 5].into_iter().find(|n| message == Message::new().number(1, 7).number(2, *n).finish())
        };
        // Before the change that names it, it is what the snapshot says.
        assert_eq!([8, 9, 10].map(seconds), [Some(60), Some(60), Some(5)]);
    }
}
