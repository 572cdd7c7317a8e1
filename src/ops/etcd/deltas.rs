//! The files of changes in a snapshot, read in their order: each must follow the one before.

use super::{BASE, CHAIN, CHANGES, CLUSTER, REVISION, WHOLE, label, number};
use crate::base::{Cancel, TimeMs};
use crate::chunk::Coder;
use crate::error::{Error, Kind, Result};
use crate::format::snapshot::Manifest;
use crate::format::tree::Entry;
use crate::ops::browse;
use crate::repo::reader::Reader;
use crate::repo::tree::DirReader;
use crate::source::etcd::kv::KeyValue;
use crate::source::etcd::rebuild::Change;
use crate::source::etcd::segment::{self, HASH_BYTES, Head, Segment};
use std::collections::{BTreeMap, HashSet, VecDeque};

/// A file of changes is believed up to this size.
const FILE_BYTES_MAX: u64 = 512 << 20;

fn shown(entry: &Entry) -> String {
    String::from_utf8_lossy(&entry.name).into_owned()
}

/// What files of changes say.
pub struct Known {
    /// Leases: id, and the seconds they were granted for last.
    pub leases: BTreeMap<i64, i64>,
    /// The last revision that was known at the time that was asked for, and when it was read.
    pub until: Option<(i64, TimeMs)>,
}

/// How far files of changes were followed: each must go on where the one before ended, and name its hash.
struct Chain {
    cluster: Option<u64>,
    /// The revision at which the next file begins, and the hash that it must name.
    at: Option<i64>,
    before: [u8; HASH_BYTES],
    /// The last revision and the hash of the last file, as the manifest of a delta has them.
    end: Option<(Option<i64>, String)>,
    /// The newest revision that is wanted, unless it is all.
    last: Option<i64>,
}

impl Chain {
    fn of(manifest: &Manifest) -> Chain {
        let cluster = label(manifest, CLUSTER).and_then(|id| u64::from_str_radix(id, 16).ok());
        // A snapshot that is whole itself has neither label.
        let at = number(manifest, BASE).or_else(|| number(manifest, REVISION));
        let end = label(manifest, CHAIN).map(|hash| (number(manifest, REVISION), hash.to_owned()));
        Chain { cluster, at, before: [0; HASH_BYTES], end, last: None }
    }

    /// Whether all that is wanted was there. The very last file is held to what the manifest says of it.
    fn is_enough(&self) -> bool {
        let end = self.end.as_ref().and_then(|(to, _)| *to);
        self.at != end && self.at.zip(self.last).is_some_and(|(at, last)| at >= last)
    }

    /// Goes on with a file of this hash.
    fn follow(&mut self, head: &Head, hash: [u8; HASH_BYTES]) -> Result<()> {
        if self.at.is_some_and(|at| at != head.after) {
            let at = self.at.unwrap_or_default();
            return Err(bad(format!("the changes have a gap: they follow revision {}, not {at}", head.after)));
        }
        if head.before != self.before {
            return Err(bad("the changes do not follow the file that is before them, but another one".into()));
        }
        if self.cluster.is_some_and(|cluster| cluster != head.cluster) {
            return Err(bad("the changes are of another cluster".into()));
        }
        (self.at, self.before) = (Some(head.to), hash);
        Ok(())
    }

    /// Whether the last file was the one that the manifest names.
    fn ends(&self) -> Result<()> {
        let Some((to, hash)) = &self.end else { return Ok(()) };
        let found = self.before.iter().map(|b| format!("{b:02x}")).collect::<String>();
        if self.at == *to && *hash == found {
            return Ok(());
        }
        if self.at == *to {
            return Err(bad("the snapshot's last changes are not those that it names".into()));
        }
        let [at, to] = [self.at, *to].map(Option::unwrap_or_default);
        let what = format!("they end at revision {at}, not {to}");
        if at > to {
            return Err(bad(format!("the snapshot has more changes than it names: {what}")));
        }
        Err(whole_up_to(bad(format!("the snapshot's last changes are missing: {what}")), self.at))
    }
}

fn bad(what: String) -> Error {
    Error::new(Kind::Damage, what)
}

/// What is damaged keeps nobody from what was there before.
fn whole_up_to(e: Error, revision: Option<i64>) -> Error {
    match revision.filter(|_| [Kind::Damage, Kind::NotFound].contains(&e.kind())) {
        Some(at) => e.advise_also(format!("restore --revision {at} gives the newest state that is whole")),
        None => e,
    }
}

