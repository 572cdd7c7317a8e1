//! Holds: what must be kept, forgotten or not. A hold of any region counts until a release of any region
//! verifies, or until the end that it names.

use super::{Repo, SMALL_OBJECT_BYTES_MAX, changed};
use crate::base::{HoldId, SessionId};
use crate::error::{Error, Kind, Result};
use crate::format::FormatError;
use crate::format::envelope::Kind as ObjectKind;
use crate::format::objects::{Hold, HoldRelease};
use crate::region::RegionSet;
use crate::store::{Key, Prefix};
use std::collections::BTreeSet;

/// A hold that was not released.
#[derive(Debug, Clone)]
pub struct Held {
    /// As it was made.
    pub hold: Hold,
    /// Regions that list it.
    pub regions: RegionSet,
    /// Whether its end has not come yet.
    pub active: bool,
}

/// All holds that were not released.
#[derive(Debug, Clone, Default)]
pub struct Holds {
    /// The oldest first.
    pub all: Vec<Held>,
    /// Those that were released.
    pub released: BTreeSet<HoldId>,
    /// A hold that cannot be read, and why: it may hold any snapshot.
    pub unreadable: Option<Error>,
}

impl Holds {
    /// Reads them all. What does not verify says nothing; reading it records it. A region that cannot be listed is
    /// marked as failed.
    pub fn load(repo: &Repo) -> Holds {
        let before = repo.usable();
        let listed = repo.regions.listed(before, Prefix::Holds);
        let failed = before.iter().find(|ix| !repo.usable().has(*ix));
        let mut holds = Holds { unreadable: failed.and_then(|ix| repo.regions.failure(ix)), ..Holds::default() };
        for (key, at) in &listed {
            if let Key::Hold(id) = *key {
                holds.add(repo, id, *at, listed.get(&Key::HoldRelease(id)).copied());
            }
        }
        holds.all.sort_by_key(|held| (held.hold.created, held.hold.hold));
        holds
    }

    fn add(&mut self, repo: &Repo, id: HoldId, at: RegionSet, release: Option<RegionSet>) {
        let key = Key::HoldRelease(id);
        let check = |bytes: &[u8]| open_release(repo, &key, id, bytes);
        if release.is_some_and(|at| repo.regions.read(at, &key, SMALL_OBJECT_BYTES_MAX, check).is_ok()) {
            self.released.insert(id);
            return;
        }
        let key = Key::Hold(id);
        // Torn or rotten: what a hold holds cannot be told any more. Somebody else's object holds nothing.
        let mut torn = false;
        let read = repo.regions.read(at, &key, SMALL_OBJECT_BYTES_MAX, |bytes| {
            open_hold(repo, &key, id, bytes).inspect_err(|why| torn |= matches!(why, FormatError::Damaged(_)))
        });
        match read {
            Ok(hold) => {
                let active = hold.until.is_none_or(|until| until > repo.env.now().0);
                self.all.push(Held { hold, regions: at, active });
            }
            Err(e) if torn || matches!(e.kind(), Kind::Retry | Kind::Denied | Kind::Newer) => self.unreadable = Some(e),
            // Whole, and by nobody who is known here: whoever holds may have come with keys that are newer.
            Err(_) => {
                if let Err(e) = changed::keys_stand(repo) {
                    self.unreadable = Some(e);
                }
            }
        }
    }

    /// The same, where it must be certain that none was missed.
    ///
    /// # Errors
    /// [`Kind::Refused`]: one cannot be read.
    pub fn certain(repo: &Repo) -> Result<Holds> {
        let holds = Self::load(repo);
        match holds.unreadable {
            Some(e) => Err(e.with_kind(Kind::Refused).advise("it may hold any snapshot: put a good copy back first")),
            None => Ok(holds),
        }
    }

    /// Those that hold a snapshot now.
    pub fn of(&self, sid: SessionId) -> impl Iterator<Item = &Held> {
        self.all.iter().filter(move |held| held.active && held.hold.sid == sid)
    }

    /// The snapshots that are held now.
    pub fn held(&self) -> BTreeSet<SessionId> {
        self.all.iter().filter(|held| held.active).map(|held| held.hold.sid).collect()
    }

    /// The hold that the first digits of an id mean.
    ///
    /// # Errors
    /// None, or several.
    pub fn find(&self, text: &str) -> Result<&Held> {
        let starts = |id: HoldId| !text.is_empty() && id.hex().starts_with(text);
        let hits: Vec<&Held> = self.all.iter().filter(|held| starts(held.hold.hold)).collect();
        match hits.as_slice() {
            [one] => Ok(one),
            [] if self.released.iter().any(|id| starts(*id)) => {
                Err(Error::new(Kind::NotFound, format!("hold {text} was released already")))
            }
            [] => Err(Error::new(Kind::NotFound, format!("no hold `{text}`")).advise("see `holdfast hold list`")),
            _ => Err(Error::new(Kind::Config, format!("`{text}` fits {} holds", hits.len()))
                .advise("give more digits of the id")),
        }
    }
}

fn open_hold(repo: &Repo, key: &Key, id: HoldId, bytes: &[u8]) -> std::result::Result<Hold, FormatError> {
    let opened = repo.open_object(key, bytes)?;
    let hold: Hold = opened.decode("hold")?;
    let fits = opened.kind == ObjectKind::Hold && hold.hold == id;
    if fits { Ok(hold) } else { Err(FormatError::Unsigned("not this hold")) }
}

fn open_release(repo: &Repo, key: &Key, id: HoldId, bytes: &[u8]) -> std::result::Result<(), FormatError> {
    let opened = repo.open_object(key, bytes)?;
    let fits = opened.kind == ObjectKind::HoldRelease && opened.decode::<HoldRelease>("hold release")?.hold == id;
    if fits { Ok(()) } else { Err(FormatError::Unsigned("not the release of this hold")) }
}
