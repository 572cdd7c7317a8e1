//! Changing the tags of snapshots. A manifest is never changed: a signed change stands beside it.

use crate::base::TagsId;
use crate::error::{Error, Kind, Result};
use crate::format::envelope::Kind as ObjectKind;
use crate::format::objects::Tags;
use crate::region::RegionSet;
use crate::repo::Repo;
use crate::repo::tags::{TAGS_MAX, changed};
use crate::repo::view::Snapshot;
use crate::store::Key;

/// Longest tag, in bytes.
const TAG_BYTES_MAX: usize = 256;

/// What is to be changed.
#[derive(Debug, Clone, Default)]
pub struct Wish {
    /// Tags to put on.
    pub add: Vec<String>,
    /// Tags to take off.
    pub remove: Vec<String>,
    /// Exactly these.
    pub set: Option<Vec<String>>,
}

/// What was changed.
#[derive(Debug, Clone)]
pub struct Changed {
    /// The tags now.
    pub tags: Vec<String>,
    /// Regions that took the change; `None`: there was nothing to change.
    pub regions: Option<RegionSet>,
}

impl Wish {
    /// Refuses tags that nobody could give again.
    ///
    /// # Errors
    /// [`Kind::Config`]: an empty one, a long one, one with control characters.
    pub fn check(&self) -> Result<()> {
        for tag in self.add.iter().chain(self.set.iter().flatten()) {
            if tag.is_empty() || tag.len() > TAG_BYTES_MAX || tag.chars().any(char::is_control) {
                let what = format!("not a tag: {tag:?}");
                return Err(Error::new(Kind::Config, what).advise("a tag is text of at most 256 bytes, on one line"));
            }
        }
        Ok(())
    }

    /// What is taken off and put on, given the tags that there are.
    fn against(&self, tags: &[String]) -> (Vec<String>, Vec<String>) {
        let mut wanted = self.set.clone().unwrap_or_else(|| tags.to_vec());
        changed(&mut wanted, &self.remove, &self.add);
        let removed = tags.iter().filter(|tag| !wanted.contains(tag)).cloned().collect();
        let added = wanted.iter().filter(|tag| !tags.contains(tag)).cloned().collect();
        (removed, added)
    }
}

/// Changes the tags of a snapshot.
///
/// # Errors
/// Too many tags, or no region took the change.
pub fn change(repo: &Repo, snapshot: &Snapshot, wish: &Wish) -> Result<Changed> {
    repo.may_write()?;
    let mut tags = snapshot.manifest.tags.clone();
    let (removed, added) = wish.against(&tags);
    if removed.is_empty() && added.is_empty() {
        return Ok(Changed { tags, regions: None });
    }
    if tags.len() + added.len() - removed.len() > TAGS_MAX {
        return Err(Error::new(Kind::Config, format!("a snapshot has at most {TAGS_MAX} tags")));
    }
    changed(&mut tags, &removed, &added);
    let (id, sid) = (TagsId(repo.env.random()?), snapshot.manifest.sid);
    let key = Key::Tags(id);
    let object = Tags { fresh: repo.fresh(), id, sid, created: repo.env.now().0, removed, added };
    let bytes = repo.seal(ObjectKind::Tags, &key.canonical(), &object)?;
    let stored = repo.regions.put_all(repo.writable(), &key, &bytes);
    if stored.is_empty() {
        let why = repo.regions.failures().pop().map(|(_, e)| e);
        return Err(why.unwrap_or_else(|| Error::new(Kind::Retry, "no region can be written")));
    }
    Ok(Changed { tags, regions: Some(stored) })
}
