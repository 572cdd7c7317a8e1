//! What the regions hold together: whether they are copies of one repository, and whether its rules can be kept.

use super::check::{Check, Grade};
use super::store::CLOCK_BAD_MS;
use super::{Region, Wish};
use crate::base::{Place, RepoId, units};
use crate::error::{Error, Kind};
use crate::ops::membership;
use crate::region::Regions;
use crate::repo::Repo;
use crate::repo::keys;
use crate::repo::members;
use crate::repo::open::{self, Opening};
use crate::repo::view::View;
use crate::store::{Ground, Meter};
use std::path::Path;

/// What was found.
#[derive(Debug, Default)]
pub struct Findings {
    /// The repository, if there is one.
    pub id: Option<RepoId>,
    /// What concerns no single region.
    pub checks: Vec<Check>,
    /// Why the key that was given does not open it.
    pub locked: Option<Error>,
}

/// Looks at what the regions hold, and adds to their answers what each of them holds.
pub(super) fn look(
    opening: &Opening<'_>,
    wish: &Wish<'_>,
    regions: &mut [Region],
    meter: &dyn Fn(Vec<(String, Meter)>),
) -> Findings {
    let mut found = Findings::default();
    match open::mark(opening) {
        Ok(marked) => {
            meter(marked.regions.meters());
            found.id = Some(marked.id);
            match wish.secret {
                Some(secret) => match open::open(opening, secret) {
                    Ok(repo) => {
                        meter(repo.regions.meters());
                        opened(&repo, regions, &mut found);
                    }
                    Err(e) => refused(e, &marked.regions, regions, &mut found),
                },
                None => {
                    held(&marked.regions, regions);
                    let says = "not looked at: no key was given";
                    found.checks.push(
                        Check::note("keys", says)
                            .advise("with a key, history, members and key slots are looked at too"),
                    );
                }
            }
        }
        Err(e) if e.kind() == Kind::NoRepository => {
            found.checks.push(Check::note("repository", "there is none yet").advise("`holdfast init` creates it"));
        }
        // What kept the stores from answering is said of each of them.
        Err(e) if regions.iter().all(|region| region.grade() == Grade::Bad) => {
            found.checks.push(Check::of("repository", Grade::Note, &e));
        }
        Err(e) => found.checks.push(damaged(Check::of("repository", Grade::Bad, &e), &e)),
    }
    found.checks.extend(copies(opening.copies_min, regions));
    found.checks.extend(clocks(regions));
    found.checks.extend(apart(regions));
    found.checks.push(state(wish.state));
    found
}

fn damaged(check: Check, e: &Error) -> Check {
    match e.kind() {
        Kind::Damage | Kind::Foreign => check.damage(),
        _ => check,
    }
}

/// The key does not open it; what can be seen without is said all the same.
fn refused(e: Error, marked: &Regions, regions: &mut [Region], found: &mut Findings) {
    held(marked, regions);
    found.checks.push(damaged(Check::of("keys", Grade::Bad, &e), &e));
    found.locked = Some(e);
}

/// Says of each region what it holds.
fn held(all: &Regions, regions: &mut [Region]) {
    const NAME: &str = "copy";
    for (ix, region) in regions.iter_mut().enumerate().take(all.len()) {
        let usable = region.grade() != Grade::Bad;
        let check = match (all.failure(ix), all.region(ix).id) {
            (Some(e), _) if e.kind() == Kind::NoRepository || e.kind() == Kind::NotFound => {
                Check::bad(NAME, "the repository is not here, though other regions have it").advise(
                    "is the disk mounted, the URL right? `holdfast region repair --emptied` fills one that lost all",
                )
            }
            // Why it cannot be asked was said already.
            (Some(e), _) if !usable && !matches!(e.kind(), Kind::Damage | Kind::Foreign | Kind::Newer) => continue,
            (Some(e), _) => damaged(Check::of(NAME, Grade::Bad, &e), &e),
            (None, Some(id)) => Check::good(NAME, format!("holds the repository, as region {}", id.short())),
            (None, None) => continue,
        };
        region.checks.push(check);
    }
}

fn opened(repo: &Repo, regions: &mut [Region], found: &mut Findings) {
    held(&repo.regions, regions);
    found.checks.push(history(repo, regions));
    found.checks.push(home(repo));
    found.checks.extend(members(repo));
    found.checks.push(slots(repo));
    if let Err(e) = repo.may_write() {
        found.checks.push(Check::of("format", Grade::Bad, &e));
    }
    for finding in repo.findings() {
        if let Some(region) = regions.iter_mut().find(|region| region.name == finding.region) {
            let says = format!("{}: {}", finding.object, finding.what);
            region.checks.push(
                Check::warning("objects", says)
                    .advise("`holdfast verify --repair` mends what another region has whole")
                    .damage(),
            );
        }
    }
}

