//! What a walk knows of a file.

use super::attrs;
use crate::format::leaf::Meta;
use crate::format::tree::{Entry, EntryType};
use rustix::fs::Stat;

/// A file as a walk meets it: most have not changed, and need no more than to be compared.
#[derive(Debug, Clone)]
pub struct Found {
    name: Vec<u8>,
    stat: Stat,
}

impl Found {
    pub(super) fn new(name: Vec<u8>, stat: Stat) -> Found {
        Found { name, stat }
    }

    /// Its name.
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// What the file system says of it.
    pub fn meta(&self) -> Meta {
        Meta::of(&self.nameless())
    }

    fn nameless(&self) -> Entry {
        let mut entry = Entry::bare(b"", EntryType::File);
        attrs::fill(&mut entry, &self.stat);
        entry
    }

    /// Its entry, without content and attributes.
    pub fn entry(self) -> Entry {
        let entry = self.nameless();
        Entry { name: self.name.into(), ..entry }
    }
}
