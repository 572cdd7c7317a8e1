//! The local catalog as operations use it: best effort. Where it cannot be used, the work goes on and says so.

use crate::base::{Env, RegionId, RepoId, RunId};
use crate::catalog::{self, Catalog, CatalogError, RegionRef, SetAside, SnapshotLine};
use crate::error::{Error, Kind, Result};
use crate::format::run::Run;
use crate::policy::MAY_SHRINK;
use crate::region::{RegionSet, Regions, lock};
use crate::repo::view::View;
use crate::repo::{Repo, SMALL_OBJECT_BYTES_MAX};
use crate::store::{Key, Prefix};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// Runs that a new catalog reads back by itself; `catalog rebuild` reads all.
pub const RUNS_REFILLED_MAX: usize = 1000;

/// The catalog of one repository, or the reason why there is none.
pub struct Ledger {
    pub(super) env: Env,
    path: PathBuf,
    catalog: Mutex<Option<Catalog>>,
    /// What the regions know was never read into it.
    new: AtomicBool,
    said: Mutex<Vec<String>>,
}

impl Ledger {
    /// Opens or makes the catalog in the folder `state`.
    pub fn open(state: &Path, repo: &RepoId, env: &Env) -> Ledger {
        let path = catalog::path_of(state, repo);
        let ledger = Ledger {
            env: env.clone(),
            path,
            catalog: Mutex::default(),
            new: AtomicBool::new(false),
            said: Mutex::default(),
        };
        match Catalog::open_or_make(&ledger.path) {
            Ok((catalog, _, aside)) => ledger.begin(catalog, aside),
            Err(e) => ledger.say(format!("the catalog is not used: {e}")),
        }
        ledger
    }

    fn begin(&self, catalog: Catalog, aside: Option<SetAside>) {
        if let Some(SetAside { why, now }) = aside {
            self.say(format!(
                "the catalog could not be used ({why}); it is now {}, and a new one is made",
                now.display()
            ));
        }
        // Also one that another program made, and did not come to fill: it was killed, or had no key.
        let filled = catalog.is_filled();
        *lock(&self.catalog) = Some(catalog);
        self.new.fetch_or(!filled.unwrap_or(false), Ordering::Relaxed);
    }

    fn say(&self, what: String) {
        lock(&self.said).push(what);
    }

    /// What was to be said so far, once.
    pub fn remarks(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.said))
    }

    /// Runs `act`; in a new file, if the one in use turns out to be damaged. `None`: there is no catalog.
    pub fn with<T>(&self, act: impl Fn(&mut Catalog) -> catalog::Result<T>) -> Option<T> {
        let mut slot = lock(&self.catalog);
        let why = match act(slot.as_mut()?) {
            Ok(value) => return Some(value),
            Err(CatalogError::Damaged(why)) => why,
            Err(e) => {
                // Not asked again: each question may take seconds.
                *slot = None;
                self.say(format!("the catalog is not used: {e}"));
                return None;
            }
        };
        let replaced = slot.take()?.replace(&self.path, why);
        drop(slot);
        match replaced {
            Ok((catalog, aside)) => self.begin(catalog, aside),
            Err(e) => self.say(format!("the catalog is not used: {e}")),
        }
        let done = act(lock(&self.catalog).as_mut()?);
        done.map_err(|e| self.say(format!("the catalog is not used: {e}"))).ok()
    }

    /// Fills a new catalog from the regions. The `own` snapshots of the run at work are no news.
    pub fn refill(&self, repo: &Repo, own: usize) {
        if !self.new.swap(false, Ordering::Relaxed) {
            return;
        }
        let now = self.env.now().0;
        let filled = fill(repo, RUNS_REFILLED_MAX, |runs, view| {
            self.with(|catalog| keep(catalog, repo, runs, view, now));
        });
        match filled {
            // Nothing there can be verified.
            Ok(Filled { snapshots: 0, .. }) => {}
            Ok(Filled { runs: 0, snapshots, .. }) if snapshots <= own as u64 => {}
            Ok(filled) => self.say(format!(
                "the catalog was filled from the regions: {} runs, {} snapshots; `holdfast verify` tells it what is verified",
                filled.runs, filled.snapshots
            )),
            Err(e) => self.say(format!("the catalog could not be filled from the regions: {e}")),
        }
    }

    /// Reads everything back from the regions. Says what was found, and whether the catalog was made for it.
    ///
    /// # Errors
    /// What [`View::load`] refuses, or there is no catalog to be had.
    pub fn rebuild(&self, repo: &Repo) -> Result<(Filled, bool)> {
        let (mut kept, now) = (None, self.env.now().0);
        let filled = fill(repo, usize::MAX, |runs, view| {
            kept = self.with(|catalog| keep(catalog, repo, runs, view, now));
        })?;
        let new = self.new.swap(false, Ordering::Relaxed);
        kept.map(|()| (filled, new)).ok_or_else(|| {
            Error::new(Kind::Retry, self.remarks().pop().unwrap_or_else(|| "the catalog is not used".into()))
        })
    }

    /// Reads all snapshots again.
    pub fn resync(&self, repo: &Repo) {
        match View::load(repo) {
            Ok(view) => drop(self.with(|catalog| set_snapshots(catalog, repo, &view))),
            Err(e) => self.say(format!("the catalog misses snapshots: {e}")),
        }
    }
}

