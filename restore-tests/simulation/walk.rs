//! What a snapshot needs and gives back, found by walking it.

use super::files::Tree;
use holdfast::base::{ChunkId, SessionId};
use holdfast::chunk::Coder;
use holdfast::format::snapshot::Manifest;
use holdfast::format::tree::{Entry, EntryType};
use holdfast::repo::Repo;
use holdfast::repo::index::Index;
use holdfast::repo::reader::Reader;
use holdfast::repo::tree::{DirReader, ListReader};
use holdfast::repo::view::View;
use holdfast::store::Key;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

#[derive(Debug, Default)]
pub struct Needs {
    pub source: String,
    pub chunks: BTreeSet<ChunkId>,
    pub tree: Tree,
}

fn said(e: impl std::fmt::Display) -> String {
    e.to_string()
}

/// Of a manifest's object.
pub fn manifest(repo: &Arc<Repo>, sid: SessionId, bytes: &[u8]) -> Result<Needs, String> {
    let opened = repo.open_object(&Key::Snapshot(sid), bytes).map_err(said)?;
    let manifest: Manifest = opened.decode("manifest").map_err(said)?;
    let reader = Reader::new(Arc::clone(repo), Arc::new(Index::load_afresh(repo).map_err(said)?));
    snapshot(&reader, &manifest)
}

/// Of every snapshot that a repository shows.
pub fn all(repo: &Arc<Repo>) -> Result<BTreeMap<SessionId, Result<Needs, String>>, String> {
    let view = View::load(repo).map_err(said)?;
    let reader = Reader::new(Arc::clone(repo), Arc::new(Index::load_afresh(repo).map_err(said)?));
    Ok(view.snapshots.iter().map(|(sid, shown)| (*sid, snapshot(&reader, &shown.manifest))).collect())
}

fn snapshot(reader: &Reader, manifest: &Manifest) -> Result<Needs, String> {
    let mut needs = Needs { source: manifest.source.name.clone(), ..Needs::default() };
    directory(reader, &manifest.root, "", &mut needs)?;
    Ok(needs)
}

fn directory(reader: &Reader, entry: &Entry, path: &str, needs: &mut Needs) -> Result<(), String> {
    let mut coder = Coder::default();
    let mut dir = DirReader::new(reader, entry.tree);
    let mut below = Vec::new();
    while let Some(entry) = dir.next(&mut coder).map_err(said)? {
        below.push(entry);
    }
    needs.chunks.extend(dir.take_pages());
    for entry in below {
        let name = String::from_utf8_lossy(&entry.name).into_owned();
        let path = if path.is_empty() { name } else { format!("{path}/{name}") };
        match entry.kind {
            EntryType::Dir => directory(reader, &entry, &path, needs)?,
            EntryType::File => {
                let bytes = file(reader, &entry, needs)?;
                needs.tree.insert(path, bytes);
            }
            _ => return Err(format!("{path} is of a kind that nobody made")),
        }
    }
    Ok(())
}

fn file(reader: &Reader, entry: &Entry, needs: &mut Needs) -> Result<Vec<u8>, String> {
    if let Some(inline) = &entry.inline {
        return Ok(inline.to_vec());
    }
    let mut coder = Coder::default();
    let mut bytes = Vec::new();
    let mut list = ListReader::new(reader, entry).map_err(said)?;
    while let Some(item) = list.next(&mut coder).map_err(said)? {
        needs.chunks.insert(item.id);
        bytes.extend(reader.chunk(&item.id, &mut coder).map_err(said)?);
    }
    needs.chunks.extend(list.take_pages());
    Ok(bytes)
}