/// Whether anything has gone back in time.
fn history(repo: &Repo, regions: &mut [Region]) -> Check {
    const NAME: &str = "history";
    let view = match View::load(repo) {
        Ok(view) => view,
        Err(e) => return damaged(Check::of(NAME, Grade::Bad, &e), &e),
    };
    for (ix, region) in regions.iter_mut().enumerate().filter(|(ix, _)| repo.usable().has(*ix)) {
        let lacks = view.snapshots.values().filter(|snapshot| !snapshot.regions.has(ix)).count() as u64;
        if lacks > 0 {
            let says =
                format!("lacks {} of {} snapshots", units::count(lacks), units::count(view.snapshots.len() as u64));
            region.checks.push(
                Check::warning("snapshots", says)
                    .advise("`holdfast replicate` brings them there, and so does the next backup"),
            );
        }
    }
    let count = units::count(view.snapshots.len() as u64);
    match view.lost.as_slice() {
        [] if !view.damaged.is_empty() => {
            Check::bad(NAME, format!("{} of the snapshots are damaged in every region", view.damaged.len())).damage()
        }
        [] => Check::good(NAME, format!("snapshots: {count}; nothing that they vouch for is missing")),
        [first, rest @ ..] => Check::bad(NAME, format!("{first} (and {} more)", rest.len()))
            .advise("it was deleted or rolled back in every region that can be read: look for another copy first")
            .damage(),
    }
}

/// The region in which what must happen once is decided.
fn home(repo: &Repo) -> Check {
    const NAME: &str = "decision";
    let first =
        repo.writable().iter().find(|ix| !repo.regions.is_weak(*ix)).map(|ix| repo.regions.region(ix).name.clone());
    let decides = first
        .map_or_else(|| "no region takes a backup".to_owned(), |name| format!("backups are decided in region {name}"));
    let Some(member) = repo.epochs().members().first() else {
        return Check::bad(NAME, "no region shows a valid epoch, so nothing can be written").damage();
    };
    let home = repo.writable().iter().find(|ix| repo.regions.region(*ix).id == Some(member.id));
    match home {
        Some(ix) => Check::good(NAME, format!("{decides}, changes of keys in region {}", repo.regions.region(ix).name)),
        None => Check::warning(
            NAME,
            format!("{decides}; region {}, in which changes of keys are, cannot be written", member.name),
        )
        .advise("bring it back before keys or regions are changed; backups go on"),
    }
}

/// Regions of the repository that nobody configured, and a change of them that is not over.
fn members(repo: &Repo) -> Vec<Check> {
    const NAME: &str = "members";
    let mut checks = Vec::new();
    let unnamed = members::unnamed(repo, repo.epochs());
    if !unnamed.is_empty() {
        let names: Vec<&str> = unnamed.iter().map(|member| member.name.as_str()).collect();
        let says = format!("the repository has regions that are not configured here: {}", names.join(", "));
        checks.push(Check::warning(NAME, says).advise("name every region: what is written here is missing there"));
    }
    if !membership::list(repo).decided {
        let says = "a change of the regions is at work, or was cut off";
        checks.push(Check::warning(NAME, says).advise("if nothing is at work, begin that change again: it goes on"));
    }
    checks
}

fn slots(repo: &Repo) -> Check {
    const NAME: &str = "keys";
    let slots = keys::list(repo);
    let mut kinds: Vec<&str> = slots.iter().map(|slot| slot.kind).collect();
    kinds.sort_unstable();
    let says = format!(
        "{}: {}",
        if slots.len() == 1 { "one key opens it".into() } else { format!("{} keys open it", slots.len()) },
        kinds.join(", ")
    );
    let recovery = crate::format::slot::SlotKind::Recovery.name();
    match (kinds.contains(&recovery), slots.len()) {
        (true, 2..) => Check::good(NAME, says),
        (true, _) => Check::note(NAME, says),
        (false, _) => Check::warning(NAME, format!("{says}; none is a recovery key"))
            .advise("`holdfast key add --new-recovery-key`: who loses every other secret has lost the backups"),
    }
}

/// Whether enough copies can be made.
fn copies(copies_min: usize, regions: &[Region]) -> Option<Check> {
    const NAME: &str = "copies";
    let all = regions.len();
    if all == 0 {
        return None;
    }
    let usable = regions.iter().filter(|region| region.grade() != Grade::Bad).count();
    let fit = regions.iter().filter(|region| region.takes()).count();
    let says = format!("{copies_min} asked for, {fit} of {all} regions can take one");
    Some(match () {
        () if fit == 0 && usable >= copies_min => {
            Check::note(NAME, "these credentials may read only: no backup can be made with them")
        }
        () if fit < copies_min => Check::bad(NAME, says).advise("every backup fails until enough regions can be used"),
        () if all == 1 => Check::warning(NAME, says).advise("one copy is lost with its place: add a region"),
        () if fit == copies_min => Check::note(NAME, format!("{says}: none of them may be away"))
            .advise("with one more region a backup does not need all of them"),
        () => Check::good(NAME, says),
    })
}

