//! Brings up regions that are behind, at the start of a backup: the quick form of [`replicate`](super::replicate).

use super::replicate::{self, Depth, Means, Pass, Wish};
use crate::base::Cancel;
use crate::error::Result;
use crate::region::RegionSet;
use crate::repo::Repo;
use crate::repo::view::View;
use std::sync::Arc;

/// What was copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CaughtUp {
    /// Objects.
    pub objects: u64,
    /// Bytes.
    pub bytes: u64,
    /// Snapshots that became visible in a further region.
    pub snapshots: u64,
    /// Regions that may be written and still lack a snapshot that another one shows.
    pub lacking: RegionSet,
}

impl CaughtUp {
    fn of(pass: &Pass) -> CaughtUp {
        let lacking = pass.lack.iter().enumerate().filter(|(_, lack)| lack.snapshots > 0);
        CaughtUp {
            objects: pass.moved.iter().map(|moved| moved.objects).sum(),
            bytes: pass.moved.iter().map(|moved| moved.bytes).sum(),
            snapshots: pass.snapshots,
            lacking: RegionSet::of(lacking.map(|(ix, _)| ix)),
        }
    }

    /// What was copied later counts too; what still lacks something is for the caller to say.
    pub(super) fn count(&mut self, later: CaughtUp) {
        self.objects += later.objects;
        self.bytes = self.bytes.saturating_add(later.bytes);
        self.snapshots += later.snapshots;
    }
}

fn wish(workers: usize, cancel: &Cancel) -> Wish<'_> {
    Wish { depth: Depth::Segments, targets: None, dry_run: false, means: Means { workers, progress: None, cancel } }
}

/// Brings every region that may be written up to the union of all.
///
/// # Errors
/// Interrupted. A region that fails is marked as such; an object that no region has intact is recorded.
pub fn run(repo: &Arc<Repo>, workers: usize, cancel: &Cancel) -> Result<CaughtUp> {
    replicate::pass(repo, wish(workers, cancel)).map(|pass| CaughtUp::of(&pass))
}

/// The same for regions that were left behind in the middle of a run: each pack is looked for.
///
/// # Errors
/// As [`run`].
pub fn packs(repo: &Arc<Repo>, workers: usize, cancel: &Cancel) -> Result<CaughtUp> {
    let wish = Wish { depth: Depth::Packs, ..wish(workers, cancel) };
    replicate::pass(repo, wish).map(|pass| CaughtUp::of(&pass))
}

/// As [`run`], with the snapshots that there are now: what was listed for the one is not listed again for the other.
///
/// # Errors
/// As [`run`], and what [`View::recall`] refuses.
pub fn with_view(repo: &Arc<Repo>, workers: usize, cancel: &Cancel) -> Result<(CaughtUp, View)> {
    let mut pass = replicate::pass(repo, wish(workers, cancel))?;
    let view = match pass.listing.take() {
        Some(listing) => View::recall_listed(repo, listing)?,
        None => View::recall(repo)?,
    };
    Ok((CaughtUp::of(&pass), view))
}

/// Brings every region the records of runs that another has. Apart, because nothing waits for them.
///
/// # Errors
/// Interrupted.
pub fn records(repo: &Arc<Repo>, workers: usize, cancel: &Cancel) -> Result<CaughtUp> {
    replicate::records(repo, wish(workers, cancel)).map(|pass| CaughtUp::of(&pass))
}
