//! The trees of several snapshots, walked as one.
//!
//! At every path each page that several trees share is read once, whatever pages its neighbours are in, and entries that
//! are equal are told of once, with the trees that have them. Entries come in the order of their names, what is below a
//! directory after it. With [`Walk::differences`] nothing is read that all trees share.
//!
//! Memory: of each open directory the pages that are being read, which are as many as its versions differ, and the names
//! of pages to come.

use crate::base::{Cancel, ChunkId};
use crate::chunk::Coder;
use crate::error::{Error, Kind, Result};
use crate::format::tree::{Entry, EntryType, PAGE_DEPTH_MAX, Page};
use crate::repo::reader::Reader;
use crate::repo::tree::check_depth;
use std::collections::{BTreeMap, VecDeque};

/// Some of the trees that are walked, by their numbers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trees(Vec<u64>);

impl Trees {
    /// One of them.
    pub fn one(number: usize) -> Trees {
        let mut words = vec![0; number / 64 + 1];
        words[number / 64] = 1 << (number % 64);
        Trees(words)
    }

    /// Those of the first so many.
    pub fn first(count: usize) -> Trees {
        (0..count).fold(Trees::default(), |all, number| all.and(&Trees::one(number)))
    }

    /// These and those.
    #[must_use]
    pub fn and(mut self, other: &Trees) -> Trees {
        self.0.resize(self.0.len().max(other.0.len()), 0);
        self.0.iter_mut().zip(&other.0).for_each(|(word, more)| *word |= more);
        self
    }

    /// Whether this one is among them.
    pub fn has(&self, number: usize) -> bool {
        self.0.get(number / 64).is_some_and(|word| word >> (number % 64) & 1 == 1)
    }

    /// Their numbers.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.0.len() * 64).filter(|number| self.has(*number))
    }
}

/// One of the different entries that a path has.
#[derive(Debug)]
pub struct Version {
    /// The entry.
    pub entry: Entry,
    /// The trees that have it.
    pub trees: Trees,
}

/// Who is told what a walk meets.
pub trait Visitor {
    /// A path, with its versions.
    ///
    /// # Errors
    /// Ends the walk.
    fn path(&mut self, path: &[u8], versions: &[Version]) -> Result<()>;

    /// A part of a directory that no region has intact, in these trees.
    fn lost(&mut self, path: &[u8], trees: &Trees, why: &Error);
}

/// What is walked.
pub struct Walk<'w> {
    reader: &'w Reader,
    cancel: &'w Cancel,
    coder: Coder,
    /// All trees, if what they all share is not of interest.
    shared_by: Option<Trees>,
    /// Entries still allowed: directories that share pages could make any number of few.
    entries_left: u64,
    /// Pages that were read.
    pub pages: u64,
}

/// Where a page stands: after everything with a smaller name, after the pages above it.
type PageKey = (Vec<u8>, u8, ChunkId);

/// A directory that is being walked.
struct Dir {
    path_len: usize,
    pending: BTreeMap<PageKey, Trees>,
    open: Vec<Leaf>,
    /// The name that was told last.
    last: Option<Vec<u8>>,
}

/// A page of entries.
struct Leaf {
    entries: VecDeque<Entry>,
    trees: Trees,
}

impl Dir {
    fn new(path_len: usize, roots: BTreeMap<ChunkId, Trees>) -> Dir {
        let pending = roots.into_iter().map(|(page, trees)| ((Vec::new(), 0, page), trees)).collect();
        Dir { path_len, pending, open: Vec::new(), last: None }
    }

    /// The name that comes next on a page that is open.
    fn next_name(&self) -> Option<&[u8]> {
        self.open.iter().filter_map(|leaf| leaf.entries.front().map(|entry| &entry.name[..])).min()
    }

    /// Takes the page that must be read before the next name is known.
    fn next_page(&mut self) -> Option<(PageKey, Trees)> {
        let first = self.pending.first_key_value()?;
        if self.next_name().is_some_and(|name| name < &first.0.0[..]) { None } else { self.pending.pop_first() }
    }

    /// Takes all entries of the next name, equal ones together.
    fn next_versions(&mut self) -> Option<Vec<Version>> {
        let name = self.next_name()?.to_vec();
        let mut versions: Vec<Version> = Vec::new();
        for leaf in &mut self.open {
            if leaf.entries.front().is_none_or(|entry| entry.name[..] != name[..]) {
                continue;
            }
            let Some(entry) = leaf.entries.pop_front() else { continue };
            match versions.iter_mut().find(|version| version.entry == entry) {
                Some(known) => known.trees = std::mem::take(&mut known.trees).and(&leaf.trees),
                None => versions.push(Version { entry, trees: leaf.trees.clone() }),
            }
        }
        self.open.retain(|leaf| !leaf.entries.is_empty());
        self.last = Some(name);
        Some(versions)
    }
}

