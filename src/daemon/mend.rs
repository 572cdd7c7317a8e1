//! Bringing up regions that are behind, beside the runs of policies: where the catalog knows of a backlog and the region
//! answers again, at most once in a while, and less often where nothing comes of it.

use super::run::Surroundings;
use crate::base::RepoId;
use crate::catalog::Copies;
use crate::error::{Exit, Result};
use crate::format::run::RunKind;
use crate::ops::ledger::{Ledger, region_ref};
use crate::ops::record::{Closing, Opening};
use crate::ops::replicate::{self, Depth, Means, Report, Wish};
use crate::policy::{Configuration, Repository};
use crate::repo::Repo;
use crate::source::files;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The longest wait between two looks at a repository whose last ones changed nothing, ms.
const WAIT_MS_MAX: i64 = 24 * 3_600_000;

/// When which repository is looked at next.
#[derive(Debug)]
pub struct Mender {
    every_ms: i64,
    waits: BTreeMap<String, Wait>,
    /// Repositories that were opened once: their catalogs are asked first.
    ids: BTreeMap<String, RepoId>,
}

#[derive(Debug, Clone, Copy)]
struct Wait {
    until: i64,
    ms: i64,
}

impl Mender {
    /// Looks at each repository at most so often.
    pub fn new(every_ms: i64) -> Mender {
        Mender { every_ms: every_ms.clamp(1, WAIT_MS_MAX), waits: BTreeMap::new(), ids: BTreeMap::new() }
    }

    /// The names of the repositories that are due at `now`, by the steady clock; a new one waits once.
    pub fn due<'n>(&mut self, names: impl Iterator<Item = &'n str>, now: i64) -> Vec<String> {
        let (mut due, names) = (Vec::new(), names.collect::<Vec<_>>());
        // One that the configuration names no more must not keep anybody awake.
        self.waits.retain(|name, _| names.contains(&name.as_str()));
        for name in names {
            let first = Wait { until: now.saturating_add(self.every_ms), ms: self.every_ms };
            if self.waits.entry(name.to_owned()).or_insert(first).until <= now {
                due.push(name.to_owned());
            }
        }
        due
    }

    /// Says whether anything came of a look, or nothing was to be done: if not, the next one waits twice as long.
    pub fn looked(&mut self, name: &str, well: bool, now: i64) {
        let every = self.every_ms;
        let wait = self.waits.entry(name.to_owned()).or_insert(Wait { until: now, ms: every });
        wait.ms = if well { every } else { wait.ms.saturating_mul(2).min(WAIT_MS_MAX) };
        wait.until = now.saturating_add(wait.ms);
    }

    /// How long nothing is due, ms.
    pub fn idle_ms(&self, now: i64) -> i64 {
        let next = self.waits.values().map(|wait| wait.until).min();
        next.map_or(self.every_ms, |next| next.saturating_sub(now)).clamp(1, self.every_ms)
    }

    /// Looks again and again until `around.cancel` is raised.
    pub fn run(&mut self, around: &Surroundings<'_>, configuration: &dyn Fn() -> Arc<Configuration>) {
        while !around.cancel.raised() {
            let configuration = configuration();
            let names = configuration.repositories().iter().map(|repository| repository.name().as_str());
            for name in self.due(names, around.env.steady()) {
                let Ok(repository) = configuration.repository(Some(&name)) else { continue };
                let well = match self.look(around, repository) {
                    Ok(None) => true,
                    Ok(Some(report)) => {
                        (around.say)(&told(&name, &report));
                        report.moved().objects > 0
                    }
                    Err(e) if e.exit() == Exit::Interrupted => return,
                    // Runs say the same, where it concerns them.
                    Err(_) => false,
                };
                self.looked(&name, well, around.env.steady());
            }
            let wait = self.idle_ms(around.env.steady());
            if around.cancel.wait(Duration::from_millis(wait.unsigned_abs())).is_err() {
                return;
            }
        }
    }

    /// Brings up a repository, if there is anything to bring.
    fn look(&mut self, around: &Surroundings<'_>, repository: &Repository) -> Result<Option<Report>> {
        let name = repository.name().to_string();
        let asked = self.ids.get(&name).map(|id| Ledger::open(around.state, id, around.env));
        if repository.regions().len() < 2 || asked.is_some_and(|ledger| !may_be_behind(&ledger, repository)) {
            return Ok(None);
        }
        let repo = (around.open)(repository, repository.copies_min())?;
        self.ids.insert(name, repo.id);
        bring_up(around, &repo)
    }
}

