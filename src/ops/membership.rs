//! Which regions a repository has: listing, adding, removing, and bringing one forward that lost what it had.
//!
//! A region is filled before it becomes a member, and a member that goes is emptied of what it alone has before it
//! is none any more. The change itself is an epoch (`repo::members`). All members must answer: otherwise one that is away
//! could miss two changes, and look as if it had been rolled back.

use super::replicate::{self, Depth, Means, Report, Wish};
use crate::base::{Epoch, RegionId};
use crate::error::{Error, Kind, Result};
use crate::format::objects::Member;
use crate::region::{Flaw, RegionSet};
use crate::repo::Repo;
use crate::repo::epochs::Epochs;
use crate::repo::members::{self, place_of};
use crate::repo::view::{self, View};
use crate::store::Key;
use std::sync::Arc;

/// A member and what is seen of it.
#[derive(Debug, Clone)]
pub struct MemberInfo {
    /// As the newest epoch names it.
    pub member: Member,
    /// Whether numbered series are decided there.
    pub home: bool,
    /// The configured region that shows its id, if one does.
    pub region: Option<String>,
    /// Why it is not written now; `None` if it is.
    pub why: Option<String>,
}

/// A configured region that is no member.
#[derive(Debug, Clone)]
pub struct Outsider {
    /// Its name in the configuration.
    pub region: String,
    /// Its id, if it shows one.
    pub id: Option<RegionId>,
    /// Why it is not used.
    pub why: String,
}

/// All regions.
#[derive(Debug, Clone)]
pub struct Membership {
    /// The newest epoch.
    pub epoch: Epoch,
    /// Whether it is decided: if not, a change was cut off, or is at work.
    pub decided: bool,
    /// The first one is home.
    pub members: Vec<MemberInfo>,
    /// Configured regions that are no members.
    pub outsiders: Vec<Outsider>,
}

/// What is known of the members.
pub fn list(repo: &Repo) -> Membership {
    let epochs = repo.epochs_since(repo.epochs());
    let regions = &repo.regions;
    let unnamed = members::unnamed(repo, &epochs);
    let info = |(n, member): (usize, &Member)| {
        let ix = (0..regions.len()).find(|ix| regions.region(*ix).id == Some(member.id));
        let why = match ix {
            Some(ix) => regions.failure(ix).map(|e| e.to_string()),
            None if unnamed.contains(member) => Some("this configuration does not name it".to_owned()),
            None => Some("no configured region shows its mark now".to_owned()),
        };
        let region = ix.map(|ix| regions.region(ix).name.clone());
        MemberInfo { member: member.clone(), home: n == 0, region, why }
    };
    let is_member = |id: RegionId| epochs.members().iter().any(|member| member.id == id);
    let outsider = |ix: usize| {
        let (region, failure) = (regions.region(ix), regions.failure(ix));
        let outside = region.id.is_none_or(|id| !is_member(id));
        outside.then(|| Outsider {
            region: region.name.clone(),
            id: region.id,
            why: failure.map_or_else(|| "is no member".to_owned(), |e| e.to_string()),
        })
    };
    Membership {
        epoch: epochs.newest(),
        decided: epochs.unended().is_none(),
        members: epochs.members().iter().enumerate().map(info).collect(),
        outsiders: (0..regions.len()).filter_map(outsider).collect(),
    }
}

/// What a change did.
#[derive(Debug)]
pub struct Changed {
    /// What was copied.
    pub report: Report,
    /// The epoch that made the change; `None` where none was needed.
    pub epoch: Option<Epoch>,
    /// The members now; the first is home.
    pub members: Vec<Member>,
}

