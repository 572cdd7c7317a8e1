//! The keys in a snapshot, without any cluster: listed by their table, read by the blocks that lead to them alone.

use super::deltas::Deltas;
use super::{KEYS, ROWS};
use crate::base::Cancel;
use crate::error::{Error, Result};
use crate::format::snapshot::Manifest;
use crate::ops::browse;
use crate::repo::file_at::FileAt;
use crate::repo::reader::Reader;
use crate::source::etcd::bolt::Pages;
use crate::source::etcd::keys::{Line, row_key};
use crate::source::etcd::kv::{self, KeyValue};
use crate::source::etcd::table::{Row, Table};
use std::collections::BTreeMap;

/// A file of a snapshot, read at any place.
pub(super) struct Part<'r>(FileAt<'r>);

impl Pages for Part<'_> {
    fn size(&self) -> u64 {
        self.0.size()
    }

    fn read_at(&self, at: u64, buf: &mut [u8]) -> Result<()> {
        self.0.read_at(at, buf)
    }
}

fn damage(what: &str) -> Error {
    Error::new(crate::error::Kind::Damage, what)
}

fn line(row: Row) -> Result<Line> {
    Line::decode(row).map_err(|_| damage("a row of the table of keys is not sound"))
}

/// What changed since the whole snapshot: a key with its value, or that it is gone.
type Changed = BTreeMap<Vec<u8>, Option<(Line, Vec<u8>)>>;

/// What a snapshot's changes come to.
fn changed(mut deltas: Deltas<'_>) -> Result<Changed> {
    let mut changed = BTreeMap::new();
    while let Some(change) = deltas.next()? {
        let kv = KeyValue::decode(&change.message).map_err(|_| damage("a change is not sound"))?;
        let state = (!change.deleted).then(|| {
            let (created, version, lease) = (kv.created, kv.version, kv.lease);
            let bytes = kv.value.len() as u64;
            (
                Line { key: kv.key.to_vec(), revision: change.revision, created, version, lease, bytes },
                kv.value.to_vec(),
            )
        });
        changed.insert(kv.key.to_vec(), state);
    }
    Ok(changed)
}

/// The keys of one snapshot.
pub struct Keys<'r> {
    keys: Table<Part<'r>>,
    rows: Table<Part<'r>>,
    changed: Changed,
}

/// A file of a snapshot.
pub(super) fn part<'r>(reader: &'r Reader, manifest: &Manifest, name: &[u8]) -> Result<Part<'r>> {
    let entry = browse::find(reader, manifest, name)?;
    FileAt::open(reader, &entry).map(Part)
}

impl<'r> Keys<'r> {
    /// Opens its tables.
    ///
    /// # Errors
    /// The snapshot is not one of etcd, or no region has them intact.
    pub fn open(reader: &'r Reader, manifest: &Manifest, cancel: &Cancel) -> Result<Keys<'r>> {
        Ok(Keys {
            keys: Table::open(part(reader, manifest, KEYS)?)?,
            rows: Table::open(part(reader, manifest, ROWS)?)?,
            changed: changed(Deltas::open(reader, manifest, cancel)?)?,
        })
    }

    /// Every key from this one on, in order: of those that changed the newer state.
    fn from<'k>(&'k self, key: &[u8]) -> impl Iterator<Item = Result<Line>> + 'k {
        let mut old = self.keys.from(key).peekable();
        let mut new = self.changed.range(key.to_vec()..).peekable();
        std::iter::from_fn(move || {
            loop {
                let newer = match (old.peek(), new.peek()) {
                    (Some(Ok(old)), Some((new, _))) => **new <= old.key,
                    (None, new) => new.is_some(),
                    _ => false,
                };
                if !newer {
                    return old.next().map(|row| row.and_then(line));
                }
                let Some((key, state)) = new.next() else { continue };
                old.next_if(|row| row.as_ref().is_ok_and(|row| row.key == *key));
                if let Some((line, _)) = state {
                    return Some(Ok(line.clone()));
                }
            }
        })
    }

    /// Keys that begin so, in order, until told to stop.
    ///
    /// # Errors
    /// No region has a part of the table intact, or what `show` said.
    pub fn each(&self, prefix: &[u8], cancel: &Cancel, show: &mut dyn FnMut(&Line) -> Result<bool>) -> Result<()> {
        for line in self.from(prefix) {
            let line = line?;
            cancel.check()?;
            if !line.key.starts_with(prefix) || !show(&line)? {
                break;
            }
        }
        Ok(())
    }

    /// A key.
    ///
    /// # Errors
    /// No region has its part of the table intact.
    pub fn get(&self, key: &[u8]) -> Result<Option<Line>> {
        if let Some(state) = self.changed.get(key) {
            return Ok(state.as_ref().map(|(line, _)| line.clone()));
        }
        let value = self.keys.get(key)?;
        value.map(|value| line(Row { key: key.to_vec(), value })).transpose()
    }

    /// The value of a key.
    ///
    /// # Errors
    /// No region has the blocks that lead to it intact, or they say something else than the table of keys.
    pub fn value(&self, line: &Line) -> Result<Vec<u8>> {
        if let Some(Some((_, value))) = self.changed.get(&line.key) {
            return Ok(value.clone());
        }
        let wrong = || damage("the rows do not have what the table of keys names");
        let message = self.rows.get(&row_key(kv::KEYS, &line.revision.encode(false)))?.ok_or_else(wrong)?;
        let found = KeyValue::decode(&message).map_err(|_| wrong())?;
        if found.key == line.key { Ok(found.value.to_vec()) } else { Err(wrong()) }
    }
}

/// How a key differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only the new snapshot has it.
    Added,
    /// Only the old one has it.
    Removed,
    /// It was changed, or made anew.
    Changed,
}

/// Told of each key that differs, as it was and as it is.
pub type Show<'s> = &'s mut dyn FnMut(Kind, Option<&Line>, Option<&Line>) -> Result<()>;

/// Shows how the keys of two snapshots differ.
///
/// # Errors
/// No region has a part of a table intact, or what `show` said.
pub fn diff((old, new): (&Keys<'_>, &Keys<'_>), prefix: &[u8], cancel: &Cancel, show: Show<'_>) -> Result<()> {
    let within = |line: Option<Result<Line>>| line.transpose().map(|line| line.filter(|l| l.key.starts_with(prefix)));
    let (mut olds, mut news) = (old.from(prefix), new.from(prefix));
    let (mut a, mut b) = (within(olds.next())?, within(news.next())?);
    loop {
        cancel.check()?;
        let order = match (&a, &b) {
            (Some(a), Some(b)) => a.key.cmp(&b.key),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (None, None) => return Ok(()),
        };
        match order {
            std::cmp::Ordering::Less => show(Kind::Removed, a.as_ref(), None)?,
            std::cmp::Ordering::Greater => show(Kind::Added, None, b.as_ref())?,
            std::cmp::Ordering::Equal if a != b => show(Kind::Changed, a.as_ref(), b.as_ref())?,
            std::cmp::Ordering::Equal => {}
        }
        if order.is_le() {
            a = within(olds.next())?;
        }
        if order.is_ge() {
            b = within(news.next())?;
        }
    }
}
