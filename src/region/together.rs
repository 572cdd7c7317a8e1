//! The same call made of several regions at once, and how long those are waited for that are slower than enough others.

use super::{RegionSet, Regions, lock};
use crate::error::{Error, Kind, Result};
use crate::store::{Key, Listed, Prefix};
use bytes::Bytes;
use futures_util::future::try_join_all;
use futures_util::stream::{self, FuturesUnordered, StreamExt};
use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// It is waited at least so long for any of them each time, so that one whose time is over is not given up for nothing.
const SLACK: Duration = Duration::from_millis(50);
/// So many objects are read at a time.
const READS_MAX: usize = 16;

/// What each region lists, in the order of the regions; without those that could not be listed.
pub type Lists = Vec<(usize, Vec<Listed>)>;

/// Keys, with the regions that list them.
pub fn by_key(lists: &Lists) -> BTreeMap<Key, RegionSet> {
    let mut found: BTreeMap<Key, RegionSet> = BTreeMap::new();
    for (ix, lines) in lists {
        for line in lines {
            let at = found.entry(line.key).or_default();
            *at = at.with(*ix);
        }
    }
    found
}

/// While it lives, no region is waited for long that is slower than enough others.
pub struct Hurry<'r>(&'r Regions);

impl Drop for Hurry<'_> {
    fn drop(&mut self) {
        self.0.haste.end();
    }
}

