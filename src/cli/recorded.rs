//! A verb whose run is recorded, whatever its end.

use super::common::Context;
use super::output::remark;
use crate::base::RepoId;
use crate::error::{Exit, Result};
use crate::format::run::RunKind;
use crate::ops::ledger::Ledger;
use crate::ops::record::{Closed, Closing, Opening};
use crate::repo::Repo;
use crate::source::files;

/// What is known when it begins.
pub struct Recorded<'r> {
    pub kind: RunKind,
    /// Without it the run is recorded in the catalog alone.
    pub repo: Option<&'r Repo>,
    pub id: RepoId,
    pub opening: Closing,
}

impl Recorded<'_> {
    /// Runs `act` with the catalog, and records how it ended; `end` says what it did. Without `keep` nothing is
    /// recorded.
    pub fn run<T>(
        self,
        context: &Context,
        keep: bool,
        act: impl FnOnce(Option<&Ledger>) -> Result<T>,
        end: impl FnOnce(&T, Closing) -> (Closing, Exit),
    ) -> Result<(T, Option<Closed>)> {
        if !keep {
            return Ok((act(None)?, None));
        }
        let ledger = Ledger::open(&context.state()?, &self.id, &context.env);
        let opening = Opening { kind: self.kind, repo: self.repo, host: files::hostname(), closing: self.opening };
        let (done, closed) = opening.run(&ledger, || act(Some(&ledger)), end);
        let index = self.repo.and_then(Repo::index_cache).map(|cache| cache.remarks()).unwrap_or_default();
        ledger.remarks().iter().chain(&index).for_each(|what| remark(&format!("warning: {what}")));
        if !context.global.quiet {
            for (region, why) in closed.iter().flat_map(|closed| &closed.missed) {
                remark(&format!("warning: region {region} has no record of this run: {why}"));
            }
        }
        Ok((done?, closed))
    }
}