impl<'w> Walk<'w> {
    /// Everything, once. There are at most `entries` of all trees together.
    pub fn everything(reader: &'w Reader, entries: u64, cancel: &'w Cancel) -> Walk<'w> {
        Walk { reader, cancel, coder: Coder::default(), shared_by: None, entries_left: entries, pages: 0 }
    }

    /// Only what is not the same in both of two trees.
    pub fn differences(reader: &'w Reader, entries: u64, cancel: &'w Cancel) -> Walk<'w> {
        Walk { shared_by: Some(Trees::first(2)), ..Walk::everything(reader, entries, cancel) }
    }

    /// Walks what is below the directories `roots`, each the root of the tree of its number.
    ///
    /// # Errors
    /// The visitor's, or interrupted.
    pub fn run<'e>(&mut self, roots: impl Iterator<Item = &'e Entry>, visitor: &mut dyn Visitor) -> Result<()> {
        let roots = roots.enumerate().filter_map(|(number, root)| Some((root.tree?, Trees::one(number))));
        let mut path = Vec::new();
        let mut stack = vec![Dir::new(0, self.wanted(roots))];
        while let Some(dir) = stack.last_mut() {
            self.cancel.check()?;
            path.truncate(dir.path_len);
            while let Some((key, trees)) = dir.next_page() {
                if let Err(e) = self.page(dir, key, &trees) {
                    visitor.lost(&path, &trees, &e);
                }
            }
            let Some(versions) = dir.next_versions() else {
                stack.pop();
                continue;
            };
            self.entries_left = self
                .entries_left
                .checked_sub(1)
                .ok_or_else(|| Error::new(Kind::Damage, "the snapshots have more entries than their manifests say"))?;
            let Some(name) = versions.first().map(|version| version.entry.name.clone()) else { continue };
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(&name);
            visitor.path(&path, &versions)?;
            let below = versions.iter().filter(|version| version.entry.kind == EntryType::Dir);
            let below = below.filter_map(|version| Some((version.entry.tree?, version.trees.clone())));
            let below = self.wanted(below);
            if !below.is_empty() {
                check_depth(stack.len())?;
                stack.push(Dir::new(path.len(), below));
            }
        }
        Ok(())
    }

    /// Directories by their root pages, without those that are not of interest.
    fn wanted(&self, roots: impl Iterator<Item = (ChunkId, Trees)>) -> BTreeMap<ChunkId, Trees> {
        let mut found: BTreeMap<ChunkId, Trees> = BTreeMap::new();
        for (page, trees) in roots {
            let known = found.entry(page).or_default();
            *known = std::mem::take(known).and(&trees);
        }
        found.retain(|_, trees| !self.is_shared(trees));
        found
    }

    fn is_shared(&self, trees: &Trees) -> bool {
        self.shared_by.as_ref() == Some(trees)
    }

    /// Reads a page: its entries are open then, its children are pending.
    fn page(&mut self, dir: &mut Dir, (first, rank, id): PageKey, trees: &Trees) -> Result<()> {
        const ORDER: &str = "tree pages out of order";
        if self.is_shared(trees) {
            return Ok(());
        }
        let bytes = self.reader.chunk(&id, &mut self.coder)?;
        self.pages += 1;
        let page = Page::decode(&bytes).map_err(crate::region::lift)?;
        // A page that is no root has the name and the level that the page above it says.
        let level = PAGE_DEPTH_MAX.saturating_sub(page.level);
        if level < rank {
            return Err(Error::new(Kind::Damage, "tree page of a wrong level"));
        }
        // Every name comes once, so that no page comes for ever.
        let fits = |name: &[u8]| (rank == 0 || name == first) && dir.last.as_deref().is_none_or(|last| last < name);
        match (page.entries, page.children) {
            (Some(entries), _) if entries.first().is_some_and(|entry| fits(&entry.name)) => {
                dir.open.push(Leaf { entries: entries.into(), trees: trees.clone() });
            }
            (None, Some(children)) if children.first().is_some_and(|child| fits(&child.first)) => {
                for child in children {
                    let key = (child.first.to_vec(), level + 1, child.page);
                    let known = dir.pending.entry(key).or_default();
                    *known = std::mem::take(known).and(trees);
                }
            }
            _ => return Err(Error::new(Kind::Damage, ORDER)),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_of_trees_are_equal_whatever_they_were_made_of() {
        let mut some = Trees::one(3).and(&Trees::one(130));
        assert_eq!(some.iter().collect::<Vec<_>>(), [3, 130]);
        some = some.and(&Trees::one(0));
        assert!(some.has(0) && some.has(130) && !some.has(64) && !some.has(1000));
        assert_eq!(Trees::first(2), Trees::one(1).and(&Trees::one(0)));
    }
}
