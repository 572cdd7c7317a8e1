//! The files of changes in a snapshot, read in their order: each must follow the one before.

use super::{BASE, CHANGES, CLUSTER, label, number};
use crate::base::Cancel;
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

/// The changes of a snapshot.
pub struct Deltas<'r> {
    reader: &'r Reader,
    cancel: &'r Cancel,
    files: VecDeque<Entry>,
    cluster: Option<u64>,
    /// The revision at which the next file begins, and the hash that it must name.
    at: Option<i64>,
    before: [u8; HASH_BYTES],
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
        let (at, before) = (number(manifest, BASE), [0; HASH_BYTES]);
        Ok(Deltas { reader, cancel, files, cluster, at, before, ready: VecDeque::new() })
    }

    /// The next file.
    fn segment(&mut self) -> Result<Option<Segment>> {
        self.cancel.check()?;
        let Some(entry) = self.files.pop_front() else { return Ok(None) };
        let shown = String::from_utf8_lossy(&entry.name).into_owned();
        let bad = |what: String| Error::new(Kind::Damage, what).at(&shown);
        if entry.size() > FILE_BYTES_MAX {
            return Err(bad("a file of changes is too large".into()));
        }
        let mut bytes = Vec::new();
        browse::cat(self.reader, &entry, &mut bytes, self.cancel)?;
        let hash = segment::hash(&bytes);
        let segment = Segment::decode(bytes).map_err(|e| e.at(&shown))?;
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

    /// The leases of all files, which are read to their end.
    ///
    /// # Errors
    /// A file is not intact in any region, or does not follow the one before.
    pub fn leases(mut self) -> Result<BTreeMap<i64, i64>> {
        let mut leases = BTreeMap::new();
        while let Some(segment) = self.segment()? {
            leases.extend(segment.leases);
        }
        Ok(leases)
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