fn told(name: &str, report: &Report) -> String {
    let moved = report.moved();
    let behind: Vec<String> = report.behind().iter().map(|(region, why)| format!("{region}: {why}")).collect();
    let rest = if behind.is_empty() { "all regions are complete".to_owned() } else { behind.join("; ") };
    let findings = report.findings.len();
    let found = if findings > 0 { format!("; {findings} damaged or missing objects") } else { String::new() };
    format!(
        "{name}: brought up regions that were behind: {} objects, {} bytes; {rest}{found}",
        moved.objects, moved.bytes
    )
}

/// Whether a region lacks snapshots by what the catalog knows, whether it answers or not.
fn may_be_behind(ledger: &Ledger, repository: &Repository) -> bool {
    let sources = ledger.with(|catalog| catalog.source_snapshots(i64::MAX)).unwrap_or_default();
    sources.iter().any(|source| {
        repository.regions().iter().any(|region| {
            let of = |copies: &&Copies| copies.region.name == region.name.as_str();
            // One that was replaced has its old id there, too.
            source.copies.iter().filter(of).map(|copies| copies.snapshots).min().unwrap_or(0) < source.snapshots
        })
    })
}

fn bring_up(around: &Surroundings<'_>, repo: &Arc<Repo>) -> Result<Option<Report>> {
    let ledger = Ledger::open(around.state, &repo.id, around.env);
    ledger.refill(repo, 0);
    if !is_behind(&ledger, repo) {
        return Ok(None);
    }
    let means = Means { workers: around.workers, progress: None, cancel: around.cancel };
    let wish = Wish { depth: Depth::Packs, targets: None, dry_run: false, means };
    let opening =
        Opening { kind: RunKind::Replicate, repo: Some(repo), host: files::hostname(), closing: Closing::default() };
    let end = |report: &Report, closing: Closing| (closing.replicate(report), report.exit());
    let (report, _) = opening.run(&ledger, || replicate::run(repo, wish), end);
    ledger.remarks().iter().for_each(|what| (around.say)(what));
    report.map(Some)
}

/// Whether a region that may be written now lacks snapshots by what the catalog knows.
fn is_behind(ledger: &Ledger, repo: &Repo) -> bool {
    let sources = ledger.with(|catalog| catalog.source_snapshots(i64::MAX)).unwrap_or_default();
    let writable: Vec<_> = repo.writable().iter().filter_map(|ix| region_ref(&repo.regions, ix)).collect();
    sources.iter().any(|source| {
        writable.iter().any(|region| {
            let held = source.copies.iter().find(|copies| copies.region.id == region.id).map_or(0, |c| c.snapshots);
            held < source.snapshots
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_come_at_most_so_often_and_less_often_where_nothing_comes_of_them() {
        let mut mender = Mender::new(1000);
        let names = || ["a", "b"].into_iter();
        assert!(mender.due(names(), 0).is_empty());
        assert!(mender.due(names(), 999).is_empty());
        assert_eq!(mender.due(names(), 1000), ["a", "b"]);
        mender.looked("a", true, 1000);
        mender.looked("b", false, 1000);
        assert_eq!((mender.due(names(), 2000), mender.idle_ms(2000)), (vec!["a".to_owned()], 1));
        mender.looked("a", true, 2000);
        assert_eq!(mender.due(names(), 3000), ["a", "b"]);
        let mut now = 3000;
        for _ in 0..40 {
            mender.looked("b", false, now);
            assert!(mender.waits["b"].until - now <= WAIT_MS_MAX);
            now = mender.waits["b"].until;
        }
        mender.looked("b", true, now);
        assert_eq!(mender.waits["b"].until - now, 1000);
    }
}
