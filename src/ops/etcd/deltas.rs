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
use crate::source::etcd::rebuild::Change;
use crate::source::etcd::segment::{self, HASH_BYTES, Segment};
use std::collections::{BTreeMap, VecDeque};

/// A file of changes is believed up to this size.
const FILE_BYTES_MAX: u64 = 512 << 20;

fn shown(entry: &Entry) -> String {
    String::from_utf8_lossy(&entry.name).into_owned()
}

/// What files of changes say.
pub struct Known {
    /// Leases: id, and the seconds they were granted for.
    pub leases: BTreeMap<i64, i64>,
    /// The last revision that was known at the time that was asked for, and when it was read.
    pub until: Option<(i64, TimeMs)>,
}

/// The changes of a snapshot.
pub struct Deltas<'r> {
    reader: &'r Reader,
    cancel: &'r Cancel,
    files: VecDeque<Entry>,
    cluster: Option<u64>,
    /// When all of the whole snapshot had been read.
    whole: TimeMs,
    /// The revision at which the next file begins, and the hash that it must name.
    at: Option<i64>,
    before: [u8; HASH_BYTES],
    /// The last revision and the hash of the last file, as the manifest of a delta has them.
    end: Option<(Option<i64>, String)>,
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
        let cluster = label(manifest, CLUSTER).and_then(|id| u64::from_str_radix(id, 16).ok());
        // A snapshot that is whole itself has neither label.
        let at = number(manifest, BASE).or_else(|| number(manifest, REVISION));
        let end = label(manifest, CHAIN).map(|hash| (number(manifest, REVISION), hash.to_owned()));
        let whole = TimeMs(number(manifest, WHOLE).unwrap_or(manifest.end));
        Ok(Deltas { reader, cancel, files, cluster, whole, at, before: [0; HASH_BYTES], end, ready: VecDeque::new() })
    }

    fn read(&self, entry: &Entry) -> Result<(Segment, [u8; HASH_BYTES])> {
        if entry.size() > FILE_BYTES_MAX {
            return Err(Error::new(Kind::Damage, "a file of changes is too large").at(shown(entry)));
        }
        let mut bytes = Vec::new();
        browse::cat(self.reader, entry, &mut bytes, self.cancel)?;
        let hash = segment::hash(&bytes);
        Ok((Segment::decode(bytes).map_err(|e| e.at(shown(entry)))?, hash))
    }

    /// Whether the last file was the one that the manifest names.
    fn ends(&self) -> Result<()> {
        let found = self.before.iter().map(|b| format!("{b:02x}")).collect::<String>();
        match &self.end {
            Some((to, hash)) if self.at != *to || *hash != found => {
                Err(Error::new(Kind::Damage, "the snapshot's last changes are missing"))
            }
            _ => Ok(()),
        }
    }

    /// The next file.
    fn segment(&mut self) -> Result<Option<Segment>> {
        self.cancel.check()?;
        let Some(entry) = self.files.pop_front() else { return self.ends().map(|()| None) };
        let bad = |what: String| Error::new(Kind::Damage, what).at(shown(&entry));
        let (segment, hash) = self.read(&entry)?;
        if self.at.is_some_and(|at| at != segment.head.after) || segment.head.before != self.before {
            let at = self.at.unwrap_or_default();
            return Err(bad(format!("the changes have a gap: they follow revision {}, not {at}", segment.head.after)));
        }
        if self.cluster.is_some_and(|cluster| cluster != segment.head.cluster) {
            return Err(bad("the changes are of another cluster".into()));
        }
        (self.at, self.before) = (Some(segment.head.to), hash);
        Ok(Some(segment))
    }

    /// What all files say, which are read to their end; and what was known at a time, if one is named.
    ///
    /// # Errors
    /// A file is not intact in any region, or does not follow the one before; or the time is before all of them.
    pub fn known(mut self, time: Option<TimeMs>) -> Result<Known> {
        let mut leases = BTreeMap::new();
        let whole = self.whole;
        let mut until = self.at.map(|at| (at, whole)).filter(|_| time.is_some_and(|time| whole <= time));
        while let Some(segment) = self.segment()? {
            leases.extend(segment.leases);
            let gathered = TimeMs(segment.head.time);
            if time.is_some_and(|time| gathered <= time) {
                until = Some((segment.head.to, gathered));
            }
        }
        if let (Some(time), None) = (time, until) {
            let what = format!("the snapshot goes back to {}, not to {}", whole.rfc3339(), time.rfc3339());
            return Err(Error::new(Kind::NotFound, what).advise("an older snapshot may have it"));
        }
        Ok(Known { leases, until })
    }

    /// The last file alone, whatever the others say.
    ///
    /// # Errors
    /// It is not intact in any region.
    pub fn last(mut self) -> Result<Option<Segment>> {
        self.files.pop_back().map(|entry| self.read(&entry).map(|(segment, _)| segment)).transpose()
    }

    /// The next change.
    ///
    /// # Errors
    /// A file is not intact in any region, or does not follow the one before.
    pub fn next(&mut self) -> Result<Option<Change>> {
        while self.ready.is_empty() {
            let Some(segment) = self.segment()? else { return Ok(None) };
            self.ready = segment.changes().collect::<Result<_>>()?;
        }
        Ok(self.ready.pop_front())
    }
}
