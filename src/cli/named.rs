//! What `SNAPSHOT[:PATH]` names, and how it is read.

use super::args::Filter;
use super::common::passes;
use super::output::{plain, remark};
use crate::error::{Error, Exit, Kind, Result};
use crate::format::snapshot::Manifest;
use crate::ops::{browse, etcd};
use crate::repo::Repo;
use crate::repo::index::Index;
use crate::repo::reader::Reader;
use crate::repo::view::{Snapshot, View};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

/// What names the newest snapshot.
const LATEST: &[u8] = b"latest";
/// So many sources are named.
const SHOWN_MAX: usize = 10;

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
    find_of(view, text, |m| passes(filter, m))
}

/// The same, of a cluster of etcd: `latest` is never one of files, nor one of several clusters.
pub fn find_etcd<'v, 't>(view: &'v View, text: &'t OsStr, filter: &Filter) -> Result<Named<'v, 't>> {
    if browse::split_target(text.as_bytes()).0 != LATEST {
        return find(view, text, filter);
    }
    let fits = |m: &Manifest| etcd::is_one(m) && passes(filter, m);
    let fitting = view.snapshots.values().filter(|s| fits(&s.manifest));
    let names: BTreeSet<&str> = fitting.map(|s| s.manifest.source.name.as_str()).collect();
    if names.len() > 1 {
        let shown: Vec<String> = names.iter().take(SHOWN_MAX).map(|name| plain(name)).collect();
        let more = if names.len() > SHOWN_MAX { ", …" } else { "" };
        let what = format!("`latest` may be of {} clusters of etcd: {}{more}", names.len(), shown.join(", "));
        return Err(Error::new(Kind::Config, what).advise("say which: --name SOURCE, or the snapshot's id"));
    }
    find_of(view, text, fits)
}

/// The snapshot that is named without a path; `latest` is the same one as for whoever restores.
///
/// # Errors
/// As [`View::find`].
pub fn snapshot<'v>(view: &'v View, name: &str, filter: &Filter) -> Result<&'v Snapshot> {
    meant(view, name, |m| passes(filter, m))
}

/// `latest` of a cluster is the one that is furthest on.
fn meant<'v>(view: &'v View, name: &str, fits: impl Fn(&Manifest) -> bool) -> Result<&'v Snapshot> {
    let found = view.find(name, &fits)?;
    Ok(if name.as_bytes() == LATEST { etcd::latest(view, found, fits) } else { found })
}

fn find_of<'v, 't>(view: &'v View, text: &'t OsStr, fits: impl Fn(&Manifest) -> bool) -> Result<Named<'v, 't>> {
    let (name, path) = browse::split_target(text.as_bytes());
    let name = String::from_utf8_lossy(name);
    let snapshot = meant(view, &name, fits)?;
    let doubt = view.doubt(&name);
    if let Some(why) = &doubt {
        remark(&format!("warning: this is {}, but {why}", snapshot.manifest.sid.short()));
    }
    Ok(Named { snapshot, path, exit: if doubt.is_some() { Exit::Damage } else { Exit::Done } })
}