/// The leases that changes up to a revision name, of a file that goes beyond it: what it says of others was so later. `None`
/// for all.
fn leases_up_to(segment: &Segment, last: Option<i64>) -> Result<Option<HashSet<i64>>> {
    let Some(last) = last.filter(|last| segment.head.to > *last) else { return Ok(None) };
    let mut named = HashSet::new();
    for change in segment.changes() {
        let change = change?;
        if change.revision.main <= last {
            let lease = KeyValue::decode(&change.message).map_err(|e| bad(e.to_string()))?.lease;
            named.insert(lease);
        }
    }
    Ok(Some(named))
}

/// The changes of a snapshot.
pub struct Deltas<'r> {
    reader: &'r Reader,
    cancel: &'r Cancel,
    files: VecDeque<Entry>,
    /// When all of the whole snapshot had been read.
    whole: TimeMs,
    chain: Chain,
    ready: VecDeque<Change>,
}

impl<'r> Deltas<'r> {
    /// Finds the files.
    ///
    /// # Errors
    /// No region has the directory intact.
    pub fn open(reader: &'r Reader, manifest: &Manifest, cancel: &'r Cancel) -> Result<Deltas<'r>> {
        let (mut coder, mut dir) = (Coder::default(), DirReader::new(reader, manifest.root.tree));
        let mut files = VecDeque::new();
        while let Some(entry) = dir.next(&mut coder)? {
            if entry.name.starts_with(CHANGES) {
                files.push_back(entry);
            }
        }
        let whole = TimeMs(number(manifest, WHOLE).unwrap_or(manifest.end));
        Ok(Deltas { reader, cancel, files, whole, chain: Chain::of(manifest), ready: VecDeque::new() })
    }

    /// Only as far as a revision, if one is named: a file that begins behind it is not read, whatever may be wrong with it.
    pub fn up_to(mut self, revision: Option<i64>) -> Deltas<'r> {
        self.chain.last = revision;
        self
    }

    fn read(&self, entry: &Entry) -> Result<(Segment, [u8; HASH_BYTES])> {
        if entry.size() > FILE_BYTES_MAX {
            return Err(bad("a file of changes is too large".into()));
        }
        let mut bytes = Vec::new();
        browse::cat(self.reader, entry, &mut bytes, self.cancel)?;
        let hash = segment::hash(&bytes);
        Ok((Segment::decode(bytes)?, hash))
    }

    /// The next file that is wanted, and its name.
    fn segment(&mut self) -> Result<Option<(Segment, String)>> {
        self.cancel.check()?;
        if self.chain.is_enough() {
            return Ok(None);
        }
        let Some(entry) = self.files.pop_front() else { return self.chain.ends().map(|()| None) };
        let (name, at) = (shown(&entry), self.chain.at);
        let read = self.read(&entry).and_then(|(segment, hash)| {
            self.chain.follow(&segment.head, hash)?;
            Ok(segment)
        });
        let segment = read.map_err(|e| whole_up_to(e.at(&name), at))?;
        Ok(Some((segment, name)))
    }

    /// What the files say that are wanted; and what was known at a time, if one is named. A clock may have been set back, so a
    /// file that was gathered later does not end it; what is damaged behind such a one does.
    ///
    /// # Errors
    /// A file is not intact in any region, or does not follow the one before; or nothing was known at that time.
    pub fn known(mut self, time: Option<TimeMs>) -> Result<Known> {
        let (whole, last) = (self.whole, self.chain.last);
        let is_later = |gathered: TimeMs| time.is_some_and(|time| time < gathered);
        let mut until = self.chain.at.map(|at| (at, whole)).filter(|_| !is_later(whole));
        // What files say that were gathered later counts if one behind them was not.
        let (mut leases, mut passed, mut has_passed) = (BTreeMap::new(), Vec::new(), is_later(whole));
        loop {
            let segment = match self.segment() {
                Ok(Some((segment, _))) => segment,
                Ok(None) => break,
                Err(e) if has_passed && [Kind::Damage, Kind::NotFound].contains(&e.kind()) => break,
                Err(e) => return Err(e),
            };
            let (to, gathered) = (segment.head.to, TimeMs(segment.head.time));
            let named = leases_up_to(&segment, last)?;
            // A lease that was granted again is what it was granted for last.
            passed.extend(segment.leases.into_iter().filter(|(id, _)| named.as_ref().is_none_or(|n| n.contains(id))));
            if is_later(gathered) {
                has_passed = true;
                continue;
            }
            leases.extend(std::mem::take(&mut passed));
            until = Some((to, gathered));
        }
        match (time, until) {
            (Some(time), None) => {
                let what = format!("the snapshot goes back to {}, not to {}", whole.rfc3339(), time.rfc3339());
                Err(Error::new(Kind::NotFound, what).advise("an older snapshot may have it"))
            }
            _ => Ok(Known { leases, until: until.filter(|_| time.is_some()) }),
        }
    }

    /// The last file alone, whatever the others say.
    ///
    /// # Errors
    /// It is not intact in any region.
    pub fn last(mut self) -> Result<Option<Segment>> {
        let Some(entry) = self.files.pop_back() else { return Ok(None) };
        self.read(&entry).map(|(segment, _)| Some(segment)).map_err(|e| e.at(shown(&entry)))
    }

    /// The next change.
    ///
    /// # Errors
    /// A file is not intact in any region, or does not follow the one before.
    pub fn next(&mut self) -> Result<Option<Change>> {
        while self.ready.is_empty() {
            let Some((segment, name)) = self.segment()? else { return Ok(None) };
            let changes = segment.changes().collect::<Result<_>>();
            self.ready = changes.map_err(|e| whole_up_to(e.at(name), Some(segment.head.after)))?;
        }
        Ok(self.ready.pop_front())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: u64 = 7;

    /// Files of these revisions behind revision 5, as they are written: what each says of itself, and its hash.
    fn files(ends: &[i64]) -> Vec<(Head, [u8; HASH_BYTES])> {
        let (mut after, mut before) = (5, [0; HASH_BYTES]);
        let file = |to: &i64| {
            let head = Head { cluster: CLUSTER, after, to: *to, before, time: 0 };
            (after, before) = (*to, [*to as u8; HASH_BYTES]);
            (head, before)
        };
        ends.iter().map(file).collect()
    }

    /// The chain of a snapshot that has three of them.
    fn chain() -> Chain {
        let end = Some((Some(9), "09".repeat(HASH_BYTES)));
        Chain { cluster: Some(CLUSTER), at: Some(5), before: [0; HASH_BYTES], end, last: None }
    }

    /// What is said of these files.
    fn followed(files: &[(Head, [u8; HASH_BYTES])]) -> Result<()> {
        let mut chain = chain();
        files.iter().try_for_each(|(head, hash)| chain.follow(head, *hash))?;
        chain.ends()
    }

    #[test]
    fn a_chain_with_a_gap_or_with_another_file_in_it_is_refused() {
        let all = files(&[6, 8, 9]);
        followed(&all).unwrap();
        let refused = |files: &[_], says: &str| {
            let error = followed(files).unwrap_err();
            assert!(error.kind() == Kind::Damage && error.what().contains(says), "{says}: {error}");
            error.advice().map(str::to_owned)
        };
        refused(&[all[0], all[2]], "a gap: they follow revision 8, not 6");
        refused(&[all[1], all[0], all[2]], "a gap: they follow revision 6, not 5");
        refused(&[all[0], all[1], all[1]], "a gap: they follow revision 6, not 8");
        // One of the same revisions that is not the one that was there.
        let other = (all[1].0, [77; HASH_BYTES]);
        refused(&[all[0], other, all[2]], "do not follow the file that is before them");
        refused(&[all[0], all[1], (all[2].0, [77; HASH_BYTES])], "are not those that it names");
        let strange = (Head { cluster: 8, ..all[1].0 }, all[1].1);
        refused(&[all[0], strange, all[2]], "of another cluster");
        let advice = refused(&all[..2], "last changes are missing: they end at revision 8, not 9");
        assert_eq!(advice.as_deref(), Some("restore --revision 8 gives the newest state that is whole"));
        refused(&[all, files(&[6, 8, 9, 11])[3..].to_vec()].concat(), "they end at revision 11, not 9");
    }

    #[test]
    fn no_file_is_wanted_behind_the_revision_that_is() {
        let all = files(&[6, 8, 9]);
        let wanted = |last: i64| {
            let mut chain = Chain { last: Some(last), ..chain() };
            let read = all.iter().take_while(|(head, hash)| !chain.is_enough() && chain.follow(head, *hash).is_ok());
            read.count()
        };
        assert_eq!([3, 5, 6, 7, 8, 9, 12].map(wanted), [0, 0, 1, 2, 2, 3, 3]);
        // Of the last one it is to be seen whether it is that of the manifest.
        let mut chain = Chain { last: Some(9), ..chain() };
        all.iter().for_each(|(head, hash)| chain.follow(head, *hash).unwrap());
        assert!(!chain.is_enough() && chain.ends().is_ok());
    }

    #[test]
    fn only_damage_names_what_was_whole_before() {
        let advice = |kind, at| whole_up_to(Error::new(kind, "why").advise("first"), at).advice().unwrap().to_owned();
        assert_eq!(advice(Kind::Damage, Some(8)), "first; restore --revision 8 gives the newest state that is whole");
        assert_eq!(advice(Kind::Retry, Some(8)), "first");
        assert_eq!(advice(Kind::Damage, None), "first");
    }
}
