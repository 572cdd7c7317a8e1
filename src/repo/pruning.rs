//! Epochs of a prune: its list is the beginning, the decision its end.
//!
//! Order: `begin` at home with the condemned packs in it (its creation is the change of epoch), copies in every region,
//! read back; then everything that must happen in between; then `end` at home, and its copies. Cut off anywhere, any
//! prune goes on: the list stands in `begin`.

use super::epochs::{Epochs, Unended};
use super::members::{self, First, bytes_of, copy_epochs, place_of, put_first};
use super::{Repo, changed};
use crate::base::{Epoch, PackName};
use crate::error::{Error, Kind, Result};
use crate::format::envelope::Kind as ObjectKind;
use crate::format::objects::{EpochBegin, LIST_PACKS_MAX, Root};
use crate::format::signed::Fresh;
use crate::region::{self, RegionSet};
use crate::store::Key;

/// The region that decides the numbered series. It must still go by the mark by which it was found: under another one it was
/// emptied and filled again, by somebody who took what was begun for lost, and what is put there would be beside what was
/// decided without it.
fn home(repo: &Repo, epochs: &Epochs) -> Result<usize> {
    let place = epochs.members().first().and_then(|home| place_of(repo, home));
    let home = place.ok_or_else(|| {
        Error::new(Kind::Retry, "the home region does not answer, and only it decides")
            .advise("bring it back, then run again; nothing was removed")
    })?;
    let known = repo.regions.region(home);
    match region::read_mark(&repo.regions, home) {
        Ok(mark) if Some(mark.region) == known.id => Ok(home),
        Err(e) if e.kind() != Kind::NoRepository => Err(e),
        _ => {
            let name = &known.name;
            let advice = format!(
                "is the disk mounted? If it was emptied or replaced: `holdfast region repair {name} --emptied`, unless \
                 somebody does that; then run again: nothing was removed"
            );
            Err(Error::new(Kind::Retry, "does not show the mark by which it was found")
                .at(format!("region {name}"))
                .advise(advice))
        }
    }
}

/// Every member, all of which must answer and be in order.
///
/// # Errors
/// One of them does not, or was rolled back.
pub fn all_members(repo: &Repo, epochs: &Epochs) -> Result<RegionSet> {
    let mut at = RegionSet::NONE;
    for member in epochs.members() {
        let there = (0..repo.regions.len()).find(|ix| repo.regions.region(*ix).id == Some(member.id));
        match there.filter(|ix| repo.writable().has(*ix)) {
            Some(ix) => at = at.with(ix),
            None => {
                let why = there.and_then(|ix| repo.regions.failure(ix));
                let why = why.map_or_else(|| "no configured region shows its mark".to_owned(), |e| e.what().to_owned());
                let what = format!("region {} is a member and cannot be used now: {why}", member.name);
                return Err(Error::new(Kind::Retry, what)
                    .at("prune")
                    .advise("space is given back only while every member answers: bring it back, then run again"));
            }
        }
    }
    match at.is_empty() {
        true => Err(Error::new(Kind::Damage, "no valid epoch names the members")),
        false => Ok(at),
    }
}

/// Begins the next epoch at home, with what it condemns, or to say which snapshots there are. Says whether it was this call:
/// somebody else's beginning is to be carried through first.
///
/// # Errors
/// An epoch is undecided, or home failed.
pub fn begin(repo: &Repo, epochs: &Epochs, condemned: &[PackName], roots: Vec<Root>) -> Result<bool> {
    let next = epochs.newest().0.checked_add(1).map(Epoch);
    let number = next.ok_or_else(|| Error::new(Kind::Refused, "no further epoch is possible"))?;
    let says_nothing = condemned.is_empty() && roots.is_empty();
    if epochs.unended().is_some() || says_nothing || condemned.len() > LIST_PACKS_MAX {
        return Err(Error::new(Kind::Bug, "an epoch that must not begin"));
    }
    let begin = EpochBegin {
        fresh: Fresh { epoch: epochs.newest(), ..repo.fresh() },
        number,
        members: epochs.members().to_vec(),
        condemned: bytes_of(condemned),
        roots,
        created: repo.env.now().0,
    };
    let bytes = repo.seal(ObjectKind::EpochBegin, &Key::EpochBegin(number, 0).canonical(), &begin)?;
    let rival = |key: &Key, there: &[u8]| epochs.follows(repo.trust(), key, there);
    let first = put_first(repo, home(repo, epochs)?, |suffix| Key::EpochBegin(number, suffix), &bytes, rival)?;
    Ok(matches!(first, First::Ours))
}

/// Decides an epoch at home, unless somebody else did. Says whether it was this call.
///
/// # Errors
/// Home failed.
pub fn end(repo: &Repo, epochs: &Epochs, unended: &Unended, doomed: &[PackName], roots: Vec<Root>) -> Result<bool> {
    let first = members::decide(repo, epochs, home(repo, epochs)?, unended, (doomed, roots))?;
    Ok(matches!(first, First::Ours))
}

/// Copies every epoch to every member and reads them back there. One that was emptied or rolled back meanwhile must not look as
/// if it had not been.
///
/// # Errors
/// A member failed, has lost more than the newest epoch, or does not show what was put there; the keys were changed.
pub fn spread(repo: &Repo, epochs: &Epochs, members: RegionSet) -> Result<Epochs> {
    if let Some(ix) = members.iter().find(|ix| epochs.has_lost(*ix)) {
        let lost = || Error::new(Kind::Damage, "has lost what it had of the epochs");
        let region = repo.regions.region(ix);
        return Err(epochs.unwritable(ix, region).unwrap_or_else(lost).at(format!("region {}", region.name)));
    }
    members.iter().for_each(|ix| copy_epochs(repo, epochs, ix));
    let now = repo.epochs_since(epochs);
    if now.has_unknown_hand() {
        changed::keys_stand(repo)?;
    }
    let shows = |ix: usize| repo.usable().has(ix) && now.is_current(ix) && now.lacking(ix).is_empty();
    if let Some(ix) = members.iter().find(|ix| !shows(*ix)) {
        let why = repo.regions.failure(ix);
        let why = why.unwrap_or_else(|| Error::new(Kind::Retry, "does not show all epochs, which were copied there"));
        let region = format!("region {}", repo.regions.region(ix).name);
        return Err(why.at(region).advise("run again: an epoch that is begun is carried through"));
    }
    Ok(now)
}
