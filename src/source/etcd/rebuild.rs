//! A database written anew from the rows of a snapshot: as it was, at an earlier revision, with changes that came later, or with its revision
//! moved up, so that nobody who remembers a revision meets it again with other content.
//!
//! It is made off-line, never by a server that runs: there no lease can expire on the way. All buckets are taken over as
//! they are, but for the keys, the leases that changes brought, and what is compacted.

use super::bolt::{Builder, PAGE_SIZES, Pages};
use super::keys::{row_key, split_key};
use super::kv::{KEYS, KeyValue, LEASES, META, Revision, strange};
use super::proto::Message;
use super::table::{Row, Rows, Table};
use crate::base::Cancel;
use crate::error::{Error, Kind, Result};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashSet};
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
    /// Leases that changes brought: id and the seconds they were granted for.
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
    leases: HashSet<i64>,
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
    let mut work = Rebuild { input, out, wanted, cancel, done: Rebuilt::default(), leases: HashSet::new() };
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
        if kv.lease != 0 {
            self.leases.insert(kv.lease);
        }
        self.out.put(&revision.encode(deleted), message)
    }

    fn leases(&mut self) -> Result<()> {
        let mut all = BTreeMap::new();
        while let Some((key, value)) = self.input.next_of(LEASES)? {
            key.first_chunk().iter().for_each(|id| _ = self.leases.remove(&i64::from_be_bytes(**id)));
            all.insert(key, value);
        }
        for (lease, seconds) in &self.wanted.leases {
            if self.leases.remove(lease) {
                let message = Message::new().number(1, lease.cast_unsigned()).number(2, seconds.cast_unsigned());
                all.insert(lease.to_be_bytes().to_vec(), message.finish());
            }
        }
        self.done.leases_lost = self.leases.len() as u64;
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
fn seal(mut file: File) -> Result<()> {
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
