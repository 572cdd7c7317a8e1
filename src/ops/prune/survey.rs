//! What is there, what is needed of it, and what may go: nothing is written for it.
//!
//! Listed in this order: packs, sessions, outcomes, index. So whoever made a pack that is listed is known by his session,
//! whoever's session has ended by his snapshot, and a snapshot's segments are there when the index is read.

use super::mark::{Marker, Marks, Stopped};
use super::orphans::{self, Orphans};
use super::pages::Pages;
use super::plan::{self, Counting, Line, Reason};
use super::roots::{Ask, Root, Roots, Stage};
use super::segments;
use super::sessions::Sessions;
use super::sweep::Sum;
use super::table::Table;
use super::{Report, Wish};
use crate::base::{PackName, SessionId};
use crate::error::{Error, Kind, Result};
use crate::region::RegionSet;
use crate::repo::Repo;
use crate::repo::epochs::Epochs;
use crate::repo::index::Index;
use crate::repo::reader::Reader;
use crate::repo::view;
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

/// What was found.
pub(super) struct Survey {
    pub(super) table: Table,
    pub(super) index: Arc<Index>,
    pub(super) roots: Roots,
    pub(super) sessions: Sessions,
    /// Sessions whose segments and packs are left alone.
    pub(super) busy: BTreeSet<SessionId>,
    pub(super) marks: Marks,
    pub(super) plan: Vec<Line>,
    left: u64,
    orphans: Orphans,
    /// Sessions at work.
    pub(super) at_work: u64,
}

/// Marks everything that these roots need. Pages are read by so many workers beside.
pub(super) fn walk(repo: &Repo, marker: &mut Marker<'_>, roots: &[&Root], workers: usize) -> Result<()> {
    std::thread::scope(|scope| {
        let pages = Pages::beside(scope, marker.reader, workers);
        let walking = Walking::of(marker, pages);
        walk_each(repo, &mut *walking.0, roots)
    })?;
    numbers_hold(&marker.reader.index)
}

/// Ends those who read pages, whatever ends the walk: they would be waited for.
struct Walking<'a, 'm>(&'a mut Marker<'m>);

impl<'a, 'm> Walking<'a, 'm> {
    fn of(marker: &'a mut Marker<'m>, pages: Pages<'m>) -> Self {
        marker.pages = pages;
        Walking(marker)
    }
}

impl Drop for Walking<'_, '_> {
    fn drop(&mut self) {
        self.0.pages.end();
    }
}

fn walk_each(repo: &Repo, marker: &mut Marker<'_>, roots: &[&Root]) -> Result<()> {
    for root in roots {
        let mut root = (*root).clone();
        while !root.regions.is_empty() {
            match marker.root(&root) {
                Ok(()) => break,
                // A region that lists an end at this key promised nothing.
                Err(Stopped::Lacks(ix, _)) if !view::shows_manifest(repo, root.sid, ix)? => {
                    root.regions = root.regions.without(ix);
                }
                Err(Stopped::Lacks(ix, id)) => {
                    let (region, sid) = (&repo.regions.region(ix).name, root.sid.short());
                    let what = format!("snapshot {sid} needs chunk {}, and no index names a pack with it", id.short());
                    return Err(Error::new(Kind::Damage, what)
                        .at(format!("region {region}"))
                        .advise("`holdfast replicate` may bring it from another region; nothing was removed"));
                }
                Err(Stopped::Failed(e)) if e.kind() == Kind::Cancelled => return Err(e),
                Err(Stopped::Failed(e)) => {
                    return Err(e
                        .at(format!("snapshot {}", root.sid.short()))
                        .advise("see `holdfast verify`; nothing was removed"));
                }
            }
        }
    }
    Ok(())
}

/// What is known of a chunk goes by its number in the index.
///
/// # Errors
/// The numbers are others since a local run turned out to be broken.
pub(super) fn numbers_hold(index: &Index) -> Result<()> {
    match index.numbers_hold() {
        true => Ok(()),
        false => Err(Error::new(Kind::Retry, "the local index broke while it was in use").advise("run again")),
    }
}