/// An error of the catalog where it is all that was asked for.
pub fn lift(e: &CatalogError) -> Error {
    let advice = "delete the file, or use --from-regions; `holdfast catalog rebuild` makes a new one";
    Error::new(Kind::Retry, format!("the catalog cannot be used: {e}")).advise(advice)
}

/// A catalog in memory that holds what the regions tell.
///
/// # Errors
/// What [`View::load`] refuses.
pub fn from_regions(repo: &Repo) -> Result<(Catalog, Filled)> {
    let mut catalog = Catalog::in_memory().map_err(|e| lift(&e))?;
    let mut kept = Ok(());
    let now = repo.env.now().0;
    let filled = fill(repo, usize::MAX, |runs, view| kept = keep(&mut catalog, repo, runs, view, now))?;
    kept.map_err(|e| lift(&e))?;
    Ok((catalog, filled))
}

/// A region by id and name; `None` before its mark was read.
pub fn region_ref(regions: &Regions, ix: usize) -> Option<RegionRef> {
    let id: RegionId = regions.region(ix).id?;
    Some(RegionRef { id, name: regions.region(ix).name.clone() })
}

fn looked_at(repo: &Repo) -> Vec<RegionRef> {
    repo.usable().iter().filter_map(|ix| region_ref(&repo.regions, ix)).collect()
}

fn lines(repo: &Repo, view: &View) -> Vec<SnapshotLine> {
    let one = |snapshot: &crate::repo::view::Snapshot| {
        let m = &snapshot.manifest;
        SnapshotLine {
            sid: m.sid,
            source: m.source.name.clone(),
            host: m.source.host.clone(),
            start: m.start,
            mode: m.mode.name().into(),
            files: m.counts.files,
            bytes: m.counts.bytes,
            errors: m.errors_total,
            accepted: m.tags.iter().any(|tag| tag == MAY_SHRINK),
            regions: snapshot.regions.iter().filter_map(|ix| region_ref(&repo.regions, ix)).collect(),
        }
    };
    view.snapshots.values().map(one).collect()
}

/// What was read back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Filled {
    /// Runs.
    pub runs: u64,
    /// Runs of which no region has an intact record.
    pub runs_lost: u64,
    /// Snapshots.
    pub snapshots: u64,
    /// Snapshots that no region could show intact.
    pub snapshots_lost: u64,
}

/// Reads the newest `runs_max` runs and all snapshots from the regions, and hands them on.
///
/// # Errors
/// What [`View::load`] refuses.
fn fill(repo: &Repo, runs_max: usize, mut take: impl FnMut(&[Run], &View)) -> Result<Filled> {
    let view = View::load(repo)?;
    let (runs, runs_lost) = runs(repo, runs_max);
    take(&runs, &view);
    Ok(Filled {
        runs: runs.len() as u64,
        runs_lost,
        snapshots: view.snapshots.len() as u64,
        snapshots_lost: view.damaged.len() as u64,
    })
}

/// Keeps what was read back.
///
/// # Errors
/// The catalog could not be written.
fn keep(catalog: &mut Catalog, repo: &Repo, runs: &[Run], view: &View, now: i64) -> catalog::Result<()> {
    catalog.put_runs(runs)?;
    set_snapshots(catalog, repo, view)?;
    catalog.mark_filled(now)
}

fn set_snapshots(catalog: &mut Catalog, repo: &Repo, view: &View) -> catalog::Result<()> {
    catalog.set_snapshots(&lines(repo, view), &looked_at(repo), &view.forgotten)
}

/// The newest records by the stores' time, and how many could not be read.
fn runs(repo: &Repo, most: usize) -> (Vec<Run>, u64) {
    let mut listed: BTreeMap<RunId, (i64, Vec<usize>)> = BTreeMap::new();
    for ix in repo.usable() {
        match repo.regions.list(ix, Prefix::Runs) {
            Ok(lines) => {
                for line in lines {
                    let Key::Run(id) = line.key else { continue };
                    let (modified, at) = listed.entry(id).or_insert((line.modified, Vec::new()));
                    *modified = line.modified.min(*modified);
                    at.push(ix);
                }
            }
            Err(e) => repo.regions.fail(ix, e),
        }
    }
    let mut newest: Vec<_> = listed.into_iter().collect();
    newest.sort_by_key(|(_, (modified, _))| std::cmp::Reverse(*modified));
    let mut found = Vec::new();
    let mut lost = 0;
    for (id, (_, at)) in newest.into_iter().take(most) {
        let key = Key::Run(id);
        let read = repo.regions.read(RegionSet::of(at), &key, SMALL_OBJECT_BYTES_MAX, |bytes| {
            let run: Run = repo.open_object(&key, bytes)?.decode("run")?;
            run.check(id).map(|()| run)
        });
        match read {
            Ok(run) => found.push(run),
            Err(_) => lost += 1,
        }
    }
    (found, lost)
}