/// Whether the regions agree on the time.
fn clocks(regions: &[Region]) -> Option<Check> {
    const NAME: &str = "clocks";
    let told: Vec<(&str, i64)> = regions.iter().filter_map(|r| Some((r.name.as_str(), r.clock_ms()?))).collect();
    let (last, first) = (told.iter().max_by_key(|(_, ms)| *ms)?, told.iter().min_by_key(|(_, ms)| *ms)?);
    let apart = last.1.saturating_sub(first.1);
    if told.len() < 2 {
        return None;
    }
    Some(match apart < CLOCK_BAD_MS {
        true => Check::good(NAME, "the regions' clocks agree"),
        false => {
            let words = units::duration_ms(apart.unsigned_abs());
            Check::warning(
                NAME,
                format!(
                    "those of regions {} and {} are {words} apart: the earliest time of a snapshot counts",
                    last.0, first.0
                ),
            )
            .advise("keep them set, by NTP")
        }
    })
}

/// Regions that would be lost together.
fn apart(regions: &[Region]) -> Vec<Check> {
    let mut checks = Vec::new();
    for (n, one) in regions.iter().enumerate() {
        for other in regions.iter().skip(n + 1) {
            let same = match (&one.place, &other.place) {
                (Place::Folder(_), Place::Folder(_)) => {
                    let device = |r: &Region| r.examined.ground.as_ref().map(|ground| ground.device);
                    (device(one).is_some() && device(one) == device(other)).then_some("on one file system")
                }
                (Place::Bucket(a), Place::Bucket(b)) => {
                    let endpoint = |r: &Region| r.examined.transport.clone();
                    (a.name == b.name && endpoint(one) == endpoint(other)).then_some("in one bucket")
                }
                _ => None,
            };
            if let Some(where_) = same {
                let says = format!("regions {} and {} are {where_}, and are lost together", one.name, other.name);
                checks.push(Check::warning("apart", says).advise("put them in different places"));
            }
        }
    }
    checks
}

/// Whether this machine can remember what it knows.
fn state(state: Option<&Path>) -> Check {
    const NAME: &str = "state";
    use rustix::fs::{Access, access};
    let Some(path) = state else {
        return Check::warning(NAME, "there is no folder for what this machine knows").advise("use --state DIR");
    };
    let shown = path.display();
    let there = path.ancestors().find(|above| above.exists()).filter(|above| above.is_dir());
    let writable = there.is_some_and(|folder| access(folder, Access::WRITE_OK | Access::EXEC_OK).is_ok());
    if !writable {
        return Check::warning(NAME, format!("{shown} cannot be written: every run reads all from the regions"))
            .advise("use --state DIR, or give this user the right to it");
    }
    let free =
        Ground::below(path).map(|ground| format!(", {} free", units::bytes(ground.free_bytes))).unwrap_or_default();
    Check::good(NAME, format!("{shown}{free}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Creates, Examined};

    fn region(name: &str, ahead_ms: i64) -> Region {
        let create = Some(Ok(Creates { winners: 1, replaced: false }));
        let examined = Examined { ahead_ms: Some((ahead_ms, ahead_ms + 1)), create, ..Examined::default() };
        Region { name: name.into(), place: format!("/nowhere/{name}").into(), examined, checks: Vec::new() }
    }

    #[test]
    fn clocks_that_differ_are_named() {
        let agree = clocks(&[region("a", 2000), region("b", -2000)]).unwrap();
        assert_eq!(agree.grade, Grade::Good);
        let apart = clocks(&[region("a", 200_000), region("b", 0), region("c", -200_000)]).unwrap();
        assert!(apart.grade == Grade::Warning && apart.says.contains("regions a and c"), "{apart:?}");
        assert_eq!(clocks(&[region("a", 0)]), None);
    }

    #[test]
    fn copies_that_cannot_be_made() {
        let grade = |copies_min, regions: &[Region]| copies(copies_min, regions).unwrap().grade;
        let mut three = [region("a", 0), region("b", 0), region("c", 0)];
        assert_eq!(
            (grade(2, &three), grade(3, &three), grade(1, &three[..1])),
            (Grade::Good, Grade::Note, Grade::Warning)
        );
        three[0].checks.push(Check::bad("reachable", "no"));
        assert_eq!((grade(2, &three), grade(3, &three)), (Grade::Note, Grade::Bad));
    }

    #[test]
    fn a_state_folder_that_cannot_be_made() {
        assert_eq!(state(None).grade, Grade::Warning);
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(state(Some(&dir.path().join("not/yet"))).grade, Grade::Good);
        std::fs::write(dir.path().join("file"), b"").unwrap();
        assert_eq!(state(Some(&dir.path().join("file/state"))).grade, Grade::Warning);
    }
}
