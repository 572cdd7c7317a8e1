//! Do the snapshots resolve: every tree, through the index, and what of it is nowhere intact.

use super::VerifyReport;
use crate::base::{Cancel, ChunkId, PackName};
use crate::chunk::Coder;
use crate::error::{Error, Kind, Result};
use crate::format::tree::{Entry, EntryType};
use crate::repo::gather::from_regions;
use crate::repo::reader::Reader;
use crate::repo::tree::{DirReader, ListReader, check_depth};
use crate::repo::view::View;
use crate::store::Key;
use std::collections::{HashMap, HashSet};

/// What became of the snapshots' trees.
#[derive(Default)]
pub(super) struct Resolved {
    /// Snapshots looked at.
    snapshots: u64,
    /// What cannot be restored.
    broken: Vec<String>,
}

/// Walks the trees while `beside` looks at the packs. What that finds gone may take files with it: then the trees are
/// walked again.
pub(super) fn trees_beside(
    (reader, view): (&Reader, &View),
    workers: usize,
    report: &mut VerifyReport,
    cancel: &Cancel,
    beside: impl FnOnce(&mut VerifyReport) -> Result<()>,
) -> Result<()> {
    // One that fails on the way has lost nothing by that.
    let regions = reader.repo.usable().count();
    let first = std::thread::scope(|scope| {
        let walk = (workers > 1).then(|| scope.spawn(|| trees(reader, view, &HashSet::new(), cancel)));
        let looked = beside(report);
        let walked = walk.map(|walk| walk.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        looked.map(|()| walked)
    })?;
    let gone = gone_everywhere(reader, regions);
    let resolved = match first {
        Some(resolved) if gone.is_empty() => resolved?,
        _ => trees(reader, view, &gone, cancel)?,
    };
    report.snapshots += resolved.snapshots;
    report.broken.extend(resolved.broken);
    Ok(())
}

/// Walks every tree once; names files whose chunks are in no index or only in packs known to be gone everywhere.
fn trees(reader: &Reader, view: &View, gone: &HashSet<PackName>, cancel: &Cancel) -> Result<Resolved> {
    let mut coder = Coder::default();
    let mut report = Resolved::default();
    let mut walked: HashSet<ChunkId> = HashSet::new();
    for snapshot in view.newest_first() {
        cancel.check()?;
        report.snapshots += 1;
        let sid = snapshot.manifest.sid.short();
        // One path for all: in a deep tree those of the open directories would add up to gigabytes.
        let mut path = Vec::new();
        if let Err(why) = attributes_resolve(reader, &snapshot.manifest.root, gone) {
            report.broken.push(format!("snapshot {sid}: /: {why}"));
        }
        let mut stack = vec![(0, DirReader::new(reader, snapshot.manifest.root.tree))];
        while let Some((prefix, dir)) = stack.last_mut() {
            cancel.check()?;
            let entry = match dir.next(&mut coder) {
                Ok(Some(entry)) => entry,
                Ok(None) => {
                    stack.pop();
                    continue;
                }
                Err(e) => {
                    let dir = path[..*prefix].strip_suffix(b"/").unwrap_or_default();
                    report.broken.push(format!("snapshot {sid}: /{}: {e}", shown(dir)));
                    stack.pop();
                    continue;
                }
            };
            path.truncate(*prefix);
            path.extend_from_slice(&entry.name);
            if let Err(why) = attributes_resolve(reader, &entry, gone) {
                report.broken.push(format!("snapshot {sid}: /{}: {why}", shown(&path)));
            }
            match entry.kind {
                EntryType::Dir if entry.tree.is_some_and(|id| walked.insert(id)) => match check_depth(stack.len()) {
                    Ok(()) => {
                        path.push(b'/');
                        stack.push((path.len(), DirReader::new(reader, entry.tree)));
                    }
                    Err(e) => report.broken.push(format!("snapshot {sid}: /{}: {e}", shown(&path))),
                },
                EntryType::File => {
                    if let Err(why) = file_resolves(reader, &entry, gone, &mut coder) {
                        report.broken.push(format!("snapshot {sid}: /{}: {why}", shown(&path)));
                    }
                }
                _ => {}
            }
        }
    }
    Ok(report)
}

/// A path for a report: bytes that are no text are replaced, and control characters shown as what they are.
fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).escape_debug().to_string()
}

/// Packs with a finding in every region that can be reached.
fn gone_everywhere(reader: &Reader, regions: usize) -> HashSet<PackName> {
    let findings = reader.repo.findings();
    let mut bad: HashMap<&str, HashSet<&str>> = HashMap::new();
    for finding in &findings {
        bad.entry(&finding.object).or_default().insert(&finding.region);
    }
    let gone = |name: &PackName| bad.get(Key::Pack(*name).path().as_str()).is_some_and(|at| at.len() >= regions);
    // Copies that are damaged at different places still have everything.
    reader.index.packs().into_keys().filter(|name| gone(name) && from_regions(&reader.repo, name).is_none()).collect()
}

/// Whether a chunk is named by the index and not only in packs known to be gone.
fn chunk_resolves(reader: &Reader, id: &ChunkId, gone: &HashSet<PackName>) -> bool {
    reader.index.locate(id).any(|at| !gone.contains(&at.pack.name))
}

/// Attributes that are kept out of line.
fn attributes_resolve(reader: &Reader, entry: &Entry, gone: &HashSet<PackName>) -> Result<()> {
    match entry.xattrs_ref {
        Some(id) if !chunk_resolves(reader, &id, gone) => {
            let what = format!("extended attributes: chunk {} is nowhere intact", id.short());
            Err(Error::new(Kind::Damage, what))
        }
        _ => Ok(()),
    }
}

fn file_resolves(reader: &Reader, entry: &Entry, gone: &HashSet<PackName>, coder: &mut Coder) -> Result<()> {
    let mut list = ListReader::new(reader, entry)?;
    while let Some(item) = list.next(coder)? {
        if item.id != ChunkId::HOLE && !chunk_resolves(reader, &item.id, gone) {
            let what = format!("chunk {} is nowhere intact", item.id.short());
            return Err(Error::new(Kind::Damage, what));
        }
    }
    Ok(())
}
