//! Keys of a snapshot back into a living cluster, one by one: nothing that is there is overwritten unless that is wanted,
//! and nothing at all that somebody else changes meanwhile.

use super::Keys;
use crate::base::Cancel;
use crate::error::{Error, Kind, Result};
use crate::source::etcd::cluster::{Address, Before, Cluster};
use crate::source::etcd::grpc::Means;
use crate::source::etcd::keys::Line;

/// Keys that are shown by name.
const SHOWN_MAX: usize = 1000;

/// What to put back, and how.
pub struct PutBack {
    /// The members.
    pub address: Address,
    /// How they are spoken to.
    pub means: Means,
    /// Keys that begin so.
    pub prefix: Vec<u8>,
    /// Whether keys that are there with another value get the old one.
    pub overwrite: bool,
    /// Whether to look only.
    pub dry_run: bool,
}

/// What became of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It was not there, and is now.
    Put,
    /// It had another value, and has this one now.
    Overwritten,
    /// It is there with this value.
    Same,
    /// It is there with another value, and was left.
    Differs,
    /// Somebody changed it meanwhile, and it was left.
    Changed,
    /// It had a lease, which ends with its owner: it was left.
    Leased,
}

impl Fate {
    /// All of them.
    pub const ALL: [Fate; 6] = [Fate::Put, Fate::Overwritten, Fate::Same, Fate::Differs, Fate::Changed, Fate::Leased];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Fate::Put => "put",
            Fate::Overwritten => "overwritten",
            Fate::Same => "same",
            Fate::Differs => "differs",
            Fate::Changed => "changed",
            Fate::Leased => "leased",
        }
    }

    /// Whether the cluster has the snapshot's value now.
    pub fn is_good(self) -> bool {
        matches!(self, Fate::Put | Fate::Overwritten | Fate::Same)
    }
}

/// What was done.
#[derive(Debug, Default)]
pub struct PutReport {
    /// How many keys had each fate, in the order of [`Fate::ALL`].
    pub counts: [u64; Fate::ALL.len()],
    /// The first of those that were not the same before.
    pub keys: Vec<(Vec<u8>, Fate)>,
}

impl PutReport {
    fn add(&mut self, key: &[u8], fate: Fate) {
        for (count, _) in self.counts.iter_mut().zip(Fate::ALL).filter(|(_, of)| *of == fate) {
            *count += 1;
        }
        if fate != Fate::Same && self.keys.len() < SHOWN_MAX {
            self.keys.push((key.to_vec(), fate));
        }
    }

    /// Whether the cluster has all values of the snapshot now.
    pub fn is_whole(&self) -> bool {
        self.counts.iter().zip(Fate::ALL).all(|(count, fate)| *count == 0 || fate.is_good())
    }
}

/// Puts keys back.
///
/// # Errors
/// No member answers, no region has a value intact, or there is no such key in the snapshot.
pub fn put_back(keys: &Keys<'_>, request: &PutBack, cancel: &Cancel) -> Result<PutReport> {
    let cluster = Cluster::connect(&request.address, &request.means, &Before::default(), cancel)?;
    let mut report = PutReport::default();
    keys.each(&request.prefix, cancel, &mut |line| {
        let fate = one(keys, &cluster, request, line, cancel)?;
        report.add(&line.key, fate);
        Ok(true)
    })?;
    if report.counts.iter().all(|count| *count == 0) {
        let what = "no key of the snapshot begins so";
        return Err(Error::new(Kind::NotFound, what).advise("see `holdfast ls SNAPSHOT:PREFIX`"));
    }
    Ok(report)
}

fn one(keys: &Keys<'_>, cluster: &Cluster, request: &PutBack, line: &Line, cancel: &Cancel) -> Result<Fate> {
    if line.lease != 0 {
        return Ok(Fate::Leased);
    }
    let value = keys.value(line)?;
    let held = cluster.get(&line.key, cancel)?;
    let (fate, modified) = match &held {
        None => (Fate::Put, 0),
        Some((found, _)) if *found == value => return Ok(Fate::Same),
        Some((_, modified)) if request.overwrite => (Fate::Overwritten, *modified),
        Some(_) => return Ok(Fate::Differs),
    };
    let put = request.dry_run || cluster.put(&line.key, &value, modified, cancel)?;
    Ok(if put { fate } else { Fate::Changed })
}
