//! What `SNAPSHOT[:PATH]` names, and how it is read.

use super::args::Filter;
use super::common::passes;
use super::output::remark;
use crate::error::{Exit, Result};
use crate::ops::browse;
use crate::repo::Repo;
use crate::repo::index::Index;
use crate::repo::reader::Reader;
use crate::repo::view::{Snapshot, View};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

/// A reader over everything that the regions have.
pub fn reader(repo: &Arc<Repo>) -> Result<Reader> {
    Ok(Reader::near(Arc::clone(repo), Arc::new(Index::load(repo)?)))
}

/// What `SNAPSHOT[:PATH]` names.
pub struct Named<'v, 't> {
    pub snapshot: &'v Snapshot,
    pub path: &'t [u8],
    /// How to end at best: with damage, if the snapshot may not be the one that was meant.
    pub exit: Exit,
}

/// The snapshot that `SNAPSHOT[:PATH]` names, and the path. Says aloud what makes it unsure.
pub fn find<'v, 't>(view: &'v View, text: &'t OsStr, filter: &Filter) -> Result<Named<'v, 't>> {
    let (name, path) = browse::split_target(text.as_bytes());
    let name = String::from_utf8_lossy(name);
    let snapshot = view.find(&name, |m| passes(filter, m))?;
    let doubt = view.doubt(&name);
    if let Some(why) = &doubt {
        remark(&format!("warning: this is {}, but {why}", snapshot.manifest.sid.short()));
    }
    Ok(Named { snapshot, path, exit: if doubt.is_some() { Exit::Damage } else { Exit::Done } })
}
