//! Tags: those of a snapshot's manifest, and what was changed since. A change of any region counts, by a writer who might
//! have written the snapshot; changes follow each other by their times.

use super::{Repo, SMALL_OBJECT_BYTES_MAX};
use crate::base::{SessionId, TagsId};
use crate::format::FormatError;
use crate::format::envelope::Kind as ObjectKind;
use crate::format::objects::Tags;
use crate::format::snapshot::Manifest;
use crate::region::{Lists, by_key};
use crate::store::Key;
use std::collections::BTreeMap;

/// Most tags of a snapshot.
pub const TAGS_MAX: usize = 256;

/// A change with the sources that its writer may write; none: all.
struct Change {
    tags: Tags,
    sources: Vec<String>,
}

/// All changes, by snapshot.
pub struct Changes(BTreeMap<SessionId, Vec<Change>>);

impl Changes {
    /// Reads all that are listed. What does not verify says nothing; reading it records it.
    pub fn load(repo: &Repo, lists: &Lists) -> Changes {
        let mut all: BTreeMap<SessionId, Vec<Change>> = BTreeMap::new();
        for (key, at) in by_key(lists) {
            let Key::Tags(id) = key else { continue };
            let read = |bytes: &[u8]| open(repo, &key, id, bytes);
            if let Ok(change) = repo.regions.read(at, &key, SMALL_OBJECT_BYTES_MAX, read) {
                all.entry(change.tags.sid).or_default().push(change);
            }
        }
        all.values_mut().for_each(|changes| changes.sort_by_key(|change| (change.tags.created, change.tags.id)));
        Changes(all)
    }

    /// Gives a manifest the tags that its snapshot has now.
    pub fn apply(&self, manifest: &mut Manifest) {
        for Change { tags, sources } in self.0.get(&manifest.sid).into_iter().flatten() {
            if sources.is_empty() || sources.contains(&manifest.source.name) {
                changed(&mut manifest.tags, &tags.removed, &tags.added);
            }
        }
    }
}

/// Takes tags off, and puts others on.
pub fn changed(tags: &mut Vec<String>, removed: &[String], added: &[String]) {
    tags.retain(|tag| !removed.contains(tag));
    for tag in added {
        if !tags.contains(tag) && tags.len() < TAGS_MAX {
            tags.push(tag.clone());
        }
    }
}

fn open(repo: &Repo, key: &Key, id: TagsId, bytes: &[u8]) -> std::result::Result<Change, FormatError> {
    let opened = repo.open_object(key, bytes)?;
    let tags: Tags = opened.decode("change of tags")?;
    if opened.kind != ObjectKind::Tags || tags.id != id {
        return Err(FormatError::Unsigned("not this change of tags"));
    }
    let sources = repo.ring.writer(&opened.writer).map(|writer| writer.sources.clone()).unwrap_or_default();
    Ok(Change { tags, sources })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_on_stays_and_comes_once() {
        let text = |tags: &[&str]| tags.iter().map(|tag| (*tag).to_owned()).collect::<Vec<String>>();
        let mut tags = text(&["a", "b"]);
        changed(&mut tags, &text(&["a", "x"]), &text(&["b", "c", "a"]));
        assert_eq!(tags, text(&["b", "c", "a"]));
        let many: Vec<String> = (0..1000).map(|n| n.to_string()).collect();
        changed(&mut tags, &[], &many);
        assert_eq!(tags.len(), TAGS_MAX);
    }
}