impl Regions {
    /// From now on no region is waited for long that is slower than `needed` others: what it lacks is brought to it
    /// another time.
    pub fn hurry(&self, needed: usize) -> Hurry<'_> {
        self.haste.begin(Instant::now(), needed);
        Hurry(self)
    }

    /// Lists several prefixes in several regions, all at once: which of them is listed first is not said. A region that
    /// cannot be listed is marked as failed, and in none of the lists.
    pub fn list_several<const N: usize>(&self, among: RegionSet, prefixes: [Prefix; N]) -> [Lists; N] {
        let each = |ix| try_join_all(prefixes.map(|prefix| self.list_one(ix, prefix)));
        let mut answers = self.handle.block_on(self.together(among, each));
        answers.sort_by_key(|(ix, _)| *ix);
        let mut lists = [const { Lists::new() }; N];
        for (ix, answer) in answers {
            match answer {
                Ok(all) => lists.iter_mut().zip(all).for_each(|(list, lines)| list.push((ix, lines))),
                Err(e) => self.fail(ix, e),
            }
        }
        lists
    }

    /// Lists several prefixes of one region at once. That they cannot be listed is the caller's to judge: the region is not
    /// marked as failed.
    ///
    /// # Errors
    /// One of the listings is incomplete.
    pub fn list_at(&self, ix: usize, prefixes: impl IntoIterator<Item = Prefix>) -> Result<Vec<Listed>> {
        let each = prefixes.into_iter().map(|prefix| self.list_one(ix, prefix));
        let lists = self.handle.block_on(try_join_all(each))?;
        Ok(lists.into_iter().flatten().collect())
    }

    /// Reads whole objects of regions side by side, unchecked; what became of each, in their order.
    pub fn get_several(&self, wanted: &[(usize, Key)], len_max: u64) -> Vec<Result<Bytes>> {
        let wanted: Vec<(usize, Key, u64)> = wanted.iter().map(|(ix, key)| (*ix, *key, len_max)).collect();
        self.get_sized(&wanted)
    }

    /// The same, each no longer than is said with it.
    pub fn get_sized(&self, wanted: &[(usize, Key, u64)]) -> Vec<Result<Bytes>> {
        let get = |(ix, key, len_max): (usize, Key, u64)| async move {
            let read = async { self.store(ix)?.get(&key, len_max).await.map_err(|e| e.lift().at(self.label(ix))) };
            self.unless_dropped(ix, read).await
        };
        let all = stream::iter(wanted.iter().copied().map(get)).buffered(READS_MAX).collect();
        let read: Vec<Result<Bytes>> = self.handle.block_on(all);
        for ((ix, ..), bytes) in wanted.iter().zip(&read) {
            bytes.iter().for_each(|bytes| self.slowed(*ix, bytes.len()));
        }
        read
    }

    /// Whether a region can be done without: enough others can still take everything, and one of them may decide.
    fn spare(&self, ix: usize) -> bool {
        let left = self.writable().without(ix);
        let decides = left.iter().any(|other| !self.is_weak(other));
        decides && self.haste.needed().is_some_and(|needed| left.count() >= needed)
    }

    /// Ends the waiting for a region in this run: whatever is under way to it is given up. One that is needed after all,
    /// for another one has failed meanwhile, is waited for.
    pub(super) fn drop_behind(&self, ix: usize) {
        let _alone = lock(&self.haste.giving_up);
        if !self.spare(ix) {
            return;
        }
        let waited = self.haste.held(ix).as_secs_f64();
        let what = format!("fell behind: the run waited {waited:.1} s for it alone, and goes on without it");
        let mut failed = lock(&self.all[ix].failed);
        if failed.is_none() {
            *failed = Some(Error::new(Kind::Retry, what).at(self.label(ix)));
            self.all[ix].dropped.send_replace(true);
        }
    }

    /// Waits again for those that were left behind, with full patience, and says which they are. What was under way to them
    /// when they were given up is not taken for done. Those that failed otherwise stay as they are.
    pub fn take_back(&self) -> RegionSet {
        let _alone = lock(&self.haste.giving_up);
        self.haste.end();
        let left = RegionSet::of((0..self.all.len()).filter(|ix| *self.all[*ix].dropped.borrow()));
        let slow = |ix: &usize| lock(&self.all[*ix].failed).take_if(|e| e.kind() == Kind::Retry).is_some();
        let back = RegionSet::of(left.iter().filter(slow));
        back.iter().for_each(|ix| _ = self.all[ix].dropped.send_replace(false));
        back
    }

    /// The result of a call, or an error once its region is not waited for any more.
    pub(super) async fn unless_dropped<T>(&self, ix: usize, call: impl Future<Output = Result<T>>) -> Result<T> {
        let mut dropped = self.all[ix].dropped.subscribe();
        tokio::select! {
            biased;
            done = call => done,
            // The sender lives as long as the region.
            _ = dropped.wait_for(|dropped| *dropped) => Err(self.unreachable(ix)),
        }
    }

    /// Makes a call of each region at once. Where as many as are needed have done well, the others are waited for only as
    /// long as they may hold the run up.
    pub(super) async fn together<T, F>(&self, among: RegionSet, call: impl Fn(usize) -> F) -> Vec<(usize, Result<T>)>
    where
        F: Future<Output = Result<T>>,
    {
        let mut waiting = RegionSet::of(among.iter().filter(|ix| *ix < self.all.len()));
        let one = |ix| {
            let call = call(ix);
            async move { (ix, self.unless_dropped(ix, call).await) }
        };
        let mut calls: FuturesUnordered<_> = waiting.iter().map(one).collect();
        let (mut done, mut well, mut since) = (Vec::new(), RegionSet::NONE, None);
        while !waiting.is_empty() {
            // One that failed elsewhere meanwhile has nothing complete.
            since = match self.haste.needed() {
                Some(needed) if well.and(self.healthy()).count() >= needed => since.or_else(|| Some(Instant::now())),
                _ => None,
            };
            let next = match since {
                Some(since) => timeout(self.least_left(waiting, since), calls.next()).await,
                None => Ok(calls.next().await),
            };
            match next {
                Ok(Some((ix, result))) => {
                    waiting = waiting.without(ix);
                    well = if result.is_ok() { well.with(ix) } else { well };
                    if let Some(since) = since {
                        self.haste.hold(ix, since.elapsed());
                    }
                    done.push((ix, result));
                }
                Ok(None) => break,
                Err(_) => self.drop_slowest(waiting, since),
            }
        }
        done
    }

    /// How long it may still be waited for the first of these to be given up.
    fn least_left(&self, waiting: RegionSet, since: Instant) -> Duration {
        let now = Instant::now();
        let spare = waiting.iter().filter(|ix| self.spare(*ix));
        let left = spare.map(|ix| self.haste.left(ix, now)).min().unwrap_or(Duration::MAX);
        left.max(SLACK).saturating_sub(now.saturating_duration_since(since))
    }

    /// Gives those up whose time is over.
    fn drop_slowest(&self, waiting: RegionSet, since: Option<Instant>) {
        let (now, waited) = (Instant::now(), since.map(|since| since.elapsed()).unwrap_or_default());
        for ix in waiting.iter().filter(|ix| self.haste.left(*ix, now).max(SLACK) <= waited) {
            self.haste.hold(ix, waited);
            self.drop_behind(ix);
        }
    }
}
