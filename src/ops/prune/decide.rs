//! Marking again, once nobody can rest on what is condemned without knowing it: what of it is doomed.

use super::Wish;
use super::mark::{Judge, Marker, Marks};
use super::plan::{Line, Reason};
use super::roots::{Root, Roots};
use super::segments;
use super::survey::{Survey, walk};
use super::table::{Row, Table};
use crate::base::{PackName, SessionId};
use crate::error::Result;
use crate::region::RegionSet;
use crate::repo::Repo;
use crate::repo::epochs::Epochs;
use crate::repo::index::{Index, Located};
use crate::repo::reader::Reader;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// The index and the packs by which it was decided.
enum World<'w> {
    Surveyed(&'w Survey),
    Looked(Box<(Table, Arc<Index>)>),
}

/// What was decided.
pub(super) struct Decided<'w> {
    /// In order.
    pub(super) doomed: Vec<PackName>,
    /// Condemned, and needed after all.
    pub(super) spared: Vec<PackName>,
    world: World<'w>,
}

impl<'w> Decided<'w> {
    /// Nothing was to be decided.
    pub(super) fn nothing(survey: &'w Survey) -> Decided<'w> {
        Decided { doomed: Vec::new(), spared: Vec::new(), world: World::Surveyed(survey) }
    }

    fn table(&self) -> &Table {
        match &self.world {
            World::Surveyed(survey) => &survey.table,
            World::Looked(world) => &world.0,
        }
    }

    pub(super) fn index(&self) -> &Index {
        match &self.world {
            World::Surveyed(survey) => &survey.index,
            World::Looked(world) => &world.1,
        }
    }

    /// What goes of an epoch that somebody else began.
    pub(super) fn lines(&self, epochs: &Epochs) -> Vec<Line> {
        let doomed: HashSet<PackName> = self.doomed.iter().copied().chain(epochs.doomed()).collect();
        self.listed(&doomed, &[])
    }

    /// Doomed packs that some member lists, each with the reason that the plan has for it.
    pub(super) fn listed(&self, doomed: &HashSet<PackName>, plan: &[Line]) -> Vec<Line> {
        let reasons: HashMap<PackName, Reason> = plan.iter().map(|line| (line.name, line.reason)).collect();
        let guess = |row: &Row| match (row.doomed, row.is_orphan()) {
            (true, _) => Reason::Again,
            (false, true) => Reason::Orphan,
            (false, false) => Reason::Dead,
        };
        let line = |row: &Row| Line {
            name: row.name,
            size: row.size,
            reason: reasons.get(&row.name).copied().unwrap_or_else(|| guess(row)),
            regions: row.listed,
        };
        let goes = |row: &&Row| doomed.contains(&row.name) && !row.listed.is_empty();
        self.table().rows.iter().filter(goes).map(line).collect()
    }
}

/// Spares what is needed and not whole elsewhere.
struct Sparing<'s> {
    table: &'s Table,
    members: RegionSet,
    condemned: Vec<bool>,
    spared: BTreeSet<u32>,
}

impl Judge for Sparing<'_> {
    fn needed(&mut self, _: &[Located], copies: &[(u32, RegionSet)]) {
        let condemned = |n: u32| self.condemned.get(n as usize) == Some(&true);
        let stays = |copy: &(u32, RegionSet)| !condemned(copy.0) && self.table.is_full(*copy, self.members);
        if !copies.iter().any(|(n, _)| condemned(*n)) || copies.iter().any(stays) {
            return;
        }
        let needed: Vec<u32> = copies.iter().map(|(n, _)| *n).filter(|n| condemned(*n)).collect();
        self.spared.extend(needed);
    }
}

/// Marks from the roots as they are now. Of those from which the list was made, with as many regions, it is known.
///
/// # Errors
/// As for the survey.
pub(super) fn decide<'w>(
    repo: &Arc<Repo>,
    epochs: &Epochs,
    members: RegionSet,
    roots: &Roots,
    survey: Option<&'w Survey>,
    wish: &Wish<'_>,
) -> Result<Decided<'w>> {
    let mut condemned: Vec<PackName> = epochs.undecided().into_iter().collect();
    condemned.sort_unstable();
    // What it took for a copy that stays may be none by now.
    let survey = survey.filter(|survey| survey.table.knows_disputed(epochs));
    let known: BTreeMap<SessionId, RegionSet> =
        survey.iter().flat_map(|survey| &survey.roots.roots).map(|root| (root.sid, root.regions)).collect();
    let is_new = |root: &&Root| known.get(&root.sid).is_none_or(|regions| !regions.covers(root.regions));
    let new: Vec<&Root> = roots.roots.iter().filter(is_new).collect();
    if let (Some(survey), true) = (survey, new.is_empty()) {
        return Ok(Decided { doomed: condemned, spared: Vec::new(), world: World::Surveyed(survey) });
    }
    let mut table = Table::list(repo, members)?;
    let loaded = segments::load(repo, members, (wish.workers, wish.cancel))?;
    let index = Arc::clone(&loaded.index);
    table.add_index(repo, &index, &BTreeSet::new(), epochs)?;
    loaded.hides_nothing(&table)?;
    let list: HashSet<PackName> = condemned.iter().copied().collect();
    let mut sparing = Sparing {
        table: &table,
        members,
        condemned: table.rows.iter().map(|row| list.contains(&row.name)).collect(),
        spared: BTreeSet::new(),
    };
    let reader = Reader::new(Arc::clone(repo), Arc::clone(&index));
    let mut marks = Marks::new(index.entries_total());
    walk(repo, &mut Marker::new(&reader, &table, &mut marks, &mut sparing, wish.cancel), &new, wish.workers)?;
    let spared: Vec<PackName> = sparing.spared.iter().filter_map(|n| table.row(*n).map(|row| row.name)).collect();
    let lives: HashSet<&PackName> = spared.iter().collect();
    condemned.retain(|pack| !lives.contains(pack));
    Ok(Decided { doomed: condemned, spared, world: World::Looked(Box::new((table, index))) })
}