fn wish(targets: Option<RegionSet>, means: Means<'_>) -> Wish<'_> {
    Wish { depth: Depth::Packs, targets, dry_run: false, means }
}

/// The members without this one.
fn all_but(members: &[Member], gone: Option<RegionId>) -> Vec<Member> {
    members.iter().filter(|member| Some(member.id) != gone).cloned().collect()
}

/// Every one of these must answer and be in order.
fn all_answer(repo: &Repo, members: &[Member]) -> Result<RegionSet> {
    let mut at = RegionSet::NONE;
    for member in members {
        let there = (0..repo.regions.len()).find(|ix| repo.regions.region(*ix).id == Some(member.id));
        match there {
            Some(ix) if repo.writable().has(ix) => at = at.with(ix),
            there => {
                let why = there
                    .and_then(|ix| repo.regions.failure(ix))
                    .map_or_else(|| "no configured region shows its mark".to_owned(), |e| e.what().to_owned());
                let what = format!("region {} is a member and cannot be used now: {why}", member.name);
                return Err(Error::new(Kind::Retry, what).advise(
                    "regions are changed only while every other member answers: bring it back and name it in the \
                     configuration, or see `holdfast region remove --lost` and `holdfast region repair`",
                ));
            }
        }
    }
    Ok(at)
}

/// Where the next epoch is decided: at home. If home itself is what is `gone`, the first of the others takes its place:
/// whoever asked for this has vouched that it will not answer again.
fn home(repo: &Repo, epochs: &Epochs, gone: Option<RegionId>) -> Result<usize> {
    let mut candidates = epochs.members().iter().filter(|member| Some(member.id) != gone && !member.is_weak());
    match epochs.members().first() {
        Some(home) if Some(home.id) != gone => place_of(repo, home).ok_or_else(|| {
            Error::new(Kind::Retry, format!("the home region {} cannot be reached, and only it decides", home.name))
                .advise("bring it back, then run again; nothing was changed")
        }),
        _ => candidates
            .find_map(|member| place_of(repo, member))
            .ok_or_else(|| Error::new(Kind::Refused, "no other member is left that could take the change")),
    }
}

/// Finishes a change that was begun, by this program or another. One member need not answer: that which is `gone`, by the
/// word of whoever asks. What was begun is decided as it was begun, and the next change leaves that member out; so there is one
/// decision of an epoch, whoever comes to it.
///
/// # Errors
/// A prune is at work, or a member does not answer.
pub fn settle(repo: &Arc<Repo>, gone: Option<RegionId>, means: Means<'_>) -> Result<Epochs> {
    let mut epochs = repo.epochs_since(repo.epochs());
    if epochs.unended().is_some_and(|unended| !unended.condemns) {
        epochs = spread(repo, &epochs);
    }
    let Some(unended) = epochs.unended() else { return Ok(epochs) };
    if unended.condemns {
        let what = format!("a prune is at work, or was cut off: epoch {} is not decided", unended.number);
        return Err(
            Error::new(Kind::Refused, what).advise("let it finish, or finish it with `holdfast prune`; then run again")
        );
    }
    let stay = all_but(epochs.members(), gone);
    let at = all_answer(repo, &stay)?;
    let decides = home(repo, &epochs, gone)?;
    members::resolve(repo, &epochs)?;
    // A region that goes may hold the outcome of a session that ended just now.
    if !at.covers(repo.usable()) {
        let pass = replicate::pass(repo, wish(Some(at), means))?;
        all_answer(repo, &stay)?;
        let lacking = at.iter().find(|ix| pass.lack.get(*ix).is_some_and(|lack| lack.objects() > 0));
        if let Some(ix) = lacking {
            return Err(Error::new(Kind::Retry, "lacks something that only a region may have which goes")
                .at(format!("region {}", repo.regions.region(ix).name))
                .advise("the change is begun and not decided: run again"));
        }
    }
    let mut now = repo.epochs_since(&epochs);
    // One that was emptied or rolled back meanwhile must not look as if it had not been.
    all_answer(repo, &stay)?;
    // An end that only the region shows which goes must not go with it.
    let lags = at.iter().filter(|ix| !now.lacking(*ix).is_empty());
    let failed: Vec<Error> = lags.filter_map(|ix| members::bring_epochs(repo, &now, ix).err()).collect();
    now = repo.epochs_since(&now);
    all_answer(repo, &stay)?;
    // Somebody may have begun another one in place of a home that was given up meanwhile.
    if now.newest() != unended.number || !now.is_in_force(&Key::EpochBegin(unended.number, 0), &unended.begin) {
        return Err(overtaken());
    }
    if let Some(ix) = at.iter().find(|ix| !now.lacking(*ix).is_empty()) {
        let why = failed.first().map(|e| format!(": {e}")).unwrap_or_default();
        return Err(Error::new(Kind::Retry, format!("lacks an epoch that another region shows{why}"))
            .at(format!("region {}", repo.regions.region(ix).name))
            .advise("the change is begun and not decided: run again"));
    }
    // Somebody may have decided it, perhaps elsewhere: one end is enough.
    if now.unended().is_some() {
        members::end(repo, &now, decides, &unended)?;
    }
    epochs = repo.epochs_since(&now);
    Ok(spread(repo, &epochs))
}

/// Decides an epoch that a prune began and that nobody can carry through once this member is lost, since every member must
/// answer for that: nothing of its list is doomed, which is safe whatever was seen of it, and the next prune lists it anew.
///
/// # Errors
/// One of the others does not answer.
pub fn spare_all(repo: &Repo, lost: &Member) -> Result<()> {
    let epochs = repo.epochs_since(repo.epochs());
    let Some(unended) = epochs.unended().filter(|unended| unended.condemns) else { return Ok(()) };
    // It answers: then the prune can be carried through, and it is not lost.
    if place_of(repo, lost).is_some() {
        return Ok(());
    }
    let left = all_but(epochs.members(), Some(lost.id));
    all_answer(repo, &left)?;
    // Who has read the beginning in one region only must not be left with it: the end follows it everywhere.
    let epochs = spread(repo, &epochs);
    if epochs.unended().is_none_or(|still| still.begin != unended.begin) {
        return Ok(());
    }
    members::end(repo, &epochs, home(repo, &epochs, Some(lost.id))?, &unended)?;
    spread(repo, &repo.epochs_since(&epochs));
    Ok(())
}

/// Brings every region that answers the epochs that it lacks, also one that is no member any more: it must know. A member
/// that was rolled back, or emptied, must not look as if it had not been.
fn spread(repo: &Repo, epochs: &Epochs) -> Epochs {
    let is_member = |ix| epochs.members().iter().any(|member| repo.regions.region(ix).id == Some(member.id));
    for ix in repo.usable().iter().filter(|ix| !epochs.has_lost(*ix) || !is_member(*ix)) {
        members::copy_epochs(repo, epochs, ix);
    }
    repo.epochs_since(epochs)
}

/// What was looked at is not what counts any more.
fn overtaken() -> Error {
    Error::new(Kind::Refused, "somebody else changed the regions just now").advise("run again")
}

fn change(
    repo: &Arc<Repo>,
    before: &Epochs,
    gone: Option<RegionId>,
    members: Vec<Member>,
    means: Means<'_>,
) -> Result<Epoch> {
    let now = repo.epochs_since(before);
    if now.members() != before.members() || now.newest() != before.newest() {
        return Err(overtaken());
    }
    // Filling took its time: an epoch that is begun can be decided only while all of them answer.
    let stay: Vec<Member> = members.iter().filter(|member| now.members().contains(member)).cloned().collect();
    all_answer(repo, &stay)?;
    members::begin(repo, &now, home(repo, &now, gone)?, members.clone())?;
    let epochs = settle(repo, gone, means)?;
    // Another one of this number may have been begun, in place of a home that was given up, and count instead.
    match epochs.members_after(now.newest()) == Some(&members[..]) {
        true => Ok(epochs.newest()),
        false => Err(overtaken()),
    }
}

/// Makes a region that has a mark, and is no member yet, a member: fills it first. With `replaces` it takes the place of
/// a member that lost everything. Cut off at any time it can be done again.
///
/// # Errors
/// A member does not answer, the region was removed before or failed, somebody else was quicker.
pub fn admit(repo: &Arc<Repo>, ix: usize, replaces: Option<RegionId>, means: Means<'_>) -> Result<Changed> {
    repo.may_write()?;
    let own = repo.regions.region(ix);
    let unread = || Error::new(Kind::Retry, "its mark cannot be read").at(format!("region {}", own.name));
    let id = own.id.ok_or_else(|| repo.regions.failure(ix).unwrap_or_else(unread))?;
    let lost = |member: &&Member| Some(member.id) == replaces;
    if let Some(lost) = repo.epochs_since(repo.epochs()).members().iter().find(lost) {
        spare_all(repo, lost)?;
    }
    let epochs = settle(repo, replaces, means)?;
    if epochs.members().iter().any(|member| member.id == id) {
        let report = replicate::run(repo, wish(None, means))?;
        return Ok(Changed { report, epoch: None, members: epochs.members().to_vec() });
    }
    if let Some(by) = epochs.removed(id) {
        let what = format!("this place was removed from the repository by epoch {by}, and what it has may be outdated");
        return Err(Error::new(Kind::Refused, what)
            .at(format!("region {}", own.name))
            .advise("empty it, then add it as a new one"));
    }
    let me = Member { id, name: own.name.clone(), weak: repo.regions.is_weak(ix).then_some(true) };
    let next = next_members(epochs.members(), me, replaces)?;
    let others = all_but(&next, Some(id));
    all_answer(repo, &others)?;
    // Before anything is copied: somebody must be there who may take the change.
    home(repo, &epochs, replaces)?;
    members::copy_epochs(repo, &epochs, ix);
    let mut filled = replicate::run(repo, wish(Some(RegionSet::of([ix])), means))?;
    if replaces.is_some() {
        members::close_sessions(repo, &epochs, (ix, replaces))?;
        // Those that made their snapshots meanwhile took it for one that has what the old one had.
        filled = filled.then(replicate::run(repo, wish(Some(RegionSet::of([ix])), means))?);
    }
    still_answers(repo, ix)?;
    has_room(repo, ix, &filled)?;
    let epoch = change(repo, &epochs, replaces, next.clone(), means)?;
    // What was made meanwhile. That the place had nothing was found when the repository was opened, and is over.
    let mut report = replicate::run(repo, wish(None, means))?;
    if report.regions.get(ix).is_some_and(|region| region.lack.objects() == 0) {
        let name = &repo.regions.region(ix).name;
        report.findings.retain(|finding| finding.flaw != Flaw::Missing || finding.region != *name);
    }
    Ok(Changed { report: filled.then(report), epoch: Some(epoch), members: next })
}

fn next_members(now: &[Member], me: Member, replaces: Option<RegionId>) -> Result<Vec<Member>> {
    if let Some(same) = now.iter().find(|member| member.name == me.name && Some(member.id) != replaces) {
        let what = format!("a member is called {} already", same.name);
        return Err(Error::new(Kind::Refused, what).advise("use another name, or `holdfast region repair`"));
    }
    let was_home = replaces.is_some() && now.first().map(|member| member.id) == replaces;
    let mut next = all_but(now, replaces);
    // What lost everything decides nothing from now on.
    let place = now.iter().position(|member| Some(member.id) == replaces).filter(|_| !was_home);
    next.insert(place.unwrap_or(next.len()).min(next.len()), me);
    members::home_first(&mut next)?;
    if next.len() > crate::region::REGIONS_MAX {
        return Err(Error::new(Kind::Refused, "a repository has at most 32 regions"));
    }
    Ok(next)
}

/// A region that failed while it was filled is not filled. That it is no member yet is why it is filled.
fn still_answers(repo: &Repo, ix: usize) -> Result<()> {
    if repo.usable().has(ix) {
        return Ok(());
    }
    let why = repo.regions.failure(ix).map_or_else(|| "failed".to_owned(), |e| e.to_string());
    let what = format!("region {} could not be filled: {why}", repo.regions.region(ix).name);
    Err(Error::new(Kind::Retry, what).advise("run again: what was copied is not copied again"))
}

/// Where something else stands at keys of the repository, there is no room for it.
fn has_room(repo: &Repo, ix: usize, filled: &Report) -> Result<()> {
    let name = &repo.regions.region(ix).name;
    let lacks = filled.regions.get(ix).map_or(0, |region| region.lack.objects());
    match filled.findings.iter().find(|finding| finding.region == *name) {
        Some(odd) if lacks > 0 => Err(Error::new(Kind::Refused, format!("{lacks} objects have no room there: {odd}"))
            .at(format!("region {name}"))
            .advise("empty the place, then run again")),
        _ => Ok(()),
    }
}

/// The member that a person means: by the name in the configuration, by that in the repository, or by digits of its id.
///
/// # Errors
/// None or several.
pub fn find(repo: &Repo, name: &str) -> Result<Member> {
    let epochs = repo.epochs_since(repo.epochs());
    let configured = (0..repo.regions.len()).find(|ix| repo.regions.region(*ix).name == name);
    let shown = configured.and_then(|ix| repo.regions.region(ix).id);
    let by = |test: &dyn Fn(&Member) -> bool| -> Vec<Member> {
        epochs.members().iter().filter(|member| test(member)).cloned().collect()
    };
    let by_id = by(&|member| shown == Some(member.id));
    let by_name = by(&|member| member.name == name && shown.is_none());
    let by_digits = by(&|member| name.len() >= 4 && member.id.hex().starts_with(name));
    let found = [by_id, by_name, by_digits].into_iter().find(|found| !found.is_empty()).unwrap_or_default();
    match found.as_slice() {
        [one] => Ok(one.clone()),
        _ => Err(Error::new(Kind::NotFound, format!("`{name}` names {} members of this repository", found.len()))
            .advise("see `holdfast region list`")),
    }
}

/// The member that a person calls lost, unless it answers: then it is not.
pub fn lost(repo: &Repo, name: &str) -> Option<RegionId> {
    let who = find(repo, name).ok().filter(|who| place_of(repo, who).is_none());
    who.map(|who| who.id)
}

/// Whether a configured region shows its mark, and has lost everything else.
pub fn is_emptied(repo: &Repo, ix: usize) -> bool {
    repo.epochs_since(repo.epochs()).is_emptied(ix)
}

/// Whether a member may go, and what the others lacked of it. With `lost` it is not asked any more.
///
/// # Errors
/// Too few would be left, one of the others does not answer, or it has something that the others lack.
pub fn may_go(repo: &Arc<Repo>, who: &Member, lost: bool, means: Means<'_>) -> Result<Option<Report>> {
    repo.may_write()?;
    // Before anything is decided without it.
    match place_of(repo, who) {
        Some(_) if lost => {
            return Err(Error::new(Kind::Refused, "it answers, so it is not lost")
                .at(format!("region {}", who.name))
                .advise("remove it without --lost: what only it has is saved first"));
        }
        None if !lost => {
            return Err(Error::new(Kind::Refused, "it does not answer, and what only it has would be lost")
                .at(format!("region {}", who.name))
                .advise("bring it back, or say --lost if it will never answer again"));
        }
        _ => {}
    }
    let epochs = settle(repo, lost.then_some(who.id), means)?;
    let left = all_but(epochs.members(), Some(who.id));
    if left.is_empty() || (!lost && left.len() < repo.copies_min) {
        let what = format!("{} regions would be left, and copies.min is {}", left.len(), repo.copies_min);
        return Err(Error::new(Kind::Refused, what)
            .at(format!("region {}", who.name))
            .advise("add another region first, or ask for fewer copies"));
    }
    members::home_first(&mut left.clone())?;
    let at = all_answer(repo, &left)?;
    if lost {
        return Ok(None);
    }
    let report = replicate::run(repo, wish(Some(at), means))?;
    all_answer(repo, &left)?;
    for (ix, region) in report.regions.iter().enumerate().filter(|(ix, _)| at.has(*ix)) {
        let odd = report.findings.iter().find(|finding| finding.region == region.region);
        let why = match (region.lack.objects(), odd) {
            (0, None) => continue,
            (0, Some(odd)) => format!("region {} has damaged objects: {odd}", repo.regions.region(ix).name),
            (n, _) => format!("{n} objects could not be brought to region {}", region.region),
        };
        return Err(only_good_copy(who, &why));
    }
    shown_by_some(repo, at, who)?;
    Ok(Some(report))
}

/// Every snapshot must be shown by one of those that stay: where its session was ended for that region's sake, it can never
/// be brought, and is not counted as lacking.
fn shown_by_some(repo: &Repo, at: RegionSet, who: &Member) -> Result<()> {
    for sid in View::load(repo)?.snapshots.keys() {
        let shown = at.iter().try_fold(false, |shown, ix| Ok(shown || view::shows_manifest(repo, *sid, ix)?))?;
        if !shown {
            let why = format!("snapshot {} ended in every region that stays, and cannot be brought there", sid.short());
            return Err(only_good_copy(who, &why));
        }
    }
    Ok(())
}

/// The refusal to let go of what may be the only good copy.
pub fn only_good_copy(who: &Member, why: &str) -> Error {
    Error::new(Kind::Refused, format!("it may hold the only good copy of something: {why}"))
        .at(format!("region {}", who.name))
        .advise("heal the other regions first: `holdfast verify --level ciphertext --repair`")
}

/// Takes a member out, after [`may_go`].
///
/// # Errors
/// One of the others does not answer, or somebody else was quicker.
pub fn remove(repo: &Arc<Repo>, who: &Member, lost: bool, means: Means<'_>) -> Result<(Epoch, Vec<Member>)> {
    let epochs = repo.epochs_since(repo.epochs());
    let mut left = all_but(epochs.members(), Some(who.id));
    if left.len() == epochs.members().len() {
        return Err(Error::new(Kind::Refused, "somebody else removed it just now").at(format!("region {}", who.name)));
    }
    members::home_first(&mut left)?;
    let epoch = change(repo, &epochs, lost.then_some(who.id), left.clone(), means)?;
    Ok((epoch, left))
}

/// Brings a member forward that shows its own mark: epochs first, however many it lacks, ends of sessions that may have
/// used what it lost, then everything else.
///
/// # Errors
/// It failed, or cannot be told from a region of another time.
pub fn bring_forward(repo: &Arc<Repo>, ix: usize, means: Means<'_>) -> Result<Changed> {
    repo.may_write()?;
    let before = repo.epochs_since(repo.epochs());
    let own = repo.regions.region(ix).id;
    let others = all_but(before.members(), own);
    all_answer(repo, &others)?;
    // Before the epochs, which open it to writers: what is cut off here is done again.
    if !repo.writable().has(ix) {
        members::close_sessions(repo, &before, (ix, own))?;
    }
    members::copy_epochs(repo, &before, ix);
    let filled = replicate::run(repo, wish(Some(RegionSet::of([ix])), means))?;
    still_answers(repo, ix)?;
    let epochs = settle(repo, None, means)?;
    let report = replicate::run(repo, wish(None, means))?;
    Ok(Changed { report: filled.then(report), epoch: None, members: epochs.members().to_vec() })
}