impl Survey {
    /// Looks at all members.
    ///
    /// # Errors
    /// Whatever keeps it from knowing all.
    pub(super) fn make(repo: &Arc<Repo>, epochs: &Epochs, members: RegionSet, wish: &Wish<'_>) -> Result<Survey> {
        let mut table = Table::list(repo, members)?;
        let patience = wish.patience();
        let mut sessions = Sessions::default();
        sessions.look(repo, members, patience.dead_after_ms)?;
        let at_work = sessions.at_work(repo.env.now(), patience.dead_after_ms);
        let roots =
            Roots::look(repo, epochs, &Ask { members, stage: Stage::Planned, last: wish.last, lost: wish.lost })?;
        let loaded = segments::load(repo, members, (wish.workers, wish.cancel))?;
        let index = Arc::clone(&loaded.index);
        let makers = sessions.busy(repo, &roots.ended, (repo.env.now(), patience.dead_after_ms))?;
        let busy: BTreeSet<SessionId> = makers.keys().copied().collect();
        table.add_index(repo, &index, &busy, epochs)?;
        loaded.hides_nothing(&table)?;
        let reader = Reader::new(Arc::clone(repo), Arc::clone(&index));
        let mut marks = Marks::new(index.entries_total());
        let mut counting = Counting::new(&table, members);
        let all: Vec<&Root> = roots.roots.iter().collect();
        walk(repo, &mut Marker::new(&reader, &table, &mut marks, &mut counting, wish.cancel), &all, wish.workers)?;
        let counted = counting.done();
        counted.enter(&mut table);
        let mut chosen: Vec<(u32, Reason)> = plan::dead(&table).map(|n| (n, Reason::Dead)).collect();
        let since = repo.env.now().0.saturating_sub(patience.dead_after_ms);
        let vanished = orphans::vanished((repo, members), &index, &table, since)?;
        let dead = |n: &u32| table.row(*n).is_some_and(|row| row.live == 0);
        chosen.extend(vanished.iter().copied().filter(dead).map(|n| (n, Reason::Dead)));
        chosen.extend(counted.further_copies(&table, &vanished).into_iter().map(|n| (n, Reason::Copy)));
        let going: HashSet<u32> = chosen.iter().map(|(n, _)| *n).collect();
        let oldest = makers.values().map(|open| open.since.0).min().unwrap_or(i64::MAX);
        let orphans = orphans::Means {
            repo,
            index: &index,
            table: &table,
            marks: &marks,
            members,
            going: &going,
            oldest,
            cancel: wish.cancel,
        }
        .judge()?;
        chosen.extend(orphans.go.iter().map(|n| (*n, Reason::Orphan)));
        let (plan, left) = plan::lines(&table, chosen);
        numbers_hold(&index)?;
        super::still_here(repo, members)?;
        let at_work = at_work.len() as u64;
        Ok(Survey { table, index, roots, sessions, busy, marks, plan, left, orphans, at_work })
    }

    /// What is to be condemned, in order.
    pub(super) fn condemned(&self) -> Vec<PackName> {
        self.plan.iter().map(|line| line.name).collect()
    }

    /// What of it is reported.
    pub(super) fn tell(&self, report: &mut Report) {
        report.snapshots = Some(self.roots.roots.len() as u64);
        report.forgotten = self.roots.gone.keys().copied().collect();
        (report.pages, report.chunks, report.at_work) = (self.marks.pages, self.marks.chunks, self.at_work);
        (report.left, report.alarms) = (self.left, self.roots.alarms.clone());
        report.orphans = [self.orphans.young, self.orphans.needed, self.orphans.unreadable];
        let going: HashSet<PackName> = self.plan.iter().map(|line| line.name).collect();
        let (mut kept, mut unused) = (Sum::default(), 0u64);
        for row in self.table.rows.iter().filter(|row| !row.doomed && !row.is_orphan() && !going.contains(&row.name)) {
            kept.add(row.size);
            unused = unused.saturating_add(row.unused());
        }
        (report.kept, report.unused) = (Some(kept), Some(unused));
        let again = self.table.rows.iter().filter(|row| row.doomed && !row.listed.is_empty());
        let again =
            again.map(|row| Line { name: row.name, size: row.size, reason: Reason::Again, regions: row.listed });
        report.plan = self.plan.iter().cloned().chain(again).collect();
        report.plan.sort_by_key(|line| line.name);
    }
}
