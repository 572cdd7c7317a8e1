//! Regions that show less than they did: what this machine's catalog knows them to have had, and what was not forgotten,
//! must still be there. One region alone that was set back consistently convicts itself no other way.

use super::ledger::{Ledger, region_ref};
use crate::base::SessionId;
use crate::repo::Repo;
use crate::repo::view::View;
use std::collections::BTreeMap;

/// So many of the newest snapshots are asked for.
const SNAPSHOTS_MAX: usize = 10_000;

/// A line for each region that shows snapshots no more that it had.
pub fn regions(repo: &Repo, view: &View, ledger: &Ledger) -> Vec<String> {
    let known = ledger.with(|catalog| catalog.snapshots(None, SNAPSHOTS_MAX)).map(|(lines, _)| lines);
    let usable: Vec<_> = repo.usable().iter().filter_map(|ix| Some((ix, region_ref(&repo.regions, ix)?))).collect();
    let mut gone: BTreeMap<usize, Vec<SessionId>> = BTreeMap::new();
    for line in known.into_iter().flatten() {
        // What cannot be read is damaged, and said to be so.
        if view.forgotten.contains(&line.sid) || view.ended.contains(&line.sid) || view.damaged.contains_key(&line.sid)
        {
            continue;
        }
        let shown = view.snapshots.get(&line.sid).map(|snapshot| snapshot.regions).unwrap_or_default();
        for (ix, region) in usable.iter().filter(|(ix, _)| !shown.has(*ix)) {
            // Known by its id alone: a region that was made anew is another one, under the same name.
            if line.regions.iter().any(|had| had.id == region.id) {
                gone.entry(*ix).or_default().push(line.sid);
            }
        }
    }
    let say = |(ix, sids): (usize, Vec<SessionId>)| {
        let newest = sids.first().map(SessionId::short).unwrap_or_default();
        format!(
            "region {} went back in time, or lost them: it shows {} snapshots no more that it had, the newest {newest}",
            repo.regions.region(ix).name,
            sids.len()
        )
    };
    gone.into_iter().map(say).collect()
}
